/* gpu/plan_best.c - the layout of a plan by the clock. Whether joined values
 * are written in place and convolutions merged is not for us to say: cuDNN may
 * serve either by copies of its own. With tuning, every layout is planned and
 * timed, and the quickest is kept. */
#include "gpu/gpu_priv.h"

#include <math.h>

static const struct layout_options layouts[] = {
    {.slices = true, .merge = true},
    {.slices = true, .merge = false},
    {.slices = false, .merge = true},
    {.slices = false, .merge = false},
};

enum {
    N_LAYOUTS = sizeof(layouts) / sizeof(layouts[0])
};

/* Of the steps of a plan in the first layout. */
static uint64_t number_of(const struct gpu_plan *p)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (int i = 0; i < p->n_steps; i++) {
        const struct step *s = &p->steps[i];
        const int of[] = {(int)s->kind, s->x.a.n,     s->x.a.c,     s->x.a.h,
                          s->x.a.w,     s->y.a.c,     s->y.a.h,     s->y.a.w,
                          s->x.a.pitch, s->y.a.pitch, (int)p->type, p->tf32};

        for (size_t k = 0; k < sizeof(of) / sizeof(of[0]); k++)
            h = (h ^ (uint32_t)of[k]) * 0x100000001b3u;
    }
    return h;
}

/* p, or the plan in another layout that is quicker; the other is freed. */
static struct gpu_plan *quickest(struct gpu_plan *p,
                                 const struct plan_options *opt)
{
    struct network *net = &p->net->base;
    struct tune *t = p->dev->tune;
    uint64_t number = number_of(p);
    int n_placed = p->n_placed, n_merged = p->n_merged, best = 0, known = -1;
    float least = 0;

    if (!n_placed && !n_merged)
        return p;
    if (!tune_find_number(t, number, &known) && gpu_measure(p, &least, NULL))
        return p;
    for (int i = 1; i < N_LAYOUTS; i++) {
        struct gpu_plan *other;
        float us = 0;

        if ((known >= 0 && i != known) || (!layouts[i].slices && !n_placed) ||
            (layouts[i].slices && !layouts[i].merge && !n_merged))
            continue; /* not asked for, or the first again */
        other = gpu_plan_as(net, opt, &layouts[i], NULL);
        if (other && known < 0 && gpu_measure(other, &us, NULL))
            us = INFINITY;
        if (other && (known == i || us < least)) {
            struct gpu_plan *worse = p;

            p = other;
            other = worse;
            best = i;
            least = us;
        }
        gpu_plan_free(other ? &other->base : NULL);
    }
    if (known < 0) {
        tune_add_number(t, number, best);
        tune_save(t);
    }
    return p;
}

struct plan *gpu_plan_new(struct network *net, const struct plan_options *opt,
                          struct error *err)
{
    struct gpu_plan *p = gpu_plan_as(net, opt, &layouts[0], err);

    if (p && p->dev->tunes && !opt->separate)
        p = quickest(p, opt);
    return p ? &p->base : NULL;
}
