/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/tnetstring.c: every type, every way to break one, and the caps. */
#include "es_test.h"
#include "grip_int.h"

static json_t *parse(es_str_t in)
{
    json_t *value = NULL;
    es_detail_t d;

    assert_err(es_tnetstring_parse(in, &value, &d), ES_OK, &d);
    assert_non_null(value);
    return value;
}

static void reads_every_type(void **state)
{
    json_t *v;

    (void)state;
    v = parse(S("3:a\0\xff,"));
    assert_true(json_is_string(v));
    assert_bytes(json_string_value(v), json_string_length(v), "a\0\xff");
    json_decref(v);
    v = parse(S("0:,"));
    assert_int_equal(json_string_length(v), 0);
    json_decref(v);
    v = parse(S("3:-42#"));
    assert_int_equal(json_integer_value(v), -42);
    json_decref(v);
    v = parse(S("6:1.5e-3^"));
    assert_true(json_real_value(v) == 1.5e-3);
    json_decref(v);
    v = parse(S("3:2.5^"));
    assert_true(json_real_value(v) == 2.5);
    json_decref(v);
    v = parse(S("4:true!"));
    assert_true(json_is_true(v));
    json_decref(v);
    v = parse(S("5:false!"));
    assert_true(json_is_false(v));
    json_decref(v);
    v = parse(S("0:~"));
    assert_true(json_is_null(v));
    json_decref(v);
    v = parse(S("0:}"));
    assert_true(json_is_object(v) && json_object_size(v) == 0);
    json_decref(v);
    v = parse(S("0:]"));
    assert_true(json_is_array(v) && json_array_size(v) == 0);
    json_decref(v);
}

static void reads_what_a_publisher_sends(void **state)
{
    /* As pypubcontrol sends it to a PULL socket. */
    json_t *v = parse(S("125:7:formats,86:11:http-stream,67:15:content-filters,0:]7:content,"
                        "31:event: message\ndata: {\"n\": 0}\n\n,}}7:channel,11:events-test,}"));
    json_t *stream = json_object_get(json_object_get(v, "formats"), "http-stream");

    (void)state;
    assert_string_equal(json_string_value(json_object_get(v, "channel")), "events-test");
    assert_int_equal(json_array_size(json_object_get(stream, "content-filters")), 0);
    assert_string_equal(json_string_value(json_object_get(stream, "content")),
                        "event: message\ndata: {\"n\": 0}\n\n");
    json_decref(v);
}

static void reads_nested_values_in_order(void **state)
{
    json_t *v = parse(S("35:1:1#0:~3:0:]]4:1:x,]11:1:k,4:true!}]"));

    (void)state;
    assert_int_equal(json_array_size(v), 5);
    assert_int_equal(json_integer_value(json_array_get(v, 0)), 1);
    assert_true(json_is_null(json_array_get(v, 1)));
    assert_true(json_is_array(json_array_get(json_array_get(v, 2), 0)));
    assert_string_equal(json_string_value(json_array_get(json_array_get(v, 3), 0)), "x");
    assert_true(json_is_true(json_object_get(json_array_get(v, 4), "k")));
    json_decref(v);
    /* A key that comes twice: the last one counts, as in JSON. */
    v = parse(S("16:1:k,1:a,1:k,1:b,}"));
    assert_int_equal(json_object_size(v), 1);
    assert_string_equal(json_string_value(json_object_get(v, "k")), "b");
    json_decref(v);
}

static void refuses_broken_input(void **state)
{
    static const es_str_t cases[] = {
        S(""),       S("5"),        S("5:"),      S("5:hello"),     S("6:hello,"),
        S(":,"),     S("-1:,"),     S("a:,"),     S("1x:a,"),       S("1234567890:a,"),
        S("1:a?"),   S("1:a"),      S("0:#"),     S("1:a#"),        S("1:1\0#"),
        S("0:^"),    S("1:a^"),     S("3:nan^"),  S("3:inf^"),      S("5:1e999^"),
        S("2:0x^"),  S("4:0x1p^"),  S("3:yes!"),  S("0:!"),         S("1:x~"),
        S("1:a,x"),  S("1:a,1:b,"), S("4:1:a,}"), S("8:1:1#1:b,}"), S("9:2:a\0,1:b,}"),
        S("3:1:a]"), S("5:1:a,x]"), S(" 1:a,"),   S("4:1:a,}0:~"),  S("19:1234567890123456789#"),
        S("3: 42#"), S("4: 4.2^"),  S("4:TRUE!"), S("\0"),
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        json_t *v = NULL;
        es_detail_t d;
        es_err_t err = es_tnetstring_parse(cases[i], &v, &d);
        if (err != ES_EINVAL) {
            print_error("case %zu: %s\n", i, cases[i].p);
        }
        assert_err(err, ES_EINVAL, &d);
        assert_starts(d.text, "tnetstring is broken at byte ");
        assert_null(v);
    }
}

