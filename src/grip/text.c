/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks on text from outside, made once at the edge so that nothing behind it has to ask again:
 * no line break may reach a header or an event's field, and what a hold message repeats is UTF-8.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

bool es_text_is_clean(es_str_t s)
{
    size_t i;

    for (i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == '\0') {
            return false;
        }
    }
    return true;
}

int es_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Unicode, table 3-7. */
size_t es_utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    size_t len, i;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;
    }
    len = p[0] < 0xe0 ? 2 : (p[0] < 0xf0 ? 3 : 4);
    if (len > n) {
        return 0;
    }
    if (p[0] == 0xe0) {
        low = 0xa0;
    }
    else if (p[0] == 0xed) {
        high = 0x9f;
    }
    else if (p[0] == 0xf0) {
        low = 0x90;
    }
    else if (p[0] == 0xf4) {
        high = 0x8f;
    }
    if (p[1] < low || p[1] > high) {
        return 0;
    }
    for (i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return len;
}

bool es_text_is_utf8(es_str_t s)
{
    size_t i = 0;

    while (i < s.n) {
        size_t len = es_utf8_sequence((const unsigned char *)s.p + i, s.n - i);
        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}

bool es_text_is_header_name(es_str_t s)
{
    size_t i;

    if (s.n == 0 || s.n > ES_MAX_HEADER_NAME) {
        return false;
    }
    for (i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return true;
}

bool es_text_equals(es_str_t a, es_str_t b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static es_err_t meta_replace(es_pair_t *pair, es_str_t value)
{
    char *copy = es_memdup(value.p, value.n);

    if (copy == NULL) {
        return ES_ENOMEM;
    }
    free(pair->value);
    pair->value = copy;
    pair->value_len = value.n;
    return ES_OK;
}

es_err_t es_meta_set(es_pairs_t *meta, const char *where, es_str_t name, es_str_t value,
                     es_detail_t *detail)
{
    es_pair_t *same = NULL;
    size_t bytes = name.n + value.n;
    size_t i;

    if (!es_text_is_clean(name)) {
        return es_fail(detail, ES_EINVAL, "%s contains a name with CR, LF or NUL", where);
    }
    if (!es_text_is_clean(value)) {
        return es_fail(detail, ES_EINVAL, "%s contains '%.*s' with CR, LF or NUL in its value",
                       where, ES_FOUND(name));
    }
    for (i = 0; i < meta->n; i++) {
        es_pair_t *pair = &meta->v[i];
        if (es_text_equals(es_str(pair->name), name)) {
            same = pair;
        }
        else {
            bytes += strlen(pair->name) + pair->value_len;
        }
    }
    if (bytes > ES_MAX_META_BYTES) {
        return es_fail(detail, ES_ETOOBIG, "%s holds over %d bytes of names and values", where,
                       ES_MAX_META_BYTES);
    }
    if (same == NULL && meta->n == ES_MAX_META_PAIRS) {
        return es_fail(detail, ES_ETOOBIG, "%s holds over %d names", where, ES_MAX_META_PAIRS);
    }
    if (same != NULL ? meta_replace(same, value) != ES_OK
                     : es_pairs_add(meta, name, value) != ES_OK) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    return ES_OK;
}

void es_detail_prefix(es_detail_t *detail, const char *prefix)
{
    es_detail_t old;

    if (detail == NULL) {
        return;
    }
    old = *detail;
    es_fail(detail, ES_OK, "%s%s", prefix, old.text);
}
