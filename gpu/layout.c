/* gpu/layout.c - see the header. Joins are gone through from the last to the
 * first, so that what is joined to a part of another lands in the whole. */
#include "gpu/layout.h"
#include "gpu/arith.h"

#include <stdlib.h>

struct find {
    const struct graph *g;
    const struct shape *shapes;
    struct layout *l;
    int *producer; /* by value: node, -1 for input and weights */
    bool *placed;  /* by value: lies in another */
};

static int channels(const struct shape *s)
{
    return s->rank > 1 ? s->d[1] : 1;
}

/* It is computed by a step that can write anywhere. A slice or a reshape is
 * often its input seen otherwise. */
static bool can_be_placed(const struct find *f, int value)
{
    int at = f->producer[value];

    if (at < 0 || f->placed[value])
        return false;
    switch (f->g->nodes[at].op.type) {
    case OP_SLICE:
    case OP_RESHAPE:
    case OP_IDENTITY:
    case OP_DROPOUT:
        return false;
    default:
        return true;
    }
}

static void place_joined(struct find *f, const struct node *n)
{
    const struct home whole = f->l->home[n->out];
    int offset = 0;

    for (int k = 0; k < n->n_in; k++) {
        int c = channels(&f->shapes[n->in[k]]);

        /* What is not a multiple of eight has zeros after it, where only the
         * whole's own zeros may be. */
        if (can_be_placed(f, n->in[k]) && offset % ARITH_LANES == 0 &&
            (c % ARITH_LANES == 0 || k == n->n_in - 1)) {
            f->l->home[n->in[k]] =
                (struct home){whole.owner, whole.offset + offset, whole.pitch};
            f->placed[n->in[k]] = true;
            f->l->n_placed++;
        }
        offset += c;
    }
}

static bool can_be_merged(const struct find *f, const struct node *n)
{
    const struct op_conv *c = &n->op.u.conv;

    if (n->op.type != OP_CONV || c->group != 1 || c->residual ||
        f->placed[n->out] || channels(&f->shapes[n->out]) % ARITH_LANES != 0)
        return false;
    for (int i = 0; i < 2; i++)
        if (c->kernel[i] != 1 || c->stride[i] != 1 || c->pad[i] ||
            c->pad[2 + i])
            return false;
    return true;
}

static bool relu(const struct node *n)
{
    return n->op.u.conv.act == ACT_RELU;
}

/* The convolutions after node `first` that go with it. */
static void merge_from(struct find *f, int first)
{
    const struct graph *g = f->g;
    const struct node *n = &g->nodes[first];
    int member[LAYOUT_MAX_MERGED] = {first}, n_members = 1, pitch = 0;
    int offset = 0;

    for (int i = first + 1; i < g->n_nodes && n_members < LAYOUT_MAX_MERGED;
         i++)
        if (f->l->leader[i] < 0 && can_be_merged(f, &g->nodes[i]) &&
            g->nodes[i].in[0] == n->in[0] && relu(&g->nodes[i]) == relu(n))
            member[n_members++] = i;
    if (n_members == 1)
        return;
    for (int i = 0; i < n_members; i++)
        pitch += channels(&f->shapes[g->nodes[member[i]].out]);
    for (int i = 0; i < n_members; i++) {
        int out = g->nodes[member[i]].out;

        f->l->leader[member[i]] = first;
        f->l->home[out] = (struct home){n->out, offset, pitch};
        f->placed[out] = true;
        offset += channels(&f->shapes[out]);
    }
    f->l->n_merged += n_members;
}

static void find_all(struct find *f, const struct layout_options *opt)
{
    const struct graph *g = f->g;

    for (int v = 0; v < g->n_values; v++) {
        f->l->home[v] =
            (struct home){v, 0, arith_padded(channels(&f->shapes[v]))};
        f->producer[v] = -1;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        f->producer[g->nodes[i].out] = i;
        f->l->leader[i] = -1;
    }
    for (int i = g->n_nodes - 1; opt->slices && i >= 0; i--)
        if (g->nodes[i].op.type == OP_CONCAT && g->nodes[i].op.u.axis.axis == 1)
            place_joined(f, &g->nodes[i]);
    for (int i = 0; opt->merge && i < g->n_nodes; i++)
        if (f->l->leader[i] < 0 && can_be_merged(f, &g->nodes[i]))
            merge_from(f, i);
}

int layout_init(struct layout *l, const struct graph *g,
                const struct shape shapes[], const struct layout_options *opt,
                struct error *err)
{
    struct find f = {.g = g, .shapes = shapes, .l = l};
    size_t n = (size_t)g->n_values + 1;
    bool ok;

    l->n_placed = l->n_merged = 0;
    l->home = calloc(n, sizeof(*l->home));
    l->leader = calloc((size_t)g->n_nodes + 1, sizeof(*l->leader));
    f.producer = calloc(n, sizeof(*f.producer));
    f.placed = calloc(n, sizeof(*f.placed));
    ok = l->home && l->leader && f.producer && f.placed;
    if (ok)
        find_all(&f, opt);
    free(f.producer);
    free(f.placed);
    return ok ? 0 : error_set(err, ERR_NOMEM, "no memory for a plan");
}

void layout_fini(struct layout *l)
{
    free(l->home);
    free(l->leader);
    l->home = NULL;
    l->leader = NULL;
}
