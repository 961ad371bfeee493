/* tests/unit/test_http_life.c - time, loss and overload: deadlines, clients
 * that leave, limits, stopping, sockets of other kinds, TLS. */
#include "tests/unit/http_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

/* Feed fd a byte every few milliseconds until the server has enough; returns
 * how long that took. */
static int64_t trickle(int fd, const char *text)
{
    int64_t start = fx_now_ms();
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

    while (fx_now_ms() - start < PATIENCE_MS) {
        if (!cl_send(fd, *text ? text : "a", 1))
            break;
        text += *text != '\0';
        if (poll(&p, 1, 5) > 0)
            break;
    }
    return fx_now_ms() - start;
}

static struct http_stats stats_of(const struct fixture *f)
{
    struct http_stats s;

    http_stats(f->h, &s);
    return s;
}

/* Until the buffers are empty and no request is in flight. */
static bool settles(const struct fixture *f)
{
    int64_t until = fx_now_ms() + PATIENCE_MS;
    struct http_stats s = stats_of(f);

    while ((s.buffered_bytes || s.in_flight) && fx_now_ms() < until) {
        poll(NULL, 0, 2);
        s = stats_of(f);
    }
    return !s.buffered_bytes && !s.in_flight;
}

static void test_slow_head(void **state)
{
    struct http_options opt = {.n_threads = 1, .header_ms = 200};
    static const char *const starts[] = {
        "", "GET /", "GET /echo HTTP/1.1\r\nHost: a\r\nX-Slow: "};
    struct fixture f;
    int64_t took;

    (void)state;
    fx_start(&f, &opt);
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        int fd = cl_connect(&f);

        cl_say(fd, starts[i]);
        took = trickle(fd, "");
        close(fd);
        if (took < 150 || took > 2000)
            fail_msg("start %zu: closed after %d ms", i, (int)took);
    }
    assert_true(stats_of(&f).timed_out >= 3);
    fx_stop(&f);
}

static void test_slow_body(void **state)
{
    struct http_options opt = {.n_threads = 1, .body_ms = 200};
    struct fixture f;
    int64_t took;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n"
               "\r\n");
    took = trickle(fd, "");
    close(fd);
    assert_true(took >= 150 && took < 2000);
    assert_true(fx_wait(&f.n_done, 1));
    assert_int_equal(atomic_load(&f.last_status), 408);
    assert_true(settles(&f));
    assert_int_equal(atomic_load(&f.n_handled), 0);
    fx_stop(&f);
}

static void test_idle(void **state)
{
    struct http_options opt = {.n_threads = 1, .idle_ms = 200};
    struct fixture f;
    struct reply r;
    int64_t start;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, GET("/echo"));
    cl_read(fd, &r, false);
    start = fx_now_ms();
    assert_true(cl_at_end(fd));
    assert_true(fx_now_ms() - start < 2000);
    close(fd);
    assert_int_equal(stats_of(&f).timed_out, 0);
    fx_stop(&f);
}

/* A client that does not read its answer is not waited for. 16 MiB fit into
 * no socket's buffer; the time given grows with the length. */
static void test_slow_reader(void **state)
{
    struct http_options opt = {
        .n_threads = 1, .body_ms = 200, .send_kib_s = 1024 * 1024};
    struct fixture f;
    int64_t until = fx_now_ms() + PATIENCE_MS;
    int fd, small = 4096;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    cl_say(fd, GET("/large"));
    while (fx_now_ms() < until && stats_of(&f).timed_out == 0)
        poll(NULL, 0, 5);
    assert_int_equal(stats_of(&f).timed_out, 1);
    assert_true(settles(&f));
    close(fd);
    fx_stop(&f);
}

static void test_answer_deadline(void **state)
{
    struct http_options opt = {.n_threads = 1, .answer_ms = 200};
    struct fixture f;
    struct reply r;
    struct request *req;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, GET("/never"));
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body, "\"deadline\""));
    assert_non_null(cl_header(&r, "Retry-After"));
    req = atomic_exchange(&f.kept, NULL);
    assert_true(request_cancelled(req));
    assert_true(request_deadline_us(req) > 0);
    http_answer(req, 200, "text/plain", strdup("late"), 4); /* dropped */
    request_unref(req);
    cl_say(fd, GET("/echo"));
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200); /* the connection lives on */
    close(fd);
    fx_stop(&f);
    assert_int_equal(atomic_load(&f.n_freed), 2);
}

