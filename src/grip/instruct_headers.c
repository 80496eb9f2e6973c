/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Grip-* response headers to an instruct.
 *
 * List headers (Grip-Channel, Grip-Set-Meta, Grip-Expose-Headers) may occur several times and count
 * as one list; of the others the first occurrence counts. The error sentences begin as Pushpin's
 * and go on with what was found. Stricter than Pushpin in one point: an element whose quote is not
 * closed is an error, where Pushpin would leave the channel out in silence and nobody would know
 * why its messages never arrive.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct es_header_set {
    const es_header_t *v;
    size_t n;
} es_header_set_t;

static es_err_t out_of_memory(es_detail_t *detail)
{
    return es_fail(detail, ES_ENOMEM, "out of memory");
}

/* The trimmed value of the next header of that name at or after *io_at. */
static bool next_value(es_header_set_t headers, const char *name, size_t *io_at, es_str_t *ret)
{
    size_t i;

    for (i = *io_at; i < headers.n; i++) {
        if (es_str_is_nocase(es_str(headers.v[i].name), name)) {
            *ret = es_str_trim(es_str(headers.v[i].value));
            *io_at = i + 1;
            return true;
        }
    }
    return false;
}

static bool first_value(es_header_set_t headers, const char *name, es_str_t *ret)
{
    size_t at = 0;
    return next_value(headers, name, &at, ret);
}

/* Runs `each` over the elements of all occurrences of a list header. */
static es_err_t each_element(es_header_set_t headers, const char *name, es_instruct_t *in,
                             es_err_t (*each)(es_instruct_t *, es_str_t, es_detail_t *),
                             es_detail_t *detail)
{
    size_t at = 0;
    es_str_t rest, element;

    while (next_value(headers, name, &at, &rest)) {
        es_str_t whole = rest;
        es_err_t err = es_list_next(&rest, &element);
        while (err == ES_OK) {
            err = each(in, element, detail);
            if (err != ES_OK) {
                return err;
            }
            err = es_list_next(&rest, &element);
        }
        if (err != ES_ENOENT) {
            return es_fail(detail, ES_EINVAL, "failed to parse %s: a quote is not closed in '%.*s'",
                           name, ES_FOUND(whole));
        }
    }
    return ES_OK;
}

static es_err_t read_hold(es_header_set_t headers, es_instruct_t *in, es_detail_t *detail)
{
    es_str_t value;

    if (!first_value(headers, "Grip-Hold", &value)) {
        return ES_OK;
    }
    if (es_str_is(value, "response")) {
        in->hold = ES_HOLD_RESPONSE;
    }
    else if (es_str_is(value, "stream")) {
        in->hold = ES_HOLD_STREAM;
    }
    else {
        return es_fail(detail, ES_EINVAL,
                       "Grip-Hold must be set to either 'response' or 'stream', found '%.*s'",
                       ES_FOUND(value));
    }
    return ES_OK;
}

typedef struct es_channel_params {
    char *prev_id; /* owned; NULL: none */
    size_t prev_id_len;
    es_sub_spec_t spec; /* the filters alone */
    size_t filters;     /* how many were given, known or not */
} es_channel_params_t;

static es_err_t read_channel_params(es_str_t rest, es_channel_params_t *ret, es_detail_t *detail)
{
    es_str_t name, value;
    es_buf_t scratch;
    es_err_t err;

    es_buf_init(&scratch, rest.n);
    err = es_param_next(&rest, &scratch, &name, &value);
    while (err == ES_OK) {
        /* Pushpin knows prev-id in any case of letters, filter in this one only. */
        if (es_str_is_nocase(name, "prev-id") && ret->prev_id == NULL) {
            ret->prev_id = es_memdup(value.p, value.n);
            ret->prev_id_len = value.n;
            if (ret->prev_id == NULL) {
                err = ES_ENOMEM;
                break;
            }
        }
        else if (es_str_is(name, "filter")) {
            ret->filters++;
            es_sub_spec_add_filter(&ret->spec, value);
        }
        err = es_param_next(&rest, &scratch, &name, &value);
    }
    es_buf_free(&scratch);
    if (err == ES_ENOMEM) {
        return out_of_memory(detail);
    }
    return err == ES_ENOENT ? ES_OK : err;
}

