/* gpu/arith.h - numbers and arrays as the card holds them.
 * Every kernel's work is one function `arith_x(args, i)` of arith_ops.h, for
 * the i-th of its independent pieces: kernels.cu spreads the pieces over a
 * card's threads, tests loop over them. This file: types, conversion, access.
 * Included by C11 and by CUDA C++. Pure. */
#ifndef GPU_ARITH_H
#define GPU_ARITH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define ARITH static __host__ __device__ __forceinline__
#else
#define ARITH static inline __attribute__((unused))
#endif

enum {
    ARITH_LANES = 8 /* channels are handled, and padded, by eights */
};

enum gtype {
    GTYPE_F32,
    GTYPE_F16,
    GTYPE_BF16,
    GTYPE_COUNT
};

/* [n,h,w,c]: the channels of a pixel side by side, pixels `pitch` numbers
 * apart. c is rounded up to eight with zeros; p is aligned to 16 bytes and
 * pitch a multiple of eight, also where this is a slice of another array. */
struct nhwc {
    void *p;
    int n, c, h, w;
    int pitch;
};

ARITH int arith_padded(int c)
{
    return (c + ARITH_LANES - 1) / ARITH_LANES * ARITH_LANES;
}

ARITH uint32_t arith_pixels(const struct nhwc *a)
{
    return (uint32_t)a->n * (uint32_t)a->h * (uint32_t)a->w;
}

/* ---- 16-bit numbers -------------------------------------------------- */

ARITH uint32_t arith_bits(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof(u));
    return u;
}

ARITH float arith_float(uint32_t u)
{
    float v;

    memcpy(&v, &u, sizeof(v));
    return v;
}

/* To the nearest, ties to even, as the card's own instructions do. */
ARITH uint16_t arith_to_f16(float v)
{
#ifdef __CUDA_ARCH__
    return __half_as_ushort(__float2half_rn(v));
#else
    uint32_t u = arith_bits(v), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    uint32_t mantissa, shift, half, rest;

    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) /* 65520 and above */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x33000000u) /* below half of the least number */
        return (uint16_t)sign;
    if (a >= 0x38800000u) { /* normal */
        mantissa = a - 0x38000000u;
        shift = 13;
    } else {
        mantissa = (a & 0x7fffffu) | 0x800000u;
        shift = 126u - (a >> 23);
    }
    half = mantissa >> shift;
    rest = mantissa & ((1u << shift) - 1u);
    if (rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && (half & 1u)))
        half++;
    return (uint16_t)(sign | half);
#endif
}

ARITH float arith_from_f16(uint16_t h)
{
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(h));
#else
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, a = h & 0x7fffu;

    if (a >= 0x7c00u)
        return arith_float(sign | 0x7f800000u | (a & 0x3ffu) << 13);
    if (a >= 0x400u)
        return arith_float(sign | ((a << 13) + 0x38000000u));
    return arith_float(sign | arith_bits((float)a * 0x1p-24f));
#endif
}

