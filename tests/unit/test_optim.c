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

static void rules_are_tensorflows(void **state)
{
    struct error err;

    (void)state;
    for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
        float w[3];
        enum optimizer which;
        struct optim *o;

        assert_int_equal(optim_parse(rules[r].name, &which, &err), 0);
        assert_string_equal(optim_name(which), rules[r].name);
        o = optim_new(which, 3, &err);
        assert_non_null(o);
        memcpy(w, first, sizeof(w));
        for (int step = 0; step < 4; step++) {
            optim_step(o, w, gradients[step], 0.1);
            for (int i = 0; i < 3; i++)
                if (!(fabsf(w[i] - rules[r].after[step][i]) < 1e-6f))
                    fail_msg("%s step %d weight %d: %.8f, not %.8f",
                             rules[r].name, step, i, (double)w[i],
                             (double)rules[r].after[step][i]);
        }
        assert_int_equal(optim_steps(o), 4);
        optim_free(o);
    }
}

/* With a small epsilon Adam's first step is the rate, whatever the gradient
 * (arXiv 1412.6980, section 2.1); with the script's it shrinks with it. */
static void adam_epsilon(void **state)
{
    struct error err;
    const float g[3] = {1e-4f, -1e-2f, 1};

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct optim *o = optim_new(OPTIM_ADAM, 3, &err);
        float w[3] = {0};

        assert_non_null(o);
        if (k)
            optim_set_epsilon(o, 1e-8);
        optim_step(o, w, g, 0.1);
        for (int i = 0; i < 3; i++) {
            double eps = k ? 1e-8 : 0.1;
            double root = sqrt(1e-3) * fabs((double)g[i]);
            double want =
                -0.1 * sqrt(1e-3) / 0.1 * 0.1 * (double)g[i] / (root + eps);

            assert_float_equal(w[i], want, 1e-4 * fabs(want));
            if (k)
                assert_float_equal(fabsf(w[i]), 0.1, 1e-3);
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
        struct optim *a = optim_new((enum optimizer)r, 3, &err);
        struct optim *b = optim_new((enum optimizer)r, 3, &err);
        float *from[LEARN_MAX_SLOTS], *to[LEARN_MAX_SLOTS], x[3], y[3];
        int n;

        memcpy(x, first, sizeof(x));
        optim_step(a, x, gradients[0], 0.1);
        optim_step(a, x, gradients[1], 0.1);
        memcpy(y, x, sizeof(y));
        n = optim_slots(a, from);
        assert_int_equal(optim_slots(b, to), n);
        for (int k = 0; k < n; k++)
            memcpy(to[k], from[k], sizeof(x));
        optim_set_steps(b, optim_steps(a));
        for (int step = 2; step < 4; step++) {
            optim_step(a, x, gradients[step], 0.1);
            optim_step(b, y, gradients[step], 0.1);
        }
        assert_memory_equal(x, y, sizeof(x));
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
    float average[3];

    (void)state;
    memcpy(average, first, sizeof(average));
    for (int i = 0; i < 3; i++) {
        optim_average(average, gradients[i], 3, 0.9, steps[i]);
        for (int k = 0; k < 3; k++)
            assert_true(fabsf(average[k] - after[i][k]) < 2e-7f);
    }
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
    float x[3] = {3, -4, 12};

    (void)state;
    assert_float_equal(optim_norm(x, 3), 13, 1e-9);
    assert_float_equal(optim_norm(x, 0), 0, 0);
    x[1] = NAN;
    assert_true(isnan(optim_norm(x, 3)));
    x[1] = -INFINITY;
    assert_true(isinf(optim_norm(x, 3)));
    x[1] = 3e38f; /* whose square is no float */
    assert_true(isfinite(optim_norm(x, 3)));
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
        cmocka_unit_test(unknown_rules_are_named),
        cmocka_unit_test(averages_follow),
        cmocka_unit_test(the_rate_falls_by_stairs),
        cmocka_unit_test(norms),
        cmocka_unit_test(a_schedule_is_read),
        cmocka_unit_test(bad_schedules_name_the_line),
    };

    return cmocka_run_group_tests(tests, make_path, remove_path);
}
