/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kind of key a PEM text holds. The JWT library takes PEM as it is, but does not tell before a
 * signature fails what it thinks of it; a key that is of no use must be refused when the server
 * starts. So the few bytes of DER that name the type and the size are read here (RFC 5280 4.1,
 * 5208, 5915, 8017 A.1):
 *
 *   PUBLIC KEY       SEQUENCE { SEQUENCE { type, curve }, BIT STRING { key } }
 *   PRIVATE KEY      SEQUENCE { 0, SEQUENCE { type, curve }, OCTET STRING { key } }
 *   RSA PRIVATE KEY  SEQUENCE { 0, modulus, ... }, the key of the two above for RSA too
 *   EC PRIVATE KEY   SEQUENCE { 1, OCTET STRING, [0] { curve }, ... }
 *
 * Of an RSA public key, the key is SEQUENCE { modulus, exponent }.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

enum {
    INTEGER = 0x02,
    BIT_STRING = 0x03,
    OCTET_STRING = 0x04,
    OID = 0x06,
    SEQUENCE = 0x30,
    CONTEXT_0 = 0xa0,
    MIN_RSA_BITS = 2048
};

#define ACCEPTED                                                                                   \
    "accepted are PUBLIC KEY, PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY, without a password"

static const char begin[] = "-----BEGIN ";
static const char dashes[] = "-----";

static es_str_t skip_space(es_str_t text)
{
    while (text.n > 0 && text.p[0] != '\0' && strchr(" \t\r\n", text.p[0]) != NULL) {
        text.p++;
        text.n--;
    }
    return text;
}

static bool starts(es_str_t text, const char *with)
{
    size_t n = strlen(with);

    return text.n >= n && memcmp(text.p, with, n) == 0;
}

bool es_key_is_pem(es_str_t text)
{
    return starts(skip_space(text), begin);
}

/* Takes an element of that tag: its content. */
static bool der_take(es_str_t *io, unsigned char tag, es_str_t *ret)
{
    const unsigned char *p = (const unsigned char *)io->p;
    size_t head = 2;
    size_t n, i;

    if (io->n < 2 || p[0] != tag) {
        return false;
    }
    n = p[1];
    if (n > 0x80) {
        head += n - 0x80;
        if (head > 4 || io->n < head) {
            return false;
        }
        n = 0;
        for (i = 2; i < head; i++) {
            n = n << 8 | p[i];
        }
    }
    else if (n == 0x80) {
        return false;
    }
    if (n > io->n - head) {
        return false;
    }
    ret->p = io->p + head;
    ret->n = n;
    io->p += head + n;
    io->n -= head + n;
    return true;
}

static bool is_curve(es_str_t oid)
{
    static const char p256[] = "\x2a\x86\x48\xce\x3d\x03\x01\x07";
    return oid.n == sizeof(p256) - 1 && memcmp(oid.p, p256, oid.n) == 0;
}

static es_err_t broken(es_detail_t *detail)
{
    return es_fail(detail, ES_EINVAL, "key is PEM, but what it holds is broken");
}

static es_err_t wrong_curve(es_detail_t *detail)
{
    return es_fail(detail, ES_EINVAL,
                   "key is on another curve than P-256 (prime256v1), which ES256 needs");
}

/* SEQUENCE { [0,] modulus, ... } */
static es_err_t scan_rsa(es_str_t der, bool private_key, es_key_t *io, es_detail_t *detail)
{
    es_str_t key, version, modulus;
    size_t bits;
    unsigned char top;

    if (!der_take(&der, SEQUENCE, &key) || (private_key && !der_take(&key, INTEGER, &version)) ||
        !der_take(&key, INTEGER, &modulus)) {
        return broken(detail);
    }
    while (modulus.n > 0 && modulus.p[0] == '\0') {
        modulus.p++;
        modulus.n--;
    }
    bits = modulus.n * 8;
    for (top = modulus.n == 0 ? 0 : (unsigned char)modulus.p[0]; top != 0 && top < 0x80;
         top = (unsigned char)(top << 1)) {
        bits--;
    }
    if (bits < MIN_RSA_BITS) {
        return es_fail(detail, ES_EINVAL, "key is RSA of %zu bits, at least %d are needed", bits,
                       MIN_RSA_BITS);
    }
    io->alg = ES_ALG_RS256;
    return ES_OK;
}

/* SEQUENCE { 1, OCTET STRING, [0] { curve } ... } */
static es_err_t scan_ec_private(es_str_t der, es_key_t *io, es_detail_t *detail)
{
    es_str_t key, version, secret, params, curve;

    if (!der_take(&der, SEQUENCE, &key) || !der_take(&key, INTEGER, &version) ||
        !der_take(&key, OCTET_STRING, &secret) || !der_take(&key, CONTEXT_0, &params) ||
        !der_take(&params, OID, &curve)) {
        return broken(detail);
    }
    io->alg = ES_ALG_ES256;
    return is_curve(curve) ? ES_OK : wrong_curve(detail);
}

