/* core/train/detector_train.c - one stage after another: sets up networks and
 * samplers, runs Adam over batches, keeps moving averages and writes them. */
#include "core/train/detector_train.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/arch/arch.h"
#include "core/train/optim.h"
#include "core/train/random.h"
#include "core/train/train_device.h"

enum {
    REPORT_EVERY = 100,
    WRITE_EVERY = 1000,
    MOST_LEFT_OUT = 40, /* steps in a row */
    MOST_PATH = 4096
};
static const double warm_up = 0.02;    /* part of the steps in which it rises */
static const double last_rate = 0.005; /* of the highest, at the end */
static const double most_norm = 5;     /* of a step's gradient */
static const double average_decay = 0.998;
static const char files[DETECTOR_STAGES][24] = {
    "detector_pnet.onnx", "detector_rnet.onnx", "detector_onet.onnx"};

static const struct stage_table {
    const char *name, *arch;
    enum model_kind kind;
    int side, batch, cells;
    struct detector_loss_options loss;
} stages[DETECTOR_STAGES] = {
    {"pnet",
     "mtcnn_pnet",
     MODEL_PNET,
     DETECTOR_P_SIDE,
     48,
     DETECTOR_P_CELLS *DETECTOR_P_CELLS,
     {0.5f, 0, 0.1f}},
    {"rnet", "mtcnn_rnet", MODEL_RNET, 24, 192, 1, {0.5f, 0, 0.7f}},
    {"onet", "mtcnn_onet", MODEL_ONET, 48, 96, 1, {0.5f, 1, 0.7f}},
};

struct teacher {
    struct model *model[DETECTOR_STAGES];
    struct detector *detector;
    struct detect_scratch *scratch;
};

struct stage {
    const struct stage_table *is;
    enum detector_stage at;
    struct teacher before;   /* the cascade before, as far as it is ours */
    struct network *teacher; /* of the same stage */
    struct detector_sampler *sampler;
    struct graph *graph;
    struct network *net;
    struct plan *plan;
    struct optim *optim;
    float *pixels;
    struct detector_target *targets;
    int *order;
    int n_targets, step, n_steps, n_left_out;
    double rate;
    char parent[65]; /* id of what it goes on from; "": random weights */
};

struct run {
    const struct detector_train_options *o;
    struct device *dev, *one; /* learns; one thread, for cascades */
    struct teacher teacher;
    struct detector_photos *photos;
    detector_train_fn report;
    void *ctx;
    const volatile sig_atomic_t *stop;
};

void detector_train_defaults(struct detector_train_options *o)
{
    static const struct detector_train_options usual = {
        .stage = {true, true, true},
        .batches = {4000, 5000, 8000},
        .rate = 1e-3,
        .seed = 1,
        .device = "auto"};

    *o = usual;
}

const char *detector_train_stage_name(enum detector_stage stage)
{
    return stages[stage].name;
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- detectors that are there -------------------------------------------- */

static int path_of(const char *dir, enum detector_stage at,
                   char path[MOST_PATH], struct error *err)
{
    if (snprintf(path, MOST_PATH, "%s/%s", dir, files[at]) < MOST_PATH)
        return 0;
    return error_set(err, ERR_BAD_FIELD, "the path of a folder is too long");
}

static struct model *load_model(struct device *dev, const char *dir,
                                enum detector_stage at, struct error *err)
{
    char path[MOST_PATH];
    struct model *m;

    if (path_of(dir, at, path, err))
        return NULL;
    m = model_load(path, dev, NULL, err);
    if (m && m->contract.kind != stages[at].kind) {
        error_set(err, ERR_MODEL, "%s is not a detector's %s", path,
                  stages[at].name);
        model_free(m);
        return NULL;
    }
    return m;
}

static void close_teacher(struct teacher *t)
{
    detect_scratch_free(t->scratch);
    detector_free(t->detector);
    for (int i = 0; i < DETECTOR_STAGES; i++)
        model_free(t->model[i]);
    memset(t, 0, sizeof(*t));
}

/* A cascade of which the first n_ours are from ours, the rest from theirs. */
static int open_teacher(struct device *dev, const char *ours, int n_ours,
                        const char *theirs, struct teacher *out,
                        struct error *err)
{
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < DETECTOR_STAGES; i++) {
        out->model[i] = load_model(dev, i < n_ours ? ours : theirs,
                                   (enum detector_stage)i, err);
        if (!out->model[i])
            goto fail;
    }
    out->detector =
        detector_new(dev, out->model[0], out->model[1], out->model[2], err);
    if (out->detector)
        out->scratch = detect_scratch_new(out->detector, err);
    if (out->scratch)
        return 0;
fail:
    close_teacher(out);
    return -1;
}

