/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/token.c: keys, the tokens that PyJWT and Pushpin make, and every way that we
 * know to get past a careless check. The tokens were made outside of this project's code. */
#include "es_test.h"
#include "grip_int.h"

/* {"alg":"HS256","typ":"JWT"} {"iss":"realm1","exp":1795456888}, key "changeme" */
static const char good[] =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
    "9.JrfA5gF-LEsIzhWaXp7PXCbGk9p7zT9y_5vAg2-7n04";
/* {"typ":"JWT","alg":"HS256"} {"exp":1795456888,"iss":"pushpin"}, same key */
static const char from_pushpin[] =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InB1c2hwaW4"
    "ifQ.bo6w5Akqf80PpaiqFe4uROr9hCB2Og6PEREwLlpTvZQ";

enum { EXP = 1795456888 };

static es_key_t *key_of(const char *text)
{
    es_key_t *key = NULL;
    es_detail_t d;

    assert_err(es_key_from_text(es_str(text), &key, &d), ES_OK, &d);
    return key;
}

static void reads_keys(void **state)
{
    es_key_t *key = key_of("changeme");

    (void)state;
    assert_bytes((char *)key->bytes, key->n, "changeme");
    es_key_free(key);
    key = key_of("base64:Y2hhbmdlbWU=");
    assert_bytes((char *)key->bytes, key->n, "changeme");
    es_key_free(key);
    key = key_of("base64:AP8");
    assert_bytes((char *)key->bytes, key->n, "\0\xff");
    es_key_free(key);
    key = key_of("Base64:x y");
    assert_bytes((char *)key->bytes, key->n, "Base64:x y");
    es_key_free(key);
    es_key_free(NULL);
}

