/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/key_pem.c and of tokens with public keys. Keys and tokens were made by openssl
 * (keys.h). */
#include "es_test.h"
#include "grip_int.h"
#include "keys.h"

static es_key_t *key_of(const char *text)
{
    es_key_t *key = NULL;
    es_detail_t d;

    assert_err(es_key_from_text(es_str(text), &key, &d), ES_OK, &d);
    return key;
}

static void knows_types(void **state)
{
    static const struct {
        const char *text;
        es_alg_t alg;
        bool is_public;
    } keys[] = {
        { rsa_public, ES_ALG_RS256, true },  { rsa_private, ES_ALG_RS256, false },
        { ec_public, ES_ALG_ES256, true },   { rsa_private_old, ES_ALG_RS256, false },
        { ec_private, ES_ALG_ES256, false }, { ec_private_old, ES_ALG_ES256, false },
    };
    es_key_t *key;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(keys); i++) {
        char padded[4000];
        key = key_of(keys[i].text);
        assert_int_equal(key->alg, keys[i].alg);
        assert_int_equal(key->is_public, keys[i].is_public);
        assert_int_equal(key->is_private, !keys[i].is_public);
        es_key_free(key);
        /* Blanks and another block around it do no harm. */
        snprintf(padded, sizeof(padded), "\n \t%s\n%s", keys[i].text, ed_public);
        key = key_of(padded);
        assert_int_equal(key->alg, keys[i].alg);
        es_key_free(key);
    }
    key = key_of("changeme");
    assert_int_equal(key->alg, ES_ALG_HS256);
    assert_false(key->is_public || key->is_private);
    es_key_free(key);
    assert_string_equal(es_alg_name(ES_ALG_ES256), "ES256");
}

static void refuses_other_keys(void **state)
{
#define ONLY                                                                                       \
    "; accepted are PUBLIC KEY, PRIVATE KEY, RSA PRIVATE KEY and EC PRIVATE KEY, without a "       \
    "password"
    static const struct {
        const char *text;
        const char *why;
    } keys[] = {
        { rsa_1024_public, "key is RSA of 1024 bits, at least 2048 are needed" },
        { ec_384_public, "key is on another curve than P-256 (prime256v1), which ES256 needs" },
        { ec_384_private, "key is on another curve than P-256 (prime256v1), which ES256 needs" },
        { ed_public, "key is neither RSA (for RS256) nor P-256 (for ES256)" },
        { rsa_encrypted, "key is PEM with a password" ONLY },
        { rsa_public_old, "key is PEM of the kind 'RSA PUBLIC KEY'" ONLY },
        { "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
          "key is PEM of the kind 'CERTIFICATE'" ONLY },
        { "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
          "key is PEM of the kind 'ENCRYPTED PRIVATE KEY'" ONLY },
        { "-----BEGIN PUBLIC KEY-----\n", "key is PEM that is not complete" ONLY },
        { "-----BEGIN ", "key is PEM that is not complete" ONLY },
        { "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
          "key is PEM that is not complete" ONLY },
        { "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY",
          "key is PEM that is not complete" ONLY },
        { "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
          "key is PEM that is not complete" ONLY },
        { "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
          "key is PEM, but what it holds is broken" },
        { "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
          "key is PEM, but what it holds is broken" },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(keys); i++) {
        es_key_t *key = NULL;
        es_detail_t d;
        assert_err(es_key_from_text(es_str(keys[i].text), &key, &d), ES_EINVAL, &d);
        assert_string_equal(d.text, keys[i].why);
        assert_null(key);
    }
}

/* Whatever is cut off or changed: an error or a key, never a read past the end. */
static void survives_damage(void **state)
{
    static const char *const keys[] = { rsa_public, ec_public, ec_private, ec_private_old };
    size_t i, at;

    (void)state;
    for (i = 0; i < ES_COUNT(keys); i++) {
        size_t n = strlen(keys[i]);
        for (at = 0; at < n; at += 3) {
            char *copy = es_memdup(keys[i], n);
            es_key_t *key = NULL;
            assert_non_null(copy);
            copy[at] = copy[at] == 'A' ? 'B' : 'A';
            if (es_key_from_text((es_str_t) { copy, n }, &key, NULL) == ES_OK) {
                es_key_free(key);
            }
            key = NULL;
            copy[at] = keys[i][at];
            if (es_key_from_text((es_str_t) { copy, at }, &key, NULL) == ES_OK) {
                es_key_free(key);
            }
            free(copy);
        }
    }
}

