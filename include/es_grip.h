/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_grip.h
 * Layer 1: the GRIP protocol as pure functions. Bytes in, structs out. No threads, no clock, no
 * sockets, no files; libc, jansson and libjwt only. Safe to call from any thread as long as two
 * threads do not share one object.
 *
 * Two kinds of thing are parsed here:
 *  - an **instruct**: what an application's answer asks for (hold this response on these channels);
 *  - an **item**: what a publisher sends (deliver this to that channel).
 */
#ifndef ES_GRIP_H
#define ES_GRIP_H

#include "es_base.h"

/* ---- caps -------------------------------------------------------------------------------- */
enum {
    ES_MAX_CHANNELS = 20,       /* channels of one stream; Pushpin's connection_subscription_max */
    ES_MAX_FILTERS = 5,         /* filters of one subscription */
    ES_MAX_CHANNEL_NAME = 4096, /* bytes of a channel name */
    ES_MAX_ID = 4096,           /* bytes of an item's id or prev-id, and of a rendered build-id */
    ES_MAX_META_PAIRS = 64,     /* name-value pairs of one meta object */
    ES_MAX_META_BYTES = 16384,  /* bytes of all names and values of one meta object */
    ES_MAX_KEEP_ALIVE = 16384,  /* bytes of keep-alive content */
    ES_MAX_HEADERS = 128,       /* headers of a grip-instruct response or an http-response item */
    ES_MAX_INSTRUCT_BODY = 100000,  /* bytes of an application/grip-instruct body */
    ES_MAX_INSTRUCT_WIRE = 2000000, /* bytes of what es_instruct_to_json writes; never reached */
    ES_MAX_PUBLISH_BODY = 1000000,  /* bytes of a POST to /publish/ */
    ES_MAX_PACKET = 1100000,        /* bytes of one ZeroMQ message */
    ES_MAX_PACKET_KEPT = 1200000,   /* the same item as es_item_to_packet writes it */
    ES_MAX_TOKEN = 8192             /* bytes of a JWT */
};

bool es_text_is_utf8(es_str_t s); /* as strict as jansson: what may be written as JSON */

typedef struct es_pair {
    char *name;
    char *value;
    size_t value_len;
} es_pair_t;

/** Name-value pairs in order. Owned: es_pairs_free. */
typedef struct es_pairs {
    es_pair_t *v;
    size_t n;
} es_pairs_t;

es_err_t es_pairs_add(es_pairs_t *pairs, es_str_t name, es_str_t value); /* copies both */
const es_pair_t *es_pairs_get(const es_pairs_t *pairs,
                              const char *name); /* the first of that name */
void es_pairs_free(es_pairs_t *pairs);

/* ---- filters ------------------------------------------------------------------------------ */
typedef enum es_filter {
    ES_FILTER_NONE = 0,
    ES_FILTER_SKIP_SELF,   /* delivery: drop when sub meta `user` = publish meta `sender` */
    ES_FILTER_SKIP_USERS,  /* delivery: drop when `user` is in the comma list `skip_users` */
    ES_FILTER_REQUIRE_SUB, /* delivery: drop unless the stream is on the channel `require_sub` */
    ES_FILTER_BUILD_ID,    /* content: %I and %(text)I become the id, %% becomes % */
    ES_FILTER_VAR_SUBST    /* content: %(name)s from sub meta, %% becomes % */
} es_filter_t;

es_filter_t es_filter_by_name(es_str_t name); /* ES_FILTER_NONE for one we do not know */
const char *es_filter_name(es_filter_t filter);
bool es_filter_is_content(es_filter_t filter);

/* ---- instruct ----------------------------------------------------------------------------- */
typedef enum es_hold { ES_HOLD_NONE = 0, ES_HOLD_STREAM, ES_HOLD_RESPONSE } es_hold_t;
typedef enum es_keep_alive_mode {
    ES_KEEP_ALIVE_IDLE = 0,
    ES_KEEP_ALIVE_INTERVAL
} es_keep_alive_mode_t;

