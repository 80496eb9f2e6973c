/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/wire/hold.c. The instruct part is layer 1's and tested there. */
#include "es_test.h"
#include "es_wire.h"

static es_instruct_t *instruct(const char *json)
{
    es_instruct_t *in = NULL;
    es_detail_t detail;

    assert_err(es_instruct_from_json(NULL, json, strlen(json), &in, NULL, &detail), ES_OK, &detail);
    return in;
}

static void comes_back_as_it_went(void **state)
{
    es_instruct_t *in = instruct(
        "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\", \"prev-id\": \"7\", "
        "\"filters\": [\"skip-self\", \"build-id\"]}, {\"name\": \"\\u00e4/\\\"\"}], "
        "\"keep-alive\": {\"content-bin\": \"AAECgA==\", \"timeout\": 20, \"mode\": \"interval\"}, "
        "\"meta\": {\"user\": \"x\"}}}");
    es_delivery_t to = { .chunked = true,
                         .peer = (char *)(uintptr_t) "192.0.2.7",
                         .uri = (char *)(uintptr_t) "/a b?\"c\\",
                         .log = (char *)(uintptr_t) "192.0.2.7 - - \"GET /\\x01\" 200\n\"host\"",
                         .started_ms = 1795468245123 };
    es_instruct_t *back = NULL;
    es_delivery_t from = { 0 };
    es_detail_t detail;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
    assert_int_equal(strlen(text), len);
    assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
    assert_true(from.chunked);
    assert_string_equal(from.peer, to.peer);
    assert_string_equal(from.uri, to.uri);
    assert_string_equal(from.log, to.log);
    assert_int_equal(from.started_ms, to.started_ms);
    assert_int_equal(back->hold, ES_HOLD_STREAM);
    assert_int_equal(back->channel_count, 2);
    assert_string_equal(back->channels[0].name, "a");
    assert_string_equal(back->channels[0].prev_id, "7");
    assert_int_equal(back->channels[0].filter_count, 2);
    assert_int_equal(back->channels[0].filters[1], ES_FILTER_BUILD_ID);
    assert_string_equal(back->channels[1].name, "\xc3\xa4/\"");
    assert_bytes(back->keep_alive, back->keep_alive_len, "\x00\x01\x02\x80");
    assert_int_equal(back->keep_alive_timeout, 20);
    assert_int_equal(back->keep_alive_mode, ES_KEEP_ALIVE_INTERVAL);
    assert_string_equal(es_pairs_get(&back->meta, "user")->value, "x");
    es_delivery_clear(&from);
    assert_null(from.peer);
    es_delivery_clear(&from);
    es_instruct_free(back);
    es_instruct_free(in);
    free(text);
}

static void leaves_out_what_is_unknown_or_not_utf8(void **state)
{
    es_instruct_t *in = instruct("{\"hold\": {\"mode\": \"stream\", \"channels\": []}}");
    const es_delivery_t to = { .chunked = false, .uri = (char *)(uintptr_t) "/\xff\xfe" };
    es_instruct_t *back = NULL;
    es_delivery_t from = { 0 };
    es_detail_t detail;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
    assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
    assert_false(from.chunked);
    assert_null(from.peer);
    assert_null(from.uri);
    assert_null(from.log);
    assert_int_equal(from.started_ms, 0);
    assert_int_equal(back->channel_count, 0);
    es_delivery_clear(&from);
    es_instruct_free(back);
    es_instruct_free(in);
    free(text);
}

