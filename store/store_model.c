/* store/store_model.c - which model answers, and the faces that another has
 * yet to embed. The switch is one write among the others, so an enrolment
 * comes either before it, and counts as missing, or after it, and is refused
 * unless it was made with the new model (store_enroll). */
#include "store/store_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/store_priv.h"

enum {
    WALK_ROWS = 4096, /* looked at in one operation */
    FORGET_ROWS = 1000
};

/* --- models by row ------------------------------------------------------ */

/* 1: its row is *row, *dim (may be NULL) its numbers; 0: unknown; -1. */
static int find_model(struct store *s, const char *id, int64_t *row,
                      int64_t *dim, struct error *err)
{
    int rc = store_sql_run(s, STMT_MODEL_GET, err, "t", id);

    if (rc <= 0)
        return rc;
    *row = store_sql_int(s, STMT_MODEL_GET, 0);
    if (dim)
        *dim = store_sql_int(s, STMT_MODEL_GET, 1);
    store_sql_done(s, STMT_MODEL_GET);
    return 1;
}

static int need_model(struct store *s, const char *id, int64_t *row,
                      int64_t *dim, struct error *err)
{
    int rc = find_model(s, id, row, dim, err);

    if (rc == 0)
        return error_set(err, ERR_NO_MODEL,
                         "model %.12s is not known to the database", id);
    return rc < 0 ? -1 : 0;
}

struct model_args {
    const char *id;
    int dim;
    bool allow_missing;
    struct store_models *models;
    struct store_missing *missing;
    int n;
};

static int add_op(struct store *s, void *arg, struct error *err)
{
    const struct model_args *a = arg;
    int64_t row, dim;
    int rc = find_model(s, a->id, &row, &dim, err);

    if (rc < 0)
        return -1;
    if (rc > 0 && dim != a->dim)
        return error_set(err, ERR_CONFLICT,
                         "model %.12s: embeddings of %d numbers, but the "
                         "stored ones have %lld",
                         a->id, a->dim, (long long)dim);
    return rc > 0 ? 0
                  : store_sql_run(s, STMT_MODEL_ADD, err, "tii", a->id,
                                  (int64_t)a->dim, (int64_t)time(NULL));
}

int store_model_add(struct store *s, const char *id, int dim, struct error *err)
{
    struct model_args a = {.id = id, .dim = dim};

    if (store_check_model(id, err) < 0)
        return -1;
    if (dim < 1 || dim > STORE_DIM_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "an embedding of %d numbers, 1 to %d are possible",
                         dim, STORE_DIM_MAX);
    return store_run(s, STORE_WRITE, add_op, NULL, &a, err);
}

struct rename_args {
    const char *old, *id;
    bool renamed;
};

static int rename_op(struct store *s, void *arg, struct error *err)
{
    struct rename_args *a = arg;
    int64_t row;
    int old = find_model(s, a->old, &row, NULL, err);
    int new = old > 0 ? find_model(s, a->id, &row, NULL, err) : 0;

    a->renamed = false;
    if (old < 0 || new < 0)
        return -1;
    if (old == 0 || new > 0)
        return 0;
    a->renamed = true;
    return store_sql_run(s, STMT_MODEL_RENAME, err, "tt", a->old, a->id);
}

int store_model_rename(struct store *s, const char *old, const char *id,
                       bool *renamed, struct error *err)
{
    struct rename_args a = {.old = old, .id = id};
    int rc;

    if (store_check_model(old, err) < 0 || store_check_model(id, err) < 0)
        return -1;
    rc = store_run(s, STORE_WRITE, rename_op, NULL, &a, err);
    *renamed = rc == 0 && a.renamed;
    return rc;
}

/* --- which one answers -------------------------------------------------- */

static int get_op(struct store *s, void *arg, struct error *err)
{
    struct store_models *m = arg;
    int rc = store_sql_run(s, STMT_SERVING_GET, err, "");

    memset(m, 0, sizeof(*m));
    if (rc <= 0)
        return rc;
    store_sql_text(s, STMT_SERVING_GET, 0, m->active, sizeof(m->active));
    store_sql_text(s, STMT_SERVING_GET, 1, m->previous, sizeof(m->previous));
    store_sql_text(s, STMT_SERVING_GET, 2, m->target, sizeof(m->target));
    store_sql_text(s, STMT_SERVING_GET, 3, m->configured,
                   sizeof(m->configured));
    m->allow_missing = store_sql_int(s, STMT_SERVING_GET, 4) != 0;
    store_sql_done(s, STMT_SERVING_GET);
    return 0;
}

int store_models_get(struct store *s, struct store_models *out,
                     struct error *err)
{
    return store_run(s, STORE_READ, get_op, NULL, out, err);
}