static es_err_t read_channel(es_instruct_t *in, es_str_t element, es_detail_t *detail)
{
    es_channel_params_t params = { .prev_id = NULL };
    es_str_t rest = element;
    es_str_t name = es_param_first(&rest);
    es_str_t prev_id;
    es_sub_spec_t *spec;
    es_err_t err;

    err = read_channel_params(rest, &params, detail);
    if (err == ES_EINVAL) {
        err = es_fail(detail, ES_EINVAL,
                      "failed to parse Grip-Channel: a quoted value is broken in '%.*s'",
                      ES_FOUND(element));
    }
    if (err == ES_OK && params.filters > ES_MAX_FILTERS) {
        err = es_fail(detail, ES_EINVAL,
                      "too many filters for channel '%.*s': Grip-Channel has %zu, at most %d",
                      ES_FOUND(name), params.filters, ES_MAX_FILTERS);
    }
    if (err != ES_OK) {
        goto cleanup;
    }
    prev_id.p = params.prev_id;
    prev_id.n = params.prev_id_len;
    err = es_instruct_add_channel(in, name, prev_id, &spec, detail);
    if (err != ES_OK && err != ES_ENOMEM) {
        es_detail_prefix(detail, "Grip-Channel: ");
    }
    if (err != ES_OK) {
        goto cleanup;
    }
    if (spec != NULL) {
        memcpy(spec->filters, params.spec.filters, sizeof(spec->filters));
        spec->filter_count = params.spec.filter_count;
    }
cleanup:
    free(params.prev_id);
    return err;
}

static es_err_t read_meta(es_instruct_t *in, es_str_t element, es_detail_t *detail)
{
    es_str_t rest = element;
    es_str_t name, value;
    es_buf_t scratch;
    es_err_t err;

    es_buf_init(&scratch, rest.n);
    err = es_param_next(&rest, &scratch, &name, &value);
    if (err == ES_ENOENT || (err == ES_OK && name.n == 0)) {
        err = es_fail(detail, ES_EINVAL,
                      "Grip-Set-Meta cannot be empty: found '%.*s', accepted name=\"value\"",
                      ES_FOUND(element));
    }
    else if (err == ES_EINVAL) {
        es_fail(detail, err, "failed to parse Grip-Set-Meta: a quoted value is broken in '%.*s'",
                ES_FOUND(element));
    }
    else if (err != ES_OK) {
        err = out_of_memory(detail);
    }
    else if (!es_text_is_utf8(name) || !es_text_is_utf8(value)) {
        err = es_fail(detail, ES_EINVAL, "Grip-Set-Meta must be UTF-8, found '%.*s'",
                      ES_FOUND(element));
    }
    else {
        err = es_meta_set(&in->meta, "Grip-Set-Meta", name, value, detail);
    }
    es_buf_free(&scratch);
    return err;
}

static es_err_t read_expose(es_instruct_t *in, es_str_t element, es_detail_t *detail)
{
    return element.n == 0 ? ES_OK : es_instruct_add_expose(in, element, detail);
}

static es_err_t read_timeout(es_header_set_t headers, es_instruct_t *in, es_detail_t *detail)
{
    es_str_t value;
    int64_t seconds;

    if (!first_value(headers, "Grip-Timeout", &value)) {
        return ES_OK;
    }
    if (!es_str_to_int(value, &seconds) || seconds > INT_MAX) {
        return es_fail(detail, ES_EINVAL,
                       "failed to parse Grip-Timeout: found '%.*s', accepted are whole seconds",
                       ES_FOUND(value));
    }
    if (seconds < 0) {
        return es_fail(detail, ES_EINVAL,
                       "Grip-Timeout has invalid value '%.*s': accepted is 0 or more",
                       ES_FOUND(value));
    }
    in->timeout = es_clamp_timeout(seconds, ES_MIN_TIMEOUT);
    return ES_OK;
}

