/* tools/ctl_model_info.c - facenetctl model info: layers, shapes, parameters,
 * multiply-accumulates and contract of a model file, with or without one. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"
#include "tools/ctl_model.h"

static const char help[] =
    "usage: facenetctl model info FILE.onnx [--json] [--check]\n"
    "Prints a model's layers, shapes, parameters, multiply-accumulates and\n"
    "contract.\n"
    "  --json             one JSON object\n"
    "  --check            run the contract's golden input on this machine\n";

struct look {
    struct graph *graph;
    struct model *model; /* NULL: no contract; why says so */
    struct error why;
    struct graph_counts counts;
    int h, w; /* of the input, or what a free one is counted at */
    bool checked, bf16_ok;
};

static void look_fini(struct look *l)
{
    graph_free(l->graph);
    model_free(l->model);
}

static int look_at(struct look *l, const char *path, bool check)
{
    struct device_options opt = {.n_threads = 0};
    struct device *dev = NULL;
    struct error err = {0};
    const struct shape *in;

    l->graph = onnx_load(path, NULL, &err);
    if (!l->graph)
        return ctl_fail("%s: %s", path, err.text);
    in = &l->graph->values[l->graph->input].shape;
    l->h = in->d[2] ? in->d[2] : 12;
    l->w = in->d[3] ? in->d[3] : 12;
    if (graph_count(l->graph, l->h, l->w, &l->counts, &err) < 0)
        return ctl_fail("%s: %s", path, err.text);
    if (check) {
        dev = backend_cpu.device_open(&opt, &err);
        if (!dev)
            return ctl_fail_error(&err);
    }
    l->model = model_load(path, dev, check ? &l->bf16_ok : NULL, &l->why);
    l->checked = check && l->model;
    if (dev)
        backend_cpu.device_close(dev);
    if (!l->model && (check || l->why.code != ERR_NO_CONTRACT))
        return ctl_fail("%s: %s", path, l->why.text);
    return -1;
}

static const char *const kinds[] = {"embedder", "mtcnn-pnet", "mtcnn-rnet",
                                    "mtcnn-onet"};

static void print_contract(const struct look *l)
{
    const struct contract *c = &l->model->contract;
    char buf[128];

    printf("\nid          %s\n", l->model->id);
    printf("kind        %s\n", kinds[c->kind]);
    printf("crop        %s\n", contract_crop_text(c, buf, sizeof(buf)));
    printf("scale       %s\n", contract_scale_text(c, buf, sizeof(buf)));
    printf("channels    %s\n", c->bgr ? "bgr" : "rgb");
    printf("embedding   %d%s\n", c->dim, c->normalised ? ", length 1" : "");
    printf("licence     %s\n", *c->licence ? ctl_safe(c->licence) : "-");
    printf("source      %s\n", *c->source ? ctl_safe(c->source) : "-");
    if (*c->parent)
        printf("parent      %s\n", ctl_safe(c->parent));
    if (*c->compatible)
        printf("compatible  %s\n", ctl_safe(c->compatible));
    for (int i = 0; i < c->n_thresholds; i++)
        printf("threshold   %.4f at FAR %g (%" PRId64 " of %" PRId64
               " impostor pairs accepted)\n",
               c->thresholds[i].threshold, c->thresholds[i].far,
               c->thresholds[i].n_accepted, c->thresholds[i].n_impostor);
    if (l->checked)
        printf("check       golden pair holds in f32, %s in bf16\n",
               l->bf16_ok ? "and" : "not");
}

static int print_text(const struct look *l)
{
    struct error err = {0};
    char *text = graph_text(l->graph, l->h, l->w, &err);

    if (!text)
        return ctl_fail_error(&err);
    fputs(text, stdout);
    free(text);
    printf("\nparameters  %" PRId64 " (and %" PRId64 " running statistics)\n",
           l->counts.n_parameters, l->counts.n_statistics);
    printf("MACs        %" PRId64 " at %dx%d\n", l->counts.macs, l->w, l->h);
    if (l->model)
        print_contract(l);
    else
        printf("contract    none: %s\n", ctl_safe(l->why.text));
    return CTL_OK;
}

