/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stream sends by itself: comments, retry, and the events of django-eventstream, byte for
 * byte as its Python code writes them. Its JavaScript clients and those of its users read these.
 *
 * JSON is written here and not by jansson: Python puts a blank behind ',' and ':' and writes \u00f6
 * with small letters, and a client that compares texts should not see a difference.
 */
#include "grip_int.h"

#include <string.h>

enum { PADDING = 2048 };

static es_err_t add(es_buf_t *out, const char *text)
{
    return es_buf_add(out, text, strlen(text));
}

/* Ends an append: all or nothing. */
static es_err_t settle(es_buf_t *out, size_t start, es_err_t err)
{
    if (err != ES_OK) {
        es_buf_cut(out, start);
    }
    return err;
}

/* The character at p, of `n` bytes as es_utf8_sequence measured it. */
static uint32_t code_point(const unsigned char *p, size_t n)
{
    static const unsigned char mask[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t code;
    size_t i;

    if (n == 0) {
        return 0xfffd;
    }
    code = p[0] & mask[n];
    for (i = 1; i < n; i++) {
        code = code << 6 | (p[i] & 0x3f);
    }
    return code;
}

static es_err_t add_code(es_buf_t *out, uint32_t code)
{
    static const char *const names[] = { "\\b", "\\t", "\\n", NULL, "\\f", "\\r" };

    if (code == '"' || code == '\\') {
        char pair[2] = { '\\', (char)code };
        return es_buf_add(out, pair, 2);
    }
    if (code >= ' ' && code <= '~') {
        char c = (char)code;
        return es_buf_add(out, &c, 1);
    }
    if (code >= '\b' && code <= '\r' && names[code - '\b'] != NULL) {
        return add(out, names[code - '\b']);
    }
    if (code > 0xffff) {
        return es_buf_addf(out, "\\u%04x\\u%04x", 0xd800u + ((code - 0x10000) >> 10),
                           0xdc00u + ((code - 0x10000) & 0x3ff));
    }
    return es_buf_addf(out, "\\u%04x", code);
}

es_err_t es_json_quote(es_str_t text, es_buf_t *out)
{
    size_t start = out->n;
    es_err_t err = add(out, "\"");
    size_t i = 0;

    while (i < text.n && err == ES_OK) {
        const unsigned char *p = (const unsigned char *)text.p + i;
        size_t n = es_utf8_sequence(p, text.n - i);
        err = add_code(out, code_point(p, n));
        i += n == 0 ? 1 : n;
    }
    err = err == ES_OK ? add(out, "\"") : err;
    return settle(out, start, err);
}

static es_err_t add_channels(const char *const *asked, size_t n, es_buf_t *out)
{
    es_err_t err = add(out, "\"channels\": [");
    size_t i;

    for (i = 0; i < n && err == ES_OK; i++) {
        err = i > 0 ? add(out, ", ") : ES_OK;
        err = err == ES_OK ? es_json_quote(es_str(asked[i]), out) : err;
    }
    return err == ES_OK ? add(out, "]") : err;
}

es_err_t es_sse_comment(es_str_t text, es_buf_t *out)
{
    size_t start = out->n;
    es_err_t err = ES_OK;
    size_t i = 0;

    do {
        size_t n = 0;
        while (i + n < text.n && strchr("\r\n", text.p[i + n]) == NULL) {
            n++;
        }
        err = add(out, n > 0 ? ": " : ":");
        err = err == ES_OK ? es_buf_add(out, n > 0 ? text.p + i : "", n) : err;
        err = err == ES_OK ? add(out, "\n") : err;
        i += n;
        /* CR, LF, CRLF: one line end. NUL counts as one, so that none gets through. */
        i += i + 1 < text.n && text.p[i] == '\r' && text.p[i + 1] == '\n' ? 2 : 1;
    } while (i < text.n && err == ES_OK);
    err = err == ES_OK ? add(out, "\n") : err;
    return settle(out, start, err);
}

es_err_t es_sse_padding(es_buf_t *out)
{
    return es_buf_addf(out, ":%*s\n\n", PADDING, "");
}

es_err_t es_sse_retry(unsigned int ms, es_buf_t *out)
{
    return es_buf_addf(out, "retry: %u\n\n", ms);
}

es_err_t es_sse_stream_open(es_str_t id, es_buf_t *out)
{
    if (id.n == 0) {
        return add(out, "event: stream-open\ndata:\n\n");
    }
    return es_buf_addf(out, "event: stream-open\nid: %.*s\ndata:\n\n", (int)id.n, id.p);
}

es_err_t es_sse_keep_alive(es_buf_t *out)
{
    return add(out, "event: keep-alive\ndata:\n\n");
}

es_err_t es_sse_stream_reset(const char *const *asked, size_t n, es_str_t id, es_buf_t *out)
{
    size_t start = out->n;
    es_buf_t json;
    es_err_t err;

    es_buf_init(&json, out->max);
    err = add(&json, "{");
    err = err == ES_OK ? add_channels(asked, n, &json) : err;
    err = err == ES_OK ? add(&json, "}") : err;
    if (err == ES_OK) {
        es_str_t data = { json.p, json.n };
        err = es_sse_data(data, es_str("stream-reset"), id, out);
    }
    es_buf_free(&json);
    return settle(out, start, err);
}

es_err_t es_sse_stream_error(const char *condition, const char *text, const char *const *asked,
                             size_t n, es_buf_t *out)
{
    size_t start = out->n;
    es_err_t err = add(out, "event: stream-error\nid: error\ndata: {\"condition\": ");

    err = err == ES_OK ? es_json_quote(es_str(condition), out) : err;
    err = err == ES_OK ? add(out, ", \"text\": ") : err;
    err = err == ES_OK ? es_json_quote(es_str(text), out) : err;
    if (err == ES_OK && n > 0) {
        err = add(out, ", ");
        err = err == ES_OK ? add_channels(asked, n, out) : err;
    }
    err = err == ES_OK ? add(out, "}\n\n") : err;
    return settle(out, start, err);
}

es_err_t es_sse_forbidden(const char *const *asked, size_t n, es_buf_t *out)
{
    es_err_t err;
    es_buf_t text;
    size_t i;

    es_buf_init(&text, out->max);
    err = add(&text, "Permission denied to channels: ");
    for (i = 0; i < n && err == ES_OK; i++) {
        err = i > 0 ? add(&text, ", ") : ES_OK;
        err = err == ES_OK ? add(&text, asked[i]) : err;
    }
    if (err == ES_OK) {
        err = es_sse_stream_error("forbidden", text.p, asked, n, out);
    }
    es_buf_free(&text);
    return err;
}
