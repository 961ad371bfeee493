/* daemon/work.h - the threads that decode, detect, align, search and store.
 * Each pops jobs from one queue and owns a detector scratch. A job with
 * several photos can have idle threads look at some of them. */
#ifndef DAEMON_WORK_H
#define DAEMON_WORK_H

#include <stdbool.h>

#include "core/face/detect.h"
#include "daemon/queue.h"

struct work; /* the threads */
struct job;

enum {
    WORK_CALLS = 32 /* places of the queue that work_share may take */
};

typedef void (*work_fn)(struct job *job);
typedef void (*work_part_fn)(void *ctx, int i, struct detect_scratch *scratch);

/* n threads over a queue of struct job; n 0: one per core. Ends when the
 * queue is closed and empty. ERR_NOMEM, or what a scratch gives. */
struct work *work_start(int n, struct queue *queue, struct detector *detector,
                        work_fn fn, struct error *err);
/* After queue_close: joins. NULL is fine. */
void work_join(struct work *w);
int work_threads(const struct work *w);
int work_idle(struct work *w); /* that wait for a job */
/* fn for each i in 0..n-1, begun in this order, on the calling work thread and
 * on those that have nothing else to do; returns when all are done. Never
 * waits for a thread to become idle. Thread: work. */
void work_share(int n, work_part_fn fn, void *ctx);
/* The calling work thread has got on with a long job. */
void work_beat(void);
/* False when a thread has worked longer than timeout_ms since its job began
 * or its last beat (watchdog). Thread: any. */
bool work_alive(struct work *w, int timeout_ms);

#endif
