/* store/gallery.h - enrolled embeddings in memory, searched exactly.
 * The index of what store holds: immutable, counted snapshots, swapped by
 * one writer at a time; a search holds one snapshot and never waits for a
 * writer. Enroll and delete are visible to the next search.
 * Thread: any. */
#ifndef STORE_GALLERY_H
#define STORE_GALLERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "store/store.h"

struct device;
struct rows;
struct gallery; /* every gallery of one model */

struct gallery *gallery_new(const char *model_id, int dim, struct error *err);
void gallery_free(struct gallery *g);

/* Become what the store holds of the model, and stay so: changes follow on
 * the store's thread in the order of its commits, before its writers are
 * answered. So with a store nobody else calls the functions that change the
 * gallery: a late call could bring back a face that was erased meanwhile.
 * Damaged rows are left out and counted. Free g after gallery_unload, or after
 * the last write to s. ERR_NOMEM, or as store_embeddings. */
int gallery_load(struct gallery *g, struct store *s, struct error *err);
/* Follow the store no more. */
int gallery_unload(struct gallery *g, struct store *s, struct error *err);

/* Add one face. Copies. Amortised cheap: chunks of rows are shared between
 * snapshots, so adding does not copy what is there. A face that is there
 * already stays as it is. ERR_BAD_FIELD: not a unit vector. */
int gallery_add(struct gallery *g, const char *gallery, const char *subject,
                const char *name, int64_t face, const float *embedding,
                struct error *err);
/* What is not there need not be removed: no error. After ERR_NOMEM searches
 * are refused until the next gallery_load, lest one finds what should be
 * gone. */
int gallery_remove_face(struct gallery *g, int64_t face, struct error *err);
int gallery_remove_subject(struct gallery *g, const char *gallery,
                           const char *subject, struct error *err);
int gallery_remove_all(struct gallery *g, const char *gallery,
                       struct error *err);
/* A subject's display name changed. Unknown subjects: no error. */
int gallery_rename(struct gallery *g, const char *gallery, const char *subject,
                   const char *name, struct error *err);

struct gallery_hit {
    char subject[STORE_ID_MAX + 1];
    char name[STORE_NAME_MAX + 1];
    int64_t face;   /* the subject's nearest example */
    float distance; /* squared L2 */
};

/* The nearest subjects, one row each, by distance then by face id, at most
 * `limit` (1..1000) with distance <= threshold, the figures as distance_l2
 * gives them. hits has room for limit rows. Returns how many, or -1
 * (ERR_NOMEM; ERR_BAD_FIELD: query not a unit vector, NaN threshold). An
 * unknown gallery gives 0. */
int gallery_search(struct gallery *g, const char *gallery, const float *query,
                   float threshold, int limit, struct gallery_hit *hits,
                   struct error *err);
struct gallery_ask {
    const char *gallery;
    const float *queries; /* [n,dim] */
    int n;                /* >= 1 */
    float threshold;
    int limit;
};
/* Several queries of one state of the gallery, each answered as by
 * gallery_search: hits [n,limit], of each query the first n_hits [n]. Costs
 * less than one by one, above all on a device. 0, or -1 as gallery_search. */
int gallery_search_many(struct gallery *g, const struct gallery_ask *ask,
                        struct gallery_hit *hits, int *n_hits,
                        struct error *err);
/* The nearest example of one subject: fills hit; ERR_NO_SUBJECT where the
 * subject has no embedding. */
int gallery_subject(struct gallery *g, const char *gallery, const char *subject,
                    const float *query, struct gallery_hit *hit,
                    struct error *err);

/* Every face of a gallery as it is now, in no order; what is changed meanwhile
 * is not seen. The pointers hold during the call; fn returns false to stop.
 * Returns how many were shown, or -1 (ERR_NOMEM as gallery_search). An unknown
 * gallery gives 0. */
typedef bool (*gallery_face_fn)(void *ctx, int64_t face, const char *subject,
                                const float *embedding);
int64_t gallery_each(struct gallery *g, const char *gallery, gallery_face_fn fn,
                     void *ctx, struct error *err);

struct gallery_size {
    int64_t n_galleries, n_subjects, n_faces, bytes;
    int64_t n_refused; /* faces of the store that could not be taken in */
    int64_t n_device;  /* rows that a device holds, dead ones too */
    int64_t n_device_left_out; /* for which it has no memory */
};
void gallery_size(struct gallery *g, struct gallery_size *out);

struct gallery_device {
    struct device *device;
    size_t memory_bytes; /* of its rows; 0: its own bound */
    int timeout_ms;      /* of a search, then it is lost; 0: its own */
};
/* Search with a device from now on: a rounded copy of the large galleries'
 * rows is brought to it by gallery_bring, and it sorts out those that can
 * matter. Answers stay as they were, order and ties too: what the device has
 * not, or fails at, the processor does. A device that failed is asked no more.
 * No search or change waits for attaching, bringing or detaching; a search
 * waits for the device within its timeout. ERR_DEVICE, ERR_NOMEM.
 * Thread: one for the four that follow, and gallery_free after them. */
int gallery_attach(struct gallery *g, const struct gallery_device *to,
                   struct error *err);
/* Bring what the device lacks, overwrite there what is gone: a part of it at
 * a time. 1: there is more; 0: nothing, for the moment; -1: it failed. */
int gallery_bring(struct gallery *g);
/* Before the device is closed. Waits for searches there. */
void gallery_detach(struct gallery *g);
/* The same of a device that does not answer: what it holds is left to it, and
 * returned; NULL: nothing. */
struct rows *gallery_abandon(struct gallery *g);

/* Is one attached that has not failed? *why (may be NULL): how it failed. */
bool gallery_on_device(struct gallery *g, struct error *why);
/* Searches that it answered, and in which it failed, since the start. */
void gallery_device_counts(const struct gallery *g, int64_t *n_answered,
                           int64_t *n_failed);
const char *gallery_model(const struct gallery *g);

#endif
