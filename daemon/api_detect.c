/* daemon/api_detect.c - POST /detect: where the faces of a photo are; and
 * POST /embed: their embeddings, for those whose key lets them out. */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/form.h"

static const struct form_field detect_fields[] = {
    {"image", FORM_IMAGE, NULL},
    {NULL, FORM_IMAGE, NULL},
};

static const struct form_field embed_fields[] = {
    {"image", FORM_IMAGE, NULL},
    {"faces", FORM_CHOICE, "largest|single|all|aligned"},
    {NULL, FORM_IMAGE, NULL},
};

struct look {
    struct form form;
    struct form_photo look;
};

static void look_free(void *state)
{
    struct look *l = state;

    form_fini(&l->form);
    photo_fini(&l->look.photo);
    free(l);
}

static struct look *look_new(struct job *job, const struct form_field *fields,
                             struct error *err)
{
    struct look *l = calloc(1, sizeof(*l));

    if (!l)
        return error_null(err, ERR_NOMEM, "no memory for the request");
    job->state = l;
    job->state_free = look_free;
    if (form_read(job, fields, &l->form, err) != 0 ||
        form_need(&l->form, "image", err) != 0)
        return NULL;
    l->look.image = form_image(&l->form, "image");
    return l;
}

/* {width, height, faces_found, faces, timings_ms}; embedding: a row of each
 * face, or NULL. */
static json_t *look_json(struct job *job, bool embeddings)
{
    const struct look *l = job->state;
    int dim = job->serving->model->contract.dim;
    json_t *faces = json_array();

    for (int i = 0; faces && i < l->look.photo.n_chips; i++) {
        json_t *row = api_face_json(&l->look.photo.chips[i].face),
               *values = NULL;
        int rc = row ? 0 : -1;

        if (rc == 0 && embeddings) {
            const float *v = job_embedding(job, i);
            values = json_array();
            for (int k = 0; rc == 0 && k < dim; k++)
                rc = json_array_append_new(values, json_real((double)v[k]));
            rc |= json_object_set_new(row, "embedding", values);
        }
        if (rc != 0)
            json_decref(row);
        else
            rc = json_array_append_new(faces, row);
        if (rc != 0) {
            json_decref(faces);
            faces = NULL;
        }
    }
    return json_pack("{s:i, s:i, s:i, s:o, s:o}", "width", l->look.photo.width,
                     "height", l->look.photo.height, "faces_found",
                     l->look.photo.n_faces, "faces", faces, "timings_ms",
                     api_timings_json(job));
}

int api_detect_prepare(struct job *job, struct error *err)
{
    struct look *l = look_new(job, detect_fields, err);

    if (!l)
        return -1;
    if (form_photos(job, &l->look, 1, FACE_ALL, PHOTO_NO_CHIPS, err) != 0 &&
        err->code != ERR_NO_FACE) /* an empty list is an answer here */
        return -1;
    return 0;
}

int api_detect_finish(struct job *job, struct error *err)
{
    (void)err;
    job_answer(job, 200, look_json(job, false));
    return 0;
}

int api_embed_prepare(struct job *job, struct error *err)
{
    struct look *l = look_new(job, embed_fields, err);
    enum face_choice choice;

    if (!l)
        return -1;
    choice = api_choice(form_text(&l->form, "faces"), FACE_LARGEST);
    if (form_photos(job, &l->look, 1, choice, 0, err) != 0)
        return -1;
    for (int i = 0; i < l->look.photo.n_chips; i++)
        if (job_add_chip(job, l->look.photo.chips[i].input, err) != 0)
            return -1;
    return 0;
}

int api_embed_finish(struct job *job, struct error *err)
{
    json_t *body = look_json(job, true);

    (void)err;
    if (body && json_object_set_new(body, "model", api_model_json(job)) != 0) {
        json_decref(body);
        body = NULL;
    }
    job_answer(job, 200, body);
    return 0;
}
