/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over between whole hubs (handover.c, takeover.c): what a client, a child or a publisher
 * would notice of it. What goes wrong on the way is in test_handover_fail.c, ZeroMQ in test_tail.c.
 */
#include "handover_fixture.h"

static void live_streams_notice_nothing(void **state)
{
    enum { STREAMS = 6 };
    fx_hub_t a, b, c;
    int link, client[STREAMS], i;

    (void)state;
    fx_hub_start(&a, 2, LAG, NULL, 0);
    link = fx_link(&a);
    for (i = 0; i < STREAMS; i++) {
        client[i] = fx_subscribe(
            link, i % 2 ? "raw" : "chunked",
            i < 2 ? "[{\"name\": \"a\"}]" : "[{\"name\": \"b\"}, {\"name\": \"a\"}]", "");
    }
    assert_int_equal(fx_publish(link, "a", "one"), ES_OK);
    fx_hub_next(&b, &a, 3, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(link, "a", "two"), ES_OK);
    assert_int_equal(fx_publish(link, "b", "three"), ES_OK);
    assert_stat(link, "streams", STREAMS);
    assert_stat(link, "reserved", 0);
    assert_stat(link, "channels", 2);
    assert_stat(link, "published", 3);
    fx_hub_next(&c, &b, 1, LAG);
    fx_hub_join(&b, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(link, "a", "four"), ES_OK);
    for (i = 0; i < STREAMS; i++) {
        if (i % 2) {
            assert_next(client[i], "onetwo");
            if (i >= 2) {
                assert_next(client[i], "three");
            }
            assert_next(client[i], "four");
        }
        else {
            assert_next(client[i], "3\r\none\r\n3\r\ntwo\r\n");
            if (i >= 2) {
                assert_next(client[i], "5\r\nthree\r\n");
            }
            assert_next(client[i], "4\r\nfour\r\n");
        }
    }
    /* Counters go on; a client that goes is seen. */
    assert_stat(link, "published", 4);
    assert_stat(link, "deliveries", 3 * STREAMS + STREAMS - 2);
    assert_stat(link, "ended.client", 0);
    close(client[0]);
    assert_stat(link, "streams", STREAMS - 1);
    assert_stat(link, "ended.client", 1);
    fx_hub_stop(&c, FX_NOT_COUNTED);
    for (i = 1; i < STREAMS; i++) {
        if (i % 2 == 0) {
            assert_next(client[i], "0\r\n\r\n");
        }
        assert_end(client[i]);
        close(client[i]);
    }
    close(link);
    assert_int_equal(fx_fd_count(), a.fds);
}

