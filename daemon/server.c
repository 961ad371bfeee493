/* daemon/server.c - everything the daemon is made of, built in order and
 * torn down in reverse. main.c calls it; whatever cannot be had at the start
 * is an error with a reason here and an exit code there. */
#include "daemon/server.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/route.h"
#include "daemon/server_priv.h"

enum {
    MAX_LISTEN = 8,
    ALIVE_MS = 5000,  /* of threads that never work long */
    BUSY_MS = 60000,  /* of those that run a network or read a photo */
    JOB_END_MS = 5000 /* beyond the drain, for a job's checkpoint */
};

struct server_past {
    struct server_past *next;
    struct config *config;
    struct keys *keys;
};

int64_t server_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static enum log_level log_level(const struct config *c)
{
    switch (c->log_level[0]) {
    case 'e':
        return LOG_LEVEL_ERROR;
    case 'w':
        return LOG_LEVEL_WARN;
    case 'd':
        return LOG_LEVEL_DEBUG;
    default:
        return LOG_LEVEL_INFO;
    }
}

void server_log(const struct config *config)
{
    log_open(log_level(config));
}

/* --- record ------------------------------------------------------------ */

static int open_store(struct server *s, const struct config *c,
                      struct error *err)
{
    struct store_options opt = {
        .dir = c->data_dir,
        .max_faces_per_subject = (int)c->max_faces_per_subject,
        .relaxed = strcmp(c->durability, "relaxed") == 0,
    };

    if (*c->crop_key_file) {
        if (server_load_crop_key(c->crop_key_file, s->crop_key, err) != 0)
            return -1;
        opt.crop_key = s->crop_key;
    }
    notify_status("opening the database");
    s->store = store_open(&opt, err);
    if (!s->store)
        return -1;
    models_sweep(s->models); /* the data directory is ours */
    s->thresholds = thresholds_open(c->data_dir, err);
    return s->thresholds ? 0 : -1;
}

static int tell_gallery(struct server *s, struct serving *sv, struct error *err)
{
    struct gallery_size size;
    int64_t missing = 0;

    gallery_size(sv->gallery, &size);
    log_event(LOG_LEVEL_INFO, "gallery",
              "galleries=%lld subjects=%lld faces=%lld",
              (long long)size.n_galleries, (long long)size.n_subjects,
              (long long)size.n_faces);
    if (size.n_refused > 0)
        log_event(LOG_LEVEL_ERROR, "gallery",
                  "refused=%lld text=\"stored faces are damaged and left "
                  "out\"",
                  (long long)size.n_refused);
    if (store_missing_embeddings(s->store, sv->model->id, &missing, err) != 0)
        return -1;
    if (missing > 0)
        log_event(LOG_LEVEL_WARN, "gallery",
                  "missing=%lld text=\"stored faces that this model has not "
                  "embedded: they are not found until it has\"",
                  (long long)missing);
    return 0;
}

/* The embedder and its gallery. */
static int start_serving(struct server *s, const struct config *c,
                         struct error *err)
{
    struct servings_options opt = {.device = s->device,
                                   .info = &s->device_info,
                                   .card = s->card,
                                   .config = c,
                                   .models = s->models,
                                   .store = s->store};
    struct reembed_options again = {
        .models = s->models, .store = s->store, .config = c, .busy = &s->jobs};
    struct serving *sv;
    char id[65];
    int rc;

    notify_status("loading the model and the galleries");
    s->servings = servings_new(&opt, err);
    if (!s->servings || server_choose_model(s, c, id, err) != 0)
        return -1;
    sv = serving_new(s->servings, id, err);
    if (!sv)
        return -1;
    servings_set(s->servings, SERVING_ACTIVE, sv);
    rc = server_check_card(s, c, sv, err);
    if (rc == 0)
        rc = server_check_far(s, c, err);
    if (rc == 0)
        rc = tell_gallery(s, sv, err);
    serving_put(sv);
    if (rc != 0)
        return -1;
    again.servings = s->servings;
    s->reembed = reembed_start(&again, err);
    return s->reembed ? 0 : -1;
}

