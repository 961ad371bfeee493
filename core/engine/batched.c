/* core/engine/batched.c - one network, a plan for each batch size, and the
 * cheapest cover of what waits by them. The embedder is one, and every network
 * that runs on a card. */
#include "core/engine/batched.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LOOK_AGAIN = 64 /* runs, after which one measures what it would not use */
};

struct batched {
    struct batched_options opt;
    struct network *net;
    bool shares_net; /* another one's */
    struct plan *plans[BATCHED_MAX_SIZES];
    atomic_llong time_ns[BATCHED_MAX_SIZES]; /* moving mean of a run; 0:
                                                unknown */
    bool warm[BATCHED_MAX_SIZES];            /* was run before: a time counts */
    int n_plans;
    batched_forward_fn forward;
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

static int finite_rows(float *rows, int n, size_t dim)
{
    int bad = 0;

    for (int i = 0; i < n; i++, rows += dim) {
        float sum = 0;
        for (size_t d = 0; d < dim; d++)
            sum += rows[d] - rows[d]; /* 0, or NaN */
        if (sum == 0)
            continue;
        bad++;
        for (size_t d = 0; d < dim; d++)
            rows[d] = NAN;
    }
    return bad;
}

void batched_sizes(struct batched_options *opt, int factor, int most)
{
    opt->n_sizes = 0;
    for (int n = 1; n < most; n *= factor)
        if (opt->n_sizes < BATCHED_MAX_SIZES - 1)
            opt->sizes[opt->n_sizes++] = n;
    opt->sizes[opt->n_sizes++] = most;
}

/* --- making --------------------------------------------------------------- */

static int make_plans(struct batched *b, struct error *err)
{
    const struct batched_options *o = &b->opt;

    for (int i = 0; i < o->n_sizes; i++) {
        struct plan_options opt = {
            .n = o->sizes[i], .h = o->h, .w = o->w, .precision = o->precision};
        size_t n = (size_t)opt.n;
        struct plan *p = graph_plan(b->net, &opt, err);
        if (!p) {
            error_context(err, "%s: batch of %d", o->name, opt.n);
            return -1;
        }
        b->plans[b->n_plans++] = p;
        if (plan_row_floats(p) != o->dim ||
            shape_count(&p->shape_in) != n * o->n_input) {
            char text[64];
            return error_set(err, ERR_MODEL,
                             "%s: takes %s and gives %zu numbers for each of "
                             "a batch of %d; %zu are wanted",
                             o->name,
                             shape_text(&p->shape_in, text, sizeof(text)),
                             plan_row_floats(p), opt.n, o->dim);
        }
    }
    return 0;
}

/* On net, which is its own unless shares_net. Consumes it, too when it
 * fails. */
static struct batched *batched_on(struct network *take_net, bool shares_net,
                                  const struct batched_options *opt,
                                  struct error *err)
{
    struct batched *b = calloc(1, sizeof(*b));

    if (!b) {
        if (!shares_net)
            network_free(take_net);
        return error_null(err, ERR_NOMEM, "no memory for a network");
    }
    b->opt = *opt;
    if (!b->opt.finish)
        b->opt.finish = finite_rows;
    b->net = take_net;
    b->shares_net = shares_net;
    b->forward = forward_here;
    if (make_plans(b, err)) {
        batched_free(b);
        return NULL;
    }
    return b;
}

struct batched *batched_new(struct device *dev, const struct graph *g,
                            const struct batched_options *opt,
                            struct error *err)
{
    int most = opt->n_sizes > 0 ? opt->sizes[opt->n_sizes - 1] : 0;
    struct network *net;

    if (most < 1 || most > BATCHED_MOST)
        return error_null(err, ERR_BAD_FIELD,
                          "batch of %d: 1 to %d are possible", most,
                          BATCHED_MOST);
    net = network_new(dev, g, err);
    return net ? batched_on(net, false, opt, err) : NULL;
}

struct batched *batched_twin(const struct batched *b, struct error *err)
{
    return batched_on(b->net, true, &b->opt, err);
}

void batched_free(struct batched *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->n_plans; i++)
        plan_free(b->plans[i]);
    if (b->net && !b->shares_net)
        network_free(b->net);
    free(b);
}

/* --- which plans -------------------------------------------------------- */

/* Of one run. Where it was not measured, as the nearest that was, by the
 * number of inputs; a run costs something by itself. */
static int64_t plan_ns(const struct batched *b, int k)
{
    const int *sizes = b->opt.sizes;
    int64_t ns = atomic_load_explicit(&b->time_ns[k], memory_order_relaxed);

    for (int away = 1; ns == 0 && away < b->n_plans; away++)
        for (int side = -1; ns == 0 && side <= 1; side += 2) {
            int i = k + side * away;
            if (i < 0 || i >= b->n_plans)
                continue;
            ns = atomic_load_explicit(&b->time_ns[i], memory_order_relaxed);
            ns = ns * sizes[k] / sizes[i];
        }
    return ns;
}

/* Which plan n inputs begin with so that all take least time, and that time.
 * n at most the largest plan's. As many inputs as a plan has are that plan's,
 * whatever was measured: so that one alone, sent again, gets the same numbers
 * to the last digit. */
