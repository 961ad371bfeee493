/* core/train/train_data.c - the photos of a run: those it learns from, those
 * it is measured on (people held out, and LFW-style pairs), the detector for
 * whole photos, and a loader for each. */
#include "core/train/train_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/train/random.h"

enum {
    HELD_PHOTOS = 1536, /* all pairs among them: up to 1.2 million */
    HELD_LEAST = 2,     /* photos of a person, where there are many people */
    HELD_MOST = 40
};

/* ---- detector ------------------------------------------------------------ */

/* Where detectors may stand: as told, else beside a model. */
static const char *detectors_beside(const struct train *t, char *buf,
                                    size_t len)
{
    const char *model =
        t->a->pretrained_model[0] ? t->a->pretrained_model : t->a->distill;
    const char *slash = strrchr(model, '/');

    if (t->a->detectors[0] || !model[0])
        return t->a->detectors;
    snprintf(buf, len, "%.*s", slash ? (int)(slash - model) : 1,
             slash ? model : ".");
    return buf;
}

static bool has_detectors(const char *dir)
{
    char path[TRAIN_MAX_PATH];
    struct stat st;

    snprintf(path, sizeof(path), "%s/detector_pnet.onnx", dir);
    return dir[0] && stat(path, &st) == 0;
}

static int load_detector(struct train *t, const char *dir, struct error *err)
{
    static const char *const names[3] = {"pnet", "rnet", "onet"};
    char path[TRAIN_MAX_PATH];

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/detector_%s.onnx", dir, names[i]);
        t->parts[i] = model_load(path, t->small, NULL, err);
        if (!t->parts[i])
            return error_context(err, "detectors");
    }
    t->detector =
        detector_new(t->small, t->parts[0], t->parts[1], t->parts[2], err);
    return t->detector ? 0 : -1;
}

/* Are the photos whole ones? Without a detector "auto" can only take them for
 * crops, and says so. */
static int decide_raw(struct train *t, struct error *err)
{
    char beside[TRAIN_ARG_MAX];
    const char *dir = detectors_beside(t, beside, sizeof(beside));
    bool automatic = strcmp(t->a->aligned, "auto") == 0;
    bool raw = false;

    if (strcmp(t->a->aligned, "yes") == 0)
        return 0;
    if (!t->a->detectors[0] && !has_detectors(dir)) {
        if (!automatic)
            return error_set(err, ERR_BAD_FIELD,
                             "detectors: a folder of detector_{p,r,o}net.onnx "
                             "is needed for photos that are not aligned");
        train_report_warn(t, "there are no detectors: the photos are taken as "
                             "faces that are cropped already");
        return 0;
    }
    if (load_detector(t, dir, err))
        return -1;
    raw = !automatic;
    if (automatic && loader_looks_raw(&t->data, t->detector, &raw, err))
        return -1;
    t->data.raw = t->held.data.raw = raw;
    return 0;
}

/* Pairs may be whole photos where the faces to learn from are crops. */
static int decide_lfw_raw(struct train *t, struct error *err)
{
    if (!t->detector || strcmp(t->a->aligned, "auto") != 0) {
        t->lfw.data.raw = t->data.raw;
        return 0;
    }
    return loader_looks_raw(&t->lfw.data, t->detector, &t->lfw.data.raw, err);
}

/* ---- what is measured ---------------------------------------------------- */

/* Some photos of the held-out people: of each about as many. */
static int choose_held(struct train *t, struct error *err)
{
    struct train_set *s = &t->held;
    const struct dataset *d = &s->data;
    int each = HELD_PHOTOS / d->n_people, people;
    uint64_t random = train_seed(t, TRAIN_SEED_HELD, 0);
    int *counts = malloc((size_t)d->n_people * sizeof(*counts)), *person;

    each = each < HELD_LEAST ? HELD_LEAST : each > HELD_MOST ? HELD_MOST : each;
    people = HELD_PHOTOS / each;
    s->photos = malloc((size_t)people * (size_t)each * sizeof(*s->photos));
    person = malloc((size_t)people * (size_t)each * sizeof(*person));
    if (counts && s->photos && person) {
        for (int i = 0; i < d->n_people; i++)
            counts[i] = d->people[i].n;
        s->n = triplet_sample(counts, d->n_people, people, each, &random,
                              person, s->photos);
        for (int i = 0; i < s->n; i++)
            s->photos[i] += d->people[person[i]].first;
    }
    free(counts);
    free(person);
    return s->n > 0 ? 0
                    : error_set(err, ERR_NOMEM,
                                "no memory to measure on %d "
                                "photos",
                                HELD_PHOTOS);
}

