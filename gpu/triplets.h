/* gpu/triplets.h - selection of triplets on the card: the table's entry.
 * Thread: any. */
#ifndef GPU_TRIPLETS_H
#define GPU_TRIPLETS_H

#include "core/engine/triplets.h"
#include "gpu/card.h"

/* As triplets of core/engine/backend.h. */
int triplets_select(struct card *c, const struct triplets_ask *ask,
                    struct error *err);

#endif
