/* store/gallery.c - enrolled embeddings in memory, searched exactly.
 * Per gallery id a room: people by id, and a snapshot, the list of spans
 * that a search walks. Rows lie in chunks; a chunk is shared by the
 * snapshots that hold it, and rows beyond a snapshot's count may be written
 * while it is searched. A removed row is marked in the span's dead bits
 * until its chunk is rewritten.
 *
 * `write` admits one writer; `lock` guards the tables, names, lists of faces
 * and the pointer to each room's snapshot, for moments. Snapshots, chunks
 * and people are counted: whoever lets go last frees. */
#include "store/gallery.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/gallery_priv.h"

/* --- counted parts -------------------------------------------------- */
static void hold(atomic_long *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

static bool let_go(atomic_long *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void person_drop(struct person *p)
{
    if (!p || !let_go(&p->refs))
        return;
    free(p->name);
    free(p->faces);
    free(p);
}

static struct person *person_new(const char *id, const char *name)
{
    struct person *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    atomic_init(&p->refs, 1);
    table_entry_init(&p->entry, id);
    p->name = strdup(name ? name : "");
    if (p->name)
        return p;
    free(p);
    return NULL;
}

void gallery_chunk_drop(struct chunk *c)
{
    if (!c || !let_go(&c->refs))
        return;
    for (int i = 0; i < c->used; i++)
        person_drop(c->people[i]);
    gallery_device_drop(c);
    if (c->size)
        atomic_fetch_sub_explicit(c->bytes, (long long)c->size,
                                  memory_order_relaxed);
    /* Vectors of people should not outlive their use in freed memory. */
    if (c->rows)
        explicit_bzero(c->rows, c->len_rows);
    free(c->rows);
    free(c->faces);
    free(c->people);
    free(c);
}

static struct chunk *chunk_new(struct gallery *g, int64_t n_rows)
{
    struct chunk *c = calloc(1, sizeof(*c));
    void *rows = NULL;
    size_t row = (size_t)g->dim * sizeof(float);

    if (!c)
        return NULL;
    atomic_init(&c->refs, 1);
    c->bytes = &g->bytes;
    c->device = &g->device;
    c->cap = CHUNK_ROWS_MIN;
    while (c->cap < n_rows && c->cap < CHUNK_ROWS)
        c->cap *= 2;
    c->len_rows = (size_t)c->cap * row;
    if (posix_memalign(&rows, 64, c->len_rows) == 0)
        c->rows = rows;
    c->faces = malloc((size_t)c->cap * sizeof(*c->faces));
    c->people = malloc((size_t)c->cap * sizeof(struct person *));
    if (!c->rows || !c->faces || !c->people) {
        gallery_chunk_drop(c);
        return NULL;
    }
    c->size = (size_t)c->cap * (row + sizeof(*c->faces) + sizeof(c->people[0]));
    atomic_fetch_add_explicit(&g->bytes, (long long)c->size,
                              memory_order_relaxed);
    return c;
}

static void chunk_push(struct chunk *c, int dim, const float *row, int64_t face,
                       struct person *p)
{
    memcpy(c->rows + (size_t)c->used * (size_t)dim, row,
           (size_t)dim * sizeof(float));
    c->faces[c->used] = face;
    c->people[c->used] = p;
    hold(&p->refs);
    c->used++;
}

static void dead_drop(struct dead *d)
{
    if (d && let_go(&d->refs))
        free(d);
}

bool gallery_is_dead(const struct span *sp, int row)
{
    return sp->dead && (sp->dead->bits[row / 64] >> (row % 64) & 1);
}

static void span_drop(struct span *sp)
{
    gallery_chunk_drop(sp->chunk);
    dead_drop(sp->dead);
}

static struct snapshot *snapshot_new(int cap)
{
    struct snapshot *s = malloc(sizeof(*s) + (size_t)cap * sizeof(struct span));

    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->n_spans = 0;
    s->cap = cap;
    return s;
}

static struct snapshot *snapshot_dup(const struct snapshot *old)
{
    struct snapshot *s = snapshot_new(old->n_spans + old->n_spans / 2 + 2);

    if (!s)
        return NULL;
    s->n_spans = old->n_spans;
    for (int i = 0; i < old->n_spans; i++) {
        s->spans[i] = old->spans[i];
        hold(&s->spans[i].chunk->refs);
        if (s->spans[i].dead)
            hold(&s->spans[i].dead->refs);
    }
    return s;
}

void gallery_snapshot_drop(struct snapshot *s)
{
    if (!s || !let_go(&s->refs))
        return;
    for (int i = 0; i < s->n_spans; i++)
        span_drop(&s->spans[i]);
    free(s);
}

/* Where a living row of a face is. */
bool gallery_find_face(const struct snapshot *s, int64_t face, int *span,
                       int *row)
{
    for (int i = s->n_spans - 1; i >= 0; i--) {
        const struct span *sp = &s->spans[i];
        if (face < sp->min_face || face > sp->max_face)
            continue;
        for (int j = 0; j < sp->n; j++) {
            if (sp->chunk->faces[j] == face && !gallery_is_dead(sp, j)) {
                *span = i;
                *row = j;
                return true;
            }
        }
    }
    return false;
}

/* --- rooms ---------------------------------------------------------- */
static void room_free(struct room *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->people.cap; i++)
        person_drop((struct person *)r->people.slots[i]);
    table_fini(&r->people);
    gallery_snapshot_drop(r->snap);
    free(r);
}

static struct room *room_new(const char *id)
{
    struct room *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    table_entry_init(&r->entry, id);
    r->snap = snapshot_new(2);
    if (r->snap)
        return r;
    free(r);
    return NULL;
}

struct room *gallery_room_find(struct gallery *g, const char *id)
{
    return (struct room *)table_find(&g->rooms, id);
}

/* Make place for one more entry. Only the writer changes tables, so the new
 * one is filled outside the lock; only the swap is within. */
static int make_place(struct gallery *g, struct table *t)
{
    struct table bigger;

    if (!table_is_full(t))
        return 0;
    if (table_dup_bigger(t, &bigger) < 0)
        return -1;
    pthread_mutex_lock(&g->lock);
    table_swap(t, &bigger);
    pthread_mutex_unlock(&g->lock);
    table_fini(&bigger);
    return 0;
}

static struct room *room_need(struct gallery *g, const char *id)
{
    struct room *r = gallery_room_find(g, id);

    if (r)
        return r;
    if (make_place(g, &g->rooms) < 0 || !(r = room_new(id)))
        return NULL;
    pthread_mutex_lock(&g->lock);
    table_add(&g->rooms, &r->entry);
    pthread_mutex_unlock(&g->lock);
    return r;
}

static void room_remove(struct gallery *g, struct room *r)
{
    pthread_mutex_lock(&g->lock);
    table_remove(&g->rooms, r->entry.id);
    g->n_subjects -= (int64_t)r->people.n;
    g->n_faces -= r->n_rows;
    pthread_mutex_unlock(&g->lock);
    room_free(r);
}

/* Returns with g->lock held and a snapshot that no search holds, with room
 * for one span more: the room's own, else a copy in its place (whose
 * predecessor is handed over in *old, for dropping after the lock). A search
 * gets hold of a snapshot only under the lock. NULL, unlocked: no memory. */
static struct snapshot *own_snapshot(struct gallery *g, struct room *r,
                                     struct snapshot **old)
{
    struct snapshot *copy;

    *old = NULL;
    pthread_mutex_lock(&g->lock);
    if (atomic_load_explicit(&r->snap->refs, memory_order_acquire) == 1 &&
        r->snap->n_spans < r->snap->cap)
        return r->snap;
    pthread_mutex_unlock(&g->lock);
    copy = snapshot_dup(r->snap);
    if (!copy)
        return NULL;
    pthread_mutex_lock(&g->lock);
    *old = r->snap;
    r->snap = copy;
    return copy;
}

/* --- public: making ------------------------------------------------- */
struct gallery *gallery_new(const char *model_id, int dim, struct error *err)
{
    struct gallery *g;

    if (!model_id || strlen(model_id) > STORE_MODEL_ID_LEN || dim < 1 ||
        dim > STORE_DIM_MAX)
        return error_null(err, ERR_BAD_FIELD,
                          "gallery: %d numbers an embedding, 1 to %d are "
                          "allowed",
                          dim, STORE_DIM_MAX);
    g = calloc(1, sizeof(*g));
    if (!g)
        return error_null(err, ERR_NOMEM, "gallery: out of memory");
    strcpy(g->model_id, model_id);
    g->dim = dim;
    pthread_mutex_init(&g->write, NULL);
    pthread_mutex_init(&g->lock, NULL);
    gallery_device_init(&g->device);
    return g;
}

void gallery_empty(struct gallery *g)
{
    struct table rooms;

    table_init(&rooms);
    pthread_mutex_lock(&g->lock);
    table_swap(&g->rooms, &rooms);
    g->n_subjects = g->n_faces = g->n_refused = 0;
    g->broken = false;
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; i < rooms.cap; i++)
        room_free((struct room *)rooms.slots[i]);
    table_fini(&rooms);
}