/* --- queues and threads ------------------------------------------------ */

/* The detector's networks on the card, after the embedder's. */
static int start_detection(struct server *s, const struct config *c,
                           struct error *err)
{
    struct detection_options opt = {.card = s->card,
                                    .wanted = c->device_detect,
                                    .cpu = s->detect_device,
                                    .detector = s->detector,
                                    .models = {s->pnet, s->rnet, s->onet}};

    s->detection = detection_new(&opt, err);
    return s->detection ? 0 : -1;
}

/* Twice as many where they wait for a card meanwhile. */
static int usual_workers(const struct server *s)
{
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);

    if (n < 1)
        n = 1;
    return detection_may_wait(s->detection) ? 2 * n : n;
}

static int start_work(struct server *s, const struct config *c,
                      struct error *err)
{
    int n = c->workers > 0 ? (int)c->workers : usual_workers(s);

    s->jobs_max = (int)c->queue_faces;
    s->work = queue_new((size_t)s->jobs_max + JOBS_SPARE + WORK_CALLS);
    if (!s->work)
        return error_set(err, ERR_NOMEM, "no memory for the work queue");
    s->workers = work_start(n, s->work, s->detector, job_work, err);
    return s->workers ? 0 : -1;
}

/* The detector on a grey picture: nothing is found, everything was run. */
static int warm_detector(struct server *s, struct error *err)
{
    struct image *img = image_new(320, 240, err);
    struct detect_scratch *scratch = NULL;
    struct face *faces = NULL;
    int n = 0, rc = -1;

    if (!img)
        return -1;
    memset(img->rgb, 128, (size_t)img->w * (size_t)img->h * 3);
    scratch = detect_scratch_new(s->detector, err);
    if (scratch)
        rc = detect_faces(scratch, img, &s->photo.detect, &faces, &n, err);
    free(faces);
    detect_scratch_free(scratch);
    image_free(img);
    return rc;
}

/* --- training jobs ----------------------------------------------------- */

static int import_model(void *ctx, const char *path, char id[65],
                        struct error *err)
{
    struct server *s = ctx;

    return models_import(s->models, path, id, err);
}

/* After the store, which holds the data directory against other daemons. */
static int start_training(struct server *s, const struct config *c,
                          struct error *err)
{
    char dir[4096];
    struct jobs_options opt = {
        .dir = dir,
        .trainer = c->trainer,
        .root = c->train_root,
        .detectors = c->models,
        .device = c->train_device,
        .plugin = c->device_plugin,
        .store = s->store,
        .sealed = *c->crop_key_file,
        .n_threads = (int)c->job_threads,
        .memory = c->job_memory,
        .max_minutes = c->job_max_minutes,
        .stop_ms = (int)c->job_stop_ms,
        .end_ms = (int)c->drain_ms + JOB_END_MS,
        .max_waiting = (int)c->jobs_waiting,
        .max_kept = (int)c->jobs_kept,
        .import = import_model,
        .ctx = s,
    };

    if (snprintf(dir, sizeof(dir), "%s/jobs", c->data_dir) >= (int)sizeof(dir))
        return error_set(err, ERR_CONFIG, "data-dir has too long a path");
    s->training = jobs_open(&opt, err);
    return s->training ? 0 : -1;
}

/* --- listening --------------------------------------------------------- */

