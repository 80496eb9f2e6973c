/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The take-over: the other end of handover.c. Before its own loops have threads, the next hub reads
 * what the one before has: messages that streams still have to get, the streams, the links.
 *
 * A message is kept (kept.c) until a stream needs it: the first stream of a loop on its channel
 * fills the loop's log. Cursors count from the head, so they fit whatever the
 * number of loops was and is.
 *
 * What cannot be understood is logged and costs the one stream or link that it belongs to; a lost
 * message cuts the streams that need it. When the hub before breaks off, what has come is kept: it
 * is ours now, for that hub is dead or has ended the rest itself. When we break off we say so, and
 * it does the same. Only when this hub is told to stop it gives all back, without a word: the hub
 * before goes on.
 *
 * A hub that died before it heard our knock closes nothing: the other end of `from` lies in the
 * door. So it is looked at now and then. One that is there and says nothing for long is killed: two
 * hubs must not serve.
 *
 * The intake's thread, the only one so far.
 */
#include "intake_int.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 30 * 1000, /* without any progress; the other end waits for less */
    LOOK_MS = 500            /* how often a hub that is silent is looked at */
};

typedef struct takeover {
    es_intake_t *intake;
    int from;
    es_wire_reader_t reader;
    es_kept_t *kept;       /* the messages that have come */
    es_stream_t *reserved; /* the last stream that came without a descriptor, for the next link */
    es_link_t *link;       /* the last link, for the next loose descriptor */
    size_t streams, links, lost;
    bool heard; /* the hub before has said something */
    bool done;
    bool stopped; /* this hub is told to stop, or not needed */
} takeover_t;

/* A payload of text, NUL, bytes. */
static es_err_t split(es_str_t payload, es_str_t *ret_text, es_str_t *ret_rest, es_detail_t *detail)
{
    const char *nul = payload.n > 0 ? memchr(payload.p, '\0', payload.n) : NULL;

    if (!nul) {
        return es_fail(detail, ES_EINVAL, "a payload without its NUL");
    }
    *ret_text = (es_str_t) { payload.p, (size_t)(nul - payload.p) };
    *ret_rest = (es_str_t) { nul + 1, payload.n - ret_text->n - 1 };
    return ES_OK;
}

