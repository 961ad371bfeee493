/* tests/gpu/emulated_search.c - gpu/search_kernels.h as loops over plain
 * memory, beside emulated.c. FACENETD_EMULATED_SEARCH="hang" lets a search
 * not end. */
#include "gpu/search_kernels.h"

#include <stdlib.h>

int search_put(const float *x, uint16_t *to, int n, int dim, int padded,
               uint32_t *stats, struct stream *s, struct error *err)
{
    for (int i = 0; i < n; i++) {
        float lost2 = 0, norm2 = 0;
        uint32_t bits;

        for (int lane = 0; lane < 32; lane++)
            search_round(x + (size_t)i * (size_t)dim,
                         to + (size_t)i * (size_t)padded, dim, padded, lane, 32,
                         &lost2, &norm2);
        bits = arith_bits(norm2) & 0x7fffffff;
        stats[0] = bits > stats[0] ? bits : stats[0];
        bits = arith_bits(lost2) & 0x7fffffff;
        stats[1] = bits > stats[1] ? bits : stats[1];
    }
    return card_launched(s, "search_put", err);
}

static float product(const struct search_job *j, int query, const uint16_t *x)
{
    size_t at = (size_t)query * (size_t)j->padded;
    float sum = 0;

    for (int i = 0; i < j->padded; i++)
        sum += arith_from_f16(x[i]) *
               (j->n_queries <= SEARCH_EXACT_MAX
                    ? j->q32[at + (size_t)i]
                    : arith_from_f16(j->q16[at + (size_t)i]));
    return sum;
}

int search_score(const struct search_job *j, int first, int n, struct stream *s,
                 struct error *err)
{
    for (int i = first; i < first + n; i++) {
        const struct search_piece *p = &j->pieces[i];
        for (int row = 0; row < (int)p->n; row++) {
            const uint16_t *x = p->rows + (size_t)row * (size_t)j->padded;
            for (int q = 0; !search_dead(p->dead, row) && q < j->n_queries;
                 q++) {
                struct search_query *to = &j->queries[q];
                float sum = product(j, q, x);
                if (sum < to->cut)
                    continue;
                if (to->n != SEARCH_CROWDED && to->n >= j->cap)
                    abort(); /* room for all was promised */
                if (to->n != SEARCH_CROWDED)
                    j->hits[(size_t)q * j->cap + to->n++] =
                        search_hit(sum, (uint32_t)(i * j->block_rows + row));
            }
        }
    }
    return card_launched(s, "search_score", err);
}

static void tighten(const struct search_job *j, struct search_query *q,
                    uint64_t *hits)
{
    uint32_t rank = j->k, kept = 0;
    uint64_t prefix = 0;
    float cut;

    if (q->n == SEARCH_CROWDED || q->n < j->k)
        return;
    for (int shift = 56; shift >= 32; shift -= 8) {
        uint64_t mask = shift == 56 ? 0 : UINT64_MAX << (shift + 8);
        uint32_t counts[256] = {0};
        for (uint32_t i = 0; i < q->n; i++)
            if ((hits[i] & mask) == prefix)
                counts[hits[i] >> shift & 255]++;
        prefix |= (uint64_t)search_byte(counts, &rank) << shift;
    }
    cut = search_cut(search_product(prefix), q->band, q->low);
    for (uint32_t i = 0; i < q->n; i++)
        if (!(search_product(hits[i]) < cut))
            hits[kept++] = hits[i];
    q->n = kept > j->max ? SEARCH_CROWDED : kept;
    q->cut = kept > j->max ? INFINITY : cut;
}

int search_tighten(const struct search_job *j, struct stream *s,
                   struct error *err)
{
    for (int i = 0; i < j->n_queries; i++)
        tighten(j, &j->queries[i], j->hits + (size_t)i * j->cap);
    return card_launched(s, "search_tighten", err);
}

int search_pack(const struct search_job *j, uint64_t *to, struct stream *s,
                struct error *err)
{
    for (int i = 0; i < j->n_queries; i++) {
        uint32_t n = j->queries[i].n;
        n = n < j->max ? n : j->max;
        memcpy(to + (size_t)i * j->max, j->hits + (size_t)i * j->cap,
               n * sizeof(*to));
    }
    return card_launched(s, "search_pack", err);
}

int search_wipe(void *p, size_t bytes, struct stream *s, struct error *err)
{
    memset(p, 0, bytes);
    return card_launched(s, "search_wipe", err);
}

int search_wait(struct stream *s, int timeout_ms, struct error *err)
{
    const char *how = getenv("FACENETD_EMULATED_SEARCH");

    if (!how || strcmp(how, "hang") != 0)
        return card_wait(s, err);
    error_set(err, ERR_DEVICE, "the card did not end a search within %d ms",
              timeout_ms);
    return 1;
}
