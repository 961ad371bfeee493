/* core/train/train.h - the run: rounds of selection and training, distillation,
 * checkpoints, evaluation, guards, the finished model.
 * What facenetctl train calls, for a person or for the daemon's job.
 * Thread: one call at a time; other threads only set *stop. */
#ifndef CORE_TRAIN_TRAIN_H
#define CORE_TRAIN_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* Every argument, one line each in args.def: name, type, default, range,
 * help. Field names are the argument's. */
struct train_args {
#define ARG_TEXT(name, def, help) char name[1024];
#define ARG_INT(name, def, lo, hi, help) int name;
#define ARG_REAL(name, def, lo, hi, help) double name;
#define ARG_FLAG(name, def, help) bool name;
#define ARG_CHOICE(name, def, choices, help) char name[32];
#define ARG_SECTION(text)
#include "core/train/args.def"
#undef ARG_TEXT
#undef ARG_INT
#undef ARG_REAL
#undef ARG_FLAG
#undef ARG_CHOICE
#undef ARG_SECTION
};
struct train_arg { /* a row of args.def, for --help, api and tests */
    const char *name, *def, *choices, *help, *section;
    char type; /* t i r f c */
    double lo, hi;
    size_t offset;
};
const struct train_arg *train_arg_list(int *n);
void train_args_default(struct train_args *a);
/* name with '_' or '-'; ERR_BAD_FIELD says what is allowed. */
int train_arg_set(struct train_args *a, const char *name, const char *value,
                  struct error *err);
/* As text that train_arg_set takes. */
const char *train_arg_get(const struct train_args *a,
                          const struct train_arg *arg, char *buf, size_t len);

enum train_event_kind {
    TRAIN_PHASE, /* text: "check", "before", "train", "evaluate", "after",
                    "write" */
    TRAIN_STEP,  /* one training batch */
    TRAIN_EVALUATION,
    TRAIN_WARNING,
    TRAIN_CHECKPOINT, /* text: its path */
    TRAIN_RESULT      /* text: "published", "refused", "cancelled" and why */
};
struct train_event {
    enum train_event_kind kind;
    const char *text;
    long long step;
    int epoch, batch, n_batches; /* batch of the epoch */
    double loss, rate, faces_per_s, left_s;
    int n_triplets;
    /* evaluation */
    const char *set;                               /* "lfw", "held" */
    double accuracy, accuracy_std, val[3], far[3]; /* at 1e-1 1e-2 1e-3 */
};
typedef void (*train_event_fn)(void *ctx, const struct train_event *e);

enum train_outcome {
    TRAIN_PUBLISHED, /* the model is written */
    TRAIN_REFUSED,   /* it is worse than what it came from: model written
                        beside, as refused.onnx */
    TRAIN_STOPPED    /* *stop: a checkpoint is written, it can resume */
};
/* Runs all of it. ERR_BAD_FIELD for arguments and data, ERR_TRAINING for NaN
 * and collapse, ERR_FILE, ERR_NOMEM. */
int train_run(const struct train_args *a, train_event_fn fn, void *ctx,
              const volatile sig_atomic_t *stop, enum train_outcome *out,
              struct error *err);

#endif
