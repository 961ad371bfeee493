/* store/store_model.h - which model answers, and the vectors that another one
 * still lacks. A part of the record (store/store.h): the same thread, commits
 * and errors. What is missing is asked of the rows, never kept beside them, so
 * an embedding run that is killed goes on where it was. Thread: any. */
#ifndef STORE_STORE_MODEL_H
#define STORE_STORE_MODEL_H

#include "store/store.h"

enum {
    STORE_VECTORS_MAX = 256 /* of one store_embeddings_add */
};

struct store_models { /* ids; "" where there is none */
    char active[STORE_MODEL_ID_LEN + 1];
    char previous[STORE_MODEL_ID_LEN + 1];
    char target[STORE_MODEL_ID_LEN + 1]; /* to become active */
    char configured[STORE_MODEL_ID_LEN + 1];
    bool allow_missing; /* of target */
};

/* All "" before the first store_models_set. */
int store_models_get(struct store *s, struct store_models *out,
                     struct error *err);
/* Make the model known. ERR_CONFLICT: it is, with another dim. */
int store_model_add(struct store *s, const char *id, int dim,
                    struct error *err);
/* What is stored under the model `old` is `id`'s from now on, where id is not
 * known yet; *renamed tells. For ids that an earlier version made otherwise. */
int store_model_rename(struct store *s, const char *old, const char *id,
                       bool *renamed, struct error *err);
/* At the start, before anything is served. Every id is known. */
int store_models_set(struct store *s, const struct store_models *m,
                     struct error *err);
/* id becomes the target, in the place of another. ERR_CONFLICT: it is the
 * active one. */
int store_target_set(struct store *s, const char *id, bool allow_missing,
                     struct error *err);
/* No target any more, where it is this one. */
int store_target_clear(struct store *s, const char *id, struct error *err);

struct store_switch {
    const char *target;      /* must be the target still */
    const int64_t *unusable; /* [n_unusable], ascending: faces whose crops
                                cannot be embedded */
    int n_unusable;
    /* After the commit, on the store's own thread, before any enrolment that
     * was refused for it is answered. Must not block or call the store. */
    void (*switched)(void *ctx);
    void *ctx;
};
/* In one step: if every face has the target's vector (but, where that is
 * allowed, those without a crop and the unusable ones) it becomes the active
 * model and the active one the previous. Otherwise nothing changes:
 * ERR_NOT_READY (a face with a crop is missing), ERR_CONFLICT (only faces that
 * cannot be embedded are), ERR_MODEL_CHANGED (the target is another). */
int store_switch(struct store *s, const struct store_switch *sw,
                 struct error *err);

struct store_missing { /* faces without a vector of a model */
    int64_t n;
    int64_t n_without_crop; /* of these, those that it can never embed */
};
int store_missing_count(struct store *s, const char *model_id,
                        struct store_missing *out, struct error *err);
/* Those without a crop and with id > after, ascending. malloc'd array. */
int store_missing_list(struct store *s, const char *model_id, int64_t after,
                       int limit, struct store_face **out, int *n,
                       struct error *err);
/* Those with a crop and id > *after, ascending, into ids [limit]. *after moves
 * beyond what was looked at, which is bounded: *n 0 is the end only with
 * *end. */
int store_missing_walk(struct store *s, const char *model_id, int64_t *after,
                       int64_t *ids, int limit, int *n, bool *end,
                       struct error *err);

struct store_vector {
    int64_t face;
    const float *embedding; /* [dim], unit */
};
/* Add vectors of a known model, all or nothing. Faces that are gone stay so,
 * and vectors that are there stay as they are; *n_added (may be NULL): the
 * others. Watchers are told of each as of a new face. */
int store_embeddings_add(struct store *s, const char *model_id, int dim,
                         const struct store_vector *vectors, int n,
                         int *n_added, struct error *err);
/* Erase every vector of a model, which is known no more: none can be added
 * until store_model_add. ERR_CONFLICT: it is active, previous or the target. */
int store_model_forget(struct store *s, const char *model_id,
                       struct error *err);

#endif