/* A number that is not negative; -1: there is none. */
static json_int_t read_number(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

/* {"order": n, "instance": n}; -1: it has no instance. `*ret_fleeting`: it says so. */
static es_err_t read_order(es_str_t text, uint64_t *ret, json_int_t *ret_instance,
                           bool *ret_fleeting, es_detail_t *detail)
{
    json_t *o = json_loadb(text.p, text.n, 0, NULL);
    const json_int_t n = read_number(o, "order");

    *ret_instance = read_number(o, "instance");
    *ret_fleeting = json_is_true(json_object_get(o, "fleeting"));
    json_decref(o);
    if (n < 0) {
        return es_fail(detail, ES_EINVAL, "'order' is missing");
    }
    *ret = (uint64_t)n;
    return ES_OK;
}

/* ---- messages ---- */

static es_err_t on_frame(takeover_t *t, es_str_t payload, es_detail_t *detail)
{
    es_str_t text, packet;
    es_item_t *item = NULL;
    es_frame_t *frame;
    uint64_t order = 0;
    json_int_t instance = -1;
    bool fleeting = false;
    es_err_t err = split(payload, &text, &packet, detail);

    if (err == ES_OK) {
        err = read_order(text, &order, &instance, &fleeting, detail);
    }
    if (err == ES_OK) {
        err = es_item_from_kept(packet, &item, detail);
    }
    if (err != ES_OK) {
        return err;
    }
    frame = es_frame_from_item(item);
    err = frame ? ES_OK : ES_ENOMEM;
    if (err == ES_OK && instance >= 0) { /* its id is the one that it had */
        err = es_frame_add_event(frame, (uint64_t)instance, instance > 0 ? order : 0);
    }
    if (err == ES_OK) {
        frame->fleeting = fleeting;
        err = es_kept_add(t->kept, frame, order);
    }
    if (err == ES_OK && order > t->intake->order) {
        t->intake->order = order;
    }
    if (err != ES_OK) {
        es_frame_unref(frame);
        (void)es_fail(detail, err, "out of memory");
    }
    return err;
}

/* es_fill_t. The log begins at 1, so that there is a place before its tail for a stream that needs
 * more than came; what that was on a presence channel, no history has. Dirty until the first pass:
 * nobody empties it before all streams are on. */
static es_err_t fill(void *ctx, es_loop_t *loop, es_channel_t *channel)
{
    const takeover_t *t = ctx;

    channel->tail = 1;
    channel->head = 1;
    channel->fleeted = es_presence_of((es_str_t) { channel->name, channel->name_len }, NULL);
    channel->dirty = true;
    channel->next_dirty = loop->dirty;
    loop->dirty = channel;
    return es_kept_fill(t->kept, channel, t->intake->config->max_lag);
}

/* ---- streams and links ---- */

/* A reservation whose link did not come. */
static void drop_reserved(takeover_t *t)
{
    const es_command_t cmd = { .what = ES_ORDER_RELEASE, .fd = -1, .stream = t->reserved };

    if (t->reserved) {
        es_intake_command(t->intake, t->reserved->loop->number, &cmd);
        t->reserved = NULL;
    }
}

static es_err_t on_held(takeover_t *t, es_wire_message_t *m, es_detail_t *detail)
{
    es_str_t hold, rest;
    es_stream_t *s = NULL;
    es_err_t err = split(m->payload, &hold, &rest, detail);

    if (err == ES_OK) {
        drop_reserved(t); /* one that no link came for */
        err = es_intake_resume(t->intake, hold, m->fd, rest, fill, t, &s, detail);
    }
    if (err != ES_OK) {
        return err;
    }
    if (m->fd < 0) {
        t->reserved = s;
    }
    m->fd = -1;
    t->streams++;
    return ES_OK;
}

static es_err_t on_link(takeover_t *t, es_wire_message_t *m, es_detail_t *detail)
{
    es_wire_reader_t *r;

    t->link = es_link_open(t->intake, m->fd);
    m->fd = -1;
    if (!t->link) {
        drop_reserved(t);
        return es_fail(detail, ES_EFULL, "a link cannot be opened");
    }
    r = &t->link->reader;
    r->p = es_memdup(m->payload.p, m->payload.n);
    if (!r->p) {
        drop_reserved(t);
        es_link_close(t->intake, t->link);
        t->link = NULL;
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    r->n = m->payload.n;
    r->cap = m->payload.n;
    if (m->head.number != 1) {
        drop_reserved(t);
    }
    else {
        t->link->reserved = t->reserved;
        t->reserved = NULL;
    }
    t->links++;
    return ES_OK;
}

static es_err_t on_loose(takeover_t *t, es_wire_message_t *m, es_detail_t *detail)
{
    es_wire_reader_t *r = t->link ? &t->link->reader : NULL;

    if (!r || m->fd < 0 || r->fd_count == (int)(sizeof r->fds / sizeof r->fds[0])) {
        return es_fail(detail, ES_EINVAL, "a descriptor that belongs to nothing");
    }
    r->fds[r->fd_count++] = m->fd;
    m->fd = -1;
    return ES_OK;
}

/* What the logs of the hub before had no more, streams that replay take from the history: all up to
 * now, to be sure. */
static void forget_logs(es_intake_t *intake)
{
    es_channel_t *c;
    int i;

    for (i = 0; i < intake->loop_count; i++) {
        for (c = intake->loops[i].dirty; c; c = c->next_dirty) { /* each that was filled */
            c->dropped = intake->order;
        }
    }
}

/* From here on this hub serves, and says so: the other one forgets what it had. */
static es_err_t on_done(takeover_t *t, const es_wire_message_t *m, es_detail_t *detail)
{
    es_str_t text, stats;
    uint64_t order = 0;
    json_int_t instance = -1;
    bool fleeting = false;
    es_err_t err = split(m->payload, &text, &stats, detail);

    if (err == ES_OK) {
        err = read_order(text, &order, &instance, &fleeting, detail);
    }
    if (err == ES_OK && order > t->intake->order) {
        t->intake->order = order;
    }
    if (err == ES_OK && instance > 0) {
        t->intake->instance = (uint64_t)instance;
    }
    if (err == ES_OK) {
        es_stats_carry(t->intake, stats);
        es_presence_take_over(t->intake, text);
    }
    es_events_open(t->intake); /* the hub before has closed it */
    forget_logs(t->intake);
    t->done = true;
    return es_wire_reply(t->from, m->head.number, ES_OK, es_str(""));
}

static es_err_t take(takeover_t *t, es_wire_message_t *m, es_detail_t *detail)
{
    if (m->fd < 0 && (m->head.flags & ES_WIRE_FD)) {
        return es_fail(detail, ES_EFULL, "the limit of open files is reached");
    }
    switch ((es_wire_type_t)m->head.type) {
    case ES_WIRE_FRAME:
        return on_frame(t, m->payload, detail);
    case ES_WIRE_HELD:
        return on_held(t, m, detail);
    case ES_WIRE_LINK:
        return on_link(t, m, detail);
    case ES_WIRE_LOOSE:
        return on_loose(t, m, detail);
    case ES_WIRE_DONE:
        return on_done(t, m, detail);
    case ES_WIRE_ANSWER: /* to our knock: the hub that serves is of a newer configuration */
        t->done = true;
        t->stopped = true;
        return ES_OK;
    default:
        return es_fail(detail, ES_EINVAL, "a message of type %u", (unsigned)m->head.type);
    }
}

/* ---- the whole ---- */

static bool is_gone(pid_t pid)
{
    return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

/* Nothing came for too long. What was begun we break off; what was not, with a kill. */
static es_err_t lose_patience(const takeover_t *t, uint64_t waited, es_detail_t *detail)
{
    const pid_t pid = t->intake->config->predecessor_pid;

    if (!t->heard && pid > 0 && kill(pid, SIGKILL) == 0) {
        es_log(&t->intake->config->log, ES_LOG_ERR, "ES0345",
               "the hub before (pid %d) did not answer within %llu ms: it is killed, its streams "
               "end",
               (int)pid, (unsigned long long)waited);
    }
    return es_fail(detail, ES_EAGAIN, "nothing came for %llu ms", (unsigned long long)waited);
}

/* Waits for bytes. ES_EAGAIN: none for too long, or this hub is told to stop; ES_EIO: the hub
 * before is dead. */
static es_err_t await(takeover_t *t, es_detail_t *detail)
{
    struct pollfd p[2] = { { .fd = t->from, .events = POLLIN },
                           { .fd = t->intake->config->stop, .events = POLLIN } };
    const uint64_t most = t->intake->config->patience_ms;
    const uint64_t patience = most > 0 ? most : PATIENCE_MS;
    uint64_t waited;
    int n = 0;

    for (waited = 0; n == 0 && waited < patience; waited += LOOK_MS) {
        do {
            n = poll(p, 2, LOOK_MS);
        } while (n < 0 && errno == EINTR);
        if (n == 0 && !t->heard && is_gone(t->intake->config->predecessor_pid)) {
            return es_fail(detail, ES_EIO, "it died before it could give any");
        }
    }
    if (n < 0) {
        return ES_EIO;
    }
    if (n == 0) {
        return lose_patience(t, waited, detail);
    }
    t->stopped = p[1].revents != 0;
    t->heard = true;
    return t->stopped ? ES_EAGAIN : ES_OK;
}

/* Takes every whole message that has come. What is wrong with one is logged; only a stream of bytes
 * that cannot be cut into messages ends it. */
static es_err_t take_all(takeover_t *t, es_detail_t *detail)
{
    es_err_t err = ES_OK;

    while (err == ES_OK) {
        es_wire_message_t m;
        es_detail_t wrong = { "" };

        err = es_wire_next(&t->reader, &m, detail);
        if (err == ES_OK && take(t, &m, &wrong) != ES_OK) {
            t->lost++;
            if (m.head.type == ES_WIRE_FRAME) {
                es_kept_forget_last(t->kept);
            }
            es_log(&t->intake->config->log, ES_LOG_ERR, "ES0357",
                   "something of the hub before is lost: %s", wrong.text);
        }
        if (err == ES_OK && m.fd >= 0) {
            close(m.fd);
        }
    }
    return err == ES_EAGAIN ? ES_OK : err;
}

static es_err_t run(takeover_t *t, es_detail_t *detail)
{
    es_err_t err = ES_OK;

    while (err == ES_OK && !t->done) {
        err = await(t, detail);
        if (err != ES_OK) {
            return err;
        }
        err = es_wire_fill(t->from, &t->reader);
        if (err == ES_OK || err == ES_EFULL || err == ES_EAGAIN) {
            err = take_all(t, detail);
        }
    }
    return err;
}

void es_take_over(es_intake_t *intake, int predecessor)
{
    takeover_t t = { .intake = intake, .from = predecessor };
    es_detail_t detail = { "it broke off" };
    es_err_t err;

    es_wire_reader_init(&t.reader);
    err = es_kept_make(&t.kept);
    if (err == ES_OK) {
        err = run(&t, &detail);
        drop_reserved(&t);
    }
    es_kept_free(t.kept);
    es_wire_reader_free(&t.reader);
    if (t.stopped) {
        es_intake_forget_all(intake);
        close(predecessor);
        intake->done = true;
        return;
    }
    if (err != ES_OK || t.lost > 0) { /* somebody may not have come along */
        es_presence_owe_all(intake);
    }
    if (err == ES_OK) {
        es_log(&intake->config->log, ES_LOG_INFO, "ES0358",
               "took %zu streams and %zu links from the hub before", t.streams, t.links);
        (void)es_link_open(intake, predecessor); /* for its tail */
        return;
    }
    es_log(&intake->config->log, ES_LOG_ERR, "ES0359",
           "the hub before gave only %zu streams and %zu links: %s (%s)", t.streams, t.links,
           detail.text, es_err_name(err));
    if (err != ES_EIO) { /* it is there, and must not go on with what is ours */
        (void)es_wire_reply(predecessor, ES_DONE_NUMBER, err, es_str(""));
    }
    close(predecessor);
}
