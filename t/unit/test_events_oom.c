/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events and their history without memory (event.c, events.c, history.c, history_write.c,
 * replay.c): the first, the second, the third ... allocation fails, and all that come after it,
 * until none does. Nothing may crash or leak, nobody waits for ever, and no client misses an event
 * without being told: its stream ends, or it gets a reset when it comes back.
 *
 * One thread plays all: loop, intake, and the history's writer, which is called when the test wants
 * it. LMDB's own memory does not fail here (test_store_oom.c has that), but for one test.
 */
#include "stream_fixture.h"

#include "history_int.h"
#include "oom_fixture.h"
#include "store_fixture.h"

#include <lmdb.h>

static int set_up(void **state)
{
    wx_malloc = __real_malloc;
    json_set_alloc_funcs(__wrap_malloc, free);
    return fx_apr_up(state);
}

/* ---- a hub with a history ---- */

typedef struct kept {
    rig_t rig;
    sx_t *x;
} kept_t;

static uint64_t wall_of(void *ctx)
{
    (void)ctx;
    return 1795468999000;
}

static void kept_open(kept_t *k)
{
    rig_open(&k->rig, ES_HUB_LAG_DEFAULT);
    k->x = sx_make();
    k->rig.config.history = k->x->dir;
    k->rig.config.wall_ms = wall_of;
    k->rig.intake.epoll = epoll_create1(EPOLL_CLOEXEC);
    k->rig.intake.history_source.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(es_events_init(&k->rig.intake), ES_OK);
    es_events_open(&k->rig.intake);
    assert_non_null(k->rig.intake.history);
    es_history_finish(k->rig.intake.history); /* its thread; numbers for this test are there */
}

static void kept_close(kept_t *k)
{
    es_history_t *history = k->rig.intake.history;

    rig_close(&k->rig);
    k->rig.intake.history = NULL;
    es_history_close(history);
    close(k->rig.intake.epoll);
    close(k->rig.intake.history_source.fd);
    sx_free(k->x);
}

/* The writer works off what there is. Whatever happened, everything is settled then. */
static void write_all(kept_t *k)
{
    (void)es_history_writer(k->rig.intake.history);
    assert_int_equal(es_history_settled(k->rig.intake.history), k->rig.intake.order);
}

/* Rounds of the loop until nothing moves. */
static void run(kept_t *k)
{
    int rounds;

    rig_round(&k->rig);
    for (rounds = 0; rounds < 10; rounds++) {
        es_replay_loop_pass(&k->rig.loop, k->rig.now_ms);
    }
}

static void publish(kept_t *k, const char *channel, const char *content, es_published_t *ret,
                    long allowed)
{
    char packet[256];
    es_item_t *item = NULL;
    const int n = snprintf(packet, sizeof packet,
                           "J{\"channel\": \"%s\", \"formats\": {\"http-stream\": {\"content\": "
                           "\"data: %s%%%%\\n\\n\", \"content-filters\": [\"build-id\"]}}}",
                           channel, content);

    assert_int_equal(es_item_from_packet(packet, (size_t)n, &item, NULL), ES_OK);
    countdown = allowed;
    es_intake_publish_item(&k->rig.intake, item, ret);
    countdown = -1;
}

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
    publish(k, "a", "1", &told, -1);
    write_all(k);
    run(k);
    client_read(&c);
    publish(k, "a", "2", &told, place == INTAKE ? allowed : -1);
    countdown = place == WRITER ? allowed : -1;
    write_all(k);
    countdown = place == LOOP ? allowed : -1;
    run(k);
    countdown = -1;
    publish(k, "a", "3", &told, -1);
    write_all(k);
    run(k);
    client_read(&c);
    at_once = c.got.n == 9 && memcmp(c.got.p, "1% 2% 3% ", 9) == 0;
    if (!at_once) {
        assert_bytes(c.got.p, c.got.n, "1% "); /* not 3 without 2 */
        assert_non_null(k->rig.loop.dead);
        client_come_back(k, &c);
        run(k);
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
    publish(&k, "a", "1", &told, -1);
    run(&k);
    channel = s->subs[0].channel;
    publish(&k, "a", "2", &told, -1);
    rig_take(&k.rig);
    es_channel_lose(channel, told.number, false); /* as on_publish of loop.c does */
    publish(&k, "a", "3", &told, -1);
    run(&k);
    assert_true(s->replaying);
    write_all(&k);
    run(&k);
    assert_false(s->replaying);
    client_read(&c);
    assert_bytes(c.got.p, c.got.n, "1% 2% 3% ");
    /* An order to close is in no history. */
    es_channel_lose(channel, told.number + 1, true);
    channel->dirty = true;
    channel->next_dirty = k.rig.loop.dirty;
    k.rig.loop.dirty = channel;
    run(&k);
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

        publish(&k, "a", content, &told, -1);
    }
    write_all(&k);
    for (allowed = 0; !complete; allowed++) {
        client_t c = { .fd = -1 };
        es_stream_t *s;

        assert_true(allowed < 1000);
        es_buf_init(&c.got, 1 << 20);
        s = client_open(&k, &c, ", \"from\": {\"earliest\": true}");
        assert_true(s->replaying);
        countdown = allowed;
        run(&k);
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

/* ---- where a stream begins ---- */

static bool no_reads; /* the store cannot be read */

int __real_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **ret);
int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **ret);

