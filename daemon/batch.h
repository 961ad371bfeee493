/* daemon/batch.h - faces of all requests to embeddings, in batches; in the
 * same way what detection asks of its networks.
 * A bounded queue and inference workers, of which as many run at once as the
 * device has slots: one for a processor, two for a card, where copies of one
 * batch overlap the other's computing. When a slot is free it takes whatever
 * waits, up to the cap; no timer. A group (the faces of one request that must
 * be answered together) is never split unless it is larger than a batch. */
#ifndef DAEMON_BATCH_H
#define DAEMON_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct batch; /* queue and workers */

enum {
    BATCH_MAX_SLOTS = 2
};

/* n chips to n rows of out, as embedder_run: *bad rows are NaN, the others
 * good; -1: none is. Thread: an inference worker; as many at once as there are
 * slots, a moment longer where they became fewer. */
typedef int (*batch_run_fn)(void *ctx, const float *const *chips, int n,
                            float *out, int *bad, struct error *err);
/* What the device takes now. Called with the queue's lock: must not block. */
struct batch_room {
    int slots; /* runs at once, 1 to BATCH_MAX_SLOTS */
    int faces; /* of one run, unless a group is larger */
};
typedef struct batch_room (*batch_room_fn)(void *ctx);
/* About how long a run of n faces takes; 0: unknown. The same. */
typedef int64_t (*batch_time_fn)(void *ctx, int n);

struct batch_options {
    batch_run_fn run;
    batch_room_fn room;
    batch_time_fn time_us; /* NULL: none is known */
    void *ctx;             /* of these; outlives the batch */
    int dim;               /* floats of a row */
    int n_workers;         /* the most slots that there will be; 0: 1 */
    int max_faces;         /* that may wait */
    int64_t max_bytes;     /* of the chips that wait */
    int64_t chip_bytes;    /* of one chip; 0: they are not counted */
    bool quiet;            /* leaves the histograms of embedding alone */
};

/* The faces of one request. Borrowed by batch from push until done is called,
 * exactly once. */
struct batch_group {
    const float *const *chips; /* n pointers to [3,h,w] */
    float *out;                /* n rows [dim] */
    int n;
    int64_t deadline_us; /* CLOCK_MONOTONIC; later: ERR_DEADLINE; 0: none */
    /* True: the client is gone; skip it (ERR_DEADLINE). May be NULL. */
    bool (*cancelled)(void *ctx);
    /* err NULL: out is filled. Thread: an inference worker; must not
     * block. */
    void (*done)(void *ctx, const struct error *err);
    void *ctx;
    int64_t waited_us, run_us; /* filled before done */
    int batch_n;               /* faces in the batch it ran in */
    /* batch's own */
    struct batch_group *next;
    int64_t pushed_us;
};

struct batch *batch_new(const struct batch_options *opt, struct error *err);
/* Answers what waits with ERR_STOPPING, ends the workers; a later push fails
 * with ERR_STOPPING. Once. Thread: main. */
void batch_close(struct batch *b);
/* After batch_close, when nobody pushes any more. NULL is fine. */
void batch_free(struct batch *b);
/* ERR_QUEUE_FULL when faces or bytes would be over the bound; a group larger
 * than the bound is taken when nothing waits. Thread: any. */
int batch_push(struct batch *b, struct batch_group *g, struct error *err);
int batch_waiting(struct batch *b); /* faces */
bool batch_full(struct batch *b);   /* not even one face more */
/* Seconds until a full queue has room, from the measured rate; >= 1. */
int batch_retry_after(struct batch *b);
/* False when one run has taken longer than timeout_ms, or faces have waited
 * that long beside idle workers (watchdog). */
bool batch_alive(struct batch *b, int timeout_ms);

#endif
