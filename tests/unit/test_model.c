/* tests/unit/test_model.c - contracts: text to fields and back, files that
 * carry one, every key that is wrong, and the golden pair on a real device. */
#include "core/arch/arch.h"
#include "core/face/distance.h"
#include "core/face/model.h"
#include "tests/data.h"

static struct device *device;
static char dir[] = "/tmp/facenetd-model-XXXXXX";

static const char *file(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static struct contract embedder(void)
{
    return (struct contract){
        .kind = MODEL_EMBEDDER,
        .crop = CROP_BOX_MARGIN,
        .crop_margin = 44,
        .crop_size = 182,
        .scale = SCALE_FIXED,
        .a = {127.5f, 127.5f, 127.5f},
        .b = {128, 128, 128},
        .dim = 16,
        .licence = "MIT",
        .source = "made for a test",
        .thresholds = {{1e-3, 1.25, 30000, 30}, {1e-4, 1.05, 30000, 3}},
        .n_thresholds = 2,
        .compatible = "0123456789abcdef0123456789abcdef"
                      "0123456789abcdef0123456789abcdef"};
}

static struct graph *network(const char *name, int dim)
{
    struct arch_options opt = {.embedding_size = dim, .seed = 3};
    struct error err = {0};
    struct graph *g = arch_new(name, &opt, &err);

    if (!g)
        fail_msg("%s", err.text);
    return g;
}

static void save(const struct contract *c, const char *name)
{
    struct graph *g = network(c->kind == MODEL_EMBEDDER ? "nns2"
                              : c->kind == MODEL_PNET   ? "mtcnn_pnet"
                              : c->kind == MODEL_RNET   ? "mtcnn_rnet"
                                                        : "mtcnn_onet",
                              c->dim);
    struct error err = {0};

    if (model_save(g, c, NULL, device, file(name), &err))
        fail_msg("%s", err.text);
    graph_free(g);
}

static void check_words(const char *text, const char *want)
{
    char words[128];

    snprintf(words, sizeof(words), "%s", want);
    for (char *rest = words, *w = strsep(&rest, "|"); w; w = strsep(&rest, "|"))
        if (!strstr(text, w))
            fail_msg("\"%s\" does not say \"%s\"", text, w);
}

/* --- text
 * --------------------------------------------------------------------- */

static void test_crop_text(void **state)
{
    static const char *const good[] = {"none", "arcface-112",
                                       "box-margin:44,182", "box-margin:0,16"};
    static const char *const bad[] = {"",
                                      "arcface",
                                      "arcface-112 ",
                                      "box-margin",
                                      "box-margin",
                                      "box-margin:44",
                                      "box-margin:44,",
                                      "box-margin:44,8",
                                      "box-margin:182,182",
                                      "box-margin:-1,182",
                                      "box-margin:1,182x",
                                      "box-margin:1,99999999999999999999"};
    struct contract c = {0};
    struct error err = {0};
    char buf[64];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(contract_parse_crop(&c, good[i], &err), 0);
        assert_string_equal(contract_crop_text(&c, buf, sizeof(buf)), good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(contract_parse_crop(&c, bad[i], &err), -1);
        check_words(err.text, bad[i]);
    }
}

static void test_scale_text(void **state)
{
    static const char *const good[] = {
        "none",
        "per-image",
        "fixed:127.5,128",
        "fixed:0,1",
        "fixed:-1,-2",
        "fixed:123.675003,116.279999,103.529999,58.3950005,57.1199989,57.375"};
    static const char *const bad[] = {"",
                                      "fixed",
                                      "fixed:",
                                      "fixed:1",
                                      "fixed:1,0",
                                      "fixed:1,2,3",
                                      "fixed:1,2,",
                                      "fixed:1,nan",
                                      "fixed:1,2x",
                                      "fixed:inf,1",
                                      "fixed:1,1e9",
                                      "per-images",
                                      "fixed:1,1,1,1,1,0",
                                      "fixed:1,1,1,1,1,1,1",
                                      "fixed: ,1"};
    struct contract c = {0};
    struct error err = {0};
    char buf[160];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (contract_parse_scale(&c, good[i], &err))
            fail_msg("%s", err.text);
        assert_string_equal(contract_scale_text(&c, buf, sizeof(buf)), good[i]);
    }
    assert_true(c.a[1] == 116.279999f && c.b[2] == 57.375f);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (!contract_parse_scale(&c, bad[i], &err))
            fail_msg("\"%s\" was accepted", bad[i]);
}

