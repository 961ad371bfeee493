/* daemon/log.h - one key=value line per event to stderr, with a journal level
 * prefix ("<6>") when stderr is the journal. Values are quoted and escaped,
 * so one event is one line. Never image bytes, embeddings or names.
 * Thread: any; never blocks a request (a full pipe drops and counts). */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARN = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

void log_open(enum log_level level);
void log_set_level(enum log_level level);
/* log_event(LOG_LEVEL_INFO, "start", "listen", "%s", addr, "port", "%d", p,
 *           NULL): pairs of key and printf format with its one argument are
 * awkward in C, so: fmt is the rest of the line, made of key=%s parts; string
 * arguments must have been through log_quote where they come from outside. */
void log_event(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Escape into buf (quotes, backslash, control bytes, non-ASCII); returns buf.
 */
const char *log_quote(const char *text, char *buf, int len_buf);
int64_t log_dropped(void);

#endif
