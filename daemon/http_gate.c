/* daemon/http_gate.c - what a request must look like before anybody believes
 * it. libmicrohttpd 0.9.75 lets through what a proxy in front may read
 * differently (two lengths, a length beside chunks, names with a blank before
 * the colon), so each of these is refused here and the connection closed.
 * Pure: works on the request's own copy of its headers. Called by http_conn.c
 * with the first sight of a request, and by the fuzzers. */
#include "daemon/http_priv.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_token(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c <= 0x20 || c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", c))
            return false;
    }
    return true;
}

static bool is_value(const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* Headers of which a second one would make the request ambiguous. */
static const char *const single[] = {"Host",
                                     "Content-Length",
                                     "Transfer-Encoding",
                                     "Content-Type",
                                     "Authorization",
                                     "X-Api-Key",
                                     "Idempotency-Key",
                                     "Expect",
                                     "Content-Encoding"};

static int check_headers(const struct request *req, struct error *err)
{
    for (int i = 0; i < req->n_headers; i++) {
        if (!is_token(req->headers[i].name))
            return error_set(err, ERR_BAD_REQUEST,
                             "a header has a malformed name");
        if (!is_value(req->headers[i].value))
            return error_set(err, ERR_BAD_REQUEST,
                             "header %.40s has control characters",
                             req->headers[i].name);
    }
    for (size_t k = 0; k < sizeof(single) / sizeof(single[0]); k++) {
        int n = 0;
        for (int i = 0; i < req->n_headers; i++)
            n += strcasecmp(req->headers[i].name, single[k]) == 0;
        if (n > 1)
            return error_set(err, ERR_BAD_REQUEST,
                             "header %s is there %d times", single[k], n);
    }
    return 0;
}

static int parse_length(const char *text, uint64_t *out)
{
    uint64_t n = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        unsigned d = (unsigned)*text - '0';
        if (d > 9 || n > (UINT64_MAX - d) / 10)
            return -1;
        n = n * 10 + d;
    }
    *out = n;
    return 0;
}

static int check_framing(struct request *req, bool http11, struct error *err)
{
    const char *length = request_header(req, "Content-Length");
    const char *coding = request_header(req, "Transfer-Encoding");
    const char *expect = request_header(req, "Expect");

    if (length && coding)
        return error_set(err, ERR_BAD_REQUEST,
                         "Content-Length and Transfer-Encoding together");
    if (coding && (!http11 || strcasecmp(coding, "chunked") != 0))
        return error_set(err, ERR_BAD_REQUEST,
                         "the only Transfer-Encoding taken is chunked, in "
                         "HTTP/1.1");
    if (length && parse_length(length, &req->content_length) < 0)
        return error_set(err, ERR_BAD_REQUEST, "malformed Content-Length");
    req->chunked = coding != NULL;
    req->has_body = req->chunked || req->content_length > 0;
    req->expects = expect && strcasecmp(expect, "100-continue") == 0;
    return 0;
}

static int check_host(const struct request *req, bool http11, struct error *err)
{
    const char *host = request_header(req, "Host");

    if (http11 && !host)
        return error_set(err, ERR_BAD_REQUEST, "header Host is missing");
    if (host && strpbrk(host, " \t/\\@?#,"))
        return error_set(err, ERR_BAD_REQUEST, "malformed Host");
    return 0;
}

int http_gate_head(struct request *req, const char *version, struct error *err)
{
    bool http11 = strcmp(version, "HTTP/1.1") == 0;

    if (!http11 && strcmp(version, "HTTP/1.0") != 0)
        return error_set(err, ERR_BAD_REQUEST,
                         "only HTTP/1.1 and HTTP/1.0 are spoken here");
    if (!is_token(req->method))
        return error_set(err, ERR_BAD_REQUEST, "malformed method");
    if (check_headers(req, err) < 0 || check_host(req, http11, err) < 0)
        return -1;
    return check_framing(req, http11, err);
}

int http_gate_path(const char *path, struct error *err)
{
    if (path[0] != '/')
        return error_set(err, ERR_BAD_REQUEST, "the path must begin with /");
    if (strlen(path) > HTTP_MAX_PATH)
        return error_set(err, ERR_BAD_REQUEST, "the path is over %d bytes",
                         HTTP_MAX_PATH);
    for (const char *c = path; *c; c++) {
        if (*c == '%')
            return error_set(err, ERR_BAD_REQUEST,
                             "no path here has a percent sign: names and ids "
                             "in paths are plain ASCII");
        if (*c <= 0x20 || *c >= 0x7f || strchr("#\\\"<>^`{|}", *c))
            return error_set(err, ERR_BAD_REQUEST,
                             "the path has a character that URLs do not");
    }
    return 0;
}

static int hex(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of the UTF-8 sequence at s, or 0 when it is not one (overlong forms,
 * surrogates and values over U+10FFFF are not). */
static int utf8_len(const unsigned char *s)
{
    uint32_t cp;
    int n;

    if (s[0] < 0x80)
        return 1;
    n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    cp = s[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (s[i] & 0x3f);
    }
    if ((n == 3 && (cp < 0x800 || (cp >= 0xd800 && cp <= 0xdfff))) ||
        (n == 4 && (cp < 0x10000 || cp > 0x10ffff)))
        return 0;
    return n;
}

static bool is_utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s) {
        int n = utf8_len(s);
        if (n == 0)
            return false;
        s += n;
    }
    return true;
}

