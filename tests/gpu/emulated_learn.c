/* tests/gpu/emulated_learn.c - gpu/learn_kernels.h as loops over plain memory,
 * beside emulated.c; sums are taken and joined by as many threads as on the
 * card, in the same order. */
#include "gpu/learn_kernels.h"

#define PIECES(name, args, count)                                              \
    int kernels_##name(const args *a, int type, struct stream *s,              \
                       struct error *err)                                      \
    {                                                                          \
        uint32_t n = count;                                                    \
                                                                               \
        for (uint32_t i = 0; i < n; i++)                                       \
            arith_##name(a, i, type);                                          \
        return card_launched(s, #name, err);                                   \
    }

PIECES(blend, struct arith_blend, arith_pieces(&a->y))
PIECES(pair_back, struct arith_pair_back, arith_pieces(&a->d))
PIECES(unary_back, struct arith_unary_back, arith_pieces(&a->d))
PIECES(max_back, struct arith_max_back, arith_pieces(&a->y))
PIECES(dropout, struct arith_dropout, arith_pieces(&a->x))
PIECES(part, struct arith_part, arith_pieces(&a->y))
PIECES(flat_back, struct arith_flat_back, arith_pieces(&a->dx))
PIECES(max_pool, struct arith_max_pool, arith_pieces(&a->pool.y))
PIECES(pool_back, struct arith_pool_back, arith_pieces(&a->dx))
PIECES(lrn_forward, struct arith_lrn_learn, arith_numbers(&a->x))
PIECES(lrn_back, struct arith_lrn_learn, arith_numbers(&a->x))

int kernels_lines_back(const struct arith_lines_back *a, int type,
                       struct stream *s, struct error *err)
{
    uint32_t n = arith_pixels(&a->d);

    for (uint32_t i = 0; i < n; i++) {
        float sum[2];

        arith_lines_sums(a, i, 0, 1, type, sum);
        arith_lines_give(a, i, 0, 1, type, sum);
    }
    return card_launched(s, "lines_back", err);
}

/* ---- sums down the rows ------------------------------------------------ */

/* n threads' sums to that of the first, two by two. */
static void join(struct arith_sums *own, int n, int kind, int then)
{
    while (n > 1) {
        int half = (n + 1) / 2;

        for (int lane = 0; lane + half < n; lane++)
            arith_sums_join(&own[lane], &own[lane + half], kind, then);
        n = half;
    }
}

int kernels_sums(const struct arith_channels *a, int type, struct stream *s,
                 struct error *err)
{
    int all = arith_padded(a->cut.c) / ARITH_LANES;
    int then = a->kind == ARITH_NORM_BACK ? a->norm.then : ARITH_NONE;
    struct arith_sums own[ARITH_TEAM];

    for (int part = 0; part < a->cut.parts; part++)
        for (int i = 0; i < all; i++) {
            for (int lane = 0; lane < a->cut.lanes; lane++)
                arith_sums_lane(a, part, lane, i * ARITH_LANES, type, a->kind,
                                then, &own[lane]);
            join(own, a->cut.lanes, a->kind, then);
            arith_sums_store(a, part, i * ARITH_LANES, a->kind, then, own);
        }
    for (int i = 0; i < (a->one ? 1 : all); i++) {
        for (int lane = 0; lane < ARITH_TEAM; lane++)
            arith_sums_gather(a, i, lane, ARITH_TEAM, a->kind, then,
                              &own[lane]);
        join(own, ARITH_TEAM, a->kind, then);
        arith_sums_finish(a, i, a->kind, then, own);
    }
    return card_launched(s, "sums", err);
}

/* ---- batch norm, row by row -------------------------------------------- */

int kernels_norm_rest(const struct arith_norm *a, struct stream *s,
                      struct error *err)
{
    for (int c0 = 0; c0 < a->cut.c; c0 += ARITH_LANES)
        arith_norm_rest(a, c0);
    return card_launched(s, "norm_rest", err);
}

static void norm_rows(const struct arith_norm *a, int type, bool back)
{
    for (int c0 = 0; c0 < a->cut.c; c0 += ARITH_LANES) {
        struct arith_eight e;

        arith_norm_eight(a, c0, a->then, back, &e);
        for (uint32_t row = 0; row < a->cut.rows; row++)
            if (back)
                arith_norm_backward(a, &e, row, c0, type, a->then);
            else
                arith_norm_forward(a, &e, row, c0, type, a->then);
    }
}

int kernels_norm_forward(const struct arith_norm *a, int type, struct stream *s,
                         struct error *err)
{
    norm_rows(a, type, false);
    return card_launched(s, "norm_rows", err);
}

int kernels_norm_backward(const struct arith_norm *a, int type,
                          struct stream *s, struct error *err)
{
    norm_rows(a, type, true);
    return card_launched(s, "norm_rows", err);
}
