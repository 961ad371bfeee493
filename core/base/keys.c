/* core/base/keys.c - reads, checks and edits the file of hashed API keys.
 * The daemon loads it at start and on SIGHUP; facenetctl edits it. A key has
 * 256 random bits, so one plain SHA-256 is enough: there is nothing to
 * guess that a slow hash would protect. */
#include "core/base/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/crypto.h"
#include "core/base/file.h"

enum {
    FILE_MAX_BYTES = 1 << 20,
    DIGEST_HEX = 2 * CRYPTO_SHA256_LEN,
    LINE_MAX_BYTES = KEYS_NAME_MAX + DIGEST_HEX + KEYS_RIGHTS_LEN + 8
};

struct row {
    char name[KEYS_NAME_MAX + 1];
    uint8_t digest[CRYPTO_SHA256_LEN];
    unsigned rights;
    int line;          /* from 1 */
    size_t at, length; /* of the line in the text, its newline included */
};

struct keys {
    int n;
    struct row rows[KEYS_MAX];
};

static const struct {
    const char *word;
    unsigned right;
} words[] = {
    {"verify", KEYS_VERIFY},
    {"enroll", KEYS_ENROLL},
    {"admin", KEYS_ADMIN},
    {"embed", KEYS_EMBED},
};

enum {
    N_WORDS = sizeof(words) / sizeof(words[0]),
    ALL_RIGHTS = KEYS_VERIFY | KEYS_ENROLL | KEYS_ADMIN | KEYS_EMBED
};

/* --- one line --------------------------------------------------------- */

static bool is_alnum(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
           (ch >= 'A' && ch <= 'Z');
}

static bool name_valid(const char *name, size_t len)
{
    if (len == 0 || len > KEYS_NAME_MAX || !is_alnum(name[0]))
        return false;
    for (size_t i = 1; i < len; i++)
        if (!is_alnum(name[i]) && name[i] != '.' && name[i] != '_' &&
            name[i] != '-')
            return false;
    return true;
}

static int rights_parse(const char *text, size_t len, unsigned *rights,
                        struct error *err)
{
    unsigned found = 0;

    for (size_t at = 0; at <= len;) {
        const char *comma = memchr(text + at, ',', len - at);
        size_t n = comma ? (size_t)(comma - text) - at : len - at;
        unsigned right = 0;
        for (int w = 0; w < N_WORDS; w++)
            if (strlen(words[w].word) == n &&
                memcmp(words[w].word, text + at, n) == 0)
                right = words[w].right;
        if (!right)
            return error_set(err, ERR_USAGE,
                             "right %d is none of verify, enroll, admin, "
                             "embed (comma-separated)",
                             __builtin_popcount(found) + 1);
        found |= right;
        at += n + 1;
    }
    *rights = found;
    return 0;
}

int keys_rights_parse(const char *text, unsigned *rights, struct error *err)
{
    return rights_parse(text, strlen(text), rights, err);
}

const char *keys_rights_text(unsigned rights, char buf[KEYS_RIGHTS_LEN])
{
    size_t used = 0;

    buf[0] = '\0';
    for (int w = 0; w < N_WORDS; w++)
        if (rights & words[w].right)
            used += (size_t)snprintf(buf + used, KEYS_RIGHTS_LEN - used, "%s%s",
                                     used ? "," : "", words[w].word);
    return buf;
}

static int nibble(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    if (ch >= 'a' && ch <= 'f')
        return ch - 'a' + 10;
    return -1;
}

/* line has no newline and no blanks around it. Messages never quote it: a
 * key pasted into the file by mistake must not reach a log. */
static int parse_row(const char *line, size_t len, struct row *row,
                     struct error *err)
{
    const char *first = memchr(line, ':', len);
    size_t len_name = first ? (size_t)(first - line) : 0;
    const char *hex = line + len_name + 1;

