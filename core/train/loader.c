/* core/train/loader.c - batches of chips, made ahead by threads. The caller
 * asks and takes; threads work on the first few batches, a photo each at a
 * time; what comes depends on photos and seeds alone. train and the measuring
 * of held-out people call it. */
#include "core/train/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/train/loader_priv.h"

enum {
    MOST_THREADS = 64,
    USUAL_AHEAD = 4,
    N_LOOKED_AT = 32
};
static const double aligned_share = 0.3;

struct item { /* one row of a batch */
    int photo;
    uint64_t seed;
    struct loader_entry *entry; /* until taken: for another contract */
    struct image *crop, *second;
    bool bad;
    struct error why; /* not the photo's fault; code 0: none */
};

struct batch {
    struct batch *next;
    struct item *items;
    int n, n_begun, n_done;
};

struct worker {
    struct loader *loader;
    struct detect_scratch *scratch;
    pthread_t thread;
};

struct failure {
    int photo;
    const char *why;
};

struct loader {
    struct loader_cache cache;
    const struct contract *contract, *second;
    struct augment augment;
    int ahead, max_bad;
    struct worker workers[MOST_THREADS];
    int n_workers, n_running;
    pthread_mutex_t lock; /* of the batches */
    pthread_cond_t work, done;
    struct batch *first, *last;
    int n_batches;
    bool stop;
    /* the caller's */
    bool *listed; /* of photos: its failure is in the list */
    struct failure *failures;
    int n_failures, room_failures;
};

/* --- threads ----------------------------------------------------------------
 */

static int make_crops(struct loader *l, struct item *it, struct error *err)
{
    bool two = l->second && !augment_same_crop(l->contract, l->second);
    struct augment_face room = {0};
    const struct augment_face *f =
        loader_cache_face(&l->cache, it->entry, &room, err);

    if (f)
        it->crop = augment_crop(f, &l->augment, it->seed, l->contract, err);
    if (it->crop && two)
        it->second = augment_crop(f, &l->augment, it->seed, l->second, err);
    augment_face_fini(&room);
    return it->crop && (it->second || !two) ? 0 : -1;
}

static void make(struct loader *l, struct detect_scratch *s, struct item *it)
{
    struct error err = {0};

    it->entry = loader_cache_get(&l->cache, it->photo, s, &it->bad, &err);
    if (it->entry && make_crops(l, it, &err)) {
        it->bad = loader_is_photos(err.code);
        if (it->bad)
            loader_cache_spoil(&l->cache, it->photo, err.text);
    }
    if (err.code && !it->bad)
        it->why = err;
}

/* The next row to make, under the lock; NULL: none now. */
static struct item *next_item(struct loader *l, struct batch **batch)
{
    int i = 0;

