/* tests/unit/test_train_args.c - every argument of the training script, with
 * its name and default as train_tripletloss.py has them, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/train_args.h"

/* Name, default (argparse's; a folder of the user's home is ours), another
 * value that is good. */
static const struct {
    const char *name, *def, *other;
} script[] = {
    {"logs_base_dir", "logs/facenet", "/tmp/logs"},
    {"models_base_dir", "models/facenet", "/tmp/models"},
    {"gpu_memory_fraction", "1", "0.5"},
    {"pretrained_model", "", "m.onnx"},
    {"data_dir", "", "faces"},
    {"model_def", "inception_resnet_v1", "nn4"},
    {"max_nrof_epochs", "500", "3"},
    {"batch_size", "90", "30"},
    {"image_size", "160", "96"},
    {"people_per_batch", "45", "15"},
    {"images_per_person", "40", "6"},
    {"epoch_size", "1000", "10"},
    {"alpha", "0.2", "0.35"},
    {"embedding_size", "128", "512"},
    {"random_crop", "false", "true"},
    {"random_flip", "false", "true"},
    {"keep_probability", "1", "0.8"},
    {"weight_decay", "0", "0.0001"},
    {"optimizer", "ADAGRAD", "RMSPROP"},
    {"learning_rate", "0.1", "-1"},
    {"learning_rate_decay_epochs", "100", "4"},
    {"learning_rate_decay_factor", "1", "0.98"},
    {"moving_average_decay", "0.9999", "0.9"},
    {"seed", "666", "1"},
    {"learning_rate_schedule_file", "data/learning_rate_schedule.txt", "s.txt"},
    {"lfw_pairs", "data/pairs.txt", "p.txt"},
    {"lfw_dir", "", "lfw"},
    {"lfw_nrof_folds", "10", "5"},
};

static void the_script_is_all_there(void **state)
{
    struct train_args a;
    struct error err;
    char buf[TRAIN_ARG_MAX], dashes[64];

    (void)state;
    for (size_t i = 0; i < sizeof(script) / sizeof(script[0]); i++) {
        const struct train_arg *arg = train_args_find(script[i].name);

        if (!arg)
            fail_msg("%s is missing", script[i].name);
        train_args_default(&a);
        assert_string_equal(train_args_get(&a, arg, buf, sizeof(buf)),
                            script[i].def);
        strcpy(dashes, script[i].name);
        for (char *p = dashes; *p; p++)
            *p = *p == '_' ? '-' : *p;
        assert_ptr_equal(train_args_find(dashes), arg);
        if (train_args_set(&a, dashes, script[i].other, &err))
            fail_msg("%s", err.text);
        assert_string_equal(train_args_get(&a, arg, buf, sizeof(buf)),
                            script[i].other);
    }
    assert_null(train_args_find("batch_siz"));
    assert_null(train_args_find("batch_sizes"));
    assert_null(train_args_find(""));
}

/* What is printed is what is read, for every row; names and helps are there,
 * and defaults pass their own range. */
static void every_row_is_sound(void **state)
{
    int n;
    const struct train_arg *list = train_args_list(&n);
    struct train_args a, b;
    struct error err;
    char buf[TRAIN_ARG_MAX];

    (void)state;
    train_args_default(&a);
    memset(&b, 0, sizeof(b));
    assert_null(list[0].name); /* a heading comes first */
    for (int i = 0; i < n; i++) {
        assert_true(strlen(list[i].help) > 3);
        if (!list[i].name)
            continue;
        assert_ptr_equal(train_args_find(list[i].name), &list[i]);
        train_args_get(&a, &list[i], buf, sizeof(buf));
        if (train_args_set(&b, list[i].name, buf, &err))
            fail_msg("%s", err.text);
    }
    assert_memory_equal(&a, &b, sizeof(a));
}

static void a_real_keeps_every_bit(void **state)
{
    struct train_args a;
    struct error err;
    char buf[64];

    (void)state;
    train_args_default(&a);
    a.alpha = 0.1 + 0.2;
    train_args_get(&a, train_args_find("alpha"), buf, sizeof(buf));
    assert_int_equal(train_args_set(&a, "alpha", buf, &err), 0);
    assert_true(a.alpha == 0.1 + 0.2);
}

