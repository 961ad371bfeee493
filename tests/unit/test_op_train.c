/* tests/unit/test_op_train.c - every operator that learns: forward against the
 * plain kernel of inference where there is one, backward against central
 * differences of forward, what is fused against the two nodes that it stands
 * for, any number of threads against one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/op_train.h"

enum {
    MAX = 4096
};

static float value[OP_MAX_IN][MAX], grad[OP_MAX_IN][MAX], out[MAX], dout[MAX];
static float state_of[MAX], running[2][64];
static uint64_t dice;

struct row {
    const char *name;
    struct op op;
    int n_in;
    struct shape in[6];
    unsigned how;
    unsigned skip; /* inputs without a gradient */
};

enum {
    FREEZE = 1, /* batch norm by its running statistics */
    RELU = 2,   /* fused */
    SCALED = 4  /* input 0 of an addition, by this: */
};
static const float scale_of = 0.17f;

#define S4(c, h, w)                                                            \
    {                                                                          \
        4,                                                                     \
        {                                                                      \
            3, c, h, w                                                         \
        }                                                                      \
    }
#define S2(c)                                                                  \
    {                                                                          \
        2,                                                                     \
        {                                                                      \
            3, c                                                               \
        }                                                                      \
    }
#define S1(c)                                                                  \
    {                                                                          \
        1,                                                                     \
        {                                                                      \
            c                                                                  \
        }                                                                      \
    }
#define POOL(t, kh, kw, step, edge, ceil, count, power)                        \
    {                                                                          \
        .type = t, .u.pool = {                                                 \
            .kernel = {kh, kw},                                                \
            .stride = {step, step},                                            \
            .pad = {edge, edge, edge, edge},                                   \
            .ceil_mode = ceil,                                                 \
            .count_pad = count,                                                \
            .p = power                                                         \
        }                                                                      \
    }
#define NORM                                                                   \
    {                                                                          \
        .type = OP_BATCH_NORM, .u.norm = {.epsilon = 0.01f, .momentum = 0.9f } \
    }

