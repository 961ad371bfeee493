/* tests/unit/test_onnx_bad.c - ONNX models that must be refused, each with an
 * error that names what is wrong. They are written message by message. */
#include <math.h>
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

static struct make m;

/* x [1,3,8,8] -> Conv -> c -> Relu -> y */
static Onnx__NodeProto *base(void)
{
    Onnx__NodeProto *conv;

    make_begin(&m, 13);
    make_input(&m, "x", 1, 3, 8, 8);
    make_floats(&m, "w", 4, 3, 3, 3);
    conv = make_node(&m, "Conv", "x w", "c");
    make_node(&m, "Relu", "c", "y");
    make_output(&m, "y");
    return conv;
}

/* The base with one more node that reads c. */
static Onnx__NodeProto *with(const char *op, const char *in)
{
    base();
    return make_node(&m, op, in, "z");
}

static Onnx__TensorProto *weights(void)
{
    base();
    return m.graph.initializer[0];
}

/* --- the file
 * ------------------------------------------------------------------ */

static void old_opset(void)
{
    base();
    m.opset.version = 6;
}
static void new_opset(void)
{
    base();
    m.opset.version = 22;
}
static void no_opset(void)
{
    base();
    m.model.n_opset_import = 0;
}
static void no_graph(void)
{
    base();
    m.model.graph = NULL;
}
static void function(void)
{
    static Onnx__FunctionProto f = ONNX__FUNCTION_PROTO__INIT;
    static Onnx__FunctionProto *list[1] = {&f};
    base();
    m.model.functions = list;
    m.model.n_functions = 1;
}
static void training(void)
{
    static Onnx__TrainingInfoProto t = ONNX__TRAINING_INFO_PROTO__INIT;
    static Onnx__TrainingInfoProto *list[1] = {&t};
    base();
    m.model.training_info = list;
    m.model.n_training_info = 1;
}
static void metadata_twice(void)
{
    static Onnx__StringStringEntryProto e =
        ONNX__STRING_STRING_ENTRY_PROTO__INIT;
    static Onnx__StringStringEntryProto *list[2] = {&e, &e};
    base();
    e.key = (char *)"key";
    e.value = (char *)"v";
    m.model.metadata_props = list;
    m.model.n_metadata_props = 2;
}

/* --- inputs and outputs
 * ------------------------------------------------------- */

static void two_inputs(void)
{
    base();
    make_input(&m, "x2", 1, 3, 8, 8);
}
static void no_input(void)
{
    base();
    m.graph.n_input = 0;
}
static void flat_input(void)
{
    base();
    m.graph.input[0] = make_value(&m, "x", 2, (int[]){1, 3});
}
static void free_channels(void)
{
    base();
    m.graph.input[0] = make_value(&m, "x", 4, (int[]){1, MAKE_FREE, 8, 8});
}
static void negative_side(void)
{
    base();
    m.graph.input[0] = make_value(&m, "x", 4, (int[]){1, 3, -8, 8});
}
static void integer_input(void)
{
    base();
    m.graph.input[0]->type->tensor_type->elem_type =
        ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
}
static void no_output(void)
{
    base();
    m.graph.n_output = 0;
}
static void unknown_output(void)
{
    base();
    make_output(&m, "nobody");
}
static void output_twice(void)
{
    base();
    make_output(&m, "y");
}
static void output_is_input(void)
{
    base();
    make_output(&m, "x");
}

/* --- constants
 * ------------------------------------------------------------------- */

static void nan_weight(void)
{
    weights()->float_data[7] = NAN;
}
static void inf_weight(void)
{
    weights()->float_data[0] = -INFINITY;
}
static void short_weight(void)
{
    weights()->n_float_data--;
}
static void short_raw(void)
{
    Onnx__TensorProto *t = weights();
    t->has_raw_data = 1;
    t->raw_data.data = (uint8_t *)t->float_data;
    t->raw_data.len = t->n_float_data * 4 - 1;
}
static void huge_weight(void)
{
    Onnx__TensorProto *t = weights();
    t->dims[0] = (int64_t)1 << 62;
    t->dims[1] = 4;
}
static void negative_weight(void)
{
    weights()->dims[2] = -3;
}
static void external(void)
{
    Onnx__TensorProto *t = weights();
    t->has_data_location = 1;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}
