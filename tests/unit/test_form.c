/* tests/unit/test_form.c - what a client may write into a request's fields,
 * by each of the three ways in, and what it is told otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/form.h"
#include "daemon/http_priv.h"

static const struct form_field fields[] = {
    {"image1", FORM_IMAGE, NULL},
    {"images", FORM_IMAGES, NULL},
    {"subject", FORM_ID, NULL},
    {"name", FORM_NAME, NULL},
    {"threshold", FORM_DISTANCE, NULL},
    {"limit", FORM_LIMIT, NULL},
    {"faces", FORM_CHOICE, "largest|single"},
    {"metadata", FORM_OBJECT, NULL},
    {NULL, FORM_IMAGE, NULL},
};

static const struct form_field one_image[] = {
    {"image", FORM_IMAGE, NULL},
    {"limit", FORM_LIMIT, NULL},
    {NULL, FORM_IMAGE, NULL},
};

struct fixture {
    struct server server;
    struct request req;
    struct request_part parts[40];
    struct job job;
    struct form form;
    struct error err;
};

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof(*x));

    atomic_store(&x->server.config, config_parse("test", "", 0, NULL));
    x->job.server = &x->server;
    x->job.req = &x->req;
    x->job.error_index = -1;
    *state = x;
    return atomic_load(&x->server.config) ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *x = *state;

    form_fini(&x->form);
    config_free(atomic_load(&x->server.config));
    free(x);
    return 0;
}

static void reset(struct fixture *x)
{
    form_fini(&x->form);
    memset(&x->req, 0, sizeof(x->req));
    memset(&x->err, 0, sizeof(x->err));
    x->job.error_image[0] = '\0';
    x->job.error_index = -1;
}

static int read_json(struct fixture *x, const char *body)
{
    reset(x);
    x->req.kind = BODY_JSON;
    x->req.body = (uint8_t *)(uintptr_t)body;
    x->req.len_body = strlen(body);
    return form_read(&x->job, fields, &x->form, &x->err);
}

static void add_part(struct fixture *x, const char *name, const char *filename,
                     const char *data)
{
    x->req.kind = BODY_MULTIPART;
    x->req.parts = x->parts;
    x->parts[x->req.n_parts++] = (struct request_part){
        .name = name,
        .filename = filename,
        .data = (const uint8_t *)data,
        .len = strlen(data),
    };
}

static int read_part(struct fixture *x, const char *name, const char *filename,
                     const char *data)
{
    reset(x);
    add_part(x, name, filename, data);
    return form_read(&x->job, fields, &x->form, &x->err);
}

static void refused(struct fixture *x, int rc, enum error_code code,
                    const char *says)
{
    assert_int_equal(rc, -1);
    assert_int_equal(x->err.code, code);
    if (!strstr(x->err.text, says))
        fail_msg("'%s' does not say '%s'", x->err.text, says);
}

static void json_values(void **state)
{
    struct fixture *x = *state;
    const struct form *f = &x->form;

    assert_int_equal(
        read_json(x, "{\"subject\":\"ada-1\",\"name\":\"Ada \\u00c4\","
                     "\"threshold\":1.25,\"limit\":100,\"faces\":\"single\","
                     "\"metadata\":{\"a\":[1]},\"image1\":\"aGk=\"}"),
        0);
    assert_string_equal(form_text(f, "subject"), "ada-1");
    assert_string_equal(form_text(f, "name"), "Ada \xc3\x84");
    assert_true(form_number(f, "threshold", 0) == 1.25);
    assert_true(form_number(f, "limit", 0) == 100);
    assert_string_equal(form_text(f, "faces"), "single");
    assert_string_equal(form_text(f, "metadata"), "{\"a\":[1]}");
    assert_int_equal(form_image(f, "image1")->len, 2);
    assert_memory_equal(form_image(f, "image1")->data, "hi", 2);
    assert_int_equal(form_image(f, "image1")->index, -1);
    assert_int_equal(form_need(f, "image1", &x->err), 0);
    refused(x, form_need(f, "images", &x->err), ERR_BAD_FIELD, "'images'");
}

static void json_refused(void **state)
{
    static const struct {
        const char *body;
        enum error_code code;
        const char *says;
    } cases[] = {
        {"{\"image_1\":\"\"}", ERR_BAD_FIELD,
         "no field 'image_1'; did you mean 'image1'"},
        {"{\"zzzzzzzzzzzz\":1}", ERR_BAD_FIELD, "there are: image1 images"},
        {"{\"threshold\":-0.1}", ERR_BAD_FIELD, "'threshold'"},
        {"{\"threshold\":4.1}", ERR_BAD_FIELD, "from 0 to 4"},
        {"{\"threshold\":\"1\"}", ERR_BAD_FIELD, "is a number"},
        {"{\"threshold\":null}", ERR_BAD_FIELD, "is a number"},
        {"{\"threshold\":NaN}", ERR_BAD_JSON, "the body"},
        {"{\"threshold\":1e999}", ERR_BAD_JSON, "the body"},
        {"{\"limit\":0}", ERR_BAD_FIELD, "from 1 to 100"},
        {"{\"limit\":101}", ERR_BAD_FIELD, "from 1 to 100"},
        {"{\"limit\":2.5}", ERR_BAD_FIELD, "whole number"},
        {"{\"limit\":true}", ERR_BAD_FIELD, "is a number"},
        {"{\"faces\":\"all\"}", ERR_BAD_FIELD, "one of largest|single"},
        {"{\"subject\":\"a/b\"}", ERR_BAD_FIELD, "not an id"},
        {"{\"subject\":\"\"}", ERR_BAD_FIELD, "not an id"},
        {"{\"subject\":7}", ERR_BAD_FIELD, "is a text"},
        {"{\"name\":\"a\\u0007b\"}", ERR_BAD_FIELD, "control"},
        {"{\"name\":\"a\\u0000b\"}", ERR_BAD_JSON, "the body"},
        {"{\"name\":\"\xff\"}", ERR_BAD_JSON, "the body"},
        {"{\"metadata\":[1]}", ERR_BAD_FIELD, "JSON object"},
        {"{\"image1\":5}", ERR_BAD_FIELD, "base64"},
        {"{\"image1\":[\"aGk=\"]}", ERR_BAD_FIELD, "base64"},
        {"{\"image1\":\"a\"}", ERR_BAD_BASE64, "image1"},
        {"{\"images\":[]}", ERR_BAD_FIELD, "'images'"},
        {"{\"images\":[\"aGk=\",5]}", ERR_BAD_FIELD, "'images'"},
        {"{\"a\":1,\"a\":2}", ERR_BAD_JSON, "duplicate"},
        {"{\"limit\":1} x", ERR_BAD_JSON, "the body"},
        {"[]", ERR_BAD_JSON, "object"},
        {"", ERR_BAD_JSON, "the body"},
        {"{\"metadata\":{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}",
         ERR_BAD_JSON, "deeper"},
        {"{\"image1\":\"data:image/png,hi\"}", ERR_BAD_BASE64, "data:"},
    };
    struct fixture *x = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(x, read_json(x, cases[i].body), cases[i].code, cases[i].says);
}

static void brackets_in_strings_are_not_depth(void **state)
{
    struct fixture *x = *state;

    assert_int_equal(
        read_json(x, "{\"metadata\":{\"a\":\"[[[[[[[[[[[[[[[[[[[[\\\"[{{\"}}"),
        0);
}

static void base64_names_its_image(void **state)
{
    struct fixture *x = *state;

    refused(x, read_json(x, "{\"images\":[\"aGk=\",\"a!k=\"]}"), ERR_BAD_BASE64,
            "images");
    assert_string_equal(x->job.error_image, "images");
    assert_int_equal(x->job.error_index, 1);
    assert_int_equal(
        read_json(x, "{\"image1\":\"DATA:image/jpeg;base64,aGk=\"}"), 0);
    assert_memory_equal(form_image(&x->form, "image1")->data, "hi", 2);
}

static void numbers_as_text(void **state)
{
    static const char *const bad[] = {"",    " 1",    "1 ",  "+1",    "-1",
                                      "nan", "inf",   "0x1", "1e400", "1,5",
                                      "abc", "1.2.3", "5",   "1e",    "NaN"};
    static const struct {
        const char *text;
        double value;
    } good[] = {{"0", 0}, {"4", 4}, {"1.1", 1.1}, {"1e-3", 1e-3}, {"04", 4}};
    struct fixture *x = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(x, read_part(x, "threshold", NULL, bad[i]), ERR_BAD_FIELD,
                "'threshold' is a number from 0 to 4");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(read_part(x, "threshold", NULL, good[i].text), 0);
        assert_true(form_number(&x->form, "threshold", -1) == good[i].value);
    }
}

static void names_are_clean_utf8(void **state)
{
    static const char *const bad[] = {
        "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "a\nb", "\xc3",     "\x7f",         "\xc2\x85"};
    static const char *const good[] = {"", "Ada <b>[x]</b>",
                                       "\xe6\x97\xa5\xe6\x9c\xac",
                                       "\xf0\x9f\x98\x80", "\xc2\xa0"};
    struct fixture *x = *state;
    char longest[STORE_NAME_MAX + 2];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(x, read_part(x, "name", NULL, bad[i]), ERR_BAD_FIELD, "UTF-8");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(read_part(x, "name", NULL, good[i]), 0);
        assert_string_equal(form_text(&x->form, "name"), good[i]);
    }
    memset(longest, 'n', sizeof(longest));
    longest[STORE_NAME_MAX + 1] = '\0';
    refused(x, read_part(x, "name", NULL, longest), ERR_BAD_FIELD, "256 bytes");
    longest[STORE_NAME_MAX] = '\0';
    assert_int_equal(read_part(x, "name", NULL, longest), 0);
}

static void parts(void **state)
{
    struct fixture *x = *state;

    assert_int_equal(read_part(x, "image1", "a.jpg", "\xff\xd8 bytes"), 0);
    assert_int_equal(form_image(&x->form, "image1")->len, 8);
    assert_int_equal(read_part(x, "image1", "a.jpg", ""), 0); /* decoding's */
    assert_int_equal(form_image(&x->form, "image1")->len, 0);
    assert_int_equal(read_part(x, "image1", NULL, "aGk="), 0); /* base64 */
    assert_memory_equal(form_image(&x->form, "image1")->data, "hi", 2);
    refused(x, read_part(x, "image1", NULL, "photo.jpg"), ERR_BAD_BASE64,
            "-F image1=@FILE");
    assert_string_equal(x->job.error_image, "image1");
    refused(x, read_part(x, "subject", "s.txt", "ada"), ERR_BAD_FIELD,
            "not a file");
    reset(x);
    add_part(x, "subject", NULL, "ada");
    x->parts[0].len = 5;
    x->parts[0].data = (const uint8_t *)"ada\0b";
    refused(x, form_read(&x->job, fields, &x->form, &x->err), ERR_BAD_FIELD,
            "zero byte");
}

