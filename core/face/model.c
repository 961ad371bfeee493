/* core/face/model.c - an ONNX file with its contract: loading with the golden
 * check, saving. The contract's text is read and written in contract.c.
 * Between the engine, which knows numbers, and align, detect and embed, which
 * know faces. */
#include "core/face/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/crypto.h"
#include "core/face/distance.h"
#include "core/face/model_priv.h"

enum {
    GOLDEN_SIDE = 48
}; /* where the input's size is free */

/* --- the golden pair ------------------------------------------------------ */

/* Pixels 127.5 * (1 + u("golden")), RGB planes, as the contract scales them;
 * out [3,h,w]. */
static void golden_input(const struct contract *c, int h, int w, float *out)
{
    size_t plane = (size_t)h * (size_t)w, n = 3 * plane;
    double sum = 0, squares = 0, mean, std, least = 1 / sqrt((double)n);

    tensor_formula("golden", out, n);
    for (size_t i = 0; i < plane && c->bgr; i++) {
        float red = out[i];
        out[i] = out[2 * plane + i];
        out[2 * plane + i] = red;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = 127.5f * (1.0f + out[i]);
        if (c->scale == SCALE_FIXED)
            out[i] = (out[i] - c->a[i / plane]) / c->b[i / plane];
        sum += (double)out[i];
    }
    if (c->scale != SCALE_STANDARD)
        return;
    mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)out[i] - mean) * ((double)out[i] - mean);
    std = sqrt(squares / (double)n);
    std = std > least ? std : least;
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(((double)out[i] - mean) / std);
}

/* Outputs one after another, of a detector's no more than GOLDEN_PART each. */
static float *collect(const struct plan *p, const struct contract *c, int *n,
                      struct error *err)
{
    size_t total = 0, part[PLAN_MAX_OUTPUTS];
    float *out;

    for (int i = 0; i < p->n_outputs; i++) {
        part[i] = shape_count(plan_output_shape(p, i));
        if (c->kind != MODEL_EMBEDDER && part[i] > GOLDEN_PART)
            part[i] = GOLDEN_PART;
        total += part[i];
    }
    if (total > MODEL_MAX_GOLDEN)
        return error_null(err, ERR_MODEL, "its outputs are too large");
    out = malloc((total + 1) * sizeof(*out));
    if (!out)
        return error_null(err, ERR_NOMEM, "no memory for a golden pair");
    *n = 0;
    for (int i = 0; i < p->n_outputs; i++) {
        memcpy(out + *n, plan_output(p, i), part[i] * sizeof(*out));
        *n += (int)part[i];
    }
    for (int i = 0; i < *n; i++) {
        if (isfinite(out[i]))
            continue;
        free(out);
        return error_null(err, ERR_MODEL,
                          "it gives numbers that are not finite");
    }
    return out;
}

static float *golden_run(struct network *net, const struct contract *c,
                         enum precision precision, int *n, struct error *err)
{
    int h = c->height ? c->height : GOLDEN_SIDE;
    int w = c->width ? c->width : GOLDEN_SIDE;
    struct plan_options opt = {.n = 1, .h = h, .w = w, .precision = precision};
    struct plan *p = graph_plan(net, &opt, err);
    float *out = NULL;

    if (!p)
        return NULL;
    golden_input(c, h, w, plan_input(p));
    if (!graph_forward(p, err))
        out = collect(p, c, n, err);
    plan_free(p);
    return out;
}

/* Squared distance of got to want, both scaled to want's length. */
static double deviation(const float *want, const float *got, int n,
                        bool unit_vectors)
{
    double a = 0, b = 0, sum = 0;

    for (int i = 0; i < n; i++) {
        a += (double)want[i] * (double)want[i];
        b += (double)got[i] * (double)got[i];
    }
    a = sqrt(a);
    b = unit_vectors ? sqrt(b) : a;
    for (int i = 0; i < n && a > 0 && b > 0; i++) {
        double d = (double)want[i] / a - (double)got[i] / b;
        sum += d * d;
    }
    return a > 0 && b > 0 ? sum : INFINITY;
}

/* Number by number: embeddings as unit vectors to 1e-4, all else to 1e-3. */
static bool golden_equal(const struct contract *c, const float *want,
                         const float *got)
{
    bool embedder = c->kind == MODEL_EMBEDDER;
    double a = 0, b = 0;

    for (int i = 0; i < c->n_golden; i++) {
        a += (double)want[i] * (double)want[i];
        b += (double)got[i] * (double)got[i];
    }
    if (!(a > 0 && b > 0))
        return false;
    a = embedder ? sqrt(a) : 1;
    b = embedder ? sqrt(b) : 1;
    for (int i = 0; i < c->n_golden; i++) {
        double x = (double)want[i] / a, y = (double)got[i] / b;
        double limit = embedder ? 1e-4 : 1e-3 * fmax(1, fabs(x));
        if (!(fabs(x - y) <= limit))
            return false;
    }
    return true;
}

static int golden_check(const struct model *m, struct device *dev,
                        bool *bf16_ok, struct error *err)
{
    const struct contract *c = &m->contract;
    struct network *net = network_new(dev, m->graph, err);
    struct device_info info;
    float *got = NULL;
    int n = 0, bad = -1;

    if (!net)
        return -1;
    got = golden_run(net, c, PRECISION_F32, &n, err);
    if (!got)
        goto out;
    if (n != c->n_golden || !golden_equal(c, c->golden, got)) {
        error_set(err, ERR_MODEL,
                  "facenetd.golden: the network does not give the numbers "
                  "that the file promises");
        goto out;
    }
    bad = 0;
    if (!bf16_ok)
        goto out;
    *bf16_ok = false;
    dev->backend->device_describe(dev, &info);
    if (!info.any_bf16)
        goto out;
    free(got);
    /* a failure here is an answer, too: not in bf16 */
    got = golden_run(net, c, PRECISION_BF16, &n, NULL);
    *bf16_ok = got && n == c->n_golden &&
               deviation(c->golden, got, n, c->kind == MODEL_EMBEDDER) <= 1e-3;
out:
    free(got);
    network_free(net);
    return bad;
}