/* PUBLIC KEY, PRIVATE KEY: the type is named. */
static es_err_t scan_typed(es_str_t der, bool private_key, es_key_t *io, es_detail_t *detail)
{
    static const char rsa[] = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    static const char ec[] = "\x2a\x86\x48\xce\x3d\x02\x01";
    es_str_t all, version, algorithm, type, curve, key;

    if (!der_take(&der, SEQUENCE, &all) || (private_key && !der_take(&all, INTEGER, &version)) ||
        !der_take(&all, SEQUENCE, &algorithm) || !der_take(&algorithm, OID, &type) ||
        !der_take(&all, private_key ? OCTET_STRING : BIT_STRING, &key)) {
        return broken(detail);
    }
    if (type.n == sizeof(rsa) - 1 && memcmp(type.p, rsa, type.n) == 0) {
        if (!private_key && key.n > 0) {
            key.p++; /* how many bits of the last byte do not count */
            key.n--;
        }
        return scan_rsa(key, private_key, io, detail);
    }
    if (type.n == sizeof(ec) - 1 && memcmp(type.p, ec, type.n) == 0) {
        io->alg = ES_ALG_ES256;
        return der_take(&algorithm, OID, &curve) && is_curve(curve) ? ES_OK : wrong_curve(detail);
    }
    return es_fail(detail, ES_EINVAL, "key is neither RSA (for RS256) nor P-256 (for ES256)");
}

static const char *find(const char *from, const char *end, const char *text)
{
    size_t n = strlen(text);

    while ((size_t)(end - from) >= n) {
        if (memcmp(from, text, n) == 0) {
            return from;
        }
        from++;
    }
    return NULL;
}

/* One block: its label, what is between its lines, all of it. */
static bool next_block(es_str_t *io, es_str_t *ret_label, es_str_t *ret_body, es_str_t *ret_all)
{
    es_str_t text = skip_space(*io);
    const char *end = text.p + text.n;
    const char *p, *stop;

    if (!starts(text, begin)) {
        return false;
    }
    p = text.p + sizeof(begin) - 1;
    stop = find(p, end, dashes);
    if (stop == NULL || stop - p > 64) {
        return false;
    }
    ret_label->p = p;
    ret_label->n = (size_t)(stop - p);
    ret_body->p = stop + sizeof(dashes) - 1;
    stop = find(ret_body->p, end, "-----END ");
    if (stop == NULL || (size_t)(end - stop) < 9 + ret_label->n + sizeof(dashes) - 1 ||
        memcmp(stop + 9, ret_label->p, ret_label->n) != 0 ||
        memcmp(stop + 9 + ret_label->n, dashes, sizeof(dashes) - 1) != 0) {
        return false;
    }
    ret_body->n = (size_t)(stop - ret_body->p);
    stop += 9 + ret_label->n + sizeof(dashes) - 1;
    ret_all->p = text.p;
    ret_all->n = (size_t)(stop - text.p);
    io->p = stop;
    io->n = (size_t)(end - stop);
    return true;
}

static es_err_t scan_der(es_str_t label, es_str_t der, es_key_t *io, es_detail_t *detail)
{
    io->is_public = es_str_is(label, "PUBLIC KEY");
    io->is_private = !io->is_public;
    if (es_str_is(label, "PUBLIC KEY") || es_str_is(label, "PRIVATE KEY")) {
        return scan_typed(der, io->is_private, io, detail);
    }
    if (es_str_is(label, "RSA PRIVATE KEY")) {
        return scan_rsa(der, true, io, detail);
    }
    if (es_str_is(label, "EC PRIVATE KEY")) {
        return scan_ec_private(der, io, detail);
    }
    return es_fail(detail, ES_EINVAL, "key is PEM of the kind '%.*s'; " ACCEPTED, ES_FOUND(label));
}

es_err_t es_key_scan_pem(es_str_t text, es_key_t *io, es_str_t *ret_pem, es_detail_t *detail)
{
    es_str_t label, body, der;
    char *bytes = NULL;
    es_err_t err;

    do {
        if (!next_block(&text, &label, &body, ret_pem)) {
            return es_fail(detail, ES_EINVAL, "key is PEM that is not complete; " ACCEPTED);
        }
    } while (es_str_is(label, "EC PARAMETERS")); /* openssl ecparam puts them first */
    if (memchr(body.p, ':', body.n) != NULL) {   /* a header: Proc-Type: 4,ENCRYPTED */
        return es_fail(detail, ES_EINVAL, "key is PEM with a password; " ACCEPTED);
    }
    err = es_base64_decode(body, false, &bytes, &der.n);
    if (err != ES_OK) {
        return es_fail(detail, err, "%s", es_err_name(err));
    }
    der.p = bytes;
    err = scan_der(label, der, io, detail);
    explicit_bzero(bytes, der.n);
    free(bytes);
    return err;
}
