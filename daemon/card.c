/* daemon/card.c - the life of the card: its keeper opens it, loads networks,
 * closes what was lost and tries again, one thing at a time and without the
 * lock. What a table's function may not do to us is to hang us: see card.h. */
#include "daemon/card.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/engine/plugin.h"
#include "daemon/card_priv.h"
#include "daemon/log.h"

enum {
    IDLE_S = 3600
};
#define SECOND CARD_SECOND

int64_t card_now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

bool card_wait(struct card *c, int64_t until_us)
{
    struct timespec t = {.tv_sec = until_us / SECOND,
                         .tv_nsec = until_us % SECOND * 1000};

    return pthread_cond_timedwait(&c->changed, &c->lock, &t) == 0;
}

const char *card_state_name(enum card_state s)
{
    static const char *const names[] = {[CARD_OFF] = "off",
                                        [CARD_NONE] = "none",
                                        [CARD_UP] = "up",
                                        [CARD_DOWN] = "down",
                                        [CARD_HUNG] = "hung"};
    return names[s];
}

/* --- what becomes of it --------------------------------------------------- */

static void tell(const struct card *c)
{
    char why[512], name[128];
    int64_t left = c->retry_us - card_now_us();

    log_quote(c->why.text, why, sizeof(why));
    if (c->state == CARD_UP)
        log_event(LOG_LEVEL_INFO, "device",
                  "card=up backend=%s name=%s index=%d bytes_total=%zu",
                  c->backend->name, log_quote(c->info.name, name, sizeof(name)),
                  c->index, c->info.bytes_total);
    else if (c->state == CARD_DOWN && c->retry_us > 0)
        log_event(LOG_LEVEL_ERROR, "device",
                  "card=down retry_s=%lld why=%s "
                  "text=\"the processor answers\"",
                  (long long)((left + SECOND - 1) / SECOND), why);
    else if (c->state == CARD_OFF || c->state == CARD_NONE)
        log_event(LOG_LEVEL_INFO, "device",
                  "card=%s why=%s text=\"the processor answers\"",
                  card_state_name(c->state), why);
    else
        log_event(LOG_LEVEL_ERROR, "device",
                  "card=%s why=%s text=\"the processor answers, until a "
                  "restart\"",
                  card_state_name(c->state), why);
}

int64_t card_later(int64_t backoff_us)
{
    if (backoff_us == 0)
        return CARD_BACKOFF_FIRST_S * SECOND;
    return backoff_us < CARD_BACKOFF_MOST_S * SECOND / 2
               ? 2 * backoff_us
               : CARD_BACKOFF_MOST_S * SECOND;
}

/* Try again, later each time. Holds the lock. */
static void back_off(struct card *c)
{
    int64_t now = card_now_us();

    if (c->up_us > 0 && now - c->up_us > CARD_STEADY_S * SECOND)
        c->backoff_us = 0;
    c->backoff_us = card_later(c->backoff_us);
    c->retry_us = c->opt.required ? 0 : now + c->backoff_us;
}

void card_lose(struct card *c, const struct error *err, bool hung)
{
    if (c->hung || (c->lost && !hung))
        return; /* is known */
    c->lost = true;
    c->hung = hung;
    c->n_lost++;
    c->why = *err;
    for (struct card_net *net = c->nets; net; net = net->next) {
        atomic_store(&net->n_ready, 0);
        net->settled = true;
        net->why = *err;
    }
    back_off(c);
    c->state = hung ? CARD_HUNG : CARD_DOWN;
    tell(c);
    pthread_cond_broadcast(&c->changed);
}

