/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an instruct: made with GRIP's defaults, copied, filled, freed. Also the small
 * questions about header names that decide whether a response is GRIP's business and what of it
 * reaches the client.
 *
 * An es_instruct_t owns all it points to. Its channels are unique by name: a name that is given
 * again replaces what was said before (prev-id, filters) and keeps its place.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

es_instruct_t *es_instruct_new(void)
{
    es_instruct_t *in = calloc(1, sizeof(*in));

    if (in != NULL) {
        in->timeout = ES_DEFAULT_TIMEOUT;
        es_instruct_clear_keep_alive(in);
    }
    return in;
}

void es_instruct_clear_keep_alive(es_instruct_t *in)
{
    free(in->keep_alive);
    in->keep_alive = NULL;
    in->keep_alive_len = 0;
    in->keep_alive_timeout = ES_DEFAULT_TIMEOUT;
    in->keep_alive_mode = ES_KEEP_ALIVE_IDLE;
}

int es_clamp_timeout(int64_t seconds, int least)
{
    if (seconds > INT_MAX) {
        return INT_MAX;
    }
    return seconds < least ? least : (int)seconds;
}

static void sub_spec_clear(es_sub_spec_t *spec)
{
    free(spec->name);
    free(spec->prev_id);
    memset(spec, 0, sizeof(*spec));
}

void es_instruct_free(es_instruct_t *in)
{
    size_t i;

    if (in == NULL) {
        return;
    }
    for (i = 0; i < in->channel_count; i++) {
        sub_spec_clear(&in->channels[i]);
    }
    free(in->channels);
    free(in->keep_alive);
    es_pairs_free(&in->meta);
    free(in->reason);
    for (i = 0; i < in->expose_count; i++) {
        free(in->expose[i]);
    }
    free(in->expose);
    free(in);
}

void es_response_free(es_response_t *response)
{
    if (response == NULL) {
        return;
    }
    free(response->reason);
    es_pairs_free(&response->headers);
    free(response->body);
    free(response);
}

void es_sub_spec_add_filter(es_sub_spec_t *spec, es_str_t name)
{
    es_filter_t filter = es_filter_by_name(name);

    if (filter != ES_FILTER_NONE && spec->filter_count < ES_MAX_FILTERS) {
        spec->filters[spec->filter_count] = (uint8_t)filter;
        spec->filter_count++;
    }
}

static es_err_t check_spec(es_str_t name, es_str_t prev_id, es_detail_t *detail)
{
    if (name.n > ES_MAX_CHANNEL_NAME) {
        return es_fail(detail, ES_ETOOBIG, "channel name '%.*s...' is %zu bytes long, at most %d",
                       ES_FOUND(name), name.n, ES_MAX_CHANNEL_NAME);
    }
    if (prev_id.n > ES_MAX_ID) {
        return es_fail(detail, ES_ETOOBIG,
                       "prev-id of channel '%.*s' is %zu bytes long, at most %d", ES_FOUND(name),
                       prev_id.n, ES_MAX_ID);
    }
    if (!es_text_is_clean(name) || !es_text_is_utf8(name)) {
        return es_fail(detail, ES_EINVAL,
                       "channel name '%.*s' must be UTF-8 without CR, LF and NUL", ES_FOUND(name));
    }
    if (!es_text_is_clean(prev_id) || !es_text_is_utf8(prev_id)) {
        return es_fail(detail, ES_EINVAL,
                       "prev-id of channel '%.*s' must be UTF-8 without CR, LF and NUL",
                       ES_FOUND(name));
    }
    return ES_OK;
}

static es_sub_spec_t *find_channel(const es_instruct_t *in, es_str_t name)
{
    size_t i;

    for (i = 0; i < in->channel_count; i++) {
        es_str_t have = { in->channels[i].name, in->channels[i].name_len };
        if (es_text_equals(have, name)) {
            return &in->channels[i];
        }
    }
    return NULL;
}

