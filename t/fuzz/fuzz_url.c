/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request for the native endpoint asks for. The input: the path, NUL, Last-Event-ID, NUL,
 * the query. "Accepted" is a URL that names channels.
 */
#include "fuzz.h"

#include "es_sse.h"
#include "es_token.h"

#include <string.h>

ES_FUZZ_TARGET;

static es_str_t take(es_str_t *rest)
{
    const char *end = rest->n == 0 ? NULL : memchr(rest->p, '\0', rest->n);
    es_str_t part = { rest->p, end == NULL ? rest->n : (size_t)(end - rest->p) };
    size_t skip = end == NULL ? part.n : part.n + 1;

    rest->p += skip;
    rest->n -= skip;
    return part;
}

static bool is_clean(const char *text)
{
    return text[0] != '\0' && strpbrk(text, "\r\n") == NULL;
}

static void check_channels(const es_channel_rules_t *rules, const es_channels_t *channels)
{
    size_t i, k;

    ES_FUZZ_CHECK(channels->n + channels->refused_count > 0);
    ES_FUZZ_CHECK(channels->n + channels->refused_count <= ES_MAX_CHANNELS);
    for (i = 0; i < channels->n; i++) {
        const es_channel_name_t *c = &channels->v[i];
        ES_FUZZ_CHECK(is_clean(c->asked) && is_clean(c->name));
        ES_FUZZ_CHECK(strlen(c->name) <= ES_MAX_CHANNEL_NAME);
        ES_FUZZ_CHECK(strncmp(c->name, rules->prefix, strlen(rules->prefix)) == 0);
        ES_FUZZ_CHECK(es_patterns_match(rules->allow, es_str(c->asked)));
        for (k = 0; k < i; k++) {
            ES_FUZZ_CHECK(strcmp(c->name, channels->v[k].name) != 0);
        }
    }
    for (i = 0; i < channels->refused_count; i++) {
        ES_FUZZ_CHECK(is_clean(channels->refused[i]));
        ES_FUZZ_CHECK(!es_patterns_match(rules->allow, es_str(channels->refused[i])));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t pattern = es_str("*a*?b*");
    es_str_t other = es_str("n?ws");
    es_str_t patterns[] = { pattern, other };
    es_patterns_t allow = { patterns, 2 };
    es_channel_rules_t rules = { "channel", "events-", true, &allow };
    es_str_t rest = { (const char *)data, size };
    es_str_t path = take(&rest);
    es_str_t header = take(&rest);
    es_channels_t channels;
    es_position_t position;
    es_detail_t d = { "" };
    es_str_t token;

    if (es_channels_from_url(&rules, path, rest, &channels, &d) == ES_OK) {
        es_fuzz_accept();
        check_channels(&rules, &channels);
        es_channels_free(&channels);
    }
    else {
        ES_FUZZ_CHECK(d.text[0] != '\0');
    }
    d.text[0] = '\0';
    if (es_position_from_request(header, rest, INT64_C(1795456888123), &position, &d) == ES_OK) {
        ES_FUZZ_CHECK(position.from != ES_FROM_LAST ||
                      (position.count > 0 && position.count <= ES_MAX_REWIND));
        ES_FUZZ_CHECK(position.time_ms >= 0 && position.time_ms < INT64_C(1795543288124));
        ES_FUZZ_CHECK(memchr(position.id, '\0', sizeof(position.id)) != NULL);
    }
    else {
        ES_FUZZ_CHECK(d.text[0] != '\0');
    }
    if (es_token_from_query(rest, "token", &token) == ES_OK) {
        ES_FUZZ_CHECK(token.n > 0 && token.p >= rest.p && token.p + token.n <= rest.p + rest.n);
    }
    if (es_token_from_cookie(header, "token", &token) == ES_OK) {
        ES_FUZZ_CHECK(token.n > 0 && token.p >= header.p &&
                      token.p + token.n <= header.p + header.n);
    }
    if (es_token_from_authorization(header, &token) == ES_OK) {
        ES_FUZZ_CHECK(token.n > 0 && token.p > header.p &&
                      token.p + token.n <= header.p + header.n);
    }
    return 0;
}