static es_err_t read_status(es_header_set_t headers, es_instruct_t *in, es_detail_t *detail)
{
    es_str_t value, code, reason;
    size_t i = 0;
    int64_t number;

    if (!first_value(headers, "Grip-Status", &value)) {
        return ES_OK;
    }
    while (i < value.n && value.p[i] != ' ') {
        i++;
    }
    code.p = value.p;
    code.n = i;
    reason.p = value.p + i;
    reason.n = value.n - i;
    reason = es_str_trim(reason);
    if (!es_str_to_int(code, &number) || number < 100 || number > 999) {
        return es_fail(detail, ES_EINVAL,
                       "Grip-Status contains invalid status code '%.*s': accepted is 100 to 999",
                       ES_FOUND(code));
    }
    if (reason.n > ES_MAX_REASON) {
        return es_fail(detail, ES_ETOOBIG, "Grip-Status has a reason of %zu bytes, at most %d",
                       reason.n, ES_MAX_REASON);
    }
    if (!es_text_is_clean(reason) || !es_text_is_utf8(reason)) {
        return es_fail(detail, ES_EINVAL,
                       "Grip-Status has a reason that is not UTF-8 without CR and LF: '%.*s'",
                       ES_FOUND(reason));
    }
    in->status = (int)number;
    if (reason.n > 0) {
        in->reason = es_memdup(reason.p, reason.n);
        if (in->reason == NULL) {
            return out_of_memory(detail);
        }
    }
    return ES_OK;
}

/* ---- Grip-Keep-Alive ---------------------------------------------------------------------- */

typedef enum es_ka_format { ES_KA_RAW, ES_KA_CSTRING, ES_KA_BASE64 } es_ka_format_t;

static es_err_t read_keep_alive_param(es_instruct_t *in, es_str_t name, es_str_t value,
                                      es_ka_format_t *io_format, es_detail_t *detail)
{
    int64_t seconds;

    if (es_str_is_nocase(name, "format")) {
        if (!es_str_is(value, "raw") && !es_str_is(value, "cstring") &&
            !es_str_is(value, "base64")) {
            return es_fail(detail, ES_EINVAL,
                           "no such Grip-Keep-Alive format '%.*s': accepted are raw, cstring and "
                           "base64",
                           ES_FOUND(value));
        }
        *io_format =
            value.p[0] == 'r' ? ES_KA_RAW : (value.p[0] == 'c' ? ES_KA_CSTRING : ES_KA_BASE64);
    }
    else if (es_str_is_nocase(name, "mode")) {
        if (!es_str_is(value, "idle") && !es_str_is(value, "interval")) {
            return es_fail(detail, ES_EINVAL,
                           "no such Grip-Keep-Alive mode '%.*s': accepted are idle and interval",
                           ES_FOUND(value));
        }
        in->keep_alive_mode =
            es_str_is(value, "idle") ? ES_KEEP_ALIVE_IDLE : ES_KEEP_ALIVE_INTERVAL;
    }
    else if (es_str_is_nocase(name, "timeout")) {
        if (!es_str_to_int(value, &seconds) || seconds > INT_MAX) {
            return es_fail(detail, ES_EINVAL,
                           "failed to parse Grip-Keep-Alive timeout value '%.*s': accepted are "
                           "whole seconds",
                           ES_FOUND(value));
        }
        if (seconds < 0) {
            return es_fail(detail, ES_EINVAL,
                           "Grip-Keep-Alive timeout has invalid value '%.*s': accepted is 0 or "
                           "more",
                           ES_FOUND(value));
        }
        in->keep_alive_timeout = es_clamp_timeout(seconds, ES_MIN_KEEP_ALIVE);
    }
    return ES_OK;
}

