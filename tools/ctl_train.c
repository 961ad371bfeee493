/* tools/ctl_train.c - facenetctl train: the arguments of core/train/args.def
 * as options, a progress bar or lines for a person, one JSON object a line for
 * the daemon, SIGINT and SIGTERM to a checkpoint. */
#include "tools/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/train/train.h"

enum {
    BAR = 24
};
static const double json_every_s = 0.5, bar_every_s = 0.2, line_every_s = 5;

struct screen {
    bool terminal, bar; /* bar: the cursor stands behind it */
    int fd;             /* of JSON; -1: none */
    int n_epochs;
    double last_json, last_shown;
    const struct train_event *result;
};

static volatile sig_atomic_t stop;

/* The second signal ends the process: SA_RESETHAND. */
static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- for a program --------------------------------------------------------
 */

/* A number that is none is null: JSON has no NaN. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* A reader that is gone costs the lines, not the run. take_o is consumed. */
static void send_line(struct screen *s, json_t *take_o)
{
    char *text = take_o
                     ? json_dumps(take_o, JSON_COMPACT | JSON_REAL_PRECISION(9))
                     : NULL;
    size_t len = text ? strlen(text) : 0, done = 0;

    json_decref(take_o);
    if (!text)
        return;
    text[len++] = '\n'; /* over its end */
    while (s->fd >= 0 && done < len) {
        ssize_t n = write(s->fd, text + done, len - done);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            s->fd = -1;
    }
    free(text);
}

static json_t *step_object(const struct train_event *e)
{
    return json_pack(
        "{s:s s:I s:i s:i s:i s:o s:o s:i s:o s:o}", "event", "step", "step",
        (json_int_t)e->step, "epoch", e->epoch, "batch", e->batch, "batches",
        e->n_batches, "loss", number(e->loss), "rate", number(e->rate),
        "triplets", e->n_triplets, "faces_per_s", number(e->faces_per_s),
        "left_s", e->left_s >= 0 ? number(e->left_s) : json_null());
}

static json_t *evaluation_object(const struct train_event *e)
{
    json_t *val = json_object();
    char far[32];

    for (int i = 0; i < 3; i++) {
        snprintf(far, sizeof(far), "%g", e->far[i]);
        json_object_set_new(val, far, number(e->val[i]));
    }
    return json_pack("{s:s s:s s:s s:I s:o s:o s:o}", "event", "evaluation",
                     "when", e->when, "set", e->set, "step",
                     (json_int_t)e->step, "accuracy", number(e->accuracy),
                     "accuracy_std", number(e->accuracy_std), "val", val);
}

static const char *outcome_name(enum train_outcome outcome)
{
    static const char *const names[] = {"published", "refused", "stopped",
                                        "checked"};

    return names[outcome];
}

/* A path or text that is not UTF-8 would make no JSON at all. */
static json_t *text_value(const char *text)
{
    json_t *o = text ? json_string(text) : json_null();

    return o ? o : json_string("(not UTF-8)");
}

static void result_line(struct screen *s, const char *outcome, const char *text,
                        const char *path)
{
    send_line(s, json_pack("{s:s s:s s:o s:o}", "event", "result", "outcome",
                           outcome, "text", text_value(text), "model",
                           text_value(path)));
}

static void tell_program(struct screen *s, const struct train_event *e)
{
    double now = now_s();

    switch (e->kind) {
    case TRAIN_STEP:
        if (now - s->last_json < json_every_s && e->batch != e->n_batches)
            return;
        s->last_json = now;
        send_line(s, step_object(e));
        break;
    case TRAIN_EVALUATION:
        send_line(s, evaluation_object(e));
        break;
    case TRAIN_CHECKPOINT:
        send_line(s,
                  json_pack("{s:s s:I s:o}", "event", "checkpoint", "step",
                            (json_int_t)e->step, "path", text_value(e->path)));
        break;
    case TRAIN_RESULT:
        result_line(s, outcome_name(e->outcome), e->text, e->path);
        break;
    case TRAIN_PHASE:
    case TRAIN_DEVICE:
    case TRAIN_WARNING:
        send_line(s, json_pack("{s:s s:o}", "event",
                               e->kind == TRAIN_PHASE    ? "phase"
                               : e->kind == TRAIN_DEVICE ? "device"
                                                         : "warning",
                               "text", text_value(e->text)));
        break;
    }
}

