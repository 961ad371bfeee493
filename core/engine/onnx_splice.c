/* core/engine/onnx_splice.c - an ONNX file's metadata without the file being
 * decoded: pairs whose key begins with some text are left out of its digest,
 * or replaced while every other byte stays as it was. So a model keeps its
 * name when only what was measured on it changes, whoever wrote the file and
 * in whatever order. Works on the wire format that onnx_guard has checked. */
#include "core/engine/onnx_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/engine/onnx.h"

enum {
    FIELD_METADATA = 14, /* of ModelProto */
    FIELD_KEY = 1,       /* of StringStringEntryProto */
    FIELD_VALUE = 2,
    WIRE_BYTES = 2
};

/* Does the pair's key begin with prefix? Of several keys the last counts, as
 * for every reader of protocol buffers. */
static int has_prefix(struct onnx_bytes pair, const char *prefix, bool *has,
                      struct error *err)
{
    struct onnx_bytes key = {pair.p, pair.p};
    struct onnx_field f;
    size_t len = strlen(prefix);

    while (pair.p < pair.end) {
        if (!onnx_next_field(&pair, &f))
            return error_set(err, ERR_MODEL, "a metadata pair is damaged");
        if (f.number == FIELD_KEY && f.wire == WIRE_BYTES)
            key = f.body;
    }
    *has = (size_t)(key.end - key.p) >= len && !memcmp(key.p, prefix, len);
    return 0;
}

/* Closes the gaps in place. */
int onnx_strip(uint8_t *bytes, size_t *len_bytes, const char *prefix,
               struct error *err)
{
    struct onnx_bytes rest = {bytes, bytes + *len_bytes};
    uint8_t *to = bytes;
    struct onnx_field f;

    while (rest.p < rest.end) {
        const uint8_t *from = rest.p;
        bool drop = false;
        if (!onnx_next_field(&rest, &f))
            return error_set(err, ERR_MODEL,
                             "damaged or cut short: not an ONNX file");
        if (f.number == FIELD_METADATA && f.wire == WIRE_BYTES &&
            has_prefix(f.body, prefix, &drop, err))
            return -1;
        if (drop)
            continue;
        memmove(to, from, (size_t)(rest.p - from));
        to += rest.p - from;
    }
    *len_bytes = (size_t)(to - bytes);
    return 0;
}

/* --- replacing ----------------------------------------------------------- */

struct spliced {
    const uint8_t *bytes;
    size_t len_bytes;
    const struct onnx_metadata *meta;
};

static void put_varint(FILE *f, size_t v)
{
    for (; v >= 0x80; v >>= 7)
        putc((int)(v & 0x7f) | 0x80, f);
    putc((int)v, f);
}

static size_t varint_size(size_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static void put_text(FILE *f, unsigned field, const char *text)
{
    putc((int)(field << 3 | WIRE_BYTES), f);
    put_varint(f, strlen(text));
    fputs(text, f);
}

static void put_spliced(FILE *f, const void *what)
{
    const struct spliced *s = what;

    fwrite(s->bytes, 1, s->len_bytes, f);
    for (int i = 0; i < s->meta->n; i++) {
        size_t k = strlen(s->meta->keys[i]), v = strlen(s->meta->values[i]);
        putc(FIELD_METADATA << 3 | WIRE_BYTES, f);
        put_varint(f, 1 + varint_size(k) + k + 1 + varint_size(v) + v);
        put_text(f, FIELD_KEY, s->meta->keys[i]);
        put_text(f, FIELD_VALUE, s->meta->values[i]);
    }
}

int onnx_replace_metadata(const char *path, const char *prefix,
                          const struct onnx_metadata *meta, struct error *err)
{
    struct spliced s = {.meta = meta};
    uint8_t *bytes = onnx_read_file(path, &s.len_bytes, err);
    int bad = -1;

    if (!bytes)
        return error_context(err, "%.100s", path);
    for (int i = 0; i < meta->n; i++) {
        if (strncmp(meta->keys[i], prefix, strlen(prefix)) != 0) {
            error_set(err, ERR_MODEL, "metadata \"%.80s\" is not \"%.40s…\"",
                      meta->keys[i], prefix);
            goto out;
        }
    }
    if (onnx_guard(bytes, s.len_bytes, err) ||
        onnx_strip(bytes, &s.len_bytes, prefix, err)) {
        error_context(err, "%.100s", path);
        goto out;
    }
    s.bytes = bytes;
    bad = onnx_write_file(path, put_spliced, &s, err);
out:
    free(bytes);
    return bad;
}
