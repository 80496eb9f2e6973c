/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and patterns of channels: EventStreamAllowChannels, the claims of tokens, the answers of
 * authorizations.
 *
 * Matching remembers only the last star: when what follows it does not fit, the star takes one
 * character more. That is enough, because an earlier star can gain nothing that the last one cannot
 * have, and it bounds the work by pattern times text where recursion would be exponential.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

/* One character; bytes that are no UTF-8 count one by one. */
static size_t character(es_str_t text, size_t at)
{
    size_t n = es_utf8_sequence((const unsigned char *)text.p + at, text.n - at);

    return n == 0 ? 1 : n;
}

bool es_glob_match(es_str_t pattern, es_str_t text)
{
    size_t star = SIZE_MAX; /* where the last star stands */
    size_t taken = 0;       /* up to where it has taken the text */
    size_t p = 0;
    size_t t = 0;

    while (t < text.n) {
        char c = p < pattern.n ? pattern.p[p] : '\0';
        if (p < pattern.n && c == '*') {
            star = p;
            taken = t;
            p++;
        }
        else if (p < pattern.n && c == '?') {
            t += character(text, t);
            p++;
        }
        else if (p < pattern.n && c == text.p[t]) {
            t++;
            p++;
        }
        else if (star != SIZE_MAX) {
            taken += character(text, taken);
            t = taken;
            p = star + 1;
        }
        else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') {
        p++;
    }
    return p == pattern.n;
}

es_err_t es_patterns_add(es_patterns_t *io, es_str_t pattern, es_detail_t *detail)
{
    es_str_t *grown;
    char *copy;

    if (pattern.n == 0) {
        return es_fail(detail, ES_EINVAL, "a name or pattern is empty");
    }
    if (pattern.n > ES_MAX_PATTERN) {
        return es_fail(detail, ES_ETOOBIG, "a name or pattern is %zu bytes long, at most %d",
                       pattern.n, ES_MAX_PATTERN);
    }
    if (!es_text_is_clean(pattern) || !es_text_is_utf8(pattern)) {
        return es_fail(detail, ES_EINVAL,
                       "the name or pattern '%.*s' is not UTF-8 text without CR, LF and NUL",
                       ES_FOUND(pattern));
    }
    if (io->n == ES_MAX_PATTERNS) {
        return es_fail(detail, ES_ETOOBIG, "there are over %d names and patterns", ES_MAX_PATTERNS);
    }
    copy = es_memdup(pattern.p, pattern.n);
    /* Lists are short and read at start-up or once in a request: they grow one by one. */
    grown = copy == NULL ? NULL : realloc(io->v, (io->n + 1) * sizeof(*grown));
    if (grown == NULL) {
        free(copy);
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    io->v = grown;
    io->v[io->n].p = copy;
    io->v[io->n].n = pattern.n;
    io->n++;
    return ES_OK;
}

es_err_t es_patterns_add_json(es_patterns_t *io, const json_t *list, const char *what,
                              es_detail_t *detail)
{
    size_t count = json_is_array(list) ? json_array_size(list) : 1;
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < count && err == ES_OK; i++) {
        const json_t *one = json_is_array(list) ? json_array_get(list, i) : list;
        if (!json_is_string(one)) {
            return es_fail(detail, ES_EINVAL, "%s is not a list of channel names or patterns",
                           what);
        }
        err = es_patterns_add(io, es_json_str(one), detail);
        if (err != ES_OK && err != ES_ENOMEM) {
            es_detail_prefix(detail, ": ");
            es_detail_prefix(detail, what);
        }
    }
    return err;
}

bool es_patterns_match(const es_patterns_t *patterns, es_str_t text)
{
    size_t i;

    for (i = 0; i < patterns->n; i++) {
        if (es_glob_match(patterns->v[i], text)) {
            return true;
        }
    }
    return false;
}

void es_patterns_free(es_patterns_t *patterns)
{
    size_t i;

    for (i = 0; i < patterns->n; i++) {
        free((char *)patterns->v[i].p);
    }
    free(patterns->v);
    patterns->v = NULL;
    patterns->n = 0;
}
