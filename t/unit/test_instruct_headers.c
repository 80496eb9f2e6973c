/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/instruct_headers.c: real answers of django-grip, the tables of GRIP's headers,
 * and an error sentence for each way to get one wrong. */
#include "es_test.h"
#include "es_equal.h"
#include "grip_int.h"

static es_instruct_t *parse(const es_header_t *headers, size_t n)
{
    es_instruct_t *in = NULL;
    es_detail_t d;

    assert_err(es_instruct_from_headers(headers, n, &in, &d), ES_OK, &d);
    return in;
}

static es_instruct_t *parse_one(const char *name, const char *value)
{
    es_header_t header = { name, value };
    return parse(&header, 1);
}

/* The one header must be refused with this sentence. */
static void refuse_one(const char *name, const char *value, es_err_t want, const char *sentence)
{
    es_header_t header = { name, value };
    es_instruct_t *in = NULL;
    es_detail_t d;

    assert_err(es_instruct_from_headers(&header, 1, &in, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_null(in);
    assert_int_equal(es_instruct_from_headers(&header, 1, &in, NULL), want);
}

static void reads_a_stream_without_storage(void **state)
{
    static const es_header_t headers[] = {
        { "Content-Type", "text/event-stream" },
        { "Cache-Control", "no-cache" },
        { "Grip-Hold", "stream" },
        { "Grip-Channel", "events-test; filter=skip-users, user-anonymous; filter=require-sub" },
        { "Grip-Keep-Alive", "event: keep-alive\\ndata:\\n\\n; format=cstring; timeout=20" },
        { "Grip-Set-Meta", "user=\"anonymous\"" },
        { "Grip-Link", "</events/?link=next&recover=true&es-meta=eyJ.eyJ.XyjW>; rel=next" },
    };
    es_instruct_t *in = parse(headers, ES_COUNT(headers));

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_STREAM);
    assert_int_equal(in->channel_count, 2);
    assert_string_equal(in->channels[0].name, "events-test");
    assert_int_equal(in->channels[0].name_len, 11);
    assert_null(in->channels[0].prev_id);
    assert_int_equal(in->channels[0].filter_count, 1);
    assert_int_equal(in->channels[0].filters[0], ES_FILTER_SKIP_USERS);
    assert_string_equal(in->channels[1].name, "user-anonymous");
    assert_int_equal(in->channels[1].filters[0], ES_FILTER_REQUIRE_SUB);
    assert_bytes(in->keep_alive, in->keep_alive_len, "event: keep-alive\ndata:\n\n");
    assert_int_equal(in->keep_alive_timeout, 20);
    assert_int_equal(in->keep_alive_mode, ES_KEEP_ALIVE_IDLE);
    assert_int_equal(in->meta.n, 1);
    assert_string_equal(es_pairs_get(&in->meta, "user")->value, "anonymous");
    es_instruct_free(in);
}

static void reads_a_stream_with_storage(void **state)
{
    static const es_header_t headers[] = {
        { "Grip-Hold", "stream" },
        { "Grip-Channel",
          "events-one; prev-id=1; filter=build-id; filter=skip-users, events-a%20b/c%25d; "
          "prev-id=3; filter=build-id; filter=skip-users, user-anonymous; filter=require-sub" },
        { "Grip-Set-Meta", "id_format=\"one:%(events-one)s,a%%20b/c%%25d:%(events-a%20b/c%25d)s\", "
                           "user=\"anonymous\"" },
    };
    es_instruct_t *in = parse(headers, ES_COUNT(headers));

    (void)state;
    assert_int_equal(in->channel_count, 3);
    assert_string_equal(in->channels[1].name, "events-a%20b/c%25d");
    assert_string_equal(in->channels[1].prev_id, "3");
    assert_int_equal(in->channels[1].filter_count, 2);
    assert_int_equal(in->channels[1].filters[0], ES_FILTER_BUILD_ID);
    assert_int_equal(in->channels[1].filters[1], ES_FILTER_SKIP_USERS);
    assert_string_equal(es_pairs_get(&in->meta, "id_format")->value,
                        "one:%(events-one)s,a%%20b/c%%25d:%(events-a%20b/c%25d)s");
    assert_string_equal(es_pairs_get(&in->meta, "user")->value, "anonymous");
    es_instruct_free(in);
}

static void reads_a_long_poll(void **state)
{
    static const es_header_t headers[] = {
        { "ETag", "\"v1\"" },          { "grip-status", "304" }, { "GRIP-HOLD", "response" },
        { "Grip-Channel", "test-lp" }, { "Grip-Timeout", "30" }, { "Content-Length", "0" },
    };
    es_instruct_t *in = parse(headers, ES_COUNT(headers));

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_RESPONSE);
    assert_int_equal(in->status, 304);
    assert_null(in->reason);
    assert_int_equal(in->timeout, 30);
    es_instruct_free(in);
}

