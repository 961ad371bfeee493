/* core/face/image_priv.h - what the parts of image share: the bytes with
 * their limits, and the way from stored rows to an upright picture. */
#ifndef CORE_FACE_IMAGE_PRIV_H
#define CORE_FACE_IMAGE_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/face/image.h"

struct image_source {
    const uint8_t *bytes;
    size_t len_bytes;
    struct image_limits limits; /* every field set */
    int64_t end_ns;             /* of this thread's CPU clock */
};

/* Is the CPU time of this decode used up? Costs a system call. */
bool image_source_late(const struct image_source *src);
int image_source_late_error(const struct image_source *src, const char *kind,
                            struct error *err);

/* Declared size against the limits, before anything is allocated for it. */
int image_source_check(const struct image_source *src, const char *kind,
                       int64_t w, int64_t h, struct error *err);

/* Where the pixels of a stored picture w x h go in the upright one. */
struct upright {
    struct image *img;
    int w, h;                 /* as stored */
    size_t origin;            /* byte of stored pixel 0,0 in img->rgb */
    ptrdiff_t step_x, step_y; /* bytes between stored neighbours */
};

/* Makes up->img, which the caller frees. orientation is 1..8. */
int upright_init(struct upright *up, int w, int h, int orientation,
                 struct error *err);
/* Stored row y in place, where its w*3 bytes may be written straight away;
 * NULL when the picture is mirrored or turned. */
uint8_t *upright_in_place(const struct upright *up, int y);
/* Stored rows y .. y+n_rows-1, one after the other, w*3 bytes each. Several
 * at a time are quicker where the picture is turned. */
void upright_put_band(const struct upright *up, int y, const uint8_t *rows,
                      int n_rows);
/* Stored row y: w pixels of 3 channels, or 4 whose alpha is laid over
 * white (which changes the row). */
void upright_put(const struct upright *up, int y, uint8_t *row, int channels);

/* The kinds: owned image or NULL with err set. */
struct image *image_jpeg_decode(const struct image_source *src,
                                struct error *err);
struct image *image_png_decode(const struct image_source *src,
                               struct error *err);
struct image *image_webp_decode(const struct image_source *src,
                                struct error *err);
struct image *image_pnm_decode(const struct image_source *src,
                               struct error *err);

#endif
