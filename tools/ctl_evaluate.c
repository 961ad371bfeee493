/* tools/ctl_evaluate.c - facenetctl evaluate: a list of pairs to accuracy,
 * VAL, EER and thresholds, for a person or as one JSON object. */
#include "tools/ctl.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/measure.h"

enum {
    MOST_SKIPPED_SHOWN = 10,
    BAR = 40
};

static const char usage[] =
    "usage: facenetctl evaluate --model M.onnx --pairs FILE --photos DIR\n"
    "  --model FILE       the embedding network, with its contract\n"
    "  --detectors DIR    folder of detector_{p,r,o}net.onnx (the model's)\n"
    "  --pairs FILE       LFW's pairs.txt, or lines \"path1 path2 0|1\"\n"
    "  --photos DIR       what the paths of the list begin in\n"
    "  --threads N        that decode and detect (the cores)\n"
    "  --precision P      auto, f32 or bf16 (auto)\n"
    "  --batch N          faces embedded at once (16)\n"
    "  --far RATE         false-accept rate of VAL (1e-3)\n"
    "  --min-face PIXELS  smallest face looked for (36)\n"
    "  --max-skipped PART pairs without a distance that are put up with "
    "(0.01)\n"
    "  --write            put thresholds at 1e-1, 1e-2, 1e-3 into the model\n"
    "  --json             print one JSON object\n";

struct arguments {
    struct measure_options run;
    bool json, write;
};

struct screen { /* the callbacks' state */
    bool terminal;
    int n_skipped;
};

static void show_progress(void *user, int done, int total)
{
    const struct screen *s = user;
    int filled = total > 0 ? (int)((long long)done * BAR / total) : BAR;

    if (!s->terminal)
        return;
    fprintf(stderr, "\r[%.*s%*s] %d/%d photos%s", filled,
            "########################################", BAR - filled, "", done,
            total, done == total ? "\n" : "");
    fflush(stderr);
}

static void show_skipped(void *user, const char *photo, const struct error *why)
{
    struct screen *s = user;

    s->n_skipped++;
    if (s->n_skipped <= MOST_SKIPPED_SHOWN)
        fprintf(stderr, "%sskipped %s: %s\n", s->terminal ? "\r\033[K" : "",
                photo, why->text);
    else if (s->n_skipped == MOST_SKIPPED_SHOWN + 1)
        fprintf(stderr, "%smore are skipped and not named\n",
                s->terminal ? "\r\033[K" : "");
}

static bool parse_number(const char *text, double least, double most,
                         double *out)
{
    char *end;

    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= least && *out <= most;
}

static bool parse_precision(const char *text, enum precision *out)
{
    static const struct {
        const char *name;
        enum precision value;
    } names[] = {{"auto", PRECISION_AUTO},
                 {"f32", PRECISION_F32},
                 {"bf16", PRECISION_BF16}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!strcmp(text, names[i].name)) {
            *out = names[i].value;
            return true;
        }
    }
    return false;
}

enum {
    ARG_MODEL = 256,
    ARG_DETECTORS,
    ARG_PAIRS,
    ARG_PHOTOS,
    ARG_THREADS,
    ARG_PRECISION,
    ARG_BATCH,
    ARG_JSON,
    ARG_FAR,
    ARG_MIN_FACE,
    ARG_MAX_SKIPPED,
    ARG_WRITE
};

