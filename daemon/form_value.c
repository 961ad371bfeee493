/* daemon/form_value.c - one field's value, by its type: the same rules
 * whether it came as a part, in the query or in JSON. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/form_priv.h"

/* Printable ASCII of a text that came from outside. */
const char *form_shown(const char *text, char buf[FORM_SHOWN_MAX + 4])
{
    int n = 0;

    for (; text[n] && n < FORM_SHOWN_MAX; n++)
        buf[n] = isprint((unsigned char)text[n]) ? text[n] : '?';
    strcpy(buf + n, text[n] ? "..." : "");
    return buf;
}

/* UTF-8 without control characters: no overlong forms, no surrogates. */
static bool text_is_clean(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    while (*p) {
        unsigned c = *p++;
        int more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        unsigned least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;

        if (c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xc2) || c > 0xf4)
            return false;
        if (!more)
            continue;
        c &= 0x3fu >> more;
        for (int k = 0; k < more; k++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p++ & 0x3fu);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ||
            c < 0xa0)
            return false;
    }
    return true;
}

static int put_text(struct form *f, int i, const char *text, struct error *err)
{
    f->text[i] = strdup(text);
    if (!f->text[i])
        return error_set(err, ERR_NOMEM, "no memory for field '%s'",
                         f->fields[i].name);
    return 0;
}

static int put_id(struct form *f, int i, const char *text, struct error *err)
{
    char buf[FORM_SHOWN_MAX + 4];

    if (!store_id_valid(text))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s': '%s' is not an id: 1 to %d letters, "
                         "digits, '.', '_' or '-', the first a letter or "
                         "digit",
                         f->fields[i].name, form_shown(text, buf),
                         STORE_ID_MAX);
    return put_text(f, i, text, err);
}

static int put_name(struct form *f, int i, const char *text, struct error *err)
{
    if (strlen(text) > STORE_NAME_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' has %zu bytes; at most %d are taken",
                         f->fields[i].name, strlen(text), STORE_NAME_MAX);
    if (!text_is_clean(text))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' must be UTF-8 without control characters",
                         f->fields[i].name);
    return put_text(f, i, text, err);
}

static int put_choice(struct form *f, int i, const char *text,
                      struct error *err)
{
    const char *words = f->fields[i].words;
    size_t len = strlen(text);
    char buf[FORM_SHOWN_MAX + 4];

    for (const char *w = words; *w;) {
        size_t n = strcspn(w, "|");
        if (n == len && strncmp(w, text, n) == 0)
            return put_text(f, i, text, err);
        w += n + (w[n] != '\0');
    }
    return error_set(err, ERR_BAD_FIELD, "field '%s' is one of %s, not '%s'",
                     f->fields[i].name, words, form_shown(text, buf));
}

static int put_number(struct form *f, int i, double value, const char *said,
                      double max, struct error *err)
{
    bool whole = f->fields[i].type == FORM_LIMIT;
    char buf[FORM_SHOWN_MAX + 4];

    if (f->fields[i].type == FORM_RATE && !(value > 0 && value < 1))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' is a rate above 0 and below 1, as 1e-3, "
                         "not '%s'",
                         f->fields[i].name, form_shown(said, buf));
    if (!isfinite(value) || value < (whole ? 1 : 0) || value > max ||
        (whole && value != floor(value)))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' is a %s from %d to %g, not '%s'",
                         f->fields[i].name, whole ? "whole number" : "number",
                         whole ? 1 : 0, max, form_shown(said, buf));
    f->number[i] = value;
    return 0;
}

static double number_max(const struct job *job, enum form_type type)
{
    const struct config *config = atomic_load(&job->server->config);
    return type == FORM_LIMIT ? (double)config->search_limit_max : 4;
}

/* Digits with at most one point and an exponent: no sign, no blank, none of
 * strtod's words and hexadecimals. NaN for anything else. */
