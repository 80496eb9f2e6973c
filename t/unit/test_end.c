/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the send timeout (src/hub/stream.c) and of src/hub/end.c: who is cut, when, for which
 * reason, and what the error log and EventStreamLog get of it. The clock is the test's.
 */
#include "stream_fixture.h"

#include <fcntl.h>

enum { TIMEOUT = 60000 };

static const char channels[] = "[{\"name\": \"a\"}]";

typedef struct one {
    rig_t rig;
    es_stream_t *s;
    int client;
} one_t;

static void one_open(one_t *o, const char *more)
{
    rig_open(&o->rig, ES_HUB_LAG_DEFAULT);
    o->rig.config.send_timeout_ms = TIMEOUT;
    o->s = rig_reserve(&o->rig, fx_hold("raw", channels, more));
    o->client = rig_hold(&o->rig, o->s);
}

static void one_close(one_t *o)
{
    rig_close(&o->rig);
    close(o->client);
}

/* Time goes by in steps of the wheel's tick. */
static void pass(rig_t *rig, uint64_t ms)
{
    const uint64_t until = rig->now_ms + ms;

    while (rig->now_ms < until) {
        rig->now_ms += until - rig->now_ms < ES_WHEEL_TICK ? until - rig->now_ms : ES_WHEEL_TICK;
        rig_round(rig);
    }
}

/* ---- when ---- */

static void a_client_that_takes_nothing_is_cut(void **state)
{
    static const long rooms[] = { 0, 1, 4 }; /* of what the first write takes */
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(rooms); i++) {
        one_t o;

        one_open(&o, "");
        pass(&o.rig, 10 * TIMEOUT); /* silence is no stall */
        assert_int_equal(o.rig.loop.wheel.armed, 0);
        wx_socket.room = rooms[i];
        rig_publish(&o.rig, "a", "hello", "");
        rig_round(&o.rig);
        assert_true(o.s->blocked);
        pass(&o.rig, TIMEOUT - 1);
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
        pass(&o.rig, 1 + ES_WHEEL_TICK);
        assert_int_equal(o.s->state, ES_STREAM_ENDED);
        assert_int_equal(o.s->end, ES_END_TIMEOUT);
        assert_int_equal(o.rig.loop.counters.ended[ES_END_TIMEOUT], 1);
        one_close(&o);
    }
}

/* However slow: one byte now and then, and the stream goes on. */
static void a_slow_client_is_not_cut(void **state)
{
    one_t o;
    int i;

    (void)state;
    one_open(&o, "");
    wx_socket.room = 0;
    rig_publish(&o.rig, "a", "0123456789", "");
    rig_round(&o.rig);
    for (i = 0; i < 9; i++) {
        pass(&o.rig, TIMEOUT - ES_WHEEL_TICK);
        wx_socket.room = 1;
        rig_writable(&o.rig, o.s);
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
    }
    pass(&o.rig, TIMEOUT - ES_WHEEL_TICK);
    wx_socket.room = -1;
    rig_writable(&o.rig, o.s);
    assert_next(o.client, "0123456789");
    assert_int_equal(o.s->stalled_ms, 0);
    pass(&o.rig, 2 * TIMEOUT);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    one_close(&o);
}

/* epoll says nothing of a little room: it is found when the time is up. */
static void a_last_try_comes_before_the_cut(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "");
    wx_socket.room = 0;
    rig_publish(&o.rig, "a", "hello", "");
    rig_round(&o.rig);
    wx_socket.room = 2;
    pass(&o.rig, TIMEOUT + ES_WHEEL_TICK);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    assert_true(o.s->blocked);
    assert_next(o.client, "he");
    pass(&o.rig, TIMEOUT - 2 * ES_WHEEL_TICK);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    pass(&o.rig, 3 * ES_WHEEL_TICK);
    assert_int_equal(o.s->end, ES_END_TIMEOUT);
    one_close(&o);
}

