/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole hub: intake and loops in threads of their own, driven over the wire as httpd's children
 * drive it. Every test counts the process's descriptors before and after. ZeroMQ is test_pull.c's.
 */
#include "hub_fixture.h"

#define LAG ((size_t)ES_HUB_LAG_DEFAULT)

/* ---- the life of a stream ---- */

static void holds_and_delivers(void **state)
{
    fx_hub_t hub;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_stat(link, "streams", 1);
    assert_int_equal(fx_stat(link, "reserved"), 0);
    assert_int_equal(fx_stat(link, "channels"), 1);
    assert_int_equal(fx_publish(link, "a", "hello"), ES_OK);
    assert_int_equal(fx_publish(link, "b", "for nobody"), ES_OK);
    assert_int_equal(fx_publish(link, "a", "world!"), ES_OK);
    assert_next(client, "5\r\nhello\r\n6\r\nworld!\r\n");
    assert_stat(link, "deliveries", 2);
    assert_int_equal(fx_stat(link, "published"), 3);
    close(client);
    assert_stat(link, "streams", 0);
    assert_stat(link, "channels", 0);
    assert_stat(link, "ended.client", 1);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void delivers_what_came_between_reserve_and_hold(void **state)
{
    fx_hub_t hub;
    int link, publisher, raw, client;

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    link = fx_link(&hub);
    publisher = fx_link(&hub);
    raw = fx_subscribe(publisher, "raw", "[{\"name\": \"a\"}]", "");
    assert_int_equal(fx_publish(publisher, "a", "before"), ES_OK);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_stat(publisher, "reserved", 1);
    assert_int_equal(fx_publish(publisher, "a", "<between 1>"), ES_OK);
    assert_int_equal(fx_publish(publisher, "a", "<between 2>"), ES_OK);
    client = fx_hold_fd(link);
    assert_stat(publisher, "streams", 2);
    assert_int_equal(fx_publish(publisher, "a", "<after>"), ES_OK);
    assert_next(client, "<between 1><between 2><after>");
    assert_next(raw, "before<between 1><between 2><after>");
    assert_silent(client);
    close(client);
    close(raw);
    close(link);
    close(publisher);
    fx_hub_stop(&hub, 0);
}

static void merges_channels_in_the_order_of_publishing(void **state)
{
    fx_hub_t hub;
    int link, client;
    char text[16];
    char want[64 * 4 + 1] = "";
    int i;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    /* A channel that is named twice counts once. */
    client = fx_subscribe(
        link, "raw", "[{\"name\": \"a\"}, {\"name\": \"b\"}, {\"name\": \"a\"}, {\"name\": \"\"}]",
        "");
    for (i = 0; i < 64; i++) {
        const char *const names[] = { "b", "a", "" };

        snprintf(text, sizeof text, "%03d,", i);
        memcpy(want + (size_t)i * 4, text, 5);
        assert_int_equal(fx_publish(link, names[i % 3], text), ES_OK);
    }
    fx_check_next(client, es_str(want), __FILE__, __LINE__);
    assert_silent(client);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void a_dead_link_gives_up_its_reservation(void **state)
{
    fx_hub_t hub;
    int link, watcher;

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    watcher = fx_link(&hub);
    link = fx_link(&hub);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(fx_stat(watcher, "reserved"), 1);
    assert_int_equal(fx_stat(watcher, "channels"), 1);
    close(link);
    assert_stat(watcher, "reserved", 0);
    assert_stat(watcher, "channels", 0);
    close(watcher);
    fx_hub_stop(&hub, 0);
}

static void releases_a_reservation(void **state)
{
    fx_hub_t hub;
    int link;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(es_wire_send(link, ES_WIRE_RELEASE, 1, S(""), -1, FX_PATIENCE), ES_OK);
    assert_stat(link, "reserved", 0);
    /* Without one it does nothing, and the link can be used again. */
    assert_int_equal(es_wire_send(link, ES_WIRE_RELEASE, 2, S(""), -1, FX_PATIENCE), ES_OK);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"b\"}]", ""));
    /* The second of two in a row takes the place of the first. */
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"c\"}]", ""));
    assert_stat(link, "reserved", 1);
    assert_stat(link, "channels", 1);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* The child keeps its copy of the client's socket for a while after the hub has ended the stream:
 * the hub must not hear of that socket any more. */
