/* core/train/detector_sample.c - chooses where in a scene a network looks. The
 * class is the teacher's of the very same pixels, pulled towards what is known
 * of the scene; boxes and points are the scene's own, which the teacher saw
 * before they were turned and disturbed. */
#include "core/train/detector_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/detect_view.h"
#include "core/train/random.h"

enum {
    MOST_BOXES = 64,
    MOST_TRIES = 50,
    PIECES = 12,  /* of a scene */
    CROPS_R = 48, /* of a scene */
    CROPS_O = 32,
    LEAST_CROP = 12
};
/* Overlap with a face from which a crop is one, from which it has a box and
 * points, and under which it is none. */
static const float is_face = 0.6f, is_part = 0.4f, is_none = 0.3f;
static const float is_proposal = 0.5f; /* the same as is_face, of P-Net */
/* How far what is known of the scene pulls the teacher's answer. */
static const float pull = 0.5f;
/* Looser than the cascade in use: what just fails there is learnt, too. */
static const struct detect_options look = {
    .min_face = 20, .threshold = {0.5f, 0.5f, 0.5f}, .max_faces = 100};

/* A piece of a level: where its left upper pixel lies there. */
struct piece {
    float scale;
    int x, y;
};

struct detector_sampler {
    struct detector_sampler_options o;
    struct detector_photos *photos;
    struct detect_view *view;
    struct plan *teacher;
    struct box *boxes;             /* [batch] of R-Net's and O-Net's */
    struct piece *pieces;          /* [batch] of P-Net's */
    struct detector_scene *scenes; /* of the batch at hand */
    int n_scenes, per_scene, side;
};

static float between(uint64_t *random, float lo, float hi)
{
    return lo + (hi - lo) * (float)random_unit(random);
}

static float log_between(uint64_t *random, float lo, float hi)
{
    return lo < hi ? lo * powf(hi / lo, (float)random_unit(random)) : lo;
}

/* --- targets ------------------------------------------------------------ */

void detector_sample_aim(const struct box *b, const struct face *f,
                         float box[4], float points[10])
{
    float w = b->x1 - b->x0 + 1, h = b->y1 - b->y0 + 1;

    box[0] = (f->box.x0 - b->x0) / w;
    box[1] = (f->box.y0 - b->y0) / h;
    box[2] = (f->box.x1 - b->x1) / w;
    box[3] = (f->box.y1 - b->y1) / h;
    for (int k = 0; k < 5; k++) {
        points[k] = (f->points[k][0] - b->x0 + 1) / w;
        points[k + 5] = (f->points[k][1] - b->y0 + 1) / h;
    }
}

void detector_sample_target(const struct detector_scene *scene,
                            const struct box *b, float teacher_prob,
                            struct detector_target *out)
{
    const struct detector_scene_face *best = NULL;
    float iou = 0;

    memset(out, 0, sizeof(*out));
    for (int i = 0; i < scene->n_faces; i++) {
        float one = box_iou(b, &scene->faces[i].face.box);

        if (one > iou) {
            iou = one;
            best = &scene->faces[i];
        }
    }
    out->prob = teacher_prob;
    out->prob_weight = 1;
    if (iou < is_none)
        out->prob -= pull * teacher_prob;
    else if (best->sure && iou > is_face)
        out->prob += pull * (1 - teacher_prob);
    if (iou > is_part && best->sure) {
        /* Candidates that are so far off are few by the time they matter. */
        out->box_weight = out->points_weight = iou > is_face ? 1 : 0.3f;
        detector_sample_aim(b, &best->face, out->box, out->points);
    }
}

/* --- R-Net's and O-Net's boxes ------------------------------------------- */

static struct box square(float x, float y, float side)
{
    return (struct box){x - side / 2, y - side / 2, x + side / 2, y + side / 2};
}

static struct box any_box(const struct image *img, uint64_t *random)
{
    float most = (float)(img->w < img->h ? img->w : img->h);
    float side = log_between(random, LEAST_CROP, most);

    return square(between(random, side / 3, (float)img->w - side / 3),
                  between(random, side / 3, (float)img->h - side / 3), side);
}

/* Off a face as candidates are: mostly little, at times far. */
static struct box near_box(const struct face *f, uint64_t *random)
{
    float w = f->box.x1 - f->box.x0, h = f->box.y1 - f->box.y0;
    float side = w > h ? w : h;
    bool close = random_unit(random) < 0.8;
    float shift = close ? 0.12f : 0.35f, size = close ? 0.17f : 0.4f;
    float x =
        (f->box.x0 + f->box.x1) / 2 + side * between(random, -shift, shift);
    float y =
        (f->box.y0 + f->box.y1) / 2 + side * between(random, -shift, shift);

    return square(x, y, side * expf(between(random, -size, size)));
}

/* Up to n of the candidates of the cascade before, drawn. */
static int draw_candidates(struct detector_sampler *s,
                           const struct detector_scene *scene, int n,
                           struct box *out, uint64_t *random, struct error *err)
{
    struct box *found;
    int n_found;

