/* core/engine/op_train.c - see the header: the table, how work is cut, and
 * what goes number by number or copies. Rows are pixels, [rows,c]: inner loops
 * run over the channels, which lie side by side. */
#include "core/engine/op_train.h"

#include <math.h>
#include <string.h>

#include "core/engine/op_train_priv.h"

/* ---- how work is cut -------------------------------------------------- */

struct op_grid op_grid(const struct shape *s)
{
    struct op_grid g = {.n = s->d[0], .c = 1, .h = 1, .w = 1};

    if (s->rank > 1)
        g.c = s->d[1];
    if (s->rank > 2)
        g.h = s->d[2];
    if (s->rank > 3)
        g.w = s->d[3];
    g.rows = (size_t)g.n * (size_t)g.h * (size_t)g.w;
    return g;
}

void op_chunks(struct op_run *r, size_t n, size_t size, op_chunk_fn fn)
{
    size_t step = size < OP_CHUNK ? OP_CHUNK / size : 1;
    size_t count = (n + step - 1) / step;

#pragma omp parallel for schedule(static) if (count > 1)
    for (size_t i = 0; i < count; i++)
        fn(r, i * step, i == count - 1 ? n : (i + 1) * step);
}

int op_parts(size_t n)
{
    size_t parts = n / OP_CHUNK + 1;

    return parts < OP_PARTS ? (int)parts : OP_PARTS;
}

size_t op_part(size_t n, int part, int parts)
{
    return n / (size_t)parts * (size_t)part +
           n % (size_t)parts * (size_t)part / (size_t)parts;
}

/* ---- one number at a time ---------------------------------------------- */

OP_WIDE static void relu(const float *x, float *y, size_t n)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] : 0;
}

OP_WIDE static void clip(const float *x, float *y, size_t n, float lo, float hi)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float v = x[i] < lo ? lo : x[i];

        y[i] = v > hi ? hi : v;
    }
}

static void single_chunk(struct op_run *r, size_t from, size_t end)
{
    const float *x = r->in[0] + from;
    float *y = r->out + from;
    size_t n = end - from;

    if (r->op->type == OP_RELU)
        relu(x, y, n);
    else if (r->op->type == OP_CLIP)
        clip(x, y, n, r->op->u.clip.lo, r->op->u.clip.hi);
    else
        for (size_t i = 0; i < n; i++)
            y[i] = 1 / (1 + expf(-x[i]));
}

/* Passes where lo < y < hi. */
OP_BODY void between_body(const float *y, const float *d, float *dx, size_t n,
                          float lo, float hi, bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float g = y[i] > lo && y[i] < hi ? d[i] : 0;

        dx[i] = fresh ? g : dx[i] + g;
    }
}

OP_BODY void sigmoid_body(const float *y, const float *d, float *dx, size_t n,
                          bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float g = d[i] * y[i] * (1 - y[i]);

        dx[i] = fresh ? g : dx[i] + g;
    }
}

OP_BODY void relu_body(const float *y, const float *d, float *dx, size_t n,
                       bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float g = y[i] > 0 ? d[i] : 0;

        dx[i] = fresh ? g : dx[i] + g;
    }
}

OP_WIDE static void single_back(const float *y, const float *d, float *dx,
                                size_t n, const struct op *op, bool fresh)
{
    if (op->type == OP_RELU && fresh)
        relu_body(y, d, dx, n, true);
    else if (op->type == OP_RELU)
        relu_body(y, d, dx, n, false);
    else if (op->type == OP_SIGMOID)
        sigmoid_body(y, d, dx, n, fresh);
    else
        between_body(y, d, dx, n, op->u.clip.lo, op->u.clip.hi, fresh);
}

static void single_back_chunk(struct op_run *r, size_t from, size_t end)
{
    single_back(r->out + from, r->grad_out + from, r->grad_in[0] + from,
                end - from, r->op, r->fresh[0]);
}

static void single(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);

    if (forward)
        op_chunks(r, n, 1, single_chunk);
    else if (r->grad_in[0])
        op_chunks(r, n, 1, single_back_chunk);
}

/* ---- arithmetic ----------------------------------------------------- */

