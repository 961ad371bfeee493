/* tests/unit/test_keys.c - the file of API keys: what is read, what is
 * refused, who gets which rights, and that edits are whole and private. */
#include "core/base/keys.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* SHA-256 of "abc" and of the empty text (FIPS 180-2, B.1). */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct place {
    char dir[64];
    char path[96];
};

static int make_place(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    const char *tmp = getenv("TMPDIR");

    snprintf(p->dir, sizeof(p->dir), "%s/keys.XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(p->dir))
        return -1;
    snprintf(p->path, sizeof(p->path), "%s/keys", p->dir);
    *state = p;
    return 0;
}

static int remove_place(void **state)
{
    struct place *p = *state;
    int rc;

    unlink(p->path);
    rc = rmdir(p->dir); /* fails where a temporary file was left */
    free(p);
    return rc;
}

static void put(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void get(const char *path, char *buf, size_t len)
{
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    buf[fread(buf, 1, len - 1, f)] = '\0';
    fclose(f);
}

static struct keys *parse(const char *text, struct error *err)
{
    return keys_parse("keys", text, strlen(text), err);
}

static void test_parse(void **state)
{
    struct error err = {0};
    struct keys *keys =
        parse("# who\n\n  door-1:" ABC ":verify,embed \r\nboss:" EMPTY ":admin",
              &err);
    char text[KEYS_RIGHTS_LEN];

    (void)state;
    assert_non_null(keys);
    assert_int_equal(keys_count(keys), 2);
    assert_string_equal(keys_name(keys, 0), "door-1");
    assert_int_equal(keys_rights(keys, 0), KEYS_VERIFY | KEYS_EMBED);
    assert_int_equal(keys_rights(keys, 1), KEYS_ADMIN);
    assert_string_equal(keys_rights_text(keys_rights(keys, 0), text),
                        "verify,embed");
    keys_free(keys);
    keys_free(NULL);
}

static void test_damage(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"door", "keys:1"},
        {"# x\ndoor:" ABC, "keys:2"},
        {"door:" ABC ":", "right 1"},
        {"door:" ABC ":verify,", "right 2"},
        {"door:" ABC ":verify enroll", "right 1"},
        {"door:" ABC ":root", "right 1"},
        {"door:abc:verify", "64 hex digits"},
        {"door:" ABC "0:verify", "64 hex digits"},
        {"door:Ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015"
         "ad:verify",
         "lower-case"},
        {":" ABC ":verify", "the name"},
        {"-a:" ABC ":verify", "the name"},
        {"a b:" ABC ":verify", "the name"},
        {"d\xc3\xbcr:" ABC ":verify", "the name"},
        {"a:" ABC ":verify\nb:" EMPTY ":admin\na:" ABC ":embed",
         "keys:3: a stands on line 1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        assert_null(parse(cases[i].text, &err));
        assert_int_equal(err.code, ERR_CONFIG);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s', not '%s'", i, err.text,
                     cases[i].says);
        /* A secret pasted by mistake stays out of the log. */
        assert_null(strstr(err.text, "ba7816"));
        assert_null(strstr(err.text, "root"));
    }
}

static void test_too_many(void **state)
{
    enum {
        LINE = KEYS_NAME_MAX + 80
    };
    char *text = malloc((size_t)(KEYS_MAX + 1) * LINE);
    size_t used = 0;
    struct error err = {0};

    (void)state;
    for (int i = 0; i <= KEYS_MAX; i++)
        used += (size_t)sprintf(text + used, "k%d:" ABC ":verify\n", i);
    assert_null(keys_parse("keys", text, used, &err));
    assert_non_null(strstr(err.text, "keys:1025: there are more than 1024"));
    free(text);
}