static const struct row rows[] = {
    {"batch norm", NORM, 5, {S4(5, 4, 3), S1(5), S1(5), S1(5), S1(5)}, 0, 24},
    {"frozen norm",
     NORM,
     5,
     {S4(5, 4, 3), S1(5), S1(5), S1(5), S1(5)},
     FREEZE,
     24},
    {"dense norm", NORM, 5, {S2(17), S1(17), S1(17), S1(17), S1(17)}, 0, 24},
    {"norm, relu",
     NORM,
     5,
     {S4(5, 4, 3), S1(5), S1(5), S1(5), S1(5)},
     RELU,
     24},
    {"frozen norm, relu",
     NORM,
     5,
     {S2(7), S1(7), S1(7), S1(7), S1(7)},
     FREEZE | RELU,
     24},
    {"norm, prelu",
     NORM,
     6,
     {S4(5, 4, 3), S1(5), S1(5), S1(5), S1(5), S1(5)},
     0,
     24},
    {"frozen norm, prelu",
     NORM,
     6,
     {S2(7), S1(7), S1(7), S1(7), S1(7), S1(7)},
     FREEZE,
     24},
    {"affine", {.type = OP_AFFINE}, 3, {S4(3, 2, 2), S1(3), S1(3)}, 0, 0},
    {"relu", {.type = OP_RELU}, 1, {S4(3, 5, 5)}, 0, 0},
    {"prelu", {.type = OP_PRELU}, 2, {S4(3, 5, 5), S1(3)}, 0, 0},
    {"prelu, one slope", {.type = OP_PRELU}, 2, {S2(9), S1(1)}, 0, 0},
    {"clip",
     {.type = OP_CLIP, .u.clip = {-0.4f, 0.6f}},
     1,
     {S4(3, 5, 5)},
     0,
     0},
    {"sigmoid", {.type = OP_SIGMOID}, 1, {S4(1, 5, 5)}, 0, 0},
    {"add", {.type = OP_ADD}, 2, {S4(3, 2, 2), S4(3, 2, 2)}, 0, 0},
    {"add, relu", {.type = OP_ADD}, 2, {S4(3, 2, 2), S4(3, 2, 2)}, RELU, 0},
    {"add, scaled", {.type = OP_ADD}, 2, {S4(3, 2, 2), S4(3, 2, 2)}, SCALED, 0},
    {"add, scaled, relu",
     {.type = OP_ADD},
     2,
     {S2(12), S2(12)},
     RELU | SCALED,
     0},
    {"sub", {.type = OP_SUB}, 2, {S4(3, 2, 2), S4(3, 2, 2)}, 0, 0},
    {"mul", {.type = OP_MUL}, 2, {S4(3, 2, 2), S4(3, 2, 2)}, 0, 0},
    {"mul by a scalar", {.type = OP_MUL}, 2, {S4(3, 2, 2), S1(1)}, 0, 0},
    {"div", {.type = OP_DIV}, 2, {S2(6), S2(6)}, 0, 0},
    {"max", {.type = OP_MAX}, 3, {S2(8), S2(8), S2(8)}, 0, 0},
    {"concat",
     {.type = OP_CONCAT, .u.axis = {.axis = 1}},
     3,
     {S4(3, 2, 3), S4(1, 2, 3), S4(17, 2, 3)},
     0,
     0},
    {"slice",
     {.type = OP_SLICE, .u.axis = {.axis = 1, .start = 2, .length = 3}},
     1,
     {S4(7, 2, 3)},
     0,
     0},
    {"max pool",
     POOL(OP_MAX_POOL, 3, 3, 2, 1, 0, 0, 0),
     1,
     {S4(3, 7, 6)},
     0,
     0},
    {"max pool, ceil",
     POOL(OP_MAX_POOL, 3, 2, 2, 0, 1, 0, 0),
     1,
     {S4(3, 6, 7)},
     0,
     0},
    {"average pool",
     POOL(OP_AVG_POOL, 3, 3, 2, 1, 0, 0, 0),
     1,
     {S4(3, 7, 6)},
     0,
     0},
    {"average pool, padding counts",
     POOL(OP_AVG_POOL, 3, 3, 2, 1, 1, 1, 0),
     1,
     {S4(3, 6, 6)},
     0,
     0},
    {"global average",
     {.type = OP_AVG_POOL, .u.pool = {.global = true, .stride = {1, 1}}},
     1,
     {S4(5, 4, 3)},
     0,
     0},
    {"L2 pool", POOL(OP_LP_POOL, 3, 3, 2, 1, 0, 0, 2), 1, {S4(3, 7, 6)}, 0, 0},
    {"L1 pool", POOL(OP_LP_POOL, 2, 2, 2, 0, 0, 0, 1), 1, {S4(3, 6, 6)}, 0, 0},
    {"lrn",
     {.type = OP_LRN, .u.lrn = {5, 0.5f, 0.75f, 1.0f}},
     1,
     {S4(9, 2, 2)},
     0,
     0},
    {"softmax",
     {.type = OP_SOFTMAX, .u.axis = {.axis = 1}},
     1,
     {S4(4, 2, 2)},
     0,
     0},
    {"L2 norm",
     {.type = OP_LP_NORM, .u.axis = {.axis = 1, .p = 2}},
     1,
     {S2(8)},
     0,
     0},
    {"L1 norm",
     {.type = OP_LP_NORM, .u.axis = {.axis = 1, .p = 1}},
     1,
     {S4(8, 1, 2)},
     0,
     0},
    {"flatten",
     {.type = OP_RESHAPE, .u.reshape.to = {2, {0, -1}}},
     1,
     {S4(3, 2, 4)},
     0,
     0},
    {"dropout",
     {.type = OP_DROPOUT, .u.dropout.ratio = 0.4f},
     1,
     {S2(50)},
     0,
     0},
    {"identity", {.type = OP_IDENTITY}, 1, {S2(5)}, 0, 0},
};

enum {
    N_ROWS = sizeof(rows) / sizeof(rows[0])
};

/* Values that keep apart, so that no step of a difference crosses a kink:
 * multiples of 0.07, shuffled, none near 0. */
static void fill(const struct row *w)
{
    for (int k = 0; k < w->n_in; k++) {
        size_t n = shape_count(&w->in[k]);

        for (size_t i = 0; i < n; i++) {
            size_t j = (i * 37 + (size_t)k * 11) % 61;

            value[k][i] = 0.035f + 0.07f * ((float)j - 30) + 0.001f * (float)k;
            if (w->op.type == OP_BATCH_NORM && k == 4)
                value[k][i] = 0.5f + 0.1f * (float)(j % 7);
            if (w->op.type == OP_DIV && k == 1)
                value[k][i] = 1 + 0.05f * (float)j;
        }
    }
}

