/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructs in JSON, both ways: the body of an application/grip-instruct response, and the hold
 * message that travels between processes.
 *
 * Reading works on a copy of `base`, so a failure changes nothing. A member that is absent leaves
 * what the headers said; channels are appended. Extensions to Pushpin's form, needed so that
 * nothing is lost on the wire: keep-alive `mode`, hold `mode` "none", and on the top level
 * `status`, `reason`, `expose-headers`.
 *
 * Deliberate differences from Pushpin: a JSON keep-alive is idle unless told otherwise, and a
 * missing response body is an empty one.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static es_err_t out_of_memory(const es_json_in_t *in)
{
    return es_fail(in->detail, ES_ENOMEM, "out of memory");
}

/* ---- reading ------------------------------------------------------------------------------ */

static es_err_t read_mode(const es_json_in_t *in, const json_t *hold, es_instruct_t *out)
{
    es_str_t mode = { NULL, 0 };
    es_err_t err = es_json_get_text(in, hold, "hold", "mode", false, 64, &mode);

    if (err != ES_OK) {
        return err;
    }
    if (mode.p == NULL || es_str_is(mode, "response")) {
        out->hold = ES_HOLD_RESPONSE;
    }
    else if (es_str_is(mode, "stream")) {
        out->hold = ES_HOLD_STREAM;
    }
    else if (es_str_is(mode, "none")) {
        out->hold = ES_HOLD_NONE;
    }
    else {
        return es_fail(in->detail, ES_EINVAL,
                       "hold contains 'mode' with invalid value '%.*s': accepted are 'response' "
                       "and 'stream'",
                       ES_FOUND(mode));
    }
    return ES_OK;
}

static es_err_t read_filters(const es_json_in_t *in, const json_t *channel, es_sub_spec_t *ret)
{
    json_t *filters = NULL;
    json_t *filter;
    size_t i;
    es_err_t err = es_json_get(in, channel, "channel", "filters", JSON_ARRAY, false, &filters);

    if (err != ES_OK) {
        return err;
    }
    if (json_array_size(filters) > ES_MAX_FILTERS) {
        es_str_t name = es_json_str(json_object_get(channel, "name"));
        return es_fail(in->detail, ES_EINVAL,
                       "too many filters for channel '%.*s': %zu, at most %d", ES_FOUND(name),
                       json_array_size(filters), ES_MAX_FILTERS);
    }
    json_array_foreach(filters, i, filter)
    {
        if (!json_is_string(filter)) {
            return es_fail(in->detail, ES_EINVAL, "filters contains element with wrong type");
        }
        es_sub_spec_add_filter(ret, es_json_str(filter));
    }
    return ES_OK;
}

static es_err_t read_channel(const es_json_in_t *in, const json_t *channel, es_instruct_t *out)
{
    es_str_t name = { NULL, 0 };
    es_str_t prev_id = { NULL, 0 };
    es_sub_spec_t filters = { .name = NULL };
    es_sub_spec_t *spec = NULL;
    es_err_t err;

    if (!json_is_object(channel)) {
        return es_fail(in->detail, ES_EINVAL, "channel is not an object");
    }
    err = es_json_get_text(in, channel, "channel", "name", true, ES_MAX_CHANNEL_NAME, &name);
    if (err == ES_OK) {
        err = es_json_get_text(in, channel, "channel", "prev-id", false, ES_MAX_ID, &prev_id);
    }
    if (err == ES_OK) {
        err = read_filters(in, channel, &filters);
    }
    if (err == ES_OK) {
        err = es_instruct_add_channel(out, name, prev_id, &spec, in->detail);
    }
    if (err == ES_OK && spec != NULL) {
        memcpy(spec->filters, filters.filters, sizeof(spec->filters));
        spec->filter_count = filters.filter_count;
    }
    return err;
}

