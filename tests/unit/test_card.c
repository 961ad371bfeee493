/* tests/unit/test_card.c - the card's life, with the card that is played
 * (tests/fake_gpu.c) and a tiny network: whatever it does, a batch gets the
 * processor's numbers, and what it holds is freed in order (else it aborts). */
#include "tests/unit/card_fixture.h"

#include <pthread.h>

static struct card *volatile left; /* behind; for those who look for leaks */

struct fixture {
    struct card *card;
    struct runner *runner;
    struct card_status st;
};

static struct fixture open_both(const char *words, const char *device,
                                int timeout_ms)
{
    struct fixture x;

    tell(words);
    x.card = open_card(device, timeout_ms, false);
    x.runner = open_runner(x.card, PRECISION_F32);
    card_status(x.card, &x.st);
    return x;
}

static void close_both(struct fixture *x)
{
    runner_free(x->runner);
    assert_true(card_close(x->card));
}

static void wait_state(struct fixture *x, enum card_state state)
{
    for (;;) {
        card_status(x->card, &x->st);
        if (x->st.state == state)
            return;
        pause_ms();
    }
}

static void wait_on_card(struct fixture *x)
{
    while (!runner_on_card(x->runner, NULL))
        pause_ms();
    card_status(x->card, &x->st);
}

static void test_up(void **state)
{
    struct fixture x = open_both("", "auto", SLOW_MS);
    struct batch_room room = runner_room(x.runner);

    (void)state;
    assert_int_equal(x.st.state, CARD_UP);
    assert_string_equal(x.st.backend, "cuda");
    assert_true(x.st.bytes_used > 0 && x.st.bytes_used < x.st.bytes_total);
    assert_true(runner_on_card(x.runner, NULL));
    assert_int_equal(runner_precision(x.runner), PRECISION_F32);
    assert_int_equal(room.slots, 2);
    assert_int_equal(room.faces, 8);
    assert_int_equal(runner_most_slots(x.runner), 2);
    assert_true(runner_time_us(x.runner, 8) > 0); /* measured when loaded */
    for (int n = 1; n <= 16; n++)
        run_good(x.runner, n);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.n_failovers, 0);
    close_both(&x);
}

static void test_none(void **state)
{
    static const struct {
        const char *words, *device;
        enum card_state state;
        const char *why;
    } rows[] = {{"absent", "auto", CARD_NONE, "there is no card 0"},
                {"absent", "cuda:3", CARD_DOWN, "there is no card 3"},
                {"", "cpu", CARD_OFF, "the setting device is cpu"}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture x = open_both(rows[i].words, rows[i].device, SLOW_MS);
        assert_int_equal(x.st.state, rows[i].state);
        assert_string_equal(x.st.setting, rows[i].device);
        assert_non_null(strstr(x.st.why, rows[i].why));
        assert_false(runner_on_card(x.runner, NULL));
        assert_int_equal(runner_room(x.runner).slots, 1);
        assert_int_equal(runner_room(x.runner).faces, 4);
        run_good(x.runner, 9);
        tell("");
        if (rows[i].state == CARD_DOWN) {
            wait_on_card(&x);
            run_good(x.runner, 9);
        }
        close_both(&x);
    }
}

static void test_lost_and_back(void **state)
{
    struct fixture x = open_both("", "cuda", SLOW_MS);
    int opened = seen("opened");

    (void)state;
    tell("lost");
    run_good(x.runner, 5);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.state, CARD_DOWN);
    assert_int_equal(x.st.n_lost, 1);
    assert_int_equal(x.st.n_failovers, 1);
    assert_true(x.st.retry_s >= 1);
    assert_non_null(strstr(x.st.why, "fell off the bus"));
    run_good(x.runner, 5); /* not tried on it: no failover */
    tell("");
    wait_on_card(&x);
    run_good(x.runner, 5);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.n_failovers, 1);
    assert_int_equal(x.st.n_opened, 2);
    assert_int_equal(seen("opened"), opened + 1);
    close_both(&x);
}

/* A model that comes and one that goes while it is down. */
static void test_models_while_down(void **state)
{
    struct fixture x = open_both("", "cuda", SLOW_MS);
    struct runner *old = x.runner;

    (void)state;
    tell("lost absent");
    run_good(old, 3);
    x.runner = open_runner(x.card, PRECISION_F32);
    assert_false(runner_on_card(x.runner, NULL));
    run_good(x.runner, 3);
    runner_free(old);
    tell("");
    wait_on_card(&x);
    run_good(x.runner, 3);
    old = x.runner; /* and while it is up */
    x.runner = open_runner(x.card, PRECISION_F32);
    assert_true(runner_on_card(x.runner, NULL));
    run_good(old, 3);
    run_good(x.runner, 3);
    runner_free(old);
    run_good(x.runner, 3);
    close_both(&x);
}

