/* core/face/embed.h - chips to unit vectors, in batches.
 * A network (core/engine/batched.h) with plans for batch sizes 1 2 4 8 … up to
 * the cap; a batch runs on the smallest that holds it, unless
 * embedder_cover_by_time was asked for. A face's embedding does not depend on
 * what shares its batch, but for rounding.
 * Thread: one (the inference worker, or a tool), except where it is said. */
#ifndef CORE_FACE_EMBED_H
#define CORE_FACE_EMBED_H

#include "core/engine/batched.h"
#include "core/face/model.h"

struct embedder;

/* What makes a network of this model an embedder, for those who run it
 * themselves: batch sizes up to batch_max, rows made unit vectors. ERR_MODEL:
 * it is none; ERR_BAD_FIELD. Borrows m's name. */
int embedder_options(const struct model *m, int batch_max,
                     enum precision precision, struct batched_options *out,
                     struct error *err);

/* Loads the model onto dev and plans every batch size up to batch_max.
 * Borrows m until it returns. */
struct embedder *embedder_new(struct device *dev, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err);
void embedder_free(struct embedder *e);

/* chips: n pointers to [3,h,w]; out: n rows [dim], unit length. n up to any
 * number (run in rounds of batch_max). Where the network gives a vector that
 * is not finite or has no length, out of that row is NaN, the others are good,
 * and *bad counts them; without bad such a row is ERR_DEVICE. */
int embedder_run(struct embedder *e, const float *const *chips, int n,
                 float *out, int *bad, struct error *err);
int embedder_dim(const struct embedder *e);
int embedder_batch_max(const struct embedder *e);
enum precision embedder_precision(const struct embedder *e);

/* As batched_cover_by_time and batched_time_us. */
void embedder_cover_by_time(struct embedder *e);
int64_t embedder_time_us(const struct embedder *e, int n); /* Thread: any */

#endif
