/* tests/gpu/test_learn_op.c - gpu/learn_op.h against core/engine/op_train.h:
 * every operator forward and backward on the same numbers, in all types of
 * arrays. Linked twice: with the emulated card, and with a card's own kernels
 * (test_learn_op_card; skipped without a card). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/engine/op_train.h"
#include "gpu/arith.h"
#include "gpu/learn_op.h"

enum {
    MAX_IN = 6,
    GUARD = 64, /* bytes after a state that nobody may touch */
    SKIPPED_DRAWS = 12345
};
static const uint64_t golden = 0x9e3779b97f4a7c15u;

static struct card *card;
static struct stream *stream;
static uint32_t seed;

struct row {
    const char *name;
    struct op op;
    int n_in;
    struct shape in[MAX_IN]; /* of rank 1: vectors */
    unsigned how;
};

enum {
    FREEZE = 1, /* batch norm by its running statistics */
    REST = 2,
    RELU = 4,       /* fused */
    SCALED = 8,     /* both inputs of an addition */
    TWICE = 16,     /* the second input is the first */
    STATISTICS = 32 /* inputs 3 and 4 get no gradient */
};
static const float scales[2] = {0.17f, -1.5f};

#define S4(n, c, h, w)                                                         \
    {                                                                          \
        4,                                                                     \
        {                                                                      \
            n, c, h, w                                                         \
        }                                                                      \
    }
#define S2(n, c)                                                               \
    {                                                                          \
        2,                                                                     \
        {                                                                      \
            n, c                                                               \
        }                                                                      \
    }
#define S1(c)                                                                  \
    {                                                                          \
        1,                                                                     \
        {                                                                      \
            c                                                                  \
        }                                                                      \
    }
