/* tests/unit/test_card_gallery.c - a gallery on the card that is played
 * (tests/fake_gpu.c): whatever the card does, a search gives what a gallery
 * without a card gives, and nobody waits for the keeper. What is freed out of
 * order, or two galleries on the card, aborts. */
#include "tests/unit/card_fixture.h"

#include <pthread.h>

#include "core/face/distance.h"
#include "store/gallery.h"

enum {
    NUMBERS = 24,
    ROWS = 6000, /* of these some thousand are worth bringing */
    LIMIT = 12
};
#define MODEL "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static struct card *volatile left; /* behind; for those who look for leaks */
static uint32_t seed = 3;

/* --- a gallery on the card, and the same without one ---------------------- */

struct twins {
    struct card *card;
    struct card_gallery *on_card;
    struct gallery *with, *without;
    int64_t last; /* face */
};

static void fill(float *v)
{
    for (int i = 0; i < NUMBERS; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    assert_true(distance_normalise(v, NUMBERS));
}

static void add(struct twins *t, const char *gallery, const float *v)
{
    char id[16];

    snprintf(id, sizeof(id), "s%d", (int)(++t->last % 500));
    assert_int_equal(gallery_add(t->with, gallery, id, "", t->last, v, NULL),
                     0);
    assert_int_equal(gallery_add(t->without, gallery, id, "", t->last, v, NULL),
                     0);
}

static void grow(struct twins *t, const char *gallery, int n)
{
    float v[NUMBERS];

    for (int i = 0; i < n; i++) {
        fill(v);
        add(t, gallery, v);
    }
}

static struct twins twins_on(struct card *c)
{
    struct error err = {0};
    struct twins t = {.card = c};

    t.with = gallery_new(MODEL, NUMBERS, &err);
    t.without = gallery_new(MODEL, NUMBERS, &err);
    assert_true(t.with && t.without);
    grow(&t, "a", ROWS);
    t.on_card = card_gallery_new(c, t.with, &err);
    assert_non_null(t.on_card);
    return t;
}

static void twins_free(struct twins *t)
{
    card_gallery_free(t->on_card, t->with);
    gallery_free(t->without);
}

static void same_for(struct twins *t, const char *gallery, const float *v)
{
    struct gallery_hit got[LIMIT], want[LIMIT];
    int n = gallery_search(t->with, gallery, v, 4, LIMIT, got, NULL);

    assert_int_equal(
        gallery_search(t->without, gallery, v, 4, LIMIT, want, NULL), n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(got[i].face, want[i].face);
        assert_true(got[i].distance == want[i].distance);
    }
}

static void same(struct twins *t)
{
    float v[NUMBERS];

    fill(v);
    same_for(t, "a", v);
}

static struct card_gallery_status status(struct twins *t)
{
    struct card_gallery_status st;

    card_gallery_status(t->on_card, &st);
    return st;
}

static struct card_status card_is(struct twins *t)
{
    struct card_status st;

    card_status(t->card, &st);
    return st;
}

/* What there is to bring, is there: about so many rows. */
static void wait_rows(struct twins *t, int64_t n)
{
    while (status(t).n_rows < n)
        pause_ms();
}

static void wait_detached(struct twins *t)
{
    while (status(t).attached)
        pause_ms();
}

static void wait_state(struct twins *t, enum card_state state)
{
    while (card_is(t).state != state)
        pause_ms();
}

/* The card answered the last search. */
static void same_on_card(struct twins *t)
{
    int64_t n = card_is(t).n_searches;

    same(t);
    assert_int_equal(card_is(t).n_searches, n + 1);
}

/* --- a good card ---------------------------------------------------------- */

static void test_brought(void **state)
{
    struct card *c;
    struct twins t;
    float v[NUMBERS];
    int asks = seen("asks");

    (void)state;
    tell("");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    same(&t);
    assert_false(status(&t).attached); /* nobody chose it */
    card_gallery_choose(c, t.on_card);
    wait_rows(&t, 4000);
    assert_true(status(&t).attached);
    same_on_card(&t);
    assert_true(seen("asks") > asks);
    /* Right after it was enrolled, and right after it is gone. */
    for (int i = 0; i < 600; i++) {
        fill(v);
        add(&t, "a", v);
        if (i % 20)
            continue;
        same_for(&t, "a", v);
        gallery_remove_face(t.with, t.last, NULL);
        gallery_remove_face(t.without, t.last, NULL);
        same_for(&t, "a", v);
        gallery_remove_face(t.with, i + 3000, NULL); /* on the card */
        gallery_remove_face(t.without, i + 3000, NULL);
        same(&t);
    }
    wait_rows(&t, 6400 - 2048); /* what came is brought */
    same_on_card(&t);
    /* What is gone from the gallery is overwritten on the card. */
    gallery_remove_all(t.with, "a", NULL);
    while (seen("rows") > 0)
        pause_ms();
    assert_int_equal(card_is(&t).n_search_failures, 0);
    twins_free(&t);
    assert_true(card_close(c));
}

static void test_not_there(void **state)
{
    struct card_options opt = {
        .device = "cuda", .plugin = fake, .timeout_ms = SLOW_MS};
    struct card *c;
    struct twins t;

    (void)state;
    tell("");
    c = card_new(&opt, NULL);
    assert_non_null(c);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    same(&t);
    assert_non_null(strstr(status(&t).why.text, "device-gallery-memory is 0"));
    twins_free(&t);
    assert_true(card_close(c));
    tell("absent");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    same(&t);
    assert_non_null(strstr(status(&t).why.text, "there is no card"));
    tell("");
    wait_rows(&t, 4000);
    same_on_card(&t);
    twins_free(&t);
    assert_true(card_close(c));
}

/* Another model's gallery is searched, and the first one's again. */
static void test_switch(void **state)
{
    struct card *c;
    struct twins one, two;

    (void)state;
    tell("");
    c = open_card("cuda", SLOW_MS, false);
    one = twins_on(c);
    card_gallery_choose(c, one.on_card);
    wait_rows(&one, 4000);
    two = twins_on(c);
    for (int turn = 0; turn < 3; turn++) {
        struct twins *to = turn % 2 ? &one : &two,
                     *from = turn % 2 ? &two : &one;
        card_gallery_choose(c, to->on_card);
        same(from); /* a request that still runs on it */
        same(to);
        wait_rows(to, 4000);
        assert_false(status(from).attached);
        assert_int_equal(status(from).n_rows, 0);
        same_on_card(to);
        same(from);
    }
    twins_free(&two); /* while it is on the card */
    same(&one);
    card_gallery_choose(c, one.on_card);
    wait_rows(&one, 4000);
    same_on_card(&one);
    assert_true(card_is(&one).n_searches >= 4); /* the other's are not lost */
    twins_free(&one);
    assert_true(card_close(c));
}

/* --- a card that fails ---------------------------------------------------- */

static void test_lost_in_search(void **state)
{
    struct error err = {0};

    (void)state;
    for (int turn = 0; turn < 2; turn++) { /* with a network, and without */
        struct runner *r = NULL;
        struct card *c;
        struct twins t;
        tell("");
        c = open_card("cuda", SLOW_MS, false);
        if (turn == 0)
            r = open_runner(c, PRECISION_F32);
        t = twins_on(c);
        card_gallery_choose(c, t.on_card);
        wait_rows(&t, 4000);
        tell("lost-search absent");
        same(&t);
        assert_int_equal(card_is(&t).n_search_failures, 1);
        wait_state(&t, CARD_DOWN);
        wait_detached(&t);
        assert_int_equal(card_is(&t).n_lost, 1);
        assert_true(strstr(status(&t).why.text, "there is no card") ||
                    strstr(status(&t).why.text, "fell off the bus"));
        same(&t);
        grow(&t, "a", 300);
        same(&t);
        assert_int_equal(card_is(&t).n_search_failures, 1);
        tell("");
        wait_rows(&t, 4000);
        same_on_card(&t);
        assert_int_equal(card_is(&t).n_opened, 2);
        assert_true(!r || runner_on_card(r, &err));
        if (r)
            run_good(r, 3);
        twins_free(&t);
        runner_free(r);
        assert_true(card_close(c));
    }
}

/* The card is lost to a network: the rows go with it, and come back. */
static void test_lost_in_run(void **state)
{
    struct runner *r;
    struct card *c;
    struct twins t;

    (void)state;
    tell("");
    c = open_card("cuda", SLOW_MS, false);
    r = open_runner(c, PRECISION_F32);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    wait_rows(&t, 4000);
    tell("lost");
    run_good(r, 3);
    same(&t);
    wait_detached(&t);
    same(&t);
    tell("");
    wait_rows(&t, 4000);
    same_on_card(&t);
    twins_free(&t);
    runner_free(r);
    assert_true(card_close(c));
}

/* Searches fail, the card does not: its networks stay. */
static void test_bad_search(void **state)
{
    static const char *const words[] = {"bad-search", "hang-search"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct runner *r;
        struct card *c;
        struct twins t;
        tell("");
        c = open_card("cuda", 300, false);
        r = open_runner(c, PRECISION_F32);
        t = twins_on(c);
        card_gallery_choose(c, t.on_card);
        wait_rows(&t, 4000);
        tell(words[i]);
        same(&t);
        wait_detached(&t);
        while (status(&t).why.code == ERR_NONE)
            pause_ms();
        assert_non_null(
            strstr(status(&t).why.text, i ? "no answer within" : "went wrong"));
        same(&t);
        run_good(r, 3);
        assert_int_equal(card_is(&t).state, CARD_UP);
        assert_int_equal(card_is(&t).n_failovers, 0);
        tell("");
        wait_rows(&t, 4000);
        same_on_card(&t);
        assert_int_equal(card_is(&t).n_lost, 0);
        twins_free(&t);
        runner_free(r);
        assert_true(card_close(c));
    }
}

/* --- memory --------------------------------------------------------------- */

static void test_memory(void **state)
{
    struct card *c;
    struct twins t;

    (void)state;
    tell("rows=1");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    while (status(&t).n_left_out == 0)
        pause_ms();
    assert_true(status(&t).attached);
    assert_in_range(status(&t).n_rows, 1, 4096);
    while (status(&t).why.code == ERR_NONE)
        pause_ms();
    assert_non_null(strstr(status(&t).why.text, "no memory on the card for "));
    same_on_card(&t);
    twins_free(&t);
    /* not even for one */
    tell("rows=0");
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    while (status(&t).why.code == ERR_NONE)
        pause_ms();
    assert_int_equal(card_is(&t).state, CARD_UP);
    same(&t);
    tell("");
    wait_rows(&t, 4000);
    assert_int_equal(status(&t).n_left_out, 0);
    same_on_card(&t);
    twins_free(&t);
    assert_true(card_close(c));
}

/* A network that finds no memory gets that of the rows. */
static void test_networks_first(void **state)
{
    struct runner *r;
    struct card *c;
    struct twins t;

    (void)state;
    tell("tight");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    wait_rows(&t, 4000);
    r = open_runner(c, PRECISION_F32);
    assert_true(runner_on_card(r, NULL));
    run_good(r, 5);
    same(&t);
    wait_rows(&t, 4000);
    same_on_card(&t);
    twins_free(&t);
    runner_free(r);
    assert_true(card_close(c));
}

/* --- nobody waits --------------------------------------------------------- */

/* The keeper is stuck in bringing rows. */
static void test_stuck_keeper(void **state)
{
    struct card *c;
    struct twins t, two;

    (void)state;
    tell("hang-put");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    while (!status(&t).attached)
        pause_ms();
    grow(&t, "a", 3000);
    gallery_remove_subject(t.with, "a", "s1", NULL);
    gallery_remove_subject(t.without, "a", "s1", NULL);
    same(&t);
    assert_int_equal(status(&t).n_rows, 0);
    two = twins_on(c);
    card_gallery_choose(c, two.on_card);
    same(&two);
    twins_free(&t);
    tell("");
    wait_rows(&two, 4000);
    same_on_card(&two);
    twins_free(&two);
    assert_true(card_close(c));
}

struct searcher {
    struct twins *t;
    pthread_t thread;
    int n_wrong;
};

static void *search_on(void *arg)
{
    struct searcher *s = arg;
    struct gallery_hit hits[LIMIT];
    float v[NUMBERS] = {1};

    for (int i = 0; i < 60; i++)
        s->n_wrong +=
            gallery_search(s->t->with, "a", v, 4, LIMIT, hits, NULL) != LIMIT;
    return NULL;
}

/* Searches, changes, a loss and a return, all at once. */
static void test_at_once(void **state)
{
    struct searcher s[3];
    struct card *c;
    struct twins t;

    (void)state;
    tell("");
    c = open_card("cuda", SLOW_MS, false);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    wait_rows(&t, 4000);
    for (int i = 0; i < 3; i++) {
        s[i] = (struct searcher){.t = &t};
        assert_int_equal(pthread_create(&s[i].thread, NULL, search_on, &s[i]),
                         0);
    }
    grow(&t, "a", 500);
    tell("lost-search");
    grow(&t, "a", 500);
    for (int i = 0; i < 3; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].n_wrong, 0);
    }
    same(&t);
    wait_state(&t, CARD_DOWN);
    tell("");
    wait_rows(&t, 4000);
    same_on_card(&t);
    twins_free(&t);
    assert_true(card_close(c));
}

