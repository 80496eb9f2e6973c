/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/header_list.c: Pushpin's grammar of lists and parameters. */
#include "es_test.h"
#include "grip_int.h"

/* Joins the elements of a list with '|', or tells how it ended. */
static const char *elements(const char *list)
{
    static char out[256];
    es_str_t rest = es_str_trim(es_str(list));
    es_str_t element;
    size_t n = 0;
    es_err_t err = es_list_next(&rest, &element);

    out[0] = '\0';
    while (err == ES_OK) {
        n += (size_t)snprintf(out + n, sizeof(out) - n, "[%.*s]", (int)element.n, element.p);
        err = es_list_next(&rest, &element);
    }
    if (err != ES_ENOENT) {
        snprintf(out + n, sizeof(out) - n, "!%s", es_err_name(err));
    }
    return out;
}

/* The first value and the parameters of an element, or how it ended. */
static const char *params(const char *element, bool first)
{
    static char out[256];
    es_str_t rest = es_str(element);
    es_str_t name, value;
    es_buf_t scratch;
    size_t n = 0;
    es_err_t err;

    out[0] = '\0';
    es_buf_init(&scratch, rest.n);
    if (first) {
        value = es_param_first(&rest);
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s|", (int)value.n, value.p);
    }
    err = es_param_next(&rest, &scratch, &name, &value);
    while (err == ES_OK) {
        n += (size_t)snprintf(out + n, sizeof(out) - n, "<%.*s=%.*s>", (int)name.n, name.p,
                              (int)value.n, value.p);
        err = es_param_next(&rest, &scratch, &name, &value);
    }
    if (err != ES_ENOENT) {
        snprintf(out + n, sizeof(out) - n, "!%s", es_err_name(err));
    }
    es_buf_free(&scratch);
    return out;
}

static void splits_lists(void **state)
{
    (void)state;
    assert_string_equal(elements(""), "");
    assert_string_equal(elements("a"), "[a]");
    assert_string_equal(elements(" a , b\t,c "), "[a][b][c]");
    assert_string_equal(elements("a,,b"), "[a][][b]");
    assert_string_equal(elements("a,"), "[a]");
    assert_string_equal(elements("a, "), "[a]");
    assert_string_equal(elements(",a"), "[][a]");
    assert_string_equal(elements(","), "[]");
    assert_string_equal(elements("k=\"a,b\",c"), "[k=\"a,b\"][c]");
    assert_string_equal(elements("k=\"a\\\",b\",c"), "[k=\"a\\\",b\"][c]");
    /* A backslash outside quotes is an ordinary byte. */
    assert_string_equal(elements("a\\,b"), "[a\\][b]");
}

static void tells_an_open_quote(void **state)
{
    (void)state;
    assert_string_equal(elements("a,\"b,c"), "[a]!invalid");
    assert_string_equal(elements("k=\"a\\\""), "!invalid");
    assert_string_equal(elements("k=\"a\\"), "!invalid");
}

static void takes_the_first_value_as_it_stands(void **state)
{
    (void)state;
    assert_string_equal(params("a;b", true), "a|<b=>");
    assert_string_equal(params("\"a\"", true), "\"a\"|");
    assert_string_equal(params("\"a;b\"", true), "\"a|<b\"=>");
    assert_string_equal(params(" a b ; x=1", true), "a b|<x=1>");
    assert_string_equal(params(";x=1", true), "|<x=1>");
    assert_string_equal(params("", true), "|");
}

static void reads_parameters(void **state)
{
    (void)state;
    assert_string_equal(params("c; prev-id=2; filter=build-id; filter=skip-users", true),
                        "c|<prev-id=2><filter=build-id><filter=skip-users>");
    assert_string_equal(params("a= x y ;b=", false), "<a=x y><b=>");
    assert_string_equal(params("a=b=c", false), "<a=b=c>");
    assert_string_equal(params("a=\"b;c\"", false), "<a=b;c>");
    assert_string_equal(params("a=\"b\\\"c\\\\d\\n\"", false), "<a=b\"c\\dn>");
    assert_string_equal(params("a=\"\"", false), "<a=>");
    /* Junk behind the quote does not count; a quote elsewhere is an ordinary byte. */
    assert_string_equal(params("a=\"b\" junk=1; c=2", false), "<a=b><c=2>");
    assert_string_equal(params("a= \"b;c\"", false), "<a=\"b><c\"=>");
    assert_string_equal(params("=x;;y", false), "<=x><=><y=>");
}

static void tells_a_broken_quoted_value(void **state)
{
    (void)state;
    assert_string_equal(params("a=\"b", false), "!invalid");
    assert_string_equal(params("a=\"b\\", false), "!invalid");
    assert_string_equal(params("x=1;a=\"", false), "<x=1>!invalid");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_lists),
        cmocka_unit_test(tells_an_open_quote),
        cmocka_unit_test(takes_the_first_value_as_it_stands),
        cmocka_unit_test(reads_parameters),
        cmocka_unit_test(tells_a_broken_quoted_value),
    };
    return cmocka_run_group_tests_name("header_list", tests, NULL, NULL);
}