ARITH uint16_t arith_to_bf16(float v)
{
    uint32_t u = arith_bits(v);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

ARITH float arith_from_bf16(uint16_t h)
{
    return arith_float((uint32_t)h << 16);
}

ARITH int arith_bytes(int type)
{
    return type == GTYPE_F32 ? 4 : 2;
}

/* ---- access ------------------------------------------------------------ */

ARITH float arith_get(const void *p, uint32_t at, int type)
{
    if (type == GTYPE_F32)
        return ((const float *)p)[at];
    if (type == GTYPE_F16)
        return arith_from_f16(((const uint16_t *)p)[at]);
    return arith_from_bf16(((const uint16_t *)p)[at]);
}

ARITH void arith_put(void *p, uint32_t at, int type, float v)
{
    if (type == GTYPE_F32)
        ((float *)p)[at] = v;
    else if (type == GTYPE_F16)
        ((uint16_t *)p)[at] = arith_to_f16(v);
    else
        ((uint16_t *)p)[at] = arith_to_bf16(v);
}

/* What the card moves at once. */
#ifdef __CUDACC__
struct __align__(16) arith_pack
#else
struct arith_pack
#endif
{
#ifdef __CUDACC__
    uint32_t w[4];
#else
    _Alignas(16) uint32_t w[4];
#endif
};

ARITH struct arith_pack arith_read(const void *p)
{
    return *(const struct arith_pack *)p;
}

/* Eight channels that stand at `at`, a multiple of eight. */
ARITH void arith_load(const void *p, uint32_t at, int type, float v[])
{
    struct arith_pack a;

    if (type == GTYPE_F32) {
        a = arith_read((const float *)p + at);
        for (int k = 0; k < 4; k++)
            v[k] = arith_float(a.w[k]);
        a = arith_read((const float *)p + at + 4);
        for (int k = 0; k < 4; k++)
            v[4 + k] = arith_float(a.w[k]);
        return;
    }
    a = arith_read((const uint16_t *)p + at);
    for (int k = 0; k < 8; k++) {
        uint16_t h = (uint16_t)(a.w[k / 2] >> (k % 2 ? 16 : 0));

        v[k] = type == GTYPE_F16 ? arith_from_f16(h) : arith_from_bf16(h);
    }
}

/* Channels c0..c0+7 of which those from c on are padding: zeros. */
ARITH void arith_store(void *p, uint32_t at, int type, const float v[], int c0,
                       int c)
{
    struct arith_pack a, b;

    for (int k = 0; k < 4; k++)
        a.w[k] = b.w[k] = 0;
    for (int k = 0; k < 8; k++) {
        float x = c0 + k < c ? v[k] : 0;

        if (type == GTYPE_F32) {
            if (k < 4)
                a.w[k] = arith_bits(x);
            else
                b.w[k - 4] = arith_bits(x);
        } else {
            uint32_t h = type == GTYPE_F16 ? arith_to_f16(x) : arith_to_bf16(x);

            a.w[k / 2] |= h << (k % 2 ? 16 : 0);
        }
    }
    if (type == GTYPE_F32) {
        *(struct arith_pack *)((float *)p + at) = a;
        *(struct arith_pack *)((float *)p + at + 4) = b;
    } else {
        *(struct arith_pack *)((uint16_t *)p + at) = a;
    }
}

/* Eight of a vector of f32, which is padded to eight. */
ARITH void arith_vector(const float *p, int c0, float v[])
{
    arith_load(p, (uint32_t)c0, GTYPE_F32, v);
}

/* Piece i of an array cut into eights of channels: which pixel, and where its
 * channels begin. Neighbours are channels of one pixel. */
struct arith_piece {
    uint32_t pixel;
    int c0;
};

/* All numbers, padding too. */
ARITH uint32_t arith_numbers(const struct nhwc *a)
{
    return arith_pixels(a) * (uint32_t)arith_padded(a->c);
}

ARITH uint32_t arith_pieces(const struct nhwc *a)
{
    return arith_pixels(a) * (uint32_t)(arith_padded(a->c) / ARITH_LANES);
}

ARITH struct arith_piece arith_piece(const struct nhwc *a, uint32_t i)
{
    uint32_t per_pixel = (uint32_t)(arith_padded(a->c) / ARITH_LANES);
    struct arith_piece p;

    p.pixel = i / per_pixel;
    p.c0 = (int)(i % per_pixel) * ARITH_LANES;
    return p;
}

struct arith_pixel {
    int n, y, x;
};

ARITH struct arith_pixel arith_pixel(const struct nhwc *a, uint32_t pixel)
{
    struct arith_pixel p;
    uint32_t row = pixel / (uint32_t)a->w;

    p.x = (int)(pixel % (uint32_t)a->w);
    p.y = (int)(row % (uint32_t)a->h);
    p.n = (int)(row / (uint32_t)a->h);
    return p;
}

/* Where channel c of a pixel stands. */
ARITH uint32_t arith_at(const struct nhwc *a, int n, int y, int x, int c)
{
    return (((uint32_t)n * (uint32_t)a->h + (uint32_t)y) * (uint32_t)a->w +
            (uint32_t)x) *
               (uint32_t)a->pitch +
           (uint32_t)c;
}

#endif
