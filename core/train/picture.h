/* core/train/picture.h - a file of a training folder to an upright picture.
 * The loader and facenetctl align read with it. Thread: any. */
#ifndef CORE_TRAIN_PICTURE_H
#define CORE_TRAIN_PICTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/face/image.h"

enum {
    PICTURE_HASH_LEN = 16,
    PICTURE_MAX_BYTES = 64 << 20
};

/* A file's bytes, owned; NULL: ERR_FILE, ERR_TOO_LARGE, ERR_NOMEM. The text
 * does not name it. */
uint8_t *picture_read(const char *path, size_t *len, struct error *err);

/* Decode by content: what image_decode reads, PGM and PPM. hash (may be NULL)
 * gets the first bytes of the SHA-256 of the file, as soon as its bytes are
 * read; *hashed (may be NULL) says that they were. Returns an owned picture,
 * or NULL: ERR_FILE, ERR_TOO_LARGE, ERR_NOMEM and what image_decode gives;
 * the text does not name the file. */
struct image *picture_load(const char *path, uint8_t hash[PICTURE_HASH_LEN],
                           bool *hashed, struct error *err);

#endif
