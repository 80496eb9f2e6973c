/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/claims.c: what tokens allow, and where requests carry them. */
#include "es_test.h"
#include "grip_int.h"
#include "keys.h"

static const es_token_rules_t no_rules = { NULL, NULL };

/* Claims behind "exp":2000, read at 1000. */
static es_err_t read_claims(const char *more, const es_token_rules_t *rules, es_token_t **ret,
                            es_detail_t *detail)
{
    char text[3000];

    snprintf(text, sizeof(text), "{\"exp\":2000%s%s}", more[0] == '\0' ? "" : ",", more);
    return es_claims_read(es_str(text), rules, 1000, ret, detail);
}

static es_token_t *good(const char *more)
{
    es_token_t *token = NULL;
    es_detail_t d;

    assert_err(read_claims(more, &no_rules, &token, &d), ES_OK, &d);
    assert_int_equal(token->exp, 2000);
    return token;
}

static void bad(const char *more, const es_token_rules_t *rules, const char *why)
{
    es_token_t *token = NULL;
    char want[256];
    es_detail_t d;

    assert_err(read_claims(more, rules, &token, &d), ES_EAUTH, &d);
    snprintf(want, sizeof(want), "token refused: %s", why);
    assert_string_equal(d.text, want);
    assert_null(token);
}

static void lists_bound_it(void **state)
{
    es_token_t *token = good("\"channels\":[\"news\",\"user-*\"]");

    (void)state;
    assert_true(es_token_allows(token, ES_USE_SUBSCRIBE, S("news")));
    assert_true(es_token_allows(token, ES_USE_PUBLISH, S("user-7")));
    assert_false(es_token_allows(token, ES_USE_SUBSCRIBE, S("other")));
    assert_true(token->listed[ES_USE_SUBSCRIBE] && token->listed[ES_USE_PUBLISH]);
    es_token_free(token);
    token = good("\"subscribe\":[\"*\"],\"publish\":\"chat\"");
    assert_true(es_token_allows(token, ES_USE_SUBSCRIBE, S("x")));
    assert_false(es_token_allows(token, ES_USE_PUBLISH, S("x")));
    assert_true(es_token_allows(token, ES_USE_PUBLISH, S("chat")));
    es_token_free(token);
    /* One use named: the common list does not count for it. */
    token = good("\"channels\":[\"a\"],\"publish\":[]");
    assert_true(es_token_allows(token, ES_USE_SUBSCRIBE, S("a")));
    assert_false(es_token_allows(token, ES_USE_PUBLISH, S("a")));
    assert_true(token->listed[ES_USE_PUBLISH]);
    es_token_free(token);
    token = good("\"subscribe\":[\"a\"]");
    assert_false(es_token_allows(token, ES_USE_PUBLISH, S("a")));
    assert_false(token->listed[ES_USE_PUBLISH]);
    es_token_free(token);
    token = good("");
    assert_false(es_token_allows(token, ES_USE_SUBSCRIBE, S("a")));
    assert_false(es_token_allows(token, ES_USE_SUBSCRIBE, S("")));
    assert_false(token->listed[ES_USE_SUBSCRIBE]);
    es_token_free(token);
    es_token_free(NULL);
}

static void names_people(void **state)
{
    es_token_t *token = good("\"name\":\"Ann \xc3\xb6\",\"sub\":\"7\"");

    (void)state;
    assert_string_equal(token->name, "Ann \xc3\xb6");
    assert_string_equal(token->sub, "7");
    es_token_free(token);
    token = good("\"sub\":\"7\",\"name\":\"\"");
    assert_string_equal(token->name, "7");
    es_token_free(token);
    token = good("\"name\":\"Ann\"");
    assert_null(token->sub);
    es_token_free(token);
    token = good("");
    assert_null(token->name);
    es_token_free(token);
}