/* A client that talks, or for which more is published, wakes its stream; that is not reading. */
static void what_a_client_sends_does_not_count(void **state)
{
    one_t o;
    int i;

    (void)state;
    one_open(&o, "");
    wx_socket.room = 0;
    for (i = 0; i < 60; i++) {
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
        rig_publish(&o.rig, "a", "x", "");
        rig_round(&o.rig);
        rig_writable(&o.rig, o.s);
        pass(&o.rig, 1000);
    }
    pass(&o.rig, ES_WHEEL_TICK);
    assert_int_equal(o.s->state, ES_STREAM_ENDED);
    assert_int_equal(o.s->end, ES_END_TIMEOUT);
    one_close(&o);
}

/* Both use the one timer. A keep-alive that a full socket does not take is dropped and no stall;
 * what is published then is one. */
static void keep_alives_and_the_timeout_share_a_timer(void **state)
{
    static const char *const modes[] = { "idle", "interval" };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(modes); i++) {
        char more[128];
        one_t o;

        snprintf(more, sizeof more,
                 ", \"keep-alive\": {\"content\": \"k\", \"timeout\": 25, \"mode\": \"%s\"}",
                 modes[i]);
        one_open(&o, more);
        pass(&o.rig, 25000 + ES_WHEEL_TICK);
        assert_next(o.client, "k");
        wx_socket.room = 0;
        pass(&o.rig, 10 * TIMEOUT);
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
        assert_true(o.s->blocked);
        rig_publish(&o.rig, "a", "x", "");
        rig_round(&o.rig);
        pass(&o.rig, TIMEOUT - 1);
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
        wx_socket.room = -1;
        rig_writable(&o.rig, o.s);
        assert_next(o.client, "x");
        pass(&o.rig, 25000 + ES_WHEEL_TICK);
        assert_next(o.client, "k");
        wx_socket.room = 0;
        rig_publish(&o.rig, "a", "y", "");
        pass(&o.rig, TIMEOUT + 2 * ES_WHEEL_TICK);
        assert_int_equal(o.s->end, ES_END_TIMEOUT);
        assert_end(o.client);
        one_close(&o);
    }
}

static void no_timeout_no_cut(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "");
    o.rig.config.send_timeout_ms = 0;
    wx_socket.room = 0;
    rig_publish(&o.rig, "a", "x", "");
    pass(&o.rig, 100 * TIMEOUT);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    assert_int_equal(o.rig.loop.wheel.armed, 0);
    one_close(&o);
}

/* ---- why ---- */

static void errors_of_the_network_are_timeouts(void **state)
{
    static const struct {
        int error;
        es_end_t end;
    } cases[] = {
        { 0, ES_END_CLIENT },
        { EPIPE, ES_END_CLIENT },
        { ECONNRESET, ES_END_CLIENT },
        { ETIMEDOUT, ES_END_TIMEOUT },
        { EHOSTUNREACH, ES_END_TIMEOUT },
        { ENETUNREACH, ES_END_TIMEOUT },
        { ENOBUFS, ES_END_ERROR },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        one_t o;

        assert_int_equal(es_end_of_error(cases[i].error), cases[i].end);
        if (cases[i].error == 0) {
            continue;
        }
        one_open(&o, "");
        wx_socket.fail = cases[i].error;
        rig_publish(&o.rig, "a", "x", "");
        rig_round(&o.rig);
        assert_int_equal(o.s->end, cases[i].end);
        one_close(&o);
    }
}

/* On a socketpair the carrier tells; on a client's own socket such a byte means nothing. */
static void a_carrier_tells_why(void **state)
{
    static const struct {
        int error; /* that the carrier had */
        bool carried;
        es_end_t end;
    } cases[] = {
        { ETIMEDOUT, true, ES_END_TIMEOUT }, { EHOSTUNREACH, true, ES_END_TIMEOUT },
        { ECONNRESET, true, ES_END_CLIENT }, { 0, true, ES_END_CLIENT },
        { ETIMEDOUT, false, ES_END_CLIENT },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        one_t o;

        one_open(&o, "");
        assert_true(es_peer_is_local(o.s->fd));
        o.s->carried = cases[i].carried;
        es_carrier_broken(o.client, cases[i].error);
        assert_int_equal(es_end_of_event(o.s, EPOLLIN | EPOLLRDHUP), cases[i].end);
        one_close(&o);
    }
}

/* ---- the error log ---- */

