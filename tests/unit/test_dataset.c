/* tests/unit/test_dataset.c - folders to people and photos: order, what is
 * passed over, joined and refused; parting people. */
#include "core/train/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/folder.h"

static struct dataset d;
static struct error err;

static int setup(void **state)
{
    folder_new();
    memset(&err, 0, sizeof(err));
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dataset_fini(&d);
    folder_remove();
    return 0;
}

static void refused(const char *dirs, enum error_code code, const char *text)
{
    assert_int_equal(dataset_open(dirs, &d, &err), -1);
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%d %s (wanted %d, ...%s...)", err.code, err.text, code, text);
    assert_null(d.dir);
    assert_null(d.people);
    assert_int_equal(d.n_photos, 0);
}

static void path_is(int photo, const char *name)
{
    assert_string_equal(d.photos[photo].path, folder_path(name));
}

static void test_order(void **state)
{
    (void)state;
    folder_file("a/zoe/2.jpg", "x");
    folder_file("a/zoe/10.JPEG", "x");
    folder_file("a/zoe/1.pgm", "x");
    folder_file("a/Bob/x.png", "x");
    folder_file("a/\xc3\xa9va/y.webp", "x");
    folder_file("a/anna/c.PPM", "x");
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    assert_int_equal(d.n_people, 4);
    assert_int_equal(d.n_photos, 6);
    assert_string_equal(d.people[0].name, "Bob");
    assert_string_equal(d.people[1].name, "anna");
    assert_string_equal(d.people[2].name, "zoe");
    assert_string_equal(d.people[3].name, "\xc3\xa9va");
    assert_int_equal(d.people[2].first, 2);
    assert_int_equal(d.people[2].n, 3);
    path_is(0, "a/Bob/x.png");
    path_is(2, "a/zoe/1.pgm");
    path_is(3, "a/zoe/10.JPEG");
    path_is(4, "a/zoe/2.jpg");
    for (int i = 0; i < d.n_people; i++)
        for (int k = 0; k < d.people[i].n; k++)
            assert_int_equal(d.photos[d.people[i].first + k].person, i);
    assert_false(d.raw);
}

static void test_passed_over(void **state)
{
    (void)state;
    folder_file("a/p/1.jpg", "x");
    folder_file("a/p/2.jpg", "x");
    folder_file("a/p/.3.jpg", "x");
    folder_file("a/p/notes.txt", "x");
    folder_file("a/p/jpg", "x");
    folder_file("a/p/old/4.jpg", "x");
    folder_file("a/p/5.jpg/inside", "x"); /* a folder of that name */
    assert_int_equal(mkfifo(folder_path("a/p/6.jpg"), 0600), 0);
    folder_file("a/q/1.jpg", "x");
    folder_file("a/.hidden/1.jpg", "x");
    folder_file("a/empty/notes.txt", "x");
    folder_file("a/loose.jpg", "x");
    folder_file("a/readme.txt", "x");
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    assert_int_equal(d.n_people, 2);
    assert_int_equal(d.n_photos, 3);
    assert_int_equal(d.n_empty, 1);
    assert_int_equal(d.n_loose, 1);
    assert_int_equal(d.n_merged, 0);
}

static void test_several(void **state)
{
    char dirs[8192];

    (void)state;
    folder_file("b/p/2.jpg", "x");
    folder_file("b/q/1.jpg", "x");
    folder_file("a/p/3.jpg", "x");
    folder_file("a/r/1.jpg", "x");
    snprintf(dirs, sizeof(dirs), "%s//", folder_path("b"));
    strcat(dirs, ":");
    strcat(dirs, folder_path("a"));
    assert_int_equal(dataset_open(dirs, &d, &err), 0);
    assert_int_equal(d.n_people, 3);
    assert_int_equal(d.n_merged, 1);
    assert_int_equal(d.people[0].n, 2);
    path_is(0, "b/p/2.jpg"); /* the order of folders */
    path_is(1, "a/p/3.jpg");
    assert_string_equal(d.dir, dirs);
}

static void test_several_bad(void **state)
{
    char dirs[8192];

    (void)state;
    folder_file("a/p/1.jpg", "x");
    folder_file("a/p/2.jpg", "x");
    folder_file("a/q/2.jpg", "x");
    snprintf(dirs, sizeof(dirs), "%s:%s/../a", folder_path("a"),
             folder_path("a"));
    refused(dirs, ERR_BAD_FIELD, "twice");
    snprintf(dirs, sizeof(dirs), "%s:", folder_path("a"));
    refused(dirs, ERR_BAD_FIELD, "empty");
    refused("", ERR_BAD_FIELD, "empty");
    snprintf(dirs, sizeof(dirs), "%s:%s", folder_path("a"), folder_path("b"));
    refused(dirs, ERR_BAD_FIELD, "b: there is no such folder");
}

static void test_too_few(void **state)
{
    (void)state;
    folder_file("a/loose.jpg", "x");
    folder_dir("a/nobody");
    refused(folder_path("a"), ERR_BAD_FIELD,
            "1 empty folders, 1 photos outside");
    refused(folder_path("none"), ERR_BAD_FIELD, "no such folder");
    refused(folder_path("a/loose.jpg"), ERR_BAD_FIELD, "loose.jpg");
    assert_int_equal(dataset_list(folder_path("a"), &d, &err), 0);
    assert_int_equal(d.n_people, 0);
    folder_file("a/p/1.jpg", "x");
    folder_file("a/p/2.jpg", "x");
    dataset_fini(&d);
    assert_int_equal(dataset_list(folder_path("a"), &d, &err), 0);
    assert_int_equal(d.n_photos, 2);
    dataset_fini(&d);
    refused(folder_path("a"), ERR_BAD_FIELD, "1 person (2 photos)");
    folder_file("b/p/1.jpg", "x");
    folder_file("b/q/1.jpg", "x");
    refused(folder_path("b"), ERR_BAD_FIELD, "2 people with 1 photo each");
}

