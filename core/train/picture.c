/* core/train/picture.c - reads a file of a training folder whole, within a
 * limit, and decodes what it is, whatever its name says. The loader's threads
 * and facenetctl align call it. */
#include "core/train/picture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/crypto.h"

uint8_t *picture_read(const char *path, size_t *len, struct error *err)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    uint8_t *bytes = NULL;

    if (!f)
        return error_null(err, ERR_FILE, "%s", strerror(errno));
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) {
        error_set(err, ERR_FILE, "not a file");
    } else if (st.st_size > PICTURE_MAX_BYTES) {
        error_set(err, ERR_TOO_LARGE, "the file is larger than %d MiB",
                  PICTURE_MAX_BYTES >> 20);
    } else if (!(bytes = malloc((size_t)st.st_size + 1))) {
        error_set(err, ERR_NOMEM, "no memory to read the file");
    } else {
        *len = fread(bytes, 1, (size_t)st.st_size, f);
        if (ferror(f)) {
            error_set(err, ERR_FILE, "%s", strerror(errno));
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(f);
    return bytes;
}

struct image *picture_load(const char *path, uint8_t hash[PICTURE_HASH_LEN],
                           bool *hashed, struct error *err)
{
    const struct image_limits limits = {.max_bytes = PICTURE_MAX_BYTES,
                                        .max_ms = 20000};
    uint8_t digest[CRYPTO_SHA256_LEN], *bytes;
    struct image *img = NULL;
    size_t len = 0;
    int rc = 0;

    if (hashed)
        *hashed = false;
    bytes = picture_read(path, &len, err);
    if (!bytes)
        return NULL;
    if (hash) {
        rc = crypto_sha256(bytes, len, digest, err);
        if (rc == 0) {
            memcpy(hash, digest, PICTURE_HASH_LEN);
            if (hashed)
                *hashed = true;
        }
    }
    if (rc == 0 && len > 1 && bytes[0] == 'P' &&
        (bytes[1] == '5' || bytes[1] == '6'))
        img = image_decode_pnm(bytes, len, &limits, err);
    else if (rc == 0)
        img = image_decode(bytes, len, &limits, err);
    free(bytes);
    return img;
}
