/* daemon/api_openapi.c - GET /openapi.json: OpenAPI 3.1, made from the route
 * table, so that no path, method, argument or right can be missing or
 * invented. daemon/openapi.json brings what the table does not know: the
 * schemas of bodies and answers, found by the operation's name. */
#include "daemon/api.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/base/keys.h"

enum {
    MAX_OPERATION = 96
};

static const char base_text[] = {
#include "openapi.h"
};

/* "GET", "/subjects/{id}/faces" -> "getSubjectsIdFaces" */
static void operation_name(const struct route *r, char out[MAX_OPERATION])
{
    size_t n = 0;
    bool upper = false;

    for (const char *p = r->method; *p && n + 1 < MAX_OPERATION; p++)
        out[n++] = (char)tolower((unsigned char)*p);
    for (const char *p = r->path; *p && n + 1 < MAX_OPERATION; p++) {
        if (!isalnum((unsigned char)*p)) {
            upper = true;
            continue;
        }
        out[n++] = (char)(upper ? toupper((unsigned char)*p) : *p);
        upper = false;
    }
    out[n] = '\0';
}

/* {"$ref": "#/components/KIND/NAME"}; NULL: no memory. */
static json_t *reference(const char *kind, const char *name)
{
    return json_pack("{s:o}", "$ref",
                     json_sprintf("#/components/%s/%s", kind, name));
}

static bool has(json_t *doc, const char *kind, const char *name)
{
    json_t *components = json_object_get(doc, "components");

    return json_object_get(json_object_get(components, kind), name) != NULL;
}

/* The {names} of the path and the query arguments, each a reference to
 * components/parameters. */
static json_t *parameters(const struct route *r)
{
    json_t *list = json_array();
    char name[MAX_OPERATION];
    const char *p = r->path;

    while (list && (p = strchr(p, '{'))) {
        size_t n = strcspn(++p, "}");
        /* /faces/{id} and /admin/jobs/{id} differ in the kind of id. */
        const char *of = p - 2;
        while (of[-1] != '/')
            of--;
        snprintf(name, sizeof(name), "path-%.*s-%.*s", (int)strcspn(of, "/"),
                 of, (int)n, p);
        if (json_array_append_new(list, reference("parameters", name)) < 0)
            goto fail;
    }
    for (p = r->query; list && p && *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        snprintf(name, sizeof(name), "query-%.*s", (int)n, p);
        if (json_array_append_new(list, reference("parameters", name)) < 0)
            goto fail;
        p += n;
    }
    return list;
fail:
    json_decref(list);
    return NULL;
}

static int add_problem(json_t *responses, const char *status)
{
    return json_object_set_new(responses, status,
                               reference("responses", "problem"));
}

/* Statuses of a request that worked, where they are not 200 alone; also may be
 * NULL. */
static void successes(const struct route *r, const char **first,
                      const char **also)
{
    static const struct {
        const char *method, *path, *first, *also;
    } others[] = {
        {"POST", "/enroll", "201", NULL},
        {"POST", "/admin/models", "201", "200"},
        {"POST", "/admin/finetune", "202", NULL},
        {"DELETE", "/admin/jobs/{id}", "200", "202"},
        {"POST", "/admin/jobs/{id}/resume", "202", NULL},
        {"POST", "/admin/models/{id}/activate", "202", NULL},
        {"POST", "/admin/models/rollback", "200", "202"},
    };

    *first = "200";
    *also = NULL;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(r->method, others[i].method) != 0 ||
            strcmp(r->path, others[i].path) != 0)
            continue;
        *first = others[i].first;
        *also = others[i].also;
    }
}

static int add_success(json_t *responses, const struct route *r,
                       const char *status, const char *operation)
{
    bool text = strcmp(r->path, "/metrics") == 0;

    return json_object_set_new(
        responses, status,
        json_pack("{s:s, s:{s:{s:o}}}", "description", r->summary, "content",
                  text ? "text/plain" : "application/json", "schema",
                  reference("schemas", operation)));
}

/* Requests that change what is kept, and so may conflict with it or find the
 * disk full. */
