/* daemon/route.c - the endpoints, and what is decided about a request when
 * its headers are there: is there such a path, may this caller use it, is
 * there room. Everything that is not in the table is refused. */
#include "daemon/route.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/api.h"
#include "daemon/log.h"

#define ANY_KEY (KEYS_VERIFY | KEYS_ENROLL | KEYS_EMBED)
#define PAGED "gallery limit after"

enum {
    MODEL_FRAME = 4096 /* of a multipart body around the model */
};

/* clang-format off */
const struct route route_table[] = {
    {"POST", "/verify", "POST", KEYS_VERIFY, false, SIZE_MAX,
     api_verify_prepare, api_verify_finish, "threshold far faces gallery subject",
     "Do two photos, or a photo and a subject, show one person?"},
    {"POST", "/enroll", "POST", KEYS_ENROLL, false, SIZE_MAX,
     api_enroll_prepare, api_enroll_finish, "subject gallery name faces",
     "Store faces of a subject"},
    {"POST", "/identify", "POST", KEYS_VERIFY, false, SIZE_MAX,
     api_identify_prepare, api_identify_finish,
     "limit threshold far gallery faces", "Who of a gallery is in the photo?"},
    {"POST", "/detect", "POST", KEYS_VERIFY | KEYS_ENROLL, false, SIZE_MAX,
     api_detect_prepare, api_detect_finish, "", "Find the faces of a photo"},
    {"POST", "/embed", "POST", KEYS_EMBED, false, SIZE_MAX,
     api_embed_prepare, api_embed_finish, "faces",
     "The embeddings of a photo's faces"},
    {"GET", "/subjects", "GET", KEYS_ENROLL, false, 0, NULL,
     api_subjects_list, PAGED, "List subjects"},
    {"GET", "/subjects/{id}", "GET, PATCH, DELETE", KEYS_ENROLL, false, 0,
     NULL, api_subjects_get, "gallery", "One subject"},
    {"PATCH", "/subjects/{id}", "GET, PATCH, DELETE", KEYS_ENROLL, false,
     ROUTE_SMALL_BODY, NULL, api_subjects_patch, "gallery",
     "Change a subject's name or metadata"},
    {"DELETE", "/subjects/{id}", "GET, PATCH, DELETE", KEYS_ENROLL, false, 0,
     NULL, api_subjects_remove, "gallery", "Erase a subject"},
    {"GET", "/subjects/{id}/faces", "GET", KEYS_ENROLL, false, 0, NULL,
     api_subject_faces, PAGED, "List a subject's faces"},
    {"GET", "/faces/{id}", "GET, DELETE", KEYS_ENROLL, false, 0, NULL,
     api_face_get, "", "One face"},
    {"DELETE", "/faces/{id}", "GET, DELETE", KEYS_ENROLL, false, 0, NULL,
     api_face_remove, "", "Erase a face"},
    {"GET", "/galleries", "GET", KEYS_ENROLL, false, 0, NULL,
     api_galleries_list, "limit after", "List galleries"},
    {"GET", "/galleries/{id}", "GET, DELETE", KEYS_ENROLL, false, 0, NULL,
     api_galleries_get, "", "One gallery"},
    {"DELETE", "/galleries/{id}", "GET, DELETE", KEYS_ADMIN, false, 0, NULL,
     api_galleries_remove, "", "Erase a gallery with all its subjects"},
    {"GET", "/admin/models", "GET, POST", KEYS_ADMIN, false, 0, NULL,
     api_admin_models, "", "The embedding models that can serve"},
    {"POST", "/admin/models", "GET, POST", KEYS_ADMIN, false,
     ROUTE_MODEL_BODY, NULL, api_admin_models_add, "",
     "Upload a model, checked before it is kept"},
    {"POST", "/admin/finetune", "POST", KEYS_ADMIN, false, ROUTE_SMALL_BODY,
     NULL, api_finetune, "", "Train the model on your own faces, as a job"},
    {"GET", "/admin/jobs", "GET", KEYS_ADMIN, false, 0, NULL, api_jobs_list,
     "limit after", "List training jobs, the latest first"},
    {"GET", "/admin/jobs/{id}", "GET, DELETE", KEYS_ADMIN, false, 0, NULL,
     api_jobs_get, "", "One training job, with its progress"},
    {"DELETE", "/admin/jobs/{id}", "GET, DELETE", KEYS_ADMIN, false, 0, NULL,
     api_jobs_remove, "purge", "Cancel a training job, or remove an ended one"},
    {"POST", "/admin/jobs/{id}/resume", "POST", KEYS_ADMIN, false, 0, NULL,
     api_jobs_resume, "", "Go on with a job from its last checkpoint"},
    {"POST", "/admin/calibrate", "POST, DELETE", KEYS_ADMIN, false,
     ROUTE_SMALL_BODY, NULL, api_calibrate, "",
     "Measure thresholds on the faces of a gallery"},
    {"DELETE", "/admin/calibrate", "POST, DELETE", KEYS_ADMIN, false, 0, NULL,
     api_calibrate_remove, "", "Take the model's own thresholds again"},
    {"POST", "/admin/models/rollback", "POST", KEYS_ADMIN, false,
     ROUTE_SMALL_BODY, NULL, api_admin_models_rollback, "",
     "Back to the model that was active before"},
    {"GET", "/admin/models/{id}", "GET, DELETE", KEYS_ADMIN, false, 0, NULL,
     api_admin_models_get, "", "One model, and what it has embedded"},
    {"DELETE", "/admin/models/{id}", "GET, DELETE", KEYS_ADMIN, false, 0,
     NULL, api_admin_models_remove, "",
     "Remove a kept model with its embeddings"},
    {"POST", "/admin/models/{id}/activate", "POST, DELETE", KEYS_ADMIN, false,
     ROUTE_SMALL_BODY, NULL, api_admin_models_activate, "",
     "Embed every face with a model, then let it answer"},
    {"DELETE", "/admin/models/{id}/activate", "POST, DELETE", KEYS_ADMIN,
     false, 0, NULL, api_admin_models_cancel, "", "Give an activation up"},
    {"GET", "/admin/models/{id}/missing", "GET", KEYS_ADMIN, false, 0, NULL,
     api_admin_models_missing, "limit after",
     "Faces that a model cannot embed, as they have no crop"},
    {"GET", "/models", "GET", ANY_KEY, false, 0, NULL, api_models, "",
     "The models in use"},
    {"GET", "/info", "GET", ANY_KEY, false, 0, NULL, api_info, "",
     "Version, device, limits"},
    {"GET", "/metrics", "GET", ANY_KEY, false, 0, NULL, api_metrics, "",
     "Counters in Prometheus's text format"},
    {"GET", "/openapi.json", "GET", ANY_KEY, false, 0, NULL, api_openapi, "",
     "This interface as OpenAPI"},
    {"GET", "/healthz", "GET", 0, true, 0, NULL, api_healthz, "",
     "Does the process live?"},
    {"GET", "/readyz", "GET", 0, true, 0, NULL, api_readyz, "",
     "Does it take requests?"},
    {"GET", "/v2/health/live", "GET", 0, true, 0, NULL, api_healthz, "",
     "As /healthz, where KServe's clients look"},
    {"GET", "/v2/health/ready", "GET", 0, true, 0, NULL, api_readyz, "",
     "As /readyz, where KServe's clients look"},
    {.method = NULL},
};
/* clang-format on */

