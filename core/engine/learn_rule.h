/* core/engine/learn_rule.h - TensorFlow 1's update rules, of one weight, with
 * the constants that the training script passes or leaves at their defaults:
 * train/training_ops.cc is the reference for each. Written once, for learn.c
 * and for kernels of a card. C11 and CUDA C++. Pure. */
#ifndef CORE_ENGINE_LEARN_RULE_H
#define CORE_ENGINE_LEARN_RULE_H

#include <math.h>

#include "core/engine/backend.h"

#ifdef __CUDACC__
#define LEARN_RULE static __host__ __device__ __forceinline__
#else
#define LEARN_RULE static inline __attribute__((always_inline, unused))
#endif

/* How many slots a rule has. */
LEARN_RULE int learn_slots(enum optimizer rule)
{
    return rule == OPTIM_ADAGRAD || rule == OPTIM_MOM ? 1 : 2;
}

/* What they begin with. RMSProp's mean square starts at one in TensorFlow,
 * which makes its first steps small. */
LEARN_RULE float learn_slot_first(enum optimizer rule, int slot)
{
    if (slot > 0)
        return 0;
    return rule == OPTIM_ADAGRAD ? 0.1f : rule == OPTIM_RMSPROP ? 1 : 0;
}

/* sum 0: the numbers only pad a tensor. */
LEARN_RULE void learn_adagrad(float *w, float g, float rate, float *sum)
{
    *sum += g * g;
    *w -= *sum == 0 ? 0 : rate * g / sqrtf(*sum);
}

LEARN_RULE void learn_adadelta(float *w, float g, float rate, float *sum,
                               float *moved)
{
    const float rho = 0.9f, epsilon = 1e-6f;
    float move;

    *sum = rho * *sum + (1 - rho) * g * g;
    move = sqrtf(*moved + epsilon) / sqrtf(*sum + epsilon) * g;
    *moved = rho * *moved + (1 - rho) * move * move;
    *w -= rate * move;
}

/* rate: with the corrections of this step. */
LEARN_RULE void learn_adam(float *w, float g, float rate, float epsilon,
                           float *mean, float *square)
{
    const float b1 = 0.9f, b2 = 0.999f;

    *mean = b1 * *mean + (1 - b1) * g;
    *square = b2 * *square + (1 - b2) * g * g;
    *w -= rate * *mean / (sqrtf(*square) + epsilon);
}

LEARN_RULE void learn_rmsprop(float *w, float g, float rate, float *square,
                              float *move)
{
    const float decay = 0.9f, momentum = 0.9f, epsilon = 1.0f;

    *square = decay * *square + (1 - decay) * g * g;
    *move = momentum * *move + rate * g / sqrtf(*square + epsilon);
    *w -= *move;
}

/* Nesterov's. */
LEARN_RULE void learn_momentum(float *w, float g, float rate, float *sum)
{
    const float momentum = 0.9f;

    *sum = momentum * *sum + g;
    *w -= rate * (g + momentum * *sum);
}

/* One update of w by its gradient g; a, b: its slots, as many as the rule has.
 * With a rule that the compiler knows, a loop over this has no branch. */
LEARN_RULE void learn_rule(enum optimizer rule, float rate, float epsilon,
                           float g, float *w, float *a, float *b)
{
    switch (rule) {
    case OPTIM_ADAGRAD:
        learn_adagrad(w, g, rate, a);
        break;
    case OPTIM_ADADELTA:
        learn_adadelta(w, g, rate, a, b);
        break;
    case OPTIM_ADAM:
        learn_adam(w, g, rate, epsilon, a, b);
        break;
    case OPTIM_RMSPROP:
        learn_rmsprop(w, g, rate, a, b);
        break;
    case OPTIM_MOM:
        learn_momentum(w, g, rate, a);
        break;
    case OPTIM_COUNT:
        break;
    }
}

#endif
