/* config/config.c - reads facenetd.conf and the command line into a struct
 * config, and checks what no single key can. Called by daemon/main at start
 * and on SIGHUP; config_key.c knows the keys. */
#include "config/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config_priv.h"

enum {
    FILE_MAX_BYTES = 1 << 20,
    N_SEEN = 128 /* at least as many as keys.def has lines */
};

/* What no single key can check. */
static int check_together(const struct config *c, struct error *err)
{
    if (!*c->tls_cert != !*c->tls_key)
        return error_set(err, ERR_CONFIG,
                         "tls-cert and tls-key need each other: %s is missing",
                         *c->tls_cert ? "tls-key" : "tls-cert");
    if (c->max_body < c->max_image_bytes)
        return error_set(err, ERR_CONFIG,
                         "max-body is below max-image-bytes: no request could "
                         "carry the largest image");
    if (c->max_buffered < c->max_body)
        return error_set(err, ERR_CONFIG,
                         "max-buffered is below max-body: the largest request "
                         "could never be read");
    if (c->min_image_side > c->max_image_side)
        return error_set(err, ERR_CONFIG,
                         "min-image-side is above max-image-side");
    if (c->queue_faces < c->batch_max)
        return error_set(err, ERR_CONFIG,
                         "queue-faces is below batch-max: no full batch could "
                         "ever wait");
    return 0;
}

/* --- the file --------------------------------------------------------- */

struct span {
    const char *at;
    size_t len;
};

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r';
}

static struct span trim(struct span s)
{
    while (s.len && is_blank(s.at[0])) {
        s.at++;
        s.len--;
    }
    while (s.len && is_blank(s.at[s.len - 1]))
        s.len--;
    return s;
}

/* After a quoted value only a comment may follow. */
static bool only_comment(struct span s)
{
    s = trim(s);
    return s.len == 0 || s.at[0] == '#';
}

/* The value of a line into out: quotes taken off, comment cut. In double
 * quotes a backslash guards the next character. */
static int read_value(struct span s, char out[CONFIG_VALUE_MAX],
                      struct error *err)
{
    char quote = s.len && (s.at[0] == '"' || s.at[0] == '\'') ? s.at[0] : '\0';
    size_t n = 0, i = quote ? 1 : 0;

    for (; i < s.len; i++) {
        char ch = s.at[i];
        if (quote && ch == quote)
            break;
        if (!quote && ch == '#' && (i == 0 || is_blank(s.at[i - 1])))
            break;
        if (quote == '"' && ch == '\\' && i + 1 < s.len)
            ch = s.at[++i];
        if (ch == '\0')
            return error_set(err, ERR_CONFIG, "the value holds a zero byte");
        if (n + 1 >= CONFIG_VALUE_MAX)
            return error_set(err, ERR_CONFIG, "the value is over %d bytes",
                             CONFIG_VALUE_MAX - 1);
        out[n++] = ch;
    }
    if (quote && i == s.len)
        return error_set(err, ERR_CONFIG, "the closing %c is missing", quote);
    if (quote && !only_comment((struct span){s.at + i + 1, s.len - i - 1}))
        return error_set(err, ERR_CONFIG, "there is text after the closing %c",
                         quote);
    while (!quote && n && is_blank(out[n - 1]))
        n--;
    out[n] = '\0';
    return 0;
}

static int parse_line(struct config *c, struct span line, int number, int *seen,
                      struct error *err)
{
    char text[64], value[CONFIG_VALUE_MAX];
    const struct config_key *k;
    const char *equals;
    struct span name;

    line = trim(line);
    if (line.len == 0 || line.at[0] == '#')
        return 0;
    equals = memchr(line.at, '=', line.len);
    if (!equals)
        return error_set(err, ERR_CONFIG, "'key = value' is wanted, not '%s'",
                         config_shown(line.at, line.len, text, sizeof(text)));
    name = trim((struct span){line.at, (size_t)(equals - line.at)});
    k = config_find(name.at, name.len);
    if (!k)
        return error_set(err, ERR_CONFIG, "unknown key '%s'; did you mean %s?",
                         config_shown(name.at, name.len, text, sizeof(text)),
                         config_nearest(name.at, name.len));
    if (seen[k - config_keys])
        return error_set(err, ERR_CONFIG, "%s stands on line %d already",
                         k->key, seen[k - config_keys]);
    seen[k - config_keys] = number;
    line.len -= (size_t)(equals + 1 - line.at);
    line.at = equals + 1;
    if (read_value(trim(line), value, err) < 0) {
        error_context(err, "%s", k->key);
        return -1;
    }
    return config_set(c, k, value, err);
}

static int parse_text(struct config *c, const char *name, const char *text,
                      size_t len, struct error *err)
{
    int seen[N_SEEN] = {0}; /* the line each key was on */
    int number = 0;

    assert(config_n_keys <= N_SEEN);
    while (len) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        number++;
        if (parse_line(c, (struct span){text, n}, number, seen, err) < 0)
            return error_context(err, "%s:%d", name, number);
        n += end != NULL;
        text += n;
        len -= n;
    }
    return 0;
}

/* Hands over *out, malloc'd. */
static int read_file(const char *path, char **out, size_t *len_out,
                     struct error *err)
{
    struct stat st;
    char *buf = NULL;
    size_t len = 0;
    ssize_t got = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        error_set(err, ERR_FILE, "%s is a directory", path);
        goto out;
    }
    buf = malloc(FILE_MAX_BYTES + 1);
    if (!buf) {
        error_set(err, ERR_NOMEM, "no memory to read %s", path);
        goto out;
    }
    do {
        got = read(fd, buf + len, FILE_MAX_BYTES + 1 - len);
        if (got > 0)
            len += (size_t)got;
    } while ((got > 0 && len <= FILE_MAX_BYTES) || (got < 0 && errno == EINTR));
    if (got < 0)
        error_set(err, ERR_FILE, "%s: %s", path, strerror(errno));
    else if (len > FILE_MAX_BYTES)
        got = error_set(err, ERR_CONFIG, "%s is over %d bytes", path,
                        FILE_MAX_BYTES);
