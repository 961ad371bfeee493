/* core/arch/build.c - see build.h. Weights of convolutions and dense layers
 * follow He et al. 2015 (arXiv 1502.01852, eq. 10): variance 2 / fan-in, from
 * a bounded bell curve; norms begin as the identity; PReLU slopes at 0.25. */
#include "core/arch/build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NOMINAL_SIDE = 12
};

int build_init(struct build *b, uint64_t seed, struct error *err)
{
    *b = (struct build){.err = err, .seed = seed};
    b->shapes = calloc(GRAPH_MAX_VALUES, sizeof(*b->shapes));
    if (!b->shapes)
        return error_set(err, ERR_NOMEM, "no memory for a network");
    b->g = graph_new(err);
    b->bad = !b->g;
    return b->bad ? -1 : 0;
}

struct graph *build_take(struct build *b)
{
    struct graph *g = b->bad ? NULL : b->g;

    if (b->bad)
        graph_free(b->g);
    free(b->shapes);
    b->g = NULL;
    b->shapes = NULL;
    return g;
}

static int fail(struct build *b)
{
    b->bad = true;
    return -1;
}

int build_channels(const struct build *b, int x)
{
    return b->bad || x < 0 ? 1 : b->shapes[x].d[1];
}

int build_input(struct build *b, const char *name, int c, int h, int w)
{
    int x = b->bad ? -1 : graph_add_input(b->g, name, c, h, w, b->err);

    if (x < 0)
        return fail(b);
    b->shapes[x] =
        shape_of(4, 1, c, h ? h : NOMINAL_SIDE, w ? w : NOMINAL_SIDE);
    return x;
}

void build_output(struct build *b, int x)
{
    if (!b->bad && graph_add_output(b->g, x, b->err) < 0)
        b->bad = true;
}

/* --- weights ------------------------------------------------------------- */

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The sum of four uniform numbers: nearly normal, never beyond 3.5 standard
 * deviations, and the same on every machine. */
static void draw(const struct build *b, const char *name, float *out, size_t n,
                 float deviation)
{
    /* one 16-bit uniform number has the variance (2^32 - 1) / 12 */
    const float unit = 1.0f / sqrtf(4.0f * 4294967295.0f / 12.0f);
    uint64_t state = b->seed ^ 0xcbf29ce484222325u;

    for (const char *s = name; *s; s++)
        state = (state ^ (unsigned char)*s) * 0x100000001b3u;
    for (size_t i = 0; i < n; i++) {
        uint64_t z = splitmix(&state);
        int32_t sum = (int32_t)(z & 0xffff) + (int32_t)(z >> 16 & 0xffff) +
                      (int32_t)(z >> 32 & 0xffff) + (int32_t)(z >> 48);
        out[i] = ((float)sum - 131070.0f) * unit * deviation;
    }
}

/* Filled with `value`, or drawn where fan_in is given. */
static int weight(struct build *b, const char *name, const char *part,
                  const struct shape *shape, float value, size_t fan_in)
{
    char full[GRAPH_MAX_NAME];
    float *data;
    int w;

    if (b->bad)
        return -1;
    snprintf(full, sizeof(full), "%s.%s", name, part);
    data = shape_valid(shape) ? tensor_alloc(shape_count(shape)) : NULL;
    if (!data) {
        error_set(b->err, ERR_NOMEM, "no memory for \"%.100s\"", full);
        return fail(b);
    }
    for (size_t i = 0; i < shape_count(shape) && !fan_in; i++)
        data[i] = value;
    if (fan_in)
        draw(b, full, data, shape_count(shape), sqrtf(2.0f / (float)fan_in));
    w = graph_add_weight(b->g, full, shape, data, b->err);
    if (w < 0)
        return fail(b);
    b->shapes[w] = *shape;
    return w;
}

/* --- nodes -----------------------------------------------------------------
 */

static int node(struct build *b, const char *name, const struct op *op,
                const int in[], int n_in)
{
    struct shape shapes[GRAPH_MAX_INPUTS], out;
    int x;

    if (b->bad)
        return -1;
    for (int i = 0; i < n_in; i++)
        shapes[i] = b->shapes[in[i]];
    if (op_shape(op, shapes, n_in, &out, b->err)) {
        error_context(b->err, "layer %.80s", name);
        return fail(b);
    }
    x = graph_add_node(b->g, name, op, in, n_in, name, b->err);
    if (x < 0)
        return fail(b);
    b->shapes[x] = out;
    return x;
}

