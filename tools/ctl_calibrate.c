/* tools/ctl_calibrate.c - facenetctl calibrate: a folder of people, or the
 * gallery of a daemon (ctl_calibrate_ask.c), every pair of their faces, and the
 * thresholds at which few strangers pass for one person; into the model, for a
 * person, or as JSON. */
#include "tools/ctl.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/face/embed.h"
#include "core/train/calibrate.h"
#include "core/train/loader.h"
#include "core/train/picture.h"
#include "tools/ctl_calibrate.h"
#include "tools/ctl_parse.h"
#include "tools/measure.h"

enum {
    MOST_FAILURES_SHOWN = 10,
    CACHE_BYTES = 64 << 20 /* every photo is wanted once */
};

static const char usage[] =
    "usage: facenetctl calibrate --model M.onnx --photos DIR[:DIR]...\n"
    "       facenetctl calibrate --gallery ID [--apply]\n"
    "  --model FILE       the embedding network, with its contract\n"
    "  --photos DIRS      folders of people: DIR/PERSON/photo.jpg\n"
    "  --far LIST         false-accept rates, with commas between (of 1e-1,\n"
    "                     1e-2, 1e-3, 1e-4 those that the pairs can show)\n"
    "  --cropped yes|no   are the photos cropped faces (found out)\n"
    "  --detectors DIR    folder of detector_{p,r,o}net.onnx (the model's)\n"
    "  --threads N        that decode and detect (the cores)\n"
    "  --precision P      auto, f32 or bf16 (auto)\n"
    "  --batch N          faces embedded at once (16)\n"
    "  --min-face PIXELS  smallest face looked for (36)\n"
    "  --max-bad N        photos that may fail (a tenth of them)\n"
    "  --write            put the thresholds into the model\n"
    "  --json             print one JSON object\n"
    "of a daemon's enrolled faces, with --far and --json as above:\n"
    "  --gallery ID       whose subjects are the people\n"
    "  --apply            put the thresholds in force there\n"
    "  --server URL, --key KEY, --key-file FILE, --cacert FILE\n"
    "                     as of verify; the key needs the right admin\n";

struct arguments {
    struct measure_options run; /* model, detectors, batch, precision … */
    const char *photos;
    struct ctl_calibrate_ask ask; /* where gallery is given */
    double far[CALIBRATE_MAX_RATES];
    int n_far, max_bad;
    int cropped; /* -1: to be found out */
    bool json, write;
};

struct faces {
    float *rows; /* [n,dim] */
    int *person; /* [n] */
    int n, dim;
    int n_copies, n_bad; /* photos left out; faces without an embedding */
};

enum {
    ARG_MODEL = 256,
    ARG_PHOTOS,
    ARG_FAR,
    ARG_CROPPED,
    ARG_DETECTORS,
    ARG_THREADS,
    ARG_PRECISION,
    ARG_BATCH,
    ARG_MIN_FACE,
    ARG_MAX_BAD,
    ARG_WRITE,
    ARG_JSON,
    ARG_GALLERY,
    ARG_APPLY,
    ARG_SERVER,
    ARG_KEY,
    ARG_KEY_FILE,
    ARG_CA
};

static bool parse_rates(const char *text, struct arguments *a)
{
    a->n_far = 0;
    for (char *end;; text = end + 1) {
        double v = strtod(text, &end);
        if (end == text || a->n_far == CALIBRATE_MAX_RATES)
            return false;
        a->far[a->n_far++] = v;
        if (*end != ',')
            return *end == '\0';
    }
}

static bool take_daemon_argument(struct arguments *a, int which,
                                 const char *text)
{
    switch (which) {
    case ARG_GALLERY:
        a->ask.gallery = text;
        return true;
    case ARG_APPLY:
        a->ask.apply = true;
        return true;
    case ARG_SERVER:
        a->ask.server = text;
        return true;
    case ARG_KEY:
        a->ask.key = text;
        return true;
    case ARG_KEY_FILE:
        a->ask.key_file = text;
        return true;
    case ARG_CA:
        a->ask.ca_file = text;
        return true;
    default:
        return false;
    }
}

