/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hand-over and take-over without memory: the first, the second, the third ... allocation fails,
 * and all that come after it, until none does. Nothing may crash or leak, and no descriptor stays
 * open. The loops have no threads here. As in test_hub_oom.c what APR takes does not fail.
 */
#include "handover_fixture.h"

#include "grip_int.h"
#include "oom_fixture.h"

static int set_up(void **state)
{
    json_set_alloc_funcs(__wrap_malloc, free);
    return fx_apr_up(state);
}

/* A hub whose loops stand still. */
typedef struct still {
    es_hub_config_t config;
    es_intake_t intake;
    fx_log_t log;
} still_t;

static void still_open(still_t *h)
{
    memset(h, 0, sizeof *h);
    fx_log_init(&h->log);
    h->config =
        (es_hub_config_t) { .threads = 2,
                            .max_lag = LAG,
                            .door = eventfd(0, EFD_CLOEXEC),
                            .stop = eventfd(0, EFD_CLOEXEC),
                            .log = { .write = fx_log_write, .ctx = &h->log, .level = ES_LOG_INFO },
                            .now_ms = fx_now_ms };
    assert_int_equal(es_intake_init(&h->intake, &h->config), ES_OK);
    es_intake_join_loops(&h->intake, ES_ORDER_HALT);
}

static void still_close(still_t *h)
{
    es_intake_destroy(&h->intake);
    close(h->config.door);
    close(h->config.stop);
    fx_log_destroy(&h->log);
}

static void send_text(int to, es_wire_type_t type, uint32_t number, es_str_t text, const char *rest,
                      bool with_socket)
{
    char payload[1024];
    const size_t n = text.n + 1 + strlen(rest);
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    memcpy(payload, text.p, text.n);
    payload[text.n] = '\0';
    memcpy(payload + text.n + 1, rest, strlen(rest));
    assert_int_equal(es_wire_send(to, type, number, (es_str_t) { payload, n },
                                  with_socket ? pair[1] : -1, FX_PATIENCE),
                     ES_OK);
    close(pair[0]);
    close(pair[1]);
}

/* Two messages, three streams, two links, one with a reservation and one with a descriptor. */
static void send_everything(int to)
{
    static const char hold[] =
        "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\", \"prev-id\": \"1\", "
        "\"filters\": [\"build-id\"]}, {\"name\": \"b\"}], \"keep-alive\": {\"content\": \"x\"}, "
        "\"meta\": {\"user\": \"me\"}}, \"delivery\": {\"framing\": \"raw\", \"peer\": \"p\", "
        "\"uri\": \"/\"}, \"resume\": {\"behind\": [1, 0], \"continuous\": [true, false], "
        "\"bytes\": 1, \"idle\": 1, \"ending\": 0}}";
    static const char packet[] = "J{\"channel\": \"a\", \"id\": \"2\", \"meta\": {\"k\": \"v\"}, "
                                 "\"http-stream\": {\"content\": \"x\"}}";

    send_text(to, ES_WIRE_FRAME, 0, S("{\"order\": 1}"), packet, false);
    send_text(to, ES_WIRE_FRAME, 0, S("{\"order\": 2}"), packet, false);
    send_text(to, ES_WIRE_HELD, 0, S(hold), "rest", true);
    send_text(to, ES_WIRE_HELD, 0, S(hold), "", true);
    send_text(to, ES_WIRE_HELD, 0, S(hold), "", false);
    send_text(to, ES_WIRE_LINK, 1, S(""), "", true);
    send_text(to, ES_WIRE_LINK, 0, S("ESW"), "", true);
    send_text(to, ES_WIRE_LOOSE, 0, S(""), "", true);
    send_text(to, ES_WIRE_DONE, ES_DONE_NUMBER, S("{\"order\": 9}"), "{\"published\": 3}", false);
}

