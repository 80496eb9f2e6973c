/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/base.c: error details, strings, the growable buffer, the log call. */
#include "es_test.h"

static void names_every_code(void **state)
{
    int i, j;

    (void)state;
    for (i = ES_OK; i <= ES_EFULL; i++) {
        assert_true(strlen(es_err_name((es_err_t)i)) > 0);
        assert_string_not_equal(es_err_name((es_err_t)i), "unknown error");
        for (j = ES_OK; j < i; j++) {
            assert_string_not_equal(es_err_name((es_err_t)i), es_err_name((es_err_t)j));
        }
    }
    assert_string_equal(es_err_name((es_err_t)99), "unknown error");
}

static void detail_replaces_control_bytes(void **state)
{
    es_detail_t detail;

    (void)state;
    assert_int_equal(es_fail(&detail, ES_EINVAL, "a\r\nb\x1b[0m\x7f %d", 7), ES_EINVAL);
    assert_string_equal(detail.text, "a??b?[0m? 7");
    assert_int_equal(es_fail(NULL, ES_EIO, "nobody listens"), ES_EIO);
}

static void detail_may_quote_itself(void **state)
{
    es_detail_t detail;

    (void)state;
    es_fail(&detail, ES_EINVAL, "inner");
    es_fail(&detail, ES_EINVAL, "outer: %s", detail.text);
    assert_string_equal(detail.text, "outer: inner");
}

static void detail_is_cut_between_characters(void **state)
{
    es_detail_t detail;
    char *pad;
    size_t n;

    (void)state;
    /* A two-, a three- and a four-byte character over the edge, at every offset. */
    for (n = 250; n <= 255; n++) {
        pad = es_repeat('x', n);
        es_fail(&detail, ES_EINVAL, "%s\xc3\xb6yyyyyyyy", pad);
        assert_int_equal(strlen(detail.text), n == 254 ? 254 : 255);
        es_fail(&detail, ES_EINVAL, "%s\xe2\x82\xacyyyyyyyy", pad);
        assert_int_equal(strlen(detail.text), n > 252 && n < 255 ? n : 255);
        es_fail(&detail, ES_EINVAL, "%s\xf0\x9f\x98\x80yyyyyyyy", pad);
        assert_int_equal(strlen(detail.text), n > 251 && n < 255 ? n : 255);
        free(pad);
    }
    /* Bytes that are no UTF-8 at all stay. */
    pad = es_repeat('\x80', 300);
    es_fail(&detail, ES_EINVAL, "%s", pad);
    assert_int_equal(strlen(detail.text), 255);
    free(pad);
}

static void compares_strings(void **state)
{
    (void)state;
    assert_int_equal(es_str(NULL).n, 0);
    assert_true(es_str_is(es_str(NULL), ""));
    assert_true(es_str_is(S("abc"), "abc"));
    assert_false(es_str_is(S("abc"), "ab"));
    assert_false(es_str_is(S("ab\0"), "ab"));
    assert_true(es_str_is_nocase(S("Grip-Hold"), "gRIP-hOLD"));
    assert_false(es_str_is_nocase(S("Grip-Hold"), "Grip-Holt"));
    assert_false(es_str_is_nocase(S("["), "{")); /* 0x20 apart, but no letters */
    assert_true(es_str_is_nocase(es_str(NULL), ""));
}

static void trims_blanks_and_tabs_only(void **state)
{
    es_str_t s;

    (void)state;
    s = es_str_trim(S(" \t a b \t"));
    assert_bytes(s.p, s.n, "a b");
    s = es_str_trim(S("\n a\n"));
    assert_bytes(s.p, s.n, "\n a\n");
    assert_int_equal(es_str_trim(S(" \t ")).n, 0);
    assert_int_equal(es_str_trim(es_str(NULL)).n, 0);
}

static void reads_integers(void **state)
{
    static const char *const bad[] = { "",   "+",   "-",   "1 ", " 1",  "0x1",
                                       "1a", "--1", "1.0", "٣",  "1e3", "1234567890123456789",
                                       "+-1" };
    int64_t v = 42;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(bad); i++) {
        assert_false(es_str_to_int(es_str(bad[i]), &v));
        assert_int_equal(v, 42);
    }
    assert_true(es_str_to_int(S("0"), &v) && v == 0);
    assert_true(es_str_to_int(S("-0"), &v) && v == 0);
    assert_true(es_str_to_int(S("+55"), &v) && v == 55);
    assert_true(es_str_to_int(S("-17"), &v) && v == -17);
    assert_true(es_str_to_int(S("007"), &v) && v == 7);
    assert_true(es_str_to_int(S("999999999999999999"), &v) && v == INT64_C(999999999999999999));
}

static void copies_memory_with_a_nul(void **state)
{
    char *p = es_memdup("a\0b", 3);

    (void)state;
    assert_memory_equal(p, "a\0b\0", 4);
    free(p);
    p = es_memdup(NULL, 0);
    assert_string_equal(p, "");
    free(p);
    assert_null(es_memdup("x", SIZE_MAX));
}

