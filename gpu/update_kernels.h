/* gpu/update_kernels.h - kernels of learn_update.c: arithmetic of eight
 * weights at a time here, launchers in update_kernels.cu, loops in tests/gpu.
 * Included by C11 and by CUDA C++. */
#ifndef GPU_UPDATE_KERNELS_H
#define GPU_UPDATE_KERNELS_H

#include "core/engine/learn_rule.h"
#include "gpu/learn_update.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    UPDATE_PARTS = 1024 /* blocks of threads that a sum is shared by: always as
                           many, so that it does not depend on the card */
};
struct update_sums { /* of squares of the gradients */
    double total;
    float parts[UPDATE_PARTS];
};

/* Eight gradients from number 8 i on; the sum of their squares. */
ARITH float update_decay_piece(const struct learn_flat *f, float decay,
                               float scale, uint32_t i)
{
    uint32_t at = i * ARITH_LANES;
    float g[ARITH_LANES], w[ARITH_LANES], sum = 0;

    arith_load(f->gradients, at, GTYPE_F32, g);
    if (decay != 0 && at < f->n_decays) {
        arith_load(f->weights, at, GTYPE_F32, w);
        for (int k = 0; k < ARITH_LANES; k++)
            g[k] = g[k] * scale + decay * w[k];
        arith_store(f->gradients, at, GTYPE_F32, g, 0, ARITH_LANES);
    } else if (scale != 1) {
        for (int k = 0; k < ARITH_LANES; k++)
            g[k] *= scale;
        arith_store(f->gradients, at, GTYPE_F32, g, 0, ARITH_LANES);
    }
    for (int k = 0; k < ARITH_LANES; k++)
        sum += g[k] * g[k];
    return sum;
}

/* Eight weights from number 8 i on. rule: u's, known to the compiler. */
ARITH void update_piece(const struct learn_flat *f,
                        const struct learn_update *u, enum optimizer rule,
                        uint32_t i)
{
    uint32_t at = i * ARITH_LANES;
    float g[ARITH_LANES], w[ARITH_LANES], a[ARITH_LANES];
    float b[ARITH_LANES] = {0};

    arith_load(f->gradients, at, GTYPE_F32, g);
    arith_load(f->weights, at, GTYPE_F32, w);
    arith_load(f->slots[0], at, GTYPE_F32, a);
    if (learn_slots(rule) > 1)
        arith_load(f->slots[1], at, GTYPE_F32, b);
    for (int k = 0; k < ARITH_LANES; k++)
        learn_rule(rule, u->rate, u->epsilon, g[k] * u->scale, &w[k], &a[k],
                   &b[k]);
    arith_store(f->weights, at, GTYPE_F32, w, 0, ARITH_LANES);
    arith_store(f->slots[0], at, GTYPE_F32, a, 0, ARITH_LANES);
    if (learn_slots(rule) > 1)
        arith_store(f->slots[1], at, GTYPE_F32, b, 0, ARITH_LANES);
    for (int type = GTYPE_F32 + 1; type < GTYPE_COUNT; type++)
        if (f->typed[type])
            arith_store(f->typed[type], at, type, w, 0, ARITH_LANES);
    if (!f->average)
        return;
    arith_load(f->average, at, GTYPE_F32, a);
    for (int k = 0; k < ARITH_LANES; k++)
        a[k] += u->average * (w[k] - a[k]);
    arith_store(f->average, at, GTYPE_F32, a, 0, ARITH_LANES);
}

/* update_decay_piece over all, and parts of scratch; then total. ERR_DEVICE. */
int update_decay(const struct learn_flat *f, float decay, float scale,
                 struct stream *s, struct error *err);
int update_join(struct update_sums *sums, struct stream *s, struct error *err);
/* update_piece over all. */
int update_weights(const struct learn_flat *f, const struct learn_update *u,
                   struct stream *s, struct error *err);

#ifdef __cplusplus
}
#endif

#endif
