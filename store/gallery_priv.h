/* store/gallery_priv.h - what gallery.c (changing) and gallery_search.c
 * (asking, loading) share. */
#ifndef STORE_GALLERY_PRIV_H
#define STORE_GALLERY_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/gallery.h"
#include "store/table.h"

enum {
    CHUNK_ROWS = 4096,
    CHUNK_ROWS_MIN = 64 /* a small gallery's first */
};

/* How far a stored or asked vector's squared length may be from 1. What
 * distance_rows says is then within SLACK of distance_l2. */
#define UNIT_TOLERANCE 1e-4
#define SLACK 2.5e-4f

struct person {
    struct table_entry entry; /* first: the subject's id */
    atomic_long refs;         /* its room, and each row */
    char *name;
    int64_t *faces;
    int n_faces, cap_faces;
};

struct chunk {
    atomic_long refs;
    atomic_llong *bytes; /* the gallery's figure */
    int cap, used;       /* used: the writer's, and the last holder's */
    float *rows;         /* [cap,dim] */
    int64_t *faces;
    struct person **people;
    size_t len_rows, size;
};

struct dead {
    atomic_long refs;
    uint64_t bits[CHUNK_ROWS / 64];
};

struct span {
    struct chunk *chunk;
    struct dead *dead; /* NULL: none */
    int n, n_dead;
    int64_t min_face, max_face;
};

struct snapshot {
    atomic_long refs;
    int n_spans, cap;
    struct span spans[];
};

struct room {
    struct table_entry entry; /* first: the gallery's id */
    struct snapshot *snap;    /* never NULL */
    struct table people;
    int64_t n_rows; /* alive */
};

struct gallery {
    char model_id[STORE_MODEL_ID_LEN + 1];
    int dim;
    pthread_mutex_t write, lock;
    struct table rooms;
    int64_t n_subjects, n_faces, n_refused;
    bool broken; /* a removal failed: nothing is answered */
    atomic_llong bytes;
};

/* Under g->lock, or by the writer. */
struct room *gallery_room_find(struct gallery *g, const char *id);
/* Where the living row of a face is. */
bool gallery_find_face(const struct snapshot *s, int64_t face, int *span,
                       int *row);
bool gallery_is_dead(const struct span *sp, int row);
bool gallery_is_unit(const float *v, int dim);
void gallery_snapshot_drop(struct snapshot *s); /* NULL is fine */
void gallery_empty(struct gallery *g);

#endif
