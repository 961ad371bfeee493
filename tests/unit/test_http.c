/* tests/unit/test_http.c - what the server takes and what it refuses, by a
 * client that writes every byte itself. */
#include "tests/unit/http_fixture.h"

static struct fixture fx;

static int setup(void **state)
{
    struct http_options opt = {.n_threads = 2};

    (void)state;
    fx_start(&fx, &opt);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_stop(&fx);
    return 0;
}

#define HEAD "Host: a\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" HEAD "\r\n"

static void test_plain(void **state)
{
    struct reply r;

    (void)state;
    cl_ask(&fx, GET("/echo?a=1&b=%c3%a9+x%2By&c"), &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body,
                        "GET kind=0 len=0 sum=1 q:a=1 q:b=\xc3\xa9 x+y q:c= ");
    assert_string_equal(cl_header(&r, "Cache-Control"), "no-store");
    assert_string_equal(cl_header(&r, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(cl_header(&r, "X-Test"), "yes");
    assert_int_equal(strlen(cl_header(&r, "X-Request-Id")), 16);

    cl_ask(&fx, GET("/later"), &r);
    assert_int_equal(r.status, 200);
    cl_ask(&fx, GET("/nowhere"), &r);
    assert_int_equal(r.status, 404);
    assert_string_equal(cl_header(&r, "Content-Type"),
                        "application/problem+json");
    assert_non_null(strstr(r.body, "\"not_found\""));
    cl_ask(&fx, GET("/deny"), &r);
    assert_int_equal(r.status, 401);
    assert_string_equal(cl_header(&r, "WWW-Authenticate"), "Bearer");
    cl_ask(&fx, GET("/method"), &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(cl_header(&r, "Allow"), "PATCH");
}

static void test_head(void **state)
{
    struct reply r;
    int fd = cl_connect(&fx);

    (void)state;
    cl_say(fd, "HEAD /echo HTTP/1.1\r\n" HEAD "\r\n");
    cl_read(fd, &r, true);
    assert_int_equal(r.status, 200);
    assert_int_equal(atoi(cl_header(&r, "Content-Length")),
                     (int)strlen("GET kind=0 len=0 sum=1 "));
    cl_say(fd, GET("/echo")); /* no body came, so this is the next answer */
    cl_read(fd, &r, false);
    assert_string_equal(r.body, "GET kind=0 len=0 sum=1 ");
    close(fd);
}

static void test_pipeline(void **state)
{
    struct reply r;
    int fd = cl_connect(&fx);

    (void)state;
    cl_say(
        fd,
        GET("/later?n=1") "POST /echo?n=2 HTTP/1.1\r\n" HEAD
                          "Content-Length: 3\r\n\r\nabc" GET(
                              "/nowhere") "POST /deny HTTP/1.1\r\n" HEAD
                                          "Content-Length: 4\r\n\r\nGET " GET(
                                              "/echo?n=5"));
    cl_read(fd, &r, false);
    assert_non_null(strstr(r.body, "q:n=1"));
    cl_read(fd, &r, false);
    assert_non_null(strstr(r.body, "POST kind=3 len=3"));
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 404);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 401);
    cl_read(fd, &r, false);
    assert_non_null(strstr(r.body, "q:n=5"));
    close(fd);
}

#define POST "POST /echo HTTP/1.1\r\n"
#define SMUGGLED GET("/echo?smuggled=1")
#define ROW(text)                                                              \
    {                                                                          \
        text, sizeof(text) - 1                                                 \
    }

/* Each has to give one answer, 400, and the end; what follows the head must
 * never be taken for a request. */
static void test_smuggling(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } rows[] = {
        ROW(POST HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
                      "\r\n0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Content-Length: 5\r\nContent-Length: 6\r\n"
                      "\r\nhello" SMUGGLED),
        ROW(POST HEAD "Content-Length: 5\r\nContent-Length: 5\r\n"
                      "\r\nhello" SMUGGLED),
        ROW(POST HEAD "Content-Length : 5\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Transfer-Encoding: identity\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Transfer-Encoding: chunked\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        ROW("POST /echo HTTP/1.0\r\n" HEAD
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD HEAD "Content-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST "Content-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X-A: b\0c\r\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X-A: b\0\0c\r\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Content-Length: 0\r\nX-A: b\0c\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "Content-Length: 0\r\nX-A: b\r\n c\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X-A: b\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X-A: \001\r\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW(POST HEAD "X(A): b\r\nContent-Length: 0\r\n\r\n" SMUGGLED),
        ROW("GET /echo\0x HTTP/1.1\r\n" HEAD "\r\n" SMUGGLED),
        ROW("GET /echo HTTP/1.2\r\n" HEAD "\r\n" SMUGGLED),
        ROW("GE(T /echo HTTP/1.1\r\n" HEAD "\r\n" SMUGGLED),
        ROW("GET /echo HTTP/1.1\r\nHost: a, b\r\n\r\n" SMUGGLED),
    };
    struct reply r;
    int before = atomic_load(&fx.n_handled);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = cl_connect(&fx);

        cl_send(fd, rows[i].text, rows[i].len);
        cl_read(fd, &r, false);
        if (r.status != 400 || !cl_header(&r, "Connection") ||
            strcasecmp(cl_header(&r, "Connection"), "close") != 0)
            fail_msg("row %zu: status %d\n%s", i, r.status, r.head);
        assert_non_null(strstr(r.body, "\"bad_request\""));
        if (!cl_at_end(fd))
            fail_msg("row %zu: more than one answer", i);
        close(fd);
    }
    assert_int_equal(atomic_load(&fx.n_handled), before);
}

