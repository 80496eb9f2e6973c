/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hold message: a GRIP instruct in its JSON form and the delivery facts beside it. Nothing else
 * describes a held stream, so what a log prints, what a child sends and what one hub hands to the
 * next is the same text. The instruct part is layer 1's; only "delivery" is read and written here.
 */
#include "es_wire.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Where a stream begins. NULL: live only, or out of memory. */
static json_t *from_to_json(const es_position_t *from)
{
    switch (from->from) {
    case ES_FROM_ID:
        /* It may be any bytes; no id of ours is damaged by this one, which is none either. */
        return json_pack("{s:s}", "id", es_text_is_utf8(es_str(from->id)) ? from->id : "");
    case ES_FROM_EARLIEST:
        return json_pack("{s:b}", "earliest", 1);
    case ES_FROM_TIME:
        return json_pack("{s:I}", "time", (json_int_t)from->time_ms);
    case ES_FROM_LAST:
        return json_pack("{s:I}", "last", (json_int_t)from->count);
    default:
        return NULL;
    }
}

/* NULL: out of memory. */
static json_t *presence_to_json(const es_delivery_t *d)
{
    json_t *o = json_pack("{s:I}", "grace", (json_int_t)d->grace_ms);

    if (o && d->member && json_object_set_new(o, "name", json_string(d->member)) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* What a stream of the native endpoint has. Unlike what serves the log alone, none of it may be
 * left out. */
static bool put_native(json_t *o, const es_delivery_t *d)
{
    const bool positioned = d->from.from != ES_FROM_NOW && d->from.from != ES_FROM_ERROR;

    return (!d->events || json_object_set_new(o, "events", json_true()) == 0) &&
           (!positioned || json_object_set_new(o, "from", from_to_json(&d->from)) == 0) &&
           (!d->presence || json_object_set_new(o, "presence", presence_to_json(d)) == 0) &&
           (d->until_ms == 0 ||
            json_object_set_new(o, "until", json_integer((json_int_t)d->until_ms)) == 0);
}

static json_t *delivery_to_json(const es_delivery_t *d)
{
    json_t *o = json_pack("{s:s}", "framing", d->chunked ? "chunked" : "raw");

    /* A request's path may hold any byte; what is not UTF-8 is left out: it serves the log alone.
     */
    if (o && d->peer) {
        json_object_set_new(o, "peer", json_string(d->peer));
    }
    if (o && d->uri) {
        json_object_set_new(o, "uri", json_string(d->uri));
    }
    if (o && d->log) {
        json_object_set_new(o, "log", json_string(d->log));
    }
    if (o && d->started_ms > 0) {
        json_object_set_new(o, "started", json_integer((json_int_t)d->started_ms));
    }
    if (o && !put_native(o, d)) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *resume_to_json(const es_resume_t *r, size_t channels)
{
    json_t *behind = json_array(), *continuous = json_array();
    bool complete = behind && continuous;
    size_t i;

    for (i = 0; i < channels && complete; i++) {
        complete = json_array_append_new(behind, json_integer((json_int_t)r->behind[i])) == 0 &&
                   json_array_append_new(continuous, json_boolean(r->continuous[i])) == 0;
    }
    if (!complete) {
        json_decref(behind);
        json_decref(continuous);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I}", "behind",
                     behind, "continuous", continuous, "bytes", (json_int_t)r->bytes, "idle",
                     (json_int_t)r->idle, "due", (json_int_t)r->due, "stalled",
                     (json_int_t)r->stalled, "ending", (json_int_t)r->ending, "replaying",
                     r->replaying, "sent", (json_int_t)r->sent, "until", (json_int_t)r->until,
                     "forgiven", (json_int_t)r->forgiven, "final", (json_int_t)r->final);
}

/* Puts what stands beside the instruct into the message. */
static es_err_t put_facts(json_t *root, const es_instruct_t *in, const es_delivery_t *d)
{
    if (json_object_set_new(root, "delivery", delivery_to_json(d)) != 0) {
        return ES_ENOMEM;
    }
    if (d->resume &&
        json_object_set_new(root, "resume", resume_to_json(d->resume, in->channel_count)) != 0) {
        return ES_ENOMEM;
    }
    return ES_OK;
}

/* Two objects, as text, become one: {"a":1} and {"b":2} are {"a":1,"b":2}. Neither is empty. */
static char *join(const char *first, size_t n, const char *second)
{
    const size_t m = strlen(second);
    char *both = malloc(n + m);

    if (both) {
        memcpy(both, first, n - 1);
        both[n - 1] = ',';
        memcpy(both + n, second + 1, m - 1);
        both[n + m - 1] = '\0';
    }
    return both;
}

es_err_t es_hold_encode(const es_instruct_t *in, const es_delivery_t *delivery, char **ret,
                        size_t *ret_len)
{
    char *text = NULL, *facts = NULL, *both = NULL;
    size_t len = 0;
    json_t *beside = json_object();
    es_err_t err = es_instruct_to_json(in, &text, &len);

    if (err == ES_OK && beside && put_facts(beside, in, delivery) == ES_OK) {
        facts = json_dumps(beside, JSON_COMPACT);
    }
    if (facts) {
        both = join(text, len, facts);
    }
    if (both) {
        *ret = both;
        *ret_len = strlen(both);
    }
    else if (err == ES_OK) {
        err = ES_ENOMEM;
    }
    free(facts);
    free(text);
    json_decref(beside);
    return err;
}

/* An optional string member; a member of another type is an error. */
static es_err_t take_string(const json_t *o, const char *name, char **ret, es_detail_t *detail)
{
    const json_t *v = json_object_get(o, name);

    if (!v) {
        return ES_OK;
    }
    if (!json_is_string(v)) {
        return es_fail(detail, ES_EINVAL, "'delivery' contains '%s' with wrong type", name);
    }
    *ret = es_memdup(json_string_value(v), json_string_length(v));
    return *ret ? ES_OK : ES_ENOMEM;
}

/* The same for a time. */
static es_err_t take_ms(const json_t *o, const char *name, uint64_t *ret, es_detail_t *detail)
{
    const json_t *v = json_object_get(o, name);

    if (!v) {
        return ES_OK;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        return es_fail(detail, ES_EINVAL, "'delivery' contains '%s' with wrong type", name);
    }
    *ret = (uint64_t)json_integer_value(v);
    return ES_OK;
}

/* A number of that name, at least `min`. */
static bool take_int(const json_t *o, const char *name, json_int_t min, int64_t *ret)
{
    const json_t *v = json_object_get(o, name);

    if (!json_is_integer(v) || json_integer_value(v) < min) {
        return false;
    }
    *ret = json_integer_value(v);
    return true;
}

static es_err_t from_from_json(const json_t *o, es_position_t *from, es_detail_t *detail)
{
    const json_t *id = json_object_get(o, "id");

    if (!o) {
        return ES_OK;
    }
    if (json_is_string(id) && json_string_length(id) < sizeof from->id &&
        strlen(json_string_value(id)) == json_string_length(id)) {
        from->from = ES_FROM_ID;
        memcpy(from->id, json_string_value(id), json_string_length(id) + 1);
    }
    else if (json_is_true(json_object_get(o, "earliest"))) {
        from->from = ES_FROM_EARLIEST;
    }
    else if (take_int(o, "time", 0, &from->time_ms)) {
        from->from = ES_FROM_TIME;
    }
    else if (take_int(o, "last", 1, &from->count) && from->count <= ES_MAX_REWIND) {
        from->from = ES_FROM_LAST;
    }
    else {
        return es_fail(detail, ES_EINVAL,
                       "'from' of 'delivery' needs 'id', 'earliest', 'time' or 'last'");
    }
    return ES_OK;
}

static es_err_t presence_from_json(const json_t *o, es_delivery_t *d, es_detail_t *detail)
{
    const json_t *name = json_object_get(o, "name");
    const es_str_t text = { json_string_value(name), json_string_length(name) };
    int64_t grace = 0;

    if (!o) {
        return ES_OK;
    }
    if (!take_int(o, "grace", 0, &grace) || grace > ES_GRACE_MAX ||
        (name && (!json_is_string(name) || !es_presence_shows(text)))) {
        return es_fail(detail, ES_EINVAL,
                       "'presence' of 'delivery' needs 'grace', 0 to %d, and may have a 'name' of "
                       "at most %d bytes",
                       ES_GRACE_MAX, ES_MAX_DISPLAY_NAME);
    }
    d->presence = true;
    d->grace_ms = (uint64_t)grace;
    if (name) {
        d->member = es_memdup(text.p, text.n);
        return d->member ? ES_OK : ES_ENOMEM;
    }
    return ES_OK;
}

static es_err_t native_from_json(const json_t *o, es_delivery_t *d, es_detail_t *detail)
{
    const json_t *events = json_object_get(o, "events");
    es_err_t err;

    if (events && !json_is_boolean(events)) {
        return es_fail(detail, ES_EINVAL, "'delivery' contains 'events' with wrong type");
    }
    d->events = json_is_true(events);
    err = from_from_json(json_object_get(o, "from"), &d->from, detail);
    if (err == ES_OK) {
        err = presence_from_json(json_object_get(o, "presence"), d, detail);
    }
    return err == ES_OK ? take_ms(o, "until", &d->until_ms, detail) : err;
}

static es_err_t delivery_from_json(const json_t *o, es_delivery_t *d, es_detail_t *detail)
{
    const char *framing = json_string_value(json_object_get(o, "framing"));
    es_err_t err;

    if (!framing || (strcmp(framing, "chunked") != 0 && strcmp(framing, "raw") != 0)) {
        return es_fail(detail, ES_EINVAL, "'delivery' needs 'framing': \"chunked\" or \"raw\"");
    }
    d->chunked = strcmp(framing, "chunked") == 0;
    err = take_string(o, "peer", &d->peer, detail);
    if (err == ES_OK) {
        err = take_string(o, "uri", &d->uri, detail);
    }
    if (err == ES_OK) {
        err = take_string(o, "log", &d->log, detail);
    }
    if (err == ES_OK) {
        err = take_ms(o, "started", &d->started_ms, detail);
    }
    return err == ES_OK ? native_from_json(o, d, detail) : err;
}

/* A count that one hub tells the next. */
static bool take_count(const json_t *v, uint64_t *ret)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        return false;
    }
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

/* One that not every build tells: 0 then. */
static bool take_optional(const json_t *v, uint64_t *ret)
{
    return !v || take_count(v, ret);
}

static es_err_t resume_from_json(const json_t *o, es_resume_t **ret, es_detail_t *detail)
{
    const json_t *behind = json_object_get(o, "behind");
    const json_t *continuous = json_object_get(o, "continuous");
    const size_t n = json_array_size(behind);
    es_resume_t *r;
    size_t i;
    bool good = n == json_array_size(continuous) && n <= ES_MAX_CHANNELS;

    if (!o) {
        return ES_OK;
    }
    r = calloc(1, sizeof *r);
    if (!r) {
        return ES_ENOMEM;
    }
    for (i = 0; i < n && good; i++) {
        good = take_count(json_array_get(behind, i), &r->behind[i]);
        r->continuous[i] = json_is_true(json_array_get(continuous, i));
    }
    if (!good || !take_count(json_object_get(o, "bytes"), &r->bytes) ||
        !take_count(json_object_get(o, "idle"), &r->idle) ||
        !take_optional(json_object_get(o, "due"), &r->due) ||
        !take_optional(json_object_get(o, "stalled"), &r->stalled) ||
        !take_optional(json_object_get(o, "sent"), &r->sent) ||
        !take_optional(json_object_get(o, "until"), &r->until) ||
        !take_optional(json_object_get(o, "forgiven"), &r->forgiven) ||
        !take_optional(json_object_get(o, "final"), &r->final) ||
        !take_count(json_object_get(o, "ending"), &r->ending)) {
        free(r);
        return es_fail(detail, ES_EINVAL, "'resume' is not what a hub writes");
    }
    r->replaying = json_is_true(json_object_get(o, "replaying"));
    *ret = r;
    return ES_OK;
}

es_err_t es_hold_decode(es_str_t json, es_instruct_t **ret, es_delivery_t *ret_delivery,
                        es_detail_t *detail)
{
    es_delivery_t d = { 0 };
    es_instruct_t *in = NULL;
    json_t *root = json_loadb(json.p, json.n, JSON_ALLOW_NUL, NULL);
    es_err_t err;

    if (!root) {
        return es_fail(detail, ES_EINVAL, "the hold message is not JSON");
    }
    err = delivery_from_json(json_object_get(root, "delivery"), &d, detail);
    if (err == ES_OK) {
        err = resume_from_json(json_object_get(root, "resume"), &d.resume, detail);
    }
    if (err == ES_OK) {
        err = es_instruct_from_json(NULL, json.p, json.n, &in, NULL, detail);
    }
    json_decref(root);
    if (err != ES_OK) {
        es_delivery_clear(&d);
        return err;
    }
    *ret = in;
    *ret_delivery = d;
    return ES_OK;
}

void es_delivery_clear(es_delivery_t *delivery)
{
    free(delivery->peer);
    free(delivery->member);
    free(delivery->uri);
    free(delivery->resume);
    free(delivery->log);
    memset(delivery, 0, sizeof *delivery);
}
