/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/wire/native.c. */
#include "es_test.h"
#include "es_wire.h"

static void channels_are_json(void **state)
{
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_channel_encode("a\"\xc3\xa4", false, &text, &len), ES_OK);
    assert_string_equal(text, "{\"channel\":\"a\\\"\xc3\xa4\"}");
    assert_int_equal(len, strlen(text));
    free(text);
    assert_int_equal(es_channel_encode("\xff", false, &text, &len), ES_EINVAL);
}

/* What is encoded is what publishers may send. */
static void a_publish_is_understood(void **state)
{
    static const char *const names[] = { "news", "a b" };
    es_items_t items = { 0 };
    es_detail_t detail;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_publish_encode(names, 2, "i1", S("data: x\n\n"), &text, &len), ES_OK);
    assert_err(es_items_from_json(text, len, &items, &detail), ES_OK, &detail);
    assert_int_equal(items.n, 2);
    assert_string_equal(items.v[0]->channel, "news");
    assert_string_equal(items.v[1]->channel, "a b");
    assert_string_equal(items.v[1]->id, "i1");
    assert_bytes(items.v[1]->stream.content, items.v[1]->stream.content_len, "data: x\n\n");
    assert_false(items.v[1]->stream.has_content_filters);
    es_items_free(&items);
    free(text);
}

static void a_publish_has_a_limit(void **state)
{
    static const char *const names[] = { "a", "b" };
    char *big = es_repeat('x', ES_MAX_PUBLISH_BODY / 2 + 1);
    char *escaped = es_repeat('\n', ES_MAX_PUBLISH_BODY / 2 + 1);
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_publish_encode(names, 1, NULL, es_str(big), &text, &len), ES_OK);
    free(text);
    assert_int_equal(es_publish_encode(names, 2, NULL, es_str(big), &text, &len), ES_ETOOBIG);
    assert_int_equal(es_publish_encode(names, 1, NULL, es_str(escaped), &text, &len), ES_ETOOBIG);
    assert_int_equal(es_publish_encode(names, 1, NULL, S("\xff"), &text, &len), ES_EINVAL);
    assert_int_equal(es_publish_encode(names, 1, "\xff", S("x"), &text, &len), ES_EINVAL);
    free(big);
    free(escaped);
}

static void a_reservation_is_read(void **state)
{
    es_detail_t detail;
    char *id = NULL;
    bool reset = false;

    (void)state;
    assert_err(es_reserved_decode(S("{\"id\": \"abc\", \"reset\": true}"), &id, &reset, &detail),
               ES_OK, &detail);
    assert_string_equal(id, "abc");
    assert_true(reset);
    free(id);
    assert_err(es_reserved_decode(S("{\"id\": null, \"reset\": false}"), &id, &reset, &detail),
               ES_OK, &detail);
    assert_null(id);
    assert_false(reset);
    assert_int_equal(es_reserved_decode(S(""), &id, &reset, &detail), ES_EINVAL);
    assert_int_equal(es_reserved_decode(S("[]"), &id, &reset, &detail), ES_EINVAL);
}

static void a_publish_is_reported(void **state)
{
    es_detail_t detail;
    char *text = NULL;

    (void)state;
    assert_err(
        es_published_to_json(S("{\"ids\": [\"a\", \"b\"], \"receivers\": [2, 3]}"), &text, &detail),
        ES_OK, &detail);
    assert_string_equal(text, "{\"id\":\"b\",\"receivers\":5}");
    free(text);
    assert_int_equal(es_published_to_json(S("{\"ids\": [], \"receivers\": []}"), &text, &detail),
                     ES_EINVAL);
    assert_int_equal(es_published_to_json(S("{\"ids\": [\"a\"]}"), &text, &detail), ES_EINVAL);
    assert_int_equal(es_published_to_json(S("x"), &text, &detail), ES_EINVAL);
}

static void infos_are_put_together(void **state)
{
    static const char *const asked[] = { "a", "b" };
    static const char *const answers[] = { "{\"receivers\": 1, \"id\": null}",
                                           "{\"receivers\": 0}" };
    static const char *const bad[] = { "{}", "" };
    es_detail_t detail;
    char *text = NULL;

    (void)state;
    assert_err(es_info_to_json(asked, answers, 2, &text, &detail), ES_OK, &detail);
    assert_string_equal(text, "{\"channels\":[{\"channel\":\"a\",\"receivers\":1,\"id\":null},"
                              "{\"channel\":\"b\",\"receivers\":0}]}");
    free(text);
    assert_int_equal(es_info_to_json(asked, bad, 2, &text, &detail), ES_EINVAL);
}

static void json_is_any_value(void **state)
{
    (void)state;
    assert_true(es_text_is_json(S("{\"a\": 1}")));
    assert_true(es_text_is_json(S(" 7\n")));
    assert_true(es_text_is_json(S("\"\"")));
    assert_false(es_text_is_json(S("")));
    assert_false(es_text_is_json(S("hello")));
    assert_false(es_text_is_json(S("{} {}")));
}

static void one_parameter_is_found(void **state)
{
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(es_query_param(S("a=1&data=x+%26%C3%A4&data=2"), "data", &text, &len), ES_OK);
    assert_string_equal(text, "x &\xc3\xa4");
    assert_int_equal(len, strlen(text));
    free(text);
    assert_int_equal(es_query_param(S("b&data=&c"), "data", &text, &len), ES_OK);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(es_query_param(S("data%3D=1&x"), "data", &text, &len), ES_ENOENT);
    assert_int_equal(es_query_param(S("data=%4"), "data", &text, &len), ES_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channels_are_json),     cmocka_unit_test(a_publish_is_understood),
        cmocka_unit_test(a_publish_has_a_limit), cmocka_unit_test(a_reservation_is_read),
        cmocka_unit_test(a_publish_is_reported), cmocka_unit_test(infos_are_put_together),
        cmocka_unit_test(json_is_any_value),     cmocka_unit_test(one_parameter_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