static void no_headers_hold_nothing(void **state)
{
    es_instruct_t *in = parse(NULL, 0);
    es_instruct_t *fresh = es_instruct_new();

    (void)state;
    assert_true(es_equal_instruct(in, fresh));
    es_instruct_free(in);
    es_instruct_free(fresh);
    /* A page of many messages: channels and a next link, but no hold. */
    in = parse_one("Grip-Channel", "events-many; prev-id=105");
    assert_int_equal(in->hold, ES_HOLD_NONE);
    assert_int_equal(in->channel_count, 1);
    es_instruct_free(in);
}

static void hold_is_one_of_two_words(void **state)
{
    static const es_header_t twice[] = { { "Grip-Hold", " stream\t" },
                                         { "Grip-Hold", "nonsense" } };
    es_instruct_t *in = parse(twice, 2);

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_STREAM);
    es_instruct_free(in);
    refuse_one("Grip-Hold", "STREAM", ES_EINVAL,
               "Grip-Hold must be set to either 'response' or 'stream', found 'STREAM'");
    refuse_one("Grip-Hold", "", ES_EINVAL,
               "Grip-Hold must be set to either 'response' or 'stream', found ''");
}

static void channels_follow_the_grammar(void **state)
{
    static const es_header_t headers[] = {
        { "Grip-Channel", "a;PREV-ID=1;prev-id=2;Filter=skip-self;unknown=1" },
        { "X-Other", "x" },
        { "grip-channel", "\"q\", b;prev-id=\"x;y\\\"z\";filter=http-check;filter=\"skip-self\"" },
        { "Grip-Channel", "" },
    };
    es_instruct_t *in = parse(headers, ES_COUNT(headers));

    (void)state;
    assert_int_equal(in->channel_count, 3);
    assert_string_equal(in->channels[0].name, "a");
    assert_string_equal(in->channels[0].prev_id, "1");
    assert_int_equal(in->channels[0].filter_count, 0);
    assert_string_equal(in->channels[1].name, "\"q\"");
    assert_string_equal(in->channels[2].name, "b");
    assert_string_equal(in->channels[2].prev_id, "x;y\"z");
    assert_int_equal(in->channels[2].filter_count, 1);
    assert_int_equal(in->channels[2].filters[0], ES_FILTER_SKIP_SELF);
    es_instruct_free(in);
    in = parse_one("Grip-Channel", "a,,b;prev-id");
    assert_int_equal(in->channel_count, 3);
    assert_string_equal(in->channels[1].name, "");
    assert_string_equal(in->channels[2].prev_id, "");
    es_instruct_free(in);
}

static void refuses_bad_channels(void **state)
{
    char *big = es_repeat('c', ES_MAX_CHANNEL_NAME + 1);
    es_header_t header = { "Grip-Channel", big };
    es_instruct_t *in = NULL;
    es_detail_t d;

    (void)state;
    refuse_one("Grip-Channel", "a, b; prev-id=\"x, c", ES_EINVAL,
               "failed to parse Grip-Channel: a quote is not closed in 'a, b; prev-id=\"x, c'");
    refuse_one("Grip-Channel", "a\"; prev-id=\"b", ES_EINVAL,
               "failed to parse Grip-Channel: a quoted value is broken in 'a\"; prev-id=\"b'");
    refuse_one("Grip-Channel", "a;filter=1;filter=2;filter=3;filter=4;filter=5;filter=6", ES_EINVAL,
               "too many filters for channel 'a': Grip-Channel has 6, at most 5");
    refuse_one("Grip-Channel", "a\xe4", ES_EINVAL,
               "Grip-Channel: channel name 'a\xe4' must be UTF-8 without CR, LF and NUL");
    refuse_one("Grip-Channel", "a\nb", ES_EINVAL,
               "Grip-Channel: channel name 'a?b' must be UTF-8 without CR, LF and NUL");
    assert_err(es_instruct_from_headers(&header, 1, &in, &d), ES_ETOOBIG, &d);
    assert_starts(d.text, "Grip-Channel: channel name 'cccc");
    free(big);
}

