/* tests/fake_gpu.c - a card that is none: the plugin's one function over the
 * processor's arithmetic, with faults on demand. FACENETD_FAKE_GPU names a
 * file of words, read at every call; an empty or missing one means a good
 * card:
 *   absent      there is no card            delay=MS    a run takes so long
 *   memory      a network finds no memory   plans=N     nor batches over N
 *   lost        a run fails, then all do until the card is opened anew
 *   hang        a run, and hang-load a load, waits until the word is gone
 *   wrong       other numbers               nan         no numbers
 *   f16         the card is quick in f16
 *   rows=N      there is memory for N blocks of rows; 0: nor for any
 *   tight       a network finds no memory while there are rows
 *   lost-search a search fails, then everything until the card is opened anew
 *   bad-search  a search fails, the card does not
 *   hang-search a search, and hang-put rows that are written, wait until the
 *               word is gone, or fail after their time
 *   unlearnt    a network that learns is refused
 *   small=N     so many of its gradients are said not to fit 16 bits
 *   only=SIDE   what is said of runs is said of inputs that wide alone
 * FACENETD_FAKE_ABI=N is the version that it says it was built for;
 * FACENETD_FAKE_LACKS is set: its table has no forward. Beside the file,
 * FILE.seen tells what was asked: "opened N loaded N runs N most N asks N
 * queries N rows N now N", most: how many runs there were at once, rows: that
 * are there, now: runs. What breaks the contract of backend.h aborts. The
 * numbers of a network that learns are its own, apart from those that its
 * learnable shows. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/engine/graph.h"
#include "core/engine/learn.h"
#include "core/engine/plugin.h"
#include "tests/fake_rows.h"

struct fake_device {
    struct device base;
    struct device *cpu;
    atomic_bool lost;
    atomic_int n_networks, n_rows;
};

struct fake_network {
    struct network base;
    struct network *cpu;
    struct learnable shown; /* of one that learns; cpu has the card's */
    atomic_int n_plans;
};

struct fake_plan {
    struct plan base;
    struct plan *cpu;
    struct fake_network *net;
    atomic_bool running;
};

static const struct backend table;
static atomic_int n_devices, n_opened, n_loaded, n_runs, n_now, n_most;
static atomic_int n_asks, n_queries;
static atomic_int n_small;

