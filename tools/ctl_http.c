/* tools/ctl_http.c - one request to the daemon and its answer. The only user
 * of libcurl in the tools. */
#include "tools/ctl_http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"

enum {
    MAX_ANSWER = 256 << 20, /* a page of metadata-heavy subjects fits */
    CONNECT_S = 10,
    TOTAL_S = 300
};

static bool read_key_file(struct ctl_client *c, const char *path)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(c->key_buf, sizeof(c->key_buf), f);

    if (!ok)
        ctl_fail("key file %s: %s", path, f ? "it is empty" : strerror(errno));
    if (f)
        fclose(f);
    if (!ok)
        return false;
    c->key_buf[strcspn(c->key_buf, "\r\n")] = '\0';
    c->key = c->key_buf;
    return true;
}

bool ctl_client_init(struct ctl_client *c, const char *server, const char *key,
                     const char *key_file)
{
    c->server = server ? server : getenv("FACENETD_SERVER");
    if (!c->server || !*c->server)
        c->server = "http://127.0.0.1:8080";
    if (strncmp(c->server, "http://", 7) != 0 &&
        strncmp(c->server, "https://", 8) != 0) {
        ctl_fail("--server must begin with http:// or https://, not '%s'",
                 ctl_safe(c->server));
        return false;
    }
    if (key_file)
        return read_key_file(c, key_file);
    c->key = key ? key : getenv("FACENETD_KEY");
    if (c->key && !*c->key)
        c->key = NULL;
    return true;
}

struct buffer {
    char *data;
    size_t len;
};

static size_t collect(char *data, size_t size, size_t n, void *ctx)
{
    struct buffer *b = ctx;
    size_t add = size * n;
    char *grown;

    if (add > MAX_ANSWER - b->len)
        return 0;
    grown = realloc(b->data, b->len + add + 1);
    if (!grown)
        return 0;
    memcpy(grown + b->len, data, add);
    b->data = grown;
    b->len += add;
    grown[b->len] = '\0';
    return add;
}

/* Server, path and query as one malloc'd URL, or NULL. */
static char *url_of(CURL *curl, const struct ctl_client *c,
                    const struct ctl_call *call)
{
    size_t len = strlen(c->server);
    char *url = NULL;

    while (len && c->server[len - 1] == '/')
        len--;
    if (asprintf(&url, "%.*s%s", (int)len, c->server, call->path) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(call->query) / sizeof(call->query[0]); i++) {
        const struct ctl_field *q = &call->query[i];
        char *value, *next = NULL;
        if (!q->name || !q->value)
            continue;
        value = curl_easy_escape(curl, q->value, 0);
        if (!value ||
            asprintf(&next, "%s%c%s=%s", url, strchr(url, '?') ? '&' : '?',
                     q->name, value) < 0)
            next = NULL;
        curl_free(value);
        free(url);
        url = next;
        if (!url)
            return NULL;
    }
    return url;
}

static struct curl_slist *header(struct curl_slist *list, const char *name,
                                 const char *value)
{
    struct curl_slist *grown = NULL;
    char *line = NULL;

    if (value && asprintf(&line, "%s: %s", name, value) >= 0)
        grown = curl_slist_append(list, line);
    free(line);
    return grown ? grown : list;
}

/* The form as MIME parts. NULL: a message was printed. */
static curl_mime *form_of(CURL *curl, const struct ctl_call *call)
{
    curl_mime *mime = curl_mime_init(curl);

    for (int i = 0; mime && i < call->n_form; i++) {
        const struct ctl_field *f = &call->form[i];
        curl_mimepart *part = curl_mime_addpart(mime);
        CURLcode rc = CURLE_OUT_OF_MEMORY;
        if (part && curl_mime_name(part, f->name) == CURLE_OK)
            rc = f->is_file
                     ? curl_mime_filedata(part, f->value)
                     : curl_mime_data(part, f->value, CURL_ZERO_TERMINATED);
        /* Names of local files are nobody's business. */
        if (rc == CURLE_OK && f->is_file)
            rc = curl_mime_filename(part, "photo");
        if (rc != CURLE_OK) {
            ctl_fail("%s: %s", f->value,
                     f->is_file ? strerror(errno) : curl_easy_strerror(rc));
            curl_mime_free(mime);
            return NULL;
        }
    }
    return mime;
}

/* The body of a call onto the handle; false: a message was printed. */
static bool set_body(CURL *curl, const struct ctl_call *call, curl_mime **mime)
{
    if (call->n_form > 0) {
        *mime = form_of(curl, call);
        if (!*mime)
            return false;
        curl_easy_setopt(curl, CURLOPT_MIMEPOST, *mime);
    } else if (call->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body);
    }
    return true;
}

bool ctl_send(const struct ctl_client *c, const struct ctl_call *call,
              struct ctl_answer *out)
{
    char why[CURL_ERROR_SIZE] = "";
    struct buffer buffer = {NULL, 0};
    struct curl_slist *headers = NULL;
    curl_mime *mime = NULL;
    CURL *curl = curl_easy_init();
    char *url = curl ? url_of(curl, c, call) : NULL;
    CURLcode rc = CURLE_OUT_OF_MEMORY;
    bool ok = false;

    memset(out, 0, sizeof(*out));
    if (!url) {
        ctl_fail("no memory");
        goto out;
    }
    headers = header(headers, "X-Api-Key", c->key);
    headers = header(headers, "Idempotency-Key", call->idempotency_key);
    if (call->body)
        headers = header(headers, "Content-Type", "application/json");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "facenetctl/" FACENETD_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TOTAL_S);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &buffer);
    if (c->ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, c->ca_file);
    if (!set_body(curl, call, &mime))
        goto out;
    rc = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &out->status);
    /* A refusal may come, and the connection close, while we still send. */
    ok = rc == CURLE_OK || (out->status >= 400 && buffer.len > 0);
    if (!ok) {
        ctl_fail("%s: %s", c->server, *why ? why : curl_easy_strerror(rc));
        goto out;
    }
    out->text = buffer.data ? buffer.data : strdup("");
    buffer.data = NULL;
    out->root = out->text ? json_loads(out->text, 0, NULL) : NULL;
out:
    free(buffer.data);
    free(url);
    curl_mime_free(mime);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return ok;
}

void ctl_answer_fini(struct ctl_answer *a)
{
    free(a->text);
    json_decref(a->root);
    memset(a, 0, sizeof(*a));
}

int ctl_problem(const struct ctl_client *c, const struct ctl_answer *a)
{
    const char *code = json_string_value(json_object_get(a->root, "code"));
    const char *detail = json_string_value(json_object_get(a->root, "detail"));
    const char *image = json_string_value(json_object_get(a->root, "image"));

    if (c->json && a->text)
        puts(a->text);
    if (!code)
        return ctl_fail("%s answered %ld and is perhaps no facenetd", c->server,
                        a->status);
    return ctl_fail("%s%s%s (%s)", image ? ctl_safe(image) : "",
                    image ? ": " : "", ctl_safe(detail), ctl_safe(code));
}
