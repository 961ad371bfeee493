/* core/engine/onednn_version.c - what differs between oneDNN 2.x and 3.x.
 * 2.x describes an operation first and compiles the description; memory
 * descriptors are plain structs. 3.x compiles in one call; memory descriptors
 * are opaque. Here a descriptor is always a pointer. */
#include "core/engine/onednn_priv.h"

#include <stdlib.h>

struct layout *version_layout(int rank, const dnnl_dims_t dims,
                              dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    struct layout *l = calloc(1, sizeof(*l));
    bool ok = false;

    if (!l)
        return NULL;
#if ONEDNN_V3
    ok = dnnl_memory_desc_create_with_tag(&l->md, rank, dims, type, tag) ==
         dnnl_success;
#else
    l->md = calloc(1, sizeof(*l->md));
    ok = l->md && dnnl_memory_desc_init_by_tag(l->md, rank, dims, type, tag) ==
                      dnnl_success;
#endif
    if (ok)
        return l;
    layout_free(l);
    return NULL;
}

#if ONEDNN_V3
struct layout *version_copy(const_dnnl_memory_desc_t md)
{
    struct layout *l = calloc(1, sizeof(*l));

    if (l && dnnl_memory_desc_clone(&l->md, md) == dnnl_success)
        return l;
    free(l);
    return NULL;
}

#else
struct layout *version_copy(const dnnl_memory_desc_t *md)
{
    struct layout *l = calloc(1, sizeof(*l));

    if (l && (l->md = malloc(sizeof(*l->md)))) {
        *l->md = *md;
        return l;
    }
    free(l);
    return NULL;
}

#endif

#if ONEDNN_V3
dnnl_status_t version_conv(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd)
{
    return dnnl_convolution_forward_primitive_desc_create(
        pd, dn->engine, s->prop, s->alg, s->src->md, s->weights->md,
        s->bias ? s->bias->md : NULL, s->dst->md, s->stride, s->dilation,
        s->pad_l, s->pad_r, s->attr);
}

dnnl_status_t version_pool(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd)
{
    return dnnl_pooling_forward_primitive_desc_create(
        pd, dn->engine, dnnl_forward_inference, s->alg, s->src->md, s->dst->md,
        s->stride, s->kernel, s->dilation, s->pad_l, s->pad_r, s->attr);
}

dnnl_status_t version_lrn(struct onednn *dn, const struct spec *s,
                          dnnl_primitive_desc_t *pd)
{
    return dnnl_lrn_forward_primitive_desc_create(
        pd, dn->engine, dnnl_forward_inference, s->alg, s->src->md, s->src->md,
        s->size, s->alpha, s->beta, s->k, s->attr);
}

dnnl_status_t version_eltwise(struct onednn *dn, const struct spec *s,
                              dnnl_primitive_desc_t *pd)
{
    return dnnl_eltwise_forward_primitive_desc_create(
        pd, dn->engine, dnnl_forward_inference, s->alg, s->src->md, s->src->md,
        s->alpha, s->beta, s->attr);
}

dnnl_status_t version_binary(struct onednn *dn, const struct spec *s,
                             dnnl_primitive_desc_t *pd)
{
    return dnnl_binary_primitive_desc_create(pd, dn->engine, s->alg, s->src->md,
                                             s->src1->md, s->src->md, s->attr);
}

dnnl_status_t version_prelu(struct onednn *dn, const struct spec *s,
                            dnnl_primitive_desc_t *pd)
{
    return dnnl_prelu_forward_primitive_desc_create(
        pd, dn->engine, dnnl_forward_inference, s->src->md, s->weights->md,
        s->src->md, s->attr);
}

dnnl_status_t version_concat(struct onednn *dn, struct layout *const src[],
                             int n, int axis, dnnl_primitive_attr_t attr,
                             dnnl_primitive_desc_t *pd)
{
    const_dnnl_memory_desc_t mds[OP_MAX_IN];

    for (int i = 0; i < n; i++)
        mds[i] = src[i]->md;
    return dnnl_concat_primitive_desc_create(pd, dn->engine, NULL, n, axis, mds,
                                             attr);
}

dnnl_status_t version_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}

dnnl_status_t version_append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t alg,
                                     float alpha, float beta)
{
    return dnnl_post_ops_append_eltwise(ops, alg, alpha, beta);
}

