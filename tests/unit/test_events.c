/* tests/unit/test_events.c - event files: checksums by the published check
 * value, and every record read back by a reader of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/train/events.h"

static char dir[] = "/tmp/test_events.XXXXXX";

static uint64_t number(const uint8_t *p, int n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static uint32_t unmask(uint32_t m)
{
    m -= 0xa282ead8u;
    return m >> 17 | m << 15;
}

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 20);

    assert_non_null(f);
    assert_non_null(bytes);
    *n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

/* The record at p: its data and length; how many bytes it takes in all. */
static size_t record(const uint8_t *p, size_t left, const uint8_t **data,
                     size_t *n)
{
    assert_true(left >= 16);
    *n = number(p, 8);
    assert_true(left >= 16 + *n);
    assert_int_equal(unmask((uint32_t)number(p + 8, 4)), events_crc(p, 8));
    *data = p + 12;
    assert_int_equal(unmask((uint32_t)number(p + 12 + *n, 4)),
                     events_crc(*data, *n));
    return 16 + *n;
}

static void check_value(void **state)
{
    uint8_t zeros[32] = {0};

    (void)state;
    /* RFC 3720, appendix B.4, and the usual check string */
    assert_int_equal(events_crc("123456789", 9), 0xe3069283u);
    assert_int_equal(events_crc(zeros, sizeof(zeros)), 0x8a9136aau);
    assert_int_equal(events_crc("", 0), 0);
}

static void a_scalar_is_read_back(void **state)
{
    struct error err;
    struct events *ev = events_open(dir, 1700000000.5, &err);
    uint8_t *bytes;
    const uint8_t *data;
    size_t size, n, at;
    char path[512];
    double t;
    float v;

    (void)state;
    assert_non_null(ev);
    snprintf(path, sizeof(path), "%s", events_path(ev));
    assert_non_null(strstr(path, "/events.out.tfevents.1700000000."));
    assert_int_equal(events_scalar(ev, 2.25, 300, "loss", 0.125f, &err), 0);
    assert_int_equal(events_close(ev, &err), 0);

    bytes = read_file(path, &size);
    at = record(bytes, size, &data, &n);
    memcpy(&t, data + 1, 8);
    assert_int_equal(data[0], 0x09);
    assert_true(t == 1700000000.5);
    assert_int_equal(data[9], 0x1a); /* file_version */
    assert_int_equal(data[10], 13);
    assert_memory_equal(data + 11, "brain.Event:2", 13);
    assert_int_equal(n, 24);

    at += record(bytes + at, size - at, &data, &n);
    assert_int_equal(at, size);
    memcpy(&t, data + 1, 8);
    assert_true(t == 2.25);
    /* step 300 = 0xac 0x02; summary of 13; value of 11; tag; simple_value */
    assert_memory_equal(data + 9,
                        "\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15", 14);
    memcpy(&v, data + 23, 4);
    assert_true(v == 0.125f);
    assert_int_equal(n, 27);
    free(bytes);
}

static void numbers_of_every_kind(void **state)
{
    static const int64_t steps[] = {0, 127, 128, INT64_MAX};
    struct error err;
    struct events *ev = events_open(dir, 1, &err);
    char path[512], tag[EVENTS_MAX_TAG + 2];
    uint8_t *bytes;
    const uint8_t *data;
    size_t size, n, at = 0;
    int n_records = 0;

    (void)state;
    assert_non_null(ev);
    snprintf(path, sizeof(path), "%s", events_path(ev));
    memset(tag, 'x', sizeof(tag));
    tag[EVENTS_MAX_TAG] = '\0';
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(events_scalar(ev, 3, steps[i], tag, NAN, &err), 0);
    tag[EVENTS_MAX_TAG] = 'x';
    tag[EVENTS_MAX_TAG + 1] = '\0';
    assert_int_equal(events_scalar(ev, 3, 1, tag, 0, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_non_null(strstr(err.text, "201"));
    assert_int_equal(events_scalar(ev, 3, 1, "", 0, &err), -1);
    assert_int_equal(events_close(ev, &err), 0);
    bytes = read_file(path, &size);
    for (; at < size; n_records++)
        at += record(bytes + at, size - at, &data, &n);
    assert_int_equal(n_records, 5);
    free(bytes);
}

static void a_name_is_never_taken_twice(void **state)
{
    struct error err;
    struct events *a = events_open(dir, 77, &err);
    struct events *b = events_open(dir, 77, &err);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_string_not_equal(events_path(a), events_path(b));
    assert_int_equal(events_close(a, &err), 0);
    assert_int_equal(events_close(b, &err), 0);
    assert_null(events_open("/nonexistent-folder", 77, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, "/nonexistent-folder"));
}

/* A file that may grow no more stays whole up to its last record. */
static void a_full_disk_leaves_whole_records(void **state)
{
    struct error err;
    struct events *ev = events_open(dir, 99, &err);
    struct rlimit old, tight;
    struct stat st;
    char path[512];

    (void)state;
    assert_non_null(ev);
    snprintf(path, sizeof(path), "%s", events_path(ev));
    assert_int_equal(events_scalar(ev, 1, 1, "loss", 1, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = (rlim_t)st.st_size + 10;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(events_scalar(ev, 1, 2, "loss", 1, &err), -1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err.code, ERR_FILE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 16 + 24 + 16 + 26);
    assert_int_equal(events_scalar(ev, 1, 3, "loss", 1, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 16 + 24 + 2 * (16 + 26));
    assert_int_equal(events_close(ev, &err), 0);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char cmd[80];

    (void)state;
    snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_value),
        cmocka_unit_test(a_scalar_is_read_back),
        cmocka_unit_test(numbers_of_every_kind),
        cmocka_unit_test(a_name_is_never_taken_twice),
        cmocka_unit_test(a_full_disk_leaves_whole_records),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
