/* gpu/weights.h - a network's weights on the card, each in the forms that its
 * plans' steps want it in, made once. Thread: any. */
#ifndef GPU_WEIGHTS_H
#define GPU_WEIGHTS_H

#include "core/engine/graph.h"
#include "gpu/arith.h"
#include "gpu/card.h"
#include "gpu/layout.h"

struct weights;

enum weights_form {
    WEIGHTS_CONV,      /* [k][kh][kw][c] in type, k and c padded, of several
                          convolutions one after the other */
    WEIGHTS_BIAS,      /* [k] in type, likewise */
    WEIGHTS_GROUPED,   /* [k][kh][kw][c/g] in type, k padded */
    WEIGHTS_DEPTHWISE, /* [kh][kw][c] in f32, padded */
    WEIGHTS_VECTOR     /* [c] in f32, padded; one number is repeated */
};

/* Zero it before filling in: keys are compared as bytes. */
struct weights_key {
    int form, type;
    int value[LAYOUT_MAX_MERGED], n;
    int c, h, w; /* CONV, GROUPED, DEPTHWISE: of one filter; VECTOR: c */
};

struct weights *weights_new(struct card *card, const struct graph *g,
                            struct error *err);
void weights_free(struct weights *w);
/* On the card, borrowed. */
void *weights_get(struct weights *w, const struct weights_key *key,
                  struct error *err);
size_t weights_bytes(struct weights *w);

#endif
