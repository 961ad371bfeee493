/* tests/unit/test_gpu_arith.c - the card's 16-bit numbers, all of them, and
 * how arrays are indexed and padded. What kernels compute is tested by
 * tests/op on the emulated card. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/arith_ops.h"

static void test_f16_all(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float v = arith_from_f16((uint16_t)h);

        if (v != v)
            assert_true((arith_to_f16(v) & 0x7c00) == 0x7c00 &&
                        (arith_to_f16(v) & 0x3ff) != 0);
        else
            assert_int_equal(arith_to_f16(v), h);
    }
}

/* Half way between two neighbours goes to the even one; a little more or less
 * to the nearer. */
static void test_f16_rounding(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double a = arith_from_f16((uint16_t)h);
        double b = arith_from_f16((uint16_t)(h + 1)), middle = (a + b) / 2;
        float m = (float)middle;

        assert_true((double)m == middle);
        assert_int_equal(arith_to_f16(m), h & 1 ? h + 1 : h);
        assert_int_equal(arith_to_f16(nextafterf(m, -1)), h);
        assert_int_equal(arith_to_f16(nextafterf(m, 1e9f)), h + 1);
        assert_int_equal(arith_to_f16(-m), 0x8000 | (h & 1 ? h + 1 : h));
    }
    assert_int_equal(arith_to_f16(65519.996f), 0x7bff);
    assert_int_equal(arith_to_f16(65520), 0x7c00);
    assert_int_equal(arith_to_f16(1e30f), 0x7c00);
    assert_int_equal(arith_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(arith_to_f16(1e-30f), 0);
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float v = arith_from_bf16((uint16_t)h);

        if (v == v)
            assert_int_equal(arith_to_bf16(v), h);
        else
            assert_true(arith_from_bf16(arith_to_bf16(v)) !=
                        arith_from_bf16(arith_to_bf16(v)));
    }
    assert_int_equal(arith_to_bf16(arith_float(0x3f808000)), 0x3f80);
    assert_int_equal(arith_to_bf16(arith_float(0x3f818000)), 0x3f82);
    assert_int_equal(arith_to_bf16(arith_float(0x3f808001)), 0x3f81);
}

/* Eights come back as they were stored, and what is padding is zero. */
static void test_eights(void **state)
{
    _Alignas(16) char memory[64 * 4];
    float v[8] = {1, -2, 3, -4, 5, -6, 7, -8}, got[8];

    (void)state;
    for (int type = 0; type < GTYPE_COUNT; type++)
        for (int c = 16; c <= 24; c++) {
            memset(memory, 0xff, sizeof(memory));
            arith_store(memory, 16, type, v, 16, c);
            arith_load(memory, 16, type, got);
            for (int k = 0; k < 8; k++) {
                float want = 16 + k < c ? v[k] : 0;

                assert_true(got[k] == want);
                assert_true(arith_get(memory, (uint32_t)(16 + k), type) ==
                            want);
            }
            assert_true(arith_get(memory, 15, type) !=
                        arith_get(memory, 15, type)); /* untouched: NaN */
            assert_true(arith_get(memory, 24, type) !=
                        arith_get(memory, 24, type));
        }
}

/* The pieces of an array are each of its eights once. */
static void test_pieces(void **state)
{
    struct nhwc a = {NULL, 2, 13, 3, 5, 24};
    char seen[2 * 3 * 5 * 24] = {0};

    (void)state;
    assert_int_equal(arith_pieces(&a), 2 * 3 * 5 * 2);
    for (uint32_t i = 0; i < arith_pieces(&a); i++) {
        struct arith_piece p = arith_piece(&a, i);
        struct arith_pixel q = arith_pixel(&a, p.pixel);
        uint32_t at = arith_at(&a, q.n, q.y, q.x, p.c0);

        assert_int_equal(at, p.pixel * 24 + (uint32_t)p.c0);
        assert_int_equal(seen[at]++, 0);
        assert_true(p.c0 == 0 || p.c0 == 8);
    }
}

/* Lines along every axis visit each number once; their padding too. */
static void test_lines(void **state)
{
    (void)state;
    for (int axis = 1; axis <= 3; axis++) {
        struct nhwc a = {NULL, 2, 11, 3, 5, 24};
        struct arith_lines l = {.x = a, .y = a, .axis = axis};
        char seen[2 * 3 * 5 * 24] = {0};
        int n = 0, padding = 0;

        for (uint32_t i = 0; i < arith_line_count(&l); i++) {
            struct arith_line line = arith_line(&l, i);

            for (int k = 0; k < line.length + line.padding; k++, n++) {
                uint32_t at = line.x + (uint32_t)k * line.step_x;
                bool is_padding = at % 24 >= 11;

                assert_true(at % 24 < 16 && line.x == line.y &&
                            line.step_x == line.step_y);
                assert_int_equal(seen[at]++, 0);
                assert_int_equal(is_padding, line.none || k >= line.length);
                padding += is_padding;
            }
        }
        assert_int_equal(n, 2 * 3 * 5 * 16);
        assert_int_equal(padding, 2 * 3 * 5 * 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_all), cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),    cmocka_unit_test(test_eights),
        cmocka_unit_test(test_pieces),  cmocka_unit_test(test_lines),
    };

    return cmocka_run_group_tests_name("gpu/arith", tests, NULL, NULL);
}
