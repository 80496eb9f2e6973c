/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items: what a publisher sends. One parser over jansson values serves JSON and tnetstrings, the
 * `formats` form and the flat one in which the formats stand in the item itself (that is all that
 * pypubcontrol sends over HTTP).
 *
 * Only http-stream is kept. http-response and ws-message are checked as Pushpin checks them, so
 * that a publisher learns of its mistakes, and then only remembered as present.
 *
 * Error sentences are Pushpin's, word for word where Pushpin has one: publishers match on them.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ITEM "publish item object"

static es_err_t out_of_memory(es_detail_t *detail)
{
    return es_fail(detail, ES_ENOMEM, "out of memory");
}

void es_item_free(es_item_t *item)
{
    if (item == NULL) {
        return;
    }
    free(item->channel);
    free(item->id);
    free(item->prev_id);
    es_pairs_free(&item->meta);
    free(item->stream.content);
    free(item);
}

void es_items_free(es_items_t *items)
{
    size_t i;

    for (i = 0; i < items->n; i++) {
        es_item_free(items->v[i]);
    }
    free(items->v);
    items->v = NULL;
    items->n = 0;
}

/* ---- formats ------------------------------------------------------------------------------ */

static es_err_t read_action(const es_json_in_t *in, const json_t *format, const char *where,
                            es_action_t *ret)
{
    static const char *const names[] = { "send", "hint", "close", "refresh" };
    es_str_t action = { NULL, 0 };
    size_t i;
    es_err_t err = es_json_get_text(in, format, where, "action", false, 4096, &action);

    if (err != ES_OK) {
        return err;
    }
    if (action.p == NULL) {
        *ret = ES_ACTION_SEND;
        return ES_OK;
    }
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (es_str_is(action, names[i])) {
            *ret = (es_action_t)i;
            return ES_OK;
        }
    }
    return es_fail(in->detail, ES_EINVAL,
                   "%s contains 'action' with unknown value '%.*s': accepted are send, hint, close "
                   "and refresh",
                   where, ES_FOUND(action));
}

/* A name that is no content filter of ours is kept as ES_FILTER_NONE: the publisher asserts a
 * filter that no subscription can have, so the item reaches no stream. */
static es_err_t read_content_filters(const es_json_in_t *in, const json_t *format,
                                     es_stream_format_t *ret)
{
    static const char where[] = "'http-stream'";
    json_t *filters = NULL;
    json_t *filter;
    size_t i;
    es_err_t err = es_json_get(in, format, where, "content-filters", JSON_ARRAY, false, &filters);

    if (err != ES_OK || filters == NULL) {
        return err;
    }
    if (json_array_size(filters) > ES_MAX_FILTERS) {
        return es_fail(in->detail, ES_ETOOBIG,
                       "%s contains 'content-filters' with %zu names, at most %d", where,
                       json_array_size(filters), ES_MAX_FILTERS);
    }
    json_array_foreach(filters, i, filter)
    {
        if (!json_is_string(filter)) {
            return es_fail(in->detail, ES_EINVAL, "%s contains 'content-filters' with wrong type",
                           where);
        }
        ret->content_filters[i] = (uint8_t)es_filter_by_name(es_json_str(filter));
    }
    ret->has_content_filters = true;
    ret->content_filter_count = (uint8_t)json_array_size(filters);
    return ES_OK;
}

static es_err_t read_stream(const es_json_in_t *in, const json_t *format, es_item_t *item)
{
    static const char where[] = "'http-stream'";
    es_stream_format_t *out = &item->stream;
    es_err_t err = read_action(in, format, where, &out->action);

    if (err == ES_OK && out->action == ES_ACTION_SEND) {
        err = read_content_filters(in, format, out);
        if (err == ES_OK) {
            err = es_json_get_content(in, format, where, "content", "content-bin", &out->content,
                                      &out->content_len);
        }
        if (err == ES_OK && out->content == NULL) {
            err = es_fail(in->detail, ES_EINVAL, "%s does not contain 'content' or 'content-bin'",
                          where);
        }
    }
    out->present = err == ES_OK;
    return err;
}

static es_err_t read_response(const es_json_in_t *in, const json_t *format, es_item_t *item)
{
    static const char where[] = "'http-response'";
    es_response_t response = { .code = 0 };
    json_t *patch = NULL;
    bool has_body = false;
    es_action_t action;
    es_err_t err = read_action(in, format, where, &action);

    if (err == ES_OK && action == ES_ACTION_SEND) {
        err = es_json_get_response(in, format, where, &response, &has_body);
        if (err == ES_OK && !has_body) {
            err = es_json_get(in, format, where, "body-patch", JSON_ARRAY, false, &patch);
        }
        if (err == ES_OK && !has_body && patch == NULL) {
            err = es_fail(in->detail, ES_EINVAL,
                          "%s does not contain 'body', 'body-bin', or 'body-patch'", where);
        }
        free(response.reason);
        free(response.body);
        es_pairs_free(&response.headers);
    }
    item->has_response = err == ES_OK;
    return err;
}

