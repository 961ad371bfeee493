/* store/store_face.c - enrolment, faces, kept crops and embeddings in the
 * record. Public functions check their arguments in the caller's thread,
 * then run an operation on the store's. */
#include "store/store_priv.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CROP_NONE,
    CROP_PLAIN,
    CROP_SEALED
};
enum {
    IDEM_LIFE_S = 24 * 3600,
    IDEM_PURGE_S = 600
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "floats and ids are stored as they lie in memory");

/* --- enrolment ------------------------------------------------------ */
struct enroll_args {
    const struct store_enroll *e;
    int64_t *ids;
    bool created, replayed;
    int64_t subject, model, now;
    char name[STORE_NAME_MAX + 1]; /* the subject's after this */
};

/* What the sealed crop belongs to: moved to another face it does not open. */
static void seal_owner(char *buf, size_t len_buf, int64_t face,
                       const char *gallery, const char *subject)
{
    snprintf(buf, len_buf, "facenetd crop %lld %s %s", (long long)face, gallery,
             subject);
}

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

static bool hex_id_valid(const char *id)
{
    return id && strlen(id) == STORE_MODEL_ID_LEN &&
           strspn(id, "0123456789abcdef") == STORE_MODEL_ID_LEN;
}

static int check_model(const char *id, struct error *err)
{
    if (hex_id_valid(id))
        return 0;
    return error_set(err, ERR_BAD_FIELD,
                     "model id: not %d lower-case hex digits",
                     STORE_MODEL_ID_LEN);
}

