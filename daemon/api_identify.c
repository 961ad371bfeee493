/* daemon/api_identify.c - POST /identify: who of a gallery is in the photo?
 * One row a subject, its nearest example named, none beyond the threshold. */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/form.h"

static const struct form_field fields[] = {
    {"image", FORM_IMAGE, NULL},
    {"limit", FORM_LIMIT, NULL},
    {"threshold", FORM_DISTANCE, NULL},
    {"gallery", FORM_ID, NULL},
    {"far", FORM_RATE, NULL},
    {"faces", FORM_CHOICE, "largest|all|aligned"},
    {NULL, FORM_IMAGE, NULL},
};

enum {
    DEFAULT_LIMIT = 10,
    FACES_AT_ONCE = 32 /* searched together */
};

struct identify {
    struct form form;
    struct form_photo look;
    struct api_limit limit;
};

static void identify_free(void *state)
{
    struct identify *q = state;

    form_fini(&q->form);
    photo_fini(&q->look.photo);
    free(q);
}

int api_identify_prepare(struct job *job, struct error *err)
{
    struct identify *q = calloc(1, sizeof(*q));
    enum face_choice choice;

    if (!q)
        return error_set(err, ERR_NOMEM, "no memory for the request");
    job->state = q;
    job->state_free = identify_free;
    if (form_read(job, fields, &q->form, err) != 0 ||
        form_need(&q->form, "image", err) != 0 ||
        api_limit(job, &q->form, &q->limit, err) != 0)
        return -1;
    choice = api_choice(form_text(&q->form, "faces"), FACE_LARGEST);
    q->look.image = form_image(&q->form, "image");
    if (form_photos(job, &q->look, 1, choice, 0, err) != 0)
        return -1;
    for (int i = 0; i < q->look.photo.n_chips; i++)
        if (job_add_chip(job, q->look.photo.chips[i].input, err) != 0)
            return -1;
    return 0;
}

static json_t *candidates_json(const struct gallery_hit *hits, int n)
{
    json_t *list = json_array();

    for (int i = 0; list && i < n; i++) {
        json_t *row = json_pack(
            "{s:s, s:s, s:o, s:I}", "subject", hits[i].subject, "name",
            hits[i].name, "distance", api_real((double)hits[i].distance, 6),
            "face", (json_int_t)hits[i].face);
        if (json_array_append_new(list, row) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* Rows of n faces from first on. hits [n,limit]. */
static int add_faces(struct job *job, struct gallery_ask *ask, int first,
                     struct gallery_hit *hits, json_t *list, struct error *err)
{
    const struct identify *q = job->state;
    int n_hits[FACES_AT_ONCE];

    ask->queries = job_embedding(job, first);
    if (api_search(job, ask, hits, n_hits, err) != 0)
        return -1;
    for (int i = 0; i < ask->n; i++) {
        json_t *row = api_face_json(&q->look.photo.chips[first + i].face);
        json_t *found =
            candidates_json(hits + (size_t)i * (size_t)ask->limit, n_hits[i]);

        if (json_object_set_new(row, "candidates", found) != 0 ||
            json_array_append(list, row) != 0) {
            json_decref(row);
            return error_set(err, ERR_NOMEM, "no memory for the answer");
        }
        json_decref(row);
    }
    return 0;
}

/* One row for each chosen face. NULL with err. */
static json_t *faces_json(struct job *job, const char *gallery, int limit,
                          struct error *err)
{
    const struct identify *q = job->state;
    int n = q->look.photo.n_chips, rc = 0;
    int most = n < FACES_AT_ONCE ? n : FACES_AT_ONCE;
    struct gallery_hit *hits =
        calloc((size_t)most * (size_t)limit, sizeof(*hits));
    json_t *list = json_array();

    if (!hits || !list)
        rc = error_set(err, ERR_NOMEM, "no memory for the answer");
    for (int i = 0; rc == 0 && i < n; i += most) {
        struct gallery_ask ask = {.gallery = gallery,
                                  .n = n - i < most ? n - i : most,
                                  .threshold = (float)q->limit.threshold,
                                  .limit = limit};
        rc = add_faces(job, &ask, i, hits, list, err);
    }
    free(hits);
    if (rc == 0)
        return list;
    json_decref(list);
    return NULL;
}

int api_identify_finish(struct job *job, struct error *err)
{
    const struct identify *q = job->state;
    const char *gallery = form_gallery(&q->form, job);
    const struct config *config = atomic_load(&job->server->config);
    double usual = config->search_limit_max < DEFAULT_LIMIT
                       ? (double)config->search_limit_max
                       : DEFAULT_LIMIT;
    int limit = (int)form_number(&q->form, "limit", usual);
    struct store_gallery found;
    json_t *faces;

    /* An empty answer for a mistyped gallery would read as "a stranger". */
    if (form_given(&q->form, "gallery") &&
        store_gallery_get(job->server->store, gallery, &found, err) != 0 &&
        err->code == ERR_NO_GALLERY)
        return -1;
    faces = faces_json(job, gallery, limit, err);
    if (!faces)
        return -1;
    job_answer(job, 200,
               json_pack("{s:o, s:s, s:o, s:o, s:s, s:o, s:i, s:i, s:i, s:o}",
                         "faces", faces, "gallery", gallery, "threshold",
                         api_real(q->limit.threshold, 6), "far",
                         api_far_json(q->limit.far), "metric", "l2_squared",
                         "model", api_model_json(job), "faces_found",
                         q->look.photo.n_faces, "width", q->look.photo.width,
                         "height", q->look.photo.height, "timings_ms",
                         api_timings_json(job)));
    return 0;
}