static bool take_argument(void *ctx, int which, const char *text)
{
    struct arguments *a = ctx;
    struct measure_options *o = &a->run;
    double v;

    switch (which) {
    case ARG_MODEL:
        o->model = text;
        return true;
    case ARG_PHOTOS:
        a->photos = text;
        return true;
    case ARG_FAR:
        return parse_rates(text, a);
    case ARG_CROPPED:
        a->cropped = strcmp(text, "yes") == 0;
        return a->cropped || strcmp(text, "no") == 0;
    case ARG_DETECTORS:
        o->detectors = text;
        return true;
    case ARG_PRECISION:
        return ctl_parse_precision(text, &o->precision);
    case ARG_THREADS:
        return ctl_parse_int(text, 1, 64, &o->n_threads);
    case ARG_BATCH:
        return ctl_parse_int(text, 1, 1024, &o->batch);
    case ARG_MIN_FACE:
        if (!ctl_parse_number(text, 12, 1e5, &v))
            return false;
        o->min_face = (float)v;
        return true;
    case ARG_MAX_BAD:
        if (!ctl_parse_int(text, 0, DATASET_MAX_PHOTOS, &a->max_bad))
            return false;
        a->max_bad = a->max_bad ? a->max_bad : -1;
        return true;
    case ARG_WRITE:
        a->write = true;
        return true;
    case ARG_JSON:
        a->json = true;
        return true;
    default:
        return take_daemon_argument(a, which, text);
    }
}

