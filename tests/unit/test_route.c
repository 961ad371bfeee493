/* tests/unit/test_route.c - the table of endpoints is sound, paths match it
 * exactly, and problems read as RFC 9457 says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/route.h"

static void rows_are_whole(void **state)
{
    int n = 0;

    (void)state;
    for (const struct route *r = route_table; r->method; r++, n++) {
        assert_int_equal(r->path[0], '/');
        assert_non_null(r->finish);
        assert_non_null(r->query);
        assert_true(strlen(r->summary) > 0);
        if (strcmp(r->method, "GET") == 0 || strcmp(r->method, "DELETE") == 0)
            assert_int_equal(r->max_body, 0);
        else if (!strstr(r->path, "{id}/")) /* those say it all in the path */
            assert_true(r->max_body > 0);
        assert_true(!r->now || !r->prepare);
        for (const struct route *o = route_table; o != r; o++)
            assert_false(strcmp(o->method, r->method) == 0 &&
                         strcmp(o->path, r->path) == 0);
    }
    assert_true(n >= 20);
}

/* Only health is open to all; embeddings, and erasing a whole gallery, are
 * rights of their own. */
static void rights_are_as_told(void **state)
{
    (void)state;
    for (const struct route *r = route_table; r->method; r++) {
        bool health = strcmp(r->path, "/healthz") == 0 ||
                      strcmp(r->path, "/readyz") == 0 ||
                      strncmp(r->path, "/v2/health/", 11) == 0;
        assert_int_equal(r->rights == 0, health);
        assert_int_equal(r->now, health);
        if (strcmp(r->path, "/embed") == 0)
            assert_int_equal(r->rights, KEYS_EMBED);
        if (strcmp(r->method, "DELETE") == 0 &&
            strncmp(r->path, "/galleries", 10) == 0)
            assert_int_equal(r->rights, KEYS_ADMIN);
        if (strncmp(r->path, "/admin/", 7) == 0)
            assert_int_equal(r->rights, KEYS_ADMIN);
    }
}

static void allow_names_every_method(void **state)
{
    (void)state;
    for (const struct route *r = route_table; r->method; r++) {
        char all[64] = "";
        for (const struct route *o = route_table; o->method; o++) {
            if (strcmp(o->path, r->path) != 0)
                continue;
            if (*all)
                strcat(all, ", ");
            strcat(all, o->method);
        }
        assert_string_equal(r->allow, all);
    }
}

