/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file stream_fixture.h
 * A hub without threads: the real intake functions, channels and streams, and one loop whose rounds
 * the test runs itself, with a clock that it turns. Clients are the other ends of real socket
 * pairs, but the test decides how many bytes a write takes: sendmsg() and send() of the program are
 * the ones below.
 */
#ifndef ES_STREAM_FIXTURE_H
#define ES_STREAM_FIXTURE_H

#include "hub_fixture.h"

#include <sys/epoll.h>
#include <sys/syscall.h>

/* ---- the sockets' side ---- */

static struct {
    long room;      /* bytes that are taken before EAGAIN; -1: as many as the kernel takes */
    int fd;         /* the one that this holds for; -1: all */
    int fail;       /* errno of the next write; 0: none */
    unsigned calls; /* writes that were tried */
} wx_socket = { .room = -1, .fd = -1 };

static inline ssize_t wx_write(int fd, const char *p, size_t n, int flags)
{
    const bool limited = wx_socket.room >= 0 && (wx_socket.fd < 0 || wx_socket.fd == fd);
    ssize_t sent;

    wx_socket.calls++;
    if (wx_socket.fail) {
        errno = wx_socket.fail;
        wx_socket.fail = 0;
        return -1;
    }
    if (limited && n > (size_t)wx_socket.room) {
        n = (size_t)wx_socket.room;
        if (n == 0) {
            errno = EAGAIN;
            return -1;
        }
    }
    sent = syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
    if (sent > 0 && limited) {
        wx_socket.room -= sent;
    }
    return sent;
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
    return wx_write(fd, p, n, flags);
}

static void *(*wx_malloc)(size_t n) = malloc; /* not the one that a test lets fail */

/* Copies the pieces together, so that the sanitizer sees each of them being read. */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    size_t i, n = 0;
    ssize_t sent;
    char *flat;

    assert_null(msg->msg_control);
    assert_true(msg->msg_iovlen <= 1024); /* the kernel's limit */
    for (i = 0; i < msg->msg_iovlen; i++) {
        n += msg->msg_iov[i].iov_len;
    }
    flat = wx_malloc(n + 1);
    assert_non_null(flat);
    for (i = 0, n = 0; i < msg->msg_iovlen; i++) {
        if (msg->msg_iov[i].iov_len > 0) {
            memcpy(flat + n, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
            n += msg->msg_iov[i].iov_len;
        }
    }
    sent = wx_write(fd, flat, n, flags);
    free(flat);
    return sent;
}

/* ---- the rig ---- */

typedef struct rig {
    es_hub_config_t config;
    es_intake_t intake;
    es_loop_t loop;
    uint32_t load;
    uint64_t now_ms;
    fx_log_t log;
    es_command_t *spare; /* as a loop's thread has it */
    size_t spare_cap;
} rig_t;

static inline uint64_t rig_clock(void *ctx)
{
    return ((rig_t *)ctx)->now_ms;
}

static inline void rig_open(rig_t *rig, size_t max_lag)
{
    memset(rig, 0, sizeof *rig);
    wx_socket.room = -1;
    wx_socket.fd = -1;
    wx_socket.fail = 0;
    wx_socket.calls = 0;
    fx_log_init(&rig->log);
    rig->now_ms = 1000000;
    rig->config = (es_hub_config_t) {
        .max_lag = max_lag,
        .log = { .write = fx_log_write, .ctx = &rig->log, .level = ES_LOG_DEBUG },
        .now_ms = rig_clock,
        .clock_ctx = rig
    };
    rig->loop.config = &rig->config;
    rig->loop.epoll = epoll_create1(EPOLL_CLOEXEC);
    assert_true(rig->loop.epoll >= 0);
    assert_int_equal(es_queue_init(&rig->loop.queue), ES_OK);
    es_queue_serve(&rig->loop.queue, &rig->spare, &rig->spare_cap);
    es_wheel_init(&rig->loop.wheel, rig->now_ms);
    rig->intake.config = &rig->config;
    rig->intake.loops = &rig->loop;
    rig->intake.loop_count = 1;
    rig->intake.running = 1; /* the rig is its thread */
    rig->intake.loop_load = &rig->load;
    pthread_mutex_init(&rig->intake.back.lock, NULL);
    assert_int_equal(es_registry_make(1, &rig->intake.registry), ES_OK);
}

