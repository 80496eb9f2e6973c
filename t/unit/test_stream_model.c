/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of src/hub/stream.c beside each other: long random stories compared with a model that is
 * nothing but a buffer of what each stream should get, and bursts.
 */
#include "stream_fixture.h"

/* ---- random stories ---- */

enum { STREAMS = 6, CHANNELS = 4, STEPS = 400 };

typedef struct pair {
    es_stream_t *stream; /* NULL: there is none now */
    int client;
    bool chunked, on[CHANNELS], filtered[CHANNELS];
    es_buf_t want, got;
} pair_t;

static void pair_open(rig_t *rig, pair_t *p, unsigned int *seed)
{
    char channels[512] = "[";
    size_t n = 1;
    int i;

    memset(p, 0, sizeof *p);
    p->chunked = rand_r(seed) % 2;
    for (i = 0; i < CHANNELS; i++) {
        p->on[i] = rand_r(seed) % 2;
        p->filtered[i] = p->on[i] && rand_r(seed) % 3 == 0;
        if (p->on[i]) {
            n += (size_t)snprintf(channels + n, sizeof channels - n,
                                  "%s{\"name\": \"c%d\", \"filters\": [%s]}", n > 1 ? "," : "", i,
                                  p->filtered[i] ? "\"skip-self\"" : "");
        }
    }
    snprintf(channels + n, sizeof channels - n, "]");
    es_buf_init(&p->want, 64u << 20);
    es_buf_init(&p->got, 64u << 20);
    p->stream = rig_reserve(
        rig, fx_hold(p->chunked ? "chunked" : "raw", channels,
                     ", \"meta\": {\"user\": \"me\"}, \"keep-alive\": {\"content\": \"<k>\"}"));
    p->client = -1;
}

static void pair_close(pair_t *p)
{
    if (p->client >= 0) {
        close(p->client);
    }
    es_buf_free(&p->want);
    es_buf_free(&p->got);
    p->stream = NULL;
}

static void publish_random(rig_t *rig, pair_t *pairs, unsigned int *seed)
{
    static const size_t limits[] = { 1, 10, 200, 3000, 3000, 100000 };
    const int channel = (int)(rand_r(seed) % CHANNELS);
    const bool mine = rand_r(seed) % 3 == 0;
    const size_t size = rand_r(seed) % limits[rand_r(seed) % ES_COUNT(limits)];
    char *content = es_repeat((char)('a' + rand_r(seed) % 26), size), name[8];
    int i;

    snprintf(name, sizeof name, "c%d", channel);
    rig_publish(rig, name, content, mine ? ", \"meta\": {\"sender\": \"me\"}" : "");
    for (i = 0; i < STREAMS; i++) {
        pair_t *p = &pairs[i];

        if (p->stream && p->on[channel] && !(mine && p->filtered[channel])) {
            want_add(&p->want, p->chunked, content);
        }
    }
    free(content);
}

/* A keep-alive goes out when nothing waits; when the socket takes none of it, it is dropped. */
static void keep_alive(rig_t *rig, pair_t *p)
{
    if (p->stream->state == ES_STREAM_LIVE) {
        rig_round(rig);
        if (!p->stream->blocked && wx_socket.room != 0) {
            want_add(&p->want, p->chunked, "<k>");
        }
        p->stream->last_ms = 0;
        p->stream->keep_alive_due = 0;
        es_stream_loop_timer(p->stream, rig->now_ms);
    }
}

static void check_pair(pair_t *p)
{
    if (p->client >= 0) {
        assert_false(got_read(&p->got, p->client));
        assert_true(p->got.n <= p->want.n);
        if (p->got.n > 0) {
            assert_memory_equal(p->got.p, p->want.p, p->got.n);
        }
    }
}

/* All of it arrives in the end. */
static void settle(rig_t *rig, pair_t *p)
{
    wx_socket.room = -1;
    if (p->client < 0) {
        p->client = rig_hold(rig, p->stream);
    }
    do {
        rig_round(rig);
        check_pair(p);
        rig_writable(rig, p->stream);
    } while (p->stream->blocked);
    check_pair(p);
    assert_got(&p->got, &p->want);
}

