/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one frame is for one subscription: the shared bytes, bytes of its own, or nothing.
 *
 * Filters run in the order in which the application listed them (grip.md 4). A delivery filter that
 * says no ends the matter. Content filters make a frame for this stream alone. An item that asserts
 * content filters reaches only subscriptions that have just these: its content was written for
 * them.
 *
 * The loop's thread that owns the stream.
 */
#include "hub_int.h"

#include <stdlib.h>
#include <string.h>

static const es_sub_t *sub_by_name(const es_stream_t *stream, es_str_t name)
{
    uint16_t i;

    for (i = 0; i < stream->sub_count; i++) {
        const es_channel_t *c = stream->subs[i].channel;

        if (c->name_len == name.n && memcmp(c->name, name.p, name.n) == 0) {
            return &stream->subs[i];
        }
    }
    return NULL;
}

static bool view_has_channel(void *ctx, es_str_t name)
{
    return sub_by_name(ctx, name) != NULL;
}

/* A channel of just that name, else one that has it behind a prefix: see es_filter_view_t. */
static const char *view_channel_id(void *ctx, es_str_t name)
{
    const es_stream_t *stream = ctx;
    const es_sub_t *sub = sub_by_name(stream, name);
    uint16_t i;

    for (i = 0; i < stream->sub_count && !sub; i++) {
        const es_channel_t *c = stream->subs[i].channel;

        if (es_filter_name_fits((es_str_t) { c->name, c->name_len }, name)) {
            sub = &stream->subs[i];
        }
    }
    return sub ? sub->last_id : NULL;
}

/* The content filters of the subscription, compared in order with those that the item asserts. */
static bool assertion_holds(const es_sub_t *sub, const es_stream_format_t *format)
{
    uint8_t i, n = 0;

    if (!format->has_content_filters) {
        return true;
    }
    for (i = 0; i < sub->filter_count; i++) {
        if (!es_filter_is_content((es_filter_t)sub->filters[i])) {
            continue;
        }
        if (n >= format->content_filter_count || format->content_filters[n] != sub->filters[i]) {
            return false;
        }
        n++;
    }
    return n == format->content_filter_count;
}

/* Was this item in the application's own answer already? It read the newest item from its storage,
 * asked for what comes after it, and the same item's publish arrived later than the reservation. */
static bool is_known(const es_sub_t *sub, const es_item_t *item)
{
    return sub->continuous && item->id && sub->last_id && strcmp(item->id, sub->last_id) == 0;
}

/* The newest id counts also when a filter drops the item: the application's numbering goes on. */
static void remember_id(es_sub_t *sub, const es_item_t *item)
{
    char *id = item->id ? es_memdup(item->id, strlen(item->id)) : NULL;

    if (item->id && !id) {
        return; /* out of memory: the older id is still a true one */
    }
    free(sub->last_id);
    sub->last_id = id;
}

/* Runs the content filters one after the other. On an error the stream gets nothing of it. */
static es_verdict_t render(es_sub_t *sub, const es_filter_view_t *view, es_str_t content,
                           es_frame_t **ret)
{
    enum { OUT_MAX = 4 * ES_MAX_PUBLISH_BODY };
    es_buf_t bufs[2];
    es_err_t err = ES_OK;
    uint8_t i;
    int to = 0;

    es_buf_init(&bufs[0], OUT_MAX);
    es_buf_init(&bufs[1], OUT_MAX);
    for (i = 0; i < sub->filter_count && err == ES_OK; i++) {
        const es_filter_t filter = (es_filter_t)sub->filters[i];

        if (es_filter_is_content(filter)) {
            es_buf_free(&bufs[to]);
            err = es_filter_render(filter, view, content, &bufs[to], NULL);
            content = (es_str_t) { bufs[to].p, bufs[to].n };
            to = 1 - to;
        }
    }
    if (err == ES_OK) {
        *ret = es_frame_make(content);
        err = *ret ? ES_OK : ES_ENOMEM;
    }
    es_buf_free(&bufs[0]);
    es_buf_free(&bufs[1]);
    if (err == ES_ENOMEM) {
        return ES_DELIVER_LOST;
    }
    return err == ES_OK ? ES_DELIVER_OWN : ES_DELIVER_SKIP;
}

es_verdict_t es_deliver_filter(es_sub_t *sub, es_frame_t *frame, es_frame_t **ret_own)
{
    es_stream_t *stream = sub->stream;
    const es_filter_view_t view = { .sub_meta = &stream->meta,
                                    .pub_meta = &frame->item->meta,
                                    .has_channel = view_has_channel,
                                    .channel_id = view_channel_id,
                                    .ctx = stream };
    bool has_content = false;
    uint8_t i;

    if (is_known(sub, frame->item)) {
        return ES_DELIVER_SKIP;
    }
    if (stream->tracked) {
        remember_id(sub, frame->item);
    }
    if (frame->action == ES_ACTION_SEND && !stream->events &&
        !assertion_holds(sub, &frame->item->stream)) {
        return ES_DELIVER_SKIP;
    }
    for (i = 0; i < sub->filter_count; i++) {
        const es_filter_t filter = (es_filter_t)sub->filters[i];

        if (es_filter_is_content(filter)) {
            has_content = true;
        }
        else if (!es_filter_admits(filter, &view)) {
            return ES_DELIVER_SKIP;
        }
    }
    if (!has_content || frame->action != ES_ACTION_SEND) {
        return ES_DELIVER_SHARED;
    }
    return render(sub, &view, es_frame_content(frame), ret_own);
}
