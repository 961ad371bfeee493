/* tests/unit/test_optim.c - the update rules against TensorFlow itself.
 * The numbers were printed by tf.compat.v1.train's optimisers (2.x, float32)
 * for three weights, four steps, rate 0.1; so were the moving averages and the
 * staircase. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/train/optim.h"

static const float first[3] = {1.0f, -0.5f, 0.25f};
static const float gradients[4][3] = {{0.5f, -1.0f, 0.0f},
                                      {0.25f, 2.0f, -0.125f},
                                      {-1.5f, 0.0625f, 3.0f},
                                      {0.75f, -0.5f, 1.0f}};

static const struct {
    const char *name;
    float after[4][3];
} rules[] = {
    {"ADAGRAD",
     {{0.91548455f, -0.40465373f, 0.25000000f},
      {0.87655962f, -0.49321520f, 0.28676072f},
      {0.96848732f, -0.49598169f, 0.18739694f},
      {0.92672384f, -0.47437268f, 0.15595542f}}},
    {"ADADELTA",
     {{0.99968380f, -0.49968377f, 0.25000000f},
      {0.99947530f, -0.50008780f, 0.25031611f},
      {0.99993289f, -0.50010550f, 0.24986932f},
      {0.99964023f, -0.49996608f, 0.24966256f}}},
    {"ADAM",
     {{0.98634738f, -0.47597480f, 0.25000000f},
      {0.97234893f, -0.49113831f, 0.25282958f},
      {0.98401755f, -0.50359404f, 0.22290920f},
      {0.98440659f, -0.50836122f, 0.18984793f}}},
    {"RMSPROP",
     {{0.96396250f, -0.42928931f, 0.25000000f},
      {0.91309226f, -0.49752581f, 0.25928718f},
      {0.97391278f, -0.56318104f, 0.08267199f},
      {0.97477847f, -0.58758825f, -0.13869196f}}},
    {"MOM",
     {{0.90499997f, -0.31000000f, 0.25000000f},
      {0.81699997f, -0.60899997f, 0.27375001f},
      {1.04530001f, -0.70997500f, -0.28612500f},
      {0.97327000f, -0.70022750f, -0.71001250f}}},
};

/* Three weights on a device that leaves them to the host. */
struct three {
    struct backend backend;
    struct device device;
    struct network net;
    struct learnable learn;
    float weights[3], gradients[3];
};

static struct network *three_init(struct three *t, const float *weights)
{
    memset(t, 0, sizeof(*t));
    t->device.backend = &t->backend;
    t->net.device = &t->device;
    t->net.learn = &t->learn;
    t->learn.n_weights = 3;
    t->learn.weights = t->weights;
    t->learn.gradients = t->gradients;
    memcpy(t->weights, weights, sizeof(t->weights));
    return &t->net;
}

static void step(struct three *t, struct optim *o, const float *g)
{
    struct error err;

    memcpy(t->gradients, g, sizeof(t->gradients));
    assert_int_equal(optim_step(o, 0.1, 1, 0.9, &err), 0);
}

static void rules_are_tensorflows(void **state)
{
    struct error err;

    (void)state;
    for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
        struct three t;
        enum optimizer which;
        struct optim *o;

        assert_int_equal(optim_parse(rules[r].name, &which, &err), 0);
        assert_string_equal(optim_name(which), rules[r].name);
        o = optim_new(which, three_init(&t, first), &err);
        assert_non_null(o);
        for (int n = 0; n < 4; n++) {
            step(&t, o, gradients[n]);
            for (int i = 0; i < 3; i++)
                if (!(fabsf(t.weights[i] - rules[r].after[n][i]) < 1e-6f))
                    fail_msg("%s step %d weight %d: %.8f, not %.8f",
                             rules[r].name, n, i, (double)t.weights[i],
                             (double)rules[r].after[n][i]);
        }
        assert_int_equal(optim_steps(o), 4);
        optim_free(o);
        assert_null(t.learn.slots[0]);
        assert_null(t.learn.average);
    }
}

/* With a small epsilon Adam's first step is the rate, whatever the gradient
 * (arXiv 1412.6980, section 2.1); with the script's it shrinks with it. */
static void adam_epsilon(void **state)
{
    static const float zeros[3], g[3] = {1e-4f, -1e-2f, 1};
    struct error err;

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct three t;
        struct optim *o = optim_new(OPTIM_ADAM, three_init(&t, zeros), &err);

        assert_non_null(o);
        if (k)
            optim_set_epsilon(o, 1e-8);
        step(&t, o, g);
        for (int i = 0; i < 3; i++) {
            double eps = k ? 1e-8 : 0.1;
            double root = sqrt(1e-3) * fabs((double)g[i]);
            double want =
                -0.1 * sqrt(1e-3) / 0.1 * 0.1 * (double)g[i] / (root + eps);

            assert_float_equal(t.weights[i], want, 1e-4 * fabs(want));
            if (k)
                assert_float_equal(fabsf(t.weights[i]), 0.1, 1e-3);
        }
        optim_free(o);
    }
}