OP_BODY float compute(enum op_type t, float a, float b)
{
    return t == OP_ADD   ? a + b
           : t == OP_SUB ? a - b
           : t == OP_MUL ? a * b
                         : a / b;
}

/* step of b: 0 for a scalar. */
OP_BODY void compute_body(enum op_type t, const float *a, const float *b,
                          float *y, size_t n, size_t step)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        y[i] = compute(t, a[i], b[step ? i : 0]);
}

OP_WIDE static void compute_all(enum op_type t, const float *a, const float *b,
                                float *y, size_t n, size_t step)
{
    if (t == OP_MUL && !step)
        compute_body(OP_MUL, a, b, y, n, 0);
    else if (t == OP_MUL)
        compute_body(OP_MUL, a, b, y, n, 1);
    else if (t == OP_SUB)
        compute_body(OP_SUB, a, b, y, n, step);
    else if (t == OP_DIV)
        compute_body(OP_DIV, a, b, y, n, step);
    else
        compute_body(OP_ADD, a, b, y, n, step);
}

OP_WIDE static void add_scaled(const float *a, float scale_a, const float *b,
                               float scale_b, float *y, size_t n, bool positive)
{
    if (positive)
#pragma GCC ivdep
        for (size_t i = 0; i < n; i++) {
            float v = a[i] * scale_a + b[i] * scale_b;

            y[i] = v > 0 ? v : 0;
        }
    else
#pragma GCC ivdep
        for (size_t i = 0; i < n; i++)
            y[i] = a[i] * scale_a + b[i] * scale_b;
}

/* Is input 1 one number, beside the many of input 0? */
static bool scalar(const struct op_run *r)
{
    return shape_count(&r->shape_in[1]) == 1;
}

static bool plain_add(const struct op_run *r)
{
    return !r->relu && !r->scale[0] && !r->scale[1];
}

static void arithmetic_chunk(struct op_run *r, size_t from, size_t end)
{
    size_t step = scalar(r) ? 0 : 1, n = end - from;
    const float *a = r->in[0] + from, *b = r->in[1] + from * step;

    if (r->op->type == OP_ADD && step && !plain_add(r))
        add_scaled(a, r->scale[0] ? *r->scale[0] : 1, b,
                   r->scale[1] ? *r->scale[1] : 1, r->out + from, n, r->relu);
    else
        compute_all(r->op->type, a, b, r->out + from, n, step);
}

/* g (+)= d * factor, where mask > 0 */
OP_BODY void scaled_body(const float *d, float factor, const float *mask,
                         float *g, size_t n, bool masked, bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float v = masked && !(mask[i] > 0) ? 0 : d[i] * factor;

        g[i] = fresh ? v : g[i] + v;
    }
}

OP_WIDE static void scaled_back(const float *d, float factor, const float *mask,
                                float *g, size_t n, bool fresh)
{
    if (mask && fresh)
        scaled_body(d, factor, mask, g, n, true, true);
    else if (mask)
        scaled_body(d, factor, mask, g, n, true, false);
    else if (fresh)
        scaled_body(d, factor, mask, g, n, false, true);
    else
        scaled_body(d, factor, mask, g, n, false, false);
}

/* By input k of a product or quotient. */
OP_BODY float slope(enum op_type t, int k, float a, float b)
{
    if (t == OP_MUL)
        return k ? a : b;
    if (t == OP_DIV)
        return k ? -a / (b * b) : 1 / b;
    return k && t == OP_SUB ? -1 : 1;
}

OP_WIDE static void slope_back(enum op_type t, int k, const float *a,
                               const float *b, size_t step, const float *d,
                               float *g, size_t n, bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float v = d[i] * slope(t, k, a[i], b[i * step]);

        g[i] = fresh ? v : g[i] + v;
    }
}

/* Gradients of both inputs, of input 1 unless it is a scalar: the second needs
 * the numbers that the first's may overwrite, so the first goes last; unless
 * they are one value, whose gradient the first begins and the second adds to.
 */
