/* daemon/http_tls.h - a certificate chain with its key, counted. Serves the
 * HTTP server alone. Thread: any. */
#ifndef DAEMON_HTTP_TLS_H
#define DAEMON_HTTP_TLS_H

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "core/base/error.h"

struct http_cert;

/* PEM files; the key has to be the first certificate's (ERR_FILE). */
struct http_cert *http_cert_load(const char *cert_path, const char *key_path,
                                 struct error *err);
struct http_cert *http_cert_ref(struct http_cert *cert);
void http_cert_unref(struct http_cert *cert); /* NULL is fine */
/* Borrowed while the caller holds cert. */
void http_cert_show(struct http_cert *cert, gnutls_pcert_st **chain,
                    unsigned *n_chain, gnutls_privkey_t *key);

#endif
