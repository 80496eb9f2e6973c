/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/item.c: ZeroMQ packets, as tnetstring and as JSON, with and without a topic. */
#include "es_test.h"
#include "grip_int.h"

static es_item_t *packet(es_str_t bytes)
{
    es_item_t *item = NULL;
    es_detail_t d;

    assert_err(es_item_from_packet(bytes.p, bytes.n, &item, &d), ES_OK, &d);
    return item;
}

static void refuse_packet(es_str_t bytes, es_err_t want, const char *sentence)
{
    es_item_t *item = NULL;
    es_detail_t d;

    assert_err(es_item_from_packet(bytes.p, bytes.n, &item, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_null(item);
}

static void reads_packets_of_every_kind(void **state)
{
    static const es_str_t packets[] = {
        S("125:7:formats,86:11:http-stream,67:15:content-filters,0:]7:content,31:event: message\n"
          "data: {\"n\": 0}\n\n,}}7:channel,11:events-test,}"),
        S("T125:7:formats,86:11:http-stream,67:15:content-filters,0:]7:content,31:event: message\n"
          "data: {\"n\": 0}\n\n,}}7:channel,11:events-test,}"),
        S("J{\"channel\":\"events-test\",\"http-stream\":{\"content-filters\":[],\"content\":"
          "\"event: message\\ndata: {\\\"n\\\": 0}\\n\\n\"}}"),
    };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(packets); i++) {
        es_item_t *item = packet(packets[i]);
        assert_bytes(item->channel, item->channel_len, "events-test");
        assert_true(item->stream.has_content_filters);
        assert_bytes(item->stream.content, item->stream.content_len,
                     "event: message\ndata: {\"n\": 0}\n\n");
        es_item_free(item);
    }
    es_item_free(NULL);
}

static void packets_carry_raw_bytes(void **state)
{
    es_item_t *item;

    (void)state;
    /* Any byte in content; base64 text or raw bytes in content-bin; content goes first. */
    item = packet(S("52:7:channel,1:a,11:http-stream,19:7:content,6:a\0\xff\r\nb,}}"));
    assert_bytes(item->stream.content, item->stream.content_len, "a\0\xff\r\nb");
    es_item_free(item);
    item = packet(S("55:7:channel,1:a,11:http-stream,22:11:content-bin,4:AP8=,}}"));
    assert_bytes(item->stream.content, item->stream.content_len, "\0\xff");
    es_item_free(item);
    item = packet(S("54:7:channel,1:a,11:http-stream,21:11:content-bin,3:a\0\xff,}}"));
    assert_bytes(item->stream.content, item->stream.content_len, "a\0\xff");
    es_item_free(item);
    item = packet(S("54:7:channel,1:a,11:http-stream,21:11:content-bin,3:abc,}}"));
    assert_bytes(item->stream.content, item->stream.content_len, "abc");
    es_item_free(item);
    item = packet(S("69:7:channel,1:a,11:http-stream,36:11:content-bin,4:AP8=,7:content,1:x,}}"));
    assert_bytes(item->stream.content, item->stream.content_len, "x");
    es_item_free(item);
}

static void refuses_bad_packets(void **state)
{
    static const char small[] = "{\"channel\":\"a\",\"http-stream\":{\"content\":\"\"}}";
    char *big = es_repeat(' ', ES_MAX_PACKET + 1);
    es_item_t *item = NULL;
    es_detail_t d;

    (void)state;
    refuse_packet(S(""), ES_EINVAL, "packet is empty");
    refuse_packet(S("x"), ES_EINVAL,
                  "tnetstring is broken at byte 0: a length and ':' were expected");
    refuse_packet(S("T"), ES_EINVAL,
                  "tnetstring is broken at byte 0: a length and ':' were expected");
    refuse_packet(S("J{"), ES_EINVAL,
                  "packet is not valid JSON: line 1 column 1: string or '}' expected near end of "
                  "file");
    refuse_packet(S("J[]"), ES_EINVAL, "Invalid format: publish item object is not an object");
    refuse_packet(S("0:,"), ES_EINVAL, "Invalid format: publish item object is not an object");
    refuse_packet(S("0:}"), ES_EINVAL,
                  "Invalid format: publish item object does not contain 'channel'");
    refuse_packet(S("16:7:channel,3:a\nb,}"), ES_EINVAL,
                  "Invalid format: publish item object contains 'channel' with invalid value: CR, "
                  "LF and NUL are not accepted");
    refuse_packet(S("23:7:channel,1:a,2:id,1:7#}"), ES_EINVAL,
                  "Invalid format: publish item object contains 'id' with wrong type");
    big[0] = 'J';
    memcpy(big + 1, small, sizeof(small) - 1);
    assert_err(es_item_from_packet(big, ES_MAX_PACKET + 1, &item, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "packet is 1100001 bytes long, at most 1100000");
    assert_null(item);
    assert_err(es_item_from_packet(big, ES_MAX_PACKET, &item, &d), ES_OK, &d);
    es_item_free(item);
    free(big);
}

static void a_topic_names_the_channel(void **state)
{
    static const char body[] = "J{\"http-stream\":{\"content\":\"\"}}";
    static const char other[] = "J{\"channel\":7,\"http-stream\":{\"content\":\"\"}}";
    char *big = es_repeat('t', ES_MAX_CHANNEL_NAME + 1);
    es_str_t topic = { big, ES_MAX_CHANNEL_NAME + 1 };
    es_item_t *item = NULL;
    es_detail_t d;

    (void)state;
    assert_err(es_item_from_topic_packet(S("t"), body, strlen(body), &item, &d), ES_OK, &d);
    assert_bytes(item->channel, item->channel_len, "t");
    es_item_free(item);
    assert_err(es_item_from_topic_packet(S("t"), other, strlen(other), &item, &d), ES_OK, &d);
    assert_bytes(item->channel, item->channel_len, "t");
    es_item_free(item);
    item = NULL;
    assert_err(es_item_from_topic_packet(S("t\n"), body, strlen(body), &item, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "Invalid format: topic has invalid value: CR, LF and NUL are not "
                                "accepted");
    assert_err(es_item_from_topic_packet(topic, body, strlen(body), &item, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "Invalid format: topic is 4097 bytes long, at most 4096");
    assert_null(item);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_packets_of_every_kind),
        cmocka_unit_test(packets_carry_raw_bytes),
        cmocka_unit_test(refuses_bad_packets),
        cmocka_unit_test(a_topic_names_the_channel),
    };
    return cmocka_run_group_tests_name("item_packet", tests, NULL, NULL);
}
