/* core/engine/cpu_plan.c - a fused graph to a list of steps and one block of
 * memory. Three passes: every node becomes steps (oneDNN kernels in the
 * layouts they like best, reorders between, dense layers, plain loops); slots
 * get places in the arena so that those never in use together overlap; then
 * every argument is bound to its address. Running allocates nothing. */
#include "core/engine/cpu_priv.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_REPS = 6,
    PRELU_REPEAT = 16 /* floats in the widest vector */
};

/* A value in one layout. */
struct rep {
    struct layout *layout;
    int slot;
    enum dtype type;
};

struct build {
    struct cpu_plan *plan;
    const struct graph *g;
    struct shape *shapes;         /* of every value */
    struct rep (*reps)[MAX_REPS]; /* of every value; [0] as it was made */
    int *n_reps;
    int *last_use;   /* of every value: node index; n_nodes for outputs */
    enum dtype type; /* of convolutions */
    size_t scratch;
    bool separate;
    struct error *err;
};

static int no_memory(struct build *b)
{
    return error_set(b->err, ERR_NOMEM, "no memory for a plan");
}

static int too_large(struct build *b, size_t bytes)
{
    return error_set(b->err, ERR_MODEL,
                     "running it needs %zu MiB, %zu are allowed", bytes >> 20,
                     PLAN_MAX_BYTES >> 20);
}

static int new_slot(struct build *b, size_t bytes)
{
    struct cpu_plan *p = b->plan;

    if (bytes > PLAN_MAX_BYTES)
        return too_large(b, bytes);
    if (!(p->n_slots & (p->n_slots - 1))) {
        size_t room = p->n_slots ? 2 * (size_t)p->n_slots : 1;
        struct slot *s = realloc(p->slots, room * sizeof(*s));

        if (!s)
            return no_memory(b);
        p->slots = s;
    }
    p->slots[p->n_slots] = (struct slot){.bytes = bytes, .first = -1};
    return p->n_slots++;
}

static struct step *new_step(struct build *b, enum step_kind kind,
                             const struct node *node, int n_refs)
{
    struct cpu_plan *p = b->plan;
    struct step *s;

    if (!(p->n_steps & (p->n_steps - 1))) {
        size_t room = p->n_steps ? 2 * (size_t)p->n_steps : 1;

        s = realloc(p->steps, room * sizeof(*s));
        if (!s) {
            no_memory(b);
            return NULL;
        }
        p->steps = s;
    }
    s = &p->steps[p->n_steps++];
    *s = (struct step){.kind = kind, .node = node};
    s->refs = calloc((size_t)n_refs, sizeof(*s->refs));
    if (s->refs)
        return s;
    no_memory(b);
    return NULL;
}

static void add_ref(struct step *s, int arg, int slot, void *fixed)
{
    s->refs[s->n_refs++] = (struct ref){arg, slot, fixed};
}

/* A kernel as a step; takes the kernel, also on failure. */
static struct step *kernel_step(struct build *b, const struct node *node,
                                struct kernel *take, int n_refs)
{
    struct step *s;

    if (!take)
        return NULL;
    s = new_step(b, STEP_KERNEL, node, n_refs);
    if (!s) {
        kernel_free(take);
        return NULL;
    }
    s->kernel = take;
    if (kernel_scratch_bytes(take) > b->scratch)
        b->scratch = kernel_scratch_bytes(take);
    return s;
}

static int add_rep(struct build *b, int value, const struct layout *layout,
                   enum dtype type, int slot)
{
    struct rep *r = &b->reps[value][b->n_reps[value]];

    r->layout = layout_dup(layout);
    if (!r->layout)
        return no_memory(b);
    r->slot = slot;
    r->type = type;
    b->n_reps[value]++;
    return slot;
}

/* A new slot for value in this layout. */
static int make_rep(struct build *b, int value, const struct layout *layout,
                    enum dtype type)
{
    int slot = new_slot(b, layout_bytes(layout));

    return slot < 0 ? -1 : add_rep(b, value, layout, type, slot);
}

