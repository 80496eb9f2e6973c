/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of src/hub/limits.c: how many streams are let in, in all and for one client, what is said
 * to those that are not, and that each that leaves makes room for one.
 */
#include "stream_fixture.h"

static es_err_t reserve_for(rig_t *rig, const char *peer, es_stream_t **ret, es_detail_t *detail)
{
    char hold[512];
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}, "
                           "\"delivery\": {\"framing\": \"raw\"%s%s%s}}",
                           peer ? ", \"peer\": \"" : "", peer ? peer : "", peer ? "\"" : "");

    return es_intake_reserve(&rig->intake, (es_str_t) { hold, (size_t)n }, ret, detail);
}

static es_stream_t *admitted(rig_t *rig, const char *peer)
{
    es_detail_t detail = { "" };
    es_stream_t *s = NULL;

    assert_err(reserve_for(rig, peer, &s, &detail), ES_OK, &detail);
    return s;
}

static void refused(rig_t *rig, const char *peer, const char *why)
{
    es_detail_t detail = { "" };
    es_stream_t *s = NULL;

    assert_err(reserve_for(rig, peer, &s, &detail), ES_EFULL, &detail);
    assert_null(s);
    assert_string_equal(detail.text, why);
}

static void leave(rig_t *rig, es_stream_t *s)
{
    rig_take(rig);
    es_stream_loop_end(s, ES_END_RELEASED);
    rig_give_back(rig);
}

static void open_with(rig_t *rig, uint64_t streams, uint64_t per_client)
{
    rig_open(rig, ES_HUB_LAG_DEFAULT);
    rig->config.max_streams = streams;
    rig->config.max_per_client = per_client;
    assert_int_equal(es_limits_make(&rig->intake), ES_OK);
}

static void close_with(rig_t *rig)
{
    rig_close(rig);
    es_limits_free(&rig->intake);
    assert_null(rig->intake.limits);
}

static void so_many_streams_and_no_more(void **state)
{
    static const char why[] = "3 streams are held; EventStreamMaxStreams 3 is reached";
    es_stream_t *s[3];
    rig_t rig;
    int i;

    (void)state;
    open_with(&rig, 3, 0);
    assert_null(rig.intake.limits); /* nobody asked to count clients */
    for (i = 0; i < 3; i++) {
        s[i] = admitted(&rig, "192.0.2.1:1000");
        assert_null(s[i]->client);
    }
    refused(&rig, "192.0.2.2:1000", why);
    /* Reserved or held: both count. */
    close(rig_hold(&rig, s[1]));
    refused(&rig, "192.0.2.2:1000", why);
    leave(&rig, s[1]);
    (void)admitted(&rig, "192.0.2.2:1000");
    refused(&rig, "192.0.2.2:1000", why);
    assert_int_equal(es_limits_streams(&rig.intake), 3);
    assert_int_equal(fx_log_count(&rig.log, "ES0340: a stream is refused: 3 streams"), 3);
    close_with(&rig);
}

static void so_many_of_one_client(void **state)
{
    static const char v4[] = "2 streams of the client 192.0.2.1 are held; "
                             "EventStreamMaxStreamsPerClient 2 is reached";
    static const char v6[] = "2 streams of the client 2001:db8::1 are held; "
                             "EventStreamMaxStreamsPerClient 2 is reached";
    es_stream_t *s;
    rig_t rig;
    int i;

    (void)state;
    open_with(&rig, 0, 2);
    s = admitted(&rig, "192.0.2.1:1000");
    (void)admitted(&rig, "192.0.2.1:1001");
    refused(&rig, "192.0.2.1:1002", v4);
    (void)admitted(&rig, "192.0.2.10:1000"); /* begins alike */
    (void)admitted(&rig, "192.0.2.10:1000");
    (void)admitted(&rig, "2001:db8::1:1000");
    (void)admitted(&rig, "2001:db8::1:1001");
    refused(&rig, "2001:db8::1:1000", v6);
    (void)admitted(&rig, "2001:db8::10:1000");
    for (i = 0; i < 5; i++) {
        (void)admitted(&rig, NULL); /* nobody knows whose they are */
    }
    leave(&rig, s);
    (void)admitted(&rig, "192.0.2.1:1003");
    refused(&rig, "192.0.2.1:1004", v4);
    assert_int_equal(fx_log_count(&rig.log, "ES0341"), 3);
    assert_int_equal(fx_log_count(&rig.log, "ES0340"), 0);
    close_with(&rig);
}

