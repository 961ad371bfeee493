/* core/engine/onednn_learn.c - oneDNN's kernels of networks that learn:
 * convolutions forward and backward, and dense layers' products. */
#include "core/engine/onednn_priv.h"

static struct layout *bias_layout(const struct shape *w)
{
    dnnl_dims_t n = {w->d[0]};

    return version_layout(1, n, dnnl_f32, dnnl_x);
}

struct kernel *kernel_conv_learn(struct onednn *dn, enum conv_pass pass,
                                 const struct op_conv *c,
                                 const struct kernel *forward,
                                 const struct layout *src,
                                 const struct shape *w, enum dtype type,
                                 bool bias, const struct layout *dst,
                                 struct error *err)
{
    struct layout *weights = layout_weights(
        w, c->group, type, dnnl_format_tag_any, dnnl_format_tag_any);
    struct layout *by = bias ? bias_layout(w) : NULL;
    struct spec s = {.src = src,
                     .weights = weights,
                     .bias = by,
                     .dst = dst,
                     .prop = dnnl_forward_training,
                     .alg = dnnl_convolution_direct,
                     .attr = kernel_attr(NULL)};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = dnnl_out_of_memory;

    for (int i = 0; i < 2; i++) {
        s.stride[i] = c->stride[i];
        s.dilation[i] = c->dilation[i] - 1; /* oneDNN counts the gaps */
        s.pad_l[i] = c->pad[i];
        s.pad_r[i] = c->pad[2 + i];
    }
    if (weights && (by || !bias) && s.attr) {
        if (pass == CONV_FORWARD)
            rc = version_conv(dn, &s, &pd);
        else if (pass == CONV_BACK_DATA)
            rc = version_conv_back_data(dn, &s, forward->pd, &pd);
        else
            rc = version_conv_back_weights(dn, &s, forward->pd, &pd);
    }
    layout_free(weights);
    layout_free(by);
    return kernel_finish(dn, rc, pd, s.attr, "a convolution that learns", err);
}

struct layout *layout_conv_weights(const struct shape *w, int group)
{
    return layout_weights(w, group, DTYPE_F32, dnnl_abcd, dnnl_abcde);
}

int onednn_gemm(bool transpose_a, bool transpose_b, int n, int m, int k,
                const float *a, const float *b, float beta, float *y,
                struct error *err)
{
    dnnl_status_t s =
        dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', n, m, k, 1,
                   a, transpose_a ? n : k, b, transpose_b ? k : m, beta, y, m);

    return s == dnnl_success ? 0 : onednn_failed(s, "a product", err);
}