/* The slot that holds value in the layout wanted, reordering when there is
 * none yet. */
static int rep_as(struct build *b, int value, const struct layout *want,
                  enum dtype type)
{
    const struct rep *from = &b->reps[value][0];
    struct step *s;
    int slot;

    for (int i = 0; i < b->n_reps[value]; i++)
        if (layout_equal(b->reps[value][i].layout, want))
            return b->reps[value][i].slot;
    s = kernel_step(b, NULL,
                    kernel_reorder(b->plan->dn, from->layout, want, b->err), 3);
    if (!s)
        return -1;
    slot = b->n_reps[value] < MAX_REPS ? make_rep(b, value, want, type)
                                       : new_slot(b, layout_bytes(want));
    if (slot < 0)
        return -1;
    add_ref(s, KERNEL_SRC, from->slot, NULL);
    add_ref(s, KERNEL_DST, slot, NULL);
    b->plan->base.info.n_reorders++;
    return slot;
}

static int rep_plain(struct build *b, int value)
{
    struct layout *want = layout_plain(&b->shapes[value], DTYPE_F32);
    int slot = want ? rep_as(b, value, want, DTYPE_F32) : no_memory(b);

    layout_free(want);
    return slot;
}

static int make_plain(struct build *b, int value)
{
    struct layout *l = layout_plain(&b->shapes[value], DTYPE_F32);
    int slot = l ? make_rep(b, value, l, DTYPE_F32) : no_memory(b);

    layout_free(l);
    return slot;
}

/* oneDNN handles the channels of one pixel at a time, and is slow where they
 * do not fill its vectors; a loop over slopes repeated until they do takes a
 * fifth of the time. It knows no threads. */
static bool prelu_by_loop(const struct build *b, int value)
{
    const struct rep *r = &b->reps[value][0];
    const struct shape *s = &b->shapes[value];

    return b->plan->n_threads == 1 && r->type == DTYPE_F32 && s->rank == 4 &&
           s->d[1] % PRELU_REPEAT &&
           layout_channels_last(r->layout, s, DTYPE_F32);
}

static int plan_slopes_loop(struct build *b, const struct node *n, int slope,
                            int slot)
{
    int period = b->shapes[n->out].d[1] * PRELU_REPEAT;
    void *w = cpu_pack_vector(b->plan->net, slope, period, b->err);
    struct step *s = w ? new_step(b, STEP_PRELU, n, 2) : NULL;

    if (!s)
        return -1;
    s->n = shape_count(&b->shapes[n->out]);
    s->period = (size_t)period;
    add_ref(s, 0, slot, NULL);
    add_ref(s, 1, -1, w);
    return 0;
}

/* PReLU: in place after a convolution, or by itself. */
static int plan_slopes(struct build *b, const struct node *n, int slope,
                       int from, int to)
{
    const struct rep *r = &b->reps[n->out][0];
    struct step *s;
    size_t padded;
    void *w;

    if (from == to && prelu_by_loop(b, n->out))
        return plan_slopes_loop(b, n, slope, to);
    s = kernel_step(b, n,
                    kernel_prelu(b->plan->dn, r->layout, b->shapes[n->out].rank,
                                 b->shapes[n->out].d[1], b->err),
                    4);
    if (!s)
        return -1;
    /* In blocks of channels, the last of which may be filled up: what stands
     * there meets zeros. */
    padded = layout_bytes(kernel_layout(s->kernel, KERNEL_WEIGHTS));
    w = cpu_pack_vector(b->plan->net, slope, (int)(padded / sizeof(float)),
                        b->err);
    if (!w)
        return -1;
    add_ref(s, KERNEL_SRC, from, NULL);
    add_ref(s, KERNEL_WEIGHTS, -1, w);
    add_ref(s, KERNEL_DST, to, NULL);
    return 0;
}

/* Where a convolution with a residual writes: over the residual itself when
 * nobody needs it afterwards (nor this convolution as its source), else over
 * a copy in the layout wanted. The copy is no rep: the residual is gone from
 * it after the convolution. */
