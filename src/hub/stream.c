/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A held connection: a descriptor, a cursor into each of its channels' logs, and no queue of its
 * own.
 *
 *   RESERVED ──HOLD──▶ LIVE ──client gone, close, lag, timeout, error, shutdown──▶ ENDED
 *      └────────RELEASE, shutdown──────────────────────────────────────────────────┘
 *
 * A flush gathers everything between the cursors and the heads, in the order of publishing, and
 * writes it with one sendmsg. What the socket does not take stays in the logs: the cursors go back
 * to the first frame of which nothing was written, and a frame that was written in part is kept in
 * `pending`. So a slow reader costs a reference and an offset. A cursor that has fallen off its log
 * means lost messages, and the stream is cut: a client that reconnects knows where it was, one that
 * is silently skipped does not.
 *
 * A socket that takes nothing for EventStreamSendTimeout although bytes wait ends its stream, too.
 * The stream's one timer serves that, its keep-alives and its expiry.
 * An expired stream (end.c) gets what was published before, and nothing newer.
 *
 * Streams with content filters or a prev-id ("tracked") are served one frame at a time.
 *
 * All of this runs in the stream's loop, but es_stream_make and es_stream_free, which the intake
 * calls.
 */
#include "hub_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GATHER_MAX = 256 }; /* frames of one sendmsg */

/* One gathered frame, and where the cursor was, so that it can go back. */
typedef struct piece {
    es_frame_t *frame;
    es_sub_t *sub;
    uint64_t position;
    uint64_t order;
} piece_t;

typedef struct gather {
    struct iovec iov[GATHER_MAX + 1];
    piece_t piece[GATHER_MAX + 1];
    int n;
    bool own;  /* the last frame is this stream's alone: unref it after the write */
    bool more; /* stopped before the heads were reached */
    bool lost; /* there is no memory for the next frame */
} gather_t;

es_stream_t *es_stream_make(es_instruct_t *in, es_delivery_t *delivery)
{
    es_stream_t *s = calloc(1, sizeof *s + in->channel_count * sizeof s->subs[0]);

    if (!s) {
        return NULL;
    }
    s->fd = -1;
    s->chunked = delivery->chunked;
    s->events = delivery->events;
    if (delivery->events && delivery->from.from != ES_FROM_NOW) {
        s->from = malloc(sizeof *s->from);
        if (!s->from) {
            free(s);
            return NULL;
        }
        *s->from = delivery->from;
    }
    s->peer = delivery->peer;
    s->uri = delivery->uri;
    delivery->peer = NULL;
    delivery->uri = NULL;
    s->log = delivery->log;
    delivery->log = NULL;
    s->started_ms = delivery->started_ms;
    s->expires_ms = delivery->until_ms;
    s->meta = in->meta;
    memset(&in->meta, 0, sizeof in->meta);
    if (in->keep_alive_len > 0) {
        s->keep_alive_ms = (uint64_t)in->keep_alive_timeout * 1000;
        s->keep_alive_mode = (uint8_t)in->keep_alive_mode;
    }
    return s;
}

void es_stream_free(es_stream_t *stream)
{
    uint16_t i;

    for (i = 0; i < stream->sub_count; i++) {
        free(stream->subs[i].last_id);
    }
    es_frame_unref(stream->keep_alive);
    es_frame_unref(stream->pending);
    es_pairs_free(&stream->meta);
    free(stream->peer);
    free(stream->uri);
    free(stream->log);
    free(stream->from);
    free(stream->attendee);
    free(stream);
}

/* ---- gathering ---- */

/* The subscription whose next frame was published first; NULL: none has one that the stream is to
 * get. */
static es_sub_t *next_sub(es_stream_t *s)
{
    es_sub_t *first = NULL;
    uint64_t order = UINT64_MAX;
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        es_sub_t *sub = &s->subs[i];

        if (sub->cursor < sub->channel->head) {
            const uint64_t o = es_channel_at(sub->channel, sub->cursor)->order;

            if (o < order && (!s->expired || o <= s->final)) {
                order = o;
                first = sub;
            }
        }
    }
    return first;
}