/* Two steps, then all state into a new optimiser, then two more: the same to
 * the last bit as four. */
static void state_is_all_there_is(void **state)
{
    struct error err;

    (void)state;
    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct three x, y;
        struct optim *a =
            optim_new((enum optimizer)r, three_init(&x, first), &err);
        struct optim *b;
        int n = 0;

        step(&x, a, gradients[0]);
        step(&x, a, gradients[1]);
        b = optim_new((enum optimizer)r, three_init(&y, x.weights), &err);
        for (; n < LEARN_MAX_SLOTS && x.learn.slots[n]; n++)
            memcpy(y.learn.slots[n], x.learn.slots[n], sizeof(x.weights));
        assert_true(n > 0);
        memcpy(y.learn.average, x.learn.average, sizeof(x.weights));
        optim_set_steps(b, optim_steps(a));
        for (int k = 2; k < 4; k++) {
            step(&x, a, gradients[k]);
            step(&y, b, gradients[k]);
        }
        assert_memory_equal(x.weights, y.weights, sizeof(x.weights));
        assert_memory_equal(x.learn.average, y.learn.average,
                            sizeof(x.weights));
        optim_free(a);
        optim_free(b);
    }
}

/* As if the gradients had been that much smaller. */
static void gradients_are_scaled_first(void **state)
{
    struct error err;

    (void)state;
    for (int r = 0; r < OPTIM_COUNT; r++) {
        struct three x, y;
        struct optim *a =
            optim_new((enum optimizer)r, three_init(&x, first), &err);
        struct optim *b =
            optim_new((enum optimizer)r, three_init(&y, first), &err);

        for (int k = 0; k < 4; k++) {
            float half[3];

            for (int i = 0; i < 3; i++)
                half[i] = gradients[k][i] / 2;
            step(&y, b, half);
            memcpy(x.gradients, gradients[k], sizeof(x.gradients));
            assert_int_equal(optim_step(a, 0.1, 0.5, 0.9, &err), 0);
        }
        assert_memory_equal(x.weights, y.weights, sizeof(x.weights));
        optim_free(a);
        optim_free(b);
    }
}

