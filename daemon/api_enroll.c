/* daemon/api_enroll.c - POST /enroll: store faces of a subject. Images that
 * cannot be used are told one by one; what is stored is stored all or
 * nothing, and once for one Idempotency-Key. Memory follows the record by
 * itself (store/gallery), so nothing is done here after the commit. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/form.h"

static const struct form_field fields[] = {
    {"subject", FORM_ID, NULL},
    {"image", FORM_IMAGES, NULL},
    {"gallery", FORM_ID, NULL},
    {"name", FORM_NAME, NULL},
    {"metadata", FORM_OBJECT, NULL},
    {"faces", FORM_CHOICE, "single|largest|aligned"},
    {NULL, FORM_IMAGE, NULL},
};

enum {
    IDEM_KEY_MAX = 128
};

/* An image whose face is there, and the id that it was stored with. */
struct example {
    const struct form_photo *from;
    int64_t id;
};

struct enroll {
    struct form form;
    const char *idem_key;
    uint8_t digest[CRYPTO_SHA256_LEN];
    struct form_photo photos[FORM_MAX_IMAGES]; /* of every image */
    struct example examples[FORM_MAX_IMAGES];
    int n;
};

static void enroll_free(void *state)
{
    struct enroll *e = state;

    form_fini(&e->form);
    for (int i = 0; i < FORM_MAX_IMAGES; i++)
        photo_fini(&e->photos[i].photo);
    free(e);
}

static int read_key(struct job *job, struct enroll *e, struct error *err)
{
    const char *key = request_header(job->req, "Idempotency-Key");
    size_t len = 0;

    if (!key)
        return 0;
    while (key[len] && isgraph((unsigned char)key[len]))
        len++;
    if (key[len] || len == 0 || len > IDEM_KEY_MAX)
        return error_set(err, ERR_BAD_REQUEST,
                         "Idempotency-Key is 1 to %d printable characters "
                         "without blanks",
                         IDEM_KEY_MAX);
    e->idem_key = key;
    return form_digest(job, e->digest, err);
}

/* A fault of the moment must fail the request, not an image: the same
 * request a minute later would be answered otherwise. */
static int read_images(struct job *job, struct enroll *e, struct error *err)
{
    const struct config *config = atomic_load(&job->server->config);
    const struct form *f = &e->form;
    enum face_choice choice = api_choice(form_text(f, "faces"), FACE_SINGLE);
    unsigned flags = PHOTO_EACH | (config->keep_crops ? PHOTO_KEEP : 0);

    for (int i = 0; i < f->n_images; i++)
        e->photos[i].image = &f->images[i];
    if (form_photos(job, e->photos, f->n_images, choice, flags, err) != 0)
        return -1;
    for (int i = 0; i < f->n_images; i++) {
        const struct form_photo *p = &e->photos[i];
        if (p->err.code != ERR_NONE)
            continue;
        e->examples[e->n++].from = p;
        if (job_add_chip(job, p->photo.chips[0].input, err) != 0)
            return -1;
    }
    if (e->n > 0)
        return 0;
    form_blame(job, e->photos[0].image);
    *err = e->photos[0].err;
    return -1;
}

int api_enroll_prepare(struct job *job, struct error *err)
{
    struct enroll *e = calloc(1, sizeof(*e));

    if (!e)
        return error_set(err, ERR_NOMEM, "no memory for the request");
    job->state = e;
    job->state_free = enroll_free;
    if (form_read(job, fields, &e->form, err) != 0 ||
        form_need(&e->form, "subject", err) != 0 ||
        form_need(&e->form, "image", err) != 0 || read_key(job, e, err) != 0)
        return -1;
    return read_images(job, e, err);
}

static void fill_face(const struct job *job, const struct enroll *e, int i,
                      struct store_new_face *out)
{
    const struct chip *chip = &e->examples[i].from->photo.chips[0];
    const struct box *b = &chip->face.box, *in = &chip->inner.box;

    *out = (struct store_new_face){
        .box = {b->x0, b->y0, b->x1, b->y1},
        .score = chip->face.score,
        .embedding = job_embedding(job, i),
        .dim = job->serving->model->contract.dim,
        .crop = chip->kept,
        .len_crop = chip->len_kept,
        .crop_box = {in->x0, in->y0, in->x1, in->y1},
    };
    memcpy(out->crop_points, chip->inner.points, sizeof(out->crop_points));
}