static void checks_tokens_of_others(void **state)
{
    es_key_t *rsa = key_of(rsa_public);
    es_key_t *ec = key_of(ec_public);
    es_detail_t d;

    (void)state;
    assert_err(es_token_verify(rsa, "site", es_str(rs256_token), KEYS_EXP - 1, &d), ES_OK, &d);
    assert_err(es_token_verify(ec, "site", es_str(es256_token), KEYS_EXP - 1, &d), ES_OK, &d);
    assert_err(es_token_verify(rsa, "site", es_str(rs256_token), KEYS_EXP, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: it has expired");
    es_key_free(rsa);
    es_key_free(ec);
}

/* The key decides what a token may be signed with. */
static void pins_the_algorithm(void **state)
{
    static const char none[] =
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.";
    const struct {
        const char *key;
        const char *token;
        const char *why;
    } refused[] = {
        { rsa_public, confused_token, "its algorithm is not RS256" },
        { rsa_public, confused_token_2, "its algorithm is not RS256" },
        { rsa_public, es256_token, "its algorithm is not RS256" },
        { rsa_public, none, "its algorithm is not RS256" },
        { rsa_public, rs256_by_secret, "its signature does not fit" },
        { ec_public, rs256_token, "its algorithm is not ES256" },
        { ec_public, es256_by_rsa, "its signature does not fit" },
        { ec_public, none, "its algorithm is not ES256" },
        { "changeme", rs256_token, "its algorithm is not HS256" },
        { "changeme", rs256_by_secret, "its algorithm is not HS256" },
        { rsa_private, rs256_token, "the key is a private one, which checks nothing" },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(refused); i++) {
        es_key_t *key = key_of(refused[i].key);
        char want[128];
        es_detail_t d;
        snprintf(want, sizeof(want), "token refused: %s", refused[i].why);
        assert_err(es_token_verify(key, NULL, es_str(refused[i].token), KEYS_EXP - 1, &d), ES_EAUTH,
                   &d);
        assert_string_equal(d.text, want);
        es_key_free(key);
    }
}

static void every_changed_byte(void **state)
{
    static const char *const tokens[] = { rs256_token, es256_token };
    es_key_t *keys[] = { key_of(rsa_public), key_of(ec_public) };
    size_t i, at;

    (void)state;
    for (i = 0; i < ES_COUNT(tokens); i++) {
        size_t n = strlen(tokens[i]);
        for (at = 0; at < n - 1; at += 2) {
            char *copy = es_memdup(tokens[i], n);
            assert_non_null(copy);
            copy[at] = copy[at] == 'A' ? 'B' : 'A';
            assert_int_equal(es_token_verify(keys[i], NULL, es_str(copy), KEYS_EXP - 1, NULL),
                             ES_EAUTH);
            free(copy);
        }
        es_key_free(keys[i]);
    }
}

/* In base64: it is PEM all the same, and never a secret; and a public key opens nothing by being
 * known. */
static void public_is_no_secret(void **state)
{
    char text[2000] = "base64:";
    char *encoded = NULL;
    es_key_t *key;
    size_t n;

    (void)state;
    assert_int_equal(es_base64_encode(es_str(rsa_public), &encoded, &n), ES_OK);
    assert_true(n + 8 < sizeof(text));
    memcpy(text + 7, encoded, n + 1);
    key = key_of(text);
    assert_int_equal(key->alg, ES_ALG_RS256);
    assert_int_equal(es_token_verify(key, NULL, es_str(confused_token), KEYS_EXP - 1, NULL),
                     ES_EAUTH);
    assert_int_equal(es_token_verify(key, NULL, es_str(rs256_token), KEYS_EXP - 1, NULL), ES_OK);
    assert_false(es_key_equals(key, es_str(rsa_public)));
    assert_false(es_key_equals(key, (es_str_t) { (char *)key->bytes, key->n }));
    es_key_free(key);
    key = key_of(ec_private);
    assert_false(es_key_equals(key, (es_str_t) { (char *)key->bytes, key->n }));
    es_key_free(key);
    free(encoded);
}

static void signs_with_private_keys(void **state)
{
    static const char *const pairs[][2] = {
        { rsa_private, rsa_public },
        { rsa_private_old, rsa_public },
        { ec_private, ec_public },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(pairs); i++) {
        es_key_t *private_key = key_of(pairs[i][0]);
        es_key_t *public_key = key_of(pairs[i][1]);
        int round;
        /* Signatures of ES256 differ each time, and one in 128 has a short half. */
        for (round = 0; round < (private_key->alg == ES_ALG_ES256 ? 300 : 1); round++) {
            char *token = NULL;
            es_detail_t d;
            assert_err(es_token_sign(private_key, "apache", 1000, &token), ES_OK, NULL);
            assert_err(es_token_verify(public_key, "apache", es_str(token), 1000, &d), ES_OK, &d);
            free(token);
        }
        {
            char *token = NULL;
            assert_int_equal(es_token_sign(public_key, "apache", 1000, &token), ES_EINVAL);
            assert_null(token);
        }
        es_key_free(private_key);
        es_key_free(public_key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_types),         cmocka_unit_test(refuses_other_keys),
        cmocka_unit_test(survives_damage),     cmocka_unit_test(checks_tokens_of_others),
        cmocka_unit_test(pins_the_algorithm),  cmocka_unit_test(every_changed_byte),
        cmocka_unit_test(public_is_no_secret), cmocka_unit_test(signs_with_private_keys),
    };
    return cmocka_run_group_tests_name("key_pem", tests, NULL, NULL);
}