static void a_cut_is_logged_with_all_that_is_known(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "");
    wx_socket.room = 4;
    rig_publish(&o.rig, "a", "hello", "");
    rig_publish(&o.rig, "a", "world", "");
    pass(&o.rig, 2 * TIMEOUT);
    assert_int_equal(fx_log_count(&o.rig.log,
                                  "ES0201: stream to 192.0.2.1 for /events ended: timeout, after 4 "
                                  "bytes in 60.100 s, 6 bytes behind; it took nothing for "
                                  "EventStreamSendTimeout"),
                     1);
    one_close(&o);
}

/* Many are cut at once: ten lines, and one with the number of the others when the window is over.
 */
static void the_log_is_not_flooded(void **state)
{
    enum { STREAMS = 200 };
    es_stream_t *s[STREAMS];
    int client[STREAMS], i;
    rig_t rig;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    for (i = 0; i < STREAMS; i++) {
        s[i] = rig_reserve(&rig, fx_hold("raw", channels, ""));
        client[i] = rig_hold(&rig, s[i]);
    }
    for (i = 0; i < STREAMS; i++) {
        es_stream_loop_end(s[i], i < 150   ? ES_END_TIMEOUT
                                 : i < 180 ? ES_END_LAG
                                 : i < 195 ? ES_END_ERROR
                                           : ES_END_CLIENT);
    }
    assert_int_equal(fx_log_count(&rig.log, "ended: timeout"), 10);
    assert_int_equal(fx_log_count(&rig.log, "ended: lag"), 10);
    assert_int_equal(fx_log_count(&rig.log, "ended: error"), 10);
    assert_int_equal(fx_log_count(&rig.log, "ended: client"), 5);
    assert_int_equal(rig.loop.counters.ended[ES_END_TIMEOUT], 150);
    pass(&rig, 9000);
    assert_int_equal(fx_log_count(&rig.log, "ES0205"), 0);
    pass(&rig, 1100);
    assert_int_equal(fx_log_count(&rig.log, "ES0205: 165 more streams were cut and left out here, "
                                            "within 10 s: lag 20, timeout 140, error 5"),
                     1);
    assert_int_equal(rig.loop.wheel.armed, 0);
    pass(&rig, 30000); /* and that is all */
    assert_int_equal(fx_log_count(&rig.log, "ES0205"), 1);
    rig_close(&rig);
    for (i = 0; i < STREAMS; i++) {
        close(client[i]);
    }
}

/* ---- EventStreamLog ---- */

#define HEAD "192.0.2.1 - - [23/Nov/2026:21:10:45 +0000] \\\"GET /e?a=\\\\x01 HTTP/1.1\\\" 200"
#define TAIL "\\\"example.org\\\" \\\"agent/1\\\""

static es_stream_t *reserve_with_line(rig_t *rig)
{
    static const char hold[] =
        "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}, \"delivery\": "
        "{\"framing\": \"raw\", \"log\": \"" HEAD "\\n" TAIL "\", \"started\": 999000}}";

    return rig_reserve(rig, S(hold));
}

static void expect_line(int pipe_fd, const char *numbers, const char *end)
{
    char got[8192], want[512];
    const ssize_t n = read(pipe_fd, got, sizeof got - 1);

    snprintf(want, sizeof want, "%s",
             "192.0.2.1 - - [23/Nov/2026:21:10:45 +0000] \"GET /e?a=\\x01 HTTP/1.1\" 200 ");
    assert_true(n > 0);
    got[n] = '\0';
    assert_memory_equal(got, want, strlen(want));
    snprintf(want, sizeof want, "%.*s \"example.org\" \"agent/1\" %s %s\n",
             (int)strcspn(numbers, " "), numbers, strchr(numbers, ' ') + 1, end);
    assert_string_equal(got + n - strlen(want), want);
}

