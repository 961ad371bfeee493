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

static const char *state_of(const struct job *job, const char *id)
{
    return strcmp(job->serving->model->id, id) == 0 ? "active" : "available";
}

static json_t *entry_json(const struct job *job, const struct model_entry *e)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:I, s:o}", "id", e->id, "name",
                          e->name, "state", state_of(job, e->id), "removable",
                          e->own, "bytes", (json_int_t)e->bytes, "added",
                          api_query_time(e->added_s));

    if (o && api_add_contract(o, &e->contract) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int api_admin_models(struct job *job, struct error *err)
{
    struct model_entry *rows;
    json_t *list;
    int n;

    if (models_list(job->server->models, &rows, &n, err) != 0)
        return -1;
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, entry_json(job, &rows[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    free(rows);
    return answer(job, 200, list ? json_pack("{s:o}", "models", list) : NULL,
                  err);
}

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
    struct model_entry entry;
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
    if (models_put(s->models, bytes, len, id, &added, err) != 0 ||
        models_find(s->models, id, &entry, err) != 0)
        return -1;
    return answer(job, added ? 201 : 200, entry_json(job, &entry), err);
}