static void has_caps_on_channels_and_filters(void **state)
{
    char *names = es_repeat('\0', 400);
    es_instruct_t *in;
    size_t n = 0;
    int i;

    (void)state;
    for (i = 0; i < ES_MAX_CHANNELS + 2; i++) {
        n += (size_t)snprintf(names + n, 400 - n, "c%d,", i);
    }
    in = parse_one("Grip-Channel", names);
    assert_int_equal(in->channel_count, ES_MAX_CHANNELS);
    assert_int_equal(in->channels_over, 2);
    es_instruct_free(in);
    free(names);
    in = parse_one("Grip-Channel", "a;filter=skip-self;filter=skip-users;filter=require-sub;"
                                   "filter=build-id;filter=var-subst");
    assert_int_equal(in->channels[0].filter_count, ES_MAX_FILTERS);
    assert_int_equal(in->channels[0].filters[4], ES_FILTER_VAR_SUBST);
    es_instruct_free(in);
}

static void reads_timeouts(void **state)
{
    static const struct {
        const char *text;
        int seconds;
    } cases[] = { { "0", 5 },    { "4", 5 },   { "5", 5 },
                  { "+60", 60 }, { " 7 ", 7 }, { "2147483647", 2147483647 } };
    es_instruct_t *in;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        in = parse_one("Grip-Timeout", cases[i].text);
        assert_int_equal(in->timeout, cases[i].seconds);
        es_instruct_free(in);
    }
    refuse_one("Grip-Timeout", "soon", ES_EINVAL,
               "failed to parse Grip-Timeout: found 'soon', accepted are whole seconds");
    refuse_one("Grip-Timeout", "2147483648", ES_EINVAL,
               "failed to parse Grip-Timeout: found '2147483648', accepted are whole seconds");
    refuse_one("Grip-Timeout", "-1", ES_EINVAL,
               "Grip-Timeout has invalid value '-1': accepted is 0 or more");
}

static void reads_keep_alives(void **state)
{
    static const struct {
        const char *header;
        es_str_t content;
        int timeout;
        es_keep_alive_mode_t mode;
    } cases[] = {
        { "ka", S("ka"), 55, ES_KEEP_ALIVE_IDLE },
        { "a, b \"c; timeout=0", S("a, b \"c"), 1, ES_KEEP_ALIVE_IDLE },
        { "x;format=raw;mode=interval;timeout=10", S("x"), 10, ES_KEEP_ALIVE_INTERVAL },
        { "AP8=;FORMAT=base64;Mode=idle", S("\0\xff"), 55, ES_KEEP_ALIVE_IDLE },
        { ":ka\\t\\q\\x3b; format=cstring", S(":ka;"), 55, ES_KEEP_ALIVE_IDLE },
        { "\\n;format=\"cstring\";unknown=1", S("\n"), 55, ES_KEEP_ALIVE_IDLE },
        { "\xff", S("\xff"), 55, ES_KEEP_ALIVE_IDLE },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_instruct_t *in = parse_one("Grip-Keep-Alive", cases[i].header);
        es_check_bytes(in->keep_alive, in->keep_alive_len, cases[i].content, __FILE__, __LINE__);
        assert_int_equal(in->keep_alive_timeout, cases[i].timeout);
        assert_int_equal(in->keep_alive_mode, cases[i].mode);
        es_instruct_free(in);
    }
}

