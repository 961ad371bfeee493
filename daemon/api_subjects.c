/* daemon/api_subjects.c - GET, PATCH and DELETE of /subjects: the record of
 * who is enrolled. Creating one is POST /enroll. A write returns from the
 * store when it is durable and the gallery in memory has followed it, so that
 * no search after the answer sees the state before it. */
#include "daemon/api.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/api_query.h"
#include "daemon/form.h"

static json_t *subject_json(const struct store_subject *sub)
{
    json_t *metadata = NULL;
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:i, s:o, s:o}", "id", sub->id, "name",
                  sub->name, "gallery", sub->gallery, "faces", sub->n_faces,
                  "created", api_query_time(sub->created_s), "updated",
                  api_query_time(sub->updated_s));

    if (!o || !sub->metadata)
        return o;
    metadata = json_loads(sub->metadata, 0, NULL);
    if (!metadata || json_object_set_new(o, "metadata", metadata) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int no_memory(struct error *err)
{
    return error_set(err, ERR_NOMEM, "no memory for the answer");
}

/* 1: the gallery has subjects after this one. */
static int is_more(struct job *job, const char *gallery, const char *last,
                   struct error *err)
{
    struct store_subject *subs = NULL;
    int n = 0;

    if (store_subject_list(job->server->store, gallery, last, 1, &subs, &n,
                           err) < 0)
        return -1;
    store_subjects_free(subs, n);
    return n > 0;
}

int api_subjects_list(struct job *job, struct error *err)
{
    struct store_subject *subs = NULL;
    json_t *list = NULL, *body = NULL;
    const char *gallery = api_query_gallery(job, err);
    const char *after = gallery ? api_query_after(job, err) : NULL;
    int limit = after ? api_query_limit(job, err) : -1;
    int n = 0, more;

    if (limit < 0 || store_subject_list(job->server->store, gallery, after,
                                        limit, &subs, &n, err) < 0)
        return -1;
    more = n == limit ? is_more(job, gallery, subs[n - 1].id, err) : 0;
    if (more < 0) {
        store_subjects_free(subs, n);
        return -1;
    }
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, subject_json(&subs[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    if (list)
        body = json_pack("{s:o, s:s?}", "subjects", list, "next",
                         more ? subs[n - 1].id : NULL);
    store_subjects_free(subs, n);
    if (!body)
        return no_memory(err);
    job_answer(job, 200, body);
    return 0;
}

/* The subject that the path names, and its gallery; NULL: err is filled. */
static const char *subject_of(const struct job *job, const char **gallery,
                              struct error *err)
{
    *gallery = api_query_gallery(job, err);
    return *gallery ? job->args[0] : NULL;
}

static int answer_subject(struct job *job, const char *gallery, const char *id,
                          struct error *err)
{
    struct store_subject sub = {0};
    json_t *body;

    if (store_subject_get(job->server->store, gallery, id, &sub, err) < 0)
        return -1;
    body = subject_json(&sub);
    store_subject_fini(&sub);
    if (!body)
        return no_memory(err);
    job_answer(job, 200, body);
    return 0;
}

int api_subjects_get(struct job *job, struct error *err)
{
    const char *gallery;
    const char *id = subject_of(job, &gallery, err);

    return id ? answer_subject(job, gallery, id, err) : -1;
}

/* The fields of a PATCH; NULL: not named. metadata is malloc'd text. */
struct change {
    const char *name;
    char *metadata;
};

static int read_name(json_t *value, struct change *out, struct error *err)
{
    if (json_is_null(value)) {
        out->name = "";
        return 0;
    }
    if (!json_is_string(value))
        return error_set(err, ERR_BAD_FIELD, "name must be text or null");
    if (json_string_length(value) > STORE_NAME_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "name has %zu bytes; at most %d are taken",
                         json_string_length(value), STORE_NAME_MAX);
    for (const char *p = json_string_value(value); *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return error_set(err, ERR_BAD_FIELD,
                             "name must be without control characters");
    out->name = json_string_value(value);
    return 0;
}

/* Nested no deeper than left levels? */
static bool is_shallow(const json_t *value, int left)
{
    const char *key;
    json_t *inner;
    size_t i;

    if (left == 0)
        return !json_is_object(value) && !json_is_array(value);
    json_object_foreach((json_t *)value, key, inner)
    {
        if (!is_shallow(inner, left - 1))
            return false;
    }
    json_array_foreach(value, i, inner)
    {
        if (!is_shallow(inner, left - 1))
            return false;
    }
    return true;
}

static int read_metadata(json_t *value, struct change *out, struct error *err)
{
    if (json_is_null(value)) {
        out->metadata = strdup("");
    } else if (!is_shallow(value, FORM_MAX_DEPTH)) {
        return error_set(err, ERR_BAD_FIELD,
                         "metadata is nested deeper than %d", FORM_MAX_DEPTH);
    } else if (json_is_object(value)) {
        out->metadata = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    } else {
        return error_set(err, ERR_BAD_FIELD,
                         "metadata must be an object or null");
    }
    if (!out->metadata)
        return error_set(err, ERR_NOMEM, "no memory for the metadata");
    if (strlen(out->metadata) > STORE_METADATA_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "metadata has %zu bytes of JSON; at most %d are taken",
                         strlen(out->metadata), STORE_METADATA_MAX);
    return 0;
}

static int read_change(json_t *root, struct change *out, struct error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(root) || json_object_size(root) == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "the body must be an object with name, metadata or "
                         "both");
    json_object_foreach(root, key, value)
    {
        int rc;

        if (strcmp(key, "name") == 0)
            rc = read_name(value, out, err);
        else if (strcmp(key, "metadata") == 0)
            rc = read_metadata(value, out, err);
        else
            rc = error_set(err, ERR_BAD_FIELD,
                           "unknown field '%.64s': name and metadata can be "
                           "changed",
                           key);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int api_subjects_patch(struct job *job, struct error *err)
{
    struct change change = {0};
    json_error_t where;
    json_t *root = NULL;
    const char *gallery;
    const char *id = subject_of(job, &gallery, err);
    const uint8_t *body;
    size_t len;
    int rc = -1;

    if (!id)
        return -1;
    if (request_body_kind(job->req) != BODY_JSON)
        return error_set(err, ERR_MEDIA_TYPE,
                         "the body must be application/json");
    body = request_body(job->req, &len);
    root = json_loadb((const char *)body, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(err, ERR_BAD_JSON, "line %d, column %d: %s",
                         where.line, where.column, where.text);
    if (read_change(root, &change, err) < 0)
        goto out;
    if (store_subject_update(job->server->store, gallery, id, change.name,
                             change.metadata, err) < 0)
        goto out;
    rc = answer_subject(job, gallery, id, err);
out:
    free(change.metadata);
    json_decref(root);
    return rc;
}

int api_subjects_remove(struct job *job, struct error *err)
{
    const char *gallery;
    const char *id = subject_of(job, &gallery, err);
    json_t *body;
    int n_faces = 0;

    if (!id || store_subject_remove(job->server->store, gallery, id, &n_faces,
                                    err) < 0)
        return -1;
    body = json_pack("{s:s, s:s, s:i}", "deleted", id, "gallery", gallery,
                     "faces", n_faces);
    if (!body)
        return no_memory(err);
    job_answer(job, 200, body);
    return 0;
}
