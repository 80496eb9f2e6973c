/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of src/wire/wire.c: messages from child to hub over real sockets, whole and in pieces, and
 * what the hub's end says of bytes that are not ours. Answers and the door are test_door.c's.
 */
#include "wire_fixture.h"

/* The next message of the reader, filling it as often as it takes. */
static es_err_t receive(int link, es_wire_reader_t *r, es_wire_message_t *m, es_detail_t *detail)
{
    es_err_t err = es_wire_next(r, m, detail);

    while (err == ES_EAGAIN && fx_readable(link)) {
        err = es_wire_fill(link, r);
        if (err == ES_OK) {
            err = es_wire_next(r, m, detail);
        }
    }
    return err;
}

/* ---- from child to hub ---- */

static void carries_messages_in_order(void **state)
{
    const ends_t e = make_ends();
    es_wire_reader_t r;
    es_wire_message_t m;
    es_detail_t detail = { "" };
    uint32_t i;

    (void)state;
    es_wire_reader_init(&r);
    assert_int_equal(es_wire_fill(e.hub, &r), ES_EAGAIN);
    assert_int_equal(es_wire_next(&r, &m, &detail), ES_EAGAIN);
    for (i = 0; i < 100; i++) {
        char text[8];
        const int n = snprintf(text, sizeof text, "%u", i);

        assert_int_equal(es_wire_send(e.child, ES_WIRE_PUBLISH, i,
                                      (es_str_t) { text, i % 3 ? (size_t)n : 0 }, -1, 0),
                         ES_OK);
    }
    close(e.child);
    for (i = 0; i < 100; i++) {
        char text[8];

        assert_err(receive(e.hub, &r, &m, &detail), ES_OK, &detail);
        snprintf(text, sizeof text, "%u", i);
        assert_int_equal(m.head.type, ES_WIRE_PUBLISH);
        assert_int_equal(m.head.number, i);
        assert_int_equal(m.fd, -1);
        es_check_bytes(m.payload.p, m.payload.n, es_str(i % 3 ? text : ""), __FILE__, __LINE__);
    }
    assert_int_equal(receive(e.hub, &r, &m, &detail), ES_EIO);
    es_wire_reader_free(&r);
    close(e.hub);
}

static void puts_pieces_together(void **state)
{
    const es_wire_head_t heads[] = { head_of(ES_WIRE_RESERVE, 1, 5), head_of(ES_WIRE_HOLD, 2, 0),
                                     head_of(ES_WIRE_STATS, 3, 4) };
    char bytes[3 * sizeof(es_wire_head_t) + 9];
    size_t cut;

    (void)state;
    memcpy(bytes, &heads[0], sizeof heads[0]);
    memcpy(bytes + sizeof heads[0], "hello", 5);
    memcpy(bytes + sizeof heads[0] + 5, &heads[1], sizeof heads[1]);
    memcpy(bytes + 2 * sizeof heads[0] + 5, &heads[2], sizeof heads[2]);
    memcpy(bytes + 3 * sizeof heads[0] + 5, "json", 4);
    /* Cut in two at every byte; at 0 in single bytes. */
    for (cut = 0; cut < sizeof bytes; cut++) {
        const ends_t e = make_ends();
        es_wire_reader_t r;
        es_wire_message_t m;
        es_detail_t detail = { "" };
        size_t at, got = 0;

        es_wire_reader_init(&r);
        for (at = 0; at < sizeof bytes;) {
            const size_t n = cut == 0 ? 1 : at == 0 ? cut : sizeof bytes - cut;

            assert_int_equal(write(e.child, bytes + at, n), n);
            at += n;
            assert_int_equal(es_wire_fill(e.hub, &r), ES_OK);
            while (es_wire_next(&r, &m, &detail) == ES_OK) {
                static const char *const want[] = { "hello", "", "json" };

                assert_true(got < 3);
                assert_int_equal(m.head.number, got + 1);
                es_check_bytes(m.payload.p, m.payload.n, es_str(want[got++]), __FILE__, __LINE__);
            }
        }
        assert_int_equal(got, 3);
        assert_int_equal(es_wire_fill(e.hub, &r), ES_EAGAIN);
        es_wire_reader_free(&r);
        close_ends(e);
    }
}

