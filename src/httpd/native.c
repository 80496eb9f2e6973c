/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `SetHandler eventstream`: a URL whose answer is an event stream, without asking an application.
 *
 *   GET      reads the request, asks who may, reserves a stream in the hub, writes the head and
 *            what each stream begins with, and gives the connection to the hub (hold.c)
 *   HEAD     the same without a stream
 *   GET      with Accept: application/json: what the hub knows of the channels
 *   POST, DELETE  with EventStreamPublish: an event to the channels, their history is cleared
 *   OPTIONS  what is there; for browsers, before a request of another site's page (CORS)
 *
 * The begin of a stream is django-eventstream's, so that its JavaScript clients work: 2 KB of
 * padding, stream-open, and retry; then stream-reset if what was asked for is no longer there.
 */
#include "es_httpd.h"

#include <stdlib.h>

static const char stream_type[] = "text/event-stream; charset=utf-8";

enum {
    BEGIN_MAX = 1024 * 1024, /* bytes before the first event; never reached */
    /* milliseconds after which a browser comes back that was refused for now: not all at once */
    AGAIN_MIN = 5000,
    AGAIN_MAX = 10000
};

int es_native_answer(request_rec *r, int status, const char *type, const char *text)
{
    r->status = status;
    ap_set_content_type(r, type);
    ap_set_content_length(r, (apr_off_t)strlen(text));
    apr_table_setn(r->headers_out, "Cache-Control", "no-cache");
    if (!r->header_only) {
        ap_rputs(text, r); /* a client that left is no error of ours */
    }
    return OK;
}

/* A sentence may repeat what the client sent, and so hold bytes that are no text. */
int es_native_refuse(request_rec *r, int status, const char *sentence)
{
    char *text = apr_pstrcat(r->pool, sentence, "\n", NULL);
    char *p;

    if (!es_text_is_utf8(es_str(text))) {
        for (p = text; *p; p++) {
            *p = (unsigned char)*p < 0x80 ? *p : '?';
        }
    }
    return es_native_answer(r, status, "text/plain; charset=utf-8", text);
}

/* ---- refusals that a browser can live with ---- */

static bool accepts_by_name(request_rec *r)
{
    const char *accept = apr_table_get(r->headers_in, "Accept");

    return accept && ap_strcasestr(accept, "text/event-stream");
}

/* For what will pass. EventSource stops for good at any status but 200, so it gets a stream that
 * ends at once, and comes back. */
static int refuse_for_now(request_rec *r, int status, const char *sentence)
{
    es_buf_t *buf = es_request_buf(r, BEGIN_MAX);

    if (accepts_by_name(r) && ap_is_HTTP_SERVER_ERROR(status) &&
        es_sse_comment(es_str(sentence), buf) == ES_OK &&
        es_sse_retry(ap_random_pick(AGAIN_MIN, AGAIN_MAX), buf) == ES_OK) {
        return es_native_answer(r, HTTP_OK, stream_type, apr_pstrmemdup(r->pool, buf->p, buf->n));
    }
    return es_native_refuse(r, status, sentence);
}

/* EventSource cannot read the body of a refusal. So it gets django-eventstream's stream-error; when
 * it comes back, its Last-Event-ID is "error", and the 400 that follows ends it for good. */
int es_native_refuse_channels(request_rec *r, const es_native_t *n)
{
    const char *sentence = "Permission denied to channels: ";
    es_buf_t *buf = es_request_buf(r, BEGIN_MAX);
    size_t i;

    if (accepts_by_name(r) && es_sse_forbidden(n->refused, n->refused_count, buf) == ES_OK) {
        return es_native_answer(r, HTTP_OK, stream_type, apr_pstrmemdup(r->pool, buf->p, buf->n));
    }
    for (i = 0; i < n->refused_count; i++) {
        sentence = apr_pstrcat(r->pool, sentence, i > 0 ? ", " : "", n->refused[i], NULL);
    }
    return es_native_refuse(r, HTTP_FORBIDDEN, sentence);
}

/* ---- a stream ---- */

static apr_status_t instruct_cleanup(void *in)
{
    es_instruct_free(in);
    return APR_SUCCESS;
}

