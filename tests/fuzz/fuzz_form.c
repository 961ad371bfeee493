/* tests/fuzz/fuzz_form.c - request bodies to fields: the first byte picks the
 * way in, the rest is the body. What is accepted must hold what the fields'
 * types promise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/form.h"
#include "daemon/http_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct form_field fields[] = {
    {"image", FORM_IMAGE, NULL},        {"images", FORM_IMAGES, NULL},
    {"subject", FORM_ID, NULL},         {"name", FORM_NAME, NULL},
    {"threshold", FORM_DISTANCE, NULL}, {"limit", FORM_LIMIT, NULL},
    {"faces", FORM_CHOICE, "one|two"},  {"metadata", FORM_OBJECT, NULL},
    {NULL, FORM_IMAGE, NULL},
};

static void check(const struct form *f)
{
    double threshold = form_number(f, "threshold", 1);
    double limit = form_number(f, "limit", 1);
    const char *subject = form_text(f, "subject");
    const char *name = form_text(f, "name");
    const char *metadata = form_text(f, "metadata");

    if (!(threshold >= 0 && threshold <= 4) || !(limit >= 1 && limit <= 100) ||
        limit != floor(limit) || (subject && !store_id_valid(subject)) ||
        (name && strlen(name) > STORE_NAME_MAX) ||
        (metadata && *metadata != '{') || f->n_images > FORM_MAX_IMAGES)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct server server;
    struct request *req = calloc(1, sizeof(*req));
    struct job job = {.server = &server, .req = req};
    struct request_part part;
    struct form form;
    struct error err;
    char *text = calloc(1, size + 1);

    if (!atomic_load(&server.config))
        atomic_store(&server.config, config_parse("fuzz", "", 0, NULL));
    if (size > 0 && text && req) {
        memcpy(text, data + 1, size - 1);
        req->body = (uint8_t *)text;
        req->len_body = size - 1;
        req->kind = BODY_JSON;
        if (data[0] % 2 == 1) { /* one part: a field's name, its text */
            size_t field = data[0] / 2 % 8;
            part = (struct request_part){.name = fields[field].name,
                                         .data = (uint8_t *)text,
                                         .len = size - 1};
            req->parts = &part;
            req->n_parts = 1;
            req->kind = BODY_MULTIPART;
        }
        if (form_read(&job, fields, &form, &err) == 0)
            check(&form);
        form_fini(&form);
    }
    free(text);
    free(req);
    return 0;
}