static void tells_where_it_breaks(void **state)
{
    json_t *v = NULL;
    es_detail_t d;

    (void)state;
    es_tnetstring_parse(S("11:1:a,4:1:x#]}"), &v, &d);
    assert_string_equal(d.text, "tnetstring is broken at byte 11: an integer of at most 18 digits "
                                "was expected");
    es_tnetstring_parse(S("1:a,1:b,"), &v, &d);
    assert_string_equal(d.text, "tnetstring is broken at byte 4: there is more after the value");
    es_tnetstring_parse(S("7:1:a,1:b}"), &v, &d);
    assert_string_equal(d.text, "tnetstring is broken at byte 6: the length goes past the end");
    es_tnetstring_parse(S("8:1:a,1:b?}"), &v, &d);
    assert_string_equal(d.text,
                        "tnetstring is broken at byte 9: unknown type, accepted are , # ^ ! ~ } ]");
    es_tnetstring_parse(S("8:1:a#1:b,}"), &v, &d);
    assert_string_equal(d.text,
                        "tnetstring is broken at byte 4: a map's key must be a string without NUL");
}

/* A list in a list in a list ... */
static char *nested(int depth, size_t *ret_n)
{
    char *text = es_repeat('\0', 16);
    int i;

    snprintf(text, 16, "0:]");
    for (i = 1; i < depth; i++) {
        size_t size = strlen(text) + 16;
        char *outer = malloc(size);
        assert_non_null(outer);
        snprintf(outer, size, "%zu:%s]", strlen(text), text);
        free(text);
        text = outer;
    }
    *ret_n = strlen(text);
    return text;
}

static void has_a_cap_on_depth(void **state)
{
    json_t *v = NULL;
    es_detail_t d;
    es_str_t in;
    char *text = nested(ES_MAX_TNET_DEPTH, &in.n);

    (void)state;
    in.p = text;
    assert_err(es_tnetstring_parse(in, &v, &d), ES_OK, &d);
    json_decref(v);
    v = NULL;
    free(text);
    text = nested(ES_MAX_TNET_DEPTH + 1, &in.n);
    in.p = text;
    assert_err(es_tnetstring_parse(in, &v, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "tnetstring is nested over 32 deep");
    assert_null(v);
    free(text);
}

static void has_a_cap_on_values(void **state)
{
    size_t count = ES_MAX_TNET_VALUES; /* with the list itself one too many */
    char *text = malloc(count * 3 + 16);
    json_t *v = NULL;
    es_detail_t d;
    es_str_t in;
    size_t i, n;

    (void)state;
    assert_non_null(text);
    for (; count >= ES_MAX_TNET_VALUES - 1; count--) {
        n = (size_t)snprintf(text, 16, "%zu:", count * 3);
        for (i = 0; i < count; i++) {
            memcpy(text + n, "0:~", 3);
            n += 3;
        }
        text[n] = ']';
        in.p = text;
        in.n = n + 1;
        if (count == ES_MAX_TNET_VALUES) {
            assert_err(es_tnetstring_parse(in, &v, &d), ES_ETOOBIG, &d);
            assert_string_equal(d.text, "tnetstring holds over 16384 values");
        }
        else {
            assert_err(es_tnetstring_parse(in, &v, &d), ES_OK, &d);
            assert_int_equal(json_array_size(v), count);
            json_decref(v);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type),
        cmocka_unit_test(reads_what_a_publisher_sends),
        cmocka_unit_test(reads_nested_values_in_order),
        cmocka_unit_test(refuses_broken_input),
        cmocka_unit_test(tells_where_it_breaks),
        cmocka_unit_test(has_a_cap_on_depth),
        cmocka_unit_test(has_a_cap_on_values),
    };
    return cmocka_run_group_tests_name("tnetstring", tests, NULL, NULL);
}
