/* gpu/learn_kernels.cu - see the header. A kernel is a loop over the pieces of
 * one function of gpu/arith_learn.h; lines are shared by a warp where they are
 * long; sums down the rows by the threads of a block, then by another for all
 * parts. */
/* C++ of its own, so before anything that is C. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "gpu/learn_kernels.h"
}
#include "gpu/launch.cuh"

PIECES(blend, struct arith_blend, arith_pieces(&a->y))
PIECES(pair_back, struct arith_pair_back, arith_pieces(&a->d))
PIECES(unary_back, struct arith_unary_back, arith_pieces(&a->d))
PIECES(max_back, struct arith_max_back, arith_pieces(&a->y))
PIECES(dropout, struct arith_dropout, arith_pieces(&a->x))
PIECES(part, struct arith_part, arith_pieces(&a->y))
PIECES(flat_back, struct arith_flat_back, arith_pieces(&a->dx))
PIECES(max_pool, struct arith_max_pool, arith_pieces(&a->pool.y))
PIECES(pool_back, struct arith_pool_back, arith_pieces(&a->dx))
PIECES(lrn_forward, struct arith_lrn_learn, arith_numbers(&a->x))
PIECES(lrn_back, struct arith_lrn_learn, arith_numbers(&a->x))

static cudaStream_t on(struct stream *s)
{
    return (cudaStream_t)card_stream_handle(s);
}

/* ---- lines ------------------------------------------------------------- */

enum {
    LONG_LINE = 64 /* numbers from which a warp shares a line */
};

template <int TYPE, int LANES>
static __global__ void __launch_bounds__(THREADS)
    lines_back_kernel(const struct arith_lines_back a, uint32_t n)
{
    int lane = (int)(threadIdx.x % LANES);
    uint32_t step = gridDim.x * (THREADS / LANES);

    for (uint32_t i = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
         i < n; i += step) {
        float sum[2];

        arith_lines_sums(&a, i, lane, LANES, TYPE, sum);
        sum[0] = total<LANES>(sum[0]);
        sum[1] = total<LANES>(sum[1]);
        arith_lines_give(&a, i, lane, LANES, TYPE, sum);
    }
}

template <int TYPE>
static void launch_lines_back(const struct arith_lines_back *a, uint32_t n,
                              cudaStream_t stream)
{
    if (a->d.c >= LONG_LINE && n < UINT32_MAX / WARP / 2)
        lines_back_kernel<TYPE, WARP>
            <<<blocks_of(n * WARP), THREADS, 0, stream>>>(*a, n);
    else
        lines_back_kernel<TYPE, 1>
            <<<blocks_of(n), THREADS, 0, stream>>>(*a, n);
}

int kernels_lines_back(const struct arith_lines_back *a, int type,
                       struct stream *s, struct error *err)
{
    uint32_t n = arith_pixels(&a->d);

    if (type == GTYPE_F32)
        launch_lines_back<GTYPE_F32>(a, n, on(s));
    else if (type == GTYPE_F16)
        launch_lines_back<GTYPE_F16>(a, n, on(s));
    else
        launch_lines_back<GTYPE_BF16>(a, n, on(s));
    return card_launched(s, "lines_back", err);
}

/* ---- sums down the rows ------------------------------------------------ */

/* What the n threads of a block that share eight channels found, joined two by
 * two; they stand `step` apart. The first has the sum. */
template <int KIND, int THEN>
static __device__ void join_threads(struct arith_sums *shared, int at, int lane,
                                    int n, int step, bool works,
                                    struct arith_sums *own)
{
    if (works)
        shared[at] = *own;
    while (n > 1) {
        int half = (n + 1) / 2;

        __syncthreads();
        if (works && lane + half < n) {
            arith_sums_join(own, &shared[at + half * step], KIND, THEN);
            shared[at] = *own;
        }
        n = half;
    }
}

template <int TYPE, int KIND, int THEN>
static __global__ void __launch_bounds__(ARITH_TEAM)
    parts_kernel(const __grid_constant__ struct arith_channels a)
{
    __shared__ struct arith_sums shared[ARITH_TEAM];
    int at = (int)threadIdx.x, lane = at / a.cut.eights;
    int c0 = ((int)blockIdx.y * a.cut.eights + at % a.cut.eights) * ARITH_LANES;
    bool works = lane < a.cut.lanes && c0 < a.cut.c;
    struct arith_sums own;

    if (works)
        arith_sums_lane(&a, (int)blockIdx.x, lane, c0, TYPE, KIND, THEN, &own);
    join_threads<KIND, THEN>(shared, at, lane, a.cut.lanes, a.cut.eights, works,
                             &own);
    if (works && lane == 0)
        arith_sums_store(&a, (int)blockIdx.x, c0, KIND, THEN, &own);
}

template <int KIND, int THEN>
static __global__ void __launch_bounds__(ARITH_TEAM)
    finish_kernel(const __grid_constant__ struct arith_channels a)
{
    __shared__ struct arith_sums shared[ARITH_TEAM];
    int eight = (int)blockIdx.x, lane = (int)threadIdx.x;
    struct arith_sums own;

    arith_sums_gather(&a, eight, lane, ARITH_TEAM, KIND, THEN, &own);
    join_threads<KIND, THEN>(shared, lane, lane, ARITH_TEAM, 1, true, &own);
    if (lane == 0)
        arith_sums_finish(&a, eight, KIND, THEN, &own);
}

template <int TYPE, int KIND, int THEN>
static int launch_sums(const struct arith_channels *a, struct stream *s,
                       struct error *err)
{
    dim3 grid((unsigned)a->cut.parts, (unsigned)a->cut.groups);
    int eights = a->one ? 1 : arith_padded(a->cut.c) / ARITH_LANES;

