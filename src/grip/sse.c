/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of event streams: what publishers send, read line by line, and what a native stream
 * gets.
 *
 * A native stream's ids are the hub's, so a content cannot be passed on as it came. It is written
 * anew line by line: that also settles line ends, events that were left open, and that no byte of a
 * publisher ends a line early. The line is the only unit; there is no event in memory. What has to
 * be known of an event is where in `out` its data begins, for the id goes there in the end: one
 * memmove of what comes after it. So the cost is a few passes over the content, whatever is in it.
 */
#include "grip_int.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD, for NUL */

/* Takes the text up to a line end or to the end of all text. */
static bool next_line(es_str_t *rest, es_str_t *ret)
{
    size_t n = 0;
    size_t skip;

    if (rest->n == 0) {
        return false;
    }
    while (n < rest->n && rest->p[n] != '\r' && rest->p[n] != '\n') {
        n++;
    }
    skip = n < rest->n ? n + 1 : n;
    if (n + 1 < rest->n && rest->p[n] == '\r' && rest->p[n + 1] == '\n') {
        skip++;
    }
    ret->p = rest->p;
    ret->n = n;
    rest->p += skip;
    rest->n -= skip;
    return true;
}

static es_sse_field_t field_of(es_str_t name)
{
    if (es_str_is(name, "data")) {
        return ES_SSE_DATA;
    }
    if (es_str_is(name, "event")) {
        return ES_SSE_EVENT;
    }
    if (es_str_is(name, "id")) {
        return ES_SSE_ID;
    }
    return es_str_is(name, "retry") ? ES_SSE_RETRY : ES_SSE_OTHER;
}

bool es_sse_next(es_str_t *rest, es_sse_line_t *ret)
{
    const char *colon;
    es_str_t line, name;

    if (!next_line(rest, &line)) {
        return false;
    }
    colon = line.n == 0 ? NULL : memchr(line.p, ':', line.n);
    name.p = line.p;
    name.n = colon == NULL ? line.n : (size_t)(colon - line.p);
    ret->value.p = line.p + (colon == NULL ? line.n : name.n + 1);
    ret->value.n = colon == NULL ? 0 : line.n - name.n - 1;
    if (line.n == 0) {
        ret->field = ES_SSE_BLANK;
        return true;
    }
    if (name.n == 0) {
        ret->field = ES_SSE_COMMENT;
        return true;
    }
    ret->field = field_of(name);
    if (ret->value.n > 0 && ret->value.p[0] == ' ') {
        ret->value.p++;
        ret->value.n--;
    }
    return true;
}

static es_str_t without_bom(es_str_t text)
{
    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0) {
        text.p += 3;
        text.n -= 3;
    }
    return text;
}

static bool has_data(es_str_t text)
{
    es_sse_line_t line;

    while (es_sse_next(&text, &line)) {
        if (line.field == ES_SSE_DATA) {
            return true;
        }
    }
    return false;
}

bool es_sse_is_stream(es_str_t content)
{
    es_str_t text = without_bom(content);
    es_str_t rest = text;
    es_sse_line_t line;
    bool comment = false;
    bool ended = text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r');

    while (es_sse_next(&rest, &line)) {
        if (line.field == ES_SSE_COMMENT) {
            comment = true;
        }
        else if (line.field != ES_SSE_BLANK) {
            /* A name alone, without a colon, is a word. */
            bool named =
                line.value.p > text.p && (line.value.p[-1] == ':' || line.value.p[-1] == ' ');
            return line.field != ES_SSE_OTHER && named && (ended || has_data(text));
        }
    }
    return comment && ended;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* A value that holds no line end; NUL is replaced. */
static es_err_t put_value(es_buf_t *out, es_str_t value)
{
    es_err_t err = ES_OK;

    while (err == ES_OK && value.n > 0) {
        const char *nul = memchr(value.p, '\0', value.n);
        size_t n = nul == NULL ? value.n : (size_t)(nul - value.p);
        err = es_buf_add(out, value.p, n);
        value.p += n;
        value.n -= n;
        if (err == ES_OK && value.n > 0) {
            err = es_buf_add(out, replacement, sizeof(replacement) - 1);
            value.p++;
            value.n--;
        }
    }
    return err;
}

/* "name: value"; `name` ends with its colon. */
static es_err_t put_field(es_buf_t *out, const char *name, es_str_t value)
{
    es_err_t err = es_buf_add(out, name, strlen(name));

    if (err == ES_OK && value.n > 0) {
        err = es_buf_add(out, " ", 1);
    }
    if (err == ES_OK) {
        err = put_value(out, value);
    }
    return err == ES_OK ? es_buf_add(out, "\n", 1) : err;
}

static es_err_t check_field(es_str_t value, size_t max)
{
    return !es_text_is_clean(value) ? ES_EINVAL : (value.n > max ? ES_ETOOBIG : ES_OK);
}

static es_err_t check_fields(es_str_t event, es_str_t id)
{
    es_err_t err = check_field(event, ES_MAX_EVENT_NAME);

    return err == ES_OK ? check_field(id, ES_MAX_ID) : err;
}

es_err_t es_sse_check_event(es_str_t event, es_detail_t *detail)
{
    if (event.n == 0) {
        return es_fail(detail, ES_EINVAL, "the event's name is empty");
    }
    if (event.n > ES_MAX_EVENT_NAME) {
        return es_fail(detail, ES_ETOOBIG, "the event's name is %zu bytes long, at most %d",
                       event.n, ES_MAX_EVENT_NAME);
    }
    if (!es_text_is_clean(event) || !es_text_is_utf8(event)) {
        return es_fail(detail, ES_EINVAL,
                       "the event's name '%.*s' is not UTF-8 text without CR, LF and NUL",
                       ES_FOUND(event));
    }
    return ES_OK;
}

/* The data's lines: one more than it has line ends. */
static es_err_t put_data(es_buf_t *out, es_str_t data)
{
    bool ended = data.n == 0 || data.p[data.n - 1] == '\n' || data.p[data.n - 1] == '\r';
    es_str_t none = { NULL, 0 };
    es_str_t line;
    es_err_t err = ES_OK;

    while (err == ES_OK && next_line(&data, &line)) {
        err = put_field(out, "data:", line);
    }
    return err == ES_OK && ended ? put_field(out, "data:", none) : err;
}

es_err_t es_sse_data(es_str_t data, es_str_t event, es_str_t id, es_buf_t *out)
{
    size_t start = out->n;
    es_err_t err = check_fields(event, id);

    if (err == ES_OK && event.n > 0) {
        err = put_field(out, "event:", event);
    }
    if (err == ES_OK && id.n > 0) {
        err = put_field(out, "id:", id);
    }
    if (err == ES_OK) {
        err = put_data(out, data);
    }
    if (err == ES_OK) {
        err = es_buf_add(out, "\n", 1);
    }
    if (err != ES_OK) {
        es_buf_cut(out, start);
    }
    return err;
}

typedef struct es_rewrite {
    es_buf_t *out;
    bool open;      /* lines were written since the last empty one */
    bool data;      /* one of them was data */
    size_t data_at; /* in `out`: the first data line of the last event that has any */
    size_t events;
} es_rewrite_t;

static bool is_retry(es_str_t value)
{
    size_t i;

    for (i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9') {
            return false;
        }
    }
    return value.n > 0 && value.n < 10;
}

