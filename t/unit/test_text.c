/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/text.c: what text may come in, and the caps of a meta object. */
#include "es_test.h"
#include "grip_int.h"

static void finds_unclean_bytes(void **state)
{
    (void)state;
    assert_true(es_text_is_clean(S("")));
    assert_true(es_text_is_clean(S("a\tb \x80")));
    assert_false(es_text_is_clean(S("a\r")));
    assert_false(es_text_is_clean(S("\na")));
    assert_false(es_text_is_clean(S("a\0b")));
}

static void agrees_with_jansson_on_utf8(void **state)
{
    char b[4];
    unsigned int lead, second;
    size_t n;

    (void)state;
    /* Every lead and second byte, with good and bad tails, in every length. */
    for (lead = 0; lead < 256; lead++) {
        for (second = 0; second < 256; second++) {
            b[0] = (char)lead;
            b[1] = (char)second;
            b[2] = (char)(second % 3 == 0 ? 0x80 : 0xbf);
            b[3] = (char)(second % 5 == 0 ? 0x41 : 0x9f);
            for (n = 1; n <= 4; n++) {
                es_str_t s = { b, n };
                json_t *j = json_stringn(b, n);
                assert_int_equal(es_text_is_utf8(s), j != NULL);
                json_decref(j);
            }
        }
    }
    assert_true(es_text_is_utf8(S("")));
}

static void knows_header_names(void **state)
{
    char *longest = es_repeat('a', ES_MAX_HEADER_NAME + 1);

    (void)state;
    assert_true(es_text_is_header_name(S("Content-Type")));
    assert_true(es_text_is_header_name(S("X_1!#$%&'*+.^`|~")));
    assert_false(es_text_is_header_name(S("")));
    assert_false(es_text_is_header_name(S("a b")));
    assert_false(es_text_is_header_name(S("a:")));
    assert_false(es_text_is_header_name(S("a\0")));
    assert_false(es_text_is_header_name(S("a\r\n")));
    assert_false(es_text_is_header_name(S("\xc3\xb6")));
    assert_false(es_text_is_header_name(es_str(longest)));
    longest[ES_MAX_HEADER_NAME] = '\0';
    assert_true(es_text_is_header_name(es_str(longest)));
    free(longest);
}

static void meta_replaces_and_checks(void **state)
{
    es_pairs_t meta = { NULL, 0 };
    es_detail_t d;

    (void)state;
    assert_err(es_meta_set(&meta, "M", S("a"), S("1"), &d), ES_OK, &d);
    assert_err(es_meta_set(&meta, "M", S("b"), S("2"), &d), ES_OK, &d);
    assert_err(es_meta_set(&meta, "M", S("a"), S("33"), &d), ES_OK, &d);
    assert_int_equal(meta.n, 2);
    assert_bytes(meta.v[0].value, meta.v[0].value_len, "33");
    assert_err(es_meta_set(&meta, "M", S("a\n"), S("1"), &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "M contains a name with CR, LF or NUL");
    assert_err(es_meta_set(&meta, "M", S("c"), S("1\0"), &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "M contains 'c' with CR, LF or NUL in its value");
    assert_int_equal(meta.n, 2);
    es_pairs_free(&meta);
}

static void meta_has_a_cap_on_pairs(void **state)
{
    es_pairs_t meta = { NULL, 0 };
    es_detail_t d;
    char name[16];
    int i;

    (void)state;
    for (i = 0; i < ES_MAX_META_PAIRS; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        assert_err(es_meta_set(&meta, "M", es_str(name), S("v"), &d), ES_OK, &d);
    }
    assert_err(es_meta_set(&meta, "M", S("more"), S("v"), &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "M holds over 64 names");
    assert_err(es_meta_set(&meta, "M", S("n0"), S("other"), &d), ES_OK, &d);
    es_pairs_free(&meta);
}

static void meta_has_a_cap_on_bytes(void **state)
{
    es_pairs_t meta = { NULL, 0 };
    char *big = es_repeat('v', ES_MAX_META_BYTES);
    es_str_t value = { big, ES_MAX_META_BYTES - 2 };
    es_detail_t d;

    (void)state;
    assert_err(es_meta_set(&meta, "M", S("a"), S("1"), &d), ES_OK, &d);
    /* Two bytes are taken: a name of one and this value are one over. */
    assert_err(es_meta_set(&meta, "M", S("b"), value, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "M holds over 16384 bytes of names and values");
    value.n--;
    assert_err(es_meta_set(&meta, "M", S("b"), value, &d), ES_OK, &d);
    assert_err(es_meta_set(&meta, "M", S("c"), S(""), &d), ES_ETOOBIG, &d);
    /* Replacing frees what was there. */
    assert_err(es_meta_set(&meta, "M", S("b"), value, &d), ES_OK, &d);
    es_pairs_free(&meta);
    free(big);
}

static void prefixes_a_detail(void **state)
{
    es_detail_t d;

    (void)state;
    es_fail(&d, ES_EINVAL, "no formats specified");
    es_detail_prefix(&d, "Invalid format: ");
    assert_string_equal(d.text, "Invalid format: no formats specified");
    es_detail_prefix(NULL, "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_unclean_bytes),     cmocka_unit_test(agrees_with_jansson_on_utf8),
        cmocka_unit_test(knows_header_names),      cmocka_unit_test(meta_replaces_and_checks),
        cmocka_unit_test(meta_has_a_cap_on_pairs), cmocka_unit_test(meta_has_a_cap_on_bytes),
        cmocka_unit_test(prefixes_a_detail),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
