/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel in one loop: a log of frames and the subscriptions that read it.
 *
 *      tail                    cursor of a slow stream          head
 *       ▼                              ▼                          ▼
 *    ┌─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┐
 *    │  7  │  8  │  9  │ 10  │ 11  │ 12  │ 13  │ 14  │ 15  │ 16  │   positions only grow
 *    └─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┘
 *
 * The log holds what somebody still needs: `behind` counts the subscriptions whose cursor is not at
 * the head after they were served, and when none is left the log is emptied. So a channel whose
 * readers keep up costs no memory for its messages. A reader that does not is bounded by the log's
 * limit in bytes: the oldest frames go, and a cursor below the tail is a stream that has lagged
 * out.
 *
 * Used by one loop's thread only, after the intake made it.
 */
#include "hub_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { RING_FIRST = 8, SUBS_FIRST = 4 };

es_channel_t *es_channel_make(es_str_t name, es_entry_t *entry)
{
    es_channel_t *c = calloc(1, sizeof *c);

    if (!c) {
        return NULL;
    }
    c->name = es_memdup(name.p, name.n);
    if (!c->name) {
        free(c);
        return NULL;
    }
    c->name_len = name.n;
    c->entry = entry;
    return c;
}

static es_log_entry_t *slot(const es_channel_t *c, uint64_t position)
{
    return &c->ring[position & (c->ring_cap - 1)];
}

static void drop_oldest(es_channel_t *c)
{
    es_log_entry_t *e = slot(c, c->tail);

    c->bytes -= es_frame_cost(e->frame);
    c->dropped = e->order;
    if (e->frame->action == ES_ACTION_CLOSE) {
        c->closed = e->order;
    }
    c->tail++;
    if (e->frame->fleeting) {
        c->fleeted = c->tail;
    }
    es_frame_unref(e->frame);
}

static void log_empty(es_channel_t *c)
{
    while (c->tail < c->head) {
        drop_oldest(c);
    }
    if (c->ring_cap > RING_FIRST) {
        free(c->ring);
        c->ring = NULL;
        c->ring_cap = 0;
    }
}

void es_channel_free(es_channel_t *channel)
{
    if (!channel) {
        return;
    }
    assert(channel->sub_count == 0);
    log_empty(channel);
    free(channel->ring);
    free(channel->subs);
    free(channel->name);
    free(channel);
}

static es_err_t ring_grow(es_channel_t *c)
{
    const uint32_t cap = c->ring_cap > 0 ? c->ring_cap * 2 : RING_FIRST;
    es_log_entry_t *ring = malloc(cap * sizeof *ring);
    uint64_t i;

    if (!ring) {
        return ES_ENOMEM;
    }
    for (i = c->tail; i < c->head; i++) {
        ring[i & (cap - 1)] = *slot(c, i);
    }
    free(c->ring);
    c->ring = ring;
    c->ring_cap = cap;
    return ES_OK;
}

es_err_t es_channel_append(es_channel_t *channel, es_frame_t *frame, uint64_t order,
                           size_t max_bytes)
{
    const size_t cost = es_frame_cost(frame);

    while (channel->tail < channel->head && channel->bytes + cost > max_bytes) {
        drop_oldest(channel);
    }
    if (channel->head - channel->tail == channel->ring_cap && ring_grow(channel) != ES_OK) {
        es_frame_unref(frame);
        return ES_ENOMEM;
    }
    *slot(channel, channel->head) = (es_log_entry_t) { .frame = frame, .order = order };
    channel->head++;
    channel->bytes += cost;
    channel->fresh += cost;
    return ES_OK;
}

void es_channel_lose(es_channel_t *channel, uint64_t order, bool closes)
{
    log_empty(channel);
    channel->head++;
    channel->tail = channel->head;
    channel->dropped = order;
    if (closes) {
        channel->closed = order;
    }
}

const es_log_entry_t *es_channel_at(const es_channel_t *channel, uint64_t position)
{
    return slot(channel, position);
}

es_err_t es_channel_join(es_channel_t *channel, es_sub_t *sub)
{
    if (channel->sub_count == channel->sub_cap) {
        const uint32_t cap = channel->sub_cap > 0 ? channel->sub_cap * 2 : SUBS_FIRST;
        es_sub_t **grown = realloc(channel->subs, cap * sizeof *grown);

        if (!grown) {
            return ES_ENOMEM;
        }
        channel->subs = grown;
        channel->sub_cap = cap;
    }
    sub->index = channel->sub_count;
    sub->cursor = channel->head;
    channel->subs[channel->sub_count++] = sub;
    return ES_OK;
}

void es_channel_leave(es_sub_t *sub)
{
    es_channel_t *c = sub->channel;
    es_sub_t *last;

    if (sub->index == ES_SUB_OFF) {
        return;
    }
    last = c->subs[--c->sub_count];
    c->subs[sub->index] = last;
    last->index = sub->index;
    sub->index = ES_SUB_OFF;
    if (sub->behind) {
        sub->behind = false;
        c->behind--;
    }
    /* A dirty channel's other subscriptions have not been served yet: its flush pass empties it. */
    if (c->behind == 0 && !c->dirty) {
        log_empty(c);
    }
}

void es_channel_settle(es_sub_t *sub)
{
    es_channel_t *c = sub->channel;
    const bool behind = sub->cursor < c->head;

    if (behind != sub->behind) {
        sub->behind = behind;
        c->behind += behind ? 1 : -1;
    }
    if (c->behind == 0 && !c->dirty) {
        log_empty(c);
    }
}

void es_channel_rest(es_channel_t *channel)
{
    channel->dirty = false;
    channel->fresh = 0;
    if (channel->behind == 0) {
        log_empty(channel);
    }
}
