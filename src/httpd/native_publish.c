/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to the channels of a native endpoint besides subscribing to them: POST publishes one
 * event to all of them, DELETE clears their history, GET for JSON tells what the hub knows. The
 * caller has checked who may.
 *
 * The event that is published is one item of http-stream content, rendered as SSE: so streams that
 * an application holds on the channel by GRIP get it as well. The hub puts its own id into what it
 * sends to native streams.
 */
#include "es_httpd.h"

#include <stdlib.h>

/* The event of a POST. NUL-terminated texts of the request's pool. */
typedef struct event {
    es_str_t data;
    const char *name; /* NULL: none */
    const char *id;   /* NULL: none */
} event_t;

/* Reads the body, however it is framed, up to the cap. NULL: fine. */
static const char *read_body(request_rec *r, es_str_t *ret, int *status)
{
    es_buf_t *body = es_request_buf(r, ES_MAX_PUBLISH_BODY);
    es_err_t err = ES_OK;
    char part[8192];
    long got = 0;

    *status = HTTP_BAD_REQUEST;
    if (ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK) != OK) {
        return "The request's body cannot be read.";
    }
    if (ap_should_client_block(r)) {
        do {
            got = ap_get_client_block(r, part, sizeof part);
            err = got > 0 ? es_buf_add(body, part, (size_t)got) : ES_OK;
        } while (got > 0 && err == ES_OK);
    }
    if (got < 0) {
        return "The request's body ended early.";
    }
    if (err == ES_ETOOBIG) {
        *status = HTTP_REQUEST_ENTITY_TOO_LARGE;
        return apr_psprintf(r->pool, "The body has more than %d bytes.", ES_MAX_PUBLISH_BODY);
    }
    if (err != ES_OK) {
        *status = HTTP_SERVICE_UNAVAILABLE;
        return "Out of memory.";
    }
    *ret = (es_str_t) { body->n > 0 ? body->p : "", body->n };
    return NULL;
}

/* A parameter of a query or form, if it is there. */
static es_err_t take(request_rec *r, es_str_t from, const char *name, es_str_t *ret)
{
    char *text = NULL;
    size_t n = 0;
    es_err_t err = es_query_param(from, name, &text, &n);

    if (err == ES_OK) {
        *ret = (es_str_t) { apr_pstrmemdup(r->pool, text, n), n };
        free(text);
    }
    return err;
}

static es_err_t take_text(request_rec *r, es_str_t from, const char *name, const char **io)
{
    es_str_t text;
    const es_err_t err = take(r, from, name, &text);

    if (err == ES_OK && text.n > 0) {
        *io = text.p;
        return strlen(text.p) == text.n ? ES_OK : ES_EINVAL;
    }
    return err == ES_ENOENT ? ES_OK : err;
}

/* The body by its type; name and id from the query or, in a form, from there. */
static const char *read_event(request_rec *r, es_str_t body, event_t *ev, int *status)
{
    const char *type = apr_table_get(r->headers_in, "Content-Type");
    const char *media = type ? ap_get_token(r->pool, &type, 0) : "";
    const es_str_t query = es_str(r->args);
    es_err_t err;

    *status = HTTP_BAD_REQUEST;
    ev->data = body;
    ev->name = apr_table_get(r->headers_in, "X-Event");
    if (ap_cstr_casecmp(media, "multipart/form-data") == 0) {
        *status = HTTP_UNSUPPORTED_MEDIA_TYPE;
        return "multipart/form-data is not understood; send the data as the body, as JSON, or as "
               "application/x-www-form-urlencoded.";
    }
    if (ap_cstr_casecmp(media, "application/json") == 0 && !es_text_is_json(body)) {
        return "The body is no valid JSON.";
    }
    err = take_text(r, query, "event", &ev->name);
    err = err == ES_OK ? take_text(r, query, "id", &ev->id) : err;
    /* `curl -d TEXT` sends this type whatever the text is: a form is what has a field `data`. */
    if (err == ES_OK && ap_cstr_casecmp(media, "application/x-www-form-urlencoded") == 0) {
        const es_err_t found = take(r, body, "data", &ev->data);

        err = found == ES_ENOENT ? ES_OK : found;
        if (found == ES_OK) {
            err = take_text(r, body, "event", &ev->name);
            err = err == ES_OK ? take_text(r, body, "id", &ev->id) : err;
        }
    }
    if (err != ES_OK) {
        return "The event's name, id or data cannot be read: broken percent-encoding, or NUL.";
    }
    return es_text_is_utf8(ev->data) ? NULL : "The data is not UTF-8; events are text.";
}

/* Name and id as they may stand in a stream. */
static const char *check_event(request_rec *r, const event_t *ev)
{
    es_detail_t detail;

    if (ev->name && es_sse_check_event(es_str(ev->name), &detail) != ES_OK) {
        return apr_pstrdup(r->pool, detail.text);
    }
    if (ev->id && (strlen(ev->id) > ES_MAX_ID || strpbrk(ev->id, "\r\n") ||
                   !es_text_is_utf8(es_str(ev->id)))) {
        return apr_psprintf(r->pool,
                            "The event's id is not accepted; give up to %d bytes of UTF-8 without "
                            "CR and LF.",
                            ES_MAX_ID);
    }
    return NULL;
}

