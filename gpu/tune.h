/* gpu/tune.h - which of cuDNN's engines was the quickest for a convolution, and
 * which layout for a plan, on this card with this driver and this cuDNN: kept
 * in memory, and in a file for the next start. A file that is of another card,
 * or damaged, counts as none; it holds numbers, never code. Thread: any. */
#ifndef GPU_TUNE_H
#define GPU_TUNE_H

#include "gpu/dnn.h"

struct tune;

/* dir: absolute; NULL: nothing is kept in a file. identity: of all that the
 * answers hang on. */
struct tune *tune_new(const char *dir, const char *identity, struct error *err);
void tune_free(struct tune *t);
/* The place in cuDNN's list, and its engine there; false: not known. */
bool tune_find(struct tune *t, const struct dnn_shape *s, int *at,
               int64_t *engine);
void tune_add(struct tune *t, const struct dnn_shape *s, int at,
              int64_t engine);
/* The same of whatever the number stands for. */
bool tune_find_number(struct tune *t, uint64_t number, int *at);
void tune_add_number(struct tune *t, uint64_t number, int at);
/* Write the file if something was added. A failure costs time at the next
 * start and nothing else. */
void tune_save(struct tune *t);

#endif
