/* store/store_enroll.c - enrolment in the record: a subject, its faces, their
 * embeddings and crops, and the answer kept for a repeated request, all in
 * one operation. */
#include "store/store_priv.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    IDEM_LIFE_S = 24 * 3600,
    IDEM_PURGE_S = 600
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "floats and ids are stored as they lie in memory");

struct enroll_args {
    const struct store_enroll *e;
    int64_t *ids;
    bool created, replayed;
    int64_t subject, model, now;
    char name[STORE_NAME_MAX + 1]; /* the subject's after this */
};

static int check_finite(const float *v, int n, const char *what, int face,
                        struct error *err)
{
    for (int i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            return error_set(err, ERR_BAD_FIELD,
                             "face %d: %s: not a finite number", face, what);
    }
    return 0;
}

static int check_face(const struct store_new_face *f, int index, int dim,
                      struct error *err)
{
    if (f->dim != dim || f->dim < 1 || f->dim > STORE_DIM_MAX || !f->embedding)
        return error_set(err, ERR_BAD_FIELD,
                         "face %d: an embedding of %d numbers (1 to %d, and "
                         "all alike)",
                         index, f->dim, STORE_DIM_MAX);
    if (f->crop && (f->len_crop == 0 || f->len_crop > STORE_CROP_MAX))
        return error_set(err, ERR_TOO_LARGE,
                         "face %d: a crop of %zu bytes, at most %d are kept",
                         index, f->len_crop, STORE_CROP_MAX);
    if (check_finite(f->embedding, f->dim, "embedding", index, err) < 0 ||
        check_finite(f->box, 4, "box", index, err) < 0 ||
        check_finite(&f->score, 1, "score", index, err) < 0)
        return -1;
    return 0;
}

static int check_enroll(const struct store_enroll *e, struct error *err)
{
    if (store_check_id("gallery", e->gallery, err) < 0 ||
        store_check_id("subject", e->subject, err) < 0 ||
        store_check_name(e->name, err) < 0 ||
        store_check_metadata(e->metadata, err) < 0 ||
        store_check_model(e->model_id, err) < 0)
        return -1;
    if (e->n_faces < 0 || e->n_faces > STORE_FACES_MAX)
        return error_set(err, ERR_BAD_FIELD, "faces: %d, at most %d at once",
                         e->n_faces, STORE_FACES_MAX);
    for (int i = 0; i < e->n_faces; i++) {
        if (check_face(&e->faces[i], i + 1, e->faces[0].dim, err) < 0)
            return -1;
    }
    if (!e->idem_key)
        return 0;
    if (!e->request_sha256)
        return error_set(err, ERR_BAD_FIELD,
                         "idempotency key: no digest of the request");
    if (!*e->idem_key || strlen(e->idem_key) > STORE_IDEM_KEY_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "idempotency key: 1 to %d bytes are allowed",
                         STORE_IDEM_KEY_MAX);
    return 0;
}

/* 1: the key is known and the first answer is in a; 0: new; -1. */
static int find_replay(struct store *s, struct enroll_args *a,
                       struct error *err)
{
    const struct store_enroll *e = a->e;
    uint8_t digest[CRYPTO_SHA256_LEN];
    bool whole;
    int rc;

    if (!e->idem_key)
        return 0;
    /* A clock that was set back must not make a key live for ever. */
    rc = store_sql_run(s, STMT_IDEM_GET, err, "tii", e->idem_key,
                       a->now - IDEM_LIFE_S, a->now + IDEM_LIFE_S);
    if (rc <= 0)
        return rc;
    if (!store_sql_blob(s, STMT_IDEM_GET, 0, digest, sizeof(digest)) ||
        memcmp(digest, e->request_sha256, sizeof(digest)) != 0) {
        store_sql_done(s, STMT_IDEM_GET);
        return error_set(err, ERR_IDEMPOTENCY,
                         "the idempotency key was used for another request");
    }
    whole =
        e->n_faces == 0 || store_sql_blob(s, STMT_IDEM_GET, 1, a->ids,
                                          (size_t)e->n_faces * sizeof(*a->ids));
    a->created = store_sql_int(s, STMT_IDEM_GET, 2) != 0;
    store_sql_done(s, STMT_IDEM_GET);
    if (!whole)
        return error_set(err, ERR_IDEMPOTENCY,
                         "the idempotency key was used for a request with "
                         "another number of faces");
    a->replayed = true;
    return 1;
}

