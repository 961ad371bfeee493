/* gpu/weights.c - see the header. */
#include "gpu/weights.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct packed {
    struct weights_key key;
    void *at;
    size_t bytes;
    struct packed *next;
};

struct weights {
    struct card *card;
    const struct graph *graph;
    pthread_mutex_t lock;
    struct packed *first;
    size_t bytes;
};

struct weights *weights_new(struct card *card, const struct graph *g,
                            struct error *err)
{
    struct weights *w = calloc(1, sizeof(*w));

    if (!w)
        return error_null(err, ERR_NOMEM, "no memory for weights");
    w->card = card;
    w->graph = g;
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

void weights_free(struct weights *w)
{
    if (!w)
        return;
    for (struct packed *p = w->first, *next; p; p = next) {
        next = p->next;
        card_release(w->card, p->at, p->bytes);
        free(p);
    }
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static int rows(const struct value *v)
{
    return v->shape.d[0];
}

/* One filter [c,h,w] to [h][w][row]. */
static void pack_filter(const struct weights_key *key, const float *from,
                        void *to, size_t at, int row)
{
    for (int c = 0; c < key->c; c++)
        for (int y = 0; y < key->h; y++)
            for (int x = 0; x < key->w; x++)
                arith_put(to,
                          (uint32_t)(at +
                                     (size_t)(y * key->w + x) * (size_t)row +
                                     (size_t)c),
                          key->type, *from++);
}

/* How many numbers the form has. */
static size_t count(const struct weights *w, const struct weights_key *key)
{
    size_t filter = (size_t)key->h * (size_t)key->w, k = 0;

    for (int i = 0; i < key->n; i++)
        k += (size_t)arith_padded(rows(&w->graph->values[key->value[i]]));
    switch (key->form) {
    case WEIGHTS_CONV:
        return k * filter * (size_t)arith_padded(key->c);
    case WEIGHTS_GROUPED:
        return k * filter * (size_t)key->c;
    case WEIGHTS_DEPTHWISE:
        return k * filter;
    case WEIGHTS_VECTOR:
        return (size_t)arith_padded(key->c);
    default:
        return k;
    }
}

static void pack_filters(const struct weights *w, const struct weights_key *key,
                         void *to)
{
    int row = key->form == WEIGHTS_CONV ? arith_padded(key->c) : key->c;
    size_t step = (size_t)key->h * (size_t)key->w * (size_t)row, at = 0;
    size_t from_step = (size_t)key->h * (size_t)key->w * (size_t)key->c;

    for (int i = 0; i < key->n; i++) {
        const struct value *v = &w->graph->values[key->value[i]];

        for (int k = 0; k < rows(v); k++)
            pack_filter(key, v->data + (size_t)k * from_step, to,
                        at + (size_t)k * step, row);
        at += (size_t)arith_padded(rows(v)) * step;
    }
}

/* to: zeroed, of count numbers. */
static void pack(const struct weights *w, const struct weights_key *key,
                 void *to)
{
    const struct value *v = &w->graph->values[key->value[0]];
    int n = rows(v), plane = key->h * key->w, at = 0;
    float *f = to;

    switch (key->form) {
    case WEIGHTS_CONV:
    case WEIGHTS_GROUPED:
        pack_filters(w, key, to);
        return;
    case WEIGHTS_DEPTHWISE:
        for (int k = 0; k < n; k++)
            for (int p = 0; p < plane; p++)
                f[p * arith_padded(n) + k] = v->data[k * plane + p];
        return;
    case WEIGHTS_VECTOR:
        for (int c = 0; c < key->c; c++)
            f[c] = v->data[shape_count(&v->shape) == 1 ? 0 : c];
        return;
    default:
        for (int i = 0; i < key->n; i++) {
            v = &w->graph->values[key->value[i]];
            for (int k = 0; k < rows(v); k++)
                arith_put(to, (uint32_t)(at + k), key->type, v->data[k]);
            at += arith_padded(rows(v));
        }
    }
}

static struct packed *make(struct weights *w, const struct weights_key *key,
                           struct error *err)
{
    bool f32 = key->form == WEIGHTS_DEPTHWISE || key->form == WEIGHTS_VECTOR;
    size_t bytes =
        count(w, key) * (size_t)arith_bytes(f32 ? GTYPE_F32 : key->type);
    struct packed *p = calloc(1, sizeof(*p));
    float *host = tensor_alloc(bytes / sizeof(float) + 1);

    if (!p || !host) {
        error_set(err, ERR_NOMEM, "no memory for weights");
    } else {
        p->key = *key;
        p->bytes = bytes;
        pack(w, key, host);
        p->at = card_alloc(w->card, bytes, err);
        if (p->at && card_upload(w->card, p->at, host, bytes, err)) {
            card_release(w->card, p->at, bytes);
            p->at = NULL;
        }
    }
    free(host);
    if (p && p->at)
        return p;
    free(p);
    return NULL;
}

void *weights_get(struct weights *w, const struct weights_key *key,
                  struct error *err)
{
    struct packed *p;

    pthread_mutex_lock(&w->lock);
    for (p = w->first; p; p = p->next)
        if (!memcmp(&p->key, key, sizeof(*key)))
            break;
    if (!p && (p = make(w, key, err))) {
        p->next = w->first;
        w->first = p;
        w->bytes += p->bytes;
    }
    pthread_mutex_unlock(&w->lock);
    return p ? p->at : NULL;
}

size_t weights_bytes(struct weights *w)
{
    size_t bytes;

    pthread_mutex_lock(&w->lock);
    bytes = w->bytes;
    pthread_mutex_unlock(&w->lock);
    return bytes;
}
