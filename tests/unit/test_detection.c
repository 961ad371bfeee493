/* tests/unit/test_detection.c - finding faces on the card that is played
 * (tests/fake_gpu.c): photos on several threads share batches, a full queue
 * and a card that fails cost time alone. With the models and pictures of
 * models/. */
#include "daemon/detection.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "tests/finder.h"

enum {
    THREADS = 8,
    SLOW_MS = 100000 /* a run may take this long before it hangs */
};

static char dir[] = "/tmp/facenetd-detection-XXXXXX";
static char control[256], fake[4096];
static struct image *picture;

static void tell(const char *words)
{
    char path[300];
    FILE *f;

    snprintf(path, sizeof(path), "%s.new", control);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(words, f);
    fclose(f);
    assert_int_equal(rename(path, control), 0);
}

static struct finder start(const char *words, bool wanted)
{
    struct finder x;
    struct error err = {0};

    tell(words);
    if (finder_open(&x, fake, wanted, false, SLOW_MS, &err) != 0)
        fail_msg("%s", err.text);
    return x;
}

static struct detection_status status(struct finder *x)
{
    struct detection_status st;

    detection_status(x->detection, &st);
    assert_true(detection_alive(x->detection, SLOW_MS));
    return st;
}

/* --- many photos at once ----------------------------------------------------
 */

struct look {
    pthread_t thread;
    struct detector *detector;
    const struct detect_options *opt;
    struct face *faces;
    int n;
};

static atomic_int n_done;
/* Full batches by itself; else a few inputs. */
static const struct detect_options small = {.min_face = 12};

static void *look(void *arg)
{
    struct look *l = arg;
    struct error err = {0};
    struct detect_scratch *s = detect_scratch_new(l->detector, &err);

    l->n = -1;
    if (s && detect_faces(s, picture, l->opt, &l->faces, &l->n, &err) != 0)
        l->n = -1;
    detect_scratch_free(s);
    atomic_fetch_add(&n_done, 1);
    return NULL;
}

static void begin(struct finder *x, struct look *l, int n,
                  const struct detect_options *opt)
{
    atomic_store(&n_done, 0);
    for (int i = 0; i < n; i++) {
        l[i] = (struct look){.detector = x->detector, .opt = opt};
        assert_int_equal(pthread_create(&l[i].thread, NULL, look, &l[i]), 0);
    }
}

/* They are what the processor finds. */
static void end(struct finder *x, struct look *l, int n)
{
    struct look want = {.detector = x->plain, .opt = l->opt};

    look(&want);
    assert_true(want.n >= 5);
    for (int i = 0; i < n; i++) {
        pthread_join(l[i].thread, NULL);
        assert_int_equal(l[i].n, want.n);
        for (int k = 0; k < want.n; k++)
            assert_true(box_iou(&l[i].faces[k].box, &want.faces[k].box) >
                        0.99f);
        free(l[i].faces);
    }
    free(want.faces);
}

static void pause_ms(int ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000L};

    nanosleep(&t, NULL);
}

static void test_together(void **state)
{
    struct finder x = start("", true);
    struct look l[THREADS];
    struct detection_status alone, st;

    (void)state;
    assert_true(detection_may_wait(x.detection));
    assert_true(status(&x).on_card);
    begin(&x, l, 1, NULL);
    end(&x, l, 1);
    alone = status(&x);
    assert_true(alone.n_runs > 0 && alone.n_failovers == 0);
    tell("hang only=24");
    begin(&x, l, 4, NULL);
    while (status(&x).n_inputs == alone.n_inputs)
        pause_ms(1);
    pause_ms(300); /* until all wait for R-Net: else there are more batches */
    tell("");
    end(&x, l, 4);
    st = status(&x);
    assert_int_equal(st.n_failovers, 0);
    assert_int_equal(st.n_inputs, 5 * alone.n_inputs);
    assert_true(st.n_runs < 5 * alone.n_runs);
    assert_true(finder_close(&x));
}

/* More than may wait: the processor does the rest, and is done first. */
static void test_full(void **state)
{
    struct finder x = start("", true);
    struct look l[THREADS];

    (void)state;
    tell("hang only=160");
    begin(&x, l, THREADS, &small);
    while (atomic_load(&n_done) == 0)
        pause_ms(1);
    assert_true(atomic_load(&n_done) < THREADS);
    assert_true(status(&x).n_failovers > 0);
    tell("");
    end(&x, l, THREADS);
    assert_true(status(&x).on_card);
    assert_true(finder_close(&x));
}

static void test_lost(void **state)
{
    static const char *const words[] = {"lost only=160", "lost only=24",
                                        "lost only=48"};
    struct look l[THREADS];
    struct card_status card;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct finder x = start("", true);
        tell(words[i]);
        begin(&x, l, 4, NULL);
        end(&x, l, 4);
        assert_false(status(&x).on_card);
        assert_non_null(strstr(status(&x).why, "fell off the bus"));
        tell("");
        while (!status(&x).on_card)
            pause_ms(1);
        card_status(x.card, &card);
        assert_int_equal(card.n_lost, 1);
        begin(&x, l, 2, NULL);
        end(&x, l, 2);
        assert_true(finder_close(&x));
    }
}

static void test_not_wanted(void **state)
{
    struct finder x = start("", false);
    struct look l[1];

    (void)state;
    assert_false(detection_may_wait(x.detection));
    assert_non_null(strstr(status(&x).why, "device-detect is off"));
    begin(&x, l, 1, NULL);
    end(&x, l, 1);
    assert_int_equal(status(&x).n_runs, 0);
    assert_true(finder_close(&x));
}

static int setup(void **state)
{
    ssize_t n = readlink("/proc/self/exe", fake, sizeof(fake) - 32);
    struct error err = {0};

    (void)state;
    if (n < 0 || !mkdtemp(dir))
        return -1;
    fake[n] = '\0';
    strcpy(strrchr(fake, '/') + 1, "../fake_gpu.so");
    snprintf(control, sizeof(control), "%s/control", dir);
    setenv("FACENETD_FAKE_GPU", control, 1);
    log_open(LOG_LEVEL_ERROR);
    picture = finder_picture("group", &err);
    return picture ? 0 : -1;
}

static int teardown(void **state)
{
    char seen[300];

    (void)state;
    image_free(picture);
    snprintf(seen, sizeof(seen), "%s.seen", control);
    unlink(seen);
    unlink(control);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_not_wanted),
    };

    return cmocka_run_group_tests_name("detection", tests, setup, teardown);
}