#define V4(c) S1(c), S1(c), S1(c), S1(c)
#define NORM                                                                   \
    {                                                                          \
        .type = OP_BATCH_NORM, .u.norm = {.epsilon = 0.01f, .momentum = 0.9f } \
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
#define GLOBAL(t, power)                                                       \
    {                                                                          \
        .type = t, .u.pool = {.global = true, .stride = {1, 1}, .p = power }   \
    }
#define AXIS(t, ...)                                                           \
    {                                                                          \
        .type = t, .u.axis = {.axis = 1, __VA_ARGS__ }                         \
    }
#define ONLY(t)                                                                \
    {                                                                          \
        .type = t                                                              \
    }

/* clang-format off */
static const struct row rows[] = {
    {"norm", NORM, 5, {S4(3, 13, 5, 7), V4(13)}, STATISTICS},
    {"norm of one pixel", NORM, 5, {S4(9, 5, 1, 1), V4(5)}, STATISTICS},
    {"dense norm", NORM, 5, {S2(31, 17), V4(17)}, STATISTICS},
    {"norm in parts", NORM, 5, {S4(3, 72, 53, 47), V4(72)}, STATISTICS},
    {"norm in groups", NORM, 5, {S4(2, 300, 21, 9), V4(300)}, STATISTICS},
    {"norm, relu", NORM, 5, {S4(3, 20, 9, 11), V4(20)}, STATISTICS | RELU},
    {"norm, prelu", NORM, 6, {S4(3, 20, 9, 11), V4(20), S1(20)}, STATISTICS},
    {"norm, prelu, in parts", NORM, 6, {S4(4, 9, 61, 60), V4(9), S1(9)}, STATISTICS},
    {"frozen norm", NORM, 5, {S4(3, 13, 5, 7), V4(13)}, STATISTICS | FREEZE},
    {"frozen norm, relu", NORM, 5, {S4(3, 8, 5, 7), V4(8)}, STATISTICS | FREEZE | RELU},
    {"frozen norm, prelu", NORM, 6, {S2(6, 7), V4(7), S1(7)}, STATISTICS | FREEZE},
    {"norm at rest", NORM, 5, {S4(3, 13, 5, 7), V4(13)}, STATISTICS | REST},
    {"affine", ONLY(OP_AFFINE), 3, {S4(3, 11, 5, 3), S1(11), S1(11)}, 0},
    {"affine in parts", ONLY(OP_AFFINE), 3, {S4(2, 24, 45, 41), S1(24), S1(24)}, 0},
    {"prelu", ONLY(OP_PRELU), 2, {S4(3, 11, 5, 3), S1(11)}, 0},
    {"prelu in parts", ONLY(OP_PRELU), 2, {S4(2, 64, 45, 41), S1(64)}, 0},
    {"prelu, one slope", ONLY(OP_PRELU), 2, {S4(2, 19, 33, 41), S1(1)}, 0},
    {"relu", ONLY(OP_RELU), 1, {S4(3, 11, 5, 3)}, 0},
    {"clip", {.type = OP_CLIP, .u.clip = {-0.4f, 0.6f}}, 1, {S4(3, 5, 5, 7)}, 0},
    {"sigmoid", ONLY(OP_SIGMOID), 1, {S4(3, 1, 5, 5)}, 0},
    {"add", ONLY(OP_ADD), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, 0},
    {"add to itself", ONLY(OP_ADD), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, TWICE},
    {"add, relu", ONLY(OP_ADD), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, RELU},
    {"add, scaled", ONLY(OP_ADD), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, SCALED},
    {"add, scaled, relu", ONLY(OP_ADD), 2, {S2(3, 12), S2(3, 12)}, RELU | SCALED},
    {"add a number", ONLY(OP_ADD), 2, {S4(3, 13, 2, 5), S1(1)}, 0},
    {"sub", ONLY(OP_SUB), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, 0},
    {"sub a number", ONLY(OP_SUB), 2, {S4(3, 13, 2, 5), S1(1)}, 0},
    {"mul", ONLY(OP_MUL), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, 0},
    {"square", ONLY(OP_MUL), 2, {S2(3, 13), S2(3, 13)}, TWICE},
    {"mul by a number", ONLY(OP_MUL), 2, {S4(4, 13, 30, 50), S1(1)}, 0},
    {"div", ONLY(OP_DIV), 2, {S4(3, 13, 2, 5), S4(3, 13, 2, 5)}, 0},
    {"div by a number", ONLY(OP_DIV), 2, {S4(3, 13, 2, 5), S1(1)}, 0},
    {"max", ONLY(OP_MAX), 3, {S2(8, 21), S2(8, 21), S2(8, 21)}, 0},
    {"max of two pictures", ONLY(OP_MAX), 2, {S4(2, 16, 5, 3), S4(2, 16, 5, 3)}, 0},
    {"max of one", ONLY(OP_MAX), 1, {S2(8, 21)}, 0},
    {"concat", AXIS(OP_CONCAT, .start = 0), 3, {S4(2, 3, 2, 3), S4(2, 1, 2, 3), S4(2, 17, 2, 3)}, 0},
    {"concat of eights", AXIS(OP_CONCAT, .start = 0), 4, {S4(2, 8, 5, 3), S4(2, 24, 5, 3), S4(2, 16, 5, 3), S4(2, 11, 5, 3)}, 0},
    {"concat, then odd", AXIS(OP_CONCAT, .start = 0), 3, {S2(5, 16), S2(5, 11), S2(5, 16)}, 0},
    {"concat of one", AXIS(OP_CONCAT, .start = 0), 1, {S4(2, 3, 2, 3)}, 0},
    {"slice", AXIS(OP_SLICE, .start = 2, .length = 11), 1, {S4(2, 21, 2, 3)}, 0},
    {"slice of eights", AXIS(OP_SLICE, .start = 8, .length = 8), 1, {S4(2, 21, 2, 3)}, 0},
    {"slice to the end", AXIS(OP_SLICE, .start = 16, .length = 5), 1, {S2(7, 21)}, 0},
    {"max pool", POOL(OP_MAX_POOL, 3, 3, 2, 1, 0, 0, 0), 1, {S4(3, 11, 9, 6)}, 0},
    {"max pool, ceil", POOL(OP_MAX_POOL, 3, 2, 2, 0, 1, 0, 0), 1, {S4(3, 8, 6, 7)}, 0},
    {"max pool, gaps", POOL(OP_MAX_POOL, 2, 2, 3, 0, 0, 0, 0), 1, {S4(2, 5, 8, 7)}, 0},
    {"global max pool", GLOBAL(OP_MAX_POOL, 0), 1, {S4(2, 5, 19, 18)}, 0},
    {"average pool", POOL(OP_AVG_POOL, 3, 3, 2, 1, 0, 0, 0), 1, {S4(3, 11, 7, 6)}, 0},
    {"average pool, padding counts", POOL(OP_AVG_POOL, 3, 3, 2, 1, 1, 1, 0), 1, {S4(3, 3, 6, 6)}, 0},
    {"global average", GLOBAL(OP_AVG_POOL, 0), 1, {S4(3, 20, 4, 3)}, 0},
    {"L2 pool", POOL(OP_LP_POOL, 3, 3, 2, 1, 0, 0, 2), 1, {S4(3, 11, 7, 6)}, 0},
    {"L1 pool", POOL(OP_LP_POOL, 2, 2, 2, 0, 0, 0, 1), 1, {S4(3, 3, 6, 6)}, 0},
    {"lrn", {.type = OP_LRN, .u.lrn = {5, 0.5f, 0.75f, 1.0f}}, 1, {S4(2, 13, 5, 3)}, 0},
    {"lrn of three", {.type = OP_LRN, .u.lrn = {3, 0.5f, 0.6f, 2.0f}}, 1, {S4(2, 9, 5, 3)}, 0},
    {"softmax", AXIS(OP_SOFTMAX, .start = 0), 1, {S4(2, 2, 5, 3)}, 0},
    {"long softmax", AXIS(OP_SOFTMAX, .start = 0), 1, {S2(5, 77)}, 0},
    {"L2 norm", AXIS(OP_LP_NORM, .p = 2), 1, {S2(5, 13)}, 0},
    {"long L2 norm", AXIS(OP_LP_NORM, .p = 2), 1, {S2(9, 128)}, 0},
    {"L1 norm", AXIS(OP_LP_NORM, .p = 1), 1, {S4(2, 8, 1, 3)}, 0},
    {"flatten", {.type = OP_RESHAPE, .u.reshape.to = {2, {0, -1}}}, 1, {S4(3, 5, 2, 4)}, 0},
    {"flatten a pixel", {.type = OP_RESHAPE, .u.reshape.to = {2, {0, -1}}}, 1, {S4(3, 13, 1, 1)}, 0},
    {"dropout", {.type = OP_DROPOUT, .u.dropout.ratio = 0.4f}, 1, {S4(3, 13, 5, 7)}, 0},
    {"dropout at rest", {.type = OP_DROPOUT, .u.dropout.ratio = 0.4f}, 1, {S2(3, 50)}, REST},
    {"identity", ONLY(OP_IDENTITY), 1, {S4(2, 5, 3, 3)}, 0},
};
/* clang-format on */

enum {
    N_ROWS = sizeof(rows) / sizeof(rows[0])
};

/* ---- numbers ----------------------------------------------------------- */

static float draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1;
}

