/* tests/fuzz/fuzz_exif.c - any bytes as a TIFF block: the answer is 1..8, and
 * a block without the tag's number in it is upright. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/image.h"
#include "tests/make_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed);

/* Now and then start from a good block, so that no corpus is needed. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed)
{
    if (seed % 64 == 0) {
        struct bytes b = make_exif((int)(seed / 64 % 10), seed / 640 % 2);

        if (b.len <= max) {
            memcpy(data, b.p, b.len);
            len = b.len;
        }
        free(b.p);
    }
    return LLVMFuzzerMutate(data, len, max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int orientation = image_exif_orientation(data, len);

    if (orientation < 1 || orientation > 8)
        abort();
    if (orientation != 1 && !memmem(data, len, "\1\x12", 2) &&
        !memmem(data, len, "\x12\1", 2))
        abort();
    return 0;
}
