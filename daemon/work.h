/* daemon/work.h - the threads that decode, detect, align, search and store.
 * Each pops jobs from one queue and owns a detector scratch. */
#ifndef DAEMON_WORK_H
#define DAEMON_WORK_H

#include <stdbool.h>

#include "core/face/detect.h"
#include "daemon/queue.h"

struct work; /* the threads */
struct job;

typedef void (*work_fn)(struct job *job, struct detect_scratch *scratch);

/* n threads over a queue of struct job; n 0: one per core. Ends when the
 * queue is closed and empty. ERR_NOMEM, or what a scratch gives. */
struct work *work_start(int n, struct queue *queue, struct detector *detector,
                        work_fn fn, struct error *err);
/* After queue_close: joins. NULL is fine. */
void work_join(struct work *w);
int work_threads(const struct work *w);
/* The calling work thread has got on with a long job. */
void work_beat(void);
/* False when a thread has worked longer than timeout_ms since its job began
 * or its last beat (watchdog). Thread: any. */
bool work_alive(struct work *w, int timeout_ms);

#endif
