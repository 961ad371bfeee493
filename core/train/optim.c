/* core/train/optim.c - what an update rule keeps beside the weights, and the
 * numbers of one step; learn_rule.h has the rules themselves. */
#include "core/train/optim.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/graph.h"
#include "core/engine/learn_rule.h"

enum {
    MAX_LINE = 256
};

struct optim {
    struct network *net;
    enum optimizer rule;
    long long steps;
    float epsilon; /* ADAM's */
};

static const char *const names[OPTIM_COUNT] = {
    [OPTIM_ADAGRAD] = "ADAGRAD", [OPTIM_ADADELTA] = "ADADELTA",
    [OPTIM_ADAM] = "ADAM",       [OPTIM_RMSPROP] = "RMSPROP",
    [OPTIM_MOM] = "MOM",
};

const char *optim_name(enum optimizer o)
{
    return names[o];
}

int optim_parse(const char *name, enum optimizer *o, struct error *err)
{
    for (int i = 0; i < OPTIM_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *o = (enum optimizer)i;
            return 0;
        }
    return error_set(err, ERR_BAD_FIELD,
                     "optimizer '%.40s' is unknown; ADAGRAD, ADADELTA, ADAM, "
                     "RMSPROP and MOM are known",
                     name);
}

/* Slots and average in host memory. */
static int make_arrays(struct optim *o, struct error *err)
{
    struct learnable *l = network_learnable(o->net);
    size_t n = l->n_weights;

    for (int k = 0; k < learn_slots(o->rule); k++) {
        l->slots[k] = tensor_alloc(n + 1);
        for (size_t i = 0; l->slots[k] && i < n; i++)
            l->slots[k][i] = learn_slot_first(o->rule, k);
    }
    l->average = tensor_alloc(n + 1);
    if (!l->average || !l->slots[learn_slots(o->rule) - 1] || !l->slots[0])
        return error_set(err, ERR_NOMEM,
                         "no memory for an optimiser of %zu weights", n);
    memcpy(l->average, l->weights, n * sizeof(*l->average));
    return 0;
}

struct optim *optim_new(enum optimizer rule, struct network *net,
                        struct error *err)
{
    struct optim *o = calloc(1, sizeof(*o));

    if (!o)
        return error_null(err, ERR_NOMEM, "no memory for an optimiser");
    o->net = net;
    o->rule = rule;
    o->epsilon = 0.1f;
    if (!learn_get(net, LEARN_WEIGHTS, err) && !make_arrays(o, err) &&
        !learn_put(net, LEARN_SLOTS, err))
        return o;
    optim_free(o);
    return NULL;
}

void optim_free(struct optim *o)
{
    struct learnable *l = o ? network_learnable(o->net) : NULL;

    if (!o)
        return;
    for (int k = 0; k < LEARN_MAX_SLOTS; k++) {
        free(l->slots[k]);
        l->slots[k] = NULL;
    }
    free(l->average);
    l->average = NULL;
    free(o);
}

void optim_set_epsilon(struct optim *o, double epsilon)
{
    o->epsilon = (float)epsilon;
}

int optim_step(struct optim *o, double rate, double scale, double decay,
               struct error *err)
{
    double ramp = (1 + (double)o->steps) / (10 + (double)o->steps);
    double t = (double)++o->steps;
    struct learn_update u = {
        .rule = o->rule, .scale = (float)scale, .epsilon = o->epsilon};

    if (o->rule == OPTIM_ADAM)
        rate = rate * sqrt(1 - pow(0.999, t)) / (1 - pow(0.9, t));
    u.rate = (float)rate;
    u.average = (float)(1 - (decay < ramp ? decay : ramp));
    return learn_update(o->net, &u, err);
}

long long optim_steps(const struct optim *o)
{
    return o->steps;
}

void optim_set_steps(struct optim *o, long long steps)
{
    o->steps = steps;
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
