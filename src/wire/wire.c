/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on a link, both ends: see es_wire.h for the protocol.
 *
 * The child's end waits (poll, then send or recv), because the request thread has nothing else to
 * do. The hub's end never waits: es_wire_fill takes what is there, es_wire_next cuts messages out
 * of it.
 *
 * A descriptor travels with the first byte of its message. The kernel may hand over the bytes
 * before it in the same read, never the bytes after it without it; so descriptors queue up in
 * arrival order and each message that has ES_WIRE_FD set takes the oldest.
 */
#include "es_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    MAGIC = 0x45535731,    /* "ESW1" */
    READ_STEP = 16 * 1024, /* the least room for a read */
    KEEP_CAP = 64 * 1024   /* an empty reader gives back what is over this */
};

static es_wire_head_t head_make(es_wire_type_t type, uint32_t number, es_err_t code, size_t len,
                                int fd)
{
    es_wire_head_t head = { .magic = MAGIC,
                            .version = ES_WIRE_VERSION,
                            .type = (uint8_t)type,
                            .flags = fd >= 0 ? ES_WIRE_FD : 0,
                            .number = number,
                            .code = (uint32_t)code,
                            .len = (uint32_t)len };
    return head;
}

static es_err_t head_check(const es_wire_head_t *head, es_detail_t *detail)
{
    if (head->magic != MAGIC) {
        return es_fail(detail, ES_EINVAL, "not a message of this module");
    }
    if (head->version != ES_WIRE_VERSION) {
        return es_fail(detail, ES_EINVAL, "wire version %u, this build speaks %u",
                       (unsigned)head->version, (unsigned)ES_WIRE_VERSION);
    }
    if (head->len > ES_WIRE_MAX) {
        return es_fail(detail, ES_ETOOBIG, "a message of %u bytes, at most %u are accepted",
                       (unsigned)head->len, (unsigned)ES_WIRE_MAX);
    }
    return ES_OK;
}

/* Room for one descriptor in a control message, aligned as the kernel wants it. */
typedef union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
} fd_control_t;

static void control_put_fd(struct msghdr *msg, fd_control_t *control, int fd)
{
    struct cmsghdr *c;

    memset(control, 0, sizeof *control);
    msg->msg_control = control->bytes;
    msg->msg_controllen = sizeof control->bytes;
    c = CMSG_FIRSTHDR(msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

/* Moves the descriptors of a received control message to `fds`; what is over `room` is closed.
 * Returns how many there were in all. */
static int control_take_fds(struct msghdr *msg, int *fds, int room)
{
    int seen = 0;
    struct cmsghdr *c;

    for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t i, n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (seen < room) {
                fds[seen] = fd;
            }
            else {
                close(fd);
            }
            seen++;
        }
    }
    return seen;
}

/* Waits for `events`. ES_OK also on error or hang-up: the call that follows tells. */
static es_err_t wait_for(int fd, short events, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = events };
    int n;

    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return ES_EIO;
    }
    return n == 0 ? ES_EAGAIN : ES_OK;
}

