/* daemon/api_faces.c - one enrolled example: /faces/{id}, and the examples of
 * a subject. Embeddings are never part of an answer here. */
#include "daemon/api.h"

#include <stdlib.h>

#include "daemon/api_query.h"

json_t *api_stored_face_json(const struct store_face *f)
{
    return json_pack("{s:I, s:s, s:s, s:o, s:o, s:o, s:b}", "id",
                     (json_int_t)f->id, "subject", f->subject, "gallery",
                     f->gallery, "box", api_box_json(f->box), "detection_score",
                     api_real(f->score, 4), "created",
                     api_query_time(f->created_s), "crop", f->has_crop);
}

static int answer(struct job *job, json_t *take_body, struct error *err)
{
    if (!take_body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, 200, take_body);
    return 0;
}

/* 1: the subject has faces after this one. */
static int is_more(struct job *job, const char *gallery, const char *subject,
                   int64_t last, struct error *err)
{
    struct store_face *faces = NULL;
    int n = 0;

    if (store_face_list(job->server->store, gallery, subject, last, 1, &faces,
                        &n, err) < 0)
        return -1;
    free(faces);
    return n > 0;
}

int api_subject_faces(struct job *job, struct error *err)
{
    struct store_subject sub = {0};
    struct store_face *faces = NULL;
    json_t *list, *body = NULL;
    const char *gallery = api_query_gallery(job, err);
    const char *id = job->args[0];
    int64_t after;
    int limit, n = 0, more;

    if (!gallery || api_query_after_face(job, &after, err) < 0)
        return -1;
    limit = api_query_limit(job, err);
    if (limit < 0)
        return -1;
    /* A subject without faces is an empty list, no subject is an error. */
    if (store_subject_get(job->server->store, gallery, id, &sub, err) < 0)
        return -1;
    store_subject_fini(&sub);
    if (store_face_list(job->server->store, gallery, id, after, limit, &faces,
                        &n, err) < 0)
        return -1;
    more = n == limit ? is_more(job, gallery, id, faces[n - 1].id, err) : 0;
    if (more < 0) {
        free(faces);
        return -1;
    }
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, api_stored_face_json(&faces[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    if (list)
        body = json_pack("{s:o, s:o}", "faces", list, "next",
                         more ? json_integer(faces[n - 1].id) : json_null());
    free(faces);
    return answer(job, body, err);
}

int api_face_get(struct job *job, struct error *err)
{
    struct store_face face;
    int64_t id;

    if (api_query_face(job->args[0], &id, err) < 0 ||
        store_face_get(job->server->store, id, &face, err) < 0)
        return -1;
    return answer(job, api_stored_face_json(&face), err);
}

int api_face_remove(struct job *job, struct error *err)
{
    struct store_face face;
    int64_t id;

    if (api_query_face(job->args[0], &id, err) < 0)
        return -1;
    if (store_face_remove(job->server->store, id, &face, err) < 0)
        return -1;
    return answer(job,
                  json_pack("{s:I, s:s, s:s, s:i}", "deleted", (json_int_t)id,
                            "subject", face.subject, "gallery", face.gallery,
                            "faces", 1),
                  err);
}