static int residual_slot(struct build *b, int at, int value, int src,
                         const struct layout *want)
{
    const struct rep *r = &b->reps[value][0];
    struct slot *slot = &b->plan->slots[r->slot];
    struct step *s;
    int copy;

    if (b->last_use[value] == at && !slot->shared && r->slot != src &&
        value != b->g->input && layout_equal(r->layout, want))
        return r->slot;
    s = kernel_step(b, NULL,
                    kernel_reorder(b->plan->dn, r->layout, want, b->err), 3);
    copy = s ? new_slot(b, layout_bytes(want)) : -1;
    if (copy < 0)
        return -1;
    add_ref(s, KERNEL_SRC, r->slot, NULL);
    add_ref(s, KERNEL_DST, copy, NULL);
    return copy;
}

static int conv_arguments(struct build *b, const struct node *n,
                          struct kernel *k, struct step *s, int src, int dst)
{
    void *w =
        cpu_pack_conv(b->plan->net, k, n->in[1], n->op.u.conv.group, b->err);

    if (!w)
        return -1;
    add_ref(s, KERNEL_SRC, src, NULL);
    add_ref(s, KERNEL_WEIGHTS, -1, w);
    add_ref(s, KERNEL_BIAS, -1, b->g->values[n->in[2]].data);
    add_ref(s, KERNEL_DST, dst, NULL);
    return 0;
}

static int plan_conv(struct build *b, int at)
{
    const struct node *n = &b->g->nodes[at];
    const struct op_conv *c = &n->op.u.conv;
    const struct rep *res = c->residual ? &b->reps[n->in[3]][0] : NULL;
    struct layout *src = layout_any(&b->shapes[n->in[0]], b->type);
    struct layout *res_layout = NULL;
    struct kernel *k;
    struct step *s;
    int src_slot, dst;

    if (res && res->type != b->type) {
        /* the residual comes from a plain operator: bring it over */
        res_layout = layout_plain(&b->shapes[n->in[3]], b->type);
    } else if (res) {
        res_layout = layout_dup(res->layout);
    }
    if (!src || (res && !res_layout)) {
        layout_free(src);
        layout_free(res_layout);
        return no_memory(b);
    }
    k = kernel_conv(b->plan->dn, c, src, &b->shapes[n->in[1]], b->type,
                    res_layout, &b->shapes[n->out], b->err);
    layout_free(src);
    src_slot =
        k ? rep_as(b, n->in[0], kernel_layout(k, KERNEL_SRC), b->type) : -1;
    if (src_slot < 0)
        dst = -1;
    else if (res)
        dst = residual_slot(b, at, n->in[3], src_slot, res_layout);
    else
        dst = new_slot(b, layout_bytes(kernel_layout(k, KERNEL_DST)));
    layout_free(res_layout);
    if (dst < 0) {
        kernel_free(k);
        return -1;
    }
    s = kernel_step(b, n, k, 5);
    if (!s || conv_arguments(b, n, k, s, src_slot, dst) ||
        add_rep(b, n->out, kernel_layout(k, KERNEL_DST), b->type, dst) < 0)
        return -1;
    if (c->act == ACT_PRELU)
        return plan_slopes(b, n, n->in[n->n_in - 1], dst, dst);
    return 0;
}

static int plan_gemm(struct build *b, const struct node *n)
{
    const struct graph *g = b->g;
    int x = rep_plain(b, n->in[0]), y = x < 0 ? -1 : make_plain(b, n->out);
    struct step *s = y < 0 ? NULL : new_step(b, STEP_GEMM, n, 5);

    if (!s)
        return -1;
    s->shapes = malloc(2 * sizeof(*s->shapes));
    if (!s->shapes)
        return no_memory(b);
    s->shapes[0] = b->shapes[n->in[0]];
    s->shapes[1] = b->shapes[n->out];
    add_ref(s, 0, x, NULL);
    add_ref(s, 1, -1, g->values[n->in[1]].data);
    add_ref(s, 2, -1, g->values[n->in[2]].data);
    add_ref(s, 3, y, NULL);
    if (n->op.u.gemm.act == ACT_PRELU) {
        void *slope =
            cpu_pack_vector(b->plan->net, n->in[3], s->shapes[1].d[1], b->err);

        if (!slope)
            return -1;
        add_ref(s, 4, -1, slope);
    }
    return 0;
}

