/* tests/unit/test_onnx.c - ONNX files to graphs and back: what every operator
 * becomes, that nothing is lost on the way through a file, and what is
 * refused, by name: test_onnx_bad.c and test_onnx_bytes.c. */
#include <float.h>

#include "core/engine/onnx.h"
#include "tests/data.h"
#include "tests/make_onnx.h"

static struct make m;

static struct graph *parse(void)
{
    struct error err = {0};
    size_t len;
    uint8_t *bytes = make_bytes(&m, &len);
    struct graph *g = onnx_parse(bytes, len, NULL, &err);

    free(bytes);
    make_end(&m);
    if (!g)
        fail_msg("%s", err.text);
    return g;
}

/* The node that computes a value. */
static const struct node *node_of(const struct graph *g, const char *value)
{
    int v = graph_find(g, value);

    for (int i = 0; i < g->n_nodes && v >= 0; i++)
        if (g->nodes[i].out == v)
            return &g->nodes[i];
    fail_msg("no node computes %s", value);
    return NULL;
}

static const float *weight_of(const struct graph *g, const struct node *n,
                              int input, const char *shape)
{
    const struct value *v = &g->values[n->in[input]];
    char text[48];

    assert_true(input < n->n_in);
    assert_int_equal(v->kind, VALUE_WEIGHT);
    assert_string_equal(shape_text(&v->shape, text, sizeof(text)), shape);
    return v->data;
}

/* --- round trip -------------------------------------------------------------
 */

static bool op_equal(const struct op *a, const struct op *b)
{
    const struct op_conv *c = &a->u.conv, *d = &b->u.conv;
    const struct op_pool *p = &a->u.pool, *q = &b->u.pool;

    if (a->type != b->type)
        return false;
    switch (a->type) {
    case OP_CONV:
        return !memcmp(c, d, offsetof(struct op_conv, residual));
    case OP_BATCH_NORM:
        return !memcmp(&a->u.norm, &b->u.norm, sizeof(a->u.norm));
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return !memcmp(p, q, offsetof(struct op_pool, global)) &&
               p->global == q->global && p->ceil_mode == q->ceil_mode &&
               p->count_pad == q->count_pad && p->p == q->p;
    case OP_CLIP:
        return a->u.clip.lo == b->u.clip.lo && a->u.clip.hi == b->u.clip.hi;
    case OP_CONCAT:
    case OP_SLICE:
    case OP_SOFTMAX:
    case OP_LP_NORM:
        return !memcmp(&a->u.axis, &b->u.axis, sizeof(a->u.axis));
    case OP_LRN:
        return !memcmp(&a->u.lrn, &b->u.lrn, sizeof(a->u.lrn));
    case OP_RESHAPE:
        return shape_equal(&a->u.reshape.to, &b->u.reshape.to);
    case OP_TRANSPOSE:
        return !memcmp(&a->u.transpose, &b->u.transpose,
                       sizeof(a->u.transpose));
    case OP_DROPOUT:
        return a->u.dropout.ratio == b->u.dropout.ratio;
    default:
        return true;
    }
}

/* Equal names, operators, wiring and weights; the order of values may differ.
 */
static void check_equal(const struct graph *a, const struct graph *b)
{
    assert_int_equal(a->n_nodes, b->n_nodes);
    assert_int_equal(a->n_values, b->n_values);
    assert_int_equal(a->n_outputs, b->n_outputs);
    assert_true(
        shape_equal(&a->values[a->input].shape, &b->values[b->input].shape));
    for (int i = 0; i < a->n_nodes; i++) {
        const struct node *x = &a->nodes[i], *y = &b->nodes[i];
        assert_string_equal(x->name, y->name);
        if (!op_equal(&x->op, &y->op))
            fail_msg("node %s has changed", x->name);
        assert_int_equal(x->n_in, y->n_in);
        assert_string_equal(a->values[x->out].name, b->values[y->out].name);
        for (int k = 0; k < x->n_in; k++) {
            const struct value *v = &a->values[x->in[k]],
                               *w = &b->values[y->in[k]];
            assert_string_equal(v->name, w->name);
            assert_int_equal(v->kind, w->kind);
            if (v->kind != VALUE_WEIGHT)
                continue;
            assert_true(shape_equal(&v->shape, &w->shape));
            assert_memory_equal(v->data, w->data,
                                shape_count(&v->shape) * sizeof(float));
        }
    }
    for (int i = 0; i < a->n_outputs; i++)
        assert_string_equal(a->values[a->outputs[i]].name,
                            b->values[b->outputs[i]].name);
}