    parts_kernel<TYPE, KIND, THEN><<<grid, ARITH_TEAM, 0, on(s)>>>(*a);
    if (card_launched(s, "sums", err))
        return -1;
    finish_kernel<KIND, THEN>
        <<<(unsigned)eights, ARITH_TEAM, 0, on(s)>>>(*a);
    return card_launched(s, "sums", err);
}

template <int TYPE>
static int sums_of(const struct arith_channels *a, struct stream *s,
                   struct error *err)
{
    switch (a->kind) {
    case ARITH_MOMENTS:
        return launch_sums<TYPE, ARITH_MOMENTS, ARITH_NONE>(a, s, err);
    case ARITH_PRELU_BACK:
        return launch_sums<TYPE, ARITH_PRELU_BACK, ARITH_NONE>(a, s, err);
    case ARITH_AFFINE_BACK:
        return launch_sums<TYPE, ARITH_AFFINE_BACK, ARITH_NONE>(a, s, err);
    case ARITH_SCALAR_BACK:
        return launch_sums<TYPE, ARITH_SCALAR_BACK, ARITH_NONE>(a, s, err);
    default:
        break;
    }
    if (a->norm.then == ARITH_RELU)
        return launch_sums<TYPE, ARITH_NORM_BACK, ARITH_RELU>(a, s, err);
    if (a->norm.then == ARITH_PRELU)
        return launch_sums<TYPE, ARITH_NORM_BACK, ARITH_PRELU>(a, s, err);
    return launch_sums<TYPE, ARITH_NORM_BACK, ARITH_NONE>(a, s, err);
}

int kernels_sums(const struct arith_channels *a, int type, struct stream *s,
                 struct error *err)
{
    if (type == GTYPE_F32)
        return sums_of<GTYPE_F32>(a, s, err);
    if (type == GTYPE_F16)
        return sums_of<GTYPE_F16>(a, s, err);
    return sums_of<GTYPE_BF16>(a, s, err);
}

/* ---- batch norm, row by row -------------------------------------------- */

static __global__ void __launch_bounds__(THREADS)
    norm_rest_kernel(const __grid_constant__ struct arith_norm a, int eights)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);

    if (i < eights)
        arith_norm_rest(&a, i * ARITH_LANES);
}

int kernels_norm_rest(const struct arith_norm *a, struct stream *s,
                      struct error *err)
{
    int eights = arith_padded(a->cut.c) / ARITH_LANES;

    norm_rest_kernel<<<blocks_of((uint32_t)eights), THREADS, 0, on(s)>>>(
        *a, eights);
    return card_launched(s, "norm_rest", err);
}

/* A thread keeps to its eight channels, whose vectors it reads once. */
template <int TYPE, int THEN, bool BACK>
static __global__ void __launch_bounds__(ARITH_TEAM)
    norm_rows_kernel(const __grid_constant__ struct arith_norm a)
{
    int lane = (int)threadIdx.x / a.cut.eights;
    int c0 = ((int)blockIdx.y * a.cut.eights +
              (int)threadIdx.x % a.cut.eights) * ARITH_LANES;
    uint32_t step = gridDim.x * (uint32_t)a.cut.lanes;
    struct arith_eight e;

    if (lane >= a.cut.lanes || c0 >= a.cut.c)
        return;
    arith_norm_eight(&a, c0, THEN, BACK, &e);
    for (uint32_t row = blockIdx.x * (uint32_t)a.cut.lanes + (uint32_t)lane;
         row < a.cut.rows; row += step)
        if (BACK)
            arith_norm_backward(&a, &e, row, c0, TYPE, THEN);
        else
            arith_norm_forward(&a, &e, row, c0, TYPE, THEN);
}

template <int TYPE, bool BACK>
static void launch_rows(const struct arith_norm *a, cudaStream_t stream)
{
    const uint32_t each = 4, most = 4096 / (uint32_t)a->cut.groups + 1;
    uint32_t team = (uint32_t)a->cut.lanes * each;
    uint32_t blocks = (a->cut.rows + team - 1) / team;
    dim3 grid(blocks < most ? blocks : most, (unsigned)a->cut.groups);

    if (a->then == ARITH_RELU)
        norm_rows_kernel<TYPE, ARITH_RELU, BACK>
            <<<grid, ARITH_TEAM, 0, stream>>>(*a);
    else if (a->then == ARITH_PRELU)
        norm_rows_kernel<TYPE, ARITH_PRELU, BACK>
            <<<grid, ARITH_TEAM, 0, stream>>>(*a);
    else
        norm_rows_kernel<TYPE, ARITH_NONE, BACK>
            <<<grid, ARITH_TEAM, 0, stream>>>(*a);
}

template <bool BACK>
static int norm_rows(const struct arith_norm *a, int type, struct stream *s,
                     struct error *err)
{
    if (type == GTYPE_F32)
        launch_rows<GTYPE_F32, BACK>(a, on(s));
    else if (type == GTYPE_F16)
        launch_rows<GTYPE_F16, BACK>(a, on(s));
    else
        launch_rows<GTYPE_BF16, BACK>(a, on(s));
    return card_launched(s, "norm_rows", err);
}

int kernels_norm_forward(const struct arith_norm *a, int type, struct stream *s,
                         struct error *err)
{
    return norm_rows<false>(a, type, s, err);
}

int kernels_norm_backward(const struct arith_norm *a, int type,
                          struct stream *s, struct error *err)
{
    return norm_rows<true>(a, type, s, err);
}
