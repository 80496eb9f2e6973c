/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of src/hub/stream.c: whatever a socket takes at a time, the bytes on it are exactly the
 * messages in the order of publishing. Short stories are run with the write cut at every byte; long
 * random ones are compared with a model in test_stream_model.c.
 */
#include "stream_fixture.h"

/* ---- every offset ---- */

typedef struct step {
    const char *channel;
    const char *content; /* NULL: close */
    const char *more;    /* members of the item */
    const char *want;    /* what the stream gets; NULL: nothing */
} step_t;

typedef struct story {
    const char *name;
    const char *channels;
    const char *more; /* members of the hold */
    step_t steps[12];
} story_t;

static const story_t stories[] = {
    { "one channel",
      "[{\"name\": \"a\"}]",
      "",
      { { "a", "one", "", "one" },
        { "a", "a second message, somewhat longer", "", "a second message, somewhat longer" },
        { "b", "for others", "", NULL },
        { "a", "3", "", "3" },
        { "a", "sixteen bytes...", "", "sixteen bytes..." } } },
    { "empty contents",
      "[{\"name\": \"a\"}]",
      "",
      { { "a", "", "", "" },
        { "a", "one", "", "one" },
        { "a", "", "", "" },
        { "a", "", "", "" },
        { "a", "two", "", "two" },
        { "a", "", "", "" } } },
    { "three channels",
      "[{\"name\": \"a\"}, {\"name\": \"b\"}, {\"name\": \"c\"}]",
      "",
      { { "c", "1", "", "1" },
        { "a", "22", "", "22" },
        { "a", "333", "", "333" },
        { "b", "4444", "", "4444" },
        { "a", "55555", "", "55555" },
        { "c", "666666", "", "666666" } } },
    { "delivery filters",
      "[{\"name\": \"a\", \"filters\": [\"skip-self\", \"require-sub\"]}, {\"name\": \"b\"}]",
      ", \"meta\": {\"user\": \"me\"}",
      { { "a", "mine", ", \"meta\": {\"sender\": \"me\"}", NULL },
        { "a", "hers", ", \"meta\": {\"sender\": \"she\"}", "hers" },
        { "b", "mine unfiltered", ", \"meta\": {\"sender\": \"me\"}", "mine unfiltered" },
        { "a", "mine", ", \"meta\": {\"sender\": \"me\"}", NULL },
        { "a", "for b", ", \"meta\": {\"require_sub\": \"b\"}", "for b" },
        { "a", "for c", ", \"meta\": {\"require_sub\": \"c\"}", NULL },
        { "a", "plain", "", "plain" },
        { "a", "mine", ", \"meta\": {\"sender\": \"me\"}", NULL } } },
    { "build-id",
      "[{\"name\": \"a\", \"filters\": [\"build-id\"]}, {\"name\": \"b\"}]",
      ", \"meta\": {\"id_format\": \"%(a)s.%(b)s\"}",
      { { "a", "id: %I", ", \"id\": \"1\"", "id: " }, /* b has none yet */
        { "b", "%I stays", ", \"id\": \"x\"", "%I stays" },
        { "a", "id: %I and more", ", \"id\": \"2\"", "id: 2.x and more" },
        { "a", "", ", \"id\": \"3\"", "" },
        { "b", "", ", \"id\": \"y\"", "" },
        { "a", "100%% %I", ", \"id\": \"4\"", "100% 4.y" } } },
    { "a close",
      "[{\"name\": \"a\"}, {\"name\": \"b\"}]",
      "",
      { { "a", "before", "", "before" },
        { "b", "beside", "", "beside" },
        { "a", NULL, "", "" },
        { "b", "after", "", NULL },
        { "a", "after", "", NULL } } },
    { "a close of a tracked stream",
      "[{\"name\": \"a\", \"filters\": [\"var-subst\"]}]",
      ", \"meta\": {\"x\": \"value\"}",
      { { "a", "x=%(x)s", "", "x=value" }, { "a", NULL, "", "" }, { "a", "after", "", NULL } } },
    { "a close that is filtered, and one that is not",
      "[{\"name\": \"a\", \"filters\": [\"skip-self\"]}]",
      ", \"meta\": {\"user\": \"me\"}",
      { { "a", NULL, ", \"meta\": {\"sender\": \"me\"}", NULL },
        { "a", "goes on", "", "goes on" },
        { "a", NULL, ", \"meta\": {\"sender\": \"she\"}", "" },
        { "a", "after", "", NULL } } },
    { "nothing but a close", "[{\"name\": \"a\"}]", "", { { "a", NULL, "", "" } } },
};

