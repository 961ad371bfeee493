/* tests/op/naive.c - see naive.h. Written for being obviously right: one
 * output number at a time, all sums in double. */
#include "tests/op/naive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct array {
    const struct shape *s;
    double *v;
};

/* Index to coordinates and back. */
static void unravel(const struct shape *s, size_t at, int c[])
{
    for (int i = s->rank - 1; i >= 0; i--) {
        c[i] = (int)(at % (size_t)s->d[i]);
        at /= (size_t)s->d[i];
    }
}

static size_t ravel(const struct shape *s, const int c[])
{
    size_t at = 0;

    for (int i = 0; i < s->rank; i++)
        at = at * (size_t)s->d[i] + (size_t)c[i];
    return at;
}

static double conv_at(const struct op_conv *p, const struct array *in,
                      const int c[])
{
    const struct shape *x = in[0].s, *w = in[1].s;
    int per_group = w->d[0] / p->group, first = c[1] / per_group * w->d[1];
    double sum = 0;

    for (int i = 0; i < w->d[1]; i++)
        for (int a = 0; a < w->d[2]; a++)
            for (int b = 0; b < w->d[3]; b++) {
                int y = c[2] * p->stride[0] - p->pad[0] + a * p->dilation[0];
                int q = c[3] * p->stride[1] - p->pad[1] + b * p->dilation[1];
                int at_x[4] = {c[0], first + i, y, q};
                int at_w[4] = {c[1], i, a, b};

                if (y < 0 || y >= x->d[2] || q < 0 || q >= x->d[3])
                    continue;
                sum += in[0].v[ravel(x, at_x)] * in[1].v[ravel(w, at_w)];
            }
    return sum;
}

static double pool_at(const struct op *op, const struct array *in,
                      const int c[])
{
    const struct op_pool *p = &op->u.pool;
    const struct shape *x = in[0].s;
    int k[2] = {p->global ? x->d[2] : p->kernel[0],
                p->global ? x->d[3] : p->kernel[1]};
    double top = -INFINITY, sum = 0, powers = 0;
    int n = 0, n_padded = 0;

    for (int a = 0; a < k[0]; a++)
        for (int b = 0; b < k[1]; b++) {
            int y = p->global ? a : c[2] * p->stride[0] - p->pad[0] + a;
            int q = p->global ? b : c[3] * p->stride[1] - p->pad[1] + b;
            int at[4] = {c[0], c[1], y, q};
            double v;

            if (y < x->d[2] + p->pad[2] && q < x->d[3] + p->pad[3])
                n_padded++;
            if (y < 0 || y >= x->d[2] || q < 0 || q >= x->d[3])
                continue;
            v = in[0].v[ravel(x, at)];
            n++;
            top = fmax(top, v);
            sum += v;
            powers += pow(fabs(v), p->p);
        }
    if (op->type == OP_MAX_POOL)
        return top;
    if (op->type == OP_LP_POOL)
        return pow(powers, 1.0 / p->p);
    return sum / (p->count_pad ? n_padded : n);
}

static double lrn_at(const struct op_lrn *p, const struct array *in,
                     const int c[])
{
    const struct shape *x = in[0].s;
    double sum = 0;

    /* ONNX: floor((size-1)/2) before, ceil((size-1)/2) after */
    for (int i = c[1] - (p->size - 1) / 2; i <= c[1] + p->size / 2; i++) {
        int at[4] = {c[0], i, c[2], c[3]};

        if (i >= 0 && i < x->d[1])
            sum += pow(in[0].v[ravel(x, at)], 2);
    }
    return in[0].v[ravel(x, c)] /
           pow(p->bias + p->alpha / p->size * sum, p->beta);
}

static double along_axis(const struct op *op, const struct array *in,
                         const int c[])
{
    const struct shape *x = in[0].s;
    double top = -INFINITY, e = 0, norm = 0, own = in[0].v[ravel(x, c)];
    int at[4];

    memcpy(at, c, sizeof(at));
    for (at[op->u.axis.axis] = 0; at[op->u.axis.axis] < x->d[op->u.axis.axis];
         at[op->u.axis.axis]++)
        top = fmax(top, in[0].v[ravel(x, at)]);
    for (at[op->u.axis.axis] = 0; at[op->u.axis.axis] < x->d[op->u.axis.axis];
         at[op->u.axis.axis]++) {
        double v = in[0].v[ravel(x, at)];

        e += exp(v - top);
        norm += pow(fabs(v), op->u.axis.p);
    }
    if (op->type == OP_SOFTMAX)
        return exp(own - top) / e;
    return own / pow(norm, 1.0 / op->u.axis.p);
}

static double gemm_at(const struct array *in, int n_in, const int c[])
{
    double sum = n_in > 2 ? in[2].v[c[1]] : 0;

    for (int k = 0; k < in[0].s->d[1]; k++)
        sum += in[0].v[c[0] * in[0].s->d[1] + k] *
               in[1].v[c[1] * in[0].s->d[1] + k];
    return sum;
}

