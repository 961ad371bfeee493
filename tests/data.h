/* tests/data.h - photos, weights and golden numbers that tests read where
 * they are there: FACENETD_DATA or ../shared/data. Where they are not, a test
 * says so and is counted as skipped. Header only. */
#ifndef TESTS_DATA_H
#define TESTS_DATA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/engine/onnx.h"
#include "core/face/image.h"
#include "core/face/model.h"

static inline const char *data_path(const char *name)
{
    static char path[1024];
    const char *root = getenv("FACENETD_DATA");

    snprintf(path, sizeof(path), "%s/%s", root ? root : "../shared/data", name);
    return path;
}

/* Skips the test when a file of the test data is not there. */
static inline void data_need(const char *name)
{
    const char *path = data_path(name);

    if (access(path, R_OK)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
}

static inline uint8_t *data_read(const char *name, size_t *len)
{
    FILE *f = fopen(data_path(name), "rb");
    long size;
    uint8_t *bytes;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    rewind(f);
    bytes = malloc((size_t)size);
    assert_non_null(bytes);
    *len = fread(bytes, 1, (size_t)size, f);
    assert_int_equal(*len, size);
    fclose(f);
    return bytes;
}

static inline struct image *data_photo(const char *name)
{
    char path[512];
    struct error err = {0};
    struct image *img;
    size_t len;
    uint8_t *bytes;

    snprintf(path, sizeof(path), "photos/%s", name);
    bytes = data_read(path, &len);
    img = image_decode(bytes, len, NULL, &err);
    if (!img)
        fail_msg("%s: %s", name, err.text);
    free(bytes);
    return img;
}

static inline json_t *data_json(const char *name)
{
    json_error_t why;
    json_t *root = json_load_file(data_path(name), 0, &why);

    if (!root)
        fail_msg("%s: %s", name, why.text);
    return root;
}

static inline float data_number(const json_t *list, size_t i)
{
    return (float)json_number_value(json_array_get(list, i));
}

/* Weights as they come, under a contract written here. Free with
 * data_model_free. */
static inline struct model *data_model(const char *name,
                                       const struct contract *c)
{
    char path[512];
    struct error err = {0};
    struct model *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    snprintf(path, sizeof(path), "weights/%s.onnx", name);
    m->graph = onnx_load(data_path(path), NULL, &err);
    if (!m->graph)
        fail_msg("%s: %s", path, err.text);
    snprintf(m->name, sizeof(m->name), "%s", name);
    m->contract = *c;
    return m;
}

static inline void data_model_free(struct model *m)
{
    graph_free(m->graph);
    free(m);
}

static inline struct device *data_device(void)
{
    struct device_options one = {.n_threads = 1};
    struct error err = {0};
    struct device *dev = backend_cpu.device_open(&one, &err);

    if (!dev)
        fail_msg("%s", err.text);
    return dev;
}

#endif
