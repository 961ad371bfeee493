/* gpu/search_kernels.cu - see the header. Products are collected where they
 * are computed: none is stored but those that may be in the answer. Few
 * queries: bound by memory, a warp multiplies eight rows by all of them. More:
 * tensor cores, 64 rows by up to 64 queries a block; blocks of the same rows
 * and other queries run side by side, so that the rows come from the cache. */
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>
#include <time.h>

extern "C" {
#include "gpu/search_kernels.h"
}

enum {
    THREADS = 256,
    WARP = 32,
    WARPS = THREADS / WARP,
    UNIT = 64,                  /* rows of a block's work; one dead word */
    WARP_ROWS = UNIT / WARPS,   /* of a warp, without tensor cores */
    MMA_THREADS = 128,          /* four warps of 16 rows */
    TILE = 16,                  /* of a tensor core's product */
    PITCH = SEARCH_STEP + 8,    /* halfs: rows fall on other banks */
    LANE_HALFS = 8              /* 16 bytes */
};
#define ALL_LANES 0xffffffffu

static cudaStream_t on(struct stream *s)
{
    return (cudaStream_t)card_stream_handle(s);
}

static __device__ float warp_sum(float v)
{
    for (int at = WARP / 2; at > 0; at /= 2)
        v += __shfl_xor_sync(ALL_LANES, v, at);
    return v;
}

/* ---- rows in ----------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS)
    put_kernel(const float *x, uint16_t *to, int n, int dim, int padded,
               uint32_t *stats)
{
    int lane = threadIdx.x % WARP;

    for (int row = blockIdx.x * WARPS + threadIdx.x / WARP; row < n;
         row += gridDim.x * WARPS) {
        float lost2 = 0, norm2 = 0;

        search_round(x + (size_t)row * dim, to + (size_t)row * padded, dim,
                     padded, lane, WARP, &lost2, &norm2);
        lost2 = warp_sum(lost2);
        norm2 = warp_sum(norm2);
        /* Bits of numbers that are not negative sort as they do; NaN is above
         * all. */
        if (lane == 0) {
            atomicMax(&stats[0], arith_bits(norm2) & 0x7fffffff);
            atomicMax(&stats[1], arith_bits(lost2) & 0x7fffffff);
        }
    }
}

int search_put(const float *x, uint16_t *to, int n, int dim, int padded,
               uint32_t *stats, struct stream *s, struct error *err)
{
    put_kernel<<<(n + WARPS - 1) / WARPS, THREADS, 0, on(s)>>>(
        x, to, n, dim, padded, stats);
    return card_launched(s, "search_put", err);
}

/* ---- products ---------------------------------------------------------- */

static __device__ void collect(const struct search_job &j, int query,
                               float product, uint32_t place)
{
    struct search_query *q = &j.queries[query];

    if (product < q->cut)
        return;
    uint32_t at = atomicAdd(&q->n, 1);
    if (at < j.cap)
        j.hits[(size_t)query * j.cap + at] = search_hit(product, place);
}

/* The block's UNIT rows: which piece, and from which of its rows. */
static __device__ bool unit_of(const struct search_job &j, int first,
                               unsigned block, uint32_t *piece, uint32_t *row)
{
    unsigned units = (unsigned)j.block_rows / UNIT;

    *piece = (uint32_t)first + block / units;
    *row = block % units * UNIT;
    return *row < j.pieces[*piece].n;
}

/* Eight numbers of WARP_ROWS rows by NQ queries at a time. Rows beyond the
 * piece's are read, since the block is there, and not collected. */
template <int NQ>
static __global__ void __launch_bounds__(THREADS)
    exact_kernel(const struct search_job j, int first)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sum[WARP_ROWS][NQ] = {};
    uint32_t piece, row;

    if (!unit_of(j, first, blockIdx.x, &piece, &row))
        return;
    const struct search_piece p = j.pieces[piece];
    row += warp * WARP_ROWS;
    const uint16_t *x = p.rows + (size_t)row * j.padded;
    for (int at = lane * LANE_HALFS; at < j.padded; at += WARP * LANE_HALFS) {
        uint4 raw[WARP_ROWS];
        for (int r = 0; r < WARP_ROWS; r++)
            raw[r] = __ldcs((const uint4 *)(x + (size_t)r * j.padded + at));
        for (int i = 0; i < NQ; i++) {
            const float *q = j.q32 + (size_t)i * j.padded + at;
            const float4 a = __ldg((const float4 *)q);
            const float4 b = __ldg((const float4 *)(q + 4));
            for (int r = 0; r < WARP_ROWS; r++) {
                const __half2 *h = (const __half2 *)&raw[r];
                const float2 x0 = __half22float2(h[0]);
                const float2 x1 = __half22float2(h[1]);
                const float2 x2 = __half22float2(h[2]);
                const float2 x3 = __half22float2(h[3]);
                float *t = &sum[r][i];
                *t = fmaf(a.x, x0.x, fmaf(a.y, x0.y, *t));
                *t = fmaf(a.z, x1.x, fmaf(a.w, x1.y, *t));
                *t = fmaf(b.x, x2.x, fmaf(b.y, x2.y, *t));
                *t = fmaf(b.z, x3.x, fmaf(b.w, x3.y, *t));
            }
        }
    }
    for (int r = 0; r < WARP_ROWS; r++)
        for (int i = 0; i < NQ; i++) {
            float product = warp_sum(sum[r][i]);
            if (lane == 0 && row + r < p.n && !search_dead(p.dead, row + r))
                collect(j, i, product, piece * j.block_rows + row + r);
        }
}