/* The counts are right after many came and went, in any order. */
static void counts_do_not_drift(void **state)
{
    enum { CLIENTS = 50, STREAMS = 4 };
    es_stream_t *s[CLIENTS][STREAMS];
    es_detail_t detail;
    char peer[64];
    rig_t rig;
    int round, c, k;

    (void)state;
    open_with(&rig, 0, STREAMS);
    for (round = 0; round < 3; round++) {
        for (k = 0; k < STREAMS; k++) {
            for (c = 0; c < CLIENTS; c++) {
                snprintf(peer, sizeof peer, "198.51.100.%d:%d", c, 1000 + k);
                s[c][k] = admitted(&rig, peer);
            }
        }
        for (c = 0; c < CLIENTS; c++) {
            es_stream_t *none = NULL;

            snprintf(peer, sizeof peer, "198.51.100.%d:1", c);
            assert_int_equal(reserve_for(&rig, peer, &none, &detail), ES_EFULL);
        }
        for (k = 0; k < STREAMS; k++) {
            for (c = CLIENTS; c-- > 0;) {
                leave(&rig, s[c][(k + c) % STREAMS]);
            }
        }
        assert_int_equal(es_limits_streams(&rig.intake), 0);
    }
    close_with(&rig);
}

/* What a take-over brings is counted, and cuts nobody. */
static void what_is_taken_over_counts(void **state)
{
    es_stream_t *s[4];
    rig_t rig;
    int i;

    (void)state;
    open_with(&rig, 0, 0);
    for (i = 0; i < 4; i++) {
        s[i] = admitted(&rig, "192.0.2.1:1000");
    }
    rig.config.max_streams = 10;
    rig.config.max_per_client = 2;
    assert_int_equal(es_limits_make(&rig.intake), ES_OK);
    for (i = 0; i < 4; i++) {
        assert_int_equal(es_limits_add(&rig.intake, s[i]), ES_OK);
    }
    refused(&rig, "192.0.2.1:1000",
            "4 streams of the client 192.0.2.1 are held; EventStreamMaxStreamsPerClient 2 is "
            "reached");
    for (i = 0; i < 3; i++) {
        leave(&rig, s[i]);
    }
    (void)admitted(&rig, "192.0.2.1:1000");
    close_with(&rig);
}

/* One kind of refusal does not hide the other, and neither fills the log. */
static void the_log_is_told_of_each_kind(void **state)
{
    es_detail_t detail;
    es_stream_t *s = NULL;
    rig_t rig;
    int i;

    (void)state;
    open_with(&rig, 2, 1);
    (void)admitted(&rig, "192.0.2.1:1000");
    for (i = 0; i < 100; i++) {
        assert_int_equal(reserve_for(&rig, "192.0.2.1:1000", &s, &detail), ES_EFULL);
    }
    (void)admitted(&rig, "192.0.2.2:1000");
    for (i = 0; i < 100; i++) {
        assert_int_equal(reserve_for(&rig, "192.0.2.3:1000", &s, &detail), ES_EFULL);
    }
    assert_int_equal(fx_log_count(&rig.log, "ES0341"), 10);
    assert_int_equal(fx_log_count(&rig.log, "ES0340"), 10);
    rig.now_ms += 10000;
    assert_int_equal(reserve_for(&rig, "192.0.2.3:1000", &s, &detail), ES_EFULL);
    assert_int_equal(fx_log_count(&rig.log, "90 more lines"), 1);
    assert_int_equal(fx_log_count(&rig.log, "ES0340"), 11);
    close_with(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_streams_and_no_more),  cmocka_unit_test(so_many_of_one_client),
        cmocka_unit_test(counts_do_not_drift),          cmocka_unit_test(what_is_taken_over_counts),
        cmocka_unit_test(the_log_is_told_of_each_kind),
    };
    return cmocka_run_group_tests_name("limits", tests, fx_apr_up, fx_apr_down);
}
