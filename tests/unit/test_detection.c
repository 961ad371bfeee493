/* tests/unit/test_detection.c - finding faces on the card that is played
 * (tests/fake_gpu.c): photos on several threads share batches, a full queue
 * and a card that fails cost time alone. With the models and pictures of
 * models/. */
#include "daemon/detection.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "daemon/log.h"
#include "tests/data.h"

enum {
    THREADS = 8,
    SLOW_MS = 100000 /* a run may take this long before it hangs */
};

static char dir[] = "/tmp/facenetd-detection-XXXXXX";
static char control[256], fake[4096];
static struct device *cpu;
static struct model *models[DETECT_STAGES];
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

struct fixture {
    struct card *card;
    struct detector *detector;
    struct detection *detection;
};

static struct fixture start(const char *words, bool wanted, int timeout_ms)
{
    struct card_options opt = {
        .device = "cuda", .plugin = fake, .timeout_ms = timeout_ms};
    struct detection_options how = {.wanted = wanted, .cpu = cpu};
    struct error err = {0};
    struct fixture x;

    tell(words);
    x.card = card_new(&opt, &err);
    x.detector = detector_new(cpu, models[0], models[1], models[2], &err);
    assert_true(x.card && x.detector);
    how.card = x.card;
    how.detector = x.detector;
    memcpy(how.models, models, sizeof(how.models));
    x.detection = detection_new(&how, &err);
    if (!x.detection)
        fail_msg("%s", err.text);
    return x;
}

static void stop(struct fixture *x)
{
    detection_free(x->detection);
    assert_true(card_close(x->card));
    detector_free(x->detector);
}

static struct detection_status status(struct fixture *x)
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

static void begin(struct fixture *x, struct look *l, int n,
                  const struct detect_options *opt)
{
    atomic_store(&n_done, 0);
    for (int i = 0; i < n; i++) {
        l[i] = (struct look){.detector = x->detector, .opt = opt};
        assert_int_equal(pthread_create(&l[i].thread, NULL, look, &l[i]), 0);
    }
}

/* They are what the processor finds. */
static void end(struct look *l, int n)
{
    struct error err = {0};
    struct detector *d =
        detector_new(cpu, models[0], models[1], models[2], &err);
    struct look want = {.detector = d, .opt = l->opt};

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
    detector_free(d);
}

static void pause_ms(int ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000L};

    nanosleep(&t, NULL);
}

static void test_together(void **state)
{
    struct fixture x = start("", true, SLOW_MS);
    struct look l[THREADS];
    struct detection_status alone, st;

    (void)state;
    assert_true(detection_may_wait(x.detection));
    assert_true(status(&x).on_card);
    begin(&x, l, 1, NULL);
    end(l, 1);
    alone = status(&x);
    assert_true(alone.n_runs > 0 && alone.n_failovers == 0);
    tell("hang only=24");
    begin(&x, l, 4, NULL);
    while (status(&x).n_inputs == alone.n_inputs)
        pause_ms(1);
    pause_ms(300); /* until all wait for R-Net: else there are more batches */
    tell("");
    end(l, 4);
    st = status(&x);
    assert_int_equal(st.n_failovers, 0);
    assert_int_equal(st.n_inputs, 5 * alone.n_inputs);
    assert_true(st.n_runs < 5 * alone.n_runs);
    stop(&x);
}

/* More than may wait: the processor does the rest, and is done first. */
static void test_full(void **state)
{
    struct fixture x = start("", true, SLOW_MS);
    struct look l[THREADS];

    (void)state;
    tell("hang only=160");
    begin(&x, l, THREADS, &small);
    while (atomic_load(&n_done) == 0)
        pause_ms(1);
    assert_true(atomic_load(&n_done) < THREADS);
    assert_true(status(&x).n_failovers > 0);
    tell("");
    end(l, THREADS);
    assert_true(status(&x).on_card);
    stop(&x);
}

static void test_lost(void **state)
{
    static const char *const words[] = {"lost only=160", "lost only=24",
                                        "lost only=48"};
    struct look l[THREADS];
    struct card_status card;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture x = start("", true, SLOW_MS);
        tell(words[i]);
        begin(&x, l, 4, NULL);
        end(l, 4);
        assert_false(status(&x).on_card);
        assert_non_null(strstr(status(&x).why, "fell off the bus"));
        tell("");
        while (!status(&x).on_card)
            pause_ms(1);
        card_status(x.card, &card);
        assert_int_equal(card.n_lost, 1);
        begin(&x, l, 2, NULL);
        end(l, 2);
        stop(&x);
    }
}

static void test_not_wanted(void **state)
{
    struct fixture x = start("", false, SLOW_MS);
    struct look l[1];

    (void)state;
    assert_false(detection_may_wait(x.detection));
    assert_non_null(strstr(status(&x).why, "device-detect is off"));
    begin(&x, l, 1, NULL);
    end(l, 1);
    assert_int_equal(status(&x).n_runs, 0);
    stop(&x);
}

static int setup(void **state)
{
    static const char *const files[] = {"models/detector_pnet.onnx",
                                        "models/detector_rnet.onnx",
                                        "models/detector_onet.onnx"};
    struct device_options one = {.n_threads = 1};
    ssize_t n = readlink("/proc/self/exe", fake, sizeof(fake) - 32);
    static uint8_t bytes[4 << 20];
    struct error err = {0};
    FILE *f = fopen("models/demo/group.jpg", "rb");

    (void)state;
    if (n < 0 || !mkdtemp(dir) || !f)
        return -1;
    fake[n] = '\0';
    strcpy(strrchr(fake, '/') + 1, "../fake_gpu.so");
    snprintf(control, sizeof(control), "%s/control", dir);
    setenv("FACENETD_FAKE_GPU", control, 1);
    log_open(LOG_LEVEL_ERROR);
    picture =
        image_decode(bytes, fread(bytes, 1, sizeof(bytes), f), NULL, &err);
    fclose(f);
    cpu = backend_cpu.device_open(&one, &err);
    for (int i = 0; i < DETECT_STAGES; i++)
        models[i] = model_load(files[i], NULL, NULL, &err);
    return cpu && picture && models[0] && models[1] && models[2] ? 0 : -1;
}

static int teardown(void **state)
{
    char seen[300];

    (void)state;
    for (int i = 0; i < DETECT_STAGES; i++)
        model_free(models[i]);
    image_free(picture);
    backend_cpu.device_close(cpu);
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
