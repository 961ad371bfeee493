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
