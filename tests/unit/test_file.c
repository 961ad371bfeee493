/* tests/unit/test_file.c - writing through a pipe that takes pieces, to a full
 * device, to what is closed; syncing what is no directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/file.h"

enum {
    LEN = 1 << 20 /* far more than a pipe holds */
};

static void *drain(void *fd)
{
    char *got = calloc(1, LEN);
    size_t n = 0;
    ssize_t piece;

    while (got && n < LEN && (piece = read(*(int *)fd, got + n, 777)) > 0)
        n += (size_t)piece;
    return got;
}

static void test_pieces(void **state)
{
    char *bytes = malloc(LEN);
    pthread_t reader;
    void *got = NULL;
    int fds[2];

    (void)state;
    assert_non_null(bytes);
    for (int i = 0; i < LEN; i++)
        bytes[i] = (char)(i * 31 >> 3);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pthread_create(&reader, NULL, drain, &fds[0]), 0);
    assert_int_equal(file_write_all(fds[1], bytes, LEN), 0);
    pthread_join(reader, &got);
    assert_non_null(got);
    assert_memory_equal(got, bytes, LEN);
    free(got);
    free(bytes);
    close(fds[0]);
    close(fds[1]);
}

static void test_failures(void **state)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(full >= 0);
    assert_int_equal(file_write_all(full, "x", 1), -1);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(file_write_all(full, "", 0), 0);
    close(full);
    assert_int_equal(file_write_all(-1, "x", 1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(file_sync_dir("/dev/full"), -1);
    assert_int_equal(errno, ENOTDIR);
    assert_int_equal(file_sync_dir("."), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
