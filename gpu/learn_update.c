/* gpu/learn_update.c - see the header: launches and the copy of one number. */
#include "gpu/learn_update.h"

#include "gpu/update_kernels.h"

size_t learn_card_scratch(void)
{
    return sizeof(struct update_sums);
}

int learn_card_norm(struct stream *s, const struct learn_flat *f, float decay,
                    float scale, double *norm, struct error *err)
{
    const struct update_sums *sums = f->scratch;
    double total;

    if (update_decay(f, decay, scale, s, err) ||
        update_join(f->scratch, s, err) ||
        card_copy_out(s, &total, &sums->total, sizeof(total), err) ||
        card_wait(s, err))
        return -1;
    *norm = sqrt(total);
    return 0;
}

int learn_card_update(struct stream *s, const struct learn_flat *f,
                      const struct learn_update *u, struct error *err)
{
    return update_weights(f, u, s, err);
}
