/* gpu/plan.c - a fused graph to a list of steps over one block of the card's
 * memory, in NHWC. Every node becomes a step or more, or, where a value is
 * another seen otherwise, none; run.c then gives them memory. */
#include "gpu/gpu_priv.h"

#include <stdlib.h>

static int no_memory(struct build *b)
{
    return error_set(b->err, ERR_NOMEM, "no memory for a plan");
}

static int new_slot(struct build *b, size_t bytes)
{
    struct gpu_plan *p = b->plan;

    if (!(p->n_slots & (p->n_slots - 1))) {
        size_t room = p->n_slots ? 2 * (size_t)p->n_slots : 1;
        struct slot *s = realloc(p->slots, room * sizeof(*s));

        if (!s)
            return no_memory(b);
        p->slots = s;
    }
    p->slots[p->n_slots] = (struct slot){.bytes = bytes, .first = -1};
    return p->n_slots++;
}

struct step *gpu_step(struct build *b, enum step_kind kind,
                      const struct node *node)
{
    struct gpu_plan *p = b->plan;
    struct step *s;

    if (!(p->n_steps & (p->n_steps - 1))) {
        size_t room = p->n_steps ? 2 * (size_t)p->n_steps : 1;

        s = realloc(p->steps, room * sizeof(*s));
        if (!s) {
            no_memory(b);
            return NULL;
        }
        p->steps = s;
    }
    s = &p->steps[p->n_steps++];
    memset(s, 0, sizeof(*s));
    s->kind = kind;
    s->node = node;
    s->x.slot = s->y.slot = s->z.slot = s->packed = -1;
    return s;
}

struct nhwc gpu_dims(const struct shape *s)
{
    struct nhwc a = {.n = s->d[0], .c = 1, .h = 1, .w = 1};

    if (s->rank > 1)
        a.c = s->d[1];
    if (s->rank > 2)
        a.h = s->d[2];
    if (s->rank > 3)
        a.w = s->d[3];
    a.pitch = arith_padded(a.c);
    return a;
}

/* Kernels count in 32 bits. */
static int check_size(struct build *b, const struct nhwc *a)
{
    uint64_t n = (uint64_t)a->n * (uint64_t)a->h * (uint64_t)a->w;

    if (n > INT32_MAX || n * (uint64_t)a->pitch > INT32_MAX)
        return error_set(b->err, ERR_MODEL,
                         "a value of more numbers than the card's kernels "
                         "count");
    return 0;
}

bool gpu_place(struct build *b, int value, struct view *out)
{
    const struct home *h = &b->layout.home[value];
    int *slot = &b->owner_slot[h->owner];
    struct view *v = &b->views[value];
    struct nhwc a = gpu_dims(&b->shapes[value]);

    a.pitch = h->pitch;
    if (v->slot < 0) {
        if (check_size(b, &a))
            return false;
        if (*slot < 0)
            *slot = new_slot(b, (size_t)arith_pixels(&a) * (size_t)a.pitch *
                                    (size_t)arith_bytes((int)b->plan->type));
        if (*slot < 0)
            return false;
        v->slot = *slot;
        v->offset = (size_t)h->offset;
        v->a = a;
    }
    *out = *v;
    return true;
}

/* Numbers of x in another order or shape, to where value belongs. */
static int plan_gather(struct build *b, const struct node *n, int value,
                       const struct view *x, const struct arith_gather *how)
{
    struct view y;
    struct step *s;

    if (!gpu_place(b, value, &y) || !(s = gpu_step(b, STEP_GATHER, n)))
        return -1;
    s->x = *x;
    s->y = y;
    s->u.gather = *how;
    return 0;
}

bool gpu_view(struct build *b, int value, struct view *out)
{
    const struct arith_gather row = {.flat = true};

    if (b->views[value].slot < 0) {
        if (b->flat[value] < 0) {
            error_set(b->err, ERR_MODEL, "a constant where a value should be");
            return false;
        }
        if (plan_gather(b, NULL, value, &b->views[b->flat[value]], &row))
            return false;
    }
    *out = b->views[value];
    return true;
}

