/* tests/gpu/test_update.c - what a card does to the numbers of a network that
 * learns between its runs, on the emulated card, against the host's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/learn.h"
#include "core/engine/learn_rule.h"
#include "gpu/learn_update.h"

enum {
    N = 8 * 2500,   /* more pieces than parts */
    DECAYS = 8 * 90 /* the first of them */
};

struct fixture {
    struct card *card;
    struct stream *stream;
    struct learn_flat flat;
    float *arrays[5];
    uint16_t *f16, *bf16;
    /* the same on the host */
    struct backend backend;
    struct device device;
    struct network net;
    struct learnable learn;
    struct learn_tensor tensors[2];
};

static void fill(struct fixture *f, enum optimizer rule)
{
    struct learn_flat *c = &f->flat;
    struct learnable *l = &f->learn;

    tensor_formula("weights", l->weights, N);
    tensor_formula("gradients", l->gradients, N);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < N; i++)
            l->slots[k][i] = learn_slot_first(rule, k);
    memcpy(l->average, l->weights, N * sizeof(float));
    memcpy(c->weights, l->weights, N * sizeof(float));
    memcpy(c->gradients, l->gradients, N * sizeof(float));
    memcpy(c->slots[0], l->slots[0], N * sizeof(float));
    memcpy(c->slots[1], l->slots[1], N * sizeof(float));
    memcpy(c->average, l->average, N * sizeof(float));
}

static int open_all(void **state)
{
    struct device_options opt = {0};
    struct fixture *f = calloc(1, sizeof(*f));
    struct learn_flat *c = &f->flat;
    struct learnable *l = &f->learn;
    struct error err;

    f->card = card_open(&opt, &err);
    f->stream = card_stream_new(f->card, &err);
    for (int k = 0; k < 5; k++)
        f->arrays[k] = tensor_alloc(N);
    f->f16 = (uint16_t *)tensor_alloc(N / 2);
    f->bf16 = (uint16_t *)tensor_alloc(N / 2);
    *c = (struct learn_flat){.weights = f->arrays[0],
                             .gradients = f->arrays[1],
                             .slots = {f->arrays[2], f->arrays[3]},
                             .average = f->arrays[4],
                             .n = N,
                             .n_decays = DECAYS,
                             .typed = {NULL, f->f16, f->bf16},
                             .scratch = tensor_alloc(learn_card_scratch())};
    f->device.backend = &f->backend;
    f->net.device = &f->device;
    f->net.learn = l;
    f->tensors[0] = (struct learn_tensor){.count = DECAYS, .decays = true};
    f->tensors[1] =
        (struct learn_tensor){.offset = DECAYS, .count = N - DECAYS};
    *l = (struct learnable){.tensors = f->tensors,
                            .n_tensors = 2,
                            .n_weights = N,
                            .weights = tensor_alloc(N),
                            .gradients = tensor_alloc(N),
                            .slots = {tensor_alloc(N), tensor_alloc(N)},
                            .average = tensor_alloc(N)};
    *state = f;
    return 0;
}

static int close_all(void **state)
{
    struct fixture *f = *state;

    for (int k = 0; k < 5; k++)
        free(f->arrays[k]);
    free(f->f16);
    free(f->bf16);
    free(f->flat.scratch);
    free(f->learn.weights);
    free(f->learn.gradients);
    free(f->learn.slots[0]);
    free(f->learn.slots[1]);
    free(f->learn.average);
    card_stream_free(f->stream);
    card_close(f->card);
    free(f);
    return 0;
}

static void check(const char *what, const float *a, const float *b)
{
    for (int i = 0; i < N; i++)
        if (!(fabsf(a[i] - b[i]) <= 1e-6f + 1e-6f * fabsf(b[i])))
            fail_msg("%s %d: %.9g, the host has %.9g", what, i, (double)a[i],
                     (double)b[i]);
}

