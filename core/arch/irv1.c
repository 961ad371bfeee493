/* core/arch/irv1.c - Inception-ResNet-v1 for 160x160 faces (arXiv 1602.07261
 * with the sizes of the published face network: reduction A k=192 l=192 m=256
 * n=384). Names and shapes of the weights are those of the PyTorch port, so
 * that its exports compare tensor by tensor. */
#include <stdio.h>

#include "core/arch/build.h"

static const float epsilon = 0.001f;

/* Convolution, batch norm, ReLU: NAME.conv, NAME.bn, NAME.relu. */
static int unit(struct build *b, int x, const char *block, const char *part,
                const struct conv *c)
{
    char name[96];

    snprintf(name, sizeof(name), "%s%s%s.conv", block, *part ? "." : "", part);
    x = build_conv(b, x, name, c);
    snprintf(name, sizeof(name), "%s%s%s.bn", block, *part ? "." : "", part);
    x = build_batch_norm(b, x, name, epsilon);
    snprintf(name, sizeof(name), "%s%s%s.relu", block, *part ? "." : "", part);
    return build_relu(b, x, name);
}

static const struct pool max_3_2 = {
    .type = OP_MAX_POOL, .k = 3, .stride = 2, .valid = true};

static int join(struct build *b, const char *block, const int in[], int n)
{
    char name[96];

    snprintf(name, sizeof(name), "%s.concat", block);
    return build_concat(b, name, in, n);
}

static int branch_pool(struct build *b, int x, const char *block)
{
    char name[96];

    snprintf(name, sizeof(name), "%s.maxpool", block);
    return build_pool(b, x, name, &max_3_2);
}

/* x + scale * conv2d(mixed), then ReLU unless it is the last block. */
static int residual(struct build *b, int x, int mixed, const char *block,
                    float scale, bool relu)
{
    int out = build_channels(b, x);
    char name[96];

    snprintf(name, sizeof(name), "%s.conv2d", block);
    mixed = build_conv(b, mixed, name,
                       &(struct conv){.out = out, .k = 1, .bias = true});
    if (scale != 1.0f) {
        snprintf(name, sizeof(name), "%s.scale", block);
        mixed = build_scale(b, mixed, name, scale);
    }
    snprintf(name, sizeof(name), "%s.add", block);
    x = build_add(b, mixed, x, name);
    snprintf(name, sizeof(name), "%s.relu", block);
    return relu ? build_relu(b, x, name) : x;
}

static int block_a(struct build *b, int x, const char *block)
{
    int in[3];

    in[0] = unit(b, x, block, "branch0", &(struct conv){.out = 32, .k = 1});
    in[1] = unit(b, x, block, "branch1.0", &(struct conv){.out = 32, .k = 1});
    in[1] =
        unit(b, in[1], block, "branch1.1", &(struct conv){.out = 32, .k = 3});
    in[2] = unit(b, x, block, "branch2.0", &(struct conv){.out = 32, .k = 1});
    in[2] =
        unit(b, in[2], block, "branch2.1", &(struct conv){.out = 32, .k = 3});
    in[2] =
        unit(b, in[2], block, "branch2.2", &(struct conv){.out = 32, .k = 3});
    return residual(b, x, join(b, block, in, 3), block, 0.17f, true);
}

static int block_b(struct build *b, int x, const char *block)
{
    int in[2];

    in[0] = unit(b, x, block, "branch0", &(struct conv){.out = 128, .k = 1});
    in[1] = unit(b, x, block, "branch1.0", &(struct conv){.out = 128, .k = 1});
    in[1] = unit(b, in[1], block, "branch1.1",
                 &(struct conv){.out = 128, .k = 1, .kw = 7});
    in[1] = unit(b, in[1], block, "branch1.2",
                 &(struct conv){.out = 128, .k = 7, .kw = 1});
    return residual(b, x, join(b, block, in, 2), block, 0.10f, true);
}

static int block_c(struct build *b, int x, const char *block, float scale,
                   bool relu)
{
    int in[2];

    in[0] = unit(b, x, block, "branch0", &(struct conv){.out = 192, .k = 1});
    in[1] = unit(b, x, block, "branch1.0", &(struct conv){.out = 192, .k = 1});
    in[1] = unit(b, in[1], block, "branch1.1",
                 &(struct conv){.out = 192, .k = 1, .kw = 3});
    in[1] = unit(b, in[1], block, "branch1.2",
                 &(struct conv){.out = 192, .k = 3, .kw = 1});
    return residual(b, x, join(b, block, in, 2), block, scale, relu);
}