/** One subscription that the application asked for. */
typedef struct es_sub_spec {
    char *name; /* NUL-terminated; never holds CR, LF or NUL */
    size_t name_len;
    char *prev_id; /* NULL when the application gave none */
    uint8_t
        filters[ES_MAX_FILTERS]; /* es_filter_t, in the order given; unknown names are left out */
    uint8_t filter_count;
} es_sub_spec_t;

/** What an application's answer asks for. Owned: es_instruct_free. */
typedef struct es_instruct {
    es_hold_t hold;
    es_sub_spec_t *channels; /* each name once: given again, the later one counts */
    size_t channel_count;    /* at most ES_MAX_CHANNELS; what is over it is counted, not kept */
    size_t channels_over;    /* how many were left out, for the log */
    int timeout;      /* Grip-Timeout, seconds: default 55, at least 5; response holds only */
    char *keep_alive; /* decoded bytes; NULL: none */
    size_t keep_alive_len;
    int keep_alive_timeout; /* seconds: default 55, at least 1 */
    es_keep_alive_mode_t keep_alive_mode;
    es_pairs_t meta; /* Grip-Set-Meta */
    int status;      /* Grip-Status code; 0: not given */
    char *reason;    /* Grip-Status reason; NULL: the standard one */
    char **
        expose; /* Grip-Expose-Headers; only these headers go to the client when expose_count > 0 */
    size_t expose_count;
} es_instruct_t;

/** A header as the glue hands it in; neither string is owned. */
typedef struct es_header {
    const char *name;
    const char *value;
} es_header_t;

/** The response part of an application/grip-instruct body. Owned: es_response_free. */
typedef struct es_response {
    int code;           /* 200 unless given */
    char *reason;       /* NULL: the standard one */
    es_pairs_t headers; /* in order; names and values hold no CR, LF or NUL; Grip-* left out */
    char *body;         /* never NULL; NUL-terminated */
    size_t body_len;
} es_response_t;

/** True when the response is GRIP's business: any name that starts with Grip-, or the media type.
 */
bool es_is_grip_header(const char *name);
bool es_is_grip_instruct_type(const char *content_type); /* application/grip-instruct, up to ';' */

/**
 * Parses the Grip-* headers of a response (grip.md 1.2, 1.3). Headers of other names are ignored.
 * ES_EINVAL and ES_ETOOBIG name the header in `detail`; the caller answers 502.
 * A list element that is malformed (an unterminated quote) is an error here: Pushpin drops it in
 * silence.
 */
es_err_t es_instruct_from_headers(const es_header_t *headers, size_t count, es_instruct_t **ret,
                                  es_detail_t *detail);

/**
 * Parses an application/grip-instruct body (grip.md 1.4) on top of `base`, which holds what the
 * headers said (channels are appended, everything else is overridden), or is NULL.
 * `*ret_response` is never NULL on success: without `response` it is an empty 200.
 * `ret_response` may be NULL: a `response` is then not looked at, and `json` may be as long as
 * ES_MAX_INSTRUCT_WIRE instead of ES_MAX_INSTRUCT_BODY. On failure `base` is unchanged.
 * Also the parser of the hold message on the wire: what es_instruct_to_json wrote comes back equal.
 * Extension to Pushpin's form: `keep-alive` may have `mode` ("idle", the default, or "interval").
 */
es_err_t es_instruct_from_json(const es_instruct_t *base, const char *json, size_t len,
                               es_instruct_t **ret, es_response_t **ret_response,
                               es_detail_t *detail);

/** The instruct as an application/grip-instruct object without `response`, NUL-terminated. The
 * caller frees. Everything but `channels_over` comes back from es_instruct_from_json; what GRIP's
 * JSON has no place for travels in extensions: hold mode "none", `status`, `reason` and
 * `expose-headers`. ES_EINVAL: a text is not UTF-8 (es_instruct_from_* let none in). */
es_err_t es_instruct_to_json(const es_instruct_t *in, char **ret, size_t *ret_len);

/** Puts a channel on an instruct that is being built, with no filters yet. `prev_id.p` NULL: none.
 * `*ret` (may be NULL) is the subscription, good until the next call, or NULL when the instruct was
 * full and the channel was only counted in `channels_over`. An empty instruct with GRIP's defaults
 * comes from es_instruct_from_headers(NULL, 0, ...). */