/* Lengths that the library itself refuses, with a text of its own. */
static void test_bad_lengths(void **state)
{
    static const char *const values[] = {
        "abc", "-1", "+5", "5, 5", "0x5", "", "99999999999999999999999"};
    char text[256];
    struct reply r;
    int before = atomic_load(&fx.n_handled);

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(text, sizeof(text), POST HEAD "Content-Length: %s\r\n\r\n",
                 values[i]);
        cl_ask(&fx, text, &r);
        assert_true(r.status == 400 || r.status == 413);
    }
    assert_int_equal(atomic_load(&fx.n_handled), before);
}

static void test_paths(void **state)
{
    static const char *const refused[] = {
        "/echo%00", "/%2f..%2fetc",  "/ech%6f", "/echo%", "echo",
        "*",        "http://a/echo", "/a\"b",   "/a\\b",  "/\xc3\xa9",
        "/a b",     "/a#b"};
    char text[256];
    struct reply r;

    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" HEAD "\r\n",
                 refused[i]);
        cl_ask(&fx, text, &r);
        if (r.status != 400)
            fail_msg("%s: %d", refused[i], r.status);
    }
    cl_ask(&fx, GET("/echo/../none"), &r);
    assert_int_equal(r.status, 404);
}

static void test_queries(void **state)
{
    static const char *const refused[] = {"a=%",      "a=%1",        "a=%zz",
                                          "a=%00",    "%00=a",       "a=%ff",
                                          "a=%c0%80", "a=%ed%a0%80", "a=1&a=2"};
    char text[2000];
    struct reply r;
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        snprintf(text, sizeof(text), "GET /echo?%s HTTP/1.1\r\n" HEAD "\r\n",
                 refused[i]);
        cl_ask(&fx, text, &r);
        if (r.status != 400)
            fail_msg("%s: %d", refused[i], r.status);
    }
    n = (size_t)snprintf(text, sizeof(text), "GET /echo?");
    for (int i = 0; i < 65; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "k%d=1&", i);
    snprintf(text + n, sizeof(text) - n, " HTTP/1.1\r\n" HEAD "\r\n");
    cl_ask(&fx, text, &r);
    assert_int_equal(r.status, 400);
}

