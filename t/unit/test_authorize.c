/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/authorize.c. */
#include "es_test.h"
#include "grip_int.h"

static es_authorize_t *answer_n(int status, const es_header_t *headers, size_t n, const char *body)
{
    es_authorize_t *answer = NULL;
    es_detail_t d;

    assert_err(es_authorize_read(status, headers, n, es_str(body), &answer, &d), ES_OK, &d);
    return answer;
}

static void statuses(void **state)
{
    static const struct {
        int status;
        es_authorization_t verdict;
        int told;
    } cases[] = {
        { 200, ES_VERDICT_ADMIT, 200 },  { 204, ES_VERDICT_ADMIT, 200 },
        { 302, ES_VERDICT_REFUSE, 403 }, { 400, ES_VERDICT_REFUSE, 403 },
        { 401, ES_VERDICT_REFUSE, 401 }, { 403, ES_VERDICT_REFUSE, 403 },
        { 404, ES_VERDICT_REFUSE, 403 }, { 500, ES_VERDICT_FAIL, 502 },
        { 503, ES_VERDICT_FAIL, 502 },   { 100, ES_VERDICT_FAIL, 502 },
        { 0, ES_VERDICT_FAIL, 502 },     { 600, ES_VERDICT_FAIL, 502 },
    };
    static const es_header_t kept = { "cache-control", "max-age=30" };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_authorize_t *answer = answer_n(cases[i].status, &kept, 1, NULL);
        assert_int_equal(answer->verdict, cases[i].verdict);
        assert_int_equal(answer->status, cases[i].told);
        assert_int_equal(answer->max_age, cases[i].verdict == ES_VERDICT_FAIL ? 0 : 30);
        assert_int_equal(es_authorize_allows(answer, S("any")),
                         cases[i].verdict == ES_VERDICT_ADMIT);
        es_authorize_free(answer);
    }
    es_authorize_free(NULL);
}

static void ages(void **state)
{
    static const struct {
        const char *value;
        int age;
    } cases[] = {
        { "max-age=60", 60 },
        { "private, MAX-AGE = 60", 60 },
        { "max-age=\"60\"", 60 },
        { "max-age=60, max-age=30", 30 },
        { "max-age=60, no-store", 0 },
        { "no-cache, max-age=60", 0 },
        { "no-cache=\"Set-Cookie, X\", max-age=5", 0 },
        { "max-age=3601", 3600 },
        { "max-age=99999999999999999999999", 3600 },
        { "max-age=-1", 0 },
        { "max-age=", 0 },
        { "max-age", 0 },
        { "max-age=x", 0 },
        { "max-age=1.5", 0 },
        { "s-maxage=60", 0 },
        { "max-age=60, x=\"", 0 },
        { "", 0 },
        { ",,", 0 },
    };
    es_header_t two[] = { { "Cache-Control", "max-age=9" }, { "Cache-Control", "max-age=7" } };
    es_authorize_t *answer;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_header_t header = { "Cache-Control", cases[i].value };
        answer = answer_n(204, &header, 1, NULL);
        if (answer->max_age != cases[i].age) {
            fail_msg("%s: %d", cases[i].value, answer->max_age);
        }
        es_authorize_free(answer);
    }
    answer = answer_n(403, two, 2, NULL);
    assert_int_equal(answer->max_age, 7);
    es_authorize_free(answer);
    answer = answer_n(200, NULL, 0, NULL);
    assert_int_equal(answer->max_age, 0);
    es_authorize_free(answer);
}

static void narrows(void **state)
{
    static const es_header_t json = { "Content-Type", "Application/JSON; charset=utf-8" };
    static const es_header_t html = { "Content-Type", "text/html" };
    es_header_t both[] = { { "eventstream-channels", "a, \"b,\\\"c\", ,user-*" }, json };
    es_header_t none = { "EventStream-Channels", " " };
    es_authorize_t *answer = answer_n(200, both, 2, "{\"channels\":[\"d\"],\"name\":\"Ann\"}");

    (void)state;
    assert_true(answer->narrowed);
    assert_true(es_authorize_allows(answer, S("a")));
    assert_true(es_authorize_allows(answer, S("b,\"c")));
    assert_true(es_authorize_allows(answer, S("user-7")));
    assert_true(es_authorize_allows(answer, S("d")));
    assert_false(es_authorize_allows(answer, S("b")));
    assert_string_equal(answer->name, "Ann");
    es_authorize_free(answer);
    /* An empty list is a list. */
    answer = answer_n(200, &none, 1, NULL);
    assert_false(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
    answer = answer_n(200, &json, 1, "{\"channels\":[]}");
    assert_false(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
    answer = answer_n(200, &json, 1, "{\"channels\":null,\"name\":null}");
    assert_true(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
    answer = answer_n(200, &json, 1, "");
    assert_true(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
    /* Not JSON, or not admitted: nobody looks. */
    answer = answer_n(200, &html, 1, "{\"channels\":[]}");
    assert_true(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
    answer = answer_n(403, both, 2, "{");
    assert_false(es_authorize_allows(answer, S("a")));
    es_authorize_free(answer);
}

static void refuse(const es_header_t *header, es_str_t body, es_err_t want, const char *sentence)
{
    es_authorize_t *answer = NULL;
    es_detail_t d;

    assert_err(es_authorize_read(200, header, 1, body, &answer, &d), want, &d);
    assert_starts(d.text, sentence);
    assert_null(answer);
}

static void in_doubt_no(void **state)
{
    static const es_header_t json = { "Content-Type", "application/json" };
    static const es_header_t quote = { "EventStream-Channels", "a, \"b" };
    static const es_header_t bytes = { "EventStream-Channels", "\xff" };
    static const es_header_t blank = { "EventStream-Channels", "\"\"" };
    char *big = es_repeat(' ', ES_MAX_AUTHORIZE_BODY + 1);

    (void)state;
    refuse(&quote, S(""), ES_EINVAL, "EventStream-Channels: a quote is not closed: 'a, \"b'");
    refuse(&bytes, S(""), ES_EINVAL, "EventStream-Channels: the name or pattern '");
    refuse(&blank, S(""), ES_EINVAL, "EventStream-Channels: a name or pattern is empty");
    refuse(&json, S("{"), ES_EINVAL, "the body is not JSON: line 1 column 1: ");
    refuse(&json, S("[]"), ES_EINVAL, "the body is JSON, but not an object");
    refuse(&json, S("{\"channels\":{}}"), ES_EINVAL,
           "'channels' is not a list of channel names or patterns");
    refuse(&json, S("{\"channels\":[7]}"), ES_EINVAL,
           "'channels' is not a list of channel names or patterns");
    refuse(&json, S("{\"name\":7}"), ES_EINVAL, "'name' is not a text");
    refuse(&json, es_str(big), ES_ETOOBIG, "the body is 65537 bytes long, at most 65536");
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses),
        cmocka_unit_test(ages),
        cmocka_unit_test(narrows),
        cmocka_unit_test(in_doubt_no),
    };
    return cmocka_run_group_tests_name("authorize", tests, NULL, NULL);
}