static void an_empty_hub_is_handed_over(void **state)
{
    fx_hub_t a, b;
    int link;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    fx_hub_next(&b, &a, 4, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    link = fx_link(&b);
    assert_stat(link, "streams", 0);
    assert_int_equal(fx_log_count(&b.log, "took 0 streams and 0 links"), 1);
    close(link);
    fx_hub_stop(&b, 0);
}

/* Readers that stopped at different places of one log, in several loops; some are on two channels,
 * whose messages come in the order of publishing. */
static void slow_readers_miss_nothing(void **state)
{
    enum { READERS = 9, N = 300 };
    fx_hub_t a, b, c;
    int link, client[READERS], i;

    (void)state;
    fx_hub_start(&a, 3, LAG, NULL, 0);
    link = fx_link(&a);
    for (i = 0; i < READERS; i++) {
        fx_reserve(link,
                   fx_hold("raw",
                           i % 3 ? "[{\"name\": \"a\"}]" : "[{\"name\": \"b\"}, {\"name\": \"a\"}]",
                           ""));
        client[i] = i < 5 ? fx_small_client(link) : fx_hold_fd(link);
    }
    publish_numbers(link, "a", 0, N);
    publish_numbers(link, "b", 0, N / 2);
    read_numbers(client[1], "a", 0, 100);
    read_numbers(client[3], "a", 0, 200);
    fx_hub_next(&b, &a, 2, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    publish_numbers(link, "a", N, N + 50);
    read_numbers(client[1], "a", 100, 150);
    fx_hub_next(&c, &b, 4, LAG);
    fx_hub_join(&b, FX_NOT_COUNTED);
    publish_numbers(link, "a", N + 50, N + 100);
    assert_stat(link, "ended.lag", 0);
    for (i = 0; i < READERS; i++) {
        read_numbers(client[i], "a", i == 1 ? 150 : i == 3 ? 200 : 0, N);
        if (i % 3 == 0) {
            read_numbers(client[i], "b", 0, N / 2);
        }
        read_numbers(client[i], "a", N, N + 100);
    }
    /* Nobody is behind: the logs are empty, and the next message comes alone. */
    publish_numbers(link, "b", 7, 8);
    for (i = 0; i < READERS; i++) {
        if (i % 3 == 0) {
            read_numbers(client[i], "b", 7, 8);
        }
        assert_silent(client[i]);
        close(client[i]);
    }
    assert_stat(link, "ended.client", READERS);
    close(link);
    fx_hub_stop(&c, 0);
}

/* The next hub allows less: a stream is cut, never sent a gap. */
static void a_smaller_limit_cuts(void **state)
{
    fx_hub_t a, b;
    int link, slow, fast;
    char bytes[1001] = "";
    int got = 0;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    slow = fx_small_client(link);
    fast = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    publish_numbers(link, "a", 0, 100);
    read_numbers(fast, "a", 0, 100);
    fx_hub_next(&b, &a, 1, ES_HUB_LAG_MIN);
    fx_hub_join(&a, FX_NOT_COUNTED);
    while (fx_read(slow, bytes, 1000) == 1000) {
        assert_int_equal(atoll(bytes + 1), got);
        got++;
    }
    assert_in_range(got, 1, 99);
    assert_stat(link, "ended.lag", 1);
    publish_numbers(link, "a", 100, 101);
    read_numbers(fast, "a", 100, 101);
    close(slow);
    close(fast);
    close(link);
    fx_hub_stop(&b, 0);
}

/* `content` as it comes in that framing, `times` times; the caller frees. */
static es_str_t framed(const char *content, bool chunked, int times)
{
    es_buf_t b;
    int i;

    es_buf_init(&b, 8 * 1024 * 1024);
    for (i = 0; i < times; i++) {
        if (chunked) {
            assert_int_equal(es_buf_addf(&b, "%zx\r\n", strlen(content)), ES_OK);
        }
        assert_int_equal(es_buf_add(&b, content, strlen(content)), ES_OK);
        if (chunked) {
            assert_int_equal(es_buf_add(&b, "\r\n", 2), ES_OK);
        }
    }
    if (chunked) {
        assert_int_equal(es_buf_add(&b, "0\r\n\r\n", 5), ES_OK);
    }
    return (es_str_t) { b.p, b.n };
}

/* A message that is larger than the socket is written in part when the hand-over comes; the end of
 * the stream waits behind it. `more`: a stream with a filter has messages of its own. */
static void check_parts(bool chunked, const char *channels)
{
    char *content = es_repeat('x', 300000), *got = malloc(700000);
    const es_str_t want = framed(content, chunked, 2);
    fx_hub_t a, b, c;
    int link, client;

    assert_non_null(got);
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    fx_reserve(link, fx_hold(chunked ? "chunked" : "raw", channels, ""));
    client = fx_small_client(link);
    assert_int_equal(fx_publish(link, "a", content), ES_OK);
    assert_int_equal(fx_publish(link, "a", content), ES_OK);
    assert_int_equal(fx_publish_close(link, "a"), ES_OK);
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_int_equal(fx_read(client, got, 12345), 12345);
    fx_hub_next(&c, &b, 1, LAG);
    fx_hub_join(&b, FX_NOT_COUNTED);
    assert_int_equal(fx_read(client, got + 12345, want.n - 12345), want.n - 12345);
    assert_memory_equal(got, want.p, want.n);
    assert_end(client);
    assert_stat(link, "ended.action", 1);
    assert_stat(link, "bytes", (json_int_t)want.n);
    assert_stat(link, "deliveries", 3);
    close(client);
    close(link);
    free((char *)(uintptr_t)want.p);
    free(got);
    free(content);
    fx_hub_stop(&c, 0);
}

static void parts_of_messages_go_on(void **state)
{
    (void)state;
    check_parts(false, "[{\"name\": \"a\"}]");
    check_parts(true, "[{\"name\": \"a\"}]");
    check_parts(true, "[{\"name\": \"a\", \"filters\": [\"var-subst\"]}]");
}

static void filters_and_ids_go_on(void **state)
{
    static const char meta[] = ", \"meta\": {\"user\": \"me\", \"x\": \"\\u00e4\", "
                               "\"id_format\": \"%(a)s\"}";
    fx_hub_t a, b;
    int link, continuous, filtered, built, substituted;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    continuous = fx_subscribe(link, "raw", "[{\"name\": \"a\", \"prev-id\": \"1\"}]", "");
    filtered = fx_subscribe(link, "raw", "[{\"name\": \"a\", \"filters\": [\"skip-self\"]}]", meta);
    built = fx_subscribe(link, "raw", "[{\"name\": \"a\", \"filters\": [\"build-id\"]}]", meta);
    substituted =
        fx_subscribe(link, "raw", "[{\"name\": \"b\", \"filters\": [\"var-subst\"]}]", meta);
    assert_int_equal(fx_publish_id(link, "a", "%I;", ", \"id\": \"5\""), ES_OK);
    assert_next(built, "5;");
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    /* The same item once more: only who said where it is knows it. */
    assert_int_equal(fx_publish_id(link, "a", "again;", ", \"id\": \"5\""), ES_OK);
    assert_int_equal(
        fx_publish_id(link, "a", "mine;", ", \"id\": \"6\", \"meta\": {\"sender\": \"me\"}"),
        ES_OK);
    assert_int_equal(fx_publish_id(link, "a", "end %I", ", \"id\": \"7\""), ES_OK);
    assert_int_equal(fx_publish(link, "b", "%(x)s%%"), ES_OK);
    assert_next(continuous, "%I;mine;end %I");
    assert_next(filtered, "%I;again;end %I");
    assert_next(built, "again;mine;end 7");
    assert_next(substituted, "\xc3\xa4%");
    assert_silent(continuous);
    assert_silent(filtered);
    assert_silent(built);
    close(continuous);
    close(filtered);
    close(built);
    close(substituted);
    close(link);
    fx_hub_stop(&b, 0);
}

/* A publisher may give any bytes as an id; JSON cannot carry them. */
static void an_id_of_odd_bytes_costs_no_stream(void **state)
{
    static const char packet[] =
        "59:7:channel,1:a,2:id,2:\xff\xfe,11:http-stream,16:7:content,3:odd,}}";
    fx_hub_t a, b;
    int link, client, other;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\", \"prev-id\": \"1\"}]", "");
    other = fx_subscribe(link, "raw", "[{\"name\": \"b\"}]", "");
    assert_int_equal(fx_ask(link, ES_WIRE_PACKET, (es_str_t) { packet, sizeof packet - 1 }, NULL),
                     ES_OK);
    assert_int_equal(fx_stat(link, "refused"), 0);
    assert_next(client, "odd");
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(link, "a", "next"), ES_OK);
    assert_int_equal(fx_publish(link, "b", "other"), ES_OK);
    assert_next(client, "next");
    assert_next(other, "other");
    close(client);
    close(other);
    close(link);
    fx_hub_stop(&b, 0);
}