static int set_op(struct store *s, void *arg, struct error *err)
{
    const struct store_models *m = arg;

    /* An unknown id is NULL here, which the table refuses where it matters. */
    return store_sql_run(s, STMT_SERVING_SET, err, "tttti", m->active,
                         m->previous, m->target, m->configured,
                         (int64_t)m->allow_missing);
}

int store_models_set(struct store *s, const struct store_models *m,
                     struct error *err)
{
    struct store_models copy = *m;

    if (store_check_model(m->active, err) < 0 ||
        store_check_model(m->configured, err) < 0)
        return -1;
    return store_run(s, STORE_WRITE, set_op, NULL, &copy, err);
}

static int target_set_op(struct store *s, void *arg, struct error *err)
{
    const struct model_args *a = arg;
    struct store_models m;
    int64_t row;

    if (get_op(s, &m, err) < 0 || need_model(s, a->id, &row, NULL, err) < 0)
        return -1;
    if (strcmp(m.active, a->id) == 0)
        return error_set(err, ERR_CONFLICT, "model %.12s is active already",
                         a->id);
    return store_sql_run(s, STMT_SERVING_TARGET, err, "ti", a->id,
                         (int64_t)a->allow_missing);
}

int store_target_set(struct store *s, const char *id, bool allow_missing,
                     struct error *err)
{
    struct model_args a = {.id = id, .allow_missing = allow_missing};

    if (store_check_model(id, err) < 0)
        return -1;
    return store_run(s, STORE_WRITE, target_set_op, NULL, &a, err);
}

static int target_clear_op(struct store *s, void *arg, struct error *err)
{
    const struct model_args *a = arg;
    struct store_models m;

    if (get_op(s, &m, err) < 0)
        return -1;
    if (strcmp(m.target, a->id) != 0)
        return 0;
    return store_sql_run(s, STMT_SERVING_TARGET, err, "ti", NULL, (int64_t)0);
}

int store_target_clear(struct store *s, const char *id, struct error *err)
{
    struct model_args a = {.id = id};

    return store_run(s, STORE_WRITE, target_clear_op, NULL, &a, err);
}

/* --- the switch --------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* What a missing face is to a switch. */
static enum error_code verdict(const struct store_switch *sw, bool allowed,
                               int64_t face, bool has_crop)
{
    if (has_crop && !(sw->n_unusable > 0 &&
                      bsearch(&face, sw->unusable, (size_t)sw->n_unusable,
                              sizeof(face), by_id)))
        return ERR_NOT_READY;
    return allowed ? ERR_NONE : ERR_CONFLICT;
}

static int cannot(const struct store_switch *sw, int64_t n, struct error *err)
{
    return error_set(err, ERR_CONFLICT,
                     "%lld faces cannot be embedded by model %.12s",
                     (long long)n, sw->target);
}

/* Look at every face without a vector of the model: is each excused? */
static int look_at_missing(struct store *s, const struct store_switch *sw,
                           int64_t model, bool allowed, int64_t n_missing,
                           struct error *err)
{
    enum error_code worst = ERR_NONE;
    int rc = store_sql_run(s, STMT_MISSING_WALK, err, "ii", model, (int64_t)0);

    for (; rc > 0 && worst != ERR_NOT_READY;
         rc = store_sql_next(s, STMT_MISSING_WALK, err)) {
        enum error_code one;
        if (store_sql_int(s, STMT_MISSING_WALK, 2))
            continue;
        one = verdict(sw, allowed, store_sql_int(s, STMT_MISSING_WALK, 0),
                      store_sql_int(s, STMT_MISSING_WALK, 1) != CROP_NONE);
        if (one != ERR_NONE)
            worst = one;
    }
    store_sql_done(s, STMT_MISSING_WALK);
    if (rc < 0)
        return -1;
    if (worst == ERR_NOT_READY)
        return error_set(err, worst, "faces are still to be embedded");
    return worst == ERR_NONE ? 0 : cannot(sw, n_missing, err);
}

static int count_op(struct store *s, void *arg, struct error *err)
{
    const struct model_args *a = arg;

    if (store_sql_run(s, STMT_MISSING, err, "t", a->id) < 0)
        return -1;
    a->missing->n = store_sql_int(s, STMT_MISSING, 0);
    store_sql_done(s, STMT_MISSING);
    if (store_sql_run(s, STMT_MISSING_CROPS, err, "t", a->id) < 0)
        return -1;
    a->missing->n_without_crop = store_sql_int(s, STMT_MISSING_CROPS, 0);
    store_sql_done(s, STMT_MISSING_CROPS);
    return 0;
}

