/* tests/gpu/test_update.c - what a card does to the numbers of a network that
 * learns between its runs, against the host's own. Linked twice: with the
 * emulated card, and with a card's own kernels (test_update_card; skipped
 * without a card). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/learn.h"
#include "core/engine/learn_rule.h"
#include "gpu/learn_update.h"

enum {
    N = 8 * 40000,  /* more pieces than threads of a sum's parts */
    DECAYS = 8 * 90 /* the first of them */
};
static const size_t bytes = N * sizeof(float);

static struct card *card;
static struct stream *stream;
static struct learn_flat flat;
/* The same on the host, and room for what the card has. */
static struct backend backend;
static struct device device = {.backend = &backend};
static struct learn_tensor tensors[2] = {
    {.count = DECAYS, .decays = true}, {.offset = DECAYS, .count = N - DECAYS}};
static struct learnable learn = {
    .tensors = tensors, .n_tensors = 2, .n_weights = N};
static struct network net = {.device = &device, .learn = &learn};
static float *seen;

static void upload(void *to, const float *from)
{
    struct error err;

    assert_int_equal(card_upload(card, to, from, bytes, &err), 0);
}

static void fill(enum optimizer rule)
{
    tensor_formula("weights", learn.weights, N);
    tensor_formula("gradients", learn.gradients, N);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < N; i++)
            learn.slots[k][i] = learn_slot_first(rule, k);
    memcpy(learn.average, learn.weights, bytes);
    upload(flat.weights, learn.weights);
    upload(flat.gradients, learn.gradients);
    upload(flat.slots[0], learn.slots[0]);
    upload(flat.slots[1], learn.slots[1]);
    upload(flat.average, learn.average);
}

static const void *download(const void *from, size_t n)
{
    struct error err;

    if (card_copy_out(stream, seen, from, n, &err) || card_wait(stream, &err))
        fail_msg("%s", err.text);
    return seen;
}

/* A card joins a product and a sum before it rounds. */
static void check(const char *what, const float *on_card, const float *want)
{
    const float *got = download(on_card, bytes);

    for (int i = 0; i < N; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-6f + 1e-5f * fabsf(want[i])))
            fail_msg("%s %d: %.9g, the host has %.9g", what, i, (double)got[i],
                     (double)want[i]);
}

static void step(const struct learn_flat *f, const struct learn_update *u)
{
    struct error err;

    if (learn_card_update(stream, f, u, &err))
        fail_msg("%s", err.text);
}

static double norm_of(float decay, float scale)
{
    struct error err;
    double norm;

    if (learn_card_norm(stream, &flat, decay, scale, &norm, &err))
        fail_msg("%s", err.text);
    return norm;
}

static void updates_are_the_hosts(void **state)
{
    struct error err;

    (void)state;
    if (!card)
        skip();
    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct learn_update u = {.rule = (enum optimizer)r,
                                 .scale = 0.7f,
                                 .rate = 0.05f,
                                 .epsilon = 0.1f,
                                 .average = 0.25f};
        float *weights = malloc(bytes);
        const uint16_t *half;

        fill(u.rule);
        for (int n = 0; n < 3; n++) {
            assert_int_equal(learn_update(&net, &u, &err), 0);
            step(&flat, &u);
        }
        check("weight", flat.weights, learn.weights);
        memcpy(weights, seen, bytes);
        check("slot 0", flat.slots[0], learn.slots[0]);
        if (learn_slots(u.rule) > 1)
            check("slot 1", flat.slots[1], learn.slots[1]);
        check("average", flat.average, learn.average);
        half = download(flat.typed[GTYPE_F16], bytes / 2);
        for (int i = 0; i < N; i++)
            assert_int_equal(half[i], arith_to_f16(weights[i]));
        half = download(flat.typed[GTYPE_BF16], bytes / 2);
        for (int i = 0; i < N; i++)
            assert_int_equal(half[i], arith_to_bf16(weights[i]));
        free(weights);
    }
}

static void what_is_not_kept_is_left(void **state)
{
    struct learn_update u = {
        .rule = OPTIM_MOM, .scale = 1, .rate = 0.1f, .average = 1};
    struct learn_flat some = flat;
    struct error err;

    (void)state;
    if (!card)
        skip();
    fill(u.rule);
    some.average = NULL;
    some.slots[1] = NULL;
    some.typed[GTYPE_F16] = some.typed[GTYPE_BF16] = NULL;
    assert_int_equal(card_fill(card, flat.typed[GTYPE_F16], 7, bytes / 2, &err),
                     0);
    step(&some, &u);
    assert_int_equal(learn_update(&net, &u, &err), 0);
    check("weight", flat.weights, learn.weights);
    assert_int_equal(*(const uint16_t *)download(flat.typed[GTYPE_F16], 2),
                     0x0707);
    tensor_formula("weights", learn.weights, N);
    assert_memory_equal(download(flat.average, bytes), learn.weights, bytes);
}

