/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file events_fixture.h
 * Native event streams as a child of httpd asks for them: hold messages with "events", and the ids
 * in the hub's answers.
 */
#ifndef ES_EVENTS_FIXTURE_H
#define ES_EVENTS_FIXTURE_H

#include "handover_fixture.h"

typedef struct ev_reserved {
    char id[ES_EVENT_ID_SIZE];
    bool reset;
} ev_reserved_t;

/** Reserves an event stream on a JSON array of channels. `more` is put into "delivery": "" or
 * ", \"from\": ...". `ret` may be NULL. */
static inline void ev_reserve(int link, const char *framing, const char *channels, const char *more,
                              ev_reserved_t *ret)
{
    char hold[4096];
    char *text = NULL;
    json_t *root;
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": %s}, \"delivery\": "
                           "{\"framing\": \"%s\", \"events\": true%s}}",
                           channels, framing, more);

    assert_in_range(n, 1, sizeof hold - 1);
    if (fx_ask(link, ES_WIRE_RESERVE, (es_str_t) { hold, (size_t)n }, &text) != ES_OK) {
        fail_msg("the reservation is refused: %s", text ? text : "no answer");
    }
    root = json_loads(text, 0, NULL);
    free(text);
    assert_int_equal(json_string_length(json_object_get(root, "id")), ES_EVENT_ID_LEN);
    assert_true(json_is_boolean(json_object_get(root, "reset")));
    if (ret) {
        snprintf(ret->id, sizeof ret->id, "%s", json_string_value(json_object_get(root, "id")));
        ret->reset = json_is_true(json_object_get(root, "reset"));
    }
    json_decref(root);
}

static inline int ev_subscribe_as(int link, const char *framing, const char *channels,
                                  const char *more, ev_reserved_t *ret)
{
    ev_reserve(link, framing, channels, more, ret);
    return fx_hold_fd(link);
}

/** The same on one channel, raw. */
static inline int ev_subscribe(int link, const char *channel, const char *more, ev_reserved_t *ret)
{
    char channels[256];

    snprintf(channels, sizeof channels, "[{\"name\": \"%s\"}]", channel);
    return ev_subscribe_as(link, "raw", channels, more, ret);
}

/** The id of the one event that the answer tells; empty: none. */
static inline void ev_take_id(const char *answer, char ret_id[ES_EVENT_ID_SIZE])
{
    json_t *root = json_loads(answer, 0, NULL);
    const char *id = json_string_value(json_array_get(json_object_get(root, "ids"), 0));

    snprintf(ret_id, ES_EVENT_ID_SIZE, "%s", id ? id : "");
    json_decref(root);
}

/** Publishes any text as content; `more` are members of the item. Any thread; the hub's code. */
static inline es_err_t ev_try_publish(int link, const char *channel, const char *content,
                                      const char *more, char ret_id[ES_EVENT_ID_SIZE])
{
    json_t *quoted = json_string(content);
    char *text = json_dumps(quoted, JSON_ENCODE_ANY), *answer = NULL;
    const size_t size = strlen(text) + strlen(channel) + strlen(more) + 100;
    char *body = malloc(size);
    const int n = snprintf(body, size,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"content\": %s}}%s}]}",
                           channel, text, more);
    const es_err_t err = fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { body, (size_t)n }, &answer);

    if (err == ES_OK && ret_id) {
        ev_take_id(answer, ret_id);
    }
    free(answer);
    free(body);
    free(text);
    json_decref(quoted);
    return err;
}

static inline void ev_publish(int link, const char *channel, const char *content, const char *more,
                              char ret_id[ES_EVENT_ID_SIZE])
{
    assert_int_equal(ev_try_publish(link, channel, content, more, ret_id), ES_OK);
}

/** An item that asserts content filters; `content` is JSON text without its quotes. */
static inline void ev_publish_filtered(int link, const char *channel, const char *content,
                                       const char *filters, char *ret_id)
{
    char body[1024];
    char *answer = NULL;
    const int n = snprintf(body, sizeof body,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"content\": \"%s\", \"content-filters\": %s}}}]}",
                           channel, content, filters);

    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { body, (size_t)n }, &answer), ES_OK);
    if (ret_id) {
        ev_take_id(answer, ret_id);
    }
    free(answer);
}

#endif
