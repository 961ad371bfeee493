/* core/train/augment.c - what of a photo is kept, the numbers that a seed
 * draws, and where they put the crop. Shift, scale and rotation move the face
 * before it is cropped as the contract says, so that crops of any kind show
 * the same. The loader's threads call it for every use of a face. */
#include "core/train/augment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/augment_priv.h"
#include "core/train/random.h"

/* As far as the script's window of 160 goes in its square of 182. */
static const float script_window = 11.0f / 160;
static const float pi = 3.14159265f;

/* --- text ------------------------------------------------------------------
 */

static const struct {
    const char *name;
    size_t offset;
    float most;
} fields[] = {
    {"jitter", offsetof(struct augment, jitter), 0.5f},
    {"rotate", offsetof(struct augment, rotate), 180},
    {"light", offsetof(struct augment, light), 1},
    {"grey", offsetof(struct augment, grey), 1},
    {"blur", offsetof(struct augment, blur), 1},
    {"noise", offsetof(struct augment, noise), 1},
    {"jpeg", offsetof(struct augment, jpeg), 1},
    {"shrink", offsetof(struct augment, shrink), 1},
    {"erase", offsetof(struct augment, erase), 1},
};
enum {
    N_FIELDS = sizeof(fields) / sizeof(fields[0])
};

static float *field(struct augment *a, size_t i)
{
    return (float *)((char *)a + fields[i].offset);
}

static const struct {
    const char *name;
    struct augment is;
} presets[] = {
    {"none", {0}},
    {"script", {.random_crop = true, .random_flip = true}},
    /* Small moves, as detectors differ; pictures of cameras at doors. */
    {"strong",
     {.random_flip = true,
      .jitter = 0.05f,
      .rotate = 10,
      .light = 0.3f,
      .grey = 0.1f,
      .blur = 0.15f,
      .noise = 0.15f,
      .jpeg = 0.2f,
      .shrink = 0.2f,
      .erase = 0.1f}},
};

static int take_value(struct augment *a, const char *item, size_t len_name,
                      struct error *err)
{
    const char *value = item + len_name + 1;

    for (size_t i = 0; i < N_FIELDS; i++) {
        char *end;
        float v;
        if (strlen(fields[i].name) != len_name ||
            strncmp(fields[i].name, item, len_name) != 0)
            continue;
        v = strtof(value, &end);
        if (end == value || *end || !(v >= 0 && v <= fields[i].most))
            return error_set(err, ERR_BAD_FIELD,
                             "%s is not a number from 0 to %g", item,
                             (double)fields[i].most);
        *field(a, i) = v;
        return 0;
    }
    return error_set(err, ERR_BAD_FIELD, "there is no %.*s", (int)len_name,
                     item);
}

static int take_item(struct augment *a, const char *item, struct error *err)
{
    const char *equals = strchr(item, '=');

    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(item, presets[i].name) == 0) {
            *a = presets[i].is;
            return 0;
        }
    }
    if (equals)
        return take_value(a, item, (size_t)(equals - item), err);
    if (strcmp(item, "crop") == 0)
        a->random_crop = true;
    else if (strcmp(item, "flip") == 0)
        a->random_flip = true;
    else
        return error_set(err, ERR_BAD_FIELD,
                         "'%s' is not none, script, strong, crop, "
                         "flip or one of jitter, rotate, light, grey, blur, "
                         "noise, jpeg, shrink, erase with =NUMBER",
                         item);
    return 0;
}

int augment_parse(const char *text, struct augment *out, struct error *err)
{
    struct augment a = {0};
    char *copy, *next, *item;
    int rc = 0;

    if (!*text) {
        *out = a;
        return 0;
    }
    next = copy = strdup(text);
    if (!copy)
        return error_set(err, ERR_NOMEM, "no memory to read '%s'", text);
    while (rc == 0 && (item = strsep(&next, ",")))
        rc = take_item(&a, item, err);
    free(copy);
    if (rc == 0)
        *out = a;
    return rc;
}

const char *augment_text(const struct augment *a, char *buf, size_t len)
{
    struct augment copy = *a;
    char list[256] = "";
    size_t n = 0;

    if (a->random_crop)
        n += (size_t)snprintf(list + n, sizeof(list) - n, ",crop");
    if (a->random_flip)
        n += (size_t)snprintf(list + n, sizeof(list) - n, ",flip");
    for (size_t i = 0; i < N_FIELDS; i++)
        if (*field(&copy, i) > 0)
            n += (size_t)snprintf(list + n, sizeof(list) - n, ",%s=%g",
                                  fields[i].name, (double)*field(&copy, i));
    snprintf(buf, len, "%s", n ? list + 1 : "none");
    return buf;
}

/* --- what is kept -----------------------------------------------------------
 */