int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **ret)
{
    return no_reads ? ENOMEM : __real_mdb_txn_begin(env, parent, flags, ret);
}

/* ES_ENOMEM: no answer. Else the stream, which has begun. */
static es_err_t begin(kept_t *k, const char *from, bool *ret_reset, es_stream_t **ret)
{
    char hold[512];
    const int n =
        snprintf(hold, sizeof hold,
                 "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}, "
                 "\"delivery\": {\"framing\": \"raw\", \"events\": true, \"from\": {%s}}}",
                 from);
    const long allowed = countdown;
    es_buf_t text;
    es_err_t err;

    countdown = -1;
    *ret = rig_reserve(&k->rig, (es_str_t) { hold, (size_t)n });
    rig_take(&k->rig);
    es_buf_init(&text, 1024);
    countdown = allowed;
    err = es_events_reserved(&k->rig.intake, *ret, &text);
    countdown = -1;
    *ret_reset = err == ES_OK && strstr(text.p, "true");
    es_buf_free(&text);
    return err;
}

/* Whoever asks for events that cannot be looked up is told, or is ended by the replay. */
static void a_beginning_that_cannot_be_found_is_told(void **state)
{
    char from_id[64], id[ES_EVENT_ID_SIZE];
    const char *const froms[] = { from_id, "\"last\": 2", "\"time\": 1", "\"earliest\": true" };
    es_published_t told[3];
    size_t i, how;
    kept_t k;

    (void)state;
    kept_open(&k);
    for (i = 0; i < 3; i++) {
        publish(&k, "a", "x", &told[i], -1);
    }
    write_all(&k);
    es_event_id_encode(k.rig.intake.instance, told[0].number, id);
    snprintf(from_id, sizeof from_id, "\"id\": \"%s\"", id);
    for (i = 0; i < ES_COUNT(froms); i++) {
        const uint64_t want[] = { told[0].number, told[0].number, told[0].number - 1, 0 };

        for (how = 0; how < 3; how++) {
            es_stream_t *s;
            bool reset;
            es_err_t err;
            int client;

            countdown = how == 1 ? 0 : -1;
            no_reads = how == 2;
            err = begin(&k, froms[i], &reset, &s);
            assert_int_equal(err, how == 1 ? ES_ENOMEM : ES_OK);
            if (how == 0) {
                assert_true(s->replaying);
                assert_int_equal(s->sent, want[i]);
            }
            client = rig_hold(&k.rig, s);
            es_replay_loop_start(s);
            run(&k);
            no_reads = false;
            if (how == 2) {
                assert_true(reset || s->end == ES_END_ERROR);
                assert_true(reset == (i < 3));
            }
            es_stream_loop_end(s, ES_END_CLIENT);
            rig_give_back(&k.rig);
            close(client);
        }
    }
    kept_close(&k);
}

/* ---- requests ---- */

/* Each is answered or finds its link closed, at the latest when the writer is done; and what was
 * reserved for a request that failed is given back. */