static void a_take_over_without_memory_leaves_nothing(void **state)
{
    const size_t before = fx_fd_count();
    size_t streams = 0;
    long allowed;

    (void)state;
    for (allowed = 0; streams < 3; allowed++) {
        still_t h;
        int pair[2], i;

        assert_true(allowed < 10000);
        still_open(&h);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        send_everything(pair[0]);
        countdown = allowed;
        es_take_over(&h.intake, pair[1]);
        countdown = -1;
        for (i = 0, streams = 0; i < h.intake.loop_count; i++) {
            streams += h.intake.loop_load[i];
        }
        if (h.intake.carried.published == 0) {
            streams = 0; /* not everything came */
        }
        still_close(&h);
        close(pair[0]);
        assert_int_equal(fx_fd_count(), before);
    }
    assert_true(allowed > 100);
}

/* Makes a hub with the streams above give them away. */
static es_err_t give_away(long allowed, size_t *ret_handed)
{
    still_t h;
    int pair[2], from[2];
    es_err_t err;
    size_t n = 0;
    es_wire_reader_t r;
    es_wire_message_t m;

    still_open(&h);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, from), 0);
    send_everything(from[0]);
    es_take_over(&h.intake, from[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_reply(pair[0], ES_DONE_NUMBER, ES_OK, S("")), ES_OK); /* in advance */
    countdown = allowed;
    err = es_hand_over(&h.intake, pair[1]);
    countdown = -1;
    es_wire_reader_init(&r);
    while (es_wire_fill(pair[0], &r) == ES_OK) {
        while (es_wire_next(&r, &m, NULL) == ES_OK) {
            n += m.head.type == ES_WIRE_HELD;
            if (m.fd >= 0) {
                close(m.fd);
            }
        }
    }
    es_wire_reader_free(&r);
    still_close(&h);
    close(from[0]);
    close(pair[0]);
    close(pair[1]);
    *ret_handed = n;
    return err;
}

static void a_hand_over_without_memory_leaves_nothing(void **state)
{
    const size_t before = fx_fd_count();
    es_err_t err = ES_ENOMEM;
    size_t handed = 0;
    long allowed;

    (void)state;
    for (allowed = 0; err != ES_OK || handed < 3; allowed++) {
        assert_true(allowed < 10000);
        err = give_away(allowed, &handed);
        assert_true(err == ES_OK || err == ES_ENOMEM || err == ES_EAGAIN);
        assert_int_equal(fx_fd_count(), before);
    }
    assert_true(allowed > 50);
}

static void an_item_without_memory_is_not_half_written(void **state)
{
    static const char packet[] =
        "J{\"channel\": \"a\", \"id\": \"2\", \"prev-id\": \"1\", \"no-seq\": true, \"meta\": "
        "{\"k\": \"v\"}, \"http-stream\": {\"content\": \"x\", \"content-filters\": [\"?\"]}}";
    es_item_t *item = NULL, *back = NULL;
    es_err_t err = ES_ENOMEM;
    es_buf_t out;
    long allowed;

    (void)state;
    assert_int_equal(es_item_from_packet(packet, sizeof packet - 1, &item, NULL), ES_OK);
    for (allowed = 0; err != ES_OK; allowed++) {
        es_buf_init(&out, ES_MAX_PACKET_KEPT);
        countdown = allowed;
        err = es_item_to_packet(item, S("content"), &out);
        countdown = -1;
        assert_true(err == ES_OK || (err == ES_ENOMEM && out.n == 0));
        if (err != ES_OK) {
            es_buf_free(&out);
        }
    }
    assert_true(allowed > 4);
    for (allowed = 0, err = ES_ENOMEM; err != ES_OK; allowed++) {
        countdown = allowed;
        err = es_item_from_kept((es_str_t) { out.p, out.n }, &back, NULL);
        countdown = -1;
        assert_true(err == ES_OK || back == NULL);
    }
    es_item_free(back);
    es_item_free(item);
    es_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_take_over_without_memory_leaves_nothing),
        cmocka_unit_test(a_hand_over_without_memory_leaves_nothing),
        cmocka_unit_test(an_item_without_memory_is_not_half_written),
    };
    return cmocka_run_group_tests_name("handover_oom", tests, set_up, fx_apr_down);
}