void gallery_free(struct gallery *g)
{
    if (!g)
        return;
    gallery_detach(g);
    gallery_empty(g);
    gallery_device_fini(&g->device);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->write);
    free(g);
}

const char *gallery_model(const struct gallery *g)
{
    return g->model_id;
}

void gallery_size(struct gallery *g, struct gallery_size *out)
{
    pthread_mutex_lock(&g->lock);
    out->n_galleries = (int64_t)g->rooms.n;
    out->n_subjects = g->n_subjects;
    out->n_faces = g->n_faces;
    out->n_refused = g->n_refused;
    pthread_mutex_unlock(&g->lock);
    out->n_device = atomic_load(&g->device.n_rows);
    out->n_device_left_out = atomic_load(&g->device.n_left_out);
    out->bytes = atomic_load(&g->bytes) +
                 out->n_subjects * (int64_t)sizeof(struct person);
}

/* --- adding --------------------------------------------------------- */
bool gallery_is_unit(const float *v, int dim)
{
    double sum = 0;

    for (int i = 0; i < dim; i++)
        sum += (double)v[i] * (double)v[i];
    return fabs(sum - 1) <= UNIT_TOLERANCE; /* false for NaN */
}

static int faces_reserve(struct gallery *g, struct person *p)
{
    int cap = p->cap_faces ? 2 * p->cap_faces : 2;
    int64_t *bigger, *old = p->faces;

    if (p->n_faces < p->cap_faces)
        return 0;
    bigger = malloc((size_t)cap * sizeof(*bigger));
    if (!bigger)
        return -1;
    if (p->n_faces)
        memcpy(bigger, old, (size_t)p->n_faces * sizeof(*bigger));
    pthread_mutex_lock(&g->lock);
    p->faces = bigger;
    p->cap_faces = cap;
    pthread_mutex_unlock(&g->lock);
    free(old);
    return 0;
}

