/* tests/unit/test_store_faults.c - what is erased is gone; damage, a full
 * disk, a failing sync, a second process and a killed one are survived. The
 * disk's faults are made here: this program's own pwrite, fdatasync and
 * ftruncate stand before the C library's. Some tests start this program
 * again as another process (role, below). */
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

/* --- a disk with faults --------------------------------------------- */
static atomic_bool disk_full;  /* files do not grow while the ballast is */
static atomic_bool sync_fails; /* fdatasync says EIO */
static atomic_bool die_at_truncate;
static atomic_int n_syncs_failed;

static bool may_grow(int fd, off_t end)
{
    char path[160];
    struct stat st;

    if (!atomic_load(&disk_full) || fstat(fd, &st) < 0 || end <= st.st_size)
        return true;
    snprintf(path, sizeof(path), "%s/ballast", dir);
    return access(path, F_OK) != 0;
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
    if (!may_grow(fd, at + (off_t)n)) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, buf, n, at);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return pwrite64(fd, buf, n, at);
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    if (atomic_load(&disk_full))
        return ENOSPC;
    return syscall(SYS_fallocate, fd, 0, at, n) < 0 ? errno : 0;
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    return posix_fallocate64(fd, at, n);
}

int fdatasync(int fd)
{
    if (atomic_load(&sync_fails)) {
        atomic_fetch_add(&n_syncs_failed, 1);
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return fdatasync(fd);
}

int ftruncate64(int fd, off64_t n)
{
    if (atomic_load(&die_at_truncate))
        kill(getpid(), SIGKILL);
    return (int)syscall(SYS_ftruncate, fd, n);
}

int ftruncate(int fd, off_t n)
{
    return ftruncate64(fd, n);
}

/* This program again, in another role; its standard output in *out. */
static pid_t spawn_self(const char *role, int *out)
{
    posix_spawn_file_actions_t actions;
    char *argv[] = {(char *)"test_store", (char *)role, dir, NULL};
    int fds[2];
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
    assert_int_equal(
        posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    if (out)
        *out = fds[0];
    else
        close(fds[0]);
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int setup(void **state)
{
    disk_full = sync_fails = false;
    return clean(state);
}

/* --- erasure -------------------------------------------------------- */
static void test_erasure_leaves_nothing(void **state)
{
    struct store *s = open_with(NULL);
    struct error err = {0};
    float v[DIM];
    struct store_face f;
    int64_t id;
    int n;

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        enroll(s, "g", "other", 100 + i);
    fill(v, 1);
    id = enroll(s, "g", "anna", 1);
    assert_true(n_files_with(v, sizeof(v)) > 0); /* the scan does find it */
    assert_int_equal(store_face_remove(s, id, &f, &err), 0);
    assert_int_equal(n_files_with(v, sizeof(v)), 0);
    enroll(s, "g", "anna", 1);
    assert_true(n_files_with(v, sizeof(v)) > 0);
    assert_int_equal(store_subject_remove(s, "g", "anna", &n, &err), 0);
    assert_int_equal(n_files_with(v, sizeof(v)), 0);
    assert_int_equal(n_files_with(v, 64), 0);
    assert_true(n_files_with(jpeg, sizeof(jpeg)) > 0); /* other's */
    assert_int_equal(store_gallery_remove(s, "g", &n, &err), 0);
    assert_int_equal(n, 40);
    assert_int_equal(n_files_with(jpeg, sizeof(jpeg)), 0);
    store_close(s);
}

static void test_erasure_cut_short(void **state)
{
    struct store *s;
    struct store_subject sub;
    struct error err = {0};
    float v[DIM];
    int status;

    (void)state;
    fill(v, 1);
    status = wait_for(spawn_self("die-erasing", NULL));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(n_files_with(v, sizeof(v)) > 0);
    s = open_with(NULL);
    assert_int_equal(n_files_with(v, sizeof(v)), 0);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), -1);
    assert_int_equal(err.code, ERR_NO_SUBJECT);
    store_close(s);
}

/* --- faults --------------------------------------------------------- */
static void test_disk_full(void **state)
{
    struct store *s = open_with(NULL);
    struct store_subject sub;
    struct error err = {0};
    float v[DIM];
    int64_t id;
    int n = 0, n_ok = 0;

    (void)state;
    enroll(s, "g", "anna", 1);
    disk_full = true;
    while (n_ok < 2000 &&
           try_enroll(s, "g", "bob", (unsigned)n_ok + 2, &id, &err) == 0)
        n_ok++;
    assert_true(n_ok < 248);
    assert_int_equal(err.code, ERR_STORAGE_FULL);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    store_subject_fini(&sub);
    assert_false(store_failed(s));
    fill(v, 1);
    if (store_subject_remove(s, "g", "anna", &n, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n_files_with(v, sizeof(v)), 0);
    assert_int_equal(try_enroll(s, "g", "eve", 9, &id, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE_FULL);
    disk_full = false; /* recovers without a restart */
    enroll(s, "g", "eve", 9);
    store_close(s);
    s = open_with(NULL);
    assert_int_equal(store_subject_get(s, "g", "eve", &sub, &err), 0);
    store_subject_fini(&sub);
    store_close(s);
}

static void test_sync_failure(void **state)
{
    struct store *s = open_with(NULL);
    struct store_subject sub;
    struct error err = {0};
    int64_t id;
    int n;

    (void)state;
    enroll(s, "g", "anna", 1);
    sync_fails = true;
    n_syncs_failed = 0;
    assert_int_equal(try_enroll(s, "g", "bob", 2, &id, &err), -1);
    assert_int_equal(err.code, ERR_OUTCOME_UNKNOWN);
    assert_true(store_failed(s));
    sync_fails = false; /* the kernel would say "done" now: not believed */
    n = n_syncs_failed;
    assert_true(n > 0);
    assert_int_equal(try_enroll(s, "g", "eve", 3, &id, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE);
    assert_int_equal(store_subject_remove(s, "g", "anna", NULL, &err), -1);
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    store_subject_fini(&sub);
    assert_true(store_alive(s, 5000));
    store_close(s);
    s = open_with(NULL);
    assert_false(store_failed(s));
    assert_int_equal(store_subject_get(s, "g", "anna", &sub, &err), 0);
    store_subject_fini(&sub);
    assert_int_equal(store_subject_get(s, "g", "eve", &sub, &err), -1);
    store_close(s);
}

static void flip(const char *file, off_t at, int n)
{
    char path[160];
    uint8_t buf[4096];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, buf, (size_t)n, at), n);
    for (int i = 0; i < n; i++)
        buf[i] ^= 0x5a;
    assert_int_equal(pwrite(fd, buf, (size_t)n, at), n);
    close(fd);
}

static void test_damage(void **state)
{
    struct store *s = open_with(NULL);
    char text[256];

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        enroll(s, "g", "a", i);
    store_close(s);
    flip("facenetd.db", 0, 16);
    assert_int_equal(open_error(text), ERR_STORAGE);
    assert_non_null(strstr(text, "facenetd.db"));
    flip("facenetd.db", 0, 16);
    flip("facenetd.db", 60, 4); /* user_version */
    assert_int_equal(open_error(text), ERR_STORAGE);
    flip("facenetd.db", 60, 4);
    flip("facenetd.db", 68, 4); /* application_id */
    assert_int_equal(open_error(text), ERR_STORAGE);
    flip("facenetd.db", 68, 4);
    assert_int_equal(open_error(text), ERR_NONE);
    for (int page = 1; page < 12; page++) {
        flip("facenetd.db", page * 4096, 64);
        assert_int_equal(open_error(text), ERR_STORAGE);
        flip("facenetd.db", page * 4096, 64);
    }
    assert_int_equal(open_error(text), ERR_NONE);
}

/* --- the data directory --------------------------------------------- */
static void test_directory(void **state)
{
    struct store_options opt = {.dir = "/proc/none/here"};
    struct error err = {0};
    struct store *s;
    struct stat st;
    char path[160];

    (void)state;
    assert_null(store_open(&opt, &err));
    assert_int_equal(err.code, ERR_FILE);
    assert_non_null(strstr(err.text, "/proc/none/here"));
    opt.dir = "/dev/null";
    assert_null(store_open(&opt, &err));
    assert_int_equal(err.code, ERR_FILE);
    opt.dir = "";
    assert_null(store_open(&opt, &err));
    assert_int_equal(err.code, ERR_FILE);
    s = open_with(NULL);
    enroll(s, "g", "a", 1);
    snprintf(path, sizeof(path), "%s/facenetd.db", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof(path), "%s/facenetd.db-wal", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof(path), "%s/facenetd.db-shm", dir);
    assert_int_equal(access(path, F_OK), -1);
    store_close(s);
}

static void test_link_refused(void **state)
{
    char path[160], target[160];

    (void)state;
    snprintf(path, sizeof(path), "%s/facenetd.db", dir);
    snprintf(target, sizeof(target), "%s/elsewhere", dir);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(open_error(NULL), ERR_FILE);
    assert_int_equal(access(target, F_OK), -1);
}

static void test_second_open(void **state)
{
    struct store *s = open_with(NULL);
    char text[256], pid[32];
    int status;

    (void)state;
    assert_int_equal(open_error(text), ERR_LOCKED);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    assert_non_null(strstr(text, pid));
    assert_non_null(strstr(text, dir));
    status = wait_for(spawn_self("open", NULL));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ERR_LOCKED);
    enroll(s, "g", "a", 1); /* the first is as it was */
    store_close(s);
    status = wait_for(spawn_self("open", NULL));
    assert_int_equal(WEXITSTATUS(status), ERR_NONE);
}

static void test_read_only(void **state)
{
    int status;

    (void)state;
    store_close(open_with(NULL));
    chmod(dir, 0555);
    status = wait_for(spawn_self("open-as-nobody", NULL));
    chmod(dir, 0700);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ERR_FILE);
}

