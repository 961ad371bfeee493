/* daemon/serving.c - models that are loaded, counted. Whoever lets go last
 * frees nothing, as that would join a worker on an HTTP thread or on the
 * worker itself: servings_tend looks for those that nobody holds. */
#include "daemon/serving.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"

enum {
    WARM_FACES = 2
};

struct servings {
    struct servings_options opt;
    pthread_mutex_t lock; /* of all and slots */
    struct serving *all;
    struct serving *slots[SERVING_SLOTS];
};

/* --- one ---------------------------------------------------------------- */

/* The processor's arithmetic. What only a card has is left to the card. */
static int choose_precision(const struct servings *set, bool bf16_ok,
                            enum precision *out, struct error *err)
{
    const struct device_info *info = set->opt.info;
    const char *wanted = set->opt.config->precision;

    *out = PRECISION_F32;
    if (strcmp(wanted, "bf16") == 0) {
        if (!info->any_bf16 && card_usable(set->opt.card))
            return 0;
        if (!info->any_bf16)
            return error_set(err, ERR_DEVICE,
                             "precision bf16: this processor (%s) has none",
                             info->isa);
        if (!bf16_ok)
            log_event(LOG_LEVEL_WARN, "precision",
                      "text=\"bf16 was asked for, but the model's check does "
                      "not hold in it\"");
        *out = PRECISION_BF16;
    } else if (strcmp(wanted, "auto") == 0 && info->fast_bf16 && bf16_ok) {
        *out = PRECISION_BF16;
    }
    return 0;
}

/* In the arithmetic that the settings and the model's check give it. */
static struct runner *new_runner(struct servings *set, const char *id,
                                 struct runner_options *opt, struct error *err)
{
    const struct servings_options *o = &set->opt;
    bool bf16_ok = false;
    struct model *m = models_load(o->models, id, o->device, &bf16_ok, err);

    if (!m)
        return NULL;
    if (choose_precision(set, bf16_ok, &opt->cpu_precision, err) != 0) {
        model_free(m);
        return NULL;
    }
    precision_parse(o->config->precision, &opt->card_precision);
    opt->card = o->card;
    return runner_new(opt, m, err);
}

struct warm {
    pthread_mutex_t lock;
    pthread_cond_t there;
    bool done;
    struct error err;
};

static void warmed(void *ctx, const struct error *err)
{
    struct warm *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->done = true;
    if (err)
        w->err = *err;
    pthread_cond_signal(&w->there);
    pthread_mutex_unlock(&w->lock);
}

/* One batch through the queue and the network. */
static int warm_batch(struct serving *sv, struct error *err)
{
    const struct contract *k = &sv->model->contract;
    size_t n = 3 * (size_t)k->width * (size_t)k->height;
    float *chip = tensor_alloc(n);
    float *out = calloc((size_t)WARM_FACES * (size_t)k->dim, sizeof(*out));
    const float *const chips[WARM_FACES] = {chip, chip};
    struct warm w = {.lock = PTHREAD_MUTEX_INITIALIZER,
                     .there = PTHREAD_COND_INITIALIZER};
    struct batch_group g = {
        .chips = chips, .out = out, .n = WARM_FACES, .done = warmed, .ctx = &w};
    int rc = -1;

    if (!chip || !out) {
        error_set(err, ERR_NOMEM, "no memory for the first batch");
        goto out;
    }
    tensor_formula("golden", chip, n);
    if (k->scale == SCALE_NONE)
        for (size_t i = 0; i < n; i++)
            chip[i] = 127.5f * (1 + chip[i]);
    if (batch_push(sv->batch, &g, err) != 0)
        goto out;
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.there, &w.lock);
    pthread_mutex_unlock(&w.lock);
    rc = w.err.code == ERR_NONE
             ? 0
             : error_set(err, w.err.code, "first batch: %s", w.err.text);
out:
    free(chip);
    free(out);
    return rc;
}

static int start_batch(struct serving *sv, const struct config *c,
                       struct error *err)
{
    const struct contract *k = &sv->model->contract;
    struct batch_options opt = {
        .run = runner_run,
        .room = runner_room,
        .time_us = runner_time_us,
        .ctx = sv->runner,
        .n_workers = runner_most_slots(sv->runner),
        .dim = k->dim,
        .max_faces = (int)c->queue_faces,
        .max_bytes = c->queue_bytes,
        .chip_bytes = 3 * (int64_t)k->width * k->height * (int)sizeof(float),
    };

    sv->batch = batch_new(&opt, err);
    return sv->batch ? 0 : -1;
}

/* The store is there, or closed and g's rows follow nobody. */
static void serving_free(struct serving *sv, bool store_closed)
{
    struct error err;

    if (sv->batch && !sv->closed)
        batch_close(sv->batch);
    batch_free(sv->batch);
    if (sv->gallery && !store_closed &&
        gallery_unload(sv->gallery, sv->set->opt.store, &err) != 0) {
        log_event(LOG_LEVEL_ERROR, "gallery", "code=%s", error_wire(err.code));
        return; /* lost, as the store may still call it */
    }
    if (sv->on_card)
        card_gallery_free(sv->on_card, sv->gallery);
    else
        gallery_free(sv->gallery);
    runner_free(sv->runner);
    free(sv);
}

static int load_gallery(struct serving *sv, struct error *err)
{
    const struct servings_options *o = &sv->set->opt;

    sv->gallery = gallery_new(sv->model->id, sv->model->contract.dim, err);
    if (!sv->gallery || gallery_load(sv->gallery, o->store, err) != 0)
        return -1;
    if (!card_usable(o->card))
        return 0;
    sv->on_card = card_gallery_new(o->card, sv->gallery, err);
    return sv->on_card ? 0 : -1;
}