static int keep_answer(struct store *s, const struct enroll_args *a,
                       struct error *err)
{
    if (a->now - s->purged_s >= IDEM_PURGE_S || a->now < s->purged_s) {
        if (store_sql_run(s, STMT_IDEM_PURGE, err, "ii", a->now - IDEM_LIFE_S,
                          a->now + IDEM_LIFE_S) < 0)
            return -1;
        s->purged_s = a->now;
    }
    if (!a->e->idem_key)
        return 0;
    /* Without faces the ids are an empty blob, not NULL. */
    return store_sql_run(
        s, STMT_IDEM_ADD, err, "tbbii", a->e->idem_key, a->e->request_sha256,
        (size_t)CRYPTO_SHA256_LEN, a->e->n_faces ? (void *)a->ids : (void *)"",
        (size_t)a->e->n_faces * sizeof(*a->ids), (int64_t)a->created, a->now);
}

static int need_gallery(struct store *s, const struct enroll_args *a,
                        int64_t *id, struct error *err)
{
    int rc = store_sql_run(s, STMT_GALLERY_ID, err, "t", a->e->gallery);

    if (rc < 0)
        return -1;
    if (rc > 0) {
        *id = store_sql_int(s, STMT_GALLERY_ID, 0);
        store_sql_done(s, STMT_GALLERY_ID);
        return 0;
    }
    if (store_sql_run(s, STMT_GALLERY_ADD, err, "ti", a->e->gallery, a->now) <
        0)
        return -1;
    *id = sqlite3_last_insert_rowid(s->db);
    return 0;
}

static int new_subject(struct store *s, struct enroll_args *a,
                       struct error *err)
{
    const struct store_enroll *e = a->e;
    const char *metadata = e->metadata && *e->metadata ? e->metadata : NULL;
    int64_t gallery;

    if (need_gallery(s, a, &gallery, err) < 0)
        return -1;
    if (store_sql_run(s, STMT_SUBJECT_ADD, err, "ittti", gallery, e->subject,
                      e->name ? e->name : "", metadata, a->now) < 0)
        return -1;
    a->subject = sqlite3_last_insert_rowid(s->db);
    a->created = true;
    snprintf(a->name, sizeof(a->name), "%s", e->name ? e->name : "");
    return 0;
}

static int old_subject(struct store *s, struct enroll_args *a,
                       struct error *err)
{
    const struct store_enroll *e = a->e;

    if (e->name)
        snprintf(a->name, sizeof(a->name), "%s", e->name);
    if (e->name && store_sql_run(s, STMT_SUBJECT_NAME, err, "iti", a->subject,
                                 e->name, a->now) < 0)
        return -1;
    if (e->metadata &&
        store_sql_run(s, STMT_SUBJECT_METADATA, err, "iti", a->subject,
                      *e->metadata ? e->metadata : NULL, a->now) < 0)
        return -1;
    return store_sql_run(s, STMT_SUBJECT_TOUCH, err, "ii", a->subject, a->now);
}

static int need_subject(struct store *s, struct enroll_args *a,
                        struct error *err)
{
    const struct store_enroll *e = a->e;
    int64_t n_faces = 0;
    int rc =
        store_sql_run(s, STMT_SUBJECT_ID, err, "tt", e->gallery, e->subject);

    if (rc < 0)
        return -1;
    if (rc > 0) {
        a->subject = store_sql_int(s, STMT_SUBJECT_ID, 0);
        store_sql_text(s, STMT_SUBJECT_ID, 1, a->name, sizeof(a->name));
        n_faces = store_sql_int(s, STMT_SUBJECT_ID, 2);
        store_sql_done(s, STMT_SUBJECT_ID);
    }
    if (n_faces + e->n_faces > s->max_faces)
        return error_set(err, ERR_QUOTA,
                         "subject %s: it has %lld faces, %d more are over the "
                         "limit of %d",
                         e->subject, (long long)n_faces, e->n_faces,
                         s->max_faces);
    if (store_check_json(s, e->metadata, err) < 0)
        return -1;
    return rc > 0 ? old_subject(s, a, err) : new_subject(s, a, err);
}

/* An embedding of a model that no longer answers would not be found. */
static int need_active(struct store *s, const char *model_id, struct error *err)
{
    char active[STORE_MODEL_ID_LEN + 1];
    int rc = store_sql_run(s, STMT_SERVING_GET, err, "");

    if (rc <= 0)
        return rc;
    store_sql_text(s, STMT_SERVING_GET, 0, active, sizeof(active));
    store_sql_done(s, STMT_SERVING_GET);
    if (strcmp(active, model_id) == 0)
        return 0;
    return error_set(err, ERR_MODEL_CHANGED,
                     "another model took over while the faces were embedded");
}

