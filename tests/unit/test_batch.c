/* tests/unit/test_batch.c - the inference workers with a network that is a
 * function here: what shares a batch, what is refused, who is answered when
 * something fails. A gate holds the worker inside a run, so that nothing
 * depends on time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/batch.h"

enum {
    DIM = 3,
    MAX_RUNS = 64
};

/* Row of a chip: its number, twice it, and the same. A chip of -1 gives NaN;
 * fail_runs runs fail as a whole. */
struct fake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed; /* the gate */
    int inside;  /* runs that wait at it */
    int slots, faces;
    int64_t face_us; /* that a run takes, as is told */
    int sizes[MAX_RUNS];
    int n_runs;
    int fail_runs;
};

static int fake_run(void *ctx, const float *const *chips, int n, float *out,
                    int *bad, struct error *err)
{
    struct fake *f = ctx;
    int rc = 0;

    pthread_mutex_lock(&f->lock);
    f->inside++;
    pthread_cond_broadcast(&f->changed);
    while (f->closed)
        pthread_cond_wait(&f->changed, &f->lock);
    f->inside--;
    if (f->n_runs < MAX_RUNS)
        f->sizes[f->n_runs++] = n;
    if (f->fail_runs > 0) {
        f->fail_runs--;
        rc = error_set(err, ERR_DEVICE, "the device is gone");
    }
    pthread_mutex_unlock(&f->lock);
    *bad = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        float v = *chips[i];
        *bad += v < 0;
        for (int k = 0; k < DIM; k++)
            out[i * DIM + k] = v < 0 ? NAN : k == 1 ? 2 * v : v;
    }
    return rc;
}

static struct batch_room fake_room(void *ctx)
{
    struct fake *f = ctx;
    struct batch_room room;

    pthread_mutex_lock(&f->lock);
    room = (struct batch_room){f->slots, f->faces};
    pthread_mutex_unlock(&f->lock);
    return room;
}

static int64_t fake_time(void *ctx, int n)
{
    return n * ((const struct fake *)ctx)->face_us;
}

static void gate(struct fake *f, bool closed)
{
    pthread_mutex_lock(&f->lock);
    f->closed = closed;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void set_room(struct fake *f, int slots, int faces)
{
    pthread_mutex_lock(&f->lock);
    f->slots = slots;
    f->faces = faces;
    pthread_mutex_unlock(&f->lock);
}

static void wait_inside(struct fake *f, int n)
{
    pthread_mutex_lock(&f->lock);
    while (f->inside < n)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* One group of up to 8 faces and its answer. */
struct ask {
    struct batch_group group;
    float values[8];
    const float *chips[8];
    float out[8 * DIM];
    struct error err;
    int n_done;
    pthread_mutex_t lock;
    pthread_cond_t there;
};

static void ask_done(void *ctx, const struct error *err)
{
    struct ask *a = ctx;

    pthread_mutex_lock(&a->lock);
    a->n_done++;
    if (err)
        a->err = *err;
    pthread_cond_broadcast(&a->there);
    pthread_mutex_unlock(&a->lock);
}

static void ask_init(struct ask *a, float first, int n)
{
    memset(a, 0, sizeof(*a));
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->there, NULL);
    for (int i = 0; i < n; i++) {
        a->values[i] = first + (float)i;
        a->chips[i] = &a->values[i];
    }
    a->group = (struct batch_group){
        .chips = a->chips, .out = a->out, .n = n, .done = ask_done, .ctx = a};
}

static enum error_code ask_wait(struct ask *a)
{
    pthread_mutex_lock(&a->lock);
    while (a->n_done == 0)
        pthread_cond_wait(&a->there, &a->lock);
    pthread_mutex_unlock(&a->lock);
    return a->err.code;
}

static void check_rows(const struct ask *a)
{
    for (int i = 0; i < a->group.n; i++) {
        assert_true(a->out[i * DIM] == a->values[i]);
        assert_true(a->out[i * DIM + 1] == 2 * a->values[i]);
    }
}

struct fixture {
    struct fake fake;
    struct batch *batch;
};

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof(*x));
    struct batch_options opt = {.run = fake_run,
                                .room = fake_room,
                                .time_us = fake_time,
                                .dim = DIM,
                                .n_workers = 2,
                                .max_faces = 8,
                                .max_bytes = 1000,
                                .chip_bytes = 10};

    pthread_mutex_init(&x->fake.lock, NULL);
    pthread_cond_init(&x->fake.changed, NULL);
    x->fake.slots = 1;
    x->fake.faces = 4;
    opt.ctx = &x->fake;
    x->batch = batch_new(&opt, NULL);
    *state = x;
    return x->batch ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *x = *state;

    gate(&x->fake, false);
    if (x->batch) {
        batch_close(x->batch);
        batch_free(x->batch);
    }
    free(x);
    return 0;
}

