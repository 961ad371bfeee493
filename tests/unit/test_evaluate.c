/* tests/unit/test_evaluate.c - the LFW protocol against worked answers and
 * against a plain count of every threshold; the readers of pair lists. */
#include "core/train/evaluate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NEAR(a, b, tolerance)                                                  \
    do {                                                                       \
        double a_ = (a), b_ = (b);                                             \
        if (!(fabs(a_ - b_) <= (tolerance)))                                   \
            fail_msg("%s is %.9g, %.9g was expected", #a, a_, b_);             \
    } while (0)

/* --- figures ------------------------------------------------------------- */

/* Two folds that mirror each other: everything can be done by hand. In each
 * fold same 0.20, 0.40, 1.50 and different 1.00, 2.00, 3.00. */
static void test_worked(void **state)
{
    const double d[] = {0.20, 0.40, 1.50, 1.00, 2.00, 3.00,
                        0.20, 0.40, 1.50, 1.00, 2.00, 3.00};
    const bool same[] = {1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0};
    const int fold[] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1};
    struct evaluation e;
    struct error err = {0};

    (void)state;
    assert_int_equal(evaluate_pairs(d, same, fold, 12, 2, 0.5, &e, &err), 0);
    /* 5 of 6 are right from just above 0.40 up to 1.00, and from above 1.50
     * to 2.00; the lowest is taken. */
    NEAR(e.accuracy, 5.0 / 6, 1e-12);
    NEAR(e.accuracy_std, 0, 1e-9);
    NEAR(e.threshold, 0.41, 1e-12);
    /* The other fold accepts 1/3 up to 2.000 and 2/3 at 2.001: one half lies
     * in the middle. Below 2.0005 are all same and two different. */
    NEAR(e.val_threshold, 2.0005, 1e-9);
    NEAR(e.val, 1, 1e-12);
    NEAR(e.far, 2.0 / 3, 1e-12);
    /* Of the 9 (same, different) couples 8 are in order. */
    NEAR(e.auc, 8.0 / 9, 1e-12);
    NEAR(e.eer, 1.0 / 3, 1e-12);
    assert_int_equal(e.n_genuine, 6);
    assert_int_equal(e.n_impostor, 6);
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

enum {
    N = 3000,
    FOLDS = 10
};

static void make_pairs(double *d, bool *same, int *fold, uint64_t seed)
{
    for (int i = 0; i < N; i++) {
        double u = (double)(next_random(&seed) >> 11) / 9007199254740992.0;
        double v = (double)(next_random(&seed) >> 11) / 9007199254740992.0;
        fold[i] = i * FOLDS / N;
        same[i] = i % (N / FOLDS) < N / FOLDS / 2;
        d[i] = (same[i] ? 0.6 : 1.9) + 1.2 * (u + v - 1);
        if (i % 7 == 0) /* equal distances, on the grid of thresholds */
            d[i] = floor(d[i] * 100) / 100;
        d[i] = d[i] < 0 ? 0 : d[i];
        if (i % 53 == 0)
            d[i] = NAN;
    }
}

/* Rates below t over the folds but one, or over that one alone. */
static void count(const double *d, const bool *same, const int *fold, int k,
                  bool others, double t, double *tpr, double *fpr, double *acc)
{
    int n_same = 0, n_other = 0, hit = 0, slip = 0;

    for (int i = 0; i < N; i++) {
        if (isnan(d[i]) || (fold[i] == k) == others)
            continue;
        n_same += same[i];
        n_other += !same[i];
        hit += same[i] && d[i] < t;
        slip += !same[i] && d[i] < t;
    }
    *tpr = (double)hit / n_same;
    *fpr = (double)slip / n_other;
    *acc = (double)(hit + n_other - slip) / (n_same + n_other);
}

static void brute(const double *d, const bool *same, const int *fold,
                  double far, struct evaluation *e)
{
    double acc[FOLDS], val[FOLDS], fars[FOLDS], tpr, fpr, a;

    memset(e, 0, sizeof(*e));
    for (int k = 0; k < FOLDS; k++) {
        double best = -1, at = 0, before = 0, t = 0;
        for (int i = 0; i < 400; i++) {
            count(d, same, fold, k, true, i * 0.01, &tpr, &fpr, &a);
            if (a > best) {
                best = a;
                at = i * 0.01;
            }
        }
        count(d, same, fold, k, false, at, &tpr, &fpr, &acc[k]);
        e->accuracy += acc[k] / FOLDS;
        e->threshold += at / FOLDS;
        for (int i = 1; i < 4000 && t == 0; i++) {
            count(d, same, fold, k, true, i * 0.001, &tpr, &fpr, &a);
            if (fpr >= far)
                t = (i - 1) * 0.001 + 0.001 * (far - before) / (fpr - before);
            before = fpr;
        }
        count(d, same, fold, k, false, t, &val[k], &fars[k], &a);
        e->val += val[k] / FOLDS;
        e->far += fars[k] / FOLDS;
        e->val_threshold += t / FOLDS;
    }
    for (int k = 0; k < FOLDS; k++) {
        e->accuracy_std += pow(acc[k] - e->accuracy, 2) / FOLDS;
        e->val_std += pow(val[k] - e->val, 2) / FOLDS;
    }
    e->accuracy_std = sqrt(e->accuracy_std);
    e->val_std = sqrt(e->val_std);
}

static double brute_auc(const double *d, const bool *same)
{
    double right = 0, all = 0;

    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (same[i] && !same[j] && !isnan(d[i]) && !isnan(d[j])) {
                all++;
                right += d[i] < d[j] ? 1 : d[i] == d[j] ? 0.5 : 0;
            }
    return right / all;
}

static void test_against_count(void **state)
{
    static double d[N];
    static bool same[N];
    static int fold[N];

    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        const double far = seed == 1 ? 1e-2 : 5e-3;
        struct evaluation e, want;
        struct error err = {0};
        double fpr = 0, fnr = 1;
        make_pairs(d, same, fold, seed * 7919);
        assert_int_equal(evaluate_pairs(d, same, fold, N, FOLDS, far, &e, &err),
                         0);
        brute(d, same, fold, far, &want);
        NEAR(e.accuracy, want.accuracy, 1e-12);
        NEAR(e.accuracy_std, want.accuracy_std, 1e-7);
        NEAR(e.threshold, want.threshold, 1e-9);
        NEAR(e.val, want.val, 1e-12);
        NEAR(e.val_std, want.val_std, 1e-7);
        NEAR(e.far, want.far, 1e-12);
        NEAR(e.val_threshold, want.val_threshold, 1e-9);
        NEAR(e.auc, brute_auc(d, same), 1e-9);
        /* At no threshold may both rates be better than the EER. */
        for (int i = 0; i < 4000; i++) {
            double tpr, a;
            count(d, same, fold, -1, true, i * 0.001, &tpr, &fpr, &a);
            fnr = 1 - tpr;
            assert_false(fpr < e.eer - 1e-3 && fnr < e.eer - 1e-3);
        }
        assert_true(e.eer > 0 && e.eer < 0.5);
    }
}

