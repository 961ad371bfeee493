/* core/engine/op_train.c - see the header. Rows are pixels, [rows,c]: inner
 * loops run over the channels, which lie side by side. */
#include "core/engine/op_train.h"

#include <math.h>
#include <string.h>

struct grid {
    int n, c, h, w;
    size_t rows; /* n h w */
};

static struct grid grid_of(const struct shape *s)
{
    struct grid g = {.n = s->d[0], .c = 1, .h = 1, .w = 1};

    if (s->rank > 1)
        g.c = s->d[1];
    if (s->rank > 2)
        g.h = s->d[2];
    if (s->rank > 3)
        g.w = s->d[3];
    g.rows = (size_t)g.n * (size_t)g.h * (size_t)g.w;
    return g;
}

static bool is_arithmetic(enum op_type t)
{
    return t == OP_ADD || t == OP_SUB || t == OP_MUL || t == OP_DIV;
}

bool op_run_known(const struct op_run *r)
{
    const struct shape *x = &r->shape_in[0], *y = &r->shape_in[1];

    switch (r->op->type) {
    case OP_BATCH_NORM:
    case OP_AFFINE:
    case OP_PRELU:
        return x->rank == 2 || x->rank == 4;
    case OP_CONCAT:
    case OP_SLICE:
    case OP_LP_NORM:
    case OP_SOFTMAX:
        return r->op->u.axis.axis == 1 && (x->rank == 2 || x->rank == 4);
    case OP_RESHAPE:
        return r->shape_out.rank == 2 || shape_equal(x, &r->shape_out);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
        return r->n_in == 2 && (shape_equal(x, y) || shape_count(y) == 1);
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
    case OP_MAX:
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
    case OP_LRN:
    case OP_DROPOUT:
    case OP_IDENTITY:
        return true;
    default:
        return false;
    }
}

size_t op_run_state(const struct op_run *r)
{
    switch (r->op->type) {
    case OP_BATCH_NORM: /* mean, inverse deviation, two sums of backward */
        return 4 * (size_t)r->shape_in[0].d[1];
    case OP_MAX_POOL: /* where in the window */
    case OP_DROPOUT:  /* the factor */
        return shape_count(&r->shape_out);
    case OP_LRN: /* bias + alpha / size * sum */
        return shape_count(&r->shape_out);
    default:
        return 0;
    }
}

/* ---- batch norm ----------------------------------------------------- */

static bool batch_statistics(const struct op_run *r)
{
    return !r->rest && !r->freeze_norm;
}

static void measure(const struct op_run *r, const struct grid *g, float *mean,
                    float *inverse)
{
    const struct op_norm *o = &r->op->u.norm;
    float keep = o->momentum, take = 1 - o->momentum;
    double rows = (double)g->rows;

    for (int c = 0; c < g->c; c++)
        mean[c] = inverse[c] = 0;
    /* Sums of sums: a row of partial ones for every 256 pixels, so that f32
     * does not lose the last of many. */
    for (int pass = 0; pass < 2; pass++) {
        float *into = pass ? inverse : mean;

        for (size_t first = 0; first < g->rows; first += 256) {
            size_t end = first + 256 < g->rows ? first + 256 : g->rows;

            for (int c0 = 0; c0 < g->c; c0 += 64) {
                int n = g->c - c0 < 64 ? g->c - c0 : 64;
                float sum[64] = {0};

                for (size_t i = first; i < end; i++) {
                    const float *x = r->in[0] + i * (size_t)g->c + c0;

                    for (int k = 0; k < n; k++) {
                        float d = pass ? x[k] - mean[c0 + k] : x[k];

                        sum[k] += pass ? d * d : d;
                    }
                }
                for (int k = 0; k < n; k++)
                    into[c0 + k] += (float)((double)sum[k] / rows);
            }
        }
    }
    for (int c = 0; c < g->c; c++) {
        if (r->mean)
            r->mean[c] = keep * r->mean[c] + take * mean[c];
        if (r->var)
            r->var[c] = keep * r->var[c] + take * inverse[c];
        inverse[c] = 1 / sqrtf(inverse[c] + o->epsilon);
    }
}

