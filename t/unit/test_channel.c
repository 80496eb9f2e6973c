/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/hub/channel.c and src/hub/frame.c: the log, who is behind it, and when it is
 * emptied. */
#include "es_test.h"
#include "hub_int.h"

/* ---- frames ---- */

static void a_frame_is_a_chunk_around_its_content(void **state)
{
    es_frame_t *f = es_frame_make(S("hello\0there"));
    es_str_t b;

    (void)state;
    b = es_frame_bytes(f, false);
    assert_bytes(b.p, b.n, "hello\0there");
    b = es_frame_bytes(f, true);
    assert_bytes(b.p, b.n, "b\r\nhello\0there\r\n");
    b = es_frame_content(f);
    assert_bytes(b.p, b.n, "hello\0there");
    assert_true(es_frame_cost(f) > 11);
    es_frame_unref(f);
}

static void empty_content_is_no_chunk(void **state)
{
    es_frame_t *f = es_frame_make((es_str_t) { NULL, 0 });

    (void)state;
    assert_non_null(f);
    assert_int_equal(es_frame_bytes(f, true).n, 0);
    assert_int_equal(es_frame_bytes(f, false).n, 0);
    assert_true(es_frame_cost(f) > 0);
    es_frame_unref(f);
}

static void chunk_sizes_are_hexadecimal(void **state)
{
    static const size_t sizes[] = { 1, 9, 10, 15, 16, 255, 256, 4095, 65535, 65536, 1048577 };
    char head[16];
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(sizes); i++) {
        char *content = es_repeat('z', sizes[i]);
        es_frame_t *f = es_frame_make((es_str_t) { content, sizes[i] });
        const es_str_t b = es_frame_bytes(f, true);
        const size_t n = (size_t)snprintf(head, sizeof head, "%zx\r\n", sizes[i]);

        assert_int_equal(b.n, n + sizes[i] + 2);
        assert_memory_equal(b.p, head, n);
        assert_memory_equal(b.p + n, content, sizes[i]);
        assert_memory_equal(b.p + n + sizes[i], "\r\n", 2);
        es_frame_unref(f);
        free(content);
    }
}

static void the_terminator_is_never_freed(void **state)
{
    es_frame_t *t = es_frame_terminator();
    es_str_t b = es_frame_bytes(t, true);

    (void)state;
    assert_bytes(b.p, b.n, "0\r\n\r\n");
    b = es_frame_bytes(t, false);
    assert_int_equal(b.n, 0);
    es_frame_unref(t);
    es_frame_unref(t);
    assert_ptr_equal(es_frame_terminator(), t);
    es_frame_unref(NULL);
}

static es_frame_t *frame_of(const char *packet)
{
    es_item_t *item = NULL;
    es_detail_t detail;

    assert_err(es_item_from_packet(packet, strlen(packet), &item, &detail), ES_OK, &detail);
    return es_frame_from_item(item);
}

static void the_mask_says_which_filters_matter(void **state)
{
    static const struct {
        const char *packet;
        es_mask_t mask;
    } cases[] = {
        { "J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"content\":\"x\"}}}", 0 },
        { "J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"content\":\"x\"}},"
          "\"meta\":{\"other\":\"1\"}}",
          0 },
        { "J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"content\":\"x\"}},"
          "\"meta\":{\"sender\":\"1\"}}",
          ES_MASK(ES_FILTER_SKIP_SELF) },
        { "J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"content\":\"x\"}},"
          "\"meta\":{\"skip_users\":\"1\",\"require_sub\":\"b\"}}",
          ES_MASK(ES_FILTER_SKIP_USERS) | ES_MASK(ES_FILTER_REQUIRE_SUB) },
        { "J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"content\":\"x\","
          "\"content-filters\":[\"build-id\"]}}}",
          ES_MASK_ASSERT },
    };
    const es_mask_t content = ES_MASK(ES_FILTER_BUILD_ID) | ES_MASK(ES_FILTER_VAR_SUBST);
    es_frame_t *f;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        f = frame_of(cases[i].packet);
        assert_int_equal(f->mask, cases[i].mask | content);
        assert_int_equal(f->action, ES_ACTION_SEND);
        assert_int_equal(f->len, 1);
        assert_null(f->item->stream.content);
        es_frame_unref(f);
    }
    f = frame_of("J{\"channel\":\"a\",\"formats\":{\"http-stream\":{\"action\":\"close\"}}}");
    assert_int_equal(f->mask, 0);
    assert_int_equal(f->action, ES_ACTION_CLOSE);
    assert_int_equal(f->len, 0);
    es_frame_unref(f);
}

