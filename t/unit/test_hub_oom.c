/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intake's and the streams' functions without memory: the first, the second, the third ...
 * allocation fails, until none does. Nothing may crash or leak, everything that was there before
 * goes on, and the books (streams of a channel, who is behind) stay right.
 *
 * Needs the linker's help: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc. jansson allocates with
 * the same functions; what APR takes from the system is not made to fail.
 */
#include "stream_fixture.h"
#include "oom_fixture.h"

static int set_up(void **state)
{
    wx_malloc = __real_malloc;
    json_set_alloc_funcs(__wrap_malloc, free);
    return fx_apr_up(state);
}

static void a_reservation_without_memory_leaves_nothing(void **state)
{
    static const char hold[] =
        "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\", \"prev-id\": \"1\", "
        "\"filters\": [\"build-id\"]}, {\"name\": \"b\"}, {\"name\": \"c\"}, {\"name\": "
        "\"b/presence\"}], "
        "\"keep-alive\": {\"content\": \"x\"}, \"meta\": {\"user\": \"me\"}}, "
        "\"delivery\": {\"framing\": \"raw\", \"peer\": \"192.0.2.9:1\", \"uri\": \"/\", "
        "\"log\": \"x\\ny\", \"started\": 1, \"events\": true, \"from\": {\"last\": 3}, "
        "\"presence\": {\"grace\": 1000, \"name\": \"me\"}}}";
    rig_t rig;
    es_stream_t *s = NULL, *first;
    es_detail_t detail;
    es_err_t err = ES_ENOMEM;
    long allowed;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    rig.config.max_per_client = 1; /* a count that stays behind would refuse the next try */
    rig.config.stream_log = 1;     /* never written: it is not held */
    assert_int_equal(es_limits_make(&rig.intake), ES_OK);
    assert_int_equal(es_presence_make(&rig.intake), ES_OK);
    /* One of its channels is there already. */
    first = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"b\"}]", ""));
    for (allowed = 0; err != ES_OK; allowed++) {
        assert_true(allowed < 10000);
        countdown = allowed;
        err = es_intake_reserve(&rig.intake, es_str(hold), &s, &detail);
        countdown = -1;
        if (err != ES_OK) {
            /* jansson calls running out of memory in the middle of a text a syntax error. */
            assert_true(err == ES_ENOMEM || err == ES_EINVAL);
            assert_null(s);
            assert_int_equal(rig.load, 1);
            assert_int_equal(es_registry_count(rig.intake.registry), 1);
            assert_int_equal(es_registry_find(rig.intake.registry, S("b"))->streams, 1);
        }
        rig_take(&rig); /* channels that were made for it are freed */
    }
    assert_true(allowed > 50);
    assert_int_equal(rig.load, 2);
    assert_int_equal(es_registry_count(rig.intake.registry), 4);
    es_stream_loop_end(s, ES_END_RELEASED);
    es_stream_loop_end(first, ES_END_RELEASED);
    rig_close(&rig);
    es_limits_free(&rig.intake);
    es_presence_free(&rig.intake);
}

/* A stream that has missed a message ends, so that its client comes back and asks; else the client
 * would never know. Half of a message is never sent, and the next arrives. */
static void a_publish_without_memory_is_not_missed_silently(void **state)
{
    static const char *const channels[] = {
        "[{\"name\": \"a\"}]", "[{\"name\": \"a\", \"filters\": [\"build-id\", \"var-subst\"]}]"
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(channels); i++) {
        rig_t rig;
        es_stream_t *s;
        es_buf_t got;
        long allowed, lag = 0, error = 0;
        int client;

        es_buf_init(&got, 1 << 20);
        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        s = rig_reserve(&rig, fx_hold("raw", channels[i], ", \"meta\": {\"id_format\": \"x\"}"));
        client = rig_hold(&rig, s);
        for (allowed = 0; got.n == 0; allowed++) {
            static const char packet[] = "J{\"channel\": \"a\", \"id\": \"1\", \"formats\": "
                                         "{\"http-stream\": {\"content\": \"message\"}}}";
            es_item_t *item = NULL;

            assert_true(allowed < 1000);
            assert_int_equal(es_item_from_packet(packet, sizeof packet - 1, &item, NULL), ES_OK);
            countdown = allowed;
            es_intake_publish(&rig.intake, item);
            countdown = -1;
            rig_take(&rig);
            countdown = allowed;
            rig_flush(&rig);
            countdown = -1;
            assert_int_equal(s->subs[0].channel->bytes, 0);
            got_read(&got, client);
            if (got.n == 0) {
                assert_int_equal(s->state, ES_STREAM_ENDED);
                lag += s->end == ES_END_LAG;
                error += s->end == ES_END_ERROR;
                close(client);
                rig_give_back(&rig);
                s = rig_reserve(&rig,
                                fx_hold("raw", channels[i], ", \"meta\": {\"id_format\": \"x\"}"));
                client = rig_hold(&rig, s);
            }
        }
        assert_true(lag > 0 && (error > 0) == (i == 1));
        assert_int_equal(lag + error, allowed - 1);
        assert_bytes(got.p, got.n, "message");
        assert_true(allowed > 1);
        rig_publish(&rig, "a", "next", "");
        rig_round(&rig);
        assert_next(client, "next");
        rig_close(&rig);
        close(client);
        es_buf_free(&got);
    }
}

