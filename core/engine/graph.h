/* core/engine/graph.h - a network as nodes and values, and its plans.
 * Built by onnx.c from a file or by core/arch in code; compiled ("planned")
 * by a backend for one input shape. A graph is immutable once built and may
 * be shared; a plan has one thread. Thread: any. */
#ifndef CORE_ENGINE_GRAPH_H
#define CORE_ENGINE_GRAPH_H

#include "core/engine/backend.h"
#include "core/engine/op.h"

enum {
    GRAPH_MAX_NODES = 4096,
    GRAPH_MAX_VALUES = 16384,
    GRAPH_MAX_INPUTS = OP_MAX_IN,
    GRAPH_MAX_OUTPUTS = 8,
    GRAPH_MAX_NAME = 255,
    GRAPH_MAX_NUMBERS = 1 << 29 /* of all weights together */
};
/* Of a plan's activations and scratch memory; where it learns, backward reads
 * what forward made: Inception-ResNet-v1 at batch 90 takes about 6 GiB. */
#define PLAN_MAX_BYTES ((size_t)2 << 30)
#define PLAN_LEARN_MAX_BYTES ((size_t)256 << 30)

enum value_kind {
    VALUE_INPUT, /* the one input: [batch,c,h,w]; h, w 0 when free */
    VALUE_WEIGHT,
    VALUE_NODE
};

struct value {
    char *name; /* unique in the graph */
    enum value_kind kind;
    struct shape
        shape;   /* input and weights; a node's value: see graph_shapes */
    float *data; /* weights: owned, packed */
};

struct node {
    char *name; /* never empty */
    struct op op;
    int n_in;
    int *in; /* value indices */
    int out; /* value index */
};

struct graph {
    struct value *values;
    int n_values;
    struct node *nodes; /* in an order that can be run */
    int n_nodes;
    int input; /* value index, -1 until added */
    int outputs[GRAPH_MAX_OUTPUTS];
    int n_outputs;
    /* graph.c's own: numbers in all weights; values by the hash of their
     * name, -1 for an empty place, a power of two of them */
    size_t n_numbers;
    int *by_name;
    int n_by_name;
};

struct graph *graph_new(struct error *err);
void graph_free(struct graph *g);
/* Equal, value by value; owned. */
struct graph *graph_dup(const struct graph *g, struct error *err);

/* Each returns the new value's index, or -1 (ERR_MODEL, ERR_NOMEM). Names are
 * copied; NULL or "" makes one up. */
int graph_add_input(struct graph *g, const char *name, int c, int h, int w,
                    struct error *err);
/* take_data: malloc'd, consumed also on failure; NULL: zeroed. */
int graph_add_weight(struct graph *g, const char *name,
                     const struct shape *shape, float *take_data,
                     struct error *err);
int graph_add_node(struct graph *g, const char *name, const struct op *op,
                   const int in[], int n_in, const char *out_name,
                   struct error *err);
int graph_add_output(struct graph *g, int value, struct error *err);
int graph_find(const struct graph *g, const char *value_name); /* or -1 */

/* Shapes of all values for a batch of n and, where the input leaves them
 * free, h x w (0 otherwise). out has room for n_values. An error names the
 * node. */
int graph_shapes(const struct graph *g, int n, int h, int w, struct shape out[],
                 struct error *err);

/* Trainable parameters (weights, biases, slopes, batch-norm gamma and beta,
 * and its running statistics apart) and multiply-accumulates of one face. */
struct graph_counts {
    int64_t n_parameters; /* running statistics not counted */
    int64_t n_statistics;
    int64_t macs;
    int n_convs;
};
int graph_count(const struct graph *g, int h, int w, struct graph_counts *out,
                struct error *err);

/* One line per node: name, operator, shape, parameters, MACs. malloc'd. */
char *graph_text(const struct graph *g, int h, int w, struct error *err);

/* A new graph for inference, equal in meaning: dropout and identity gone,
 * batch norm folded into the convolution or dense layer before it (or made
 * OP_AFFINE), constant scales folded, bias, residual add and activation fused
 * into their convolution, nothing that no output needs. */
struct graph *graph_fuse(const struct graph *g, struct error *err);

/* --- plans: thin calls into the plan's backend ----------------------- */

/* Load a graph's weights onto a device once, for any number of plans.
 * Fuses (graph_fuse) and copies what it needs; g may be freed. */
struct network *network_new(struct device *dev, const struct graph *g,
                            struct error *err);
void network_free(struct network *net); /* after its plans */

struct plan *graph_plan(struct network *net, const struct plan_options *opt,
                        struct error *err);
void plan_free(struct plan *p);
/* Host memory for the next input, packed NCHW float32 [n,c,h,w]. A run uses
 * it up: fill it anew each time. */
float *plan_input(struct plan *p);
/* Host memory with the last result of output i, packed; gone when the next
 * input is written: the two may share memory. */
const float *plan_output(const struct plan *p, int i);
const struct shape *plan_output_shape(const struct plan *p, int i);
/* Outputs input by input: the row of one is what the outputs have for it, one
 * after the other. rows has room for the first n of the batch. */
size_t plan_row_floats(const struct plan *p);
void plan_rows(const struct plan *p, int n, float *rows);
/* Run it. Allocates nothing. ERR_DEVICE. Thread: the plan's. */
int graph_forward(struct plan *p, struct error *err);

/* --- learning -------------------------------------------------------- */

/* A network whose weights change: see struct learnable. Not fused. Plans of
 * it keep what backward needs unless opt->rest. ERR_MODEL where a node cannot
 * learn. g may be freed. Thread: one for it and all its plans. */
struct network *network_new_learning(struct device *dev, const struct graph *g,
                                     const struct learn_options *opt,
                                     struct error *err);
struct learnable *network_learnable(struct network *net); /* borrowed */
/* Host memory for the loss by output i, packed in its shape; every one that
 * is there must be written between graph_forward and graph_backward (before,
 * others use it). NULL: the plan is at rest, or nothing that output i hangs on
 * learns. */
float *plan_gradient(struct plan *p, int i);
/* After graph_forward of the same plan, once. Adds to the gradients. */
int graph_backward(struct plan *p, struct error *err);
/* A copy of g, the graph that the network was loaded from, with these weights
 * (NULL: the network's own) and its statistics, as learn_get last brought
 * them. */
struct graph *network_graph(const struct network *net, const struct graph *g,
                            const float *weights, struct error *err);

#endif
