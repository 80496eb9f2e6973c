/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/sse_event.c, against the bytes that django-eventstream 5.3.4 was seen to send
 * and that Python's json.dumps writes. */
#include "es_test.h"
#include "grip_int.h"

static es_buf_t out;

static int empty(void **state)
{
    (void)state;
    es_buf_init(&out, 5000);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    es_buf_free(&out);
    return 0;
}

#define assert_out(literal)                                                                        \
    do {                                                                                           \
        assert_bytes(out.p, out.n, literal);                                                       \
        out.n = 0;                                                                                 \
    } while (0)

static void small_events(void **state)
{
    (void)state;
    assert_int_equal(es_sse_stream_open((es_str_t) { NULL, 0 }, &out), ES_OK);
    assert_out("event: stream-open\ndata:\n\n");
    assert_int_equal(es_sse_stream_open(es_str("AAEC-_"), &out), ES_OK);
    assert_out("event: stream-open\nid: AAEC-_\ndata:\n\n");
    assert_int_equal(es_sse_keep_alive(&out), ES_OK);
    assert_out("event: keep-alive\ndata:\n\n");
    assert_int_equal(es_sse_retry(3000, &out), ES_OK);
    assert_out("retry: 3000\n\n");
}

static void padding(void **state)
{
    size_t i;

    (void)state;
    assert_int_equal(es_sse_padding(&out), ES_OK);
    assert_int_equal(out.n, 1 + 2048 + 2);
    assert_int_equal(out.p[0], ':');
    for (i = 1; i <= 2048; i++) {
        assert_int_equal(out.p[i], ' ');
    }
    assert_string_equal(out.p + 2049, "\n\n");
}

static void comments(void **state)
{
    (void)state;
    assert_int_equal(es_sse_comment(S(""), &out), ES_OK);
    assert_out(":\n\n");
    assert_int_equal(es_sse_comment(S("keep-alive"), &out), ES_OK);
    assert_out(": keep-alive\n\n");
    assert_int_equal(es_sse_comment(S("a\nb\r\nc\rd\0data: e"), &out), ES_OK);
    assert_out(": a\n: b\n: c\n: d\n: data: e\n\n");
    assert_int_equal(es_sse_comment(S("\n\ndata: x\n\n"), &out), ES_OK);
    assert_out(":\n:\n: data: x\n:\n\n");
}

static void resets_and_errors(void **state)
{
    static const char *const test[] = { "test" };
    static const char *const priv[] = { "_priv" };
    static const char *const two[] = { "one", "a b/c%d" };

    (void)state;
    assert_int_equal(es_sse_stream_reset(test, 1, S("test:2"), &out), ES_OK);
    assert_out("event: stream-reset\nid: test:2\ndata: {\"channels\": [\"test\"]}\n\n");
    assert_int_equal(es_sse_stream_reset(two, 2, S(""), &out), ES_OK);
    assert_out("event: stream-reset\ndata: {\"channels\": [\"one\", \"a b/c%d\"]}\n\n");
    assert_int_equal(es_sse_forbidden(priv, 1, &out), ES_OK);
    assert_out("event: stream-error\nid: error\ndata: {\"condition\": \"forbidden\", \"text\": "
               "\"Permission denied to channels: _priv\", \"channels\": [\"_priv\"]}\n\n");
    assert_int_equal(es_sse_forbidden(two, 2, &out), ES_OK);
    assert_out("event: stream-error\nid: error\ndata: {\"condition\": \"forbidden\", \"text\": "
               "\"Permission denied to channels: one, a b/c%d\", \"channels\": [\"one\", \"a "
               "b/c%d\"]}\n\n");
    assert_int_equal(es_sse_stream_error("bad-request", "No channels specified.", NULL, 0, &out),
                     ES_OK);
    assert_out("event: stream-error\nid: error\ndata: {\"condition\": \"bad-request\", \"text\": "
               "\"No channels specified.\"}\n\n");
    assert_int_equal(es_sse_stream_reset(test, 1, S("a\nb"), &out), ES_EINVAL);
    assert_int_equal(out.n, 0);
    out.max = 70;
    assert_int_equal(es_sse_forbidden(priv, 1, &out), ES_ETOOBIG);
    assert_int_equal(out.n, 0);
    assert_int_equal(es_sse_padding(&out), ES_ETOOBIG);
    assert_int_equal(es_sse_comment(S("0123456789012345678901234567890123456789012345678901234567"
                                      "0123456789012345678901234567"),
                                    &out),
                     ES_ETOOBIG);
    assert_int_equal(out.n, 0);
}

static void json_as_python_writes_it(void **state)
{
    (void)state;
    assert_int_equal(es_json_quote(S("a\"b\\c/\b\f\n\r\t\v\x01\x7f ~\0"), &out), ES_OK);
    assert_out("\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u000b\\u0001\\u007f ~\\u0000\"");
    assert_int_equal(es_json_quote(S("\xc3\xb6\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf"), &out),
                     ES_OK);
    assert_out("\"\\u00f6\\u20ac\\ud83d\\ude00\\udbff\\udfff\"");
    assert_int_equal(es_json_quote(S("\xff\xc3x"), &out), ES_OK);
    assert_out("\"\\ufffd\\ufffdx\"");
    assert_int_equal(es_json_quote(S(""), &out), ES_OK);
    assert_out("\"\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_events, empty, drop),
        cmocka_unit_test_setup_teardown(padding, empty, drop),
        cmocka_unit_test_setup_teardown(comments, empty, drop),
        cmocka_unit_test_setup_teardown(resets_and_errors, empty, drop),
        cmocka_unit_test_setup_teardown(json_as_python_writes_it, empty, drop),
    };
    return cmocka_run_group_tests_name("sse_event", tests, NULL, NULL);
}
