/* store/store_face.c - faces, kept crops and embeddings in the record.
 * Public functions check their arguments in the caller's thread, then run an
 * operation on the store's. */
#include "store/store_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void store_seal_owner(char *buf, size_t len_buf, int64_t face,
                      const char *gallery, const char *subject)
{
    snprintf(buf, len_buf, "facenetd crop %lld %s %s", (long long)face, gallery,
             subject);
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

void store_read_face(struct store *s, enum store_stmt id,
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
    return error_set(err, ERR_NO_FACE_ID, "there is no face %lld",
                     (long long)id);
}

static int face_get_op(struct store *s, void *arg, struct error *err)
{
    struct face_args *a = arg;
    int rc = store_sql_run(s, STMT_FACE_GET, err, "i", a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_face(a->id, err);
    store_read_face(s, STMT_FACE_GET, a->out);
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
        return error_set(err, ERR_NO_SUBJECT,
                         "there is no subject '%s' in gallery '%s'", a->subject,
                         a->gallery);
    subject = store_sql_int(s, STMT_SUBJECT_ID, 0);
    store_sql_done(s, STMT_SUBJECT_ID);
    rc = store_sql_run(s, STMT_FACE_LIST, err, "iitti", subject, a->after,
                       a->gallery, a->subject, (int64_t)a->limit);
    while (rc > 0 && a->n < a->limit) {
        store_read_face(s, STMT_FACE_LIST, &a->out[a->n++]);
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
    store_seal_owner(owner, sizeof(owner), a->id, gallery, subject);
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

    if (store_check_model(model_id, err) < 0)
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
    if (store_check_model(model_id, err) < 0 ||
        store_run(s, STORE_READ, missing_op, NULL, &a, err) < 0)
        return -1;
    *n = a.n;
    return 0;
}
