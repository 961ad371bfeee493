/* core/face/embed.c - chips to unit vectors: one network, a plan for each
 * batch size, and the cheapest cover of what waits by them. After align and
 * the queue, before distance; the inference worker and the tools call it. */
#include "core/face/embed.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/distance.h"

enum {
    MOST_PLANS = 16,
    MOST_BATCH = 1024,
    LOOK_AGAIN = 64 /* runs, after which one measures what it would not use */
};

struct embedder {
    struct network *net;
    bool shares_net;                /* another one's */
    struct plan *plans[MOST_PLANS]; /* by growing batch size */
    int sizes[MOST_PLANS];
    atomic_llong time_ns[MOST_PLANS]; /* moving mean of a run; 0: unknown */
    bool warm[MOST_PLANS];            /* was run before: a time counts */
    int n_plans;
    int dim;
    size_t n_input; /* floats of one chip */
    embedder_forward_fn forward;
    void *forward_ctx;
    unsigned n_runs;
    bool by_time; /* the plans to take are chosen by time_ns */
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int forward_here(void *ctx, struct plan *p, struct error *err)
{
    (void)ctx;
    return graph_forward(p, err);
}

static int make_plans(struct embedder *e, const struct model *m, int batch_max,
                      enum precision precision, struct error *err)
{
    for (int n = 1;; n = 2 * n < batch_max ? 2 * n : batch_max) {
        struct plan_options opt = {.n = n,
                                   .h = m->contract.height,
                                   .w = m->contract.width,
                                   .precision = precision};
        struct plan *p = graph_plan(e->net, &opt, err);
        const struct shape *s;
        if (!p) {
            error_context(err, "%s: batch of %d", m->name, n);
            return -1;
        }
        e->plans[e->n_plans] = p;
        e->sizes[e->n_plans++] = n;
        s = plan_output_shape(p, 0);
        if (shape_count(s) != (size_t)n * (size_t)e->dim ||
            shape_count(&p->shape_in) != (size_t)n * e->n_input) {
            char text[64];
            return error_set(err, ERR_MODEL,
                             "%s: gives %s for a batch of %d, its contract "
                             "says %d numbers a face",
                             m->name, shape_text(s, text, sizeof(text)), n,
                             e->dim);
        }
        if (n == batch_max)
            return 0;
    }
}

/* On net, which is its own unless shares_net. Consumes it, too when it
 * fails. */
static struct embedder *embedder_on(struct network *take_net, bool shares_net,
                                    const struct model *m, int batch_max,
                                    enum precision precision, struct error *err)
{
    const struct contract *c = &m->contract;
    struct embedder *e = calloc(1, sizeof(*e));

    if (!e) {
        if (!shares_net)
            network_free(take_net);
        return error_null(err, ERR_NOMEM, "no memory for an embedder");
    }
    e->dim = c->dim;
    e->n_input = 3 * (size_t)c->width * (size_t)c->height;
    e->net = take_net;
    e->shares_net = shares_net;
    e->forward = forward_here;
    if (make_plans(e, m, batch_max, precision, err)) {
        embedder_free(e);
        return NULL;
    }
    return e;
}

struct embedder *embedder_new(struct device *dev, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err)
{
    const struct contract *c = &m->contract;
    struct network *net;

    if (c->kind != MODEL_EMBEDDER || c->dim < 1 || c->width < 1 ||
        c->height < 1)
        return error_null(err, ERR_MODEL, "%s: not a network for embeddings",
                          m->name);
    if (batch_max < 1 || batch_max > MOST_BATCH)
        return error_null(err, ERR_BAD_FIELD,
                          "batch of %d: 1 to %d are possible", batch_max,
                          MOST_BATCH);
    net = network_new(dev, m->graph, err);
    return net ? embedder_on(net, false, m, batch_max, precision, err) : NULL;
}

struct embedder *embedder_twin(const struct embedder *e, const struct model *m,
                               struct error *err)
{
    return embedder_on(e->net, true, m, embedder_batch_max(e),
                       embedder_precision(e), err);
}

void embedder_free(struct embedder *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->n_plans; i++)
        plan_free(e->plans[i]);
    if (e->net && !e->shares_net)
        network_free(e->net);
    free(e);
}

/* --- which plans -------------------------------------------------------- */

/* Of one run. Where it was not measured, as the nearest that was, by the
 * number of faces; a run costs something by itself. */
static int64_t plan_ns(const struct embedder *e, int k)
{
    int64_t ns = atomic_load_explicit(&e->time_ns[k], memory_order_relaxed);

    for (int away = 1; ns == 0 && away < e->n_plans; away++)
        for (int side = -1; ns == 0 && side <= 1; side += 2) {
            int i = k + side * away;
            if (i < 0 || i >= e->n_plans)
                continue;
            ns = atomic_load_explicit(&e->time_ns[i], memory_order_relaxed);
            ns = ns * e->sizes[k] / e->sizes[i];
        }
    return ns;
}

/* Which plan n faces begin with so that all take least time, and that time.
 * n at most the largest plan's. As many faces as a plan has are that plan's,
 * whatever was measured: so that a face alone, sent again, gets the same
 * numbers to the last digit. */
