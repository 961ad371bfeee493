/* gpu/learn_kernels.h - our own kernels of networks that learn, one launcher
 * each: arith_x of gpu/arith_learn.h over all pieces, and those of
 * gpu/arith_norm.h, on a stream. type is an enum gtype. On the card in
 * learn_kernels.cu, as loops in tests/gpu. ERR_DEVICE. */
#ifndef GPU_LEARN_KERNELS_H
#define GPU_LEARN_KERNELS_H

#include "gpu/arith_learn.h"
#include "gpu/card.h"

#ifdef __cplusplus
extern "C" {
#endif

int kernels_blend(const struct arith_blend *a, int type, struct stream *s,
                  struct error *err);
int kernels_pair_back(const struct arith_pair_back *a, int type,
                      struct stream *s, struct error *err);
int kernels_unary_back(const struct arith_unary_back *a, int type,
                       struct stream *s, struct error *err);
int kernels_max_back(const struct arith_max_back *a, int type, struct stream *s,
                     struct error *err);
int kernels_dropout(const struct arith_dropout *a, int type, struct stream *s,
                    struct error *err);
int kernels_part(const struct arith_part *a, int type, struct stream *s,
                 struct error *err);
int kernels_flat_back(const struct arith_flat_back *a, int type,
                      struct stream *s, struct error *err);
int kernels_max_pool(const struct arith_max_pool *a, int type, struct stream *s,
                     struct error *err);
int kernels_pool_back(const struct arith_pool_back *a, int type,
                      struct stream *s, struct error *err);
int kernels_lrn_forward(const struct arith_lrn_learn *a, int type,
                        struct stream *s, struct error *err);
int kernels_lrn_back(const struct arith_lrn_learn *a, int type,
                     struct stream *s, struct error *err);
int kernels_lines_back(const struct arith_lines_back *a, int type,
                       struct stream *s, struct error *err);

/* Sums down the rows and what becomes of them, two kernels. */
int kernels_sums(const struct arith_channels *a, int type, struct stream *s,
                 struct error *err);
/* Of batch norm: scale and the like from statistics that are given; every row
 * forward; every row backward. */
int kernels_norm_rest(const struct arith_norm *a, struct stream *s,
                      struct error *err);
int kernels_norm_forward(const struct arith_norm *a, int type, struct stream *s,
                         struct error *err);
int kernels_norm_backward(const struct arith_norm *a, int type,
                          struct stream *s, struct error *err);

#ifdef __cplusplus
}
#endif

#endif
