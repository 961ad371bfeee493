/* tests/gpu/host_cuda.h - of CUDA C++ what the .cu files use, for this
 * processor: the kernels themselves run in tests where there is no card. The
 * threads of a block are fibers of one OS thread (host_cuda.cc): each runs
 * until it waits at a barrier or a warp function, and all go on together. What
 * not all threads of a block, or of a warp, come to ends the program with the
 * kernel's name, and so does what a card would refuse. Shared memory begins as
 * NaN. tests/gpu/host_cuda.py makes of a .cu file C++ that includes this.
 * FACENETD_EMULATED_ORDER: "reversed", blocks and threads from the last on, and
 * each warp until it waits for the block; "shuffled", blocks and threads in any
 * order, some warps ahead of others; else in order and in step. */
#ifndef TESTS_GPU_HOST_CUDA_H
#define TESTS_GPU_HOST_CUDA_H

#define _Alignas alignas
#include "gpu/arith.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static /* launches take turns */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
        : x(x_), y(y_), z(z_)
    {
    }
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline float2 __half22float2(__half2 h)
{
    return {arith_from_f16(h.x.bits), arith_from_f16(h.y.bits)};
}

/* ---- the runtime ------------------------------------------------------- */

typedef struct host_stream *cudaStream_t;
enum cudaError_t {
    cudaSuccess,
    cudaErrorNotReady
};
cudaError_t cudaMemsetAsync(void *p, int byte, size_t n, cudaStream_t s);
/* FACENETD_EMULATED_SEARCH="hang": never ready. */
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaGetLastError(void);

/* ---- launches ---------------------------------------------------------- */

struct host_grid {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    host_grid(dim3 grid_, dim3 block_, size_t shared_, cudaStream_t stream_)
        : grid(grid_), block(block_), shared(shared_), stream(stream_)
    {
    }
};

/* Every thread of every block calls f(at); returns when all have ended. */
void host_run(const char *kernel, const host_grid *g, void (*f)(void *at),
              void *at);

template <typename F>
static void host_launch(const char *kernel, const host_grid &g, F f)
{
    host_run(
        kernel, &g, [](void *at) { (*(F *)at)(); }, &f);
}

/* kernel<<<on>>>args */
#define HOST_LAUNCH(kernel, on, args)                                          \
    host_launch(#kernel, host_grid on, [&] { kernel args; })

/* After a declaration of shared memory: the first thread to come by fills it
 * with NaN. */
void host_shared(void *p, size_t bytes);
#define HOST_SHARED(name) host_shared(&name, sizeof(name))

/* ---- what threads do together ------------------------------------------ */

/* line tells places in the source apart. */
void __syncthreads(int line = __builtin_LINE());

/* All lanes come here; then what of them is combined, once, and all go on. */
typedef void (*host_combine_fn)(void *const lanes[32]);
void host_warp(host_combine_fn combine, void *mine, int line);
[[noreturn]] void host_fault(const char *what);

template <typename T> struct host_lane {
    T in, out;
    int with;
};

template <typename T>
static T __shfl_xor_sync(unsigned mask, T v, int with,
                         int line = __builtin_LINE())
{
    host_lane<T> mine = {v, v, with};

    if (mask != 0xffffffffu)
        host_fault("a shuffle of some lanes only");
    host_warp(
        [](void *const lanes[32]) {
            for (int i = 0; i < 32; i++) {
                host_lane<T> *to = (host_lane<T> *)lanes[i];
                to->out = ((host_lane<T> *)lanes[(i ^ to->with) & 31])->in;
            }
        },
        &mine, line);
    return mine.out;
}

unsigned __ballot_sync(unsigned mask, int vote, int line = __builtin_LINE());

static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}

template <typename T> static T __ldg(const T *p)
{
    return *p;
}

template <typename T> static T __ldcs(const T *p)
{
    return *p;
}

static inline uint32_t atomicAdd(uint32_t *p, uint32_t v)
{
    uint32_t old = *p;

    *p += v;
    return old;
}

static inline uint32_t atomicMax(uint32_t *p, uint32_t v)
{
    uint32_t old = *p;

    *p = v > old ? v : old;
    return old;
}

#endif
