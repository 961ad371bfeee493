/* config/config.h - every setting of the daemon, from one table.
 * config/keys.def has a line per key: name, type, default, range, help; the
 * struct, the parser, `--key value`, `--help` and the check of
 * facenetd.conf are made from it. Thread: main; a parsed config is
 * immutable. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/error.h"

/* One field per key: int64_t, double, bool or char * (never NULL), named as
 * the key with '-' as '_'. */
struct config {
#define KEY_INT(name, key, def, min, max, reload, help) int64_t name;
#define KEY_SIZE(name, key, def, min, max, reload, help) int64_t name; /* bytes; takes K M G */
#define KEY_REAL(name, key, def, min, max, reload, help) double name;
#define KEY_BOOL(name, key, def, reload, help) bool name;
#define KEY_TEXT(name, key, def, reload, help) char *name;
#define KEY_CHOICE(name, key, def, choices, reload, help) char *name; /* choices "a|b|c" */
#include "config/keys.def"
#undef KEY_INT
#undef KEY_SIZE
#undef KEY_REAL
#undef KEY_BOOL
#undef KEY_TEXT
#undef KEY_CHOICE
};

/* Defaults, then the file (NULL: none), then argv's --key value and
 * --key=value (booleans also --key and --no-key). Every error names file and
 * line, or option, and for an unknown key the nearest known one
 * (ERR_CONFIG, ERR_USAGE). */
struct config *config_load(const char *path, int argc, char **argv,
                           struct error *err);
void config_free(struct config *c);

/* Keys that differ between a and b and need a restart, comma-separated into
 * buf; returns how many. */
int config_need_restart(const struct config *a, const struct config *b,
                        char *buf, size_t len_buf);
void config_print_help(FILE *out);
/* Every key with its value, as a facenetd.conf that loads back. */
void config_print(const struct config *c, FILE *out);

#endif