static bool has_lagged(const es_stream_t *s)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].cursor < s->subs[i].channel->tail) {
            return true;
        }
    }
    return false;
}

static void gather_add(gather_t *g, const es_stream_t *s, es_frame_t *frame, es_sub_t *sub,
                       size_t offset)
{
    const es_str_t bytes = es_frame_bytes(frame, s->chunked);

    g->iov[g->n].iov_base = (void *)(uintptr_t)(bytes.p + offset);
    g->iov[g->n].iov_len = bytes.n - offset;
    g->piece[g->n] = (piece_t) { .frame = frame, .sub = sub };
    if (sub) {
        g->piece[g->n].position = sub->cursor;
        g->piece[g->n].order = es_channel_at(sub->channel, sub->cursor)->order;
    }
    g->n++;
}

/* Takes the next frame of `sub` into the gather. False: the gather ends here. */
static bool gather_next(gather_t *g, es_stream_t *s, es_sub_t *sub)
{
    const es_log_entry_t *entry = es_channel_at(sub->channel, sub->cursor);
    es_frame_t *frame = entry->frame;
    es_verdict_t verdict = ES_DELIVER_SHARED;
    es_frame_t *own = NULL;

    if (s->events && entry->order <= s->sent && frame->action != ES_ACTION_CLOSE &&
        !frame->fleeting) {
        sub->cursor++; /* it came from the history */
        return true;
    }
    if ((frame->mask & sub->mask) || s->tracked) {
        verdict = es_deliver_filter(sub, frame, &own);
    }
    if (verdict == ES_DELIVER_LOST) {
        g->lost = true;
        return false;
    }
    if (verdict != ES_DELIVER_SKIP) {
        if (frame->action == ES_ACTION_CLOSE) {
            gather_add(g, s, es_frame_terminator(), sub, 0);
        }
        else if (!s->events) {
            gather_add(g, s, own ? own : frame, sub, 0);
        }
        else if (frame->event && frame->event->len > 0) {
            gather_add(g, s, frame->event, sub, 0);
        }
    }
    g->own = own != NULL;
    sub->cursor++;
    return frame->action != ES_ACTION_CLOSE && !g->own && !s->tracked;
}

/* An expired stream has got everything: the terminating chunk, in a write of its own. */
static void gather_end(gather_t *g, es_stream_t *s)
{
    g->more = true;
    if (g->n == 0) {
        s->pending = es_frame_terminator();
        s->pending_off = 0;
        gather_add(g, s, s->pending, NULL, 0);
    }
}

static void gather(gather_t *g, es_stream_t *s)
{
    es_sub_t *sub;

    g->n = 0;
    g->own = false;
    g->more = false;
    g->lost = false;
    if (s->pending) {
        gather_add(g, s, s->pending, NULL, s->pending_off);
        if (s->pending == es_frame_terminator() || s->tracked) {
            g->more = true;
            return;
        }
    }
    if (s->replaying) {
        return; /* replay.c has the next */
    }
    for (sub = next_sub(s); sub && !g->more; sub = next_sub(s)) {
        g->more = g->n == GATHER_MAX || !gather_next(g, s, sub);
    }
    if (s->expired && !sub) {
        gather_end(g, s);
    }
}

/* ---- writing ---- */

/* The first piece of which something is left becomes the pending frame. An own frame always does:
 * it exists nowhere else. So does the frame of a tracked stream: its filters have counted it as
 * seen. Returns the first piece to give back to the logs. */
static int keep_partial(es_stream_t *s, gather_t *g, int i, size_t sent)
{
    const bool own = g->own && i == g->n - 1;

    if (sent == 0 && !own && !s->tracked) {
        return i;
    }
    s->pending = g->piece[i].frame;
    s->pending_off = sent;
    if (own) {
        g->own = false; /* the gather's reference is now the stream's */
    }
    else if (s->pending != es_frame_terminator()) {
        es_frame_ref(s->pending, 1);
    }
    return i + 1;
}

