/* bench/bench_train.c - time of one step of training, and of the selection of
 * triplets; for bench/train.py, which pairs the step with PyTorch's in one run.
 * usage: bench_train step ARCH BATCH THREADS STEPS [DEVICE [PRECISION [tune]]]
 *        bench_train select TIMES [DEVICE]
 * DEVICE is the processor unless it is cuda or cuda:N, with the plugin that
 * FACENETD_PLUGIN names; PRECISION is f32 unless named.
 * A step: copy of the batch, forward, unit vectors, triplet loss, backward,
 * norm, ADAGRAD, moving average. A selection: of 45 people with 40 photos,
 * random unit vectors of 128 numbers. Prints "median_ms p90_ms cpu_ms" (cpu: of
 * all threads), of a step also the number of weights that learn and the loss of
 * the first and the last run, of a selection the number of triplets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/arch/arch.h"
#include "core/train/optim.h"
#include "core/train/train_device.h"
#include "core/train/triplet.h"

enum {
    MAX_RUNS = 4096,
    PEOPLE = 45,
    PHOTOS = 40,
    DIM = 128
};

static double runs[MAX_RUNS], busy[MAX_RUNS];

static double clock_of(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

static double cpu_now(void)
{
    return clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report(int n)
{
    qsort(runs, (size_t)n, sizeof(*runs), ascending);
    qsort(busy, (size_t)n, sizeof(*busy), ascending);
    printf("%.4f %.4f %.4f", runs[n / 2] * 1e3, runs[n * 9 / 10] * 1e3,
           busy[n / 2] * 1e3);
}

static int times(const char *text)
{
    int n = atoi(text);

    return n < 1 ? 1 : n > MAX_RUNS ? MAX_RUNS : n;
}

struct step {
    struct network *net;
    struct plan *plan;
    struct optim *optim;
    int n, dim;
    float *input, *unit, *grad;
};

static int one_step(struct step *s, double *loss, struct error *err)
{
    double norm;
    int active, rc;

    memcpy(plan_input(s->plan), s->input,
           shape_count(&s->plan->shape_in) * sizeof(float));
    if (learn_clear(s->net, err) || graph_forward(s->plan, err))
        return -1;
    triplet_normalise(plan_output(s->plan, 0), s->n, s->dim, s->unit);
    *loss =
        triplet_loss(s->unit, s->n / 3, s->dim, 0.2f, NULL, s->grad, &active);
    triplet_normalise_back(plan_output(s->plan, 0), s->grad, s->n, s->dim,
                           plan_gradient(s->plan, 0));
    if (graph_backward(s->plan, err))
        return -1;
    rc = learn_norm(s->net, 0, &norm, err);
    return rc ? -(rc < 0) : optim_step(s->optim, 0.01, 1, 0.9999, err);
}

static int measure_steps(struct step *s, int count, struct error *err)
{
    double first = 0, loss = 0;

    for (int n = -1; n < count; n++) {
        double start = now(), cpu = cpu_now();

        if (one_step(s, &loss, err))
            return -1;
        if (n < 0) {
            first = loss;
            continue;
        }
        runs[n] = now() - start;
        busy[n] = cpu_now() - cpu;
    }
    report(count);
    printf(" %zu %.6f %.6f\n", network_learnable(s->net)->n_weights, first,
           loss);
    return 0;
}

static int open_step(struct step *s, struct device *dev, const char *arch,
                     enum precision precision, struct error *err)
{
    struct arch_options arch_opt = {.embedding_size = DIM, .seed = 1};
    struct learn_options learn = {.seed = 1};
    struct plan_options opt = {.n = s->n, .precision = precision};
    struct graph *g = arch_new(arch, &arch_opt, err);

    s->net = g ? network_new_learning(dev, g, &learn, err) : NULL;
    graph_free(g);
    s->plan = s->net ? graph_plan(s->net, &opt, err) : NULL;
    if (!s->plan)
        return -1;
    s->optim = optim_new(OPTIM_ADAGRAD, s->net, err);
    s->dim = plan_output_shape(s->plan, 0)->d[1];
    s->input = tensor_alloc(shape_count(&s->plan->shape_in));
    s->unit = tensor_alloc((size_t)s->n * (size_t)s->dim);
    s->grad = tensor_alloc((size_t)s->n * (size_t)s->dim);
    if (!s->optim || !s->input || !s->unit || !s->grad)
        return error_set(err, ERR_NOMEM, "no memory");
    tensor_formula("input", s->input, shape_count(&s->plan->shape_in));
    return 0;
}

static struct device *open_device(const char *name, int n_threads, bool tune,
                                  struct error *err)
{
    struct train_device_options opt = {.device = name ? name : "cpu",
                                       .plugin = getenv("FACENETD_PLUGIN"),
                                       .tune = tune,
                                       .n_threads = n_threads};
    struct error why;

    return train_device_open(&opt, &why, err);
}

/* ARCH BATCH THREADS STEPS, and what may follow; NULL after the last. */
static int steps(char **argv, struct error *err)
{
    int n_threads = atoi(argv[2]);
    const char *device = argv[4], *word = device ? argv[5] : NULL;
    struct step s = {.n = atoi(argv[1])};
    struct train_precision precision;
    struct device *dev;
    int rc;

    if (s.n < 3 || s.n % 3 || n_threads < 1)
        return error_set(err, ERR_BAD_FIELD,
                         "a batch is a multiple of 3, threads 1 or more");
    dev = open_device(device, n_threads, word && argv[6], err);
    if (!dev)
        return -1;
    rc = train_device_precision(dev, word ? word : "f32", &precision, err) ||
         open_step(&s, dev, argv[0], precision.learn, err);
    if (!rc)
        rc = measure_steps(&s, times(argv[3]), err);
    optim_free(s.optim);
    plan_free(s.plan);
    network_free(s.net);
    dev->backend->device_close(dev);
    free(s.input);
    free(s.unit);
    free(s.grad);
    return rc;
}

