/* daemon/api_calibrate.c - POST /admin/calibrate: every pair of a gallery's
 * enrolled faces, subjects taken as people, to thresholds for stated
 * false-accept rates; put in force where that is asked for. */
#include "daemon/api.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/calibrate.h"
#include "daemon/log.h"
#include "daemon/thresholds.h"

/* Multiplications that one request may cost, some two seconds of a core: of a
 * gallery with more faces some subjects are taken, always the same ones. */
#define MOST_PRODUCTS 2e10

struct ask {
    char gallery[STORE_ID_MAX + 1];
    double far[CALIBRATE_MAX_RATES];
    int n_far;
    bool apply;
};

struct face_of {
    char subject[STORE_ID_MAX + 1];
    int row;
};
struct sample {
    struct face_of *faces;
    float *rows; /* [n,dim] */
    int *person; /* [n] */
    int n, cap, dim;
    double part; /* of the subjects that is taken */
};

/* --- what is asked ------------------------------------------------------- */

static int read_far(const json_t *list, struct ask *out, struct error *err)
{
    const json_t *v;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) < 1 ||
        json_array_size(list) > CALIBRATE_MAX_RATES)
        return error_set(err, ERR_BAD_FIELD,
                         "field 'far' is an array of 1 to %d rates",
                         CALIBRATE_MAX_RATES);
    json_array_foreach((json_t *)list, i, v)
    {
        if (!json_is_number(v))
            return error_set(err, ERR_BAD_FIELD,
                             "field 'far' holds what is no number");
        out->far[out->n_far++] = json_number_value(v);
    }
    return 0;
}

static int read_field(const char *key, const json_t *value, struct ask *out,
                      struct error *err)
{
    const char *id = json_string_value(value);

    if (strcmp(key, "far") == 0)
        return read_far(value, out, err);
    if (strcmp(key, "apply") == 0) {
        out->apply = json_is_true(value);
        return json_is_boolean(value)
                   ? 0
                   : error_set(err, ERR_BAD_FIELD,
                               "field 'apply' is true or false");
    }
    if (strcmp(key, "gallery") == 0) {
        if (!id || !store_id_valid(id))
            return error_set(err, ERR_BAD_FIELD, "field 'gallery' is no id");
        snprintf(out->gallery, sizeof(out->gallery), "%s", id);
        return 0;
    }
    return error_set(err, ERR_BAD_FIELD,
                     "there is no field '%.40s'; there are gallery, far and "
                     "apply",
                     key);
}

static int read_ask(struct job *job, struct ask *out, struct error *err)
{
    const struct config *config = atomic_load(&job->server->config);
    json_error_t where;
    json_t *root, *value;
    const uint8_t *body;
    const char *key;
    size_t len;
    int rc = 0;

    memset(out, 0, sizeof(*out));
    snprintf(out->gallery, sizeof(out->gallery), "%s", config->default_gallery);
    if (request_body_kind(job->req) != BODY_JSON)
        return error_set(err, ERR_MEDIA_TYPE,
                         "the body must be application/json");
    body = request_body(job->req, &len);
    root = json_loadb((const char *)body, len, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root))
        rc = error_set(err, ERR_BAD_JSON, "the body is no JSON object: %.80s",
                       root ? "it is something else" : where.text);
    else
        json_object_foreach(root, key, value)
        {
            rc = rc ? rc : read_field(key, value, out, err);
        }
    json_decref(root);
    return rc;
}

/* --- the faces ------------------------------------------------------------ */

/* 0..1, by the subject's id alone. */
static double lot(const char *subject)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (; *subject; subject++)
        h = (h ^ (unsigned char)*subject) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return (double)(h >> 11) / 9007199254740992.0;
}

static bool take_face(void *ctx, int64_t face, const char *subject,
                      const float *embedding)
{
    struct sample *s = ctx;

    (void)face;
    if (s->part < 1 && lot(subject) >= s->part)
        return true;
    memcpy(s->rows + (size_t)s->n * (size_t)s->dim, embedding,
           (size_t)s->dim * sizeof(float));
    snprintf(s->faces[s->n].subject, sizeof(s->faces[s->n].subject), "%s",
             subject);
    s->faces[s->n].row = s->n;
    return ++s->n < s->cap;
}

static int by_subject(const void *a, const void *b)
{
    const struct face_of *x = a, *y = b;

    return strcmp(x->subject, y->subject);
}

static void sample_fini(struct sample *s)
{
    if (s->rows) /* vectors of people should not outlive their use */
        explicit_bzero(s->rows,
                       (size_t)s->cap * (size_t)s->dim * sizeof(float));
    free(s->rows);
    free(s->faces);
    free(s->person);
}

static int sample_init(struct sample *s, struct job *job, const char *gallery,
                       int64_t n_faces, struct error *err)
{
    double most = sqrt(MOST_PRODUCTS / job->serving->model->contract.dim);
    int person = 0;

    s->dim = job->serving->model->contract.dim;
    s->part = (double)n_faces <= most ? 1 : most / (double)n_faces;
    s->cap = (int)most + 1;
    s->rows = malloc((size_t)s->cap * (size_t)s->dim * sizeof(float));
    s->faces = malloc((size_t)s->cap * sizeof(*s->faces));
    s->person = malloc((size_t)s->cap * sizeof(int));
    if (!s->rows || !s->faces || !s->person)
        return error_set(err, ERR_NOMEM, "no memory for %d faces", s->cap);
    if (gallery_each(job->serving->gallery, gallery, take_face, s, err) < 0)
        return -1;
    qsort(s->faces, (size_t)s->n, sizeof(*s->faces), by_subject);
    for (int i = 0; i < s->n; i++) {
        if (i > 0 && strcmp(s->faces[i].subject, s->faces[i - 1].subject) != 0)
            person++;
        s->person[s->faces[i].row] = person;
    }
    return 0;
}

