/* config/config_key.c - the table of keys.def, and setting one key from text:
 * parsing, ranges, defaults. config.c finds the texts. */
#include "config/config_priv.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum {
    KEY_MAX_LEN = 40
};

/* clang-format off */
const struct config_key config_keys[] = {
#define AT(name) .offset = offsetof(struct config, name)
#define KEY_SECTION(title) {.type = TYPE_SECTION, .key = title},
#define KEY_INT(name, k, d, lo, hi, r, h) {.type = TYPE_INT, .key = k, AT(name), .def_int = d, .min_int = lo, .max_int = hi, .reload = r, .help = h},
#define KEY_SIZE(name, k, d, lo, hi, r, h) {.type = TYPE_SIZE, .key = k, AT(name), .def_int = d, .min_int = lo, .max_int = hi, .reload = r, .help = h},
#define KEY_REAL(name, k, d, lo, hi, r, h) {.type = TYPE_REAL, .key = k, AT(name), .def_real = d, .min_real = lo, .max_real = hi, .reload = r, .help = h},
#define KEY_BOOL(name, k, d, r, h) {.type = TYPE_BOOL, .key = k, AT(name), .def_int = d, .reload = r, .help = h},
#define KEY_TEXT(name, k, d, r, h) {.type = TYPE_TEXT, .key = k, AT(name), .def_text = d, .reload = r, .help = h},
#define KEY_CHOICE(name, k, d, c, r, h) {.type = TYPE_CHOICE, .key = k, AT(name), .def_text = d, .choices = c, .reload = r, .help = h},
#include "config/keys.def"
};
/* clang-format on */

const int config_n_keys = sizeof(config_keys) / sizeof(config_keys[0]);

int64_t *config_int(const struct config *c, const struct config_key *k)
{
    return (int64_t *)((char *)c + k->offset);
}

double *config_real(const struct config *c, const struct config_key *k)
{
    return (double *)((char *)c + k->offset);
}

bool *config_bool(const struct config *c, const struct config_key *k)
{
    return (bool *)((char *)c + k->offset);
}

char **config_text(const struct config *c, const struct config_key *k)
{
    return (char **)((char *)c + k->offset);
}

bool config_is_text(const struct config_key *k)
{
    return k->type == TYPE_TEXT || k->type == TYPE_CHOICE;
}

/* --- looking keys up -------------------------------------------------- */

const struct config_key *config_find(const char *name, size_t len)
{
    for (int i = 0; i < config_n_keys; i++)
        if (config_keys[i].type != TYPE_SECTION &&
            strlen(config_keys[i].key) == len &&
            memcmp(config_keys[i].key, name, len) == 0)
            return &config_keys[i];
    return NULL;
}

/* Levenshtein, over the first KEY_MAX_LEN characters of each. A beginning
 * that is right costs nothing: "max-conn" means max-connections. */
