/* daemon/http_listen.c - the sockets that the server listens on: its own,
 * bound to an address given as text, or handed over by systemd. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/http_priv.h"

enum {
    BACKLOG = 1024
};

static int keep_fd(struct http *h, int fd, struct error *err)
{
    int family = AF_UNSPEC, listening = 0;
    socklen_t len = sizeof(family);
    int flags = fcntl(fd, F_GETFL);

    if (h->n_listen == HTTP_MAX_LISTEN)
        return error_set(err, ERR_CONFIG, "more than %d listening sockets",
                         HTTP_MAX_LISTEN);
    if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 ||
        !listening)
        return error_set(err, ERR_CONFIG,
                         "descriptor %d is not a listening socket", fd);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    h->listen[h->n_listen] = fd;
    h->listen_unix[h->n_listen++] = family == AF_UNIX;
    return 0;
}

/* A path left behind by a dead process is in the way; one that answers is
 * not ours to take. */
static int clear_path(const struct sockaddr_un *addr, struct error *err)
{
    struct stat st;
    int fd, rc;

    if (lstat(addr->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, ERR_FILE, "listen: %s is there and no socket",
                         addr->sun_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rc =
        fd < 0 ? -1 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
    if (rc == 0 || errno == EAGAIN) {
        close(fd);
        return error_set(err, ERR_FILE, "listen: %s is in use", addr->sun_path);
    }
    if (fd >= 0)
        close(fd);
    unlink(addr->sun_path);
    return 0;
}

static int open_unix(struct http *h, const char *path, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd;

    if (path[0] != '/' || strlen(path) >= sizeof(addr.sun_path))
        return error_set(err, ERR_CONFIG,
                         "listen: unix: needs an absolute path of at most "
                         "%zu bytes",
                         sizeof(addr.sun_path) - 1);
    strcpy(addr.sun_path, path);
    if (clear_path(&addr, err) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0) {
        error_set(err, ERR_FILE, "listen: %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    h->unlink_path = strdup(path);
    if (keep_fd(h, fd, err) == 0)
        return 0;
    close(fd);
    return -1;
}

static int open_inet(struct http *h, const struct addrinfo *ai,
                     struct error *err, const char *text)
{
    int on = 1, off = 0;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        goto fail;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
        goto fail;
    if (keep_fd(h, fd, err) == 0)
        return 0;
    close(fd);
    return -1;
fail:
    error_set(err, ERR_FILE, "listen: %s: %s", text, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* "host:port", "[v6]:port", ":port"; numeric, so that no name server decides
 * what is bound. */
static int open_address(struct http *h, const char *text, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags =
                                 AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *ai = NULL;
    char host[64];
    const char *colon = strrchr(text, ':'), *from = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    char *end;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    int rc;

    if (!colon || !colon[1] || *end || colon[1] == '+' || colon[1] == '-' ||
        port < 0 || port > 65535 || len >= sizeof(host))
        goto bad;
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        from++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        goto bad; /* IPv6 without brackets: where does the port begin? */
    }
    memcpy(host, from, len);
    host[len] = '\0';
    if (getaddrinfo(len ? host : "::", colon + 1, &hints, &ai) != 0)
        goto bad;
    rc = open_inet(h, ai, err, text);
    freeaddrinfo(ai);
    if (rc < 0 && len == 0 &&
        getaddrinfo("0.0.0.0", colon + 1, &hints, &ai) == 0) {
        rc = open_inet(h, ai, err, text); /* a kernel without IPv6 */
        freeaddrinfo(ai);
    }
    return rc;
bad:
    return error_set(err, ERR_CONFIG,
                     "listen: %.100s is not ADDRESS:PORT, [ADDRESS]:PORT, "
                     ":PORT or unix:/PATH",
                     text);
}

int http_listen_open(struct http *h, int *port, struct error *err)
{
    struct sockaddr_storage addr;
    socklen_t len;

    if (h->opt.n_fds > 0) {
        for (int i = 0; i < h->opt.n_fds; i++) {
            if (keep_fd(h, h->opt.fds[i], err) < 0)
                return -1;
        }
    } else if (!h->opt.listen) {
        return error_set(err, ERR_CONFIG, "listen: no address given");
    } else if (strncmp(h->opt.listen, "unix:", 5) == 0) {
        if (open_unix(h, h->opt.listen + 5, err) < 0)
            return -1;
    } else if (open_address(h, h->opt.listen, err) < 0) {
        return -1;
    }
    if (!port)
        return 0;
    *port = 0;
    for (int i = 0; i < h->n_listen && *port == 0; i++) {
        len = sizeof(addr);
        if (getsockname(h->listen[i], (struct sockaddr *)&addr, &len) < 0)
            continue;
        if (addr.ss_family == AF_INET)
            *port = ntohs(((struct sockaddr_in *)(void *)&addr)->sin_port);
        else if (addr.ss_family == AF_INET6)
            *port = ntohs(((struct sockaddr_in6 *)(void *)&addr)->sin6_port);
    }
    return 0;
}

void http_listen_close(struct http *h)
{
    for (int i = 0; i < h->n_listen; i++)
        close(h->listen[i]);
    h->n_listen = 0;
    if (h->unlink_path)
        unlink(h->unlink_path);
    free(h->unlink_path);
    h->unlink_path = NULL;
}
