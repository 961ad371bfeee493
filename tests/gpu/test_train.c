/* tests/gpu/test_train.c - whole runs of training on the card of
 * FACENETD_PLUGIN: losses near the processor's, a run that was stopped goes on
 * as if it had not been, 16 bits learn too. */
#include "tests/unit/train_fixture.h"

static struct train_args *card_args(const char *precision)
{
    struct train_args *a = small_args();

    set(a, "device", "cuda");
    set(a, "device_plugin", getenv("FACENETD_PLUGIN"));
    set(a, "precision", precision);
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
    {{{"optimizer", "ADAGRAD"}, {"selection", "facenet"}}},
    {{{"optimizer", "MOM"}, {"harmonic", "true"}, {"freeze_until", "two"}}},
    {{{"optimizer", "ADADELTA"}, {"distill", "start"}}},
    {{{"optimizer", "RMSPROP"},
      {"distill", "start"},
      {"distill_hints", "one=one"}}},
};

static void set_mode(struct train_args *a, size_t i)
{
    for (int k = 0; k < 4 && modes[i].set[k][0]; k++) {
        const char *value = modes[i].set[k][1];

        set(a, modes[i].set[k][0],
            strcmp(value, "start") == 0 ? at("start.onnx") : value);
    }
    set(a, "learning_rate", "0.005");
}

/* Rounding differs, and grows from step to step. */
static void losses_are_near_the_processors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct train_args *a = small_args(), *b = card_args("f32");
        struct seen cpu = {0}, card = {0};

        set(a, "force", "true");
        set(a, "precision", "f32");
        set_mode(a, i);
        set_mode(b, i);
        must_run(a, &cpu);
        must_run(b, &card);
        assert_non_null(strstr(card.device, "cuda, "));
        assert_int_equal(card.n_losses, cpu.n_losses);
        assert_int_equal(card.n_warnings, cpu.n_warnings);
        for (int k = 0; k < 6; k++)
            if (!(fabs(card.loss[k] - cpu.loss[k]) < 2e-3 * cpu.loss[k] + 1e-4))
                fail_msg("mode %zu, step %d: loss %.9g, the processor's %.9g",
                         i, k, card.loss[k], cpu.loss[k]);
        free(a);
        free(b);
    }
}

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct train_args *a = card_args("f32");
        struct seen whole = {0}, part = {.stop_step = 4};
        char id[2][65];

        set_mode(a, i);
        must_run(a, &whole);
        must_run(a, &part);
        assert_int_equal(part.outcome, TRAIN_STOPPED);
        set(a, "resume", part.checkpoint);
        part.stop_step = 0;
        must_run(a, &part);
        file_id(whole.model, id[0]);
        file_id(part.model, id[1]);
        if (memcmp(part.loss, whole.loss + 4, 8 * sizeof(double)) != 0 ||
            strcmp(id[0], id[1]) != 0)
            fail_msg("mode %zu goes on otherwise", i);
        free(a);
    }
}

static double mean(const double *x, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum / n;
}

static void every_arithmetic_learns(void **state)
{
    static const char *const words[] = {"f32", "tf32", "bf16", "f16"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct train_args *a = card_args(words[i]);
        struct seen s = {0};

        set(a, "freeze_batch_norm", "no");
        set(a, "epoch_size", "10");
        set(a, "max_nrof_epochs", "3");
        set(a, "alpha", "0.8");
        must_run(a, &s);
        assert_non_null(strstr(s.device, words[i]));
        assert_int_equal(s.n_losses, 30);
        if (!(mean(s.loss + 20, 10) < 0.6 * mean(s.loss, 10)))
            fail_msg("%s: from %g to %g", words[i], mean(s.loss, 10),
                     mean(s.loss + 20, 10));
        assert_true(s.after > s.before + 0.05);
        free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_near_the_processors),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(every_arithmetic_learns),
    };

    if (!getenv("FACENETD_PLUGIN"))
        return 2;
    return cmocka_run_group_tests_name("gpu/train", tests, make_world,
                                       remove_world);
}
