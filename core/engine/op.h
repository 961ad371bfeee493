/* core/engine/op.h - the operators: parameters, shape rules, cost.
 * One row per operator in op.c. How an operator computes is a backend's
 * business (cpu.c and op_*.c; gpu/); what it means is here.
 * Meanings are ONNX's. Thread: any. */
#ifndef CORE_ENGINE_OP_H
#define CORE_ENGINE_OP_H

#include "core/engine/tensor.h"

enum {
    OP_MAX_IN = 64,         /* inputs of one node */
    OP_MAX_WINDOW = 1 << 15 /* side, stride, dilation and padding */
};

enum op_type {
    OP_CONV,       /* x, w [o,c/g,kh,kw], b? [o]; fused: + residual, slope */
    OP_GEMM,       /* x [n,k], w [o,k], b? [o]; fused: + slope */
    OP_BATCH_NORM, /* x, gamma, beta, mean, var, each [c] */
    OP_AFFINE,     /* x, scale [c], shift [c]: a batch norm at rest */
    OP_RELU,
    OP_PRELU, /* x, slope [c] or [1] */
    OP_CLIP,
    OP_SIGMOID,
    OP_ADD, /* the four take broadcasting of b over n, and scalars */
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_MAX,    /* two or more of one shape: maxout */
    OP_CONCAT, /* one or more */
    OP_SLICE,
    OP_MAX_POOL,
    OP_AVG_POOL,
    OP_LP_POOL, /* p-th root of the sum of p-th powers (ONNX: sum) */
    OP_LRN,
    OP_SOFTMAX,
    OP_LP_NORM, /* x / ||x||_p along an axis */
    OP_RESHAPE,
    OP_TRANSPOSE,
    OP_DROPOUT, /* training only; at rest the identity */
    OP_IDENTITY,
    OP_COUNT
};

/* What a convolution or dense layer does to its sums before storing them. */
enum act {
    ACT_NONE,
    ACT_RELU,
    ACT_PRELU,
    ACT_CLIP /* to lo..hi */
};

struct op_conv {
    int kernel[2], stride[2], dilation[2]; /* h, w */
    int pad[4];                            /* top left bottom right */
    int group;
    bool residual; /* one more input, added before the activation */
    enum act act;
    float lo, hi;
};
struct op_gemm {
    enum act act;
    float lo, hi;
};
struct op_norm {
    float epsilon, momentum; /* momentum: of the running averages, ONNX's */
};
struct op_pool {
    int kernel[2], stride[2], pad[4];
    bool global;    /* kernel is the whole plane */
    bool ceil_mode; /* a last window may reach over the edge */
    bool count_pad; /* average: divide by the full window */
    int p;          /* LpPool */
};
struct op_clip {
    float lo, hi;
};
struct op_axis {
    int axis;          /* concat, slice, softmax, lp_norm */
    int start, length; /* slice */
    int p;             /* lp_norm: 1 or 2 */
};
struct op_lrn {
    int size;
    float alpha, beta, bias;
};
struct op_reshape {
    struct shape to; /* d[0] is the batch; others: >0, 0 copies, -1 infers */
};
struct op_transpose {
    int perm[SHAPE_MAX_RANK];
};
struct op_dropout {
    float ratio;
};

struct op {
    enum op_type type;
    union {
        struct op_conv conv;
        struct op_gemm gemm;
        struct op_norm norm;
        struct op_pool pool;
        struct op_clip clip;
        struct op_axis axis;
        struct op_lrn lrn;
        struct op_reshape reshape;
        struct op_transpose transpose;
        struct op_dropout dropout;
    } u;
};

/* What backward reads of forward, so that a plan for training keeps it. */
enum op_keep {
    OP_KEEP_NOTHING = 0,
    OP_KEEP_INPUT = 1,
    OP_KEEP_OUTPUT = 2,
    OP_KEEP_STATE = 4 /* what the forward kernel leaves: masks, batch stats */
};

struct op_info {
    const char *name; /* ONNX's */
    int min_in, max_in;
    unsigned keep; /* enum op_keep */
};

const struct op_info *op_info(enum op_type type);

/* Output shape from input shapes. ERR_MODEL says what does not fit. */
int op_shape(const struct op *op, const struct shape in[], int n_in,
             struct shape *out, struct error *err);

/* Multiply-accumulates of one evaluation: convolutions and dense layers,
 * what the paper counts as FLOPS; 0 for the others. */
int64_t op_macs(const struct op *op, const struct shape in[], int n_in,
                const struct shape *out);

/* Resolve a pool or convolution's window: out size along one axis, and the
 * padding at the far end that makes it exact (may be over the edge with
 * ceil_mode). */
int op_window(int size, int kernel, int stride, int dilation, int pad_a,
              int pad_b, bool ceil_mode, int *far_pad);

/* Plain kernels on packed NCHW float32, for the operators that oneDNN and
 * OpenBLAS do not cover (op_*.c); NULL where a backend's library does it.
 * in[i], out: data of the given shapes; in place is not allowed. */
typedef void (*op_forward_fn)(const struct op *op, const float *const in[],
                              const struct shape shape_in[], int n_in,
                              float *out, const struct shape *shape_out);
op_forward_fn op_plain_forward(enum op_type type);

/* PReLU of n numbers in place; slope repeats every period numbers. */
void op_prelu(float *x, const float *slope, size_t period, size_t n);

#endif