float *model_golden(const struct model *m, float *row, struct error *err)
{
    const struct contract *c = &m->contract;
    size_t n = 3 * (size_t)c->width * (size_t)c->height;
    float *chip;

    if (c->kind != MODEL_EMBEDDER || n == 0 || c->n_golden != c->dim)
        return error_null(err, ERR_MODEL, "%s: has no golden pair", m->name);
    chip = tensor_alloc(n);
    if (!chip)
        return error_null(err, ERR_NOMEM, "no memory for a golden pair");
    golden_input(c, c->height, c->width, chip);
    memcpy(row, c->golden, (size_t)c->dim * sizeof(*row));
    distance_normalise(row, (size_t)c->dim);
    return chip;
}

/* --- loading ----------------------------------------------------------------
 */

static int name_model(struct model *m, const char *path, struct error *err)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strlen(base);

    if (len > 5 && !strcmp(base + len - 5, ".onnx"))
        len -= 5;
    if (len >= sizeof(m->name))
        return error_set(err, ERR_MODEL,
                         "the file's name is longer than %zu bytes",
                         sizeof(m->name) - 1);
    memcpy(m->name, base, len);
    return 0;
}

struct model *model_load(const char *path, struct device *dev, bool *bf16_ok,
                         struct error *err)
{
    struct onnx_metadata meta = {0};
    struct model *m = calloc(1, sizeof(*m));
    uint8_t digest[CRYPTO_SHA256_LEN];
    int bad = -1;

    if (bf16_ok)
        *bf16_ok = false;
    if (!m)
        return error_null(err, ERR_NOMEM, "no memory for a model");
    m->graph = onnx_load_digest(path, CONTRACT_THRESHOLD, digest, &meta, err);
    if (!m->graph)
        goto out;
    crypto_hex(digest, sizeof(digest), m->id);
    bad = name_model(m, path, err);
    if (!bad && !onnx_metadata_get(&meta, "facenetd.version"))
        bad = error_set(err, ERR_NO_CONTRACT,
                        "%s.onnx has no facenetd contract; write one with: "
                        "facenetctl model import %s.onnx --crop … --scale … "
                        "-o …",
                        m->name, m->name);
    else if (!bad)
        bad = contract_read(&m->contract, &meta, err) ||
              contract_check(&m->contract, m->graph, err) ||
              (dev && golden_check(m, dev, bf16_ok, err));
    if (bad && err && err->code != ERR_NO_CONTRACT && err->code != ERR_FILE)
        error_context(err, "%.100s", path);
out:
    onnx_metadata_fini(&meta);
    if (bad) {
        model_free(m);
        return NULL;
    }
    return m;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    graph_free(m->graph);
    free(m->contract.golden);
    free(m);
}

const struct model_threshold *model_threshold(const struct model_threshold *t,
                                              int n, double far)
{
    const struct model_threshold *best = NULL;

    for (int i = 0; i < n; i++)
        if (t[i].far <= far * (1 + 1e-9) && (!best || t[i].far > best->far))
            best = &t[i];
    return best;
}

/* --- saving
 * -------------------------------------------------------------------- */

int model_save(const struct graph *g, const struct contract *c,
               const struct onnx_metadata *keep, struct device *dev,
               const char *path, struct error *err)
{
    struct contract full = *c, read_back = {0};
    struct onnx_metadata meta = {0};
    struct network *net = NULL;
    int bad = -1;

    full.golden = NULL;
    full.n_golden = 0;
    full.height = g->input < 0 ? 0 : g->values[g->input].shape.d[2];
    full.width = g->input < 0 ? 0 : g->values[g->input].shape.d[3];
    if (contract_check(&full, g, err))
        goto out;
    net = network_new(dev, g, err);
    if (!net)
        goto out;
    full.golden = golden_run(net, &full, PRECISION_F32, &full.n_golden, err);
    if (!full.golden)
        goto out;
    for (int i = 0; keep && i < keep->n; i++)
        if (strncmp(keep->keys[i], "facenetd.", 9) != 0 &&
            onnx_metadata_set(&meta, keep->keys[i], keep->values[i], err))
            goto out;
    /* what would not be accepted at load is not written */
    if (!contract_write(&full, &meta, err) &&
        !contract_read(&read_back, &meta, err))
        bad = onnx_save(g, &meta, path, err);
out:
    network_free(net);
    free(read_back.golden);
    free(full.golden);
    onnx_metadata_fini(&meta);
    return bad;
}

int model_write_thresholds(const char *path, const struct model_threshold *t,
                           int n, struct error *err)
{
    struct contract c = {.n_thresholds = n}, read_back = {0};
    struct onnx_metadata meta = {0};
    struct model *m;
    int bad = -1;

    if (n < 0 || n > MODEL_MAX_THRESHOLDS)
        return error_set(err, ERR_MODEL, "%d thresholds: 0 to %d are possible",
                         n, MODEL_MAX_THRESHOLDS);
    for (int i = 0; i < n; i++)
        c.thresholds[i] = t[i];
    m = model_load(path, NULL, NULL, err); /* a contract is there */
    if (m && !contract_write_thresholds(&c, &meta, err) &&
        !contract_read_thresholds(&read_back, &meta, err))
        bad = onnx_replace_metadata(path, CONTRACT_THRESHOLD, &meta, err);
    model_free(m);
    onnx_metadata_fini(&meta);
    return bad;
}
