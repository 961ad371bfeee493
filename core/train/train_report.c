/* core/train/train_report.c - what a run leaves behind and tells while it
 * goes: its two folders, arguments.txt, revision_info.txt, lfw_result.txt,
 * TensorBoard's events, and the caller's events. */
#include "core/train/train_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_RUNS_A_SECOND = 1000
};

/* ---- folders ------------------------------------------------------------- */

static int make_dirs(const char *path, struct error *err)
{
    char part[TRAIN_MAX_PATH];
    struct stat st;

    snprintf(part, sizeof(part), "%s", path);
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(part, 0777) && errno != EEXIST)
            return error_set(err, ERR_FILE, "folder '%.150s': %s", part,
                             strerror(errno));
        *p = '/';
    }
    if (mkdir(part, 0777) && errno != EEXIST)
        return error_set(err, ERR_FILE, "folder '%.150s': %s", part,
                         strerror(errno));
    if (stat(part, &st) || !S_ISDIR(st.st_mode))
        return error_set(err, ERR_FILE, "'%.150s' is no folder", part);
    return 0;
}

static int join(char out[TRAIN_MAX_PATH], const char *dir, const char *name,
                struct error *err)
{
    int n = snprintf(out, TRAIN_MAX_PATH, "%s/%s", dir, name);

    return n > 0 && n < TRAIN_MAX_PATH
               ? 0
               : error_set(err, ERR_FILE, "the path of '%.80s…' is too long",
                           dir);
}

/* models_base_dir/TIME, and the same name under logs_base_dir. Two runs of one
 * second get two folders. */
static int new_folders(struct train *t, struct error *err)
{
    char stamp[32], name[64];
    time_t now = time(NULL);
    struct tm tm;

    if (make_dirs(t->a->models_base_dir, err) ||
        make_dirs(t->a->logs_base_dir, err))
        return -1;
    localtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
    for (int i = 1; i < MOST_RUNS_A_SECOND; i++) {
        snprintf(name, sizeof(name), i > 1 ? "%s-%d" : "%s", stamp, i);
        if (join(t->models, t->a->models_base_dir, name, err) ||
            join(t->logs, t->a->logs_base_dir, name, err))
            return -1;
        if (mkdir(t->models, 0777) == 0)
            return make_dirs(t->logs, err);
        if (errno != EEXIST)
            break;
    }
    return error_set(err, ERR_FILE, "folder '%.150s': %s", t->models,
                     strerror(errno));
}

/* Of a checkpoint: its own folder, and the log folder of that name. */
static int old_folders(struct train *t, const char *checkpoint,
                       struct error *err)
{
    const char *slash = strrchr(checkpoint, '/'), *name;

    snprintf(t->models, sizeof(t->models), "%.*s",
             slash ? (int)(slash - checkpoint) : 1, slash ? checkpoint : ".");
    name = strrchr(t->models, '/');
    name = name ? name + 1 : t->models;
    if (join(t->logs, t->a->logs_base_dir, name, err))
        return -1;
    return make_dirs(t->logs, err);
}

/* ---- text files ---------------------------------------------------------- */

static FILE *open_text(const struct train *t, const char *name,
                       const char *mode, struct error *err)
{
    char path[TRAIN_MAX_PATH];
    FILE *f;

    if (join(path, t->logs, name, err))
        return NULL;
    f = fopen(path, mode);
    return f ? f
             : error_null(err, ERR_FILE, "'%.150s': %s", path, strerror(errno));
}

static int close_text(FILE *f, const char *name, struct error *err)
{
    bool bad = ferror(f);

    bad = fclose(f) || bad;
    return bad ? error_set(err,
                           errno == ENOSPC || errno == EFBIG ? ERR_STORAGE_FULL
                                                             : ERR_FILE,
                           "%s cannot be written: %s", name, strerror(errno))
               : 0;
}

