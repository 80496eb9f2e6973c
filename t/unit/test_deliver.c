/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of src/hub/deliver.c: what a message is for one subscription. What each filter does is
 * layer 1's business and tested there; here it is which of them run, in which order, on what.
 */
#include "stream_fixture.h"

/* Publishes one item to a stream with these channels and gives what arrived. */
typedef struct talk {
    rig_t rig;
    es_stream_t *stream;
    int client;
} talk_t;

static void talk_open(talk_t *t, const char *channels, const char *meta)
{
    char more[1024];

    rig_open(&t->rig, ES_HUB_LAG_DEFAULT);
    snprintf(more, sizeof more, ", \"meta\": {%s}", meta);
    t->stream = rig_reserve(&t->rig, fx_hold("raw", channels, more));
    t->client = rig_hold(&t->rig, t->stream);
}

static void talk_close(talk_t *t)
{
    rig_close(&t->rig);
    close(t->client);
}

static void check_talk(talk_t *t, const char *channel, const char *content, const char *more,
                       const char *want, const char *file, int line)
{
    es_buf_t got;
    es_str_t w = es_str(want);

    es_buf_init(&got, 1 << 20);
    rig_publish(&t->rig, channel, content, more);
    rig_round(&t->rig);
    got_read(&got, t->client);
    es_check_bytes(got.p ? got.p : "", got.n, w, file, line);
    es_buf_free(&got);
}
#define assert_talk(t, channel, content, more, want)                                               \
    check_talk((t), (channel), (content), (more), (want), __FILE__, __LINE__)

static void delivery_filters_drop_or_pass(void **state)
{
    talk_t t;

    (void)state;
    talk_open(&t,
              "[{\"name\": \"a\", \"filters\": [\"skip-users\", \"skip-self\"]}, {\"name\": \"b\"},"
              "{\"name\": \"c\", \"filters\": [\"require-sub\"]}]",
              "\"user\": \"me\"");
    assert_false(t.stream->tracked);
    assert_talk(&t, "a", "1", "", "1");
    assert_talk(&t, "a", "2", ", \"meta\": {\"sender\": \"me\"}", "");
    assert_talk(&t, "a", "3", ", \"meta\": {\"sender\": \"you\"}", "3");
    assert_talk(&t, "a", "4", ", \"meta\": {\"skip_users\": \"you,me\"}", "");
    assert_talk(&t, "a", "5", ", \"meta\": {\"skip_users\": \"you\", \"sender\": \"me\"}", "");
    assert_talk(&t, "a", "6", ", \"meta\": {\"skip_users\": \"you\", \"sender\": \"you\"}", "6");
    assert_talk(&t, "a", "7", ", \"meta\": {\"require_sub\": \"nowhere\"}", "7");
    assert_talk(&t, "b", "8", ", \"meta\": {\"sender\": \"me\"}", "8");
    assert_talk(&t, "c", "9", ", \"meta\": {\"require_sub\": \"nowhere\"}", "");
    assert_talk(&t, "c", "10", ", \"meta\": {\"require_sub\": \"b\"}", "10");
    talk_close(&t);
}

static void content_filters_run_in_their_order(void **state)
{
    talk_t t;

    (void)state;
    talk_open(&t, "[{\"name\": \"a\", \"filters\": [\"build-id\", \"var-subst\"]}]",
              "\"id_format\": \"%(a)s\", \"x\": \"100%%I\"");
    /* build-id makes % of %%, then var-subst looks at it. */
    assert_talk(&t, "a", "%I %%(x)s %%%%", ", \"id\": \"7\"", "7 100%%I %");
    talk_close(&t);
    talk_open(&t, "[{\"name\": \"a\", \"filters\": [\"var-subst\", \"build-id\"]}]",
              "\"id_format\": \"%(a)s\", \"x\": \"%I\"");
    assert_talk(&t, "a", "%(x)s", ", \"id\": \"7\"", "7");
    talk_close(&t);
    talk_open(&t, "[{\"name\": \"a\", \"filters\": [\"var-subst\", \"var-subst\", \"var-subst\"]}]",
              "\"x\": \"%(y)s\", \"y\": \"%(z)s\", \"z\": \"end\"");
    assert_talk(&t, "a", "%(x)s", "", "end");
    talk_close(&t);
    /* Mixed with a delivery filter. */
    talk_open(&t, "[{\"name\": \"a\", \"filters\": [\"var-subst\", \"skip-self\"]}]",
              "\"x\": \"value\", \"user\": \"me\"");
    assert_talk(&t, "a", "%(x)s", ", \"meta\": {\"sender\": \"me\"}", "");
    assert_talk(&t, "a", "%(x)s", ", \"meta\": {\"sender\": \"you\"}", "value");
    talk_close(&t);
}

static void a_filter_that_fails_drops_the_message(void **state)
{
    talk_t t;

    (void)state;
    talk_open(&t, "[{\"name\": \"a\", \"filters\": [\"build-id\"]}, {\"name\": \"b\"}]", "");
    assert_talk(&t, "a", "%I", "", "");
    assert_int_equal(t.stream->state, ES_STREAM_LIVE);
    assert_talk(&t, "b", "goes on", "", "goes on");
    assert_int_equal(t.stream->subs[0].channel->bytes, 0);
    talk_close(&t);
}

