/* core/engine/cpu.c - the backend table over oneDNN and OpenBLAS: devices,
 * networks with their packed weights, and running a plan.
 * Plans are made in cpu_plan.c. oneDNN uses OpenMP threads, whose number
 * belongs to the calling thread and is set at each run; OpenBLAS runs on the
 * calling thread alone, since our workers are the parallelism. */
#include "core/engine/cpu_learn.h"
#include "core/engine/cpu_priv.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct device *device_open(const struct device_options *opt,
                                  struct error *err)
{
    struct cpu_device *d = calloc(1, sizeof(*d));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for a device");
    d->base.backend = &backend_cpu;
    d->n_threads = opt->n_threads > 0 ? opt->n_threads : (int)cores;
    if (d->n_threads < 1)
        d->n_threads = 1;
    openblas_set_num_threads(1);
    return &d->base;
}

static void device_close(struct device *dev)
{
    free(dev);
}

static void device_describe(const struct device *dev, struct device_info *out)
{
    const struct cpu_device *d = (const struct cpu_device *)dev;
    char version[24];

    memset(out, 0, sizeof(*out));
    onednn_version(version, sizeof(version));
    snprintf(out->name, sizeof(out->name), "%s, OpenBLAS %.20s", version,
             openblas_get_corename());
    onednn_isa(out->isa, sizeof(out->isa));
    out->n_threads = d->n_threads;
    out->fast_bf16 = onednn_has_amx();
    out->any_bf16 = onednn_has_bf16();
}

static void unload(struct network *net)
{
    struct cpu_network *n = (struct cpu_network *)net;

    if (!n)
        return;
    if (net->learn) {
        cpu_learn_unload(net);
        return;
    }
    for (struct packed *p = n->packed, *next; p; p = next) {
        next = p->next;
        layout_free(p->layout);
        free(p->memory);
        free(p);
    }
    graph_free(n->graph);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static struct network *load(struct device *dev, const struct graph *g,
                            struct error *err)
{
    struct cpu_network *n = calloc(1, sizeof(*n));

    if (!n)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    n->base.device = dev;
    pthread_mutex_init(&n->lock, NULL);
    n->graph = graph_fuse(g, err);
    if (n->graph)
        return &n->base;
    unload(&n->base);
    return NULL;
}

static struct packed *find_packed(struct cpu_network *net, int value,
                                  const struct layout *layout, size_t bytes)
{
    for (struct packed *p = net->packed; p; p = p->next)
        if (p->value == value && p->bytes == bytes && !p->layout == !layout &&
            (!layout || layout_equal(p->layout, layout)))
            return p;
    return NULL;
}

static struct packed *new_packed(struct cpu_network *net, int value,
                                 const struct layout *layout, size_t bytes)
{
    struct packed *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->value = value;
    p->bytes = bytes;
    p->layout = layout ? layout_dup(layout) : NULL;
    p->memory = tensor_alloc(bytes / sizeof(float) + 1);
    if (!p->memory || (layout && !p->layout)) {
        layout_free(p->layout);
        free(p->memory);
        free(p);
        return NULL;
    }
    p->next = net->packed;
    net->packed = p;
    net->bytes_packed += bytes;
    return p;
}

void *cpu_pack_conv(struct cpu_network *net, struct kernel *k, int value,
                    int group, struct error *err)
{
    const struct layout *want = kernel_layout(k, KERNEL_WEIGHTS);
    const struct value *v = &net->graph->values[value];
    struct packed *p;
    int rc = 0;

    pthread_mutex_lock(&net->lock);
    p = find_packed(net, value, want, layout_bytes(want));
    if (!p) {
        p = new_packed(net, value, want, layout_bytes(want));
        if (!p)
            error_set(err, ERR_NOMEM, "no memory for packed weights");
        else
            rc = kernel_pack_weights(k, v->data, &v->shape, group, p->memory,
                                     err);
        if (p && rc) { /* not to be found by the next plan */
            p->value = -1;
            p = NULL;
        }
    }
    pthread_mutex_unlock(&net->lock);
    return p ? p->memory : NULL;
}

void *cpu_pack_vector(struct cpu_network *net, int value, int n,
                      struct error *err)
{
    const struct value *v = &net->graph->values[value];
    int have = (int)shape_count(&v->shape);
    struct packed *p;

    if (have == n)
        return v->data; /* already as it is wanted */
    pthread_mutex_lock(&net->lock);
    p = find_packed(net, value, NULL, (size_t)n * sizeof(float));
    if (!p) {
        p = new_packed(net, value, NULL, (size_t)n * sizeof(float));
        for (int i = 0; p && i < n; i++)
            ((float *)p->memory)[i] = v->data[i % have];
    }
    pthread_mutex_unlock(&net->lock);
    return p ? p->memory
             : error_null(err, ERR_NOMEM, "no memory for packed weights");
}

size_t cpu_packed_bytes(struct cpu_network *net)
{
    size_t bytes;

    pthread_mutex_lock(&net->lock);
    bytes = net->bytes_packed;
    pthread_mutex_unlock(&net->lock);
    return bytes;
}

static float gemm_act(const struct op_gemm *g, float v, float slope)
{
    switch (g->act) {
    case ACT_RELU:
        return v > 0 ? v : 0;
    case ACT_PRELU:
        return v > 0 ? v : v * slope;
    case ACT_CLIP:
        return v < g->lo ? g->lo : v > g->hi ? g->hi : v;
    case ACT_NONE:
        break;
    }
    return v;
}

/* y [n,o] = act(x [n,k] w' + b); w [o,k]. */
static void run_gemm(const struct step *s)
{
    const struct op_gemm *g = &s->node->op.u.gemm;
    const float *x = s->at[0], *w = s->at[1], *b = s->at[2];
    const float *slope = s->n_refs > 4 ? s->at[4] : NULL;
    float *y = s->at[3];
    int n = s->shapes[0].d[0], k = s->shapes[0].d[1], o = s->shapes[1].d[1];

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, o, k, 1, x, k, w, k,
                0, y, o);
    for (int r = 0; r < n; r++)
        for (int i = 0; i < o; i++, y++)
            *y = gemm_act(g, *y + b[i], slope ? slope[i] : 0);
}

