/* daemon/card_gallery.c - the galleries' rows on the card: the keeper gives
 * the card the gallery that is searched, a part at a time after the networks,
 * and takes it away before the card goes, the gallery goes, or a network finds
 * no memory. A search asks the card on the thread of its request, which ends
 * within the card's timeout or is the processor's then (store/gallery_device);
 * it waits for nothing that is done here. */
#include <stdlib.h>

#include "daemon/card_priv.h"
#include "daemon/log.h"

enum {
    LOOK_S = 1 /* for rows to bring, and whether a search failed */
};

/* --- the keeper ----------------------------------------------------------- */

static void tell(const struct card_gallery *cg, const char *text)
{
    char why[512];

    log_event(LOG_LEVEL_WARN, "device", "gallery=%.12s why=%s text=\"%s\"",
              gallery_model(cg->gallery),
              log_quote(cg->why.text, why, sizeof(why)), text);
}

/* Not attached, and tried again later. */
static void failed(struct card_gallery *cg, const struct error *err)
{
    int64_t now = card_now_us();

    cg->why = *err;
    if (cg->since_us > 0 && now - cg->since_us > CARD_STEADY_S * CARD_SECOND)
        cg->backoff_us = 0;
    cg->backoff_us = card_later(cg->backoff_us);
    cg->retry_us = now + cg->backoff_us;
    tell(cg, "not on the card: the processor searches");
}

static void detach(struct card *c, struct card_gallery *cg)
{
    cg->attached = false;
    cg->n_rows = cg->n_left_out = 0;
    pthread_mutex_unlock(&c->lock);
    gallery_detach(cg->gallery);
    pthread_mutex_lock(&c->lock);
}

static void attach(struct card *c, struct card_gallery *cg)
{
    struct gallery_device to = {.device = c->device,
                                .memory_bytes = (size_t)c->opt.gallery_bytes,
                                .timeout_ms = c->opt.timeout_ms};
    struct error err = {0};
    int rc;

    pthread_mutex_unlock(&c->lock);
    rc = gallery_attach(cg->gallery, &to, &err);
    pthread_mutex_lock(&c->lock);
    if (rc == 0) {
        cg->attached = true;
        cg->since_us = card_now_us();
        return;
    }
    failed(cg, &err);
    if (err.code == ERR_DEVICE && c->backend->rows_new && !c->lost)
        card_suspect(c, &err);
}

/* All is there that the card has memory for. Holds the lock, but not while it
 * asks the card. */
static void tell_brought(struct card *c, struct card_gallery *cg,
                         const struct gallery_size *size)
{
    int64_t was_left_out = cg->n_left_out, n_were = cg->n_rows;
    struct device_info info = {0};

    cg->n_rows = size->n_device;
    cg->n_left_out = size->n_device_left_out;
    pthread_mutex_unlock(&c->lock);
    c->backend->device_describe(c->device, &info);
    pthread_mutex_lock(&c->lock);
    c->info = info;
    cg->why = (struct error){0};
    if (cg->n_left_out > 0)
        error_set(&cg->why, ERR_NOMEM,
                  "no memory on the card for %lld of the gallery's rows",
                  (long long)cg->n_left_out);
    if (cg->n_left_out > 0 && was_left_out == 0)
        tell(cg, "the processor searches these");
    log_event(n_were == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "device",
              "gallery=%.12s rows=%lld left_out=%lld bytes_used=%zu",
              gallery_model(cg->gallery), (long long)cg->n_rows,
              (long long)cg->n_left_out, info.bytes_used);
}

/* True: there is more to bring, or it failed. */
static bool bring(struct card *c, struct card_gallery *cg)
{
    struct gallery_size size;
    struct error why = {0};
    bool good;
    int rc;

    pthread_mutex_unlock(&c->lock);
    rc = gallery_bring(cg->gallery);
    good = gallery_on_device(cg->gallery, &why);
    gallery_size(cg->gallery, &size);
    pthread_mutex_lock(&c->lock);
    if (c->lost)
        return true;
    if (good && rc == 0 &&
        (size.n_device != cg->n_rows ||
         size.n_device_left_out != cg->n_left_out))
        tell_brought(c, cg, &size);
    if (good)
        return rc > 0;
    card_suspect(c, &why);
    if (!c->lost) { /* but the rows are */
        failed(cg, &why);
        detach(c, cg);
    }
    return true;
}