static float rounded(float v, int type)
{
    return type == GTYPE_F32   ? v
           : type == GTYPE_F16 ? arith_from_f16(arith_to_f16(v))
                               : arith_from_bf16(arith_to_bf16(v));
}

static void *memory(size_t bytes)
{
    void *p = calloc(1, bytes + 64);

    assert_non_null(p);
    return p;
}

/* An array or vector on both sides: plain [rows,c] f32, and the card's. */
struct both {
    struct nhwc a;
    size_t n; /* of the plain */
    float *plain;
    int type;
    size_t bytes; /* of a.p */
};

static struct both both_new(const struct shape *s, int type)
{
    struct both b = {.n = shape_count(s), .type = type};
    struct error err;

    if (s->rank == 1) /* a vector: one row of c */
        b.a = (struct nhwc){NULL, 1, s->d[0], 1, 1, arith_padded(s->d[0])};
    else
        b.a = (struct nhwc){NULL,
                            s->d[0],
                            s->d[1],
                            s->rank > 2 ? s->d[2] : 1,
                            s->rank > 3 ? s->d[3] : 1,
                            arith_padded(s->d[1])};
    b.bytes = (size_t)arith_numbers(&b.a) * (size_t)arith_bytes(type);
    b.plain = memory(b.n * sizeof(float));
    b.a.p = card_alloc(card, b.bytes, &err);
    assert_non_null(b.a.p);
    assert_int_equal(card_fill(card, b.a.p, 0xff, b.bytes, &err), 0);
    return b;
}