/* The counts say it mostly, so that nobody waits while rows are looked at. */
static int none_missing(struct store *s, const struct store_switch *sw,
                        int64_t model, bool allowed, struct error *err)
{
    struct store_missing missing;
    struct model_args a = {.id = sw->target, .missing = &missing};
    int64_t n_crops;

    if (count_op(s, &a, err) < 0)
        return -1;
    n_crops = missing.n - missing.n_without_crop;
    if (n_crops > sw->n_unusable)
        return error_set(err, ERR_NOT_READY, "faces are still to be embedded");
    if (n_crops > 0)
        return look_at_missing(s, sw, model, allowed, missing.n, err);
    return missing.n == 0 || allowed ? 0 : cannot(sw, missing.n, err);
}

static int switch_op(struct store *s, void *arg, struct error *err)
{
    const struct store_switch *sw = arg;
    struct store_models m;
    int64_t model = 0;

    if (get_op(s, &m, err) < 0 ||
        need_model(s, sw->target, &model, NULL, err) < 0)
        return -1;
    if (strcmp(m.target, sw->target) != 0)
        return error_set(err, ERR_MODEL_CHANGED,
                         "model %.12s is not to become active any more",
                         sw->target);
    if (none_missing(s, sw, model, m.allow_missing, err) < 0)
        return -1;
    return store_sql_run(s, STMT_SERVING_SWITCH, err, "");
}

static void switch_applied(struct store *s, void *arg)
{
    const struct store_switch *sw = arg;

    (void)s;
    sw->switched(sw->ctx);
}

int store_switch(struct store *s, const struct store_switch *sw,
                 struct error *err)
{
    struct store_switch copy = *sw;

    return store_run(s, STORE_WRITE, switch_op, switch_applied, &copy, err);
}

/* --- what is missing ---------------------------------------------------- */

int store_missing_count(struct store *s, const char *model_id,
                        struct store_missing *out, struct error *err)
{
    struct model_args a = {.id = model_id, .missing = out};

    *out = (struct store_missing){0};
    if (store_check_model(model_id, err) < 0)
        return -1;
    return store_run(s, STORE_READ, count_op, NULL, &a, err);
}

struct list_args {
    const char *id;
    int64_t after;
    int limit, n;
    struct store_face *out;
};

static int list_op(struct store *s, void *arg, struct error *err)
{
    struct list_args *a = arg;
    int rc = store_sql_run(s, STMT_MISSING_LIST, err, "tii", a->id, a->after,
                           (int64_t)a->limit);

    while (rc > 0 && a->n < a->limit) {
        store_read_face(s, STMT_MISSING_LIST, &a->out[a->n++]);
        rc = store_sql_next(s, STMT_MISSING_LIST, err);
    }
    store_sql_done(s, STMT_MISSING_LIST);
    return rc < 0 ? -1 : 0;
}

int store_missing_list(struct store *s, const char *model_id, int64_t after,
                       int limit, struct store_face **out, int *n,
                       struct error *err)
{
    struct list_args a = {.id = model_id, .after = after, .limit = limit};

    *out = NULL;
    *n = 0;
    if (store_check_model(model_id, err) < 0 ||
        store_check_limit(limit, err) < 0)
        return -1;
    a.out = calloc((size_t)limit, sizeof(*a.out));
    if (!a.out)
        return error_set(err, ERR_NOMEM, "faces: out of memory");
    if (store_run(s, STORE_READ, list_op, NULL, &a, err) < 0) {
        free(a.out);
        return -1;
    }
    *out = a.out;
    *n = a.n;
    return 0;
}

struct walk_args {
    const char *id;
    int64_t after, *ids;
    int limit, n;
    bool end;
};

static int walk_op(struct store *s, void *arg, struct error *err)
{
    struct walk_args *a = arg;
    int64_t model = 0;
    int n_rows = 0, rc;

    if (need_model(s, a->id, &model, NULL, err) < 0)
        return -1;
    rc = store_sql_run(s, STMT_MISSING_WALK, err, "ii", model, a->after);
    while (rc > 0 && a->n < a->limit && n_rows < WALK_ROWS) {
        a->after = store_sql_int(s, STMT_MISSING_WALK, 0);
        if (store_sql_int(s, STMT_MISSING_WALK, 1) != CROP_NONE &&
            !store_sql_int(s, STMT_MISSING_WALK, 2))
            a->ids[a->n++] = a->after;
        n_rows++;
        rc = store_sql_next(s, STMT_MISSING_WALK, err);
    }
    a->end = rc == 0;
    store_sql_done(s, STMT_MISSING_WALK);
    return rc < 0 ? -1 : 0;
}

int store_missing_walk(struct store *s, const char *model_id, int64_t *after,
                       int64_t *ids, int limit, int *n, bool *end,
                       struct error *err)
{
    struct walk_args a = {
        .id = model_id, .after = *after, .ids = ids, .limit = limit};

    *n = 0;
    *end = false;
    if (store_check_model(model_id, err) < 0 ||
        store_run(s, STORE_READ, walk_op, NULL, &a, err) < 0)
        return -1;
    *after = a.after;
    *n = a.n;
    *end = a.end;
    return 0;
}

