/* tests/unit/test_onnx_bytes.c - damaged ONNX files: a good one cut at every
 * byte, with every bit turned, with garbage behind it; files made to exhaust
 * the stack or memory; files that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine/onnx.h"
#include "tests/make_onnx.h"

/* x [1,3,8,8] -> Conv -> c -> Relu -> y */
static uint8_t *good_bytes(size_t *len)
{
    struct make m;
    uint8_t *bytes;

    make_begin(&m, 13);
    make_input(&m, "x", 1, 3, 8, 8);
    make_floats(&m, "w", 4, 3, 3, 3);
    make_node(&m, "Conv", "x w", "c");
    make_node(&m, "Relu", "c", "y");
    make_output(&m, "y");
    bytes = make_bytes(&m, len);
    make_end(&m);
    return bytes;
}

static void check_says(const char *text, const char *word)
{
    if (!strstr(text, word))
        fail_msg("\"%s\" does not say \"%s\"", text, word);
}

static void test_cut(void **state)
{
    size_t len;
    uint8_t *bytes = good_bytes(&len);

    (void)state;
    for (size_t n = 0; n < len; n++) {
        struct error err = {0};
        uint8_t *copy = malloc(n + 1); /* so that a sanitiser sees the end */
        memcpy(copy, bytes, n);
        copy = realloc(copy, n ? n : 1);
        if (onnx_parse(copy, n, NULL, &err))
            fail_msg("%zu of %zu bytes were accepted", n, len);
        assert_int_equal(err.code, ERR_MODEL);
        assert_true(strlen(err.text) > 0);
        free(copy);
    }
    free(bytes);
}

static void test_flipped(void **state)
{
    size_t len, accepted = 0;
    uint8_t *bytes = good_bytes(&len);

    (void)state;
    for (size_t bit = 0; bit < 8 * len; bit++) {
        struct error err = {0};
        struct graph *g;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        g = onnx_parse(bytes, len, NULL, &err);
        if (g) { /* a weight's low bits, a name */
            struct shape *s = calloc((size_t)g->n_values, sizeof(*s));
            assert_non_null(s);
            assert_int_equal(graph_shapes(g, 3, 64, 64, s, &err), 0);
            free(s);
            accepted++;
        } else {
            assert_int_equal(err.code, ERR_MODEL);
        }
        graph_free(g);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_in_range(accepted, 1, 8 * len - 1);
    free(bytes);
}

static void test_garbage(void **state)
{
    static const char tails[][4] = {"\0", "\xff\xff\xff", "abc", "\x7f\1"};
    struct error err = {0};
    size_t len;
    uint8_t *bytes = good_bytes(&len);

    (void)state;
    bytes = realloc(bytes, len + 4);
    assert_non_null(bytes);
    for (size_t i = 0; i < 4; i++) {
        memcpy(bytes + len, tails[i], 4);
        assert_null(onnx_parse(bytes, len + 1, NULL, &err));
        assert_null(onnx_parse(bytes, len + 3, NULL, &err));
    }
    assert_null(onnx_parse("", 0, NULL, &err));
    assert_null(onnx_parse("# not a model\n", 14, NULL, &err));
    free(bytes);
}

/* Graphs within attributes of nodes of graphs …: protobuf-c alone would
 * follow them until the stack ends. Types within types likewise. */
static void check_nested(const uint8_t *tags, size_t n_tags, const char *word)
{
    enum {
        LEN = 1 << 20
    };
    uint8_t *bytes = malloc(LEN);
    struct error err = {0};
    size_t at = LEN;
    uint32_t inner = 0;

    assert_non_null(bytes);
    for (size_t i = 0; at > 16; i++) {
        uint8_t head[6] = {tags[n_tags - 1 - i % n_tags]};
        size_t n = 1;
        for (uint32_t v = inner; n == 1 || v; v >>= 7)
            head[n++] = (uint8_t)(v & 0x7f) | (v >> 7 ? 0x80 : 0);
        at -= n;
        memcpy(bytes + at, head, n);
        inner += (uint32_t)n;
        if (at < 32 && i % n_tags == n_tags - 1)
            break;
    }
    /* the outermost: ModelProto.graph */
    uint8_t head[6] = {0x3a};
    size_t n = 1;
    for (uint32_t v = inner; n == 1 || v; v >>= 7)
        head[n++] = (uint8_t)(v & 0x7f) | (v >> 7 ? 0x80 : 0);
    assert_true(at >= n);
    memcpy(bytes + at - n, head, n);
    assert_null(onnx_parse(bytes + at - n, LEN - at + n, NULL, &err));
    assert_int_equal(err.code, ERR_MODEL);
    check_says(err.text, word);
    free(bytes);
}

static void test_nested(void **state)
{
    /* node, attribute, g */
    static const uint8_t graphs[] = {0x0a, 0x2a, 0x32};

    (void)state;
    check_nested(graphs, sizeof(graphs), "subgraph");
}

/* Two bytes make a whole message: more of them than any model has. */
static void test_many_messages(void **state)
{
    enum {
        N = 1 << 20
    };
    uint8_t *bytes = malloc(2 * N + 8);
    struct error err = {0};
    size_t at = 0;

    (void)state;
    assert_non_null(bytes);
    bytes[at++] = 0x3a; /* graph */
    for (uint32_t v = 2 * N; v; v >>= 7)
        bytes[at++] = (uint8_t)(v & 0x7f) | (v >> 7 ? 0x80 : 0);
    for (int i = 0; i < N; i++) {
        bytes[at++] = 0x0a; /* node, empty */
        bytes[at++] = 0;
    }
    assert_null(onnx_parse(bytes, at, NULL, &err));
    assert_int_equal(err.code, ERR_MODEL);
    check_says(err.text, "nodes");
    free(bytes);
}

static void test_files(void **state)
{
    struct error err = {0};

    (void)state;
    assert_null(onnx_load("/tmp/facenetd-no-such-file.onnx", NULL, &err));
    assert_int_equal(err.code, ERR_FILE);
    check_says(err.text, "facenetd-no-such-file");
    assert_null(onnx_load("/tmp", NULL, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_null(onnx_load("/dev/zero", NULL, &err));
    assert_int_equal(err.code, ERR_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),           cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_garbage),       cmocka_unit_test(test_nested),
        cmocka_unit_test(test_many_messages), cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
