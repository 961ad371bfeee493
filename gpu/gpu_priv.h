/* gpu/gpu_priv.h - what gpu.c, plan*.c and run.c share. */
#ifndef GPU_GPU_PRIV_H
#define GPU_GPU_PRIV_H

#include <pthread.h>

#include "core/engine/graph.h"
#include "core/engine/slots.h"
#include "gpu/arith_ops.h"
#include "gpu/engine.h"
#include "gpu/layout.h"
#include "gpu/weights.h"

struct gpu_network {
    struct network base;
    struct graph *graph; /* fused */
    struct weights *weights;
};

/* An array in the plan's arena; a.p is filled in when that is there. */
struct view {
    int slot;      /* -1: none */
    size_t offset; /* numbers */
    struct nhwc a;
};

enum step_kind {
    STEP_IN,  /* packed f32 to y */
    STEP_OUT, /* x to packed f32 */
    STEP_DNN,
    STEP_CONV,
    STEP_DEPTHWISE,
    STEP_UNARY,
    STEP_BINARY,
    STEP_POOL,
    STEP_LRN,
    STEP_LINES,
    STEP_GATHER,
    STEP_PLACE,
    STEP_CONCAT
};
enum {
    STEP_MAX_PARTS = 8 /* that one kernel puts side by side */
};

struct step {
    enum step_kind kind;
    const struct node *node;          /* NULL: not of one node */
    struct view x, y, z;              /* z: residual, or the second of two */
    int packed;                       /* STEP_IN, STEP_OUT: the slot of f32 */
    struct view part[STEP_MAX_PARTS]; /* STEP_CONCAT: of u.concat.n */
    struct dnn_conv *dnn;
    struct dnn_shape shape; /* STEP_DNN */
    const void *w, *bias;   /* STEP_DNN */
    union {
        struct arith_move move;
        struct arith_conv conv;
        struct arith_unary unary;
        struct arith_binary binary;
        struct arith_pool pool;
        struct arith_lrn lrn;
        struct arith_lines lines;
        struct arith_gather gather;
        struct arith_place place;
        struct arith_concat concat;
    } u; /* its arrays are filled in from x, y, z */
};

static inline int gpu_parts(const struct step *s)
{
    return s->kind == STEP_CONCAT ? s->u.concat.n : 0;
}

struct gpu_plan {
    struct plan base;
    struct gpu_network *net;
    struct gpu_device *dev;
    enum gtype type;
    bool tf32;
    struct step *steps;
    int n_steps;
    struct slot *slots;
    int n_slots;
    int in_slot, out_slot[PLAN_MAX_OUTPUTS]; /* packed f32 */
    struct stream *stream;
    char *arena, *pinned;
    size_t bytes_arena;
    struct scratch scratch;
    bool recorded;          /* replayed as one; else step by step */
    int n_placed, n_merged; /* see struct layout */
};

/* A plan in the making. */
struct build {
    struct gpu_plan *plan;
    const struct graph *g;
    struct shape *shapes; /* of every value */
    struct layout layout;
    struct view *views; /* of every value; slot -1: not there yet */
    int *owner_slot;    /* of every value that owns memory; -1: none yet */
    int *flat;          /* of every value: the one that it is a row of, not
                           yet laid out as such; -1 */
    bool separate;
    struct error *err;
};

/* plan_best.c */
struct plan *gpu_plan_new(struct network *net, const struct plan_options *opt,
                          struct error *err);

/* plan.c */
struct gpu_plan *gpu_plan_as(struct network *net,
                             const struct plan_options *opt,
                             const struct layout_options *layout,
                             struct error *err);
void gpu_plan_free(struct plan *p);
struct step *gpu_step(struct build *b, enum step_kind kind,
                      const struct node *node);
/* Where a value is, or is to be written. false: err is set. */
bool gpu_view(struct build *b, int value, struct view *out);
bool gpu_place(struct build *b, int value, struct view *out);
/* Its weights as a vector for each of c channels. */
const float *gpu_vector(struct build *b, int value, int c);
struct nhwc gpu_dims(const struct shape *s);

/* plan_conv.c: convolutions and dense layers. */
int gpu_plan_conv(struct build *b, int at);
int gpu_plan_gemm(struct build *b, const struct node *n);
/* Where cuDNN has nothing, our own kernel of the same arrays and weights. */
void gpu_fall_back(struct step *s);

/* run.c: memory, engines and recording for steps that are all there. */
int gpu_bind(struct gpu_plan *p, bool separate, struct error *err);
int gpu_forward(struct plan *p, struct error *err);
/* Microseconds of a run, copies and all. */
int gpu_measure(struct gpu_plan *p, float *us, struct error *err);
/* For tests/gpu/bench_steps. Of the steps without the copies, recorded anew:
 * from then on the plan can only be measured so, or freed. */
int gpu_measure_steps(struct gpu_plan *p, float *us, struct error *err);
/* Of one step, started by itself: not less than a kernel's start takes. */
int gpu_measure_step(struct gpu_plan *p, int at, float *us, struct error *err);

#endif
