/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams that have to end at a time, that of their client's token: when, and what they still get.
 * The clocks are the test's: one that streams are timed by, and the wall clock that a token means.
 */
#include "stream_fixture.h"

enum { WALL = 1795468999, GRACE = 10000, YEAR_S = 366 * 24 * 3600 };

static uint64_t wall_ms;

static uint64_t wall_clock(void *ctx)
{
    (void)ctx;
    return wall_ms;
}

typedef struct one {
    rig_t rig;
    es_stream_t *s;
    int client;
} one_t;

/* Its token is good for `seconds` more. */
static void one_open(one_t *o, const char *framing, uint64_t seconds, const char *more)
{
    char hold[1024];
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}, "
                           "{\"name\": \"b\"}]%s}, \"delivery\": {\"framing\": \"%s\", "
                           "\"until\": %llu}}",
                           more, framing, (unsigned long long)((WALL + seconds) * 1000));

    wall_ms = WALL * 1000ULL;
    rig_open(&o->rig, ES_HUB_LAG_DEFAULT);
    o->rig.config.wall_ms = wall_clock;
    o->s = rig_reserve(&o->rig, (es_str_t) { hold, (size_t)n });
    o->client = rig_hold(&o->rig, o->s);
}

static void one_close(one_t *o)
{
    rig_close(&o->rig);
    close(o->client);
}

/* Time goes by on both clocks, in steps of the wheel's tick; one long step is a machine that
 * sleeps. */
static void pass(rig_t *rig, uint64_t ms, uint64_t step)
{
    const uint64_t until = rig->now_ms + ms;

    while (rig->now_ms < until) {
        const uint64_t by = until - rig->now_ms < step ? until - rig->now_ms : step;

        rig->now_ms += by;
        wall_ms += by;
        rig_round(rig);
    }
}

static void assert_expired(one_t *o)
{
    assert_int_equal(o->s->state, ES_STREAM_ENDED);
    assert_int_equal(o->s->end, ES_END_EXPIRED);
    assert_int_equal(o->rig.loop.counters.ended[ES_END_EXPIRED], 1);
}

/* ---- when ---- */

static void a_stream_ends_when_its_time_is_up(void **state)
{
    static const struct {
        const char *framing, *last;
    } cases[] = { { "raw", "hello" }, { "chunked", "5\r\nhello\r\n0\r\n\r\n" } };
    static const uint64_t seconds[] = { 1, 61, 3600 };
    size_t i, k;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        for (k = 0; k < ES_COUNT(seconds); k++) {
            one_t o;

            one_open(&o, cases[i].framing, seconds[k], "");
            pass(&o.rig, seconds[k] * 1000 - 1, ES_WHEEL_TICK);
            assert_int_equal(o.s->state, ES_STREAM_LIVE);
            rig_publish(&o.rig, "a", "hello", "");
            pass(&o.rig, 1 + ES_WHEEL_TICK, ES_WHEEL_TICK);
            assert_expired(&o);
            fx_check_next(o.client, es_str(cases[i].last), __FILE__, __LINE__);
            assert_end(o.client);
            one_close(&o);
        }
    }
}

static void a_token_for_a_year_is_no_trouble(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "raw", YEAR_S, "");
    /* In steps of a minute: the wheel is not turned tick by tick for a year. */
    pass(&o.rig, YEAR_S * 1000ULL - 60000, 60000);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    pass(&o.rig, 60000 + 2 * ES_WHEEL_TICK, ES_WHEEL_TICK);
    assert_expired(&o);
    one_close(&o);
}

static void times_beyond_all_clocks_are_never(void **state)
{
    static const char hold[] = "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": "
                               "\"a\"}]}, \"delivery\": {\"framing\": \"raw\", "
                               "\"until\": 9223372036854775807}}";
    rig_t rig;
    int client;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    client = rig_hold(&rig, rig_reserve(&rig, S(hold)));
    pass(&rig, 3600 * 1000, 50000);
    assert_int_equal(rig.loop.counters.streams, 1);
    assert_int_equal(rig.loop.wheel.armed, 1);
    rig_close(&rig);
    close(client);
}

/* What counts is the wall clock, whoever sets it. */
static void a_clock_that_is_set_is_followed(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "raw", 3600, "");
    pass(&o.rig, 1000, ES_WHEEL_TICK);
    wall_ms += 3599 * 1000;
    pass(&o.rig, 60000 + ES_WHEEL_TICK, ES_WHEEL_TICK); /* it is looked at once a minute */
    assert_expired(&o);
    one_close(&o);

    one_open(&o, "raw", 3600, "");
    pass(&o.rig, 1000, ES_WHEEL_TICK);
    wall_ms -= 3600 * 1000;
    pass(&o.rig, 3600 * 1000, ES_WHEEL_TICK);
    assert_int_equal(o.s->state, ES_STREAM_LIVE);
    pass(&o.rig, 3600 * 1000, ES_WHEEL_TICK);
    assert_expired(&o);
    one_close(&o);
}

