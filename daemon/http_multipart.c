/* daemon/http_multipart.c - multipart/form-data (RFC 7578) taken apart in
 * place: no copies, so a 10 MB photo is in memory once. It is stricter than
 * RFC 2046: no preamble but one line break, no epilogue, no transfer
 * encodings, and the closing boundary must be there, since without it nobody
 * can tell a whole photo from half of one. Called when the body is complete;
 * pure, so that the fuzzer drives it as it is. */
#include "daemon/http_priv.h"

#include <string.h>
#include <strings.h>

struct cursor {
    uint8_t *p, *end;
};

static bool is_token(int c)
{
    return c > 0x20 && c < 0x7f && !strchr("()<>@,;:\\\"/[]?={}", c);
}

static char *skip_blanks(char *s)
{
    while (*s == ' ' || *s == '\t')
        s++;
    return s;
}

/* A token or a quoted string at *s; unquoted in place. Returns the value and
 * moves *s behind it, or NULL. The caller terminates a token. */
static char *take_value(char **s)
{
    char *in = *s, *out, *value;

    if (*in != '"') {
        value = in;
        while (is_token((unsigned char)*in))
            in++;
        *s = in;
        return in == value ? NULL : value;
    }
    value = out = ++in;
    while (*in && *in != '"') {
        /* Browsers put Windows paths in filename, so a backslash escapes
         * only what has to be escaped. */
        if (in[0] == '\\' && (in[1] == '"' || in[1] == '\\'))
            in++;
        *out++ = *in++;
    }
    if (*in != '"')
        return NULL;
    *s = in + 1;
    *out = '\0';
    return value;
}

/* form-data; name="x"; filename="y". line is NUL-terminated. */
static int parse_disposition(char *line, struct request_part *part)
{
    char *s = line, after;

    if (strncasecmp(s, "form-data", 9) != 0)
        return -1;
    s = skip_blanks(s + 9);
    after = *s;
    while (after == ';') {
        char *name = skip_blanks(s + 1), *value;
        size_t len = 0;
        const char **slot = NULL;

        while (is_token((unsigned char)name[len]))
            len++;
        if (len == 0 || name[len] != '=')
            return -1;
        s = name + len + 1;
        value = take_value(&s);
        if (!value)
            return -1;
        name[len] = '\0';
        char *end = s;
        s = skip_blanks(s);
        after = *s;
        *end = '\0';
        if (strcasecmp(name, "name") == 0)
            slot = &part->name;
        else if (strcasecmp(name, "filename") == 0)
            slot = &part->filename;
        if (slot && *slot)
            return -1; /* given twice: which one counts? */
        if (slot)
            *slot = value;
    }
    return after == '\0' ? 0 : -1;
}

/* One header line of a part, NUL-terminated. */
static int parse_header(char *line, struct request_part *part,
                        struct error *err)
{
    char *colon = strchr(line, ':'), *value;

    if (!colon || colon == line)
        return error_set(err, ERR_BAD_REQUEST,
                         "a part of the form has a malformed header");
    for (const char *c = line; c < colon; c++) {
        if (!is_token((unsigned char)*c))
            return error_set(err, ERR_BAD_REQUEST,
                             "a part of the form has a malformed header");
    }
    *colon = '\0';
    value = skip_blanks(colon + 1);
    if (strcasecmp(line, "Content-Disposition") == 0) {
        if (part->name || parse_disposition(value, part) < 0)
            return error_set(err, ERR_BAD_REQUEST,
                             "a part of the form has a malformed "
                             "Content-Disposition");
    } else if (strcasecmp(line, "Content-Transfer-Encoding") == 0 &&
               strcasecmp(value, "binary") != 0 &&
               strcasecmp(value, "8bit") != 0 &&
               strcasecmp(value, "7bit") != 0) {
        return error_set(err, ERR_BAD_REQUEST,
                         "a part of the form is transfer-encoded; send it "
                         "as it is");
    }
    return 0;
}

/* The headers of a part, through the empty line. */
static int parse_head(struct cursor *c, struct request_part *part,
                      struct error *err)
{
    const uint8_t *limit = c->p + HTTP_MAX_PART_HEAD;

