/* store/store_subject.c - subjects and galleries in the record. Public
 * functions check their arguments in the caller's thread, then run an
 * operation on the store's. */
#include "store/store_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A gallery is erased in parts, so that neither the log nor the wait of
 * others grows with it. */
enum {
    PART_FACES = 256,
    PART_SUBJECTS = 128
};

struct subject_args {
    const char *gallery, *id, *name, *metadata, *after;
    int limit;
    struct store_subject *out; /* one, or the array that is handed over */
    int n, n_faces;
};

void store_subject_fini(struct store_subject *sub)
{
    free(sub->metadata);
    sub->metadata = NULL;
}

void store_subjects_free(struct store_subject *subs, int n)
{
    for (int i = 0; subs && i < n; i++)
        store_subject_fini(&subs[i]);
    free(subs);
}

/* A row of SUBJECT_GET or SUBJECT_LIST. */
static int read_subject(struct store *s, enum store_stmt id,
                        const char *gallery, struct store_subject *out,
                        struct error *err)
{
    char text[STORE_METADATA_MAX + 1];

    *out = (struct store_subject){0};
    snprintf(out->gallery, sizeof(out->gallery), "%s", gallery);
    store_sql_text(s, id, 0, out->id, sizeof(out->id));
    store_sql_text(s, id, 1, out->name, sizeof(out->name));
    store_sql_text(s, id, 2, text, sizeof(text));
    out->created_s = store_sql_int(s, id, 3);
    out->updated_s = store_sql_int(s, id, 4);
    out->n_faces = (int)store_sql_int(s, id, 5);
    if (text[0] && !(out->metadata = strdup(text)))
        return error_set(err, ERR_NOMEM, "subject: out of memory");
    return 0;
}

static int no_subject(const struct subject_args *a, struct error *err)
{
    return error_set(err, ERR_NO_SUBJECT,
                     "there is no subject '%s' in gallery '%s'", a->id,
                     a->gallery);
}

static int check_subject(const char *gallery, const char *id, struct error *err)
{
    if (store_check_id("gallery", gallery, err) < 0)
        return -1;
    return store_check_id("subject", id, err);
}