/* 17x17x256 -> 8x8x896 */
static int reduction_a(struct build *b, int x, const char *block)
{
    const struct conv down_384 = {
        .out = 384, .k = 3, .stride = 2, .valid = true};
    const struct conv down_256 = {
        .out = 256, .k = 3, .stride = 2, .valid = true};
    int in[3];

    in[0] = unit(b, x, block, "branch0", &down_384);
    in[1] = unit(b, x, block, "branch1.0", &(struct conv){.out = 192, .k = 1});
    in[1] =
        unit(b, in[1], block, "branch1.1", &(struct conv){.out = 192, .k = 3});
    in[1] = unit(b, in[1], block, "branch1.2", &down_256);
    in[2] = branch_pool(b, x, block);
    return join(b, block, in, 3);
}

/* 8x8x896 -> 3x3x1792 */
static int reduction_b(struct build *b, int x, const char *block)
{
    const struct conv down_384 = {
        .out = 384, .k = 3, .stride = 2, .valid = true};
    const struct conv down_256 = {
        .out = 256, .k = 3, .stride = 2, .valid = true};
    int in[4];

    in[0] = unit(b, x, block, "branch0.0", &(struct conv){.out = 256, .k = 1});
    in[0] = unit(b, in[0], block, "branch0.1", &down_384);
    in[1] = unit(b, x, block, "branch1.0", &(struct conv){.out = 256, .k = 1});
    in[1] = unit(b, in[1], block, "branch1.1", &down_256);
    in[2] = unit(b, x, block, "branch2.0", &(struct conv){.out = 256, .k = 1});
    in[2] =
        unit(b, in[2], block, "branch2.1", &(struct conv){.out = 256, .k = 3});
    in[2] = unit(b, in[2], block, "branch2.2", &down_256);
    in[3] = branch_pool(b, x, block);
    return join(b, block, in, 4);
}

/* 160x160x3 -> 17x17x256 */
static int stem(struct build *b, int x)
{
    const struct conv first = {.out = 32, .k = 3, .stride = 2, .valid = true};
    const struct conv last = {.out = 256, .k = 3, .stride = 2, .valid = true};

    x = unit(b, x, "conv2d_1a", "", &first);
    x = unit(b, x, "conv2d_2a", "",
             &(struct conv){.out = 32, .k = 3, .valid = true});
    x = unit(b, x, "conv2d_2b", "", &(struct conv){.out = 64, .k = 3});
    x = build_pool(b, x, "maxpool_3a", &max_3_2);
    x = unit(b, x, "conv2d_3b", "", &(struct conv){.out = 80, .k = 1});
    x = unit(b, x, "conv2d_4a", "",
             &(struct conv){.out = 192, .k = 3, .valid = true});
    return unit(b, x, "conv2d_4b", "", &last);
}

int irv1_build(struct build *b, int dim)
{
    struct op dropout = {.type = OP_DROPOUT, .u.dropout.ratio = 0.6f};
    char block[32];
    int x = build_input(b, "input", 3, 160, 160);

    x = stem(b, x);
    for (int i = 0; i < 5; i++) {
        snprintf(block, sizeof(block), "repeat_1.%d", i);
        x = block_a(b, x, block);
    }
    x = reduction_a(b, x, "mixed_6a");
    for (int i = 0; i < 10; i++) {
        snprintf(block, sizeof(block), "repeat_2.%d", i);
        x = block_b(b, x, block);
    }
    x = reduction_b(b, x, "mixed_7a");
    for (int i = 0; i < 5; i++) {
        snprintf(block, sizeof(block), "repeat_3.%d", i);
        x = block_c(b, x, block, 0.20f, true);
    }
    x = block_c(b, x, "block8", 1.0f, false);
    x = build_average(b, x, "avgpool_1a");
    x = build_op(b, x, "dropout", &dropout);
    x = build_flatten(b, x, "flatten");
    x = build_dense(b, x, "last_linear", dim, false);
    return build_batch_norm(b, x, "last_bn", epsilon);
}