    if (!first || len - len_name < DIGEST_HEX + 2 || hex[DIGEST_HEX] != ':')
        return error_set(err, ERR_CONFIG,
                         "the line is not name:sha256:rights with a digest of "
                         "%d hex digits",
                         DIGEST_HEX);
    if (!name_valid(line, len_name))
        return error_set(err, ERR_CONFIG,
                         "the name is not 1 to %d letters, digits, '.', '_', "
                         "'-', beginning with a letter or digit",
                         KEYS_NAME_MAX);
    memcpy(row->name, line, len_name);
    row->name[len_name] = '\0';
    for (int i = 0; i < CRYPTO_SHA256_LEN; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return error_set(err, ERR_CONFIG,
                             "the digest of %s is not %d lower-case hex digits",
                             row->name, DIGEST_HEX);
        row->digest[i] = (uint8_t)(high << 4 | low);
    }
    if (rights_parse(hex + DIGEST_HEX + 1, len - len_name - DIGEST_HEX - 2,
                     &row->rights, err) < 0) {
        if (err)
            err->code = ERR_CONFIG;
        return error_context(err, "%s", row->name);
    }
    return 0;
}

/* --- the file --------------------------------------------------------- */

static const struct row *find(const struct keys *keys, const char *name)
{
    for (int i = 0; i < keys->n; i++)
        if (strcmp(keys->rows[i].name, name) == 0)
            return &keys->rows[i];
    return NULL;
}

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r';
}

static int add_line(struct keys *keys, const char *line, size_t len,
                    struct row *row, struct error *err)
{
    const struct row *same;

    while (len && is_blank(line[0])) {
        line++;
        len--;
    }
    while (len && is_blank(line[len - 1]))
        len--;
    if (len == 0 || line[0] == '#')
        return 0;
    if (keys->n == KEYS_MAX)
        return error_set(err, ERR_CONFIG, "there are more than %d keys",
                         KEYS_MAX);
    if (parse_row(line, len, row, err) < 0)
        return -1;
    same = find(keys, row->name);
    if (same)
        return error_set(err, ERR_CONFIG, "%s stands on line %d already",
                         row->name, same->line);
    keys->rows[keys->n++] = *row;
    return 0;
}

struct keys *keys_parse(const char *name, const char *text, size_t len,
                        struct error *err)
{
    struct keys *keys = calloc(1, sizeof(*keys));
    int number = 0;

    if (!keys)
        return error_null(err, ERR_NOMEM, "no memory for the API keys");
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at;
        struct row row = {.line = ++number, .at = at, .length = n + !!end};
        if (add_line(keys, text + at, n, &row, err) < 0) {
            error_context(err, "%s:%d", name, number);
            keys_free(keys);
            return NULL;
        }
        at += row.length;
    }
    return keys;
}

void keys_free(struct keys *keys)
{
    free(keys);
}

static bool is_credential(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    size_t len = dir ? strlen(dir) : 0;

    return len && strncmp(path, dir, len) == 0 && path[len] == '/' &&
           !strstr(path + len, "/..");
}

/* Hands over *out, malloc'd. A missing file is an error unless may_miss, when
 * it reads as empty. *st: what it was, st_mode 0 when missing. */
static int read_file(const char *path, bool may_miss, char **out, size_t *len,
                     struct stat *st, struct error *err)
{
    char *buf = NULL;
    ssize_t got = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    mode_t refused = is_credential(path) ? 0007 : 0077;

    *len = 0;
    memset(st, 0, sizeof(*st));
    if (fd < 0 && errno == ENOENT && may_miss) {
        *out = NULL;
        return 0;
    }
    if (fd < 0 || fstat(fd, st) < 0) {
        error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st->st_mode)) {
        error_set(err, ERR_FILE, "%s is not a regular file", path);
        goto out;
    }
    if (st->st_mode & refused) {
        error_set(err, ERR_FILE,
                  "%s has mode %04o: others have access; chmod 600 it", path,
                  (unsigned)st->st_mode & 07777);
        goto out;
    }
    buf = malloc(FILE_MAX_BYTES + 1);
    if (!buf) {
        error_set(err, ERR_NOMEM, "no memory to read %s", path);
        goto out;
    }
    do {
        got = read(fd, buf + *len, FILE_MAX_BYTES + 1 - *len);
        if (got > 0)
            *len += (size_t)got;
    } while ((got > 0 && *len <= FILE_MAX_BYTES) ||
             (got < 0 && errno == EINTR));
    if (got < 0)
        error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    else if (*len > FILE_MAX_BYTES)
        got = error_set(err, ERR_FILE, "%s is over %d bytes", path,
                        FILE_MAX_BYTES);
