/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message as native event streams get it: the http-stream content as SSE, with the hub's id in
 * place of the publisher's. The same function makes it for live delivery and again for a replay, so
 * a client cannot tell one from the other.
 *
 * Content that was written for the filter build-id (the item asserts it, and nothing else) is given
 * to that filter first, with an empty id, to undo its escapes: ids are dropped then anyway. Content
 * that was written for another filter means nothing here: such an item is no event.
 *
 * Pure; any thread.
 */
#include "hub_int.h"

#include <string.h>

static const char *no_id(void *ctx, es_str_t name)
{
    (void)ctx;
    (void)name;
    return NULL;
}

static es_err_t unescape(es_str_t content, es_buf_t *out)
{
    char name[] = "id_format", value[] = "";
    es_pair_t pair = { .name = name, .value = value, .value_len = 0 };
    const es_pairs_t meta = { .v = &pair, .n = 1 };
    const es_filter_view_t view = { .sub_meta = &meta, .channel_id = no_id };

    return es_filter_render(ES_FILTER_BUILD_ID, &view, content, out, NULL);
}

bool es_event_is_one(const es_item_t *item)
{
    const es_stream_format_t *f = &item->stream;

    if (!f->present || f->action != ES_ACTION_SEND) {
        return false;
    }
    return f->content_filter_count == 0 ||
           (f->content_filter_count == 1 && f->content_filters[0] == ES_FILTER_BUILD_ID);
}

es_err_t es_event_render(const es_item_t *item, es_str_t content, es_str_t id, es_buf_t *out)
{
    const es_str_t no_name = { NULL, 0 };
    es_buf_t plain;
    es_err_t err = ES_OK;

    if (!es_event_is_one(item)) {
        return ES_OK;
    }
    es_buf_init(&plain, content.n + 1);
    if (item->stream.content_filter_count > 0) {
        err = unescape(content, &plain);
        content = (es_str_t) { plain.p ? plain.p : "", plain.n };
    }
    if (err == ES_OK) {
        err = es_sse_render(content, no_name, id, out, NULL);
    }
    es_buf_free(&plain);
    return err;
}

es_err_t es_frame_add_event(es_frame_t *frame, uint64_t instance, uint64_t order)
{
    const es_str_t content = es_frame_content(frame);
    char id[ES_EVENT_ID_SIZE] = "";
    es_buf_t out;
    es_err_t err;

    if (frame->action != ES_ACTION_SEND) {
        return ES_OK;
    }
    if (order > 0) {
        es_event_id_encode(instance, order, id);
    }
    es_buf_init(&out, ES_SSE_GROWTH * content.n + 256);
    err = es_event_render(frame->item, content, es_str(id), &out);
    if (err == ES_OK) {
        frame->event = es_frame_make((es_str_t) { out.p ? out.p : "", out.n });
        frame->instance = order > 0 ? instance : 0;
        err = frame->event ? ES_OK : ES_ENOMEM;
    }
    es_buf_free(&out);
    return err;
}
