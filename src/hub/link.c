/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links to httpd children, as the intake serves them. A link carries one request at a time, so it
 * holds at most one reservation. A link that breaks the protocol is closed with a log line; the
 * child opens another one. Closing gives up the reservation: a child that died between RESERVE and
 * HOLD leaves nothing.
 */
#include "intake_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

es_link_t *es_link_open(es_intake_t *intake, int fd)
{
    es_link_t *link = intake->link_count < ES_LINKS_MAX ? calloc(1, sizeof *link) : NULL;

    if (!link) {
        es_log(&intake->config->log, ES_LOG_ERR, "ES0310",
               "a link is refused: %zu are open, at most %d", intake->link_count, ES_LINKS_MAX);
        close(fd);
        return NULL;
    }
    link->source = (es_source_t) { ES_SOURCE_LINK, fd };
    es_wire_reader_init(&link->reader);
    link->next = intake->links;
    if (link->next) {
        link->next->prev = link;
    }
    intake->links = link;
    intake->link_count++;
    if (es_intake_watch(intake, &link->source) != ES_OK) {
        es_log(&intake->config->log, ES_LOG_ERR, "ES0311", "epoll refuses a link");
        es_link_close(intake, link);
        return NULL;
    }
    return link;
}

static void release(es_intake_t *intake, es_link_t *link)
{
    es_command_t cmd = { .what = ES_ORDER_RELEASE, .fd = -1, .stream = link->reserved };

    if (link->reserved) {
        es_intake_command(intake, link->reserved->loop->number, &cmd);
        link->reserved = NULL;
    }
}

void es_link_close(es_intake_t *intake, es_link_t *link)
{
    release(intake, link);
    if (link->prev) {
        link->prev->next = link->next;
    }
    else {
        intake->links = link->next;
    }
    if (link->next) {
        link->next->prev = link->prev;
    }
    intake->link_count--;
    es_wire_reader_free(&link->reader);
    es_buf_free(&link->parked_text);
    /* Not left to the close: a child (or what it forked) may still have a copy of this end. */
    (void)epoll_ctl(intake->epoll, EPOLL_CTL_DEL, link->source.fd, NULL);
    close(link->source.fd);
    free(link);
}

/* ES_EFULL: the answer did not fit, so the link is of no use any more. Not ES_EAGAIN, which means
 * to the caller that the next message is not there yet. */
static es_err_t answer(es_link_t *link, const es_wire_message_t *m, es_err_t code, es_str_t text)
{
    const es_err_t err = es_wire_reply(link->source.fd, m->head.number, code, text);

    return err == ES_EAGAIN ? ES_EFULL : err;
}

/* The same with a text that was made for it, if it was. */
static es_err_t answer_made(es_link_t *link, const es_wire_message_t *m, es_buf_t *text,
                            es_err_t made)
{
    es_err_t err;

    if (made == ES_OK) {
        err = answer(link, m, ES_OK, (es_str_t) { text->p, text->n });
    }
    else {
        err = answer(link, m, made, es_str("the hub is out of memory"));
    }
    es_buf_free(text);
    return err;
}

/* Delivered, but it was not kept: ES_EFULL says that, the text says why. */
static es_err_t answer_not_kept(es_link_t *link, uint32_t number, const es_detail_t *why)
{
    const es_err_t err = es_wire_reply(link->source.fd, number, ES_EFULL, es_str(why->text));

    return err == ES_EAGAIN ? ES_EFULL : err;
}

/* Where an event stream begins. Without an answer nobody would hold it. */
static es_err_t answer_reserved(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m,
                                es_buf_t *text)
{
    const es_err_t made = es_events_reserved(intake, link->reserved, text);

    if (made != ES_OK) {
        release(intake, link);
    }
    return answer_made(link, m, text, made);
}

/* The answer waits until the history has settled all up to now. Until then the link is not read;
 * takes `text`. */
static void park(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m, uint64_t first,
                 es_buf_t *text)
{
    struct epoll_event ev = { .events = 0, .data.ptr = &link->source };

    link->parked = true;
    link->parked_type = m->head.type;
    link->parked_number = m->head.number;
    link->parked_first = first;
    link->parked_last = intake->order;
    link->parked_text = *text;
    (void)epoll_ctl(intake->epoll, EPOLL_CTL_MOD, link->source.fd, &ev);
    if (es_history_settled(intake->history) >= link->parked_last) {
        (void)eventfd_write(intake->history_source.fd, 1); /* nothing would wake us for it */
    }
}

