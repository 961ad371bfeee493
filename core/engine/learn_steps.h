/* core/engine/learn_steps.h - a network that learns, before any device: which
 * of its numbers learn, its graph as steps there and back, and how long each
 * value, each loss by a value and each step's state must be kept. The CPU's
 * plans and the card's are made of it. Pure. Thread: any. */
#ifndef CORE_ENGINE_LEARN_STEPS_H
#define CORE_ENGINE_LEARN_STEPS_H

#include "core/engine/graph.h"
#include "core/engine/op_train.h"
#include "core/engine/slots.h"

/* Begins every device's network that learns. */
struct learner {
    struct network base; /* its learn is the one here */
    struct learnable learn;
    struct graph *graph; /* owned; data of constants only */
    struct learn_options opt;
    int *tensor; /* of values: index in learn.tensors; negative: a constant */
};

/* l: zeroes, part of something larger. Whatever it returns, learner_fini. */
int learner_init(struct learner *l, struct device *dev, const struct graph *g,
                 const struct learn_options *opt, struct error *err);
void learner_fini(struct learner *l);

enum learn_kind {
    LEARN_CONV,
    LEARN_GEMM,
    LEARN_OP
};
/* A node, or one with those that op_train does in the same pass. */
struct learn_step {
    enum learn_kind kind;
    const struct node *node;
    int index;         /* of node */
    int in[OP_MAX_IN]; /* values; run.n_in of them */
    int scale[2];      /* constants of run.scale, or -1 */
    int out;           /* value */
    bool gone;         /* done by another step */
    bool backward;     /* a loss by its result comes back */
    struct op_run run; /* shapes and flags; addresses are the CPU's */
};

/* Step i runs at time i forward and at 2 n_steps - 1 - i backward. */
struct learn_steps {
    struct learner *net;
    const struct graph *g; /* net's */
    bool rest;
    struct learn_step *at;
    int n;
    struct shape *shapes; /* of every value, as the rest: */
    int *uses;            /* readers, outputs too */
    int *maker;           /* step that makes it, or -1 */
    bool *need;           /* the loss by it is wanted */
    int *slot, *grad;     /* of the value, of the loss by it; -1: none */
    int *state;           /* slot of a step's state, or -1 */
    struct slot *slots;
    int n_slots;
};
/* What things take on a device, bytes. */
struct learn_sizes {
    size_t (*value)(const struct shape *s, void *ctx);
    size_t (*state)(const struct learn_step *s, void *ctx); /* 0: none */
    void *ctx;
};

/* Steps and slots, which are yet to be placed. s: zeroes. Whatever it returns,
 * learn_steps_fini. ERR_MODEL, ERR_NOMEM. */
int learn_steps_make(struct learn_steps *s, struct learner *net,
                     const struct plan_options *opt,
                     const struct learn_sizes *sizes, struct error *err);
/* All but the steps themselves, which are the caller's from here on. */
void learn_steps_fini(struct learn_steps *s);

/* Does a weight learn? (A statistic does not.) */
bool learn_steps_learns(const struct learn_steps *s, int value);
/* Does anything that learns lie before one of the outputs? */
bool learn_steps_any(const struct learn_steps *s);

#endif
