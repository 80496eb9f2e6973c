/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file grip_int.h
 * What the files of layer 1 share among themselves and nobody else needs.
 *
 * Text rules, in one place: a name, an id, a meta value or a header never holds CR, LF or NUL
 * (es_text_is_clean); what may later be written as JSON is UTF-8 (es_text_is_utf8).
 */
#ifndef ES_GRIP_INT_H
#define ES_GRIP_INT_H

#include "es_grip.h"
#include "es_sse.h"
#include "es_token.h"

#include <jansson.h>

enum {
    ES_DEFAULT_TIMEOUT = 55, /* of a response hold and of a keep-alive, seconds */
    ES_MIN_TIMEOUT = 5,
    ES_MIN_KEEP_ALIVE = 1,
    ES_MAX_HEADER_NAME = 256,   /* bytes of a header's name */
    ES_MAX_REASON = 1024,       /* bytes of a reason phrase */
    ES_MAX_TNET_DEPTH = 32,     /* lists and maps inside each other */
    ES_MAX_TNET_VALUES = 16384, /* values in one tnetstring */
    ES_MAX_FOUND = 60           /* bytes of the sender's text that an error sentence repeats */
};

/** For "%.*s" in an error sentence: the text that was found, cut to a decent length. */
#define ES_FOUND(s) (int)((s).n > ES_MAX_FOUND ? ES_MAX_FOUND : (s).n), ((s).p ? (s).p : "")

/* ---- text.c ------------------------------------------------------------------------------- */
bool es_text_is_clean(es_str_t s); /* no CR, LF or NUL */
/** The length of the character at p (n > 0), 0 when it is not well formed. */
size_t es_utf8_sequence(const unsigned char *p, size_t n);
bool es_text_is_header_name(es_str_t s); /* an RFC 9110 token, at most ES_MAX_HEADER_NAME bytes */
bool es_text_equals(es_str_t a, es_str_t b);
int es_hex_value(char c); /* of a hexadecimal digit; -1: it is none */

/** Sets or replaces one pair of a meta object and checks names, values and caps.
 * `where` is what the error sentence starts with: "Grip-Set-Meta", "'meta'". */
es_err_t es_meta_set(es_pairs_t *meta, const char *where, es_str_t name, es_str_t value,
                     es_detail_t *detail);

/** Puts `prefix` before the sentence. */
void es_detail_prefix(es_detail_t *detail, const char *prefix);

/* ---- header_list.c ------------------------------------------------------------------------ */
/** Takes the next comma-separated element, trimmed. ES_ENOENT at the end, ES_EINVAL: a quote is
 * not closed. Start with the trimmed value of the header in `rest`. */
es_err_t es_list_next(es_str_t *rest, es_str_t *ret);

/** Takes the text up to the first ';', trimmed; quotes mean nothing here. */
es_str_t es_param_first(es_str_t *rest);

/** Takes the next `name[=value]`. The value may live in `scratch`: good until the next call.
 * ES_ENOENT at the end, ES_EINVAL: a quoted value is not closed. */
es_err_t es_param_next(es_str_t *rest, es_buf_t *scratch, es_str_t *ret_name, es_str_t *ret_value);

/* ---- cstring_base64.c --------------------------------------------------------------------- */
/** Decodes base64, skipping what is not of its alphabet (as Qt does). `url`: the alphabet of JWT.
 */
es_err_t es_base64_decode(es_str_t in, bool url, char **ret, size_t *ret_len);
es_err_t es_base64_encode(es_str_t in, char **ret, size_t *ret_len);
/** The offset of the first byte that strict base64 does not allow; in.n when there is none.
 * Padding may be missing. */
size_t es_base64_check(es_str_t in);

/* ---- query.c ------------------------------------------------------------------------------ */
/** Takes the next name=value, both as they stand in the URL. False: there is none. */
bool es_query_next(es_str_t *rest, es_str_t *ret_name, es_str_t *ret_value);
/** Decodes %XX, and '+' as a blank, and appends. ES_EINVAL: a broken escape, `out` is as it was. */
es_err_t es_query_decode(es_str_t in, es_buf_t *out);
/** Does it decode to that name? */
bool es_query_is(es_str_t raw, const char *name);
/** Encodes as Python's urllib.parse.quote: all but letters, digits and _.-~/ */
es_err_t es_query_quote(es_str_t in, es_buf_t *out);
/** Takes back what failed half-way: to `n` bytes again. */
void es_buf_cut(es_buf_t *b, size_t n);

/* ---- time_text.c -------------------------------------------------------------------------- */
/** A point in time as ?since= takes it, decoded. `*ret_ms` is since 1970, never negative. */
es_err_t es_time_read(es_str_t text, int64_t now_ms, int64_t *ret_ms, es_detail_t *detail);

