/* core/face/detect.c - MTCNN's cascade (Zhang and others, 2016): P-Net
 * proposes, R-Net refuses, O-Net decides and points. Numbers follow the
 * published PyTorch port, which is what the golden boxes come from. Owns the
 * three networks and, per thread, their plans. face.c calls it. */
#include "core/face/detect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/detect_priv.h"

enum {
    MOST_OF_LEVEL = 16384, /* raw proposals kept of one level */
    MOST_PROPOSED = 4096,  /* that R-Net looks at */
    MOST_CANVAS_PLANS = 12,
    MOST_CANVAS_PIXELS = 3 * DETECT_CANVAS * DETECT_CANVAS,
    N_BATCHES = 4
};

enum stage {
    STAGE_P,
    STAGE_R,
    STAGE_O,
    N_STAGES
};

/* Candidates at once. Larger batches no longer fit a core's cache. */
static const int batches[N_STAGES][N_BATCHES] = {
    [STAGE_R] = {4, 8, 16, 32}, [STAGE_O] = {1, 2, 4, 8}};

struct stage_net {
    struct network *net;
    int prob, box, points; /* which output; points -1 but for O-Net */
    int side;              /* of the input; 0: free */
};

struct detector {
    struct stage_net stage[N_STAGES];
};

struct canvas_plan {
    int w, h;
    unsigned used; /* when: for forgetting the oldest */
    struct plan *plan;
};

struct detect_scratch {
    struct detector *detector;
    struct canvas_plan canvas[MOST_CANVAS_PLANS];
    unsigned clock;
    struct plan *batch[N_STAGES][N_BATCHES]; /* made when first wanted */
    struct detect_mips mips;
    struct detect_layout layout;
    struct candidates level[DETECT_MAX_LEVELS];
    struct candidates found;
};

/* --- networks ----------------------------------------------------------- */

static int output_called(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, name))
            return i;
    return -1;
}

static int check_stage(const struct model *m, enum stage at,
                       struct stage_net *out, struct error *err)
{
    static const enum model_kind kinds[] = {MODEL_PNET, MODEL_RNET, MODEL_ONET};
    static const int sides[] = {0, 24, 48}, channels[] = {2, 4, 10};
    static const char *const names[] = {"prob", "box", "landmarks"};
    const struct graph *g = m->graph;
    int *which[] = {&out->prob, &out->box, &out->points};
    int side = sides[at] ? sides[at] : 64;
    struct shape *shapes;
    int rc = 0;

    if (m->contract.kind != kinds[at])
        return error_set(err, ERR_MODEL,
                         "%s: not the network that this place of the "
                         "detector needs",
                         m->name);
    shapes = calloc((size_t)g->n_values, sizeof(*shapes));
    if (!shapes)
        return error_set(err, ERR_NOMEM, "%s: no memory", m->name);
    rc = graph_shapes(g, 1, side, side, shapes, err);
    out->points = -1;
    out->side = sides[at];
    if (rc == 0 &&
        (shapes[g->input].d[1] != 3 || shapes[g->input].d[2] != side ||
         shapes[g->input].d[3] != side))
        rc = error_set(err, ERR_MODEL, "%s: the input is not [n,3,%d,%d]",
                       m->name, side, side);
    for (int i = 0; rc == 0 && i < (at == STAGE_O ? 3 : 2); i++) {
        const struct shape *s;
        size_t cells = at == STAGE_P ? 27 * 27 : 1;
        *which[i] = output_called(g, names[i]);
        if (*which[i] < 0) {
            rc = error_set(err, ERR_MODEL, "%s: no output called \"%s\"",
                           m->name, names[i]);
            break;
        }
        s = &shapes[g->outputs[*which[i]]];
        if (s->rank < 2 || s->d[1] != channels[i] ||
            shape_count(s) != cells * (size_t)channels[i])
            rc = error_set(err, ERR_MODEL,
                           "%s: output \"%s\" has an unexpected shape", m->name,
                           names[i]);
    }
    free(shapes);
    return rc;
}

struct detector *detector_new(struct device *dev, const struct model *pnet,
                              const struct model *rnet,
                              const struct model *onet, struct error *err)
{
    const struct model *models[N_STAGES] = {pnet, rnet, onet};
    struct detector *d = calloc(1, sizeof(*d));

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for the detector");
    for (int i = 0; i < N_STAGES; i++) {
        if (check_stage(models[i], (enum stage)i, &d->stage[i], err))
            goto fail;
        d->stage[i].net = network_new(dev, models[i]->graph, err);
        if (!d->stage[i].net) {
            error_context(err, "%s", models[i]->name);
            goto fail;
        }
    }
    return d;
fail:
    detector_free(d);
    return NULL;
}

