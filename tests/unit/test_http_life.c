/* tests/unit/test_http_life.c - time, loss and overload: deadlines, clients
 * that leave, limits, stopping. */
#include "tests/unit/http_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

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
        took = cl_trickle(fd, "");
        close(fd);
        if (took < 150 || took > 2000)
            fail_msg("start %zu: closed after %d ms", i, (int)took);
    }
    assert_true(fx_stats(&f).timed_out >= 3);
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
    took = cl_trickle(fd, "");
    close(fd);
    assert_true(took >= 150 && took < 2000);
    assert_true(fx_wait(&f.n_done, 1));
    assert_int_equal(atomic_load(&f.last_status), 408);
    assert_true(fx_settles(&f));
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
    assert_int_equal(fx_stats(&f).timed_out, 0);
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
    while (fx_now_ms() < until && fx_stats(&f).timed_out == 0)
        poll(NULL, 0, 5);
    assert_int_equal(fx_stats(&f).timed_out, 1);
    assert_true(fx_settles(&f));
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
    int64_t until = fx_now_ms() + PATIENCE_MS, left;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    fd = cl_connect(&f);
    cl_say(fd, "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n"
               "\r\n");
    cl_send(fd, half, sizeof(half));
    while (fx_stats(&f).buffered_bytes < (int64_t)sizeof(half) &&
           fx_now_ms() < until)
        poll(NULL, 0, 2);
    assert_true(fx_stats(&f).buffered_bytes >= (int64_t)sizeof(half));
    left = fx_now_ms();
    close(fd);
    assert_true(fx_settles(&f));
    assert_true(fx_now_ms() - left <= 1000);
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
    assert_int_equal(fx_stats(&f).connections, 1);
    start = fx_now_ms();
    close(fd);
    assert_true(fx_settles(&f));
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
    while (fx_stats(&f).buffered_bytes < 204800 && fx_now_ms() < until)
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
    assert_true(fx_settles(&f));
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
    while (fx_stats(&f).connections > 0 && fx_now_ms() < until)
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
    while (fx_stats(&f).connections > 0 && fx_now_ms() < until)
        poll(NULL, 0, 5);
    assert_int_equal(fx_stats(&f).connections, 0);
    assert_true(http_alive(f.h, 2000));
    for (int i = 0; i < N; i++)
        close(fds[i]);
    free(fds);
    fx_stop(&f);
}

/* A thread that does not come back from a callback is not alive. */
static void test_alive(void **state)
{
    struct http_options opt = {.n_threads = 1};
    struct fixture f;
    struct reply r;
    int64_t until = fx_now_ms() + PATIENCE_MS;
    int fd;

    (void)state;
    fx_start(&f, &opt);
    assert_true(http_alive(f.h, 1000));
    atomic_store(&f.block, true);
    fd = cl_connect(&f);
    cl_say(fd, GET("/block"));
    assert_true(fx_wait(&f.n_handled, 1));
    assert_true(http_alive(f.h, PATIENCE_MS));
    while (http_alive(f.h, 500) && fx_now_ms() < until)
        poll(NULL, 0, 5);
    assert_false(http_alive(f.h, 500));
    atomic_store(&f.block, false);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    while (!http_alive(f.h, 500) && fx_now_ms() < until)
        poll(NULL, 0, 5);
    assert_true(http_alive(f.h, 500));
    close(fd);
    fx_stop(&f);
}

/* No descriptors left: accepting pauses without spinning and goes on when
 * there are some again. */
static void test_no_descriptors(void **state)
{
    struct http_options opt = {.n_threads = 1, .idle_ms = 500};
    struct rlimit old, low;
    struct timespec cpu[2];
    struct fixture f;
    struct reply r;
    int fds[64], n = 0, probe;
    int64_t start;

    (void)state;
    fx_start(&f, &opt);
    cl_ask(&f, GET("/echo"), &r);
    assert_int_equal(r.status, 200);
    probe = dup(0);
    close(probe);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)probe + 21;
    setrlimit(RLIMIT_NOFILE, &low);
    /* Ours take what is left: the server's ends stay in the backlog. */
    while (n < 64 && (fds[n] = socket(AF_INET, SOCK_STREAM, 0)) >= 0)
        n++;
    assert_in_range(n, 5, 63);
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)f.port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < n; i++) {
        assert_int_equal(
            connect(fds[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
        cl_say(fds[i], GET("/echo"));
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[0]);
    start = fx_now_ms();
    while (fx_now_ms() - start < 400)
        poll(NULL, 0, 100);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu[1]);
    assert_true((cpu[1].tv_sec - cpu[0].tv_sec) * 1000000000L + cpu[1].tv_nsec -
                    cpu[0].tv_nsec <
                100000000L);
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < n; i++) {
        cl_read(fds[i], &r, false);
        assert_int_equal(r.status, 200);
        close(fds[i]);
    }
    fx_stop(&f);
}

struct storm {
    struct fixture *f;
    unsigned seed;
};