/* That a card is lost shows when a model is loaded, too. */
static void test_lost_while_loading(void **state)
{
    struct fixture x = open_both("", "cuda", SLOW_MS);
    struct runner *more;

    (void)state;
    tell("lost");
    more = open_runner(x.card, PRECISION_F32);
    wait_state(&x, CARD_DOWN);
    assert_int_equal(x.st.n_lost, 1);
    run_good(x.runner, 3);
    run_good(more, 3);
    tell("");
    wait_on_card(&x);
    run_good(x.runner, 3);
    /* refused for what was asked, with another one loaded: not lost */
    runner_free(more);
    more = open_runner(x.card, PRECISION_TF32);
    assert_false(runner_on_card(more, NULL));
    assert_true(runner_on_card(x.runner, NULL));
    run_good(more, 3);
    runner_free(more);
    close_both(&x);
}

static void test_refused(void **state)
{
    static const struct {
        const char *words, *why;
    } rows[] = {{"memory", "no memory on the card"},
                {"plans=4", "no memory on the card for 8 faces"},
                {"wrong", "does not hold on the card in f32"}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture x = open_both(rows[i].words, "cuda", SLOW_MS);
        struct error why = {0};
        assert_int_equal(x.st.state, CARD_UP);
        assert_false(runner_on_card(x.runner, &why));
        if (!strstr(why.text, rows[i].why))
            fail_msg("%s: %s", rows[i].words, why.text);
        run_good(x.runner, 7);
        tell("");
        wait_on_card(&x);
        run_good(x.runner, 7);
        assert_int_equal(x.st.n_lost, 0);
        close_both(&x);
    }
}

static void test_precisions(void **state)
{
    struct fixture x;

    (void)state;
    tell("f16");
    x.card = open_card("cuda", SLOW_MS, false);
    x.runner = open_runner(x.card, PRECISION_AUTO);
    assert_int_equal(runner_precision(x.runner), PRECISION_F16);
    run_good(x.runner, 8);
    close_both(&x);
    tell("");
    x.card = open_card("cuda", SLOW_MS, false);
    x.runner = open_runner(x.card, PRECISION_AUTO);
    assert_int_equal(runner_precision(x.runner), PRECISION_F32);
    assert_true(runner_on_card(x.runner, NULL));
    close_both(&x);
    x.card = open_card("cuda", SLOW_MS, false);
    x.runner = open_runner(x.card, PRECISION_TF32);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.state, CARD_DOWN);
    assert_non_null(strstr(x.st.why, "tf32"));
    run_good(x.runner, 8);
    close_both(&x);
}

static void test_no_numbers(void **state)
{
    struct fixture x = open_both("", "cuda", SLOW_MS);

    (void)state;
    tell("nan");
    run_good(x.runner, 3);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.state, CARD_UP);
    assert_int_equal(x.st.n_failovers, 1);
    close_both(&x);
}

static void test_required(void **state)
{
    struct fixture x;

    (void)state;
    tell("");
    x.card = open_card("cuda", SLOW_MS, true);
    x.runner = open_runner(x.card, PRECISION_F32);
    tell("lost");
    run_good(x.runner, 3);
    card_status(x.card, &x.st);
    assert_int_equal(x.st.state, CARD_DOWN);
    assert_int_equal(x.st.retry_s, 0); /* it is not tried again */
    close_both(&x);
}

/* Two threads run at once, and the card dies under both. */
static void *run_many(void *arg)
{
    for (int i = 0; i < 50; i++)
        run_good(arg, 1 + i % 9);
    return NULL;
}

static void test_two_threads(void **state)
{
    struct fixture x = open_both("", "cuda", SLOW_MS);
    pthread_t threads[2];

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 2; i++)
            assert_int_equal(
                pthread_create(&threads[i], NULL, run_many, x.runner), 0);
        if (turn > 0)
            tell("lost absent");
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
    }
    run_good(x.runner, 1); /* at the latest now */
    wait_state(&x, CARD_DOWN);
    close_both(&x);
}

/* What hangs is left behind: the last test, as nothing is freed. */
static void test_hung(void **state)
{
    struct fixture x = open_both("", "cuda", 300);
    struct runner *more;

    (void)state;
    wait_on_card(&x);
    tell("hang");
    run_good(x.runner, 5);
    wait_state(&x, CARD_HUNG);
    assert_non_null(strstr(x.st.why, "did not answer within 300 ms"));
    assert_int_equal(x.st.retry_s, 0);
    run_good(x.runner, 5);
    more = open_runner(x.card, PRECISION_F32);
    assert_false(runner_on_card(more, NULL));
    run_good(more, 5);
    tell(""); /* it comes back, and finds nobody */
    run_good(x.runner, 5);
    runner_free(more);
    runner_free(x.runner);
    left = x.card;
    assert_false(card_close(left));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_lost_and_back),
        cmocka_unit_test(test_models_while_down),
        cmocka_unit_test(test_lost_while_loading),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_precisions),
        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_hung),
    };

    return cmocka_run_group_tests_name("card", tests, fixture_open,
                                       fixture_close);
}
