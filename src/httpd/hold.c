/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a connection: the one interface to the ways of doing it.
 *
 *   es_hold_reserve   the instruct goes to the hub, which fixes the cursors: from here on nothing
 * that is published is missed (the head and the initial body are written through httpd's filters
 * and flushed) es_hold_start     the connection goes to the hub
 *
 * How it goes depends on what it is. Plain HTTP/1.x is detached (detach.c). Connections that are
 * encrypted or multiplexed cannot be handed over as a socket; they are refused before anything is
 * written.
 */
#include "es_httpd.h"

#include <stdlib.h>

struct es_hold_handle {
    request_rec *r;
    es_hublink_t *link; /* carries the reservation; NULL once it is used or given up */
    bool chunked;       /* the framing that the hub was told */
};

/* Will httpd write this answer in chunks? ap_set_keepalive decides by the same facts. */
static bool will_be_chunked(request_rec *r)
{
    return r->proto_num >= HTTP_VERSION(1, 1) &&
           !apr_table_get(r->subprocess_env, "downgrade-1.0") &&
           !apr_table_get(r->subprocess_env, "force-response-1.0");
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

int es_hold_reserve(request_rec *r, const es_instruct_t *in, es_hold_handle_t **ret)
{
    es_hold_handle_t *hold = apr_pcalloc(r->pool, sizeof *hold);
    es_delivery_t delivery = { .chunked = will_be_chunked(r),
                               .peer =
                                   apr_psprintf(r->pool, "%s:%d", r->useragent_ip,
                                                r->useragent_addr ? r->useragent_addr->port : 0),
                               .uri = r->uri };
    const char *why = NULL, *text = NULL;
    char *json = NULL;
    size_t len = 0;
    es_err_t err;

    if (!es_detach_possible(r, &why)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0040) "the stream is refused: %s; this version holds plain HTTP/1.x "
                                    "connections",
                      why);
        return HTTP_NOT_IMPLEMENTED;
    }
    err = es_hold_encode(in, &delivery, &json, &len);
    if (err == ES_OK) {
        err = es_hublink_call(r, ES_WIRE_RESERVE, (es_str_t) { json, len }, &text, &hold->link);
        free(json);
    }
    if (err != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0041) "the hub refuses the stream: %s",
                      text && *text ? text : es_err_name(err));
        if (status_of(err) == HTTP_SERVICE_UNAVAILABLE) {
            apr_table_setn(r->err_headers_out, "Retry-After", "5");
        }
        return status_of(err);
    }
    hold->r = r;
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

int es_hold_start(request_rec *r, es_hold_handle_t *hold)
{
    conn_rec *c = r->connection;
    es_hublink_t *link = hold->link;
    es_err_t err;

    if (c->aborted) { /* the client left while the initial body was written */
        es_hold_release(hold);
        return OK;
    }
    hold->link = NULL;
    if (r->chunked != (hold->chunked ? 1 : 0)) {
        ap_log_rerror(
            APLOG_MARK, APLOG_ERR, 0, r,
            ESLOGNO(0042) "the head went out %s chunks although %s was announced to the hub; "
                          "the connection is closed",
            r->chunked ? "with" : "without", hold->chunked ? "chunked" : "raw");
        err = ES_EINVAL;
    }
    else {
        err = es_detach(r, link);
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
