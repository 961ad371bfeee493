/* daemon/batch.h - faces of all requests to embeddings, in batches.
 * A bounded queue and one inference worker, which owns the embedder: when it
 * is free it takes whatever waits, up to the cap; no timer. A group (the
 * faces of one request that must be answered together) is never split unless
 * it is larger than a batch. */
#ifndef DAEMON_BATCH_H
#define DAEMON_BATCH_H

#include <stdint.h>

#include "core/face/embed.h"

struct batch; /* queue and worker */

/* The faces of one request. Borrowed by batch from push until done is called,
 * exactly once. */
struct batch_group {
    const float *const *chips; /* n pointers to [3,h,w] */
    float *out;                /* n rows [dim] */
    int n;
    int64_t deadline_us;       /* CLOCK_MONOTONIC; later: ERR_DEADLINE */
    /* True: the client is gone; skip it (ERR_DEADLINE). May be NULL. */
    bool (*cancelled)(void *ctx);
    /* err NULL: out is filled. Thread: the inference worker; must not
     * block. */
    void (*done)(void *ctx, const struct error *err);
    void *ctx;
    int64_t waited_us, run_us; /* filled before done */
    int batch_n;               /* faces in the batch it ran in */
};

/* take_embedder is owned from then on. chip_bytes: of one face, for
 * max_bytes. */
struct batch *batch_new(struct embedder *take_embedder, int max_faces,
                        int64_t max_bytes, int64_t chip_bytes,
                        struct error *err);
/* Answers what waits with ERR_STOPPING, ends the worker. */
void batch_free(struct batch *b);
/* ERR_QUEUE_FULL when faces or bytes would be over the bound. Thread: any. */
int batch_push(struct batch *b, struct batch_group *g, struct error *err);
int batch_waiting(struct batch *b);
/* Seconds until a full queue has room, from the measured rate; >= 1. */
int batch_retry_after(struct batch *b);
bool batch_alive(struct batch *b, int timeout_ms); /* watchdog */

#endif