static void forgets_a_socket_that_others_still_have(void **state)
{
    fx_hub_t hub;
    int link, i;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    for (i = 0; i < 20; i++) {
        int pair[2];
        char c;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
        assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE), ES_OK);
        shutdown(pair[0], SHUT_WR);
        assert_stat(link, "streams", 0);
        /* The hub has shut down its side: the client sees the end although pair[1] is open. */
        assert_end(pair[0]);
        close(pair[0]); /* an event on pair[1] */
        assert_int_equal(fx_publish(link, "a", "nobody is there"), ES_OK);
        assert_int_equal(recv(pair[1], &c, 1, MSG_DONTWAIT), 0);
        close(pair[1]);
        assert_stat(link, "ended.client", i + 1);
    }
    close(link);
    fx_hub_stop(&hub, 0);
}

static void a_reader_that_stalls_is_cut_and_the_others_get_all(void **state)
{
    enum { ITEMS = 600, SIZE = 4000 };
    fx_hub_t hub;
    char *content = es_repeat('x', SIZE);
    char *got = malloc(SIZE);
    int link, stalled, quick, i;

    (void)state;
    assert_non_null(got);
    fx_hub_start(&hub, 1, 64 * 1024, NULL, 0);
    link = fx_link(&hub);
    stalled = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    quick = fx_subscribe(link, "raw", "[{\"name\": \"a\"}, {\"name\": \"b\"}]", "");
    for (i = 0; i < ITEMS; i++) {
        assert_int_equal(fx_publish(link, i % 2 ? "a" : "b", content), ES_OK);
        assert_int_equal(fx_publish(link, "a", content), ES_OK);
        assert_int_equal(fx_read(quick, got, SIZE), SIZE);
        assert_memory_equal(got, content, SIZE);
        assert_int_equal(fx_read(quick, got, SIZE), SIZE);
        assert_memory_equal(got, content, SIZE);
    }
    assert_stat(link, "ended.lag", 1);
    assert_stat(link, "streams", 1);
    assert_true(fx_log_count(&hub.log, "EventStreamMaxLag") == 1);
    assert_silent(quick);
    /* What the stalled one did get is whole up to its end, without a terminating chunk. */
    for (i = 0; fx_read(stalled, got, 5) == 5; i++) {
        assert_memory_equal(got, "fa0\r\n", 5);
        if (fx_read(stalled, got, SIZE) < SIZE) {
            break;
        }
        assert_memory_equal(got, content, SIZE);
        if (fx_read(stalled, got, 2) < 2) {
            break;
        }
    }
    assert_in_range(i, 10, ITEMS);
    free(got);
    free(content);
    close(stalled);
    close(quick);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* More than the log may hold, in one go: a quick reader is not cut, whatever batches it comes in.
 */
static void a_burst_larger_than_the_log_cuts_nobody(void **state)
{
    enum { ITEMS = 100, SIZE = 1000 };
    fx_hub_t hub;
    json_t *items = json_array();
    char *want = malloc(ITEMS * SIZE), *body;
    int link, stalled, clients[3], round, i;

    (void)state;
    assert_non_null(want);
    for (i = 0; i < ITEMS; i++) {
        memset(want + i * SIZE, 'a' + i % 26, SIZE);
        json_array_append_new(items,
                              json_pack("{s:s, s:{s:{s:s%}}}", "channel", "a", "formats",
                                        "http-stream", "content", want + i * SIZE, (size_t)SIZE));
    }
    items = json_pack("{s:o}", "items", items);
    body = json_dumps(items, 0);
    json_decref(items);
    fx_hub_start(&hub, 1, ES_HUB_LAG_MIN, NULL, 0);
    link = fx_link(&hub);
    stalled = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    for (i = 0; i < 3; i++) {
        clients[i] = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    }
    for (round = 0; round < 10; round++) {
        assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, es_str(body), NULL), ES_OK);
        for (i = 0; i < 3; i++) {
            fx_check_next(clients[i], (es_str_t) { want, ITEMS * SIZE }, __FILE__, __LINE__);
        }
    }
    assert_stat(link, "ended.lag", 1);
    assert_int_equal(fx_stat(link, "streams"), 3);
    for (i = 0; i < 3; i++) {
        close(clients[i]);
    }
    close(stalled);
    close(link);
    free(body);
    free(want);
    fx_hub_stop(&hub, 0);
}