/* A batch norm with the slopes of a PReLU. */
static bool slopes_too(const struct op *op, int n_in)
{
    return op->type == OP_BATCH_NORM && n_in == 6;
}

static struct op_run prepare(const struct row *w)
{
    struct op_run r = {.op = &w->op,
                       .n_in = w->n_in,
                       .out = out,
                       .state = state_of,
                       .freeze_norm = w->how & FREEZE,
                       .relu = w->how & RELU,
                       .random = &dice};
    struct error err;

    for (int k = 0; k < w->n_in; k++) {
        r.shape_in[k] = w->in[k];
        r.in[k] = value[k];
        assert_true(shape_count(&w->in[k]) <= MAX);
    }
    if (op_shape(&w->op, r.shape_in, slopes_too(&w->op, w->n_in) ? 5 : w->n_in,
                 &r.shape_out, &err))
        fail_msg("%s: %s", w->name, err.text);
    r.scale[0] = w->how & SCALED ? &scale_of : NULL;
    assert_true(op_run_known(&r));
    assert_true(op_run_fuses(&r) || !r.relu);
    assert_true(op_run_state(&r) <= MAX);
    return r;
}

/* The weighted sum of the outputs, whose gradient is dout. */
static double loss(const struct row *w)
{
    struct op_run r = prepare(w);
    double sum = 0;

    dice = 7;
    op_run_forward(&r);
    for (size_t i = 0; i < shape_count(&r.shape_out); i++)
        sum += (double)dout[i] * out[i];
    return sum;
}

static void gradients(void **state)
{
    const float h = 4e-3f;

    (void)state;
    for (int i = 0; i < MAX; i++)
        dout[i] = 0.1f * (float)(i * 29 % 23 - 11);
    for (int row = 0; row < N_ROWS; row++) {
        const struct row *w = &rows[row];
        struct op_run r = prepare(w);

        fill(w);
        memset(grad, 0, sizeof(grad));
        loss(w);
        r.grad_out = dout;
        for (int k = 0; k < w->n_in; k++)
            r.grad_in[k] = w->skip >> k & 1 ? NULL : grad[k];
        grad[0][0] = 1; /* it is added to */
        op_run_backward(&r);
        grad[0][0] -= 1;
        for (int k = 0; k < w->n_in; k++)
            for (size_t i = 0; i < shape_count(&w->in[k]); i++) {
                float was = value[k][i];
                double up, down, want;

                if (w->skip >> k & 1)
                    continue;
                value[k][i] = was + h;
                up = loss(w);
                value[k][i] = was - h;
                down = loss(w);
                value[k][i] = was;
                want = (up - down) / (2 * (double)h);
                if (!(fabs(want - (double)grad[k][i]) <
                      4e-3 * (1 + fabs(want))))
                    fail_msg("%s: input %d number %zu: %g, not %g", w->name, k,
                             i, (double)grad[k][i], want);
            }
    }
}

/* May its gradient take the place of the one it comes from? (op_train.h) */
static bool in_place(enum op_type t)
{
    return t != OP_MAX_POOL && t != OP_AVG_POOL && t != OP_LP_POOL &&
           t != OP_CONCAT && t != OP_SLICE && t != OP_RESHAPE && t != OP_MAX &&
           t != OP_LRN;
}

/* Written over what was there, be it NaN or the gradient of the output: what
 * is added to zeros. */
static void fresh_gradients(void **state)
{
    static float again[OP_MAX_IN][MAX];

    (void)state;
    for (int row = 0; row < N_ROWS; row++) {
        const struct row *w = &rows[row];
        struct op_run r = prepare(w);

        fill(w);
        loss(w);
        memset(grad, 0, sizeof(grad));
        memset(again, 0xff, sizeof(again));
        r.grad_out = dout;
        for (int k = 0; k < w->n_in; k++)
            r.grad_in[k] = w->skip >> k & 1 ? NULL : grad[k];
        op_run_backward(&r);
        for (int k = 0; k < w->n_in; k++) {
            r.grad_in[k] = w->skip >> k & 1 ? NULL : again[k];
            r.fresh[k] = true;
        }
        if (in_place(w->op.type)) {
            memcpy(again[0], dout, sizeof(dout));
            r.grad_out = again[0];
        }
        op_run_backward(&r);
        for (int k = 0; k < w->n_in; k++)
            for (size_t i = 0; r.grad_in[k] && i < shape_count(&w->in[k]); i++)
                if (!(again[k][i] == grad[k][i]))
                    fail_msg("%s: input %d number %zu: %g, not %g", w->name, k,
                             i, (double)again[k][i], (double)grad[k][i]);
    }
}

