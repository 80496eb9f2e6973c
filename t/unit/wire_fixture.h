/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file wire_fixture.h
 * Both ends of a link as plain sockets, and a way to send on one what es_wire_send never would.
 */
#ifndef ES_WIRE_FIXTURE_H
#define ES_WIRE_FIXTURE_H

#include "hub_fixture.h"

#define WX_MAGIC 0x45535731 /* what a message of ours starts with */

typedef struct ends {
    int child, hub;
} ends_t;

static inline ends_t make_ends(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    return (ends_t) { pair[0], pair[1] };
}

static inline void close_ends(ends_t e)
{
    close(e.child);
    close(e.hub);
}

/* Sends bytes as they are, with descriptors. */
static inline void send_raw(int to, const void *p, size_t n, const int *fds, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control = { .bytes = "" };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd_count > 0) {
        struct cmsghdr *c;

        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    assert_int_equal(sendmsg(to, &msg, MSG_NOSIGNAL), n);
}

static inline es_wire_head_t head_of(es_wire_type_t type, uint32_t number, size_t len)
{
    return (es_wire_head_t) { .magic = WX_MAGIC,
                              .version = ES_WIRE_VERSION,
                              .type = (uint8_t)type,
                              .number = number,
                              .len = (uint32_t)len };
}

#endif