void detector_free(struct detector *d)
{
    if (!d)
        return;
    for (int i = 0; i < N_STAGES; i++)
        if (d->stage[i].net)
            network_free(d->stage[i].net);
    free(d);
}

struct detect_scratch *detect_scratch_new(struct detector *d, struct error *err)
{
    struct detect_scratch *s = calloc(1, sizeof(*s));

    if (!s)
        return error_null(err, ERR_NOMEM, "no memory for a detector's scratch");
    s->detector = d;
    return s;
}

static void forget(struct canvas_plan *c)
{
    if (c->plan)
        plan_free(c->plan);
    memset(c, 0, sizeof(*c));
}

void detect_scratch_free(struct detect_scratch *s)
{
    if (!s)
        return;
    for (int i = 0; i < MOST_CANVAS_PLANS; i++)
        forget(&s->canvas[i]);
    for (int i = 0; i < N_STAGES; i++)
        for (int k = 0; k < N_BATCHES; k++)
            if (s->batch[i][k])
                plan_free(s->batch[i][k]);
    for (int i = 0; i < DETECT_MAX_LEVELS; i++)
        detect_candidates_fini(&s->level[i]);
    detect_candidates_fini(&s->found);
    detect_mips_fini(&s->mips);
    detect_layout_fini(&s->layout);
    free(s);
}

static struct plan *make_plan(struct detector *d, enum stage at, int n, int h,
                              int w, struct error *err)
{
    struct plan_options opt = {
        .n = n, .h = h, .w = w, .precision = PRECISION_F32};

    return graph_plan(d->stage[at].net, &opt, err);
}

/* --- P-Net ---------------------------------------------------------------- */

/* A file's P-Net that looks right at one size may give less than a cell for
 * every other pixel at another, and cells are read by where they must be. */
static int check_cells(const struct plan *p, const struct stage_net *net, int h,
                       int w, struct error *err)
{
    const int n_y = (h - DETECT_CELL) / DETECT_STRIDE + 1;
    const int n_x = (w - DETECT_CELL) / DETECT_STRIDE + 1;
    const struct shape prob = shape_of(4, 1, 2, n_y, n_x);
    const struct shape box = shape_of(4, 1, 4, n_y, n_x);

    if (shape_equal(plan_output_shape(p, net->prob), &prob) &&
        shape_equal(plan_output_shape(p, net->box), &box))
        return 0;
    return error_set(err, ERR_MODEL,
                     "the detector's first network does not give %dx%d cells "
                     "for %dx%d pixels",
                     n_x, n_y, w, h);
}

/* The plan for a canvas; the longest unused ones make room, in number and in
 * the pixels that all of them hold memory for. */
static struct plan *canvas_plan(struct detect_scratch *s, int w, int h,
                                struct error *err)
{
    int64_t pixels = (int64_t)w * h;
    struct canvas_plan *c, *oldest;

