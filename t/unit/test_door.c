/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/wire/wire.c: how a link comes to be, and the answers that come back on it. */
#include "wire_fixture.h"

/* ---- from hub to child ---- */

static void carries_answers(void **state)
{
    const ends_t e = make_ends();
    es_err_t code = ES_EIO;
    char *text = NULL;
    size_t len = 99;

    (void)state;
    assert_int_equal(es_wire_reply(e.hub, 41, ES_OK, S("")), ES_OK);
    assert_int_equal(es_wire_reply(e.hub, 42, ES_EFULL, S("a\0b")), ES_OK);
    assert_int_equal(es_wire_answer(e.child, 41, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_OK);
    assert_int_equal(len, 0);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(es_wire_answer(e.child, 42, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_EFULL);
    assert_bytes(text, len, "a\0b");
    assert_int_equal(text[len], '\0');
    free(text);
    close_ends(e);
}

static es_err_t answer_to(const void *bytes, size_t n, bool then_close, int timeout_ms)
{
    ends_t e = make_ends();
    es_err_t code = ES_EIO, err;
    char *text = NULL;
    size_t len = 99;

    send_raw(e.hub, bytes, n, NULL, 0);
    if (then_close) {
        close(e.hub);
    }
    err = es_wire_answer(e.child, 1, timeout_ms, &code, &text, &len);
    /* Nothing is returned on failure. */
    if (err != ES_OK) {
        assert_null(text);
        assert_int_equal(len, 99);
        assert_int_equal(code, ES_EIO);
    }
    free(text);
    close(e.child);
    if (!then_close) {
        close(e.hub);
    }
    return err;
}

static void refuses_other_answers(void **state)
{
    es_wire_head_t h = head_of(ES_WIRE_ANSWER, 1, 0);
    char bytes[sizeof h + 3];

    (void)state;
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_OK);
    h.number = 2;
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_EINVAL);
    h = head_of(ES_WIRE_STATS, 1, 0);
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_EINVAL);
    h = head_of(ES_WIRE_ANSWER, 1, 0);
    h.code = ES_EFULL + 1;
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_EINVAL);
    h = head_of(ES_WIRE_ANSWER, 1, (size_t)ES_WIRE_MAX + 1);
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_EINVAL);
    h = head_of(ES_WIRE_ANSWER, 1, 0);
    h.version++;
    assert_int_equal(answer_to(&h, sizeof h, true, FX_PATIENCE), ES_EINVAL);
    /* The hub dies, or stops, within the head and within the text. */
    h = head_of(ES_WIRE_ANSWER, 1, 5);
    memcpy(bytes, &h, sizeof h);
    memcpy(bytes + sizeof h, "abc", 3);
    assert_int_equal(answer_to(bytes, sizeof h - 1, true, FX_PATIENCE), ES_EIO);
    assert_int_equal(answer_to(bytes, sizeof bytes, true, FX_PATIENCE), ES_EIO);
    assert_int_equal(answer_to(bytes, sizeof h - 1, false, 1), ES_EAGAIN);
    assert_int_equal(answer_to(bytes, sizeof bytes, false, 1), ES_EAGAIN);
}

static void a_reply_never_waits(void **state)
{
    const ends_t e = make_ends();
    char *text = es_repeat('a', 10000);
    es_err_t err = ES_OK;
    int i;

    (void)state;
    for (i = 0; i < 10000 && err == ES_OK; i++) {
        err = es_wire_reply(e.hub, 1, ES_OK, (es_str_t) { text, 10000 });
    }
    assert_int_equal(err, ES_EAGAIN);
    close(e.child);
    assert_int_equal(es_wire_reply(e.hub, 1, ES_OK, S("x")), ES_EIO);
    close(e.hub);
    free(text);
}

/* ---- the door ---- */

static ends_t make_door(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    return (ends_t) { pair[0], pair[1] };
}