/* Returns whether the story ends with a close. */
static bool story_want(const story_t *story, bool chunked, es_buf_t *want)
{
    const step_t *t;

    for (t = story->steps; t->channel; t++) {
        if (t->content && t->want) {
            want_add(want, chunked, t->want);
        }
        else if (!t->content && t->want) {
            assert_int_equal(es_buf_add(want, "0\r\n\r\n", chunked ? 5 : 0), ES_OK);
            return true;
        }
    }
    return false;
}

static void story_publish(rig_t *rig, const step_t *from, const step_t *to)
{
    for (; from < to && from->channel; from++) {
        if (from->content) {
            rig_publish(rig, from->channel, from->content, from->more);
        }
        else {
            rig_publish_close(rig, from->channel, from->more);
        }
    }
}

/* The first write takes `first` bytes, every other one `next`; the first `early` steps are
 * published before it. A keep-alive that is due while the socket is full must not get between. */
static void story_run(const story_t *story, bool chunked, long first, long next, size_t early)
{
    rig_t rig;
    es_stream_t *s;
    es_buf_t want, got;
    bool closes, ended;
    int client;

    es_buf_init(&want, 1 << 20);
    es_buf_init(&got, 1 << 20);
    closes = story_want(story, chunked, &want);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    s = rig_reserve(&rig, fx_hold(chunked ? "chunked" : "raw", story->channels, story->more));
    client = rig_hold(&rig, s);
    story_publish(&rig, story->steps, story->steps + early);
    wx_socket.room = first;
    rig_round(&rig);
    story_publish(&rig, story->steps + early, story->steps + ES_COUNT(story->steps));
    rig_round(&rig);
    while (s->state == ES_STREAM_LIVE && s->blocked) {
        wx_socket.room = next;
        rig_writable(&rig, s);
    }
    ended = got_read(&got, client);
    assert_got(&got, &want);
    assert_int_equal(s->bytes, want.n);
    assert_int_equal(ended, closes);
    assert_int_equal(s->state, closes ? ES_STREAM_ENDED : ES_STREAM_LIVE);
    if (closes) {
        assert_int_equal(s->end, ES_END_ACTION);
    }
    else {
        uint16_t i;

        assert_null(s->pending);
        for (i = 0; i < s->sub_count; i++) { /* nobody is behind: the log is empty */
            assert_int_equal(s->subs[i].channel->bytes, 0);
            assert_int_equal(s->subs[i].channel->behind, 0);
        }
    }
    rig_close(&rig);
    close(client);
    es_buf_free(&want);
    es_buf_free(&got);
}

static void a_story_may_be_cut_at_every_byte(void **state)
{
    static const long nexts[] = { 1, 7, -1 };
    size_t i, k;
    int framing;

    (void)state;
    for (i = 0; i < ES_COUNT(stories); i++) {
        for (framing = 0; framing < 2; framing++) {
            es_buf_t want;
            long first;
            size_t early;

            es_buf_init(&want, 1 << 20);
            story_want(&stories[i], framing == 1, &want);
            for (first = 0; first <= (long)want.n; first++) {
                for (k = 0; k < ES_COUNT(nexts); k++) {
                    for (early = 1; early <= ES_COUNT(stories[i].steps); early += 3) {
                        story_run(&stories[i], framing == 1, first, nexts[k], early);
                    }
                }
            }
            es_buf_free(&want);
        }
    }
}

/* ---- keep-alives ---- */

typedef struct keeper {
    rig_t rig;
    es_stream_t *stream;
    int client;
} keeper_t;

