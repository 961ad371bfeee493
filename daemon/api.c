/* daemon/api.c - the pieces of JSON that several answers carry. A piece for
 * which memory is out is NULL; json_pack then gives NULL for the whole, and
 * job_answer says so. */
#include "daemon/api.h"

#include <math.h>
#include <string.h>

json_t *api_model_json(const struct job *job)
{
    const struct model *m = job->serving->model;
    return json_pack("{s:s, s:s, s:i}", "id", m->id, "name", m->name,
                     "embedding_size", m->contract.dim);
}

json_t *api_real(double value, int decimals)
{
    double unit = pow(10, decimals);
    return json_real(round(value * unit) / unit);
}

json_t *api_box_json(const float box[4])
{
    return json_pack("{s:o, s:o, s:o, s:o}", "x0", api_real((double)box[0], 2),
                     "y0", api_real((double)box[1], 2), "x1",
                     api_real((double)box[2], 2), "y1",
                     api_real((double)box[3], 2));
}

json_t *api_face_json(const struct face *face)
{
    const float box[4] = {face->box.x0, face->box.y0, face->box.x1,
                          face->box.y1};
    json_t *points = json_array();

    /* None where nobody looked for them. */
    for (int i = 0; points && i < 5 && !isnan(face->points[i][0]); i++) {
        json_t *point =
            json_pack("[o, o]", api_real((double)face->points[i][0], 2),
                      api_real((double)face->points[i][1], 2));
        if (json_array_append_new(points, point) != 0) {
            json_decref(points);
            points = NULL;
        }
    }
    return json_pack("{s:o, s:o, s:o}", "box", api_box_json(box), "landmarks",
                     points, "detection_score",
                     api_real((double)face->score, 6));
}

json_t *api_photo_json(const struct photo *photo)
{
    json_t *o = api_face_json(&photo->chips[0].face);

    if (o &&
        (json_object_set_new(o, "faces_found", json_integer(photo->n_faces)) ||
         json_object_set_new(o, "width", json_integer(photo->width)) ||
         json_object_set_new(o, "height", json_integer(photo->height)))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *ms(int64_t us)
{
    return api_real((double)us / 1e3, 3);
}

json_t *api_timings_json(const struct job *job)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "decode",
                     ms(job->decode_us), "detect", ms(job->detect_us), "align",
                     ms(job->align_us), "queue", ms(job->group.waited_us),
                     "embed", ms(job->group.run_us), "total",
                     ms(server_now_us() - job->start_us));
}

int api_search(struct job *job, const struct gallery_ask *ask,
               struct gallery_hit *hits, int *n_hits, struct error *err)
{
    int64_t began = server_now_us();
    int rc = gallery_search_many(job->serving->gallery, ask, hits, n_hits, err);

    stats_observe(STATS_SEARCH, (double)(server_now_us() - began) / 1e6);
    if (rc < 0 && err->code == ERR_NOMEM)
        atomic_store(&job->serving->gallery_stale, true);
    return rc;
}

enum face_choice api_choice(const char *word, enum face_choice otherwise)
{
    if (!word)
        return otherwise;
    if (strcmp(word, "single") == 0)
        return FACE_SINGLE;
    if (strcmp(word, "aligned") == 0)
        return FACE_ALIGNED;
    return strcmp(word, "all") == 0 ? FACE_ALL : FACE_LARGEST;
}