es_err_t es_instruct_add_channel(es_instruct_t *in, es_str_t name, es_str_t prev_id,
                                 es_sub_spec_t **ret, es_detail_t *detail)
{
    es_err_t err = check_spec(name, prev_id, detail);
    es_sub_spec_t fresh = { .name = NULL };
    es_sub_spec_t *place;

    if (err != ES_OK) {
        return err;
    }
    place = find_channel(in, name);
    if (place == NULL && in->channel_count == ES_MAX_CHANNELS) {
        in->channels_over++;
        if (ret != NULL) {
            *ret = NULL;
        }
        return ES_OK;
    }
    if (in->channels == NULL) {
        in->channels = calloc(ES_MAX_CHANNELS, sizeof(*in->channels));
        if (in->channels == NULL) {
            return es_fail(detail, ES_ENOMEM, "out of memory");
        }
    }
    fresh.name = es_memdup(name.p, name.n);
    fresh.name_len = name.n;
    fresh.prev_id = prev_id.p == NULL ? NULL : es_memdup(prev_id.p, prev_id.n);
    if (fresh.name == NULL || (prev_id.p != NULL && fresh.prev_id == NULL)) {
        sub_spec_clear(&fresh);
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    if (place != NULL) {
        sub_spec_clear(place);
    }
    else {
        place = &in->channels[in->channel_count];
        in->channel_count++;
    }
    *place = fresh;
    if (ret != NULL) {
        *ret = place;
    }
    return ES_OK;
}

static es_err_t clone_channels(const es_instruct_t *in, es_instruct_t *copy)
{
    size_t i;

    for (i = 0; i < in->channel_count; i++) {
        const es_sub_spec_t *from = &in->channels[i];
        es_str_t name = { from->name, from->name_len };
        es_sub_spec_t *to = NULL;
        es_err_t err = es_instruct_add_channel(copy, name, es_str(from->prev_id), &to, NULL);
        if (err != ES_OK) {
            return err;
        }
        if (to != NULL) {
            memcpy(to->filters, from->filters, sizeof(to->filters));
            to->filter_count = from->filter_count;
        }
    }
    return ES_OK;
}

static es_err_t clone_texts(const es_instruct_t *in, es_instruct_t *copy)
{
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < in->meta.n && err == ES_OK; i++) {
        const es_pair_t *pair = &in->meta.v[i];
        es_str_t value = { pair->value, pair->value_len };
        err = es_pairs_add(&copy->meta, es_str(pair->name), value);
    }
    if (err != ES_OK) {
        return err;
    }
    if (in->keep_alive != NULL) {
        copy->keep_alive = es_memdup(in->keep_alive, in->keep_alive_len);
        if (copy->keep_alive == NULL) {
            return ES_ENOMEM;
        }
        copy->keep_alive_len = in->keep_alive_len;
    }
    if (in->reason != NULL) {
        copy->reason = es_memdup(in->reason, strlen(in->reason));
        if (copy->reason == NULL) {
            return ES_ENOMEM;
        }
    }
    for (i = 0; i < in->expose_count && err == ES_OK; i++) {
        err = es_instruct_add_expose(copy, es_str(in->expose[i]), NULL);
    }
    return err;
}

es_err_t es_instruct_clone(const es_instruct_t *in, es_instruct_t **ret)
{
    es_instruct_t *copy = es_instruct_new();
    es_err_t err;

    if (copy == NULL) {
        return ES_ENOMEM;
    }
    copy->hold = in->hold;
    copy->channels_over = in->channels_over;
    copy->timeout = in->timeout;
    copy->keep_alive_timeout = in->keep_alive_timeout;
    copy->keep_alive_mode = in->keep_alive_mode;
    copy->status = in->status;
    err = clone_channels(in, copy);
    if (err == ES_OK) {
        err = clone_texts(in, copy);
    }
    if (err != ES_OK) {
        es_instruct_free(copy);
        return err;
    }
    *ret = copy;
    return ES_OK;
}

es_err_t es_instruct_add_expose(es_instruct_t *in, es_str_t name, es_detail_t *detail)
{
    char **grown;

    if (!es_text_is_header_name(name)) {
        return es_fail(detail, ES_EINVAL,
                       "Grip-Expose-Headers contains '%.*s', which is not a header name",
                       ES_FOUND(name));
    }
    if (in->expose_count == ES_MAX_HEADERS) {
        return es_fail(detail, ES_ETOOBIG, "Grip-Expose-Headers names over %d headers",
                       ES_MAX_HEADERS);
    }
    grown = realloc(in->expose, (in->expose_count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    in->expose = grown;
    grown[in->expose_count] = es_memdup(name.p, name.n);
    if (grown[in->expose_count] == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    in->expose_count++;
    return ES_OK;
}

bool es_is_grip_header(const char *name)
{
    es_str_t s = es_str(name);

    s.n = s.n > 5 ? 5 : s.n;
    return es_str_is_nocase(s, "Grip-");
}

bool es_is_grip_instruct_type(const char *content_type)
{
    es_str_t rest = es_str(content_type);
    return es_str_is_nocase(es_param_first(&rest), "application/grip-instruct");
}

bool es_instruct_exposes(const es_instruct_t *in, const char *header_name)
{
    static const char *const framing[] = { "Connection", "Keep-Alive", "Content-Length",
                                           "Content-Encoding", "Transfer-Encoding" };
    es_str_t name = es_str(header_name);
    size_t i;

    if (es_is_grip_header(header_name)) {
        return false;
    }
    for (i = 0; i < sizeof(framing) / sizeof(framing[0]); i++) {
        if (es_str_is_nocase(name, framing[i])) {
            return false;
        }
    }
    if (in == NULL || in->expose_count == 0) {
        return true;
    }
    for (i = 0; i < in->expose_count; i++) {
        if (es_str_is_nocase(name, in->expose[i])) {
            return true;
        }
    }
    return false;
}
