/* core/train/events.c - event files as TensorBoard reads them.
 * TFRecord: length (8 bytes, little endian), masked CRC of the length, the
 * data, masked CRC of the data. Data: tensorflow.Event, of which three fields
 * are needed besides the file's version: wall_time = 1 (double), step = 2
 * (int64), file_version = 3 (string), summary = 5; in it value = 1, and in
 * that tag = 1 (string), simple_value = 2 (float). */
#include "core/train/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_EVENT = EVENTS_MAX_TAG + 64,
    MAX_NAMES = 100,
    HEAD = 12, /* of a record: length and its checksum */
    TAIL = 4
};

struct events {
    int fd;
    off_t size; /* of whole records */
    char path[4200];
};

uint32_t events_crc(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* TFRecord's mask, so that a checksum of checksums is not trivial. */
static uint32_t masked(const void *bytes, size_t n)
{
    uint32_t crc = events_crc(bytes, n);

    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static uint8_t *put_bytes(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        *p++ = (uint8_t)(v >> 8 * i);
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* A field of protobuf's wire type 2: tag, length, bytes. */
static uint8_t *put_field(uint8_t *p, int field, const void *bytes, size_t n)
{
    p = put_varint(p, (uint64_t)field << 3 | 2);
    p = put_varint(p, n);
    memcpy(p, bytes, n);
    return p + n;
}

static uint8_t *put_time(uint8_t *p, double time_s)
{
    uint64_t bits;

    memcpy(&bits, &time_s, sizeof(bits));
    *p++ = 1 << 3 | 1;
    return put_bytes(p, bits, 8);
}

static int write_record(struct events *ev, const uint8_t *data, size_t n,
                        struct error *err)
{
    uint8_t record[HEAD + MAX_EVENT + TAIL], *p = put_bytes(record, n, 8);
    size_t all, done = 0;

    p = put_bytes(p, masked(record, 8), 4);
    memcpy(p, data, n);
    p = put_bytes(p + n, masked(data, n), 4);
    all = (size_t)(p - record);
    while (done < all) {
        ssize_t got = write(ev->fd, record + done, all - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int why = got < 0 ? errno : ENOSPC;

            if (ftruncate(ev->fd, ev->size) == 0)
                (void)lseek(ev->fd, ev->size, SEEK_SET);
            return error_set(err, ERR_FILE, "'%.120s': %s", ev->path,
                             strerror(why));
        }
        done += (size_t)got;
    }
    ev->size += (off_t)all;
    return 0;
}

static int make_file(struct events *ev, const char *dir, double time_s)
{
    char host[65] = "";

    if (gethostname(host, sizeof(host) - 1) || !host[0])
        snprintf(host, sizeof(host), "localhost");
    for (int i = 0; i < MAX_NAMES; i++) {
        int n = snprintf(ev->path, sizeof(ev->path),
                         "%s/events.out.tfevents.%010lld.%s", dir,
                         (long long)time_s, host);

        if (n >= 0 && i > 0 && n < (int)sizeof(ev->path))
            n += snprintf(ev->path + n, sizeof(ev->path) - (size_t)n, ".%d", i);
        if (n < 0 || n >= (int)sizeof(ev->path)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        ev->fd = open(ev->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (ev->fd >= 0 || errno != EEXIST)
            break;
    }
    return ev->fd < 0 ? -1 : 0;
}

struct events *events_open(const char *dir, double time_s, struct error *err)
{
    static const char version[] = "brain.Event:2";
    struct events *ev = calloc(1, sizeof(*ev));
    uint8_t data[MAX_EVENT], *p;

    if (!ev)
        return error_null(err, ERR_NOMEM, "no memory for an event file");
    ev->fd = -1;
    if (make_file(ev, dir, time_s)) {
        error_set(err, ERR_FILE, "event file in '%.120s': %s", dir,
                  strerror(errno));
        free(ev);
        return NULL;
    }
    p = put_time(data, time_s);
    p = put_field(p, 3, version, sizeof(version) - 1);
    if (!write_record(ev, data, (size_t)(p - data), err))
        return ev;
    events_close(ev, NULL);
    return NULL;
}

int events_scalar(struct events *ev, double time_s, int64_t step,
                  const char *tag, float value, struct error *err)
{
    uint8_t scalar[MAX_EVENT], summary[MAX_EVENT], data[MAX_EVENT], *p;
    size_t len_tag = strlen(tag), n;
    uint32_t bits;

    if (len_tag == 0 || len_tag > EVENTS_MAX_TAG)
        return error_set(err, ERR_BAD_FIELD,
                         "a scalar's tag has %zu bytes; 1 to %d are allowed",
                         len_tag, EVENTS_MAX_TAG);
    p = put_field(scalar, 1, tag, len_tag);
    *p++ = 2 << 3 | 5;
    memcpy(&bits, &value, sizeof(bits));
    p = put_bytes(p, bits, 4);
    p = put_field(summary, 1, scalar, (size_t)(p - scalar));
    n = (size_t)(p - summary);
    p = put_time(data, time_s);
    *p++ = 2 << 3 | 0;
    p = put_varint(p, (uint64_t)step);
    p = put_field(p, 5, summary, n);
    return write_record(ev, data, (size_t)(p - data), err);
}

const char *events_path(const struct events *ev)
{
    return ev->path;
}

int events_close(struct events *ev, struct error *err)
{
    int rc = 0;

    if (!ev)
        return 0;
    if (close(ev->fd))
        rc =
            error_set(err, ERR_FILE, "'%.120s': %s", ev->path, strerror(errno));
    free(ev);
    return rc;
}
