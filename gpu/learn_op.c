/* gpu/learn_op.c - see the header: which kernels an operator is, forward and
 * backward, and how its state is laid out. Computes nothing itself. */
#include "gpu/learn_op.h"

#include "gpu/kernels.h"
#include "gpu/learn_kernels.h"

/* What a call is about. */
struct call {
    const struct learn_op *r;
    int type;
    struct stream *s;
    struct error *err;
};

static bool is_vector(const struct learn_op *r, int k)
{
    return r->in[k].n == 0;
}

static bool same_size(const struct nhwc *a, const struct nhwc *b)
{
    return a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w;
}

static bool on_batch(const struct learn_op *r)
{
    return !r->rest && !r->freeze_norm;
}

static struct arith_cut cut_of(const struct learn_op *r)
{
    return arith_cut(arith_pixels(&r->in[0]), r->in[0].c);
}

/* ---- batch norm -------------------------------------------------------- */

enum {
    KEPT = 5 /* vectors at the begin of a batch norm's state */
};

static int then_of(const struct learn_op *r)
{
    return r->n_in > 5 ? ARITH_PRELU : r->relu ? ARITH_RELU : ARITH_NONE;
}

static struct arith_norm norm_of(const struct learn_op *r)
{
    size_t c = (size_t)arith_padded(r->in[0].c);
    float *kept = r->state;

    return (struct arith_norm){.x = r->in[0],
                               .y = r->out,
                               .d = r->grad_out,
                               .dx = r->grad_in[0],
                               .fresh = r->fresh[0],
                               .cut = cut_of(r),
                               .gamma = r->vector[1],
                               .beta = r->vector[2],
                               .slope = r->n_in > 5 ? r->vector[5] : NULL,
                               .given = {r->vector[3], r->vector[4]},
                               .mean = kept,
                               .inverse = kept + c,
                               .scale = kept + 2 * c,
                               .sum = kept + 3 * c,
                               .along = kept + 4 * c,
                               .running = {r->mean, r->var},
                               .epsilon = r->op->u.norm.epsilon,
                               .momentum = r->op->u.norm.momentum,
                               .batch = on_batch(r),
                               .then = then_of(r)};
}

static struct arith_channels norm_sums(const struct learn_op *r, int kind)
{
    size_t c = (size_t)arith_padded(r->in[0].c);
    struct arith_channels a = {.kind = kind,
                               .x = r->in[0],
                               .norm = norm_of(r),
                               .cut = cut_of(r),
                               .parts = (float *)r->state + KEPT * c};

    if (kind == ARITH_MOMENTS)
        return a;
    for (int i = 0; i < ARITH_SUMS; i++) {
        int k = i == 2 ? 5 : 1 + i; /* gamma, beta, slope */

        a.grad[i] = k < r->n_in ? r->grad_vector[k] : NULL;
        a.fresh[i] = r->fresh[k];
    }
    return a;
}

static int norm_forward(const struct call *c)
{
    struct arith_channels a = norm_sums(c->r, ARITH_MOMENTS);
    int bad = a.norm.batch ? kernels_sums(&a, c->type, c->s, c->err)
                           : kernels_norm_rest(&a.norm, c->s, c->err);

    return bad ? -1 : kernels_norm_forward(&a.norm, c->type, c->s, c->err);
}

static int norm_backward(const struct call *c)
{
    struct arith_channels a = norm_sums(c->r, ARITH_NORM_BACK);

    if ((a.norm.batch || a.grad[0] || a.grad[1] || a.grad[2]) &&
        kernels_sums(&a, c->type, c->s, c->err))
        return -1;
    return a.norm.dx.p ? kernels_norm_backward(&a.norm, c->type, c->s, c->err)
                       : 0;
}

/* ---- one number, or one for each channel --------------------------------- */

static const enum arith_with withs[OP_COUNT] = {[OP_ADD] = ARITH_ADD,
                                                [OP_SUB] = ARITH_SUB,
                                                [OP_MUL] = ARITH_MUL,
                                                [OP_DIV] = ARITH_DIV};
