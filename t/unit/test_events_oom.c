/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and their history without memory (event.c, events.c, history.c, history_write.c,
 * replay.c): the first, the second, the third ... allocation fails, and all that come after it,
 * until none does. Nothing may crash or leak, and no client misses an event without being told: its
 * stream ends, or it gets a reset when it comes back. Answers are in test_answers_oom.c.
 */
#include "kept_fixture.h"

/* ---- a client ---- */

typedef struct client {
    int fd;
    bool reset;   /* told at the reservation */
    es_buf_t got; /* the data of its events, each with a blank behind */
    char id[ES_EVENT_ID_SIZE];
} client_t;

static es_stream_t *client_open(kept_t *k, client_t *c, const char *from)
{
    char hold[512];
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}, "
                           "\"delivery\": {\"framing\": \"raw\", \"events\": true%s}}",
                           from);
    es_stream_t *s = rig_reserve(&k->rig, (es_str_t) { hold, (size_t)n });
    es_buf_t text;

    es_buf_init(&text, 1024);
    assert_int_equal(es_events_reserved(&k->rig.intake, s, &text), ES_OK);
    c->reset = strstr(text.p, "true") != NULL;
    es_buf_free(&text);
    c->fd = rig_hold(&k->rig, s);
    es_replay_loop_start(s);
    return s;
}

static void client_come_back(kept_t *k, client_t *c)
{
    char from[128];

    rig_give_back(&k->rig);
    close(c->fd);
    snprintf(from, sizeof from, ", \"from\": {\"id\": \"%s\"}", c->id);
    (void)client_open(k, c, from);
}

/* Reads what has come: whole events, each with an id. */
static void client_read(client_t *c)
{
    es_buf_t raw;
    char *line, *rest;

    es_buf_init(&raw, 1 << 20);
    got_read(&raw, c->fd);
    for (line = raw.n > 0 ? strtok_r(raw.p, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "id: ", 4) == 0) {
            snprintf(c->id, sizeof c->id, "%s", line + 4);
        }
        else {
            assert_memory_equal(line, "data: ", 6);
            assert_int_equal(es_buf_addf(&c->got, "%s ", line + 6), ES_OK);
        }
    }
    es_buf_free(&raw);
}

/* ---- no silent gap ---- */

enum { INTAKE, WRITER, LOOP, PLACES };

/* Three events, the second of them without memory in one place. Returns whether it came at once. */
static bool check_gap(kept_t *k, int place, long allowed)
{
    es_published_t told;
    client_t c = { .fd = -1 };
    bool at_once;

    es_buf_init(&c.got, 1 << 20);
    (void)client_open(k, &c, "");
    kept_publish(k, "a", "1", &told, -1);
    kept_write(k);
    kept_run(k);
    client_read(&c);
    kept_publish(k, "a", "2", &told, place == INTAKE ? allowed : -1);
    countdown = place == WRITER ? allowed : -1;
    kept_write(k);
    countdown = place == LOOP ? allowed : -1;
    kept_run(k);
    countdown = -1;
    kept_publish(k, "a", "3", &told, -1);
    kept_write(k);
    kept_run(k);
    client_read(&c);
    at_once = c.got.n == 9 && memcmp(c.got.p, "1% 2% 3% ", 9) == 0;
    if (!at_once) {
        assert_bytes(c.got.p, c.got.n, "1% "); /* not 3 without 2 */
        assert_non_null(k->rig.loop.dead);
        client_come_back(k, &c);
        kept_run(k);
        client_read(&c);
        if (!c.reset) {
            assert_bytes(c.got.p, c.got.n, "1% 2% 3% ");
        }
        else {
            assert_bytes(c.got.p, c.got.n, "1% 3% ");
            assert_int_not_equal(es_history_lost(k->rig.intake.history), 0);
        }
    }
    if (k->rig.loop.streams) {
        es_stream_loop_end(k->rig.loop.streams, ES_END_CLIENT);
    }
    close(c.fd);
    rig_give_back(&k->rig);
    es_buf_free(&c.got);
    return at_once;
}

