/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/item_write.c: what one hub writes of an item, the next reads back. Running out
 * of memory is in test_handover_oom.c. */
#include "es_equal.h"
#include "es_test.h"
#include "grip_int.h"

static es_item_t *item_of(es_str_t packet)
{
    es_item_t *item = NULL;
    es_detail_t d = { "" };

    assert_err(es_item_from_packet(packet.p, packet.n, &item, &d), ES_OK, &d);
    return item;
}

static es_str_t content_of(const es_item_t *item)
{
    return (es_str_t) { item->stream.content, item->stream.content_len };
}

/* Everything that a hub looks at. */
static void check_same(const es_item_t *a, const es_item_t *b)
{
    assert_true(es_equal_bytes(a->channel, a->channel_len, b->channel, b->channel_len));
    assert_true(es_equal_text(a->id, b->id));
    assert_true(es_equal_text(a->prev_id, b->prev_id));
    assert_int_equal(a->no_seq, b->no_seq);
    assert_true(es_equal_pairs(&a->meta, &b->meta));
    assert_true(b->stream.present);
    assert_int_equal(a->stream.action, b->stream.action);
    assert_int_equal(a->stream.has_content_filters, b->stream.has_content_filters);
    assert_int_equal(a->stream.content_filter_count, b->stream.content_filter_count);
    assert_memory_equal(a->stream.content_filters, b->stream.content_filters,
                        sizeof a->stream.content_filters);
    assert_true(es_equal_bytes(a->stream.content, a->stream.content_len, b->stream.content,
                               b->stream.content_len));
}

static void check_round_trip(const es_item_t *item)
{
    es_buf_t out;
    es_item_t *back = NULL;
    es_detail_t d = { "" };

    es_buf_init(&out, ES_MAX_PACKET_KEPT);
    assert_int_equal(es_item_to_packet(item, content_of(item), &out), ES_OK);
    assert_err(es_item_from_kept((es_str_t) { out.p, out.n }, &back, &d), ES_OK, &d);
    check_same(item, back);
    es_item_free(back);
    es_buf_free(&out);
}

static void items_come_back_as_they_went(void **state)
{
    static const es_str_t packets[] = {
        S("J{\"channel\":\"a\",\"http-stream\":{\"content\":\"\"}}"),
        S("J{\"channel\":\"\\u00e4\\u0001/\\\"\",\"id\":\"7\",\"prev-id\":\"\",\"no-seq\":true,"
          "\"size\":7,\"meta\":{\"z\":\"\",\"a\":\"\\u00fc:,}\",\"sender\":\"me\"},"
          "\"formats\":{\"http-stream\":{\"content\":\"x\\u0000\\r\\ny\","
          "\"content-filters\":[\"build-id\",\"what?\",\"var-subst\",\"\"]},"
          "\"http-response\":{\"body\":\"z\"},\"ws-message\":{\"content\":\"z\"}}}"),
        S("J{\"channel\":\"a\",\"http-stream\":{\"content-bin\":\"AP/+Og==\","
          "\"content-filters\":[]}}"),
        S("J{\"channel\":\"a\",\"http-stream\":{\"action\":\"close\"}}"),
        S("J{\"channel\":\"a\",\"http-stream\":{\"action\":\"hint\"}}"),
        S("J{\"channel\":\"a\",\"http-stream\":{\"action\":\"refresh\"}}"),
        /* A tnetstring's texts may be any bytes. */
        S("T59:7:channel,1:a,2:id,2:\xff\xfe,11:http-stream,16:7:content,3:odd,}}"),
        S("T73:7:channel,2:\xff\x01,4:meta,14:2:\xc3(,6:\xff\x01\x7f,:},}11:http-stream,14:7:"
          "content,1:\0,}}"),
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(packets); i++) {
        es_item_t *item = item_of(packets[i]);

        check_round_trip(item);
        es_item_free(item);
    }
}

/* The content that is given counts, not the item's: a hub keeps it elsewhere. Other things in the
 * buffer stay before it. */