    for (;;) {
        uint8_t *eol = memmem(c->p, (size_t)(c->end - c->p), "\r\n", 2);
        char *line = (char *)c->p;

        if (!eol || eol > limit)
            return error_set(err, ERR_BAD_REQUEST,
                             eol ? "a part of the form has headers over "
                                   "%d bytes"
                                 : "the form ends inside the headers of a "
                                   "part (limit %d bytes)",
                             HTTP_MAX_PART_HEAD);
        c->p = eol + 2;
        if ((char *)eol == line)
            break;
        *eol = '\0';
        if (memchr(line, '\0', (size_t)((char *)eol - line)))
            return error_set(err, ERR_BAD_REQUEST,
                             "a part of the form has a NUL in its headers");
        if (parse_header(line, part, err) < 0)
            return -1;
    }
    if (!part->name || !*part->name)
        return error_set(err, ERR_BAD_REQUEST,
                         "a part of the form has no field name");
    if (strlen(part->name) > HTTP_MAX_PART_NAME)
        return error_set(err, ERR_BAD_REQUEST,
                         "a field name of the form is over %d bytes",
                         HTTP_MAX_PART_NAME);
    for (const char *s = part->name; *s; s++) {
        if (*s < 0x20 || *s > 0x7e)
            return error_set(err, ERR_BAD_REQUEST,
                             "a field name of the form is not plain ASCII");
    }
    return 0;
}

/* What follows "--boundary": 1 a part, 0 the end of the form, -1 neither (the
 * text is data that merely begins like the boundary). Moves c on 0 and 1. */
static int after_delimiter(struct cursor *c)
{
    uint8_t *p = c->p;

    if (c->end - p >= 2 && p[0] == '-' && p[1] == '-') {
        p += 2;
        if (c->end - p >= 2 && p[0] == '\r' && p[1] == '\n')
            p += 2;
        c->p = p;
        return 0;
    }
    while (p < c->end && (*p == ' ' || *p == '\t'))
        p++;
    if (c->end - p < 2 || p[0] != '\r' || p[1] != '\n')
        return -1;
    c->p = p + 2;
    return 1;
}

/* The data of a part: up to CRLF "--boundary" CRLF or "--". */
static int parse_data(struct cursor *c, const char *mark, size_t len_mark,
                      struct request_part *part, struct error *err)
{
    uint8_t *data = c->p, *from = c->p - 2; /* an empty part's CRLF is the
                                             * one that ends its headers */

    for (;;) {
        uint8_t *hit = memmem(from, (size_t)(c->end - from), mark, len_mark);
        int more;

        if (!hit)
            return error_set(err, ERR_BAD_REQUEST,
                             "the form is cut off: field %.64s has no closing "
                             "boundary",
                             part->name);
        c->p = hit + len_mark;
        more = after_delimiter(c);
        if (more >= 0) {
            part->data = data;
            part->len = hit < data ? 0 : (size_t)(hit - data);
            /* hit[0] is the CR of the delimiter; with no data at all it lies
             * before data, whose first byte is then '-' of the delimiter. */
            data[part->len] = '\0';
            return more;
        }
        from = hit + 1;
    }
}

int http_multipart(uint8_t *body, size_t len, const char *boundary,
                   struct request_part *parts, int max, struct error *err)
{
    char mark[4 + HTTP_MAX_BOUNDARY + 1] = "\r\n--";
    size_t len_boundary = strlen(boundary), len_mark = len_boundary + 4;
    struct cursor c = {body, body + len};
    int n = 0, more;

    if (len_boundary == 0 || len_boundary > HTTP_MAX_BOUNDARY)
        return error_set(err, ERR_BAD_REQUEST,
                         "the form's boundary must have 1 to %d characters",
                         HTTP_MAX_BOUNDARY);
    memcpy(mark + 4, boundary, len_boundary + 1);
    if (len >= 2 && memcmp(c.p, "\r\n", 2) == 0)
        c.p += 2;
    if ((size_t)(c.end - c.p) < len_mark - 2 ||
        memcmp(c.p, mark + 2, len_mark - 2) != 0)
        return error_set(err, ERR_BAD_REQUEST,
                         "the form does not begin with its boundary");
    c.p += len_mark - 2;
    more = after_delimiter(&c);
    if (more < 0)
        return error_set(err, ERR_BAD_REQUEST,
                         "the form does not begin with its boundary");
    while (more) {
        if (n == max)
            return error_set(err, ERR_BAD_REQUEST,
                             "the form has more than %d fields", max);
        memset(&parts[n], 0, sizeof(parts[n]));
        if (parse_head(&c, &parts[n], err) < 0)
            return -1;
        more = parse_data(&c, mark, len_mark, &parts[n], err);
        if (more < 0)
            return -1;
        n++;
    }
    if (c.p != c.end)
        return error_set(err, ERR_BAD_REQUEST,
                         "the form has bytes after its closing boundary");
    return n;
}
