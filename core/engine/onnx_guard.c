/* core/engine/onnx_guard.c - a look at an ONNX file's bytes before they are
 * parsed. protobuf-c follows nested messages without a limit on depth and
 * allocates a structure for every two bytes of an empty one, so what may nest
 * and how much there may be is decided here, on the wire format. */
#include "core/engine/onnx_priv.h"

#include <string.h>

enum {
    MAX_FIELDS = 1 << 19,      /* of the whole file */
    MAX_PACKED_INTS = 1 << 20, /* bytes of one list of packed integers */
    MAX_GUARD_NODES = 4 * GRAPH_MAX_NODES
};

enum message {
    LEAF, /* not looked into */
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    VALUE_INFO,
    TYPE,
    TENSOR_TYPE,
    SHAPE,
    PAIR,
    INTS /* packed integers */
};

struct rule {
    enum message in;
    uint32_t field;
    enum message sub;
    const char *refuse; /* or NULL */
};

static const struct rule rules[] = {
    {MODEL, 7, GRAPH, NULL},
    {MODEL, 8, PAIR, NULL},
    {MODEL, 14, PAIR, NULL},
    {MODEL, 20, LEAF, "training information is not supported"},
    {MODEL, 25, LEAF, "functions are not supported"},
    {GRAPH, 1, NODE, NULL},
    {GRAPH, 5, TENSOR, NULL},
    {GRAPH, 11, VALUE_INFO, NULL},
    {GRAPH, 12, VALUE_INFO, NULL},
    {GRAPH, 13, VALUE_INFO, NULL},
    {GRAPH, 14, LEAF, "quantisation annotations are not supported"},
    {GRAPH, 15, LEAF, "sparse initialisers are not supported"},
    {NODE, 5, ATTRIBUTE, NULL},
    {ATTRIBUTE, 5, TENSOR, NULL},
    {ATTRIBUTE, 6, LEAF, "subgraph attributes are not supported"},
    {ATTRIBUTE, 8, INTS, NULL},
    {ATTRIBUTE, 10, LEAF, "attributes that list tensors are not supported"},
    {ATTRIBUTE, 11, LEAF, "subgraph attributes are not supported"},
    {ATTRIBUTE, 14, LEAF, "type attributes are not supported"},
    {ATTRIBUTE, 15, LEAF, "type attributes are not supported"},
    {ATTRIBUTE, 21, LEAF, "attributes by reference are not supported"},
    {ATTRIBUTE, 22, LEAF, "sparse tensors are not supported"},
    {ATTRIBUTE, 23, LEAF, "sparse tensors are not supported"},
    {TENSOR, 1, INTS, NULL},
    {TENSOR, 3, LEAF, "segmented tensors are not supported"},
    {TENSOR, 6, LEAF, "tensors of strings are not supported"},
    {TENSOR, 7, INTS, NULL},
    {TENSOR, 11, INTS, NULL},
    {TENSOR, 13, PAIR, NULL},
    {VALUE_INFO, 2, TYPE, NULL},
    {TYPE, 1, TENSOR_TYPE, NULL},
    {TYPE, 4, LEAF, "values that are not tensors are not supported"},
    {TYPE, 5, LEAF, "values that are not tensors are not supported"},
    {TYPE, 8, LEAF, "values that are not tensors are not supported"},
    {TYPE, 9, LEAF, "values that are not tensors are not supported"},
    {TENSOR_TYPE, 2, SHAPE, NULL},
    {SHAPE, 1, PAIR, NULL},
};

/* Highest field number of ModelProto that any release has used. */
enum {
    MODEL_LAST_FIELD = 26
};

struct guard {
    int n_fields, n_nodes, n_graphs;
    struct error *err;
};

static bool read_varint(struct onnx_bytes *b, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (b->p == b->end)
            return false;
        uint8_t c = *b->p++;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80)) {
            *out = v;
            return true;
        }
    }
    return false;
}

bool onnx_next_field(struct onnx_bytes *b, struct onnx_field *out)
{
    uint64_t tag, len;

    if (!read_varint(b, &tag) || tag >> 3 == 0 || tag >> 32)
        return false;
    out->number = (uint32_t)(tag >> 3);
    out->wire = (uint32_t)(tag & 7);
    out->body = (struct onnx_bytes){b->p, b->p};
    switch (out->wire) {
    case 0:
        return read_varint(b, &len);
    case 1:
        len = 8;
        break;
    case 2:
        if (!read_varint(b, &len))
            return false;
        break;
    case 5:
        len = 4;
        break;
    default:
        return false;
    }
    if (len > (uint64_t)(b->end - b->p))
        return false;
    out->body = (struct onnx_bytes){b->p, b->p + len};
    b->p += len;
    return true;
}

