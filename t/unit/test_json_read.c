/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/json_read.c: members, the sentences about them, and the two rules that differ
 * between JSON and tnetstrings. */
#include "es_test.h"
#include "grip_int.h"

static json_t *json(const char *text)
{
    json_t *value = NULL;
    es_detail_t d;

    assert_err(es_json_parse(text, strlen(text), &value, &d), ES_OK, &d);
    return value;
}

static void parses_objects_and_lists(void **state)
{
    json_t *value = NULL;
    es_detail_t d;

    (void)state;
    json_decref(json("{\"a\":\"\\u0000\"}"));
    json_decref(json(" [] "));
    assert_err(es_json_parse("{\n\"a\" 1}", 8, &value, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "line 2 column 5: ':' expected near '1'");
    assert_err(es_json_parse("7", 1, &value, NULL), ES_EINVAL, NULL);
    assert_null(value);
}

static void finds_members_by_type(void **state)
{
    es_detail_t d;
    es_json_in_t in = { &d, false, false };
    json_t *obj = json("{\"s\":\"x\",\"t\":true,\"f\":false,\"n\":null}");
    json_t *got = obj;

    (void)state;
    assert_err(es_json_get(&in, obj, "it", "s", JSON_STRING, true, &got), ES_OK, &d);
    assert_string_equal(json_string_value(got), "x");
    assert_err(es_json_get(&in, obj, "it", "f", JSON_TRUE, true, &got), ES_OK, &d);
    assert_true(json_is_false(got));
    assert_err(es_json_get(&in, obj, "it", "s", JSON_TRUE, true, &got), ES_EINVAL, &d);
    assert_string_equal(d.text, "it contains 's' with wrong type");
    assert_err(es_json_get(&in, obj, "it", "n", JSON_STRING, false, &got), ES_OK, &d);
    assert_null(got);
    assert_err(es_json_get(&in, obj, "it", "z", JSON_STRING, false, &got), ES_OK, &d);
    assert_null(got);
    assert_err(es_json_get(&in, obj, "it", "z", JSON_STRING, true, &got), ES_EINVAL, &d);
    assert_string_equal(d.text, "it does not contain 'z'");
    in.explain = true;
    assert_err(es_json_get(&in, obj, "it", "n", JSON_STRING, true, &got), ES_EINVAL, &d);
    assert_string_equal(d.text, "it contains 'n' with wrong type: found null, accepted string");
    assert_err(es_json_get(&in, obj, "it", "t", JSON_ARRAY, false, &got), ES_EINVAL, &d);
    assert_string_equal(d.text, "it contains 't' with wrong type: found boolean, accepted list");
    json_decref(obj);
}

static void reads_numbers_in_any_form(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } good[] = { { "{\"n\":5}", 5 },      { "{\"n\":5.9}", 5 },   { "{\"n\":\" 5 \"}", 5 },
                 { "{\"n\":\"+5\"}", 5 }, { "{\"n\":null}", -7 }, { "{}", -7 },
                 { "{\"n\":0}", 0 },      { "{\"n\":10}", 10 },   { "{\"n\":-0.5}", 0 } };
    static const char *const bad[] = { "{\"n\":11}",    "{\"n\":-1}",    "{\"n\":\"x\"}",
                                       "{\"n\":\"\"}",  "{\"n\":true}",  "{\"n\":{}}",
                                       "{\"n\":1e30}",  "{\"n\":-1e30}", "{\"n\":\"5.0\"}",
                                       "{\"n\":10.5e1}" };
    es_detail_t d;
    es_json_in_t in = { &d, true, false };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(good); i++) {
        json_t *obj = json(good[i].text);
        int64_t n = -7;
        assert_err(es_json_get_int(&in, obj, "it", "n", 0, 10, &n), ES_OK, &d);
        assert_int_equal(n, good[i].value);
        json_decref(obj);
    }
    for (i = 0; i < ES_COUNT(bad); i++) {
        json_t *obj = json(bad[i]);
        int64_t n = -7;
        assert_err(es_json_get_int(&in, obj, "it", "n", 0, 10, &n), ES_EINVAL, &d);
        assert_starts(d.text, "it contains 'n' with ");
        assert_int_equal(n, -7);
        json_decref(obj);
    }
}

static void reads_content_by_origin(void **state)
{
    static const struct {
        const char *text;
        bool raw;
        es_str_t want;
    } cases[] = {
        { "{\"c\":\"x\",\"b\":\"AP8=\"}", false, S("\0\xff") },
        { "{\"c\":\"x\",\"b\":\"AP8=\"}", true, S("x") },
        { "{\"b\":\"AP8=\"}", true, S("\0\xff") },
        { "{\"b\":\"AP8\"}", true, S("AP8") }, /* no padding: not base64 text, but bytes */
        { "{\"b\":\"AP8\"}", false, S("\0\xff") },
        { "{\"b\":\"AP 8=\"}", true, S("AP 8=") },
        { "{\"b\":\"\"}", true, S("") },
        { "{\"b\":\"!\"}", false, S("") },
        { "{\"c\":\"\",\"b\":null}", false, S("") },
    };
    es_detail_t d;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_json_in_t in = { &d, false, cases[i].raw };
        json_t *obj = json(cases[i].text);
        char *got = NULL;
        size_t n = 0;
        assert_err(es_json_get_content(&in, obj, "it", "c", "b", &got, &n), ES_OK, &d);
        es_check_bytes(got, n, cases[i].want, __FILE__, __LINE__);
        free(got);
        json_decref(obj);
    }
}

static void absent_content_is_null(void **state)
{
    es_detail_t d;
    es_json_in_t in = { &d, false, false };
    json_t *obj = json("{\"c\":null}");
    char *got = (char *)&d;
    size_t n = 9;

    (void)state;
    assert_err(es_json_get_content(&in, obj, "it", "c", "b", &got, &n), ES_OK, &d);
    assert_null(got);
    assert_int_equal(n, 0);
    json_decref(obj);
}

static void meta_replaces_all_or_nothing(void **state)
{
    es_detail_t d;
    es_json_in_t in = { &d, false, false };
    es_pairs_t meta = { NULL, 0 };
    json_t *good = json("{\"meta\":{\"a\":\"1\",\"b\":\"2\"}}");
    json_t *bad = json("{\"meta\":{\"c\":\"3\",\"d\":4}}");
    json_t *none = json("{}");
    bool given = false;

    (void)state;
    assert_int_equal(es_pairs_add(&meta, S("old"), S("x")), ES_OK);
    assert_err(es_json_get_meta(&in, none, "it", &meta, &given), ES_OK, &d);
    assert_false(given);
    assert_int_equal(meta.n, 1);
    assert_err(es_json_get_meta(&in, bad, "it", &meta, NULL), ES_EINVAL, &d);
    assert_string_equal(d.text, "'meta' contains 'd' with wrong type");
    assert_string_equal(meta.v[0].name, "old");
    assert_err(es_json_get_meta(&in, good, "it", &meta, &given), ES_OK, &d);
    assert_true(given);
    assert_int_equal(meta.n, 2);
    assert_string_equal(meta.v[1].name, "b");
    es_pairs_free(&meta);
    json_decref(good);
    json_decref(bad);
    json_decref(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_objects_and_lists),  cmocka_unit_test(finds_members_by_type),
        cmocka_unit_test(reads_numbers_in_any_form), cmocka_unit_test(reads_content_by_origin),
        cmocka_unit_test(absent_content_is_null),    cmocka_unit_test(meta_replaces_all_or_nothing),
    };
    return cmocka_run_group_tests_name("json_read", tests, NULL, NULL);
}
