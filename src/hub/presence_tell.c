/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the listeners of C/presence are told of who is on C: fleeting messages of the hub's own.
 *
 *   event: presence   {"channel": C, "count": N, "members": N, "names": [NAME, ...]}
 *   event: join       {"channel": C, "name": NAME, "count": N, "members": N}
 *   event: leave      the same
 *
 * Each new listener gets the whole state as the first bytes of its stream, made at its reservation:
 * what happens later reaches it as events, and nothing lies between.
 *
 * Of a channel where many come and go only the first events of a window are sent one by one; at its
 * end the whole state follows, once. So ten thousand streams that join at once are eleven messages
 * and not ten thousand for each of them. The same pays whatever else could not be told: while the
 * loops stand still for a hand-over, or without memory.
 *
 * Without a listener nothing is made, and no number is used up. The intake's thread.
 */
#include "presence_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = ES_WIRE_MAX, /* bytes; never reached */
    OWED_CHANNELS = 1000,   /* that are named in a hand-over; of more it says "all" */
    OWED_BYTES = 256 * 1024
};

static es_str_t name_of(const es_place_t *place)
{
    return (es_str_t) { place->name, place->len };
}

static es_str_t meta_of(const es_place_t *place)
{
    return (es_str_t) { place->name, place->len + strlen(ES_PRESENCE_SUFFIX) };
}

bool es_place_is_heard(const es_intake_t *intake, const es_place_t *place)
{
    return es_registry_find(intake->registry, meta_of(place)) != NULL;
}

/* ---- texts ---- */

static json_t *text(es_str_t s)
{
    return json_stringn(s.p, s.n);
}

/* True: it is in. Takes the value, NULL too. */
static bool put(json_t *o, const char *name, json_t *value)
{
    return json_object_set_new(o, name, value) == 0;
}

static bool put_counts(json_t *o, const es_place_t *place)
{
    return put(o, "count", json_integer(place ? place->streams : 0)) &&
           put(o, "members", json_integer(place ? place->members : 0));
}

static bool put_names(json_t *o, const es_place_t *place)
{
    json_t *names = json_array();
    const es_member_t *m = place ? place->first : NULL;
    bool good = names != NULL;

    for (; good && m && json_array_size(names) < ES_PRESENCE_NAMES; m = m->next) {
        good = json_array_append_new(names, text(es_member_name(m))) == 0;
    }
    if (!good) {
        json_decref(names);
        return false;
    }
    return put(o, "names", names) && (!m || put(o, "truncated", json_true()));
}

static es_err_t dump(json_t *o, bool good, es_buf_t *out)
{
    char *s = good ? json_dumps(o, 0) : NULL;
    es_err_t err = s ? es_buf_add(out, s, strlen(s)) : ES_ENOMEM;

    free(s);
    json_decref(o);
    return err;
}

/* The object of a join or leave. */
static es_err_t add_change(const es_place_t *place, es_str_t name, es_buf_t *out)
{
    json_t *o = json_object();
    const bool good = o && put(o, "channel", text(name_of(place))) &&
                      (name.n == 0 || put(o, "name", text(name))) && put_counts(o, place);

    return dump(o, good, out);
}

/* The whole state; `channel` n 0: without it. `place` NULL: nobody is there. */
static es_err_t add_state(const es_place_t *place, es_str_t channel, es_buf_t *out)
{
    json_t *o = json_object();
    const bool good = o && (channel.n == 0 || put(o, "channel", text(channel))) &&
                      put_counts(o, place) && put_names(o, place);

    return dump(o, good, out);
}

es_err_t es_presence_state(es_intake_t *intake, es_str_t name, es_buf_t *out)
{
    const es_str_t none = { NULL, 0 };
    es_str_t channel;

    if (!es_presence_of(name, &channel)) {
        return ES_ENOENT;
    }
    return add_state(es_presence_place(intake, channel, false), none, out);
}

/* ---- events ---- */

static es_err_t add_event(const char *event, es_buf_t *json, es_err_t made, es_buf_t *out)
{
    const es_str_t no_id = { NULL, 0 };

    return made == ES_OK ? es_sse_data((es_str_t) { json->p, json->n }, es_str(event), no_id, out)
                         : made;
}

/* Takes the content. */
static es_err_t publish(es_intake_t *intake, const es_place_t *place, es_buf_t *content)
{
    const es_str_t meta = meta_of(place);
    es_item_t *item = calloc(1, sizeof *item);

    if (!item) {
        return ES_ENOMEM;
    }
    item->size = -1;
    item->channel = es_memdup(meta.p, meta.n);
    item->channel_len = meta.n;
    item->stream.present = true;
    item->stream.action = ES_ACTION_SEND;
    item->stream.content = es_buf_steal(content, &item->stream.content_len);
    if (!item->channel || !item->stream.content) {
        es_item_free(item);
        return ES_ENOMEM;
    }
    return es_intake_announce(intake, item);
}

static es_err_t say(es_intake_t *intake, const es_place_t *place, const char *event, es_str_t name)
{
    es_buf_t json, content;
    es_err_t err;

    es_buf_init(&json, TEXT_MAX);
    es_buf_init(&content, TEXT_MAX);
    err = strcmp(event, "presence") == 0 ? add_state(place, name_of(place), &json)
                                         : add_change(place, name, &json);
    err = add_event(event, &json, err, &content);
    if (err == ES_OK) {
        err = publish(intake, place, &content);
    }
    es_buf_free(&json);
    es_buf_free(&content);
    return err;
}