static es_err_t read_channels(const es_json_in_t *in, const json_t *hold, es_instruct_t *out)
{
    json_t *channels = NULL;
    json_t *channel;
    size_t i;
    es_err_t err = es_json_get(in, hold, "hold", "channels", JSON_ARRAY, true, &channels);

    if (err != ES_OK) {
        return err;
    }
    json_array_foreach(channels, i, channel)
    {
        err = read_channel(in, channel, out);
        if (err != ES_OK) {
            return err;
        }
    }
    return ES_OK;
}

static es_err_t read_keep_alive_mode(const es_json_in_t *in, const json_t *ka, es_instruct_t *out)
{
    es_str_t mode = { NULL, 0 };
    es_err_t err = es_json_get_text(in, ka, "keep-alive", "mode", false, 64, &mode);

    if (err != ES_OK) {
        return err;
    }
    if (mode.p == NULL || es_str_is(mode, "idle")) {
        out->keep_alive_mode = ES_KEEP_ALIVE_IDLE;
    }
    else if (es_str_is(mode, "interval")) {
        out->keep_alive_mode = ES_KEEP_ALIVE_INTERVAL;
    }
    else {
        return es_fail(in->detail, ES_EINVAL,
                       "keep-alive contains 'mode' with invalid value '%.*s': accepted are 'idle' "
                       "and 'interval'",
                       ES_FOUND(mode));
    }
    return ES_OK;
}

static es_err_t read_keep_alive(const es_json_in_t *in, const json_t *hold, es_instruct_t *out)
{
    json_t *ka = NULL;
    int64_t timeout = ES_DEFAULT_TIMEOUT;
    es_err_t err = es_json_get(in, hold, "hold", "keep-alive", JSON_OBJECT, false, &ka);

    if (err != ES_OK || ka == NULL) {
        return err;
    }
    es_instruct_clear_keep_alive(out);
    err = es_json_get_int(in, ka, "keep-alive", "timeout", 0, INT_MAX, &timeout);
    if (err == ES_OK) {
        err = read_keep_alive_mode(in, ka, out);
    }
    if (err == ES_OK) {
        err = es_json_get_content(in, ka, "keep-alive", "content", "content-bin", &out->keep_alive,
                                  &out->keep_alive_len);
    }
    if (err != ES_OK) {
        return err;
    }
    if (out->keep_alive_len > ES_MAX_KEEP_ALIVE) {
        return es_fail(in->detail, ES_ETOOBIG, "keep-alive contains %zu bytes, at most %d",
                       out->keep_alive_len, ES_MAX_KEEP_ALIVE);
    }
    out->keep_alive_timeout = es_clamp_timeout(timeout, ES_MIN_KEEP_ALIVE);
    if (out->keep_alive_len == 0) {
        /* Nothing to send: no keep-alive. This is also how JSON turns the headers' one off. */
        es_instruct_clear_keep_alive(out);
    }
    return ES_OK;
}

static es_err_t read_hold(const es_json_in_t *in, const json_t *root, es_instruct_t *out)
{
    json_t *hold = NULL;
    int64_t timeout = -1;
    es_err_t err = es_json_get(in, root, "instruct", "hold", JSON_OBJECT, false, &hold);

    if (err != ES_OK || hold == NULL) {
        return err;
    }
    err = read_mode(in, hold, out);
    if (err == ES_OK) {
        err = read_channels(in, hold, out);
    }
    if (err == ES_OK) {
        err = es_json_get_int(in, hold, "hold", "timeout", 0, INT_MAX, &timeout);
    }
    if (err == ES_OK && timeout >= 0) {
        out->timeout = es_clamp_timeout(timeout, ES_MIN_TIMEOUT);
    }
    if (err == ES_OK) {
        err = read_keep_alive(in, hold, out);
    }
    if (err == ES_OK) {
        err = es_json_get_meta(in, hold, "hold", &out->meta, NULL);
    }
    return err;
}

