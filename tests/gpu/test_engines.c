/* tests/gpu/test_engines.c - what cuDNN would do for every network of
 * core/arch on cards that are not there: each is described to it in words, it
 * says which engines it has, and makes the plan that a card would run. Every
 * convolution must get one that needs no compiler at run time, and so must the
 * backward passes of those that learn. Memory, kernels and runs are stand-ins;
 * nothing is computed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "core/arch/arch.h"
#include "gpu/conv_kernels.h"
#include "gpu/gpu.h"
#include "gpu/gpu_priv.h"
#include "gpu/kernels.h"

/* A card of each kind that we compile for. */
static const struct described {
    const char *name;
    int level, processors, shared, threads, blocks, l2_mib, memory_gib;
} cards[] = {
    {"Tesla T4", 75, 40, 65536, 1024, 16, 4, 16},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 166912, 2048, 32, 40, 80},
    {"NVIDIA A10", 86, 72, 101376, 1536, 16, 6, 24},
    {"NVIDIA L4", 89, 58, 101376, 1536, 24, 48, 24},
    {"NVIDIA H200", 90, 132, 232448, 2048, 32, 60, 141},
    {"NVIDIA B200", 100, 148, 232448, 2048, 32, 126, 180},
    {"NVIDIA GeForce RTX 5090", 120, 170, 101376, 1536, 24, 96, 32},
};

static const struct described *current;

static void describe(const struct described *d, char *json, size_t len)
{
    snprintf(json, len,
             "{\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
             "\"maxGridSize\":[2147483647,65535,65535],"
             "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
             "\"multiProcessorCount\":%d,\"smClockRateKHz\":1500000,"
             "\"memClockRateKHz\":3000000,\"l2CacheSize\":%d,"
             "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
             "\"maxSharedMemoryPerBlockOptin\":%d,"
             "\"reservedSharedMemoryPerBlock\":%d,"
             "\"maxRegistersPerSM\":65536,\"pciDeviceId\":0,"
             "\"maxCtasPerSM\":%d,\"maxThreadsPerBlock\":1024,"
             "\"maxThreadsPerSM\":%d,\"isTccDriver\":0,"
             "\"supportCoopLaunch\":1,\"deviceName\":\"%s\","
             "\"totalGlobalMem\":%lld}",
             d->level * 10, d->processors, d->l2_mib << 20, d->shared,
             d->level == 75 ? 0 : 1024, d->blocks, d->threads, d->name,
             (long long)d->memory_gib << 30);
}

/* ---- stand-ins
 * --------------------------------------------------------------- */

struct dnn *__real_dnn_open(const char *device, struct error *err);
struct dnn *__wrap_dnn_open(const char *device, struct error *err);
int __wrap_dnn_conv_run(struct dnn_conv *c, struct stream *s,
                        struct error *err);
void *__wrap_weights_get(struct weights *w, const struct weights_key *key,
                         struct error *err);

struct dnn *__wrap_dnn_open(const char *device, struct error *err)
{
    char json[1024];

    (void)device;
    describe(current, json, sizeof(json));
    return __real_dnn_open(json, err);
}

int __wrap_dnn_conv_run(struct dnn_conv *c, struct stream *s, struct error *err)
{
    (void)c;
    (void)s;
    (void)err;
    return 0;
}

void *__wrap_weights_get(struct weights *w, const struct weights_key *key,
                         struct error *err)
{
    (void)w;
    (void)key;
    (void)err;
    return (void *)current; /* never looked at */
}

struct card *card_open(const struct device_options *opt, struct error *err)
{
    (void)opt;
    (void)err;
    return (struct card *)current;
}

void card_close(struct card *c)
{
    (void)c;
}

void card_describe(const struct card *c, struct device_info *out)
{
    (void)c;
    (void)out;
}

int card_level(const struct card *c)
{
    (void)c;
    return current->level;
}