static void test_gone_in_upload(void **state)
{
    struct http_options opt = {.n_threads = 1};
    struct fixture f;
    static char half[100000];
    int64_t until = fx_now_ms() + PATIENCE_MS;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n"
               "\r\n");
    cl_send(fd, half, sizeof(half));
    while (stats_of(&f).buffered_bytes < (int64_t)sizeof(half) &&
           fx_now_ms() < until)
        poll(NULL, 0, 2);
    assert_true(stats_of(&f).buffered_bytes >= (int64_t)sizeof(half));
    close(fd);
    assert_true(settles(&f));
    assert_int_equal(atomic_load(&f.n_handled), 0);
    assert_int_equal(atomic_load(&f.last_status), 499);
    fx_stop(&f);
}

static void test_gone_while_waiting(void **state)
{
    struct http_options opt = {.n_threads = 1};
    struct fixture f;
    struct request *req;
    int64_t start;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    /* Pipelined bytes behind it must not hide the end. */
    cl_say(fd, GET("/never") GET("/echo"));
    assert_true(fx_wait(&f.n_handled, 1));
    assert_int_equal(stats_of(&f).connections, 1);
    start = fx_now_ms();
    close(fd);
    assert_true(settles(&f));
    assert_true(fx_now_ms() - start <= 1000);
    req = atomic_exchange(&f.kept, NULL);
    assert_true(request_cancelled(req));
    assert_string_equal(request_path(req), "/never"); /* still readable */
    assert_string_equal(request_header(req, "hOST"), "a");
    assert_int_equal(atomic_load(&f.n_freed), 0);
    http_answer(req, 200, NULL, NULL, 0);
    request_unref(req);
    assert_int_equal(atomic_load(&f.n_freed), 1);
    assert_int_equal(atomic_load(&f.n_handled), 1);
    fx_stop(&f);
}

static void test_budget(void **state)
{
    struct http_options opt = {.n_threads = 1, .max_buffered = 300 * 1024};
    struct fixture f;
    struct reply r;
    static char body[200 * 1024];
    int64_t until = fx_now_ms() + PATIENCE_MS;
    int fd, fd2;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 204800\r\n"
               "\r\n");
    cl_send(fd, body, sizeof(body) - 1);
    while (stats_of(&f).buffered_bytes < 204800 && fx_now_ms() < until)
        poll(NULL, 0, 2);
    /* Declared: refused at once. */
    cl_ask(&f,
           "POST /big HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
           "Content-Length: 204800\r\n\r\n",
           &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body, "\"queue_full\""));
    assert_non_null(cl_header(&r, "Retry-After"));
    /* In chunks: refused when it gets there. */
    fd2 = cl_connect(&f);
    cl_say(fd2, "POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked"
                "\r\n\r\n32000\r\n");
    cl_send(fd2, body, sizeof(body));
    cl_say(fd2, "\r\n0\r\n\r\n");
    cl_read(fd2, &r, false);
    assert_int_equal(r.status, 503);
    close(fd2);
    /* The first is not disturbed, and afterwards there is room again. */
    cl_send(fd, body, 1);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    close(fd);
    assert_true(settles(&f));
    fx_stop(&f);
}

static void test_connection_limit(void **state)
{
    struct http_options opt = {.n_threads = 2, .max_connections = 4};
    struct fixture f;
    struct reply r;
    int fds[4], n_ok = 0, n_busy = 0;
    int64_t until;

    (void)state;
    fx_start(&f, &opt);
    for (int i = 0; i < 4; i++) {
        fds[i] = cl_connect(&f);
        cl_say(fds[i], GET("/echo"));
        cl_read(fds[i], &r, false);
        n_ok += r.status == 200;
    }
    for (int i = 0; i < 2; i++) {
        int fd = cl_connect(&f);
        cl_say(fd, GET("/echo"));
        cl_read(fd, &r, false);
        n_busy +=
            r.status == 503 && cl_header(&r, "Retry-After") && cl_at_end(fd);
        close(fd);
        cl_ask(&f, GET("/health"), &r);
        assert_int_equal(r.status, 200);
    }
    assert_int_equal(n_ok, 4);
    assert_int_equal(n_busy, 2);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    until = fx_now_ms() + PATIENCE_MS;
    while (stats_of(&f).connections > 0 && fx_now_ms() < until)
        poll(NULL, 0, 2);
    cl_ask(&f, GET("/echo"), &r);
    assert_int_equal(r.status, 200);
    fx_stop(&f);
}

static void test_per_address(void **state)
{
    struct http_options opt = {.n_threads = 1, .max_per_address = 1};
    struct fixture f;
    struct reply r;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, GET("/echo"));
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    cl_ask(&f, GET("/echo"), &r);
    assert_int_equal(r.status, 503);
    close(fd);
    fx_stop(&f);
}

