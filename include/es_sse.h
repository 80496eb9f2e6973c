/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_sse.h
 * Layer 1 of the native endpoint: what a request asks for, the ids of events, the text of a stream,
 * and what an application answers when it is asked who may. Pure functions, like those of
 * es_grip.h: no threads, no clock, no sockets; libc and jansson only. Tokens are in es_token.h.
 *
 * Two names for one channel: the **asked** name is what the client says ("a b"), the **name** is
 * what publishers publish to ("events-a%20b"). Patterns, tokens, authorizations and what is told to
 * the client use the asked name; the hub knows the other one alone.
 */
#ifndef ES_SSE_H
#define ES_SSE_H

#include "es_grip.h"

enum {
    ES_MAX_URL_TEXT = 65536,       /* bytes of a path or of a query that is looked at */
    ES_MAX_PATTERN = 4096,         /* bytes of one pattern */
    ES_MAX_PATTERNS = 1024,        /* patterns of one list */
    ES_MAX_EVENT_NAME = 256,       /* bytes of an event's name that is given on its own */
    ES_MAX_REWIND = 100000,        /* events that ?rewind= may ask for */
    ES_MAX_AUTHORIZE_BODY = 65536, /* bytes of the answer of an authorization */
    ES_MAX_AUTHORIZE_AGE = 3600,   /* seconds that such an answer may be kept */
    ES_MAX_DISPLAY_NAME = 256,     /* bytes of the name of a person, for presence */
    ES_EVENT_ID_LEN = 27,          /* bytes of an event id of ours */
    ES_EVENT_ID_SIZE = 28,         /* with its NUL */
    ES_SSE_GROWTH = 6              /* rendered text is at most so many times its content (each line
                                      end may become "data:\n"), and what event and id take */
};

/* ---- patterns ----------------------------------------------------------------------------- */
/** Names or patterns: `*` is any text, the empty one and '/' included, `?` is one character (of
 * UTF-8; one byte where it is none), everything else is itself. There is no escape. Case counts.
 * Takes at most pattern times text steps. */
bool es_glob_match(es_str_t pattern, es_str_t text);

/** A list of patterns. Owned: es_patterns_free. Starts as all zero. */
typedef struct es_patterns {
    es_str_t *v; /* each with a NUL after it */
    size_t n;
} es_patterns_t;

/** Copies the pattern. ES_EINVAL: empty, not UTF-8, or with CR, LF or NUL; ES_ETOOBIG: over
 * ES_MAX_PATTERN bytes or ES_MAX_PATTERNS of them; ES_ENOMEM. */
es_err_t es_patterns_add(es_patterns_t *io, es_str_t pattern, es_detail_t *detail);
bool es_patterns_match(const es_patterns_t *patterns, es_str_t text); /* any of them */
void es_patterns_free(es_patterns_t *patterns);

/* ---- which channels ----------------------------------------------------------------------- */
/** How a location turns what a URL says into channels. Nothing in it is owned. */
typedef struct es_channel_rules {
    const char *param;  /* name of the query parameter; NULL: "channel" */
    const char *prefix; /* put before each name; NULL: none */
    bool quote;         /* percent-encode the name behind the prefix, as django-eventstream does */
    const es_patterns_t *allow; /* asked names that are allowed; NULL or empty: all */
} es_channel_rules_t;

/** Should names behind this prefix be quoted when nobody said? Yes when it ends with "events-":
 * that is what django-eventstream puts before its quoted names (behind GRIP_PREFIX, if there is
 * one). Other publishers do not quote, and a name like user-jo@example.org must stay as it is. */
bool es_channel_prefix_quotes(const char *prefix);

typedef struct es_channel_name {
    char *asked; /* as the client named it, decoded; both are UTF-8 without CR, LF, NUL */
    char *name;  /* the channel itself: prefix and, if quoted, encoded */
} es_channel_name_t;

/** The channels of one request. Starts as all zero. Owned: es_channels_free. */
typedef struct es_channels {
    es_channel_name_t v[ES_MAX_CHANNELS]; /* each once, in the order asked for */
    size_t n;
    char *refused[ES_MAX_CHANNELS]; /* asked names that `allow` does not have */
    size_t refused_count;
} es_channels_t;

