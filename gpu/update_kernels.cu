/* gpu/update_kernels.cu - see the header: loops over its pieces, and sums in an
 * order that does not depend on which thread comes first. */
/* C++ of its own, so before anything that is C. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "gpu/update_kernels.h"
}

enum {
    THREADS = 256,
    WARP = 32
};
#ifndef MAX_BLOCKS /* tests have few */
#define MAX_BLOCKS 65535
#endif

static unsigned pieces_of(const struct learn_flat *f)
{
    return (unsigned)(f->n / ARITH_LANES);
}

/* Of a block; thread 0 has it. */
template <typename T> static __device__ T block_sum(T v)
{
    __shared__ T warps[THREADS / WARP];

    for (int k = WARP / 2; k > 0; k /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, k);
    if (threadIdx.x % WARP == 0)
        warps[threadIdx.x / WARP] = v;
    __syncthreads();
    for (int k = 1; threadIdx.x == 0 && k < THREADS / WARP; k++)
        v += warps[k];
    return v;
}

static __global__ void __launch_bounds__(THREADS)
    decay_kernel(const struct learn_flat f, float decay, float scale,
                 unsigned n)
{
    struct update_sums *sums = (struct update_sums *)f.scratch;
    float sum = 0;

    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n;
         i += UPDATE_PARTS * THREADS)
        sum += update_decay_piece(&f, decay, scale, i);
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        sums->parts[blockIdx.x] = sum;
}

int update_decay(const struct learn_flat *f, float decay, float scale,
                 struct stream *s, struct error *err)
{
    cudaStream_t on = (cudaStream_t)card_stream_handle(s);

    decay_kernel<<<UPDATE_PARTS, THREADS, 0, on>>>(*f, decay, scale,
                                                   pieces_of(f));
    return card_launched(s, "update_decay", err);
}

static __global__ void __launch_bounds__(THREADS)
    join_kernel(struct update_sums *sums)
{
    double sum = 0;

    for (int i = (int)threadIdx.x; i < UPDATE_PARTS; i += THREADS)
        sum += (double)sums->parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        sums->total = sum;
}

int update_join(struct update_sums *sums, struct stream *s, struct error *err)
{
    join_kernel<<<1, THREADS, 0, (cudaStream_t)card_stream_handle(s)>>>(sums);
    return card_launched(s, "update_join", err);
}

template <enum optimizer RULE>
static __global__ void __launch_bounds__(THREADS)
    weights_kernel(const struct learn_flat f, const struct learn_update u,
                   unsigned n)
{
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n;
         i += gridDim.x * THREADS)
        update_piece(&f, &u, RULE, i);
}

template <enum optimizer RULE>
static void launch(const struct learn_flat *f, const struct learn_update *u,
                   cudaStream_t on)
{
    unsigned n = pieces_of(f), blocks = n / THREADS + (n % THREADS != 0);

    if (blocks > 0)
        weights_kernel<RULE><<<blocks < MAX_BLOCKS ? blocks
                                                   : (unsigned)MAX_BLOCKS,
                               THREADS, 0, on>>>(*f, *u, n);
}

int update_weights(const struct learn_flat *f, const struct learn_update *u,
                   struct stream *s, struct error *err)
{
    cudaStream_t on = (cudaStream_t)card_stream_handle(s);

    switch (u->rule) {
    case OPTIM_ADAGRAD:
        launch<OPTIM_ADAGRAD>(f, u, on);
        break;
    case OPTIM_ADADELTA:
        launch<OPTIM_ADADELTA>(f, u, on);
        break;
    case OPTIM_ADAM:
        launch<OPTIM_ADAM>(f, u, on);
        break;
    case OPTIM_RMSPROP:
        launch<OPTIM_RMSPROP>(f, u, on);
        break;
    case OPTIM_MOM:
        launch<OPTIM_MOM>(f, u, on);
        break;
    case OPTIM_COUNT:
        break;
    }
    return card_launched(s, "update_weights", err);
}