static inline void rig_flush(rig_t *rig)
{
    while (rig->loop.dirty) {
        es_channel_t *c = rig->loop.dirty;
        uint32_t i;

        rig->loop.dirty = c->next_dirty;
        for (i = c->sub_count; i-- > 0;) {
            es_stream_loop_flush(c->subs[i]->stream, rig->now_ms);
        }
        es_channel_rest(c);
    }
}

static inline void rig_order(rig_t *rig, const es_command_t *cmd)
{
    es_channel_t *c = cmd->channel;
    es_stream_t *s = cmd->stream;
    uint16_t i;

    switch (cmd->what) {
    case ES_ORDER_PUBLISH:
        if (!cmd->frame) {
            es_channel_lose(c, cmd->order, cmd->closes);
        }
        else {
            assert_int_equal(es_channel_append(c, cmd->frame, cmd->order, rig->config.max_lag),
                             ES_OK);
        }
        if (!c->dirty) {
            c->dirty = true;
            c->next_dirty = rig->loop.dirty;
            rig->loop.dirty = c;
        }
        break;
    case ES_ORDER_RESERVE:
        s->next = rig->loop.streams;
        if (s->next) {
            s->next->prev = s;
        }
        rig->loop.streams = s;
        for (i = 0; i < s->sub_count; i++) {
            assert_int_equal(es_channel_join(s->subs[i].channel, &s->subs[i]), ES_OK);
        }
        break;
    case ES_ORDER_RELEASE:
        es_stream_loop_end(s, ES_END_RELEASED);
        break;
    case ES_ORDER_FREE:
        assert_false(c->dirty);
        es_channel_free(c);
        break;
    default:
        fail_msg("the rig knows no order %d", cmd->what);
    }
}

/* Takes the intake's orders, without a flush pass. */
static inline void rig_take(rig_t *rig)
{
    size_t i, n = es_queue_take(&rig->loop.queue, &rig->spare, &rig->spare_cap);

    for (i = 0; i < n; i++) {
        rig_order(rig, &rig->spare[i]);
    }
}

/* One round of the loop: orders, one flush pass, timers, and what ended goes back. */
static inline void rig_on_timer(void *ctx, es_timer_t *timer)
{
    rig_t *rig = ctx;

    es_loop_timer(&rig->loop, timer, rig->now_ms);
}

static inline void rig_round(rig_t *rig)
{
    rig_take(rig);
    rig_flush(rig);
    es_wheel_run(&rig->loop.wheel, rig->now_ms, rig_on_timer, rig);
}

/* Frees the streams that ended: pointers to them are dead after this. */
static inline void rig_give_back(rig_t *rig)
{
    rig->intake.back.first = rig->loop.dead;
    rig->loop.dead = NULL;
    es_intake_take_back(&rig->intake);
    rig_take(rig);
}

static inline void rig_close(rig_t *rig)
{
    wx_socket.room = -1;
    rig_round(rig);
    while (rig->loop.streams) {
        es_stream_loop_end(rig->loop.streams, ES_END_SHUTDOWN);
    }
    es_end_loop_report(&rig->loop);
    rig_give_back(rig);
    assert_int_equal(rig->loop.counters.streams, 0);
    assert_int_equal(rig->loop.wheel.armed, 0);
    assert_int_equal(rig->load, 0);
    assert_int_equal(es_registry_count(rig->intake.registry), 0);
    es_registry_free(rig->intake.registry);
    es_queue_destroy(&rig->loop.queue);
    free(rig->spare);
    pthread_mutex_destroy(&rig->intake.back.lock);
    close(rig->loop.epoll);
    fx_log_destroy(&rig->log);
}

