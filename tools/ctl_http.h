/* tools/ctl_http.h - requests to the daemon, by libcurl. */
#ifndef TOOLS_CTL_HTTP_H
#define TOOLS_CTL_HTTP_H

#include <jansson.h>
#include <stdbool.h>

enum {
    CTL_MAX_FIELDS = 64
};

/* The options that every client command takes. */
struct ctl_client {
    const char *server;  /* "http://127.0.0.1:8080" */
    const char *key;     /* NULL: none */
    const char *ca_file; /* NULL: the system's */
    bool json;           /* print answers as they come */
    char key_buf[512];   /* of --key-file */
};

/* A form field: a file where is_file, else the value itself. */
struct ctl_field {
    const char *name, *value;
    bool is_file;
};

struct ctl_call {
    const char *method, *path;    /* "/subjects/x" */
    struct ctl_field query[8];    /* unused rows: NULL name */
    const struct ctl_field *form; /* multipart, n_form rows; or */
    int n_form;
    const char *body;            /* JSON text */
    const char *idempotency_key; /* NULL: none */
};

struct ctl_answer {
    long status;
    char *text;   /* as it came, NUL-terminated */
    json_t *root; /* parsed, or NULL */
};

/* The server, key and key file of options and environment
 * (FACENETD_SERVER, FACENETD_KEY). False: a message was printed. */
bool ctl_client_init(struct ctl_client *c, const char *server, const char *key,
                     const char *key_file);
/* False: no answer came; a message was printed. True: fini the answer. */
bool ctl_send(const struct ctl_client *c, const struct ctl_call *call,
              struct ctl_answer *out);
void ctl_answer_fini(struct ctl_answer *a);
/* Prints the problem of an answer that is no success (or the answer itself
 * with --json) and returns CTL_ERROR. */
int ctl_problem(const struct ctl_client *c, const struct ctl_answer *a);

#endif
