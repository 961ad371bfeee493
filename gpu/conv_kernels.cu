/* gpu/conv_kernels.cu - see the header. A kernel is a loop over the pieces of
 * one function of gpu/arith_conv.h; parts of a sum are joined by a warp for
 * each eight numbers, in an order that does not change. */
/* C++ of its own, so before anything that is C. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "gpu/conv_kernels.h"
}
#include "gpu/launch.cuh"

PIECES(conv_back_data, struct arith_conv_back, arith_numbers(&a->x))
PIECES(conv_back_weights, struct arith_conv_back, arith_conv_weights(a))
PIECES(depthwise_back_data, struct arith_conv_back, arith_pieces(&a->x))
PIECES(widen, struct arith_widen, a->n / ARITH_LANES)
LAUNCH(depthwise_back_weights, struct arith_conv_back,
       arith_depthwise_parts(a) * (arith_depthwise_count(a) / ARITH_LANES))
LAUNCH(column_sums, struct arith_columns,
       arith_columns_parts(a) * ((uint32_t)arith_padded(a->y.c) / ARITH_LANES))

/* ---- parts to their sum ------------------------------------------------ */

static __global__ void __launch_bounds__(THREADS)
    join_kernel(const struct arith_join a)
{
    uint32_t lane = threadIdx.x % WARP, step = gridDim.x * (THREADS / WARP);

    for (uint32_t i = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
         i < a.count / ARITH_LANES; i += step) {
        float sum[ARITH_LANES];

        arith_join_sum(&a, i * ARITH_LANES, lane, WARP, sum);
        for (int k = 0; k < ARITH_LANES; k++)
            sum[k] = total<WARP>(sum[k]);
        if (lane == 0)
            arith_join_write(&a, i * ARITH_LANES, sum);
    }
}

static int join(const struct arith_join *a, struct stream *s, struct error *err)
{
    cudaStream_t on = (cudaStream_t)card_stream_handle(s);

    join_kernel<<<blocks_of(a->count / ARITH_LANES * WARP), THREADS, 0, on>>>(
        *a);
    return card_launched(s, "join", err);
}

int kernels_depthwise_back_weights(const struct arith_conv_back *a, int type,
                                   struct stream *s, struct error *err)
{
    struct arith_join j = {a->scratch, a->dw, arith_depthwise_count(a),
                           arith_depthwise_parts(a), a->add};

    return launch_depthwise_back_weights(a, type, s, err) || join(&j, s, err)
               ? -1
               : 0;
}

int kernels_column_sums(const struct arith_columns *a, int type,
                        struct stream *s, struct error *err)
{
    struct arith_join j = {a->scratch, a->sums, (uint32_t)arith_padded(a->y.c),
                           arith_columns_parts(a), a->add};

    return launch_column_sums(a, type, s, err) || join(&j, s, err) ? -1 : 0;
}
