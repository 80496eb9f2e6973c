/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay: an event stream that gets from the history what its channels' logs do not have, because
 * it asked for older events or because it has fallen behind its logs.
 *
 *   sent ──────── from the history ────────▶ until ──── from the logs ────▶ head
 *
 * `sent` is the number of the newest event that the stream was given, in either way; `until` bounds
 * what comes from the history, and is settled. When the stream has got there and no log has dropped
 * anything newer, it is live, and what the logs have up to `sent` is skipped: no gap, no double.
 * Else `until` is raised to what is settled by then; when nothing new is, the writer wakes the
 * loop.
 *
 * In one round each stream gets one batch, which becomes its pending frame: from there on it is
 * written, waited for and handed over as a message of which a part is written.
 *
 * A stream that would miss something is cut as one that lags: what was pruned or cleared before it
 * was read, or could not be kept, or never is (fleeting frames). Gaps up to `forgiven` were told at
 * the reservation.
 *
 * One whose time is up (stream.c) gets what comes up to `final`, and ends.
 *
 * All in the stream's loop.
 */
#include "hub_int.h"

#include <string.h>

enum {
    BATCH_BYTES = 64 * 1024, /* of items */
    TEXT_MAX = 64 * 1024 * 1024
};

typedef struct batch {
    es_stream_t *stream;
    es_buf_t text;
    es_err_t err;
} batch_t;

/* ---- the loop's list ---- */

static void enlist(es_stream_t *s)
{
    s->replay_prev = NULL;
    s->replay_next = s->loop->replaying;
    if (s->replay_next) {
        s->replay_next->replay_prev = s;
    }
    s->loop->replaying = s;
    s->loop->replay_busy = true;
    es_count(&s->loop->counters.replaying, 1);
}

void es_replay_loop_leave(es_stream_t *stream)
{
    es_loop_t *loop = stream->loop;

    if (stream->replay_prev) {
        stream->replay_prev->replay_next = stream->replay_next;
    }
    else if (loop->replaying == stream) {
        loop->replaying = stream->replay_next;
    }
    else {
        return;
    }
    es_count(&loop->counters.replaying, -1);
    if (stream->replay_next) {
        stream->replay_next->replay_prev = stream->replay_prev;
    }
    stream->replay_prev = NULL;
    stream->replay_next = NULL;
}

void es_replay_loop_start(es_stream_t *stream)
{
    if (stream->replaying) {
        enlist(stream);
    }
}

/* Has a log dropped what the stream still needs and the history does not have: an event about the
 * moment? Who comes back is told the state anew. */
static bool missed_a_moment(const es_stream_t *s)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].cursor < s->subs[i].channel->fleeted) {
            return true;
        }
    }
    return false;
}

bool es_replay_loop_fall_back(es_stream_t *stream)
{
    if (!stream->events || !stream->loop->history || missed_a_moment(stream)) {
        return false;
    }
    stream->replaying = true;
    stream->until = stream->sent;
    enlist(stream);
    return true;
}

/* ---- one batch ---- */

static es_err_t add_record(batch_t *b, const es_store_record_t *record)
{
    es_sub_t *sub = &b->stream->subs[record->channel];
    es_item_t *item = NULL;
    es_frame_t *frame, *own = NULL;
    es_err_t err = es_item_from_kept(record->bytes, &item, NULL);

    if (err != ES_OK) {
        return err;
    }
    frame = es_frame_from_item(item);
    if (!frame) {
        return ES_ENOMEM;
    }
    if ((frame->mask & sub->mask) == 0 || es_deliver_filter(sub, frame, &own) != ES_DELIVER_SKIP) {
        err = es_frame_add_event(frame, b->stream->loop->instance, record->seq);
        if (err == ES_OK) {
            const es_str_t text = es_frame_content(frame->event);

            err = es_buf_add(&b->text, text.p, text.n);
        }
    }
    es_frame_unref(own); /* what a content filter made: events are not filtered */
    es_frame_unref(frame);
    return err;
}

/* es_store_each_t */
static bool each(void *ctx, const es_store_record_t *record)
{
    batch_t *b = ctx;

    b->err = add_record(b, record);
    return b->err == ES_OK;
}

static es_err_t read_batch(es_stream_t *s, batch_t *b, es_store_result_t *result,
                           es_detail_t *detail)
{
    const es_store_range_t range = { .after = s->sent,
                                     .up_to = s->until,
                                     .max_bytes = BATCH_BYTES };
    es_str_t names[ES_MAX_CHANNELS];
    es_err_t err;
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        names[i] = (es_str_t) { s->subs[i].channel->name, s->subs[i].channel->name_len };
    }
    err = es_store_read(es_history_store(s->loop->history), names, s->sub_count, &range, each, b,
                        result, detail);
    if (err == ES_OK && b->err != ES_OK) {
        err = es_fail(detail, b->err, "an event cannot be rendered: %s", es_err_name(b->err));
    }
    return err;
}

