/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence over whole hubs whose clock stands still until the test turns it: who comes and leaves,
 * by name and without one, what a new listener is told, bursts, hand-overs, and that Last-Event-ID
 * knows nothing of it.
 */
#include "events_fixture.h"

static uint64_t stopped_clock(void *ctx)
{
    return 1000000 + atomic_load(&((fx_hub_t *)ctx)->ahead_ms);
}

static void start_with(fx_hub_t *hub, const fx_hub_t *old, size_t max_lag, const char *dir)
{
    int pair[2];

    memset(hub, 0, sizeof *hub);
    if (old) {
        hub->fds = old->fds;
        pair[0] = dup(old->door);
        pair[1] = dup(old->config.door);
        atomic_store(&hub->ahead_ms, atomic_load(&old->ahead_ms));
    }
    else {
        hub->fds = fx_fd_count();
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    }
    hub->door = pair[0];
    fx_hub_make(hub, 2, max_lag, NULL, 0, pair[1]);
    hub->config.now_ms = stopped_clock;
    hub->config.history = dir;
    hub->config.predecessor = old ? fx_heir(old) : 0;
    assert_int_equal(pthread_create(&hub->thread, NULL, fx_hub_thread, hub), 0);
}

static void start(fx_hub_t *hub, const fx_hub_t *old)
{
    start_with(hub, old, LAG, NULL);
}

/* The intake looks at its clock every 100 ms while something is due. */
static void turn(fx_hub_t *hub, uint64_t ms)
{
    atomic_fetch_add(&hub->ahead_ms, ms);
}

/* `name` "": none. */
static const char *as(const char *name)
{
    static char more[128];

    snprintf(more, sizeof more, ", \"presence\": {\"grace\": 5000%s%s%s}",
             *name ? ", \"name\": \"" : "", name, *name ? "\"" : "");
    return more;
}

static void check_line(ev_client_t *c, const char *want, const char *file, int at)
{
    char line[4096] = "(end)";

    if (!ev_line(c, line, sizeof line) || strcmp(line, want) != 0) {
        print_error("%s:%d: got \"%s\", want \"%s\"\n", file, at, line, want);
        _fail(file, at);
    }
}

/* The next event, without an id. */
static void check_told(ev_client_t *c, const char *event, const char *data, const char *file,
                       int at)
{
    char want[4096];

    snprintf(want, sizeof want, "event: %s", event);
    check_line(c, want, file, at);
    snprintf(want, sizeof want, "data: {\"channel\": \"room\", %s}", data);
    check_line(c, want, file, at);
    check_line(c, "", file, at);
}
#define assert_told(c, event, data) check_told((c), (event), (data), __FILE__, __LINE__)

static ev_client_t listener(int link)
{
    return (ev_client_t) { .fd = ev_subscribe(link, "room/presence", as(""), NULL) };
}

static char *info(int link)
{
    char *text = NULL;

    assert_int_equal(fx_ask(link, ES_WIRE_INFO,
                            S("{\"channel\": \"room/presence\", \"presence\": true}"), &text),
                     ES_OK);
    return text;
}

/* Waits until the intake counts that many streams in the room. */
static void check_count(int link, int want, const char *file, int at)
{
    const uint64_t until = fx_now_ms(NULL) + FX_PATIENCE;
    char part[32];
    bool found = false;

    snprintf(part, sizeof part, "{\"count\": %d,", want);
    while (!found && fx_now_ms(NULL) < until) {
        char *text = info(link);

        found = strstr(text, part) != NULL;
        free(text);
    }
    if (!found) {
        print_error("%s:%d: it never counts %d\n", file, at, want);
        _fail(file, at);
    }
}
#define assert_count(link, n) check_count((link), (n), __FILE__, __LINE__)

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

/* ---- Last-Event-ID ---- */

static const char *from(const char *id)
{
    static char more[256];

    snprintf(more, sizeof more, "%s, \"from\": {\"id\": \"%s\"}", as("Zoe"), id);
    return more;
}

static bool is_reset(int link, const char *id)
{
    ev_reserved_t told;

    close(ev_subscribe(link, "news", from(id), &told));
    return told.reset;
}