static const enum arith_act acts[OP_COUNT] = {[OP_RELU] = ARITH_RELU,
                                              [OP_PRELU] = ARITH_PRELU,
                                              [OP_CLIP] = ARITH_CLIP,
                                              [OP_SIGMOID] = ARITH_SIGMOID,
                                              [OP_AFFINE] = ARITH_AFFINE};

static int unary_forward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_unary a = {.x = r->in[0],
                            .y = r->out,
                            .scale = r->n_in > 1 ? r->vector[1] : NULL,
                            .shift = r->n_in > 2 ? r->vector[2] : NULL,
                            .act = acts[r->op->type]};

    if (r->op->type == OP_CLIP) {
        a.lo = r->op->u.clip.lo;
        a.hi = r->op->u.clip.hi;
    }
    return kernels_unary(&a, c->type, c->s, c->err);
}

static int unary_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_unary_back a = {.y = r->out,
                                 .d = r->grad_out,
                                 .dx = r->grad_in[0],
                                 .fresh = r->fresh[0],
                                 .act = acts[r->op->type]};

    if (r->op->type == OP_CLIP) {
        a.lo = r->op->u.clip.lo;
        a.hi = r->op->u.clip.hi;
    }
    return a.dx.p ? kernels_unary_back(&a, c->type, c->s, c->err) : 0;
}

/* PReLU and affine. */
static int channel_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_channels a = {
        .kind = r->op->type == OP_PRELU ? ARITH_PRELU_BACK : ARITH_AFFINE_BACK,
        .x = r->in[0],
        .d = r->grad_out,
        .dx = r->grad_in[0],
        .fresh_x = r->fresh[0],
        .scale = r->vector[1],
        .cut = cut_of(r),
        .parts = r->state,
        .one = r->op->type == OP_PRELU && r->one[1]};

    for (int i = 0; i + 1 < r->n_in; i++) {
        a.grad[i] = r->grad_vector[i + 1];
        a.fresh[i] = r->fresh[i + 1];
    }
    return kernels_sums(&a, c->type, c->s, c->err);
}

static int pair_forward(const struct call *c)
{
    const struct learn_op *r = c->r;

    if (r->op->type == OP_ADD && !is_vector(r, 1)) {
        struct arith_blend a = {.x = {r->in[0], r->in[1]},
                                .y = r->out,
                                .scale = {r->scale[0], r->scale[1]},
                                .relu = r->relu};

        return kernels_blend(&a, c->type, c->s, c->err);
    }
    return kernels_binary(
        &(struct arith_binary){.x = r->in[0],
                               .b = r->in[1],
                               .y = r->out,
                               .vector = is_vector(r, 1) ? r->vector[1] : NULL,
                               .with = withs[r->op->type]},
        c->type, c->s, c->err);
}

static int pair_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    bool add = r->op->type == OP_ADD && !is_vector(r, 1);
    struct arith_pair_back a = {
        .x = {r->in[0], r->in[1]},
        .y = r->out,
        .d = r->grad_out,
        .dx = {r->grad_in[0], r->grad_in[1]},
        .scale = {add ? r->scale[0] : 1, add ? r->scale[1] : 1},
        .fresh = {r->fresh[0], r->fresh[1]},
        .relu = add && r->relu,
        .with = withs[r->op->type]};

    if (is_vector(r, 1)) {
        struct arith_channels b = {.kind = ARITH_SCALAR_BACK,
                                   .x = r->in[0],
                                   .d = r->grad_out,
                                   .scale = r->vector[1],
                                   .with = a.with,
                                   .cut = cut_of(r),
                                   .parts = r->state,
                                   .grad = {r->grad_vector[1]},
                                   .fresh = {r->fresh[1]},
                                   .one = true};

        a.vector = r->vector[1];
        a.dx[1].p = NULL;
        if (b.grad[0] && kernels_sums(&b, c->type, c->s, c->err))
            return -1;
    }
    return a.dx[0].p || a.dx[1].p ? kernels_pair_back(&a, c->type, c->s, c->err)
                                  : 0;
}