/** Adds one channel by its asked name, which is not percent-encoded: one that the configuration
 * names (`bounded` false: `allow` does not bind the administrator) or the client. One that is there
 * already is not added again. Errors as es_channels_from_url; `io` is then as it was. */
es_err_t es_channels_add(es_channels_t *io, const es_channel_rules_t *rules, es_str_t asked,
                         bool bounded, es_detail_t *detail);

/**
 * Reads the channels from a URL. `path` is what follows the location's own path, already decoded
 * as httpd hands it out; `query` is as it came, without its '?'.
 *
 * The path, when it has more than slashes, names **one** channel, and then the query is not looked
 * at (the order of django-eventstream). Slashes around it do not count: /events/news and
 * /events/news/ are the same. Slashes inside belong to the name: /events/rooms/7 is "rooms/7", as
 * with Django's <path:channel> and nchan's captures. A comma does too: httpd has decoded the path,
 * so a separator and a part of a name look the same.
 *
 * In the query the parameter may come again and again and hold a list: ?channel=a&channel=b,c.
 * Commas separate only as themselves; %2C is part of a name, so encodeURIComponent() makes any name
 * safe. '+' is a blank. Empty names are left out.
 *
 * ES_OK: at least one name was asked for; look at `refused` too. Else `ret` is untouched:
 * ES_ENOENT: none was asked for, and the sentence says how to; ES_EFULL: over ES_MAX_CHANNELS,
 * refused ones counted; ES_ETOOBIG: a name of over ES_MAX_CHANNEL_NAME bytes (with prefix and
 * quotes) or a URL over ES_MAX_URL_TEXT; ES_EINVAL: broken percent-encoding, a name that is not
 * UTF-8 or holds CR, LF or NUL; ES_ENOMEM.
 */
es_err_t es_channels_from_url(const es_channel_rules_t *rules, es_str_t path, es_str_t query,
                              es_channels_t *ret, es_detail_t *detail);
void es_channels_free(es_channels_t *channels);

/* ---- presence ----------------------------------------------------------------------------- */
#define ES_PRESENCE_SUFFIX "/presence" /* who is on C is told on the channel C/presence */

/** Is this the name of such a channel? Then `*ret` (may be NULL) is the one that it tells of, in
 * what was handed in. */
bool es_presence_of(es_str_t name, es_str_t *ret);

/** May this be shown as the name of who is there? Not empty, UTF-8, at most ES_MAX_DISPLAY_NAME
 * bytes, no control characters. */
bool es_presence_shows(es_str_t name);

/** The first parameter of that name in a query or a form, decoded, empty or not; NUL-terminated,
 * the caller frees. ES_ENOENT: none; ES_EINVAL: broken percent-encoding; ES_ENOMEM. */
es_err_t es_query_param(es_str_t query, const char *name, char **ret, size_t *ret_len);

/* ---- from where --------------------------------------------------------------------------- */
typedef enum es_from {
    ES_FROM_NOW = 0,  /* nothing was said: live only */
    ES_FROM_ID,       /* after the event of `id` */
    ES_FROM_EARLIEST, /* everything that is still held */
    ES_FROM_TIME,     /* what was published at `time_ms` or later */
    ES_FROM_LAST,     /* the last `count` events */
    ES_FROM_ERROR     /* the id of a stream-error: answer 400, EventSource then stops for good */
} es_from_t;

typedef struct es_position {
    es_from_t from;
    char id[64];     /* ES_FROM_ID: for es_event_id_decode. Longer ones are cut: no id of ours is */
    int64_t time_ms; /* since 1970 */
    int64_t count;   /* 1 to ES_MAX_REWIND */
} es_position_t;