void card_identity(const struct card *c, char *buf, size_t len)
{
    (void)c;
    snprintf(buf, len, "%s", current->name);
}

int card_enter(struct card *c, struct error *err)
{
    (void)c;
    (void)err;
    return 0;
}

/* Addresses that nothing is written to. */
void *card_alloc(struct card *c, size_t bytes, struct error *err)
{
    (void)c;
    (void)bytes;
    (void)err;
    return (void *)(uintptr_t)0x10000000;
}

void card_release(struct card *c, void *p, size_t bytes)
{
    (void)c;
    (void)p;
    (void)bytes;
}

int card_upload(struct card *c, void *to, const void *from, size_t bytes,
                struct error *err)
{
    (void)c;
    (void)to;
    (void)from;
    (void)bytes;
    (void)err;
    return 0;
}

int card_fill(struct card *c, void *to, int byte, size_t bytes,
              struct error *err)
{
    (void)byte;
    return card_upload(c, to, NULL, bytes, err);
}

void *card_pin(struct card *c, size_t bytes, struct error *err)
{
    (void)c;
    (void)err;
    return malloc(bytes + 1);
}

void card_unpin(struct card *c, void *p)
{
    (void)c;
    free(p);
}

struct stream *card_stream_new(struct card *c, struct error *err)
{
    (void)err;
    return (struct stream *)c;
}

void card_stream_free(struct stream *s)
{
    (void)s;
}

void *card_stream_handle(struct stream *s)
{
    return s;
}

int card_copy_in(struct stream *s, void *to, const void *from, size_t bytes,
                 struct error *err)
{
    return card_upload((struct card *)s, to, from, bytes, err);
}

int card_copy_out(struct stream *s, void *to, const void *from, size_t bytes,
                  struct error *err)
{
    return card_upload((struct card *)s, to, from, bytes, err);
}

int card_launched(struct stream *s, const char *kernel, struct error *err)
{
    (void)s;
    (void)kernel;
    (void)err;
    return 0;
}

int card_wait(struct stream *s, struct error *err)
{
    return card_launched(s, NULL, err);
}

bool card_record(struct stream *s)
{
    (void)s;
    return false;
}

bool card_recorded(struct stream *s)
{
    (void)s;
    return false;
}

int card_replay(struct stream *s, struct error *err)
{
    return card_launched(s, NULL, err);
}

int card_time(struct stream *s, int (*work)(void *at, struct error *err),
              void *at, int n, float *us, struct error *err)
{
    (void)work;
    (void)at;
    (void)n;
    *us = 0;
    return card_launched(s, NULL, err);
}

