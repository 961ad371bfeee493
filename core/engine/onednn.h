/* core/engine/onednn.h - oneDNN behind a few opaque things.
 * The only place that knows oneDNN's C API, so that 2.x (Debian 12) and 3.x
 * (Debian 13), which differ in it, both serve. Used by cpu.c alone.
 * A layout says how a tensor lies in memory; a kernel is one compiled
 * primitive with its arguments bound to memory. */
#ifndef CORE_ENGINE_ONEDNN_H
#define CORE_ENGINE_ONEDNN_H

#include "core/engine/op.h"

enum dtype {
    DTYPE_F32,
    DTYPE_BF16
};

struct onednn; /* engine and stream; one thread */
struct layout;
struct kernel;

struct onednn *onednn_open(struct error *err);
void onednn_close(struct onednn *dn);
/* "oneDNN 2.6.3", "avx512_core_bf16" into buffers. */
void onednn_version(char *buf, size_t len);
void onednn_isa(char *buf, size_t len);
bool onednn_has_amx(void);  /* bf16 quicker than f32 */
bool onednn_has_bf16(void); /* bf16 possible */

/* Packed row-major, or any (the kernel chooses). Owned; NULL when memory is
 * out. */
struct layout *layout_plain(const struct shape *s, enum dtype type);
struct layout *layout_any(const struct shape *s, enum dtype type);
/* [n,c,h,w]: the channels of a pixel side by side; other ranks: packed. */
struct layout *layout_last(const struct shape *s, enum dtype type);
struct layout *layout_dup(const struct layout *l);
void layout_free(struct layout *l);
bool layout_equal(const struct layout *a, const struct layout *b);
size_t layout_bytes(const struct layout *l);
/* [n,c,h,w] with nothing between, the channels of a pixel side by side. */
bool layout_channels_last(const struct layout *l, const struct shape *s,
                          enum dtype type);

/* Arguments that a kernel binds. */
enum kernel_arg {
    KERNEL_SRC,
    KERNEL_SRC1,    /* binary: the other operand */
    KERNEL_WEIGHTS, /* convolution, PReLU slopes */
    KERNEL_BIAS,
    KERNEL_DST,
    KERNEL_POST, /* affine: the shift */
    KERNEL_DIFF_SRC,
    KERNEL_DIFF_WEIGHTS,
    KERNEL_DIFF_BIAS,
    KERNEL_DIFF_DST,
    KERNEL_SCRATCH,
    KERNEL_MULTI /* concat: KERNEL_MULTI + i */
};

/* Each compiles a primitive for the given layouts (src fixed or any; dst
 * fixed, any, or NULL: any); ask kernel_layout for what was chosen. NULL with
 * ERR_DEVICE. */
struct kernel *kernel_conv(struct onednn *dn, const struct op_conv *c,
                           const struct layout *src, const struct shape *w,
                           enum dtype type, const struct layout *dst,
                           const struct shape *dst_shape, struct error *err);
struct kernel *kernel_pool(struct onednn *dn, const struct op *op,
                           const struct layout *src,
                           const struct shape *src_shape,
                           const struct shape *dst_shape, enum dtype type,
                           struct error *err);
struct kernel *kernel_lrn(struct onednn *dn, const struct op_lrn *lrn,
                          const struct layout *src, struct error *err);
struct kernel *kernel_act(struct onednn *dn, const struct op *op,
                          const struct layout *src, struct error *err);
struct kernel *kernel_add(struct onednn *dn, enum op_type type,
                          const struct layout *a, const struct layout *b,
                          struct error *err);
/* x * scale[c] + shift[c]; weights bound as SRC1 and POST, f32. */
struct kernel *kernel_affine(struct onednn *dn, const struct layout *src,
                             int rank, int channels, struct error *err);
struct kernel *kernel_prelu(struct onednn *dn, const struct layout *src,
                            int rank, int channels, struct error *err);
struct kernel *kernel_concat(struct onednn *dn, struct layout *const src[],
                             int n, int axis, struct error *err);
struct kernel *kernel_reorder(struct onednn *dn, const struct layout *from,
                              const struct layout *to, struct error *err);

/* A convolution of a network that learns: forward, the loss by its input, the
 * loss by its weights (and bias). src, dst: layouts of input and output or of
 * the loss by them, fixed or any; type: of the weights, f32 where the loss by
 * them is the result. Arguments: SRC WEIGHTS BIAS DST; DIFF_SRC WEIGHTS
 * DIFF_DST; SRC DIFF_WEIGHTS DIFF_BIAS DIFF_DST. forward: the kernel of the
 * first pass, for the other two. */
enum conv_pass {
    CONV_FORWARD,
    CONV_BACK_DATA,
    CONV_BACK_WEIGHTS
};
struct kernel *kernel_conv_learn(struct onednn *dn, enum conv_pass pass,
                                 const struct op_conv *c,
                                 const struct kernel *forward,
                                 const struct layout *src,
                                 const struct shape *w, enum dtype type,
                                 bool bias, const struct layout *dst,
                                 struct error *err);
/* Weights [o,c/g,kh,kw] as files hold them. */
struct layout *layout_conv_weights(const struct shape *w, int group);
/* y [n,m] = beta y + op(a) op(b), row-major, over OpenMP's threads; op: the
 * transpose where asked. a [n,k] or [k,n]; b [k,m] or [m,k]. */
int onednn_gemm(bool transpose_a, bool transpose_b, int n, int m, int k,
                const float *a, const float *b, float beta, float *y,
                struct error *err);

/* What the primitive wants there: borrowed from the kernel. */
const struct layout *kernel_layout(const struct kernel *k, enum kernel_arg arg);
size_t kernel_scratch_bytes(const struct kernel *k);
/* memory: of the argument's layout; must outlive the kernel's runs. */
int kernel_bind(struct kernel *k, int arg, void *memory, struct error *err);
/* Runs to completion. */
int kernel_run(struct kernel *k, struct error *err);
void kernel_free(struct kernel *k);

/* Convolution weights [o,c/g,kh,kw] f32 packed into the kernel's layout. */
int kernel_pack_weights(struct kernel *k, const float *w,
                        const struct shape *shape, int group, void *out,
                        struct error *err);

#endif