const float *gpu_vector(struct build *b, int value, int c)
{
    struct weights_key key;

    memset(&key, 0, sizeof(key));
    key.form = WEIGHTS_VECTOR;
    key.value[0] = value;
    key.n = 1;
    key.c = c;
    return weights_get(b->plan->net->weights, &key, b->err);
}

/* ---- nodes ----------------------------------------------------------------
 */

/* One input, one output, a step of this kind. */
static struct step *plan_one(struct build *b, const struct node *n,
                             enum step_kind kind)
{
    struct view x, y;
    struct step *s;

    if (!gpu_view(b, n->in[0], &x) || !gpu_place(b, n->out, &y) ||
        !(s = gpu_step(b, kind, n)))
        return NULL;
    s->x = x;
    s->y = y;
    return s;
}

static int plan_unary(struct build *b, const struct node *n)
{
    int c = gpu_dims(&b->shapes[n->out]).c;
    struct arith_unary u = {.lo = n->op.u.clip.lo, .hi = n->op.u.clip.hi};
    struct step *s;

    u.act = n->op.type == OP_RELU      ? ARITH_RELU
            : n->op.type == OP_PRELU   ? ARITH_PRELU
            : n->op.type == OP_CLIP    ? ARITH_CLIP
            : n->op.type == OP_SIGMOID ? ARITH_SIGMOID
                                       : ARITH_AFFINE;
    if (n->n_in > 1 && !(u.scale = gpu_vector(b, n->in[1], c)))
        return -1;
    if (n->n_in > 2 && !(u.shift = gpu_vector(b, n->in[2], c)))
        return -1;
    s = plan_one(b, n, STEP_UNARY);
    if (!s)
        return -1;
    s->u.unary = u;
    return 0;
}

static enum arith_with with_of(enum op_type type)
{
    switch (type) {
    case OP_ADD:
        return ARITH_ADD;
    case OP_SUB:
        return ARITH_SUB;
    case OP_MUL:
        return ARITH_MUL;
    case OP_DIV:
        return ARITH_DIV;
    default:
        return ARITH_MAX;
    }
}

static int plan_binary(struct build *b, const struct node *n)
{
    const struct value *other = &b->g->values[n->in[1]];
    const struct shape *out = &b->shapes[n->out];
    struct arith_binary a = {.with = with_of(n->op.type)};
    struct view z = {.slot = -1};
    struct step *s;

    if (other->kind == VALUE_WEIGHT) {
        size_t n_other = shape_count(&other->shape);

        if (n_other != 1 &&
            (other->shape.rank != 1 || (int)n_other != gpu_dims(out).c))
            return error_set(b->err, ERR_MODEL,
                             "a constant of this shape is not computed with");
        a.vector = gpu_vector(b, n->in[1], gpu_dims(out).c);
        if (!a.vector)
            return -1;
    } else if (!shape_equal(&b->shapes[n->in[1]], out)) {
        return error_set(b->err, ERR_MODEL,
                         "two computed values of different shapes");
    } else if (!gpu_view(b, n->in[1], &z)) {
        return -1;
    }
    s = plan_one(b, n, STEP_BINARY);
    if (!s)
        return -1;
    s->z = z;
    s->u.binary = a;
    return 0;
}

/* The greatest of two, and of that and the third, and so on in place. */
static int plan_max(struct build *b, const struct node *n)
{
    struct view x, y, z;
    struct step *s;

    if (!gpu_view(b, n->in[0], &x) || !gpu_place(b, n->out, &y))
        return -1;
    for (int k = n->n_in > 1 ? 1 : 0; k < n->n_in; k++) {
        if (!gpu_view(b, n->in[k], &z) || !(s = gpu_step(b, STEP_BINARY, n)))
            return -1;
        s->x = x;
        s->y = y;
        s->z = z;
        s->u.binary = (struct arith_binary){.with = ARITH_MAX};
        x = y;
    }
    return 0;
}