/* Holds the lock, but not while it opens. */
static void try_open(struct card *c)
{
    struct device_options opt = {
        .index = c->index,
        .memory_bytes = (size_t)c->opt.memory_bytes,
        .cache_dir = c->opt.cache_dir,
        .tune = c->opt.tune,
    };
    struct device_info info = {0};
    struct error err = {0};
    struct device *device;

    pthread_mutex_unlock(&c->lock);
    device = c->backend->device_open(&opt, &err);
    if (device)
        c->backend->device_describe(device, &info);
    pthread_mutex_lock(&c->lock);
    c->device = device;
    if (device) {
        c->info = info;
        c->state = CARD_UP;
        c->up_us = card_now_us();
        c->n_opened++;
        c->retry_us = 0;
        for (struct card_net *net = c->nets; net; net = net->next)
            net->retry_us = net->backoff_us = 0;
    } else {
        c->why = err;
        /* auto takes a card that is there when it starts */
        c->state = c->tried || strcmp(c->opt.device, "auto") != 0 ? CARD_DOWN
                                                                  : CARD_NONE;
        back_off(c);
    }
    c->tried = true;
    tell(c);
    pthread_cond_broadcast(&c->changed);
}

/* --- the keeper ----------------------------------------------------------- */

/* Free what was lost, and close it. Holds the lock. True: something was. */
static bool clear_lost(struct card *c)
{
    struct device *device = c->device;

    if (card_gallery_take(c))
        return true;
    for (struct card_net *net = c->nets; net; net = net->next) {
        if (net->n_taken > 0)
            return false; /* whoever runs it says when it is back */
        if (net->n_slots > 0) {
            card_net_strip(net);
            return true;
        }
    }
    c->device = NULL;
    pthread_mutex_unlock(&c->lock);
    c->backend->device_close(device);
    pthread_mutex_lock(&c->lock);
    c->lost = false;
    return true;
}

/* Is it the card, or what was asked of it? Run a net that is loaded, which says
 * so where the card is lost. */
static void probe(struct card_net *net)
{
    float *rows = calloc(net->opt.net.dim, sizeof(*rows));
    int bad;

    if (rows)
        card_net_run(net, &net->opt.input, 1, rows, &bad, NULL);
    free(rows);
}

void card_suspect(struct card *c, const struct error *err)
{
    struct card_net *net = c->nets;

    while (net && atomic_load(&net->n_ready) == 0)
        net = net->next;
    if (!net) {
        card_lose(c, err, false);
        return;
    }
    pthread_mutex_unlock(&c->lock);
    probe(net); /* only the keeper, which this is, frees it */
    pthread_mutex_lock(&c->lock);
}

/* Of a net that is not loaded; what failed is tried again, later each time. */
static void build(struct card *c, struct card_net *net)
{
    struct device_info info = c->info;
    struct error err = {0};
    char text[512];
    int rc;

    pthread_mutex_unlock(&c->lock);
    rc = card_net_build(net, c->device, &info, &err);
    if (rc == 0)
        c->backend->device_describe(c->device, &info);
    pthread_mutex_lock(&c->lock);
    /* Networks go before rows, which take what they leave. */
    if (rc != 0 && err.code == ERR_NOMEM && net->backoff_us == 0 &&
        card_gallery_take(c)) {
        net->backoff_us = card_later(0);
        return;
    }
    net->settled = true;
    pthread_cond_broadcast(&c->changed);
    if (c->lost) /* meanwhile, by another's run */
        return;
    if (rc == 0) {
        c->info = info;
        net->why = (struct error){0};
        net->backoff_us = 0;
        atomic_store(&net->n_ready, net->n_slots);
        log_event(LOG_LEVEL_INFO, "device",
                  "model=%s precision=%s slots=%d bytes_used=%zu", net->opt.id,
                  precision_name(net->precision), net->n_slots,
                  info.bytes_used);
        return;
    }
    net->why = err;
    net->backoff_us = card_later(net->backoff_us);
    net->retry_us = card_now_us() + net->backoff_us;
    log_event(LOG_LEVEL_WARN, "device",
              "model=%s why=%s text=\"not on the card: the processor answers\"",
              net->opt.id, log_quote(err.text, text, sizeof(text)));
    if (err.code == ERR_DEVICE)
        card_suspect(c, &err);
}