/* --- names that are nearly right --------------------------------------- */

enum {
    NAME_MAX_LEN = 40
};

static int smallest(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits between two short texts; NAME_MAX_LEN when one is long. */
static int edits(const char *a, int len_a, const char *b, int len_b)
{
    int row[NAME_MAX_LEN + 1];

    if (len_a > NAME_MAX_LEN || len_b > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    for (int j = 0; j <= len_b; j++)
        row[j] = j;
    for (int i = 1; i <= len_a; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= len_b; j++) {
            int cost = tolower((unsigned char)a[i - 1]) !=
                       tolower((unsigned char)b[j - 1]);
            int next = smallest(row[j] + 1, row[j - 1] + 1, diagonal + cost);
            diagonal = row[j];
            row[j] = next;
        }
    }
    return row[len_b];
}

const char *route_nearest(const char *name, const char *names, int *len)
{
    const char *best = NULL;
    int len_name = (int)strnlen(name, NAME_MAX_LEN + 1);
    int least = len_name / 2 + 2;

    while (*names) {
        int n = (int)strcspn(names, " |");
        int d = n ? edits(name, len_name, names, n) : least;
        if (d < least) {
            least = d;
            best = names;
            *len = n;
        }
        names += n + (names[n] != '\0');
    }
    return best;
}

/* --- paths ------------------------------------------------------------- */

/* Does path fit the row's pattern? */
static bool path_fits(const char *pattern, const char *path,
                      char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1])
{
    int n_args = 0;

    while (*pattern) {
        size_t len;
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        len = strcspn(path, "/");
        if (n_args == ROUTE_MAX_ARGS || len > STORE_ID_MAX)
            return false;
        memcpy(args[n_args], path, len);
        args[n_args][len] = '\0';
        if (!store_id_valid(args[n_args++]))
            return false;
        path += len;
        pattern += strcspn(pattern, "}") + 1;
    }
    return *path == '\0';
}

