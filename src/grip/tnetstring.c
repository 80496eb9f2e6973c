/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tnetstrings (`LENGTH:PAYLOAD TYPE`, nothing between them) to jansson values, so that items have
 * one parser whatever they came in. Types: `,` string, `#` integer, `^` float, `!` boolean,
 * `~` null, `}` map, `]` list.
 *
 * Strings stay the bytes that they are: jansson's _nocheck functions store them unverified. Such a
 * value must never be dumped as JSON without a check.
 *
 * Depth and the number of values are capped: three bytes of input make a map, which costs a
 * hundred times as much in memory.
 */
#include "grip_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct es_tnet {
    const char *start; /* of the whole input, for offsets in error sentences */
    size_t values;
    es_detail_t *detail;
} es_tnet_t;

static es_err_t parse_value(es_tnet_t *t, es_str_t *rest, int depth, json_t **ret);

static es_err_t bad(es_tnet_t *t, const char *at, const char *what)
{
    return es_fail(t->detail, ES_EINVAL, "tnetstring is broken at byte %zu: %s",
                   (size_t)(at - t->start), what);
}

/* Splits one value off: its payload and its type. */
static es_err_t take_frame(es_tnet_t *t, es_str_t *rest, es_str_t *ret_payload, char *ret_type)
{
    const char *at = rest->p;
    size_t len = 0;
    size_t i = 0;

    while (i < rest->n && rest->p[i] >= '0' && rest->p[i] <= '9') {
        if (i == 9) {
            return bad(t, at, "the length has over 9 digits");
        }
        len = len * 10 + (size_t)(rest->p[i] - '0');
        i++;
    }
    if (i == 0 || i == rest->n || rest->p[i] != ':') {
        return bad(t, at + i, "a length and ':' were expected");
    }
    i++;
    if (len >= rest->n - i) {
        return bad(t, at, "the length goes past the end");
    }
    ret_payload->p = rest->p + i;
    ret_payload->n = len;
    *ret_type = rest->p[i + len];
    rest->p += i + len + 1;
    rest->n -= i + len + 1;
    return ES_OK;
}

static es_err_t parse_number(es_tnet_t *t, es_str_t payload, bool whole, json_t **ret)
{
    char text[64];
    char *end = NULL;
    double real;
    int64_t number;

    if (whole) {
        if (!es_str_to_int(payload, &number)) {
            return bad(t, payload.p, "an integer of at most 18 digits was expected");
        }
        *ret = json_integer(number);
        return ES_OK;
    }
    if (payload.n == 0 || payload.n >= sizeof(text) ||
        strchr("+-.0123456789", payload.p[0]) == NULL || payload.p[0] == '\0') {
        return bad(t, payload.p, "a float was expected");
    }
    memcpy(text, payload.p, payload.n);
    text[payload.n] = '\0';
    real = strtod(text, &end);
    if (end != text + payload.n || !isfinite(real)) {
        return bad(t, payload.p, "a float was expected");
    }
    *ret = json_real(real);
    return ES_OK;
}

/* Reads the key of a map's next pair; the caller frees it. */
static es_err_t parse_key(es_tnet_t *t, es_str_t *rest, char **ret)
{
    es_str_t key;
    char type;
    es_err_t err = take_frame(t, rest, &key, &type);

    if (err != ES_OK) {
        return err;
    }
    if (type != ',' || (key.n > 0 && memchr(key.p, '\0', key.n) != NULL)) {
        return bad(t, key.p, "a map's key must be a string without NUL");
    }
    *ret = es_memdup(key.p, key.n);
    return *ret == NULL ? ES_ENOMEM : ES_OK;
}

static es_err_t parse_map(es_tnet_t *t, es_str_t rest, int depth, json_t **ret)
{
    json_t *map = json_object();
    es_err_t err = map == NULL ? ES_ENOMEM : ES_OK;

    while (rest.n > 0 && err == ES_OK) {
        char *key = NULL;
        json_t *value = NULL;
        err = parse_key(t, &rest, &key);
        if (err == ES_OK) {
            err = parse_value(t, &rest, depth + 1, &value);
        }
        if (err == ES_OK && json_object_set_new_nocheck(map, key, value) != 0) {
            err = ES_ENOMEM;
        }
        free(key);
    }
    if (err != ES_OK) {
        json_decref(map);
        return err;
    }
    *ret = map;
    return ES_OK;
}

static es_err_t parse_list(es_tnet_t *t, es_str_t rest, int depth, json_t **ret)
{
    json_t *list = json_array();
    es_err_t err = list == NULL ? ES_ENOMEM : ES_OK;

    while (rest.n > 0 && err == ES_OK) {
        json_t *value = NULL;
        err = parse_value(t, &rest, depth + 1, &value);
        if (err == ES_OK && json_array_append_new(list, value) != 0) {
            err = ES_ENOMEM;
        }
    }
    if (err != ES_OK) {
        json_decref(list);
        return err;
    }
    *ret = list;
    return ES_OK;
}

static es_err_t parse_payload(es_tnet_t *t, es_str_t payload, char type, int depth, json_t **ret)
{
    switch (type) {
    case ',':
        *ret = json_stringn_nocheck(payload.p, payload.n);
        return ES_OK;
    case '#':
        return parse_number(t, payload, true, ret);
    case '^':
        return parse_number(t, payload, false, ret);
    case '!':
        if (!es_str_is(payload, "true") && !es_str_is(payload, "false")) {
            return bad(t, payload.p, "'true' or 'false' was expected");
        }
        *ret = json_boolean(payload.n == 4);
        return ES_OK;
    case '~':
        if (payload.n != 0) {
            return bad(t, payload.p, "a null has no payload");
        }
        *ret = json_null();
        return ES_OK;
    case '}':
        return parse_map(t, payload, depth, ret);
    case ']':
        return parse_list(t, payload, depth, ret);
    default:
        return bad(t, payload.p + payload.n, "unknown type, accepted are , # ^ ! ~ } ]");
    }
}

static es_err_t parse_value(es_tnet_t *t, es_str_t *rest, int depth, json_t **ret)
{
    json_t *value = NULL;
    es_str_t payload;
    char type;
    es_err_t err;

    if (depth > ES_MAX_TNET_DEPTH) {
        return es_fail(t->detail, ES_ETOOBIG, "tnetstring is nested over %d deep",
                       ES_MAX_TNET_DEPTH);
    }
    if (t->values == ES_MAX_TNET_VALUES) {
        return es_fail(t->detail, ES_ETOOBIG, "tnetstring holds over %d values",
                       ES_MAX_TNET_VALUES);
    }
    t->values++;
    err = take_frame(t, rest, &payload, &type);
    if (err == ES_OK) {
        err = parse_payload(t, payload, type, depth, &value);
    }
    if (err != ES_OK) {
        return err;
    }
    if (value == NULL) {
        return ES_ENOMEM;
    }
    *ret = value;
    return ES_OK;
}

es_err_t es_tnetstring_parse(es_str_t in, json_t **ret, es_detail_t *detail)
{
    es_tnet_t t = { in.p, 0, detail };
    json_t *value = NULL;
    es_err_t err = parse_value(&t, &in, 1, &value);

    if (err == ES_ENOMEM) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    if (err != ES_OK) {
        return err;
    }
    if (in.n > 0) {
        json_decref(value);
        return bad(&t, in.p, "there is more after the value");
    }
    *ret = value;
    return ES_OK;
}