/* ---- the log ---- */

static void append(es_channel_t *c, size_t size, uint64_t order, size_t max)
{
    char *content = es_repeat('x', size);

    assert_int_equal(es_channel_append(c, es_frame_make((es_str_t) { content, size }), order, max),
                     ES_OK);
    free(content);
}

static size_t cost_of_held(const es_channel_t *c)
{
    size_t sum = 0;
    uint64_t i;

    for (i = c->tail; i < c->head; i++) {
        sum += es_frame_cost(es_channel_at(c, i)->frame);
    }
    return sum;
}

static void the_log_keeps_order_while_it_grows(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    uint64_t i;

    (void)state;
    for (i = 0; i < 1000; i++) {
        append(c, i, 5000 + i, SIZE_MAX / 2);
    }
    assert_int_equal(c->tail, 0);
    assert_int_equal(c->head, 1000);
    for (i = 0; i < 1000; i++) {
        assert_int_equal(es_channel_at(c, i)->order, 5000 + i);
        assert_int_equal(es_channel_at(c, i)->frame->len, i);
    }
    assert_int_equal(c->bytes, cost_of_held(c));
    es_channel_free(c);
}

static void the_oldest_go_at_the_limit(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    uint64_t i;

    (void)state;
    for (i = 0; i < 10000; i++) {
        append(c, i % 700, i, 20000);
        assert_true(c->bytes <= 20000);
        assert_int_equal(c->bytes, cost_of_held(c));
        assert_int_equal(es_channel_at(c, c->tail)->order, c->tail);
        assert_int_equal(es_channel_at(c, c->head - 1)->order, i);
    }
    assert_true(c->tail > 9000);
    assert_true(c->ring_cap <= 128);
    es_channel_free(c);
}

static void the_newest_is_kept_whatever_its_size(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);

    (void)state;
    append(c, 10, 1, 1000);
    append(c, 100000, 2, 1000);
    assert_int_equal(c->tail, 1);
    assert_int_equal(c->head, 2);
    append(c, 10, 3, 1000);
    assert_int_equal(c->tail, 2);
    assert_int_equal(c->bytes, cost_of_held(c));
    es_channel_free(c);
}

/* ---- subscriptions ---- */

static void a_subscription_starts_at_the_head(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    es_sub_t subs[40];
    size_t i;

    (void)state;
    memset(subs, 0, sizeof subs);
    append(c, 1, 1, 1000);
    for (i = 0; i < ES_COUNT(subs); i++) {
        subs[i].channel = c;
        subs[i].index = ES_SUB_OFF;
        assert_int_equal(es_channel_join(c, &subs[i]), ES_OK);
        assert_int_equal(subs[i].cursor, 1);
        assert_int_equal(subs[i].index, i);
    }
    /* Leaving from any place keeps the others and their places right. */
    for (i = 0; i < ES_COUNT(subs); i += 3) {
        es_channel_leave(&subs[i]);
        es_channel_leave(&subs[i]);
        assert_int_equal(subs[i].index, ES_SUB_OFF);
    }
    assert_int_equal(c->sub_count, 26);
    for (i = 0; i < c->sub_count; i++) {
        assert_int_equal(c->subs[i]->index, i);
    }
    for (i = 0; i < ES_COUNT(subs); i++) {
        es_channel_leave(&subs[i]);
    }
    assert_int_equal(c->sub_count, 0);
    es_channel_free(c);
}

