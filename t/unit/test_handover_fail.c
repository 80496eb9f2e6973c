/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong between two hubs (handover.c, takeover.c): one of them dies, is stopped, or is
 * not what it should be. No stream may be served twice or miss a message without being cut. And
 * many streams at once, with publishes during every hand-over.
 */
#include "handover_fixture.h"

#include <sys/resource.h>

/* ---- the next hub fails: the old one goes on ---- */

static void the_next_hub_dies(void **state)
{
    enum { DEATHS = 6 };
    char *content = es_repeat('x', 300000), *got = malloc(300001);
    const size_t before = fx_fd_count();
    char want[64];
    fx_hub_t a, b;
    int link, client, slow, reserved, i;

    (void)state;
    assert_non_null(got);
    fx_hub_start(&a, 2, LAG, NULL, 0);
    link = fx_link(&a);
    reserved = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"s\"}, {\"name\": \"a\"}]", ""));
    slow = fx_small_client(link);
    fx_reserve(reserved, fx_hold("raw", "[{\"name\": \"r\"}]", ""));
    assert_int_equal(fx_publish(link, "s", content), ES_OK);
    for (i = 0; i < DEATHS; i++) {
        es_wire_head_t head;
        char skip[64];
        const int heir = fx_heir(&a);

        /* Before it reads, after a few bytes, and with everything read but the word. */
        if (i == 1) {
            assert_int_equal(fx_read(heir, skip, sizeof skip), sizeof skip);
        }
        while (i > 1 && fx_read(heir, (char *)&head, sizeof head) == sizeof head) {
            char *payload = malloc((size_t)head.len + 1);

            assert_int_equal(fx_read(heir, payload, head.len), head.len);
            free(payload);
            if (head.type == ES_WIRE_DONE || (i < 4 && head.type == ES_WIRE_HELD)) {
                break;
            }
        }
        close(heir);
        assert_true(fx_log_wait(&a.log, "ES0356", (size_t)i + 1));
        snprintf(want, sizeof want, "%d;", i);
        assert_int_equal(fx_publish(link, "a", want), ES_OK);
        fx_check_next(client, es_str(want), __FILE__, __LINE__);
        assert_silent(client);
        assert_stat(link, "streams", 2);
        assert_stat(link, "reserved", 1);
    }
    /* A next hub that lives gets all of it. */
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_int_equal(fx_publish(link, "a", "end"), ES_OK);
    assert_next(client, "end");
    assert_int_equal(fx_read(slow, got, 300000), 300000);
    assert_memory_equal(got, content, 300000);
    assert_next(slow, "0;1;2;3;4;5;end");
    i = fx_hold_fd(reserved);
    assert_int_equal(fx_publish(link, "r", "r"), ES_OK);
    assert_next(i, "r");
    assert_stat(link, "published", 1 + DEATHS + 2);
    close(i);
    close(client);
    close(slow);
    close(reserved);
    close(link);
    fx_hub_stop(&b, FX_NOT_COUNTED);
    assert_int_equal(fx_fd_count(), before);
    free(content);
    free(got);
}

/* It answers with an error: it serves what it was sent, so nothing of that may be touched here. */
static void the_next_hub_breaks_off(void **state)
{
    const size_t before = fx_fd_count();
    fx_hub_t a;
    int link, client, heir;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_stat(link, "streams", 1);
    heir = fx_heir(&a);
    assert_true(fx_readable(heir));
    assert_int_equal(es_wire_reply(heir, ES_DONE_NUMBER, ES_EINVAL, S("")), ES_OK);
    fx_hub_join(&a, FX_NOT_COUNTED);
    assert_silent(client); /* no terminating chunk: the descriptor is in `heir`, unread */
    close(heir);
    assert_end(client);
    close(client);
    close(link);
    assert_int_equal(fx_fd_count(), before);
}

/* ---- the hub before fails ---- */

/* Sends what a hub sends for one stream on channel a; returns the client's end. */
static int send_held(int to, const char *resume, const char *rest)
{
    char payload[1024];
    const es_str_t hold = fx_hold("raw", "[{\"name\": \"a\"}]", "");
    size_t n = hold.n - 1;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    memcpy(payload, hold.p, n);
    n += (size_t)snprintf(payload + n, sizeof payload - n, ", \"resume\": %s}", resume) + 1;
    memcpy(payload + n, rest, strlen(rest));
    n += strlen(rest);
    assert_int_equal(
        es_wire_send(to, ES_WIRE_HELD, 0, (es_str_t) { payload, n }, pair[1], FX_PATIENCE), ES_OK);
    close(pair[1]);
    return pair[0];
}

