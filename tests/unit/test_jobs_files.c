/* tests/unit/test_jobs_files.c - what a training job may reach: folders below
 * a root, arguments, the command line that they become, its process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/jobs_priv.h"

static char dir[64]; /* of the test, without links in its path */

static void at(const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", dir, name);
}

static void make_folder(const char *name)
{
    char path[256];

    at(name, path);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_file(const char *name)
{
    char path[256];
    int fd;

    at(name, path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void make_link(const char *target, const char *name)
{
    char path[256];

    at(name, path);
    assert_int_equal(symlink(target, path), 0);
}

static int setup(void **state)
{
    char made[] = "/tmp/test_jobs_XXXXXX", *real;

    (void)state;
    real = mkdtemp(made) ? realpath(made, NULL) : NULL;
    if (!real)
        return -1;
    snprintf(dir, sizeof(dir), "%s", real);
    free(real);
    make_folder("root");
    make_folder("root/people");
    make_folder("root/people/ada");
    make_file("root/people/ada/1.jpg");
    make_file("root/list.txt");
    make_folder("rootlike");
    make_folder("outside");
    make_file("outside/1.jpg");
    make_link("../outside", "root/out");
    make_link("../rootlike", "root/like");
    make_link("people", "root/inside");
    make_link("nowhere", "root/broken");
    make_link("loop", "root/loop");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return jobs_data_remove(dir) && access(dir, F_OK) != 0 ? 0 : -1;
}

/* --- folders ----------------------------------------------------------- */

static void names_below_the_root(void **state)
{
    static const struct {
        const char *name;
        bool is_dir;
        const char *path, *says; /* path NULL: refused */
    } cases[] = {
        {"people", true, "root/people", NULL},
        {"people/ada", true, "root/people/ada", NULL},
        {"./people//ada/", true, "root/people/ada", NULL},
        {"inside", true, "root/people", NULL},
        {"list.txt", false, "root/list.txt", NULL},
        {".", true, "root", NULL},
        {"", true, NULL, "1 to"},
        {"/etc", true, NULL, "relative"},
        {"..", true, NULL, "\"..\""},
        {"../outside", true, NULL, "\"..\""},
        {"people/..", true, NULL, "\"..\""},
        {"people/../../outside", true, NULL, "\"..\""},
        {"...", true, NULL, "No such file"},
        {"out", true, NULL, "leads out"},
        {"out/1.jpg", false, NULL, "leads out"},
        {"like", true, NULL, "leads out"},
        {"broken", true, NULL, "No such file"},
        {"loop", true, NULL, "symbolic links"},
        {"list.txt", true, NULL, "no folder"},
        {"people", false, NULL, "no file"},
        {"a:b", true, NULL, "':'"},
        {"a\nb", true, NULL, "control"},
    };
    char root[256], path[JOBS_PATH_MAX], want[256];
    struct error err;

    (void)state;
    at("root", root);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rc = jobs_data_resolve(root, "folder", cases[i].name,
                                   cases[i].is_dir, path, &err);
        if (cases[i].path) {
            at(cases[i].path, want);
            assert_int_equal(rc, 0);
            assert_string_equal(path, want);
            continue;
        }
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_BAD_FIELD);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s': %s", cases[i].name, err.text);
    }
    assert_int_equal(
        jobs_data_resolve("", "folder", "people", true, path, &err), -1);
    assert_non_null(strstr(err.text, "train-root"));
    at("no-root", root);
    assert_int_equal(
        jobs_data_resolve(root, "folder", "people", true, path, &err), -1);
    assert_int_equal(err.code, ERR_CONFIG);
    make_link("root", "root-link"); /* the root itself may be a link */
    at("root-link", root);
    assert_int_equal(
        jobs_data_resolve(root, "folder", "people", true, path, &err), 0);
}

static void links_inside_a_folder(void **state)
{
    static const struct {
        const char *target, *name;
        bool good;
    } cases[] = {
        {"1.jpg", "root/people/ada/same.jpg", true},
        {"../ada", "root/people/eve", true},
        {"nowhere", "root/people/ada/none.jpg", true}, /* cannot be read */
        {"../../../outside/1.jpg", "root/people/ada/2.jpg", false},
        {"../../outside", "root/people/bob", false},
        {"/etc", "root/people/etc", false},
        {"../deep", "root/people/deep", false}, /* what is in it does */
    };
    char root[256], path[256];
    atomic_bool stop = false;
    atomic_llong beat = 0;
    struct error err;

    (void)state;
    at("root", root);
    make_folder("root/deep");
    make_link("../../outside/1.jpg", "root/deep/1.jpg");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        make_link(cases[i].target, cases[i].name);
        at("root/people", path);
        assert_int_equal(
            jobs_data_scan(root, path, "people", &stop, &beat, &err) == 0,
            cases[i].good);
        if (!cases[i].good) {
            assert_non_null(strstr(err.text, "leads out"));
            at(cases[i].name, path);
            assert_non_null(strstr(err.text, path + strlen(root) + 1));
            assert_int_equal(unlink(path), 0);
        }
    }
    assert_true(atomic_load(&beat) > 0);
    atomic_store(&stop, true);
    at("root/people", path);
    assert_int_equal(jobs_data_scan(root, path, "people", &stop, &beat, &err),
                     -1);
    assert_int_equal(err.code, ERR_DEADLINE);
}

