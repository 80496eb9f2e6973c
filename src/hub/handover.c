/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over: at a restart this hub gives all that it has to the next one (es_wire.h names the
 * messages; takeover.c is the other end).
 *
 *   1. nothing more is read: links, door and new ZeroMQ publishers wait for the next hub
 *   2. the loops write what their sockets take, and leave their threads; their streams stay
 *   3. messages that somebody still has to get, then streams, then links, then DONE
 *   4. ANSWER: the next hub serves; here everything is forgotten
 *
 * All that was answered before 1 is in a log, and all that was not is in a socket that is handed
 * over, so a publish reaches each stream once, and in its place.
 *
 * Until 4 nothing is given up. When the next hub dies before, the loops start again and clients
 * have noticed a pause. When it says that it goes on with what has come, or does not answer in time
 * and nobody can say which streams it serves, those that it was not sent end here, and this hub
 * with them. What cannot be sent for a reason of its own costs the one stream or link.
 *
 * The intake's thread; from 2 to 4 the only one.
 */
#include "intake_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 20 * 1000 /* without any progress */
};

typedef struct handover {
    es_intake_t *intake;
    int heir;
    es_buf_t buf; /* the payload that is being made */
} handover_t;

static es_err_t send_buf(handover_t *h, es_wire_type_t type, uint32_t number, int fd)
{
    return es_wire_send(h->heir, type, number, (es_str_t) { h->buf.p, h->buf.n }, fd, PATIENCE_MS);
}

/* ---- messages ---- */

static es_err_t send_frame(handover_t *h, const es_log_entry_t *e)
{
    es_err_t err;

    h->buf.n = 0;
    err = es_buf_addf(&h->buf, "{\"order\": %llu", (unsigned long long)e->order);
    if (err == ES_OK && e->frame->event) {
        err = es_buf_addf(&h->buf, ", \"instance\": %llu", (unsigned long long)e->frame->instance);
    }
    if (err == ES_OK && e->frame->fleeting) {
        err = es_buf_addf(&h->buf, ", \"fleeting\": true");
    }
    if (err == ES_OK) {
        err = es_buf_add(&h->buf, "}", 2);
    }
    if (err == ES_OK) {
        err = es_item_to_packet(e->frame->item, es_frame_content(e->frame), &h->buf);
    }
    return err == ES_OK ? send_buf(h, ES_WIRE_FRAME, 0, -1) : err;
}

/* Every loop has a log of its own, and each is the end of the same sequence: the longest has what
 * any stream needs. */
static es_err_t send_channel(void *ctx, const es_entry_t *entry)
{
    handover_t *h = ctx;
    const es_channel_t *longest = NULL;
    es_err_t err = ES_OK;
    uint64_t at;
    int i;

    for (i = 0; i < h->intake->loop_count; i++) {
        const es_channel_t *c = entry->loop[i].channel;

        if (c && (!longest || c->head - c->tail > longest->head - longest->tail)) {
            longest = c;
        }
    }
    for (at = longest ? longest->tail : 0; longest && at < longest->head && err == ES_OK; at++) {
        err = send_frame(h, es_channel_at(longest, at));
    }
    return err;
}

/* ---- streams ---- */

/* The instruct that the stream came from, as far as it still matters. Everything in it stays the
 * stream's. */
static void describe(es_stream_t *s, es_instruct_t *in, es_sub_spec_t *specs, es_resume_t *resume)
{
    const es_str_t keep_alive =
        s->keep_alive ? es_frame_content(s->keep_alive) : (es_str_t) { NULL, 0 };
    uint16_t i;

    memset(in, 0, sizeof *in);
    in->hold = ES_HOLD_STREAM;
    in->channels = specs;
    in->channel_count = s->sub_count;
    in->keep_alive = (char *)(uintptr_t)keep_alive.p;
    in->keep_alive_len = keep_alive.n;
    in->keep_alive_timeout = (int)(s->keep_alive_ms / 1000);
    in->keep_alive_mode = (es_keep_alive_mode_t)s->keep_alive_mode;
    in->meta = s->meta;
    for (i = 0; i < s->sub_count; i++) {
        const es_sub_t *sub = &s->subs[i];

        specs[i] = (es_sub_spec_t) { .name = sub->channel->name,
                                     .name_len = sub->channel->name_len,
                                     .filter_count = sub->filter_count };
        /* An id of other bytes does not fit into JSON; the next message brings another one. */
        if (sub->last_id && es_text_is_utf8(es_str(sub->last_id))) {
            specs[i].prev_id = sub->last_id;
        }
        memcpy(specs[i].filters, sub->filters, sizeof specs[i].filters);
        resume->behind[i] = sub->channel->head - sub->cursor;
        resume->continuous[i] = sub->continuous;
    }
}