/* Without a history an id is good until the next message; who comes and leaves is none. */
static void no_id_is_outdated_by_it(void **state)
{
    fx_hub_t hub, next;
    char id[ES_EVENT_ID_SIZE];
    ev_client_t watch;
    int link, ann;

    (void)state;
    start(&hub, NULL);
    link = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ev_publish(link, "news", "1", "", id);
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    assert_told(&watch, "join", "\"name\": \"Ann\", \"count\": 1, \"members\": 1");
    assert_false(is_reset(link, id));
    start(&next, &hub);
    fx_hub_join(&hub, FX_NOT_COUNTED);
    assert_false(is_reset(link, id));
    ev_publish(link, "news", "2", "", NULL);
    assert_true(is_reset(link, id));
    close(ann);
    close(watch.fd);
    close(link);
    fx_hub_stop(&next, 0);
}

/* 1000 bytes that begin with the number. */
static void publish_number(int link, int number)
{
    char text[1001];

    memset(text, 'x', 1000);
    snprintf(text, 5, "%04d", number);
    text[4] = 'x';
    text[1000] = '\0';
    ev_publish(link, "news", text, "", NULL);
}

/* With one it is replayed around them, beyond the place where they stand in the order: none is
 * taken for replayed. */
static void a_replay_leaves_none_out(void **state)
{
    static const char channels[] = "[{\"name\": \"news\"}, {\"name\": \"room/presence\"}]";
    enum { MANY = 60 }; /* more than the log may hold */
    sx_t *x = sx_make();
    char id[ES_EVENT_ID_SIZE], line[2000];
    ev_reserved_t told;
    ev_client_t watch;
    fx_hub_t hub;
    int link, other, ann, bob, joins = 0, news = 1;

    (void)state;
    start_with(&hub, NULL, 16 * 1024, x->dir);
    link = fx_link(&hub);
    other = fx_link(&hub);
    watch = listener(link);
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    ev_publish(link, "news", "0", "", id);
    ann = ev_subscribe(link, "room", as("Ann"), NULL);
    publish_number(link, 1);
    ev_reserve(link, "raw", channels, from(id), &told);
    assert_false(told.reset);
    bob = ev_subscribe(other, "room", as("Bob"), NULL);
    while (++news < MANY) {
        publish_number(other, news);
    }
    close(watch.fd);
    watch = (ev_client_t) { .fd = fx_hold_fd(link) };
    assert_told(&watch, "presence", "\"count\": 1, \"members\": 1, \"names\": [\"Ann\"]");
    for (news = 1; joins < 2 || news < MANY;) {
        assert_true(ev_line(&watch, line, sizeof line));
        joins += strcmp(line, "event: join") == 0;
        if (strncmp(line, "data: {", 7) == 0) {
            assert_string_equal(line, "data: {\"channel\": \"room\", \"name\": \"Bob\", "
                                      "\"count\": 2, \"members\": 2}");
            joins++;
        }
        else if (strncmp(line, "data: ", 6) == 0) {
            assert_int_equal((int)strtol(line + 6, NULL, 10), news++);
        }
    }
    assert_int_equal(joins, 2); /* its event, and its data */
    close(ann);
    close(bob);
    close(watch.fd);
    close(link);
    close(other);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

/* One that has fallen behind on a presence channel cannot get it from the history: it is cut, and
 * told the state when it comes back. */
static void a_slow_listener_is_cut(void **state)
{
    sx_t *x = sx_make();
    char line[4096];
    ev_client_t watch;
    fx_hub_t hub;
    int link, i;

    (void)state;
    start_with(&hub, NULL, 16 * 1024, x->dir);
    link = fx_link(&hub);
    ev_reserve(link, "raw", "[{\"name\": \"room/presence\"}, {\"name\": \"news\"}]", as(""), NULL);
    watch = (ev_client_t) { .fd = fx_small_client(link) };
    assert_told(&watch, "presence", "\"count\": 0, \"members\": 0, \"names\": []");
    for (i = 0; i < 400; i++) { /* the socket is full */
        publish_number(link, i);
    }
    for (i = 0; i < 60; i++) { /* each costs its log more than 256 bytes, twice */
        const int one = ev_subscribe(link, "room", as(""), NULL);

        assert_count(link, 1);
        close(one);
        assert_count(link, 0);
        turn(&hub, 1100);
    }
    while (fx_read(watch.fd, line, sizeof line) > 0) {}
    assert_stat(link, "ended.lag", 1);
    close(watch.fd);
    watch = listener(link);
    check_line(&watch, "event: presence", __FILE__, __LINE__);
    close(watch.fd);
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
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
        cmocka_unit_test(no_id_is_outdated_by_it),
        cmocka_unit_test(a_replay_leaves_none_out),
        cmocka_unit_test(a_slow_listener_is_cut),
    };

    return cmocka_run_group_tests_name("presence", tests, fx_apr_up, fx_apr_down);
}
