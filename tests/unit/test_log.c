/* tests/unit/test_log.c - one event is one line, whatever it is fed, and
 * nobody waits for a reader. Standard error is a pipe or a socket made here;
 * cmocka's own messages go to the real one. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/log.h"

static int real_stderr;

/* Read what is there, up to size - 1 bytes. */
static size_t drain(int fd, char *buf, size_t size)
{
    size_t n = 0;
    ssize_t got;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (n + 1 < size && (got = read(fd, buf + n, size - 1 - n)) > 0)
        n += (size_t)got;
    buf[n] = '\0';
    return n;
}

static void redirect(int fd)
{
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void restore(void)
{
    dup2(real_stderr, STDERR_FILENO);
}

static void test_quote(void **state)
{
    char buf[64], tiny[8], none[2];

    (void)state;
    assert_string_equal(log_quote("abc-1.2:/x", buf, 64), "abc-1.2:/x");
    assert_string_equal(log_quote("", buf, 64), "\"\"");
    assert_string_equal(log_quote("a b", buf, 64), "\"a b\"");
    assert_string_equal(log_quote("a=b", buf, 64), "\"a=b\"");
    assert_string_equal(log_quote("a\"\\\n\t\x1b\x7f\xc3", buf, 64),
                        "\"a\\\"\\\\\\n\\x09\\x1b\\x7f\\xc3\"");
    assert_string_equal(log_quote("abcdefghijkl", tiny, 8), "\"abcde\"");
    assert_string_equal(log_quote("abcd\n\n\n", tiny, 8), "\"abcd\"");
    assert_string_equal(log_quote("abc", none, 2), "");
}

static void test_lines(void **state)
{
    int p[2];
    char text[8192], quoted[64];
    size_t n;

    (void)state;
    assert_int_equal(pipe(p), 0);
    redirect(p[1]);
    unsetenv("JOURNAL_STREAM");
    log_open(LOG_LEVEL_INFO);
    log_event(LOG_LEVEL_INFO, "start", "port=%d", 80);
    log_event(LOG_LEVEL_DEBUG, "hidden", "a=1");
    log_event(LOG_LEVEL_WARN, "bare", "%s", "");
    log_event(LOG_LEVEL_ERROR, "forged", "text=%s", "x\n<0>event=evil\x1b[0m");
    log_event(LOG_LEVEL_ERROR, "good", "text=%s",
              log_quote("x\nevent=evil", quoted, sizeof(quoted)));
    log_set_level(LOG_LEVEL_DEBUG);
    log_event(LOG_LEVEL_DEBUG, "shown", "%5000d", 1);
    log_set_level(LOG_LEVEL_INFO);
    restore();
    n = drain(p[0], text, sizeof(text));
    close(p[0]);
    int lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 5);
    assert_non_null(strstr(text, "Z level=info event=start port=80\n"));
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, " level=warn event=bare\n"));
    assert_non_null(strstr(text, "event=forged text=x?<0>event=evil?[0m\n"));
    assert_non_null(strstr(text, "event=good text=\"x\\nevent=evil\"\n"));
    assert_non_null(strstr(text, "event=shown"));
}

/* The journal is told the level by a prefix and knows the time itself. */
static void test_journal(void **state)
{
    int s[2];
    char text[4096], where[64];
    struct stat st;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    redirect(s[1]);
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(where, sizeof(where), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", where, 1);
    log_open(LOG_LEVEL_INFO);
    log_event(LOG_LEVEL_WARN, "one", "a=%d", 1);
    restore();
    drain(s[0], text, sizeof(text));
    close(s[0]);
    assert_string_equal(text, "<4>event=one a=1\n");
    unsetenv("JOURNAL_STREAM");
    log_open(LOG_LEVEL_INFO);
}

/* Nobody reads: lines are dropped and counted, and when there is room again
 * the next line begins at the start of a line. */
static void test_blocked(void **state)
{
    static char text[4 * 1024 * 1024];
    int64_t before = log_dropped();

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        int p[2];
        int64_t dropped;

        assert_int_equal(
            kind ? socketpair(AF_UNIX, SOCK_STREAM, 0, p) : pipe(p), 0);
        redirect(p[1]);
        log_open(LOG_LEVEL_INFO);
        for (int i = 0; i < 20000; i++)
            log_event(LOG_LEVEL_INFO, "fill", "n=%d", i);
        dropped = log_dropped() - before;
        drain(p[0], text, sizeof(text));
        log_event(LOG_LEVEL_INFO, "after", "n=%d", 1);
        restore();
        assert_true(dropped > 0 && dropped < 20000);
        drain(p[0], text, sizeof(text));
        close(p[0]);
        char *last = strstr(text, "time=");
        assert_non_null(last);
        assert_true(last == text || last == text + 1);
        assert_non_null(strstr(last, "event=after n=1\n"));
        before = log_dropped();
    }
    log_open(LOG_LEVEL_INFO);
}

static void *writer(void *arg)
{
    for (int i = 0; i < 100; i++)
        log_event(LOG_LEVEL_INFO, "thread", "id=%s i=%d", (const char *)arg, i);
    return NULL;
}

static void test_threads(void **state)
{
    static char text[256 * 1024];
    pthread_t t[4];
    char *ids[4] = {"aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"};
    int p[2], lines = 0;
    char *line, *save = NULL;

    (void)state;
    assert_int_equal(pipe(p), 0);
    redirect(p[1]);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, writer, ids[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    restore();
    drain(p[0], text, sizeof(text));
    close(p[0]);
    for (line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char id[16];
        int i;
        assert_int_equal(sscanf(line,
                                "time=%*s level=info event=thread id=%15s i=%d",
                                id, &i),
                         2);
        lines++;
    }
    assert_int_equal(lines, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quote), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_journal), cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_threads)};

    real_stderr = dup(STDERR_FILENO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