    for (struct batch *b = l->first; b && i < l->ahead; b = b->next, i++) {
        if (b->n_begun < b->n) {
            *batch = b;
            return &b->items[b->n_begun++];
        }
    }
    return NULL;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct loader *l = w->loader;
    struct batch *b;
    struct item *it;

    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        it = next_item(l, &b);
        if (!it) {
            pthread_cond_wait(&l->work, &l->lock);
            continue;
        }
        pthread_mutex_unlock(&l->lock);
        make(l, w->scratch, it);
        pthread_mutex_lock(&l->lock);
        if (++b->n_done == b->n)
            pthread_cond_broadcast(&l->done);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static int start(struct loader *l, struct detector *detector, int n,
                 struct error *err)
{
    for (; l->n_workers < n; l->n_workers++) {
        struct worker *w = &l->workers[l->n_workers];
        w->loader = l;
        if (!detector)
            continue;
        w->scratch = detect_scratch_new(detector, err);
        if (!w->scratch)
            return -1;
    }
    for (; l->n_running < n; l->n_running++)
        if (pthread_create(&l->workers[l->n_running].thread, NULL, work,
                           &l->workers[l->n_running]))
            return error_set(err, ERR_NOMEM, "no thread can be started");
    return 0;
}

/* --- new and free ------------------------------------------------------------
 */

static int check(const struct loader_options *o, struct error *err)
{
    const struct contract *both[2] = {o->contract, o->second};

    for (int i = 0; i < 2; i++)
        if (both[i] && (both[i]->crop == CROP_NONE || both[i]->width < 1 ||
                        both[i]->height < 1))
            return error_set(err, ERR_MODEL,
                             "contract: no crop for faces, or an input of "
                             "%dx%d",
                             both[i]->width, both[i]->height);
    if (o->n_threads < 0 || o->n_threads > MOST_THREADS)
        return error_set(err, ERR_BAD_FIELD,
                         "loader: %d threads; 1 to %d, or "
                         "0 for the cores",
                         o->n_threads, MOST_THREADS);
    if (o->max_bytes < 0 || o->ahead < 0)
        return error_set(err, ERR_BAD_FIELD,
                         "loader: %lld bytes, %d batches ahead: negative",
                         (long long)o->max_bytes, o->ahead);
    if (o->dataset->n_photos < 1)
        return error_set(err, ERR_BAD_FIELD, "loader: no photos");
    if (o->dataset->raw && !o->detector)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: whole photos need the detector's models",
                         o->dataset->dir ? o->dataset->dir : "dataset");
    return 0;
}

static int n_threads(const struct loader_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (o->n_threads)
        return o->n_threads;
    return cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : (int)cores;
}

struct loader *loader_new(const struct loader_options *o, struct error *err)
{
    struct loader *l;
    int n = o->dataset->n_photos;

    if (check(o, err))
        return NULL;
    l = calloc(1, sizeof(*l));
    if (!l)
        return error_null(err, ERR_NOMEM, "no memory for the loader");
    l->contract = o->contract;
    l->second = o->second;
    if (o->augment)
        l->augment = *o->augment;
    l->ahead = o->ahead ? o->ahead : USUAL_AHEAD;
    l->max_bad = o->max_bad < 0 ? 0 : o->max_bad ? o->max_bad : (n + 9) / 10;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    l->listed = calloc((size_t)n, sizeof(*l->listed));
    if (!l->listed)
        error_set(err, ERR_NOMEM, "no memory for %d photos", n);
    if (!l->listed || loader_cache_init(&l->cache, o, err) ||
        start(l, o->dataset->raw ? o->detector : NULL, n_threads(o), err)) {
        loader_free(l);
        return NULL;
    }
    return l;
}

static void free_batch(struct loader *l, struct batch *b)
{
    for (int i = 0; i < b->n; i++) {
        loader_cache_release(&l->cache, b->items[i].entry);
        image_free(b->items[i].crop);
        image_free(b->items[i].second);
    }
    free(b->items);
    free(b);
}

void loader_free(struct loader *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_running; i++)
        pthread_join(l->workers[i].thread, NULL);
    for (int i = 0; i < MOST_THREADS; i++)
        detect_scratch_free(l->workers[i].scratch);
    while (l->first) {
        struct batch *b = l->first;
        l->first = b->next;
        free_batch(l, b);
    }
    loader_cache_fini(&l->cache);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    free(l->failures);
    free(l->listed);
    free(l);
}

/* --- asking and taking
 * -------------------------------------------------------- */

