/* core/engine/onednn_priv.h - what the onednn*.c files share: the insides of
 * layouts and kernels, and what differs between oneDNN 2.x and 3.x
 * (onednn_version.c). */
#ifndef CORE_ENGINE_ONEDNN_PRIV_H
#define CORE_ENGINE_ONEDNN_PRIV_H

#include <oneapi/dnnl/dnnl.h>

#include "core/engine/onednn.h"

#if DNNL_VERSION_MAJOR >= 3
#define ONEDNN_V3 1
#else
#define ONEDNN_V3 0
#endif

enum {
    KERNEL_MAX_ARGS = 72
};

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

struct layout {
#if ONEDNN_V3
    dnnl_memory_desc_t md;
#else
    dnnl_memory_desc_t *md;
#endif
};

struct kernel {
    struct onednn *dn;
    dnnl_primitive_t primitive;
    dnnl_primitive_desc_t pd;
    dnnl_exec_arg_t args[KERNEL_MAX_ARGS];
    int n_args;
    int post; /* index of a binary post-op, or -1 */
    struct layout *layout[KERNEL_MULTI];
    struct layout *multi[OP_MAX_IN];
    int n_multi;
};

/* What every primitive is compiled with; filled by the kernel_* functions. */
struct spec {
    const struct layout *src, *src1, *weights, *bias, *dst;
    dnnl_dims_t stride, kernel, dilation, pad_l, pad_r;
    dnnl_prop_kind_t prop; /* convolutions */
    dnnl_alg_kind_t alg;
    float alpha, beta, k;
    int64_t size;
    dnnl_primitive_attr_t attr;
};

int onednn_failed(dnnl_status_t s, const char *what, struct error *err);
dnnl_data_type_t onednn_type(enum dtype t);
/* Convolution weights [o,c/g,kh,kw]; tag5 where they are parted in groups. */
struct layout *layout_weights(const struct shape *w, int group, enum dtype type,
                              dnnl_format_tag_t tag4, dnnl_format_tag_t tag5);
/* Scratch memory is the plan's, so that running allocates nothing. ops may be
 * NULL. NULL when memory is out. */
dnnl_primitive_attr_t kernel_attr(dnnl_post_ops_t ops);
/* Takes pd and attr, also on failure. */
struct kernel *kernel_finish(struct onednn *dn, dnnl_status_t s,
                             dnnl_primitive_desc_t take_pd,
                             dnnl_primitive_attr_t take_attr, const char *what,
                             struct error *err);

/* What differs by version: *pd becomes a compiled description. */
#if ONEDNN_V3
struct layout *version_copy(const_dnnl_memory_desc_t md);
#else
struct layout *version_copy(const dnnl_memory_desc_t *md);
#endif
struct layout *version_layout(int rank, const dnnl_dims_t dims,
                              dnnl_data_type_t type, dnnl_format_tag_t tag);
dnnl_status_t version_conv(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd);
dnnl_status_t version_pool(struct onednn *dn, const struct spec *s,
                           dnnl_primitive_desc_t *pd);
dnnl_status_t version_lrn(struct onednn *dn, const struct spec *s,
                          dnnl_primitive_desc_t *pd);
dnnl_status_t version_eltwise(struct onednn *dn, const struct spec *s,
                              dnnl_primitive_desc_t *pd);
dnnl_status_t version_binary(struct onednn *dn, const struct spec *s,
                             dnnl_primitive_desc_t *pd);
dnnl_status_t version_prelu(struct onednn *dn, const struct spec *s,
                            dnnl_primitive_desc_t *pd);
dnnl_status_t version_concat(struct onednn *dn, struct layout *const src[],
                             int n, int axis, dnnl_primitive_attr_t attr,
                             dnnl_primitive_desc_t *pd);
dnnl_status_t version_append_sum(dnnl_post_ops_t ops);
dnnl_status_t version_append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t alg,
                                     float alpha, float beta);
/* Backward of a convolution; forward: the description of its forward pass. */
dnnl_status_t version_conv_back_data(struct onednn *dn, const struct spec *s,
                                     const_dnnl_primitive_desc_t forward,
                                     dnnl_primitive_desc_t *pd);
dnnl_status_t version_conv_back_weights(struct onednn *dn, const struct spec *s,
                                        const_dnnl_primitive_desc_t forward,
                                        dnnl_primitive_desc_t *pd);

#endif
