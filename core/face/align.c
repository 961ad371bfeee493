/* core/face/align.c - detected face to network input: the crop that a model's
 * contract names, its scaling and channel order, and the wide crop that is
 * kept for models to come. After detect, before batch; face.c calls it. */
#include "core/face/align.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEEP_SIDE = 320,
    MOST_CROP = 4096
};

/* Where the five points lie in a 112x112 ArcFace crop. */
static const float arcface_112[5][2] = {{38.2946f, 51.6963f},
                                        {73.5318f, 51.5014f},
                                        {56.0252f, 71.7366f},
                                        {41.5493f, 92.3655f},
                                        {70.7299f, 92.2041f}};

bool align_similarity(const float src[5][2], const float dst[5][2],
                      float m[2][3])
{
    double sx = 0, sy = 0, dx = 0, dy = 0, norm = 0, dot = 0, cross = 0;
    double a, b;

    for (int i = 0; i < 5; i++) {
        sx += (double)src[i][0] / 5;
        sy += (double)src[i][1] / 5;
        dx += (double)dst[i][0] / 5;
        dy += (double)dst[i][1] / 5;
    }
    for (int i = 0; i < 5; i++) {
        double ux = (double)src[i][0] - sx, uy = (double)src[i][1] - sy;
        double vx = (double)dst[i][0] - dx, vy = (double)dst[i][1] - dy;
        norm += ux * ux + uy * uy;
        dot += ux * vx + uy * vy;
        cross += ux * vy - uy * vx;
    }
    /* In the plane the best rotation and scale are linear in (a, b), and the
     * decomposition of the general method is not needed. */
    if (!(norm > 1e-6) || !isfinite(norm + dot + cross))
        return false;
    a = dot / norm;
    b = cross / norm;
    if (a == 0 && b == 0)
        return false;
    m[0][0] = (float)a;
    m[0][1] = (float)-b;
    m[0][2] = (float)(dx - a * sx + b * sy);
    m[1][0] = (float)b;
    m[1][1] = (float)a;
    m[1][2] = (float)(dy - b * sx - a * sy);
    return true;
}

/* Bilinear sample at x, y; black outside. */
static void sample(const struct image *img, float x, float y, uint8_t out[3])
{
    size_t row = (size_t)img->w * 3;
    float rx, ry, sum[3] = {0, 0, 0};
    int x0, y0;

    out[0] = out[1] = out[2] = 0;
    if (!(x >= -1 && y >= -1 && x < (float)img->w && y < (float)img->h))
        return;
    /* floorf is a call where the processor's own is not assumed. */
    x0 = (int)x - (x < (float)(int)x);
    y0 = (int)y - (y < (float)(int)y);
    rx = x - (float)x0;
    ry = y - (float)y0;
    if (x0 >= 0 && y0 >= 0 && x0 + 1 < img->w && y0 + 1 < img->h) {
        const uint8_t *p = img->rgb + (size_t)y0 * row + (size_t)x0 * 3;
        float w[4] = {(1 - rx) * (1 - ry), rx * (1 - ry), (1 - rx) * ry,
                      rx * ry};
        for (int c = 0; c < 3; c++, p++)
            out[c] = (uint8_t)(w[0] * (float)p[0] + w[1] * (float)p[3] +
                               w[2] * (float)p[row] + w[3] * (float)p[row + 3] +
                               0.5f);
        return;
    }
    for (int k = 0; k < 4; k++) {
        int px = x0 + (k & 1), py = y0 + (k >> 1);
        float weight = (k & 1 ? rx : 1 - rx) * (k >> 1 ? ry : 1 - ry);
        const uint8_t *p;
        if (px < 0 || py < 0 || px >= img->w || py >= img->h)
            continue;
        p = img->rgb + (size_t)py * row + (size_t)px * 3;
        for (int c = 0; c < 3; c++)
            sum[c] += weight * (float)p[c];
    }
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)(sum[c] + 0.5f);
}

void align_warp(const struct image *img, const struct align_map *m,
                struct image *out)
{
    uint8_t *p = out->rgb;

