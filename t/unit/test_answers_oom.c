/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is answered about events when there is no memory, or the store cannot be read: whoever asks
 * is told, and nobody waits for ever.
 */
#include "kept_fixture.h"

#include <lmdb.h>

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
        kept_publish(&k, "a", "x", &told[i], -1);
    }
    kept_write(&k);
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
            kept_run(&k);
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
    kept_write(k);
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
        cmocka_unit_test(a_beginning_that_cannot_be_found_is_told),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(a_history_that_finds_no_memory),
    };

    return cmocka_run_group_tests_name("answers_oom", tests, kept_up, fx_apr_down);
}