#define RESUME(behind)                                                                             \
    "{\"behind\": [" behind "], \"continuous\": [false], \"bytes\": 0, \"idle\": 0, \"ending\": "  \
    "0}"

static void send_frame(int to, const char *order, const char *content)
{
    char payload[512], item[256];
    const size_t n = (size_t)snprintf(payload, sizeof payload, "{\"order\": %s}", order) + 1;
    const int k =
        snprintf(item, sizeof item, "J{\"channel\": \"a\", \"http-stream\": {\"content\": \"%s\"}}",
                 content);

    memcpy(payload + n, item, (size_t)k);
    assert_int_equal(
        es_wire_send(to, ES_WIRE_FRAME, 0, (es_str_t) { payload, n + (size_t)k }, -1, FX_PATIENCE),
        ES_OK);
}

/* A first hub whose hub before is the test; returns the test's end. */
static int start_after(fx_hub_t *hub)
{
    fx_hub_t none;
    int door[2], pair[2];

    memset(&none, 0, sizeof none);
    none.fds = fx_fd_count();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    none.door = door[0];
    none.config.door = door[1];
    fx_hub_after(hub, &none, 2, LAG, pair[1]);
    close(door[0]);
    close(door[1]);
    return pair[0];
}

static void the_hub_before_breaks_off(void **state)
{
    fx_hub_t hub;
    const int old = start_after(&hub);
    int client[3], link;

    (void)state;
    send_frame(old, "7", "one;");
    send_frame(old, "9", "two;");
    client[0] = send_held(old, RESUME("0"), "");
    client[1] = send_held(old, RESUME("1"), "rest;");
    client[2] = send_held(old, RESUME("3"), "");
    assert_int_equal(es_wire_send(old, ES_WIRE_LINK, 1, S("ESW"), -1, FX_PATIENCE), ES_OK);
    close(old);
    link = fx_link(&hub);
    assert_int_equal(fx_publish(link, "a", "three"), ES_OK);
    assert_next(client[0], "three");
    assert_next(client[1], "rest;two;three");
    assert_end(client[2]); /* needs more than there is: cut */
    assert_stat(link, "ended.lag", 1);
    assert_stat(link, "streams", 2);
    assert_true(fx_log_count(&hub.log, "ES0359") == 1);
    close(client[0]);
    close(client[1]);
    close(client[2]);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* A message that cannot be read: streams that do not need it go on, the others are cut. */
static void a_lost_message_is_no_gap(void **state)
{
    fx_hub_t hub;
    const int old = start_after(&hub);
    int before, after, link;
    es_err_t code = ES_EIO;
    char *text = NULL;
    size_t len;

    (void)state;
    send_frame(old, "1", "one;");
    send_frame(old, "\"x\"", "two;");
    send_frame(old, "3", "three;");
    before = send_held(old, RESUME("2"), "");
    after = send_held(old, RESUME("1"), "");
    assert_int_equal(
        es_wire_send(old, ES_WIRE_DONE, ES_DONE_NUMBER, S("{\"order\": 3}\0{}"), -1, FX_PATIENCE),
        ES_OK);
    assert_int_equal(es_wire_answer(old, ES_DONE_NUMBER, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    free(text);
    assert_next(after, "three;");
    assert_end(before);
    link = fx_link(&hub);
    assert_stat(link, "ended.lag", 1);
    assert_stat(link, "streams", 1);
    close(old);
    close(before);
    close(after);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* Each costs itself alone. */
static void what_is_wrong_costs_itself(void **state)
{
    fx_hub_t hub;
    const int old = start_after(&hub);
    int good, bad[6], link, i, pipes[2];
    es_err_t code = ES_EIO;
    char *text = NULL;
    size_t len;

    (void)state;
    bad[0] = send_held(old, "{}", "");
    bad[1] = send_held(old,
                       "{\"behind\": [-1], \"continuous\": [false], \"bytes\": 0, \"idle\": 0, "
                       "\"ending\": 0}",
                       "");
    bad[2] = send_held(old,
                       "{\"behind\": [0], \"continuous\": [false], \"bytes\": 0, \"idle\": 0, "
                       "\"ending\": 5}",
                       ""); /* raw framing has no terminating chunk */
    bad[3] = send_held(old, "null", "");
    bad[4] = send_held(old, "1", "");
    bad[5] = send_held(old, "{", "");
    assert_int_equal(es_wire_send(old, ES_WIRE_HELD, 0, S("no NUL"), -1, FX_PATIENCE), ES_OK);
    assert_int_equal(es_wire_send(old, ES_WIRE_STATS, 0, S(""), -1, FX_PATIENCE), ES_OK);
    assert_int_equal(es_wire_send(old, ES_WIRE_LINK, 0, S(""), -1, FX_PATIENCE), ES_OK);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(es_wire_send(old, ES_WIRE_LOOSE, 0, S(""), pipes[0], FX_PATIENCE), ES_OK);
    close(pipes[0]);
    good = send_held(old, RESUME("0"), "good;");
    assert_int_equal(es_wire_send(old, ES_WIRE_DONE, ES_DONE_NUMBER, S(""), -1, FX_PATIENCE),
                     ES_OK);
    assert_int_equal(es_wire_answer(old, ES_DONE_NUMBER, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    free(text);
    assert_next(good, "good;");
    for (i = 0; i < 6; i++) {
        assert_end(bad[i]);
        close(bad[i]);
    }
    assert_int_equal(fcntl(pipes[1], F_GETFD), FD_CLOEXEC * 0);
    close(pipes[1]);
    link = fx_link(&hub);
    assert_stat(link, "streams", 1);
    close(good);
    close(link);
    close(old);
    fx_hub_stop(&hub, 0);
}

/* Bytes that are no message: what came is kept, and the hub before is told so. */
static void garbage_ends_it(void **state)
{
    fx_hub_t hub;
    const int old = start_after(&hub);
    int client, link;
    es_err_t code = ES_OK;
    char *text = NULL;
    size_t len;

    (void)state;
    client = send_held(old, RESUME("0"), "");
    assert_int_equal(write(old, "neither head nor tail", 21), 21);
    assert_int_equal(es_wire_answer(old, ES_DONE_NUMBER, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_EINVAL);
    free(text);
    assert_true(fx_readable(old));
    link = fx_link(&hub);
    assert_int_equal(fx_publish(link, "a", "kept"), ES_OK);
    assert_next(client, "kept");
    close(client);
    close(link);
    close(old);
    fx_hub_stop(&hub, 0);
}

/* ---- orders in between ---- */

/* The next hub is stopped while it waits: it gives back what it has, and touches none of it. */
static void a_stop_gives_all_back(void **state)
{
    const uint64_t one = 1;
    fx_hub_t hub;
    const int old = start_after(&hub);
    int client;

    (void)state;
    client = send_held(old, RESUME("0"), "rest;");
    assert_int_equal(write(hub.config.stop, &one, sizeof one), sizeof one);
    fx_hub_join(&hub, FX_NOT_COUNTED);
    assert_end(old); /* without a word */
    assert_end(client);
    close(client);
    close(old);
    assert_int_equal(fx_fd_count(), hub.fds);
}

static void a_stop_comes_after_a_hand_over(void **state)
{
    const uint64_t one = 1;
    fx_hub_t a, b;
    int link, client;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_stat(link, "streams", 1);
    fx_hub_next(&b, &a, 1, LAG);
    assert_int_equal(write(a.config.stop, &one, sizeof one), sizeof one);
    fx_hub_join(&a, FX_NOT_COUNTED);
    /* Whichever came first, the stream has ended or is the next hub's, as a whole. */
    assert_int_equal(write(b.config.stop, &one, sizeof one), sizeof one);
    fx_hub_join(&b, FX_NOT_COUNTED);
    assert_next(client, "0\r\n\r\n");
    assert_end(client);
    close(client);
    close(link);
    assert_int_equal(fx_fd_count(), a.fds);
}

static void an_expected_hub_does_not_come(void **state)
{
    fx_hub_t a;
    int link, client;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_int_equal(es_wire_knock(a.door, ES_WIRE_EXPECT, 0, -1), ES_OK);
    fx_door_read(&a);
    atomic_fetch_add(&a.ahead_ms, 50 * 1000);
    assert_stat(link, "streams", 1);
    atomic_fetch_add(&a.ahead_ms, 11 * 1000);
    assert_true(fx_log_wait(&a.log, "ES0352", 1));
    assert_next(client, "0\r\n\r\n");
    assert_end(client);
    close(client);
    close(link);
    fx_hub_join(&a, 0);
}

static void another_version_ends_the_streams(void **state)
{
    es_wire_head_t head;
    fx_hub_t a;
    int link, client, pair[2];

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    client = fx_subscribe(link, "chunked", "[{\"name\": \"a\"}]", "");
    assert_stat(link, "streams", 1);
    /* The head of this version's, with another number in it. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_knock(pair[0], ES_WIRE_HAND_OVER, 1, pair[0]), ES_OK);
    assert_int_equal(read(pair[1], &head, sizeof head), sizeof head);
    head.version++;
    assert_int_equal(write(a.door, &head, sizeof head), sizeof head);
    assert_next(client, "0\r\n\r\n");
    assert_end(client);
    fx_hub_join(&a, FX_NOT_COUNTED);
    close(pair[0]);
    close(pair[1]);
    close(client);
    close(link);
    assert_int_equal(fx_fd_count(), a.fds);
}

/* ---- many ---- */

typedef struct publisher {
    int link;
    atomic_int sent;
    atomic_bool stop;
    _Atomic es_err_t err;
} publisher_t;

static void *publish_on(void *arg)
{
    publisher_t *p = arg;
    char number[16];

    while (!atomic_load(&p->stop) && p->err == ES_OK) {
        snprintf(number, sizeof number, "%06d\n", atomic_load(&p->sent));
        p->err = fx_publish(p->link, "a", number);
        atomic_fetch_add(&p->sent, 1);
    }
    return NULL;
}

static void many_streams_get_every_number_once(void **state)
{
    enum { STREAMS = 2000, ROUNDS = 4, EACH = 20 };
    static const int threads[ROUNDS] = { 2, 1, 4, 3 };
    static int client[STREAMS];
    static fx_hub_t hub[ROUNDS];
    struct rlimit files;
    publisher_t p = { .err = ES_OK };
    pthread_t thread;
    char want[16];
    int link, i, k, n;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    fx_hub_start(&hub[0], threads[0], LAG, NULL, 0);
    link = fx_link(&hub[0]);
    p.link = fx_link(&hub[0]);
    for (i = 0; i < STREAMS; i++) {
        client[i] = fx_subscribe(
            link, "raw", i % 2 ? "[{\"name\": \"a\"}]" : "[{\"name\": \"b\"}, {\"name\": \"a\"}]",
            "");
    }
    assert_stat(link, "streams", STREAMS);
    assert_int_equal(pthread_create(&thread, NULL, publish_on, &p), 0);
    for (k = 1; k < ROUNDS; k++) {
        const int until = atomic_load(&p.sent) + EACH;

        while (atomic_load(&p.sent) < until && p.err == ES_OK) {
            fx_check_next(client[0], (es_str_t) { "", 0 }, __FILE__, __LINE__);
            assert_true(fx_stat(link, "streams") >= 0);
        }
        fx_hub_next(&hub[k], &hub[k - 1], threads[k], LAG);
        fx_hub_join(&hub[k - 1], FX_NOT_COUNTED);
    }
    atomic_store(&p.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(p.err, ES_OK);
    n = atomic_load(&p.sent);
    for (i = 0; i < STREAMS; i++) {
        for (k = 0; k < n; k++) {
            snprintf(want, sizeof want, "%06d\n", k);
            fx_check_next(client[i], (es_str_t) { want, 7 }, __FILE__, __LINE__);
        }
    }
    assert_stat(link, "published", n);
    assert_stat(link, "deliveries", (json_int_t)n * STREAMS);
    assert_stat(link, "ended.lag", 0);
    for (i = 0; i < STREAMS; i++) {
        assert_silent(client[i]);
        close(client[i]);
    }
    close(p.link);
    close(link);
    fx_hub_stop(&hub[ROUNDS - 1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_hub_dies),
        cmocka_unit_test(the_next_hub_breaks_off),
        cmocka_unit_test(the_hub_before_breaks_off),
        cmocka_unit_test(a_lost_message_is_no_gap),
        cmocka_unit_test(what_is_wrong_costs_itself),
        cmocka_unit_test(garbage_ends_it),
        cmocka_unit_test(a_stop_gives_all_back),
        cmocka_unit_test(a_stop_comes_after_a_hand_over),
        cmocka_unit_test(an_expected_hub_does_not_come),
        cmocka_unit_test(another_version_ends_the_streams),
        cmocka_unit_test(many_streams_get_every_number_once),
    };
    return cmocka_run_group_tests_name("handover_fail", tests, fx_apr_up, fx_apr_down);
}