static void refuses_bad_keep_alives(void **state)
{
    (void)state;
    refuse_one("Grip-Keep-Alive", "", ES_EINVAL, "Grip-Keep-Alive cannot be empty");
    refuse_one("Grip-Keep-Alive", "; timeout=20", ES_EINVAL, "Grip-Keep-Alive cannot be empty");
    refuse_one("Grip-Keep-Alive", "!!; format=base64", ES_EINVAL,
               "Grip-Keep-Alive cannot be empty");
    refuse_one("Grip-Keep-Alive", "x; mode=sometimes", ES_EINVAL,
               "no such Grip-Keep-Alive mode 'sometimes': accepted are idle and interval");
    refuse_one("Grip-Keep-Alive", "x; format=hex", ES_EINVAL,
               "no such Grip-Keep-Alive format 'hex': accepted are raw, cstring and base64");
    refuse_one("Grip-Keep-Alive", "x; timeout=soon", ES_EINVAL,
               "failed to parse Grip-Keep-Alive timeout value 'soon': accepted are whole seconds");
    refuse_one("Grip-Keep-Alive", "x; timeout=-2", ES_EINVAL,
               "Grip-Keep-Alive timeout has invalid value '-2': accepted is 0 or more");
    refuse_one("Grip-Keep-Alive", "x\\; format=cstring", ES_EINVAL,
               "failed to parse Grip-Keep-Alive cstring format: cstring has a broken escape at "
               "byte 1: accepted are \\\\, \\r, \\n and \\x with two hexadecimal digits");
    refuse_one("Grip-Keep-Alive", "\\t; format=cstring", ES_EINVAL,
               "failed to parse Grip-Keep-Alive cstring format: cstring is empty");
    refuse_one("Grip-Keep-Alive", "x; format=\"raw", ES_EINVAL,
               "failed to parse Grip-Keep-Alive: a quoted value is broken in ' format=\"raw'");
}

static void keep_alive_has_a_cap(void **state)
{
    char *text = es_repeat('k', ES_MAX_KEEP_ALIVE + 1);
    es_instruct_t *in;

    (void)state;
    refuse_one("Grip-Keep-Alive", text, ES_ETOOBIG,
               "Grip-Keep-Alive is 16385 bytes long, at most 16384");
    text[ES_MAX_KEEP_ALIVE] = '\0';
    in = parse_one("Grip-Keep-Alive", text);
    assert_int_equal(in->keep_alive_len, ES_MAX_KEEP_ALIVE);
    es_instruct_free(in);
    free(text);
}

static void reads_meta(void **state)
{
    static const es_header_t headers[] = {
        { "Grip-Set-Meta", "a=1, b=\"2, \\\"3\\\"\";ignored=x,flag" },
        { "Grip-Set-Meta", "a=4" },
        { "Grip-Set-Meta", "" },
    };
    es_instruct_t *in = parse(headers, ES_COUNT(headers));

    (void)state;
    assert_int_equal(in->meta.n, 3);
    assert_string_equal(es_pairs_get(&in->meta, "a")->value, "4");
    assert_string_equal(es_pairs_get(&in->meta, "b")->value, "2, \"3\"");
    assert_string_equal(es_pairs_get(&in->meta, "flag")->value, "");
    es_instruct_free(in);
    refuse_one("Grip-Set-Meta", "a=1,,b=2", ES_EINVAL,
               "Grip-Set-Meta cannot be empty: found '', accepted name=\"value\"");
    refuse_one("Grip-Set-Meta", "=1", ES_EINVAL,
               "Grip-Set-Meta cannot be empty: found '=1', accepted name=\"value\"");
    refuse_one("Grip-Set-Meta", "a=\"1", ES_EINVAL,
               "failed to parse Grip-Set-Meta: a quote is not closed in 'a=\"1'");
    refuse_one("Grip-Set-Meta", "a=\xff", ES_EINVAL, "Grip-Set-Meta must be UTF-8, found 'a=\xff'");
    refuse_one("Grip-Set-Meta", "a=\"x\ny\"", ES_EINVAL,
               "Grip-Set-Meta contains 'a' with CR, LF or NUL in its value");
}

