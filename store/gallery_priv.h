/* store/gallery_priv.h - what gallery.c (changing), gallery_search.c (asking,
 * loading) and gallery_device.c (the copy on a card) share. */
#ifndef STORE_GALLERY_PRIV_H
#define STORE_GALLERY_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/engine/rows.h"
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

/* The copy of the rows on a device. Searches hold `use` for reading; who
 * brings or takes the device holds it for writing, and nobody waits for that:
 * a search that does not get it goes without. A chunk is in the copy when it
 * bears its generation. */
struct on_device {
    pthread_rwlock_t use;
    struct rows *rows;       /* NULL: none */
    atomic_bool lost;        /* it failed: nothing more is asked of it */
    atomic_bool behind;      /* gallery_bring has something to do */
    atomic_uint generation;  /* of rows, from 1 */
    pthread_mutex_t lock;    /* of what follows */
    int *spare, *given_back; /* blocks, [rows->n_blocks]; given_back: to be
                                wiped first */
    int n_spare, n_given_back, n_used;
    int most;         /* of blocks; until memory ran out: rows->n_blocks */
    struct error why; /* it failed */
    atomic_llong n_rows, n_left_out, n_answered, n_failed;
};

struct chunk {
    atomic_long refs;
    struct on_device *device;
    atomic_uint generation; /* of the device's rows that hold it; 0: none */
    int block;
    atomic_int n_there;  /* its first rows are */
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
    struct on_device device;
};

struct best {
    float distance;
    int64_t face;
    const struct person *person;
};

/* One row a person, the nearest; at most `limit` of them. */
struct top {
    struct best *rows;
    int n, limit, worst;
};

/* One of the queries of a search. */
struct asked {
    const float *query;
    struct top top;
    bool whole; /* the device's rows are in the answer */
};

/* Under g->lock, or by the writer. */
struct room *gallery_room_find(struct gallery *g, const char *id);
/* Where the living row of a face is. */
bool gallery_find_face(const struct snapshot *s, int64_t face, int *span,
                       int *row);
bool gallery_is_dead(const struct span *sp, int row);
bool gallery_is_unit(const float *v, int dim);
void gallery_snapshot_drop(struct snapshot *s); /* NULL is fine */
void gallery_chunk_drop(struct chunk *c);       /* the same */
void gallery_empty(struct gallery *g);

/* gallery_search.c */
void gallery_offer(struct top *t, float distance, int64_t face,
                   const struct person *p);

/* gallery_device.c */
void gallery_device_init(struct on_device *d);
void gallery_device_fini(struct on_device *d);
/* Of the writer: rows were added to c, or c is new. */
void gallery_device_added(struct gallery *g, const struct chunk *c);
void gallery_device_drop(struct chunk *c); /* nobody holds c */

/* A search of it. there [n_spans]: of each span, the first rows that the
 * device has and the host need not measure. False: it has none of them, and
 * there is nothing to end. */
struct device_search {
    const struct gallery *g;
    const struct snapshot *snap;
    int *there;
    struct rows_piece *pieces;
    int *spans; /* of the pieces */
    int n_pieces;
    int64_t n_rows;
};
bool gallery_device_begin(struct gallery *g, const struct snapshot *snap,
                          struct device_search *s);
/* After the other rows were offered: offer those of the device that can be in
 * the answers. Those that are not whole then must be measured. */
void gallery_device_best(struct device_search *s, struct asked *all, int n,
                         float threshold);
void gallery_device_end(struct gallery *g, struct device_search *s);

#endif
