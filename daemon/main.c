/* daemon/main.c - the process: its environment, options, signals, exit
 * codes. Once requests are served nothing ends it but a signal or a database
 * that failed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/server.h"

/* sysexits.h, with a meaning for whoever restarts it. */
enum {
    EXIT_USAGE = 64,
    EXIT_DATA = 65,        /* a model or the database is damaged */
    EXIT_UNAVAILABLE = 69, /* the device cannot be had */
    EXIT_INTERNAL = 70,
    EXIT_LOST = 71, /* the required card failed while requests were served */
    EXIT_IO = 74,
    EXIT_LOCKED = 75, /* another daemon has the data; or the drain hung */
    EXIT_CONFIG = 78
};

enum {
    TICK_MS = 1000,
    STATUS_TICKS = 10,
    HARD_STOP_S = 8 /* beyond the drain */
};

static int exit_code(enum error_code code)
{
    switch (code) {
    case ERR_USAGE:
        return EXIT_USAGE;
    case ERR_CONFIG:
    case ERR_BAD_FIELD:
        return EXIT_CONFIG;
    case ERR_MODEL:
    case ERR_NO_CONTRACT:
    case ERR_STORAGE:
        return EXIT_DATA;
    case ERR_DEVICE:
        return EXIT_UNAVAILABLE;
    case ERR_LOCKED:
        return EXIT_LOCKED;
    case ERR_FILE:
    case ERR_STORAGE_FULL:
        return EXIT_IO;
    default:
        return EXIT_INTERNAL;
    }
}

static int fatal(const struct error *err)
{
    notify_status("%s", err->text);
    fprintf(stderr, "facenetd: %s\n", err->text);
    return exit_code(err->code);
}

/* Files that are opened later must not become the standard streams. */
static void open_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            _exit(EXIT_INTERNAL);
}

/* The OpenMP library reads its settings when it is loaded, before main: idle
 * threads must sleep, not spin beside ours, and OpenBLAS must not start
 * threads of its own. So where they are not set, set them and begin again. */
static void set_environment(char **argv)
{
    if (getenv("FACENETD_ENVIRONMENT_SET") ||
        (getenv("OMP_WAIT_POLICY") && getenv("OPENBLAS_NUM_THREADS"))) {
        unsetenv("FACENETD_ENVIRONMENT_SET");
        return;
    }
    if (setenv("OMP_WAIT_POLICY", "passive", 0) != 0 ||
        setenv("OPENBLAS_NUM_THREADS", "1", 0) != 0 ||
        setenv("FACENETD_ENVIRONMENT_SET", "1", 1) != 0)
        return;
    execv("/proc/self/exe", argv);
    unsetenv("FACENETD_ENVIRONMENT_SET"); /* slower, but it works without */
}

static void block_signals(sigset_t *set)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

static void hard_stop(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_LOCKED);
}

/* From here a second signal, or a drain that hangs, ends it at once. */
static void arm_hard_stop(const sigset_t *set, int64_t drain_ms)
{
    struct sigaction stop = {.sa_handler = hard_stop};

    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGALRM, &stop, NULL);
    alarm((unsigned)(drain_ms / 1000) + HARD_STOP_S);
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

static void reload(struct server *s, const char *path, int argc, char **argv)
{
    struct error err;
    struct config *c;
    char text[512];

    notify_reloading();
    c = config_load(path, argc, argv, &err);
    if (!c || server_reload(s, c, &err) != 0)
        log_event(LOG_LEVEL_ERROR, "reload", "kept=old why=%s",
                  log_quote(err.text, text, sizeof(text)));
    else
        log_event(LOG_LEVEL_INFO, "reload", "done=1");
    notify_ready();
}

static void status(struct server *s)
{
    struct serving *sv = servings_get(s->servings, SERVING_ACTIVE);
    struct gallery_size size;

    gallery_size(sv->gallery, &size);
    serving_put(sv);
    notify_status("serving on %s; %lld faces of %lld subjects; %d requests in "
                  "work",
                  s->address, (long long)size.n_faces,
                  (long long)size.n_subjects, atomic_load(&s->jobs));
}

