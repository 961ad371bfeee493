/* tests/unit/test_gallery_device.c - the search on a device that is played
 * (tests/fake_rows.h) against the processor's: answers that are equal through
 * additions, removals, too little memory and the loss of the card, and nobody
 * who waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/distance.h"
#include "store/gallery.h"
#include "tests/fake_rows.h"

enum {
    DIM = 32,
    LIMIT = 100,
    BLOCK = 4096
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const struct backend played = {
    .abi = BACKEND_ABI,
    .name = "fake",
    .rows_new = fake_rows_new,
    .rows_free = fake_rows_free,
    .rows_put = fake_rows_put,
    .rows_wipe = fake_rows_wipe,
    .rows_best = fake_rows_best,
};
static struct device card = {.backend = &played};
static uint32_t seed;

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

static int setup(void **state)
{
    (void)state;
    seed = 11;
    atomic_store(&fake_rows_state.n_asks, 0);
    atomic_store(&fake_rows_state.n_puts, 0);
    atomic_store(&fake_rows_state.n_rows_put, 0);
    atomic_store(&fake_rows_state.lost_in, 0);
    atomic_store(&fake_rows_state.nomem_in, 0);
    atomic_store(&fake_rows_state.lost, false);
    atomic_store(&fake_rows_state.n_slow, 0);
    atomic_store(&fake_rows_state.n_held, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return atomic_load(&fake_rows_state.n_open);
}

/* --- a gallery with and one without --------------------------------- */
struct both {
    struct gallery *with, *without;
    float (*rows)[DIM];
    int n, cap;
};

static int attach(struct gallery *g, size_t memory, struct error *err)
{
    struct gallery_device to = {.device = &card, .memory_bytes = memory};

    return gallery_attach(g, &to, err);
}

/* All that it lacks. */
static void bring(struct gallery *g)
{
    while (gallery_bring(g) > 0)
        ;
}

static struct both make(int cap, size_t memory)
{
    struct both b = {.cap = cap};
    struct error err = {0};

    b.with = gallery_new(MODEL, DIM, &err);
    b.without = gallery_new(MODEL, DIM, &err);
    b.rows = calloc((size_t)cap, sizeof(*b.rows));
    assert_true(b.with && b.without && b.rows);
    assert_false(gallery_on_device(b.with, NULL));
    if (attach(b.with, memory, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(gallery_on_device(b.with, NULL));
    return b;
}

static void drop(struct both *b)
{
    gallery_free(b->with);
    gallery_free(b->without);
    free(b->rows);
}

static void add(struct both *b, const char *gallery, int subject,
                const float *v)
{
    char id[16];

    assert_true(b->n < b->cap);
    snprintf(id, sizeof(id), "s%d", subject);
    memcpy(b->rows[b->n], v, sizeof(b->rows[0]));
    b->n++;
    assert_int_equal(gallery_add(b->with, gallery, id, "", b->n, v, NULL), 0);
    assert_int_equal(gallery_add(b->without, gallery, id, "", b->n, v, NULL),
                     0);
}

static void ask_both(struct both *b, const char *gallery, const float *q,
                     float threshold, int limit)
{
    static struct gallery_hit got[LIMIT * 10], want[LIMIT * 10];
    int n = gallery_search(b->with, gallery, q, threshold, limit, got, NULL);

    assert_int_equal(n, gallery_search(b->without, gallery, q, threshold, limit,
                                       want, NULL));
    for (int i = 0; i < n; i++) {
        assert_int_equal(got[i].face, want[i].face);
        assert_string_equal(got[i].subject, want[i].subject);
        assert_true(got[i].distance == want[i].distance);
    }
}

static void ask_many(struct both *b, const char *gallery)
{
    static const int limits[] = {1, 7, LIMIT, LIMIT * 10};
    static const float thresholds[] = {4, 1.1f, 0.3f, 0, INFINITY};
    float q[DIM];

    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 5; j++) {
            fill(q, DIM);
            ask_both(b, gallery, q, thresholds[j], limits[i]);
            ask_both(b, gallery, b->rows[draw() % (uint32_t)b->n],
                     thresholds[j], limits[i]);
        }
}

static struct gallery_size size_of(struct gallery *g)
{
    struct gallery_size s;