/* 600 connections that send nothing: an honest client is still served. */
static void test_flood(void **state)
{
    enum {
        N = 600
    };
    struct http_options opt = {.n_threads = 2, .header_ms = 300};
    struct fixture f;
    struct reply r;
    int *fds = calloc(N, sizeof(int));
    int64_t until;

    (void)state;
    fx_start(&f, &opt);
    for (int i = 0; i < N; i++)
        fds[i] = cl_connect(&f);
    cl_ask(&f, GET("/health"), &r);
    assert_int_equal(r.status, 200);
    until = fx_now_ms() + PATIENCE_MS;
    while (stats_of(&f).connections > 0 && fx_now_ms() < until)
        poll(NULL, 0, 5);
    assert_int_equal(stats_of(&f).connections, 0);
    assert_true(http_alive(f.h, 2000));
    for (int i = 0; i < N; i++)
        close(fds[i]);
    free(fds);
    fx_stop(&f);
}

/* --- stopping ------------------------------------------------------------ */

static void test_stop_suspended(void **state)
{
    enum {
        N = 20
    };
    struct http_options opt = {.n_threads = 2};
    struct fixture f;
    struct reply r;
    int fds[N], upload;
    int64_t start;
    struct request *req;

    (void)state;
    fx_start(&f, &opt);
    for (int i = 0; i < N; i++) {
        fds[i] = cl_connect(&f);
        cl_say(fds[i], GET("/never"));
    }
    upload = cl_connect(&f);
    cl_say(upload, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                   "\r\nabc");
    assert_true(fx_wait(&f.n_handled, N));
    start = fx_now_ms();
    http_stop(f.h, 100);
    assert_true(fx_now_ms() - start < 5100);
    for (int i = 0; i < N; i++) {
        cl_read(fds[i], &r, false);
        assert_int_equal(r.status, 503);
        assert_non_null(strstr(r.body, "\"stopping\""));
        assert_true(cl_at_end(fds[i]));
        close(fds[i]);
    }
    assert_true(cl_at_end(upload));
    close(upload);
    /* The worker still holds one of them. */
    req = atomic_exchange(&f.kept, NULL);
    assert_true(request_cancelled(req));
    http_answer(req, 200, "text/plain", strdup("late"), 4);
    request_unref(req);
    assert_int_equal(atomic_load(&f.n_freed), N);
    queue_close(f.later);
    pthread_join(f.worker, NULL);
    queue_free(f.later);
}

static void *stop_it(void *arg)
{
    struct fixture *f = arg;

    http_stop(f->h, PATIENCE_MS);
    return NULL;
}

/* What is in flight is answered; nothing new is taken. */
static void test_drain(void **state)
{
    struct http_options opt = {.n_threads = 2};
    struct fixture f;
    struct reply r;
    struct request *req;
    struct sockaddr_in addr = {.sin_family = AF_INET};
    pthread_t stopper;
    int64_t start = fx_now_ms();
    int fd, idle, refused = 0;

    (void)state;
    fx_start(&f, &opt);
    idle = cl_connect(&f);
    cl_say(idle, GET("/echo"));
    cl_read(idle, &r, false);
    fd = cl_connect(&f);
    cl_say(fd, GET("/never"));
    assert_true(fx_wait(&f.n_handled, 2));
    pthread_create(&stopper, NULL, stop_it, &f);
    assert_true(cl_at_end(idle));
    close(idle);
    addr.sin_port = htons((uint16_t)f.port);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while (!refused && fx_now_ms() - start < PATIENCE_MS) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        refused = connect(s, (struct sockaddr *)&addr, sizeof(addr)) < 0;
        close(s);
    }
    assert_true(refused);
    req = atomic_exchange(&f.kept, NULL);
    assert_false(request_cancelled(req));
    http_answer(req, 200, "text/plain", strdup("done"), 4);
    request_unref(req);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "done");
    assert_string_equal(cl_header(&r, "Connection"), "close");
    close(fd);
    pthread_join(stopper, NULL);
    assert_true(fx_now_ms() - start < PATIENCE_MS);
    queue_close(f.later);
    pthread_join(f.worker, NULL);
    queue_free(f.later);
}

struct load {
    struct fixture *f;
    atomic_bool stop;
    atomic_int n;
};

