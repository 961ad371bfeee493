/* daemon/form.c - bodies to fields and images. Three ways in, one set
 * of rules: each way hands a field's text or JSON value to the same reader
 * for its type, so a threshold is read alike from a query, a part and JSON.
 * Whatever is wrong is said with the field's name and what it may hold. */
#include "daemon/form.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/form_priv.h"
#include "daemon/route.h"

static int find(const struct form *f, const char *name)
{
    for (int i = 0; f->fields[i].name; i++)
        if (strcmp(f->fields[i].name, name) == 0)
            return i;
    return -1;
}

static bool is_image(const struct form *f, int i)
{
    return f->fields[i].type == FORM_IMAGE || f->fields[i].type == FORM_IMAGES;
}

/* Index of the field that a client names, or -1 with err. */
static int find_sent(const struct form *f, const char *name, struct error *err)
{
    char names[256] = "", buf[FORM_SHOWN_MAX + 4];
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
                         form_shown(name, buf), len, near);
    return error_set(err, ERR_BAD_FIELD,
                     "there is no field '%s'; there are: %s",
                     form_shown(name, buf), names);
}

static int mark(struct form *f, int i, struct error *err)
{
    if (f->given[i] && f->fields[i].type != FORM_IMAGES)
        return error_set(err, ERR_BAD_FIELD, "field '%s' is given twice",
                         f->fields[i].name);
    f->given[i] = true;
    return 0;
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
    if (len > 7 && (strncasecmp(text, "http://", 7) == 0 ||
                    strncasecmp(text, "https://", 8) == 0)) {
        error_set(err, ERR_BAD_BASE64,
                  "%s: addresses are not fetched; send the photo itself, in "
                  "base64",
                  name);
        goto fail;
    }
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
    form_blame(job, image);
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
    if (err->code == ERR_BAD_BASE64 && part->len < 256 &&
        strncasecmp(text, "http", 4) != 0)
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
            form_put_text(job, f, i, request_query(job->req, name), err) != 0)
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
        if (is_image(f, i))
            rc = put_image_part(job, f, i, part, err);
        else if (part->filename)
            rc = error_set(err, ERR_BAD_FIELD,
                           "field '%s' is a value, not a file", part->name);
        else if (memchr(part->data, '\0', part->len))
            rc = error_set(err, ERR_BAD_FIELD, "field '%s' holds a zero byte",
                           part->name);
        else
            rc = form_put_text(job, f, i, (const char *)part->data, err);
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

static int read_json(struct job *job, struct form *f, struct error *err)
{
    const char *name;
    json_t *value;
    size_t len;
    const char *body = (const char *)request_body(job->req, &len);

    f->json = form_parse_json(body, len, "the body", err);
    if (!f->json)
        return -1;
    json_object_foreach(f->json, name, value)
    {
        int i = find_sent(f, name, err);
        if (i < 0 || mark(f, i, err) != 0 ||
            (is_image(f, i) ? read_json_images(job, f, i, value, err)
                            : form_put_json(job, f, i, value, err)) != 0)
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
        if (!is_image(f, i))
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
