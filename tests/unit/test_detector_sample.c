/* tests/unit/test_detector_sample.c - a face carried from a photo to a scene,
 * and what a network should say of it in a crop, against numbers worked out by
 * hand; and a crop's pixels against the picture's. */
#include "core/train/detector_sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/face/detect_view.h"

#define NEAR(a, b) assert_true(fabs((double)(a) - (double)(b)) < 1e-4)

/* Pixels 11..30 across and 21..50 down, counted from one: 20 x 30. */
static const struct face face = {
    .box = {11, 21, 30, 50},
    .score = 0.99f,
    .points = {{15, 30}, {25, 31}, {20, 38}, {16, 44}, {24, 45}}};

static void test_move(void **state)
{
    struct detector_place twice = {.a = 2, .x0 = 5, .y0 = -3, .w = 100};
    struct detector_place turned = {.b = 1, .x0 = 200, .w = 100};
    struct face f = detector_scene_move(&twice, &face);

    (void)state;
    /* Edges 10..30 and 20..50 become 25..65 and 37..97. */
    NEAR(f.box.x0, 26);
    NEAR(f.box.x1, 65);
    NEAR(f.box.y0, 38);
    NEAR(f.box.y1, 97);
    NEAR(f.points[0][0], 35);
    NEAR(f.points[0][1], 57);
    NEAR(f.score, 0.99f);
    /* In the mirror the left eye is what was the right one. */
    twice.mirror = true;
    f = detector_scene_move(&twice, &face);
    NEAR(f.box.x0, 2 * 70 + 5 + 1);
    NEAR(f.box.x1, 2 * 90 + 5);
    NEAR(f.points[0][0], 2 * 75 + 5);
    NEAR(f.points[1][0], 2 * 85 + 5);
    NEAR(f.points[3][1], 2 * 45 - 3);
    /* A quarter turn: x = 200 - v, y = u; the box stays upright, 20 wide. */
    f = detector_scene_move(&turned, &face);
    NEAR(f.points[2][0], 200 - 38);
    NEAR(f.points[2][1], 20);
    NEAR(f.box.x0, 165 - 10 + 1);
    NEAR(f.box.x1, 165 + 10);
    NEAR(f.box.y1, 20 + 15);
}

static void test_aim(void **state)
{
    struct box b = {6, 16, 45, 55}; /* 40 pixels */
    float box[4], points[10];

    (void)state;
    detector_sample_aim(&b, &face, box, points);
    NEAR(box[0], 5.0 / 40);
    NEAR(box[1], 5.0 / 40);
    NEAR(box[2], -15.0 / 40);
    NEAR(box[3], -5.0 / 40);
    NEAR(points[0], 10.0 / 40);
    NEAR(points[5], 15.0 / 40);
    NEAR(points[9], 30.0 / 40);
    /* As the cascade does it: back to where they were. */
    NEAR(b.x0 + 40 * points[2] - 1, 20);
    NEAR(b.x1 + 40 * box[2], 30);
}

static void test_target(void **state)
{
    static struct detector_scene scene = {.n_faces = 2};
    struct detector_target t;
    struct box far_off = {200, 200, 240, 240}, other = {301, 301, 340, 340};

    (void)state;
    scene.faces[0].face = face;
    scene.faces[0].sure = true;
    scene.faces[1].face.box = other;
    detector_sample_target(&scene, &face.box, 0.6f, &t);
    NEAR(t.prob, 0.8);
    assert_true(t.box_weight == 1 && t.points_weight == 1);
    NEAR(t.box[0], 0);
    detector_sample_target(&scene, &far_off, 0.6f, &t);
    NEAR(t.prob, 0.3);
    assert_true(t.box_weight == 0 && t.points_weight == 0);
    /* Of what nobody is sure the teacher's word is all there is. */
    detector_sample_target(&scene, &other, 0.6f, &t);
    NEAR(t.prob, 0.6);
    assert_true(t.prob_weight == 1 && t.box_weight == 0);
}

static void test_view(void **state)
{
    struct error err = {0};
    struct image *img = image_new(40, 30, &err);
    struct detect_view *v = detect_view_new(&err);
    struct box inside = {11, 6, 20, 15}, outside = {41, 1, 50, 10};
    float out[3 * 10 * 10], level[3 * 12 * 12];

    (void)state;
    assert_non_null(img);
    assert_non_null(v);
    for (int i = 0; i < 40 * 30 * 3; i++)
        img->rgb[i] = (uint8_t)(i * 7);
    assert_int_equal(detect_view_set(v, img, &err), 0);
    assert_false(detect_view_crop(v, &outside, 10, out));
    assert_true(detect_view_crop(v, &inside, 10, out));
    for (int y = 0; y < 10; y++)
        for (int c = 0; c < 3; c++) {
            float want = img->rgb[((5 + y) * 40 + 10 + 4) * 3 + c];
            NEAR(out[(c * 10 + y) * 10 + 4], (want - 127.5f) / 128);
        }
    /* A level of half the size: means of two by two, 21 by 16 of them, each
     * a little less than two pixels wide. */
    memset(img->rgb, 64, 40 * 30 * 3);
    detect_view_level(v, 0.5, 8, 3, 12, level);
    for (int i = 0; i < 3 * 12 * 12; i++)
        NEAR(level[i], (64 - 127.5f) / 128);
    detect_view_free(v);
    image_free(img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_aim),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
