/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/sse.c. What comes out is compared with the bytes that it should be, and read by
 * a model of a browser. */
#include "es_test.h"
#include "es_source.h"
#include "grip_int.h"

static void assert_render_n(es_str_t content, const char *event, const char *id, const char *want,
                            size_t want_n, size_t events, int line)
{
    es_buf_t out;
    size_t got = 99;
    es_err_t err;

    es_buf_init(&out, 10000);
    err = es_sse_render(content, es_str(event), es_str(id), &out, &got);
    if (err != ES_OK || got != events) {
        fail_msg("line %d: %s, %zu events", line, es_err_name(err), got);
    }
    es_check_bytes(out.p == NULL ? "" : out.p, out.n, (es_str_t) { want, want_n }, __FILE__, line);
    es_buf_free(&out);
}
#define assert_render(content, event, id, want, events)                                            \
    assert_render_n(S(content), event, id, want, sizeof(want) - 1, events, __LINE__)

static void gives_its_own_id(void **state)
{
    (void)state;
    /* As django-eventstream publishes, without storage and with. */
    assert_render("event: message\ndata: {\"text\": \"w\xc3\xb6rld\"}\n\n", "", "7",
                  "event: message\nid: 7\ndata: {\"text\": \"w\xc3\xb6rld\"}\n\n", 1);
    assert_render("event: upd\nid: test:2\ndata: a\ndata: b\n\n", "", "7",
                  "event: upd\nid: 7\ndata: a\ndata: b\n\n", 1);
    assert_render("event: upd\nid: test:2\ndata: a\n\n", NULL, NULL, "event: upd\ndata: a\n\n", 1);
    /* Several: the last one. */
    assert_render("id: x\ndata: 1\n\ndata: 2\nid: y\n\nevent: e\ndata: 3\n\n", "", "7",
                  "data: 1\n\ndata: 2\n\nevent: e\nid: 7\ndata: 3\n\n", 3);
    assert_render("data: 1\n\n: bye\n\n", "", "7", "id: 7\ndata: 1\n\n: bye\n\n", 1);
    assert_render("data: 1\n\nevent: nothing\n\n", "", "7", "id: 7\ndata: 1\n\nevent: nothing\n\n",
                  1);
    /* Nothing to be dispatched: no id. */
    assert_render(": ping\n\n", "", "7", ": ping\n\n", 0);
    assert_render("retry: 500\n\n", "", "7", "retry: 500\n\n", 0);
    assert_render("id: 5\n\n", "", "7", "", 0);
}

static void mends_lines(void **state)
{
    (void)state;
    assert_render("data: a\r\ndata: b\r\n\r\n", "", "7", "id: 7\ndata: a\ndata: b\n\n", 1);
    assert_render("data: a\rdata: b\r\r", "", "7", "id: 7\ndata: a\ndata: b\n\n", 1);
    assert_render("data: a\n\r\n\r", "", "7", "id: 7\ndata: a\n\n", 1);
    assert_render("data: a", "", "7", "id: 7\ndata: a\n\n", 1);
    assert_render("data: a\n", "", "7", "id: 7\ndata: a\n\n", 1);
    assert_render("data: a\n\ndata: b", "", "7", "data: a\n\nid: 7\ndata: b\n\n", 2);
    assert_render("\n\n\ndata: a\n\n\n\n", "", "7", "id: 7\ndata: a\n\n", 1);
    assert_render("\xef\xbb\xbf"
                  "data: a\n\n",
                  "", "7", "id: 7\ndata: a\n\n", 1);
    assert_render("data:a\ndata:  b\ndata:\ndata\n\n", "", "7",
                  "id: 7\ndata: a\ndata:  b\ndata:\ndata:\n\n", 1);
    /* What nobody knows. */
    assert_render("data: <p>\nline2\n\n", "", "7", "id: 7\ndata: <p>\n\n", 1);
    assert_render("data: a\nDATA: b\nretry: x\nretry: 1234567890\nretry: -1\nretry: 5\n\n", "", "7",
                  "id: 7\ndata: a\nretry: 5\n\n", 1);
    assert_render("event: a\0b\ndata: \0\n:\0\nid: x\0y\n\n", "", "7",
                  "event: a\xef\xbf\xbd"
                  "b\nid: 7\ndata: \xef\xbf\xbd\n:\xef\xbf\xbd\n\n",
                  1);
    /* A name of its own does not count. */
    assert_render("data: a\n\n", "mine", "7", "id: 7\ndata: a\n\n", 1);
}