static json_t *shape_json(const struct shape *s)
{
    json_t *list = json_array();

    for (int i = 0; i < s->rank; i++)
        json_array_append_new(list, json_integer(s->d[i]));
    return list;
}

/* Shapes of a node's inputs into in[]; returns how many. */
static int gather(const struct node *n, const struct shape *shapes,
                  struct shape in[])
{
    int n_in = n->n_in < GRAPH_MAX_INPUTS ? n->n_in : GRAPH_MAX_INPUTS;

    for (int i = 0; i < n_in; i++)
        in[i] = shapes[n->in[i]];
    return n_in;
}

static json_t *layers_json(const struct look *l, struct error *err)
{
    const struct graph *g = l->graph;
    struct shape *shapes = calloc((size_t)g->n_values, sizeof(*shapes));
    json_t *list = json_array();

    if (!shapes || graph_shapes(g, 1, l->h, l->w, shapes, err) < 0) {
        json_decref(list);
        free(shapes);
        return NULL;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        struct shape in[GRAPH_MAX_INPUTS];
        int n_in = gather(n, shapes, in);
        json_int_t parameters = 0;
        for (int k = 0; k < n->n_in; k++)
            if (g->values[n->in[k]].kind == VALUE_WEIGHT)
                parameters += (json_int_t)shape_count(&shapes[n->in[k]]);
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", n->name, "operator",
                      op_info(n->op.type)->name, "shape",
                      shape_json(&shapes[n->out]), "values", parameters, "macs",
                      (json_int_t)op_macs(&n->op, in, n_in, &shapes[n->out])));
    }
    free(shapes);
    return list;
}

static json_t *contract_json(const struct look *l)
{
    const struct contract *c = &l->model->contract;
    char crop[64], scale[128];
    json_t *thresholds = json_array();

    for (int i = 0; i < c->n_thresholds; i++)
        json_array_append_new(
            thresholds,
            json_pack("{s:f, s:f, s:I, s:I}", "far", c->thresholds[i].far,
                      "threshold", c->thresholds[i].threshold, "pairs",
                      (json_int_t)c->thresholds[i].n_impostor, "accepted",
                      (json_int_t)c->thresholds[i].n_accepted));
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:b, s:s, s:s, s:s, s:s, s:o}",
        "kind", kinds[c->kind], "crop",
        contract_crop_text(c, crop, sizeof(crop)), "scale",
        contract_scale_text(c, scale, sizeof(scale)), "channels",
        c->bgr ? "bgr" : "rgb", "width", c->width, "height", c->height,
        "embedding_size", c->dim, "normalised", c->normalised, "licence",
        c->licence, "source", c->source, "parent", c->parent, "compatible",
        c->compatible, "thresholds", thresholds);
}

static int print_json(const struct look *l)
{
    struct error err = {.text = "no memory"};
    json_t *layers = layers_json(l, &err);
    json_t *o =
        layers
            ? json_pack("{s:o, s:I, s:I, s:I, s:o, s:o}", "layers", layers,
                        "parameters", (json_int_t)l->counts.n_parameters,
                        "statistics", (json_int_t)l->counts.n_statistics,
                        "macs", (json_int_t)l->counts.macs, "id",
                        l->model ? json_string(l->model->id) : json_null(),
                        "contract", l->model ? contract_json(l) : json_null())
            : NULL;
    char *text =
        o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(o);
    if (!text)
        return ctl_fail_error(&err);
    puts(text);
    free(text);
    return CTL_OK;
}

int ctl_model_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"check", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct look l = {0};
    bool json = false, check = false;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (opt == 'j')
            json = true;
        else if (opt == 'c')
            check = true;
        else if (opt == 'h')
            return fputs(help, stdout) < 0 ? CTL_ERROR : CTL_OK;
        else
            return CTL_ERROR;
    }
    if (argc - optind != 1)
        return ctl_fail("model info needs one file");
    rc = look_at(&l, argv[optind], check);
    if (rc < 0)
        rc = json ? print_json(&l) : print_text(&l);
    look_fini(&l);
    return rc;
}
