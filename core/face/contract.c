/* core/face/contract.c - a model's contract to text and back: the "facenetd."
 * keys of an ONNX file's metadata, and the same words on command lines.
 * Called by model.c; every value comes from outside and is checked. */
#include "core/face/model_priv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MIN_CROP_SIZE = 16,
    MAX_CROP_SIZE = 2048
};

static const char *const kinds[] = {"embedder", "mtcnn-pnet", "mtcnn-rnet",
                                    "mtcnn-onet"};

/* A finite number at *s, with *s moved behind it. */
static bool number(const char **s, double *out)
{
    char *end;

    *out = strtod(*s, &end);
    if (end == *s || !isfinite(*out))
        return false;
    *s = end;
    return true;
}

static bool whole(const char **s, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(*s, &end, 10);
    if (end == *s || errno)
        return false;
    *s = end;
    return true;
}

/* --- crop and scale
 * ----------------------------------------------------------- */

int contract_parse_crop(struct contract *c, const char *text, struct error *err)
{
    int64_t margin, size;
    const char *s = text + strlen("box-margin:");

    c->crop_margin = c->crop_size = 0;
    if (!strcmp(text, "none")) {
        c->crop = CROP_NONE;
        return 0;
    }
    if (!strcmp(text, "arcface-112")) {
        c->crop = CROP_ARCFACE;
        return 0;
    }
    if (strncmp(text, "box-margin:", strlen("box-margin:")) != 0)
        return error_set(err, ERR_MODEL,
                         "\"%.40s\" is no crop kind: none, arcface-112, "
                         "box-margin:MARGIN,SIZE",
                         text);
    if (!whole(&s, &margin) || *s++ != ',' || !whole(&s, &size) || *s ||
        size < MIN_CROP_SIZE || size > MAX_CROP_SIZE || margin < 0 ||
        margin >= size)
        return error_set(err, ERR_MODEL,
                         "\"%.40s\": want box-margin:MARGIN,SIZE with a size "
                         "of %d to %d and a smaller margin",
                         text, MIN_CROP_SIZE, MAX_CROP_SIZE);
    c->crop = CROP_BOX_MARGIN;
    c->crop_margin = (int)margin;
    c->crop_size = (int)size;
    return 0;
}

const char *contract_crop_text(const struct contract *c, char *buf, size_t len)
{
    if (c->crop == CROP_BOX_MARGIN)
        snprintf(buf, len, "box-margin:%d,%d", c->crop_margin, c->crop_size);
    else
        snprintf(buf, len, "%s", c->crop == CROP_NONE ? "none" : "arcface-112");
    return buf;
}

int contract_parse_scale(struct contract *c, const char *text,
                         struct error *err)
{
    const char *s = text + strlen("fixed:");
    double v[6];
    int n = 0;

    for (int i = 0; i < 3; i++) {
        c->a[i] = 0.0f;
        c->b[i] = 1.0f;
    }
    if (!strcmp(text, "none") || !strcmp(text, "per-image")) {
        c->scale = *text == 'n' ? SCALE_NONE : SCALE_STANDARD;
        return 0;
    }
    if (strncmp(text, "fixed:", strlen("fixed:")) != 0)
        return error_set(err, ERR_MODEL,
                         "\"%.40s\" is no scaling: none, per-image, fixed:A,B "
                         "for (x-A)/B, or fixed:A,A,A,B,B,B by channel",
                         text);
    while (n < 6 && number(&s, &v[n])) {
        n++;
        if (*s != ',')
            break;
        s++;
    }
    if ((n != 2 && n != 6) || *s || s[-1] == ',')
        return error_set(err, ERR_MODEL,
                         "\"%.60s\": want fixed: and two or six numbers", text);
    c->scale = SCALE_FIXED;
    for (int i = 0; i < 3; i++) {
        c->a[i] = (float)v[n == 2 ? 0 : i];
        c->b[i] = (float)v[n == 2 ? 1 : 3 + i];
        if (!(fabsf(c->b[i]) >= 1e-6f && fabsf(c->b[i]) <= 1e6f) ||
            fabsf(c->a[i]) > 1e6f)
            return error_set(err, ERR_MODEL,
                             "\"%.60s\": a number is out of range", text);
    }
    return 0;
}