static void random_step(rig_t *rig, pair_t *pairs, unsigned int *seed)
{
    pair_t *p = &pairs[rand_r(seed) % STREAMS];

    wx_socket.room = rand_r(seed) % 4 ? (long)(rand_r(seed) % 5000) : -1;
    switch (rand_r(seed) % 16) {
    case 0:
        if (p->stream) {
            settle(rig, p);
            es_stream_loop_end(p->stream, ES_END_CLIENT);
            rig_give_back(rig);
            pair_close(p);
        }
        else {
            pair_open(rig, p, seed);
        }
        break;
    case 1:
    case 2:
        if (p->stream && p->client < 0) {
            p->client = rig_hold(rig, p->stream);
        }
        break;
    case 3:
        if (p->stream) {
            keep_alive(rig, p);
        }
        break;
    case 4:
    case 5:
    case 6:
        if (p->stream) {
            rig_writable(rig, p->stream);
            check_pair(p);
        }
        break;
    case 7:
    case 8:
        rig_round(rig);
        break;
    default:
        publish_random(rig, pairs, seed);
        break;
    }
}

static void random_stories_come_out_as_in_the_model(void **state)
{
    unsigned int story;

    (void)state;
    for (story = 0; story < 30; story++) {
        pair_t pairs[STREAMS];
        unsigned int seed = story;
        rig_t rig;
        int i;

        rig_open(&rig, (size_t)64 << 20);
        for (i = 0; i < STREAMS; i++) {
            pair_open(&rig, &pairs[i], &seed);
        }
        for (i = 0; i < STEPS; i++) {
            random_step(&rig, pairs, &seed);
        }
        for (i = 0; i < STREAMS; i++) {
            if (pairs[i].stream) {
                settle(&rig, &pairs[i]);
            }
        }
        for (i = 0; i < STREAMS; i++) { /* nobody is behind: every log is empty */
            uint16_t k;

            for (k = 0; pairs[i].stream && k < pairs[i].stream->sub_count; k++) {
                assert_int_equal(pairs[i].stream->subs[k].channel->bytes, 0);
            }
        }
        rig_close(&rig);
        for (i = 0; i < STREAMS; i++) {
            if (pairs[i].stream) {
                pair_close(&pairs[i]);
            }
        }
    }
}

/* ---- bursts ---- */

static void a_burst_goes_out_in_few_writes(void **state)
{
    static const int counts[] = { 1, 255, 256, 257, 512, 1000 };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(counts); i++) {
        es_buf_t want, got;
        rig_t rig;
        int client, k;

        es_buf_init(&want, 1 << 20);
        es_buf_init(&got, 1 << 20);
        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        client = rig_hold(&rig, rig_reserve(&rig, fx_hold("chunked", "[{\"name\": \"a\"}]", "")));
        for (k = 0; k < counts[i]; k++) {
            char content[32];

            snprintf(content, sizeof content, "message %d", k);
            rig_publish(&rig, "a", content, "");
            want_add(&want, true, content);
        }
        wx_socket.calls = 0;
        rig_round(&rig);
        assert_int_equal(wx_socket.calls, (counts[i] + 255) / 256);
        got_read(&got, client);
        assert_got(&got, &want);
        rig_close(&rig);
        close(client);
        es_buf_free(&want);
        es_buf_free(&got);
    }
}

static void a_burst_may_be_cut_at_its_seams(void **state)
{
    long cut;

    (void)state;
    for (cut = 254 * 6; cut < 259 * 6; cut++) { /* each message is a chunk of 6 bytes */
        es_buf_t want, got;
        rig_t rig;
        es_stream_t *s;
        int client, k;

        es_buf_init(&want, 1 << 20);
        es_buf_init(&got, 1 << 20);
        rig_open(&rig, ES_HUB_LAG_DEFAULT);
        s = rig_reserve(&rig, fx_hold("chunked", "[{\"name\": \"a\"}, {\"name\": \"b\"}]", ""));
        client = rig_hold(&rig, s);
        for (k = 0; k < 600; k++) {
            const char content[] = { (char)('!' + k % 90), '\0' };
            const char *escaped = content[0] == '"'    ? "\\\""
                                  : content[0] == '\\' ? "\\\\"
                                                       : content;

            rig_publish(&rig, k % 2 ? "a" : "b", escaped, "");
            want_add(&want, true, content);
        }
        wx_socket.room = cut;
        rig_round(&rig);
        wx_socket.room = 256 * 6; /* again to a seam, with a part of a message pending */
        rig_writable(&rig, s);
        wx_socket.room = -1;
        rig_writable(&rig, s);
        got_read(&got, client);
        assert_got(&got, &want);
        rig_close(&rig);
        close(client);
        es_buf_free(&want);
        es_buf_free(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_stories_come_out_as_in_the_model),
        cmocka_unit_test(a_burst_goes_out_in_few_writes),
        cmocka_unit_test(a_burst_may_be_cut_at_its_seams),
    };
    return cmocka_run_group_tests_name("stream_model", tests, fx_apr_up, fx_apr_down);
}
