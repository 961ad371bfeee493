/* tests/unit/test_align.c - the similarity against known transforms, crops
 * against hand-made pictures and against another engine's embeddings. */
#include "core/face/align.h"

#include <math.h>

#include "core/face/distance.h"
#include "core/face/embed.h"
#include "tests/data.h"

/* Squared distance that different rounding of crops may leave. */
#define CROP_TOLERANCE 1e-3f

static const float template_112[5][2] = {{38.2946f, 51.6963f},
                                         {73.5318f, 51.5014f},
                                         {56.0252f, 71.7366f},
                                         {41.5493f, 92.3655f},
                                         {70.7299f, 92.2041f}};

static const struct contract arcface = {.crop = CROP_ARCFACE,
                                        .width = 112,
                                        .height = 112,
                                        .scale = SCALE_NONE,
                                        .dim = 128};

/* Colours that tell the place: red x, green y. */
static struct image *gradient(int w, int h)
{
    struct error err = {0};
    struct image *img = image_new(w, h, &err);

    assert_non_null(img);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *p = img->rgb + (y * w + x) * 3;
            p[0] = (uint8_t)x;
            p[1] = (uint8_t)y;
            p[2] = 200;
        }
    return img;
}

static const uint8_t *pixel(const struct image *img, int x, int y)
{
    return img->rgb + (y * img->w + x) * 3;
}

