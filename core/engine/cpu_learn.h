/* core/engine/cpu_learn.h - the CPU's networks that learn: what cpu_learn.c
 * (weights, running) and cpu_learn_plan.c (steps and memory) share, and what
 * cpu.c hands on.
 * A learning network is the graph as it is. Every value is float32 with the
 * channels of a pixel side by side; convolutions are oneDNN's, dense layers
 * its product, everything else op_train's. */
#ifndef CORE_ENGINE_CPU_LEARN_H
#define CORE_ENGINE_CPU_LEARN_H

#include "core/engine/cpu_priv.h"
#include "core/engine/learn_steps.h"

/* One argument of a convolution: where it lies, and how the kernel wants it.
 * reorder takes it from one to the other (inputs) or back (results). */
struct conv_arg {
    struct kernel *reorder; /* NULL: they are the same */
    float *memory;
};
/* One of its three passes. An input or result that lies otherwise than the
 * kernel wants goes through scratch memory. */
struct conv_run {
    struct kernel *kernel; /* NULL: this pass is not wanted */
    struct conv_arg in[2]; /* picture and weights; of the loss by the weights:
                              picture and the loss by the result */
    struct conv_arg out;
    float *add; /* then added to this, n_add numbers; NULL: it is in place */
    size_t n_add;
    float *bias, *add_bias; /* the loss by the bias: scratch, and where to */
    size_t n_bias;
};

struct cpu_learn_plan {
    struct plan base;
    struct learner *net;
    struct onednn *dn;
    int n_threads;
    bool rest;
    struct learn_step *steps;
    int n_steps;
    struct conv_run (*pass)[3]; /* of every step; of convolutions alone */
    char *arena;
    float *staging; /* the input as it is handed over, [n,c,h,w] */
    float *input;   /* and as the steps read it */
    /* Outputs that are pictures: as the steps have them, [n,h,w,c]; NULL for
     * others. base's are owned then. */
    struct learn_picture {
        float *out, *gradient;
    } pictures[PLAN_MAX_OUTPUTS];
};

struct network *cpu_learn_load(struct device *dev, const struct graph *g,
                               const struct learn_options *opt,
                               struct error *err);
void cpu_learn_unload(struct network *net);
struct plan *cpu_learn_plan_new(struct network *net,
                                const struct plan_options *opt,
                                struct error *err);
void cpu_learn_plan_free(struct plan *p);

/* Its plans' own table: forward and backward. */
extern const struct backend cpu_learn_backend;

#endif