/* --- files
 * ---------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    struct contract c = embedder();
    struct error err = {0};
    struct model *m;
    const struct model_threshold *t;
    bool bf16_ok;

    (void)state;
    save(&c, "round.onnx");
    m = model_load(file("round.onnx"), device, &bf16_ok, &err);
    if (!m)
        fail_msg("%s", err.text);
    assert_string_equal(m->name, "round");
    assert_int_equal(strlen(m->id), 64);
    assert_int_equal(m->contract.crop, CROP_BOX_MARGIN);
    assert_int_equal(m->contract.crop_margin, 44);
    assert_int_equal(m->contract.crop_size, 182);
    assert_int_equal(m->contract.width, 140);
    assert_int_equal(m->contract.height, 116);
    assert_int_equal(m->contract.scale, SCALE_FIXED);
    assert_true(m->contract.a[2] == 127.5f && m->contract.b[0] == 128);
    assert_int_equal(m->contract.dim, 16);
    assert_int_equal(m->contract.n_golden, 16);
    assert_false(m->contract.bgr);
    assert_false(m->contract.normalised);
    assert_string_equal(m->contract.licence, "MIT");
    assert_string_equal(m->contract.source, "made for a test");
    assert_string_equal(m->contract.parent, "");
    assert_string_equal(m->contract.compatible, c.compatible);
    assert_int_equal(m->contract.n_thresholds, 2);
    t = m->contract.thresholds;
    assert_ptr_equal(model_threshold(t, 2, 1e-3), &t[0]);
    assert_ptr_equal(model_threshold(t, 2, 5e-4), &t[1]);
    assert_ptr_equal(model_threshold(t, 2, 1e-2), &t[0]);
    assert_null(model_threshold(t, 2, 1e-6));
    assert_null(model_threshold(t, 0, 0.5));
    model_free(m);
}

static void test_detectors(void **state)
{
    static const enum model_kind kinds[] = {MODEL_PNET, MODEL_RNET, MODEL_ONET};
    static const int n_golden[] = {722 + 1024, 6, 16};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct contract c = {.kind = kinds[i],
                             .scale = SCALE_FIXED,
                             .a = {127.5f, 127.5f, 127.5f},
                             .b = {128, 128, 128}};
        struct error err = {0};
        struct model *m;
        save(&c, "detector.onnx");
        m = model_load(file("detector.onnx"), device, NULL, &err);
        if (!m)
            fail_msg("%s", err.text);
        assert_int_equal(m->contract.kind, kinds[i]);
        assert_int_equal(m->contract.n_golden, n_golden[i]);
        model_free(m);
    }
}

/* Every way of scaling gives its own golden numbers. */
static void test_scaling_matters(void **state)
{
    static const char *const scales[] = {"none", "per-image", "fixed:127.5,128",
                                         "fixed:1,2,3,100,110,120"};
    float golden[5][16];
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct contract c = embedder();
        struct model *m;
        assert_int_equal(contract_parse_scale(&c, scales[i < 4 ? i : 3], &err),
                         0);
        c.bgr = i == 4;
        save(&c, "scale.onnx");
        m = model_load(file("scale.onnx"), device, NULL, &err);
        if (!m)
            fail_msg("%s", err.text);
        memcpy(golden[i], m->contract.golden, sizeof(golden[i]));
        model_free(m);
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(golden[i], golden[k], sizeof(golden[i]));
    }
}