static void test_headers(void **state)
{
    struct reply r;
    char *text = malloc(64 * 1024);
    size_t n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" HEAD);
    int fd;

    (void)state;
    for (int i = 0; i < 101; i++)
        n += (size_t)sprintf(text + n, "X-%d: y\r\n", i);
    sprintf(text + n, "\r\n");
    cl_ask(&fx, text, &r);
    assert_int_equal(r.status, 431);

    n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" HEAD "X-Long: ");
    memset(text + n, 'a', 40000);
    sprintf(text + n + 40000, "\r\n\r\n");
    cl_ask(&fx, text, &r);
    assert_int_equal(r.status, 431);

    /* A large head in small pieces: the read buffer grows under it. */
    n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" HEAD);
    for (int i = 0; i < 60; i++)
        n += (size_t)sprintf(text + n, "X-Filler-%d: %0200d\r\n", i, i);
    n += (size_t)sprintf(text + n, "X-Empty:\r\nX-Blank: a \t\r\n\r\n");
    fd = cl_connect(&fx);
    for (size_t i = 0; i < n; i += 300)
        cl_send(fd, text + i, n - i < 300 ? n - i : 300);
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    close(fd);
    free(text);
}

/* --- bodies -------------------------------------------------------------- */

static void post(const char *path, const char *type, const void *body,
                 size_t len, struct reply *r)
{
    char *text = malloc(len + 512);
    int n = snprintf(text, 512,
                     "POST %s HTTP/1.1\r\n" HEAD "%s%s%sContent-Length: "
                     "%zu\r\n\r\n",
                     path, type ? "Content-Type: " : "", type ? type : "",
                     type ? "\r\n" : "", len);

    memcpy(text + n, body, len);
    cl_exchange(&fx, text, (size_t)n + len, r);
    free(text);
}

static void test_media(void **state)
{
    static const struct {
        const char *type;
        int status, kind;
    } rows[] = {{NULL, 200, BODY_RAW},
                {"application/json", 200, BODY_JSON},
                {"Application/JSON ; charset=\"UTF-8\"", 200, BODY_JSON},
                {"application/json; charset=latin1", 415, 0},
                {"application/jsonx", 415, 0},
                {"image/jpeg", 200, BODY_RAW},
                {"image/png", 200, BODY_RAW},
                {"image/webp", 200, BODY_RAW},
                {"image/gif", 415, 0},
                {"application/octet-stream", 200, BODY_RAW},
                {"application/x-www-form-urlencoded", 415, 0},
                {"text/plain", 415, 0},
                {"multipart/mixed; boundary=x", 415, 0},
                {"multipart/form-data", 400, 0},
                {"multipart/form-data; boundary=", 400, 0},
                {"multipart/form-data; boundary=a; boundary=b", 400, 0},
                {"multipart/form-data; boundary=\"a", 400, 0},
                {"multipart/form-data; boundary="
                 "01234567890123456789012345678901234567890123456789012345678"
                 "901234567890",
                 400, 0}};
    struct reply r;
    char want[32];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        post("/echo", rows[i].type, "{}", 2, &r);
        if (r.status != rows[i].status)
            fail_msg("%s: %d", rows[i].type, r.status);
        snprintf(want, sizeof(want), "kind=%d len=2", rows[i].kind);
        if (r.status == 200)
            assert_non_null(strstr(r.body, want));
    }
    cl_ask(&fx,
           POST HEAD "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
           &r);
    assert_int_equal(r.status, 415);
    post("/none", NULL, "a", 1, &r);
    assert_int_equal(r.status, 400);
    cl_ask(&fx, "POST /none HTTP/1.1\r\n" HEAD "Content-Length: 0\r\n\r\n", &r);
    assert_int_equal(r.status, 200);
}

static void test_chunked(void **state)
{
    struct reply r;
    char want[64];

    (void)state;
    cl_ask(&fx,
           POST HEAD "Transfer-Encoding: Chunked\r\n\r\n"
                     "3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nX-T: u\r\n\r\n",
           &r);
    snprintf(want, sizeof(want), "len=8 sum=%u ",
             fx_sum((const uint8_t *)"abcdefgh", 8));
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body, want));
    cl_ask(&fx, POST HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &r);
    assert_non_null(strstr(r.body, "len=0"));
    int before = atomic_load(&fx.n_done);
    cl_ask(&fx, POST HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
           &r);
    assert_int_equal(r.status, 400);
    assert_true(fx_wait(&fx.n_done, before + 1));
    assert_int_equal(atomic_load(&fx.last_status), 400);
}

