/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop thread. One round:
 *
 *   1. wait for sockets, orders, or the next tick
 *   2. sockets: a client that left ends its stream; a socket with room again is flushed
 *   3. orders, all that wait: frames go to the heads of their channels' logs
 *   4. flush pass: the streams of every channel that moved, one write each; then a batch from the
 *      history for each stream that replays
 *   5. timers
 *   6. streams that ended in this round go back to the intake
 *
 * Orders that arrive during a pass wait for the next round and are then written together: the
 * busier the hub, the more messages one write carries. Streams that end are only freed in step 6,
 * so pointers in the events of step 2 stay good for the round.
 */
#include "hub_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    STREAM_EVENTS = (int)(EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET),
    WASTE_ROUNDS = 16 /* reads of one event */
};

void es_count(_Atomic uint64_t *counter, int64_t delta)
{
    const uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

    /* Whoever sees this count sees those that were made before it. */
    atomic_store_explicit(counter, now + (uint64_t)delta, memory_order_release);
}

/* ---- the flush pass ---- */

/* Backwards, because a stream that ends moves the last subscription into its place. */
static void flush_channel(es_channel_t *c, uint64_t now_ms)
{
    uint32_t i;

    for (i = c->sub_count; i-- > 0;) {
        if (i < c->sub_count) {
            es_stream_loop_flush(c->subs[i]->stream, now_ms);
        }
    }
    es_channel_rest(c);
}

static void flush_pass(es_loop_t *loop, uint64_t now_ms)
{
    es_channel_t *c = loop->dirty;

    loop->dirty = NULL;
    while (c) {
        es_channel_t *next = c->next_dirty;

        flush_channel(c, now_ms);
        c = next;
    }
}

/* ---- orders ---- */

static void on_publish(es_loop_t *loop, const es_command_t *cmd, uint64_t now_ms)
{
    es_channel_t *c = cmd->channel;
    const size_t max = loop->config->max_lag;
    const bool closes = cmd->frame ? cmd->frame->action == ES_ACTION_CLOSE : cmd->closes;
    const size_t cost = cmd->frame ? es_frame_cost(cmd->frame) : 0;

    /* A burst must not push frames off the log that no stream has been offered yet. Only these
     * count: what a slow stream keeps in the log must not cost the others a pass for every frame.
     */
    if (c->dirty && c->fresh + cost > max / 2) {
        flush_pass(loop, now_ms);
    }
    if (!cmd->frame || es_channel_append(c, cmd->frame, cmd->order, max) != ES_OK) {
        es_log(&loop->config->log, ES_LOG_ERR, "ES0202",
               "out of memory: a message on channel %s cannot be delivered; its streams read the "
               "history, or are cut",
               c->name);
        es_channel_lose(c, cmd->order, closes);
    }
    if (!c->dirty) {
        c->dirty = true;
        c->next_dirty = loop->dirty;
        loop->dirty = c;
    }
}

/* Puts a stream at the heads of its channels' logs. */
static void on_reserve(es_loop_t *loop, es_stream_t *s)
{
    uint16_t i;

    s->next =
        loop->streams; /* s->loop is set: the intake reads it too, so it is not written here */
    if (s->next) {
        s->next->prev = s;
    }
    loop->streams = s;
    for (i = 0; i < s->sub_count; i++) {
        if (es_channel_join(s->subs[i].channel, &s->subs[i]) != ES_OK) {
            es_log(&loop->config->log, ES_LOG_ERR, "ES0203", "out of memory: a stream is refused");
            /* Its link still names it, so it stays until it is held or released; but on no channel,
             * so that no pass meets a half-joined stream. */
            s->refused = true;
            while (i-- > 0) {
                es_channel_leave(&s->subs[i]);
            }
            return;
        }
    }
}

/* The stream's socket is the loop's to watch. False: the stream has ended. */
static bool go_live(es_loop_t *loop, es_stream_t *s, int fd, uint64_t keep_alive_due)
{
    struct epoll_event ev = { .events = STREAM_EVENTS, .data.ptr = s };

    s->fd = fd;
    s->state = ES_STREAM_LIVE;
    es_count(&loop->counters.streams, 1);
    if (s->refused) {
        es_stream_loop_end(s, ES_END_ERROR);
        return false;
    }
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) != 0) {
        es_log(&loop->config->log, ES_LOG_ERR, "ES0204", "epoll refuses a stream: %s",
               strerror(errno));
        es_stream_loop_end(s, ES_END_ERROR);
        return false;
    }
    s->carried = es_peer_is_local(fd);
    es_peer_watch(fd, loop->config->send_timeout_ms);
    es_stream_loop_start_timer(s, keep_alive_due);
    es_replay_loop_start(s);
    return true;
}

