/* core/train/detector_scene.c - draws and composes scenes. Every photo is a
 * layer with a map of what it covers, so that faces which a later layer hides
 * are known; then the picture as a whole is disturbed, as a camera would. */
#include "core/train/detector_scene.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/augment_priv.h"
#include "core/train/detector_photos.h"
#include "core/train/random.h"

enum {
    LEAST_SIDE = 160,
    MOST_SIDE = 400,
    LEAST_FACE = 18,
    MOST_LAYERS = 8,
    MOST_TRIES = 1000,
    GRID = 8 /* points of a face looked at along a side */
};
static const float most_growth = 1.8f; /* of a photo's pixels */
static const float in_view = 0.8f, partly = 0.25f;

struct canvas {
    struct image *img;
    uint8_t *layer; /* which covers a pixel */
    int n_layers;
    struct detector_scene *scene;
    uint8_t face_layer[DETECTOR_SCENE_FACES];
};

void detector_scene_fini(struct detector_scene *s)
{
    image_free(s->img);
    memset(s, 0, sizeof(*s));
}

static float between(uint64_t *random, float lo, float hi)
{
    return lo + (hi - lo) * (float)random_unit(random);
}

static bool chance(uint64_t *random, float p)
{
    return random_unit(random) < (double)p;
}

/* Every factor as likely. */
static float log_between(uint64_t *random, float lo, float hi)
{
    return lo < hi ? lo * powf(hi / lo, (float)random_unit(random)) : lo;
}

/* --- faces ------------------------------------------------------------ */

struct face detector_scene_move(const struct detector_place *at,
                                const struct face *f)
{
    static const int mirrored[5] = {1, 0, 2, 4, 3};
    float scale = hypotf(at->a, at->b);
    /* Boxes are of pixels counted from one, both ends included. */
    float w = f->box.x1 - f->box.x0 + 1, h = f->box.y1 - f->box.y0 + 1;
    float u = f->box.x0 - 1 + w / 2, v = f->box.y0 - 1 + h / 2, x, y;
    struct face out = {.score = f->score};

    u = at->mirror ? at->w - u : u;
    x = at->a * u - at->b * v + at->x0;
    y = at->b * u + at->a * v + at->y0;
    w *= scale;
    h *= scale;
    out.box = (struct box){x - w / 2 + 1, y - h / 2 + 1, x + w / 2, y + h / 2};
    for (int k = 0; k < 5; k++) {
        const float *p = f->points[at->mirror ? mirrored[k] : k];

        u = at->mirror ? at->w - p[0] : p[0];
        out.points[k][0] = at->a * u - at->b * p[1] + at->x0;
        out.points[k][1] = at->b * u + at->a * p[1] + at->y0;
    }
    return out;
}

static void add_faces(struct canvas *c, const struct detector_photo *photo,
                      const struct detector_place *at)
{
    struct detector_scene *s = c->scene;

    for (int i = 0; i < photo->n_faces; i++) {
        if (s->n_faces == DETECTOR_SCENE_FACES)
            return;
        c->face_layer[s->n_faces] = (uint8_t)c->n_layers;
        s->faces[s->n_faces].face =
            detector_scene_move(at, &photo->faces[i].face);
        s->faces[s->n_faces++].sure = photo->faces[i].sure;
    }
}

/* The part of a face that its layer still shows inside the picture. */
static float visible(const struct canvas *c, int face)
{
    const struct box *b = &c->scene->faces[face].face.box;
    int n = 0;

    for (int i = 0; i < GRID * GRID; i++) {
        float fx = ((float)(i % GRID) + 0.5f) / GRID;
        float fy = ((float)(i / GRID) + 0.5f) / GRID;
        float x = b->x0 - 1 + fx * (b->x1 - b->x0 + 1);
        float y = b->y0 - 1 + fy * (b->y1 - b->y0 + 1);

        if (x >= 0 && y >= 0 && x < (float)c->img->w && y < (float)c->img->h)
            n += c->layer[(size_t)y * (size_t)c->img->w + (size_t)x] ==
                 c->face_layer[face];
    }
    return (float)n / (GRID * GRID);
}

static void keep_visible(struct canvas *c)
{
    struct detector_scene *s = c->scene;
    int n = 0;

    for (int i = 0; i < s->n_faces; i++) {
        float part = visible(c, i);

        if (part < partly)
            continue;
        s->faces[n] = s->faces[i];
        s->faces[n++].sure = s->faces[i].sure && part >= in_view;
    }
    s->n_faces = n;
}

/* --- pixels ------------------------------------------------------------ */