out:
    if (fd >= 0)
        close(fd);
    if (got < 0) {
        free(buf);
        return -1;
    }
    *out = buf;
    *len_out = len;
    return 0;
}

struct config *config_parse(const char *name, const char *text, size_t len,
                            struct error *err)
{
    struct config *c = config_new(err);

    if (!c)
        return NULL;
    if (parse_text(c, name, text, len, err) < 0 || check_together(c, err) < 0) {
        config_free(c);
        return NULL;
    }
    return c;
}

/* --- the command line ------------------------------------------------- */

static const struct {
    const char *name;
    enum config_action action;
} actions[] = {
    {"--help", CONFIG_HELP},
    {"--version", CONFIG_VERSION},
    {"--print-config", CONFIG_PRINT},
};

/* How many words of argv from argv[i] are an option of config_command; 0 when
 * it is none of them, -1 when --config has no file. */
static int command_option(int argc, char **argv, int i,
                          struct config_command *out, struct error *err)
{
    const char *arg = argv[i];

    for (size_t a = 0; a < sizeof(actions) / sizeof(actions[0]); a++)
        if (strcmp(arg, actions[a].name) == 0) {
            out->action = actions[a].action;
            return 1;
        }
    if (strncmp(arg, "--config=", 9) == 0 && arg[9]) {
        out->path = arg + 9;
        return 1;
    }
    if (strcmp(arg, "--config") == 0 && i + 1 < argc && argv[i + 1][0] &&
        strncmp(argv[i + 1], "--", 2) != 0) {
        out->path = argv[i + 1];
        return 2;
    }
    if (strcmp(arg, "--config") == 0 || strcmp(arg, "--config=") == 0)
        return error_set(err, ERR_USAGE, "--config needs a file");
    return 0;
}

int config_command(int argc, char **argv, struct config_command *out,
                   struct error *err)
{
    out->action = CONFIG_RUN;
    out->path = NULL;
    for (int i = 1; i < argc;) {
        int n = command_option(argc, argv, i, out, err);
        if (n < 0)
            return -1;
        i += n ? n : 1;
    }
    return 0;
}

static int unknown_option(const char *arg, struct error *err)
{
    char text[64];
    size_t len = strlen(arg);

    config_shown(arg, len, text, sizeof(text));
    if (strncmp(arg, "--", 2) != 0)
        return error_set(err, ERR_USAGE,
                         "'%s' is not an option; --help lists them", text);
    len = strcspn(arg + 2, "=");
    return error_set(err, ERR_USAGE, "unknown option '%s'; did you mean --%s?",
                     text, config_nearest(arg + 2, len));
}

/* Set from argv[i]; returns how many words it took, or -1. */
static int parse_option(struct config *c, int argc, char **argv, int i,
                        struct error *err)
{
    const char *arg = argv[i], *value = NULL;
    bool dashes = strncmp(arg, "--", 2) == 0;
    const char *name = dashes ? arg + 2 : arg;
    size_t len = strcspn(name, "=");
    const struct config_key *k = dashes ? config_find(name, len) : NULL;
    int n = 1;

    if (!k && dashes && strncmp(name, "no-", 3) == 0) {
        k = config_find(name + 3, len - 3);
        if (k && (k->type != TYPE_BOOL || name[len] == '='))
            return error_set(err, ERR_USAGE,
                             "--no-%s: write --%s VALUE instead", k->key,
                             k->key);
        value = "off";
    }
    if (!k)
        return unknown_option(arg, err);
    if (!value && name[len] == '=') {
        value = name + len + 1;
    } else if (!value && i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0) {
        value = argv[i + 1];
        n = 2;
    } else if (!value && k->type == TYPE_BOOL) {
        value = "on";
    } else if (!value) {
        return error_set(err, ERR_USAGE, "--%s needs a value", k->key);
    }
    if (strlen(value) >= CONFIG_VALUE_MAX)
        return error_set(err, ERR_USAGE, "--%s: the value is over %d bytes",
                         k->key, CONFIG_VALUE_MAX - 1);
    if (config_set(c, k, value, err) < 0) {
        if (err && err->code == ERR_CONFIG)
            err->code = ERR_USAGE;
        return error_context(err, "option --%s", k->key);
    }
    return n;
}

static int parse_options(struct config *c, int argc, char **argv,
                         struct error *err)
{
    struct config_command ignored;

    for (int i = 1; i < argc;) {
        int n = command_option(argc, argv, i, &ignored, err);
        if (n == 0)
            n = parse_option(c, argc, argv, i, err);
        if (n < 0)
            return -1;
        i += n;
    }
    return 0;
}

struct config *config_load(const char *path, int argc, char **argv,
                           struct error *err)
{
    struct config *c = config_new(err);
    char *text = NULL;
    size_t len = 0;
    int rc = -1;

    if (!c)
        return NULL;
    if (path && read_file(path, &text, &len, err) < 0)
        goto out;
    if (path && parse_text(c, path, text, len, err) < 0)
        goto out;
    if (parse_options(c, argc, argv, err) < 0)
        goto out;
    rc = check_together(c, err);
out:
    free(text);
    if (rc < 0) {
        config_free(c);
        return NULL;
    }
    return c;
}
