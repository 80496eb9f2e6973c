/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/render.c: build-id and var-subst, on what django-eventstream sends and on what
 * no filter expects. */
#include "es_test.h"
#include "grip_int.h"

static bool no_channel(void *ctx, es_str_t name)
{
    (void)ctx;
    (void)name;
    return false;
}

/* The stream is on "events-test" (id 3), "events-a%20b/c%25d" (id 2), "p-events-x" (id 9), "new".
 */
static const char *channel_id(void *ctx, es_str_t name)
{
    static const struct {
        const char *name;
        const char *id;
    } held[] = { { "events-test", "3" },
                 { "events-a%20b/c%25d", "2" },
                 { "p-events-x", "9" },
                 { "new", NULL } };
    size_t i;

    (void)ctx;
    for (i = 0; i < ES_COUNT(held); i++) {
        if (es_str_is(name, held[i].name)) {
            return held[i].id;
        }
    }
    for (i = 0; i < ES_COUNT(held); i++) {
        if (es_filter_name_fits(es_str(held[i].name), name)) {
            return held[i].id;
        }
    }
    return NULL;
}

/* Renders and compares; `name` NULL: no subscription meta but `user`. */
static void check(es_filter_t filter, const char *name, const char *value, es_str_t content,
                  es_str_t want)
{
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_buf_t out;
    es_detail_t d;

    assert_int_equal(es_pairs_add(&sub, S("user"), S("al 100%")), ES_OK);
    if (name != NULL) {
        assert_int_equal(es_pairs_add(&sub, es_str(name), es_str(value)), ES_OK);
    }
    es_buf_init(&out, 10000);
    assert_int_equal(es_buf_add(&out, ">", 1), ES_OK);
    assert_err(es_filter_render(filter, &view, content, &out, &d), ES_OK, &d);
    es_check_bytes(out.p + 1, out.n - 1, want, __FILE__, __LINE__);
    assert_int_equal(out.p[0], '>');
    es_buf_free(&out);
    es_pairs_free(&sub);
}

static void check_id(const char *format, es_str_t content, es_str_t want)
{
    check(ES_FILTER_BUILD_ID, "id_format", format, content, want);
}

static void builds_the_ids_of_django(void **state)
{
    (void)state;
    check_id("test:%(events-test)s", S("event: upd\nid: %I\ndata: \"50%% done\\n2nd\"\n\n"),
             S("event: upd\nid: test:3\ndata: \"50% done\\n2nd\"\n\n"));
    check_id("one:%(events-test)s,a%%20b/c%%25d:%(events-a%20b/c%25d)s", S("id: %I\n"),
             S("id: one:3,a%20b/c%25d:2\n"));
    /* An id that nobody escaped: what is no directive stays as it is. */
    check_id("x", S("id: one:1,a%20b/c%25d:2\ndata: line2 50%%%%\n\n"),
             S("id: one:1,a%20b/c%25d:2\ndata: line2 50%%\n\n"));
    /* id_format names a channel without the prefix that it has. */
    check_id("x:%(events-x)s", S("%I"), S("x:9"));
}

static void renders_the_id_as_often_as_asked(void **state)
{
    (void)state;
    check_id("%(events-test)s", S("%I%I-%I"), S("33-3"));
    check_id("", S("[%I]"), S("[]"));
    check_id("t", S("no directive"), S("no directive"));
    check_id("t", S(""), S(""));
}

static void takes_a_given_text_as_id(void **state)
{
    (void)state;
    check_id("t", S("%(a b)I|%(x\\)\\\\y)I|%()I"), S("a b|x)\\y|"));
}

static void an_id_that_cannot_be_built_is_empty(void **state)
{
    (void)state;
    check_id("a:%(events-test)s,b:%(new)s", S("id: %I\n"), S("id: \n"));
    check_id("%(unheard-of)s", S("id: %I%I\n%(t)I"), S("id: \nt"));
}

static void copies_what_it_does_not_know(void **state)
{
    (void)state;
    check_id("t", S("100%"), S("100%"));
    check_id("t", S("%"), S("%"));
    check_id("t", S("%(open"), S("%(open"));
    check_id("t", S("%(open\\"), S("%(open\\"));
    check_id("t", S("%(closed)"), S("%(closed)"));
    check_id("t", S("%(x)s %d %(y)%"), S("%(x)s %d %(y)%"));
    check_id("t", S("%2%I"), S("%2t"));
    check_id("t", S("%\0\xff%I"), S("%\0\xfft"));
    check_id("50% %d %(x)q %(y", S("%I"), S("50% %d %(x)q %(y"));
}

static void a_percent_that_is_none_hides_nothing(void **state)
{
    (void)state;
    /* "% " is a directive that nobody knows; the one after it still counts. */
    check_id("t", S("50% %I"), S("50% t"));
    check_id("t", S("%%I %%%I"), S("%I %t"));
    check_id("t", S("%(a%I"), S("%(at"));
}

static void hostile_content_takes_no_longer(void **state)
{
    /* Each of these made a careless parser read on to the end from every "%(". */
    static const char *const tails[] = { "", ")", "\\)x", "\\" };
    size_t n = 1000000;
    char *content = es_repeat('\0', n + 8);
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_str_t s = { content, 0 };
    size_t i;

    (void)state;
    for (i = 0; i < n; i += 2) {
        memcpy(content + i, "%(", 2);
    }
    for (i = 0; i < ES_COUNT(tails); i++) {
        es_buf_t out;
        es_detail_t d;
        es_buf_init(&out, 2 * n);
        s.n = n + (size_t)snprintf(content + n, 8, "%s", tails[i]);
        assert_err(es_filter_render(ES_FILTER_VAR_SUBST, &view, s, &out, &d), ES_OK, &d);
        es_check_bytes(out.p, out.n, s, __FILE__, __LINE__);
        es_buf_free(&out);
    }
    free(content);
}