static void test_over_limit(void **state)
{
    static char chunk[64 * 1024 + 16];
    struct http_stats stats;
    struct reply r;
    int fd, n, sent, before = atomic_load(&fx.n_done);

    (void)state;
    /* Declared: refused before a byte of it, no 100 Continue. */
    cl_ask(&fx,
           POST HEAD "Expect: 100-continue\r\n"
                     "Content-Length: 10000000\r\n\r\n",
           &r);
    assert_int_equal(r.status, 413);
    cl_ask(&fx,
           POST HEAD "Expect: 100-continue\r\n"
                     "Content-Type: text/plain\r\n"
                     "Content-Length: 5\r\n\r\n",
           &r);
    assert_int_equal(r.status, 415);

    /* Sent all the same: no reset, so that a client which writes first
     * and reads later gets to its answer. */
    fd = cl_connect(&fx);
    cl_say(fd, POST HEAD "Content-Length: 900000\r\n\r\n");
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 413);
    assert_true(cl_at_end(fd));
    for (n = 0; n < 14; n++)
        assert_true(cl_send(fd, chunk, 64 * 1024));
    close(fd);

    /* Chunks just over the cap: read to the end, then told. */
    n = sprintf(chunk, "10000\r\n");
    memset(chunk + n, 'x', 65536);
    memcpy(chunk + n + 65536, "\r\n", 2);
    fd = cl_connect(&fx);
    cl_say(fd, POST HEAD "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 6; i++)
        cl_send(fd, chunk, (size_t)n + 65538);
    cl_say(fd, "0\r\n\r\n");
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 413);
    close(fd);

    /* Chunks without end: closed after a bounded number. */
    fd = cl_connect(&fx);
    cl_say(fd, POST HEAD "Transfer-Encoding: chunked\r\n\r\n");
    for (sent = 0; sent < 1000; sent++) {
        if (!cl_send(fd, chunk, (size_t)n + 65538))
            break;
    }
    assert_true(sent < 1000);
    close(fd);
    assert_true(fx_wait(&fx.n_done, before + 5));
    assert_int_equal(atomic_load(&fx.last_status), 413);
    http_stats(fx.h, &stats);
    assert_int_equal(stats.buffered_bytes, 0);
}

