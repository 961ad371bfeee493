/* tools/ctl_evaluate.c - facenetctl evaluate: a list of pairs to accuracy,
 * VAL, EER and thresholds, for a person, as JSON, and as a plot; several
 * models one after another. */
#include "tools/ctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/engine/plugin.h"
#include "tools/ctl_parse.h"
#include "tools/measure.h"
#include "tools/plot.h"

enum {
    MOST_SKIPPED_SHOWN = 10
};

static const char usage[] =
    "usage: facenetctl evaluate --model M.onnx --pairs FILE --photos DIR\n"
    "  --model FILE       the embedding network, with its contract; up to\n"
    "                     eight times, to measure one after another\n"
    "  --detectors DIR    folder of detector_{p,r,o}net.onnx (the model's)\n"
    "  --pairs FILE       LFW's pairs.txt, or lines \"path1 path2 0|1\"\n"
    "  --photos DIR       what the paths of the list begin in\n"
    "  --threads N        that decode and detect (the cores)\n"
    "  --device D         what embeds: cpu, cuda, cuda:N or auto (cpu); faces\n"
    "                     are found by the processor in any case\n"
    "  --device-plugin P  the card's plugin, where it is not beside this\n"
    "                     program or installed\n"
    "  --precision P      auto, f32, bf16; on a card also f16, tf32 (auto)\n"
    "  --batch N          faces embedded at once (16)\n"
    "  --far RATE         false-accept rate of VAL (1e-3)\n"
    "  --min-face PIXELS  smallest face looked for (36)\n"
    "  --max-skipped PART pairs without a distance that are put up with "
    "(0.01)\n"
    "  --distance-metric N 0 squared L2, 1 angle over pi (0)\n"
    "  --use-flipped-images  a face's embedding is that of the face and that\n"
    "                     of its mirror image, side by side: distances are "
    "the\n"
    "                     sum of the two, about twice as large\n"
    "  --subtract-mean    of the other folds' embeddings, before distances\n"
    "  --plot FILE.svg    draw the ROC curves\n"
    "  --write            put thresholds at 1e-1 to 1e-4 into the model\n"
    "  --json             print one JSON object, an array for several models\n";

struct arguments {
    struct measure_options run; /* but for the model */
    const char *models[PLOT_MAX_SERIES];
    int n_models;
    const char *plot;
    bool json, write;
};

struct screen { /* the callbacks' state */
    struct ctl_progress progress;
    int n_skipped;
};

static void show_skipped(void *user, const char *photo, const struct error *why)
{
    struct screen *s = user;

    s->n_skipped++;
    if (s->n_skipped <= MOST_SKIPPED_SHOWN)
        fprintf(stderr, "%sskipped %s: %s\n",
                s->progress.terminal ? "\r\033[K" : "", photo, why->text);
    else if (s->n_skipped == MOST_SKIPPED_SHOWN + 1)
        fprintf(stderr, "%smore are skipped and not named\n",
                s->progress.terminal ? "\r\033[K" : "");
}

enum {
    ARG_MODEL = 256,
    ARG_DETECTORS,
    ARG_PAIRS,
    ARG_PHOTOS,
    ARG_THREADS,
    ARG_DEVICE,
    ARG_PLUGIN,
    ARG_PRECISION,
    ARG_BATCH,
    ARG_JSON,
    ARG_FAR,
    ARG_MIN_FACE,
    ARG_MAX_SKIPPED,
    ARG_WRITE,
    ARG_METRIC,
    ARG_FLIPPED,
    ARG_MEAN,
    ARG_PLOT
};

static bool take_flag(struct arguments *a, int which)
{
    bool *flag = which == ARG_FLIPPED ? &a->run.flipped
                 : which == ARG_MEAN  ? &a->run.subtract_mean
                 : which == ARG_JSON  ? &a->json
                 : which == ARG_WRITE ? &a->write
                                      : NULL;

    if (flag)
        *flag = true;
    return flag;
}

static bool take_argument(void *ctx, int which, const char *text)
{
    struct arguments *a = ctx;
    struct measure_options *o = &a->run;
    double v;

    switch (which) {
    case ARG_MODEL:
        if (a->n_models == PLOT_MAX_SERIES)
            return false;
        a->models[a->n_models++] = text;
        return true;
    case ARG_METRIC:
        if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
            return false;
        o->metric = *text == '1' ? EVALUATE_ANGLE : EVALUATE_L2;
        return true;
    case ARG_PLOT:
        a->plot = text;
        return true;
    case ARG_DETECTORS:
        o->detectors = text;
        return true;
    case ARG_PAIRS:
        o->pairs = text;
        return true;
    case ARG_PHOTOS:
        o->photos = text;
        return true;
    case ARG_DEVICE:
        o->device = text;
        return plugin_parse(text, &(int){0});
    case ARG_PLUGIN:
        o->plugin = text;
        return true;
    case ARG_PRECISION:
        return precision_parse(text, &o->precision);
    case ARG_THREADS:
        return ctl_parse_int(text, 1, 64, &o->n_threads);
    case ARG_BATCH:
        return ctl_parse_int(text, 1, 1024, &o->batch);
    case ARG_FAR:
        return ctl_parse_number(text, 1e-9, 0.5, &o->far);
    case ARG_MIN_FACE:
        if (!ctl_parse_number(text, 12, 1e5, &v))
            return false;
        o->min_face = (float)v;
        return true;
    case ARG_MAX_SKIPPED:
        if (!ctl_parse_number(text, 0, 1, &o->max_skipped))
            return false;
        if (o->max_skipped == 0)
            o->max_skipped = -1;
        return true;
    default:
        return take_flag(a, which);
    }
}