int build_conv(struct build *b, int x, const char *name, const struct conv *c)
{
    int kh = c->k ? c->k : 1, kw = c->kw ? c->kw : kh;
    int stride = c->stride ? c->stride : 1, group = c->group ? c->group : 1;
    int ph = c->valid ? 0 : kh / 2, pw = c->valid ? 0 : kw / 2;
    int per_group = build_channels(b, x) / group, in[3] = {x, -1, -1};
    struct shape w = shape_of(4, c->out, per_group, kh, kw);
    struct shape bias = shape_of(1, c->out, 0, 0, 0);
    struct op op = {.type = OP_CONV,
                    .u.conv = {.kernel = {kh, kw},
                               .stride = {stride, stride},
                               .dilation = {1, 1},
                               .pad = {ph, pw, ph, pw},
                               .group = group}};

    in[1] = weight(b, name, "weight", &w, 0.0f,
                   (size_t)per_group * (size_t)kh * (size_t)kw);
    if (c->bias)
        in[2] = weight(b, name, "bias", &bias, 0.0f, 0);
    return node(b, name, &op, in, c->bias ? 3 : 2);
}

int build_dense(struct build *b, int x, const char *name, int out, bool bias)
{
    int n_in = build_channels(b, x), in[3] = {x, -1, -1};
    struct shape w = shape_of(2, out, n_in, 0, 0);
    struct shape row = shape_of(1, out, 0, 0, 0);
    struct op op = {.type = OP_GEMM};

    in[1] = weight(b, name, "weight", &w, 0.0f, (size_t)n_in);
    if (bias)
        in[2] = weight(b, name, "bias", &row, 0.0f, 0);
    return node(b, name, &op, in, bias ? 3 : 2);
}

int build_batch_norm(struct build *b, int x, const char *name, float epsilon)
{
    static const char *const parts[4] = {"weight", "bias", "running_mean",
                                         "running_var"};
    struct shape c = shape_of(1, build_channels(b, x), 0, 0, 0);
    struct op op = {.type = OP_BATCH_NORM,
                    .u.norm = {.epsilon = epsilon, .momentum = 0.995f}};
    int in[5] = {x};

    for (int i = 0; i < 4; i++)
        in[i + 1] = weight(b, name, parts[i], &c, i % 3 ? 0.0f : 1.0f, 0);
    return node(b, name, &op, in, 5);
}

int build_prelu(struct build *b, int x, const char *name)
{
    struct shape c = shape_of(1, build_channels(b, x), 0, 0, 0);
    int in[2] = {x, weight(b, name, "weight", &c, 0.25f, 0)};

    return node(b, name, &(struct op){.type = OP_PRELU}, in, 2);
}

int build_pool(struct build *b, int x, const char *name, const struct pool *p)
{
    int pad = p->valid ? 0 : p->k / 2, stride = p->stride ? p->stride : 1;
    struct op op = {.type = p->type,
                    .u.pool = {.kernel = {p->k, p->k},
                               .stride = {stride, stride},
                               .pad = {pad, pad, pad, pad},
                               .ceil_mode = p->ceil_mode,
                               .p = p->type == OP_LP_POOL ? 2 : 0}};

    return node(b, name, &op, &x, 1);
}

int build_average(struct build *b, int x, const char *name)
{
    struct op op = {.type = OP_AVG_POOL,
                    .u.pool = {.global = true, .stride = {1, 1}}};

    return node(b, name, &op, &x, 1);
}

int build_flatten(struct build *b, int x, const char *name)
{
    struct op op = {.type = OP_RESHAPE,
                    .u.reshape.to = {.rank = 2, .d = {0, -1}}};

    return node(b, name, &op, &x, 1);
}

int build_concat(struct build *b, const char *name, const int in[], int n)
{
    return node(b, name, &(struct op){.type = OP_CONCAT, .u.axis.axis = 1}, in,
                n);
}

int build_max(struct build *b, const char *name, const int in[], int n)
{
    return node(b, name, &(struct op){.type = OP_MAX}, in, n);
}

int build_add(struct build *b, int x, int y, const char *name)
{
    return node(b, name, &(struct op){.type = OP_ADD}, (int[]){x, y}, 2);
}

int build_scale(struct build *b, int x, const char *name, float scale)
{
    struct shape one = shape_of(1, 1, 0, 0, 0);
    int in[2] = {x, weight(b, name, "factor", &one, scale, 0)};

    return node(b, name, &(struct op){.type = OP_MUL}, in, 2);
}

int build_op(struct build *b, int x, const char *name, const struct op *op)
{
    return node(b, name, op, &x, 1);
}

int build_relu(struct build *b, int x, const char *name)
{
    return build_op(b, x, name, &(struct op){.type = OP_RELU});
}
