/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a connection: the one interface to the ways of doing it.
 *
 * - es_hold_reserve: the instruct goes to the hub, which fixes the cursors. From here on nothing
 *   that is published is missed.
 * - The head and the initial body are written through httpd's filters and flushed.
 * - es_hold_start: the connection goes to the hub.
 *
 * The way is chosen by what the connection is:
 *
 * - detach, plain HTTP/1.x: the socket itself goes to the hub; httpd forgets the connection.
 * - adopt, mod_ssl over HTTP/1.x: the relay thread takes socket and SSL object; httpd forgets it.
 * - pump, all else (HTTP/2, ...): this thread carries the bytes as long as the stream lives.
 *
 * To the hub each is a descriptor that it writes to.
 */
#include "es_httpd.h"

#include <stdlib.h>

typedef enum es_way { WAY_DETACH, WAY_ADOPT, WAY_PUMP } es_way_t;

struct es_hold_handle {
    es_way_t way;
    es_hublink_t *link; /* carries the reservation; NULL once it is used or given up */
    bool chunked;       /* the framing that the hub was told */
};

/* Will httpd write this answer in chunks? ap_set_keepalive decides by the same facts. */
static bool will_be_chunked(request_rec *r)
{
    return !r->connection->master && r->proto_num >= HTTP_VERSION(1, 1) &&
           !apr_table_get(r->subprocess_env, "downgrade-1.0") &&
           !apr_table_get(r->subprocess_env, "force-response-1.0");
}

static es_way_t choose_way(request_rec *r)
{
    return es_detach_possible(r) ? WAY_DETACH : es_adopt_possible(r) ? WAY_ADOPT : WAY_PUMP;
}

static apr_status_t release_with_pool(void *data)
{
    es_hold_release(data);
    return APR_SUCCESS;
}

static int status_of(es_err_t err)
{
    switch (err) {
    case ES_OK:
        return OK;
    case ES_EINVAL:
    case ES_ETOOBIG:
        return HTTP_BAD_GATEWAY;
    default:
        return HTTP_SERVICE_UNAVAILABLE;
    }
}

int es_hold_reserve(request_rec *r, const es_instruct_t *in, es_hold_native_t *native,
                    es_hold_handle_t **ret)
{
    es_hold_handle_t *hold = apr_pcalloc(r->pool, sizeof *hold);
    const es_way_t way = choose_way(r);
    es_delivery_t delivery = { .chunked = will_be_chunked(r),
                               .peer =
                                   apr_psprintf(r->pool, "%s:%d", r->useragent_ip,
                                                r->useragent_addr ? r->useragent_addr->port : 0),
                               .uri = r->uri,
                               .log = es_stream_log_facts(r),
                               .started_ms = (uint64_t)apr_time_as_msec(r->request_time) };
    const char *text = NULL;
    char *json = NULL;
    size_t len = 0;
    es_err_t err;

    if (native) {
        delivery.events = true;
        delivery.from = native->from;
        delivery.until_ms = native->until_ms;
        delivery.presence = native->presence;
        delivery.member = (char *)(uintptr_t)native->member;
        delivery.grace_ms = native->grace_ms;
    }
    err = es_hold_encode(in, &delivery, &json, &len);

    if (err == ES_OK) {
        err = es_hublink_call(r, ES_WIRE_RESERVE, (es_str_t) { json, len }, &text, &hold->link);
        free(json);
    }
    if (err == ES_EFULL) { /* the hub has warned of it, at a rate that does not fill the log */
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0090) "the hub is full: %s", text);
    }
    else if (err != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0041) "the hub refuses the stream: %s",
                      text && *text ? text : es_err_name(err));
    }
    if (err != ES_OK) {
        if (status_of(err) == HTTP_SERVICE_UNAVAILABLE) {
            apr_table_setn(r->err_headers_out, "Retry-After", "5");
        }
        return status_of(err);
    }
    if (native) {
        native->answer = text;
    }
    hold->way = way;
    hold->chunked = delivery.chunked;
    apr_pool_cleanup_register(r->pool, hold, release_with_pool, apr_pool_cleanup_null);
    *ret = hold;
    return OK;
}

void es_hold_release(es_hold_handle_t *hold)
{
    es_hublink_t *link = hold ? hold->link : NULL;

    if (link) {
        hold->link = NULL;
        es_hublink_give(link, es_hublink_tell(link, ES_WIRE_RELEASE, -1) == ES_OK);
    }
}

void es_hold_prepare(request_rec *r)
{
    apr_table_setn(r->subprocess_env, "no-gzip", "1");
    apr_table_setn(r->subprocess_env, "no-brotli", "1");
    ap_remove_output_filter_byhandle(r->output_filters, "CACHE_SAVE");
    r->no_local_copy = 1;
    r->expecting_100 = 0;
    r->clength = 0;
    /* Whether httpd writes chunks depends on this; a connection that was to be closed after the
     * answer would get none, and its end could not be told from a broken one. */
    r->connection->keepalive = AP_CONN_UNKNOWN;
}

/* The head is out. Is it framed as the hub was told? Over HTTP/2 there are no chunks. */
static bool framing_holds(request_rec *r, const es_hold_handle_t *hold)
{
    if (r->connection->master || r->chunked == (hold->chunked ? 1 : 0)) {
        return true;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                  ESLOGNO(0042) "the head went out %s chunks although %s was announced to the hub; "
                                "the connection is closed",
                  r->chunked ? "with" : "without", hold->chunked ? "chunked" : "raw");
    return false;
}

int es_hold_start(request_rec *r, es_hold_handle_t *hold)
{
    conn_rec *c = r->connection;
    es_hublink_t *link = hold->link;
    es_err_t err = ES_EINVAL;

    if (c->aborted) { /* the client left while the initial body was written */
        es_hold_release(hold);
        return OK;
    }
    hold->link = NULL;
    if (framing_holds(r, hold)) {
        err = hold->way == WAY_DETACH  ? es_detach(r, link)
              : hold->way == WAY_ADOPT ? es_adopt(r, link)
                                       : ES_EAGAIN;
        if (err == ES_EAGAIN) {
            return es_pump(r, link, hold->chunked);
        }
        if (err == ES_ENOENT) { /* the client left once it had the head: httpd says goodbye too */
            hold->link = link;
            es_hold_release(hold);
            c->keepalive = AP_CONN_CLOSE;
            return OK;
        }
        if (err != ES_OK) {
            ap_log_rerror(APLOG_MARK, APLOG_ERR, errno, r,
                          ESLOGNO(0043) "the connection cannot be handed to the hub");
        }
    }
    es_hublink_give(link, err == ES_OK);
    /* Handed over or lost: either way httpd must not write to it any more. An aborted connection is
     * closed without a shutdown, which would reach the hub's copy too. */
    c->keepalive = AP_CONN_CLOSE;
    c->aborted = 1;
    return OK;
}