static void arithmetic_back_chunk(struct op_run *r, size_t from, size_t end)
{
    enum op_type t = r->op->type;
    size_t step = scalar(r) ? 0 : 1, n = end - from;
    const float *d = r->grad_out + from;
    const float *mask = r->relu ? r->out + from : NULL;
    int last = step ? 1 : 0;
    bool one = r->grad_in[0] == r->grad_in[1];

    for (int i = 0; i <= last; i++) {
        int k = one ? i : last - i;
        float *g = r->grad_in[k], factor = r->scale[k] ? *r->scale[k] : 1;

        if (!g)
            continue;
        if (t == OP_ADD || t == OP_SUB)
            scaled_back(d, slope(t, k, 0, 0) * factor, mask, g + from, n,
                        r->fresh[k]);
        else if (t == OP_MUL && !step)
            scaled_back(d, *r->in[1], NULL, g + from, n, r->fresh[k]);
        else
            slope_back(t, k, r->in[0] + from, r->in[1] + from * step, step, d,
                       g + from, n, r->fresh[k]);
    }
}

/* The gradient of a scalar. */
static void scalar_back(struct op_run *r, size_t n)
{
    double sums[OP_PARTS] = {0}, sum = 0;
    int parts = op_parts(n);

#pragma omp parallel for schedule(static) if (parts > 1)
    for (int p = 0; p < parts; p++) {
        double own = 0;

        for (size_t i = op_part(n, p, parts); i < op_part(n, p + 1, parts); i++)
            own += (double)r->grad_out[i] *
                   (double)slope(r->op->type, 1, r->in[0] ? r->in[0][i] : 0,
                                 r->in[1] ? *r->in[1] : 0);
        sums[p] = own;
    }
    for (int p = 0; p < parts; p++)
        sum += sums[p];
    *r->grad_in[1] = (r->fresh[1] ? 0 : *r->grad_in[1]) + (float)sum;
}

static void arithmetic(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);

    if (forward) {
        op_chunks(r, n, 1, arithmetic_chunk);
        return;
    }
    if (r->grad_in[1] && scalar(r))
        scalar_back(r, n);
    op_chunks(r, n, 1, arithmetic_back_chunk);
}

/* ---- the greatest of some inputs ---------------------------------------- */

enum {
    MAX_BLOCK = 1024
};

/* The first of the greatest, and where. */
OP_WIDE static void greatest(const float *const in[], int n_in, size_t from,
                             size_t n, float *most, float *which)
{
    memcpy(most, in[0] + from, n * sizeof(*most));
    memset(which, 0, n * sizeof(*which));
    for (int k = 1; k < n_in; k++) {
        const float *x = in[k] + from;
#pragma GCC ivdep
        for (size_t i = 0; i < n; i++)
            which[i] = x[i] > most[i] ? (float)k : which[i];
#pragma GCC ivdep
        for (size_t i = 0; i < n; i++)
            most[i] = x[i] > most[i] ? x[i] : most[i];
    }
}

OP_WIDE static void greatest_back(const float *which, float k, const float *d,
                                  float *dx, size_t n, bool fresh)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        dx[i] = (fresh ? 0 : dx[i]) + (which[i] == k ? d[i] : 0);
}

static void max_chunk(struct op_run *r, size_t from, size_t end)
{
    float most[MAX_BLOCK], which[MAX_BLOCK];

    for (size_t i = from; i < end; i += MAX_BLOCK) {
        size_t n = end - i < MAX_BLOCK ? end - i : MAX_BLOCK;

        greatest(r->in, r->n_in, i, n, most, which);
        memcpy(r->out + i, most, n * sizeof(*most));
    }
}

static void max_back_chunk(struct op_run *r, size_t from, size_t end)
{
    float most[MAX_BLOCK], which[MAX_BLOCK];

    for (size_t i = from; i < end; i += MAX_BLOCK) {
        size_t n = end - i < MAX_BLOCK ? end - i : MAX_BLOCK;

        greatest(r->in, r->n_in, i, n, most, which);
        for (int k = 0; k < r->n_in; k++)
            if (r->grad_in[k])
                greatest_back(which, (float)k, r->grad_out + i,
                              r->grad_in[k] + i, n, r->fresh[k]);
    }
}