/* The PUBLISH message. */
static es_err_t encode(const es_native_t *n, const event_t *ev, char **ret, size_t *ret_len)
{
    const char *names[ES_MAX_CHANNELS];
    es_buf_t content;
    es_err_t err;
    size_t i;

    for (i = 0; i < n->channels.n; i++) {
        names[i] = n->channels.v[i].name;
    }
    es_buf_init(&content, ES_MAX_PUBLISH_BODY);
    err = es_sse_data(ev->data, es_str(ev->name), es_str(ev->id), &content);
    if (err == ES_OK) {
        err = es_publish_encode(names, n->channels.n, ev->id, (es_str_t) { content.p, content.n },
                                ret, ret_len);
    }
    es_buf_free(&content);
    return err;
}

static int not_understood(request_rec *r, const es_detail_t *detail)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0106) "%s", detail->text);
    return es_native_refuse(r, HTTP_INTERNAL_SERVER_ERROR, "The hub's answer is not understood.");
}

static int answer_json(request_rec *r, char *json)
{
    const char *text = apr_pstrcat(r->pool, json, "\n", NULL);

    free(json);
    return es_native_answer(r, HTTP_OK, "application/json", text);
}

static int send_event(request_rec *r, const es_native_t *n, const event_t *ev)
{
    es_detail_t detail = { "" };
    const char *text = NULL;
    char *json = NULL;
    size_t len = 0;
    es_err_t err = encode(n, ev, &json, &len);

    if (err == ES_ETOOBIG) {
        return es_native_refuse(
            r, HTTP_REQUEST_ENTITY_TOO_LARGE,
            apr_psprintf(r->pool,
                         "The event has more than %d bytes as the hub gets it: as JSON, once for "
                         "each channel.",
                         ES_MAX_PUBLISH_BODY));
    }
    if (err == ES_OK) {
        err = es_hublink_call(r, ES_WIRE_PUBLISH, (es_str_t) { json, len }, &text, NULL);
        free(json);
    }
    if (err == ES_EFULL) { /* it was delivered: who sends it again would send it twice */
        return es_native_refuse(r, HTTP_INSUFFICIENT_STORAGE,
                                apr_pstrcat(r->pool, "Published, but not kept: ", text, ".", NULL));
    }
    if (err != ES_OK) {
        return es_native_refuse(r, HTTP_SERVICE_UNAVAILABLE,
                                apr_pstrcat(r->pool, "Not published: ",
                                            text && *text ? text : es_err_name(err), ".", NULL));
    }
    if (*text == '\0') { /* a hub of a build without ids */
        return es_native_answer(r, HTTP_OK, "application/json",
                                "{\"id\":null,\"receivers\":null}\n");
    }
    if (es_published_to_json(es_str(text), &json, &detail) != ES_OK) {
        return not_understood(r, &detail);
    }
    return answer_json(r, json);
}

int es_native_publish(request_rec *r, es_native_t *n)
{
    event_t ev = { .name = NULL };
    es_str_t body = { "", 0 };
    int status = HTTP_BAD_REQUEST;
    const char *wrong = read_body(r, &body, &status);

    if (wrong) {
        r->connection->keepalive = AP_CONN_CLOSE; /* what follows is a body that nobody reads */
        return es_native_refuse(r, status, wrong);
    }
    wrong = read_event(r, body, &ev, &status);
    if (!wrong) {
        wrong = check_event(r, &ev);
    }
    return wrong ? es_native_refuse(r, status, wrong) : send_event(r, n, &ev);
}

/* One request to the hub about one channel. */
static es_err_t about(request_rec *r, es_wire_type_t type, const char *name, const char **text)
{
    const bool presence = type == ES_WIRE_INFO && es_dir_conf(r)->native.presence == 1;
    char *json = NULL;
    size_t len = 0;
    es_err_t err = es_channel_encode(name, presence, &json, &len);

    if (err == ES_OK) {
        err = es_hublink_call(r, type, (es_str_t) { json, len }, text, NULL);
        free(json);
    }
    return err;
}

int es_native_clear(request_rec *r, es_native_t *n)
{
    const char *text = NULL;
    size_t i, cleared = 0;
    int rc = ap_discard_request_body(r);

    if (rc != OK) {
        return rc;
    }
    for (i = 0; i < n->channels.n; i++) {
        const es_err_t err = about(r, ES_WIRE_CLEAR, n->channels.v[i].name, &text);

        if (err != ES_OK && err != ES_ENOENT) {
            return es_native_refuse(
                r, HTTP_SERVICE_UNAVAILABLE,
                apr_pstrcat(r->pool, "Not cleared: ", text && *text ? text : es_err_name(err), ".",
                            NULL));
        }
        cleared += err == ES_OK;
    }
    if (cleared == 0) {
        return es_native_refuse(r, HTTP_NOT_FOUND, "Nothing is held of these channels.");
    }
    r->status = HTTP_NO_CONTENT;
    return OK;
}

int es_native_info(request_rec *r, es_native_t *n)
{
    const char *asked[ES_MAX_CHANNELS], *answers[ES_MAX_CHANNELS];
    es_detail_t detail = { "" };
    char *json = NULL;
    size_t i;

    for (i = 0; i < n->channels.n; i++) {
        asked[i] = n->channels.v[i].asked;
        if (about(r, ES_WIRE_INFO, n->channels.v[i].name, &answers[i]) != ES_OK) {
            return es_native_refuse(r, HTTP_SERVICE_UNAVAILABLE, "The hub does not answer.");
        }
    }
    apr_table_mergen(r->headers_out, "Vary", "Accept");
    if (es_info_to_json(asked, answers, n->channels.n, &json, &detail) != ES_OK) {
        return not_understood(r, &detail);
    }
    return answer_json(r, json);
}
