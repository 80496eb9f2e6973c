/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams whose time is up (test_expiry.c) over whole hubs: handed over before and at their end,
 * and in the middle of a replay.
 *
 * The clock is real, but a test puts it forward. Whether a loop has looked at it since then is told
 * by another stream that ends.
 */
#include "events_fixture.h"

enum { HOUR = 3600 * 1000 };

static const char *until(const fx_hub_t *hub, uint64_t ms)
{
    static char text[64];

    snprintf(text, sizeof text, ", \"until\": %llu",
             (unsigned long long)(fx_hub_clock((void *)(uintptr_t)hub) + ms));
    return text;
}

/* A stream that is no event stream: what it gets is the content alone. */
static void reserve_plain(int link, const char *channel, const char *more)
{
    char hold[512];
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"%s\"}]}, "
                           "\"delivery\": {\"framing\": \"raw\"%s}}",
                           channel, more);

    fx_reserve(link, (es_str_t) { hold, (size_t)n });
}

/* After the clock was put forward: the one loop has seen it. Then the clock stands still: no stream
 * is cut because this machine is slow. */
static void let_it_look(int link, fx_hub_t *hub)
{
    int other;

    reserve_plain(link, "z", until(hub, 1));
    other = fx_hold_fd(link);
    assert_end(other);
    close(other);
    atomic_store(&hub->still_ms, fx_hub_clock(hub));
}

static void a_stream_that_was_handed_over_still_ends(void **state)
{
    static const char *const reserved_only[] = { "held", "reserved" };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(reserved_only); i++) {
        ev_client_t c = { 0 };
        fx_hub_t a, b;
        int link;

        fx_hub_start(&a, 2, LAG, NULL, 0);
        link = fx_link(&a);
        ev_reserve(link, "raw", "[{\"name\": \"a\"}]", until(&a, HOUR), NULL);
        if (i == 0) {
            c.fd = fx_hold_fd(link);
        }
        fx_hub_next(&b, &a, 1, LAG);
        fx_hub_join(&a, FX_NOT_COUNTED);
        if (i == 1) {
            c.fd = fx_hold_fd(link);
        }
        ev_publish(link, "a", "x", "", NULL);
        assert_events(&c, "x");
        assert_stat(link, "streams", 1);
        atomic_fetch_add(&b.ahead_ms, HOUR);
        assert_stat(link, "ended.expired", 1);
        assert_end(c.fd);
        close(c.fd);
        close(link);
        fx_hub_stop(&b, FX_NOT_COUNTED);
    }
}

/* Expired, behind, and handed over: it gets what is before its end and nothing of what is after. */
static void one_that_is_handed_over_at_its_end(void **state)
{
    enum { N = 40 };
    fx_hub_t a, b;
    int link, client, watch;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    watch = fx_small_client(link); /* keeps messages in the log, as the other does */
    reserve_plain(link, "a", until(&a, HOUR));
    client = fx_small_client(link);
    publish_numbers(link, "a", 0, N);
    atomic_fetch_add(&a.ahead_ms, HOUR);
    let_it_look(link, &a);
    publish_numbers(link, "a", N, 2 * N);
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    read_numbers(client, "a", 0, N);
    assert_end(client);
    read_numbers(watch, "a", 0, 2 * N);
    assert_stat(link, "ended.expired", 2);
    close(client);
    close(watch);
    close(link);
    fx_hub_stop(&b, FX_NOT_COUNTED);
}

/* A replay is not cut off in the middle: what was published in time comes, however slow. */
static void a_replay_is_finished(void **state)
{
    enum { N = 200 };
    sx_t *x = sx_make();
    char text[1100], data[1100], more[128];
    ev_client_t c = { 0 };
    fx_hub_t hub;
    int link, i;

    (void)state;
    ev_hub_start(&hub, 1, ES_HUB_LAG_MIN, x->dir);
    link = fx_link(&hub);
    snprintf(more, sizeof more, "%s, \"from\": {\"earliest\": true}", until(&hub, HOUR));
    for (i = 0; i < N; i++) {
        snprintf(text, sizeof text, "%d %01000d", i, 0);
        ev_publish(link, "a", text, "", NULL);
    }
    ev_reserve(link, "chunked", "[{\"name\": \"a\"}]", more, NULL);
    c.fd = fx_small_client(link);
    for (; i < 2 * N; i++) { /* its log does not keep these */
        snprintf(text, sizeof text, "%d %01000d", i, 0);
        ev_publish(link, "a", text, "", NULL);
    }
    atomic_fetch_add(&hub.ahead_ms, HOUR);
    let_it_look(link, &hub);
    for (i = 0; i < N; i++) { /* nor the first of these */
        ev_publish(link, "a", text, "", NULL);
    }
    for (i = 0; i < 2 * N; i++) {
        assert_true(ev_next(&c, data, sizeof data));
        assert_int_equal(strtol(data, NULL, 10), i);
    }
    c.n += fx_read(c.fd, c.buf + c.n, sizeof c.buf - c.n);
    assert_bytes(c.buf, c.n, "\r\n0\r\n\r\n");
    assert_stat(link, "ended.expired", 2);
    assert_stat(link, "ended.lag", 0);
    close(c.fd);
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_that_was_handed_over_still_ends),
        cmocka_unit_test(one_that_is_handed_over_at_its_end),
        cmocka_unit_test(a_replay_is_finished),
    };

    return cmocka_run_group_tests_name("expiry_hubs", tests, fx_apr_up, fx_apr_down);
}
