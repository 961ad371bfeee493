/* tools/ctl_align.c - facenetctl align: folders of whole photos to folders of
 * cropped faces, as training reads them. Arguments, progress, what failed. */
#include "tools/ctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/aligner.h"
#include "tools/ctl_parse.h"

enum {
    MOST_FAILED_SHOWN = 10,
    PLAIN_EVERY_S = 10, /* between lines where there is no terminal */
    MOST_SIDE = 1024,
    MOST_FOLDER = 4096
};

static const char usage[] =
    "usage: facenetctl align IN OUT --detectors DIR [OPTION]...\n"
    "Find the face in each photo IN/PERSON/*.jpg and write it cropped, as\n"
    "OUT/PERSON/*.png. Several folders IN are joined by ':'. What is there\n"
    "already is left alone, so that a run can go on where it ended.\n"
    "  --detectors DIR       folder of detector_{p,r,o}net.onnx\n"
    "  --model FILE          crop as this model is given faces; its folder is\n"
    "                        where the detectors are looked for\n"
    "  --crop KIND           box-margin:MARGIN,SIZE (box-margin:44,182) or\n"
    "                        arcface-112\n"
    "  --size N, --image-size N   side of the crops (182; arcface-112: 112)\n"
    "  --margin N            box-margin's\n"
    "  --all-faces, --detect-multiple-faces\n"
    "                        every face of a photo, not the most central one\n"
    "  --min-face PIXELS     smallest face looked for (36)\n"
    "  --threads N           (the cores)\n"
    "  --png                 write PNG (so unless --quality is given)\n"
    "  --quality N           write JPEG of this quality, 1 to 100\n"
    "  --failures FILE       list every photo that failed, and why\n"
    "Exit status: 0 every photo has its crop, 1 some have not, 2 an error.\n";

struct arguments {
    struct aligner_options run;
    const char *model, *failures;
    int size, margin; /* 0, -1: not given */
    bool crop_given, png;
};

struct screen { /* the callbacks' state */
    struct ctl_progress bar;
    struct timespec told;
    int n_failed;
    FILE *failures;
};

static void show_progress(void *user, int done, int total)
{
    struct screen *s = user;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (s->bar.terminal) {
        ctl_show_progress(&s->bar, done, total);
    } else if (now.tv_sec - s->told.tv_sec >= PLAIN_EVERY_S) {
        fprintf(stderr, "%d/%d photos\n", done, total);
        s->told = now;
    }
}

static void show_failed(void *user, const char *photo, const struct error *why)
{
    struct screen *s = user;

    s->n_failed++;
    if (s->failures)
        fprintf(s->failures, "%s\t%s\n", ctl_safe(photo), ctl_safe(why->text));
    else if (s->n_failed <= MOST_FAILED_SHOWN)
        fprintf(stderr, "%s: %s\n", ctl_safe(photo), ctl_safe(why->text));
    else if (s->n_failed == MOST_FAILED_SHOWN + 1)
        fprintf(stderr, "more have failed; --failures FILE lists them\n");
}

enum {
    ARG_DETECTORS = 256,
    ARG_MODEL,
    ARG_CROP,
    ARG_SIZE,
    ARG_MARGIN,
    ARG_ALL,
    ARG_MIN_FACE,
    ARG_THREADS,
    ARG_PNG,
    ARG_QUALITY,
    ARG_FAILURES
};