static void norm_forward(struct op_run *r)
{
    struct grid g = grid_of(&r->shape_in[0]);
    float *mean = r->state, *inverse = mean + g.c;
    const float *gamma = r->in[1], *beta = r->in[2];

    if (batch_statistics(r)) {
        measure(r, &g, mean, inverse);
    } else {
        for (int c = 0; c < g.c; c++) {
            mean[c] = r->in[3][c];
            inverse[c] = 1 / sqrtf(r->in[4][c] + r->op->u.norm.epsilon);
        }
    }
    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        float *y = r->out + i * (size_t)g.c;

        for (int c = 0; c < g.c; c++)
            y[c] = (x[c] - mean[c]) * inverse[c] * gamma[c] + beta[c];
    }
}

static void norm_backward(struct op_run *r)
{
    struct grid g = grid_of(&r->shape_in[0]);
    float *mean = r->state, *inverse = mean + g.c, *sum = inverse + g.c;
    float *along = sum + g.c, part = 1 / (float)g.rows;
    bool batch = batch_statistics(r);

    memset(sum, 0, 2 * (size_t)g.c * sizeof(*sum));
    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        const float *d = r->grad_out + i * (size_t)g.c;

        for (int c = 0; c < g.c; c++) {
            sum[c] += d[c];
            along[c] += d[c] * (x[c] - mean[c]) * inverse[c];
        }
    }
    for (int c = 0; c < g.c; c++) {
        if (r->grad_in[1])
            r->grad_in[1][c] += along[c];
        if (r->grad_in[2])
            r->grad_in[2][c] += sum[c];
    }
    if (!r->grad_in[0])
        return;
    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        const float *d = r->grad_out + i * (size_t)g.c;
        float *dx = r->grad_in[0] + i * (size_t)g.c;

        for (int c = 0; c < g.c; c++) {
            float scale = r->in[1][c] * inverse[c], v = d[c];

            if (batch)
                v -= part * (sum[c] + (x[c] - mean[c]) * inverse[c] * along[c]);
            dx[c] += scale * v;
        }
    }
}

/* ---- one number at a time ---------------------------------------------- */

/* The slope or scale of a number: one for each channel, or one. */
static size_t period(const struct shape *s, int c)
{
    return shape_count(s) == 1 ? 0 : (size_t)c;
}

static void by_channel(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]);
    size_t step = period(&r->shape_in[1], g.c) ? 1 : 0;
    bool prelu = r->op->type == OP_PRELU;

    for (size_t i = 0; i < g.rows * (size_t)g.c; i++) {
        size_t c = step ? i % (size_t)g.c : 0;
        float x = r->in[0][i], s = r->in[1][c];
        bool own = prelu && x > 0; /* passed as it is */

        if (forward) {
            r->out[i] = own ? x : s * x + (prelu ? 0 : r->in[2][c]);
            continue;
        }
        if (r->grad_in[0])
            r->grad_in[0][i] += r->grad_out[i] * (own ? 1 : s);
        if (r->grad_in[1] && !own)
            r->grad_in[1][c] += r->grad_out[i] * x;
        if (!prelu && r->grad_in[2])
            r->grad_in[2][c] += r->grad_out[i];
    }
}

static void single_forward(struct op_run *r)
{
    size_t n = shape_count(&r->shape_out);
    const struct op_clip *o = &r->op->u.clip;
    const float *x = r->in[0];

    for (size_t i = 0; i < n; i++) {
        if (r->op->type == OP_RELU)
            r->out[i] = x[i] > 0 ? x[i] : 0;
        else if (r->op->type == OP_SIGMOID)
            r->out[i] = 1 / (1 + expf(-x[i]));
        else
            r->out[i] = x[i] < o->lo ? o->lo : x[i] > o->hi ? o->hi : x[i];
    }
}

static void single_backward(struct op_run *r)
{
    size_t n = shape_count(&r->shape_out);
    const struct op_clip *o = &r->op->u.clip;
    float *dx = r->grad_in[0];

    for (size_t i = 0; dx && i < n; i++) {
        float y = r->out[i], d = r->grad_out[i];

        if (r->op->type == OP_SIGMOID)
            dx[i] += d * y * (1 - y);
        else if (r->op->type == OP_RELU ? y > 0 : y > o->lo && y < o->hi)
            dx[i] += d;
    }
}