static int max_forward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_binary a = {.x = r->in[0], .y = r->out, .with = ARITH_MAX};

    /* Of one: of it and itself. */
    for (int k = r->n_in > 1 ? 1 : 0; k < r->n_in; k++) {
        a.b = r->in[k];
        if (kernels_binary(&a, c->type, c->s, c->err))
            return -1;
        a.x = r->out;
    }
    return 0;
}

static int max_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_max_back a = {.y = r->out, .d = r->grad_out, .n = r->n_in};

    for (int k = 0; k < r->n_in; k++) {
        a.x[k] = r->in[k].p;
        a.dx[k] = r->grad_in[k].p;
        a.fresh |= (uint64_t)r->fresh[k] << k;
    }
    return kernels_max_back(&a, c->type, c->s, c->err);
}

/* ---- what copies ------------------------------------------------------- */

/* y (+)= x, of as many pixels; y's channel c is x's from + c. */
static int copy(const struct call *c, const struct nhwc *x,
                const struct nhwc *y, int from, bool fresh)
{
    struct arith_part a = {.x = *x, .y = *y, .from = from, .fresh = fresh};

    return y->p ? kernels_part(&a, c->type, c->s, c->err) : 0;
}

static int concat_forward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_concat a = {.y = r->out, .n = r->n_in};

    for (int k = 0; k < r->n_in; k++) {
        a.x[k] = r->in[k].p;
        a.pitch[k] = r->in[k].pitch;
        a.start[k + 1] = a.start[k] + r->in[k].c;
    }
    return kernels_concat(&a, c->type, c->s, c->err);
}

static int concat_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    int from = 0;

    for (int k = 0; k < r->n_in; from += r->in[k++].c)
        if (copy(c, &r->grad_out, &r->grad_in[k], from, r->fresh[k]))
            return -1;
    return 0;
}

static int slice_forward(const struct call *c)
{
    return copy(c, &c->r->in[0], &c->r->out, c->r->op->u.axis.start, true);
}

static int slice_backward(const struct call *c)
{
    return copy(c, &c->r->grad_out, &c->r->grad_in[0], -c->r->op->u.axis.start,
                c->r->fresh[0]);
}

/* Identity; a reshape whose numbers stay where they are. */
static int copy_forward(const struct call *c)
{
    return copy(c, &c->r->in[0], &c->r->out, 0, true);
}

static int copy_backward(const struct call *c)
{
    return copy(c, &c->r->grad_out, &c->r->grad_in[0], 0, c->r->fresh[0]);
}

static int reshape_forward(const struct call *c)
{
    struct arith_gather a = {.x = c->r->in[0], .y = c->r->out, .flat = true};

    return same_size(&a.x, &a.y) ? copy_forward(c)
                                 : kernels_gather(&a, c->type, c->s, c->err);
}

static int reshape_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_flat_back a = {
        .d = r->grad_out, .dx = r->grad_in[0], .fresh = r->fresh[0]};

    if (!a.dx.p)
        return 0;
    return same_size(&a.d, &a.dx)
               ? copy_backward(c)
               : kernels_flat_back(&a, c->type, c->s, c->err);
}

/* ---- dropout ----------------------------------------------------------- */

static bool drops(const struct learn_op *r)
{
    return !r->rest && r->op->u.dropout.ratio > 0 && r->op->u.dropout.ratio < 1;
}

/* Forward or backward. A draw of 53 bits, as a fraction, is below the ratio
 * where it is below this. */
static int drop(const struct call *c, const struct nhwc *x,
                const struct nhwc *y, const uint64_t *from, uint64_t *keep,
                bool fresh)
{
    float ratio = c->r->op->u.dropout.ratio;
    struct arith_dropout a = {.x = *x,
                              .y = *y,
                              .state = from,
                              .keep = keep,
                              .at = c->r->random_at,
                              .below = (uint64_t)ceil((double)ratio * 0x1p53),
                              .factor = 1 / (1 - ratio),
                              .fresh = fresh};

    return y->p ? kernels_dropout(&a, c->type, c->s, c->err) : 0;
}

static int dropout_forward(const struct call *c)
{
    const struct learn_op *r = c->r;

    if (!drops(r))
        return copy_forward(c);
    return drop(c, &r->in[0], &r->out, r->random, r->state, true);
}

