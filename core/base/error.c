/* core/base/error.c - the table of error.def and the functions that fill a
 * struct error. Every layer uses it; it uses nothing. */
#include "core/base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *wire;
    bool retryable;
    const char *title;
} table[ERR_COUNT] = {
    [ERR_NONE] = {200, "none", false, "Nothing failed"},
#define ERROR(code, status, wire, retry, title)                                \
    [ERR_##code] = {status, wire, retry, title},
#include "core/base/error.def"
#undef ERROR
};

static void fill(struct error *err, enum error_code code, const char *fmt,
                 va_list ap)
{
    if (!err)
        return;
    err->code = code;
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
}

int error_set(struct error *err, enum error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    return -1;
}

void *error_null(struct error *err, enum error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    return NULL;
}

int error_context(struct error *err, const char *fmt, ...)
{
    char text[sizeof(err->text)];
    size_t room = sizeof(err->text);
    va_list ap;
    int len;

    if (!err)
        return -1;
    memcpy(text, err->text, sizeof(text));
    va_start(ap, fmt);
    len = vsnprintf(err->text, room, fmt, ap);
    va_end(ap);
    if (len < 0 || (size_t)len + 2 >= room)
        return -1;
    /* what does not fit is cut */
    memcpy(err->text + len, ": ", 3);
    strncat(err->text, text, room - (size_t)len - 3);
    return -1;
}

int error_status(enum error_code code)
{
    return table[code].status;
}

const char *error_wire(enum error_code code)
{
    return table[code].wire;
}

const char *error_title(enum error_code code)
{
    return table[code].title;
}

bool error_retryable(enum error_code code)
{
    return table[code].retryable;
}