static void each_end_has_its_line(void **state)
{
    static const struct {
        es_end_t end;
        const char *name;
    } cases[] = {
        { ES_END_CLIENT, "client" },   { ES_END_ACTION, "action" }, { ES_END_LAG, "lag" },
        { ES_END_TIMEOUT, "timeout" }, { ES_END_ERROR, "error" },   { ES_END_SHUTDOWN, "shutdown" },
        { ES_END_EXPIRED, "expired" },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_stream_t *s;
        int log[2], client;
        rig_t rig;
        char byte;

        assert_int_equal(pipe2(log, O_NONBLOCK), 0);
        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        rig.config.stream_log = log[1];
        s = reserve_with_line(&rig);
        client = rig_hold(&rig, s);
        rig_publish(&rig, "a", "hello", "");
        rig_round(&rig);
        rig.now_ms += 61203 - 1000; /* it began a second before the clock's first */
        es_stream_loop_end(s, cases[i].end);
        es_stream_loop_end(s, ES_END_CLIENT); /* does nothing twice */
        expect_line(log[0], "5 61.203", cases[i].name);
        assert_int_equal(read(log[0], &byte, 1), -1); /* one line */
        rig_close(&rig);
        close(log[1]);
        close(log[0]);
        close(client);
    }
}

static void what_was_never_held_has_none(void **state)
{
    char byte;
    int log[2];
    rig_t rig;

    (void)state;
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    rig.config.stream_log = log[1];
    (void)reserve_with_line(&rig);
    rig_take(&rig);
    es_stream_loop_end(rig.loop.streams, ES_END_RELEASED);
    rig_give_back(&rig);
    /* Nor has one whose child knew of no log. */
    close(rig_hold(&rig, rig_reserve(&rig, fx_hold("raw", channels, ""))));
    rig_close(&rig);
    assert_int_equal(read(log[0], &byte, 1), -1);
    close(log[0]);
    close(log[1]);
    /* Without the directive the line is not kept. */
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    assert_null(reserve_with_line(&rig)->log);
    rig_close(&rig);
}

/* Nobody reads the pipe: the hub does not wait, and counts what is lost. */
static void a_full_pipe_loses_lines_and_says_so(void **state)
{
    enum { STREAMS = 1200 }; /* more lines than 64 KiB take */
    static char text[1 << 17];
    uint64_t lost;
    size_t had = 0, lines = 0, i;
    int log[2];
    ssize_t n;
    rig_t rig;

    (void)state;
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    rig.config.stream_log = log[1];
    for (i = 0; i < STREAMS; i++) {
        es_stream_t *s = reserve_with_line(&rig);
        const int client = rig_hold(&rig, s);

        es_stream_loop_end(s, ES_END_CLIENT);
        close(client);
        rig_give_back(&rig);
    }
    lost = rig.loop.counters.log_lost;
    assert_in_range(lost, 11, STREAMS - 1);
    assert_int_equal(fx_log_count(&rig.log, "ES0206"), 0); /* among the newest lines no more */
    for (n = read(log[0], text, sizeof text); n > 0; n = read(log[0], text, sizeof text)) {
        for (i = 0; i < (size_t)n; i++) {
            lines += text[i] == '\n';
        }
        had = (size_t)n;
        assert_int_equal(text[had - 1], '\n'); /* whole lines only */
    }
    assert_int_equal(lines + lost, STREAMS);
    pass(&rig, 10100);
    assert_int_equal(fx_log_count(&rig.log, "ES0207"), 1);
    close(log[0]);
    close(log[1]);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_takes_nothing_is_cut),
        cmocka_unit_test(a_slow_client_is_not_cut),
        cmocka_unit_test(a_last_try_comes_before_the_cut),
        cmocka_unit_test(what_a_client_sends_does_not_count),
        cmocka_unit_test(keep_alives_and_the_timeout_share_a_timer),
        cmocka_unit_test(no_timeout_no_cut),
        cmocka_unit_test(errors_of_the_network_are_timeouts),
        cmocka_unit_test(a_carrier_tells_why),
        cmocka_unit_test(a_cut_is_logged_with_all_that_is_known),
        cmocka_unit_test(the_log_is_not_flooded),
        cmocka_unit_test(each_end_has_its_line),
        cmocka_unit_test(what_was_never_held_has_none),
        cmocka_unit_test(a_full_pipe_loses_lines_and_says_so),
    };
    return cmocka_run_group_tests_name("end", tests, fx_apr_up, fx_apr_down);
}