static void test_check(void **state)
{
    struct keys *keys =
        parse("boss:" EMPTY ":admin\ndoor:" ABC ":verify\n", NULL);
    char lengthy[KEYS_SENT_MAX + 2];
    const char *name = "none";
    unsigned rights = 77;

    (void)state;
    assert_non_null(keys);
    assert_true(keys_check(keys, "abc", &rights, &name));
    assert_string_equal(name, "door");
    assert_int_equal(rights, KEYS_VERIFY);
    rights = 77;
    assert_false(keys_check(keys, "abd", &rights, &name));
    assert_false(keys_check(keys, "ab", &rights, &name));
    assert_false(keys_check(keys, "abcd", &rights, &name));
    assert_false(keys_check(keys, ABC, &rights, &name));
    /* No key is not a key, even where its digest stands in the file. */
    assert_false(keys_check(keys, "", &rights, &name));
    assert_false(keys_check(keys, NULL, &rights, &name));
    assert_false(keys_check(NULL, "abc", &rights, &name));
    memset(lengthy, 'a', sizeof(lengthy));
    lengthy[KEYS_SENT_MAX + 1] = '\0';
    assert_false(keys_check(keys, lengthy, &rights, &name));
    assert_int_equal(rights, 77);
    keys_free(keys);
}