/* Clocks are turned while the hubs run; a loop looks at its clock when something comes. */
static void nudge(int link, fx_hub_t *hub, uint64_t ms, int client)
{
    atomic_fetch_add(&hub->ahead_ms, ms);
    assert_int_equal(fx_publish(link, "nudge", "n"), ES_OK);
    assert_next(client, "n");
}

static void keep_alives_come_on_time(void **state)
{
    fx_hub_t a, b;
    int link, idle, interval, clock;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    clock = fx_subscribe(link, "raw", "[{\"name\": \"nudge\"}]", "");
    idle = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]",
                        ", \"keep-alive\": {\"content\": \"idle\", \"timeout\": 3600}");
    interval = fx_subscribe(
        link, "chunked", "[{\"name\": \"a\"}]",
        ", \"keep-alive\": {\"content-bin\": \"AP8=\", \"timeout\": 3600, \"mode\": \"interval\"}");
    assert_stat(link, "streams", 3); /* held before the clock is turned */
    assert_int_equal(fx_publish(link, "a", ""), ES_OK);
    nudge(link, &a, 1000 * 1000, clock);
    assert_int_equal(fx_publish(link, "a", "x"), ES_OK);
    assert_next(idle, "x");
    assert_next(interval, "1\r\nx\r\n");
    nudge(link, &a, 1000 * 1000, clock);
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    /* 2000 s after the hold, 1000 s after the message. */
    nudge(link, &b, 1500 * 1000, clock);
    nudge(link, &b, 0, clock);
    assert_silent(idle);
    assert_silent(interval);
    nudge(link, &b, 200 * 1000, clock); /* 3700 s after the hold */
    assert_next(interval, "2\r\n\x00\xff\r\n");
    assert_silent(idle);
    nudge(link, &b, 1000 * 1000, clock); /* 3700 s after the message */
    assert_next(idle, "idle");
    assert_silent(interval);
    assert_stat(link, "keep_alives", 2);
    close(clock);
    close(idle);
    close(interval);
    close(link);
    fx_hub_stop(&b, 0);
}

