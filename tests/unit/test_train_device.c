/* tests/unit/test_train_device.c - whole runs on a card that is played
 * (tests/fake_gpu.c), which keeps the network's numbers to itself: they are
 * those of the processor's runs, bit for bit; what becomes of a run where
 * there is no card, no memory, no way to learn, or 16 bits are too few. */
#include "tests/unit/train_fixture.h"

static char plugin[400], control[400];

static void tell(const char *words)
{
    write_bytes(control, words, strlen(words));
}

static struct train_args *card_args(const char *device)
{
    struct train_args *a = small_args();

    set(a, "device", device);
    set(a, "device_plugin", plugin);
    set(a, "precision", "f32");
    set(a, "force", "true");
    return a;
}

static const struct {
    const char *set[4][2];
} modes[] = {
    {{{"freeze_batch_norm", "no"},
      {"optimizer", "ADAM"},
      {"weight_decay", "0.001"},
      {"keep_probability", "0.8"}}},
    {{{"harmonic", "true"}, {"optimizer", "MOM"}}},
    {{{"distill", "start"}, {"freeze_batch_norm", "no"}}},
    {{{"distill", "start"}, {"distill_hints", "one=one"}}},
};

static struct train_args *mode_args(size_t i, const char *device)
{
    struct train_args *a = card_args(device);

    for (int k = 0; k < 4 && modes[i].set[k][0]; k++) {
        const char *value = modes[i].set[k][1];

        set(a, modes[i].set[k][0],
            strcmp(value, "start") == 0 ? at("start.onnx") : value);
    }
    return a;
}

/* A part that is not fetched or not put back where it must be would show. */
static void its_numbers_are_the_processors(void **state)
{
    (void)state;
    tell("");
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct train_args *a = mode_args(i, "cpu");
        struct train_args *b = mode_args(i, "cuda");
        struct seen cpu = {0}, card = {0}, part = {.stop_step = 5};
        char id[3][65];

        must_run(a, &cpu);
        must_run(b, &card);
        assert_non_null(strstr(cpu.device, "cpu, "));
        assert_non_null(strstr(card.device, "cuda, Fake \"card\", f32"));
        assert_int_equal(card.n_losses, 12);
        if (memcmp(cpu.loss, card.loss, sizeof(cpu.loss)) != 0)
            fail_msg("mode %zu has other losses", i);
        must_run(b, &part);
        assert_int_equal(part.outcome, TRAIN_STOPPED);
        set(b, "resume", part.checkpoint);
        part.stop_step = 0;
        must_run(b, &part);
        file_id(cpu.model, id[0]);
        file_id(card.model, id[1]);
        file_id(part.model, id[2]);
        if (strcmp(id[0], id[1]) != 0 || strcmp(id[1], id[2]) != 0)
            fail_msg("mode %zu: %s, %s, %s", i, id[0], id[1], id[2]);
        free(a);
        free(b);
    }
}

/* A checkpoint is of no device. */
static void a_run_goes_on_elsewhere(void **state)
{
    struct train_args *a = mode_args(0, "cuda"), *b = mode_args(0, "cpu");
    struct seen whole = {0}, part = {.stop_step = 5};
    char id[2][65];

    (void)state;
    tell("");
    must_run(b, &whole);
    must_run(a, &part);
    set(b, "resume", part.checkpoint);
    part.stop_step = 0;
    must_run(b, &part);
    file_id(whole.model, id[0]);
    file_id(part.model, id[1]);
    assert_string_equal(id[0], id[1]);
    free(a);
    free(b);
}

