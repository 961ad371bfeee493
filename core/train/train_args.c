/* core/train/train_args.c - the table that args.def makes, and its parser. */
#include "core/train/train_args.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(name) offsetof(struct train_args, name)
static const struct train_arg table[] = {
#define ARG_SECTION(text) {.help = text},
#define ARG_TEXT(n, def, about)                                                \
    {.name = #n, .type = TRAIN_ARG_TEXT, .help = about, .offset = AT(n)},
#define ARG_INT(n, def, l, h, about)                                           \
    {.name = #n,                                                               \
     .type = TRAIN_ARG_INT,                                                    \
     .lo = l,                                                                  \
     .hi = h,                                                                  \
     .help = about,                                                            \
     .offset = AT(n)},
#define ARG_REAL(n, def, l, h, about)                                          \
    {.name = #n,                                                               \
     .type = TRAIN_ARG_REAL,                                                   \
     .lo = l,                                                                  \
     .hi = h,                                                                  \
     .help = about,                                                            \
     .offset = AT(n)},
#define ARG_FLAG(n, def, about)                                                \
    {.name = #n, .type = TRAIN_ARG_FLAG, .help = about, .offset = AT(n)},
#define ARG_CHOICE(n, def, c, about)                                           \
    {.name = #n,                                                               \
     .type = TRAIN_ARG_CHOICE,                                                 \
     .choices = c,                                                             \
     .help = about,                                                            \
     .offset = AT(n)},
#include "core/train/args.def"
};
#undef ARG_SECTION
#undef ARG_TEXT
#undef ARG_INT
#undef ARG_REAL
#undef ARG_FLAG
#undef ARG_CHOICE
#undef AT

const struct train_arg *train_args_list(int *n)
{
    *n = (int)(sizeof(table) / sizeof(table[0]));
    return table;
}

const struct train_arg *train_args_find(const char *name)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const char *want = table[i].name, *p = name;

        if (!want)
            continue;
        while (*want && (*p == *want || (*p == '-' && *want == '_'))) {
            want++;
            p++;
        }
        if (!*want && !*p)
            return &table[i];
    }
    return NULL;
}

void train_args_default(struct train_args *a)
{
    memset(a, 0, sizeof(*a));
#define ARG_SECTION(text)
#define ARG_TEXT(name, def, help) memcpy(a->name, def, sizeof(def));
#define ARG_INT(name, def, lo, hi, help) a->name = def;
#define ARG_REAL(name, def, lo, hi, help) a->name = def;
#define ARG_FLAG(name, def, help) a->name = def;
#define ARG_CHOICE(name, def, choices, help) memcpy(a->name, def, sizeof(def));
#include "core/train/args.def"
#undef ARG_SECTION
#undef ARG_TEXT
#undef ARG_INT
#undef ARG_REAL
#undef ARG_FLAG
#undef ARG_CHOICE
}

static bool one_of(const char *value, const char *choices)
{
    size_t n = strlen(value);

    if (strchr(value, '|'))
        return false;
    for (const char *p = choices; p; p = strchr(p, '|')) {
        p += *p == '|';
        if (n > 0 && strncmp(p, value, n) == 0 && (p[n] == '|' || !p[n]))
            return true;
    }
    return false;
}

static int set_number(void *at, const struct train_arg *arg, const char *value,
                      struct error *err)
{
    char *end;
    double v;

    errno = 0;
    v = strtod(value, &end);
    if (end == value || *end || errno || !isfinite(v) ||
        (arg->type == TRAIN_ARG_INT && v != floor(v)))
        return error_set(
            err, ERR_BAD_FIELD, "%s: '%.40s' is no %s", arg->name, value,
            arg->type == TRAIN_ARG_INT ? "whole number" : "number");
    if (v < arg->lo || v > arg->hi)
        return error_set(err, ERR_BAD_FIELD, "%s: %.40s is not in %g to %g",
                         arg->name, value, arg->lo, arg->hi);
    if (arg->type == TRAIN_ARG_INT)
        *(int *)at = (int)v;
    else
        *(double *)at = v;
    return 0;
}

static int set_flag(bool *at, const struct train_arg *arg, const char *value,
                    struct error *err)
{
    if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return error_set(err, ERR_BAD_FIELD,
                         "%s: '%.40s' is neither true nor false", arg->name,
                         value);
    *at = !value || strcmp(value, "true") == 0;
    return 0;
}