/* Nobody runs it any more: free it, unless the card may still write there. */
static void release(struct card *c, struct card_net *net)
{
    struct card_net **at = &c->nets;

    if (net->n_slots > 0 && !c->hung)
        card_net_strip(net);
    while (*at != net)
        at = &(*at)->next;
    *at = net->next;
    net->opt.gone(net->opt.ctx);
    if (c->hung) { /* with its slots */
        net->next = c->left_behind;
        c->left_behind = net;
    } else {
        free(net);
    }
}

/* The network to load next: what is due, the last ones last. Where none is,
 * *next_us is when. Holds the lock. */
static struct card_net *due_net(struct card *c, int64_t now, int64_t *next_us)
{
    struct card_net *due = NULL;

    for (struct card_net *net = c->nets; net; net = net->next) {
        if (net->n_slots > 0 || net->leaving)
            continue;
        if (now < net->retry_us && net->retry_us < *next_us)
            *next_us = net->retry_us;
        if (now >= net->retry_us && (!due || (due->opt.last && !net->opt.last)))
            due = net;
    }
    return due;
}

/* One thing that is due; false: nothing is, until *next_us. Holds the lock. */
static bool step(struct card *c, int64_t *next_us)
{
    int64_t now = card_now_us();
    struct card_net *due;

    *next_us = now + IDLE_S * SECOND;
    for (struct card_net *net = c->nets; net; net = net->next)
        if (net->leaving && (net->n_taken == 0 || c->hung)) {
            release(c, net);
            return true;
        }
    if (card_gallery_tidy(c))
        return true;
    if (c->hung || c->stop)
        return false;
    if (c->lost)
        return clear_lost(c);
    if (!c->device) {
        bool again = !c->tried || (c->state == CARD_DOWN && c->retry_us > 0);
        if (again && now >= c->retry_us) {
            try_open(c);
            return true;
        }
        if (again)
            *next_us = c->retry_us;
        return false;
    }
    due = due_net(c, now, next_us);
    if (!due)
        return card_gallery_step(c, next_us);
    build(c, due);
    return true;
}

static void *keep(void *arg)
{
    struct card *c = arg;
    int64_t next_us;

    pthread_mutex_lock(&c->lock);
    while (!c->stop || c->nets || c->galleries)
        if (!step(c, &next_us) && (!c->stop || c->nets || c->galleries))
            card_wait(c, next_us);
    if (c->device && !c->hung) {
        struct device *device = c->device;
        c->device = NULL;
        pthread_mutex_unlock(&c->lock);
        c->backend->device_close(device);
        pthread_mutex_lock(&c->lock);
    }
    c->ended = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* --- the object ----------------------------------------------------------- */

static void card_free(struct card *c)
{
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free((char *)c->opt.device);
    free((char *)c->opt.plugin);
    free((char *)c->opt.cache_dir);
    free(c);
}

int64_t card_load_until_us(const struct card *c)
{
    return card_now_us() + CARD_LOAD_TIMES * (int64_t)c->opt.timeout_ms * 1000;
}

/* Of tuned plans, as an absolute path; ours alone, as they hold code. Where it
 * cannot be had, none are kept. */
static void make_cache(struct card *c)
{
    char *real = NULL;
    struct stat st;

    if (c->opt.cache_dir &&
        (mkdir(c->opt.cache_dir, 0700) == 0 || errno == EEXIST))
        real = realpath(c->opt.cache_dir, NULL);
    if (real && (stat(real, &st) != 0 || !S_ISDIR(st.st_mode) ||
                 st.st_uid != geteuid() || (st.st_mode & 0022) != 0)) {
        free(real);
        real = NULL;
    }
    free((char *)c->opt.cache_dir);
    c->opt.cache_dir = real;
}

/* Open the plugin and start the keeper, or say why there is no card. */
static int start(struct card *c, struct error *err)
{
    int64_t until;

    if (strcmp(c->opt.device, "cpu") == 0) {
        c->state = CARD_OFF;
        error_set(&c->why, ERR_DEVICE, "the setting device is cpu");
        return 0;
    }
    c->state = CARD_NONE;
    c->backend = plugin_open(c->opt.plugin, &c->why);
    if (!c->backend)
        return 0;
    make_cache(c);
    c->started = true;
    if (pthread_create(&c->keeper, NULL, keep, c) != 0)
        return error_set(err, ERR_NOMEM, "cannot start the card's thread");
    until = card_load_until_us(c);
    pthread_mutex_lock(&c->lock);
    while (!c->tried && card_wait(c, until))
        ;
    if (!c->tried) { /* the keeper goes on */
        c->state = CARD_DOWN;
        error_set(&c->why, ERR_DEVICE,
                  "opening the card takes longer than %d ms",
                  CARD_LOAD_TIMES * c->opt.timeout_ms);
        tell(c);
    }
    pthread_mutex_unlock(&c->lock);
    return 0;
}

struct card *card_new(const struct card_options *opt, struct error *err)
{
    struct card *c = calloc(1, sizeof(*c));
    pthread_condattr_t monotonic;

    if (!c)
        return error_null(err, ERR_NOMEM, "no memory for the card");
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&c->lock, NULL);
    c->opt = *opt;
    c->opt.device = strdup(opt->device);
    c->opt.plugin = *opt->plugin ? strdup(opt->plugin) : plugin_default();
    c->opt.cache_dir = opt->cache_dir ? strdup(opt->cache_dir) : NULL;
    if (!c->opt.device || !c->opt.plugin) {
        error_set(err, ERR_NOMEM, "no memory for the card");
    } else if (!plugin_parse(opt->device, &c->index)) {
        error_set(err, ERR_CONFIG,
                  "device '%.40s' is none: auto, cpu, cuda or cuda:N",
                  opt->device);
    } else if (start(c, err) == 0) {
        if (!c->started)
            tell(c);
        return c;
    }
    card_free(c);
    return NULL;
}