static int output_called(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (strcmp(g->values[g->outputs[i]].name, name) == 0)
            return i;
    return -1;
}

/* --- one stage ------------------------------------------------------------ */

static void close_stage(struct stage *s)
{
    optim_free(s->optim);
    if (s->plan)
        plan_free(s->plan);
    if (s->net)
        network_free(s->net);
    graph_free(s->graph);
    detector_sampler_free(s->sampler);
    if (s->teacher)
        network_free(s->teacher);
    close_teacher(&s->before);
    free(s->pixels);
    free(s->targets);
    free(s->order);
}

static int open_sampler(struct run *r, struct stage *s, struct error *err)
{
    static const char *const names[] = {"prob", "box", "landmarks"};
    const struct graph *g = r->teacher.model[s->at]->graph;
    struct detector_sampler_options o = {
        .stage = s->at, .batch = s->is->batch, .seed = r->o->seed};

    for (int i = 0; i < 3; i++)
        o.teacher_output[i] = output_called(g, names[i]);
    if (s->at != DETECTOR_P && open_teacher(r->one, r->o->out, (int)s->at,
                                            r->o->teacher, &s->before, err))
        return -1;
    s->teacher = network_new(r->dev, g, err);
    if (!s->teacher)
        return -1;
    o.before = s->before.scratch;
    o.teacher = s->teacher;
    s->sampler = detector_sampler_new(r->photos, &o, err);
    return s->sampler ? 0 : -1;
}

/* From random weights, or from what another run has reached. */
static int open_graph(struct run *r, struct stage *s, struct error *err)
{
    struct arch_options fresh = {.seed = r->o->seed};
    struct model *from;

    if (!r->o->from) {
        s->graph = arch_new(s->is->arch, &fresh, err);
        return s->graph ? 0 : -1;
    }
    from = load_model(r->one, r->o->from, s->at, err);
    if (!from)
        return -1;
    s->graph = graph_dup(from->graph, err);
    memcpy(s->parent, from->id, sizeof(s->parent));
    model_free(from);
    return s->graph ? 0 : -1;
}

static int check_graph(const struct stage *s, struct error *err)
{
    static const char *const names[] = {"prob", "box", "landmarks"};
    int n = s->at == DETECTOR_O ? 3 : 2;

    for (int i = 0; i < n; i++)
        if (output_called(s->graph, names[i]) != i || s->graph->n_outputs != n)
            return error_set(err, ERR_MODEL,
                             "a %s to go on from must be one that "
                             "train-detector has written",
                             s->is->name);
    return 0;
}

static int open_stage(struct run *r, enum detector_stage at, struct stage *s,
                      struct error *err)
{
    const struct stage_table *is = &stages[at];
    struct learn_options learn = {.seed = r->o->seed};
    struct plan_options plan = {.n = is->batch,
                                .h = is->side,
                                .w = is->side,
                                .precision = PRECISION_F32};

    memset(s, 0, sizeof(*s));
    s->is = is;
    s->at = at;
    s->n_steps = r->o->batches[at];
    if (open_graph(r, s, err) || check_graph(s, err) || open_sampler(r, s, err))
        return -1;
    s->net = network_new_learning(r->dev, s->graph, &learn, err);
    s->plan = s->net ? graph_plan(s->net, &plan, err) : NULL;
    if (!s->plan)
        return -1;
    s->optim = optim_new(OPTIM_ADAM, s->net, err);
    if (!s->optim)
        return -1;
    optim_set_epsilon(s->optim, 1e-8);
    s->n_targets = detector_sampler_targets(s->sampler);
    s->pixels = malloc((size_t)is->batch * 3 * (size_t)is->side *
                       (size_t)is->side * sizeof(*s->pixels));
    s->targets = calloc((size_t)s->n_targets, sizeof(*s->targets));
    s->order = calloc((size_t)s->n_targets, sizeof(*s->order));
    if (!s->pixels || !s->targets || !s->order)
        return error_set(err, ERR_NOMEM, "no memory to train a detector");
    return 0;
}

/* Up in a line, down along half a cosine. */
static double rate_at(double highest, int step, int n_steps)
{
    double part = (double)step / n_steps;

    if (part < warm_up)
        return highest * (part / warm_up + 1.0 / n_steps);
    part = (part - warm_up) / (1 - warm_up);
    return highest *
           (last_rate + (1 - last_rate) * 0.5 * (1 + cos(3.14159265 * part)));
}

