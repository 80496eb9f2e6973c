/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of tokens. A key knows what it is for: a secret signs and checks HS256, PEM text signs or
 * checks RS256 or ES256. Nothing that a token says can change that.
 *
 * A private key is tried once when it is read, so that one that the JWT library does not take is
 * refused at start-up and not with each request.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

const char *es_alg_name(es_alg_t alg)
{
    switch (alg) {
    case ES_ALG_HS256:
        return "HS256";
    case ES_ALG_RS256:
        return "RS256";
    case ES_ALG_ES256:
        return "ES256";
    }
    return "unknown";
}

/* Turns the bytes that were read into a key; owns them from the first line on. */
static es_err_t make_key(char *bytes, size_t n, es_key_t **ret, es_detail_t *detail)
{
    es_key_t *key = calloc(1, sizeof(*key));
    es_str_t text = { bytes, n };
    es_err_t err = ES_OK;

    if (key == NULL) {
        explicit_bzero(bytes, n);
        free(bytes);
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    key->bytes = (unsigned char *)bytes;
    key->n = n;
    if (n == 0 || n > INT_MAX) {
        err = es_fail(detail, ES_EINVAL, n == 0 ? "key is empty" : "key is too long");
    }
    else if (es_key_is_pem(text)) {
        es_str_t pem = { NULL, 0 };
        err = es_key_scan_pem(text, key, &pem, detail);
        if (err == ES_OK) {
            memmove(key->bytes, pem.p, pem.n);
            explicit_bzero(key->bytes + pem.n, n - pem.n);
            key->n = pem.n;
        }
    }
    if (err == ES_OK && key->is_private) {
        char *token = NULL;
        err = es_token_sign(key, NULL, 0, &token);
        free(token);
        if (err == ES_EINVAL) {
            es_fail(detail, err, "key is PEM, but what it holds is broken");
        }
        else if (err != ES_OK) {
            es_fail(detail, err, "%s", es_err_name(err));
        }
    }
    if (err != ES_OK) {
        es_key_free(key);
        return err;
    }
    *ret = key;
    return ES_OK;
}

es_err_t es_key_from_text(es_str_t text, es_key_t **ret, es_detail_t *detail)
{
    static const char prefix[] = "base64:";
    size_t skip = sizeof(prefix) - 1;
    char *bytes = NULL;
    size_t n = text.n;
    es_err_t err;

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
    if (err != ES_OK) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    return make_key(bytes, n, ret, detail);
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
    unsigned char differs = key->n == secret.n && !key->is_public && !key->is_private ? 0 : 1;
    size_t i;

    for (i = 0; i < secret.n; i++) {
        differs |= (unsigned char)(key->bytes[i % key->n] ^ (unsigned char)secret.p[i]);
    }
    return differs == 0;
}
