/* tests/gpu/emulated_ops.c - gpu/kernels.h as loops over plain memory, beside
 * emulated.c, with the arithmetic of gpu/arith_ops.h. */
#include "gpu/kernels.h"

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

PIECES(from_nchw, struct arith_move, arith_pieces(&a->a))
PIECES(to_nchw, struct arith_move, arith_pixels(&a->a) * (uint32_t)a->a.c)
PIECES(unary, struct arith_unary, arith_pieces(&a->x))
PIECES(binary, struct arith_binary, arith_pieces(&a->x))
PIECES(pool, struct arith_pool, arith_pieces(&a->y))
PIECES(depthwise, struct arith_conv, arith_pieces(&a->y))
PIECES(conv, struct arith_conv, arith_numbers(&a->y))
PIECES(lrn, struct arith_lrn, arith_numbers(&a->y))
PIECES(gather, struct arith_gather, arith_numbers(&a->y))
PIECES(place, struct arith_place, arith_place_count(a))
PIECES(concat, struct arith_concat, arith_pieces(&a->y))

int kernels_lines(const struct arith_lines *a, int type, struct stream *s,
                  struct error *err)
{
    uint32_t n = arith_line_count(a);

    for (uint32_t i = 0; i < n; i++) {
        struct arith_line l = arith_line(a, i);
        float top = arith_line_top(a, l, 0, 1, type);

        arith_line_write(a, l, top, arith_line_sum(a, l, top, 0, 1, type), 0, 1,
                         type);
    }
    return card_launched(s, "lines", err);
}
