/* config/config.h - every setting of the daemon, from one table.
 * config/keys.def has a line per key: name, type, default, range, help; the
 * struct, the parser, `--key value`, `--help` and the check of
 * facenetd.conf are made from it. Never prints but where told to.
 * Thread: main; a loaded config is immutable. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

/* One field per key: int64_t, double, bool or char * (never NULL), named as
 * the key with '-' as '_'. A KEY_SIZE is in bytes and takes K, M, G (1024).
 * The choices of a KEY_CHOICE are written "a|b|c". */
struct config {
/* clang-format off */
#define KEY_SECTION(title)
#define KEY_INT(name, key, def, min, max, reload, help) int64_t name;
#define KEY_SIZE(name, key, def, min, max, reload, help) int64_t name;
#define KEY_REAL(name, key, def, min, max, reload, help) double name;
#define KEY_BOOL(name, key, def, reload, help) bool name;
#define KEY_TEXT(name, key, def, reload, help) char *name;
#define KEY_CHOICE(name, key, def, choices, reload, help) char *name;
#include "config/keys.def"
#undef KEY_SECTION
#undef KEY_INT
#undef KEY_SIZE
#undef KEY_REAL
#undef KEY_BOOL
#undef KEY_TEXT
#undef KEY_CHOICE
    /* clang-format on */
};

/* The four options that are not settings: --config FILE, --help, --version,
 * --print-config. */
enum config_action {
    CONFIG_RUN,
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_PRINT
};

struct config_command {
    enum config_action action;
    const char *path; /* of --config, borrowed from argv; NULL: none given */
};

/* Read those four from argv (argv[0] is the program) and pass over the rest.
 * ERR_USAGE. */
int config_command(int argc, char **argv, struct config_command *out,
                   struct error *err);

/* Defaults, then the file (NULL: none), then argv's --key value and
 * --key=value (booleans also --key and --no-key), argv[0] and the options of
 * config_command passed over. Every error names file and line, or option, and
 * for an unknown key the nearest known one (ERR_CONFIG, ERR_USAGE; ERR_FILE
 * when path cannot be read). */
struct config *config_load(const char *path, int argc, char **argv,
                           struct error *err);
/* Defaults, then the text of a file, called name in errors. */
struct config *config_parse(const char *name, const char *text, size_t len,
                            struct error *err);
void config_free(struct config *c); /* NULL is fine */

/* Keys that differ between a and b and need a restart, comma-separated into
 * buf (cut where it is full); returns how many. */
int config_need_restart(const struct config *a, const struct config *b,
                        char *buf, size_t len_buf);
/* Put running's values of those keys into next, so that next says what is in
 * force after a reload. ERR_NOMEM. */
int config_keep_restart(struct config *next, const struct config *running,
                        struct error *err);

void config_print_help(FILE *out);
/* Every key with its value, as a facenetd.conf that loads back. */
void config_print(const struct config *c, FILE *out);

#endif
