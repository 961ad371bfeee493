/* tests/unit/test_work.c - the work threads run every job once, side by
 * side, end when their queue is closed, and a stuck one is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "daemon/job.h"
#include "daemon/work.h"

enum {
    N_JOBS = 500
};

/* A job is known by its place; what it did is kept beside it. */
static struct {
    struct job jobs[N_JOBS];
    atomic_int runs[N_JOBS];
    atomic_int n;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int inside, wanted; /* threads in meet(), and how many are to be */
} x = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void count(struct job *job)
{
    atomic_fetch_add(&x.runs[job - x.jobs], 1);
    atomic_fetch_add(&x.n, 1);
}

/* Returns when so many threads are here as are wanted. */
static void meet(struct job *job)
{
    (void)job;
    pthread_mutex_lock(&x.lock);
    x.inside++;
    pthread_cond_broadcast(&x.changed);
    while (x.inside < x.wanted)
        pthread_cond_wait(&x.changed, &x.lock);
    pthread_mutex_unlock(&x.lock);
    work_beat();
}

static int reset(void **state)
{
    (void)state;
    for (int i = 0; i < N_JOBS; i++)
        atomic_store(&x.runs[i], 0);
    atomic_store(&x.n, 0);
    x.inside = 0;
    return 0;
}

/* Also those that still wait when the queue is closed. */
static void every_job_runs_once(void **state)
{
    struct queue *q = queue_new(N_JOBS);
    struct work *w;

    (void)state;
    assert_non_null(q);
    w = work_start(4, q, NULL, count, NULL);
    assert_non_null(w);
    assert_int_equal(work_threads(w), 4);
    for (int i = 0; i < N_JOBS; i++)
        assert_true(queue_push(q, &x.jobs[i], i % 2));
    queue_close(q);
    work_join(w);
    assert_int_equal(atomic_load(&x.n), N_JOBS);
    for (int i = 0; i < N_JOBS; i++)
        assert_int_equal(atomic_load(&x.runs[i]), 1);
    queue_free(q);
}

static void threads_work_side_by_side(void **state)
{
    struct queue *q = queue_new(8);
    struct work *w;

    (void)state;
    assert_non_null(q);
    x.wanted = 3; /* one thread alone would wait for ever */
    w = work_start(3, q, NULL, meet, NULL);
    assert_non_null(w);
    for (int i = 0; i < 3; i++)
        assert_true(queue_push(q, &x.jobs[i], false));
    queue_close(q);
    work_join(w);
    assert_int_equal(x.inside, 3);
    queue_free(q);
}

static void stuck_thread_is_seen(void **state)
{
    struct queue *q = queue_new(8);
    struct work *w;

    (void)state;
    assert_non_null(q);
    x.wanted = 2;
    w = work_start(1, q, NULL, meet, NULL);
    assert_non_null(w);
    assert_true(work_alive(w, 1)); /* idle, however short the time */
    assert_true(queue_push(q, &x.jobs[0], false));
    pthread_mutex_lock(&x.lock);
    while (x.inside < 1)
        pthread_cond_wait(&x.changed, &x.lock);
    pthread_mutex_unlock(&x.lock);
    while (work_alive(w, 1)) /* its job takes longer than a millisecond */
        ;
    assert_true(work_alive(w, 600000));
    pthread_mutex_lock(&x.lock);
    x.inside++;
    pthread_cond_broadcast(&x.changed);
    pthread_mutex_unlock(&x.lock);
    queue_close(q);
    work_join(w);
    queue_free(q);
}

enum {
    N_PARTS = 40
};

struct parts {
    atomic_int runs[N_PARTS];
    atomic_int n;
    int begun[N_PARTS]; /* in which order; under x.lock */
    int n_begun;
};

static struct parts parts;