static void keeper_open(keeper_t *k, const char *mode, const char *filters)
{
    char channels[128], more[128];

    rig_open(&k->rig, ES_HUB_LAG_DEFAULT);
    snprintf(channels, sizeof channels, "[{\"name\": \"a\", \"filters\": [%s]}]", filters);
    snprintf(more, sizeof more,
             ", \"keep-alive\": {\"content\": \"<alive>\", \"timeout\": 20, \"mode\": \"%s\"}",
             mode);
    k->stream = rig_reserve(&k->rig, fx_hold("chunked", channels, more));
    k->client = rig_hold(&k->rig, k->stream);
}

/* Turns the clock by seconds and returns how many keep-alives were sent meanwhile. */
static uint64_t keeper_wait(keeper_t *k, int seconds)
{
    const uint64_t before = k->rig.loop.counters.keep_alives;
    int i;

    for (i = 0; i < seconds * 1000; i += ES_WHEEL_TICK) {
        k->rig.now_ms += ES_WHEEL_TICK;
        rig_round(&k->rig);
    }
    return k->rig.loop.counters.keep_alives - before;
}

static void keeper_close(keeper_t *k)
{
    rig_close(&k->rig);
    close(k->client);
}

#define ALIVE "7\r\n<alive>\r\n"

static void an_idle_keep_alive_counts_from_the_last_delivery(void **state)
{
    keeper_t k;

    (void)state;
    keeper_open(&k, "idle", "");
    assert_int_equal(keeper_wait(&k, 19), 0);
    assert_int_equal(keeper_wait(&k, 2), 1);
    assert_next(k.client, ALIVE);
    assert_int_equal(keeper_wait(&k, 10), 0);
    rig_publish(&k.rig, "a", "x", "");
    rig_round(&k.rig);
    assert_next(k.client, "1\r\nx\r\n");
    assert_int_equal(keeper_wait(&k, 19), 0);
    assert_int_equal(keeper_wait(&k, 2), 1);
    assert_int_equal(keeper_wait(&k, 100), 5);
    assert_next(k.client, ALIVE ALIVE ALIVE ALIVE ALIVE ALIVE);
    assert_silent(k.client);
    keeper_close(&k);
}

static void an_interval_keep_alive_comes_whatever_is_delivered(void **state)
{
    keeper_t k;
    int i;

    (void)state;
    keeper_open(&k, "interval", "");
    for (i = 0; i < 5; i++) {
        assert_int_equal(keeper_wait(&k, 15), 0);
        rig_publish(&k.rig, "a", "x", "");
        rig_round(&k.rig);
        assert_int_equal(keeper_wait(&k, 6), 1);
        assert_next(k.client, "1\r\nx\r\n" ALIVE);
        k.rig.now_ms -= 1000; /* back to whole intervals */
    }
    keeper_close(&k);
}

/* Cut at every byte, with a message that comes while its rest waits; plain and tracked. */
static void a_keep_alive_may_be_cut_too(void **state)
{
    static const char *const filters[] = { "", "\"var-subst\"" };
    size_t f;
    long cut;

    (void)state;
    for (f = 0; f < ES_COUNT(filters); f++) {
        for (cut = 0; cut <= (long)strlen(ALIVE); cut++) {
            keeper_t k;

            keeper_open(&k, "idle", filters[f]);
            wx_socket.room = cut;
            k.rig.now_ms += 21000;
            rig_round(&k.rig);
            rig_publish(&k.rig, "a", "x", "");
            rig_round(&k.rig);
            rig_publish(&k.rig, "a", "yy", "");
            rig_round(&k.rig);
            assert_int_equal(keeper_wait(&k, 60), 0); /* not into what waits */
            wx_socket.room = -1;
            rig_writable(&k.rig, k.stream);
            if (cut > 0) { /* a full socket needs no keep-alive */
                assert_next(k.client, ALIVE);
            }
            assert_next(k.client, "1\r\nx\r\n2\r\nyy\r\n");
            assert_silent(k.client);
            assert_int_equal(keeper_wait(&k, 21), 1);
            assert_next(k.client, ALIVE);
            keeper_close(&k);
        }
    }
}