/* --- vectors ------------------------------------------------------------ */

struct add_args {
    const char *id;
    int dim, n, n_added;
    const struct store_vector *vectors;
    bool added[STORE_VECTORS_MAX];
};

static int vectors_op(struct store *s, void *arg, struct error *err)
{
    struct add_args *a = arg;
    int64_t model = 0, dim = 0;

    a->n_added = 0;
    if (need_model(s, a->id, &model, &dim, err) < 0)
        return -1;
    if (dim != a->dim)
        return error_set(err, ERR_CONFLICT,
                         "vectors of %d numbers, but the model's have %lld",
                         a->dim, (long long)dim);
    for (int i = 0; i < a->n; i++) {
        if (store_sql_run(s, STMT_EMBEDDING_LATE, err, "iiib",
                          a->vectors[i].face, model, dim,
                          a->vectors[i].embedding,
                          (size_t)a->dim * sizeof(float)) < 0)
            return -1;
        a->added[i] = sqlite3_changes(s->db) > 0;
        a->n_added += a->added[i];
    }
    return 0;
}

/* What the record holds now goes to memory: a face that an operation of the
 * same commit took away is not brought back. */
static void vectors_applied(struct store *s, void *arg)
{
    const struct add_args *a = arg;
    char gallery[STORE_ID_MAX + 1], subject[STORE_ID_MAX + 1];
    char name[STORE_NAME_MAX + 1];
    struct store_change change = {.kind = STORE_CHANGE_FACE_ADDED,
                                  .gallery = gallery,
                                  .subject = subject,
                                  .name = name,
                                  .model_id = a->id,
                                  .dim = a->dim};

    for (int i = 0; i < a->n; i++) {
        if (!a->added[i] || store_sql_run(s, STMT_FACE_OWNER, NULL, "i",
                                          a->vectors[i].face) <= 0)
            continue;
        store_sql_text(s, STMT_FACE_OWNER, 0, gallery, sizeof(gallery));
        store_sql_text(s, STMT_FACE_OWNER, 1, subject, sizeof(subject));
        store_sql_text(s, STMT_FACE_OWNER, 2, name, sizeof(name));
        store_sql_done(s, STMT_FACE_OWNER);
        change.face = a->vectors[i].face;
        change.embedding = a->vectors[i].embedding;
        store_tell(s, &change);
    }
}

int store_embeddings_add(struct store *s, const char *model_id, int dim,
                         const struct store_vector *vectors, int n,
                         int *n_added, struct error *err)
{
    struct add_args a = {
        .id = model_id, .dim = dim, .n = n, .vectors = vectors};

    if (n_added)
        *n_added = 0;
    if (store_check_model(model_id, err) < 0)
        return -1;
    if (n < 0 || n > STORE_VECTORS_MAX)
        return error_set(err, ERR_BAD_FIELD, "%d vectors, at most %d at once",
                         n, STORE_VECTORS_MAX);
    if (store_run(s, STORE_WRITE, vectors_op, vectors_applied, &a, err) < 0)
        return -1;
    if (n_added)
        *n_added = a.n_added;
    return 0;
}

static int forget_op(struct store *s, void *arg, struct error *err)
{
    struct model_args *a = arg;
    struct store_models m;
    int64_t model = 0;
    int rc;

    a->n = 0;
    if (get_op(s, &m, err) < 0)
        return -1;
    if (strcmp(m.active, a->id) == 0 || strcmp(m.previous, a->id) == 0 ||
        strcmp(m.target, a->id) == 0)
        return error_set(err, ERR_CONFLICT,
                         "model %.12s is the %s one and stays", a->id,
                         strcmp(m.active, a->id) == 0     ? "active"
                         : strcmp(m.previous, a->id) == 0 ? "previous"
                                                          : "coming");
    rc = find_model(s, a->id, &model, NULL, err);
    if (rc <= 0)
        return rc;
    if (store_sql_run(s, STMT_MODEL_FORGET, err, "ii", model,
                      (int64_t)FORGET_ROWS) < 0)
        return -1;
    a->n = sqlite3_changes(s->db);
    if (a->n > 0)
        return 0;
    /* With its row goes the way back: vectors that are on their way for it are
     * refused (need_model). */
    return store_sql_run(s, STMT_MODEL_REMOVE, err, "i", model);
}

int store_model_forget(struct store *s, const char *model_id, struct error *err)
{
    struct model_args a = {.id = model_id};

    if (store_check_model(model_id, err) < 0)
        return -1;
    do { /* in parts, so that other writes are not kept waiting */
        if (store_run(s, STORE_ERASE, forget_op, NULL, &a, err) < 0)
            return -1;
    } while (a.n > 0);
    return 0;
}