const char *contract_scale_text(const struct contract *c, char *buf, size_t len)
{
    const float *a = c->a, *b = c->b;

    if (c->scale != SCALE_FIXED)
        snprintf(buf, len, "%s", c->scale == SCALE_NONE ? "none" : "per-image");
    else if (a[0] == a[1] && a[1] == a[2] && b[0] == b[1] && b[1] == b[2])
        snprintf(buf, len, "fixed:%.9g,%.9g", (double)a[0], (double)b[0]);
    else
        snprintf(buf, len, "fixed:%.9g,%.9g,%.9g,%.9g,%.9g,%.9g", (double)a[0],
                 (double)a[1], (double)a[2], (double)b[0], (double)b[1],
                 (double)b[2]);
    return buf;
}

/* --- reading: one function for each key
 * --------------------------------------- */

/* What a key's function says when its value is wrong. */
static int wrong(struct error *err, const char *key, const char *value,
                 const char *want)
{
    return error_set(err, ERR_MODEL, "facenetd.%s = \"%.40s\": want %s", key,
                     value, want);
}

static int read_version(struct contract *c, const char *v, struct error *err)
{
    (void)c;
    return !strcmp(v, "1") ? 0
                           : wrong(err, "version", v,
                                   "1; a newer facenetd wrote this file");
}

static int read_kind(struct contract *c, const char *v, struct error *err)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(v, kinds[i]) != 0)
            continue;
        c->kind = (enum model_kind)i;
        return 0;
    }
    return wrong(err, "kind", v,
                 "embedder, mtcnn-pnet, mtcnn-rnet or mtcnn-onet");
}

static int read_crop(struct contract *c, const char *v, struct error *err)
{
    return contract_parse_crop(c, v, err) ? error_context(err, "facenetd.crop")
                                          : 0;
}

static int read_scale(struct contract *c, const char *v, struct error *err)
{
    return contract_parse_scale(c, v, err)
               ? error_context(err, "facenetd.scale")
               : 0;
}

static int read_channels(struct contract *c, const char *v, struct error *err)
{
    c->bgr = !strcmp(v, "bgr");
    return c->bgr || !strcmp(v, "rgb")
               ? 0
               : wrong(err, "channels", v, "rgb or bgr");
}

static int read_dim(struct contract *c, const char *v, struct error *err)
{
    const char *s = v;
    int64_t dim;

    if (!whole(&s, &dim) || *s || dim < 0 || dim > MODEL_MAX_DIM)
        return wrong(err, "dim", v, "a whole number up to 4096");
    c->dim = (int)dim;
    return 0;
}

static int read_normalised(struct contract *c, const char *v, struct error *err)
{
    c->normalised = !strcmp(v, "1");
    return c->normalised || !strcmp(v, "0")
               ? 0
               : wrong(err, "normalised", v, "0 or 1");
}

static int read_text(char out[256], const char *key, const char *v,
                     struct error *err)
{
    for (const char *s = v; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return wrong(err, key, "…", "text of one line");
    if (strlen(v) > 255)
        return wrong(err, key, v, "at most 255 bytes");
    snprintf(out, 256, "%s", v);
    return 0;
}

static int read_licence(struct contract *c, const char *v, struct error *err)
{
    return read_text(c->licence, "licence", v, err);
}

static int read_source(struct contract *c, const char *v, struct error *err)
{
    return read_text(c->source, "source", v, err);
}

/* A model's id, or nothing. out: 65 bytes. */
static int read_id(char *out, const char *key, const char *v, struct error *err)
{
    if (*v && (strlen(v) != 64 || strspn(v, "0123456789abcdef") != 64))
        return wrong(err, key, v, "64 hexadecimal digits");
    snprintf(out, 65, "%s", v);
    return 0;
}

static int read_parent(struct contract *c, const char *v, struct error *err)
{
    return read_id(c->parent, "parent", v, err);
}

static int read_compatible(struct contract *c, const char *v, struct error *err)
{
    return read_id(c->compatible, "compatible", v, err);
}

static int read_golden(struct contract *c, const char *v, struct error *err)
{
    const char *s = v;
    double d;
    int n = 0;

    free(c->golden);
    c->n_golden = 0;
    c->golden = malloc(MODEL_MAX_GOLDEN * sizeof(*c->golden));
    if (!c->golden)
        return error_set(err, ERR_NOMEM, "no memory for a golden pair");
    while (n < MODEL_MAX_GOLDEN && number(&s, &d)) {
        c->golden[n] = (float)d;
        if (!isfinite(c->golden[n]) || (*s && *s != ' '))
            break;
        n++;
    }
    if (!n || *s)
        return wrong(err, "golden", v, "finite numbers with blanks between");
    c->n_golden = n;
    return 0;
}

static const struct {
    const char *name;
    bool required;
    int (*read)(struct contract *c, const char *value, struct error *err);
} keys[] = {
    {"version", true, read_version},
    {"kind", true, read_kind},
    {"crop", true, read_crop},
    {"scale", true, read_scale},
    {"channels", true, read_channels},
    {"dim", true, read_dim},
    {"normalised", true, read_normalised},
    {"licence", false, read_licence},
    {"source", false, read_source},
    {"parent", false, read_parent},
    {"compatible", false, read_compatible},
    {"golden", true, read_golden},
};

static int read_threshold(struct contract *c, const char *key, const char *v,
                          struct error *err)
{
    struct model_threshold t;
    const char *s = v;

