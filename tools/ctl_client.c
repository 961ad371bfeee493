/* tools/ctl_client.c - the subcommands that ask a daemon: each builds one
 * call, sends it, prints the answer for people (or as it came, with --json)
 * and turns it into an exit code. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ctl.h"
#include "tools/ctl_http.h"

/* Every option of every client command; each command names those it takes. */
enum {
    OPT_SERVER = 256,
    OPT_KEY,
    OPT_KEY_FILE,
    OPT_CA,
    OPT_JSON,
    OPT_HELP
};

static const struct option all_options[] = {
    {"server", required_argument, NULL, OPT_SERVER},
    {"key", required_argument, NULL, OPT_KEY},
    {"key-file", required_argument, NULL, OPT_KEY_FILE},
    {"cacert", required_argument, NULL, OPT_CA},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {"threshold", required_argument, NULL, 't'},
    {"far", required_argument, NULL, 'r'},
    {"gallery", required_argument, NULL, 'g'},
    {"faces", required_argument, NULL, 'f'},
    {"subject", required_argument, NULL, 's'},
    {"name", required_argument, NULL, 'n'},
    {"metadata", required_argument, NULL, 'm'},
    {"limit", required_argument, NULL, 'l'},
    {"idempotency-key", required_argument, NULL, 'i'},
    {NULL, 0, NULL, 0},
};

struct options {
    struct ctl_client client;
    const char *threshold, *far, *gallery, *faces, *subject, *name, *metadata,
        *limit, *idempotency_key;
    bool help;
    char **operands;
    int n_operands;
};

static const char common_help[] =
    "  --server URL       the daemon (http://127.0.0.1:8080, or "
    "$FACENETD_SERVER)\n"
    "  --key KEY          API key ($FACENETD_KEY); other users of this "
    "machine can\n"
    "                     see it in the list of processes: prefer --key-file\n"
    "  --key-file FILE    file with the API key on its first line\n"
    "  --cacert FILE      certificate authority of an https server\n"
    "  --json             print the daemon's answer as it came\n";

/* Fills o. takes: letters of the command's own options, "tg". Returns -1 to
 * go on, else an exit code; text: usage line and own options. */
static int parse(struct options *o, int argc, char **argv, const char *takes,
                 const char *text)
{
    const char *server = NULL, *key = NULL, *key_file = NULL;
    int opt, index;

    memset(o, 0, sizeof(*o));
    opterr = 1;
    optind = 1;
    while ((opt = getopt_long(argc, argv, "", all_options, &index)) != -1) {
        if (opt < 256 && opt != '?' && !strchr(takes, opt))
            return ctl_fail("%s takes no --%s; see %s --help", argv[0],
                            all_options[index].name, argv[0]);
        switch (opt) {
        case OPT_SERVER:
            server = optarg;
            break;
        case OPT_KEY:
            key = optarg;
            break;
        case OPT_KEY_FILE:
            key_file = optarg;
            break;
        case OPT_CA:
            o->client.ca_file = optarg;
            break;
        case OPT_JSON:
            o->client.json = true;
            break;
        case 't':
            o->threshold = optarg;
            break;
        case 'r':
            o->far = optarg;
            break;
        case 'g':
            o->gallery = optarg;
            break;
        case 'f':
            o->faces = optarg;
            break;
        case 's':
            o->subject = optarg;
            break;
        case 'n':
            o->name = optarg;
            break;
        case 'm':
            o->metadata = optarg;
            break;
        case 'l':
            o->limit = optarg;
            break;
        case 'i':
            o->idempotency_key = optarg;
            break;
        case OPT_HELP:
            printf("usage: facenetctl %s%s", text, common_help);
            return CTL_OK;
        default:
            return CTL_ERROR;
        }
    }
    o->operands = argv + optind;
    o->n_operands = argc - optind;
    return ctl_client_init(&o->client, server, key, key_file) ? -1 : CTL_ERROR;
}

/* --- answers to text -------------------------------------------------- */