static int selections(int count, const char *device, struct error *err)
{
    static float vectors[PEOPLE * PHOTOS * DIM];
    static int person[PEOPLE * PHOTOS];
    struct triplet_options opt = {.choice = TRIPLET_VGGFACE, .alpha = 0.2f};
    uint64_t random = 1;
    int found = 0;

    opt.device = open_device(device, 1, false, err);
    if (!opt.device)
        return -1;
    tensor_formula("vectors", vectors, PEOPLE * PHOTOS * DIM);
    triplet_normalise(vectors, PEOPLE * PHOTOS, DIM, vectors);
    for (int i = 0; i < PEOPLE * PHOTOS; i++)
        person[i] = i / PHOTOS;
    for (int n = 0; n < count; n++) {
        struct triplet *t = NULL;
        double start = now(), cpu = cpu_now();

        if (triplet_select(vectors, person, PEOPLE * PHOTOS, DIM, &opt, &random,
                           &t, &found, err))
            return -1;
        runs[n] = now() - start;
        busy[n] = cpu_now() - cpu;
        free(t);
    }
    opt.device->backend->device_close(opt.device);
    report(count);
    printf(" %d\n", found);
    return 0;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    int rc;

    if (argc >= 6 && argc <= 9 && !strcmp(argv[1], "step")) {
        rc = steps(argv + 2, &err);
    } else if ((argc == 3 || argc == 4) && !strcmp(argv[1], "select")) {
        rc = selections(times(argv[2]), argv[3], &err);
    } else {
        fprintf(stderr,
                "usage: %s step ARCH BATCH THREADS STEPS [DEVICE [PRECISION "
                "[tune]]]\n"
                "       %s select TIMES [DEVICE]\n",
                argv[0], argv[0]);
        return 2;
    }
    if (rc)
        fprintf(stderr, "%s: %s\n", argv[0], err.text);
    return rc ? 1 : 0;
}
