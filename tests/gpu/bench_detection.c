/* tests/gpu/bench_detection.c - how many pictures a second faces are found in,
 * with the detector's networks on the card of FACENETD_PLUGIN, as the daemon
 * has them there, and beside it on the processor alone. Pictures of
 * models/demo, decoded once; threads look at them side by side, each with a
 * scratch of its own. Prints CSV rows: pictures a second, and inputs in a
 * batch. bench_detection [SECONDS of each row, default 3] */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "tests/finder.h"

enum {
    MOST_THREADS = 64,
    TIMEOUT_MS = 20000
};

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct {
    struct detector *detector;
    const struct image *img;
    double until;
    atomic_llong n; /* pictures */
    atomic_bool failed;
} all;

static void *work(void *arg)
{
    struct error err = {0};
    struct detect_scratch *s = detect_scratch_new(all.detector, &err);
    bool failed = !s;

    (void)arg;
    while (!failed && now_s() < all.until) {
        struct face *faces;
        int n;
        failed = detect_faces(s, all.img, NULL, &faces, &n, &err) != 0;
        free(faces);
        atomic_fetch_add(&all.n, 1);
    }
    if (failed) {
        fprintf(stderr, "%s\n", err.text);
        atomic_store(&all.failed, true);
    }
    detect_scratch_free(s);
    return NULL;
}

/* Pictures a second. */
static double rate(struct detector *d, const struct image *img, int n_threads,
                   double seconds)
{
    pthread_t threads[MOST_THREADS];
    double began = now_s();
    int n = 0;

    all.detector = d;
    all.img = img;
    all.until = began + seconds;
    atomic_store(&all.n, 0);
    while (n < n_threads && pthread_create(&threads[n], NULL, work, NULL) == 0)
        n++;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return (double)atomic_load(&all.n) / (now_s() - began);
}

static void bench(struct finder *f, const struct image *img, const char *name,
                  double seconds)
{
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);

    rate(f->plain, img, cores < MOST_THREADS ? cores : MOST_THREADS, 0.2);
    for (int n = 1; n <= 2 * cores && n <= MOST_THREADS; n *= 2) {
        struct detection_status a, b;
        double card, cpu;
        detection_status(f->detection, &a);
        card = rate(f->detector, img, n, seconds);
        detection_status(f->detection, &b);
        cpu = rate(f->plain, img, n, seconds);
        printf("card_detect,%s %dx%d %d threads,1,pictures/s,%.1f,\n", name,
               img->w, img->h, n, card);
        printf("card_detect_cpu,%s %dx%d %d threads,1,pictures/s,%.1f,\n", name,
               img->w, img->h, n, cpu);
        if (b.n_runs > a.n_runs)
            printf("card_detect_batch,%s %dx%d %d threads,1,inputs,%.1f,\n",
                   name, img->w, img->h, n,
                   (double)(b.n_inputs - a.n_inputs) /
                       (double)(b.n_runs - a.n_runs));
        if (b.n_failovers > a.n_failovers)
            printf("# %lld runs were the processor's\n",
                   (long long)(b.n_failovers - a.n_failovers));
        fflush(stdout);
    }
}

/* Rows of copies, below each other. */
static struct image *larger(const struct image *img, int n_x, int n_y,
                            struct error *err)
{
    struct image *out = image_new(n_x * img->w, n_y * img->h, err);
    size_t row = (size_t)img->w * 3;

    for (int y = 0; out && y < out->h; y++)
        for (int x = 0; x < n_x; x++)
            memcpy(out->rgb + ((size_t)y * (size_t)n_x + (size_t)x) * row,
                   img->rgb + (size_t)(y % img->h) * row, row);
    return out;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    const char *plugin = getenv("FACENETD_PLUGIN");
    struct image *one, *group, *crowd = NULL;
    struct detection_status st;
    struct error err = {0};
    struct finder f;

    log_open(LOG_LEVEL_WARN);
    if (!plugin || !(seconds > 0)) {
        fprintf(stderr, "usage: FACENETD_PLUGIN=/… bench_detection "
                        "[SECONDS]\n");
        return 2;
    }
    one = finder_picture("ada-1", &err);
    group = finder_picture("group", &err);
    if (group)
        crowd = larger(group, 2, 4, &err);
    if (!one || !crowd ||
        finder_open(&f, plugin, true, true, TIMEOUT_MS, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    detection_status(f.detection, &st);
    if (!st.on_card) {
        fprintf(stderr, "skip: not on the card: %s\n", st.why);
        return 1;
    }
    bench(&f, one, "a face", seconds);
    bench(&f, group, "five faces", seconds);
    bench(&f, crowd, "forty faces", seconds);
    image_free(one);
    image_free(group);
    image_free(crowd);
    return finder_close(&f) && !atomic_load(&all.failed) ? 0 : 1;
}