static void both_free(struct both *b)
{
    card_release(card, b->a.p, b->bytes);
    free(b->plain);
}

/* The plain numbers to the card, rounded on both sides. */
static void put(struct both *b)
{
    char *all = memory(b->bytes);
    struct error err;

    for (size_t i = 0; i < b->n; i++) {
        size_t c = (size_t)b->a.c;

        b->plain[i] = rounded(b->plain[i], b->type);
        arith_put(all, (uint32_t)(i / c * (size_t)b->a.pitch + i % c), b->type,
                  b->plain[i]);
    }
    assert_int_equal(card_upload(card, b->a.p, all, b->bytes, &err), 0);
    free(all);
}

/* What the card holds, freed by the caller; padding must be zero. */
static float *get(const struct both *b, const char *name, const char *what)
{
    char *all = memory(b->bytes);
    float *plain = memory(b->n * sizeof(float));
    size_t c = (size_t)b->a.c, pitch = (size_t)b->a.pitch;
    struct error err;

    if (card_copy_out(stream, all, b->a.p, b->bytes, &err) ||
        card_wait(stream, &err))
        fail_msg("%s: %s: %s", name, what, err.text);
    for (size_t i = 0; i < b->n / c * pitch; i++) {
        float v = arith_get(all, (uint32_t)i, b->type);

        if (i % pitch < c)
            plain[i / pitch * c + i % pitch] = v;
        else if (v != 0)
            fail_msg("%s: %s: padding is %g", name, what, (double)v);
    }
    free(all);
    return plain;
}

/* Sums are f32 on both sides, so that only the last rounding may differ.
 * terms: of a sum down the rows; again: it was rounded once before, when it may
 * have been as large as the other numbers are. */
static void same(const struct both *b, const float *want, bool again,
                 size_t terms, const char *name, const char *what)
{
    static const double unit[GTYPE_COUNT] = {0x1p-24, 0x1p-11, 0x1p-8};
    static const char *const types[GTYPE_COUNT] = {"f32", "f16", "bf16"};
    float *got = get(b, name, what);

    for (size_t i = 0; i < b->n; i++) {
        double w = (double)want[i];
        double bound = 2e-5 * (1 + fabs(w)) + 2e-6 * sqrt((double)terms) +
                       1.01 * unit[b->type] * (fabs(w) + (again ? 4 : 0));

        if (!(fabs((double)got[i] - w) <= bound))
            fail_msg("%s, %s: %s number %zu: %g, not %g", name, types[b->type],
                     what, i, (double)got[i], w);
    }
    free(got);
}

/* ---- one row ----------------------------------------------------------- */

struct job {
    const struct row *w;
    int type;
    bool fresh;
    unsigned unwanted; /* inputs without a gradient */
    struct both in[MAX_IN], grad[MAX_IN], out, grad_out, moved[2];
    float *state;
    size_t state_bytes;
    void *card_state;
    uint64_t *random;   /* the card's */
    struct op plain_op; /* of run */
    struct op_run run;
    struct learn_op op;
    uint64_t dice;
};

static bool is_vector(const struct row *w, int k)
{
    return w->in[k].rank == 1;
}

/* As the card has it: one number is repeated for all channels. */
static struct shape vector_shape(const struct row *w, int k)
{
    return w->in[k].d[0] == 1 ? shape_of(1, w->in[0].d[1], 0, 0, 0) : w->in[k];
}

static void fill(struct job *j)
{
    for (int k = 0; k < j->w->n_in; k++) {
        float first;

        for (size_t i = 0; i < j->in[k].n; i++) {
            float v = draw();

            if (k == 0)
                v += 0.1f * (float)(i % 7) - 0.3f;
            if (is_vector(j->w, k) || (j->w->op.type == OP_DIV && k == 1))
                v = 1 + 0.5f * v; /* variances and divisors too */
            j->in[k].plain[i] = v;
        }
        first = j->in[k].plain[0];
        for (size_t i = 0;
             j->w->in[k].rank == 1 && j->w->in[k].d[0] == 1 && i < j->in[k].n;
             i++)
            j->in[k].plain[i] = first;
        put(&j->in[k]);
    }
}

