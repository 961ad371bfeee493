/* tests/unit/test_jobs_record.c - a job's record: what is written is what is
 * read, lines of a trainer that nobody trusts, how a process's end becomes the
 * job's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/jobs_priv.h"

static struct jobs_record rec, other; /* large: not on the stack */

static enum jobs_event tell(const char *line)
{
    return jobs_record_event(&rec, line, strlen(line));
}

static int reset(void **state)
{
    (void)state;
    memset(&rec, 0, sizeof(rec));
    memset(&other, 0, sizeof(other));
    return 0;
}

/* --- lines ------------------------------------------------------------- */

static void lines_are_taken(void **state)
{
    (void)state;
    assert_int_equal(tell("{\"event\":\"phase\",\"text\":\"train\"}"),
                     JOBS_EVENT_PHASE);
    assert_string_equal(rec.phase, "train");
    assert_int_equal(
        tell("{\"event\":\"device\",\"text\":\"cuda, a card, bf16\"}"),
        JOBS_EVENT_DEVICE);
    assert_string_equal(rec.device, "cuda, a card, bf16");
    assert_int_equal(
        tell("{\"event\":\"step\",\"step\":12,\"epoch\":1,\"batch\":2,"
             "\"batches\":10,\"loss\":0.25,\"rate\":0.1,\"triplets\":7,"
             "\"faces_per_s\":3.5,\"left_s\":null}"),
        JOBS_EVENT_STEP);
    assert_int_equal(rec.step, 12);
    assert_int_equal(rec.n_batches, 10);
    assert_true(rec.loss == 0.25 && rec.faces_per_s == 3.5);
    assert_true(isnan(rec.left_s));
    assert_int_equal(rec.n_curve, 1);
    assert_int_equal(rec.curve[0].triplets, 7);
    assert_int_equal(
        tell("{\"event\":\"evaluation\",\"when\":\"before\",\"set\":\"lfw\","
             "\"step\":0,\"accuracy\":0.9,\"accuracy_std\":0.01,\"val\":"
             "{\"0.1\":0.8,\"0.01\":0.7,\"0.001\":null}}"),
        JOBS_EVENT_EVALUATION);
    assert_true(rec.evaluations[0].val[1] == 0.7);
    assert_true(isnan(rec.evaluations[0].val[2]));
    assert_int_equal(tell("{\"event\":\"warning\",\"text\":\"a\\u0007b\"}"),
                     JOBS_EVENT_WARNING);
    assert_string_equal(rec.warnings[0], "a b");
    assert_int_equal(
        tell("{\"event\":\"checkpoint\",\"step\":12,\"path\":\"/x\"}"),
        JOBS_EVENT_CHECKPOINT);
    assert_int_equal(tell("{\"event\":\"result\",\"outcome\":\"refused\","
                          "\"text\":\"worse\",\"model\":null}"),
                     JOBS_EVENT_RESULT);
    assert_string_equal(rec.outcome, "refused");
    assert_int_equal(rec.n_bad_lines, 0);
}

/* Each is counted and changes nothing else. */
static void lines_that_say_nothing(void **state)
{
    static const char *const lines[] = {
        "",
        "x",
        "[]",
        "{}",
        "5",
        "\"step\"",
        "{\"event\":5}",
        "{\"event\":\"step\",\"step\":1.5}",
        "{\"event\":\"step\",\"step\":\"1\"}",
        "{\"event\":\"step\",\"step\":-1}",
        "{\"event\":\"step\",\"epoch\":99999999999}",
        "{\"event\":\"step\",\"loss\":NaN}",
        "{\"event\":\"step\",\"loss\":1e999}",
        "{\"event\":\"step\",\"loss\":\"low\"}",
        "{\"event\":\"step\",\"step\":1,\"step\":2}",
        "{\"event\":\"phase\"}",
        "{\"event\":\"device\",\"text\":7}",
        "{\"event\":\"warning\",\"text\":7}",
        "{\"event\":\"warning\",\"text\":\"\xff\"}",
        "{\"event\":\"evaluation\",\"when\":\"never\",\"set\":\"held\"}",
        "{\"event\":\"evaluation\",\"when\":\"after\",\"set\":\"mine\"}",
        "{\"event\":\"evaluation\",\"when\":\"after\",\"set\":\"held\","
        "\"val\":[1]}",
        "{\"event\":\"evaluation\",\"when\":\"after\",\"set\":\"held\","
        "\"val\":{\"0.1\":\"x\"}}",
        "{\"event\":\"checkpoint\",\"step\":1}",
        "{\"event\":\"checkpoint\",\"step\":\"1\",\"path\":\"/x\"}",
        "{\"event\":\"checkpoint\",\"step\":1,\"path\":\"\"}",
        "{\"event\":\"result\"}",
        "{\"event\":\"result\",\"outcome\":\"splendid\"}",
        "{\"event\":\"else\",\"text\":\"x\"}",
    };
    int n = (int)(sizeof(lines) / sizeof(lines[0]));

    (void)state;
    for (int i = 0; i < n; i++)
        if (tell(lines[i]) != JOBS_EVENT_BAD)
            fail_msg("taken: %s", lines[i]);
    assert_int_equal(rec.n_bad_lines, n);
    rec.n_bad_lines = 0;
    assert_memory_equal(&rec, &other, sizeof(rec));
}