static void auto_says_why_it_is_the_processor(void **state)
{
    static const struct {
        const char *words, *says;
        int n_devices;
    } cases[] = {{"absent", "there is no card 0", 1},
                 {"unlearnt", "node 'x' cannot learn on the card", 2},
                 {"", "cuda, Fake", 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct train_args *a = card_args("auto");
        struct seen s = {0};

        tell(cases[i].words);
        set(a, "dry_run", "true");
        must_run(a, &s);
        assert_int_equal(s.n_devices, cases[i].n_devices);
        assert_non_null(strstr(s.device, cases[i].says));
        assert_int_equal(strncmp(s.device, "cpu, ", 5) == 0, i < 2);
        free(a);
    }
}

static void what_is_asked_for_must_be_there(void **state)
{
    static const struct {
        const char *words, *device, *plugin, *says;
        enum error_code code;
    } cases[] = {
        {"absent", "cuda", NULL, "device cuda: there is no card 0", ERR_DEVICE},
        {"absent", "cuda:3", NULL, "there is no card 3", ERR_DEVICE},
        {"unlearnt", "cuda", NULL, "cannot learn", ERR_MODEL},
        {"memory", "cuda", NULL, "lower batch_size", ERR_NOMEM},
        {"memory", "auto", NULL, "or device cpu", ERR_NOMEM},
        {"plans=4", "auto", NULL, "batches of 18", ERR_NOMEM},
        {"", "cuda", "/nonexistent.so", "No such file", ERR_DEVICE},
        {"", "gpu", NULL, "'gpu' is none of auto", ERR_BAD_FIELD},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct train_args *a = card_args(cases[i].device);
        struct seen s = {0};
        struct error err = {0};

        tell(cases[i].words);
        if (cases[i].plugin)
            set(a, "device_plugin", cases[i].plugin);
        assert_int_equal(run(a, &s, &err), -1);
        if (err.code != cases[i].code || !strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
        free(a);
    }
    tell("");
}

static void precisions(void **state)
{
    static const struct {
        const char *device, *precision, *says;
    } cases[] = {{"cpu", "tf32", "this processor has no tf32"},
                 {"cpu", "f16", "this processor has no f16"},
                 {"cpu", "auto", NULL},
                 {"cuda", "f16", NULL}};

    (void)state;
    tell("f16");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct train_args *a = card_args(cases[i].device);
        struct seen s = {0};
        struct error err = {0};

        set(a, "precision", cases[i].precision);
        set(a, "dry_run", "true");
        set(a, "holdout", "0"); /* no network at rest in TF32 */
        assert_int_equal(run(a, &s, &err), cases[i].says ? -1 : 0);
        if (cases[i].says && !strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
        if (!cases[i].says)
            assert_non_null(strstr(s.device, i == 2 ? ", f32" : ", f16"));
        free(a);
    }
    tell("");
}

/* Batches whose gradients do not fit are left out, and said; for ever is an
 * error. */
static void gradients_that_do_not_fit(void **state)
{
    struct train_args *a = card_args("cuda");
    struct seen s = {0};
    struct error err = {0};

    (void)state;
    tell("small=3");
    must_run(a, &s);
    assert_int_equal(s.n_losses, 12);
    assert_int_equal(s.n_warnings, 3);
    assert_non_null(strstr(s.warning, "it is left out"));
    tell("small=1000");
    assert_int_equal(run(a, &s, &err), -1);
    assert_int_equal(err.code, ERR_TRAINING);
    assert_non_null(strstr(err.text, "take precision bf16"));
    assert_int_equal(s.n_warnings, 5);
    tell("");
    free(a);
}

/* What was learnt is not lost for want of memory to measure it in. */
static void no_memory_to_measure(void **state)
{
    struct train_args *a = card_args("cuda");
    struct seen s = {0};

    (void)state;
    tell("plans=18"); /* a batch of training */
    must_run(a, &s);
    assert_int_equal(s.outcome, TRAIN_PUBLISHED);
    assert_int_equal(s.n_warnings, 3); /* before, during, after */
    assert_non_null(strstr(s.warning, "measured on the processor: "));
    tell("");
    free(a);
}

static void a_lost_card_ends_the_run(void **state)
{
    struct train_args *a = card_args("cuda");
    struct seen s = {0};
    struct error err = {0};

    (void)state;
    tell("lost");
    assert_int_equal(run(a, &s, &err), -1);
    assert_int_equal(err.code, ERR_DEVICE);
    assert_non_null(strstr(err.text, "fell off the bus"));
    tell("");
    free(a);
}

/* The card is opened twice where a part of its memory is asked for. */
static void a_part_of_its_memory(void **state)
{
    struct train_args *a = card_args("cuda");
    struct seen s = {0};

    (void)state;
    set(a, "gpu_memory_fraction", "0.5");
    set(a, "dry_run", "true");
    must_run(a, &s);
    free(a);
}

static int setup(void **state)
{
    ssize_t n = readlink("/proc/self/exe", plugin, sizeof(plugin) - 32);

    if (n < 0 || make_world(state))
        return -1;
    plugin[n] = '\0';
    strcpy(strrchr(plugin, '/') + 1, "../fake_gpu.so");
    snprintf(control, sizeof(control), "%s", at("card"));
    return setenv("FACENETD_FAKE_GPU", control, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_numbers_are_the_processors),
        cmocka_unit_test(a_run_goes_on_elsewhere),
        cmocka_unit_test(auto_says_why_it_is_the_processor),
        cmocka_unit_test(what_is_asked_for_must_be_there),
        cmocka_unit_test(precisions),
        cmocka_unit_test(gradients_that_do_not_fit),
        cmocka_unit_test(no_memory_to_measure),
        cmocka_unit_test(a_lost_card_ends_the_run),
        cmocka_unit_test(a_part_of_its_memory),
    };

    return cmocka_run_group_tests(tests, setup, remove_world);
}