/* What hangs is left behind: the last test, as nothing is freed. */
static void test_hung(void **state)
{
    struct runner *r;
    struct card *c;
    struct twins t;

    (void)state;
    tell("");
    c = open_card("cuda", 300, false);
    r = open_runner(c, PRECISION_F32);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    wait_rows(&t, 4000);
    tell("hang hang-search");
    same(&t);
    wait_state(&t, CARD_HUNG);
    wait_detached(&t);
    same(&t);
    run_good(r, 3);
    assert_int_equal(card_is(&t).n_search_failures, 1);
    assert_true(seen("rows") > 0); /* left to it */
    tell("");
    same(&t);
    twins_free(&t);
    t = twins_on(c);
    card_gallery_choose(c, t.on_card);
    same(&t);
    twins_free(&t);
    runner_free(r);
    left = c;
    assert_false(card_close(left));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_brought),
        cmocka_unit_test(test_not_there),
        cmocka_unit_test(test_switch),
        cmocka_unit_test(test_lost_in_search),
        cmocka_unit_test(test_lost_in_run),
        cmocka_unit_test(test_bad_search),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_networks_first),
        cmocka_unit_test(test_stuck_keeper),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_hung),
    };

    return cmocka_run_group_tests_name("card_gallery", tests, fixture_open,
                                       fixture_close);
}