static bool has_face(const struct person *p, int64_t face)
{
    for (int i = p->n_faces - 1; i >= 0; i--) {
        if (p->faces[i] == face)
            return true;
    }
    return false;
}

/* The row is in the chunk; show it to the searches that come. */
static int publish(struct gallery *g, struct room *r, struct person *p,
                   bool is_new, struct chunk *c, int64_t face)
{
    struct snapshot *old, *s = own_snapshot(g, r, &old);
    struct span *sp;

    if (!s)
        return -1;
    sp = s->n_spans ? &s->spans[s->n_spans - 1] : NULL;
    if (!sp || sp->chunk != c) {
        sp = &s->spans[s->n_spans++];
        *sp = (struct span){.chunk = c, .min_face = face, .max_face = face};
    }
    sp->n = c->used;
    if (face < sp->min_face)
        sp->min_face = face;
    if (face > sp->max_face)
        sp->max_face = face;
    p->faces[p->n_faces++] = face;
    r->n_rows++;
    g->n_faces++;
    if (is_new) {
        table_add(&r->people, &p->entry);
        g->n_subjects++;
    }
    pthread_mutex_unlock(&g->lock);
    gallery_snapshot_drop(old);
    return 0;
}

static int add_row(struct gallery *g, struct room *r, const char *subject,
                   const char *name, int64_t face, const float *embedding)
{
    struct person *p = (struct person *)table_find(&r->people, subject);
    struct span *last =
        r->snap->n_spans ? &r->snap->spans[r->snap->n_spans - 1] : NULL;
    struct chunk *c = last ? last->chunk : NULL;
    bool is_new = !p, is_new_chunk = !c || c->used == c->cap;

    if (p && has_face(p, face))
        return 0;
    if (is_new) {
        p = person_new(subject, name);
        if (!p || make_place(g, &r->people) < 0) {
            person_drop(p);
            return -1;
        }
    }
    if (is_new_chunk)
        c = chunk_new(g, r->n_rows);
    if (!c || faces_reserve(g, p) < 0) {
        if (is_new_chunk)
            gallery_chunk_drop(c);
        if (is_new)
            person_drop(p);
        return -1;
    }
    chunk_push(c, g->dim, embedding, face, p);
    if (publish(g, r, p, is_new, c, face) == 0) {
        gallery_device_added(g, c);
        return 0;
    }
    c->used--;
    person_drop(p);
    if (is_new_chunk)
        gallery_chunk_drop(c);
    if (is_new)
        person_drop(p);
    return -1;
}

