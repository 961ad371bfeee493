/* tools/ctl_calibrate_ask.c - facenetctl calibrate --gallery: the daemon
 * measures on the faces that it holds, this prints what it found. */
#include "tools/ctl_calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"
#include "tools/ctl_http.h"

static char *body_of(const struct ctl_calibrate_ask *a)
{
    json_t *root =
        json_pack("{s:s, s:b}", "gallery", a->gallery, "apply", (int)a->apply);
    json_t *far = a->n_far ? json_array() : NULL;
    char *text;

    for (int i = 0; far && i < a->n_far; i++)
        json_array_append_new(far, json_real(a->far[i]));
    if (far)
        json_object_set_new(root, "far", far);
    text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static int64_t whole(const json_t *o, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(o, name));
}

/* null, and what is missing, is NaN. */
static double real(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void read_answer(const json_t *root, struct calibration *c)
{
    const json_t *list = json_object_get(root, "thresholds"), *row;
    size_t i;

    memset(c, 0, sizeof(*c));
    c->n_faces = (int)whole(root, "faces");
    c->n_people = (int)whole(root, "people");
    c->n_paired = (int)whole(root, "people_paired");
    c->n_genuine = whole(root, "genuine");
    c->n_impostor = whole(root, "impostor");
    json_array_foreach((json_t *)list, i, row)
    {
        if (i == CALIBRATE_MAX_RATES)
            break;
        c->rates[c->n_rates++] =
            (struct calibrate_rate){.far = real(row, "far"),
                                    .threshold = real(row, "threshold"),
                                    .n_accepted = whole(row, "accepted"),
                                    .far_measured = real(row, "far_measured"),
                                    .far_low = real(row, "far_low"),
                                    .far_high = real(row, "far_high"),
                                    .n_rejected = whole(row, "rejected"),
                                    .frr = real(row, "frr"),
                                    .frr_low = real(row, "frr_low"),
                                    .frr_high = real(row, "frr_high")};
    }
}

int ctl_calibrate_ask(const struct ctl_calibrate_ask *a)
{
    struct ctl_client client = {.ca_file = a->ca_file, .json = a->json};
    struct ctl_call call = {.method = "POST", .path = "/admin/calibrate"};
    struct ctl_answer answer = {0};
    struct calibration c;
    char *body, where[96];
    int rc = CTL_OK;

    if (!ctl_client_init(&client, a->server, a->key, a->key_file))
        return CTL_ERROR;
    call.body = body = body_of(a);
    if (!body)
        return ctl_fail("no memory for the request");
    if (!ctl_send(&client, &call, &answer)) {
        free(body);
        return CTL_ERROR;
    }
    if (answer.status != 200) {
        rc = ctl_problem(&client, &answer);
    } else if (a->json) {
        puts(answer.text);
    } else {
        read_answer(answer.root, &c);
        snprintf(where, sizeof(where), "gallery %s", ctl_safe(a->gallery));
        ctl_calibrate_print(&c, where);
        if (a->apply)
            puts("These thresholds are in force now.");
    }
    ctl_answer_fini(&answer);
    free(body);
    return rc;
}
