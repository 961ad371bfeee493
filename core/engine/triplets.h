/* core/engine/triplets.h - selection of triplets on a device: the table's entry
 * triplets, and the arithmetic that it shares with core/train/triplet.c, which
 * asks it. C11 and CUDA C++. Pure. */
#ifndef CORE_ENGINE_TRIPLETS_H
#define CORE_ENGINE_TRIPLETS_H

#include <stdbool.h>

#ifdef __CUDACC__
#define TRIPLETS_RULE static __host__ __device__ __forceinline__
#else
#define TRIPLETS_RULE static inline __attribute__((unused))
#endif

struct triplets_pair {
    int a, p;       /* anchor and positive: rows */
    int begin, end; /* rows that are no negative: those of the person */
};
struct triplets_ask {
    const float *x;       /* [n,dim] */
    const float *squares; /* [n] squared lengths */
    int n, dim;
    const struct triplets_pair *pairs; /* [n_pairs] by ascending anchor */
    int n_pairs;
    float alpha;
    bool beyond; /* only negatives farther than the positive */
    /* Called once: counts [n_pairs], how many negatives are allowed, 0 also
     * where the pair's distance is not finite; it turns each that is above 0
     * into the rank of one of them, 0 to count - 1. */
    void (*draw)(void *ctx, int *counts);
    void *ctx;
    int *negatives; /* [n_pairs] out: that row, or -1 */
};

/* By their product and squared lengths. A rounding below 0 is 0; NaN stays. */
TRIPLETS_RULE float triplets_distance(float xx, float yy, float xy)
{
    float d = xx + yy - 2 * xy;

    return d < 0 ? 0 : d;
}

/* A distance that is not a number compares false, and is not taken. */
TRIPLETS_RULE bool triplets_allowed(float negative, float positive, float alpha,
                                    bool beyond)
{
    return negative - positive < alpha && (!beyond || positive < negative);
}

#endif
