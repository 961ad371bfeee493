/* daemon/jobs_args.c - a job's arguments: which of the trainer's an admin may
 * name, and the command line that they become. What holds a path, a limit or
 * a descriptor is the daemon's to say. */
#include "daemon/jobs_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/train_args.h"

enum {
    ARGV_MAX = 160
};

/* Texts that are no paths; a text that is not here is refused. */
static const char *const texts[] = {"model_def", "arch", "freeze_until",
                                    "augment",   "crop", "scale"};
static const char *const others[] = {"threads", "memory_mib", "progress_fd",
                                     "dry_run"};

static bool is_among(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

static bool is_allowed(const struct train_arg *arg)
{
    if (arg->type == TRAIN_ARG_TEXT)
        return is_among(arg->name, texts, sizeof(texts) / sizeof(texts[0]));
    return !is_among(arg->name, others, sizeof(others) / sizeof(others[0]));
}

/* The value as train_args_set takes it: into buf, or the value's own. */
static const char *value_text(const json_t *value, char *buf, size_t len)
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    if (json_is_integer(value))
        snprintf(buf, len, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(buf, len, "%.17g", json_real_value(value));
    else
        return NULL;
    return buf;
}

/* Check one, set it in a, and in canon under its own name. */
static int read_one(struct train_args *a, const char *name, const json_t *value,
                    json_t *canon, struct error *err)
{
    const struct train_arg *arg = train_args_find(name);
    char buf[TRAIN_ARG_MAX];
    const char *text = value_text(value, buf, sizeof(buf));

    if (!arg)
        return error_set(err, ERR_BAD_FIELD,
                         "arguments: there is no argument '%.60s'", name);
    if (!is_allowed(arg))
        return error_set(err, ERR_BAD_FIELD,
                         "arguments: %s is not for a job to say: data, model "
                         "and limits are fields and settings of the daemon",
                         arg->name);
    if (!text)
        return error_set(err, ERR_BAD_FIELD,
                         "arguments: %s must be a number, a text or a truth "
                         "value",
                         arg->name);
    if (json_object_get(canon, arg->name))
        return error_set(err, ERR_BAD_FIELD, "arguments: %s is given twice",
                         arg->name);
    if (train_args_set(a, arg->name, text, err) != 0)
        return error_context(err, "arguments");
    if (json_object_set_new(
            canon, arg->name,
            json_string(train_args_get(a, arg, buf, sizeof(buf)))) != 0)
        return error_set(err, ERR_NOMEM, "no memory for the arguments");
    return 0;
}

int jobs_args_read(json_t *object, char out[JOBS_ARGUMENTS_MAX], bool *builds,
                   struct error *err)
{
    struct train_args *a = calloc(1, sizeof(*a));
    json_t *canon = json_object(), *value;
    char *text = NULL;
    const char *name;
    int rc = -1;

    if (!a || !canon) {
        error_set(err, ERR_NOMEM, "no memory for the arguments");
        goto out;
    }
    train_args_default(a);
    a->learning_rate_schedule_file[0] = '\0';
    snprintf(a->data_dir, sizeof(a->data_dir), "data");
    json_object_foreach(object, name, value)
    {
        if (read_one(a, name, value, canon, err) != 0)
            goto out;
    }
    if (builds)
        *builds = json_object_get(canon, "arch") ||
                  json_object_get(canon, "model_def");
    /* Where no network is built, there is a model that is trained on. */
    if (!json_object_get(canon, "arch") && !json_object_get(canon, "model_def"))
        snprintf(a->pretrained_model, sizeof(a->pretrained_model), "model");
    /* The teacher is a field of its own. */
    if (a->distill_triplets > 0 || a->distill_hints[0] || a->distill_mix > 0)
        snprintf(a->distill, sizeof(a->distill), "teacher");
    if (train_args_check(a, err) != 0) {
        error_context(err, "arguments");
        goto out;
    }
    text = json_dumps(canon, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        error_set(err, ERR_NOMEM, "no memory for the arguments");
    else if (strlen(text) >= JOBS_ARGUMENTS_MAX)
        error_set(err, ERR_BAD_FIELD, "arguments: over %d bytes",
                  JOBS_ARGUMENTS_MAX - 1);
    else
        rc = 0;
    if (rc == 0)
        memcpy(out, text, strlen(text) + 1);
out:
    free(text);
    json_decref(canon);
    free(a);
    return rc;
}

/* --- the command line -------------------------------------------------- */

struct line {
    FILE *out; /* words, each with its NUL */
    int n;
};

static void add(struct line *l, const char *word)
{
    fwrite(word, 1, strlen(word) + 1, l->out);
    l->n++;
}

/* --name=value; nothing where the value is "". */
static void add_text(struct line *l, const char *name, const char *value)
{
    if (!*value)
        return;
    fprintf(l->out, "--%s=%s", name, value);
    fputc('\0', l->out);
    l->n++;
}

static void add_below(struct line *l, const char *name, const char *dir,
                      const char *file)
{
    fprintf(l->out, "--%s=%s/%s", name, dir, file);
    fputc('\0', l->out);
    l->n++;
}

static void add_number(struct line *l, const char *name, double value)
{
    char text[40];

    snprintf(text, sizeof(text), "%.9g", value);
    add_text(l, name, text);
}

static int add_asked(struct line *l, const struct jobs_request *asked,
                     const struct jobs_paths *paths, double *minutes,
                     struct error *err)
{
    json_t *o = json_loads(asked->arguments, 0, NULL), *value;
    const char *name;
    int rc = 0;

    if (!json_is_object(o))
        rc = error_set(err, ERR_BAD_FIELD,
                       "the record's arguments are no "
                       "object");
    json_object_foreach(o, name, value)
    {
        const struct train_arg *arg = train_args_find(name);
        const char *text = json_string_value(value);

        if (!arg || !text || !is_allowed(arg)) {
            rc = error_set(err, ERR_BAD_FIELD,
                           "the record's argument '%.60s' is none of a job's",
                           name);
            break;
        }
        if (strcmp(name, "minutes") == 0 && paths->max_minutes > 0)
            *minutes = strtod(text, NULL);
        else if (arg->type != TRAIN_ARG_FLAG)
            add_text(l, name, text);
        else if (strcmp(text, "true") == 0)
            fprintf(l->out, "--%s%c", name, '\0'), l->n++;
    }
    json_decref(o);
    return rc;
}

static int fill(struct line *l, const struct jobs_request *asked,
                const struct jobs_paths *p, struct error *err)
{
    double minutes = 0;
    int memory_mib = 2048; /* of crops that the trainer keeps */

    add(l, p->trainer);
    add(l, "train");
    if (add_asked(l, asked, p, &minutes, err) != 0)
        return -1;
    add_text(l, "data_dir", p->data);
    add_text(l, "holdout_dir", p->holdout);
    add_text(l, "lfw_dir", p->lfw_dir);
    add_text(l, "lfw_pairs", p->lfw_pairs);
    add_text(l, "pretrained_model", asked->model_path);
    add_text(l, "distill", asked->teacher_path);
    add_text(l, "detectors", p->detectors);
    add_text(l, "resume", p->resume);
    add_text(l, "device", p->device);
    add_text(l, "device_plugin", p->plugin);
    add_below(l, "logs_base_dir", p->dir, "run/logs");
    add_below(l, "models_base_dir", p->dir, "run/models");
    add_below(l, "output", p->dir, "model.onnx");
    if (p->max_minutes > 0)
        add_number(l, "minutes",
                   minutes > 0 && minutes < p->max_minutes ? minutes
                                                           : p->max_minutes);
    if (p->memory > 0 && p->memory / 4 < (int64_t)memory_mib << 20)
        memory_mib = (int)(p->memory / 4 >> 20);
    add_number(l, "memory_mib", memory_mib < 64 ? 64 : memory_mib);
    add_number(l, "threads", p->n_threads);
    add_text(l, "progress_fd", "3");
    return 0;
}

char **jobs_args_argv(const struct jobs_request *asked,
                      const struct jobs_paths *paths, struct error *err)
{
    char *text = NULL, **argv = NULL, *to;
    size_t len = 0;
    struct line l = {.out = open_memstream(&text, &len)};
    int rc;

    if (!l.out)
        return error_null(err, ERR_NOMEM, "no memory for a command line");
    rc = fill(&l, asked, paths, err);
    if (fclose(l.out) != 0)
        rc = error_set(err, ERR_NOMEM, "no memory for a command line");
    if (rc == 0 && l.n > ARGV_MAX)
        rc = error_set(err, ERR_BAD_FIELD, "more than %d arguments", ARGV_MAX);
    if (rc == 0) {
        argv = malloc((size_t)(l.n + 1) * sizeof(*argv) + len);
        if (!argv)
            error_set(err, ERR_NOMEM, "no memory for a command line");
    }
    if (argv) {
        to = (char *)(argv + l.n + 1);
        memcpy(to, text, len);
        for (int i = 0; i < l.n; i++, to += strlen(to) + 1)
            argv[i] = to;
        argv[l.n] = NULL;
    }
    free(text);
    return argv;
}