/* Hold the worker inside a run of one face. */
static void hold(struct fixture *x, struct ask *a)
{
    gate(&x->fake, true);
    ask_init(a, 100, 1);
    assert_int_equal(batch_push(x->batch, &a->group, NULL), 0);
    wait_inside(&x->fake, 1);
}

static void one_face_alone(void **state)
{
    struct fixture *x = *state;
    struct ask a;

    ask_init(&a, 7, 1);
    assert_int_equal(batch_push(x->batch, &a.group, NULL), 0);
    assert_int_equal(ask_wait(&a), ERR_NONE);
    check_rows(&a);
    assert_int_equal(a.group.batch_n, 1);
    assert_int_equal(batch_waiting(x->batch), 0);
}

/* What waits is taken together up to the cap, and no group is split. */
static void groups_stay_whole(void **state)
{
    struct fixture *x = *state;
    struct ask held, a, b, c;

    hold(x, &held);
    ask_init(&a, 0, 2);
    ask_init(&b, 10, 1);
    ask_init(&c, 20, 2); /* 2 + 1 + 2 is over 4: c has to wait */
    assert_int_equal(batch_push(x->batch, &a.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &b.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &c.group, NULL), 0);
    assert_int_equal(batch_waiting(x->batch), 5);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&held), ERR_NONE);
    assert_int_equal(ask_wait(&a), ERR_NONE);
    assert_int_equal(ask_wait(&b), ERR_NONE);
    assert_int_equal(ask_wait(&c), ERR_NONE);
    check_rows(&a);
    check_rows(&b);
    check_rows(&c);
    assert_int_equal(x->fake.n_runs, 3);
    assert_int_equal(x->fake.sizes[1], 3);
    assert_int_equal(x->fake.sizes[2], 2);
    assert_int_equal(a.group.batch_n, 3);
}

static void large_group_runs_alone(void **state)
{
    struct fixture *x = *state;
    struct ask held, small, large;

    hold(x, &held);
    ask_init(&small, 0, 1);
    ask_init(&large, 10, 6);
    assert_int_equal(batch_push(x->batch, &small.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &large.group, NULL), 0);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&large), ERR_NONE);
    assert_int_equal(ask_wait(&small), ERR_NONE);
    check_rows(&large);
    assert_int_equal(x->fake.sizes[1], 1);
    assert_int_equal(x->fake.sizes[2], 6);
    ask_wait(&held);
}

static void full_is_refused(void **state)
{
    struct fixture *x = *state;
    struct ask held, a, b, c;
    struct error err;

    hold(x, &held);
    ask_init(&a, 0, 4);
    ask_init(&b, 10, 4);
    ask_init(&c, 20, 1);
    assert_int_equal(batch_push(x->batch, &a.group, &err), 0);
    assert_false(batch_full(x->batch));
    assert_int_equal(batch_push(x->batch, &b.group, &err), 0);
    assert_true(batch_full(x->batch));
    assert_int_equal(batch_push(x->batch, &c.group, &err), -1);
    assert_int_equal(err.code, ERR_QUEUE_FULL);
    assert_true(batch_retry_after(x->batch) >= 1);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&b), ERR_NONE);
    assert_int_equal(c.n_done, 0);
    ask_wait(&a);
    ask_wait(&held);
}

