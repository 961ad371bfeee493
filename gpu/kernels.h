/* gpu/kernels.h - our own kernels, one launcher each: arith_x of
 * gpu/arith_ops.h over all pieces, on a stream. type is an enum gtype.
 * On the card in kernels.cu, as loops in tests/gpu. ERR_DEVICE. */
#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

#include "gpu/arith_ops.h"
#include "gpu/card.h"

#ifdef __cplusplus
extern "C" {
#endif

int kernels_from_nchw(const struct arith_move *a, int type, struct stream *s,
                      struct error *err);
int kernels_to_nchw(const struct arith_move *a, int type, struct stream *s,
                    struct error *err);
int kernels_unary(const struct arith_unary *a, int type, struct stream *s,
                  struct error *err);
int kernels_binary(const struct arith_binary *a, int type, struct stream *s,
                   struct error *err);
int kernels_pool(const struct arith_pool *a, int type, struct stream *s,
                 struct error *err);
int kernels_depthwise(const struct arith_conv *a, int type, struct stream *s,
                      struct error *err);
int kernels_conv(const struct arith_conv *a, int type, struct stream *s,
                 struct error *err);
int kernels_lrn(const struct arith_lrn *a, int type, struct stream *s,
                struct error *err);
int kernels_lines(const struct arith_lines *a, int type, struct stream *s,
                  struct error *err);
int kernels_gather(const struct arith_gather *a, int type, struct stream *s,
                   struct error *err);
int kernels_place(const struct arith_place *a, int type, struct stream *s,
                  struct error *err);
int kernels_concat(const struct arith_concat *a, int type, struct stream *s,
                   struct error *err);

#ifdef __cplusplus
}
#endif

#endif