static void not_found(const char *path, struct error *err)
{
    const struct route *best = NULL;
    int least = 4, len = (int)strnlen(path, NAME_MAX_LEN + 1);

    for (const struct route *r = route_table; r->method; r++) {
        int d = edits(path, len, r->path, (int)strlen(r->path));
        if (d < least) {
            least = d;
            best = r;
        }
    }
    if (best)
        error_set(err, ERR_NOT_FOUND,
                  "there is nothing at this path; did you mean %s?",
                  best->path);
    else
        error_set(err, ERR_NOT_FOUND,
                  "there is nothing at this path; GET /openapi.json lists "
                  "what there is");
}

const struct route *route_match(const char *method, const char *path,
                                char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1],
                                const char **allow, struct error *err)
{
    *allow = NULL;
    for (const struct route *r = route_table; r->method; r++) {
        if (!path_fits(r->path, path, args))
            continue;
        if (strcmp(method, r->method) == 0)
            return r;
        *allow = r->allow;
    }
    if (*allow)
        error_set(err, ERR_METHOD, "this path takes %s", *allow);
    else
        not_found(path, err);
    return NULL;
}

/* --- problems ---------------------------------------------------------- */

char *problem_text(const struct error *err, const char *image, int index,
                   const char *request_id)
{
    const char *code = error_wire(err->code);
    char type[64];
    char *text = NULL;
    json_t *doc;
    int rc;

    snprintf(type, sizeof(type), "urn:facenetd:error:%s", code);
    doc = json_pack("{s:s, s:s, s:i, s:s, s:b}", "type", type, "title",
                    error_title(err->code), "status", error_status(err->code),
                    "code", code, "retryable", error_retryable(err->code));
    if (!doc)
        return NULL;
    /* A text that was cut inside a character, or quotes bytes that are no
     * UTF-8, must not cost the client its answer. */
    rc = json_object_set_new(doc, "detail", json_string(err->text));
    if (rc != 0)
        rc = json_object_set_new(doc, "detail",
                                 json_string(error_title(err->code)));
    if (image && *image)
        rc |= json_object_set_new(doc, "image", json_string(image));
    if (index >= 0)
        rc |= json_object_set_new(doc, "index", json_integer(index));
    if (request_id)
        rc |= json_object_set_new(doc, "request_id", json_string(request_id));
    if (rc == 0)
        text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    return text;
}

/* --- admission --------------------------------------------------------- */

/* "Host: localhost:8080", "127.0.0.1", "[::1]:8080". */
static bool host_is_local(const char *host)
{
    size_t len;

    if (!host)
        return false;
    if (strncmp(host, "[::1]", 5) == 0)
        return host[5] == '\0' || host[5] == ':';
    len = strcspn(host, ":");
    if (len == 9 && strncasecmp(host, "localhost", 9) == 0)
        return true;
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == len;
}