static bool take_argument(struct arguments *a, int which, const char *text)
{
    struct measure_options *o = &a->run;
    double v;

    switch (which) {
    case ARG_MODEL:
        o->model = text;
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
    case ARG_PRECISION:
        return parse_precision(text, &o->precision);
    case ARG_JSON:
        a->json = true;
        return true;
    case ARG_WRITE:
        a->write = true;
        return true;
    case ARG_THREADS:
        if (!parse_number(text, 1, 64, &v))
            return false;
        o->n_threads = (int)v;
        return true;
    case ARG_BATCH:
        if (!parse_number(text, 1, 1024, &v))
            return false;
        o->batch = (int)v;
        return true;
    case ARG_FAR:
        return parse_number(text, 1e-9, 0.5, &o->far);
    case ARG_MIN_FACE:
        if (!parse_number(text, 12, 1e5, &v))
            return false;
        o->min_face = (float)v;
        return true;
    case ARG_MAX_SKIPPED:
        if (!parse_number(text, 0, 1, &o->max_skipped))
            return false;
        if (o->max_skipped == 0)
            o->max_skipped = -1;
        return true;
    default:
        return false;
    }
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
        {"precision", required_argument, NULL, ARG_PRECISION},
        {"batch", required_argument, NULL, ARG_BATCH},
        {"json", no_argument, NULL, ARG_JSON},
        {"far", required_argument, NULL, ARG_FAR},
        {"min-face", required_argument, NULL, ARG_MIN_FACE},
        {"max-skipped", required_argument, NULL, ARG_MAX_SKIPPED},
        {"write", no_argument, NULL, ARG_WRITE},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int which, index = 0;

    optind = 0; /* facenetctl has looked at its own options before */
    while ((which = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (which == 'h') {
            fputs(usage, stdout);
            return CTL_OK;
        }
        if (which == '?') {
            fputs(usage, stderr);
            return CTL_ERROR;
        }
        if (!take_argument(a, which, optarg)) {
            fprintf(stderr, "facenetctl: --%s %s: not a possible value\n",
                    options[index].name, optarg);
            return CTL_ERROR;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "facenetctl: %s: not an option\n", argv[optind]);
        return CTL_ERROR;
    }
    if (!a->run.model || !a->run.pairs || !a->run.photos) {
        fputs(usage, stderr);
        return CTL_ERROR;
    }
    return -1;
}

static void print_json(const struct measurement *m)
{
    const struct evaluation *r = &m->result;

    printf("{\"accuracy\":{\"mean\":%.6f,\"std\":%.6f},"
           "\"val\":{\"mean\":%.6f,\"std\":%.6f,\"far\":%.8f},"
           "\"eer\":%.6f,\"threshold\":%.4f,\"pairs\":%d,\"skipped\":%d,"
           "\"auc\":%.6f,\"val_threshold\":%.6f}\n",
           r->accuracy, r->accuracy_std, r->val, r->val_std, r->far, r->eer,
           r->threshold, m->n_pairs, m->n_skipped, r->auc, r->val_threshold);
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
    printf("Precision: %s\n", m->precision == PRECISION_BF16 ? "bf16" : "f32");
    printf("Per photo, ms: decode %.2f, detect %.2f, align %.2f, embed %.2f\n",
           (double)m->decode_us * per_photo, (double)m->detect_us * per_photo,
           (double)m->align_us * per_photo, (double)m->embed_us * per_photo);
    printf("Faces/s: %.1f (%.1f s in all)\n",
           m->wall_us > 0 ? n_faces * 1e6 / (double)m->wall_us : 0,
           (double)m->wall_us * 1e-6);
}

int ctl_evaluate(int argc, char **argv)
{
    struct arguments a = {0};
    struct screen screen = {.terminal = isatty(STDERR_FILENO)};
    struct measurement m;
    struct error err = {0};
    int stop = parse(argc, argv, &a);

    if (stop >= 0)
        return stop;
    a.run.progress = show_progress;
    a.run.skipped = show_skipped;
    a.run.user = &screen;
    if (measure_run(&a.run, &m, &err) ||
        (a.write && model_write_thresholds(a.run.model, m.thresholds,
                                           m.n_thresholds, &err))) {
        fprintf(stderr, "facenetctl: %s\n", err.text);
        return CTL_ERROR;
    }
    if (a.json)
        print_json(&m);
    else
        print_text(&m);
    return CTL_OK;
}