/* Bilinear between pixel centres, the edge continued; u, v are in src. */
static void sample(const struct image *src, float u, float v, uint8_t out[3])
{
    float x = fmaxf(u - 0.5f, 0), y = fmaxf(v - 0.5f, 0);
    int x0 = (int)x, y0 = (int)y;
    size_t right, below;
    const uint8_t *p;

    x0 = x0 < src->w - 1 ? x0 : src->w - 1;
    y0 = y0 < src->h - 1 ? y0 : src->h - 1;
    x -= (float)x0;
    y -= (float)y0;
    right = x0 + 1 < src->w ? 3 : 0;
    below = y0 + 1 < src->h ? (size_t)src->w * 3 : 0;
    p = src->rgb + ((size_t)y0 * (size_t)src->w + (size_t)x0) * 3;
    for (int k = 0; k < 3; k++, p++) {
        float top = (float)p[0] + x * ((float)p[right] - (float)p[0]);
        float low =
            (float)p[below] + x * ((float)p[below + right] - (float)p[below]);

        out[k] = (uint8_t)(top + y * (low - top) + 0.5f);
    }
}

/* Pixels of the canvas under the photo, from src: the photo `shrunk` times as
 * wide. */
static void lay_pixels(struct canvas *c, const struct image *src, float shrunk,
                       const struct detector_place *at)
{
    float square = at->a * at->a + at->b * at->b;
    float inv = shrunk / square; /* to src's pixels */
    float w = (float)src->w, h = (float)src->h;

    for (int y = 0; y < c->img->h; y++) {
        size_t row = (size_t)y * (size_t)c->img->w;
        float dy = (float)y + 0.5f - at->y0;
        for (int x = 0; x < c->img->w; x++) {
            float dx = (float)x + 0.5f - at->x0;
            float u = (at->a * dx + at->b * dy) * inv;
            float v = (at->a * dy - at->b * dx) * inv;

            if (!(u >= 0 && v >= 0 && u < w && v < h))
                continue;
            sample(src, at->mirror ? w - u : u, v,
                   c->img->rgb + (row + (size_t)x) * 3);
            c->layer[row + (size_t)x] = (uint8_t)c->n_layers;
        }
    }
}

/* Lay a photo over the canvas, its faces with it. Shrinking averages, turning
 * and enlarging interpolates. */
static int lay(struct canvas *c, const struct detector_photo *photo,
               const struct detector_place *at, struct error *err)
{
    float scale = hypotf(at->a, at->b);
    const struct image *src = photo->img;
    struct image *small = NULL;
    float shrunk = 1;

    if (scale < 0.9f) {
        int w = (int)((float)src->w * scale + 0.5f);
        int h = (int)((float)src->h * scale + 0.5f);

        w = w > 0 ? w : 1;
        h = h > 0 ? h : 1;
        small = image_new(w, h, err);
        if (!small)
            return -1;
        image_resize(src, 0, 0, src->w, src->h, small->rgb, w, h,
                     (size_t)w * 3);
        shrunk = (float)w / (float)src->w;
        src = small;
    }
    c->n_layers++;
    lay_pixels(c, src, shrunk, at);
    add_faces(c, photo, at);
    image_free(small);
    return 0;
}

/* --- drawing ------------------------------------------------------------ */

static float draw_angle(uint64_t *random)
{
    const float degree = 0.01745329f;
    float most = chance(random, 0.3f) ? 3 : chance(random, 0.75f) ? 15 : 32;

    return between(random, -most, most) * degree;
}

/* A place that takes the point u, v of the photo to x, y. */
static struct detector_place place(const struct image *img, float scale,
                                   float angle, bool mirror, float u, float v,
                                   float x, float y)
{
    struct detector_place at = {.a = scale * cosf(angle),
                                .b = scale * sinf(angle),
                                .w = (float)img->w,
                                .mirror = mirror};

    u = mirror ? at.w - u : u;
    at.x0 = x - at.a * u + at.b * v;
    at.y0 = y - at.b * u - at.a * v;
    return at;
}

/* All over the canvas. */
static int lay_ground(struct canvas *c, const struct detector_photo *photo,
                      uint64_t *random, struct error *err)
{
    const struct image *img = photo->img;
    float cover = fmaxf((float)c->img->w / (float)img->w,
                        (float)c->img->h / (float)img->h);
    float scale = cover * log_between(random, 1, 2.5f);
    float spare_x = (float)img->w * scale - (float)c->img->w;
    float spare_y = (float)img->h * scale - (float)c->img->h;
    bool mirror = chance(random, 0.5f);
    struct detector_place at =
        place(img, scale, 0, mirror, mirror ? (float)img->w : 0, 0,
              -between(random, 0, spare_x), -between(random, 0, spare_y));

    return lay(c, photo, &at, err);
}

/* One of the photo's sure faces at a size between least and most. */
static int lay_face(struct canvas *c, const struct detector_photo *photo,
                    float least, float most, uint64_t *random,
                    struct error *err)
{
    const struct box *b;
    float size, wanted, scale, angle, x, y;
    int pick = random_below(random, photo->n_faces);
    struct detector_place at;

