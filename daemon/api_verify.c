/* daemon/api_verify.c - POST /verify: are two photos of one person, or is a
 * photo of a subject? */
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"
#include "daemon/api.h"
#include "daemon/form.h"

static const struct form_field fields[] = {
    {"image1", FORM_IMAGE, NULL},
    {"image2", FORM_IMAGE, NULL},
    {"image", FORM_IMAGE, NULL},
    {"subject", FORM_ID, NULL},
    {"gallery", FORM_ID, NULL},
    {"threshold", FORM_DISTANCE, NULL},
    {"far", FORM_RATE, NULL},
    {"faces", FORM_CHOICE, "largest|single|aligned"},
    {NULL, FORM_IMAGE, NULL},
};

struct verify {
    struct form form;
    const char *names[2]; /* "image1", "image2"; or "image", "subject" */
    int n;
    struct api_limit limit;
    struct form_photo photos[2];
};

static void verify_free(void *state)
{
    struct verify *v = state;

    form_fini(&v->form);
    for (int i = 0; i < 2; i++)
        photo_fini(&v->photos[i].photo);
    free(v);
}

/* Either two images, or an image and a subject. */
static int check(struct verify *v, struct error *err)
{
    const struct form *f = &v->form;
    bool pair = form_given(f, "image1") || form_given(f, "image2");

    if (pair && (form_given(f, "image") || form_given(f, "subject") ||
                 form_given(f, "gallery")))
        return error_set(err, ERR_BAD_FIELD,
                         "give image1 and image2, or image and subject (with "
                         "its gallery), not both");
    if (!pair && !form_given(f, "image") && !form_given(f, "subject"))
        return error_set(err, ERR_BAD_FIELD,
                         "fields are missing: image1 and image2, or image and "
                         "subject");
    v->names[0] = pair ? "image1" : "image";
    v->names[1] = pair ? "image2" : "subject";
    v->n = pair ? 2 : 1;
    if (form_need(f, v->names[0], err) != 0)
        return -1;
    if (!pair && !form_given(f, "subject"))
        return error_set(err, ERR_BAD_FIELD,
                         "field 'subject' is missing: image goes with subject, "
                         "two photos are image1 and image2");
    return form_need(f, v->names[1], err);
}

int api_verify_prepare(struct job *job, struct error *err)
{
    struct verify *v = calloc(1, sizeof(*v));
    enum face_choice choice;

    if (!v)
        return error_set(err, ERR_NOMEM, "no memory for the request");
    job->state = v;
    job->state_free = verify_free;
    if (form_read(job, fields, &v->form, err) != 0 || check(v, err) != 0 ||
        api_limit(job, &v->form, &v->limit, err) != 0)
        return -1;
    choice = api_choice(form_text(&v->form, "faces"), FACE_LARGEST);
    for (int i = 0; i < v->n; i++)
        v->photos[i].image = form_image(&v->form, v->names[i]);
    if (form_photos(job, v->photos, v->n, choice, 0, err) != 0)
        return -1;
    for (int i = 0; i < v->n; i++)
        if (job_add_chip(job, v->photos[i].photo.chips[0].input, err) != 0)
            return -1;
    return 0;
}

static json_t *answer(struct job *job, const struct verify *v, double distance)
{
    json_t *faces = json_object();

    for (int i = 0; i < v->n; i++) {
        if (json_object_set_new(faces, v->names[i],
                                api_photo_json(&v->photos[i].photo)) != 0) {
            json_decref(faces);
            return NULL;
        }
    }
    return json_pack("{s:b, s:o, s:o, s:o, s:s, s:o, s:o, s:o}", "match",
                     distance <= v->limit.threshold, "distance",
                     api_real(distance, 6), "threshold",
                     api_real(v->limit.threshold, 6), "far",
                     api_far_json(v->limit.far), "metric", "l2_squared",
                     "model", api_model_json(job), "faces", faces, "timings_ms",
                     api_timings_json(job));
}

/* The nearest of the subject's examples; *examples: how many there are, -1
 * where the record cannot be asked. */
static int nearest(struct job *job, const char *gallery, const char *subject,
                   struct gallery_hit *hit, int *examples, struct error *err)
{
    struct store *store = job->server->store;
    struct store_subject found;
    struct error why = {.code = ERR_NONE};

    *examples = -1;
    if (store_subject_get(store, gallery, subject, &found, &why) == 0) {
        *examples = found.n_faces;
        store_subject_fini(&found);
    } else if (why.code == ERR_NO_SUBJECT) {
        return error_set(err, ERR_NO_SUBJECT,
                         "there is no subject '%s' in gallery '%s'", subject,
                         gallery);
    }
    if (gallery_subject(job->serving->gallery, gallery, subject,
                        job_embedding(job, 0), hit, err) == 0)
        return 0;
    if (err->code == ERR_NOMEM)
        atomic_store(&job->serving->gallery_stale, true);
    if (err->code == ERR_NO_SUBJECT && *examples >= 0)
        return error_set(err, ERR_CONFLICT,
                         "subject '%s' has no face that the model in use has "
                         "embedded: enroll one",
                         subject);
    return -1;
}

static int finish_subject(struct job *job, struct verify *v, struct error *err)
{
    const char *subject = form_text(&v->form, "subject");
    const char *gallery = form_gallery(&v->form, job);
    struct gallery_hit hit;
    json_t *body;
    int examples;

    if (nearest(job, gallery, subject, &hit, &examples, err) != 0)
        return -1;
    body = answer(job, v, (double)hit.distance);
    if (body &&
        (json_object_set_new(body, "subject", json_string(subject)) ||
         json_object_set_new(body, "gallery", json_string(gallery)) ||
         json_object_set_new(body, "face", json_integer(hit.face)) ||
         (examples >= 0 &&
          json_object_set_new(body, "examples", json_integer(examples))))) {
        json_decref(body);
        body = NULL;
    }
    job_answer(job, 200, body);
    return 0;
}

int api_verify_finish(struct job *job, struct error *err)
{
    struct verify *v = job->state;
    double distance;

    if (v->n == 1)
        return finish_subject(job, v, err);
    distance = (double)distance_l2(job_embedding(job, 0), job_embedding(job, 1),
                                   (size_t)job->serving->model->contract.dim);
    job_answer(job, 200, answer(job, v, distance));
    return 0;
}