    for (int y = 0; y < out->h; y++) {
        float v = (float)y - m->from_y;
        for (int x = 0; x < out->w; x++, p += 3) {
            float u = (float)x - m->from_x;
            sample(img, m->xx * u + m->xy * v + m->to_x,
                   m->yx * u + m->yy * v + m->to_y, p);
        }
    }
}

static bool touches(const struct image *img, const struct box *b)
{
    return isfinite(b->x0 + b->y0 + b->x1 + b->y1) && b->x1 > b->x0 &&
           b->y1 > b->y0 && b->x0 < (float)img->w && b->y0 < (float)img->h &&
           b->x1 > 0 && b->y1 > 0;
}

static struct image *crop_arcface(const struct image *img,
                                  const struct face *face,
                                  const struct contract *c, struct error *err)
{
    float dst[5][2], m[2][3], det;
    struct align_map back = {0};
    struct image *out;

    for (int i = 0; i < 5; i++) {
        dst[i][0] = arcface_112[i][0] * (float)c->width / 112;
        dst[i][1] = arcface_112[i][1] * (float)c->height / 112;
    }
    if (!align_similarity((const float(*)[2])face->points,
                          (const float(*)[2])dst, m))
        return error_null(err, ERR_BAD_BOX, "the face's points have no extent");
    det = m[0][0] * m[0][0] + m[1][0] * m[1][0];
    back.xx = back.yy = m[0][0] / det;
    back.xy = m[1][0] / det;
    back.yx = -m[1][0] / det;
    back.from_x = m[0][2];
    back.from_y = m[1][2];
    out = image_new(c->width, c->height, err);
    if (out)
        align_warp(img, &back, out);
    return out;
}

static int clamp(float v, int most)
{
    return v < 0 ? 0 : v > (float)most ? most : (int)v;
}

static struct image *crop_box(const struct image *img, const struct face *face,
                              const struct contract *c, struct error *err)
{
    float side = (float)c->crop_margin / 2;
    int x0 = clamp(face->box.x0 - side, img->w);
    int y0 = clamp(face->box.y0 - side, img->h);
    int x1 = clamp(face->box.x1 + side, img->w);
    int y1 = clamp(face->box.y1 + side, img->h);
    size_t row = (size_t)c->width * 3, row_square = (size_t)c->crop_size * 3;
    struct image *square, *out;
    const uint8_t *from;

    if (c->crop_size < c->width || c->crop_size < c->height ||
        c->crop_size > MOST_CROP)
        return error_null(err, ERR_MODEL,
                          "contract: a crop of %d pixels for an input of %dx%d",
                          c->crop_size, c->width, c->height);
    if (x1 <= x0 || y1 <= y0)
        return error_null(err, ERR_BAD_BOX, "the face's box is empty");
    square = image_new(c->crop_size, c->crop_size, err);
    if (!square)
        return NULL;
    out = image_new(c->width, c->height, err);
    if (out) {
        image_resize(img, x0, y0, x1 - x0, y1 - y0, square->rgb, c->crop_size,
                     c->crop_size, row_square);
        from = square->rgb +
               (size_t)((c->crop_size - c->height) / 2) * row_square +
               (size_t)((c->crop_size - c->width) / 2) * 3;
        for (int y = 0; y < c->height; y++)
            memcpy(out->rgb + (size_t)y * row, from + (size_t)y * row_square,
                   row);
    }
    image_free(square);
    return out;
}

struct image *align_crop(const struct image *img, const struct face *face,
                         const struct contract *c, struct error *err)
{
    if (c->width < 1 || c->height < 1 || c->width > MOST_CROP ||
        c->height > MOST_CROP)
        return error_null(err, ERR_MODEL, "contract: an input of %dx%d",
                          c->width, c->height);
    if (!touches(img, &face->box))
        return error_null(err, ERR_BAD_BOX,
                          "the face's box lies outside the photo");
    switch (c->crop) {
    case CROP_ARCFACE:
        return crop_arcface(img, face, c, err);
    case CROP_BOX_MARGIN:
        return crop_box(img, face, c, err);
    case CROP_NONE:
        break;
    }
    return error_null(err, ERR_MODEL, "contract: no crop for faces");
}

/* Mean and deviation of n bytes; the deviation at least that of TensorFlow's
 * per_image_standardization, 1 / sqrt(n). Sums are of whole numbers, exact. */
