/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The take-over: the other end of handover.c. Before its own loops have threads, the next hub reads
 * what the one before has: messages that streams still have to get, the streams, the links.
 *
 * A message is kept by the name of its channel until a stream needs it: the first stream of a loop
 * on that channel fills the loop's log. Cursors count from the head, so they fit whatever the
 * number of loops was and is.
 *
 * What cannot be understood is logged and costs the one stream or link that it belongs to; a lost
 * message cuts the streams that need it. When the hub before breaks off, what has come is kept: it
 * is ours now, for that hub is dead or has ended the rest itself. When we break off we say so, and
 * it does the same. Only when this hub is told to stop it gives all back, without a word: the hub
 * before goes on.
 *
 * The intake's thread, the only one so far.
 */
#include "intake_int.h"

#include <apr_hash.h>
#include <apr_pools.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 30 * 1000 /* without any progress; the other end waits for less */ };

/* The messages of one channel, oldest first. */
typedef struct kept {
    char *name;
    es_log_entry_t *v; /* one reference each */
    size_t n, cap;
} kept_t;

typedef struct takeover {
    es_intake_t *intake;
    int from;
    es_wire_reader_t reader;
    apr_pool_t *pool;      /* of the table alone */
    apr_hash_t *table;     /* name to kept_t */
    es_stream_t *reserved; /* the last stream that came without a descriptor, for the next link */
    es_link_t *link;       /* the last link, for the next loose descriptor */
    kept_t *last;          /* of the message before */
    size_t streams, links, lost;
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

static kept_t *kept_for(takeover_t *t, es_str_t name)
{
    kept_t *k = apr_hash_get(t->table, name.p, (apr_ssize_t)name.n);

    if (k) {
        return k;
    }
    k = calloc(1, sizeof *k);
    if (!k) {
        return NULL;
    }
    k->name = es_memdup(name.p, name.n);
    if (!k->name) {
        free(k);
        return NULL;
    }
    apr_hash_set(t->table, k->name, (apr_ssize_t)name.n, k);
    return k;
}

static void kept_clear(kept_t *k)
{
    while (k->n > 0) {
        es_frame_unref(k->v[--k->n].frame);
    }
}

static void kept_free(kept_t *k)
{
    kept_clear(k);
    free(k->v);
    free(k->name);
    free(k);
}

static es_err_t keep(takeover_t *t, es_frame_t *frame, uint64_t order)
{
    kept_t *k = kept_for(t, (es_str_t) { frame->item->channel, frame->item->channel_len });

    if (k && k->n == k->cap) {
        const size_t cap = k->cap > 0 ? 2 * k->cap : 16;
        es_log_entry_t *grown = realloc(k->v, cap * sizeof *grown);

        if (!grown) {
            return ES_ENOMEM;
        }
        k->v = grown;
        k->cap = cap;
    }
    if (!k) {
        return ES_ENOMEM;
    }
    k->v[k->n++] = (es_log_entry_t) { .frame = frame, .order = order };
    t->last = k;
    if (order > t->intake->order) {
        t->intake->order = order;
    }
    return ES_OK;
}

/* After a message that is lost. The messages of a channel come one after the other, so it may
 * belong to the channel of the one before: what came of that is no longer the end of its log. A
 * stream that needs it is then cut, instead of missing one message. */
static void forget_last(takeover_t *t)
{
    if (t->last) {
        kept_clear(t->last);
    }
}

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
        err = keep(t, frame, order);
    }
    if (err != ES_OK) {
        es_frame_unref(frame);
        (void)es_fail(detail, err, "out of memory");
    }
    return err;
}

/* es_fill_t. The log begins at 1, so that there is a place before its tail for a stream that needs
 * more than came; what that was on a presence channel, no history has. Dirty until the first pass:
 * nobody empties it before all streams are on.
 */
static es_err_t fill(void *ctx, es_loop_t *loop, es_channel_t *channel)
{
    const takeover_t *t = ctx;
    const kept_t *k = apr_hash_get(t->table, channel->name, (apr_ssize_t)channel->name_len);
    es_err_t err = ES_OK;
    size_t i;

    channel->tail = 1;
    channel->head = 1;
    channel->fleeted = es_presence_of((es_str_t) { channel->name, channel->name_len }, NULL);
    channel->dirty = true;
    channel->next_dirty = loop->dirty;
    loop->dirty = channel;
    for (i = 0; k && i < k->n && err == ES_OK; i++) {
        es_frame_ref(k->v[i].frame, 1);
        err = es_channel_append(channel, k->v[i].frame, k->v[i].order, t->intake->config->max_lag);
    }
    return err;
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

/* Waits for bytes. ES_EAGAIN: none for too long, or this hub is told to stop. */
static es_err_t await(takeover_t *t)
{
    struct pollfd p[2] = { { .fd = t->from, .events = POLLIN },
                           { .fd = t->intake->config->stop, .events = POLLIN } };
    int n;

    do {
        n = poll(p, 2, PATIENCE_MS);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return ES_EIO;
    }
    t->stopped = p[1].revents != 0;
    return n == 0 || t->stopped ? ES_EAGAIN : ES_OK;
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
                forget_last(t);
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
        err = await(t);
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

static bool prepare(takeover_t *t)
{
    if (apr_pool_create(&t->pool, NULL) != APR_SUCCESS) {
        return false;
    }
    t->table = apr_hash_make(t->pool);
    es_wire_reader_init(&t->reader);
    return true;
}

static void clean_up(takeover_t *t)
{
    apr_hash_index_t *i;

    for (i = apr_hash_first(t->pool, t->table); i; i = apr_hash_next(i)) {
        kept_free(apr_hash_this_val(i));
    }
    apr_pool_destroy(t->pool);
    es_wire_reader_free(&t->reader);
}

void es_take_over(es_intake_t *intake, int predecessor)
{
    takeover_t t = { .intake = intake, .from = predecessor };
    es_detail_t detail = { "it broke off" };
    es_err_t err = ES_ENOMEM;

    if (prepare(&t)) {
        err = run(&t, &detail);
        drop_reserved(&t);
        clean_up(&t);
    }
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
