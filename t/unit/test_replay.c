/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event streams and the history (replay.c, history.c, events.c): whole hubs with a real store in a
 * directory of the test's own. What clients get is checked by content, not by ids.
 */
#include "events_fixture.h"

static const char *from_id(const char *id)
{
    static char text[2][128];
    static int i;

    i = 1 - i;
    snprintf(text[i], sizeof text[i], ", \"from\": {\"id\": \"%s\"}", id);
    return text[i];
}

static void check_from(int link, const char *from, bool reset, const char *words, const char *file,
                       int line)
{
    ev_reserved_t told;
    ev_client_t c = { 0 };

    c.fd = ev_subscribe_as(link, "raw", "[{\"name\": \"b\"}, {\"name\": \"a\"}]", from, &told);
    if (told.reset != reset) {
        print_error("%s:%d: reset is %d\n", file, line, told.reset);
        _fail(file, line);
    }
    ev_publish(link, "b", "end", "", NULL);
    ev_check(&c, words, file, line);
    close(c.fd);
    /* "end" is of this stream's own: what comes next does not have it. */
    assert_int_equal(fx_ask(link, ES_WIRE_CLEAR, S("{\"channel\": \"b\"}"), NULL), ES_OK);
}
#define assert_from(link, from, reset, words)                                                      \
    check_from((link), (from), (reset), (words), __FILE__, __LINE__)

