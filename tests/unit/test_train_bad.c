/* tests/unit/test_train_bad.c - what a run refuses, and says why: folders,
 * photos, sizes, checkpoints, a disk that is full. */
#include "tests/unit/train_fixture.h"

#include <sys/resource.h>

static void refused(const struct train_args *a, enum error_code code,
                    const char *says)
{
    struct seen s = {0};
    struct error err = {0};

    if (run(a, &s, &err) == 0)
        fail_msg("it ran, where this was expected: %s", says);
    if (err.code != code || !strstr(err.text, says))
        fail_msg("%d, %s; expected: %s", err.code, err.text, says);
}

/* ---- folders and photos -------------------------------------------------- */

static void folders_that_teach_nothing(void **state)
{
    static const struct {
        const char *dir;
        int people, each;
        const char *says;
    } cases[] = {
        {"empty", 0, 0, "no person"},
        {"one", 1, 6, "1"},
        {"single", 8, 1, "photo"},
    };
    struct train_args *a = small_args();

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_people(at(cases[i].dir), 0, cases[i].people, cases[i].each);
        set(a, "data_dir", at(cases[i].dir));
        refused(a, ERR_BAD_FIELD, cases[i].says);
        refused(a, ERR_BAD_FIELD, "data_dir: ");
        refused(a, ERR_BAD_FIELD, cases[i].dir);
    }
    set(a, "data_dir", at("nowhere"));
    refused(a, ERR_BAD_FIELD, "nowhere");
    set(a, "data_dir", at("faces"));
    set(a, "holdout_dir", at("empty"));
    refused(a, ERR_BAD_FIELD, "holdout_dir: ");
    set(a, "holdout_dir", "");
    set(a, "holdout", "0.01"); /* of 12 people: dataset_split wants two */
    {
        struct seen s = {0};
        struct error err = {0};

        set(a, "force", "true");
        assert_int_equal(run(a, &s, &err), 0);
    }
    free(a);
}

/* A few bad photos are named and passed over; many end the run. */
static void photos_that_cannot_be_read(void **state)
{
    struct train_args *a = small_args();
    struct seen s = {0};
    char path[400];

    (void)state;
    write_people(at("some"), 0, 12, 6);
    write_bytes(at("some/person03/2.jpg"), "not a photo", 11);
    write_bytes(at("some/person05/0.jpg"), "", 0);
    set(a, "data_dir", at("some"));
    set(a, "holdout", "0");
    set(a, "force", "true");
    must_run(a, &s);
    assert_int_equal(s.outcome, TRAIN_PUBLISHED);
    assert_true(s.n_warnings >= 2);
    assert_int_equal(s.n_losses, 12);
    for (int p = 0; p < 12; p++) {
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof(path), "%s/person%02d/%d.jpg", at("some"), p,
                     i);
            write_bytes(path, "text", 4);
        }
    }
    refused(a, ERR_BAD_FIELD, "photos cannot be used, more than 8");
    free(a);
}

/* Copies of one file are never anchor and positive: where there is nothing
 * else, there is nothing to learn. */
static void copies_are_no_pairs(void **state)
{
    struct train_args *a = small_args();
    struct seen s = {0};
    char path[400];

    (void)state;
    mkdir(at("copies"), 0777);
    for (int p = 0; p < 8; p++) {
        snprintf(path, sizeof(path), "%s/person%d", at("copies"), p);
        mkdir(path, 0777);
        for (int i = 0; i < 3; i++) {
            snprintf(path, sizeof(path), "%s/person%d/%d.jpg", at("copies"), p,
                     i);
            write_face(path, p, 0);
        }
    }
    set(a, "data_dir", at("copies"));
    set(a, "holdout", "0");
    must_run(a, &s);
    assert_int_equal(s.n_losses, 0);
    assert_non_null(strstr(s.warning, "no triplets are left"));
    /* A harmonic round without triplets is kept, and goes on, as any other. */
    set(a, "harmonic", "true");
    s.stop_phase = "after";
    must_run(a, &s);
    assert_int_equal(s.outcome, TRAIN_STOPPED);
    set(a, "resume", s.checkpoint);
    s.stop_phase = NULL;
    must_run(a, &s);
    assert_int_equal(s.n_losses, 0);
    free(a);
}

/* ---- models and sizes ---------------------------------------------------- */

