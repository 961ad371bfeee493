/* store/gallery_search.c - questions to the gallery, and following a store.
 * A search takes a snapshot under the lock, walks it without one, and names
 * its hits under the lock again. The matrix-vector product of distance_rows,
 * or a device, sorts out the rows that can matter; those are measured by
 * distance_l2, so that the answer is exact. */
#include "store/gallery_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/face/distance.h"

enum {
    HITS_MAX = 1000
};

static bool nearer(float distance, int64_t face, const struct best *b)
{
    return distance < b->distance ||
           (distance == b->distance && face < b->face);
}

static void find_worst(struct top *t)
{
    t->worst = 0;
    for (int i = 1; i < t->n; i++) {
        const struct best *w = &t->rows[t->worst];
        if (nearer(w->distance, w->face, &t->rows[i]))
            t->worst = i;
    }
}

/* One row a person. A person that fell out comes back only by a row that is
 * nearer than all that are in, hence than its own earlier ones. */
void gallery_offer(struct top *t, float distance, int64_t face,
                   const struct person *p)
{
    struct best *slot = NULL;

    if (t->n == t->limit && !nearer(distance, face, &t->rows[t->worst]))
        return;
    for (int i = 0; i < t->n && !slot; i++) {
        if (t->rows[i].person == p)
            slot = &t->rows[i];
    }
    if (slot && !nearer(distance, face, slot))
        return;
    if (!slot)
        slot = t->n < t->limit ? &t->rows[t->n++] : &t->rows[t->worst];
    *slot = (struct best){distance, face, p};
    find_worst(t);
}

/* Rows from first to before end. */
static void search_rows(const struct gallery *g, const struct span *sp,
                        int first, int end, const float *query, float threshold,
                        struct top *t)
{
    float rough[CHUNK_ROWS];
    const struct chunk *c = sp->chunk;
    float cut = threshold;

    if (first >= end)
        return;
    distance_rows(query, c->rows + (size_t)first * (size_t)g->dim,
                  (size_t)(end - first), (size_t)g->dim, rough);
    for (int i = first; i < end; i++) {
        float distance;
        if (t->n == t->limit)
            cut = fminf(threshold, t->rows[t->worst].distance);
        if (!(rough[i - first] <= cut + SLACK) || gallery_is_dead(sp, i))
            continue;
        distance = distance_l2(query, c->rows + (size_t)i * (size_t)g->dim,
                               (size_t)g->dim);
        if (distance <= threshold)
            gallery_offer(t, distance, c->faces[i], c->people[i]);
    }
}

/* What a device does not hold, then what it finds; all of it here where it
 * cannot tell. */
static void search_all(struct gallery *g, const struct snapshot *snap,
                       struct asked *all, int n, float threshold)
{
    struct device_search s;
    bool with_device = gallery_device_begin(g, snap, &s);

    for (int i = 0; i < snap->n_spans; i++)
        for (int q = 0; q < n; q++)
            search_rows(g, &snap->spans[i], with_device ? s.there[i] : 0,
                        snap->spans[i].n, all[q].query, threshold, &all[q].top);
    if (!with_device)
        return;
    gallery_device_best(&s, all, n, threshold);
    for (int i = 0; i < snap->n_spans; i++)
        for (int q = 0; q < n; q++)
            if (!all[q].whole)
                search_rows(g, &snap->spans[i], 0, s.there[i], all[q].query,
                            threshold, &all[q].top);
    gallery_device_end(g, &s);
}

static int by_distance(const void *a, const void *b)
{
    const struct best *x = a;

    return nearer(x->distance, x->face, b) ? -1 : 1;
}

/* Under g->lock, as the name may change. */
static void fill(struct gallery_hit *hit, const struct best *b)
{
    memcpy(hit->subject, b->person->entry.id, sizeof(hit->subject));
    snprintf(hit->name, sizeof(hit->name), "%s", b->person->name);
    hit->face = b->face;
    hit->distance = b->distance;
}

static int check_query(const struct gallery *g, const float *query,
                       struct error *err)
{
    if (gallery_is_unit(query, g->dim))
        return 0;
    return error_set(err, ERR_BAD_FIELD,
                     "gallery: what is searched is not a unit vector");
}

static int is_broken(struct error *err)
{
    return error_set(err, ERR_NOMEM,
                     "gallery: memory ran out in a removal; it must be "
                     "loaded again");
}

