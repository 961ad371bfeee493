/* core/base/crypto.c - digests, random bytes and AES-256-GCM by GnuTLS, whose
 * crypto functions nothing else calls; base64 by hand, since GnuTLS's decoder
 * skips spaces and line ends and two texts must not mean the same bytes. Used
 * by the API for images and keys, by the store to seal crops. */
#include "core/base/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

enum {
    LEN_NONCE = 12,
    LEN_TAG = 16,
    LEN_READ = 1 << 16
};

static const char digits64[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int crypto_sha256(const void *data, size_t len_bytes,
                  uint8_t out[CRYPTO_SHA256_LEN], struct error *err)
{
    int status = gnutls_hash_fast(GNUTLS_DIG_SHA256, data, len_bytes, out);

    if (status < 0)
        return error_set(err, ERR_INTERNAL, "SHA-256 failed: %s",
                         gnutls_strerror(status));
    return 0;
}

static int hash_fd(int fd, const char *path, gnutls_hash_hd_t hash,
                   struct error *err)
{
    uint8_t buf[LEN_READ];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
        if (gnutls_hash(hash, buf, (size_t)n) < 0)
            return error_set(err, ERR_INTERNAL, "SHA-256 of %s failed", path);
    }
    return 0;
}

int crypto_sha256_file(const char *path, uint8_t out[CRYPTO_SHA256_LEN],
                       struct error *err)
{
    gnutls_hash_hd_t hash;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), status;

    if (fd < 0)
        return error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    status = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
    if (status < 0) {
        close(fd);
        return error_set(err, ERR_INTERNAL, "SHA-256 failed: %s",
                         gnutls_strerror(status));
    }
    status = hash_fd(fd, path, hash, err);
    gnutls_hash_deinit(hash, out);
    close(fd);
    return status;
}

void crypto_hex(const uint8_t *data, size_t len_bytes, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len_bytes; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = 0;
}

int crypto_random(void *out, size_t len_bytes, struct error *err)
{
    int status = gnutls_rnd(GNUTLS_RND_KEY, out, len_bytes);

    if (status < 0)
        return error_set(err, ERR_INTERNAL, "no random bytes: %s",
                         gnutls_strerror(status));
    return 0;
}

bool crypto_equal(const void *a, const void *b, size_t len_bytes)
{
    return !len_bytes || !gnutls_memcmp(a, b, len_bytes);
}

/* 0..63, or 64 for what is no digit. */
static void fill_values(uint8_t values[256])
{
    memset(values, 64, 256);
    for (unsigned i = 0; i < 64; i++)
        values[(unsigned char)digits64[i]] = (uint8_t)i;
}

static int bad_base64(const char *text, size_t at, struct error *err)
{
    unsigned char c = (unsigned char)text[at];

    if (c == '=')
        return error_set(err, ERR_BAD_BASE64,
                         "base64 has padding in the middle, at character %zu",
                         at + 1);
    return error_set(err, ERR_BAD_BASE64,
                     "character %zu (byte %02x) is not of the base64 alphabet",
                     at + 1, c);
}

/* n_digits digits from text, at most four, as the top bits of 24. */
static int group(const char *text, size_t at, int n_digits,
                 const uint8_t values[256], uint32_t *bits, struct error *err)
{
    *bits = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t value = 0;

        if (i < n_digits)
            value = values[(unsigned char)text[at + (size_t)i]];
        if (value > 63)
            return bad_base64(text, at + (size_t)i, err);
        *bits = *bits << 6 | value;
    }
    return 0;
}

static int decode_groups(const char *text, size_t len_text, size_t n_pad,
                         uint8_t *to, struct error *err)
{
    uint8_t values[256];
    uint32_t bits;

    fill_values(values);
    for (size_t at = 0; at < len_text; at += 4) {
        int n_digits = 4;

        if (at + 4 == len_text)
            n_digits -= (int)n_pad;
        if (group(text, at, n_digits, values, &bits, err))
            return -1;
        if ((n_digits == 3 && bits & 0xff) || (n_digits == 2 && bits & 0xffff))
            return error_set(err, ERR_BAD_BASE64,
                             "base64 ends in bits that belong to no byte");
        *to++ = (uint8_t)(bits >> 16);
        if (n_digits > 2)
            *to++ = (uint8_t)(bits >> 8);
        if (n_digits > 3)
            *to++ = (uint8_t)bits;
    }
    return 0;
}