static void buffer_grows_to_its_maximum(void **state)
{
    es_buf_t b;
    size_t i;

    (void)state;
    es_buf_init(&b, 1000);
    for (i = 0; i < 1000; i++) {
        assert_int_equal(es_buf_add(&b, "x", 1), ES_OK);
        assert_int_equal(b.p[b.n], '\0');
    }
    assert_int_equal(b.n, 1000);
    assert_int_equal(es_buf_add(&b, "y", 1), ES_ETOOBIG);
    assert_int_equal(es_buf_addf(&b, "%d", 1), ES_ETOOBIG);
    assert_int_equal(es_buf_add(&b, NULL, 0), ES_OK);
    assert_int_equal(b.n, 1000);
    assert_int_equal(b.p[999], 'x');
    es_buf_free(&b);
    assert_int_equal(b.max, 1000);
    assert_int_equal(es_buf_add(&b, "0123456789", 10), ES_OK);
    es_buf_free(&b);
}

static void buffer_refuses_lengths_that_overflow(void **state)
{
    es_buf_t b;

    (void)state;
    es_buf_init(&b, SIZE_MAX);
    assert_int_equal(es_buf_add(&b, "x", 1), ES_OK);
    assert_int_equal(es_buf_add(&b, "x", SIZE_MAX), ES_ETOOBIG);
    assert_int_equal(b.n, 1);
    es_buf_free(&b);
    es_buf_init(&b, 0);
    assert_int_equal(es_buf_add(&b, "x", 1), ES_ETOOBIG);
    assert_int_equal(es_buf_add(&b, "", 0), ES_OK);
    es_buf_free(&b);
}

static void buffer_formats(void **state)
{
    es_buf_t b;
    char *big = es_repeat('z', 500);

    (void)state;
    es_buf_init(&b, 600);
    assert_int_equal(es_buf_addf(&b, "%s-%d", "a", 5), ES_OK);
    assert_int_equal(es_buf_addf(&b, "%s", big), ES_OK);
    assert_int_equal(b.n, 503);
    assert_memory_equal(b.p, "a-5zzz", 6);
    assert_int_equal(es_buf_addf(&b, "%s", big), ES_ETOOBIG);
    assert_int_equal(b.n, 503);
    assert_int_equal(b.p[503], '\0');
    es_buf_free(&b);
    free(big);
}

static void buffer_can_be_stolen(void **state)
{
    es_buf_t b;
    size_t n = 99;
    char *p;

    (void)state;
    es_buf_init(&b, 10);
    p = es_buf_steal(&b, &n);
    assert_bytes(p, n, "");
    free(p);
    es_buf_add(&b, "0123456789", 10);
    p = es_buf_steal(&b, &n);
    assert_bytes(p, n, "0123456789");
    assert_int_equal(p[10], '\0');
    assert_null(b.p);
    assert_int_equal(b.n, 0);
    free(p);
    assert_int_equal(es_buf_add(&b, "a", 1), ES_OK);
    p = es_buf_steal(&b, NULL);
    assert_string_equal(p, "a");
    free(p);
}

typedef struct es_seen {
    int level;
    char id[16];
    char text[64];
} es_seen_t;

static void remember(void *ctx, int level, const char *id, const char *fmt, va_list args)
    __attribute__((format(printf, 4, 0)));

static void remember(void *ctx, int level, const char *id, const char *fmt, va_list args)
{
    es_seen_t *seen = ctx;

    seen->level = level;
    snprintf(seen->id, sizeof(seen->id), "%s", id);
    vsnprintf(seen->text, sizeof(seen->text), fmt, args);
}

static void log_obeys_its_level(void **state)
{
    es_seen_t seen = { 0, "", "" };
    es_log_t log = { remember, &seen, ES_LOG_INFO };

    (void)state;
    es_log(&log, ES_LOG_DEBUG, "ES0001", "no %d", 1);
    assert_string_equal(seen.text, "");
    es_log(&log, ES_LOG_INFO, "ES0002", "yes %s", "two");
    assert_int_equal(seen.level, ES_LOG_INFO);
    assert_string_equal(seen.id, "ES0002");
    assert_string_equal(seen.text, "yes two");
    es_log(NULL, ES_LOG_ERR, "ES0003", "nobody");
    log.write = NULL;
    es_log(&log, ES_LOG_ERR, "ES0004", "nobody");
    assert_string_equal(seen.id, "ES0002");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_every_code),
        cmocka_unit_test(detail_replaces_control_bytes),
        cmocka_unit_test(detail_may_quote_itself),
        cmocka_unit_test(detail_is_cut_between_characters),
        cmocka_unit_test(compares_strings),
        cmocka_unit_test(trims_blanks_and_tabs_only),
        cmocka_unit_test(reads_integers),
        cmocka_unit_test(copies_memory_with_a_nul),
        cmocka_unit_test(buffer_grows_to_its_maximum),
        cmocka_unit_test(buffer_refuses_lengths_that_overflow),
        cmocka_unit_test(buffer_formats),
        cmocka_unit_test(buffer_can_be_stolen),
        cmocka_unit_test(log_obeys_its_level),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