/* 16-bit numbers were too small, and the loss is scaled down from now on. */
static int left_out(struct stage *s, struct error *err)
{
    return ++s->n_left_out < MOST_LEFT_OUT
               ? 0
               : error_set(err, ERR_TRAINING,
                           "%s, step %d: 16-bit numbers are too small for its "
                           "gradients",
                           s->is->name, s->step);
}

static int update(struct stage *s, struct error *err)
{
    double norm;
    int rc = learn_norm(s->net, 0, &norm, err);

    if (rc)
        return rc > 0 ? left_out(s, err) : -1;
    s->n_left_out = 0;
    if (!isfinite(norm))
        return error_set(err, ERR_TRAINING,
                         "%s, step %d: the gradient is not a number",
                         s->is->name, s->step);
    return optim_step(s->optim, s->rate,
                      norm > most_norm ? most_norm / norm : 1, average_decay,
                      err);
}

static int run_step(struct run *r, struct stage *s, struct detector_loss *loss,
                    struct error *err)
{
    bool points = s->at == DETECTOR_O;
    struct detector_outputs out = {.n = s->is->batch, .cells = s->is->cells};
    struct detector_outputs by = out;

    if (detector_sampler_fill(s->sampler, s->step, s->pixels, s->targets, err))
        return -1;
    memcpy(plan_input(s->plan), s->pixels,
           (size_t)s->is->batch * 3 * (size_t)s->is->side *
               (size_t)s->is->side * sizeof(*s->pixels));
    if (graph_forward(s->plan, err))
        return -1;
    out.prob = (float *)plan_output(s->plan, 0);
    out.box = (float *)plan_output(s->plan, 1);
    out.points = points ? (float *)plan_output(s->plan, 2) : NULL;
    by.prob = plan_gradient(s->plan, 0);
    by.box = plan_gradient(s->plan, 1);
    by.points = points ? plan_gradient(s->plan, 2) : NULL;
    detector_loss(&s->is->loss, &out, s->targets, s->order, &by, loss);
    s->rate = rate_at(r->o->rate, s->step, s->n_steps);
    return learn_clear(s->net, err) || graph_backward(s->plan, err) ||
                   update(s, err)
               ? -1
               : 0;
}

/* --- files -----------------------------------------------------------------
 */

static int publish(struct run *r, struct stage *s, struct error *err)
{
    struct detector_train_report report = {.state = DETECTOR_TRAIN_WRITTEN,
                                           .stage = s->at};
    struct contract c = {.kind = s->is->kind, .crop = CROP_NONE};
    const struct model *teacher = r->teacher.model[s->at];
    struct detector_photos_counts n;
    char path[MOST_PATH];
    struct graph *g;
    int rc;

    detector_photos_count(r->photos, &n);
    snprintf(c.licence, sizeof(c.licence), "Apache-2.0");
    memcpy(c.parent, s->parent, sizeof(c.parent));
    snprintf(c.source, sizeof(c.source),
             "facenetd %s train-detector: %s from %.16s, taught by "
             "%.16s; %d photos, %d backgrounds, %d batches of %d, seed %llu",
             FACENETD_VERSION, s->is->name,
             s->parent[0] ? s->parent : "random weights", teacher->id,
             n.n_photos, n.n_backgrounds, s->step, s->is->batch,
             (unsigned long long)r->o->seed);
    if (contract_parse_scale(&c, "fixed:127.5,128", err) ||
        path_of(r->o->out, s->at, path, err))
        return -1;
    if (learn_get(s->net, LEARN_STATISTICS | LEARN_SLOTS, err))
        return -1;
    g = network_graph(s->net, s->graph, network_learnable(s->net)->average,
                      err);
    if (!g)
        return -1;
    rc = model_save(g, &c, NULL, r->one, path, err);
    graph_free(g);
    if (rc)
        return error_context(err, "%s", path);
    report.path = path;
    report.step = s->step;
    report.n_steps = s->n_steps;
    r->report(r->ctx, &report);
    return 0;
}

/* --- the run ----------------------------------------------------------------
 */

static void add_loss(struct detector_loss *sum, const struct detector_loss *l)
{
    sum->prob += l->prob / REPORT_EVERY;
    sum->box += l->box / REPORT_EVERY;
    sum->points += l->points / REPORT_EVERY;
    sum->agreed += l->agreed / REPORT_EVERY;
    sum->point_error += l->point_error / REPORT_EVERY;
    sum->n_prob += l->n_prob;
    sum->n_box += l->n_box;
    sum->n_points += l->n_points;
}

