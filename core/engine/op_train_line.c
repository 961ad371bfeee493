/* core/engine/op_train_line.c - what looks along the channels of one pixel:
 * softmax, L1 and L2 norms, local response normalisation. */
#include "core/engine/op_train_priv.h"

#include <math.h>
#include <string.h>

static void softmax_rows(struct op_run *r, size_t from, size_t end)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;

    for (size_t i = from; i < end; i++) {
        const float *x = r->in[0] + i * n;
        float *y = r->out + i * n, most = -INFINITY;
        double sum = 0;

        for (size_t c = 0; c < n; c++)
            most = x[c] > most ? x[c] : most;
        for (size_t c = 0; c < n; c++)
            sum += (double)(y[c] = expf(x[c] - most));
        for (size_t c = 0; c < n; c++)
            y[c] = (float)((double)y[c] / sum);
    }
}

static void softmax_back_rows(struct op_run *r, size_t from, size_t end)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;

    for (size_t i = from; i < end; i++) {
        const float *y = r->out + i * n, *d = r->grad_out + i * n;
        float *dx = r->grad_in[0] + i * n;
        double sum = 0;

        for (size_t c = 0; c < n; c++)
            sum += (double)d[c] * (double)y[c];
        for (size_t c = 0; c < n; c++)
            dx[c] = (r->fresh[0] ? 0 : dx[c]) + y[c] * (d[c] - (float)sum);
    }
}

/* L1 or L2. */
static double length_of(const float *x, size_t n, bool one)
{
    double sum = 0;

    for (size_t c = 0; c < n; c++)
        sum += one ? fabs((double)x[c]) : (double)x[c] * (double)x[c];
    return one ? sum : sqrt(sum);
}

static void norm_rows(struct op_run *r, size_t from, size_t end)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;

    for (size_t i = from; i < end; i++) {
        const float *x = r->in[0] + i * n;
        float *y = r->out + i * n;
        double length = length_of(x, n, r->op->u.axis.p == 1);

        for (size_t c = 0; c < n; c++)
            y[c] = length > 0 ? (float)((double)x[c] / length) : 0;
    }
}

static void norm_back_rows(struct op_run *r, size_t from, size_t end)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;
    bool one = r->op->u.axis.p == 1;

    for (size_t i = from; i < end; i++) {
        const float *x = r->in[0] + i * n, *d = r->grad_out + i * n;
        float *dx = r->grad_in[0] + i * n;
        double length = length_of(x, n, one), along = 0;

        for (size_t c = 0; c < n; c++)
            along += (double)d[c] * (double)x[c];
        for (size_t c = 0; c < n; c++) {
            double slope =
                one ? (x[c] > 0) - (x[c] < 0) : (double)x[c] / length;
            double g = (double)d[c] / length - along * slope / length / length;

            dx[c] = (r->fresh[0] ? 0 : dx[c]) + (length > 0 ? (float)g : 0);
        }
    }
}

/* ---- local response normalisation --------------------------------------- */

/* y = x s^-beta, s = bias + alpha / size * sum of x^2 over size channels. */

/* The published networks have beta 0.75, which needs no powf. */
OP_WIDE static void lrn_power(const float *s, float *p, size_t n, float beta)
{
    if (beta == 0.75f)
        for (size_t k = 0; k < n; k++) {
            float root = sqrtf(s[k]);

            p[k] = 1 / (root * sqrtf(root));
        }
    else
        for (size_t k = 0; k < n; k++)
            p[k] = powf(s[k], -beta);
}

/* to[c] = the sum of x[k] y[k] over the channels c - before .. c + after. */
OP_WIDE static void window_sums(const float *x, const float *y, float *to,
                                size_t n, size_t before, size_t after)
{
    memset(to, 0, n * sizeof(*to));
    for (size_t k = 0; k <= before && k < n; k++)
#pragma GCC ivdep
        for (size_t c = k; c < n; c++)
            to[c] += x[c - k] * y[c - k];
    for (size_t k = 1; k <= after && k < n; k++)
#pragma GCC ivdep
        for (size_t c = 0; c < n - k; c++)
            to[c] += x[c + k] * y[c + k];
}

OP_WIDE static void lrn_scale(float *s, size_t n, float bias, float share)
{
#pragma GCC ivdep
    for (size_t c = 0; c < n; c++)
        s[c] = bias + share * s[c];
}