/* Without keys, whoever can reach the loopback address has every right; so a
 * web page that someone on this machine looks at must not be able to: its
 * requests carry an Origin, or after DNS rebinding a foreign Host. */
static int admit_keyless(struct server *s, struct request *req,
                         unsigned *rights, struct error *err)
{
    const struct config *config = atomic_load(&s->config);
    const char *peer = request_peer(req);

    if (!config->loopback_without_keys || !request_peer_loopback(req))
        return error_set(err, ERR_UNAUTHORIZED,
                         "no keys are set up (setting keys-file)");
    if (request_header(req, "Origin"))
        return error_set(err, ERR_FORBIDDEN,
                         "web pages are served only where keys are set up");
    if (peer && strpbrk(peer, ".:") &&
        !host_is_local(request_header(req, "Host")))
        return error_set(err, ERR_FORBIDDEN,
                         "without keys the Host must be localhost or a "
                         "loopback address");
    *rights = KEYS_VERIFY | KEYS_ENROLL | KEYS_ADMIN | KEYS_EMBED;
    return 0;
}

/* The key that the request brings, or NULL. */
static const char *sent_key(const struct request *req)
{
    const char *value = request_header(req, "Authorization");

    if (value && strncasecmp(value, "Bearer ", 7) == 0) {
        value += 7;
        return value + strspn(value, " ");
    }
    return request_header(req, "X-Api-Key");
}

static void add_seconds(struct request *req, int seconds)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", seconds);
    request_add_header(req, "Retry-After", text);
}

/* key: a wrong one, or NULL. */
static int refuse_key(struct server *s, struct request *req, const char *key,
                      struct error *err)
{
    const char *peer = request_peer(req);
    int64_t now = server_now_us();
    int wait_s = key ? limiter_blocked(s->limiter, peer, now) : 0;
    char quoted[96];

    if (wait_s > 0) {
        add_seconds(req, wait_s);
        return error_set(err, ERR_TOO_MANY,
                         "the key is not known, and this address has sent too "
                         "many wrong ones");
    }
    request_add_header(req, "WWW-Authenticate", "Bearer realm=\"facenetd\"");
    if (!key)
        return error_set(err, ERR_UNAUTHORIZED,
                         "send a key as 'Authorization: Bearer KEY' or "
                         "'X-Api-Key: KEY'");
    limiter_failed(s->limiter, peer, now);
    log_event(LOG_LEVEL_WARN, "wrong_key", "id=%s peer=%s", request_id(req),
              log_quote(peer, quoted, sizeof(quoted)));
    return error_set(err, ERR_UNAUTHORIZED, "the key is not known");
}

static int admit_key(struct server *s, struct request *req,
                     const struct route *route, unsigned *rights,
                     struct error *err)
{
    const struct keys *keys = atomic_load(&s->keys);
    const char *key, *name;

    *rights = 0;
    if (!route->rights)
        return 0;
    if (!keys)
        return admit_keyless(s, req, rights, err);
    key = sent_key(req);
    if (!key || !keys_check(keys, key, rights, &name))
        return refuse_key(s, req, key, err);
    if (!(*rights & (route->rights | KEYS_ADMIN))) {
        char text[KEYS_RIGHTS_LEN];
        return error_set(err, ERR_FORBIDDEN, "the key needs the right %s",
                         keys_rights_text(route->rights, text));
    }
    return 0;
}

static bool is_one_of(const char *name, const char *names)
{
    size_t len = strlen(name);

    while (*names) {
        size_t n = strcspn(names, " ");
        if (n == len && strncmp(name, names, n) == 0)
            return true;
        names += n + (names[n] != '\0');
    }
    return false;
}