static void integer_weight(void)
{
    weights()->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__UINT8;
}
static void sparse(void)
{
    static Onnx__SparseTensorProto s = ONNX__SPARSE_TENSOR_PROTO__INIT;
    static Onnx__SparseTensorProto *list[1] = {&s};
    base();
    m.graph.sparse_initializer = list;
    m.graph.n_sparse_initializer = 1;
}
static void weight_twice(void)
{
    base();
    make_floats(&m, "w", 4, 3, 3, 3);
}

/* --- nodes
 * ---------------------------------------------------------------------- */

static void unknown_operator(void)
{
    with("LSTM", "c");
}
static void unknown_domain(void)
{
    with("Relu", "c")->domain = (char *)"com.microsoft";
}
static void subgraph(void)
{
    static Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT;
    make_attr(&m, with("If", "c"), "then_branch",
              ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH)
        ->g = &g;
}
static void missing_value(void)
{
    with("Relu", "nobody");
}
static void missing_input(void)
{
    with("Relu", "-");
}
static void cycle(void)
{
    base();
    make_node(&m, "Add", "c q", "p");
    make_node(&m, "Relu", "p", "q");
}
static void own_input(void)
{
    with("Add", "c z");
}
static void value_twice(void)
{
    base();
    make_node(&m, "Relu", "c", "y");
}
static void value_is_weight(void)
{
    base();
    make_node(&m, "Relu", "c", "w");
}
static void attribute_twice(void)
{
    Onnx__NodeProto *conv = base();
    make_int(&m, conv, "group", 1);
    make_int(&m, conv, "group", 1);
}
static void wrong_attribute(void)
{
    make_float(&m, base(), "group", 1);
}
static void no_outputs(void)
{
    base();
    make_node(&m, "Relu", "c", "");
}
static void long_name(void)
{
    static char name[300];
    memset(name, 'a', sizeof(name) - 1);
    with("Relu", "c")->output[0] = name;
}
static void control_name(void)
{
    with("Relu", "c")->output[0] = (char *)"a\nb";
}
static void bad_utf8(void)
{
    with("Relu", "c")->output[0] = (char *)"a\xc0\xaf";
}
static void mask_used(void)
{
    base();
    make_node(&m, "Dropout", "c", "d mask");
    make_node(&m, "Relu", "mask", "z");
}
static void channels_do_not_fit(void)
{
    base();
    make_floats(&m, "w2", 4, 5, 3, 3);
    make_node(&m, "Conv", "c w2", "z");
}
static void computed_weights(void)
{
    with("Conv", "c y");
}
static void kernel_shape(void)
{
    make_numbers(&m, base(), "kernel_shape", 2, 5, 5);
}
static void huge_pads(void)
{
    make_numbers(&m, base(), "pads", 4, 1 << 30, 0, 0, 0);
}
static void zero_stride(void)
{
    make_numbers(&m, base(), "strides", 2, 0, 1);
}
static void one_stride(void)
{
    make_numbers(&m, base(), "strides", 1, 1);
}
static void unknown_auto_pad(void)
{
    make_word(&m, base(), "auto_pad", "SAME");
}

/* --- operators
 * --------------------------------------------------------------------- */