/* The curve has the whole run, however long, and its steps rise evenly. */
static void curve_is_thinned(void **state)
{
    char line[96];

    (void)state;
    for (int i = 0; i < 40000; i++) {
        snprintf(line, sizeof(line),
                 "{\"event\":\"step\",\"step\":%d,\"loss\":%d}", i, 2 * i);
        assert_int_equal(tell(line), JOBS_EVENT_STEP);
        assert_true(rec.n_curve <= JOBS_CURVE_MAX);
    }
    assert_true(rec.n_curve > JOBS_CURVE_MAX / 2);
    assert_int_equal(rec.curve[0].step, 0);
    for (int i = 1; i < rec.n_curve; i++) {
        assert_int_equal(rec.curve[i].step - rec.curve[i - 1].step,
                         rec.curve_every);
        assert_true(rec.curve[i].loss == 2.0 * (double)rec.curve[i].step);
    }
    assert_true(39999 - rec.curve[rec.n_curve - 1].step < rec.curve_every);
}

static void evaluations_before_and_after_stay(void **state)
{
    char line[128];

    (void)state;
    for (int i = 0; i < 3 * JOBS_EVALUATIONS_MAX; i++) {
        snprintf(line, sizeof(line),
                 "{\"event\":\"evaluation\",\"when\":\"%s\",\"set\":\"held\","
                 "\"step\":%d}",
                 i < 2 ? "before" : "during", i);
        assert_int_equal(tell(line), JOBS_EVENT_EVALUATION);
    }
    tell("{\"event\":\"evaluation\",\"when\":\"after\",\"set\":\"held\"}");
    assert_int_equal(rec.n_evaluations, JOBS_EVALUATIONS_MAX);
    assert_string_equal(rec.evaluations[0].when, "before");
    assert_string_equal(rec.evaluations[1].when, "before");
    assert_int_equal(rec.evaluations[2].step, 3 * JOBS_EVALUATIONS_MAX - 61);
    assert_string_equal(rec.evaluations[JOBS_EVALUATIONS_MAX - 1].when,
                        "after");
    for (int i = 0; i < 2 * JOBS_WARNINGS_MAX; i++) {
        snprintf(line, sizeof(line), "{\"event\":\"warning\",\"text\":\"%d\"}",
                 i);
        tell(line);
    }
    assert_int_equal(rec.n_warnings, JOBS_WARNINGS_MAX);
    assert_string_equal(rec.warnings[0], "16");
}

/* --- texts ------------------------------------------------------------- */

static void texts_are_utf8(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"a\tb\nc\x1b[0m", "a b c [0m"},
        {"\xc3\xa5 \xe2\x82\xac \xf0\x9f\x98\x80",
         "\xc3\xa5 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xff\xc3", "??"},
        {"\xc0\xaf", "??"},
        {"\xed\xa0\x80", "???"},
        {"\xf5\x80\x80\x80", "????"},
        {"\xe2\x82", "??"},
    };
    char out[16];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        jobs_text_set(out, sizeof(out), cases[i].in, strlen(cases[i].in),
                      false);
        assert_string_equal(out, cases[i].out);
    }
    jobs_text_set(out, 5, "abc\xe2\x82\xac", 6, false);
    assert_string_equal(out, "abc"); /* no half of a character */
    jobs_text_set(out, sizeof(out), "a\nb\0c", 5, true);
    assert_string_equal(out, "a\nb c");
}