static int write_arguments(const struct train *t, struct error *err)
{
    FILE *f = open_text(t, "arguments.txt", "we", err);
    char text[TRAIN_ARG_MAX];
    int n;
    const struct train_arg *list = train_args_list(&n);

    if (!f)
        return -1;
    for (int i = 0; i < n; i++)
        if (list[i].name)
            fprintf(f, "%s: %s\n", list[i].name,
                    train_args_get(t->a, &list[i], text, sizeof(text)));
    return close_text(f, "arguments.txt", err);
}

/* As a shell takes it. */
static void write_quoted(FILE *f, const char *text)
{
    fputc('\'', f);
    for (; *text; text++)
        fputs(*text == '\'' ? "'\\''" : (char[]){*text, '\0'}, f);
    fputc('\'', f);
}

/* The arguments that are not the defaults, as a command line. */
static void write_command(FILE *f, const struct train_args *a)
{
    char text[TRAIN_ARG_MAX], def[TRAIN_ARG_MAX];
    struct train_args *defaults = malloc(sizeof(*defaults));
    int n;
    const struct train_arg *list = train_args_list(&n);

    if (!defaults)
        return;
    train_args_default(defaults);
    fputs("command: facenetctl train", f);
    for (int i = 0; i < n; i++) {
        if (!list[i].name)
            continue;
        train_args_get(a, &list[i], text, sizeof(text));
        train_args_get(defaults, &list[i], def, sizeof(def));
        if (strcmp(text, def) == 0)
            continue;
        fprintf(f, " --%s=", list[i].name);
        write_quoted(f, text);
    }
    fputc('\n', f);
    free(defaults);
}

static int write_revision(const struct train *t, struct error *err)
{
    FILE *f = open_text(t, "revision_info.txt", "we", err);
    struct device_info info;

    if (!f)
        return -1;
    t->dev->backend->device_describe(t->dev, &info);
    fprintf(f, "version: facenetd %s\ncompiler: %s\nlibraries: %s\n",
            FACENETD_VERSION, __VERSION__, info.name);
    fprintf(f, "device: %s, %s, %s, %d threads\n", t->dev->backend->name,
            info.isa, precision_name(t->precision.learn), info.n_threads);
    if (t->parent)
        fprintf(f, "pretrained: %s\n", t->parent->id);
    if (t->teacher)
        fprintf(f, "teacher: %s\n", t->teacher->id);
    write_command(f, t->a);
    return close_text(f, "revision_info.txt", err);
}

int train_report_open(struct train *t, const char *resumed, struct error *err)
{
    if (resumed ? old_folders(t, resumed, err) : new_folders(t, err))
        return -1;
    if (write_arguments(t, err) || write_revision(t, err))
        return -1;
    t->events = events_open(t->logs, (double)time(NULL), err);
    return t->events ? 0 : -1;
}

void train_report_close(struct train *t)
{
    if (events_close(t->events, NULL) && !t->events_failed)
        train_report_warn(t, "the end of the event file is not written");
    t->events = NULL;
}

/* ---- events -------------------------------------------------------------- */

static void emit(const struct train *t, const struct train_event *e)
{
    if (t->fn)
        t->fn(t->ctx, e);
}

void train_report_phase(const struct train *t, const char *text)
{
    emit(t, &(struct train_event){
                .kind = TRAIN_PHASE, .text = text, .step = t->at.step});
}

void train_report_device(const struct train *t, const char *why)
{
    char text[TRAIN_DEVICE_TEXT];

    train_device_text(t->dev, t->precision.learn, why, text);
    emit(t, &(struct train_event){
                .kind = TRAIN_DEVICE, .text = text, .step = t->at.step});
}

void train_report_warn(const struct train *t, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    emit(t, &(struct train_event){
                .kind = TRAIN_WARNING, .text = text, .step = t->at.step});
}

void train_report_failures(const struct train *t, struct loader *l, int *n_told)
{
    enum {
        MOST_NAMED = 10
    };
    int n = loader_failures(l);

    for (; *n_told < n; ++*n_told) {
        const char *why = "", *path = loader_failure(l, *n_told, &why);

        if (*n_told < MOST_NAMED)
            train_report_warn(t, "%s: %s", path, why ? why : "it failed");
        else if (*n_told == MOST_NAMED)
            train_report_warn(t, "more photos fail, which are not named");
    }
}