/* One client that behaves badly in one of several ways. */
static void misbehave(const struct fixture *f, unsigned *seed)
{
    static const char *const starts[] = {
        "",
        "GET /ec",
        "GET /echo HTTP/1.1\r\nHost:",
        GET("/echo"),
        GET("/later") GET("/later?a=1") GET("/nowhere"),
        GET("/never"),
        GET("/never") GET("/later"),
        GET("/large"),
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nabc",
        "POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
        "Content-Length: 2\r\n\r\nabc"};
    enum {
        N_STARTS = sizeof(starts) / sizeof(starts[0])
    };
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    struct pollfd p = {.events = POLLIN};
    char buf[8192];
    int fd = cl_connect(f);

    cl_say(fd, starts[(unsigned)rand_r(seed) % N_STARTS]);
    p.fd = fd;
    if (rand_r(seed) % 3 == 0 && poll(&p, 1, rand_r(seed) % 400) > 0 &&
        recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        cl_say(fd, starts[(unsigned)rand_r(seed) % N_STARTS]);
    if (rand_r(seed) % 3 == 0)
        shutdown(fd, SHUT_WR);
    else if (rand_r(seed) % 2)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

static void *storm_it(void *arg)
{
    struct storm *storm = arg;

    for (int i = 0; i < 100; i++)
        misbehave(storm->f, &storm->seed);
    return NULL;
}

/* Whatever clients do, nothing is left of them afterwards. */
static void test_storm(void **state)
{
    struct http_options opt = {
        .n_threads = 2, .header_ms = 300, .body_ms = 300, .answer_ms = 200};
    struct fixture f;
    struct storm storms[6];
    struct request *req;
    struct reply r;
    pthread_t threads[6];
    int64_t until;

    (void)state;
    fx_start(&f, &opt);
    for (unsigned i = 0; i < 6; i++) {
        storms[i] = (struct storm){&f, i + 1};
        pthread_create(&threads[i], NULL, storm_it, &storms[i]);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    until = fx_now_ms() + PATIENCE_MS;
    while (fx_stats(&f).connections > 0 && fx_now_ms() < until)
        poll(NULL, 0, 5);
    req = atomic_exchange(&f.kept, NULL);
    request_unref(req);
    assert_true(fx_settles(&f));
    assert_int_equal(fx_stats(&f).connections, 0);
    assert_true(http_alive(f.h, 2000));
    cl_ask(&f, GET("/echo"), &r);
    assert_int_equal(r.status, 200);
    fx_stop(&f);
    assert_int_equal(atomic_load(&f.n_handled), atomic_load(&f.n_freed));
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

static void *stop_at_once(void *arg)
{
    struct fixture *f = arg;

    http_stop(f->h, 0);
    return NULL;
}

/* A request that reaches its wait when all others have been sent away must
 * not be suspended any more: the library would abort. */
static void test_stop_late_waiter(void **state)
{
    struct http_options opt = {.n_threads = 1};
    struct fixture f;
    struct reply r;
    pthread_t stopper;
    int upload, fd;

    (void)state;
    fx_start(&f, &opt);
    upload = cl_connect(&f);
    cl_say(upload, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                   "Expect: 100-continue\r\n\r\n");
    cl_read(upload, &r, true);
    assert_int_equal(r.status, 100);
    atomic_store(&f.block, true);
    fd = cl_connect(&f);
    cl_say(fd, GET("/block?mute=1"));
    assert_true(fx_wait(&f.n_handled, 1));
    pthread_create(&stopper, NULL, stop_at_once, &f);
    assert_true(cl_at_end(upload)); /* the others have been sent away */
    close(upload);
    atomic_store(&f.block, false);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body, "\"stopping\""));
    close(fd);
    pthread_join(stopper, NULL);
    queue_close(f.later);
    pthread_join(f.worker, NULL);
    queue_free(f.later);
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

/* Uploads that stand still do not hold up the end; one that goes on does
 * arrive. */
static void test_stop_uploads(void **state)
{
    struct http_options opt = {.n_threads = 2};
    struct fixture f;
    struct reply r;
    pthread_t stopper;
    int64_t start;
    int still, slow_head, going;

    (void)state;
    fx_start(&f, &opt);
    still = cl_connect(&f);
    cl_say(still, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                  "Expect: 100-continue\r\n\r\n");
    cl_read(still, &r, true);
    going = cl_connect(&f);
    cl_say(going, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                  "Expect: 100-continue\r\n\r\n");
    cl_read(going, &r, true);
    slow_head = cl_connect(&f);
    cl_say(slow_head, "POST /echo HTTP/1.1\r\nHost: ");
    start = fx_now_ms();
    pthread_create(&stopper, NULL, stop_it, &f);
    cl_say(going, "0123456789");
    cl_read(going, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(cl_at_end(still));
    pthread_join(stopper, NULL);
    assert_true(fx_now_ms() - start < PATIENCE_MS / 2);
    close(still);
    close(going);
    close(slow_head);
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
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_stop_suspended),
        cmocka_unit_test(test_stop_late_waiter),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_stop_uploads),
        cmocka_unit_test(test_stop_under_load)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
