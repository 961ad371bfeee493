/* daemon/queue.h - a bounded queue between threads. Full means no: push
 * never waits. Thread: any. */
#ifndef DAEMON_QUEUE_H
#define DAEMON_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct queue;

struct queue *queue_new(size_t max_items);
void queue_free(struct queue *q); /* items left are the caller's to drain */
/* False when full or closed. front: ahead of everything that waits. */
bool queue_push(struct queue *q, void *item, bool front);
/* Waits up to wait_ms (-1: for ever); NULL on time-out or when closed and
 * empty. */
void *queue_pop(struct queue *q, int wait_ms);
size_t queue_length(struct queue *q);
/* Wakes every popper; pushes fail from now on. */
void queue_close(struct queue *q);

#endif