static void test_refusals(void **state)
{
    const double d[] = {0.1, 2.0, 0.2, 2.1};
    const double nan[] = {NAN, NAN, NAN, NAN};
    const bool same[] = {1, 0, 1, 0}, all[] = {1, 1, 1, 1};
    const int fold[] = {0, 0, 1, 1}, wrong[] = {0, 0, 1, 2};
    const int lumped[] = {0, 1, 0, 1};
    struct evaluation e;
    struct error err;

    (void)state;
    assert_int_equal(evaluate_pairs(d, same, fold, 4, 2, 1e-3, &e, &err), 0);
    /* Fold 1 gets 0.11 from fold 0, and so misses 0.2. */
    NEAR(e.accuracy, 0.75, 0);
    assert_int_equal(evaluate_pairs(d, same, fold, 4, 1, 1e-3, &e, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_int_equal(evaluate_pairs(d, same, wrong, 4, 2, 1e-3, &e, &err), -1);
    assert_int_equal(evaluate_pairs(d, all, fold, 4, 2, 1e-3, &e, &err), -1);
    assert_int_equal(evaluate_pairs(nan, same, fold, 4, 2, 1e-3, &e, &err), -1);
    assert_int_equal(evaluate_pairs(d, same, lumped, 4, 2, 1e-3, &e, &err), -1);
    assert_non_null(strstr(err.text, "fold"));
    assert_int_equal(evaluate_pairs(d, same, fold, 4, 2, 0, &e, &err), -1);
    assert_int_equal(evaluate_pairs(d, same, fold, 4, 2, NAN, &e, &err), -1);
    assert_int_equal(evaluate_pairs(d, same, fold, 0, 2, 1e-3, &e, &err), -1);
}

static void test_threshold(void **state)
{
    double d[1000], t;
    double ties[] = {1, 1, 1, 2};
    int64_t n;

    (void)state;
    for (int i = 0; i < 1000; i++)
        d[i] = 4.0 - (i + 1) * 0.004; /* from 0.000 up, unsorted */
    t = evaluate_threshold(d, 1000, 1e-2, &n);
    assert_int_equal(n, 10);
    NEAR(t, 0.038, 1e-9);
    t = evaluate_threshold(d, 1000, 1e-4, &n);
    assert_int_equal(n, 0);
    NEAR(t, 0, 1e-9);
    t = evaluate_threshold(d, 1000, 1, &n);
    assert_int_equal(n, 1000);
    NEAR(t, 4, 0);
    /* Half would be two, but the third is equal to them. */
    t = evaluate_threshold(ties, 4, 0.5, &n);
    assert_int_equal(n, 0);
    NEAR(t, 0.5, 0);
    t = evaluate_threshold(ties, 4, 0.75, &n);
    assert_int_equal(n, 3);
    NEAR(t, 1.5, 0);
    t = evaluate_threshold(NULL, 0, 0.5, &n);
    assert_int_equal(n, 0);
}

/* --- from embeddings
 * -------------------------------------------------------- */

enum {
    N_ROWS = 80,
    N_LISTED = 40,
    N_DIM = 3
};

/* People of four photos each, near one another on the unit sphere; pairs of
 * the same and of different people in turns, in four folds. */
static void make_rows(float *rows, struct pair *pairs)
{
    for (int i = 0; i < N_ROWS; i++) {
        double v[N_DIM], sum = 0;
        for (int j = 0; j < N_DIM; j++) {
            v[j] =
                sin(1.7 * i * (j + 1) + j) + 1.2 * cos((i / 4) * 2.1 + j) + 0.6;
            sum += v[j] * v[j];
        }
        for (int j = 0; j < N_DIM; j++)
            rows[i * N_DIM + j] = (float)(v[j] / sqrt(sum));
    }
    for (int i = 0; i < N_LISTED; i++) {
        struct pair *p = &pairs[i];
        p->same = i % 2 == 0;
        p->fold = i * 4 / N_LISTED;
        p->photo[0] = p->same ? i / 2 * 4 : i;
        p->photo[1] =
            p->same ? p->photo[0] + 1 + i / 2 % 3 : (i * 7 + 11) % N_ROWS;
    }
}

/* The numbers are those of a plain transcription of the script's
 * validate_on_lfw to Python. */
static void test_script(void **state)
{
    static const struct {
        enum evaluate_metric metric;
        bool mean;
        double accuracy, std, threshold, val, val_std, far;
    } rows[] = {
        {EVALUATE_L2, 0, 0.675, 0.082915620, 0.8625, 0.5, 0.223606798, 0.15},
        {EVALUATE_L2, 1, 0.675, 0.082915620, 0.8625, 0.5, 0.223606798, 0.15},
        {EVALUATE_ANGLE, 0, 0.675, 0.043301270, 0.3025, 0.5, 0.223606798, 0.15},
        {EVALUATE_ANGLE, 1, 0.75, 0.086602540, 0.39, 0.5, 0.223606798, 0.15},
    };
    float embeddings[N_ROWS * N_DIM];
    double own[N_LISTED + 1];
    struct pair list[N_LISTED + 1];
    struct pairs p = {NULL, N_ROWS, list, N_LISTED, 4};
    struct error err = {0};

    (void)state;
    make_rows(embeddings, list);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct evaluate_options opt = {rows[i].metric, rows[i].mean, 0, 0.2};
        struct evaluation e;
        if (evaluate_embeddings(embeddings, N_DIM, &p, &opt, own, &e, &err))
            fail_msg("%s", err.text);
        NEAR(e.accuracy, rows[i].accuracy, 1e-9);
        NEAR(e.accuracy_std, rows[i].std, 1e-7);
        NEAR(e.threshold, rows[i].threshold, 1e-9);
        NEAR(e.val, rows[i].val, 1e-9);
        NEAR(e.val_std, rows[i].val_std, 1e-7);
        NEAR(e.far, rows[i].far, 1e-9);
        assert_int_equal(e.n_genuine, 20);
        /* a photo that is missing takes its pair away */
        list[N_LISTED] = (struct pair){{0, N_ROWS - 1}, true, 0};
        p.n_pairs++;
        for (int j = 0; j < N_DIM; j++)
            embeddings[(N_ROWS - 1) * N_DIM + j] = NAN;
        if (evaluate_embeddings(embeddings, N_DIM, &p, &opt, own, &e, &err))
            fail_msg("%s", err.text);
        assert_true(isnan(own[N_LISTED]));
        p.n_pairs--;
        make_rows(embeddings, list);
    }
}

/* Two folds of a same and a different pair each, on the axes. */
static void test_angles(void **state)
{
    const float rows[] = {1, 0, 0, 1, -1, 0, 0, 2};
    struct pair list[] = {{{1, 3}, true, 0},
                          {{0, 2}, false, 0},
                          {{3, 1}, true, 1},
                          {{0, 1}, false, 1}};
    struct pairs p = {NULL, 4, list, 4, 2};
    struct evaluate_options opt = {.metric = EVALUATE_ANGLE, .far = 0.5};
    struct evaluation e;
    struct error err = {0};
    double own[4];

    (void)state;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), 0);
    NEAR(own[0], 0, 1e-12);
    NEAR(own[1], 1, 1e-12); /* opposite */
    NEAR(own[3], 0.5, 1e-12);
    NEAR(e.accuracy, 1, 1e-12);
    /* squared L2: 1, 4, 1, 2. Fold 1's mean is that of fold 0's photos,
     * (0, 3/4), and cancels out. */
    opt.metric = EVALUATE_L2;
    opt.subtract_mean = true;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), 0);
    NEAR(own[0], 1, 1e-12);
    NEAR(own[1], 4, 1e-12);
    NEAR(own[3], 2, 1e-12);
    /* with it the angles of fold 1: photos 3 and 1 at (0, 1.25) and (0, .25),
     * photos 0 and 1 at (1, -.75) and (0, .25), where cos is -.75 / 1.25 */
    opt.metric = EVALUATE_ANGLE;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), 0);
    NEAR(own[2], 0, 1e-12);
    NEAR(own[3], acos(-0.6) / acos(-1), 1e-9);
    opt.far = 1;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), -1);
    opt.far = 0.5;
    p.n_folds = 1;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
}

