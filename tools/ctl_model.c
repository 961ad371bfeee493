/* tools/ctl_model.c - facenetctl model: writes a contract into a foreign ONNX
 * file, builds networks with random weights, and looks at model files. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arch/arch.h"
#include "core/face/model.h"
#include "tools/ctl.h"
#include "tools/ctl_model.h"

static const char import_help[] =
    "usage: facenetctl model import SRC.onnx -o DST.onnx --crop KIND "
    "--scale KIND\n"
    "Writes the contract that facenetd needs into a copy of a model.\n"
    "  -o, --output FILE  the copy\n"
    "  --kind KIND        embedder (default), mtcnn-pnet, mtcnn-rnet, "
    "mtcnn-onet\n"
    "  --crop KIND        arcface-112, box-margin:MARGIN,SIZE, or none\n"
    "  --scale KIND       none, per-image, fixed:A,B or "
    "fixed:A,A,A,B,B,B for (x-A)/B\n"
    "  --channels ORDER   rgb (default) or bgr\n"
    "  --normalised       the output already has length 1\n"
    "  --licence TEXT     licence of the weights\n"
    "  --source TEXT      where they come from\n"
    "  --threshold FAR:T:PAIRS:ACCEPTS\n"
    "                     a threshold, the false-accept rate that it was\n"
    "                     measured at, on how many pairs, how many accepted\n"
    "                     (facenetctl evaluate prints them); up to 8 times\n";

static const char new_help[] =
    "usage: facenetctl model new --arch NAME -o DST.onnx\n"
    "Builds a network with random weights.\n"
    "  -o, --output FILE       the file to write\n"
    "  --arch NAME             one of those below\n"
    "  --embedding-size N      numbers of an embedding\n"
    "  --seed N                of the weights (1)\n"
    "  --normalised            end in a layer that gives length 1\n";

/* --- import ----------------------------------------------------------- */

int ctl_model_kind(const char *text, enum model_kind *kind)
{
    static const char *const names[] = {"embedder", "mtcnn-pnet", "mtcnn-rnet",
                                        "mtcnn-onet"};

    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *kind = (enum model_kind)i;
            return 0;
        }
    }
    return -1;
}

/* "1e-3:1.45:3000:3" */
static int parse_threshold(const char *text, struct contract *c)
{
    struct model_threshold t;
    int end = 0;

    if (c->n_thresholds == MODEL_MAX_THRESHOLDS)
        return ctl_fail("at most %d thresholds", MODEL_MAX_THRESHOLDS);
    if (sscanf(text, "%lf:%lf:%" SCNd64 ":%" SCNd64 "%n", &t.far, &t.threshold,
               &t.n_impostor, &t.n_accepted, &end) != 4 ||
        text[end] || !(t.far > 0 && t.far < 1) ||
        !(t.threshold > 0 && t.threshold <= 4) || t.n_impostor < 1 ||
        t.n_accepted < 0 || t.n_accepted > t.n_impostor)
        return ctl_fail("--threshold '%s' is not FAR:T:PAIRS:ACCEPTS, as "
                        "1e-3:1.45:3000:3",
                        text);
    c->thresholds[c->n_thresholds++] = t;
    return -1;
}

static int copy_text(const char *option, const char *text, char *out,
                     size_t len_out)
{
    if (strlen(text) >= len_out)
        return ctl_fail("--%s: at most %zu bytes", option, len_out - 1);
    strcpy(out, text);
    return -1;
}

struct import {
    struct contract contract;
    const char *output;
    bool have_crop, have_scale, help;
};

/* One option into the contract; -1 to go on, else an exit code. */
static int import_option(struct import *im, int opt, const char *arg)
{
    struct contract *c = &im->contract;
    struct error err = {0};

    switch (opt) {
    case 'o':
        im->output = arg;
        return -1;
    case 'h':
        im->help = true;
        return -1;
    case 'n':
        c->normalised = true;
        return -1;
    case 'k':
        return ctl_model_kind(arg, &c->kind) < 0
                   ? ctl_fail("--kind '%s' is not known; see model import "
                              "--help",
                              arg)
                   : -1;
    case 'c':
        im->have_crop = true;
        return contract_parse_crop(c, arg, &err) < 0 ? ctl_fail_error(&err)
                                                     : -1;
    case 's':
        im->have_scale = true;
        return contract_parse_scale(c, arg, &err) < 0 ? ctl_fail_error(&err)
                                                      : -1;
    case 'b':
        if (strcmp(arg, "rgb") != 0 && strcmp(arg, "bgr") != 0)
            return ctl_fail("--channels must be rgb or bgr, not '%s'", arg);
        c->bgr = *arg == 'b';
        return -1;
    case 'l':
        return copy_text("licence", arg, c->licence, sizeof(c->licence));
    case 'u':
        return copy_text("source", arg, c->source, sizeof(c->source));
    case 't':
        return parse_threshold(arg, c);
    default:
        return CTL_ERROR;
    }
}