static void close_action_ends_all_streams_of_the_channel(void **state)
{
    static const char close_item[] =
        "{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"bye\"}}},"
        "{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"action\": \"close\"}}},"
        "{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"too late\"}}},"
        "{\"channel\": \"b\", \"formats\": {\"http-stream\": {\"content\": \"still there\"}}}]}";
    fx_hub_t hub;
    int link, i;
    int clients[12], other;

    (void)state;
    fx_hub_start(&hub, 3, LAG, NULL, 0);
    link = fx_link(&hub);
    for (i = 0; i < 12; i++) {
        clients[i] = fx_subscribe(link, i % 2 ? "chunked" : "raw",
                                  "[{\"name\": \"a\"}, {\"name\": \"b\"}]", "");
    }
    other = fx_subscribe(link, "raw", "[{\"name\": \"b\"}]", "");
    assert_stat(link, "streams", 13);
    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, es_str(close_item), NULL), ES_OK);
    for (i = 0; i < 12; i++) {
        if (i % 2) {
            assert_next(clients[i], "3\r\nbye\r\n0\r\n\r\n");
        }
        else {
            assert_next(clients[i], "bye");
        }
        assert_end(clients[i]);
        close(clients[i]);
    }
    assert_next(other, "still there");
    assert_stat(link, "ended.action", 12);
    assert_stat(link, "channels", 1);
    close(other);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void sends_keep_alives_by_its_clock(void **state)
{
    fx_hub_t hub;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]",
                          ", \"keep-alive\": {\"content\": \":\\n\\n\", \"timeout\": 3600}");
    assert_stat(link, "streams", 1);
    atomic_store(&hub.ahead_ms, 3600 * 1000 - 2000);
    assert_int_equal(fx_publish(link, "a", "x"), ES_OK); /* wakes the loop, and is a delivery */
    assert_next(client, "1\r\nx\r\n");
    atomic_fetch_add(&hub.ahead_ms, 3600 * 1000);
    assert_next(client, "3\r\n:\n\n\r\n");
    atomic_fetch_add(&hub.ahead_ms, 3600 * 1000);
    assert_next(client, "3\r\n:\n\n\r\n");
    assert_silent(client);
    assert_stat(link, "keep_alives", 2);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* An application may ask for more seconds than there are milliseconds in 32 bits: these are 704 ms
 * over. */
static void takes_the_longest_keep_alive(void **state)
{
    fx_hub_t hub;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]",
                          ", \"keep-alive\": {\"content\": \"k\", \"timeout\": 4294968, "
                          "\"mode\": \"interval\"}");
    assert_stat(link, "streams", 1);
    atomic_fetch_add(&hub.ahead_ms, 4000 * 1000);
    assert_int_equal(fx_publish(link, "a", "x"), ES_OK);
    assert_next(client, "x");
    atomic_fetch_add(&hub.ahead_ms, 4000 * 1000);
    assert_int_equal(fx_publish(link, "a", "y"), ES_OK);
    assert_next(client, "y");
    assert_int_equal(fx_stat(link, "keep_alives"), 0);
    atomic_fetch_add(&hub.ahead_ms, (uint64_t)4294968 * 1000);
    assert_next(client, "k");
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* ---- the end of the hub ---- */