/* ---- what copies -------------------------------------------------------- */

OP_WIDE static void add_to(float *to, const float *from, size_t n)
{
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void pass(float *to, const float *from, size_t n, bool fresh)
{
    if (fresh)
        memcpy(to, from, n * sizeof(*to));
    else
        add_to(to, from, n);
}

static void concat_rows(struct op_run *r, size_t from, size_t end)
{
    size_t all = (size_t)r->shape_out.d[1], at = 0;

    for (int k = 0; k < r->n_in; k++) {
        size_t c = (size_t)r->shape_in[k].d[1];

        for (size_t i = from; i < end; i++)
            memcpy(r->out + i * all + at, r->in[k] + i * c, c * sizeof(float));
        at += c;
    }
}

static void concat_back_rows(struct op_run *r, size_t from, size_t end)
{
    size_t all = (size_t)r->shape_out.d[1], at = 0;

    for (int k = 0; k < r->n_in; k++) {
        size_t c = (size_t)r->shape_in[k].d[1];

        for (size_t i = from; i < end && r->grad_in[k]; i++)
            pass(r->grad_in[k] + i * c, r->grad_out + i * all + at, c,
                 r->fresh[k]);
        at += c;
    }
}

static void slice_rows(struct op_run *r, size_t from, size_t end)
{
    size_t all = (size_t)r->shape_in[0].d[1], c = (size_t)r->shape_out.d[1];
    size_t start = (size_t)r->op->u.axis.start;

    for (size_t i = from; i < end; i++)
        memcpy(r->out + i * c, r->in[0] + i * all + start, c * sizeof(float));
}

static void slice_back_rows(struct op_run *r, size_t from, size_t end)
{
    size_t all = (size_t)r->shape_in[0].d[1], c = (size_t)r->shape_out.d[1];
    size_t start = (size_t)r->op->u.axis.start;

    for (size_t i = from; i < end; i++) {
        float *dx = r->grad_in[0] + i * all;

        if (r->fresh[0]) {
            memset(dx, 0, start * sizeof(*dx));
            memset(dx + start + c, 0, (all - start - c) * sizeof(*dx));
        }
        pass(dx + start, r->grad_out + i * c, c, r->fresh[0]);
    }
}

/* Pictures from pixels with their channels to the flat order of n c h w. */
static void reshape_pictures(struct op_run *r, size_t from, size_t end)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    size_t hw = (size_t)g.h * (size_t)g.w, c = (size_t)g.c;

    for (size_t i = from * hw; i < end * hw; i++)
        for (size_t k = 0; k < c; k++)
            r->out[(i / hw * c + k) * hw + i % hw] = r->in[0][i * c + k];
}

static void reshape_back_pictures(struct op_run *r, size_t from, size_t end)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    size_t hw = (size_t)g.h * (size_t)g.w, c = (size_t)g.c;

    for (size_t i = from * hw; i < end * hw; i++)
        for (size_t k = 0; k < c; k++) {
            float *dx = &r->grad_in[0][i * c + k];

            *dx = (r->fresh[0] ? 0 : *dx) +
                  r->grad_out[(i / hw * c + k) * hw + i % hw];
        }
}

static void copy_chunk(struct op_run *r, size_t from, size_t end)
{
    memcpy(r->out + from, r->in[0] + from, (end - from) * sizeof(float));
}

static void copy_back_chunk(struct op_run *r, size_t from, size_t end)
{
    if (r->grad_in[0] != r->grad_out || !r->fresh[0])
        pass(r->grad_in[0] + from, r->grad_out + from, end - from, r->fresh[0]);
}

/* The order in memory is another only where there is more than one pixel. */
static bool reorders(const struct op_run *r)
{
    const struct shape *x = &r->shape_in[0];

    return r->op->type == OP_RESHAPE && !shape_equal(x, &r->shape_out) &&
           x->rank == 4 && x->d[2] * x->d[3] > 1;
}

