/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads members of JSON objects, whether they came as JSON or as a tnetstring, with the error
 * sentences of Pushpin: "<where> does not contain 'x'", "<where> contains 'x' with wrong type",
 * "<where> contains 'x' with invalid value".
 *
 * Two rules of Pushpin that are easy to miss: an optional member that is null counts as absent, and
 * a number may be written as a string.
 *
 * jansson owns every string that is handed out here: it lives as long as the object it is from.
 */
#include "grip_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char *type_name(json_type type)
{
    switch (type) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "list";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

static es_err_t wrong_type(const es_json_in_t *in, const char *where, const char *name,
                           const json_t *found, const char *accepted)
{
    if (in->explain) {
        return es_fail(in->detail, ES_EINVAL,
                       "%s contains '%s' with wrong type: found %s, accepted %s", where, name,
                       type_name(json_typeof(found)), accepted);
    }
    return es_fail(in->detail, ES_EINVAL, "%s contains '%s' with wrong type", where, name);
}

static es_err_t out_of_memory(const es_json_in_t *in)
{
    return es_fail(in->detail, ES_ENOMEM, "out of memory");
}

es_str_t es_json_str(const json_t *string)
{
    es_str_t s = { json_string_value(string), json_string_length(string) };
    return s;
}

es_err_t es_json_parse(const char *text, size_t len, json_t **ret, es_detail_t *detail)
{
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_ALLOW_NUL, &error);

    if (root != NULL) {
        *ret = root;
        return ES_OK;
    }
    /* Every syntax error has a text. Where an allocation fails, jansson 2.14 often says nothing at
     * all, not even in the code, which is then whatever was there before. (Where its lexer cannot
     * keep a string, it reports a syntax error: nobody can tell that from a real one.) */
    if (error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    return es_fail(detail, ES_EINVAL, "line %d column %d: %s", error.line, error.column,
                   error.text);
}

es_err_t es_json_get(const es_json_in_t *in, const json_t *obj, const char *where, const char *name,
                     json_type type, bool required, json_t **ret)
{
    json_t *value = json_object_get(obj, name);

    if (value != NULL && json_is_null(value) && !required) {
        value = NULL;
    }
    if (value == NULL) {
        if (required) {
            return es_fail(in->detail, ES_EINVAL, "%s does not contain '%s'", where, name);
        }
        *ret = NULL;
        return ES_OK;
    }
    if (json_typeof(value) != type && !(type == JSON_TRUE && json_is_boolean(value))) {
        return wrong_type(in, where, name, value, type_name(type));
    }
    *ret = value;
    return ES_OK;
}

es_err_t es_json_get_text(const es_json_in_t *in, const json_t *obj, const char *where,
                          const char *name, bool required, size_t max, es_str_t *ret)
{
    json_t *value = NULL;
    es_str_t text = { NULL, 0 };
    es_err_t err = es_json_get(in, obj, where, name, JSON_STRING, required, &value);

    if (err != ES_OK) {
        return err;
    }
    if (value != NULL) {
        text = es_json_str(value);
        if (text.n > max) {
            return es_fail(in->detail, ES_ETOOBIG, "%s contains '%s' of %zu bytes, at most %zu",
                           where, name, text.n, max);
        }
        if (!es_text_is_clean(text)) {
            return es_fail(in->detail, ES_EINVAL,
                           "%s contains '%s' with invalid value: CR, LF and NUL are not accepted",
                           where, name);
        }
    }
    *ret = text;
    return ES_OK;
}

/* A number out of any of the forms that Pushpin takes one from. */
static bool to_number(const json_t *value, int64_t *ret, bool *ret_in_range)
{
    double real;

    *ret_in_range = true;
    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return true;
    }
    if (json_is_real(value)) {
        real = json_real_value(value);
        *ret_in_range = real > -9e15 && real < 9e15;
        *ret = *ret_in_range ? (int64_t)real : 0;
        return true;
    }
    return json_is_string(value) && es_str_to_int(es_str_trim(es_json_str(value)), ret);
}