/* The delivery of a native stream, there and back. */
static void native_facts_come_back(void **state)
{
    static const es_position_t positions[] = { { .from = ES_FROM_NOW },
                                               { .from = ES_FROM_ID,
                                                 .id = "AAECAwQFBgcICQoLDA0ODxAREhM" },
                                               { .from = ES_FROM_ID, .id = "" },
                                               { .from = ES_FROM_EARLIEST },
                                               { .from = ES_FROM_TIME, .time_ms = 1795468245123 },
                                               { .from = ES_FROM_TIME, .time_ms = 0 },
                                               { .from = ES_FROM_LAST, .count = ES_MAX_REWIND } };
    es_instruct_t *in = instruct("{\"hold\": {\"mode\": \"stream\", \"channels\": []}}");
    size_t i;

    (void)state;
    for (i = 0; i < sizeof positions / sizeof positions[0]; i++) {
        const es_delivery_t to = { .events = true,
                                   .from = positions[i],
                                   .until_ms = 1795468999001 };
        es_instruct_t *back = NULL;
        es_delivery_t from = { 0 };
        es_detail_t detail;
        char *text = NULL;
        size_t len = 0;

        assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
        assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
        assert_true(from.events);
        assert_int_equal(from.from.from, positions[i].from);
        assert_string_equal(from.from.id, positions[i].id);
        assert_int_equal(from.from.time_ms, positions[i].time_ms);
        assert_int_equal(from.from.count, positions[i].count);
        assert_int_equal(from.until_ms, to.until_ms);
        es_delivery_clear(&from);
        es_instruct_free(back);
        free(text);
    }
    es_instruct_free(in);
}

static void refuses_positions_that_no_child_writes(void **state)
{
    static const char *const facts[] = {
        "\"events\": 1",
        "\"from\": null",
        "\"from\": {}",
        "\"from\": {\"id\": 7}",
        "\"from\": {\"id\": "
        "\"1234567890123456789012345678901234567890123456789012345678901234\"}",
        "\"from\": {\"id\": \"a\\u0000b\"}",
        "\"from\": {\"earliest\": false}",
        "\"from\": {\"time\": -1}",
        "\"from\": {\"time\": 1.5}",
        "\"from\": {\"last\": 0}",
        "\"from\": {\"last\": 100001}",
        "\"until\": -1",
        "\"until\": \"soon\"",
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(facts); i++) {
        es_instruct_t *in = NULL;
        es_delivery_t d = { 0 };
        es_detail_t detail = { "" };
        char text[512];

        snprintf(text, sizeof text,
                 "{\"hold\": {\"mode\": \"stream\", \"channels\": []}, "
                 "\"delivery\": {\"framing\": \"raw\", \"peer\": \"x\", %s}}",
                 facts[i]);
        assert_err(es_hold_decode(es_str(text), &in, &d, &detail), ES_EINVAL, &detail);
        assert_non_null(strstr(detail.text, "'delivery'"));
        assert_null(in);
        assert_null(d.peer);
    }
}

/* As large as layer 1 lets an instruct become. */
static void carries_the_largest_instruct(void **state)
{
    es_instruct_t *in = NULL, *back = NULL;
    es_delivery_t to = { .chunked = true }, from = { 0 };
    es_detail_t detail = { "" };
    char *text = NULL, *value = es_repeat('\x01', ES_MAX_META_BYTES - 1);
    size_t len = 0, i;

    (void)state;
    assert_err(es_instruct_from_headers(NULL, 0, &in, &detail), ES_OK, &detail);
    in->hold = ES_HOLD_STREAM;
    for (i = 0; i < ES_MAX_CHANNELS; i++) {
        char *name = es_repeat('\x02', ES_MAX_CHANNEL_NAME);
        char *id = es_repeat('\x03', ES_MAX_ID);

        name[0] = (char)('a' + i);
        assert_err(es_instruct_add_channel(in, es_str(name), es_str(id), NULL, &detail), ES_OK,
                   &detail);
        free(name);
        free(id);
    }
    assert_int_equal(es_pairs_add(&in->meta, S("m"), es_str(value)), ES_OK);
    in->keep_alive = es_repeat('\x04', ES_MAX_KEEP_ALIVE);
    in->keep_alive_len = ES_MAX_KEEP_ALIVE;
    to.uri = es_repeat('\x05', 8000);
    assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
    assert_true(len <= ES_WIRE_MAX);
    assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
    assert_int_equal(back->channel_count, ES_MAX_CHANNELS);
    assert_string_equal(back->channels[7].prev_id, in->channels[7].prev_id);
    assert_string_equal(es_pairs_get(&back->meta, "m")->value, value);
    assert_string_equal(from.uri, to.uri);
    es_delivery_clear(&from);
    es_instruct_free(back);
    es_instruct_free(in);
    free(to.uri);
    free(value);
    free(text);
}

