/* core/engine/tensor.c - shapes and host tensors: arithmetic on sizes that
 * cannot overflow, aligned memory, and the test formula. */
#include "core/engine/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shape shape_of(int rank, int d0, int d1, int d2, int d3)
{
    struct shape s = {.rank = rank, .d = {d0, d1, d2, d3}};

    for (int i = rank; i < SHAPE_MAX_RANK; i++)
        s.d[i] = 0;
    return s;
}

size_t shape_count(const struct shape *s)
{
    size_t n = 1;

    for (int i = 0; i < s->rank; i++)
        n *= (size_t)s->d[i];
    return n;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->d[i] != b->d[i])
            return false;
    return true;
}

bool shape_valid(const struct shape *s)
{
    int64_t n = 1;

    if (s->rank < 0 || s->rank > SHAPE_MAX_RANK)
        return false;
    for (int i = 0; i < s->rank; i++) {
        if (s->d[i] < 1 || s->d[i] > SHAPE_MAX_DIM)
            return false;
        n *= s->d[i]; /* below 2^30 * 2^24 before the check */
        if (n > SHAPE_MAX_COUNT)
            return false;
    }
    return true;
}

const char *shape_text(const struct shape *s, char *buf, size_t len_buf)
{
    size_t at = 0;

    at += (size_t)snprintf(buf, len_buf, "[");
    for (int i = 0; i < s->rank && at < len_buf; i++)
        at +=
            (size_t)snprintf(buf + at, len_buf - at, i ? ",%d" : "%d", s->d[i]);
    if (at < len_buf)
        snprintf(buf + at, len_buf - at, "]");
    return buf;
}

float *tensor_alloc(size_t n_floats)
{
    size_t len = (n_floats * sizeof(float) + 63) / 64 * 64;
    float *p;

    if (len == 0)
        len = 64;
    if (n_floats > SIZE_MAX / 8)
        return NULL;
    p = aligned_alloc(64, len);
    if (p)
        memset(p, 0, len);
    return p;
}

void tensor_formula(const char *name, float *out, size_t n)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a, 64 bits */

    for (const char *c = name; *c; c++) {
        h ^= (unsigned char)*c;
        h *= 0x100000001B3u;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t z = h + (i + 1) * 0x9E3779B97F4A7C15u; /* splitmix64 */

        z ^= z >> 30;
        z *= 0xBF58476D1CE4E5B9u;
        z ^= z >> 27;
        z *= 0x94D049BB133111EBu;
        z ^= z >> 31;
        out[i] = (float)((double)(z >> 40) / 8388608.0 - 1.0);
    }
}