/* Input size and embedding size, as the graph has them. */
static int fill_sizes(const struct graph *g, struct contract *c,
                      struct error *err)
{
    const struct shape *in = &g->values[g->input].shape;
    struct shape *shapes = calloc((size_t)g->n_values, sizeof(*shapes));
    const struct shape *out;
    int rc = -1;

    if (!shapes)
        return error_set(err, ERR_NOMEM, "no memory");
    c->height = in->d[2];
    c->width = in->d[3];
    c->dim = 0;
    if (graph_shapes(g, 1, c->height ? c->height : 24, c->width ? c->width : 24,
                     shapes, err) < 0)
        goto out;
    out = &shapes[g->outputs[0]];
    if (c->kind == MODEL_EMBEDDER) {
        if (g->n_outputs != 1 || out->rank < 2 ||
            shape_count(out) > MODEL_MAX_DIM || !c->width) {
            error_set(err, ERR_MODEL,
                      "an embedder needs an input of fixed size and one "
                      "output of at most %d numbers",
                      MODEL_MAX_DIM);
            goto out;
        }
        c->dim = (int)shape_count(out);
    }
    rc = 0;
out:
    free(shapes);
    return rc;
}

/* Write the file and load it as the daemon would. Returns an exit code. */
static int save_and_check(const struct graph *g, const struct contract *c,
                          const struct onnx_metadata *keep, const char *path)
{
    struct device_options opt = {.n_threads = 0};
    struct error err = {0};
    struct device *dev = backend_cpu.device_open(&opt, &err);
    struct model *m = NULL;
    bool bf16 = false;

    if (dev && model_save(g, c, keep, dev, path, &err) == 0)
        m = model_load(path, dev, &bf16, &err);
    if (m)
        printf("%s: id %.16s, input %dx%d, embedding size %d, bf16 %s\n", path,
               m->id, m->contract.width, m->contract.height, m->contract.dim,
               bf16 ? "holds" : "does not hold");
    model_free(m);
    if (dev)
        backend_cpu.device_close(dev);
    return m ? CTL_OK : ctl_fail_error(&err);
}

static int model_import(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"kind", required_argument, NULL, 'k'},
        {"crop", required_argument, NULL, 'c'},
        {"scale", required_argument, NULL, 's'},
        {"channels", required_argument, NULL, 'b'},
        {"licence", required_argument, NULL, 'l'},
        {"source", required_argument, NULL, 'u'},
        {"threshold", required_argument, NULL, 't'},
        {"normalised", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct import im = {.contract = {.kind = MODEL_EMBEDDER}};
    struct onnx_metadata meta = {0};
    struct error err = {0};
    struct graph *g;
    int opt, rc = -1;

    while (rc < 0 &&
           (opt = getopt_long(argc, argv, "o:h", options, NULL)) != -1)
        rc = import_option(&im, opt, optarg);
    if (rc >= 0)
        return rc;
    if (im.help)
        return fputs(import_help, stdout) < 0 ? CTL_ERROR : CTL_OK;
    if (argc - optind != 1 || !im.output)
        return ctl_fail("model import needs one file, and -o; see model import "
                        "--help");
    if (im.contract.kind == MODEL_EMBEDDER &&
        (!im.have_crop || im.contract.crop == CROP_NONE))
        return ctl_fail("an embedder needs --crop arcface-112 or "
                        "box-margin:MARGIN,SIZE: how its faces were cropped");
    if (!im.have_scale)
        return ctl_fail("--scale is needed: how pixels become numbers");
    g = onnx_load(argv[optind], &meta, &err);
    if (!g || fill_sizes(g, &im.contract, &err) < 0)
        rc = ctl_fail("%s: %s", argv[optind], err.text);
    else
        rc = save_and_check(g, &im.contract, &meta, im.output);
    graph_free(g);
    onnx_metadata_fini(&meta);
    return rc;
}

/* --- new -------------------------------------------------------------- */

