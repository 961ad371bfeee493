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
#include "core/train/train_args.h"

enum train_outcome {
    TRAIN_PUBLISHED, /* the model is written */
    TRAIN_REFUSED,   /* it is worse than what it came from: model written
                        beside, as refused.onnx */
    TRAIN_STOPPED,   /* *stop: a checkpoint is written, it can resume */
    TRAIN_CHECKED    /* a dry run: nothing is written */
};

enum train_event_kind {
    TRAIN_PHASE,  /* text: "check", "before", "train", "evaluate", "after",
                     "write" */
    TRAIN_DEVICE, /* text: what it learns on, and why no other */
    TRAIN_STEP,   /* one training batch */
    TRAIN_EVALUATION,
    TRAIN_WARNING,    /* text */
    TRAIN_CHECKPOINT, /* path */
    TRAIN_RESULT      /* outcome, text: the figures; path of the model, NULL
                         where none is written. Not after an error. */
};
struct train_event {
    enum train_event_kind kind;
    const char *text, *path; /* borrowed for the call */
    enum train_outcome outcome;
    long long step;              /* training batches so far */
    int epoch, batch, n_batches; /* batch of the epoch; from 1 */
    double loss, rate, faces_per_s;
    double left_s;  /* negative: not known */
    int n_triplets; /* of this round; 0 without rounds */
    /* evaluation; a number that was not measured is NaN */
    const char *when, *set; /* "before" "during" "after"; "lfw" "held" */
    double accuracy, accuracy_std;
    double val[3], far[3]; /* at 1e-1 1e-2 1e-3 */
};
typedef void (*train_event_fn)(void *ctx, const struct train_event *e);

/* Runs all of it. ERR_BAD_FIELD for arguments and data, ERR_TRAINING for NaN
 * and collapse, ERR_MODEL, ERR_FILE, ERR_STORAGE_FULL, ERR_NOMEM, ERR_DEVICE
 * (the one that was asked for, or it was lost). Once the
 * network stands, *stop leads to a checkpoint and TRAIN_STOPPED in every
 * phase; before that there is nothing to keep, and it is TRAIN_STOPPED with
 * no checkpoint event. */
int train_run(const struct train_args *a, train_event_fn fn, void *ctx,
              const volatile sig_atomic_t *stop, enum train_outcome *out,
              struct error *err);

#endif