/* ---- for a person ---------------------------------------------------------
 */

static void clear_bar(struct screen *s)
{
    if (s->bar)
        fputs("\r\033[K", stderr);
    s->bar = false;
}

static void duration(double seconds, char *buf, size_t len)
{
    long s = seconds < 0 ? 0 : (long)(seconds < 1e9 ? seconds : 1e9);

    if (s >= 3600)
        snprintf(buf, len, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else
        snprintf(buf, len, "%ldm%02lds", s / 60, s % 60);
}

static void show_step(struct screen *s, const struct train_event *e)
{
    double now = now_s();
    int filled = (int)((long long)e->batch * BAR / e->n_batches);
    char left[32], triplets[32] = "";

    if (now - s->last_shown < (s->terminal ? bar_every_s : line_every_s) &&
        e->batch != e->n_batches)
        return;
    s->last_shown = now;
    duration(e->left_s, left, sizeof(left));
    if (e->n_triplets > 0)
        snprintf(triplets, sizeof(triplets), " triplets %d", e->n_triplets);
    clear_bar(s);
    fprintf(stderr, "epoch %d/%d ", e->epoch, s->n_epochs);
    if (s->terminal)
        fprintf(stderr, "[%.*s%*s] ", filled, "########################",
                BAR - filled, "");
    fprintf(stderr, "%d/%d loss %.4f%s rate %g %.1f faces/s %s%s", e->batch,
            e->n_batches, e->loss, triplets, e->rate, e->faces_per_s,
            e->left_s >= 0 ? left : "?", " left");
    s->bar = s->terminal;
    if (!s->terminal)
        fputc('\n', stderr);
    fflush(stderr);
}

static void show_evaluation(const struct train_event *e)
{
    fprintf(stderr, "%s, %s: accuracy %.4f", e->when,
            strcmp(e->set, "lfw") == 0 ? "pairs" : "held-out people",
            e->accuracy);
    if (isfinite(e->accuracy_std))
        fprintf(stderr, "+-%.4f", e->accuracy_std);
    for (int i = 0; i < 3; i++)
        fprintf(stderr, "%s %.4f @ FAR %g", i ? "," : "; VAL", e->val[i],
                e->far[i]);
    fputc('\n', stderr);
}

static void tell_person(struct screen *s, const struct train_event *e)
{
    if (e->kind == TRAIN_STEP) {
        show_step(s, e);
        return;
    }
    clear_bar(s);
    switch (e->kind) {
    case TRAIN_PHASE:
        fprintf(stderr, "-- %s\n", e->text);
        break;
    case TRAIN_DEVICE:
        fprintf(stderr, "device: %s\n", ctl_safe(e->text));
        break;
    case TRAIN_EVALUATION:
        show_evaluation(e);
        break;
    case TRAIN_WARNING:
        fprintf(stderr, "warning: %s\n", ctl_safe(e->text));
        break;
    case TRAIN_CHECKPOINT:
        fprintf(stderr, "saved %s\n", ctl_safe(e->path));
        break;
    case TRAIN_RESULT:
        fprintf(stderr, "%s%s%s\n", outcome_name(e->outcome),
                e->text[0] ? ": " : "", ctl_safe(e->text));
        if (e->path)
            printf("%s\n", e->path);
        break;
    case TRAIN_STEP:
        break;
    }
}

static void on_event(void *ctx, const struct train_event *e)
{
    struct screen *s = ctx;

    if (s->fd >= 0)
        tell_program(s, e);
    tell_person(s, e);
}

/* ---- options --------------------------------------------------------------
 */

static void print_help(void)
{
    struct train_args *a = malloc(sizeof(*a));
    char text[TRAIN_ARG_MAX], name[64] = "";
    int n;
    const struct train_arg *list = train_args_list(&n);

    if (!a)
        return;
    train_args_default(a);
    puts("usage: facenetctl train --data-dir DIR [OPTION]...\n"
         "Trains a network on folders of photos, one folder a person, or\n"
         "fine-tunes a model. '_' may stand for '-'. Exit status: 0 the model\n"
         "is written, 1 it is worse than before and kept aside, 2 an error,\n"
         "3 stopped by a signal, with a checkpoint that --resume takes.");
    for (int i = 0; i < n; i++) {
        const struct train_arg *arg = &list[i];

        if (!arg->name) {
            printf("\n%s:\n", arg->help);
            continue;
        }
        train_args_get(a, arg, text, sizeof(text));
        for (size_t k = 0; k <= strlen(arg->name) && k < sizeof(name); k++)
            name[k] = arg->name[k] == '_' ? '-' : arg->name[k];
        printf("  --%s%s%s\n        %s", name,
               arg->type == TRAIN_ARG_FLAG ? "" : " ",
               arg->type == TRAIN_ARG_FLAG     ? ""
               : arg->type == TRAIN_ARG_CHOICE ? arg->choices
               : arg->type == TRAIN_ARG_TEXT   ? "TEXT"
                                               : "NUMBER",
               arg->help);
        if (arg->type != TRAIN_ARG_FLAG && text[0])
            printf(" (%s)", text);
        putchar('\n');
    }
    free(a);
}

/* One option at argv[i]: "--name value", "--name=value"; a flag's value may be
 * left out. Returns how many words it took, -1 with err set. */
static int take_option(struct train_args *a, int argc, char **argv, int i,
                       struct error *err)
{
    const char *word = argv[i], *equal = strchr(word, '=');
    const char *value = equal ? equal + 1 : i + 1 < argc ? argv[i + 1] : NULL;
    const struct train_arg *arg;
    char name[64];

    if (strncmp(word, "--", 2) != 0)
        return error_set(err, ERR_USAGE, "'%s' is no option; see --help",
                         ctl_safe(word));
    snprintf(name, sizeof(name), "%.*s",
             equal ? (int)(equal - word - 2) : (int)sizeof(name), word + 2);
    arg = train_args_find(name);
    if (!arg)
        return error_set(err, ERR_USAGE,
                         "there is no option '--%s'; see --help",
                         ctl_safe(name));
    if (arg->type == TRAIN_ARG_FLAG && !equal && value &&
        strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        value = NULL;
    if (train_args_set(a, name, value, err))
        return -1;
    return 1 + (value && !equal);
}

static int parse(int argc, char **argv, struct train_args *a)
{
    struct error err = {0};

    train_args_default(a);
    for (int i = 1, n; i < argc; i += n) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return CTL_OK;
        }
        n = take_option(a, argc, argv, i, &err);
        if (n < 0)
            return ctl_fail_error(&err);
    }
    if (argc < 2)
        return ctl_fail("train needs at least --data-dir; see train --help");
    if (a->progress_fd >= 0 && fcntl(a->progress_fd, F_GETFD) < 0)
        return ctl_fail("progress_fd: %d is not open", a->progress_fd);
    return -1;
}

static void catch_signals(void)
{
    struct sigaction ask = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGINT, &ask, NULL);
    sigaction(SIGTERM, &ask, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

static int run(const struct train_args *a)
{
    static const int status[] = {CTL_OK, CTL_NO_MATCH, CTL_STOPPED, CTL_OK};
    struct screen s = {.terminal = isatty(STDERR_FILENO),
                       .fd = a->progress_fd,
                       .n_epochs = a->max_nrof_epochs};
    enum train_outcome outcome = TRAIN_PUBLISHED;
    struct error err = {0};

    catch_signals();
    if (train_run(a, on_event, &s, &stop, &outcome, &err) == 0)
        return status[outcome];
    clear_bar(&s);
    if (s.fd >= 0)
        result_line(&s, "failed", err.text, NULL);
    return ctl_fail_error(&err);
}

int ctl_train(int argc, char **argv)
{
    struct train_args *a = malloc(sizeof(*a));
    int rc;

    if (!a)
        return ctl_fail("no memory");
    rc = parse(argc, argv, a);
    if (rc < 0)
        rc = run(a);
    free(a);
    return rc;
}
