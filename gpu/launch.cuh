/* gpu/launch.cuh - how kernels of our own are launched: a grid of blocks that
 * together run over all pieces, and a macro that makes of one function of
 * gpu/arith*.h a kernel for each type and its launcher. Included by the .cu
 * files alone, after CUDA's headers and the kernels' own. */
#ifndef GPU_LAUNCH_CUH
#define GPU_LAUNCH_CUH

enum {
    THREADS = 256,
    WARP = 32
};
/* Tests have few, so that threads go round their loops. */
#ifndef MAX_BLOCKS
#define MAX_BLOCKS (65535 * 16)
#endif

static inline unsigned blocks_of(uint32_t n_threads)
{
    uint32_t n = n_threads / THREADS + (n_threads % THREADS != 0);

    return n < MAX_BLOCKS ? n : (uint32_t)MAX_BLOCKS;
}

/* A kernel of each type, and what launches it. count: pieces, from a. */
#define LAUNCH(name, args, count)                                             \
    template <int TYPE>                                                       \
    static __global__ void __launch_bounds__(THREADS)                         \
        name##_kernel(const args a, uint32_t n)                               \
    {                                                                         \
        for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < n;          \
             i += gridDim.x * THREADS)                                        \
            arith_##name(&a, i, TYPE);                                        \
    }                                                                         \
    static int launch_##name(const args *a, int type, struct stream *s,       \
                             struct error *err)                               \
    {                                                                         \
        uint32_t n = count;                                                   \
        cudaStream_t on = (cudaStream_t)card_stream_handle(s);                \
                                                                              \
        if (type == GTYPE_F32)                                                \
            name##_kernel<GTYPE_F32><<<blocks_of(n), THREADS, 0, on>>>(*a, n);\
        else if (type == GTYPE_F16)                                           \
            name##_kernel<GTYPE_F16><<<blocks_of(n), THREADS, 0, on>>>(*a, n);\
        else                                                                  \
            name##_kernel<GTYPE_BF16><<<blocks_of(n), THREADS, 0, on>>>(*a,   \
                                                                        n);   \
        return card_launched(s, #name, err);                                  \
    }

/* The same as a function of a header. */
#define PIECES(name, args, count)                                             \
    LAUNCH(name, args, count)                                                 \
    int kernels_##name(const args *a, int type, struct stream *s,             \
                       struct error *err)                                     \
    {                                                                         \
        return launch_##name(a, type, s, err);                                \
    }

/* The sum over the lanes of a warp, on each of them. */
template <int LANES> static __device__ float total(float v)
{
    for (int k = LANES / 2; k > 0; k /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, k);
    return v;
}

#endif
