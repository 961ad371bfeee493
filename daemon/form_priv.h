/* daemon/form_priv.h - what form.c (the ways in) and form_value.c (the types)
 * share. */
#ifndef DAEMON_FORM_PRIV_H
#define DAEMON_FORM_PRIV_H

#include "daemon/form.h"

enum {
    FORM_SHOWN_MAX = 40
}; /* bytes of a client's text in an error */

/* Printable ASCII of a text that came from outside. Returns buf. */
const char *form_shown(const char *text, char buf[FORM_SHOWN_MAX + 4]);
/* An object without doubled names, FORM_MAX_DEPTH deep at most; what is the
 * beginning of an error. */
json_t *form_parse_json(const char *text, size_t len, const char *what,
                        struct error *err);
/* Field i from a text: a part or a query argument. Not for images. */
int form_put_text(struct job *job, struct form *f, int i, const char *text,
                  struct error *err);
/* Field i from JSON. Not for images. */
int form_put_json(struct job *job, struct form *f, int i, const json_t *value,
                  struct error *err);

#endif