static int need_model(struct store *s, struct enroll_args *a, struct error *err)
{
    const struct store_enroll *e = a->e;
    int64_t dim;
    int rc;

    if (e->n_faces == 0)
        return 0;
    if (need_active(s, e->model_id, err) < 0)
        return -1;
    rc = store_sql_run(s, STMT_MODEL_GET, err, "t", e->model_id);
    if (rc < 0)
        return -1;
    if (rc == 0) {
        if (store_sql_run(s, STMT_MODEL_ADD, err, "tii", e->model_id,
                          (int64_t)e->faces[0].dim, a->now) < 0)
            return -1;
        a->model = sqlite3_last_insert_rowid(s->db);
        return 0;
    }
    a->model = store_sql_int(s, STMT_MODEL_GET, 0);
    dim = store_sql_int(s, STMT_MODEL_GET, 1);
    store_sql_done(s, STMT_MODEL_GET);
    if (dim != e->faces[0].dim)
        return error_set(err, ERR_CONFLICT,
                         "an embedding of %d numbers, but the model's have "
                         "%lld",
                         e->faces[0].dim, (long long)dim);
    return 0;
}

/* The crop follows its row, as it is sealed for the id that the row got. */
static int add_crop(struct store *s, const struct enroll_args *a,
                    const struct store_new_face *f, int64_t id,
                    struct error *err)
{
    size_t len = f->len_crop + CRYPTO_SEAL_EXTRA;
    char owner[256];
    uint8_t *box;
    int rc;

    if (!s->has_key)
        return store_sql_run(s, STMT_FACE_CROP_SET, err, "ib", id, f->crop,
                             f->len_crop);
    box = malloc(len);
    if (!box)
        return error_set(err, ERR_NOMEM, "crop: out of memory");
    store_seal_owner(owner, sizeof(owner), id, a->e->gallery, a->e->subject);
    rc = crypto_seal(s->crop_key, owner, strlen(owner), f->crop, f->len_crop,
                     box, err);
    if (rc == 0)
        rc = store_sql_run(s, STMT_FACE_CROP_SET, err, "ib", id, box, len);
    free(box);
    return rc;
}

static int add_face(struct store *s, const struct enroll_args *a,
                    const struct store_new_face *f, int64_t *id,
                    struct error *err)
{
    int64_t kind = !f->crop ? CROP_NONE : s->has_key ? CROP_SEALED : CROP_PLAIN;

    if (store_sql_run(s, STMT_FACE_ADD, err, "iidbibb", a->subject, a->now,
                      (double)f->score, f->box, sizeof(f->box), kind,
                      f->crop ? f->crop_box : NULL, sizeof(f->crop_box),
                      f->crop ? f->crop_points : NULL,
                      sizeof(f->crop_points)) < 0)
        return -1;
    *id = sqlite3_last_insert_rowid(s->db);
    if (f->crop && add_crop(s, a, f, *id, err) < 0)
        return -1;
    return store_sql_run(s, STMT_EMBEDDING_ADD, err, "iiib", *id, a->model,
                         (int64_t)f->dim, f->embedding,
                         (size_t)f->dim * sizeof(float));
}

static int enroll_op(struct store *s, void *arg, struct error *err)
{
    struct enroll_args *a = arg;
    int rc;

    a->created = a->replayed = false;
    a->name[0] = '\0';
    a->now = time(NULL);
    rc = find_replay(s, a, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (need_subject(s, a, err) < 0 || need_model(s, a, err) < 0)
        return -1;
    for (int i = 0; i < a->e->n_faces; i++) {
        if (add_face(s, a, &a->e->faces[i], &a->ids[i], err) < 0)
            return -1;
    }
    return keep_answer(s, a, err);
}

static void enroll_applied(struct store *s, void *arg)
{
    const struct enroll_args *a = arg;
    const struct store_enroll *e = a->e;
    struct store_change change = {.gallery = e->gallery,
                                  .subject = e->subject,
                                  .name = a->name,
                                  .model_id = e->model_id};

    if (a->replayed)
        return;
    if (e->name && !a->created) {
        change.kind = STORE_CHANGE_SUBJECT_RENAMED;
        store_tell(s, &change);
    }
    change.kind = STORE_CHANGE_FACE_ADDED;
    for (int i = 0; i < e->n_faces; i++) {
        change.face = a->ids[i];
        change.embedding = e->faces[i].embedding;
        change.dim = e->faces[i].dim;
        store_tell(s, &change);
    }
}

int store_enroll(struct store *s, const struct store_enroll *e, int64_t *ids,
                 bool *created, bool *replayed, struct error *err)
{
    struct enroll_args a = {.e = e, .ids = ids};
    int rc;

    if (check_enroll(e, err) < 0)
        return -1;
    rc = store_run(s, STORE_WRITE, enroll_op, enroll_applied, &a, err);
    if (created)
        *created = rc == 0 && a.created;
    if (replayed)
        *replayed = rc == 0 && a.replayed;
    return rc;
}
