/* tests/unit/test_plugin.c - which files are plugins and how others are
 * refused, with the card that is played (tests/fake_gpu.c); and that a network
 * runs through its table. */
#include "core/engine/plugin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine/graph.h"

static char dir[] = "/tmp/facenetd-plugin-XXXXXX";
static char fake[4096];

static const char *file(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void refused(const char *path, const char *why)
{
    struct error err = {0};

    assert_null(plugin_open(path, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    if (!strstr(err.text, why))
        fail_msg("%s: %s", path, err.text);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_refused(void **state)
{
    char path[256];

    (void)state;
    refused("", "not an absolute path");
    refused("facenetd-cuda.so", "not an absolute path");
    refused("./facenetd-cuda.so", "not an absolute path");
    refused(file("none.so"), "No such file");
    refused(dir, "is no file");
    snprintf(path, sizeof(path), "%s", file("text.so"));
    write_file(path, "int main(void)", 0644);
    refused(path, "text.so");
    assert_int_equal(chmod(path, 0666), 0);
    refused(path, "written by others");
    assert_int_equal(unlink(path), 0);
}

static void test_names(void **state)
{
    static const char *const bad[] = {
        "",           "gpu", "cuda:", "cuda:x", "cuda:1x",
        "cuda:12345", "CPU", "cuda1", "cuda:-1"};
    int index = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(plugin_parse(bad[i], &index));
    assert_true(plugin_parse("auto", &index) && index == 0);
    assert_true(plugin_parse("cpu", &index) && index == 0);
    assert_true(plugin_parse("cuda", &index) && index == 0);
    assert_true(plugin_parse("cuda:0", &index) && index == 0);
    assert_true(plugin_parse("cuda:15", &index) && index == 15);
}

/* A shared object, but none of ours. */
static void test_not_ours(void **state)
{
    static const char *const known[] = {"/lib/x86_64-linux-gnu/libm.so.6",
                                        "/lib/aarch64-linux-gnu/libm.so.6",
                                        "/lib64/libm.so.6", "/lib/libm.so.6"};
    size_t i = 0, n = sizeof(known) / sizeof(known[0]);

    (void)state;
    while (i < n && access(known[i], R_OK) != 0)
        i++;
    if (i == n)
        skip();
    refused(known[i], PLUGIN_ENTRY);
}

static void test_other_version(void **state)
{
    (void)state;
    setenv("FACENETD_FAKE_ABI", "3", 1);
    refused(fake, "another version");
    unsetenv("FACENETD_FAKE_ABI");
    setenv("FACENETD_FAKE_LACKS", "1", 1);
    refused(fake, "has no forward");
    unsetenv("FACENETD_FAKE_LACKS");
}

/* y = sigmoid(x), here and there. */
static void run(const struct backend *b, float *y, int n)
{
    struct device_options one = {.n_threads = 1};
    struct plan_options opt = {.n = 1, .precision = PRECISION_F32};
    struct op sigmoid = {.type = OP_SIGMOID};
    struct error err = {0};
    struct graph *g = graph_new(&err);
    struct device *dev = b->device_open(&one, &err);
    struct device_info info;
    struct network *net;
    struct plan *p;
    int x = graph_add_input(g, "x", 1, 1, n, &err);

    graph_add_output(g, graph_add_node(g, "", &sigmoid, &x, 1, "", &err), &err);
    assert_non_null(dev);
    b->device_describe(dev, &info);
    assert_true(info.name[0] != '\0');
    net = network_new(dev, g, &err);
    if (!net)
        fail_msg("%s", err.text);
    graph_free(g);
    p = graph_plan(net, &opt, &err);
    if (!p)
        fail_msg("%s", err.text);
    for (int i = 0; i < n; i++)
        plan_input(p)[i] = (float)(i - n / 2);
    assert_int_equal(graph_forward(p, &err), 0);
    memcpy(y, plan_output(p, 0), (size_t)n * sizeof(*y));
    plan_free(p);
    network_free(net);
    b->device_close(dev);
}

static void test_runs(void **state)
{
    struct error err = {0};
    const struct backend *b = plugin_open(fake, &err);
    float here[9], there[9];

    (void)state;
    if (!b)
        fail_msg("%s", err.text);
    assert_int_equal(b->abi, BACKEND_ABI);
    assert_string_equal(b->name, "cuda");
    assert_ptr_equal(plugin_open(fake, &err), b); /* again: the same */
    run(&backend_cpu, here, 9);
    run(b, there, 9);
    assert_memory_equal(here, there, sizeof(here));
}

static void test_precision_names(void **state)
{
    static const char *const names[] = {"auto", "f32", "bf16", "f16", "tf32"};
    enum precision p;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_true(precision_parse(names[i], &p));
        assert_string_equal(precision_name(p), names[i]);
    }
    assert_false(precision_parse("f64", &p));
    assert_false(precision_parse("", &p));
}

static int setup(void **state)
{
    ssize_t n = readlink("/proc/self/exe", fake, sizeof(fake) - 32);
    char *slash;

    (void)state;
    if (n < 0 || !mkdtemp(dir))
        return -1;
    fake[n] = '\0';
    slash = strrchr(fake, '/'); /* …/tests/unit/test_plugin */
    strcpy(slash + 1, "../fake_gpu.so");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_ours), cmocka_unit_test(test_other_version),
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_precision_names),
    };

    return cmocka_run_group_tests_name("plugin", tests, setup, teardown);
}