/* --- killed --------------------------------------------------------- */
static void test_kill(void **state)
{
    struct store_face f;
    struct error err = {0};
    int64_t known = 0, last = 0, id;
    unsigned seed = 12345;

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct store *s;
        int out, n, n_wanted;
        pid_t pid = spawn_self("enroll", &out);
        int64_t first = last;
        seed = seed * 1103515245 + 12345;
        n_wanted = 1 + (int)(seed >> 16) % 40;
        for (n = 0; n < n_wanted && read(out, &id, sizeof(id)) == sizeof(id);
             n++)
            last = id;
        kill(pid, SIGKILL);
        wait_for(pid);
        while (read(out, &id, sizeof(id)) == sizeof(id))
            last = id;
        close(out);
        assert_true(n == n_wanted && last > first);
        s = open_with(NULL);
        for (id = known + 1; id <= last; id++) {
            if (store_face_get(s, id, &f, &err) < 0)
                fail_msg("round %d: face %lld is lost", round, (long long)id);
        }
        known = last;
        /* One more may be there, unanswered; never a part of one. */
        if (store_face_get(s, last + 1, &f, &err) == 0)
            known = last = last + 1;
        store_close(s);
    }
}

static int role_enroll(struct store *s)
{
    char id[32];
    int64_t face;

    for (unsigned i = 0;; i++) {
        snprintf(id, sizeof(id), "p%u.%u", (unsigned)getpid(), i);
        if (try_enroll(s, "g", id, i, &face, NULL) < 0 ||
            write(1, &face, sizeof(face)) != sizeof(face))
            return 1;
    }
}