static es_err_t add_keep_alive(es_instruct_t *in, const es_native_conf_t *conf)
{
    es_buf_t buf;
    es_err_t err;

    if (es_native_keep_alive(conf) == 0) {
        return ES_OK;
    }
    es_buf_init(&buf, ES_MAX_KEEP_ALIVE);
    err = es_sse_keep_alive(&buf);
    if (err == ES_OK) {
        in->keep_alive = es_buf_steal(&buf, &in->keep_alive_len);
        in->keep_alive_timeout = es_native_keep_alive(conf);
        err = in->keep_alive ? ES_OK : ES_ENOMEM;
    }
    es_buf_free(&buf);
    return err;
}

static es_err_t make_instruct(request_rec *r, const es_native_t *n, es_instruct_t **ret,
                              es_detail_t *detail)
{
    es_instruct_t *in = NULL;
    es_err_t err = es_instruct_from_headers(NULL, 0, &in, detail);
    size_t i;

    if (err != ES_OK) {
        return err;
    }
    apr_pool_cleanup_register(r->pool, in, instruct_cleanup, apr_pool_cleanup_null);
    in->hold = ES_HOLD_STREAM;
    for (i = 0; i < n->channels.n && err == ES_OK; i++) {
        err = es_instruct_add_channel(in, es_str(n->channels.v[i].name), (es_str_t) { NULL, 0 },
                                      NULL, detail);
    }
    if (err == ES_OK) {
        err = add_keep_alive(in, n->conf);
    }
    *ret = in;
    return err;
}

/* With a history stream-open has the id after which the stream goes on, so that a client that loses
 * its connection before the first event misses nothing either. A stream from a time on, or with the
 * last N events, has none: until an event has come its client asks for the same again. */
static es_str_t begin_id(request_rec *r, const es_position_t *from, const char *newest, bool reset)
{
    const es_str_t none = { NULL, 0 };

    if (!es_server_conf(r->server)->history.directory || reset || !newest) {
        return none;
    }
    return from->from == ES_FROM_NOW  ? es_str(newest)
           : from->from == ES_FROM_ID ? es_str(from->id)
                                      : none;
}

/* What stands before the first event. */
static es_err_t make_begin(request_rec *r, const es_native_t *n, const es_hold_native_t *native,
                           es_buf_t *out)
{
    const char *answer = native->answer;
    const char *asked[ES_MAX_CHANNELS];
    es_detail_t detail = { "" };
    bool reset = false;
    char *id = NULL;
    es_err_t err = es_sse_padding(out);
    size_t i;

    /* A hub of a build without ids says nothing. */
    if (*answer && es_reserved_decode(es_str(answer), &id, &reset, &detail) != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0103) "%s", detail.text);
    }
    if (err == ES_OK) {
        err = es_sse_stream_open(begin_id(r, &native->from, id, reset), out);
    }
    if (err == ES_OK && es_native_retry(n->conf) > 0) {
        err = es_sse_retry((unsigned int)es_native_retry(n->conf), out);
    }
    if (err == ES_OK && reset) {
        for (i = 0; i < n->channels.n; i++) {
            asked[i] = n->channels.v[i].asked;
        }
        err = es_sse_stream_reset(asked, n->channels.n, es_str(id), out);
    }
    free(id);
    return err;
}

static void stream_head(request_rec *r)
{
    ap_set_content_type(r, stream_type);
    apr_table_setn(r->headers_out, "Cache-Control", "no-cache, no-transform");
    apr_table_setn(r->headers_out, "X-Accel-Buffering", "no");
    apr_table_mergen(r->headers_out, "Vary", "Accept");
    es_hold_prepare(r);
}

static int write_begin(request_rec *r, const es_buf_t *begin, es_hold_handle_t *hold)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, alloc);

    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_transient_create(begin->p, begin->n, alloc));
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(alloc));
    ap_pass_brigade(r->output_filters, bb); /* a client that left is seen in c->aborted */
    return es_hold_start(r, hold);
}

/* When the stream has to end. A token may say any second, also one beyond all milliseconds. */
static uint64_t expiry_ms(const es_token_t *token)
{
    if (!token) {
        return 0;
    }
    return token->exp < INT64_MAX / 1000 ? (uint64_t)token->exp * 1000 : INT64_MAX;
}