bool card_gallery_step(struct card *c, int64_t *next_us)
{
    struct card_gallery *cg = c->chosen;
    int64_t now = card_now_us();

    for (struct card_gallery *other = c->galleries; other; other = other->next)
        if (other->attached && other != cg) {
            detach(c, other);
            return true;
        }
    if (!cg || c->opt.gallery_bytes == 0)
        return false;
    if (cg->attached && bring(c, cg))
        return true;
    if (!cg->attached && now >= cg->retry_us) {
        attach(c, cg);
        return true;
    }
    now = cg->attached ? now + LOOK_S * CARD_SECOND : cg->retry_us;
    *next_us = now < *next_us ? now : *next_us;
    return false;
}

bool card_gallery_take(struct card *c)
{
    for (struct card_gallery *cg = c->galleries; cg; cg = cg->next)
        if (cg->attached) {
            detach(c, cg);
            cg->retry_us = 0;
            return true;
        }
    return false;
}

/* Neither attached nor wanted. */
static void release(struct card *c, struct card_gallery *cg)
{
    struct card_gallery **at = &c->galleries;
    int64_t n_answered, n_failed;

    gallery_device_counts(cg->gallery, &n_answered, &n_failed);
    while (*at != cg)
        at = &(*at)->next;
    *at = cg->next;
    c->n_searches += n_answered;
    c->n_search_failures += n_failed;
    pthread_mutex_unlock(&c->lock);
    gallery_free(cg->leaving);
    pthread_mutex_lock(&c->lock);
    if (cg->left) {
        cg->next = c->left_galleries;
        c->left_galleries = cg;
    } else {
        free(cg);
    }
}

bool card_gallery_tidy(struct card *c)
{
    for (struct card_gallery *cg = c->galleries; cg; cg = cg->next) {
        if (c->hung && cg->attached) {
            struct rows *left;
            cg->attached = false;
            cg->why = c->why;
            pthread_mutex_unlock(&c->lock);
            left = gallery_abandon(cg->gallery);
            pthread_mutex_lock(&c->lock);
            cg->left = left;
            return true;
        }
        if (!cg->leaving)
            continue;
        if (cg->attached)
            detach(c, cg);
        else
            release(c, cg);
        return true;
    }
    return false;
}

/* --- for the rest of the daemon ------------------------------------------- */

struct card_gallery *card_gallery_new(struct card *c, struct gallery *g,
                                      struct error *err)
{
    struct card_gallery *cg = calloc(1, sizeof(*cg));

    if (!cg)
        return error_null(err, ERR_NOMEM,
                          "no memory for a gallery on the card");
    cg->card = c;
    cg->gallery = g;
    pthread_mutex_lock(&c->lock);
    cg->next = c->galleries;
    c->galleries = cg;
    pthread_mutex_unlock(&c->lock);
    return cg;
}

void card_gallery_free(struct card_gallery *cg, struct gallery *take_gallery)
{
    struct card *c = cg->card;

    pthread_mutex_lock(&c->lock);
    if (c->chosen == cg)
        c->chosen = NULL;
    cg->leaving = take_gallery;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void card_gallery_choose(struct card *c, struct card_gallery *cg)
{
    pthread_mutex_lock(&c->lock);
    c->chosen = cg;
    if (cg)
        cg->retry_us = cg->backoff_us = 0;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void card_gallery_status(struct card_gallery *cg,
                         struct card_gallery_status *out)
{
    struct card *c = cg->card;
    struct gallery_size size;

    gallery_size(cg->gallery, &size);
    *out = (struct card_gallery_status){
        .attached = gallery_on_device(cg->gallery, NULL)};
    if (out->attached) {
        out->n_rows = size.n_device;
        out->n_left_out = size.n_device_left_out;
    }
    pthread_mutex_lock(&c->lock);
    if (c->opt.gallery_bytes == 0)
        error_set(&out->why, ERR_DEVICE,
                  "the setting device-gallery-memory is 0");
    else
        out->why = c->state == CARD_UP ? cg->why : c->why;
    pthread_mutex_unlock(&c->lock);
}

void card_gallery_count(const struct card *c, struct card_status *out)
{
    out->n_searches = c->n_searches;
    out->n_search_failures = c->n_search_failures;
    for (const struct card_gallery *cg = c->galleries; cg; cg = cg->next) {
        int64_t n_answered, n_failed;
        gallery_device_counts(cg->gallery, &n_answered, &n_failed);
        out->n_searches += n_answered;
        out->n_search_failures += n_failed;
    }
}