static es_err_t read_keep_alive_params(es_str_t rest, es_instruct_t *in, es_ka_format_t *ret_format,
                                       es_detail_t *detail)
{
    es_str_t whole = rest;
    es_str_t name, value;
    es_buf_t scratch;
    es_err_t err;

    es_buf_init(&scratch, rest.n);
    err = es_param_next(&rest, &scratch, &name, &value);
    while (err == ES_OK) {
        err = read_keep_alive_param(in, name, value, ret_format, detail);
        if (err != ES_OK) {
            goto cleanup;
        }
        err = es_param_next(&rest, &scratch, &name, &value);
    }
    if (err == ES_ENOENT) {
        err = ES_OK;
    }
    else if (err == ES_EINVAL) {
        es_fail(detail, err, "failed to parse Grip-Keep-Alive: a quoted value is broken in '%.*s'",
                ES_FOUND(whole));
    }
    else {
        err = out_of_memory(detail);
    }
cleanup:
    es_buf_free(&scratch);
    return err;
}

static es_err_t decode_keep_alive(es_str_t content, es_ka_format_t format, es_instruct_t *in,
                                  es_detail_t *detail)
{
    es_err_t err = ES_OK;

    if (format == ES_KA_CSTRING) {
        err = es_cstring_decode(content, &in->keep_alive, &in->keep_alive_len, detail);
        if (err == ES_EINVAL) {
            es_detail_prefix(detail, "failed to parse Grip-Keep-Alive cstring format: ");
        }
    }
    else if (format == ES_KA_BASE64) {
        err = es_base64_decode(content, false, &in->keep_alive, &in->keep_alive_len);
    }
    else {
        in->keep_alive = es_memdup(content.p, content.n);
        in->keep_alive_len = content.n;
        err = in->keep_alive == NULL ? ES_ENOMEM : ES_OK;
    }
    if (err == ES_ENOMEM) {
        return out_of_memory(detail);
    }
    if (err == ES_OK && in->keep_alive_len == 0) {
        return es_fail(detail, ES_EINVAL, "Grip-Keep-Alive cannot be empty");
    }
    if (err == ES_OK && in->keep_alive_len > ES_MAX_KEEP_ALIVE) {
        return es_fail(detail, ES_ETOOBIG, "Grip-Keep-Alive is %zu bytes long, at most %d",
                       in->keep_alive_len, ES_MAX_KEEP_ALIVE);
    }
    return err;
}

static es_err_t read_keep_alive(es_header_set_t headers, es_instruct_t *in, es_detail_t *detail)
{
    es_ka_format_t format = ES_KA_RAW;
    es_str_t rest, content;
    es_err_t err;

    if (!first_value(headers, "Grip-Keep-Alive", &rest)) {
        return ES_OK;
    }
    content = es_param_first(&rest);
    if (content.n == 0) {
        return es_fail(detail, ES_EINVAL, "Grip-Keep-Alive cannot be empty");
    }
    err = read_keep_alive_params(rest, in, &format, detail);
    if (err != ES_OK) {
        return err;
    }
    return decode_keep_alive(content, format, in, detail);
}

es_err_t es_instruct_from_headers(const es_header_t *headers, size_t count, es_instruct_t **ret,
                                  es_detail_t *detail)
{
    es_header_set_t set = { headers, count };
    es_instruct_t *in = es_instruct_new();
    es_err_t err;

    if (in == NULL) {
        return out_of_memory(detail);
    }
    err = read_hold(set, in, detail);
    if (err == ES_OK) {
        err = each_element(set, "Grip-Channel", in, read_channel, detail);
    }
    if (err == ES_OK) {
        err = read_timeout(set, in, detail);
    }
    if (err == ES_OK) {
        err = each_element(set, "Grip-Expose-Headers", in, read_expose, detail);
    }
    if (err == ES_OK) {
        err = read_keep_alive(set, in, detail);
    }
    if (err == ES_OK) {
        err = each_element(set, "Grip-Set-Meta", in, read_meta, detail);
    }
    if (err == ES_OK) {
        err = read_status(set, in, detail);
    }
    if (err != ES_OK) {
        es_instruct_free(in);
        return err;
    }
    *ret = in;
    return ES_OK;
}
