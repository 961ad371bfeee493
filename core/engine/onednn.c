/* core/engine/onednn.c - oneDNN's engine, layouts, and the kernels of a
 * forward pass. Those of a backward pass are in onednn_learn.c, what differs
 * between oneDNN's versions in onednn_version.c. */
#include "core/engine/onednn_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int onednn_failed(dnnl_status_t s, const char *what, struct error *err)
{
    if (s == dnnl_out_of_memory)
        return error_set(err, ERR_NOMEM, "oneDNN: no memory for %s", what);
    return error_set(err, ERR_DEVICE, "oneDNN: %s: status %d", what, (int)s);
}

dnnl_data_type_t onednn_type(enum dtype t)
{
    return t == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_format_tag_t plain_tag(int rank)
{
    static const dnnl_format_tag_t tags[] = {dnnl_x,   dnnl_x,    dnnl_nc,
                                             dnnl_abc, dnnl_abcd, dnnl_abcde};

    return tags[rank];
}

/* ---- memory descriptors -------------------------------------------- */

static struct layout *make(const struct shape *s, enum dtype type, bool any)
{
    dnnl_dims_t dims = {1};
    int rank = s->rank ? s->rank : 1;

    for (int i = 0; i < s->rank; i++)
        dims[i] = s->d[i];
    return version_layout(rank, dims, onednn_type(type),
                          any ? dnnl_format_tag_any : plain_tag(rank));
}

struct layout *layout_plain(const struct shape *s, enum dtype type)
{
    return make(s, type, false);
}

struct layout *layout_any(const struct shape *s, enum dtype type)
{
    return make(s, type, true);
}

struct layout *layout_dup(const struct layout *l)
{
    return version_copy(l->md);
}

void layout_free(struct layout *l)
{
    if (!l)
        return;
#if ONEDNN_V3
    if (l->md)
        dnnl_memory_desc_destroy(l->md);
#else
    free(l->md);
#endif
    free(l);
}

bool layout_equal(const struct layout *a, const struct layout *b)
{
    return dnnl_memory_desc_equal(a->md, b->md) != 0;
}

size_t layout_bytes(const struct layout *l)
{
    return dnnl_memory_desc_get_size(l->md);
}

struct layout *layout_last(const struct shape *s, enum dtype type)
{
    dnnl_dims_t dims = {s->d[0], s->d[1], s->d[2], s->d[3]};

    return s->rank == 4 ? version_layout(4, dims, onednn_type(type), dnnl_acdb)
                        : layout_plain(s, type);
}

bool layout_channels_last(const struct layout *l, const struct shape *s,
                          enum dtype type)
{
    struct layout *last = s->rank == 4 ? layout_last(s, type) : NULL;
    bool equal = last && layout_equal(l, last);

    layout_free(last);
    return equal;
}

/* ---- the engine ---------------------------------------------------- */

struct onednn *onednn_open(struct error *err)
{
    struct onednn *dn = calloc(1, sizeof(*dn));
    dnnl_status_t s;

    if (!dn)
        return error_null(err, ERR_NOMEM, "no memory for oneDNN");
    s = dnnl_engine_create(&dn->engine, dnnl_cpu, 0);
    if (s == dnnl_success)
        s = dnnl_stream_create(&dn->stream, dn->engine,
                               dnnl_stream_default_flags);
    if (s == dnnl_success)
        return dn;
    onednn_failed(s, "an engine", err);
    onednn_close(dn);
    return NULL;
}

void onednn_close(struct onednn *dn)
{
    if (!dn)
        return;
    if (dn->stream)
        dnnl_stream_destroy(dn->stream);
    if (dn->engine)
        dnnl_engine_destroy(dn->engine);
    free(dn);
}

void onednn_version(char *buf, size_t len)
{
    const dnnl_version_t *v = dnnl_version();

    snprintf(buf, len, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

static const struct {
    dnnl_cpu_isa_t isa;
    const char *name;
} isas[] = {
    {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
    {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
    {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
    {dnnl_cpu_isa_avx512_core, "avx512_core"},
    {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
    {dnnl_cpu_isa_avx2, "avx2"},
    {dnnl_cpu_isa_avx, "avx"},
    {dnnl_cpu_isa_sse41, "sse41"},
};

/* ISAs are sets of bits: one holds another when it has all of its bits. */
static bool has_isa(dnnl_cpu_isa_t isa)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) ==
           (unsigned)isa;
}

void onednn_isa(char *buf, size_t len)
{
    snprintf(buf, len, "generic");
    for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++)
        if (has_isa(isas[i].isa)) {
            snprintf(buf, len, "%s", isas[i].name);
            return;
        }
}

bool onednn_has_amx(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_amx);
}

bool onednn_has_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core);
}

/* ---- kernels ------------------------------------------------------- */

dnnl_primitive_attr_t kernel_attr(dnnl_post_ops_t ops)
{
    dnnl_primitive_attr_t attr = NULL;

    if (dnnl_primitive_attr_create(&attr) != dnnl_success)
        return NULL;
    if (dnnl_primitive_attr_set_scratchpad_mode(
            attr, dnnl_scratchpad_mode_user) != dnnl_success ||
        (ops && dnnl_primitive_attr_set_post_ops(attr, ops) != dnnl_success)) {
        dnnl_primitive_attr_destroy(attr);
        return NULL;
    }
    return attr;
}

static struct layout *queried(dnnl_primitive_desc_t pd, dnnl_query_t what,
                              int index)
{
    struct layout *l;
    const void *md = dnnl_primitive_desc_query_md(pd, what, index);

    if (!md)
        return NULL;
    l = version_copy(md);
    if (l && layout_bytes(l) == 0) { /* a zero descriptor: not there */
        layout_free(l);
        return NULL;
    }
    return l;
}

struct kernel *kernel_finish(struct onednn *dn, dnnl_status_t s,
                             dnnl_primitive_desc_t take_pd,
                             dnnl_primitive_attr_t take_attr, const char *what,
                             struct error *err)
{
    struct kernel *k = NULL;

    if (take_attr)
        dnnl_primitive_attr_destroy(take_attr);
    if (s == dnnl_success) {
        k = calloc(1, sizeof(*k));
        if (!k) {
            dnnl_primitive_desc_destroy(take_pd);
            s = dnnl_out_of_memory;
        }
    }
    if (!k) {
        onednn_failed(s, what, err);
        return NULL;
    }
    k->dn = dn;
    k->pd = take_pd;
    k->post = -1;
    s = dnnl_primitive_create(&k->primitive, take_pd);
    if (s != dnnl_success) {
        onednn_failed(s, what, err);
        kernel_free(k);
        return NULL;
    }
    k->layout[KERNEL_SRC] = queried(take_pd, dnnl_query_src_md, 0);
    k->layout[KERNEL_SRC1] = queried(take_pd, dnnl_query_src_md, 1);
    k->layout[KERNEL_WEIGHTS] = queried(take_pd, dnnl_query_weights_md, 0);
    k->layout[KERNEL_BIAS] = queried(take_pd, dnnl_query_weights_md, 1);
    k->layout[KERNEL_DST] = queried(take_pd, dnnl_query_dst_md, 0);
    k->layout[KERNEL_DIFF_SRC] = queried(take_pd, dnnl_query_diff_src_md, 0);
    k->layout[KERNEL_DIFF_WEIGHTS] =
        queried(take_pd, dnnl_query_diff_weights_md, 0);
    k->layout[KERNEL_DIFF_BIAS] =
        queried(take_pd, dnnl_query_diff_weights_md, 1);
    k->layout[KERNEL_DIFF_DST] = queried(take_pd, dnnl_query_diff_dst_md, 0);
    k->layout[KERNEL_SCRATCH] = queried(take_pd, dnnl_query_scratchpad_md, 0);
    if ((k->layout[KERNEL_SRC] || k->layout[KERNEL_DIFF_SRC]) &&
        (k->layout[KERNEL_DST] || k->layout[KERNEL_DIFF_DST]))
        return k;
    onednn_failed(dnnl_out_of_memory, what, err);
    kernel_free(k);
    return NULL;
}

static dnnl_status_t conv_post_ops(const struct op_conv *c, dnnl_post_ops_t ops)
{
    dnnl_status_t s = dnnl_success;

    if (c->residual)
        s = version_append_sum(ops);
    if (s == dnnl_success && c->act == ACT_RELU)
        s = version_append_eltwise(ops, dnnl_eltwise_relu, 0, 0);
    if (s == dnnl_success && c->act == ACT_CLIP)
        s = version_append_eltwise(ops, dnnl_eltwise_clip, c->lo, c->hi);
    return s; /* PReLU runs by itself: as a post-op 2.6 falls back to its
                 reference code, 200 times slower */
}

struct layout *layout_weights(const struct shape *w, int group, enum dtype type,
                              dnnl_format_tag_t tag4, dnnl_format_tag_t tag5)
{
    dnnl_dims_t d4 = {w->d[0], w->d[1], w->d[2], w->d[3]};
    dnnl_dims_t d5 = {group, w->d[0] / group, w->d[1], w->d[2], w->d[3]};

    return group == 1 ? version_layout(4, d4, onednn_type(type), tag4)
                      : version_layout(5, d5, onednn_type(type), tag5);
}

struct kernel *kernel_conv(struct onednn *dn, const struct op_conv *c,
                           const struct layout *src, const struct shape *w,
                           enum dtype type, const struct layout *dst,
                           const struct shape *dst_shape, struct error *err)
{
    dnnl_dims_t n_bias = {w->d[0]};
    struct layout *weights = layout_weights(
        w, c->group, type, dnnl_format_tag_any, dnnl_format_tag_any);
    struct layout *bias = version_layout(1, n_bias, dnnl_f32, dnnl_x);
    struct layout *any = layout_any(dst_shape, type);
    struct spec s = {.src = src,
                     .weights = weights,
                     .bias = bias,
                     .dst = dst ? dst : any,
                     .prop = dnnl_forward_inference,
                     .alg = dnnl_convolution_direct};
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = dnnl_post_ops_create(&ops);

    for (int i = 0; i < 2; i++) {
        s.stride[i] = c->stride[i];
        s.dilation[i] = c->dilation[i] - 1; /* oneDNN counts the gaps */
        s.pad_l[i] = c->pad[i];
        s.pad_r[i] = c->pad[2 + i];
    }
    if (rc == dnnl_success)
        rc = conv_post_ops(c, ops);
    if (rc == dnnl_success) {
        s.attr = kernel_attr(ops);
        rc = weights && bias && any && s.attr ? version_conv(dn, &s, &pd)
                                              : dnnl_out_of_memory;
    }
    if (ops)
        dnnl_post_ops_destroy(ops);
    layout_free(weights);
    layout_free(bias);
    layout_free(any);
    return kernel_finish(dn, rc, pd, s.attr, "a convolution", err);
}

struct kernel *kernel_pool(struct onednn *dn, const struct op *op,
                           const struct layout *src,
                           const struct shape *src_shape,
                           const struct shape *dst_shape, enum dtype type,
                           struct error *err)
{
    const struct op_pool *p = &op->u.pool;
    struct layout *any = layout_any(dst_shape, type);
    struct spec s = {.src = src, .dst = any};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = dnnl_out_of_memory;

    s.alg = op->type == OP_MAX_POOL ? dnnl_pooling_max
            : p->count_pad          ? dnnl_pooling_avg_include_padding
                                    : dnnl_pooling_avg_exclude_padding;
    for (int i = 0; i < 2; i++) {
        int far_pad = 0;

        s.kernel[i] = p->global ? src_shape->d[2 + i] : p->kernel[i];
        s.stride[i] = p->global ? 1 : p->stride[i];
        s.pad_l[i] = p->global ? 0 : p->pad[i];
        if (!p->global)
            op_window(src_shape->d[2 + i], p->kernel[i], p->stride[i], 1,
                      p->pad[i], p->pad[2 + i], p->ceil_mode, &far_pad);
        s.pad_r[i] = far_pad;
    }
    s.attr = kernel_attr(NULL);
    if (any && s.attr)
        rc = version_pool(dn, &s, &pd);
    layout_free(any);
    return kernel_finish(dn, rc, pd, s.attr, "a pool", err);
}

struct kernel *kernel_lrn(struct onednn *dn, const struct op_lrn *lrn,
                          const struct layout *src, struct error *err)
{
    struct spec s = {.src = src,
                     .alg = dnnl_lrn_across_channels,
                     .size = lrn->size,
                     .alpha = lrn->alpha,
                     .beta = lrn->beta,
                     .k = lrn->bias,
                     .attr = kernel_attr(NULL)};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = s.attr ? version_lrn(dn, &s, &pd) : dnnl_out_of_memory;

    return kernel_finish(dn, rc, pd, s.attr, "a normalisation", err);
}

struct kernel *kernel_act(struct onednn *dn, const struct op *op,
                          const struct layout *src, struct error *err)
{
    struct spec s = {.src = src, .attr = kernel_attr(NULL)};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc;

    s.alg = op->type == OP_RELU      ? dnnl_eltwise_relu
            : op->type == OP_SIGMOID ? dnnl_eltwise_logistic
                                     : dnnl_eltwise_clip;
    if (op->type == OP_CLIP) {
        s.alpha = op->u.clip.lo;
        s.beta = op->u.clip.hi;
    }
    rc = s.attr ? version_eltwise(dn, &s, &pd) : dnnl_out_of_memory;
    return kernel_finish(dn, rc, pd, s.attr, "an activation", err);
}

struct kernel *kernel_add(struct onednn *dn, enum op_type type,
                          const struct layout *a, const struct layout *b,
                          struct error *err)
{
    struct spec s = {.src = a, .src1 = b, .attr = kernel_attr(NULL)};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc;

    s.alg = type == OP_ADD   ? dnnl_binary_add
            : type == OP_SUB ? dnnl_binary_sub
            : type == OP_MUL ? dnnl_binary_mul
            : type == OP_DIV ? dnnl_binary_div
                             : dnnl_binary_max;
    rc = s.attr ? version_binary(dn, &s, &pd) : dnnl_out_of_memory;
    return kernel_finish(dn, rc, pd, s.attr, "arithmetic", err);
}

static struct layout *by_channel(int rank, int channels, bool any)
{
    dnnl_dims_t dims = {1, channels, 1, 1};

    return version_layout(rank, dims, dnnl_f32,
                          any ? dnnl_format_tag_any : plain_tag(rank));
}

struct kernel *kernel_affine(struct onednn *dn, const struct layout *src,
                             int rank, int channels, struct error *err)
{
    struct layout *one = by_channel(rank, channels, false);
    struct spec s = {.src = src, .src1 = one, .alg = dnnl_binary_mul};
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    struct kernel *k;
    dnnl_status_t rc = dnnl_post_ops_create(&ops);

    if (rc == dnnl_success && one)
        rc = dnnl_post_ops_append_binary(ops, dnnl_binary_add, one->md);
    if (rc == dnnl_success) {
        s.attr = kernel_attr(ops);
        rc = one && s.attr ? version_binary(dn, &s, &pd) : dnnl_out_of_memory;
    }
    if (ops)
        dnnl_post_ops_destroy(ops);
    k = kernel_finish(dn, rc, pd, s.attr, "a scale and shift", err);
    if (k) {
        k->post = 0;
        k->layout[KERNEL_POST] = one;
    } else {
        layout_free(one);
    }
    return k;
}

struct kernel *kernel_prelu(struct onednn *dn, const struct layout *src,
                            int rank, int channels, struct error *err)
{
    /* Slopes lie as the input's channels do: without AVX-512, 2.6 has only its
     * reference code for any other form, twenty times slower. */
    struct layout *slope = by_channel(rank, channels, true);
    struct spec s = {.src = src, .weights = slope, .attr = kernel_attr(NULL)};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc =
        slope && s.attr ? version_prelu(dn, &s, &pd) : dnnl_out_of_memory;

    layout_free(slope);
    return kernel_finish(dn, rc, pd, s.attr, "a PReLU", err);
}

struct kernel *kernel_concat(struct onednn *dn, struct layout *const src[],
                             int n, int axis, struct error *err)
{
    dnnl_primitive_attr_t attr = kernel_attr(NULL);
    dnnl_primitive_desc_t pd = NULL;
    struct kernel *k;
    dnnl_status_t rc =
        attr ? version_concat(dn, src, n, axis, attr, &pd) : dnnl_out_of_memory;

    k = kernel_finish(dn, rc, pd, attr, "a concatenation", err);
    for (int i = 0; k && i < n; i++, k->n_multi++)
        if (!(k->multi[i] = layout_dup(src[i]))) {
            kernel_free(k);
            return error_null(err, ERR_NOMEM, "no memory for a kernel");
        }
    return k;
}

struct kernel *kernel_reorder(struct onednn *dn, const struct layout *from,
                              const struct layout *to, struct error *err)
{
    dnnl_primitive_attr_t attr = kernel_attr(NULL);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc =
        attr ? dnnl_reorder_primitive_desc_create(&pd, from->md, dn->engine,
                                                  to->md, dn->engine, attr)
             : dnnl_out_of_memory;

    return kernel_finish(dn, rc, pd, attr, "a reorder", err);
}

const struct layout *kernel_layout(const struct kernel *k, enum kernel_arg arg)
{
    return k->layout[arg];
}

size_t kernel_scratch_bytes(const struct kernel *k)
{
    const struct layout *l = k->layout[KERNEL_SCRATCH];

    return l ? layout_bytes(l) : 0;
}

/* oneDNN's number of an argument, and how it lies. */
static int arg_number(const struct kernel *k, int arg,
                      const struct layout **lay)
{
    static const int number[KERNEL_MULTI] = {
        [KERNEL_SRC] = DNNL_ARG_SRC,
        [KERNEL_SRC1] = DNNL_ARG_SRC_1,
        [KERNEL_WEIGHTS] = DNNL_ARG_WEIGHTS,
        [KERNEL_BIAS] = DNNL_ARG_BIAS,
        [KERNEL_DST] = DNNL_ARG_DST,
        [KERNEL_DIFF_SRC] = DNNL_ARG_DIFF_SRC,
        [KERNEL_DIFF_WEIGHTS] = DNNL_ARG_DIFF_WEIGHTS,
        [KERNEL_DIFF_BIAS] = DNNL_ARG_DIFF_BIAS,
        [KERNEL_DIFF_DST] = DNNL_ARG_DIFF_DST,
        [KERNEL_SCRATCH] = DNNL_ARG_SCRATCHPAD};

    if (arg >= KERNEL_MULTI) {
        *lay = k->multi[arg - KERNEL_MULTI];
        return DNNL_ARG_MULTIPLE_SRC + arg - KERNEL_MULTI;
    }
    *lay = k->layout[arg];
    if (arg == KERNEL_POST)
        return DNNL_ARG_ATTR_MULTIPLE_POST_OP(k->post) | DNNL_ARG_SRC_1;
    return number[arg];
}

int kernel_bind(struct kernel *k, int arg, void *memory, struct error *err)
{
    const struct layout *l;
    dnnl_exec_arg_t *a = &k->args[k->n_args];
    dnnl_status_t s;
    int number = arg_number(k, arg, &l);

    if (!l || k->n_args == KERNEL_MAX_ARGS)
        return error_set(err, ERR_DEVICE, "a kernel has no argument %d", arg);
    s = dnnl_memory_create(&a->memory, l->md, k->dn->engine, memory);
    if (s != dnnl_success)
        return onednn_failed(s, "an argument", err);
    a->arg = number;
    k->n_args++;
    return 0;
}

int kernel_run(struct kernel *k, struct error *err)
{
    dnnl_status_t s =
        dnnl_primitive_execute(k->primitive, k->dn->stream, k->n_args, k->args);

    return s == dnnl_success ? 0 : onednn_failed(s, "running a kernel", err);
}

void kernel_free(struct kernel *k)
{
    if (!k)
        return;
    for (int i = 0; i < k->n_args; i++)
        dnnl_memory_destroy(k->args[i].memory);
    for (int i = 0; i < KERNEL_MULTI; i++)
        layout_free(k->layout[i]);
    for (int i = 0; i < k->n_multi; i++)
        layout_free(k->multi[i]);
    if (k->primitive)
        dnnl_primitive_destroy(k->primitive);
    if (k->pd)
        dnnl_primitive_desc_destroy(k->pd);
    free(k);
}

int kernel_pack_weights(struct kernel *k, const float *w,
                        const struct shape *shape, int group, void *out,
                        struct error *err)
{
    struct layout *from =
        layout_weights(shape, group, DTYPE_F32, dnnl_abcd, dnnl_abcde);
    struct kernel *r = NULL;
    void *scratch = NULL;
    int rc = -1;

    if (!from) {
        error_set(err, ERR_NOMEM, "no memory for weights");
        return -1;
    }
    r = kernel_reorder(k->dn, from, k->layout[KERNEL_WEIGHTS], err);
    if (!r)
        goto out;
    if (kernel_scratch_bytes(r) &&
        !(scratch = tensor_alloc(kernel_scratch_bytes(r) / 4 + 1))) {
        error_set(err, ERR_NOMEM, "no memory for weights");
        goto out;
    }
    /* oneDNN takes void *, and only reads the source. */
    if (kernel_bind(r, KERNEL_SRC, (void *)(uintptr_t)w, err) ||
        kernel_bind(r, KERNEL_DST, out, err) ||
        (scratch && kernel_bind(r, KERNEL_SCRATCH, scratch, err)))
        goto out;
    rc = kernel_run(r, err);
out:
    kernel_free(r);
    layout_free(from);
    free(scratch);
    return rc;
}
