/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a URL to channels. One name at a time: decode, check, compare with the patterns, put the
 * prefix before it. Every cap is checked before memory is spent: a URL with ten thousand names
 * costs no more than its first twenty-one.
 *
 * Asked names are compared for duplicates, and that is enough: prefix and quoting make different
 * names of different ones.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

bool es_channel_prefix_quotes(const char *prefix)
{
    static const char end[] = "events-";
    size_t n = prefix == NULL ? 0 : strlen(prefix);

    return n >= sizeof(end) - 1 && strcmp(prefix + n - (sizeof(end) - 1), end) == 0;
}

static const char *param_of(const es_channel_rules_t *rules)
{
    return rules->param == NULL ? "channel" : rules->param;
}

static es_err_t check_name(es_str_t asked, es_detail_t *detail)
{
    if (asked.n == 0) {
        return es_fail(detail, ES_EINVAL, "a channel's name is empty");
    }
    if (asked.n > ES_MAX_CHANNEL_NAME) {
        return es_fail(detail, ES_ETOOBIG, "a channel's name is %zu bytes long, at most %d",
                       asked.n, ES_MAX_CHANNEL_NAME);
    }
    if (!es_text_is_clean(asked)) {
        return es_fail(detail, ES_EINVAL, "the channel's name '%.*s' holds CR, LF or NUL",
                       ES_FOUND(asked));
    }
    if (!es_text_is_utf8(asked)) {
        return es_fail(detail, ES_EINVAL, "the channel's name '%.*s' is not UTF-8",
                       ES_FOUND(asked));
    }
    return ES_OK;
}

static bool is_there(const es_channels_t *channels, es_str_t asked)
{
    size_t i;

    for (i = 0; i < channels->n; i++) {
        if (es_text_equals(es_str(channels->v[i].asked), asked)) {
            return true;
        }
    }
    for (i = 0; i < channels->refused_count; i++) {
        if (es_text_equals(es_str(channels->refused[i]), asked)) {
            return true;
        }
    }
    return false;
}

/* Prefix and name. */
static es_err_t make_name(const es_channel_rules_t *rules, es_str_t asked, char **ret,
                          es_detail_t *detail)
{
    es_str_t prefix = es_str(rules->prefix);
    es_buf_t b;
    es_err_t err;

    es_buf_init(&b, ES_MAX_CHANNEL_NAME);
    err = es_buf_add(&b, prefix.p, prefix.n);
    if (err == ES_OK) {
        err = rules->quote ? es_query_quote(asked, &b) : es_buf_add(&b, asked.p, asked.n);
    }
    if (err == ES_OK) {
        *ret = es_buf_steal(&b, NULL);
        err = *ret == NULL ? ES_ENOMEM : ES_OK;
    }
    es_buf_free(&b);
    if (err == ES_ETOOBIG) {
        return es_fail(detail, err,
                       "the channel's name '%.*s' is over %d bytes long with what the "
                       "configuration puts before it",
                       ES_FOUND(asked), ES_MAX_CHANNEL_NAME);
    }
    return err == ES_OK ? ES_OK : es_fail(detail, err, "%s", es_err_name(err));
}

