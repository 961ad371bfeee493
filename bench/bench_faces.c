/* bench/bench_faces.c - the faces that a detector finds in listed photos, one
 * line of JSON each; bench/figures_detector.py compares two detectors by it.
 * Arguments: folder of detector_{p,r,o}net.onnx, smallest face. Paths come on
 * stdin, one a line. A photo is looked at twice, the second time by the clock:
 * the first may plan for a new size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/face/detect.h"
#include "core/train/picture.h"

static struct {
    struct device *dev;
    struct model *models[3];
    struct detector *detector;
    struct detect_scratch *scratch;
} all;

static int open_all(const char *dir, struct error *err)
{
    static const char letters[] = "pro";
    const struct device_options one = {.n_threads = 1};
    char path[4096];

    all.dev = backend_cpu.device_open(&one, err);
    if (!all.dev)
        return -1;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/detector_%cnet.onnx", dir, letters[i]);
        all.models[i] = model_load(path, all.dev, NULL, err);
        if (!all.models[i])
            return -1;
    }
    all.detector =
        detector_new(all.dev, all.models[0], all.models[1], all.models[2], err);
    if (!all.detector)
        return -1;
    all.scratch = detect_scratch_new(all.detector, err);
    return all.scratch ? 0 : -1;
}

static void close_all(void)
{
    detect_scratch_free(all.scratch);
    detector_free(all.detector);
    for (int i = 0; i < 3; i++)
        model_free(all.models[i]);
    if (all.dev)
        all.dev->backend->device_close(all.dev);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void print_faces(const struct image *img, const struct face *faces,
                        int n, double ms)
{
    printf("{\"w\":%d,\"h\":%d,\"ms\":%.3f,\"faces\":[", img->w, img->h, ms);
    for (int i = 0; i < n; i++) {
        const struct face *f = &faces[i];

        printf("%s{\"score\":%.6f,\"box\":[%.3f,%.3f,%.3f,%.3f],\"points\":[",
               i ? "," : "", (double)f->score, (double)f->box.x0,
               (double)f->box.y0, (double)f->box.x1, (double)f->box.y1);
        for (int k = 0; k < 5; k++)
            printf("%s[%.3f,%.3f]", k ? "," : "", (double)f->points[k][0],
                   (double)f->points[k][1]);
        printf("]}");
    }
    printf("]}\n");
}

static int look(const char *path, const struct detect_options *o,
                struct error *err)
{
    struct image *img = picture_load(path, NULL, NULL, err);
    struct face *faces = NULL;
    double ms = 0;
    int n = 0, rc = 0;

    if (!img)
        return error_context(err, "%s", path);
    for (int i = 0; rc == 0 && i < 2; i++) {
        free(faces);
        ms = now_ms();
        rc = detect_faces(all.scratch, img, o, &faces, &n, err);
        ms = now_ms() - ms;
    }
    if (rc == 0)
        print_faces(img, faces, n, ms);
    free(faces);
    image_free(img);
    return rc;
}

int main(int argc, char **argv)
{
    struct detect_options o = {.min_face =
                                   argc > 2 ? (float)atof(argv[2]) : 36};
    struct error err = {0};
    char path[4096];
    int rc;

    if (argc < 2) {
        fputs("usage: bench_faces DETECTORS [MIN_FACE] <paths\n", stderr);
        return 2;
    }
    rc = open_all(argv[1], &err);
    while (rc == 0 && fgets(path, sizeof(path), stdin)) {
        path[strcspn(path, "\n")] = '\0';
        rc = look(path, &o, &err);
    }
    if (rc)
        fprintf(stderr, "bench_faces: %s\n", err.text);
    close_all();
    return rc ? 1 : 0;
}
