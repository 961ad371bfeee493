/* core/base/error.h - why something failed, for a person and for a program.
 * A function that can fail takes `struct error *err` last, on the caller's
 * stack; whoever sees the failure first fills it. Thread: any. */
#ifndef CORE_BASE_ERROR_H
#define CORE_BASE_ERROR_H

#include <stdbool.h>

enum error_code {
    ERR_NONE = 0,
#define ERROR(code, status, wire, retry, title) ERR_##code,
#include "core/base/error.def"
#undef ERROR
    ERR_COUNT
};

struct error {
    enum error_code code;
    char text[240]; /* what was wrong with which input, UTF-8, one line */
};

/* Fill err (NULL is fine) and return -1, so that callers can write
 * `return error_set(err, ERR_NO_FACE, "…")`. */
int error_set(struct error *err, enum error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for functions that return a pointer. */
void *error_null(struct error *err, enum error_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "context: " before the text: one layer adds context, once. Returns -1. */
int error_context(struct error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

int error_status(enum error_code code);        /* HTTP status */
const char *error_wire(enum error_code code);  /* "no_face" */
const char *error_title(enum error_code code); /* "No face was found …" */
bool error_retryable(enum error_code code);

#endif