/* ---- sse_event.c -------------------------------------------------------------------------- */
/** Appends a JSON string with its quotes, as Python's json.dumps writes it. */
es_err_t es_json_quote(es_str_t text, es_buf_t *out);

/* ---- patterns.c, claims.c ----------------------------------------------------------------- */
/** Adds a list of texts, or one text. `what` is what an error sentence starts with. */
es_err_t es_patterns_add_json(es_patterns_t *io, const json_t *list, const char *what,
                              es_detail_t *detail);
/** Checks `exp`, `nbf`, `iss` and `aud` of claims that are signed. ES_EAUTH. */
es_err_t es_claims_check(const json_t *claims, const es_token_rules_t *rules, int64_t now,
                         es_detail_t *detail);
/** What es_token_read does once the signature is known to be good. */
es_err_t es_claims_read(es_str_t text, const es_token_rules_t *rules, int64_t now, es_token_t **ret,
                        es_detail_t *detail);
/** A display name: UTF-8 without CR, LF, NUL, not too long. `what` starts the error sentence. */
es_err_t es_display_name(const json_t *value, const char *what, char **ret, es_detail_t *detail);

/* ---- token.c ------------------------------------------------------------------------------ */
/** Everything about a token but its claims: form, algorithm, signature. `*ret_claims`: JSON text,
 * free() it. */
es_err_t es_token_open(const es_key_t *key, es_str_t token, char **ret_claims, es_detail_t *detail);

/* ---- key_pem.c ---------------------------------------------------------------------------- */
bool es_key_is_pem(es_str_t text);
/** Finds the key's type in PEM text and the part of the text that is the key. */
es_err_t es_key_scan_pem(es_str_t text, es_key_t *io, es_str_t *ret_pem, es_detail_t *detail);

/* ---- instruct.c --------------------------------------------------------------------------- */
es_instruct_t *es_instruct_new(void); /* the defaults; NULL when out of memory */
es_err_t es_instruct_clone(const es_instruct_t *in, es_instruct_t **ret);
es_err_t es_instruct_add_expose(es_instruct_t *in, es_str_t name, es_detail_t *detail);
/** Adds a filter to a subscription that is being read; unknown names are left out. */
void es_sub_spec_add_filter(es_sub_spec_t *spec, es_str_t name);
/** Drops the keep-alive: back to none, with the default timeout and mode. */
void es_instruct_clear_keep_alive(es_instruct_t *in);
int es_clamp_timeout(int64_t seconds, int least);

/* ---- tnetstring.c ------------------------------------------------------------------------- */
/** Strings become JSON strings of raw bytes, unchecked. Caps: ES_MAX_TNET_*. */
es_err_t es_tnetstring_parse(es_str_t in, json_t **ret, es_detail_t *detail);

/* ---- json_read.c -------------------------------------------------------------------------- */
/** Reads members of one input. Error sentences are Pushpin's; with `explain` they also tell what
 * was found and what is accepted. */
typedef struct es_json_in {
    es_detail_t *detail;
    bool explain;
    bool raw_bytes; /* from a tnetstring: strings are bytes, content-bin need not be base64 */
} es_json_in_t;

/** Parses JSON text; NUL may be escaped in strings. ES_EINVAL: not an object or array. */
es_err_t es_json_parse(const char *text, size_t len, json_t **ret, es_detail_t *detail);

/** Finds a member. `*ret` is NULL when it is absent (or null and optional). */
es_err_t es_json_get(const es_json_in_t *in, const json_t *obj, const char *where, const char *name,
                     json_type type, bool required, json_t **ret);
/** A string without CR, LF and NUL, of at most `max` bytes. `ret->p` is NULL when it is absent. */
es_err_t es_json_get_text(const es_json_in_t *in, const json_t *obj, const char *where,
                          const char *name, bool required, size_t max, es_str_t *ret);
/** A number, or a string that holds one. `*io` is left alone when the member is absent. */
es_err_t es_json_get_int(const es_json_in_t *in, const json_t *obj, const char *where,
                         const char *name, int64_t min, int64_t max, int64_t *io);
/** `bin` (base64) or `text`, whichever is there. `*ret` is NULL when neither is. */
es_err_t es_json_get_content(const es_json_in_t *in, const json_t *obj, const char *where,
                             const char *text, const char *bin, char **ret, size_t *ret_len);
/** `meta` of an object: strings only; replaces what `io` holds. `*ret_given` may be NULL. */
es_err_t es_json_get_meta(const es_json_in_t *in, const json_t *obj, const char *where,
                          es_pairs_t *io, bool *ret_given);
/** code, reason, headers and body of a response object. Starts from an empty `ret`. `*ret_has_body`
 * tells whether there was a body at all. */
es_err_t es_json_get_response(const es_json_in_t *in, const json_t *obj, const char *where,
                              es_response_t *ret, bool *ret_has_body);
es_str_t es_json_str(const json_t *string);

#endif