static void refuses_what_is_no_hold_message(void **state)
{
#define HOLD "\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}"
    static const struct {
        const char *json;
        const char *detail;
    } cases[] = {
        { "", "not JSON" },
        { "{", "not JSON" },
        { "\"text\"", "not JSON" },
        { "[]", "framing" },
        { "{}", "framing" },
        { "{" HOLD "}", "framing" },
        { "{" HOLD ", \"delivery\": null}", "framing" },
        { "{" HOLD ", \"delivery\": {}}", "framing" },
        { "{" HOLD ", \"delivery\": {\"framing\": 1}}", "framing" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"Chunked\"}}", "framing" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"raw\", \"peer\": 1}}", "'peer'" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"raw\", \"peer\": \"x\", \"uri\": []}}",
          "'uri'" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"raw\", \"uri\": \"x\", \"log\": 1}}", "'log'" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"raw\", \"log\": \"x\", \"started\": \"now\"}}",
          "'started'" },
        { "{" HOLD ", \"delivery\": {\"framing\": \"raw\", \"log\": \"x\", \"started\": -1}}",
          "'started'" },
        { "{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": 1}]}, "
          "\"delivery\": {\"framing\": \"raw\", \"peer\": \"x\", \"uri\": \"y\"}}",
          "name" },
        { "{\"hold\": 1, \"delivery\": {\"framing\": \"raw\"}}", "hold" },
    };
#undef HOLD
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_instruct_t *in = NULL;
        es_delivery_t d = { 0 };
        es_detail_t detail = { "" };

        assert_err(es_hold_decode(es_str(cases[i].json), &in, &d, &detail), ES_EINVAL, &detail);
        if (!strstr(detail.text, cases[i].detail)) {
            fail_msg("%s: '%s' does not name %s", cases[i].json, detail.text, cases[i].detail);
        }
        assert_null(in);
        assert_null(d.peer);
        assert_null(d.uri);
        assert_null(d.log);
    }
}

static void presence_comes_back(void **state)
{
    static const char *const names[] = { "Ann \"\xc3\x84\"", NULL };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(names); i++) {
        es_instruct_t *in =
            instruct("{\"hold\": {\"mode\": \"stream\", \"channels\": [{\"name\": \"a\"}]}}");
        const es_delivery_t to = { .events = true,
                                   .presence = true,
                                   .member = (char *)(uintptr_t)names[i],
                                   .grace_ms = ES_GRACE_MAX };
        es_instruct_t *back = NULL;
        es_delivery_t from = { 0 };
        es_detail_t detail;
        char *text = NULL;
        size_t len = 0;

        assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
        assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
        assert_true(from.presence);
        assert_int_equal(from.grace_ms, ES_GRACE_MAX);
        if (names[i]) {
            assert_string_equal(from.member, names[i]);
        }
        else {
            assert_null(from.member);
        }
        es_delivery_clear(&from);
        es_instruct_free(back);
        es_instruct_free(in);
        free(text);
    }
}

static void refuses_presence_that_no_child_writes(void **state)
{
#define NAME_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const char *const values[] = {
        "null",
        "true",
        "{}",
        "{\"grace\": -1}",
        "{\"grace\": 60001}",
        "{\"grace\": \"5s\"}",
        "{\"grace\": 0, \"name\": 7}",
        "{\"grace\": 0, \"name\": null}",
        "{\"grace\": 0, \"name\": \"\"}",
        "{\"grace\": 0, \"name\": \"a\\u0000\"}",
        "{\"grace\": 0, \"name\": \"a\\nb\"}",
        "{\"grace\": 0, \"name\": \"\\u0085\"}",
        "{\"grace\": 0, \"name\": \"" NAME_64 NAME_64 NAME_64 NAME_64 "x\"}",
    };