static int dropout_backward(const struct call *c)
{
    const struct learn_op *r = c->r;

    if (!drops(r))
        return copy_backward(c);
    return drop(c, &r->grad_out, &r->grad_in[0], r->state, NULL, r->fresh[0]);
}

/* ---- pools ------------------------------------------------------------- */

static struct arith_pool pool_of(const struct learn_op *r)
{
    const struct op_pool *p = &r->op->u.pool;
    const struct nhwc *x = &r->in[0];
    struct arith_pool a = {.x = *x, .y = r->out, .count_pad = p->count_pad};

    a.pooling = r->op->type == OP_MAX_POOL   ? ARITH_POOL_MAX
                : r->op->type == OP_AVG_POOL ? ARITH_POOL_MEAN
                : p->p == 1                  ? ARITH_POOL_L1
                                             : ARITH_POOL_L2;
    for (int i = 0; i < 2; i++) {
        a.kernel[i] = !p->global ? p->kernel[i] : i ? x->w : x->h;
        a.stride[i] = p->global ? 1 : p->stride[i];
        a.pad[i] = p->global ? 0 : p->pad[i];
        a.pad[2 + i] = p->global ? 0 : p->pad[2 + i];
    }
    return a;
}

static int pool_forward(const struct call *c)
{
    struct arith_max_pool a = {.pool = pool_of(c->r), .place = c->r->state};

    return a.pool.pooling == ARITH_POOL_MAX
               ? kernels_max_pool(&a, c->type, c->s, c->err)
               : kernels_pool(&a.pool, c->type, c->s, c->err);
}

static int pool_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_pool_back a = {.pool = pool_of(r),
                                .d = r->grad_out,
                                .dx = r->grad_in[0],
                                .place = r->state,
                                .fresh = r->fresh[0]};

    return a.dx.p ? kernels_pool_back(&a, c->type, c->s, c->err) : 0;
}

/* ---- along the channels -------------------------------------------------- */

static struct arith_lrn_learn lrn_of(const struct learn_op *r)
{
    const struct op_lrn *o = &r->op->u.lrn;

    return (struct arith_lrn_learn){.x = r->in[0],
                                    .y = r->out,
                                    .d = r->grad_out,
                                    .dx = r->grad_in[0],
                                    .s = r->state,
                                    .size = o->size,
                                    .alpha = o->alpha,
                                    .beta = o->beta,
                                    .bias = o->bias,
                                    .fresh = r->fresh[0]};
}

static int lrn_forward(const struct call *c)
{
    struct arith_lrn_learn a = lrn_of(c->r);

    return kernels_lrn_forward(&a, c->type, c->s, c->err);
}

static int lrn_backward(const struct call *c)
{
    struct arith_lrn_learn a = lrn_of(c->r);

    return a.dx.p ? kernels_lrn_back(&a, c->type, c->s, c->err) : 0;
}

static int line_kind(const struct learn_op *r)
{
    return r->op->type == OP_SOFTMAX ? ARITH_SOFTMAX
           : r->op->u.axis.p == 1    ? ARITH_L1
                                     : ARITH_L2;
}

static int lines_forward(const struct call *c)
{
    struct arith_lines a = {
        .x = c->r->in[0], .y = c->r->out, .kind = line_kind(c->r), .axis = 1};

    return kernels_lines(&a, c->type, c->s, c->err);
}

static int lines_backward(const struct call *c)
{
    const struct learn_op *r = c->r;
    struct arith_lines_back a = {.x = r->in[0],
                                 .y = r->out,
                                 .d = r->grad_out,
                                 .dx = r->grad_in[0],
                                 .kind = line_kind(r),
                                 .fresh = r->fresh[0]};

    return a.dx.p ? kernels_lines_back(&a, c->type, c->s, c->err) : 0;
}

/* ---- the table --------------------------------------------------------- */

