/* core/train/optim.c - TensorFlow 1's update rules, element by element, with
 * the constants that the training script passes or leaves at their defaults:
 * train/training_ops.cc is the reference for each. */
#include "core/train/optim.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/tensor.h"

enum {
    MAX_LINE = 256
};

struct optim {
    enum optimizer rule;
    size_t n;
    int n_slots;
    float *slots[LEARN_MAX_SLOTS];
    long long steps;
    float epsilon; /* ADAM's */
};

/* What the slots of a rule begin with. RMSProp's mean square starts at one in
 * TensorFlow, which makes its first steps small. */
static const struct {
    const char *name;
    int n_slots;
    float first[LEARN_MAX_SLOTS];
} rules[] = {
    [OPTIM_ADAGRAD] = {"ADAGRAD", 1, {0.1f, 0}},
    [OPTIM_ADADELTA] = {"ADADELTA", 2, {0, 0}},
    [OPTIM_ADAM] = {"ADAM", 2, {0, 0}},
    [OPTIM_RMSPROP] = {"RMSPROP", 2, {1, 0}},
    [OPTIM_MOM] = {"MOM", 1, {0, 0}},
};

const char *optim_name(enum optimizer o)
{
    return rules[o].name;
}

int optim_parse(const char *name, enum optimizer *o, struct error *err)
{
    for (int i = 0; i < OPTIM_COUNT; i++)
        if (strcmp(name, rules[i].name) == 0) {
            *o = (enum optimizer)i;
            return 0;
        }
    return error_set(err, ERR_BAD_FIELD,
                     "optimizer '%.40s' is unknown; ADAGRAD, ADADELTA, ADAM, "
                     "RMSPROP and MOM are known",
                     name);
}

struct optim *optim_new(enum optimizer rule, size_t n, struct error *err)
{
    struct optim *o = calloc(1, sizeof(*o));

    if (!o)
        return error_null(err, ERR_NOMEM, "no memory for an optimiser");
    o->rule = rule;
    o->epsilon = 0.1f;
    o->n = n;
    o->n_slots = rules[rule].n_slots;
    for (int k = 0; k < o->n_slots; k++) {
        o->slots[k] = tensor_alloc(n);
        if (!o->slots[k]) {
            optim_free(o);
            return error_null(err, ERR_NOMEM,
                              "no memory for an optimiser of %zu weights", n);
        }
        for (size_t i = 0; i < n; i++)
            o->slots[k][i] = rules[rule].first[k];
    }
    return o;
}

void optim_set_epsilon(struct optim *o, double epsilon)
{
    o->epsilon = (float)epsilon;
}

void optim_free(struct optim *o)
{
    if (!o)
        return;
    for (int k = 0; k < o->n_slots; k++)
        free(o->slots[k]);
    free(o);
}

static void adagrad(struct optim *o, float *w, const float *g, float rate)
{
    float *sum = o->slots[0];

    for (size_t i = 0; i < o->n; i++) {
        sum[i] += g[i] * g[i];
        w[i] -= rate * g[i] / sqrtf(sum[i]);
    }
}

static void adadelta(struct optim *o, float *w, const float *g, float rate)
{
    const float rho = 0.9f, epsilon = 1e-6f;
    float *sum = o->slots[0], *moved = o->slots[1];

    for (size_t i = 0; i < o->n; i++) {
        float move;

        sum[i] = rho * sum[i] + (1 - rho) * g[i] * g[i];
        move = sqrtf(moved[i] + epsilon) / sqrtf(sum[i] + epsilon) * g[i];
        moved[i] = rho * moved[i] + (1 - rho) * move * move;
        w[i] -= rate * move;
    }
}

static void adam(struct optim *o, float *w, const float *g, double rate)
{
    const float b1 = 0.9f, b2 = 0.999f, epsilon = o->epsilon;
    double t = (double)o->steps;
    float corrected =
        (float)(rate * sqrt(1 - pow(0.999, t)) / (1 - pow(0.9, t)));
    float *mean = o->slots[0], *square = o->slots[1];

    for (size_t i = 0; i < o->n; i++) {
        mean[i] = b1 * mean[i] + (1 - b1) * g[i];
        square[i] = b2 * square[i] + (1 - b2) * g[i] * g[i];
        w[i] -= corrected * mean[i] / (sqrtf(square[i]) + epsilon);
    }
}

static void rmsprop(struct optim *o, float *w, const float *g, float rate)
{
    const float decay = 0.9f, momentum = 0.9f, epsilon = 1.0f;
    float *square = o->slots[0], *move = o->slots[1];

    for (size_t i = 0; i < o->n; i++) {
        square[i] = decay * square[i] + (1 - decay) * g[i] * g[i];
        move[i] = momentum * move[i] + rate * g[i] / sqrtf(square[i] + epsilon);
        w[i] -= move[i];
    }
}

static void nesterov(struct optim *o, float *w, const float *g, float rate)
{
    const float momentum = 0.9f;
    float *sum = o->slots[0];

    for (size_t i = 0; i < o->n; i++) {
        sum[i] = momentum * sum[i] + g[i];
        w[i] -= rate * (g[i] + momentum * sum[i]);
    }
}