bool card_close(struct card *c)
{
    bool ended;

    if (!c)
        return true;
    if (c->started) {
        int64_t until = card_now_us() + 2 * (int64_t)c->opt.timeout_ms * 1000;
        pthread_mutex_lock(&c->lock);
        c->stop = true;
        pthread_cond_broadcast(&c->changed);
        while (!c->ended && card_wait(c, until))
            ;
        ended = c->ended && !c->hung;
        pthread_mutex_unlock(&c->lock);
        if (!ended) {
            pthread_detach(c->keeper);
            return false;
        }
        pthread_join(c->keeper, NULL);
    }
    card_free(c);
    return true;
}

void card_status(struct card *c, struct card_status *out)
{
    int64_t left;

    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&c->lock);
    left = c->retry_us - card_now_us();
    out->state = c->state;
    snprintf(out->setting, sizeof(out->setting), "%s", c->opt.device);
    out->index = c->index;
    if (c->backend)
        snprintf(out->backend, sizeof(out->backend), "%s", c->backend->name);
    memcpy(out->name, c->info.name, sizeof(out->name));
    memcpy(out->why, c->why.text, sizeof(out->why));
    out->n_opened = c->n_opened;
    out->n_lost = c->n_lost;
    if (c->state == CARD_DOWN && c->retry_us > 0)
        out->retry_s = left > 0 ? (left + SECOND - 1) / SECOND : 1;
    if (c->state == CARD_UP) {
        out->bytes_used = (int64_t)c->info.bytes_used;
        out->bytes_total = (int64_t)c->info.bytes_total;
    }
    card_gallery_count(c, out);
    pthread_mutex_unlock(&c->lock);
    out->n_failovers = atomic_load(&c->n_failovers);
}

bool card_usable(struct card *c)
{
    bool usable;

    pthread_mutex_lock(&c->lock);
    usable = c->state == CARD_UP || c->state == CARD_DOWN;
    pthread_mutex_unlock(&c->lock);
    return usable;
}

void card_failover(struct card *c)
{
    atomic_fetch_add(&c->n_failovers, 1);
}
