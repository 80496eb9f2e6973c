/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/instruct_write.c: what is written is the documented form, and it comes back
 * equal, whatever the instruct holds. */
#include "es_test.h"
#include "es_equal.h"
#include "grip_int.h"

static const es_str_t none = { NULL, 0 };

static void check_round_trip(const es_instruct_t *in)
{
    es_instruct_t *back = NULL;
    char *json = NULL;
    char *again = NULL;
    size_t n = 0;
    size_t m = 0;
    es_detail_t d;

    assert_err(es_instruct_to_json(in, &json, &n), ES_OK, NULL);
    assert_int_equal(json[n], '\0');
    assert_true(n <= ES_MAX_INSTRUCT_WIRE);
    assert_err(es_instruct_from_json(NULL, json, n, &back, NULL, &d), ES_OK, &d);
    if (!es_equal_instruct(in, back)) {
        print_error("came back different: %s\n", json);
        fail();
    }
    assert_err(es_instruct_to_json(back, &again, &m), ES_OK, NULL);
    assert_string_equal(json, again);
    es_instruct_free(back);
    free(json);
    free(again);
}

static void writes_the_documented_form(void **state)
{
    static const es_header_t headers[] = {
        { "Grip-Hold", "stream" },
        { "Grip-Channel", "a;prev-id=1;filter=build-id;filter=skip-users, b" },
        { "Grip-Keep-Alive", "x\\n;format=cstring;timeout=20" },
        { "Grip-Set-Meta", "user=\"u\"" },
        { "Grip-Status", "404 Not There" },
        { "Grip-Expose-Headers", "X-A, X-B" },
    };
    es_instruct_t *in = NULL;
    char *json = NULL;
    size_t n;
    es_detail_t d;

    (void)state;
    assert_err(es_instruct_from_headers(headers, ES_COUNT(headers), &in, &d), ES_OK, &d);
    assert_err(es_instruct_to_json(in, &json, &n), ES_OK, NULL);
    assert_string_equal(
        json, "{\"hold\":{\"mode\":\"stream\",\"channels\":[{\"name\":\"a\",\"prev-id\":\"1\","
              "\"filters\":[\"build-id\",\"skip-users\"]},{\"name\":\"b\"}],\"timeout\":55,"
              "\"keep-alive\":{\"content\":\"x\\n\",\"timeout\":20,\"mode\":\"idle\"},"
              "\"meta\":{\"user\":\"u\"}},\"status\":404,\"reason\":\"Not There\","
              "\"expose-headers\":[\"X-A\",\"X-B\"]}");
    assert_int_equal(n, strlen(json));
    free(json);
    check_round_trip(in);
    es_instruct_free(in);
}

static void every_hold_comes_back(void **state)
{
    es_hold_t holds[] = { ES_HOLD_NONE, ES_HOLD_STREAM, ES_HOLD_RESPONSE };
    es_instruct_t *in = es_instruct_new();
    es_detail_t d;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(holds); i++) {
        in->hold = holds[i];
        check_round_trip(in);
    }
    assert_err(es_instruct_add_channel(in, S("a"), S(""), NULL, &d), ES_OK, &d);
    assert_err(es_instruct_add_channel(in, S(""), none, NULL, &d), ES_OK, &d);
    in->hold = ES_HOLD_NONE;
    check_round_trip(in);
    es_instruct_free(in);
}

static void bytes_come_back(void **state)
{
    es_instruct_t *in = es_instruct_new();
    char all[256];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(all); i++) {
        all[i] = (char)i;
    }
    /* UTF-8 travels as text, anything else as base64. */
    in->keep_alive_mode = ES_KEEP_ALIVE_INTERVAL;
    in->keep_alive_timeout = 1;
    in->keep_alive = es_memdup(all, sizeof(all));
    in->keep_alive_len = sizeof(all);
    check_round_trip(in);
    in->keep_alive_len = 128;
    check_round_trip(in);
    in->keep_alive_len = 1;
    check_round_trip(in);
    es_instruct_free(in);
}

static void the_largest_one_comes_back(void **state)
{
    es_instruct_t *in = es_instruct_new();
    /* Control bytes take six bytes each as JSON: the worst case. */
    char *name = es_repeat('\x01', ES_MAX_CHANNEL_NAME);
    char *id = es_repeat('\x02', ES_MAX_ID);
    es_str_t name_s = { name, ES_MAX_CHANNEL_NAME };
    es_str_t id_s = { id, ES_MAX_ID };
    char *value = es_repeat('\x03', ES_MAX_META_BYTES / ES_MAX_META_PAIRS - 8);
    char key[16];
    es_detail_t d;
    int i;

    (void)state;
    for (i = 0; i < ES_MAX_CHANNELS; i++) {
        es_sub_spec_t *spec = NULL;
        name[0] = (char)('a' + i);
        assert_err(es_instruct_add_channel(in, name_s, id_s, &spec, &d), ES_OK, &d);
        while (spec->filter_count < ES_MAX_FILTERS) {
            es_sub_spec_add_filter(spec, S("require-sub"));
        }
    }
    for (i = 0; i < ES_MAX_META_PAIRS; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_err(es_meta_set(&in->meta, "M", es_str(key), es_str(value), &d), ES_OK, &d);
    }
    in->keep_alive = es_repeat('\x04', ES_MAX_KEEP_ALIVE);
    in->keep_alive_len = ES_MAX_KEEP_ALIVE;
    in->status = 599;
    in->reason = es_repeat('\x05', ES_MAX_REASON);
    free(name);
    name = es_repeat('h', ES_MAX_HEADER_NAME);
    for (i = 0; i < ES_MAX_HEADERS; i++) {
        assert_err(es_instruct_add_expose(in, es_str(name), &d), ES_OK, &d);
    }
    in->timeout = 2147483647;
    in->keep_alive_timeout = 2147483647;
    check_round_trip(in);
    free(name);
    free(id);
    free(value);
    es_instruct_free(in);
}

static void refuses_text_that_is_not_utf8(void **state)
{
    es_instruct_t *in = es_instruct_new();
    char *json = NULL;
    size_t n = 5;
    es_detail_t d;

    (void)state;
    assert_err(es_pairs_add(&in->meta, S("k"), S("\xff")), ES_OK, NULL);
    assert_err(es_instruct_to_json(in, &json, &n), ES_EINVAL, NULL);
    es_pairs_free(&in->meta);
    assert_err(es_pairs_add(&in->meta, S("\xff"), S("v")), ES_OK, NULL);
    assert_err(es_instruct_to_json(in, &json, &n), ES_EINVAL, NULL);
    es_pairs_free(&in->meta);
    assert_err(es_instruct_add_channel(in, S("a"), none, NULL, &d), ES_OK, &d);
    in->channels[0].name[0] = '\xff';
    assert_err(es_instruct_to_json(in, &json, &n), ES_EINVAL, NULL);
    in->channels[0].name[0] = 'a';
    in->channels[0].filter_count = 1; /* ES_FILTER_NONE has no name */
    assert_err(es_instruct_to_json(in, &json, &n), ES_EINVAL, NULL);
    assert_null(json);
    assert_int_equal(n, 5);
    es_instruct_free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_documented_form),
        cmocka_unit_test(every_hold_comes_back),
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(the_largest_one_comes_back),
        cmocka_unit_test(refuses_text_that_is_not_utf8),
    };
    return cmocka_run_group_tests_name("instruct_write", tests, NULL, NULL);
}
