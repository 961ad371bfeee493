/* daemon/detection.c - a queue and a network on the card for each stage of the
 * detector, and what a scratch calls to have a stage run there. */
#include "daemon/detection.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batch.h"
#include "daemon/log.h"

/* Squared distance of a row from the processor's, by the square of its length:
 * f32, summed in another order. */
#define LIMIT 1e-7f

enum {
    SIZES_FACTOR = 4, /* 1, 4, 16 …: loading a size takes longer than what is
                         lost by idle room */
    WAITING = 4       /* batches that may wait; then the processor is quicker */
};

/* Inputs of one run: 16 canvases are 5 MB, and more than that of crops. */
static const int most[DETECT_STAGES] = {16, 256, 64};

/* What the card's keeper reads; it outlives the stage. */
struct lent {
    char id[65];
    struct graph *graph;
    float *input, *want;
};

struct stage {
    struct detection *detection;
    struct card_net *net; /* NULL: the processor alone */
    struct batch *batch;
    int most;
};

struct detection {
    struct stage stages[DETECT_STAGES];
    bool lives; /* every stage is there */
    struct error why;
    atomic_llong n_runs, n_inputs, n_failovers;
};

/* --- a scratch asks ------------------------------------------------------- */

struct wait {
    pthread_mutex_t lock;
    pthread_cond_t there;
    bool done, failed;
};

static void answered(void *ctx, const struct error *err)
{
    struct wait *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->failed = err != NULL;
    pthread_cond_signal(&w->there);
    pthread_mutex_unlock(&w->lock);
}

/* As struct detect_elsewhere says. The wait ends: a run is given up after the
 * card's time-out, and then the card is not there for those that follow. */
static int ask(void *ctx, enum detect_stage stage, const float *const *inputs,
               int n, float *rows)
{
    struct detection *d = ctx;
    struct wait w = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .there = PTHREAD_COND_INITIALIZER};
    struct batch_group g = {
        .chips = inputs, .out = rows, .n = n, .done = answered, .ctx = &w};
    struct error err;

    if (batch_push(d->stages[stage].batch, &g, &err) == 0) {
        pthread_mutex_lock(&w.lock);
        while (!w.done)
            pthread_cond_wait(&w.there, &w.lock);
        pthread_mutex_unlock(&w.lock);
        if (!w.failed)
            return 0;
    }
    atomic_fetch_add(&d->n_failovers, 1);
    return 1;
}

static bool there(void *ctx, enum detect_stage stage)
{
    const struct detection *d = ctx;

    return card_net_slots(d->stages[stage].net) > 0;
}

/* --- the queue's side ----------------------------------------------------- */

static int run(void *ctx, const float *const *inputs, int n, float *rows,
               int *bad, struct error *err)
{
    struct stage *s = ctx;
    int rc = card_net_run(s->net, inputs, n, rows, bad, err);

    if (rc > 0)
        return error_set(err, ERR_DEVICE, "the card is not there");
    if (rc == 0) {
        atomic_fetch_add(&s->detection->n_runs, 1);
        atomic_fetch_add(&s->detection->n_inputs, n);
    }
    return rc;
}

/* A slot also where the card is not there, as what waits is to be told. */
static struct batch_room room(void *ctx)
{
    const struct stage *s = ctx;

    return (struct batch_room){.slots = 1, .faces = s->most};
}

/* --- loading -------------------------------------------------------------- */

static void gone(void *ctx)
{
    struct lent *l = ctx;

    if (!l)
        return;
    graph_free(l->graph);
    free(l->input);
    free(l->want);
    free(l);
}

/* An input, and what the processor makes of it. */
static int make_check(struct lent *l, struct device *cpu,
                      const struct batched_options *net, struct error *err)
{
    struct batched_options one = *net;
    const float *inputs[1];
    struct batched *b;
    int bad, rc;

    l->input = tensor_alloc(net->n_input);
    l->want = tensor_alloc(net->dim);
    if (!l->input || !l->want)
        return error_set(err, ERR_NOMEM, "no memory for the detector's check");
    tensor_formula("golden", l->input, net->n_input);
    inputs[0] = l->input;
    batched_sizes(&one, 2, 1);
    b = batched_new(cpu, l->graph, &one, err);
    if (!b)
        return -1;
    rc = batched_run(b, inputs, 1, l->want, &bad, err);
    batched_free(b);
    return rc;
}

/* The graph is a copy, so that the model can be freed before the card's keeper
 * is done with it. */
static struct lent *lend(const struct model *m, struct device *cpu,
                         struct batched_options *net, struct error *err)
{
    struct lent *l = calloc(1, sizeof(*l));

