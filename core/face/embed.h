/* core/face/embed.h - chips to unit vectors, in batches.
 * Owns plans for batch sizes 1 2 4 8 … up to the cap; a batch runs on the
 * smallest that holds it, unless embedder_cover_by_time was asked for. A face's
 * embedding does not depend on what shares its batch, but for rounding.
 * Thread: one (the inference worker, or a tool), except where it is said. */
#ifndef CORE_FACE_EMBED_H
#define CORE_FACE_EMBED_H

#include "core/engine/graph.h"
#include "core/face/model.h"

struct embedder;

/* Loads the model onto dev and plans every batch size up to batch_max.
 * Borrows m until it returns. */
struct embedder *embedder_new(struct device *dev, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err);
/* One more of the same on e's network, for a thread of its own; freed before
 * e. */
struct embedder *embedder_twin(const struct embedder *e, const struct model *m,
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

/* From now on faces are covered by the plans that take least time together, as
 * measured while running (5: 4 and 1, or 8 of which 3 are idle). For serving:
 * what is to be repeated to the last digit, as training, must not ask the
 * clock. */
void embedder_cover_by_time(struct embedder *e);

/* How a filled plan is run, in place of graph_forward: by another thread, for
 * one. After a failure neither chips nor plan are touched. */
typedef int (*embedder_forward_fn)(void *ctx, struct plan *p,
                                   struct error *err);
void embedder_set_forward(struct embedder *e, embedder_forward_fn forward,
                          void *ctx);
/* Run every plan on copies of chip, cold and once more for its time. *worst:
 * the largest squared distance of a row to want [dim]. */
int embedder_measure(struct embedder *e, const float *chip, const float *want,
                     float *worst, struct error *err);
/* About how long n faces take; 0 while nothing was measured. Thread: any. */
int64_t embedder_time_us(const struct embedder *e, int n);

#endif
