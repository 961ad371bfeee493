/* gpu/triplets_kernels.cu - see the header: a product of 64 by 64 rows a block,
 * a warp a pair. */
/* C++ of its own, so before anything that is C. */
#include <cuda_runtime.h>

extern "C" {
#include "gpu/triplets_kernels.h"
}

enum {
    THREADS = 256,
    WARP = 32,
    TILE = 64, /* rows a side of a block's product */
    EACH = 4,  /* of them, and as many of the other side, a thread's */
    PITCH = TILE + 4
};
#define ALL_LANES 0xffffffffu

/* Rows base.. of x, numbers k.. of each, to to[number][row]; zeros from row
 * end on. */
static __device__ void stage(const float *x, int base, int end, int padded,
                             int k, float (*to)[PITCH])
{
    int row = (int)threadIdx.x / 4, at = (int)threadIdx.x % 4 * 4;
    float4 v = make_float4(0, 0, 0, 0);

    if (base + row < end)
        v = *(const float4 *)(x + (size_t)(base + row) * padded + k + at);
    to[at][row] = v.x;
    to[at + 1][row] = v.y;
    to[at + 2][row] = v.z;
    to[at + 3][row] = v.w;
}

static __global__ void __launch_bounds__(THREADS)
    distances_kernel(const struct triplets_job j)
{
    __shared__ float a[TRIPLETS_DEEP][PITCH], b[TRIPLETS_DEEP][PITCH];
    int row = (int)blockIdx.y * TILE, column = (int)blockIdx.x * TILE;
    int ty = (int)threadIdx.x / 16 * EACH, tx = (int)threadIdx.x % 16 * EACH;
    float sum[EACH][EACH] = {{0}};

    for (int k = 0; k < j.padded; k += TRIPLETS_DEEP) {
        stage(j.x, j.first + row, j.first + j.rows, j.padded, k, a);
        stage(j.x, column, j.n, j.padded, k, b);
        __syncthreads();
        for (int i = 0; i < TRIPLETS_DEEP; i++)
            for (int y = 0; y < EACH; y++)
                for (int x = 0; x < EACH; x++)
                    sum[y][x] = fmaf(a[i][ty + y], b[i][tx + x], sum[y][x]);
        __syncthreads();
    }
    for (int y = 0; y < EACH; y++)
        for (int x = 0; x < EACH; x++)
            if (row + ty + y < j.rows && column + tx + x < j.n)
                j.d[(size_t)(row + ty + y) * j.n + column + tx + x] =
                    triplets_distance(j.squares[j.first + row + ty + y],
                                      j.squares[column + tx + x], sum[y][x]);
}

int triplets_distances(const struct triplets_job *j, struct stream *s,
                       struct error *err)
{
    dim3 blocks((unsigned)(j->n + TILE - 1) / TILE,
                (unsigned)(j->rows + TILE - 1) / TILE);

    distances_kernel<<<blocks, THREADS, 0,
                       (cudaStream_t)card_stream_handle(s)>>>(*j);
    return card_launched(s, "triplets_distances", err);
}

/* May row k be the pair's negative? */
static __device__ bool allowed(const struct triplets_job *j, const float *d,
                               const struct triplets_pair *p, int k)
{
    return k < j->n && (k < p->begin || k >= p->end) &&
           triplets_allowed(d[k], d[p->p], j->alpha, j->beyond);
}

static __global__ void __launch_bounds__(THREADS)
    count_kernel(const struct triplets_job j)
{
    int lane = (int)threadIdx.x % WARP, count = 0;
    int i = j.from + (int)((blockIdx.x * THREADS + threadIdx.x) / WARP);

    if (i >= j.to)
        return;
    struct triplets_pair p = j.pairs[i];
    const float *d = j.d + (size_t)(p.a - j.first) * j.n;

    for (int k = lane; k < j.n && isfinite(d[p.p]); k += WARP)
        count += allowed(&j, d, &p, k);
    for (int k = WARP / 2; k > 0; k /= 2)
        count += __shfl_xor_sync(ALL_LANES, count, k);
    if (lane == 0)
        j.counts[i] = count;
}

static __global__ void __launch_bounds__(THREADS)
    pick_kernel(const struct triplets_job j)
{
    int lane = (int)threadIdx.x % WARP, found = -1;
    int i = j.from + (int)((blockIdx.x * THREADS + threadIdx.x) / WARP);

    if (i >= j.to)
        return;
    struct triplets_pair p = j.pairs[i];
    const float *d = j.d + (size_t)(p.a - j.first) * j.n;
    int rank = j.counts[i];

    for (int k = 0; k < j.n && found < 0 && isfinite(d[p.p]); k += WARP) {
        unsigned mask = __ballot_sync(ALL_LANES, allowed(&j, d, &p, k + lane));
        int n = __popc(mask);

        if (rank >= n) {
            rank -= n;
            continue;
        }
        for (; rank > 0; rank--)
            mask &= mask - 1; /* the lowest goes */
        found = k + __ffs((int)mask) - 1;
    }
    if (lane == 0)
        j.counts[i] = found;
}

static unsigned blocks_of(const struct triplets_job *j)
{
    unsigned each = THREADS / WARP;

    return ((unsigned)(j->to - j->from) + each - 1) / each;
}

int triplets_count(const struct triplets_job *j, struct stream *s,
                   struct error *err)
{
    count_kernel<<<blocks_of(j), THREADS, 0,
                   (cudaStream_t)card_stream_handle(s)>>>(*j);
    return card_launched(s, "triplets_count", err);
}

int triplets_pick(const struct triplets_job *j, struct stream *s,
                  struct error *err)
{
    pick_kernel<<<blocks_of(j), THREADS, 0,
                  (cudaStream_t)card_stream_handle(s)>>>(*j);
    return card_launched(s, "triplets_pick", err);
}
