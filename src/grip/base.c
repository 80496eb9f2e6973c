/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every layer shares: error details, strings with a length, the growable buffer, the log call.
 *
 * Invariants of es_buf_t: `p` is NULL until the first byte is asked for; after that it has room for
 * `n` bytes and a NUL, and that NUL is always there. `n` never exceeds `max`. An append that fails
 * leaves the buffer as it was.
 *
 * Nothing here has state: every function may be called from any thread.
 */
#include "es_base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ES_BUF_FIRST = 64 };

const char *es_err_name(es_err_t err)
{
    switch (err) {
    case ES_OK:
        return "ok";
    case ES_EINVAL:
        return "invalid";
    case ES_ETOOBIG:
        return "too big";
    case ES_ENOMEM:
        return "out of memory";
    case ES_EAUTH:
        return "not authorized";
    case ES_EAGAIN:
        return "try again";
    case ES_ENOENT:
        return "not found";
    case ES_EIO:
        return "system error";
    case ES_EFULL:
        return "limit reached";
    }
    return "unknown error";
}

/* Cuts a UTF-8 sequence that the end of the buffer cut in two. */
static size_t whole_characters(const char *text, size_t n)
{
    size_t lead = n;
    size_t need;
    unsigned char c;

    while (lead > 0 && n - lead < 4 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80) {
        lead--;
    }
    if (lead == 0) {
        return n;
    }
    c = (unsigned char)text[lead - 1];
    if (c < 0xc0) {
        return n;
    }
    need = c >= 0xf0 ? 3 : (c >= 0xe0 ? 2 : 1);
    return n - lead < need ? lead - 1 : n;
}

es_err_t es_fail(es_detail_t *detail, es_err_t err, const char *fmt, ...)
{
    es_detail_t out;
    size_t i, n;
    va_list args;

    if (detail == NULL) {
        return err;
    }
    /* Written aside first: an argument may point into the old detail. */
    out.text[0] = '\0';
    va_start(args, fmt);
    if (vsnprintf(out.text, sizeof(out.text), fmt, args) < 0) {
        out.text[0] = '\0';
    }
    va_end(args);
    n = strlen(out.text);
    if (n == sizeof(out.text) - 1) {
        n = whole_characters(out.text, n);
        out.text[n] = '\0';
    }
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)out.text[i];
        if (c < 0x20 || c == 0x7f) {
            out.text[i] = '?';
        }
    }
    memcpy(detail->text, out.text, n + 1);
    return err;
}

es_str_t es_str(const char *cstr)
{
    es_str_t s = { cstr, cstr == NULL ? 0 : strlen(cstr) };
    return s;
}

bool es_str_is(es_str_t s, const char *cstr)
{
    size_t n = strlen(cstr);
    return s.n == n && (n == 0 || memcmp(s.p, cstr, n) == 0);
}

bool es_str_is_nocase(es_str_t s, const char *cstr)
{
    size_t n = strlen(cstr);
    size_t i;

    if (s.n != n) {
        return false;
    }
    /* Not strncasecmp: that one stops at a NUL and obeys the locale. */
    for (i = 0; i < n; i++) {
        unsigned char a = (unsigned char)s.p[i];
        unsigned char b = (unsigned char)cstr[i];
        a = a >= 'A' && a <= 'Z' ? (unsigned char)(a | 0x20) : a;
        b = b >= 'A' && b <= 'Z' ? (unsigned char)(b | 0x20) : b;
        if (a != b) {
            return false;
        }
    }
    return true;
}

es_str_t es_str_trim(es_str_t s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

bool es_str_to_int(es_str_t s, int64_t *ret)
{
    bool negative = false;
    int64_t value = 0;
    size_t i = 0;

    if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+')) {
        negative = s.p[0] == '-';
        i = 1;
    }
    if (i == s.n || s.n - i > 18) {
        return false;
    }
    for (; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
        value = value * 10 + (s.p[i] - '0');
    }
    *ret = negative ? -value : value;
    return true;
}

char *es_memdup(const void *p, size_t n)
{
    char *copy;

    if (n == SIZE_MAX) {
        return NULL;
    }
    copy = malloc(n + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (n > 0) {
        memcpy(copy, p, n);
    }
    copy[n] = '\0';
    return copy;
}

void es_buf_init(es_buf_t *b, size_t max)
{
    b->p = NULL;
    b->n = 0;
    b->cap = 0;
    b->max = max < SIZE_MAX ? max : SIZE_MAX - 1;
}

/* Makes room for `more` bytes and a NUL. */
static es_err_t buf_reserve(es_buf_t *b, size_t more)
{
    size_t need, cap;
    char *grown;

    if (more > b->max - b->n) {
        return ES_ETOOBIG;
    }
    need = b->n + more + 1;
    if (need <= b->cap) {
        return ES_OK;
    }
    cap = b->cap < ES_BUF_FIRST ? ES_BUF_FIRST : b->cap;
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    if (cap > b->max + 1) {
        cap = b->max + 1;
    }
    grown = realloc(b->p, cap);
    if (grown == NULL) {
        return ES_ENOMEM;
    }
    b->p = grown;
    b->cap = cap;
    b->p[b->n] = '\0';
    return ES_OK;
}

es_err_t es_buf_add(es_buf_t *b, const void *p, size_t n)
{
    es_err_t err = buf_reserve(b, n);

    if (err != ES_OK) {
        return err;
    }
    if (n > 0) {
        memcpy(b->p + b->n, p, n);
        b->n += n;
        b->p[b->n] = '\0';
    }
    return ES_OK;
}

es_err_t es_buf_addf(es_buf_t *b, const char *fmt, ...)
{
    va_list args;
    es_err_t err;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        return ES_EINVAL;
    }
    err = buf_reserve(b, (size_t)n);
    if (err != ES_OK) {
        return err;
    }
    va_start(args, fmt);
    n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, args);
    va_end(args);
    if (n < 0) {
        b->p[b->n] = '\0';
        return ES_EINVAL;
    }
    b->n += (size_t)n;
    return ES_OK;
}

void es_buf_free(es_buf_t *b)
{
    free(b->p);
    b->p = NULL;
    b->n = 0;
    b->cap = 0;
}

char *es_buf_steal(es_buf_t *b, size_t *ret_n)
{
    char *p;

    if (buf_reserve(b, 0) != ES_OK) {
        return NULL;
    }
    p = b->p;
    if (ret_n != NULL) {
        *ret_n = b->n;
    }
    b->p = NULL;
    b->n = 0;
    b->cap = 0;
    return p;
}

void es_log(const es_log_t *log, int level, const char *id, const char *fmt, ...)
{
    va_list args;

    if (log == NULL || log->write == NULL || level > log->level) {
        return;
    }
    va_start(args, fmt);
    log->write(log->ctx, level, id, fmt, args);
    va_end(args);
}