static int open_stream(request_rec *r, const es_native_t *n, const es_position_t *from)
{
    es_hold_native_t native = { .from = *from,
                                .until_ms = expiry_ms(n->token),
                                .presence = n->conf->presence == 1,
                                .grace_ms = es_native_grace(n->conf) };
    es_buf_t *begin = es_request_buf(r, BEGIN_MAX);
    es_hold_handle_t *hold = NULL;
    es_instruct_t *in = NULL;
    es_detail_t detail = { "" };
    int status;

    if (r->header_only) {
        stream_head(r);
        return OK;
    }
    native.member = native.presence ? es_native_member(r, n) : NULL;
    if (make_instruct(r, n, &in, &detail) != ES_OK) {
        return refuse_for_now(r, HTTP_SERVICE_UNAVAILABLE, "Out of memory.");
    }
    status = es_hold_reserve(r, in, &native, &hold);
    if (status != OK) {
        return refuse_for_now(r, status, "The stream cannot be held now. Try again later.");
    }
    if (make_begin(r, n, &native, begin) != ES_OK) {
        es_hold_release(hold);
        return refuse_for_now(r, HTTP_SERVICE_UNAVAILABLE, "Out of memory.");
    }
    stream_head(r);
    return write_begin(r, begin, hold);
}

static int subscribe(request_rec *r)
{
    const es_wanted_t wanted = es_native_accepted(r);
    es_native_t *n = es_native_begin(r);
    es_position_t from = { .from = ES_FROM_NOW };
    int status = HTTP_BAD_REQUEST;
    const char *wrong;

    if (wanted == ES_WANTED_NOTHING) {
        return es_native_refuse(r, HTTP_NOT_ACCEPTABLE,
                                "Not Acceptable. There are text/event-stream and "
                                "application/json here.");
    }
    wrong = es_native_subscriber(r, n, &status);
    if (!wrong) {
        wrong = es_native_channels(r, n, &status);
    }
    if (!wrong) {
        wrong = es_native_position(r, &from, &status);
    }
    if (wrong) {
        return es_native_refuse(r, status, wrong);
    }
    es_native_sift(r, n, ES_USE_SUBSCRIBE);
    if (n->refused_count == 0) {
        wrong = es_native_authorize(r, n, &status);
        if (wrong) {
            return wanted == ES_WANTED_INFO ? es_native_refuse(r, status, wrong)
                                            : refuse_for_now(r, status, wrong);
        }
    }
    if (n->refused_count > 0) {
        return es_native_refuse_channels(r, n);
    }
    return wanted == ES_WANTED_INFO ? es_native_info(r, n) : open_stream(r, n, &from);
}

/* ---- methods ---- */

/* POST and DELETE. */
static int change(request_rec *r)
{
    es_native_t *n = es_native_begin(r);
    int status = HTTP_BAD_REQUEST;
    const char *wrong = es_native_publisher(r, n, &status);

    if (!wrong) {
        wrong = es_native_channels(r, n, &status);
    }
    if (!wrong) {
        es_native_sift(r, n, ES_USE_PUBLISH);
        if (n->refused_count == 0 && r->method_number == M_POST && es_native_reserved(n)) {
            status = HTTP_FORBIDDEN;
            wrong = apr_psprintf(r->pool,
                                 "Nobody may publish to '%s': the server itself tells there who is "
                                 "present.",
                                 es_native_reserved(n));
        }
        else if (n->refused_count == 0) {
            return r->method_number == M_POST ? es_native_publish(r, n) : es_native_clear(r, n);
        }
    }
    r->connection->keepalive = AP_CONN_CLOSE; /* there may be a body that nobody reads */
    return wrong ? es_native_refuse(r, status, wrong) : es_native_refuse_channels(r, n);
}

int es_native_handler(request_rec *r)
{
    const es_native_conf_t *conf = &es_dir_conf(r)->native;
    const bool publish = conf->publish == 1;
    const char *methods = publish ? "GET, HEAD, OPTIONS, POST, DELETE" : "GET, HEAD, OPTIONS";
    int rc;

    if (!r->handler || strcmp(r->handler, "eventstream") != 0) {
        return DECLINED;
    }
    if (r->main) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0104) "a subrequest cannot be held; what asked for it?");
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    es_native_cors(r, conf, methods);
    if (publish && (r->method_number == M_POST || r->method_number == M_DELETE)) {
        return change(r);
    }
    rc = ap_discard_request_body(r); /* none of it may stay in front of the hub */
    if (rc != OK) {
        return rc;
    }
    if (r->method_number == M_GET) {
        return subscribe(r);
    }
    apr_table_setn(r->headers_out, "Allow", methods);
    if (r->method_number == M_OPTIONS) {
        r->status = HTTP_NO_CONTENT;
        return OK;
    }
    return es_native_refuse(r, HTTP_METHOD_NOT_ALLOWED,
                            apr_psprintf(r->pool, "Method not allowed: %s.", r->method));
}