es_err_t es_json_get_int(const es_json_in_t *in, const json_t *obj, const char *where,
                         const char *name, int64_t min, int64_t max, int64_t *io)
{
    const json_t *value = json_object_get(obj, name);
    int64_t number = 0;
    bool in_range;

    if (value == NULL || json_is_null(value)) {
        return ES_OK;
    }
    if (!to_number(value, &number, &in_range)) {
        return wrong_type(in, where, name, value, "a whole number");
    }
    if (!in_range || number < min || number > max) {
        if (in->explain) {
            return es_fail(in->detail, ES_EINVAL,
                           "%s contains '%s' with invalid value: accepted is %lld to %lld", where,
                           name, (long long)min, (long long)max);
        }
        return es_fail(in->detail, ES_EINVAL, "%s contains '%s' with invalid value", where, name);
    }
    *io = number;
    return ES_OK;
}

static es_err_t content_from_bin(const es_json_in_t *in, es_str_t bin, char **ret, size_t *ret_len)
{
    es_err_t err;

    /* A tnetstring carries raw bytes, but pypubcontrol puts base64 text there too. */
    if (in->raw_bytes && (bin.n % 4 != 0 || es_base64_check(bin) != bin.n)) {
        *ret = es_memdup(bin.p, bin.n);
        *ret_len = bin.n;
        return *ret == NULL ? out_of_memory(in) : ES_OK;
    }
    err = es_base64_decode(bin, false, ret, ret_len);
    return err == ES_OK ? ES_OK : out_of_memory(in);
}

es_err_t es_json_get_content(const es_json_in_t *in, const json_t *obj, const char *where,
                             const char *text, const char *bin, char **ret, size_t *ret_len)
{
    json_t *text_value = NULL;
    json_t *bin_value = NULL;
    char *copy = NULL;
    size_t len = 0;
    es_err_t err;

    err = es_json_get(in, obj, where, bin, JSON_STRING, false, &bin_value);
    /* In a tnetstring the text may hold any byte and is what Pushpin reads; else bin goes first. */
    if (err == ES_OK && (bin_value == NULL || in->raw_bytes)) {
        err = es_json_get(in, obj, where, text, JSON_STRING, false, &text_value);
    }
    if (err != ES_OK) {
        return err;
    }
    if (text_value != NULL) {
        len = json_string_length(text_value);
        copy = es_memdup(json_string_value(text_value), len);
        if (copy == NULL) {
            return out_of_memory(in);
        }
    }
    else if (bin_value != NULL) {
        err = content_from_bin(in, es_json_str(bin_value), &copy, &len);
        if (err != ES_OK) {
            return err;
        }
    }
    *ret = copy;
    *ret_len = len;
    return ES_OK;
}

es_err_t es_json_get_meta(const es_json_in_t *in, const json_t *obj, const char *where,
                          es_pairs_t *io, bool *ret_given)
{
    es_pairs_t meta = { NULL, 0 };
    json_t *value = NULL;
    json_t *member;
    const char *key;
    es_err_t err = es_json_get(in, obj, where, "meta", JSON_OBJECT, false, &value);

    if (err != ES_OK) {
        return err;
    }
    if (ret_given != NULL) {
        *ret_given = value != NULL;
    }
    if (value == NULL) {
        return ES_OK;
    }
    json_object_foreach(value, key, member)
    {
        if (!json_is_string(member)) {
            es_str_t found = es_str(key);
            err = es_fail(in->detail, ES_EINVAL, "'meta' contains '%.*s' with wrong type",
                          ES_FOUND(found));
        }
        else {
            err = es_meta_set(&meta, "'meta'", es_str(key), es_json_str(member), in->detail);
        }
        if (err != ES_OK) {
            es_pairs_free(&meta);
            return err;
        }
    }
    es_pairs_free(io);
    *io = meta;
    return ES_OK;
}

/* ---- responses ---------------------------------------------------------------------------- */

