/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of src/hub/stream.c on sockets that are really full, and streams that fall so far behind
 * that they are ended.
 */
#include "stream_fixture.h"

#include <netinet/in.h>

/* Until the log has nothing left for the stream. */
static void read_all(rig_t *rig, es_stream_t *s, es_buf_t *got, int client)
{
    struct pollfd p = { .events = POLLOUT };

    while (s->state == ES_STREAM_LIVE && s->blocked) {
        p.fd = s->fd;
        if (poll(&p, 1, 0) == 1) {
            rig_writable(rig, s);
        }
        else {
            fx_readable(client);
            got_read(got, client);
        }
    }
}

static void big_frames_pass_through_small_sockets(void **state)
{
    static const size_t sizes[] = { 65535, 65536, 65537, 100, 900000, 1, 200000 };
    const int small = 4608;
    int framing;

    (void)state;
    for (framing = 0; framing < 2; framing++) {
        es_buf_t want, got;
        rig_t rig;
        es_stream_t *s;
        size_t i;
        int client;

        es_buf_init(&want, 8 << 20);
        es_buf_init(&got, 8 << 20);
        rig_open(&rig, 8 << 20);
        s = rig_reserve(&rig, fx_hold(framing ? "chunked" : "raw", "[{\"name\": \"a\"}]", ""));
        client = rig_hold(&rig, s);
        setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        for (i = 0; i < ES_COUNT(sizes); i++) {
            char *content = es_repeat((char)('a' + i), sizes[i]);

            rig_publish(&rig, "a", content, "");
            want_add(&want, framing, content);
            free(content);
        }
        rig_round(&rig);
        assert_true(s->blocked);
        read_all(&rig, s, &got, client);
        got_read(&got, client);
        assert_got(&got, &want);
        assert_int_equal(s->subs[0].channel->bytes, 0);
        rig_close(&rig);
        close(client);
        es_buf_free(&want);
        es_buf_free(&got);
    }
}

/* The application's answer ended with item 2: its publish, which is late, is not sent again. And
 * what a full socket puts off is not taken for a copy of itself. */
static void what_the_answer_held_comes_once(void **state)
{
    const int small = 4608;
    es_buf_t want, got;
    rig_t rig;
    es_stream_t *s;
    int client, i;

    (void)state;
    es_buf_init(&want, 8 << 20);
    es_buf_init(&got, 8 << 20);
    rig_open(&rig, 8 << 20);
    s = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\", \"prev-id\": \"2\"}]", ""));
    client = rig_hold(&rig, s);
    setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    rig_publish(&rig, "a", "two", ", \"id\": \"2\", \"prev-id\": \"1\"");
    for (i = 3; i < 60; i++) {
        char *content = es_repeat((char)('a' + i % 26), 1000);
        char id[64];

        snprintf(id, sizeof id, ", \"id\": \"%d\", \"prev-id\": \"%d\"", i, i - 1);
        rig_publish(&rig, "a", content, id);
        want_add(&want, false, content);
        free(content);
        rig_round(&rig);
    }
    assert_true(s->blocked);
    read_all(&rig, s, &got, client);
    got_read(&got, client);
    assert_got(&got, &want);
    rig_close(&rig);
    close(client);
    es_buf_free(&want);
    es_buf_free(&got);
}

/* ---- real TCP ---- */