static int store(struct job *job, struct enroll *e, bool *created,
                 bool *replayed, struct error *err)
{
    struct store_new_face faces[FORM_MAX_IMAGES];
    int64_t ids[FORM_MAX_IMAGES] = {0}, began = server_now_us();
    struct store_enroll order = {
        .gallery = form_gallery(&e->form, job),
        .subject = form_text(&e->form, "subject"),
        .name = form_text(&e->form, "name"),
        .metadata = form_text(&e->form, "metadata"),
        .model_id = job->serving->model->id,
        .faces = faces,
        .n_faces = e->n,
        .idem_key = e->idem_key,
        .request_sha256 = e->idem_key ? e->digest : NULL,
    };
    int rc;

    for (int i = 0; i < e->n; i++)
        fill_face(job, e, i, &faces[i]);
    rc = store_enroll(job->server->store, &order, ids, created, replayed, err);
    stats_observe(STATS_STORE, (double)(server_now_us() - began) / 1e6);
    for (int i = 0; i < e->n; i++)
        e->examples[i].id = ids[i];
    return rc;
}

/* --- the answer -------------------------------------------------------- */

/* Appends row to list; -1 where either is missing. */
static int append(json_t *list, json_t *row)
{
    return json_array_append_new(list, row);
}

/* The nearest other subject within the threshold: the same person enrolled
 * twice, or two people that the model cannot tell apart. */
static int warn(struct job *job, const struct enroll *e, int i, json_t *face,
                json_t *warnings)
{
    const char *subject = form_text(&e->form, "subject");
    struct gallery_ask ask = {.gallery = form_gallery(&e->form, job),
                              .queries = job_embedding(job, i),
                              .n = 1,
                              .limit = 2};
    struct gallery_hit hits[2];
    struct api_limit limit;
    struct error why;
    int n = 0;

    if (api_limit(job, NULL, &limit, &why) == 0) {
        ask.threshold = (float)limit.threshold;
        if (api_search(job, &ask, hits, &n, &why) != 0)
            n = 0;
    }
    for (int k = 0; k < n; k++) {
        json_t *row;
        if (strcmp(hits[k].subject, subject) == 0)
            continue;
        row = json_pack(
            "{s:I, s:s, s:o}", "face", (json_int_t)e->examples[i].id, "subject",
            hits[k].subject, "distance", api_real((double)hits[k].distance, 6));
        if (append(warnings, row) != 0)
            return -1;
        return json_object_set_new(
            face, "warning",
            json_sprintf("this face is nearer to subject '%s' than the "
                         "threshold",
                         hits[k].subject));
    }
    return 0; /* what is stored stays stored where the search fails */
}

static json_t *faces_json(struct job *job, const struct enroll *e,
                          json_t *warnings)
{
    json_t *list = json_array();

    for (int i = 0; list && i < e->n; i++) {
        const struct example *x = &e->examples[i];
        json_t *row = api_photo_json(&x->from->photo);
        int rc = json_object_set_new(row, "id", json_integer(x->id));

        rc |= json_object_set_new(row, "index",
                                  json_integer(x->from->image->index));
        if (rc == 0)
            rc = warn(job, e, i, row, warnings);
        if (rc != 0)
            json_decref(row);
        if (rc != 0 || append(list, row) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *errors_json(const struct enroll *e)
{
    json_t *list = json_array();

    for (int i = 0; list && i < e->form.n_images; i++) {
        const struct error *err = &e->photos[i].err;
        if (err->code == ERR_NONE)
            continue;
        if (append(list, json_pack("{s:i, s:s, s:s}", "index",
                                   e->photos[i].image->index, "code",
                                   error_wire(err->code), "detail",
                                   err->text)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

int api_enroll_finish(struct job *job, struct error *err)
{
    struct enroll *e = job->state;
    bool created = false, replayed = false;
    json_t *warnings, *faces;

    if (store(job, e, &created, &replayed, err) != 0)
        return -1;
    warnings = json_array();
    faces = faces_json(job, e, warnings);
    job_answer(job, 201,
               json_pack("{s:s, s:s, s:b, s:b, s:o, s:o, s:o, s:o, s:o}",
                         "subject", form_text(&e->form, "subject"), "gallery",
                         form_gallery(&e->form, job), "created", created,
                         "replayed", replayed, "faces", faces, "errors",
                         errors_json(e), "warnings", warnings, "model",
                         api_model_json(job), "timings_ms",
                         api_timings_json(job)));
    return 0;
}
