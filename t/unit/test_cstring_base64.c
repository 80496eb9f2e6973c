/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/cstring_base64.c. */
#include "es_test.h"
#include "grip_int.h"

static void decodes_cstrings(void **state)
{
    static const struct {
        es_str_t in, out;
    } cases[] = {
        { S("event: keep-alive\\ndata:\\n\\n"), S("event: keep-alive\ndata:\n\n") },
        { S(":ka\\t\\q\\x3b"), S(":ka;") }, /* unknown escapes vanish, as in Pushpin */
        { S("\\\\\\r\\n"), S("\\\r\n") },
        { S("\\x00\\xfF\\xAb"), S("\0\xff\xab") },
        { S("plain"), S("plain") },
        { S("\\X41a"), S("41a") },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_detail_t d;
        char *out = NULL;
        size_t n = 0;
        assert_err(es_cstring_decode(cases[i].in, &out, &n, &d), ES_OK, &d);
        es_check_bytes(out, n, cases[i].out, __FILE__, __LINE__);
        assert_int_equal(out[n], '\0');
        free(out);
    }
}

static void refuses_broken_cstrings(void **state)
{
    static const es_str_t cases[] = { S("\\"),    S("a\\"), S("\\x"), S("\\x4"),   S("\\x4g"),
                                      S("\\xg4"), S(""),    S("\\t"), S("\\q\\q"), S("\\\\\\") };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_detail_t d;
        char *out = NULL;
        size_t n = 7;
        assert_err(es_cstring_decode(cases[i], &out, &n, &d), ES_EINVAL, &d);
        assert_starts(d.text, "cstring ");
        assert_null(out);
        assert_int_equal(n, 7);
    }
}

static void decodes_base64_leniently(void **state)
{
    static const struct {
        es_str_t in, out;
        bool url;
    } cases[] = {
        { S("AP8="), S("\0\xff"), false },
        { S("AP8"), S("\0\xff"), false },
        { S("A P\n8 ==="), S("\0\xff"), false },
        { S("?AP8!"), S("\0\xff"), false },
        { S("Y2hhbmdlbWU="), S("changeme"), false },
        { S("+/+/"), S("\xfb\xff\xbf"), false },
        { S("-_-_"), S("\xfb\xff\xbf"), true },
        { S("-_-_"), S(""), false },
        { S("+/+/"), S(""), true },
        { S("A"), S(""), false },
        { S(""), S(""), false },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        char *out = NULL;
        size_t n = 0;
        assert_int_equal(es_base64_decode(cases[i].in, cases[i].url, &out, &n), ES_OK);
        es_check_bytes(out, n, cases[i].out, __FILE__, __LINE__);
        free(out);
    }
}

static void encodes_what_it_decodes(void **state)
{
    unsigned char bytes[256];
    size_t i, n, m;

    (void)state;
    for (i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)(i * 37 + 11);
    }
    for (i = 0; i <= sizeof(bytes); i++) {
        es_str_t in = { (const char *)bytes, i };
        es_str_t text;
        char *encoded = NULL;
        char *back = NULL;
        assert_int_equal(es_base64_encode(in, &encoded, &n), ES_OK);
        assert_int_equal(n, (i + 2) / 3 * 4);
        text.p = encoded;
        text.n = n;
        assert_int_equal(es_base64_check(text), n);
        assert_int_equal(es_base64_decode(text, false, &back, &m), ES_OK);
        es_check_bytes(back, m, in, __FILE__, __LINE__);
        free(encoded);
        free(back);
    }
}

static void finds_where_strict_base64_breaks(void **state)
{
    static const struct {
        es_str_t in;
        size_t at;
    } cases[] = {
        { S(""), 0 },         { S("AP8="), 4 },   { S("AP8"), 3 },      { S("AP"), 2 },
        { S("AP=="), 4 },     { S("AAAA"), 4 },   { S("A"), 0 },        { S("AAAAA"), 4 },
        { S("A-AA"), 1 },     { S("AP8 "), 3 },   { S("AP="), 1 },      { S("="), 0 },
        { S("AAAA===="), 6 }, { S("AAAA=="), 3 }, { S("AP8=AAAA"), 4 }, { S("AA\0A"), 2 },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        assert_int_equal(es_base64_check(cases[i].in), cases[i].at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_cstrings),
        cmocka_unit_test(refuses_broken_cstrings),
        cmocka_unit_test(decodes_base64_leniently),
        cmocka_unit_test(encodes_what_it_decodes),
        cmocka_unit_test(finds_where_strict_base64_breaks),
    };
    return cmocka_run_group_tests_name("cstring_base64", tests, NULL, NULL);
}