/* Distances past 4, of embeddings side by side. */
static void test_range(void **state)
{
    const float rows[] = {0, 0, 2.2f, 0, 2.7f, 0};
    struct pair list[] = {{{0, 1}, true, 0},
                          {{0, 2}, false, 0},
                          {{0, 1}, true, 1},
                          {{0, 2}, false, 1}};
    struct pairs p = {NULL, 3, list, 4, 2};
    struct evaluate_options opt = {.range = 8, .far = 0.5};
    struct evaluation e;
    struct error err = {0};
    double own[4];

    (void)state;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), 0);
    NEAR(e.accuracy, 1, 0);
    NEAR(e.threshold, 4.85, 1e-9); /* past 2.2 squared, 4.84 */
    opt.range = 0;
    assert_int_equal(evaluate_embeddings(rows, 2, &p, &opt, own, &e, &err), 0);
    NEAR(e.accuracy, 0.5, 0);
}

static void test_roc(void **state)
{
    const double d[] = {0.3, 0.1, 0.5, 0.5, NAN, 0.9, 0.4, 0.7, 0.4};
    const bool same[] = {1, 1, 1, 0, 1, 0, 0, 1, 0};
    /* same 0.1 0.3 0.5 0.7, different 0.4 0.4 0.5 0.9 */
    const struct roc_point want[] = {{0, 0.5}, {0.5, 0.5}, {0.75, 1}, {1, 1}};
    struct roc_point *got;
    struct error err = {0};
    int n;

    (void)state;
    assert_int_equal(evaluate_roc(d, same, 9, &got, &n, &err), 0);
    assert_int_equal(n, 4);
    for (int i = 0; i < n; i++) {
        NEAR(got[i].far, want[i].far, 1e-12);
        NEAR(got[i].val, want[i].val, 1e-12);
    }
    free(got);
    assert_int_equal(evaluate_roc(d, same, 3, &got, &n, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FIELD);
    assert_null(got);
}

/* --- lists ---------------------------------------------------------------- */

static int load_text(const char *text, size_t len, struct pairs *p,
                     struct error *err)
{
    const char *dir = getenv("TMPDIR");
    char path[512];
    int fd, rc;

    snprintf(path, sizeof(path), "%s/pairsXXXXXX", dir ? dir : "/tmp");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
    rc = pairs_load(path, p, err);
    unlink(path);
    return rc;
}

static void test_lfw_list(void **state)
{
    const char text[] = "2\t2\n"
                        "Ann Lee\t1\t4\nBo\t2\t3\nAnn Lee\t1\tBo\t2\r\n"
                        "Cy\t10\tBo\t3\n"
                        "Cy\t1\t2\nDi\t1\t2\nCy\t1\tDi\t1\nCy\t2\tDi\t2";
    struct pairs p;
    struct error err = {0};

    (void)state;
    assert_int_equal(load_text(text, strlen(text), &p, &err), 0);
    assert_int_equal(p.n_folds, 2);
    assert_int_equal(p.n_pairs, 8);
    assert_int_equal(p.n_photos, 9);
    assert_string_equal(p.photos[p.pairs[0].photo[1]],
                        "Ann Lee/Ann Lee_0004.jpg");
    assert_true(p.pairs[1].same);
    assert_false(p.pairs[2].same);
    assert_int_equal(p.pairs[2].photo[0], p.pairs[0].photo[0]);
    assert_string_equal(p.photos[p.pairs[3].photo[0]], "Cy/Cy_0010.jpg");
    assert_int_equal(p.pairs[3].fold, 0);
    assert_int_equal(p.pairs[4].fold, 1);
    pairs_fini(&p);
}

static void test_view_one(void **state)
{
    char text[8192] = "20\n";
    struct pairs p;
    struct error err = {0};

    (void)state;
    for (int i = 1; i <= 20; i++)
        snprintf(text + strlen(text), 64, "A\t%d\t%d\n", i, i + 1);
    for (int i = 1; i <= 20; i++)
        snprintf(text + strlen(text), 64, "A\t%d\tB\t%d\n", i, i);
    assert_int_equal(load_text(text, strlen(text), &p, &err), 0);
    assert_int_equal(p.n_folds, 10);
    assert_int_equal(p.n_pairs, 40);
    assert_int_equal(p.pairs[3].fold, 1);
    assert_int_equal(p.pairs[23].fold, 1);
    assert_int_equal(p.pairs[39].fold, 9);
    pairs_fini(&p);
}

static void test_plain_list(void **state)
{
    char text[8192] = "# made by hand\n\n";
    struct pairs p;
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 25; i++)
        snprintf(text + strlen(text), 64, "a b/%d.png\tc..d/%d.jpg\t%d\n", i,
                 i + 1, i % 2);
    assert_int_equal(load_text(text, strlen(text), &p, &err), 0);
    assert_int_equal(p.n_folds, 10);
    assert_int_equal(p.n_pairs, 25);
    assert_int_equal(p.pairs[2].fold, 0);
    assert_int_equal(p.pairs[3].fold, 1);
    assert_int_equal(p.pairs[24].fold, 9);
    assert_true(p.pairs[1].same);
    assert_string_equal(p.photos[p.pairs[0].photo[0]], "a b/0.png");
    pairs_fini(&p);
}