es_err_t es_channels_add(es_channels_t *io, const es_channel_rules_t *rules, es_str_t asked,
                         bool bounded, es_detail_t *detail)
{
    es_err_t err = check_name(asked, detail);
    char *copy;

    if (err != ES_OK || is_there(io, asked)) {
        return err;
    }
    if (io->n + io->refused_count >= ES_MAX_CHANNELS) {
        return es_fail(detail, ES_EFULL, "over %d channels are asked for; open a second stream",
                       ES_MAX_CHANNELS);
    }
    copy = es_memdup(asked.p, asked.n);
    if (copy == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    if (bounded && rules->allow != NULL && rules->allow->n > 0 &&
        !es_patterns_match(rules->allow, asked)) {
        io->refused[io->refused_count] = copy;
        io->refused_count++;
        return ES_OK;
    }
    err = make_name(rules, asked, &io->v[io->n].name, detail);
    if (err != ES_OK) {
        free(copy);
        return err;
    }
    io->v[io->n].asked = copy;
    io->n++;
    return ES_OK;
}

/* One value of the query parameter: a list. */
static es_err_t add_list(es_channels_t *io, const es_channel_rules_t *rules, es_str_t value,
                         es_detail_t *detail)
{
    es_err_t err = ES_OK;

    while (value.n > 0 && err == ES_OK) {
        const char *comma = memchr(value.p, ',', value.n);
        es_str_t one = { value.p, comma == NULL ? value.n : (size_t)(comma - value.p) };
        size_t skip = comma == NULL ? one.n : one.n + 1;
        es_buf_t name;

        value.p += skip;
        value.n -= skip;
        if (one.n == 0) {
            continue;
        }
        es_buf_init(&name, one.n);
        err = es_query_decode(one, &name);
        if (err == ES_EINVAL) {
            es_fail(detail, err, "broken percent-encoding in the query parameter '%s': '%.*s'",
                    param_of(rules), ES_FOUND(one));
        }
        else if (err != ES_OK) {
            es_fail(detail, err, "%s", es_err_name(err));
        }
        else {
            es_str_t asked = { name.p, name.n };
            err = es_channels_add(io, rules, asked, true, detail);
        }
        es_buf_free(&name);
    }
    return err;
}

static es_err_t add_query(es_channels_t *io, const es_channel_rules_t *rules, es_str_t query,
                          es_detail_t *detail)
{
    es_err_t err = ES_OK;
    es_str_t name, value;

    while (err == ES_OK && es_query_next(&query, &name, &value)) {
        if (es_query_is(name, param_of(rules))) {
            err = add_list(io, rules, value, detail);
        }
    }
    return err;
}

es_err_t es_channels_from_url(const es_channel_rules_t *rules, es_str_t path, es_str_t query,
                              es_channels_t *ret, es_detail_t *detail)
{
    es_channels_t channels = { .n = 0 };
    es_err_t err;

    if (path.n > ES_MAX_URL_TEXT || query.n > ES_MAX_URL_TEXT) {
        return es_fail(detail, ES_ETOOBIG, "the URL is too long: path and query may have %d bytes",
                       ES_MAX_URL_TEXT);
    }
    while (path.n > 0 && path.p[0] == '/') {
        path.p++;
        path.n--;
    }
    while (path.n > 0 && path.p[path.n - 1] == '/') {
        path.n--;
    }
    err = path.n > 0 ? es_channels_add(&channels, rules, path, true, detail)
                     : add_query(&channels, rules, query, detail);
    if (err == ES_OK && channels.n + channels.refused_count == 0) {
        err = es_fail(detail, ES_ENOENT,
                      "No channels specified. Name one behind the path, as in /events/NAME, or in "
                      "the query, as in ?%.60s=NAME; several as in ?%.60s=ONE,TWO",
                      param_of(rules), param_of(rules));
    }
    if (err != ES_OK) {
        es_channels_free(&channels);
        return err;
    }
    *ret = channels;
    return ES_OK;
}

void es_channels_free(es_channels_t *channels)
{
    size_t i;

    for (i = 0; i < channels->n; i++) {
        free(channels->v[i].asked);
        free(channels->v[i].name);
    }
    for (i = 0; i < channels->refused_count; i++) {
        free(channels->refused[i]);
    }
    memset(channels, 0, sizeof(*channels));
}

/* ---- presence ----------------------------------------------------------------------------- */

bool es_presence_of(es_str_t name, es_str_t *ret)
{
    const size_t n = sizeof(ES_PRESENCE_SUFFIX) - 1;

    if (name.n <= n || memcmp(name.p + name.n - n, ES_PRESENCE_SUFFIX, n) != 0) {
        return false;
    }
    if (ret != NULL) {
        ret->p = name.p;
        ret->n = name.n - n;
    }
    return true;
}

bool es_presence_shows(es_str_t name)
{
    size_t i;

    for (i = 0; i < name.n; i++) {
        const unsigned char c = (unsigned char)name.p[i];
        /* U+0080 to U+009F are controls too */
        const bool c1 = c == 0xc2 && i + 1 < name.n && (unsigned char)name.p[i + 1] < 0xa0;

        if (c < 0x20 || c == 0x7f || c1) {
            return false;
        }
    }
    return name.n > 0 && name.n <= ES_MAX_DISPLAY_NAME && es_text_is_utf8(name);
}