static void text_becomes_data(void **state)
{
    (void)state;
    assert_render("hello", "", "7", "id: 7\ndata: hello\n\n", 1);
    assert_render("hello\n", "", "7", "id: 7\ndata: hello\n\n", 1);
    assert_render("hello\r\n", "", "7", "id: 7\ndata: hello\n\n", 1);
    assert_render("hello\r", "", "7", "id: 7\ndata: hello\n\n", 1);
    assert_render("hello\n\n", "", "7", "id: 7\ndata: hello\ndata:\n\n", 1);
    assert_render("{\"a\":\n 1}", "upd", "7", "event: upd\nid: 7\ndata: {\"a\":\ndata:  1}\n\n", 1);
    assert_render("a\r\nb\rc\nd", "", "", "data: a\ndata: b\ndata: c\ndata: d\n\n", 1);
    assert_render("", "", "7", "id: 7\ndata:\n\n", 1);
    assert_render("\n", "", "7", "id: 7\ndata:\n\n", 1);
    assert_render(":-)", "", "7", "id: 7\ndata: :-)\n\n", 1);
    assert_render("id: 5 is what I meant", "", "7", "id: 7\ndata: id: 5 is what I meant\n\n", 1);
    assert_render("event", "", "7", "id: 7\ndata: event\n\n", 1);
    assert_render("data\ndata: x\n", "", "7", "id: 7\ndata: data\ndata: data: x\n\n", 1);
    assert_render("hello\n\ndata: forged\n\n", "", "7",
                  "id: 7\ndata: hello\ndata:\ndata: data: forged\ndata:\n\n", 1);
    assert_render("a\0b", "", "7",
                  "id: 7\ndata: a\xef\xbf\xbd"
                  "b\n\n",
                  1);
}

static void knows_a_stream(void **state)
{
    (void)state;
    assert_true(es_sse_is_stream(S("data: x")));
    assert_true(es_sse_is_stream(S("data:")));
    assert_true(es_sse_is_stream(S("event:x\ndata")));
    assert_true(es_sse_is_stream(S(": c\n\nid:5\r")));
    assert_true(es_sse_is_stream(S("retry: 5\n")));
    assert_true(es_sse_is_stream(S(":\n")));
    assert_false(es_sse_is_stream(S("")));
    assert_false(es_sse_is_stream(S("\n")));
    assert_false(es_sse_is_stream(S(":")));
    assert_false(es_sse_is_stream(S("event: x")));
    assert_false(es_sse_is_stream(S("data \n")));
    assert_false(es_sse_is_stream(S(" data: x\n")));
    assert_false(es_sse_is_stream(S("Data: x\n")));
    assert_false(es_sse_is_stream(S("database: x\n")));
    assert_false(es_sse_is_stream(S("{\"data\": 1}\n")));
}