static void carries_a_descriptor_with_its_message(void **state)
{
    const ends_t e = make_ends();
    es_wire_reader_t r;
    es_wire_message_t m;
    es_detail_t detail = { "" };
    int pipes[3][2];
    int i;

    (void)state;
    es_wire_reader_init(&r);
    for (i = 0; i < 3; i++) {
        assert_int_equal(pipe(pipes[i]), 0);
        assert_int_equal(es_wire_send(e.child, ES_WIRE_STATS, 7, S("json"), -1, 0), ES_OK);
        assert_int_equal(es_wire_send(e.child, ES_WIRE_HOLD, (uint32_t)i, S("x"), pipes[i][1], 0),
                         ES_OK);
        close(pipes[i][1]);
    }
    for (i = 0; i < 3; i++) {
        assert_err(receive(e.hub, &r, &m, &detail), ES_OK, &detail);
        assert_int_equal(m.head.type, ES_WIRE_STATS);
        assert_int_equal(m.fd, -1);
        assert_err(receive(e.hub, &r, &m, &detail), ES_OK, &detail);
        assert_int_equal(m.head.number, i);
        assert_true(m.fd >= 0);
        assert_int_equal(fcntl(m.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_int_equal(write(m.fd, &"abc"[i], 1), 1);
        close(m.fd);
    }
    for (i = 0; i < 3; i++) {
        char want[] = { (char)('a' + i), '\0' };

        fx_check_next(pipes[i][0], es_str(want), __FILE__, __LINE__);
        assert_end(pipes[i][0]);
        close(pipes[i][0]);
    }
    es_wire_reader_free(&r);
    close_ends(e);
}

static void closes_descriptors_that_nobody_claimed(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t e = make_ends();
    const es_wire_head_t head = head_of(ES_WIRE_PUBLISH, 1, 100);
    es_wire_reader_t r;
    es_wire_message_t m;
    es_detail_t detail = { "" };
    int pipes[2];

    (void)state;
    es_wire_reader_init(&r);
    assert_int_equal(pipe(pipes), 0);
    send_raw(e.child, &head, sizeof head, &pipes[1], 1);
    close(pipes[1]);
    assert_int_equal(es_wire_fill(e.hub, &r), ES_OK);
    assert_int_equal(r.fd_count, 1);
    assert_int_equal(es_wire_next(&r, &m, &detail), ES_EAGAIN);
    es_wire_reader_free(&r);
    assert_end(pipes[0]);
    close(pipes[0]);
    close_ends(e);
    assert_int_equal(fx_fd_count(), before);
}

static void refuses_more_descriptors_than_messages(void **state)
{
    const size_t before = fx_fd_count();
    es_wire_reader_t r;
    int pipes[2], fds[8], i;
    ends_t e = make_ends();

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    for (i = 0; i < 8; i++) {
        fds[i] = pipes[1];
    }
    /* One by one: four wait for messages that name them, the fifth is too many. */
    es_wire_reader_init(&r);
    for (i = 0; i < 5; i++) {
        send_raw(e.child, "x", 1, fds, 1);
        assert_int_equal(es_wire_fill(e.hub, &r), i < 4 ? ES_OK : ES_EINVAL);
    }
    assert_int_equal(r.fd_count, 4);
    es_wire_reader_free(&r);
    close_ends(e);
    /* Eight with one byte: there is no room for them in what the hub reads with. */
    e = make_ends();
    es_wire_reader_init(&r);
    send_raw(e.child, "x", 1, fds, 8);
    assert_int_equal(es_wire_fill(e.hub, &r), ES_EINVAL);
    es_wire_reader_free(&r);
    close_ends(e);
    close(pipes[1]);
    assert_end(pipes[0]);
    close(pipes[0]);
    assert_int_equal(fx_fd_count(), before);
}

static void refuses_what_is_no_message(void **state)
{
    es_wire_head_t other_magic = head_of(ES_WIRE_STATS, 1, 0);
    es_wire_head_t other_version = head_of(ES_WIRE_STATS, 1, 0);
    es_wire_head_t over_long = head_of(ES_WIRE_STATS, 1, (size_t)ES_WIRE_MAX + 1);
    es_wire_head_t no_descriptor = head_of(ES_WIRE_HOLD, 1, 0);
    const struct {
        const es_wire_head_t *head;
        es_err_t err;
        const char *detail;
    } cases[] = {
        { &other_magic, ES_EINVAL, "not a message of this module" },
        { &other_version, ES_EINVAL, "wire version 9, this build speaks 1" },
        { &over_long, ES_ETOOBIG, "a message of 2097153 bytes, at most 2097152 are accepted" },
        { &no_descriptor, ES_EINVAL, "a message of type 3 came without its descriptor" },
    };
    size_t i;

    (void)state;
    other_magic.magic ^= 1;
    other_version.version = 9;
    no_descriptor.flags = ES_WIRE_FD;
    for (i = 0; i < ES_COUNT(cases); i++) {
        const ends_t e = make_ends();
        es_wire_reader_t r;
        es_wire_message_t m;
        es_detail_t detail = { "" };

        es_wire_reader_init(&r);
        send_raw(e.child, cases[i].head, sizeof *cases[i].head, NULL, 0);
        assert_int_equal(es_wire_fill(e.hub, &r), ES_OK);
        assert_err(es_wire_next(&r, &m, &detail), cases[i].err, &detail);
        assert_string_equal(detail.text, cases[i].detail);
        es_wire_reader_free(&r);
        close_ends(e);
    }
}

typedef struct sender {
    pthread_t thread;
    int link;
    es_str_t payload;
    es_err_t err;
} sender_t;

static void *send_main(void *arg)
{
    sender_t *s = arg;

    s->err = es_wire_send(s->link, ES_WIRE_PUBLISH, 1, s->payload, -1, FX_PATIENCE);
    if (s->err == ES_OK) {
        s->err = es_wire_send(s->link, ES_WIRE_STATS, 2, S("json"), -1, FX_PATIENCE);
    }
    return NULL;
}

static void carries_the_longest_message(void **state)
{
    const ends_t e = make_ends();
    const int small = 4608;
    char *big = es_repeat('m', ES_WIRE_MAX + 1);
    sender_t s = { .link = e.child, .payload = { big, ES_WIRE_MAX } };
    es_wire_reader_t r;
    es_wire_message_t m;
    es_detail_t detail = { "" };

    (void)state;
    assert_int_equal(es_wire_send(e.child, ES_WIRE_PUBLISH, 1,
                                  (es_str_t) { big, (size_t)ES_WIRE_MAX + 1 }, -1, 0),
                     ES_ETOOBIG);
    setsockopt(e.child, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    es_wire_reader_init(&r);
    assert_int_equal(pthread_create(&s.thread, NULL, send_main, &s), 0);
    assert_err(receive(e.hub, &r, &m, &detail), ES_OK, &detail);
    assert_int_equal(m.payload.n, ES_WIRE_MAX);
    assert_memory_equal(m.payload.p, big, ES_WIRE_MAX);
    assert_err(receive(e.hub, &r, &m, &detail), ES_OK, &detail);
    assert_bytes(m.payload.p, m.payload.n, "json");
    assert_int_equal(es_wire_next(&r, &m, &detail), ES_EAGAIN);
    /* What was needed for the long one is given back. */
    assert_true(r.cap <= 64 * 1024);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_int_equal(s.err, ES_OK);
    es_wire_reader_free(&r);
    close_ends(e);
    free(big);
}

static void sending_gives_up_on_a_hub_that_does_not_read(void **state)
{
    ends_t e = make_ends();
    char *big = es_repeat('m', ES_WIRE_MAX);

    (void)state;
    assert_int_equal(
        es_wire_send(e.child, ES_WIRE_PUBLISH, 1, (es_str_t) { big, ES_WIRE_MAX }, -1, 10),
        ES_EAGAIN);
    close_ends(e);
    e = make_ends();
    close(e.hub);
    assert_int_equal(es_wire_send(e.child, ES_WIRE_STATS, 1, S(""), -1, FX_PATIENCE), ES_EIO);
    assert_int_equal(errno, EPIPE);
    close(e.child);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_messages_in_order),
        cmocka_unit_test(puts_pieces_together),
        cmocka_unit_test(carries_a_descriptor_with_its_message),
        cmocka_unit_test(closes_descriptors_that_nobody_claimed),
        cmocka_unit_test(refuses_more_descriptors_than_messages),
        cmocka_unit_test(refuses_what_is_no_message),
        cmocka_unit_test(carries_the_longest_message),
        cmocka_unit_test(sending_gives_up_on_a_hub_that_does_not_read),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
