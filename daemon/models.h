/* daemon/models.h - the embedders that can be had, by id.
 * Two directories: the configured one (setting `models`), which is only read,
 * and DATA-DIR/models, where uploaded and fine-tuned ones are kept as ID.onnx.
 * A model is checked, its golden pair included, before it is kept.
 * Thread: any, except models_open and models_close: main. */
#ifndef DAEMON_MODELS_H
#define DAEMON_MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/face/model.h"

struct models; /* opaque */

enum {
    MODELS_OWN_MAX = 64,    /* kept ones */
    MODELS_FILES_MAX = 1000 /* of the configured directory that are looked at */
};

struct model_entry {
    char id[65];     /* as of struct model */
    char name[72];   /* file name without .onnx; of a kept one the start of
                        its id */
    bool own;        /* kept by the daemon: can be removed */
    int64_t bytes;   /* of the file */
    int64_t added_s; /* Unix time of the file's last change */
    struct contract contract; /* golden NULL */
};

/* dir: the configured directory; data_dir: its subdirectory models is used.
 * dev runs the checks of uploads; borrowed. ERR_NOMEM. */
struct models *models_open(const char *dir, const char *data_dir,
                           struct device *dev, struct error *err);
void models_close(struct models *m); /* NULL is fine */
/* Remove what uploads left that a crash cut short, once the data directory is
 * held against other processes. */
void models_sweep(struct models *m);

/* Copy a file into the kept ones, once checked; id gets its id. It takes the
 * place of one with this id, whose thresholds may be others. ERR_BAD_MODEL (no
 * embedder, no contract, damaged, too large, the golden pair does not hold),
 * ERR_QUOTA, ERR_STORAGE_FULL, ERR_FILE. */
int models_import(struct models *m, const char *path, char id[65],
                  struct error *err);
/* The same of bytes; *added (may be NULL): it was not there. */
int models_put(struct models *m, const void *bytes, size_t len_bytes,
               char id[65], bool *added, struct error *err);

/* Every embedder, kept ones first. malloc'd array, free(). */
int models_list(struct models *m, struct model_entry **out, int *n,
                struct error *err);
/* ERR_NO_MODEL. */
int models_find(struct models *m, const char *id, struct model_entry *out,
                struct error *err);
/* Load an embedder, checked on dev; *bf16_ok (may be NULL) as model_load.
 * ERR_NO_MODEL; ERR_MODEL also when the file changed meanwhile. */
struct model *models_load(struct models *m, const char *id, struct device *dev,
                          bool *bf16_ok, struct error *err);
/* The id of the configured directory's NAME.onnx. ERR_CONFIG,
 * ERR_NO_CONTRACT. */
int models_id_of(struct models *m, const char *name, char id[65],
                 struct error *err);
/* Remove a kept one. ERR_NO_MODEL; ERR_CONFLICT: it is not the daemon's. */
int models_remove(struct models *m, const char *id, struct error *err);

#endif