    s->clock++;
    for (int i = 0; i < MOST_CANVAS_PLANS; i++) {
        c = &s->canvas[i];
        if (c->plan && c->w == w && c->h == h) {
            c->used = s->clock;
            return c->plan;
        }
        pixels += (int64_t)c->w * c->h;
    }
    for (;;) {
        struct canvas_plan *spare = NULL;
        oldest = NULL;
        for (int i = 0; i < MOST_CANVAS_PLANS; i++) {
            c = &s->canvas[i];
            if (!c->plan)
                spare = c;
            else if (!oldest || s->clock - c->used > s->clock - oldest->used)
                oldest = c;
        }
        if (spare && (pixels <= MOST_CANVAS_PIXELS || !oldest)) {
            c = spare;
            break;
        }
        pixels -= (int64_t)oldest->w * oldest->h;
        forget(oldest);
    }
    c->plan = make_plan(s->detector, STAGE_P, 1, h, w, err);
    if (!c->plan)
        return NULL;
    if (check_cells(c->plan, &s->detector->stage[STAGE_P], h, w, err)) {
        forget(c);
        return NULL;
    }
    memset(plan_input(c->plan), 0, (size_t)w * (size_t)h * 3 * sizeof(float));
    c->w = w;
    c->h = h;
    c->used = s->clock;
    return c->plan;
}

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
                        const struct shape *shape, float threshold)
{
    size_t row = (size_t)shape->d[3], plane = row * (size_t)shape->d[2];

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

static int run_canvas(struct detect_scratch *s, int canvas, float threshold,
                      struct error *err)
{
    const struct detect_layout *l = &s->layout;
    const struct stage_net *net = &s->detector->stage[STAGE_P];
    struct plan *p =
        canvas_plan(s, l->canvases[canvas].w, l->canvases[canvas].h, err);

    if (!p)
        return -1;
    draw_tiles(s, canvas, plan_input(p));
    if (graph_forward(p, err))
        return -1;
    for (int i = 0; i < l->n_tiles; i++) {
        const struct detect_tile *t = &l->tiles[i];
        if (t->canvas == canvas &&
            collect_tile(&s->level[t->level], t,
                         (float)l->levels[t->level].scale,
                         plan_output(p, net->prob), plan_output(p, net->box),
                         plan_output_shape(p, net->prob), threshold))
            return error_set(err, ERR_NOMEM, "no memory for proposed faces");
    }
    return 0;
}

static int propose(struct detect_scratch *s, float threshold, struct error *err)
{
    struct candidates *found = &s->found;

    for (int i = 0; i < s->layout.n_levels; i++)
        s->level[i].n = 0;
    found->n = 0;
    for (int i = 0; i < s->layout.n_canvases; i++)
        if (run_canvas(s, i, threshold, err))
            return -1;
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

/* --- R-Net and O-Net -------------------------------------------------------
 */

/* The batch to run next when n are left: one that holds all with at most a
 * quarter of it empty, else the largest that is filled. */
static int batch_for(enum stage at, int n)
{
    for (int k = 0; k < N_BATCHES; k++)
        if (batches[at][k] >= n && (k == 0 || 3 * batches[at][k] <= 4 * n))
            return k;
    for (int k = N_BATCHES - 1; k > 0; k--)
        if (batches[at][k] <= n)
            return k;
    return 0;
}

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
static int judge(struct detect_scratch *s, enum stage at, float threshold,
                 struct error *err)
{
    const struct stage_net *net = &s->detector->stage[at];
    struct candidates *c = &s->found;
    int n_kept = 0;

    detect_drop_outside(c, s->mips.base);
    for (int from = 0, n; from < c->n; from += n) {
        int k = batch_for(at, c->n - from), most = batches[at][k];
        struct plan **p = &s->batch[at][k];
        const float *prob, *reg, *points;

        n = c->n - from < most ? c->n - from : most;
        if (!*p) {
            *p = make_plan(s->detector, at, most, net->side, net->side, err);
            if (!*p)
                return -1;
            memset(plan_input(*p), 0,
                   (size_t)most * 3 * (size_t)net->side * (size_t)net->side *
                       sizeof(float));
        }
        fill(s, c->at + from, n, net->side, plan_input(*p));
        if (graph_forward(*p, err))
            return -1;
        prob = plan_output(*p, net->prob);
        reg = plan_output(*p, net->box);
        points = net->points < 0 ? NULL : plan_output(*p, net->points);
        for (int i = 0; i < n; i++) {
            struct candidate *keep = &c->at[n_kept];
            if (!(prob[2 * i + 1] > threshold))
                continue;
            if (keep != &c->at[from + i])
                *keep = c->at[from + i];
            n_kept++;
            keep->score = prob[2 * i + 1];
            memcpy(keep->reg, reg + 4 * i, sizeof(keep->reg));
            if (points)
                memcpy(keep->points, points + 10 * i, sizeof(keep->points));
        }
    }
    c->n = n_kept;
    return 0;
}

/* --- one call --------------------------------------------------------------
 */

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
    for (int i = 0; i < N_STAGES; i++) {
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
    if (detect_layout_build(&s->layout, img->w, img->h, o->min_face, o->factor,
                            err) ||
        detect_mips_build(&s->mips, img, err) ||
        propose(s, o->threshold[STAGE_P], err))
        return -1;
    if (!to_onet)
        return 0;
    if (judge(s, STAGE_R, o->threshold[STAGE_R], err))
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
        judge(s, STAGE_O, o.threshold[STAGE_O], err))
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
