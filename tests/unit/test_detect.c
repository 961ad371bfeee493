/* tests/unit/test_detect.c - the detector against a reference's faces, and its
 * parts (reductions, canvases, suppression) against plain code. */
#include "core/face/detect.h"

#include <math.h>

#include "core/arch/arch.h"
#include "core/face/detect_priv.h"
#include "tests/data.h"

static struct {
    struct device *dev;
    struct model *model[3];
    struct detector *detector;
    struct detect_scratch *scratch;
} all;

static int setup(void **state)
{
    static const char *const names[] = {"mtcnn_pnet", "mtcnn_rnet",
                                        "mtcnn_onet"};
    static const enum model_kind kinds[] = {MODEL_PNET, MODEL_RNET, MODEL_ONET};
    struct error err = {0};

    (void)state;
    if (access(data_path("weights/mtcnn_pnet.onnx"), R_OK))
        return 0;
    all.dev = data_device();
    for (int i = 0; i < 3; i++) {
        struct contract c = {.kind = kinds[i]};
        all.model[i] = data_model(names[i], &c);
    }
    all.detector =
        detector_new(all.dev, all.model[0], all.model[1], all.model[2], &err);
    if (!all.detector) {
        print_error("%s\n", err.text);
        return -1;
    }
    all.scratch = detect_scratch_new(all.detector, &err);
    return all.scratch ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    if (!all.dev)
        return 0;
    detect_scratch_free(all.scratch);
    detector_free(all.detector);
    for (int i = 0; i < 3; i++)
        data_model_free(all.model[i]);
    all.dev->backend->device_close(all.dev);
    return 0;
}

static struct face *find(const struct image *img,
                         const struct detect_options *opt, int *n)
{
    struct error err = {0};
    struct face *faces;

    if (detect_faces(all.scratch, img, opt, &faces, n, &err))
        fail_msg("%s", err.text);
    return faces;
}

/* --- against the reference -------------------------------------------------
 */

static struct face reference_face(const json_t *o)
{
    const json_t *box = json_object_get(o, "box");
    const json_t *points = json_object_get(o, "landmarks");
    struct face f;

    f.box = (struct box){data_number(box, 0), data_number(box, 1),
                         data_number(box, 2), data_number(box, 3)};
    f.score = (float)json_number_value(json_object_get(o, "prob"));
    for (size_t k = 0; k < 5; k++) {
        f.points[k][0] = data_number(json_array_get(points, k), 0);
        f.points[k][1] = data_number(json_array_get(points, k), 1);
    }
    return f;
}

static int nearest(const struct box *b, const struct face *faces, int n)
{
    int best = -1;

    for (int i = 0; i < n; i++)
        if (best < 0 ||
            box_iou(b, &faces[i].box) > box_iou(b, &faces[best].box))
            best = i;
    return best;
}

/* Largest distance of a point, in the box's longer sides. */
static float point_error(const struct face *want, const struct face *got)
{
    float side =
        fmaxf(want->box.x1 - want->box.x0, want->box.y1 - want->box.y0);
    float worst = 0;

    for (int k = 0; k < 5; k++)
        worst = fmaxf(worst, hypotf(want->points[k][0] - got->points[k][0],
                                    want->points[k][1] - got->points[k][1]));
    return worst / side;
}

static void check_photo(const char *name, const json_t *list, float *least_iou,
                        float *worst_point)
{
    const struct detect_options opt = {.min_face = 20};
    struct image *img = data_photo(name);
    int n, n_want = (int)json_array_size(list);
    struct face *faces = find(img, &opt, &n);

    for (int i = 0; i < n_want; i++) {
        struct face want = reference_face(json_array_get(list, (size_t)i));
        int at = nearest(&want.box, faces, n);
        float iou = at < 0 ? 0 : box_iou(&want.box, &faces[at].box);
        if (want.score < 0.95f)
            continue;
        if (iou < 0.9f)
            fail_msg("%s: face %d: overlap %.3f", name, i, (double)iou);
        *least_iou = fminf(*least_iou, iou);
        *worst_point = fmaxf(*worst_point, point_error(&want, &faces[at]));
        if (point_error(&want, &faces[at]) > 0.03f)
            fail_msg("%s: face %d: points off by %.3f", name, i,
                     (double)point_error(&want, &faces[at]));
    }
    for (int i = 0; i < n; i++) {
        bool known = faces[i].score < 0.95f;
        for (int k = 0; !known && k < n_want; k++) {
            struct face want = reference_face(json_array_get(list, (size_t)k));
            known = box_iou(&want.box, &faces[i].box) >= 0.5f;
        }
        if (!known)
            fail_msg("%s: a face at %.0f,%.0f..%.0f,%.0f (%.3f) that the "
                     "reference has not",
                     name, (double)faces[i].box.x0, (double)faces[i].box.y0,
                     (double)faces[i].box.x1, (double)faces[i].box.y1,
                     (double)faces[i].score);
        if (i > 0)
            assert_true(box_area(&faces[i].box) <= box_area(&faces[i - 1].box));
    }
    free(faces);
    image_free(img);
}

