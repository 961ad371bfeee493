/* core/engine/onnx_tensor.c - an ONNX file's constants as numbers.
 * The stored bytes must match the stated dimensions before anything is
 * allocated; numbers that are not finite are refused. */
#include "core/engine/onnx_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "raw_data is little endian, and so must the machine be"
#endif

/* Bytes of one element in raw_data, 0 where the type is not read. */
static size_t element_size(int32_t type)
{
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32:
        return 4;
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
        return 8;
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16:
    case ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16:
        return 2;
    default:
        return 0;
    }
}

static size_t typed_count(const Onnx__TensorProto *t)
{
    switch (t->data_type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
        return t->n_float_data;
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
        return t->n_double_data;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
        return t->n_int64_data;
    default: /* INT32; FLOAT16 and BFLOAT16 as bits in the low half */
        return t->n_int32_data;
    }
}

int onnx_tensor_shape(const Onnx__TensorProto *t, struct shape *out,
                      struct error *err)
{
    const char *name = t->name ? t->name : "";
    size_t count = 1, size = element_size(t->data_type);

    if (t->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT ||
        t->n_external_data)
        return error_set(err, ERR_MODEL,
                         "tensor \"%s\": external data is not supported", name);
    if (!size)
        return error_set(err, ERR_MODEL,
                         "tensor \"%s\": element type %d is not supported",
                         name, t->data_type);
    if (t->n_dims > SHAPE_MAX_RANK)
        return error_set(err, ERR_MODEL,
                         "tensor \"%s\": more than %d dimensions", name,
                         SHAPE_MAX_RANK);
    *out = (struct shape){.rank = (int)t->n_dims};
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 1 || t->dims[i] > SHAPE_MAX_DIM ||
            count > SHAPE_MAX_COUNT / (size_t)t->dims[i])
            return error_set(err, ERR_MODEL,
                             "tensor \"%s\": a dimension is out of range",
                             name);
        out->d[i] = (int)t->dims[i];
        count *= (size_t)t->dims[i];
    }
    if (t->has_raw_data && t->raw_data.len ? t->raw_data.len != count * size
                                           : typed_count(t) != count)
        return error_set(err, ERR_MODEL,
                         "tensor \"%s\": its data does not have the size of "
                         "its shape",
                         name);
    return 0;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static float from_half(uint32_t h)
{
    uint32_t sign = (h & 0x8000u) << 16, exp = (h >> 10) & 31u,
             man = h & 0x3ffu;

    if (exp == 31)
        return from_bits(sign | 0x7f800000u | man << 13);
    if (exp)
        return from_bits(sign | (exp + 112) << 23 | man << 13);
    float tiny = ldexpf((float)man, -24); /* subnormal or zero */
    return sign ? -tiny : tiny;
}

static double element(const Onnx__TensorProto *t, size_t i)
{
    const uint8_t *raw =
        t->has_raw_data && t->raw_data.len ? t->raw_data.data : NULL;
    union {
        float f;
        double d;
        int32_t i32;
        int64_t i64;
        uint16_t u16;
    } v = {0};

    if (raw) {
        size_t size = element_size(t->data_type);
        memcpy(&v, raw + i * size, size);
    }
    switch (t->data_type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
        return raw ? v.f : t->float_data[i];
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
        return raw ? v.d : t->double_data[i];
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
        return (double)(raw ? v.i64 : t->int64_data[i]);
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32:
        return raw ? v.i32 : t->int32_data[i];
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16:
        return from_half(raw ? v.u16 : (uint32_t)t->int32_data[i] & 0xffff);
    default: /* BFLOAT16 */
        return from_bits((raw ? v.u16 : (uint32_t)t->int32_data[i]) << 16);
    }
}

float *onnx_tensor_floats(const Onnx__TensorProto *t, struct error *err)
{
    struct shape shape;
    size_t n;
    float *out;

    if (onnx_tensor_shape(t, &shape, err))
        return NULL;
    n = shape_count(&shape);
    out = malloc(n * sizeof(*out));
    if (!out)
        return error_null(err, ERR_NOMEM, "no memory for tensor \"%s\"",
                          t->name ? t->name : "");
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)element(t, i);
        if (!isfinite(out[i])) {
            free(out);
            return error_null(err, ERR_MODEL,
                              "tensor \"%s\": element %zu is not a finite "
                              "number",
                              t->name ? t->name : "", i);
        }
    }
    return out;
}

int onnx_tensor_ints(const Onnx__TensorProto *t, int64_t out[], int max,
                     struct error *err)
{
    struct shape shape;
    bool wide = t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
    bool raw = t->has_raw_data && t->raw_data.len;
    size_t n;

    /* An empty list is legal where a shape is meant. */
    if (t->n_dims == 1 && t->dims[0] == 0)
        return 0;
    if (onnx_tensor_shape(t, &shape, err))
        return -1;
    if (!wide && t->data_type != ONNX__TENSOR_PROTO__DATA_TYPE__INT32)
        return error_set(err, ERR_MODEL, "tensor \"%s\" is not of integers",
                         t->name ? t->name : "");
    n = shape_count(&shape);
    if (shape.rank > 1 || n > (size_t)max)
        return error_set(err, ERR_MODEL, "tensor \"%s\" is too large a list",
                         t->name ? t->name : "");
    for (size_t i = 0; i < n; i++) {
        int32_t narrow;
        if (raw && wide) {
            memcpy(&out[i], t->raw_data.data + i * 8, 8);
        } else if (raw) {
            memcpy(&narrow, t->raw_data.data + i * 4, 4);
            out[i] = narrow;
        } else {
            out[i] = wide ? t->int64_data[i] : t->int32_data[i];
        }
    }
    return (int)n;
}
