/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence: who is on which channel, for streams of locations with EventStreamPresence.
 *
 * A member is a name on a channel, however many streams it has there: it comes with the first and
 * leaves with the last, and that only when its grace is over and it has not come back, so that a
 * page that is loaded anew is no event. Streams without a name are counted, and come and go each on
 * their own. What the listeners are told of it is presence_tell.c's.
 *
 * A stream joins when it is held and leaves when its loop has given it back. A place and a member
 * exist as long as somebody needs them: the table is no larger than the streams are many times
 * their channels, and the members in their grace, who are bounded by a number: one more leaves at
 * once.
 *
 * At a hand-over streams carry their names along, and join the next hub's table without a word.
 *
 * The intake's thread.
 */
#include "presence_int.h"

#include <apr_pools.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = sizeof(es_place_t *) + ES_MAX_DISPLAY_NAME };

es_err_t es_presence_make(es_intake_t *intake)
{
    es_presence_t *p = calloc(1, sizeof *p);

    if (!p) {
        return ES_ENOMEM;
    }
    if (apr_pool_create(&p->pool, NULL) != APR_SUCCESS) {
        free(p);
        return ES_ENOMEM;
    }
    p->places = apr_hash_make(p->pool);
    p->members = apr_hash_make(p->pool);
    es_wheel_init(&p->wheel, es_now(intake->config));
    intake->presence = p;
    return ES_OK;
}

void es_presence_free(es_intake_t *intake)
{
    es_presence_t *p = intake->presence;
    apr_hash_index_t *i;

    if (!p) {
        return;
    }
    for (i = apr_hash_first(p->pool, p->members); i; i = apr_hash_next(i)) {
        free(apr_hash_this_val(i));
    }
    for (i = apr_hash_first(p->pool, p->places); i; i = apr_hash_next(i)) {
        free(apr_hash_this_val(i));
    }
    apr_pool_destroy(p->pool);
    free(p);
    intake->presence = NULL;
}

/* ---- places ---- */

static es_place_t *make_place(es_presence_t *p, es_str_t channel)
{
    es_place_t *place = calloc(1, sizeof *place + channel.n + sizeof ES_PRESENCE_SUFFIX);

    if (place) {
        place->len = channel.n;
        memcpy(place->name, channel.p, channel.n);
        memcpy(place->name + channel.n, ES_PRESENCE_SUFFIX, sizeof ES_PRESENCE_SUFFIX);
        apr_hash_set(p->places, place->name, (apr_ssize_t)place->len, place);
    }
    return place;
}

es_place_t *es_presence_place(es_intake_t *intake, es_str_t channel, bool make)
{
    es_presence_t *p = intake->presence;
    es_place_t *place = apr_hash_get(p->places, channel.p, (apr_ssize_t)channel.n);

    return place || !make ? place : make_place(p, channel);
}

void es_place_drop_if_idle(es_intake_t *intake, es_place_t *place)
{
    if (place->streams == 0 && place->members == 0 && !place->window.timer.next) {
        apr_hash_set(intake->presence->places, place->name, (apr_ssize_t)place->len, NULL);
        free(place);
    }
}

/* ---- members ---- */

static es_member_t *find_or_make(es_presence_t *p, es_place_t *place, es_str_t name)
{
    char key[KEY_MAX];
    const size_t n = sizeof place + name.n;
    es_member_t *m;

    memcpy(key, &place, sizeof place);
    memcpy(key + sizeof place, name.p, name.n);
    m = apr_hash_get(p->members, key, (apr_ssize_t)n);
    if (m) {
        return m;
    }
    m = calloc(1, sizeof *m + n);
    if (!m) {
        return NULL;
    }
    m->grace.of_member = true;
    m->place = place;
    m->key_len = n;
    memcpy(m->key, key, n);
    apr_hash_set(p->members, m->key, (apr_ssize_t)n, m);
    m->prev = place->last;
    if (m->prev) {
        m->prev->next = m;
    }
    else {
        place->first = m;
    }
    place->last = m;
    place->members++;
    return m;
}

/* It has left for good. */
static void gone(es_intake_t *intake, es_member_t *m)
{
    es_place_t *place = m->place;

    apr_hash_set(intake->presence->members, m->key, (apr_ssize_t)m->key_len, NULL);
    if (m->prev) {
        m->prev->next = m->next;
    }
    else {
        place->first = m->next;
    }
    if (m->next) {
        m->next->prev = m->prev;
    }
    else {
        place->last = m->prev;
    }
    place->members--;
    es_place_tell(intake, place, "leave", es_member_name(m));
    free(m);
}

/* The end of a grace, whatever ends it. */
static void stop_grace(es_presence_t *p, es_member_t *m)
{
    es_wheel_disarm(&p->wheel, &m->grace.timer);
    m->place->leaving--;
    p->leaving--;
}

/* ---- streams ---- */