static int plan_pool(struct build *b, const struct node *n)
{
    const struct op_pool *p = &n->op.u.pool;
    const struct shape *in = &b->shapes[n->in[0]];
    struct arith_pool a = {.count_pad = p->count_pad};
    struct step *s = plan_one(b, n, STEP_POOL);

    if (!s)
        return -1;
    a.pooling = n->op.type == OP_MAX_POOL   ? ARITH_POOL_MAX
                : n->op.type == OP_AVG_POOL ? ARITH_POOL_MEAN
                : p->p == 1                 ? ARITH_POOL_L1
                                            : ARITH_POOL_L2;
    for (int i = 0; i < 2; i++) {
        a.kernel[i] = p->global ? in->d[2 + i] : p->kernel[i];
        a.stride[i] = p->global ? 1 : p->stride[i];
        a.pad[i] = p->global ? 0 : p->pad[i];
        a.pad[2 + i] = p->global ? 0 : p->pad[2 + i];
    }
    s->u.pool = a;
    return 0;
}

static int plan_lrn(struct build *b, const struct node *n)
{
    const struct op_lrn *l = &n->op.u.lrn;
    struct step *s = plan_one(b, n, STEP_LRN);

    if (!s)
        return -1;
    s->u.lrn = (struct arith_lrn){
        .size = l->size, .alpha = l->alpha, .beta = l->beta, .bias = l->bias};
    return 0;
}

static int plan_lines(struct build *b, const struct node *n)
{
    struct step *s = plan_one(b, n, STEP_LINES);

    if (!s)
        return -1;
    s->u.lines =
        (struct arith_lines){.axis = n->op.u.axis.axis,
                             .kind = n->op.type == OP_SOFTMAX ? ARITH_SOFTMAX
                                     : n->op.u.axis.p == 1    ? ARITH_L1
                                                              : ARITH_L2};
    return 0;
}

/* Only what does not lie there already is moved. */
/* Does input k lie in the memory of the whole already? */
static bool joined(struct build *b, const struct node *n, int k, int at,
                   const struct view *x, const struct view *y)
{
    const struct home *h = &b->layout.home[n->in[k]];
    const struct home *whole = &b->layout.home[n->out];

    return n->op.u.axis.axis == 1 && h->owner == whole->owner &&
           h->offset == whole->offset + at && b->flat[n->in[k]] < 0 &&
           x->slot == y->slot;
}

/* All inputs by one kernel, where none of them is there yet. 1: done. */
static int concat_at_once(struct build *b, const struct node *n,
                          const struct view *y)
{
    struct view x[STEP_MAX_PARTS];
    struct step *s;
    int at = 0;

    if (n->op.u.axis.axis != 1 || n->n_in > STEP_MAX_PARTS)
        return 0;
    for (int k = 0; k < n->n_in; k++) {
        if (!gpu_view(b, n->in[k], &x[k]))
            return -1;
        if (joined(b, n, k, at, &x[k], y))
            return 0;
        at += b->shapes[n->in[k]].d[1];
    }
    s = gpu_step(b, STEP_CONCAT, n);
    if (!s)
        return -1;
    s->y = *y;
    s->u.concat.n = n->n_in;
    for (int k = 0; k < n->n_in; k++) {
        s->part[k] = x[k];
        s->u.concat.start[k + 1] = s->u.concat.start[k] + x[k].a.c;
    }
    return 1;
}

static int plan_concat(struct build *b, const struct node *n)
{
    int axis = n->op.u.axis.axis, at = 0, rc;
    struct view x, y;
    struct step *s;

    if (!gpu_place(b, n->out, &y))
        return -1;
    rc = concat_at_once(b, n, &y);
    if (rc)
        return rc < 0 ? -1 : 0;
    for (int k = 0; k < n->n_in; k++) {
        bool last = k == n->n_in - 1;

        if (!gpu_view(b, n->in[k], &x))
            return -1;
        if (!joined(b, n, k, at, &x, &y)) {
            s = gpu_step(b, STEP_PLACE, n);
            if (!s)
                return -1;
            s->x = x;
            s->y = y;
            s->u.place.start[axis] = at;
            if (axis != 1 || last)
                s->u.place.tail = arith_padded(y.a.c) - y.a.c;
        }
        at += b->shapes[n->in[k]].d[axis];
    }
    return 0;
}