static void check_round_trip(const struct graph *g)
{
    char dir[] = "/tmp/facenetd-onnx-XXXXXX", path[64];
    struct onnx_metadata meta = {0}, back = {0};
    struct error err = {0};
    struct graph *h;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/model.onnx", dir);
    assert_int_equal(onnx_metadata_set(&meta, "who", "tëst\nline", &err), 0);
    assert_int_equal(onnx_metadata_set(&meta, "empty", "", &err), 0);
    if (onnx_save(g, &meta, path, &err))
        fail_msg("%s", err.text);
    h = onnx_load(path, &back, &err);
    if (!h)
        fail_msg("%s", err.text);
    check_equal(g, h);
    assert_int_equal(back.n, 2);
    assert_string_equal(onnx_metadata_get(&back, "who"), "tëst\nline");
    assert_string_equal(onnx_metadata_get(&back, "empty"), "");
    assert_null(onnx_metadata_get(&back, "none"));
    graph_free(h);
    onnx_metadata_fini(&meta);
    onnx_metadata_fini(&back);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* no part file is left behind */
}

/* Every operator of the table at least once, with the function after it. */
static void operators_of_numbers(void)
{
    Onnx__NodeProto *n;

    make_begin(&m, 13);
    make_input(&m, "x", 1, 4, 12, 10);
    make_floats(&m, "w", 8, 2, 3, 3);
    make_floats(&m, "b", 8, 0, 0, 0);
    n = make_node(&m, "Conv", "x w b", "conv");
    make_int(&m, n, "group", 2);
    make_numbers(&m, n, "pads", 4, 1, 0, 1, 2);
    make_numbers(&m, n, "strides", 2, 1, 2);
    make_floats(&m, "gamma", 8, 0, 0, 0);
    make_floats(&m, "beta", 8, 0, 0, 0);
    make_floats(&m, "mean", 8, 0, 0, 0);
    make_floats(&m, "var", 8, 0, 0, 0);
    n = make_node(&m, "BatchNormalization", "conv gamma beta mean var", "bn");
    make_float(&m, n, "epsilon", 0.25f);
    make_node(&m, "Relu", "bn", "relu");
    make_floats(&m, "slope", 8, 1, 1, 0);
    make_node(&m, "PRelu", "relu slope", "prelu");
    n = make_node(&m, "LeakyRelu", "prelu", "leaky");
    make_float(&m, n, "alpha", 0.125f);
    make_floats(&m, "lo", 0, 0, 0, 0);
    make_node(&m, "Clip", "leaky lo", "clip");
    make_node(&m, "Sigmoid", "clip", "sigmoid");
    make_node(&m, "Add", "sigmoid clip", "add");
    make_floats(&m, "k", 8, 1, 1, 0);
    make_node(&m, "Sub", "add k", "sub");
    make_floats(&m, "one", 1, 0, 0, 0);
    make_node(&m, "Mul", "one sub", "mul");
    make_node(&m, "Div", "mul one", "div");
    make_node(&m, "Sub", "k div", "minus");
}

/* The rest of them, on the value "minus". */
static void operators_of_shape(void)
{
    Onnx__NodeProto *n = make_node(&m, "Split", "minus", "left right");

    make_int(&m, n, "axis", 1);
    make_node(&m, "Max", "left right", "max");
    n = make_node(&m, "Concat", "max right", "concat");
    make_int(&m, n, "axis", -3);
    n = make_node(&m, "MaxPool", "concat", "maxpool");
    make_numbers(&m, n, "kernel_shape", 2, 3, 2);
    make_numbers(&m, n, "strides", 2, 2, 1);
    make_int(&m, n, "ceil_mode", 1);
    n = make_node(&m, "AveragePool", "maxpool", "avgpool");
    make_numbers(&m, n, "kernel_shape", 2, 2, 2);
    make_numbers(&m, n, "pads", 4, 1, 1, 1, 1);
    make_int(&m, n, "count_include_pad", 1);
    n = make_node(&m, "LpPool", "avgpool", "lppool");
    make_numbers(&m, n, "kernel_shape", 2, 2, 2);
    n = make_node(&m, "LRN", "lppool", "lrn");
    make_int(&m, n, "size", 3);
    n = make_node(&m, "Transpose", "lrn", "transpose");
    make_numbers(&m, n, "perm", 4, 0, 2, 3, 1);
    n = make_node(&m, "Transpose", "transpose", "back");
    make_numbers(&m, n, "perm", 4, 0, 3, 1, 2);
    n = make_node(&m, "Softmax", "back", "softmax");
    make_int(&m, n, "axis", 1);
    make_node(&m, "GlobalAveragePool", "softmax", "gap");
    make_node(&m, "GlobalMaxPool", "softmax", "gmp");
    make_node(&m, "GlobalLpPool", "softmax", "glp");
    n = make_node(&m, "Concat", "gap gmp glp", "all");
    make_int(&m, n, "axis", 1);
    make_node(&m, "Dropout", "all", "dropout mask");
    make_ints(&m, "axes", 2, 2, 3);
    make_node(&m, "Squeeze", "dropout axes", "squeeze");
    make_floats(&m, "dense", 5, 24, 0, 0);
    n = make_node(&m, "Gemm", "squeeze dense", "gemm");
    make_int(&m, n, "transB", 1);
    make_node(&m, "Identity", "gemm", "same");
    n = make_node(&m, "LpNormalization", "same", "unit");
    make_int(&m, n, "axis", 1);
    make_output(&m, "unit");
    make_output(&m, "sigmoid");
}

