/* tools/measure.c - runs a list of pairs through the daemon's own path:
 * several threads read photos (decode, detect, align), the calling thread
 * embeds what they hand over, in batches, and evaluates the distances. */
#include "tools/measure.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/engine/plugin.h"
#include "core/face/embed.h"
#include "core/face/face.h"
#include "core/train/calibrate.h"
#include "core/train/picture.h"

enum {
    MOST_THREADS = 64,
    MOST_PATH = 8192,
    USUAL_BATCH = 16
};

struct done { /* one photo, read or not */
    int photo;
    float *input; /* NULL: skipped, see why */
    struct error why;
};

/* What the threads share. Readers wait while the ring is full, the caller
 * while it is empty. */
struct work {
    const struct measure_options *opt;
    const struct pairs *pairs;
    struct detector *detector;
    const struct contract *contract;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct done *ring;
    int n_ring, head, n_waiting;
    int next, n_readers;
    bool stop;
    struct error failure; /* of a reader; not of a photo */
    struct measurement *out;
};

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- reading photos ------------------------------------------------------- */

static void read_photo(struct work *w, struct detect_scratch *s, struct done *d,
                       struct photo *times)
{
    const struct face_options opt = {.image = {.max_bytes = PICTURE_MAX_BYTES},
                                     .detect = {.min_face = w->opt->min_face},
                                     .choice = FACE_CENTRAL};
    char path[MOST_PATH];
    size_t len = 0;
    uint8_t *bytes;

    memset(times, 0, sizeof(*times));
    if (snprintf(path, sizeof(path), "%s/%s", w->opt->photos,
                 w->pairs->photos[d->photo]) >= (int)sizeof(path)) {
        error_set(&d->why, ERR_FILE, "the path is too long");
        return;
    }
    bytes = picture_read(path, &len, &d->why);
    if (!bytes)
        return;
    if (photo_read(s, w->contract, bytes, len, &opt, times, &d->why) == 0) {
        d->input = times->chips[0].input;
        times->chips[0].input = NULL;
    }
    photo_fini(times);
    free(bytes);
}

/* Failures that another photo would meet too. */
static bool is_fatal(enum error_code code)
{
    return code == ERR_NOMEM || code == ERR_DEVICE || code == ERR_MODEL ||
           code == ERR_BAD_FIELD || code == ERR_INTERNAL;
}

static bool take_photo(struct work *w, int *photo)
{
    bool more;

    pthread_mutex_lock(&w->lock);
    more = !w->stop && w->next < w->pairs->n_photos;
    if (more)
        *photo = w->next++;
    pthread_mutex_unlock(&w->lock);
    return more;
}

