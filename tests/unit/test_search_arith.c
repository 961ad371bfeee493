/* tests/unit/test_search_arith.c - the arithmetic of a card's search
 * (gpu/search_arith.h): halfs, the order of what is found, and the bound on how
 * far a product of halfs is from the exact one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "core/face/distance.h"
#include "gpu/search_arith.h"

static uint32_t seed = 11;

static uint32_t draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void fill(float *v, int dim)
{
    for (int i = 0; i < dim; i++)
        v[i] = (float)draw() / 8388608.0f - 1.0f;
    assert_true(distance_normalise(v, (size_t)dim));
}

static void test_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float v = arith_from_f16((uint16_t)h);
        if (isnan(v))
            assert_true((arith_to_f16(v) & 0x7fff) > 0x7c00);
        else
            assert_int_equal(arith_to_f16(v), h);
    }
    /* Between each and the next: the nearest, the middle to the even one. */
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double a = arith_from_f16((uint16_t)h),
               b = arith_from_f16((uint16_t)(h + 1));
        float middle = (float)((a + b) / 2);
        uint32_t even = h + (h & 1);
        assert_int_equal(arith_to_f16(middle), even);
        assert_int_equal(arith_to_f16(-middle), even | 0x8000);
        assert_int_equal(arith_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(arith_to_f16(nextafterf(middle, 9e9f)), h + 1);
    }
    assert_int_equal(arith_to_f16(65519.996f), 0x7bff);
    assert_int_equal(arith_to_f16(65520.0f), 0x7c00);
    assert_int_equal(arith_to_f16(3e38f), 0x7c00);
    assert_int_equal(arith_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(arith_to_f16(1e-45f), 0);
    assert_int_equal(arith_to_f16(-1e-30f), 0x8000);
}

static void test_hit_order(void **state)
{
    static const float v[] = {-INFINITY, -2, -1, -1e-40f, 0, 1e-40f, 1, 1.5f};

    (void)state;
    for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
        assert_true(search_product(search_hit(v[i], 77)) == v[i]);
        if (i > 0)
            assert_true(search_hit(v[i - 1], UINT32_MAX) < search_hit(v[i], 0));
    }
}

/* |q.x - s| for one pair, in units of the bound. s is summed forwards, and in
 * groups of four that are cut below 2^-23 of their largest, as the worst of
 * tensor cores would. */
static double part_of_bound(const float *q, const float *x, int dim)
{
    uint16_t qh[512], xh[512];
    float ql = 0, qn = 0, xl = 0, xn = 0, plain = 0, cut = 0, bound;
    double exact = 0, off;

    search_round(q, qh, dim, dim, 0, 1, &ql, &qn);
    search_round(x, xh, dim, dim, 0, 1, &xl, &xn);
    for (int i = 0; i < dim; i++) {
        exact += (double)q[i] * (double)x[i];
        plain += arith_from_f16(qh[i]) * arith_from_f16(xh[i]);
    }
    for (int i = 0; i < dim; i += 4) {
        float largest = fabsf(cut), unit;
        double sum;
        for (int j = i; j < i + 4; j++)
            largest = fmaxf(
                largest, fabsf(arith_from_f16(qh[j]) * arith_from_f16(xh[j])));
        unit = largest > 0 ? ldexpf(1, ilogbf(largest) - 23) : 1;
        sum = trunc((double)cut / unit);
        for (int j = i; j < i + 4; j++)
            sum += trunc((double)arith_from_f16(qh[j]) *
                         (double)arith_from_f16(xh[j]) / unit);
        cut = (float)(sum * unit);
    }
    bound = search_epsilon(search_norm(qn, dim), search_norm(ql, dim),
                           search_norm(xn, dim), search_norm(xl, dim), dim);
    off = fmax(fabs(exact - (double)plain), fabs(exact - (double)cut));
    return off / (double)bound;
}

/* Numbers just beside the middle of two halfs, which rounding moves most, all
 * the same way. */
static void nasty(float *v, int dim, int kind)
{
    for (int i = 0; i < dim; i++) {
        float m = 1.0f + 1.0f / 2048 + (kind & 1 ? 1e-6f : -1e-6f);
        float size = kind & 2 ? ldexpf(1, -(int)(draw() % 24)) : 0.03f;
        v[i] = m * size * (kind & 4 && draw() % 2 ? -1.0f : 1.0f);
        if (kind & 8)
            v[i] *= 1e-5f; /* denormal halfs */
    }
    if (kind & 8)
        v[draw() % (uint32_t)dim] = 1;
    if (!(kind & 16))
        assert_true(distance_normalise(v, (size_t)dim));
}

static void test_bound(void **state)
{
    static const int dims[] = {4, 16, 128, 512};
    float q[512], x[512];
    double most = 0;

    (void)state;
    for (int round = 0; round < 4000; round++) {
        int dim = dims[round % 4];
        fill(q, dim);
        fill(x, dim);
        if (round % 3 == 1)
            nasty(x, dim, round / 4 % 32);
        if (round % 3 == 2) {
            nasty(x, dim, round / 4 % 32);
            nasty(q, dim, round / 128 % 32);
        }
        if (round % 5 == 0)
            memcpy(q, x, sizeof(q));
        most = fmax(most, part_of_bound(q, x, dim));
    }
    assert_true(most <= 1);
    assert_true(most > 0.3); /* the bound is not idle */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half),
        cmocka_unit_test(test_hit_order),
        cmocka_unit_test(test_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