void optim_step(struct optim *o, float *weights, const float *gradients,
                double rate)
{
    o->steps++;
    switch (o->rule) {
    case OPTIM_ADAGRAD:
        adagrad(o, weights, gradients, (float)rate);
        break;
    case OPTIM_ADADELTA:
        adadelta(o, weights, gradients, (float)rate);
        break;
    case OPTIM_ADAM:
        adam(o, weights, gradients, rate);
        break;
    case OPTIM_RMSPROP:
        rmsprop(o, weights, gradients, (float)rate);
        break;
    case OPTIM_MOM:
        nesterov(o, weights, gradients, (float)rate);
        break;
    case OPTIM_COUNT:
        break;
    }
}

int optim_slots(struct optim *o, float *slots[LEARN_MAX_SLOTS])
{
    for (int k = 0; k < o->n_slots; k++)
        slots[k] = o->slots[k];
    return o->n_slots;
}

long long optim_steps(const struct optim *o)
{
    return o->steps;
}

void optim_set_steps(struct optim *o, long long steps)
{
    o->steps = steps;
}

double optim_norm(const float *x, size_t n)
{
    double sum = 0;

    /* One thread: the order of a sum is its value. */
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

void optim_average(float *average, const float *weights, size_t n, double decay,
                   long long step)
{
    double ramp = (1 + (double)step) / (10 + (double)step);
    float part = (float)(1 - (decay < ramp ? decay : ramp));

    for (size_t i = 0; i < n; i++)
        average[i] += part * (weights[i] - average[i]);
}

double optim_decayed_rate(double rate, double factor, int decay_epochs,
                          int epoch_size, long long step)
{
    long long stairs = step / ((long long)decay_epochs * epoch_size);

    return rate * pow(factor, (double)stairs);
}

/* ---- schedule files --------------------------------------------------- */

static char *trim(char *s)
{
    size_t n;

    s += strspn(s, " \t\r\n");
    n = strlen(s);
    while (n > 0 && strchr(" \t\r\n", s[n - 1]))
        s[--n] = '\0';
    return s;
}

/* "epoch: rate" into the next line; 0 for nothing on it. */
static int parse_line(char *text, struct schedule *s, const char *path, int at,
                      struct error *err)
{
    char *hash = strchr(text, '#'), *colon, *end;
    struct schedule_line *line = &s->lines[s->n];
    long epoch;

    if (hash)
        *hash = '\0';
    text = trim(text);
    if (!*text)
        return 0;
    if (s->n == (int)(sizeof(s->lines) / sizeof(s->lines[0])))
        return error_set(err, ERR_BAD_FIELD,
                         "'%.100s', line %d: more than %d rates", path, at,
                         s->n);
    colon = strchr(text, ':');
    if (!colon)
        return error_set(err, ERR_BAD_FIELD,
                         "'%.100s', line %d: 'epoch: rate' was expected", path,
                         at);
    *colon = '\0';
    text = trim(text);
    errno = 0;
    epoch = strtol(text, &end, 10);
    if (end == text || *end || errno || epoch < 0 || epoch > 1000000)
        return error_set(err, ERR_BAD_FIELD,
                         "'%.100s', line %d: '%.20s' is no epoch", path, at,
                         text);
    if (s->n > 0 && epoch <= line[-1].epoch)
        return error_set(err, ERR_BAD_FIELD,
                         "'%.100s', line %d: epoch %ld does not come after %d",
                         path, at, epoch, line[-1].epoch);
    text = trim(colon + 1);
    line->rate = strtod(text, &end);
    line->epoch = (int)epoch;
    if (end == text || *end || !isfinite(line->rate) ||
        !(line->rate > 0 || line->rate == -1) || line->rate > 100)
        return error_set(err, ERR_BAD_FIELD,
                         "'%.100s', line %d: '%.20s' is no rate above 0 and "
                         "up to 100, nor -1",
                         path, at, text);
    s->n++;
    return 0;
}

int schedule_load(const char *path, struct schedule *out, struct error *err)
{
    char line[MAX_LINE];
    FILE *f = fopen(path, "re");
    int at = 0, rc = 0;

    out->n = 0;
    if (!f)
        return error_set(err, ERR_FILE, "'%.150s': %s", path, strerror(errno));
    while (!rc && fgets(line, sizeof(line), f)) {
        at++;
        if (strlen(line) == sizeof(line) - 1 && !strchr(line, '\n'))
            rc = error_set(err, ERR_BAD_FIELD,
                           "'%.100s', line %d: over %d characters", path, at,
                           MAX_LINE - 2);
        else
            rc = parse_line(line, out, path, at, err);
    }
    if (!rc && ferror(f))
        rc = error_set(err, ERR_FILE, "'%.150s' cannot be read", path);
    fclose(f);
    if (!rc && out->n == 0)
        rc = error_set(err, ERR_BAD_FIELD, "'%.150s' holds no rate", path);
    if (!rc && out->lines[0].epoch > 1)
        rc = error_set(err, ERR_BAD_FIELD,
                       "'%.150s' has no rate for the first epoch", path);
    return rc;
}

double schedule_rate(const struct schedule *s, int epoch)
{
    double rate = s->lines[0].rate;

    for (int i = 0; i < s->n && s->lines[i].epoch <= epoch; i++)
        rate = s->lines[i].rate;
    return rate;
}
