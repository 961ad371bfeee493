/* bench/bench_http.c - load on a running daemon, and a database with many
 * faces to search; bench/serve.py drives it and prints the figures.
 * usage: bench_http load PORT PATH CONNECTIONS SECONDS PHOTO [PHOTO2]
 *            keep-alive connections, each with one request at a time;
 *            prints "n seconds median_ms p90_ms p99_ms refused"
 *        bench_http fill DATA_DIR MODEL_ID DIM FACES
 *            random unit vectors, ten to a subject */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/face/distance.h"
#include "store/store.h"

enum {
    MAX_CONNECTIONS = 512,
    MAX_SAMPLES = 1 << 20,
    PER_SUBJECT = 10
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_http: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- load ------------------------------------------------------------- */

struct load {
    int port;
    double end;
    char *request;
    size_t len_request;
    double *samples; /* seconds of each answer that was 200 */
    atomic_int n_samples, n_refused;
};

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *data;
    long end;

    if (!f || fseek(f, 0, SEEK_END) || (end = ftell(f)) < 0)
        die(path, strerror(errno));
    rewind(f);
    *len = (size_t)end;
    data = malloc(*len + 1);
    if (!data || fread(data, 1, *len, f) != *len)
        die(path, "cannot be read");
    fclose(f);
    return data;
}

struct text {
    char *data;
    size_t len;
};

static void append(struct text *t, const void *data, size_t len)
{
    t->data = realloc(t->data, t->len + len + 1);
    if (!t->data)
        die("load", "no memory");
    memcpy(t->data + t->len, data, len);
    t->len += len;
}

