/* bench/bench_engine.c - time of one network in one setting, for
 * bench/engine.py, which pairs it with ONNX Runtime in one run.
 * usage: bench_engine MODEL.onnx THREADS BATCH f32|bf16 SECONDS
 * Prints "median_ms p90_ms" for a whole batch, or "skip REASON". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/engine/onnx.h"

enum {
    MAX_RUNS = 4096,
    WARM_UP = 3
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

static int measure(struct plan *p, double seconds, struct error *err)
{
    static double runs[MAX_RUNS];
    size_t count = shape_count(&p->shape_in);
    float *x = tensor_alloc(count);
    int n = -WARM_UP;
    double end = 0;

    if (!x)
        return error_set(err, ERR_NOMEM, "no memory");
    tensor_formula("input", x, count);
    for (; n < MAX_RUNS && (n < 5 || now() < end); n++) {
        double start = now();

        if (n == 0)
            end = start + seconds;
        memcpy(plan_input(p), x, count * sizeof(*x));
        if (graph_forward(p, err)) {
            free(x);
            return -1;
        }
        if (n >= 0)
            runs[n] = now() - start;
    }
    free(x);
    qsort(runs, (size_t)n, sizeof(*runs), ascending);
    printf("%.4f %.4f\n", runs[n / 2] * 1e3, runs[n * 9 / 10] * 1e3);
    return 0;
}

int main(int argc, char **argv)
{
    struct device_options dev_opt = {0};
    struct plan_options opt = {0};
    struct device_info info;
    struct error err = {0};
    struct graph *g;
    struct device *dev;
    struct network *net;
    struct plan *p;

    if (argc != 6) {
        fprintf(stderr,
                "usage: %s MODEL.onnx THREADS BATCH f32|bf16 "
                "SECONDS\n",
                argv[0]);
        return 2;
    }
    dev_opt.n_threads = atoi(argv[2]);
    opt.n = atoi(argv[3]);
    opt.precision = strcmp(argv[4], "bf16") ? PRECISION_F32 : PRECISION_BF16;
    g = onnx_load(argv[1], NULL, &err);
    dev = g ? backend_cpu.device_open(&dev_opt, &err) : NULL;
    if (!dev)
        goto fail;
    dev->backend->device_describe(dev, &info);
    if (opt.precision == PRECISION_BF16 && !info.fast_bf16) {
        printf("skip no AMX on this processor (%s)\n", info.isa);
        return 0;
    }
    net = network_new(dev, g, &err);
    p = net ? graph_plan(net, &opt, &err) : NULL;
    if (!p || measure(p, atof(argv[5]), &err))
        goto fail;
    plan_free(p);
    network_free(net);
    dev->backend->device_close(dev);
    graph_free(g);
    return 0;
fail:
    fprintf(stderr, "%s: %s\n", argv[0], err.text);
    return 1;
}
