/* daemon/stats.c - fixed tables of atomic counters, printed as Prometheus
 * text. Nothing here locks or allocates while it records: a slot is claimed
 * once by compare-and-swap and counted with relaxed adds, so a scrape may see
 * a histogram whose sum is one observation ahead of its count. */
#include "daemon/stats.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_BUCKETS = 16,
    MAX_REQUESTS = 512,
    MAX_ERRORS = 64
};

struct histogram {
    atomic_llong buckets[MAX_BUCKETS + 1]; /* the last: +Inf */
    atomic_llong sum_micro;                /* of the values, in millionths */
};

static const double seconds[MAX_BUCKETS] = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
static const double faces[MAX_BUCKETS] = {1,  2,  3,  4,  6,  8,   12,  16,
                                          24, 32, 48, 64, 96, 128, 192, 256};

static const struct {
    const char *name, *help;
    const double *bounds;
} about[STATS_HISTOGRAMS] = {
    [STATS_REQUEST] = {"facenetd_request_seconds",
                       "From the first byte of a request to its answer.",
                       seconds},
    [STATS_DECODE] = {"facenetd_decode_seconds", "Decoding one photo.",
                      seconds},
    [STATS_DETECT] = {"facenetd_detect_seconds",
                      "Finding the faces of one photo.", seconds},
    [STATS_ALIGN] = {"facenetd_align_seconds",
                     "Aligning the faces of one photo.", seconds},
    [STATS_QUEUE_WAIT] = {"facenetd_queue_wait_seconds",
                          "Wait of one request's faces for their batch.",
                          seconds},
    [STATS_EMBED] = {"facenetd_embed_seconds", "One batch through the network.",
                     seconds},
    [STATS_BATCH_SIZE] = {"facenetd_batch_faces", "Faces of one batch.", faces},
    [STATS_SEARCH] = {"facenetd_search_seconds", "One search of the gallery.",
                      seconds},
    [STATS_STORE] = {"facenetd_store_seconds", "One change of the database.",
                     seconds},
};

/* A slot is in use when key is set. The other half of a request's key is set
 * before its status, which readers look at last. */
struct request_slot {
    _Atomic(const char *) method;
    _Atomic(const char *) route;
    atomic_int status;
    atomic_llong count;
};
struct error_slot {
    _Atomic(const char *) code;
    atomic_llong count;
};

static struct histogram histograms[STATS_HISTOGRAMS];
static struct request_slot requests[MAX_REQUESTS];
static struct error_slot errors[MAX_ERRORS];
static atomic_llong lost; /* requests for which no slot was left */

void stats_observe(enum stats_histogram h, double value)
{
    struct histogram *to = &histograms[h];
    int i = 0;

    if (!isfinite(value) || value < 0)
        return;
    while (i < MAX_BUCKETS && value > about[h].bounds[i])
        i++;
    atomic_fetch_add_explicit(&to->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&to->sum_micro, llround(value * 1e6),
                              memory_order_relaxed);
}

/* Does the slot hold this key, or could it be claimed for it? */
static int slot_take(struct request_slot *slot, const char *method,
                     const char *route, int status)
{
    const char *none = NULL;

    if (atomic_compare_exchange_strong(&slot->method, &none, method)) {
        atomic_store(&slot->route, route);
        atomic_store(&slot->status, status);
        return 1;
    }
    /* Another thread may be between its claim and its status: then this
     * looks like a different key and a second slot is claimed for the same
     * one; stats_text adds such twins up. */
    return none == method && atomic_load(&slot->status) == status &&
           atomic_load(&slot->route) == route;
}

void stats_request(const char *method, const char *route, int status)
{
    for (int i = 0; i < MAX_REQUESTS; i++) {
        if (!slot_take(&requests[i], method, route, status))
            continue;
        atomic_fetch_add_explicit(&requests[i].count, 1, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
}

void stats_error(const char *code)
{
    for (int i = 0; i < MAX_ERRORS; i++) {
        const char *none = NULL;
        if (!atomic_compare_exchange_strong(&errors[i].code, &none, code) &&
            none != code)
            continue;
        atomic_fetch_add_explicit(&errors[i].count, 1, memory_order_relaxed);
        return;
    }
}

static void head(FILE *out, const char *name, const char *help,
                 const char *type)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_histogram(FILE *out, enum stats_histogram h)
{
    struct histogram *from = &histograms[h];
    const char *name = about[h].name;
    long long n = 0;

    head(out, name, about[h].help, "histogram");
    for (int i = 0; i < MAX_BUCKETS; i++) {
        n += atomic_load_explicit(&from->buckets[i], memory_order_relaxed);
        fprintf(out, "%s_bucket{le=\"%g\"} %lld\n", name, about[h].bounds[i],
                n);
    }
    n +=
        atomic_load_explicit(&from->buckets[MAX_BUCKETS], memory_order_relaxed);
    fprintf(out, "%s_bucket{le=\"+Inf\"} %lld\n", name, n);
    fprintf(
        out, "%s_sum %.6f\n", name,
        (double)atomic_load_explicit(&from->sum_micro, memory_order_relaxed) /
            1e6);
    fprintf(out, "%s_count %lld\n", name, n);
}

/* The key of slot i, or 0 where it is free or not yet whole. */
static int slot_key(int i, const char **method, const char **route)
{
    *method = atomic_load(&requests[i].method);
    *route = atomic_load(&requests[i].route);
    return *method && *route ? atomic_load(&requests[i].status) : 0;
}

static void print_requests(FILE *out)
{
    head(out, "facenetd_requests_total", "Requests answered.", "counter");
    for (int i = 0; i < MAX_REQUESTS; i++) {
        const char *method, *route;
        int status = slot_key(i, &method, &route), first = 1;
        long long n = 0;

        if (!status)
            continue;
        for (int j = 0; j < MAX_REQUESTS; j++) {
            const char *m, *r;
            if (slot_key(j, &m, &r) != status || m != method || r != route)
                continue;
            if (j < i)
                first = 0;
            n += atomic_load(&requests[j].count);
        }
        if (first)
            fprintf(out,
                    "facenetd_requests_total{method=\"%s\",route=\"%s\","
                    "status=\"%d\"} %lld\n",
                    method, route, status, n);
    }
    if (atomic_load(&lost))
        fprintf(out,
                "facenetd_requests_total{method=\"\",route=\"\",status=\"\"} "
                "%lld\n",
                (long long)atomic_load(&lost));
}

static void print_errors(FILE *out)
{
    head(out, "facenetd_errors_total",
         "Requests answered with a problem, by its code.", "counter");
    for (int i = 0; i < MAX_ERRORS; i++) {
        const char *code = atomic_load(&errors[i].code);
        if (code)
            fprintf(out, "facenetd_errors_total{code=\"%s\"} %lld\n", code,
                    (long long)atomic_load(&errors[i].count));
    }
}

char *stats_text(const struct stats_gauge *gauges, int n, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    int failed;

    if (!out)
        return NULL;
    print_requests(out);
    print_errors(out);
    for (int h = 0; h < STATS_HISTOGRAMS; h++)
        print_histogram(out, h);
    for (int i = 0; i < n; i++) {
        head(out, gauges[i].name, gauges[i].help,
             gauges[i].counter ? "counter" : "gauge");
        fprintf(out, "%s %.17g\n", gauges[i].name, gauges[i].value);
    }
    failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