static void test_no_contract(void **state)
{
    struct graph *g = network("nns2", 16);
    struct error err = {0};

    (void)state;
    assert_int_equal(onnx_save(g, NULL, file("bare.onnx"), &err), 0);
    assert_null(model_load(file("bare.onnx"), device, NULL, &err));
    assert_int_equal(err.code, ERR_NO_CONTRACT);
    assert_string_equal(err.text,
                        "bare.onnx has no facenetd contract; write one with: "
                        "facenetctl model import bare.onnx --crop … --scale … "
                        "-o …");
    assert_null(model_load(file("none.onnx"), device, NULL, &err));
    assert_int_equal(err.code, ERR_FILE);
    graph_free(g);
}

/* A saved model with one key changed (value NULL: removed) and loaded. */
static const struct {
    const char *key, *value, *want;
} changes[] = {
    {"kind", NULL, "facenetd.kind|missing"},
    {"crop", NULL, "facenetd.crop|missing"},
    {"scale", NULL, "facenetd.scale|missing"},
    {"channels", NULL, "facenetd.channels|missing"},
    {"dim", NULL, "facenetd.dim|missing"},
    {"normalised", NULL, "facenetd.normalised|missing"},
    {"golden", NULL, "facenetd.golden|missing"},
    {"version", "2", "facenetd.version|newer"},
    {"kind", "detector", "facenetd.kind|detector"},
    {"kind", "mtcnn-onet", "facenetd."},
    {"crop", "square", "facenetd.crop|square"},
    {"crop", "none", "facenetd.crop"},
    {"crop", "arcface-112", "facenetd.crop|140x116"},
    {"crop", "box-margin:10,120", "facenetd.crop|140x116"},
    {"scale", "fixed:1,0", "facenetd.scale"},
    {"channels", "grb", "facenetd.channels|grb"},
    {"dim", "15", "facenetd.dim|15|16"},
    {"dim", "5000", "facenetd.dim"},
    {"dim", "16.0", "facenetd.dim"},
    {"normalised", "yes", "facenetd.normalised|yes"},
    {"licence", "two\nlines", "facenetd.licence"},
    {"parent", "abc", "facenetd.parent"},
    {"compatible", "ABC", "facenetd.compatible"},
    {"threshold.0", "0.001 1.25 30000", "facenetd.threshold.0"},
    {"threshold.0", "0.001 4.5 30000 30", "facenetd.threshold.0"},
    {"threshold.0", "0.001 nan 30000 30", "facenetd.threshold.0"},
    {"threshold.0", "0 1.25 30000 30", "facenetd.threshold.0"},
    {"threshold.0", "0.001 1.25 30 31", "facenetd.threshold.0"},
    {"threshold.1", "0.001 1.1 30000 30", "facenetd.threshold.1|once"},
    {"golden", "", "facenetd.golden"},
    {"golden", "1 2 x", "facenetd.golden"},
    {"golden", "1 inf", "facenetd.golden"},
    {"golden", "1 1e99", "facenetd.golden"},
    {"golden", "1 2 3", "facenetd.golden|promises"},
    {"golden", "1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "facenetd.golden|promises"},
};

static void test_wrong_keys(void **state)
{
    struct contract c = embedder();
    struct onnx_metadata meta = {0};
    struct error err = {0};
    struct graph *g;

    (void)state;
    save(&c, "keys.onnx");
    g = onnx_load(file("keys.onnx"), &meta, &err);
    assert_non_null(g);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        char key[64], *before;
        const char *old;
        snprintf(key, sizeof(key), "facenetd.%s", changes[i].key);
        old = onnx_metadata_get(&meta, key);
        before = old ? strdup(old) : NULL;
        assert_int_equal(onnx_metadata_set(&meta, key, changes[i].value, &err),
                         0);
        assert_int_equal(onnx_save(g, &meta, file("bad.onnx"), &err), 0);
        if (model_load(file("bad.onnx"), device, NULL, &err))
            fail_msg("%s = %s was accepted", key, changes[i].value);
        assert_int_equal(err.code, ERR_MODEL);
        check_words(err.text, changes[i].want);
        check_words(err.text, "bad.onnx");
        assert_int_equal(onnx_metadata_set(&meta, key, before, &err), 0);
        free(before);
    }
    /* a key of the future, and the keys of others, do no harm */
    assert_int_equal(onnx_metadata_set(&meta, "facenetd.mood", "1", &err), 0);
    assert_int_equal(onnx_metadata_set(&meta, "author", "me", &err), 0);
    assert_int_equal(onnx_save(g, &meta, file("bad.onnx"), &err), 0);
    struct model *m = model_load(file("bad.onnx"), device, NULL, &err);
    if (!m)
        fail_msg("%s", err.text);
    model_free(m);
    onnx_metadata_fini(&meta);
    graph_free(g);
}