/**
 * Where a stream is to begin. `header` is Last-Event-ID ({NULL, 0}: none), `now_ms` the time.
 *
 * The first of these that is given and not empty decides: the header (EventSource sends it when it
 * reconnects, and the URL is then out of date); the last of the query parameters `lastEventId` and
 * `last_event_id`; `since`; `rewind`. Ids: "earliest" is everything, "error" is what
 * django-eventstream (and es_sse_stream_error) gives its stream-error. `since` is seconds since
 * 1970 (a fraction is allowed), RFC 3339 (2026-11-23T21:57:38Z, also with +01:00 whose '+' was
 * decoded to a blank), or a span that ends now: 90s, 10m, "10m ago", 1h30m; ms s m h d w. A time
 * before 1970 is 1970. `rewind` is a number; 0 is ES_FROM_NOW.
 *
 * ES_EINVAL: a value that cannot be read, both `since` and `rewind`, a time over a day ahead (most
 * likely milliseconds); ES_ETOOBIG: over ES_MAX_REWIND, or a query over ES_MAX_URL_TEXT.
 */
es_err_t es_position_from_request(es_str_t header, es_str_t query, int64_t now_ms,
                                  es_position_t *ret, es_detail_t *detail);

/* ---- ids of events ------------------------------------------------------------------------ */
/**
 * An event's id: 27 characters out of [A-Za-z0-9_-], good for all channels of a stream at once
 * because it stands for a place in the hub's one order of events: which store (`instance`, chosen
 * at random when a history is begun) and which number in it. It is not a secret: who has one can
 * read the number.
 */
void es_event_id_encode(uint64_t instance, uint64_t seq, char ret[ES_EVENT_ID_SIZE]);

/** ES_EINVAL: not one of ours, or damaged (any change within 32 bits in a row is found, any other
 * but one in four billion); ES_ENOENT: sound, but from another store. */
es_err_t es_event_id_decode(es_str_t id, uint64_t instance, uint64_t *ret_seq, es_detail_t *detail);

/* ---- text of a stream --------------------------------------------------------------------- */
typedef enum es_sse_field {
    ES_SSE_BLANK = 0, /* an empty line: the event is complete */
    ES_SSE_COMMENT,   /* ": text"; the value is everything after the colon */
    ES_SSE_EVENT,
    ES_SSE_ID,
    ES_SSE_RETRY,
    ES_SSE_DATA,
    ES_SSE_OTHER /* a field that nobody knows; clients ignore it */
} es_sse_field_t;

typedef struct es_sse_line {
    es_sse_field_t field;
    es_str_t value; /* without the one blank that may follow the colon; never holds CR or LF */
} es_sse_line_t;

/** Takes the next line, ended by CR, LF, CRLF or the end of the text (HTML, 9.2.6). False: there is
 * none. No state but `rest`, each byte looked at once. */
bool es_sse_next(es_str_t *rest, es_sse_line_t *ret);

/**
 * Is this what a publisher of SSE sends? Yes when the first line that is neither empty nor a
 * comment starts with "event:", "id:", "retry:" or "data:", and there is a data field or the text
 * ends with a line end; or when there are comments alone and the last one ends with a line end. So
 * JSON, HTML, plain words and ":-)" are not, and neither is "id: 5 is what I meant". A line in the
 * middle that is no field does not make it plain text: clients ignore such lines (and
 * django-eventstream before 5.0 made them).
 */
bool es_sse_is_stream(es_str_t content);

/**
 * Renders an http-stream content for a native stream and appends it to `out`.
 *
 * SSE stays SSE: lines end with LF, publishers' ids, fields that nobody knows, `retry` that is no
 * number and a byte order mark are left out, NUL becomes U+FFFD, an event that was left open is
 * closed. `event` does not count then.
 * Anything else becomes one event as es_sse_data makes it, without the one line end that it may
 * have at its end.
 *
 * Of several events the last one that has data gets `id` (before its data, where django-eventstream
 * writes it), the others none. An id on each would say "I have all of this" after the first: who
 * loses the connection in the middle would lose the rest. So the whole content comes again instead:
 * once too often is better than never. A content without data (comments, retry) gets no id.
 *
 * `id` with n 0: none. `ret_events` (may be NULL): events with data; when 0, `out` may have got
 * nothing. Errors: ES_EINVAL: CR, LF or NUL in `event` or `id`; ES_ETOOBIG: `out` is full;
 * ES_ENOMEM; `out` is then as it was. Time grows with the length alone.
 */