/* Before minutes of measuring, not after. */
static bool can_write_beside(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');

    snprintf(dir, sizeof(dir), "%.*s/", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    return access(dir, W_OK) == 0;
}

/* -1: go on, else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, ARG_MODEL},
        {"detectors", required_argument, NULL, ARG_DETECTORS},
        {"pairs", required_argument, NULL, ARG_PAIRS},
        {"photos", required_argument, NULL, ARG_PHOTOS},
        {"threads", required_argument, NULL, ARG_THREADS},
        {"device", required_argument, NULL, ARG_DEVICE},
        {"device-plugin", required_argument, NULL, ARG_PLUGIN},
        {"precision", required_argument, NULL, ARG_PRECISION},
        {"batch", required_argument, NULL, ARG_BATCH},
        {"json", no_argument, NULL, ARG_JSON},
        {"far", required_argument, NULL, ARG_FAR},
        {"min-face", required_argument, NULL, ARG_MIN_FACE},
        {"max-skipped", required_argument, NULL, ARG_MAX_SKIPPED},
        {"write", no_argument, NULL, ARG_WRITE},
        {"distance-metric", required_argument, NULL, ARG_METRIC},
        {"use-flipped-images", no_argument, NULL, ARG_FLIPPED},
        {"subtract-mean", no_argument, NULL, ARG_MEAN},
        {"plot", required_argument, NULL, ARG_PLOT},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int rc = ctl_parse_options(argc, argv, options, usage, take_argument, a);

    if (rc >= 0)
        return rc;
    if (optind < argc) {
        fprintf(stderr, "facenetctl: %s: not an option\n", argv[optind]);
        return CTL_ERROR;
    }
    if (!a->n_models || !a->run.pairs || !a->run.photos) {
        fputs(usage, stderr);
        return CTL_ERROR;
    }
    if (a->plot && !can_write_beside(a->plot))
        return ctl_fail("%s cannot be written: %s", a->plot, strerror(errno));
    if (a->write && (a->run.metric != EVALUATE_L2 || a->run.flipped ||
                     a->run.subtract_mean))
        return ctl_fail("--write takes no --distance-metric 1, "
                        "--use-flipped-images or --subtract-mean: a model's "
                        "thresholds are squared distances of single faces");
    return -1;
}

/* A name as it stands in JSON. */
static void print_name(const char *name)
{
    putchar('"');
    for (const char *p = ctl_safe(name); *p; p++)
        printf(*p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    putchar('"');
}

static void print_json(const struct measurement *m,
                       const struct measure_options *o)
{
    const struct evaluation *r = &m->result;

    printf("{\"accuracy\":{\"mean\":%.6f,\"std\":%.6f},"
           "\"val\":{\"mean\":%.6f,\"std\":%.6f,\"far\":%.8f},"
           "\"eer\":%.6f,\"threshold\":%.4f,\"pairs\":%d,\"skipped\":%d,"
           "\"auc\":%.6f,\"val_threshold\":%.6f,\"model\":",
           r->accuracy, r->accuracy_std, r->val, r->val_std, r->far, r->eer,
           r->threshold, m->n_pairs, m->n_skipped, r->auc, r->val_threshold);
    print_name(m->model);
    fputs(",\"device\":", stdout);
    print_name(m->device);
    printf(",\"precision\":\"%s\"", precision_name(m->precision));
    printf(",\"genuine\":%lld,\"impostor\":%lld,\"distance_metric\":%d,"
           "\"flipped\":%s,\"mean_subtracted\":%s,\"photos\":{\"all\":%d,"
           "\"missing\":%d,\"faceless\":%d,\"unreadable\":%d},"
           "\"thresholds\":[",
           (long long)r->n_genuine, (long long)r->n_impostor, (int)o->metric,
           o->flipped ? "true" : "false", o->subtract_mean ? "true" : "false",
           m->n_photos, m->n_missing, m->n_faceless, m->n_unread);
    for (int i = 0; i < m->n_thresholds; i++)
        printf("%s{\"far\":%g,\"threshold\":%.6f,\"pairs\":%lld,"
               "\"accepted\":%lld}",
               i ? "," : "", m->thresholds[i].far, m->thresholds[i].threshold,
               (long long)m->thresholds[i].n_impostor,
               (long long)m->thresholds[i].n_accepted);
    fputs("]}", stdout);
}

static void print_text(const struct measurement *m)
{
    const struct evaluation *r = &m->result;
    int n_faces = m->n_photos - m->n_missing - m->n_faceless - m->n_unread;
    double per_photo = m->n_photos > 0 ? 1e-3 / m->n_photos : 0;

    printf("Accuracy: %.4f+-%.4f at threshold %.3f\n", r->accuracy,
           r->accuracy_std, r->threshold);
    printf("VAL: %.4f+-%.4f @ FAR=%.5f at threshold %.3f\n", r->val, r->val_std,
           r->far, r->val_threshold);
    printf("EER: %.4f\n", r->eer);
    printf("AUC: %.5f\n", r->auc);
    printf("Pairs: %d (%lld same, %lld different), skipped: %d\n", m->n_pairs,
           (long long)r->n_genuine, (long long)r->n_impostor, m->n_skipped);
    printf("Photos: %d, missing: %d, without a face: %d, unreadable: %d\n",
           m->n_photos, m->n_missing, m->n_faceless, m->n_unread);
    for (int i = 0; i < m->n_thresholds; i++)
        printf("Threshold at FAR %g: %.4f (%lld of %lld accepted)\n",
               m->thresholds[i].far, m->thresholds[i].threshold,
               (long long)m->thresholds[i].n_accepted,
               (long long)m->thresholds[i].n_impostor);
    printf("Device: %s, precision: %s\n", m->device,
           precision_name(m->precision));
    printf("Per photo, ms: decode %.2f, detect %.2f, align %.2f, embed %.2f\n",
           (double)m->decode_us * per_photo, (double)m->detect_us * per_photo,
           (double)m->align_us * per_photo, (double)m->embed_us * per_photo);
    printf("Faces/s: %.1f (%.1f s in all)\n",
           m->wall_us > 0 ? n_faces * 1e6 / (double)m->wall_us : 0,
           (double)m->wall_us * 1e-6);
}

static int draw(const struct arguments *a, const struct measurement *m,
                struct error *err)
{
    char title[192], figures[PLOT_MAX_SERIES][160];
    struct plot p = {.title = title,
                     .abscissa = "false accepts (FAR, of different people)",
                     .ordinate = "true accepts (VAL, of the same person)",
                     .far = a->run.far > 0 ? a->run.far : 1e-3,
                     .n_series = a->n_models};

    snprintf(title, sizeof(title), "%s%s: %lld same, %lld different pairs",
             a->n_models == 1 ? m[0].model : "ROC",
             a->run.flipped ? ", with mirror images" : "",
             (long long)m[0].result.n_genuine,
             (long long)m[0].result.n_impostor);
    for (int i = 0; i < a->n_models; i++) {
        const struct evaluation *r = &m[i].result;
        snprintf(figures[i], sizeof(figures[i]),
                 "accuracy %.4f±%.4f, VAL %.4f±%.4f at FAR %.5f, EER %.4f, "
                 "AUC %.5f",
                 r->accuracy, r->accuracy_std, r->val, r->val_std, r->far,
                 r->eer, r->auc);
        p.series[i] =
            (struct plot_series){m[i].model, figures[i], m[i].roc, m[i].n_roc};
    }
    return plot_roc(&p, a->plot, err);
}

static int evaluate(const struct arguments *a, struct measurement *m)
{
    struct error err = {0};

    for (int i = 0; i < a->n_models; i++) {
        struct measure_options run = a->run;
        run.model = a->models[i];
        if (measure_run(&run, &m[i], &err))
            return ctl_fail_error(&err);
        if (a->write && m[i].n_thresholds == 0)
            return ctl_fail("%lld pairs of different people are too few for a "
                            "threshold: nothing is written",
                            (long long)m[i].result.n_impostor);
        if (a->write && model_write_thresholds(run.model, m[i].thresholds,
                                               m[i].n_thresholds, &err))
            return ctl_fail_error(&err);
    }
    if (a->plot && draw(a, m, &err))
        return ctl_fail_error(&err);
    if (a->json && a->n_models > 1)
        putchar('[');
    for (int i = 0; i < a->n_models; i++) {
        if (i > 0)
            putchar(a->json ? ',' : '\n');
        if (a->json) {
            print_json(&m[i], &a->run);
            continue;
        }
        if (a->n_models > 1)
            printf("Model: %s\n", ctl_safe(m[i].model));
        print_text(&m[i]);
    }
    if (a->json)
        puts(a->n_models > 1 ? "]" : "");
    return CTL_OK;
}

int ctl_evaluate(int argc, char **argv)
{
    struct arguments a = {0};
    struct screen screen = {.progress = {isatty(STDERR_FILENO)}};
    struct measurement m[PLOT_MAX_SERIES] = {0};
    int rc = parse(argc, argv, &a);

    if (rc >= 0)
        return rc;
    a.run.progress = ctl_show_progress;
    a.run.skipped = show_skipped;
    a.run.user = &screen;
    rc = evaluate(&a, m);
    for (int i = 0; i < a.n_models; i++)
        measure_fini(&m[i]);
    return rc;
}