static void a_reservation_goes_on(void **state)
{
    fx_hub_t a, b, c;
    int link, other, given_up, client;

    (void)state;
    fx_hub_start(&a, 2, LAG, NULL, 0);
    link = fx_link(&a);
    other = fx_link(&a);
    given_up = fx_link(&a);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}, {\"name\": \"b\"}]", ""));
    fx_reserve(given_up, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(fx_publish(other, "a", "one;"), ES_OK);
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(other, "b", "two;"), ES_OK);
    assert_stat(other, "reserved", 2);
    fx_hub_next(&c, &b, 3, LAG);
    fx_hub_join(&b, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(other, "a", "three;"), ES_OK);
    client = fx_hold_fd(link);
    assert_next(client, "one;two;three;");
    assert_stat(other, "reserved", 1);
    close(given_up); /* its child died */
    assert_stat(other, "reserved", 0);
    assert_stat(other, "streams", 1);
    close(client);
    close(other);
    close(link);
    fx_hub_stop(&c, 0);
}

/* Writes raw bytes of a message, with a descriptor on the first. */
static void write_part(int link, const char *p, size_t n, int fd)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .bytes = "" };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof fd);
    }
    assert_int_equal(sendmsg(link, &msg, MSG_NOSIGNAL), n);
}

/* What a child is in the middle of writing: bytes and descriptor that this hub has read already are
 * the next one's. */
static void half_a_message_goes_on(void **state)
{
    static const char body[] = "{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                               "{\"content\": \"whole\"}}}]}";
    char message[256];
    int raw[2], pair[2], link, publisher, other, client;
    fx_hub_t a, b;
    es_err_t code = ES_EIO;
    size_t n, len;
    char *text = NULL;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    publisher = fx_link(&a);
    other = fx_link(&a);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    /* The bytes of both messages, as es_wire_send makes them. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    client = pair[0];
    assert_int_equal(es_wire_send(raw[0], ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE), ES_OK);
    n = (size_t)recv(raw[1], message, sizeof message, 0);
    assert_int_equal(n, sizeof(es_wire_head_t));
    write_part(link, message, 7, pair[1]);
    close(pair[1]);
    assert_int_equal(es_wire_send(raw[0], ES_WIRE_PUBLISH, 9, S(body), -1, FX_PATIENCE), ES_OK);
    memmove(message, message + 7, n - 7);
    len = n - 7; /* the rest of HOLD */
    n = (size_t)recv(raw[1], message + len, sizeof message - len, 0);
    write_part(publisher, message + len, 40, -1);
    assert_int_equal(fx_stat(other, "streams"), 0); /* by the second answer it has read them */
    assert_int_equal(fx_stat(other, "reserved"), 1);
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    write_part(link, message, len, -1);
    write_part(publisher, message + len + 40, n - 40, -1);
    assert_int_equal(es_wire_answer(publisher, 9, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    free(text);
    assert_next(client, "whole");
    close(raw[0]);
    close(raw[1]);
    close(client);
    close(publisher);
    close(other);
    close(link);
    fx_hub_stop(&b, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_streams_notice_nothing),
        cmocka_unit_test(an_empty_hub_is_handed_over),
        cmocka_unit_test(slow_readers_miss_nothing),
        cmocka_unit_test(a_smaller_limit_cuts),
        cmocka_unit_test(parts_of_messages_go_on),
        cmocka_unit_test(filters_and_ids_go_on),
        cmocka_unit_test(an_id_of_odd_bytes_costs_no_stream),
        cmocka_unit_test(keep_alives_come_on_time),
        cmocka_unit_test(a_reservation_goes_on),
        cmocka_unit_test(half_a_message_goes_on),
    };
    return cmocka_run_group_tests_name("handover", tests, fx_apr_up, fx_apr_down);
}