int gallery_add(struct gallery *g, const char *gallery, const char *subject,
                const char *name, int64_t face, const float *embedding,
                struct error *err)
{
    struct room *r;
    int rc = -1;

    if (!store_id_valid(gallery) || !store_id_valid(subject))
        return error_set(err, ERR_BAD_FIELD, "gallery: not a valid id");
    if (!gallery_is_unit(embedding, g->dim))
        return error_set(err, ERR_BAD_FIELD,
                         "face %lld: its embedding is not a unit vector",
                         (long long)face);
    pthread_mutex_lock(&g->write);
    r = room_need(g, gallery);
    if (r) {
        rc = add_row(g, r, subject, name, face, embedding);
        if (r->n_rows == 0)
            room_remove(g, r);
    }
    pthread_mutex_unlock(&g->write);
    return rc < 0 ? error_set(err, ERR_NOMEM, "gallery: out of memory") : 0;
}

/* --- removing ------------------------------------------------------- */
static int kill_row(struct span *sp, int row)
{
    struct dead *d = sp->dead;

    /* Held once: this writer's alone, since it made it. */
    if (!d || atomic_load_explicit(&d->refs, memory_order_acquire) > 1) {
        d = calloc(1, sizeof(*d));
        if (!d)
            return -1;
        atomic_init(&d->refs, 1);
        if (sp->dead)
            memcpy(d->bits, sp->dead->bits, sizeof(d->bits));
        dead_drop(sp->dead);
        sp->dead = d;
    }
    d->bits[row / 64] |= UINT64_C(1) << (row % 64);
    sp->n_dead++;
    return 0;
}

static void copy_living(const struct gallery *g, const struct span *from,
                        struct span *to)
{
    for (int i = 0; i < from->n; i++) {
        int64_t face = from->chunk->faces[i];
        if (gallery_is_dead(from, i))
            continue;
        chunk_push(to->chunk, g->dim,
                   from->chunk->rows + (size_t)i * (size_t)g->dim, face,
                   from->chunk->people[i]);
        if (to->n == 0 || face < to->min_face)
            to->min_face = face;
        if (to->n == 0 || face > to->max_face)
            to->max_face = face;
        to->n++;
    }
}

/* Rewrite spans that are mostly dead, together with a small one before. A
 * saving: without the memory for it all stays as it is. */
static void compact(struct gallery *g, struct snapshot *s)
{
    for (int i = s->n_spans - 1; i >= 0; i--) {
        struct span *sp = &s->spans[i], to = {0};
        int alive = sp->n - sp->n_dead, first = i;
        if (alive > 0 && sp->n_dead * 2 <= sp->n)
            continue;
        if (i > 0 && alive > 0 &&
            alive + sp[-1].n - sp[-1].n_dead <= CHUNK_ROWS / 2) {
            first = i - 1;
            alive += sp[-1].n - sp[-1].n_dead;
        }
        if (alive > 0 && !(to.chunk = chunk_new(g, alive)))
            continue;
        for (int j = first; j <= i && to.chunk; j++)
            copy_living(g, &s->spans[j], &to);
        if (to.chunk)
            gallery_device_added(g, to.chunk);
        for (int j = first; j <= i; j++)
            span_drop(&s->spans[j]);
        if (to.chunk)
            s->spans[first++] = to;
        memmove(&s->spans[first], &s->spans[i + 1],
                (size_t)(s->n_spans - i - 1) * sizeof(struct span));
        s->n_spans -= i + 1 - first;
    }
}