/* More faces than the bound in one photo are still an answer, alone. */
static void larger_than_the_bound(void **state)
{
    struct fixture *x = *state;
    struct batch_options opt = {.run = fake_run,
                                .room = fake_room,
                                .ctx = &x->fake,
                                .dim = DIM,
                                .max_faces = 3,
                                .max_bytes = 20,
                                .chip_bytes = 10};
    struct batch *b = batch_new(&opt, NULL);
    struct ask held, more;
    struct error err;

    assert_non_null(b);
    set_room(&x->fake, 1, 2);
    gate(&x->fake, true);
    ask_init(&held, 0, 6);
    assert_int_equal(batch_push(b, &held.group, &err), 0);
    wait_inside(&x->fake, 1);
    ask_init(&more, 0, 2); /* 20 bytes: just fits */
    assert_int_equal(batch_push(b, &more.group, &err), 0);
    assert_true(batch_full(b));
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&held), ERR_NONE);
    assert_int_equal(ask_wait(&more), ERR_NONE);
    batch_close(b);
    batch_free(b);
}

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

static void late_and_gone_are_not_run(void **state)
{
    struct fixture *x = *state;
    struct ask held, late, gone, good;

    hold(x, &held);
    ask_init(&late, 0, 1);
    late.group.deadline_us = 1;
    ask_init(&gone, 1, 1);
    gone.group.cancelled = always;
    ask_init(&good, 2, 1);
    assert_int_equal(batch_push(x->batch, &late.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &gone.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &good.group, NULL), 0);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&late), ERR_DEADLINE);
    assert_int_equal(ask_wait(&gone), ERR_DEADLINE);
    assert_int_equal(ask_wait(&good), ERR_NONE);
    assert_int_equal(good.group.batch_n, 1);
    ask_wait(&held);
}

/* A row that is not a number fails its own group alone. */
static void bad_row_fails_its_group(void **state)
{
    struct fixture *x = *state;
    struct ask held, bad, good;

    hold(x, &held);
    ask_init(&bad, -1, 2);
    ask_init(&good, 5, 2);
    assert_int_equal(batch_push(x->batch, &bad.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &good.group, NULL), 0);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&bad), ERR_DEVICE);
    assert_int_equal(ask_wait(&good), ERR_NONE);
    check_rows(&good);
    ask_wait(&held);
}

/* A failed batch is tried once more, group by group. */
static void failed_batch_is_retried(void **state)
{
    struct fixture *x = *state;
    struct ask held, a, b;

    hold(x, &held);
    ask_init(&a, 0, 2);
    ask_init(&b, 10, 2);
    assert_int_equal(batch_push(x->batch, &a.group, NULL), 0);
    assert_int_equal(batch_push(x->batch, &b.group, NULL), 0);
    pthread_mutex_lock(&x->fake.lock);
    x->fake.fail_runs = 4; /* held, held again, a+b, a; then b is well */
    pthread_mutex_unlock(&x->fake.lock);
    gate(&x->fake, false);
    assert_int_equal(ask_wait(&held), ERR_DEVICE);
    assert_int_equal(ask_wait(&a), ERR_DEVICE);
    assert_int_equal(ask_wait(&b), ERR_NONE);
    check_rows(&b);
    assert_int_equal(x->fake.n_runs, 5);
}