/* ---- at sizes that are cut into parts ----------------------------------- */

enum {
    BIG = 3 * 31 * 29 * 40 /* more than six chunks, of odd rows */
};
static float big[5][BIG], big_grad[5][BIG], big_out[2][BIG], big_loss[BIG];
static float big_state[2 * BIG], slopes[5][64];

static const struct op big_ops[] = {
    NORM,
    {.type = OP_PRELU},
    {.type = OP_AFFINE},
    {.type = OP_RELU},
    {.type = OP_ADD},
    {.type = OP_MUL},
    {.type = OP_MAX},
    {.type = OP_LRN, .u.lrn = {5, 0.5f, 0.75f, 1.0f}},
    POOL(OP_MAX_POOL, 3, 3, 2, 1, 1, 0, 0),
    POOL(OP_AVG_POOL, 2, 2, 2, 0, 0, 0, 0),
    POOL(OP_LP_POOL, 3, 3, 2, 1, 0, 0, 2),
    {.type = OP_SOFTMAX, .u.axis = {.axis = 1}},
    {.type = OP_LP_NORM, .u.axis = {.axis = 1, .p = 2}},
    {.type = OP_CONCAT, .u.axis = {.axis = 1}},
    {.type = OP_SLICE, .u.axis = {.axis = 1, .start = 3, .length = 8}},
    {.type = OP_RESHAPE, .u.reshape.to = {2, {0, -1}}},
    {.type = OP_DROPOUT, .u.dropout.ratio = 0.4f},
};

static bool of_channels(enum op_type t)
{
    return t == OP_BATCH_NORM || t == OP_PRELU || t == OP_AFFINE;
}

static struct op_run prepare_big(const struct op *op)
{
    struct op_run r = {.op = op,
                       .out = big_out[0],
                       .state = big_state,
                       .grad_out = big_loss,
                       .random = &dice};
    bool two = op->type == OP_ADD || op->type == OP_MUL || op->type == OP_MAX;
    int c = op->type == OP_CONCAT ? 20 : 40;
    struct error err;

    r.n_in = op->type == OP_BATCH_NORM                ? 5
             : op->type == OP_AFFINE                  ? 3
             : two || op->type == OP_PRELU || c == 20 ? 2
                                                      : 1;
    for (int k = 0; k < r.n_in; k++) {
        bool small = k > 0 && of_channels(op->type);

        r.shape_in[k] =
            small ? shape_of(1, c, 0, 0, 0) : shape_of(4, 3, c, 31, 29);
        r.in[k] = small ? slopes[k] : big[k];
        r.grad_in[k] = k < 3 ? big_grad[k] : NULL;
    }
    if (op_shape(op, r.shape_in, r.n_in, &r.shape_out, &err))
        fail_msg("%s: %s", op_info(op->type)->name, err.text);
    assert_true(op_run_known(&r));
    assert_true(op_run_state(&r) <= 2 * (size_t)BIG);
    return r;
}

static void fill_big(void)
{
    uint32_t z = 1;

    for (int i = 0; i < BIG; i++) {
        for (int k = 0; k < 5; k++) {
            z = z * 1664525 + 1013904223;
            big[k][i] = (float)(z >> 8) * 0x1p-23f - 1 + (float)(i % 40) / 8;
        }
        z = z * 1664525 + 1013904223;
        big_loss[i] = (float)(z >> 8) * 0x1p-23f - 1;
    }
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 5; k++)
            slopes[k][i] = 0.5f + 0.01f * (float)(i + k);
}