static void a_hello_brings_a_link(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    es_detail_t detail = { "" };
    es_err_t code = ES_EIO;
    char *text = NULL;
    size_t len;
    es_wire_knock_t knock;
    int child = -1, hub;

    (void)state;
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EAGAIN);
    assert_int_equal(es_wire_connect(door.child, &child), ES_OK);
    assert_err(es_wire_open(door.hub, &knock, &detail), ES_OK, &detail);
    assert_int_equal(knock.type, ES_WIRE_HELLO);
    hub = knock.fd;
    assert_int_equal(fcntl(hub, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EAGAIN);
    assert_int_equal(es_wire_reply(hub, 3, ES_OK, S("welcome")), ES_OK);
    assert_int_equal(es_wire_answer(child, 3, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_string_equal(text, "welcome");
    free(text);
    close(child);
    /* The child's end is the only other one: closing it is seen. */
    assert_end(hub);
    close(hub);
    close(door.child);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EIO);
    close(door.hub);
    assert_int_equal(fx_fd_count(), before);
}

static void a_full_door_is_told(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    int links[2048];
    size_t i, n = 0;
    es_err_t err = ES_OK;

    (void)state;
    while (n < ES_COUNT(links) && err == ES_OK) {
        err = es_wire_connect(door.child, &links[n]);
        n += err == ES_OK;
    }
    assert_int_equal(err, ES_EIO);
    assert_true(errno == EAGAIN || errno == ETOOMANYREFS || errno == EMFILE);
    assert_true(n > 0);
    for (i = 0; i < n; i++) {
        close(links[i]);
    }
    close_ends(door);
    assert_int_equal(fx_fd_count(), before);
}

static void a_closed_door_is_told(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    int link = -1;

    (void)state;
    close(door.hub);
    assert_int_equal(es_wire_connect(door.child, &link), ES_EIO);
    assert_true(errno == EPIPE || errno == ECONNRESET);
    assert_int_equal(link, -1);
    close(door.child);
    assert_int_equal(fx_fd_count(), before);
}

static void drops_packets_that_are_no_hello(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    es_wire_head_t h[2] = { head_of(ES_WIRE_HELLO, 1, 0), head_of(ES_WIRE_HELLO, 1, 0) };
    es_detail_t detail = { "" };
    es_wire_knock_t knock = { .fd = -1 };
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    send_raw(door.child, "x", 1, fds, 1);
    send_raw(door.child, h, sizeof h, fds, 1);     /* too long */
    send_raw(door.child, h, sizeof h[0], NULL, 0); /* without a descriptor */
    send_raw(door.child, h, sizeof h[0], fds, 2);  /* with two */
    h[0].type = ES_WIRE_PUBLISH;
    send_raw(door.child, h, sizeof h[0], fds, 1);
    h[0] = head_of(ES_WIRE_HELLO, 1, (size_t)ES_WIRE_MAX + 1);
    send_raw(door.child, h, sizeof h[0], fds, 1);
    h[0] = head_of(ES_WIRE_HELLO, 1, 0);
    h[0].version++;
    send_raw(door.child, h, sizeof h[0], fds, 1);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of 1 bytes, 20 expected");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of more than 20 bytes, 20 expected");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of type 1 with 0 descriptors");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of type 1 with 2 descriptors");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of type 5 with 1 descriptors");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EAGAIN);
    assert_int_equal(knock.fd, -1);
    close_ends(door);
    assert_int_equal(fx_fd_count(), before);
}

static void knocks_of_a_restart(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    es_detail_t detail = { "" };
    es_wire_knock_t knock = { .fd = 99 };
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(es_wire_knock(door.child, ES_WIRE_EXPECT, 5, -1), ES_OK);
    assert_int_equal(es_wire_knock(door.child, ES_WIRE_HAND_OVER, 77, fds[1]), ES_OK);
    close(fds[1]);
    assert_err(es_wire_open(door.hub, &knock, &detail), ES_OK, &detail);
    assert_int_equal(knock.type, ES_WIRE_EXPECT);
    assert_int_equal(knock.number, 5);
    assert_int_equal(knock.fd, -1);
    assert_err(es_wire_open(door.hub, &knock, &detail), ES_OK, &detail);
    assert_int_equal(knock.type, ES_WIRE_HAND_OVER);
    assert_int_equal(knock.number, 77);
    assert_int_equal(write(knock.fd, "x", 1), 1);
    assert_next(fds[0], "x");
    close(knock.fd);
    close(fds[0]);
    close_ends(door);
    assert_int_equal(fx_fd_count(), before);
}

/* Of another version only HAND_OVER is understood, and its descriptor is not used. */
static void knocks_of_another_version(void **state)
{
    const size_t before = fx_fd_count();
    const ends_t door = make_door();
    es_wire_head_t h = head_of(ES_WIRE_HAND_OVER, 1, 0);
    es_detail_t detail = { "" };
    es_wire_knock_t knock = { .fd = 99 };
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    h.version++;
    send_raw(door.child, &h, sizeof h, fds, 1);
    send_raw(door.child, &h, sizeof h, NULL, 0);
    h.type = ES_WIRE_EXPECT;
    send_raw(door.child, &h, sizeof h, NULL, 0);
    h = head_of(ES_WIRE_HAND_OVER, 1, 0);
    send_raw(door.child, &h, sizeof h, NULL, 0); /* ours, without a descriptor */
    h = head_of(ES_WIRE_EXPECT, 1, 0);
    send_raw(door.child, &h, sizeof h, fds, 1); /* ours, with one */
    assert_err(es_wire_open(door.hub, &knock, &detail), ES_OK, &detail);
    assert_int_equal(knock.type, ES_WIRE_HAND_OVER);
    assert_int_equal(knock.fd, -1);
    assert_err(es_wire_open(door.hub, &knock, &detail), ES_OK, &detail);
    assert_int_equal(knock.type, ES_WIRE_HAND_OVER);
    assert_int_equal(knock.fd, -1);
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "wire version 2, this build speaks 1");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of type 10 with 0 descriptors");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EINVAL);
    assert_string_equal(detail.text, "a packet of type 9 with 1 descriptors");
    assert_int_equal(es_wire_open(door.hub, &knock, &detail), ES_EAGAIN);
    close(fds[0]);
    close(fds[1]);
    close_ends(door);
    assert_int_equal(fx_fd_count(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_answers),
        cmocka_unit_test(refuses_other_answers),
        cmocka_unit_test(a_reply_never_waits),
        cmocka_unit_test(a_hello_brings_a_link),
        cmocka_unit_test(a_full_door_is_told),
        cmocka_unit_test(a_closed_door_is_told),
        cmocka_unit_test(drops_packets_that_are_no_hello),
        cmocka_unit_test(knocks_of_a_restart),
        cmocka_unit_test(knocks_of_another_version),
    };
    return cmocka_run_group_tests_name("door", tests, NULL, NULL);
}