int crypto_base64_decode(const char *text, size_t len_text, uint8_t **out,
                         size_t *len_out, struct error *err)
{
    size_t n_pad = 0;
    uint8_t *buf;

    if (len_text % 4)
        return error_set(err, ERR_BAD_BASE64,
                         "base64 of %zu characters; padded with '=' it is a "
                         "multiple of 4",
                         len_text);
    while (n_pad < 2 && n_pad < len_text && text[len_text - 1 - n_pad] == '=')
        n_pad++;
    buf = malloc(len_text / 4 * 3 + 1);
    if (!buf)
        return error_set(err, ERR_NOMEM, "no memory for %zu base64 characters",
                         len_text);
    if (decode_groups(text, len_text, n_pad, buf, err)) {
        free(buf);
        return -1;
    }
    *out = buf;
    *len_out = len_text / 4 * 3 - n_pad;
    return 0;
}

char *crypto_base64_encode(const void *data, size_t len_bytes,
                           struct error *err)
{
    const uint8_t *p = data;
    char *text = NULL, *to;

    if (len_bytes < SIZE_MAX / 2)
        text = malloc((len_bytes + 2) / 3 * 4 + 1);
    if (!text)
        return error_null(err, ERR_NOMEM, "no memory for %zu bytes as base64",
                          len_bytes);
    to = text;
    for (; len_bytes; p += 3) {
        size_t n = len_bytes < 3 ? len_bytes : 3;
        uint32_t bits = (uint32_t)p[0] << 16;

        if (n > 1)
            bits |= (uint32_t)p[1] << 8;
        if (n > 2)
            bits |= p[2];
        *to++ = digits64[bits >> 18];
        *to++ = digits64[bits >> 12 & 63];
        *to++ = n > 1 ? digits64[bits >> 6 & 63] : '=';
        *to++ = n > 2 ? digits64[bits & 63] : '=';
        len_bytes -= n;
    }
    *to = 0;
    return text;
}

static int cipher_open(gnutls_aead_cipher_hd_t *cipher, const uint8_t *key,
                       struct error *err)
{
    /* GnuTLS takes the key without const and does not change it. */
    gnutls_datum_t datum = {.data = (unsigned char *)key,
                            .size = CRYPTO_KEY_LEN};
    int status =
        gnutls_aead_cipher_init(cipher, GNUTLS_CIPHER_AES_256_GCM, &datum);

    if (status < 0)
        return error_set(err, ERR_INTERNAL, "AES-256-GCM: %s",
                         gnutls_strerror(status));
    return 0;
}

int crypto_seal(const uint8_t key[CRYPTO_KEY_LEN], const void *aad,
                size_t len_aad, const void *plain, size_t len, uint8_t *out,
                struct error *err)
{
    gnutls_aead_cipher_hd_t cipher;
    size_t len_sealed = len + LEN_TAG;
    int status;

    /* 96 random bits: one key seals at most 2^32 boxes (SP 800-38D, 8.3). */
    if (crypto_random(out, LEN_NONCE, err) || cipher_open(&cipher, key, err))
        return -1;
    status = gnutls_aead_cipher_encrypt(cipher, out, LEN_NONCE, aad, len_aad,
                                        LEN_TAG, plain, len, out + LEN_NONCE,
                                        &len_sealed);
    gnutls_aead_cipher_deinit(cipher);
    if (status < 0 || len_sealed != len + LEN_TAG)
        return error_set(err, ERR_INTERNAL, "cannot seal %zu bytes: %s", len,
                         gnutls_strerror(status));
    return 0;
}

int crypto_open(const uint8_t key[CRYPTO_KEY_LEN], const void *aad,
                size_t len_aad, const uint8_t *box, size_t len, uint8_t *out,
                struct error *err)
{
    gnutls_aead_cipher_hd_t cipher;
    size_t len_plain;
    int status;

    if (len < CRYPTO_SEAL_EXTRA)
        return error_set(err, ERR_STORAGE, "a sealed box of %zu bytes is cut",
                         len);
    if (cipher_open(&cipher, key, err))
        return -1;
    len_plain = len - CRYPTO_SEAL_EXTRA;
    status = gnutls_aead_cipher_decrypt(cipher, box, LEN_NONCE, aad, len_aad,
                                        LEN_TAG, box + LEN_NONCE,
                                        len - LEN_NONCE, out, &len_plain);
    gnutls_aead_cipher_deinit(cipher);
    if (status < 0 || len_plain != len - CRYPTO_SEAL_EXTRA) {
        if (len > CRYPTO_SEAL_EXTRA)
            gnutls_memset(out, 0, len - CRYPTO_SEAL_EXTRA);
        return error_set(err, ERR_STORAGE,
                         "a sealed box was changed, or belongs to another "
                         "key or owner");
    }
    return 0;
}