static const struct {
    int (*forward)(const struct call *c);
    int (*backward)(const struct call *c);
} table[OP_COUNT] = {
    [OP_BATCH_NORM] = {norm_forward, norm_backward},
    [OP_AFFINE] = {unary_forward, channel_backward},
    [OP_PRELU] = {unary_forward, channel_backward},
    [OP_RELU] = {unary_forward, unary_backward},
    [OP_CLIP] = {unary_forward, unary_backward},
    [OP_SIGMOID] = {unary_forward, unary_backward},
    [OP_ADD] = {pair_forward, pair_backward},
    [OP_SUB] = {pair_forward, pair_backward},
    [OP_MUL] = {pair_forward, pair_backward},
    [OP_DIV] = {pair_forward, pair_backward},
    [OP_MAX] = {max_forward, max_backward},
    [OP_CONCAT] = {concat_forward, concat_backward},
    [OP_SLICE] = {slice_forward, slice_backward},
    [OP_MAX_POOL] = {pool_forward, pool_backward},
    [OP_AVG_POOL] = {pool_forward, pool_backward},
    [OP_LP_POOL] = {pool_forward, pool_backward},
    [OP_LRN] = {lrn_forward, lrn_backward},
    [OP_SOFTMAX] = {lines_forward, lines_backward},
    [OP_LP_NORM] = {lines_forward, lines_backward},
    [OP_RESHAPE] = {reshape_forward, reshape_backward},
    [OP_DROPOUT] = {dropout_forward, dropout_backward},
    [OP_IDENTITY] = {copy_forward, copy_backward},
};

static bool counted(const struct nhwc *a)
{
    return (uint64_t)a->n * (uint64_t)a->h * (uint64_t)a->w *
               (uint64_t)arith_padded(a->c) <
           (uint64_t)1 << 31;
}

/* Inputs other than the first: of which kind they may be. */
static bool inputs_known(const struct learn_op *r)
{
    enum op_type t = r->op->type;

    for (int k = 1; k < r->n_in; k++) {
        bool channels = t == OP_BATCH_NORM || t == OP_AFFINE || t == OP_PRELU;
        bool alike = same_size(&r->in[0], &r->in[k]);

        if (channels         ? !is_vector(r, k)
            : t == OP_CONCAT ? is_vector(r, k) || !counted(&r->in[k])
            : t == OP_MAX    ? !alike
                             : !alike && !is_vector(r, k))
            return false;
    }
    return true;
}

bool learn_op_known(const struct learn_op *r)
{
    const struct nhwc *x = &r->in[0];

    if ((unsigned)r->op->type >= OP_COUNT || !table[r->op->type].forward ||
        r->n_in < 1 || is_vector(r, 0) || !counted(x) || !counted(&r->out) ||
        !inputs_known(r))
        return false;
    switch (r->op->type) {
    case OP_CONCAT:
    case OP_SLICE:
    case OP_SOFTMAX:
    case OP_LP_NORM:
        return r->op->u.axis.axis == 1;
    case OP_RESHAPE:
        return same_size(x, &r->out) || r->out.h * r->out.w == 1;
    case OP_MAX_POOL: {
        struct arith_pool p = pool_of(r);

        return (int64_t)p.kernel[0] * p.kernel[1] <= 1 << 16;
    }
    default:
        return true;
    }
}

size_t learn_op_state(const struct learn_op *r)
{
    size_t c = (size_t)arith_padded(r->in[0].c);
    size_t parts = (size_t)cut_of(r).parts * c;

    switch (r->op->type) {
    case OP_BATCH_NORM:
        return (KEPT * c + ARITH_SUMS * parts) * sizeof(float);
    case OP_PRELU:
    case OP_AFFINE:
        return 2 * parts * sizeof(float);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        return is_vector(r, 1) ? parts * sizeof(float) : 0;
    case OP_MAX_POOL:
        return (size_t)arith_numbers(&r->out) * sizeof(uint16_t);
    case OP_LRN:
        return (size_t)arith_numbers(&r->in[0]) * sizeof(float);
    case OP_DROPOUT:
        return 2 * sizeof(uint64_t);
    default:
        return 0;
    }
}

int learn_op_forward(const struct learn_op *r, int type, struct stream *s,
                     struct error *err)
{
    return table[r->op->type].forward(&(struct call){r, type, s, err});
}

int learn_op_backward(const struct learn_op *r, int type, struct stream *s,
                      struct error *err)
{
    return table[r->op->type].backward(&(struct call){r, type, s, err});
}