/* What batch norm gives is nowhere so near 0 that the last bit of a sum
 * decides what ReLU lets pass. */
static bool clear_of_kinks(struct job *j)
{
    struct op_run plain = j->run;
    bool clear = true;

    if (j->w->op.type != OP_BATCH_NORM || !(j->w->how & RELU || j->w->n_in > 5))
        return true;
    plain.relu = false;
    plain.n_in = 5;
    plain.mean = plain.var = NULL;
    op_run_forward(&plain);
    for (size_t i = 0; i < j->out.n; i++)
        clear = clear && fabsf(plain.out[i]) > 2e-6f;
    return clear;
}

static void make_run(struct job *j)
{
    const struct row *w = j->w;
    struct error err;

    j->plain_op = w->op;
    if (w->op.type == OP_CLIP) { /* of numbers that were rounded too */
        j->plain_op.u.clip.lo = rounded(w->op.u.clip.lo, j->type);
        j->plain_op.u.clip.hi = rounded(w->op.u.clip.hi, j->type);
    }
    j->run = (struct op_run){.op = &j->plain_op,
                             .n_in = w->n_in,
                             .rest = w->how & REST,
                             .freeze_norm = w->how & FREEZE,
                             .relu = w->how & RELU,
                             .random = &j->dice};
    for (int k = 0; k < w->n_in; k++)
        j->run.shape_in[k] = w->in[k];
    if (op_shape(&w->op, w->in,
                 w->op.type == OP_BATCH_NORM && w->n_in > 5 ? 5 : w->n_in,
                 &j->run.shape_out, &err))
        fail_msg("%s: %s", w->name, err.text);
    assert_true(op_run_known(&j->run));
    j->state = memory(op_run_state(&j->run) * sizeof(float));
    j->run.state = j->state;
    for (int i = 0; i < 2 && w->how & SCALED; i++)
        j->run.scale[i] = &scales[i];
}

static void make_arrays(struct job *j)
{
    const struct row *w = j->w;

    for (int k = 0; k < w->n_in; k++) {
        struct shape v = is_vector(w, k) ? vector_shape(w, k) : w->in[k];
        int type = is_vector(w, k) ? GTYPE_F32 : j->type;

        if (k == 1 && w->how & TWICE) {
            j->in[1] = j->in[0];
            j->grad[1] = j->grad[0];
            continue;
        }
        j->in[k] = both_new(&v, type);
        j->grad[k] = both_new(&v, type);
    }
    j->out = both_new(&j->run.shape_out, j->type);
    j->grad_out = both_new(&j->run.shape_out, j->type);
    for (int k = 0; k < w->n_in; k++)
        j->run.in[k] = j->in[k].plain;
    j->run.out = j->out.plain;
    do
        fill(j);
    while (!clear_of_kinks(j));
    for (int i = 0; i < 2 && w->op.type == OP_BATCH_NORM; i++) {
        j->moved[i] = both_new(&w->in[3 + i], GTYPE_F32);
        memcpy(j->moved[i].plain, j->in[3 + i].plain,
               j->moved[i].n * sizeof(float));
        put(&j->moved[i]);
    }
    j->run.mean = j->moved[0].plain;
    j->run.var = j->moved[1].plain;
}

static void make_op(struct job *j)
{
    const struct row *w = j->w;
    struct error err;
    struct learn_op *o = &j->op;

    *o = (struct learn_op){.op = &w->op,
                           .n_in = w->n_in,
                           .out = j->out.a,
                           .rest = w->how & REST,
                           .freeze_norm = w->how & FREEZE,
                           .mean = j->moved[0].a.p,
                           .var = j->moved[1].a.p,
                           .random_at = SKIPPED_DRAWS,
                           .relu = w->how & RELU,
                           .scale = {1, 1}};
    for (int k = 0; k < w->n_in; k++)
        if (is_vector(w, k))
            o->one[k] = w->in[k].d[0] == 1 && w->in[0].d[1] != 1;
        else
            o->in[k] =
                (struct nhwc){NULL,         j->in[k].a.n, j->in[k].a.c,
                              j->in[k].a.h, j->in[k].a.w, j->in[k].a.pitch};
    for (int i = 0; i < 2 && w->how & SCALED; i++)
        o->scale[i] = scales[i];
    assert_true(learn_op_known(o));
    j->state_bytes = learn_op_state(o) + GUARD;
    j->card_state = card_alloc(card, j->state_bytes, &err);
    assert_non_null(j->card_state);
    card_fill(card, j->card_state, 0xff, j->state_bytes, &err);
    o->state = j->card_state;
    j->random = card_alloc(card, sizeof(*j->random), &err);
    o->random = j->random;
    for (int k = 0; k < w->n_in; k++)
        if (is_vector(w, k))
            o->vector[k] = j->in[k].a.p;
        else
            o->in[k] = j->in[k].a;
}