static void fields_stay_whole(void **state)
{
    char *big = es_repeat('e', ES_MAX_EVENT_NAME + 1);
    es_detail_t d;
    es_buf_t out;
    size_t events = 9;

    (void)state;
    es_buf_init(&out, 1000);
    assert_int_equal(es_buf_add(&out, "before", 6), ES_OK);
    assert_int_equal(es_sse_render(S("x"), S("a\nb"), S("7"), &out, &events), ES_EINVAL);
    assert_int_equal(es_sse_render(S("x"), S("a"), S("7\r"), &out, &events), ES_EINVAL);
    assert_int_equal(es_sse_render(S("data: x"), S(""), S("7\0"), &out, &events), ES_EINVAL);
    assert_int_equal(es_sse_data(S("x"), S("a\0"), S(""), &out), ES_EINVAL);
    assert_int_equal(es_sse_data(S("x"), es_str(big), S(""), &out), ES_ETOOBIG);
    assert_bytes(out.p, out.n, "before");
    assert_int_equal(events, 9);
    es_buf_free(&out);
    assert_err(es_sse_check_event(S("upd \xc3\xb6"), &d), ES_OK, &d);
    assert_err(es_sse_check_event(S(""), &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "the event's name is empty");
    assert_err(es_sse_check_event(es_str(big), &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "the event's name is 257 bytes long, at most 256");
    assert_err(es_sse_check_event(S("a\rb"), &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "the event's name 'a?b' is not UTF-8 text without CR, LF and NUL");
    assert_err(es_sse_check_event(S("\xff"), &d), ES_EINVAL, &d);
    free(big);
}

/* At each size that is too small the buffer is as it was. */
static void full_is_all_or_nothing(void **state)
{
    static const char *const contents[] = { "data: 1\n\nevent: e\ndata: 2\n\n: c\n\n", "a\nb" };
    size_t i, max;

    (void)state;
    for (i = 0; i < ES_COUNT(contents); i++) {
        es_err_t err = ES_ETOOBIG;
        for (max = 1; err != ES_OK; max++) {
            es_buf_t out;
            assert_true(max < 100);
            es_buf_init(&out, max);
            assert_int_equal(es_buf_add(&out, "x", 1), ES_OK);
            err = es_sse_render(es_str(contents[i]), S("e"), S("12"), &out, NULL);
            if (err != ES_OK) {
                assert_int_equal(err, ES_ETOOBIG);
                assert_bytes(out.p, out.n, "x");
            }
            es_buf_free(&out);
        }
        assert_true(max > 10);
    }
}

/* A megabyte of the worst: time must not grow with its square, size not past what is promised. */
static void a_megabyte_takes_no_time(void **state)
{
    static const struct {
        const char *head;
        const char *piece;
    } shapes[] = {
        { "", "\n" },          { "", "\r" },      { "x", "\n" },       { "x", "\r" },
        { "data:\n", "\r" },   { "", "data\n" },  { "", "data:\n\n" }, { "", ":\n" },
        { "data: x\n", ":" },  { "", "id: 1\n" }, { "", "x" },         { "data: ", "x" },
        { "data:x\n", "y\n" },
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(shapes); i++) {
        size_t piece = strlen(shapes[i].piece);
        size_t n = strlen(shapes[i].head);
        char *text = malloc(ES_MAX_PUBLISH_BODY);
        es_buf_t out;
        assert_non_null(text);
        memcpy(text, shapes[i].head, n);
        while (n + piece <= ES_MAX_PUBLISH_BODY) {
            memcpy(text + n, shapes[i].piece, piece);
            n += piece;
        }
        es_buf_init(&out, (size_t)ES_SSE_GROWTH * ES_MAX_PUBLISH_BODY + 100);
        assert_int_equal(es_sse_render((es_str_t) { text, n }, S("e"), S("7"), &out, NULL), ES_OK);
        es_buf_free(&out);
        free(text);
    }
}

static void a_browser_sees_the_same(void **state)
{
    static const char content[] = "event: a\ndata: 1\ndata:  2\n\r\nid: theirs\ndata\n\n: c\n"
                                  "x\ndata: 3|;\rdata:4\r\revent: lost\n\ndata: end";
    es_str_t text = { content, sizeof(content) - 1 };
    es_str_t rendered;
    char *want = NULL;
    char *got = NULL;
    es_buf_t out;

    (void)state;
    es_buf_init(&out, 1000);
    assert_int_equal(es_sse_render(text, S(""), S("7"), &out, NULL), ES_OK);
    rendered.p = out.p;
    rendered.n = out.n;
    assert_int_equal(es_source_read(text, false, false, true, &want), 4);
    assert_int_equal(es_source_read(rendered, false, false, false, &got), 4);
    assert_string_equal(got, want);
    free(got);
    /* Only the last one moves the position. */
    assert_int_equal(es_source_read(rendered, true, false, false, &got), 4);
    assert_string_equal(got, "a||1\n 2;||;||3\\|\\;\n4;|7|end;=7");
    free(got);
    free(want);
    es_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_its_own_id),         cmocka_unit_test(mends_lines),
        cmocka_unit_test(text_becomes_data),        cmocka_unit_test(knows_a_stream),
        cmocka_unit_test(fields_stay_whole),        cmocka_unit_test(full_is_all_or_nothing),
        cmocka_unit_test(a_megabyte_takes_no_time), cmocka_unit_test(a_browser_sees_the_same),
    };
    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