static void check_request(kept_t *k, es_wire_type_t type, const char *payload, long allowed,
                          es_err_t *ret_code)
{
    es_link_t *link;
    char *text = NULL;
    size_t len;
    es_err_t err;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    link = es_link_open(&k->rig.intake, pair[1]);
    assert_non_null(link);
    assert_int_equal(es_wire_send(pair[0], type, 7, es_str(payload), -1, FX_PATIENCE), ES_OK);
    countdown = allowed;
    es_link_readable(&k->rig.intake, link);
    write_all(k);
    es_events_settled(&k->rig.intake);
    countdown = -1;
    if (k->rig.intake.links) {
        assert_false(link->parked);
    }
    err = es_wire_answer(pair[0], 7, 0, ret_code, &text, &len);
    free(text);
    if (err != ES_OK) {
        assert_int_equal(err, ES_EIO);
        assert_null(k->rig.intake.links);
        *ret_code = ES_EIO;
    }
    else if (type == ES_WIRE_RESERVE) {
        assert_true((link->reserved != NULL) == (*ret_code == ES_OK));
    }
    if (k->rig.intake.links) {
        rig_take(&k->rig);
        if (link->reserved) {
            es_stream_loop_end(link->reserved, ES_END_RELEASED);
            link->reserved = NULL;
        }
        es_link_close(&k->rig.intake, link);
    }
    close(pair[0]);
}

static void nobody_waits_for_ever(void **state)
{
    static const struct {
        es_wire_type_t type;
        const char *payload;
    } requests[] = {
        { ES_WIRE_PUBLISH, "{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                           "{\"content\": \"x\"}}}, {\"channel\": \"b\", \"formats\": "
                           "{\"http-stream\": {\"content\": \"x\"}}}]}" },
        { ES_WIRE_RESERVE, "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}, "
                           "{\"name\": \"c\"}]}, \"delivery\": {\"framing\": \"raw\", \"events\": "
                           "true, \"from\": {\"last\": 1}}}" },
        { ES_WIRE_RESERVE, "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}, "
                           "\"delivery\": {\"framing\": \"raw\", \"events\": true}}" },
        { ES_WIRE_INFO, "{\"channel\": \"a\"}" },
        { ES_WIRE_STATS, "prometheus" },
        { ES_WIRE_STATS, "json" },
        { ES_WIRE_CLEAR, "{\"channel\": \"a\"}" },
    };
    size_t i;
    kept_t k;

    (void)state;
    kept_open(&k);
    for (i = 0; i < ES_COUNT(requests); i++) {
        es_err_t code = ES_ENOMEM;
        long allowed;

        for (allowed = 0; code != ES_OK; allowed++) {
            assert_true(allowed < 1000);
            check_request(&k, requests[i].type, requests[i].payload, allowed, &code);
            rig_round(&k.rig);
            rig_give_back(&k.rig);
            assert_int_equal(k.rig.load, 0);
            if (requests[i].type == ES_WIRE_CLEAR && code == ES_ENOENT) {
                break; /* cleared by one that could not be answered */
            }
        }
        assert_true(allowed > 1);
    }
    kept_close(&k);
}

/* ---- opening ---- */

static void a_history_that_finds_no_memory(void **state)
{
    const size_t before = fx_fd_count();
    sx_t *x = sx_make();
    es_err_t err = ES_ENOMEM;
    long allowed;

    (void)state;
    for (allowed = 0; err != ES_OK; allowed++) {
        const es_history_config_t config = { .store = x->config, .wake = -1, .waiters = 3 };
        es_history_t *history = NULL;
        es_detail_t detail = { "" };

        assert_true(allowed < 1000);
        countdown = allowed;
        err = es_history_open(&config, &history, &detail);
        countdown = -1;
        if (err == ES_OK) {
            es_history_close(history);
        }
        else {
            assert_null(history);
            assert_string_not_equal(detail.text, "");
        }
        assert_int_equal(fx_fd_count(), before);
    }
    assert_true(allowed > 3);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_event_is_missed_silently),
        cmocka_unit_test(a_log_without_memory_is_replaced_by_the_history),
        cmocka_unit_test(a_replay_without_memory_ends_the_stream),
        cmocka_unit_test(a_beginning_that_cannot_be_found_is_told),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(a_history_that_finds_no_memory),
    };

    return cmocka_run_group_tests_name("events_oom", tests, set_up, fx_apr_down);
}