static void batch_norm(const char *out)
{
    base();
    make_floats(&m, "k", 4, 0, 0, 0);
    make_node(&m, "BatchNormalization", "c k k k k", out);
}
static void batch_norm_outputs(void)
{
    batch_norm("z mean");
}
static void batch_norm_training(void)
{
    batch_norm("z");
    make_int(&m, m.graph.node[2], "training_mode", 1);
}
static void batch_norm_epsilon(void)
{
    batch_norm("z");
    make_float(&m, m.graph.node[2], "epsilon", -1);
}
static Onnx__NodeProto *pool(const char *out)
{
    Onnx__NodeProto *n;
    base();
    n = make_node(&m, "MaxPool", "c", out);
    make_numbers(&m, n, "kernel_shape", 2, 2, 2);
    return n;
}
static void pool_indices(void)
{
    pool("z indices");
}
static void pool_dilations(void)
{
    make_numbers(&m, pool("z"), "dilations", 2, 2, 2);
}
static void pool_order(void)
{
    make_int(&m, pool("z"), "storage_order", 1);
}
static void pool_kernel(void)
{
    with("AveragePool", "c");
}
static void pool_too_large(void)
{
    make_numbers(&m, with("AveragePool", "c"), "kernel_shape", 2, 7, 7);
}
static void dense(int o, int k, const char *attr, int v)
{
    base();
    make_node(&m, "Flatten", "c", "f");
    make_floats(&m, "d", o, k, 0, 0);
    make_int(&m, make_node(&m, "Gemm", "f d", "z"), attr, v);
}
static void gemm_trans_a(void)
{
    dense(5, 144, "transA", 1);
}
static void gemm_shape(void)
{
    dense(5, 143, "transB", 1);
}
static void gemm_bias(void)
{
    base();
    make_node(&m, "Flatten", "c", "f");
    make_floats(&m, "d", 144, 5, 0, 0);
    make_floats(&m, "e", 5, 1, 0, 0);
    make_node(&m, "Gemm", "f d e", "z");
}
static void matmul_4d(void)
{
    base();
    make_floats(&m, "d", 6, 6, 0, 0);
    make_node(&m, "MatMul", "c d", "z");
}
static void softmax_old(void)
{
    with("Softmax", "c");
    m.opset.version = 12;
}
static void softmax_batch(void)
{
    make_int(&m, with("Softmax", "c"), "axis", 0);
}
static void concat_batch(void)
{
    make_int(&m, with("Concat", "c c"), "axis", 0);
}
static void concat_constant(void)
{
    make_int(&m, with("Concat", "c w"), "axis", 1);
}
static void concat_shapes(void)
{
    base();
    make_node(&m, "GlobalAveragePool", "c", "p");
    make_int(&m, make_node(&m, "Concat", "c p", "z"), "axis", 1);
}
static void add_columns(void)
{
    base();
    make_floats(&m, "k", 6, 0, 0, 0);
    make_node(&m, "Add", "c k", "z");
}
static void add_planes(void)
{
    base();
    make_floats(&m, "k", 1, 4, 6, 6);
    make_node(&m, "Add", "c k", "z");
}
static void add_constants(void)
{
    with("Add", "w w");
}
static void add_three(void)
{
    with("Add", "c c c");
}
static void divide_zero(void)
{
    base();
    make_floats(&m, "k", 1, 0, 0, 0)->float_data[0] = 0;
    make_node(&m, "Div", "c k", "z");
}
static void divide_constant(void)
{
    base();
    make_floats(&m, "k", 1, 0, 0, 0);
    make_node(&m, "Div", "k c", "z");
}
static void prelu_columns(void)
{
    base();
    make_floats(&m, "k", 6, 0, 0, 0);
    make_node(&m, "PRelu", "c k", "z");
}
static void clip_reversed(void)
{
    base();
    make_floats(&m, "lo", 1, 0, 0, 0)->float_data[0] = 7;
    make_floats(&m, "hi", 1, 0, 0, 0);
    make_node(&m, "Clip", "c lo hi", "z");
}
static void clip_computed(void)
{
    with("Clip", "c y");
}
static void slice(int start, int end, int axis, int step)
{
    base();
    make_ints(&m, "s", 1, start);
    make_ints(&m, "e", 1, end);
    make_ints(&m, "a", 1, axis);
    make_ints(&m, "t", 1, step);
    make_node(&m, "Slice", "c s e a t", "z");
}
static void slice_empty(void)
{
    slice(3, 3, 1, 1);
}
static void slice_step(void)
{
    slice(0, 4, 1, 2);
}
static void slice_batch(void)
{
    slice(0, 1, 0, 1);
}
static void slice_axis(void)
{
    slice(0, 1, 4, 1);
}
static void slice_two_axes(void)
{
    base();
    make_ints(&m, "s", 2, 0, 0);
    make_ints(&m, "e", 2, 1, 1);
    make_node(&m, "Slice", "c s e", "z");
}
static void split_sizes(void)
{
    base();
    make_ints(&m, "s", 2, 3, 2);
    make_int(&m, make_node(&m, "Split", "c s", "z1 z2"), "axis", 1);
}
static void split_odd(void)
{
    base();
    make_int(&m, make_node(&m, "Split", "c", "z1 z2 z3"), "axis", 1);
}
static void reshape(int a, int b)
{
    base();
    make_ints(&m, "s", 2, a, b);
    make_node(&m, "Reshape", "c s", "z");
}
static void reshape_batch(void)
{
    reshape(2, -1);
}
static void reshape_size(void)
{
    reshape(0, 145);
}
static void reshape_open(void)
{
    reshape(-1, -1);
}
static void reshape_negative(void)
{
    reshape(0, -2);
}
static void reshape_computed(void)
{
    with("Reshape", "c y");
}
static void flatten_batch(void)
{
    make_int(&m, with("Flatten", "c"), "axis", 0);
}
static void squeeze(int axis)
{
    base();
    make_ints(&m, "a", 1, axis);
    make_node(&m, "Squeeze", "c a", "z");
}
static void squeeze_batch(void)
{
    squeeze(0);
}
static void squeeze_wide(void)
{
    squeeze(2);
}
static void squeeze_all(void)
{
    with("Squeeze", "c");
}
static void unsqueeze_rank(void)
{
    base();
    make_ints(&m, "a", 1, 4);
    make_node(&m, "Unsqueeze", "c a", "z");
}
static void transpose_batch(void)
{
    with("Transpose", "c");
}
static void transpose_twice(void)
{
    make_numbers(&m, with("Transpose", "c"), "perm", 4, 0, 1, 1, 3);
}
static void dropout_training(void)
{
    static uint8_t yes = 1;
    Onnx__TensorProto *t;
    base();
    t = make_tensor(&m, "on", ONNX__TENSOR_PROTO__DATA_TYPE__BOOL, 0, 0, 0, 0);
    t->has_raw_data = 1;
    t->raw_data.data = &yes;
    t->raw_data.len = 1;
    m.graph.initializer[m.graph.n_initializer++] = t;
    make_node(&m, "Dropout", "c - on", "z");
}
static void cast_integer(void)
{
    make_int(&m, with("Cast", "c"), "to", ONNX__TENSOR_PROTO__DATA_TYPE__INT64);
}
static void constant_text(void)
{
    base();
    make_word(&m, make_node(&m, "Constant", "", "z"), "value_string", "s");
}
static void lp_norm_p(void)
{
    make_int(&m, with("LpNormalization", "c"), "p", 3);
}
static void lrn_size(void)
{
    with("LRN", "c");
}