static void test_many_photos(void **state)
{
    const int n = 5000;
    char *text = malloc((size_t)n * 64);
    size_t len = 0;
    struct pairs p;
    struct error err = {0};

    (void)state;
    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, 64, "p/%d q/%d 1\n", i, i / 2);
    assert_int_equal(load_text(text, len, &p, &err), 0);
    assert_int_equal(p.n_photos, n + n / 2);
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof(name), "q/%d", i / 2);
        assert_string_equal(p.photos[p.pairs[i].photo[1]], name);
    }
    pairs_fini(&p);
    free(text);
}

static void test_bad_lists(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "holds no pairs"},
        {"\n\n# nothing\n", "holds no pairs"},
        {"hello\n", "line 1"},
        {"1\t1\nA\t1\t2\n", "ends after 1 pairs"},
        {"1\t1\nA\t1\t2\nA\t1\n", "line 3"},
        {"1\t1\nA\tx\t2\nA\t1\tB\t1\n", "line 2: a photo's number"},
        {"1\t1\nA\t-1\t2\nA\t1\tB\t1\n", "line 2: a photo's number"},
        {"1\t1\nA\t1\t99999999999999999999\nA\t1\tB\t1\n", "line 2"},
        {"1\t1\nA\t1\t2\nA\t1\tB\t1\nA\t1\t3\n", "line 4: more pairs"},
        {"1\t1\nA\t1\t2\tB\t7\n", "line 2: more than four"},
        {"1\t1\n../A\t1\t2\nA\t1\tB\t1\n", "line 2: a photo's path"},
        {"0\t300\n", "line 1"},
        {"99999999\t99999999\n", "line 1"},
        {"10\t4194305\n", "line 1"},
        {"/etc/a b 1\n", "line 1: a photo's path"},
        {"a ../b 1\n", "line 1: a photo's path"},
        {"a b/.. 1\n", "line 1: a photo's path"},
        {"a b 1\na b 2\n", "line 2"},
        {"a b 1\na b\n", "line 2"},
    };
    char longer[PAIRS_MAX_LINE * 2];
    struct pairs p;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        err.text[0] = '\0';
        assert_int_equal(
            load_text(rows[i].text, strlen(rows[i].text), &p, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, rows[i].says))
            fail_msg("row %zu: \"%s\" lacks \"%s\"", i, err.text, rows[i].says);
        assert_null(p.photos);
    }
    memset(longer, 'a', sizeof(longer));
    assert_int_equal(load_text(longer, sizeof(longer), &p, &err), -1);
    assert_non_null(strstr(err.text, "line 1: longer"));
    assert_int_equal(load_text("a b 1\na\0b 1\n", 13, &p, &err), -1);
    assert_non_null(strstr(err.text, "line 2: holds a zero"));
    assert_int_equal(pairs_load("/nonexistent/pairs", &p, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
}

static void test_lfw_itself(void **state)
{
    const char *data = getenv("FACENETD_DATA");
    char path[1024];
    struct pairs p;
    struct error err = {0};
    int same = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/lfw/pairs.txt",
             data ? data : "../shared/data");
    if (access(path, R_OK)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    assert_int_equal(pairs_load(path, &p, &err), 0);
    assert_int_equal(p.n_folds, 10);
    assert_int_equal(p.n_pairs, 6000);
    assert_int_equal(p.n_photos, 7701);
    for (int i = 0; i < p.n_pairs; i++) {
        assert_int_equal(p.pairs[i].fold, i / 600);
        same += p.pairs[i].same;
    }
    assert_int_equal(same, 3000);
    pairs_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked),     cmocka_unit_test(test_against_count),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_script),     cmocka_unit_test(test_angles),
        cmocka_unit_test(test_range),      cmocka_unit_test(test_roc),
        cmocka_unit_test(test_lfw_list),   cmocka_unit_test(test_view_one),
        cmocka_unit_test(test_plain_list), cmocka_unit_test(test_many_photos),
        cmocka_unit_test(test_bad_lists),  cmocka_unit_test(test_lfw_itself)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
