/* core/face/embed.h - chips to unit vectors, in batches.
 * Owns plans for batch sizes 1 2 4 8 … up to the cap; a batch runs on the
 * smallest that holds it. A face's embedding does not depend on what shares
 * its batch. Thread: one (the inference worker, or a tool). */
#ifndef CORE_FACE_EMBED_H
#define CORE_FACE_EMBED_H

#include "core/engine/graph.h"
#include "core/face/model.h"

struct embedder;

/* Loads the model onto dev and plans every batch size up to batch_max.
 * Borrows m. */
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

#endif
