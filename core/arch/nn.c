/* core/arch/nn.c - the networks of the FaceNet paper (arXiv 1503.03832).
 * NN1: table 1. NN2: table 2; NN3 and NN4 are NN2 for smaller faces. NNS1 and
 * NNS2 stand in the paper by their totals alone (26 M and 4.3 M parameters,
 * 220 M and 20 M multiply-accumulates, input 165x165 and 140x116, which is
 * read as width x height): their layers here are ours, NN1's kind made thin
 * until the totals fit. L2 pooling takes the root of the window's sum of
 * squares, as ONNX's LpPool does; the paper's mean differs by a factor of 3,
 * which the next layer's weights absorb. */
#include <stdio.h>

#include "core/arch/build.h"

static const struct pool max_3_2 = {.type = OP_MAX_POOL, .k = 3, .stride = 2};
static const struct pool max_3_1 = {.type = OP_MAX_POOL, .k = 3, .stride = 1};
static const struct pool l2_3_1 = {.type = OP_LP_POOL, .k = 3, .stride = 1};

/* Convolution with bias, ReLU. */
static int conv(struct build *b, int x, const char *name, int k, int out,
                int stride)
{
    char part[64];

    x = build_conv(
        b, x, name,
        &(struct conv){.out = out, .k = k, .stride = stride, .bias = true});
    snprintf(part, sizeof(part), "%s.relu", name);
    return build_relu(b, x, part);
}

/* The paper gives no constants: AlexNet's, in ONNX's form (alpha over size). */
static int lrn(struct build *b, int x, const char *name)
{
    struct op op = {
        .type = OP_LRN,
        .u.lrn = {.size = 5, .alpha = 1e-4f, .beta = 0.75f, .bias = 1.0f}};

    return build_op(b, x, name, &op);
}

/* Dense layer of 2*out, the greater of each pair: maxout with p = 2. */
static int maxout(struct build *b, int x, const char *name, int out)
{
    struct op half = {.type = OP_SLICE,
                      .u.axis = {.axis = 1, .start = 0, .length = out}};
    char part[64];
    int in[2];

    x = build_dense(b, x, name, 2 * out, true);
    snprintf(part, sizeof(part), "%s.first", name);
    in[0] = build_op(b, x, part, &half);
    half.u.axis.start = out;
    snprintf(part, sizeof(part), "%s.second", name);
    in[1] = build_op(b, x, part, &half);
    snprintf(part, sizeof(part), "%s.max", name);
    return build_max(b, part, in, 2);
}

int nn1_build(struct build *b, int dim)
{
    int x = build_input(b, "input", 3, 220, 220);

    x = conv(b, x, "conv1", 7, 64, 2);
    x = build_pool(b, x, "pool1", &max_3_2);
    x = lrn(b, x, "rnorm1");
    x = conv(b, x, "conv2a", 1, 64, 1);
    x = conv(b, x, "conv2", 3, 192, 1);
    x = lrn(b, x, "rnorm2");
    x = build_pool(b, x, "pool2", &max_3_2);
    x = conv(b, x, "conv3a", 1, 192, 1);
    x = conv(b, x, "conv3", 3, 384, 1);
    x = build_pool(b, x, "pool3", &max_3_2);
    x = conv(b, x, "conv4a", 1, 384, 1);
    x = conv(b, x, "conv4", 3, 256, 1);
    x = conv(b, x, "conv5a", 1, 256, 1);
    x = conv(b, x, "conv5", 3, 256, 1);
    x = conv(b, x, "conv6a", 1, 256, 1);
    x = conv(b, x, "conv6", 3, 256, 1);
    x = build_pool(b, x, "pool4", &max_3_2);
    x = build_flatten(b, x, "concat");
    x = maxout(b, x, "fc1", 32 * 128);
    x = maxout(b, x, "fc2", 32 * 128);
    return build_dense(b, x, "fc7128", dim, true);
}

/* A row of table 2; a number that is 0 leaves its branch out. */
struct inception {
    const char *name;
    int c1, r3, c3, r5, c5; /* 1x1; reduce, 3x3; reduce, 5x5 */
    const struct pool *pool;
    int proj;
    int stride; /* of 3x3, 5x5 and pool */
};

static int branch(struct build *b, int x, const struct inception *m, int k,
                  int reduce, int out)
{
    char part[48];

    snprintf(part, sizeof(part), "%s.reduce%d", m->name, k);
    x = conv(b, x, part, 1, reduce, 1);
    snprintf(part, sizeof(part), "%s.conv%d", m->name, k);
    return conv(b, x, part, k, out, m->stride);
}