    if (detect_candidates(s->o.before, scene->img, &look,
                          s->o.stage == DETECTOR_O, &found, &n_found, err))
        return -1;
    n = n < n_found ? n : n_found;
    for (int i = 0; i < n; i++) {
        int k = i + random_below(random, n_found - i);
        struct box t = found[k];

        found[k] = found[i];
        out[i] = found[i] = t;
    }
    free(found);
    return n;
}

static int draw_boxes(struct detector_sampler *s,
                      const struct detector_scene *scene, struct box *out,
                      uint64_t *random, struct error *err)
{
    int n = s->per_scene, n_done, sure[DETECTOR_SCENE_FACES], n_sure = 0;
    int n_near;

    n_done = draw_candidates(s, scene, n / 2, out, random, err);
    if (n_done < 0)
        return -1;
    for (int i = 0; i < scene->n_faces; i++)
        if (scene->faces[i].sure)
            sure[n_sure++] = i;
    /* The second cascade leaves few candidates, and O-Net's points are learnt
     * on faces alone. */
    n_near = n_sure == 0                ? 0
             : s->o.stage == DETECTOR_O ? 3 * (n - n_done) / 4
                                        : n / 3;
    for (int i = 0; i < n_near; i++) {
        const struct detector_scene_face *f =
            &scene->faces[sure[random_below(random, n_sure)]];

        out[n_done++] = near_box(&f->face, random);
    }
    while (n_done < n)
        out[n_done++] = any_box(scene->img, random);
    return 0;
}

static int fill_crops(struct detector_sampler *s,
                      const struct detector_scene *scene, struct box *boxes,
                      float *pixels, uint64_t *random, struct error *err)
{
    size_t len = 3 * (size_t)s->side * (size_t)s->side;

    if (draw_boxes(s, scene, boxes, random, err))
        return -1;
    for (int i = 0; i < s->per_scene; i++)
        while (!detect_view_crop(s->view, &boxes[i], s->side,
                                 pixels + (size_t)i * len))
            boxes[i] = any_box(scene->img, random);
    return 0;
}

/* --- P-Net's pieces ------------------------------------------------------ */

static int clamp(float v, int most)
{
    return v < 0 || most < 0 ? 0 : v > (float)most ? most : (int)v;
}

/* A level at which some face is about as large as a cell, and a piece of it
 * with that face, or any. */
static void fill_piece(struct detector_sampler *s,
                       const struct detector_scene *scene, struct piece *at,
                       float *pixels, uint64_t *random)
{
    const struct image *img = scene->img;
    const struct face *f = NULL;
    float least = (float)(img->w < img->h ? img->w : img->h);
    float scale = log_between(random, 12 / least, 0.75f), x, y;
    bool aimed = random_unit(random) < 0.75;

    if (scene->n_faces && aimed)
        f = &scene->faces[random_below(random, scene->n_faces)].face;
    if (f) {
        float w = f->box.x1 - f->box.x0, h = f->box.y1 - f->box.y0;

        scale = log_between(random, 8, 24) / (w > h ? w : h);
        scale = scale < 0.85f ? scale : 0.85f;
        scale = scale > 12 / least ? scale : 12 / least;
        x = (f->box.x0 + w / 2) * scale;
        y = (f->box.y0 + h / 2) * scale;
    } else {
        x = between(random, 0, (float)img->w * scale);
        y = between(random, 0, (float)img->h * scale);
    }
    x -= DETECTOR_P_SIDE * between(random, 0.15f, 0.85f);
    y -= DETECTOR_P_SIDE * between(random, 0.15f, 0.85f);
    at->scale = scale;
    at->x = clamp(x, (int)((float)img->w * scale + 1) - DETECTOR_P_SIDE);
    at->y = clamp(y, (int)((float)img->h * scale + 1) - DETECTOR_P_SIDE);
    detect_view_level(s->view, (double)scale, at->x, at->y, DETECTOR_P_SIDE,
                      pixels);
}

/* --- batches ------------------------------------------------------------ */

/* The picture's pixels under a cell, 12 of the level's on a side and two from
 * the next. */
static struct box cell_box(const struct piece *at, int cell)
{
    float x = (float)(at->x + cell % DETECTOR_P_CELLS * 2);
    float y = (float)(at->y + cell / DETECTOR_P_CELLS * 2);

    return (struct box){x / at->scale, y / at->scale, (x + 12) / at->scale,
                        (y + 12) / at->scale};
}

/* P-Net's cells: the teacher's word, and more of it where a face is for sure:
 * what P-Net leaves out nobody finds. */
static void copy_cells(const struct detector_sampler *s, int i,
                       const float *prob, const float *box,
                       struct detector_target *out)
{
    const size_t cells = DETECTOR_P_CELLS * DETECTOR_P_CELLS;
    const struct detector_scene *scene = &s->scenes[i / s->per_scene];

