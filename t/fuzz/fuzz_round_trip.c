/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hold message: an instruct that is built field by field from the input, not parsed, must come
 * back equal from its JSON form. Text that cannot be written (it is not UTF-8, or holds a line
 * break) must be refused, not changed.
 */
#include "fuzz.h"

#include "es_equal.h"
#include "es_grip.h"

#include <limits.h>
#include <string.h>

ES_FUZZ_TARGET;

typedef struct es_feed {
    const uint8_t *p;
    size_t n;
} es_feed_t;

static unsigned int take_byte(es_feed_t *feed)
{
    unsigned int c;

    if (feed->n == 0) {
        return 0;
    }
    c = feed->p[0];
    feed->p++;
    feed->n--;
    return c;
}

static es_str_t take_text(es_feed_t *feed)
{
    es_str_t text;

    text.n = take_byte(feed);
    text.n = text.n > feed->n ? feed->n : text.n;
    text.p = (const char *)feed->p;
    feed->p += text.n;
    feed->n -= text.n;
    return text;
}

static int take_seconds(es_feed_t *feed, int least)
{
    int seconds = (int)(take_byte(feed) << 23 | take_byte(feed) << 8 | take_byte(feed));
    return seconds < least ? least : seconds;
}

static void take_channels(es_feed_t *feed, es_instruct_t *in)
{
    unsigned int count = take_byte(feed) % 32;
    unsigned int i, f;

    for (i = 0; i < count; i++) {
        es_sub_spec_t *spec = NULL;
        es_str_t name = take_text(feed);
        es_str_t prev_id = take_text(feed);
        if (take_byte(feed) % 2 == 0) {
            prev_id.p = NULL;
            prev_id.n = 0;
        }
        if (es_instruct_add_channel(in, name, prev_id, &spec, NULL) != ES_OK || spec == NULL) {
            continue;
        }
        spec->filter_count = (uint8_t)(take_byte(feed) % (ES_MAX_FILTERS + 1));
        for (f = 0; f < spec->filter_count; f++) {
            spec->filters[f] = (uint8_t)(1 + take_byte(feed) % ES_FILTER_VAR_SUBST);
        }
    }
}

/* True when the pairs are what a parser would have let in: unique names without line breaks. */
static bool take_meta(es_feed_t *feed, es_pairs_t *meta)
{
    unsigned int count = take_byte(feed) % 8;
    bool fit = true;
    unsigned int i;

    for (i = 0; i < count; i++) {
        es_str_t name = take_text(feed);
        es_str_t value = take_text(feed);
        char *copy = es_memdup(name.p, name.n);
        if (copy == NULL) {
            return false;
        }
        if (es_pairs_get(meta, copy) == NULL) {
            fit = fit && strlen(copy) == name.n && strpbrk(copy, "\r\n") == NULL &&
                  memchr(value.p, '\0', value.n) == NULL &&
                  memchr(value.p, '\r', value.n) == NULL && memchr(value.p, '\n', value.n) == NULL;
            ES_FUZZ_CHECK(es_pairs_add(meta, name, value) == ES_OK);
        }
        free(copy);
    }
    return fit;
}

static bool take_rest(es_feed_t *feed, es_instruct_t *in)
{
    es_str_t text = take_text(feed);
    bool fit = true;

    if (text.n > 0) {
        in->keep_alive = es_memdup(text.p, text.n);
        in->keep_alive_len = text.n;
        in->keep_alive_timeout = take_seconds(feed, 1);
        in->keep_alive_mode = (es_keep_alive_mode_t)(take_byte(feed) % 2);
    }
    in->status = (int)(take_byte(feed) * 4);
    if (in->status < 100 || in->status > 999) {
        in->status = 0;
        return fit;
    }
    text = take_text(feed);
    if (text.n > 0) {
        in->reason = es_memdup(text.p, text.n);
        fit = in->reason != NULL && in->reason[0] != '\0' && strpbrk(in->reason, "\r\n") == NULL;
    }
    return fit;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_feed_t feed = { data, size };
    es_instruct_t *in = NULL;
    es_instruct_t *back = NULL;
    char *json = NULL;
    size_t len = 0;
    es_err_t err;
    bool fit;

    ES_FUZZ_CHECK(es_instruct_from_headers(NULL, 0, &in, NULL) == ES_OK);
    in->hold = (es_hold_t)(take_byte(&feed) % 3);
    in->timeout = take_seconds(&feed, 5);
    take_channels(&feed, in);
    fit = take_meta(&feed, &in->meta);
    fit = take_rest(&feed, in) && fit;
    err = es_instruct_to_json(in, &json, &len);
    if (err == ES_OK) {
        err = es_instruct_from_json(NULL, json, len, &back, NULL, NULL);
        ES_FUZZ_CHECK(err == ES_OK || !fit);
        if (err == ES_OK && fit) {
            ES_FUZZ_CHECK(es_equal_instruct(in, back));
            es_fuzz_accept();
        }
    }
    else {
        ES_FUZZ_CHECK(err == ES_EINVAL && json == NULL);
    }
    es_instruct_free(in);
    es_instruct_free(back);
    free(json);
    return 0;
}
