/* daemon/api_jobs.c - /admin/finetune and /admin/jobs: training jobs. What a
 * request may name is a gallery, folders below train-root, models of the
 * models' directory and arguments of the trainer; never a path. */
#include "daemon/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/api_query.h"
#include "daemon/jobs.h"

/* --- answers ----------------------------------------------------------- */

static json_t *time_json(int64_t unix_s)
{
    return unix_s ? api_query_time(unix_s) : json_null();
}

static json_t *text_json(const char *text)
{
    return *text ? json_string(text) : json_null();
}

/* What it was asked to do. */
static json_t *data_json(const struct jobs_request *a)
{
    const struct {
        const char *name, *value;
    } rows[] = {{"gallery", a->gallery},
                {"folder", a->folder},
                {"holdout_folder", a->holdout_folder},
                {"lfw_dir", a->lfw_dir},
                {"lfw_pairs", a->lfw_pairs}};
    json_t *o = json_object();

    for (size_t i = 0; o && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (*rows[i].value &&
            json_object_set_new(o, rows[i].name, json_string(rows[i].value))) {
            json_decref(o);
            o = NULL;
        }
    }
    return o;
}

/* What lists and single answers tell. NULL: no memory. */
static json_t *summary_json(const struct jobs_record *r)
{
    json_t *o = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:i, s:b, s:b}", "id", r->id, "state",
        jobs_state_name(r->state), "text", text_json(r->text), "created",
        time_json(r->created_s), "started", time_json(r->started_s), "ended",
        time_json(r->ended_s), "resumed", r->n_resumed, "cancelling",
        r->cancelling, "resumable", jobs_record_resumable(r));
    int rc = 0;

    if (!o)
        return NULL;
    rc |= json_object_set_new(o, "data", data_json(&r->asked));
    rc |= json_object_set_new(o, "model", text_json(r->asked.model));
    rc |= json_object_set_new(o, "teacher", text_json(r->asked.teacher));
    rc |= json_object_set_new(o, "arguments",
                              json_loads(r->asked.arguments, 0, NULL));
    rc |= json_object_set_new(o, "phase", text_json(r->phase));
    rc |= json_object_set_new(o, "device", text_json(r->device));
    rc |= json_object_set_new(o, "published_model", text_json(r->model_id));
    if (rc == 0)
        return o;
    json_decref(o);
    return NULL;
}

/* Everything; log (taken, may be NULL). NULL: no memory. */
static json_t *job_json(const struct jobs_record *r, int before, char *take_log)
{
    static const char *const parts[] = {"progress", "curve", "evaluations",
                                        "warnings", "bad_lines"};
    json_t *o = summary_json(r), *all = jobs_record_json(r);
    int rc = o && all ? 0 : -1;

    for (size_t i = 0; rc == 0 && i < sizeof(parts) / sizeof(parts[0]); i++)
        rc = json_object_set(o, parts[i], json_object_get(all, parts[i]));
    if (rc == 0)
        rc = json_object_set_new(
            o, "checkpoint_step",
            r->checkpoint[0] ? json_integer(r->checkpoint_step) : json_null());
    if (rc == 0 && r->state == JOBS_QUEUED)
        rc = json_object_set_new(o, "before", json_integer(before));
    if (rc == 0 && take_log)
        rc = json_object_set_new(o, "log", json_string(take_log));
    free(take_log);
    json_decref(all);
    if (rc == 0)
        return o;
    json_decref(o);
    return NULL;
}

static int answer(struct job *job, int status, json_t *take_body,
                  struct error *err)
{
    if (!take_body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, status, take_body);
    return 0;
}

/* The job as it is now, with its place in the queue. */
static int answer_job(struct job *job, int status, const char *id, bool log,
                      struct error *err)
{
    struct jobs *jobs = job->server->training;
    struct jobs_record *r = malloc(sizeof(*r));
    int before = 0, rc;

    if (!r)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    rc = jobs_get(jobs, id, r, &before, err);
    if (rc == 0)
        rc = answer(job, status,
                    job_json(r, before, log ? jobs_log(jobs, id) : NULL), err);
    free(r);
    return rc;
}

/* --- what a request asks for ------------------------------------------- */

static int take_name(const char *what, const json_t *value,
                     char out[JOBS_NAME_MAX], struct error *err)
{
    if (!json_is_string(value) || json_string_length(value) == 0)
        return error_set(err, ERR_BAD_FIELD, "%s must be a text", what);
    if (json_string_length(value) >= JOBS_NAME_MAX)
        return error_set(err, ERR_BAD_FIELD, "%s has over %d bytes", what,
                         JOBS_NAME_MAX - 1);
    strcpy(out, json_string_value(value));
    return 0;
}

