/* tests/unit/test_stats.c - counters as Prometheus reads them: every line of
 * the exposition, cumulative buckets, twins added up, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/stats.h"

static char *scrape(void)
{
    static const struct stats_gauge gauges[] = {
        {"facenetd_gallery_faces", "Faces.", 42, 0},
        {"facenetd_commits_total", "Commits.", 1.5, 1},
    };
    size_t len = 0;
    char *text = stats_text(gauges, 2, &len);

    assert_non_null(text);
    assert_int_equal(strlen(text), len);
    return text;
}

/* The value of the sample with this name and labels; -1: not there. */
static double sample(const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return atof(line + len + 1);
        if (!*line)
            break;
    }
    return -1;
}

static void histogram_is_cumulative(void **state)
{
    char *text;

    (void)state;
    stats_observe(STATS_SEARCH, 0.0001); /* on a bound: in its bucket */
    stats_observe(STATS_SEARCH, 0.002);
    stats_observe(STATS_SEARCH, 0.002);
    stats_observe(STATS_SEARCH, 99);
    stats_observe(STATS_SEARCH, NAN); /* not counted, nor these */
    stats_observe(STATS_SEARCH, INFINITY);
    stats_observe(STATS_SEARCH, -1);
    text = scrape();
#define AT(le) sample(text, "facenetd_search_seconds_bucket{le=\"" le "\"}")
    assert_true(AT("0.0001") == 1);
    assert_true(AT("0.001") == 1);
    assert_true(AT("0.0025") == 3);
    assert_true(AT("10") == 3);
    assert_true(AT("+Inf") == 4);
#undef AT
    assert_true(sample(text, "facenetd_search_seconds_count") == 4);
    assert_true(fabs(sample(text, "facenetd_search_seconds_sum") - 99.0041) <
                1e-5);
    free(text);
}

static void faces_have_their_own_buckets(void **state)
{
    char *text;

    (void)state;
    stats_observe(STATS_BATCH_SIZE, 16);
    text = scrape();
    assert_true(sample(text, "facenetd_batch_faces_bucket{le=\"12\"}") == 0);
    assert_true(sample(text, "facenetd_batch_faces_bucket{le=\"16\"}") == 1);
    free(text);
}

static void requests_errors_gauges(void **state)
{
    static const char *const method = "POST", *const route = "/verify";
    static const char *const code = "no_face";
    char *text;

    (void)state;
    stats_request(method, route, 200);
    stats_request(method, route, 200);
    stats_request(method, route, 422);
    stats_error(code);
    text = scrape();
    assert_true(sample(text, "facenetd_requests_total{method=\"POST\",route="
                             "\"/verify\",status=\"200\"}") == 2);
    assert_true(sample(text, "facenetd_requests_total{method=\"POST\",route="
                             "\"/verify\",status=\"422\"}") == 1);
    assert_true(sample(text, "facenetd_errors_total{code=\"no_face\"}") == 1);
    assert_true(sample(text, "facenetd_gallery_faces") == 42);
    assert_true(sample(text, "facenetd_commits_total") == 1.5);
    assert_non_null(strstr(text, "# TYPE facenetd_gallery_faces gauge\n"));
    assert_non_null(strstr(text, "# TYPE facenetd_commits_total counter\n"));
    free(text);
}

/* "# HELP name text", "# TYPE name kind", "name{labels} number": nothing
 * else, each name introduced before its samples. */
static void every_line_is_exposition(void **state)
{
    char *text = scrape(), *save = NULL, name[128] = "";

    (void)state;
    assert_int_equal(text[strlen(text) - 1], '\n');
    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *end;
        if (sscanf(line, "# HELP %127s", name) == 1)
            continue;
        if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_int_equal(strncmp(line + 7, name, strlen(name)), 0);
            continue;
        }
        assert_int_equal(strncmp(line, name, strlen(name)), 0);
        end = strrchr(line, ' ');
        assert_non_null(end);
        assert_true(isdigit((unsigned char)end[1]));
        strtod(end + 1, &end);
        assert_int_equal(*end, '\0');
    }
    free(text);
}

static const char *const busy_method = "GET", *const busy_route = "/busy";

static void *recorder(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10000; i++) {
        stats_request(busy_method, busy_route, 200 + i % 2);
        stats_observe(STATS_STORE, 0.003);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    pthread_t threads[4];
    char *text;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, recorder, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    text = scrape();
    assert_true(sample(text, "facenetd_requests_total{method=\"GET\",route="
                             "\"/busy\",status=\"200\"}") == 20000);
    assert_true(sample(text, "facenetd_requests_total{method=\"GET\",route="
                             "\"/busy\",status=\"201\"}") == 20000);
    assert_true(sample(text, "facenetd_store_seconds_count") == 40000);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram_is_cumulative),
        cmocka_unit_test(faces_have_their_own_buckets),
        cmocka_unit_test(requests_errors_gauges),
        cmocka_unit_test(every_line_is_exposition),
        cmocka_unit_test(nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
