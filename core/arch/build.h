/* core/arch/build.h - layers by the line: what the networks of this directory
 * are written with. A failure sticks in the builder (later calls do nothing
 * and return -1), so that tables need no checks between their lines. Values
 * are graph indices. Weights are drawn from the seed and their own name. */
#ifndef CORE_ARCH_BUILD_H
#define CORE_ARCH_BUILD_H

#include "core/arch/arch.h"

struct build {
    struct graph *g;
    struct error *err;
    bool bad;
    uint64_t seed;
    struct shape *shapes; /* by value, batch 1; a free side stands at 12 */
};

/* Zero: 1x1, stride 1, one group. Padding is half the kernel on every side,
 * which keeps the size divided by the stride, rounded up; or none. */
struct conv {
    int out, k, kw; /* kernel k x kw, height x width; kw 0: square */
    int stride, group;
    bool valid; /* no padding */
    bool bias;
};

struct pool {
    enum op_type type;
    int k, stride;
    bool valid;
    bool ceil_mode;
};

int build_init(struct build *b, uint64_t seed, struct error *err);
/* Hands over the graph, or NULL if anything failed. */
struct graph *build_take(struct build *b);

int build_input(struct build *b, const char *name, int c, int h, int w);
void build_output(struct build *b, int x);

/* Weights "NAME.weight" and "NAME.bias"; the value is NAME. */
int build_conv(struct build *b, int x, const char *name, const struct conv *c);
int build_dense(struct build *b, int x, const char *name, int out, bool bias);
/* "NAME.weight", "NAME.bias", "NAME.running_mean", "NAME.running_var". */
int build_batch_norm(struct build *b, int x, const char *name, float epsilon);
/* "NAME.weight", one for each channel. */
int build_prelu(struct build *b, int x, const char *name);
int build_pool(struct build *b, int x, const char *name, const struct pool *p);
/* Mean of every plane, [n,c,1,1]. */
int build_average(struct build *b, int x, const char *name);
/* Everything but the batch in one row, [n,k]. */
int build_flatten(struct build *b, int x, const char *name);
int build_concat(struct build *b, const char *name, const int in[], int n);
/* The greatest of n values of one shape, element by element. */
int build_max(struct build *b, const char *name, const int in[], int n);
int build_add(struct build *b, int x, int y, const char *name);
int build_scale(struct build *b, int x, const char *name, float scale);
/* Operators that have parameters but no weights, or neither. */
int build_op(struct build *b, int x, const char *name, const struct op *op);
int build_relu(struct build *b, int x, const char *name);

/* Channels of a value. */
int build_channels(const struct build *b, int x);

/* The networks: each adds its layers, outputs apart, and returns the last
 * value; the detectors add their own outputs and return -1 only on failure. */
int nn1_build(struct build *b, int dim);
int nn2_build(struct build *b, int dim);
int nn3_build(struct build *b, int dim);
int nn4_build(struct build *b, int dim);
int nns1_build(struct build *b, int dim);
int nns2_build(struct build *b, int dim);
int irv1_build(struct build *b, int dim);
int mobile_build(struct build *b, int dim);
int mobile_small_build(struct build *b, int dim);
int mobile_slim_build(struct build *b, int dim);
int mtcnn_pnet_build(struct build *b, int dim);
int mtcnn_rnet_build(struct build *b, int dim);
int mtcnn_onet_build(struct build *b, int dim);

#endif
