/* gpu/triplets_kernels.h - kernels of triplets.c: on the card in
 * triplets_kernels.cu, as loops in tests/gpu. ERR_DEVICE. */
#ifndef GPU_TRIPLETS_KERNELS_H
#define GPU_TRIPLETS_KERNELS_H

#include "core/engine/triplets.h"
#include "gpu/card.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TRIPLETS_DEEP = 16 /* numbers of a row are padded to so many */
};

/* All on the card. */
struct triplets_job {
    const float *x;       /* [n,padded] */
    const float *squares; /* [n] */
    int n, padded;
    float *d;        /* [rows,n] distances of rows first.. to all */
    int first, rows; /* of now */
    const struct triplets_pair *pairs;
    int *counts;  /* [n_pairs]; then ranks; then negatives */
    int from, to; /* pairs whose anchors are of these rows */
    float alpha;
    bool beyond;
};

/* d. Products are sums in f32 in the order of the numbers. */
int triplets_distances(const struct triplets_job *j, struct stream *s,
                       struct error *err);
/* counts of the pairs from..to-1. */
int triplets_count(const struct triplets_job *j, struct stream *s,
                   struct error *err);
/* Their ranks to negatives; -1: there is none of that rank. */
int triplets_pick(const struct triplets_job *j, struct stream *s,
                  struct error *err);

#ifdef __cplusplus
}
#endif

#endif
