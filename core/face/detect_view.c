/* core/face/detect_view.c - crops and pieces of pyramid levels for training,
 * made exactly as the cascade makes them. core/train/detector_sample.c calls
 * it. */
#include "core/face/detect_view.h"

#include <stdlib.h>

#include "core/face/detect_priv.h"

struct detect_view {
    struct detect_mips mips;
};

struct detect_view *detect_view_new(struct error *err)
{
    struct detect_view *v = calloc(1, sizeof(*v));

    if (!v)
        return error_null(err, ERR_NOMEM, "no memory to look at pictures");
    return v;
}

void detect_view_free(struct detect_view *v)
{
    if (!v)
        return;
    detect_mips_fini(&v->mips);
    free(v);
}

int detect_view_set(struct detect_view *v, const struct image *img,
                    struct error *err)
{
    return detect_mips_build(&v->mips, img, err);
}

bool detect_view_crop(const struct detect_view *v, const struct box *b,
                      int side, float *out)
{
    struct detect_part part = {
        .out_w = side, .out_h = side, .pw = side, .ph = side};
    size_t row = (size_t)side;

    if (!detect_inside(b, v->mips.base, &part))
        return false;
    detect_reduce(&v->mips, &part, out, row * row, row);
    return true;
}

void detect_view_level(const struct detect_view *v, double scale, int x, int y,
                       int side, float *out)
{
    const struct image *img = v->mips.base;
    struct detect_part part = {.w = img->w,
                               .h = img->h,
                               .out_w = (int)(img->w * scale + 1),
                               .out_h = (int)(img->h * scale + 1),
                               .px = x,
                               .py = y,
                               .pw = side,
                               .ph = side};
    size_t row = (size_t)side;

    detect_reduce(&v->mips, &part, out, row * row, row);
}