static void open_window(es_intake_t *intake, es_place_t *place, uint64_t delay_ms)
{
    if (!place->window.timer.next) {
        es_wheel_arm(&intake->presence->wheel, &place->window.timer,
                     es_now(intake->config) + delay_ms);
    }
}

void es_place_owe(es_intake_t *intake, es_place_t *place, uint64_t delay_ms)
{
    place->owes = true;
    open_window(intake, place, delay_ms);
}

void es_place_tell(es_intake_t *intake, es_place_t *place, const char *event, es_str_t name)
{
    if (!es_place_is_heard(intake, place)) {
        return;
    }
    if (place->told >= ES_PRESENCE_BURST || intake->running < intake->loop_count ||
        say(intake, place, event, name) != ES_OK) {
        es_place_owe(intake, place, ES_PRESENCE_WINDOW);
        return;
    }
    place->told++;
    open_window(intake, place, ES_PRESENCE_WINDOW);
}

void es_place_window_over(es_intake_t *intake, es_place_t *place)
{
    const bool owed = place->owes && es_place_is_heard(intake, place);

    place->owes = false;
    place->told = 0;
    if (owed) {
        es_place_tell(intake, place, "presence", es_str(NULL));
    }
}

/* ---- a new listener ---- */

es_err_t es_presence_greet(es_intake_t *intake, const es_instruct_t *in, es_stream_t *stream)
{
    es_buf_t json, out;
    es_err_t err = ES_OK;
    size_t i;

    es_buf_init(&out, TEXT_MAX);
    for (i = 0; stream->attendee && i < in->channel_count && err == ES_OK; i++) {
        const es_str_t name = { in->channels[i].name, in->channels[i].name_len };
        es_str_t channel;

        if (es_presence_of(name, &channel)) {
            es_buf_init(&json, TEXT_MAX);
            err = add_state(es_presence_place(intake, channel, false), channel, &json);
            err = add_event("presence", &json, err, &out);
            es_buf_free(&json);
        }
    }
    if (err == ES_OK && out.n > 0) {
        stream->pending = es_frame_make((es_str_t) { out.p, out.n });
        err = stream->pending ? ES_OK : ES_ENOMEM;
    }
    es_buf_free(&out);
    return err;
}

/* ---- a hand-over ---- */

es_err_t es_presence_owed(es_intake_t *intake, es_buf_t *out)
{
    es_presence_t *p = intake->presence;
    json_t *list = json_array();
    apr_hash_index_t *i;
    bool good = list != NULL, all = false;
    size_t bytes = 0;
    es_err_t err;

    for (i = apr_hash_first(p->pool, p->places); good && !all && i; i = apr_hash_next(i)) {
        const es_place_t *place = apr_hash_this_val(i);

        if ((place->owes || place->leaving > 0) && es_place_is_heard(intake, place)) {
            bytes += place->len;
            good = json_array_append_new(list, text(name_of(place))) == 0;
            all = bytes > OWED_BYTES || json_array_size(list) > OWED_CHANNELS;
        }
    }
    if (all) {
        json_decref(list);
        return es_buf_addf(out, ", \"owed\": true");
    }
    err = es_buf_addf(out, ", \"owed\": ");
    if (err != ES_OK) {
        json_decref(list);
        return err;
    }
    return dump(list, good, out);
}

void es_presence_doubt(es_intake_t *intake, const es_stream_t *stream)
{
    uint16_t i;

    for (i = 0; stream->attendee && i < stream->sub_count; i++) {
        if (stream->attendee->seat[i].place) {
            es_place_owe(intake, stream->attendee->seat[i].place, ES_PRESENCE_OWED);
        }
    }
}

void es_presence_owe(es_intake_t *intake, es_str_t channel)
{
    es_place_t *place = es_presence_place(intake, channel, true);

    if (place) { /* else its listeners have an old state until the next event */
        es_place_owe(intake, place, ES_PRESENCE_OWED);
    }
}

static es_err_t owe_listened(void *ctx, const es_entry_t *entry)
{
    const es_str_t name = { entry->name, entry->name_len };
    es_str_t channel;

    if (es_presence_of(name, &channel)) {
        es_presence_owe(ctx, channel);
    }
    return ES_OK;
}

void es_presence_owe_all(es_intake_t *intake)
{
    (void)es_registry_each(intake->registry, owe_listened, intake);
}

void es_presence_take_over(es_intake_t *intake, es_str_t done)
{
    json_t *o = json_loadb(done.p, done.n, 0, NULL);
    const json_t *event = json_object_get(o, "event"), *owed = json_object_get(o, "owed");
    size_t i;

    intake->event = intake->order; /* of a build without presence nothing was fleeting */
    if (json_is_integer(event) && json_integer_value(event) >= 0) {
        intake->event = (uint64_t)json_integer_value(event);
    }
    for (i = 0; i < json_array_size(owed); i++) {
        const json_t *name = json_array_get(owed, i);

        if (json_string_length(name) > 0) {
            es_presence_owe(intake,
                            (es_str_t) { json_string_value(name), json_string_length(name) });
        }
    }
    if (json_is_true(owed)) {
        es_presence_owe_all(intake);
    }
    json_decref(o);
}
