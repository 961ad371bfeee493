/* tests/unit/test_gallery.c - the search against a plain loop over a plain
 * list, through additions and removals; searches beside writers; following a
 * store. */
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
#include <unistd.h>

#include "core/face/distance.h"
#include "store/gallery.h"

enum {
    DIM = 16,
    ROWS_MAX = 20000
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* --- the plain list ------------------------------------------------- */
struct row {
    char gallery[8], subject[8];
    int64_t face;
    float v[DIM];
    bool alive;
};

static struct row rows[ROWS_MAX];
static int n_rows;
static uint32_t seed;

static uint32_t draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static void fill(float *v)
{
    for (int i = 0; i < DIM; i++)
        v[i] = (float)draw() / 8388608.0f - 1.0f;
    assert_true(distance_normalise(v, DIM));
}

static int setup(void **state)
{
    (void)state;
    seed = 7;
    n_rows = 0;
    return 0;
}

static void add(struct gallery *g, const char *gallery, int subject,
                const float *v)
{
    struct row *r = &rows[n_rows];
    struct error err = {0};

    assert_true(n_rows < ROWS_MAX);
    snprintf(r->gallery, sizeof(r->gallery), "%s", gallery);
    snprintf(r->subject, sizeof(r->subject), "s%d", subject);
    r->face = ++n_rows;
    r->alive = true;
    memcpy(r->v, v, sizeof(r->v));
    if (gallery_add(g, gallery, r->subject, "name", r->face, v, &err) < 0)
        fail_msg("%s", err.text);
}

static int by_distance(const void *a, const void *b)
{
    const struct gallery_hit *x = a, *y = b;

    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->face < y->face ? -1 : 1;
}

/* Every living row's distance, sorted, the first of each subject kept. */
static int plain_search(const char *gallery, const float *q, float threshold,
                        int limit, struct gallery_hit *hits)
{
    struct gallery_hit *all = calloc((size_t)n_rows + 1, sizeof(*all));
    int n = 0, n_hits = 0;

    for (int i = 0; i < n_rows; i++) {
        float d = distance_l2(q, rows[i].v, DIM);
        if (!rows[i].alive || strcmp(rows[i].gallery, gallery) != 0 ||
            d > threshold)
            continue;
        strcpy(all[n].subject, rows[i].subject);
        all[n].face = rows[i].face;
        all[n++].distance = d;
    }
    qsort(all, (size_t)n, sizeof(*all), by_distance);
    for (int i = 0; i < n && n_hits < limit; i++) {
        bool is_new = true;
        for (int j = 0; j < n_hits; j++)
            is_new = is_new && strcmp(hits[j].subject, all[i].subject) != 0;
        if (is_new)
            hits[n_hits++] = all[i];
    }
    free(all);
    return n_hits;
}

static void compare(struct gallery *g, const char *gallery, const float *q,
                    float threshold, int limit)
{
    struct gallery_hit got[100], want[100];
    struct error err = {0};
    int n = gallery_search(g, gallery, q, threshold, limit, got, &err);

    if (n < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n, plain_search(gallery, q, threshold, limit, want));
    for (int i = 0; i < n; i++) {
        assert_string_equal(got[i].subject, want[i].subject);
        assert_int_equal(got[i].face, want[i].face);
        assert_true(got[i].distance == want[i].distance);
    }
}

static void compare_many(struct gallery *g, const char *gallery)
{
    static const int limits[] = {1, 2, 10, 100};
    static const float thresholds[] = {4, 1.1f, 0.5f, 0};
    float q[DIM];

    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            fill(q);
            compare(g, gallery, q, thresholds[j], limits[i]);
            if (n_rows > 0) /* exactly a row: distance 0 */
                compare(g, gallery, rows[draw() % (uint32_t)n_rows].v,
                        thresholds[j], limits[i]);
        }
    }
}

static struct gallery *make(void)
{
    struct gallery *g = gallery_new(MODEL, DIM, NULL);

    assert_non_null(g);
    return g;
}

static void expect_size(struct gallery *g, int64_t galleries, int64_t subjects,
                        int64_t faces)
{
    struct gallery_size size;

    gallery_size(g, &size);
    assert_int_equal(size.n_galleries, galleries);
    assert_int_equal(size.n_subjects, subjects);
    assert_int_equal(size.n_faces, faces);
}

