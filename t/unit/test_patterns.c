/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/patterns.c. */
#include "es_test.h"
#include "grip_int.h"

static const struct {
    const char *pattern;
    const char *text;
    bool fits;
} cases[] = {
    { "news", "news", true },
    { "news", "News", false },
    { "news", "newsx", false },
    { "news", "new", false },
    { "", "", true },
    { "", "a", false },
    { "*", "", true },
    { "*", "a/b", true },
    { "user-*", "user-", true },
    { "user-*", "user-7/inbox", true },
    { "user-*", "user", false },
    { "user-*", "xuser-7", false },
    { "*-7", "user-7", true },
    { "*-7", "user-77", false },
    { "a*b*c", "abc", true },
    { "a*b*c", "a-b-b-c-c", true },
    { "a*b*c", "a-c-b", false },
    { "*aab", "aaaab", true },
    { "**", "", true },
    { "a**", "a", true },
    { "?", "a", true },
    { "?", "", false },
    { "?", "ab", false },
    { "?", "\xc3\xb6", true }, /* one character */
    { "??", "\xc3\xb6", false },
    { "*??", "a\xc3\xb6", true },
    { "*???", "a\xc3\xb6", false },
    { "?", "\xe2\x82\xac", true },
    { "?", "\xff", true }, /* no UTF-8: a byte is one */
    { "user-?", "user-7", true },
    { "[ab]", "a", false }, /* no classes */
    { "[ab]", "[ab]", true },
    { "\\*", "*", false }, /* no escape */
    { "\\*", "\\x", true },
    { "?*?", "a", false },
    { "?*?", "ab", true },
};

static void matches(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        if (es_glob_match(es_str(cases[i].pattern), es_str(cases[i].text)) != cases[i].fits) {
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].text);
        }
    }
    assert_true(es_glob_match(S("a?b"), S("a\0b")));
    assert_false(es_glob_match(S("a"), S("a\0")));
}

/* Exponential or cubic matching would not come back from this. */
static void takes_no_time(void **state)
{
    char *text = es_repeat('a', ES_MAX_CHANNEL_NAME);
    char pattern[ES_MAX_PATTERN];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(pattern); i++) {
        pattern[i] = i % 2 == 0 ? '*' : 'a';
    }
    pattern[sizeof(pattern) - 1] = 'b';
    assert_false(es_glob_match((es_str_t) { pattern, sizeof(pattern) }, es_str(text)));
    free(text);
}

static void keeps_lists(void **state)
{
    es_patterns_t list = { NULL, 0 };
    char *big = es_repeat('a', ES_MAX_PATTERN + 1);
    es_detail_t d;
    int i;

    (void)state;
    assert_false(es_patterns_match(&list, S("")));
    assert_err(es_patterns_add(&list, S(""), &d), ES_EINVAL, &d);
    assert_err(es_patterns_add(&list, S("a\nb"), &d), ES_EINVAL, &d);
    assert_string_equal(d.text,
                        "the name or pattern 'a?b' is not UTF-8 text without CR, LF and NUL");
    assert_err(es_patterns_add(&list, S("\xff"), &d), ES_EINVAL, &d);
    assert_err(es_patterns_add(&list, es_str(big), &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "a name or pattern is 4097 bytes long, at most 4096");
    assert_int_equal(list.n, 0);
    big[ES_MAX_PATTERN] = '\0';
    assert_err(es_patterns_add(&list, es_str(big), &d), ES_OK, &d);
    assert_err(es_patterns_add(&list, S("user-*"), &d), ES_OK, &d);
    assert_true(es_patterns_match(&list, S("user-1")));
    assert_true(es_patterns_match(&list, es_str(big)));
    assert_false(es_patterns_match(&list, S("news")));
    for (i = 2; i < ES_MAX_PATTERNS; i++) {
        assert_int_equal(es_patterns_add(&list, S("x"), NULL), ES_OK);
    }
    assert_err(es_patterns_add(&list, S("y"), &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "there are over 1024 names and patterns");
    assert_false(es_patterns_match(&list, S("y")));
    es_patterns_free(&list);
    assert_int_equal(list.n, 0);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches),
        cmocka_unit_test(takes_no_time),
        cmocka_unit_test(keeps_lists),
    };
    return cmocka_run_group_tests_name("patterns", tests, NULL, NULL);
}