es_err_t es_sse_render(es_str_t content, es_str_t event, es_str_t id, es_buf_t *out,
                       size_t *ret_events);

/** Appends one event with exactly this data, be it text, JSON or what looks like SSE: a `data:`
 * line for each of its lines. `event`, `id` with n 0: none. Errors as es_sse_render. */
es_err_t es_sse_data(es_str_t data, es_str_t event, es_str_t id, es_buf_t *out);

/** May this be an event's name? ES_EINVAL: empty, not UTF-8 or with CR, LF or NUL; ES_ETOOBIG: over
 * ES_MAX_EVENT_NAME bytes. */
es_err_t es_sse_check_event(es_str_t event, es_detail_t *detail);

/* What a stream sends by itself. All append to `out`: ES_ETOOBIG, ES_ENOMEM, `out` as it was. The
 * bytes are django-eventstream's (its JSON as Python writes it), for its JavaScript clients. */
es_err_t es_sse_comment(es_str_t text, es_buf_t *out); /* ": text", an empty line; "" gives ":" */
es_err_t es_sse_padding(es_buf_t *out); /* 2 KB of blanks in a comment; old polyfills wait for it */
es_err_t es_sse_retry(unsigned int ms, es_buf_t *out);
es_err_t es_sse_stream_open(es_str_t id, es_buf_t *out); /* `id` with n 0: none */
es_err_t es_sse_keep_alive(es_buf_t *out);
/** {"channels": [...]}: what is missing on them cannot be replayed. `asked`: asked names. */
es_err_t es_sse_stream_reset(const char *const *asked, size_t n, es_str_t id, es_buf_t *out);
/** {"condition": ..., "text": ..., "channels": [...]} with the id "error"; no channels: left out.
 */
es_err_t es_sse_stream_error(const char *condition, const char *text, const char *const *asked,
                             size_t n, es_buf_t *out);
/** The stream-error "forbidden": Permission denied to channels: a, b */
es_err_t es_sse_forbidden(const char *const *asked, size_t n, es_buf_t *out);

/* ---- EventStreamAuthorize ----------------------------------------------------------------- */
typedef enum es_authorization {
    ES_VERDICT_ADMIT = 0, /* 2xx */
    ES_VERDICT_REFUSE,    /* 3xx (a login page) and 4xx: `status` is what to tell the client */
    ES_VERDICT_FAIL       /* everything else: the application is out of order, 502 */
} es_authorization_t;

/** What the application said. Owned: es_authorize_free. */
typedef struct es_authorize {
    es_authorization_t verdict;
    int status;    /* 401 stays 401, other refusals are 403, a failure is 502; admitted: 200 */
    int max_age;   /* seconds that the answer may be kept for this client; 0: not at all */
    bool narrowed; /* it listed channels: others are refused, even if it listed none */
    es_patterns_t channels;
    char *name; /* to be shown to others (presence); NULL: none */
} es_authorize_t;

/**
 * Reads the answer of an authorization request. Looked at: the status; `Cache-Control` (max-age, at
 * most ES_MAX_AUTHORIZE_AGE; no-store and no-cache mean 0; of several the shortest counts); with a
 * 2xx also the header `EventStream-Channels` (asked names or patterns separated by commas, a name
 * with a comma in quotes, may come again) and, when `Content-Type` is JSON, the body:
 * {"channels": ["news", "user-*"], "name": "Ann"}, both optional. Header and body add up.
 *
 * ES_EINVAL: a list or a body that cannot be read (never admit then: 502); ES_ETOOBIG: a body over
 * ES_MAX_AUTHORIZE_BODY, a name over ES_MAX_DISPLAY_NAME, patterns over their caps; ES_ENOMEM.
 */
es_err_t es_authorize_read(int status, const es_header_t *headers, size_t count, es_str_t body,
                           es_authorize_t **ret, es_detail_t *detail);
/** Admitted, and to that channel? */
bool es_authorize_allows(const es_authorize_t *answer, es_str_t asked);
void es_authorize_free(es_authorize_t *answer); /* NULL is fine */

#endif
