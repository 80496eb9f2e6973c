/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hub and children that break the rules of the wire: the link is answered or closed, nothing
 * leaks, everyone else is served on.
 */
#include "wire_fixture.h"

#define LAG ((size_t)ES_HUB_LAG_DEFAULT)

static void put_head(char *to, uint32_t magic, uint16_t version, uint8_t type, uint8_t flags,
                     uint32_t len)
{
    const es_wire_head_t head = {
        .magic = magic, .version = version, .type = type, .flags = flags, .number = 7, .len = len
    };

    memcpy(to, &head, sizeof head);
}

static void breach_closes_the_link(fx_hub_t *hub, const char *bytes, size_t n, const char *reason)
{
    const size_t before = fx_log_count(&hub->log, reason);
    int link = fx_link(hub);

    assert_int_equal(write(link, bytes, n), n);
    assert_link_dead(link);
    close(link);
    assert_true(fx_log_wait(&hub->log, reason, before + 1));
}

static void closes_a_link_that_breaks_the_protocol(void **state)
{
    const uint32_t magic = WX_MAGIC;
    char bytes[256];
    fx_hub_t hub;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");

    memset(bytes, 'x', sizeof bytes);
    breach_closes_the_link(&hub, bytes, sizeof bytes, "not a message of this module");
    put_head(bytes, magic + 1, ES_WIRE_VERSION, ES_WIRE_STATS, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "not a message of this module");
    put_head(bytes, magic, ES_WIRE_VERSION + 1, ES_WIRE_STATS, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "wire version 2");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_PUBLISH, 0, ES_WIRE_MAX + 1);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "too big");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_PUBLISH, 0, UINT32_MAX);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "too big");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_HOLD, ES_WIRE_FD, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "without its descriptor");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_HOLD, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "out of order");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_HELLO, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "out of order");
    put_head(bytes, magic, ES_WIRE_VERSION, ES_WIRE_ANSWER, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "out of order");
    put_head(bytes, magic, ES_WIRE_VERSION, 200, 0, 0);
    breach_closes_the_link(&hub, bytes, sizeof(es_wire_head_t), "out of order");

    /* The hub goes on. */
    assert_int_equal(fx_publish(link, "a", "still here"), ES_OK);
    assert_next(client, "still here");
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void closes_a_link_that_holds_wrongly(void **state)
{
    fx_hub_t hub;
    int link, watcher, pair[2];

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    watcher = fx_link(&hub);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);

    /* HOLD without a reservation: the descriptor is closed too. */
    link = fx_link(&hub);
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE), ES_OK);
    close(pair[1]);
    assert_link_dead(link);
    close(link);
    assert_end(pair[0]);
    close(pair[0]);

    /* HOLD without a descriptor: the reservation is given up. */
    link = fx_link(&hub);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), -1, FX_PATIENCE), ES_OK);
    assert_link_dead(link);
    close(link);
    assert_stat(watcher, "reserved", 0);

    /* Two HOLDs for one reservation: the first one counts. */
    link = fx_link(&hub);
    pair[0] = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    pair[1] = fx_hold_fd(link);
    assert_link_dead(link);
    assert_end(pair[1]);
    assert_int_equal(fx_publish(watcher, "a", "first"), ES_OK);
    assert_next(pair[0], "first");
    close(pair[0]);
    close(pair[1]);
    close(link);
    close(watcher);
    fx_hub_stop(&hub, 0);
}

static void refuses_descriptors_that_are_no_sockets(void **state)
{
    fx_hub_t hub;
    int link, file, pipes[2];

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), file, FX_PATIENCE), ES_OK);
    close(file);
    assert_stat(link, "ended.error", 1);
    assert_int_equal(pipe(pipes), 0);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), pipes[1], FX_PATIENCE), ES_OK);
    close(pipes[1]);
    assert_int_equal(fx_publish(link, "a", "into the pipe"), ES_OK);
    assert_stat(link, "ended.error", 2);
    assert_end(pipes[0]);
    close(pipes[0]);
    assert_stat(link, "streams", 0);
    assert_stat(link, "channels", 0);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void closes_a_descriptor_that_no_request_wants(void **state)
{
    static const char body[] =
        "{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"x\"}}}]}";
    fx_hub_t hub;
    char *text = NULL;
    size_t len;
    es_err_t code = ES_EIO;
    int link, client, pair[2];

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_send(link, ES_WIRE_PUBLISH, 5, es_str(body), pair[1], FX_PATIENCE),
                     ES_OK);
    close(pair[1]);
    assert_int_equal(es_wire_answer(link, 5, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    assert_non_null(strstr(text, "\"receivers\": [1]"));
    free(text);
    assert_end(pair[0]);
    close(pair[0]);
    assert_next(client, "x");
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void answers_bad_requests_and_keeps_the_link(void **state)
{
    fx_hub_t hub;
    char *text = NULL;
    int link;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, S("nonsense"), &text), ES_EINVAL);
    assert_string_equal(text, "Body is not valid JSON.");
    free(text);
    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, S(""), &text), ES_EINVAL);
    free(text);
    /* One bad item refuses them all. */
    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH,
                            S("{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                              "{\"content\": \"x\"}}}, {\"channel\": 1}]}"),
                            &text),
                     ES_EINVAL);
    free(text);
    assert_int_equal(fx_ask(link, ES_WIRE_RESERVE, S("nonsense"), &text), ES_EINVAL);
    assert_string_equal(text, "the hold message is not JSON");
    free(text);
    assert_int_equal(fx_ask(link, ES_WIRE_RESERVE, S("{\"hold\": {}}"), &text), ES_EINVAL);
    assert_non_null(strstr(text, "framing"));
    free(text);
    assert_int_equal(fx_stat(link, "refused"), 3);
    assert_int_equal(fx_stat(link, "published"), 0);
    assert_int_equal(fx_stat(link, "reserved"), 0);
    assert_int_equal(fx_stat(link, "channels"), 0);
    /* A refused reservation gives up the one before, so that it cannot be held by mistake. */
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    assert_int_equal(fx_ask(link, ES_WIRE_RESERVE, S("nonsense"), NULL), ES_EINVAL);
    assert_stat(link, "reserved", 0);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* A child that asks and asks and reads no answer. */
