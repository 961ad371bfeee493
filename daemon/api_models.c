/* daemon/api_models.c - /admin/models: the models that can serve, uploads,
 * and the way from one to another. */
#include "daemon/api.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/api_query.h"
#include "daemon/models.h"

static int answer(struct job *job, int status, json_t *take_body,
                  struct error *err)
{
    if (!take_body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, status, take_body);
    return 0;
}

/* --- rows --------------------------------------------------------------- */

/* What the rows of one answer are told from. */
struct view {
    struct store_models models;
    struct reembed_state state;
};

static int look(struct job *job, struct view *out, struct error *err)
{
    reembed_state(job->server->reembed, &out->state);
    return store_models_get(job->server->store, &out->models, err);
}

static const char *state_of(const struct view *v, const char *id)
{
    if (strcmp(v->models.active, id) == 0)
        return "active";
    if (strcmp(v->models.target, id) == 0)
        return "embedding";
    if (strcmp(v->state.failed, id) == 0)
        return "failed";
    return strcmp(v->models.previous, id) == 0 ? "previous" : "available";
}

/* Why its activation failed or waits; null where nothing is wrong. */
static json_t *error_of(const struct view *v, const char *id)
{
    if (v->state.error.code == ERR_NONE ||
        (strcmp(v->state.failed, id) != 0 &&
         (*v->state.failed || strcmp(v->models.target, id) != 0)))
        return json_null();
    return json_pack("{s:s, s:s}", "code", error_wire(v->state.error.code),
                     "detail", v->state.error.text);
}

