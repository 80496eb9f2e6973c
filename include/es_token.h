/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_token.h
 * Layer 1: tokens that say what their bearer may do. Keys, signing and the plain check are in
 * es_grip.h ("keys and tokens"); here are the claims, and where a request carries a token.
 */
#ifndef ES_TOKEN_H
#define ES_TOKEN_H

#include "es_sse.h"

typedef enum es_token_use { ES_USE_SUBSCRIBE = 0, ES_USE_PUBLISH, ES_USES } es_token_use_t;

/** What a token has to say about itself. NULL: not looked at. */
typedef struct es_token_rules {
    const char *iss; /* `iss` must be this */
    const char *aud; /* `aud`, a text or a list of texts, must name this */
} es_token_rules_t;

/** The claims of a token that was found good. Owned: es_token_free. */
typedef struct es_token {
    int64_t exp;                /* seconds since 1970; a stream has to end then */
    char *name;                 /* claim `name`, else `sub`, for presence; NULL: neither */
    char *sub;                  /* claim `sub`; NULL: none */
    bool listed[ES_USES];       /* the token lists channels for that use, be it none */
    es_patterns_t may[ES_USES]; /* asked names or patterns (es_glob_match) */
} es_token_t;

/**
 * Checks a token as es_token_verify does, and reads its claims:
 *  - `channels`: ["news", "user-*"], for subscribing and publishing;
 *  - `subscribe`, `publish`: the same for one use, and then `channels` does not count for that use;
 *  - each may be one text instead of a list. A token without any of them opens no channel.
 *  - `name`, `sub`: who it is, at most ES_MAX_DISPLAY_NAME bytes.
 * ES_EAUTH with the reason in `detail` (a claim that cannot be read too), ES_ENOMEM.
 */
es_err_t es_token_read(const es_key_t *key, const es_token_rules_t *rules, es_str_t token,
                       int64_t now, es_token_t **ret, es_detail_t *detail);

/** May the bearer do that on the channel of that asked name? */
bool es_token_allows(const es_token_t *token, es_token_use_t use, es_str_t asked);
void es_token_free(es_token_t *token); /* NULL is fine */

/* Where a request carries a token. ES_ENOENT: not there. `*ret` points into what was handed in; it
 * is not decoded: everything that a JWT consists of stands for itself in a cookie and in a URL. */
/** "Bearer TOKEN" (RFC 6750), the scheme in any case. */
es_err_t es_token_from_authorization(es_str_t header, es_str_t *ret);
/** The first cookie of that name that is not empty; quotes around it do not count (RFC 6265). */
es_err_t es_token_from_cookie(es_str_t header, const char *name, es_str_t *ret);
/** The first parameter of that name that is not empty. */
es_err_t es_token_from_query(es_str_t query, const char *name, es_str_t *ret);

#endif