static void closes_a_link_that_does_not_read_answers(void **state)
{
    fx_hub_t hub;
    es_err_t err = ES_OK;
    int link, watcher, i;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    watcher = fx_link(&hub);
    fx_reserve(link, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    for (i = 0; i < 100000 && err == ES_OK; i++) {
        err = es_wire_send(link, ES_WIRE_STATS, (uint32_t)i, S("prometheus"), -1, FX_PATIENCE);
    }
    assert_int_equal(err, ES_EIO);
    assert_true(fx_log_wait(&hub.log, "does not read", 1));
    assert_stat(watcher, "reserved", 0);
    close(link);
    close(watcher);
    fx_hub_stop(&hub, 0);
}

static void ignores_packets_that_are_no_hello(void **state)
{
    char bytes[64];
    fx_hub_t hub;
    int link;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(send(hub.door, bytes, 1, 0), 1);
    assert_int_equal(send(hub.door, bytes, sizeof(es_wire_head_t), 0), sizeof(es_wire_head_t));
    assert_int_equal(send(hub.door, bytes, sizeof bytes, 0), sizeof bytes);
    put_head(bytes, WX_MAGIC, ES_WIRE_VERSION, ES_WIRE_HELLO, 0, 0);
    assert_int_equal(send(hub.door, bytes, sizeof(es_wire_head_t), 0), sizeof(es_wire_head_t));
    link = fx_link(&hub);
    assert_int_equal(fx_stat(link, "streams"), 0);
    assert_int_equal(fx_log_count(&hub.log, "ES0307"), 4);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void serves_messages_that_come_in_pieces(void **state)
{
    fx_hub_t hub;
    const es_str_t hold = fx_hold("raw", "[{\"name\": \"a\"}]", "");
    char *bytes = malloc(sizeof(es_wire_head_t) + hold.n), *text = NULL;
    size_t len, i;
    es_err_t code;
    int link, client;

    (void)state;
    assert_non_null(bytes);
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    put_head(bytes, WX_MAGIC, ES_WIRE_VERSION, ES_WIRE_RESERVE, 0, (uint32_t)hold.n);
    memcpy(bytes + sizeof(es_wire_head_t), hold.p, hold.n);
    for (i = 0; i < sizeof(es_wire_head_t) + hold.n; i++) {
        assert_int_equal(write(link, bytes + i, 1), 1);
    }
    assert_int_equal(es_wire_answer(link, 7, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    free(text);
    free(bytes);
    client = fx_hold_fd(link);
    assert_int_equal(fx_publish(link, "a", "x"), ES_OK);
    assert_next(client, "x");
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void forgets_a_link_that_others_still_have(void **state)
{
    fx_hub_t hub;
    int link, i;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    for (i = 0; i < 20; i++) {
        const es_wire_head_t head = head_of(ES_WIRE_HELLO, 0, 0);
        const ends_t e = make_ends();

        atomic_fetch_add(&hub.ahead_ms, 10000); /* so that each line is logged */
        send_raw(hub.door, &head, sizeof head, &e.hub, 1);
        /* Garbage: the hub closes its copy, e.hub stays open. */
        assert_int_equal(write(e.child, "garbage, garbage, garbage", 25), 25);
        assert_true(fx_log_wait(&hub.log, "not a message of this module", (size_t)i + 1));
        assert_int_equal(write(e.child, "more", 4), 4);
        close(e.child);
        assert_int_equal(fx_stat(link, "streams"), 0);
        close(e.hub);
    }
    close(link);
    fx_hub_stop(&hub, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closes_a_link_that_breaks_the_protocol),
        cmocka_unit_test(closes_a_link_that_holds_wrongly),
        cmocka_unit_test(refuses_descriptors_that_are_no_sockets),
        cmocka_unit_test(closes_a_descriptor_that_no_request_wants),
        cmocka_unit_test(answers_bad_requests_and_keeps_the_link),
        cmocka_unit_test(closes_a_link_that_does_not_read_answers),
        cmocka_unit_test(ignores_packets_that_are_no_hello),
        cmocka_unit_test(serves_messages_that_come_in_pieces),
        cmocka_unit_test(forgets_a_link_that_others_still_have),
    };
    return cmocka_run_group_tests_name("link", tests, fx_apr_up, fx_apr_down);
}
