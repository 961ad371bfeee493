/* tests/gpu/emulated_update.c - gpu/update_kernels.h as loops over plain
 * memory, beside emulated.c. */
#include "gpu/update_kernels.h"

int update_decay(const struct learn_flat *f, float decay, float scale,
                 struct stream *s, struct error *err)
{
    struct update_sums *sums = f->scratch;
    uint32_t n = (uint32_t)(f->n / ARITH_LANES);

    for (uint32_t part = 0; part < UPDATE_PARTS; part++) {
        sums->parts[part] = 0;
        for (uint32_t i = part; i < n; i += UPDATE_PARTS)
            sums->parts[part] += update_decay_piece(f, decay, scale, i);
    }
    return card_launched(s, "update_decay", err);
}

int update_join(struct update_sums *sums, struct stream *s, struct error *err)
{
    sums->total = 0;
    for (int i = 0; i < UPDATE_PARTS; i++)
        sums->total += (double)sums->parts[i];
    return card_launched(s, "update_join", err);
}

int update_weights(const struct learn_flat *f, const struct learn_update *u,
                   struct stream *s, struct error *err)
{
    for (uint32_t i = 0; i < f->n / ARITH_LANES; i++)
        update_piece(f, u, u->rule, i);
    return card_launched(s, "update_weights", err);
}
