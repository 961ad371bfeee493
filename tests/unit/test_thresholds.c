/* tests/unit/test_thresholds.c - thresholds put in force for a model: before
 * the contract's, kept over a restart, taken back; files that are damaged,
 * disks that refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/thresholds.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static char dir[] = "/tmp/facenetd-thresholds-XXXXXX";

static const char *file(void)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/thresholds.json", dir);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file());
    return rmdir(dir); /* fails if a part file was left behind */
}

static struct thresholds *open_table(void)
{
    struct error err = {0};
    struct thresholds *t = thresholds_open(dir, &err);

    if (!t)
        fail_msg("%s", err.text);
    return t;
}

static void check(struct thresholds *t, const struct model *m, bool own,
                  const char *rates)
{
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    char got[256] = "";
    bool is_own;
    int n = thresholds_of(t, m, rows, &is_own);

    for (int i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%g:%g",
                 i ? " " : "", rows[i].far, rows[i].threshold);
    assert_string_equal(got, rates);
    assert_int_equal(is_own, own);
}

static const struct model contract = {
    .id = ID_A,
    .contract = {.thresholds = {{1e-1, 1.7, 3000, 300},
                                {1e-2, 1.5, 3000, 30},
                                {1e-3, 1.4, 3000, 3}},
                 .n_thresholds = 3}};

static void test_in_force(void **state)
{
    static const struct model_threshold one[] = {{1e-2, 1.45, 9000, 90}};
    /* what strangers are told apart by here is less than the contract's 1e-3 */
    static const struct model_threshold strict[] = {{5e-2, 1.3, 9000, 450}};
    struct thresholds *t = open_table();
    struct model other = contract;
    struct error err = {0};

    (void)state;
    memset(other.id, 'b', 64);
    check(t, &contract, false, "0.1:1.7 0.01:1.5 0.001:1.4");
    assert_int_equal(access(file(), F_OK), -1);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(thresholds_apply(t, ID_A, one, 1, &err), 0);
        check(t, &contract, true, "0.01:1.45 0.1:1.7 0.001:1.4");
        check(t, &other, pass == 1,
              pass ? "0.05:1.3 0.1:1.7" : "0.1:1.7 0.01:1.5 0.001:1.4");
        assert_int_equal(thresholds_apply(t, other.id, strict, 1, &err), 0);
        check(t, &other, true, "0.05:1.3 0.1:1.7");
        thresholds_close(t);
        t = open_table();
        check(t, &contract, true, "0.01:1.45 0.1:1.7 0.001:1.4");
        check(t, &other, true, "0.05:1.3 0.1:1.7");
        assert_int_equal(thresholds_apply(t, ID_A, NULL, 0, &err), 0);
        check(t, &contract, false, "0.1:1.7 0.01:1.5 0.001:1.4");
        check(t, &other, true, "0.05:1.3 0.1:1.7");
        assert_int_equal(thresholds_apply(t, ID_A, NULL, 0, &err), 0);
    }
    thresholds_close(t);
}

static void test_full(void **state)
{
    static const struct model_threshold one[] = {{1e-2, 1.45, 9000, 90}};
    struct thresholds *t = open_table();
    struct error err = {0};
    struct model m = contract;

    (void)state;
    for (int i = 0; i < THRESHOLDS_MAX_MODELS; i++) {
        snprintf(m.id, sizeof(m.id), "%064x", (unsigned)i);
        assert_int_equal(thresholds_apply(t, m.id, one, 1, &err), 0);
    }
    assert_int_equal(thresholds_apply(t, ID_A, one, 1, &err), -1);
    assert_int_equal(err.code, ERR_QUOTA);
    assert_int_equal(thresholds_apply(t, ID_A, NULL, 0, &err), 0);
    assert_int_equal(thresholds_apply(t, ID_A, one, 1, &err), -1);
    assert_int_equal(thresholds_apply(t, m.id, NULL, 0, &err), 0);
    assert_int_equal(thresholds_apply(t, ID_A, one, 1, &err), 0);
    thresholds_close(t);
    t = open_table();
    check(t, &contract, true, "0.01:1.45 0.1:1.7 0.001:1.4");
    thresholds_close(t);
}

/* Where the file cannot be written nothing changes. */
static void test_no_disk(void **state)
{
    static const struct model_threshold one[] = {{1e-2, 1.45, 9000, 90}};
    struct thresholds *t = open_table();
    struct error err = {0};

    (void)state;
    assert_int_equal(mkdir(file(), 0700), 0);
    assert_int_equal(thresholds_apply(t, ID_A, one, 1, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, "thresholds.json"));
    check(t, &contract, false, "0.1:1.7 0.01:1.5 0.001:1.4");
    assert_int_equal(rmdir(file()), 0);
    thresholds_close(t);
}

static void test_damaged(void **state)
{
#define ROW(text) "{\"models\": {\"" ID_A "\": [" text "]}}"
#define GOOD                                                                   \
    "{\"far\": 0.01, \"threshold\": 1.5, \"pairs\": 30, \"accepted\": 3}"
    static const char *const good = ROW(GOOD);
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"models\": []}",
        "{\"models\": {\"abc\": [" GOOD "]}}",
        "{\"models\": {\"" ID_A "\": {}}}",
        ROW(""),
        ROW("1"),
        ROW(GOOD "," GOOD),
        ROW("{\"far\": 0.01, \"threshold\": 1.5, \"pairs\": 30}"),
        ROW("{\"far\": 0, \"threshold\": 1.5, \"pairs\": 30, \"accepted\": 3}"),
        ROW("{\"far\": 1, \"threshold\": 1.5, \"pairs\": 30, \"accepted\": 3}"),
        ROW("{\"far\": 0.1, \"threshold\": 4.1, \"pairs\": 30, "
            "\"accepted\": 3}"),
        ROW("{\"far\": 0.1, \"threshold\": -1, \"pairs\": 30, "
            "\"accepted\": 3}"),
        ROW("{\"far\": 0.1, \"threshold\": 1, \"pairs\": 3, \"accepted\": 4}"),
        ROW("{\"far\": 0.1, \"threshold\": \"1\", \"pairs\": 3, "
            "\"accepted\": 1}"),
        ROW("{\"far\": 0.1, \"threshold\": 1, \"pairs\": 3, \"accepted\": 1, "
            "\"more\": 1}"),
    };

    (void)state;
    for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        bool is_good = i == sizeof(bad) / sizeof(bad[0]);
        struct error err = {0};
        FILE *f = fopen(file(), "w");
        struct thresholds *t;
        assert_non_null(f);
        fputs(is_good ? good : bad[i], f);
        fclose(f);
        t = thresholds_open(dir, &err);
        if (is_good)
            assert_non_null(t);
        else if (t)
            fail_msg("%s was accepted", bad[i]);
        else
            assert_int_equal(err.code, ERR_CONFIG);
        if (!is_good)
            assert_non_null(strstr(err.text, "thresholds.json"));
        thresholds_close(t);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {TEST(test_in_force), TEST(test_full),
                                       TEST(test_no_disk), TEST(test_damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
