/* tests/unit/test_store_model.c - which model answers, and what another has
 * yet to embed: walking, adding, the switch against enrolments and erasures,
 * a process that is killed in between. */
#include "tests/unit/store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "store/gallery.h"
#include "store/store_model.h"

#define OTHER "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static struct error err;

static void begin(struct store *s)
{
    struct store_models m = {.active = MODEL, .configured = MODEL};

    assert_int_equal(store_model_add(s, MODEL, DIM, &err), 0);
    assert_int_equal(store_model_add(s, OTHER, DIM, &err), 0);
    assert_int_equal(store_models_set(s, &m, &err), 0);
}

static int64_t enroll_plain(struct store *s, const char *subject)
{
    float v[DIM];
    struct store_new_face f = {.box = {1, 2, 3, 4}, .embedding = v, .dim = DIM};
    struct store_enroll e = {.gallery = "g",
                             .subject = subject,
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1};
    int64_t id = 0;

    fill(v, 77);
    assert_int_equal(store_enroll(s, &e, &id, NULL, NULL, &err), 0);
    return id;
}

static int add(struct store *s, int64_t face, unsigned seed)
{
    float v[DIM];
    struct store_vector one = {face, v};
    int n = -1;

    fill(v, seed);
    assert_int_equal(store_embeddings_add(s, OTHER, DIM, &one, 1, &n, &err), 0);
    return n;
}

static void count_switch(void *ctx)
{
    ++*(int *)ctx;
}

static int try_switch(struct store *s, const int64_t *unusable, int n)
{
    int n_switched = 0;
    struct store_switch sw = {.target = OTHER,
                              .unusable = unusable,
                              .n_unusable = n,
                              .switched = count_switch,
                              .ctx = &n_switched};

    err.code = ERR_NONE;
    if (store_switch(s, &sw, &err) != 0) {
        assert_int_equal(n_switched, 0);
        return (int)err.code;
    }
    assert_int_equal(n_switched, 1);
    return ERR_NONE;
}

static struct store_models models(struct store *s)
{
    struct store_models m;

    assert_int_equal(store_models_get(s, &m, &err), 0);
    return m;
}

