/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instruct as JSON text, the inverse of instruct_json.c. Member order is fixed and nothing
 * depends on time or place, so equal instructs give equal text.
 *
 * Values are made and set in one step (put): jansson frees the value when setting fails, so a
 * function that fails has nothing to clean up but the object that it was given.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

/* Takes over `value`, which may be NULL when making it failed. */
static es_err_t put(json_t *obj, const char *name, json_t *value)
{
    return json_object_set_new_nocheck(obj, name, value) == 0 ? ES_OK : ES_ENOMEM;
}

static es_err_t put_text(json_t *obj, const char *name, es_str_t text)
{
    if (!es_text_is_utf8(text)) {
        return ES_EINVAL;
    }
    return put(obj, name, json_stringn_nocheck(text.p, text.n));
}

static es_err_t put_channel(json_t *list, const es_sub_spec_t *spec)
{
    json_t *obj = json_object();
    json_t *filters = NULL;
    es_str_t name = { spec->name, spec->name_len };
    es_err_t err;
    size_t i;

    /* The list owns the object from here on; a NULL object is refused. */
    if (json_array_append_new(list, obj) != 0) {
        return ES_ENOMEM;
    }
    err = put_text(obj, "name", name);
    if (err == ES_OK && spec->prev_id != NULL) {
        err = put_text(obj, "prev-id", es_str(spec->prev_id));
    }
    if (err != ES_OK || spec->filter_count == 0) {
        return err;
    }
    filters = json_array();
    err = put(obj, "filters", filters);
    for (i = 0; i < spec->filter_count && err == ES_OK; i++) {
        const char *filter = es_filter_name((es_filter_t)spec->filters[i]);
        if (filter == NULL) {
            return ES_EINVAL;
        }
        err = json_array_append_new(filters, json_string(filter)) == 0 ? ES_OK : ES_ENOMEM;
    }
    return err;
}

static es_err_t put_keep_alive(json_t *hold, const es_instruct_t *in)
{
    es_str_t content = { in->keep_alive, in->keep_alive_len };
    json_t *obj = json_object();
    char *base64 = NULL;
    size_t base64_len;
    es_err_t err = put(hold, "keep-alive", obj);

    if (err != ES_OK) {
        return err;
    }
    if (es_text_is_utf8(content)) {
        err = put_text(obj, "content", content);
    }
    else {
        err = es_base64_encode(content, &base64, &base64_len);
        if (err == ES_OK) {
            err = put(obj, "content-bin", json_stringn_nocheck(base64, base64_len));
            free(base64);
        }
    }
    if (err == ES_OK) {
        err = put(obj, "timeout", json_integer(in->keep_alive_timeout));
    }
    if (err == ES_OK) {
        bool idle = in->keep_alive_mode == ES_KEEP_ALIVE_IDLE;
        err = put(obj, "mode", json_string(idle ? "idle" : "interval"));
    }
    return err;
}

static es_err_t put_meta(json_t *hold, const es_pairs_t *meta)
{
    json_t *obj = json_object();
    es_err_t err = put(hold, "meta", obj);
    size_t i;

    for (i = 0; i < meta->n && err == ES_OK; i++) {
        const es_pair_t *pair = &meta->v[i];
        es_str_t value = { pair->value, pair->value_len };
        err = es_text_is_utf8(es_str(pair->name)) ? put_text(obj, pair->name, value) : ES_EINVAL;
    }
    return err;
}

static es_err_t put_hold(json_t *root, const es_instruct_t *in)
{
    static const char *const modes[] = { "none", "stream", "response" };
    json_t *hold = json_object();
    json_t *channels = NULL;
    es_err_t err = put(root, "hold", hold);
    size_t i;

    if (err == ES_OK) {
        err = put(hold, "mode", json_string(modes[in->hold]));
    }
    if (err == ES_OK) {
        channels = json_array();
        err = put(hold, "channels", channels);
    }
    for (i = 0; i < in->channel_count && err == ES_OK; i++) {
        err = put_channel(channels, &in->channels[i]);
    }
    if (err == ES_OK) {
        err = put(hold, "timeout", json_integer(in->timeout));
    }
    if (err == ES_OK && in->keep_alive != NULL) {
        err = put_keep_alive(hold, in);
    }
    if (err == ES_OK && in->meta.n > 0) {
        err = put_meta(hold, &in->meta);
    }
    return err;
}

static es_err_t put_rest(json_t *root, const es_instruct_t *in)
{
    es_err_t err = ES_OK;
    json_t *names;
    size_t i;

    if (in->status != 0) {
        err = put(root, "status", json_integer(in->status));
        if (err == ES_OK && in->reason != NULL) {
            err = put_text(root, "reason", es_str(in->reason));
        }
    }
    if (err != ES_OK || in->expose_count == 0) {
        return err;
    }
    names = json_array();
    err = put(root, "expose-headers", names);
    for (i = 0; i < in->expose_count && err == ES_OK; i++) {
        err = json_array_append_new(names, json_string(in->expose[i])) == 0 ? ES_OK : ES_ENOMEM;
    }
    return err;
}

es_err_t es_instruct_to_json(const es_instruct_t *in, char **ret, size_t *ret_len)
{
    json_t *root = json_object();
    char *text = NULL;
    es_err_t err;

    if (root == NULL) {
        return ES_ENOMEM;
    }
    err = put_hold(root, in);
    if (err == ES_OK) {
        err = put_rest(root, in);
    }
    if (err == ES_OK) {
        text = json_dumps(root, JSON_COMPACT);
        err = text == NULL ? ES_ENOMEM : ES_OK;
    }
    json_decref(root);
    if (err == ES_OK) {
        *ret = text;
        *ret_len = strlen(text);
    }
    return err;
}