static void paths_match_exactly(void **state)
{
    static const struct {
        const char *method, *path, *row;
        enum error_code code;
    } cases[] = {
        {"POST", "/verify", "/verify", ERR_NONE},
        {"GET", "/verify", NULL, ERR_METHOD},
        {"post", "/verify", NULL, ERR_METHOD},
        {"POST", "/verify/", NULL, ERR_NOT_FOUND},
        {"POST", "//verify", NULL, ERR_NOT_FOUND},
        {"POST", "/Verify", NULL, ERR_NOT_FOUND},
        {"POST", "verify", NULL, ERR_NOT_FOUND},
        {"POST", "", NULL, ERR_NOT_FOUND},
        {"GET", "/", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects", "/subjects", ERR_NONE},
        {"GET", "/subjects/", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects/ada", "/subjects/{id}", ERR_NONE},
        {"DELETE", "/subjects/ada", "/subjects/{id}", ERR_NONE},
        {"PUT", "/subjects/ada", NULL, ERR_METHOD},
        {"GET", "/subjects/ada/faces", "/subjects/{id}/faces", ERR_NONE},
        {"GET", "/subjects/ada/face", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects/ada/faces/1", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects/..", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects/a%2fb", NULL, ERR_NOT_FOUND},
        {"GET", "/subjects/-a", NULL, ERR_NOT_FOUND},
        {"GET", "/faces/12", "/faces/{id}", ERR_NONE},
        {"GET", "/v2/health/live", "/v2/health/live", ERR_NONE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1] = {{0}};
        struct error err = {.code = ERR_NONE};
        const char *allow;
        const struct route *r =
            route_match(cases[i].method, cases[i].path, args, &allow, &err);

        if (!cases[i].row) {
            assert_null(r);
            assert_int_equal(err.code, cases[i].code);
            assert_int_equal(allow != NULL, err.code == ERR_METHOD);
            continue;
        }
        assert_non_null(r);
        assert_string_equal(r->path, cases[i].row);
        assert_string_equal(r->method, cases[i].method);
    }
}

static void ids_come_out_of_paths(void **state)
{
    char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1], path[128], id[80];
    const char *allow;

    (void)state;
    assert_non_null(
        route_match("GET", "/subjects/Ada.L-1_x/faces", args, &allow, NULL));
    assert_string_equal(args[0], "Ada.L-1_x");
    for (int len = STORE_ID_MAX; len <= STORE_ID_MAX + 1; len++) {
        memset(id, 'a', (size_t)len);
        id[len] = '\0';
        snprintf(path, sizeof(path), "/subjects/%s", id);
        assert_int_equal(route_match("GET", path, args, &allow, NULL) != NULL,
                         len == STORE_ID_MAX);
    }
}

static void nearest_names(void **state)
{
    static const struct {
        const char *name, *names, *near;
    } cases[] = {
        {"image_1", "image1 image2 subject", "image1"},
        {"img1", "image1 image2 subject", "image1"},
        {"Subject", "image1 subject", "subject"},
        {"larg", "largest|single", "largest"},
        {"zzzzzzzz", "image1 image2", NULL},
        {"x", "", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int len = -1;
        const char *near = route_nearest(cases[i].name, cases[i].names, &len);
        if (!cases[i].near) {
            assert_null(near);
            continue;
        }
        assert_non_null(near);
        assert_int_equal(len, strlen(cases[i].near));
        assert_memory_equal(near, cases[i].near, (size_t)len);
    }
}

static const char *text_of(const json_t *doc, const char *name)
{
    return json_string_value(json_object_get(doc, name));
}

static void problem_is_rfc_9457(void **state)
{
    struct error err;
    char *text;
    json_t *doc;

    (void)state;
    error_set(&err, ERR_NO_FACE, "image2: no \"face\"\n");
    text = problem_text(&err, "image2", 3, "0123");
    assert_non_null(text);
    doc = json_loads(text, 0, NULL);
    assert_non_null(doc);
    assert_string_equal(text_of(doc, "type"), "urn:facenetd:error:no_face");
    assert_string_equal(text_of(doc, "title"), error_title(ERR_NO_FACE));
    assert_string_equal(text_of(doc, "detail"), "image2: no \"face\"\n");
    assert_string_equal(text_of(doc, "code"), "no_face");
    assert_string_equal(text_of(doc, "image"), "image2");
    assert_string_equal(text_of(doc, "request_id"), "0123");
    assert_int_equal(json_integer_value(json_object_get(doc, "status")), 422);
    assert_int_equal(json_integer_value(json_object_get(doc, "index")), 3);
    assert_true(json_is_false(json_object_get(doc, "retryable")));
    json_decref(doc);
    free(text);
}

/* Every code makes a document; what is not known is left out; a text that is
 * not UTF-8 does not cost the document. */
static void problem_of_every_code(void **state)
{
    (void)state;
    for (int code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        struct error err = {.code = (enum error_code)code, .text = "cut \xc3"};
        char *text = problem_text(&err, "", -1, NULL);
        json_t *doc = text ? json_loads(text, 0, NULL) : NULL;

        assert_non_null(doc);
        assert_null(json_object_get(doc, "image"));
        assert_null(json_object_get(doc, "index"));
        assert_null(json_object_get(doc, "request_id"));
        assert_string_equal(text_of(doc, "detail"), error_title(err.code));
        assert_in_range(json_integer_value(json_object_get(doc, "status")), 400,
                        599);
        json_decref(doc);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_whole),
        cmocka_unit_test(rights_are_as_told),
        cmocka_unit_test(allow_names_every_method),
        cmocka_unit_test(paths_match_exactly),
        cmocka_unit_test(ids_come_out_of_paths),
        cmocka_unit_test(nearest_names),
        cmocka_unit_test(problem_is_rfc_9457),
        cmocka_unit_test(problem_of_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
