/* core/arch/mobile.c - MobileFaceNet (arXiv 1804.07573, table 1) in the shape
 * in which it is commonly trained with ArcFace: 128-channel first bottleneck,
 * a linear 7x7 depthwise layer, and a dense layer with batch norm. */
#include <stdio.h>

#include "core/arch/build.h"

static const float epsilon = 0.001f;

/* Convolution and batch norm, then PReLU unless linear. */
static int unit(struct build *b, int x, const char *name, const struct conv *c,
                bool linear)
{
    char part[96];

    snprintf(part, sizeof(part), "%s.conv", name);
    x = build_conv(b, x, part, c);
    snprintf(part, sizeof(part), "%s.bn", name);
    x = build_batch_norm(b, x, part, epsilon);
    snprintf(part, sizeof(part), "%s.prelu", name);
    return linear ? x : build_prelu(b, x, part);
}

/* Widen by 1x1, 3x3 depthwise, narrow by 1x1 without activation; with a
 * shortcut where the stride is 1. */
static int bottleneck(struct build *b, int x, const char *name,
                      const struct conv *wide, int out)
{
    char part[64];
    int y = x, groups = wide->out;

    snprintf(part, sizeof(part), "%s.widen", name);
    y = unit(b, y, part, &(struct conv){.out = wide->out, .k = 1}, false);
    snprintf(part, sizeof(part), "%s.depth", name);
    y = unit(b, y, part,
             &(struct conv){.out = groups,
                            .k = 3,
                            .kw = 3,
                            .stride = wide->stride,
                            .group = groups},
             false);
    snprintf(part, sizeof(part), "%s.narrow", name);
    y = unit(b, y, part, &(struct conv){.out = out, .k = 1}, true);
    if (wide->stride == 2)
        return y;
    snprintf(part, sizeof(part), "%s.add", name);
    return build_add(b, y, x, part);
}

static int bottlenecks(struct build *b, int x, const char *name, int n,
                       int wide, int out)
{
    char block[48];

    for (int i = 0; i < n; i++) {
        snprintf(block, sizeof(block), "%s.%d", name, i);
        x = bottleneck(b, x, block, &(struct conv){.out = wide}, out);
    }
    return x;
}

/* part: every width is divided by it; the dense layer sees 512 by it. n3, n4,
 * n5: bottlenecks with a shortcut at 28, 14 and 7 pixels. */
static int network(struct build *b, int dim, int part, int n3, int n4, int n5)
{
    const int w64 = 64 / part, w128 = 128 / part, w256 = 256 / part;
    const int w512 = 512 / part;
    const struct conv first = {.out = w64, .k = 3, .stride = 2};
    const struct conv depth = {.out = w64, .k = 3, .group = w64};
    const struct conv last = {
        .out = w512, .k = 7, .group = w512, .valid = true};
    int x = build_input(b, "input", 3, 112, 112);

    x = unit(b, x, "conv1", &first, false);
    x = unit(b, x, "conv2", &depth, false);
    x = bottleneck(b, x, "down3", &(struct conv){.out = w128, .stride = 2},
                   w64);
    x = bottlenecks(b, x, "block3", n3, w128, w64);
    x = bottleneck(b, x, "down4", &(struct conv){.out = w256, .stride = 2},
                   w128);
    x = bottlenecks(b, x, "block4", n4, w256, w128);
    x = bottleneck(b, x, "down5", &(struct conv){.out = w512, .stride = 2},
                   w128);
    x = bottlenecks(b, x, "block5", n5, w256, w128);
    x = unit(b, x, "conv6", &(struct conv){.out = w512, .k = 1}, false);
    x = unit(b, x, "conv7", &last, true);
    x = build_flatten(b, x, "flatten");
    x = build_dense(b, x, "dense", dim, true);
    return build_batch_norm(b, x, "embedding", 2e-5f);
}

int mobile_build(struct build *b, int dim)
{
    return network(b, dim, 1, 4, 6, 2);
}

/* Ours: half the channels, a quarter of the work. */
int mobile_small_build(struct build *b, int dim)
{
    return network(b, dim, 2, 4, 6, 2);
}

/* Ours: half of the bottlenecks with a shortcut. */
int mobile_slim_build(struct build *b, int dim)
{
    return network(b, dim, 1, 2, 3, 1);
}