    if (!number(&s, &t.far) || !number(&s, &t.threshold) ||
        !whole(&s, &t.n_impostor) || !whole(&s, &t.n_accepted) || *s ||
        !(t.far > 0 && t.far < 1) || !(t.threshold >= 0 && t.threshold <= 4) ||
        t.n_impostor < 1 || t.n_accepted < 0 || t.n_accepted > t.n_impostor)
        return wrong(err, key, v,
                     "a false-accept rate, a threshold of 0 to 4, pairs and "
                     "accepted pairs");
    for (int i = 0; i < c->n_thresholds; i++)
        if (c->thresholds[i].far == t.far)
            return wrong(err, key, v, "every false-accept rate once");
    c->thresholds[c->n_thresholds++] = t;
    return 0;
}

int contract_read_thresholds(struct contract *c,
                             const struct onnx_metadata *meta,
                             struct error *err)
{
    char key[64];

    for (int i = 0; i < MODEL_MAX_THRESHOLDS; i++) {
        snprintf(key, sizeof(key), CONTRACT_THRESHOLD "%d", i);
        const char *value = onnx_metadata_get(meta, key);
        if (value && read_threshold(c, key + strlen("facenetd."), value, err))
            return -1;
    }
    return 0;
}

int contract_read(struct contract *c, const struct onnx_metadata *meta,
                  struct error *err)
{
    char key[64];

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        snprintf(key, sizeof(key), "facenetd.%s", keys[i].name);
        const char *value = onnx_metadata_get(meta, key);
        if (!value && keys[i].required)
            return error_set(err, ERR_MODEL, "%s is missing", key);
        if (value && keys[i].read(c, value, err))
            return -1;
    }
    return contract_read_thresholds(c, meta, err);
}

/* --- does the network fit?
 * ---------------------------------------------------------- */

static int check_embedder(const struct contract *c, const struct graph *g,
                          const struct shape *out, struct error *err)
{
    bool flat =
        out->rank == 2 || (out->rank == 4 && out->d[2] == 1 && out->d[3] == 1);

    if (g->n_outputs != 1)
        return error_set(err, ERR_MODEL,
                         "facenetd.kind: an embedder has one output, this "
                         "network %d",
                         g->n_outputs);
    if (!flat || c->dim < 1 || out->d[1] != c->dim)
        return error_set(err, ERR_MODEL,
                         "facenetd.dim = %d: the network's output has %d "
                         "numbers",
                         c->dim, flat ? out->d[1] : 0);
    if (!c->width || !c->height)
        return error_set(err, ERR_MODEL,
                         "facenetd.kind: an embedder's input size must be "
                         "fixed");
    if (c->crop == CROP_NONE)
        return error_set(err, ERR_MODEL,
                         "facenetd.crop = none: an embedder needs a crop");
    if (c->crop == CROP_ARCFACE && c->width != c->height)
        return error_set(err, ERR_MODEL,
                         "facenetd.crop = arcface-112: the input must be "
                         "square, not %dx%d",
                         c->width, c->height);
    if (c->crop == CROP_BOX_MARGIN &&
        (c->width > c->crop_size || c->height > c->crop_size))
        return error_set(err, ERR_MODEL,
                         "facenetd.crop: a crop of %d pixels for an input of "
                         "%dx%d",
                         c->crop_size, c->width, c->height);
    return 0;
}

