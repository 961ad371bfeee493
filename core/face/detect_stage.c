/* core/face/detect_stage.c - the detector's three networks: checked, planned,
 * and run for n inputs of one shape at once, by the scratch's own plans or
 * elsewhere. Where that says no, the scratch's do it. detect.c calls it. */
#include "core/face/detect_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_CANVAS_PIXELS = 3 * DETECT_CANVAS * DETECT_CANVAS
};

/* Candidates at once. Larger batches no longer fit a core's cache. */
static const int batches[DETECT_STAGES][DETECT_BATCHES] = {
    [DETECT_RNET] = {4, 8, 16, 32}, [DETECT_ONET] = {1, 2, 4, 8}};

static const int channels[] = {2, 4, 10}; /* of prob, box, landmarks */

struct stage_net {
    struct network *net;
    int prob, box, points; /* which output; points -1 but for O-Net */
    int side;              /* of the input; 0: free */
    bool others;           /* has outputs that nobody knows */
};

struct detector {
    struct stage_net stage[DETECT_STAGES];
    struct detect_elsewhere elsewhere;
};

/* --- networks ----------------------------------------------------------- */

static int output_called(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->values[g->outputs[i]].name, name))
            return i;
    return -1;
}

static int check_stage(const struct model *m, enum detect_stage at,
                       struct stage_net *out, struct error *err)
{
    static const enum model_kind kinds[] = {MODEL_PNET, MODEL_RNET, MODEL_ONET};
    static const int sides[] = {0, 24, 48};
    static const char *const names[] = {"prob", "box", "landmarks"};
    const struct graph *g = m->graph;
    int *which[] = {&out->prob, &out->box, &out->points};
    int side = sides[at] ? sides[at] : 64;
    struct shape *shapes;
    int rc = 0, n = at == DETECT_ONET ? 3 : 2;

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
    out->others = g->n_outputs != n;
    out->side = sides[at];
    if (rc == 0 &&
        (shapes[g->input].d[1] != 3 || shapes[g->input].d[2] != side ||
         shapes[g->input].d[3] != side))
        rc = error_set(err, ERR_MODEL, "%s: the input is not [n,3,%d,%d]",
                       m->name, side, side);
    for (int i = 0; rc == 0 && i < n; i++) {
        const struct shape *s;
        size_t cells = at == DETECT_PNET ? 27 * 27 : 1;
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
    const struct model *models[DETECT_STAGES] = {pnet, rnet, onet};
    struct detector *d = calloc(1, sizeof(*d));

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for the detector");
    for (int i = 0; i < DETECT_STAGES; i++) {
        if (check_stage(models[i], (enum detect_stage)i, &d->stage[i], err))
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
    for (int i = 0; i < DETECT_STAGES; i++)
        if (d->stage[i].net)
            network_free(d->stage[i].net);
    free(d);
}

void detector_set_elsewhere(struct detector *d,
                            const struct detect_elsewhere *e)
{
    d->elsewhere = e ? *e : (struct detect_elsewhere){0};
}

static size_t cells_of(enum detect_stage stage, int w, int h)
{
    if (stage != DETECT_PNET)
        return 1;
    return (size_t)((w - DETECT_CELL) / DETECT_STRIDE + 1) *
           (size_t)((h - DETECT_CELL) / DETECT_STRIDE + 1);
}

bool detector_shape(const struct detector *d, enum detect_stage stage,
                    struct detect_shape *out)
{
    const struct stage_net *net = &d->stage[stage];
    int side = net->side ? net->side : DETECT_SHARED;
    int n = channels[0] + channels[1] + (net->points < 0 ? 0 : channels[2]);

    out->side = side;
    out->n_input = 3 * (size_t)side * (size_t)side;
    out->row = (size_t)n * cells_of(stage, side, side);
    return !net->others;
}

/* --- plans ---------------------------------------------------------------- */

void detect_plans_init(struct detect_plans *p, struct detector *d)
{
    memset(p, 0, sizeof(*p));
    p->detector = d;
}

static void forget(struct detect_canvas_plan *c)
{
    if (c->plan)
        plan_free(c->plan);
    memset(c, 0, sizeof(*c));
}

void detect_plans_fini(struct detect_plans *p)
{
    for (int i = 0; i < DETECT_CANVAS_PLANS; i++)
        forget(&p->canvas[i]);
    for (int i = 0; i < DETECT_STAGES; i++)
        for (int k = 0; k < DETECT_BATCHES; k++)
            if (p->batch[i][k])
                plan_free(p->batch[i][k]);
    free(p->inputs);
    free(p->rows);
    free(p->at);
}

static struct plan *make_plan(struct detector *d, enum detect_stage at, int n,
                              int h, int w, struct error *err)
{
    struct plan_options opt = {
        .n = n, .h = h, .w = w, .precision = PRECISION_F32};

    return graph_plan(d->stage[at].net, &opt, err);
}

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
static struct plan *canvas_plan(struct detect_plans *p, int w, int h,
                                struct error *err)
{
    int64_t pixels = (int64_t)w * h;
    struct detect_canvas_plan *c, *oldest;

    p->clock++;
    for (int i = 0; i < DETECT_CANVAS_PLANS; i++) {
        c = &p->canvas[i];
        if (c->plan && c->w == w && c->h == h) {
            c->used = p->clock;
            return c->plan;
        }
        pixels += (int64_t)c->w * c->h;
    }
    for (;;) {
        struct detect_canvas_plan *spare = NULL;
        oldest = NULL;
        for (int i = 0; i < DETECT_CANVAS_PLANS; i++) {
            c = &p->canvas[i];
            if (!c->plan)
                spare = c;
            else if (!oldest || p->clock - c->used > p->clock - oldest->used)
                oldest = c;
        }
        if (spare && (pixels <= MOST_CANVAS_PIXELS || !oldest)) {
            c = spare;
            break;
        }
        pixels -= (int64_t)oldest->w * oldest->h;
        forget(oldest);
    }
    c->plan = make_plan(p->detector, DETECT_PNET, 1, h, w, err);
    if (!c->plan)
        return NULL;
    if (check_cells(c->plan, &p->detector->stage[DETECT_PNET], h, w, err)) {
        forget(c);
        return NULL;
    }
    memset(plan_input(c->plan), 0, (size_t)w * (size_t)h * 3 * sizeof(float));
    c->w = w;
    c->h = h;
    c->used = p->clock;
    return c->plan;
}

/* The batch to run next when n are left: one that holds all with at most a
 * quarter of it empty, else the largest that is filled. */
static int batch_for(enum detect_stage at, int n)
{
    for (int k = 0; k < DETECT_BATCHES; k++)
        if (batches[at][k] >= n && (k == 0 || 3 * batches[at][k] <= 4 * n))
            return k;
    for (int k = DETECT_BATCHES - 1; k > 0; k--)
        if (batches[at][k] <= n)
            return k;
    return 0;
}

static struct plan *batch_plan(struct detect_plans *p, enum detect_stage at,
                               int n, struct error *err)
{
    const struct stage_net *net = &p->detector->stage[at];
    int k = batch_for(at, n);
    struct plan **plan = &p->batch[at][k];

    if (*plan)
        return *plan;
    *plan =
        make_plan(p->detector, at, batches[at][k], net->side, net->side, err);
    if (*plan)
        memset(plan_input(*plan), 0,
               shape_count(&(*plan)->shape_in) * sizeof(float));
    return *plan;
}

/* The plan for a first part of n inputs. */
static struct plan *plan_for(struct detect_plans *p, enum detect_stage at,
                             int n, int w, int h, struct error *err)
{
    return at == DETECT_PNET ? canvas_plan(p, w, h, err)
                             : batch_plan(p, at, n, err);
}

/* --- elsewhere ------------------------------------------------------------ */

bool detect_plans_elsewhere(const struct detect_plans *p,
                            enum detect_stage stage)
{
    const struct detect_elsewhere *e = &p->detector->elsewhere;

    return e->run && !p->detector->stage[stage].others &&
           e->there(e->ctx, stage);
}

/* Room for what any stage sends elsewhere; false: there is no memory. */
static bool get_room(struct detect_plans *p)
{
    size_t most = 0, inputs = 0, rows = 0;

    if (p->at)
        return true;
    for (int i = 0; i < DETECT_STAGES; i++) {
        size_t n = (size_t)p->detector->elsewhere.most[i];
        struct detect_shape s;
        detector_shape(p->detector, (enum detect_stage)i, &s);
        most = n > most ? n : most;
        inputs = n * s.n_input > inputs ? n * s.n_input : inputs;
        rows = n * s.row > rows ? n * s.row : rows;
    }
    free(p->inputs);
    free(p->rows);
    p->inputs = tensor_alloc(inputs);
    p->rows = tensor_alloc(rows);
    if (p->inputs && p->rows)
        p->at = calloc(most, sizeof(*p->at));
    return p->at != NULL;
}

/* What was meant for elsewhere, by the scratch's own plans. */
static int run_here(struct detect_plans *p, const struct detect_run *r,
                    const struct detect_shape *shape, struct error *err)
{
    for (int from = 0, n; from < r->n; from += n) {
        struct plan *plan = plan_for(p, r->stage, r->n - from, r->w, r->h, err);
        if (!plan)
            return -1;
        n = plan->shape_in.d[0] < r->n - from ? plan->shape_in.d[0]
                                              : r->n - from;
        memcpy(plan_input(plan), p->inputs + (size_t)from * shape->n_input,
               (size_t)n * shape->n_input * sizeof(float));
        if (graph_forward(plan, err))
            return -1;
        plan_rows(plan, n, p->rows + (size_t)from * shape->row);
    }
    return 0;
}

/* Where in a row an output is, in channels. */
static size_t channels_before(const struct stage_net *net, int output)
{
    const int which[] = {net->prob, net->box, net->points};
    size_t n = 0;

    for (int i = 0; i < 3; i++)
        if (which[i] >= 0 && which[i] < output)
            n += (size_t)channels[i];
    return n;
}

static int end_elsewhere(struct detect_plans *p, struct detect_run *r,
                         struct error *err)
{
    const struct detect_elsewhere *e = &p->detector->elsewhere;
    const struct stage_net *net = &p->detector->stage[r->stage];
    size_t cells = cells_of(r->stage, r->w, r->h);
    struct detect_shape shape;

    detector_shape(p->detector, r->stage, &shape);
    for (int i = 0; i < r->n; i++)
        p->at[i] = p->inputs + (size_t)i * shape.n_input;
    if (e->run(e->ctx, r->stage, p->at, r->n, p->rows) != 0 &&
        run_here(p, r, &shape, err))
        return -1;
    r->prob = p->rows + cells * channels_before(net, net->prob);
    r->box = p->rows + cells * channels_before(net, net->box);
    if (net->points >= 0)
        r->points = p->rows + cells * channels_before(net, net->points);
    r->step_prob = r->step_box = r->step_points = shape.row;
    return 0;
}

/* --- a run ---------------------------------------------------------------- */

int detect_run_begin(struct detect_plans *p, enum detect_stage stage, int n,
                     int w, int h, struct detect_run *r, struct error *err)
{
    const struct detect_elsewhere *e = &p->detector->elsewhere;
    int side = p->detector->stage[stage].side;

    *r = (struct detect_run){
        .stage = stage, .w = side ? side : w, .h = side ? side : h};
    if (detect_plans_elsewhere(p, stage) &&
        (stage != DETECT_PNET || (w == DETECT_SHARED && h == DETECT_SHARED)) &&
        get_room(p)) {
        r->n = n < e->most[stage] ? n : e->most[stage];
        r->input = p->inputs;
        return 0;
    }
    r->plan = plan_for(p, stage, n, w, h, err);
    if (!r->plan)
        return -1;
    r->n = n < r->plan->shape_in.d[0] ? n : r->plan->shape_in.d[0];
    r->input = plan_input(r->plan);
    return 0;
}

int detect_run_end(struct detect_plans *p, struct detect_run *r,
                   struct error *err)
{
    const struct stage_net *net = &p->detector->stage[r->stage];
    size_t cells = cells_of(r->stage, r->w, r->h);

    if (!r->plan)
        return end_elsewhere(p, r, err);
    if (graph_forward(r->plan, err))
        return -1;
    r->prob = plan_output(r->plan, net->prob);
    r->box = plan_output(r->plan, net->box);
    r->points = net->points < 0 ? NULL : plan_output(r->plan, net->points);
    r->step_prob = cells * (size_t)channels[0];
    r->step_box = cells * (size_t)channels[1];
    r->step_points = cells * (size_t)channels[2];
    return 0;
}
