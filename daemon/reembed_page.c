/* daemon/reembed_page.c - faces that a model has not embedded, a page at a
 * time: kept crop -> decode -> align by the new contract, with the points that
 * were found when it was enrolled -> network -> record. */
#include "daemon/reembed_priv.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/face/align.h"

enum {
    PAGE = 8,  /* faces of one commit */
    ROUND = 4, /* of one run of the network */
    NICE = 5,  /* a quarter of a processor that requests fill */
    PAUSE_STEP_MS = 20,
    COUNT_S = 5 /* between looks at how many are left */
};

static int64_t us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool stopped(const struct catch_up *k)
{
    return atomic_load(k->generation) != k->began;
}

void course_reset(struct course *c, const char *id)
{
    memmove(c->id, id, strlen(id) + 1);
    c->after = 0;
    c->done = false;
    c->n_unusable = 0;
    c->why.code = ERR_NONE;
}

static int course_unusable(struct course *c, int64_t face,
                           const struct error *why, struct error *err)
{
    if (c->n_unusable == c->cap_unusable) {
        int cap = c->cap_unusable ? 2 * c->cap_unusable : 16;
        int64_t *more = realloc(c->unusable, (size_t)cap * sizeof(*more));
        if (!more)
            return error_set(err, ERR_NOMEM, "no memory for a list of faces");
        c->unusable = more;
        c->cap_unusable = cap;
    }
    if (c->n_unusable == 0) {
        c->why = *why;
        error_context(&c->why, "face %lld", (long long)face);
    }
    c->unusable[c->n_unusable++] = face;
    return 0;
}

/* --- the network -------------------------------------------------------- */

void embed_kit_fini(struct embed_kit *kit)
{
    runner_free(kit->runner);
    if (kit->device)
        kit->device->backend->device_close(kit->device);
    memset(kit, 0, sizeof(*kit));
}

/* In the arithmetic that requests will get. */
static int kit_for(struct catch_up *k, struct error *err)
{
    struct device_options one = {.n_threads = 1};
    struct embed_kit *kit = k->kit;

    if (kit->runner &&
        strcmp(runner_model(kit->runner)->id, k->course->id) == 0)
        return 0;
    embed_kit_fini(kit);
    kit->device = backend_cpu.device_open(&one, err);
    if (!kit->device)
        return -1;
    kit->runner = servings_runner(k->opt->servings, k->course->id, kit->device,
                                  ROUND, err);
    return kit->runner ? 0 : -1;
}

/* --- one page ----------------------------------------------------------- */

struct page {
    int64_t ids[PAGE];
    struct error why[PAGE]; /* unusable; else ERR_NONE */
    float *chips[PAGE];     /* NULL: unusable, or gone */
    float *rows;            /* [PAGE,dim] */
    int n;
};

/* A margin in pixels of the photo is one in pixels of a crop that was made
 * smaller. */
static int fit_margin(const struct catch_up *k, int64_t face,
                      const struct box *inner, struct contract *c,
                      struct error *err)
{
    struct store_face f;
    float w;

    if (c->crop != CROP_BOX_MARGIN)
        return 0;
    if (store_face_get(k->opt->store, face, &f, err) != 0)
        return -1;
    w = f.box[2] - f.box[0];
    if (w > 0 && inner->x1 > inner->x0)
        c->crop_margin =
            (int)lroundf((float)c->crop_margin * (inner->x1 - inner->x0) / w);
    return 0;
}

/* Its aligned pixels as the network's numbers. */
static float *read_chip(const struct catch_up *k, int64_t id, struct error *err)
{
    struct contract c = runner_model(k->kit->runner)->contract;
    struct image_limits limits = {.min_side = 1};
    struct image *img = NULL, *crop = NULL;
    struct face face = {.score = 1};
    float box[4], *chip = NULL;
    uint8_t *jpeg;
    size_t len;

    if (store_face_crop(k->opt->store, id, &jpeg, &len, box,
                        (float *)face.points, err) != 0)
        return NULL;
    face.box = (struct box){box[0], box[1], box[2], box[3]};
    if (fit_margin(k, id, &face.box, &c, err) == 0)
        img = image_decode(jpeg, len, &limits, err);
    if (img)
        crop = align_crop(img, &face, &c, err);
    if (crop) {
        chip = tensor_alloc(3 * (size_t)c.width * (size_t)c.height);
        if (chip)
            align_scale(crop, &c, chip);
        else
            error_set(err, ERR_NOMEM, "no memory for a face");
    }
    image_free(crop);
    image_free(img);
    free(jpeg);
    return chip;
}

/* A fault of the moment; else the crop is to blame. */
static bool is_passing(const struct catch_up *k, enum error_code code)
{
    if (code == ERR_STORAGE)
        return store_failed(k->opt->store);
    return error_retryable(code);
}

static int read_chips(struct catch_up *k, struct page *p, struct error *err)
{
    for (int i = 0; i < p->n; i++) {
        struct error why = {.code = ERR_NONE};
        p->chips[i] = read_chip(k, p->ids[i], &why);
        if (p->chips[i] || why.code == ERR_NO_FACE_ID)
            continue; /* one that was erased meanwhile is no matter */
        if (is_passing(k, why.code)) {
            *err = why;
            return -1;
        }
        p->why[i] = why;
    }
    return 0;
}

/* Leave the processor to requests for as long as it was taken from them. */
static void make_room(const struct catch_up *k, int64_t took_us)
{
    int64_t until = us(CLOCK_MONOTONIC) + took_us;

    while (!k->hurry && atomic_load(k->opt->busy) > 0 && !stopped(k)) {
        int64_t left = until - us(CLOCK_MONOTONIC);
        struct timespec t;
        if (left <= 0)
            return;
        if (left > PAUSE_STEP_MS * 1000)
            left = PAUSE_STEP_MS * 1000;
        t = (struct timespec){.tv_nsec = (long)left * 1000};
        nanosleep(&t, NULL);
    }
}