static int clamp(float v, int most)
{
    return v < 0 ? 0 : v > (float)most ? most : (int)v;
}

/* The face and half its longer side around it, all the picture without one:
 * x, y, w, h. */
static int keep_part(const struct image *img, const struct face *face,
                     int part[4], struct error *err)
{
    const struct box *b;
    float w, h, longer, x, y;
    int x1, y1;

    part[0] = part[1] = 0;
    part[2] = img->w;
    part[3] = img->h;
    if (!face)
        return 0;
    b = &face->box;
    w = b->x1 - b->x0;
    h = b->y1 - b->y0;
    if (!isfinite(w + h + b->x0 + b->y0) || !(w > 0 && h > 0) ||
        !(b->x0 < (float)img->w && b->y0 < (float)img->h && b->x1 > 0 &&
          b->y1 > 0))
        return error_set(err, ERR_BAD_BOX,
                         "the face's box lies outside the photo");
    longer = w > h ? w : h;
    x = (b->x0 + b->x1) / 2;
    y = (b->y0 + b->y1) / 2;
    part[0] = clamp(x - longer, img->w - 1);
    part[1] = clamp(y - longer, img->h - 1);
    x1 = clamp(ceilf(x + longer), img->w);
    y1 = clamp(ceilf(y + longer), img->h);
    part[2] = x1 > part[0] ? x1 - part[0] : 1;
    part[3] = y1 > part[1] ? y1 - part[1] : 1;
    return 0;
}

int augment_keep(const struct image *img, const struct face *face, int side,
                 struct augment_face *out, struct error *err)
{
    int part[4], w, h, longer;
    float shrink, fx, fy;

    memset(out, 0, sizeof(*out));
    if (keep_part(img, face, part, err))
        return -1;
    longer = part[2] > part[3] ? part[2] : part[3];
    shrink = longer > side ? (float)side / (float)longer : 1;
    w = (int)((float)part[2] * shrink + 0.5f);
    h = (int)((float)part[3] * shrink + 0.5f);
    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    out->img = image_new(w, h, err);
    if (!out->img)
        return -1;
    image_resize(img, part[0], part[1], part[2], part[3], out->img->rgb, w, h,
                 (size_t)w * 3);
    out->scale = shrink;
    out->aligned = !face;
    if (!face)
        return 0;
    fx = (float)w / (float)part[2];
    fy = (float)h / (float)part[3];
    out->face = *face;
    out->face.box.x0 = (face->box.x0 - (float)part[0]) * fx;
    out->face.box.x1 = (face->box.x1 - (float)part[0]) * fx;
    out->face.box.y0 = (face->box.y0 - (float)part[1]) * fy;
    out->face.box.y1 = (face->box.y1 - (float)part[1]) * fy;
    for (int i = 0; i < 5; i++) {
        /* Pixel centres: point 0 is the middle of the first pixel. */
        out->face.points[i][0] =
            (face->points[i][0] + 0.5f - (float)part[0]) * fx - 0.5f;
        out->face.points[i][1] =
            (face->points[i][1] + 0.5f - (float)part[1]) * fy - 0.5f;
    }
    return 0;
}

void augment_face_fini(struct augment_face *f)
{
    image_free(f->img);
    memset(f, 0, sizeof(*f));
}

/* --- what a seed draws ------------------------------------------------------
 */

static float between(uint64_t *random, float lo, float hi)
{
    return lo + (hi - lo) * (float)random_unit(random);
}

static bool chance(uint64_t *random, float p)
{
    return random_unit(random) < (double)p;
}

/* Everything is drawn, wanted or not: switching one thing on or off leaves
 * the others as they were. */
static struct augment_draw draw(const struct augment *a, uint64_t seed)
{
    struct augment_draw d = {.zoom = 1}, all = {0};
    bool with;

    all.window_x = between(&seed, -1, 1);
    all.window_y = between(&seed, -1, 1);
    d.flip = chance(&seed, 0.5f) && a->random_flip;
    d.shift_x = a->jitter * between(&seed, -1, 1);
    d.shift_y = a->jitter * between(&seed, -1, 1);
    d.zoom = expf(a->jitter * between(&seed, -1, 1));
    d.angle = a->rotate * pi / 180 * between(&seed, -1, 1);
    d.gain = a->light > 0 ? 1 : 0;
    d.gain += a->light * between(&seed, -1, 1);
    d.offset = a->light * 128 * between(&seed, -1, 1);
    d.grey = chance(&seed, a->grey);
    with = chance(&seed, a->blur);
    all.blur = between(&seed, 0.3f, 2);
    d.blur = with ? all.blur : 0;
    with = chance(&seed, a->noise);
    all.noise = between(&seed, 1, 12);
    d.noise = with ? all.noise : 0;
    d.noise_seed = random_next(&seed);
    with = chance(&seed, a->jpeg);
    all.quality = 30 + random_below(&seed, 61);
    d.quality = with ? all.quality : 0;
    with = chance(&seed, a->shrink);
    all.shrink = between(&seed, 24, 64);
    d.shrink = with ? all.shrink : 0;
    with = chance(&seed, a->erase);
    all.erase_w = between(&seed, 0.1f, 0.4f);
    all.erase_h = between(&seed, 0.1f, 0.4f);
    d.erase_x = between(&seed, 0, 1) * (1 - all.erase_w);
    d.erase_y = between(&seed, 0, 1) * (1 - all.erase_h);
    d.erase_w = with ? all.erase_w : 0;
    d.erase_h = with ? all.erase_h : 0;
    d.erase_value = (uint8_t)random_below(&seed, 256);
    if (a->random_crop) {
        d.window_x = all.window_x;
        d.window_y = all.window_y;
    }
    /* A gain of 0 means none. */
    if (a->light > 0 && !(d.gain > 0.01f))
        d.gain = 0.01f;
    return d;
}

