/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An item as a ZeroMQ packet, the inverse of es_item_from_packet: what one hub tells the next of a
 * message that is still to be delivered. The tnetstring form, because content may be any bytes.
 *
 * A tnetstring says its length first, so every object is made whole before it goes into the one
 * around it.
 */
#include "grip_int.h"

#include <string.h>

static es_err_t put(es_buf_t *out, es_str_t text, char type)
{
    es_err_t err = es_buf_addf(out, "%zu:", text.n);

    if (err == ES_OK) {
        err = es_buf_add(out, text.p, text.n);
    }
    return err == ES_OK ? es_buf_add(out, &type, 1) : err;
}

static es_err_t put_member(es_buf_t *out, const char *name, es_str_t value, char type)
{
    const es_err_t err = put(out, es_str(name), ',');

    return err == ES_OK ? put(out, value, type) : err;
}

/* The member `name` with what `made` holds, if making it went well. Empties `made`. */
static es_err_t put_made(es_buf_t *out, const char *name, es_buf_t *made, char type, es_err_t err)
{
    if (err == ES_OK) {
        err = put_member(out, name, (es_str_t) { made->p ? made->p : "", made->n }, type);
    }
    es_buf_free(made);
    return err;
}

static es_err_t put_filters(es_buf_t *out, const es_stream_format_t *format)
{
    es_buf_t list;
    es_err_t err = ES_OK;
    uint8_t i;

    es_buf_init(&list, out->max);
    for (i = 0; i < format->content_filter_count && err == ES_OK; i++) {
        const char *name = es_filter_name((es_filter_t)format->content_filters[i]);

        err = put(&list, es_str(name ? name : "unknown"), ',');
    }
    return put_made(out, "content-filters", &list, ']', err);
}

static es_err_t put_format(es_buf_t *out, const es_item_t *item, es_str_t content)
{
    static const char *const actions[] = { "send", "hint", "close", "refresh" };
    es_buf_t format;
    es_err_t err;

    es_buf_init(&format, out->max);
    err = put_member(&format, "action", es_str(actions[item->stream.action]), ',');
    if (err == ES_OK && item->stream.action == ES_ACTION_SEND) {
        err = put_member(&format, "content", content, ',');
    }
    if (err == ES_OK && item->stream.has_content_filters) {
        err = put_filters(&format, &item->stream);
    }
    return put_made(out, "http-stream", &format, '}', err);
}

static es_err_t put_meta(es_buf_t *out, const es_pairs_t *meta)
{
    es_buf_t map;
    es_err_t err = ES_OK;
    size_t i;

    es_buf_init(&map, out->max);
    for (i = 0; i < meta->n && err == ES_OK; i++) {
        err = put_member(&map, meta->v[i].name,
                         (es_str_t) { meta->v[i].value, meta->v[i].value_len }, ',');
    }
    return put_made(out, "meta", &map, '}', err);
}

static es_err_t put_item(es_buf_t *out, const es_item_t *item, es_str_t content)
{
    es_buf_t formats;
    es_err_t err = put_member(out, "channel", (es_str_t) { item->channel, item->channel_len }, ',');

    if (err == ES_OK && item->id) {
        err = put_member(out, "id", es_str(item->id), ',');
    }
    if (err == ES_OK && item->prev_id) {
        err = put_member(out, "prev-id", es_str(item->prev_id), ',');
    }
    if (err == ES_OK && item->no_seq) {
        err = put_member(out, "no-seq", es_str("true"), '!');
    }
    if (err == ES_OK && item->meta.n > 0) {
        err = put_meta(out, &item->meta);
    }
    if (err != ES_OK) {
        return err;
    }
    es_buf_init(&formats, out->max);
    return put_made(out, "formats", &formats, '}', put_format(&formats, item, content));
}

es_err_t es_item_to_packet(const es_item_t *item, es_str_t content, es_buf_t *out)
{
    const size_t before = out->n;
    es_buf_t body;
    es_err_t err;

    es_buf_init(&body, out->max);
    err = put_item(&body, item, content);
    if (err == ES_OK) {
        err = es_buf_add(out, "T", 1);
    }
    if (err == ES_OK) {
        err = put(out, (es_str_t) { body.p, body.n }, '}');
    }
    es_buf_free(&body);
    if (err != ES_OK) {
        out->n = before;
    }
    return err;
}