static int plan_plain(struct build *b, const struct node *n)
{
    int in[OP_MAX_IN], out;
    struct step *s;

    if (!op_plain_forward(n->op.type))
        return error_set(b->err, ERR_MODEL,
                         "node '%.80s': %s has no kernel for these inputs",
                         n->name, op_info(n->op.type)->name);
    for (int k = 0; k < n->n_in; k++) {
        in[k] = -1;
        if (b->g->values[n->in[k]].kind != VALUE_WEIGHT &&
            (in[k] = rep_plain(b, n->in[k])) < 0)
            return -1;
    }
    out = make_plain(b, n->out);
    s = out < 0 ? NULL : new_step(b, STEP_PLAIN, n, n->n_in + 1);
    if (!s)
        return -1;
    s->shapes = malloc(((size_t)n->n_in + 1) * sizeof(*s->shapes));
    if (!s->shapes)
        return no_memory(b);
    for (int k = 0; k < n->n_in; k++) {
        s->shapes[k] = b->shapes[n->in[k]];
        add_ref(s, k, in[k], b->g->values[n->in[k]].data);
    }
    s->shapes[n->n_in] = b->shapes[n->out];
    add_ref(s, n->n_in, out, NULL);
    return 0;
}

/* One input, one output in the layout that the kernel chose. */
static int plan_unary(struct build *b, const struct node *n, struct kernel *k)
{
    const struct rep *r = &b->reps[n->in[0]][0];
    struct step *s = kernel_step(b, n, k, 5);
    int dst =
        s ? make_rep(b, n->out, kernel_layout(k, KERNEL_DST), r->type) : -1;

    if (dst < 0)
        return -1;
    add_ref(s, KERNEL_SRC, r->slot, NULL);
    add_ref(s, KERNEL_DST, dst, NULL);
    return 0;
}

static int plan_affine(struct build *b, const struct node *n)
{
    const struct shape *sh = &b->shapes[n->in[0]];
    const struct rep *r = &b->reps[n->in[0]][0];
    struct step *s;

    if (plan_unary(
            b, n,
            kernel_affine(b->plan->dn, r->layout, sh->rank, sh->d[1], b->err)))
        return -1;
    s = &b->plan->steps[b->plan->n_steps - 1];
    add_ref(s, KERNEL_SRC1, -1, b->g->values[n->in[1]].data);
    add_ref(s, KERNEL_POST, -1, b->g->values[n->in[2]].data);
    return 0;
}

static int plan_prelu(struct build *b, const struct node *n)
{
    const struct rep *r = &b->reps[n->in[0]][0];
    int dst = make_rep(b, n->out, r->layout, r->type);

    return dst < 0 ? -1 : plan_slopes(b, n, n->in[1], r->slot, dst);
}

static int plan_pool(struct build *b, const struct node *n)
{
    const struct op_pool *p = &n->op.u.pool;
    const struct rep *r = &b->reps[n->in[0]][0];

    /* What ceil_mode reaches beyond the padding is not counted by ONNX, and
     * is by oneDNN. */
    if (n->op.type == OP_LP_POOL || (p->ceil_mode && p->count_pad))
        return plan_plain(b, n);
    return plan_unary(b, n,
                      kernel_pool(b->plan->dn, &n->op, r->layout,
                                  &b->shapes[n->in[0]], &b->shapes[n->out],
                                  r->type, b->err));
}