static int plan_slice(struct build *b, const struct node *n)
{
    const struct op_axis *a = &n->op.u.axis;
    struct arith_gather how = {.perm = {0, 1, 2, 3}};
    struct view x;

    if (!gpu_view(b, n->in[0], &x))
        return -1;
    if (a->axis == 1 && a->start % ARITH_LANES == 0 &&
        a->length % ARITH_LANES == 0) {
        x.offset += (size_t)a->start;
        x.a.c = a->length;
        b->views[n->out] = x;
        return 0;
    }
    how.start[a->axis] = a->start;
    return plan_gather(b, n, n->out, &x, &how);
}

static int plan_transpose(struct build *b, const struct node *n)
{
    struct arith_gather how = {.perm = {0, 1, 2, 3}};
    struct view x;

    for (int i = 0; i < b->shapes[n->out].rank; i++)
        how.perm[i] = n->op.u.transpose.perm[i];
    return gpu_view(b, n->in[0], &x) ? plan_gather(b, n, n->out, &x, &how) : -1;
}

static int plan_reshape(struct build *b, const struct node *n)
{
    const struct arith_gather how = {.flat = true};
    struct nhwc to = gpu_dims(&b->shapes[n->out]);
    struct view x;

    if (!gpu_view(b, n->in[0], &x))
        return -1;
    if (to.c == x.a.c && to.h == x.a.h && to.w == x.a.w) {
        b->views[n->out] = x;
        return 0;
    }
    if (to.h == 1 && to.w == 1) { /* laid out when someone wants it so */
        b->flat[n->out] = n->in[0];
        return 0;
    }
    return plan_gather(b, n, n->out, &x, &how);
}

static int plan_node(struct build *b, int at)
{
    const struct node *n = &b->g->nodes[at];

    switch (n->op.type) {
    case OP_CONV:
        return gpu_plan_conv(b, at);
    case OP_GEMM:
        return gpu_plan_gemm(b, n);
    case OP_RELU:
    case OP_PRELU:
    case OP_CLIP:
    case OP_SIGMOID:
    case OP_AFFINE:
        return plan_unary(b, n);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        return plan_binary(b, n);
    case OP_MAX:
        return plan_max(b, n);
    case OP_CONCAT:
        return plan_concat(b, n);
    case OP_SLICE:
        return plan_slice(b, n);
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return plan_pool(b, n);
    case OP_LRN:
        return plan_lrn(b, n);
    case OP_SOFTMAX:
    case OP_LP_NORM:
        return plan_lines(b, n);
    case OP_RESHAPE:
        return plan_reshape(b, n);
    case OP_TRANSPOSE:
        return plan_transpose(b, n);
    default:
        return error_set(b->err, ERR_MODEL, "%s is not computed on the card",
                         op_info(n->op.type)->name);
    }
}

/* ---- the whole --------------------------------------------------------------
 */

static int plan_in(struct build *b)
{
    const struct shape *s = &b->shapes[b->g->input];
    struct gpu_plan *p = b->plan;
    struct step *in;
    struct view y;

    p->base.shape_in = *s;
    p->in_slot = new_slot(b, shape_count(s) * sizeof(float));
    if (p->in_slot < 0 || !gpu_place(b, b->g->input, &y) ||
        !(in = gpu_step(b, STEP_IN, NULL)))
        return -1;
    in->y = y;
    in->packed = p->in_slot;
    return 0;
}

