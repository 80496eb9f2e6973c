/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `EventStreamGrip On`: the handler that runs before every other one and runs them inside itself.
 *
 *   es_grip_handler
 *     prepares the request (no Grip-*, no Accept-Encoding of the client; Grip-Sig, Grip-Feature)
 *     adds the GRIP filter
 *     ap_run_handler: mod_proxy, mod_wsgi, ... answer; the filter looks at what they send
 *     then, by the filter's state:
 *       PASS, WAIT   nothing of ours: what the inner handler returned
 *       STREAM       head and initial body are out: flush, the connection goes to the hub
 *       COLLECT      the whole body is here: understand it, send it, then as STREAM or done
 *       FAILED       an error page with ctx->failure
 *
 * mod_proxy's connection to the application has been given back by the time the stream is held.
 */
#include "es_httpd.h"

#include <stdlib.h>

ap_filter_rec_t *es_grip_filter_handle;

es_grip_ctx_t *es_grip_ctx(request_rec *r)
{
    return ap_get_module_config(r->request_config, &eventstream_module);
}

static apr_status_t ctx_cleanup(void *data)
{
    es_grip_ctx_t *ctx = data;

    es_instruct_free(ctx->in);
    es_buf_free(&ctx->body);
    return APR_SUCCESS;
}

static es_grip_ctx_t *wrap(request_rec *r)
{
    es_grip_ctx_t *ctx = apr_pcalloc(r->pool, sizeof *ctx);

    ctx->state = ES_GRIP_WAIT;
    ctx->accept_encoding = apr_table_get(r->headers_in, "Accept-Encoding");
    es_buf_init(&ctx->body, ES_MAX_PUBLISH_BODY);
    apr_pool_cleanup_register(r->pool, ctx, ctx_cleanup, apr_pool_cleanup_null);
    ap_set_module_config(r->request_config, &eventstream_module, ctx);
    es_headers_to_application(r, es_dir_conf(r));
    ap_add_output_filter_handle(es_grip_filter_handle, ctx, r, r->connection);
    return ctx;
}

/* ---- sending what was collected ---- */

/* Sends the collected body: with the end of the response, or flushed for a stream that goes on. */
static int send_body(request_rec *r, es_grip_ctx_t *ctx)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, alloc);
    const bool held = ctx->state == ES_GRIP_STREAM;

    if (ctx->body.n > 0) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_transient_create(ctx->body.p, ctx->body.n, alloc));
    }
    APR_BRIGADE_INSERT_TAIL(bb,
                            held ? apr_bucket_flush_create(alloc) : apr_bucket_eos_create(alloc));
    ap_pass_brigade(r->output_filters, bb); /* a client that left is seen in c->aborted */
    return held ? es_hold_start(r, ctx->hold) : OK;
}

/* An application/grip-instruct body is complete: it replaces the answer that it came in. */
static void read_instruct_body(request_rec *r, es_grip_ctx_t *ctx)
{
    es_instruct_t *in = NULL;
    es_response_t *response = NULL;
    es_detail_t detail;
    es_err_t err;

    if (r->status != HTTP_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0050) "the application's answer is refused: response code for "
                                    "application/grip-instruct content must be 200, it is %d",
                      r->status);
        es_grip_fail(r, ctx, HTTP_BAD_GATEWAY);
        return;
    }
    err = es_instruct_from_json(ctx->in, ctx->body.p ? ctx->body.p : "", ctx->body.n, &in,
                                &response, &detail);
    if (err != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0051) "the application's answer is refused: %s", detail.text);
        es_grip_fail(r, ctx, HTTP_BAD_GATEWAY);
        return;
    }
    es_instruct_free(ctx->in);
    ctx->in = in;
    es_headers_replace(r, response);
    es_buf_free(&ctx->body);
    if (es_buf_add(&ctx->body, response->body, response->body_len) != ES_OK) {
        es_grip_fail(r, ctx, HTTP_INTERNAL_SERVER_ERROR);
    }
    es_response_free(response);
}

/* The whole body is there. */
static void understand(request_rec *r, es_grip_ctx_t *ctx)
{
    es_detail_t detail;

    if (ctx->is_instruct_body) {
        read_instruct_body(r, ctx);
        if (ctx->state == ES_GRIP_FAILED) {
            return;
        }
        es_grip_decide(r, ctx);
    }
    if (ctx->state == ES_GRIP_STREAM || ctx->state == ES_GRIP_COLLECT) {
        ctx->state = ES_GRIP_STREAM;
        if (es_initial_render(ctx->in, &ctx->body, &detail) != ES_OK) {
            ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                          ESLOGNO(0052) "the initial body of a stream is refused: %s", detail.text);
            es_grip_fail(r, ctx, HTTP_BAD_GATEWAY);
        }
    }
}

/* ---- after the inner handler ---- */

static int finish_stream(request_rec *r, es_grip_ctx_t *ctx, int rc)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_bucket_brigade *bb;

    if (ctx->broken || (rc != OK && !ctx->complete)) {
        es_hold_release(ctx->hold);
        return rc;
    }
    bb = apr_brigade_create(r->pool, alloc);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(alloc));
    ap_pass_brigade(r->output_filters, bb);
    return es_hold_start(r, ctx->hold);
}

/* The answer was swallowed; httpd makes an error page of its own. */
static int finish_failed(request_rec *r, es_grip_ctx_t *ctx)
{
    es_headers_strip(r, NULL, false);
    apr_table_unset(r->headers_out, "Content-Length");
    apr_table_unset(r->headers_out, "Content-Encoding");
    r->status = HTTP_OK; /* else httpd takes it for an error within an error page */
    r->status_line = NULL;
    r->eos_sent = 0;           /* an end was sent, but only as far as our filter */
    ctx->state = ES_GRIP_PASS; /* for the error page */
    return ctx->failure;
}

int es_grip_handler(request_rec *r)
{
    const es_dir_conf_t *conf = es_dir_conf(r);
    es_grip_ctx_t *ctx;
    int rc;

    if (conf->grip != 1 || r->main || es_grip_ctx(r) ||
        (r->handler && strncmp(r->handler, "eventstream", 11) == 0)) {
        return DECLINED;
    }
    ctx = wrap(r);
    rc = ap_run_handler(r);
    if (ctx->state == ES_GRIP_COLLECT && (ctx->broken || (rc != OK && !ctx->complete))) {
        es_grip_fail(r, ctx, HTTP_BAD_GATEWAY);
    }
    if (ctx->state == ES_GRIP_COLLECT) {
        understand(r, ctx);
        if (ctx->state != ES_GRIP_FAILED) {
            return send_body(r, ctx);
        }
    }
    switch (ctx->state) {
    case ES_GRIP_STREAM:
        return finish_stream(r, ctx, rc);
    case ES_GRIP_FAILED:
        return finish_failed(r, ctx);
    default:
        return rc;
    }
}
