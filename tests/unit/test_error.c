/* tests/unit/test_error.c - the rows of error.def are sane, and the functions
 * that fill an error say what they are told. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/error.h"

#define WIRE_ALPHABET "abcdefghijklmnopqrstuvwxyz0123456789_"

static void test_rows(void **state)
{
    (void)state;
    assert_int_equal(error_status(ERR_NONE), 200);
    assert_false(error_retryable(ERR_NONE));
    for (int i = 1; i < ERR_COUNT; i++) {
        enum error_code code = (enum error_code)i;
        const char *wire = error_wire(code), *title = error_title(code);
        int status = error_status(code);

        assert_true(status >= 400 && status <= 599);
        assert_true(strlen(wire) > 0 && strlen(wire) < 40);
        for (const char *p = wire; *p; p++)
            assert_non_null(strchr(WIRE_ALPHABET, *p));
        assert_true(isupper((unsigned char)title[0]));
        assert_true(title[strlen(title) - 1] != '.');
        /* A plain refusal stays one; "busy" is worth another try. */
        if (status == 503 || status == 429 || status == 408)
            assert_true(error_retryable(code));
        if (status == 400 || status == 404 || status == 415 || status == 422)
            assert_false(error_retryable(code));
        for (int k = 1; k < i; k++)
            assert_string_not_equal(wire, error_wire((enum error_code)k));
    }
}

static void test_fill(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(error_set(&err, ERR_NO_FACE, "photo %d", 2), -1);
    assert_int_equal(err.code, ERR_NO_FACE);
    assert_string_equal(err.text, "photo 2");
    assert_int_equal(error_context(&err, "image%d", 1), -1);
    assert_int_equal(err.code, ERR_NO_FACE);
    assert_string_equal(err.text, "image1: photo 2");
    assert_null(error_null(&err, ERR_NOMEM, "%s", "none"));
    assert_int_equal(err.code, ERR_NOMEM);
    assert_int_equal(error_set(NULL, ERR_NOMEM, "nobody listens"), -1);
    assert_int_equal(error_context(NULL, "nobody"), -1);
}

static void test_long_text_is_cut(void **state)
{
    char text[1000];
    struct error err = {0};

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    error_set(&err, ERR_FILE, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    error_context(&err, "%s", "front");
    assert_int_equal(strncmp(err.text, "front: xxx", 10), 0);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    error_context(&err, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_long_text_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
