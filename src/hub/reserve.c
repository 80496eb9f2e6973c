/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, from the hold message to the loop and back: the intake makes a stream, puts it on its
 * channels in the registry, gives it to the loop that has the fewest, and frees it when that loop
 * has returned it.
 *
 * The reservation is an order in the same queue as the publishes, so what is published after the
 * answer to RESERVE reaches the stream and what was published before does not; there is nothing in
 * between.
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <stdlib.h>
#include <string.h>

static int least_loaded(const es_intake_t *intake)
{
    int i, best = 0;

    for (i = 1; i < intake->loop_count; i++) {
        if (intake->loop_load[i] < intake->loop_load[best]) {
            best = i;
        }
    }
    return best;
}

static bool is_on(const es_stream_t *s, const es_channel_t *channel)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].channel == channel) {
            return true;
        }
    }
    return false;
}

/* A channel that is left empty is freed by its loop; but when the loop was never given the stream
 * (`placed` false), the channel was made for it a moment ago and no order names it: it is freed at
 * once, which cannot fail as an order can. So it is when the loop has no thread. */
static void leave_channels(es_intake_t *intake, es_stream_t *s, int loop, bool placed)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        es_channel_t *channel = s->subs[i].channel;
        const es_command_t cmd = { .what = ES_ORDER_FREE, .fd = -1, .channel = channel };

        channel->entry->events -= s->events ? 1 : 0;
        if (!es_registry_leave(intake->registry, channel, loop)) {
            continue;
        }
        if (placed && loop < intake->running) {
            es_intake_command(intake, loop, &cmd);
        }
        else if (channel->dirty) {
            es_loop_drop_channel(&intake->loops[loop], channel);
        }
        else {
            es_channel_free(channel);
        }
    }
}

/* Adds one subscription. A channel that the application named twice counts once. */
static es_err_t subscribe(es_intake_t *intake, es_stream_t *s, es_sub_spec_t *spec, int loop)
{
    const es_str_t name = { spec->name, spec->name_len };
    es_channel_t *channel = es_registry_join(intake->registry, name, loop);
    es_sub_t *sub = &s->subs[s->sub_count];
    uint8_t i;

    if (!channel) {
        return ES_ENOMEM;
    }
    if (is_on(s, channel)) {
        (void)es_registry_leave(intake->registry, channel,
                                loop); /* never the last: this stream is on it */
        return ES_OK;
    }
    sub->stream = s;
    sub->channel = channel;
    sub->index = ES_SUB_OFF;
    sub->continuous = spec->prev_id != NULL;
    s->tracked = s->tracked || sub->continuous;
    sub->last_id = spec->prev_id;
    spec->prev_id = NULL;
    sub->mask = s->events ? 0 : ES_MASK_ASSERT;
    for (i = 0; i < spec->filter_count; i++) {
        const es_filter_t filter = (es_filter_t)spec->filters[i];

        if (s->events && es_filter_is_content(filter)) {
            continue; /* what an event is was decided once, for all */
        }
        sub->filters[sub->filter_count++] = (uint8_t)filter;
        sub->mask |= ES_MASK(filter);
        s->tracked = s->tracked || es_filter_is_content(filter);
    }
    s->sub_count++;
    channel->entry->events += s->events ? 1 : 0;
    return ES_OK;
}

/* Registers the stream on its channels, for the loop that will run it. */
static es_err_t join_channels(es_intake_t *intake, es_instruct_t *in, es_stream_t *s, int loop)
{
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < in->channel_count && err == ES_OK; i++) {
        err = subscribe(intake, s, &in->channels[i], loop);
    }
    s->loop = &intake->loops[loop];
    return err;
}

/* Registers the stream on its channels and hands it to a loop. */
static es_err_t place(es_intake_t *intake, es_instruct_t *in, es_stream_t *s)
{
    const int loop = least_loaded(intake);
    const es_command_t cmd = { .what = ES_ORDER_RESERVE, .fd = -1, .stream = s };
    es_err_t err = join_channels(intake, in, s, loop);

    s->sent = intake->order;
    if (err == ES_OK) {
        err = es_queue_push(&intake->loops[loop].queue, &cmd);
    }
    if (err != ES_OK) {
        leave_channels(intake, s, loop, false);
        return err;
    }
    intake->loop_load[loop]++;
    intake->reserved++;
    return ES_OK;
}

/* What a hold message says, and the stream that it describes, on no channel yet. On failure nothing
 * is left. */
static es_err_t make_stream(es_intake_t *intake, es_str_t hold, es_instruct_t **ret_in,
                            es_delivery_t *ret_delivery, es_stream_t **ret, es_detail_t *detail)
{
    es_instruct_t *in = NULL;
    es_delivery_t delivery = { 0 };
    es_stream_t *s;
    es_err_t err = es_hold_decode(hold, &in, &delivery, detail);

    if (err != ES_OK) {
        return err;
    }
    s = es_stream_make(in, &delivery);
    if (s && s->keep_alive_ms > 0) {
        s->keep_alive = es_frame_make((es_str_t) { in->keep_alive, in->keep_alive_len });
        if (!s->keep_alive) {
            es_stream_free(s);
            s = NULL;
        }
    }
    if (s && es_presence_attend(s, in->channel_count, &delivery) != ES_OK) {
        es_stream_free(s);
        s = NULL;
    }
    if (!s) {
        es_delivery_clear(&delivery);
        es_instruct_free(in);
        return es_fail(detail, ES_ENOMEM, "the hub is out of memory");
    }
    if (s->started_ms == 0) {
        s->started_ms = es_wall(intake->config);
    }
    if (intake->config->stream_log <= 0) { /* the child's configuration may be another one */
        free(s->log);
        s->log = NULL;
    }
    *ret_in = in;
    *ret_delivery = delivery;
    *ret = s;
    return ES_OK;
}

