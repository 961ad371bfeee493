/* tests/unit/test_store.c - the record: what is answered is stored, what is
 * refused changes nothing. test_store_faults.c has the disk's faults and
 * killed processes. */
#include "tests/unit/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "store/store_priv.h"

/* A clock that is wrong: this program's time stands before the C library's. */
static atomic_long clock_shift_s;

time_t time(time_t *out)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += atomic_load(&clock_shift_s);
    if (out)
        *out = t.tv_sec;
    return t.tv_sec;
}

static int setup(void **state)
{
    clock_shift_s = 0;
    return clean(state);
}

/* --- ids and fields ------------------------------------------------- */
static void test_ids(void **state)
{
    char long_id[STORE_ID_MAX + 2];

    (void)state;
    memset(long_id, 'a', sizeof(long_id));
    long_id[STORE_ID_MAX + 1] = '\0';
    assert_false(store_id_valid(long_id));
    long_id[STORE_ID_MAX] = '\0';
    assert_true(store_id_valid(long_id));
    assert_true(store_id_valid("a"));
    assert_true(store_id_valid("0.-_Z"));
    assert_false(store_id_valid(NULL));
    assert_false(store_id_valid(""));
    assert_false(store_id_valid(".a"));
    assert_false(store_id_valid("_a"));
    assert_false(store_id_valid("a b"));
    assert_false(store_id_valid("a/b"));
    assert_false(store_id_valid("a[0]"));
    assert_false(store_id_valid("caf\xc3\xa9"));
    assert_false(store_id_valid("a\n"));
}

static void expect_refused(struct store *s, const struct store_enroll *e,
                           enum error_code code, const char *word)
{
    struct error err = {0};
    struct store_stats st;
    int64_t ids[4];

    assert_int_equal(store_enroll(s, e, ids, NULL, NULL, &err), -1);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not name %s", err.text, word);
    assert_int_equal(store_stats(s, &st, NULL), 0);
    assert_int_equal(st.n_subjects, 0);
    assert_int_equal(st.n_galleries, 0);
}

static void test_fields(void **state)
{
    struct store *s = open_with(NULL);
    char name300[301];
    float v[DIM], bad[DIM];
    struct store_new_face f = {.embedding = v, .dim = DIM};
    struct store_new_face bad_face = {.embedding = bad, .dim = DIM};
    const struct store_enroll good = {.gallery = "g",
                                      .subject = "s",
                                      .model_id = MODEL,
                                      .faces = &f,
                                      .n_faces = 1};
    struct store_enroll e = good;

    (void)state;
    fill(v, 1);
    memset(name300, 'x', 300);
    name300[300] = '\0';
    e.name = name300;
    expect_refused(s, &e, ERR_BAD_FIELD, "name");
    e.name = "\xc3(";
    expect_refused(s, &e, ERR_BAD_FIELD, "name");
    e.name = "\xed\xa0\x80";
    expect_refused(s, &e, ERR_BAD_FIELD, "name");
    e = good;
    e.metadata = "[1]";
    expect_refused(s, &e, ERR_BAD_FIELD, "metadata");
    e.metadata = "{\"a\":";
    expect_refused(s, &e, ERR_BAD_FIELD, "metadata");
    e = good;
    e.subject = "a b";
    expect_refused(s, &e, ERR_BAD_FIELD, "subject");
    e = good;
    e.gallery = "";
    expect_refused(s, &e, ERR_BAD_FIELD, "gallery");
    e = good;
    e.model_id = "abc";
    expect_refused(s, &e, ERR_BAD_FIELD, "model");
    e = good;
    e.n_faces = STORE_FACES_MAX + 1;
    expect_refused(s, &e, ERR_BAD_FIELD, "faces");
    e = good;
    fill(bad, 2);
    memset(&bad[7], 0xff, sizeof(float)); /* NaN */
    e.faces = &bad_face;
    expect_refused(s, &e, ERR_BAD_FIELD, "face 1");
    f.crop = jpeg;
    f.len_crop = STORE_CROP_MAX + 1;
    e = good;
    expect_refused(s, &e, ERR_TOO_LARGE, "face 1");
    f.crop = NULL;
    f.dim = 0;
    expect_refused(s, &e, ERR_BAD_FIELD, "face 1");
    f.dim = DIM;
    e.idem_key = "k";
    expect_refused(s, &e, ERR_BAD_FIELD, "idempotency");
    store_close(s);
}