static void streams_begin_where_they_ask(void **state)
{
    sx_t *x = sx_make();
    char id[4][ES_EVENT_ID_SIZE], future[ES_EVENT_ID_SIZE];
    fx_hub_t hub;
    int link;

    (void)state;
    ev_hub_start(&hub, 2, LAG, x->dir);
    link = fx_link(&hub);
    ev_publish(link, "b", "gone", "", NULL);
    assert_int_equal(fx_ask(link, ES_WIRE_CLEAR, S("{\"channel\": \"b\"}"), NULL), ES_OK);
    ev_publish_words(link, "a", "1 2 3 4", id);
    ev_publish(link, "other", "x", "", NULL);
    assert_from(link, "", false, "end");
    assert_from(link, ", \"from\": {\"earliest\": true}", false, "1 2 3 4 end");
    assert_from(link, ", \"from\": {\"last\": 2}", false, "3 4 end");
    assert_from(link, ", \"from\": {\"last\": 100}", false, "1 2 3 4 end");
    assert_from(link, ", \"from\": {\"time\": 0}", false, "1 2 3 4 end");
    assert_from(link, ", \"from\": {\"time\": 9000000000000}", false, "end");
    /* On b something after that id was cleared: what is left comes all the same. */
    assert_from(link, from_id(id[1]), true, "3 4 end");
    assert_from(link, from_id("nonsense"), true, "end");
    es_event_id_encode(1, 1, future);
    assert_from(link, from_id(future), true, "end");
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

static void a_history_outlives_its_hub(void **state)
{
    sx_t *x = sx_make();
    char id[3][ES_EVENT_ID_SIZE], want[256], *text = NULL;
    ev_reserved_t told;
    ev_client_t c = { 0 };
    fx_hub_t hub;
    int link;

    (void)state;
    ev_hub_start(&hub, 1, LAG, x->dir);
    link = fx_link(&hub);
    ev_publish_words(link, "a", "1 2 3", id);
    close(link);
    fx_hub_stop(&hub, 0);
    ev_hub_start(&hub, 3, LAG, x->dir);
    link = fx_link(&hub);
    c.fd = ev_subscribe(link, "a", from_id(id[0]), &told);
    assert_false(told.reset);
    ev_publish(link, "a", "4", "", NULL);
    assert_events(&c, "2 3 4");
    assert_int_equal(fx_ask(link, ES_WIRE_INFO, S("{\"channel\": \"a\"}"), &text), ES_OK);
    snprintf(want, sizeof want,
             "{\"receivers\": 1, \"id\": \"%s\", \"stored\": 4, \"oldest\": \"%s\"}", c.id, id[0]);
    assert_string_equal(text, want);
    free(text);
    assert_int_equal(fx_ask(link, ES_WIRE_CLEAR, S("{\"channel\": \"a\"}"), NULL), ES_OK);
    assert_int_equal(fx_ask(link, ES_WIRE_CLEAR, S("{\"channel\": \"a\"}"), NULL), ES_ENOENT);
    close(ev_subscribe(link, "a", from_id(id[1]), &told));
    assert_true(told.reset);
    close(ev_subscribe(link, "a", from_id(told.id), &told));
    assert_false(told.reset);
    close(c.fd);
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

/* ---- replay meets publishing ---- */

enum { EACH = 400, CHANNELS = 2, CLIENTS = 12 };

typedef struct publisher {
    int link;
    const char *channel;
    es_err_t err;
} publisher_t;

static void *publish_all(void *arg)
{
    publisher_t *p = arg;
    char text[300];
    int i;

    for (i = 0; i < EACH && p->err == ES_OK; i++) {
        snprintf(text, sizeof text, "%s %d %0200d", p->channel, i, 0);
        p->err = ev_try_publish(p->link, p->channel, text, "", NULL);
    }
    return NULL;
}

/* Reads until it has the last event of each channel. Every number comes once and in its place. */
static void read_all(ev_client_t *c, int next[CHANNELS], int stop_after)
{
    char data[512];
    int n = 0;

    while ((next[0] < EACH || next[1] < EACH) && n != stop_after) {
        const bool there = ev_next(c, data, sizeof data);

        assert_true(there);
        assert_int_equal(strtol(data + 2, NULL, 10), next[data[0] - 'a']);
        next[data[0] - 'a']++;
        n++;
    }
}

/* `max_lag` small: streams fall back to the history all the time. Clients drop and come back. */
static void check_join(size_t max_lag, bool change_hubs)
{
    static const char both[] = "[{\"name\": \"a\"}, {\"name\": \"b\"}]";
    sx_t *x = sx_make();
    publisher_t p[CHANNELS];
    pthread_t thread[CHANNELS];
    fx_hub_t a, b;
    int link, i, round;

    ev_hub_start(&a, 2, max_lag, x->dir);
    link = fx_link(&a);
    for (i = 0; i < CHANNELS; i++) {
        p[i] = (publisher_t) { .link = fx_link(&a), .channel = i ? "b" : "a" };
        assert_int_equal(pthread_create(&thread[i], NULL, publish_all, &p[i]), 0);
    }
    for (i = 0; i < CLIENTS; i++) {
        ev_client_t c = { 0 };
        int next[CHANNELS] = { 0, 0 };
        ev_reserved_t told;

        ev_reserve(link, "raw", both, ", \"from\": {\"earliest\": true}", &told);
        c.fd = fx_small_client(link);
        if (change_hubs && i == CLIENTS / 2) {
            ev_hub_next(&b, &a, 3, x->dir);
            fx_hub_join(&a, FX_NOT_COUNTED);
        }
        for (round = 0; round < 3; round++) {
            read_all(&c, next, 40 + i);
            if (next[0] == EACH && next[1] == EACH) {
                break;
            }
            close(c.fd);
            ev_reserve(link, "raw", both, from_id(c.id), &told);
            assert_false(told.reset);
            c.n = 0;
            c.fd = i % 2 ? fx_small_client(link) : fx_hold_fd(link);
        }
        read_all(&c, next, -1);
        assert_silent(c.fd);
        close(c.fd);
    }
    for (i = 0; i < CHANNELS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(p[i].err, ES_OK);
        close(p[i].link);
    }
    assert_stat(link, "ended.lag", 0);
    close(link);
    fx_hub_stop(change_hubs ? &b : &a, change_hubs ? FX_NOT_COUNTED : 0);
    sx_free(x);
}

static void replay_joins_live(void **state)
{
    (void)state;
    check_join(LAG, false);
}

static void slow_streams_read_the_history(void **state)
{
    (void)state;
    check_join(ES_HUB_LAG_MIN, false);
}

static void replay_goes_on_in_the_next_hub(void **state)
{
    (void)state;
    check_join(ES_HUB_LAG_MIN, true);
}

/* A reader that is far behind its log, over a hand-over: cut without a history, not with one. */
static void a_slow_reader_is_not_cut(void **state)
{
    enum { N = 200 };
    sx_t *x = sx_make();
    char text[1100], data[1100];
    ev_client_t c = { 0 };
    fx_hub_t a, b;
    int link, i;

    (void)state;
    ev_hub_start(&a, 1, ES_HUB_LAG_MIN, x->dir);
    link = fx_link(&a);
    ev_reserve(link, "raw", "[{\"name\": \"a\"}]", "", NULL);
    c.fd = fx_small_client(link);
    for (i = 0; i < 2 * N; i++) {
        snprintf(text, sizeof text, "%d %01000d", i, 0);
        ev_publish(link, "a", text, "", NULL);
        if (i == N) {
            ev_hub_next(&b, &a, 2, x->dir);
            fx_hub_join(&a, FX_NOT_COUNTED);
        }
    }
    for (i = 0; i < 2 * N; i++) {
        assert_true(ev_next(&c, data, sizeof data));
        assert_int_equal(strtol(data, NULL, 10), i);
    }
    ev_publish(link, "a", "live", "", NULL);
    assert_events(&c, "live");
    assert_stat(link, "ended.lag", 0);
    close(c.fd);
    close(link);
    fx_hub_stop(&b, FX_NOT_COUNTED);
    sx_free(x);
}

/* Configurations that differ: streams go on, and an id of a time that the history does not have is
 * told from one that it has. */
static void a_history_that_comes_and_goes(void **state)
{
    sx_t *x = sx_make();
    char id[3][ES_EVENT_ID_SIZE];
    ev_client_t c = { 0 };
    ev_reserved_t told;
    fx_hub_t a, b, d;
    int link;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    c.fd = ev_subscribe(link, "a", "", NULL);
    ev_publish_words(link, "a", "1 2", id);
    ev_hub_next(&b, &a, 2, x->dir);
    fx_hub_join(&a, FX_NOT_COUNTED);
    ev_publish_words(link, "a", "3 4", &id[1]);
    close(ev_subscribe(link, "a", from_id(id[0]), &told));
    assert_true(told.reset);
    close(ev_subscribe(link, "a", from_id(id[1]), &told));
    assert_false(told.reset);
    ev_hub_next(&d, &b, 1, NULL);
    fx_hub_join(&b, FX_NOT_COUNTED);
    ev_publish(link, "a", "5", "", NULL);
    assert_events(&c, "1 2 3 4 5");
    close(ev_subscribe(link, "a", from_id(id[1]), &told));
    assert_true(told.reset);
    close(ev_subscribe(link, "a", from_id(c.id), &told));
    assert_false(told.reset);
    close(c.fd);
    close(link);
    fx_hub_stop(&d, FX_NOT_COUNTED);
    sx_free(x);
}

/* Requests that wait in one link: each is answered, in its turn. */
static void requests_wait_for_one_another(void **state)
{
    enum { N = 20 };
    static const char body[] =
        "{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"x\"}}}]}";
    sx_t *x = sx_make();
    fx_hub_t hub;
    int link, gone, i;

    (void)state;
    ev_hub_start(&hub, 1, LAG, x->dir);
    link = fx_link(&hub);
    gone = fx_link(&hub);
    for (i = 1; i <= N; i++) {
        assert_int_equal(es_wire_send(link, ES_WIRE_PUBLISH, (uint32_t)i, S(body), -1, FX_PATIENCE),
                         ES_OK);
        assert_int_equal(es_wire_send(gone, ES_WIRE_PUBLISH, (uint32_t)i, S(body), -1, FX_PATIENCE),
                         ES_OK);
    }
    close(gone);
    for (i = 1; i <= N; i++) {
        es_err_t code = ES_EIO;
        char *text = NULL;
        size_t len;

        assert_int_equal(es_wire_answer(link, (uint32_t)i, FX_PATIENCE, &code, &text, &len), ES_OK);
        assert_int_equal(code, ES_OK);
        free(text);
    }
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

/* ---- no room ---- */

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Live delivery goes on, publishers are told, and who missed something is told, too. */
static void a_full_disk_stops_nobody(void **state)
{
    sx_t *x = sx_make();
    char *big = es_repeat('x', 200000), id[ES_EVENT_ID_SIZE], data[64];
    ev_reserved_t told;
    ev_client_t c = { 0 };
    fx_hub_t hub;
    char *text = NULL;
    es_err_t err = ES_OK;
    int link, i;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    ev_hub_start(&hub, 1, LAG, x->dir);
    link = fx_link(&hub);
    c.fd = ev_subscribe(link, "a", "", NULL);
    ev_publish(link, "a", "first", "", id);
    limit_files(65536);
    for (i = 0; i < 100 && err == ES_OK; i++) {
        err = ev_try_publish(link, "other", big, "", NULL);
    }
    assert_int_equal(err, ES_EFULL);
    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH,
                            S("{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                              "{\"content\": \"second\"}}}]}"),
                            &text),
                     ES_EFULL);
    assert_non_null(strstr(text, x->dir));
    free(text);
    assert_events(&c, "first second");
    assert_true(fx_log_wait(&hub.log, "ES0367", 1));
    close(ev_subscribe(link, "a", from_id(id), &told));
    assert_true(told.reset);
    assert_stat(link, "history.usable", 1);
    assert_stat(link, "history.not_kept", 2); /* the last of "other", and "second" */
    limit_files(RLIM_INFINITY);
    ev_publish(link, "a", "third", "", NULL);
    assert_true(ev_next(&c, data, sizeof data));
    assert_string_equal(data, "third");
    close(c.fd);
    c = (ev_client_t) { .fd = ev_subscribe(link, "a", from_id(told.id), &told) };
    assert_false(told.reset);
    assert_events(&c, "third");
    close(c.fd);
    close(link);
    fx_hub_stop(&hub, 0);
    free(big);
    sx_free(x);
}

/* A directory that cannot be: the hub serves, and says to publishers that nothing is kept. */
static void a_history_that_cannot_be_opened(void **state)
{
    sx_t *x = sx_make();
    char dir[128];
    ev_client_t c = { 0 };
    fx_hub_t hub;
    int link;

    (void)state;
    snprintf(dir, sizeof dir, "%s/no/such/place", x->top);
    ev_hub_start(&hub, 1, LAG, dir);
    link = fx_link(&hub);
    c.fd = ev_subscribe(link, "a", "", NULL);
    assert_int_equal(ev_try_publish(link, "a", "x", "", NULL), ES_EFULL);
    assert_events(&c, "x");
    assert_int_equal(fx_log_count(&hub.log, "ES0372"), 1);
    assert_stat(link, "history.usable", 0);
    assert_stat(link, "history.not_kept", 1);
    assert_int_equal(fx_stat(link, "history.messages"), -1);
    close(c.fd);
    close(link);
    fx_hub_stop(&hub, 0);
    sx_free(x);
}

/* ---- counters ---- */

static void the_history_is_counted(void **state)
{
    sx_t *x = sx_make();
    char *big = es_repeat('x', 100000), *text = NULL;
    fx_hub_t a, b;
    int link, client;

    (void)state;
    ev_hub_start(&a, 2, LAG, x->dir);
    link = fx_link(&a);
    assert_stat(link, "history.messages", 0);
    assert_stat(link, "history.oldest_age", 0);
    ev_publish(link, "a", big, "", NULL);
    ev_publish(link, "a", big, "", NULL);
    ev_publish(link, "b", big, "", NULL);
    assert_stat(link, "history.usable", 1);
    assert_stat(link, "history.messages", 3);
    assert_stat(link, "history.channels", 2);
    assert_stat(link, "history.groups", 3); /* each was waited for */
    assert_stat(link, "history.max_bytes", ES_STORE_BYTES_DEFAULT);
    assert_in_range(fx_stat(link, "history.bytes"), 300000, 400000);
    atomic_fetch_add(&a.ahead_ms, 3600 * 1000);
    assert_in_range(fx_stat(link, "history.oldest_age"), 3600, 3600 + FX_PATIENCE / 1000);
    ev_reserve(link, "raw", "[{\"name\": \"a\"}]", ", \"from\": {\"earliest\": true}", NULL);
    client = fx_small_client(link);
    assert_stat(link, "history.replaying", 1);
    ev_hub_next(&b, &a, 1, x->dir);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_stat(link, "history.replaying", 1);
    assert_stat(link, "history.groups", 3);
    close(client);
    assert_stat(link, "history.replaying", 0);
    ev_publish(link, "c", "x", "", NULL);
    assert_stat(link, "history.groups", 4);
    assert_stat(link, "history.not_kept", 0);
    assert_int_equal(fx_ask(link, ES_WIRE_STATS, S("prometheus"), &text), ES_OK);
    assert_non_null(strstr(text, "\neventstream_history_messages 4\n"));
    assert_non_null(strstr(text, "\neventstream_history_groups_total 4\n"));
    free(text);
    close(link);
    fx_hub_stop(&b, FX_NOT_COUNTED);
    free(big);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_begin_where_they_ask),
        cmocka_unit_test(a_history_outlives_its_hub),
        cmocka_unit_test(replay_joins_live),
        cmocka_unit_test(slow_streams_read_the_history),
        cmocka_unit_test(replay_goes_on_in_the_next_hub),
        cmocka_unit_test(a_slow_reader_is_not_cut),
        cmocka_unit_test(a_history_that_comes_and_goes),
        cmocka_unit_test(requests_wait_for_one_another),
        cmocka_unit_test(a_full_disk_stops_nobody),
        cmocka_unit_test(a_history_that_cannot_be_opened),
        cmocka_unit_test(the_history_is_counted),
    };

    return cmocka_run_group_tests_name("replay", tests, fx_apr_up, fx_apr_down);
}