static void a_keep_alive_finds_a_client_that_is_gone(void **state)
{
    keeper_t k;

    (void)state;
    keeper_open(&k, "idle", "");
    close(k.client);
    assert_int_equal(keeper_wait(&k, 21), 1);
    assert_int_equal(k.stream->state, ES_STREAM_ENDED);
    assert_int_equal(k.stream->end, ES_END_CLIENT);
    rig_close(&k.rig);
    /* Errors other than the client's. */
    keeper_open(&k, "idle", "");
    wx_socket.fail = EIO;
    keeper_wait(&k, 21);
    assert_int_equal(k.stream->end, ES_END_ERROR);
    keeper_close(&k);
    keeper_open(&k, "idle", "");
    wx_socket.fail = EINTR;
    assert_int_equal(keeper_wait(&k, 21), 1);
    assert_next(k.client, ALIVE);
    keeper_close(&k);
}

/* ---- errors ---- */

static void a_failed_write_ends_the_stream(void **state)
{
    static const struct {
        int error;
        es_end_t end;
    } cases[] = {
        { EPIPE, ES_END_CLIENT },
        { ECONNRESET, ES_END_CLIENT },
        { EIO, ES_END_ERROR },
        { ENOBUFS, ES_END_ERROR },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        rig_t rig;
        es_stream_t *s, *other;
        int client, second;

        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        s = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
        client = rig_hold(&rig, s);
        other = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
        second = rig_hold(&rig, other);
        rig_publish(&rig, "a", "x", "");
        wx_socket.fail = cases[i].error; /* of the one that is served first: the newest */
        rig_round(&rig);
        assert_int_equal(other->state, ES_STREAM_ENDED);
        assert_int_equal(other->end, cases[i].end);
        assert_int_equal(other->fd, -1);
        assert_end(second);
        assert_next(client, "x");
        assert_int_equal(rig.loop.counters.ended[cases[i].end], 1);
        assert_int_equal(rig.loop.counters.streams, 1);
        assert_int_equal(s->subs[0].channel->bytes, 0);
        rig_close(&rig);
        close(client);
        close(second);
    }
}

static void an_interrupted_write_is_tried_again(void **state)
{
    rig_t rig;
    int client;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    client = rig_hold(&rig, rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", "")));
    rig_publish(&rig, "a", "x", "");
    wx_socket.fail = EINTR;
    rig_round(&rig);
    assert_next(client, "x");
    rig_close(&rig);
    close(client);
}

/* The first streams of a channel end while it is being flushed: nobody is left out. */
static void streams_that_end_in_a_pass_hide_no_others(void **state)
{
    enum { STREAMS = 9 };
    unsigned int which;

    (void)state;
    for (which = 0; which < 1 << STREAMS; which++) {
        es_stream_t *streams[STREAMS];
        int clients[STREAMS], i;
        rig_t rig;

        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        for (i = 0; i < STREAMS; i++) {
            streams[i] = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
            clients[i] = rig_hold(&rig, streams[i]);
            if (which & 1u << i) {
                close(clients[i]);
            }
        }
        rig_publish(&rig, "a", "x", "");
        rig_round(&rig);
        for (i = 0; i < STREAMS; i++) {
            if (which & 1u << i) {
                assert_int_equal(streams[i]->state, ES_STREAM_ENDED);
            }
            else {
                assert_next(clients[i], "x");
                close(clients[i]);
            }
        }
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_story_may_be_cut_at_every_byte),
        cmocka_unit_test(an_idle_keep_alive_counts_from_the_last_delivery),
        cmocka_unit_test(an_interval_keep_alive_comes_whatever_is_delivered),
        cmocka_unit_test(a_keep_alive_may_be_cut_too),
        cmocka_unit_test(a_keep_alive_finds_a_client_that_is_gone),
        cmocka_unit_test(a_failed_write_ends_the_stream),
        cmocka_unit_test(an_interrupted_write_is_tried_again),
        cmocka_unit_test(streams_that_end_in_a_pass_hide_no_others),
    };
    return cmocka_run_group_tests_name("stream", tests, fx_apr_up, fx_apr_down);
}