es_err_t es_instruct_add_channel(es_instruct_t *in, es_str_t name, es_str_t prev_id,
                                 es_sub_spec_t **ret, es_detail_t *detail);
void es_instruct_free(es_instruct_t *in); /* NULL is fine */
void es_response_free(es_response_t *response);

/** May this header go to the client? No Grip-*, no framing header (Connection, Keep-Alive,
 * Content-Length, Content-Encoding, Transfer-Encoding), and Grip-Expose-Headers obeyed. */
bool es_instruct_exposes(const es_instruct_t *in, const char *header_name);

/** Decodes GRIP's cstring form: \\ \r \n \xHH; any other escape is dropped. The caller frees. */
es_err_t es_cstring_decode(es_str_t in, char **ret, size_t *ret_len, es_detail_t *detail);

/* ---- items -------------------------------------------------------------------------------- */
typedef enum es_action {
    ES_ACTION_SEND = 0,
    ES_ACTION_HINT,
    ES_ACTION_CLOSE,
    ES_ACTION_REFRESH
} es_action_t;

/** The http-stream format of an item. */
typedef struct es_stream_format {
    bool present;
    es_action_t action;
    char *content; /* ES_ACTION_SEND: the bytes, may be empty, may hold NUL */
    size_t content_len;
    /* The publisher asserted which content filters the subscription has, in order. A name that we
     * do not know is ES_FILTER_NONE, which no subscription has. */
    bool has_content_filters;
    uint8_t content_filters[ES_MAX_FILTERS];
    uint8_t content_filter_count;
} es_stream_format_t;

/** One message to one channel. Owned: es_item_free. */
typedef struct es_item {
    char *channel; /* NUL-terminated; never holds CR, LF or NUL; may be empty */
    size_t channel_len;
    char *id;      /* NULL: none */
    char *prev_id; /* NULL: none */
    bool no_seq;
    int64_t size; /* -1: not given */
    es_pairs_t meta;
    es_stream_format_t stream; /* http-stream */
    bool has_response;         /* http-response given and well formed */
    bool has_message;          /* ws-message given and well formed */
} es_item_t;

typedef struct es_items {
    es_item_t **v;
    size_t n;
} es_items_t;

/**
 * Parses the body of POST /publish/: {"items": [...]}. One bad item refuses all of them.
 * `detail` is the sentence of Pushpin's control API without its final newline, for example
 * "Body is not valid JSON." or "Invalid format: no formats specified".
 */
es_err_t es_items_from_json(const char *body, size_t len, es_items_t *ret, es_detail_t *detail);

/**
 * Parses one ZeroMQ PULL frame: 'T' then tnetstring, 'J' then JSON, otherwise tnetstring. The item
 * itself, without the "items" envelope.
 */
es_err_t es_item_from_packet(const char *packet, size_t len, es_item_t **ret, es_detail_t *detail);

/** Keeps an item for another hub: its http-stream part as such a packet, appended to `out`;
 * `content` counts in place of the item's own. ES_ETOOBIG, ES_ENOMEM: `out` is as it was. */
es_err_t es_item_to_packet(const es_item_t *item, es_str_t content, es_buf_t *out);

/** Reads back what es_item_to_packet wrote, at most ES_MAX_PACKET_KEPT bytes. */
es_err_t es_item_from_kept(es_str_t packet, es_item_t **ret, es_detail_t *detail);

/** The same for a ZeroMQ SUB message: the first frame names the channel, what the item says about
 * it does not count. */
es_err_t es_item_from_topic_packet(es_str_t topic, const char *packet, size_t len, es_item_t **ret,
                                   es_detail_t *detail);
void es_item_free(es_item_t *item);
void es_items_free(es_items_t *items);

/* ---- delivery ----------------------------------------------------------------------------- */
/** What a filter may ask about the stream that a message is about to reach. */
typedef struct es_filter_view {
    const es_pairs_t *sub_meta; /* Grip-Set-Meta of the stream */
    const es_pairs_t *pub_meta; /* meta of the item; NULL when the content is not an item's */
    /* Is the stream on the channel of that name? */
    bool (*has_channel)(void *ctx, es_str_t name);
    /* The id of the newest item that the stream has seen on that channel, the one being delivered
     * included; NULL: none. When the stream is on no channel of that name, a channel whose name
     * ends with it is meant: with GRIP_PREFIX, django-grip prefixes channels but not id_format.
     * es_filter_name_fits tells. */
    const char *(*channel_id)(void *ctx, es_str_t name);
    void *ctx;
} es_filter_view_t;

