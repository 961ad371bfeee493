/* gpu/conv_kernels.h - backward passes of convolutions by kernels of our own,
 * and sums over pixels, one launcher each: gpu/arith_conv.h over all pieces, on
 * a stream. type is an enum gtype. kernels_conv_back_* take any convolution and
 * are slow. What goes through a->scratch writes it anew and leaves it.
 * On the card in conv_kernels.cu, as loops in tests/gpu. ERR_DEVICE. */
#ifndef GPU_CONV_KERNELS_H
#define GPU_CONV_KERNELS_H

#include "gpu/arith_conv.h"
#include "gpu/card.h"

#ifdef __cplusplus
extern "C" {
#endif

int kernels_conv_back_data(const struct arith_conv_back *a, int type,
                           struct stream *s, struct error *err);
int kernels_conv_back_weights(const struct arith_conv_back *a, int type,
                              struct stream *s, struct error *err);
int kernels_depthwise_back_data(const struct arith_conv_back *a, int type,
                                struct stream *s, struct error *err);
int kernels_depthwise_back_weights(const struct arith_conv_back *a, int type,
                                   struct stream *s, struct error *err);
int kernels_column_sums(const struct arith_columns *a, int type,
                        struct stream *s, struct error *err);
int kernels_widen(const struct arith_widen *a, int type, struct stream *s,
                  struct error *err);

#ifdef __cplusplus
}
#endif

#endif