/* Counts the stream with its client's and gives it to a loop. */
static es_err_t admit(es_intake_t *intake, es_instruct_t *in, es_stream_t *s, es_detail_t *detail)
{
    es_err_t err = es_limits_check_client(intake, s->peer, detail);

    if (err != ES_OK) {
        return err;
    }
    err = es_limits_add(intake, s);
    if (err == ES_OK) {
        err = es_presence_greet(intake, in, s);
    }
    if (err == ES_OK) {
        err = place(intake, in, s);
    }
    if (err != ES_OK) {
        es_limits_remove(intake, s);
        return es_fail(detail, err, "the hub is out of memory");
    }
    return ES_OK;
}

es_err_t es_intake_reserve(es_intake_t *intake, es_str_t hold, es_stream_t **ret,
                           es_detail_t *detail)
{
    es_instruct_t *in = NULL;
    es_delivery_t delivery = { 0 };
    es_stream_t *s = NULL;
    es_err_t err = es_limits_check(intake, detail);

    if (err == ES_OK) {
        err = make_stream(intake, hold, &in, &delivery, &s, detail);
    }
    if (err != ES_OK) {
        return err;
    }
    err = admit(intake, in, s, detail);
    if (err == ES_OK) {
        *ret = s;
    }
    else {
        es_stream_free(s);
    }
    es_delivery_clear(&delivery);
    es_instruct_free(in);
    return err;
}

/* ---- from the hub before ---- */

/* What its client still has to get of a message. `ending`: the terminating chunk. */
static es_err_t resume_pending(es_stream_t *s, const es_resume_t *resume, es_str_t rest)
{
    if (resume->ending > 0) {
        s->pending = es_frame_terminator();
        s->pending_off = resume->ending - 1;
    }
    else if (rest.n > 0) {
        s->pending = es_frame_verbatim(rest);
        return s->pending ? ES_OK : ES_ENOMEM;
    }
    return ES_OK;
}

/* Places the stream on a loop that has no thread yet. On failure it is on no channel. */
static es_err_t place_again(es_intake_t *intake, es_instruct_t *in, es_stream_t *s,
                            const es_resume_t *resume, es_fill_t fill, void *ctx)
{
    const int loop = least_loaded(intake);
    es_err_t err = join_channels(intake, in, s, loop);
    uint16_t i;

    for (i = 0; i < s->sub_count && err == ES_OK; i++) {
        s->subs[i].continuous = resume->continuous[i];
        s->tracked = s->tracked || resume->continuous[i];
        if (s->subs[i].channel->head == 0) {
            err = fill(ctx, s->loop, s->subs[i].channel);
        }
    }
    if (err != ES_OK) {
        leave_channels(intake, s, loop, false);
        return err;
    }
    intake->loop_load[loop]++;
    return ES_OK;
}

es_err_t es_intake_resume(es_intake_t *intake, es_str_t hold, int fd, es_str_t rest, es_fill_t fill,
                          void *ctx, es_stream_t **ret, es_detail_t *detail)
{
    es_instruct_t *in = NULL;
    es_delivery_t delivery = { 0 };
    es_stream_t *s = NULL;
    es_err_t err = make_stream(intake, hold, &in, &delivery, &s, detail);

    if (err != ES_OK) {
        return err;
    }
    if (!delivery.resume ||
        delivery.resume->ending > es_frame_bytes(es_frame_terminator(), s->chunked).n) {
        err = es_fail(detail, ES_EINVAL, "'resume' is missing or wrong");
    }
    if (err == ES_OK) {
        err = resume_pending(s, delivery.resume, rest);
    }
    if (err == ES_OK) {
        s->bytes = delivery.resume->bytes;
        s->replaying = s->events && delivery.resume->replaying;
        s->sent = delivery.resume->sent;
        s->until = delivery.resume->until;
        s->forgiven = delivery.resume->forgiven;
        if (delivery.resume->final > 0) {
            s->expired = true;
            s->expired_ms = es_now(intake->config);
            s->final = delivery.resume->final - 1;
        }
        err = es_limits_add(intake, s);
    }
    if (err == ES_OK) {
        err = place_again(intake, in, s, delivery.resume, fill, ctx);
    }
    if (err != ES_OK) {
        es_limits_remove(intake, s);
        es_stream_free(s);
    }
    else {
        err = es_loop_adopt(s->loop, s, delivery.resume, fd);
    }
    if (err == ES_ENOMEM) {
        (void)es_fail(detail, err, "the hub is out of memory");
    }
    if (err == ES_OK && fd >= 0) {
        es_presence_resume(intake, s);
    }
    if (err == ES_OK) {
        *ret = s;
    }
    es_delivery_clear(&delivery);
    es_instruct_free(in);
    return err;
}

/* ---- back from the loops ---- */

void es_intake_take_back(es_intake_t *intake)
{
    es_stream_t *s;

    pthread_mutex_lock(&intake->back.lock);
    s = intake->back.first;
    intake->back.first = NULL;
    pthread_mutex_unlock(&intake->back.lock);
    while (s) {
        es_stream_t *next = s->next;
        const int loop = s->loop->number;

        leave_channels(intake, s, loop, true);
        es_presence_leave(intake, s);
        intake->loop_load[loop]--;
        es_limits_remove(intake, s);
        es_stream_free(s);
        s = next;
    }
}
