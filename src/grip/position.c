/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a stream begins. A browser that reconnects repeats its URL as it was and adds the header
 * Last-Event-ID, so the header comes before everything in the URL; a client that opens a new
 * EventSource cannot set headers and puts the id into the query, as django-eventstream's own client
 * does. What loses against something else is not even looked at: an old ?since= in a URL must not
 * keep anybody from resuming.
 */
#include "grip_int.h"

#include <string.h>

/* The query's values that may count, as they stand there; n 0: not given. */
typedef struct es_wishes {
    es_str_t id;
    es_str_t since;
    es_str_t rewind;
} es_wishes_t;

static void read_query(es_str_t query, es_wishes_t *ret)
{
    es_str_t name, value;

    memset(ret, 0, sizeof(*ret));
    while (es_query_next(&query, &name, &value)) {
        if (value.n == 0) {
            continue;
        }
        if (es_query_is(name, "lastEventId") || es_query_is(name, "last_event_id")) {
            ret->id = value;
        }
        else if (es_query_is(name, "since")) {
            ret->since = value;
        }
        else if (es_query_is(name, "rewind")) {
            ret->rewind = value;
        }
    }
}

static void from_id(es_str_t id, es_position_t *ret)
{
    size_t n = id.n < sizeof(ret->id) ? id.n : sizeof(ret->id) - 1;

    if (es_str_is(id, "earliest")) {
        ret->from = ES_FROM_EARLIEST;
        return;
    }
    if (es_str_is(id, "error")) {
        ret->from = ES_FROM_ERROR;
        return;
    }
    ret->from = ES_FROM_ID;
    memcpy(ret->id, id.p, n);
    ret->id[n] = '\0';
}

static es_err_t from_rewind(es_str_t text, es_position_t *ret, es_detail_t *detail)
{
    int64_t count = -1;

    if (!es_str_to_int(text, &count) || count < 0) {
        return es_fail(detail, ES_EINVAL, "'rewind' is '%.*s'; accepted is a number from 0 to %d",
                       ES_FOUND(text), ES_MAX_REWIND);
    }
    if (count > ES_MAX_REWIND) {
        return es_fail(detail, ES_ETOOBIG, "'rewind' is '%.*s'; accepted is at most %d",
                       ES_FOUND(text), ES_MAX_REWIND);
    }
    ret->from = count == 0 ? ES_FROM_NOW : ES_FROM_LAST;
    ret->count = count;
    return ES_OK;
}

/* The values of a query, decoded one at a time. No form of them is long: in a longer one the rest
 * would be wrong as well. */
static es_err_t from_query(const es_wishes_t *wishes, int64_t now_ms, es_position_t *ret,
                           es_detail_t *detail)
{
    es_str_t raw = wishes->id.n > 0      ? wishes->id
                   : wishes->since.n > 0 ? wishes->since
                                         : wishes->rewind;
    es_str_t text;
    es_buf_t decoded;
    es_err_t err;

    if (raw.n == 0) {
        return ES_OK;
    }
    if (wishes->id.n == 0 && wishes->since.n > 0 && wishes->rewind.n > 0) {
        return es_fail(detail, ES_EINVAL, "the query has both 'since' and 'rewind'; give one");
    }
    es_buf_init(&decoded, raw.n);
    err = es_query_decode(raw, &decoded);
    text.p = decoded.p;
    text.n = decoded.n;
    if (err == ES_EINVAL && wishes->id.n > 0) {
        from_id(raw, ret); /* damaged is damaged */
        err = ES_OK;
    }
    else if (err == ES_EINVAL) {
        es_fail(detail, err, "broken percent-encoding in the query: '%.*s'", ES_FOUND(raw));
    }
    else if (err != ES_OK) {
        es_fail(detail, err, "%s", es_err_name(err));
    }
    else if (wishes->id.n > 0) {
        from_id(text, ret);
    }
    else if (wishes->since.n > 0) {
        ret->from = ES_FROM_TIME;
        err = es_time_read(text, now_ms, &ret->time_ms, detail);
    }
    else {
        err = from_rewind(text, ret, detail);
    }
    es_buf_free(&decoded);
    return err;
}

es_err_t es_position_from_request(es_str_t header, es_str_t query, int64_t now_ms,
                                  es_position_t *ret, es_detail_t *detail)
{
    es_position_t position;
    es_wishes_t wishes;
    es_err_t err = ES_OK;

    if (query.n > ES_MAX_URL_TEXT) {
        return es_fail(detail, ES_ETOOBIG, "the query is %zu bytes long, at most %d", query.n,
                       ES_MAX_URL_TEXT);
    }
    memset(&position, 0, sizeof(position));
    header = es_str_trim(header);
    if (header.n > 0) {
        from_id(header, &position);
    }
    else {
        read_query(query, &wishes);
        err = from_query(&wishes, now_ms, &position, detail);
    }
    if (err == ES_OK) {
        *ret = position;
    }
    return err;
}