static void arithmetic(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);
    size_t sb = shape_count(&r->shape_in[1]) == 1 ? 0 : 1;
    enum op_type t = r->op->type;

    for (size_t i = 0; i < n; i++) {
        float a = r->in[0][i], b = r->in[1][i * sb], da = 1, db = 1;

        if (forward) {
            r->out[i] = t == OP_ADD   ? a + b
                        : t == OP_SUB ? a - b
                        : t == OP_MUL ? a * b
                                      : a / b;
            continue;
        }
        if (t == OP_SUB)
            db = -1;
        if (t == OP_MUL) {
            da = b;
            db = a;
        }
        if (t == OP_DIV) {
            da = 1 / b;
            db = -a / (b * b);
        }
        if (r->grad_in[0])
            r->grad_in[0][i] += r->grad_out[i] * da;
        if (r->grad_in[1])
            r->grad_in[1][i * sb] += r->grad_out[i] * db;
    }
}

/* The first of the greatest. */
static void maximum(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);

    for (size_t i = 0; i < n; i++) {
        int best = 0;

        for (int k = 1; k < r->n_in; k++)
            if (r->in[k][i] > r->in[best][i])
                best = k;
        if (forward)
            r->out[i] = r->in[best][i];
        else if (r->grad_in[best])
            r->grad_in[best][i] += r->grad_out[i];
    }
}

static void add_to(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void concat(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_out);
    size_t at = 0;

    for (int k = 0; k < r->n_in; k++) {
        size_t c = (size_t)r->shape_in[k].d[1];

        for (size_t i = 0; i < g.rows; i++) {
            size_t y = i * (size_t)g.c + at;

            if (forward)
                memcpy(r->out + y, r->in[k] + i * c, c * sizeof(float));
            else if (r->grad_in[k])
                add_to(r->grad_in[k] + i * c, r->grad_out + y, c);
        }
        at += c;
    }
}

static void slice(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_out);
    size_t from = (size_t)r->shape_in[0].d[1], c = (size_t)g.c;

    for (size_t i = 0; i < g.rows; i++) {
        size_t x = i * from + (size_t)r->op->u.axis.start;

        if (forward)
            memcpy(r->out + i * c, r->in[0] + x, c * sizeof(float));
        else if (r->grad_in[0])
            add_to(r->grad_in[0] + x, r->grad_out + i * c, c);
    }
}

/* From pixels with their channels to the flat order of n c h w. */
static void reshape(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]);
    size_t hw = (size_t)g.h * (size_t)g.w;
    bool same = shape_equal(&r->shape_in[0], &r->shape_out);

    for (size_t i = 0; i < g.rows; i++)
        for (int c = 0; c < g.c; c++) {
            size_t x = i * (size_t)g.c + (size_t)c;
            size_t y =
                same ? x : (i / hw * (size_t)g.c + (size_t)c) * hw + i % hw;

            if (forward)
                r->out[y] = r->in[0][x];
            else if (r->grad_in[0])
                r->grad_in[0][x] += r->grad_out[y];
        }
}

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* What is kept is scaled up, so that the mean stays. */
static void dropout(struct op_run *r, bool forward)
{
    size_t n = shape_count(&r->shape_out);
    float ratio = r->op->type == OP_DROPOUT ? r->op->u.dropout.ratio : 0;
    bool on = ratio > 0 && ratio < 1 && !r->rest;

    for (size_t i = 0; i < n; i++) {
        if (forward && on)
            r->state[i] =
                (double)(next(r->random) >> 11) * 0x1p-53 < (double)ratio
                    ? 0
                    : 1 / (1 - ratio);
        if (forward)
            r->out[i] = r->in[0][i] * (on ? r->state[i] : 1);
        else if (r->grad_in[0])
            r->grad_in[0][i] += r->grad_out[i] * (on ? r->state[i] : 1);
    }
}

/* ---- along the channels of a pixel ------------------------------------- */

