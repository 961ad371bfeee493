/* tests/unit/test_detector_train.c - whole runs of the detector's training on
 * a few small made-up photos, taught by random networks whose last biases make
 * them find faces everywhere: files that load, the same twice and on a card
 * that is played (tests/fake_gpu.c), a stop, and what is refused. */
#include "core/train/detector_train.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/arch/arch.h"
#include "core/face/image.h"
#include "core/face/model.h"
#include "tests/folder.h"

static struct {
    struct device *dev;
    volatile sig_atomic_t stop;
    int n_begun, n_written, stop_at_begin;
    char plugin[2048], learns[400];
} all;

static void on_report(void *ctx, const struct detector_train_report *r)
{
    (void)ctx;
    all.n_begun += r->state == DETECTOR_TRAIN_BEGIN;
    all.n_written += r->state == DETECTOR_TRAIN_WRITTEN;
    if (r->state == DETECTOR_TRAIN_DEVICE)
        snprintf(all.learns, sizeof(all.learns), "%s", r->text);
    if (all.stop_at_begin && all.n_begun == all.stop_at_begin)
        all.stop = 1;
}

/* --- a world ------------------------------------------------------------ */

static void write_photo(const char *name, int w, int h, unsigned seed)
{
    struct error err = {0};
    struct image *img = image_new(w, h, &err);
    uint8_t *bytes;
    size_t len;

    assert_non_null(img);
    for (int i = 0; i < w * h * 3; i++) {
        seed = seed * 1103515245 + 12345;
        img->rgb[i] = (uint8_t)(((i / 3 % w) * 5 + (seed >> 24)) & 255);
    }
    assert_int_equal(image_encode_png(img, &bytes, &len, &err), 0);
    folder_bytes(name, bytes, len);
    free(bytes);
    image_free(img);
}

/* A random network that says "face" with a probability near one. */
static void write_teacher(const char *arch, enum model_kind kind,
                          const char *bias, const char *name)
{
    struct arch_options opt = {.seed = 3};
    struct contract c = {.kind = kind};
    struct error err = {0};
    struct graph *g = arch_new(arch, &opt, &err);
    int value;

    assert_non_null(g);
    value = graph_find(g, bias);
    assert_true(value >= 0);
    g->values[value].data[0] = -4;
    g->values[value].data[1] = 4;
    assert_int_equal(contract_parse_scale(&c, "fixed:127.5,128", &err), 0);
    if (model_save(g, &c, NULL, all.dev, folder_path(name), &err))
        fail_msg("%s: %s", name, err.text);
    graph_free(g);
}

static int setup(void **state)
{
    struct device_options one = {.n_threads = 1};
    struct error err = {0};
    char name[64];
    ssize_t n = readlink("/proc/self/exe", all.plugin, sizeof(all.plugin) - 32);

    (void)state;
    assert_true(n > 0);
    strcpy(strrchr(all.plugin, '/') + 1, "../fake_gpu.so");
    folder_new();
    all.dev = backend_cpu.device_open(&one, &err);
    assert_non_null(all.dev);
    folder_dir("teacher");
    write_teacher("mtcnn_pnet", MODEL_PNET, "conv4_1.bias",
                  "teacher/detector_pnet.onnx");
    write_teacher("mtcnn_rnet", MODEL_RNET, "dense5_1.bias",
                  "teacher/detector_rnet.onnx");
    write_teacher("mtcnn_onet", MODEL_ONET, "dense6_1.bias",
                  "teacher/detector_onet.onnx");
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "photos/p%u/1.png", i);
        write_photo(name, 48 + 8 * (int)i, 56, i);
    }
    folder_file("photos/p0/broken.png", "no picture");
    write_photo("grounds/deep/one.png", 90, 60, 9);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    all.dev->backend->device_close(all.dev);
    folder_remove();
    return 0;
}

static struct detector_train_options few_steps(const char *out)
{
    static char data[2048], teacher[2048], to[2][2048], grounds[2048];
    static int next;
    struct detector_train_options o;

    detector_train_defaults(&o);
    snprintf(data, sizeof(data), "%s", folder_path("photos"));
    snprintf(teacher, sizeof(teacher), "%s", folder_path("teacher"));
    snprintf(grounds, sizeof(grounds), "%s", folder_path("grounds"));
    next = !next;
    snprintf(to[next], sizeof(to[next]), "%s", folder_path(out));
    o.data_dir = data;
    o.teacher = teacher;
    o.backgrounds = grounds;
    o.out = to[next];
    for (int i = 0; i < DETECTOR_STAGES; i++)
        o.batches[i] = 2;
    o.n_threads = 1;
    o.seed = 5;
    o.device = "cpu";
    o.plugin = all.plugin;
    return o;
}

static int run(const struct detector_train_options *o, bool *stopped,
               struct error *err)
{
    all.stop = 0;
    all.n_begun = all.n_written = 0;
    return detector_train(o, on_report, NULL, &all.stop, stopped, err);
}