static void test_continue(void **state)
{
    struct reply r;
    int fd = cl_connect(&fx);

    (void)state;
    cl_say(fd, POST HEAD "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    cl_read(fd, &r, true);
    assert_int_equal(r.status, 100);
    cl_say(fd, "abc");
    cl_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    close(fd);
}

/* --- forms --------------------------------------------------------------- */

#define FORM "multipart/form-data; boundary=XX"
#define PART(name) "--XX\r\nContent-Disposition: form-data; name=" name "\r\n"

static void test_big_form(void **state)
{
    enum {
        LEN = 10 * 1024 * 1024
    };
    static const char head[] =
        PART("\"image1\"; filename=\"a\\\"b.jpg\"") "Content-Type: "
                                                    "image/jpeg\r\n\r\n";
    static const char tail[] = "\r\n" PART("note") "\r\nh\xc3\xa9\r\n--XX--"
                                                   "\r\n";
    char *body = malloc(LEN + 1024), want[128];
    size_t n = sizeof(head) - 1;
    struct reply r;

    (void)state;
    memcpy(body, head, n);
    for (size_t i = 0; i < LEN; i++)
        body[n + i] = (char)(i % 7 == 0 ? 0 : i * 2654435761u >> 13);
    memcpy(body + n + LEN - 8, "\r\n--XX\0\r", 8); /* looks like an end */
    snprintf(want, sizeof(want), "part:image1/a\"b.jpg=%d:%u part:note/=3:%u ",
             LEN, fx_sum((uint8_t *)body + n, LEN),
             fx_sum((const uint8_t *)"h\xc3\xa9", 3));
    memcpy(body + n + LEN, tail, sizeof(tail) - 1);
    post("/big", FORM, body, n + LEN + sizeof(tail) - 1, &r);
    assert_int_equal(r.status, 200);
    if (!strstr(r.body, want))
        fail_msg("got %s, want %s", r.body, want);
    free(body);
}

static void test_forms(void **state)
{
    static const struct {
        const char *body;
        size_t len;
        const char *want; /* NULL: 400 */
    } rows[] = {
#define FROW(text, want) {text, sizeof(text) - 1, want}
        FROW(PART("a") "\r\nxyz\r\n--XX--\r\n", "part:a/=3:"),
        FROW(PART("a") "\r\nxyz\r\n--XX--", "part:a/=3:"),
        FROW("\r\n" PART("a") "\r\n\r\n--XX--\r\n", "part:a/=0:1 "),
        FROW(PART("a") "\r\n--XX--\r\n", "part:a/=0:1 "),
        FROW("--XX--\r\n", "kind=2"),
        FROW(PART("a") "\r\nx\r\n--XXy\r\n--XX  \r\n"
                       "Content-Disposition: form-data; name=b\r\n\r\n"
                       "\r\n--XX--",
             "part:a/=8:"),
        FROW("", NULL),
        FROW("--X", NULL),
        FROW("junk\r\n" PART("a") "\r\nx\r\n--XX--", NULL),
        FROW(PART("a") "\r\nxyz", NULL),
        FROW(PART("a") "\r\nxyz\r\n--XX", NULL),
        FROW(PART("a") "\r\nxyz\r\n--XX\r\n", NULL),
        FROW(PART("a") "\r\nxyz\r\n--XX--junk", NULL),
        FROW(PART("a"), NULL),
        FROW("--XX\r\n\r\nxyz\r\n--XX--", NULL),
        FROW("--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--", NULL),
        FROW("--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n"
             "--XX--",
             NULL),
        FROW(PART("\"a") "\r\nx\r\n--XX--", NULL),
        FROW(PART("a; name=b") "\r\nx\r\n--XX--", NULL),
        FROW(PART("\"a\0b\"") "\r\nx\r\n--XX--", NULL),
        FROW(PART("\"\xc3\xa9\"") "\r\nx\r\n--XX--", NULL),
        FROW(PART("a") "Content-Transfer-Encoding: base64\r\n\r\nx\r\n"
                       "--XX--",
             NULL),
        FROW(PART("a") "no colon\r\n\r\nx\r\n--XX--", NULL)};
    struct reply r;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        post("/echo", FORM, rows[i].body, rows[i].len, &r);
        /* Without a byte there is no body, so no form either. */
        if (rows[i].len == 0)
            assert_int_equal(r.status, 200);
        else if (r.status != (rows[i].want ? 200 : 400))
            fail_msg("row %zu: %d %s", i, r.status, r.body);
        else if (rows[i].want && !strstr(r.body, rows[i].want))
            fail_msg("row %zu: %s", i, r.body);
    }
}

static void test_many_parts(void **state)
{
    char *body = malloc(65 * 100);
    struct reply r;

    (void)state;
    for (int n = 64; n <= 65; n++) {
        size_t len = 0;
        for (int i = 0; i < n; i++)
            len += (size_t)sprintf(body + len, PART("f%d") "\r\nv\r\n", i);
        len += (size_t)sprintf(body + len, "--XX--\r\n");
        post("/echo", FORM, body, len, &r);
        assert_int_equal(r.status, n == 64 ? 200 : 400);
    }
    free(body);
}

/* Cut at every byte: only the whole form is taken. */
static void test_cut_form(void **state)
{
    static const char whole[] =
        PART("a") "\r\nxyz\r\n" PART("b") "\r\n\r\n--XX--\r\n";
    struct reply r;

    (void)state;
    for (size_t len = 1; len < sizeof(whole); len++) {
        post("/echo", FORM, whole, len, &r);
        /* The line break behind the last boundary is optional, so is its
         * first half no more than a byte too many. */
        int want =
            len == sizeof(whole) - 1 || len == sizeof(whole) - 3 ? 200 : 400;
        if (r.status != want)
            fail_msg("%zu of %zu bytes: %d", len, sizeof(whole) - 1, r.status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_head),
        cmocka_unit_test(test_pipeline),    cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_bad_lengths), cmocka_unit_test(test_paths),
        cmocka_unit_test(test_queries),     cmocka_unit_test(test_headers),
        cmocka_unit_test(test_media),       cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_over_limit),  cmocka_unit_test(test_continue),
        cmocka_unit_test(test_big_form),    cmocka_unit_test(test_forms),
        cmocka_unit_test(test_many_parts),  cmocka_unit_test(test_cut_form)};

    return cmocka_run_group_tests(tests, setup, teardown);
}
