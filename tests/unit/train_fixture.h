/* tests/unit/train_fixture.h - a world for runs that take seconds: pictures
 * of "people" (a coarse pattern each, with noise), a tiny network with a
 * contract, folders, and a caller that counts events and stops where a test
 * wants it. Header only. */
#ifndef TESTS_UNIT_TRAIN_FIXTURE_H
#define TESTS_UNIT_TRAIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/engine/tensor.h"
#include "core/face/image.h"
#include "core/face/model.h"
#include "core/train/random.h"
#include "core/train/train.h"

enum {
    SIDE = 32,
    GRID = 4,       /* squares of a pattern along a side */
    PERSONAL = 120, /* of 256: how far people differ, and photos of one */
    NOISE = 100,
    PEOPLE = 12,
    EACH = 6,
    DIM = 8,
    MOST_STEPS = 400
};

static char world[64]; /* folder of everything */

static inline const char *at(const char *name)
{
    static char ring[8][300];
    static int next;
    char *out = ring[next++ % 8];

    snprintf(out, sizeof(ring[0]), "%s/%s", world, name);
    return out;
}

static inline int erase_one(const char *path, const struct stat *st, int flag,
                            struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void erase(const char *path)
{
    nftw(path, erase_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- photos -------------------------------------------------------------- */

static inline void write_bytes(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static inline uint8_t clamp(int x)
{
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* Photo `photo` of person `person`: squares of colour that all people share
 * and some that are the person's, under another light, with other noise. */
static inline void write_face(const char *path, int person, int photo)
{
    struct error err = {0};
    struct image *img = image_new(SIDE, SIDE, &err);
    uint64_t who = 1000 + (uint64_t)person, noise = 77 + 100 * who, all = 1;
    int square[GRID][GRID][3], light;
    uint8_t *jpeg;
    size_t len;

    assert_non_null(img);
    noise += (uint64_t)photo;
    light = random_below(&noise, 40) - 20;
    for (int i = 0; i < GRID * GRID * 3; i++)
        ((int *)square)[i] = 90 + random_below(&all, 76) +
                             random_below(&who, PERSONAL) - PERSONAL / 2 +
                             light;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int k = 0; k < 3; k++)
                img->rgb[3 * (y * SIDE + x) + k] =
                    clamp(square[y * GRID / SIDE][x * GRID / SIDE][k] +
                          random_below(&noise, NOISE) - NOISE / 2);
    assert_int_equal(image_encode_jpeg(img, 95, &jpeg, &len, &err), 0);
    write_bytes(path, jpeg, len);
    free(jpeg);
    image_free(img);
}

/* A folder of n people with `each` photos; people from `first` on. */
static inline void write_people(const char *dir, int first, int n, int each)
{
    char path[400];

    mkdir(dir, 0777);
    for (int p = first; p < first + n; p++) {
        snprintf(path, sizeof(path), "%s/person%02d", dir, p);
        mkdir(path, 0777);
        for (int i = 0; i < each; i++) {
            snprintf(path, sizeof(path), "%s/person%02d/%d.jpg", dir, p, i);
            write_face(path, p, i);
        }
    }
}

/* ---- a network ----------------------------------------------------------- */

static inline int net_weight(struct graph *g, const char *name, int rank,
                             const int d[4], float value, float spread)
{
    struct shape s = shape_of(rank, d[0], d[1], d[2], d[3]);
    size_t n = shape_count(&s);
    float *data = tensor_alloc(n);
    struct error err = {0};
    int w;

    assert_non_null(data);
    tensor_formula(name, data, n);
    for (size_t i = 0; i < n; i++)
        data[i] = value + spread * data[i];
    w = graph_add_weight(g, name, &s, data, &err);
    if (w < 0)
        fail_msg("%s", err.text);
    return w;
}

static inline int net_block(struct graph *g, int x, const char *name, int in,
                            int out)
{
    struct op conv = {.type = OP_CONV,
                      .u.conv = {.kernel = {3, 3},
                                 .stride = {2, 2},
                                 .dilation = {1, 1},
                                 .pad = {1, 1, 1, 1},
                                 .group = 1}};
    struct op norm = {.type = OP_BATCH_NORM,
                      .u.norm = {.epsilon = 1e-3f, .momentum = 0.9f}};
    struct op relu = {.type = OP_RELU};
    char text[5][64];
    struct error err = {0};
    int ins[5];

    for (int i = 0; i < 5; i++)
        snprintf(text[i], sizeof(text[i]), "%s.%d", name, i);
    ins[0] = x;
    ins[1] = net_weight(g, text[0], 4, (int[]){out, in, 3, 3}, 0,
                        2.4f / sqrtf((float)(9 * in)));
    ins[0] = graph_add_node(g, name, &conv, ins, 2, name, &err);
    for (int i = 0; i < 4; i++)
        ins[i + 1] = net_weight(g, text[i + 1], 1, (int[]){out, 0, 0, 0},
                                i % 3 == 0 ? 1.0f : 0.0f, 0);
    snprintf(text[0], sizeof(text[0]), "%s.bn", name);
    ins[0] = graph_add_node(g, text[0], &norm, ins, 5, text[0], &err);
    snprintf(text[0], sizeof(text[0]), "%s.relu", name);
    return graph_add_node(g, text[0], &relu, ins, 1, text[0], &err);
}

struct net {
    int dim;
    float dense, bias;   /* spread of the dense layer; value of its bias */
    const char *licence; /* NULL: CC0 */
};

static inline struct graph *net_graph(const struct net *n)
{
    struct error err = {0};
    struct graph *g = graph_new(&err);
    struct op flat = {.type = OP_RESHAPE,
                      .u.reshape.to = {.rank = 2, .d = {0, -1}}};
    struct op gemm = {.type = OP_GEMM};
    int x, ins[3], features = 16 * (SIDE / 8) * (SIDE / 8);

    assert_non_null(g);
    x = graph_add_input(g, "input", 3, SIDE, SIDE, &err);
    x = net_block(g, x, "one", 3, 8);
    x = net_block(g, x, "two", 8, 16);
    x = net_block(g, x, "three", 16, 16);
    ins[0] = graph_add_node(g, "flat", &flat, &x, 1, "flat", &err);
    ins[1] = net_weight(g, "dense.w", 2, (int[]){n->dim, features, 0, 0}, 0,
                        n->dense);
    ins[2] = net_weight(g, "dense.b", 1, (int[]){n->dim, 0, 0, 0}, n->bias, 0);
    x = graph_add_node(g, "dense", &gemm, ins, 3, "dense", &err);
    if (x < 0 || graph_add_output(g, x, &err) < 0)
        fail_msg("%s", err.text);
    return g;
}

static inline void write_net(const char *path, const struct net *n)
{
    struct contract c = {.kind = MODEL_EMBEDDER,
                         .crop = CROP_ARCFACE,
                         .scale = SCALE_FIXED,
                         .a = {127.5f, 127.5f, 127.5f},
                         .b = {128, 128, 128},
                         .dim = n->dim};
    struct device_options one = {.n_threads = 1};
    struct error err = {0};
    struct device *dev = backend_cpu.device_open(&one, &err);
    struct graph *g = net_graph(n);

    snprintf(c.licence, sizeof(c.licence), "%s",
             n->licence ? n->licence : "CC0");
    assert_non_null(dev);
    if (model_save(g, &c, NULL, dev, path, &err))
        fail_msg("%s", err.text);
    graph_free(g);
    dev->backend->device_close(dev);
}

/* ---- a run --------------------------------------------------------------- */

struct seen { /* what a run told */
    double loss[MOST_STEPS];
    int n_losses, n_checkpoints, n_results, n_warnings, n_devices;
    int n_before, n_during, n_after; /* evaluations */
    double before, after;            /* held: accuracy */
    char checkpoint[400], model[400], text[400], warning[400], device[400];
    enum train_outcome outcome;
    /* where to stop */
    const char *stop_phase;
    long long stop_step;
    sig_atomic_t stop;
};

static inline void on_event(void *ctx, const struct train_event *e)
{
    struct seen *s = ctx;

    switch (e->kind) {
    case TRAIN_PHASE:
        if (s->stop_phase && strcmp(s->stop_phase, e->text) == 0)
            s->stop = 1;
        break;
    case TRAIN_DEVICE:
        s->n_devices++;
        snprintf(s->device, sizeof(s->device), "%s", e->text);
        break;
    case TRAIN_STEP:
        assert_true(s->n_losses < MOST_STEPS);
        assert_true(e->batch >= 1 && e->batch <= e->n_batches);
        s->loss[s->n_losses++] = e->loss;
        if (s->stop_step && e->step == s->stop_step)
            s->stop = 1;
        break;
    case TRAIN_EVALUATION:
        s->n_before += strcmp(e->when, "before") == 0;
        s->n_during += strcmp(e->when, "during") == 0;
        s->n_after += strcmp(e->when, "after") == 0;
        if (strcmp(e->when, "before") == 0)
            s->before = e->accuracy;
        else
            s->after = e->accuracy;
        break;
    case TRAIN_WARNING:
        s->n_warnings++;
        snprintf(s->warning, sizeof(s->warning), "%s", e->text);
        break;
    case TRAIN_CHECKPOINT:
        s->n_checkpoints++;
        snprintf(s->checkpoint, sizeof(s->checkpoint), "%s", e->path);
        break;
    case TRAIN_RESULT:
        s->n_results++;
        s->outcome = e->outcome;
        snprintf(s->text, sizeof(s->text), "%s", e->text);
        snprintf(s->model, sizeof(s->model), "%s", e->path ? e->path : "");
        break;
    }
}

static inline void set(struct train_args *a, const char *name,
                       const char *value)
{
    struct error err = {0};

    if (train_args_set(a, name, value, &err))
        fail_msg("%s", err.text);
}

/* Arguments of a small run on world/faces; owned. */
static inline struct train_args *small_args(void)
{
    static const char *const values[][2] = {
        {"batch_size", "18"},       {"people_per_batch", "6"},
        {"images_per_person", "6"}, {"epoch_size", "6"},
        {"max_nrof_epochs", "2"},   {"threads", "1"},
        {"aligned", "yes"},         {"learning_rate", "0.05"},
        {"holdout", "0.34"},        {"moving_average_decay", "0.9"},
        {"embedding_size", "128"},  {"device", "cpu"}};
    struct train_args *a = malloc(sizeof(*a));

    assert_non_null(a);
    train_args_default(a);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        set(a, values[i][0], values[i][1]);
    set(a, "data_dir", at("faces"));
    set(a, "logs_base_dir", at("logs"));
    set(a, "models_base_dir", at("models"));
    set(a, "pretrained_model", at("start.onnx"));
    return a;
}

/* 0 or -1, as train_run; *s is emptied of what a run before told. */
static inline int run(const struct train_args *a, struct seen *s,
                      struct error *err)
{
    struct seen fresh = {.stop_phase = s->stop_phase,
                         .stop_step = s->stop_step};
    enum train_outcome out = TRAIN_PUBLISHED;
    int rc;

    *s = fresh;
    *err = (struct error){0};
    rc = train_run(a, on_event, s, &s->stop, &out, err);
    assert_int_equal(s->n_results, rc == 0);
    if (rc == 0)
        assert_int_equal(s->outcome, out);
    return rc;
}

static inline void must_run(const struct train_args *a, struct seen *s)
{
    struct error err = {0};

    if (run(a, s, &err))
        fail_msg("%s", err.text);
}

static inline void file_id(const char *path, char id[65])
{
    struct error err = {0};
    struct model *m = model_load(path, NULL, NULL, &err);

    if (!m)
        fail_msg("%s", err.text);
    memcpy(id, m->id, 65);
    model_free(m);
}

static inline int make_world(void **state)
{
    (void)state;
    snprintf(world, sizeof(world), "/tmp/test_train.XXXXXX");
    if (!mkdtemp(world))
        return -1;
    write_people(at("faces"), 0, PEOPLE, EACH);
    write_net(at("start.onnx"), &(struct net){.dim = DIM, .dense = 0.2f});
    return 0;
}

static inline int remove_world(void **state)
{
    (void)state;
    erase(world);
    return 0;
}

#endif