static void refuses_bad_keys(void **state)
{
    es_key_t *key = NULL;
    es_detail_t d;

    (void)state;
    assert_err(es_key_from_text(S(""), &key, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "key is empty");
    assert_err(es_key_from_text(S("base64:"), &key, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "key is empty");
    assert_err(es_key_from_text(S("base64:AP8 "), &key, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "key is not valid base64: see byte 4 after 'base64:'");
    assert_null(key);
}

static void compares_keys(void **state)
{
    es_key_t *key = key_of("changeme");

    (void)state;
    assert_true(es_key_equals(key, S("changeme")));
    assert_false(es_key_equals(key, S("changemE")));
    assert_false(es_key_equals(key, S("Changeme")));
    assert_false(es_key_equals(key, S("changem")));
    assert_false(es_key_equals(key, S("changemechangeme")));
    assert_false(es_key_equals(key, S("changeme\0")));
    assert_false(es_key_equals(key, S("")));
    assert_false(es_key_equals(key, es_str(NULL)));
    es_key_free(key);
}

static void accepts_tokens_of_others(void **state)
{
    es_key_t *key = key_of("base64:Y2hhbmdlbWU=");
    es_detail_t d;

    (void)state;
    assert_err(es_token_verify(key, "realm1", es_str(good), EXP - 1, &d), ES_OK, &d);
    assert_err(es_token_verify(key, NULL, es_str(good), EXP - 3600, &d), ES_OK, &d);
    assert_err(es_token_verify(key, "pushpin", es_str(from_pushpin), EXP - 1, NULL), ES_OK, NULL);
    es_key_free(key);
}

static void time_runs_out(void **state)
{
    es_key_t *key = key_of("changeme");
    es_detail_t d;

    (void)state;
    assert_err(es_token_verify(key, NULL, es_str(good), EXP, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: it has expired");
    assert_err(es_token_verify(key, NULL, es_str(good), INT64_C(1) << 40, &d), ES_EAUTH, &d);
    es_key_free(key);
}

static const struct {
    const char *what;
    const char *token;
    const char *why;
} refused[] = {
    { "algorithm none, no signature",
      "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9"
      ".",
      "its algorithm is not HS256" },
    { "algorithm none, signed",
      "eyJhbGciOiJub25lIn0.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.1APDg-SSMz9Ve49"
      "rUGpieoQDyz3rp62u9V4HXOnqGe8",
      "its algorithm is not HS256" },
    { "algorithm NONE", "eyJhbGciOiJOT05FIn0.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.",
      "its algorithm is not HS256" },
    { "HS512",
      "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9.38HusD2xICV6Saz6xbOV0bWqijQmnLYCes0mmlBPnh8ILRXaIWHQGttaAvyhttOAM6NX_qjbWnMKWp"
      "tk3iD2jA",
      "its algorithm is not HS256" },
    { "RS256",
      "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9.EVm4e5k8LnKW4aiejZOwJzKi4s23ax8ZsgfnFY71mv8",
      "its algorithm is not HS256" },
    { "hs256 in small letters",
      "eyJhbGciOiJoczI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9.-qLOQwndHkzQKLb2uchJJSRDsrrs1FNjh6YQGwtcvD0",
      "its algorithm is not HS256" },
    { "no algorithm",
      "eyJ0eXAiOiJKV1QifQ.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.y_IWdPs-IpeGWJDo"
      "RBGyY9_uJuerZCFoPnyfIw8ElO0",
      "its algorithm is not HS256" },
    { "an algorithm that is a number",
      "eyJhbGciOjI1Nn0.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.U8kbjy1LxNDlKE6KtFQ"
      "LytKchuxdMmpBhInR42Kw9qg",
      "its algorithm is not HS256" },
    { "two algorithms",
      "eyJhbGciOiJIUzI1NiIsImFsZyI6Im5vbmUifQ.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4O"
      "Dh9.l6w-2lWpR2hFi55IE68gGYIx0gLNDrJoCb4VlA8Se1c",
      "its algorithm is not HS256" },
    { "a list as header", "WyJIUzI1NiJd.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9.x",
      "its algorithm is not HS256" },
    { "a header that is not JSON",
      "SFMyNTY.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9._S5iD_NkCi7sINkhbYVfXiX9jya"
      "aFmR2dRyiP9YSIyU",
      "its header is not JSON" },
    { "no exp",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEifQ.Vm-8v_YVH_u_N6zsUy7f"
      "wwwsIenMXcbmKk2XfCRvoSU",
      "it has no 'exp' claim that is a whole number" },
    { "exp as text",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOiIxNzk1NDU2ODg"
      "4In0.RCnBcGN-ZXP9RFcHNn7Fy_EykK5b8bSIIdflCMcIg0I",
      "it has no 'exp' claim that is a whole number" },
    { "exp as a fraction",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODg"
      "uNX0._OG91YG9Bk2eATBqzjqgt_RYxLSIMfefpgOxqSVOlew",
      "it has no 'exp' claim that is a whole number" },
    { "exp null",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOm51bGx9.rtzwWq"
      "3-GL5s666Na7fn_NKrpi9EepLHwOqrtb7OJQM",
      "it has no 'exp' claim that is a whole number" },
    { "exp 0",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjB9.jgj_Onudje"
      "Zk9Tf4X7OvvY5wiu-7O64O9ybbbY_jE2A",
      "it has expired" },
    { "another issuer",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTIiLCJleHAiOjE3OTU0NTY4ODh"
      "9.ESmZpvSI6weLOt1a1Qie15Nj89vIw2BNIMeuyLtq-9o",
      "its 'iss' claim is not the expected one" },
    { "no issuer",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTU0NTY4ODh9.Uc_yDtUINmZBFGAQLl"
      "PC2n0MeqLlcyE3EI11tKZt0-Q",
      "its 'iss' claim is not the expected one" },
    { "an issuer that is a number",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOjcsImV4cCI6MTc5NTQ1Njg4OH0.Szj0yd-"
      "rV3hWMo1putPqmNcpeeAparOc0iQYszMMxN0",
      "its 'iss' claim is not the expected one" },
    { "claims that are not JSON",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.aGVsbG8._8NEsLTbsKlteojY75JywiS8mpoT-PGLoCK"
      "y20osUu0",
      "its signature does not fit" },
    { "another key",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9.iEoYC-vFnSNa_vGhM87zzcaTBWyfk81tsZJdK3i0oM4",
      "its signature does not fit" },
    { "no signature",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9.",
      "its signature does not fit" },
    { "two segments",
      "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh"
      "9",
      "its signature does not fit" },
    { "one segment and a dot", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
      "its signature does not fit" },
    { "critical extensions",
      "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3O"
      "TU0NTY4ODh9.O-f5MBXC7JUaobTgAybBrxBKZzIitpoj9BHn1Y8UxsQ",
      "its header has 'crit'" },
    { "one word", "changeme", "it is not a JWT" },
    { "a dot", ".", "it is not a JWT" },
    { "a scheme before it",
      "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0"
      "NTY4ODh9.JrfA5gF-LEsIzhWaXp7PXCbGk9p7zT9y_5vAg2-7n04",
      "its header is not JSON" },
};

static void refuses_everything_else(void **state)
{
    es_key_t *key = key_of("changeme");
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(refused); i++) {
        char want[128];
        es_detail_t d;
        es_err_t err = es_token_verify(key, "realm1", es_str(refused[i].token), EXP - 1, &d);
        snprintf(want, sizeof(want), "token refused: %s", refused[i].why);
        if (err != ES_EAUTH || strcmp(d.text, want) != 0) {
            print_error("%s: %s, %s\n", refused[i].what, es_err_name(err), d.text);
        }
        assert_int_equal(err, ES_EAUTH);
        assert_string_equal(d.text, want);
    }
    es_key_free(key);
}

static void refuses_every_changed_byte(void **state)
{
    es_key_t *key = key_of("changeme");
    char copy[sizeof(good)];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(good) - 1; i++) {
        memcpy(copy, good, sizeof(good));
        copy[i] = copy[i] == 'A' ? 'B' : 'A';
        assert_int_equal(es_token_verify(key, "realm1", es_str(copy), EXP - 1, NULL), ES_EAUTH);
    }
    for (i = 0; i < sizeof(good) - 1; i++) {
        es_str_t cut = { good, i };
        assert_int_equal(es_token_verify(key, "realm1", cut, EXP - 1, NULL), ES_EAUTH);
    }
    es_key_free(key);
}

static void has_a_cap(void **state)
{
    es_key_t *key = key_of("changeme");
    char *big = es_repeat('x', ES_MAX_TOKEN + 1);
    char *iss = es_repeat('i', 4000);
    char *token = NULL;
    es_detail_t d;

    (void)state;
    assert_err(es_token_verify(key, NULL, es_str(big), 1, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: it is 8193 bytes long, at most 8192");
    big[ES_MAX_TOKEN] = '\0';
    assert_err(es_token_verify(key, NULL, es_str(big), 1, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: it is not a JWT");
    assert_err(es_token_verify(key, NULL, S(""), 1, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: there is none");
    assert_err(es_token_verify(key, NULL, S("a.b\0.c"), 1, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: it holds a NUL");
    /* A long token under the cap is fine. */
    assert_err(es_token_sign(key, iss, 1000, &token), ES_OK, NULL);
    assert_err(es_token_verify(key, iss, es_str(token), 1000, &d), ES_OK, &d);
    free(token);
    free(iss);
    free(big);
    es_key_free(key);
}

static void signs_what_it_verifies(void **state)
{
    es_key_t *key = key_of("changeme");
    es_key_t *other = key_of("Changeme");
    char *token = NULL;
    char *header = NULL;
    es_str_t first;
    size_t n;
    es_detail_t d;

    (void)state;
    assert_err(es_token_sign(key, "apache", EXP - 3600, &token), ES_OK, NULL);
    assert_err(es_token_verify(key, "apache", es_str(token), EXP - 1, &d), ES_OK, &d);
    assert_err(es_token_verify(key, "apache", es_str(token), EXP, &d), ES_EAUTH, &d);
    assert_err(es_token_verify(key, "apache2", es_str(token), EXP - 1, &d), ES_EAUTH, &d);
    assert_err(es_token_verify(other, "apache", es_str(token), EXP - 1, &d), ES_EAUTH, &d);
    first.p = token;
    first.n = (size_t)(strchr(token, '.') - token);
    assert_int_equal(es_base64_decode(first, true, &header, &n), ES_OK);
    assert_non_null(strstr(header, "\"alg\":\"HS256\""));
    free(header);
    free(token);
    token = NULL;
    assert_err(es_token_sign(key, NULL, EXP - 3600, &token), ES_OK, NULL);
    assert_err(es_token_verify(key, NULL, es_str(token), EXP - 1, &d), ES_OK, &d);
    free(token);
    token = NULL;
    assert_err(es_token_sign(key, "\xff", 0, &token), ES_EINVAL, NULL);
    assert_null(token);
    es_key_free(key);
    es_key_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_keys),
        cmocka_unit_test(refuses_bad_keys),
        cmocka_unit_test(compares_keys),
        cmocka_unit_test(accepts_tokens_of_others),
        cmocka_unit_test(time_runs_out),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(refuses_every_changed_byte),
        cmocka_unit_test(has_a_cap),
        cmocka_unit_test(signs_what_it_verifies),
    };
    return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
