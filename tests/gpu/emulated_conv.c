/* tests/gpu/emulated_conv.c - gpu/conv_kernels.h on the card of
 * tests/gpu/emulated.c: loops over the arithmetic of gpu/arith_conv.h. */
#include "gpu/conv_kernels.h"

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

PIECES(conv_back_data, struct arith_conv_back, arith_numbers(&a->x))
PIECES(conv_back_weights, struct arith_conv_back, arith_conv_weights(a))
PIECES(depthwise_back_data, struct arith_conv_back, arith_pieces(&a->x))
PIECES(widen, struct arith_widen, a->n / ARITH_LANES)

static int join(const struct arith_join *a, struct stream *s, struct error *err)
{
    for (uint32_t at = 0; at < a->count; at += ARITH_LANES) {
        float sum[ARITH_LANES];

        arith_join_sum(a, at, 0, 1, sum);
        arith_join_write(a, at, sum);
    }
    return card_launched(s, "join", err);
}

int kernels_depthwise_back_weights(const struct arith_conv_back *a, int type,
                                   struct stream *s, struct error *err)
{
    struct arith_join j = {a->scratch, a->dw, arith_depthwise_count(a),
                           arith_depthwise_parts(a), a->add};
    uint32_t n = j.n_parts * (j.count / ARITH_LANES);

    for (uint32_t i = 0; i < n; i++)
        arith_depthwise_back_weights(a, i, type);
    return join(&j, s, err);
}

int kernels_column_sums(const struct arith_columns *a, int type,
                        struct stream *s, struct error *err)
{
    struct arith_join j = {a->scratch, a->sums, (uint32_t)arith_padded(a->y.c),
                           arith_columns_parts(a), a->add};
    uint32_t n = j.n_parts * (j.count / ARITH_LANES);

    for (uint32_t i = 0; i < n; i++)
        arith_column_sums(a, i, type);
    return join(&j, s, err);
}