static bool fd_on_loopback(int fd)
{
    struct sockaddr_storage a = {0};
    const struct sockaddr_in *in = (const void *)&a;
    const struct sockaddr_in6 *in6 = (const void *)&a;
    socklen_t len = sizeof(a);

    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return false;
    if (a.ss_family == AF_INET)
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    if (a.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    return a.ss_family == AF_UNIX;
}

static bool text_on_loopback(const char *listen)
{
    return strncmp(listen, "127.", 4) == 0 ||
           strncmp(listen, "[::1]:", 6) == 0 ||
           strncmp(listen, "localhost:", 10) == 0 ||
           strncmp(listen, "unix:", 5) == 0;
}

static void set_address(struct server *s, const struct config *c, int n_fds)
{
    const char *colon = strrchr(c->listen, ':');
    int len = colon ? (int)(colon - c->listen) : 0;

    if (n_fds > 0)
        snprintf(s->address, sizeof(s->address), "systemd:%d", s->port);
    else if (strncmp(c->listen, "unix:", 5) == 0)
        snprintf(s->address, sizeof(s->address), "%s", c->listen);
    else
        snprintf(s->address, sizeof(s->address), "%.*s:%d",
                 len ? len : (int)strlen("localhost"),
                 len ? c->listen : "localhost", s->port);
}

static int start_http(struct server *s, const struct config *c, const int *fds,
                      int n_fds, struct error *err)
{
    struct http_options opt = {
        .listen = c->listen,
        .fds = fds,
        .n_fds = n_fds,
        .tls_cert = *c->tls_cert ? c->tls_cert : NULL,
        .tls_key = *c->tls_key ? c->tls_key : NULL,
        .max_connections = (int)c->max_connections,
        .max_per_address = (int)c->max_connections_per_address,
        .max_buffered = (size_t)c->max_buffered,
        .header_ms = (int)c->header_ms,
        .body_ms = (int)c->body_ms,
        .idle_ms = (int)c->idle_ms,
        .answer_ms = (int)c->deadline_ms,
    };
    struct http_calls calls = route_calls(s);

    s->http = http_start(&opt, &calls, &s->port, err);
    if (!s->http)
        return -1;
    set_address(s, c, n_fds);
    return 0;
}

/* --- the whole --------------------------------------------------------- */

struct server *server_start(struct config *take_config, struct error *err)
{
    struct server *s = calloc(1, sizeof(*s));
    struct config *c = take_config;
    struct keys *keys = NULL;
    int fds[MAX_LISTEN], n_fds;

    if (!s) {
        config_free(c);
        return error_null(err, ERR_NOMEM, "no memory to start");
    }
    s->started_us = server_now_us();
    atomic_store(&s->config, c);
    n_fds = notify_listen_fds(fds, MAX_LISTEN);
    s->on_loopback = n_fds > 0 || text_on_loopback(c->listen);
    for (int i = 0; i < n_fds; i++)
        s->on_loopback = s->on_loopback && fd_on_loopback(fds[i]);
    if (server_check(c, err) != 0 ||
        server_load_keys(c, s->on_loopback, &keys, err) != 0)
        goto fail;
    atomic_store(&s->keys, keys);
    s->limiter = limiter_new((int)c->max_auth_failures);
    if (!s->limiter) {
        error_set(err, ERR_NOMEM, "no memory for the limiter of keys");
        goto fail;
    }
    server_set_photo_options(s, c);
    if (server_load_models(s, c, err) != 0 || open_store(s, c, err) != 0 ||
        server_open_card(s, c, err) != 0 || start_serving(s, c, err) != 0 ||
        start_detection(s, c, err) != 0 || start_work(s, c, err) != 0 ||
        warm_detector(s, err) != 0)
        goto fail;
    if (start_training(s, c, err) != 0)
        goto fail;
    if (start_http(s, c, fds, n_fds, err) != 0)
        goto fail;
    atomic_store(&s->ready, true); /* s->http is there for the handlers */
    return s;
fail:
    server_stop(s);
    return NULL;
}

bool server_stop(struct server *s)
{
    struct config *c;
    struct server_past *past;
    bool clean;

    if (!s)
        return true;
    c = atomic_load(&s->config);
    atomic_store(&s->ready, false);
    atomic_store(&s->stopping, true);
    jobs_stop(s->training); /* it ends while requests do */
    http_stop(s->http, (int)c->drain_ms);
    reembed_stop(s->reembed);
    if (s->servings)
        servings_close(s->servings);
    if (s->work)
        queue_close(s->work);
    work_join(s->workers);
    if (s->work)
        queue_free(s->work);
    /* A handler that outlasted the drain asked these until now. */
    jobs_close(s->training);
    reembed_free(s->reembed);
    store_close(s->store); /* its thread tells the galleries until then */
    servings_free(s->servings);
    models_close(s->models);
    thresholds_close(s->thresholds);
    detection_free(s->detection); /* after those that ask it */
    clean = card_close(s->card);
    detector_free(s->detector);
    model_free(s->onet);
    model_free(s->rnet);
    model_free(s->pnet);
    if (s->detect_device)
        s->detect_device->backend->device_close(s->detect_device);
    if (s->device)
        s->device->backend->device_close(s->device);
    limiter_free(s->limiter);
    keys_free(atomic_load(&s->keys));
    config_free(c);
    while ((past = s->past)) {
        s->past = past->next;
        keys_free(past->keys);
        config_free(past->config);
        free(past);
    }
    explicit_bzero(s->crop_key, sizeof(s->crop_key));
    free(s);
    return clean;
}

int server_reload(struct server *s, struct config *take_config,
                  struct error *err)
{
    struct config *c = take_config, *old = atomic_load(&s->config);
    struct server_past *past = calloc(1, sizeof(*past));
    struct keys *keys = NULL;
    char names[512];
    int later = config_need_restart(old, c, names, sizeof(names));

    if (!past) {
        error_set(err, ERR_NOMEM, "no memory for new settings");
        goto fail;
    }
    /* What needs a restart stays as it is until then. */
    if (config_keep_restart(c, old, err) != 0)
        goto fail;
    if (server_check(c, err) != 0 || server_check_far(s, c, err) != 0 ||
        server_load_keys(c, s->on_loopback, &keys, err) != 0)
        goto fail;
    if (*old->tls_cert && http_reload_tls(s->http, err) != 0)
        goto fail;
    /* A request that runs keeps reading the set that it began with. */
    past->config = atomic_exchange(&s->config, c);
    past->keys = atomic_exchange(&s->keys, keys);
    past->next = s->past;
    s->past = past;
    log_set_level(log_level(c));
    if (later > 0)
        log_event(LOG_LEVEL_WARN, "reload", "after_restart=\"%s\"", names);
    return 0;
fail:
    free(past);
    keys_free(keys);
    config_free(c);
    return -1;
}

bool server_alive(struct server *s)
{
    return http_alive(s->http, ALIVE_MS) && store_alive(s->store, ALIVE_MS) &&
           servings_alive(s->servings, BUSY_MS) &&
           detection_alive(s->detection, BUSY_MS) &&
           work_alive(s->workers, BUSY_MS) && jobs_alive(s->training, BUSY_MS);
}

bool server_lost(struct server *s)
{
    struct card_status st;

    card_status(s->card, &st);
    return st.state != CARD_UP &&
           ((const struct config *)atomic_load(&s->config))->device_required;
}

void server_tend(struct server *s)
{
    servings_tend(s->servings);
}

/* Time until a job that came now would begin, if none were quicker. */
static int64_t wait_us(struct server *s)
{
    int n = s->workers ? work_threads(s->workers) : 1;
    return atomic_load(&s->jobs) * (int64_t)atomic_load(&s->work_us) / n;
}

int server_retry_after(struct server *s)
{
    int64_t wait = 1 + wait_us(s) / 1000000;
    struct serving *sv = servings_get(s->servings, SERVING_ACTIVE);
    int batch = batch_retry_after(sv->batch);

    serving_put(sv);
    if (wait < batch)
        wait = batch;
    return wait > 60 ? 60 : (int)wait;
}

bool server_busy(struct server *s)
{
    const struct config *c = atomic_load(&s->config);
    struct serving *sv = servings_get(s->servings, SERVING_ACTIVE);
    bool full = batch_full(sv->batch);

    serving_put(sv);
    return atomic_load(&s->jobs) >= s->jobs_max || full ||
           wait_us(s) > c->deadline_ms * 1000 * 8 / 10;
}