static int check_enroll(const struct store_enroll *e, struct error *err)
{
    if (store_check_id("gallery", e->gallery, err) < 0 ||
        store_check_id("subject", e->subject, err) < 0 ||
        store_check_name(e->name, err) < 0 ||
        store_check_metadata(e->metadata, err) < 0 ||
        check_model(e->model_id, err) < 0)
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

static int need_model(struct store *s, struct enroll_args *a, struct error *err)
{
    const struct store_enroll *e = a->e;
    int64_t dim;
    int rc;

    if (e->n_faces == 0)
        return 0;
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
    seal_owner(owner, sizeof(owner), id, a->e->gallery, a->e->subject);
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

/* --- faces ---------------------------------------------------------- */
struct face_args {
    int64_t id, after;
    const char *gallery, *subject;
    int limit, n;
    struct store_face *out;
    uint8_t *crop;
    size_t len_crop;
    float *crop_box, *crop_points;
};

/* A row of FACE_GET or FACE_LIST. */
static void read_face(struct store *s, enum store_stmt id,
                      struct store_face *out)
{
    *out = (struct store_face){0};
    out->id = store_sql_int(s, id, 0);
    store_sql_text(s, id, 1, out->gallery, sizeof(out->gallery));
    store_sql_text(s, id, 2, out->subject, sizeof(out->subject));
    store_sql_blob(s, id, 3, out->box, sizeof(out->box));
    out->score = (float)sqlite3_column_double(s->st[id], 4);
    out->created_s = store_sql_int(s, id, 5);
    out->has_crop = store_sql_int(s, id, 6) != CROP_NONE;
}

static int no_face(int64_t id, struct error *err)
{
    return error_set(err, ERR_NO_FACE_ID, "no face %lld", (long long)id);
}

static int face_get_op(struct store *s, void *arg, struct error *err)
{
    struct face_args *a = arg;
    int rc = store_sql_run(s, STMT_FACE_GET, err, "i", a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_face(a->id, err);
    read_face(s, STMT_FACE_GET, a->out);
    store_sql_done(s, STMT_FACE_GET);
    return 0;
}

int store_face_get(struct store *s, int64_t id, struct store_face *out,
                   struct error *err)
{
    struct face_args a = {.id = id, .out = out};

    return store_run(s, STORE_READ, face_get_op, NULL, &a, err);
}

static int face_remove_op(struct store *s, void *arg, struct error *err)
{
    struct face_args *a = arg;

    if (face_get_op(s, arg, err) < 0)
        return -1;
    return store_sql_run(s, STMT_FACE_REMOVE, err, "i", a->id);
}

static void face_remove_applied(struct store *s, void *arg)
{
    const struct face_args *a = arg;
    struct store_change change = {.kind = STORE_CHANGE_FACE_REMOVED,
                                  .gallery = a->out->gallery,
                                  .subject = a->out->subject,
                                  .face = a->id};

    store_tell(s, &change);
}

int store_face_remove(struct store *s, int64_t id, struct store_face *out,
                      struct error *err)
{
    struct store_face local;
    struct face_args a = {.id = id, .out = out ? out : &local};

    return store_run(s, STORE_ERASE, face_remove_op, face_remove_applied, &a,
                     err);
}

static int face_list_op(struct store *s, void *arg, struct error *err)
{
    struct face_args *a = arg;
    int64_t subject;
    int rc =
        store_sql_run(s, STMT_SUBJECT_ID, err, "tt", a->gallery, a->subject);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return error_set(err, ERR_NO_SUBJECT, "no subject %s in gallery %s",
                         a->subject, a->gallery);
    subject = store_sql_int(s, STMT_SUBJECT_ID, 0);
    store_sql_done(s, STMT_SUBJECT_ID);
    rc = store_sql_run(s, STMT_FACE_LIST, err, "iitti", subject, a->after,
                       a->gallery, a->subject, (int64_t)a->limit);
    while (rc > 0 && a->n < a->limit) {
        read_face(s, STMT_FACE_LIST, &a->out[a->n++]);
        rc = store_sql_next(s, STMT_FACE_LIST, err);
    }
    store_sql_done(s, STMT_FACE_LIST);
    return rc < 0 ? -1 : 0;
}

int store_face_list(struct store *s, const char *gallery, const char *subject,
                    int64_t after, int limit, struct store_face **out, int *n,
                    struct error *err)
{
    struct face_args a = {.gallery = gallery, .subject = subject};

    a.after = after;
    a.limit = limit;
    *out = NULL;
    *n = 0;
    if (store_check_id("gallery", gallery, err) < 0 ||
        store_check_id("subject", subject, err) < 0 ||
        store_check_limit(limit, err) < 0)
        return -1;
    a.out = calloc((size_t)limit, sizeof(*a.out));
    if (!a.out)
        return error_set(err, ERR_NOMEM, "faces: out of memory");
    if (store_run(s, STORE_READ, face_list_op, NULL, &a, err) < 0) {
        free(a.out);
        return -1;
    }
    *out = a.out;
    *n = a.n;
    return 0;
}

/* The crop's bytes as they lie in the open row, opened where sealed. */
static int open_crop(struct store *s, struct face_args *a, struct error *err)
{
    const uint8_t *data = sqlite3_column_blob(s->st[STMT_FACE_CROP], 1);
    size_t len = (size_t)sqlite3_column_bytes(s->st[STMT_FACE_CROP], 1);
    int64_t kind = store_sql_int(s, STMT_FACE_CROP, 0);
    size_t extra = kind == CROP_SEALED ? CRYPTO_SEAL_EXTRA : 0;
    char gallery[STORE_ID_MAX + 1], subject[STORE_ID_MAX + 1], owner[256];

    if (kind == CROP_NONE)
        return error_set(err, ERR_NO_FACE_ID, "face %lld: no crop is kept",
                         (long long)a->id);
    if (!data || len <= extra ||
        !store_sql_blob(s, STMT_FACE_CROP, 2, a->crop_box, 16) ||
        !store_sql_blob(s, STMT_FACE_CROP, 3, a->crop_points, 40))
        return error_set(err, ERR_STORAGE, "face %lld: its crop is damaged",
                         (long long)a->id);
    if (kind == CROP_SEALED && !s->has_key)
        return error_set(err, ERR_STORAGE,
                         "face %lld: its crop is sealed and no key is set",
                         (long long)a->id);
    a->len_crop = len - extra;
    a->crop = malloc(a->len_crop);
    if (!a->crop)
        return error_set(err, ERR_NOMEM, "crop: out of memory");
    if (kind == CROP_PLAIN) {
        memcpy(a->crop, data, len);
        return 0;
    }
    store_sql_text(s, STMT_FACE_CROP, 4, gallery, sizeof(gallery));
    store_sql_text(s, STMT_FACE_CROP, 5, subject, sizeof(subject));
    seal_owner(owner, sizeof(owner), a->id, gallery, subject);
    if (crypto_open(s->crop_key, owner, strlen(owner), data, len, a->crop,
                    err) < 0) {
        free(a->crop);
        a->crop = NULL;
        return error_context(err, "face %lld: its crop", (long long)a->id);
    }
    return 0;
}

static int face_crop_op(struct store *s, void *arg, struct error *err)
{
    struct face_args *a = arg;
    int rc = store_sql_run(s, STMT_FACE_CROP, err, "i", a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_face(a->id, err);
    rc = open_crop(s, a, err);
    store_sql_done(s, STMT_FACE_CROP);
    return rc;
}

int store_face_crop(struct store *s, int64_t id, uint8_t **jpeg, size_t *len,
                    float crop_box[4], float crop_points[10], struct error *err)
{
    float box[4], points[10];
    struct face_args a = {.id = id,
                          .crop_box = crop_box ? crop_box : box,
                          .crop_points = crop_points ? crop_points : points};

    *jpeg = NULL;
    *len = 0;
    if (store_run(s, STORE_READ, face_crop_op, NULL, &a, err) < 0)
        return -1;
    *jpeg = a.crop;
    *len = a.len_crop;
    return 0;
}

/* --- embeddings ----------------------------------------------------- */
struct embeddings_args {
    const char *model_id;
    store_embedding_fn fn;
    void *ctx;
    int64_t n;
};

static int embeddings_op(struct store *s, void *arg, struct error *err)
{
    struct embeddings_args *a = arg;
    char gallery[STORE_ID_MAX + 1], subject[STORE_ID_MAX + 1];
    char name[STORE_NAME_MAX + 1];
    float vector[STORE_DIM_MAX];
    int64_t model, dim;
    bool whole;
    int rc = store_sql_run(s, STMT_MODEL_GET, err, "t", a->model_id);

    if (rc <= 0)
        return rc;
    model = store_sql_int(s, STMT_MODEL_GET, 0);
    dim = store_sql_int(s, STMT_MODEL_GET, 1);
    store_sql_done(s, STMT_MODEL_GET);
    if (dim < 1 || dim > STORE_DIM_MAX)
        return error_set(err, ERR_STORAGE, "the model's row is damaged");
    rc = store_sql_run(s, STMT_EMBEDDINGS, err, "i", model);
    for (; rc > 0; rc = store_sql_next(s, STMT_EMBEDDINGS, err)) {
        int64_t face = store_sql_int(s, STMT_EMBEDDINGS, 0);
        store_sql_text(s, STMT_EMBEDDINGS, 1, gallery, sizeof(gallery));
        store_sql_text(s, STMT_EMBEDDINGS, 2, subject, sizeof(subject));
        store_sql_text(s, STMT_EMBEDDINGS, 3, name, sizeof(name));
        whole = store_sql_blob(s, STMT_EMBEDDINGS, 4, vector,
                               (size_t)dim * sizeof(float));
        if (!a->fn(a->ctx, face, gallery, subject, name, whole ? vector : NULL,
                   (int)dim))
            break;
    }
    store_sql_done(s, STMT_EMBEDDINGS);
    return rc < 0 ? -1 : 0;
}

int store_embeddings(struct store *s, const char *model_id,
                     store_embedding_fn fn, void *ctx, struct error *err)
{
    struct embeddings_args a = {.model_id = model_id, .fn = fn, .ctx = ctx};

    if (check_model(model_id, err) < 0)
        return -1;
    return store_run(s, STORE_READ, embeddings_op, NULL, &a, err);
}

static int missing_op(struct store *s, void *arg, struct error *err)
{
    struct embeddings_args *a = arg;

    if (store_sql_run(s, STMT_MISSING, err, "t", a->model_id) < 0)
        return -1;
    a->n = store_sql_int(s, STMT_MISSING, 0);
    store_sql_done(s, STMT_MISSING);
    return 0;
}

int store_missing_embeddings(struct store *s, const char *model_id, int64_t *n,
                             struct error *err)
{
    struct embeddings_args a = {.model_id = model_id};

    *n = 0;
    if (check_model(model_id, err) < 0 ||
        store_run(s, STORE_READ, missing_op, NULL, &a, err) < 0)
        return -1;
    *n = a.n;
    return 0;
}
