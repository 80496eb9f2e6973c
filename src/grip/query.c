/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries of URLs: name=value pairs between '&', percent-encoded, '+' for a blank, as forms and
 * URLSearchParams write them (WHATWG URL, 5). A broken escape is an error here, where a browser
 * would copy it: a channel that silently has another name than the one meant is worse.
 *
 * Nothing is decoded before it has been split, so an encoded separator is never one.
 */
#include "grip_int.h"

#include <string.h>

/* The byte that is encoded at *io, which then stands behind it; -1: broken. */
static int next_byte(es_str_t in, size_t *io)
{
    size_t i = *io;
    int high, low;

    if (in.p[i] != '%') {
        *io = i + 1;
        return in.p[i] == '+' ? ' ' : (unsigned char)in.p[i];
    }
    if (in.n - i < 3) {
        return -1;
    }
    high = es_hex_value(in.p[i + 1]);
    low = es_hex_value(in.p[i + 2]);
    *io = i + 3;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool es_query_next(es_str_t *rest, es_str_t *ret_name, es_str_t *ret_value)
{
    while (rest->n > 0) {
        const char *end = memchr(rest->p, '&', rest->n);
        size_t n = end == NULL ? rest->n : (size_t)(end - rest->p);
        const char *equals = memchr(rest->p, '=', n);
        size_t name = equals == NULL ? n : (size_t)(equals - rest->p);
        size_t skip = end == NULL ? n : n + 1;

        ret_name->p = rest->p;
        ret_name->n = name;
        ret_value->p = equals == NULL ? rest->p + n : equals + 1;
        ret_value->n = equals == NULL ? 0 : n - name - 1;
        rest->p += skip;
        rest->n -= skip;
        if (n > 0) {
            return true;
        }
    }
    return false;
}

void es_buf_cut(es_buf_t *b, size_t n)
{
    if (b->p != NULL) {
        b->n = n;
        b->p[n] = '\0';
    }
}

es_err_t es_query_decode(es_str_t in, es_buf_t *out)
{
    size_t start = out->n;
    es_err_t err = ES_OK;
    size_t i = 0;

    while (i < in.n && err == ES_OK) {
        int byte = next_byte(in, &i);
        char c = (char)byte;
        err = byte < 0 ? ES_EINVAL : es_buf_add(out, &c, 1);
    }
    if (err != ES_OK) {
        es_buf_cut(out, start);
    }
    return err;
}

bool es_query_is(es_str_t raw, const char *name)
{
    size_t n = strlen(name);
    size_t at = 0;
    size_t i = 0;

    while (i < raw.n) {
        int byte = next_byte(raw, &i);
        if (byte < 0 || at == n || byte != (unsigned char)name[at]) {
            return false;
        }
        at++;
    }
    return at == n;
}

es_err_t es_query_quote(es_str_t in, es_buf_t *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t start = out->n;
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < in.n && err == ES_OK; i++) {
        char c = in.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (alnum || (c != '\0' && strchr("_.-~/", c) != NULL)) {
            err = es_buf_add(out, &c, 1);
        }
        else {
            char escape[3] = { '%', digits[(unsigned char)c >> 4], digits[(unsigned char)c & 15] };
            err = es_buf_add(out, escape, 3);
        }
    }
    if (err != ES_OK) {
        es_buf_cut(out, start);
    }
    return err;
}

es_err_t es_query_param(es_str_t query, const char *name, char **ret, size_t *ret_len)
{
    es_str_t left, value;

    while (es_query_next(&query, &left, &value)) {
        es_buf_t out;
        es_err_t err;

        if (!es_query_is(left, name)) {
            continue;
        }
        es_buf_init(&out, value.n + 1);
        err = es_query_decode(value, &out);
        if (err == ES_OK) {
            char *text = es_buf_steal(&out, ret_len);

            err = text ? ES_OK : ES_ENOMEM;
            *ret = text ? text : *ret;
        }
        es_buf_free(&out);
        return err;
    }
    return ES_ENOENT;
}