/* One photo as the body, two as the form of /verify. */
static void make_request(struct load *l, const char *path, char **photos,
                         int n_photos)
{
    static const char boundary[] = "bench-9f2c77";
    struct text body = {NULL, 0}, all = {NULL, 0};
    char head[512];
    int n;

    for (int i = 0; i < n_photos; i++) {
        size_t len;
        char *data = read_file(photos[i], &len);
        if (n_photos > 1) {
            n = snprintf(head, sizeof(head),
                         "%s--%s\r\nContent-Disposition: form-data; "
                         "name=\"image%d\"; filename=\"p\"\r\n\r\n",
                         i ? "\r\n" : "", boundary, i + 1);
            append(&body, head, (size_t)n);
        }
        append(&body, data, len);
        free(data);
    }
    if (n_photos > 1) {
        n = snprintf(head, sizeof(head), "\r\n--%s--\r\n", boundary);
        append(&body, head, (size_t)n);
    }
    n = snprintf(head, sizeof(head),
                 "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s%s\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 path,
                 n_photos > 1 ? "multipart/form-data; boundary=" : "image/jpeg",
                 n_photos > 1 ? boundary : "", body.len);
    append(&all, head, (size_t)n);
    append(&all, body.data, body.len);
    free(body.data);
    l->request = all.data;
    l->len_request = all.len;
}

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        die("connect", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads one answer; its status, or -1 when the connection ended. */
static int read_answer(int fd)
{
    char buf[65536];
    size_t have = 0, want = 0;
    int status = -1;

    while (want == 0 || have < want) {
        ssize_t n = recv(fd, buf + (want ? 0 : have),
                         sizeof(buf) - 1 - (want ? 0 : have), 0);
        if (n <= 0)
            return -1;
        have += (size_t)n;
        if (!want) {
            char *end, *length;
            buf[have] = '\0';
            end = strstr(buf, "\r\n\r\n");
            length = strcasestr(buf, "\r\nContent-Length:");
            if (!end && have == sizeof(buf) - 1)
                return -1;
            if (!end)
                continue;
            if (!length || sscanf(buf, "HTTP/1.1 %d", &status) != 1)
                return -1;
            want = (size_t)(end + 4 - buf) +
                   strtoull(length + strlen("\r\nContent-Length:"), NULL, 10);
        }
    }
    return status;
}

static void *client(void *ctx)
{
    struct load *l = ctx;
    int fd = dial(l->port);

    while (now() < l->end) {
        double start = now();
        int status =
            send_all(fd, l->request, l->len_request) ? read_answer(fd) : -1;
        if (status == 200) {
            int i = atomic_fetch_add(&l->n_samples, 1);
            if (i < MAX_SAMPLES)
                l->samples[i] = now() - start;
            continue;
        }
        if (status != 503 && status != -1)
            die("an answer", "neither 200 nor 503");
        atomic_fetch_add(&l->n_refused, 1);
        close(fd);
        fd = dial(l->port);
    }
    close(fd);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int load(int argc, char **argv)
{
    static pthread_t threads[MAX_CONNECTIONS];
    struct load l = {.port = atoi(argv[0])};
    int n_connections = atoi(argv[2]), n;
    double start = now();

    if (n_connections < 1 || n_connections > MAX_CONNECTIONS)
        die(argv[2], "connections must be 1..512");
    make_request(&l, argv[1], argv + 4, argc - 4);
    l.samples = calloc(MAX_SAMPLES, sizeof(*l.samples));
    if (!l.samples)
        die("load", "no memory");
    l.end = start + atof(argv[3]);
    for (int i = 0; i < n_connections; i++)
        if (pthread_create(&threads[i], NULL, client, &l))
            die("thread", "cannot start");
    for (int i = 0; i < n_connections; i++)
        pthread_join(threads[i], NULL);
    n = atomic_load(&l.n_samples);
    if (n == 0)
        die("load", "nothing was answered 200");
    if (n > MAX_SAMPLES)
        n = MAX_SAMPLES;
    qsort(l.samples, (size_t)n, sizeof(*l.samples), ascending);
    printf("%d %.3f %.3f %.3f %.3f %d\n", n, now() - start,
           l.samples[n / 2] * 1e3, l.samples[(int64_t)n * 90 / 100] * 1e3,
           l.samples[(int64_t)n * 99 / 100] * 1e3, atomic_load(&l.n_refused));
    free(l.samples);
    free(l.request);
    return 0;
}

/* --- fill ------------------------------------------------------------- */

/* xorshift64* and a sum of uniforms: near enough to normal for directions. */
static float gaussian(uint64_t *state)
{
    float sum = 0;

    for (int i = 0; i < 4; i++) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        sum += (float)((*state * 0x2545F4914F6CDD1DULL) >> 40) / (1 << 24);
    }
    return sum - 2;
}

static int fill(char **argv)
{
    struct store_options opt = {.dir = argv[0], .relaxed = true};
    int dim = atoi(argv[2]), n_faces = atoi(argv[3]);
    struct error err = {0};
    struct store *s = store_open(&opt, &err);
    float *v = calloc((size_t)dim * PER_SUBJECT, sizeof(*v));
    uint64_t state = 88172645463325252ULL;

    if (!s || !v)
        die(argv[0], s ? "no memory" : err.text);
    for (int done = 0, k = 0; done < n_faces; done += PER_SUBJECT, k++) {
        struct store_new_face faces[PER_SUBJECT];
        int64_t ids[PER_SUBJECT];
        bool created, replayed;
        char id[32];
        struct store_enroll e = {.gallery = "crowd",
                                 .subject = id,
                                 .model_id = argv[1],
                                 .faces = faces,
                                 .n_faces = PER_SUBJECT};
        snprintf(id, sizeof(id), "s%06d", k);
        for (int i = 0; i < PER_SUBJECT; i++) {
            float *row = v + (size_t)i * (size_t)dim;
            for (int j = 0; j < dim; j++)
                row[j] = gaussian(&state);
            distance_normalise(row, (size_t)dim);
            faces[i] = (struct store_new_face){.box = {0, 0, 100, 100},
                                               .score = 1,
                                               .embedding = row,
                                               .dim = dim};
        }
        if (store_enroll(s, &e, ids, &created, &replayed, &err) < 0)
            die("fill", err.text);
    }
    store_close(s);
    free(v);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 7 && argc <= 8 && strcmp(argv[1], "load") == 0)
        return load(argc - 2, argv + 2);
    if (argc == 6 && strcmp(argv[1], "fill") == 0)
        return fill(argv + 2);
    fputs("usage: bench_http load PORT PATH CONNECTIONS SECONDS PHOTO "
          "[PHOTO2]\n"
          "       bench_http fill DATA_DIR MODEL_ID DIM FACES\n",
          stderr);
    return 2;
}
