/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON of the native endpoint's requests to the hub and of the answers, for the child's side:
 * src/httpd knows no JSON of its own. What the hub says is checked like any other input: after a
 * reload it may be of another build.
 */
#include "es_wire.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static es_err_t dump(json_t *root, char **ret, size_t *ret_len)
{
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    if (!text) {
        return ES_ENOMEM;
    }
    *ret = text;
    if (ret_len) {
        *ret_len = strlen(text);
    }
    return ES_OK;
}

es_err_t es_channel_encode(const char *name, bool presence, char **ret, size_t *ret_len)
{
    if (!es_text_is_utf8(es_str(name))) {
        return ES_EINVAL;
    }
    return dump(presence ? json_pack("{s:s, s:b}", "channel", name, "presence", 1)
                         : json_pack("{s:s}", "channel", name),
                ret, ret_len);
}

static json_t *item(const char *name, const char *id, es_str_t content)
{
    json_t *o = json_pack("{s:s, s:{s:s%}}", "channel", name, "http-stream", "content", content.p,
                          content.n);

    if (o && id && json_object_set_new(o, "id", json_string(id)) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

es_err_t es_publish_encode(const char *const *names, size_t n, const char *id, es_str_t content,
                           char **ret, size_t *ret_len)
{
    json_t *items = json_array();
    char *text = NULL;
    size_t i, len = 0;
    es_err_t err;

    if (!es_text_is_utf8(content) || (id && !es_text_is_utf8(es_str(id)))) {
        json_decref(items);
        return ES_EINVAL;
    }
    /* Escapes only make it longer. */
    if (content.n > ES_MAX_PUBLISH_BODY || content.n * n > ES_MAX_PUBLISH_BODY) {
        json_decref(items);
        return ES_ETOOBIG;
    }
    for (i = 0; i < n; i++) {
        if (!es_text_is_utf8(es_str(names[i]))) {
            json_decref(items);
            return ES_EINVAL;
        }
        if (json_array_append_new(items, item(names[i], id, content)) != 0) {
            json_decref(items);
            return ES_ENOMEM;
        }
    }
    err = items ? dump(json_pack("{s:o}", "items", items), &text, &len) : ES_ENOMEM;
    if (err == ES_OK && len > ES_MAX_PUBLISH_BODY) {
        free(text);
        return ES_ETOOBIG;
    }
    if (err == ES_OK) {
        *ret = text;
        *ret_len = len;
    }
    return err;
}

bool es_text_is_json(es_str_t text)
{
    json_t *root =
        text.n > 0 ? json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    const bool is = root != NULL;

    json_decref(root);
    return is;
}

/* A text from the hub as an object. */
static es_err_t load(es_str_t json, json_t **ret, es_detail_t *detail)
{
    *ret = json.n > 0 ? json_loadb(json.p, json.n, 0, NULL) : NULL;
    return json_is_object(*ret) ? ES_OK
                                : es_fail(detail, ES_EINVAL, "the hub's answer is no JSON object");
}

es_err_t es_reserved_decode(es_str_t json, char **ret_id, bool *ret_reset, es_detail_t *detail)
{
    json_t *root = NULL;
    es_err_t err = load(json, &root, detail);
    const json_t *id = json_object_get(root, "id");
    char *copy = NULL;

    if (err == ES_OK && json_is_string(id)) {
        copy = es_memdup(json_string_value(id), json_string_length(id));
        err = copy ? ES_OK : es_fail(detail, ES_ENOMEM, "out of memory");
    }
    if (err == ES_OK) {
        *ret_id = copy;
        *ret_reset = json_is_true(json_object_get(root, "reset"));
    }
    json_decref(root);
    return err;
}

es_err_t es_published_to_json(es_str_t json, char **ret, es_detail_t *detail)
{
    json_t *root = NULL;
    es_err_t err = load(json, &root, detail);
    const json_t *ids = json_object_get(root, "ids");
    const json_t *receivers = json_object_get(root, "receivers");
    const size_t n = json_array_size(ids);
    json_int_t sum = 0;
    size_t i;

    if (err == ES_OK && (n == 0 || json_array_size(receivers) != n)) {
        err = es_fail(detail, ES_EINVAL, "the hub's answer lacks 'ids' or 'receivers'");
    }
    for (i = 0; err == ES_OK && i < n; i++) {
        sum += json_integer_value(json_array_get(receivers, i));
    }
    if (err == ES_OK) {
        err = dump(json_pack("{s:O, s:I}", "id", json_array_get(ids, n - 1), "receivers", sum), ret,
                   NULL);
    }
    json_decref(root);
    return err;
}

es_err_t es_info_to_json(const char *const *asked, const char *const *answers, size_t n, char **ret,
                         es_detail_t *detail)
{
    json_t *list = json_array();
    es_err_t err = list ? ES_OK : ES_ENOMEM;
    size_t i;

    for (i = 0; err == ES_OK && i < n; i++) {
        json_t *info = NULL, *one = json_pack("{s:s}", "channel", asked[i]);

        err = load(es_str(answers[i]), &info, detail);
        if (err == ES_OK &&
            (!one || json_object_update(one, info) != 0 || json_array_append(list, one) != 0)) {
            err = es_fail(detail, ES_ENOMEM, "out of memory");
        }
        json_decref(info);
        json_decref(one);
    }
    if (err != ES_OK) {
        json_decref(list);
        return err;
    }
    return dump(json_pack("{s:o}", "channels", list), ret, NULL);
}
