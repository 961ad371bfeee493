/* tests/gpu/bench_steps.c - where the time of a run goes, by the card's own
 * clock. Of the plugin's parts, not through its table: a server has no use for
 * this.
 *   bench_steps ARCH BATCH [SLOWEST]
 * CSV rows: the recorded run with its copies to and from pinned memory, which
 * beside bench_card's says what the host adds; the steps alone, without the
 * copies; then the SLOWEST (0) steps by themselves, of which none can seem
 * shorter than a kernel's start, and how many of them there are of each kind.
 * Weights are random. TUNE, PRECISION: as bench_card. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arch/arch.h"
#include "gpu/gpu.h"
#include "gpu/gpu_priv.h"

enum {
    TIMES = 21,
    MAX_STEPS = 4096
};

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

typedef int (*measure_fn)(struct gpu_plan *p, float *us, struct error *err);

static int row(struct gpu_plan *p, measure_fn measure, const char *what,
               const char *label, struct error *err)
{
    float us[TIMES];

    for (int i = 0; i < TIMES; i++)
        if (measure(p, &us[i], err))
            return -1;
    qsort(us, TIMES, sizeof(us[0]), by_size);
    printf("%s,%s%s,%d,us,%.1f,%.1f\n", what, label,
           p->recorded ? "" : " not recorded", p->base.shape_in.d[0],
           us[TIMES / 2], us[TIMES * 9 / 10]);
    fflush(stdout);
    return 0;
}

/* ---- single steps -----------------------------------------------------------
 */

static const char *const kinds[] = {
    "in",   "out", "cudnn", "conv",   "depthwise", "unary", "binary",
    "pool", "lrn", "lines", "gather", "place",     "concat"};

struct timed {
    float us;
    int step;
};

static int slowest_first(const void *a, const void *b)
{
    return by_size(&((const struct timed *)b)->us,
                   &((const struct timed *)a)->us);
}

static int each(struct gpu_plan *p, const char *label, int n_shown,
                struct error *err)
{
    static struct timed all[MAX_STEPS];
    double sums[sizeof(kinds) / sizeof(kinds[0])] = {0};
    int counts[sizeof(kinds) / sizeof(kinds[0])] = {0};
    int n = p->n_steps < MAX_STEPS ? p->n_steps : MAX_STEPS;

    for (int i = 0; i < n; i++) {
        all[i].step = i;
        if (gpu_measure_step(p, i, &all[i].us, err))
            return -1;
        sums[p->steps[i].kind] += all[i].us;
        counts[p->steps[i].kind]++;
    }
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        if (counts[k])
            printf("card_steps_of,%s %s,%d,us,%.1f,\n", label, kinds[k],
                   counts[k], sums[k]);
    qsort(all, (size_t)n, sizeof(all[0]), slowest_first);
    for (int i = 0; i < n && i < n_shown; i++) {
        const struct step *s = &p->steps[all[i].step];
        const struct shape *in = &p->base.shape_in;

        printf("card_step,%s %s %s,%d,us,%.1f,\n", label, kinds[s->kind],
               s->node ? s->node->name : "", in->d[0], all[i].us);
    }
    return 0;
}

/* ---- the whole --------------------------------------------------------------
 */

static enum precision precision_asked(void)
{
    const char *asked = getenv("PRECISION");
    enum precision p = PRECISION_F16;

    if (asked)
        precision_parse(asked, &p);
    return p;
}

static int bench(struct network *net, const struct plan_options *opt,
                 const char *arch, int n_shown, struct error *err)
{
    struct plan *plan = graph_plan(net, opt, err);
    struct gpu_plan *p = (struct gpu_plan *)plan;
    char label[96];
    int rc = -1;

    snprintf(label, sizeof(label), "%s %s", arch,
             precision_name(opt->precision));
    if (plan) {
        tensor_formula("input", plan_input(plan), shape_count(&plan->shape_in));
        rc = graph_forward(plan, err) ||
             row(p, gpu_measure, "card_device", label, err) ||
             row(p, gpu_measure_steps, "card_steps", label, err) ||
             (n_shown > 0 && each(p, label, n_shown, err));
    }
    plan_free(plan);
    return rc ? -1 : 0;
}

int main(int argc, char **argv)
{
    const char *tune = getenv("TUNE");
    struct device_options how = {.tune = !tune || strcmp(tune, "0")};
    struct plan_options opt = {.precision = precision_asked()};
    struct arch_options random = {0};
    const struct backend *b = facenetd_backend(BACKEND_ABI);
    struct error err = {0};
    struct device *dev;
    struct graph *g;
    struct network *net;
    int rc = -1;

    if (argc < 3 || !arch_find(argv[1]) || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: bench_steps ARCH BATCH [SLOWEST]\n");
        return 2;
    }
    opt.n = atoi(argv[2]);
    random.normalise = arch_find(argv[1])->embedding_size > 0;
    dev = b->device_open(&how, &err);
    if (!dev) {
        fprintf(stderr, "skip: %s\n", err.text);
        return 0;
    }
    g = arch_new(argv[1], &random, &err);
    net = g ? network_new(dev, g, &err) : NULL;
    if (net)
        rc = bench(net, &opt, argv[1], argc > 3 ? atoi(argv[3]) : 0, &err);
    if (rc)
        fprintf(stderr, "%s: %s\n", argv[1], err.text);
    network_free(net);
    graph_free(g);
    b->device_close(dev);
    return rc ? 1 : 0;
}
