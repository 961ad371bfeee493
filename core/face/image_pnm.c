/* core/face/image_pnm.c - binary PGM and PPM to RGB: old collections of faces
 * come as such. "P5" or "P6", then width, height and the greatest value as
 * decimal numbers between white space and comments, one white space, and the
 * samples. Strict: whatever else is refused. */
#include "core/face/image.h"

#include <string.h>

#include "core/face/image_priv.h"

enum {
    MOST_NUMBER = 1 << 24,
    CLOCK_EVERY = 64 /* rows between looks at the clock */
};

struct reader {
    const uint8_t *at, *end;
};

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Past white space and comments, which begin with # and take the line. False:
 * there is none, or the file ends. */
static bool skip_space(struct reader *r)
{
    const uint8_t *from = r->at;

    while (r->at < r->end && (is_space(*r->at) || *r->at == '#')) {
        if (*r->at == '#')
            while (r->at < r->end && *r->at != '\n')
                r->at++;
        else
            r->at++;
    }
    return r->at > from && r->at < r->end;
}

/* -1: no number. One that is too large stays at MOST_NUMBER. */
static int read_number(struct reader *r)
{
    int n = 0;

    if (r->at >= r->end || *r->at < '0' || *r->at > '9')
        return -1;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        n = 10 * n + (*r->at - '0');
        n = n < MOST_NUMBER ? n : MOST_NUMBER;
    }
    return n;
}

static bool read_header(struct reader *r, int numbers[3])
{
    r->at += 2;
    for (int i = 0; i < 3; i++) {
        if (!skip_space(r))
            return false;
        numbers[i] = read_number(r);
        if (numbers[i] < 0)
            return false;
    }
    return r->at < r->end && is_space(*r->at++);
}

/* n samples of greatest value `most` at `from` to RGB. */
static bool put_samples(const uint8_t *from, size_t n, int channels, int most,
                        uint8_t *to)
{
    bool sound = true;

    for (size_t i = 0; i < n; i++) {
        unsigned v = from[i];
        sound &= v <= (unsigned)most;
        v = (2 * v * 255 + (unsigned)most) / (2 * (unsigned)most);
        for (int k = 0; k < (channels == 1 ? 3 : 1); k++)
            *to++ = (uint8_t)v;
    }
    return sound;
}

struct image *image_pnm_decode(const struct image_source *src,
                               struct error *err)
{
    struct reader r = {src->bytes, src->bytes + src->len_bytes};
    int numbers[3], channels;
    struct image *img;
    size_t len_row;

    if (src->len_bytes < 2 ||
        (memcmp(r.at, "P5", 2) != 0 && memcmp(r.at, "P6", 2) != 0))
        return error_null(err, ERR_IMAGE_TYPE,
                          "this is no binary PGM or PPM (P5, P6)");
    channels = r.at[1] == '5' ? 1 : 3;
    if (!read_header(&r, numbers))
        return error_null(err, ERR_BAD_IMAGE,
                          "the PNM's head is damaged or cut short");
    if (image_source_check(src, "PNM", numbers[0], numbers[1], err))
        return NULL;
    if (numbers[2] < 1 || numbers[2] > 255)
        return error_null(err, numbers[2] < 1 ? ERR_BAD_IMAGE : ERR_IMAGE_TYPE,
                          "the PNM's greatest value is %d; 1 to 255 are read",
                          numbers[2]);
    len_row = (size_t)numbers[0] * (size_t)channels;
    if ((size_t)(r.end - r.at) / len_row < (size_t)numbers[1])
        return error_null(err, ERR_BAD_IMAGE, "the PNM is cut short");
    img = image_new(numbers[0], numbers[1], err);
    if (!img)
        return NULL;
    for (int y = 0; y < img->h; y++, r.at += len_row) {
        bool late = y % CLOCK_EVERY == 0 && image_source_late(src);
        if (!late && put_samples(r.at, len_row, channels, numbers[2],
                                 img->rgb + (size_t)y * (size_t)img->w * 3))
            continue;
        if (late)
            image_source_late_error(src, "PNM", err);
        else
            error_set(err, ERR_BAD_IMAGE,
                      "the PNM is damaged: a sample is over %d", numbers[2]);
        image_free(img);
        return NULL;
    }
    return img;
}
