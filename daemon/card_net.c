/* daemon/card_net.c - a model's networks on the card: loading, the check that
 * the card gives the model's golden vector in every batch size, the threads
 * that run them, and what the rest of the daemon calls. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/card_priv.h"

/* Squared distance of unit vectors: reduced arithmetic, and f32. */
#define LIMIT_REDUCED 1e-3f
#define LIMIT_F32 1e-6f

/* --- a slot --------------------------------------------------------------- */

/* In place of graph_forward. Thread: whoever runs the batch. */
static int forward(void *ctx, struct plan *p, struct error *err)
{
    struct card_slot *s = ctx;
    int64_t until = card_now_us() + (int64_t)s->timeout_ms * 1000;
    struct timespec t = {.tv_sec = until / 1000000,
                         .tv_nsec = until % 1000000 * 1000};
    int rc, late = 0;

    pthread_mutex_lock(&s->lock);
    s->plan = p;
    s->done = false;
    pthread_cond_broadcast(&s->changed);
    while (!s->done && late == 0)
        late = pthread_cond_timedwait(&s->changed, &s->lock, &t);
    rc = s->rc;
    if (s->done && rc != 0)
        *err = s->err;
    if (!s->done) {
        s->abandoned = true;
        rc = error_set(err, ERR_DEVICE, "the card did not answer within %d ms",
                       s->timeout_ms);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void *slot_main(void *arg)
{
    struct card_slot *s = arg;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct plan *p;
        struct error err = {0};
        int rc;

        while (!s->plan && !s->ending)
            pthread_cond_wait(&s->changed, &s->lock);
        if (s->ending)
            break;
        p = s->plan;
        s->plan = NULL;
        pthread_mutex_unlock(&s->lock);
        rc = graph_forward(p, &err);
        pthread_mutex_lock(&s->lock);
        if (s->abandoned) { /* nobody waits any more, nor will */
            pthread_detach(pthread_self());
            break;
        }
        s->rc = rc;
        s->err = err;
        s->done = true;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void slot_free(struct card_slot *s, bool started)
{
    if (started) {
        pthread_mutex_lock(&s->lock);
        s->ending = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    embedder_free(s->embedder);
    free(s);
}

static struct card_slot *slot_new(struct embedder *take_embedder,
                                  int timeout_ms, struct error *err)
{
    struct card_slot *s = calloc(1, sizeof(*s));
    pthread_condattr_t monotonic;

    if (!s) {
        embedder_free(take_embedder);
        return error_null(err, ERR_NOMEM, "no memory for the card's slot");
    }
    s->embedder = take_embedder;
    s->timeout_ms = timeout_ms;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&s->thread, NULL, slot_main, s) != 0) {
        slot_free(s, false);
        return error_null(err, ERR_NOMEM, "cannot start the card's thread");
    }
    embedder_set_forward(s->embedder, forward, s);
    return s;
}

/* --- loading -------------------------------------------------------------- */

/* Every batch size gives the golden vector. */
static int check(struct embedder *e, const float *chip, const float *row,
                 struct error *err)
{
    enum precision p = embedder_precision(e);
    float worst, limit = p == PRECISION_F32 ? LIMIT_F32 : LIMIT_REDUCED;

    if (embedder_measure(e, chip, row, &worst, err) != 0)
        return -1;
    if (worst <= limit)
        return 0;
    return error_set(err, ERR_MODEL,
                     "the model's check does not hold on the card in %s "
                     "(%.2g off, %.2g allowed)",
                     precision_name(p), (double)worst, (double)limit);
}

struct golden {
    float *chip, *row;
};

static struct embedder *load_one(const struct card_net *net, struct device *dev,
                                 enum precision p, const struct golden *golden,
                                 struct error *err)
{
    struct embedder *e = embedder_new(dev, net->model, net->batch_max, p, err);

    if (e && check(e, golden->chip, golden->row, err) == 0) {
        embedder_cover_by_time(e);
        return e;
    }
    embedder_free(e);
    return NULL;
}

/* What was asked for; auto: the quickest in which the check holds. */
static struct embedder *load(const struct card_net *net, struct device *dev,
                             const struct device_info *info,
                             const struct golden *golden, struct error *err)
{
    enum precision order[4];
    struct embedder *e = NULL;
    int n = 0;

    if (net->wanted != PRECISION_AUTO) {
        order[n++] = net->wanted;
    } else {
        if (info->fast_f16)
            order[n++] = PRECISION_F16;
        if (info->fast_bf16)
            order[n++] = PRECISION_BF16;
        if (info->fast_f16)
            order[n++] = PRECISION_TF32;
        order[n++] = PRECISION_F32;
    }
    for (int i = 0; i < n && !e; i++) {
        e = load_one(net, dev, order[i], golden, err);
        if (!e && err->code == ERR_NOMEM)
            break; /* nor will the next fit */
    }
    return e;
}

int card_net_build(struct card_net *net, struct device *dev,
                   const struct device_info *info, struct error *err)
{
    int timeout_ms = net->card->opt.timeout_ms;
    struct golden g = {0};
    struct embedder *first = NULL, *second = NULL;
    struct card_slot *slots[CARD_SLOTS] = {NULL};
    struct error more;

    g.row = calloc((size_t)net->model->contract.dim, sizeof(*g.row));
    if (!g.row)
        return error_set(err, ERR_NOMEM, "no memory for a golden pair");
    g.chip = model_golden(net->model, g.row, err);
    if (g.chip)
        first = load(net, dev, info, &g, err);
    if (first)
        slots[0] = slot_new(first, timeout_ms, err);
    /* without memory for a second one, copies do not overlap, no more */
    if (slots[0])
        second = embedder_twin(first, net->model, &more);
    if (second && check(second, g.chip, g.row, &more) != 0) {
        embedder_free(second);
        second = NULL;
    }
    if (second) {
        embedder_cover_by_time(second);
        slots[1] = slot_new(second, timeout_ms, &more);
    }
    free(g.chip);
    free(g.row);
    if (!slots[0])
        return -1;
    pthread_mutex_lock(&net->card->lock);
    net->precision = embedder_precision(first);
    for (int i = 0; i < CARD_SLOTS && slots[i]; i++)
        net->slots[net->n_slots++] = slots[i];
    pthread_mutex_unlock(&net->card->lock);
    return 0;
}

void card_net_strip(struct card_net *net)
{
    struct card_slot *slots[CARD_SLOTS];
    int n = net->n_slots;

    memcpy(slots, net->slots, sizeof(slots));
    atomic_store(&net->n_ready, 0);
    net->n_slots = 0;
    pthread_mutex_unlock(&net->card->lock);
    while (n > 0) /* the first one's network is the others', too */
        slot_free(slots[--n], true);
    pthread_mutex_lock(&net->card->lock);
}

/* --- for the rest of the daemon
 * -------------------------------------------------------- */

struct card_net *card_net_new(struct card *c, const struct model *m,
                              int batch_max, enum precision precision,
                              struct error *err)
{
    struct card_net *net = calloc(1, sizeof(*net));
    int64_t until = card_load_until_us(c);

    if (!net)
        return error_null(err, ERR_NOMEM, "no memory for a model on the card");
    net->card = c;
    net->model = m;
    net->batch_max = batch_max;
    net->wanted = precision;
    pthread_mutex_lock(&c->lock);
    net->why = c->why;
    net->next = c->nets;
    c->nets = net;
    pthread_cond_broadcast(&c->changed);
    while (c->state == CARD_UP && !net->settled && card_wait(c, until))
        ;
    if (c->state == CARD_UP && !net->settled)
        error_set(&net->why, ERR_DEVICE,
                  "loading the model onto the card takes longer than %d ms",
                  CARD_LOAD_TIMES * c->opt.timeout_ms);
    pthread_mutex_unlock(&c->lock);
    return net;
}

void card_net_free(struct card_net *net, struct model *take_model)
{
    struct card *c = net->card;

    pthread_mutex_lock(&c->lock);
    atomic_store(&net->n_ready, 0);
    net->leaving = take_model;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

int card_net_slots(struct card_net *net)
{
    return atomic_load(&net->n_ready);
}

static struct card_slot *begin(struct card_net *net)
{
    struct card_slot *slot = NULL;

    if (atomic_load(&net->n_ready) == 0)
        return NULL;
    pthread_mutex_lock(&net->card->lock);
    for (int i = 0; i < atomic_load(&net->n_ready) && !slot; i++)
        if (!net->slots[i]->taken)
            slot = net->slots[i];
    if (slot) {
        slot->taken = true;
        net->n_taken++;
    }
    pthread_mutex_unlock(&net->card->lock);
    return slot;
}

int card_net_run(struct card_net *net, const float *const *chips, int n,
                 float *out, int *bad, struct error *err)
{
    struct card *c = net->card;
    struct card_slot *slot = begin(net);
    struct error why = {0};
    int rc;

    if (!slot)
        return 1;
    rc = embedder_run(slot->embedder, chips, n, out, bad, &why);
    pthread_mutex_lock(&c->lock);
    slot->taken = false;
    net->n_taken--;
    if (rc != 0 && why.code == ERR_DEVICE)
        card_lose(c, &why, slot->abandoned);
    if (c->lost || net->leaving)
        pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (rc != 0 && err)
        *err = why;
    return rc;
}

int64_t card_net_time_us(struct card_net *net, int n)
{
    int64_t us = 0;

    pthread_mutex_lock(&net->card->lock);
    if (atomic_load(&net->n_ready) > 0)
        us = embedder_time_us(net->slots[0]->embedder, n);
    pthread_mutex_unlock(&net->card->lock);
    return us;
}

enum precision card_net_precision(struct card_net *net)
{
    enum precision p;

    pthread_mutex_lock(&net->card->lock);
    p = net->precision;
    pthread_mutex_unlock(&net->card->lock);
    return p;
}

void card_net_why(struct card_net *net, struct error *out)
{
    pthread_mutex_lock(&net->card->lock);
    *out = net->why;
    pthread_mutex_unlock(&net->card->lock);
}
