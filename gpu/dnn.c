/* gpu/dnn.c - see the header; cuDNN's graph API ("backend descriptors"), the
 * only user of it. A convolution becomes a graph of two to four operations;
 * heuristic mode A lists engines for it, good ones first; an engine with its
 * settings becomes a plan when it is chosen. An engine that fails to become
 * one is passed over: cuDNN lists some that it then cannot make. */
#include "gpu/dnn.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>

#include "gpu/conv_kernels.h"

/* Deprecated in the headers by name, and what every released 9.x reads when a
 * graph or plan is for the handle's card. */
#define ATTR_GRAPH_HANDLE ((cudnnBackendAttributeName_t)800)
#define ATTR_PLAN_HANDLE ((cudnnBackendAttributeName_t)400)

enum {
    MAX_ENGINES = 24,
    MAX_PARTS = 32, /* tensors, operations and what describes them */
    MAX_NOTES = 16,
    /* Numbers of those that are as old as cuDNN's first interface. Of 9.19, on
     * an H200, number 1 gives the loss by f32 weights as if the padding were
     * the same on both sides. */
    OLD_ENGINES = 10,
    UID_X = 1,
    UID_W,
    UID_BIAS,
    UID_Z,
    UID_Y,
    UID_BETWEEN /* and on: what never reaches memory */
};

struct dnn {
    cudnnHandle_t handle;            /* NULL: the card is not there */
    cudnnBackendDescriptor_t device; /* NULL: it is */
};

struct engine {
    cudnnBackendDescriptor_t config, engine;
    int64_t number;
    bool compiled;
};

struct dnn_conv {
    struct dnn *dnn;
    struct dnn_shape shape;
    size_t max_scratch;
    cudnnBackendDescriptor_t part[MAX_PARTS], graph, plan, pack;
    int n_parts;
    struct engine engine[MAX_ENGINES];
    int n_engines, chosen;
    size_t scratch;
    /* The loss by 16-bit weights: no engine that is ready-made writes f32, so
     * it is written in type to the front of scratch, of this many bytes. */
    size_t narrow_bytes;
    struct arith_widen widen;
};

static int failed(cudnnStatus_t s, const char *what, struct error *err)
{
    char text[160] = "";

    if (s == CUDNN_STATUS_SUCCESS)
        return 0;
    cudnnGetLastErrorString(text, sizeof(text));
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    return error_set(err, ERR_DEVICE, "cuDNN: %s: %s %s", what,
                     cudnnGetErrorString(s), text);
}

/* ---- descriptors -------------------------------------------------------- */

static int set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
               cudnnBackendAttributeType_t type, int64_t n, const void *v,
               struct error *err)
{
    return failed(cudnnBackendSetAttribute(d, name, type, n, v), "an attribute",
                  err);
}

static int set_desc(cudnnBackendDescriptor_t d,
                    cudnnBackendAttributeName_t name,
                    cudnnBackendDescriptor_t v, struct error *err)
{
    return set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v, err);
}

static void destroy(cudnnBackendDescriptor_t *d)
{
    if (*d)
        cudnnBackendDestroyDescriptor(*d);
    *d = NULL;
}

/* A descriptor that lives as long as the convolution. */
static cudnnBackendDescriptor_t new_part(struct dnn_conv *c,
                                         cudnnBackendDescriptorType_t type,
                                         struct error *err)
{
    cudnnBackendDescriptor_t d = NULL;

    if (c->n_parts == MAX_PARTS)
        return error_null(err, ERR_DEVICE, "cuDNN: a graph of too many parts");
    if (failed(cudnnBackendCreateDescriptor(type, &d), "a descriptor", err))
        return NULL;
    c->part[c->n_parts++] = d;
    return d;
}

static cudnnDataType_t data_type(enum gtype type)
{
    return type == GTYPE_F16    ? CUDNN_DATA_HALF
           : type == GTYPE_BF16 ? CUDNN_DATA_BFLOAT16
                                : CUDNN_DATA_FLOAT;
}

/* [n,c,h,w] in NHWC; of uids from UID_BETWEEN nothing is stored. */
static cudnnBackendDescriptor_t tensor(struct dnn_conv *c, int64_t uid,
                                       const int64_t dim[4], int64_t pitch,
                                       struct error *err)
{
    cudnnBackendDescriptor_t d =
        new_part(c, CUDNN_BACKEND_TENSOR_DESCRIPTOR, err);
    int64_t stride[4] = {dim[2] * dim[3] * pitch, 1, dim[3] * pitch, pitch};
    int64_t align = 16;
    bool between = uid >= UID_BETWEEN;
    cudnnDataType_t type =
        between ? CUDNN_DATA_FLOAT : data_type(c->shape.type);