static void print_arches(void)
{
    puts("\nNetworks:");
    for (const struct arch_info *a = arch_list(); a->name; a++)
        printf("  %-20s %3dx%-3d %4d  %s\n", a->name, a->width, a->height,
               a->embedding_size, a->about);
}

/* The contract that a fresh network of this kind is trained and run with. */
static int contract_of(const struct arch_info *a, struct contract *c,
                       struct error *err)
{
    char crop[64];
    const char *scale = "per-image";

    snprintf(c->licence, sizeof(c->licence), "random weights");
    snprintf(c->source, sizeof(c->source), "facenetctl model new --arch %s",
             a->name);
    if (a->embedding_size == 0) {
        snprintf(crop, sizeof(crop), "%s", a->name);
        for (char *p = crop; *p; p++)
            *p = *p == '_' ? '-' : *p;
        if (ctl_model_kind(crop, &c->kind) < 0)
            return error_set(err, ERR_USAGE, "%s is no detector", a->name);
        snprintf(crop, sizeof(crop), "none");
        scale = "fixed:127.5,128";
    } else if (a->width == 112 && a->height == 112) {
        snprintf(crop, sizeof(crop), "arcface-112");
        scale = "fixed:127.5,128";
    } else {
        /* Margin 44 at 182 around a 160-pixel input, in proportion. */
        int side = a->width > a->height ? a->width : a->height;
        int size = (side * 182 + 80) / 160;
        snprintf(crop, sizeof(crop), "box-margin:%d,%d", (size * 44 + 91) / 182,
                 size);
    }
    if (contract_parse_crop(c, crop, err) < 0)
        return -1;
    return contract_parse_scale(c, scale, err);
}

static bool parse_whole(const char *text, uint64_t max, uint64_t *out)
{
    char *end;

    *out = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && *out <= max;
}

static int build(const char *name, const struct arch_options *opt,
                 const char *output)
{
    const struct arch_info *a = arch_find(name);
    struct contract c = {.kind = MODEL_EMBEDDER, .normalised = opt->normalise};
    struct error err = {0};
    struct graph *g;
    int rc;

    if (!a)
        return ctl_fail("there is no network '%s'; see model new --help",
                        ctl_safe(name));
    if (opt->embedding_size && a->embedding_size == 0)
        return ctl_fail("%s has no embedding", name);
    g = arch_new(name, opt, &err);
    if (!g || contract_of(a, &c, &err) < 0 || fill_sizes(g, &c, &err) < 0)
        rc = ctl_fail("%s: %s", name, err.text);
    else
        rc = save_and_check(g, &c, NULL, output);
    graph_free(g);
    return rc;
}

static int model_new(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"arch", required_argument, NULL, 'a'},
        {"embedding-size", required_argument, NULL, 'e'},
        {"seed", required_argument, NULL, 's'},
        {"normalised", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct arch_options arch = {.seed = 1};
    const char *name = NULL, *output = NULL;
    uint64_t number;
    int opt;

    while ((opt = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (opt) {
        case 'o':
            output = optarg;
            break;
        case 'a':
            name = optarg;
            break;
        case 'n':
            arch.normalise = true;
            break;
        case 'e':
            if (!parse_whole(optarg, MODEL_MAX_DIM, &number) || number < 1)
                return ctl_fail("--embedding-size must be 1..%d",
                                MODEL_MAX_DIM);
            arch.embedding_size = (int)number;
            break;
        case 's':
            if (!parse_whole(optarg, UINT64_MAX, &arch.seed))
                return ctl_fail("--seed must be a whole number");
            break;
        case 'h':
            fputs(new_help, stdout);
            print_arches();
            return CTL_OK;
        default:
            return CTL_ERROR;
        }
    }
    if (argc != optind || !name || !output)
        return ctl_fail("model new needs --arch NAME and -o FILE; see model "
                        "new --help");
    return build(name, &arch, output);
}

int ctl_model(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (strcmp(verb, "import") == 0)
        return model_import(argc - 1, argv + 1);
    if (strcmp(verb, "new") == 0)
        return model_new(argc - 1, argv + 1);
    if (strcmp(verb, "info") == 0)
        return ctl_model_info(argc - 1, argv + 1);
    if (strcmp(verb, "--help") == 0) {
        fputs("usage: facenetctl model import|info|new [OPTION]... ; each "
              "with --help\n",
              stdout);
        return CTL_OK;
    }
    return ctl_fail("model takes import, info or new, not '%s'",
                    ctl_safe(verb));
}
