/* tests/unit/test_queue.c - order, bound, waiting and closing. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/queue.h"

static int items[8];

static void test_order(void **state)
{
    struct queue *q = queue_new(3);

    (void)state;
    assert_null(queue_pop(q, 0));
    /* Round the ring a few times. */
    for (int round = 0; round < 5; round++) {
        assert_true(queue_push(q, &items[0], false));
        assert_true(queue_push(q, &items[1], false));
        assert_true(queue_push(q, &items[2], true));
        assert_false(queue_push(q, &items[3], false));
        assert_false(queue_push(q, &items[3], true));
        assert_int_equal(queue_length(q), 3);
        assert_ptr_equal(queue_pop(q, -1), &items[2]);
        assert_ptr_equal(queue_pop(q, 0), &items[0]);
        assert_true(queue_push(q, &items[4], false));
        assert_ptr_equal(queue_pop(q, 100), &items[1]);
        assert_ptr_equal(queue_pop(q, 0), &items[4]);
        assert_int_equal(queue_length(q), 0);
    }
    queue_free(q);
    queue_free(NULL);
    assert_null(queue_new(0));
    assert_null(queue_new(SIZE_MAX));
}

static void test_timeout(void **state)
{
    struct queue *q = queue_new(1);
    struct timespec a, b;
    int64_t ms;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &a);
    assert_null(queue_pop(q, 50));
    clock_gettime(CLOCK_MONOTONIC, &b);
    ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    assert_true(ms >= 49 && ms < 5000);
    queue_free(q);
}

static void test_close(void **state)
{
    struct queue *q = queue_new(4);

    (void)state;
    assert_true(queue_push(q, &items[0], false));
    queue_close(q);
    assert_false(queue_push(q, &items[1], false));
    assert_ptr_equal(queue_pop(q, -1), &items[0]); /* what is left is given */
    assert_null(queue_pop(q, -1));
    queue_free(q);
}

enum {
    N_PUSH = 4,
    N_POP = 3,
    N_EACH = 2000
};

struct shared {
    struct queue *q;
    atomic_int popped;
    atomic_int_least64_t sum;
};

static void *pusher(void *arg)
{
    struct shared *s = arg;

    for (intptr_t i = 1; i <= N_EACH; i++) {
        while (!queue_push(s->q, (void *)i, i % 3 == 0))
            sched_yield();
    }
    return NULL;
}

static void *popper(void *arg)
{
    struct shared *s = arg;
    void *item;

    while ((item = queue_pop(s->q, -1)) != NULL) {
        atomic_fetch_add(&s->sum, (intptr_t)item);
        atomic_fetch_add(&s->popped, 1);
    }
    return NULL;
}

/* Nothing is lost or given twice, and closing frees every waiter. */
static void test_threads(void **state)
{
    struct shared s = {.q = queue_new(7)};
    pthread_t push[N_PUSH], pop[N_POP];

    (void)state;
    for (int i = 0; i < N_POP; i++)
        pthread_create(&pop[i], NULL, popper, &s);
    for (int i = 0; i < N_PUSH; i++)
        pthread_create(&push[i], NULL, pusher, &s);
    for (int i = 0; i < N_PUSH; i++)
        pthread_join(push[i], NULL);
    queue_close(s.q);
    for (int i = 0; i < N_POP; i++)
        pthread_join(pop[i], NULL);
    assert_int_equal(atomic_load(&s.popped), N_PUSH * N_EACH);
    assert_true(atomic_load(&s.sum) ==
                (int64_t)N_PUSH * N_EACH * (N_EACH + 1) / 2);
    queue_free(s.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order), cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_close), cmocka_unit_test(test_threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