static const struct {
    void (*build)(void);
    const char *want; /* in the error's text; '|': several */
} cases[] = {
    {old_opset, "set 6"},
    {new_opset, "set 22"},
    {no_opset, "no operator set"},
    {no_graph, "no graph"},
    {function, "functions"},
    {training, "training"},
    {metadata_twice, "\"key\"|twice"},
    {two_inputs, "several inputs|x2"},
    {no_input, "no input"},
    {flat_input, "\"x\"|[batch,channels,h,w]"},
    {free_channels, "\"x\"|channels"},
    {negative_side, "\"x\"|dimension"},
    {integer_input, "\"x\"|floats"},
    {no_output, "no output"},
    {unknown_output, "nobody"},
    {output_twice, "\"y\"|twice"},
    {output_is_input, "\"x\"|not computed"},
    {nan_weight, "\"w\"|element 7|finite"},
    {inf_weight, "\"w\"|finite"},
    {short_weight, "\"w\"|size"},
    {short_raw, "\"w\"|size"},
    {huge_weight, "\"w\"|dimension"},
    {negative_weight, "\"w\"|dimension"},
    {external, "\"w\"|external"},
    {integer_weight, "\"w\"|type 2"},
    {sparse, "sparse"},
    {weight_twice, "\"w\"|two values"},
    {unknown_operator, "@z|LSTM|not supported"},
    {unknown_domain, "@z|com.microsoft"},
    {subgraph, "@z|subgraph"},
    {missing_value, "@z|nobody|not in the file"},
    {missing_input, "@z|input 0|missing"},
    {cycle, "cycle|@"},
    {own_input, "@z|cycle"},
    {value_twice, "@y|\"y\"|two values"},
    {value_is_weight, "@w|two values"},
    {attribute_twice, "@c|group|twice"},
    {wrong_attribute, "@c|group|integer"},
    {no_outputs, "Relu|no output"},
    {long_name, "255"},
    {control_name, "UTF-8"},
    {bad_utf8, "UTF-8"},
    {mask_used, "@z|mask"},
    {channels_do_not_fit, "@z|channels"},
    {computed_weights, "@z|constant"},
    {kernel_shape, "@c|kernel_shape"},
    {huge_pads, "@c|pads"},
    {zero_stride, "@c|strides"},
    {one_stride, "@c|strides"},
    {unknown_auto_pad, "@c|auto_pad"},
    {batch_norm_outputs, "@z|output 1"},
    {batch_norm_training, "@z|training_mode"},
    {batch_norm_epsilon, "@z|epsilon"},
    {pool_indices, "@z|output 1"},
    {pool_dilations, "@z|dilations"},
    {pool_order, "@z|storage_order"},
    {pool_kernel, "@z|kernel_shape"},
    {pool_too_large, "@z|window"},
    {gemm_trans_a, "@z|transA"},
    {gemm_shape, "@z|do not fit"},
    {gemm_bias, "@z|bias"},
    {matmul_4d, "@z|matrix"},
    {softmax_old, "@z|axes"},
    {softmax_batch, "@z|batch"},
    {concat_batch, "@z|batch"},
    {concat_constant, "@z|constant"},
    {concat_shapes, "@z|differ"},
    {add_columns, "@z|channel"},
    {add_planes, "@z|channel"},
    {add_constants, "@z|constants"},
    {add_three, "@z|two inputs"},
    {divide_zero, "@z|zero"},
    {divide_constant, "@z|division"},
    {prelu_columns, "@z|slope"},
    {clip_reversed, "@z|min"},
    {clip_computed, "@z|constant"},
    {slice_empty, "@z|empty"},
    {slice_step, "@z|steps"},
    {slice_batch, "@z|batch"},
    {slice_axis, "@z|axis 4"},
    {slice_two_axes, "@z|list"},
    {split_sizes, "@z1|sizes"},
    {split_odd, "@z1|equal"},
    {reshape_batch, "@z|batch"},
    {reshape_size, "@z|fit"},
    {reshape_open, "@z|open"},
    {reshape_negative, "@z|range"},
    {reshape_computed, "@z|constant"},
    {flatten_batch, "@z|batch"},
    {squeeze_batch, "@z|batch"},
    {squeeze_wide, "@z|axis 2"},
    {squeeze_all, "@z|axes"},
    {unsqueeze_rank, "@z|dimensions"},
    {transpose_batch, "@z|batch"},
    {transpose_twice, "@z|perm"},
    {dropout_training, "@z|training_mode"},
    {cast_integer, "@z|cast"},
    {constant_text, "@z|value_string"},
    {lp_norm_p, "@z|p is"},
    {lrn_size, "@z|size"},
};

static void check_words(const char *text, const char *want)
{
    char words[128];

    snprintf(words, sizeof(words), "%s", want);
    for (char *rest = words, *w = strsep(&rest, "|"); w; w = strsep(&rest, "|"))
        if (!strstr(text, w))
            fail_msg("\"%s\" does not say \"%s\"", text, w);
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        struct onnx_metadata meta = {0};
        size_t len;
        uint8_t *bytes;
        cases[i].build();
        bytes = make_bytes(&m, &len);
        if (onnx_parse(bytes, len, &meta, &err))
            fail_msg("case %zu, \"%s\", was accepted", i, cases[i].want);
        assert_int_equal(err.code, ERR_MODEL);
        assert_int_equal(meta.n, 0);
        check_words(err.text, cases[i].want);
        free(bytes);
        make_end(&m);
    }
}

/* The base of all cases is good: each fails for its own reason alone. */
static void test_base(void **state)
{
    struct error err = {0};
    size_t len;
    uint8_t *bytes;
    struct graph *g;

    (void)state;
    base();
    bytes = make_bytes(&m, &len);
    g = onnx_parse(bytes, len, NULL, &err);
    if (!g)
        fail_msg("%s", err.text);
    graph_free(g);
    free(bytes);
    make_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