dnnl_status_t version_conv_back_data(struct onednn *dn, const struct spec *s,
                                     const_dnnl_primitive_desc_t forward,
                                     dnnl_primitive_desc_t *pd)
{
    return dnnl_convolution_backward_data_primitive_desc_create(
        pd, dn->engine, s->alg, s->src->md, s->weights->md, s->dst->md,
        s->stride, s->dilation, s->pad_l, s->pad_r, forward, s->attr);
}

dnnl_status_t version_conv_back_weights(struct onednn *dn, const struct spec *s,
                                        const_dnnl_primitive_desc_t forward,
                                        dnnl_primitive_desc_t *pd)
{
    return dnnl_convolution_backward_weights_primitive_desc_create(
        pd, dn->engine, s->alg, s->src->md, s->weights->md,
        s->bias ? s->bias->md : NULL, s->dst->md, s->stride, s->dilation,
        s->pad_l, s->pad_r, forward, s->attr);
}
#else
dnnl_status_t version_conv(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t rc = dnnl_dilated_convolution_forward_desc_init(
        &d, s->prop, s->alg, s->src->md, s->weights->md,
        s->bias ? s->bias->md : NULL, s->dst->md, s->stride, s->dilation,
        s->pad_l, s->pad_r);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_pool(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd)
{
    dnnl_pooling_desc_t d;
    dnnl_status_t rc = dnnl_pooling_forward_desc_init(
        &d, dnnl_forward_inference, s->alg, s->src->md, s->dst->md, s->stride,
        s->kernel, s->pad_l, s->pad_r);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_lrn(struct onednn *dn, const struct spec *s,
                          dnnl_primitive_desc_t *pd)
{
    dnnl_lrn_desc_t d;
    dnnl_status_t rc = dnnl_lrn_forward_desc_init(&d, dnnl_forward_inference,
                                                  s->alg, s->src->md, s->size,
                                                  s->alpha, s->beta, s->k);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_eltwise(struct onednn *dn, const struct spec *s,
                              dnnl_primitive_desc_t *pd)
{
    dnnl_eltwise_desc_t d;
    dnnl_status_t rc = dnnl_eltwise_forward_desc_init(
        &d, dnnl_forward_inference, s->alg, s->src->md, s->alpha, s->beta);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_binary(struct onednn *dn, const struct spec *s,
                             dnnl_primitive_desc_t *pd)
{
    dnnl_binary_desc_t d;
    dnnl_status_t rc =
        dnnl_binary_desc_init(&d, s->alg, s->src->md, s->src1->md, s->src->md);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_prelu(struct onednn *dn, const struct spec *s,
                            dnnl_primitive_desc_t *pd)
{
    dnnl_prelu_desc_t d;
    dnnl_status_t rc = dnnl_prelu_forward_desc_init(&d, dnnl_forward_inference,
                                                    s->src->md, s->weights->md);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine, NULL);
}

dnnl_status_t version_concat(struct onednn *dn, struct layout *const src[],
                             int n, int axis, dnnl_primitive_attr_t attr,
                             dnnl_primitive_desc_t *pd)
{
    dnnl_memory_desc_t mds[OP_MAX_IN];

    for (int i = 0; i < n; i++)
        mds[i] = *src[i]->md;
    return dnnl_concat_primitive_desc_create(pd, NULL, n, axis, mds, attr,
                                             dn->engine);
}

dnnl_status_t version_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1);
}

dnnl_status_t version_append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t alg,
                                     float alpha, float beta)
{
    return dnnl_post_ops_append_eltwise(ops, 1, alg, alpha, beta);
}

dnnl_status_t version_conv_back_data(struct onednn *dn, const struct spec *s,
                                     const_dnnl_primitive_desc_t forward,
                                     dnnl_primitive_desc_t *pd)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t rc = dnnl_dilated_convolution_backward_data_desc_init(
        &d, s->alg, s->src->md, s->weights->md, s->dst->md, s->stride,
        s->dilation, s->pad_l, s->pad_r);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine,
                                           forward);
}

dnnl_status_t version_conv_back_weights(struct onednn *dn, const struct spec *s,
                                        const_dnnl_primitive_desc_t forward,
                                        dnnl_primitive_desc_t *pd)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t rc = dnnl_dilated_convolution_backward_weights_desc_init(
        &d, s->alg, s->src->md, s->weights->md, s->bias ? s->bias->md : NULL,
        s->dst->md, s->stride, s->dilation, s->pad_l, s->pad_r);

    return rc ? rc
              : dnnl_primitive_desc_create(pd, &d, s->attr, dn->engine,
                                           forward);
}
#endif