/* --- the file ---------------------------------------------------------- */

static void fill(struct jobs_record *r)
{
    char line[128];

    snprintf(r->id, sizeof(r->id), "5-00c0ffee");
    r->number = 5;
    r->turn = 7;
    r->state = JOBS_STOPPED;
    r->created_s = 1800000000;
    r->n_resumed = 2;
    r->pid = 4321;
    r->pid_start = 98765432101;
    snprintf(r->asked.folder, sizeof(r->asked.folder), "people/\xc3\xa5");
    snprintf(r->asked.arguments, sizeof(r->asked.arguments),
             "{\"alpha\":\"0.2\"}");
    snprintf(r->checkpoint, sizeof(r->checkpoint), "run/models/a/checkpoint-9");
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof(line),
                 "{\"event\":\"step\",\"step\":%d,\"loss\":0.1,\"left_s\":%d}",
                 i, 1000 - i);
        jobs_record_event(r, line, strlen(line));
    }
    snprintf(line, sizeof(line),
             "{\"event\":\"evaluation\",\"when\":"
             "\"before\",\"set\":\"held\",\"val\":{"
             "\"0.1\":0.5,\"0.01\":0.25,\"0.001\":0.125}}");
    jobs_record_event(r, line, strlen(line));
    snprintf(line, sizeof(line), "{\"event\":\"warning\",\"text\":\"w\"}");
    jobs_record_event(r, line, strlen(line));
}

/* In all that is told of them, which is every field. */
static void assert_same(const struct jobs_record *a,
                        const struct jobs_record *b)
{
    json_t *of_a = jobs_record_json(a), *of_b = jobs_record_json(b);

    assert_non_null(of_a);
    assert_true(json_equal(of_a, of_b));
    json_decref(of_a);
    json_decref(of_b);
}