static void forward(struct job *j)
{
    const uint64_t start = 77, other = 78;
    struct error err;

    j->dice = start + SKIPPED_DRAWS * golden;
    op_run_forward(&j->run);
    card_upload(card, j->random, &start, sizeof(start), &err);
    if (learn_op_forward(&j->op, j->type, stream, &err))
        fail_msg("%s: %s", j->w->name, err.text);
    same(&j->out, j->out.plain, false, 1, j->w->name, "output");
    for (int i = 0; i < 2 && j->moved[i].n; i++)
        same(&j->moved[i], j->moved[i].plain, false, 1, j->w->name,
             "statistic");
    card_upload(card, j->random, &other, sizeof(other), &err);
}

/* No address of what backward does not need; gradients of garbage where they
 * are fresh, of numbers else. */
static void prepare_backward(struct job *j)
{
    const struct row *w = j->w;
    unsigned keep = op_info(w->op.type)->keep;
    struct error err;
    float *held = get(&j->out, w->name, "output");

    memcpy(j->out.plain, held, j->out.n * sizeof(float));
    free(held);
    for (size_t i = 0; i < j->grad_out.n; i++)
        j->grad_out.plain[i] = draw();
    put(&j->grad_out);
    j->run.grad_out = j->grad_out.plain;
    j->op.grad_out = j->grad_out.a;
    for (int k = 0; k < w->n_in; k++) {
        bool twice = k == 1 && w->how & TWICE;

        if (!(keep & OP_KEEP_INPUT))
            j->op.in[k].p = NULL;
        if ((w->how & STATISTICS && (k == 3 || k == 4)) || j->unwanted >> k & 1)
            continue;
        j->run.fresh[k] = j->op.fresh[k] = j->fresh && !twice;
        j->run.grad_in[k] = j->grad[k].plain;
        if (is_vector(w, k))
            j->op.grad_vector[k] = j->grad[k].a.p;
        else
            j->op.grad_in[k] = j->grad[k].a;
        if (twice)
            continue;
        for (size_t i = 0; i < j->grad[k].n; i++)
            j->grad[k].plain[i] =
                is_vector(w, k) && w->in[k].d[0] == 1 ? 0.25f : draw();
        put(&j->grad[k]);
        if (j->fresh)
            card_fill(card, j->grad[k].a.p, 0xff, j->grad[k].bytes, &err);
    }
    if (!(keep & OP_KEEP_OUTPUT) && !(w->op.type == OP_ADD && j->op.relu))
        j->op.out.p = NULL;
}

static void check_guard(struct job *j)
{
    unsigned char guard[GUARD];
    struct error err;

    card_copy_out(stream, guard, (char *)j->card_state + j->state_bytes - GUARD,
                  GUARD, &err);
    assert_int_equal(card_wait(stream, &err), 0);
    for (int i = 0; i < GUARD; i++)
        if (guard[i] != 0xff)
            fail_msg("%s: state is larger than it says", j->w->name);
}

static void backward(struct job *j)
{
    const struct row *w = j->w;
    struct error err;

    prepare_backward(j);
    op_run_backward(&j->run);
    if (learn_op_backward(&j->op, j->type, stream, &err))
        fail_msg("%s: %s", w->name, err.text);
    for (int k = 0; k < w->n_in; k++) {
        size_t terms = is_vector(w, k) ? j->in[0].n / (size_t)w->in[k].d[0] : 1;
        char what[32];

        if (!j->run.grad_in[k])
            continue;
        if (is_vector(w, k) && w->in[k].d[0] == 1) /* c times */
            for (size_t i = 1; i < j->grad[k].n; i++)
                j->grad[k].plain[i] = j->grad[k].plain[0];
        snprintf(what, sizeof(what), "gradient %d", k);
        same(&j->grad[k], j->grad[k].plain, w->how & TWICE, terms, w->name,
             what);
    }
    check_guard(j);
}

