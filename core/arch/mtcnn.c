/* core/arch/mtcnn.c - MTCNN's three networks (arXiv 1604.02878, figure 2) as
 * commonly trained: PReLU, pools that round up, box and score side by side.
 * Input (x - 127.5) / 128. */
#include "core/arch/build.h"

static const struct pool max_2 = {
    .type = OP_MAX_POOL, .k = 2, .stride = 2, .valid = true, .ceil_mode = true};
static const struct pool max_3 = {
    .type = OP_MAX_POOL, .k = 3, .stride = 2, .valid = true, .ceil_mode = true};
static const struct op softmax = {.type = OP_SOFTMAX, .u.axis.axis = 1};

/* Convolution without padding, with bias. */
static int conv(struct build *b, int x, const char *name, int out, int k)
{
    return build_conv(
        b, x, name,
        &(struct conv){.out = out, .k = k, .valid = true, .bias = true});
}

int mtcnn_pnet_build(struct build *b, int dim)
{
    int x = build_input(b, "data", 3, 0, 0), score, box;

    (void)dim;
    x = build_prelu(b, conv(b, x, "conv1", 10, 3), "prelu1");
    x = build_pool(b, x, "pool1", &max_2);
    x = build_prelu(b, conv(b, x, "conv2", 16, 3), "prelu2");
    x = build_prelu(b, conv(b, x, "conv3", 32, 3), "prelu3");
    score = build_op(b, conv(b, x, "conv4_1", 2, 1), "prob", &softmax);
    box = conv(b, x, "box", 4, 1);
    build_output(b, score);
    build_output(b, box);
    return box;
}

int mtcnn_rnet_build(struct build *b, int dim)
{
    int x = build_input(b, "data", 3, 24, 24), score, box;

    (void)dim;
    x = build_prelu(b, conv(b, x, "conv1", 28, 3), "prelu1");
    x = build_pool(b, x, "pool1", &max_3);
    x = build_prelu(b, conv(b, x, "conv2", 48, 3), "prelu2");
    x = build_pool(b, x, "pool2", &max_3);
    x = build_prelu(b, conv(b, x, "conv3", 64, 2), "prelu3");
    x = build_flatten(b, x, "flatten");
    x = build_prelu(b, build_dense(b, x, "dense4", 128, true), "prelu4");
    score = build_dense(b, x, "dense5_1", 2, true);
    score = build_op(b, score, "prob", &softmax);
    box = build_dense(b, x, "box", 4, true);
    build_output(b, score);
    build_output(b, box);
    return box;
}

int mtcnn_onet_build(struct build *b, int dim)
{
    int x = build_input(b, "data", 3, 48, 48), score, box, landmarks;

    (void)dim;
    x = build_prelu(b, conv(b, x, "conv1", 32, 3), "prelu1");
    x = build_pool(b, x, "pool1", &max_3);
    x = build_prelu(b, conv(b, x, "conv2", 64, 3), "prelu2");
    x = build_pool(b, x, "pool2", &max_3);
    x = build_prelu(b, conv(b, x, "conv3", 64, 3), "prelu3");
    x = build_pool(b, x, "pool3", &max_2);
    x = build_prelu(b, conv(b, x, "conv4", 128, 2), "prelu4");
    x = build_flatten(b, x, "flatten");
    x = build_prelu(b, build_dense(b, x, "dense5", 256, true), "prelu5");
    score = build_dense(b, x, "dense6_1", 2, true);
    score = build_op(b, score, "prob", &softmax);
    box = build_dense(b, x, "box", 4, true);
    landmarks = build_dense(b, x, "landmarks", 10, true);
    build_output(b, score);
    build_output(b, box);
    build_output(b, landmarks);
    return landmarks;
}
