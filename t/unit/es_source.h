/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_source.h
 * What a browser makes of an event stream, after HTML 9.2.6 and nothing else: a model that the
 * renderer is compared with. It shares no code with it and goes byte by byte.
 *
 * The events are written as one text, "TYPE|ID|DATA;" each, where ID is the last event id that the
 * client holds at that moment; at the end "=ID" for what it holds then. '|', ';' and '\' in them
 * are escaped with '\'.
 */
#ifndef ES_SOURCE_H
#define ES_SOURCE_H

#include "es_base.h"

#include <stdlib.h>
#include <string.h>

typedef struct es_source {
    es_buf_t type, data, id, last, out;
    bool keep_ids;    /* false: `id` fields are not looked at */
    bool nul_is_fffd; /* data and type as they are after U+FFFD took the place of NUL */
    size_t events;
} es_source_t;

static inline void es_source_add(es_buf_t *b, const char *p, size_t n)
{
    if (es_buf_add(b, p, n) != ES_OK) {
        abort();
    }
}

static inline void es_source_escape(es_buf_t *out, const es_buf_t *in)
{
    size_t i;

    for (i = 0; i < in->n; i++) {
        if (in->p[i] == '|' || in->p[i] == ';' || in->p[i] == '\\') {
            es_source_add(out, "\\", 1);
        }
        es_source_add(out, in->p + i, 1);
    }
}

static inline void es_source_dispatch(es_source_t *s)
{
    es_source_add(&s->last, "", 0);
    s->last.n = 0;
    es_source_add(&s->last, s->id.p, s->id.n);
    if (s->data.n > 0) {
        s->data.n--; /* the last line feed */
        es_source_escape(&s->out, &s->type);
        es_source_add(&s->out, "|", 1);
        es_source_escape(&s->out, &s->last);
        es_source_add(&s->out, "|", 1);
        es_source_escape(&s->out, &s->data);
        es_source_add(&s->out, ";", 1);
        s->events++;
    }
    s->data.n = 0;
    s->type.n = 0;
}

static inline void es_source_value(const es_source_t *s, es_buf_t *b, es_str_t value)
{
    size_t i;

    for (i = 0; i < value.n; i++) {
        if (value.p[i] == '\0' && s->nul_is_fffd) {
            es_source_add(b, "\xef\xbf\xbd", 3);
        }
        else {
            es_source_add(b, value.p + i, 1);
        }
    }
}

static inline void es_source_line(es_source_t *s, es_str_t line)
{
    const char *colon = line.n == 0 ? NULL : memchr(line.p, ':', line.n);
    es_str_t name = { line.p, colon == NULL ? line.n : (size_t)(colon - line.p) };
    es_str_t value = { line.p + line.n, 0 };

    if (line.n == 0) {
        es_source_dispatch(s);
        return;
    }
    if (colon != NULL) {
        value.p = colon + 1;
        value.n = line.n - name.n - 1;
        if (value.n > 0 && value.p[0] == ' ') {
            value.p++;
            value.n--;
        }
    }
    if (es_str_is(name, "event")) {
        s->type.n = 0;
        es_source_value(s, &s->type, value);
    }
    else if (es_str_is(name, "data")) {
        es_source_value(s, &s->data, value);
        es_source_add(&s->data, "\n", 1);
    }
    else if (es_str_is(name, "id") && s->keep_ids &&
             (value.n == 0 || memchr(value.p, '\0', value.n) == NULL)) {
        s->id.n = 0;
        es_source_add(&s->id, value.p, value.n);
    }
}

/** Reads a stream to its end; what is not complete by then is lost, unless `complete`. The caller
 * frees `*ret`. Returns the number of events. */
static inline size_t es_source_read(es_str_t text, bool keep_ids, bool nul_is_fffd, bool complete,
                                    char **ret)
{
    es_source_t s = { .keep_ids = keep_ids, .nul_is_fffd = nul_is_fffd };
    size_t start = 0;
    size_t i;

    es_buf_init(&s.type, 1 << 24);
    es_buf_init(&s.data, 1 << 24);
    es_buf_init(&s.id, 1 << 24);
    es_buf_init(&s.last, 1 << 24);
    es_buf_init(&s.out, 1 << 28);
    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0) {
        start = 3;
    }
    for (i = start; i < text.n; i++) {
        if (text.p[i] == '\n' || text.p[i] == '\r') {
            es_source_line(&s, (es_str_t) { text.p + start, i - start });
            i += text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n' ? 1 : 0;
            start = i + 1;
        }
    }
    if (complete) {
        if (start < text.n) {
            es_source_line(&s, (es_str_t) { text.p + start, text.n - start });
        }
        es_source_dispatch(&s);
    }
    es_source_add(&s.out, "=", 1);
    es_source_escape(&s.out, &s.last);
    *ret = es_buf_steal(&s.out, NULL);
    es_buf_free(&s.type);
    es_buf_free(&s.data);
    es_buf_free(&s.id);
    es_buf_free(&s.last);
    return s.events;
}

#endif
