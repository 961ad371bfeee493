/* daemon/limiter.h - wrong keys counted by address, so that whoever sends many
 * is told to wait and does not fill the log. Asked in admit when a key was
 * wrong, and told then; a good key always passes, so nobody behind a shared
 * address can lock the others out. (Against guessing keys are long.) Memory
 * is fixed however many addresses come. IPv6 counts by /64 network, the unit
 * one client commonly holds; IPv4 inside IPv6 counts as IPv4. Thread: any. */
#ifndef DAEMON_LIMITER_H
#define DAEMON_LIMITER_H

#include <stdint.h>

struct limiter; /* opaque */

/* 0: no limit. NULL when memory is short. */
struct limiter *limiter_new(int max_per_minute);
void limiter_free(struct limiter *l); /* NULL is fine */

/* addr is the peer as text ("127.0.0.1", "2001:db8::1", or any other name);
 * now_us is CLOCK_MONOTONIC. */
void limiter_failed(struct limiter *l, const char *addr, int64_t now_us);
/* Seconds until a wrong key from there is a 401 again, for Retry-After; 0:
 * it is now. */
int limiter_blocked(struct limiter *l, const char *addr, int64_t now_us);

#endif
