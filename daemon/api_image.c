/* daemon/api_image.c - bodies to fields and images. Three ways in, one set
 * of rules: each way hands a field's text or JSON value to the same reader
 * for its type, so a threshold is read alike from a query, a part and JSON.
 * Whatever is wrong is said with the field's name and what it may hold. */
#include "daemon/api_image.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/route.h"

enum {
    SHOWN_MAX = 40
}; /* bytes of a client's text in an error */

/* Printable ASCII of a text that came from outside. */
static const char *shown(const char *text, char buf[SHOWN_MAX + 4])
{
    int n = 0;

    for (; text[n] && n < SHOWN_MAX; n++)
        buf[n] = isprint((unsigned char)text[n]) ? text[n] : '?';
    strcpy(buf + n, text[n] ? "..." : "");
    return buf;
}

static int find(const struct form *f, const char *name)
{
    for (int i = 0; f->fields[i].name; i++)
        if (strcmp(f->fields[i].name, name) == 0)
            return i;
    return -1;
}

/* Index of the field that a client names, or -1 with err. */
static int find_sent(const struct form *f, const char *name, struct error *err)
{
    char names[256] = "", buf[SHOWN_MAX + 4];
    const char *near;
    int i = find(f, name), len = 0;

    if (i >= 0)
        return i;
    for (i = 0; f->fields[i].name; i++) {
        strcat(names, i ? " " : "");
        strcat(names, f->fields[i].name);
    }
    near = route_nearest(name, names, &len);
    if (near)
        return error_set(err, ERR_BAD_FIELD,
                         "there is no field '%s'; did you mean '%.*s'?",
                         shown(name, buf), len, near);
    return error_set(err, ERR_BAD_FIELD,
                     "there is no field '%s'; there are: %s", shown(name, buf),
                     names);
}

static int mark(struct form *f, int i, struct error *err)
{
    if (f->given[i] && f->fields[i].type != FORM_IMAGES)
        return error_set(err, ERR_BAD_FIELD, "field '%s' is given twice",
                         f->fields[i].name);
    f->given[i] = true;
    return 0;
}

/* --- values ------------------------------------------------------------ */

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
    char buf[SHOWN_MAX + 4];

    if (!store_id_valid(text))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s': '%s' is not an id: 1 to %d letters, "
                         "digits, '.', '_' or '-', the first a letter or "
                         "digit",
                         f->fields[i].name, shown(text, buf), STORE_ID_MAX);
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
    char buf[SHOWN_MAX + 4];

    for (const char *w = words; *w;) {
        size_t n = strcspn(w, "|");
        if (n == len && strncmp(w, text, n) == 0)
            return put_text(f, i, text, err);
        w += n + (w[n] != '\0');
    }
    return error_set(err, ERR_BAD_FIELD, "field '%s' is one of %s, not '%s'",
                     f->fields[i].name, words, shown(text, buf));
}