static int admit_query(const struct request *req, const struct route *route,
                       struct error *err)
{
    for (int i = 0; i < request_n_query(req); i++) {
        const char *name = request_query_name(req, i);
        int len = 0;
        const char *near;

        if (is_one_of(name, route->query))
            continue;
        near = route_nearest(name, route->query, &len);
        if (near)
            return error_set(err, ERR_BAD_FIELD,
                             "there is no query argument '%.40s'; did you "
                             "mean '%.*s'?",
                             name, len, near);
        return error_set(err, ERR_BAD_FIELD,
                         "there is no query argument '%.40s'; %s takes %s",
                         name, route->path,
                         *route->query ? route->query : "none");
    }
    return 0;
}

static int admit_load(struct server *s, struct request *req,
                      const struct route *route, struct error *err)
{
    if (route->now)
        return 0;
    if (atomic_load(&s->stopping)) {
        add_seconds(req, 1);
        return error_set(err, ERR_STOPPING, "the daemon is stopping");
    }
    if (!atomic_load(&s->ready)) {
        add_seconds(req, 1);
        return error_set(err, ERR_NOT_READY, "the daemon is starting");
    }
    if (route->prepare && server_busy(s)) {
        add_seconds(req, server_retry_after(s));
        return error_set(err, ERR_QUEUE_FULL, "too many requests wait");
    }
    return 0;
}

static size_t max_body(const struct config *config, const struct route *route)
{
    int64_t model = config->max_model_bytes + MODEL_FRAME;

    if (route->max_body == SIZE_MAX)
        return (size_t)config->max_body;
    if (route->max_body != ROUTE_MODEL_BODY)
        return route->max_body;
    /* More than the budget of all bodies would never be let in. */
    return (size_t)(model < config->max_buffered ? model
                                                 : config->max_buffered);
}

static void admit(void *ctx, struct request *req, struct http_verdict *v)
{
    struct server *s = ctx;
    const struct config *config = atomic_load(&s->config);
    char args[ROUTE_MAX_ARGS][STORE_ID_MAX + 1] = {{0}};
    struct error err = {.code = ERR_NONE};
    const struct route *route;
    unsigned rights = 0;
    struct job *job;

    memset(v, 0, sizeof(*v));
    route = route_match(request_method(req), request_path(req), args, &v->allow,
                        &err);
    v->route = route;
    if (!route || admit_key(s, req, route, &rights, &err) != 0 ||
        admit_query(req, route, &err) != 0 ||
        admit_load(s, req, route, &err) != 0)
        goto refuse;
    job = job_new(s, req, route);
    if (!job) {
        error_set(&err, ERR_NOMEM, "no memory for the request");
        goto refuse;
    }
    memcpy(job->args, args, sizeof(args));
    job->rights = rights;
    request_set_state(req, job, job_free);
    v->now = route->now;
    v->max_body = max_body(config, route);
    return;
refuse:
    v->refuse = err.code;
    snprintf(v->text, sizeof(v->text), "%s", err.text);
}

static void handle(void *ctx, struct request *req)
{
    (void)ctx;
    job_start(request_state(req));
}

static char *problem(void *ctx, const struct request *req,
                     const struct error *err)
{
    (void)ctx;
    stats_error(error_wire(err->code));
    return problem_text(err, NULL, -1, request_id(req));
}

/* The path itself may hold a person's id: only its pattern is logged. */
static void done(void *ctx, const struct request *req, int status,
                 int64_t total_us)
{
    const struct route *route = request_route(req);
    const char *method = route ? route->method : "other";
    const char *path = route ? route->path : "other";
    enum log_level level = LOG_LEVEL_INFO;

    (void)ctx;
    stats_request(method, path, status);
    stats_observe(STATS_REQUEST, (double)total_us / 1e6);
    if (route && route->now)
        level = LOG_LEVEL_DEBUG;
    else if (status >= 500 && status != 503)
        level = LOG_LEVEL_ERROR;
    log_event(level, "request", "id=%s method=%s route=%s status=%d ms=%.1f",
              request_id(req), method, path, status, (double)total_us / 1e3);
}

struct http_calls route_calls(struct server *server)
{
    return (struct http_calls){
        .admit = admit,
        .handle = handle,
        .problem = problem,
        .done = done,
        .ctx = server,
    };
}