static void *load_it(void *arg)
{
    struct load *load = arg;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)load->f->port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char buf[4096];

    while (!atomic_load(&load->stop)) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct timeval tv = {.tv_sec = 2};

        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
        if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
            cl_say(fd, GET("/later") GET("/later?x=1"));
            if (recv(fd, buf, sizeof(buf), 0) > 0)
                atomic_fetch_add(&load->n, 1);
        }
        close(fd);
    }
    return NULL;
}

/* Stopped over and over in full flight: no abort, no hang. */
static void test_stop_under_load(void **state)
{
    struct http_options opt = {.n_threads = 2};

    (void)state;
    for (int round = 0; round < 5; round++) {
        struct fixture f;
        struct load load = {.f = &f};
        pthread_t threads[4];

        fx_start(&f, &opt);
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, load_it, &load);
        assert_true(fx_wait(&load.n, 50));
        http_stop(f.h, round % 2 ? 200 : 0);
        atomic_store(&load.stop, true);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        queue_close(f.later);
        pthread_join(f.worker, NULL);
        queue_free(f.later);
        assert_int_equal(atomic_load(&f.n_handled), atomic_load(&f.n_freed));
    }
}

/* --- sockets ------------------------------------------------------------- */

static void test_addresses(void **state)
{
    static const char *const bad[] = {
        "",         "8080",    "localhost:8080",  "127.0.0.1:",
        "::1:8080", "[::1]",   "127.0.0.1:70000", "127.0.0.1:8x",
        "unix:rel", "[::1:80", "1.2.3.4.5:1",     "127.0.0.1:-1"};
    struct http_calls calls = {fx_admit, fx_handle, fx_problem, NULL, NULL};
    struct http_options opt = {.n_threads = 1};
    struct error err;
    struct fixture f;
    struct reply r;
    char taken[32];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        opt.listen = bad[i];
        err.code = ERR_NONE;
        assert_null(http_start(&opt, &calls, NULL, &err));
        if (err.code != ERR_CONFIG)
            fail_msg("%s: %s", bad[i], err.text);
    }
    opt.listen = ":0";
    fx_start(&f, &opt);
    cl_ask(&f, GET("/echo"), &r); /* IPv4 to a socket of both kinds */
    assert_int_equal(r.status, 200);
    snprintf(taken, sizeof(taken), "127.0.0.1:%d", f.port);
    opt.listen = taken;
    assert_null(http_start(&opt, &calls, NULL, &err));
    assert_int_equal(err.code, ERR_FILE);
    fx_stop(&f);
}

static void test_unix(void **state)
{
    struct http_options opt = {.n_threads = 1};
    struct http_calls calls = {fx_admit, fx_handle, fx_problem, NULL, NULL};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/httptestXXXXXX", listen_at[64];
    struct stat st;
    struct error err;
    struct fixture f;
    struct reply r;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(listen_at, sizeof(listen_at), "unix:%s/s", dir);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", dir);
    fd = socket(AF_UNIX, SOCK_STREAM, 0); /* a dead one is in the way */
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    opt.listen = listen_at;
    fx_start(&f, &opt);
    assert_int_equal(stat(addr.sun_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    cl_say(fd, GET("/later"));
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    cl_say(fd, GET("/never"));
    assert_true(fx_wait(&f.n_handled, 2));
    close(fd);
    assert_true(settles(&f)); /* leaving is seen here as well */
    assert_true(request_peer_loopback(atomic_load(&f.kept)));
    assert_string_equal(request_peer(atomic_load(&f.kept)), "unix");
    assert_null(http_start(&opt, &calls, NULL, &err)); /* alive: not ours */
    assert_int_equal(err.code, ERR_FILE);
    fx_stop(&f);
    assert_int_equal(stat(addr.sun_path, &st), -1);
    rmdir(dir);
}

static void test_inherited(void **state)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct http_calls calls = {fx_admit, fx_handle, fx_problem, NULL, NULL};
    int fds[2];
    struct http_options opt = {.n_threads = 1, .fds = fds, .n_fds = 2};
    struct error err;
    struct fixture f;
    struct reply r;

    (void)state;
    for (int i = 0; i < 2; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fds[i], (struct sockaddr *)&addr, sizeof(addr)),
                         0);
    }
    assert_null(http_start(&opt, &calls, NULL, &err)); /* not listening */
    assert_int_equal(err.code, ERR_CONFIG);
    for (int i = 0; i < 2; i++)
        assert_int_equal(listen(fds[i], 8), 0);
    fx_start(&f, &opt);
    cl_ask(&f, GET("/echo"), &r);
    assert_int_equal(r.status, 200);
    fx_stop(&f);
}

/* --- TLS ----------------------------------------------------------------- */