/* --- where ------------------------------------------------------------------
 */

/* img turned by the angle around px, py, from x0, y0 on. */
static void turn(const struct image *img, float angle, float px, float py,
                 int x0, int y0, struct image *out)
{
    float co = cosf(angle), si = sinf(angle);
    /* Pixel centres lie at halves, as the pivot counts. */
    const struct align_map m = {.xx = co,
                                .xy = si,
                                .yx = -si,
                                .yy = co,
                                .from_x = px - (float)x0 - 0.5f,
                                .from_y = py - (float)y0 - 0.5f,
                                .to_x = px - 0.5f,
                                .to_y = py - 0.5f};

    align_warp(img, &m, out);
}

/* Five points as they would lie had the face been moved the other way: what
 * aligns them moves the picture. */
static struct image *crop_points(const struct augment_face *f,
                                 const struct augment_draw *d,
                                 const struct contract *c, struct error *err)
{
    const struct box *b = &f->face.box;
    float px = (b->x0 + b->x1) / 2, py = (b->y0 + b->y1) / 2;
    float w = b->x1 - b->x0, h = b->y1 - b->y0, longer = w > h ? w : h;
    float co = cosf(d->angle), si = sinf(d->angle);
    float dx = (d->shift_x + d->window_x * script_window) * longer;
    float dy = (d->shift_y + d->window_y * script_window) * longer;
    struct face moved = f->face;

    for (int i = 0; i < 5; i++) {
        float u = (f->face.points[i][0] + 0.5f - px) / d->zoom - dx;
        float v = (f->face.points[i][1] + 0.5f - py) / d->zoom - dy;
        moved.points[i][0] = px + co * u + si * v - 0.5f;
        moved.points[i][1] = py - si * u + co * v - 0.5f;
    }
    return align_crop(f->img, &moved, c, err);
}

/* w x h of the square, at the window's place in what the square has more. */
static struct image *cut_window(struct image *take_square,
                                const struct augment_draw *d, int w, int h,
                                struct error *err)
{
    float more_x = (float)(take_square->w - w);
    float more_y = (float)(take_square->h - h);
    int x = d->window_x == 0 ? (take_square->w - w) / 2
                             : (int)(more_x * (1 + d->window_x) / 2 + 0.5f);
    int y = d->window_y == 0 ? (take_square->h - h) / 2
                             : (int)(more_y * (1 + d->window_y) / 2 + 0.5f);
    struct image *out;

    if (take_square->w == w && take_square->h == h)
        return take_square;
    out = image_new(w, h, err);
    for (int i = 0; out && i < h; i++)
        memcpy(out->rgb + (size_t)i * (size_t)w * 3,
               take_square->rgb +
                   ((size_t)(y + i) * (size_t)take_square->w + (size_t)x) * 3,
               (size_t)w * 3);
    image_free(take_square);
    return out;
}

