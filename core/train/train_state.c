/* core/train/train_state.c - a run to a checkpoint and back, so that it goes
 * on as if it had never stopped: weights, their moving averages, the
 * optimiser's slots, running statistics, the counters that all random choices
 * are drawn from, dropout's generator, and what is left of the round (its
 * triplets were chosen with weights that are gone). */
#include "core/train/train_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MOST_PARTS = 10
};
static const unsigned numbers = LEARN_WEIGHTS | LEARN_STATISTICS | LEARN_SLOTS;

/* FNV-1a. */
static const uint64_t hash_begin = 0xcbf29ce484222325u;

static uint64_t hash_number(uint64_t h, uint64_t x)
{
    return (h ^ x) * 0x100000001b3u;
}

static uint64_t hash_text(uint64_t h, const char *text)
{
    for (; *text; text++)
        h = hash_number(h, (unsigned char)*text);
    return h;
}

static uint64_t hash_photo(uint64_t h, const struct dataset_photo *p)
{
    const char *name = strrchr(p->path, '/');

    return hash_number(hash_text(h, name ? name : p->path),
                       (unsigned)p->person);
}

/* Who is in the data, in which files: folders may have moved as a whole. */
static uint64_t data_hash(const struct dataset *d)
{
    uint64_t h = hash_begin;

    for (int i = 0; i < d->n_photos; i++)
        h = hash_photo(h, &d->photos[i]);
    return h;
}

/* Figures before and after are comparable where this is the same. */
static uint64_t measured_hash(const struct train *t)
{
    const struct pairs *p = &t->lfw.pairs;
    uint64_t h = hash_begin, far;

    memcpy(&far, &t->a->guard_far, sizeof(far));
    h = hash_number(h, far);
    h = hash_number(h, (unsigned)t->a->lfw_nrof_folds);
    h = hash_number(h, t->held.data.raw + 2u * t->lfw.data.raw);
    if (t->precision.rest != PRECISION_F32)
        h = hash_number(h, t->precision.rest);
    for (int i = 0; i < t->held.n; i++)
        h = hash_photo(h, &t->held.data.photos[t->held.photos[i]]);
    for (int i = 0; i < p->n_photos; i++)
        h = hash_text(h, p->photos[i]);
    for (int i = 0; i < p->n_pairs; i++) {
        h = hash_number(h, (unsigned)p->pairs[i].photo[0]);
        h = hash_number(h, (unsigned)p->pairs[i].photo[1]);
        h = hash_number(h, p->pairs[i].same + 2u * (unsigned)p->pairs[i].fold);
    }
    return h;
}

void train_state_identify(struct train *t)
{
    enum optimizer rule = OPTIM_ADAGRAD;

    optim_parse(t->a->optimizer, &rule, NULL);
    t->at.optimizer = rule;
    t->at.seed = t->a->seed;
    t->at.batch_size = t->a->batch_size;
    t->at.mode = t->a->harmonic ? 2 : t->rounds;
    t->at.data = data_hash(&t->data);
    t->at.measured = measured_hash(t);
    if (t->parent)
        memcpy(t->at.parent, t->parent->id, sizeof(t->at.parent));
    if (t->teacher)
        memcpy(t->at.teacher, t->teacher->id, sizeof(t->at.teacher));
}

/* Of the round, what is there; the lengths say how much. */
static int list_parts(struct train *t, struct checkpoint_part *parts)
{
    struct train_round *r = &t->round;
    size_t n = t->learn->n_weights * sizeof(float);
    size_t dim = (size_t)t->dim * sizeof(float);
    int k = 0;

    parts[k++] = (struct checkpoint_part){"run", &t->at, sizeof(t->at)};
    parts[k++] = (struct checkpoint_part){"weights", t->learn->weights, n};
    parts[k++] = (struct checkpoint_part){"averages", t->learn->average, n};
    parts[k++] =
        (struct checkpoint_part){"statistics", t->learn->statistics,
                                 t->learn->n_statistics * sizeof(float)};
    for (int i = 0; i < LEARN_MAX_SLOTS; i++)
        if (t->learn->slots[i])
            parts[k++] = (struct checkpoint_part){i ? "slot1" : "slot0",
                                                  t->learn->slots[i], n};
    parts[k++] = (struct checkpoint_part){
        "round", &r->n_photos,
        sizeof(r->n_photos) + sizeof(r->n_triplets) + sizeof(r->next)};
    parts[k++] = (struct checkpoint_part){
        "photos", r->photos, (size_t)r->n_photos * sizeof(*r->photos)};
    parts[k++] = (struct checkpoint_part){
        "triplets", r->triplets, (size_t)r->n_triplets * sizeof(*r->triplets)};
    parts[k++] = (struct checkpoint_part){
        "old", r->old, r->old ? (size_t)r->n_photos * dim : 0};
    return k;
}

_Static_assert(offsetof(struct train_round, n_triplets) ==
                       offsetof(struct train_round, n_photos) + 8 &&
                   offsetof(struct train_round, next) ==
                       offsetof(struct train_round, n_photos) + 16,
               "the round's three counts lie side by side");

size_t train_state_bytes(const struct train *t)
{
    size_t arrays =
        t->at.optimizer == OPTIM_ADAGRAD || t->at.optimizer == OPTIM_MOM ? 3
                                                                         : 4;

    return (arrays * t->learn->n_weights + t->learn->n_statistics) *
           sizeof(float);
}