es_err_t es_wire_knock(int door, es_wire_type_t type, uint32_t number, int fd)
{
    es_wire_head_t head = head_make(type, number, ES_OK, 0, fd);
    struct iovec iov = { .iov_base = &head, .iov_len = sizeof head };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    fd_control_t control;
    ssize_t n;

    if (fd >= 0) {
        control_put_fd(&msg, &control, fd);
    }
    do {
        n = sendmsg(door, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? ES_EIO : ES_OK;
}

es_err_t es_wire_connect(int door, int *ret)
{
    int pair[2];
    es_err_t err;
    int saved;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return ES_EIO;
    }
    err = es_wire_knock(door, ES_WIRE_HELLO, 0, pair[1]);
    saved = errno;
    close(pair[1]);
    if (err != ES_OK) {
        close(pair[0]);
        errno = saved;
        return err;
    }
    *ret = pair[0];
    return ES_OK;
}

/* Takes `n` sent bytes off the front of the two parts of a message. */
static void iov_advance(struct iovec iov[2], size_t n)
{
    int i;

    for (i = 0; i < 2; i++) {
        size_t k = n < iov[i].iov_len ? n : iov[i].iov_len;

        iov[i].iov_base = (char *)iov[i].iov_base + k;
        iov[i].iov_len -= k;
        n -= k;
    }
}

es_err_t es_wire_send(int link, es_wire_type_t type, uint32_t number, es_str_t payload, int fd,
                      int timeout_ms)
{
    es_wire_head_t head = head_make(type, number, ES_OK, payload.n, fd);
    struct iovec iov[2] = { { .iov_base = &head, .iov_len = sizeof head },
                            { .iov_base = (void *)(uintptr_t)payload.p, .iov_len = payload.n } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    fd_control_t control;

    if (payload.n > ES_WIRE_MAX) {
        return ES_ETOOBIG;
    }
    if (fd >= 0) {
        control_put_fd(&msg, &control, fd);
    }
    while (iov[0].iov_len + iov[1].iov_len > 0) {
        ssize_t n = sendmsg(link, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0) {
            iov_advance(iov, (size_t)n);
            msg.msg_control = NULL; /* the descriptor went with the first bytes */
            msg.msg_controllen = 0;
        }
        else if (errno == EAGAIN) {
            es_err_t err = wait_for(link, POLLOUT, timeout_ms);

            if (err != ES_OK) {
                return err;
            }
        }
        else if (errno != EINTR) {
            return ES_EIO;
        }
    }
    return ES_OK;
}

/* Reads exactly `n` bytes. */
static es_err_t read_whole(int link, void *to, size_t n, int timeout_ms)
{
    char *p = to;

    while (n > 0) {
        ssize_t k = recv(link, p, n, MSG_DONTWAIT);

        if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
        else if (k == 0) {
            errno = EPIPE; /* not ECONNRESET, which says that something was left unread */
            return ES_EIO;
        }
        else if (errno == EAGAIN) {
            es_err_t err = wait_for(link, POLLIN, timeout_ms);

            if (err != ES_OK) {
                return err;
            }
        }
        else if (errno != EINTR) {
            return ES_EIO;
        }
    }
    return ES_OK;
}

es_err_t es_wire_answer(int link, uint32_t number, int timeout_ms, es_err_t *ret_code,
                        char **ret_text, size_t *ret_len)
{
    es_wire_head_t head;
    es_err_t err = read_whole(link, &head, sizeof head, timeout_ms);
    char *text;

    if (err != ES_OK) {
        return err;
    }
    if (head_check(&head, NULL) != ES_OK || head.type != ES_WIRE_ANSWER || head.number != number ||
        head.code > ES_EFULL) {
        return ES_EINVAL;
    }
    text = malloc((size_t)head.len + 1);
    if (!text) {
        return ES_ENOMEM;
    }
    err = read_whole(link, text, head.len, timeout_ms);
    if (err != ES_OK) {
        free(text);
        return err;
    }
    text[head.len] = '\0';
    *ret_code = (es_err_t)head.code;
    *ret_text = text;
    *ret_len = head.len;
    return ES_OK;
}

void es_wire_reader_init(es_wire_reader_t *r)
{
    memset(r, 0, sizeof *r);
}

void es_wire_reader_free(es_wire_reader_t *r)
{
    int i;

    for (i = 0; i < r->fd_count; i++) {
        if (r->fds[i] >= 0) {
            close(r->fds[i]);
        }
    }
    free(r->p);
    es_wire_reader_init(r);
}

/* Makes room for another read: for the rest of a message whose head is there, else a step. */
static es_err_t reader_room(es_wire_reader_t *r)
{
    size_t want = r->n + READ_STEP;
    char *grown;

    if (r->n >= sizeof(es_wire_head_t)) {
        es_wire_head_t head;

        memcpy(&head, r->p, sizeof head);
        if (head.len <= ES_WIRE_MAX && sizeof head + head.len > want) {
            want = sizeof head + head.len;
        }
    }
    if (r->cap >= want) {
        return ES_OK;
    }
    grown = realloc(r->p, want);
    if (!grown) {
        return ES_ENOMEM;
    }
    r->p = grown;
    r->cap = want;
    return ES_OK;
}

es_err_t es_wire_fill(int link, es_wire_reader_t *r)
{
    struct iovec iov;
    fd_control_t control;
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };
    const int room = (int)(sizeof r->fds / sizeof r->fds[0]) - r->fd_count;
    es_err_t err = reader_room(r);
    ssize_t n;
    int seen;

    if (err != ES_OK) {
        return err;
    }
    iov.iov_base = r->p + r->n;
    iov.iov_len = r->cap - r->n;
    do {
        n = recvmsg(link, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? ES_EAGAIN : ES_EIO;
    }
    seen = control_take_fds(&msg, r->fds + r->fd_count, room);
    r->fd_count += seen < room ? seen : room;
    if (n == 0) {
        return ES_EIO;
    }
    r->n += (size_t)n;
    if (seen > room || (seen > 0 && (msg.msg_flags & MSG_CTRUNC))) {
        return ES_EINVAL;
    }
    if (msg.msg_flags & MSG_CTRUNC) {
        /* There was room for what a message may carry: the kernel could not open it here. Its
         * message must not get the next one's. */
        if (room > 0) {
            r->fds[r->fd_count++] = -1;
        }
        return ES_EFULL;
    }
    return ES_OK;
}

/* Moves what follows the first `used` bytes to the front; an empty reader keeps little. */
static void reader_consume(es_wire_reader_t *r, size_t used)
{
    r->n -= used;
    if (r->n > 0) {
        memmove(r->p, r->p + used, r->n);
    }
    else if (r->cap > KEEP_CAP) {
        free(r->p);
        r->p = NULL;
        r->cap = 0;
    }
}

es_err_t es_wire_next(es_wire_reader_t *r, es_wire_message_t *ret, es_detail_t *detail)
{
    es_wire_head_t head;
    es_err_t err;

    if (r->taken > 0) {
        reader_consume(r, r->taken);
        r->taken = 0;
    }
    if (r->n < sizeof head) {
        return ES_EAGAIN;
    }
    memcpy(&head, r->p, sizeof head);
    err = head_check(&head, detail);
    if (err != ES_OK) {
        return err;
    }
    if (r->n < sizeof head + head.len) {
        return ES_EAGAIN;
    }
    ret->fd = -1;
    if (head.flags & ES_WIRE_FD) {
        if (r->fd_count == 0) {
            return es_fail(detail, ES_EINVAL, "a message of type %u came without its descriptor",
                           (unsigned)head.type);
        }
        ret->fd = r->fds[0];
        r->fd_count--;
        memmove(r->fds, r->fds + 1, (size_t)r->fd_count * sizeof r->fds[0]);
    }
    ret->head = head;
    ret->payload.p = r->p + sizeof head;
    ret->payload.n = head.len;
    r->taken = sizeof head + head.len;
    return ES_OK;
}

es_err_t es_wire_reply(int link, uint32_t number, es_err_t code, es_str_t text)
{
    es_wire_head_t head = head_make(ES_WIRE_ANSWER, number, code, text.n, -1);
    struct iovec iov[2] = { { .iov_base = &head, .iov_len = sizeof head },
                            { .iov_base = (void *)(uintptr_t)text.p, .iov_len = text.n } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    ssize_t n;

    do {
        n = sendmsg(link, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? ES_EAGAIN : ES_EIO;
    }
    return (size_t)n == sizeof head + text.n ? ES_OK : ES_EAGAIN;
}

/* What a packet of `n` bytes with `fds` descriptors means. A HAND_OVER of another version comes
 * from a newer or older build: all that is understood of it is that a next hub is there. */
static es_err_t knock_check(const es_wire_head_t *head, size_t n, int fds, es_wire_knock_t *ret,
                            es_detail_t *detail)
{
    const bool whole = n == sizeof *head && head->magic == MAGIC;
    es_err_t err;

    if (n != sizeof *head) {
        return es_fail(detail, ES_EINVAL, "a packet of %s%zu bytes, %zu expected",
                       n > sizeof *head ? "more than " : "", n > sizeof *head ? sizeof *head : n,
                       sizeof *head);
    }
    ret->type = (es_wire_type_t)head->type;
    ret->number = head->number;
    if (whole && head->version != ES_WIRE_VERSION && head->type == ES_WIRE_HAND_OVER) {
        return ES_ENOENT;
    }
    err = head_check(head, detail);
    if (err != ES_OK) {
        return ES_EINVAL;
    }
    if ((fds == 1 && (head->type == ES_WIRE_HELLO || head->type == ES_WIRE_HAND_OVER)) ||
        (fds == 0 && head->type == ES_WIRE_EXPECT)) {
        return ES_OK;
    }
    return es_fail(detail, ES_EINVAL, "a packet of type %u with %d descriptors",
                   (unsigned)head->type, fds);
}

es_err_t es_wire_open(int door, es_wire_knock_t *ret, es_detail_t *detail)
{
    es_wire_head_t head;
    char over; /* a byte more than a packet has */
    struct iovec iov[2] = { { .iov_base = &head, .iov_len = sizeof head },
                            { .iov_base = &over, .iov_len = 1 } };
    fd_control_t control;
    struct msghdr msg = { .msg_iov = iov,
                          .msg_iovlen = 2,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };
    int fd = -1, seen;
    ssize_t n;
    es_err_t err;

    do {
        n = recvmsg(door, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? ES_EAGAIN : ES_EIO;
    }
    if (n == 0) {
        return ES_EIO;
    }
    seen = control_take_fds(&msg, &fd, 1);
    if (seen == 0 && (msg.msg_flags & MSG_CTRUNC)) { /* the kernel could not open it here */
        return es_fail(detail, ES_EFULL, "the limit of open files is reached");
    }
    ret->fd = -1;
    err = knock_check(&head, (size_t)n, seen, ret, detail);
    if (err == ES_OK) {
        ret->fd = fd;
    }
    else if (seen > 0) {
        close(fd);
    }
    return err == ES_ENOENT ? ES_OK : err;
}
