/* config/config_priv.h - the table of keys, for the files of this directory
 * alone: config_key.c owns it and sets values, config.c reads files and
 * command lines, config_print.c writes. */
#ifndef CONFIG_CONFIG_PRIV_H
#define CONFIG_CONFIG_PRIV_H

#include "config/config.h"

enum {
    CONFIG_VALUE_MAX = 4096, /* bytes of a value, with its zero */
    CONFIG_NUMBER_MAX = 40   /* of a number as text, with its zero */
};

enum config_reload {
    RESTART,
    RELOAD
};

enum config_type {
    TYPE_SECTION,
    TYPE_INT,
    TYPE_SIZE,
    TYPE_REAL,
    TYPE_BOOL,
    TYPE_TEXT,
    TYPE_CHOICE
};

struct config_key {
    enum config_type type;
    enum config_reload reload;
    const char *key; /* a section's title */
    size_t offset;   /* of its field in struct config */
    int64_t def_int, min_int, max_int;
    double def_real, min_real, max_real;
    const char *def_text, *choices;
    const char *help;
};

extern const struct config_key config_keys[];
extern const int config_n_keys; /* sections included */

int64_t *config_int(const struct config *c, const struct config_key *k);
double *config_real(const struct config *c, const struct config_key *k);
bool *config_bool(const struct config *c, const struct config_key *k);
char **config_text(const struct config *c, const struct config_key *k);
bool config_is_text(const struct config_key *k);

/* NULL when there is none of that name. */
const struct config_key *config_find(const char *name, size_t len);
/* The key whose name is nearest. */
const char *config_nearest(const char *name, size_t len);

/* Every default; NULL with err set (ERR_NOMEM). */
struct config *config_new(struct error *err);
/* Parse, check the range and store; ERR_CONFIG names the key. */
int config_set(struct config *c, const struct config_key *k, const char *value,
               struct error *err);

/* The shortest text that reads back as the same number. */
void config_size_text(int64_t n, char buf[CONFIG_NUMBER_MAX]);
void config_real_text(double x, char buf[CONFIG_NUMBER_MAX]);
void config_range_text(const struct config_key *k, char *buf, size_t len_buf);
/* Text from outside, fit for an error message: one line, bounded. */
const char *config_shown(const char *text, size_t len, char *buf,
                         size_t len_buf);

#endif