static void id_of(const char *name, char id[65])
{
    struct error err = {0};
    struct model *m = model_load(folder_path(name), all.dev, NULL, &err);

    if (!m)
        fail_msg("%s: %s", name, err.text);
    memcpy(id, m->id, 65);
    assert_string_equal(m->contract.licence, "Apache-2.0");
    model_free(m);
}

/* --- tests ---------------------------------------------------------------- */

/* The third on a card, which keeps the numbers to itself. */
static void test_thrice_the_same(void **state)
{
    static const char *const files[] = {
        "detector_pnet.onnx", "detector_rnet.onnx", "detector_onet.onnx"};
    struct error err = {0};
    bool stopped;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct detector_train_options o = few_steps(i > 1 ? "card"
                                                    : i   ? "b"
                                                          : "a");

        o.device = i > 1 ? "cuda" : "cpu";
        if (run(&o, &stopped, &err))
            fail_msg("%s", err.text);
        assert_false(stopped);
        assert_int_equal(all.n_begun, 3);
        assert_int_equal(all.n_written, 3);
        assert_int_equal(strncmp(all.learns, "cuda, Fake", 10) == 0, i > 1);
    }
    for (int i = 0; i < 3; i++) {
        char first[65], second[65], name[64];

        snprintf(name, sizeof(name), "a/%s", files[i]);
        id_of(name, first);
        name[0] = 'b';
        id_of(name, second);
        assert_string_equal(first, second);
        snprintf(name, sizeof(name), "card/%s", files[i]);
        id_of(name, second);
        assert_string_equal(first, second);
    }
}

static void test_one_goes_on(void **state)
{
    struct detector_train_options o = few_steps("c");
    struct error err = {0};
    char before[65], after[65];
    char from[2048];
    bool stopped;

    (void)state;
    snprintf(from, sizeof(from), "%s", folder_path("a"));
    o.stage[DETECTOR_R] = o.stage[DETECTOR_O] = false;
    o.from = from;
    if (run(&o, &stopped, &err))
        fail_msg("%s", err.text);
    assert_int_equal(all.n_written, 1);
    id_of("a/detector_pnet.onnx", before);
    id_of("c/detector_pnet.onnx", after);
    assert_string_not_equal(before, after);
    /* R-Net takes P-Net from there; O-Net would need R-Net, too. */
    o.stage[DETECTOR_P] = false;
    o.stage[DETECTOR_O] = true;
    assert_int_equal(run(&o, &stopped, &err), -1);
    assert_non_null(strstr(err.text, "detector_rnet.onnx"));
}

static void test_stop(void **state)
{
    struct detector_train_options o = few_steps("d");
    struct error err = {0};
    bool stopped;
    char id[65];

    (void)state;
    all.stop_at_begin = 2;
    if (run(&o, &stopped, &err))
        fail_msg("%s", err.text);
    all.stop_at_begin = 0;
    assert_true(stopped);
    assert_int_equal(all.n_written, 2);
    id_of("d/detector_rnet.onnx", id);
    assert_true(access(folder_path("d/detector_onet.onnx"), F_OK));
}

static void refused(const struct detector_train_options *o,
                    enum error_code code, const char *word)
{
    struct error err = {0};
    bool stopped;

    assert_int_equal(run(o, &stopped, &err), -1);
    if (err.code != code || !strstr(err.text, word))
        fail_msg("%d, %s", (int)err.code, err.text);
}

static void test_refused(void **state)
{
    struct detector_train_options o = few_steps("e");

    (void)state;
    o.batches[DETECTOR_R] = 0;
    refused(&o, ERR_BAD_FIELD, "at least 1");
    o = few_steps("e");
    o.device = "cuda";
    o.plugin = "/nowhere.so";
    refused(&o, ERR_DEVICE, "device cuda: plugin /nowhere.so");
    o.device = "card";
    refused(&o, ERR_BAD_FIELD, "'card' is none of auto");
    o = few_steps("e");
    o.rate = 2;
    refused(&o, ERR_BAD_FIELD, "rate");
    o = few_steps("e");
    o.backgrounds = "/nowhere";
    refused(&o, ERR_BAD_FIELD, "/nowhere");
    o = few_steps("e");
    o.data_dir = "/nowhere";
    refused(&o, ERR_BAD_FIELD, "/nowhere");
    o = few_steps("e");
    o.teacher = o.data_dir;
    refused(&o, ERR_FILE, "detector_pnet.onnx");
    o = few_steps("e");
    o.data_dir = folder_path("grounds");
    write_photo("grounds/none/x.png", 4, 4, 1); /* too small to be read */
    o.backgrounds = NULL;
    remove(folder_path("grounds/deep/one.png"));
    refused(&o, ERR_TRAINING, "no face");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thrice_the_same),
        cmocka_unit_test(test_one_goes_on),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