static int plan_out(struct build *b)
{
    struct gpu_plan *p = b->plan;

    for (int i = 0; i < b->g->n_outputs; i++) {
        int value = b->g->outputs[i];
        struct step *out;
        struct view x;

        p->base.shape_out[i] = b->shapes[value];
        p->out_slot[i] =
            new_slot(b, shape_count(&b->shapes[value]) * sizeof(float));
        if (p->out_slot[i] < 0 || !gpu_view(b, value, &x) ||
            !(out = gpu_step(b, STEP_OUT, NULL)))
            return -1;
        out->x = x;
        out->packed = p->out_slot[i];
    }
    p->base.n_outputs = b->g->n_outputs;
    return 0;
}

static int build_steps(struct build *b, const struct layout_options *layout)
{
    if (layout_init(&b->layout, b->g, b->shapes, layout, b->err) || plan_in(b))
        return -1;
    b->plan->n_placed = b->layout.n_placed;
    b->plan->n_merged = b->layout.n_merged;
    for (int i = 0; i < b->g->n_nodes; i++)
        if (plan_node(b, i))
            return error_context(b->err, "node '%.80s'", b->g->nodes[i].name);
    return plan_out(b);
}

static int choose_type(struct gpu_plan *p, enum precision asked,
                       struct error *err)
{
    int level = card_level(p->dev->card);

    p->base.info.precision = asked == PRECISION_AUTO ? PRECISION_F16 : asked;
    p->type = asked == PRECISION_BF16                             ? GTYPE_BF16
              : asked == PRECISION_F32 || asked == PRECISION_TF32 ? GTYPE_F32
                                                                  : GTYPE_F16;
    p->tf32 = asked == PRECISION_TF32;
    if (level < 80 && (p->tf32 || p->type == GTYPE_BF16))
        return error_set(err, ERR_DEVICE, "this card has no %s",
                         p->tf32 ? "tf32" : "bf16");
    return 0;
}

static int prepare(struct build *b, const struct plan_options *opt)
{
    size_t n = (size_t)b->g->n_values + 1;

    b->shapes = calloc(n, sizeof(*b->shapes));
    b->views = calloc(n, sizeof(*b->views));
    b->owner_slot = malloc(n * sizeof(*b->owner_slot));
    b->flat = malloc(n * sizeof(*b->flat));
    if (!b->shapes || !b->views || !b->owner_slot || !b->flat)
        return no_memory(b);
    for (size_t i = 0; i < n; i++)
        b->owner_slot[i] = b->flat[i] = b->views[i].slot = -1;
    return graph_shapes(b->g, opt->n, opt->h, opt->w, b->shapes, b->err);
}

struct gpu_plan *gpu_plan_as(struct network *net,
                             const struct plan_options *opt,
                             const struct layout_options *layout,
                             struct error *err)
{
    struct gpu_network *gn = (struct gpu_network *)net;
    struct gpu_plan *p = calloc(1, sizeof(*p));
    struct build b = {.plan = p, .g = gn->graph, .err = err};
    int rc = -1;

    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for a plan");
    p->base.backend = net->device->backend;
    p->net = gn;
    p->dev = (struct gpu_device *)net->device;
    if (!card_enter(p->dev->card, err) &&
        !choose_type(p, opt->precision, err) && !prepare(&b, opt))
        rc = build_steps(&b, layout);
    if (!rc)
        rc = gpu_bind(p, opt->separate, err);
    layout_fini(&b.layout);
    free(b.shapes);
    free(b.views);
    free(b.owner_slot);
    free(b.flat);
    if (!rc)
        return p;
    gpu_plan_free(&p->base);
    return NULL;
}

void gpu_plan_free(struct plan *plan)
{
    struct gpu_plan *p = (struct gpu_plan *)plan;
    struct card *c;

    if (!p)
        return;
    c = p->dev->card;
    card_enter(c, NULL);
    card_stream_free(p->stream);
    pthread_mutex_lock(&p->dev->lock);
    for (int i = 0; i < p->n_steps; i++)
        dnn_conv_free(p->steps[i].dnn);
    pthread_mutex_unlock(&p->dev->lock);
    card_release(c, p->arena, p->bytes_arena);
    engine_scratch_free(c, &p->scratch);
    card_unpin(c, p->pinned);
    free(p->steps);
    free(p->slots);
    free(p);
}
