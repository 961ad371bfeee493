/* core/train/checkpoint.h - the state of a run on disk: whole or not at all.
 * A file of named parts, each with its SHA-256; written beside, synced, then
 * renamed, so that a crash or a full disk leaves the checkpoints before it as
 * they were. Numbers are the machine's own (little endian). Thread: one. */
#ifndef CORE_TRAIN_CHECKPOINT_H
#define CORE_TRAIN_CHECKPOINT_H

#include <stddef.h>

#include "core/base/error.h"

enum {
    CHECKPOINT_MAX_PARTS = 64,
    CHECKPOINT_MAX_NAME = 31, /* bytes of a part's name */
    CHECKPOINT_KEEP = 3,      /* what the training script keeps */
    CHECKPOINT_MAX_PATH = 4200
};

struct checkpoint_part {
    const char *name;
    void *bytes; /* save only reads it */
    size_t len;
};

/* Write dir/checkpoint-STEP, then remove of those up to STEP all but the `keep`
 * newest; later ones stay. path (may be NULL) [CHECKPOINT_MAX_PATH]: its name.
 * ERR_FILE (ERR_STORAGE_FULL on a full disk): nothing else has changed. */
int checkpoint_save(const char *dir, long long step,
                    const struct checkpoint_part *parts, int n, int keep,
                    char *path, struct error *err);

/* Fill every part; the file must hold just these, of these lengths. ERR_FILE
 * when it cannot be read, ERR_BAD_FIELD when it is no checkpoint, is damaged
 * or of another network: the text names the file and the part, and the
 * checkpoint before it where there is one. Parts are then not to be used. */
int checkpoint_load(const char *path, const struct checkpoint_part *parts,
                    int n, struct error *err);

/* Length in bytes of a part, from the file's head alone, for parts whose
 * length the file decides. -1 with err set as checkpoint_load. */
long long checkpoint_part_len(const char *path, const char *name,
                              struct error *err);

/* The checkpoint of the highest step in dir below `below` (negative: any).
 * Returns its step, or -1 with err set: ERR_FILE where dir holds none. */
long long checkpoint_newest(const char *dir, long long below,
                            char path[CHECKPOINT_MAX_PATH], struct error *err);

#endif