/* Links are removed, not followed. */
static void removing(void **state)
{
    char path[256], kept[256];

    (void)state;
    make_folder("gone");
    make_folder("gone/a");
    make_folder("gone/a/b");
    make_file("gone/a/b/1");
    make_link("../outside", "gone/link");
    make_link("../../outside/1.jpg", "gone/a/link.jpg");
    at("gone", path);
    assert_true(jobs_data_remove(path));
    assert_int_equal(access(path, F_OK), -1);
    at("outside/1.jpg", kept);
    assert_int_equal(access(kept, F_OK), 0);
    assert_true(jobs_data_remove(path)); /* nothing there */
    make_link("outside", "gone");
    assert_false(jobs_data_remove(path)); /* a link is no folder */
    assert_int_equal(access(kept, F_OK), 0);
}

/* The room that checkpoints need is there before a job begins. */
static void room_for_checkpoints(void **state)
{
    char path[256];
    struct error err;

    (void)state;
    make_file("model.onnx");
    at("model.onnx", path);
    assert_int_equal(truncate(path, 1000), 0);
    if (jobs_data_free(dir) < (int64_t)4 << 30)
        skip();
    assert_int_equal(jobs_data_room(dir, path, &err), 0);
    assert_int_equal(jobs_data_room(dir, "", &err), 0);
    /* Sparse: 16 of these are more than the disk has. */
    assert_int_equal(truncate(path, jobs_data_free(dir) / 15), 0);
    assert_int_equal(jobs_data_room(dir, path, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE_FULL);
    assert_non_null(strstr(err.text, "MiB free"));
    assert_int_equal(unlink(path), 0);
}

static void a_place_in_memory(void **state)
{
    char path[JOBS_PATH_MAX];
    struct error err;
    struct stat st;

    (void)state;
    setenv("RUNTIME_DIRECTORY", "/proc", 1); /* no tmpfs: passed over */
    if (jobs_data_memory("9-12345678", path, &err) != 0) {
        assert_int_equal(err.code, ERR_CONFIG);
        skip(); /* a machine without /dev/shm */
    }
    assert_int_equal(strncmp(path, "/dev/shm/facenetd-job-", 22), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* Somebody else's folder of this name is not taken. */
    assert_int_equal(jobs_data_memory("9-12345678", path, &err), -1);
    snprintf(path, sizeof(path), "/dev/shm/facenetd-job-9-12345678-%d",
             (int)getpid());
    assert_true(jobs_data_remove(path));
    unsetenv("RUNTIME_DIRECTORY");
}

/* --- arguments --------------------------------------------------------- */

static void arguments_become_a_line(void **state)
{
    json_t *o = json_pack("{s:f, s:i, s:b, s:b, s:s, s:i}", "learning-rate",
                          0.05, "batch_size", 30, "random_flip", 1, "force", 0,
                          "optimizer", "ADAM", "minutes", 500);
    struct jobs_paths paths = {.trainer = "/bin/ctl",
                               .dir = "/d/1-0",
                               .data = "/photos/people",
                               .holdout = "",
                               .lfw_dir = "",
                               .lfw_pairs = "",
                               .detectors = "/models",
                               .resume = "",
                               .device = "auto",
                               .plugin = "/lib/card.so",
                               .n_threads = 2,
                               .memory = (int64_t)1 << 30,
                               .max_minutes = 60};
    static const char *const want[] = {"/bin/ctl",
                                       "train",
                                       "--batch_size=30",
                                       "--learning_rate=0.05",
                                       "--optimizer=ADAM",
                                       "--random_flip",
                                       "--data_dir=/photos/people",
                                       "--pretrained_model=/models/m.onnx",
                                       "--detectors=/models",
                                       "--device=auto",
                                       "--device_plugin=/lib/card.so",
                                       "--logs_base_dir=/d/1-0/run/logs",
                                       "--models_base_dir=/d/1-0/run/models",
                                       "--output=/d/1-0/model.onnx",
                                       "--minutes=60",
                                       "--memory_mib=256",
                                       "--threads=2",
                                       "--progress_fd=3"};
    struct jobs_request asked = {.model_path = "/models/m.onnx"};
    struct error err;
    bool builds = true;
    char **argv;

    (void)state;
    assert_int_equal(jobs_args_read(o, asked.arguments, &builds, &err), 0);
    assert_false(builds);
    argv = jobs_args_argv(&asked, &paths, &err);
    assert_non_null(argv);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        assert_non_null(argv[i]);
        assert_string_equal(argv[i], want[i]);
    }
    assert_null(argv[sizeof(want) / sizeof(want[0])]);
    free(argv);
    json_decref(o);
    /* A record that somebody edited. */
    snprintf(asked.arguments, sizeof(asked.arguments),
             "{\"output\":\"/etc/passwd\"}");
    assert_null(jobs_args_argv(&asked, &paths, &err));
    assert_int_equal(err.code, ERR_BAD_FIELD);
}

/* --- the process ------------------------------------------------------- */

static int run_child(const char *program, const char *script, char *out,
                     size_t len, struct error *err)
{
    const char *argv[] = {program, "-c", script, NULL};
    struct jobs_spawn spawn = {.program = program,
                               .argv = (char *const *)argv,
                               .dir = dir,
                               .n_threads = 1};
    struct jobs_child child;
    struct pollfd p = {.events = POLLIN};
    size_t n = 0;
    int status;

    out[0] = '\0';
    if (jobs_child_start(&spawn, &child, NULL, err) != 0)
        return -1;
    assert_true(jobs_child_began(child.pid) > 0);
    p.fd = child.pidfd;
    assert_int_equal(poll(&p, 1, 60000), 1);
    status = jobs_child_reap(&child);
    for (ssize_t got; n + 1 < len; n += (size_t)got) {
        got = read(child.progress, out + n, len - 1 - n);
        if (got <= 0)
            break;
    }
    out[n] = '\0';
    close(child.progress);
    close(child.log);
    return status;
}

static void a_child_and_its_end(void **state)
{
    struct error err;
    char out[512];

    (void)state;
    setenv("FACENETD_SECRET", "x", 1);
    assert_int_equal(run_child("/bin/sh",
                               "echo $PWD $FACENETD_SECRET >&3; exit 7", out,
                               sizeof(out), &err),
                     7 << 8);
    assert_int_equal(strncmp(out, dir, strlen(dir)), 0);
    assert_string_equal(out + strlen(dir), "\n");
    assert_int_equal(run_child("/bin/sh", "kill -9 $$", out, sizeof(out), &err),
                     SIGKILL);
    /* What it started ends with it. */
    assert_int_equal(run_child("/bin/sh", "sleep 1000 & echo $! >&3", out,
                               sizeof(out), &err),
                     0);
    assert_true(atoi(out) > 1);
    for (int i = 0; jobs_child_began(atoi(out)) > 0 && i < 60000; i++) {
        int status;
        /* Reparented: to this test where it is a reaper, else to init. */
        if (waitpid(atoi(out), &status, WNOHANG) > 0)
            break;
        poll(NULL, 0, 1);
    }
    assert_true(kill(atoi(out), 0) != 0 || jobs_child_began(atoi(out)) == 0);
    assert_int_equal(run_child("/nowhere/ctl", "", out, sizeof(out), &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, "/nowhere/ctl"));
    assert_int_equal(jobs_child_began(0), 0);
    assert_int_equal(jobs_child_began(-5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_below_the_root),
        cmocka_unit_test(links_inside_a_folder),
        cmocka_unit_test(removing),
        cmocka_unit_test(room_for_checkpoints),
        cmocka_unit_test(a_place_in_memory),
        cmocka_unit_test(arguments_become_a_line),
        cmocka_unit_test(a_child_and_its_end),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
