/* daemon/log.c - lines to stderr that can be read by a person, by grep and by
 * the journal. Every thread writes; a mutex keeps lines whole, and nobody
 * waits for a reader: where a write would block, the line is dropped and
 * counted. */
#include "daemon/log.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    /* Under PIPE_BUF: a pipe that polls writable takes it without blocking. */
    MAX_LINE = 2048
};

static struct {
    pthread_mutex_t lock;
    atomic_int level;
    atomic_int_least64_t dropped;
    bool journal; /* stderr is the journal's socket */
    bool socket;
    bool torn; /* the last line went out in part */
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_LEVEL_INFO};

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return "error";
    case LOG_LEVEL_WARN:
        return "warn";
    case LOG_LEVEL_INFO:
        return "info";
    case LOG_LEVEL_DEBUG:
        return "debug";
    }
    return "info";
}

void log_open(enum log_level level)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    pthread_mutex_lock(&out.lock);
    out.journal = out.socket = out.torn = false;
    if (fstat(STDERR_FILENO, &st) == 0) {
        out.socket = S_ISSOCK(st.st_mode);
        out.journal = stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
                      dev == st.st_dev && ino == st.st_ino;
    }
    pthread_mutex_unlock(&out.lock);
    log_set_level(level);
}

void log_set_level(enum log_level level)
{
    atomic_store(&out.level, (int)level);
}

int64_t log_dropped(void)
{
    return atomic_load(&out.dropped);
}

/* Under the lock; line ends with a line feed. */
static void write_line(const char *line, size_t len)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t n = -1;

    if (out.socket)
        n = send(STDERR_FILENO, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    else if (poll(&p, 1, 0) == 1 &&
             (p.revents & (POLLOUT | POLLERR)) == POLLOUT)
        n = write(STDERR_FILENO, line, len);
    if (n > 0)
        out.torn = (size_t)n < len;
    if (n < (ssize_t)len)
        atomic_fetch_add(&out.dropped, 1);
}

/* Where the line begins depends on who reads it: the journal has the time and
 * takes the level from the prefix. */
static int put_prefix(char *line, size_t size, enum log_level level)
{
    struct timespec ts;
    struct tm tm;
    char when[32];

    if (out.journal)
        return snprintf(line, size, "%s<%d>", out.torn ? "\n" : "", (int)level);
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    return snprintf(line, size, "%stime=%s.%03dZ level=%s ",
                    out.torn ? "\n" : "", when, (int)(ts.tv_nsec / 1000000),
                    level_name(level));
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    char line[MAX_LINE], rest[MAX_LINE - 256];
    va_list ap;
    int start, len;

    if ((int)level > atomic_load(&out.level))
        return;
    va_start(ap, fmt);
    vsnprintf(rest, sizeof(rest), fmt, ap);
    va_end(ap);
    /* What slipped past log_quote must still not forge a line. */
    for (char *c = rest; *c; c++) {
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
            *c = '?';
    }
    pthread_mutex_lock(&out.lock);
    start = put_prefix(line, sizeof(line), level);
    len =
        start + snprintf(line + start, sizeof(line) - (size_t)start,
                         "event=%.64s%s%s\n", event, rest[0] ? " " : "", rest);
    write_line(line, (size_t)len);
    pthread_mutex_unlock(&out.lock);
}

static bool is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || (c && strchr("._:/@+-,*[]", c));
}

/* One byte as it stands between quotes; out has 5 bytes. */
static int escape(unsigned char c, char *to)
{
    if (c == '"' || c == '\\')
        return sprintf(to, "\\%c", c);
    if (c == '\n')
        return sprintf(to, "\\n");
    if (c < 0x20 || c > 0x7e)
        return sprintf(to, "\\x%02x", c);
    return sprintf(to, "%c", c);
}

const char *log_quote(const char *text, char *buf, int len_buf)
{
    const unsigned char *s = (const unsigned char *)text;
    int n = 0, plain = 0;

    if (len_buf < 3) {
        if (len_buf > 0)
            buf[0] = '\0';
        return buf;
    }
    while (is_plain(s[plain]))
        plain++;
    if (plain > 0 && !s[plain] && plain < len_buf) {
        memcpy(buf, text, (size_t)plain + 1);
        return buf;
    }
    buf[n++] = '"';
    for (; *s; s++) {
        char one[8];
        int len = escape(*s, one);

        if (n + len > len_buf - 2)
            break; /* cut short, but closed */
        memcpy(buf + n, one, (size_t)len);
        n += len;
    }
    buf[n++] = '"';
    buf[n] = '\0';
    return buf;
}
