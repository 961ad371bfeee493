/* gpu/dnn.h - convolutions by cuDNN, behind a few opaque things.
 * y = relu(conv(x) + residual + bias), each part where asked, in this order:
 * the one that cuDNN has ready-made engines for. Arrays are NHWC, see
 * struct nhwc; channel counts are padded ones. Sums are f32.
 * Over cuDNN's graph API in dnn.c, over a loop in tests/gpu.
 * Thread: one at a time for a struct dnn and all of its convolutions. */
#ifndef GPU_DNN_H
#define GPU_DNN_H

#include "gpu/arith.h"
#include "gpu/card.h"

struct dnn;
struct dnn_conv;

/* Backward passes are of the convolution alone: no residual, bias or ReLU. */
enum dnn_pass {
    DNN_FORWARD,
    DNN_BACK_DATA,   /* the loss by x from that by y, and w */
    DNN_BACK_WEIGHTS /* the loss by w, as f32 that was rounded to type, from x
                        and that by y */
};

struct dnn_shape {
    enum dnn_pass pass;
    int n, c, h, w; /* of x, as of k, pitches and y: of the forward pass */
    int k;          /* channels of y */
    int kernel[2], stride[2], dilation[2], pad[4];
    int x_pitch, y_pitch, z_pitch; /* z, the residual: 0 where there is none */
    bool relu;
    enum gtype type;
    bool tf32; /* type is f32, and products may lose bits */
};

/* device: JSON that describes a card which need not be there, to ask what it
 * could do; NULL: the calling thread's card. ERR_DEVICE. */
struct dnn *dnn_open(const char *device, struct error *err);
void dnn_close(struct dnn *d);
void dnn_version(char *buf, size_t len); /* "cuDNN 9.19.0" */

/* The engines that cuDNN advises, of which the first that can be had with at
 * most max_scratch bytes of scratch is chosen. ERR_DEVICE: there is none. */
struct dnn_conv *dnn_conv_new(struct dnn *d, const struct dnn_shape *s,
                              size_t max_scratch, struct error *err);
void dnn_conv_free(struct dnn_conv *c);
int dnn_conv_count(const struct dnn_conv *c);
/* Choose another, from 0; false: it cannot be had, and none is chosen. */
bool dnn_conv_choose(struct dnn_conv *c, int i);
int dnn_conv_chosen(const struct dnn_conv *c);
int64_t dnn_conv_engine(const struct dnn_conv *c); /* cuDNN's number of it */
bool dnn_conv_compiled(const struct dnn_conv *c);  /* at run time, not before */
size_t dnn_conv_scratch(const struct dnn_conv *c);

/* Backward: x and w are the factors (BACK_DATA: the loss by y, and w;
 * BACK_WEIGHTS: x, and the loss by y), y is the result. */
struct dnn_memory {
    const void *x, *w, *bias, *z;
    void *y, *scratch;
};

/* Nothing is allocated. A bind holds until the next choice. */
int dnn_conv_bind(struct dnn_conv *c, const struct dnn_memory *m,
                  struct error *err);
int dnn_conv_run(struct dnn_conv *c, struct stream *s, struct error *err);
/* The stream that it ran on last may go. */
void dnn_rest(struct dnn *d);

#endif