out:
    if (fd >= 0)
        close(fd);
    if (got < 0) {
        free(buf);
        return -1;
    }
    *out = buf;
    return 0;
}

struct keys *keys_load(const char *path, struct error *err)
{
    struct keys *keys;
    struct stat st;
    char *text;
    size_t len;

    if (read_file(path, false, &text, &len, &st, err) < 0)
        return NULL;
    keys = keys_parse(path, text, len, err);
    free(text);
    return keys;
}

/* --- the check -------------------------------------------------------- */

bool keys_check(const struct keys *keys, const char *text, unsigned *rights,
                const char **name)
{
    uint8_t digest[CRYPTO_SHA256_LEN];
    size_t len = text ? strnlen(text, KEYS_SENT_MAX + 1) : 0;
    int found = -1;

    if (!keys || len == 0 || len > KEYS_SENT_MAX ||
        crypto_sha256(text, len, digest, NULL) < 0)
        return false;
    /* Every row is compared, also after the right one. */
    for (int i = 0; i < keys->n; i++) {
        int hit =
            -(int)crypto_equal(digest, keys->rows[i].digest, sizeof(digest));
        found = (found & ~hit) | (i & hit);
    }
    if (found < 0)
        return false;
    *name = keys->rows[found].name;
    *rights = keys->rows[found].rights;
    if (*rights & KEYS_ADMIN)
        *rights = ALL_RIGHTS;
    return true;
}

int keys_count(const struct keys *keys)
{
    return keys->n;
}

const char *keys_name(const struct keys *keys, int i)
{
    return keys->rows[i].name;
}

unsigned keys_rights(const struct keys *keys, int i)
{
    return keys->rows[i].rights;
}

/* --- editing ---------------------------------------------------------- */

/* A file being edited: its real path (a symbolic link is followed, not
 * replaced), its text, and a lock on its directory, since the file itself is
 * replaced. */
struct edit {
    char *path;
    char *dir;
    int dir_fd;
    char *text;
    size_t len;
    struct stat st;
    struct keys *keys;
};

static void edit_close(struct edit *e)
{
    keys_free(e->keys);
    free(e->text);
    if (e->dir_fd >= 0)
        close(e->dir_fd);
    free(e->dir);
    free(e->path);
}

static int edit_open(struct edit *e, const char *path, struct error *err)
{
    char *slash;

    *e = (struct edit){.dir_fd = -1};
    e->path = realpath(path, NULL);
    if (!e->path && errno == ENOENT)
        e->path = strdup(path);
    if (!e->path)
        return error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    slash = strrchr(e->path, '/');
    e->dir = !slash ? strdup(".")
                    : strndup(e->path,
                              slash == e->path ? 1 : (size_t)(slash - e->path));
    if (!e->dir) {
        error_set(err, ERR_NOMEM, "no memory to edit %s", path);
        goto fail;
    }
    e->dir_fd = open(e->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (e->dir_fd < 0 || flock(e->dir_fd, LOCK_EX) < 0) {
        error_set(err, ERR_FILE, "%s: %s", e->dir, strerror(errno));
        goto fail;
    }
    if (read_file(e->path, true, &e->text, &e->len, &e->st, err) < 0)
        goto fail;
    e->keys = keys_parse(e->path, e->text ? e->text : "", e->len, err);
    if (e->keys)
        return 0;
fail:
    edit_close(e);
    return -1;
}

/* Replace the file by the text: all of it or nothing, also after a power
 * cut. */
static int edit_save(struct edit *e, const char *text, size_t len,
                     struct error *err)
{
    size_t len_temp = strlen(e->path) + 8;
    char *temp = malloc(len_temp);
    int fd = -1, rc = -1;

    if (!temp)
        return error_set(err, ERR_NOMEM, "no memory to write %s", e->path);
    snprintf(temp, len_temp, "%s.XXXXXX", e->path);
    fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        error_set(err, ERR_FILE, "%s: %s", e->dir, strerror(errno));
        goto out;
    }
    if ((e->st.st_mode &&
         (e->st.st_uid != geteuid() || e->st.st_gid != getegid()) &&
         fchown(fd, e->st.st_uid, e->st.st_gid) < 0) ||
        file_write_all(fd, text, len) < 0 || fsync(fd) < 0 ||
        rename(temp, e->path) < 0) {
        error_set(err, ERR_FILE, "%s: %s", e->path, strerror(errno));
        unlink(temp);
        goto out;
    }
    if (fsync(e->dir_fd) < 0)
        error_set(err, ERR_FILE, "%s: %s", e->dir, strerror(errno));
    else
        rc = 0;
out:
    if (fd >= 0)
        close(fd);
    free(temp);
    return rc;
}

