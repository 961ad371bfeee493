/* tests/gpu/bench_search.c - how long a search of the card of FACENETD_PLUGIN
 * takes, by itself: what the host does with the found rows is not in it.
 *   bench_search ROWS
 * CSV rows for 1, 16 and 256 queries of 512 numbers at once: milliseconds, and
 * GB/s of rows in halfs, each read once, to be held against what the card's
 * memory can deliver. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "core/engine/rows.h"
#include "tests/device.h"

enum {
    DIM = 512,
    BLOCK = 4096,
    WARM = 3,
    RUNS = 21,
    K = 32,
    MAX = 4 * K
};

static uint64_t seed = 1;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Numbers of one spread, so that the length is near to 1. */
static void fill(float *v)
{
    for (int i = 0; i < DIM; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        v[i] = (float)(int32_t)(seed >> 32) / 2147483648.0f * 0.0765f;
    }
}

static int put_all(struct rows *r, struct rows_piece *pieces, int n)
{
    static float x[BLOCK][DIM];
    struct error err = {0};

    for (int b = 0; b < n; b++) {
        for (int i = 0; i < BLOCK; i++)
            fill(x[i]);
        if (r->device->backend->rows_put(r, b, 0, BLOCK, x[0], &err)) {
            fprintf(stderr, "bench_search: %s\n", err.text);
            return -1;
        }
        pieces[b] = (struct rows_piece){.block = b, .n = BLOCK};
    }
    return 0;
}

static int measure(struct rows *r, const struct rows_piece *pieces, int n,
                   int n_queries)
{
    static float q[ROWS_QUERIES_MAX][DIM], floors[ROWS_QUERIES_MAX];
    static uint64_t found[ROWS_QUERIES_MAX][MAX];
    struct rows_answer answers[ROWS_QUERIES_MAX];
    struct rows_ask ask = {.pieces = pieces,
                           .n_pieces = n,
                           .queries = q[0],
                           .floors = floors,
                           .n_queries = n_queries,
                           .k = K,
                           .max = MAX,
                           .slack = 4e-4f};
    double ms[RUNS], rows = (double)n * BLOCK;
    struct error err = {0};

    for (int run = -WARM; run < RUNS; run++) {
        double start;
        for (int i = 0; i < n_queries; i++) {
            fill(q[i]);
            floors[i] = -1;
            answers[i].found = found[i];
        }
        start = now_ms();
        if (r->device->backend->rows_best(r, &ask, answers, &err)) {
            fprintf(stderr, "bench_search: %s\n", err.text);
            return -1;
        }
        if (run >= 0)
            ms[run] = now_ms() - start;
        for (int i = 0; i < n_queries; i++)
            if (answers[i].n_found < K)
                fprintf(stderr, "bench_search: it could not tell\n");
    }
    qsort(ms, RUNS, sizeof(*ms), by_size);
    printf("gpu_search,%d queries,%.0f,ms,%.3f,%.3f\n", n_queries, rows,
           ms[RUNS / 2], ms[RUNS * 9 / 10]);
    printf("gpu_search_rate,%d queries,%.0f,GB/s,%.0f,%.0f\n", n_queries, rows,
           rows * DIM * 2 / ms[RUNS / 2] / 1e6,
           rows * DIM * 2 / ms[RUNS * 9 / 10] / 1e6);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    struct rows_options opt = {.dim = DIM, .block_rows = BLOCK};
    int n = argc > 1 ? (int)(strtol(argv[1], NULL, 10) / BLOCK) : 0;
    const struct backend *b = test_backend();
    struct device_options how = {0};
    struct rows_piece *pieces;
    struct error err = {0};
    struct device *dev;
    struct rows *r;
    int rc;

    if (n < 1 || !b || !b->rows_new)
        return 2;
    dev = b->device_open(&how, &err);
    r = dev ? b->rows_new(dev, &opt, &err) : NULL;
    pieces = calloc((size_t)n, sizeof(*pieces));
    if (!r || !pieces || n > r->n_blocks) {
        fprintf(stderr, "skip: %s\n", *err.text ? err.text : "too many rows");
        return 0;
    }
    rc = put_all(r, pieces, n);
    for (int queries = 1; rc == 0 && queries <= 256; queries *= 16)
        rc = measure(r, pieces, n, queries);
    b->rows_free(r);
    b->device_close(dev);
    free(pieces);
    return rc ? 1 : 0;
}
