/* daemon/job.c - a job's stages and its answer. A job in flight holds one
 * reference to its request and is in at most one place: the work queue, a
 * work thread or the batch; so the work queue, which has room for jobs_max,
 * never refuses the one that comes back from the batch. */
#include "daemon/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/route.h"

enum {
    MAX_RESTARTS = 2
};

struct job *job_new(struct server *server, struct request *req,
                    const struct route *route)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job)
        return NULL;
    job->server = server;
    job->req = req;
    job->route = route;
    job->error_index = -1;
    return job;
}

static void drop_work(struct job *job)
{
    if (job->state_free)
        job->state_free(job->state);
    job->state = NULL;
    job->state_free = NULL;
    free(job->chips);
    free(job->embeddings);
    job->chips = NULL;
    job->embeddings = NULL;
    job->n_chips = 0;
}

void job_free(void *arg)
{
    struct job *job = arg;

    if (!job)
        return;
    drop_work(job);
    free(job);
}

int job_add_chip(struct job *job, const float *chip, struct error *err)
{
    const float **chips =
        realloc(job->chips, (size_t)(job->n_chips + 1) * sizeof(*job->chips));

    if (!chips)
        return error_set(err, ERR_NOMEM, "no memory for one more face");
    job->chips = chips;
    job->chips[job->n_chips++] = chip;
    return 0;
}

const float *job_embedding(const struct job *job, int i)
{
    return job->embeddings +
           (size_t)i * (size_t)job->serving->model->contract.dim;
}

/* --- answers ---------------------------------------------------------- */

static void answer_error(struct job *job, const struct error *err)
{
    int status = error_status(err->code);
    char *text, seconds[16];

    if (job->answered)
        return;
    job->answered = true;
    stats_error(error_wire(err->code));
    text = problem_text(err, job->error_image, job->error_index,
                        request_id(job->req));
    if (status == 503 || status == 429) {
        snprintf(seconds, sizeof(seconds), "%d",
                 server_retry_after(job->server));
        request_add_header(job->req, "Retry-After", seconds);
    }
    http_answer(job->req, status, "application/problem+json", text,
                text ? strlen(text) : 0);
}

void job_answer_text(struct job *job, int status, const char *content_type,
                     char *take_text, size_t len)
{
    struct error err;

    if (!take_text) {
        error_set(&err, ERR_NOMEM, "no memory for the answer");
        answer_error(job, &err);
        return;
    }
    if (job->answered) {
        free(take_text);
        return;
    }
    job->answered = true;
    http_answer(job->req, status, content_type, take_text, len);
}

void job_answer(struct job *job, int status, json_t *take_body)
{
    char *text = NULL;
    size_t len = 0;

    if (take_body) {
        text = json_dumps(take_body, JSON_COMPACT | JSON_REAL_PRECISION(9));
        json_decref(take_body);
    }
    if (text) {
        char *longer;
        len = strlen(text);
        longer = realloc(text, len + 2);
        if (longer) {
            text = longer;
            text[len++] = '\n'; /* for people with a terminal */
            text[len] = '\0';
        }
    }
    job_answer_text(job, status, "application/json", text, len);
}

/* --- stages ----------------------------------------------------------- */

/* Forget a job that was answered; it may be freed here. */
static void release(struct job *job)
{
    struct server *s = job->server;
    long long mean = atomic_load(&s->work_us);

    if (job->route->prepare) /* a lost update of a mean does no harm */
        atomic_store(&s->work_us, mean + (job->spent_us - mean) / 8);
    atomic_fetch_sub(&s->jobs, 1);
    serving_put(job->serving);
    request_unref(job->req);
}

static bool gone(void *ctx)
{
    const struct job *job = ctx;
    return request_cancelled(job->req);
}

static int not_gone(struct job *job, struct error *err)
{
    if (gone(job))
        return error_set(err, ERR_DEADLINE, "the answer was not ready in time");
    return 0;
}

/* Thread: the inference worker. */
static void embedded(void *ctx, const struct error *err)
{
    struct job *job = ctx;

    if (err)
        job->error = *err;
    /* There is room: see the head of this file. The queue is closed only
     * after the batch. */
    if (!queue_push(job->server->work, job, true))
        job_work(job);
}

/* After success the job belongs to the batch. */
static int embed(struct job *job, struct error *err)
{
    size_t dim = (size_t)job->serving->model->contract.dim;

    job->embeddings = calloc((size_t)job->n_chips, dim * sizeof(float));
    if (!job->embeddings)
        return error_set(err, ERR_NOMEM, "no memory for %d embeddings",
                         job->n_chips);
    job->stage = JOB_EMBED;
    job->group = (struct batch_group){
        .chips = job->chips,
        .out = job->embeddings,
        .n = job->n_chips,
        .deadline_us = request_deadline_us(job->req),
        .cancelled = gone,
        .done = embedded,
        .ctx = job,
    };
    return batch_push(job->serving->batch, &job->group, err);
}

static int finish(struct job *job, struct error *err)
{
    if (not_gone(job, err) != 0)
        return -1;
    job->stage = JOB_FINISH;
    return job->route->finish(job, err);
}

/* Another model took over before anything was stored: the same work again,
 * with that one. */
static bool restart(struct job *job, enum error_code why)
{
    if (why != ERR_MODEL_CHANGED || job->answered ||
        job->restarts == MAX_RESTARTS)
        return false;
    job->restarts++;
    drop_work(job);
    serving_put(job->serving);
    job->serving = servings_get(job->server->servings, SERVING_ACTIVE);
    job->stage = JOB_PREPARE;
    job->error = (struct error){.code = ERR_NONE};
    job->error_image[0] = '\0';
    job->error_index = -1;
    job->decode_us = job->detect_us = job->align_us = 0;
    return true;
}

void job_work(struct job *job)
{
    struct error err = {.code = ERR_NONE};
    int64_t began = server_now_us();
    int rc;

    if (job->stage == JOB_PREPARE) {
        rc = not_gone(job, &err);
        if (rc == 0 && job->route->prepare)
            rc = job->route->prepare(job, &err);
        job->spent_us += server_now_us() - began;
        if (rc == 0 && job->n_chips > 0) {
            if (embed(job, &err) == 0)
                return;
            rc = -1;
        }
        began = server_now_us();
    } else {
        err = job->error;
        rc = err.code == ERR_NONE ? 0 : -1;
    }
    if (rc == 0)
        rc = finish(job, &err);
    if (rc == 0 && !job->answered)
        rc = error_set(&err, ERR_INTERNAL, "the handler gave no answer");
    job->spent_us += server_now_us() - began;
    if (rc != 0 && restart(job, err.code)) {
        job_work(job);
        return;
    }
    if (rc != 0)
        answer_error(job, &err);
    release(job);
}

void job_start(struct job *job)
{
    struct server *s = job->server;
    int spare = job->route->prepare ? 0 : JOBS_SPARE;
    struct error err;

    job->start_us = server_now_us();
    job->serving = servings_get(s->servings, SERVING_ACTIVE);
    request_ref(job->req);
    if (atomic_fetch_add(&s->jobs, 1) >= s->jobs_max + spare) {
        error_set(&err, ERR_QUEUE_FULL, "%d requests already wait",
                  s->jobs_max);
        answer_error(job, &err);
        release(job);
        return;
    }
    if (job->route->now) {
        job_work(job);
    } else if (!queue_push(s->work, job, !job->route->prepare)) {
        error_set(&err, ERR_STOPPING, "the daemon is stopping");
        answer_error(job, &err);
        release(job);
    }
}