/* What its client still has to get of a message that was written in part. */
static es_str_t rest_of(const es_stream_t *s)
{
    es_str_t rest = { "", 0 };

    if (s->pending && s->pending != es_frame_terminator()) {
        rest = es_frame_bytes(s->pending, s->chunked);
        rest.p += s->pending_off;
        rest.n -= s->pending_off;
    }
    return rest;
}

static es_err_t send_stream(handover_t *h, es_stream_t *s)
{
    const uint64_t now_ms = es_now(h->intake->config);
    const es_str_t rest = rest_of(s);
    es_resume_t resume = { .bytes = s->bytes,
                           .idle = now_ms > s->last_ms ? now_ms - s->last_ms : 0,
                           .due = s->keep_alive_due > now_ms ? s->keep_alive_due - now_ms : 0,
                           .stalled = s->stalled_ms > 0 ? now_ms - s->stalled_ms : 0,
                           .replaying = s->replaying,
                           .sent = s->sent,
                           .until = s->until,
                           .forgiven = s->forgiven,
                           .final = s->expired ? s->final + 1 : 0 };
    es_delivery_t delivery = { .chunked = s->chunked,
                               .peer = s->peer,
                               .uri = s->uri,
                               .log = s->log,
                               .started_ms = s->started_ms,
                               .events = s->events,
                               .until_ms = s->expires_ms,
                               .presence = s->attendee != NULL,
                               .resume = &resume };
    es_sub_spec_t specs[ES_MAX_CHANNELS];
    es_instruct_t in;
    char *text = NULL;
    size_t len = 0;
    es_err_t err;

    if (s->pending == es_frame_terminator()) {
        resume.ending = s->pending_off + 1;
    }
    delivery.member = (char *)(uintptr_t)es_presence_name(s, &delivery.grace_ms);
    describe(s, &in, specs, &resume);
    err = es_hold_encode(&in, &delivery, &text, &len);
    if (err != ES_OK) {
        return err;
    }
    h->buf.n = 0;
    err = es_buf_add(&h->buf, text, len + 1);
    free(text);
    if (err == ES_OK) {
        err = es_buf_add(&h->buf, rest.p, rest.n);
    }
    if (err == ES_OK) {
        err = send_buf(h, ES_WIRE_HELD, 0, s->fd);
    }
    s->handed = err == ES_OK;
    return err;
}

/* What is no fault of the way to the next hub must not cost the others: this one is left out, and
 * its client finds its connection closed. */
static es_err_t leave_out(const handover_t *h, const char *what, const char *peer, es_err_t err)
{
    if (err == ES_OK || err == ES_EIO || err == ES_EAGAIN) {
        return err;
    }
    es_log(&h->intake->config->log, ES_LOG_ERR, "ES0350", "%s %s cannot be handed over: %s", what,
           peer ? peer : "?", es_err_name(err));
    return ES_OK;
}

static es_err_t send_streams(handover_t *h)
{
    es_err_t err = ES_OK;
    es_stream_t *s;
    int i;

    for (i = 0; i < h->intake->loop_count; i++) {
        for (s = h->intake->loops[i].streams; s && err == ES_OK; s = s->next) {
            if (s->state == ES_STREAM_LIVE) {
                err = send_stream(h, s);
                if (err != ES_OK) {
                    es_presence_doubt(h->intake, s);
                }
                err = leave_out(h, "the stream to", s->peer, err);
            }
        }
    }
    return err;
}

/* ---- links ---- */

static es_err_t send_link(handover_t *h, es_link_t *link)
{
    es_err_t err = ES_OK;
    int i;

    if (link->reserved && link->reserved->refused) {
        return ES_OK; /* ends with us, and so does its request */
    }
    if (link->reserved) {
        err = send_stream(h, link->reserved);
    }
    if (err == ES_OK) {
        h->buf.n = 0;
        err = es_buf_add(&h->buf, link->reader.p + link->reader.taken,
                         link->reader.n - link->reader.taken);
    }
    if (err == ES_OK) {
        err = send_buf(h, ES_WIRE_LINK, link->reserved ? 1 : 0, link->source.fd);
    }
    h->buf.n = 0;
    for (i = 0; i < link->reader.fd_count && err == ES_OK; i++) {
        err = send_buf(h, ES_WIRE_LOOSE, 0, link->reader.fds[i]);
    }
    return err;
}

static es_err_t send_links(handover_t *h)
{
    es_err_t err = ES_OK;
    es_link_t *link;

    for (link = h->intake->links; link && err == ES_OK; link = link->next) {
        err = leave_out(h, "the link of", "a child", send_link(h, link));
    }
    return err;
}