static struct image *crop_box(const struct augment_face *f,
                              const struct augment_draw *d,
                              const struct contract *c, struct error *err)
{
    const struct box *b = &f->face.box;
    float px = (b->x0 + b->x1) / 2, py = (b->y0 + b->y1) / 2;
    float w = b->x1 - b->x0, h = b->y1 - b->y0, longer = w > h ? w : h;
    struct contract square = *c;
    struct face moved = f->face;
    struct image *turned = NULL, *out;

    square.width = square.height = c->crop_size;
    /* In the kept picture's pixels. */
    square.crop_margin = (int)((float)c->crop_margin * f->scale + 0.5f);
    moved.box.x0 = px - d->shift_x * longer - w / 2 / d->zoom;
    moved.box.x1 = px - d->shift_x * longer + w / 2 / d->zoom;
    moved.box.y0 = py - d->shift_y * longer - h / 2 / d->zoom;
    moved.box.y1 = py - d->shift_y * longer + h / 2 / d->zoom;
    if (d->angle != 0) {
        float more = (float)square.crop_margin / 2;
        int x0 = clamp(moved.box.x0 - more, f->img->w - 1);
        int y0 = clamp(moved.box.y0 - more, f->img->h - 1);
        int x1 = clamp(moved.box.x1 + more, f->img->w);
        int y1 = clamp(moved.box.y1 + more, f->img->h);
        turned = image_new(x1 > x0 ? x1 - x0 : 1, y1 > y0 ? y1 - y0 : 1, err);
        if (!turned)
            return NULL;
        turn(f->img, d->angle, px, py, x0, y0, turned);
        moved.box.x0 -= (float)x0;
        moved.box.x1 -= (float)x0;
        moved.box.y0 -= (float)y0;
        moved.box.y1 -= (float)y0;
    }
    out = align_crop(turned ? turned : f->img, &moved, &square, err);
    image_free(turned);
    return out ? cut_window(out, d, c->width, c->height, err) : NULL;
}

/* Of a picture that somebody cropped. */
static struct image *crop_whole(const struct augment_face *f,
                                const struct augment_draw *d,
                                const struct contract *c, struct error *err)
{
    bool window = c->crop == CROP_BOX_MARGIN;
    int out_w = window ? c->crop_size : c->width;
    int out_h = window ? c->crop_size : c->height;
    float w = (float)f->img->w, h = (float)f->img->h, longer, dx, dy;
    float px = w / 2, py = h / 2;
    struct image *turned = NULL, *out = image_new(out_w, out_h, err);
    int x, y, in_w, in_h;

    if (out && d->angle != 0)
        turned = image_new(f->img->w, f->img->h, err);
    if (!out || (d->angle != 0 && !turned)) {
        image_free(out);
        return NULL;
    }
    if (turned)
        turn(f->img, d->angle, px, py, 0, 0, turned);
    if (!window) { /* the input's shape */
        float part = w * (float)out_h > h * (float)out_w ? h / (float)out_h
                                                         : w / (float)out_w;
        w = part * (float)out_w;
        h = part * (float)out_h;
    }
    longer = w > h ? w : h;
    dx = d->shift_x + (window ? 0 : d->window_x * script_window);
    dy = d->shift_y + (window ? 0 : d->window_y * script_window);
    in_w = (int)(w / d->zoom + 0.5f);
    in_h = (int)(h / d->zoom + 0.5f);
    in_w = in_w > 0 ? in_w : 1;
    in_h = in_h > 0 ? in_h : 1;
    x = (int)floorf(px - dx * longer - (float)in_w / 2 + 0.5f);
    y = (int)floorf(py - dy * longer - (float)in_h / 2 + 0.5f);
    image_resize(turned ? turned : f->img, x, y, in_w, in_h, out->rgb, out_w,
                 out_h, (size_t)out_w * 3);
    image_free(turned);
    return window ? cut_window(out, d, c->width, c->height, err) : out;
}

static struct image *place(const struct augment_face *f,
                           const struct augment_draw *d,
                           const struct contract *c, struct error *err)
{
    if (c->crop == CROP_NONE || c->width < 1 || c->height < 1)
        return error_null(err, ERR_MODEL,
                          "contract: no crop for faces, or an input of %dx%d",
                          c->width, c->height);
    if (c->crop == CROP_BOX_MARGIN &&
        (c->crop_size < c->width || c->crop_size < c->height))
        return error_null(err, ERR_MODEL,
                          "contract: a crop of %d pixels for an input of %dx%d",
                          c->crop_size, c->width, c->height);
    if (f->aligned)
        return crop_whole(f, d, c, err);
    if (c->crop == CROP_ARCFACE)
        return crop_points(f, d, c, err);
    return crop_box(f, d, c, err);
}

struct image *augment_crop(const struct augment_face *f,
                           const struct augment *a, uint64_t seed,
                           const struct contract *c, struct error *err)
{
    struct augment_draw d = {.zoom = 1}, still = {.zoom = 1};
    struct error why = {0};
    struct image *img;

    if (a)
        d = draw(a, seed);
    img = place(f, &d, c, &why);
    /* Moved out of the picture: where it was, then. */
    if (!img && why.code == ERR_BAD_BOX)
        img = place(f, &still, c, &why);
    if (!img)
        return error_null(err, why.code, "%s", why.text);
    if (augment_pixels(img, &d, err)) {
        image_free(img);
        return NULL;
    }
    return img;
}

bool augment_same_crop(const struct contract *a, const struct contract *b)
{
    return a->crop == b->crop && a->width == b->width &&
           a->height == b->height &&
           (a->crop != CROP_BOX_MARGIN ||
            (a->crop_margin == b->crop_margin && a->crop_size == b->crop_size));
}