/** Does a held channel of that name answer to `wanted`, as the name itself or behind a prefix? Look
 * for the exact name first. */
bool es_filter_name_fits(es_str_t held, es_str_t wanted);

/** Does the delivery filter let the message through? Content filters always do. */
bool es_filter_admits(es_filter_t filter, const es_filter_view_t *view);

/**
 * Runs a content filter over `content` and appends the result to `out`. Lenient where Pushpin ends
 * the stream: an unknown directive is copied as it stands, and an id that names a channel without
 * an id is empty. ES_EINVAL: build-id without sub meta `id_format`, or with an `id_encoding` other
 * than hex. ES_ETOOBIG: `out` is full, or the id over ES_MAX_ID. `out` is unchanged on failure. The
 * filters that are not content filters copy the content.
 */
es_err_t es_filter_render(es_filter_t filter, const es_filter_view_t *view, es_str_t content,
                          es_buf_t *out, es_detail_t *detail);

/** Does a content filter have to run over the initial body, so that all of it is needed first? */
bool es_initial_is_filtered(const es_instruct_t *in);

/** Runs the content filters of the channels over the initial body, in place. Nothing to do is
 * ES_OK. Errors as es_filter_render; the body is then as it was. */
es_err_t es_initial_render(es_instruct_t *in, es_buf_t *body, es_detail_t *detail);

/* ---- keys and tokens ---------------------------------------------------------------------- */
/** What a key signs and checks with: its type decides, never what a token says. */
typedef enum es_alg { ES_ALG_HS256 = 0, ES_ALG_RS256, ES_ALG_ES256 } es_alg_t;

/** A key for tokens. Owned: es_key_free (which wipes it). All zero but for `bytes` and `n` is a
 * secret for HS256. */
typedef struct es_key {
    unsigned char *bytes; /* the secret itself, or PEM text */
    size_t n;
    es_alg_t alg;
    bool is_public;  /* PEM: only checks */
    bool is_private; /* PEM: only signs */
} es_key_t;

/**
 * Reads "base64:..." or raw text. (`file:` is resolved by the caller, who owns paths.) Either may
 * be PEM, told by its first line: a public key ("PUBLIC KEY") or a private one without a password
 * ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"). RSA of at least 2048 bits is for RS256,
 * P-256 for ES256 (RFC 7518 3.3, 3.4). Everything else is a secret for HS256: PEM text never is, so
 * that nobody who knows a public key can sign with it.
 * ES_EINVAL: empty, broken, or PEM of another kind, and the sentence says which are accepted.
 */
es_err_t es_key_from_text(es_str_t text, es_key_t **ret, es_detail_t *detail);
void es_key_free(es_key_t *key);
const char *es_alg_name(es_alg_t alg); /* "HS256" */

/**
 * Writes a JWT with the claims {"iss": iss, "exp": now + 3600}, signed by the key's algorithm.
 * `now` is in seconds since 1970. The caller frees. (A location without a key signs with a random
 * one: an application that has no key either only looks for the token's presence.) ES_EINVAL: a
 * public key, or `iss` is not UTF-8.
 */
es_err_t es_token_sign(const es_key_t *key, const char *iss, int64_t now, char **ret);

/** Checks a JWT: the key's algorithm and nothing else, signature, `exp` present and in the future,
 * `nbf`, if any, at most a minute ahead, no `crit`, `iss` equal when `iss` is not NULL. ES_EAUTH
 * with the reason in `detail`, over ES_MAX_TOKEN and for a private key too. */
es_err_t es_token_verify(const es_key_t *key, const char *iss, es_str_t token, int64_t now,
                         es_detail_t *detail);

/** Compares secrets in time that does not depend on where they differ. False for PEM keys: a public
 * key is no secret. */
bool es_key_equals(const es_key_t *key, es_str_t secret);

#endif