static double parse_number(const char *text)
{
    char *end;
    double value;

    if (!isdigit((unsigned char)*text) ||
        text[strspn(text, "0123456789.eE+-")] != '\0')
        return NAN;
    value = strtod(text, &end);
    return *end ? NAN : value;
}

/* Containers inside one another; brackets in strings do not count. */
static int depth_check(const char *text, size_t len, struct error *err)
{
    bool in_string = false;
    int depth = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > FORM_MAX_DEPTH)
                return error_set(err, ERR_BAD_JSON,
                                 "the JSON is nested deeper than %d",
                                 FORM_MAX_DEPTH);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return 0;
}

json_t *form_parse_json(const char *text, size_t len, const char *what,
                        struct error *err)
{
    json_error_t why;
    json_t *json;

    if (depth_check(text, len, err) != 0)
        return NULL;
    json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return error_null(err, ERR_BAD_JSON,
                          "%s is not JSON: %.100s, line %d column %d", what,
                          why.text, why.line, why.column);
    if (!json_is_object(json)) {
        json_decref(json);
        return error_null(err, ERR_BAD_JSON, "%s is not a JSON object", what);
    }
    return json;
}

static int put_object(struct form *f, int i, const json_t *object,
                      struct error *err)
{
    if (!json_is_object(object))
        return error_set(err, ERR_BAD_FIELD, "field '%s' is a JSON object",
                         f->fields[i].name);
    f->text[i] = json_dumps(object, JSON_COMPACT);
    if (!f->text[i])
        return error_set(err, ERR_NOMEM, "no memory for field '%s'",
                         f->fields[i].name);
    if (strlen(f->text[i]) > STORE_METADATA_MAX)
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' has %zu bytes; at most %d are taken",
                         f->fields[i].name, strlen(f->text[i]),
                         STORE_METADATA_MAX);
    return 0;
}

int form_put_text(struct job *job, struct form *f, int i, const char *text,
                  struct error *err)
{
    const struct form_field *field = &f->fields[i];
    json_t *object;
    int rc;

    switch (field->type) {
    case FORM_ID:
        return put_id(f, i, text, err);
    case FORM_NAME:
        return put_name(f, i, text, err);
    case FORM_CHOICE:
        return put_choice(f, i, text, err);
    case FORM_DISTANCE:
    case FORM_RATE:
    case FORM_LIMIT:
        return put_number(f, i, parse_number(text), text,
                          number_max(job, field->type), err);
    case FORM_OBJECT:
        object = form_parse_json(text, strlen(text), field->name, err);
        rc = object ? put_object(f, i, object, err) : -1;
        json_decref(object);
        return rc;
    case FORM_IMAGE:
    case FORM_IMAGES:
        break;
    }
    return error_set(err, ERR_BAD_FIELD,
                     "field '%s' is an image: it belongs "
                     "into the body",
                     field->name);
}

int form_put_json(struct job *job, struct form *f, int i, const json_t *value,
                  struct error *err)
{
    const struct form_field *field = &f->fields[i];
    char said[32];

    switch (field->type) {
    case FORM_DISTANCE:
    case FORM_RATE:
    case FORM_LIMIT:
        if (!json_is_number(value))
            return error_set(err, ERR_BAD_FIELD, "field '%s' is a number",
                             field->name);
        snprintf(said, sizeof(said), "%g", json_number_value(value));
        return put_number(f, i, json_number_value(value), said,
                          number_max(job, field->type), err);
    case FORM_OBJECT:
        return put_object(f, i, value, err);
    case FORM_ID:
    case FORM_NAME:
    case FORM_CHOICE:
    case FORM_IMAGE:
    case FORM_IMAGES:
        break;
    }
    if (!json_is_string(value))
        return error_set(err, ERR_BAD_FIELD, "field '%s' is a text",
                         field->name);
    return form_put_text(job, f, i, json_string_value(value), err);
}
