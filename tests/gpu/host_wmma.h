/* tests/gpu/host_wmma.h - nvcuda::wmma of tests/gpu/host_cuda.h: tiles of 16
 * by 16 by 16, halfs to sums in f32. A lane has eight numbers of a tile, other
 * ones than a card's lane has; sums are taken in order and rounded one by one,
 * which a card's are not. */
#ifndef TESTS_GPU_HOST_WMMA_H
#define TESTS_GPU_HOST_WMMA_H

#include "tests/gpu/host_cuda.h"

namespace nvcuda
{
namespace wmma
{
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t {
    mem_row_major
};

/* Numbers lane * 8 .. + 7 of the tile, by rows; from where, to tell whether
 * all lanes loaded the same. */
template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
    static_assert(M == 16 && N == 16 && K == 16, "no other tiles");
    T x[8];
    const void *from;
    unsigned pitch;
};
typedef fragment<matrix_a, 16, 16, 16, __half, row_major> host_a;
typedef fragment<matrix_b, 16, 16, 16, __half, col_major> host_b;
typedef fragment<accumulator, 16, 16, 16, float> host_sum;

static inline void fill_fragment(host_sum &f, float v)
{
    for (int i = 0; i < 8; i++)
        f.x[i] = v;
}

/* Which number of the tile is the i-th of this lane. */
static inline unsigned host_number(int i)
{
    return threadIdx.x % 32 * 8 + (unsigned)i;
}

static inline void host_tile(const void *p, unsigned pitch, size_t size)
{
    if ((uintptr_t)p % 32 || pitch * size % 16)
        host_fault("a tile that is not aligned");
}

/* A tile's lines are rows of a, columns of b. */
template <typename F>
static void host_load(F &f, const __half *p, unsigned pitch, bool columns)
{
    host_tile(p, pitch, sizeof(*p));
    for (int i = 0; i < 8; i++) {
        unsigned at = host_number(i), row = at / 16, column = at % 16;
        f.x[i] = p[columns ? column * pitch + row : row * pitch + column];
    }
    f.from = p;
    f.pitch = pitch;
}

static inline void load_matrix_sync(host_a &f, const __half *p, unsigned pitch)
{
    host_load(f, p, pitch, false);
}

static inline void load_matrix_sync(host_b &f, const __half *p, unsigned pitch)
{
    host_load(f, p, pitch, true);
}

struct host_mma {
    host_sum *d;
    const host_a *a;
    const host_b *b;
    const host_sum *c;
};

/* All lanes' numbers, d = a b + c. */
static inline void host_multiply(void *const lanes[32])
{
    float a[16][16], b[16][16], d[16][16];
    const host_mma *first = (const host_mma *)lanes[0];

    for (int at = 0; at < 256; at++) {
        const host_mma *m = (const host_mma *)lanes[at / 8];
        a[at / 16][at % 16] = arith_from_f16(m->a->x[at % 8].bits);
        b[at / 16][at % 16] = arith_from_f16(m->b->x[at % 8].bits);
        d[at / 16][at % 16] = m->c->x[at % 8];
        if (m->a->from != first->a->from || m->a->pitch != first->a->pitch ||
            m->b->from != first->b->from || m->b->pitch != first->b->pitch)
            host_fault("lanes have numbers of several tiles");
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 16; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int at = 0; at < 256; at++)
        ((const host_mma *)lanes[at / 8])->d->x[at % 8] = d[at / 16][at % 16];
}

static inline void mma_sync(host_sum &d, const host_a &a, const host_b &b,
                            const host_sum &c, int line = __builtin_LINE())
{
    host_mma mine = {&d, &a, &b, &c};

    host_warp(host_multiply, &mine, line);
}

static inline void store_matrix_sync(float *p, const host_sum &f,
                                     unsigned pitch, layout_t)
{
    host_tile(p, pitch, sizeof(*p));
    for (int i = 0; i < 8; i++)
        p[host_number(i) / 16 * pitch + host_number(i) % 16] = f.x[i];
}
} // namespace wmma
} // namespace nvcuda

#endif