static es_err_t add_header(const es_json_in_t *in, const json_t *name, const json_t *value,
                           es_pairs_t *io)
{
    es_str_t n, v;

    if (!json_is_string(name) || !json_is_string(value)) {
        return es_fail(in->detail, ES_EINVAL, "headers contains element with wrong type");
    }
    n = es_json_str(name);
    v = es_json_str(value);
    if (!es_text_is_header_name(n)) {
        return es_fail(in->detail, ES_EINVAL, "headers contains invalid name '%.*s'", ES_FOUND(n));
    }
    if (!es_text_is_clean(v)) {
        return es_fail(in->detail, ES_EINVAL, "headers contains '%.*s' with CR, LF or NUL",
                       ES_FOUND(n));
    }
    if (n.n > 5 && es_is_grip_header(n.p)) {
        return ES_OK;
    }
    if (io->n == ES_MAX_HEADERS) {
        return es_fail(in->detail, ES_ETOOBIG, "headers contains over %d elements", ES_MAX_HEADERS);
    }
    return es_pairs_add(io, n, v) == ES_OK ? ES_OK : out_of_memory(in);
}

static es_err_t read_header_object(const es_json_in_t *in, json_t *headers, es_pairs_t *io)
{
    const char *key;
    json_t *value;
    es_err_t err = ES_OK;

    json_object_foreach(headers, key, value)
    {
        json_t *name = json_string_nocheck(key);
        err = name == NULL ? out_of_memory(in) : add_header(in, name, value, io);
        json_decref(name);
        if (err != ES_OK) {
            break;
        }
    }
    return err;
}

static es_err_t read_header_list(const es_json_in_t *in, json_t *headers, es_pairs_t *io)
{
    size_t i;
    json_t *pair;
    es_err_t err = ES_OK;

    json_array_foreach(headers, i, pair)
    {
        if (!json_is_array(pair)) {
            return es_fail(in->detail, ES_EINVAL, "headers contains element with wrong type");
        }
        if (json_array_size(pair) != 2) {
            return es_fail(in->detail, ES_EINVAL,
                           "headers contains list with wrong number of elements");
        }
        err = add_header(in, json_array_get(pair, 0), json_array_get(pair, 1), io);
        if (err != ES_OK) {
            break;
        }
    }
    return err;
}

static es_err_t get_headers(const es_json_in_t *in, const json_t *obj, const char *where,
                            es_pairs_t *io)
{
    json_t *headers = json_object_get(obj, "headers");

    if (headers == NULL || json_is_null(headers)) {
        return ES_OK;
    }
    if (json_is_object(headers)) {
        return read_header_object(in, headers, io);
    }
    if (json_is_array(headers)) {
        return read_header_list(in, headers, io);
    }
    return wrong_type(in, where, "headers", headers, "object or list of pairs");
}

es_err_t es_json_get_response(const es_json_in_t *in, const json_t *obj, const char *where,
                              es_response_t *ret, bool *ret_has_body)
{
    es_response_t out = { .code = 200 };
    int64_t code = 200;
    es_str_t reason = { NULL, 0 };
    es_err_t err = es_json_get_int(in, obj, where, "code", 100, 999, &code);

    if (err == ES_OK) {
        err = es_json_get_text(in, obj, where, "reason", false, ES_MAX_REASON, &reason);
    }
    if (err == ES_OK) {
        err = get_headers(in, obj, where, &out.headers);
    }
    if (err == ES_OK) {
        err = es_json_get_content(in, obj, where, "body", "body-bin", &out.body, &out.body_len);
    }
    if (err != ES_OK) {
        goto cleanup;
    }
    out.code = (int)code;
    *ret_has_body = out.body != NULL;
    if (out.body == NULL) {
        out.body = es_memdup("", 0);
    }
    if (reason.n > 0) {
        out.reason = es_memdup(reason.p, reason.n);
    }
    if (out.body == NULL || (reason.n > 0 && out.reason == NULL)) {
        err = out_of_memory(in);
        goto cleanup;
    }
    *ret = out;
    return ES_OK;
cleanup:
    es_pairs_free(&out.headers);
    free(out.body);
    free(out.reason);
    return err;
}
