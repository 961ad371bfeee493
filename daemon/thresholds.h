/* daemon/thresholds.h - thresholds that were measured on the daemon's own
 * faces, by the model they belong to: DATA-DIR/thresholds.json. They go
 * before those in the model's contract, which its file keeps.
 * Thread: any, where nothing else is said. */
#ifndef DAEMON_THRESHOLDS_H
#define DAEMON_THRESHOLDS_H

#include <stdbool.h>

#include "core/base/error.h"
#include "core/face/model.h"

enum {
    THRESHOLDS_MAX_MODELS = 256,
    THRESHOLDS_MAX_BYTES = 1 << 20
};

struct thresholds;

/* Read the file; none is fine. ERR_CONFIG where it is damaged: what decides
 * who is let in must not change unseen. Thread: main. */
struct thresholds *thresholds_open(const char *data_dir, struct error *err);
void thresholds_close(struct thresholds *t); /* NULL is fine */

/* Fill up n rows that were measured here with those of the contract that are
 * of other rates and do not contradict them. Returns how many. */
int thresholds_merge(const struct contract *c,
                     struct model_threshold rows[MODEL_MAX_THRESHOLDS], int n);
/* Those in force for a model, merged. Returns how many. *own (may be NULL):
 * some were measured here. */
int thresholds_of(struct thresholds *t, const struct model *m,
                  struct model_threshold out[MODEL_MAX_THRESHOLDS], bool *own);

/* Put n thresholds in force for a model, n 0: its contract's again. On disk
 * before it returns; on failure (ERR_FILE, ERR_STORAGE_FULL, ERR_QUOTA,
 * ERR_NOMEM) nothing changes. */
int thresholds_apply(struct thresholds *t, const char *model_id,
                     const struct model_threshold *rows, int n,
                     struct error *err);

#endif
