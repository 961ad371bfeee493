/* core/face/detect.c - MTCNN's cascade (Zhang and others, 2016): P-Net
 * proposes, R-Net refuses, O-Net decides and points. Numbers follow the
 * published PyTorch port, which is what the golden boxes come from. The
 * networks run in detect_stage.c. face.c calls it. */
#include "core/face/detect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/detect_priv.h"

enum {
    MOST_OF_LEVEL = 16384, /* raw proposals kept of one level */
    MOST_PROPOSED = 4096   /* that R-Net looks at */
};

struct detect_scratch {
    struct detect_plans plans;
    struct detect_mips mips;
    struct detect_layout layout;
    struct candidates level[DETECT_MAX_LEVELS];
    struct candidates found;
};

struct detect_scratch *detect_scratch_new(struct detector *d, struct error *err)
{
    struct detect_scratch *s = calloc(1, sizeof(*s));

    if (!s)
        return error_null(err, ERR_NOMEM, "no memory for a detector's scratch");
    detect_plans_init(&s->plans, d);
    return s;
}

void detect_scratch_free(struct detect_scratch *s)
{
    if (!s)
        return;
    detect_plans_fini(&s->plans);
    for (int i = 0; i < DETECT_MAX_LEVELS; i++)
        detect_candidates_fini(&s->level[i]);
    detect_candidates_fini(&s->found);
    detect_mips_fini(&s->mips);
    detect_layout_fini(&s->layout);
    free(s);
}

/* --- P-Net ---------------------------------------------------------------- */

static void draw_tiles(const struct detect_scratch *s, int canvas, float *input)
{
    const struct detect_layout *l = &s->layout;
    size_t row = (size_t)l->canvases[canvas].w;
    size_t plane = row * (size_t)l->canvases[canvas].h;

    for (int i = 0; i < l->n_tiles; i++) {
        const struct detect_tile *t = &l->tiles[i];
        struct detect_part part = {
            .w = s->mips.base->w,
            .h = s->mips.base->h,
            .out_w = l->levels[t->level].w,
            .out_h = l->levels[t->level].h,
            .px = t->cell_x * DETECT_STRIDE,
            .py = t->cell_y * DETECT_STRIDE,
            .pw = t->n_x * DETECT_STRIDE + DETECT_CELL - DETECT_STRIDE,
            .ph = t->n_y * DETECT_STRIDE + DETECT_CELL - DETECT_STRIDE};
        if (t->canvas == canvas)
            detect_reduce(&s->mips, &part,
                          input + (size_t)t->y * row + (size_t)t->x, plane,
                          row);
    }
}

/* Output cells of one tile to candidates of its level, in photo pixels. */
static int collect_tile(struct candidates *out, const struct detect_tile *t,
                        float scale, const float *prob, const float *reg,
                        size_t row, size_t plane, float threshold)
{

    for (int y = 0; y < t->n_y; y++) {
        size_t at = ((size_t)t->y / 2 + (size_t)y) * row + (size_t)t->x / 2;
        const float *face = prob + plane + at;
        float py = (float)(DETECT_STRIDE * (t->cell_y + y));
        for (int x = 0; x < t->n_x; x++) {
            float px = (float)(DETECT_STRIDE * (t->cell_x + x));
            struct candidate *c;
            if (!(face[x] >= threshold))
                continue;
            c = detect_push(out);
            if (!c)
                return -1;
            c->score = face[x];
            c->box.x0 = floorf((px + 1) / scale);
            c->box.y0 = floorf((py + 1) / scale);
            c->box.x1 = floorf((px + DETECT_CELL) / scale);
            c->box.y1 = floorf((py + DETECT_CELL) / scale);
            for (size_t k = 0; k < 4; k++)
                c->reg[k] = reg[k * plane + at + (size_t)x];
            if (out->n >= 2 * MOST_OF_LEVEL)
                detect_best(out, MOST_OF_LEVEL);
        }
    }
    return 0;
}

/* The canvas `from` and those after it that run with it; how many, or -1. */
static int run_canvases(struct detect_scratch *s, int from, float threshold,
                        struct error *err)
{
    const struct detect_layout *l = &s->layout;
    const int w = l->canvases[from].w, h = l->canvases[from].h;
    size_t row = (size_t)((w - DETECT_CELL) / DETECT_STRIDE + 1);
    size_t plane = row * (size_t)((h - DETECT_CELL) / DETECT_STRIDE + 1);
    int most = l->one_size ? l->n_canvases - from : 1;
    struct detect_run r;

