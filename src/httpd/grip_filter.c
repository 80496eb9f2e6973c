/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GRIP output filter: decides by the head of the application's answer what becomes of it.
 *
 *   WAIT ─┬─ no Grip-*, an error, no hold ─────────────▶ PASS      the filter takes itself out;
 * nothing is │                                                        buffered, nothing else
 * changed ├─ Grip-Hold: stream ─────────────────────────▶ STREAM    reserved in the hub; the
 * initial body goes │                                                        through as it comes,
 * its end does not ├─ ... and a content filter, or │  application/grip-instruct ─────────────────▶
 * COLLECT   the handler sends it (grip.c) └─ cannot be understood or not be held ───────▶ FAILED
 * swallowed; the handler answers
 *
 * It is a filter of type RESOURCE, so it sees the answer before compression does.
 */
#include "es_httpd.h"

void es_grip_fail(request_rec *r, es_grip_ctx_t *ctx, int status)
{
    (void)r;
    es_hold_release(ctx->hold);
    ctx->hold = NULL;
    ctx->failure = status;
    ctx->state = ES_GRIP_FAILED;
}

/* Responses that have no body cannot be held. */
static bool has_body(const request_rec *r)
{
    return !r->header_only && r->status >= 200 && r->status != HTTP_NO_CONTENT &&
           r->status != HTTP_NOT_MODIFIED;
}

/* A compressed initial body would need the client to inflate all that follows. Nobody asked for it;
 * when mod_deflate is there its INFLATE filter undoes it. True: INFLATE stands in front of us now.
 */
static bool inflate(request_rec *r)
{
    const char *coding = apr_table_get(r->headers_out, "Content-Encoding");

    if (!coding || ap_cstr_casecmp(coding, "identity") == 0) {
        return false;
    }
    if (ap_get_output_filter_handle("INFLATE") &&
        ap_add_output_filter("INFLATE", NULL, r, r->connection)) {
        return true;
    }
    ap_log_rerror(
        APLOG_MARK, APLOG_WARNING, 0, r,
        ESLOGNO(0060) "the application sent the start of a stream with Content-Encoding: %s; the "
                      "header is taken off, and without mod_deflate the bytes stay as they are",
        coding);
    return false;
}

void es_grip_decide(request_rec *r, es_grip_ctx_t *ctx)
{
    int rc;

    if (ctx->in->channels_over > 0) {
        ap_log_rerror(
            APLOG_MARK, APLOG_WARNING, 0, r,
            ESLOGNO(0061) "Grip-Channel: %u channels are over the limit of %d and are left out",
            (unsigned)ctx->in->channels_over, ES_MAX_CHANNELS);
    }
    es_headers_status(r, ctx->in->status, ctx->in->reason);
    if (ctx->in->hold == ES_HOLD_RESPONSE) {
        ap_log_rerror(
            APLOG_MARK, APLOG_ERR, 0, r,
            ESLOGNO(0062) "Grip-Hold: 'response' is not supported by this version; accepted is "
                          "'stream'");
        es_grip_fail(r, ctx, HTTP_NOT_IMPLEMENTED);
        return;
    }
    if (ctx->in->hold == ES_HOLD_NONE || !has_body(r)) {
        es_headers_strip(r, ctx->in, false);
        ctx->state = ES_GRIP_PASS;
        return;
    }
    rc = es_hold_reserve(r, ctx->in, NULL, &ctx->hold);
    if (rc != OK) {
        es_grip_fail(r, ctx, rc);
        return;
    }
    es_hold_prepare(r);
    ctx->state = es_initial_is_filtered(ctx->in) ? ES_GRIP_COLLECT : ES_GRIP_STREAM;
}

/* The head of the answer is in r; its first bytes are about to come. */
static void look_at_head(request_rec *r, es_grip_ctx_t *ctx)
{
    const char *type =
        r->content_type ? r->content_type : apr_table_get(r->headers_out, "Content-Type");
    es_detail_t detail;
    size_t n;
    const es_header_t *h;

    ctx->is_instruct_body = type && es_is_grip_instruct_type(type);
    if (!ctx->is_instruct_body && !es_headers_have_grip(r)) {
        ctx->state = ES_GRIP_PASS;
        return;
    }
    h = es_headers_of_answer(r, &n);
    if (es_instruct_from_headers(h, n, &ctx->in, &detail) != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0063) "the application's answer is refused: %s", detail.text);
        es_grip_fail(r, ctx, HTTP_BAD_GATEWAY);
        return;
    }
    if (ctx->is_instruct_body) {
        ctx->body.max = ES_MAX_INSTRUCT_BODY;
        ctx->state = ES_GRIP_COLLECT;
        return;
    }
    es_grip_decide(r, ctx);
}

