/* gpu/kernels.cu - see the header. A kernel is a loop over the pieces of one
 * function of gpu/arith_ops.h; nothing is computed here but which piece is
 * whose. Lines are shared by a warp where they are long. */
/* C++ of its own, so before anything that is C. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "gpu/kernels.h"
}
#include "gpu/launch.cuh"

enum {
    LONG_LINE = 64 /* numbers from which a warp shares a line */
};

PIECES(from_nchw, struct arith_move, arith_pieces(&a->a))
PIECES(to_nchw, struct arith_move, arith_pixels(&a->a) * (uint32_t)a->a.c)
PIECES(unary, struct arith_unary, arith_pieces(&a->x))
PIECES(binary, struct arith_binary, arith_pieces(&a->x))
PIECES(pool, struct arith_pool, arith_pieces(&a->y))
PIECES(depthwise, struct arith_conv, arith_pieces(&a->y))
PIECES(conv, struct arith_conv, arith_numbers(&a->y))
PIECES(lrn, struct arith_lrn, arith_numbers(&a->y))
PIECES(gather, struct arith_gather, arith_numbers(&a->y))
PIECES(place, struct arith_place, arith_place_count(a))
PIECES(concat, struct arith_concat, arith_pieces(&a->y))

/* ---- lines ------------------------------------------------------------- */

template <int LANES> static __device__ float greatest(float v)
{
    for (int k = LANES / 2; k > 0; k /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, k));
    return v;
}

/* All threads of a warp have the same line, or each its own. */
template <int TYPE, int LANES>
static __global__ void __launch_bounds__(THREADS)
    lines_kernel(const struct arith_lines a, uint32_t n)
{
    int lane = (int)(threadIdx.x % LANES);
    uint32_t step = gridDim.x * (THREADS / LANES);

    for (uint32_t i = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
         i < n; i += step) {
        struct arith_line l = arith_line(&a, i);
        float top = arith_line_top(&a, l, lane, LANES, TYPE), sum;

        if (LANES > 1)
            top = greatest<LANES>(top);
        sum = arith_line_sum(&a, l, top, lane, LANES, TYPE);
        if (LANES > 1)
            sum = total<LANES>(sum);
        arith_line_write(&a, l, top, sum, lane, LANES, TYPE);
    }
}

template <int TYPE>
static void launch_lines(const struct arith_lines *a, uint32_t n, bool shared,
                         cudaStream_t on)
{
    if (shared)
        lines_kernel<TYPE, WARP>
            <<<blocks_of(n * WARP), THREADS, 0, on>>>(*a, n);
    else
        lines_kernel<TYPE, 1><<<blocks_of(n), THREADS, 0, on>>>(*a, n);
}

int kernels_lines(const struct arith_lines *a, int type, struct stream *s,
                  struct error *err)
{
    uint32_t n = arith_line_count(a);
    cudaStream_t on = (cudaStream_t)card_stream_handle(s);
    bool shared = a->axis == 1 && a->x.c >= LONG_LINE &&
                  n < UINT32_MAX / WARP / 2;

    if (type == GTYPE_F32)
        launch_lines<GTYPE_F32>(a, n, shared, on);
    else if (type == GTYPE_F16)
        launch_lines<GTYPE_F16>(a, n, shared, on);
    else
        launch_lines<GTYPE_BF16>(a, n, shared, on);
    return card_launched(s, "lines", err);
}