static int make_key(char out[KEYS_TEXT_LEN + 1], uint8_t *digest,
                    struct error *err)
{
    uint8_t bits[(KEYS_TEXT_LEN - 4) / 2];

    if (crypto_random(bits, sizeof(bits), err) < 0)
        return -1;
    memcpy(out, "fnd_", 4);
    crypto_hex(bits, sizeof(bits), out + 4);
    explicit_bzero(bits, sizeof(bits));
    return crypto_sha256(out, KEYS_TEXT_LEN, digest, err);
}

static int check_new(const struct edit *e, const char *name, unsigned rights,
                     struct error *err)
{
    if (!name_valid(name, strlen(name)))
        return error_set(err, ERR_USAGE,
                         "the name of a key is 1 to %d letters, digits, '.', "
                         "'_', '-', beginning with a letter or digit",
                         KEYS_NAME_MAX);
    if (rights == 0 || rights & ~(unsigned)ALL_RIGHTS)
        return error_set(err, ERR_USAGE, "the key %s would have no right",
                         name);
    if (find(e->keys, name))
        return error_set(err, ERR_CONFLICT, "%s already has a key named %s",
                         e->path, name);
    if (e->keys->n == KEYS_MAX)
        return error_set(err, ERR_QUOTA, "%s already holds %d keys", e->path,
                         KEYS_MAX);
    return 0;
}

int keys_add(const char *path, const char *name, unsigned rights,
             char key_out[KEYS_TEXT_LEN + 1], struct error *err)
{
    uint8_t digest[CRYPTO_SHA256_LEN];
    char hex[DIGEST_HEX + 1], word[KEYS_RIGHTS_LEN];
    struct edit e;
    char *text = NULL;
    int rc = -1;

    if (edit_open(&e, path, err) < 0)
        return -1;
    if (check_new(&e, name, rights, err) < 0 ||
        make_key(key_out, digest, err) < 0)
        goto out;
    text = malloc(e.len + LINE_MAX_BYTES);
    if (!text) {
        error_set(err, ERR_NOMEM, "no memory to edit %s", path);
        goto out;
    }
    if (e.len)
        memcpy(text, e.text, e.len);
    crypto_hex(digest, sizeof(digest), hex);
    rc = snprintf(text + e.len, LINE_MAX_BYTES, "%s%s:%s:%s\n",
                  e.len && e.text[e.len - 1] != '\n' ? "\n" : "", name, hex,
                  keys_rights_text(rights, word));
    rc = edit_save(&e, text, e.len + (size_t)rc, err);
out:
    free(text);
    edit_close(&e);
    return rc;
}

int keys_remove(const char *path, const char *name, struct error *err)
{
    const struct row *row;
    struct edit e;
    int rc = -1;

    if (edit_open(&e, path, err) < 0)
        return -1;
    row = find(e.keys, name);
    if (!row) {
        error_set(err, ERR_NOT_FOUND, "%s has no key of that name", e.path);
    } else {
        memmove(e.text + row->at, e.text + row->at + row->length,
                e.len - row->at - row->length);
        rc = edit_save(&e, e.text, e.len - row->length, err);
    }
    edit_close(&e);
    return rc;
}