/* An error of the inner handler's own (a backend that cannot be reached): not the application's
 * answer. */
static bool has_error(apr_bucket_brigade *bb)
{
    apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b)) {
        if (AP_BUCKET_IS_ERROR(b)) {
            return true;
        }
    }
    return false;
}

/* ---- the states ---- */

static apr_status_t pass_for_good(ap_filter_t *f, es_grip_ctx_t *ctx, apr_bucket_brigade *bb)
{
    if (ctx->accept_encoding) { /* filters below may compress what is not held */
        apr_table_setn(f->r->headers_in, "Accept-Encoding", ctx->accept_encoding);
    }
    ap_remove_output_filter(f);
    return ap_pass_brigade(f->next, bb);
}

/* Lets the initial body through; its end stays here. */
static apr_status_t pass_initial(ap_filter_t *f, es_grip_ctx_t *ctx, apr_bucket_brigade *bb)
{
    apr_bucket *b, *next;

    if (!ctx->stripped) {
        es_headers_strip(f->r, ctx->in, true);
        ctx->stripped = true;
    }
    if (has_error(bb)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, f->r,
                      ESLOGNO(0064) "the application's answer broke off: its stream is not held");
        ctx->broken = true;
        ap_remove_output_filter(f);
        return ap_pass_brigade(f->next, bb);
    }
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = next) {
        next = APR_BUCKET_NEXT(b);
        if (APR_BUCKET_IS_EOS(b)) {
            ctx->complete = true;
            apr_bucket_delete(b);
        }
    }
    if (APR_BRIGADE_EMPTY(bb)) {
        return APR_SUCCESS;
    }
    return ap_pass_brigade(f->next, bb);
}

static apr_status_t collect(ap_filter_t *f, es_grip_ctx_t *ctx, apr_bucket_brigade *bb)
{
    apr_status_t rv = APR_SUCCESS;
    apr_bucket *b;

    ctx->broken = ctx->broken || has_error(bb);
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb) && rv == APR_SUCCESS;
         b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t n;

        if (APR_BUCKET_IS_EOS(b)) {
            ctx->complete = true;
        }
        if (APR_BUCKET_IS_METADATA(b)) {
            continue;
        }
        rv = apr_bucket_read(b, &data, &n, APR_BLOCK_READ);
        if (rv == APR_SUCCESS && es_buf_add(&ctx->body, data, n) != ES_OK) {
            ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, f->r,
                          ESLOGNO(0065) "the application's answer is refused: its body has more "
                                        "than %" APR_SIZE_T_FMT " bytes and has to be read whole",
                          ctx->body.max);
            es_grip_fail(f->r, ctx, HTTP_BAD_GATEWAY);
            break;
        }
    }
    apr_brigade_cleanup(bb);
    return rv;
}

/* The first bytes are here. True: the brigade was sent on its way through a filter put in front. */
static bool decide(ap_filter_t *f, es_grip_ctx_t *ctx, apr_bucket_brigade *bb, apr_status_t *rv)
{
    if (has_error(bb)) {
        ctx->state = ES_GRIP_PASS;
        return false;
    }
    look_at_head(f->r, ctx);
    if ((ctx->state == ES_GRIP_STREAM || ctx->state == ES_GRIP_COLLECT) && inflate(f->r)) {
        *rv = ap_pass_brigade(f->r->output_filters, bb); /* comes back to es_grip_filter, decided */
        return true;
    }
    return false;
}

apr_status_t es_grip_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    es_grip_ctx_t *ctx = f->ctx;
    apr_status_t rv = APR_SUCCESS;

    if (!ctx) { /* SetOutputFilter GRIP: without the handler around the application there is nothing
                   to do */
        ap_remove_output_filter(f);
        return ap_pass_brigade(f->next, bb);
    }
    if (ctx->state == ES_GRIP_WAIT && (APR_BRIGADE_EMPTY(bb) || decide(f, ctx, bb, &rv))) {
        return rv;
    }
    switch (ctx->state) {
    case ES_GRIP_STREAM:
        return pass_initial(f, ctx, bb);
    case ES_GRIP_COLLECT:
        return collect(f, ctx, bb);
    case ES_GRIP_FAILED:
        apr_brigade_cleanup(bb);
        return APR_SUCCESS;
    default:
        return pass_for_good(f, ctx, bb);
    }
}