static int load(struct serving *sv, const char *id, struct error *err)
{
    const struct servings_options *o = &sv->set->opt;
    struct runner_options opt = {.cpu = o->device,
                                 .cpu_batch = (int)o->config->batch_max,
                                 .card_batch =
                                     (int)o->config->device_batch_max};

    sv->runner = new_runner(sv->set, id, &opt, err);
    if (!sv->runner)
        return -1;
    sv->model = runner_model(sv->runner);
    if (load_gallery(sv, err) != 0 || start_batch(sv, o->config, err) != 0 ||
        warm_batch(sv, err) != 0)
        return -1;
    return 0;
}

struct serving *serving_new(struct servings *set, const char *id,
                            struct error *err)
{
    struct serving *sv = calloc(1, sizeof(*sv));

    if (!sv)
        return error_null(err, ERR_NOMEM, "no memory for a model");
    sv->set = set;
    atomic_init(&sv->refs, 1);
    if (load(sv, id, err) != 0) {
        serving_free(sv, false);
        return NULL;
    }
    pthread_mutex_lock(&set->lock);
    sv->next = set->all;
    set->all = sv;
    pthread_mutex_unlock(&set->lock);
    return sv;
}

void serving_put(struct serving *sv)
{
    if (sv)
        atomic_fetch_sub(&sv->refs, 1);
}

/* --- all ---------------------------------------------------------------- */

struct servings *servings_new(const struct servings_options *opt,
                              struct error *err)
{
    struct servings *set = calloc(1, sizeof(*set));

    if (!set)
        return error_null(err, ERR_NOMEM, "no memory for the models");
    set->opt = *opt;
    pthread_mutex_init(&set->lock, NULL);
    return set;
}

void servings_close(struct servings *set)
{
    for (struct serving *sv = set->all; sv; sv = sv->next) {
        batch_close(sv->batch);
        sv->closed = true;
    }
}

void servings_free(struct servings *set)
{
    if (!set)
        return;
    for (struct serving *sv = set->all, *next; sv; sv = next) {
        next = sv->next;
        serving_free(sv, true);
    }
    pthread_mutex_destroy(&set->lock);
    free(set);
}

struct serving *servings_get(struct servings *set, enum serving_slot slot)
{
    struct serving *sv;

    pthread_mutex_lock(&set->lock);
    sv = set->slots[slot];
    if (sv)
        atomic_fetch_add(&sv->refs, 1);
    pthread_mutex_unlock(&set->lock);
    return sv;
}

void servings_set(struct servings *set, enum serving_slot slot,
                  struct serving *sv)
{
    pthread_mutex_lock(&set->lock);
    if (sv)
        atomic_fetch_add(&sv->refs, 1);
    serving_put(set->slots[slot]);
    set->slots[slot] = sv;
    pthread_mutex_unlock(&set->lock);
    if (slot == SERVING_ACTIVE)
        card_gallery_choose(set->opt.card, sv ? sv->on_card : NULL);
}

void servings_activate(struct servings *set, struct serving *sv)
{
    struct serving **slots = set->slots;

    pthread_mutex_lock(&set->lock);
    atomic_fetch_add(&sv->refs, 1);
    serving_put(slots[SERVING_PREVIOUS]);
    slots[SERVING_PREVIOUS] = slots[SERVING_ACTIVE];
    slots[SERVING_ACTIVE] = sv;
    if (slots[SERVING_TARGET] == sv) {
        serving_put(sv);
        slots[SERVING_TARGET] = NULL;
    }
    pthread_mutex_unlock(&set->lock);
    card_gallery_choose(set->opt.card, sv->on_card);
}

struct runner *servings_runner(struct servings *set, const char *id,
                               struct device *dev, int most, struct error *err)
{
    struct runner_options opt = {
        .cpu = dev, .cpu_batch = most, .card_batch = most};

    return new_runner(set, id, &opt, err);
}

/* New references are taken under the lock and from slots alone, so one that
 * has none stays without. */
static struct serving *take_unused(struct servings *set)
{
    struct serving **at, *sv;

    pthread_mutex_lock(&set->lock);
    for (at = &set->all; *at && atomic_load(&(*at)->refs) > 0;)
        at = &(*at)->next;
    sv = *at;
    if (sv)
        *at = sv->next;
    pthread_mutex_unlock(&set->lock);
    return sv;
}

/* The gallery is whole again, or the next time tries it again. */
static void rebuild(struct servings *set, struct serving *sv)
{
    struct error err;

    if (gallery_load(sv->gallery, set->opt.store, &err) == 0) {
        log_event(LOG_LEVEL_WARN, "gallery", "text=\"built anew\"");
        return;
    }
    atomic_store(&sv->gallery_stale, true);
    log_event(LOG_LEVEL_ERROR, "gallery", "code=%s", error_wire(err.code));
}

void servings_tend(struct servings *set)
{
    struct serving *sv;

    while ((sv = take_unused(set))) {
        log_event(LOG_LEVEL_INFO, "model", "unloaded=%s", sv->model->id);
        serving_free(sv, false);
    }
    for (int slot = 0; slot < SERVING_SLOTS; slot++) {
        sv = servings_get(set, (enum serving_slot)slot);
        if (sv && atomic_exchange(&sv->gallery_stale, false))
            rebuild(set, sv);
        serving_put(sv);
    }
}

bool servings_alive(struct servings *set, int timeout_ms)
{
    bool alive = true;

    pthread_mutex_lock(&set->lock);
    for (struct serving *sv = set->all; sv; sv = sv->next)
        alive = alive && batch_alive(sv->batch, timeout_ms);
    pthread_mutex_unlock(&set->lock);
    return alive;
}