static es_err_t check_message_content(const es_json_in_t *in, const json_t *format,
                                      const char *where)
{
    es_str_t type = { NULL, 0 };
    char *content = NULL;
    size_t len;
    bool control;
    es_err_t err = es_json_get_text(in, format, where, "type", false, 4096, &type);

    if (err != ES_OK) {
        return err;
    }
    control = es_str_is(type, "ping") || es_str_is(type, "pong");
    if (type.p != NULL && !control && !es_str_is(type, "text") && !es_str_is(type, "binary")) {
        return es_fail(in->detail, ES_EINVAL, "%s contains 'type' with unknown value", where);
    }
    err = es_json_get_content(in, format, where, "content", "content-bin", &content, &len);
    if (err == ES_OK && content == NULL && !control) {
        err =
            es_fail(in->detail, ES_EINVAL, "%s does not contain 'content' or 'content-bin'", where);
    }
    free(content);
    return err;
}

static es_err_t read_message(const es_json_in_t *in, const json_t *format, es_item_t *item)
{
    static const char where[] = "'ws-message'";
    es_str_t reason = { NULL, 0 };
    int64_t code = 0;
    es_action_t action;
    es_err_t err = read_action(in, format, where, &action);

    if (err == ES_OK && action == ES_ACTION_SEND) {
        err = check_message_content(in, format, where);
    }
    else if (err == ES_OK && action == ES_ACTION_CLOSE) {
        err = es_json_get_int(in, format, where, "code", 0, INT_MAX, &code);
        if (err == ES_OK) {
            err = es_json_get_text(in, format, where, "reason", false, ES_MAX_REASON, &reason);
        }
    }
    item->has_message = err == ES_OK;
    return err;
}

static es_err_t read_formats(const es_json_in_t *in, const json_t *obj, es_item_t *item)
{
    static const struct {
        const char *name;
        const char *quoted;
        es_err_t (*read)(const es_json_in_t *, const json_t *, es_item_t *);
    } known[] = { { "http-response", "'http-response'", read_response },
                  { "http-stream", "'http-stream'", read_stream },
                  { "ws-message", "'ws-message'", read_message } };
    json_t *formats = NULL;
    bool any = false;
    size_t i;
    es_err_t err = es_json_get(in, obj, ITEM, "formats", JSON_OBJECT, false, &formats);

    if (err != ES_OK) {
        return err;
    }
    any = json_object_size(formats) > 0;
    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const json_t *format = json_object_get(formats != NULL ? formats : obj, known[i].name);
        if (format == NULL) {
            continue;
        }
        any = true;
        if (!json_is_object(format)) {
            return es_fail(in->detail, ES_EINVAL, "%s is not an object", known[i].quoted);
        }
        err = known[i].read(in, format, item);
        if (err != ES_OK) {
            return err;
        }
    }
    return any ? ES_OK : es_fail(in->detail, ES_EINVAL, "no formats specified");
}

/* ---- the item ----------------------------------------------------------------------------- */

static es_err_t copy_text(const es_json_in_t *in, es_str_t text, char **ret, size_t *ret_len)
{
    if (text.p == NULL) {
        return ES_OK;
    }
    *ret = es_memdup(text.p, text.n);
    if (*ret == NULL) {
        return out_of_memory(in->detail);
    }
    if (ret_len != NULL) {
        *ret_len = text.n;
    }
    return ES_OK;
}

/* `topic.p` NULL: the channel is in the item. */
static es_err_t read_names(const es_json_in_t *in, const json_t *obj, es_str_t topic,
                           es_item_t *item)
{
    es_str_t channel = topic;
    es_str_t id = { NULL, 0 };
    es_str_t prev_id = { NULL, 0 };
    es_err_t err = ES_OK;

    if (topic.p == NULL) {
        err = es_json_get_text(in, obj, ITEM, "channel", true, ES_MAX_CHANNEL_NAME, &channel);
    }
    else if (topic.n > ES_MAX_CHANNEL_NAME) {
        err = es_fail(in->detail, ES_ETOOBIG, "topic is %zu bytes long, at most %d", topic.n,
                      ES_MAX_CHANNEL_NAME);
    }
    else if (!es_text_is_clean(topic)) {
        err = es_fail(in->detail, ES_EINVAL,
                      "topic has invalid value: CR, LF and NUL are not "
                      "accepted");
    }
    if (err == ES_OK) {
        err = es_json_get_text(in, obj, ITEM, "id", false, ES_MAX_ID, &id);
    }
    if (err == ES_OK) {
        err = es_json_get_text(in, obj, ITEM, "prev-id", false, ES_MAX_ID, &prev_id);
    }
    if (err == ES_OK) {
        err = copy_text(in, channel, &item->channel, &item->channel_len);
    }
    if (err == ES_OK) {
        err = copy_text(in, id, &item->id, NULL);
    }
    if (err == ES_OK) {
        err = copy_text(in, prev_id, &item->prev_id, NULL);
    }
    return err;
}

