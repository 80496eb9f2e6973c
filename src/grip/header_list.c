/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar of Grip-* header values, which is Pushpin's and not quite RFC 9110's:
 *
 *  - a list is split at commas outside "...", where a backslash takes the next byte with it;
 *    an empty value has no element, "a,,b" has an empty one, a trailing comma adds none;
 *  - an element is a first value, up to the first ';' and with any quotes kept as they stand, and
 *    then parameters `name[=value]` between ';';
 *  - a parameter's value is quoted only when the quote stands right after '='; what follows the
 *    closing quote is ignored up to the next ';'.
 *
 * The functions walk over the caller's bytes; nothing is copied but the quoted values.
 */
#include "grip_int.h"

#include <string.h>

/* An absent string is NULL, and NULL + 0 is not defined. */
static es_str_t sub(es_str_t s, size_t from, size_t to)
{
    es_str_t part = { from == 0 ? s.p : s.p + from, to - from };
    return part;
}

es_err_t es_list_next(es_str_t *rest, es_str_t *ret)
{
    bool quoted = false;
    size_t i;

    if (rest->n == 0) {
        return ES_ENOENT;
    }
    for (i = 0; i < rest->n; i++) {
        char c = rest->p[i];
        if (c == '"') {
            quoted = !quoted;
        }
        else if (c == '\\' && quoted) {
            i++;
        }
        else if (c == ',' && !quoted) {
            break;
        }
    }
    if (quoted) {
        return ES_EINVAL;
    }
    *ret = es_str_trim(sub(*rest, 0, i));
    *rest = i < rest->n ? sub(*rest, i + 1, rest->n) : sub(*rest, rest->n, rest->n);
    return ES_OK;
}

/* Takes everything up to the next ';' and the ';' itself. */
static es_str_t take_piece(es_str_t *rest)
{
    const char *end = rest->n == 0 ? NULL : memchr(rest->p, ';', rest->n);
    size_t n = end == NULL ? rest->n : (size_t)(end - rest->p);
    es_str_t piece = sub(*rest, 0, n);

    *rest = sub(*rest, end == NULL ? n : n + 1, rest->n);
    return piece;
}

es_str_t es_param_first(es_str_t *rest)
{
    return es_str_trim(take_piece(rest));
}

/* `rest` stands behind the opening quote. */
static es_err_t take_quoted(es_str_t *rest, es_buf_t *scratch, es_str_t *ret)
{
    size_t i;

    es_buf_free(scratch);
    for (i = 0; i < rest->n && rest->p[i] != '"'; i++) {
        es_err_t err;
        if (rest->p[i] == '\\') {
            i++;
            if (i == rest->n) {
                return ES_EINVAL;
            }
        }
        err = es_buf_add(scratch, rest->p + i, 1);
        if (err != ES_OK) {
            return err;
        }
    }
    if (i == rest->n) {
        return ES_EINVAL;
    }
    *rest = sub(*rest, i + 1, rest->n);
    take_piece(rest);
    ret->p = scratch->n > 0 ? scratch->p : "";
    ret->n = scratch->n;
    return ES_OK;
}

es_err_t es_param_next(es_str_t *rest, es_buf_t *scratch, es_str_t *ret_name, es_str_t *ret_value)
{
    es_str_t name, value;
    size_t i = 0;
    es_err_t err;

    while (i < rest->n && rest->p[i] != ';' && rest->p[i] != '=') {
        i++;
    }
    if (rest->n == 0) {
        return ES_ENOENT;
    }
    name = es_str_trim(sub(*rest, 0, i));
    if (i < rest->n && rest->p[i] == '=') {
        *rest = sub(*rest, i + 1, rest->n);
        if (rest->n > 0 && rest->p[0] == '"') {
            *rest = sub(*rest, 1, rest->n);
            err = take_quoted(rest, scratch, &value);
            if (err != ES_OK) {
                return err;
            }
        }
        else {
            value = es_str_trim(take_piece(rest));
        }
    }
    else {
        take_piece(rest);
        value = es_str("");
    }
    *ret_name = name;
    *ret_value = value;
    return ES_OK;
}