static void the_log_is_emptied_when_nobody_is_behind(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    es_sub_t quick = { .channel = c, .index = ES_SUB_OFF };
    es_sub_t slow = { .channel = c, .index = ES_SUB_OFF };
    int i;

    (void)state;
    assert_int_equal(es_channel_join(c, &quick), ES_OK);
    assert_int_equal(es_channel_join(c, &slow), ES_OK);
    for (i = 0; i < 100; i++) {
        append(c, 100, (uint64_t)i, 1000000);
    }
    c->dirty = true;
    quick.cursor = c->head;
    slow.cursor = 50;
    es_channel_settle(&quick);
    es_channel_settle(&slow);
    es_channel_settle(&slow); /* counts once */
    assert_int_equal(c->behind, 1);
    es_channel_rest(c);
    assert_false(c->dirty);
    assert_int_equal(c->fresh, 0);
    assert_int_equal(c->head - c->tail, 100); /* the slow one needs it */
    slow.cursor = c->head;
    es_channel_settle(&slow);
    assert_int_equal(c->behind, 0);
    assert_int_equal(c->bytes, 0);
    assert_int_equal(c->tail, c->head);
    assert_int_equal(c->ring_cap, 0);
    /* It can be used again, and positions go on. */
    append(c, 3, 100, 1000);
    assert_int_equal(c->head, 101);
    assert_int_equal(es_channel_at(c, 100)->order, 100);
    es_channel_leave(&quick);
    es_channel_leave(&slow);
    es_channel_free(c);
}

static void a_dirty_log_is_not_emptied_before_its_pass_is_over(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    es_sub_t first = { .channel = c, .index = ES_SUB_OFF };
    es_sub_t second = { .channel = c, .index = ES_SUB_OFF };
    es_sub_t leaver = { .channel = c, .index = ES_SUB_OFF };

    (void)state;
    assert_int_equal(es_channel_join(c, &first), ES_OK);
    assert_int_equal(es_channel_join(c, &second), ES_OK);
    assert_int_equal(es_channel_join(c, &leaver), ES_OK);
    append(c, 5, 1, 1000);
    c->dirty = true;
    first.cursor = c->head;
    es_channel_settle(&first); /* the second has not been served yet */
    assert_int_equal(c->head - c->tail, 1);
    es_channel_leave(&leaver);
    assert_int_equal(c->head - c->tail, 1);
    second.cursor = c->head;
    es_channel_settle(&second);
    es_channel_rest(c);
    assert_int_equal(c->bytes, 0);
    es_channel_leave(&first);
    es_channel_leave(&second);
    es_channel_free(c);
}

static void the_last_that_is_behind_empties_the_log_by_leaving(void **state)
{
    es_channel_t *c = es_channel_make(S("a"), NULL);
    es_sub_t quick = { .channel = c, .index = ES_SUB_OFF };
    es_sub_t slow = { .channel = c, .index = ES_SUB_OFF };

    (void)state;
    assert_int_equal(es_channel_join(c, &quick), ES_OK);
    assert_int_equal(es_channel_join(c, &slow), ES_OK);
    append(c, 5, 1, 1000);
    quick.cursor = c->head;
    es_channel_settle(&slow);
    es_channel_settle(&quick);
    assert_int_equal(c->behind, 1);
    es_channel_leave(&slow);
    assert_int_equal(c->behind, 0);
    assert_int_equal(c->bytes, 0);
    es_channel_leave(&quick);
    es_channel_free(c);
    es_channel_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_a_chunk_around_its_content),
        cmocka_unit_test(empty_content_is_no_chunk),
        cmocka_unit_test(chunk_sizes_are_hexadecimal),
        cmocka_unit_test(the_terminator_is_never_freed),
        cmocka_unit_test(the_mask_says_which_filters_matter),
        cmocka_unit_test(the_log_keeps_order_while_it_grows),
        cmocka_unit_test(the_oldest_go_at_the_limit),
        cmocka_unit_test(the_newest_is_kept_whatever_its_size),
        cmocka_unit_test(a_subscription_starts_at_the_head),
        cmocka_unit_test(the_log_is_emptied_when_nobody_is_behind),
        cmocka_unit_test(a_dirty_log_is_not_emptied_before_its_pass_is_over),
        cmocka_unit_test(the_last_that_is_behind_empties_the_log_by_leaving),
    };
    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