static int edit_distance(const char *a, size_t len_a, const char *b)
{
    size_t len_b = strlen(b);
    int row[KEY_MAX_LEN + 1];

    if (len_a >= 3 && len_a <= len_b && memcmp(a, b, len_a) == 0)
        return 0;
    if (len_a > KEY_MAX_LEN)
        len_a = KEY_MAX_LEN;
    if (len_b > KEY_MAX_LEN)
        len_b = KEY_MAX_LEN;
    for (size_t j = 0; j <= len_b; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= len_a; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= len_b; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[len_b];
}

const char *config_nearest(const char *name, size_t len)
{
    const char *best = NULL;
    int best_distance = 0;

    for (int i = 0; i < config_n_keys; i++) {
        if (config_keys[i].type == TYPE_SECTION)
            continue;
        int d = edit_distance(name, len, config_keys[i].key);
        if (!best || d < best_distance) {
            best = config_keys[i].key;
            best_distance = d;
        }
    }
    assert(best);
    return best;
}

const char *config_shown(const char *text, size_t len, char *buf,
                         size_t len_buf)
{
    size_t n = 0;

    for (; n < len && n + 1 < len_buf; n++) {
        unsigned char ch = (unsigned char)text[n];
        buf[n] = ch < 0x20 || ch > 0x7e ? '?' : (char)ch;
    }
    buf[n] = '\0';
    return buf;
}

/* --- values ----------------------------------------------------------- */

void config_size_text(int64_t n, char buf[CONFIG_NUMBER_MAX])
{
    const char *unit = "";

    if (n && n % GIB == 0) {
        n /= GIB;
        unit = "G";
    } else if (n && n % MIB == 0) {
        n /= MIB;
        unit = "M";
    } else if (n && n % KIB == 0) {
        n /= KIB;
        unit = "K";
    }
    snprintf(buf, CONFIG_NUMBER_MAX, "%lld%s", (long long)n, unit);
}

void config_real_text(double x, char buf[CONFIG_NUMBER_MAX])
{
    snprintf(buf, CONFIG_NUMBER_MAX, "%.15g", x);
    if (strtod(buf, NULL) != x)
        snprintf(buf, CONFIG_NUMBER_MAX, "%.17g", x);
}

void config_range_text(const struct config_key *k, char *buf, size_t len_buf)
{
    char lo[CONFIG_NUMBER_MAX], hi[CONFIG_NUMBER_MAX];

    if (k->type == TYPE_REAL) {
        config_real_text(k->min_real, lo);
        config_real_text(k->max_real, hi);
    } else if (k->type == TYPE_SIZE) {
        config_size_text(k->min_int, lo);
        config_size_text(k->max_int, hi);
    } else {
        snprintf(lo, sizeof(lo), "%lld", (long long)k->min_int);
        snprintf(hi, sizeof(hi), "%lld", (long long)k->max_int);
    }
    snprintf(buf, len_buf, "%s to %s", lo, hi);
}

static int refuse(const struct config_key *k, const char *value,
                  const char *want, struct error *err)
{
    char text[64];

    return error_set(err, ERR_CONFIG, "%s takes %s, not '%s'", k->key, want,
                     config_shown(value, strlen(value), text, sizeof(text)));
}

static int set_int(struct config *c, const struct config_key *k,
                   const char *value, struct error *err)
{
    char range[96], want[160];
    const char *first = value + (*value == '-');
    int64_t unit = 1;
    long long n = 0;
    char *end = NULL;
    bool good = *first >= '0' && *first <= '9';

    if (good) {
        errno = 0;
        n = strtoll(value, &end, 10);
        good = errno == 0;
    }
    if (good && k->type == TYPE_SIZE && *end) {
        if (*end == 'K' || *end == 'k')
            unit = KIB;
        else if (*end == 'M' || *end == 'm')
            unit = MIB;
        else if (*end == 'G' || *end == 'g')
            unit = GIB;
        end += unit > 1;
    }
    if (good)
        good = *end == '\0' && n <= k->max_int / unit &&
               n >= INT64_MIN / unit && n * unit >= k->min_int;
    if (!good) {
        config_range_text(k, range, sizeof(range));
        snprintf(want, sizeof(want), "a %s from %s",
                 k->type == TYPE_SIZE ? "size (K, M or G may follow)"
                                      : "whole number",
                 range);
        return refuse(k, value, want, err);
    }
    *config_int(c, k) = n * unit;
    return 0;
}

static int set_real(struct config *c, const struct config_key *k,
                    const char *value, struct error *err)
{
    char range[96], want[128];
    char *end = NULL;
    double x = 0;
    /* Keeps out the hex, infinite and blank forms that strtod takes. */
    bool good = *value && value[strspn(value, "0123456789.eE+-")] == '\0';

    if (good) {
        x = strtod(value, &end);
        good =
            *end == '\0' && isfinite(x) && x >= k->min_real && x <= k->max_real;
    }
    if (!good) {
        config_range_text(k, range, sizeof(range));
        snprintf(want, sizeof(want), "a number from %s", range);
        return refuse(k, value, want, err);
    }
    *config_real(c, k) = x + 0.0; /* no negative zero */
    return 0;
}

static int parse_bool(const char *value)
{
    static const char *const yes[] = {"on", "true", "yes"};
    static const char *const no[] = {"off", "false", "no"};

    for (int i = 0; i < 3; i++) {
        if (strcmp(value, yes[i]) == 0)
            return 1;
        if (strcmp(value, no[i]) == 0)
            return 0;
    }
    return -1;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);

    if (len == 0 || strchr(value, '|'))
        return false;
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, value, len) == 0 && (at[len] == '|' || !at[len]))
            return true;
    }
    return false;
}

static int set_text(struct config *c, const struct config_key *k,
                    const char *value, struct error *err)
{
    char *copy;

    for (const char *at = value; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return error_set(err, ERR_CONFIG,
                             "%s holds a control character (byte 0x%02x)",
                             k->key, (unsigned char)*at);
    if (k->type == TYPE_CHOICE && !is_choice(k->choices, value)) {
        char want[96];
        snprintf(want, sizeof(want), "one of %s", k->choices);
        return refuse(k, value, want, err);
    }
    copy = strdup(value);
    if (!copy)
        return error_set(err, ERR_NOMEM, "no memory for %s", k->key);
    free(*config_text(c, k));
    *config_text(c, k) = copy;
    return 0;
}

int config_set(struct config *c, const struct config_key *k, const char *value,
               struct error *err)
{
    int on;

    switch (k->type) {
    case TYPE_INT:
    case TYPE_SIZE:
        return set_int(c, k, value, err);
    case TYPE_REAL:
        return set_real(c, k, value, err);
    case TYPE_TEXT:
    case TYPE_CHOICE:
        return set_text(c, k, value, err);
    case TYPE_BOOL:
        on = parse_bool(value);
        if (on < 0)
            return refuse(k, value, "on or off", err);
        *config_bool(c, k) = on;
        return 0;
    case TYPE_SECTION:
        break;
    }
    assert(!"a section is never looked up");
    return -1;
}

struct config *config_new(struct error *err)
{
    struct config *c = calloc(1, sizeof(*c));

    if (!c)
        return error_null(err, ERR_NOMEM, "no memory for the configuration");
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->type == TYPE_INT || k->type == TYPE_SIZE)
            *config_int(c, k) = k->def_int;
        else if (k->type == TYPE_REAL)
            *config_real(c, k) = k->def_real;
        else if (k->type == TYPE_BOOL)
            *config_bool(c, k) = k->def_int != 0;
        else if (config_is_text(k) && set_text(c, k, k->def_text, err) < 0) {
            config_free(c);
            return NULL;
        }
    }
    return c;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (int i = 0; i < config_n_keys; i++)
        if (config_is_text(&config_keys[i]))
            free(*config_text(c, &config_keys[i]));
    free(c);
}
