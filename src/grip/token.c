/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Web Tokens, HS256, RS256 and ES256 and nothing else: `Grip-Sig` on the way to the
 * application, bearer tokens on the way in.
 *
 * The order of the checks matters. The header of a token is read first and must name the key's own
 * algorithm in exactly these letters; only then does libjwt see the token and verify the signature;
 * only then are claims looked at. So a token that says "none", or names an algorithm of another
 * family (HS256, to have a public key taken for a secret), never gets as far as a library's opinion
 * about it.
 *
 * libjwt compares signatures in constant time since 1.15.3; Debian's 1.10.2-1+deb12u1 has that
 * change too.
 */
#include "grip_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jwt.h>

static jwt_alg_t alg_of(const es_key_t *key)
{
    switch (key->alg) {
    case ES_ALG_HS256:
        return JWT_ALG_HS256;
    case ES_ALG_RS256:
        return JWT_ALG_RS256;
    case ES_ALG_ES256:
        return JWT_ALG_ES256;
    }
    return JWT_ALG_TERM;
}

es_err_t es_token_sign(const es_key_t *key, const char *iss, int64_t now, char **ret)
{
    jwt_t *jwt = NULL;
    char *token = NULL;
    es_err_t err = ES_ENOMEM;

    if (key->is_public) {
        return ES_EINVAL;
    }
    if (jwt_new(&jwt) != 0) {
        return ES_ENOMEM;
    }
    if (jwt_set_alg(jwt, alg_of(key), key->bytes, (int)key->n) != 0) {
        goto cleanup;
    }
    if (iss != NULL && jwt_add_grant(jwt, "iss", iss) != 0) {
        /* jansson refuses text that is not UTF-8. */
        err = es_text_is_utf8(es_str(iss)) ? ES_ENOMEM : ES_EINVAL;
        goto cleanup;
    }
    if (jwt_add_grant_int(jwt, "exp", (long)(now + 3600)) != 0) {
        goto cleanup;
    }
    token = jwt_encode_str(jwt);
    if (token == NULL) {
        err = key->is_private && errno != ENOMEM ? ES_EINVAL : ES_ENOMEM;
        goto cleanup;
    }
    *ret = token;
    err = ES_OK;
cleanup:
    jwt_free(jwt);
    return err;
}

static es_err_t refuse(es_detail_t *detail, const char *why)
{
    return es_fail(detail, ES_EAUTH, "token refused: %s", why);
}

static es_err_t wrong_alg(const es_key_t *key, es_detail_t *detail)
{
    return es_fail(detail, ES_EAUTH, "token refused: its algorithm is not %s",
                   es_alg_name(key->alg));
}

/* Reads the first segment, without believing anything in it. */
static es_err_t check_header(const es_key_t *key, es_str_t token, es_detail_t *detail)
{
    const char *dot = memchr(token.p, '.', token.n);
    es_str_t segment = { token.p, dot == NULL ? 0 : (size_t)(dot - token.p) };
    json_t *header = NULL;
    const json_t *alg;
    char *text = NULL;
    size_t len;
    es_err_t err;

    if (segment.n == 0) {
        return refuse(detail, "it is not a JWT");
    }
    if (es_base64_decode(segment, true, &text, &len) != ES_OK) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    err = es_json_parse(text, len, &header, NULL);
    free(text);
    if (err == ES_ENOMEM) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    if (err != ES_OK) {
        return refuse(detail, "its header is not JSON");
    }
    alg = json_object_get(header, "alg");
    if (!json_is_string(alg) || !es_str_is(es_json_str(alg), es_alg_name(key->alg))) {
        err = wrong_alg(key, detail);
    }
    else if (json_object_get(header, "crit") != NULL) {
        /* RFC 7515 4.1.11: who does not know what is critical refuses. We know of nothing. */
        err = refuse(detail, "its header has 'crit'");
    }
    json_decref(header);
    return err;
}

static es_err_t check_form(const es_key_t *key, es_str_t token, es_detail_t *detail)
{
    if (key->is_private) {
        return refuse(detail, "the key is a private one, which checks nothing");
    }
    if (token.n == 0) {
        return refuse(detail, "there is none");
    }
    if (token.n > ES_MAX_TOKEN) {
        return es_fail(detail, ES_EAUTH, "token refused: it is %zu bytes long, at most %d", token.n,
                       ES_MAX_TOKEN);
    }
    if (memchr(token.p, '\0', token.n) != NULL) {
        return refuse(detail, "it holds a NUL");
    }
    return check_header(key, token, detail);
}

es_err_t es_token_open(const es_key_t *key, es_str_t token, char **ret_claims, es_detail_t *detail)
{
    jwt_t *jwt = NULL;
    char *text = NULL;
    char *copy;
    es_err_t err = check_form(key, token, detail);
    int rc;

    if (err != ES_OK) {
        return err;
    }
    copy = es_memdup(token.p, token.n);
    if (copy == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    rc = jwt_decode(&jwt, copy, key->bytes, (int)key->n);
    free(copy);
    if (rc != 0) {
        return rc == ENOMEM ? es_fail(detail, ES_ENOMEM, "out of memory")
                            : refuse(detail, "its signature does not fit");
    }
    if (jwt_get_alg(jwt) != alg_of(key)) {
        err = wrong_alg(key, detail);
    }
    else {
        text = jwt_get_grants_json(jwt, NULL);
        err = text == NULL ? es_fail(detail, ES_ENOMEM, "out of memory") : ES_OK;
    }
    jwt_free(jwt);
    if (err == ES_OK) {
        *ret_claims = text;
    }
    return err;
}

es_err_t es_token_verify(const es_key_t *key, const char *iss, es_str_t token, int64_t now,
                         es_detail_t *detail)
{
    es_token_rules_t rules = { .iss = iss };
    json_t *claims = NULL;
    char *text = NULL;
    es_err_t err = es_token_open(key, token, &text, detail);

    if (err != ES_OK) {
        return err;
    }
    err = es_json_parse(text, strlen(text), &claims, detail);
    free(text);
    if (err != ES_OK) {
        return err == ES_ENOMEM ? err : refuse(detail, "its claims are not a JSON object");
    }
    err = es_claims_check(claims, &rules, now, detail);
    json_decref(claims);
    return err;
}

es_err_t es_token_read(const es_key_t *key, const es_token_rules_t *rules, es_str_t token,
                       int64_t now, es_token_t **ret, es_detail_t *detail)
{
    char *text = NULL;
    es_err_t err = es_token_open(key, token, &text, detail);

    if (err == ES_OK) {
        err = es_claims_read(es_str(text), rules, now, ret, detail);
        free(text);
    }
    return err;
}
