/* gpu/learn.h - networks that learn, on the card: their numbers, which live in
 * its memory in the forms that steps want, and their plans. What a step is, and
 * which of the numbers learn, is core/engine/learn_steps.h; convolutions are
 * cuDNN's or gpu/conv_kernels.h's, all else gpu/learn_op.h's.
 * Thread: one for a network and all of its plans. */
#ifndef GPU_LEARN_H
#define GPU_LEARN_H

#include "core/engine/learn_steps.h"
#include "gpu/arith_conv.h"
#include "gpu/arith_ops.h"
#include "gpu/engine.h"
#include "gpu/learn_op.h"

/* How the numbers of a value lie, c and k padded with zeros. */
enum learn_form {
    LEARN_FORM_CONV,      /* [k][kh][kw][c] */
    LEARN_FORM_GROUPED,   /* [k][kh][kw][c/g], which is not padded */
    LEARN_FORM_DEPTHWISE, /* [kh][kw][k] */
    LEARN_FORM_VECTOR     /* [c]; one number is repeated */
};

/* The numbers of one value on the card. */
struct learn_numbers {
    int value, form;
    int k, c, h, w;   /* of [k,c,h,w], as the graph has them; VECTOR: c */
    size_t at, count; /* place in arrays; multiples of eight */
    int tensor;       /* of learn.tensors; -1: a constant */
};

struct gpu_learn {
    struct learner l;
    struct gpu_device *dev;
    struct stream *stream; /* of what happens between runs */
    struct learn_numbers *numbers;
    int n_numbers, room;
    /* Those that decay, other weights, statistics, constants. */
    size_t n_decays, n_weights, n;
    float *all;               /* [n] f32 on the card, as all arrays */
    void *typed[GTYPE_COUNT]; /* the same in 16 bits, where a plan wants it */
    float *gradients;         /* [n_weights], times loss_scale while scaled */
    float *fresh;             /* of one backward run; 0 where none writes */
    float *slots[LEARN_MAX_SLOTS], *average;
    float *zeros; /* a bias where there is none */
    size_t n_zeros;
    uint64_t *random; /* dropout's state in the last forward run */
    struct scratch scratch;
    bool scaled, half; /* half: a plan of f16 was made */
    float loss_scale;
    int n_good; /* steps since it changed */
};

/* For the backend's table. */
struct network *gpu_learn_load(struct device *dev, const struct graph *g,
                               const struct learn_options *opt,
                               struct error *err);
void gpu_learn_unload(struct network *net);
struct plan *gpu_learn_plan(struct network *net, const struct plan_options *opt,
                            struct error *err);
void gpu_learn_plan_free(struct plan *p);
int gpu_learn_forward(struct plan *p, struct error *err);
int gpu_learn_backward(struct plan *p, struct error *err);
int gpu_learn_get(struct network *net, unsigned parts, struct error *err);
int gpu_learn_put(struct network *net, unsigned parts, struct error *err);
int gpu_learn_clear(struct network *net, struct error *err);
int gpu_learn_norm(struct network *net, float decay, double *norm,
                   struct error *err);
int gpu_learn_update(struct network *net, const struct learn_update *u,
                     struct error *err);

/* --- learn.c, for plans */
/* Of the weights, of shape w, of a convolution or dense layer. */
int gpu_learn_form(const struct node *n, const struct shape *w);
/* NULL: err says why. VECTOR: c numbers. */
const struct learn_numbers *gpu_learn_numbers(struct gpu_learn *l, int value,
                                              int form, int c,
                                              struct error *err);
/* All numbers in a type; those of 16 bits are made when first asked for. */
int gpu_learn_typed(struct gpu_learn *l, enum gtype type, struct error *err);

/* --- learn_plan.c and learn_run.c */
enum {
    LEARN_FORWARD,
    LEARN_BACK_DATA,
    LEARN_BACK_WEIGHTS,
    LEARN_PASSES
};

/* A convolution, or a dense layer as one of 1x1. */
struct learn_conv {
    int form;
    const struct learn_numbers *w, *bias; /* bias NULL: none */
    struct nhwc x, y, dx, dy;
    bool wanted[LEARN_PASSES];
    struct dnn_shape shape[LEARN_PASSES];
    struct dnn_conv *dnn[LEARN_PASSES]; /* NULL: our own kernel */
    struct dnn_memory memory[LEARN_PASSES];
    struct arith_conv own;
    struct arith_conv_back back; /* of both passes; x, y and add are set when
                                    one runs */
    bool add_data;               /* the loss by x is added to what is there */
    bool add_weights, add_bias;  /* another step has written there before */
    bool wants_bias;
    float *dw, *dbias; /* in fresh */
};

struct gpu_learn_plan {
    struct plan base;
    struct gpu_learn *net;
    struct gpu_device *dev;
    enum gtype type;
    bool tf32, rest;
    struct learn_step *steps;
    int n_steps;
    struct learn_op **op;     /* of every step: of those of LEARN_OP */
    struct learn_conv **conv; /* and of the others */
    struct nhwc input, output[PLAN_MAX_OUTPUTS], gradient[PLAN_MAX_OUTPUTS];
    float *packed_in, *packed_out[PLAN_MAX_OUTPUTS];
    float *packed_gradient[PLAN_MAX_OUTPUTS]; /* f32 on the card */
    uint64_t n_random, *random;               /* random: pinned */
    char *arena, *pinned, *sums; /* sums: scratch of our own kernels */
    size_t bytes_arena, bytes_pinned, bytes_sums;
    struct scratch scratch;
    struct stream *there, *back;
    bool recorded_there, recorded_back;
};

/* Engines, recording. Leaves the network's numbers as they were. */
int gpu_learn_bind(struct gpu_learn_plan *p, struct error *err);

extern const struct backend gpu_learn_backend; /* of plans */

#endif