static void refuses_what_it_cannot_read(void **state)
{
    es_token_rules_t rules = { "site", "es" };
    char *big = es_repeat('n', ES_MAX_DISPLAY_NAME + 1);
    char text[400];
    es_token_t *token = NULL;
    es_detail_t d;

    (void)state;
    bad("\"channels\":7", &no_rules,
        "its 'channels' claim is not a list of channel names or patterns");
    bad("\"channels\":null", &no_rules,
        "its 'channels' claim is not a list of channel names or patterns");
    bad("\"publish\":[\"a\",7]", &no_rules,
        "its 'publish' claim is not a list of channel names or patterns");
    bad("\"subscribe\":[\"\"]", &no_rules, "its 'subscribe' claim: a name or pattern is empty");
    bad("\"subscribe\":[\"a\\nb\"]", &no_rules,
        "its 'subscribe' claim: the name or pattern 'a?b' is not UTF-8 text without CR, LF and "
        "NUL");
    bad("\"name\":7", &no_rules, "its 'name' claim is not a text");
    bad("\"sub\":\"a\\r\"", &no_rules, "its 'sub' claim holds CR, LF or NUL");
    snprintf(text, sizeof(text), "\"sub\":\"%s\"", big);
    bad(text, &no_rules, "its 'sub' claim is 257 bytes long, at most 256");
    bad("\"nbf\":1061", &no_rules, "it is not valid yet");
    bad("\"nbf\":\"1\"", &no_rules, "its 'nbf' claim is not a whole number");
    bad("\"nbf\":1.5", &no_rules, "its 'nbf' claim is not a whole number");
    es_token_free(good("\"nbf\":1060"));
    es_token_free(good("\"nbf\":1,\"aud\":\"x\",\"iss\":7"));
    bad("\"aud\":\"es\"", &rules, "its 'iss' claim is not the expected one");
    bad("\"iss\":\"site\"", &rules, "its 'aud' claim does not have the expected one");
    bad("\"iss\":\"site\",\"aud\":[\"a\",7,\"ES\"]", &rules,
        "its 'aud' claim does not have the expected one");
    assert_err(read_claims("\"iss\":\"site\",\"aud\":[\"a\",\"es\"]", &rules, &token, &d), ES_OK,
               &d);
    es_token_free(token);
    assert_err(read_claims("\"iss\":\"site\",\"aud\":\"es\"", &rules, &token, &d), ES_OK, &d);
    es_token_free(token);
    token = NULL;
    assert_err(es_claims_read(S("[]"), &no_rules, 1, &token, &d), ES_EAUTH, &d);
    assert_err(es_claims_read(S("{"), &no_rules, 1, &token, &d), ES_EAUTH, &d);
    assert_starts(d.text, "token refused: line 1 column 1");
    assert_null(token);
    free(big);
}

static void reads_whole_tokens(void **state)
{
    es_token_rules_t rules = { "site", NULL };
    es_key_t *key = NULL;
    es_token_t *token = NULL;
    es_detail_t d;

    (void)state;
    assert_err(es_key_from_text(es_str(ec_public), &key, &d), ES_OK, &d);
    assert_err(es_token_read(key, &rules, es_str(es256_token), KEYS_EXP - 1, &token, &d), ES_OK,
               &d);
    assert_int_equal(token->exp, KEYS_EXP);
    assert_true(es_token_allows(token, ES_USE_SUBSCRIBE, S("news")));
    es_token_free(token);
    token = NULL;
    assert_err(es_token_read(key, &rules, es_str(es256_token), KEYS_EXP, &token, &d), ES_EAUTH, &d);
    assert_err(es_token_read(key, &rules, es_str(rs256_token), 1, &token, &d), ES_EAUTH, &d);
    assert_err(es_token_read(key, &rules, S(""), 1, &token, &d), ES_EAUTH, &d);
    assert_string_equal(d.text, "token refused: there is none");
    assert_null(token);
    es_key_free(key);
}

static void assert_found(es_err_t err, es_str_t got, const char *want, int line)
{
    if (want == NULL ? err != ES_ENOENT : (err != ES_OK || !es_str_is(got, want))) {
        fail_msg("line %d: %s, '%.*s'", line, es_err_name(err), (int)got.n,
                 got.p == NULL ? "" : got.p);
    }
}
#define HEADER(text, want)                                                                         \
    assert_found(es_token_from_authorization(es_str(text), &got), got, want, __LINE__)
#define COOKIE(text, want)                                                                         \
    assert_found(es_token_from_cookie(es_str(text), "t", &got), got, want, __LINE__)
#define QUERY(text, want)                                                                          \
    assert_found(es_token_from_query(es_str(text), "t", &got), got, want, __LINE__)

static void finds_tokens(void **state)
{
    es_str_t got = { NULL, 0 };

    (void)state;
    HEADER("Bearer a.b.c", "a.b.c");
    HEADER(" bearer \t a.b.c ", "a.b.c");
    HEADER("BEARER a b", "a b");
    HEADER("Bearer", NULL);
    HEADER("Bearer ", NULL);
    HEADER("Bearerx y", NULL);
    HEADER("Basic Bearer", NULL);
    HEADER("", NULL);
    HEADER(NULL, NULL);
    COOKIE("t=a.b.c", "a.b.c");
    COOKIE("x=y; t=a.b.c; z", "a.b.c");
    COOKIE("t=;t = \"a.b.c\" ;t=d", "a.b.c");
    COOKIE("t=a=b", "a=b");
    COOKIE("t=\"", "\"");
    COOKIE("t=\"\"", NULL);
    COOKIE("tt=1; T=2; xt=3; t; =t", NULL);
    COOKIE("x=\"t=a\"", NULL);
    COOKIE("", NULL);
    COOKIE(NULL, NULL);
    QUERY("t=a.b.c", "a.b.c");
    QUERY("x=y&t=&%74=a.b.c&t=d", "a.b.c");
    QUERY("tt=1&T=2&t", NULL);
    QUERY("", NULL);
    QUERY(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_bound_it),
        cmocka_unit_test(names_people),
        cmocka_unit_test(refuses_what_it_cannot_read),
        cmocka_unit_test(reads_whole_tokens),
        cmocka_unit_test(finds_tokens),
    };
    return cmocka_run_group_tests_name("claims", tests, NULL, NULL);
}
