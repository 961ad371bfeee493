/* core/train/augment_priv.h - what the two halves of augment share: the
 * numbers drawn for one use of a face. augment.c draws them and places the
 * crop, augment_pixels.c changes its pixels. */
#ifndef CORE_TRAIN_AUGMENT_PRIV_H
#define CORE_TRAIN_AUGMENT_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "core/train/augment.h"

struct augment_draw {
    /* where: */
    float window_x, window_y; /* -1..1: of the random window */
    float shift_x, shift_y;   /* parts of the face's longer side */
    float zoom;               /* 1: as it is */
    float angle;              /* radians */
    bool flip;
    /* what it looks like; zero: left alone. Pixels at a crop of 112. */
    float gain, offset; /* v -> 128 + offset + gain * (v - 128); gain 0: none */
    bool grey;
    float blur, noise; /* sigma */
    uint64_t noise_seed;
    int quality;
    float shrink;                             /* the smaller side */
    float erase_x, erase_y, erase_w, erase_h; /* parts of the side */
    uint8_t erase_value;
};

/* Flip and all that changes values, in place; img may be another after.
 * ERR_NOMEM. */
int augment_pixels(struct image *img, const struct augment_draw *d,
                   struct error *err);

#endif