static void updates_are_the_hosts(void **state)
{
    struct fixture *f = *state;
    struct error err;

    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct learn_update u = {.rule = (enum optimizer)r,
                                 .scale = 0.7f,
                                 .rate = 0.05f,
                                 .epsilon = 0.1f,
                                 .average = 0.25f};

        fill(f, u.rule);
        for (int n = 0; n < 3; n++) {
            assert_int_equal(learn_update(&f->net, &u, &err), 0);
            assert_int_equal(learn_card_update(f->stream, &f->flat, &u, &err),
                             0);
        }
        check("weight", f->flat.weights, f->learn.weights);
        check("slot 0", f->flat.slots[0], f->learn.slots[0]);
        if (learn_slots(u.rule) > 1)
            check("slot 1", f->flat.slots[1], f->learn.slots[1]);
        check("average", f->flat.average, f->learn.average);
        for (int i = 0; i < N; i++) {
            assert_int_equal(f->f16[i], arith_to_f16(f->flat.weights[i]));
            assert_int_equal(f->bf16[i], arith_to_bf16(f->flat.weights[i]));
        }
    }
}

static void what_is_not_kept_is_left(void **state)
{
    struct fixture *f = *state;
    struct learn_update u = {
        .rule = OPTIM_MOM, .scale = 1, .rate = 0.1f, .average = 1};
    struct learn_flat some = f->flat;
    struct error err;

    fill(f, u.rule);
    some.average = NULL;
    some.slots[1] = NULL;
    some.typed[GTYPE_F16] = some.typed[GTYPE_BF16] = NULL;
    memset(f->f16, 7, N * sizeof(*f->f16));
    assert_int_equal(learn_card_update(f->stream, &some, &u, &err), 0);
    assert_int_equal(learn_update(&f->net, &u, &err), 0);
    check("weight", f->flat.weights, f->learn.weights);
    assert_int_equal(f->f16[0], 0x0707);
    tensor_formula("weights", f->learn.weights, N);
    assert_memory_equal(f->flat.average, f->learn.weights, N * sizeof(float));
}

static void norms_are_the_hosts(void **state)
{
    struct fixture *f = *state;
    struct error err;
    double here, there;

    for (int with = 0; with < 4; with++) {
        float decay = with & 1 ? 0.1f : 0, scale = with & 2 ? 0.125f : 1;

        fill(f, OPTIM_MOM);
        for (int i = 0; i < N; i++)
            f->learn.gradients[i] *= scale;
        assert_int_equal(learn_norm(&f->net, decay, &here, &err), 0);
        assert_int_equal(
            learn_card_norm(f->stream, &f->flat, decay, scale, &there, &err),
            0);
        assert_float_equal(there / here, 1, 1e-6);
        check("gradient", f->flat.gradients, f->learn.gradients);
    }
    f->flat.gradients[N - 1] = NAN;
    learn_card_norm(f->stream, &f->flat, 0, 1, &there, &err);
    assert_true(isnan(there));
    f->flat.gradients[N - 1] = INFINITY;
    learn_card_norm(f->stream, &f->flat, 0, 1, &there, &err);
    assert_false(isfinite(there));
}

/* Zeros in all arrays: of every rule they stay so. */
static void padding_stays_zero(void **state)
{
    struct fixture *f = *state;
    struct error err;

    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct learn_update u = {.rule = (enum optimizer)r,
                                 .scale = 1,
                                 .rate = 0.1f,
                                 .epsilon = 1e-8f,
                                 .average = 0.5f};

        fill(f, u.rule);
        for (int k = 0; k < 5; k++)
            memset(f->arrays[k] + N - 8, 0, 8 * sizeof(float));
        for (int n = 0; n < 3; n++)
            assert_int_equal(learn_card_update(f->stream, &f->flat, &u, &err),
                             0);
        for (int i = N - 8; i < N; i++) {
            assert_float_equal(f->flat.weights[i], 0, 0);
            assert_float_equal(f->flat.average[i], 0, 0);
            assert_int_equal(f->f16[i], 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_are_the_hosts),
        cmocka_unit_test(what_is_not_kept_is_left),
        cmocka_unit_test(norms_are_the_hosts),
        cmocka_unit_test(padding_stays_zero),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