/* A full disk costs the curves, not the run; it is said once. */
void train_report_scalar(struct train *t, const char *tag, double value)
{
    struct error err = {0};

    if (!t->events || t->events_failed || !isfinite(value))
        return;
    if (events_scalar(t->events, (double)time(NULL), t->at.step, tag,
                      (float)value, &err)) {
        t->events_failed = true;
        train_report_warn(t, "no more curves are kept: %s", err.text);
    }
}

/* What is left of the run by steps or by minutes, whichever ends first. */
static double time_left(const struct train *t)
{
    double run = train_now() - t->started, left = -1;
    double n = (double)(t->at.step - t->first_step);

    if (n > 0)
        left = run / n * (double)(train_steps(t) - t->at.step);
    if (t->a->minutes > 0) {
        double most = t->a->minutes * 60 - t->at.elapsed_s - run;

        most = most > 0 ? most : 0;
        left = left < 0 || most < left ? most : left;
    }
    return left;
}

void train_report_step(struct train *t)
{
    int64_t done = t->at.step - 1;
    struct train_event e = {.kind = TRAIN_STEP,
                            .step = t->at.step,
                            .epoch = (int)(done / t->a->epoch_size) + 1,
                            .batch = (int)(done % t->a->epoch_size) + 1,
                            .n_batches = t->a->epoch_size,
                            .loss = t->loss,
                            .rate = t->rate,
                            .faces_per_s = t->faces_per_s,
                            .left_s = time_left(t),
                            .n_triplets = (int)t->at.round_triplets};

    train_report_failures(t, t->loader, &t->n_told);
    train_report_scalar(t, "loss", t->loss);
    train_report_scalar(t, "learning_rate", t->rate);
    train_report_scalar(t, "gradient_norm", t->gradient_norm);
    train_report_scalar(t, "spread", t->spread);
    emit(t, &e);
}

/* The script's line: step, accuracy, VAL. */
static void add_lfw_line(const struct train *t, const struct train_figures *f)
{
    struct error err = {0};
    FILE *out = open_text(t, "lfw_result.txt", "ae", &err);

    if (out) {
        fprintf(out, "%lld\t%.5f\t%.5f\n", (long long)t->at.step, f->accuracy,
                f->val[2]);
        if (close_text(out, "lfw_result.txt", &err) == 0)
            return;
    }
    train_report_warn(t, "%s", err.text);
}

void train_report_figures(struct train *t, const char *when, const char *set,
                          const struct train_figures *f, double took_s)
{
    static const char *const at[3] = {"1e-1", "1e-2", "1e-3"};
    bool lfw = strcmp(set, "lfw") == 0;
    struct train_event e = {.kind = TRAIN_EVALUATION,
                            .when = when,
                            .set = set,
                            .step = t->at.step,
                            .accuracy = f->accuracy,
                            .accuracy_std = f->accuracy_std,
                            .far = {1e-1, 1e-2, 1e-3}};
    char tag[64];

    for (int i = 0; i < 3; i++) {
        e.val[i] = f->val[i];
        snprintf(tag, sizeof(tag), "%s/val_rate_%s", set, at[i]);
        train_report_scalar(t, tag, f->val[i]);
    }
    snprintf(tag, sizeof(tag), "%s/accuracy", set);
    train_report_scalar(t, tag, f->accuracy);
    snprintf(tag, sizeof(tag), "%s/val_rate", set);
    train_report_scalar(t, tag, lfw ? f->val[2] : f->guard_val);
    snprintf(tag, sizeof(tag), "time/%s", set);
    train_report_scalar(t, tag, took_s);
    if (lfw && t->logs[0])
        add_lfw_line(t, f);
    emit(t, &e);
}

void train_report_result(const struct train *t, enum train_outcome outcome,
                         const char *text, const char *path)
{
    emit(t, &(struct train_event){.kind = TRAIN_RESULT,
                                  .outcome = outcome,
                                  .text = text,
                                  .path = path,
                                  .step = t->at.step});
}
