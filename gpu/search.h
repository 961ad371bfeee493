/* gpu/search.h - rows that are searched on the card: the rows_ functions of
 * the backend table, see core/engine/rows.h. */
#ifndef GPU_SEARCH_H
#define GPU_SEARCH_H

#include "core/engine/rows.h"
#include "gpu/card.h"

struct rows *search_rows_new(struct device *dev, struct card *card,
                             const struct rows_options *opt, struct error *err);
void search_rows_free(struct rows *r);
int search_rows_put(struct rows *r, int block, int first, int n, const float *x,
                    struct error *err);
void search_rows_wipe(struct rows *r, int block);
int search_rows_best(struct rows *r, const struct rows_ask *ask,
                     struct rows_answer *answers, struct error *err);

#endif
