/* core/train/train_guard.c - what keeps a run from wasting a night or from
 * publishing a worse model: a dry check before it, a watch on every batch, a
 * verdict at the end. */
#include "core/train/train_priv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/engine/tensor.h"
#include "core/train/random.h"

enum {
    CHECK_BATCHES = 3,
    MOST_FLAT = 20,     /* batches in a row */
    MOST_STUCK = 300,   /* batches in a row */
    MOST_LEFT_OUT = 40, /* batches in a row: each halves a scale of gradients */
    TELL_LEFT_OUT = 5,  /* times */
    NORM_WINDOW = 50    /* batches that the moving mean forgets in */
};
/* Mean squared distance within a batch, of 0 to 4: below `same` the network
 * gives one vector for every face, below `flat` it is about to. */
static const double same = 1e-8, flat = 1e-4, close_by = 0.02;
/* Strangers closer than this on average: distances are rounding, whatever
 * order they still have. Networks that tell people apart have 1.5 to 2. */
static const double collapsed = 0.05;
static const double near_alpha = 0.01; /* part of alpha */
static const double wild = 50;         /* times the usual gradient */

/* ---- before -------------------------------------------------------------- */

/* The nearest folder above path that is there already. */
static int free_bytes(const char *path, double *out)
{
    char part[TRAIN_MAX_PATH];
    struct statvfs fs;

    snprintf(part, sizeof(part), "%s", path);
    while (statvfs(part, &fs)) {
        char *slash = strrchr(part, '/');

        if (!slash)
            snprintf(part, sizeof(part), ".");
        else if (slash == part)
            part[1] = '\0';
        else
            *slash = '\0';
        if (strcmp(part, ".") == 0 || strcmp(part, "/") == 0)
            return statvfs(part, &fs)
                       ? -1
                       : (*out = (double)fs.f_bavail * (double)fs.f_frsize, 0);
    }
    *out = (double)fs.f_bavail * (double)fs.f_frsize;
    return 0;
}

/* Checkpoints are written beside the one that they replace, hence one more;
 * then the model. */
static int check_disk(const struct train *t, struct error *err)
{
    double need = (CHECKPOINT_KEEP + 1) * (double)train_state_bytes(t) +
                  (double)t->learn->n_weights * sizeof(float);
    double have;

    if (free_bytes(t->a->models_base_dir, &have) || have >= need)
        return 0;
    return error_set(err, ERR_STORAGE_FULL,
                     "models_base_dir: %.0f MiB are free in '%.100s', %.0f "
                     "are needed for checkpoints and the model",
                     have / 1048576, t->a->models_base_dir, need / 1048576);
}

/* Not after a night of training. */
static int check_output(const struct train *t, struct error *err)
{
    const char *path = t->a->output, *slash = strrchr(path, '/');
    char dir[TRAIN_ARG_MAX];
    struct stat st;

    if (!path[0])
        return 0;
    snprintf(dir, sizeof(dir), "%.*s", slash > path ? (int)(slash - path) : 1,
             slash ? path : ".");
    if (access(dir, W_OK | X_OK))
        return error_set(err, ERR_FILE, "output: folder '%.100s': %s", dir,
                         strerror(errno));
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(err, ERR_FILE,
                         "output: '%.120s' is there, and is no "
                         "file",
                         path);
    return 0;
}

static double available_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    double kib = -1;

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

/* Only a warning: what the system may take back is a guess. */
static void check_memory(const struct train *t)
{
    double need = (double)train_state_bytes(t) + t->a->memory_mib * 1048576.0;
    double have = available_bytes();

    if (!train_device_is_card(t->dev))
        need += (double)t->plan->info.bytes_activations +
                (double)t->plan->info.bytes_scratch +
                (double)t->rest->info.bytes_activations;
    if (have >= 0 && have < need)
        train_report_warn(t,
                          "about %.0f MiB of memory may be needed, %.0f are "
                          "available: take a smaller batch_size or "
                          "memory_mib",
                          need / 1048576, have / 1048576);
}

static int check_batch(struct train *t, int i, double *spread,
                       struct error *err)
{
    uint64_t random = train_seed(t, TRAIN_SEED_CHECK, i);
    double loss;
    int *photos = malloc((size_t)t->n_batch * sizeof(*photos)), rc;

    if (!photos)
        return error_set(err, ERR_NOMEM, "no memory for a batch");
    for (int k = 0; k < t->n_batch; k++)
        photos[k] = random_below(&random, t->data.n_photos);
    rc = train_step_try(t, photos, &loss, spread, err);
    free(photos);
    if (rc)
        return -1;
    if (!isfinite(loss) || !isfinite(t->gradient_norm) || !isfinite(*spread))
        return error_set(err, ERR_TRAINING,
                         "before the first step: loss %g, gradient norm %g, "
                         "mean pairwise distance %g",
                         loss, t->gradient_norm, *spread);
    return 0;
}

/* A few batches there and back, which leave no trace in the network. */
static int check_batches(struct train *t, struct error *err)
{
    size_t n = t->learn->n_statistics;
    float *kept = tensor_alloc(n + 1);
    uint64_t random = t->learn->random;
    double spread = 0, widest = 0;
    int rc = 0;

    if (!kept)
        return error_set(err, ERR_NOMEM, "no memory for statistics");
    if (learn_get(t->net, LEARN_STATISTICS, err)) {
        free(kept);
        return -1;
    }
    memcpy(kept, t->learn->statistics, n * sizeof(*kept));
    for (int i = 0; rc == 0 && i < CHECK_BATCHES; i++) {
        rc = train_stopping(t, err) || check_batch(t, i, &spread, err);
        train_report_failures(t, t->loader, &t->n_told);
        widest = spread > widest ? spread : widest;
    }
    memcpy(t->learn->statistics, kept, n * sizeof(*kept));
    t->learn->random = random;
    free(kept);
    if (rc || learn_put(t->net, LEARN_STATISTICS, err))
        return -1;
    return widest > same
               ? 0
               : error_set(err, ERR_TRAINING,
                           "the network gives one vector for every face: "
                           "mean pairwise distance %.2g",
                           widest);
}