static void writes_hexadecimal(void **state)
{
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_buf_t out;
    es_detail_t d;

    (void)state;
    es_buf_init(&out, 100);
    es_pairs_add(&sub, S("id_format"), S("t:%(events-test)s\xff"));
    es_pairs_add(&sub, S("id_encoding"), S("hex"));
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("%I %(AZ)I %%"), &out, &d), ES_OK, &d);
    assert_bytes(out.p, out.n, "743a33ff 415a %");
    es_buf_free(&out);
    es_pairs_free(&sub);
    es_pairs_add(&sub, S("id_format"), S("t"));
    es_pairs_add(&sub, S("id_encoding"), S("base64"));
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("x"), &out, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "unsupported encoding: 'base64', accepted is hex");
    es_pairs_free(&sub);
    check(ES_FILTER_BUILD_ID, "id_format", "t", S("%I"), S("t"));
}

static void needs_an_id_format(void **state)
{
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_buf_t out;
    es_detail_t d;

    (void)state;
    es_buf_init(&out, 100);
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("x"), &out, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "no sub meta 'id_format'");
    view.sub_meta = NULL;
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("x"), &out, NULL), ES_EINVAL, NULL);
    assert_int_equal(out.n, 0);
    es_buf_free(&out);
}

static void substitutes_variables(void **state)
{
    (void)state;
    check(ES_FILTER_VAR_SUBST, "a", "1", S("hi %(user)s, %(a)s%(a)s %%"), S("hi al 100%, 11 %"));
    check(ES_FILTER_VAR_SUBST, "b)", "2", S("%(b\\))s"), S("2"));
    check(ES_FILTER_VAR_SUBST, NULL, NULL, S("%(nobody)s %I %(user)d %s %()s 5%"),
          S("%(nobody)s %I %(user)d %s %()s 5%"));
    check(ES_FILTER_VAR_SUBST, NULL, NULL, S("%(us\0er)s"), S("%(us\0er)s"));
}

static void other_filters_copy(void **state)
{
    (void)state;
    check(ES_FILTER_NONE, NULL, NULL, S("%% %I"), S("%% %I"));
    check(ES_FILTER_SKIP_SELF, NULL, NULL, S("%%"), S("%%"));
}

static void has_a_cap_on_the_id(void **state)
{
    char *format = es_repeat('x', ES_MAX_ID + 1);
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_buf_t out;
    es_detail_t d;

    (void)state;
    es_buf_init(&out, 100000);
    es_pairs_add(&sub, S("id_format"), es_str(format));
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("abc %I"), &out, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "the id that sub meta 'id_format' makes is over 4096 bytes");
    assert_int_equal(out.n, 0);
    /* Never built when it is not asked for. */
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("abc"), &out, &d), ES_OK, &d);
    es_buf_free(&out);
    es_pairs_free(&sub);
    format[ES_MAX_ID] = '\0';
    es_pairs_add(&sub, S("id_format"), es_str(format));
    assert_err(es_filter_render(ES_FILTER_BUILD_ID, &view, S("%I"), &out, &d), ES_OK, &d);
    assert_int_equal(out.n, ES_MAX_ID);
    es_buf_free(&out);
    es_pairs_free(&sub);
    free(format);
}

static void a_full_buffer_is_left_as_it_was(void **state)
{
    es_pairs_t sub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .has_channel = no_channel,
                              .channel_id = channel_id };
    es_buf_t out;
    es_detail_t d;

    (void)state;
    es_buf_init(&out, 5);
    es_buf_add(&out, "ab", 2);
    es_pairs_add(&sub, S("v"), S("1234"));
    assert_err(es_filter_render(ES_FILTER_VAR_SUBST, &view, S("x%(v)s"), &out, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "var-subst: the result is too long");
    assert_bytes(out.p, out.n, "ab");
    assert_err(es_filter_render(ES_FILTER_VAR_SUBST, &view, S("x%%y"), &out, &d), ES_OK, &d);
    assert_bytes(out.p, out.n, "abx%y");
    es_buf_free(&out);
    es_pairs_free(&sub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builds_the_ids_of_django),
        cmocka_unit_test(renders_the_id_as_often_as_asked),
        cmocka_unit_test(takes_a_given_text_as_id),
        cmocka_unit_test(an_id_that_cannot_be_built_is_empty),
        cmocka_unit_test(copies_what_it_does_not_know),
        cmocka_unit_test(a_percent_that_is_none_hides_nothing),
        cmocka_unit_test(hostile_content_takes_no_longer),
        cmocka_unit_test(writes_hexadecimal),
        cmocka_unit_test(needs_an_id_format),
        cmocka_unit_test(substitutes_variables),
        cmocka_unit_test(other_filters_copy),
        cmocka_unit_test(has_a_cap_on_the_id),
        cmocka_unit_test(a_full_buffer_is_left_as_it_was),
    };
    return cmocka_run_group_tests_name("render", tests, NULL, NULL);
}