static int run_network(struct catch_up *k, struct page *p, struct error *err)
{
    int dim = runner_model(k->kit->runner)->contract.dim;

    for (int from = 0; from < p->n;) {
        const float *chips[ROUND];
        float out[ROUND * (size_t)MODEL_MAX_DIM];
        int at[ROUND], n = 0, bad = 0;
        int64_t began = us(CLOCK_THREAD_CPUTIME_ID);
        for (; from < p->n && n < ROUND; from++) {
            if (!p->chips[from])
                continue;
            at[n] = from;
            chips[n++] = p->chips[from];
        }
        if (n == 0)
            break;
        if (runner_run(k->kit->runner, chips, n, out, &bad, err) != 0)
            return -1;
        for (int i = 0; i < n; i++) {
            memcpy(p->rows + (size_t)at[i] * (size_t)dim,
                   out + (size_t)i * (size_t)dim, (size_t)dim * sizeof(*out));
            if (isnan(out[(size_t)i * (size_t)dim]))
                error_set(&p->why[at[i]], ERR_DEVICE,
                          "the network gave no usable embedding");
        }
        make_room(k, us(CLOCK_THREAD_CPUTIME_ID) - began);
    }
    return 0;
}

static int keep_vectors(struct catch_up *k, const struct page *p,
                        struct error *err)
{
    int dim = runner_model(k->kit->runner)->contract.dim, n = 0, n_added = 0;
    struct store_vector vectors[PAGE];

    for (int i = 0; i < p->n; i++) {
        if (p->why[i].code != ERR_NONE) {
            if (course_unusable(k->course, p->ids[i], &p->why[i], err) != 0)
                return -1;
        } else if (p->chips[i]) {
            vectors[n++] = (struct store_vector){
                p->ids[i], p->rows + (size_t)i * (size_t)dim};
        }
    }
    if (store_embeddings_add(k->opt->store, k->course->id, dim, vectors, n,
                             &n_added, err) != 0)
        return -1;
    atomic_fetch_add(k->n_embedded, n_added);
    return 0;
}

static int embed_page(struct catch_up *k, struct page *p, struct error *err)
{
    int rc = -1;

    if (kit_for(k, err) != 0)
        return -1;
    p->rows = calloc(PAGE, (size_t)runner_model(k->kit->runner)->contract.dim *
                               sizeof(*p->rows));
    if (!p->rows)
        error_set(err, ERR_NOMEM, "no memory for embeddings");
    else if (read_chips(k, p, err) == 0 && run_network(k, p, err) == 0)
        rc = keep_vectors(k, p, err);
    for (int i = 0; i < p->n; i++)
        free(p->chips[i]);
    free(p->rows);
    return rc;
}

/* 1: there may be more, 0: the end, -1. */
static int advance(struct catch_up *k, struct error *err)
{
    struct course *c = k->course;
    struct page *p = calloc(1, sizeof(*p));
    int64_t before = c->after;
    int n_unusable = c->n_unusable, rc;
    bool end;

    if (!p)
        return error_set(err, ERR_NOMEM, "no memory for a page of faces");
    rc = store_missing_walk(k->opt->store, c->id, &c->after, p->ids, PAGE,
                            &p->n, &end, err);
    if (rc == 0 && p->n > 0)
        rc = embed_page(k, p, err);
    free(p);
    if (rc == 0)
        return !end;
    c->after = before;
    c->n_unusable = n_unusable;
    return -1;
}

/* --- the thread --------------------------------------------------------- */

struct niced {
    struct catch_up *k;
    struct error *err;
    int rc;
};

struct progress {
    int64_t looked_us, n_left;
};

/* Are there no fewer left than the last time? */
static bool is_behind(struct catch_up *k, struct progress *p)
{
    struct store_missing missing;
    int64_t now = us(CLOCK_MONOTONIC), before = p->n_left;

    if (k->hurry || now - p->looked_us < COUNT_S * INT64_C(1000000) ||
        store_missing_count(k->opt->store, k->course->id, &missing, NULL) != 0)
        return false;
    p->looked_us = now;
    p->n_left = missing.n;
    return before > 0 && missing.n >= before;
}

/* A niced thread cannot become an ordinary one again, and those that it
 * starts are niced like it: so it ends with its work. */
static void *niced_main(void *arg)
{
    struct niced *n = arg;
    struct catch_up *k = n->k;
    struct progress p = {.looked_us = us(CLOCK_MONOTONIC)};
    int more = 1;

    /* Where that is not allowed, the pauses still make room. */
    if (!k->hurry)
        setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    n->rc = CATCH_UP_STOPPED;
    while (more > 0 && !stopped(k)) {
        more = advance(k, n->err);
        if (more > 0 && is_behind(k, &p)) {
            n->rc = CATCH_UP_BEHIND;
            return NULL;
        }
    }
    k->course->done = more == 0;
    if (more <= 0)
        n->rc = more < 0 ? -1 : CATCH_UP_END;
    return NULL;
}

int reembed_catch_up(struct catch_up *k, struct error *err)
{
    struct niced n = {.k = k, .err = err};
    pthread_t thread;

    if (pthread_create(&thread, NULL, niced_main, &n) != 0)
        return error_set(err, ERR_NOMEM, "cannot start a thread to embed");
    pthread_join(thread, NULL);
    return n.rc;
}