static void no_event_is_missed_silently(void **state)
{
    int place;

    (void)state;
    for (place = 0; place < PLACES; place++) {
        bool complete = false;
        long allowed;

        for (allowed = 0; !complete; allowed++) {
            kept_t k;
            uint64_t not_kept;

            assert_true(allowed < 1000);
            kept_open(&k);
            complete = check_gap(&k, place, allowed);
            not_kept = k.rig.intake.not_kept + es_history_counts(k.rig.intake.history).not_kept;
            /* It comes by the log, or by the history; what is in neither is counted. */
            complete = complete && not_kept == 0;
            kept_close(&k);
        }
        assert_true(place == LOOP || allowed > 1);
    }
}

/* The log of one loop cannot grow: who is up to date there reads the history. */
static void a_log_without_memory_is_replaced_by_the_history(void **state)
{
    es_published_t told;
    client_t c = { .fd = -1 };
    es_channel_t *channel;
    es_stream_t *s;
    kept_t k;

    (void)state;
    kept_open(&k);
    es_buf_init(&c.got, 1 << 20);
    s = client_open(&k, &c, "");
    kept_publish(&k, "a", "1", &told, -1);
    kept_run(&k);
    channel = s->subs[0].channel;
    kept_publish(&k, "a", "2", &told, -1);
    rig_take(&k.rig);
    es_channel_lose(channel, told.number, false); /* as on_publish of loop.c does */
    kept_publish(&k, "a", "3", &told, -1);
    kept_run(&k);
    assert_true(s->replaying);
    kept_write(&k);
    kept_run(&k);
    assert_false(s->replaying);
    client_read(&c);
    assert_bytes(c.got.p, c.got.n, "1% 2% 3% ");
    /* An order to close is in no history. */
    es_channel_lose(channel, told.number + 1, true);
    channel->dirty = true;
    channel->next_dirty = k.rig.loop.dirty;
    k.rig.loop.dirty = channel;
    kept_run(&k);
    assert_int_equal(s->state, ES_STREAM_ENDED);
    assert_int_equal(s->end, ES_END_ACTION);
    close(c.fd);
    kept_close(&k);
    es_buf_free(&c.got);
}

/* ---- replay ---- */

/* What comes is the beginning of what there is, and then the stream ends. */
static void a_replay_without_memory_ends_the_stream(void **state)
{
    static const char all[] = "1% 2% 3% 4% 5% ";
    es_published_t told;
    bool complete = false;
    long allowed;
    kept_t k;
    int i;

    (void)state;
    kept_open(&k);
    for (i = 1; i <= 5; i++) {
        char content[2] = { (char)('0' + i), '\0' };

        kept_publish(&k, "a", content, &told, -1);
    }
    kept_write(&k);
    for (allowed = 0; !complete; allowed++) {
        client_t c = { .fd = -1 };
        es_stream_t *s;

        assert_true(allowed < 1000);
        es_buf_init(&c.got, 1 << 20);
        s = client_open(&k, &c, ", \"from\": {\"earliest\": true}");
        assert_true(s->replaying);
        countdown = allowed;
        kept_run(&k);
        countdown = -1;
        client_read(&c);
        complete = s->state == ES_STREAM_LIVE;
        assert_memory_equal(c.got.p ? c.got.p : "", all, c.got.n);
        if (complete) {
            assert_int_equal(c.got.n, sizeof all - 1);
            es_stream_loop_end(s, ES_END_CLIENT);
        }
        else {
            assert_int_equal(s->end, ES_END_ERROR);
        }
        close(c.fd);
        rig_give_back(&k.rig);
        es_buf_free(&c.got);
    }
    assert_true(allowed > 10);
    assert_int_equal(k.rig.loop.counters.replaying, 0);
    kept_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_event_is_missed_silently),
        cmocka_unit_test(a_log_without_memory_is_replaced_by_the_history),
        cmocka_unit_test(a_replay_without_memory_ends_the_stream),
    };

    return cmocka_run_group_tests_name("events_oom", tests, kept_up, fx_apr_down);
}