/* Reshape, identity, and dropout that is off. */
static void copy(struct op_run *r, bool forward)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    size_t n = shape_count(&r->shape_out);

    if (!forward && !r->grad_in[0])
        return;
    if (reorders(r))
        op_chunks(r, (size_t)g.n, n / (size_t)g.n,
                  forward ? reshape_pictures : reshape_back_pictures);
    else
        op_chunks(r, n, 1, forward ? copy_chunk : copy_back_chunk);
}

/* ---- dropout ---------------------------------------------------------- */

/* splitmix64: number i after state */
static uint64_t number(uint64_t state, uint64_t i)
{
    uint64_t z = state + i * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* What is kept is scaled up, so that the mean stays. */
static void dropout_chunk(struct op_run *r, size_t from, size_t end)
{
    float ratio = r->op->u.dropout.ratio, factor = 1 / (1 - ratio);

    for (size_t i = from; i < end; i++) {
        uint64_t draw = number(*r->random, i + 1);

        r->state[i] =
            (double)(draw >> 11) * 0x1p-53 < (double)ratio ? 0 : factor;
        r->out[i] = r->in[0][i] * r->state[i];
    }
}

static void dropout_back_chunk(struct op_run *r, size_t from, size_t end)
{
    for (size_t i = from; i < end; i++)
        r->grad_in[0][i] =
            (r->fresh[0] ? 0 : r->grad_in[0][i]) + r->grad_out[i] * r->state[i];
}

static void dropout(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);
    float ratio = r->op->u.dropout.ratio;

    if (r->rest || !(ratio > 0 && ratio < 1)) {
        copy(r, forward);
    } else if (forward) {
        op_chunks(r, n, 1, dropout_chunk);
        *r->random += n * 0x9e3779b97f4a7c15u;
    } else if (r->grad_in[0]) {
        op_chunks(r, n, 1, dropout_back_chunk);
    }
}

/* ---- the table -------------------------------------------------------- */

size_t op_run_state(const struct op_run *r)
{
    size_t c = (size_t)op_grid(&r->shape_in[0]).c;

    switch (r->op->type) {
    case OP_BATCH_NORM:
        return op_train_norm_state(c);
    case OP_PRELU:
    case OP_AFFINE:
        return op_train_channel_state(c);
    case OP_MAX_POOL: /* where in the plane */
    case OP_DROPOUT:  /* the factor */
        return shape_count(&r->shape_out);
    case OP_LRN:
        return op_train_line_state(r);
    default:
        return 0;
    }
}

/* The chunks of two functions: rows for each direction. */
static void rows(struct op_run *r, bool forward, op_chunk_fn to,
                 op_chunk_fn back)
{
    const struct shape *s =
        r->op->type == OP_SLICE ? &r->shape_in[0] : &r->shape_out;
    struct op_grid g = op_grid(s);

    if (r->op->type == OP_MAX) /* no rows: all inputs are alike */
        op_chunks(r, shape_count(s), 1, forward ? to : back);
    else if (forward || r->grad_in[0] || r->op->type == OP_CONCAT)
        op_chunks(r, g.rows, (size_t)g.c, forward ? to : back);
}

static void run(struct op_run *r, bool forward)
{
    switch (r->op->type) {
    case OP_BATCH_NORM:
        op_train_norm(r, forward);
        break;
    case OP_AFFINE:
    case OP_PRELU:
        op_train_channel(r, forward);
        break;
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
        single(r, forward);
        break;
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        arithmetic(r, forward);
        break;
    case OP_MAX:
        rows(r, forward, max_chunk, max_back_chunk);
        break;
    case OP_CONCAT:
        rows(r, forward, concat_rows, concat_back_rows);
        break;
    case OP_SLICE:
        rows(r, forward, slice_rows, slice_back_rows);
        break;
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        op_train_pool(r, forward);
        break;
    case OP_LRN:
    case OP_SOFTMAX:
    case OP_LP_NORM:
        op_train_line(r, forward);
        break;
    case OP_RESHAPE:
    case OP_IDENTITY:
        copy(r, forward);
        break;
    case OP_DROPOUT:
        dropout(r, forward);
        break;
    default:
        break; /* op_run_known says so */
    }
}

void op_run_forward(struct op_run *r)
{
    run(r, true);
}

void op_run_backward(struct op_run *r)
{
    run(r, false);
}