OP_WIDE static void product(const float *x, float *y, size_t n)
{
#pragma GCC ivdep
    for (size_t c = 0; c < n; c++)
        y[c] *= x[c];
}

static void lrn_rows(struct op_run *r, size_t from, size_t end)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;
    const struct op_lrn *o = &r->op->u.lrn;
    int before = (o->size - 1) / 2, after = o->size - 1 - before;

    for (size_t i = from; i < end; i++) {
        const float *x = r->in[0] + i * n;
        float *s = r->state + i * n, *y = r->out + i * n;

        window_sums(x, x, s, n, (size_t)before, (size_t)after);
        lrn_scale(s, n, o->bias, o->alpha / (float)o->size);
        lrn_power(s, y, n, o->beta);
        product(x, y, n);
    }
}

/* t = d x p / s, where p = s^-beta; dx (+)= d p */
OP_BODY void lrn_own_body(const float *x, const float *d, const float *s,
                          const float *p, float *t, float *dx, size_t n,
                          bool fresh)
{
#pragma GCC ivdep
    for (size_t c = 0; c < n; c++) {
        float own = d[c] * p[c];

        t[c] = own * x[c] / s[c];
        dx[c] = fresh ? own : dx[c] + own;
    }
}

OP_WIDE static void lrn_own(const float *x, const float *d, const float *s,
                            const float *p, float *t, float *dx, size_t n,
                            bool fresh)
{
    if (fresh)
        lrn_own_body(x, d, s, p, t, dx, n, true);
    else
        lrn_own_body(x, d, s, p, t, dx, n, false);
}

OP_WIDE static void lrn_pull(float *dx, const float *x, const float *sum,
                             float factor, size_t n)
{
#pragma GCC ivdep
    for (size_t c = 0; c < n; c++)
        dx[c] += factor * x[c] * sum[c];
}

/* dx_k = d_k p_k - 2 beta share x_k sum of t over the windows that hold k. */
static void lrn_back_part(struct op_run *r, size_t from, size_t end,
                          float *scratch)
{
    size_t n = (size_t)op_grid(&r->shape_in[0]).c;
    const struct op_lrn *o = &r->op->u.lrn;
    int before = (o->size - 1) / 2, after = o->size - 1 - before;
    float factor = -2 * o->beta * o->alpha / (float)o->size;
    float *p = scratch, *t = p + n, *sum = t + n, *ones = sum + n;

    for (size_t c = 0; c < n; c++)
        ones[c] = 1;
    for (size_t i = from; i < end; i++) {
        const float *x = r->in[0] + i * n, *s = r->state + i * n;
        float *dx = r->grad_in[0] + i * n;

        lrn_power(s, p, n, o->beta);
        lrn_own(x, r->grad_out + i * n, s, p, t, dx, n, r->fresh[0]);
        window_sums(t, ones, sum, n, (size_t)after, (size_t)before);
        lrn_pull(dx, x, sum, factor, n);
    }
}

enum {
    LRN_ROWS = 4 /* [c] each: a part's scratch memory */
};

size_t op_train_line_state(const struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]);

    if (r->op->type != OP_LRN)
        return 0;
    return (g.rows + OP_PARTS * LRN_ROWS) * (size_t)g.c;
}

static void lrn_back(struct op_run *r)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    size_t c = (size_t)g.c;
    int parts = op_parts(g.rows * c);
    float *scratch = r->state + g.rows * c;

#pragma omp parallel for schedule(static) if (parts > 1)
    for (int p = 0; p < parts; p++)
        lrn_back_part(r, op_part(g.rows, p, parts),
                      op_part(g.rows, p + 1, parts),
                      scratch + (size_t)p * LRN_ROWS * c);
}

void op_train_line(struct op_run *r, bool forward)
{
    struct op_grid g = op_grid(&r->shape_in[0]);
    enum op_type t = r->op->type;

    if (!forward && !r->grad_in[0])
        return;
    if (!forward && t == OP_LRN)
        lrn_back(r);
    else if (forward)
        op_chunks(r, g.rows, (size_t)g.c,
                  t == OP_LRN       ? lrn_rows
                  : t == OP_SOFTMAX ? softmax_rows
                                    : norm_rows);
    else
        op_chunks(r, g.rows, (size_t)g.c,
                  t == OP_SOFTMAX ? softmax_back_rows : norm_back_rows);
}