static const struct rule *find_rule(enum message in, uint32_t field)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (rules[i].in == in && rules[i].field == field)
            return &rules[i];
    return NULL;
}

/* The name of a node, else its first output, cut to fit. */
static void node_name(struct onnx_bytes b, char *out, size_t size)
{
    struct onnx_field f;
    bool named = false;

    out[0] = '\0';
    while (b.p < b.end && onnx_next_field(&b, &f)) {
        size_t len = (size_t)(f.body.end - f.body.p);
        if (f.wire != 2 || !len || named ||
            (f.number != 3 && (f.number != 2 || out[0])))
            continue;
        if (len >= size)
            len = size - 1;
        memcpy(out, f.body.p, len);
        out[len] = '\0';
        if (!onnx_text_ok(out))
            out[0] = '\0';
        named = f.number == 3 && out[0];
    }
}

static int count_up(struct guard *g, enum message sub)
{
    if (++g->n_fields > MAX_FIELDS)
        return error_set(g->err, ERR_MODEL, "too many fields");
    if (sub == NODE && ++g->n_nodes > MAX_GUARD_NODES)
        return error_set(g->err, ERR_MODEL, "more than %d nodes",
                         MAX_GUARD_NODES);
    if (sub == GRAPH && ++g->n_graphs > 1)
        return error_set(g->err, ERR_MODEL, "more than one graph");
    return 0;
}

/* Recursion ends because the rules form no cycle. */
static int walk(struct guard *g, enum message in, struct onnx_bytes b)
{
    struct onnx_field f;
    const struct rule *rule;
    enum message sub;
    char name[64];

    while (b.p < b.end) {
        if (!onnx_next_field(&b, &f))
            return error_set(g->err, ERR_MODEL,
                             "damaged or cut short: not an ONNX file");
        if (in == MODEL && f.number > MODEL_LAST_FIELD)
            return error_set(g->err, ERR_MODEL,
                             "unknown field %u: not an ONNX file, or garbage "
                             "at its end",
                             f.number);
        rule = find_rule(in, f.number);
        if (rule && rule->refuse)
            return error_set(g->err, ERR_MODEL, "%s", rule->refuse);
        sub = rule ? rule->sub : LEAF;
        if (count_up(g, sub))
            return -1;
        if (sub == LEAF || f.wire != 2)
            continue;
        if (sub == INTS) {
            if (f.body.end - f.body.p > MAX_PACKED_INTS)
                return error_set(g->err, ERR_MODEL,
                                 "a list of integers is too long");
            continue;
        }
        if (walk(g, sub, f.body)) {
            if (sub == NODE) {
                node_name(f.body, name, sizeof(name));
                error_context(g->err, "node \"%s\"", name);
            }
            return -1;
        }
    }
    return 0;
}

int onnx_guard(const uint8_t *bytes, size_t len_bytes, struct error *err)
{
    struct guard g = {.err = err};

    if (walk(&g, MODEL, (struct onnx_bytes){bytes, bytes + len_bytes}))
        return -1;
    if (!g.n_graphs)
        return error_set(err, ERR_MODEL, "no graph: not an ONNX model");
    return 0;
}

static bool text_ok(const char *text, bool lines)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s) {
        int more = *s < 0x80                  ? 0
                   : *s >= 0xc2 && *s <= 0xdf ? 1
                   : *s >= 0xe0 && *s <= 0xef ? 2
                   : *s >= 0xf0 && *s <= 0xf4 ? 3
                                              : -1;
        bool space = lines && (*s == '\n' || *s == '\t' || *s == '\r');
        if (more < 0 || (*s < 0x20 && !space) || *s == 0x7f)
            return false;
        /* overlong forms, surrogates, beyond U+10FFFF */
        if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
            (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
            return false;
        for (s++; more > 0; more--, s++)
            if ((*s & 0xc0) != 0x80)
                return false;
    }
    return true;
}

bool onnx_text_ok(const char *text)
{
    return text_ok(text, false);
}

bool onnx_lines_ok(const char *text)
{
    return text_ok(text, true);
}