static void bad_values_are_named(void **state)
{
    static const struct {
        const char *name, *value, *says;
    } cases[] = {
        {"optimizer", "SGD", "optimizer: 'SGD' is none of ADAGRAD|ADADELTA"},
        {"optimizer", "ADAGRAD|ADADELTA", "is none of"},
        {"optimizer", "", "is none of"},
        {"optimizer", "ADAGRA", "is none of"},
        {"selection", "hardest", "selection: 'hardest' is none of vggface"},
        {"learning_rate", "nan", "learning_rate: 'nan' is no number"},
        {"learning_rate", "inf", "is no number"},
        {"learning_rate", "1e999", "is no number"},
        {"learning_rate", "0.1x", "is no number"},
        {"learning_rate", "", "is no number"},
        {"learning_rate", "-2", "-2 is not in -1 to 100"},
        {"alpha", "-0.1", "alpha: -0.1 is not in 0 to 4"},
        {"weight_decay", "-1", "weight_decay: -1 is not in 0 to 1"},
        {"batch_size", "-90", "batch_size: -90 is not in 3 to 6000"},
        {"batch_size", "90.5", "'90.5' is no whole number"},
        {"batch_size", "99999999999999999999", "is not in"},
        {"epoch_size", "0", "is not in 1 to"},
        {"seed", "-1", "seed: -1 is not in"},
        {"keep_probability", "0", "is not in 0.01 to 1"},
        {"moving_average_decay", "1", "is not in"},
        {"random_flip", "maybe", "random_flip: 'maybe' is neither true nor"},
        {"data_dir", "a\nb", "data_dir: a control character"},
        {"data_dir", NULL, "data_dir: a value is missing"},
        {"learning_rat", "1", "there is no argument 'learning_rat'"},
    };
    struct train_args a, b;
    struct error err;
    char *text = malloc(2000);

    (void)state;
    train_args_default(&a);
    b = a;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(
            train_args_set(&a, cases[i].name, cases[i].value, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
        assert_memory_equal(&a, &b, sizeof(a));
    }
    memset(text, 'x', 1999);
    text[1999] = '\0';
    assert_int_equal(train_args_set(&a, "data_dir", text, &err), -1);
    assert_non_null(strstr(err.text, "data_dir: over 1023 bytes"));
    text[1023] = '\0';
    assert_int_equal(train_args_set(&a, "data_dir", text, &err), 0);
    free(text);
}

static void flags_need_no_value(void **state)
{
    struct train_args a;
    struct error err;

    (void)state;
    train_args_default(&a);
    assert_int_equal(train_args_set(&a, "random-flip", NULL, &err), 0);
    assert_true(a.random_flip);
    assert_int_equal(train_args_set(&a, "random-flip", "false", &err), 0);
    assert_false(a.random_flip);
}

static void together_they_must_fit(void **state)
{
    static const struct {
        const char *set[3][2], *says; /* NULL: good */
    } cases[] = {
        {{{"data_dir", "faces"}}, NULL},
        {{{"seed", "1"}}, "data_dir: a folder"},
        {{{"data_dir", "f"}, {"batch_size", "91"}},
         "batch_size: 91 is no multiple of 3"},
        {{{"data_dir", "f"},
          {"people_per_batch", "10"},
          {"images_per_person", "10"}},
         "people_per_batch: 10 times images_per_person 10"},
        {{{"data_dir", "f"}, {"learning_rate", "0"}}, "would learn nothing"},
        {{{"data_dir", "f"},
          {"learning_rate", "-1"},
          {"learning_rate_schedule_file", ""}},
         "there is no learning_rate_schedule_file"},
        {{{"data_dir", "f"}, {"learning_rate", "-1"}}, NULL},
        {{{"data_dir", "f"}, {"harmonic", "true"}}, "needs a pretrained_model"},
        {{{"data_dir", "f"}, {"harmonic", "true"}, {"pretrained_model", "m"}},
         NULL},
        {{{"data_dir", "f"}, {"distill_triplets", "1"}}, "needs distill"},
        {{{"data_dir", "f"}, {"distill_hints", "a=b"}},
         "distill_hints: it needs distill"},
        {{{"data_dir", "f"}, {"distill_mix", "1"}},
         "distill_mix: it needs distill"},
        {{{"distill_triplets", "1"}, {"distill", "t"}, {"distill_mix", "1"}},
         "a blend is nobody's face"},
    };
    struct train_args a;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        train_args_default(&a);
        for (int k = 0; k < 3 && cases[i].set[k][0]; k++)
            assert_int_equal(train_args_set(&a, cases[i].set[k][0],
                                            cases[i].set[k][1], &err),
                             0);
        assert_int_equal(train_args_check(&a, &err), cases[i].says ? -1 : 0);
        if (cases[i].says && !strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_script_is_all_there),
        cmocka_unit_test(every_row_is_sound),
        cmocka_unit_test(a_real_keeps_every_bit),
        cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(flags_need_no_value),
        cmocka_unit_test(together_they_must_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
