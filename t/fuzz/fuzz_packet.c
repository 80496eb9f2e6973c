/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ packets: tnetstrings and JSON, with and without a topic. */
#include "fuzz.h"

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
