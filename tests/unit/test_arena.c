/* tests/unit/test_arena.c - pieces do not overlap, are aligned, and stop at
 * the cap without harm. */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/arena.h"

static void test_pieces(void **state)
{
    enum {
        N = 3000
    };
    static unsigned char *pieces[N];
    struct arena *a = arena_new(100);

    (void)state;
    assert_non_null(a);
    for (size_t i = 0; i < N; i++) {
        size_t len = i % 251;
        pieces[i] = arena_alloc(a, len);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % alignof(max_align_t), 0);
        memset(pieces[i], (int)(i & 0xff), len);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < i % 251; k++)
            assert_int_equal(pieces[i][k], i & 0xff);
    arena_free(a);
    arena_free(NULL);
}

static void test_empty_pieces_differ(void **state)
{
    struct arena *a = arena_new(0);
    void *p = arena_alloc(a, 0);

    (void)state;
    assert_non_null(p);
    assert_ptr_not_equal(p, arena_alloc(a, 0));
    arena_free(a);
}

static void test_strdup(void **state)
{
    struct arena *a = arena_new(8);
    char text[] = "a text longer than a block";
    char *copy = arena_strdup(a, text);

    (void)state;
    text[0] = 'b';
    assert_string_equal(copy, "a text longer than a block");
    assert_string_equal(arena_strdup(a, ""), "");
    arena_free(a);
}

static void test_cap(void **state)
{
    struct arena *a = arena_new(1 << 20);
    size_t total = 0;

    (void)state;
    assert_null(arena_alloc(a, SIZE_MAX));
    assert_null(arena_alloc(a, SIZE_MAX - 15));
    assert_null(arena_alloc(a, (size_t)ARENA_MAX_BYTES + 1));
    while (arena_alloc(a, 3 << 20))
        total += 3 << 20;
    assert_true(total <= ARENA_MAX_BYTES);
    assert_true(total > ARENA_MAX_BYTES - (4 << 20));
    /* What is left can still be had, in small pieces. */
    assert_non_null(arena_alloc(a, 16));
    while (arena_alloc(a, 1 << 16))
        total += 1 << 16;
    assert_true(total <= ARENA_MAX_BYTES);
    arena_free(a);
    a = arena_new(0);
    assert_non_null(arena_alloc(a, ARENA_MAX_BYTES));
    assert_null(arena_alloc(a, 1));
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_empty_pieces_differ),
        cmocka_unit_test(test_strdup),
        cmocka_unit_test(test_cap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