static void broken(const char *rule)
{
    fprintf(stderr, "fake card: %s\n", rule);
    abort();
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* Is the word in the file? *value: what follows "word=". */
static bool told(const char *word, long *value)
{
    const char *path = getenv("FACENETD_FAKE_GPU");
    char text[256], *save = NULL;
    size_t len = strlen(word), n = 0;
    FILE *f = path ? fopen(path, "re") : NULL;

    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[n] = '\0';
    for (char *w = strtok_r(text, " \n", &save); w;
         w = strtok_r(NULL, " \n", &save)) {
        if (strncmp(w, word, len) != 0 || (w[len] && w[len] != '='))
            continue;
        if (value && w[len] == '=')
            *value = strtol(w + len + 1, NULL, 10);
        return true;
    }
    return false;
}

/* Whoever reads the file finds the latest, whole. */
static void note(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *path = getenv("FACENETD_FAKE_GPU");
    char seen[4096], fresh[4100];
    FILE *f;

    if (!path)
        return;
    snprintf(seen, sizeof(seen), "%s.seen", path);
    snprintf(fresh, sizeof(fresh), "%s.new", seen);
    pthread_mutex_lock(&lock);
    f = fopen(fresh, "we");
    if (f) {
        fprintf(
            f,
            "opened %d loaded %d runs %d most %d asks %d queries %d rows %d "
            "now %d\n",
            atomic_load(&n_opened), atomic_load(&n_loaded),
            atomic_load(&n_runs), atomic_load(&n_most), atomic_load(&n_asks),
            atomic_load(&n_queries), fake_rows_left(), atomic_load(&n_now));
        fclose(f);
        rename(fresh, seen);
    }
    pthread_mutex_unlock(&lock);
}

static struct device *device_open(const struct device_options *opt,
                                  struct error *err)
{
    struct device_options one = {.n_threads = 1};
    struct fake_device *d;

    if (told("absent", NULL))
        return error_null(err, ERR_DEVICE, "there is no card %d", opt->index);
    if (atomic_fetch_add(&n_devices, 1) > 0)
        broken("a card is opened while it is open");
    d = calloc(1, sizeof(*d));
    if (!d)
        return error_null(err, ERR_NOMEM, "no memory for a card");
    d->base.backend = &table;
    d->cpu = backend_cpu.device_open(&one, err);
    atomic_fetch_add(&n_opened, 1);
    note();
    return &d->base;
}

static void device_close(struct device *dev)
{
    struct fake_device *d = (struct fake_device *)dev;

    if (atomic_load(&d->n_networks) > 0)
        broken("a card is closed before its networks");
    if (atomic_load(&d->n_rows) > 0)
        broken("a card is closed before its rows");
    backend_cpu.device_close(d->cpu);
    free(d);
    atomic_fetch_sub(&n_devices, 1);
}

static void device_describe(const struct device *dev, struct device_info *out)
{
    const struct fake_device *d = (const struct fake_device *)dev;

    backend_cpu.device_describe(d->cpu, out);
    snprintf(out->name, sizeof(out->name), "Fake \"card\"");
    out->fast_bf16 = false;
    out->fast_f16 = told("f16", NULL);
    out->bytes_total = (size_t)1 << 30;
    out->bytes_used = (size_t)atomic_load(&d->n_networks) << 20;
}

static struct network *load(struct device *dev, const struct graph *g,
                            struct error *err)
{
    struct fake_device *d = (struct fake_device *)dev;
    struct fake_network *n;

    while (told("hang-load", NULL))
        pause_ms(10);
    if (atomic_load(&d->lost))
        return error_null(err, ERR_DEVICE, "the card fell off the bus");
    if (told("memory", NULL) || (told("tight", NULL) && fake_rows_left() > 0))
        return error_null(err, ERR_NOMEM, "no memory on the card");
    n = calloc(1, sizeof(*n));
    if (!n)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    n->cpu = backend_cpu.load(d->cpu, g, err);
    if (!n->cpu) {
        free(n);
        return NULL;
    }
    n->base.device = dev;
    atomic_fetch_add(&d->n_networks, 1);
    atomic_fetch_add(&n_loaded, 1);
    note();
    return &n->base;
}

static void unload(struct network *net)
{
    struct fake_network *n = (struct fake_network *)net;

    if (atomic_load(&n->n_plans) > 0)
        broken("a network is freed before its plans");
    if (net->learn && (net->learn->average || net->learn->slots[0]))
        broken("a network is freed before its optimiser");
    atomic_fetch_sub(&((struct fake_device *)net->device)->n_networks, 1);
    if (net->learn) {
        for (int k = 0; k < LEARN_MAX_SLOTS; k++)
            free(n->cpu->learn->slots[k]);
        free(n->cpu->learn->average);
        free(n->shown.weights);
        free(n->shown.gradients);
        free(n->shown.statistics);
    }
    backend_cpu.unload(n->cpu);
    free(n);
}

/* --- learning ----------------------------------------------------------- */

static float *twin(const float *from, size_t n)
{
    float *to = tensor_alloc(n + 1);

    if (!to)
        abort();
    memcpy(to, from, n * sizeof(*to));
    return to;
}

static struct network *load_learning(struct device *dev, const struct graph *g,
                                     const struct learn_options *opt,
                                     struct error *err)
{
    struct fake_device *d = (struct fake_device *)dev;
    struct fake_network *n;
    struct learnable *l;

    if (told("unlearnt", NULL))
        return error_null(err, ERR_MODEL, "node 'x' cannot learn on the card");
    if (told("memory", NULL))
        return error_null(err, ERR_NOMEM, "no memory on the card");
    n = calloc(1, sizeof(*n));
    if (!n)
        return error_null(err, ERR_NOMEM, "no memory for a network");
    n->cpu = backend_cpu.load_learning(d->cpu, g, opt, err);
    if (!n->cpu) {
        free(n);
        return NULL;
    }
    l = &n->shown;
    *l = *n->cpu->learn;
    l->weights = twin(l->weights, l->n_weights);
    l->gradients = twin(l->gradients, l->n_weights);
    l->statistics = twin(l->statistics, l->n_statistics);
    n->base.device = dev;
    n->base.learn = l;
    atomic_fetch_add(&d->n_networks, 1);
    atomic_fetch_add(&n_loaded, 1);
    note();
    return &n->base;
}

static void copy(const float *from, float **to, size_t n)
{
    if (!from)
        return;
    if (!*to) {
        *to = twin(from, n);
        return;
    }
    memcpy(*to, from, n * sizeof(**to));
}

static void copy_parts(const struct learnable *from, struct learnable *to,
                       unsigned parts)
{
    if (parts & LEARN_WEIGHTS)
        copy(from->weights, &to->weights, to->n_weights);
    if (parts & LEARN_GRADIENTS)
        copy(from->gradients, &to->gradients, to->n_weights);
    if (parts & LEARN_STATISTICS)
        copy(from->statistics, &to->statistics, to->n_statistics);
    for (int k = 0; parts & LEARN_SLOTS && k < LEARN_MAX_SLOTS; k++)
        copy(from->slots[k], &to->slots[k], to->n_weights);
    if (parts & LEARN_SLOTS)
        copy(from->average, &to->average, to->n_weights);
}

static int learn_get_(struct network *net, unsigned parts, struct error *err)
{
    struct fake_network *n = (struct fake_network *)net;

    (void)err;
    if (parts & LEARN_SLOTS && !net->learn->average)
        broken("slots are brought that were never put");
    copy_parts(n->cpu->learn, net->learn, parts);
    return 0;
}

static int learn_put_(struct network *net, unsigned parts, struct error *err)
{
    struct fake_network *n = (struct fake_network *)net;

    (void)err;
    copy_parts(net->learn, n->cpu->learn, parts);
    return 0;
}

static int learn_clear_(struct network *net, struct error *err)
{
    return learn_clear(((struct fake_network *)net)->cpu, err);
}

static int learn_norm_(struct network *net, float decay, double *norm,
                       struct error *err)
{
    long most = 0;

    if (told("small", &most) && atomic_load(&n_small) < most) {
        atomic_fetch_add(&n_small, 1);
        *norm = 0;
        return 1;
    }
    return learn_norm(((struct fake_network *)net)->cpu, decay, norm, err);
}

static int learn_update_(struct network *net, const struct learn_update *u,
                         struct error *err)
{
    struct fake_network *n = (struct fake_network *)net;

    if (!n->cpu->learn->slots[0])
        broken("an update before its slots were put");
    return learn_update(n->cpu, u, err);
}

static int backward(struct plan *plan_, struct error *err)
{
    struct fake_plan *p = (struct fake_plan *)plan_;

    return p->cpu->backend->backward(p->cpu, err);
}

/* --- plans ---------------------------------------------------------------- */

static struct plan *plan(struct network *net, const struct plan_options *opt,
                         struct error *err)
{
    struct fake_network *n = (struct fake_network *)net;
    struct plan_options cpu = *opt;
    struct fake_plan *p;
    long most = opt->n;

    if (told("plans", &most) && opt->n > most)
        return error_null(err, ERR_NOMEM, "no memory on the card for %d faces",
                          opt->n);
    if (opt->precision == PRECISION_F16 && told("f16", NULL))
        cpu.precision = PRECISION_F32;
    p = calloc(1, sizeof(*p));
    if (!p)
        return error_null(err, ERR_NOMEM, "no memory for a plan");
    p->cpu = backend_cpu.plan(n->cpu, &cpu, err);
    if (!p->cpu) {
        free(p);
        return NULL;
    }
    p->base = *p->cpu;
    p->base.backend = &table;
    p->base.info.precision = opt->precision;
    p->net = n;
    atomic_fetch_add(&n->n_plans, 1);
    return &p->base;
}

static void free_plan(struct plan *plan_)
{
    struct fake_plan *p = (struct fake_plan *)plan_;

    if (atomic_load(&p->running))
        broken("a plan is freed while it runs");
    atomic_fetch_sub(&p->net->n_plans, 1);
    plan_free(p->cpu);
    free(p);
}

/* The same of a run of this plan. */
static bool told_of(const struct fake_plan *p, const char *word, long *value)
{
    long side = p->base.shape_in.d[3];

    return told(word, value) &&
           (!told("only", &side) || side == p->base.shape_in.d[3]);
}

static int run(struct fake_plan *p, struct error *err)
{
    struct fake_device *d = (struct fake_device *)p->net->base.device;
    const struct shape *s = &p->base.shape_out[0];
    long ms = 0;

    if (told_of(p, "delay", &ms))
        pause_ms(ms);
    while (told_of(p, "hang", NULL))
        pause_ms(10);
    if (told_of(p, "lost", NULL))
        atomic_store(&d->lost, true);
    if (atomic_load(&d->lost))
        return error_set(err, ERR_DEVICE, "the card fell off the bus");
    if (p->net->base.learn) /* dropout's, which the holder may set */
        p->net->cpu->learn->random = p->net->shown.random;
    if (graph_forward(p->cpu, err) != 0)
        return -1;
    if (p->net->base.learn)
        p->net->shown.random = p->net->cpu->learn->random;
    if (told_of(p, "wrong", NULL))
        p->base.output[0][0] += 1000;
    if (told_of(p, "nan", NULL))
        for (size_t i = 0; i < shape_count(s); i++)
            p->base.output[0][i] = p->base.n_outputs > 1 ? NAN : 0;
    return 0;
}

static int forward(struct plan *plan_, struct error *err)
{
    struct fake_plan *p = (struct fake_plan *)plan_;
    int now = atomic_fetch_add(&n_now, 1) + 1, most = atomic_load(&n_most), rc;

    if (atomic_exchange(&p->running, true))
        broken("a plan is run while it runs");
    while (now > most && !atomic_compare_exchange_weak(&n_most, &most, now))
        ;
    atomic_fetch_add(&n_runs, 1);
    note();
    rc = run(p, err);
    atomic_store(&p->running, false);
    atomic_fetch_sub(&n_now, 1);
    note();
    return rc;
}

/* --- search ----------------------------------------------------------- */

static struct fake_device *of(const struct rows *r)
{
    return (struct fake_device *)r->device;
}

static struct rows *rows_new(struct device *dev, const struct rows_options *opt,
                             struct error *err)
{
    struct fake_device *d = (struct fake_device *)dev;
    struct rows *r;
    long n = 1;

    if (opt->memory_bytes == 0 || opt->timeout_ms == 0)
        broken("rows without bounds");
    if (atomic_load(&d->lost))
        return error_null(err, ERR_DEVICE, "the card fell off the bus");
    if (told("rows", &n) && n == 0)
        return error_null(err, ERR_NOMEM, "no memory on the card for rows");
    r = fake_rows_new(dev, opt, err);
    if (r && atomic_fetch_add(&d->n_rows, 1) > 0)
        broken("two galleries are on the card");
    return r;
}

static void rows_free(struct rows *r)
{
    atomic_fetch_sub(&of(r)->n_rows, 1);
    fake_rows_free(r);
    note();
}

/* As long as the word is there. */
static int hang(const struct rows *r, const char *word, struct error *err)
{
    for (int ms = 0; told(word, NULL); ms += 10) {
        if (ms >= r->opt.timeout_ms)
            return error_set(err, ERR_DEVICE, "%s: no answer within %d ms",
                             word, r->opt.timeout_ms);
        pause_ms(10);
    }
    return 0;
}

static int rows_put(struct rows *r, int block, int first, int n, const float *x,
                    struct error *err)
{
    long most = 0;
    int rc;

    if (hang(r, "hang-put", err) != 0)
        return -1;
    if (atomic_load(&of(r)->lost))
        return error_set(err, ERR_DEVICE, "the card fell off the bus");
    if (told("rows", &most) && block >= most)
        return error_set(err, ERR_NOMEM, "no memory on the card for rows");
    rc = fake_rows_put(r, block, first, n, x, err);
    note();
    return rc;
}

static void rows_wipe(struct rows *r, int block)
{
    fake_rows_wipe(r, block);
    note();
}

static int rows_best(struct rows *r, const struct rows_ask *ask,
                     struct rows_answer *answers, struct error *err)
{
    atomic_fetch_add(&n_asks, 1);
    atomic_fetch_add(&n_queries, ask->n_queries);
    note();
    if (hang(r, "hang-search", err) != 0)
        return -1;
    if (told("lost-search", NULL))
        atomic_store(&of(r)->lost, true);
    if (atomic_load(&of(r)->lost))
        return error_set(err, ERR_DEVICE, "the card fell off the bus");
    if (told("bad-search", NULL))
        return error_set(err, ERR_DEVICE, "a search went wrong");
    return fake_rows_best(r, ask, answers, err);
}

static const struct backend table = {
    .abi = BACKEND_ABI,
    .name = "cuda",
    .device_open = device_open,
    .device_close = device_close,
    .device_describe = device_describe,
    .load = load,
    .unload = unload,
    .plan = plan,
    .plan_free = free_plan,
    .forward = forward,
    .rows_new = rows_new,
    .rows_free = rows_free,
    .rows_put = rows_put,
    .rows_wipe = rows_wipe,
    .rows_best = rows_best,
    .load_learning = load_learning,
    .backward = backward,
    .learn_get = learn_get_,
    .learn_put = learn_put_,
    .learn_clear = learn_clear_,
    .learn_norm = learn_norm_,
    .learn_update = learn_update_,
};

__attribute__((visibility("default"))) const struct backend *
facenetd_backend(uint32_t abi);

const struct backend *facenetd_backend(uint32_t abi)
{
    static struct backend lacking;
    const char *other = getenv("FACENETD_FAKE_ABI");

    if (abi != (other ? strtoul(other, NULL, 10) : BACKEND_ABI))
        return NULL;
    lacking = table;
    lacking.forward = NULL;
    return getenv("FACENETD_FAKE_LACKS") ? &lacking : &table;
}