/* Books `sent` bytes against the gather. True: all of it is gone. */
static bool account(es_stream_t *s, gather_t *g, size_t sent)
{
    int i, first_back;

    for (i = 0; i < g->n && sent >= g->iov[i].iov_len; i++) {
        sent -= g->iov[i].iov_len;
    }
    if (i > 0 && s->pending) { /* it was the first piece */
        es_frame_unref(s->pending);
        s->pending = NULL;
        s->pending_off = 0;
    }
    first_back = i;
    if (i < g->n && g->piece[i].sub == NULL) {
        s->pending_off += sent; /* still the same pending frame */
        first_back = 1;
    }
    else if (i < g->n) {
        first_back = keep_partial(s, g, i, sent);
    }
    es_count(&s->loop->counters.deliveries, first_back - (g->piece[0].sub == NULL ? 1 : 0));
    for (int k = g->n - 1; k >= first_back; k--) {
        g->piece[k].sub->cursor = g->piece[k].position;
    }
    if (first_back > 0 && g->piece[first_back - 1].sub) {
        s->sent = g->piece[first_back - 1].order;
    }
    return i == g->n;
}

static void settle_all(es_stream_t *s)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        es_channel_settle(&s->subs[i]);
    }
}

static void arm(es_stream_t *s);

/* After a write: is the socket full, and since when does it take nothing? */
static void set_blocked(es_stream_t *s, bool blocked, bool took_some, uint64_t now_ms)
{
    s->blocked = blocked;
    if (!blocked) {
        s->stalled_ms = 0;
    }
    else if (took_some || s->stalled_ms == 0) {
        s->stalled_ms = now_ms;
        arm(s);
    }
}