static int check_ask(const struct gallery *g, const struct gallery_ask *ask,
                     struct error *err)
{
    if (ask->n < 1 || ask->limit < 1 || isnan(ask->threshold))
        return error_set(err, ERR_BAD_FIELD,
                         "gallery: %d queries, limit %d, threshold %g", ask->n,
                         ask->limit, ask->threshold);
    for (int i = 0; i < ask->n; i++)
        if (check_query(g, ask->queries + (size_t)i * (size_t)g->dim, err) < 0)
            return -1;
    return 0;
}

/* Under the lock: a reference to what is searched, NULL where there is no such
 * gallery. */
static struct snapshot *take_snapshot(struct gallery *g, const char *gallery,
                                      bool *broken)
{
    struct snapshot *snap = NULL;
    struct room *r;

    pthread_mutex_lock(&g->lock);
    *broken = g->broken;
    r = gallery_room_find(g, gallery);
    if (r && !g->broken) {
        snap = r->snap;
        atomic_fetch_add_explicit(&snap->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&g->lock);
    return snap;
}

int gallery_search_many(struct gallery *g, const struct gallery_ask *ask,
                        struct gallery_hit *hits, int *n_hits,
                        struct error *err)
{
    size_t limit = ask->limit < HITS_MAX ? (size_t)ask->limit : HITS_MAX;
    struct snapshot *snap = NULL;
    struct asked *all;
    struct best *rows;
    bool broken = false;

    if (check_ask(g, ask, err) < 0)
        return -1;
    all = calloc((size_t)ask->n, sizeof(*all));
    rows = calloc((size_t)ask->n, limit * sizeof(*rows));
    if (!all || !rows) {
        free(all);
        free(rows);
        return error_set(err, ERR_NOMEM, "gallery: out of memory");
    }
    for (int i = 0; i < ask->n; i++)
        all[i] = (struct asked){
            .query = ask->queries + (size_t)i * (size_t)g->dim,
            .top = {.rows = rows + (size_t)i * limit, .limit = (int)limit}};
    snap = take_snapshot(g, ask->gallery, &broken);
    if (snap)
        search_all(g, snap, all, ask->n, ask->threshold);
    for (int i = 0; i < ask->n; i++)
        qsort(all[i].top.rows, (size_t)all[i].top.n, sizeof(*rows),
              by_distance);
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < ask->n; i++) {
        n_hits[i] = all[i].top.n;
        for (int k = 0; k < all[i].top.n; k++)
            fill(&hits[(size_t)i * (size_t)ask->limit + (size_t)k],
                 &all[i].top.rows[k]);
    }
    pthread_mutex_unlock(&g->lock);
    gallery_snapshot_drop(snap);
    free(all);
    free(rows);
    return broken ? is_broken(err) : 0;
}

int gallery_search(struct gallery *g, const char *gallery, const float *query,
                   float threshold, int limit, struct gallery_hit *hits,
                   struct error *err)
{
    struct gallery_ask ask = {.gallery = gallery,
                              .queries = query,
                              .n = 1,
                              .threshold = threshold,
                              .limit = limit};
    int n = 0;

    return gallery_search_many(g, &ask, hits, &n, err) < 0 ? -1 : n;
}

/* The subject's faces, copied while they cannot change, and the snapshot
 * that holds them. NULL with err set. */
static int64_t *take_faces(struct gallery *g, const char *gallery,
                           const char *subject, struct snapshot **snap,
                           struct best *b, int *n, struct error *err)
{
    const struct person *p = NULL;
    int64_t *faces = NULL;
    struct room *r;
    bool broken;

    pthread_mutex_lock(&g->lock);
    broken = g->broken;
    r = gallery_room_find(g, gallery);
    if (r)
        p = (const struct person *)table_find(&r->people, subject);
    if (p && !broken)
        faces = malloc((size_t)p->n_faces * sizeof(*faces));
    if (faces) {
        *n = p->n_faces;
        memcpy(faces, p->faces, (size_t)*n * sizeof(*faces));
        b->person = p;
        *snap = r->snap;
        atomic_fetch_add_explicit(&r->snap->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&g->lock);
    if (broken)
        is_broken(err);
    else if (!p)
        error_set(err, ERR_NO_SUBJECT,
                  "subject %s in gallery %s: no enrolled face", subject,
                  gallery);
    else if (!faces)
        error_set(err, ERR_NOMEM, "gallery: out of memory");
    return faces;
}

int gallery_subject(struct gallery *g, const char *gallery, const char *subject,
                    const float *query, struct gallery_hit *hit,
                    struct error *err)
{
    struct best best = {.distance = INFINITY};
    struct snapshot *snap = NULL;
    int64_t *faces;
    int n = 0, span, row;

