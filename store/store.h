/* store/store.h - the record: subjects, faces, embeddings, kept crops in
 * SQLite. The only user of sqlite3.h. Memory is the index (store/gallery);
 * this is what survives.
 *
 * One connection, owned by one thread that store_open starts; every function
 * below posts to it and waits. Writes that are waiting share one COMMIT
 * (each in its own SAVEPOINT) and return after it: an answer of 0 means the
 * change survives power loss. Erasure returns only when the write-ahead log
 * no longer holds the bytes. Thread: any, except store_close: main. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"
#include "core/base/error.h"

struct store; /* opaque */

enum {
    STORE_ID_MAX = 64,           /* subject and gallery ids: ASCII
                                    [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
    STORE_NAME_MAX = 255,        /* bytes of UTF-8, opaque, never a key */
    STORE_METADATA_MAX = 16384,  /* bytes of JSON text, an object */
    STORE_MODEL_ID_LEN = 64,     /* see struct model */
    STORE_IDEM_KEY_MAX = 255,    /* bytes */
    STORE_CROP_MAX = 512 * 1024, /* bytes of one kept crop */
    STORE_DIM_MAX = 4096,        /* numbers of an embedding */
    STORE_FACES_MAX = 1024,      /* in one enrolment */
    STORE_PAGE_MAX = 1000        /* rows of one listing */
};

struct store_options {
    const char *dir;           /* data directory, made 0700 when missing */
    const uint8_t *crop_key;   /* CRYPTO_KEY_LEN bytes: crops are sealed; NULL:
                                  stored plain */
    int max_faces_per_subject; /* 0: 248 */
    bool relaxed;              /* synchronous=NORMAL instead of FULL */
};

/* ERR_LOCKED when another process holds it; ERR_STORAGE when damaged or of a
 * newer version; ERR_FILE when it cannot be made or written. */
struct store *store_open(const struct store_options *opt, struct error *err);
void store_close(struct store *s); /* NULL is fine; last checkpoint */

/* --- subjects ------------------------------------------------------- */
struct store_subject {
    char gallery[STORE_ID_MAX + 1];
    char id[STORE_ID_MAX + 1];
    char name[STORE_NAME_MAX + 1]; /* "" when none */
    char *metadata;                /* JSON object text or NULL; owned */
    int64_t created_s, updated_s;  /* Unix time */
    int n_faces;
};
void store_subject_fini(struct store_subject *sub);

/* ERR_NO_SUBJECT. Fills *out (fini it). */
int store_subject_get(struct store *s, const char *gallery, const char *id,
                      struct store_subject *out, struct error *err);
/* NULL leaves a field as it is; "" clears it. */
int store_subject_update(struct store *s, const char *gallery, const char *id,
                         const char *name, const char *metadata,
                         struct error *err);
/* Erase with all its faces. *n_faces (may be NULL): how many went. */
int store_subject_remove(struct store *s, const char *gallery, const char *id,
                         int *n_faces, struct error *err);
/* Up to limit subjects with id > after ("" from the start), by id.
 * Hands over *out, an array of *n (free with store_subjects_free). */
int store_subject_list(struct store *s, const char *gallery, const char *after,
                       int limit, struct store_subject **out, int *n,
                       struct error *err);
void store_subjects_free(struct store_subject *subs, int n);

/* --- faces ---------------------------------------------------------- */
struct store_face {
    int64_t id; /* unique for ever, never used again */
    char gallery[STORE_ID_MAX + 1];
    char subject[STORE_ID_MAX + 1];
    float box[4]; /* in the photo: x0 y0 x1 y1, pixels */
    float score;  /* detection score */
    int64_t created_s;
    bool has_crop;
};

struct store_new_face {
    float box[4];
    float score;
    const float *embedding; /* [dim], unit */
    int dim;
    const uint8_t *crop; /* JPEG of the kept crop, NULL: none kept */
    size_t len_crop;
    float crop_box[4];     /* the face's box inside the crop */
    float crop_points[10]; /* five x,y inside the crop */
};

struct store_enroll {
    const char *gallery, *subject;
    const char *name;     /* NULL: leave */
    const char *metadata; /* NULL: leave */
    const char *model_id;
    const struct store_new_face *faces;
    int n_faces;
    /* Idempotency: the same key with the same request hash within 24 h gets
     * the first answer again and changes nothing; with another hash
     * ERR_IDEMPOTENCY. NULL: none. */
    const char *idem_key;
    const uint8_t *request_sha256;
};