/* 16 bytes a thread: `rows` lines of SEARCH_STEP halfs, from an array whose
 * lines are `from_pitch` apart, to shared memory. */
template <int ROWS>
static __device__ void stage(uint16_t *to, const uint16_t *from,
                             int from_pitch)
{
    const int per_row = SEARCH_STEP / LANE_HALFS;

    for (int i = threadIdx.x; i < ROWS * per_row; i += MMA_THREADS) {
        int row = i / per_row, at = i % per_row * LANE_HALFS;
        *(uint4 *)(to + row * PITCH + at) =
            *(const uint4 *)(from + (size_t)row * from_pitch + at);
    }
}

/* UNIT rows by NQ queries; those from blockIdx.x % groups * NQ. */
template <int NQ>
static __global__ void __launch_bounds__(MMA_THREADS)
    mma_kernel(const struct search_job j, int first, unsigned groups)
{
    using namespace nvcuda::wmma;
    union shared {
        struct {
            uint16_t x[UNIT * PITCH], q[NQ * PITCH];
        } in;
        float out[UNIT * (NQ + 4)];
    };
    __shared__ __align__(128) union shared mem;
    fragment<accumulator, TILE, TILE, TILE, float> sum[NQ / TILE];
    int warp = threadIdx.x / WARP, query = blockIdx.x % groups * NQ;
    uint32_t piece, row;

    if (!unit_of(j, first, blockIdx.x / groups, &piece, &row))
        return;
    const struct search_piece p = j.pieces[piece];
    for (int i = 0; i < NQ / TILE; i++)
        fill_fragment(sum[i], 0.0f);
    for (int at = 0; at < j.padded; at += SEARCH_STEP) {
        __syncthreads();
        stage<UNIT>(mem.in.x, p.rows + (size_t)row * j.padded + at, j.padded);
        stage<NQ>(mem.in.q, j.q16 + (size_t)query * j.padded + at, j.padded);
        __syncthreads();
        for (int k = 0; k < SEARCH_STEP; k += TILE) {
            fragment<matrix_a, TILE, TILE, TILE, __half, row_major> a;
            load_matrix_sync(
                a, (const __half *)mem.in.x + warp * TILE * PITCH + k, PITCH);
            for (int i = 0; i < NQ / TILE; i++) {
                fragment<matrix_b, TILE, TILE, TILE, __half, col_major> b;
                load_matrix_sync(
                    b, (const __half *)mem.in.q + i * TILE * PITCH + k, PITCH);
                mma_sync(sum[i], a, b, sum[i]);
            }
        }
    }
    __syncthreads();
    for (int i = 0; i < NQ / TILE; i++)
        store_matrix_sync(mem.out + warp * TILE * (NQ + 4) + i * TILE, sum[i],
                          NQ + 4, mem_row_major);
    __syncthreads();
    for (int i = threadIdx.x; i < UNIT * NQ; i += MMA_THREADS) {
        int r = i / NQ, at = i % NQ;
        if (query + at < j.n_queries && row + r < p.n &&
            !search_dead(p.dead, row + r))
            collect(j, query + at, mem.out[r * (NQ + 4) + at],
                    piece * j.block_rows + row + r);
    }
}

int search_score(const struct search_job *j, int first, int n,
                 struct stream *s, struct error *err)
{
    unsigned units = (unsigned)n * ((unsigned)j->block_rows / UNIT);
    unsigned groups = ((unsigned)j->n_queries + 63) / 64;

    if (j->n_queries == 1)
        exact_kernel<1><<<units, THREADS, 0, on(s)>>>(*j, first);
    else if (j->n_queries == 2)
        exact_kernel<2><<<units, THREADS, 0, on(s)>>>(*j, first);
    else if (j->n_queries == 3)
        exact_kernel<3><<<units, THREADS, 0, on(s)>>>(*j, first);
    else if (j->n_queries <= SEARCH_EXACT_MAX)
        exact_kernel<SEARCH_EXACT_MAX>
            <<<units, THREADS, 0, on(s)>>>(*j, first);
    else if (j->n_queries <= TILE)
        mma_kernel<TILE><<<units, MMA_THREADS, 0, on(s)>>>(*j, first, 1);
    else if (j->n_queries <= 2 * TILE)
        mma_kernel<2 * TILE><<<units, MMA_THREADS, 0, on(s)>>>(*j, first, 1);
    else
        mma_kernel<4 * TILE>
            <<<units * groups, MMA_THREADS, 0, on(s)>>>(*j, first, groups);
    return card_launched(s, "search_score", err);
}