/* Arithmetic on two computed values of one shape; anything else is rare. */
static int plan_arith(struct build *b, const struct node *n)
{
    const struct rep *r = &b->reps[n->in[0]][0];
    struct kernel *k;
    struct step *s;
    int other;

    if (n->n_in != 2 || b->g->values[n->in[0]].kind == VALUE_WEIGHT ||
        b->g->values[n->in[1]].kind == VALUE_WEIGHT ||
        !shape_equal(&b->shapes[n->in[0]], &b->shapes[n->in[1]]))
        return plan_plain(b, n);
    other = rep_as(b, n->in[1], r->layout, r->type);
    k = other < 0
            ? NULL
            : kernel_add(b->plan->dn, n->op.type, r->layout, r->layout, b->err);
    if (!k || plan_unary(b, n, k))
        return -1;
    s = &b->plan->steps[b->plan->n_steps - 1];
    add_ref(s, KERNEL_SRC1, other, NULL);
    return 0;
}

static int plan_concat(struct build *b, const struct node *n)
{
    struct layout *src[OP_MAX_IN];
    int slot[OP_MAX_IN], dst;
    struct kernel *k;
    struct step *s;

    for (int i = 0; i < n->n_in; i++) {
        const struct rep *r = &b->reps[n->in[i]][0];

        if (b->g->values[n->in[i]].kind == VALUE_WEIGHT)
            return error_set(b->err, ERR_MODEL, "node '%.80s' joins a constant",
                             n->name);
        slot[i] = r->slot;
        src[i] = r->layout;
        if (r->type == b->reps[n->in[0]][0].type)
            continue;
        /* of two types: all of them plain f32 */
        for (i = 0; i < n->n_in; i++) {
            if ((slot[i] = rep_plain(b, n->in[i])) < 0)
                return -1;
            for (int q = 0; q < b->n_reps[n->in[i]]; q++)
                if (b->reps[n->in[i]][q].slot == slot[i])
                    src[i] = b->reps[n->in[i]][q].layout;
        }
    }
    k = kernel_concat(b->plan->dn, src, n->n_in, n->op.u.axis.axis, b->err);
    s = kernel_step(b, n, k, n->n_in + 2);
    if (!s)
        return -1;
    dst = make_rep(b, n->out, kernel_layout(k, KERNEL_DST),
                   slot[0] == b->reps[n->in[0]][0].slot
                       ? b->reps[n->in[0]][0].type
                       : DTYPE_F32);
    if (dst < 0)
        return -1;
    for (int i = 0; i < n->n_in; i++)
        add_ref(s, KERNEL_MULTI + i, slot[i], NULL);
    add_ref(s, KERNEL_DST, dst, NULL);
    return 0;
}

/* The same numbers under another shape: no step at all. */
static int plan_reshape(struct build *b, const struct node *n)
{
    int slot = rep_plain(b, n->in[0]);
    struct layout *l = layout_plain(&b->shapes[n->out], DTYPE_F32);

    if (slot >= 0 && !l)
        slot = no_memory(b);
    if (slot >= 0) {
        b->plan->slots[slot].shared = true;
        slot = add_rep(b, n->out, l, DTYPE_F32, slot);
    }
    layout_free(l);
    return slot < 0 ? -1 : 0;
}

static int plan_node(struct build *b, int at)
{
    const struct node *n = &b->g->nodes[at];
    const struct rep *r = &b->reps[n->in[0]][0];

    switch (n->op.type) {
    case OP_CONV:
        return plan_conv(b, at);
    case OP_GEMM:
        return plan_gemm(b, n);
    case OP_AFFINE:
        return plan_affine(b, n);
    case OP_PRELU:
        return plan_prelu(b, n);
    case OP_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
        return plan_unary(b, n,
                          kernel_act(b->plan->dn, &n->op, r->layout, b->err));
    case OP_MAX_POOL:
    case OP_AVG_POOL:
    case OP_LP_POOL:
        return plan_pool(b, n);
    case OP_LRN:
        return plan_unary(
            b, n, kernel_lrn(b->plan->dn, &n->op.u.lrn, r->layout, b->err));
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_MAX:
        return plan_arith(b, n);
    case OP_CONCAT:
        return plan_concat(b, n);
    case OP_RESHAPE:
        return plan_reshape(b, n);
    default:
        return plan_plain(b, n);
    }
}