static void test_reference(void **state)
{
    json_t *root, *list;
    const char *name;
    float least_iou = 1, worst_point = 0;

    (void)state;
    data_need("golden/mtcnn.json");
    root = data_json("golden/mtcnn.json");
    json_object_foreach(json_object_get(root, "photos"), name, list)
    {
        check_photo(name, list, &least_iou, &worst_point);
    }
    json_decref(root);
    print_message("least overlap %.4f, worst point %.2f %% of the box\n",
                  (double)least_iou, (double)worst_point * 100);
}

/* --- odd pictures ------------------------------------------------------------
 */

static struct image *picture(int w, int h, uint32_t seed)
{
    struct error err = {0};
    struct image *img = image_new(w, h, &err);
    size_t n = (size_t)w * (size_t)h * 3;

    assert_non_null(img);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        img->rgb[i] = seed && i % 3 == 0 ? (uint8_t)(seed >> 24) : 0;
    }
    return img;
}

static void test_odd_sizes(void **state)
{
    static const int sizes[][2] = {{16, 16},   {4000, 100}, {100, 4000},
                                   {41, 40},   {39, 500},   {40, 40},
                                   {16, 9000}, {1301, 977}};
    const struct detect_options small = {.min_face = 12};

    (void)state;
    data_need("weights/mtcnn_pnet.onnx");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct image *img = picture(sizes[i][0], sizes[i][1], 0);
        int n;
        struct face *faces = find(img, i < 6 ? &small : NULL, &n);
        assert_int_equal(n, 0);
        assert_null(faces);
        image_free(img);
    }
}

static void test_noise(void **state)
{
    const struct detect_options loose = {
        .min_face = 12, .threshold = {1e-6f, 1e-6f, 1e-6f}, .max_faces = 7};
    struct image *img;
    struct face *faces;
    int n;

    (void)state;
    data_need("weights/mtcnn_pnet.onnx");
    img = picture(301, 203, 77);
    faces = find(img, &loose, &n);
    assert_true(n > 0 && n <= 7); /* thousands are proposed */
    free(faces);
    image_free(img);
}

