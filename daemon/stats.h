/* daemon/stats.h - counters and histograms, and their Prometheus text.
 * Atomic, lock-free to record; they count since the process began.
 * Thread: any. */
#ifndef DAEMON_STATS_H
#define DAEMON_STATS_H

#include <stddef.h>
#include <stdint.h>

enum stats_histogram {
    STATS_REQUEST, /* seconds, whole request */
    STATS_DECODE,
    STATS_DETECT,
    STATS_ALIGN,
    STATS_QUEUE_WAIT, /* seconds a face waited for its batch */
    STATS_EMBED,      /* seconds of a batch */
    STATS_BATCH_SIZE, /* faces of a batch */
    STATS_SEARCH,
    STATS_STORE,
    STATS_HISTOGRAMS
};

void stats_observe(enum stats_histogram h, double value);
/* A finished request: method and route live for ever (the table's). */
void stats_request(const char *method, const char *route, int status);
/* code: error_wire text of a refusal, lives for ever. */
void stats_error(const char *code);

/* A gauge read at scrape time, given by the caller. */
struct stats_gauge {
    const char *name, *help;
    double value;
    int counter; /* non-zero: a counter, not a gauge */
};
/* Prometheus text exposition 0.0.4, malloc'd, *len its length; NULL when
 * memory is out. */
char *stats_text(const struct stats_gauge *gauges, int n, size_t *len);

#endif
