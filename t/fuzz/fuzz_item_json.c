/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of POST /publish/. */
#include "fuzz.h"

#include "es_grip.h"

#include <string.h>

ES_FUZZ_TARGET;

static void check(const es_item_t *item)
{
    ES_FUZZ_CHECK(item->channel != NULL && strlen(item->channel) == item->channel_len);
    ES_FUZZ_CHECK(item->channel_len <= ES_MAX_CHANNEL_NAME);
    ES_FUZZ_CHECK(strpbrk(item->channel, "\r\n") == NULL);
    ES_FUZZ_CHECK(item->id == NULL || strpbrk(item->id, "\r\n") == NULL);
    ES_FUZZ_CHECK(item->size >= -1);
    ES_FUZZ_CHECK(item->meta.n <= ES_MAX_META_PAIRS);
    ES_FUZZ_CHECK(item->stream.content_filter_count <= ES_MAX_FILTERS);
    if (item->stream.present && item->stream.action == ES_ACTION_SEND) {
        ES_FUZZ_CHECK(item->stream.content != NULL);
        ES_FUZZ_CHECK(item->stream.content[item->stream.content_len] == '\0');
    }
    else {
        ES_FUZZ_CHECK(item->stream.content == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_items_t items = { NULL, 0 };
    es_detail_t detail = { "" };
    size_t i;

    if (es_items_from_json((const char *)data, size, &items, &detail) == ES_OK) {
        es_fuzz_accept();
        for (i = 0; i < items.n; i++) {
            check(items.v[i]);
        }
    }
    else {
        ES_FUZZ_CHECK(items.v == NULL && items.n == 0 && detail.text[0] != '\0');
    }
    es_items_free(&items);
    return 0;
}
