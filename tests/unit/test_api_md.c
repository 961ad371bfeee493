/* tests/unit/test_api_md.c - api.md, the route table, error.def, the settings
 * and the OpenAPI document say the same. Run from the project's root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/base/error.h"
#include "daemon/route.h"

static const char openapi_text[] = {
#include "openapi.h"
};

static char *page;

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "re");
    char *text;
    long len;

    if (!f)
        return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    len = ftell(f);
    rewind(f);
    text = calloc(1, (size_t)len + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)len, f), (size_t)len);
    fclose(f);
    return text;
}

static int setup(void **state)
{
    (void)state;
    page = read_all("api.md");
    if (!page)
        fprintf(stderr, "api.md is not here: run from the project's root\n");
    return page ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(page);
    return 0;
}

/* The text of a route's section, malloc'd; NULL: there is none. */
static char *section(const char *method, const char *path)
{
    char head[160];
    const char *from, *to;

    snprintf(head, sizeof(head), "\n### %s %s\n", method, path);
    from = strstr(page, head);
    if (!from || strstr(from + 1, head))
        return NULL; /* none, or two */
    to = strstr(from + 1, "\n##");
    return to ? strndup(from, (size_t)(to - from)) : strdup(from);
}

static void every_route_has_a_section(void **state)
{
    (void)state;
    for (const struct route *r = route_table; r->method; r++) {
        char *text = section(r->method, r->path);
        if (!text)
            fail_msg("api.md has no single section '### %s %s'", r->method,
                     r->path);
        if (!strstr(text, "curl "))
            fail_msg("%s %s: no curl line", r->method, r->path);
        free(text);
    }
}

static void every_section_is_a_route(void **state)
{
    (void)state;
    for (const char *p = page; (p = strstr(p, "\n### ")); p++) {
        char method[16], path[96];
        bool found = false;
        assert_int_equal(sscanf(p, "\n### %15s %95s", method, path), 2);
        for (const struct route *r = route_table; r->method; r++)
            found |= !strcmp(r->method, method) && !strcmp(r->path, path);
        if (!found)
            fail_msg("api.md tells of %s %s, which is no route", method, path);
    }
}

static void every_argument_is_named(void **state)
{
    (void)state;
    for (const struct route *r = route_table; r->method; r++) {
        char *text = section(r->method, r->path);
        assert_non_null(text);
        for (const char *p = r->query; *p;) {
            size_t n = strcspn(p, " ");
            char quoted[64];
            snprintf(quoted, sizeof(quoted), "`%.*s`", (int)n, p);
            if (!strstr(text, quoted))
                fail_msg("%s %s: the argument %s is not told", r->method,
                         r->path, quoted);
            p += n + strspn(p + n, " ");
        }
        free(text);
    }
}

static void every_error_has_its_row(void **state)
{
    const char *table;
    int n_rows = 0;

    (void)state;
    for (int code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        char row[256];
        snprintf(row, sizeof(row), "\n| %d | `%s` | %s | %s |\n",
                 error_status((enum error_code)code),
                 error_wire((enum error_code)code),
                 error_retryable((enum error_code)code) ? "yes" : "no",
                 error_title((enum error_code)code));
        if (!strstr(page, row))
            fail_msg("api.md lacks the row%s", row);
    }
    table = strstr(page, "| status | code |");
    assert_non_null(table);
    for (const char *p = table; (p = strchr(p, '\n')) && p[1] == '|'; p++)
        n_rows++;
    assert_int_equal(n_rows, ERR_COUNT - 1 + 1); /* and the ruled line */
}

static void every_setting_exists(void **state)
{
    static const char *const keys[] = {
#define KEY_SECTION(title)
#define KEY_INT(name, key, def, min, max, reload, help) key,
#define KEY_SIZE(name, key, def, min, max, reload, help) key,
#define KEY_REAL(name, key, def, min, max, reload, help) key,
#define KEY_BOOL(name, key, def, reload, help) key,
#define KEY_TEXT(name, key, def, reload, help) key,
#define KEY_CHOICE(name, key, def, choices, reload, help) key,
#include "config/keys.def"
    };
    const char *p = strstr(page, "| setting | default |");

    (void)state;
    assert_non_null(p);
    while ((p = strstr(p, "\n| `"))) {
        const char *end = strstr(p + 3, " |");
        assert_non_null(end);
        for (p += 3; p < end; p += strcspn(p, "`") + 1) {
            size_t n;
            bool found = false;
            p = strchr(p, '`');
            if (!p || p > end)
                break;
            n = strcspn(++p, "`");
            for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
                found |= strlen(keys[i]) == n && !strncmp(keys[i], p, n);
            if (!found)
                fail_msg("api.md tells of the setting %.*s, which is none",
                         (int)n, p);
        }
        p = end;
    }
}

/* Every example of an answer is JSON. */
static void every_example_parses(void **state)
{
    int n = 0;

    (void)state;
    for (const char *p = page; (p = strstr(p, "```json\n")); n++) {
        const char *end = strstr(p += strlen("```json\n"), "\n```");
        json_error_t why;
        json_t *root;
        assert_non_null(end);
        root = json_loadb(p, (size_t)(end - p), 0, &why);
        if (!root)
            fail_msg("an example is not JSON: %s near %.60s", why.text, p);
        json_decref(root);
    }
    assert_true(n >= 10);
}

static void openapi_knows_every_body(void **state)
{
    json_t *doc = json_loads(openapi_text, JSON_REJECT_DUPLICATES, NULL);
    json_t *components = json_object_get(doc, "components");
    json_t *bodies = json_object_get(components, "requestBodies");
    json_t *parameters = json_object_get(components, "parameters");

    (void)state;
    assert_non_null(doc);
    for (const struct route *r = route_table; r->method; r++) {
        char *text = section(r->method, r->path);
        assert_non_null(text);
        for (const char *p = r->query; *p;) {
            size_t n = strcspn(p, " ");
            char name[64];
            snprintf(name, sizeof(name), "query-%.*s", (int)n, p);
            if (!json_object_get(parameters, name))
                fail_msg("daemon/openapi.json lacks parameters/%s", name);
            p += n + strspn(p + n, " ");
        }
        free(text);
    }
    assert_true(json_object_size(bodies) >= 6);
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_has_a_section),
        cmocka_unit_test(every_section_is_a_route),
        cmocka_unit_test(every_argument_is_named),
        cmocka_unit_test(every_error_has_its_row),
        cmocka_unit_test(every_setting_exists),
        cmocka_unit_test(every_example_parses),
        cmocka_unit_test(openapi_knows_every_body),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