/* The same with the second form that event streams get. */
static void an_event_without_memory_is_lost_whole(void **state)
{
    static const char hold[] = "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": "
                               "\"a\"}]}, \"delivery\": {\"framing\": \"raw\", \"events\": true}}";
    static const char packet[] = "J{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                                 "{\"content\": \"data: %%\\n\\n\", \"content-filters\": "
                                 "[\"build-id\"]}}}";
    rig_t rig;
    es_buf_t got;
    long allowed;
    int client;

    (void)state;
    es_buf_init(&got, 1 << 20);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    client = rig_hold(&rig, rig_reserve(&rig, S(hold)));
    for (allowed = 0; got.n == 0; allowed++) {
        es_item_t *item = NULL;

        assert_true(allowed < 1000);
        assert_int_equal(es_item_from_packet(packet, sizeof packet - 1, &item, NULL), ES_OK);
        countdown = allowed;
        es_intake_publish(&rig.intake, item);
        countdown = -1;
        rig_round(&rig);
        got_read(&got, client);
        if (rig.loop.dead) { /* it would have missed it, and there is no history */
            assert_int_equal(rig.loop.dead->end, ES_END_LAG);
            close(client);
            rig_give_back(&rig);
            client = rig_hold(&rig, rig_reserve(&rig, S(hold)));
        }
        else {
            assert_true(got.n > 0);
        }
    }
    assert_true(allowed > 3);
    assert_int_equal(got.n, 4 + ES_EVENT_ID_LEN + 1 + 9);
    assert_bytes(got.p + got.n - 9, 9, "data: %\n\n");
    rig_close(&rig);
    close(client);
    es_buf_free(&got);
}

/* Whoever cannot be counted is not, and what cannot be told is owed: nobody leaves who never came.
 */
static void presence_without_memory_keeps_its_books(void **state)
{
    static const char hold[] =
        "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"room%s\"}]}, \"delivery\": "
        "{\"framing\": \"raw\", \"events\": true, \"presence\": {\"grace\": 0%s}}}";
    static const char *const names[] = { "", ", \"name\": \"me\"" };
    char text[512];
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(names); i++) {
        bool told = false;
        es_buf_t got;
        rig_t rig;
        long allowed;
        int client;

        es_buf_init(&got, 1 << 20);
        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        assert_int_equal(es_presence_make(&rig.intake), ES_OK);
        snprintf(text, sizeof text, hold, "/presence", "");
        client = rig_hold(&rig, rig_reserve(&rig, es_str(text)));
        snprintf(text, sizeof text, hold, "", names[i]);
        for (allowed = 0; !told; allowed++) {
            es_stream_t *s = rig_reserve(&rig, es_str(text));

            assert_true(allowed < 1000);
            rig_take(&rig);
            countdown = allowed;
            es_presence_join(&rig.intake, s);
            countdown = -1;
            rig_round(&rig);
            got.n = 0;
            got_read(&got, client);
            assert_int_equal(es_buf_add(&got, "", 1), ES_OK);
            told = strstr(got.p, "event: join\ndata: {\"channel\": \"room\"") != NULL;
            assert_true(told || !strstr(got.p, "event: join"));
            countdown = allowed;
            es_presence_leave(&rig.intake, s);
            countdown = -1;
            es_stream_loop_end(s, ES_END_CLIENT);
            rig_give_back(&rig);
            rig_round(&rig);
            es_buf_free(&got);
            assert_int_equal(es_presence_state(&rig.intake, S("room/presence"), &got), ES_OK);
            assert_bytes(got.p, got.n, "{\"count\": 0, \"members\": 0, \"names\": []}");
            rig.now_ms += 5000; /* what is owed is told, and nothing is owed any more */
            es_presence_run(&rig.intake);
            rig.now_ms += 5000;
            es_presence_run(&rig.intake);
            assert_int_equal(es_presence_timeout(&rig.intake), -1);
            rig_round(&rig);
        }
        assert_true(allowed > 5);
        rig_close(&rig);
        es_presence_free(&rig.intake);
        close(client);
        es_buf_free(&got);
    }
}

