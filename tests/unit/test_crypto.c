/* tests/unit/test_crypto.c - published vectors, round trips, and everything
 * that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/crypto.h"

static void check_hash(const char *text, const char *want)
{
    uint8_t hash[CRYPTO_SHA256_LEN];
    char hex[2 * CRYPTO_SHA256_LEN + 1];
    struct error err;

    assert_int_equal(crypto_sha256(text, strlen(text), hash, &err), 0);
    crypto_hex(hash, sizeof(hash), hex);
    assert_string_equal(hex, want);
}

/* FIPS 180-2, appendix B, and the empty text. */
static void test_sha256(void **state)
{
    (void)state;
    check_hash("", "e3b0c44298fc1c149afbf4c8996fb924"
                   "27ae41e4649b934ca495991b7852b855");
    check_hash("abc", "ba7816bf8f01cfea414140de5dae2223"
                      "b00361a396177a9cb410ff61f20015ad");
    check_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
               "248d6a61d20638b8e5c026930c3e6039"
               "a33ce45964ff2167f6ecedd419db06c1");
}

static void test_sha256_file(void **state)
{
    char dir[] = "/tmp/facenetd-crypto-XXXXXX", path[64];
    uint8_t whole[CRYPTO_SHA256_LEN], file[CRYPTO_SHA256_LEN];
    size_t len = 200001;
    uint8_t *data = malloc(len);
    struct error err;
    FILE *f;

    (void)state;
    assert_non_null(data);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/data", dir);
    assert_int_equal(crypto_sha256_file(path, file, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(crypto_sha256_file(dir, file, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(crypto_sha256(data, len, whole, &err), 0);
    assert_int_equal(crypto_sha256_file(path, file, &err), 0);
    assert_memory_equal(whole, file, sizeof(whole));
    unlink(path);
    rmdir(dir);
    free(data);
}

static void test_random_and_equal(void **state)
{
    uint8_t a[32] = {0}, b[32] = {0};
    struct error err;

    (void)state;
    assert_int_equal(crypto_random(a, sizeof(a), &err), 0);
    assert_int_equal(crypto_random(b, sizeof(b), &err), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_false(crypto_equal(a, b, sizeof(a)));
    memcpy(b, a, sizeof(a));
    assert_true(crypto_equal(a, b, sizeof(a)));
    b[31] ^= 1;
    assert_false(crypto_equal(a, b, sizeof(a)));
    assert_true(crypto_equal(a, b, 31));
    assert_true(crypto_equal(NULL, NULL, 0));
}

/* RFC 4648, section 10. */
static void test_base64_vectors(void **state)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+"},
    };
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char *text = crypto_base64_encode(rows[i][0], strlen(rows[i][0]), &err);
        uint8_t *back;
        size_t len;

        assert_non_null(text);
        assert_string_equal(text, rows[i][1]);
        assert_int_equal(
            crypto_base64_decode(text, strlen(text), &back, &len, &err), 0);
        assert_int_equal(len, strlen(rows[i][0]));
        assert_memory_equal(back, rows[i][0], len);
        free(back);
        free(text);
    }
}

static void test_base64_refused(void **state)
{
    static const char *const rows[] = {
        "Z",
        "Zg",
        "Zg=",
        "Zh==",
        "Zm9=",
        "====",
        "Z===",
        "Zg==Zg==",
        "Zm9v\n",
        "Zm9v\n===",
        "Zm 9",
        " Zm9",
        "Zm9-",
        "Zm_v",
        "Z=g=",
        "=Zg=",
        "Zm9v====",
        "Zm\xc3\xa9",
        "data:image/jpeg;base64,Zm9v",
    };
    struct error err;
    uint8_t *out = NULL;
    size_t len = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        err = (struct error){0};
        if (!crypto_base64_decode(rows[i], strlen(rows[i]), &out, &len, &err))
            fail_msg("\"%s\" was accepted", rows[i]);
        assert_int_equal(err.code, ERR_BAD_BASE64);
        assert_null(out);
    }
    assert_int_equal(crypto_base64_decode("Zm\0v", 4, &out, &len, &err), -1);
    assert_non_null(strstr(err.text, "character 3 (byte 00)"));
}

static void test_base64_lengths(void **state)
{
    uint8_t data[257];
    struct error err;

    (void)state;
    for (size_t n = 0; n <= sizeof(data); n++) {
        uint8_t *back;
        size_t len;
        char *text;

        for (size_t i = 0; i < n; i++)
            data[i] = (uint8_t)(i * 73 + n);
        text = crypto_base64_encode(data, n, &err);
        assert_non_null(text);
        assert_int_equal(
            crypto_base64_decode(text, strlen(text), &back, &len, &err), 0);
        assert_int_equal(len, n);
        assert_memory_equal(back, data, n);
        free(back);
        free(text);
    }
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", case 14: the key
 * and the nonce are 0, as is the block. Our box is nonce, text, tag. */
static void test_open_vector(void **state)
{
    static const uint8_t box[] = {
        0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
        0,    0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e,
        0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18, 0xd0, 0xd1, 0xc8, 0xa7, 0x99,
        0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19};
    uint8_t key[CRYPTO_KEY_LEN] = {0}, out[16], zero[16] = {0};
    struct error err;

    (void)state;
    assert_int_equal(crypto_open(key, NULL, 0, box, sizeof(box), out, &err), 0);
    assert_memory_equal(out, zero, sizeof(zero));
}

static void test_seal(void **state)
{
    uint8_t key[CRYPTO_KEY_LEN], other[CRYPTO_KEY_LEN];
    uint8_t plain[100], back[100];
    uint8_t box[100 + CRYPTO_SEAL_EXTRA], again[100 + CRYPTO_SEAL_EXTRA];
    struct error err;

    (void)state;
    assert_int_equal(crypto_random(key, sizeof(key), &err), 0);
    memcpy(other, key, sizeof(key));
    other[31] ^= 1;
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)i;
    assert_int_equal(crypto_seal(key, "owner", 5, plain, 100, box, &err), 0);
    assert_int_equal(crypto_seal(key, "owner", 5, plain, 100, again, &err), 0);
    assert_memory_not_equal(box, again, sizeof(box));
    assert_int_equal(crypto_open(key, "owner", 5, box, sizeof(box), back, &err),
                     0);
    assert_memory_equal(back, plain, 100);
    for (size_t at = 0; at < sizeof(box); at++) {
        box[at] ^= 0x20;
        assert_int_equal(
            crypto_open(key, "owner", 5, box, sizeof(box), back, &err), -1);
        assert_int_equal(err.code, ERR_STORAGE);
        box[at] ^= 0x20;
    }
    for (size_t i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], 0); /* nothing of a refused box is left */
    assert_int_equal(crypto_open(key, "0wner", 5, box, sizeof(box), back, &err),
                     -1);
    assert_int_equal(
        crypto_open(other, "owner", 5, box, sizeof(box), back, &err), -1);
    for (size_t len = 0; len < sizeof(box); len++)
        assert_int_equal(crypto_open(key, "owner", 5, box, len, back, &err),
                         -1);
}

static void test_seal_nothing(void **state)
{
    uint8_t key[CRYPTO_KEY_LEN] = {1}, box[CRYPTO_SEAL_EXTRA], none[1];
    struct error err;

    (void)state;
    assert_int_equal(crypto_seal(key, "a", 1, "", 0, box, &err), 0);
    assert_int_equal(crypto_open(key, "a", 1, box, sizeof(box), none, &err), 0);
    assert_int_equal(crypto_open(key, "b", 1, box, sizeof(box), none, &err),
                     -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_sha256_file),
        cmocka_unit_test(test_random_and_equal),
        cmocka_unit_test(test_base64_vectors),
        cmocka_unit_test(test_base64_refused),
        cmocka_unit_test(test_base64_lengths),
        cmocka_unit_test(test_open_vector),
        cmocka_unit_test(test_seal),
        cmocka_unit_test(test_seal_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
