/* daemon/api_metrics.c - GET /metrics: the counters of daemon/stats with the
 * gauges that are read when asked for, as Prometheus text. */
#include "daemon/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/batch.h"
#include "daemon/log.h"
#include "store/gallery.h"

enum {
    MAX_GAUGES = 64
};

struct gauges {
    struct stats_gauge row[MAX_GAUGES];
    int n;
};

static void add(struct gauges *g, const char *name, int counter, double value,
                const char *help)
{
    if (g->n < MAX_GAUGES)
        g->row[g->n++] = (struct stats_gauge){
            .name = name, .help = help, .value = value, .counter = counter};
}

static void add_queues(struct gauges *g, const struct job *job)
{
    struct server *s = job->server;
    struct http_stats h = {0};

    http_stats(s->http, &h);
    add(g, "facenetd_work_queue_length", 0, (double)queue_length(s->work),
        "Requests that wait for a work thread.");
    add(g, "facenetd_batch_waiting", 0, batch_waiting(job->serving->batch),
        "Faces that wait for the network.");
    add(g, "facenetd_connections", 0, (double)h.connections,
        "Open connections.");
    add(g, "facenetd_in_flight", 0, (double)h.in_flight,
        "Requests between their headers and their answer.");
    add(g, "facenetd_buffered_bytes", 0, (double)h.buffered_bytes,
        "Memory of request bodies.");
    add(g, "facenetd_connections_refused_total", 1, (double)h.refused,
        "Connections refused over a limit.");
    add(g, "facenetd_connections_timed_out_total", 1, (double)h.timed_out,
        "Connections closed because a request did not arrive in time.");
}

static void add_store(struct gauges *g, const struct job *job)
{
    struct server *s = job->server;
    struct gallery_size size = {0};
    struct store_stats st = {0};

    gallery_size(job->serving->gallery, &size);
    add(g, "facenetd_gallery_galleries", 0, (double)size.n_galleries,
        "Galleries in memory.");
    add(g, "facenetd_gallery_subjects", 0, (double)size.n_subjects,
        "Subjects in memory.");
    add(g, "facenetd_gallery_faces", 0, (double)size.n_faces,
        "Embeddings in memory.");
    add(g, "facenetd_gallery_bytes", 0, (double)size.bytes,
        "Memory of the galleries.");
    add(g, "facenetd_store_failed", 0, store_failed(s->store),
        "1 when the database failed and writes are refused.");
    if (store_stats(s->store, &st, NULL) < 0)
        return;
    add(g, "facenetd_store_faces", 0, (double)st.n_faces,
        "Faces in the database.");
    add(g, "facenetd_store_subjects", 0, (double)st.n_subjects,
        "Subjects in the database.");
    add(g, "facenetd_store_bytes", 0, (double)st.bytes,
        "Size of the database file.");
    add(g, "facenetd_store_wal_bytes", 0, (double)st.wal_bytes,
        "Size of the write-ahead log.");
    add(g, "facenetd_store_commits_total", 1, (double)st.n_commits,
        "Commits of the database.");
    add(g, "facenetd_store_writes_total", 1, (double)st.n_writes,
        "Changes that those commits carried.");
}

static void add_models(struct gauges *g, struct server *s)
{
    struct reembed_state state;

    reembed_state(s->reembed, &state);
    add(g, "facenetd_reembed_faces_total", 1, (double)state.n_embedded,
        "Stored faces that were embedded for another model.");
    add(g, "facenetd_reembed_unusable_total", 1, (double)state.n_unusable,
        "Stored faces whose kept crop could not be embedded.");
    add(g, "facenetd_model_switches_total", 1, (double)state.n_switches,
        "Times that another model became active.");
}

static void add_card(struct gauges *g, const struct job *job,
                     const struct card_status *c)
{
    struct detection_status d;

    add(g, "facenetd_device_up", 0, c->state == CARD_UP,
        "1 when there is a card that is used.");
    add(g, "facenetd_device_serves", 0,
        runner_on_card(job->serving->runner, NULL),
        "1 when the card runs the active model, 0 when the processor does.");
    add(g, "facenetd_device_opened_total", 1, (double)c->n_opened,
        "Times that the card was opened.");
    add(g, "facenetd_device_lost_total", 1, (double)c->n_lost,
        "Times that the card failed.");
    add(g, "facenetd_device_failovers_total", 1, (double)c->n_failovers,
        "Batches that the processor ran because the card could not.");
    detection_status(job->server->detection, &d);
    add(g, "facenetd_detection_on_device", 0, d.on_card,
        "1 when the card runs the detector's networks.");
    add(g, "facenetd_detection_batches_total", 1, (double)d.n_runs,
        "Batches of the detector's networks that the card ran.");
    add(g, "facenetd_detection_inputs_total", 1, (double)d.n_inputs,
        "Canvases and crops in those batches.");
    add(g, "facenetd_detection_failovers_total", 1, (double)d.n_failovers,
        "Runs that the processor did because the card could not.");
    add(g, "facenetd_device_memory_used_bytes", 0, (double)c->bytes_used,
        "Memory of the card in use when it was last loaded.");
    add(g, "facenetd_device_memory_bytes", 0, (double)c->bytes_total,
        "Memory of the card.");
}

