/* core/engine/learnable.h - a network that learns as its holder sees it: how it
 * is to learn, its numbers, what an update is. The table in backend.h says what
 * devices do with it. Plain values. */
#ifndef CORE_ENGINE_LEARNABLE_H
#define CORE_ENGINE_LEARNABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a network learns. */
struct learn_options {
    int freeze_until; /* nodes before this one keep their weights and batch
                         norms as they are; 0: all learn */
    bool freeze_norm; /* batch norms use, and keep, their running statistics;
                         gamma and beta still learn */
    uint64_t seed;    /* of dropout */
};

/* One weight of a network that learns. */
struct learn_tensor {
    int value;            /* of the graph it was loaded from */
    size_t offset, count; /* in weights and gradients, or in statistics */
    bool statistic;       /* running mean or variance: no gradient */
    bool decays;          /* weight decay is for it: convolutions and dense
                             layers, no biases, norms or slopes */
};

enum {
    LEARN_MAX_SLOTS = 2
};

/* The numbers of a network that learns, in host memory: whoever holds the
 * network may read and write them between runs. Where the device keeps its own
 * (learn_get is there), these are what was last brought. */
struct learnable {
    struct learn_tensor *tensors;
    int n_tensors;
    size_t n_weights, n_statistics;
    float *weights;    /* [n_weights] */
    float *gradients;  /* [n_weights]; backward adds to them */
    float *statistics; /* [n_statistics] */
    uint64_t random;   /* state of dropout, for resuming */
    /* What an optimiser keeps of every weight, [n_weights] each, the holder's;
     * NULL: not there. Set before the first learn_put of LEARN_SLOTS. */
    float *slots[LEARN_MAX_SLOTS], *average;
};

/* Parts of a learnable. */
enum learn_part {
    LEARN_WEIGHTS = 1,
    LEARN_GRADIENTS = 2,
    LEARN_STATISTICS = 4,
    LEARN_SLOTS = 8 /* and the average */
};

enum optimizer { /* what they do: learn_rule.h */
    OPTIM_ADAGRAD,
    OPTIM_ADADELTA,
    OPTIM_ADAM,
    OPTIM_RMSPROP,
    OPTIM_MOM,
    OPTIM_COUNT
};
struct learn_update {
    enum optimizer rule;
    float scale;   /* of the gradients, before anything; 1 leaves them */
    float rate;    /* ADAM: with the corrections of this step */
    float epsilon; /* ADAM's */
    float average; /* average += this * (weights - average), after it */
};

#endif
