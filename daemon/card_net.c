/* daemon/card_net.c - a network on the card: loading, the check that the card
 * gives what is known of it in every batch size, the threads that run it, and
 * what the rest of the daemon calls. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/card_priv.h"

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
    batched_free(s->batched);
    free(s);
}

static struct card_slot *slot_new(struct batched *take_batched, int timeout_ms,
                                  struct error *err)
{
    struct card_slot *s = calloc(1, sizeof(*s));
    pthread_condattr_t monotonic;

    if (!s) {
        batched_free(take_batched);
        return error_null(err, ERR_NOMEM, "no memory for the card's slot");
    }
    s->batched = take_batched;
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
    batched_set_forward(s->batched, forward, s);
    return s;
}

/* --- loading -------------------------------------------------------------- */

/* Every batch size gives what is wanted. */
static int check(struct batched *b, const struct card_net_options *o,
                 struct error *err)
{
    enum precision p = batched_precision(b);
    float worst, limit = p == PRECISION_F32 ? o->limit_f32 : o->limit_reduced;
    double square = 0;

    if (batched_measure(b, o->input, o->want, &worst, err) != 0)
        return -1;
    for (size_t i = 0; i < o->net.dim; i++)
        square += (double)o->want[i] * (double)o->want[i];
    if ((double)worst <= (double)limit * square)
        return 0;
    return error_set(err, ERR_MODEL,
                     "the model's check does not hold on the card in %s "
                     "(%.2g off, %.2g allowed)",
                     precision_name(p), (double)worst, (double)limit * square);
}

static struct batched *load_one(const struct card_net *net, struct device *dev,
                                enum precision p, struct error *err)
{
    struct batched_options opt = net->opt.net;
    struct batched *b;

    opt.precision = p;
    b = batched_new(dev, net->opt.graph, &opt, err);
    if (b && check(b, &net->opt, err) == 0)
        return b;
    batched_free(b);
    return NULL;
}

/* What was asked for; auto: the quickest in which the check holds. */
static struct batched *load(const struct card_net *net, struct device *dev,
                            const struct device_info *info, struct error *err)
{
    enum precision order[4];
    struct batched *b = NULL;
    int n = 0;

    if (net->opt.net.precision != PRECISION_AUTO) {
        order[n++] = net->opt.net.precision;
    } else {
        if (info->fast_f16)
            order[n++] = PRECISION_F16;
        if (info->fast_bf16)
            order[n++] = PRECISION_BF16;
        if (info->fast_f16)
            order[n++] = PRECISION_TF32;
        order[n++] = PRECISION_F32;
    }
    for (int i = 0; i < n && !b; i++) {
        b = load_one(net, dev, order[i], err);
        if (!b && err->code == ERR_NOMEM)
            break; /* nor will the next fit */
    }
    return b;
}

int card_net_build(struct card_net *net, struct device *dev,
                   const struct device_info *info, struct error *err)
{
    int timeout_ms = net->card->opt.timeout_ms, n = 0;
    struct card_slot *slots[CARD_SLOTS] = {NULL};
    struct batched *b = load(net, dev, info, err);
    struct error more;

    /* without memory for a second one, copies do not overlap, no more */
    while (b) {
        batched_cover_by_time(b);
        slots[n] = slot_new(b, timeout_ms, n == 0 ? err : &more);
        if (!slots[n] || ++n == net->opt.n_slots)
            break;
        b = batched_twin(slots[0]->batched, &more);
        if (b && check(b, &net->opt, &more) != 0) {
            batched_free(b);
            b = NULL;
        }
    }
    if (n == 0)
        return -1;
    pthread_mutex_lock(&net->card->lock);
    net->precision = batched_precision(slots[0]->batched);
    for (int i = 0; i < n; i++)
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

/* --- for the rest of the daemon ------------------------------------------- */

struct card_net *card_net_new(struct card *c,
                              const struct card_net_options *opt,
                              struct error *err)
{
    struct card_net *net = calloc(1, sizeof(*net));
    int64_t until = card_load_until_us(c);

    if (!net)
        return error_null(err, ERR_NOMEM,
                          "no memory for a network on the card");
    assert(opt->n_slots >= 1 && opt->n_slots <= CARD_SLOTS);
    net->card = c;
    net->opt = *opt;
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

void card_net_free(struct card_net *net)
{
    struct card *c = net->card;

    pthread_mutex_lock(&c->lock);
    atomic_store(&net->n_ready, 0);
    net->leaving = true;
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

int card_net_run(struct card_net *net, const float *const *inputs, int n,
                 float *rows, int *bad, struct error *err)
{
    struct card *c = net->card;
    struct card_slot *slot = begin(net);
    struct error why = {0};
    int rc;

    if (!slot)
        return 1;
    rc = batched_run(slot->batched, inputs, n, rows, bad, &why);
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
        us = batched_time_us(net->slots[0]->batched, n);
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