static es_err_t on_reserve(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    es_detail_t detail = { "" };
    es_buf_t out;
    es_err_t err;

    es_buf_init(&out, ES_WIRE_MAX);
    release(intake, link);
    err = es_intake_reserve(intake, m->payload, &link->reserved, &detail);
    if (err != ES_OK || !link->reserved->events) {
        return answer(link, m, err, es_str(detail.text));
    }
    if (intake->history &&
        link->reserved->from) { /* where that is in the history, when it has all */
        park(intake, link, m, intake->order + 1, &out);
        return ES_OK;
    }
    return answer_reserved(intake, link, m, &out);
}

static es_err_t on_hold(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    const es_command_t cmd = { .what = ES_ORDER_HOLD, .fd = m->fd, .stream = link->reserved };

    if (!link->reserved || m->fd < 0) {
        return ES_EINVAL;
    }
    es_intake_command(intake, link->reserved->loop->number, &cmd);
    es_presence_join(intake, link->reserved);
    link->reserved = NULL;
    return ES_OK;
}

static es_err_t on_publish(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    es_detail_t detail = { "" };
    es_items_t items = { 0 };
    es_err_t err = es_items_from_json(m->payload.p, m->payload.n, &items, &detail);
    es_published_t *told;
    const uint64_t first = intake->order + 1;
    es_buf_t out;
    size_t i;

    if (err != ES_OK) {
        intake->refused++;
        return answer(link, m, err, es_str(detail.text));
    }
    told = calloc(items.n + 1, sizeof *told);
    if (!told) {
        es_items_free(&items);
        return answer(link, m, ES_ENOMEM, es_str("the hub is out of memory"));
    }
    for (i = 0; i < items.n; i++) {
        es_intake_publish_item(intake, items.v[i], &told[i]);
        items.v[i] = NULL;
    }
    es_buf_init(&out, ES_WIRE_MAX);
    err = es_events_published(intake, told, items.n, &out);
    es_items_free(&items);
    free(told);
    if (err == ES_OK && intake->history) {
        park(intake, link, m, first, &out);
        return ES_OK;
    }
    if (err == ES_OK && intake->history_broken.text[0]) {
        es_buf_free(&out);
        return answer_not_kept(link, m->head.number, &intake->history_broken);
    }
    return answer_made(link, m, &out, err);
}

static es_err_t on_info(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    es_detail_t detail = { "the hub is out of memory" };
    es_buf_t out;
    es_err_t err;

    es_buf_init(&out, ES_WIRE_MAX);
    err = es_events_info(intake, m->payload, &out, &detail);
    if (err != ES_OK) {
        es_buf_free(&out);
        return answer(link, m, err, es_str(detail.text));
    }
    return answer_made(link, m, &out, err);
}

static es_err_t on_clear(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    es_detail_t detail = { "" };
    es_buf_t none;
    const es_err_t err = es_events_clear(intake, m->payload, &detail);

    if (err != ES_OK) {
        return answer(link, m, err, es_str(detail.text));
    }
    es_buf_init(&none, 0);
    park(intake, link, m, intake->order, &none);
    return ES_OK;
}

static es_err_t on_stats(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    enum { STATS_MAX = 64 * 1024 };
    es_buf_t out;

    es_buf_init(&out, STATS_MAX);
    return answer_made(link, m, &out,
                       es_stats_render(intake, es_str_is(m->payload, "prometheus"), &out));
}

/* From the tail of a hub before. What is wrong with the packet is no fault of the link's. */
static es_err_t on_packet(es_intake_t *intake, es_link_t *link, const es_wire_message_t *m)
{
    es_pull_packet(intake, "EventStreamPull, by way of a hub before", m->payload);
    return answer(link, m, ES_OK, es_str(""));
}