    for (size_t k = 0; k < cells; k++) {
        struct detector_target *t = &out[k];
        struct box b = cell_box(&s->pieces[i], (int)k);
        float p = prob[cells + k];

        memset(t, 0, sizeof(*t));
        t->prob = p;
        t->prob_weight = 1;
        t->box_weight = p > 0.3f ? p : 0;
        for (size_t c = 0; c < 4; c++)
            t->box[c] = box[c * cells + k];
        for (int f = 0; p > 0.05f && f < scene->n_faces; f++)
            if (scene->faces[f].sure &&
                box_iou(&b, &scene->faces[f].face.box) > is_proposal)
                t->prob = p + pull * (1 - p);
    }
}

static int ask_teacher(struct detector_sampler *s, const float *pixels,
                       struct detector_target *targets, struct error *err)
{
    size_t len = 3 * (size_t)s->side * (size_t)s->side;
    const float *prob;

    memcpy(plan_input(s->teacher), pixels,
           (size_t)s->o.batch * len * sizeof(*pixels));
    if (graph_forward(s->teacher, err))
        return -1;
    prob = plan_output(s->teacher, s->o.teacher_output[0]);
    if (s->o.stage == DETECTOR_P) {
        const float *box = plan_output(s->teacher, s->o.teacher_output[1]);
        int cells = DETECTOR_P_CELLS * DETECTOR_P_CELLS;

        for (int i = 0; i < s->o.batch; i++)
            copy_cells(s, i, prob + 2 * i * cells, box + 4 * i * cells,
                       targets + i * cells);
        return 0;
    }
    for (int i = 0; i < s->o.batch; i++)
        detector_sample_target(&s->scenes[i / s->per_scene], &s->boxes[i],
                               prob[2 * i + 1], &targets[i]);
    return 0;
}

static int fill_scene(struct detector_sampler *s, int i, uint64_t *random,
                      float *pixels, struct error *err)
{
    size_t len = 3 * (size_t)s->side * (size_t)s->side;
    struct detector_scene *scene = &s->scenes[i];

    detector_scene_fini(scene);
    if (detector_scene_draw(s->photos, random_next(random), scene, err) ||
        detect_view_set(s->view, scene->img, err))
        return -1;
    if (s->o.stage != DETECTOR_P)
        return fill_crops(s, scene, s->boxes + i * s->per_scene, pixels, random,
                          err);
    for (int k = 0; k < s->per_scene; k++)
        fill_piece(s, scene, &s->pieces[i * s->per_scene + k],
                   pixels + (size_t)k * len, random);
    return 0;
}

int detector_sampler_fill(struct detector_sampler *s, long long at,
                          float *pixels, struct detector_target *targets,
                          struct error *err)
{
    size_t len = 3 * (size_t)s->side * (size_t)s->side;
    uint64_t random = s->o.seed;

    /* Apart from any other batch's, of any stage. */
    random = random_next(&random) + (uint64_t)at * DETECTOR_STAGES +
             (uint64_t)s->o.stage;
    random = random_next(&random);
    for (int i = 0; i < s->n_scenes; i++)
        if (fill_scene(s, i, &random,
                       pixels + (size_t)i * (size_t)s->per_scene * len, err))
            return -1;
    return ask_teacher(s, pixels, targets, err);
}

int detector_sampler_targets(const struct detector_sampler *s)
{
    return s->o.batch *
           (s->o.stage == DETECTOR_P ? DETECTOR_P_CELLS * DETECTOR_P_CELLS : 1);
}

struct detector_sampler *
detector_sampler_new(struct detector_photos *photos,
                     const struct detector_sampler_options *o,
                     struct error *err)
{
    static const int sides[] = {DETECTOR_P_SIDE, 24, 48};
    static const int per_scene[] = {PIECES, CROPS_R, CROPS_O};
    struct detector_sampler *s = calloc(1, sizeof(*s));
    struct plan_options plan = {.precision = PRECISION_F32};

    if (!s)
        return error_null(err, ERR_NOMEM, "no memory for samples");
    s->o = *o;
    s->photos = photos;
    s->side = sides[o->stage];
    s->per_scene = per_scene[o->stage];
    s->n_scenes = o->batch / s->per_scene;
    s->o.batch = s->n_scenes * s->per_scene;
    s->boxes = calloc((size_t)s->o.batch, sizeof(*s->boxes));
    s->pieces = calloc((size_t)s->o.batch, sizeof(*s->pieces));
    s->scenes = calloc((size_t)s->n_scenes, sizeof(*s->scenes));
    s->view = detect_view_new(err);
    plan.n = s->o.batch;
    plan.h = plan.w = s->side;
    if (s->view && s->boxes && s->pieces && s->scenes)
        s->teacher = graph_plan(o->teacher, &plan, err);
    else
        error_set(err, ERR_NOMEM, "no memory for samples");
    if (!s->teacher) {
        detector_sampler_free(s);
        return NULL;
    }
    return s;
}

void detector_sampler_free(struct detector_sampler *s)
{
    if (!s)
        return;
    for (int i = 0; s->scenes && i < s->n_scenes; i++)
        detector_scene_fini(&s->scenes[i]);
    if (s->teacher)
        plan_free(s->teacher);
    detect_view_free(s->view);
    free(s->scenes);
    free(s->pieces);
    free(s->boxes);
    free(s);
}
