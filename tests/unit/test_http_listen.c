/* tests/unit/test_http_listen.c - where the server listens: addresses as text,
 * UNIX sockets, sockets handed over, TLS with a certificate made here. */
#include "tests/unit/http_fixture.h"

#include <sys/stat.h>
#include <sys/un.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

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
    assert_true(fx_settles(&f)); /* leaving is seen here as well */
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
    assert_true(cl_trickle(fd, "\x16\x03\x01\x40\x01") < 2000);
    close(fd);
    fx_stop(&f);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_unix),
        cmocka_unit_test(test_inherited), cmocka_unit_test(test_tls)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