static int get_op(struct store *s, void *arg, struct error *err)
{
    struct subject_args *a = arg;
    int rc = store_sql_run(s, STMT_SUBJECT_GET, err, "tt", a->gallery, a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_subject(a, err);
    rc = read_subject(s, STMT_SUBJECT_GET, a->gallery, a->out, err);
    store_sql_done(s, STMT_SUBJECT_GET);
    return rc;
}

int store_subject_get(struct store *s, const char *gallery, const char *id,
                      struct store_subject *out, struct error *err)
{
    struct subject_args a = {.gallery = gallery, .id = id, .out = out};

    *out = (struct store_subject){0};
    if (check_subject(gallery, id, err) < 0)
        return -1;
    return store_run(s, STORE_READ, get_op, NULL, &a, err);
}

static int subject_row(struct store *s, const struct subject_args *a,
                       int64_t *id, int *n_faces, struct error *err)
{
    int rc = store_sql_run(s, STMT_SUBJECT_ID, err, "tt", a->gallery, a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_subject(a, err);
    *id = store_sql_int(s, STMT_SUBJECT_ID, 0);
    *n_faces = (int)store_sql_int(s, STMT_SUBJECT_ID, 2);
    store_sql_done(s, STMT_SUBJECT_ID);
    return 0;
}

static int update_op(struct store *s, void *arg, struct error *err)
{
    struct subject_args *a = arg;
    int64_t id, now = time(NULL);
    int n;

    if (subject_row(s, a, &id, &n, err) < 0 ||
        store_check_json(s, a->metadata, err) < 0)
        return -1;
    if (a->name &&
        store_sql_run(s, STMT_SUBJECT_NAME, err, "iti", id, a->name, now) < 0)
        return -1;
    if (a->metadata &&
        store_sql_run(s, STMT_SUBJECT_METADATA, err, "iti", id,
                      *a->metadata ? a->metadata : NULL, now) < 0)
        return -1;
    return 0;
}

static void update_applied(struct store *s, void *arg)
{
    const struct subject_args *a = arg;
    struct store_change change = {.kind = STORE_CHANGE_SUBJECT_RENAMED,
                                  .gallery = a->gallery,
                                  .subject = a->id,
                                  .name = a->name};

    if (a->name)
        store_tell(s, &change);
}

int store_subject_update(struct store *s, const char *gallery, const char *id,
                         const char *name, const char *metadata,
                         struct error *err)
{
    struct subject_args a = {
        .gallery = gallery, .id = id, .name = name, .metadata = metadata};

    if (check_subject(gallery, id, err) < 0 ||
        store_check_name(name, err) < 0 ||
        store_check_metadata(metadata, err) < 0)
        return -1;
    return store_run(s, STORE_WRITE, update_op, update_applied, &a, err);
}

static int remove_op(struct store *s, void *arg, struct error *err)
{
    struct subject_args *a = arg;
    int64_t id;

    if (subject_row(s, a, &id, &a->n_faces, err) < 0)
        return -1;
    return store_sql_run(s, STMT_SUBJECT_REMOVE, err, "i", id);
}

static void remove_applied(struct store *s, void *arg)
{
    const struct subject_args *a = arg;
    struct store_change change = {.kind = STORE_CHANGE_SUBJECT_REMOVED,
                                  .gallery = a->gallery,
                                  .subject = a->id};

    store_tell(s, &change);
}

int store_subject_remove(struct store *s, const char *gallery, const char *id,
                         int *n_faces, struct error *err)
{
    struct subject_args a = {.gallery = gallery, .id = id};
    int rc;

    if (check_subject(gallery, id, err) < 0)
        return -1;
    rc = store_run(s, STORE_ERASE, remove_op, remove_applied, &a, err);
    if (rc == 0 && n_faces)
        *n_faces = a.n_faces;
    return rc;
}

static int list_op(struct store *s, void *arg, struct error *err)
{
    struct subject_args *a = arg;
    int rc = store_sql_run(s, STMT_SUBJECT_LIST, err, "tti", a->gallery,
                           a->after, (int64_t)a->limit);

    while (rc > 0 && a->n < a->limit) {
        if (read_subject(s, STMT_SUBJECT_LIST, a->gallery, &a->out[a->n], err) <
            0) {
            store_sql_done(s, STMT_SUBJECT_LIST);
            return -1;
        }
        a->n++;
        rc = store_sql_next(s, STMT_SUBJECT_LIST, err);
    }
    store_sql_done(s, STMT_SUBJECT_LIST);
    return rc < 0 ? -1 : 0;
}

int store_subject_list(struct store *s, const char *gallery, const char *after,
                       int limit, struct store_subject **out, int *n,
                       struct error *err)
{
    struct subject_args a = {
        .gallery = gallery, .after = after ? after : "", .limit = limit};

    *out = NULL;
    *n = 0;
    if (store_check_id("gallery", gallery, err) < 0 ||
        store_check_limit(limit, err) < 0)
        return -1;
    if (*a.after && store_check_id("after", after, err) < 0)
        return -1;
    a.out = calloc((size_t)limit, sizeof(*a.out));
    if (!a.out)
        return error_set(err, ERR_NOMEM, "subjects: out of memory");
    if (store_run(s, STORE_READ, list_op, NULL, &a, err) < 0) {
        store_subjects_free(a.out, a.n);
        return -1;
    }
    *out = a.out;
    *n = a.n;
    return 0;
}

/* --- galleries ------------------------------------------------------ */
struct gallery_args {
    const char *id, *after;
    int limit;
    struct store_gallery *out;
    int n;
    /* one part of an erasure */
    char gone[PART_SUBJECTS][STORE_ID_MAX + 1];
    int n_gone, n_faces;
    bool is_last;
};

static void read_gallery(struct store *s, enum store_stmt id,
                         struct store_gallery *out)
{
    *out = (struct store_gallery){0};
    store_sql_text(s, id, 0, out->id, sizeof(out->id));
    out->created_s = store_sql_int(s, id, 1);
    out->n_subjects = (int)store_sql_int(s, id, 2);
    out->n_faces = (int)store_sql_int(s, id, 3);
}

static int no_gallery(const char *id, struct error *err)
{
    return error_set(err, ERR_NO_GALLERY, "there is no gallery '%s'", id);
}

static int gallery_get_op(struct store *s, void *arg, struct error *err)
{
    struct gallery_args *a = arg;
    int rc = store_sql_run(s, STMT_GALLERY_GET, err, "t", a->id);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_gallery(a->id, err);
    read_gallery(s, STMT_GALLERY_GET, a->out);
    store_sql_done(s, STMT_GALLERY_GET);
    return 0;
}

int store_gallery_get(struct store *s, const char *id,
                      struct store_gallery *out, struct error *err)
{
    struct gallery_args a = {.id = id, .out = out};

    if (store_check_id("gallery", id, err) < 0)
        return -1;
    return store_run(s, STORE_READ, gallery_get_op, NULL, &a, err);
}

static int gallery_list_op(struct store *s, void *arg, struct error *err)
{
    struct gallery_args *a = arg;
    int rc = store_sql_run(s, STMT_GALLERY_LIST, err, "ti", a->after,
                           (int64_t)a->limit);

    while (rc > 0 && a->n < a->limit) {
        read_gallery(s, STMT_GALLERY_LIST, &a->out[a->n++]);
        rc = store_sql_next(s, STMT_GALLERY_LIST, err);
    }
    store_sql_done(s, STMT_GALLERY_LIST);
    return rc < 0 ? -1 : 0;
}

int store_gallery_list(struct store *s, const char *after, int limit,
                       struct store_gallery **out, int *n, struct error *err)
{
    struct gallery_args a = {.after = after ? after : "", .limit = limit};

    *out = NULL;
    *n = 0;
    if (store_check_limit(limit, err) < 0)
        return -1;
    if (*a.after && store_check_id("after", after, err) < 0)
        return -1;
    a.out = calloc((size_t)limit, sizeof(*a.out));
    if (!a.out)
        return error_set(err, ERR_NOMEM, "galleries: out of memory");
    if (store_run(s, STORE_READ, gallery_list_op, NULL, &a, err) < 0) {
        free(a.out);
        return -1;
    }
    *out = a.out;
    *n = a.n;
    return 0;
}

static int gallery_row(struct store *s, const char *name, int64_t *id,
                       struct error *err)
{
    int rc = store_sql_run(s, STMT_GALLERY_ID, err, "t", name);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return no_gallery(name, err);
    *id = store_sql_int(s, STMT_GALLERY_ID, 0);
    store_sql_done(s, STMT_GALLERY_ID);
    return 0;
}

static int gallery_remove_op(struct store *s, void *arg, struct error *err)
{
    struct gallery_args *a = arg;
    int64_t gallery = 0, subject;
    int rc;

    a->n_gone = a->n_faces = 0;
    a->is_last = false;
    if (gallery_row(s, a->id, &gallery, err) < 0)
        return -1;
    while (a->n_gone < PART_SUBJECTS && a->n_faces < PART_FACES) {
        rc = store_sql_run(s, STMT_GALLERY_PART, err, "i", gallery);
        if (rc < 0)
            return -1;
        if (rc == 0) {
            a->is_last = true;
            return store_sql_run(s, STMT_GALLERY_REMOVE, err, "i", gallery);
        }
        subject = store_sql_int(s, STMT_GALLERY_PART, 0);
        store_sql_text(s, STMT_GALLERY_PART, 1, a->gone[a->n_gone++],
                       sizeof(a->gone[0]));
        a->n_faces += (int)store_sql_int(s, STMT_GALLERY_PART, 2);
        store_sql_done(s, STMT_GALLERY_PART);
        if (store_sql_run(s, STMT_SUBJECT_REMOVE, err, "i", subject) < 0)
            return -1;
    }
    return 0;
}

static void gallery_remove_applied(struct store *s, void *arg)
{
    const struct gallery_args *a = arg;
    struct store_change change = {.kind = STORE_CHANGE_SUBJECT_REMOVED,
                                  .gallery = a->id};

    for (int i = 0; i < a->n_gone; i++) {
        change.subject = a->gone[i];
        store_tell(s, &change);
    }
    if (a->is_last) {
        change.kind = STORE_CHANGE_GALLERY_REMOVED;
        change.subject = NULL;
        store_tell(s, &change);
    }
}

int store_gallery_remove(struct store *s, const char *id, int *n_faces,
                         struct error *err)
{
    struct gallery_args a = {.id = id};
    int n = 0;

    if (store_check_id("gallery", id, err) < 0)
        return -1;
    while (!a.is_last) {
        if (store_run(s, STORE_ERASE, gallery_remove_op, gallery_remove_applied,
                      &a, err) < 0)
            return -1;
        n += a.n_faces;
    }
    if (n_faces)
        *n_faces = n;
    return 0;
}
