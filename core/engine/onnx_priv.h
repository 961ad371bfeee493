/* core/engine/onnx_priv.h - what the parts of the ONNX reader share.
 * onnx_guard.c walks the bytes before protobuf-c may allocate; onnx_tensor.c
 * turns constants into numbers; onnx_read.c owns names and order;
 * onnx_layer.c and onnx_math.c turn one node each into graph nodes. */
#ifndef CORE_ENGINE_ONNX_PRIV_H
#define CORE_ENGINE_ONNX_PRIV_H

#include <stdio.h>

#include "onnx.pb-c.h"

#include "core/engine/graph.h"

enum {
    ONNX_OPSET_MIN = 7,
    ONNX_OPSET_MAX = 21,
    ONNX_FREE_SIDE = 224 /* stands for a free height or width while reading */
};

/* The graph of a parsed model that onnx_guard has let through. */
struct graph *onnx_read(const Onnx__ModelProto *m, struct error *err);

/* Wire format only: nesting that protobuf-c would follow without a limit,
 * counts that would make it allocate far more than the file's size, and
 * everything whose mere presence is refused. */
int onnx_guard(const uint8_t *bytes, size_t len_bytes, struct error *err);
/* The wire format, field by field. */
struct onnx_bytes {
    const uint8_t *p, *end;
};
struct onnx_field {
    uint32_t number, wire;
    struct onnx_bytes body; /* of wire type 2: what it holds */
};
/* The next field, with *b moved behind it; false: damaged or cut short. */
bool onnx_next_field(struct onnx_bytes *b, struct onnx_field *out);
/* Leaves out the metadata pairs whose key begins with prefix, in place. */
int onnx_strip(uint8_t *bytes, size_t *len_bytes, const char *prefix,
               struct error *err);

/* The file's bytes, malloc'd; and a file written whole or not at all by put,
 * whose failures the stream's error tells. */
uint8_t *onnx_read_file(const char *path, size_t *len_bytes, struct error *err);
typedef void (*onnx_put_fn)(FILE *f, const void *what);
int onnx_write_file(const char *path, onnx_put_fn put, const void *what,
                    struct error *err);

/* UTF-8 without control characters; line ends and tabs where lines. */
bool onnx_text_ok(const char *text);
bool onnx_lines_ok(const char *text);

/* A tensor's shape (rank up to 4, valid or rank 0) and the count of its
 * elements; the stored bytes have been found to match. */
int onnx_tensor_shape(const Onnx__TensorProto *t, struct shape *out,
                      struct error *err);
/* All elements as finite float32, malloc'd. */
float *onnx_tensor_floats(const Onnx__TensorProto *t, struct error *err);
/* Up to max elements of a rank 0 or 1 integer tensor; returns how many, -1. */
int onnx_tensor_ints(const Onnx__TensorProto *t, int64_t out[], int max,
                     struct error *err);

/* One ONNX name: a graph value, a constant, or not yet computed. */
struct onnx_name {
    const char *text;
    int value;                         /* index in the graph, or -1 */
    const Onnx__TensorProto *constant; /* or NULL */
    int producer;                      /* node in the file, or -1 */
    int weight;                        /* the constant added as it is, or -1 */
    struct shape weight_shape;
    bool taken; /* its text already names a weight of the graph */
};

struct onnx_reader {
    const Onnx__GraphProto *file;
    struct graph *g;
    struct error *err;
    int opset;
    int batch; /* fixed in the file, 0 when free */
    bool free_h, free_w;
    struct onnx_name *names;
    int n_names, cap_names;
    int *slots; /* hash table of indices into names, -1 empty */
    size_t n_slots;
    struct shape *shapes;    /* by graph value, for a batch of 1 */
    size_t n_floats;         /* decoded so far */
    Onnx__TensorProto *made; /* constants spelled as attributes */
    int64_t *made_dims;
    int n_made;
    const Onnx__NodeProto *node; /* the one being read */
    const char *node_name;
};

/* Fills err with the node's name before the text; -1. */
int onnx_fail(struct onnx_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Attributes of the current node; a wrong type fails. */
const Onnx__AttributeProto *onnx_attr(const struct onnx_reader *r,
                                      const char *name);
int onnx_attr_int(struct onnx_reader *r, const char *name, int64_t missing,
                  int64_t *out);
int onnx_attr_float(struct onnx_reader *r, const char *name, float missing,
                    float *out);
/* *n = -1 when absent. */
int onnx_attr_ints(struct onnx_reader *r, const char *name, int64_t out[],
                   int max, int *n);

/* Inputs and outputs of the current node; absent is NULL. */
struct onnx_name *onnx_in(const struct onnx_reader *r, int i);
struct onnx_name *onnx_out(const struct onnx_reader *r, int i);
/* Graph value of a computed input. */
int onnx_in_value(struct onnx_reader *r, int i, int *value);
/* The constant of an input; an absent or computed one fails. */
int onnx_in_const(struct onnx_reader *r, int i, struct onnx_name **out);
int onnx_in_ints(struct onnx_reader *r, int i, int64_t out[], int max, int *n);
int onnx_in_scalar(struct onnx_reader *r, int i, float *out);
/* The constant's numbers, malloc'd, within the budget for weights. */
float *onnx_const_floats(struct onnx_reader *r, const struct onnx_name *c);
/* The constant of input i as a weight of this shape (of equal count). */
int onnx_in_weight(struct onnx_reader *r, int i, const struct shape *shape);
/* A weight of changed numbers; takes data; c lends its name if it is free. */
int onnx_add_weight(struct onnx_reader *r, struct onnx_name *c,
                    const struct shape *shape, float *take_data);

/* Axis counted from the end if negative; 1..rank-1, never the batch. */
int onnx_axis(struct onnx_reader *r, int64_t axis, int rank, int *out);

/* Add a graph node that computes the current node's output i. */
int onnx_emit(struct onnx_reader *r, int i, const struct op *op, const int in[],
              int n_in);

typedef int (*onnx_convert_fn)(struct onnx_reader *r);
onnx_convert_fn onnx_layer_convert(const char *op_type);
onnx_convert_fn onnx_math_convert(const char *op_type);

#endif
