/* core/face/detect_boxes.c - candidate boxes of the detector: lists, sorting,
 * suppression, regression. Only detect.c calls it. */
#include "core/face/detect_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate *detect_push(struct candidates *c)
{
    if (c->n == c->room) {
        int room = c->room ? 2 * c->room : 64;
        struct candidate *at = realloc(c->at, (size_t)room * sizeof(*at));
        if (!at)
            return NULL;
        c->at = at;
        c->room = room;
    }
    memset(&c->at[c->n], 0, sizeof(c->at[0]));
    return &c->at[c->n++];
}

void detect_candidates_fini(struct candidates *c)
{
    free(c->at);
    memset(c, 0, sizeof(*c));
}

/* Equal scores are ordered by place, so that the same picture always gives
 * the same faces. */
static int by_score(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->box.y0 != b->box.y0)
        return a->box.y0 < b->box.y0 ? -1 : 1;
    if (a->box.x0 != b->box.x0)
        return a->box.x0 < b->box.x0 ? -1 : 1;
    return (a->box.x1 > b->box.x1) - (a->box.x1 < b->box.x1);
}

void detect_best(struct candidates *c, int most)
{
    if (c->n > 1)
        qsort(c->at, (size_t)c->n, sizeof(c->at[0]), by_score);
    if (c->n > most)
        c->n = most;
}

static float overlap_of(const struct box *a, const struct box *b, float plus,
                        enum overlap kind)
{
    float w = fminf(a->x1, b->x1) - fmaxf(a->x0, b->x0) + plus;
    float h = fminf(a->y1, b->y1) - fmaxf(a->y0, b->y0) + plus;
    float inter, area_a, area_b, whole;

    if (w <= 0 || h <= 0)
        return 0;
    inter = w * h;
    area_a = (a->x1 - a->x0 + plus) * (a->y1 - a->y0 + plus);
    area_b = (b->x1 - b->x0 + plus) * (b->y1 - b->y0 + plus);
    whole =
        kind == OVERLAP_MIN ? fminf(area_a, area_b) : area_a + area_b - inter;
    return whole > 0 ? inter / whole : 0;
}

void detect_nms(struct candidates *c, float most, enum overlap kind)
{
    float plus = kind == OVERLAP_MIN ? 1 : 0;
    int n_kept = 0;

    detect_best(c, c->n);
    for (int i = 0; i < c->n; i++) {
        bool keep = true;
        for (int k = 0; keep && k < n_kept; k++)
            keep = overlap_of(&c->at[i].box, &c->at[k].box, plus, kind) <= most;
        if (keep) {
            if (n_kept != i)
                c->at[n_kept] = c->at[i];
            n_kept++;
        }
    }
    c->n = n_kept;
}

void detect_regress(struct candidates *c, float plus)
{
    for (int i = 0; i < c->n; i++) {
        struct box *b = &c->at[i].box;
        const float *r = c->at[i].reg;
        float w = b->x1 - b->x0 + plus, h = b->y1 - b->y0 + plus;
        b->x0 += r[0] * w;
        b->y0 += r[1] * h;
        b->x1 += r[2] * w;
        b->y1 += r[3] * h;
    }
}

void detect_square(struct candidates *c)
{
    for (int i = 0; i < c->n; i++) {
        struct box *b = &c->at[i].box;
        float w = b->x1 - b->x0, h = b->y1 - b->y0;
        float side = fmaxf(w, h);
        b->x0 += (w - side) * 0.5f;
        b->y0 += (h - side) * 0.5f;
        b->x1 = b->x0 + side;
        b->y1 = b->y0 + side;
    }
}

bool detect_inside(const struct box *b, const struct image *img,
                   struct detect_part *out)
{
    const float far_off = 1e6f;
    int x0, y0, x1, y1;

    if (!(fabsf(b->x0) < far_off && fabsf(b->y0) < far_off &&
          fabsf(b->x1) < far_off && fabsf(b->y1) < far_off))
        return false;
    x0 = b->x0 < 1 ? 1 : (int)b->x0;
    y0 = b->y0 < 1 ? 1 : (int)b->y0;
    x1 = b->x1 > (float)img->w ? img->w : (int)b->x1;
    y1 = b->y1 > (float)img->h ? img->h : (int)b->y1;
    if (x1 < x0 || y1 < y0)
        return false;
    out->x = x0 - 1;
    out->y = y0 - 1;
    out->w = x1 - x0 + 1;
    out->h = y1 - y0 + 1;
    return true;
}

void detect_drop_outside(struct candidates *c, const struct image *img)
{
    struct detect_part part;
    int n = 0;

    for (int i = 0; i < c->n; i++)
        if (detect_inside(&c->at[i].box, img, &part))
            c->at[n++] = c->at[i];
    c->n = n;
}

/* O-Net's points from box sizes to photo pixels, before the box is moved. */
void detect_map_points(struct candidates *c)
{
    for (int i = 0; i < c->n; i++) {
        struct candidate *f = &c->at[i];
        float w = f->box.x1 - f->box.x0 + 1, h = f->box.y1 - f->box.y0 + 1;
        for (int k = 0; k < 5; k++) {
            f->points[k] = f->box.x0 + w * f->points[k] - 1;
            f->points[k + 5] = f->box.y0 + h * f->points[k + 5] - 1;
        }
    }
}

float box_area(const struct box *b)
{
    float w = b->x1 - b->x0, h = b->y1 - b->y0;
    return w > 0 && h > 0 ? w * h : 0;
}

float box_iou(const struct box *a, const struct box *b)
{
    struct box both = {fmaxf(a->x0, b->x0), fmaxf(a->y0, b->y0),
                       fminf(a->x1, b->x1), fminf(a->y1, b->y1)};
    float inter = box_area(&both);
    float whole = box_area(a) + box_area(b) - inter;
    return whole > 0 ? inter / whole : 0;
}