/* The same again: bit for bit what it was. */
static void repeat(struct job *j)
{
    struct error err;

    for (int k = 0; k < j->w->n_in; k++) {
        struct both *g = &j->grad[k];
        float *was, *now;

        if (!j->run.grad_in[k] || (k == 1 && j->w->how & TWICE))
            continue;
        was = get(g, j->w->name, "gradient");
        if (learn_op_backward(&j->op, j->type, stream, &err))
            fail_msg("%s: %s", j->w->name, err.text);
        now = get(g, j->w->name, "gradient");
        assert_memory_equal(was, now, g->n * sizeof(*was));
        free(was);
        free(now);
    }
}

static void free_job(struct job *j)
{
    for (int k = 0; k < j->w->n_in; k++) {
        if (k == 1 && j->w->how & TWICE)
            continue;
        both_free(&j->in[k]);
        both_free(&j->grad[k]);
    }
    both_free(&j->out);
    both_free(&j->grad_out);
    both_free(&j->moved[0]);
    both_free(&j->moved[1]);
    card_release(card, j->card_state, j->state_bytes);
    card_release(card, j->random, sizeof(*j->random));
    free(j->state);
}

static void run_row(const struct row *w, int type, bool fresh,
                    unsigned unwanted)
{
    struct job j = {.w = w, .type = type, .fresh = fresh, .unwanted = unwanted};

    make_run(&j);
    make_arrays(&j);
    make_op(&j);
    forward(&j);
    if (!(w->how & REST)) {
        backward(&j);
        if (fresh)
            repeat(&j);
    }
    free_job(&j);
}

static void run_all(int type)
{
    if (!card)
        skip();
    seed = 11;
    for (int i = 0; i < N_ROWS; i++) {
        run_row(&rows[i], type, true, 0);
        run_row(&rows[i], type, false, 0);
    }
}

static void test_f32(void **state)
{
    (void)state;
    run_all(GTYPE_F32);
}

static void test_f16(void **state)
{
    (void)state;
    run_all(GTYPE_F16);
}

static void test_bf16(void **state)
{
    (void)state;
    run_all(GTYPE_BF16);
}

/* ---- any shape --------------------------------------------------------- */

static int between(int least, int most)
{
    return least + (int)((draw() + 1) / 2 * (float)(most - least + 1)) %
                       (most - least + 1);
}

/* Another shape for a row; false: the operator does not take it. (The length of
 * a very short line may be so near 0 that nothing is left of its gradient's
 * digits.) */
static bool reshaped(struct row *w)
{
    int n = between(1, 4), h = between(1, 13), width = between(1, 13);
    int c = between(w->op.type == OP_LP_NORM ? 6 : 1, 45);
    struct shape out;
    struct error err;

    for (int k = 0; k < w->n_in; k++) {
        struct shape *s = &w->in[k];

        if (w->op.type == OP_CONCAT)
            c = between(1, 45);
        if (s->rank > 1)
            *s = shape_of(s->rank, n, c, s->rank > 2 ? h : 0,
                          s->rank > 3 ? width : 0);
        else if (s->d[0] != 1)
            s->d[0] = c;
    }
    return op_shape(&w->op, w->in,
                    w->op.type == OP_BATCH_NORM && w->n_in > 5 ? 5 : w->n_in,
                    &out, &err) == 0;
}

static void test_shapes(void **state)
{
    int done = 0;

    (void)state;
    if (!card)
        skip();
    seed = 5;
    for (int i = 0; i < 1500; i++) {
        struct row w = rows[i % N_ROWS];
        int type = between(0, GTYPE_COUNT - 1);
        bool fresh = between(0, 1);
        unsigned unwanted = between(0, 2) ? 0 : (unsigned)between(0, 63);

        if (w.how & TWICE && unwanted)
            unwanted = 0; /* they are one */
        if (!reshaped(&w))
            continue;
        run_row(&w, type, fresh, unwanted);
        done++;
    }
    assert_true(done > 1000);
}

