/* daemon/api_galleries.c - the named sets of subjects: list, look, erase. A
 * gallery comes into being with the first subject enrolled in it. */
#include "daemon/api.h"

#include <stdlib.h>

#include "daemon/api_query.h"

static json_t *gallery_json(const struct store_gallery *g)
{
    return json_pack("{s:s, s:i, s:i, s:o}", "id", g->id, "subjects",
                     g->n_subjects, "faces", g->n_faces, "created",
                     api_query_time(g->created_s));
}

static int answer(struct job *job, json_t *take_body, struct error *err)
{
    if (!take_body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer(job, 200, take_body);
    return 0;
}

/* 1: there are galleries after this one. */
static int is_more(struct job *job, const char *last, struct error *err)
{
    struct store_gallery *rows = NULL;
    int n = 0;

    if (store_gallery_list(job->server->store, last, 1, &rows, &n, err) < 0)
        return -1;
    free(rows);
    return n > 0;
}

int api_galleries_list(struct job *job, struct error *err)
{
    struct store_gallery *rows = NULL;
    json_t *list, *body = NULL;
    const char *after = api_query_after(job, err);
    int limit = after ? api_query_limit(job, err) : -1;
    int n = 0, more;

    if (limit < 0 || store_gallery_list(job->server->store, after, limit, &rows,
                                        &n, err) < 0)
        return -1;
    more = n == limit ? is_more(job, rows[n - 1].id, err) : 0;
    if (more < 0) {
        free(rows);
        return -1;
    }
    list = json_array();
    for (int i = 0; list && i < n; i++) {
        if (json_array_append_new(list, gallery_json(&rows[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    if (list)
        body = json_pack("{s:o, s:s?}", "galleries", list, "next",
                         more ? rows[n - 1].id : NULL);
    free(rows);
    return answer(job, body, err);
}

int api_galleries_get(struct job *job, struct error *err)
{
    struct store_gallery row;
    const char *id = job->args[0];

    if (store_gallery_get(job->server->store, id, &row, err) < 0)
        return -1;
    return answer(job, gallery_json(&row), err);
}

int api_galleries_remove(struct job *job, struct error *err)
{
    const char *id = job->args[0];
    int n_faces = 0;

    if (store_gallery_remove(job->server->store, id, &n_faces, err) < 0)
        return -1;
    return answer(job, json_pack("{s:s, s:i}", "deleted", id, "faces", n_faces),
                  err);
}