static void on_hold(es_loop_t *loop, es_stream_t *s, int fd, uint64_t now_ms)
{
    s->last_ms = now_ms;
    if (go_live(loop, s, fd, now_ms + s->keep_alive_ms)) {
        es_stream_loop_flush(s, now_ms);
    }
}

/* The terminating chunk goes out where nothing is in its way. */
static void end_streams(es_loop_t *loop)
{
    while (loop->streams) {
        es_stream_t *s = loop->streams;

        if (s->state == ES_STREAM_LIVE && !s->blocked && !s->pending && s->chunked) {
            const es_str_t end = es_frame_bytes(es_frame_terminator(), true);

            /* Nobody is left to try again when it fails: the close that follows says the same. */
            (void)send(s->fd, end.p, end.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        es_stream_loop_end(s, ES_END_SHUTDOWN);
    }
    es_end_loop_report(loop);
}

static void run_command(es_loop_t *loop, const es_command_t *cmd, uint64_t now_ms)
{
    switch (cmd->what) {
    case ES_ORDER_PUBLISH:
        on_publish(loop, cmd, now_ms);
        break;
    case ES_ORDER_RESERVE:
        on_reserve(loop, cmd->stream);
        break;
    case ES_ORDER_HOLD:
        on_hold(loop, cmd->stream, cmd->fd, now_ms);
        break;
    case ES_ORDER_RELEASE:
        es_stream_loop_end(cmd->stream, ES_END_RELEASED);
        break;
    case ES_ORDER_FREE:
        if (cmd->channel
                ->dirty) { /* it is in the list of dirty channels: take it out of there first */
            flush_pass(loop, now_ms);
        }
        es_channel_free(cmd->channel);
        break;
    case ES_ORDER_HALT:
        flush_pass(loop, now_ms);
        loop->stopping = true;
        break;
    case ES_ORDER_STOP:
        flush_pass(loop, now_ms);
        end_streams(loop);
        loop->stopping = true;
        break;
    }
}

/* ---- the round ---- */

/* A held client has nothing to say. What it sends all the same is read away: left in the socket it
 * would keep the end of the connection from being seen. One that floods takes turns with the
 * others. */
static void read_waste(es_loop_t *loop, es_stream_t *s)
{
    static _Thread_local char waste[16 * 1024];
    struct epoll_event again = { .events = STREAM_EVENTS, .data.ptr = s };
    int rounds = WASTE_ROUNDS;
    ssize_t n = 1;

    while (n > 0 && rounds-- > 0) {
        n = recv(s->fd, waste, sizeof waste, MSG_DONTWAIT);
    }
    if (n > 0 && epoll_ctl(loop->epoll, EPOLL_CTL_MOD, s->fd, &again) != 0) {
        es_stream_loop_end(s, ES_END_ERROR);
    }
}

static void on_event(es_loop_t *loop, const struct epoll_event *ev, uint64_t now_ms)
{
    es_stream_t *s = ev->data.ptr;
    const bool gone = (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;

    if (s->state != ES_STREAM_LIVE) {
        return;
    }
    if (gone || (s->carried && (ev->events & EPOLLIN))) {
        const es_end_t end = es_end_of_event(s, ev->events);

        if (gone || end == ES_END_TIMEOUT) {
            es_stream_loop_end(s, end);
            return;
        }
    }
    if (ev->events & EPOLLIN) {
        read_waste(loop, s);
    }
    if (s->blocked && s->state == ES_STREAM_LIVE) {
        s->blocked = false;
        es_stream_loop_flush(s, now_ms);
    }
}

void es_loop_timer(es_loop_t *loop, es_timer_t *timer, uint64_t now_ms)
{
    if (timer == &loop->ends.timer) {
        es_end_loop_report(loop);
        return;
    }
    es_stream_loop_timer((es_stream_t *)(void *)((char *)timer - offsetof(es_stream_t, timer)),
                         now_ms);
}

static void on_timer(void *ctx, es_timer_t *timer)
{
    es_loop_t *loop = ctx;

    es_loop_timer(loop, timer, loop->now_ms);
}

static void give_back(es_loop_t *loop)
{
    const uint64_t one = 1;
    es_stream_t *last = loop->dead;

    if (!last) {
        return;
    }
    while (last->next) {
        last = last->next;
    }
    pthread_mutex_lock(&loop->back->lock);
    last->next = loop->back->first;
    loop->back->first = loop->dead;
    pthread_mutex_unlock(&loop->back->lock);
    loop->dead = NULL;
    if (write(loop->back->wake, &one, sizeof one) < 0) {
        return; /* the counter is full, so the intake wakes anyway */
    }
}

static void drain_wake(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof count) < 0) {
        return; /* EAGAIN: someone else's edge; nothing to reset */
    }
}

static void *loop_main(void *arg)
{
    es_loop_t *loop = arg;
    struct epoll_event events[EVENTS];
    es_command_t *spare = NULL;
    size_t spare_cap = 0;

    es_queue_serve(&loop->queue, &spare, &spare_cap);
    while (!loop->stopping) {
        uint64_t now_ms = es_now(loop->config);
        const int timeout = loop->replay_busy ? 0 : es_wheel_timeout(&loop->wheel, now_ms);
        int i, n = epoll_wait(loop->epoll, events, EVENTS, timeout);
        size_t k, orders;

        now_ms = es_now(loop->config);
        for (i = 0; i < n; i++) {
            if (events[i].data.ptr) {
                on_event(loop, &events[i], now_ms);
            }
            else {
                drain_wake(loop->queue.wake);
            }
        }
        orders = es_queue_take(&loop->queue, &spare, &spare_cap);
        for (k = 0; k < orders; k++) {
            run_command(loop, &spare[k], now_ms);
        }
        flush_pass(loop, now_ms);
        es_replay_loop_pass(loop, now_ms);
        loop->now_ms = now_ms;
        es_wheel_run(&loop->wheel, now_ms, on_timer, loop);
        give_back(loop);
    }
    es_queue_desert(&loop->queue);
    free(spare);
    return NULL;
}

es_err_t es_loop_make(es_loop_t *loop, int number, const es_hub_config_t *config, es_return_t *back)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    es_err_t err;

    memset(loop, 0, sizeof *loop);
    loop->config = config;
    loop->number = number;
    loop->back = back;
    es_wheel_init(&loop->wheel, es_now(config));
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        return ES_EIO;
    }
    err = es_queue_init(&loop->queue);
    if (err == ES_OK && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->queue.wake, &ev) != 0) {
        es_queue_destroy(&loop->queue);
        err = ES_EIO;
    }
    if (err != ES_OK) {
        close(loop->epoll);
    }
    return err;
}