/* ---- statistics of numbers far from 0 -------------------------------------
 */

/* Mean 1000, deviation about 0.14: in f32 the mean of the squares less the
 * square of the mean has no digit left. In double, by the textbook. */
static void test_large_mean(void **state)
{
    static const struct row w = {
        "far norm", NORM, 5, {S4(2, 5, 71, 83), V4(5)}, STATISTICS};
    struct job j = {.w = &w, .type = GTYPE_F32, .fresh = true};
    struct error err;
    float *var, *y;

    (void)state;
    if (!card)
        skip();
    make_run(&j);
    make_arrays(&j);
    make_op(&j);
    for (size_t i = 0; i < j.in[0].n; i++)
        j.in[0].plain[i] = 1000 + 0.25f * draw();
    put(&j.in[0]);
    if (learn_op_forward(&j.op, j.type, stream, &err))
        fail_msg("%s", err.text);
    var = get(&j.moved[1], w.name, "variance");
    y = get(&j.out, w.name, "output");
    for (size_t c = 0; c < 5; c++) {
        size_t n = j.in[0].n / 5;
        double mean = 0, square = 0, was = (double)j.in[4].plain[c];

        for (size_t i = 0; i < n; i++)
            mean += (double)j.in[0].plain[i * 5 + c] / (double)n;
        for (size_t i = 0; i < n; i++)
            square +=
                pow((double)j.in[0].plain[i * 5 + c] - mean, 2) / (double)n;
        assert_float_equal(var[c], 0.9 * was + 0.1 * square, 1e-6);
        for (size_t i = 0; i < n; i += 97) {
            double x = (double)j.in[0].plain[i * 5 + c] - mean;

            assert_float_equal(y[i * 5 + c],
                               x / sqrt(square + 0.01) *
                                       (double)j.in[1].plain[c] +
                                   (double)j.in[2].plain[c],
                               2e-3);
        }
    }
    free(var);
    free(y);
    free_job(&j);
}

/* ---- what is not known --------------------------------------------------- */

static void test_unknown(void **state)
{
    struct op op = {.type = OP_ADD};
    struct nhwc x = {NULL, 2, 16, 3, 3, 16};
    struct learn_op r = {.op = &op, .n_in = 2, .in = {x, x}, .out = x};

    (void)state;
    assert_true(learn_op_known(&r));
    r.in[1].c = 8;
    assert_false(learn_op_known(&r));
    r.in[1] = r.in[0];
    r.in[0].n = r.in[1].n = r.out.n = 1 << 24;
    assert_false(learn_op_known(&r));
    op.type = OP_CONV;
    r.in[0] = r.in[1] = r.out = x;
    assert_false(learn_op_known(&r));
    op.type = OP_TRANSPOSE;
    assert_false(learn_op_known(&r));
    op = (struct op){.type = OP_SOFTMAX, .u.axis = {.axis = 2}};
    r.n_in = 1;
    assert_false(learn_op_known(&r));
    op.u.axis.axis = 1;
    assert_true(learn_op_known(&r));
    op = (struct op){.type = OP_MAX_POOL, .u.pool = {.global = true}};
    r.in[0].h = r.in[0].w = 256;
    r.out.h = r.out.w = 1;
    assert_true(learn_op_known(&r));
    r.in[0].h = 257;
    assert_false(learn_op_known(&r));
    op = (struct op){.type = OP_PRELU};
    r.in[1] = r.in[0];
    r.n_in = 2;
    assert_false(learn_op_known(&r)); /* slopes that were computed */
    r.in[1].n = 0;
    assert_true(learn_op_known(&r));
}

static int setup(void **state)
{
    struct device_options opt = {0};
    struct error err = {0};

    (void)state;
    card = card_open(&opt, &err);
    if (!card) {
        printf("no card: %s\n", err.text);
        return 0;
    }
    stream = card_stream_new(card, &err);
    return stream ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    if (!card)
        return 0;
    card_stream_free(stream);
    card_close(card);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),       cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_large_mean), cmocka_unit_test(test_unknown),
    };

    return cmocka_run_group_tests_name("gpu/learn_op", tests, setup, teardown);
}