static int inception(struct build *b, int x, const struct inception *m)
{
    char part[48];
    int in[4], n = 0;

    if (m->c1) {
        snprintf(part, sizeof(part), "%s.conv1", m->name);
        in[n++] = conv(b, x, part, 1, m->c1, 1);
    }
    in[n++] = branch(b, x, m, 3, m->r3, m->c3);
    if (m->c5)
        in[n++] = branch(b, x, m, 5, m->r5, m->c5);
    snprintf(part, sizeof(part), "%s.pool", m->name);
    in[n] = build_pool(b, x, part, m->pool);
    if (m->proj) {
        snprintf(part, sizeof(part), "%s.proj", m->name);
        in[n] = conv(b, in[n], part, 1, m->proj, 1);
    }
    snprintf(part, sizeof(part), "%s.concat", m->name);
    return build_concat(b, part, in, n + 1);
}

/* NN2 to NN4. high_5x5: whether 5a and 5b have their 5x5 branch; at 96x96
 * they see 3x3 pixels, where it would be wasted. */
static int nn2_like(struct build *b, int dim, int side, bool high_5x5)
{
    const struct inception rows[] = {
        {"3a", 64, 96, 128, 16, 32, &max_3_1, 32, 1},
        {"3b", 64, 96, 128, 32, 64, &l2_3_1, 64, 1},
        {"3c", 0, 128, 256, 32, 64, &max_3_2, 0, 2},
        {"4a", 256, 96, 192, 32, 64, &l2_3_1, 128, 1},
        {"4b", 224, 112, 224, 32, 64, &l2_3_1, 128, 1},
        {"4c", 192, 128, 256, 32, 64, &l2_3_1, 128, 1},
        {"4d", 160, 144, 288, 32, 64, &l2_3_1, 128, 1},
        {"4e", 0, 160, 256, 64, 128, &max_3_2, 0, 2},
        {"5a", 384, 192, 384, 48, high_5x5 ? 128 : 0, &l2_3_1, 128, 1},
        {"5b", 384, 192, 384, 48, high_5x5 ? 128 : 0, &max_3_1, 128, 1},
    };
    int x = build_input(b, "input", 3, side, side);

    x = conv(b, x, "conv1", 7, 64, 2);
    x = build_pool(b, x, "pool1", &max_3_2);
    x = lrn(b, x, "rnorm1");
    x = conv(b, x, "2.reduce3", 1, 64, 1);
    x = conv(b, x, "2.conv3", 3, 192, 1);
    x = lrn(b, x, "rnorm2");
    x = build_pool(b, x, "pool2", &max_3_2);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        x = inception(b, x, &rows[i]);
    x = build_average(b, x, "average");
    x = build_flatten(b, x, "flatten");
    return build_dense(b, x, "fc", dim, true);
}

int nn2_build(struct build *b, int dim)
{
    return nn2_like(b, dim, 224, true);
}

int nn3_build(struct build *b, int dim)
{
    return nn2_like(b, dim, 160, true);
}

int nn4_build(struct build *b, int dim)
{
    return nn2_like(b, dim, 96, false);
}

int nns1_build(struct build *b, int dim)
{
    int x = build_input(b, "input", 3, 165, 165);

    x = conv(b, x, "conv1", 7, 48, 2);
    x = build_pool(b, x, "pool1", &max_3_2);
    x = conv(b, x, "conv2a", 1, 48, 1);
    x = conv(b, x, "conv2", 3, 64, 1);
    x = build_pool(b, x, "pool2", &max_3_2);
    x = conv(b, x, "conv3a", 1, 64, 1);
    x = conv(b, x, "conv3", 3, 144, 1);
    x = build_pool(b, x, "pool3", &max_3_2);
    x = conv(b, x, "conv4a", 1, 144, 1);
    x = conv(b, x, "conv4", 3, 224, 1);
    x = build_pool(b, x, "pool4", &max_3_2);
    x = conv(b, x, "conv5a", 1, 224, 1);
    x = conv(b, x, "conv5", 3, 256, 1);
    x = build_flatten(b, x, "concat");
    x = maxout(b, x, "fc1", 1344);
    return build_dense(b, x, "fc2", dim, true);
}

int nns2_build(struct build *b, int dim)
{
    int x = build_input(b, "input", 3, 116, 140);

    x = conv(b, x, "conv1", 5, 16, 2);
    x = build_pool(b, x, "pool1", &max_3_2);
    x = conv(b, x, "conv2a", 1, 16, 1);
    x = conv(b, x, "conv2", 3, 32, 1);
    x = build_pool(b, x, "pool2", &max_3_2);
    x = conv(b, x, "conv3a", 1, 32, 1);
    x = conv(b, x, "conv3", 3, 48, 1);
    x = build_pool(b, x, "pool3", &max_3_2);
    x = conv(b, x, "conv4a", 1, 48, 1);
    x = conv(b, x, "conv4", 3, 64, 1);
    x = build_flatten(b, x, "concat");
    x = maxout(b, x, "fc1", 448);
    return build_dense(b, x, "fc2", dim, true);
}