    for (int i = 0; i < photo->n_faces && !photo->faces[pick].sure; i++)
        pick = (pick + 1) % photo->n_faces;
    b = &photo->faces[pick].face.box;
    size = fmaxf(b->x1 - b->x0, b->y1 - b->y0) + 1;
    wanted = log_between(random, least, most);
    scale = fminf(wanted / size, most_growth);
    wanted = scale * size;
    angle = draw_angle(random);
    /* Now and then over the edge. */
    x = between(random, 0.35f * wanted, (float)c->img->w - 0.35f * wanted);
    y = between(random, 0.35f * wanted, (float)c->img->h - 0.35f * wanted);
    at = place(photo->img, scale, angle, chance(random, 0.5f),
               (b->x0 + b->x1) / 2, (b->y0 + b->y1) / 2, x, y);
    return lay(c, photo, &at, err);
}

static const struct detector_photo *draw_photo(struct detector_photos *p,
                                               bool ground, uint64_t *random,
                                               struct error *err)
{
    int n_grounds = detector_photos_n(p, true);

    ground = ground && n_grounds > 0;
    for (int i = 0; i < MOST_TRIES; i++) {
        int n = ground ? n_grounds : detector_photos_n(p, false);
        const struct detector_photo *photo;

        if (n == 0)
            break;
        photo = detector_photos_get(p, ground, random_below(random, n), err);
        if (!photo)
            return NULL;
        if (photo->usable)
            return photo;
        if (i == MOST_TRIES / 2)
            ground = false;
    }
    return error_null(err, ERR_TRAINING,
                      "no face was found in %d photos drawn one after another: "
                      "are these photos of people?",
                      MOST_TRIES);
}

static int fill_ground(struct detector_photos *p, struct canvas *c,
                       uint64_t *random, struct error *err)
{
    size_t n = (size_t)c->img->w * (size_t)c->img->h * 3;
    const struct detector_photo *photo;
    uint8_t flat[3];

    for (int k = 0; k < 3; k++)
        flat[k] = (uint8_t)random_below(random, 256);
    if (chance(random, 0.5f))
        flat[0] = flat[1] = flat[2] = chance(random, 0.5f) ? 0 : flat[0];
    for (size_t i = 0; i < n; i++)
        c->img->rgb[i] = flat[i % 3];
    if (chance(random, 0.15f))
        return 0;
    photo = draw_photo(p, chance(random, 0.7f), random, err);
    return photo ? lay_ground(c, photo, random, err) : -1;
}

static int compose(struct detector_photos *p, struct canvas *c,
                   uint64_t *random, struct error *err)
{
    float side = (float)(c->img->w < c->img->h ? c->img->w : c->img->h) * 0.95f;
    float kind = (float)random_unit(random);
    float most = kind < 0.6f ? side : 80;
    int n = kind < 0.6f   ? 1
            : kind < 0.9f ? 2 + random_below(random, MOST_LAYERS - 3)
                          : 0;

    if (fill_ground(p, c, random, err))
        return -1;
    for (int i = 0; i < n; i++) {
        const struct detector_photo *photo = draw_photo(p, false, random, err);

        if (!photo || lay_face(c, photo, LEAST_FACE, most > side ? side : most,
                               random, err))
            return -1;
    }
    return 0;
}

/* What camera, light and compression do. Lengths are a crop of 112's. */
static int disturb(struct image *img, uint64_t *random, struct error *err)
{
    float unit = 112 / (float)(img->w < img->h ? img->w : img->h);
    struct augment_draw d = {0};

    if (chance(random, 0.6f)) {
        d.gain = between(random, 0.55f, 1.4f);
        d.offset = between(random, -45, 45);
    }
    d.grey = chance(random, 0.12f);
    if (chance(random, 0.15f))
        d.blur = between(random, 0.4f, 2) * unit;
    if (chance(random, 0.15f))
        d.noise = between(random, 1, 14);
    d.noise_seed = random_next(random);
    if (chance(random, 0.3f))
        d.quality = 25 + random_below(random, 65);
    if (chance(random, 0.1f))
        d.shrink = 112 * between(random, 0.35f, 0.9f);
    return augment_pixels(img, &d, err);
}

int detector_scene_draw(struct detector_photos *p, uint64_t seed,
                        struct detector_scene *out, struct error *err)
{
    uint64_t random = seed;
    struct canvas c = {.scene = out};
    int w = LEAST_SIDE + random_below(&random, MOST_SIDE - LEAST_SIDE + 1);
    int h = LEAST_SIDE + random_below(&random, MOST_SIDE - LEAST_SIDE + 1);
    int rc = -1;

    memset(out, 0, sizeof(*out));
    c.layer = calloc((size_t)w * (size_t)h, 1);
    c.img = out->img = image_new(w, h, err);
    if (!c.layer && c.img)
        error_set(err, ERR_NOMEM, "no memory for a scene");
    else if (c.img && compose(p, &c, &random, err) == 0) {
        keep_visible(&c);
        rc = disturb(out->img, &random, err);
    }
    free(c.layer);
    if (rc)
        detector_scene_fini(out);
    return rc;
}