/* One weight changed: the golden pair tells. */
static void test_changed_weight(void **state)
{
    struct contract c = embedder();
    struct onnx_metadata meta = {0};
    struct error err = {0};
    struct graph *g;
    struct model *m;
    int w;

    (void)state;
    save(&c, "weight.onnx");
    g = onnx_load(file("weight.onnx"), &meta, &err);
    assert_non_null(g);
    w = graph_find(g, "fc2.weight");
    assert_true(w >= 0);
    for (int i = 0; i < 50; i++)
        g->values[w].data[i] += 0.5f;
    assert_int_equal(onnx_save(g, &meta, file("weight.onnx"), &err), 0);
    assert_null(model_load(file("weight.onnx"), device, NULL, &err));
    check_words(err.text, "facenetd.golden|promises");
    /* without a device nothing is run */
    m = model_load(file("weight.onnx"), NULL, NULL, &err);
    assert_non_null(m);
    model_free(m);
    onnx_metadata_fini(&meta);
    graph_free(g);
}

static void test_save_refused(void **state)
{
    struct graph *g = network("nns2", 16);
    struct contract c = embedder();
    struct error err = {0};

    (void)state;
    c.dim = 17;
    assert_int_equal(model_save(g, &c, NULL, device, file("no.onnx"), &err),
                     -1);
    check_words(err.text, "facenetd.dim");
    c = embedder();
    c.thresholds[0].threshold = 5;
    assert_int_equal(model_save(g, &c, NULL, device, file("no.onnx"), &err),
                     -1);
    check_words(err.text, "facenetd.threshold.0");
    assert_int_equal(access(file("no.onnx"), F_OK), -1);
    graph_free(g);
}

/* Other people's metadata is carried over, an older contract is not. */
static void test_keep(void **state)
{
    struct graph *g = network("nns2", 16);
    struct contract c = embedder();
    struct onnx_metadata keep = {0}, got = {0};
    struct error err = {0};

    (void)state;
    onnx_metadata_set(&keep, "author", "someone", &err);
    onnx_metadata_set(&keep, "facenetd.licence", "old", &err);
    onnx_metadata_set(&keep, "facenetd.stale", "old", &err);
    assert_int_equal(model_save(g, &c, &keep, device, file("keep.onnx"), &err),
                     0);
    graph_free(g);
    g = onnx_load(file("keep.onnx"), &got, &err);
    assert_non_null(g);
    assert_string_equal(onnx_metadata_get(&got, "author"), "someone");
    assert_string_equal(onnx_metadata_get(&got, "facenetd.licence"), "MIT");
    assert_null(onnx_metadata_get(&got, "facenetd.stale"));
    onnx_metadata_fini(&keep);
    onnx_metadata_fini(&got);
    graph_free(g);
}

/* --- the id
 * --------------------------------------------------------------------- */

static uint8_t *read_bytes(const char *name, size_t *len)
{
    FILE *f = fopen(file(name), "rb");
    uint8_t *bytes;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    bytes = malloc(*len + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *len, f), *len);
    fclose(f);
    return bytes;
}