static void test_links(void **state)
{
    (void)state;
    folder_file("a/p/1.jpg", "x");
    folder_file("a/q/1.jpg", "x");
    folder_file("a2/secret/1.jpg", "x");
    folder_file("a2/text", "x");
    folder_link("1.jpg", "a/p/2.jpg");
    folder_link("p", "a/r");
    folder_link("../a2/text", "a/readme"); /* nothing that is read */
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    assert_int_equal(d.n_people, 3);
    assert_int_equal(d.n_photos, 5);
    dataset_fini(&d);

    folder_link("../a2/secret", "a/s"); /* begins with the same letters */
    refused(folder_path("a"), ERR_BAD_FIELD, "leads out");
    assert_int_equal(unlink(folder_path("a/s")), 0);
    folder_link("../../a2/secret/1.jpg", "a/q/2.jpg");
    refused(folder_path("a"), ERR_BAD_FIELD, "leads out");
    assert_int_equal(unlink(folder_path("a/q/2.jpg")), 0);
    folder_link("nothing.jpg", "a/q/2.jpg");
    refused(folder_path("a"), ERR_BAD_FIELD, "leads nowhere");
    assert_int_equal(unlink(folder_path("a/q/2.jpg")), 0);
    /* The folder itself may be one. */
    folder_link("a", "c");
    assert_int_equal(dataset_open(folder_path("c"), &d, &err), 0);
    assert_int_equal(d.n_photos, 5);
}

static void make_people(int n)
{
    char name[64];

    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2 + i % 3; k++) {
            snprintf(name, sizeof(name), "a/%03d/%d.jpg", i, k);
            folder_file(name, "x");
        }
}

static void check_whole(const struct dataset *p)
{
    int n = 0;

    for (int i = 0; i < p->n_people; i++) {
        assert_int_equal(p->people[i].first, n);
        n += p->people[i].n;
        if (i > 0)
            assert_true(strcmp(p->people[i - 1].name, p->people[i].name) < 0);
        for (int k = 0; k < p->people[i].n; k++) {
            const struct dataset_photo *photo =
                &p->photos[p->people[i].first + k];
            assert_int_equal(photo->person, i);
            assert_non_null(strstr(photo->path, p->people[i].name));
        }
    }
    assert_int_equal(n, p->n_photos);
}

static void test_split(void **state)
{
    struct dataset held, again, other;
    int n_same = 0, n_photos;

    (void)state;
    make_people(50);
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    n_photos = d.n_photos;
    d.raw = true;
    assert_int_equal(dataset_split(&d, 0.2, 7, &held, &err), 0);
    assert_int_equal(held.n_people, 10);
    assert_int_equal(d.n_people, 40);
    assert_int_equal(held.n_photos + d.n_photos, n_photos);
    assert_true(held.raw);
    check_whole(&held);
    check_whole(&d);
    for (int i = 0; i < held.n_people; i++)
        for (int k = 0; k < d.n_people; k++)
            assert_string_not_equal(held.people[i].name, d.people[k].name);
    dataset_fini(&d);

    /* The same seed draws the same people, another others. */
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    assert_int_equal(dataset_split(&d, 0.2, 7, &again, &err), 0);
    dataset_fini(&d);
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    assert_int_equal(dataset_split(&d, 0.2, 8, &other, &err), 0);
    for (int i = 0; i < 10; i++) {
        assert_string_equal(held.people[i].name, again.people[i].name);
        n_same += !strcmp(held.people[i].name, other.people[i].name);
    }
    assert_true(n_same < 10);
    dataset_fini(&held);
    dataset_fini(&again);
    dataset_fini(&other);
}

static void test_split_bad(void **state)
{
    static const double parts[] = {-0.1, 1, 1.5, 0.0 / 0.0};
    struct dataset held;

    (void)state;
    make_people(5);
    assert_int_equal(dataset_open(folder_path("a"), &d, &err), 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        assert_int_equal(dataset_split(&d, parts[i], 1, &held, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
    }
    /* One of five would stay. */
    assert_int_equal(dataset_split(&d, 0.8, 1, &held, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_non_null(strstr(err.text, "5 people"));
    assert_int_equal(dataset_split(&d, 0.99, 1, &held, &err), -1);
    assert_int_equal(d.n_people, 5);
    check_whole(&d);
    assert_int_equal(dataset_split(&d, 0, 1, &held, &err), 0);
    assert_int_equal(held.n_people, 0);
    assert_int_equal(d.n_people, 5);
    dataset_fini(&held);
    /* A small part is two people: one has nobody to be compared with. */
    assert_int_equal(dataset_split(&d, 0.01, 1, &held, &err), 0);
    assert_int_equal(held.n_people, 2);
    dataset_fini(&held);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_order),       T(test_passed_over), T(test_several),
        T(test_several_bad), T(test_too_few),     T(test_links),
        T(test_split),       T(test_split_bad),
    };

    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