/* --- the answer ----------------------------------------------------------- */

static json_t *number(double v)
{
    return isnan(v) ? json_null() : json_real(v);
}

static json_t *rates_json(const struct calibration *c)
{
    json_t *list = json_array();

    for (int i = 0; list && i < c->n_rates; i++) {
        const struct calibrate_rate *r = &c->rates[i];
        json_t *row = json_pack(
            "{s:f, s:o, s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o}", "far", r->far,
            "threshold", api_real(r->threshold, 6), "accepted",
            (json_int_t)r->n_accepted, "far_measured", number(r->far_measured),
            "far_low", number(r->far_low), "far_high", number(r->far_high),
            "rejected", (json_int_t)r->n_rejected, "frr", number(r->frr),
            "frr_low", number(r->frr_low), "frr_high", number(r->frr_high));
        if (json_array_append_new(list, row) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *answer(const struct job *job, const struct ask *ask,
                      const struct calibration *c, int64_t n_faces)
{
    return json_pack("{s:s, s:o, s:s, s:I, s:i, s:i, s:i, s:I, s:I, s:s, s:o, "
                     "s:b}",
                     "gallery", ask->gallery, "model", api_model_json(job),
                     "metric", "l2_squared", "faces_in_gallery",
                     (json_int_t)n_faces, "faces", c->n_faces, "people",
                     c->n_people, "people_paired", c->n_paired, "genuine",
                     (json_int_t)c->n_genuine, "impostor",
                     (json_int_t)c->n_impostor, "interval", "wilson 0.95",
                     "thresholds", rates_json(c), "applied", ask->apply);
}

/* Put rows in force for the model that serves; none: its own again. With the
 * setting far, one of them must be for that rate: no request without one of
 * its own could be answered, and no start would work. */
static int apply(struct job *job, const struct model_threshold *rows, int n,
                 struct error *err)
{
    const struct model *m = job->serving->model;
    double far = atomic_load(&job->server->config)->far;
    struct model_threshold all[MODEL_MAX_THRESHOLDS];

    if (n > 0)
        memcpy(all, rows, (size_t)n * sizeof(*rows));
    if (far > 0 &&
        !model_threshold(all, thresholds_merge(&m->contract, all, n), far))
        return error_set(err, ERR_CONFLICT,
                         "setting far = %g: the model would have no threshold "
                         "for that false-accept rate or less",
                         far);
    return thresholds_apply(job->server->thresholds, m->id, rows, n, err);
}

static int calibrate(struct job *job, const struct ask *ask, struct error *err)
{
    struct server *server = job->server;
    const struct calibrate_options opt = {
        .far = ask->far, .n_far = ask->n_far, .stop = &server->stopping};
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    struct store_gallery gallery;
    struct calibration c;
    struct sample s = {0};
    json_t *body;
    int rc = -1;

    if (store_gallery_get(server->store, ask->gallery, &gallery, err) != 0)
        return -1;
    if (sample_init(&s, job, ask->gallery, gallery.n_faces, err) == 0)
        rc = calibrate_faces(s.rows, s.person, s.n, s.dim, &opt, &c, err);
    sample_fini(&s);
    if (rc != 0)
        return error_context(err, "gallery '%s'", ask->gallery);
    body = answer(job, ask, &c, gallery.n_faces);
    if (!body)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    if (ask->apply &&
        apply(job, rows, calibrate_thresholds(&c, rows), err) != 0) {
        json_decref(body);
        return -1;
    }
    log_event(LOG_LEVEL_INFO, "calibrate",
              "gallery=%s model=%.12s faces=%d people=%d rates=%d applied=%d",
              ask->gallery, job->serving->model->id, c.n_faces, c.n_people,
              c.n_rates, ask->apply);
    job_answer(job, 200, body);
    return 0;
}

/* One at a time: a second would only slow both down, and thresholds are
 * written by one. */
static int enter(struct server *s, struct error *err)
{
    if (!atomic_exchange(&s->calibrating, true))
        return 0;
    return error_set(err, ERR_CONFLICT, "a calibration is running already");
}

int api_calibrate(struct job *job, struct error *err)
{
    struct ask ask;
    int rc;

    if (read_ask(job, &ask, err) != 0 || enter(job->server, err) != 0)
        return -1;
    rc = calibrate(job, &ask, err);
    atomic_store(&job->server->calibrating, false);
    return rc;
}

int api_calibrate_remove(struct job *job, struct error *err)
{
    struct model_threshold rows[MODEL_MAX_THRESHOLDS];
    bool own;
    int rc = 0;

    if (enter(job->server, err) != 0)
        return -1;
    thresholds_of(job->server->thresholds, job->serving->model, rows, &own);
    if (own)
        rc = apply(job, NULL, 0, err);
    atomic_store(&job->server->calibrating, false);
    if (rc != 0)
        return -1;
    job_answer(
        job, 200,
        json_pack("{s:o, s:b}", "model", api_model_json(job), "removed", own));
    return 0;
}