static int add_kept(json_t *responses, const struct route *r)
{
    bool admin = strncmp(r->path, "/admin/", 7) == 0;

    if (!(admin && strcmp(r->method, "GET") != 0) &&
        strcmp(r->path, "/enroll") != 0)
        return 0;
    if (strcmp(r->path, "/admin/finetune") != 0 &&
        add_problem(responses, "409") != 0)
        return -1;
    return add_problem(responses, "507");
}

static json_t *responses(const struct route *r, const char *operation)
{
    static const char *const always[] = {"400", "408", "431", "500", "503"};
    static const char *const keyed[] = {"401", "403", "429"};
    static const char *const bodied[] = {"411", "413", "415"};
    const char *first, *also;
    json_t *o = json_object();
    int rc = 0;

    if (!o)
        return NULL;
    successes(r, &first, &also);
    rc |= add_success(o, r, first, operation);
    if (also)
        rc |= add_success(o, r, also, operation);
    for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        rc |= add_problem(o, always[i]);
    for (size_t i = 0; r->rights && i < sizeof(keyed) / sizeof(keyed[0]); i++)
        rc |= add_problem(o, keyed[i]);
    for (size_t i = 0; r->max_body && i < sizeof(bodied) / sizeof(bodied[0]);
         i++)
        rc |= add_problem(o, bodied[i]);
    if (strchr(r->path, '{') || r->max_body)
        rc |= add_problem(o, "404");
    if (r->prepare || r->max_body == ROUTE_MODEL_BODY)
        rc |= add_problem(o, "422");
    rc |= add_kept(o, r);
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* "Right: verify." in words, for people who read the document. */
static json_t *rights_text(unsigned rights)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{KEYS_VERIFY, "verify"},
                 {KEYS_ENROLL, "enroll"},
                 {KEYS_EMBED, "embed"},
                 {KEYS_ADMIN, "admin"}};
    char text[96] = "";

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t n = strlen(text);
        if (rights & names[i].bit)
            snprintf(text + n, sizeof(text) - n, "%s%s", n ? " or " : "",
                     names[i].name);
    }
    if (!rights)
        return json_string("Open to all.");
    return json_sprintf("Needs a key with the right %s%s.", text,
                        rights & KEYS_ADMIN ? "" : " or admin");
}

static json_t *operation_json(json_t *doc, const struct route *r)
{
    char name[MAX_OPERATION];
    json_t *o;
    int rc = 0;

    operation_name(r, name);
    o = json_pack("{s:s, s:s, s:o, s:o, s:o}", "operationId", name, "summary",
                  r->summary, "description", rights_text(r->rights),
                  "parameters", parameters(r), "responses", responses(r, name));
    if (!o)
        return NULL;
    if (has(doc, "requestBodies", name))
        rc |= json_object_set_new(o, "requestBody",
                                  reference("requestBodies", name));
    if (strcmp(r->path, "/enroll") == 0)
        rc |= json_array_append_new(
            json_object_get(o, "parameters"),
            reference("parameters", "header-Idempotency-Key"));
    if (!r->rights)
        rc |= json_object_set_new(o, "security", json_array());
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int add_route(json_t *doc, json_t *paths, const struct route *r)
{
    char method[16];
    json_t *path = json_object_get(paths, r->path);
    size_t n = 0;

    for (; r->method[n] && n + 1 < sizeof(method); n++)
        method[n] = (char)tolower((unsigned char)r->method[n]);
    method[n] = '\0';
    if (!path) {
        path = json_object();
        if (json_object_set_new(paths, r->path, path) < 0)
            return -1;
    }
    return json_object_set_new(path, method, operation_json(doc, r));
}

/* The document; NULL: no memory. */
static json_t *document(void)
{
    json_t *doc = json_loadb(base_text, strlen(base_text), 0, NULL);
    json_t *info = json_object_get(doc, "info");
    json_t *paths = json_object();

    if (!doc || !paths ||
        json_object_set_new(info, "version", json_string(FACENETD_VERSION)) < 0)
        goto fail;
    for (const struct route *r = route_table; r->method; r++)
        if (add_route(doc, paths, r) < 0)
            goto fail;
    if (json_object_set(doc, "paths", paths) < 0)
        goto fail;
    json_decref(paths);
    return doc;
fail:
    json_decref(paths);
    json_decref(doc);
    return NULL;
}

int api_openapi(struct job *job, struct error *err)
{
    json_t *doc = document();

    if (!doc)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, 200, doc);
    return 0;
}