    if (detect_run_begin(&s->plans, DETECT_PNET, most, w, h, &r, err))
        return -1;
    for (int i = 0; i < r.n; i++)
        draw_tiles(s, from + i, r.input + (size_t)i * 3 * (size_t)(w * h));
    if (detect_run_end(&s->plans, &r, err))
        return -1;
    for (int i = 0; i < l->n_tiles; i++) {
        const struct detect_tile *t = &l->tiles[i];
        size_t at = (size_t)(t->canvas - from);
        if (t->canvas >= from && t->canvas < from + r.n &&
            collect_tile(&s->level[t->level], t,
                         (float)l->levels[t->level].scale,
                         r.prob + at * r.step_prob, r.box + at * r.step_box,
                         row, plane, threshold))
            return error_set(err, ERR_NOMEM, "no memory for proposed faces");
    }
    return r.n;
}

static int propose(struct detect_scratch *s, float threshold, struct error *err)
{
    struct candidates *found = &s->found;

    for (int i = 0; i < s->layout.n_levels; i++)
        s->level[i].n = 0;
    found->n = 0;
    for (int from = 0; from < s->layout.n_canvases;) {
        int n = run_canvases(s, from, threshold, err);
        if (n < 0)
            return -1;
        from += n;
    }
    for (int i = 0; i < s->layout.n_levels; i++) {
        struct candidates *level = &s->level[i];
        detect_best(level, MOST_OF_LEVEL);
        detect_nms(level, 0.5f, OVERLAP_UNION);
        for (int k = 0; k < level->n; k++) {
            struct candidate *c = detect_push(found);
            if (!c)
                return error_set(err, ERR_NOMEM,
                                 "no memory for proposed faces");
            *c = level->at[k];
        }
    }
    detect_best(found, 2 * MOST_PROPOSED);
    detect_nms(found, 0.7f, OVERLAP_UNION);
    detect_best(found, MOST_PROPOSED);
    detect_regress(found, 0);
    detect_square(found);
    return 0;
}

/* --- R-Net and O-Net ------------------------------------------------------ */

static void fill(const struct detect_scratch *s, const struct candidate *at,
                 int n, int side, float *input)
{
    size_t plane = (size_t)side * (size_t)side;

    for (int i = 0; i < n; i++) {
        struct detect_part part = {
            .out_w = side, .out_h = side, .pw = side, .ph = side};
        if (detect_inside(&at[i].box, s->mips.base, &part))
            detect_reduce(&s->mips, &part, input + (size_t)i * 3 * plane, plane,
                          (size_t)side);
    }
}

/* Score the candidates and keep those above the threshold. */
static int judge(struct detect_scratch *s, enum detect_stage at,
                 float threshold, struct error *err)
{
    struct candidates *c = &s->found;
    struct detect_run r;
    int n_kept = 0;

    detect_drop_outside(c, s->mips.base);
    for (int from = 0; from < c->n; from += r.n) {
        if (detect_run_begin(&s->plans, at, c->n - from, 0, 0, &r, err))
            return -1;
        fill(s, c->at + from, r.n, r.w, r.input);
        if (detect_run_end(&s->plans, &r, err))
            return -1;
        for (size_t i = 0; i < (size_t)r.n; i++) {
            struct candidate *keep = &c->at[n_kept];
            float score = r.prob[i * r.step_prob + 1];
            if (!(score > threshold))
                continue;
            if (keep != &c->at[(size_t)from + i])
                *keep = c->at[(size_t)from + i];
            n_kept++;
            keep->score = score;
            memcpy(keep->reg, r.box + i * r.step_box, sizeof(keep->reg));
            if (r.points)
                memcpy(keep->points, r.points + i * r.step_points,
                       sizeof(keep->points));
        }
    }
    c->n = n_kept;
    return 0;
}

/* --- one call ------------------------------------------------------------- */

static int resolve(const struct detect_options *opt, struct detect_options *out,
                   struct error *err)
{
    static const struct detect_options usual = {.min_face = 36,
                                                .threshold = {0.6f, 0.7f, 0.7f},
                                                .factor = 0.709f,
                                                .max_faces = 100};