static void test_options(void **state)
{
    const struct detect_options rows[] = {{.min_face = 11},
                                          {.min_face = -40},
                                          {.min_face = NAN},
                                          {.factor = 0.95f},
                                          {.factor = 0.1f},
                                          {.max_faces = -1},
                                          {.max_faces = DETECT_MAX_FACES + 1},
                                          {.threshold = {1, 0, 0}},
                                          {.threshold = {0, -1, 0}},
                                          {.threshold = {0, 0, NAN}}};
    struct image *img;

    (void)state;
    data_need("weights/mtcnn_pnet.onnx");
    img = picture(64, 64, 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = {0};
        struct face *faces;
        int n;
        assert_int_equal(
            detect_faces(all.scratch, img, &rows[i], &faces, &n, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        assert_null(faces);
    }
    image_free(img);
}

/* The same faces again, also from a scratch that has seen other pictures. */
static void test_repeatable(void **state)
{
    struct image *img, *other;
    struct face *a, *b, *c;
    int n_a, n_b, n_c;
    struct error err = {0};
    struct detect_scratch *fresh;

    (void)state;
    data_need("photos/group3.jpg");
    img = data_photo("group3.jpg");
    other = picture(500, 400, 5);
    a = find(img, NULL, &n_a);
    free(find(other, NULL, &n_b));
    b = find(img, NULL, &n_b);
    fresh = detect_scratch_new(all.detector, &err);
    assert_non_null(fresh);
    assert_int_equal(detect_faces(fresh, img, NULL, &c, &n_c, &err), 0);
    detect_scratch_free(fresh);
    assert_true(n_a >= 5);
    assert_int_equal(n_a, n_b);
    assert_int_equal(n_a, n_c);
    assert_memory_equal(a, b, (size_t)n_a * sizeof(*a));
    assert_memory_equal(a, c, (size_t)n_a * sizeof(*a));
    free(a);
    free(b);
    free(c);
    image_free(img);
    image_free(other);
}

static void test_wrong_models(void **state)
{
    struct error err = {0};

    (void)state;
    data_need("weights/mtcnn_pnet.onnx");
    assert_null(
        detector_new(all.dev, all.model[1], all.model[0], all.model[2], &err));
    assert_int_equal(err.code, ERR_MODEL);
    all.model[1]->contract.kind = MODEL_ONET;
    assert_null(
        detector_new(all.dev, all.model[0], all.model[1], all.model[1], &err));
    assert_int_equal(err.code, ERR_MODEL);
    all.model[1]->contract.kind = MODEL_RNET;
}

/* --- parts
 * --------------------------------------------------------------------- */

static void naive_reduce(const struct image *img, const struct detect_part *p,
                         int x, int y, float out[3])
{
    int x0 = (int)floor((double)x * p->w / p->out_w);
    int x1 = (int)ceil((double)(x + 1) * p->w / p->out_w);
    int y0 = (int)floor((double)y * p->h / p->out_h);
    int y1 = (int)ceil((double)(y + 1) * p->h / p->out_h);

    for (int c = 0; c < 3; c++) {
        double sum = 0;
        for (int v = y0; v < y1; v++)
            for (int u = x0; u < x1; u++)
                sum += img->rgb[((p->y + v) * img->w + p->x + u) * 3 + c];
        out[c] = (float)((sum / ((x1 - x0) * (y1 - y0)) - 127.5) / 128);
    }
}

static void test_reduce(void **state)
{
    static const struct detect_part parts[] = {
        {.w = 301, .h = 203, .out_w = 91, .out_h = 61, .pw = 91, .ph = 61},
        {.w = 301,
         .h = 203,
         .out_w = 91,
         .out_h = 61,
         .px = 40,
         .py = 22,
         .pw = 52,
         .ph = 40},
        {.x = 11,
         .y = 7,
         .w = 60,
         .h = 61,
         .out_w = 24,
         .out_h = 24,
         .pw = 24,
         .ph = 24},
        {.x = 290,
         .y = 200,
         .w = 11,
         .h = 3,
         .out_w = 48,
         .out_h = 48,
         .pw = 48,
         .ph = 48}};
    struct image *img = picture(301, 203, 9);
    struct detect_mips mips = {0};
    struct error err = {0};
    float *out = calloc(3 * 128 * 128, sizeof(float));

    (void)state;
    assert_int_equal(detect_mips_build(&mips, img, &err), 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const struct detect_part *p = &parts[i];
        detect_reduce(&mips, p, out, 128 * 128, 128);
        for (int y = 0; y < p->ph; y++) {
            for (int x = 0; x < p->pw; x++) {
                int ox = p->px + x < p->out_w ? p->px + x : p->out_w - 1;
                int oy = p->py + y < p->out_h ? p->py + y : p->out_h - 1;
                float want[3];
                naive_reduce(img, p, ox, oy, want);
                for (int c = 0; c < 3; c++)
                    assert_true(fabsf(out[c * 128 * 128 + y * 128 + x] -
                                      want[c]) < 1e-5f);
            }
        }
    }
    free(out);
    detect_mips_fini(&mips);
    image_free(img);
}

/* A smooth picture reduced from a smaller copy is the same picture. */
static void test_strong_reduction(void **state)
{
    struct error err = {0};
    struct image *img = image_new(2003, 1507, &err);
    struct detect_mips mips = {0};
    struct detect_part p = {.x = 101,
                            .y = 52,
                            .w = 1800,
                            .h = 1403,
                            .out_w = 24,
                            .out_h = 24,
                            .pw = 24,
                            .ph = 24};
    float out[3 * 24 * 24], want[3];

    (void)state;
    for (int y = 0; y < img->h; y++)
        for (int x = 0; x < img->w; x++) {
            uint8_t *q =
                img->rgb + ((size_t)y * (size_t)img->w + (size_t)x) * 3;
            q[0] = (uint8_t)(x / 8);
            q[1] = (uint8_t)(y / 6);
            q[2] = (uint8_t)((x + y) / 14);
        }
    assert_int_equal(detect_mips_build(&mips, img, &err), 0);
    assert_true(mips.n > 3);
    detect_reduce(&mips, &p, out, 24 * 24, 24);
    for (int y = 0; y < 24; y++)
        for (int x = 0; x < 24; x++) {
            naive_reduce(img, &p, x, y, want);
            for (int c = 0; c < 3; c++)
                assert_true(fabsf(out[(c * 24 + y) * 24 + x] - want[c]) <
                            0.02f);
        }
    detect_mips_fini(&mips);
    image_free(img);
}

static void check_layout(int w, int h, float min_face, float factor, int side)
{
    struct detect_layout l = {0};
    struct error err = {0};
    uint8_t *taken = malloc(DETECT_CANVAS * DETECT_CANVAS);
    int64_t cells[DETECT_MAX_LEVELS] = {0};
    double scale = 12.0 / (double)min_face;

    assert_int_equal(
        detect_layout_build(&l, w, h, min_face, factor, side, &err), 0);
    for (int k = 0; k < l.n_canvases; k++) {
        int cw = l.canvases[k].w, ch = l.canvases[k].h;
        assert_true(cw > 0 && cw <= DETECT_CANVAS && cw % 16 == 0);
        assert_true(ch > 0 && ch <= DETECT_CANVAS && ch % 16 == 0);
        assert_true(side == 0 || (cw == side && ch == side));
        memset(taken, 0, DETECT_CANVAS * DETECT_CANVAS);
        for (int i = 0; i < l.n_tiles; i++) {
            const struct detect_tile *t = &l.tiles[i];
            int tw = 2 * t->n_x + 10, th = 2 * t->n_y + 10;
            if (t->canvas != k)
                continue;
            assert_true(t->x % 2 == 0 && t->y % 2 == 0 && t->x >= 0 &&
                        t->y >= 0 && t->x + tw <= cw && t->y + th <= ch);
            cells[t->level] += (int64_t)t->n_x * t->n_y;
            for (int y = t->y; y < t->y + th; y++)
                for (int x = t->x; x < t->x + tw; x++)
                    assert_int_equal(taken[y * DETECT_CANVAS + x]++, 0);
        }
    }
    for (int i = 0; i < l.n_levels; i++, scale *= (double)factor) {
        int lw = (int)(w * scale + 1), lh = (int)(h * scale + 1);
        /* What two unpadded 3x3, one 2x2 pool rounded up and one more 3x3
         * leave. */
        int64_t nx = (lw - 2 + 1) / 2 - 4, ny = (lh - 2 + 1) / 2 - 4;
        assert_int_equal(l.levels[i].w, lw);
        assert_int_equal(cells[i], nx * ny);
    }
    assert_true((w < h ? w : h) * scale < 12);
    detect_layout_fini(&l);
    free(taken);
}

static void test_layout(void **state)
{
    (void)state;
    check_layout(250, 250, 40, 0.709f, 0);
    check_layout(1024, 768, 40, 0.709f, 0);
    check_layout(1024, 768, 20, 0.709f, 0);
    check_layout(769, 1025, 12, 0.85f, 0);
    check_layout(4000, 3000, 40, 0.5f, 0);
    check_layout(12000, 333, 20, 0.709f, 0);
    check_layout(40, 40, 40, 0.709f, 0);
    check_layout(39, 39, 40, 0.709f, 0);
    check_layout(16384, 2441, 12, 0.9f, 0);
    check_layout(250, 250, 36, 0.709f, DETECT_SHARED);
    check_layout(1024, 768, 36, 0.709f, DETECT_SHARED);
    check_layout(769, 1025, 12, 0.85f, DETECT_SHARED);
    check_layout(12000, 333, 20, 0.709f, DETECT_SHARED);
    check_layout(39, 39, 40, 0.709f, DETECT_SHARED);
    check_layout(40, 40, 40, 0.709f, 16);
}

static void test_nms(void **state)
{
    static const struct {
        struct box box;
        float score;
    } rows[] = {{{0, 0, 10, 10}, 0.5f},   {{1, 0, 11, 10}, 0.9f},
                {{4, 0, 14, 10}, 0.8f},   {{40, 40, 50, 50}, 0.1f},
                {{42, 42, 46, 46}, 0.2f}, {{5, 5, 5, 5}, 0.05f}};
    struct candidates c = {0};

    (void)state;
    for (int pass = 0; pass < 2; pass++) {
        c.n = 0;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct candidate *p = detect_push(&c);
            p->box = rows[i].box;
            p->score = rows[i].score;
        }
        detect_nms(&c, 0.7f, pass ? OVERLAP_MIN : OVERLAP_UNION);
        /* By union 0.5 goes (9/11 with 0.9; 7/13 of 0.8 stays under). Over
         * the smaller, inclusive: 88/121 of 0.8 goes too, 0.1 has 0.2 in it
         * whole, and so has 0.9 the point. */
        assert_int_equal(c.n, pass ? 2 : 5);
        assert_true(c.at[0].score == 0.9f);
        assert_true(c.at[1].score == (pass ? 0.2f : 0.8f));
    }
    detect_best(&c, 1);
    assert_int_equal(c.n, 1);
    assert_true(c.at[0].score == 0.9f);
    detect_candidates_fini(&c);
}

static void test_boxes(void **state)
{
    const struct box a = {0, 0, 10, 20}, b = {5, 10, 15, 30},
                     none = {9, 9, 5, 5};
    struct candidates c = {0};
    struct candidate *p = detect_push(&c);

    (void)state;
    assert_true(box_area(&a) == 200 && box_area(&none) == 0);
    assert_true(fabsf(box_iou(&a, &b) - 50.0f / 350) < 1e-6f);
    assert_true(box_iou(&a, &none) == 0 && box_iou(&none, &none) == 0);
    p->box = a;
    p->reg[0] = 0.1f;
    p->reg[3] = -0.1f;
    detect_regress(&c, 1);
    assert_true(fabsf(c.at[0].box.x0 - 1.1f) < 1e-5f);
    assert_true(fabsf(c.at[0].box.y1 - 17.9f) < 1e-5f);
    detect_square(&c);
    assert_true(fabsf(c.at[0].box.x0 + 3.4f) < 1e-4f);
    assert_true(fabsf(c.at[0].box.x1 - 14.5f) < 1e-4f);
    detect_candidates_fini(&c);
}

/* A convolution of the input, `side` pixels wide, as an output. */
static void output_conv(struct graph *g, const char *name, int out, int side)
{
    const struct op op = {.type = OP_CONV,
                          .u.conv = {.kernel = {side, side},
                                     .stride = {1, 1},
                                     .dilation = {1, 1},
                                     .group = 1}};
    const struct shape s = shape_of(4, out, 3, side, side);
    struct error err;
    int in[2] = {0, graph_add_weight(g, NULL, &s, NULL, &err)};

    assert_true(
        graph_add_output(g, graph_add_node(g, name, &op, in, 2, name, &err),
                         &err) >= 0);
}

/* 27 x 27 cells of 64 x 64 pixels are right, but these look at every pixel,
 * 38 wide, and give too few of other sizes. */
static void test_wrong_cells(void **state)
{
    static const char *const names[] = {"mtcnn_rnet", "mtcnn_onet"};
    struct model m[3] = {{.contract.kind = MODEL_PNET},
                         {.contract.kind = MODEL_RNET},
                         {.contract.kind = MODEL_ONET}};
    struct error err = {0};
    struct device *dev = data_device();
    struct detector *d;
    struct detect_scratch *s;
    struct image *img = picture(300, 200, 1);
    struct face *faces;
    int n;

    (void)state;
    m[0].graph = graph_new(&err);
    assert_int_equal(graph_add_input(m[0].graph, "x", 3, 0, 0, &err), 0);
    output_conv(m[0].graph, "prob", 2, 38);
    output_conv(m[0].graph, "box", 4, 38);
    for (int i = 1; i < 3; i++)
        m[i].graph = arch_new(names[i - 1], &(struct arch_options){0}, &err);
    d = detector_new(dev, &m[0], &m[1], &m[2], &err);
    if (!d)
        fail_msg("%s", err.text);
    s = detect_scratch_new(d, &err);
    assert_non_null(s);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(detect_faces(s, img, NULL, &faces, &n, &err), -1);
        assert_int_equal(err.code, ERR_MODEL);
        assert_non_null(strstr(err.text, "cells"));
    }
    image_free(img);
    detect_scratch_free(s);
    detector_free(d);
    for (int i = 0; i < 3; i++)
        graph_free(m[i].graph);
    dev->backend->device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reduce),
                                       cmocka_unit_test(test_layout),
                                       cmocka_unit_test(test_strong_reduction),
                                       cmocka_unit_test(test_nms),
                                       cmocka_unit_test(test_boxes),
                                       cmocka_unit_test(test_reference),
                                       cmocka_unit_test(test_odd_sizes),
                                       cmocka_unit_test(test_noise),
                                       cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_repeatable),
                                       cmocka_unit_test(test_wrong_models),
                                       cmocka_unit_test(test_wrong_cells)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