static int role(const char *name)
{
    struct store_options opt = {.dir = dir};
    struct error err = {0};
    struct store *s;
    int64_t id;

    if (strcmp(name, "open-as-nobody") == 0 && geteuid() == 0 &&
        setuid(65534) < 0)
        return 99;
    s = store_open(&opt, &err);
    if (!s)
        return (int)err.code;
    if (strcmp(name, "enroll") == 0)
        return role_enroll(s);
    if (strcmp(name, "die-erasing") == 0) {
        if (try_enroll(s, "g", "anna", 1, &id, NULL) < 0)
            return 98;
        atomic_store(&die_at_truncate, true);
        store_subject_remove(s, "g", "anna", NULL, NULL);
    }
    store_close(s);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_erasure_leaves_nothing),
        TEST(test_erasure_cut_short),
        TEST(test_disk_full),
        TEST(test_sync_failure),
        TEST(test_damage),
        TEST(test_directory),
        TEST(test_link_refused),
        TEST(test_second_open),
        TEST(test_read_only),
        TEST(test_kill),
    };
    int rc;

    if (argc == 3) {
        snprintf(dir, sizeof(dir), "%s", argv[2]);
        return role(argv[1]);
    }
    make_dir();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    clean(NULL);
    rmdir(dir);
    return rc;
}
