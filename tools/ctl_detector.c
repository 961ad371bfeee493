/* tools/ctl_detector.c - facenetctl train-detector: arguments, progress,
 * signals. */
#include "tools/ctl.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/detector_train.h"
#include "tools/ctl_parse.h"

static const char usage[] =
    "usage: facenetctl train-detector --data-dir DIR --teacher DIR --out DIR\n"
    "           [OPTION]...\n"
    "Train the three networks of a face detector, from random weights, to "
    "find\n"
    "what a teacher finds in photos DIR/PERSON/*.jpg.\n"
    "  --data-dir DIR        folders of people, several joined by ':'\n"
    "  --backgrounds DIR     folders of pictures without people, joined by "
    "':'\n"
    "  --teacher DIR         folder of detector_{p,r,o}net.onnx\n"
    "  --out DIR             where the like are written\n"
    "  --stage p|r|o         train this one alone; those before it are read\n"
    "                        from --out. May be given again\n"
    "  --batches P,R,O       steps of each (";
static const char usage_rest[] =
    ")\n"
    "  --rate R              highest learning rate of Adam (0.001)\n"
    "  --from DIR            go on from these networks, with a new schedule\n"
    "  --device WORD         what learns: auto, cpu, or cuda:N for the card N\n"
    "                        (auto: a card where it can be had)\n"
    "  --device-plugin PATH  the card's plugin\n"
    "  --threads N           (the cores)\n"
    "  --seed N              (1)\n"
    "The same arguments over the same files give the same networks. SIGINT "
    "and\n"
    "SIGTERM write the network at hand and end. Exit status: 0 all is "
    "written,\n"
    "2 an error, 3 stopped by a signal.\n";

enum {
    ARG_DATA = 256,
    ARG_BACKGROUNDS,
    ARG_TEACHER,
    ARG_OUT,
    ARG_STAGE,
    ARG_BATCHES,
    ARG_RATE,
    ARG_FROM,
    ARG_DEVICE,
    ARG_PLUGIN,
    ARG_THREADS,
    ARG_SEED
};

static const struct option options[] = {
    {"data-dir", required_argument, NULL, ARG_DATA},
    {"data_dir", required_argument, NULL, ARG_DATA},
    {"backgrounds", required_argument, NULL, ARG_BACKGROUNDS},
    {"teacher", required_argument, NULL, ARG_TEACHER},
    {"out", required_argument, NULL, ARG_OUT},
    {"stage", required_argument, NULL, ARG_STAGE},
    {"batches", required_argument, NULL, ARG_BATCHES},
    {"rate", required_argument, NULL, ARG_RATE},
    {"from", required_argument, NULL, ARG_FROM},
    {"device", required_argument, NULL, ARG_DEVICE},
    {"device-plugin", required_argument, NULL, ARG_PLUGIN},
    {"threads", required_argument, NULL, ARG_THREADS},
    {"seed", required_argument, NULL, ARG_SEED},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

struct arguments {
    struct detector_train_options run;
    bool staged; /* --stage was given */
};

static volatile sig_atomic_t stop;

/* The second signal ends the process: SA_RESETHAND. */
static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void catch_signals(void)
{
    struct sigaction ask = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGINT, &ask, NULL);
    sigaction(SIGTERM, &ask, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

static bool take_stage(struct arguments *a, const char *text)
{
    static const char letters[] = "pro";
    const char *at = strchr(letters, text[0]);

    if (!text[0] || text[1] || !at)
        return false;
    if (!a->staged)
        memset(a->run.stage, 0, sizeof(a->run.stage));
    a->staged = true;
    a->run.stage[at - letters] = true;
    return true;
}

static bool take_batches(struct arguments *a, const char *text)
{
    int n = 0, *b = a->run.batches;

    return sscanf(text, "%9d,%9d,%9d%n", &b[0], &b[1], &b[2], &n) == 3 &&
           !text[n] && b[0] > 0 && b[1] > 0 && b[2] > 0;
}

static bool take_argument(void *ctx, int which, const char *text)
{
    struct arguments *a = ctx;
    int v = 0;
    bool ok = true;

    switch (which) {
    case ARG_DATA:
        a->run.data_dir = text;
        break;
    case ARG_BACKGROUNDS:
        a->run.backgrounds = text;
        break;
    case ARG_TEACHER:
        a->run.teacher = text;
        break;
    case ARG_OUT:
        a->run.out = text;
        break;
    case ARG_FROM:
        a->run.from = text;
        break;
    case ARG_STAGE:
        return take_stage(a, text);
    case ARG_BATCHES:
        return take_batches(a, text);
    case ARG_RATE:
        return ctl_parse_number(text, 1e-9, 1, &a->run.rate);
    case ARG_DEVICE:
        a->run.device = text;
        break;
    case ARG_PLUGIN:
        a->run.plugin = text;
        break;
    case ARG_THREADS:
        return ctl_parse_int(text, 1, 1024, &a->run.n_threads);
    case ARG_SEED:
        ok = ctl_parse_int(text, 0, 2147483647, &v);
        a->run.seed = (uint64_t)v;
        break;
    default:
        return false;
    }
    return ok;
}

static void tell(void *ctx, const struct detector_train_report *r)
{
    const char *name = detector_train_stage_name(r->stage);
    const struct detector_loss *l = &r->loss;

    (void)ctx;
    switch (r->state) {
    case DETECTOR_TRAIN_DEVICE:
        fprintf(stderr, "device: %s\n", ctl_safe(r->text));
        return;
    case DETECTOR_TRAIN_BEGIN:
        fprintf(stderr, "-- %s, %d batches\n", name, r->n_steps);
        return;
    case DETECTOR_TRAIN_WRITTEN:
        fprintf(stderr, "saved %s after %d\n", ctl_safe(r->path), r->step);
        if (r->step == r->n_steps || stop)
            printf("%s\n", r->path);
        return;
    case DETECTOR_TRAIN_STEP:
        break;
    }
    fprintf(stderr, "%s %d/%d class %.4f (agrees %.4f) box %.4f", name, r->step,
            r->n_steps, l->prob, l->agreed, l->box);
    if (l->n_points)
        fprintf(stderr, " points %.4f (off by %.4f)", l->points,
                l->point_error);
    fprintf(stderr, " rate %.2g %.0f/s; photos read %d, bad %d, no face %d\n",
            r->rate, r->samples_per_s, r->photos.n_read, r->photos.n_bad,
            r->photos.n_faceless);
}

int ctl_train_detector(int argc, char **argv)
{
    struct arguments a = {0};
    struct error err = {0};
    bool stopped = false;
    char head[sizeof(usage) + sizeof(usage_rest) + 64];
    int rc;

    detector_train_defaults(&a.run);
    snprintf(head, sizeof(head), "%s%d,%d,%d%s", usage, a.run.batches[0],
             a.run.batches[1], a.run.batches[2], usage_rest);
    rc = ctl_parse_options(argc, argv, options, head, take_argument, &a);
    if (rc >= 0)
        return rc;
    if (optind != argc || !a.run.data_dir || !a.run.teacher || !a.run.out)
        return ctl_fail("train-detector needs --data-dir, --teacher and --out, "
                        "and no operands; see train-detector --help");
    catch_signals();
    if (detector_train(&a.run, tell, NULL, &stop, &stopped, &err))
        return ctl_fail_error(&err);
    return stopped ? CTL_STOPPED : CTL_OK;
}