static void a_log_that_cannot_grow_keeps_what_it_has(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    size_t refused = 0;
    uint64_t i;

    (void)state;
    for (i = 0; i < 100; i++) {
        es_frame_t *f = es_frame_make(S("x"));

        countdown = i % 3 ? 0 : -1;
        if (es_channel_append(c, f, i, 1 << 20) != ES_OK) {
            refused++;
        }
        countdown = -1;
    }
    assert_true(refused > 0);
    assert_int_equal(c->head - c->tail, 100 - refused);
    for (i = c->tail + 1; i < c->head; i++) {
        assert_true(es_channel_at(c, i)->order > es_channel_at(c, i - 1)->order);
    }
    es_channel_free(c);
}

static void a_subscription_that_cannot_join_changes_nothing(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    es_sub_t subs[9];
    size_t i;

    (void)state;
    memset(subs, 0, sizeof subs);
    for (i = 0; i < ES_COUNT(subs); i++) {
        subs[i].channel = c;
        subs[i].index = ES_SUB_OFF;
        countdown = 0;
        if (es_channel_join(c, &subs[i]) != ES_OK) {
            countdown = -1;
            assert_int_equal(subs[i].index, ES_SUB_OFF);
            assert_int_equal(c->sub_count, i);
            assert_int_equal(es_channel_join(c, &subs[i]), ES_OK);
        }
        countdown = -1;
    }
    for (i = 0; i < ES_COUNT(subs); i++) {
        es_channel_leave(&subs[i]);
    }
    es_channel_free(c);
}

static void the_wire_says_that_it_has_no_memory(void **state)
{
    es_instruct_t *in = NULL, *back = NULL;
    es_delivery_t to = { .chunked = true, .peer = (char *)(uintptr_t) "peer" }, from = { 0 };
    es_wire_reader_t r;
    es_detail_t detail;
    es_err_t err = ES_ENOMEM;
    char *text = NULL;
    size_t len = 0;
    long allowed;
    int pair[2];

    (void)state;
    assert_int_equal(es_instruct_from_headers(NULL, 0, &in, NULL), ES_OK);
    for (allowed = 0; err != ES_OK; allowed++) {
        countdown = allowed;
        err = es_hold_encode(in, &to, &text, &len);
        countdown = -1;
        assert_true(err == ES_OK || (err == ES_ENOMEM && text == NULL));
    }
    for (allowed = 0, err = ES_ENOMEM; err != ES_OK; allowed++) {
        countdown = allowed;
        err = es_hold_decode((es_str_t) { text, len }, &back, &from, &detail);
        countdown = -1;
        assert_true(err == ES_OK || (back == NULL && from.peer == NULL));
    }
    assert_string_equal(from.peer, "peer");
    free(text);
    es_delivery_clear(&from);
    es_instruct_free(back);
    es_instruct_free(in);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    es_wire_reader_init(&r);
    assert_int_equal(write(pair[0], "x", 1), 1);
    countdown = 0;
    assert_int_equal(es_wire_fill(pair[1], &r), ES_ENOMEM);
    countdown = -1;
    assert_int_equal(es_wire_fill(pair[1], &r), ES_OK);
    es_wire_reader_free(&r);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reservation_without_memory_leaves_nothing),
        cmocka_unit_test(a_publish_without_memory_is_not_missed_silently),
        cmocka_unit_test(an_event_without_memory_is_lost_whole),
        cmocka_unit_test(presence_without_memory_keeps_its_books),
        cmocka_unit_test(a_log_that_cannot_grow_keeps_what_it_has),
        cmocka_unit_test(a_subscription_that_cannot_join_changes_nothing),
        cmocka_unit_test(the_wire_says_that_it_has_no_memory),
    };
    return cmocka_run_group_tests_name("hub_oom", tests, set_up, fx_apr_down);
}
