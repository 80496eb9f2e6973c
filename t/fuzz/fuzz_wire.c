/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a link, as the hub reads them, and the same bytes as a child's answer and as a hello
 * at the door. The first byte of the input says how large the pieces are in which the rest arrives,
 * the bits of the second with which of them a descriptor comes.
 *
 * Checked: however the bytes are cut, the same messages come out of them; a message has a
 * descriptor if and only if it says so; no descriptor is left open.
 */
#include "fuzz.h"

#include "es_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ES_FUZZ_TARGET;

enum { INPUT_MAX = 256 * 1024, PIECE_MAX = 32 * 1024 };

/* What came out of a link: a sum over all messages, and how it ended. */
typedef struct outcome {
    uint32_t messages;
    uint32_t sum;
    es_err_t end;
} outcome_t;

static void send_piece(int to, const uint8_t *p, size_t n, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .bytes = "" };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ES_FUZZ_CHECK(sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n);
}

static void take_messages(es_wire_reader_t *r, outcome_t *o)
{
    es_wire_message_t m;
    es_detail_t detail = { "" };
    size_t i;

    while (o->end == ES_OK) {
        const es_err_t err = es_wire_next(r, &m, &detail);

        if (err == ES_EAGAIN) {
            return;
        }
        o->end = err;
        if (err != ES_OK) {
            ES_FUZZ_CHECK(err == ES_EINVAL || err == ES_ETOOBIG);
            ES_FUZZ_CHECK(detail.text[0] != '\0');
            return;
        }
        ES_FUZZ_CHECK(m.payload.n == m.head.len && m.head.len <= ES_WIRE_MAX);
        ES_FUZZ_CHECK(m.head.version == ES_WIRE_VERSION);
        ES_FUZZ_CHECK((m.fd >= 0) == ((m.head.flags & ES_WIRE_FD) != 0));
        o->messages++;
        o->sum = o->sum * 31 + m.head.number + m.head.type;
        for (i = 0; i < m.payload.n; i++) {
            o->sum = o->sum * 31 + (uint8_t)m.payload.p[i];
        }
        if (m.fd >= 0) {
            close(m.fd);
        }
    }
}

/* Sends the bytes piece by piece; the hub reads after each. */
static outcome_t through_a_link(const uint8_t *p, size_t size, size_t piece, unsigned int mask,
                                int fd)
{
    es_wire_reader_t r;
    outcome_t o = { 0, 0, ES_OK };
    size_t at, i = 0;
    int pair[2];

    ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    es_wire_reader_init(&r);
    for (at = 0; at < size && o.end == ES_OK; at += piece, i++) {
        const size_t n = size - at < piece ? size - at : piece;
        es_err_t err;

        send_piece(pair[0], p + at, n, (mask >> (i % 8)) & 1 ? fd : -1);
        do {
            err = es_wire_fill(pair[1], &r);
            if (err == ES_OK) {
                take_messages(&r, &o);
            }
        } while (err == ES_OK && o.end == ES_OK);
        if (err != ES_OK && err != ES_EAGAIN) {
            ES_FUZZ_CHECK(err == ES_EINVAL && mask != 0); /* too many descriptors */
            o.end = err;
        }
    }
    close(pair[0]);
    if (o.end == ES_OK) {
        ES_FUZZ_CHECK(es_wire_fill(pair[1], &r) == ES_EIO);
    }
    es_wire_reader_free(&r);
    close(pair[1]);
    return o;
}

static void as_an_answer(const uint8_t *p, size_t size)
{
    es_err_t code = ES_OK, err;
    char *text = NULL;
    size_t len = 0;
    int pair[2];

    ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    send_piece(pair[1], p, size < PIECE_MAX ? size : PIECE_MAX, -1);
    close(pair[1]);
    err = es_wire_answer(pair[0], 1, 0, &code, &text, &len);
    ES_FUZZ_CHECK((err == ES_OK) == (text != NULL));
    if (text) {
        ES_FUZZ_CHECK(text[len] == '\0' && code <= ES_EFULL);
    }
    free(text);
    close(pair[0]);
}

static void as_a_knock(const uint8_t *p, size_t size, int fd)
{
    es_detail_t detail = { "" };
    es_err_t err;
    es_wire_knock_t knock = { .fd = -1 };
    int pair[2];

    ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    send_piece(pair[0], p, size < PIECE_MAX ? size : PIECE_MAX, fd);
    err = es_wire_open(pair[1], &knock, &detail);
    ES_FUZZ_CHECK(err == ES_OK || knock.fd == -1);
    ES_FUZZ_CHECK(err == ES_OK || (err == ES_EINVAL && detail.text[0] != '\0'));
    if (knock.fd >= 0) {
        close(knock.fd);
    }
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = open("/dev/null", O_RDONLY);
    int probe;
    outcome_t whole, cut;

    if (size < 3 || size > INPUT_MAX) {
        close(fd);
        return 0;
    }
    cut = through_a_link(data + 2, size - 2, (size_t)data[0] + 1, data[1], fd);
    if (data[1] == 0) {
        whole = through_a_link(data + 2, size - 2, PIECE_MAX, 0, fd);
        ES_FUZZ_CHECK(whole.messages == cut.messages && whole.sum == cut.sum);
        ES_FUZZ_CHECK(whole.end == cut.end);
    }
    if (cut.end == ES_OK && cut.messages > 0) {
        es_fuzz_accept();
    }
    as_an_answer(data + 2, size - 2);
    as_a_knock(data + 2, size - 2, data[1] & 1 ? fd : -1);
    /* The lowest free number is the one after ours, unless something was left open. */
    probe = dup(fd);
    ES_FUZZ_CHECK(probe >= 0 && probe == fd + 1);
    close(probe);
    close(fd);
    return 0;
}
