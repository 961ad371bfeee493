/* tests/unit/test_distance.c - squared L2 distances against plain loops in
 * double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"

static uint32_t seed = 1;

static float draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed / 2147483648.0f;
}

static float *unit_rows(size_t n, size_t dim)
{
    float *rows = malloc(n * dim * sizeof(float));

    assert_non_null(rows);
    for (size_t i = 0; i < n * dim; i++)
        rows[i] = draw();
    for (size_t i = 0; i < n; i++)
        assert_true(distance_normalise(rows + i * dim, dim));
    return rows;
}

static double plain(const float *a, const float *b, size_t dim)
{
    double sum = 0;

    for (size_t i = 0; i < dim; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum;
}

static void test_l2(void **state)
{
    static const size_t dims[] = {1, 2, 7, 8, 9, 64, 128, 511, 512, 4096};

    (void)state;
    for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
        size_t dim = dims[d];
        float *v = unit_rows(20, dim);
        for (size_t i = 1; i < 20; i++) {
            float got = distance_l2(v, v + i * dim, dim);
            assert_true(fabs(got - plain(v, v + i * dim, dim)) < 2e-6);
            assert_true(got == distance_l2(v + i * dim, v, dim));
        }
        assert_true(distance_l2(v, v, dim) == 0);
        free(v);
    }
    assert_true(distance_l2((float[]){1, 0}, (float[]){-1, 0}, 2) == 4);
    assert_true(distance_l2((float[]){1, 0}, (float[]){0, 1}, 2) == 2);
}

static void test_rows(void **state)
{
    static const size_t shapes[][2] = {
        {0, 128}, {1, 1},    {1, 128},    {3, 7},
        {100, 5}, {513, 64}, {4096, 128}, {70000, 16},
    };

    (void)state;
    for (size_t k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
        size_t n = shapes[k][0], dim = shapes[k][1];
        float *q = unit_rows(1, dim), *rows = unit_rows(n + 1, dim);
        float *out = malloc((n + 1) * sizeof(float));
        assert_non_null(out);
        memset(out, 0xff, (n + 1) * sizeof(float)); /* NaN: not read */
        distance_rows(q, rows, n, dim, out);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs(out[i] - plain(q, rows + i * dim, dim)) < 5e-6);
        assert_true(isnan(out[n])); /* not written beyond n */
        free(out);
        free(rows);
        free(q);
    }
}

static void test_rows_clamped(void **state)
{
    float *q = unit_rows(1, 512), *rows = malloc(2 * 512 * sizeof(float));
    float out[2];

    (void)state;
    for (int i = 0; i < 512; i++) {
        rows[i] = q[i];
        rows[512 + i] = -q[i];
    }
    distance_rows(q, rows, 2, 512, out);
    assert_true(out[0] >= 0 && out[0] < 5e-6);
    assert_true(out[1] <= 4 && out[1] > 4 - 5e-6);
    free(rows);
    free(q);
}

static void test_normalise(void **state)
{
    float v[3] = {3, 0, 4}, zero[2] = {0, 0}, nan[2] = {NAN, 1};
    float inf[2] = {INFINITY, 1}, tiny[2] = {1e-30f, 0};
    float huge[2] = {3e38f, 3e38f};

    (void)state;
    assert_true(distance_normalise(v, 3));
    assert_true(fabsf(v[0] - 0.6f) < 1e-7f && fabsf(v[2] - 0.8f) < 1e-7f);
    assert_false(distance_normalise(zero, 2));
    assert_true(zero[0] == 0);
    assert_false(distance_normalise(nan, 2));
    assert_true(nan[1] == 1);
    assert_false(distance_normalise(inf, 2));
    assert_true(isinf(inf[0]) && inf[1] == 1);
    assert_true(distance_normalise(tiny, 2));
    assert_true(tiny[0] == 1);
    assert_true(distance_normalise(huge, 2));
    assert_true(fabsf(huge[0] - 0.70710678f) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_l2),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_rows_clamped),
        cmocka_unit_test(test_normalise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
