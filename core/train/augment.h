/* core/train/augment.h - a kept face to the disturbed crop a network learns
 * from. Everything is drawn from one seed, in a fixed order, so that the same
 * seed gives the same crop in every run and thread.
 * The loader calls it. Pure: no globals, no locks. Thread: any. */
#ifndef CORE_TRAIN_AUGMENT_H
#define CORE_TRAIN_AUGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/face/align.h"

/* How a face is disturbed before each use; zero: not at all. Lengths in
 * pixels are meant at a crop of 112 and grow with it. */
struct augment {
    bool random_crop; /* the script's: a random window of the box-margin
                         square; of arcface crops a shift by up to 11/160 of
                         the side, which is as far as that window goes */
    bool random_flip; /* the script's */
    float jitter;     /* parts of the side: shift and scale, 0.05 */
    float rotate;     /* degrees either way */
    float light;      /* gain and offset of brightness and contrast, 0.3 */
    float grey;       /* chance of a grey picture */
    float blur;       /* chance of a Gaussian blur, sigma up to 2 */
    float noise;      /* chance of noise, sigma up to 12 of 255 */
    float jpeg;       /* chance of a JPEG round trip, quality 30..90 */
    float shrink;     /* chance of shrinking to 24..64 pixels and back */
    float erase;      /* chance of a grey rectangle */
};

/* A list by commas, later items over earlier: "none", "script" (crop and
 * flip), "strong" (everything, as suits faces), "crop", "flip", or a field and
 * its value, "jitter=0.05". Empty: none. jitter 0..0.5, rotate 0..180, others
 * 0..1. ERR_BAD_FIELD names the item and what there is. */
int augment_parse(const char *text, struct augment *out, struct error *err);
/* As augment_parse takes it, into buf, which is returned; 256 bytes do. */
const char *augment_text(const struct augment *a, char *buf, size_t len);

/* What is kept of a photo between uses. */
struct augment_face {
    struct image *img; /* owned */
    struct face face;  /* inside img; unused when aligned */
    float scale;       /* pixels of img by pixels of the photo: a contract's
                          margin is in the photo's */
    bool aligned;      /* img is the whole of a picture that somebody cropped
                          already */
};
/* Keep img (borrowed): its face with half a box of margin on each side, face
 * NULL: all of it (already cropped), shrunk so that the longer side is at
 * most `side`. ERR_BAD_BOX, ERR_NOMEM. */
int augment_keep(const struct image *img, const struct face *face, int side,
                 struct augment_face *out, struct error *err);
void augment_face_fini(struct augment_face *f);

/* The contract's crop of the face, disturbed as seed says; a NULL: not at all
 * (aligned pictures: the middle). An aligned picture becomes an arcface crop
 * by its largest middle part of the input's shape, a box-margin crop by
 * resizing all of it to crop_size square and taking the middle.
 * Two contracts with the same seed get the same face: the same shift, scale,
 * rotation, flip, light, grey, rectangle, the same strengths of blur, noise,
 * shrinking and JPEG; but each its own noise and JPEG blocks unless their crop
 * kinds and sizes are the same, and then all is.
 * Returns an owned picture, or NULL: ERR_BAD_BOX, ERR_MODEL, ERR_NOMEM. */
struct image *augment_crop(const struct augment_face *f,
                           const struct augment *a, uint64_t seed,
                           const struct contract *c, struct error *err);
/* Do both contracts cut the same pixels, so that only scaling differs? */
bool augment_same_crop(const struct contract *a, const struct contract *b);

#endif