/* The first two parts of a job wait for each other where x.wanted is 2. */
static void part(void *ctx, int i, struct detect_scratch *scratch)
{
    struct parts *p = ctx;

    assert_null(scratch);
    pthread_mutex_lock(&x.lock);
    p->begun[p->n_begun++] = i;
    x.inside++;
    pthread_cond_broadcast(&x.changed);
    while (x.inside < x.wanted)
        pthread_cond_wait(&x.changed, &x.lock);
    pthread_mutex_unlock(&x.lock);
    atomic_fetch_add(&p->runs[i], 1);
    atomic_fetch_add(&p->n, 1);
}

static void share(struct job *job)
{
    (void)job;
    work_share(N_PARTS, part, &parts);
    work_share(0, part, &parts);
    /* Every part is done on return, whoever did it. */
    assert_int_equal(atomic_load(&parts.n), N_PARTS);
    atomic_fetch_add(&x.n, 1);
}

static void check_parts(int n_threads, int wanted)
{
    struct queue *q = queue_new(8 + WORK_CALLS);
    struct work *w;

    assert_non_null(q);
    memset(&parts, 0, sizeof(parts));
    x.wanted = wanted;
    w = work_start(n_threads, q, NULL, share, NULL);
    assert_non_null(w);
    /* A thread that is not yet waiting for work is not called for help. */
    while (work_idle(w) < n_threads)
        sched_yield();
    assert_true(queue_push(q, &x.jobs[0], false));
    while (atomic_load(&x.n) < 1)
        sched_yield();
    queue_close(q);
    work_join(w);
    queue_free(q);
    for (int i = 0; i < N_PARTS; i++)
        assert_int_equal(atomic_load(&parts.runs[i]), 1);
}

static void parts_are_shared_with_idle_threads(void **state)
{
    (void)state;
    check_parts(3, 2); /* one thread alone would wait for ever */
}

static void one_thread_does_all_parts_in_order(void **state)
{
    (void)state;
    check_parts(1, 1);
    for (int i = 0; i < N_PARTS; i++)
        assert_int_equal(parts.begun[i], i);
}

/* Each job its own parts, more jobs and calls than threads. */
static void some(void *ctx, int i, struct detect_scratch *scratch)
{
    (void)scratch;
    atomic_fetch_add((atomic_int *)ctx, 1 << i * 8);
}

static void share_some(struct job *job)
{
    atomic_int sum = 0;

    work_share(3, some, &sum);
    if (atomic_load(&sum) == 0x010101)
        atomic_fetch_add(&x.runs[job - x.jobs], 1);
    atomic_fetch_add(&x.n, 1);
}

static void many_jobs_share_at_once(void **state)
{
    struct queue *q = queue_new(N_JOBS + WORK_CALLS);
    struct work *w;

    (void)state;
    assert_non_null(q);
    w = work_start(4, q, NULL, share_some, NULL);
    assert_non_null(w);
    for (int i = 0; i < N_JOBS; i++) {
        assert_true(queue_push(q, &x.jobs[i], i % 2));
        if (i % 3 == 0) /* so that threads are idle now and then */
            while (atomic_load(&x.n) <= i)
                sched_yield();
    }
    queue_close(q);
    work_join(w);
    for (int i = 0; i < N_JOBS; i++)
        assert_int_equal(atomic_load(&x.runs[i]), 1);
    queue_free(q);
}

static void zero_is_one_for_each_core(void **state)
{
    struct queue *q = queue_new(8);
    struct work *w;

    (void)state;
    assert_non_null(q);
    w = work_start(0, q, NULL, count, NULL);
    assert_non_null(w);
    assert_true(work_threads(w) >= 1);
    queue_close(q);
    work_join(w);
    work_join(NULL);
    queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_job_runs_once, reset),
        cmocka_unit_test_setup(threads_work_side_by_side, reset),
        cmocka_unit_test_setup(stuck_thread_is_seen, reset),
        cmocka_unit_test_setup(parts_are_shared_with_idle_threads, reset),
        cmocka_unit_test_setup(one_thread_does_all_parts_in_order, reset),
        cmocka_unit_test_setup(many_jobs_share_at_once, reset),
        cmocka_unit_test_setup(zero_is_one_for_each_core, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
