/* core/face/distance.c - squared L2 distances of unit vectors.
 * Last step of the data path. The matrix-vector product is OpenBLAS, kept to
 * one thread: callers are many threads already. */
#include "core/face/distance.h"

#include <math.h>
#include <pthread.h>

#include <cblas.h>

/* Rows per BLAS call: n * dim must fit BLAS's int. */
#define ROWS_PER_CALL 65536
#define LANES 8

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void one_thread(void)
{
    openblas_set_num_threads(1);
}

float distance_l2(const float *a, const float *b, size_t dim)
{
    float acc[LANES] = {0};
    float sum = 0;
    size_t i = 0;

    for (; i + LANES <= dim; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            float d = a[i + j] - b[i + j];
            acc[j] += d * d;
        }
    }
    for (; i < dim; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    for (size_t j = 0; j < LANES; j++)
        sum += acc[j];
    return sum;
}

void distance_rows(const float *q, const float *rows, size_t n, size_t dim,
                   float *out)
{
    pthread_once(&once, one_thread);
    /* y = 2 - 2 A q with beta 1, so that BLAS never multiplies what out held
     * before (0 * NaN). */
    for (size_t i = 0; i < n; i++)
        out[i] = 2.0f;
    for (size_t i = 0; i < n; i += ROWS_PER_CALL) {
        size_t m = n - i < ROWS_PER_CALL ? n - i : ROWS_PER_CALL;
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)m, (blasint)dim,
                    -2.0f, rows + i * dim, (blasint)dim, q, 1, 1.0f, out + i,
                    1);
    }
    for (size_t i = 0; i < n; i++) {
        if (out[i] < 0.0f)
            out[i] = 0.0f;
        else if (out[i] > 4.0f)
            out[i] = 4.0f;
    }
}

bool distance_normalise(float *v, size_t dim)
{
    double sum = 0, scale;

    for (size_t i = 0; i < dim; i++)
        sum += (double)v[i] * (double)v[i];
    if (!isfinite(sum) || !(sum > 0))
        return false;
    scale = 1.0 / sqrt(sum);
    for (size_t i = 0; i < dim; i++)
        v[i] = (float)(v[i] * scale);
    return true;
}