static void norms_are_the_hosts(void **state)
{
    struct error err;
    double here, there;

    (void)state;
    if (!card)
        skip();
    for (int with = 0; with < 4; with++) {
        float decay = with & 1 ? 0.1f : 0, scale = with & 2 ? 0.125f : 1;

        fill(OPTIM_MOM);
        for (int i = 0; i < N; i++)
            learn.gradients[i] *= scale;
        assert_int_equal(learn_norm(&net, decay, &here, &err), 0);
        there = norm_of(decay, scale);
        assert_float_equal(there / here, 1, 1e-5);
        check("gradient", flat.gradients, learn.gradients);
        assert_true(norm_of(0, 1) == norm_of(0, 1));
    }
    learn.gradients[N - 1] = NAN;
    upload(flat.gradients, learn.gradients);
    assert_true(isnan(norm_of(0, 1)));
    learn.gradients[N - 1] = INFINITY;
    upload(flat.gradients, learn.gradients);
    assert_false(isfinite(norm_of(0, 1)));
}

/* Zeros in all arrays: of every rule they stay so. */
static void padding_stays_zero(void **state)
{
    float *const arrays[] = {learn.weights, learn.gradients, learn.slots[0],
                             learn.slots[1], learn.average};
    float *const on_card[] = {flat.weights, flat.gradients, flat.slots[0],
                              flat.slots[1], flat.average};

    (void)state;
    if (!card)
        skip();
    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct learn_update u = {.rule = (enum optimizer)r,
                                 .scale = 1,
                                 .rate = 0.1f,
                                 .epsilon = 1e-8f,
                                 .average = 0.5f};

        fill(u.rule);
        for (int k = 0; k < 5; k++) {
            memset(arrays[k] + N - 8, 0, 8 * sizeof(float));
            upload(on_card[k], arrays[k]);
        }
        for (int n = 0; n < 3; n++)
            step(&flat, &u);
        for (int k = 0; k < 5; k++) {
            const float *got = download(on_card[k], bytes);

            for (int i = N - 8; i < N; i++)
                assert_float_equal(got[i], 0, 0);
        }
    }
}

static int setup(void **state)
{
    struct device_options opt = {0};
    struct error err = {0};
    float **const host[] = {&learn.weights,  &learn.gradients, &learn.slots[0],
                            &learn.slots[1], &learn.average,   &seen};
    float **const on_card[] = {&flat.weights, &flat.gradients, &flat.slots[0],
                               &flat.slots[1], &flat.average};

    (void)state;
    card = card_open(&opt, &err);
    if (!card) {
        printf("no card: %s\n", err.text);
        return 0;
    }
    stream = card_stream_new(card, &err);
    for (int k = 0; k < 6; k++)
        *host[k] = tensor_alloc(N);
    for (int k = 0; k < 5; k++)
        *on_card[k] = card_alloc(card, bytes, &err);
    flat.n = N;
    flat.n_decays = DECAYS;
    flat.typed[GTYPE_F16] = card_alloc(card, bytes / 2, &err);
    flat.typed[GTYPE_BF16] = card_alloc(card, bytes / 2, &err);
    flat.scratch = card_alloc(card, learn_card_scratch(), &err);
    return stream && flat.average && flat.scratch && seen ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    if (!card)
        return 0;
    card_release(card, flat.weights, bytes);
    card_release(card, flat.gradients, bytes);
    card_release(card, flat.slots[0], bytes);
    card_release(card, flat.slots[1], bytes);
    card_release(card, flat.average, bytes);
    card_release(card, flat.typed[GTYPE_F16], bytes / 2);
    card_release(card, flat.typed[GTYPE_BF16], bytes / 2);
    card_release(card, flat.scratch, learn_card_scratch());
    card_stream_free(stream);
    card_close(card);
    free(learn.weights);
    free(learn.gradients);
    free(learn.slots[0]);
    free(learn.slots[1]);
    free(learn.average);
    free(seen);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_are_the_hosts),
        cmocka_unit_test(what_is_not_kept_is_left),
        cmocka_unit_test(norms_are_the_hosts),
        cmocka_unit_test(padding_stays_zero),
    };

    return cmocka_run_group_tests_name("gpu/update", tests, setup, teardown);
}