static void moments(const uint8_t *p, size_t n, double *mean, double *std)
{
    enum {
        BLOCK = 4096 /* whose sum of squares 32 bits hold */
    };
    uint64_t sum = 0, squares = 0;
    double least = 1 / sqrt((double)n);
    long double of; /* the number of bytes squared, times the variance */

    for (size_t from = 0; from < n; from += BLOCK) {
        size_t end = from + BLOCK < n ? from + BLOCK : n;
        uint32_t s = 0, q = 0;

        for (size_t i = from; i < end; i++) {
            s += p[i];
            q += (uint32_t)p[i] * p[i];
        }
        sum += s;
        squares += q;
    }
    of = (long double)squares * (long double)n -
         (long double)sum * (long double)sum;
    *mean = (double)sum / (double)n;
    *std = sqrt(of > 0 ? (double)of : 0) / (double)n;
    *std = *std > least ? *std : least;
}

/* A byte has 256 values: each is scaled once. */
void align_scale(const struct image *crop, const struct contract *c, float *out)
{
    size_t plane = (size_t)crop->w * (size_t)crop->h;
    double mean = 0, std = 1;
    float to[256];

    if (c->scale == SCALE_STANDARD)
        moments(crop->rgb, 3 * plane, &mean, &std);
    for (size_t k = 0; k < 3; k++, out += plane) {
        const uint8_t *p = crop->rgb + (c->bgr ? 2 - k : k);

        for (int v = 0; v < 256; v++)
            to[v] = c->scale == SCALE_STANDARD
                        ? (float)(((double)v - mean) / std)
                    : c->scale == SCALE_FIXED ? ((float)v - c->a[k]) / c->b[k]
                                              : (float)v;
        for (size_t i = 0; i < plane; i++)
            out[i] = to[p[3 * i]];
    }
}

struct image *align_keep(const struct image *img, const struct face *face,
                         struct face *inner, struct error *err)
{
    const struct box *b = &face->box;
    float w = b->x1 - b->x0, h = b->y1 - b->y0, shrink, fx, fy;
    int x0, y0, x1, y1, longer, out_w, out_h;
    struct image *out;

    if (!touches(img, b))
        return error_null(err, ERR_BAD_BOX,
                          "the face's box lies outside the photo");
    x0 = clamp(b->x0 - w, img->w - 1);
    y0 = clamp(b->y0 - h, img->h - 1);
    x1 = clamp(ceilf(b->x1 + w), img->w);
    y1 = clamp(ceilf(b->y1 + h), img->h);
    x1 = x1 > x0 ? x1 : x0 + 1;
    y1 = y1 > y0 ? y1 : y0 + 1;
    longer = x1 - x0 > y1 - y0 ? x1 - x0 : y1 - y0;
    shrink = longer > KEEP_SIDE ? (float)KEEP_SIDE / (float)longer : 1;
    out_w = (int)((float)(x1 - x0) * shrink + 0.5f);
    out_h = (int)((float)(y1 - y0) * shrink + 0.5f);
    out_w = out_w > 0 ? out_w : 1;
    out_h = out_h > 0 ? out_h : 1;
    out = image_new(out_w, out_h, err);
    if (!out)
        return NULL;
    image_resize(img, x0, y0, x1 - x0, y1 - y0, out->rgb, out_w, out_h,
                 (size_t)out_w * 3);
    fx = (float)out_w / (float)(x1 - x0);
    fy = (float)out_h / (float)(y1 - y0);
    *inner = *face;
    inner->box.x0 = (b->x0 - (float)x0) * fx;
    inner->box.x1 = (b->x1 - (float)x0) * fx;
    inner->box.y0 = (b->y0 - (float)y0) * fy;
    inner->box.y1 = (b->y1 - (float)y0) * fy;
    for (int i = 0; i < 5; i++) {
        /* Pixel centres: point 0 is the middle of the first pixel. */
        inner->points[i][0] =
            (face->points[i][0] + 0.5f - (float)x0) * fx - 0.5f;
        inner->points[i][1] =
            (face->points[i][1] + 0.5f - (float)y0) * fy - 0.5f;
    }
    return out;
}
