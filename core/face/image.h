/* core/face/image.h - bytes of a photo to upright RGB pixels.
 * First step of the data path: hostile bytes in, a checked picture out.
 * JPEG (libjpeg-turbo), PNG (libpng), WebP (libwebp), told apart by their
 * first bytes, never by a name. Pure: no globals, no locks. Thread: any. */
#ifndef CORE_FACE_IMAGE_H
#define CORE_FACE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct image {
    int w, h;
    uint8_t *rgb; /* h rows of w*3 bytes, no padding, row 0 on top */
};

/* Zero in a field takes the default. */
struct image_limits {
    size_t max_bytes;   /* of the file; default 10 MiB */
    int64_t max_pixels; /* w*h; default 40 million */
    int max_side;       /* default 16384 */
    int min_side;       /* default 16 */
    int max_scans;      /* of a progressive JPEG; default 64 */
    int max_ms; /* thread CPU time of one decode; default 2000. Looked at
                   between rows; in WebP between 16ths of the file */
};

/* Decode and turn upright by the EXIF orientation (JPEG, PNG eXIf, WebP).
 * Grey becomes RGB; alpha is laid over white; 16-bit PNG is reduced to 8.
 * Refused: other kinds, CMYK/YCCK, arithmetic coding, 12-bit, lossless JPEG,
 * animated WebP (ERR_IMAGE_TYPE); anything damaged or cut short, warnings
 * included, or under min_side (ERR_BAD_IMAGE); anything over a limit
 * (ERR_TOO_LARGE). Accepted: what follows the end of the picture, and stray
 * bytes before a JPEG's markers, which cameras leave.
 * Borrows bytes. Returns an owned image or NULL with err set. */
struct image *image_decode(const void *bytes, size_t len_bytes,
                           const struct image_limits *limits,
                           struct error *err);

/* Binary PGM or PPM (P5, P6) of 8 bits a sample, as old collections of faces
 * come. Not part of image_decode, so that what the daemon takes is no more
 * than people send. The same limits, errors and ownership. */
struct image *image_decode_pnm(const void *bytes, size_t len_bytes,
                               const struct image_limits *limits,
                               struct error *err);

/* Uninitialised pixels. ERR_NOMEM, ERR_TOO_LARGE. */
struct image *image_new(int w, int h, struct error *err);
void image_free(struct image *img); /* NULL is fine */

/* Area-averaging when shrinking (a source pixel weighs as much as it overlaps
 * the output pixel), bilinear when enlarging (between pixel centres, clamped
 * at the rectangle's edge), each axis on its own, of the rectangle x,y,w,h
 * (may reach outside: outside is black) to out_w x out_h, all sizes > 0.
 * Written to out as RGB bytes, rounded, rows `stride` bytes apart. */
void image_resize(const struct image *img, int x, int y, int w, int h,
                  uint8_t *out, int out_w, int out_h, size_t stride);

/* JPEG, 4:4:4, quality 1..100. Hands over a malloc'd buffer. */
int image_encode_jpeg(const struct image *img, int quality, uint8_t **out,
                      size_t *len_out, struct error *err);

/* PNG, 8-bit RGB: lossless. Hands over a malloc'd buffer. */
int image_encode_png(const struct image *img, uint8_t **out, size_t *len_out,
                     struct error *err);

/* EXIF orientation 1..8 of a TIFF block (after "Exif\0\0"); 1 on any oddity.
 * Exposed for its fuzz target. */
int image_exif_orientation(const uint8_t *tiff, size_t len_bytes);

#endif
