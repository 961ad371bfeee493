/* tests/gpu/emulated_triplets.c - gpu/triplets_kernels.h as loops over plain
 * memory, beside emulated.c. */
#include "gpu/triplets_kernels.h"

#include <math.h>

int triplets_distances(const struct triplets_job *j, struct stream *s,
                       struct error *err)
{
    size_t n = (size_t)j->n, padded = (size_t)j->padded;

    for (size_t i = 0; i < (size_t)j->rows; i++) {
        const float *x = j->x + ((size_t)j->first + i) * padded;

        for (size_t k = 0; k < n; k++) {
            const float *y = j->x + k * padded;
            float sum = 0;

            for (size_t m = 0; m < padded; m++)
                sum += x[m] * y[m];
            j->d[i * n + k] = triplets_distance(
                j->squares[(size_t)j->first + i], j->squares[k], sum);
        }
    }
    return card_launched(s, "triplets_distances", err);
}

/* How many negatives the pair has; rank: which of them is looked for, *found
 * it or -1. */
static int look(const struct triplets_job *j, int i, int rank, int *found)
{
    const struct triplets_pair *p = &j->pairs[i];
    const float *d = j->d + (size_t)(p->a - j->first) * (size_t)j->n;
    int n = 0;

    *found = -1;
    for (int k = 0; k < j->n && isfinite(d[p->p]); k++)
        if ((k < p->begin || k >= p->end) &&
            triplets_allowed(d[k], d[p->p], j->alpha, j->beyond) && n++ == rank)
            *found = k;
    return n;
}

int triplets_count(const struct triplets_job *j, struct stream *s,
                   struct error *err)
{
    int found;

    for (int i = j->from; i < j->to; i++)
        j->counts[i] = look(j, i, -1, &found);
    return card_launched(s, "triplets_count", err);
}

int triplets_pick(const struct triplets_job *j, struct stream *s,
                  struct error *err)
{
    for (int i = j->from; i < j->to; i++) {
        int found;

        look(j, i, j->counts[i], &found);
        j->counts[i] = found;
    }
    return card_launched(s, "triplets_pick", err);
}