static void make_tcp_pair(int *server, int *client)
{
    const int small = 4608;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof a;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(*client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(*client, (struct sockaddr *)&a, sizeof a), 0);
    *server = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(*server >= 0);
    setsockopt(*server, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    close(listener);
}

static void a_slow_tcp_reader_gets_all_and_the_terminating_chunk_once(void **state)
{
    es_buf_t want, got;
    rig_t rig;
    es_stream_t *s;
    unsigned int seed = 1;
    int server, client, i;

    (void)state;
    es_buf_init(&want, 8 << 20);
    es_buf_init(&got, 8 << 20);
    rig_open(&rig, 8 << 20);
    make_tcp_pair(&server, &client);
    s = rig_reserve(&rig, fx_hold("chunked", "[{\"name\": \"a\"}, {\"name\": \"b\"}]", ""));
    rig_hold_fd(&rig, s, server);
    for (i = 0; i < 3000; i++) {
        char *content = es_repeat((char)('a' + i % 26), rand_r(&seed) % 400);

        rig_publish(&rig, i % 3 ? "a" : "b", content, "");
        want_add(&want, true, content);
        free(content);
        if (i % 10 == 0) {
            char bytes[333];
            ssize_t n;

            rig_round(&rig);
            rig_writable(&rig, s);
            n = recv(client, bytes, rand_r(&seed) % sizeof bytes, MSG_DONTWAIT);
            if (n > 0) {
                assert_int_equal(es_buf_add(&got, bytes, (size_t)n), ES_OK);
            }
        }
    }
    rig_publish_close(&rig, "b", "");
    assert_int_equal(es_buf_add(&want, "0\r\n\r\n", 5), ES_OK);
    rig_publish(&rig, "a", "never", "");
    rig_round(&rig);
    assert_int_equal(s->state, ES_STREAM_LIVE); /* most of it is still to be read */
    read_all(&rig, s, &got, client);
    assert_int_equal(s->state, ES_STREAM_ENDED);
    assert_int_equal(s->end, ES_END_ACTION);
    while (!got_read(&got, client)) {
        assert_true(fx_readable(client));
    }
    assert_got(&got, &want);
    rig_close(&rig);
    close(client);
    es_buf_free(&want);
    es_buf_free(&got);
}

/* A request that the client sent and nobody read must not turn the close into a reset that takes
 * the last bytes away. */
static void unread_bytes_of_the_client_do_not_eat_the_end(void **state)
{
    es_buf_t got, want;
    char *unread = es_repeat('u', 3000);
    rig_t rig;
    es_stream_t *s;
    int server, client;

    (void)state;
    es_buf_init(&got, 1 << 20);
    es_buf_init(&want, 1 << 20);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    make_tcp_pair(&server, &client);
    s = rig_reserve(&rig, fx_hold("chunked", "[{\"name\": \"a\"}]", ""));
    rig_hold_fd(&rig, s, server);
    assert_int_equal(write(client, unread, 3000), 3000);
    assert_true(fx_readable(server));
    rig_publish(&rig, "a", "bye", "");
    rig_publish_close(&rig, "a", "");
    rig_round(&rig);
    assert_int_equal(s->state, ES_STREAM_ENDED);
    want_add(&want, true, "bye");
    assert_int_equal(es_buf_add(&want, "0\r\n\r\n", 5), ES_OK);
    while (!got_read(&got, client)) {
        assert_true(fx_readable(client));
    }
    assert_got(&got, &want);
    rig_close(&rig);
    close(client);
    free(unread);
    es_buf_free(&got);
    es_buf_free(&want);
}

/* ---- lag ---- */

static void a_stream_that_lags_is_ended_and_the_others_get_all(void **state)
{
    enum { LAG = 20000 };
    es_buf_t want, got;
    char *content = es_repeat('x', 1000);
    rig_t rig;
    es_stream_t *slow, *quick;
    int slow_client, client, i;

    (void)state;
    es_buf_init(&want, 1 << 20);
    es_buf_init(&got, 1 << 20);
    rig_open(&rig, LAG);
    slow = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"b\"}, {\"name\": \"a\"}]", ""));
    quick = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    slow_client = rig_hold(&rig, slow);
    client = rig_hold(&rig, quick);
    wx_socket.fd = slow->fd;
    wx_socket.room = 1500; /* it stops in the middle of the second message */
    for (i = 0; slow->state == ES_STREAM_LIVE; i++) {
        assert_true(i < 100);
        rig_publish(&rig, "a", content, "");
        want_add(&want, false, content);
        rig_round(&rig);
        assert_true(quick->subs[0].channel->bytes <= LAG);
    }
    /* Two were taken from the log; what fits into it came after that. */
    assert_int_equal(i, 2 + LAG / (1000 + 256) + 1);
    assert_int_equal(slow->end, ES_END_LAG);
    assert_int_equal(rig.loop.counters.ended[ES_END_LAG], 1);
    assert_int_equal(fx_log_count(&rig.log, "EventStreamMaxLag"), 1);
    assert_int_equal(quick->subs[0].channel->bytes, 0); /* nobody else is behind */
    got_read(&got, client);
    assert_got(&got, &want);
    es_buf_free(&got);
    assert_true(got_read(&got, slow_client)); /* what it got is a beginning, and then its end */
    assert_int_equal(got.n, 1500);
    rig_close(&rig);
    close(slow_client);
    close(client);
    free(content);
    es_buf_free(&want);
    es_buf_free(&got);
}

static void a_reservation_may_lag_too(void **state)
{
    enum { LAG = 20000 };
    char *content = es_repeat('x', 1000);
    rig_t rig;
    es_stream_t *late, *quick, *early;
    int client, quick_client, early_client = -1, i;

    (void)state;
    rig_open(&rig, LAG);
    late = rig_reserve(&rig, fx_hold("chunked", "[{\"name\": \"a\"}]", ""));
    early = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    quick = rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", ""));
    quick_client = rig_hold(&rig, quick);
    for (i = 0; i < 30; i++) {
        rig_publish(&rig, "a", content, "");
        rig_round(&rig);
        if (i == 10) {
            early_client = rig_hold(&rig, early); /* in time */
            assert_int_equal(early->state, ES_STREAM_LIVE);
            assert_int_equal(early->bytes, 11000);
        }
    }
    client = rig_hold(&rig, late);
    assert_int_equal(late->state, ES_STREAM_ENDED);
    assert_int_equal(late->end, ES_END_LAG);
    assert_end(client);
    assert_int_equal(quick->bytes, 30000);
    assert_int_equal(early->bytes, 30000);
    assert_int_equal(quick->subs[0].channel->bytes, 0);
    rig_close(&rig);
    close(client);
    close(quick_client);
    close(early_client);
    free(content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(big_frames_pass_through_small_sockets),
        cmocka_unit_test(what_the_answer_held_comes_once),
        cmocka_unit_test(a_slow_tcp_reader_gets_all_and_the_terminating_chunk_once),
        cmocka_unit_test(unread_bytes_of_the_client_do_not_eat_the_end),
        cmocka_unit_test(a_stream_that_lags_is_ended_and_the_others_get_all),
        cmocka_unit_test(a_reservation_may_lag_too),
    };
    return cmocka_run_group_tests_name("stream_full", tests, fx_apr_up, fx_apr_down);
}