/* ---- memory -------------------------------------------------------- */

static void find_lifetimes(struct build *b)
{
    struct cpu_plan *p = b->plan;

    for (int i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_refs; k++) {
            int slot = p->steps[i].refs[k].slot;

            if (slot < 0)
                continue;
            if (p->slots[slot].first < 0)
                p->slots[slot].first = i;
            p->slots[slot].last = i;
        }
    p->slots[b->reps[b->g->input][0].slot].first = 0;
    for (int i = 0; i < b->g->n_outputs; i++) /* read after the run */
        for (int k = 0; k < b->n_reps[b->g->outputs[i]]; k++)
            p->slots[b->reps[b->g->outputs[i]][k].slot].last = p->n_steps;
}

static void *address(const struct cpu_plan *p, const struct ref *r)
{
    return r->slot < 0 ? r->fixed : p->arena + p->slots[r->slot].offset;
}

static int bind_step(struct build *b, struct step *s, void *scratch)
{
    if (s->kind == STEP_KERNEL) {
        for (int k = 0; k < s->n_refs; k++)
            if (kernel_bind(s->kernel, s->refs[k].arg,
                            address(b->plan, &s->refs[k]), b->err))
                return -1;
        return kernel_scratch_bytes(s->kernel)
                   ? kernel_bind(s->kernel, KERNEL_SCRATCH, scratch, b->err)
                   : 0;
    }
    s->at = malloc((size_t)s->n_refs * sizeof(*s->at));
    if (!s->at)
        return no_memory(b);
    for (int k = 0; k < s->n_refs; k++)
        s->at[k] = address(b->plan, &s->refs[k]);
    return 0;
}

static int bind_memory(struct build *b)
{
    struct cpu_plan *p = b->plan;
    size_t bytes = slots_place(p->slots, p->n_slots, b->separate);
    size_t all = bytes + b->scratch + SLOTS_ALIGN;

    if (all > PLAN_MAX_BYTES)
        return too_large(b, all);
    p->arena = bytes ? (char *)tensor_alloc(all / sizeof(float) + 1) : NULL;
    if (!p->arena)
        return no_memory(b);
    if (b->separate)
        for (size_t i = 0; i < bytes / sizeof(float); i++)
            ((float *)p->arena)[i] = NAN;
    for (int i = 0; i < p->n_steps; i++)
        if (bind_step(b, &p->steps[i], p->arena + bytes))
            return -1;
    p->base.info.bytes_activations = bytes;
    p->base.info.bytes_scratch = b->scratch;
    return 0;
}

/* ---- the whole ----------------------------------------------------- */

static void find_last_uses(struct build *b)
{
    for (int i = 0; i < b->g->n_nodes; i++)
        for (int k = 0; k < b->g->nodes[i].n_in; k++)
            b->last_use[b->g->nodes[i].in[k]] = i;
    for (int i = 0; i < b->g->n_outputs; i++)
        b->last_use[b->g->outputs[i]] = b->g->n_nodes;
}

static int plan_outputs(struct build *b, int slots[])
{
    struct plan *p = &b->plan->base;

    for (int i = 0; i < b->g->n_outputs; i++) {
        slots[i] = rep_plain(b, b->g->outputs[i]);
        if (slots[i] < 0)
            return -1;
        p->shape_out[i] = b->shapes[b->g->outputs[i]];
    }
    p->n_outputs = b->g->n_outputs;
    return 0;
}

/* Before kernels are compiled, which some processors refuse for such sizes
 * without saying why. */
static int check_sizes(struct build *b)
{
    for (int i = 0; i < b->g->n_nodes; i++) {
        size_t n = shape_count(&b->shapes[b->g->nodes[i].out]);

        if (n > PLAN_MAX_BYTES / sizeof(float) && too_large(b, n * 4))
            return error_context(b->err, "node '%.80s'", b->g->nodes[i].name);
    }
    return 0;
}