static void one_that_expired_before_it_is_held_ends_at_once(void **state)
{
    static const char hold[] = "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": "
                               "\"a\"}]}, \"delivery\": {\"framing\": \"chunked\", \"until\": 1}}";
    rig_t rig;
    int client;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    rig.config.wall_ms = wall_clock;
    client = rig_hold(&rig, rig_reserve(&rig, S(hold)));
    pass(&rig, ES_WHEEL_TICK, ES_WHEEL_TICK);
    assert_next(client, "0\r\n\r\n");
    assert_end(client);
    assert_int_equal(rig.loop.counters.ended[ES_END_EXPIRED], 1);
    rig_close(&rig);
    close(client);
}

/* ---- what it still gets ---- */

/* A client that is behind gets what was published in time, on all channels, and nothing else; in
 * writes of any size. */
static void a_slow_client_gets_what_was_published_in_time(void **state)
{
    static const char want[] = "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n";
    static const char *const kinds[] = { "", ", \"meta\": {\"user\": \"x\"}" };
    long room;
    size_t k;

    (void)state;
    for (k = 0; k < ES_COUNT(kinds); k++) {
        for (room = 0; room < (long)sizeof want; room++) {
            one_t o;

            one_open(&o, "chunked", 5, kinds[k]);
            o.s->tracked = k > 0;
            wx_socket.room = room;
            rig_publish(&o.rig, "a", "one", "");
            rig_publish(&o.rig, "b", "two", "");
            rig_publish(&o.rig, "a", "three", "");
            pass(&o.rig, 5000 + ES_WHEEL_TICK, ES_WHEEL_TICK);
            if (room < (long)sizeof want - 1) {
                assert_int_equal(o.s->state, ES_STREAM_LIVE);
                assert_true(o.s->expired);
            }
            rig_publish(&o.rig, "b", "too late", "");
            rig_publish(&o.rig, "a", "too late", "");
            pass(&o.rig, 1000, ES_WHEEL_TICK);
            wx_socket.room = 3;
            rig_writable(&o.rig, o.s);
            wx_socket.room = -1;
            rig_writable(&o.rig, o.s);
            assert_expired(&o);
            assert_next(o.client, want);
            assert_end(o.client);
            one_close(&o);
        }
    }
}

static void one_that_takes_nothing_is_cut(void **state)
{
    static const uint64_t timeouts[] = { 0, 60000 };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(timeouts); i++) {
        one_t o;

        one_open(&o, "chunked", 1, ", \"keep-alive\": {\"content\": \"k\", \"timeout\": 5}");
        o.rig.config.send_timeout_ms = timeouts[i];
        wx_socket.room = 1;
        rig_publish(&o.rig, "a", "one", "");
        pass(&o.rig, 1000 + GRACE - ES_WHEEL_TICK, ES_WHEEL_TICK);
        assert_int_equal(o.s->state, ES_STREAM_LIVE);
        pass(&o.rig, 3 * ES_WHEEL_TICK, ES_WHEEL_TICK);
        assert_expired(&o);
        assert_next(o.client, "3");
        assert_end(o.client);
        assert_int_equal(fx_log_count(&o.rig.log, "ended: expired, after 1 bytes in"), 1);
        one_close(&o);
    }
}

static void the_other_ends_stay_what_they_are(void **state)
{
    one_t o;

    (void)state;
    one_open(&o, "chunked", 60, "");
    rig_publish_close(&o.rig, "a", "");
    rig_round(&o.rig);
    assert_int_equal(o.s->end, ES_END_ACTION);
    one_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_ends_when_its_time_is_up),
        cmocka_unit_test(a_token_for_a_year_is_no_trouble),
        cmocka_unit_test(times_beyond_all_clocks_are_never),
        cmocka_unit_test(a_clock_that_is_set_is_followed),
        cmocka_unit_test(one_that_expired_before_it_is_held_ends_at_once),
        cmocka_unit_test(a_slow_client_gets_what_was_published_in_time),
        cmocka_unit_test(one_that_takes_nothing_is_cut),
        cmocka_unit_test(the_other_ends_stay_what_they_are),
    };

    return cmocka_run_group_tests_name("expiry", tests, fx_apr_up, fx_apr_down);
}