static void write_pem(const char *path, const gnutls_datum_t *pem)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(pem->data, 1, pem->size, file), pem->size);
    fclose(file);
}

/* A self-signed pair whose serial number is one byte. */
static void make_pair(const char *cert_path, const char *key_path,
                      unsigned char serial)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;

    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_privkey_generate(
                         key, GNUTLS_PK_ECDSA,
                         GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, &serial, 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 3600);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_dn(crt, "CN=localhost", NULL);
    gnutls_x509_crt_set_key(crt, key);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0),
                     0);
    assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem),
                     0);
    write_pem(cert_path, &pem);
    gnutls_free(pem.data);
    assert_int_equal(
        gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), 0);
    write_pem(key_path, &pem);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

/* One request over TLS; returns the serial of the certificate shown. */
static int tls_ask(const struct fixture *f, char *answer, size_t size)
{
    gnutls_certificate_credentials_t cred;
    gnutls_session_t s;
    gnutls_x509_crt_t crt;
    unsigned char serial[20] = {0};
    size_t len_serial = sizeof(serial), n = 0;
    unsigned n_certs = 0;
    const gnutls_datum_t *certs;
    const char *text = "GET /later HTTP/1.1\r\nHost: a\r\n"
                       "Connection: close\r\n\r\n";
    ssize_t got;
    int fd = cl_connect(f), rc;

    gnutls_certificate_allocate_credentials(&cred);
    gnutls_init(&s, GNUTLS_CLIENT);
    gnutls_set_default_priority(s);
    gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
    gnutls_transport_set_int(s, fd);
    gnutls_handshake_set_timeout(s, PATIENCE_MS);
    do {
        rc = gnutls_handshake(s);
    } while (rc < 0 && !gnutls_error_is_fatal(rc));
    if (rc < 0)
        fail_msg("handshake: %s", gnutls_strerror(rc));
    certs = gnutls_certificate_get_peers(s, &n_certs);
    assert_true(n_certs == 1);
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_import(crt, certs, GNUTLS_X509_FMT_DER);
    gnutls_x509_crt_get_serial(crt, serial, &len_serial);
    gnutls_x509_crt_deinit(crt);
    gnutls_record_set_timeout(s, PATIENCE_MS);
    assert_int_equal(gnutls_record_send(s, text, strlen(text)),
                     (int)strlen(text));
    while (n + 1 < size &&
           (got = gnutls_record_recv(s, answer + n, size - 1 - n)) > 0)
        n += (size_t)got;
    answer[n] = '\0';
    gnutls_deinit(s);
    gnutls_certificate_free_credentials(cred);
    close(fd);
    return serial[len_serial - 1];
}

static void test_tls(void **state)
{
    char dir[] = "/tmp/httptestXXXXXX", cert[64], key[64], answer[4096];
    struct http_options opt = {.n_threads = 2, .header_ms = 300};
    struct http_calls calls = {fx_admit, fx_handle, fx_problem, NULL, NULL};
    struct error err = {.code = ERR_NONE};
    struct fixture f;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
    snprintf(key, sizeof(key), "%s/key.pem", dir);
    opt.tls_cert = cert;
    opt.tls_key = key;
    opt.listen = "127.0.0.1:0";
    assert_null(http_start(&opt, &calls, NULL, &err)); /* no files yet */
    assert_int_equal(err.code, ERR_FILE);
    make_pair(cert, key, 1);
    fx_start(&f, &opt);
    assert_int_equal(tls_ask(&f, answer, sizeof(answer)), 1);
    assert_non_null(strstr(answer, "HTTP/1.1 200"));
    assert_non_null(strstr(answer, "GET kind=0"));

    make_pair(cert, key, 2); /* not shown before it is asked for */
    assert_int_equal(tls_ask(&f, answer, sizeof(answer)), 1);
    assert_int_equal(http_reload_tls(f.h, &err), 0);
    assert_int_equal(tls_ask(&f, answer, sizeof(answer)), 2);

    make_pair(cert, "/dev/null", 3); /* another's key: the old pair stays */
    assert_int_equal(http_reload_tls(f.h, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_int_equal(tls_ask(&f, answer, sizeof(answer)), 2);

    fd = cl_connect(&f); /* a handshake that never comes */
    assert_true(trickle(fd, "\x16\x03\x01\x40\x01") < 2000);
    close(fd);
    fx_stop(&f);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_head),
        cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_answer_deadline),
        cmocka_unit_test(test_gone_in_upload),
        cmocka_unit_test(test_gone_while_waiting),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_per_address),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_stop_suspended),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_stop_under_load),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_tls)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