static int open_held(struct train *t, struct error *err)
{
    const struct train_args *a = t->a;

    if (a->holdout_dir[0]) {
        if (dataset_open(a->holdout_dir, &t->held.data, err))
            return error_context(err, "holdout_dir");
    } else if (a->holdout > 0) {
        if (dataset_split(&t->data, a->holdout,
                          train_seed(t, TRAIN_SEED_HOLDOUT, 0), &t->held.data,
                          err))
            return error_context(err, "holdout (0: nobody; or holdout_dir)");
    } else {
        train_report_warn(t, "holdout is 0: nobody is kept to measure the "
                             "model on");
        return 0;
    }
    return choose_held(t, err);
}

/* A dataset of one nameless person: the photos of the list. */
static int lfw_dataset(struct train *t, struct error *err)
{
    struct train_set *s = &t->lfw;
    struct dataset *d = &s->data;
    int n = s->pairs.n_photos;
    size_t len;

    d->dir = strdup(t->a->lfw_dir);
    d->people = calloc(1, sizeof(*d->people));
    d->photos = calloc((size_t)n + 1, sizeof(*d->photos));
    s->photos = malloc(((size_t)n + 1) * sizeof(*s->photos));
    if (!d->dir || !d->people || !d->photos || !s->photos)
        return error_set(err, ERR_NOMEM, "no memory for pairs");
    d->n_people = 1;
    d->people[0].n = n;
    d->people[0].name = strdup("");
    for (int i = 0; i < n; i++) {
        len = strlen(d->dir) + strlen(s->pairs.photos[i]) + 2;
        d->photos[i].path = malloc(len);
        if (!d->photos[i].path || !d->people[0].name)
            return error_set(err, ERR_NOMEM, "no memory for pairs");
        snprintf(d->photos[i].path, len, "%s/%s", d->dir, s->pairs.photos[i]);
        d->n_photos = i + 1;
        s->photos[i] = i;
    }
    s->n = n;
    return 0;
}

static int open_lfw(struct train *t, struct error *err)
{
    struct stat st;

    if (!t->a->lfw_dir[0])
        return 0;
    if (stat(t->a->lfw_dir, &st) || !S_ISDIR(st.st_mode))
        return error_set(err, ERR_BAD_FIELD, "lfw_dir: '%.120s' is no folder",
                         t->a->lfw_dir);
    if (pairs_load(t->a->lfw_pairs, &t->lfw.pairs, err))
        return error_context(err, "lfw_pairs");
    if (lfw_dataset(t, err))
        return -1;
    return decide_lfw_raw(t, err);
}

/* ---- loaders ------------------------------------------------------------- */

/* Memory is shared by the number of photos. */
static struct loader *new_loader(struct train *t, const struct dataset *d,
                                 int n_used, bool learns, struct error *err)
{
    double all = (double)t->data.n_photos + t->held.n + t->lfw.n;
    double bytes = t->a->memory_mib * 1048576.0 * n_used / all;
    struct loader_options opt = {
        .dataset = d,
        .contract = &t->contract,
        .second = learns && t->teacher ? &t->teacher->contract : NULL,
        .detector = d->raw ? t->detector : NULL,
        .augment = learns ? &t->augment : NULL,
        .n_threads = t->a->threads > 64 ? 64 : t->a->threads,
        .max_bytes = bytes < 1 ? 1 : (int64_t)bytes,
        .ahead = TRAIN_AHEAD,
    };

    return loader_new(&opt, err);
}

int train_data_open(struct train *t, struct error *err)
{
    const struct train_args *a = t->a;

    if (augment_parse(a->augment, &t->augment, err))
        return error_context(err, "augment");
    t->augment.random_crop = t->augment.random_crop || a->random_crop;
    t->augment.random_flip = t->augment.random_flip || a->random_flip;
    if (dataset_open(a->data_dir, &t->data, err))
        return error_context(err, "data_dir");
    if (open_held(t, err) || decide_raw(t, err) || open_lfw(t, err))
        return -1;
    t->loader = new_loader(t, &t->data, t->data.n_photos, true, err);
    if (!t->loader)
        return -1;
    if (t->held.n > 0 &&
        !(t->held.loader = new_loader(t, &t->held.data, t->held.n, false, err)))
        return -1;
    if (t->lfw.n > 0 &&
        !(t->lfw.loader = new_loader(t, &t->lfw.data, t->lfw.n, false, err)))
        return -1;
    return 0;
}

static void set_fini(struct train_set *s)
{
    loader_free(s->loader);
    dataset_fini(&s->data);
    pairs_fini(&s->pairs);
    free(s->photos);
}

void train_data_fini(struct train *t)
{
    loader_free(t->loader);
    set_fini(&t->held);
    set_fini(&t->lfw);
    dataset_fini(&t->data);
    free(t->order);
}
