/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame is one message, rendered once: the chunk size line, the content, CRLF, in one allocation.
 * Chunked framing sends all of it, raw framing the part in the middle. Immutable once made; the
 * last reference, in whichever thread, frees it.
 *
 * A chunk of no bytes would end the body, so empty content has no bytes in either framing.
 */
#include "hub_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

es_frame_t *es_frame_make(es_str_t content)
{
    char head[24];
    const int head_len = snprintf(head, sizeof head, "%zx\r\n", content.n);
    es_frame_t *f;

    if (content.n > UINT32_MAX || head_len < 0) {
        return NULL;
    }
    f = malloc(sizeof *f + (size_t)head_len + content.n + 2);
    if (!f) {
        return NULL;
    }
    atomic_init(&f->refs, 1);
    f->action = ES_ACTION_SEND;
    f->fleeting = false;
    f->mask = 0;
    f->item = NULL;
    f->event = NULL;
    f->instance = 0;
    f->len = (uint32_t)content.n;
    f->head_len = (uint32_t)head_len;
    memcpy(f->bytes, head, (size_t)head_len);
    if (content.n > 0) {
        memcpy(f->bytes + head_len, content.p, content.n);
    }
    memcpy(f->bytes + head_len + content.n, "\r\n", 2);
    return f;
}

es_frame_t *es_frame_verbatim(es_str_t bytes)
{
    es_frame_t *f = es_frame_make(bytes);

    if (f) {
        memmove(f->bytes, f->bytes + f->head_len, f->len);
        f->head_len = 0;
    }
    return f;
}

/* Which filters could do something with this item? Delivery filters look at one meta name each. A
 * content filter looks at every content. */
static es_mask_t mask_of(const es_item_t *item)
{
    es_mask_t mask = 0;

    if (es_pairs_get(&item->meta, "sender")) {
        mask |= ES_MASK(ES_FILTER_SKIP_SELF);
    }
    if (es_pairs_get(&item->meta, "skip_users")) {
        mask |= ES_MASK(ES_FILTER_SKIP_USERS);
    }
    if (es_pairs_get(&item->meta, "require_sub")) {
        mask |= ES_MASK(ES_FILTER_REQUIRE_SUB);
    }
    if (item->stream.action == ES_ACTION_SEND) {
        mask |= ES_MASK(ES_FILTER_BUILD_ID) | ES_MASK(ES_FILTER_VAR_SUBST);
        if (item->stream.content_filter_count > 0) {
            mask |= ES_MASK_ASSERT;
        }
    }
    return mask;
}

es_frame_t *es_frame_from_item(es_item_t *item)
{
    es_str_t content = { item->stream.content, item->stream.content_len };
    es_frame_t *f;

    if (item->stream.action != ES_ACTION_SEND) {
        content.n = 0;
    }
    f = es_frame_make(content);
    if (!f) {
        es_item_free(item);
        return NULL;
    }
    free(item->stream.content);
    item->stream.content = NULL;
    item->stream.content_len = 0;
    f->action = item->stream.action;
    f->mask = mask_of(item);
    f->item = item;
    return f;
}

void es_frame_ref(es_frame_t *frame, unsigned int n)
{
    atomic_fetch_add_explicit(&frame->refs, n, memory_order_relaxed);
}

void es_frame_unref(es_frame_t *frame)
{
    if (!frame || frame == es_frame_terminator()) {
        return;
    }
    if (atomic_fetch_sub_explicit(&frame->refs, 1, memory_order_acq_rel) == 1) {
        es_frame_unref(frame->event);
        es_item_free(frame->item);
        free(frame);
    }
}

es_str_t es_frame_bytes(const es_frame_t *frame, bool chunked)
{
    if (frame == es_frame_terminator()) {
        return es_str(chunked ? "0\r\n\r\n" : "");
    }
    if (frame->len == 0 || frame->head_len == 0 || !chunked) {
        return es_frame_content(frame);
    }
    return (es_str_t) { frame->bytes, (size_t)frame->head_len + frame->len + 2 };
}

es_str_t es_frame_content(const es_frame_t *frame)
{
    return (es_str_t) { frame->bytes + frame->head_len, frame->len };
}

size_t es_frame_cost(const es_frame_t *frame)
{
    enum { OVERHEAD = 256 }; /* the structs, the item's strings, the allocator */

    return OVERHEAD + (size_t)frame->len + (frame->event ? frame->event->len : 0);
}

es_frame_t *es_frame_terminator(void)
{
    static es_frame_t terminator = { .action = ES_ACTION_CLOSE };

    return &terminator;
}