static int build_plan(struct build *b)
{
    struct cpu_plan *p = b->plan;
    int slots[GRAPH_MAX_OUTPUTS];

    if (check_sizes(b))
        return -1;
    if (make_plain(b, b->g->input) < 0)
        return -1;
    find_last_uses(b);
    for (int i = 0; i < b->g->n_nodes; i++)
        if (plan_node(b, i))
            return error_context(b->err, "node '%.80s'", b->g->nodes[i].name);
    if (plan_outputs(b, slots))
        return -1;
    find_lifetimes(b);
    if (bind_memory(b))
        return -1;
    p->base.shape_in = b->shapes[b->g->input];
    p->base.input =
        (float *)(p->arena + p->slots[b->reps[b->g->input][0].slot].offset);
    for (int i = 0; i < p->base.n_outputs; i++)
        p->base.output[i] = (float *)(p->arena + p->slots[slots[i]].offset);
    p->base.info.n_steps = p->n_steps;
    p->base.info.bytes_weights = cpu_packed_bytes(p->net);
    return 0;
}

static enum precision choose(enum precision asked)
{
    if (asked == PRECISION_AUTO)
        return onednn_has_amx() ? PRECISION_BF16 : PRECISION_F32;
    return asked;
}

int cpu_check_precision(enum precision p, struct error *err)
{
    if (p == PRECISION_F16 || p == PRECISION_TF32)
        return error_set(err, ERR_DEVICE, "the CPU does not compute in %s",
                         p == PRECISION_F16 ? "f16" : "tf32");
    if (p == PRECISION_BF16 && !onednn_has_bf16())
        return error_set(err, ERR_DEVICE, "this processor has no bf16");
    return 0;
}

struct plan *cpu_plan_new(struct network *net, const struct plan_options *opt,
                          struct error *err)
{
    struct cpu_network *cn = (struct cpu_network *)net;
    const struct cpu_device *dev = (const struct cpu_device *)net->device;
    size_t n = (size_t)cn->graph->n_values;
    enum precision precision = choose(opt->precision);
    struct cpu_plan *p = calloc(1, sizeof(*p));
    struct build b = {.plan = p,
                      .g = cn->graph,
                      .type =
                          precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32,
                      .separate = opt->separate,
                      .err = err};
    int rc = -1;

    b.shapes = calloc(n, sizeof(*b.shapes));
    b.reps = calloc(n, sizeof(*b.reps));
    b.n_reps = calloc(n, sizeof(*b.n_reps));
    b.last_use = calloc(n, sizeof(*b.last_use));
    if (!p || !b.shapes || !b.reps || !b.n_reps || !b.last_use) {
        no_memory(&b);
    } else if (cpu_check_precision(precision, err)) {
        rc = -1;
    } else {
        p->base.backend = &backend_cpu;
        p->base.info.precision = precision;
        p->net = cn;
        p->n_threads = dev->n_threads;
        omp_set_num_threads(p->n_threads); /* kernels are made for a number */
        p->dn = onednn_open(err);
        if (p->dn &&
            !graph_shapes(cn->graph, opt->n, opt->h, opt->w, b.shapes, err))
            rc = build_plan(&b);
    }
    for (size_t i = 0; b.reps && b.n_reps && i < n; i++)
        for (int k = 0; k < b.n_reps[i]; k++)
            layout_free(b.reps[i][k].layout);
    free(b.shapes);
    free(b.reps);
    free(b.n_reps);
    free(b.last_use);
    if (!rc)
        return &p->base;
    cpu_plan_free(p ? &p->base : NULL);
    return NULL;
}

void cpu_plan_free(struct plan *plan)
{
    struct cpu_plan *p = (struct cpu_plan *)plan;

    if (!p)
        return;
    for (int i = 0; i < p->n_steps; i++) {
        kernel_free(p->steps[i].kernel);
        free(p->steps[i].refs);
        free(p->steps[i].at);
        free(p->steps[i].shapes);
    }
    free(p->steps);
    free(p->slots);
    free(p->arena);
    onednn_close(p->dn);
    free(p);
}