es_err_t es_presence_attend(es_stream_t *stream, size_t channels, const es_delivery_t *delivery)
{
    const size_t len = delivery->member ? strlen(delivery->member) : 0;
    const size_t size = sizeof *stream->attendee + channels * sizeof stream->attendee->seat[0];
    es_attendee_t *a;
    char *name;

    if (!delivery->presence) {
        return ES_OK;
    }
    a = calloc(1, size + len + 1);
    if (!a) {
        return ES_ENOMEM;
    }
    a->grace_ms = (uint32_t)delivery->grace_ms;
    name = (char *)a + size;
    if (len > 0) {
        memcpy(name, delivery->member, len);
        a->name = name;
    }
    stream->attendee = a;
    return ES_OK;
}

const char *es_presence_name(const es_stream_t *stream, uint64_t *ret_grace_ms)
{
    *ret_grace_ms = stream->attendee ? stream->attendee->grace_ms : 0;
    return stream->attendee ? stream->attendee->name : NULL;
}

/* One more stream at the place. `*ret_came`: somebody who was not there. */
static es_err_t enter(es_intake_t *intake, es_place_t *place, const char *name, es_member_t **ret,
                      bool *ret_came)
{
    es_presence_t *p = intake->presence;
    es_member_t *m = NULL;

    *ret_came = true;
    if (name) {
        m = find_or_make(p, place, es_str(name));
        if (!m) {
            return ES_ENOMEM;
        }
        *ret_came = m->streams == 0 && !m->grace.timer.next;
        if (m->grace.timer.next) {
            stop_grace(p, m);
        }
        m->streams++;
    }
    place->streams++;
    *ret = m;
    return ES_OK;
}

static void join(es_intake_t *intake, es_stream_t *s, bool tell)
{
    es_attendee_t *a = s->attendee;
    uint16_t i;

    for (i = 0; a && i < s->sub_count; i++) {
        const es_str_t channel = { s->subs[i].channel->name, s->subs[i].channel->name_len };
        es_place_t *place;
        es_member_t *m = NULL;
        bool came = false;

        if (es_presence_of(channel, NULL)) {
            continue; /* nobody is announced for listening */
        }
        place = es_presence_place(intake, channel, true);
        if (!place || enter(intake, place, a->name, &m, &came) != ES_OK) {
            if (place) {
                es_place_drop_if_idle(intake, place);
            }
            if (es_tame_admits(intake, &intake->not_counted)) {
                es_log(&intake->config->log, ES_LOG_ERR, "ES0390",
                       "out of memory: a stream is missing in the presence of channel %.*s",
                       (int)channel.n, channel.p);
            }
            continue;
        }
        a->seat[i].place = place;
        a->seat[i].member = m;
        if (came && tell) {
            es_place_tell(intake, place, "join", es_str(a->name));
        }
    }
}

void es_presence_join(es_intake_t *intake, es_stream_t *stream)
{
    join(intake, stream, true);
}

void es_presence_resume(es_intake_t *intake, es_stream_t *stream)
{
    join(intake, stream, false);
}

static void leave(es_intake_t *intake, es_member_t *m, uint32_t grace_ms)
{
    es_presence_t *p = intake->presence;

    if (--m->streams > 0) {
        return;
    }
    if (grace_ms == 0 || p->leaving >= ES_PRESENCE_LEAVING) {
        gone(intake, m);
        return;
    }
    es_wheel_arm(&p->wheel, &m->grace.timer, es_now(intake->config) + grace_ms);
    m->place->leaving++;
    p->leaving++;
}

void es_presence_leave(es_intake_t *intake, es_stream_t *stream)
{
    es_attendee_t *a = stream->attendee;
    uint16_t i;

    for (i = 0; a && i < stream->sub_count; i++) {
        es_place_t *place = a->seat[i].place;

        if (!place) {
            continue;
        }
        a->seat[i].place = NULL;
        place->streams--;
        if (a->seat[i].member) {
            leave(intake, a->seat[i].member, a->grace_ms);
        }
        else {
            es_place_tell(intake, place, "leave", es_str(NULL));
        }
        es_place_drop_if_idle(intake, place);
    }
}

/* ---- time ---- */

static void fire(void *ctx, es_timer_t *timer)
{
    es_intake_t *intake = ctx;
    es_alarm_t *alarm = (es_alarm_t *)(void *)timer;
    es_place_t *place = (es_place_t *)(void *)alarm;

    if (alarm->of_member) {
        es_member_t *m = (es_member_t *)(void *)alarm;

        place = m->place;
        stop_grace(intake->presence, m);
        gone(intake, m);
    }
    else {
        es_place_window_over(intake, place);
    }
    es_place_drop_if_idle(intake, place);
}

void es_presence_run(es_intake_t *intake)
{
    es_wheel_run(&intake->presence->wheel, es_now(intake->config), fire, intake);
}

int es_presence_timeout(const es_intake_t *intake)
{
    return es_wheel_timeout(&intake->presence->wheel, es_now(intake->config));
}
