/* core/engine/onnx.c - ONNX files: bytes in, metadata pairs, and the way from
 * bytes to a graph: guard, protobuf-c, reader. Writing is onnx_write.c. */
#include "core/engine/onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/engine/onnx_priv.h"

/* --- metadata ---------------------------------------------------------- */

static int find_key(const struct onnx_metadata *m, const char *key)
{
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->keys[i], key))
            return i;
    return -1;
}

const char *onnx_metadata_get(const struct onnx_metadata *m, const char *key)
{
    int i = find_key(m, key);
    return i < 0 ? NULL : m->values[i];
}

static void remove_pair(struct onnx_metadata *m, int i)
{
    size_t rest = (size_t)(m->n - i - 1);

    free(m->keys[i]);
    free(m->values[i]);
    memmove(&m->keys[i], &m->keys[i + 1], rest * sizeof(*m->keys));
    memmove(&m->values[i], &m->values[i + 1], rest * sizeof(*m->values));
    m->n--;
}

static int make_room(struct onnx_metadata *m)
{
    size_t n = (size_t)m->n + 1;
    char **p = realloc(m->keys, n * sizeof(*p));

    if (!p)
        return -1;
    m->keys = p;
    p = realloc(m->values, n * sizeof(*p));
    if (!p)
        return -1;
    m->values = p;
    return 0;
}

int onnx_metadata_set(struct onnx_metadata *m, const char *key,
                      const char *value, struct error *err)
{
    int i = find_key(m, key);
    char *k, *v;

    if (!value) {
        if (i >= 0)
            remove_pair(m, i);
        return 0;
    }
    if (i < 0 && m->n == ONNX_MAX_METADATA)
        return error_set(err, ERR_MODEL, "more than %d metadata pairs",
                         ONNX_MAX_METADATA);
    v = strdup(value);
    k = i < 0 ? strdup(key) : NULL;
    if (!v || (i < 0 && (!k || make_room(m)))) {
        free(k);
        free(v);
        return error_set(err, ERR_NOMEM, "no memory for metadata");
    }
    if (i >= 0) {
        free(m->values[i]);
        m->values[i] = v;
        return 0;
    }
    m->keys[m->n] = k;
    m->values[m->n++] = v;
    return 0;
}

void onnx_metadata_fini(struct onnx_metadata *m)
{
    while (m->n)
        remove_pair(m, m->n - 1);
    free(m->keys);
    free(m->values);
    *m = (struct onnx_metadata){0};
}

static int read_metadata(const Onnx__ModelProto *model,
                         struct onnx_metadata *out, struct error *err)
{
    for (size_t i = 0; i < model->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *p = model->metadata_props[i];
        const char *key = p->key ? p->key : "";
        if (!*key || !onnx_text_ok(key))
            return error_set(err, ERR_MODEL,
                             "metadata pair %zu has no printable key", i);
        if (p->value && !onnx_lines_ok(p->value))
            return error_set(err, ERR_MODEL, "metadata \"%.80s\" is not text",
                             key);
        if (onnx_metadata_get(out, key))
            return error_set(err, ERR_MODEL,
                             "metadata \"%.80s\" is given twice", key);
        if (onnx_metadata_set(out, key, p->value ? p->value : "", err))
            return -1;
    }
    return 0;
}

/* --- reading -------------------------------------------------------------- */

static Onnx__ModelProto *unpack(const void *bytes, size_t len_bytes,
                                struct error *err)
{
    Onnx__ModelProto *model;

    if (len_bytes > ONNX_MAX_BYTES)
        return error_null(err, ERR_MODEL, "more than %d MiB",
                          ONNX_MAX_BYTES >> 20);
    if (onnx_guard(bytes, len_bytes, err))
        return NULL;
    model = onnx__model_proto__unpack(NULL, len_bytes, bytes);
    if (!model)
        return error_null(err, ERR_MODEL,
                          "damaged: its messages cannot be read");
    return model;
}

/* Consumes the model; NULL is what unpack has failed with. */
static struct graph *build(Onnx__ModelProto *take_model,
                           struct onnx_metadata *meta, struct error *err)
{
    struct onnx_metadata found = {0};
    struct graph *g = NULL;

    if (!take_model)
        return NULL;
    if (!take_model->graph)
        error_set(err, ERR_MODEL, "no graph: not an ONNX model");
    else if (!read_metadata(take_model, &found, err))
        g = onnx_read(take_model, err);
    onnx__model_proto__free_unpacked(take_model, NULL);
    if (g && meta)
        *meta = found;
    else
        onnx_metadata_fini(&found);
    return g;
}

struct graph *onnx_parse(const void *bytes, size_t len_bytes,
                         struct onnx_metadata *meta, struct error *err)
{
    return build(unpack(bytes, len_bytes, err), meta, err);
}

uint8_t *onnx_read_file(const char *path, size_t *len_bytes, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint8_t *bytes = NULL;
    struct stat st;
    size_t got = 0;

    if (fd < 0 || fstat(fd, &st)) {
        error_set(err, ERR_FILE, "%s", strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        error_set(err, ERR_FILE, "not a regular file");
        goto out;
    }
    if (st.st_size < 1 || st.st_size > ONNX_MAX_BYTES) {
        error_set(err, ERR_MODEL,
                  st.st_size < 1 ? "the file is empty"
                                 : "the file is over the limit of 1 GiB");
        goto out;
    }
    bytes = malloc((size_t)st.st_size);
    if (!bytes) {
        error_set(err, ERR_NOMEM, "no memory for %lld bytes",
                  (long long)st.st_size);
        goto out;
    }
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, bytes + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error_set(err, ERR_FILE, "%s",
                      n ? strerror(errno) : "the file shrank while read");
            free(bytes);
            bytes = NULL;
            goto out;
        }
        got += (size_t)n;
    }
    *len_bytes = got;
out:
    if (fd >= 0)
        close(fd);
    return bytes;
}

struct graph *onnx_load_digest(const char *path, const char *without,
                               uint8_t digest[CRYPTO_SHA256_LEN],
                               struct onnx_metadata *meta, struct error *err)
{
    Onnx__ModelProto *model = NULL;
    struct graph *g;
    size_t len;
    uint8_t *bytes = onnx_read_file(path, &len, err);

    if (bytes)
        model = unpack(bytes, len, err);
    if (model && digest &&
        (onnx_strip(bytes, &len, without, err) ||
         crypto_sha256(bytes, len, digest, err))) {
        onnx__model_proto__free_unpacked(model, NULL);
        model = NULL;
    }
    free(bytes); /* before the weights are decoded: these files are large */
    g = build(model, meta, err);
    if (!g)
        error_context(err, "%.100s", path);
    return g;
}

struct graph *onnx_load(const char *path, struct onnx_metadata *meta,
                        struct error *err)
{
    return onnx_load_digest(path, NULL, NULL, meta, err);
}