es_err_t es_loop_start(es_loop_t *loop)
{
    char name[16];

    loop->stopping = false;
    if (pthread_create(&loop->thread, NULL, loop_main, loop) != 0) {
        return ES_EIO;
    }
    snprintf(name, sizeof name, "es-loop-%d", loop->number);
    pthread_setname_np(loop->thread, name);
    return ES_OK;
}

void es_loop_join(es_loop_t *loop)
{
    pthread_join(loop->thread, NULL);
}

/* ---- without a thread ---- */

/* The stream is taken for blocked: the socket's first event, which comes at once when it has room,
 * then writes what is behind. */
es_err_t es_loop_adopt(es_loop_t *loop, es_stream_t *stream, const es_resume_t *resume, int fd)
{
    const uint64_t now_ms = es_now(loop->config);
    uint16_t i;

    on_reserve(loop, stream);
    if (stream->refused) {
        es_stream_loop_forget(stream);
        give_back(loop);
        return ES_ENOMEM;
    }
    for (i = 0; i < stream->sub_count; i++) {
        es_sub_t *sub = &stream->subs[i];

        /* More than its log has: a place before the tail, so it is cut as one that lags. */
        sub->cursor = resume->behind[i] <= sub->cursor ? sub->cursor - resume->behind[i] : 0;
        es_channel_settle(sub);
    }
    if (fd >= 0) {
        stream->last_ms = now_ms > resume->idle ? now_ms - resume->idle : 0;
        stream->stalled_ms = resume->stalled > 0 ? now_ms - resume->stalled : 0;
        stream->blocked = true;
        (void)go_live(loop, stream, fd, now_ms + resume->due);
        give_back(loop); /* when it ended at once */
    }
    return ES_OK;
}

void es_loop_drop_channel(es_loop_t *loop, es_channel_t *channel)
{
    es_channel_t **at = &loop->dirty;

    while (*at && *at != channel) {
        at = &(*at)->next_dirty;
    }
    if (*at) {
        *at = channel->next_dirty;
    }
    es_channel_free(channel);
}

void es_loop_end_all(es_loop_t *loop)
{
    end_streams(loop);
    give_back(loop);
}

void es_loop_forget_all(es_loop_t *loop)
{
    while (loop->streams) {
        es_stream_loop_forget(loop->streams);
    }
    es_end_loop_report(loop);
    give_back(loop);
}

/* What the intake ordered after STOP are channels to free, and nothing else. */
void es_loop_destroy(es_loop_t *loop)
{
    es_command_t *left = NULL;
    size_t cap = 0, i, n = es_queue_take(&loop->queue, &left, &cap);

    for (i = 0; i < n; i++) {
        if (left[i].what == ES_ORDER_FREE) {
            es_channel_free(left[i].channel);
        }
    }
    free(left);
    es_queue_destroy(&loop->queue);
    close(loop->epoll);
}