    *out = opt ? *opt : usual;
    if (out->min_face == 0)
        out->min_face = usual.min_face;
    if (out->factor == 0)
        out->factor = usual.factor;
    if (out->max_faces == 0)
        out->max_faces = usual.max_faces;
    if (!(out->min_face >= DETECT_CELL && out->min_face <= 1e5f))
        return error_set(
            err, ERR_BAD_FIELD,
            "smallest face of %g pixels: 12 to 100000 are possible",
            (double)out->min_face);
    if (!(out->factor >= 0.3f && out->factor <= 0.9f))
        return error_set(err, ERR_BAD_FIELD,
                         "pyramid factor %g: 0.3 to 0.9 are possible",
                         (double)out->factor);
    if (out->max_faces < 1 || out->max_faces > DETECT_MAX_FACES)
        return error_set(err, ERR_BAD_FIELD,
                         "at most %d faces: 1 to %d are possible",
                         out->max_faces, DETECT_MAX_FACES);
    for (int i = 0; i < DETECT_STAGES; i++) {
        if (out->threshold[i] == 0)
            out->threshold[i] = usual.threshold[i];
        if (!(out->threshold[i] > 0 && out->threshold[i] < 1))
            return error_set(err, ERR_BAD_FIELD,
                             "detector threshold %d is %g: between 0 and 1 is "
                             "possible",
                             i + 1, (double)out->threshold[i]);
    }
    return 0;
}

static bool all_finite(const struct face *f)
{
    float sum = f->box.x0 + f->box.y0 + f->box.x1 + f->box.y1 + f->score;

    for (int k = 0; k < 5; k++)
        sum += f->points[k][0] + f->points[k][1];
    return isfinite(sum);
}

static int by_area(const void *pa, const void *pb)
{
    const struct face *a = pa, *b = pb;
    float area_a = box_area(&a->box), area_b = box_area(&b->box);

    if (area_a != area_b)
        return area_a > area_b ? -1 : 1;
    return (a->score < b->score) - (a->score > b->score);
}

static int hand_over(const struct candidates *c, struct face **faces, int *n,
                     struct error *err)
{
    if (c->n == 0)
        return 0;
    *faces = malloc((size_t)c->n * sizeof(**faces));
    if (!*faces)
        return error_set(err, ERR_NOMEM, "no memory for %d faces", c->n);
    for (int i = 0; i < c->n; i++) {
        struct face *f = &(*faces)[*n];
        f->box = c->at[i].box;
        f->score = c->at[i].score;
        for (int k = 0; k < 5; k++) {
            f->points[k][0] = c->at[i].points[k];
            f->points[k][1] = c->at[i].points[k + 5];
        }
        *n += all_finite(f);
    }
    qsort(*faces, (size_t)*n, sizeof(**faces), by_area);
    return 0;
}

/* As far as what R-Net looks at; with to_onet as far as what O-Net does. */
static int cascade(struct detect_scratch *s, const struct image *img,
                   const struct detect_options *o, bool to_onet,
                   struct error *err)
{
    /* elsewhere has plans for few sizes, here there can be many */
    int side =
        detect_plans_elsewhere(&s->plans, DETECT_PNET) ? DETECT_SHARED : 0;

    if (detect_layout_build(&s->layout, img->w, img->h, o->min_face, o->factor,
                            side, err) ||
        detect_mips_build(&s->mips, img, err) ||
        propose(s, o->threshold[DETECT_PNET], err))
        return -1;
    if (!to_onet)
        return 0;
    if (judge(s, DETECT_RNET, o->threshold[DETECT_RNET], err))
        return -1;
    detect_nms(&s->found, 0.7f, OVERLAP_UNION);
    detect_regress(&s->found, 1);
    detect_square(&s->found);
    return 0;
}

int detect_faces(struct detect_scratch *s, const struct image *img,
                 const struct detect_options *opt, struct face **faces, int *n,
                 struct error *err)
{
    struct detect_options o;

    *faces = NULL;
    *n = 0;
    if (resolve(opt, &o, err) || cascade(s, img, &o, true, err) ||
        judge(s, DETECT_ONET, o.threshold[DETECT_ONET], err))
        return -1;
    detect_map_points(&s->found);
    detect_regress(&s->found, 1);
    detect_nms(&s->found, 0.7f, OVERLAP_MIN);
    detect_best(&s->found, o.max_faces);
    return hand_over(&s->found, faces, n, err);
}

int detect_candidates(struct detect_scratch *s, const struct image *img,
                      const struct detect_options *opt, bool onet,
                      struct box **boxes, int *n, struct error *err)
{
    struct detect_options o;

    *boxes = NULL;
    *n = 0;
    if (resolve(opt, &o, err) || cascade(s, img, &o, onet, err))
        return -1;
    detect_drop_outside(&s->found, img);
    if (s->found.n == 0)
        return 0;
    *boxes = malloc((size_t)s->found.n * sizeof(**boxes));
    if (!*boxes)
        return error_set(err, ERR_NOMEM, "no memory for %d boxes", s->found.n);
    for (int i = 0; i < s->found.n; i++)
        (*boxes)[i] = s->found.at[i].box;
    *n = s->found.n;
    return 0;
}