/* Create the subject (and gallery) where new, add the faces, all or nothing.
 * ids [n_faces] gets the new faces' ids. *created: the subject is new.
 * *replayed: the idempotency key had been used; ids holds the first
 * answer's. ERR_QUOTA when the subject would have too many faces;
 * ERR_MODEL_CHANGED when model_id is not the active model (store_model.h). */
int store_enroll(struct store *s, const struct store_enroll *e, int64_t *ids,
                 bool *created, bool *replayed, struct error *err);
int store_face_get(struct store *s, int64_t id, struct store_face *out,
                   struct error *err);
/* *out: who it belonged to. ERR_NO_FACE_ID. The subject stays. */
int store_face_remove(struct store *s, int64_t id, struct store_face *out,
                      struct error *err);
/* Faces of a subject with id > after, ascending. malloc'd array, free(). */
int store_face_list(struct store *s, const char *gallery, const char *subject,
                    int64_t after, int limit, struct store_face **out, int *n,
                    struct error *err);
/* The kept crop, opened: malloc'd JPEG; ERR_NO_FACE_ID when there is none. */
int store_face_crop(struct store *s, int64_t id, uint8_t **jpeg, size_t *len,
                    float crop_box[4], float crop_points[10],
                    struct error *err);

/* --- galleries ------------------------------------------------------ */
struct store_gallery {
    char id[STORE_ID_MAX + 1];
    int n_subjects, n_faces;
    int64_t created_s;
};
/* malloc'd array, free(). */
int store_gallery_list(struct store *s, const char *after, int limit,
                       struct store_gallery **out, int *n, struct error *err);
int store_gallery_get(struct store *s, const char *id,
                      struct store_gallery *out, struct error *err);
/* Erase with all its subjects and faces. */
int store_gallery_remove(struct store *s, const char *id, int *n_faces,
                         struct error *err);

/* --- embeddings ----------------------------------------------------- */
/* Called on the store's own thread for each row, in order of face id; the
 * pointers hold during the call. A damaged row has embedding NULL. Return
 * false to stop. Must not call the store. */
typedef bool (*store_embedding_fn)(void *ctx, int64_t face, const char *gallery,
                                   const char *subject, const char *name,
                                   const float *embedding, int dim);
/* Every embedding of a model. */
int store_embeddings(struct store *s, const char *model_id,
                     store_embedding_fn fn, void *ctx, struct error *err);
/* Faces that have no embedding by this model (model changed). */
int store_missing_embeddings(struct store *s, const char *model_id, int64_t *n,
                             struct error *err);

/* --- changes -------------------------------------------------------- */
enum store_change_kind {
    STORE_CHANGE_FACE_ADDED,      /* every field */
    STORE_CHANGE_FACE_REMOVED,    /* gallery, subject, face */
    STORE_CHANGE_SUBJECT_REMOVED, /* gallery, subject */
    STORE_CHANGE_SUBJECT_RENAMED, /* gallery, subject, name */
    STORE_CHANGE_GALLERY_REMOVED  /* gallery */
};
struct store_change {
    enum store_change_kind kind;
    const char *gallery, *subject, *name, *model_id;
    int64_t face;
    const float *embedding;
    int dim;
};
/* Called on the store's own thread after each commit, before its writers are
 * answered: memory sees changes in the record's order, also where an enrolment
 * and an erasure cross. Must not call the store. */
typedef void (*store_change_fn)(void *ctx, const struct store_change *change);
/* Several may watch; the same fn and ctx once. ERR_QUOTA: too many. */
int store_watch(struct store *s, store_change_fn fn, void *ctx,
                struct error *err);
/* It is no more called after this returns. */
int store_unwatch(struct store *s, store_change_fn fn, void *ctx,
                  struct error *err);

/* --- state ---------------------------------------------------------- */
struct store_stats {
    int64_t n_galleries, n_subjects, n_faces, bytes, wal_bytes;
    int64_t n_commits, n_writes; /* group commit: writes per commit */
};
int store_stats(struct store *s, struct store_stats *out, struct error *err);
/* Consistent copy to a path that must not exist, while serving. */
int store_backup(struct store *s, const char *path, struct error *err);
/* A sync failed or the file is damaged: writes are refused from then on and
 * the daemon should end. */
bool store_failed(const struct store *s);
/* The store thread answered within timeout_ms (watchdog). */
bool store_alive(struct store *s, int timeout_ms);

bool store_id_valid(const char *id);

#endif
