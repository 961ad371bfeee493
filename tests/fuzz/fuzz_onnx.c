/* tests/fuzz/fuzz_onnx.c - any bytes as an ONNX file. What is accepted has
 * shapes for any batch, only finite weights, and comes back the same from a
 * file that we write. The mutator starts from a small good model now and
 * then, so that no corpus is needed. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/engine/onnx.h"
#include "tests/make_onnx.h"

enum {
    MAX_FILE = 1 << 16,
    N_SEEDS = 4
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed);

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_onnx: %s\n", what);
    abort();
}

/* Four small models that between them use most operators. */
static uint8_t *seed_model(unsigned which, size_t *len)
{
    struct make m;
    Onnx__NodeProto *n;
    uint8_t *bytes;

    make_begin(&m, which % 2 ? 13 : 9);
    make_input(&m, "x", 1, 2, which == 3 ? MAKE_FREE : 6, 6);
    make_floats(&m, "w", 2, 2, 3, 3);
    n = make_node(&m, "Conv", "x w", "c");
    make_word(&m, n, "auto_pad", "SAME_UPPER");
    make_floats(&m, "k", 2, 1, 1, 0);
    make_node(&m, which % 2 ? "PRelu" : "Mul", "c k", "p");
    if (which < 2) {
        n = make_node(&m, "Split", "p", "s t");
        make_int(&m, n, "axis", 1);
        make_node(&m, "Max", "s t", "u");
        make_node(&m, "Flatten", "u", "f");
        make_floats(&m, "d", 36, 3, 0, 0);
        make_node(&m, "Gemm", "f d", "y");
    } else {
        n = make_node(&m, "MaxPool", "p", "q");
        make_numbers(&m, n, "kernel_shape", 2, 2, 2);
        make_int(&m, n, "ceil_mode", 1);
        make_node(&m, "Add", "q q", "a");
        n = make_node(&m, "Transpose", "a", "y");
        make_numbers(&m, n, "perm", 4, 0, 1, 3, 2);
    }
    make_output(&m, "y");
    make_pair(&m, "author", "me");
    make_pair(&m, "facenetd.threshold.3", "0.5 1 2 1");
    bytes = make_bytes(&m, len);
    make_end(&m);
    return bytes;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
                               unsigned seed)
{
    if (seed % 32 == 0) {
        size_t n;
        uint8_t *bytes = seed_model(seed / 32 % N_SEEDS, &n);
        if (n <= max) {
            memcpy(data, bytes, n);
            len = n;
        }
        free(bytes);
    }
    return LLVMFuzzerMutate(data, len, max);
}

static void check_graph(const struct graph *g)
{
    struct shape *s = calloc((size_t)g->n_values, sizeof(*s));
    char *text;

    check(s != NULL, "no memory");
    check(!graph_shapes(g, 3, 224, 224, s, NULL), "no shapes for a batch of 3");
    for (int i = 0; i < g->n_values; i++) {
        const struct value *v = &g->values[i];
        for (size_t k = 0; v->data && k < shape_count(&v->shape); k++)
            check(isfinite(v->data[k]), "a weight is not finite");
    }
    text = graph_text(g, 224, 224, NULL);
    check(text != NULL, "no text");
    free(text);
    free(s);
}

static void check_saved(const struct graph *g, const struct onnx_metadata *meta)
{
    static char path[64];
    struct onnx_metadata back = {0};
    struct error err = {0};
    struct graph *h;

    if (!*path)
        snprintf(path, sizeof(path), "/tmp/facenetd-fuzz-%d.onnx",
                 (int)getpid());
    if (onnx_save(g, meta, path, &err)) {
        /* what operator set 13 cannot say */
        check(err.code == ERR_MODEL, err.text);
        return;
    }
    h = onnx_load(path, &back, &err);
    unlink(path);
    check(h != NULL, err.text);
    check(h->n_nodes == g->n_nodes && h->n_outputs == g->n_outputs &&
              back.n == meta->n,
          "something was lost in the file");
    for (int i = 0; i < g->n_nodes; i++)
        check(h->nodes[i].op.type == g->nodes[i].op.type &&
                  !strcmp(h->nodes[i].name, g->nodes[i].name),
              "a node has changed in the file");
    onnx_metadata_fini(&back);
    graph_free(h);
}

static const char prefix[] = "facenetd.threshold.";

/* Any file that is read: pairs with the prefix are replaced, all else, and the
 * digest without them, is as before. */
static void check_spliced(const uint8_t *data, size_t len,
                          const struct onnx_metadata *meta)
{
    static char path[64];
    static const char *const keys[2] = {"facenetd.threshold.0",
                                        "facenetd.threshold.77"};
    struct onnx_metadata put = {0}, got = {0};
    uint8_t before[CRYPTO_SHA256_LEN], after[CRYPTO_SHA256_LEN];
    struct error err = {0};
    struct graph *g;
    FILE *f;
    int n = 0;

    snprintf(path, sizeof(path), "/tmp/facenetd-fuzz-%d.splice", (int)getpid());
    f = fopen(path, "wb");
    check(f && fwrite(data, 1, len, f) == len && !fclose(f), "no file");
    g = onnx_load_digest(path, prefix, before, NULL, &err);
    check(g != NULL, err.text);
    graph_free(g);
    for (int i = 0; i < 2; i++)
        check(!onnx_metadata_set(&put, keys[i], "0.5 1 2 1", &err), err.text);
    check(!onnx_replace_metadata(path, prefix, &put, &err), err.text);
    g = onnx_load_digest(path, prefix, after, &got, &err);
    unlink(path);
    /* a file with as many pairs as there may be takes no more */
    check(g || meta->n + 2 > ONNX_MAX_METADATA, err.text);
    for (int i = 0; g && i < meta->n; i++) {
        if (!strncmp(meta->keys[i], prefix, strlen(prefix)))
            continue;
        check(!strcmp(got.keys[n], meta->keys[i]) &&
                  !strcmp(got.values[n], meta->values[i]),
              "another pair has changed");
        n++;
    }
    check(!g || (got.n == n + 2 && !strcmp(got.keys[n], keys[0]) &&
                 !strcmp(got.keys[n + 1], keys[1])),
          "the new pairs are not there");
    check(!g || !memcmp(before, after, sizeof(before)), "another digest");
    onnx_metadata_fini(&put);
    onnx_metadata_fini(&got);
    graph_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct onnx_metadata meta = {0};
    struct error err = {0};
    struct graph *g;

    if (len > MAX_FILE)
        return 0;
    g = onnx_parse(data, len, &meta, &err);
    if (g) {
        check_graph(g);
        check_saved(g, &meta);
        check_spliced(data, len, &meta);
    } else {
        check(err.code == ERR_MODEL && *err.text, "no reason");
    }
    onnx_metadata_fini(&meta);
    graph_free(g);
    return 0;
}