static int put_number(struct form *f, int i, double value, const char *said,
                      double max, struct error *err)
{
    bool whole = f->fields[i].type == FORM_LIMIT;
    char buf[SHOWN_MAX + 4];

    if (!isfinite(value) || value < (whole ? 1 : 0) || value > max ||
        (whole && value != floor(value)))
        return error_set(err, ERR_BAD_FIELD,
                         "field '%s' is a %s from %d to %g, not '%s'",
                         f->fields[i].name, whole ? "whole number" : "number",
                         whole ? 1 : 0, max, shown(said, buf));
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

static json_t *parse_json(const char *text, size_t len, const char *what,
                          struct error *err)
{
    json_error_t why;
    json_t *json;

    if (depth_check(text, len, err) != 0)
        return NULL;
    json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return error_null(err, ERR_BAD_JSON, "%s: %.120s, line %d column %d",
                          what, why.text, why.line, why.column);
    if (!json_is_object(json)) {
        json_decref(json);
        return error_null(err, ERR_BAD_JSON, "%s: a JSON object is wanted",
                          what);
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

/* A value that came as text: a part or a query argument. */
static int put_value(struct job *job, struct form *f, int i, const char *text,
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
    case FORM_LIMIT:
        return put_number(f, i, parse_number(text), text,
                          number_max(job, field->type), err);
    case FORM_OBJECT:
        object = parse_json(text, strlen(text), field->name, err);
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

/* --- images ------------------------------------------------------------ */

static struct form_image *put_image(struct form *f, int i, const uint8_t *data,
                                    size_t len, struct error *err)
{
    const struct form_field *field = &f->fields[i];
    struct form_image *image;

    if (f->n_images == FORM_MAX_IMAGES)
        return error_null(err, ERR_BAD_FIELD,
                          "field '%s': at most %d images are taken",
                          field->name, FORM_MAX_IMAGES);
    image = &f->images[f->n_images];
    *image = (struct form_image){
        .field = field->name, .index = -1, .data = data, .len = len};
    if (field->type == FORM_IMAGES)
        image->index = f->n_images;
    f->n_images++;
    return image;
}

/* Base64, with or without "data:image/…;base64,". */
static int put_base64(struct job *job, struct form *f, int i, const char *text,
                      size_t len, struct error *err)
{
    const char *name = f->fields[i].name;
    struct form_image *image = put_image(f, i, (const uint8_t *)text, len, err);

    if (!image)
        return -1;
    if (len > 5 && strncasecmp(text, "data:", 5) == 0) {
        const char *comma = memchr(text, ',', len < 128 ? len : 128);
        if (!comma || comma - text < 12 ||
            strncasecmp(comma - 7, ";base64", 7) != 0) {
            error_set(err, ERR_BAD_BASE64, "%s: the data: URL is not base64",
                      name);
            goto fail;
        }
        len -= (size_t)(comma + 1 - text);
        text = comma + 1;
    }
    if (crypto_base64_decode(text, len, &image->owned, &image->len, err) == 0) {
        image->data = image->owned;
        return 0;
    }
    error_context(err, "%s", name);
fail:
    snprintf(job->error_image, sizeof(job->error_image), "%s", name);
    job->error_index = image->index;
    return -1;
}

/* A part without a file name may hold base64, or the bytes themselves. */
static int put_image_part(struct job *job, struct form *f, int i,
                          const struct request_part *part, struct error *err)
{
    const char *text = (const char *)part->data;
    bool plain = !part->filename && part->len > 0;

    for (size_t k = 0; plain && k < part->len && k < 512; k++)
        plain = isprint(part->data[k]);
    if (!plain)
        return put_image(f, i, part->data, part->len, err) ? 0 : -1;
    if (put_base64(job, f, i, text, part->len, err) == 0)
        return 0;
    if (err->code == ERR_BAD_BASE64 && part->len < 256)
        error_set(err, ERR_BAD_BASE64,
                  "%s holds text that is neither an image nor base64; with "
                  "curl write -F %s=@FILE",
                  f->fields[i].name, f->fields[i].name);
    return -1;
}

/* --- the three ways in ------------------------------------------------- */

static int read_query(struct job *job, struct form *f, struct error *err)
{
    for (int k = 0; k < request_n_query(job->req); k++) {
        const char *name = request_query_name(job->req, k);
        int i = find_sent(f, name, err);

        if (i < 0 || mark(f, i, err) != 0 ||
            put_value(job, f, i, request_query(job->req, name), err) != 0)
            return -1;
    }
    return 0;
}

static int read_parts(struct job *job, struct form *f, struct error *err)
{
    for (int k = 0; k < request_n_parts(job->req); k++) {
        const struct request_part *part = request_part(job->req, k);
        int i = find_sent(f, part->name, err), rc;

        if (i < 0 || mark(f, i, err) != 0)
            return -1;
        if (f->fields[i].type == FORM_IMAGE || f->fields[i].type == FORM_IMAGES)
            rc = put_image_part(job, f, i, part, err);
        else if (part->filename)
            rc = error_set(err, ERR_BAD_FIELD,
                           "field '%s' is a value, not a file", part->name);
        else if (memchr(part->data, '\0', part->len))
            rc = error_set(err, ERR_BAD_FIELD, "field '%s' holds a zero byte",
                           part->name);
        else
            rc = put_value(job, f, i, (const char *)part->data, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int read_json_images(struct job *job, struct form *f, int i,
                            const json_t *value, struct error *err)
{
    const struct form_field *field = &f->fields[i];
    size_t k;
    json_t *one;

    if (json_is_string(value))
        return put_base64(job, f, i, json_string_value(value),
                          json_string_length(value), err);
    if (field->type != FORM_IMAGES || !json_is_array(value) ||
        json_array_size(value) == 0)
        return error_set(err, ERR_BAD_FIELD, "field '%s' is base64 text%s",
                         field->name,
                         field->type == FORM_IMAGES ? " or a list of it" : "");
    json_array_foreach(value, k, one)
    {
        if (!json_is_string(one))
            return error_set(err, ERR_BAD_FIELD,
                             "field '%s' is a list of base64 texts",
                             field->name);
        if (put_base64(job, f, i, json_string_value(one),
                       json_string_length(one), err) != 0)
            return -1;
    }
    return 0;
}

static int read_json_value(struct job *job, struct form *f, int i,
                           const json_t *value, struct error *err)
{
    const struct form_field *field = &f->fields[i];
    char said[32];

    switch (field->type) {
    case FORM_IMAGE:
    case FORM_IMAGES:
        return read_json_images(job, f, i, value, err);
    case FORM_DISTANCE:
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
        break;
    }
    if (!json_is_string(value))
        return error_set(err, ERR_BAD_FIELD, "field '%s' is a text",
                         field->name);
    return put_value(job, f, i, json_string_value(value), err);
}

static int read_json(struct job *job, struct form *f, struct error *err)
{
    const char *name;
    json_t *value;
    size_t len;
    const char *body = (const char *)request_body(job->req, &len);

    f->json = parse_json(body, len, "the body", err);
    if (!f->json)
        return -1;
    json_object_foreach(f->json, name, value)
    {
        int i = find_sent(f, name, err);
        if (i < 0 || mark(f, i, err) != 0 ||
            read_json_value(job, f, i, value, err) != 0)
            return -1;
    }
    return 0;
}

static int read_raw(struct job *job, struct form *f, struct error *err)
{
    size_t len;
    const uint8_t *body = request_body(job->req, &len);
    int at = -1, n = 0;

    for (int i = 0; f->fields[i].name; i++) {
        if (f->fields[i].type != FORM_IMAGE && f->fields[i].type != FORM_IMAGES)
            continue;
        at = i;
        n++;
    }
    if (n != 1)
        return error_set(err, ERR_MEDIA_TYPE,
                         "an image alone is not enough here: send "
                         "multipart/form-data or application/json");
    return mark(f, at, err) == 0 && put_image(f, at, body, len, err) ? 0 : -1;
}

int form_read(struct job *job, const struct form_field *fields,
              struct form *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->fields = fields;
    if (read_query(job, out, err) != 0)
        return -1;
    switch (request_body_kind(job->req)) {
    case BODY_MULTIPART:
        return read_parts(job, out, err);
    case BODY_JSON:
        return read_json(job, out, err);
    case BODY_RAW:
        return read_raw(job, out, err);
    case BODY_NONE:
        break;
    }
    return error_set(err, ERR_BAD_REQUEST,
                     "a body is wanted: multipart/form-data, or "
                     "application/json with base64");
}

void form_fini(struct form *f)
{
    for (int i = 0; i < FORM_MAX_FIELDS; i++)
        free(f->text[i]);
    for (int i = 0; i < f->n_images; i++)
        free(f->images[i].owned);
    json_decref(f->json);
    memset(f, 0, sizeof(*f));
}

/* --- what was given ---------------------------------------------------- */

bool form_given(const struct form *f, const char *name)
{
    int i = find(f, name);
    return i >= 0 && f->given[i];
}

const char *form_text(const struct form *f, const char *name)
{
    int i = find(f, name);
    return i >= 0 ? f->text[i] : NULL;
}

double form_number(const struct form *f, const char *name, double otherwise)
{
    int i = find(f, name);
    return i >= 0 && f->given[i] ? f->number[i] : otherwise;
}

const struct form_image *form_image(const struct form *f, const char *name)
{
    for (int i = 0; i < f->n_images; i++)
        if (strcmp(f->images[i].field, name) == 0)
            return &f->images[i];
    return NULL;
}

const char *form_gallery(const struct form *f, const struct job *job)
{
    const struct config *config = atomic_load(&job->server->config);
    const char *gallery = form_text(f, "gallery");
    return gallery ? gallery : config->default_gallery;
}

int form_need(const struct form *f, const char *name, struct error *err)
{
    if (form_given(f, name))
        return 0;
    return error_set(err, ERR_BAD_FIELD, "field '%s' is missing", name);
}

/* Digests of names and values, one after another, digested. */
int form_digest(const struct job *job, uint8_t out[CRYPTO_SHA256_LEN],
                struct error *err)
{
    const struct request *req = job->req;
    int n_query = request_n_query(req), n_parts = request_n_parts(req);
    int n = 2 * (n_query + n_parts) + 1, k = 0, rc = 0;
    uint8_t(*sums)[CRYPTO_SHA256_LEN] = calloc((size_t)n, sizeof(*sums));
    size_t len = 0;
    const uint8_t *body = request_body(req, &len);

    if (!sums)
        return error_set(err, ERR_NOMEM, "no memory for the request's digest");
    for (int i = 0; rc == 0 && i < n_query; i++) {
        const char *name = request_query_name(req, i);
        const char *value = request_query(req, name);
        rc = crypto_sha256(name, strlen(name), sums[k++], err);
        if (rc == 0)
            rc = crypto_sha256(value, strlen(value), sums[k++], err);
    }
    for (int i = 0; rc == 0 && i < n_parts; i++) {
        const struct request_part *part = request_part(req, i);
        rc = crypto_sha256(part->name, strlen(part->name), sums[k++], err);
        if (rc == 0)
            rc = crypto_sha256(part->data, part->len, sums[k++], err);
    }
    if (rc == 0 && body)
        rc = crypto_sha256(body, len, sums[k++], err);
    if (rc == 0)
        rc = crypto_sha256(sums, (size_t)k * sizeof(*sums), out, err);
    free(sums);
    return rc;
}

/* --- photos ------------------------------------------------------------ */

int form_photo(struct job *job, const struct form_image *image,
               enum face_choice choice, unsigned flags, struct photo *out,
               struct error *err)
{
    const struct server *s = job->server;
    struct face_options opt = s->photo;
    const struct contract *contract =
        flags & PHOTO_NO_CHIPS ? NULL : &s->model->contract;
    int rc;

    opt.choice = choice;
    opt.keep = (flags & PHOTO_KEEP) != 0;
    work_beat();
    rc = photo_read(job->scratch, contract, image->data, image->len, &opt, out,
                    err);
    job->decode_us += out->decode_us;
    job->detect_us += out->detect_us;
    job->align_us += out->align_us;
    stats_observe(STATS_DECODE, (double)out->decode_us / 1e6);
    if (out->width > 0)
        stats_observe(STATS_DETECT, (double)out->detect_us / 1e6);
    if (out->n_chips > 0)
        stats_observe(STATS_ALIGN, (double)out->align_us / 1e6);
    if (rc == 0)
        return 0;
    snprintf(job->error_image, sizeof(job->error_image), "%s", image->field);
    job->error_index = image->index;
    if (image->index >= 0)
        error_context(err, "%s %d", image->field, image->index);
    else
        error_context(err, "%s", image->field);
    return -1;
}