/* Anything but ES_OK closes the link. A descriptor that no message wanted is closed here. */
static es_err_t serve(es_intake_t *intake, es_link_t *link, es_wire_message_t *m)
{
    es_err_t err;

    switch ((es_wire_type_t)m->head.type) {
    case ES_WIRE_HOLD:
        err = on_hold(intake, link, m);
        if (err == ES_OK) {
            return ES_OK; /* the descriptor is the loop's */
        }
        break;
    case ES_WIRE_RESERVE:
        err = on_reserve(intake, link, m);
        break;
    case ES_WIRE_RELEASE:
        release(intake, link);
        err = ES_OK;
        break;
    case ES_WIRE_PUBLISH:
        err = on_publish(intake, link, m);
        break;
    case ES_WIRE_STATS:
        err = on_stats(intake, link, m);
        break;
    case ES_WIRE_INFO:
        err = on_info(intake, link, m);
        break;
    case ES_WIRE_CLEAR:
        err = on_clear(intake, link, m);
        break;
    case ES_WIRE_PACKET:
        err = on_packet(intake, link, m);
        break;
    default: /* the others are no requests */
        err = ES_EINVAL;
        break;
    }
    if (m->fd >= 0) {
        close(m->fd);
    }
    return err;
}

/* Serves what is there. ES_EAGAIN: all that was whole, or it waits for the history. */
static es_err_t serve_all(es_intake_t *intake, es_link_t *link, es_detail_t *detail)
{
    es_wire_message_t m;
    es_err_t err = ES_OK;

    while (err == ES_OK) {
        err = link->parked ? ES_EAGAIN : es_wire_next(&link->reader, &m, detail);
        if (err == ES_OK) {
            err = serve(intake, link, &m);
        }
    }
    return err;
}

static void fail(es_intake_t *intake, es_link_t *link, es_err_t err, bool no_files,
                 es_detail_t *detail)
{
    if (err == ES_EFULL) {
        (void)es_fail(detail, err, "%s",
                      no_files ? "the limit of open files is reached"
                               : "it does not read its answers");
    }
    if (err != ES_EIO && es_tame_admits(intake, &intake->bad_links)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0312", "a child's link is closed: %s (%s)",
               detail->text, es_err_name(err));
    }
    es_link_close(intake, link);
}

void es_link_readable(es_intake_t *intake, es_link_t *link)
{
    es_detail_t detail = { "its messages are out of order" };
    es_err_t filled, err;

    if (link->parked) { /* it is not read: this is its end */
        es_link_close(intake, link);
        return;
    }
    filled = es_wire_fill(link->source.fd, &link->reader);
    err = filled == ES_OK ? serve_all(intake, link, &detail) : filled;
    if (err != ES_EAGAIN) { /* else the rest of a message, or the next request, comes later */
        fail(intake, link, err, filled == ES_EFULL, &detail);
    }
}

/* What the parked request is answered. */
static es_err_t answer_parked(es_intake_t *intake, es_link_t *link)
{
    es_wire_message_t m = { .head = { .number = link->parked_number }, .fd = -1 };
    es_buf_t text = link->parked_text;
    es_detail_t why = { "" };
    es_err_t code = ES_OK;

    es_buf_init(&link->parked_text, 0);
    if (link->parked_type == ES_WIRE_RESERVE) {
        return answer_reserved(intake, link, &m, &text);
    }
    code = es_history_result(intake->history, link->parked_first, link->parked_last, &why);
    if (code == ES_OK && link->parked_type == ES_WIRE_PUBLISH) {
        return answer_made(link, &m, &text, ES_OK);
    }
    es_buf_free(&text);
    return link->parked_type == ES_WIRE_PUBLISH ? answer_not_kept(link, link->parked_number, &why)
                                                : answer(link, &m, code, es_str(why.text));
}

void es_link_settled(es_intake_t *intake, es_link_t *link)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &link->source };
    es_detail_t detail = { "its messages are out of order" };
    es_err_t err;

    if (!link->parked || es_history_settled(intake->history) < link->parked_last) {
        return;
    }
    link->parked = false;
    err = answer_parked(intake, link);
    if (err == ES_OK && epoll_ctl(intake->epoll, EPOLL_CTL_MOD, link->source.fd, &ev) != 0) {
        err = ES_ENOMEM;
    }
    if (err == ES_OK) {
        err = intake->history_closing ? ES_EAGAIN : serve_all(intake, link, &detail);
    }
    if (err != ES_EAGAIN) {
        fail(intake, link, err, false, &detail);
    }
}
