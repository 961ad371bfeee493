/* tests/unit/test_notify.c - the test plays the service manager: a datagram
 * socket to be told on, variables, and descriptors handed over. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/notify.h"

static char dir[] = "/tmp/notifytestXXXXXX";

/* A manager at path, '@' for abstract. */
static int manager(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(addr.sun_path, path, strlen(path));
    if (path[0] == '@')
        addr.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                      strlen(path))),
                     0);
    setenv("NOTIFY_SOCKET", path, 1);
    return fd;
}

static const char *told(int fd)
{
    static char text[512];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void say_everything(int fd)
{
    long long usec;

    notify_ready();
    assert_string_equal(told(fd), "READY=1");
    notify_stopping();
    assert_string_equal(told(fd), "STOPPING=1");
    notify_watchdog();
    assert_string_equal(told(fd), "WATCHDOG=1");
    notify_status("%d faces\nREADY=1", 7);
    assert_string_equal(told(fd), "STATUS=7 faces READY=1");
    notify_extend(5000000);
    assert_string_equal(told(fd), "EXTEND_TIMEOUT_USEC=5000000");
    notify_reloading();
    assert_int_equal(
        sscanf(told(fd), "RELOADING=1\nMONOTONIC_USEC=%lld", &usec), 1);
    assert_true(usec > 0);
    assert_string_equal(told(fd), "");
}

static void test_states(void **state)
{
    char path[64], abstract[64];
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "%s/n", dir);
    fd = manager(path);
    say_everything(fd);
    close(fd);
    unlink(path);
    notify_ready(); /* nobody there: no harm */

    snprintf(abstract, sizeof(abstract), "@notifytest-%d", (int)getpid());
    fd = manager(abstract);
    say_everything(fd);
    unsetenv("NOTIFY_SOCKET");
    notify_ready();
    setenv("NOTIFY_SOCKET", "relative", 1);
    notify_ready();
    assert_string_equal(told(fd), "");
    close(fd);
    unsetenv("NOTIFY_SOCKET");
}

static void test_watchdog(void **state)
{
    char pid[16];

    (void)state;
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    assert_int_equal(notify_watchdog_us(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(notify_watchdog_us(), 15000000);
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(notify_watchdog_us(), 15000000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_us(), 0);
    setenv("WATCHDOG_PID", pid, 1);
    setenv("WATCHDOG_USEC", "30s", 1);
    assert_int_equal(notify_watchdog_us(), 0);
    setenv("WATCHDOG_USEC", "-5", 1);
    assert_int_equal(notify_watchdog_us(), 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* In a child, because descriptor 3 and up are the test's own. Exits with the
 * number of the failed line, 0 when all holds. */
#define CHECK(x)                                                               \
    do {                                                                       \
        if (!(x))                                                              \
            _exit(__LINE__ % 250 + 1);                                         \
    } while (0)

static void child(void)
{
    char text[16];
    int fds[4] = {-1, -1, -1, -1};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);

    CHECK(s >= 0);
    s = fcntl(s, F_DUPFD, 20); /* out of the way of 3 and 4 */
    CHECK(dup2(s, 3) == 3 && dup2(s, 4) == 4);
    snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_PID", "1", 1);
    CHECK(notify_listen_fds(fds, 4) == 0); /* another's */
    CHECK(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID"));
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_PID", text, 1);
    setenv("LISTEN_FDNAMES", "a:b", 1);
    CHECK(notify_listen_fds(fds, 4) == 2);
    CHECK(fds[0] == 3 && fds[1] == 4 && fds[2] == -1);
    CHECK(fcntl(3, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(4, F_GETFD) & FD_CLOEXEC);
    CHECK(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID") &&
          !getenv("LISTEN_FDNAMES"));
    CHECK(notify_listen_fds(fds, 4) == 0); /* only once */
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_PID", text, 1);
    CHECK(notify_listen_fds(fds, 1) == 1); /* no room: closed, not leaked */
    CHECK(fcntl(3, F_GETFD) >= 0 && fcntl(4, F_GETFD) < 0);
    setenv("LISTEN_FDS", "2x", 1);
    setenv("LISTEN_PID", text, 1);
    CHECK(notify_listen_fds(fds, 4) == 0);
    _exit(0);
}

static void test_listen(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0)
        child();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_states),
                                       cmocka_unit_test(test_watchdog),
                                       cmocka_unit_test(test_listen)};

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