static void meta_has_caps(void **state)
{
    char *list = es_repeat('\0', 1000);
    char *big = es_repeat('v', ES_MAX_META_BYTES + 2);
    size_t n = 0;
    int i;

    (void)state;
    for (i = 0; i <= ES_MAX_META_PAIRS; i++) {
        n += (size_t)snprintf(list + n, 1000 - n, "n%d=1,", i);
    }
    refuse_one("Grip-Set-Meta", list, ES_ETOOBIG, "Grip-Set-Meta holds over 64 names");
    big[1] = '=';
    refuse_one("Grip-Set-Meta", big, ES_ETOOBIG,
               "Grip-Set-Meta holds over 16384 bytes of names and values");
    free(list);
    free(big);
}

static void reads_status(void **state)
{
    char *big = es_repeat('r', ES_MAX_REASON + 5);
    es_instruct_t *in = parse_one("Grip-Status", "404 Not  Here ");

    (void)state;
    assert_int_equal(in->status, 404);
    assert_string_equal(in->reason, "Not  Here");
    es_instruct_free(in);
    in = parse_one("Grip-Status", "200 ");
    assert_int_equal(in->status, 200);
    assert_null(in->reason);
    es_instruct_free(in);
    refuse_one("Grip-Status", "OK", ES_EINVAL,
               "Grip-Status contains invalid status code 'OK': accepted is 100 to 999");
    refuse_one("Grip-Status", "1000", ES_EINVAL,
               "Grip-Status contains invalid status code '1000': accepted is 100 to 999");
    refuse_one("Grip-Status", "99", ES_EINVAL,
               "Grip-Status contains invalid status code '99': accepted is 100 to 999");
    refuse_one("Grip-Status", "", ES_EINVAL,
               "Grip-Status contains invalid status code '': accepted is 100 to 999");
    refuse_one("Grip-Status", "200 a\nb", ES_EINVAL,
               "Grip-Status has a reason that is not UTF-8 without CR and LF: 'a?b'");
    memcpy(big, "200 ", 4);
    refuse_one("Grip-Status", big, ES_ETOOBIG,
               "Grip-Status has a reason of 1025 bytes, at most 1024");
    free(big);
}

static void reads_expose_headers(void **state)
{
    static const es_header_t headers[] = { { "Grip-Expose-Headers", "Set-Cookie,, X-A" },
                                           { "Grip-Expose-Headers", "X-B" } };
    es_instruct_t *in = parse(headers, 2);
    char *list = es_repeat(',', 4 * (ES_MAX_HEADERS + 1));
    int i;

    (void)state;
    assert_int_equal(in->expose_count, 3);
    assert_string_equal(in->expose[2], "X-B");
    es_instruct_free(in);
    in = parse_one("Grip-Expose-Headers", ",,");
    assert_int_equal(in->expose_count, 0);
    es_instruct_free(in);
    refuse_one("Grip-Expose-Headers", "a b", ES_EINVAL,
               "Grip-Expose-Headers contains 'a b', which is not a header name");
    for (i = 0; i <= ES_MAX_HEADERS; i++) {
        list[4 * i] = 'X';
    }
    refuse_one("Grip-Expose-Headers", list, ES_ETOOBIG,
               "Grip-Expose-Headers names over 128 headers");
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_stream_without_storage),
        cmocka_unit_test(reads_a_stream_with_storage),
        cmocka_unit_test(reads_a_long_poll),
        cmocka_unit_test(no_headers_hold_nothing),
        cmocka_unit_test(hold_is_one_of_two_words),
        cmocka_unit_test(channels_follow_the_grammar),
        cmocka_unit_test(refuses_bad_channels),
        cmocka_unit_test(has_caps_on_channels_and_filters),
        cmocka_unit_test(reads_timeouts),
        cmocka_unit_test(reads_keep_alives),
        cmocka_unit_test(refuses_bad_keep_alives),
        cmocka_unit_test(keep_alive_has_a_cap),
        cmocka_unit_test(reads_meta),
        cmocka_unit_test(meta_has_caps),
        cmocka_unit_test(reads_status),
        cmocka_unit_test(reads_expose_headers),
    };
    return cmocka_run_group_tests_name("instruct_headers", tests, NULL, NULL);
}