static es_err_t rewrite_line(es_rewrite_t *w, const es_sse_line_t *line)
{
    switch (line->field) {
    case ES_SSE_BLANK: {
        bool close = w->open;
        w->open = false;
        w->data = false;
        return close ? es_buf_add(w->out, "\n", 1) : ES_OK;
    }
    case ES_SSE_COMMENT: {
        es_err_t err = es_buf_add(w->out, ":", 1);
        w->open = true;
        err = err == ES_OK ? put_value(w->out, line->value) : err;
        return err == ES_OK ? es_buf_add(w->out, "\n", 1) : err;
    }
    case ES_SSE_EVENT:
        w->open = true;
        return put_field(w->out, "event:", line->value);
    case ES_SSE_RETRY:
        if (!is_retry(line->value)) {
            return ES_OK;
        }
        w->open = true;
        return put_field(w->out, "retry:", line->value);
    case ES_SSE_DATA:
        if (!w->data) {
            w->data_at = w->out->n;
            w->events++;
        }
        w->open = true;
        w->data = true;
        return put_field(w->out, "data:", line->value);
    case ES_SSE_ID:
    case ES_SSE_OTHER:
        break;
    }
    return ES_OK;
}

/* Makes room at `at` and writes the id there. */
static es_err_t insert_id(es_buf_t *out, size_t at, es_str_t id)
{
    size_t old = out->n;
    es_err_t err = put_field(out, "id:", id);
    size_t n = out->n - old;

    if (err != ES_OK) {
        return err;
    }
    memmove(out->p + at + n, out->p + at, old - at);
    memcpy(out->p + at, "id: ", 4);
    memcpy(out->p + at + 4, id.p, id.n);
    out->p[at + n - 1] = '\n';
    return ES_OK;
}

static es_err_t rewrite(es_rewrite_t *w, es_str_t text, es_str_t id)
{
    static const es_sse_line_t blank = { ES_SSE_BLANK, { NULL, 0 } };
    es_sse_line_t line;
    es_err_t err = ES_OK;

    while (err == ES_OK && es_sse_next(&text, &line)) {
        err = rewrite_line(w, &line);
    }
    if (err == ES_OK) {
        err = rewrite_line(w, &blank);
    }
    return err == ES_OK && w->events > 0 && id.n > 0 ? insert_id(w->out, w->data_at, id) : err;
}

es_err_t es_sse_render(es_str_t content, es_str_t event, es_str_t id, es_buf_t *out,
                       size_t *ret_events)
{
    es_rewrite_t w = { .out = out };
    size_t start = out->n;
    es_err_t err = check_fields(event, id);

    if (err == ES_OK && es_sse_is_stream(content)) {
        err = rewrite(&w, without_bom(content), id);
    }
    else if (err == ES_OK) {
        if (content.n > 0 && content.p[content.n - 1] == '\n') {
            content.n--;
        }
        if (content.n > 0 && content.p[content.n - 1] == '\r') {
            content.n--;
        }
        w.events = 1;
        err = es_sse_data(content, event, id, out);
    }
    if (err != ES_OK) {
        es_buf_cut(out, start);
        return err;
    }
    if (ret_events != NULL) {
        *ret_events = w.events;
    }
    return ES_OK;
}
