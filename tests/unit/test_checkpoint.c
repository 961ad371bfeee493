/* tests/unit/test_checkpoint.c - what is saved comes back; every kind of
 * damage is refused by name; a full disk leaves the last good one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/train/checkpoint.h"

enum {
    N_WEIGHTS = 1000
};

static char root[] = "/tmp/test_checkpoint.XXXXXX";
static char dir[300];
static float weights[N_WEIGHTS];
static long long step;
static const struct checkpoint_part parts[] = {
    {"weights", weights, sizeof(weights)},
    {"step", &step, sizeof(step)},
};

static void fill(int with)
{
    for (int i = 0; i < N_WEIGHTS; i++)
        weights[i] = (float)(i * with) * 0.25f;
    step = with;
}

static void save(long long at)
{
    struct error err;

    fill((int)at);
    assert_int_equal(
        checkpoint_save(dir, at, parts, 2, CHECKPOINT_KEEP, NULL, &err), 0);
}

static bool there(long long at)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/checkpoint-%lld", dir, at);
    return access(path, F_OK) == 0;
}

/* Every test has a folder of its own. */
static int new_dir(void **state)
{
    static int n;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/%d", root, n++);
    return mkdir(dir, 0700);
}

static void it_comes_back(void **state)
{
    struct error err;
    char path[CHECKPOINT_MAX_PATH];

    (void)state;
    fill(7);
    assert_int_equal(checkpoint_save(dir, 7, parts, 2, 3, path, &err), 0);
    fill(0);
    assert_int_equal(checkpoint_load(path, parts, 2, &err), 0);
    assert_int_equal(step, 7);
    for (int i = 0; i < N_WEIGHTS; i++)
        assert_true(weights[i] == (float)(i * 7) * 0.25f);
}

/* By step, not by the order of the digits or of writing. */
static void the_last_three_stay(void **state)
{
    struct error err;
    char path[CHECKPOINT_MAX_PATH];

    (void)state;
    assert_int_equal(checkpoint_newest(dir, -1, path, &err), -1);
    assert_non_null(strstr(err.text, "no checkpoint"));
    save(5);
    save(90);
    save(100);
    save(1000);
    assert_false(there(5));
    assert_true(there(90) && there(100) && there(1000));
    assert_int_equal(checkpoint_newest(dir, -1, path, &err), 1000);
    assert_int_equal(checkpoint_newest(dir, 1000, path, &err), 100);
    assert_int_equal(checkpoint_load(path, parts, 2, &err), 0);
    assert_int_equal(step, 100);
}

/* A run that goes on from an earlier checkpoint keeps its own. */
static void later_ones_push_nothing_out(void **state)
{
    (void)state;
    for (long long i = 1; i <= 3; i++)
        save(i * 1000);
    save(10);
    assert_true(there(10));
    for (long long i = 11; i <= 13; i++)
        save(i);
    assert_false(there(10));
    assert_true(there(11) && there(12) && there(13));
    assert_true(there(1000) && there(2000) && there(3000));
}

static void damage_at(long at, bool cut)
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof(path), "%s/checkpoint-%d", dir, 20);
    if (cut) {
        assert_int_equal(truncate(path, at), 0);
        return;
    }
    f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void damage_is_named(void **state)
{
    static const struct {
        long at; /* negative: from the end */
        bool cut;
        const char *says;
    } cases[] = {
        {0, false, "this is no checkpoint"},
        {20, false, "head is damaged"},
        {60, false, "head is damaged"},
        {-100, false, "damaged in weights"},
        {-1, false, "damaged in step"},
        {-1, true, "cut off in step"},
        {-2000, true, "cut off in weights"},
        {40, true, "cut off in its head"},
        {3, true, "this is no checkpoint"},
        {0, true, "this is no checkpoint"},
    };
    struct error err;
    struct stat st;
    char path[400];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        save(10);
        save(20);
        snprintf(path, sizeof(path), "%s/checkpoint-20", dir);
        assert_int_equal(stat(path, &st), 0);
        damage_at(cases[i].at < 0 ? st.st_size + cases[i].at : cases[i].at,
                  cases[i].cut);
        assert_int_equal(checkpoint_load(path, parts, 2, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%zu: %s", i, err.text);
        assert_non_null(strstr(err.text, "checkpoint-20"));
        assert_non_null(strstr(err.text, "before it there is checkpoint-10"));
    }
}

static void every_bit_counts(void **state)
{
    struct error err;
    struct stat st;
    char path[400];

    (void)state;
    save(20);
    snprintf(path, sizeof(path), "%s/checkpoint-20", dir);
    assert_int_equal(stat(path, &st), 0);
    for (long at = 0; at < st.st_size; at++) {
        damage_at(at, false);
        if (checkpoint_load(path, parts, 2, &err) == 0)
            fail_msg("a changed byte at %ld went unseen", at);
        damage_at(at, false); /* back */
    }
    assert_int_equal(checkpoint_load(path, parts, 2, &err), 0);
}

static void another_run_is_refused(void **state)
{
    struct error err;
    char path[CHECKPOINT_MAX_PATH];
    struct checkpoint_part other[3];

    (void)state;
    save(20);
    assert_int_equal(checkpoint_newest(dir, -1, path, &err), 20);
    memcpy(other, parts, sizeof(parts));
    other[0].len -= 4;
    assert_int_equal(checkpoint_load(path, other, 2, &err), -1);
    assert_non_null(strstr(err.text, "another size"));
    assert_non_null(strstr(err.text, "weights"));
    other[0] = parts[0];
    other[1].name = "epoch";
    assert_int_equal(checkpoint_load(path, other, 2, &err), -1);
    assert_non_null(strstr(err.text, "lacks the part epoch"));
    assert_int_equal(checkpoint_load(path, parts, 1, &err), -1);
    assert_non_null(strstr(err.text, "another kind"));
    assert_int_equal(checkpoint_load("/nonexistent/x", parts, 2, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
}

static void a_full_disk_loses_nothing(void **state)
{
    struct error err;
    struct rlimit old, tight;
    char path[CHECKPOINT_MAX_PATH];

    (void)state;
    save(10);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 2000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    fill(20);
    assert_int_equal(checkpoint_save(dir, 20, parts, 2, 1, NULL, &err), -1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err.code, ERR_STORAGE_FULL);
    assert_int_equal(checkpoint_newest(dir, -1, path, &err), 10);
    assert_int_equal(checkpoint_load(path, parts, 2, &err), 0);
    assert_int_equal(step, 10);
    snprintf(path, sizeof(path), "%s/checkpoint-20.new", dir);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(
        checkpoint_save("/nonexistent", 1, parts, 2, 1, NULL, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    char cmd[80];

    (void)state;
    snprintf(cmd, sizeof(cmd), "rm -r %s", root);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_comes_back, new_dir),
        cmocka_unit_test_setup(the_last_three_stay, new_dir),
        cmocka_unit_test_setup(later_ones_push_nothing_out, new_dir),
        cmocka_unit_test_setup(damage_is_named, new_dir),
        cmocka_unit_test_setup(every_bit_counts, new_dir),
        cmocka_unit_test_setup(another_run_is_refused, new_dir),
        cmocka_unit_test_setup(a_full_disk_loses_nothing, new_dir),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
