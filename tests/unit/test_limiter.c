/* tests/unit/test_limiter.c - the limit holds by address, ends with its
 * minute, survives a flood of addresses, and is safe from several threads. */
#include "daemon/limiter.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const int64_t second = 1000000;

static void fail_times(struct limiter *l, const char *addr, int n,
                       int64_t now_us)
{
    for (int i = 0; i < n; i++)
        limiter_failed(l, addr, now_us);
}

static void test_limit_and_window(void **state)
{
    struct limiter *l = limiter_new(3);
    int64_t t = 1000 * second;

    (void)state;
    assert_non_null(l);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t), 0);
    fail_times(l, "192.0.2.1", 2, t);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t), 0);
    limiter_failed(l, "192.0.2.1", t + 10 * second);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t + 10 * second), 50);
    assert_int_equal(limiter_blocked(l, "192.0.2.2", t + 10 * second), 0);
    /* Further tries do not push the end away. */
    fail_times(l, "192.0.2.1", 100, t + 59 * second);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t + 60 * second - 1), 1);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t + 60 * second), 0);
    limiter_failed(l, "192.0.2.1", t + 61 * second);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", t + 61 * second), 0);
    limiter_free(l);
}

static void test_no_limit(void **state)
{
    struct limiter *l = limiter_new(0);

    (void)state;
    fail_times(l, "192.0.2.1", 1000, 0);
    assert_int_equal(limiter_blocked(l, "192.0.2.1", 0), 0);
    limiter_free(l);
    limiter_free(NULL);
}

static void test_networks(void **state)
{
    struct limiter *l = limiter_new(1);

    (void)state;
    limiter_failed(l, "2001:db8:1:2::3", 0);
    assert_true(limiter_blocked(l, "2001:db8:1:2:ffff::9", 0) > 0);
    assert_int_equal(limiter_blocked(l, "2001:db8:1:3::3", 0), 0);
    limiter_failed(l, "::ffff:192.0.2.7", 0);
    assert_true(limiter_blocked(l, "192.0.2.7", 0) > 0);
    assert_int_equal(limiter_blocked(l, "::ffff:192.0.2.8", 0), 0);
    limiter_failed(l, "unix", 0);
    assert_true(limiter_blocked(l, "unix", 0) > 0);
    assert_int_equal(limiter_blocked(l, "unix2", 0), 0);
    assert_int_equal(limiter_blocked(l, "", 0), 0);
    limiter_free(l);
}

/* One failure each from many addresses does not free a blocked one. */
static void test_flood(void **state)
{
    struct limiter *l = limiter_new(5);
    char addr[64];

    (void)state;
    fail_times(l, "192.0.2.1", 5, 0);
    for (int i = 0; i < 100000; i++) {
        snprintf(addr, sizeof(addr), "10.%d.%d.%d", i >> 16, i >> 8 & 255,
                 i & 255);
        limiter_failed(l, addr, i);
    }
    assert_int_equal(limiter_blocked(l, "192.0.2.1", second), 59);
    /* The last ones that came are still remembered. */
    fail_times(l, addr, 4, second);
    assert_true(limiter_blocked(l, addr, second) > 0);
    limiter_free(l);
}

enum {
    N_THREADS = 4,
    N_EACH = 5000
};

static void *hammer(void *arg)
{
    for (int i = 0; i < N_EACH; i++) {
        limiter_failed(arg, "192.0.2.1", i);
        (void)limiter_blocked(arg, "192.0.2.1", i);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct limiter *l = limiter_new(N_THREADS * N_EACH);
    pthread_t threads[N_THREADS];

    (void)state;
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, l), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    /* Not one count was lost. */
    assert_true(limiter_blocked(l, "192.0.2.1", second) > 0);
    limiter_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit_and_window),
        cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