#undef NAME_64
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(values); i++) {
        es_instruct_t *in = NULL;
        es_delivery_t d = { 0 };
        es_detail_t detail = { "" };
        char text[1024];

        snprintf(text, sizeof text,
                 "{\"hold\": {\"mode\": \"stream\", \"channels\": []}, \"delivery\": "
                 "{\"framing\": \"raw\", \"presence\": %s}}",
                 values[i]);
        assert_err(es_hold_decode(es_str(text), &in, &d, &detail), ES_EINVAL, &detail);
        assert_non_null(strstr(detail.text, "'presence' of 'delivery' needs 'grace'"));
        assert_null(in);
        assert_null(d.member);
    }
}

static void a_resumed_stream_comes_back(void **state)
{
    es_instruct_t *in = instruct("{\"hold\": {\"mode\": \"stream\", \"channels\": "
                                 "[{\"name\": \"a\"}, {\"name\": \"b\"}]}}");
    es_resume_t resume = { .behind = { 0, 7 },
                           .continuous = { true, false },
                           .bytes = (uint64_t)1 << 40,
                           .idle = 12345,
                           .replaying = true,
                           .sent = 5,
                           .until = 6,
                           .forgiven = 7,
                           .final = 8,
                           .ending = 3 };
    const es_delivery_t to = { .chunked = true, .resume = &resume };
    es_instruct_t *back = NULL;
    es_delivery_t from = { 0 };
    es_detail_t detail;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_hold_encode(in, &to, &text, &len), ES_OK);
    assert_err(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail), ES_OK, &detail);
    assert_non_null(from.resume);
    assert_memory_equal(from.resume, &resume, sizeof resume);
    es_delivery_clear(&from);
    assert_null(from.resume);
    es_instruct_free(back);
    es_instruct_free(in);
    free(text);
}

static void refuses_what_no_hub_writes(void **state)
{
#define FACTS "\"bytes\": 0, \"idle\": 0, \"ending\": 0"
    static const char *const resumes[] = {
        "null",
        "1",
        "[]",
        "{}",
        "{\"behind\": [], \"continuous\": [], \"bytes\": 0, \"idle\": 0}",
        "{\"behind\": [0], \"continuous\": [], " FACTS "}",
        "{\"behind\": [-1], \"continuous\": [true], " FACTS "}",
        "{\"behind\": [\"1\"], \"continuous\": [true], " FACTS "}",
        "{\"behind\": [1.5], \"continuous\": [true], " FACTS "}",
        "{\"behind\": [], \"continuous\": [], \"bytes\": -1, \"idle\": 0, \"ending\": 0}",
        "{\"behind\": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0], "
        "\"continuous\": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0], " FACTS "}",
    };
#undef FACTS
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(resumes); i++) {
        es_instruct_t *in = NULL;
        es_delivery_t d = { 0 };
        es_detail_t detail = { "" };
        char text[512];

        snprintf(text, sizeof text,
                 "{\"hold\": {\"mode\": \"stream\", \"channels\": []}, "
                 "\"delivery\": {\"framing\": \"raw\", \"peer\": \"x\"}, \"resume\": %s}",
                 resumes[i]);
        assert_err(es_hold_decode(es_str(text), &in, &d, &detail), ES_EINVAL, &detail);
        assert_string_equal(detail.text, "'resume' is not what a hub writes");
        assert_null(in);
        assert_null(d.peer);
        assert_null(d.resume);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_it_went),
        cmocka_unit_test(leaves_out_what_is_unknown_or_not_utf8),
        cmocka_unit_test(native_facts_come_back),
        cmocka_unit_test(refuses_positions_that_no_child_writes),
        cmocka_unit_test(presence_comes_back),
        cmocka_unit_test(refuses_presence_that_no_child_writes),
        cmocka_unit_test(carries_the_largest_instruct),
        cmocka_unit_test(refuses_what_is_no_hold_message),
        cmocka_unit_test(a_resumed_stream_comes_back),
        cmocka_unit_test(refuses_what_no_hub_writes),
    };
    return cmocka_run_group_tests_name("hold", tests, NULL, NULL);
}
