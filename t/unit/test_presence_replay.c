/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence and Last-Event-ID: its events have no id and are in no history, so no id is outdated by
 * them, no replay steps over them, and who misses one is cut.
 */
#include "presence_fixture.h"

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
        cmocka_unit_test(no_id_is_outdated_by_it),
        cmocka_unit_test(a_replay_leaves_none_out),
        cmocka_unit_test(a_slow_listener_is_cut),
    };

    return cmocka_run_group_tests_name("presence_replay", tests, fx_apr_up, fx_apr_down);
}