static void repeated_parts(void **state)
{
    struct fixture *x = *state;

    reset(x);
    add_part(x, "subject", NULL, "a");
    add_part(x, "subject", NULL, "b");
    refused(x, form_read(&x->job, fields, &x->form, &x->err), ERR_BAD_FIELD,
            "'subject' is given twice");
    reset(x);
    add_part(x, "image1", "1", "x");
    add_part(x, "image1", "2", "y");
    refused(x, form_read(&x->job, fields, &x->form, &x->err), ERR_BAD_FIELD,
            "'image1' is given twice");
    for (int n = FORM_MAX_IMAGES; n <= FORM_MAX_IMAGES + 1; n++) {
        int rc;
        reset(x);
        for (int i = 0; i < n; i++)
            add_part(x, "images", "f", "x");
        rc = form_read(&x->job, fields, &x->form, &x->err);
        assert_int_equal(rc, n > FORM_MAX_IMAGES ? -1 : 0);
        assert_int_equal(x->form.n_images, FORM_MAX_IMAGES);
        assert_int_equal(x->form.images[7].index, 7);
    }
}

static void raw_with_query(void **state)
{
    static uint8_t jpeg[] = {0xff, 0xd8};
    struct fixture *x = *state;
    char name[] = "limit", value[] = "3";

    reset(x);
    x->req.kind = BODY_RAW;
    x->req.body = jpeg;
    x->req.len_body = sizeof(jpeg);
    x->req.query[0].name = name;
    x->req.query[0].value = value;
    x->req.n_query = 1;
    assert_int_equal(form_read(&x->job, one_image, &x->form, &x->err), 0);
    assert_int_equal(form_image(&x->form, "image")->len, 2);
    assert_true(form_number(&x->form, "limit", 0) == 3);
    form_fini(&x->form);
    refused(x, form_read(&x->job, fields, &x->form, &x->err), ERR_MEDIA_TYPE,
            "multipart");
    form_fini(&x->form);
    x->req.kind = BODY_NONE;
    refused(x, form_read(&x->job, one_image, &x->form, &x->err),
            ERR_BAD_REQUEST, "a body");
}

static void digest_tells_requests_apart(void **state)
{
    struct fixture *x = *state;
    uint8_t a[CRYPTO_SHA256_LEN], b[CRYPTO_SHA256_LEN];

    reset(x);
    add_part(x, "subject", NULL, "ab");
    add_part(x, "name", NULL, "c");
    assert_int_equal(form_digest(&x->job, a, &x->err), 0);
    assert_int_equal(form_digest(&x->job, b, &x->err), 0);
    assert_memory_equal(a, b, sizeof(a));
    reset(x);
    add_part(x, "subject", NULL, "a");
    add_part(x, "name", NULL, "bc");
    assert_int_equal(form_digest(&x->job, b, &x->err), 0);
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(json_values),
        TEST(json_refused),
        TEST(brackets_in_strings_are_not_depth),
        TEST(base64_names_its_image),
        TEST(numbers_as_text),
        TEST(names_are_clean_utf8),
        TEST(parts),
        TEST(repeated_parts),
        TEST(raw_with_query),
        TEST(digest_tells_requests_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