static inline es_stream_t *rig_reserve(rig_t *rig, es_str_t hold)
{
    es_stream_t *s = NULL;
    es_detail_t detail = { "" };

    assert_err(es_intake_reserve(&rig->intake, hold, &s, &detail), ES_OK, &detail);
    return s;
}

static inline void rig_hold_fd(rig_t *rig, es_stream_t *s, int fd)
{
    struct epoll_event ev = { .events = EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s };

    rig_take(rig);
    s->fd = fd;
    s->state = ES_STREAM_LIVE;
    s->last_ms = rig->now_ms;
    es_count(&rig->loop.counters.streams, 1);
    assert_int_equal(epoll_ctl(rig->loop.epoll, EPOLL_CTL_ADD, fd, &ev), 0);
    es_stream_loop_start_timer(s, rig->now_ms + s->keep_alive_ms);
    es_stream_loop_flush(s, rig->now_ms);
}

/* Returns the client's end, which does not block. */
static inline int rig_hold(rig_t *rig, es_stream_t *s)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    rig_hold_fd(rig, s, pair[1]);
    return pair[0];
}

static inline void rig_publish(rig_t *rig, const char *channel, const char *content,
                               const char *more)
{
    const size_t size = strlen(channel) + strlen(content) + strlen(more) + 100;
    char *packet = malloc(size);
    es_item_t *item = NULL;
    es_detail_t detail = { "" };
    int n;

    assert_non_null(packet);
    n = snprintf(packet, size,
                 "J{\"channel\": \"%s\", \"formats\": {\"http-stream\": {\"content\": \"%s\"}}%s}",
                 channel, content, more);
    assert_err(es_item_from_packet(packet, (size_t)n, &item, &detail), ES_OK, &detail);
    es_intake_publish(&rig->intake, item);
    free(packet);
}

static inline void rig_publish_close(rig_t *rig, const char *channel, const char *more)
{
    char packet[512];
    es_item_t *item = NULL;
    es_detail_t detail = { "" };
    const int n = snprintf(
        packet, sizeof packet,
        "J{\"channel\": \"%s\", \"formats\": {\"http-stream\": {\"action\": \"close\"}}%s}",
        channel, more);

    assert_err(es_item_from_packet(packet, (size_t)n, &item, &detail), ES_OK, &detail);
    es_intake_publish(&rig->intake, item);
}

/* What EPOLLOUT does. */
static inline void rig_writable(rig_t *rig, es_stream_t *s)
{
    if (s->state == ES_STREAM_LIVE && s->blocked) {
        s->blocked = false;
        es_stream_loop_flush(s, rig->now_ms);
    }
}

/* ---- what should come, what came ---- */

static inline void want_add(es_buf_t *b, bool chunked, const char *content)
{
    es_err_t err = ES_OK;

    if (content[0] != '\0') {
        err = chunked ? es_buf_addf(b, "%zx\r\n", strlen(content)) : ES_OK;
        err = err == ES_OK ? es_buf_add(b, content, strlen(content)) : err;
        err = err == ES_OK && chunked ? es_buf_add(b, "\r\n", 2) : err;
    }
    assert_int_equal(err, ES_OK);
}

/* Reads what is there. True: the other end has closed. */
static inline bool got_read(es_buf_t *b, int fd)
{
    char bytes[65536];
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);

    while (n > 0) {
        assert_int_equal(es_buf_add(b, bytes, (size_t)n), ES_OK);
        n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    assert_true(n == 0 || errno == EAGAIN);
    return n == 0;
}

static inline void check_got(const es_buf_t *got, const es_buf_t *want, const char *file, int line)
{
    const es_str_t w = { want->p, want->n };

    if (want->n > 0 || got->n > 0) {
        es_check_bytes(got->p ? got->p : "", got->n, w, file, line);
    }
}
#define assert_got(got, want) check_got((got), (want), __FILE__, __LINE__)

#endif