/* Until a signal or a fault ends it; returns the exit code. */
static int serve(struct server *s, const sigset_t *set, const char *path,
                 int argc, char **argv)
{
    int64_t watchdog_us = notify_watchdog_us(), fed_us = server_now_us();
    int64_t tick_us = TICK_MS * 1000;

    if (watchdog_us > 0 && watchdog_us < tick_us)
        tick_us = watchdog_us;
    for (unsigned tick = 0;; tick++) {
        struct timespec wait = {.tv_sec = tick_us / 1000000,
                                .tv_nsec = tick_us % 1000000 * 1000};
        int signal_number = sigtimedwait(set, NULL, &wait);

        if (signal_number == SIGTERM || signal_number == SIGINT)
            return EXIT_SUCCESS;
        if (signal_number == SIGHUP)
            reload(s, path, argc, argv);
        if (store_failed(s->store)) {
            log_event(LOG_LEVEL_ERROR, "store",
                      "text=\"the database failed; ending\"");
            return EXIT_IO;
        }
        if (server_lost(s)) {
            log_event(LOG_LEVEL_ERROR, "device",
                      "text=\"the required card is lost; ending\"");
            return EXIT_LOST;
        }
        server_tend(s);
        if (tick % STATUS_TICKS == 0)
            status(s);
        if (watchdog_us > 0 && server_now_us() - fed_us >= watchdog_us / 2 &&
            server_alive(s)) {
            notify_watchdog();
            fed_us = server_now_us();
        }
    }
}

static void announce(struct server *s)
{
    const struct config *c = atomic_load(&s->config);
    const char *scheme = *c->tls_cert ? "https" : "http";
    struct serving *sv = servings_get(s->servings, SERVING_ACTIVE);
    const char *precision = precision_name(runner_precision(sv->runner));
    bool on_card = runner_on_card(sv->runner, NULL);
    char address[128], isa[128];
    struct card_status card;

    card_status(s->card, &card);
    log_event(LOG_LEVEL_INFO, "ready",
              "version=%s listen=%s model=%s device=%s isa=%s precision=%s "
              "ms=%lld",
              FACENETD_VERSION, log_quote(s->address, address, sizeof(address)),
              sv->model->id, on_card ? card.backend : s->device->backend->name,
              log_quote(s->device_info.isa, isa, sizeof(isa)), precision,
              (long long)((server_now_us() - s->started_us) / 1000));
    if (!getenv("JOURNAL_STREAM") && !getenv("NOTIFY_SOCKET"))
        printf("facenetd %s serves on %s://%s with model %s (%.12s), %s on %s\n"
               "try: curl %s-F image1=@a.jpg -F image2=@b.jpg %s://%s/verify\n",
               FACENETD_VERSION, scheme, s->address, sv->model->name,
               sv->model->id, precision,
               on_card ? card.name : s->device_info.name,
               atomic_load(&s->keys) ? "-H 'Authorization: Bearer KEY' " : "",
               scheme, s->address);
    serving_put(sv);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct config_command command;
    struct config *c;
    struct server *s;
    struct error err;
    int64_t drain_ms;
    sigset_t set;
    bool clean;
    int code;

    open_streams();
    set_environment(argv);
    umask(077);
    if (config_command(argc, argv, &command, &err) != 0)
        return fatal(&err);
    if (command.action == CONFIG_HELP) {
        config_print_help(stdout);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_IO;
    }
    if (command.action == CONFIG_VERSION) {
        puts("facenetd " FACENETD_VERSION);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_IO;
    }
    c = config_load(command.path, argc, argv, &err);
    if (!c)
        return err.code == ERR_FILE ? (fatal(&err), EXIT_CONFIG) : fatal(&err);
    if (command.action == CONFIG_PRINT) {
        config_print(c, stdout);
        config_free(c);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_IO;
    }
    block_signals(&set);
    server_log(c);
    drain_ms = c->drain_ms;
    s = server_start(c, &err);
    if (!s)
        return fatal(&err);
    notify_ready();
    announce(s);
    code = serve(s, &set, command.path, argc, argv);
    log_event(LOG_LEVEL_INFO, "stopping", "code=%d", code);
    notify_stopping();
    arm_hard_stop(&set, drain_ms);
    clean = server_stop(s);
    log_event(LOG_LEVEL_INFO, "stopped", "code=%d", code);
    if (!clean)
        _exit(code); /* the card's libraries would wait for it */
    return code;
}