/* An operand that may be one number, or one for each channel. */
static double operand(const struct array *b, const struct shape *out, size_t at,
                      const int c[])
{
    size_t n = shape_count(b->s);

    if (n == 1)
        return b->v[0];
    if (shape_equal(b->s, out))
        return b->v[at];
    return b->v[c[1]];
}

static double concat_at(const struct op *op, const struct array *in,
                        const int c[])
{
    int axis = op->u.axis.axis, k = 0, at[4];

    memcpy(at, c, sizeof(at));
    while (at[axis] >= in[k].s->d[axis])
        at[axis] -= in[k++].s->d[axis];
    return in[k].v[ravel(in[k].s, at)];
}

static double op_at(const struct op *op, const struct array *in, int n_in,
                    const struct shape *out, size_t i)
{
    int c[4] = {0}, at[4] = {0};
    double x, top;

    unravel(out, i, c);
    switch (op->type) {
    case OP_CONV:
        return conv_at(&op->u.conv, in, c) + (n_in > 2 ? in[2].v[c[1]] : 0);
    case OP_GEMM:
        return gemm_at(in, n_in, c);
    case OP_BATCH_NORM:
        return (in[0].v[i] - in[3].v[c[1]]) /
                   sqrt(in[4].v[c[1]] + op->u.norm.epsilon) * in[1].v[c[1]] +
               in[2].v[c[1]];
    case OP_AFFINE:
        return in[0].v[i] * in[1].v[c[1]] + in[2].v[c[1]];
    case OP_RELU:
        return fmax(in[0].v[i], 0);
    case OP_PRELU:
        x = in[0].v[i];
        return x >= 0 ? x : x * operand(&in[1], out, i, c);
    case OP_CLIP:
        return fmin(fmax(in[0].v[i], op->u.clip.lo), op->u.clip.hi);
    case OP_SIGMOID:
        return 1 / (1 + exp(-in[0].v[i]));
    case OP_ADD:
        return in[0].v[i] + operand(&in[1], out, i, c);
    case OP_SUB:
        return in[0].v[i] - operand(&in[1], out, i, c);
    case OP_MUL:
        return in[0].v[i] * operand(&in[1], out, i, c);
    case OP_DIV:
        return in[0].v[i] / operand(&in[1], out, i, c);
    case OP_MAX:
        top = in[0].v[i];
        for (int k = 1; k < n_in; k++)
            top = fmax(top, in[k].v[i]);
        return top;
    case OP_CONCAT:
        return concat_at(op, in, c);
    case OP_SLICE:
        c[op->u.axis.axis] += op->u.axis.start;
        return in[0].v[ravel(in[0].s, c)];
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return pool_at(op, in, c);
    case OP_LRN:
        return lrn_at(&op->u.lrn, in, c);
    case OP_SOFTMAX:
    case OP_LP_NORM:
        return along_axis(op, in, c);
    case OP_TRANSPOSE:
        for (int k = 0; k < out->rank; k++)
            at[op->u.transpose.perm[k]] = c[k];
        return in[0].v[ravel(in[0].s, at)];
    case OP_RESHAPE:
    case OP_DROPOUT:
    case OP_IDENTITY:
        return in[0].v[i];
    case OP_COUNT:
        break;
    }
    return NAN;
}

static double *widen(const float *v, size_t n)
{
    double *d = malloc(n * sizeof(*d));

    for (size_t i = 0; d && i < n; i++)
        d[i] = v[i];
    return d;
}

double *naive_run(const struct graph *g, const float *x, int n, int h, int w,
                  int which, struct shape *shape)
{
    struct shape *shapes = calloc((size_t)g->n_values, sizeof(*shapes));
    double **v = calloc((size_t)g->n_values, sizeof(*v)), *out = NULL;
    struct array in[OP_MAX_IN];
    struct error err;

    if (!shapes || !v || graph_shapes(g, n, h, w, shapes, &err))
        goto done;
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].kind == VALUE_WEIGHT)
            v[i] = widen(g->values[i].data, shape_count(&shapes[i]));
    v[g->input] = widen(x, shape_count(&shapes[g->input]));
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *nd = &g->nodes[i];
        size_t count = shape_count(&shapes[nd->out]);

        for (int k = 0; k < nd->n_in; k++)
            in[k] = (struct array){&shapes[nd->in[k]], v[nd->in[k]]};
        v[nd->out] = malloc(count * sizeof(double));
        for (size_t q = 0; q < count; q++)
            v[nd->out][q] = op_at(&nd->op, in, nd->n_in, &shapes[nd->out], q);
    }
    *shape = shapes[g->outputs[which]];
    out = malloc(shape_count(shape) * sizeof(*out));
    memcpy(out, v[g->outputs[which]], shape_count(shape) * sizeof(*out));
done:
    for (int i = 0; v && i < g->n_values; i++)
        free(v[i]);
    free(v);
    free(shapes);
    return out;
}