static json_t *entry_json(const struct view *v, const struct model_entry *e)
{
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:o, s:b, s:I, s:o}", "id", e->id, "name",
                  e->name, "state", state_of(v, e->id), "error",
                  error_of(v, e->id), "removable", e->own, "bytes",
                  (json_int_t)e->bytes, "added", api_query_time(e->added_s));

    if (o && api_add_contract(o, &e->contract) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int api_admin_models(struct job *job, struct error *err)
{
    struct model_entry *rows;
    struct view v;
    json_t *list;
    int n;

    if (look(job, &v, err) != 0 ||
        models_list(job->server->models, &rows, &n, err) != 0)
        return -1;
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, entry_json(&v, &rows[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    free(rows);
    return answer(job, 200, list ? json_pack("{s:o}", "models", list) : NULL,
                  err);
}

/* One row, with how many faces the model has embedded. */
static int answer_model(struct job *job, int status, const char *id,
                        struct error *err)
{
    struct server *s = job->server;
    struct store_missing missing;
    struct store_stats stats;
    struct model_entry e;
    struct view v;
    json_t *o;

    if (models_find(s->models, id, &e, err) != 0 || look(job, &v, err) != 0 ||
        store_missing_count(s->store, id, &missing, err) != 0 ||
        store_stats(s->store, &stats, err) != 0)
        return -1;
    o = entry_json(&v, &e);
    if (o && json_object_set_new(
                 o, "faces",
                 json_pack("{s:I, s:I, s:I}", "embedded",
                           (json_int_t)(stats.n_faces - missing.n), "missing",
                           (json_int_t)missing.n, "without_crop",
                           (json_int_t)missing.n_without_crop)) < 0) {
        json_decref(o);
        o = NULL;
    }
    return answer(job, status, o, err);
}

int api_admin_models_get(struct job *job, struct error *err)
{
    return answer_model(job, 200, job->args[0], err);
}

int api_admin_models_missing(struct job *job, struct error *err)
{
    struct server *s = job->server;
    const char *id = job->args[0];
    struct store_face *faces = NULL;
    struct model_entry e;
    json_t *list;
    int limit, n = 0;
    int64_t after;

    if (models_find(s->models, id, &e, err) != 0 ||
        api_query_after_face(job, &after, err) < 0)
        return -1;
    limit = api_query_limit(job, err);
    if (limit < 0 ||
        store_missing_list(s->store, id, after, limit, &faces, &n, err) != 0)
        return -1;
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, api_stored_face_json(&faces[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    /* A full page may be the last: then an empty one follows. */
    list = list ? json_pack("{s:o, s:o}", "faces", list, "next",
                            n == limit ? json_integer(faces[n - 1].id)
                                       : json_null())
                : NULL;
    free(faces);
    return answer(job, 200, list, err);
}

/* --- upload and removal ------------------------------------------------- */

/* The file that was sent: the body, or the one part `model`. */
static const uint8_t *sent_model(const struct job *job, size_t *len,
                                 struct error *err)
{
    const struct request_part *part = NULL;

    switch (request_body_kind(job->req)) {
    case BODY_RAW:
        return request_body(job->req, len);
    case BODY_MULTIPART:
        for (int i = 0; i < request_n_parts(job->req); i++) {
            const struct request_part *p = request_part(job->req, i);
            if (strcmp(p->name, "model") != 0)
                return error_null(err, ERR_BAD_FIELD,
                                  "there is no field '%.40s'; the one part is "
                                  "'model'",
                                  p->name);
            if (part)
                return error_null(err, ERR_BAD_FIELD,
                                  "field 'model' was given twice");
            part = p;
        }
        if (!part)
            return error_null(err, ERR_BAD_FIELD, "field 'model' is missing");
        *len = part->len;
        return part->data;
    case BODY_JSON:
        return error_null(err, ERR_MEDIA_TYPE,
                          "send the ONNX file as the body, "
                          "application/octet-stream, or as the part 'model' of "
                          "multipart/form-data");
    case BODY_NONE:
        break;
    }
    return error_null(err, ERR_BAD_REQUEST, "a body is wanted: the ONNX file");
}

int api_admin_models_add(struct job *job, struct error *err)
{
    struct server *s = job->server;
    const struct config *config = atomic_load(&s->config);
    size_t len = 0;
    const uint8_t *bytes = sent_model(job, &len, err);
    char id[65];
    bool added;

    if (!bytes)
        return -1;
    if (len > (size_t)config->max_model_bytes)
        return error_set(err, ERR_TOO_LARGE,
                         "a model of %zu bytes, at most %lld are taken", len,
                         (long long)config->max_model_bytes);
    if (models_put(s->models, bytes, len, id, &added, err) != 0)
        return -1;
    return answer_model(job, added ? 201 : 200, id, err);
}

/* Its vectors and thresholds first: without its file nobody could ask for that
 * again. */
int api_admin_models_remove(struct job *job, struct error *err)
{
    struct server *s = job->server;
    const char *id = job->args[0];
    struct model_entry e;

    if (models_find(s->models, id, &e, err) != 0)
        return -1;
    if (!e.own)
        return error_set(err, ERR_CONFLICT,
                         "model %.12s is a file of the models directory: only "
                         "uploaded and fine-tuned ones can be removed",
                         id);
    if (store_model_forget(s->store, id, err) != 0 ||
        thresholds_apply(s->thresholds, id, NULL, 0, err) != 0 ||
        models_remove(s->models, id, err) != 0)
        return -1;
    return answer(job, 200, json_pack("{s:s}", "deleted", id), err);
}

/* --- from one to another ------------------------------------------------ */

/* {"allow_missing": BOOL}, {} or no body. */
static int read_allow(const struct job *job, bool *allow, struct error *err)
{
    size_t len;
    const char *body = (const char *)request_body(job->req, &len);
    json_error_t where;
    json_t *root, *value;
    const char *key;
    int rc = 0;

    *allow = false;
    if (request_body_kind(job->req) == BODY_NONE)
        return 0;
    if (request_body_kind(job->req) != BODY_JSON)
        return error_set(err, ERR_MEDIA_TYPE,
                         "the body must be application/json, or none");
    root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(err, ERR_BAD_JSON, "line %d, column %d: %s",
                         where.line, where.column, where.text);
    if (!json_is_object(root))
        rc = error_set(err, ERR_BAD_FIELD, "the body must be an object");
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "allow_missing") != 0)
            rc =
                error_set(err, ERR_BAD_FIELD,
                          "unknown field '%.64s'; there is allow_missing", key);
        else if (!json_is_boolean(value))
            rc = error_set(err, ERR_BAD_FIELD,
                           "allow_missing must be true or false");
        else
            *allow = json_is_true(value);
    }
    json_decref(root);
    return rc;
}

/* With a model that has no threshold for the setting far, no request without
 * one of its own could be answered, and no start would work. */
static int check_far(const struct job *job, const char *id, struct error *err)
{
    struct server *s = job->server;
    double far = atomic_load(&s->config)->far;
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    struct model_entry e;
    struct model m = {.name = ""};
    int n;

    if (far <= 0)
        return 0;
    if (models_find(s->models, id, &e, err) != 0)
        return -1;
    memcpy(m.id, e.id, sizeof(m.id));
    m.contract = e.contract;
    n = thresholds_of(s->thresholds, &m, rows, NULL);
    if (model_threshold(rows, n, far))
        return 0;
    return error_set(err, ERR_CONFLICT,
                     "setting far = %g: model %.12s has no threshold for that "
                     "false-accept rate or less: 'facenetctl calibrate' "
                     "measures them",
                     far, id);
}

int api_admin_models_activate(struct job *job, struct error *err)
{
    bool allow;

    if (read_allow(job, &allow, err) != 0 ||
        check_far(job, job->args[0], err) != 0 ||
        reembed_activate(job->server->reembed, job->args[0], allow, err) != 0)
        return -1;
    return answer_model(job, 202, job->args[0], err);
}

int api_admin_models_cancel(struct job *job, struct error *err)
{
    if (reembed_cancel(job->server->reembed, job->args[0], err) != 0)
        return -1;
    return answer_model(job, 200, job->args[0], err);
}

int api_admin_models_rollback(struct job *job, struct error *err)
{
    struct store_models m;
    bool allow, done;
    char id[65];

    if (read_allow(job, &allow, err) != 0 ||
        store_models_get(job->server->store, &m, err) != 0 ||
        (*m.previous && check_far(job, m.previous, err) != 0) ||
        reembed_rollback(job->server->reembed, allow, id, &done, err) != 0)
        return -1;
    return answer_model(job, done ? 200 : 202, id, err);
}