/* False: there is no such file that can be read. */
static bool real_file(const char *dir, const char *below, const char *name,
                      char path[JOBS_PATH_MAX])
{
    char joined[JOBS_PATH_MAX * 2], *real;
    bool good;

    snprintf(joined, sizeof(joined), "%s%s/%s.onnx", dir, below, name);
    real = realpath(joined, NULL);
    good = real && strlen(real) < JOBS_PATH_MAX && access(real, R_OK) == 0;
    if (good)
        strcpy(path, real);
    free(real);
    return good;
}

/* The file of a model: named as in the models' directory, or by its id; name
 * becomes what people call it. */
static int find_model(const struct server *s, const char *what,
                      char name[JOBS_NAME_MAX], char path[JOBS_PATH_MAX],
                      struct error *err)
{
    const struct config *c = atomic_load(&s->config);
    struct model_entry entry;

    if (!store_id_valid(name))
        return error_set(err, ERR_BAD_FIELD,
                         "%s '%.64s' is no model: the name of a file of the "
                         "setting models, without .onnx, or an id",
                         what, name);
    if (real_file(c->models, "", name, path))
        return 0;
    if (models_find(s->models, name, &entry, NULL) == 0) {
        bool there = entry.own
                         ? real_file(c->data_dir, "/models", entry.id, path)
                         : real_file(c->models, "", entry.name, path);
        snprintf(name, JOBS_NAME_MAX, "%s", entry.name);
        if (there)
            return 0;
    }
    return error_set(err, ERR_NO_MODEL, "%s: there is no model '%.64s'", what,
                     name);
}

static int read_field(const char *name, json_t *value, struct jobs_request *a,
                      json_t **arguments, struct error *err)
{
    char gallery[JOBS_NAME_MAX];

    if (strcmp(name, "gallery") == 0) {
        if (take_name(name, value, gallery, err) != 0)
            return -1;
        if (!store_id_valid(gallery))
            return error_set(err, ERR_BAD_FIELD,
                             "gallery must match [A-Za-z0-9][A-Za-z0-9._-]* "
                             "and have at most %d characters",
                             STORE_ID_MAX);
        strcpy(a->gallery, gallery);
        return 0;
    }
    if (strcmp(name, "arguments") == 0) {
        if (!json_is_object(value))
            return error_set(err, ERR_BAD_FIELD,
                             "arguments must be an object of the trainer's "
                             "arguments");
        *arguments = value;
        return 0;
    }
    if (strcmp(name, "folder") == 0)
        return take_name(name, value, a->folder, err);
    if (strcmp(name, "holdout_folder") == 0)
        return take_name(name, value, a->holdout_folder, err);
    if (strcmp(name, "lfw_dir") == 0)
        return take_name(name, value, a->lfw_dir, err);
    if (strcmp(name, "lfw_pairs") == 0)
        return take_name(name, value, a->lfw_pairs, err);
    if (strcmp(name, "model") == 0)
        return take_name(name, value, a->model, err);
    if (strcmp(name, "teacher") == 0)
        return take_name(name, value, a->teacher, err);
    return error_set(err, ERR_BAD_FIELD,
                     "unknown field '%.64s': gallery, folder, holdout_folder, "
                     "lfw_dir, lfw_pairs, model, teacher and arguments are "
                     "taken",
                     name);
}

/* Which photos, and that they are there. */
static int check_data(struct server *s, const struct jobs_request *a,
                      struct error *err)
{
    const struct {
        const char *what, *name;
        bool is_dir;
    } rows[] = {{"folder", a->folder, true},
                {"holdout_folder", a->holdout_folder, true},
                {"lfw_dir", a->lfw_dir, true},
                {"lfw_pairs", a->lfw_pairs, false}};
    char path[JOBS_PATH_MAX];
    struct store_gallery g;

    if (!*a->gallery == !*a->folder)
        return error_set(err, ERR_BAD_FIELD,
                         "one of gallery and folder says what to train on");
    if (!*a->lfw_dir != !*a->lfw_pairs)
        return error_set(err, ERR_BAD_FIELD,
                         "lfw_dir and lfw_pairs go together: one is missing");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (*rows[i].name &&
            jobs_resolve(s->training, rows[i].what, rows[i].name,
                         rows[i].is_dir, path, err) != 0)
            return -1;
    return *a->gallery ? store_gallery_get(s->store, a->gallery, &g, err) : 0;
}

/* The model that is trained on: the named one, else the one that serves; none
 * where the arguments name a network to build. */
static int check_models(struct job *job, struct jobs_request *a, bool builds,
                        struct error *err)
{
    const struct server *s = job->server;

    if (builds && *a->model)
        return error_set(err, ERR_BAD_FIELD,
                         "model and arguments.arch: a network is either "
                         "trained on or built anew");
    if (!builds && !*a->model)
        snprintf(a->model, sizeof(a->model), "%s", job->serving->model->id);
    if (*a->model && find_model(s, "model", a->model, a->model_path, err) != 0)
        return -1;
    if (!*a->teacher)
        return 0;
    return find_model(s, "teacher", a->teacher, a->teacher_path, err);
}