static void build_id_knows_the_newest_ids(void **state)
{
    talk_t t;

    (void)state;
    talk_open(&t,
              "[{\"name\": \"a\", \"filters\": [\"build-id\"], \"prev-id\": \"a0\"},"
              "{\"name\": \"b\", \"prev-id\": \"b0\"},"
              "{\"name\": \"c\", \"filters\": [\"skip-self\"], \"prev-id\": \"c0\"}]",
              "\"id_format\": \"%(a)s %(b)s %(c)s\", \"user\": \"me\"");
    assert_true(t.stream->tracked);
    /* What the application gave counts until something newer comes; the message's own id is known
     * to its filters. */
    assert_talk(&t, "a", "%I", ", \"id\": \"a1\"", "a1 b0 c0");
    assert_talk(&t, "b", "x", ", \"id\": \"b1\"", "x");
    assert_talk(&t, "a", "%I", ", \"id\": \"a2\"", "a2 b1 c0");
    /* The id of a message that was dropped counts too: the application's numbering goes on. */
    assert_talk(&t, "c", "x", ", \"id\": \"c1\", \"meta\": {\"sender\": \"me\"}", "");
    assert_talk(&t, "a", "%I", ", \"id\": \"a3\"", "a3 b1 c1");
    talk_close(&t);
}

/* With GRIP_PREFIX django-grip prefixes the channels, but not what id_format says. */
static void build_id_finds_a_channel_behind_its_prefix(void **state)
{
    talk_t t;

    (void)state;
    talk_open(&t,
              "[{\"name\": \"site-events-a\", \"filters\": [\"build-id\"]},"
              "{\"name\": \"events-b\"}, {\"name\": \"site-events-b\"}]",
              "\"id_format\": \"%(events-a)s/%(events-b)s\"");
    assert_talk(&t, "site-events-b", "", ", \"id\": \"prefixed\"", "");
    assert_talk(&t, "events-b", "", ", \"id\": \"exact\"", "");
    assert_talk(&t, "site-events-a", "%I", ", \"id\": \"1\"", "1/exact");
    talk_close(&t);
}

static void asserted_content_filters_must_be_the_subscriptions(void **state)
{
    static const char *const subscriptions[] = { "",
                                                 "\"skip-self\"",
                                                 "\"build-id\"",
                                                 "\"build-id\", \"skip-self\"",
                                                 "\"build-id\", \"var-subst\"",
                                                 "\"var-subst\", \"build-id\"" };
    static const struct {
        const char *asserted;
        const char *reaches; /* one letter for each subscription */
    } cases[] = {
        { "", "yynnnn" },
        { "\"build-id\"", "nnyynn" },
        { "\"var-subst\"", "nnnnnn" },
        { "\"build-id\", \"var-subst\"", "nnnnyn" },
        { "\"var-subst\", \"build-id\"", "nnnnny" },
        { "\"not-a-filter\"", "nnnnnn" },
        { "\"build-id\", \"not-a-filter\"", "nnnnnn" },
    };
    size_t i, k;

    (void)state;
    for (i = 0; i < ES_COUNT(subscriptions); i++) {
        talk_t t;
        char text[256];

        snprintf(text, sizeof text, "[{\"name\": \"a\", \"filters\": [%s]}]", subscriptions[i]);
        talk_open(&t, text, "\"id_format\": \"x\"");
        for (k = 0; k < ES_COUNT(cases); k++) {
            es_item_t *item = NULL;
            es_detail_t detail;
            es_buf_t got;
            const bool reaches = cases[k].reaches[i] == 'y';

            snprintf(text, sizeof text,
                     "J{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"hi\", "
                     "\"content-filters\": [%s]}}}",
                     cases[k].asserted);
            assert_err(es_item_from_packet(text, strlen(text), &item, &detail), ES_OK, &detail);
            es_intake_publish(&t.rig.intake, item);
            rig_round(&t.rig);
            es_buf_init(&got, 1000);
            got_read(&got, t.client);
            if (got.n != (reaches ? 2 : 0)) {
                fail_msg("[%s] asserted, [%s] subscribed: %zu bytes", cases[k].asserted,
                         subscriptions[i], got.n);
            }
            es_buf_free(&got);
        }
        talk_close(&t);
    }
}

/* The filters of one stream are not those of another on the same channel. */
static void each_subscription_is_looked_at_alone(void **state)
{
    static const char *const users[] = { "ann", "ben", "cat" };
    rig_t rig;
    int clients[3], i;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    for (i = 0; i < 3; i++) {
        char more[64];

        snprintf(more, sizeof more, ", \"meta\": {\"user\": \"%s\"}", users[i]);
        clients[i] = rig_hold(
            &rig, rig_reserve(&rig, fx_hold("raw",
                                            "[{\"name\": \"a\", \"filters\": [\"skip-self\", "
                                            "\"var-subst\"]}]",
                                            more)));
    }
    rig_publish(&rig, "a", "for %(user)s; ", "");
    rig_publish(&rig, "a", "not for ben; ", ", \"meta\": {\"sender\": \"ben\"}");
    rig_publish(&rig, "a", "bye", "");
    rig_round(&rig);
    assert_next(clients[0], "for ann; not for ben; bye");
    assert_next(clients[1], "for ben; bye");
    assert_next(clients[2], "for cat; not for ben; bye");
    rig_close(&rig);
    for (i = 0; i < 3; i++) {
        assert_end(clients[i]);
        close(clients[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivery_filters_drop_or_pass),
        cmocka_unit_test(content_filters_run_in_their_order),
        cmocka_unit_test(a_filter_that_fails_drops_the_message),
        cmocka_unit_test(build_id_knows_the_newest_ids),
        cmocka_unit_test(build_id_finds_a_channel_behind_its_prefix),
        cmocka_unit_test(asserted_content_filters_must_be_the_subscriptions),
        cmocka_unit_test(each_subscription_is_looked_at_alone),
    };
    return cmocka_run_group_tests_name("deliver", tests, fx_apr_up, fx_apr_down);
}