static const struct option options[] = {
    {"detectors", required_argument, NULL, ARG_DETECTORS},
    {"model", required_argument, NULL, ARG_MODEL},
    {"crop", required_argument, NULL, ARG_CROP},
    {"size", required_argument, NULL, ARG_SIZE},
    {"image-size", required_argument, NULL, ARG_SIZE},
    {"margin", required_argument, NULL, ARG_MARGIN},
    {"all-faces", no_argument, NULL, ARG_ALL},
    {"detect-multiple-faces", no_argument, NULL, ARG_ALL},
    {"min-face", required_argument, NULL, ARG_MIN_FACE},
    {"threads", required_argument, NULL, ARG_THREADS},
    {"png", no_argument, NULL, ARG_PNG},
    {"quality", required_argument, NULL, ARG_QUALITY},
    {"failures", required_argument, NULL, ARG_FAILURES},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

static bool take_argument(void *ctx, int which, const char *text)
{
    struct arguments *a = ctx;
    struct error err;
    int v;

    switch (which) {
    case ARG_DETECTORS:
        a->run.detectors = text;
        return true;
    case ARG_MODEL:
        a->model = text;
        return true;
    case ARG_CROP:
        a->crop_given = true;
        return contract_parse_crop(&a->run.crop, text, &err) == 0 &&
               a->run.crop.crop != CROP_NONE;
    case ARG_SIZE:
        return ctl_parse_int(text, 16, MOST_SIDE, &a->size);
    case ARG_MARGIN:
        return ctl_parse_int(text, 0, MOST_SIDE, &a->margin);
    case ARG_ALL:
        a->run.all_faces = true;
        return true;
    case ARG_MIN_FACE:
        if (!ctl_parse_int(text, 12, 100000, &v))
            return false;
        a->run.min_face = (float)v;
        return true;
    case ARG_THREADS:
        return ctl_parse_int(text, 1, 64, &a->run.n_threads);
    case ARG_PNG:
        a->png = true;
        return true;
    case ARG_QUALITY:
        return ctl_parse_int(text, 1, 100, &a->run.quality);
    default:
        a->failures = text;
        return true;
    }
}

/* Crop kind and sizes from what was given. */
static int settle_crop(struct arguments *a)
{
    struct contract *c = &a->run.crop;

    if (!a->crop_given && !a->model) {
        c->crop = CROP_BOX_MARGIN;
        c->crop_margin = 44;
        c->crop_size = 182;
    }
    if (a->margin >= 0 && c->crop != CROP_BOX_MARGIN)
        return ctl_fail("--margin belongs to box-margin crops");
    if (a->margin >= 0)
        c->crop_margin = a->margin;
    if (c->crop == CROP_BOX_MARGIN) {
        c->crop_size = a->size ? a->size : c->crop_size;
        c->width = c->height = c->crop_size;
        if (c->crop_margin >= c->crop_size)
            return ctl_fail("a margin of %d is no less than the size, %d",
                            c->crop_margin, c->crop_size);
        return -1;
    }
    if (a->size || a->crop_given || !a->model)
        c->width = c->height = a->size ? a->size : 112;
    return -1;
}

/* The contract's crop, and the folder of the detectors. */
static int take_model(struct arguments *a, char folder[MOST_FOLDER])
{
    struct error err = {0};
    struct model *m = model_load(a->model, NULL, NULL, &err);
    const char *slash = strrchr(a->model, '/');

    if (!m)
        return ctl_fail_error(&err);
    if (!a->crop_given) {
        a->run.crop.crop = m->contract.crop;
        a->run.crop.crop_margin = m->contract.crop_margin;
        a->run.crop.crop_size = m->contract.crop_size;
        a->run.crop.width = m->contract.width;
        a->run.crop.height = m->contract.height;
    }
    model_free(m);
    if (a->run.crop.crop == CROP_NONE)
        return ctl_fail("%s crops no faces", a->model);
    if (!a->run.detectors) {
        snprintf(folder, MOST_FOLDER, "%.*s",
                 slash > a->model ? (int)(slash - a->model) : 1,
                 slash ? a->model : ".");
        a->run.detectors = folder;
    }
    return -1;
}

/* -1: go on, else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
    int rc = ctl_parse_options(argc, argv, options, usage, take_argument, a);

    if (rc >= 0)
        return rc;
    if (argc - optind != 2) {
        fputs(usage, stderr);
        return CTL_ERROR;
    }
    a->run.in = argv[optind];
    a->run.out = argv[optind + 1];
    if (!a->run.detectors && !a->model)
        return ctl_fail("--detectors DIR or --model FILE is needed");
    if (a->png && a->run.quality)
        return ctl_fail("--png and --quality: one of them");
    return -1;
}

static int run(struct arguments *a)
{
    struct screen screen = {.bar = {isatty(STDERR_FILENO)}};
    struct aligner_counts n;
    struct error err = {0};
    int rc;

    clock_gettime(CLOCK_MONOTONIC, &screen.told);
    if (a->failures && !(screen.failures = fopen(a->failures, "we")))
        return ctl_fail("%s: %s", a->failures, strerror(errno));
    a->run.progress = show_progress;
    a->run.failed = show_failed;
    a->run.user = &screen;
    rc = aligner_run(&a->run, &n, &err);
    if (screen.failures) {
        bool lost = ferror(screen.failures) != 0;
        if (fclose(screen.failures) || lost)
            return ctl_fail("%s: cannot be written", a->failures);
    }
    if (rc == 0 || n.n_aligned > 0)
        printf("%d photos of %d people: %d aligned now (%d faces), %d were "
               "there, %d failed; %.1f photos/s\n",
               n.n_photos, n.n_people, n.n_aligned, n.n_faces, n.n_there,
               n.n_failed,
               n.seconds > 0 ? (n.n_aligned + n.n_failed) / n.seconds : 0);
    if (n.n_loose > 0)
        fprintf(stderr,
                "%d photos outside of folders of people were passed "
                "over\n",
                n.n_loose);
    if (rc)
        return ctl_fail_error(&err);
    return n.n_failed ? CTL_NO_MATCH : CTL_OK;
}

int ctl_align(int argc, char **argv)
{
    struct arguments a = {.margin = -1};
    char folder[MOST_FOLDER];
    int stop = parse(argc, argv, &a);

    if (stop < 0 && a.model)
        stop = take_model(&a, folder);
    if (stop < 0)
        stop = settle_crop(&a);
    return stop < 0 ? run(&a) : stop;
}
