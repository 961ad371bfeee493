/* core/base/crypto.h - digests, random bytes, base64 and sealed boxes.
 * The only user of GnuTLS's crypto functions. Thread: any. */
#ifndef CORE_BASE_CRYPTO_H
#define CORE_BASE_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum {
    CRYPTO_SHA256_LEN = 32,
    CRYPTO_KEY_LEN = 32,        /* AES-256-GCM */
    CRYPTO_SEAL_EXTRA = 12 + 16 /* nonce before, tag after */
};

int crypto_sha256(const void *data, size_t len_bytes,
                  uint8_t out[CRYPTO_SHA256_LEN], struct error *err);
int crypto_sha256_file(const char *path, uint8_t out[CRYPTO_SHA256_LEN],
                       struct error *err);
/* out holds 2 * len + 1 characters. */
void crypto_hex(const uint8_t *data, size_t len_bytes, char *out);
/* Cryptographically strong. */
int crypto_random(void *out, size_t len_bytes, struct error *err);
/* Time does not depend on where the two differ. */
bool crypto_equal(const void *a, const void *b, size_t len_bytes);

/* Standard base64 with padding, nothing else (ERR_BAD_BASE64). Hands over a
 * malloc'd buffer. A leading "data:…;base64," is the caller's to strip. */
int crypto_base64_decode(const char *text, size_t len_text, uint8_t **out,
                         size_t *len_out, struct error *err);
/* Hands over a malloc'd, NUL-terminated string, or NULL. */
char *crypto_base64_encode(const void *data, size_t len_bytes,
                           struct error *err);

/* AES-256-GCM. aad binds the box to its owner. out holds
 * len + CRYPTO_SEAL_EXTRA (seal) or len - CRYPTO_SEAL_EXTRA (open) bytes.
 * A box that was changed or has another owner fails (ERR_STORAGE). */
int crypto_seal(const uint8_t key[CRYPTO_KEY_LEN], const void *aad,
                size_t len_aad, const void *plain, size_t len, uint8_t *out,
                struct error *err);
int crypto_open(const uint8_t key[CRYPTO_KEY_LEN], const void *aad,
                size_t len_aad, const uint8_t *box, size_t len, uint8_t *out,
                struct error *err);

#endif