static void the_given_content_counts(void **state)
{
    es_item_t *item = item_of(S("J{\"channel\":\"a\",\"http-stream\":{\"content\":\"old\"}}"));
    es_item_t *back = NULL;
    es_buf_t out;

    (void)state;
    es_buf_init(&out, 1000);
    assert_int_equal(es_buf_add(&out, "before", 6), ES_OK);
    assert_int_equal(es_item_to_packet(item, S("n\0w"), &out), ES_OK);
    assert_memory_equal(out.p, "beforeT", 7);
    assert_int_equal(es_item_from_kept((es_str_t) { out.p + 6, out.n - 6 }, &back, NULL), ES_OK);
    assert_bytes(back->stream.content, back->stream.content_len, "n\0w");
    es_item_free(back);
    es_item_free(item);
    es_buf_free(&out);
}

/* All that a publisher may send fits: here with meta, ids and channel as long as they may be. */
static void the_largest_item_fits(void **state)
{
    char *body = malloc(ES_MAX_PACKET + 1), *c = es_repeat('c', ES_MAX_CHANNEL_NAME);
    char *id = es_repeat('i', ES_MAX_ID);
    es_item_t *item;
    size_t n = 0;
    int i;

    (void)state;
    assert_non_null(body);
    n = (size_t)snprintf(body, ES_MAX_PACKET,
                         "J{\"channel\":\"%s\",\"id\":\"%s\",\"prev-id\":\"%s\",\"meta\":{", c, id,
                         id);
    for (i = 0; i < ES_MAX_META_PAIRS; i++) {
        n += (size_t)snprintf(body + n, ES_MAX_PACKET - n, "%s\"%d\":\"%.240s\"", i ? "," : "", i,
                              c);
    }
    n += (size_t)snprintf(body + n, ES_MAX_PACKET - n,
                          "},\"http-stream\":{\"content-filters\":[\"\",\"\",\"\",\"\",\"\"],"
                          "\"content\":\"");
    memset(body + n, 'x', ES_MAX_PACKET - n);
    memcpy(body + ES_MAX_PACKET - 3, "\"}}", 3);
    item = item_of((es_str_t) { body, ES_MAX_PACKET });
    assert_int_equal(item->meta.n, ES_MAX_META_PAIRS);
    check_round_trip(item);
    es_item_free(item);
    free(body);
    free(c);
    free(id);
}

static void a_full_buffer_stays_as_it_was(void **state)
{
    es_item_t *item = item_of(S("J{\"channel\":\"a\",\"id\":\"1\",\"meta\":{\"m\":\"v\"},"
                                "\"http-stream\":{\"content\":\"x\",\"content-filters\":[]}}"));
    es_err_t err = ES_ETOOBIG;
    size_t max;

    (void)state;
    for (max = 3; err != ES_OK; max++) {
        es_buf_t out;

        es_buf_init(&out, max);
        assert_int_equal(es_buf_add(&out, "abc", 3), ES_OK);
        err = es_item_to_packet(item, content_of(item), &out);
        assert_true(err == ES_OK || (err == ES_ETOOBIG && out.n == 3));
        assert_memory_equal(out.p, "abc", 3);
        es_buf_free(&out);
    }
    assert_true(max > 100);
    es_item_free(item);
}

static void kept_packets_have_a_limit(void **state)
{
    char *big = es_repeat('x', ES_MAX_PACKET_KEPT + 1);
    es_item_t *item = NULL;
    es_detail_t d = { "" };

    (void)state;
    assert_err(es_item_from_kept((es_str_t) { big, ES_MAX_PACKET_KEPT + 1 }, &item, &d), ES_ETOOBIG,
               &d);
    assert_string_equal(d.text, "packet is 1200001 bytes long, at most 1200000");
    assert_err(es_item_from_kept(S(""), &item, &d), ES_EINVAL, &d);
    assert_null(item);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_back_as_they_went),
        cmocka_unit_test(the_given_content_counts),
        cmocka_unit_test(the_largest_item_fits),
        cmocka_unit_test(a_full_buffer_stays_as_it_was),
        cmocka_unit_test(kept_packets_have_a_limit),
    };
    return cmocka_run_group_tests_name("item_write", tests, NULL, NULL);
}
