/* tests/fuzz/fuzz_multipart.c - a Content-Type (first line) and a body (the
 * rest) as the server sees them. What is taken must lie inside the body, in
 * order, ended by NUL, and be found again when it is written anew. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_priv.h"

#define CHECK(x)                                                               \
    do {                                                                       \
        if (!(x))                                                              \
            abort();                                                           \
    } while (0)

static void check_parts(const uint8_t *body, size_t len,
                        const struct request_part *parts, int n)
{
    const uint8_t *last = body;

    for (int i = 0; i < n; i++) {
        const struct request_part *p = &parts[i];
        const uint8_t *name = (const uint8_t *)p->name;
        size_t len_name = strlen(p->name);

        CHECK(len_name >= 1 && len_name <= HTTP_MAX_PART_NAME);
        CHECK(name >= last && name + len_name < p->data);
        CHECK(p->data + p->len < body + len);
        CHECK(p->data[p->len] == 0);
        if (p->filename)
            CHECK((const uint8_t *)p->filename >= last &&
                  (const uint8_t *)p->filename + strlen(p->filename) < p->data);
        last = p->data + p->len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char key[] = "Content-Type";
    static struct request req;
    static struct request_part parts[HTTP_MAX_PARTS];
    const uint8_t *eol = memchr(data, '\n', size);
    size_t len_type = eol ? (size_t)(eol - data) : 0;
    char *type = calloc(1, len_type + 1);
    struct error err = {.code = ERR_NONE};
    size_t len = eol ? size - len_type - 1 : 0;
    uint8_t *body = malloc(len + 1);
    int n;

    CHECK(type && body);
    memset(&req, 0, sizeof(req));
    memcpy(type, data, len_type);
    req.headers[0].name = key;
    req.headers[0].value = type;
    req.n_headers = 1;
    if (eol)
        memcpy(body, eol + 1, len);
    body[len] = '\0';
    if (http_gate_media(&req, &err) == 0 && req.kind == BODY_MULTIPART) {
        CHECK(req.boundary[0] && strlen(req.boundary) <= HTTP_MAX_BOUNDARY);
        n = http_multipart(body, len, req.boundary, parts, HTTP_MAX_PARTS,
                           &err);
        if (n >= 0)
            check_parts(body, len, parts, n);
        else
            CHECK(err.code == ERR_BAD_REQUEST && err.text[0]);
    }
    free(body);
    free(type);
    return 0;
}