/* Outputs in this order: two scores, four box offsets, ten coordinates. */
static int check_detector(const struct contract *c, const struct graph *g,
                          const struct shape *shapes, struct error *err)
{
    static const struct {
        int side, n_outputs;
    } nets[] = {
        [MODEL_PNET] = {0, 2}, [MODEL_RNET] = {24, 2}, [MODEL_ONET] = {48, 3}};
    static const int sizes[] = {2, 4, 10};

    if (c->crop != CROP_NONE || c->dim)
        return error_set(err, ERR_MODEL, "facenetd.%s: a detector has none",
                         c->dim ? "dim" : "crop");
    if (c->width != nets[c->kind].side || c->height != nets[c->kind].side)
        return error_set(err, ERR_MODEL,
                         "facenetd.kind = %s: its input is %dx%d, this "
                         "network's %dx%d (0 is free)",
                         kinds[c->kind], nets[c->kind].side, nets[c->kind].side,
                         c->width, c->height);
    if (g->n_outputs != nets[c->kind].n_outputs)
        return error_set(err, ERR_MODEL,
                         "facenetd.kind = %s: it has %d outputs, this network "
                         "%d",
                         kinds[c->kind], nets[c->kind].n_outputs, g->n_outputs);
    for (int i = 0; i < g->n_outputs; i++) {
        const struct shape *s = &shapes[g->outputs[i]];
        if (s->rank < 2 || s->d[1] != sizes[i] ||
            s->rank != (c->kind == MODEL_PNET ? 4 : 2))
            return error_set(err, ERR_MODEL,
                             "facenetd.kind = %s: output %d does not have %d "
                             "numbers",
                             kinds[c->kind], i, sizes[i]);
    }
    return 0;
}

int contract_check(struct contract *c, const struct graph *g, struct error *err)
{
    struct shape *shapes = calloc((size_t)g->n_values + 1, sizeof(*shapes));
    int bad = -1;

    if (!shapes)
        return error_set(err, ERR_NOMEM, "no memory for shapes");
    if (!graph_shapes(g, 1, 48, 48, shapes, err)) {
        const struct shape *in = &g->values[g->input].shape;
        c->height = in->d[2];
        c->width = in->d[3];
        if (in->d[1] != 3)
            error_set(err, ERR_MODEL,
                      "the network's input has %d channels, not 3", in->d[1]);
        else if (c->kind == MODEL_EMBEDDER)
            bad = check_embedder(c, g, &shapes[g->outputs[0]], err);
        else
            bad = check_detector(c, g, shapes, err);
    }
    free(shapes);
    return bad;
}

/* --- writing
 * ---------------------------------------------------------------------------
 */

static int put(struct onnx_metadata *meta, const char *name, const char *value,
               struct error *err)
{
    char key[64];

    snprintf(key, sizeof(key), "facenetd.%s", name);
    return onnx_metadata_set(meta, key, value, err);
}

static int put_golden(const struct contract *c, struct onnx_metadata *meta,
                      struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    int bad;

    if (!f)
        return error_set(err, ERR_NOMEM, "no memory for a golden pair");
    for (int i = 0; i < c->n_golden; i++)
        fprintf(f, i ? " %.9g" : "%.9g", (double)c->golden[i]);
    bad = fclose(f) ? error_set(err, ERR_NOMEM, "no memory for a golden pair")
                    : put(meta, "golden", text, err);
    free(text);
    return bad;
}

int contract_write_thresholds(const struct contract *c,
                              struct onnx_metadata *meta, struct error *err)
{
    for (int i = 0; i < c->n_thresholds; i++) {
        const struct model_threshold *t = &c->thresholds[i];
        char key[32], value[128];
        snprintf(key, sizeof(key), "threshold.%d", i);
        snprintf(value, sizeof(value), "%.9g %.9g %lld %lld", t->far,
                 t->threshold, (long long)t->n_impostor,
                 (long long)t->n_accepted);
        if (put(meta, key, value, err))
            return -1;
    }
    return 0;
}

int contract_write(const struct contract *c, struct onnx_metadata *meta,
                   struct error *err)
{
    char crop[64], scale[160], dim[16];

    snprintf(dim, sizeof(dim), "%d", c->dim);
    if (put(meta, "version", "1", err) ||
        put(meta, "kind", kinds[c->kind], err) ||
        put(meta, "crop", contract_crop_text(c, crop, sizeof(crop)), err) ||
        put(meta, "scale", contract_scale_text(c, scale, sizeof(scale)), err) ||
        put(meta, "channels", c->bgr ? "bgr" : "rgb", err) ||
        put(meta, "dim", dim, err) ||
        put(meta, "normalised", c->normalised ? "1" : "0", err) ||
        put(meta, "licence", *c->licence ? c->licence : NULL, err) ||
        put(meta, "source", *c->source ? c->source : NULL, err) ||
        put(meta, "parent", *c->parent ? c->parent : NULL, err) ||
        put(meta, "compatible", *c->compatible ? c->compatible : NULL, err))
        return -1;
    if (contract_write_thresholds(c, meta, err))
        return -1;
    return put_golden(c, meta, err);
}