static void softmax(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]);

    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        float *y = r->out + i * (size_t)g.c, most = -INFINITY;
        const float *d = forward ? NULL : r->grad_out + i * (size_t)g.c;
        double sum = 0;

        if (forward) {
            for (int c = 0; c < g.c; c++)
                most = x[c] > most ? x[c] : most;
            for (int c = 0; c < g.c; c++)
                sum += (double)(y[c] = expf(x[c] - most));
            for (int c = 0; c < g.c; c++)
                y[c] = (float)(y[c] / sum);
            continue;
        }
        for (int c = 0; c < g.c; c++)
            sum += (double)d[c] * y[c];
        for (int c = 0; r->grad_in[0] && c < g.c; c++)
            r->grad_in[0][i * (size_t)g.c + (size_t)c] +=
                y[c] * (d[c] - (float)sum);
    }
}

static void lp_norm(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]);
    bool one = r->op->u.axis.p == 1;

    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        const float *d = forward ? NULL : r->grad_out + i * (size_t)g.c;
        double length = 0, along = 0;

        for (int c = 0; c < g.c; c++) {
            length += one ? fabs((double)x[c]) : (double)x[c] * x[c];
            along += forward ? 0 : (double)d[c] * x[c];
        }
        length = one ? length : sqrt(length);
        for (int c = 0; c < g.c; c++) {
            size_t at = i * (size_t)g.c + (size_t)c;
            double slope = one ? (x[c] > 0) - (x[c] < 0) : x[c] / length;

            if (forward)
                r->out[at] = length > 0 ? (float)(x[c] / length) : 0;
            else if (r->grad_in[0] && length > 0)
                r->grad_in[0][at] +=
                    (float)(d[c] / length - along * slope / length / length);
        }
    }
}

/* y = x s^-beta, s = bias + alpha / size * sum of x^2 over size channels. */
static void lrn(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]);
    const struct op_lrn *o = &r->op->u.lrn;
    int before = (o->size - 1) / 2, after = o->size - 1 - before;
    float share = o->alpha / (float)o->size;

    for (size_t i = 0; i < g.rows; i++) {
        const float *x = r->in[0] + i * (size_t)g.c;
        float *s = r->state + i * (size_t)g.c;

        for (int c = 0; c < g.c; c++) {
            size_t at = i * (size_t)g.c + (size_t)c;

            if (forward) {
                s[c] = 0;
                for (int k = c - before; k <= c + after; k++)
                    s[c] += k >= 0 && k < g.c ? x[k] * x[k] : 0;
                s[c] = o->bias + share * s[c];
                r->out[at] = x[c] * powf(s[c], -o->beta);
            } else if (r->grad_in[0]) {
                float d = r->grad_out[at], p = powf(s[c], -o->beta);
                float pull = -2 * o->beta * share * d * x[c] * p / s[c];

                r->grad_in[0][at] += d * p;
                for (int k = c - before; k <= c + after; k++)
                    if (k >= 0 && k < g.c)
                        r->grad_in[0][i * (size_t)g.c + (size_t)k] +=
                            pull * x[k];
            }
        }
    }
}

/* ---- pools ----------------------------------------------------------------
 */

struct window {
    int y0, y1, x0, x1; /* inside the picture */
    float divisor;      /* of an average */
};

static struct window window_at(const struct op_pool *o, const struct grid *g,
                               int y, int x)
{
    struct window v;
    int kh = o->global ? g->h : o->kernel[0];
    int kw = o->global ? g->w : o->kernel[1];
    int top = o->global ? 0 : y * o->stride[0] - o->pad[0];
    int left = o->global ? 0 : x * o->stride[1] - o->pad[1];
    int bottom = top + kh, right = left + kw;
    int most_y = g->h + (o->global ? 0 : o->pad[2]);
    int most_x = g->w + (o->global ? 0 : o->pad[3]);

    v.y0 = top < 0 ? 0 : top;
    v.x0 = left < 0 ? 0 : left;
    v.y1 = bottom > g->h ? g->h : bottom;
    v.x1 = right > g->w ? g->w : right;
    /* What ceil_mode reaches beyond the padding is not counted. */
    if (o->count_pad)
        v.divisor = (float)(((bottom > most_y ? most_y : bottom) - top) *
                            ((right > most_x ? most_x : right) - left));
    else
        v.divisor = (float)((v.y1 - v.y0) * (v.x1 - v.x0));
    return v;
}