static int cheapest(const struct embedder *e, int n, int64_t *total)
{
    int64_t cost[MOST_BATCH + 1], time[MOST_PLANS];
    int first = 0, exact = 0;

    for (int k = 0; k < e->n_plans; k++) {
        int64_t ns = plan_ns(e, k);
        time[k] = ns > 0 ? ns : 2 * e->sizes[k] + 1;
    }
    cost[0] = 0;
    for (int i = 1; i <= n; i++) {
        cost[i] = INT64_MAX;
        if (i == e->sizes[exact]) {
            first = exact++;
            cost[i] = time[first];
            continue;
        }
        for (int k = e->n_plans - 1; k >= 0; k--) {
            int left = i > e->sizes[k] ? i - e->sizes[k] : 0;
            if (time[k] + cost[left] >= cost[i])
                continue;
            cost[i] = time[k] + cost[left];
            first = k;
        }
    }
    *total = cost[n];
    return first;
}

int64_t embedder_time_us(const struct embedder *e, int n)
{
    int most = embedder_batch_max(e);
    int64_t full = 0, rest = 0;

    if (plan_ns(e, 0) == 0)
        return 0;
    if (n >= most)
        cheapest(e, most, &full);
    if (n % most > 0)
        cheapest(e, n % most, &rest);
    return (full * (n / most) + rest + 999) / 1000;
}

static void measured(struct embedder *e, int k, int64_t ns)
{
    int64_t mean = atomic_load_explicit(&e->time_ns[k], memory_order_relaxed);

    if (e->warm[k])
        atomic_store_explicit(&e->time_ns[k],
                              mean == 0 ? ns + 1 : mean + (ns - mean) / 8,
                              memory_order_relaxed);
    e->warm[k] = true;
}

void embedder_cover_by_time(struct embedder *e)
{
    e->by_time = true;
}

/* --- running ------------------------------------------------------------ */

/* n faces, at most plan k's. */
static int run_plan(struct embedder *e, int k, const float *const *chips, int n,
                    float *out, int *bad, struct error *err)
{
    size_t dim = (size_t)e->dim;
    float *input = plan_input(e->plans[k]);
    int64_t began = now_ns();

    for (int i = 0; i < n; i++)
        memcpy(input + (size_t)i * e->n_input, chips[i],
               e->n_input * sizeof(float));
    memset(input + (size_t)n * e->n_input, 0,
           (size_t)(e->sizes[k] - n) * e->n_input * sizeof(float));
    if (e->forward(e->forward_ctx, e->plans[k], err))
        return -1;
    memcpy(out, plan_output(e->plans[k], 0), (size_t)n * dim * sizeof(float));
    measured(e, k, now_ns() - began);
    for (int i = 0; i < n; i++) {
        float *row = out + (size_t)i * dim;
        if (distance_normalise(row, dim))
            continue;
        for (size_t d = 0; d < dim; d++)
            row[d] = NAN;
        ++*bad;
    }
    return 0;
}

int embedder_run(struct embedder *e, const float *const *chips, int n,
                 float *out, int *bad, struct error *err)
{
    int most = embedder_batch_max(e), n_bad = 0;
    /* now and then the smallest that holds them: a time that was disturbed
     * once would else never be measured again */
    bool look = ++e->n_runs % LOOK_AGAIN == 0 || !e->by_time;

    for (int from = 0, round; from < n; from += round) {
        int k = 0;
        int64_t total;
        round = n - from < most ? n - from : most;
        if (!look)
            k = cheapest(e, round, &total);
        else
            while (e->sizes[k] < round)
                k++;
        if (round > e->sizes[k])
            round = e->sizes[k];
        if (run_plan(e, k, chips + from, round,
                     out + (size_t)from * (size_t)e->dim, &n_bad, err))
            return -1;
    }
    if (bad)
        *bad = n_bad;
    else if (n_bad > 0)
        return error_set(err, ERR_DEVICE,
                         "the network gave no usable embedding for %d of %d "
                         "faces",
                         n_bad, n);
    return 0;
}

int embedder_measure(struct embedder *e, const float *chip, const float *want,
                     float *worst, struct error *err)
{
    int most = embedder_batch_max(e);
    size_t dim = (size_t)e->dim;
    const float **chips = calloc((size_t)most, sizeof(*chips));
    float *out = calloc((size_t)most * dim, sizeof(*out));
    int rc = chips && out
                 ? 0
                 : error_set(err, ERR_NOMEM,
                             "no memory for a batch of %d faces", most);

    *worst = 0;
    for (int i = 0; rc == 0 && i < most; i++)
        chips[i] = chip;
    for (int turn = 0; turn < 2 * e->n_plans && rc == 0; turn++) {
        int k = turn / 2, bad = 0;
        rc = run_plan(e, k, chips, e->sizes[k], out, &bad, err);
        for (int i = 0; rc == 0 && i < e->sizes[k]; i++) {
            double sum = 0;
            for (size_t d = 0; d < dim; d++) {
                double x = (double)out[(size_t)i * dim + d] - (double)want[d];
                sum += x * x;
            }
            if (!(sum <= (double)*worst))
                *worst = isfinite(sum) ? (float)sum : INFINITY;
        }
    }
    free(chips);
    free(out);
    return rc;
}

void embedder_set_forward(struct embedder *e, embedder_forward_fn forward,
                          void *ctx)
{
    e->forward = forward;
    e->forward_ctx = ctx;
}

int embedder_dim(const struct embedder *e)
{
    return e->dim;
}

int embedder_batch_max(const struct embedder *e)
{
    return e->sizes[e->n_plans - 1];
}

enum precision embedder_precision(const struct embedder *e)
{
    return e->plans[0]->info.precision;
}
