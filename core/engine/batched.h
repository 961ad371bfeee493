/* core/engine/batched.h - a network for any number of inputs: plans of several
 * batch sizes, and which of them to run for what is there.
 * A row is what the network gives for one input: its outputs one after the
 * other. A row does not depend on what shares its batch, but for rounding.
 * Thread: one, except where it is said. */
#ifndef CORE_ENGINE_BATCHED_H
#define CORE_ENGINE_BATCHED_H

#include "core/engine/graph.h"

struct batched;

enum {
    BATCHED_MAX_SIZES = 16,
    BATCHED_MOST = 1024 /* inputs of one run */
};

struct batched_options {
    const char *name; /* of the model, for errors; outlives it */
    int h, w;         /* of an input, where the graph leaves them free */
    int sizes[BATCHED_MAX_SIZES]; /* growing; a batch runs on the smallest
                                     that holds it */
    int n_sizes;
    size_t n_input, dim; /* floats of an input, of a row: else ERR_MODEL */
    enum precision precision;
    /* What the n rows [dim] of a run are made into, in place; returns how many
     * are of no use, which it sets to NaN. NULL: as they are, and those with a
     * number that is not finite are of no use. */
    int (*finish)(float *rows, int n, size_t dim);
};

/* Sizes 1, factor, factor squared … up to most, which is one, too. */
void batched_sizes(struct batched_options *opt, int factor, int most);
/* Loads g onto dev and plans every size. g may be freed. */
struct batched *batched_new(struct device *dev, const struct graph *g,
                            const struct batched_options *opt,
                            struct error *err);
/* One more of the same on b's network, for a thread of its own; freed before
 * b. */
struct batched *batched_twin(const struct batched *b, struct error *err);
void batched_free(struct batched *b); /* NULL is fine */

/* inputs: n pointers; rows [n,dim]. n up to any number (run in rounds). *bad:
 * rows of no use; the others are good. */
int batched_run(struct batched *b, const float *const *inputs, int n,
                float *rows, int *bad, struct error *err);
int batched_most(const struct batched *b); /* inputs of one run */
enum precision batched_precision(const struct batched *b);

/* From now on inputs are covered by the plans that take least time together,
 * as measured while running (5: 4 and 1, or 8 of which 3 are idle). For
 * serving: what is to be repeated to the last digit must not ask the clock. */
void batched_cover_by_time(struct batched *b);
/* About how long n inputs take; 0 while nothing was measured. Thread: any. */
int64_t batched_time_us(const struct batched *b, int n);

/* How a filled plan is run, in place of graph_forward: by another thread, for
 * one. After a failure neither inputs nor plan are touched. */
typedef int (*batched_forward_fn)(void *ctx, struct plan *p, struct error *err);
void batched_set_forward(struct batched *b, batched_forward_fn forward,
                         void *ctx);
/* Run every plan on copies of input, cold and once more for its time. *worst:
 * the largest squared distance of a row to want [dim]. */
int batched_measure(struct batched *b, const float *input, const float *want,
                    float *worst, struct error *err);

#endif
