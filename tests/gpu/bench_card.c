/* tests/gpu/bench_card.c - how long the card of FACENETD_PLUGIN takes.
 *   bench_card --probe        0: there is one, and which; 1: why there is none
 *   bench_card ARCH BATCH     CSV rows: one plan; then two plans on two threads
 * A run is what a server pays: the copy of faces to the card, the network, the
 * copy of the answer back. Weights are random. TUNE=0 takes cuDNN's advice as
 * it is; PRECISION=f32|tf32|bf16|f16. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "core/arch/arch.h"
#include "tests/device.h"

enum {
    WARM = 10,
    RUNS = 300
};

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct worker {
    pthread_t thread;
    struct plan *p;
    double us[RUNS];
    bool failed;
};

static void *work(void *at)
{
    struct worker *w = at;
    struct error err = {0};

    tensor_formula("input", plan_input(w->p), shape_count(&w->p->shape_in));
    for (int i = -WARM; i < RUNS && !w->failed; i++) {
        double start = now_us();

        w->failed = graph_forward(w->p, &err) != 0;
        if (i >= 0)
            w->us[i] = now_us() - start;
    }
    if (w->failed)
        fprintf(stderr, "%s\n", err.text);
    return NULL;
}

static int measure(struct network *net, const struct plan_options *opt,
                   const char *name, int n_plans)
{
    static struct worker w[2];
    struct error err = {0};
    double start, all;
    int rc = 0;

    memset(w, 0, sizeof(w));
    for (int i = 0; i < n_plans; i++) {
        w[i].p = graph_plan(net, opt, &err);
        if (!w[i].p) {
            fprintf(stderr, "%s: %s\n", name, err.text);
            return -1;
        }
    }
    start = now_us();
    for (int i = 0; i < n_plans; i++)
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    for (int i = 0; i < n_plans; i++)
        pthread_join(w[i].thread, NULL);
    all = now_us() - start;
    for (int i = 0; i < n_plans; i++) {
        rc |= w[i].failed;
        plan_free(w[i].p);
    }
    qsort(w[0].us, RUNS, sizeof(double), by_size);
    if (!rc) {
        printf("card_run,%s %s %d plans,%d,us,%.1f,%.1f\n", name,
               precision_name(opt->precision), n_plans, opt->n,
               w[0].us[RUNS / 2], w[0].us[RUNS * 9 / 10]);
        printf("card_rate,%s %s %d plans,%d,faces/s,%.0f,\n", name,
               precision_name(opt->precision), n_plans, opt->n,
               1e6 * n_plans * (RUNS + WARM) * opt->n / all);
    }
    return rc;
}

static enum precision precision_asked(void)
{
    const char *asked = getenv("PRECISION");
    enum precision p = PRECISION_F16;

    if (asked)
        precision_parse(asked, &p);
    return p;
}

static int bench(struct device *dev, const struct arch_info *info, int n)
{
    struct arch_options random = {.normalise = true};
    struct error err = {0};
    struct graph *g = arch_new(info->name, &random, &err);
    struct network *net = g ? network_new(dev, g, &err) : NULL;
    struct plan_options opt = {.n = n, .precision = precision_asked()};
    int rc = -1;

    if (net)
        rc = measure(net, &opt, info->name, 1) |
             measure(net, &opt, info->name, 2);
    else
        fprintf(stderr, "%s: %s\n", info->name, err.text);
    network_free(net);
    graph_free(g);
    return rc;
}

int main(int argc, char **argv)
{
    const char *tune = getenv("TUNE");
    struct device_options opt = {.tune = !tune || strcmp(tune, "0")};
    const struct backend *backend = test_backend();
    struct error err = {0};
    struct device_info info;
    struct device *dev;
    int rc = 0;

    if (!backend)
        return 1;
    dev = backend->device_open(&opt, &err);
    if (!dev) {
        fprintf(stderr, "skip: %s\n", err.text);
        return 1;
    }
    backend->device_describe(dev, &info);
    if (argc == 2 && !strcmp(argv[1], "--probe")) {
        fprintf(stderr, "%s, %s, %zu MiB\n", info.name, info.isa,
                info.bytes_total >> 20);
    } else if (argc == 3 && arch_find(argv[1]) && atoi(argv[2]) > 0) {
        rc = bench(dev, arch_find(argv[1]), atoi(argv[2]));
    } else {
        fprintf(stderr, "usage: bench_card --probe | ARCH BATCH\n");
        rc = 2;
    }
    backend->device_close(dev);
    return rc ? 1 : 0;
}
