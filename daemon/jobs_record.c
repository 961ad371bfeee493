/* daemon/jobs_record.c - a job's record as JSON, on disk and in answers. The
 * fields are tables, so that what is written is what is read. */
#include "daemon/jobs_record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/file.h"

enum {
    RECORD_MAX_BYTES = 1024 * 1024
};

enum field_type {
    FIELD_TEXT,
    FIELD_INT,
    FIELD_INT64,
    FIELD_REAL,
    FIELD_BOOL
};

struct field {
    const char *name;
    enum field_type type;
    size_t at, size;
};

#define FIELD(of, type, name, member)                                          \
    {                                                                          \
        name, type, offsetof(struct of, member),                               \
            sizeof(((struct of *)0)->member)                                   \
    }
#define RECORD(type, name, member) FIELD(jobs_record, type, name, member)
#define ASKED(member) FIELD(jobs_request, FIELD_TEXT, #member, member)

static const struct field top[] = {
    RECORD(FIELD_TEXT, "id", id),
    RECORD(FIELD_INT64, "number", number),
    RECORD(FIELD_INT64, "turn", turn),
    RECORD(FIELD_TEXT, "text", text),
    RECORD(FIELD_INT64, "created_s", created_s),
    RECORD(FIELD_INT64, "started_s", started_s),
    RECORD(FIELD_INT64, "ended_s", ended_s),
    RECORD(FIELD_INT, "resumed", n_resumed),
    RECORD(FIELD_BOOL, "cancelling", cancelling),
    RECORD(FIELD_INT64, "pid", pid),
    RECORD(FIELD_INT64, "pid_start", pid_start),
    RECORD(FIELD_TEXT, "data_dir", data_dir),
    RECORD(FIELD_TEXT, "phase", phase),
    RECORD(FIELD_TEXT, "device", device),
    RECORD(FIELD_INT, "curve_every", curve_every),
    RECORD(FIELD_INT64, "steps", n_steps),
    RECORD(FIELD_INT64, "bad_lines", n_bad_lines),
    RECORD(FIELD_INT64, "checkpoint_step", checkpoint_step),
    RECORD(FIELD_TEXT, "checkpoint", checkpoint),
    RECORD(FIELD_TEXT, "outcome", outcome),
    RECORD(FIELD_TEXT, "model_file", model_file),
    RECORD(FIELD_TEXT, "model_id", model_id),
    {.name = NULL},
};

static const struct field progress[] = {
    RECORD(FIELD_INT64, "step", step),
    RECORD(FIELD_INT, "epoch", epoch),
    RECORD(FIELD_INT, "batch", batch),
    RECORD(FIELD_INT, "batches", n_batches),
    RECORD(FIELD_REAL, "loss", loss),
    RECORD(FIELD_REAL, "rate", rate),
    RECORD(FIELD_INT, "triplets", triplets),
    RECORD(FIELD_REAL, "faces_per_s", faces_per_s),
    RECORD(FIELD_REAL, "left_s", left_s),
    {.name = NULL},
};

static const struct field asked[] = {
    ASKED(gallery),   ASKED(folder),     ASKED(holdout_folder),
    ASKED(lfw_dir),   ASKED(lfw_pairs),  ASKED(model),
    ASKED(teacher),   ASKED(model_path), ASKED(teacher_path),
    ASKED(arguments), {.name = NULL},
};

static const struct field point[] = {
    FIELD(jobs_point, FIELD_INT64, "step", step),
    FIELD(jobs_point, FIELD_REAL, "loss", loss),
    FIELD(jobs_point, FIELD_INT, "triplets", triplets),
    FIELD(jobs_point, FIELD_REAL, "faces_per_s", faces_per_s),
    {.name = NULL},
};

static const struct field evaluation[] = {
    FIELD(jobs_evaluation, FIELD_TEXT, "when", when),
    FIELD(jobs_evaluation, FIELD_TEXT, "set", set),
    FIELD(jobs_evaluation, FIELD_INT64, "step", step),
    FIELD(jobs_evaluation, FIELD_REAL, "accuracy", accuracy),
    FIELD(jobs_evaluation, FIELD_REAL, "accuracy_std", accuracy_std),
    {.name = NULL},
};

static const char *const fars[] = {"0.1", "0.01", "0.001"};