static void test_rights(void **state)
{
    static const char *const bad[] = {"",        ",",           "verify,",
                                      ",verify", "Verify",      "verify, embed",
                                      "all",     "verify;embed"};
    struct error err;
    unsigned rights = 0;
    char text[KEYS_RIGHTS_LEN];

    (void)state;
    assert_int_equal(
        keys_rights_parse("embed,admin,enroll,verify,verify", &rights, NULL),
        0);
    assert_int_equal(rights,
                     KEYS_VERIFY | KEYS_ENROLL | KEYS_ADMIN | KEYS_EMBED);
    assert_string_equal(keys_rights_text(rights, text),
                        "verify,enroll,admin,embed");
    assert_string_equal(keys_rights_text(0, text), "");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err.code = ERR_NONE;
        assert_int_equal(keys_rights_parse(bad[i], &rights, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
    }
}

static void test_add_and_remove(void **state)
{
    const struct place *p = *state;
    char one[KEYS_TEXT_LEN + 1], two[KEYS_TEXT_LEN + 1], text[1024];
    struct error err = {0};
    const char *name = NULL;
    unsigned rights = 0;
    struct keys *keys;
    struct stat st;

    assert_int_equal(keys_add(p->path, "boss", KEYS_ADMIN, one, &err), 0);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    get(p->path, text, sizeof(text));
    strcat(text, "# a remark without a newline");
    put(p->path, text, 0600);
    assert_int_equal(keys_add(p->path, "door", KEYS_VERIFY, two, &err), 0);
    assert_int_equal(strlen(two), KEYS_TEXT_LEN);
    assert_memory_equal(two, "fnd_", 4);
    assert_string_not_equal(one, two);

    keys = keys_load(p->path, &err);
    assert_non_null(keys);
    assert_true(keys_check(keys, one, &rights, &name));
    assert_string_equal(name, "boss");
    assert_int_equal(rights,
                     KEYS_VERIFY | KEYS_ENROLL | KEYS_ADMIN | KEYS_EMBED);
    assert_true(keys_check(keys, two, &rights, &name));
    assert_int_equal(rights, KEYS_VERIFY);
    keys_free(keys);
    get(p->path, text, sizeof(text));
    assert_null(strstr(text, one + 4)); /* the key itself is not in there */

    assert_int_equal(keys_add(p->path, "door", KEYS_VERIFY, two, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_int_equal(keys_add(p->path, "a b", KEYS_VERIFY, two, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(keys_add(p->path, "x", 0, two, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(keys_add(p->path, "x", 16, two, &err), -1);

    assert_int_equal(keys_remove(p->path, "boss", &err), 0);
    assert_int_equal(keys_remove(p->path, "boss", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    keys = keys_load(p->path, &err);
    assert_non_null(keys);
    assert_false(keys_check(keys, one, &rights, &name));
    assert_int_equal(keys_count(keys), 1);
    keys_free(keys);
    get(p->path, text, sizeof(text));
    assert_non_null(strstr(text, "# a remark"));
    assert_int_equal(keys_remove(p->path, "door", &err), 0);
}

static void test_symbolic_link(void **state)
{
    const struct place *p = *state;
    char link[sizeof(p->path) + 8], key[KEYS_TEXT_LEN + 1];
    struct stat st;

    snprintf(link, sizeof(link), "%s.link", p->path);
    put(p->path, "", 0600);
    assert_int_equal(symlink(p->path, link), 0);
    assert_int_equal(keys_add(link, "door", KEYS_VERIFY, key, NULL), 0);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    unlink(link);
    assert_int_equal(stat(p->path, &st), 0);
    assert_true(st.st_size > 0);
}

static void test_modes(void **state)
{
    static const mode_t open_modes[] = {0640, 0620, 0604, 0602, 0644};
    const struct place *p = *state;
    struct error err = {0};
    struct keys *keys;

    put(p->path, "door:" ABC ":verify\n", 0400);
    keys = keys_load(p->path, &err);
    assert_non_null(keys);
    keys_free(keys);
    for (size_t i = 0; i < sizeof(open_modes) / sizeof(open_modes[0]); i++) {
        assert_int_equal(chmod(p->path, open_modes[i]), 0);
        assert_null(keys_load(p->path, &err));
        assert_int_equal(err.code, ERR_FILE);
        assert_non_null(strstr(err.text, "chmod 600"));
    }
    /* A credential's modes are systemd's: group yes, world no. */
    setenv("CREDENTIALS_DIRECTORY", p->dir, 1);
    assert_int_equal(chmod(p->path, 0440), 0);
    keys = keys_load(p->path, &err);
    assert_non_null(keys);
    keys_free(keys);
    assert_int_equal(chmod(p->path, 0444), 0);
    assert_null(keys_load(p->path, &err));
    setenv("CREDENTIALS_DIRECTORY", "/nowhere", 1);
    assert_int_equal(chmod(p->path, 0440), 0);
    assert_null(keys_load(p->path, &err));
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void test_no_file(void **state)
{
    const struct place *p = *state;
    struct error err = {0};
    char path[sizeof(p->path) + 8], key[KEYS_TEXT_LEN + 1];

    assert_null(keys_load(p->path, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, p->path));
    assert_null(keys_load(p->dir, &err));
    assert_non_null(strstr(err.text, "regular"));
    snprintf(path, sizeof(path), "%s/no/keys", p->dir);
    assert_int_equal(keys_add(path, "door", KEYS_VERIFY, key, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_int_equal(keys_remove(p->path, "door", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(access(p->path, F_OK), -1);
    /* A damaged file is not edited. */
    put(p->path, "door\n", 0600);
    assert_int_equal(keys_add(p->path, "x", KEYS_VERIFY, key, &err), -1);
    assert_int_equal(err.code, ERR_CONFIG);
    get(p->path, key, sizeof(key));
    assert_string_equal(key, "door\n");
}

enum {
    N_EDITORS = 4,
    N_EACH = 8
};

struct editor {
    const char *path;
    int number, n_failed;
};

static void *edit(void *arg)
{
    struct editor *e = arg;
    char name[32], key[KEYS_TEXT_LEN + 1];

    for (int i = 0; i < N_EACH; i++) {
        snprintf(name, sizeof(name), "k%d-%d", e->number, i);
        e->n_failed += keys_add(e->path, name, KEYS_VERIFY, key, NULL) < 0;
    }
    snprintf(name, sizeof(name), "k%d-0", e->number);
    e->n_failed += keys_remove(e->path, name, NULL) < 0;
    return NULL;
}

/* Editors at the same time lose nothing of each other's. */
static void test_editors(void **state)
{
    const struct place *p = *state;
    struct editor editors[N_EDITORS];
    pthread_t threads[N_EDITORS];
    struct keys *keys;

    for (int i = 0; i < N_EDITORS; i++) {
        editors[i] = (struct editor){p->path, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, edit, &editors[i]),
                         0);
    }
    for (int i = 0; i < N_EDITORS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(editors[i].n_failed, 0);
    }
    keys = keys_load(p->path, NULL);
    assert_non_null(keys);
    assert_int_equal(keys_count(keys), N_EDITORS * (N_EACH - 1));
    keys_free(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_rights),
        cmocka_unit_test_setup_teardown(test_add_and_remove, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(test_symbolic_link, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(test_modes, make_place, remove_place),
        cmocka_unit_test_setup_teardown(test_editors, make_place, remove_place),
        cmocka_unit_test_setup_teardown(test_no_file, make_place, remove_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