static void unknown_rules_are_named(void **state)
{
    enum optimizer o;
    struct error err;

    (void)state;
    assert_int_equal(optim_parse("SGD", &o, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_non_null(strstr(err.text, "'SGD'"));
    assert_non_null(strstr(err.text, "RMSPROP"));
    assert_int_equal(optim_parse("adam", &o, &err), -1);
}

static void averages_follow(void **state)
{
    static const long long steps[] = {0, 5, 200};
    static const float after[3][3] = {{0.55000001f, -0.94999999f, 0.02500001f},
                                      {0.37000000f, 0.82000011f, -0.06500000f},
                                      {0.18299995f, 0.74425006f, 0.24150008f}};
    static const float zeros[3];
    struct error err;
    struct three t;
    struct optim *o = optim_new(OPTIM_MOM, three_init(&t, first), &err);

    (void)state;
    assert_non_null(o);
    for (int i = 0; i < 3; i++) {
        memcpy(t.weights, gradients[i], sizeof(t.weights)); /* they stay so */
        optim_set_steps(o, steps[i]);
        step(&t, o, zeros);
        for (int k = 0; k < 3; k++)
            assert_true(fabsf(t.learn.average[k] - after[i][k]) < 2e-7f);
    }
    optim_free(o);
}

static void the_rate_falls_by_stairs(void **state)
{
    (void)state;
    assert_float_equal(optim_decayed_rate(0.1, 0.5, 2, 500, 0), 0.1, 1e-12);
    assert_float_equal(optim_decayed_rate(0.1, 0.5, 2, 500, 999), 0.1, 1e-12);
    assert_float_equal(optim_decayed_rate(0.1, 0.5, 2, 500, 1000), 0.05, 1e-12);
    assert_float_equal(optim_decayed_rate(0.1, 0.5, 1, 1000, 2999), 0.025,
                       1e-12);
    assert_float_equal(optim_decayed_rate(0.1, 0.5, 1, 1000, 3000), 0.0125,
                       1e-12);
    assert_float_equal(optim_decayed_rate(0.1, 1, 100, 1000, 1000000000000LL),
                       0.1, 1e-12);
}

static void norms(void **state)
{
    static const float x[3] = {3, -4, 12};
    struct learn_tensor tensors[] = {{.offset = 0, .count = 1},
                                     {.offset = 1, .count = 2, .decays = true}};
    struct error err;
    struct three t;
    struct network *net = three_init(&t, first);
    double norm;

    (void)state;
    memcpy(t.gradients, x, sizeof(x));
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_float_equal(norm, 13, 1e-9);
    t.gradients[1] = NAN;
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_true(isnan(norm));
    t.gradients[1] = -INFINITY;
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_true(isinf(norm));
    t.gradients[1] = 3e38f; /* whose square is no float */
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_true(isfinite(norm));
    t.learn.tensors = tensors;
    t.learn.n_tensors = 2;
    memcpy(t.gradients, x, sizeof(x));
    assert_int_equal(learn_norm(net, 2, &norm, &err), 0);
    assert_float_equal(t.gradients[0], 3, 0);
    assert_float_equal(t.gradients[1], -5, 0);
    assert_float_equal(t.gradients[2], 12.5, 0);
    assert_float_equal(norm, sqrt(9 + 25 + 156.25), 1e-9);
    assert_int_equal(learn_clear(net, &err), 0);
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_float_equal(norm, 0, 0);
    t.learn.n_weights = 0;
    assert_int_equal(learn_norm(net, 0, &norm, &err), 0);
    assert_float_equal(norm, 0, 0);
}

static char path[] = "/tmp/test_schedule.XXXXXX";

static int load(const char *text, struct schedule *s, struct error *err)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return schedule_load(path, s, err);
}

static void a_schedule_is_read(void **state)
{
    struct schedule s;
    struct error err;

    (void)state;
    /* The form of the training script's own files. */
    assert_int_equal(load("# Learning rate schedule\n# epochs: rate\n"
                          "0:  0.1\n150: 0.01 # then\n\n 180:0.001\n251: -1",
                          &s, &err),
                     0);
    assert_int_equal(s.n, 4);
    assert_float_equal(schedule_rate(&s, 0), 0.1, 1e-12);
    assert_float_equal(schedule_rate(&s, 149), 0.1, 1e-12);
    assert_float_equal(schedule_rate(&s, 150), 0.01, 1e-12);
    assert_float_equal(schedule_rate(&s, 250), 0.001, 1e-12);
    assert_float_equal(schedule_rate(&s, 251), -1, 1e-12);
    assert_float_equal(schedule_rate(&s, 9999), -1, 1e-12);
}

static void bad_schedules_name_the_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "holds no rate"},
        {"# nothing\n\n", "holds no rate"},
        {"0: 0.1\n5 0.2\n", "line 2: 'epoch: rate'"},
        {"0: 0.1\nfive: 0.2\n", "line 2: 'five' is no epoch"},
        {"0: 0.1\n: 0.2\n", "line 2: '' is no epoch"},
        {"0: 0.1\n-5: 0.2\n", "is no epoch"},
        {"0: 0.1\n99999999999999999999: 0.2\n", "is no epoch"},
        {"0: 0.1\n5: nan\n", "line 2: 'nan' is no rate"},
        {"0: 0.1\n5: inf\n", "'inf' is no rate"},
        {"0: 0.1\n5: -2\n", "'-2' is no rate"},
        {"0: 0\n", "line 1: '0' is no rate"},
        {"0: 0.1x\n", "'0.1x' is no rate"},
        {"0: \n", "'' is no rate"},
        {"0: 101\n", "'101' is no rate"},
        {"0: 0.1\n5: 0.2\n5: 0.3\n", "line 3: epoch 5 does not come after 5"},
        {"0: 0.1\n5: 0.2\n4: 0.3\n", "line 3: epoch 4"},
        {"9: 0.1\n", "no rate for the first epoch"},
    };
    struct schedule s;
    struct error err;
    char *text = malloc(1 << 16);
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(load(cases[i].text, &s, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
    }
    for (int i = 0; i < 257; i++)
        at += (size_t)sprintf(text + at, "%d: 0.1\n", i);
    assert_int_equal(load(text, &s, &err), -1);
    assert_non_null(strstr(err.text, "line 257: more than 256"));
    memset(text, ' ', 400);
    strcpy(text + 400, "0: 1\n");
    assert_int_equal(load(text, &s, &err), -1);
    assert_non_null(strstr(err.text, "line 1: over 254"));
    assert_int_equal(schedule_load("/nonexistent", &s, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    free(text);
}

static int make_path(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_tensorflows),
        cmocka_unit_test(adam_epsilon),
        cmocka_unit_test(state_is_all_there_is),
        cmocka_unit_test(gradients_are_scaled_first),
        cmocka_unit_test(unknown_rules_are_named),
        cmocka_unit_test(averages_follow),
        cmocka_unit_test(the_rate_falls_by_stairs),
        cmocka_unit_test(norms),
        cmocka_unit_test(a_schedule_is_read),
        cmocka_unit_test(bad_schedules_name_the_line),
    };

    return cmocka_run_group_tests(tests, make_path, remove_path);
}