    if (!l)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    memcpy(l->id, m->id, sizeof(l->id));
    net->name = l->id;
    l->graph = graph_dup(m->graph, err);
    if (l->graph && make_check(l, cpu, net, err) == 0)
        return l;
    gone(l);
    return NULL;
}

static int start_batch(struct stage *s, const struct batched_options *net,
                       struct error *err)
{
    struct batch_options opt = {
        .run = run,
        .room = room,
        .ctx = s,
        .dim = (int)net->dim,
        .max_faces = WAITING * s->most,
        .quiet = true,
    };

    s->batch = batch_new(&opt, err);
    return s->batch ? 0 : -1;
}

static int start_stage(struct detection *d, enum detect_stage i,
                       const struct detection_options *o, struct error *err)
{
    struct stage *s = &d->stages[i];
    struct detect_shape shape;
    struct card_net_options opt = {.limit_f32 = LIMIT,
                                   .limit_reduced = LIMIT,
                                   .n_slots = 1,
                                   .last = true,
                                   .gone = gone};
    struct lent *l;

    detector_shape(o->detector, i, &shape);
    opt.net = (struct batched_options){.h = shape.side,
                                       .w = shape.side,
                                       .n_input = shape.n_input,
                                       .dim = shape.row,
                                       .precision = PRECISION_F32};
    batched_sizes(&opt.net, SIZES_FACTOR, most[i]);
    s->detection = d;
    s->most = most[i];
    if (start_batch(s, &opt.net, err) != 0)
        return -1;
    l = lend(o->models[i], o->cpu, &opt.net, err);
    if (!l)
        return -1;
    opt.id = l->id;
    opt.graph = l->graph;
    opt.input = l->input;
    opt.want = l->want;
    opt.ctx = l;
    s->net = card_net_new(o->card, &opt, err);
    if (!s->net)
        gone(l);
    return s->net ? 0 : -1;
}

/* Is there anything to put onto a card? If not, d->why says why. */
static bool worth_it(struct detection *d, const struct detection_options *o)
{
    struct detect_shape shape;

    if (!card_usable(o->card))
        return false; /* what card_status says */
    if (!o->wanted) {
        error_set(&d->why, ERR_DEVICE, "the setting device-detect is off");
        return false;
    }
    for (int i = 0; i < DETECT_STAGES; i++)
        if (!detector_shape(o->detector, (enum detect_stage)i, &shape)) {
            error_set(&d->why, ERR_MODEL,
                      "%s: has outputs that no detector needs",
                      o->models[i]->name);
            return false;
        }
    return true;
}

struct detection *detection_new(const struct detection_options *opt,
                                struct error *err)
{
    struct detection *d = calloc(1, sizeof(*d));
    struct detect_elsewhere e = {.run = ask, .there = there, .ctx = d};

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for detection");
    if (!worth_it(d, opt))
        return d;
    for (int i = 0; i < DETECT_STAGES; i++)
        if (start_stage(d, (enum detect_stage)i, opt, err) != 0) {
            detection_free(d);
            return NULL;
        }
    memcpy(e.most, most, sizeof(most));
    detector_set_elsewhere(opt->detector, &e);
    d->lives = true;
    return d;
}

void detection_free(struct detection *d)
{
    if (!d)
        return;
    for (int i = 0; i < DETECT_STAGES; i++) {
        struct stage *s = &d->stages[i];
        if (s->batch)
            batch_close(s->batch);
        if (s->net)
            card_net_free(s->net);
        batch_free(s->batch);
    }
    free(d);
}

/* --- how it is --------------------------------------------------------------
 */

void detection_status(struct detection *d, struct detection_status *out)
{
    struct error why = d->why;

    *out = (struct detection_status){.on_card = d->lives};
    for (int i = 0; i < DETECT_STAGES && out->on_card; i++) {
        out->on_card = there(d, (enum detect_stage)i);
        if (!out->on_card)
            card_net_why(d->stages[i].net, &why);
    }
    if (!out->on_card)
        memcpy(out->why, why.text,
               sizeof(out->why) < sizeof(why.text) ? sizeof(out->why)
                                                   : sizeof(why.text));
    out->n_runs = atomic_load(&d->n_runs);
    out->n_inputs = atomic_load(&d->n_inputs);
    out->n_failovers = atomic_load(&d->n_failovers);
}

bool detection_may_wait(const struct detection *d)
{
    return d->lives;
}

bool detection_alive(struct detection *d, int timeout_ms)
{
    bool alive = true;

    for (int i = 0; i < DETECT_STAGES && d->lives; i++)
        alive = alive && batch_alive(d->stages[i].batch, timeout_ms);
    return alive;
}