int train_state_save(struct train *t, struct error *err)
{
    struct checkpoint_part parts[MOST_PARTS];
    char path[CHECKPOINT_MAX_PATH];
    double began = train_now(), elapsed = t->at.elapsed_s;
    int n, rc;

    if (learn_get(t->net, numbers, err))
        return -1;
    t->at.dropout = t->learn->random;
    t->at.optim_steps = optim_steps(t->optim);
    t->at.elapsed_s += began - t->started;
    n = list_parts(t, parts);
    rc = checkpoint_save(t->models, t->at.step, parts, n, CHECKPOINT_KEEP, path,
                         err);
    t->at.elapsed_s = elapsed;
    if (rc)
        return -1;
    train_report_scalar(t, "time/save_variables", train_now() - began);
    if (t->fn)
        t->fn(t->ctx, &(struct train_event){.kind = TRAIN_CHECKPOINT,
                                            .path = path,
                                            .step = t->at.step});
    return 0;
}

/* ---- back ---------------------------------------------------------------- */

int train_state_find(const char *resume, char path[CHECKPOINT_MAX_PATH],
                     struct error *err)
{
    struct stat st;

    if (stat(resume, &st))
        return error_set(err, ERR_BAD_FIELD, "resume: there is no '%.120s'",
                         resume);
    if (S_ISDIR(st.st_mode))
        return checkpoint_newest(resume, -1, path, err) < 0
                   ? error_context(err, "resume")
                   : 0;
    if (strlen(resume) >= CHECKPOINT_MAX_PATH)
        return error_set(err, ERR_BAD_FIELD, "resume: the path is too long");
    memcpy(path, resume, strlen(resume) + 1);
    return 0;
}

/* The file says how long the round's arrays are. */
static int room_for_round(struct train *t, const char *path, struct error *err)
{
    struct train_round *r = &t->round;
    const long long size = (long long)sizeof(*r->photos);
    const long long each = (long long)sizeof(*r->triplets);
    long long photos = checkpoint_part_len(path, "photos", err);
    long long triplets =
        photos < 0 ? -1 : checkpoint_part_len(path, "triplets", err);
    long long old = triplets < 0 ? -1 : checkpoint_part_len(path, "old", err);
    long long vectors = photos / size * t->dim * (long long)sizeof(float);

    if (old < 0)
        return -1;
    if (photos % size || photos / size > TRAIN_MAX_ROUND || triplets % each ||
        triplets / each > INT32_MAX || (old != 0 && old != vectors) ||
        (old != 0) != (t->old && photos))
        return error_set(err, ERR_BAD_FIELD,
                         "checkpoint '%.120s': its round does not fit this "
                         "run",
                         path);
    r->n_photos = photos / size;
    r->n_triplets = triplets / each;
    r->photos = malloc((size_t)photos + 1);
    r->triplets = malloc((size_t)triplets + 1);
    r->old = old ? malloc((size_t)old) : NULL;
    if (!r->photos || !r->triplets || (old && !r->old))
        return error_set(err, ERR_NOMEM, "no memory for a round");
    return 0;
}

/* Numbers that were right when they were written, of another run perhaps. */
static int check_round(const struct train *t, int64_t n_photos,
                       int64_t n_triplets)
{
    const struct train_round *r = &t->round;
    int64_t rows = r->old ? 2 * r->n_photos : r->n_photos;

    if (r->n_photos != n_photos || r->n_triplets != n_triplets || r->next < 0 ||
        r->next > r->n_triplets)
        return -1;
    for (int64_t i = 0; i < n_photos; i++)
        if (r->photos[i] < 0 || r->photos[i] >= t->data.n_photos)
            return -1;
    for (int64_t i = 0; i < n_triplets; i++) {
        const struct triplet *x = &r->triplets[i];

        if (x->a < 0 || x->a >= rows || x->p < 0 || x->p >= rows || x->n < 0 ||
            x->n >= rows)
            return -1;
    }
    return 0;
}

static int check_same(const struct train *t, const struct train_counters *was,
                      struct error *err)
{
    const struct train_counters *now = &t->at;
    const char *what = NULL;

    if (was->data != now->data)
        what = "other photos in data_dir, or another holdout";
    else if (strcmp(was->parent, now->parent) != 0)
        what = "another pretrained_model";
    else if (was->optimizer != now->optimizer)
        what = "another optimizer";
    else if (was->seed != now->seed)
        what = "another seed";
    else if (was->batch_size != now->batch_size)
        what = "another batch_size";
    else if (was->mode != now->mode)
        what = "another way of learning (triplets, harmonic, distill)";
    else if (strcmp(was->teacher, now->teacher) != 0)
        what = "another teacher (distill)";
    return what ? error_set(err, ERR_BAD_FIELD,
                            "resume: the checkpoint's run had %s", what)
                : 0;
}

int train_state_load(struct train *t, const char *path, struct error *err)
{
    struct checkpoint_part parts[MOST_PARTS];
    struct train_counters now = t->at, was;
    int64_t n_photos, n_triplets;
    int n;

    if (room_for_round(t, path, err))
        return -1;
    n_photos = t->round.n_photos;
    n_triplets = t->round.n_triplets;
    n = list_parts(t, parts);
    if (checkpoint_load(path, parts, n, err))
        return -1;
    was = t->at;
    t->at = now;
    was.parent[sizeof(was.parent) - 1] = '\0';
    was.teacher[sizeof(was.teacher) - 1] = '\0';
    if (check_same(t, &was, err))
        return -1;
    /* On other people, or at another rate, `before` is measured again. */
    was.have_before = was.have_before && was.measured == now.measured;
    was.measured = now.measured;
    t->at = was;
    if (check_round(t, n_photos, n_triplets) || t->at.step < 0 ||
        t->at.round < 0)
        return error_set(err, ERR_BAD_FIELD,
                         "checkpoint '%.120s': its round does not fit this "
                         "run",
                         path);
    t->learn->random = t->at.dropout;
    optim_set_steps(t->optim, t->at.optim_steps);
    return learn_put(t->net, numbers, err);
}