static const char *const state_names[JOBS_STATES] = {
    [JOBS_QUEUED] = "queued",       [JOBS_RUNNING] = "running",
    [JOBS_PUBLISHED] = "published", [JOBS_REFUSED] = "refused",
    [JOBS_FAILED] = "failed",       [JOBS_STOPPED] = "stopped",
    [JOBS_KILLED] = "killed",       [JOBS_CANCELLED] = "cancelled",
};

const char *jobs_state_name(enum jobs_state state)
{
    return state_names[state];
}

bool jobs_state_ended(enum jobs_state state)
{
    return state != JOBS_QUEUED && state != JOBS_RUNNING;
}

bool jobs_record_resumable(const struct jobs_record *r)
{
    return jobs_state_ended(r->state) && r->state != JOBS_PUBLISHED &&
           r->state != JOBS_REFUSED && r->checkpoint[0];
}

/* --- texts ------------------------------------------------------------- */

/* Bytes of the UTF-8 character at p, 0 where there is none. */
static size_t character(const unsigned char *p, size_t left)
{
    size_t n = p[0] < 0x80             ? 1
               : (p[0] & 0xe0) == 0xc0 ? 2
               : (p[0] & 0xf0) == 0xe0 ? 3
               : (p[0] & 0xf8) == 0xf0 ? 4
                                       : 0;

    if (n == 0 || n > left || p[0] == 0xc0 || p[0] == 0xc1 || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

void jobs_text_set(char *out, size_t size, const char *text, size_t len,
                   bool lines)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t at = 0;

    for (size_t i = 0; i < len;) {
        size_t n = character(p + i, len - i);

        if (at + (n ? n : 1) >= size)
            break;
        if (n == 0)
            out[at++] = '?';
        else if (n == 1 && (p[i] < ' ' || p[i] == 0x7f))
            out[at++] = p[i] == '\n' && lines ? '\n' : ' ';
        else
            for (size_t k = 0; k < n; k++)
                out[at++] = text[i + k];
        i += n ? n : 1;
    }
    out[at] = '\0';
}

/* --- to JSON ----------------------------------------------------------- */

/* JSON has no NaN: a number that is none is null. */
static json_t *number_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *value_json(const void *from, const struct field *f)
{
    const char *at = (const char *)from + f->at;

    switch (f->type) {
    case FIELD_TEXT:
        return json_string(at);
    case FIELD_INT:
        return json_integer(*(const int *)at);
    case FIELD_INT64:
        return json_integer(*(const int64_t *)at);
    case FIELD_REAL:
        return number_json(*(const double *)at);
    case FIELD_BOOL:
        return json_boolean(*(const bool *)at);
    }
    return NULL;
}

/* Add the fields to take_o; NULL: no memory. */
static json_t *fields_json(json_t *take_o, const void *from,
                           const struct field *fields)
{
    for (const struct field *f = fields; take_o && f->name; f++) {
        if (json_object_set_new(take_o, f->name, value_json(from, f)) != 0) {
            json_decref(take_o);
            return NULL;
        }
    }
    return take_o;
}

static json_t *evaluation_json(const struct jobs_evaluation *e)
{
    json_t *o = fields_json(json_object(), e, evaluation);
    json_t *val =
        json_pack("{s:o, s:o, s:o}", fars[0], number_json(e->val[0]), fars[1],
                  number_json(e->val[1]), fars[2], number_json(e->val[2]));

    if (o && json_object_set_new(o, "val", val) == 0)
        return o;
    json_decref(o);
    return NULL;
}

/* Append to take_list; NULL: no memory. */
static json_t *append(json_t *take_list, json_t *take_value)
{
    if (take_list && json_array_append_new(take_list, take_value) == 0)
        return take_list;
    json_decref(take_list);
    return NULL;
}

json_t *jobs_record_json(const struct jobs_record *r)
{
    json_t *o = fields_json(json_object(), r, top);
    json_t *curve = json_array(), *list = json_array(), *words = json_array();
    int rc = 0;

    for (int i = 0; i < r->n_curve; i++)
        curve = append(curve, fields_json(json_object(), &r->curve[i], point));
    for (int i = 0; i < r->n_evaluations; i++)
        list = append(list, evaluation_json(&r->evaluations[i]));
    for (int i = 0; i < r->n_warnings; i++)
        words = append(words, json_string(r->warnings[i]));
    rc |= json_object_set_new(o, "state", json_string(state_names[r->state]));
    rc |= json_object_set_new(o, "asked",
                              fields_json(json_object(), &r->asked, asked));
    rc |= json_object_set_new(o, "progress",
                              fields_json(json_object(), r, progress));
    rc |= json_object_set_new(o, "curve", curve);
    rc |= json_object_set_new(o, "evaluations", list);
    rc |= json_object_set_new(o, "warnings", words);
    if (rc == 0)
        return o;
    json_decref(o);
    return NULL;
}

/* --- from JSON --------------------------------------------------------- */

/* false: the value is there and is not of the field's kind. */
static bool value_read(void *to, const struct field *f, const json_t *value)
{
    char *at = (char *)to + f->at;
    json_int_t number;

    if (json_is_null(value) && f->type == FIELD_REAL)
        *(double *)at = (double)NAN;
    if (!value || json_is_null(value))
        return true;
    switch (f->type) {
    case FIELD_TEXT:
        if (!json_is_string(value))
            return false;
        jobs_text_set(at, f->size, json_string_value(value),
                      json_string_length(value), false);
        return true;
    case FIELD_INT:
    case FIELD_INT64:
        if (!json_is_integer(value))
            return false;
        number = json_integer_value(value);
        if (f->type == FIELD_INT64)
            *(int64_t *)at = number;
        else if (number >= INT32_MIN && number <= INT32_MAX)
            *(int *)at = (int)number;
        else
            return false;
        return true;
    case FIELD_REAL: /* jansson reads no infinity, and no NaN */
        if (!json_is_number(value))
            return false;
        *(double *)at = json_number_value(value);
        return true;
    case FIELD_BOOL:
        if (!json_is_boolean(value))
            return false;
        *(bool *)at = json_is_true(value);
        return true;
    }
    return false;
}

static bool fields_read(void *to, const struct field *fields, const json_t *o)
{
    if (!json_is_object(o))
        return false;
    for (const struct field *f = fields; f->name; f++)
        if (!value_read(to, f, json_object_get(o, f->name)))
            return false;
    return true;
}

static bool evaluation_read(struct jobs_evaluation *e, const json_t *o)
{
    const json_t *val = json_object_get(o, "val");

    memset(e, 0, sizeof(*e));
    if (!fields_read(e, evaluation, o) || (val && !json_is_object(val)))
        return false;
    for (int i = 0; i < 3; i++) {
        const json_t *one = json_object_get(val, fars[i]);
        if (one && !json_is_null(one) && !json_is_number(one))
            return false;
        e->val[i] = json_is_number(one) ? json_number_value(one) : (double)NAN;
    }
    return true;
}

static bool lists_read(struct jobs_record *r, const json_t *o)
{
    const json_t *curve = json_object_get(o, "curve");
    const json_t *list = json_object_get(o, "evaluations");
    const json_t *words = json_object_get(o, "warnings");

    if (json_array_size(curve) > JOBS_CURVE_MAX ||
        json_array_size(list) > JOBS_EVALUATIONS_MAX ||
        json_array_size(words) > JOBS_WARNINGS_MAX)
        return false;
    r->n_curve = (int)json_array_size(curve);
    for (int i = 0; i < r->n_curve; i++)
        if (!fields_read(&r->curve[i], point, json_array_get(curve, (size_t)i)))
            return false;
    r->n_evaluations = (int)json_array_size(list);
    for (int i = 0; i < r->n_evaluations; i++)
        if (!evaluation_read(&r->evaluations[i],
                             json_array_get(list, (size_t)i)))
            return false;
    r->n_warnings = (int)json_array_size(words);
    for (int i = 0; i < r->n_warnings; i++) {
        const json_t *one = json_array_get(words, (size_t)i);
        if (!json_is_string(one))
            return false;
        jobs_text_set(r->warnings[i], sizeof(r->warnings[i]),
                      json_string_value(one), json_string_length(one), false);
    }
    return true;
}

static bool record_read(struct jobs_record *r, const json_t *o)
{
    const char *state = json_string_value(json_object_get(o, "state"));
    int i = 0;

    memset(r, 0, sizeof(*r));
    while (state && i < JOBS_STATES && strcmp(state, state_names[i]) != 0)
        i++;
    if (!state || i == JOBS_STATES)
        return false;
    r->state = (enum jobs_state)i;
    return fields_read(r, top, o) && r->id[0] && r->number > 0 &&
           r->curve_every >= 0 &&
           fields_read(r, progress, json_object_get(o, "progress")) &&
           fields_read(&r->asked, asked, json_object_get(o, "asked")) &&
           lists_read(r, o);
}

/* --- the file ---------------------------------------------------------- */

static int file_error(struct error *err, const char *path)
{
    return error_set(
        err, errno == ENOSPC || errno == EDQUOT ? ERR_STORAGE_FULL : ERR_FILE,
        "%.150s: %s", path, strerror(errno));
}

static int write_file(const char *path, const char *text)
{
    int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc, why;

    if (fd < 0)
        return -1;
    rc = file_write_all(fd, text, strlen(text)) == 0 && fsync(fd) == 0 ? 0 : -1;
    why = errno;
    if (close(fd) != 0 && rc == 0)
        return -1;
    errno = why;
    return rc;
}

int jobs_record_save(const struct jobs_record *r, const char *dir,
                     struct error *err)
{
    char path[JOBS_PATH_MAX + 32], beside[JOBS_PATH_MAX + 32];
    json_t *o = jobs_record_json(r);
    char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    int rc = 0;

    json_decref(o);
    if (!text)
        return error_set(err, ERR_NOMEM, "no memory for the job's record");
    snprintf(path, sizeof(path), "%s/record.json", dir);
    snprintf(beside, sizeof(beside), "%s/record.new", dir);
    if (write_file(beside, text) != 0)
        rc = file_error(err, beside);
    else if (rename(beside, path) != 0 || file_sync_dir(dir) != 0)
        rc = file_error(err, path);
    if (rc != 0)
        unlink(beside);
    free(text);
    return rc;
}

int jobs_record_load(struct jobs_record *r, const char *dir, struct error *err)
{
    char path[JOBS_PATH_MAX + 32];
    json_error_t why;
    json_t *o;
    struct stat st;
    bool good;
    int fd;

    snprintf(path, sizeof(path), "%s/record.json", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return file_error(err, path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
        st.st_size > RECORD_MAX_BYTES) {
        close(fd);
        return error_set(err, ERR_BAD_JSON, "%.150s is no record of a job",
                         path);
    }
    o = json_loadfd(fd, JSON_REJECT_DUPLICATES, &why);
    close(fd);
    good = o && record_read(r, o);
    json_decref(o);
    if (!good)
        return error_set(err, ERR_BAD_JSON, "%.150s is damaged%s%.60s", path,
                         o ? "" : ": ", o ? "" : why.text);
    return 0;
}

/* --- the trainer's lines ----------------------------------------------- */

/* Every curve_every-th step has a point; when there is no more room, every
 * second point goes. */
static void add_point(struct jobs_record *r)
{
    if (r->curve_every < 1)
        r->curve_every = 1;
    if (r->n_steps++ % r->curve_every != 0)
        return;
    if (r->n_curve == JOBS_CURVE_MAX) {
        for (int i = 0; i < JOBS_CURVE_MAX / 2; i++)
            r->curve[i] = r->curve[2 * i];
        r->n_curve = JOBS_CURVE_MAX / 2;
        r->curve_every *= 2;
    }
    r->curve[r->n_curve++] = (struct jobs_point){.step = r->step,
                                                 .loss = r->loss,
                                                 .faces_per_s = r->faces_per_s,
                                                 .triplets = r->triplets};
}

/* The first ones (before training) stay; of those during it, the oldest goes
 * when there is no more room. */
static void add_evaluation(struct jobs_record *r,
                           const struct jobs_evaluation *e)
{
    int at = 0;

    if (r->n_evaluations == JOBS_EVALUATIONS_MAX) {
        while (at < r->n_evaluations - 1 &&
               strcmp(r->evaluations[at].when, "during") != 0)
            at++;
        memmove(&r->evaluations[at], &r->evaluations[at + 1],
                (size_t)(r->n_evaluations - 1 - at) * sizeof(*e));
        r->n_evaluations--;
    }
    r->evaluations[r->n_evaluations++] = *e;
}

static void add_warning(struct jobs_record *r, const char *text)
{
    if (r->n_warnings == JOBS_WARNINGS_MAX) {
        memmove(r->warnings[0], r->warnings[1],
                (JOBS_WARNINGS_MAX - 1) * sizeof(r->warnings[0]));
        r->n_warnings--;
    }
    jobs_text_set(r->warnings[r->n_warnings++], sizeof(r->warnings[0]), text,
                  strlen(text), false);
}

static bool is_one_of(const char *text, const char *a, const char *b,
                      const char *c)
{
    return strcmp(text, a) == 0 || strcmp(text, b) == 0 || strcmp(text, c) == 0;
}

static enum jobs_event read_step(struct jobs_record *r, const json_t *o)
{
    struct jobs_record next = *r;

    if (!fields_read(&next, progress, o) || next.step < 0)
        return JOBS_EVENT_BAD;
    *r = next;
    add_point(r);
    return JOBS_EVENT_STEP;
}

static enum jobs_event read_evaluation(struct jobs_record *r, const json_t *o)
{
    struct jobs_evaluation e;

    if (!evaluation_read(&e, o) ||
        !is_one_of(e.when, "before", "during", "after") ||
        !is_one_of(e.set, "held", "lfw", "lfw"))
        return JOBS_EVENT_BAD;
    add_evaluation(r, &e);
    return JOBS_EVENT_EVALUATION;
}

static enum jobs_event read_checkpoint(struct jobs_record *r, const json_t *o)
{
    const json_t *step = json_object_get(o, "step");
    const char *path = json_string_value(json_object_get(o, "path"));

    if (!path || !path[0] || strlen(path) >= sizeof(r->checkpoint) ||
        (step && !json_is_integer(step)))
        return JOBS_EVENT_BAD;
    jobs_text_set(r->checkpoint, sizeof(r->checkpoint), path, strlen(path),
                  false);
    r->checkpoint_step = json_integer_value(step);
    return JOBS_EVENT_CHECKPOINT;
}

static enum jobs_event read_result(struct jobs_record *r, const json_t *o)
{
    const char *outcome = json_string_value(json_object_get(o, "outcome"));
    const char *text = json_string_value(json_object_get(o, "text"));

    if (!outcome || (!is_one_of(outcome, "published", "refused", "stopped") &&
                     strcmp(outcome, "failed") != 0))
        return JOBS_EVENT_BAD;
    snprintf(r->outcome, sizeof(r->outcome), "%s", outcome);
    if (text)
        jobs_text_set(r->text, sizeof(r->text), text, strlen(text), false);
    return JOBS_EVENT_RESULT;
}

static enum jobs_event read_event(struct jobs_record *r, const json_t *o)
{
    const char *event = json_string_value(json_object_get(o, "event"));
    const char *text = json_string_value(json_object_get(o, "text"));

    if (!event)
        return JOBS_EVENT_BAD;
    if (strcmp(event, "step") == 0)
        return read_step(r, o);
    if (strcmp(event, "evaluation") == 0)
        return read_evaluation(r, o);
    if (strcmp(event, "checkpoint") == 0)
        return read_checkpoint(r, o);
    if (strcmp(event, "result") == 0)
        return read_result(r, o);
    if (!text)
        return JOBS_EVENT_BAD;
    if (strcmp(event, "phase") == 0) {
        jobs_text_set(r->phase, sizeof(r->phase), text, strlen(text), false);
        return JOBS_EVENT_PHASE;
    }
    if (strcmp(event, "device") == 0) {
        jobs_text_set(r->device, sizeof(r->device), text, strlen(text), false);
        return JOBS_EVENT_DEVICE;
    }
    if (strcmp(event, "warning") == 0) {
        add_warning(r, text);
        return JOBS_EVENT_WARNING;
    }
    return JOBS_EVENT_BAD;
}

enum jobs_event jobs_record_event(struct jobs_record *r, const char *line,
                                  size_t len)
{
    json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    enum jobs_event event = o ? read_event(r, o) : JOBS_EVENT_BAD;

    json_decref(o);
    if (event == JOBS_EVENT_BAD)
        r->n_bad_lines++;
    return event;
}