static void stop_ends_every_stream(void **state)
{
    enum { STREAMS = 31 };
    fx_hub_t hub;
    int link, reserved, i;
    int clients[STREAMS];

    (void)state;
    fx_hub_start(&hub, 3, LAG, NULL, 0);
    link = fx_link(&hub);
    reserved = fx_link(&hub);
    for (i = 0; i < STREAMS; i++) {
        clients[i] = fx_subscribe(link, i % 2 ? "chunked" : "raw", "[{\"name\": \"a\"}]", "");
    }
    fx_reserve(reserved, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(fx_publish(link, "a", "last"), ES_OK);
    fx_hub_stop(&hub, STREAMS + 2);
    for (i = 0; i < STREAMS; i++) {
        if (i % 2) {
            assert_next(clients[i], "4\r\nlast\r\n0\r\n\r\n");
        }
        else {
            assert_next(clients[i], "last");
        }
        assert_end(clients[i]);
        close(clients[i]);
    }
    assert_link_dead(link);
    assert_link_dead(reserved);
    close(link);
    close(reserved);
}

static void stops_when_the_door_is_closed(void **state)
{
    fx_hub_t hub;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_stat(link, "streams", 1);
    close(hub.door);
    hub.door = -1;
    fx_hub_join(&hub, 2);
    assert_next(client, "0\r\n\r\n");
    assert_end(client);
    close(client);
    close(link);
}

static void starts_and_stops_at_once(void **state)
{
    fx_hub_t hub;
    int i;

    (void)state;
    for (i = 0; i < 10; i++) {
        fx_hub_start(&hub, i % 5, LAG, NULL, 0);
        fx_hub_stop(&hub, 0);
    }
}

static void a_hello_waits_in_the_door(void **state)
{
    fx_hub_t hub, next;
    int link, pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_connect(pair[0], &link), ES_OK);
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    fx_hub_stop(&hub, 0);
    /* The next hub reads a door that was written before it started. */
    memset(&next, 0, sizeof next);
    fx_hub_start(&next, 1, LAG, NULL, 0);
    fx_hub_stop(&next, 0);
    next.fds = fx_fd_count() - 3;
    fx_log_init(&next.log);
    next.door = pair[0];
    next.config.door = pair[1];
    next.config.stop = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(pthread_create(&next.thread, NULL, fx_hub_thread, &next), 0);
    assert_int_equal(fx_stat(link, "streams"), 0);
    close(link);
    fx_hub_stop(&next, 0);
}

/* ---- stats ---- */

static void speaks_prometheus(void **state)
{
    fx_hub_t hub;
    char *text = NULL;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    assert_int_equal(fx_publish(link, "a", "12345"), ES_OK);
    assert_next(client, "12345");
    assert_stat(link, "bytes", 5);
    assert_int_equal(fx_ask(link, ES_WIRE_STATS, S("prometheus"), &text), ES_OK);
    assert_non_null(strstr(text, "\n# TYPE eventstream_streams gauge\neventstream_streams 1\n"));
    assert_non_null(strstr(text, "\n# TYPE eventstream_bytes_total counter\n"
                                 "eventstream_bytes_total 5\n"));
    assert_non_null(strstr(text, "\neventstream_ended_total{reason=\"lag\"} 0\n"));
    free(text);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_and_delivers),
        cmocka_unit_test(delivers_what_came_between_reserve_and_hold),
        cmocka_unit_test(merges_channels_in_the_order_of_publishing),
        cmocka_unit_test(a_dead_link_gives_up_its_reservation),
        cmocka_unit_test(releases_a_reservation),
        cmocka_unit_test(forgets_a_socket_that_others_still_have),
        cmocka_unit_test(a_reader_that_stalls_is_cut_and_the_others_get_all),
        cmocka_unit_test(a_burst_larger_than_the_log_cuts_nobody),
        cmocka_unit_test(close_action_ends_all_streams_of_the_channel),
        cmocka_unit_test(sends_keep_alives_by_its_clock),
        cmocka_unit_test(takes_the_longest_keep_alive),
        cmocka_unit_test(stop_ends_every_stream),
        cmocka_unit_test(stops_when_the_door_is_closed),
        cmocka_unit_test(starts_and_stops_at_once),
        cmocka_unit_test(a_hello_waits_in_the_door),
        cmocka_unit_test(speaks_prometheus),
    };
    return cmocka_run_group_tests_name("hub", tests, fx_apr_up, fx_apr_down);
}
