/* core/train/checkpoint.c - see the header. File: magic, number of parts, a
 * row for each (name, length, SHA-256), the SHA-256 of all that, then the
 * parts one after another. */
#include "core/train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/crypto.h"
#include "core/base/file.h"

static const char prefix[] = "checkpoint-";

struct row {
    char name[CHECKPOINT_MAX_NAME + 1];
    uint64_t len;
    uint8_t sha256[CRYPTO_SHA256_LEN];
};

struct head {
    char magic[12]; /* "facenetd ck1" */
    uint32_t n;
    struct row rows[CHECKPOINT_MAX_PARTS];
};

static const char magic[] = "facenetd ck1";

static size_t head_bytes(int n)
{
    return offsetof(struct head, rows) + (size_t)n * sizeof(struct row);
}

/* 0: all of it; 1: the file ends before; -1: errno. */
static int read_all(int fd, void *bytes, size_t n)
{
    char *p = bytes;

    while (n > 0) {
        ssize_t got = read(fd, p, n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -1 : 1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static int file_error(const char *path, int why, struct error *err)
{
    return error_set(err,
                     why == ENOSPC || why == EDQUOT || why == EFBIG
                         ? ERR_STORAGE_FULL
                         : ERR_FILE,
                     "checkpoint '%.150s': %s", path, strerror(why));
}

/* The step that a file's name tells, or -1. */
static long long step_of(const char *name)
{
    char *end;
    long long step;

    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    name += sizeof(prefix) - 1;
    if (*name < '0' || *name > '9')
        return -1;
    errno = 0;
    step = strtoll(name, &end, 10);
    return *end || errno ? -1 : step;
}

/* The highest step below `below` (negative: any), or -1. */
static long long highest(const char *dir, long long below)
{
    DIR *d = opendir(dir);
    long long best = -1;

    if (!d)
        return -1;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        long long step = step_of(e->d_name);

        if (step > best && (below < 0 || step < below))
            best = step;
    }
    closedir(d);
    return best;
}

static int name_of(const char *dir, long long step, const char *end,
                   char path[CHECKPOINT_MAX_PATH], struct error *err)
{
    int n = snprintf(path, CHECKPOINT_MAX_PATH, "%s/%s%lld%s", dir, prefix,
                     step, end);

    return n > 0 && n < CHECKPOINT_MAX_PATH
               ? 0
               : error_set(err, ERR_FILE, "the path of '%.80s…' is too long",
                           dir);
}

/* Of those up to this step, all but the newest `keep`. Later ones are of a
 * run that was left for an earlier checkpoint: they must not push out what is
 * written now. What cannot be removed stays: no harm. */
static void remove_old(const char *dir, long long last, int keep)
{
    char path[CHECKPOINT_MAX_PATH];
    long long below = last + 1, step;

    for (int i = 0; (step = highest(dir, below)) >= 0; i++, below = step)
        if (i >= keep && !name_of(dir, step, "", path, NULL))
            unlink(path);
}

static int make_head(const struct checkpoint_part *parts, int n,
                     struct head *head, struct error *err)
{
    memset(head, 0, sizeof(*head));
    memcpy(head->magic, magic, sizeof(head->magic));
    head->n = (uint32_t)n;
    if (n > CHECKPOINT_MAX_PARTS)
        return error_set(err, ERR_BAD_FIELD,
                         "a checkpoint of %d parts; %d are allowed", n,
                         CHECKPOINT_MAX_PARTS);
    for (int i = 0; i < n; i++) {
        struct row *r = &head->rows[i];

        if (strlen(parts[i].name) > CHECKPOINT_MAX_NAME)
            return error_set(err, ERR_BAD_FIELD,
                             "a checkpoint's part has a name of over %d bytes",
                             CHECKPOINT_MAX_NAME);
        memcpy(r->name, parts[i].name, strlen(parts[i].name));
        r->len = parts[i].len;
        if (crypto_sha256(parts[i].bytes, parts[i].len, r->sha256, err))
            return -1;
    }
    return 0;
}

static int write_file(const char *path, const struct head *head,
                      const struct checkpoint_part *parts, struct error *err)
{
    uint8_t sum[CRYPTO_SHA256_LEN];
    size_t len = head_bytes((int)head->n);
    int fd, rc, why;

    if (crypto_sha256(head, len, sum, err))
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return file_error(path, errno, err);
    rc = file_write_all(fd, head, len) || file_write_all(fd, sum, sizeof(sum));
    for (uint32_t i = 0; !rc && i < head->n; i++)
        rc = file_write_all(fd, parts[i].bytes, parts[i].len);
    rc = rc || fsync(fd);
    why = errno;
    if (close(fd) && !rc) {
        rc = 1;
        why = errno;
    }
    if (!rc)
        return 0;
    unlink(path);
    return file_error(path, why, err);
}

int checkpoint_save(const char *dir, long long step,
                    const struct checkpoint_part *parts, int n, int keep,
                    char *path, struct error *err)
{
    char temporary[CHECKPOINT_MAX_PATH], final[CHECKPOINT_MAX_PATH];
    struct head *head = malloc(sizeof(*head));
    int rc = -1;

    if (!head)
        return error_set(err, ERR_NOMEM, "no memory for a checkpoint");
    if (!name_of(dir, step, ".new", temporary, err) &&
        !name_of(dir, step, "", final, err) &&
        !make_head(parts, n, head, err) &&
        !write_file(temporary, head, parts, err))
        rc = rename(temporary, final) || file_sync_dir(dir)
                 ? file_error(final, errno, err)
                 : 0;
    free(head);
    if (rc)
        return -1;
    remove_old(dir, step, keep);
    if (path)
        memcpy(path, final, CHECKPOINT_MAX_PATH);
    return 0;
}

/* "PATH: what", and the checkpoint before it. */
static int damaged(const char *path, struct error *err, const char *what,
                   const char *part)
{
    char dir[CHECKPOINT_MAX_PATH], before[CHECKPOINT_MAX_PATH] = "";
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    long long step = step_of(name), other;

    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    other = step < 0 ? -1 : highest(dir, step);
    if (other >= 0)
        snprintf(before, sizeof(before), "; before it there is %s%lld", prefix,
                 other);
    return error_set(err, ERR_BAD_FIELD, "checkpoint '%.100s': %s%s%s%s", name,
                     what, part ? " " : "", part ? part : "", before);
}

static int load_parts(int fd, const char *path, const struct head *head,
                      const struct checkpoint_part *parts, int n,
                      struct error *err)
{
    uint8_t sum[CRYPTO_SHA256_LEN];
    char rest;

    if ((int)head->n != n)
        return damaged(path, err, "it is of another kind of run", NULL);
    for (int i = 0; i < n; i++) {
        const struct row *r = &head->rows[i];

        if (strncmp(r->name, parts[i].name, sizeof(r->name)) != 0)
            return damaged(path, err, "it lacks the part", parts[i].name);
        if (r->len != parts[i].len)
            return damaged(path, err, "another size than this run's has",
                           parts[i].name);
    }
    for (int i = 0; i < n; i++) {
        int rc = read_all(fd, parts[i].bytes, parts[i].len);

        if (rc < 0)
            return file_error(path, errno, err);
        if (rc > 0)
            return damaged(path, err, "cut off in", parts[i].name);
        if (crypto_sha256(parts[i].bytes, parts[i].len, sum, err))
            return -1;
        if (memcmp(sum, head->rows[i].sha256, sizeof(sum)) != 0)
            return damaged(path, err, "damaged in", parts[i].name);
    }
    return read_all(fd, &rest, 1) == 1
               ? 0
               : damaged(path, err, "it goes on after its end", NULL);
}

static int load_head(int fd, const char *path, struct head *head,
                     struct error *err)
{
    uint8_t sum[CRYPTO_SHA256_LEN], stored[CRYPTO_SHA256_LEN];
    int rc = read_all(fd, head, head_bytes(0));

    if (rc < 0)
        return file_error(path, errno, err);
    if (rc || memcmp(head->magic, magic, sizeof(head->magic)) != 0 ||
        head->n > CHECKPOINT_MAX_PARTS)
        return damaged(path, err, "this is no checkpoint", NULL);
    rc = read_all(fd, head->rows, head->n * sizeof(struct row));
    if (!rc)
        rc = read_all(fd, stored, sizeof(stored));
    if (rc < 0)
        return file_error(path, errno, err);
    if (rc)
        return damaged(path, err, "cut off in its head", NULL);
    if (crypto_sha256(head, head_bytes((int)head->n), sum, err))
        return -1;
    return memcmp(sum, stored, sizeof(sum)) == 0
               ? 0
               : damaged(path, err, "its head is damaged", NULL);
}

int checkpoint_load(const char *path, const struct checkpoint_part *parts,
                    int n, struct error *err)
{
    struct head *head = malloc(sizeof(*head));
    int fd = head ? open(path, O_RDONLY | O_CLOEXEC) : -1, rc = -1;

    if (!head)
        error_set(err, ERR_NOMEM, "no memory for a checkpoint");
    else if (fd < 0)
        file_error(path, errno, err);
    else
        rc = load_head(fd, path, head, err) ||
                     load_parts(fd, path, head, parts, n, err)
                 ? -1
                 : 0;
    if (fd >= 0)
        close(fd);
    free(head);
    return rc;
}

static long long part_len(int fd, const char *path, const char *name,
                          struct head *head, struct error *err)
{
    if (load_head(fd, path, head, err))
        return -1;
    for (uint32_t i = 0; i < head->n; i++)
        if (strncmp(head->rows[i].name, name, sizeof(head->rows[i].name)) == 0)
            return head->rows[i].len <= LLONG_MAX
                       ? (long long)head->rows[i].len
                       : damaged(path, err, "an impossible size of", name);
    return damaged(path, err, "it lacks the part", name);
}

long long checkpoint_part_len(const char *path, const char *name,
                              struct error *err)
{
    struct head *head = malloc(sizeof(*head));
    int fd = head ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    long long len = -1;

    if (!head)
        error_set(err, ERR_NOMEM, "no memory for a checkpoint");
    else if (fd < 0)
        file_error(path, errno, err);
    else
        len = part_len(fd, path, name, head, err);
    if (fd >= 0)
        close(fd);
    free(head);
    return len;
}

long long checkpoint_newest(const char *dir, long long below,
                            char path[CHECKPOINT_MAX_PATH], struct error *err)
{
    long long step = highest(dir, below);

    if (step < 0)
        return error_set(err, ERR_FILE, "there is no checkpoint in '%.150s'",
                         dir);
    return name_of(dir, step, "", path, err) ? -1 : step;
}