int loader_ask(struct loader *l, const int *photos, const uint64_t *seeds,
               int n, struct error *err)
{
    int n_photos = l->cache.dataset->n_photos;
    struct batch *b;

    if (n < 1)
        return error_set(err, ERR_BAD_FIELD, "loader: a batch of %d photos", n);
    for (int i = 0; i < n; i++)
        if (photos[i] < 0 || photos[i] >= n_photos)
            return error_set(err, ERR_BAD_FIELD,
                             "loader: photo %d of a dataset of %d", photos[i],
                             n_photos);
    b = calloc(1, sizeof(*b));
    if (b)
        b->items = calloc((size_t)n, sizeof(*b->items));
    if (!b || !b->items) {
        free(b);
        return error_set(err, ERR_NOMEM, "no memory for a batch of %d", n);
    }
    b->n = n;
    for (int i = 0; i < n; i++) {
        b->items[i].photo = photos[i];
        b->items[i].seed = seeds[i];
    }
    pthread_mutex_lock(&l->lock);
    *(l->first ? &l->last->next : &l->first) = b;
    l->last = b;
    l->n_batches++;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

int loader_outstanding(struct loader *l)
{
    return l->n_batches;
}

/* The oldest batch, whole, out of the list; NULL: there is none. */
static struct batch *wait_first(struct loader *l)
{
    struct batch *b;

    pthread_mutex_lock(&l->lock);
    b = l->first;
    while (b && b->n_done < b->n)
        pthread_cond_wait(&l->done, &l->lock);
    if (b) {
        l->first = b->next;
        l->n_batches--;
        pthread_cond_broadcast(&l->work); /* one more is worked on */
    }
    pthread_mutex_unlock(&l->lock);
    return b;
}

/* In the order of rows, so that the list does not depend on threads. */
static int list_failure(struct loader *l, int photo, struct error *err)
{
    const char *why;

    if (l->listed[photo])
        return 0;
    if (l->n_failures == l->room_failures) {
        int room = l->room_failures ? 2 * l->room_failures : 16;
        struct failure *list =
            realloc(l->failures, (size_t)room * sizeof(*list));
        if (!list)
            return error_set(err, ERR_NOMEM, "no memory for a list of photos");
        l->failures = list;
        l->room_failures = room;
    }
    pthread_mutex_lock(&l->cache.lock);
    why = l->cache.slots[photo].why; /* never changes once there */
    pthread_mutex_unlock(&l->cache.lock);
    l->listed[photo] = true;
    l->failures[l->n_failures++] =
        (struct failure){photo, why ? why : "no memory to say why"};
    return 0;
}

static int second_row(struct loader *l, struct item *it,
                      const struct contract *second, float *row,
                      struct error *err)
{
    struct augment_face room = {0};
    const struct augment_face *f;
    bool ahead = it->second && augment_same_crop(l->second, second);

    if (augment_same_crop(l->contract, second)) {
        align_scale(it->crop, second, row);
        return 0;
    }
    if (!ahead) {
        image_free(it->second);
        f = loader_cache_face(&l->cache, it->entry, &room, err);
        it->second =
            f ? augment_crop(f, &l->augment, it->seed, second, err) : NULL;
        augment_face_fini(&room);
    }
    if (!it->second)
        return -1;
    align_scale(it->second, second, row);
    return 0;
}

static int fill(struct loader *l, struct batch *b, float *out, bool *ok,
                const struct contract *second, float *out2, struct error *err)
{
    size_t len = (size_t)l->contract->width * (size_t)l->contract->height * 3;
    size_t len2 =
        second ? (size_t)second->width * (size_t)second->height * 3 : 0;

    for (int i = 0; i < b->n; i++) {
        struct item *it = &b->items[i];
        float *row = out + (size_t)i * len;
        float *row2 = out2 ? out2 + (size_t)i * len2 : NULL;
        if (it->why.code)
            return error_set(err, it->why.code, "%s: %s",
                             l->cache.dataset->photos[it->photo].path,
                             it->why.text);
        ok[i] = !it->bad;
        if (ok[i])
            align_scale(it->crop, l->contract, row);
        if (ok[i] && second && second_row(l, it, second, row2, err))
            return error_context(err, "%s",
                                 l->cache.dataset->photos[it->photo].path);
        if (ok[i])
            continue;
        memset(row, 0, len * sizeof(float));
        if (second)
            memset(row2, 0, len2 * sizeof(float));
        if (list_failure(l, it->photo, err))
            return -1;
    }
    return 0;
}

int loader_take(struct loader *l, float *out, bool *ok,
                const struct contract *second, float *out2, struct error *err)
{
    struct batch *b = wait_first(l);
    int rc;

    if (!b)
        return error_set(err, ERR_BAD_FIELD,
                         "loader: a batch is taken that was not asked for");
    rc = fill(l, b, out, ok, second, out2, err);
    free_batch(l, b);
    if (rc == 0 && l->n_failures > l->max_bad) {
        const struct failure *f = &l->failures[l->n_failures - 1];
        rc = error_set(err, ERR_BAD_FIELD,
                       "%d of %d photos cannot be used, more than %d; the "
                       "last, %s: %s",
                       l->n_failures, l->cache.dataset->n_photos, l->max_bad,
                       l->cache.dataset->photos[f->photo].path, f->why);
    }
    return rc;
}

const uint8_t *loader_hash(struct loader *l, int photo)
{
    struct loader_slot *slot = &l->cache.slots[photo];
    bool hashed;

    pthread_mutex_lock(&l->cache.lock);
    hashed = slot->hashed; /* and then stays as it is */
    pthread_mutex_unlock(&l->cache.lock);
    return hashed ? slot->hash : NULL;
}

int loader_failures(struct loader *l)
{
    return l->n_failures;
}

const char *loader_failure(struct loader *l, int i, const char **why)
{
    if (i < 0 || i >= l->n_failures)
        return NULL;
    if (why)
        *why = l->failures[i].why;
    return l->cache.dataset->photos[l->failures[i].photo].path;
}

/* --- raw or not
 * ---------------------------------------------------------------- */

struct look {
    int n_read, n_found, w, h;
    bool one_size;
    double shares[N_LOOKED_AT]; /* of the picture that the face's box fills */
};

static int look_at(const char *path, struct detect_scratch *s, struct look *k,
                   struct error *err)
{
    const struct detect_options usual = {0};
    struct error why = {0};
    struct image *img = picture_load(path, NULL, NULL, &why);
    struct face face;
    int rc = 0;

    if (!img)
        return loader_is_photos(why.code)
                   ? 0
                   : error_set(err, why.code, "%s: %s", path, why.text);
    if (k->n_read++ == 0) {
        k->w = img->w;
        k->h = img->h;
    }
    k->one_size &= img->w == k->w && img->h == k->h;
    if (loader_find_face(s, img, &usual, &face, &why) == 0)
        k->shares[k->n_found++] =
            (double)box_area(&face.box) / ((double)img->w * img->h);
    else if (!loader_is_photos(why.code))
        rc = error_set(err, why.code, "%s: %s", path, why.text);
    image_free(img);
    return rc;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int loader_looks_raw(const struct dataset *d, struct detector *detector,
                     bool *raw, struct error *err)
{
    struct look k = {.one_size = true};
    int n = d->n_photos < N_LOOKED_AT ? d->n_photos : N_LOOKED_AT, rc = 0;
    struct detect_scratch *s;

    *raw = false;
    if (!detector)
        return 0;
    s = detect_scratch_new(detector, err);
    if (!s)
        return -1;
    for (int i = 0; i < n && rc == 0; i++) {
        int photo = (int)((int64_t)i * d->n_photos / n);
        rc = look_at(d->photos[photo].path, s, &k, err);
    }
    detect_scratch_free(s);
    if (rc == 0 && k.n_read == 0)
        rc = error_set(err, ERR_BAD_FIELD,
                       "%s: none of %d photos that were looked at can be read",
                       d->dir ? d->dir : "dataset", n);
    if (rc)
        return -1;
    qsort(k.shares, (size_t)k.n_found, sizeof(double), by_size);
    *raw = !k.one_size || (2 * k.n_found >= k.n_read &&
                           k.shares[k.n_found / 2] < aligned_share);
    return 0;
}