static void add_card_gallery(struct gauges *g, const struct job *job,
                             const struct card_status *c)
{
    struct card_gallery_status on_card = {0};

    if (job->serving->on_card)
        card_gallery_status(job->serving->on_card, &on_card);
    add(g, "facenetd_device_searches_gallery", 0, on_card.attached,
        "1 when searches are asked of the card.");
    add(g, "facenetd_device_gallery_rows", 0, (double)on_card.n_rows,
        "Rows of the galleries that the card holds.");
    add(g, "facenetd_device_gallery_rows_left_out", 0,
        (double)on_card.n_left_out,
        "Rows of the galleries for which the card has no memory.");
    add(g, "facenetd_device_searches_total", 1, (double)c->n_searches,
        "Searches of faces that the card answered.");
    add(g, "facenetd_device_search_failures_total", 1,
        (double)c->n_search_failures,
        "Searches of faces that the card failed in; the processor answered.");
}

static void add_process(struct gauges *g, struct server *s)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f) {
        if (fscanf(f, "%ld %ld", &pages, &resident) != 2)
            pages = resident = 0;
        fclose(f);
    }
    if (resident > 0) {
        add(g, "process_resident_memory_bytes", 0,
            (double)resident * (double)sysconf(_SC_PAGESIZE),
            "Resident memory.");
        add(g, "process_virtual_memory_bytes", 0,
            (double)pages * (double)sysconf(_SC_PAGESIZE), "Virtual memory.");
    }
    add(g, "facenetd_uptime_seconds", 0,
        (double)(server_now_us() - s->started_us) / 1e6,
        "Time since the start.");
    add(g, "facenetd_ready", 0, atomic_load(&s->ready),
        "1 when requests are served.");
    add(g, "facenetd_log_dropped_total", 1, (double)log_dropped(),
        "Log lines lost to a full pipe.");
}

static void jobs_text(const struct server *s, char *out, size_t len)
{
    int n[JOBS_STATES];
    size_t at = 0;

    jobs_count(s->training, n);
    for (int i = 0; i < JOBS_STATES && at < len; i++)
        at += (size_t)snprintf(out + at, len - at,
                               "facenetd_jobs{state=\"%s\"} %d\n",
                               jobs_state_name((enum jobs_state)i), n[i]);
}

/* What stands between the quotes of a label's value. */
static const char *label(const char *text, char *out, size_t len)
{
    size_t n = 0;

    for (; *text && n + 3 < len; text++) {
        if (*text == '"' || *text == '\\')
            out[n++] = '\\';
        out[n++] = *text == '\n' ? ' ' : *text;
    }
    out[n] = '\0';
    return out;
}

/* text and what has labels in one buffer; takes text. NULL: no memory. */
static char *with_build(const struct job *job, const struct card_status *c,
                        char *take_text, size_t *len)
{
    const struct serving *sv = job->serving;
    bool on_card = runner_on_card(sv->runner, NULL);
    char *all = NULL, jobs[JOBS_STATES * 64], name[136], why[488];
    int n;

    jobs_text(job->server, jobs, sizeof(jobs));
    n = asprintf(
        &all,
        "%s# HELP facenetd_jobs Training jobs by state.\n"
        "# TYPE facenetd_jobs gauge\n"
        "%s# HELP facenetd_build_info Version, model and arithmetic.\n"
        "# TYPE facenetd_build_info gauge\n"
        "facenetd_build_info{version=\"%s\",model=\"%s\",device=\"%s\","
        "precision=\"%s\"} 1\n"
        "# HELP facenetd_device_info The card, and why it is not used or was "
        "last lost.\n"
        "# TYPE facenetd_device_info gauge\n"
        "facenetd_device_info{device=\"%s\",name=\"%s\",state=\"%s\","
        "why=\"%s\"} 1\n",
        take_text, jobs, FACENETD_VERSION, sv->model->id,
        on_card ? c->backend : job->server->device->backend->name,
        precision_name(runner_precision(sv->runner)), c->setting,
        label(c->name, name, sizeof(name)), card_state_name(c->state),
        label(c->why, why, sizeof(why)));

    free(take_text);
    if (n < 0)
        return NULL;
    *len = (size_t)n;
    return all;
}

int api_metrics(struct job *job, struct error *err)
{
    struct gauges g = {.n = 0};
    struct card_status card;
    char *text;
    size_t len = 0;

    add_queues(&g, job);
    add_store(&g, job);
    add_models(&g, job->server);
    card_status(job->server->card, &card);
    add_card(&g, job, &card);
    add_card_gallery(&g, job, &card);
    add_process(&g, job->server);
    text = stats_text(g.row, g.n, &len);
    if (text)
        text = with_build(job, &card, text, &len);
    if (!text)
        return error_set(err, ERR_NOMEM, "no memory for the answer");
    job_answer_text(job, 200, "text/plain; version=0.0.4; charset=utf-8", text,
                    len);
    return 0;
}