int train_guard_before(struct train *t, struct error *err)
{
    if (check_output(t, err) || check_disk(t, err))
        return -1;
    check_memory(t);
    return check_batches(t, err);
}

/* ---- during -------------------------------------------------------------- */

static void watch_norm(struct train *t)
{
    double norm = t->gradient_norm;

    if (t->at.norm > 0 && t->at.step > NORM_WINDOW && norm > wild * t->at.norm)
        train_report_warn(t,
                          "batch %lld: the gradient's norm is %.3g, usually "
                          "%.3g",
                          (long long)t->at.step, norm, t->at.norm);
    if (t->at.norm <= 0)
        t->at.norm = norm;
    t->at.norm += (norm - t->at.norm) / NORM_WINDOW;
}

int train_guard_left_out(struct train *t, struct error *err)
{
    if (!isfinite(t->loss))
        return error_set(err, ERR_TRAINING, "batch %lld: loss %g in %s",
                         (long long)t->at.step, t->loss,
                         precision_name(t->plan->info.precision));
    if (++t->n_left_out >= MOST_LEFT_OUT)
        return error_set(err, ERR_TRAINING,
                         "batch %lld: for %d batches %s was too small for the "
                         "gradients; take precision bf16, tf32 or f32",
                         (long long)t->at.step, MOST_LEFT_OUT,
                         precision_name(t->plan->info.precision));
    if (t->n_left_out_told++ < TELL_LEFT_OUT)
        train_report_warn(t,
                          "batch %lld: its gradients are too large for %s; it "
                          "is left out, and the next are scaled down",
                          (long long)t->at.step,
                          precision_name(t->plan->info.precision));
    return 0;
}

int train_guard_watch(struct train *t, struct error *err)
{
    double alpha = t->a->alpha;
    bool stuck; /* a teacher's loss has another place to stick at */

    if (!isfinite(t->loss) || !isfinite(t->gradient_norm))
        return error_set(err, ERR_TRAINING,
                         "batch %lld: loss %g, gradient norm %g; a lower "
                         "learning_rate than %g may help",
                         (long long)t->at.step, t->loss, t->gradient_norm,
                         t->rate);
    watch_norm(t);
    t->at.n_flat = t->spread < flat ? t->at.n_flat + 1 : 0;
    stuck = t->rounds && !t->teacher && t->spread < close_by &&
            fabs(t->loss - alpha) < near_alpha * alpha;
    t->at.n_stuck = stuck ? t->at.n_stuck + 1 : 0;
    if (t->at.n_flat >= MOST_FLAT)
        return error_set(err, ERR_TRAINING,
                         "collapse at batch %lld: all vectors became one, "
                         "mean pairwise distance %.2g for %d batches, loss "
                         "%.4g",
                         (long long)t->at.step, t->spread, MOST_FLAT, t->loss);
    if (t->at.n_stuck >= MOST_STUCK)
        return error_set(err, ERR_TRAINING,
                         "collapse at batch %lld: the loss stays at alpha, "
                         "%.4g for %d batches, mean pairwise distance %.2g",
                         (long long)t->at.step, t->loss, MOST_STUCK, t->spread);
    return 0;
}

/* ---- after --------------------------------------------------------------- */

static void add(char *text, size_t len, const char *what, bool compare,
                double before, double after)
{
    size_t n = strlen(text);
    const char *join = n ? "; " : "";

    if (compare)
        snprintf(text + n, len - n, "%s%s: %.4f before, %.4f after", join, what,
                 before, after);
    else
        snprintf(text + n, len - n, "%s%s: %.4f", join, what, after);
}

/* By more than is allowed; a figure that is none has fallen too. */
static bool fell(double before, double after, double allowed)
{
    const double rounding = 1e-12;

    return !(before - after <= allowed + rounding);
}

bool train_guard_worse(const struct train *t, const struct train_result *after,
                       char *text, size_t len)
{
    const struct train_result *before = &t->at.before;
    bool held = t->at.have_before && before->held.there;
    bool lfw = t->at.have_before && before->lfw.there;
    const struct train_figures *far_apart =
        after->held.there ? &after->held : &after->lfw;
    bool worse = far_apart->there && !(far_apart->apart >= collapsed);
    char what[80];

    text[0] = '\0';
    if (worse)
        add(text, len, "collapse, mean distance of strangers", false, 0,
            far_apart->apart);
    if (after->held.there) {
        snprintf(what, sizeof(what), "VAL at FAR %g on held-out people",
                 t->a->guard_far);
        add(text, len, what, held, before->held.guard_val,
            after->held.guard_val);
        worse =
            worse || (held && fell(before->held.guard_val,
                                   after->held.guard_val, t->a->guard_loss));
    }
    if (after->lfw.there) {
        add(text, len, "LFW accuracy", lfw, before->lfw.accuracy,
            after->lfw.accuracy);
        worse = worse || (lfw && fell(before->lfw.accuracy, after->lfw.accuracy,
                                      t->a->guard_lfw_loss));
    }
    return worse;
}
