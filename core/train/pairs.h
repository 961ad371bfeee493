/* core/train/pairs.h - lists of photo pairs: LFW's and a plain one.
 * Thread: any. */
#ifndef CORE_TRAIN_PAIRS_H
#define CORE_TRAIN_PAIRS_H

#include <stdbool.h>

#include "core/base/error.h"

/* Two formats, told apart by the first line:
 * - LFW's pairs.txt. "FOLDS N", then for each fold N lines "name i j" (same)
 *   and N lines "name1 i name2 j" (different); photos are name/name_%04d.jpg.
 *   "N" alone (LFW's view 1): one such block, which is dealt into ten folds.
 * - "path1 path2 0|1" on every line, 1: same; the lines in order make ten
 *   folds of equal size. Blank lines and lines that begin with # are passed.
 * Fields are parted by tabs, or by blanks where a line has no tab. Paths are
 * relative and stay below the photos' folder. */
enum {
    PAIRS_MAX_BYTES = 256 << 20,
    PAIRS_MAX_LINE = 4096,
    PAIRS_FOLDS = 10 /* where the file names none */
};
struct pair {
    int photo[2]; /* indices into photos */
    bool same;
    int fold;
};
struct pairs {
    char **photos; /* relative paths, each once */
    int n_photos;
    struct pair *pairs;
    int n_pairs, n_folds;
};
/* ERR_FILE, ERR_BAD_FIELD (with the line's number), ERR_NOMEM. */
int pairs_load(const char *path, struct pairs *out, struct error *err);
void pairs_fini(struct pairs *p);

#endif