static void test_round_trip(void **state)
{
    struct graph *g;
    unsigned seen = 0;

    (void)state;
    operators_of_numbers();
    operators_of_shape();
    g = parse();
    for (int i = 0; i < g->n_nodes; i++)
        seen |= 1u << g->nodes[i].op.type;
    assert_int_equal(seen, (1u << OP_COUNT) - 1);
    check_round_trip(g);
    graph_free(g);
}

static void test_round_trip_free_size(void **state)
{
    struct graph *g;
    struct shape *s;

    (void)state;
    make_begin(&m, 11);
    make_input(&m, "x", MAKE_FREE, 3, MAKE_FREE, MAKE_FREE);
    make_floats(&m, "w", 4, 3, 3, 3);
    make_word(&m, make_node(&m, "Conv", "x w", "y"), "auto_pad", "SAME_UPPER");
    make_output(&m, "y");
    g = parse();
    s = calloc((size_t)g->n_values, sizeof(*s));
    assert_non_null(s);
    assert_int_equal(graph_shapes(g, 5, 17, 9, s, NULL), 0);
    assert_true(
        shape_equal(&s[g->outputs[0]], &(struct shape){4, {5, 4, 17, 9}}));
    check_round_trip(g);
    free(s);
    graph_free(g);
}

static void test_fused_is_not_saved(void **state)
{
    struct error err = {0};
    struct graph *g, *f;

    (void)state;
    make_begin(&m, 11);
    make_input(&m, "x", 1, 3, 8, 8);
    make_floats(&m, "w", 4, 3, 3, 3);
    make_node(&m, "Conv", "x w", "c");
    make_node(&m, "Relu", "c", "y");
    make_output(&m, "y");
    g = parse();
    f = graph_fuse(g, &err);
    assert_non_null(f);
    assert_int_equal(onnx_save(f, NULL, "/tmp/facenetd-never.onnx", &err), -1);
    assert_int_equal(err.code, ERR_MODEL);
    assert_non_null(strstr(err.text, "unfused"));
    assert_int_equal(access("/tmp/facenetd-never.onnx", F_OK), -1);
    assert_int_equal(
        onnx_save(g, NULL, "/tmp/facenetd-no-such-dir/m.onnx", &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    graph_free(f);
    graph_free(g);
}

/* --- what operators become
 * ------------------------------------------------------ */

static void test_gemm(void **state)
{
    Onnx__NodeProto *n;
    const struct node *node;
    const float *w, *b;
    struct graph *g;

    (void)state;
    make_begin(&m, 9);
    make_input(&m, "x", 1, 3, 1, 1);
    make_node(&m, "Flatten", "x", "f");
    make_floats(&m, "w", 3, 2, 0, 0); /* [k,o]: 0.5 0.75 | 1 1.25 | 1.5 0.5 */
    make_floats(&m, "b", 1, 2, 0, 0);
    n = make_node(&m, "Gemm", "f w b", "y");
    make_float(&m, n, "alpha", 2.0f);
    make_float(&m, n, "beta", 4.0f);
    make_node(&m, "MatMul", "f w", "z");
    make_output(&m, "y");
    make_output(&m, "z");
    g = parse();
    node = node_of(g, "y");
    w = weight_of(g, node, 1, "[2,3]");
    b = weight_of(g, node, 2, "[2]");
    assert_memory_equal(w, ((float[]){1, 2, 3, 1.5f, 2.5f, 1}), 24);
    assert_memory_equal(b, ((float[]){2, 3}), 8);
    w = weight_of(g, node_of(g, "z"), 1, "[2,3]");
    assert_memory_equal(w, ((float[]){0.5f, 1, 1.5f, 0.75f, 1.25f, 0.5f}), 24);
    graph_free(g);
}

static void test_auto_pad(void **state)
{
    static const struct {
        const char *word;
        int pad[4]; /* top left bottom right, of 5x3 by 2 over 12x11 */
    } cases[] = {{"SAME_UPPER", {1, 1, 2, 1}},
                 {"SAME_LOWER", {2, 1, 1, 1}},
                 {"VALID", {0, 0, 0, 0}},
                 {"NOTSET", {0, 0, 0, 0}}};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        Onnx__NodeProto *n;
        struct graph *g;
        make_begin(&m, 11);
        make_input(&m, "x", 1, 3, 12, 11);
        make_floats(&m, "w", 2, 3, 5, 3);
        n = make_node(&m, "Conv", "x w", "y");
        make_word(&m, n, "auto_pad", cases[i].word);
        make_numbers(&m, n, "strides", 2, 2, 2);
        make_output(&m, "y");
        g = parse();
        assert_memory_equal(node_of(g, "y")->op.u.conv.pad, cases[i].pad,
                            sizeof(cases[i].pad));
        graph_free(g);
    }
}

static void test_slices(void **state)
{
    Onnx__NodeProto *n;
    const struct op_axis *a;
    struct graph *g;

    (void)state;
    make_begin(&m, 9);
    make_input(&m, "x", 1, 8, 6, 6);
    n = make_node(&m, "Slice", "x", "s");
    make_numbers(&m, n, "starts", 1, -3);
    make_numbers(&m, n, "ends", 1, 2147483647);
    make_numbers(&m, n, "axes", 1, 1);
    n = make_node(&m, "Split", "x", "p - q");
    make_int(&m, n, "axis", 1);
    make_numbers(&m, n, "split", 3, 1, 5, 2);
    make_output(&m, "s");
    make_output(&m, "p");
    make_output(&m, "q");
    g = parse();
    a = &node_of(g, "s")->op.u.axis;
    assert_true(a->axis == 1 && a->start == 5 && a->length == 3);
    a = &node_of(g, "p")->op.u.axis;
    assert_true(a->axis == 1 && a->start == 0 && a->length == 1);
    a = &node_of(g, "q")->op.u.axis;
    assert_true(a->axis == 1 && a->start == 6 && a->length == 2);
    graph_free(g);
}

/* Half precision behind a Cast, bfloat16, double, and typed or raw data. */
static void test_element_types(void **state)
{
    static const uint16_t half[4] = {0x3c00, 0xc000, 0x0001, 0x7bff};
    static const uint16_t brain[4] = {0x3f80, 0xc000, 0x3f00, 0x4049};
    static double wide[4] = {1, -2, 0.5, 3};
    Onnx__TensorProto *t;
    Onnx__NodeProto *n;
    const float *k;
    struct graph *g;

    (void)state;
    make_begin(&m, 13);
    make_input(&m, "x", 1, 4, 2, 2);
    t = make_tensor(&m, "h", ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16, 4, 1, 1,
                    0);
    t->has_raw_data = 1;
    t->raw_data.data = (uint8_t *)half;
    t->raw_data.len = sizeof(half);
    m.graph.initializer[m.graph.n_initializer++] = t;
    n = make_node(&m, "Cast", "h", "hf");
    make_int(&m, n, "to", ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT);
    make_node(&m, "Mul", "x hf", "a");
    t = make_tensor(&m, "b", ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16, 4, 1, 1,
                    0);
    t->int32_data = make_get(&m, 4 * sizeof(*t->int32_data));
    t->n_int32_data = 4;
    for (int i = 0; i < 4; i++)
        t->int32_data[i] = brain[i];
    m.graph.initializer[m.graph.n_initializer++] = t;
    make_node(&m, "Add", "a b", "c");
    t = make_tensor(&m, "d", ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE, 4, 1, 1, 0);
    t->double_data = wide;
    t->n_double_data = 4;
    m.graph.initializer[m.graph.n_initializer++] = t;
    make_node(&m, "Sub", "c d", "y");
    make_output(&m, "y");
    g = parse();
    k = weight_of(g, node_of(g, "a"), 1, "[4]");
    assert_memory_equal(k, ((float[]){1, -2, 0x1p-24f, 65504}), 16);
    k = weight_of(g, node_of(g, "c"), 1, "[4]");
    assert_memory_equal(k, ((float[]){1, -2, 0.5f, 3.140625f}), 16);
    k = weight_of(g, node_of(g, "y"), 1, "[4]");
    assert_memory_equal(k, ((float[]){1, -2, 0.5f, 3}), 16);
    graph_free(g);
}

static void test_constants(void **state)
{
    Onnx__NodeProto *n;
    struct graph *g;

    (void)state;
    make_begin(&m, 12);
    make_input(&m, "x", 1, 4, 2, 2);
    n = make_node(&m, "Constant", "", "six");
    make_float(&m, n, "value_float", 6.0f);
    n = make_node(&m, "Constant", "", "shape");
    make_attr(&m, n, "value_ints", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS)
        ->ints = (int64_t[]){1, -1};
    n->attribute[0]->n_ints = 2;
    make_node(&m, "Identity", "six", "also_six");
    make_node(&m, "Clip", "x - also_six", "c");
    make_node(&m, "Reshape", "c shape", "y");
    make_output(&m, "y");
    g = parse();
    assert_true(node_of(g, "c")->op.u.clip.lo == -FLT_MAX);
    assert_true(node_of(g, "c")->op.u.clip.hi == 6.0f);
    assert_int_equal(node_of(g, "y")->op.u.reshape.to.rank, 2);
    graph_free(g);
}

/* Consumers before producers; initialisers listed as inputs; no names. */
static void test_order(void **state)
{
    struct graph *g;

    (void)state;
    make_begin(&m, 11);
    m.model.ir_version = 3;
    make_input(&m, "x", 1, 3, 4, 4);
    make_floats(&m, "k", 3, 1, 1, 0);
    m.graph.input[m.graph.n_input++] = make_value(&m, "k", 0, NULL);
    make_node(&m, "Sigmoid", "b", "y");
    make_node(&m, "Mul", "a k", "b")->name = (char *)"";
    make_node(&m, "Relu", "x", "a");
    make_output(&m, "y");
    g = parse();
    assert_int_equal(g->n_nodes, 3);
    assert_int_equal(g->nodes[0].op.type, OP_RELU);
    assert_string_equal(g->nodes[1].name, "b");
    assert_string_equal(g->nodes[2].name, "@y");
    graph_free(g);
}

static void test_metadata(void **state)
{
    struct onnx_metadata meta = {0};
    struct error err = {0};
    char key[16];

    (void)state;
    for (int i = 0; i < ONNX_MAX_METADATA; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(onnx_metadata_set(&meta, key, "v", &err), 0);
    }
    assert_int_equal(onnx_metadata_set(&meta, "more", "v", &err), -1);
    assert_int_equal(err.code, ERR_MODEL);
    assert_int_equal(onnx_metadata_set(&meta, "k7", "new", &err), 0);
    assert_string_equal(onnx_metadata_get(&meta, "k7"), "new");
    assert_int_equal(onnx_metadata_set(&meta, "k0", NULL, &err), 0);
    assert_int_equal(onnx_metadata_set(&meta, "k0", NULL, &err), 0);
    assert_null(onnx_metadata_get(&meta, "k0"));
    assert_int_equal(meta.n, ONNX_MAX_METADATA - 1);
    onnx_metadata_fini(&meta);
    assert_int_equal(meta.n, 0);
}

/* --- real files
 * ------------------------------------------------------------------- */

static void test_weights(void **state)
{
    static const struct {
        const char *name;
        int n_nodes, n_outputs;
        int64_t macs;
    } files[] = {{"mobilefacenet_arcface_112", 148, 1, 220965376},
                 {"mobilefacenet_foamliu_112", 98, 1, 233810432},
                 {"mtcnn_pnet", 10, 2, 2939160},
                 {"mtcnn_rnet", 14, 2, 1530768},
                 {"mtcnn_onet", 18, 3, 12909952}};
    char path[64];

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct graph_counts counts;
        struct error err = {0};
        struct graph *g;
        snprintf(path, sizeof(path), "weights/%s.onnx", files[i].name);
        data_need(path);
        g = onnx_load(data_path(path), NULL, &err);
        if (!g || graph_count(g, 48, 48, &counts, &err))
            fail_msg("%s", err.text);
        assert_int_equal(g->n_nodes, files[i].n_nodes);
        assert_int_equal(g->n_outputs, files[i].n_outputs);
        assert_int_equal(counts.macs, files[i].macs);
        check_round_trip(g);
        graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_round_trip_free_size),
        cmocka_unit_test(test_fused_is_not_saved),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_auto_pad),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_element_types),
        cmocka_unit_test(test_constants),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
