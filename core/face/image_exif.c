/* core/face/image_exif.c - which way up a picture was taken: tag 0x0112 of
 * IFD0 in a TIFF block, both byte orders. Nothing else of EXIF is looked at;
 * whatever is odd reads as upright. Called with the block found in a JPEG,
 * PNG or WebP; reads only inside it and keeps nothing. */
#include "core/face/image.h"

#include <stdbool.h>
#include <string.h>

enum {
    LEN_HEADER = 8,
    LEN_ENTRY = 12,
    TAG_ORIENTATION = 0x0112,
    TYPE_SHORT = 3
};

static uint32_t get16(const uint8_t *p, bool little)
{
    return little ? p[0] | (uint32_t)p[1] << 8 : (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p, bool little)
{
    return little ? get16(p, true) | get16(p + 2, true) << 16
                  : get16(p, false) << 16 | get16(p + 2, false);
}

int image_exif_orientation(const uint8_t *tiff, size_t len_bytes)
{
    bool little;
    size_t at, n;

    if (len_bytes < LEN_HEADER)
        return 1;
    little = !memcmp(tiff, "II*\0", 4);
    if (!little && memcmp(tiff, "MM\0*", 4))
        return 1;
    at = get32(tiff + 4, little);
    if (at < LEN_HEADER || at > len_bytes - 2)
        return 1;
    n = get16(tiff + at, little);
    at += 2;
    if (n > (len_bytes - at) / LEN_ENTRY)
        return 1;
    for (; n; n--, at += LEN_ENTRY) {
        const uint8_t *entry = tiff + at;
        uint32_t value;

        if (get16(entry, little) != TAG_ORIENTATION)
            continue;
        value = get16(entry + 8, little);
        if (get16(entry + 2, little) != TYPE_SHORT ||
            get32(entry + 4, little) != 1 || value < 1 || value > 8)
            return 1;
        return (int)value;
    }
    return 1;
}