static es_err_t read_expose(const es_json_in_t *in, const json_t *root, es_instruct_t *out)
{
    json_t *names = NULL;
    json_t *name;
    size_t i;
    es_err_t err = es_json_get(in, root, "instruct", "expose-headers", JSON_ARRAY, false, &names);

    if (err != ES_OK || names == NULL) {
        return err;
    }
    for (i = 0; i < out->expose_count; i++) {
        free(out->expose[i]);
    }
    out->expose_count = 0;
    json_array_foreach(names, i, name)
    {
        if (!json_is_string(name)) {
            return es_fail(in->detail, ES_EINVAL,
                           "expose-headers contains element with wrong type");
        }
        err = es_instruct_add_expose(out, es_json_str(name), in->detail);
        if (err != ES_OK) {
            return err;
        }
    }
    return ES_OK;
}

static es_err_t read_status(const es_json_in_t *in, const json_t *root, es_instruct_t *out)
{
    int64_t status = 0;
    es_str_t reason = { NULL, 0 };
    es_err_t err = es_json_get_int(in, root, "instruct", "status", 100, 999, &status);

    if (err == ES_OK) {
        err = es_json_get_text(in, root, "instruct", "reason", false, ES_MAX_REASON, &reason);
    }
    if (err != ES_OK || status == 0) {
        return err;
    }
    out->status = (int)status;
    free(out->reason);
    out->reason = NULL;
    if (reason.n > 0) {
        out->reason = es_memdup(reason.p, reason.n);
        if (out->reason == NULL) {
            return out_of_memory(in);
        }
    }
    return ES_OK;
}

static es_err_t read_response(const es_json_in_t *in, const json_t *root, es_response_t **ret)
{
    json_t *value = NULL;
    es_response_t *response;
    bool has_body;
    es_err_t err = es_json_get(in, root, "instruct", "response", JSON_OBJECT, false, &value);

    if (err != ES_OK) {
        return err;
    }
    response = calloc(1, sizeof(*response));
    if (response == NULL) {
        return out_of_memory(in);
    }
    err = es_json_get_response(in, value, "response", response, &has_body);
    if (err != ES_OK) {
        free(response);
        return err;
    }
    *ret = response;
    return ES_OK;
}

static es_err_t parse_instruct(const char *json, size_t len, size_t max, json_t **ret,
                               es_detail_t *detail)
{
    json_t *root = NULL;
    es_err_t err;

    if (len > max) {
        return es_fail(detail, ES_ETOOBIG,
                       "application/grip-instruct content is %zu bytes long, at most %zu", len,
                       max);
    }
    err = es_json_parse(json, len, &root, detail);
    if (err == ES_EINVAL) {
        es_detail_prefix(detail, "failed to parse application/grip-instruct content as JSON: ");
    }
    if (err != ES_OK) {
        return err;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return es_fail(detail, ES_EINVAL, "instruct must be an object, found a list");
    }
    *ret = root;
    return ES_OK;
}

es_err_t es_instruct_from_json(const es_instruct_t *base, const char *json, size_t len,
                               es_instruct_t **ret, es_response_t **ret_response,
                               es_detail_t *detail)
{
    es_json_in_t in = { detail, true, false };
    size_t max = ret_response == NULL ? ES_MAX_INSTRUCT_WIRE : ES_MAX_INSTRUCT_BODY;
    es_instruct_t *out = NULL;
    es_response_t *response = NULL;
    json_t *root = NULL;
    es_err_t err = parse_instruct(json, len, max, &root, detail);

    if (err != ES_OK) {
        return err;
    }
    if (base != NULL) {
        err = es_instruct_clone(base, &out);
    }
    else {
        out = es_instruct_new();
        err = out == NULL ? ES_ENOMEM : ES_OK;
    }
    if (err != ES_OK) {
        err = out_of_memory(&in);
        goto cleanup;
    }
    err = read_hold(&in, root, out);
    if (err == ES_OK) {
        err = read_status(&in, root, out);
    }
    if (err == ES_OK) {
        err = read_expose(&in, root, out);
    }
    if (err == ES_OK && ret_response != NULL) {
        err = read_response(&in, root, &response);
    }
    if (err != ES_OK) {
        goto cleanup;
    }
    *ret = out;
    out = NULL;
    if (ret_response != NULL) {
        *ret_response = response;
    }
cleanup:
    es_instruct_free(out);
    json_decref(root);
    return err;
}