static void threads_do_not_matter(void **state)
{
    static float first[4][BIG];

    (void)state;
    fill_big();
    for (size_t o = 0; o < sizeof(big_ops) / sizeof(big_ops[0]); o++)
        for (int threads = 1; threads <= 3; threads++) {
            struct op_run r = prepare_big(&big_ops[o]);

            omp_set_num_threads(threads);
            memset(big_grad, 0, sizeof(big_grad));
            memset(big_out, 0, sizeof(big_out));
            dice = 5;
            op_run_forward(&r);
            op_run_backward(&r);
            for (int k = 0; k < 4; k++) {
                const float *got = k < 3 ? big_grad[k] : big_out[0];

                if (threads == 1)
                    memcpy(first[k], got, sizeof(first[k]));
                else if (memcmp(first[k], got, sizeof(first[k])) != 0)
                    fail_msg("%s: %s by %d threads differs",
                             op_info(big_ops[o].type)->name,
                             k < 3 ? "gradient" : "output", threads);
            }
        }
    omp_set_num_threads(1);
}

/* In double, by the textbook. */
static void big_norm_against_plain(void **state)
{
    static const struct op op = NORM;
    struct op_run r = prepare_big(&op);
    const size_t c = 40, n = BIG / c;

    (void)state;
    fill_big();
    memset(big_grad, 0, sizeof(big_grad));
    op_run_forward(&r);
    op_run_backward(&r);
    for (size_t k = 0; k < c; k++) {
        double mean = 0, var = 0, sum = 0, along = 0, inverse;

        for (size_t i = 0; i < n; i++)
            mean += (double)big[0][i * c + k] / (double)n;
        for (size_t i = 0; i < n; i++)
            var += pow((double)big[0][i * c + k] - mean, 2) / (double)n;
        inverse = 1 / sqrt(var + (double)op.u.norm.epsilon);
        for (size_t i = 0; i < n; i++) {
            double d = (double)big_loss[i * c + k];

            sum += d;
            along += d * ((double)big[0][i * c + k] - mean) * inverse;
        }
        assert_float_equal(big_grad[1][k], along, 2e-5 * sqrt((double)n));
        assert_float_equal(big_grad[2][k], sum, 2e-5 * sqrt((double)n));
        for (size_t i = 0; i < n; i++) {
            size_t at = i * c + k;
            double x = ((double)big[0][at] - mean) * inverse;
            double y = x * (double)slopes[1][k] + (double)slopes[2][k];
            double g = (double)slopes[1][k] * inverse *
                       ((double)big_loss[at] - (sum + x * along) / (double)n);

            assert_float_equal(big_out[0][at], y, 1e-5);
            assert_float_equal(big_grad[0][at], g, 1e-5);
        }
    }
}

/* A fused ReLU or PReLU against a node of its own: the same numbers. */
static void fused_is_two_nodes(void **state)
{
    static const struct op kinds[] = {NORM, {.type = OP_ADD}, NORM};
    static const struct op next[] = {
        {.type = OP_RELU}, {.type = OP_RELU}, {.type = OP_PRELU}};
    static float apart[3][BIG], passed[BIG], slope[2][64];

    (void)state;
    fill_big();
    for (int i = 0; i < 3; i++) {
        struct op_run r = prepare_big(&kinds[i]), after = prepare_big(&next[i]);

        memset(big_grad, 0, sizeof(big_grad));
        after.in[0] = r.out;
        after.out = big_out[1];
        after.state = big_state + BIG;
        after.grad_in[0] = passed;
        after.grad_in[1] = slope[0];
        after.fresh[0] = after.fresh[1] = true;
        op_run_forward(&r);
        op_run_forward(&after);
        op_run_backward(&after);
        r.grad_out = passed;
        op_run_backward(&r);
        memcpy(apart, big_grad, sizeof(apart));
        memset(big_grad, 0, sizeof(big_grad));
        assert_true(op_run_fuses(&r));
        r.relu = i < 2;
        if (i == 2) {
            r.in[r.n_in] = slopes[1];
            r.grad_in[r.n_in] = slope[1];
            r.fresh[r.n_in++] = true;
        }
        r.grad_out = big_loss;
        op_run_forward(&r);
        op_run_backward(&r);
        assert_memory_equal(big_out[0], big_out[1], sizeof(big_out[0]));
        for (int k = 0; k < 3; k++)
            for (int at = 0; at < BIG; at++)
                assert_true(apart[k][at] == big_grad[k][at]);
        for (int k = 0; i == 2 && k < 40; k++)
            assert_float_equal(slope[0][k], slope[1][k], 1e-6);
    }
}

