/* tests/fuzz/fuzz_query.c - a request's head as text: target, then headers,
 * one a line. What the gate takes must be of the strict shape. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/http_priv.h"

#define CHECK(x)                                                               \
    do {                                                                       \
        if (!(x))                                                              \
            abort();                                                           \
    } while (0)

static void check_target(char *uri)
{
    static struct http_pair pairs[HTTP_MAX_QUERY];
    char *query = strchr(uri, '?');
    struct error err = {.code = ERR_NONE};
    size_t len;
    int n;

    if (query)
        *query++ = '\0';
    if (http_gate_path(uri, &err) == 0) {
        CHECK(uri[0] == '/' && !strpbrk(uri, "% #?\\"));
        for (const char *c = uri; *c; c++)
            CHECK(*c > 0x20 && *c < 0x7f);
    }
    if (!query)
        return;
    len = strlen(query);
    n = http_gate_query(query, pairs, HTTP_MAX_QUERY, &err);
    CHECK(n <= HTTP_MAX_QUERY);
    for (int i = 0; i < n; i++) {
        CHECK(pairs[i].name >= query && pairs[i].name <= query + len);
        CHECK(pairs[i].value + strlen(pairs[i].value) <= query + len);
        for (int k = 0; k < i; k++)
            CHECK(strcmp(pairs[i].name, pairs[k].name) != 0);
    }
}

static int count(const struct request *req, const char *name)
{
    int n = 0;

    for (int i = 0; i < req->n_headers; i++)
        n += strcasecmp(req->headers[i].name, name) == 0;
    return n;
}

static void check_head(char *text)
{
    static struct request req;
    struct error err = {.code = ERR_NONE};
    char *line, *save = NULL;

    memset(&req, 0, sizeof(req));
    strcpy(req.method, "POST");
    for (line = strtok_r(text, "\n", &save);
         line && req.n_headers < HTTP_MAX_HEADERS;
         line = strtok_r(NULL, "\n", &save)) {
        char *colon = strchr(line, ':');

        if (!colon)
            continue;
        *colon = '\0';
        req.headers[req.n_headers].name = line;
        req.headers[req.n_headers++].value = colon + 1;
    }
    if (http_gate_head(&req, "HTTP/1.1", &err) == 0) {
        CHECK(count(&req, "Host") == 1);
        CHECK(count(&req, "Content-Length") +
                  count(&req, "Transfer-Encoding") <=
              1);
        CHECK(req.chunked == (count(&req, "Transfer-Encoding") == 1));
        for (int i = 0; i < req.n_headers; i++)
            CHECK(!strpbrk(req.headers[i].name, " \t\r\n:"));
    } else {
        CHECK(err.code == ERR_BAD_REQUEST && err.text[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *rest;

    CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    rest = strchr(text, '\n');
    if (rest) {
        *rest++ = '\0';
        check_head(rest);
    }
    check_target(text);
    free(text);
    return 0;
}