static void forget_face(struct person *p, int64_t face)
{
    for (int i = 0; i < p->n_faces; i++) {
        if (p->faces[i] != face)
            continue;
        memmove(&p->faces[i], &p->faces[i + 1],
                (size_t)(p->n_faces - i - 1) * sizeof(*p->faces));
        p->n_faces--;
        return;
    }
}

/* Take faces, all of p, out of the room; p itself when none is left, the
 * room when nobody is. */
static int remove_faces(struct gallery *g, struct room *r, struct person *p,
                        const int64_t *faces, int n)
{
    struct snapshot *old = r->snap, *s = snapshot_dup(old);
    int span, row;
    bool gone;

    if (!s)
        return -1;
    for (int i = 0; i < n; i++) {
        if (gallery_find_face(s, faces[i], &span, &row) &&
            kill_row(&s->spans[span], row) < 0) {
            gallery_snapshot_drop(s);
            return -1;
        }
    }
    compact(g, s);
    pthread_mutex_lock(&g->lock);
    r->snap = s;
    r->n_rows -= n;
    g->n_faces -= n;
    for (int i = n - 1; i >= 0; i--) /* faces may be p's own list */
        forget_face(p, faces[i]);
    gone = p->n_faces == 0;
    if (gone) {
        table_remove(&r->people, p->entry.id);
        g->n_subjects--;
    }
    pthread_mutex_unlock(&g->lock);
    gallery_snapshot_drop(old);
    if (gone)
        person_drop(p);
    if (r->n_rows == 0)
        room_remove(g, r);
    return 0;
}

/* A face that should be gone must not be found: answer nothing instead. */
static int removal_failed(struct gallery *g, struct error *err)
{
    pthread_mutex_lock(&g->lock);
    g->broken = true;
    pthread_mutex_unlock(&g->lock);
    return error_set(err, ERR_NOMEM,
                     "gallery: out of memory in a removal; it must be loaded "
                     "again");
}

int gallery_remove_face(struct gallery *g, int64_t face, struct error *err)
{
    int span, row, rc = 0;

    pthread_mutex_lock(&g->write);
    for (size_t i = 0; i < g->rooms.cap; i++) {
        struct room *r = (struct room *)g->rooms.slots[i];
        if (!r || !gallery_find_face(r->snap, face, &span, &row))
            continue;
        rc = remove_faces(g, r, r->snap->spans[span].chunk->people[row], &face,
                          1);
        break;
    }
    pthread_mutex_unlock(&g->write);
    return rc < 0 ? removal_failed(g, err) : 0;
}

int gallery_remove_subject(struct gallery *g, const char *gallery,
                           const char *subject, struct error *err)
{
    struct person *p = NULL;
    struct room *r;
    int rc = 0;

    pthread_mutex_lock(&g->write);
    r = gallery_room_find(g, gallery);
    if (r)
        p = (struct person *)table_find(&r->people, subject);
    if (p)
        rc = remove_faces(g, r, p, p->faces, p->n_faces);
    pthread_mutex_unlock(&g->write);
    return rc < 0 ? removal_failed(g, err) : 0;
}

int gallery_remove_all(struct gallery *g, const char *gallery,
                       struct error *err)
{
    struct room *r;

    (void)err;
    pthread_mutex_lock(&g->write);
    r = gallery_room_find(g, gallery);
    if (r)
        room_remove(g, r);
    pthread_mutex_unlock(&g->write);
    return 0;
}

int gallery_rename(struct gallery *g, const char *gallery, const char *subject,
                   const char *name, struct error *err)
{
    char *fresh = strdup(name ? name : "");
    struct person *p = NULL;
    struct room *r;

    if (!fresh)
        return error_set(err, ERR_NOMEM, "gallery: out of memory");
    pthread_mutex_lock(&g->write);
    pthread_mutex_lock(&g->lock);
    r = gallery_room_find(g, gallery);
    if (r)
        p = (struct person *)table_find(&r->people, subject);
    if (p) {
        char *old = p->name;
        p->name = fresh;
        fresh = old;
    }
    pthread_mutex_unlock(&g->lock);
    pthread_mutex_unlock(&g->write);
    free(fresh);
    return 0;
}