/* Reads a batch, which becomes the pending frame. False: the stream has ended. */
static bool next_batch(es_stream_t *s)
{
    batch_t b = { .stream = s, .err = ES_OK };
    es_store_result_t result = { 0 };
    es_detail_t detail = { "" };
    es_err_t err;
    bool complete;

    es_buf_init(&b.text, TEXT_MAX);
    err = read_batch(s, &b, &result, &detail);
    complete = !result.reset || s->sent < s->forgiven;
    if (err == ES_OK && complete && b.text.n > 0) {
        s->pending = es_frame_make((es_str_t) { b.text.p, b.text.n });
        s->pending_off = 0;
        err = s->pending ? ES_OK : es_fail(&detail, ES_ENOMEM, "out of memory");
    }
    es_buf_free(&b.text);
    if (err != ES_OK) {
        es_log(&s->loop->config->log, ES_LOG_ERR, "ES0371", "a stream cannot be replayed: %s",
               detail.text);
        es_stream_loop_end(s, ES_END_ERROR);
        return false;
    }
    if (!complete) {
        es_stream_loop_end(s, ES_END_LAG);
        return false;
    }
    es_count(&s->loop->counters.deliveries, (int64_t)result.count);
    s->sent = result.more ? result.last : s->until;
    return true;
}

/* ---- where it stands ---- */

/* Do the logs have everything after `sent`? */
static bool logs_have_the_rest(const es_stream_t *s)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].channel->dropped > s->sent) {
            return false;
        }
    }
    return true;
}

static void go_live(es_stream_t *s, uint64_t now_ms)
{
    uint16_t i;

    if (missed_a_moment(s)) {
        es_stream_loop_end(s, ES_END_LAG);
        return;
    }
    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].cursor < s->subs[i].channel->tail) {
            s->subs[i].cursor = s->subs[i].channel->tail;
        }
    }
    s->replaying = false;
    es_replay_loop_leave(s);
    es_stream_loop_flush(s, now_ms);
}

/* Has a log dropped an order to close that the stream should have obeyed? The history has none. */
static bool missed_its_end(const es_stream_t *s)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].channel->closed > s->sent) {
            return true;
        }
    }
    return false;
}

/* False: nothing new is settled, or the stream has ended. */
static bool raise_until(es_stream_t *s)
{
    es_history_t *h = s->loop->history;
    const uint64_t least = s->sent > s->forgiven ? s->sent : s->forgiven;
    uint64_t settled;

    es_history_await(h, s->loop->number, s->loop->queue.wake);
    settled = es_history_settled(h);
    if (missed_its_end(s)) {
        es_stream_loop_end(s, ES_END_ACTION);
        return false;
    }
    if (settled <= s->until) {
        return false;
    }
    if (es_history_lost(h) > least) {
        es_stream_loop_end(s, ES_END_LAG);
        return false;
    }
    s->until = s->expired && s->final < settled ? s->final : settled;
    return true;
}

/* True: it can use another round. */
static bool step(es_stream_t *s, uint64_t now_ms)
{
    if (s->blocked) {
        return false;
    }
    if (!s->loop->history) { /* of a hub before, which had one */
        es_stream_loop_end(s, ES_END_LAG);
        return false;
    }
    if (s->pending) {
        es_stream_loop_flush(s, now_ms);
        if (s->state != ES_STREAM_LIVE || s->pending) {
            return false;
        }
    }
    if (s->sent < s->until && !next_batch(s)) {
        return false;
    }
    if (s->sent >= s->until && (logs_have_the_rest(s) || (s->expired && s->sent >= s->final))) {
        go_live(s, now_ms);
        return false;
    }
    if (s->sent >= s->until && !raise_until(s)) {
        if (s->state == ES_STREAM_LIVE) {
            es_stream_loop_flush(s, now_ms);
        }
        return false;
    }
    es_stream_loop_flush(s, now_ms);
    return s->state == ES_STREAM_LIVE && !s->blocked;
}

void es_replay_loop_pass(es_loop_t *loop, uint64_t now_ms)
{
    es_stream_t *s = loop->replaying, *next;
    bool busy = false;

    for (; s; s = next) {
        next = s->replay_next; /* a step ends or moves no stream but its own */
        busy = step(s, now_ms) || busy;
    }
    loop->replay_busy = busy;
}
