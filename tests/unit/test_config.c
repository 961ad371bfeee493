/* tests/unit/test_config.c - every key of keys.def through file and command
 * line, what is refused and how it is said, and that facenetd.conf and the
 * man pages name every key with its default. */
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum kind {
    SECTION,
    INT,
    SIZE,
    REAL,
    BOOL,
    TEXT,
    CHOICE
};

struct row {
    enum kind kind;
    const char *key;
    double def, min, max;
    const char *text, *choices;
    const char *reload;
    size_t offset;
};

/* clang-format off */
static const struct row rows[] = {
#define OFF(n) .offset = offsetof(struct config, n)
#define KEY_SECTION(title) {.kind = SECTION, .key = title},
#define KEY_INT(n, k, d, lo, hi, r, h) {.kind = INT, .key = k, .def = d, .min = lo, .max = hi, .reload = #r, OFF(n)},
#define KEY_SIZE(n, k, d, lo, hi, r, h) {.kind = SIZE, .key = k, .def = (double)(d), .min = (double)(lo), .max = (double)(hi), .reload = #r, OFF(n)},
#define KEY_REAL(n, k, d, lo, hi, r, h) {.kind = REAL, .key = k, .def = d, .min = lo, .max = hi, .reload = #r, OFF(n)},
#define KEY_BOOL(n, k, d, r, h) {.kind = BOOL, .key = k, .def = d, .reload = #r, OFF(n)},
#define KEY_TEXT(n, k, d, r, h) {.kind = TEXT, .key = k, .text = d, .reload = #r, OFF(n)},
#define KEY_CHOICE(n, k, d, c, r, h) {.kind = CHOICE, .key = k, .text = d, .choices = c, .reload = #r, OFF(n)},
#include "config/keys.def"
};
/* clang-format on */

enum {
    N_ROWS = sizeof(rows) / sizeof(rows[0])
};

static double number(const struct config *c, const struct row *r)
{
    const char *at = (const char *)c + r->offset;

    if (r->kind == REAL)
        return *(const double *)at;
    if (r->kind == BOOL)
        return *(const bool *)at;
    return (double)*(const int64_t *)at;
}

static const char *text(const struct config *c, const struct row *r)
{
    return *(char *const *)((const char *)c + r->offset);
}

static bool is_text(const struct row *r)
{
    return r->kind == TEXT || r->kind == CHOICE;
}

static struct config *from_file(const char *body, struct error *err)
{
    return config_parse("a.conf", body, strlen(body), err);
}

/* Options as words separated by blanks. */
static struct config *from_options(const char *words, struct error *err)
{
    char copy[256], *save = NULL;
    char *argv[16] = {"facenetd"};
    int argc = 1;

    assert_true(strlen(words) < sizeof(copy));
    strcpy(copy, words);
    for (char *w = strtok_r(copy, " ", &save); w;
         w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    return config_load(NULL, argc, argv, err);
}

static void assert_same(const struct config *a, const struct config *b)
{
    for (int i = 0; i < N_ROWS; i++) {
        if (rows[i].kind == SECTION)
            continue;
        if (is_text(&rows[i]) ? strcmp(text(a, &rows[i]), text(b, &rows[i]))
                              : number(a, &rows[i]) != number(b, &rows[i]))
            fail_msg("%s differs", rows[i].key);
    }
}

static void test_defaults(void **state)
{
    struct error err = {0};
    struct config *c = from_options("", &err);

    (void)state;
    assert_non_null(c);
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if (r->kind == SECTION)
            continue;
        if (is_text(r)) {
            assert_string_equal(text(c, r), r->text);
        } else {
            assert_true(number(c, r) == r->def);
            if (r->kind != BOOL)
                assert_in_range(r->def * 1000, r->min * 1000, r->max * 1000);
        }
    }
    config_free(c);
    config_free(NULL);
}