static void sizes_that_do_not_fit(void **state)
{
    static const struct {
        const char *set[3][2]; /* value "start": that model's file */
        const char *says;
    } cases[] = {
        {{{"embedding_size", "64"}}, "embedding_size: 64, but 'start' gives 8"},
        {{{"image_size", "96"}},
         "image_size: 96, but the input of start is "
         "32x32"},
        {{{"crop", "box-margin:44,182"}}, "crop: box-margin:44,182, but"},
        {{{"scale", "none"}}, "scale: none, but"},
        {{{"freeze_until", "nothing"}}, "no node 'nothing'"},
        {{{"augment", "glitter=1"}}, "glitter"},
        {{{"pretrained_model", ""}, {"arch", "resnet"}},
         "arch: 'resnet' is no network for embeddings"},
        {{{"pretrained_model", ""}, {"model_def", "mtcnn_pnet"}},
         "model_def: 'mtcnn_pnet' is no"},
        {{{"pretrained_model", ""}, {"arch", "nns2"}, {"image_size", "64"}},
         "image_size: 64, but the input of nns2 is 116x140|140x116"},
        {{{"pretrained_model", ""},
          {"arch", "mobilefacenet_small"},
          {"crop", "oval"}},
         "crop: "},
        {{{"pretrained_model", ""},
          {"distill", "start"},
          {"embedding_size", "64"}},
         "the teacher gives 8 numbers, the network 64"},
        {{{"distill", "start"}, {"distill_hints", "one=one,two"}},
         "distill_hints: 'two' is not OWN_NODE=TEACHER_NODE"},
        {{{"distill", "start"}, {"distill_hints", "six=one"}},
         "distill_hints: the network has no node 'six'"},
        {{{"distill", "start"}, {"distill_hints", "one=six"}},
         "distill_hints: the teacher has no node 'six'"},
        {{{"distill", "start"}, {"distill_hints", "one=two"}},
         "distill_hints: the network has ["},
        {{{"distill", "start"},
          {"distill_hints", "one=one,one=one,one=one,"
                            "one=one,one=one,one=one,"
                            "one=one,one=one"}},
         "distill_hints: at most 7"},
        {{{"people_per_batch", "3000"}}, "a round has at most"},
        {{{"learning_rate", "-1"}}, "learning_rate_schedule_file: '"},
        {{{"holdout", "0.9"}}, "holdout (0: nobody; or holdout_dir): "},
        {{{"aligned", "no"}}, "detectors: a folder"},
        {{{"lfw_dir", "nowhere"}}, "lfw_dir: 'nowhere' is no folder"},
        {{{"resume", "nowhere"}}, "resume: there is no 'nowhere'"},
        {{{"batch_size", "20"}}, "batch_size: 20 is no multiple of 3"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct train_args *a = small_args();
        struct seen s = {0};
        struct error err = {0};
        char says[200], *bar;

        for (int k = 0; k < 3 && cases[i].set[k][0]; k++) {
            const char *value = cases[i].set[k][1];

            set(a, cases[i].set[k][0],
                strcmp(value, "start") == 0 ? at("start.onnx") : value);
        }
        snprintf(says, sizeof(says), "%s", cases[i].says);
        bar = strchr(says, '|');
        if (bar)
            *bar = '\0';
        assert_int_equal(run(a, &s, &err), -1);
        if (!strstr(err.text, says) && !(bar && strstr(err.text, bar + 1)))
            fail_msg("%zu: %s", i, err.text);
        assert_int_equal(s.n_losses, 0);
        free(a);
    }
}

/* bf16 is trained in where the processor has it, and refused where not. */
static void arithmetic_that_is_not_there(void **state)
{
    struct train_args *a = small_args();
    struct device_options one = {.n_threads = 1};
    struct error err = {0};
    struct device *dev = backend_cpu.device_open(&one, &err);
    struct device_info info;
    struct seen s = {0};

    (void)state;
    assert_non_null(dev);
    dev->backend->device_describe(dev, &info);
    dev->backend->device_close(dev);
    set(a, "precision", "bf16");
    set(a, "force", "true");
    if (info.any_bf16)
        must_run(a, &s);
    else
        refused(a, ERR_BAD_FIELD, "precision: this processor has no bf16");
    free(a);
}

static void files_that_are_no_models(void **state)
{
    struct train_args *a = small_args();

    (void)state;
    write_bytes(at("text.onnx"), "not a model", 11);
    set(a, "pretrained_model", at("text.onnx"));
    refused(a, ERR_MODEL, "text.onnx");
    set(a, "pretrained_model", at("gone.onnx"));
    refused(a, ERR_FILE, "gone.onnx");
    set(a, "pretrained_model", at("start.onnx"));
    set(a, "distill", at("text.onnx"));
    refused(a, ERR_MODEL, "distill: ");
    free(a);
}

/* ---- checkpoints --------------------------------------------------------- */

static void damage(const char *path, long at_byte)
{
    FILE *f = fopen(path, "r+b");
    int c;

    assert_non_null(f);
    assert_int_equal(fseek(f, at_byte, at_byte < 0 ? SEEK_END : SEEK_SET), 0);
    c = fgetc(f);
    assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
    fputc(c ^ 0x55, f);
    fclose(f);
}

static void a_damaged_checkpoint_is_refused(void **state)
{
    struct train_args *a = small_args();
    struct seen s = {.stop_step = 3};

    (void)state;
    set(a, "epoch_size", "2");
    set(a, "max_nrof_epochs", "3");
    must_run(a, &s);
    assert_int_equal(s.outcome, TRAIN_STOPPED);
    damage(s.checkpoint, -2000);
    set(a, "resume", s.checkpoint);
    refused(a, ERR_BAD_FIELD, "damaged in");
    refused(a, ERR_BAD_FIELD, "before it there is checkpoint-2");
    *strrchr(s.checkpoint, '/') = '\0';
    strcat(s.checkpoint, "/checkpoint-2");
    set(a, "resume", s.checkpoint);
    set(a, "force", "true");
    s.stop_step = 0;
    s.stop_phase = "train";
    must_run(a, &s);
    assert_non_null(strstr(s.warning, "also holds checkpoint-3"));
    s.stop_phase = NULL;
    must_run(a, &s);
    assert_int_equal(s.n_losses, 4);
    set(a, "resume", s.checkpoint);
    damage(s.checkpoint, 3);
    refused(a, ERR_BAD_FIELD, "this is no checkpoint");
    set(a, "resume", at("faces"));
    refused(a, ERR_FILE, "there is no checkpoint in");
    free(a);
}

/* Files may not grow over `most` bytes, as on a disk that is full. */
static void limit_files(rlim_t most)
{
    struct rlimit l;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = most;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* Between epochs a checkpoint that cannot be written costs a warning; the one
 * that a stop asks for is an error, and nothing is left half written. */
static void a_full_disk_is_told(void **state)
{
    struct train_args *a = small_args();
    struct seen s = {.stop_step = 8};
    struct error err = {0};
    char path[500];
    int rc;

    (void)state;
    set(a, "models_base_dir", at("full"));
    limit_files(8192);
    rc = run(a, &s, &err);
    limit_files(RLIM_INFINITY);
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, ERR_STORAGE_FULL);
    assert_non_null(strstr(err.text, "checkpoint"));
    assert_int_equal(s.n_losses,
                     8); /* the epoch's end, at 6, did not stop it */
    assert_int_equal(s.n_checkpoints, 0);
    assert_non_null(strstr(s.warning, "no checkpoint"));
    snprintf(path, sizeof(path), "find %s -name 'checkpoint*' | grep -q .",
             at("full"));
    assert_int_not_equal(system(path), 0);
    free(a);
}

static void folders_that_cannot_be_made(void **state)
{
    struct train_args *a = small_args();

    (void)state;
    write_bytes(at("file"), "x", 1);
    set(a, "models_base_dir", at("file/models"));
    refused(a, ERR_FILE, "folder '");
    set(a, "models_base_dir", at("models"));
    set(a, "logs_base_dir", at("file"));
    refused(a, ERR_FILE, "is no folder");
    set(a, "logs_base_dir", at("logs"));
    set(a, "output", at("nowhere/model.onnx")); /* told before, not after */
    refused(a, ERR_FILE, "output: folder '");
    set(a, "output", at("faces"));
    refused(a, ERR_FILE, "is no file");
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_that_teach_nothing),
        cmocka_unit_test(photos_that_cannot_be_read),
        cmocka_unit_test(copies_are_no_pairs),
        cmocka_unit_test(sizes_that_do_not_fit),
        cmocka_unit_test(arithmetic_that_is_not_there),
        cmocka_unit_test(files_that_are_no_models),
        cmocka_unit_test(a_damaged_checkpoint_is_refused),
        cmocka_unit_test(a_full_disk_is_told),
        cmocka_unit_test(folders_that_cannot_be_made),
    };

    return cmocka_run_group_tests(tests, make_world, remove_world);
}
