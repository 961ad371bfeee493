/* tests/unit/test_face.c - bytes of whole photos to chips: which faces are
 * chosen, what is refused, what comes out. */
#include "core/face/face.h"

#include <math.h>

#include "tests/data.h"

static const struct contract arcface = {
    .crop = CROP_ARCFACE, .width = 112, .height = 112, .dim = 128};

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
    if (all.detector)
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

static int read_name(const char *name, enum face_choice choice, bool keep,
                     const struct contract *c, struct photo *out,
                     struct error *err)
{
    const struct face_options opt = {.choice = choice, .keep = keep};
    char path[256];
    size_t len;
    uint8_t *bytes;
    int rc;

    snprintf(path, sizeof(path), "photos/%s", name);
    bytes = data_read(path, &len);
    rc = photo_read(all.scratch, c, bytes, len, &opt, out, err);
    free(bytes);
    return rc;
}

static void test_single(void **state)
{
    struct photo p;
    struct error err = {0};

    (void)state;
    data_need("photos/Anthony_Hopkins_0001.jpg");
    assert_int_equal(read_name("Anthony_Hopkins_0001.jpg", FACE_SINGLE, false,
                               &arcface, &p, &err),
                     0);
    assert_int_equal(p.width, 250);
    assert_int_equal(p.n_faces, 1);
    assert_int_equal(p.n_chips, 1);
    assert_non_null(p.chips[0].input);
    assert_null(p.chips[0].kept);
    for (int i = 0; i < 3 * 112 * 112; i++)
        assert_true(p.chips[0].input[i] >= 0 && p.chips[0].input[i] <= 255);
    assert_true(p.decode_us >= 0 && p.detect_us > 0);
    photo_fini(&p);
    photo_fini(&p); /* twice is fine */
}

static void test_choices(void **state)
{
    struct photo p;
    struct error err = {0};
    struct box largest;

    (void)state;
    data_need("photos/group3.jpg");
    assert_int_equal(
        read_name("group3.jpg", FACE_SINGLE, false, &arcface, &p, &err), -1);
    assert_int_equal(err.code, ERR_MANY_FACES);
    assert_int_equal(p.n_faces, 5);
    assert_int_equal(p.n_chips, 0);
    photo_fini(&p);
    assert_int_equal(read_name("group3.jpg", FACE_ALL, false, NULL, &p, &err),
                     0);
    assert_int_equal(p.n_chips, 5);
    assert_null(p.chips[0].input);
    for (int i = 1; i < 5; i++)
        assert_true(box_area(&p.chips[i].face.box) <=
                    box_area(&p.chips[i - 1].face.box));
    largest = p.chips[0].face.box;
    photo_fini(&p);
    assert_int_equal(
        read_name("group3.jpg", FACE_LARGEST, false, NULL, &p, &err), 0);
    assert_int_equal(p.n_chips, 1);
    assert_memory_equal(&p.chips[0].face.box, &largest, sizeof(largest));
    photo_fini(&p);
    /* 594 pixels wide: the one of five that is nearest the middle. */
    assert_int_equal(
        read_name("group3.jpg", FACE_CENTRAL, false, NULL, &p, &err), 0);
    assert_true(p.chips[0].face.box.x0 < 297 && p.chips[0].face.box.x1 > 297);
    photo_fini(&p);
}

static void test_keep(void **state)
{
    struct photo p, again;
    struct error err = {0};
    const struct face_options opt = {.choice = FACE_CENTRAL};
    float dx, dy;

    (void)state;
    data_need("photos/kate_siegel.jpg");
    assert_int_equal(
        read_name("kate_siegel.jpg", FACE_LARGEST, true, &arcface, &p, &err),
        0);
    assert_true(p.chips[0].len_kept > 1000);
    /* The kept crop is a photo of the same face. */
    assert_int_equal(photo_read(all.scratch, &arcface, p.chips[0].kept,
                                p.chips[0].len_kept, &opt, &again, &err),
                     0);
    assert_true(again.width <= 320 && again.height <= 320);
    assert_true(box_iou(&again.chips[0].face.box, &p.chips[0].inner.box) >
                0.8f);
    dx = again.chips[0].face.points[2][0] - p.chips[0].inner.points[2][0];
    dy = again.chips[0].face.points[2][1] - p.chips[0].inner.points[2][1];
    assert_true(hypotf(dx, dy) < 5);
    photo_fini(&p);
    photo_fini(&again);
}

static void test_refusals(void **state)
{
    struct photo p;
    struct error err = {0};
    struct image *black;
    uint8_t *jpeg;
    size_t len;

    (void)state;
    data_need("weights/mtcnn_pnet.onnx");
    assert_int_equal(
        photo_read(all.scratch, &arcface, "hello", 5, NULL, &p, &err), -1);
    assert_true(err.code == ERR_IMAGE_TYPE || err.code == ERR_BAD_IMAGE);
    photo_fini(&p);
    black = image_new(320, 200, &err);
    memset(black->rgb, 0, 320 * 200 * 3);
    assert_int_equal(image_encode_jpeg(black, 90, &jpeg, &len, &err), 0);
    assert_int_equal(
        photo_read(all.scratch, &arcface, jpeg, len, NULL, &p, &err), -1);
    assert_int_equal(err.code, ERR_NO_FACE);
    assert_int_equal(p.width, 320);
    assert_int_equal(p.n_faces, 0);
    photo_fini(&p);
    free(jpeg);
    image_free(black);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_keep), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