/* A value other than the default, as text. */
static void other_value(const struct row *r, char *buf, size_t len)
{
    double v = r->def == r->min ? r->max : r->min;

    switch (r->kind) {
    case REAL:
        snprintf(buf, len, "%g", v);
        break;
    case BOOL:
        snprintf(buf, len, "%s", r->def != 0 ? "off" : "on");
        break;
    case CHOICE:
        snprintf(buf, len, "%s", strrchr(r->choices, '|') + 1);
        break;
    case TEXT:
        snprintf(buf, len, "some/text");
        break;
    default:
        snprintf(buf, len, "%.0f", v);
    }
}

/* Whether c holds for r what other_value said. */
static bool has_other(const struct config *c, const struct row *r)
{
    char want[64];

    other_value(r, want, sizeof(want));
    if (is_text(r))
        return strcmp(text(c, r), want) == 0;
    return number(c, r) == (r->kind == BOOL    ? !r->def
                            : r->def == r->min ? r->max
                                               : r->min);
}

/* What else must be set for a key at its other value to be allowed. */
static const char *companion(const char *key)
{
    static const char *const pairs[][2] = {
        {"tls-cert", "tls-key = x"},
        {"tls-key", "tls-cert = x"},
        {"max-body", "max-image-bytes = 1K"},
        {"max-buffered", "max-image-bytes = 1K\nmax-body = 64K"},
        {"max-image-side", "min-image-side = 1"},
        {"queue-faces", "batch-max = 1"},
        {"min-image-side", "max-image-side = 65535"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (strcmp(pairs[i][0], key) == 0)
            return pairs[i][1];
    return "";
}

static void test_every_key_in_file(void **state)
{
    (void)state;
    for (int i = 0; i < N_ROWS; i++) {
        char value[64], body[256];
        struct error err = {0};
        struct config *c;

        if (rows[i].kind == SECTION)
            continue;
        other_value(&rows[i], value, sizeof(value));
        snprintf(body, sizeof(body), "%s\n\t%s=  %s  # why\r\n",
                 companion(rows[i].key), rows[i].key, value);
        c = from_file(body, &err);
        if (!c)
            fail_msg("%s: %s", rows[i].key, err.text);
        else if (!has_other(c, &rows[i]))
            fail_msg("%s did not take %s", rows[i].key, value);
        config_free(c);
    }
}

static void test_every_key_as_option(void **state)
{
    for (int i = 0; i < 2 * N_ROWS; i++) {
        const struct row *r = &rows[i / 2];
        char value[64], file[64], word[128], path[] = "/tmp/config.XXXXXX";
        char *argv[] = {"facenetd", word, value, NULL};
        struct error err = {0};
        struct config *c;
        FILE *f;

        (void)state;
        if (r->kind == SECTION)
            continue;
        other_value(r, value, sizeof(value));
        snprintf(word, sizeof(word), i % 2 ? "--%s=%s" : "--%s", r->key, value);
        /* The file says something else where it can: the option wins. */
        snprintf(file, sizeof(file), "%s", companion(r->key));
        f = fdopen(mkstemp(path), "w");
        assert_non_null(f);
        fprintf(f, "%s\n", file);
        if (r->kind == BOOL)
            fprintf(f, "%s = %s\n", r->key, r->def != 0 ? "on" : "off");
        fclose(f);
        c = config_load(path, i % 2 ? 2 : 3, argv, &err);
        unlink(path);
        if (!c)
            fail_msg("--%s: %s", r->key, err.text);
        else if (!has_other(c, r))
            fail_msg("--%s did not take %s", r->key, value);
        config_free(c);
    }
}

static void test_ranges(void **state)
{
    (void)state;
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        double step = r->kind == REAL ? 0.001 : 1;

        if (r->kind != INT && r->kind != SIZE && r->kind != REAL)
            continue;
        for (int side = 0; side < 2; side++) {
            struct error err = {0};
            char body[128];
            double v = side ? r->max + step : r->min - step;
            snprintf(body, sizeof(body), "%s = %.15g\n", r->key, v);
            if (from_file(body, &err))
                fail_msg("%s takes %g", r->key, v);
            assert_int_equal(err.code, ERR_CONFIG);
            assert_non_null(strstr(err.text, "a.conf:1: "));
            assert_non_null(strstr(err.text, r->key));
            assert_non_null(strstr(err.text, " from "));
        }
    }
}

static void test_bad_values(void **state)
{
    static const char *const bad[] = {
        "threads = ",
        "threads = 1x",
        "threads = 0x10",
        "threads = 1.0",
        "threads = +1",
        "threads = 1 2",
        "threads = 1K",
        "threads = nan",
        "threads = -",
        "threads = 99999999999999999999",
        "threads = -99999999999999999",
        "max-body = 28MB",
        "max-body = M",
        "max-body = 9999999999999G",
        "max-body = 28 M",
        "max-body = 1e6",
        "max-body = -9223372036854775808K",
        "threshold = nan",
        "threshold = inf",
        "threshold = 1,1",
        "threshold = 0x1p0",
        "threshold = -0.1",
        "threshold = ",
        "threshold = 1e999",
        "threshold = .",
        "threshold = 1.1.1",
        "keep-crops = 1",
        "keep-crops = ON",
        "keep-crops = ",
        "keep-crops = onn",
        "durability = ",
        "durability = Full",
        "durability = full|relaxed",
        "durability = ful",
        "durability = fullx",
        "data-dir = \"a\tb\"",
        "data-dir = \"a",
        "data-dir = 'a",
        "data-dir = \"a\" b",
        "data-dir = \"a\\",
        "data-dir",
        "= a",
        "[server]",
        "data dir = a",
        "DATA-DIR = a",
        "threads = 1\nthreads = 1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {0};
        if (from_file(bad[i], &err))
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(err.code, ERR_CONFIG);
        assert_memory_equal(err.text, "a.conf:", 7);
    }
    assert_null(config_parse("a.conf", "data-dir = a\0b", 14, NULL));
}

static void test_long_input(void **state)
{
    size_t len = 8000;
    char *body = malloc(len + 1);
    struct error err = {0};

    (void)state;
    memset(body, 'a', len);
    memcpy(body, "data-dir = ", 11);
    assert_null(config_parse("a.conf", body, len, &err));
    assert_non_null(strstr(err.text, "data-dir: the value is over 4095"));
    body[20] = '=';
    memset(body, 'k', 20);
    assert_null(config_parse("a.conf", body, len, &err));
    assert_non_null(strstr(err.text, "unknown key 'kkkkkkkk"));
    memset(body, '\x1b', len);
    assert_null(config_parse("a.conf", body, len, &err));
    assert_null(strchr(err.text, '\x1b'));
    free(body);
}

static void test_forms(void **state)
{
    struct error err = {0};
    struct config *c = from_file("\n  # a comment\n"
                                 "data-dir = \"/a b/#1 \\\"x\\\" \\\\\" # why\n"
                                 "models='/c\\d # e'\n"
                                 "model = net#1\n"
                                 "crop-key-file =\n"
                                 "keys-file = \"\"\n"
                                 "keep-crops = no\n"
                                 "max-image-bytes = 6m\n"
                                 "threshold = 1.25e0",
                                 &err);

    (void)state;
    if (!c)
        fail_msg("%s", err.text);
    assert_string_equal(c->data_dir, "/a b/#1 \"x\" \\");
    assert_string_equal(c->models, "/c\\d # e");
    assert_string_equal(c->model, "net#1");
    assert_string_equal(c->crop_key_file, "");
    assert_string_equal(c->keys_file, "");
    assert_false(c->keep_crops);
    assert_int_equal(c->max_image_bytes, 6 * MIB);
    assert_true(c->threshold == 1.25);
    config_free(c);
}

static void test_switches(void **state)
{
    static const struct {
        const char *words;
        bool on;
    } cases[] = {
        {"--keep-crops", true},
        {"--no-keep-crops", false},
        {"--keep-crops off", false},
        {"--keep-crops=false", false},
        {"--no-keep-crops --keep-crops --model m", true},
        {"--keep-crops off --keep-crops=yes", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        struct config *c = from_options(cases[i].words, &err);
        if (!c)
            fail_msg("%s: %s", cases[i].words, err.text);
        assert_int_equal(c->keep_crops, cases[i].on);
        config_free(c);
    }
}

static void test_usage_errors(void **state)
{
    static const struct {
        const char *words, *says;
    } cases[] = {
        {"--data-dri x", "did you mean --data-dir?"},
        {"--max-conn 3", "did you mean --max-connections?"},
        {"--tresh=1", "did you mean --threads?"},
        {"--tresholds=1", "did you mean --threshold?"},
        {"--data_dir x", "did you mean --data-dir?"},
        {"--data-dir", "--data-dir needs a value"},
        {"--data-dir --model m", "--data-dir needs a value"},
        {"--threads 1x", "option --threads: threads takes"},
        {"--no-threads", "write --threads VALUE"},
        {"--no-keep-crops=on", "write --keep-crops VALUE"},
        {"--no-such", "unknown option '--no-such'"},
        {"-h", "--help"},
        {"data", "'data' is not an option"},
        {"--", "unknown option '--'"},
        {"--config", "--config needs a file"},
        {"--config=", "--config needs a file"},
        {"--keep-crops maybe", "on or off, not 'maybe'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        if (from_options(cases[i].words, &err))
            fail_msg("'%s' was taken", cases[i].words);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' says '%s'", cases[i].words, err.text);
    }
}

static void test_unknown_key(void **state)
{
    struct error err = {0};

    (void)state;
    assert_null(from_file("# x\nkeepcrops = on\n", &err));
    assert_string_equal(
        err.text,
        "a.conf:2: unknown key 'keepcrops'; did you mean keep-crops?");
}

static void test_together(void **state)
{
    static const char *const bad[] = {
        "tls-cert = a",           "tls-key = a",
        "max-body = 1M",          "max-buffered = 1M",
        "min-image-side = 60000", "queue-faces = 8",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {0};
        if (from_file(bad[i], &err))
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(err.code, ERR_CONFIG);
    }
}

static void test_command(void **state)
{
    char *argv[] = {"facenetd",     "--data-dir",     "x", "--config", "a.conf",
                    "--keep-crops", "--print-config", NULL};
    char *bad[] = {"facenetd", "--config", "--help"};
    struct config_command cmd;
    struct error err = {0};
    struct config *c;

    (void)state;
    assert_int_equal(config_command(7, argv, &cmd, &err), 0);
    assert_int_equal(cmd.action, CONFIG_PRINT);
    assert_string_equal(cmd.path, "a.conf");
    c = config_load(NULL, 7, argv, &err);
    assert_non_null(c);
    assert_string_equal(c->data_dir, "x");
    config_free(c);
    assert_int_equal(config_command(3, argv, &cmd, &err), 0);
    assert_int_equal(cmd.action, CONFIG_RUN);
    assert_null(cmd.path);
    assert_int_equal(config_command(3, bad, &cmd, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(config_command(0, argv, &cmd, &err), 0);
}

static void test_no_file(void **state)
{
    char *argv[] = {"facenetd"};
    struct error err = {0};

    (void)state;
    assert_null(config_load("/nowhere/facenetd.conf", 1, argv, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, "/nowhere/facenetd.conf"));
    assert_null(config_load("/tmp", 1, argv, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_null(config_load("/dev/zero", 1, argv, &err));
    assert_int_equal(err.code, ERR_CONFIG);
}

static void test_print_loads_back(void **state)
{
    struct config *c = from_file("data-dir = '/a \"b\" \\ # c'\n"
                                 "threshold = 0.1\n"
                                 "detect-factor = 0.70710678118654752\n"
                                 "max-body = 29360129\n"
                                 "keep-crops = off\n",
                                 NULL);
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);
    struct error err = {0};
    struct config *back;

    (void)state;
    config_print(c, f);
    fclose(f);
    back = config_parse("printed", out, len, &err);
    if (!back)
        fail_msg("%s", err.text);
    assert_same(c, back);
    assert_non_null(strstr(out, "max-image-bytes = 10M\n"));
    free(out);
    config_free(back);
    config_free(c);
}

static void test_help(void **state)
{
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);

    (void)state;
    config_print_help(f);
    fclose(f);
    for (int i = 0; i < N_ROWS; i++) {
        char want[80];
        snprintf(want, sizeof(want), rows[i].kind == SECTION ? "%s\n" : "--%s ",
                 rows[i].key);
        if (!strstr(out, want))
            fail_msg("--help lacks %s", rows[i].key);
    }
    free(out);
}

static void test_reload(void **state)
{
    struct config *running = from_file("", NULL);
    char names[64];

    (void)state;
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        bool reload = r->reload && strcmp(r->reload, "RELOAD") == 0;
        char value[64], body[256];
        struct config *next;

        if (r->kind == SECTION)
            continue;
        other_value(r, value, sizeof(value));
        snprintf(body, sizeof(body), "%s\n%s = %s\n", companion(r->key), r->key,
                 value);
        next = from_file(body, NULL);
        assert_non_null(next);
        if (reload) {
            assert_int_equal(
                config_need_restart(running, next, names, sizeof(names)), 0);
            assert_string_equal(names, "");
        } else {
            assert_true(
                config_need_restart(running, next, names, sizeof(names)) > 0);
            assert_non_null(strstr(names, r->key));
        }
        assert_int_equal(config_keep_restart(next, running, NULL), 0);
        assert_int_equal(has_other(next, r), reload);
        assert_int_equal(config_need_restart(running, next, names, 3), 0);
        config_free(next);
    }
    config_free(running);
}

/* --- what a person reads ---------------------------------------------- */

/* The tree's files are found from the root, where tests are run. */
static char *slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    char *buf = calloc(1, 1 << 18);
    size_t len;

    if (!f)
        fail_msg("%s is missing (run tests in the root)", path);
    len = fread(buf, 1, (1 << 18) - 1, f);
    assert_true(len > 0 && len < (1 << 18) - 1);
    fclose(f);
    return buf;
}

/* Replace "@PREFIX@", as make install does. */
static void put_prefix(const char *in, char *out)
{
    for (const char *at; (at = strstr(in, "@PREFIX@")); in = at + 8) {
        memcpy(out, in, (size_t)(at - in));
        out += at - in;
        out = stpcpy(out, PREFIX);
    }
    strcpy(out, in);
}

/* facenetd.conf with every "#key = value" line switched on. */
static void test_conf_in_tree(void **state)
{
    char *body = slurp("config/facenetd.conf");
    char *live = calloc(1, 1 << 19);
    struct error err = {0};
    struct config *defaults = from_file("", NULL), *c;

    (void)state;
    c = from_file(body, &err);
    if (!c)
        fail_msg("%s", err.text);
    assert_same(c, defaults);
    config_free(c);
    put_prefix(body, live);
    for (int i = 0; i < N_ROWS; i++) {
        char line[80], *at;
        if (rows[i].kind == SECTION)
            continue;
        snprintf(line, sizeof(line), "\n#%s = ", rows[i].key);
        at = strstr(live, line);
        if (!at)
            fail_msg("facenetd.conf lacks %s", rows[i].key);
        else
            at[1] = ' ';
    }
    c = config_parse("config/facenetd.conf", live, strlen(live), &err);
    if (!c)
        fail_msg("%s", err.text);
    assert_same(c, defaults);
    config_free(c);
    config_free(defaults);
    free(live);
    free(body);
}

/* "max-body" as roff writes it: "max\-body". */
static void roff(const char *in, char *out)
{
    for (; *in; in++) {
        if (*in == '-')
            *out++ = '\\';
        *out++ = *in;
    }
    *out = '\0';
}

static void test_man_pages(void **state)
{
    char *conf = slurp("man/facenetd.conf.5"), *page = slurp("man/facenetd.8");

    (void)state;
    for (int i = 0; i < N_ROWS; i++) {
        char key[96], want[128];
        if (rows[i].kind == SECTION)
            continue;
        roff(rows[i].key, key);
        snprintf(want, sizeof(want), "\n.B %s = ", key);
        if (!strstr(conf, want))
            fail_msg("facenetd.conf.5 lacks %s", rows[i].key);
        snprintf(want, sizeof(want), " \\-\\-%s \"", key);
        if (!strstr(page, want))
            fail_msg("facenetd.8 lacks --%s", rows[i].key);
    }
    free(conf);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_key_in_file),
        cmocka_unit_test(test_every_key_as_option),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_long_input),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_unknown_key),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_print_loads_back),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_conf_in_tree),
        cmocka_unit_test(test_man_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
