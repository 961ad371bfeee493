/* core/train/train_args.h - the arguments of a run: names, defaults, ranges.
 * Made from args.def, which facenetctl train --help, arguments.txt and the
 * daemon's jobs all read. Thread: any. */
#ifndef CORE_TRAIN_TRAIN_ARGS_H
#define CORE_TRAIN_TRAIN_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

enum {
    TRAIN_ARG_MAX = 1024 /* bytes of a text, with its end */
};

/* Field names are the arguments'. */
struct train_args {
#define ARG_SECTION(text)
#define ARG_TEXT(name, def, help) char name[TRAIN_ARG_MAX];
#define ARG_INT(name, def, lo, hi, help) int name;
#define ARG_REAL(name, def, lo, hi, help) double name;
#define ARG_FLAG(name, def, help) bool name;
#define ARG_CHOICE(name, def, choices, help) char name[32];
#include "core/train/args.def"
#undef ARG_SECTION
#undef ARG_TEXT
#undef ARG_INT
#undef ARG_REAL
#undef ARG_FLAG
#undef ARG_CHOICE
};

enum train_arg_type {
    TRAIN_ARG_TEXT,
    TRAIN_ARG_INT,
    TRAIN_ARG_REAL,
    TRAIN_ARG_FLAG, /* true or false */
    TRAIN_ARG_CHOICE
};

struct train_arg { /* a row of args.def; name NULL: a heading, help */
    const char *name, *help;
    enum train_arg_type type;
    double lo, hi;       /* integers and reals */
    const char *choices; /* "a|b|c" */
    size_t offset;       /* in struct train_args */
};

const struct train_arg *train_args_list(int *n); /* with headings */
/* '-' stands for '_' in the name; NULL: there is none. */
const struct train_arg *train_args_find(const char *name);
void train_args_default(struct train_args *a);
/* ERR_BAD_FIELD names the argument and what it takes; *a is as it was. A flag
 * takes true or false, or NULL for true. */
int train_args_set(struct train_args *a, const char *name, const char *value,
                   struct error *err);
/* The value as text that train_args_set takes; into buf, which is returned. */
const char *train_args_get(const struct train_args *a,
                           const struct train_arg *arg, char *buf, size_t len);
/* What one argument's range cannot say: batch_size a multiple of 3, people
 * times images too, a schedule file where the rate is negative, harmonic with
 * a pretrained model, and that there is something to train on. */
int train_args_check(const struct train_args *a, struct error *err);

#endif