/* Between [n,h,w,c] and [n,c,h,w]. */
static void to_plain(const struct shape *s, const float *x, float *y)
{
    size_t c = s->rank > 1 ? (size_t)s->d[1] : 1, n = shape_count(s);
    size_t hw = s->rank == 4 ? (size_t)s->d[2] * (size_t)s->d[3] : 1;

    for (size_t i = 0; i < n; i++) {
        size_t pixel = i / c;

        y[s->rank == 4 ? (pixel / hw * c + i % c) * hw + pixel % hw : i] = x[i];
    }
}

static void forwards_are_inferences(void **state)
{
    static float plain[OP_MAX_IN][MAX], want[MAX], got[MAX];
    int compared = 0;

    (void)state;
    for (int row = 0; row < N_ROWS; row++) {
        const struct row *w = &rows[row];
        struct op_run r = prepare(w);
        op_forward_fn fn = op_plain_forward(w->op.type);
        const float *in[OP_MAX_IN];

        if (!fn || w->op.type == OP_DROPOUT || w->op.type == OP_BATCH_NORM ||
            w->how)
            continue;
        fill(w);
        for (int k = 0; k < w->n_in; k++) {
            to_plain(&w->in[k], value[k], plain[k]);
            in[k] = plain[k];
        }
        fn(&w->op, in, r.shape_in, w->n_in, want, &r.shape_out);
        op_run_forward(&r);
        to_plain(&r.shape_out, out, got);
        for (size_t i = 0; i < shape_count(&r.shape_out); i++)
            if (!(fabsf(got[i] - want[i]) < 1e-5f * (1 + fabsf(want[i]))))
                fail_msg("%s: number %zu: %g, not %g", w->name, i,
                         (double)got[i], (double)want[i]);
        compared++;
    }
    assert_true(compared >= 8);
}

/* Two numbers a channel, worked by hand. */
static void batch_norm_by_hand(void **state)
{
    const struct op op = NORM;
    struct op_run r = {.op = &op, .n_in = 5, .out = out, .state = state_of};
    const float x[4] = {1, 10, 3, 30}, one[2] = {1, 2}, zero[2] = {0, 5};

    (void)state;
    running[0][0] = 7;
    running[0][1] = 0;
    running[1][0] = 1;
    running[1][1] = 2;
    r.shape_in[0] = shape_of(2, 2, 2, 0, 0);
    r.shape_out = r.shape_in[0];
    r.in[0] = x;
    r.in[1] = one;
    r.in[2] = zero;
    r.in[3] = r.mean = running[0];
    r.in[4] = r.var = running[1];
    op_run_forward(&r);
    assert_float_equal(out[0], -1 / sqrt(1.01), 1e-6); /* mean 2, variance 1 */
    assert_float_equal(out[3], 5 + 20 / sqrt(100.01), 1e-5);
    assert_float_equal(running[0][0], 0.9 * 7 + 0.1 * 2, 1e-6);
    assert_float_equal(running[1][1], 0.9 * 2 + 0.1 * 100, 1e-5);
    r.rest = true;
    op_run_forward(&r);
    assert_float_equal(out[0], (1 - 6.5) / sqrt(1 + 0.01), 1e-4);
    assert_float_equal(running[0][0], 6.5, 1e-6); /* at rest it stays */
}

static void dropout_keeps_the_mean(void **state)
{
    const struct op op = {.type = OP_DROPOUT, .u.dropout.ratio = 0.25f};
    struct op_run r = {
        .op = &op, .n_in = 1, .out = out, .state = state_of, .random = &dice};
    int zeros = 0;

    (void)state;
    r.shape_in[0] = r.shape_out = shape_of(2, 1, MAX, 0, 0);
    r.in[0] = value[0];
    for (int i = 0; i < MAX; i++)
        value[0][i] = 3;
    dice = 1;
    op_run_forward(&r);
    for (int i = 0; i < MAX; i++) {
        assert_true(out[i] == 0 || out[i] == 4);
        zeros += out[i] == 0;
    }
    assert_in_range(zeros, 1024 - 111, 1024 + 111); /* four deviations */
    r.rest = true;
    op_run_forward(&r);
    for (int i = 0; i < MAX; i++)
        assert_true(out[i] == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients),
        cmocka_unit_test(fresh_gradients),
        cmocka_unit_test(forwards_are_inferences),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(big_norm_against_plain),
        cmocka_unit_test(fused_is_two_nodes),
        cmocka_unit_test(batch_norm_by_hand),
        cmocka_unit_test(dropout_keeps_the_mean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