static void test_record(void **state)
{
    struct store *s = open_with(NULL);
    struct store_models m = models(s);

    (void)state;
    assert_string_equal(m.active, "");
    m = (struct store_models){.active = MODEL, .configured = MODEL};
    assert_int_equal(store_models_set(s, &m, &err), -1); /* unknown */
    assert_int_equal(store_target_set(s, OTHER, false, &err), -1);
    assert_int_equal(err.code, ERR_NO_MODEL);
    begin(s);
    assert_int_equal(store_model_add(s, OTHER, DIM + 1, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_int_equal(store_target_set(s, MODEL, false, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_int_equal(store_target_set(s, OTHER, true, &err), 0);
    store_close(s);
    s = open_with(NULL);
    m = models(s);
    assert_string_equal(m.active, MODEL);
    assert_string_equal(m.previous, "");
    assert_string_equal(m.target, OTHER);
    assert_true(m.allow_missing);
    assert_int_equal(store_target_clear(s, MODEL, &err), 0); /* another */
    assert_string_equal(models(s).target, OTHER);
    assert_int_equal(store_target_clear(s, OTHER, &err), 0);
    assert_string_equal(models(s).target, "");
    assert_int_equal(try_switch(s, NULL, 0), ERR_MODEL_CHANGED);
    store_close(s);
}

static void test_missing(void **state)
{
    struct store *s = open_with(NULL);
    struct store_missing count;
    struct store_face *faces;
    int64_t id[10], ids[4], plain, after = 0;
    bool end;
    int n;

    (void)state;
    begin(s);
    for (unsigned i = 0; i < 10; i++)
        id[i] = enroll(s, "g", i < 5 ? "anna" : "bert", i + 1);
    plain = enroll_plain(s, "cleo");
    assert_int_equal(store_missing_count(s, OTHER, &count, &err), 0);
    assert_int_equal(count.n, 11);
    assert_int_equal(count.n_without_crop, 1);
    assert_int_equal(store_missing_count(s, MODEL, &count, &err), 0);
    assert_int_equal(count.n, 0);
    assert_int_equal(count.n_without_crop, 0);
    assert_int_equal(add(s, id[1], 50), 1);
    assert_int_equal(add(s, id[1], 51), 0); /* it stays as it is */
    assert_int_equal(
        store_missing_walk(s, OTHER, &after, ids, 4, &n, &end, &err), 0);
    assert_int_equal(n, 4);
    assert_false(end);
    assert_int_equal(ids[0], id[0]);
    assert_int_equal(ids[1], id[2]);
    assert_int_equal(after, id[4]);
    after = id[7];
    assert_int_equal(
        store_missing_walk(s, OTHER, &after, ids, 4, &n, &end, &err), 0);
    assert_int_equal(n, 2); /* none for the one without a crop */
    assert_true(end);
    assert_int_equal(after, plain);
    assert_int_equal(store_missing_list(s, OTHER, 0, 10, &faces, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(faces[0].id, plain);
    assert_string_equal(faces[0].subject, "cleo");
    assert_false(faces[0].has_crop);
    free(faces);
    assert_int_equal(store_missing_list(s, OTHER, plain, 10, &faces, &n, &err),
                     0);
    assert_int_equal(n, 0);
    free(faces);
    store_close(s);
}

static void test_switch(void **state)
{
    struct store *s = open_with(NULL);
    int64_t a, b, plain, id;

    (void)state;
    begin(s);
    a = enroll(s, "g", "anna", 1);
    b = enroll(s, "g", "bert", 2);
    plain = enroll_plain(s, "cleo");
    assert_int_equal(store_target_set(s, OTHER, false, &err), 0);
    assert_int_equal(try_switch(s, NULL, 0), ERR_NOT_READY);
    assert_int_equal(add(s, a, 3), 1);
    assert_int_equal(try_switch(s, &b, 1), ERR_CONFLICT); /* not allowed */
    assert_int_equal(add(s, b, 4), 1);
    assert_int_equal(try_switch(s, NULL, 0), ERR_CONFLICT); /* plain */
    assert_int_equal(store_target_set(s, OTHER, true, &err), 0);
    id = enroll(s, "g", "dora", 5); /* one more, by the active model */
    assert_int_equal(try_switch(s, NULL, 0), ERR_NOT_READY);
    assert_int_equal(try_switch(s, &plain, 1), ERR_NOT_READY);
    assert_string_equal(models(s).active, MODEL);
    assert_int_equal(try_switch(s, &id, 1), ERR_NONE);
    assert_string_equal(models(s).active, OTHER);
    assert_string_equal(models(s).previous, MODEL);
    assert_string_equal(models(s).target, "");
    assert_int_equal(try_switch(s, NULL, 0), ERR_MODEL_CHANGED);
    /* What was embedded by the old one comes too late. */
    assert_int_equal(try_enroll(s, "g", "emil", 6, &id, &err), -1);
    assert_int_equal(err.code, ERR_MODEL_CHANGED);
    store_close(s);
}

static void test_replay_after_switch(void **state)
{
    struct store *s = open_with(NULL);
    uint8_t digest[CRYPTO_SHA256_LEN] = {1};
    float v[DIM];
    struct store_new_face f = {.embedding = v, .dim = DIM};
    struct store_enroll e = {.gallery = "g",
                             .subject = "anna",
                             .model_id = MODEL,
                             .faces = &f,
                             .n_faces = 1,
                             .idem_key = "key",
                             .request_sha256 = digest};
    int64_t first, again;
    bool replayed;

    (void)state;
    fill(v, 1);
    begin(s);
    assert_int_equal(store_enroll(s, &e, &first, NULL, &replayed, &err), 0);
    assert_int_equal(store_target_set(s, OTHER, true, &err), 0);
    assert_int_equal(try_switch(s, NULL, 0), ERR_NONE);
    assert_int_equal(store_enroll(s, &e, &again, NULL, &replayed, &err), 0);
    assert_true(replayed);
    assert_int_equal(first, again);
    store_close(s);
}

/* A gallery of the coming model fills as its vectors come; an erased face
 * does not come back with a vector that was made before. */
static void test_gallery_and_erasure(void **state)
{
    struct store *s = open_with(NULL);
    struct gallery *g = gallery_new(OTHER, DIM, &err);
    struct gallery_hit hit;
    struct gallery_size size;
    int64_t a, b;
    float v[DIM];

    (void)state;
    begin(s);
    a = enroll(s, "g", "anna", 1);
    b = enroll(s, "g", "bert", 2);
    assert_int_equal(add(s, a, 11), 1);
    assert_int_equal(gallery_load(g, s, &err), 0);
    gallery_size(g, &size);
    assert_int_equal(size.n_faces, 1);
    assert_int_equal(store_face_remove(s, b, NULL, &err), 0);
    assert_int_equal(add(s, b, 12), 0);
    b = enroll(s, "g", "bert", 3);
    gallery_size(g, &size);
    assert_int_equal(size.n_faces, 1); /* by the other model */
    assert_int_equal(store_subject_update(s, "g", "bert", "B", NULL, &err), 0);
    assert_int_equal(add(s, b, 13), 1);
    fill(v, 13);
    assert_int_equal(gallery_search(g, "g", v, 0, 1, &hit, &err), 1);
    assert_string_equal(hit.subject, "bert");
    assert_string_equal(hit.name, "B");
    assert_int_equal(hit.face, b);
    store_close(s);
    gallery_free(g);
}

static void test_forget(void **state)
{
    struct store *s = open_with(NULL);
    struct store_missing count;
    float v[DIM];
    struct store_vector late = {1, v};

    (void)state;
    begin(s);
    for (unsigned i = 0; i < 1100; i++) {
        char subject[16];
        snprintf(subject, sizeof(subject), "s%u", i / 100);
        assert_int_equal(add(s, enroll(s, "g", subject, i), 5000 + i), 1);
    }
    assert_int_equal(store_target_set(s, OTHER, false, &err), 0);
    assert_int_equal(store_model_forget(s, OTHER, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_int_equal(store_model_forget(s, MODEL, &err), -1);
    assert_int_equal(store_target_clear(s, OTHER, &err), 0);
    fill(v, 5000);
    assert_true(n_files_with(v, sizeof(v)) > 0);
    assert_int_equal(store_model_forget(s, OTHER, &err), 0);
    assert_int_equal(n_files_with(v, sizeof(v)), 0);
    assert_int_equal(store_missing_count(s, OTHER, &count, &err), 0);
    assert_int_equal(count.n, 1100);
    /* One that was on its way comes too late. */
    assert_int_equal(store_embeddings_add(s, OTHER, DIM, &late, 1, NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_NO_MODEL);
    assert_int_equal(store_model_add(s, OTHER, DIM, &err), 0);
    assert_int_equal(add(s, late.face, 5000), 1);
    assert_int_equal(store_model_forget(s, OTHER, &err), 0);
    assert_int_equal(store_missing_count(s, MODEL, &count, &err), 0);
    assert_int_equal(count.n, 0);
    store_close(s);
}

static void die(void *ctx)
{
    (void)ctx;
    kill(getpid(), SIGKILL);
}

/* Killed between the commit of the switch and its answer: it stands. Killed
 * before: nothing of it is there, and every vector is. */
static void test_killed(void **state)
{
    struct store *s;
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        struct store_switch sw = {.target = OTHER, .switched = die};
        int64_t id;
        s = open_with(NULL);
        begin(s);
        id = enroll(s, "g", "anna", 1);
        if (store_target_set(s, OTHER, false, NULL) != 0 || add(s, id, 2) != 1)
            _exit(1);
        store_switch(s, &sw, NULL);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    s = open_with(NULL);
    assert_string_equal(models(s).active, OTHER);
    assert_string_equal(models(s).previous, MODEL);
    store_close(s);
    clean(NULL);
    pid = fork();
    if (pid == 0) {
        int64_t id, after;
        s = open_with(NULL);
        begin(s);
        id = enroll(s, "g", "anna", 1);
        after = enroll(s, "g", "anna", 2);
        if (store_target_set(s, OTHER, false, NULL) != 0 ||
            add(s, id, 2) != 1 || after <= id)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    s = open_with(NULL);
    assert_string_equal(models(s).active, MODEL);
    assert_string_equal(models(s).target, OTHER);
    {
        int64_t at = 0, ids[4];
        bool end;
        int n;
        assert_int_equal(
            store_missing_walk(s, OTHER, &at, ids, 4, &n, &end, &err), 0);
        assert_int_equal(n, 1);
        assert_int_equal(add(s, ids[0], 3), 1);
    }
    assert_int_equal(try_switch(s, NULL, 0), ERR_NONE);
    store_close(s);
}

/* Embeddings follow the model's new name, unless that is taken. */
static void test_rename(void **state)
{
    struct store *s = open_with(NULL);
    bool renamed = true;
    int64_t n = -1;

    (void)state;
    assert_int_equal(store_model_rename(s, MODEL, OTHER, &renamed, &err), 0);
    assert_false(renamed); /* there is none */
    assert_int_equal(store_model_add(s, MODEL, DIM, &err), 0);
    enroll_plain(s, "a");
    assert_int_equal(store_model_rename(s, MODEL, OTHER, &renamed, &err), 0);
    assert_true(renamed);
    assert_int_equal(store_missing_embeddings(s, OTHER, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(store_missing_embeddings(s, MODEL, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_model_add(s, MODEL, DIM, &err), 0);
    assert_int_equal(store_model_rename(s, MODEL, OTHER, &renamed, &err), 0);
    assert_false(renamed);
    assert_int_equal(store_missing_embeddings(s, OTHER, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(store_model_rename(s, "x", OTHER, &renamed, &err), -1);
    store_close(s);
}

#define TEST(fn) cmocka_unit_test_setup(fn, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_record),
        TEST(test_missing),
        TEST(test_switch),
        TEST(test_replay_after_switch),
        TEST(test_gallery_and_erasure),
        TEST(test_forget),
        TEST(test_killed),
        TEST(test_rename),
    };
    int rc;

    make_dir();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    clean(NULL);
    rmdir(dir);
    return rc;
}
