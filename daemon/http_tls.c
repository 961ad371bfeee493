/* daemon/http_tls.c - the certificate chain and key that TLS connections
 * show. libmicrohttpd would read them once and for all; so that SIGHUP can
 * change them, it is given a callback instead (http_conn.c) which shows the
 * pair that was current when the connection began. The pair is counted,
 * because GnuTLS borrows it for as long as the handshake lasts. */
#include "daemon/http_tls.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    MAX_CHAIN = 8
};

struct http_cert {
    atomic_int refs;
    gnutls_pcert_st chain[MAX_CHAIN];
    unsigned n_chain;
    gnutls_privkey_t key;
};

struct http_cert *http_cert_ref(struct http_cert *cert)
{
    if (cert)
        atomic_fetch_add(&cert->refs, 1);
    return cert;
}

void http_cert_unref(struct http_cert *cert)
{
    if (!cert || atomic_fetch_sub(&cert->refs, 1) != 1)
        return;
    for (unsigned i = 0; i < cert->n_chain; i++)
        gnutls_pcert_deinit(&cert->chain[i]);
    gnutls_privkey_deinit(cert->key);
    free(cert);
}

static int load_chain(struct http_cert *cert, const char *path,
                      struct error *err)
{
    gnutls_datum_t pem = {NULL, 0};
    unsigned n = MAX_CHAIN;
    int rc = gnutls_load_file(path, &pem);

    if (rc == 0)
        rc = gnutls_pcert_list_import_x509_raw(cert->chain, &n, &pem,
                                               GNUTLS_X509_FMT_PEM, 0);
    gnutls_free(pem.data);
    if (rc < 0)
        return error_set(err, ERR_FILE, "TLS certificate %s: %s", path,
                         gnutls_strerror(rc));
    cert->n_chain = n;
    return 0;
}

static int load_key(struct http_cert *cert, const char *path, struct error *err)
{
    gnutls_datum_t pem = {NULL, 0};
    int rc = gnutls_load_file(path, &pem);

    if (rc == 0)
        rc = gnutls_privkey_import_x509_raw(cert->key, &pem,
                                            GNUTLS_X509_FMT_PEM, NULL, 0);
    if (pem.data)
        gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    if (rc < 0)
        return error_set(err, ERR_FILE, "TLS key %s: %s", path,
                         gnutls_strerror(rc));
    return 0;
}

/* A key that is not the certificate's would only show as failed handshakes. */
static int check_pair(struct http_cert *cert, const char *path,
                      struct error *err)
{
    unsigned char a[20], b[20];
    size_t len_a = sizeof(a), len_b = sizeof(b);
    gnutls_pubkey_t pub = NULL;
    int rc = gnutls_pubkey_init(&pub);

    if (rc == 0)
        rc = gnutls_pubkey_import_privkey(pub, cert->key, 0, 0);
    if (rc == 0)
        rc = gnutls_pubkey_get_key_id(pub, 0, a, &len_a);
    if (rc == 0)
        rc = gnutls_pubkey_get_key_id(cert->chain[0].pubkey, 0, b, &len_b);
    if (rc == 0 && (len_a != len_b || gnutls_memcmp(a, b, len_a) != 0))
        rc = GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    gnutls_pubkey_deinit(pub);
    if (rc < 0)
        return error_set(err, ERR_FILE, "TLS key %s: %s", path,
                         gnutls_strerror(rc));
    return 0;
}

struct http_cert *http_cert_load(const char *cert_path, const char *key_path,
                                 struct error *err)
{
    struct http_cert *cert = calloc(1, sizeof(*cert));

    if (!cert || gnutls_privkey_init(&cert->key) < 0) {
        free(cert);
        return error_null(err, ERR_NOMEM, "no memory for the certificate");
    }
    atomic_init(&cert->refs, 1);
    if (load_chain(cert, cert_path, err) < 0 ||
        load_key(cert, key_path, err) < 0 ||
        check_pair(cert, key_path, err) < 0) {
        http_cert_unref(cert);
        return NULL;
    }
    return cert;
}

void http_cert_show(struct http_cert *cert, gnutls_pcert_st **chain,
                    unsigned *n_chain, gnutls_privkey_t *key)
{
    *chain = cert->chain;
    *n_chain = cert->n_chain;
    *key = cert->key;
}
