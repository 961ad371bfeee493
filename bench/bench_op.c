/* bench/bench_op.c - time of the operators that learn, forward and backward,
 * at the sizes that Inception-ResNet-v1 and MobileFaceNet give them at batch
 * 90. Most of them are bound by memory: GB/s counts each number that must be
 * read or written once.
 * usage: bench_op [THREADS]   (2)
 * Prints CSV: name,variant,n,unit,median,p90; n is the batch. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/engine/op_train.h"

enum {
    BATCH = 90,
    RUNS = 7
};

struct row {
    const char *name;
    struct op op;
    int n_in, c, h, w;
    bool weights; /* inputs after the first are [c], not like the first */
    bool relu;    /* with the ReLU that follows */
};

#define POOL_3_2 .u.pool = {.kernel = {3, 3}, .stride = {2, 2}}
#define NORM .u.norm = {.epsilon = 0.001f, .momentum = 0.995f}

static const struct row rows[] = {
    {"batch_norm", {.type = OP_BATCH_NORM, NORM}, 5, 64, 77, 77, true, false},
    {"norm_relu", {.type = OP_BATCH_NORM, NORM}, 5, 64, 77, 77, true, true},
    {"norm_prelu", {.type = OP_BATCH_NORM, NORM}, 6, 64, 56, 56, true, false},
    {"batch_norm", {.type = OP_BATCH_NORM, NORM}, 5, 64, 56, 56, true, false},
    {"batch_norm", {.type = OP_BATCH_NORM, NORM}, 5, 32, 17, 17, true, false},
    {"batch_norm", {.type = OP_BATCH_NORM, NORM}, 5, 128, 8, 8, true, false},
    {"batch_norm", {.type = OP_BATCH_NORM, NORM}, 5, 192, 3, 3, true, false},
    {"relu", {.type = OP_RELU}, 1, 64, 77, 77, false, false},
    {"relu", {.type = OP_RELU}, 1, 256, 17, 17, false, false},
    {"prelu", {.type = OP_PRELU}, 2, 64, 56, 56, true, false},
    {"prelu", {.type = OP_PRELU}, 2, 256, 14, 14, true, false},
    {"add", {.type = OP_ADD}, 2, 256, 17, 17, false, false},
    {"add_relu", {.type = OP_ADD}, 2, 256, 17, 17, false, true},
    {"max_pool", {.type = OP_MAX_POOL, POOL_3_2}, 1, 64, 77, 77, false, false},
    {"max_pool", {.type = OP_MAX_POOL, POOL_3_2}, 1, 256, 17, 17, false, false},
    {"global_average",
     {.type = OP_AVG_POOL, .u.pool = {.global = true, .stride = {1, 1}}},
     1,
     1792,
     3,
     3,
     false,
     false},
    {"concat",
     {.type = OP_CONCAT, .u.axis = {.axis = 1}},
     2,
     128,
     8,
     8,
     false,
     false},
    {"lrn",
     {.type = OP_LRN, .u.lrn = {5, 1e-4f, 0.75f, 1.0f}},
     1,
     64,
     56,
     56,
     false,
     false},
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static float *numbers(const char *name, size_t n)
{
    float *x = tensor_alloc(n);

    if (!x) {
        fprintf(stderr, "no memory for %zu numbers\n", n);
        exit(1);
    }
    tensor_formula(name, x, n);
    return x;
}

static void measure(const struct row *w, struct op_run *r, const char *way)
{
    double took[RUNS];

    for (int i = -1; i < RUNS; i++) {
        double start = now();

        if (way[0] == 'f')
            op_run_forward(r);
        else
            op_run_backward(r);
        if (i >= 0)
            took[i] = now() - start;
    }
    qsort(took, RUNS, sizeof(*took), ascending);
    printf("op_%s,%s %dx%dx%d %dT,%d,ms,%.3f,%.3f\n", w->name, way, w->c, w->h,
           w->w, omp_get_max_threads(), BATCH, took[RUNS / 2] * 1e3,
           took[RUNS * 9 / 10] * 1e3);
}

static int bench(const struct row *w)
{
    struct op_run r = {.op = &w->op, .n_in = w->n_in, .relu = w->relu};
    float *x[6], *grad[6];
    struct error err;

    for (int k = 0; k < w->n_in; k++) {
        size_t n;

        r.shape_in[k] = k && w->weights ? shape_of(1, w->c, 0, 0, 0)
                                        : shape_of(4, BATCH, w->c, w->h, w->w);
        n = shape_count(&r.shape_in[k]);
        r.in[k] = x[k] = numbers("x", n);
        grad[k] = numbers("gradient", n);
    }
    if (op_shape(&w->op, r.shape_in, w->n_in > 5 ? 5 : w->n_in, &r.shape_out,
                 &err)) {
        fprintf(stderr, "%s: %s\n", w->name, err.text);
        return -1;
    }
    r.out = numbers("y", shape_count(&r.shape_out));
    r.state = numbers("state", op_run_state(&r) + 1);
    r.grad_out = numbers("loss", shape_count(&r.shape_out));
    measure(w, &r, "forward");
    for (int k = 0; k < w->n_in; k++)
        r.grad_in[k] = grad[k];
    measure(w, &r, "backward");
    for (int k = 0; k < w->n_in; k++) {
        free(x[k]);
        free(grad[k]);
    }
    free(r.out);
    free(r.state);
    free((float *)r.grad_out);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2;

    omp_set_num_threads(threads < 1 ? 1 : threads);
    printf("name,variant,n,unit,median,p90\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (bench(&rows[i]))
            return 1;
    return 0;
}