#define NOTHING(name, args)                                                    \
    int kernels_##name(const struct args *a, int type, struct stream *s,       \
                       struct error *err)                                      \
    {                                                                          \
        (void)a;                                                               \
        (void)type;                                                            \
        return card_launched(s, #name, err);                                   \
    }

NOTHING(from_nchw, arith_move)
NOTHING(to_nchw, arith_move)
NOTHING(unary, arith_unary)
NOTHING(binary, arith_binary)
NOTHING(pool, arith_pool)
NOTHING(depthwise, arith_conv)
NOTHING(conv, arith_conv)
NOTHING(lrn, arith_lrn)
NOTHING(lines, arith_lines)
NOTHING(gather, arith_gather)
NOTHING(place, arith_place)
NOTHING(concat, arith_concat)
NOTHING(conv_back_data, arith_conv_back)
NOTHING(conv_back_weights, arith_conv_back)
NOTHING(depthwise_back_data, arith_conv_back)
NOTHING(depthwise_back_weights, arith_conv_back)
NOTHING(column_sums, arith_columns)
NOTHING(widen, arith_widen)

/* ---- the test
 * ---------------------------------------------------------------- */

struct tally {
    int n_convs, n_compiled, n_own;
    size_t scratch;
};

static void look(const struct plan *p, const char *name, struct tally *t)
{
    const struct gpu_plan *gp = (const struct gpu_plan *)p;

    for (int i = 0; i < gp->n_steps; i++) {
        const struct step *s = &gp->steps[i];
        const struct dnn_shape *d = &s->shape;
        bool own = s->kind == STEP_CONV && s->u.conv.group == 1;

        if (s->kind != STEP_DNN && !own)
            continue;
        t->n_convs++;
        t->n_own += own;
        if (s->dnn && dnn_conv_scratch(s->dnn) > t->scratch)
            t->scratch = dnn_conv_scratch(s->dnn);
        if (own || dnn_conv_compiled(s->dnn)) {
            t->n_compiled += !own;
            print_message("%s on %s: %s: [%d,%d,%d,%d] %dx%d/%d to %d, "
                          "pitches %d %d %d, relu %d\n",
                          name, current->name,
                          own ? "no engine" : "compiled at run time", d->n,
                          d->c, d->h, d->w, d->kernel[0], d->kernel[1],
                          d->stride[0], d->k, d->x_pitch, d->y_pitch,
                          d->z_pitch, d->relu);
        }
    }
}

enum {
    CANVAS = 160 /* core/face/detect.h */
};

static void plan_network(struct device *dev, const struct graph *g,
                         const struct arch_info *info, int n,
                         enum precision precision, struct tally *t)
{
    const struct value *in = &g->values[g->input];
    struct plan_options opt = {.n = n,
                               /* P-Net's canvases */
                               .h = in->shape.d[2] ? 0 : CANVAS,
                               .w = in->shape.d[3] ? 0 : CANVAS,
                               .precision = precision};
    struct error err = {0};
    struct network *net = network_new(dev, g, &err);
    struct plan *p = net ? graph_plan(net, &opt, &err) : NULL;

    if (!p)
        fail_msg("%s: %s", info->name, err.text);
    look(p, info->name, t);
    plan_free(p);
    network_free(net);
}

static struct graph *graphs[32];

static void test_card(void **state)
{
    static const int batches[] = {1, 32};
    struct device_options opt = {0};
    struct error err = {0};
    struct tally t = {0};
    clock_t start = clock();
    struct device *dev;

    current = *state;
    dev = facenetd_backend(BACKEND_ABI)->device_open(&opt, &err);
    if (!dev)
        fail_msg("%s: %s", current->name, err.text);
    for (int i = 0; arch_list()[i].name; i++)
        for (int b = current->level == 90 ? 0 : 1; b < 2; b++)
            plan_network(dev, graphs[i], &arch_list()[i], batches[b],
                         PRECISION_F16, &t);
    dev->backend->device_close(dev);
    print_message("sm_%d, f16: %d convolutions, %d compiled at run time, %d "
                  "without an engine, scratch at most %zu KiB, %.1f s\n",
                  current->level, t.n_convs, t.n_compiled, t.n_own,
                  t.scratch >> 10, (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_true(t.n_convs > 0);
    assert_int_equal(t.n_compiled, 0);
    assert_int_equal(t.n_own, 0);
}

/* The other precisions, of the network that is served most. */
static void test_precisions(void **state)
{
    static const enum precision list[] = {PRECISION_F32, PRECISION_TF32,
                                          PRECISION_BF16};
    struct device_options opt = {0};
    struct device *dev;

    (void)state;
    current = &cards[4];
    dev = facenetd_backend(BACKEND_ABI)->device_open(&opt, NULL);
    assert_non_null(dev);
    for (int k = 0; k < 3; k++) {
        struct tally t = {0};

        for (int i = 0; arch_list()[i].name; i++)
            if (!strcmp(arch_list()[i].name, "inception_resnet_v1"))
                plan_network(dev, graphs[i], &arch_list()[i], 8, list[k], &t);
        assert_true(t.n_convs > 0);
        assert_int_equal(t.n_compiled, 0);
        assert_int_equal(t.n_own, 0);
    }
    dev->backend->device_close(dev);
}

/* The detector's networks, in f32, in the batches that they are served in. */
static void test_detector(void **state)
{
    static const struct {
        const char *name;
        int batches[5];
    } rows[] = {{"mtcnn_pnet", {1, 4, 16}},
                {"mtcnn_rnet", {1, 4, 16, 64, 256}},
                {"mtcnn_onet", {1, 4, 16, 64}}};
    struct device_options opt = {0};

    (void)state;
    for (size_t c = 0; c < sizeof(cards) / sizeof(cards[0]); c++) {
        struct tally t = {0};
        struct device *dev;

        current = &cards[c];
        dev = facenetd_backend(BACKEND_ABI)->device_open(&opt, NULL);
        assert_non_null(dev);
        for (int i = 0; arch_list()[i].name; i++)
            for (int k = 0; k < 15; k++)
                if (rows[k / 5].batches[k % 5] > 0 &&
                    !strcmp(arch_list()[i].name, rows[k / 5].name))
                    plan_network(dev, graphs[i], &arch_list()[i],
                                 rows[k / 5].batches[k % 5], PRECISION_F32, &t);
        dev->backend->device_close(dev);
        print_message("sm_%d, f32, the detector: %d convolutions, scratch at "
                      "most %zu KiB\n",
                      current->level, t.n_convs, t.scratch >> 10);
        assert_true(t.n_convs > 0);
        assert_int_equal(t.n_compiled, 0);
        assert_int_equal(t.n_own, 0);
    }
}

/* ---- networks that learn ---------------------------------------------------
 */

static const char *const learners[] = {"inception_resnet_v1",
                                       "nn1",
                                       "nn2",
                                       "nn3",
                                       "nn4",
                                       "nns1",
                                       "nns2",
                                       "mobilefacenet",
                                       "mobilefacenet_slim"};

/* Whether a layer like this one was looked at on this card. */
static struct dnn_shape seen[2048];
static int n_seen;

static bool is_seen(const struct dnn_shape *d)
{
    for (int i = 0; i < n_seen; i++)
        if (!memcmp(&seen[i], d, sizeof(*d)))
            return true;
    assert_true(n_seen < 2048);
    seen[n_seen++] = *d;
    return false;
}

/* The passes of one layer, which lies by itself. */
static void look_learning(struct dnn *dnn, const char *name,
                          const struct dnn_shape *like, bool first,
                          struct tally *t)
{
    static const char *const passes[] = {"forward", "by data", "by weights"};
    struct dnn_shape d = *like;

    for (int pass = DNN_FORWARD; pass <= DNN_BACK_WEIGHTS; pass++) {
        struct error why = {0};
        struct dnn_conv *c;

        if (pass == DNN_BACK_DATA && first)
            continue;
        d.pass = (enum dnn_pass)pass;
        c = dnn_conv_new(dnn, &d, ENGINE_MAX_SCRATCH, &why);
        t->n_convs++;
        if (c && dnn_conv_scratch(c) > t->scratch)
            t->scratch = dnn_conv_scratch(c);
        if (!c || dnn_conv_compiled(c)) {
            t->n_own += !c;
            t->n_compiled += c != NULL;
            print_message("%s on %s: %s, type %d: %s: [%d,%d,%d,%d] %dx%d/%d "
                          "to %d\n",
                          name, current->name, passes[pass], (int)d.type,
                          c ? "compiled at run time" : "no engine", d.n, d.c,
                          d.h, d.w, d.kernel[0], d.kernel[1], d.stride[0], d.k);
        }
        dnn_conv_free(c);
    }
}

static void learn_network(struct dnn *dnn, const struct graph *g,
                          const char *name, int n, enum gtype type, bool tf32,
                          struct tally *t)
{
    static struct shape shapes[4096];
    struct error err = {0};

    assert_true(g->n_values <= 4096);
    assert_int_equal(graph_shapes(g, n, 0, 0, shapes, &err), 0);
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *at = &g->nodes[i];
        const struct shape *x = &shapes[at->in[0]], *y = &shapes[at->out];
        struct dnn_shape d;

        memset(&d, 0, sizeof(d)); /* compared as bytes */
        d.n = n;
        d.c = d.x_pitch = arith_padded(x->d[1]);
        d.k = d.y_pitch = arith_padded(y->d[1]);
        d.h = d.w = 1;
        for (int axis = 0; axis < 2; axis++)
            d.kernel[axis] = d.stride[axis] = d.dilation[axis] = 1;
        d.type = type;
        d.tf32 = tf32;
        if (at->op.type == OP_CONV && at->op.u.conv.group == 1) {
            const struct op_conv *c = &at->op.u.conv;

            d.h = x->d[2];
            d.w = x->d[3];
            memcpy(d.kernel, c->kernel, sizeof(d.kernel));
            memcpy(d.stride, c->stride, sizeof(d.stride));
            memcpy(d.dilation, c->dilation, sizeof(d.dilation));
            memcpy(d.pad, c->pad, sizeof(d.pad));
        } else if (at->op.type != OP_GEMM) {
            continue;
        }
        if (!is_seen(&d))
            look_learning(dnn, name, &d, at->in[0] == g->input, t);
    }
}

static void test_learning(void **state)
{
    static const int batches[] = {24, 90};
    struct tally t = {0};
    clock_t start = clock();
    struct error err = {0};
    struct dnn *dnn;

    current = *state;
    n_seen = 0;
    dnn = dnn_open(NULL, &err);
    if (!dnn)
        fail_msg("%s", err.text);
    for (int i = 0; arch_list()[i].name; i++)
        for (size_t k = 0; k < sizeof(learners) / sizeof(learners[0]); k++) {
            enum gtype type = current->level == 75 ? GTYPE_F16 : GTYPE_BF16;

            for (int b = 0; !strcmp(arch_list()[i].name, learners[k]) && b < 2;
                 b++) {
                learn_network(dnn, graphs[i], learners[k], batches[b], type,
                              false, &t);
                if (k)
                    continue;
                learn_network(dnn, graphs[i], learners[k], batches[b],
                              GTYPE_F32, false, &t);
                learn_network(dnn, graphs[i], learners[k], batches[b],
                              GTYPE_F32, true, &t);
            }
        }
    dnn_close(dnn);
    print_message("sm_%d, learning: %d passes, %d compiled at run time, %d "
                  "without an engine, scratch at most %zu KiB, %.1f s\n",
                  current->level, t.n_convs, t.n_compiled, t.n_own,
                  t.scratch >> 10, (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_true(t.n_convs > 0);
    assert_int_equal(t.n_compiled, 0);
    assert_int_equal(t.n_own, 0);
}

static int make_graphs(void **state)
{
    struct arch_options opt = {0};

    (void)state;
    for (int i = 0; arch_list()[i].name; i++)
        if (!(graphs[i] = arch_new(arch_list()[i].name, &opt, NULL)))
            return -1;
    return 0;
}

static int free_graphs(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++)
        graph_free(graphs[i]);
    return 0;
}

int main(void)
{
    enum {
        N = sizeof(cards) / sizeof(cards[0])
    };
    struct CMUnitTest tests[2 * N + 2] = {cmocka_unit_test(test_precisions),
                                          cmocka_unit_test(test_detector)};

    for (int i = 0; i < N; i++) {
        tests[2 + i] = (struct CMUnitTest){.name = cards[i].name,
                                           .test_func = test_card,
                                           .initial_state = (void *)&cards[i]};
        tests[2 + N + i] = tests[2 + i];
        tests[2 + N + i].test_func = test_learning;
    }
    return cmocka_run_group_tests_name("engines of cuDNN", tests, make_graphs,
                                       free_graphs);
}