/* Percent-decode in place; the result has no NUL and is UTF-8. */
static int decode(char *text, struct error *err)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        int hi, lo;

        if (*in == '+') {
            *out++ = ' ';
            continue;
        }
        if (*in != '%') {
            *out++ = *in;
            continue;
        }
        hi = hex((unsigned char)in[1]);
        lo = hi < 0 ? -1 : hex((unsigned char)in[2]);
        if (lo < 0)
            return error_set(err, ERR_BAD_REQUEST,
                             "the query has a malformed percent escape");
        if (hi == 0 && lo == 0)
            return error_set(err, ERR_BAD_REQUEST, "the query has a NUL");
        *out++ = (char)(hi << 4 | lo);
        in += 2;
    }
    *out = '\0';
    if (!is_utf8(text))
        return error_set(err, ERR_BAD_REQUEST, "the query is not UTF-8");
    return 0;
}

int http_gate_query(char *text, struct http_pair *pairs, int max,
                    struct error *err)
{
    char *next = text;
    int n = 0;

    while (next && *next) {
        char *arg = next, *value;

        next = strchr(arg, '&');
        if (next)
            *next++ = '\0';
        if (!*arg)
            continue;
        if (n == max)
            return error_set(err, ERR_BAD_REQUEST,
                             "the query has more than %d arguments", max);
        value = strchr(arg, '=');
        if (value)
            *value++ = '\0';
        else
            value = arg + strlen(arg);
        if (decode(arg, err) < 0 || (*value && decode(value, err) < 0))
            return -1;
        for (int i = 0; i < n; i++) {
            if (strcmp(pairs[i].name, arg) == 0)
                return error_set(err, ERR_BAD_REQUEST,
                                 "the query argument '%.40s' is given twice",
                                 arg);
        }
        pairs[n].name = arg;
        pairs[n++].value = value;
    }
    return n;
}

/* Parameter `name` of a header value into buf, unquoted: 0 found, 1 absent,
 * -1 malformed, given twice or too long. */
static int parameter(const char *s, const char *name, char *buf, size_t len_buf)
{
    int found = 1;

    s = strchr(s, ';');
    while (s) {
        size_t len_name, len = 0;
        const char *key = s + 1 + strspn(s + 1, " \t");
        bool wanted, quoted;

        len_name = strcspn(key, "=; \t");
        if (key[len_name] != '=')
            return key[len_name] == '\0' && len_name == 0 ? found : -1;
        wanted =
            len_name == strlen(name) && strncasecmp(key, name, len_name) == 0;
        if (wanted && found == 0)
            return -1;
        s = key + len_name + 1;
        quoted = *s == '"';
        s += quoted;
        for (; *s && (quoted ? *s != '"' : !strchr("; \t", *s)); s++) {
            if (!wanted)
                continue;
            if (len + 1 >= len_buf)
                return -1;
            buf[len++] = *s;
        }
        if (quoted && *s++ != '"')
            return -1;
        if (wanted) {
            buf[len] = '\0';
            found = 0;
        }
        s += strspn(s, " \t");
        if (*s != ';')
            return *s ? -1 : found;
    }
    return found;
}

static const struct {
    const char *type;
    enum body_kind kind;
} media[] = {
    {"application/json", BODY_JSON}, {"multipart/form-data", BODY_MULTIPART},
    {"image/jpeg", BODY_RAW},        {"image/png", BODY_RAW},
    {"image/webp", BODY_RAW},        {"application/octet-stream", BODY_RAW}};

int http_gate_media(struct request *req, struct error *err)
{
    const char *type = request_header(req, "Content-Type");
    const char *coding = request_header(req, "Content-Encoding");
    char charset[16] = "utf-8";
    size_t len;

    if (coding && strcasecmp(coding, "identity") != 0)
        return error_set(err, ERR_MEDIA_TYPE,
                         "a Content-Encoding is not taken here");
    req->kind = BODY_RAW;
    if (!type)
        return 0;
    len = strcspn(type, "; \t");
    req->kind = BODY_NONE;
    for (size_t i = 0; i < sizeof(media) / sizeof(media[0]); i++) {
        if (len == strlen(media[i].type) &&
            strncasecmp(type, media[i].type, len) == 0)
            req->kind = media[i].kind;
    }
    if (req->kind == BODY_NONE)
        return error_set(
            err, ERR_MEDIA_TYPE,
            strncasecmp(type, "application/x-www-form", 22) == 0
                ? "photos are not sent URL-encoded: send "
                  "multipart/form-data (curl -F "
                  "image=@FILE) or application/json"
                : "Content-Type must be multipart/form-data, "
                  "application/json, image/jpeg, image/png, image/webp "
                  "or application/octet-stream");
    if (req->kind == BODY_JSON &&
        (parameter(type, "charset", charset, sizeof(charset)) < 0 ||
         (strcasecmp(charset, "utf-8") != 0 &&
          strcasecmp(charset, "us-ascii") != 0)))
        return error_set(err, ERR_MEDIA_TYPE, "JSON must be in UTF-8");
    if (req->kind == BODY_MULTIPART &&
        (parameter(type, "boundary", req->boundary, sizeof(req->boundary)) ||
         !req->boundary[0]))
        return error_set(err, ERR_BAD_REQUEST,
                         "multipart/form-data needs a boundary of 1 to %d "
                         "characters",
                         HTTP_MAX_BOUNDARY);
    return 0;
}