static const struct option options[] = {
    {"model", required_argument, NULL, ARG_MODEL},
    {"photos", required_argument, NULL, ARG_PHOTOS},
    {"far", required_argument, NULL, ARG_FAR},
    {"cropped", required_argument, NULL, ARG_CROPPED},
    {"detectors", required_argument, NULL, ARG_DETECTORS},
    {"threads", required_argument, NULL, ARG_THREADS},
    {"precision", required_argument, NULL, ARG_PRECISION},
    {"batch", required_argument, NULL, ARG_BATCH},
    {"min-face", required_argument, NULL, ARG_MIN_FACE},
    {"max-bad", required_argument, NULL, ARG_MAX_BAD},
    {"write", no_argument, NULL, ARG_WRITE},
    {"json", no_argument, NULL, ARG_JSON},
    {"gallery", required_argument, NULL, ARG_GALLERY},
    {"apply", no_argument, NULL, ARG_APPLY},
    {"server", required_argument, NULL, ARG_SERVER},
    {"key", required_argument, NULL, ARG_KEY},
    {"key-file", required_argument, NULL, ARG_KEY_FILE},
    {"cacert", required_argument, NULL, ARG_CA},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

/* -1: go on, else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
    int rc = ctl_parse_options(argc, argv, options, usage, take_argument, a);

    if (rc >= 0)
        return rc;
    if (optind < argc)
        return ctl_fail("%s: not an option", argv[optind]);
    if (a->ask.gallery && (a->run.model || a->photos || a->write))
        return ctl_fail("--gallery is the daemon's own: it takes no --model, "
                        "--photos or --write");
    if (!a->ask.gallery && a->ask.apply)
        return ctl_fail("--apply goes with --gallery; --write puts thresholds "
                        "into a model's file");
    if (!a->ask.gallery && (!a->run.model || !a->photos)) {
        fputs(usage, stderr);
        return CTL_ERROR;
    }
    return -1;
}

/* --- folders to embeddings
 * --------------------------------------------------- */

static int ask_all(struct loader *l, int n_photos, int batch, struct error *err)
{
    int *photos = malloc((size_t)batch * sizeof(*photos));
    uint64_t *seeds = calloc((size_t)batch, sizeof(*seeds));
    int rc = 0;

    if (!photos || !seeds)
        rc = error_set(err, ERR_NOMEM, "no memory for a batch");
    for (int i = 0; rc == 0 && i < n_photos; i += batch) {
        int n = n_photos - i < batch ? n_photos - i : batch;
        for (int k = 0; k < n; k++)
            photos[k] = i + k;
        rc = loader_ask(l, photos, seeds, n, err);
    }
    free(photos);
    free(seeds);
    return rc;
}

struct batch {
    float *chips;        /* [n,3,h,w] */
    const float **given; /* [n] */
    float *rows;         /* [n,dim] */
    bool *ok;
};

/* Of an earlier photo of the person: a pair that says nothing. */
static bool is_copy(struct loader *l, const struct dataset *d, int photo)
{
    int i = d->people[d->photos[photo].person].first;
    const uint8_t *own = loader_hash(l, photo);

    for (; own && i < photo; i++) {
        const uint8_t *other = loader_hash(l, i);
        if (other && memcmp(own, other, PICTURE_HASH_LEN) == 0)
            return true;
    }
    return false;
}

/* One batch of the loader into faces; first: of its photos. */
static int take_batch(struct loader *l, struct embedder *e,
                      const struct dataset *d, const struct contract *c,
                      const struct batch *b, int first, int n,
                      struct faces *out, struct error *err)
{
    size_t chip = 3 * (size_t)c->width * (size_t)c->height;
    size_t dim = (size_t)out->dim;
    int n_given = 0, bad = 0;

    if (loader_take(l, b->chips, b->ok, NULL, NULL, err))
        return -1;
    for (int k = 0; k < n; k++)
        if (b->ok[k])
            b->given[n_given++] = b->chips + (size_t)k * chip;
    if (n_given && embedder_run(e, b->given, n_given, b->rows, &bad, err))
        return -1;
    n_given = 0;
    for (int k = 0; k < n; k++) {
        const float *row = b->rows + (size_t)n_given * dim;
        if (!b->ok[k])
            continue;
        n_given++;
        if (isnan(row[0])) {
            out->n_bad++;
        } else if (is_copy(l, d, first + k)) {
            out->n_copies++;
        } else {
            memcpy(out->rows + (size_t)out->n * dim, row, dim * sizeof(float));
            out->person[out->n++] = d->photos[first + k].person;
        }
    }
    return 0;
}

static int embed_all(const struct arguments *a, const struct dataset *d,
                     struct loader *l, const struct measure_parts *parts,
                     struct faces *out, struct error *err)
{
    const struct contract *c = &parts->model->contract;
    int size = embedder_batch_max(parts->embedder), rc = -1;
    size_t n = (size_t)size, dim = (size_t)out->dim;
    struct batch b = {
        malloc(n * 3 * (size_t)c->width * (size_t)c->height * sizeof(float)),
        malloc(n * sizeof(float *)), malloc(n * dim * sizeof(float)),
        malloc(n * sizeof(bool))};

    if (!b.chips || !b.given || !b.rows || !b.ok)
        error_set(err, ERR_NOMEM, "no memory for a batch");
    else
        rc = ask_all(l, d->n_photos, size, err);
    for (int i = 0; rc == 0 && i < d->n_photos; i += size) {
        int some = d->n_photos - i < size ? d->n_photos - i : size;
        rc = take_batch(l, parts->embedder, d, c, &b, i, some, out, err);
        a->run.progress(a->run.user, i + some, d->n_photos);
    }
    free(b.chips);
    free(b.given);
    free(b.rows);
    free(b.ok);
    return rc;
}

static void show_failures(struct loader *l, const struct faces *f)
{
    int n = loader_failures(l);
    const char *why;

    for (int i = 0; i < n && i < MOST_FAILURES_SHOWN; i++) {
        const char *path = loader_failure(l, i, &why);
        fprintf(stderr, "skipped %s: %s\n", ctl_safe(path), why);
    }
    if (n > MOST_FAILURES_SHOWN)
        fprintf(stderr, "%d more are skipped and not named\n",
                n - MOST_FAILURES_SHOWN);
    if (f->n_copies > 0)
        fprintf(stderr,
                "left out, as copies of photos of the same person: %d\n",
                f->n_copies);
    if (f->n_bad > 0)
        fprintf(stderr, "left out, as the network gives no embedding: %d\n",
                f->n_bad);
}

static int embed_folder(const struct arguments *a, struct dataset *d,
                        const struct measure_parts *parts, struct faces *out,
                        struct error *err)
{
    struct loader_options opt = {.dataset = d,
                                 .contract = &parts->model->contract,
                                 .detect = {.min_face = a->run.min_face},
                                 .n_threads = a->run.n_threads,
                                 .max_bytes = CACHE_BYTES,
                                 .max_bad = a->max_bad};
    struct loader *l;
    int rc;

    d->raw = a->cropped == 0;
    if (a->cropped < 0 && loader_looks_raw(d, parts->detector, &d->raw, err))
        return -1;
    opt.detector = d->raw ? parts->detector : NULL;
    out->dim = embedder_dim(parts->embedder);
    out->rows = malloc((size_t)d->n_photos * (size_t)out->dim * sizeof(float));
    out->person = malloc((size_t)d->n_photos * sizeof(int));
    if (!out->rows || !out->person)
        return error_set(err, ERR_NOMEM, "no memory for %d embeddings",
                         d->n_photos);
    l = loader_new(&opt, err);
    if (!l)
        return -1;
    rc = embed_all(a, d, l, parts, out, err);
    show_failures(l, out);
    loader_free(l);
    return rc;
}

/* --- output -------------------------------------------------------------- */

static void print_json(const struct calibration *c, const char *id, bool raw)
{
    printf("{\"model\":\"%s\",\"detected\":%s,\"faces\":%d,\"people\":%d,"
           "\"people_paired\":%d,\"genuine\":%lld,\"impostor\":%lld,"
           "\"interval\":\"wilson 0.95\",\"thresholds\":[",
           id, raw ? "true" : "false", c->n_faces, c->n_people, c->n_paired,
           (long long)c->n_genuine, (long long)c->n_impostor);
    for (int i = 0; i < c->n_rates; i++) {
        const struct calibrate_rate *r = &c->rates[i];
        printf("%s{\"far\":%g,\"threshold\":%.6f,\"accepted\":%lld,"
               "\"far_measured\":%.9g,\"far_low\":%.9g,\"far_high\":%.9g,",
               i ? "," : "", r->far, r->threshold, (long long)r->n_accepted,
               r->far_measured, r->far_low, r->far_high);
        if (isnan(r->frr))
            printf("\"rejected\":0,\"frr\":null,\"frr_low\":null,"
                   "\"frr_high\":null}");
        else
            printf("\"rejected\":%lld,\"frr\":%.9g,\"frr_low\":%.9g,"
                   "\"frr_high\":%.9g}",
                   (long long)r->n_rejected, r->frr, r->frr_low, r->frr_high);
    }
    puts("]}");
}

void ctl_calibrate_print(const struct calibration *c, const char *where)
{
    printf("Faces: %d of %d people, %d of them with two or more (%s)\n",
           c->n_faces, c->n_people, c->n_paired, where);
    printf("Pairs: %lld genuine, %lld impostor\n", (long long)c->n_genuine,
           (long long)c->n_impostor);
    printf("%-8s  %9s  %-35s  %s\n", "FAR", "threshold",
           "false accepts (95 % interval)", "VAL (95 % interval)");
    for (int i = 0; i < c->n_rates; i++) {
        const struct calibrate_rate *r = &c->rates[i];
        char counted[32];
        snprintf(counted, sizeof(counted), "%lld", (long long)r->n_accepted);
        printf("%-8g  %9.4f  %8s: %.2e (%.1e..%.1e)  ", r->far, r->threshold,
               counted, r->far_measured, r->far_low, r->far_high);
        if (isnan(r->frr))
            puts("no pairs");
        else
            printf("%.4f (%.4f..%.4f)\n", 1 - r->frr, 1 - r->frr_high,
                   1 - r->frr_low);
    }
    puts("Intervals are Wilson's and take pairs as independent; of few people "
         "they are too narrow.");
}

int ctl_calibrate(int argc, char **argv)
{
    struct arguments a = {.cropped = -1};
    struct ctl_progress screen = {.terminal = isatty(STDERR_FILENO)};
    struct measure_parts parts = {0};
    struct dataset data = {0};
    struct faces faces = {0};
    struct model_threshold thresholds[MODEL_MAX_THRESHOLDS];
    struct calibrate_options how = {.far = a.far};
    struct calibration c;
    struct error err = {0};
    int rc = parse(argc, argv, &a);

    if (rc >= 0)
        return rc;
    if (a.ask.gallery) {
        a.ask.far = a.far;
        a.ask.n_far = a.n_far;
        a.ask.json = a.json;
        return ctl_calibrate_ask(&a.ask);
    }
    how.n_far = a.n_far;
    a.run.progress = ctl_show_progress;
    a.run.user = &screen;
    if (dataset_open(a.photos, &data, &err) ||
        measure_load(&a.run, &parts, &err) ||
        embed_folder(&a, &data, &parts, &faces, &err) ||
        calibrate_faces(faces.rows, faces.person, faces.n, faces.dim, &how, &c,
                        &err) ||
        (a.write &&
         model_write_thresholds(a.run.model, thresholds,
                                calibrate_thresholds(&c, thresholds), &err)))
        rc = ctl_fail_error(&err);
    else if (a.json)
        print_json(&c, parts.model->id, data.raw);
    else
        ctl_calibrate_print(&c,
                            data.raw ? "found in photos" : "cropped already");
    free(faces.rows);
    free(faces.person);
    measure_unload(&parts);
    dataset_fini(&data);
    return rc < 0 ? CTL_OK : rc;
}
