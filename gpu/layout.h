/* gpu/layout.h - in whose memory each value of a fused graph lies, so that
 * joined values are written where they are wanted and convolutions that read
 * the same value become one. Before a plan's steps are made. Pure.
 * Thread: any. */
#ifndef GPU_LAYOUT_H
#define GPU_LAYOUT_H

#include "core/engine/graph.h"

enum {
    LAYOUT_MAX_MERGED = 8
};

/* Channels offset.. of each pixel of the owner, whose pixels are `pitch`
 * channels apart. The owner of most values is the value itself. */
struct home {
    int owner, offset, pitch;
};

struct layout {
    struct home *home; /* by value */
    int *leader;       /* by node: the first of the convolutions that are one,
                          itself where it is the first; -1: it stays alone */
    int n_placed, n_merged; /* values in others by joins; convolutions that
                               are one with another */
};

struct layout_options {
    bool slices; /* values that are joined lie in what they are joined to */
    bool merge;  /* 1x1 convolutions of one value are one */
};

/* shapes: of every value. */
int layout_init(struct layout *l, const struct graph *g,
                const struct shape shapes[], const struct layout_options *opt,
                struct error *err);
void layout_fini(struct layout *l);

#endif