static void hand_over(struct work *w, struct done *d, const struct photo *times)
{
    pthread_mutex_lock(&w->lock);
    while (w->n_waiting == w->n_ring && !w->stop)
        pthread_cond_wait(&w->changed, &w->lock);
    w->out->decode_us += times->decode_us;
    w->out->detect_us += times->detect_us;
    w->out->align_us += times->align_us;
    if (!d->input && is_fatal(d->why.code) && !w->stop) {
        w->failure = d->why;
        error_context(&w->failure, "%s", w->pairs->photos[d->photo]);
        w->stop = true;
    }
    if (w->stop)
        free(d->input);
    else
        w->ring[(w->head + w->n_waiting++) % w->n_ring] = *d;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void *reader(void *arg)
{
    struct work *w = arg;
    struct error err = {0};
    struct detect_scratch *s = detect_scratch_new(w->detector, &err);
    struct photo times;
    int photo;

    while (s && take_photo(w, &photo)) {
        struct done d = {.photo = photo};
        read_photo(w, s, &d, &times);
        hand_over(w, &d, &times);
    }
    detect_scratch_free(s);
    pthread_mutex_lock(&w->lock);
    if (!s && !w->stop) {
        w->failure = err;
        w->stop = true;
    }
    w->n_readers--;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- embedding --------------------------------------------------------------
 */

/* Up to `most` results; 0 when all photos are through or a reader failed. */
static int collect(struct work *w, struct done *out, int most)
{
    int n = 0;

    pthread_mutex_lock(&w->lock);
    while (!w->stop && w->n_waiting < most && w->n_readers > 0)
        pthread_cond_wait(&w->changed, &w->lock);
    while (!w->stop && w->n_waiting > 0 && n < most) {
        out[n++] = w->ring[w->head];
        w->head = (w->head + 1) % w->n_ring;
        w->n_waiting--;
    }
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return n;
}

static void count_skipped(struct work *w, const struct done *d)
{
    if (d->why.code == ERR_FILE)
        w->out->n_missing++;
    else if (d->why.code == ERR_NO_FACE)
        w->out->n_faceless++;
    else
        w->out->n_unread++;
    if (w->opt->skipped)
        w->opt->skipped(w->opt->user, w->pairs->photos[d->photo], &d->why);
}

static int n_views(const struct work *w)
{
    return w->opt->flipped ? 2 : 1;
}

/* chip [3,h,w] with left and right changed, malloc'd. */
static float *mirrored(const float *chip, const struct contract *c)
{
    size_t width = (size_t)c->width, n_rows = 3 * (size_t)c->height;
    float *out = malloc(n_rows * width * sizeof(*out));

    for (size_t y = 0; out && y < n_rows; y++)
        for (size_t x = 0; x < width; x++)
            out[y * width + x] = chip[y * width + width - 1 - x];
    return out;
}

/* The chips of a batch, each followed by its mirror image where that is
 * wanted, which is the caller's to free. Photos without one are counted. */
static int gather(struct work *w, const struct done *batch, int n,
                  const float **chips, int *n_chips, struct error *err)
{
    *n_chips = 0;
    for (int i = 0; i < n; i++) {
        if (!batch[i].input) {
            count_skipped(w, &batch[i]);
            continue;
        }
        chips[(*n_chips)++] = batch[i].input;
        if (!w->opt->flipped)
            continue;
        chips[*n_chips] = mirrored(batch[i].input, w->contract);
        if (!chips[*n_chips])
            return error_set(err, ERR_NOMEM, "no memory for a mirrored face");
        (*n_chips)++;
    }
    return 0;
}

/* One batch from the ring into rows of embeddings; rows of skipped photos
 * stay NaN. */
static int embed_batch(struct work *w, struct embedder *e, struct done *batch,
                       int n, float *rows, float *scratch, struct error *err)
{
    int views = n_views(w), n_chips = 0, bad = 0, rc;
    size_t dim = (size_t)embedder_dim(e) * (size_t)views;
    const float **chips = malloc((size_t)(n * views) * sizeof(*chips));
    int64_t t0 = now_us();

    rc = chips ? gather(w, batch, n, chips, &n_chips, err)
               : error_set(err, ERR_NOMEM, "no memory for a batch");
    if (rc == 0 && n_chips > 0)
        rc = embedder_run(e, chips, n_chips, scratch, &bad, err);
    for (int i = 1; views == 2 && i < n_chips; i += 2)
        free((float *)chips[i]);
    n_chips = 0;
    for (int i = 0; i < n; i++) {
        if (batch[i].input && rc == 0)
            memcpy(rows + (size_t)batch[i].photo * dim,
                   scratch + (size_t)n_chips++ * dim, dim * sizeof(float));
        free(batch[i].input);
    }
    w->out->n_unread += bad;
    w->out->embed_us += now_us() - t0;
    free(chips);
    return rc;
}

static int embed_all(struct work *w, struct embedder *e, float *rows,
                     struct error *err)
{
    int most = embedder_batch_max(e), n, n_done = 0, rc = 0;
    struct done *batch = calloc((size_t)most, sizeof(*batch));
    float *scratch = malloc((size_t)(most * n_views(w)) *
                            (size_t)embedder_dim(e) * sizeof(float));

    if (!batch || !scratch)
        rc = error_set(err, ERR_NOMEM, "no memory for a batch");
    while (rc == 0 && (n = collect(w, batch, most)) > 0) {
        rc = embed_batch(w, e, batch, n, rows, scratch, err);
        n_done += n;
        if (w->opt->progress)
            w->opt->progress(w->opt->user, n_done, w->pairs->n_photos);
    }
    free(batch);
    free(scratch);
    return rc;
}

/* Start the readers, embed what they give, wait for them to end. */
static int run_readers(struct work *w, struct embedder *e, float *rows,
                       struct error *err)
{
    pthread_t threads[MOST_THREADS];
    int n_started = 0, rc = 0;

    w->n_ring = 4 * embedder_batch_max(e);
    w->ring = calloc((size_t)w->n_ring, sizeof(*w->ring));
    if (!w->ring)
        return error_set(err, ERR_NOMEM, "no memory for waiting photos");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->n_readers = w->opt->n_threads;
    for (; n_started < w->opt->n_threads; n_started++)
        if (pthread_create(&threads[n_started], NULL, reader, w))
            break;
    if (n_started < w->opt->n_threads) {
        rc = error_set(err, ERR_NOMEM, "no thread can be started");
    } else {
        rc = embed_all(w, e, rows, err);
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < n_started; i++)
        pthread_join(threads[i], NULL);
    for (; w->n_waiting > 0; w->n_waiting--, w->head++)
        free(w->ring[w->head % w->n_ring].input);
    free(w->ring);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    if (rc == 0 && w->failure.code != ERR_NONE) {
        *err = w->failure;
        rc = -1;
    }
    return rc;
}

/* --- from embeddings to figures ----------------------------------------------
 */

static int measure_thresholds(const double *distances, const struct pairs *p,
                              struct measurement *out, struct error *err)
{
    static const double rates[MEASURE_THRESHOLDS] = {1e-1, 1e-2, 1e-3, 1e-4};
    double *impostor = malloc((size_t)p->n_pairs * sizeof(double) + 1);
    int64_t n = 0;

    if (!impostor)
        return error_set(err, ERR_NOMEM, "no memory for %d distances",
                         p->n_pairs);
    for (int i = 0; i < p->n_pairs; i++)
        if (!p->pairs[i].same && !isnan(distances[i]))
            impostor[n++] = distances[i];
    for (int i = 0; i < MEASURE_THRESHOLDS; i++) {
        struct model_threshold *t = &out->thresholds[out->n_thresholds];
        if (rates[i] * (double)n < CALIBRATE_LEAST_ACCEPTED - 1e-9)
            break;
        t->far = rates[i];
        t->threshold =
            evaluate_threshold(impostor, n, rates[i], &t->n_accepted);
        t->n_impostor = n;
        out->n_thresholds++;
    }
    free(impostor);
    return 0;
}

static int figures(const struct measure_options *opt, const struct pairs *p,
                   const float *rows, size_t dim, struct measurement *out,
                   struct error *err)
{
    const struct evaluate_options how = {.metric = opt->metric,
                                         .subtract_mean = opt->subtract_mean,
                                         .range = opt->flipped ? 8 : 4,
                                         .far = opt->far};
    size_t n = (size_t)p->n_pairs;
    double *distances = malloc(n * sizeof(double) + 1);
    bool *same = malloc(n * sizeof(bool) + 1);
    int rc = -1;

    if (!distances || !same) {
        error_set(err, ERR_NOMEM, "no memory for %d distances", p->n_pairs);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        const struct pair *pair = &p->pairs[i];
        same[i] = pair->same;
        out->n_skipped += isnan(rows[(size_t)pair->photo[0] * dim]) ||
                          isnan(rows[(size_t)pair->photo[1] * dim]);
    }
    if (out->n_skipped > opt->max_skipped * (double)n) {
        error_set(err, ERR_BAD_FIELD,
                  "%d of %zu pairs skipped (%d photos missing, %d without a "
                  "face, %d unreadable): more than %g %%",
                  out->n_skipped, n, out->n_missing, out->n_faceless,
                  out->n_unread, opt->max_skipped * 100);
        goto out;
    }
    if (evaluate_embeddings(rows, dim, p, &how, distances, &out->result, err) ||
        evaluate_roc(distances, same, p->n_pairs, &out->roc, &out->n_roc, err))
        goto out;
    rc = measure_thresholds(distances, p, out, err);
out:
    free(distances);
    free(same);
    return rc;
}

/* --- the whole
 * ------------------------------------------------------------------ */

void measure_unload(struct measure_parts *l)
{
    detector_free(l->detector);
    embedder_free(l->embedder);
    for (int i = 0; i < 3; i++)
        model_free(l->parts[i]);
    model_free(l->model);
    if (l->card)
        l->card->backend->device_close(l->card);
    if (l->device)
        l->device->backend->device_close(l->device);
}

/* *out stays NULL where the processor is to do it. */
static int open_card(const struct measure_options *opt, struct device **out,
                     struct error *err)
{
    const char *name = opt->device ? opt->device : "cpu";
    struct device_options how = {.tune = true};
    const struct backend *b;
    char *path;

    if (!plugin_parse(name, &how.index))
        return error_set(err, ERR_USAGE,
                         "device '%.40s' is none of auto, cpu, cuda, cuda:N",
                         name);
    if (strcmp(name, "cpu") == 0)
        return 0;
    path = opt->plugin ? realpath(opt->plugin, NULL) : plugin_default();
    b = plugin_open(path ? path : opt->plugin ? opt->plugin : "", err);
    free(path);
    *out = b ? b->device_open(&how, err) : NULL;
    return *out || strcmp(name, "auto") == 0 ? 0 : -1;
}

int measure_load(const struct measure_options *opt, struct measure_parts *l,
                 struct error *err)
{
    static const char *const names[3] = {
        "detector_pnet.onnx", "detector_rnet.onnx", "detector_onet.onnx"};
    const struct device_options one = {.n_threads = 1};
    enum precision precision = opt->precision;
    char path[MOST_PATH];
    bool bf16_ok = false;

    l->device = backend_cpu.device_open(&one, err);
    if (!l->device || open_card(opt, &l->card, err))
        return -1;
    l->model = model_load(opt->model, l->device, &bf16_ok, err);
    if (!l->model)
        return -1;
    if (precision == PRECISION_AUTO && !bf16_ok && !l->card)
        precision = PRECISION_F32;
    for (int i = 0; i < 3; i++) {
        const char *slash = strrchr(opt->model, '/');
        if (opt->detectors)
            snprintf(path, sizeof(path), "%s/%s", opt->detectors, names[i]);
        else
            snprintf(path, sizeof(path), "%.*s%s",
                     slash ? (int)(slash - opt->model + 1) : 0, opt->model,
                     names[i]);
        l->parts[i] = model_load(path, l->device, NULL, err);
        if (!l->parts[i])
            return -1;
    }
    l->detector =
        detector_new(l->device, l->parts[0], l->parts[1], l->parts[2], err);
    if (!l->detector)
        return -1;
    l->embedder =
        embedder_new(l->card ? l->card : l->device, l->model,
                     opt->batch ? opt->batch : USUAL_BATCH, precision, err);
    return l->embedder ? 0 : -1;
}

static void name_device(const struct device *dev, struct measurement *out)
{
    struct device_info info;

    dev->backend->device_describe(dev, &info);
    snprintf(out->device, sizeof(out->device), "%s", info.name);
}

static int resolve(const struct measure_options *opt,
                   struct measure_options *out, struct error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    *out = *opt;
    if (out->n_threads == 0)
        out->n_threads = cores < 1 ? 1 : cores > 16 ? 16 : (int)cores;
    if (out->batch == 0)
        out->batch = USUAL_BATCH;
    if (out->far == 0)
        out->far = 1e-3;
    if (out->max_skipped == 0)
        out->max_skipped = 0.01;
    if (out->max_skipped < 0)
        out->max_skipped = 0;
    if (!opt->model || !opt->pairs || !opt->photos)
        return error_set(err, ERR_USAGE,
                         "a model, a list of pairs and the photos' folder are "
                         "needed");
    if (out->n_threads < 1 || out->n_threads > MOST_THREADS)
        return error_set(err, ERR_USAGE, "%d threads: 1 to %d are possible",
                         out->n_threads, MOST_THREADS);
    return 0;
}

int measure_run(const struct measure_options *opt, struct measurement *out,
                struct error *err)
{
    struct measure_options o;
    struct measure_parts l = {0};
    struct pairs pairs = {0};
    float *rows = NULL;
    int64_t t0;
    size_t n, dim;
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (resolve(opt, &o, err))
        return -1;
    if (pairs_load(o.pairs, &pairs, err) || measure_load(&o, &l, err))
        goto out;
    out->n_pairs = pairs.n_pairs;
    out->n_photos = pairs.n_photos;
    out->precision = embedder_precision(l.embedder);
    name_device(l.card ? l.card : l.device, out);
    snprintf(out->model, sizeof(out->model), "%s", l.model->name);
    dim = (size_t)embedder_dim(l.embedder) * (o.flipped ? 2 : 1);
    n = (size_t)pairs.n_photos * dim;
    rows = malloc(n * sizeof(float));
    if (!rows) {
        error_set(err, ERR_NOMEM, "no memory for %d embeddings",
                  pairs.n_photos);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        rows[i] = NAN;
    t0 = now_us();
    {
        struct work w = {.opt = &o,
                         .pairs = &pairs,
                         .detector = l.detector,
                         .contract = &l.model->contract,
                         .out = out};
        rc = run_readers(&w, l.embedder, rows, err);
    }
    out->wall_us = now_us() - t0;
    if (rc == 0)
        rc = figures(&o, &pairs, rows, dim, out, err);
out:
    free(rows);
    measure_unload(&l);
    pairs_fini(&pairs);
    return rc;
}

void measure_fini(struct measurement *m)
{
    free(m->roc);
    m->roc = NULL;
    m->n_roc = 0;
}
