/* core/face/align.h - detected face to network input.
 * After detect, before batch. Pure: no globals, no locks. Thread: any. */
#ifndef CORE_FACE_ALIGN_H
#define CORE_FACE_ALIGN_H

#include "core/face/detect.h"
#include "core/face/image.h"
#include "core/face/model.h"

/* Crop the face as the contract's crop kind says: an RGB picture of the
 * contract's width x height, pixels still 0..255. ERR_BAD_BOX (no extent, or
 * nothing of it inside the picture), ERR_MODEL (a contract without a crop or
 * size), ERR_NOMEM. */
struct image *align_crop(const struct image *img, const struct face *face,
                         const struct contract *c, struct error *err);

/* Pixels of a crop to the network's numbers, out [3,h,w]: scaling and
 * channel order of the contract. a[k] and b[k] belong to the network's
 * channel k, which is blue for k 0 where the contract says bgr. */
void align_scale(const struct image *crop, const struct contract *c,
                 float *out);

/* Least-squares similarity (Umeyama, 1991) that takes src to dst: m is
 * [a -b tx; b a ty]. False when the points have no extent. */
bool align_similarity(const float src[5][2], const float dst[5][2],
                      float m[2][3]);

struct align_map { /* of points: to + (xx xy; yx yy) (x - from_x, y - from_y) */
    float xx, xy, yx, yy;
    float from_x, from_y, to_x, to_y;
};
/* Fill out: its pixel x, y is img at the mapped point, bilinear, black
 * outside. */
void align_warp(const struct image *img, const struct align_map *m,
                struct image *out);

/* The model-independent crop that is kept for later models: the face with
 * wide margin (1.0 of the box on each side, clipped to the picture), shrunk
 * so that the longer side is at most 320. *inner: the face inside it. */
struct image *align_keep(const struct image *img, const struct face *face,
                         struct face *inner, struct error *err);

#endif