static void run_plain(const struct step *s)
{
    const struct node *n = s->node;

    op_plain_forward(n->op.type)(&n->op, (const float *const *)s->at, s->shapes,
                                 n->n_in, s->at[n->n_in], &s->shapes[n->n_in]);
}

static int forward(struct plan *p, struct error *err)
{
    struct cpu_plan *plan = (struct cpu_plan *)p;

    omp_set_num_threads(plan->n_threads);
    for (int i = 0; i < plan->n_steps; i++) {
        const struct step *s = &plan->steps[i];

        if (s->kind == STEP_GEMM)
            run_gemm(s);
        else if (s->kind == STEP_PRELU)
            op_prelu(s->at[0], s->at[1], s->period, s->n);
        else if (s->kind == STEP_PLAIN)
            run_plain(s);
        else if (kernel_run(s->kernel, err))
            return error_context(err, "node '%.80s'",
                                 s->node ? s->node->name : "reorder");
    }
    return 0;
}

static struct plan *plan(struct network *net, const struct plan_options *opt,
                         struct error *err)
{
    return net->learn ? cpu_learn_plan_new(net, opt, err)
                      : cpu_plan_new(net, opt, err);
}

const struct backend backend_cpu = {
    .abi = BACKEND_ABI,
    .name = "cpu",
    .device_open = device_open,
    .device_close = device_close,
    .device_describe = device_describe,
    .load = load,
    .unload = unload,
    .plan = plan,
    .plan_free = cpu_plan_free,
    .forward = forward,
    .load_learning = cpu_learn_load,
};