/* --- tests ---------------------------------------------------------- */
static void test_arguments(void **state)
{
    struct gallery *g = make();
    struct gallery_hit hit;
    struct error err = {0};
    float q[DIM], v[DIM] = {0};

    (void)state;
    fill(q);
    assert_null(gallery_new(MODEL, 0, &err));
    assert_null(gallery_new(MODEL, STORE_DIM_MAX + 1, &err));
    assert_string_equal(gallery_model(g), MODEL);
    assert_int_equal(gallery_search(g, "g", q, 4, 1, &hit, &err), 0);
    assert_int_equal(gallery_search(g, "g", q, 4, 0, &hit, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(gallery_search(g, "g", q, NAN, 1, &hit, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(gallery_search(g, "g", v, 4, 1, &hit, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(gallery_add(g, "g", "s", "", 1, v, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(gallery_add(g, "g g", "s", "", 1, q, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    v[0] = NAN;
    assert_int_equal(gallery_add(g, "g", "s", "", 1, v, &err), -1);
    assert_int_equal(gallery_subject(g, "g", "s", q, &hit, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);
    expect_size(g, 0, 0, 0);
    gallery_free(g);
    gallery_free(NULL);
}

static void test_exact(void **state)
{
    struct gallery *g = make();
    float v[DIM];

    (void)state;
    for (int i = 0; i < 9000; i++) { /* more than two chunks of rows */
        if (i % 10 != 3)             /* else the same vector again: a tie */
            fill(v);
        add(g, i % 3 ? "a" : "b", (int)(draw() % 700), v);
        if (i < 200 || i % 1000 == 0)
            compare(g, "a", v, 4, 10);
    }
    compare_many(g, "a");
    compare_many(g, "b");
    compare_many(g, "none");
    gallery_free(g);
}

static void test_ties(void **state)
{
    struct gallery *g = make();
    struct gallery_hit hits[5];
    float v[DIM];

    (void)state;
    fill(v);
    for (int i = 0; i < 1000; i++)
        add(g, "a", 999 - i, v);
    assert_int_equal(gallery_search(g, "a", v, 0, 5, hits, NULL), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(hits[i].face, i + 1);
    compare_many(g, "a");
    gallery_free(g);
}

/* One person's 248 near examples must not crowd out the others. */
static void test_many_examples(void **state)
{
    struct gallery *g = make();
    struct gallery_hit hit;
    float q[DIM], v[DIM], nearest = 4;

    (void)state;
    fill(q);
    for (int i = 0; i < 2000; i++) {
        fill(v);
        add(g, "a", 1 + i % 400, v);
    }
    for (int i = 0; i < 248; i++) {
        fill(v);
        for (int j = 0; j < DIM; j++)
            v[j] = q[j] + 0.01f * v[j];
        assert_true(distance_normalise(v, DIM));
        add(g, "a", 0, v);
        nearest = fminf(nearest, distance_l2(q, v, DIM));
    }
    for (int limit = 1; limit <= 100; limit += 9)
        compare(g, "a", q, 4, limit);
    assert_int_equal(gallery_subject(g, "a", "s0", q, &hit, NULL), 0);
    assert_true(hit.distance == nearest);
    assert_string_equal(hit.subject, "s0");
    gallery_free(g);
}

static void test_subject_nearest(void **state)
{
    struct gallery *g = make();
    struct gallery_hit hit, want;
    float q[DIM], v[DIM];
    char id[16];

    (void)state;
    for (int i = 0; i < 6000; i++) {
        fill(v);
        add(g, "a", i % 500, v);
    }
    for (int s = 0; s < 500; s++) {
        fill(q);
        snprintf(id, sizeof(id), "s%d", s);
        want.distance = 5;
        for (int i = 0; i < n_rows; i++) {
            float d = distance_l2(q, rows[i].v, DIM);
            if (strcmp(rows[i].subject, id) == 0 && d < want.distance) {
                want.distance = d;
                want.face = rows[i].face;
            }
        }
        assert_int_equal(gallery_subject(g, "a", id, q, &hit, NULL), 0);
        assert_int_equal(hit.face, want.face);
        assert_true(hit.distance == want.distance);
    }
    gallery_free(g);
}

static void kill_rows(const char *gallery, const char *subject, int64_t face)
{
    for (int i = 0; i < n_rows; i++) {
        if ((!gallery || strcmp(rows[i].gallery, gallery) == 0) &&
            (!subject || strcmp(rows[i].subject, subject) == 0) &&
            (!face || rows[i].face == face))
            rows[i].alive = false;
    }
}

static int64_t n_alive(void)
{
    int64_t n = 0;

    for (int i = 0; i < n_rows; i++)
        n += rows[i].alive;
    return n;
}

static void test_removal(void **state)
{
    struct gallery *g = make();
    struct gallery_size size;
    struct gallery_hit hit;
    float v[DIM];
    char id[16];

    (void)state;
    for (int i = 0; i < 12000; i++) {
        uint32_t what = draw() % 100;
        fill(v);
        if (i < 6000 || what < 45) {
            add(g, draw() % 4 ? "a" : "b", (int)(draw() % 300), v);
        } else if (what < 90) {
            int64_t face = 1 + draw() % (uint32_t)n_rows;
            kill_rows(NULL, NULL, face);
            assert_int_equal(gallery_remove_face(g, face, NULL), 0);
        } else {
            snprintf(id, sizeof(id), "s%d", (int)(draw() % 300));
            kill_rows("a", id, 0);
            assert_int_equal(gallery_remove_subject(g, "a", id, NULL), 0);
            assert_int_equal(gallery_subject(g, "a", id, v, &hit, NULL), -1);
        }
        if (i % 500 == 0) {
            compare_many(g, "a");
            compare(g, "b", v, 4, 100);
            gallery_size(g, &size);
            assert_int_equal(size.n_faces, n_alive());
        }
    }
    compare_many(g, "a");
    compare_many(g, "b");
    assert_int_equal(gallery_remove_all(g, "a", NULL), 0);
    kill_rows("a", NULL, 0);
    compare_many(g, "a");
    compare_many(g, "b");
    for (int i = 0; i < n_rows; i++)
        assert_int_equal(gallery_remove_face(g, rows[i].face, NULL), 0);
    gallery_size(g, &size);
    assert_int_equal(size.bytes, 0);
    expect_size(g, 0, 0, 0);
    assert_int_equal(gallery_remove_subject(g, "a", "s1", NULL), 0);
    assert_int_equal(gallery_remove_all(g, "a", NULL), 0);
    gallery_free(g);
}

/* Memory follows what is alive, not what has ever been. */
static void test_memory(void **state)
{
    struct gallery *g = make();
    struct gallery_size full, few;
    float v[DIM];

    (void)state;
    for (int i = 0; i < 12000; i++) {
        fill(v);
        add(g, "a", i, v);
    }
    gallery_size(g, &full);
    for (int i = 0; i < n_rows; i++) {
        if (i % 20 == 0)
            continue;
        rows[i].alive = false;
        assert_int_equal(gallery_remove_face(g, rows[i].face, NULL), 0);
    }
    gallery_size(g, &few);
    assert_int_equal(few.n_faces, 600);
    assert_true(few.bytes < full.bytes / 4);
    compare_many(g, "a");
    gallery_free(g);
}

static void test_rename_and_twice(void **state)
{
    struct gallery *g = make();
    struct gallery_hit hit;
    float v[DIM];

    (void)state;
    fill(v);
    add(g, "a", 1, v);
    assert_int_equal(gallery_add(g, "a", "s1", "other", 1, v, NULL), 0);
    expect_size(g, 1, 1, 1);
    assert_int_equal(gallery_search(g, "a", v, 4, 1, &hit, NULL), 1);
    assert_string_equal(hit.name, "name");
    assert_int_equal(gallery_rename(g, "a", "s1", "Zo\xc3\xab [x]", NULL), 0);
    assert_int_equal(gallery_rename(g, "a", "s2", "nobody", NULL), 0);
    assert_int_equal(gallery_rename(g, "b", "s1", "nobody", NULL), 0);
    assert_int_equal(gallery_search(g, "a", v, 4, 1, &hit, NULL), 1);
    assert_string_equal(hit.name, "Zo\xc3\xab [x]");
    gallery_free(g);
}

/* --- searches beside writers ---------------------------------------- */
struct reader {
    struct gallery *g;
    pthread_t thread;
    atomic_bool *stop;
    int n_wrong;
    atomic_int n_searches;
};

/* s0 is there before and after: every search must find it first. */
static void *search_on(void *arg)
{
    struct reader *r = arg;
    struct gallery_hit hits[10];

    while (!atomic_load(r->stop)) {
        int n = gallery_search(r->g, "a", rows[0].v, 4, 10, hits, NULL);
        r->n_wrong += n < 1 || hits[0].face != 1 || hits[0].distance != 0;
        for (int i = 1; i < n; i++)
            r->n_wrong += hits[i].distance < hits[i - 1].distance;
        r->n_wrong +=
            gallery_subject(r->g, "a", "s0", rows[0].v, hits, NULL) != 0;
        atomic_fetch_add(&r->n_searches, 1);
    }
    return NULL;
}

static int fewest_searches(struct reader *readers, int n)
{
    int fewest = atomic_load(&readers[0].n_searches);

    for (int i = 1; i < n; i++) {
        if (atomic_load(&readers[i].n_searches) < fewest)
            fewest = atomic_load(&readers[i].n_searches);
    }
    return fewest;
}

static void test_readers_and_writers(void **state)
{
    struct gallery *g = make();
    struct reader readers[3];
    atomic_bool stop = false;
    float v[DIM];

    (void)state;
    fill(v);
    add(g, "a", 0, v);
    for (int i = 0; i < 3; i++) {
        readers[i].g = g;
        readers[i].stop = &stop;
        readers[i].n_wrong = 0;
        atomic_init(&readers[i].n_searches, 0);
        assert_int_equal(
            pthread_create(&readers[i].thread, NULL, search_on, &readers[i]),
            0);
    }
    for (int i = 0; i < 6000; i++) {
        fill(v);
        add(g, "a", 1 + i % 50, v);
        if (i % 3 == 0)
            gallery_remove_face(g, 2 + draw() % (uint32_t)n_rows, NULL);
        if (i % 100 == 0) {
            char id[16];
            snprintf(id, sizeof(id), "s%d", 1 + i % 50);
            gallery_remove_subject(g, "a", id, NULL);
        }
        if (i % 50 == 0)
            gallery_rename(g, "a", "s0", i % 100 ? "one" : "two", NULL);
    }
    while (fewest_searches(readers, 3) < 50) { /* however the threads run */
        gallery_add(g, "a", "s1", "", ROWS_MAX, v, NULL);
        gallery_remove_face(g, ROWS_MAX, NULL);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].n_wrong, 0);
    }
    gallery_free(g);
}

/* --- following a store ---------------------------------------------- */
struct enroller {
    struct store *s;
    int index, n_failed;
    pthread_t thread;
};

static int enroll(struct store *s, const char *gallery, const char *subject,
                  const float *v, int64_t *id)
{
    struct store_new_face f = {.embedding = v, .dim = DIM};
    struct store_enroll e = {.gallery = gallery,
                             .subject = subject,
                             .name = subject,
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1};

    return store_enroll(s, &e, id, NULL, NULL, NULL);
}

/* All threads use the same few subjects, so enrolments and erasures cross. */
static void *enroll_on(void *arg)
{
    struct enroller *e = arg;
    uint32_t x = (uint32_t)e->index * 7919 + 1;
    char subject[8];
    float v[DIM] = {0};
    int64_t id;

    for (int i = 0; i < 80; i++) {
        x = x * 1664525u + 1013904223u;
        snprintf(subject, sizeof(subject), "s%u", (x >> 16) % 5);
        v[0] = cosf((float)x);
        v[1] = sinf((float)x);
        if (enroll(e->s, "a", subject, v, &id) < 0)
            e->n_failed++;
        if (i % 4 == 0)
            store_subject_remove(e->s, "a", subject, NULL, NULL);
        else if (i % 4 == 2)
            store_face_remove(e->s, id, NULL, NULL);
    }
    return NULL;
}

static void same_as_loaded(struct gallery *g, struct store *s)
{
    struct gallery *fresh = make();
    struct gallery_size a, b;
    struct gallery_hit x[10], y[10];
    float q[DIM];

    gallery_size(g, &a);
    assert_int_equal(gallery_load(fresh, s, NULL), 0);
    gallery_size(fresh, &b);
    assert_int_equal(a.n_faces, b.n_faces);
    assert_int_equal(a.n_subjects, b.n_subjects);
    assert_int_equal(a.n_galleries, b.n_galleries);
    assert_int_equal(a.n_refused, 0);
    for (int k = 0; k < 20; k++) {
        int n;
        fill(q);
        n = gallery_search(g, "a", q, 4, 10, x, NULL);
        assert_int_equal(gallery_search(fresh, "a", q, 4, 10, y, NULL), n);
        for (int i = 0; i < n; i++) {
            assert_int_equal(x[i].face, y[i].face);
            assert_string_equal(x[i].name, y[i].name);
        }
    }
    /* Only g follows on. */
    assert_int_equal(gallery_unload(fresh, s, NULL), 0);
    gallery_free(fresh);
}

static void test_follows_store(void **state)
{
    char dir[] = "/tmp/test_gallery.XXXXXX", command[64];
    struct store_options opt = {.dir = mkdtemp(dir),
                                .max_faces_per_subject = 10000};
    struct store *s = store_open(&opt, NULL);
    struct gallery *g = make();
    struct enroller e[4];
    struct gallery_hit hit;
    float v[DIM];
    int64_t id;

    (void)state;
    assert_non_null(s);
    fill(v);
    assert_int_equal(enroll(s, "b", "before", v, &id), 0);
    assert_int_equal(gallery_load(g, s, NULL), 0);
    expect_size(g, 1, 1, 1);
    for (int i = 0; i < 4; i++) {
        e[i] = (struct enroller){.s = s, .index = i};
        assert_int_equal(pthread_create(&e[i].thread, NULL, enroll_on, &e[i]),
                         0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(e[i].thread, NULL);
        assert_int_equal(e[i].n_failed, 0);
    }
    same_as_loaded(g, s);
    assert_int_equal(enroll(s, "a", "last", v, &id), 0);
    assert_int_equal(gallery_search(g, "a", v, 0, 1, &hit, NULL), 1);
    assert_string_equal(hit.subject, "last");
    assert_int_equal(store_subject_update(s, "a", "last", "N", NULL, NULL), 0);
    assert_int_equal(gallery_subject(g, "a", "last", v, &hit, NULL), 0);
    assert_string_equal(hit.name, "N");
    assert_int_equal(store_gallery_remove(s, "a", NULL, NULL), 0);
    assert_int_equal(gallery_search(g, "a", v, 4, 1, &hit, NULL), 0);
    expect_size(g, 1, 1, 1);
    same_as_loaded(g, s);
    store_close(s);
    gallery_free(g);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* --- every face ------------------------------------------------------ */
struct seen {
    int n, stop_at;
    int64_t sum;
};

static bool see(void *ctx, int64_t face, const char *subject,
                const float *embedding)
{
    struct seen *s = ctx;
    const struct row *r = &rows[face - 1];

    assert_true(r->alive && strcmp(r->gallery, "a") == 0);
    assert_string_equal(r->subject, subject);
    assert_memory_equal(r->v, embedding, sizeof(r->v));
    s->sum += face;
    return ++s->n != s->stop_at;
}

/* Several chunks, some rows gone, another gallery beside. */
static void test_each(void **state)
{
    struct gallery *g = gallery_new(MODEL, DIM, NULL);
    struct seen s = {0};
    int64_t n = 0, sum = 0;
    float v[DIM];

    (void)state;
    assert_non_null(g);
    for (int i = 0; i < 10000; i++) {
        fill(v);
        add(g, i % 5 ? "a" : "b", i % 700, v);
    }
    for (int i = 0; i < n_rows; i += 3) {
        assert_int_equal(gallery_remove_face(g, rows[i].face, NULL), 0);
        rows[i].alive = false;
    }
    for (int i = 0; i < n_rows; i++) {
        if (rows[i].alive && strcmp(rows[i].gallery, "a") == 0) {
            n++;
            sum += rows[i].face;
        }
    }
    assert_int_equal(gallery_each(g, "a", see, &s, NULL), n);
    assert_int_equal(s.n, n);
    assert_int_equal(s.sum, sum);
    s = (struct seen){.stop_at = 7};
    assert_int_equal(gallery_each(g, "a", see, &s, NULL), 7);
    assert_int_equal(gallery_each(g, "none", see, &s, NULL), 0);
    gallery_free(g);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_arguments),
        TEST(test_exact),
        TEST(test_ties),
        TEST(test_many_examples),
        TEST(test_subject_nearest),
        TEST(test_removal),
        TEST(test_memory),
        TEST(test_rename_and_twice),
        TEST(test_readers_and_writers),
        TEST(test_follows_store),
        TEST(test_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
