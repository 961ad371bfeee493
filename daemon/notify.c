/* daemon/notify.c - datagrams to the service manager (sd_notify(3)) and the
 * sockets it hands over (sd_listen_fds(3)), without its library: both are a
 * few lines and stable by promise. */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_FD = 3 /* SD_LISTEN_FDS_START */
};

/* Best effort: a manager that does not listen is its own affair. */
static void send_state(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (len < 2 || len >= sizeof(addr.sun_path) ||
        (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(addr.sun_path, path, len);
    if (path[0] == '@')
        addr.sun_path[0] = '\0'; /* abstract; its length says where it ends */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
           (struct sockaddr *)&addr,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void notify_ready(void)
{
    send_state("READY=1");
}

void notify_stopping(void)
{
    send_state("STOPPING=1");
}

void notify_reloading(void)
{
    char text[80];
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
    send_state(text);
}

void notify_watchdog(void)
{
    send_state("WATCHDOG=1");
}

void notify_status(const char *fmt, ...)
{
    char text[256] = "STATUS=";
    size_t used = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text + used, sizeof(text) - used, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++) {
        if (*c == '\n')
            *c = ' '; /* a new line would be a new assignment */
    }
    send_state(text);
}

void notify_extend(int64_t usec)
{
    char text[64];

    snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%lld", (long long)usec);
    send_state(text);
}

/* A whole positive number in a variable, or -1. */
static long long number_of(const char *variable)
{
    const char *text = getenv(variable);
    long long n;
    char *end;

    if (!text || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    n = strtoll(text, &end, 10);
    return *end || errno ? -1 : n;
}

int64_t notify_watchdog_us(void)
{
    long long usec = number_of("WATCHDOG_USEC");

    if (usec <= 0 ||
        (getenv("WATCHDOG_PID") && number_of("WATCHDOG_PID") != getpid()))
        return 0;
    return usec / 2;
}

int notify_listen_fds(int fds[], int max)
{
    long long n = number_of("LISTEN_FDS");
    int taken = 0;

    if (number_of("LISTEN_PID") != getpid() || n < 0 || n > 1024)
        n = 0;
    for (int i = 0; i < (int)n; i++) {
        int fd = FIRST_FD + i;
        int flags = fcntl(fd, F_GETFD);

        if (flags < 0)
            continue;
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
        if (taken < max)
            fds[taken++] = fd;
        else
            close(fd);
    }
    /* Children must not take them for theirs. */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return taken;
}