static int read_request(struct job *job, struct jobs_request *a,
                        struct error *err)
{
    json_t *root, *value, *arguments = NULL, *none = NULL;
    const char *name;
    json_error_t where;
    bool builds = false;
    size_t len;
    const uint8_t *body;
    int rc = 0;

    if (request_body_kind(job->req) != BODY_JSON)
        return error_set(err, ERR_MEDIA_TYPE,
                         "the body must be application/json");
    body = request_body(job->req, &len);
    root = json_loadb((const char *)body, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(err, ERR_BAD_JSON, "line %d, column %d: %s",
                         where.line, where.column, where.text);
    if (!json_is_object(root))
        rc = error_set(err, ERR_BAD_JSON, "the body must be an object");
    json_object_foreach(root, name, value)
    {
        if (read_field(name, value, a, &arguments, err) != 0) {
            rc = -1;
            break;
        }
    }
    if (rc == 0 && !arguments) {
        arguments = none = json_object();
        if (!none)
            rc = error_set(err, ERR_NOMEM, "no memory for the arguments");
    }
    if (rc == 0)
        rc = jobs_args_read(arguments, a->arguments, &builds, err);
    if (rc == 0 && (check_data(job->server, a, err) != 0 ||
                    check_models(job, a, builds, err) != 0))
        rc = -1;
    json_decref(none);
    json_decref(root);
    return rc;
}

/* --- handlers ---------------------------------------------------------- */

int api_finetune(struct job *job, struct error *err)
{
    struct jobs_request *asked = calloc(1, sizeof(*asked));
    struct jobs_record *r = malloc(sizeof(*r));
    char place[64];
    int rc = -1;

    if (!asked || !r) {
        error_set(err, ERR_NOMEM, "no memory for a job");
        goto out;
    }
    if (read_request(job, asked, err) != 0 ||
        jobs_add(job->server->training, asked, r, err) != 0)
        goto out;
    snprintf(place, sizeof(place), "/admin/jobs/%s", r->id);
    request_add_header(job->req, "Location", place);
    rc = answer_job(job, 202, r->id, false, err);
out:
    free(asked);
    free(r);
    return rc;
}

int api_jobs_list(struct job *job, struct error *err)
{
    struct jobs *jobs = job->server->training;
    const char *after = api_query_after(job, err);
    int limit = after ? api_query_limit(job, err) : -1;
    struct jobs_record *r = NULL;
    json_t *list, *body = NULL;
    char last[JOBS_ID_MAX + 1] = "";
    int64_t at;
    int n = 0;

    if (limit < 0)
        return -1;
    at = strtoll(after, NULL, 10);
    if (*after && at < 1)
        return error_set(err, ERR_BAD_FIELD,
                         "after must be the next of an earlier answer");
    r = malloc(sizeof(*r));
    list = r ? json_array() : NULL;
    while (list && n < limit && (at = jobs_next(jobs, at, r)) > 0) {
        snprintf(last, sizeof(last), "%s", r->id);
        n++;
        if (json_array_append_new(list, summary_json(r)) != 0) {
            json_decref(list);
            list = NULL;
        }
        if (at == 1) /* below 0 would be all again */
            break;
    }
    if (list)
        body = json_pack(
            "{s:o, s:s?}", "jobs", list, "next",
            n == limit && at > 1 && jobs_next(jobs, at, r) > 0 ? last : NULL);
    free(r);
    return answer(job, 200, body, err);
}

int api_jobs_get(struct job *job, struct error *err)
{
    return answer_job(job, 200, job->args[0], true, err);
}

int api_jobs_remove(struct job *job, struct error *err)
{
    const char *purge = request_query(job->req, "purge");
    const char *id = job->args[0];
    struct jobs_record *r;
    int rc;

    if (purge && strcmp(purge, "true") != 0 && strcmp(purge, "false") != 0)
        return error_set(err, ERR_BAD_FIELD, "purge must be true or false");
    if (purge && purge[0] == 't') {
        if (jobs_purge(job->server->training, id, err) != 0)
            return -1;
        return answer(job, 200, json_pack("{s:s}", "deleted", id), err);
    }
    r = malloc(sizeof(*r));
    if (!r)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    rc = jobs_cancel(job->server->training, id, r, err);
    if (rc == 0)
        rc = answer(job, r->state == JOBS_RUNNING ? 202 : 200,
                    job_json(r, 0, NULL), err);
    free(r);
    return rc;
}

int api_jobs_resume(struct job *job, struct error *err)
{
    struct jobs_record *r = malloc(sizeof(*r));
    int rc;

    if (!r)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    rc = jobs_resume(job->server->training, job->args[0], r, err);
    free(r);
    return rc == 0 ? answer_job(job, 202, job->args[0], false, err) : -1;
}