static int run_steps(struct run *r, struct stage *s, struct error *err)
{
    struct detector_train_report report = {
        .state = DETECTOR_TRAIN_BEGIN, .stage = s->at, .n_steps = s->n_steps};
    double from = now_s();

    r->report(r->ctx, &report);
    report.state = DETECTOR_TRAIN_STEP;
    while (s->step < s->n_steps && !*r->stop) {
        struct detector_loss loss;

        if (run_step(r, s, &loss, err))
            return -1;
        s->step++;
        add_loss(&report.loss, &loss);
        if (s->step % REPORT_EVERY == 0) {
            double now = now_s();

            report.step = s->step;
            report.rate = s->rate;
            report.samples_per_s = REPORT_EVERY * s->is->batch / (now - from);
            detector_photos_count(r->photos, &report.photos);
            r->report(r->ctx, &report);
            memset(&report.loss, 0, sizeof(report.loss));
            from = now;
        }
        if (s->step % WRITE_EVERY == 0 && s->step < s->n_steps &&
            publish(r, s, err))
            return -1;
    }
    return publish(r, s, err);
}

/* why: no card, for another reason than that it cannot be had; or "". */
static int open_device(struct run *r, const char *device, const char *why,
                       struct error *err)
{
    struct train_device_options opt = {
        .device = device, .plugin = r->o->plugin, .n_threads = r->o->n_threads};
    struct detector_train_report report = {.state = DETECTOR_TRAIN_DEVICE};
    char text[TRAIN_DEVICE_TEXT];
    struct error own;

    r->dev = train_device_open(&opt, &own, err);
    if (!r->dev)
        return -1;
    train_device_text(r->dev, PRECISION_F32, *why ? why : own.text, text);
    report.text = text;
    r->report(r->ctx, &report);
    return 0;
}

/* With auto a card that cannot do it is left for the processor. */
static int open_somewhere(struct run *r, enum detector_stage at,
                          struct stage *s, struct error *err)
{
    struct error why;

    if (open_stage(r, at, s, err) == 0)
        return 0;
    if ((r->o->device && strcmp(r->o->device, "auto") != 0) ||
        !train_device_is_card(r->dev) ||
        (err->code != ERR_MODEL && err->code != ERR_DEVICE))
        return -1;
    why = *err;
    close_stage(s);
    memset(s, 0, sizeof(*s));
    r->dev->backend->device_close(r->dev);
    r->dev = NULL;
    return open_device(r, "cpu", why.text, err) || open_stage(r, at, s, err)
               ? -1
               : 0;
}

static int run_stages(struct run *r, struct error *err)
{
    for (int i = 0; i < DETECTOR_STAGES && !*r->stop; i++) {
        struct stage s;
        int rc;

        if (!r->o->stage[i])
            continue;
        rc = open_somewhere(r, (enum detector_stage)i, &s, err);
        if (rc == 0)
            rc = run_steps(r, &s, err);
        close_stage(&s);
        if (rc)
            return -1;
    }
    return 0;
}

static int check(const struct detector_train_options *o, struct error *err)
{
    if (!o->data_dir || !o->teacher || !o->out)
        return error_set(err, ERR_BAD_FIELD,
                         "photos, a teacher and a folder to write to are "
                         "needed");
    for (int i = 0; i < DETECTOR_STAGES; i++)
        if (o->batches[i] < 1)
            return error_set(err, ERR_BAD_FIELD, "%d batches: at least 1",
                             o->batches[i]);
    if (!(o->rate > 0 && o->rate <= 1))
        return error_set(err, ERR_BAD_FIELD,
                         "learning rate %g: above 0, at most 1", o->rate);
    if (mkdir(o->out, 0777) && errno != EEXIST)
        return error_set(err, ERR_FILE, "%s: %s", o->out, strerror(errno));
    return 0;
}

int detector_train(const struct detector_train_options *o,
                   detector_train_fn report, void *ctx,
                   const volatile sig_atomic_t *stop, bool *stopped,
                   struct error *err)
{
    struct device_options one = {.n_threads = 1};
    struct run r = {.o = o, .report = report, .ctx = ctx, .stop = stop};
    int rc = -1;

    *stopped = false;
    if (check(o, err))
        return -1;
    r.one = backend_cpu.device_open(&one, err);
    if (r.one && open_device(&r, o->device, "", err) == 0 &&
        open_teacher(r.one, NULL, 0, o->teacher, &r.teacher, err) == 0)
        r.photos = detector_photos_new(o->data_dir, o->backgrounds,
                                       r.teacher.scratch, err);
    if (r.photos)
        rc = run_stages(&r, err);
    *stopped = rc == 0 && *stop;
    detector_photos_free(r.photos);
    close_teacher(&r.teacher);
    if (r.one)
        backend_cpu.device_close(r.one);
    if (r.dev)
        r.dev->backend->device_close(r.dev);
    return rc;
}
