/* daemon/notify.h - the systemd readiness protocol, and sockets it hands
 * over. Does nothing when NOTIFY_SOCKET is not set. Thread: main. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

void notify_ready(void);
void notify_stopping(void);
void notify_reloading(void); /* with MONOTONIC_USEC */
void notify_watchdog(void);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void notify_extend(int64_t usec); /* EXTEND_TIMEOUT_USEC while migrating */
/* Half of WATCHDOG_USEC when it is meant for this process, else 0. */
int64_t notify_watchdog_us(void);
/* Listening sockets from LISTEN_FDS; returns how many (fds from 3), 0 when
 * none; sets CLOEXEC and unsets the variables. */
int notify_listen_fds(int fds[], int max);

#endif
