/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence: who comes and leaves, by name and without one, what a new listener is told, bursts, and
 * hand-overs.
 */
#include "presence_fixture.h"

static void a_member_comes_once_and_leaves_once(void **state)
{
    fx_hub_t hub;
    ev_client_t watch, late;
    int link, ann[3], bob, i;
    char *text;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    for (i = 0; i < 3; i++) {
        ann[i] = ev_subscribe(link, "room", as("Ann"), NULL);
    }
    bob = ev_subscribe(link, "room", as("Bob \\\"\xc3\xa4"), NULL);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    assert_told(&watch, "join", "\"name\": \"Bob \\\"\xc3\xa4\", \"count\": 4, \"members\": 2");
    late = listener(link);
    assert_told(&late, "presence",
                "\"count\": 4, \"members\": 2, \"names\": [\"Ann\", \"Bob \\\"\xc3\xa4\"]");
    text = info(link);
    assert_string_equal(text, "{\"receivers\": 2, \"id\": null, \"stored\": 0, \"oldest\": null, "
                              "\"presence\": {\"count\": 4, \"members\": 2, \"names\": [\"Ann\", "
                              "\"Bob \\\"\xc3\xa4\"]}}");
    free(text);
    for (i = 0; i < 3; i++) {
        close(ann[i]);
    }
    assert_count(link, 1);
    assert_silent(watch.fd); /* her grace */
    turn(&hub, 5100);
    assert_told(&watch, "leave", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(bob);
    assert_count(link, 0);
    turn(&hub, 5100);
    assert_told(&watch, "leave", "\"name\": \"Bob \\\"\xc3\xa4\", \"count\": 0, \"members\": 0");
    assert_told(&late, "leave", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(watch.fd);
    close(late.fd);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void who_comes_back_in_time_never_left(void **state)
{
    fx_hub_t hub;
    ev_client_t watch;
    int link, ann, bob;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(ann);
    assert_count(link, 0);
    turn(&hub, 4900);
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_count(link, 1);
    turn(&hub, 10000);
    bob = ev_subscribe(link, "room", as("Bob"), NULL);
    assert_told(&watch, "join", "\"name\": \"Bob\", \"count\": 2, \"members\": 2");
    /* Without a grace at once. */
    close(bob);
    assert_count(link, 1);
    turn(&hub, 5100);
    assert_told(&watch, "leave", "\"name\": \"Bob\", \"count\": 1, \"members\": 1");
    bob = ev_subscribe(link, "room", ", \"presence\": {\"grace\": 0, \"name\": \"Bob\"}", NULL);
    assert_told(&watch, "join", "\"name\": \"Bob\", \"count\": 2, \"members\": 2");
    close(bob);
    assert_told(&watch, "leave", "\"name\": \"Bob\", \"count\": 1, \"members\": 1");
    close(ann);
    close(watch.fd);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* Without a name, without presence, by GRIP, on the presence channel alone. */
static void who_is_counted(void **state)
{
    fx_hub_t hub;
    ev_client_t watch;
    int link, plain, off, grip, someone, both;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    plain = fx_subscribe(link, "raw", "[{\"name\": \"room/presence\"}]", "");
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    off = ev_subscribe(link, "room", "", NULL);
    grip = fx_subscribe(link, "raw", "[{\"name\": \"room\"}]", "");
    someone = ev_subscribe(link, "room", as(""), NULL);
    assert_told(&watch, "join", "\"count\": 1, \"members\": 0");
    assert_next(plain,
                "event: join\ndata: {\"channel\": \"room\", \"count\": 1, \"members\": 0}\n\n");
    both = ev_subscribe_as(link, "raw", "[{\"name\": \"room\"}, {\"name\": \"room/presence\"}]",
                           as("Cid"), NULL);
    assert_next(both,
                "event: presence\ndata: {\"channel\": \"room\", \"count\": 1, \"members\": 0, "
                "\"names\": []}\n\nevent: join\ndata: {\"channel\": \"room\", \"name\": "
                "\"Cid\", \"count\": 2, \"members\": 1}\n\n");
    assert_told(&watch, "join", "\"name\": \"Cid\", \"count\": 2, \"members\": 1");
    close(someone);
    assert_told(&watch, "leave", "\"count\": 1, \"members\": 1");
    close(plain);
    close(off);
    close(grip);
    close(both);
    close(watch.fd);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* A reservation that is given up was nobody. */
static void who_is_not_held_is_not_there(void **state)
{
    fx_hub_t hub;
    ev_client_t watch;
    int link, ann;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ev_reserve(link, "raw", "[{\"name\": \"room\"}]", as("Bob"), NULL);
    assert_count(link, 0);
    assert_int_equal(es_wire_send(link, ES_WIRE_RELEASE, 0, S(""), -1, FX_PATIENCE), ES_OK);
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(ann);
    close(watch.fd);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void a_burst_is_told_in_one(void **state)
{
    enum { MANY = 130 };
    fx_hub_t hub;
    ev_client_t watch;
    int link, fd[MANY], i;
    char name[16], want[4096];
    size_t n;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    for (i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "m%03d", i);
        fd[i] = ev_subscribe(link, "room", as(name), NULL);
    }
    for (i = 0; i < 10; i++) {
        snprintf(want, sizeof want, "\"name\": \"m%03d\", \"count\": %d, \"members\": %d", i, i + 1,
                 i + 1);
        assert_told(&watch, "join", want);
    }
    assert_count(link, MANY);
    assert_silent(watch.fd);
    turn(&hub, 1100);
    n = (size_t)snprintf(want, sizeof want, "\"count\": %d, \"members\": %d, \"names\": [", MANY,
                         MANY);
    for (i = 0; i < 100; i++) {
        n += (size_t)snprintf(want + n, sizeof want - n, "%s\"m%03d\"", i > 0 ? ", " : "", i);
    }
    snprintf(want + n, sizeof want - n, "], \"truncated\": true");
    assert_told(&watch, "presence", want);
    turn(&hub, 1100); /* the next window */
    close(fd[0]);
    assert_count(link, MANY - 1);
    turn(&hub, 5100);
    snprintf(want, sizeof want, "\"name\": \"m000\", \"count\": %d, \"members\": %d", MANY - 1,
             MANY - 1);
    assert_told(&watch, "leave", want);
    for (i = 1; i < MANY; i++) {
        close(fd[i]);
    }
    close(watch.fd);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* Nothing is told of the hand-over itself, and nobody is counted twice or forgotten. */
static void a_hand_over_is_no_event(void **state)
{
    fx_hub_t hub, next;
    ev_client_t watch;
    int link, reserving, ann[2], bob, cid;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    reserving = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ann[0] = ev_subscribe(link, "room", as("Ann"), NULL);
    ann[1] = ev_subscribe(link, "room", as("Ann"), NULL);
    bob = ev_subscribe(link, "room", as(""), NULL);
    ev_reserve(reserving, "raw", "[{\"name\": \"room\"}]", as("Cid"), NULL);
    start(&next, &hub);
    fx_hub_join(&hub, FX_NOT_COUNTED);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    assert_told(&watch, "join", "\"count\": 3, \"members\": 1");
    assert_count(link, 3);
    turn(&next, 20000);
    cid = fx_hold_fd(reserving);
    assert_told(&watch, "join", "\"name\": \"Cid\", \"count\": 4, \"members\": 2");
    close(bob);
    assert_told(&watch, "leave", "\"count\": 3, \"members\": 2");
    close(ann[0]);
    close(ann[1]);
    assert_count(link, 1);
    assert_silent(watch.fd);
    turn(&next, 5100);
    assert_told(&watch, "leave", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(cid);
    close(watch.fd);
    close(reserving);
    close(link);
    fx_hub_stop(&next, 0);
}

/* Who left just before it, and is or is not back by then: the listeners get the state, once. */
static void a_hand_over_in_a_grace(void **state)
{
    fx_hub_t hub, next;
    ev_client_t watch;
    int link, ann, bob;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    bob = ev_subscribe(link, "room", as("Bob"), NULL);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    assert_told(&watch, "join", "\"name\": \"Bob\", \"count\": 2, \"members\": 2");
    close(ann);
    close(bob);
    assert_count(link, 0);
    start(&next, &hub);
    fx_hub_join(&hub, FX_NOT_COUNTED);
    assert_count(link, 0);
    assert_silent(watch.fd);
    turn(&next, 5100);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    close(ann);
    close(watch.fd);
    close(link);
    fx_hub_stop(&next, 0);
}

/* What a slow listener has not been sent comes from the next hub, still without an id. */
static void events_on_the_way_are_handed_over(void **state)
{
    fx_hub_t hub, next;
    ev_client_t watch;
    int link, ann, i;
    char *big = es_repeat('x', 200000), line[4096] = "";

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    ev_reserve(link, "raw", "[{\"name\": \"room/presence\"}, {\"name\": \"other\"}]", as(""), NULL);
    watch = (ev_client_t) { .fd = fx_small_client(link) };
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    for (i = 0; i < 3; i++) {
        ev_publish(link, "other", big, "", NULL);
    }
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_count(link, 1);
    start(&next, &hub);
    fx_hub_join(&hub, FX_NOT_COUNTED);
    while (strcmp(line, "event: join") != 0) {
        char c;
        size_t n = 0;

        while (n < sizeof line - 1 && fx_read(watch.fd, &c, 1) == 1 && c != '\n') {
            line[n] = c;
            n += n < 100;
        }
        line[n] = '\0';
        assert_int_equal(c, '\n');
    }
    assert_next(watch.fd, "data: {\"channel\": \"room\", \"name\": \"Ann\", \"count\": 1, "
                          "\"members\": 1}\n\n");
    close(ann);
    close(watch.fd);
    close(link);
    fx_hub_stop(&next, 0);
    free(big);
}

/* A stream as the hub before describes it; `name` "": none. */
static int send_held(int to, const char *channel, const char *name)
{
    char text[1024];
    int pair[2];
    const int n = snprintf(text, sizeof text,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"%s\"}]}, "
                           "\"delivery\": {\"framing\": \"raw\", \"events\": true%s}, \"resume\": "
                           "{\"behind\": [0], \"continuous\": [false], \"bytes\": 0, \"idle\": 0, "
                           "\"ending\": 0}}",
                           channel, as(name));

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(
        es_wire_send(to, ES_WIRE_HELD, 0, (es_str_t) { text, (size_t)n + 1 }, pair[1], FX_PATIENCE),
        ES_OK);
    close(pair[1]);
    return pair[0];
}

/* Whatever may not have been told, or has been lost on the way: the listeners get the state. When
 * nothing is, they get nothing. */
static void what_the_hub_before_owes_is_paid(void **state)
{
    static const struct {
        es_str_t done; /* n 0: it breaks off */
        bool loses, owes;
    } cases[] = {
        { S("{\"order\": 3, \"event\": 2, \"owed\": [\"room\", 7, \"\", \"other\"]}\0{}"), false,
          true },
        { S("{\"order\": 3, \"event\": 2, \"owed\": true}\0{}"), false, true },
        { S("{\"order\": 3, \"event\": 2, \"owed\": []}\0{}"), true, true },
        { S(""), false, true },
        { S("{\"order\": 3, \"event\": 2, \"owed\": []}\0{}"), false, false },
        { S("{\"order\": 3}\0{}"), false, false }, /* a build without presence */
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        fx_hub_t hub;
        ev_client_t watch = { 0 };
        int old, ann, bob, link;

        start_after(&hub, &old);
        watch.fd = send_held(old, "room/presence", "");
        ann = send_held(old, "room", "Ann");
        if (cases[i].loses) {
            assert_int_equal(es_wire_send(old, ES_WIRE_HELD, 0, S("{\0"), -1, FX_PATIENCE), ES_OK);
        }
        if (cases[i].done.n > 0) {
            assert_int_equal(
                es_wire_send(old, ES_WIRE_DONE, ES_DONE_NUMBER, cases[i].done, -1, FX_PATIENCE),
                ES_OK);
        }
        else {
            close(old);
        }
        link = fx_link(&hub);
        assert_count(link, 1);
        turn(&hub, 5100);
        if (cases[i].owes) {
            assert_told(&watch, "presence", "\"count\": 1, \"members\": 1, \"names\": [\"Ann\"]");
        }
        bob = ev_subscribe(link, "room", as("Bob"), NULL);
        assert_told(&watch, "join", "\"name\": \"Bob\", \"count\": 2, \"members\": 2");
        close(ann);
        close(bob);
        close(watch.fd);
        close(link);
        if (cases[i].done.n > 0) {
            close(old);
        }
        fx_hub_stop(&hub, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_comes_once_and_leaves_once),
        cmocka_unit_test(who_comes_back_in_time_never_left),
        cmocka_unit_test(who_is_counted),
        cmocka_unit_test(who_is_not_held_is_not_there),
        cmocka_unit_test(a_burst_is_told_in_one),
        cmocka_unit_test(a_hand_over_is_no_event),
        cmocka_unit_test(a_hand_over_in_a_grace),
        cmocka_unit_test(events_on_the_way_are_handed_over),
        cmocka_unit_test(what_the_hub_before_owes_is_paid),
    };

    return cmocka_run_group_tests_name("presence", tests, fx_apr_up, fx_apr_down);
}