    if (!d ||
        set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, err) ||
        set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type,
            err) ||
        set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align,
            err) ||
        set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, err) ||
        set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, err) ||
        (between && set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1,
                        &between, err)))
        return NULL;
    return failed(cudnnBackendFinalize(d), "a tensor", err) ? NULL : d;
}

static cudnnBackendDescriptor_t windows(struct dnn_conv *c, struct error *err)
{
    const struct dnn_shape *s = &c->shape;
    cudnnBackendDescriptor_t d =
        new_part(c, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, err);
    int64_t dims = 2, before[2] = {s->pad[0], s->pad[1]};
    int64_t after[2] = {s->pad[2], s->pad[3]};
    int64_t stride[2] = {s->stride[0], s->stride[1]};
    int64_t dilation[2] = {s->dilation[0], s->dilation[1]};
    cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;

    if (!d ||
        set(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims,
            err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums,
            err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1,
            &mode, err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before,
            err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after,
            err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation,
            err) ||
        set(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2,
            stride, err))
        return NULL;
    return failed(cudnnBackendFinalize(d), "windows", err) ? NULL : d;
}

/* What cuDNN calls the parts of a pass. x and w are the factors, y the result,
 * as in struct dnn_memory. */
static const struct names {
    cudnnBackendDescriptorType_t pass;
    cudnnBackendAttributeName_t x, w, y, how, alpha, beta;
} names[] = {
    [DNN_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [DNN_BACK_DATA] =
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [DNN_BACK_WEIGHTS] =
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static cudnnBackendDescriptor_t convolution(struct dnn_conv *c,
                                            cudnnBackendDescriptor_t x,
                                            cudnnBackendDescriptor_t w,
                                            cudnnBackendDescriptor_t y,
                                            struct error *err)
{
    const struct names *at = &names[c->shape.pass];
    cudnnBackendDescriptor_t how = windows(c, err);
    cudnnBackendDescriptor_t d = how ? new_part(c, at->pass, err) : NULL;
    float one = 1, zero = 0;

    if (!d || set_desc(d, at->x, x, err) || set_desc(d, at->w, w, err) ||
        set_desc(d, at->y, y, err) || set_desc(d, at->how, how, err) ||
        set(d, at->alpha, CUDNN_TYPE_FLOAT, 1, &one, err) ||
        set(d, at->beta, CUDNN_TYPE_FLOAT, 1, &zero, err))
        return NULL;
    return failed(cudnnBackendFinalize(d), "a convolution", err) ? NULL : d;
}

/* y = mode(x, b), or mode(x) where b is NULL. */
static cudnnBackendDescriptor_t
pointwise(struct dnn_conv *c, cudnnPointwiseMode_t mode,
          cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b,
          cudnnBackendDescriptor_t y, struct error *err)
{
    cudnnBackendDescriptor_t how =
        new_part(c, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, err);
    cudnnBackendDescriptor_t d;
    cudnnDataType_t math = CUDNN_DATA_FLOAT;

    if (!how ||
        set(how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode,
            err) ||
        set(how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &math,
            err) ||
        failed(cudnnBackendFinalize(how), "a pointwise step", err))
        return NULL;
    d = new_part(c, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, err);
    if (!d ||
        set_desc(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how, err) ||
        set_desc(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x, err) ||
        (b && set_desc(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b, err)) ||
        set_desc(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y, err))
        return NULL;
    return failed(cudnnBackendFinalize(d), "a pointwise operation", err) ? NULL
                                                                         : d;
}

/* ---- the graph ------------------------------------------------------------
 */

static int64_t out_size(const struct dnn_shape *s, int axis)
{
    int size = axis ? s->w : s->h;
    int reach = (s->kernel[axis] - 1) * s->dilation[axis] + 1;

    return (size + s->pad[axis] + s->pad[2 + axis] - reach) / s->stride[axis] +
           1;
}

static int join(struct dnn_conv *c, cudnnBackendDescriptor_t ops[], int n,
                struct error *err)
{
    cudnnBackendDescriptor_t *g = &c->graph;

    for (int i = 0; i < n; i++)
        if (!ops[i])
            return -1;
    if (failed(cudnnBackendCreateDescriptor(
                   CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, g),
               "a graph", err) ||
        set(*g, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n,
            ops, err))
        return -1;
    if (c->dnn->handle)
        cudnnBackendSetAttribute(*g, ATTR_GRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                 &c->dnn->handle);
    return failed(cudnnBackendFinalize(*g), "a graph", err);
}

static int build_back(struct dnn_conv *c, struct error *err)
{
    const struct dnn_shape *s = &c->shape;
    bool data = s->pass == DNN_BACK_DATA;
    int64_t dim_x[4] = {s->n, s->c, s->h, s->w};
    int64_t dim_w[4] = {s->k, s->c, s->kernel[0], s->kernel[1]};
    int64_t dim_y[4] = {s->n, s->k, out_size(s, 0), out_size(s, 1)};
    cudnnBackendDescriptor_t x, w, y, op;

    x = tensor(c, data ? UID_Y : UID_X, dim_x, s->x_pitch, err);
    y = tensor(c, data ? UID_X : UID_W, dim_y, s->y_pitch, err);
    w = tensor(c, data ? UID_W : UID_Y, dim_w, s->c, err);
    if (!x || !w || !y)
        return -1;
    if (!data && s->type != GTYPE_F32) {
        c->widen.n = (uint32_t)(s->k * s->kernel[0] * s->kernel[1] * s->c);
        c->narrow_bytes = ((size_t)c->widen.n * 2 + 255) / 256 * 256;
    }
    op = data ? convolution(c, y, w, x, err) : convolution(c, x, y, w, err);
    return join(c, &op, 1, err);
}

static int build(struct dnn_conv *c, struct error *err)
{
    const struct dnn_shape *s = &c->shape;
    int64_t dim_x[4] = {s->n, s->c, s->h, s->w};
    int64_t dim_w[4] = {s->k, s->c, s->kernel[0], s->kernel[1]};
    int64_t dim_b[4] = {1, s->k, 1, 1};
    int64_t dim_y[4] = {s->n, s->k, out_size(s, 0), out_size(s, 1)};
    cudnnBackendDescriptor_t ops[4], x, w, b, y, at, to;
    int n = 0;

    x = tensor(c, UID_X, dim_x, s->x_pitch, err);
    w = tensor(c, UID_W, dim_w, s->c, err);
    b = tensor(c, UID_BIAS, dim_b, s->k, err);
    y = tensor(c, UID_Y, dim_y, s->y_pitch, err);
    at = tensor(c, UID_BETWEEN, dim_y, s->k, err);
    if (!x || !w || !b || !y || !at)
        return -1;
    ops[n++] = convolution(c, x, w, at, err);
    if (s->z_pitch) {
        cudnnBackendDescriptor_t z = tensor(c, UID_Z, dim_y, s->z_pitch, err);

        to = tensor(c, UID_BETWEEN + 1, dim_y, s->k, err);
        if (!z || !to)
            return -1;
        ops[n++] = pointwise(c, CUDNN_POINTWISE_ADD, at, z, to, err);
        at = to;
    }
    to = s->relu ? tensor(c, UID_BETWEEN + 2, dim_y, s->k, err) : y;
    if (!to)
        return -1;
    ops[n++] = pointwise(c, CUDNN_POINTWISE_ADD, at, b, to, err);
    if (s->relu)
        ops[n++] = pointwise(c, CUDNN_POINTWISE_RELU_FWD, to, NULL, y, err);
    return join(c, ops, n, err);
}

/* ---- engines ----------------------------------------------------------------
 */

static bool uneven(const struct dnn_shape *s)
{
    return s->pad[0] != s->pad[2] || s->pad[1] != s->pad[3];
}

/* Whether it may be used; fills in what it is. */
static bool look_at(const struct dnn_conv *c, struct engine *e)
{
    cudnnBackendBehaviorNote_t notes[MAX_NOTES];
    cudnnBackendNumericalNote_t numbers[MAX_NOTES];
    int64_t n = 0, one = 0;

    if (cudnnBackendGetAttribute(e->config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one,
                                 &e->engine) ||
        cudnnBackendGetAttribute(e->engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                 CUDNN_TYPE_INT64, 1, &one, &e->number) ||
        cudnnBackendGetAttribute(e->engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                 CUDNN_TYPE_BEHAVIOR_NOTE, MAX_NOTES, &n,
                                 notes))
        return false;
    if (e->number < OLD_ENGINES && c->shape.pass == DNN_BACK_WEIGHTS &&
        uneven(&c->shape))
        return false;
    for (int64_t i = 0; i < n && i < MAX_NOTES; i++)
        e->compiled |= notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    n = 0;
    if (cudnnBackendGetAttribute(e->engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, MAX_NOTES, &n,
                                 numbers))
        return false;
    for (int64_t i = 0; i < n && i < MAX_NOTES; i++) {
        bool loses = numbers[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                     numbers[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;

        if (loses && c->shape.type == GTYPE_F32 && !c->shape.tf32)
            return false;
        /* One face must give one embedding, and sums stay in f32. */
        if (numbers[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
            numbers[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
            return false;
    }
    return true;
}

static void drop_engine(struct engine *e)
{
    destroy(&e->config);
    destroy(&e->engine);
}

/* Those that the heuristic returned, less those that may not be used. */
static int keep_engines(struct dnn_conv *c, cudnnBackendDescriptor_t found[],
                        struct error *err)
{
    for (int i = 0; i < MAX_ENGINES; i++) {
        struct engine e = {.config = found[i]};

        if (!found[i])
            continue;
        if (!failed(cudnnBackendCreateDescriptor(
                        CUDNN_BACKEND_ENGINE_DESCRIPTOR, &e.engine),
                    "an engine", err) &&
            look_at(c, &e))
            c->engine[c->n_engines++] = e;
        else
            drop_engine(&e);
    }
    return 0;
}

static int ask(struct dnn_conv *c, cudnnBackendHeurMode_t mode,
               struct error *err)
{
    cudnnBackendDescriptor_t h = NULL, found[MAX_ENGINES] = {NULL};
    int64_t n = 0;
    int rc = failed(
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &h),
        "a heuristic", err);

    for (int i = 0; !rc && i < MAX_ENGINES; i++)
        rc = failed(cudnnBackendCreateDescriptor(
                        CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &found[i]),
                    "a setting", err);
    if (!rc)
        rc = set_desc(h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, c->graph, err);
    if (!rc)
        rc = set(h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode,
                 err);
    if (!rc && c->dnn->device)
        rc = set_desc(h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, c->dnn->device, err);
    if (!rc)
        rc = failed(cudnnBackendFinalize(h), "a heuristic", err);
    if (!rc)
        rc = failed(cudnnBackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                             MAX_ENGINES, &n, found),
                    "a heuristic's results", err);
    for (int i = 0; i < MAX_ENGINES; i++)
        if (rc || i >= n)
            destroy(&found[i]);
    if (!rc)
        rc = keep_engines(c, found, err);
    destroy(&h);
    return rc;
}

bool dnn_conv_choose(struct dnn_conv *c, int i)
{
    int64_t bytes = 0, one = 0;

    destroy(&c->pack);
    destroy(&c->plan);
    c->chosen = -1;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                                     &c->plan) ||
        set_desc(c->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                 c->engine[i].config, NULL))
        return false;
    if (c->dnn->handle)
        cudnnBackendSetAttribute(c->plan, ATTR_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
                                 1, &c->dnn->handle);
    else if (set_desc(c->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                      c->dnn->device, NULL))
        return false;
    if (cudnnBackendFinalize(c->plan) ||
        cudnnBackendGetAttribute(c->plan,
                                 CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                 CUDNN_TYPE_INT64, 1, &one, &bytes) ||
        (uint64_t)bytes + c->narrow_bytes > c->max_scratch)
        return false;
    c->scratch = (size_t)bytes + c->narrow_bytes;
    c->chosen = i;
    return true;
}

static bool choose_first(struct dnn_conv *c)
{
    /* Those that are ready before those that must be compiled. */
    for (int compiled = 0; compiled < 2; compiled++)
        for (int i = 0; i < c->n_engines; i++)
            if (c->engine[i].compiled == (compiled != 0) &&
                dnn_conv_choose(c, i))
                return true;
    return false;
}

/* ---- the interface
 * ------------------------------------------------------------ */

struct dnn *dnn_open(const char *device, struct error *err)
{
    struct dnn *d = calloc(1, sizeof(*d));

    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for cuDNN");
    if (device &&
        !failed(cudnnBackendCreateDescriptor(
                    CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d->device),
                "a card's description", err) &&
        !set(d->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
             CUDNN_TYPE_CHAR, (int64_t)strlen(device), device, err) &&
        !failed(cudnnBackendFinalize(d->device), "a card's description", err))
        return d;
    if (!device && !failed(cudnnCreate(&d->handle), "opening it", err))
        return d;
    dnn_close(d);
    return NULL;
}

void dnn_close(struct dnn *d)
{
    if (!d)
        return;
    destroy(&d->device);
    if (d->handle)
        cudnnDestroy(d->handle);
    free(d);
}

void dnn_version(char *buf, size_t len)
{
    size_t v = cudnnGetVersion();

    snprintf(buf, len, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

struct dnn_conv *dnn_conv_new(struct dnn *d, const struct dnn_shape *s,
                              size_t max_scratch, struct error *err)
{
    struct dnn_conv *c = calloc(1, sizeof(*c));

    if (!c)
        return error_null(err, ERR_NOMEM, "no memory for a convolution");
    c->dnn = d;
    c->shape = *s;
    c->max_scratch = max_scratch;
    c->chosen = -1;
    if (!(s->pass == DNN_FORWARD ? build(c, err) : build_back(c, err))) {
        if (!ask(c, CUDNN_HEUR_MODE_A, err) && choose_first(c))
            return c;
        for (int i = 0; i < c->n_engines; i++)
            drop_engine(&c->engine[i]);
        c->n_engines = 0;
        if (!ask(c, CUDNN_HEUR_MODE_FALLBACK, err) && choose_first(c))
            return c;
        error_set(err, ERR_DEVICE,
                  "cuDNN has no engine for %dx%d convolutions of %d to %d "
                  "channels",
                  s->kernel[0], s->kernel[1], s->c, s->k);
    }
    dnn_conv_free(c);
    return NULL;
}

void dnn_conv_free(struct dnn_conv *c)
{
    if (!c)
        return;
    destroy(&c->pack);
    destroy(&c->plan);
    for (int i = 0; i < c->n_engines; i++)
        drop_engine(&c->engine[i]);
    destroy(&c->graph);
    while (c->n_parts > 0)
        destroy(&c->part[--c->n_parts]);
    free(c);
}

int dnn_conv_count(const struct dnn_conv *c)
{
    return c->n_engines;
}

int dnn_conv_chosen(const struct dnn_conv *c)
{
    return c->chosen;
}

int64_t dnn_conv_engine(const struct dnn_conv *c)
{
    return c->chosen < 0 ? -1 : c->engine[c->chosen].number;
}

bool dnn_conv_compiled(const struct dnn_conv *c)
{
    return c->chosen >= 0 && c->engine[c->chosen].compiled;
}

size_t dnn_conv_scratch(const struct dnn_conv *c)
{
    return c->scratch;
}

int dnn_conv_bind(struct dnn_conv *c, const struct dnn_memory *m,
                  struct error *err)
{
    int64_t uids[5] = {UID_X, UID_W, UID_Y, UID_BIAS, UID_Z};
    const void *at[5] = {m->x, m->w, m->y, m->bias, m->z};
    int64_t n = c->shape.pass != DNN_FORWARD ? 3 : c->shape.z_pitch ? 5 : 4;
    void *scratch = m->scratch;

    destroy(&c->pack);
    if (c->narrow_bytes) {
        c->widen.from = at[2] = scratch;
        c->widen.to = m->y;
        scratch = (char *)scratch + c->narrow_bytes;
    }
    if (failed(cudnnBackendCreateDescriptor(
                   CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &c->pack),
               "arguments", err) ||
        set(c->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n,
            uids, err) ||
        set(c->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
            n, at, err) ||
        set(c->pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
            &scratch, err))
        return -1;
    return failed(cudnnBackendFinalize(c->pack), "arguments", err);
}

int dnn_conv_run(struct dnn_conv *c, struct stream *s, struct error *err)
{
    cudnnStatus_t e =
        cudnnSetStream(c->dnn->handle, (cudaStream_t)card_stream_handle(s));

    if (e == CUDNN_STATUS_SUCCESS)
        e = cudnnBackendExecute(c->dnn->handle, c->plan, c->pack);
    if (failed(e, "a convolution", err))
        return -1;
    return c->narrow_bytes
               ? kernels_widen(&c->widen, (int)c->shape.type, s, err)
               : 0;
}

void dnn_rest(struct dnn *d)
{
    if (d->handle)
        cudnnSetStream(d->handle, NULL);
}
