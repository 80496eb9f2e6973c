/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What test_grip_oom.c does, for the native endpoint's part of layer 1: each function again and
 * again, with the first, the second, the third ... allocation failing, until none does. Each
 * failure must be ES_ENOMEM, leave the results untouched and leak nothing.
 *
 * Where jansson's lexer runs out of memory it reports a syntax error, so what parses JSON may say
 * that the JSON is wrong. libjwt's own allocations do not fail here.
 */
#include "es_test.h"
#include "grip_int.h"
#include "keys.h"
#include "oom_fixture.h"

/* Returns how many allocations it needed. `also`: what may be said instead of ES_ENOMEM. */
static long torture(es_err_t (*once)(void), es_err_t also)
{
    long allowed;
    es_err_t err = ES_ENOMEM;

    for (allowed = 0; err != ES_OK; allowed++) {
        assert_true(allowed < 10000);
        countdown = allowed;
        err = once();
        countdown = -1;
        if (err != ES_OK && err != also) {
            assert_string_equal(es_err_name(err), es_err_name(ES_ENOMEM));
        }
    }
    return allowed - 1;
}

static es_err_t patterns(void)
{
    es_patterns_t list = { NULL, 0 };
    es_err_t err = ES_OK;
    int i;

    for (i = 0; i < 5 && err == ES_OK; i++) {
        err = es_patterns_add(&list, S("user-*"), NULL);
        assert_int_equal(list.n, err == ES_OK ? i + 1 : i);
    }
    es_patterns_free(&list);
    return err;
}

static es_err_t channels(void)
{
    es_patterns_t allow = { &S("a*"), 1 };
    es_channel_rules_t rules = { NULL, "events-", true, &allow };
    es_channels_t out = { .n = 7 };
    es_detail_t d;
    es_err_t err = es_channels_from_url(&rules, S("/"), S("channel=a%20b,b,a"), &out, &d);

    if (err != ES_OK) {
        assert_int_equal(out.n, 7);
        assert_string_equal(d.text, "out of memory");
        return err;
    }
    assert_int_equal(out.n, 2);
    assert_int_equal(out.refused_count, 1);
    es_channels_free(&out);
    return ES_OK;
}

static es_err_t position(void)
{
    static const char *const queries[] = { "lastEventId=a", "since=10m", "rewind=5" };
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < ES_COUNT(queries) && err == ES_OK; i++) {
        es_position_t p = { .count = 7 };
        es_detail_t d;
        err = es_position_from_request(es_str(NULL), es_str(queries[i]), 1, &p, &d);
        if (err != ES_OK) {
            assert_int_equal(p.count, 7);
            assert_string_equal(d.text, "out of memory");
        }
    }
    return err;
}

static es_err_t rendering(void)
{
    es_buf_t out;
    size_t events = 9;
    es_err_t err;

    es_buf_init(&out, 10000);
    err = es_sse_render(S("event: a\ndata: 1\n\nretry: 5\ndata: 2\n: c\n\n"), S("e"), S("77"), &out,
                        &events);
    assert_int_equal(events, err == ES_OK ? 2 : 9);
    assert_true(err == ES_OK || out.n == 0);
    es_buf_free(&out);
    return err;
}

static es_err_t own_events(void)
{
    static const char *const names[] = { "a", "\xc3\xb6" };
    es_buf_t out;
    size_t before = 0;
    es_err_t err;

    es_buf_init(&out, 10000);
    err = es_sse_comment(S("x"), &out);
    if (err == ES_OK) {
        err = es_sse_padding(&out);
    }
    if (err == ES_OK) {
        before = out.n;
        err = es_sse_stream_reset(names, 2, S("1"), &out);
    }
    if (err == ES_OK) {
        before = out.n;
        err = es_sse_forbidden(names, 2, &out);
    }
    if (err != ES_OK && before > 0) {
        assert_int_equal(out.n, before);
    }
    es_buf_free(&out);
    return err;
}

static es_err_t authorize(void)
{
    static const es_header_t headers[] = {
        { "Content-Type", "application/json" },
        { "EventStream-Channels", "a, \"b,c\"" },
    };
    es_authorize_t *answer = NULL;
    es_err_t err = es_authorize_read(200, headers, 2, S("{\"channels\":[\"d\"],\"name\":\"Ann\"}"),
                                     &answer, NULL);

    assert_true((err == ES_OK) == (answer != NULL));
    es_authorize_free(answer);
    return err;
}

static es_err_t claims(void)
{
    es_token_rules_t rules = { "i", "a" };
    es_token_t *token = NULL;
    es_err_t err = es_claims_read(S("{\"exp\":2000,\"iss\":\"i\",\"aud\":[\"a\"],\"sub\":\"7\","
                                    "\"channels\":[\"a\",\"b\"],\"publish\":\"c\"}"),
                                  &rules, 1000, &token, NULL);

    assert_true((err == ES_OK) == (token != NULL));
    es_token_free(token);
    return err;
}

static es_err_t key_and_token(void)
{
    es_token_rules_t rules = { NULL, NULL };
    es_key_t *key = NULL;
    es_token_t *token = NULL;
    es_err_t err = es_key_from_text(es_str(rsa_public), &key, NULL);

    assert_true((err == ES_OK) == (key != NULL));
    if (err == ES_OK) {
        err = es_token_read(key, &rules, es_str(rs256_token), KEYS_EXP - 1, &token, NULL);
        assert_true((err == ES_OK) == (token != NULL));
    }
    es_token_free(token);
    es_key_free(key);
    return err;
}

static es_err_t private_key(void)
{
    es_key_t *key = NULL;
    es_err_t err = es_key_from_text(es_str(ec_private_old), &key, NULL);

    assert_true((err == ES_OK) == (key != NULL));
    es_key_free(key);
    return err;
}

static void without_json(void **state)
{
    (void)state;
    assert_int_equal(torture(patterns, ES_ENOMEM), 10);
    assert_int_equal(torture(channels, ES_ENOMEM), 8);
    assert_int_equal(torture(position, ES_ENOMEM), 3);
    assert_true(torture(rendering, ES_ENOMEM) > 0);
    assert_true(torture(own_events, ES_ENOMEM) > 2);
}

static void with_json(void **state)
{
    (void)state;
    assert_true(torture(authorize, ES_EINVAL) > 10);
    assert_true(torture(claims, ES_EAUTH) > 10);
}

static void with_libjwt(void **state)
{
    (void)state;
    /* Our own allocations alone: libjwt 1.10 does not survive it when jansson's fail. */
    json_set_alloc_funcs(__real_malloc, free);
    assert_true(torture(key_and_token, ES_ENOMEM) > 6);
    assert_true(torture(private_key, ES_ENOMEM) > 2);
    json_set_alloc_funcs(__wrap_malloc, free);
}

/* A failed assertion leaves `torture` in the middle. */
static int memory_is_back(void **state)
{
    (void)state;
    countdown = -1;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(without_json, memory_is_back),
        cmocka_unit_test_teardown(with_json, memory_is_back),
        cmocka_unit_test_teardown(with_libjwt, memory_is_back),
    };

    json_set_alloc_funcs(__wrap_malloc, free);
    return cmocka_run_group_tests_name("sse_oom", tests, NULL, NULL);
}