/* One place of the window for all channels. state: of a max pool. */
static void pool_place(struct op_run *r, const struct grid *g, size_t out,
                       size_t in, float divisor, bool forward, bool first)
{
    enum op_type t = r->op->type;
    bool one = r->op->u.pool.p == 1;
    float at = (float)(in % ((size_t)g->h * (size_t)g->w));
    const float *x = r->in[0] ? r->in[0] + in * (size_t)g->c : NULL;
    float *y = r->out ? r->out + out * (size_t)g->c : NULL;
    float *s = r->state ? r->state + out * (size_t)g->c : NULL;
    const float *d = forward ? NULL : r->grad_out + out * (size_t)g->c;
    float *dx = forward ? NULL : r->grad_in[0] + in * (size_t)g->c;

    for (int c = 0; c < g->c; c++) {
        if (t == OP_AVG_POOL && forward)
            y[c] = (first ? 0 : y[c]) + x[c] / divisor;
        else if (t == OP_AVG_POOL)
            dx[c] += d[c] / divisor;
        else if (t == OP_LP_POOL && forward)
            y[c] = (first ? 0 : y[c]) + (one ? fabsf(x[c]) : x[c] * x[c]);
        else if (t == OP_LP_POOL && one)
            dx[c] += d[c] * (float)((x[c] > 0) - (x[c] < 0));
        else if (t == OP_LP_POOL)
            dx[c] += y[c] > 0 ? d[c] * x[c] / y[c] : 0;
        else if (!forward)
            dx[c] += s[c] == at ? d[c] : 0;
        else if (first || x[c] > y[c]) {
            y[c] = x[c];
            s[c] = at;
        }
    }
}

static void pool(struct op_run *r, bool forward)
{
    struct grid g = grid_of(&r->shape_in[0]), o = grid_of(&r->shape_out);

    if (!forward && !r->grad_in[0])
        return;
    for (size_t i = 0; i < o.rows; i++) {
        int x = (int)(i % (size_t)o.w), y = (int)(i / (size_t)o.w) % o.h;
        size_t n = i / ((size_t)o.w * (size_t)o.h);
        struct window v = window_at(&r->op->u.pool, &g, y, x);
        bool first = true;

        for (int iy = v.y0; iy < v.y1; iy++)
            for (int ix = v.x0; ix < v.x1; ix++, first = false)
                pool_place(r, &g, i,
                           (n * (size_t)g.h + (size_t)iy) * (size_t)g.w +
                               (size_t)ix,
                           v.divisor, forward, first);
        for (int c = 0; forward && r->op->type == OP_LP_POOL &&
                        r->op->u.pool.p == 2 && c < g.c;
             c++)
            r->out[i * (size_t)g.c + (size_t)c] =
                sqrtf(r->out[i * (size_t)g.c + (size_t)c]);
    }
}

/* ---- the table --------------------------------------------------------------
 */

static void run(struct op_run *r, bool forward)
{
    switch (r->op->type) {
    case OP_BATCH_NORM:
        (forward ? norm_forward : norm_backward)(r);
        break;
    case OP_AFFINE:
    case OP_PRELU:
        by_channel(r, forward);
        break;
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
        (forward ? single_forward : single_backward)(r);
        break;
    case OP_MAX:
        maximum(r, forward);
        break;
    case OP_CONCAT:
        concat(r, forward);
        break;
    case OP_SLICE:
        slice(r, forward);
        break;
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        pool(r, forward);
        break;
    case OP_LRN:
        lrn(r, forward);
        break;
    case OP_SOFTMAX:
        softmax(r, forward);
        break;
    case OP_LP_NORM:
        lp_norm(r, forward);
        break;
    case OP_RESHAPE:
        reshape(r, forward);
        break;
    case OP_DROPOUT:
    case OP_IDENTITY:
        dropout(r, forward);
        break;
    default:
        if (is_arithmetic(r->op->type))
            arithmetic(r, forward);
        break;
    }
}

void op_run_forward(struct op_run *r)
{
    run(r, true);
}

void op_run_backward(struct op_run *r)
{
    for (int k = 0; k < r->n_in; k++)
        if (r->fresh[k] && r->grad_in[k])
            memset(r->grad_in[k], 0, shape_count(&r->shape_in[k]) * sizeof(float));
    run(r, false);
}

bool op_run_fuses(const struct op_run *r)
{
    (void)r;
    return false;
}
