/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and JSON Web Tokens, HS256 and nothing else: `Grip-Sig` on the way to the application,
 * bearer tokens on the way in.
 *
 * The order of the checks matters. The header of a token is read first and must say HS256 in
 * exactly these letters; only then does libjwt see the token and verify the signature; only then
 * are claims looked at. So a token that says "none", or names an algorithm of another family, never
 * gets as far as a library's opinion about it.
 *
 * libjwt compares signatures in constant time since 1.15.3; Debian's 1.10.2-1+deb12u1 has that
 * change too.
 */
#include "grip_int.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <jwt.h>

es_err_t es_key_from_text(es_str_t text, es_key_t **ret, es_detail_t *detail)
{
    static const char prefix[] = "base64:";
    size_t skip = sizeof(prefix) - 1;
    char *bytes = NULL;
    es_key_t *key;
    size_t n = text.n;
    es_err_t err = ES_OK;

    if (text.n >= skip && memcmp(text.p, prefix, skip) == 0) {
        es_str_t encoded = { text.p + skip, text.n - skip };
        size_t wrong = es_base64_check(encoded);
        /* The text is a secret: say where it is wrong, not what it is. */
        if (wrong != encoded.n) {
            return es_fail(detail, ES_EINVAL, "key is not valid base64: see byte %zu after '%s'",
                           wrong + 1, prefix);
        }
        err = es_base64_decode(encoded, false, &bytes, &n);
    }
    else {
        bytes = es_memdup(text.p, text.n);
        err = bytes == NULL ? ES_ENOMEM : ES_OK;
    }
    key = err == ES_OK ? malloc(sizeof(*key)) : NULL;
    if (key == NULL) {
        if (bytes != NULL) {
            explicit_bzero(bytes, n);
            free(bytes);
        }
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    key->bytes = (unsigned char *)bytes;
    key->n = n;
    if (n == 0 || n > INT_MAX) {
        es_key_free(key);
        return es_fail(detail, ES_EINVAL, n == 0 ? "key is empty" : "key is too long");
    }
    *ret = key;
    return ES_OK;
}

void es_key_free(es_key_t *key)
{
    if (key == NULL) {
        return;
    }
    if (key->bytes != NULL) {
        explicit_bzero(key->bytes, key->n);
        free(key->bytes);
    }
    free(key);
}

bool es_key_equals(const es_key_t *key, es_str_t secret)
{
    /* Runs over the secret that came in: its length is the sender's to know, ours is not told. */
    unsigned char differs = key->n == secret.n ? 0 : 1;
    size_t i;

    for (i = 0; i < secret.n; i++) {
        differs |= (unsigned char)(key->bytes[i % key->n] ^ (unsigned char)secret.p[i]);
    }
    return differs == 0;
}

es_err_t es_token_sign(const es_key_t *key, const char *iss, int64_t now, char **ret)
{
    jwt_t *jwt = NULL;
    char *token = NULL;
    es_err_t err = ES_ENOMEM;

    if (jwt_new(&jwt) != 0) {
        return ES_ENOMEM;
    }
    if (jwt_set_alg(jwt, JWT_ALG_HS256, key->bytes, (int)key->n) != 0) {
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

/* Reads the first segment, without believing anything in it. */
static es_err_t check_header(es_str_t token, es_detail_t *detail)
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
    if (!json_is_string(alg) || !es_str_is(es_json_str(alg), "HS256")) {
        err = refuse(detail, "its algorithm is not HS256");
    }
    json_decref(header);
    return err;
}

/* libjwt's own getters do not tell a claim of another type from a number, so the claims are read
 * as the JSON that they are. */
static es_err_t check_claims(jwt_t *jwt, const char *iss, int64_t now, es_detail_t *detail)
{
    char *text = jwt_get_grants_json(jwt, NULL);
    json_t *claims = NULL;
    const json_t *exp;
    const json_t *found;
    es_err_t err;

    if (text == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    err = es_json_parse(text, strlen(text), &claims, detail);
    free(text);
    if (err != ES_OK) {
        return err == ES_ENOMEM ? err : refuse(detail, "its claims are not a JSON object");
    }
    exp = json_object_get(claims, "exp");
    found = json_object_get(claims, "iss");
    if (!json_is_integer(exp)) {
        err = refuse(detail, "it has no 'exp' claim that is a whole number");
    }
    else if (json_integer_value(exp) <= now) {
        err = refuse(detail, "it has expired");
    }
    else if (iss != NULL && (!json_is_string(found) || !es_str_is(es_json_str(found), iss))) {
        err = refuse(detail, "its 'iss' claim is not the expected one");
    }
    json_decref(claims);
    return err;
}

es_err_t es_token_verify(const es_key_t *key, const char *iss, es_str_t token, int64_t now,
                         es_detail_t *detail)
{
    jwt_t *jwt = NULL;
    char *copy;
    es_err_t err;
    int rc;

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
    err = check_header(token, detail);
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
    if (jwt_get_alg(jwt) != JWT_ALG_HS256) {
        err = refuse(detail, "its algorithm is not HS256");
    }
    else {
        err = check_claims(jwt, iss, now, detail);
    }
    jwt_free(jwt);
    return err;
}