/* ---- the k best -------------------------------------------------------- */

/* The k-th largest of n hits, its lower half zero. */
static __device__ uint64_t kth_hit(const uint64_t *hits, uint32_t n,
                                   uint32_t k, uint32_t *counts,
                                   uint64_t *shared_prefix)
{
    __shared__ uint32_t rank;

    if (threadIdx.x == 0) {
        *shared_prefix = 0;
        rank = k;
    }
    for (int shift = 56; shift >= 32; shift -= 8) {
        uint64_t mask = shift == 56 ? 0 : UINT64_MAX << (shift + 8);

        counts[threadIdx.x] = 0; /* THREADS of them */
        __syncthreads();
        uint64_t prefix = *shared_prefix;
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            if ((hits[i] & mask) == prefix)
                atomicAdd(&counts[hits[i] >> shift & 255], 1);
        __syncthreads();
        if (threadIdx.x == 0) {
            uint32_t left = rank;
            *shared_prefix |= (uint64_t)search_byte(counts, &left) << shift;
            rank = left;
        }
        __syncthreads();
    }
    return *shared_prefix;
}

/* Keep hits that are not below cut, in place: what a round writes lies at or
 * before what it has read. Returns how many. */
static __device__ uint32_t keep(uint64_t *hits, uint32_t n, float cut,
                                uint32_t *sums)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    uint32_t kept = 0;

    for (uint32_t first = 0; first < n; first += THREADS) {
        uint32_t i = first + threadIdx.x, at, total = 0;
        uint64_t hit = i < n ? hits[i] : 0;
        bool stays = i < n && !(search_product(hit) < cut);
        unsigned votes = __ballot_sync(ALL_LANES, stays);

        if (lane == 0)
            sums[warp] = __popc(votes);
        __syncthreads();
        at = kept + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            at += w < warp ? sums[w] : 0;
            total += sums[w];
        }
        if (stays)
            hits[at] = hit;
        kept += total;
        __syncthreads();
    }
    return kept;
}

static __global__ void __launch_bounds__(THREADS)
    tighten_kernel(const struct search_job j)
{
    static_assert(THREADS == 256, "a count for every byte, a thread for each");
    __shared__ uint32_t counts[THREADS];
    __shared__ uint64_t prefix;
    struct search_query *q = &j.queries[blockIdx.x];
    uint64_t *hits = j.hits + (size_t)blockIdx.x * j.cap;
    uint32_t n = q->n, kept;
    float cut;

    if (n == SEARCH_CROWDED || n < j.k)
        return;
    if (n > j.cap)
        n = j.cap; /* cannot be: the caller saw to it */
    cut = search_cut(search_product(kth_hit(hits, n, j.k, counts, &prefix)),
                     q->band, q->low);
    kept = keep(hits, n, cut, counts);
    if (threadIdx.x == 0) {
        bool crowded = kept > j.max || q->n > j.cap;
        q->n = crowded ? SEARCH_CROWDED : kept;
        q->cut = crowded ? INFINITY : cut;
    }
}

int search_tighten(const struct search_job *j, struct stream *s,
                   struct error *err)
{
    tighten_kernel<<<j->n_queries, THREADS, 0, on(s)>>>(*j);
    return card_launched(s, "search_tighten", err);
}

static __global__ void __launch_bounds__(THREADS)
    pack_kernel(const struct search_job j, uint64_t *to)
{
    uint32_t n = j.queries[blockIdx.x].n;

    n = n < j.max ? n : j.max;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        to[(size_t)blockIdx.x * j.max + i] =
            j.hits[(size_t)blockIdx.x * j.cap + i];
}

int search_pack(const struct search_job *j, uint64_t *to, struct stream *s,
                struct error *err)
{
    pack_kernel<<<j->n_queries, THREADS, 0, on(s)>>>(*j, to);
    return card_launched(s, "search_pack", err);
}

/* ---- the rest ---------------------------------------------------------- */

int search_wipe(void *p, size_t bytes, struct stream *s, struct error *err)
{
    cudaMemsetAsync(p, 0, bytes, on(s));
    return card_launched(s, "search_wipe", err);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Most searches end within the first look or few; then it sleeps. */
int search_wait(struct stream *s, int timeout_ms, struct error *err)
{
    const struct timespec nap = {0, 20000};
    int64_t end = now_us() + (int64_t)timeout_ms * 1000;
    cudaError_t e;

    while ((e = cudaStreamQuery(on(s))) == cudaErrorNotReady) {
        if (now_us() > end)
            break;
        nanosleep(&nap, NULL);
    }
    if (e != cudaErrorNotReady)
        return card_launched(s, "search", err);
    cudaGetLastError(); /* what asking leaves behind */
    error_set(err, ERR_DEVICE, "the card did not end a search within %d ms",
              timeout_ms);
    return 1;
}