static void close_answers_what_waits(void **state)
{
    struct fixture *x = *state;
    struct ask held, a, late;
    struct error err;

    hold(x, &held);
    ask_init(&a, 0, 2);
    assert_int_equal(batch_push(x->batch, &a.group, NULL), 0);
    assert_true(batch_alive(x->batch, 60000));
    assert_false(batch_alive(x->batch, 0)); /* a run that never ends */
    gate(&x->fake, false);
    batch_close(x->batch);
    ask_wait(&held);
    ask_wait(&a); /* run or refused, but answered once */
    assert_int_equal(a.n_done, 1);
    assert_true(a.err.code == ERR_NONE || a.err.code == ERR_STOPPING);
    ask_init(&late, 0, 1);
    assert_int_equal(batch_push(x->batch, &late.group, &err), -1);
    assert_int_equal(err.code, ERR_STOPPING);
    batch_free(x->batch);
    x->batch = NULL;
}

/* With two slots two batches run at once, and no third; with one again, the
 * second worker leaves what waits to the first. */
static void two_slots(void **state)
{
    struct fixture *x = *state;
    struct ask a[4];

    set_room(&x->fake, 2, 4);
    gate(&x->fake, true);
    for (int i = 0; i < 4; i++)
        ask_init(&a[i], (float)(10 * i), 1);
    assert_int_equal(batch_push(x->batch, &a[0].group, NULL), 0);
    wait_inside(&x->fake, 1);
    assert_int_equal(batch_push(x->batch, &a[1].group, NULL), 0);
    wait_inside(&x->fake, 2);
    assert_int_equal(batch_push(x->batch, &a[2].group, NULL), 0);
    set_room(&x->fake, 1, 4);
    assert_int_equal(batch_push(x->batch, &a[3].group, NULL), 0);
    assert_int_equal(batch_waiting(x->batch), 2);
    assert_true(batch_alive(x->batch, 60000));
    assert_false(batch_alive(x->batch, 0));
    gate(&x->fake, false);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ask_wait(&a[i]), ERR_NONE);
        check_rows(&a[i]);
    }
    assert_int_equal(a[2].group.batch_n, 2); /* together with a[3] */
}

static int64_t after_s(int64_t s)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec + s) * 1000000;
}

/* Of four faces that wait, as many run as the first one's deadline allows;
 * where it allows none, all. */
static void deadline_bounds_a_batch(void **state)
{
    static const struct {
        int64_t left_s;
        int first; /* faces of the first batch */
    } rows[] = {{100000, 4}, {10000, 2}, {4000, 1}, {1000, 4}};
    struct fixture *x = *state;

    x->fake.face_us = INT64_C(3000) * 1000000;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ask held, a[4];

        hold(x, &held);
        for (int k = 0; k < 4; k++) {
            ask_init(&a[k], (float)k, 1);
            a[k].group.deadline_us = after_s(rows[i].left_s);
            assert_int_equal(batch_push(x->batch, &a[k].group, NULL), 0);
        }
        gate(&x->fake, false);
        for (int k = 0; k < 4; k++)
            assert_int_equal(ask_wait(&a[k]), ERR_NONE);
        assert_int_equal(a[0].group.batch_n, rows[i].first);
        ask_wait(&held);
    }
}

/* Four threads push; every group gets its own rows. */
static void *pusher(void *arg)
{
    struct batch *b = arg;

    for (int i = 0; i < 200; i++) {
        struct ask a;
        ask_init(&a, (float)(i * 8), 1 + i % 3);
        while (batch_push(b, &a.group, NULL) != 0)
            ;
        if (ask_wait(&a) != ERR_NONE)
            return (void *)1;
        check_rows(&a);
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct fixture *x = *state;
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pusher, x->batch),
                         0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    for (int i = 0; i < x->fake.n_runs; i++)
        assert_in_range(x->fake.sizes[i], 1, 4);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_face_alone),
        TEST(groups_stay_whole),
        TEST(large_group_runs_alone),
        TEST(full_is_refused),
        TEST(larger_than_the_bound),
        TEST(late_and_gone_are_not_run),
        TEST(bad_row_fails_its_group),
        TEST(failed_batch_is_retried),
        TEST(close_answers_what_waits),
        TEST(many_threads),
        TEST(two_slots),
        TEST(deadline_bounds_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