static es_err_t read_item(const es_json_in_t *in, const json_t *obj, es_str_t topic,
                          es_item_t **ret)
{
    json_t *no_seq = NULL;
    es_item_t *item;
    es_err_t err;

    if (!json_is_object(obj)) {
        return es_fail(in->detail, ES_EINVAL, ITEM " is not an object");
    }
    item = calloc(1, sizeof(*item));
    if (item == NULL) {
        return out_of_memory(in->detail);
    }
    item->size = -1;
    err = read_names(in, obj, topic, item);
    if (err == ES_OK) {
        err = read_formats(in, obj, item);
    }
    if (err == ES_OK) {
        err = es_json_get_meta(in, obj, ITEM, &item->meta, NULL);
    }
    if (err == ES_OK) {
        err = es_json_get_int(in, obj, ITEM, "size", 0, INT_MAX, &item->size);
    }
    if (err == ES_OK) {
        err = es_json_get(in, obj, ITEM, "no-seq", JSON_TRUE, false, &no_seq);
        item->no_seq = json_is_true(no_seq);
    }
    if (err != ES_OK) {
        es_item_free(item);
        return err;
    }
    *ret = item;
    return ES_OK;
}

static es_err_t read_items(const es_json_in_t *in, const json_t *root, es_items_t *ret)
{
    static const es_str_t no_topic = { NULL, 0 };
    json_t *list = NULL;
    es_items_t items = { NULL, 0 };
    json_t *obj;
    size_t i;
    es_err_t err = es_json_get(in, root, "object", "items", JSON_ARRAY, true, &list);

    if (err != ES_OK) {
        return err;
    }
    if (json_array_size(list) > 0) {
        items.v = calloc(json_array_size(list), sizeof(es_item_t *));
        if (items.v == NULL) {
            return out_of_memory(in->detail);
        }
    }
    json_array_foreach(list, i, obj)
    {
        err = read_item(in, obj, no_topic, &items.v[i]);
        if (err != ES_OK) {
            es_items_free(&items);
            return err;
        }
        items.n++;
    }
    *ret = items;
    return ES_OK;
}

/* Out of memory is our fault, not the format's. */
static void blame_format(es_detail_t *detail, es_err_t err)
{
    if (err != ES_OK && err != ES_ENOMEM) {
        es_detail_prefix(detail, "Invalid format: ");
    }
}

es_err_t es_items_from_json(const char *body, size_t len, es_items_t *ret, es_detail_t *detail)
{
    es_json_in_t in = { detail, false, false };
    json_t *root = NULL;
    es_err_t err;

    if (len > ES_MAX_PUBLISH_BODY) {
        return es_fail(detail, ES_ETOOBIG, "Request body too large.");
    }
    err = es_json_parse(body, len, &root, detail);
    if (err == ES_EINVAL) {
        return es_fail(detail, ES_EINVAL, "Body is not valid JSON.");
    }
    if (err != ES_OK) {
        return err;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return es_fail(detail, ES_EINVAL, "Invalid format.");
    }
    err = read_items(&in, root, ret);
    json_decref(root);
    blame_format(detail, err);
    return err;
}

static es_err_t from_packet(es_str_t topic, const char *packet, size_t len, size_t max,
                            es_item_t **ret, es_detail_t *detail)
{
    es_json_in_t in = { detail, false, true };
    es_str_t rest = { packet, len };
    json_t *root = NULL;
    es_err_t err;

    if (len > max) {
        return es_fail(detail, ES_ETOOBIG, "packet is %zu bytes long, at most %zu", len, max);
    }
    if (len == 0) {
        return es_fail(detail, ES_EINVAL, "packet is empty");
    }
    if (rest.p[0] == 'T' || rest.p[0] == 'J') {
        in.raw_bytes = rest.p[0] == 'T';
        rest.p++;
        rest.n--;
    }
    err = in.raw_bytes ? es_tnetstring_parse(rest, &root, detail)
                       : es_json_parse(rest.p, rest.n, &root, detail);
    if (err == ES_EINVAL && !in.raw_bytes) {
        es_detail_prefix(detail, "packet is not valid JSON: ");
    }
    if (err != ES_OK) {
        return err;
    }
    err = read_item(&in, root, topic, ret);
    json_decref(root);
    blame_format(detail, err);
    return err;
}

es_err_t es_item_from_topic_packet(es_str_t topic, const char *packet, size_t len, es_item_t **ret,
                                   es_detail_t *detail)
{
    return from_packet(topic, packet, len, ES_MAX_PACKET, ret, detail);
}

es_err_t es_item_from_packet(const char *packet, size_t len, es_item_t **ret, es_detail_t *detail)
{
    const es_str_t no_topic = { NULL, 0 };

    return from_packet(no_topic, packet, len, ES_MAX_PACKET, ret, detail);
}

es_err_t es_item_from_kept(es_str_t packet, es_item_t **ret, es_detail_t *detail)
{
    const es_str_t no_topic = { NULL, 0 };

    return from_packet(no_topic, packet.p, packet.n, ES_MAX_PACKET_KEPT, ret, detail);
}