    if (check_query(g, query, err) < 0)
        return -1;
    faces = take_faces(g, gallery, subject, &snap, &best, &n, err);
    if (!faces)
        return -1;
    for (int i = 0; i < n; i++) {
        float distance;
        if (!gallery_find_face(snap, faces[i], &span, &row))
            continue;
        distance = distance_l2(
            query, snap->spans[span].chunk->rows + (size_t)row * (size_t)g->dim,
            (size_t)g->dim);
        if (nearer(distance, faces[i], &best)) {
            best.distance = distance;
            best.face = faces[i];
        }
    }
    pthread_mutex_lock(&g->lock);
    fill(hit, &best);
    pthread_mutex_unlock(&g->lock);
    gallery_snapshot_drop(snap);
    free(faces);
    return 0;
}

int64_t gallery_each(struct gallery *g, const char *gallery, gallery_face_fn fn,
                     void *ctx, struct error *err)
{
    bool broken, more = true;
    struct snapshot *snap = take_snapshot(g, gallery, &broken);
    int64_t n = 0;

    for (int i = 0; snap && more && i < snap->n_spans; i++) {
        const struct span *sp = &snap->spans[i];
        const struct chunk *c = sp->chunk;
        for (int k = 0; more && k < sp->n; k++) {
            if (gallery_is_dead(sp, k))
                continue;
            more = fn(ctx, c->faces[k], c->people[k]->entry.id,
                      c->rows + (size_t)k * (size_t)g->dim);
            n++;
        }
    }
    gallery_snapshot_drop(snap);
    return broken ? is_broken(err) : n;
}

/* --- following a store ---------------------------------------------- */
static void refuse(struct gallery *g)
{
    pthread_mutex_lock(&g->lock);
    g->n_refused++;
    pthread_mutex_unlock(&g->lock);
}

static void on_change(void *ctx, const struct store_change *c)
{
    struct gallery *g = ctx;

    switch (c->kind) {
    case STORE_CHANGE_FACE_ADDED:
        if (strcmp(c->model_id, g->model_id) == 0 &&
            (c->dim != g->dim || gallery_add(g, c->gallery, c->subject, c->name,
                                             c->face, c->embedding, NULL) < 0))
            refuse(g);
        break;
    case STORE_CHANGE_FACE_REMOVED:
        gallery_remove_face(g, c->face, NULL);
        break;
    case STORE_CHANGE_SUBJECT_REMOVED:
        gallery_remove_subject(g, c->gallery, c->subject, NULL);
        break;
    case STORE_CHANGE_SUBJECT_RENAMED:
        gallery_rename(g, c->gallery, c->subject, c->name, NULL);
        break;
    case STORE_CHANGE_GALLERY_REMOVED:
        gallery_remove_all(g, c->gallery, NULL);
        break;
    }
}

struct loading {
    struct gallery *g;
    struct error err;
};

static bool on_embedding(void *ctx, int64_t face, const char *gallery,
                         const char *subject, const char *name,
                         const float *embedding, int dim)
{
    struct loading *l = ctx;

    if (embedding && dim == l->g->dim &&
        gallery_add(l->g, gallery, subject, name, face, embedding, &l->err) ==
            0)
        return true;
    if (l->err.code == ERR_NOMEM)
        return false;
    l->err = (struct error){0};
    refuse(l->g);
    return true;
}

int gallery_load(struct gallery *g, struct store *s, struct error *err)
{
    struct loading l = {.g = g};

    /* Changes first: what is committed before the rows are read is in them
     * again, and adding it twice does nothing. */
    if (store_watch(s, on_change, g, err) < 0)
        return -1;
    pthread_mutex_lock(&g->write);
    gallery_empty(g);
    pthread_mutex_unlock(&g->write);
    if (store_embeddings(s, g->model_id, on_embedding, &l, err) < 0)
        return -1;
    if (l.err.code == ERR_NONE)
        return 0;
    if (err)
        *err = l.err;
    return -1;
}

int gallery_unload(struct gallery *g, struct store *s, struct error *err)
{
    return store_unwatch(s, on_change, g, err);
}