static void test_known_transforms(void **state)
{
    static const double rows[][4] = {/* scale, degrees, tx, ty */
                                     {1, 0, 0, 0},
                                     {2.5, 30, 100, -40},
                                     {0.1, -170, 3, 900},
                                     {1, 90, 0, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double a = rows[i][0] * cos(rows[i][1] * M_PI / 180);
        double b = rows[i][0] * sin(rows[i][1] * M_PI / 180);
        float dst[5][2], m[2][3];
        for (int k = 0; k < 5; k++) {
            double x = (double)template_112[k][0],
                   y = (double)template_112[k][1];
            dst[k][0] = (float)(a * x - b * y + rows[i][2]);
            dst[k][1] = (float)(b * x + a * y + rows[i][3]);
        }
        assert_true(align_similarity(template_112, (const float(*)[2])dst, m));
        assert_true(fabs((double)m[0][0] - a) < 1e-4);
        assert_true(fabs((double)m[1][0] - b) < 1e-4);
        assert_true(m[0][1] == -m[1][0] && m[1][1] == m[0][0]);
        assert_true(fabs((double)m[0][2] - rows[i][2]) < 1e-2);
        assert_true(fabs((double)m[1][2] - rows[i][3]) < 1e-2);
    }
}

static double residual(const float src[5][2], const float dst[5][2], double a,
                       double b, double tx, double ty)
{
    double sum = 0;

    for (int k = 0; k < 5; k++) {
        double x = (double)src[k][0], y = (double)src[k][1];
        sum += pow(a * x - b * y + tx - (double)dst[k][0], 2) +
               pow(b * x + a * y + ty - (double)dst[k][1], 2);
    }
    return sum;
}

/* With points that no similarity fits, every change makes it worse. */
static void test_least_squares(void **state)
{
    const float src[5][2] = {{10, 12}, {55, 8}, {33, 40}, {14, 61}, {50, 66}};
    float m[2][3];
    double at;

    (void)state;
    assert_true(align_similarity(src, template_112, m));
    at = residual(src, template_112, m[0][0], m[1][0], m[0][2], m[1][2]);
    assert_true(at > 1);
    for (int i = 0; i < 8; i++) {
        double step = i & 1 ? 1e-2 : -1e-2;
        double da = i / 2 == 0 ? step : 0, db = i / 2 == 1 ? step : 0;
        double dx = i / 2 == 2 ? step : 0, dy = i / 2 == 3 ? step : 0;
        assert_true(residual(src, template_112, (double)m[0][0] + da,
                             (double)m[1][0] + db, (double)m[0][2] + dx,
                             (double)m[1][2] + dy) > at - 1e-5);
    }
}

static void test_no_extent(void **state)
{
    const float one[5][2] = {{5, 5}, {5, 5}, {5, 5}, {5, 5}, {5, 5}};
    const float nan[5][2] = {{NAN, 5}, {1, 5}, {2, 5}, {3, 5}, {4, 5}};
    float m[2][3];
    struct image *img = gradient(50, 50);
    struct face f = {.box = {5, 5, 20, 20}};
    struct error err = {0};

    (void)state;
    assert_false(align_similarity(one, template_112, m));
    assert_false(align_similarity(nan, template_112, m));
    assert_false(align_similarity(template_112, one, m));
    memcpy(f.points, one, sizeof(one));
    assert_null(align_crop(img, &f, &arcface, &err));
    assert_int_equal(err.code, ERR_BAD_BOX);
    image_free(img);
}

static struct face face_at(float dx, float dy)
{
    struct face f = {.box = {dx, dy, dx + 112, dy + 112}, .score = 1};

    for (int k = 0; k < 5; k++) {
        f.points[k][0] = template_112[k][0] + dx;
        f.points[k][1] = template_112[k][1] + dy;
    }
    return f;
}

static void test_arcface_crop(void **state)
{
    struct image *img = gradient(200, 180), *crop;
    struct face f = face_at(30, 20);
    struct contract twice = arcface;
    struct error err = {0};

    (void)state;
    crop = align_crop(img, &f, &arcface, &err);
    assert_non_null(crop);
    assert_int_equal(crop->w, 112);
    for (int y = 0; y < 112; y++)
        for (int x = 0; x < 112; x++) {
            assert_true(abs(pixel(crop, x, y)[0] - (x + 30)) <= 1);
            assert_true(abs(pixel(crop, x, y)[1] - (y + 20)) <= 1);
        }
    image_free(crop);
    /* Another input size scales the template: same face, other pixels. */
    twice.width = 224;
    twice.height = 224;
    crop = align_crop(img, &f, &twice, &err);
    assert_int_equal(crop->w, 224);
    assert_true(abs(pixel(crop, 100, 60)[0] - (50 + 30)) <= 1);
    image_free(crop);
    /* Out of the picture it is black. */
    f = face_at(150, 20);
    crop = align_crop(img, &f, &arcface, &err);
    assert_int_equal(pixel(crop, 40, 50)[2], 200);
    assert_int_equal(pixel(crop, 60, 50)[2], 0);
    image_free(crop);
    image_free(img);
}

static void test_box_margin(void **state)
{
    struct contract c = {.crop = CROP_BOX_MARGIN,
                         .crop_margin = 44,
                         .crop_size = 182,
                         .width = 160,
                         .height = 160};
    struct image *img = gradient(250, 250), *crop;
    /* With the margin 31.x .. 213.x: 182 pixels, so nothing is resized. */
    struct face f = {.box = {53.4f, 60.9f, 191.2f, 198.7f}};
    struct error err = {0};

    (void)state;
    crop = align_crop(img, &f, &c, &err);
    assert_non_null(crop);
    assert_int_equal(crop->w, 160);
    for (int y = 0; y < 160; y++)
        for (int x = 0; x < 160; x++) {
            assert_int_equal(pixel(crop, x, y)[0], x + 31 + 11);
            assert_int_equal(pixel(crop, x, y)[1], y + 38 + 11);
        }
    image_free(crop);
    /* Clipped at the photo's corner: 0..91, drawn out to twice its size. */
    f.box = (struct box){-10, -30, 69.5f, 69.5f};
    crop = align_crop(img, &f, &c, &err);
    assert_true(abs(pixel(crop, 0, 0)[0] - 5) <= 1);
    assert_true(abs(pixel(crop, 159, 80)[0] - 85) <= 1);
    image_free(crop);
    f.box = (struct box){300, 300, 400, 400};
    assert_null(align_crop(img, &f, &c, &err));
    assert_int_equal(err.code, ERR_BAD_BOX);
    f.box = (struct box){NAN, 0, 10, 10};
    assert_null(align_crop(img, &f, &c, &err));
    assert_int_equal(err.code, ERR_BAD_BOX);
    f.box = (struct box){10, 10, 50, 50};
    c.crop_size = 100;
    assert_null(align_crop(img, &f, &c, &err));
    assert_int_equal(err.code, ERR_MODEL);
    c.crop = CROP_NONE;
    assert_null(align_crop(img, &f, &c, &err));
    assert_int_equal(err.code, ERR_MODEL);
    image_free(img);
}

static void test_scale(void **state)
{
    uint8_t rgb[] = {0, 100, 200, 50, 150, 250};
    const struct image img = {.w = 2, .h = 1, .rgb = rgb};
    struct contract c = {.scale = SCALE_NONE};
    float out[6], sum = 0, squares = 0;

    (void)state;
    align_scale(&img, &c, out);
    assert_true(out[0] == 0 && out[1] == 50 && out[2] == 100 && out[5] == 250);
    c.bgr = true;
    align_scale(&img, &c, out);
    assert_true(out[0] == 200 && out[1] == 250 && out[4] == 0 && out[5] == 50);
    c.scale = SCALE_FIXED;
    for (int k = 0; k < 3; k++) {
        c.a[k] = (float)(10 * k);
        c.b[k] = (float)(1 << k);
    }
    align_scale(&img, &c, out);
    assert_true(out[0] == 200 && out[2] == 45 && out[4] == -5);
    c.scale = SCALE_STANDARD;
    c.bgr = false;
    align_scale(&img, &c, out);
    for (int i = 0; i < 6; i++) {
        sum += out[i];
        squares += out[i] * out[i];
    }
    assert_true(fabsf(sum) < 1e-5f && fabsf(squares / 6 - 1) < 1e-5f);
    memset(rgb, 7, sizeof(rgb)); /* no contrast: no division by zero */
    align_scale(&img, &c, out);
    for (int i = 0; i < 6; i++)
        assert_true(out[i] == 0);
}

static void test_keep(void **state)
{
    struct image *img = gradient(250, 240), *kept;
    struct face f = face_at(100, 100), inner;
    struct error err = {0};

    (void)state;
    f.box = (struct box){100, 90, 140, 150};
    kept = align_keep(img, &f, &inner, &err);
    assert_non_null(kept);
    assert_int_equal(kept->w, 120);
    assert_int_equal(kept->h, 180);
    assert_true(inner.box.x0 == 40 && inner.box.y1 == 120);
    assert_int_equal(pixel(kept, 40, 60)[0], 100);
    assert_true(fabsf(inner.points[0][0] - (f.points[0][0] - 60)) < 1e-4f);
    image_free(kept);
    image_free(img);
    img = gradient(2000, 900);
    f.box = (struct box){400, 300, 800, 850};
    kept = align_keep(img, &f, &inner, &err);
    assert_int_equal(kept->w, 320);
    assert_int_equal(kept->h, 240); /* 0..1200 x 0..900 */
    assert_true(fabsf(inner.box.x1 - 800 * 320.0f / 1200) < 1e-3f);
    image_free(kept);
    f.box = (struct box){-500, 0, -400, 50};
    assert_null(align_keep(img, &f, &inner, &err));
    assert_int_equal(err.code, ERR_BAD_BOX);
    image_free(img);
}

/* A kept crop, aligned again, gives the crop that the photo gives. */
static void test_keep_and_align(void **state)
{
    struct image *img, *kept, *a, *b;
    struct face f = face_at(0, 0), inner;
    struct error err = {0};
    double sum = 0;

    (void)state;
    data_need("photos/Anthony_Hopkins_0001.jpg");
    img = data_photo("Anthony_Hopkins_0001.jpg");
    f.box = (struct box){76, 63, 174, 194};
    for (int k = 0; k < 5; k++) {
        f.points[k][0] = 76 + template_112[k][0] * 0.9f;
        f.points[k][1] = 70 + template_112[k][1] * 0.9f;
    }
    kept = align_keep(img, &f, &inner, &err);
    a = align_crop(img, &f, &arcface, &err);
    b = align_crop(kept, &inner, &arcface, &err);
    assert_non_null(b);
    for (int i = 0; i < 112 * 112 * 3; i++)
        sum += abs(a->rgb[i] - b->rgb[i]);
    assert_true(sum / (112 * 112 * 3) < 0.5);
    image_free(a);
    image_free(b);
    image_free(kept);
    image_free(img);
}

static void check_photo(struct embedder *e, const char *name,
                        const json_t *faces, const json_t *wanted, float *worst)
{
    struct image *img = data_photo(name);
    size_t i_wanted = 0, index;
    json_t *o;

    json_array_foreach(faces, index, o)
    {
        const json_t *points = json_object_get(o, "landmarks");
        const json_t *box = json_object_get(o, "box"), *vector;
        struct face f;
        struct image *crop;
        struct error err = {0};
        float *input = malloc(3 * 112 * 112 * sizeof(float));
        const float *chips[1] = {input};
        float got[128], want[128], d;

        if (json_number_value(json_object_get(o, "prob")) < 0.95) {
            free(input);
            continue;
        }
        f.box = (struct box){data_number(box, 0), data_number(box, 1),
                             data_number(box, 2), data_number(box, 3)};
        for (size_t k = 0; k < 5; k++) {
            f.points[k][0] = data_number(json_array_get(points, k), 0);
            f.points[k][1] = data_number(json_array_get(points, k), 1);
        }
        crop = align_crop(img, &f, &arcface, &err);
        assert_non_null(crop);
        align_scale(crop, &arcface, input);
        image_free(crop);
        assert_int_equal(embedder_run(e, chips, 1, got, NULL, &err), 0);
        vector =
            json_object_get(json_array_get(wanted, i_wanted++), "embedding");
        for (size_t k = 0; k < 128; k++)
            want[k] = data_number(vector, k);
        d = distance_l2(got, want, 128);
        *worst = fmaxf(*worst, d);
        if (!(d < CROP_TOLERANCE))
            fail_msg("%s: face %zu: squared distance %g", name, index,
                     (double)d);
        free(input);
    }
    assert_int_equal(i_wanted, json_array_size(wanted));
    image_free(img);
}

static void test_golden(void **state)
{
    struct contract c = arcface;
    struct device *dev;
    struct model *m;
    struct embedder *e;
    struct error err = {0};
    json_t *boxes, *golden, *list;
    const char *name;
    float worst = 0;

    (void)state;
    data_need("weights/mobilefacenet_arcface_112.onnx");
    data_need("golden/mobilefacenet.json");
    dev = data_device();
    m = data_model("mobilefacenet_arcface_112", &c);
    e = embedder_new(dev, m, 1, PRECISION_F32, &err);
    if (!e)
        fail_msg("%s", err.text);
    boxes = data_json("golden/mtcnn.json");
    golden = data_json("golden/mobilefacenet.json");
    json_object_foreach(json_object_get(boxes, "photos"), name, list)
    {
        check_photo(e, name, list,
                    json_object_get(json_object_get(golden, "photos"), name),
                    &worst);
    }
    print_message("worst squared distance %.2g\n", (double)worst);
    json_decref(boxes);
    json_decref(golden);
    embedder_free(e);
    data_model_free(m);
    dev->backend->device_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known_transforms),
                                       cmocka_unit_test(test_least_squares),
                                       cmocka_unit_test(test_no_extent),
                                       cmocka_unit_test(test_arcface_crop),
                                       cmocka_unit_test(test_box_margin),
                                       cmocka_unit_test(test_scale),
                                       cmocka_unit_test(test_keep),
                                       cmocka_unit_test(test_keep_and_align),
                                       cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
