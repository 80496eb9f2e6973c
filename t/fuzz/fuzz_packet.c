/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ packets: tnetstrings and JSON, with and without a topic. */
#include "fuzz.h"

#include "es_equal.h"
#include "es_grip.h"

#include <string.h>

ES_FUZZ_TARGET;

static void check(const es_item_t *item)
{
    ES_FUZZ_CHECK(item->channel != NULL && strlen(item->channel) == item->channel_len);
    ES_FUZZ_CHECK(strpbrk(item->channel, "\r\n") == NULL);
    ES_FUZZ_CHECK(item->prev_id == NULL || strpbrk(item->prev_id, "\r\n") == NULL);
    if (item->stream.present && item->stream.action == ES_ACTION_SEND) {
        ES_FUZZ_CHECK(item->stream.content[item->stream.content_len] == '\0');
    }
}

/* What one hub writes of it for the next comes back the same, whatever bytes are in it. */
static void keep(const es_item_t *item)
{
    const es_str_t content = { item->stream.content ? item->stream.content : "",
                               item->stream.content_len };
    es_item_t *back = NULL;
    es_buf_t out;

    es_buf_init(&out, ES_MAX_PACKET_KEPT);
    ES_FUZZ_CHECK(es_item_to_packet(item, content, &out) == ES_OK);
    ES_FUZZ_CHECK(es_item_from_kept((es_str_t) { out.p, out.n }, &back, NULL) == ES_OK);
    ES_FUZZ_CHECK(
        es_equal_bytes(back->channel, back->channel_len, item->channel, item->channel_len));
    ES_FUZZ_CHECK(es_equal_text(back->id, item->id));
    ES_FUZZ_CHECK(es_equal_text(back->prev_id, item->prev_id));
    ES_FUZZ_CHECK(es_equal_pairs(&back->meta, &item->meta));
    ES_FUZZ_CHECK(back->no_seq == item->no_seq && back->stream.action == item->stream.action);
    ES_FUZZ_CHECK(back->stream.has_content_filters == item->stream.has_content_filters);
    ES_FUZZ_CHECK(back->stream.content_filter_count == item->stream.content_filter_count);
    ES_FUZZ_CHECK(memcmp(back->stream.content_filters, item->stream.content_filters,
                         sizeof item->stream.content_filters) == 0);
    ES_FUZZ_CHECK(es_equal_bytes(back->stream.content, back->stream.content_len,
                                 item->stream.content, item->stream.content_len));
    es_buf_free(&out);
    es_item_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *packet = (const char *)data;
    es_str_t topic = { "topic", 5 };
    es_item_t *item = NULL;
    es_item_t *same = NULL;
    es_detail_t detail = { "" };

    if (es_item_from_packet(packet, size, &item, &detail) == ES_OK) {
        es_fuzz_accept();
        check(item);
        if (item->stream.present) {
            keep(item);
        }
        /* What has a channel of its own is as good with a topic. */
        ES_FUZZ_CHECK(es_item_from_topic_packet(topic, packet, size, &same, NULL) == ES_OK);
    }
    else {
        ES_FUZZ_CHECK(item == NULL && detail.text[0] != '\0');
        (void)es_item_from_topic_packet(topic, packet, size, &same, NULL);
    }
    if (same != NULL) {
        check(same);
        ES_FUZZ_CHECK(strcmp(same->channel, "topic") == 0);
    }
    es_item_free(item);
    es_item_free(same);
    return 0;
}