static void write_bytes(const char *name, const uint8_t *bytes, size_t len)
{
    FILE *f = fopen(file(name), "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* Loads without a device: what is asked for is the id. */
static void id_of(const char *name, char out[65])
{
    struct error err = {0};
    struct model *m = model_load(file(name), NULL, NULL, &err);

    if (!m)
        fail_msg("%s", err.text);
    memcpy(out, m->id, 65);
    model_free(m);
}

static const struct model_threshold measured[] = {
    {1e-1, 1.75, 3000, 300}, {1e-2, 1.5, 3000, 30}, {1e-4, 1.125, 400000, 40}};

/* Writing thresholds changes them and nothing else, and not the id. */
static void check_writes(const char *name)
{
    char before[65];
    struct error err = {0};

    id_of(name, before);
    for (int n = 3; n >= 0; n--) {
        struct model *m;
        if (model_write_thresholds(file(name), measured, n, &err))
            fail_msg("%s", err.text);
        m = model_load(file(name), device, NULL, &err);
        if (!m)
            fail_msg("%s", err.text);
        assert_string_equal(m->id, before);
        assert_int_equal(m->contract.n_thresholds, n);
        assert_memory_equal(m->contract.thresholds, measured,
                            (size_t)n * sizeof(measured[0]));
        model_free(m);
    }
}

static void test_id_keeps(void **state)
{
    struct contract c = embedder();
    struct onnx_metadata meta = {0};
    struct error err = {0};
    char first[65], hex[65];
    uint8_t *bytes, digest[CRYPTO_SHA256_LEN];
    struct graph *g;
    size_t len;

    (void)state;
    save(&c, "same.onnx");
    id_of("same.onnx", first);
    check_writes("same.onnx");
    /* without thresholds the id is the plain digest of the file */
    bytes = read_bytes("same.onnx", &len);
    assert_int_equal(crypto_sha256(bytes, len, digest, &err), 0);
    crypto_hex(digest, sizeof(digest), hex);
    assert_string_equal(hex, first);
    free(bytes);
    /* the same with none from the start, and written by model_save */
    c.n_thresholds = 0;
    save(&c, "same.onnx");
    id_of("same.onnx", hex);
    assert_string_equal(hex, first);
    /* anything else is another model */
    snprintf(c.licence, sizeof(c.licence), "BSD");
    save(&c, "same.onnx");
    id_of("same.onnx", hex);
    assert_string_not_equal(hex, first);
    g = onnx_load(file("same.onnx"), &meta, &err);
    assert_non_null(g);
    for (int i = 0; i < 2; i++) {
        char was[65];
        memcpy(was, hex, sizeof(was));
        onnx_metadata_set(&meta, i ? "facenetd.threshol" : "author", "1", &err);
        assert_int_equal(onnx_save(g, &meta, file("same.onnx"), &err), 0);
        id_of("same.onnx", hex);
        assert_string_not_equal(hex, was);
    }
    onnx_metadata_fini(&meta);
    graph_free(g);
}

/* Lays a good file's fields out as another program might: metadata first,
 * then the rest, between them a threshold whose pair has its value before
 * its key, and two keys. */
static void test_id_of_foreign_order(void **state)
{
    static const uint8_t pair[] = "\x72\x30\x12\x12"
                                  "0.5 1.9 10 5      " /* 18 */
                                  "\x0a\x03oak"        /* the last key counts */
                                  "\x0a\x15"
                                  "facenetd.threshold.70";
    struct contract c = embedder();
    uint8_t *bytes, *odd;
    size_t len, at = 0, n = 0;
    char id[65], other[65];

    (void)state;
    c.n_thresholds = 0;
    save(&c, "order.onnx");
    id_of("order.onnx", other);
    bytes = read_bytes("order.onnx", &len);
    odd = malloc(len + sizeof(pair) + 16);
    assert_non_null(odd);
    /* tags of one byte, then a number or a length */
    for (int pass = 0; pass < 2; pass++) {
        for (at = 0; at < len;) {
            uint8_t tag = bytes[at];
            size_t from = at++, body = 0;
            for (int shift = 0;; shift += 7) {
                body |= (size_t)(bytes[at] & 0x7f) << shift;
                if (!(bytes[at++] & 0x80))
                    break;
            }
            at += (tag & 7) == 2 ? body : 0;
            if ((tag >> 3 == 14) != (pass == 0))
                continue;
            memcpy(odd + n, bytes + from, at - from);
            n += at - from;
        }
        if (pass == 0) {
            memcpy(odd + n, pair, sizeof(pair) - 1);
            n += sizeof(pair) - 1;
        }
    }
    assert_int_equal(n, len + sizeof(pair) - 1);
    write_bytes("order.onnx", odd, n);
    id_of("order.onnx", id);
    assert_string_not_equal(id, other);
    check_writes("order.onnx");
    free(bytes);
    bytes = read_bytes("order.onnx", &len);
    assert_int_equal(len, n - (sizeof(pair) - 1));
    free(bytes);
    free(odd);
}

static void test_write_refused(void **state)
{
    static const struct model_threshold bad[] = {
        {1e-3, 4.5, 3000, 3}, {1e-3, 1.5, 3000, 3001}, {0, 1.5, 3000, 3}};
    struct contract c = embedder();
    struct model_threshold many[MODEL_MAX_THRESHOLDS + 1] = {{0}};
    struct error err = {0};
    struct graph *g;
    uint8_t *before, *after;
    size_t len, len_after;

    (void)state;
    save(&c, "refused.onnx");
    before = read_bytes("refused.onnx", &len);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(
            model_write_thresholds(file("refused.onnx"), &bad[i], 1, &err), -1);
        check_words(err.text, "facenetd.threshold.0");
    }
    assert_int_equal(model_write_thresholds(file("refused.onnx"), many,
                                            MODEL_MAX_THRESHOLDS + 1, &err),
                     -1);
    check_words(err.text, "9 thresholds|8");
    after = read_bytes("refused.onnx", &len_after);
    assert_int_equal(len, len_after);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
    assert_int_equal(
        model_write_thresholds(file("none.onnx"), measured, 1, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    g = network("nns2", 16);
    assert_int_equal(onnx_save(g, NULL, file("bare.onnx"), &err), 0);
    assert_int_equal(
        model_write_thresholds(file("bare.onnx"), measured, 1, &err), -1);
    assert_int_equal(err.code, ERR_NO_CONTRACT);
    graph_free(g);
}

/* A trained network keeps its golden pair in bf16, too. */
static void test_trained(void **state)
{
    const char *name = "weights/mobilefacenet_arcface_112.onnx";
    struct contract c = {.kind = MODEL_EMBEDDER,
                         .crop = CROP_ARCFACE,
                         .scale = SCALE_NONE,
                         .dim = 128};
    struct device_info info;
    struct error err = {0};
    struct graph *g;
    struct model *m;
    bool bf16_ok;

    (void)state;
    data_need(name);
    g = onnx_load(data_path(name), NULL, &err);
    if (!g || model_save(g, &c, NULL, device, file("keep.onnx"), &err))
        fail_msg("%s", err.text);
    m = model_load(file("keep.onnx"), device, &bf16_ok, &err);
    if (!m)
        fail_msg("%s", err.text);
    device->backend->device_describe(device, &info);
    assert_int_equal(bf16_ok, info.any_bf16);
    assert_int_equal(m->contract.n_golden, 128);
    model_free(m);
    graph_free(g);
}

static int set_up(void **state)
{
    struct device_options opt = {.n_threads = 1};

    (void)state;
    device = backend_cpu.device_open(&opt, NULL);
    return device && mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"round", "detector", "scale",  "bare",
                                        "keys",  "bad",      "weight", "keep",
                                        "same",  "order",    "refused"};
    char name[32];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(name, sizeof(name), "%s.onnx", names[i]);
        unlink(file(name));
    }
    backend_cpu.device_close(device);
    return rmdir(dir); /* fails if a part file was left behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crop_text),
        cmocka_unit_test(test_scale_text),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_detectors),
        cmocka_unit_test(test_scaling_matters),
        cmocka_unit_test(test_no_contract),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_changed_weight),
        cmocka_unit_test(test_save_refused),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_id_keeps),
        cmocka_unit_test(test_id_of_foreign_order),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_trained),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