static double real(json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static const char *text(json_t *o, const char *key)
{
    return ctl_safe(json_string_value(json_object_get(o, key)));
}

static void print_box(json_t *face)
{
    json_t *box = json_object_get(face, "box");

    printf("%.0f,%.0f %.0fx%.0f", real(box, "x0"), real(box, "y0"),
           real(box, "x1") - real(box, "x0"),
           real(box, "y1") - real(box, "y0"));
}

/* Sends; -1: a successful answer is in *a. Else an exit code. */
static int ask(const struct options *o, const struct ctl_call *call,
               struct ctl_answer *a)
{
    if (!ctl_send(&o->client, call, a))
        return CTL_ERROR;
    if (a->status >= 200 && a->status < 300 && a->root) {
        if (o->client.json)
            puts(a->text);
        return -1;
    }
    return ctl_problem(&o->client, a);
}

struct form {
    struct ctl_field rows[CTL_MAX_FIELDS];
    int n;
};

static void add(struct form *f, const char *name, const char *value, bool file)
{
    if (value && f->n < CTL_MAX_FIELDS)
        f->rows[f->n++] = (struct ctl_field){name, value, file};
}

static int post(const struct options *o, const char *path, const struct form *f,
                struct ctl_answer *a)
{
    struct ctl_call call = {.method = "POST",
                            .path = path,
                            .form = f->rows,
                            .n_form = f->n,
                            .idempotency_key = o->idempotency_key};
    return ask(o, &call, a);
}

/* --- commands --------------------------------------------------------- */

int ctl_verify(int argc, char **argv)
{
    struct options o;
    struct ctl_answer a = {0};
    struct form f = {.n = 0};
    bool match;
    int rc =
        parse(&o, argc, argv, "trgfs",
              "verify [OPTION]... PHOTO1 PHOTO2\n"
              "       facenetctl verify [OPTION]... --subject ID PHOTO\n"
              "Exit status: 0 same person, 1 different people, 2 error.\n"
              "  --threshold T      greatest squared distance that matches "
              "(the model's)\n"
              "  --far RATE         or the rate of strangers that may match\n"
              "  --subject ID       compare with an enrolled subject\n"
              "  --gallery ID       gallery of the subject\n"
              "  --faces WHICH      largest, single: refuse several, or "
              "aligned:\n"
              "                     these are the model's crops already\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands != (o.subject ? 1 : 2))
        return ctl_fail(o.subject ? "verify --subject needs one photo"
                                  : "verify needs two photos");
    add(&f, o.subject ? "image" : "image1", o.operands[0], true);
    add(&f, "image2", o.subject ? NULL : o.operands[1], true);
    add(&f, "subject", o.subject, false);
    add(&f, "gallery", o.gallery, false);
    add(&f, "threshold", o.threshold, false);
    add(&f, "far", o.far, false);
    add(&f, "faces", o.faces, false);
    rc = post(&o, "/verify", &f, &a);
    if (rc < 0) {
        match = json_is_true(json_object_get(a.root, "match"));
        if (!o.client.json)
            printf("%s: distance %.3f %s %.3f\n",
                   match ? "same person" : "different people",
                   real(a.root, "distance"), match ? "<=" : ">",
                   real(a.root, "threshold"));
        rc = match ? CTL_OK : CTL_NO_MATCH;
    }
    ctl_answer_fini(&a);
    return rc;
}

/* What enroll says beside success: photos refused, look-alikes. */
static void print_notes(json_t *root)
{
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(root, "errors"), i, row)
    {
        ctl_fail("photo %" JSON_INTEGER_FORMAT ": %s (%s)",
                 json_integer_value(json_object_get(row, "index")) + 1,
                 text(row, "detail"), text(row, "code"));
    }
    json_array_foreach(json_object_get(root, "warnings"), i, row)
    {
        const char *detail = json_string_value(json_object_get(row, "detail"));
        if (detail)
            fprintf(stderr, "warning: %s\n", ctl_safe(detail));
        else
            fprintf(stderr,
                    "warning: nearer to subject %s than the threshold "
                    "(distance %.3f)\n",
                    text(row, "subject"), real(row, "distance"));
    }
}

int ctl_enroll(int argc, char **argv)
{
    struct options o;
    struct ctl_answer a = {0};
    struct form f = {.n = 0};
    size_t n_faces;
    int rc = parse(&o, argc, argv, "gfnmi",
                   "enroll [OPTION]... SUBJECT PHOTO...\n"
                   "  --gallery ID       gallery (the daemon's default)\n"
                   "  --name NAME        display name\n"
                   "  --metadata JSON    an object to keep with the subject\n"
                   "  --faces WHICH      single (default), largest or aligned\n"
                   "  --idempotency-key KEY  makes a repeated command safe\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands < 2)
        return ctl_fail("enroll needs a subject and at least one photo");
    if (o.n_operands - 1 > CTL_MAX_FIELDS - 5)
        return ctl_fail("at most %d photos at a time", CTL_MAX_FIELDS - 5);
    add(&f, "subject", o.operands[0], false);
    add(&f, "gallery", o.gallery, false);
    add(&f, "name", o.name, false);
    add(&f, "metadata", o.metadata, false);
    add(&f, "faces", o.faces, false);
    for (int i = 1; i < o.n_operands; i++)
        add(&f, "image", o.operands[i], true);
    rc = post(&o, "/enroll", &f, &a);
    if (rc < 0) {
        n_faces = json_array_size(json_object_get(a.root, "faces"));
        if (!o.client.json)
            printf("%s: %zu face%s enrolled\n", text(a.root, "subject"),
                   n_faces, n_faces == 1 ? "" : "s");
        print_notes(a.root);
        rc = json_array_size(json_object_get(a.root, "errors")) ? CTL_ERROR
                                                                : CTL_OK;
    }
    ctl_answer_fini(&a);
    return rc;
}

static int print_candidates(json_t *root, bool quiet)
{
    json_t *face, *row;
    size_t i, k;
    int rc = CTL_NO_MATCH;

    json_array_foreach(json_object_get(root, "faces"), i, face)
    {
        json_t *rows = json_object_get(face, "candidates");
        if (json_array_size(rows) > 0)
            rc = CTL_OK;
        if (quiet)
            continue;
        printf("face %zu at ", i + 1);
        print_box(face);
        puts(json_array_size(rows) ? ":" : ": nobody known");
        json_array_foreach(rows, k, row)
        {
            printf("  %-24s distance %.3f  face %" JSON_INTEGER_FORMAT "  %s\n",
                   text(row, "subject"), real(row, "distance"),
                   json_integer_value(json_object_get(row, "face")),
                   text(row, "name"));
        }
    }
    return rc;
}

int ctl_identify(int argc, char **argv)
{
    struct options o;
    struct ctl_answer a = {0};
    struct form f = {.n = 0};
    int rc =
        parse(&o, argc, argv, "trgfl",
              "identify [OPTION]... PHOTO\n"
              "Exit status: 0 somebody known, 1 nobody, 2 error.\n"
              "  --limit N          candidates of each face\n"
              "  --threshold T      greatest squared distance that matches "
              "(the model's)\n"
              "  --far RATE         or the rate of strangers that may match\n"
              "  --gallery ID       gallery (the daemon's default)\n"
              "  --faces WHICH      largest (default), all or aligned\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands != 1)
        return ctl_fail("identify needs one photo");
    add(&f, "image", o.operands[0], true);
    add(&f, "limit", o.limit, false);
    add(&f, "threshold", o.threshold, false);
    add(&f, "far", o.far, false);
    add(&f, "gallery", o.gallery, false);
    add(&f, "faces", o.faces, false);
    rc = post(&o, "/identify", &f, &a);
    if (rc < 0)
        rc = print_candidates(a.root, o.client.json);
    ctl_answer_fini(&a);
    return rc;
}

int ctl_detect(int argc, char **argv)
{
    struct options o;
    struct ctl_answer a = {0};
    struct form f = {.n = 0};
    json_t *faces, *face;
    size_t i;
    int rc = parse(&o, argc, argv, "",
                   "detect [OPTION]... PHOTO\n"
                   "Exit status: 0 faces found, 1 none, 2 error.\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands != 1)
        return ctl_fail("detect needs one photo");
    add(&f, "image", o.operands[0], true);
    rc = post(&o, "/detect", &f, &a);
    if (rc < 0) {
        faces = json_object_get(a.root, "faces");
        json_array_foreach(faces, i, face)
        {
            if (o.client.json)
                break;
            printf("face %zu at ", i + 1);
            print_box(face);
            printf("  score %.4f\n", real(face, "detection_score"));
        }
        rc = json_array_size(faces) ? CTL_OK : CTL_NO_MATCH;
    }
    ctl_answer_fini(&a);
    return rc;
}

/* Every page of a listing, each row by print. list: name of the array. */
static int each_page(const struct options *o, const char *path,
                     const char *list, void (*print)(json_t *row))
{
    char after[96] = "";
    int rc;

    do {
        struct ctl_answer a = {0};
        struct ctl_call call = {
            .method = "GET",
            .path = path,
            .query = {{"limit", "1000", false},
                      {"gallery", o->gallery, false},
                      {"after", *after ? after : NULL, false}}};
        json_t *next, *row;
        size_t i;
        rc = ask(o, &call, &a);
        if (rc < 0) {
            json_array_foreach(json_object_get(a.root, list), i, row)
            {
                if (!o->client.json)
                    print(row);
            }
            next = json_object_get(a.root, "next");
            *after = '\0';
            if (json_is_integer(next))
                snprintf(after, sizeof(after), "%" JSON_INTEGER_FORMAT,
                         json_integer_value(next));
            else if (json_is_string(next))
                snprintf(after, sizeof(after), "%s", json_string_value(next));
        }
        ctl_answer_fini(&a);
    } while (rc < 0 && *after);
    return rc < 0 ? CTL_OK : rc;
}

/* A method on PREFIX/id, with the gallery as a query argument; prints the
 * row, or for people "deleted …". */
static int one(const struct options *o, const char *method, const char *prefix,
               const char *id, const char *body, void (*print)(json_t *row))
{
    struct ctl_answer a = {0};
    struct ctl_call call = {.method = method,
                            .query = {{"gallery", o->gallery, false}},
                            .body = body};
    char path[256];
    int rc;

    /* The daemon takes no escapes in a path; its ids need none. */
    if (strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                   "0123456789._-") != strlen(id) ||
        !*id || strlen(id) > 64)
        return ctl_fail("'%s' cannot be an id", ctl_safe(id));
    snprintf(path, sizeof(path), "%s/%s", prefix, id);
    call.path = path;
    rc = ask(o, &call, &a);
    if (rc < 0 && !o->client.json) {
        if (strcmp(method, "DELETE") == 0)
            printf("deleted %s with %.0f face%s\n", id, real(a.root, "faces"),
                   real(a.root, "faces") == 1 ? "" : "s");
        else
            print(a.root);
    }
    ctl_answer_fini(&a);
    return rc < 0 ? CTL_OK : rc;
}

static void print_subject(json_t *s)
{
    json_t *metadata = json_object_get(s, "metadata");
    char *dump = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;

    printf("%-24s %4.0f face%s  %s  %s%s%s\n", text(s, "id"), real(s, "faces"),
           real(s, "faces") == 1 ? " " : "s", text(s, "created"),
           text(s, "name"), dump ? "  " : "", dump ? ctl_safe(dump) : "");
    free(dump);
}

static void print_face(json_t *f)
{
    printf("%-8" JSON_INTEGER_FORMAT " %-24s %s  ",
           json_integer_value(json_object_get(f, "id")), text(f, "subject"),
           text(f, "created"));
    print_box(f);
    printf("  score %.4f%s\n", real(f, "detection_score"),
           json_is_true(json_object_get(f, "crop")) ? "  crop kept" : "");
}

static void print_gallery(json_t *g)
{
    printf("%-24s %6.0f subjects %7.0f faces  %s\n", text(g, "id"),
           real(g, "subjects"), real(g, "faces"), text(g, "created"));
}

static int rename_subject(const struct options *o)
{
    json_t *o_body = json_object();
    char *body = NULL;
    int rc;

    if (!o->name && !o->metadata) {
        json_decref(o_body);
        return ctl_fail("subjects change needs --name or --metadata");
    }
    if (o->name)
        json_object_set_new(o_body, "name", json_string(o->name));
    if (o->metadata)
        json_object_set_new(o_body, "metadata",
                            json_loads(o->metadata, JSON_DECODE_ANY, NULL));
    if ((!o->name || json_object_get(o_body, "name")) &&
        (!o->metadata || json_object_get(o_body, "metadata")))
        body = json_dumps(o_body, JSON_COMPACT);
    json_decref(o_body);
    if (!body)
        return ctl_fail("--metadata must be JSON, --name UTF-8");
    rc = one(o, "PATCH", "/subjects", o->operands[1], body, print_subject);
    free(body);
    return rc;
}

int ctl_subjects(int argc, char **argv)
{
    struct options o;
    const char *verb;
    int rc = parse(&o, argc, argv, "gnm",
                   "subjects [list]\n"
                   "       facenetctl subjects show ID\n"
                   "       facenetctl subjects change ID [--name NAME] "
                   "[--metadata JSON|null]\n"
                   "       facenetctl subjects delete ID\n"
                   "  --gallery ID       gallery (the daemon's default)\n");

    if (rc >= 0)
        return rc;
    verb = o.n_operands ? o.operands[0] : "list";
    if (strcmp(verb, "list") == 0 && o.n_operands <= 1)
        return each_page(&o, "/subjects", "subjects", print_subject);
    if (o.n_operands != 2)
        return ctl_fail("subjects %s needs one id", ctl_safe(verb));
    if (strcmp(verb, "show") == 0)
        return one(&o, "GET", "/subjects", o.operands[1], NULL, print_subject);
    if (strcmp(verb, "change") == 0)
        return rename_subject(&o);
    if (strcmp(verb, "delete") == 0)
        return one(&o, "DELETE", "/subjects", o.operands[1], NULL, NULL);
    return ctl_fail("subjects takes list, show, change or delete, not '%s'",
                    ctl_safe(verb));
}

int ctl_faces(int argc, char **argv)
{
    struct options o;
    char path[256];
    const char *verb;
    int rc = parse(&o, argc, argv, "g",
                   "faces list SUBJECT [--gallery ID]\n"
                   "       facenetctl faces show ID\n"
                   "       facenetctl faces delete ID\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands != 2)
        return ctl_fail("faces needs list, show or delete, and an id");
    verb = o.operands[0];
    if (strcmp(verb, "list") == 0) {
        snprintf(path, sizeof(path), "/subjects/%.64s/faces", o.operands[1]);
        return each_page(&o, path, "faces", print_face);
    }
    if (o.gallery)
        return ctl_fail("a face's id is unique: --gallery is for faces list");
    if (strcmp(verb, "show") == 0)
        return one(&o, "GET", "/faces", o.operands[1], NULL, print_face);
    if (strcmp(verb, "delete") == 0)
        return one(&o, "DELETE", "/faces", o.operands[1], NULL, NULL);
    return ctl_fail("faces takes list, show or delete, not '%s'",
                    ctl_safe(verb));
}

int ctl_galleries(int argc, char **argv)
{
    struct options o;
    const char *verb;
    int rc = parse(&o, argc, argv, "",
                   "galleries [list]\n"
                   "       facenetctl galleries show ID\n"
                   "       facenetctl galleries delete ID\n");

    if (rc >= 0)
        return rc;
    verb = o.n_operands ? o.operands[0] : "list";
    if (strcmp(verb, "list") == 0 && o.n_operands <= 1)
        return each_page(&o, "/galleries", "galleries", print_gallery);
    if (o.n_operands != 2)
        return ctl_fail("galleries %s needs one id", ctl_safe(verb));
    if (strcmp(verb, "show") == 0)
        return one(&o, "GET", "/galleries", o.operands[1], NULL, print_gallery);
    if (strcmp(verb, "delete") == 0)
        return one(&o, "DELETE", "/galleries", o.operands[1], NULL, NULL);
    return ctl_fail("galleries takes list, show or delete, not '%s'",
                    ctl_safe(verb));
}

int ctl_info(int argc, char **argv)
{
    struct options o;
    struct ctl_answer a = {0};
    struct ctl_call call = {.method = "GET", .path = "/info"};
    int rc = parse(&o, argc, argv, "", "info [OPTION]...\n");

    if (rc >= 0)
        return rc;
    if (o.n_operands)
        return ctl_fail("info takes no operands");
    rc = ask(&o, &call, &a);
    if (rc < 0 && !o.client.json) {
        char *dump =
            json_dumps(a.root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        if (dump)
            puts(dump);
        free(dump);
    }
    ctl_answer_fini(&a);
    return rc < 0 ? CTL_OK : rc;
}