static void a_record_comes_back(void **state)
{
    char dir[] = "/tmp/test_jobs_XXXXXX", path[128];
    struct error err = {.code = ERR_NONE};
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fill(&rec);
    assert_int_equal(jobs_record_save(&rec, dir, &err), 0);
    snprintf(path, sizeof(path), "%s/record.json", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    memset(&other, 0xee, sizeof(other));
    assert_int_equal(jobs_record_load(&other, dir, &err), 0);
    assert_same(&rec, &other);
    rec.state = JOBS_QUEUED; /* over the old one */
    assert_int_equal(jobs_record_save(&rec, dir, &err), 0);
    assert_int_equal(jobs_record_load(&other, dir, &err), 0);
    assert_int_equal(other.state, JOBS_QUEUED);
    unlink(path);
    assert_int_equal(jobs_record_load(&other, dir, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
    assert_int_equal(rmdir(dir), 0); /* nothing was left beside it */
    assert_int_equal(jobs_record_save(&rec, dir, &err), -1);
    assert_int_equal(err.code, ERR_FILE);
}

/* Every cut of a good file, and a byte changed at many places: an error or a
 * whole record, never half of one taken for good. */
static void damaged_files(void **state)
{
    char dir[] = "/tmp/test_jobs_XXXXXX", path[128], *text;
    struct error err;
    size_t len;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(rec.id, sizeof(rec.id), "1-00000000");
    rec.number = 1;
    assert_int_equal(jobs_record_save(&rec, dir, &err), 0);
    snprintf(path, sizeof(path), "%s/record.json", dir);
    f = fopen(path, "re");
    text = calloc(1, 65536);
    assert_non_null(f);
    assert_non_null(text);
    len = fread(text, 1, 65535, f);
    fclose(f);
    for (size_t cut = 0; cut < len; cut++) {
        f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, cut, f), cut);
        fclose(f);
        assert_int_equal(jobs_record_load(&other, dir, &err), -1);
        assert_int_equal(err.code, ERR_BAD_JSON);
    }
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(jobs_record_load(&other, dir, &err), -1);
    unlink(path);
    rmdir(dir);
    free(text);
}

/* --- ends -------------------------------------------------------------- */

static int exited(int code)
{
    return code << 8;
}

static void how_it_ended(void **state)
{
    static const struct {
        int status;
        enum jobs_why why;
        const char *outcome, *text; /* of the trainer */
        bool model, checkpoint;
        enum jobs_state want;
        const char *says;
    } cases[] = {
        {0, JOBS_WHY_NOT, "published", "better", true, false, JOBS_PUBLISHED,
         "better"},
        /* It was done before it heard of the end. */
        {0, JOBS_WHY_CANCEL, "published", "", true, false, JOBS_PUBLISHED,
         "finished"},
        {0, JOBS_WHY_NOT, "published", "better", false, false, JOBS_FAILED,
         "left no model"},
        {0, JOBS_WHY_NOT, "", "", true, false, JOBS_FAILED, "left no model"},
        {1, JOBS_WHY_NOT, "refused", "VAL fell", false, false, JOBS_REFUSED,
         "VAL fell"},
        {1, JOBS_WHY_NOT, "", "", false, true, JOBS_FAILED, "last line"},
        {2, JOBS_WHY_NOT, "failed", "NaN", false, true, JOBS_FAILED, "NaN"},
        {2, JOBS_WHY_NOT, "", "", false, false, JOBS_FAILED, "last line"},
        {127, JOBS_WHY_NOT, "", "", false, false, JOBS_FAILED, "last line"},
        {3, JOBS_WHY_CANCEL, "stopped", "x", false, true, JOBS_CANCELLED,
         "cancelled; it can go on"},
        {3, JOBS_WHY_END, "stopped", "x", false, true, JOBS_STOPPED,
         "daemon was stopped; it can go on"},
        {3, JOBS_WHY_TIME, "stopped", "x", false, false, JOBS_STOPPED,
         "job-max-minutes; there is no checkpoint"},
        {3, JOBS_WHY_NOT, "stopped", "x", false, true, JOBS_STOPPED,
         "told to stop"},
        {-SIGKILL, JOBS_WHY_NOT, "", "", false, true, JOBS_KILLED, "memory"},
        {-SIGSEGV, JOBS_WHY_NOT, "", "", false, false, JOBS_KILLED,
         "signal 11"},
        {-SIGKILL, JOBS_WHY_CANCEL, "", "", false, true, JOBS_CANCELLED,
         "was killed"},
        {-SIGTERM, JOBS_WHY_END, "", "", false, false, JOBS_STOPPED,
         "daemon was stopped; there is no"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int status = cases[i].status;

        reset(NULL);
        rec.state = JOBS_RUNNING;
        rec.cancelling = cases[i].why == JOBS_WHY_CANCEL;
        snprintf(rec.outcome, sizeof(rec.outcome), "%s", cases[i].outcome);
        snprintf(rec.text, sizeof(rec.text), "%s", cases[i].text);
        if (cases[i].checkpoint)
            snprintf(rec.checkpoint, sizeof(rec.checkpoint), "run/c");
        jobs_run_outcome(&rec, status < 0 ? -status : exited(status),
                         cases[i].why, cases[i].model, "last line");
        if (rec.state != cases[i].want || !strstr(rec.text, cases[i].says))
            fail_msg("case %zu: %s, '%s'", i, jobs_state_name(rec.state),
                     rec.text);
        assert_false(rec.cancelling);
        assert_int_equal(jobs_record_resumable(&rec),
                         cases[i].checkpoint && rec.state != JOBS_PUBLISHED);
    }
    reset(NULL);
    jobs_run_outcome(&rec, exited(5), JOBS_WHY_NOT, false, "");
    assert_string_equal(rec.text, "the trainer ended with code 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_are_taken, reset),
        cmocka_unit_test_setup(lines_that_say_nothing, reset),
        cmocka_unit_test_setup(curve_is_thinned, reset),
        cmocka_unit_test_setup(evaluations_before_and_after_stay, reset),
        cmocka_unit_test_setup(texts_are_utf8, reset),
        cmocka_unit_test_setup(a_record_comes_back, reset),
        cmocka_unit_test_setup(damaged_files, reset),
        cmocka_unit_test_setup(how_it_ended, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
