/* gpu/search_kernels.h - our kernels of the search, one launcher each, on a
 * stream; in search_kernels.cu. Arrays are the card's. ERR_DEVICE. */
#ifndef GPU_SEARCH_KERNELS_H
#define GPU_SEARCH_KERNELS_H

#include "gpu/card.h"
#include "gpu/search_arith.h"

enum {
    SEARCH_STEP = 64 /* a row's numbers are padded to it, with zeros, and a
                        block's rows are a multiple of it */
};

struct search_piece {
    const uint16_t *rows; /* [n, padded], halfs, aligned to 16 bytes */
    const uint64_t *dead; /* NULL: none */
    uint32_t n, unused;
};

struct search_query {
    float cut;       /* what is not below is collected */
    float band, low; /* see search_cut */
    uint32_t n;      /* hits; SEARCH_CROWDED: too many to tell apart */
};
#define SEARCH_CROWDED UINT32_MAX

struct search_job {
    const struct search_piece *pieces;
    const float *q32;    /* [n_queries, padded] */
    const uint16_t *q16; /* the same in halfs, queries padded to SEARCH_STEP
                            with zeros */
    struct search_query *queries;
    uint64_t *hits; /* [n_queries, cap] */
    int n_queries, padded, block_rows;
    uint32_t cap, k, max;
};

#ifdef __cplusplus
extern "C" {
#endif

/* n rows of dim floats to halfs. stats: grow to the bits of the largest
 * squares of a row's |x'| and |x - x'|. */
int search_put(const float *x, uint16_t *to, int n, int dim, int padded,
               uint32_t *stats, struct stream *s, struct error *err);
/* Collect from n pieces. The caller sees to it that hits has room. */
int search_score(const struct search_job *j, int first, int n, struct stream *s,
                 struct error *err);
/* Raise each query's cut to what its hits allow; drop those below. */
int search_tighten(const struct search_job *j, struct stream *s,
                   struct error *err);
/* The hits, max for each query, side by side. */
int search_pack(const struct search_job *j, uint64_t *to, struct stream *s,
                struct error *err);
int search_wipe(void *p, size_t bytes, struct stream *s, struct error *err);
/* Until all of the stream is done. -1: it failed; 1: not within the time, and
 * the card may still be at it. Both set err. */
int search_wait(struct stream *s, int timeout_ms, struct error *err);

/* Is SEARCH_EXACT_MAX queries few enough for products with the queries as
 * they are, not in halfs? */
enum {
    SEARCH_EXACT_MAX = 4
};

#ifdef __cplusplus
}
#endif

#endif