static int set_text(char *at, const struct train_arg *arg, const char *value,
                    struct error *err)
{
    if (arg->type == TRAIN_ARG_CHOICE && !one_of(value, arg->choices))
        return error_set(err, ERR_BAD_FIELD, "%s: '%.40s' is none of %s",
                         arg->name, value, arg->choices);
    if (strlen(value) >= TRAIN_ARG_MAX)
        return error_set(err, ERR_BAD_FIELD, "%s: over %d bytes", arg->name,
                         TRAIN_ARG_MAX - 1);
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < ' ')
            return error_set(err, ERR_BAD_FIELD,
                             "%s: a control character in it", arg->name);
    memcpy(at, value, strlen(value) + 1);
    return 0;
}

int train_args_set(struct train_args *a, const char *name, const char *value,
                   struct error *err)
{
    const struct train_arg *arg = train_args_find(name);
    char *at = arg ? (char *)a + arg->offset : NULL;

    if (!arg)
        return error_set(err, ERR_BAD_FIELD, "there is no argument '%.60s'",
                         name);
    if (arg->type == TRAIN_ARG_FLAG)
        return set_flag((bool *)at, arg, value, err);
    if (!value)
        return error_set(err, ERR_BAD_FIELD, "%s: a value is missing",
                         arg->name);
    if (arg->type == TRAIN_ARG_TEXT || arg->type == TRAIN_ARG_CHOICE)
        return set_text(at, arg, value, err);
    return set_number(at, arg, value, err);
}

const char *train_args_get(const struct train_args *a,
                           const struct train_arg *arg, char *buf, size_t len)
{
    const char *at = (const char *)a + arg->offset;

    switch (arg->type) {
    case TRAIN_ARG_INT:
        snprintf(buf, len, "%d", *(const int *)at);
        break;
    case TRAIN_ARG_REAL: /* every bit of it */
        snprintf(buf, len, "%.17g", *(const double *)at);
        if (strtod(buf, NULL) == *(const double *)at) {
            char brief[32];

            snprintf(brief, sizeof(brief), "%g", *(const double *)at);
            if (strtod(brief, NULL) == *(const double *)at)
                snprintf(buf, len, "%s", brief);
        }
        break;
    case TRAIN_ARG_FLAG:
        snprintf(buf, len, "%s", *(const bool *)at ? "true" : "false");
        break;
    case TRAIN_ARG_TEXT:
    case TRAIN_ARG_CHOICE:
        snprintf(buf, len, "%s", at);
        break;
    }
    return buf;
}

int train_args_check(const struct train_args *a, struct error *err)
{
    if (a->batch_size % 3 != 0)
        return error_set(err, ERR_BAD_FIELD,
                         "batch_size: %d is no multiple of 3", a->batch_size);
    if ((long long)a->people_per_batch * a->images_per_person % 3 != 0)
        return error_set(err, ERR_BAD_FIELD,
                         "people_per_batch: %d times images_per_person %d is "
                         "no multiple of 3",
                         a->people_per_batch, a->images_per_person);
    if (a->learning_rate == 0)
        return error_set(err, ERR_BAD_FIELD,
                         "learning_rate: 0 would learn nothing");
    if (a->learning_rate < 0 && !a->learning_rate_schedule_file[0])
        return error_set(err, ERR_BAD_FIELD,
                         "learning_rate: it is negative, and there is no "
                         "learning_rate_schedule_file");
    if (a->harmonic && !a->pretrained_model[0])
        return error_set(err, ERR_BAD_FIELD,
                         "harmonic: it needs a pretrained_model");
    if (a->harmonic && a->distill[0])
        return error_set(err, ERR_BAD_FIELD,
                         "harmonic: it does not go with distill");
    if (a->distill_triplets > 0 && !a->distill[0])
        return error_set(err, ERR_BAD_FIELD,
                         "distill_triplets: it needs distill");
    if ((a->distill_hints[0] || a->distill_mix > 0) && !a->distill[0])
        return error_set(err, ERR_BAD_FIELD, "%s: it needs distill",
                         a->distill_hints[0] ? "distill_hints" : "distill_mix");
    if (a->distill_mix > 0 && a->distill_triplets > 0)
        return error_set(err, ERR_BAD_FIELD,
                         "distill_mix: a blend is nobody's face, it does not "
                         "go with distill_triplets");
    if (!a->data_dir[0])
        return error_set(err, ERR_BAD_FIELD,
                         "data_dir: a folder of photos is needed");
    return 0;
}
