/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an item to the loops: an item becomes one frame, and each loop that has streams on its
 * channel gets an order with a reference to it. All orders to loops leave through here. The
 * intake's thread.
 */
#include "intake_int.h"

#include <unistd.h>

void es_intake_command(es_intake_t *intake, int loop, const es_command_t *command)
{
    if (es_queue_push(&intake->loops[loop].queue, command) == ES_OK) {
        return;
    }
    es_log(&intake->config->log, ES_LOG_ERR, "ES0301", "out of memory: an order to loop %d is lost",
           loop);
    es_frame_unref(command->frame);
    if (command->what == ES_ORDER_HOLD) {
        close(command->fd);
    }
}

/* `frame` NULL: the message is lost, and its streams must not miss it silently. */
static void frame_to_loops(es_intake_t *intake, const es_entry_t *entry, es_frame_t *frame,
                           bool closes)
{
    es_command_t cmd = {
        .what = ES_ORDER_PUBLISH, .fd = -1, .frame = frame, .order = intake->order, .closes = closes
    };
    int i;

    /* The caller's reference lasts until all are out, so a quick loop cannot free the frame under
     * us. */
    for (i = 0; i < intake->loop_count; i++) {
        if (entry->loop[i].channel) {
            if (frame) {
                es_frame_ref(frame, 1);
            }
            cmd.channel = entry->loop[i].channel;
            es_intake_command(intake, i, &cmd);
        }
    }
}

/* What goes to the loops; NULL: out of memory. Takes the item. */
static es_frame_t *make_frame(const es_intake_t *intake, const es_entry_t *entry, es_item_t *item,
                              uint64_t number)
{
    es_frame_t *frame = es_frame_from_item(item);

    if (frame && entry->events > 0 &&
        es_frame_add_event(frame, intake->instance, number) != ES_OK) {
        es_frame_unref(frame);
        return NULL;
    }
    return frame;
}

void es_intake_publish_item(es_intake_t *intake, es_item_t *item, es_published_t *ret)
{
    const es_str_t name = { item->channel, item->channel_len };
    const es_action_t action = item->stream.action;
    es_entry_t *entry = es_registry_find(intake->registry, name);
    es_frame_t *frame;
    uint64_t number;

    *ret = (es_published_t) { .receivers = entry ? entry->streams : 0 };
    intake->published++;
    es_log(&intake->config->log, ES_LOG_TRACE, "ES0302", "publish channel=%s receivers=%u",
           item->channel, ret->receivers);
    if (!item->stream.present || (action != ES_ACTION_SEND && action != ES_ACTION_CLOSE)) {
        es_item_free(item);
        return;
    }
    number = es_events_next(intake);
    intake->event = intake->order;
    ret->number = action == ES_ACTION_SEND ? number : 0;
    es_events_keep(intake, item, number);
    if (!entry) {
        es_item_free(item);
        return;
    }
    frame = make_frame(intake, entry, item, number);
    if (!frame) {
        es_log(&intake->config->log, ES_LOG_ERR, "ES0303",
               "out of memory: a message cannot be delivered");
    }
    frame_to_loops(intake, entry, frame, action == ES_ACTION_CLOSE);
    es_frame_unref(frame);
}

es_err_t es_intake_announce(es_intake_t *intake, es_item_t *item)
{
    const es_str_t name = { item->channel, item->channel_len };
    es_entry_t *entry = es_registry_find(intake->registry, name);
    es_frame_t *frame;

    if (!entry) {
        es_item_free(item);
        return ES_OK;
    }
    frame = make_frame(intake, entry, item, 0);
    if (!frame) {
        return ES_ENOMEM;
    }
    frame->fleeting = true;
    (void)es_events_next(intake);
    if (intake->history) {
        es_history_skip(intake->history, intake->order);
    }
    frame_to_loops(intake, entry, frame, false);
    es_frame_unref(frame);
    return ES_OK;
}

void es_intake_publish(es_intake_t *intake, es_item_t *item)
{
    es_published_t ignored;

    es_intake_publish_item(intake, item, &ignored);
}

void es_intake_refused(es_intake_t *intake, const char *from, const es_detail_t *detail)
{
    intake->refused++;
    if (es_tame_admits(intake, &intake->bad_input)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0305", "%s: message refused: %s", from,
               detail->text);
    }
}