    gallery_size(g, &s);
    return s;
}

static int64_t answered(struct gallery *g)
{
    int64_t n, n_failed;

    gallery_device_counts(g, &n, &n_failed);
    return n;
}

static void grow(struct both *b, int n, int n_subjects)
{
    float v[DIM];

    for (int i = 0; i < n; i++) {
        fill(v, DIM);
        if (i % 16 == 3 && b->n > 0) /* the same again: a tie */
            memcpy(v, b->rows[draw() % (uint32_t)b->n], sizeof(v));
        add(b, i % 8 ? "a" : "b", (int)(draw() % (uint32_t)n_subjects), v);
    }
    bring(b->with);
}

static void test_equal(void **state)
{
    struct both b = make(30000, 0);
    char id[16];

    (void)state;
    for (int round = 0; round < 10; round++) {
        grow(&b, 2500, 900);
        ask_many(&b, "a");
        for (int i = 0; i < 1200; i++) {
            int64_t face = 1 + draw() % (uint32_t)b.n;
            gallery_remove_face(b.with, face, NULL);
            gallery_remove_face(b.without, face, NULL);
        }
        ask_many(&b, "a");
        snprintf(id, sizeof(id), "s%d", round);
        gallery_remove_subject(b.with, "a", id, NULL);
        gallery_remove_subject(b.without, "a", id, NULL);
        ask_many(&b, "b");
    }
    assert_true(answered(b.with) > 100);
    assert_true(size_of(b.with).n_device > 5000);
    assert_int_equal(size_of(b.without).n_device, 0);
    for (int64_t face = 1; face <= b.n; face++) {
        gallery_remove_face(b.with, face, NULL);
        gallery_remove_face(b.without, face, NULL);
    }
    assert_int_equal(size_of(b.with).n_device, 0);
    assert_int_equal(size_of(b.with).bytes, 0);
    bring(b.with); /* what was there is overwritten */
    assert_int_equal(fake_rows_left(), 0);
    drop(&b);
}

/* Rows that differ by less than halfs can tell, in both directions of the
 * order of their faces. */
static void test_near_ties(void **state)
{
    struct both b = make(20000, 0);
    float q[DIM], v[DIM];

    (void)state;
    fill(q, DIM);
    for (int i = 0; i < 12000; i++) {
        float step = (float)(i % 2 ? i : 12000 - i) * 1e-8f;
        if (i % 40) {
            fill(v, DIM);
        } else {
            memcpy(v, q, sizeof(v));
            v[i % DIM] += step;
            v[(i + 1) % DIM] -= step;
            assert_true(distance_normalise(v, DIM));
        }
        add(&b, "a", i, v);
    }
    bring(b.with);
    for (int limit = 1; limit <= 1000; limit *= 10)
        ask_both(&b, "a", q, 4, limit);
    ask_many(&b, "a");
    assert_true(answered(b.with) > 0);
    drop(&b);
}

/* More equal rows than a device can hand over, and one person who has more
 * than are asked for: the processor, or the next question, tells. */
static void test_crowds(void **state)
{
    struct both b = make(50000, 0);
    float v[DIM], w[DIM];
    int64_t before;

    (void)state;
    grow(&b, 8000, 500);
    fill(v, DIM);
    for (int i = 0; i < 20000; i++)
        add(&b, "a", 100000 - i, v);
    bring(b.with);
    ask_both(&b, "a", v, 4, 10);
    ask_both(&b, "a", v, 0, 1);
    fill(w, DIM);
    for (int i = 0; i < 700; i++)
        add(&b, "a", 1, w);
    grow(&b, 4000, 500);
    before = answered(b.with);
    ask_both(&b, "a", w, 1.5f, 3);
    ask_both(&b, "a", w, 4, 1);
    assert_int_equal(answered(b.with), before + 2);
    drop(&b);
}

/* --- too little of it, or none -------------------------------------- */
static void test_over_the_cap(void **state)
{
    struct both b = make(40000, (size_t)2 * BLOCK * DIM * 2);

    (void)state;
    grow(&b, 20000, 2000);
    ask_many(&b, "a");
    assert_true(answered(b.with) > 0);
    assert_true(size_of(b.with).n_device <= 2 * BLOCK);
    assert_true(size_of(b.with).n_device_left_out > BLOCK);
    assert_true(gallery_on_device(b.with, NULL));
    /* What is given back is used again. */
    gallery_remove_all(b.with, "a", NULL);
    gallery_remove_all(b.without, "a", NULL);
    grow(&b, 18000, 2000);
    assert_true(size_of(b.with).n_device > BLOCK / 2);
    ask_many(&b, "a");
    drop(&b);
}

static void test_no_memory(void **state)
{
    int64_t n_answered;
    struct both b;

    (void)state;
    atomic_store(&fake_rows_state.nomem_in, 3);
    b = make(40000, 0);
    grow(&b, 20000, 2000);
    ask_many(&b, "a");
    assert_true(gallery_on_device(b.with, NULL));
    assert_true(size_of(b.with).n_device > 0);
    assert_true(size_of(b.with).n_device <= 2 * BLOCK);
    assert_true(size_of(b.with).n_device_left_out > BLOCK);
    /* None for a search is none for this one. */
    atomic_store(&fake_rows_state.busy, true);
    ask_many(&b, "a");
    assert_true(gallery_on_device(b.with, NULL));
    n_answered = answered(b.with);
    atomic_store(&fake_rows_state.busy, false);
    ask_many(&b, "a");
    assert_true(answered(b.with) > n_answered);
    drop(&b);
}

static void test_lost(void **state)
{
    struct both b = make(40000, 0);
    int64_t n_answered, n_failed;
    struct error err = {0};
    int n_asks;

    (void)state;
    grow(&b, 12000, 800);
    ask_many(&b, "a");
    gallery_device_counts(b.with, &n_answered, &n_failed);
    assert_int_equal(n_failed, 0);
    assert_true(gallery_on_device(b.with, &err));
    assert_string_equal(err.text, "");
    atomic_store(&fake_rows_state.lost_in, 5); /* in a search */
    ask_many(&b, "a");
    assert_false(gallery_on_device(b.with, &err));
    assert_string_equal(err.text, "the card was lost");
    gallery_device_counts(b.with, &n_answered, &n_failed);
    assert_int_equal(n_failed, 1);
    assert_int_equal(gallery_bring(b.with), -1);
    n_asks = atomic_load(&fake_rows_state.n_asks);
    grow(&b, 3000, 800);
    ask_many(&b, "a");
    assert_int_equal(atomic_load(&fake_rows_state.n_asks), n_asks);
    assert_int_equal(attach(b.with, 0, &err), -1);
    assert_int_equal(err.code, ERR_DEVICE);

    atomic_store(&fake_rows_state.lost, false);
    gallery_detach(b.with);
    assert_int_equal(gallery_bring(b.with), 0);
    assert_int_equal(size_of(b.with).n_device, 0);
    ask_many(&b, "a");
    assert_int_equal(attach(b.with, 0, &err), 0);
    assert_int_equal(size_of(b.with).n_device, 0);
    ask_many(&b, "a"); /* before anything was brought */
    bring(b.with);
    assert_true(size_of(b.with).n_device > 9000);
    ask_many(&b, "a");
    assert_true(atomic_load(&fake_rows_state.n_asks) > n_asks);

    atomic_store(&fake_rows_state.lost_in, 2); /* while it is brought */
    grow(&b, 4000, 800);
    assert_false(gallery_on_device(b.with, NULL));
    ask_many(&b, "a");
    drop(&b);
}

/* What a device that hangs holds is left to it. */
static void test_abandoned(void **state)
{
    struct both b = make(20000, 0);
    struct rows *rows;

    (void)state;
    grow(&b, 9000, 800);
    ask_many(&b, "a");
    rows = gallery_abandon(b.with);
    assert_non_null(rows);
    assert_null(gallery_abandon(b.with));
    assert_false(gallery_on_device(b.with, NULL));
    assert_int_equal(size_of(b.with).n_device, 0);
    ask_many(&b, "a");
    drop(&b);
    fake_rows_free(rows);
}

static void test_none(void **state)
{
    static const struct backend bare = {.abi = BACKEND_ABI, .name = "bare"};
    struct device dev = {.backend = &bare};
    struct gallery *g = gallery_new(MODEL, DIM, NULL);
    struct error err = {0};

    (void)state;
    assert_int_equal(
        gallery_attach(g, &(struct gallery_device){.device = &dev}, &err), -1);
    assert_int_equal(err.code, ERR_DEVICE);
    assert_null(backend_cpu.rows_new);
    gallery_detach(g);
    gallery_free(g);
}

/* A few rows are quicker on the processor. */
static void test_small(void **state)
{
    struct both b = make(2000, 0);

    (void)state;
    grow(&b, 500, 50);
    ask_many(&b, "a");
    assert_int_equal(atomic_load(&fake_rows_state.n_asks), 0);
    assert_int_equal(size_of(b.with).n_device, 0);
    drop(&b);
}

/* --- several queries ------------------------------------------------ */
enum {
    MANY = 300 /* more than one question takes */
};

static void many_as_single(struct both *b, const char *gallery, int n,
                           float threshold, int limit)
{
    static struct gallery_hit got[MANY * 10], want[10];
    static float queries[MANY][DIM];
    static int n_hits[MANY];
    struct gallery_ask ask = {.gallery = gallery,
                              .queries = queries[0],
                              .n = n,
                              .threshold = threshold,
                              .limit = limit};
    struct error err = {0};

    for (int i = 0; i < n; i++) {
        fill(queries[i], DIM);
        if (i % 3 == 1)
            memcpy(queries[i], b->rows[draw() % (uint32_t)b->n],
                   sizeof(queries[i]));
    }
    if (gallery_search_many(b->with, &ask, got, n_hits, &err) < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < n; i++) {
        int n_want = gallery_search(b->without, gallery, queries[i], threshold,
                                    limit, want, NULL);
        assert_int_equal(n_hits[i], n_want);
        for (int k = 0; k < n_want; k++) {
            const struct gallery_hit *hit = &got[i * limit + k];
            assert_int_equal(hit->face, want[k].face);
            assert_string_equal(hit->subject, want[k].subject);
            assert_true(hit->distance == want[k].distance);
        }
    }
}

static void test_many(void **state)
{
    static const int n[] = {1, 2, 16, 100, MANY};
    struct both b = make(20000, 0);
    float v[DIM];
    int n_asks;

    (void)state;
    grow(&b, 9000, 600);
    for (size_t i = 0; i < sizeof(n) / sizeof(*n); i++) {
        many_as_single(&b, "a", n[i], 4, 1 + (int)i);
        many_as_single(&b, "a", n[i], 0.9f, 10);
        many_as_single(&b, "b", n[i], 4, 3);
        many_as_single(&b, "none", n[i], 4, 3);
    }
    n_asks = atomic_load(&fake_rows_state.n_asks);
    many_as_single(&b, "a", 100, 4, 10);
    assert_int_equal(atomic_load(&fake_rows_state.n_asks), n_asks + 1);
    /* Some are crowded, and asked for again; the others are not. */
    fill(v, DIM);
    for (int i = 0; i < 400; i++)
        add(&b, "a", 1, v);
    bring(b.with);
    memcpy(b.rows[0], v, sizeof(v)); /* is asked for */
    for (int i = 0; i < 10; i++)
        many_as_single(&b, "a", 100, 4, 10);
    atomic_store(&fake_rows_state.lost_in, 1);
    many_as_single(&b, "a", 40, 4, 5);
    assert_false(gallery_on_device(b.with, NULL));
    drop(&b);
}

static void test_many_refused(void **state)
{
    struct both b = make(2000, 0);
    float queries[2][DIM];
    struct gallery_ask ask = {.gallery = "a",
                              .queries = queries[0],
                              .n = 2,
                              .threshold = 4,
                              .limit = 1};
    struct gallery_hit hits[2];
    struct error err = {0};
    int n_hits[2];

    (void)state;
    grow(&b, 100, 5);
    fill(queries[0], DIM);
    fill(queries[1], DIM);
    assert_int_equal(gallery_search_many(b.with, &ask, hits, n_hits, &err), 0);
    assert_int_equal(n_hits[1], 1);
    queries[1][0] = 2;
    assert_int_equal(gallery_search_many(b.with, &ask, hits, n_hits, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    ask.n = 0;
    assert_int_equal(gallery_search_many(b.with, &ask, hits, n_hits, &err), -1);
    drop(&b);
}

/* --- at once -------------------------------------------------------- */
struct searcher {
    struct both *b;
    pthread_t thread;
    atomic_bool *stop;
    int n_wrong, n;
};

/* The first 9000 rows stay; each is its own nearest. */
static void *search_on(void *arg)
{
    struct searcher *s = arg;
    uint32_t at = 1;

    while (!atomic_load(s->stop) || s->n < 20) {
        struct gallery_hit hits[3];
        int row = (int)((at = at * 1664525u + 1013904223u) >> 8) % 9000;
        int n =
            gallery_search(s->b->with, "a", s->b->rows[row], 4, 3, hits, NULL);
        s->n_wrong += n != 3 || hits[0].distance != 0 ||
                      hits[1].distance < hits[0].distance;
        s->n++;
    }
    return NULL;
}

struct bringer {
    struct gallery *g;
    pthread_t thread;
    atomic_bool *stop;
    int n;
};

/* Comes and goes. */
static void *bring_on(void *arg)
{
    struct bringer *k = arg;

    while (!atomic_load(k->stop) || k->n < 3) {
        if (attach(k->g, 0, NULL) == 0)
            bring(k->g);
        bring(k->g);
        if (k->n++ % 2)
            gallery_detach(k->g);
    }
    return NULL;
}

static void test_at_once(void **state)
{
    struct both b = make(16000, 0);
    struct searcher s[3];
    struct bringer k = {.g = b.with};
    atomic_bool stop = false;
    float v[DIM];

    (void)state;
    for (int i = 0; i < 9000; i++) {
        fill(v, DIM);
        add(&b, "a", i, v);
    }
    k.stop = &stop;
    assert_int_equal(pthread_create(&k.thread, NULL, bring_on, &k), 0);
    for (int i = 0; i < 3; i++) {
        s[i] = (struct searcher){.b = &b, .stop = &stop};
        assert_int_equal(pthread_create(&s[i].thread, NULL, search_on, &s[i]),
                         0);
    }
    for (int round = 0; round < 6; round++) {
        int first = b.n;
        for (int i = 0; i < 1000; i++) {
            fill(v, DIM);
            add(&b, "a", 20000 + i, v);
        }
        for (int i = first; i < b.n; i++)
            gallery_remove_face(b.with, i + 1, NULL);
    }
    atomic_store(&stop, true);
    pthread_join(k.thread, NULL);
    for (int i = 0; i < 3; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].n_wrong, 0);
    }
    drop(&b);
}

/* A device that takes its time over rows keeps nobody waiting. */
static void test_slow(void **state)
{
    struct both b = make(20000, 0);
    struct bringer k = {.g = b.with};
    struct timespec ms = {.tv_nsec = 1000000};
    atomic_bool stop = true;
    float v[DIM];

    (void)state;
    grow(&b, 9000, 800);
    atomic_store(&fake_rows_state.slow, true);
    k.stop = &stop;
    assert_int_equal(pthread_create(&k.thread, NULL, bring_on, &k), 0);
    while (atomic_load(&fake_rows_state.n_slow) == 0)
        nanosleep(&ms, NULL);
    for (int i = 0; i < 5000; i++) {
        fill(v, DIM);
        add(&b, "a", i, v);
    }
    gallery_remove_subject(b.with, "a", "s1", NULL);
    gallery_remove_subject(b.without, "a", "s1", NULL);
    ask_many(&b, "a");
    assert_int_equal(atomic_load(&fake_rows_state.n_slow), 1);
    atomic_store(&fake_rows_state.slow, false);
    pthread_join(k.thread, NULL);
    ask_many(&b, "a");
    drop(&b);
}

static void *search_once(void *arg)
{
    struct both *b = arg;

    ask_both(b, "a", b->rows[8], 4, 5);
    return NULL;
}

static void *detach(void *arg)
{
    gallery_detach(arg);
    return NULL;
}

/* Until one is answered without the device. */
static void *search_without(void *arg)
{
    struct both *b = arg;
    struct gallery_hit hits[3];
    int n_asks;

    do {
        n_asks = atomic_load(&fake_rows_state.n_asks);
        gallery_search(b->with, "a", b->rows[9], 4, 3, hits, NULL);
    } while (atomic_load(&fake_rows_state.n_asks) > n_asks);
    return NULL;
}

/* One search is stuck in the device, who takes the device away waits for it;
 * no other search does. */
static void test_stuck_search(void **state)
{
    struct both b = make(20000, 0);
    struct timespec until, ms = {.tv_nsec = 1000000};
    pthread_t stuck, taker, other;

    (void)state;
    grow(&b, 9000, 800);
    atomic_store(&fake_rows_state.hold, 1);
    assert_int_equal(pthread_create(&stuck, NULL, search_once, &b), 0);
    while (atomic_load(&fake_rows_state.n_held) == 0)
        nanosleep(&ms, NULL);
    assert_int_equal(pthread_create(&taker, NULL, detach, b.with), 0);
    assert_int_equal(pthread_create(&other, NULL, search_without, &b), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    assert_int_equal(pthread_timedjoin_np(other, NULL, &until), 0);
    assert_true(gallery_on_device(b.with, NULL));
    atomic_store(&fake_rows_state.hold, 0);
    pthread_join(stuck, NULL);
    pthread_join(taker, NULL);
    assert_false(gallery_on_device(b.with, NULL));
    drop(&b);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_equal),     TEST(test_near_ties),
        TEST(test_crowds),    TEST(test_over_the_cap),
        TEST(test_no_memory), TEST(test_lost),
        TEST(test_none),      TEST(test_small),
        TEST(test_at_once),   TEST(test_abandoned),
        TEST(test_many),      TEST(test_many_refused),
        TEST(test_slow),      TEST(test_stuck_search),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