static int cheapest(const struct batched *b, int n, int64_t *total)
{
    int64_t cost[BATCHED_MOST + 1], time[BATCHED_MAX_SIZES];
    const int *sizes = b->opt.sizes;
    int first = 0, exact = 0;

    for (int k = 0; k < b->n_plans; k++) {
        int64_t ns = plan_ns(b, k);
        time[k] = ns > 0 ? ns : 2 * sizes[k] + 1;
    }
    cost[0] = 0;
    for (int i = 1; i <= n; i++) {
        cost[i] = INT64_MAX;
        if (i == sizes[exact]) {
            first = exact++;
            cost[i] = time[first];
            continue;
        }
        for (int k = b->n_plans - 1; k >= 0; k--) {
            int left = i > sizes[k] ? i - sizes[k] : 0;
            if (time[k] + cost[left] >= cost[i])
                continue;
            cost[i] = time[k] + cost[left];
            first = k;
        }
    }
    *total = cost[n];
    return first;
}

int64_t batched_time_us(const struct batched *b, int n)
{
    int most = batched_most(b);
    int64_t full = 0, rest = 0;

    if (plan_ns(b, 0) == 0)
        return 0;
    if (n >= most)
        cheapest(b, most, &full);
    if (n % most > 0)
        cheapest(b, n % most, &rest);
    return (full * (n / most) + rest + 999) / 1000;
}

static void measured(struct batched *b, int k, int64_t ns)
{
    int64_t mean = atomic_load_explicit(&b->time_ns[k], memory_order_relaxed);

    if (b->warm[k])
        atomic_store_explicit(&b->time_ns[k],
                              mean == 0 ? ns + 1 : mean + (ns - mean) / 8,
                              memory_order_relaxed);
    b->warm[k] = true;
}

void batched_cover_by_time(struct batched *b)
{
    b->by_time = true;
}

/* --- running ------------------------------------------------------------ */

/* n inputs, at most plan k's. */
static int run_plan(struct batched *b, int k, const float *const *inputs, int n,
                    float *rows, int *bad, struct error *err)
{
    size_t n_input = b->opt.n_input;
    float *to = plan_input(b->plans[k]);
    int64_t began = now_ns();

    for (int i = 0; i < n; i++)
        memcpy(to + (size_t)i * n_input, inputs[i], n_input * sizeof(float));
    memset(to + (size_t)n * n_input, 0,
           (size_t)(b->opt.sizes[k] - n) * n_input * sizeof(float));
    if (b->forward(b->forward_ctx, b->plans[k], err))
        return -1;
    plan_rows(b->plans[k], n, rows);
    measured(b, k, now_ns() - began);
    *bad += b->opt.finish(rows, n, b->opt.dim);
    return 0;
}

int batched_run(struct batched *b, const float *const *inputs, int n,
                float *rows, int *bad, struct error *err)
{
    int most = batched_most(b);
    /* now and then the smallest that holds them: a time that was disturbed
     * once would else never be measured again */
    bool look = ++b->n_runs % LOOK_AGAIN == 0 || !b->by_time;

    *bad = 0;
    for (int from = 0, round; from < n; from += round) {
        int k = 0;
        int64_t total;
        round = n - from < most ? n - from : most;
        if (!look)
            k = cheapest(b, round, &total);
        else
            while (b->opt.sizes[k] < round)
                k++;
        if (round > b->opt.sizes[k])
            round = b->opt.sizes[k];
        if (run_plan(b, k, inputs + from, round,
                     rows + (size_t)from * b->opt.dim, bad, err))
            return -1;
    }
    return 0;
}

int batched_measure(struct batched *b, const float *input, const float *want,
                    float *worst, struct error *err)
{
    int most = batched_most(b);
    size_t dim = b->opt.dim;
    const float **inputs = calloc((size_t)most, sizeof(*inputs));
    float *rows = calloc((size_t)most * dim, sizeof(*rows));
    int rc = inputs && rows ? 0
                            : error_set(err, ERR_NOMEM,
                                        "no memory for a batch of %d", most);

    *worst = 0;
    for (int i = 0; rc == 0 && i < most; i++)
        inputs[i] = input;
    for (int turn = 0; turn < 2 * b->n_plans && rc == 0; turn++) {
        int k = turn / 2, bad = 0;
        rc = run_plan(b, k, inputs, b->opt.sizes[k], rows, &bad, err);
        for (int i = 0; rc == 0 && i < b->opt.sizes[k]; i++) {
            double sum = 0;
            for (size_t d = 0; d < dim; d++) {
                double x = (double)rows[(size_t)i * dim + d] - (double)want[d];
                sum += x * x;
            }
            if (!(sum <= (double)*worst))
                *worst = isfinite(sum) ? (float)sum : INFINITY;
        }
    }
    free(inputs);
    free(rows);
    return rc;
}

void batched_set_forward(struct batched *b, batched_forward_fn forward,
                         void *ctx)
{
    b->forward = forward;
    b->forward_ctx = ctx;
}

int batched_most(const struct batched *b)
{
    return b->opt.sizes[b->n_plans - 1];
}

enum precision batched_precision(const struct batched *b)
{
    return b->plans[0]->info.precision;
}