static es_err_t send_done(handover_t *h)
{
    const es_intake_t *intake = h->intake;
    es_err_t err;

    h->buf.n = 0;
    err = es_buf_addf(&h->buf, "{\"order\": %llu, \"instance\": %llu, \"event\": %llu",
                      (unsigned long long)intake->order, (unsigned long long)intake->instance,
                      (unsigned long long)intake->event);
    if (err == ES_OK) {
        err = es_presence_owed(h->intake, &h->buf);
    }
    if (err == ES_OK) {
        err = es_buf_add(&h->buf, "}", 2);
    }
    if (err == ES_OK) {
        err = es_stats_render(h->intake, false, &h->buf);
    }
    return err == ES_OK ? send_buf(h, ES_WIRE_DONE, ES_DONE_NUMBER, -1) : err;
}

/* ---- the whole ---- */

static es_err_t send_all(handover_t *h)
{
    es_err_t err = es_registry_each(h->intake->registry, send_channel, h);

    if (err == ES_OK) {
        err = send_streams(h);
    }
    if (err == ES_OK) {
        err = send_links(h);
    }
    return err == ES_OK ? send_done(h) : err;
}

/* The next hub closed its end: ES_EIO and errno. */
static bool is_gone(es_err_t err)
{
    return err == ES_EIO && (errno == EPIPE || errno == ECONNRESET);
}

/* ES_OK: it has everything. ES_EIO: it went without a word. Else: it goes on with what it has. */
static es_err_t await_word(int heir, int timeout_ms)
{
    es_err_t code = ES_OK;
    char *text = NULL;
    size_t len = 0;
    const es_err_t err = es_wire_answer(heir, ES_DONE_NUMBER, timeout_ms, &code, &text, &len);

    if (err != ES_OK) {
        return err;
    }
    free(text);
    return code == ES_EIO ? ES_EINVAL : code;
}

static es_err_t send_and_wait(handover_t *h)
{
    es_err_t err = send_all(h);

    if (err == ES_OK) {
        return await_word(h->heir, PATIENCE_MS);
    }
    if (is_gone(err)) { /* if it gave a word before, that still waits */
        const es_err_t word = await_word(h->heir, 0);

        err = word == ES_OK ? ES_EINVAL : word;
    }
    return err;
}

/* The next hub has everything: here it goes without a word to anybody. */
static void let_go(es_intake_t *intake)
{
    es_intake_forget_all(intake);
    if (intake->config->leaves) {
        intake->config->leaves(intake->config->life_ctx);
    }
}

/* The next hub is dead: as if nothing had been. When that fails every stream ends here. */
static es_err_t go_on(es_intake_t *intake)
{
    es_stream_t *s;
    int i;

    for (i = 0; i < intake->loop_count; i++) {
        for (s = intake->loops[i].streams; s; s = s->next) {
            s->handed = false;
        }
    }
    es_events_open(intake);
    es_pull_rebind(intake);
    return es_intake_start_loops(intake) == ES_OK ? ES_EIO : ES_EAGAIN;
}

/* What the next hub may be serving by now must not be touched; the others end with this hub. */
static void forget_handed(es_intake_t *intake)
{
    es_stream_t *s, *next;
    int i;

    for (i = 0; i < intake->loop_count; i++) {
        for (s = intake->loops[i].streams; s; s = next) {
            next = s->next;
            if (s->handed) {
                es_stream_loop_forget(s);
            }
        }
    }
}

es_err_t es_hand_over(es_intake_t *intake, int heir)
{
    handover_t h = { .intake = intake, .heir = heir };
    const uint64_t began_ms = es_now(intake->config);
    size_t streams = 0;
    es_err_t err;
    bool gone;
    int i;

    es_buf_init(&h.buf, ES_WIRE_MAX);
    es_pull_unbind(intake);
    es_intake_join_loops(intake, ES_ORDER_HALT);
    es_intake_take_back(intake);
    es_events_close(intake); /* answers what waits; the next hub opens the history */
    for (i = 0; i < intake->loop_count; i++) {
        streams += intake->loop_load[i];
    }
    err = send_and_wait(&h);
    gone = is_gone(err);
    if (err != ES_OK) { /* before anything changes errno */
        es_log(&intake->config->log, ES_LOG_ERR, "ES0356",
               "the hand-over of %zu streams to the next hub failed: %s%s%s", streams,
               es_err_name(err), err == ES_EIO ? ", " : "", err == ES_EIO ? strerror(errno) : "");
    }
    es_buf_free(&h.buf);
    if (err == ES_OK) {
        let_go(intake);
        es_log(&intake->config->log, ES_LOG_INFO, "ES0355",
               "%zu streams were handed to the next hub, within %llu ms", streams,
               (unsigned long long)(es_now(intake->config) - began_ms));
        return ES_OK;
    }
    if (gone) {
        return go_on(intake);
    }
    forget_handed(intake);
    return err == ES_EIO ? ES_EAGAIN : err;
}