/* Writes the gather. False: stop for now (blocked or ended). */
static bool write_gather(es_stream_t *s, gather_t *g, uint64_t now_ms)
{
    struct msghdr msg = { .msg_iov = g->iov, .msg_iovlen = (size_t)g->n };
    const bool closes = g->n > 0 && g->piece[g->n - 1].frame == es_frame_terminator();
    ssize_t sent = 0;
    bool whole;

    if (g->n > 0) {
        do {
            sent = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
    }
    if (sent < 0 && errno != EAGAIN) {
        es_stream_loop_end(s, es_end_of_error(errno));
        return false;
    }
    if (sent > 0) {
        s->bytes += (uint64_t)sent;
        es_count(&s->loop->counters.bytes, sent);
    }
    if (g->n == 0) {
        s->stalled_ms = 0;
        return true;
    }
    s->last_ms = now_ms;
    whole = account(s, g, sent < 0 ? 0 : (size_t)sent);
    if (whole && closes) {
        es_stream_loop_end(s, s->expired ? ES_END_EXPIRED : ES_END_ACTION);
        return false;
    }
    set_blocked(s, !whole, sent > 0, now_ms);
    return whole;
}

void es_stream_loop_flush(es_stream_t *stream, uint64_t now_ms)
{
    gather_t g;
    bool go_on = !stream->blocked;

    if (stream->state != ES_STREAM_LIVE) {
        if (stream->state == ES_STREAM_RESERVED) {
            settle_all(stream);
        }
        return;
    }
    if (!stream->replaying && has_lagged(stream) && !es_replay_loop_fall_back(stream)) {
        es_stream_loop_end(stream, ES_END_LAG);
        return;
    }
    if (stream->blocked && stream->stalled_ms == 0) { /* full since a keep-alive; now bytes wait */
        set_blocked(stream, true, false, now_ms);
    }
    while (go_on) {
        gather(&g, stream);
        go_on = write_gather(stream, &g, now_ms) && g.more;
        if (g.own) {
            es_frame_unref(g.piece[g.n - 1].frame);
        }
        if (g.lost && stream->state == ES_STREAM_LIVE) {
            es_stream_loop_end(stream, ES_END_ERROR);
        }
        go_on = go_on && !g.lost;
    }
    if (stream->state != ES_STREAM_ENDED) {
        settle_all(stream);
    }
}

/* Writes a frame that is on no channel: a keep-alive. The socket is not blocked and nothing is
 * pending. */
static void write_alone(es_stream_t *s, es_frame_t *frame, uint64_t now_ms)
{
    const es_str_t bytes = es_frame_bytes(frame, s->chunked);
    ssize_t sent;

    do {
        sent = send(s->fd, bytes.p, bytes.n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        es_stream_loop_end(s, es_end_of_error(errno));
        return;
    }
    if (sent > 0) {
        s->bytes += (uint64_t)sent;
        es_count(&s->loop->counters.bytes, sent);
    }
    if (sent >= 0 && (size_t)sent < bytes.n) {
        es_frame_ref(frame, 1);
        s->pending = frame;
        s->pending_off = (size_t)sent;
    }
    if (sent < 0) { /* it is dropped, so nothing waits */
        s->blocked = true;
        return;
    }
    set_blocked(s, (size_t)sent < bytes.n, true, now_ms);
}

/* ---- the timer ---- */

/* One timer serves all: what it is armed for is looked up when it fires. */
static void arm(es_stream_t *s)
{
    const uint64_t timeout = s->loop->config->send_timeout_ms;
    es_wheel_t *wheel = &s->loop->wheel;

    if (s->expires_ms > 0) {
        es_wheel_arm_by(wheel, &s->timer, es_end_loop_expiry_due(s));
    }
    if (s->keep_alive_ms > 0) {
        es_wheel_arm_by(wheel, &s->timer, s->keep_alive_due);
    }
    if (s->stalled_ms > 0 && timeout > 0) {
        es_wheel_arm_by(wheel, &s->timer, s->stalled_ms + timeout);
    }
}

static void keep_alive(es_stream_t *s, uint64_t now_ms)
{
    const bool idle = s->keep_alive_mode == ES_KEEP_ALIVE_IDLE;

    if (idle && now_ms < s->last_ms + s->keep_alive_ms) {
        s->keep_alive_due = s->last_ms + s->keep_alive_ms;
        return;
    }
    if (!s->blocked && !s->pending) {
        write_alone(s, s->keep_alive, now_ms);
        es_count(&s->loop->counters.keep_alives, 1);
    }
    s->last_ms = now_ms;
    s->keep_alive_due = now_ms + s->keep_alive_ms;
}

static bool has_stalled(const es_stream_t *s, uint64_t now_ms)
{
    const uint64_t timeout = s->loop->config->send_timeout_ms;

    return timeout > 0 && s->stalled_ms > 0 && now_ms >= s->stalled_ms + timeout;
}

void es_stream_loop_start_timer(es_stream_t *stream, uint64_t due_ms)
{
    stream->keep_alive_due = due_ms;
    arm(stream);
}

void es_stream_loop_timer(es_stream_t *stream, uint64_t now_ms)
{
    if (has_stalled(stream, now_ms)) {
        /* One last try: epoll tells of room only when a good part of the buffer is free, and a slow
         * reader may have made less than that. */
        stream->blocked = false;
        es_stream_loop_flush(stream, now_ms);
        if (has_stalled(stream, now_ms)) {
            es_stream_loop_end(stream, ES_END_TIMEOUT);
        }
    }
    if (stream->state == ES_STREAM_LIVE && stream->expires_ms > 0) {
        es_end_loop_expire(stream, now_ms);
    }
    if (stream->state == ES_STREAM_LIVE && stream->keep_alive_ms > 0 &&
        now_ms >= stream->keep_alive_due) {
        keep_alive(stream, now_ms);
    }
    if (stream->state == ES_STREAM_LIVE) {
        arm(stream);
    }
}
