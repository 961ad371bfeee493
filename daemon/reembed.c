/* daemon/reembed.c - which model is embedded for next, and when it takes over.
 * First the one that is to become active, then the active one (whose vectors
 * can lack where the setting `model` was changed by hand), then the previous.
 * This thread loads models and switches; it is not niced, since the inference
 * workers that it starts would be niced like it. */
#include "daemon/reembed_priv.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/log.h"

enum {
    COURSES = 3,
    RETRY_S = 10,
    MAX_VAIN = 8 /* runs that meet no face while one is missing */
};

struct reembed {
    struct reembed_options opt;
    pthread_t thread;
    pthread_mutex_t lock; /* of the four below */
    pthread_cond_t wake;
    bool kicked;
    struct reembed_state state; /* failed, error */
    struct timespec retry;      /* when to try again; 0: no need */

    atomic_bool stop;
    atomic_int generation; /* what is wanted changed */
    atomic_bool following; /* new faces lack a vector of some model */
    atomic_llong n_embedded, n_unusable, n_switches;

    /* The thread's own. */
    struct course courses[COURSES];
    struct embed_kit kit;
    int now;               /* generation when the turn began */
    int target_generation; /* for which the target's course began */
    char no_previous[65];  /* one that could not be loaded */
};

static void kick(struct reembed *r)
{
    pthread_mutex_lock(&r->lock);
    r->kicked = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

/* What is wanted changed: what is being done for another wish stops. */
static void wish(struct reembed *r)
{
    atomic_fetch_add(&r->generation, 1);
    kick(r);
}

static void on_change(void *ctx, const struct store_change *c)
{
    struct reembed *r = ctx;

    if (c->kind == STORE_CHANGE_FACE_ADDED && atomic_load(&r->following))
        kick(r);
}

static void tell(struct reembed *r, const char *failed, const struct error *err)
{
    pthread_mutex_lock(&r->lock);
    memmove(r->state.failed, failed, strlen(failed) + 1);
    r->state.error = *err;
    pthread_mutex_unlock(&r->lock);
}

static void forget_failure(struct reembed *r)
{
    static const struct error none;

    tell(r, "", &none);
}

/* --- one course --------------------------------------------------------- */

/* The course of a model; in the place of one that is of no use any more. */
static struct course *course_of(struct reembed *r, const char *id,
                                const struct store_models *m)
{
    struct course *spare = &r->courses[0];

    for (int i = 0; i < COURSES; i++) {
        struct course *c = &r->courses[i];
        if (strcmp(c->id, id) == 0)
            return c;
        if (strcmp(c->id, m->active) != 0 && strcmp(c->id, m->previous) != 0 &&
            strcmp(c->id, m->target) != 0)
            spare = c;
    }
    course_reset(spare, id);
    return spare;
}

/* As reembed_catch_up; where faces come faster than a niced thread embeds
 * them, without its niceness, or it would never end. */
static int follow(struct reembed *r, struct course *c, struct error *err)
{
    struct catch_up k = {.opt = &r->opt,
                         .kit = &r->kit,
                         .course = c,
                         .generation = &r->generation,
                         .began = r->now,
                         .n_embedded = &r->n_embedded};
    int n_before = c->n_unusable, rc;

    rc = reembed_catch_up(&k, err);
    if (rc == CATCH_UP_BEHIND) {
        log_event(LOG_LEVEL_WARN, "reembed",
                  "model=%.12s text=\"faces are enrolled faster than they are "
                  "embedded: no more room is made for requests\"",
                  c->id);
        k.hurry = true;
        rc = reembed_catch_up(&k, err);
    }
    if (c->n_unusable > n_before) {
        char text[512];
        atomic_fetch_add(&r->n_unusable, c->n_unusable - n_before);
        log_event(LOG_LEVEL_WARN, "reembed", "model=%.12s unusable=%d why=%s",
                  c->id, c->n_unusable,
                  log_quote(c->why.text, text, sizeof(text)));
    }
    return rc;
}

static void later(struct reembed *r, const char *id, const struct error *err)
{
    char text[512];

    log_event(LOG_LEVEL_ERROR, "reembed", "model=%.12s code=%s why=%s", id,
              error_wire(err->code), log_quote(err->text, text, sizeof(text)));
    pthread_mutex_lock(&r->lock);
    clock_gettime(CLOCK_MONOTONIC, &r->retry);
    r->retry.tv_sec += RETRY_S;
    pthread_mutex_unlock(&r->lock);
}

/* --- the target --------------------------------------------------------- */

static void give_up(struct reembed *r, const char *id, const struct error *why)
{
    struct error err;
    char text[512];

    if (atomic_load(&r->generation) != r->now)
        return; /* something else is wanted by now, or the same again */
    log_event(LOG_LEVEL_ERROR, "model", "not_activated=%s code=%s why=%s", id,
              error_wire(why->code), log_quote(why->text, text, sizeof(text)));
    tell(r, id, why);
    servings_set(r->opt.servings, SERVING_TARGET, NULL);
    if (store_target_clear(r->opt.store, id, &err) != 0)
        later(r, id, &err);
}

/* A fault of the moment is tried again, any other ends the activation. */
static void failed(struct reembed *r, const char *id, const struct error *why)
{
    if (!error_retryable(why->code) && why->code != ERR_STORAGE_FULL) {
        give_up(r, id, why);
        return;
    }
    tell(r, "", why);
    later(r, id, why);
}

/* A reference to the target, loaded and in its slot. */
static struct serving *load_target(struct reembed *r, const char *id,
                                   struct error *err)
{
    static const enum serving_slot slots[] = {SERVING_TARGET, SERVING_PREVIOUS};
    struct serving *sv = NULL;

    for (int i = 0; i < 2 && !sv; i++) {
        sv = servings_get(r->opt.servings, slots[i]);
        if (sv && strcmp(sv->model->id, id) != 0) {
            serving_put(sv);
            sv = NULL;
        }
    }
    if (!sv)
        sv = serving_new(r->opt.servings, id, err);
    if (sv)
        servings_set(r->opt.servings, SERVING_TARGET, sv);
    return sv;
}

struct switching {
    struct reembed *r;
    struct serving *to;
};

static void switched(void *ctx)
{
    struct switching *s = ctx;

    servings_activate(s->r->opt.servings, s->to);
    atomic_fetch_add(&s->r->n_switches, 1);
    atomic_store(&s->r->following, true);
}

static int try_switch(struct reembed *r, struct serving *sv,
                      const struct course *c, struct error *err)
{
    struct switching s = {r, sv};
    struct store_switch order = {.target = sv->model->id,
                                 .unusable = c ? c->unusable : NULL,
                                 .n_unusable = c ? c->n_unusable : 0,
                                 .switched = switched,
                                 .ctx = &s};

    if (store_switch(r->opt.store, &order, err) != 0)
        return -1;
    forget_failure(r);
    log_event(LOG_LEVEL_INFO, "model", "active=%s name=%s", sv->model->id,
              sv->model->name);
    if (r->opt.config->threshold > 0)
        log_event(LOG_LEVEL_WARN, "model",
                  "text=\"the setting threshold holds for this model too: was "
                  "it measured with it?\"");
    return 0;
}

/* Memory holds every vector of the record. */
static int whole(struct reembed *r, struct serving *sv, struct error *err)
{
    struct gallery_size size;

    gallery_size(sv->gallery, &size);
    if (size.n_refused == 0 && !atomic_load(&sv->gallery_stale))
        return 0;
    return gallery_load(sv->gallery, r->opt.store, err);
}

static void pursue(struct reembed *r, struct serving *sv, struct course *c)
{
    for (int n_vain = 0;;) {
        struct error err = {.code = ERR_NONE};
        int64_t before = c->after;
        int rc = follow(r, c, &err);

        if (rc == CATCH_UP_STOPPED)
            return;
        if (rc == CATCH_UP_END && whole(r, sv, &err) == 0 &&
            try_switch(r, sv, c, &err) == 0)
            return;
        if (err.code == ERR_MODEL_CHANGED)
            return;
        if (err.code == ERR_NOT_READY) {
            /* A face came meanwhile; or, when none is met, one was passed by.
             */
            n_vain = c->after == before ? n_vain + 1 : 0;
            if (n_vain == MAX_VAIN)
                course_reset(c, sv->model->id);
            continue;
        }
        if (err.code == ERR_CONFLICT && c->n_unusable > 0)
            error_context(&err, "%.90s", c->why.text);
        failed(r, sv->model->id, &err);
        return;
    }
}

static void do_target(struct reembed *r, const struct store_models *m)
{
    struct course *c = course_of(r, m->target, m);
    struct error err = {.code = ERR_NONE};
    struct serving *sv;

    if (r->target_generation != r->now) {
        course_reset(c, m->target);
        r->target_generation = r->now;
    }
    sv = load_target(r, m->target, &err);
    if (!sv) {
        failed(r, m->target, &err);
        return;
    }
    pursue(r, sv, c);
    serving_put(sv);
}

/* --- the others --------------------------------------------------------- */

/* Loaded for a rollback, and given what new faces lack. */
static void do_previous(struct reembed *r, const struct store_models *m)
{
    struct serving *sv = servings_get(r->opt.servings, SERVING_PREVIOUS);
    struct error err = {.code = ERR_NONE};

    if (sv && strcmp(sv->model->id, m->previous) != 0) {
        serving_put(sv);
        sv = NULL;
    }
    if (!sv && strcmp(r->no_previous, m->previous) != 0) {
        sv = serving_new(r->opt.servings, m->previous, &err);
        if (sv)
            servings_set(r->opt.servings, SERVING_PREVIOUS, sv);
    }
    if (sv && follow(r, course_of(r, m->previous, m), &err) >= 0) {
        serving_put(sv);
        return;
    }
    if (err.code != ERR_NONE && error_retryable(err.code)) {
        later(r, m->previous, &err);
    } else if (err.code != ERR_NONE) {
        char text[512];
        memcpy(r->no_previous, m->previous, sizeof(m->previous));
        log_event(LOG_LEVEL_WARN, "model",
                  "previous=%s why=%s text=\"there is no way back to it\"",
                  m->previous, log_quote(err.text, text, sizeof(text)));
    }
    serving_put(sv);
}

static void do_active(struct reembed *r, const struct store_models *m)
{
    struct course *c = course_of(r, m->active, m);
    struct error err = {.code = ERR_NONE};

    if (!c->done && follow(r, c, &err) < 0)
        later(r, m->active, &err);
}

static void turn(struct reembed *r)
{
    struct store_models m;
    struct error err;

    r->now = atomic_load(&r->generation);
    if (store_models_get(r->opt.store, &m, &err) != 0) {
        later(r, "", &err);
        return;
    }
    if (*m.target)
        do_target(r, &m);
    else
        servings_set(r->opt.servings, SERVING_TARGET, NULL);
    if (atomic_load(&r->stop) || store_models_get(r->opt.store, &m, &err) != 0)
        return;
    do_active(r, &m);
    if (*m.previous)
        do_previous(r, &m);
    atomic_store(&r->following, *m.previous || *m.target);
    if (!*m.previous && !*m.target)
        embed_kit_fini(&r->kit);
}

static void *run(void *arg)
{
    struct reembed *r = arg;

    pthread_mutex_lock(&r->lock);
    while (!atomic_load(&r->stop)) {
        if (r->kicked) {
            r->kicked = false;
            r->retry = (struct timespec){0};
            pthread_mutex_unlock(&r->lock);
            turn(r);
            pthread_mutex_lock(&r->lock);
        } else if (r->retry.tv_sec == 0) {
            pthread_cond_wait(&r->wake, &r->lock);
        } else if (pthread_cond_timedwait(&r->wake, &r->lock, &r->retry) ==
                   ETIMEDOUT) {
            r->kicked = true;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* --- public ------------------------------------------------------------- */

struct reembed *reembed_start(const struct reembed_options *opt,
                              struct error *err)
{
    struct reembed *r = calloc(1, sizeof(*r));
    pthread_condattr_t attr;

    if (!r)
        return error_null(err, ERR_NOMEM, "no memory to embed anew");
    r->opt = *opt;
    r->kicked = true;
    r->target_generation = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (store_watch(opt->store, on_change, r, err) != 0)
        goto fail;
    if (pthread_create(&r->thread, NULL, run, r) != 0) {
        error_set(err, ERR_NOMEM, "cannot start the thread that embeds anew");
        store_unwatch(opt->store, on_change, r, NULL);
        goto fail;
    }
    return r;
fail:
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
    return NULL;
}

void reembed_stop(struct reembed *r)
{
    if (!r)
        return;
    atomic_store(&r->stop, true);
    wish(r);
    pthread_join(r->thread, NULL);
    store_unwatch(r->opt.store, on_change, r, NULL);
    embed_kit_fini(&r->kit);
}

void reembed_free(struct reembed *r)
{
    if (!r)
        return;
    for (int i = 0; i < COURSES; i++)
        free(r->courses[i].unusable);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* Faces that the model can never embed are to be named before anything is
 * done. */
static int check_crops(struct reembed *r, const char *id, bool allow_missing,
                       struct error *err)
{
    struct store_missing n;

    if (allow_missing)
        return 0;
    if (store_missing_count(r->opt.store, id, &n, err) != 0)
        return -1;
    if (n.n_without_crop == 0)
        return 0;
    return error_set(err, ERR_CONFLICT,
                     "%lld faces have no kept crop, so model %.12s cannot "
                     "embed them and would not find them: enroll them again, "
                     "or send \"allow_missing\": true",
                     (long long)n.n_without_crop, id);
}

static int set_target(struct reembed *r, const char *id, bool allow_missing,
                      struct error *err)
{
    struct model_entry e;

    if (models_find(r->opt.models, id, &e, err) != 0 ||
        store_model_add(r->opt.store, id, e.contract.dim, err) != 0 ||
        check_crops(r, id, allow_missing, err) != 0 ||
        store_target_set(r->opt.store, id, allow_missing, err) != 0)
        return -1;
    forget_failure(r);
    atomic_store(&r->following, true);
    return 0;
}

int reembed_activate(struct reembed *r, const char *id, bool allow_missing,
                     struct error *err)
{
    if (set_target(r, id, allow_missing, err) != 0)
        return -1;
    log_event(LOG_LEVEL_INFO, "model", "activating=%s", id);
    wish(r);
    return 0;
}

int reembed_cancel(struct reembed *r, const char *id, struct error *err)
{
    struct store_models m;

    if (store_models_get(r->opt.store, &m, err) != 0)
        return -1;
    if (strcmp(m.target, id) != 0)
        return error_set(err, ERR_CONFLICT,
                         "model %.12s is not being activated", id);
    if (store_target_clear(r->opt.store, id, err) != 0)
        return -1;
    log_event(LOG_LEVEL_INFO, "model", "cancelled=%s", id);
    wish(r);
    return 0;
}

int reembed_rollback(struct reembed *r, bool allow_missing, char id[65],
                     bool *done, struct error *err)
{
    struct serving *sv;
    struct store_models m;

    *done = false;
    if (store_models_get(r->opt.store, &m, err) != 0)
        return -1;
    if (!*m.previous)
        return error_set(err, ERR_CONFLICT,
                         "there is no previous model to go back to");
    memcpy(id, m.previous, sizeof(m.previous));
    if (set_target(r, id, allow_missing, err) != 0)
        return -1;
    sv = servings_get(r->opt.servings, SERVING_PREVIOUS);
    if (sv && strcmp(sv->model->id, id) == 0) {
        struct gallery_size size;
        struct error why;
        gallery_size(sv->gallery, &size);
        *done = size.n_refused == 0 && try_switch(r, sv, NULL, &why) == 0;
    }
    serving_put(sv);
    wish(r);
    return 0;
}

void reembed_state(struct reembed *r, struct reembed_state *out)
{
    pthread_mutex_lock(&r->lock);
    *out = r->state;
    pthread_mutex_unlock(&r->lock);
    out->n_embedded = atomic_load(&r->n_embedded);
    out->n_unusable = atomic_load(&r->n_unusable);
    out->n_switches = atomic_load(&r->n_switches);
}