/* --- subjects and faces --------------------------------------------- */
static void test_subjects(void **state)
{
    static const char name[] =
        "Zo\xc3\xab [Q/A] \xe5\x90\x8d\xe5\x89\x8d \"x\"";
    struct store *s = open_with(NULL);
    struct store_subject sub, *list;
    struct store_enroll e = {.gallery = "g",
                             .subject = "anna",
                             .name = name,
                             .metadata = "{\"dept\":\"[7]\"}",
                             .model_id = MODEL};
    struct error err = {0};
    bool created = false, replayed = true;
    int n;

    (void)state;
    assert_int_equal(store_enroll(s, &e, NULL, &created, &replayed, &err), 0);
    assert_true(created);
    assert_false(replayed);
    enroll(s, "g", "anna", 1);
    enroll(s, "g", "bob", 2);
    enroll(s, "h", "anna", 3);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    assert_string_equal(sub.name, name);
    assert_string_equal(sub.metadata, e.metadata);
    assert_string_equal(sub.gallery, "g");
    assert_int_equal(sub.n_faces, 1);
    assert_true(sub.created_s > 1600000000);
    store_subject_fini(&sub);

    assert_int_equal(store_subject_update(s, "g", "anna", "A", NULL, &err), 0);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    assert_string_equal(sub.name, "A");
    assert_non_null(sub.metadata);
    store_subject_fini(&sub);
    assert_int_equal(store_subject_update(s, "g", "anna", "", "", &err), 0);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    assert_string_equal(sub.name, "");
    assert_null(sub.metadata);
    store_subject_fini(&sub);
    assert_int_equal(store_subject_update(s, "g", "anna", NULL, "3", &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(store_subject_update(s, "g", "eve", "E", NULL, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);
    assert_int_equal(store_subject_get(s, "g", "eve", &sub, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);

    assert_int_equal(store_subject_list(s, "g", "", 10, &list, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].id, "anna");
    assert_string_equal(list[1].id, "bob");
    store_subjects_free(list, n);
    assert_int_equal(store_subject_list(s, "g", "anna", 1, &list, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].id, "bob");
    store_subjects_free(list, n);
    assert_int_equal(store_subject_list(s, "none", NULL, 5, &list, &n, &err),
                     0);
    assert_int_equal(n, 0);
    store_subjects_free(list, n);
    assert_int_equal(store_subject_list(s, "g", "", 0, &list, &n, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);

    assert_int_equal(store_subject_remove(s, "g", "anna", &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_subject_remove(s, "g", "anna", &n, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);
    assert_int_equal(store_subject_get(s, "h", "anna", &sub, &err), 0);
    store_subject_fini(&sub);
    store_close(s);
}

static void test_faces(void **state)
{
    struct store *s = open_with(NULL);
    struct store_face f, *list;
    struct error err = {0};
    float box[4], points[10];
    uint8_t *crop;
    size_t len;
    int64_t a = enroll(s, "g", "anna", 1), b = enroll(s, "g", "anna", 2), c;
    int n;

    (void)state;
    assert_int_equal(store_face_get(s, a, &f, &err), 0);
    assert_int_equal(f.id, a);
    assert_string_equal(f.gallery, "g");
    assert_string_equal(f.subject, "anna");
    assert_true(f.has_crop && f.box[3] == 4 && f.score == 0.5f);
    assert_int_equal(store_face_list(s, "g", "anna", 0, 10, &list, &n, &err),
                     0);
    assert_int_equal(n, 2);
    assert_true(list[0].id == a && list[1].id == b);
    free(list);
    assert_int_equal(store_face_list(s, "g", "anna", a, 10, &list, &n, &err),
                     0);
    assert_int_equal(n, 1);
    free(list);
    assert_int_equal(store_face_list(s, "g", "x", 0, 10, &list, &n, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);
    assert_int_equal(store_face_crop(s, a, &crop, &len, box, points, &err), 0);
    assert_int_equal(len, sizeof(jpeg));
    assert_memory_equal(crop, jpeg, len);
    assert_true(box[3] == 8 && points[9] == 10);
    free(crop);

    assert_int_equal(store_face_remove(s, b, &f, &err), 0);
    assert_string_equal(f.subject, "anna");
    assert_int_equal(store_face_get(s, b, &f, &err), -1);
    assert_int_equal(err.code, ERR_NO_FACE_ID);
    assert_int_equal(store_face_remove(s, b, &f, &err), -1);
    assert_int_equal(err.code, ERR_NO_FACE_ID);
    assert_int_equal(store_face_crop(s, b, &crop, &len, box, points, &err), -1);
    assert_int_equal(err.code, ERR_NO_FACE_ID);
    store_close(s);
    s = open_with(NULL);
    c = enroll(s, "g", "anna", 3);
    assert_true(c > b); /* never used again, restart or not */
    store_close(s);
}

static void test_galleries(void **state)
{
    struct store *s = open_with(NULL);
    struct store_gallery g, *list;
    struct error err = {0};
    char id[16];
    int n;

    (void)state;
    for (int i = 0; i < 300; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        enroll(s, "big", id, (unsigned)i);
    }
    enroll(s, "small", "p", 1);
    assert_int_equal(store_gallery_list(s, "", 10, &list, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].id, "big");
    assert_int_equal(list[0].n_subjects, 300);
    assert_int_equal(list[0].n_faces, 300);
    free(list);
    assert_int_equal(store_gallery_list(s, "big", 10, &list, &n, &err), 0);
    assert_int_equal(n, 1);
    free(list);
    assert_int_equal(store_gallery_get(s, "small", &g, &err), 0);
    assert_int_equal(g.n_faces, 1);
    assert_int_equal(store_gallery_get(s, "none", &g, &err), -1);
    assert_int_equal(err.code, ERR_NO_GALLERY);
    assert_int_equal(store_gallery_remove(s, "big", &n, &err), 0);
    assert_int_equal(n, 300);
    assert_int_equal(store_gallery_remove(s, "big", &n, &err), -1);
    assert_int_equal(err.code, ERR_NO_GALLERY);
    assert_int_equal(store_gallery_list(s, "", 10, &list, &n, &err), 0);
    assert_int_equal(n, 1);
    free(list);
    store_close(s);
}

static void test_quota_and_model(void **state)
{
    struct store_options opt = {.max_faces_per_subject = 2};
    struct store *s = open_with(&opt);
    struct error err = {0};
    float v[DIM];
    struct store_new_face f = {.embedding = v, .dim = 64};
    struct store_enroll e = {.gallery = "g",
                             .subject = "b",
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1};
    int64_t id;

    (void)state;
    enroll(s, "g", "a", 1);
    enroll(s, "g", "a", 2);
    assert_int_equal(try_enroll(s, "g", "a", 3, &id, &err), -1);
    assert_int_equal(err.code, ERR_QUOTA);
    fill(v, 1);
    assert_int_equal(store_enroll(s, &e, &id, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT); /* another size of embedding */
    store_close(s);
}

static void test_idempotency_ends(void **state)
{
    static const long shifts[] = {25 * 3600, -2 * 24 * 3600};
    struct store *s = open_with(NULL);
    uint8_t digest[CRYPTO_SHA256_LEN] = {1};
    struct store_enroll e = {.gallery = "g",
                             .subject = "a",
                             .model_id = MODEL,
                             .idem_key = "key",
                             .request_sha256 = digest};
    bool replayed;

    (void)state;
    for (int i = 0; i < 2; i++) {
        digest[0] = (uint8_t)i;
        assert_int_equal(store_enroll(s, &e, NULL, NULL, &replayed, NULL), 0);
        assert_false(replayed);
        clock_shift_s += 23 * 3600;
        assert_int_equal(store_enroll(s, &e, NULL, NULL, &replayed, NULL), 0);
        assert_true(replayed);
        clock_shift_s += shifts[i] - 23 * 3600;
    }
    digest[0] = 9;
    assert_int_equal(store_enroll(s, &e, NULL, NULL, &replayed, NULL), 0);
    assert_false(replayed);
    store_close(s);
}

static void test_idempotency(void **state)
{
    struct store *s = open_with(NULL);
    struct error err = {0};
    uint8_t h1[CRYPTO_SHA256_LEN] = {1}, h2[CRYPTO_SHA256_LEN] = {2};
    float v[DIM];
    struct store_new_face f[2] = {{.embedding = v, .dim = DIM},
                                  {.embedding = v, .dim = DIM}};
    struct store_enroll e = {.gallery = "g",
                             .subject = "a",
                             .model_id = MODEL,
                             .faces = f,
                             .n_faces = 2,
                             .idem_key = "key-1",
                             .request_sha256 = h1};
    int64_t first[2], again[2] = {0};
    struct store_stats st;
    bool created, replayed;

    (void)state;
    fill(v, 1);
    assert_int_equal(store_enroll(s, &e, first, &created, &replayed, &err), 0);
    assert_true(created && !replayed);
    store_close(s);
    s = open_with(NULL);
    assert_int_equal(store_enroll(s, &e, again, &created, &replayed, &err), 0);
    assert_true(created && replayed);
    assert_memory_equal(first, again, sizeof(first));
    assert_int_equal(store_stats(s, &st, NULL), 0);
    assert_int_equal(st.n_faces, 2);
    e.request_sha256 = h2;
    assert_int_equal(store_enroll(s, &e, again, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_IDEMPOTENCY);
    e.request_sha256 = h1;
    e.n_faces = 1;
    assert_int_equal(store_enroll(s, &e, again, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_IDEMPOTENCY);
    e.n_faces = 2;
    e.idem_key = "key-2";
    assert_int_equal(store_enroll(s, &e, again, &created, &replayed, &err), 0);
    assert_true(!created && !replayed && again[0] > first[1]);
    store_close(s);
}

struct seen {
    int n;
    unsigned seeds[3];
    int64_t last;
};

static bool see(void *ctx, int64_t face, const char *gallery,
                const char *subject, const char *name, const float *embedding,
                int dim)
{
    struct seen *seen = ctx;
    float v[DIM];

    assert_true(face > seen->last && dim == DIM);
    assert_string_equal(gallery, "g");
    assert_string_equal(subject, "a");
    assert_string_equal(name, "");
    fill(v, seen->seeds[seen->n++]);
    assert_memory_equal(v, embedding, sizeof(v));
    seen->last = face;
    return seen->n < 3;
}

static void test_embeddings(void **state)
{
    static const char other[] =
        "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    struct store *s = open_with(NULL);
    struct seen seen = {.seeds = {7, 8, 9}};
    struct error err = {0};
    int64_t n;

    (void)state;
    for (unsigned i = 7; i < 11; i++)
        enroll(s, "g", "a", i);
    assert_int_equal(store_embeddings(s, MODEL, see, &seen, &err), 0);
    assert_int_equal(seen.n, 3); /* stopped */
    seen.n = 0;
    assert_int_equal(store_embeddings(s, other, see, &seen, &err), 0);
    assert_int_equal(seen.n, 0);
    assert_int_equal(store_missing_embeddings(s, MODEL, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(store_missing_embeddings(s, other, &n, &err), 0);
    assert_int_equal(n, 4);
    assert_int_equal(store_embeddings(s, "x", see, &seen, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    store_close(s);
}

static void test_sealed_crop(void **state)
{
    const uint8_t key[CRYPTO_KEY_LEN] = {1}, wrong[CRYPTO_KEY_LEN] = {2};
    struct store_options opt = {.crop_key = key};
    struct store *s = open_with(&opt);
    struct error err = {0};
    int64_t id = enroll(s, "g", "a", 1);
    uint8_t *crop;
    size_t len;

    (void)state;
    assert_int_equal(store_face_crop(s, id, &crop, &len, NULL, NULL, &err), 0);
    assert_int_equal(len, sizeof(jpeg));
    assert_memory_equal(crop, jpeg, len);
    free(crop);
    store_close(s);
    assert_int_equal(n_files_with(jpeg, sizeof(jpeg)), 0);
    opt.crop_key = wrong;
    s = open_with(&opt);
    assert_int_equal(store_face_crop(s, id, &crop, &len, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE);
    assert_null(crop);
    store_close(s);
    s = open_with(NULL);
    assert_int_equal(store_face_crop(s, id, &crop, &len, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE);
    store_close(s);
}

/* --- versions ------------------------------------------------------- */
static const char schema_1[] =
#include "schema.h"
    ;
static const char schema_2[] =
#include "schema_2.h"
    ;

static void test_versions(void **state)
{
    struct store_options opt = {.dir = dir};
    const char *steps[] = {schema_1, schema_2,
                           "ALTER TABLE subject ADD COLUMN extra TEXT"};
    const char *bad[] = {schema_1, schema_2,
                         "ALTER TABLE subject ADD COLUMN extra TEXT;"
                         "ALTER TABLE none ADD COLUMN extra TEXT"};
    struct error err = {0};
    struct store_subject sub;
    struct store *s = open_with(NULL);
    char path[160], text[256];

    (void)state;
    enroll(s, "g", "a", 1);
    store_close(s);
    /* A step that fails leaves the old version, whole. */
    assert_null(store_open_steps(&opt, bad, 3, &err));
    assert_int_equal(err.code, ERR_STORAGE);
    snprintf(path, sizeof(path), "%s/facenetd.db.v2.bak", dir);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(open_error(NULL), ERR_NONE);
    s = store_open_steps(&opt, steps, 3, &err);
    if (!s)
        fail_msg("%s", err.text);
    assert_int_equal(store_subject_get(s, "g", "a", &sub, &err), 0);
    store_subject_fini(&sub);
    enroll(s, "g", "a", 2);
    store_close(s);
    assert_int_equal(open_error(text), ERR_STORAGE);
    assert_non_null(strstr(text, "newer"));
    /* The copy is the old version. */
    snprintf(text, sizeof(text), "%s/facenetd.db", dir);
    assert_int_equal(rename(path, text), 0);
    s = open_with(NULL);
    assert_int_equal(store_subject_get(s, "g", "a", &sub, &err), 0);
    assert_int_equal(sub.n_faces, 1);
    store_subject_fini(&sub);
    store_close(s);
    /* An erasure reaches the copy too. */
    s = store_open_steps(&opt, steps, 3, &err);
    assert_non_null(s);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(store_subject_remove(s, "g", "a", NULL, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
    store_close(s);
}

/* What the first release wrote: its faces are there, and it can go back. */
static void test_version_1(void **state)
{
    struct error err = {0};
    struct store_subject sub;
    struct store *s;
    char path[160], sql[200];
    sqlite3 *db;

    (void)state;
    snprintf(path, sizeof(path), "%s/facenetd.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA auto_vacuum=INCREMENTAL", NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, schema_1, NULL, NULL, NULL), SQLITE_OK);
    snprintf(sql, sizeof(sql),
             "INSERT INTO gallery VALUES(1, 'g', 5);"
             "INSERT INTO subject VALUES(1, 1, 'anna', 'A', NULL, 5, 5);"
             "PRAGMA application_id=%d; PRAGMA user_version=1",
             0x46414345);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    s = open_with(NULL);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    assert_string_equal(sub.name, "A");
    store_subject_fini(&sub);
    assert_true(enroll(s, "g", "anna", 1) > 0);
    store_close(s);
    strcat(path, ".v1.bak");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(open_error(NULL), ERR_NONE);
}

/* --- many threads --------------------------------------------------- */
enum {
    THREADS = 8,
    PER_THREAD = 60
};

struct worker {
    struct store *s;
    int index, n_failed;
    pthread_t thread;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char id[32];
    int64_t face;

    for (int i = 0; i < PER_THREAD; i++) {
        snprintf(id, sizeof(id), "t%d.%d", w->index, i);
        w->n_failed +=
            try_enroll(w->s, "g", id, (unsigned)(w->index * 1000 + i), &face,
                       NULL) < 0;
        if (i % 10 == 9)
            w->n_failed += store_face_remove(w->s, face, NULL, NULL) < 0;
        /* One client's mistake does not fail the others of its commit. */
        if (i % 7 == 0)
            w->n_failed += store_face_remove(w->s, 1 << 30, NULL, NULL) == 0;
    }
    return NULL;
}

static void test_group_commit(void **state)
{
    struct worker w[THREADS] = {0};
    struct store *s = open_with(NULL);
    struct store_stats st;
    char path[160];
    struct error err = {0};

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.s = s, .index = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    /* A copy made meanwhile is a whole database. */
    snprintf(path, sizeof(path), "%s/copy.db", dir);
    if (store_backup(s, path, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(store_backup(s, path, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].n_failed, 0);
    }
    assert_int_equal(store_stats(s, &st, NULL), 0);
    assert_int_equal(st.n_writes, THREADS * (PER_THREAD + PER_THREAD / 10));
    assert_int_equal(st.n_faces, THREADS * (PER_THREAD - PER_THREAD / 10));
    assert_true(st.n_commits < st.n_writes);
    assert_true(st.bytes > 0);
    print_message("%lld writes in %lld commits\n", (long long)st.n_writes,
                  (long long)st.n_commits);
    assert_true(store_alive(s, 5000));
    store_close(s);
    assert_int_equal(access("copy.db.part", F_OK), -1);
}

static void test_backup_opens(void **state)
{
    struct store *s = open_with(NULL);
    struct error err = {0};
    struct store_stats st;
    char path[160], db[160];

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        enroll(s, "g", "a", i);
    snprintf(path, sizeof(path), "%s/copy.db", dir);
    assert_int_equal(store_backup(s, path, &err), 0);
    enroll(s, "g", "a", 99);
    assert_int_equal(store_backup(s, "/nowhere/copy.db", &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    store_close(s);
    snprintf(db, sizeof(db), "%s/facenetd.db", dir);
    assert_int_equal(rename(path, db), 0);
    s = open_with(NULL);
    assert_int_equal(store_stats(s, &st, NULL), 0);
    assert_int_equal(st.n_faces, 20);
    store_close(s);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ids),
        TEST(test_fields),
        TEST(test_subjects),
        TEST(test_faces),
        TEST(test_galleries),
        TEST(test_quota_and_model),
        TEST(test_idempotency_ends),
        TEST(test_idempotency),
        TEST(test_embeddings),
        TEST(test_sealed_crop),
        TEST(test_versions),
        TEST(test_version_1),
        TEST(test_group_commit),
        TEST(test_backup_opens),
    };
    int rc;

    make_dir();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    clean(NULL);
    rmdir(dir);
    return rc;
}
