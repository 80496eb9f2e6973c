/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the application answers when it is asked whether a client may have channels.
 *
 * When in doubt, no: an answer that cannot be read is an error and not an admission, a list that
 * was given is the whole truth even if it is empty, and how long an answer may be kept is the least
 * of everything that it says.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

static void take_status(int status, es_authorize_t *io)
{
    if (status >= 200 && status <= 299) {
        io->verdict = ES_VERDICT_ADMIT;
        io->status = 200;
    }
    else if (status >= 300 && status <= 499) {
        io->verdict = ES_VERDICT_REFUSE;
        io->status = status == 401 ? 401 : 403;
    }
    else {
        io->verdict = ES_VERDICT_FAIL;
        io->status = 502;
    }
}

/* Seconds of `max-age`; what cannot be read is 0, what is too long the most that we keep. */
static int read_age(es_str_t text)
{
    int64_t age = 0;

    if (text.n >= 2 && text.p[0] == '"' && text.p[text.n - 1] == '"') {
        text.p++;
        text.n -= 2;
    }
    if (!es_str_to_int(text, &age)) {
        size_t i = 0;
        while (i < text.n && text.p[i] >= '0' && text.p[i] <= '9') {
            i++;
        }
        /* A number of very many digits. */
        return i > 0 && i == text.n ? ES_MAX_AUTHORIZE_AGE : 0;
    }
    if (age < 0) {
        return 0;
    }
    return age > ES_MAX_AUTHORIZE_AGE ? ES_MAX_AUTHORIZE_AGE : (int)age;
}

/* One Cache-Control header. `*io_age` is -1 as long as nothing was said. */
static void take_cache_control(es_str_t value, int *io_age)
{
    es_str_t one;

    value = es_str_trim(value);
    while (value.n > 0) {
        const char *equals;
        es_str_t name, text = { NULL, 0 };
        int age = -1;

        if (es_list_next(&value, &one) != ES_OK) {
            *io_age = 0; /* a quote that is not closed */
            return;
        }
        equals = one.n == 0 ? NULL : memchr(one.p, '=', one.n);
        name.p = one.p;
        name.n = equals == NULL ? one.n : (size_t)(equals - one.p);
        if (equals != NULL) {
            text.p = equals + 1;
            text.n = one.n - name.n - 1;
        }
        name = es_str_trim(name);
        if (es_str_is_nocase(name, "no-store") || es_str_is_nocase(name, "no-cache")) {
            age = 0;
        }
        else if (es_str_is_nocase(name, "max-age")) {
            age = read_age(es_str_trim(text));
        }
        if (age >= 0 && (*io_age < 0 || age < *io_age)) {
            *io_age = age;
        }
    }
}

/* A list element without its quotes. */
static es_err_t add_element(es_authorize_t *io, es_str_t one, es_detail_t *detail)
{
    es_buf_t text;
    es_str_t pattern;
    es_err_t err = ES_OK;
    size_t i;

    if (one.n < 2 || one.p[0] != '"' || one.p[one.n - 1] != '"') {
        return es_patterns_add(&io->channels, one, detail);
    }
    es_buf_init(&text, one.n);
    for (i = 1; i < one.n - 1 && err == ES_OK; i++) {
        i += one.p[i] == '\\' && i + 2 < one.n ? 1 : 0;
        err = es_buf_add(&text, one.p + i, 1);
    }
    pattern.p = text.p;
    pattern.n = text.n;
    err = err == ES_OK ? es_patterns_add(&io->channels, pattern, detail)
                       : es_fail(detail, err, "%s", es_err_name(err));
    es_buf_free(&text);
    return err;
}

static es_err_t take_channels(es_str_t value, es_authorize_t *io, es_detail_t *detail)
{
    es_str_t rest = es_str_trim(value);
    es_err_t err = ES_OK;

    io->narrowed = true;
    while (rest.n > 0 && err == ES_OK) {
        es_str_t one;
        err = es_list_next(&rest, &one);
        if (err == ES_EINVAL) {
            es_fail(detail, err, "a quote is not closed: '%.*s'", ES_FOUND(value));
        }
        else if (one.n > 0) {
            err = add_element(io, one, detail);
        }
    }
    if (err != ES_OK && err != ES_ENOMEM) {
        es_detail_prefix(detail, "EventStream-Channels: ");
    }
    return err;
}

static bool is_json(const char *content_type)
{
    es_str_t type = es_str(content_type);
    const char *end = type.n == 0 ? NULL : memchr(type.p, ';', type.n);

    type.n = end == NULL ? type.n : (size_t)(end - type.p);
    return es_str_is_nocase(es_str_trim(type), "application/json");
}

static es_err_t take_body(es_str_t body, es_authorize_t *io, es_detail_t *detail)
{
    json_t *root = NULL;
    const json_t *channels, *name;
    es_err_t err;

    if (body.n > ES_MAX_AUTHORIZE_BODY) {
        return es_fail(detail, ES_ETOOBIG, "the body is %zu bytes long, at most %d", body.n,
                       ES_MAX_AUTHORIZE_BODY);
    }
    err = es_json_parse(body.p, body.n, &root, detail);
    if (err != ES_OK) {
        if (err != ES_ENOMEM) {
            es_detail_prefix(detail, "the body is not JSON: ");
        }
        return err;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return es_fail(detail, ES_EINVAL, "the body is JSON, but not an object");
    }
    channels = json_object_get(root, "channels");
    name = json_object_get(root, "name");
    if (channels != NULL && !json_is_null(channels)) {
        io->narrowed = true;
        err = es_patterns_add_json(&io->channels, channels, "'channels'", detail);
    }
    if (err == ES_OK && name != NULL && !json_is_null(name)) {
        err = es_display_name(name, "'name'", &io->name, detail);
    }
    json_decref(root);
    return err;
}

es_err_t es_authorize_read(int status, const es_header_t *headers, size_t count, es_str_t body,
                           es_authorize_t **ret, es_detail_t *detail)
{
    es_authorize_t *answer = calloc(1, sizeof(*answer));
    const char *type = NULL;
    es_err_t err = ES_OK;
    int age = -1;
    size_t i;

    if (answer == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    take_status(status, answer);
    for (i = 0; i < count && err == ES_OK; i++) {
        es_str_t name = es_str(headers[i].name);
        es_str_t value = es_str(headers[i].value);
        if (es_str_is_nocase(name, "Cache-Control")) {
            take_cache_control(value, &age);
        }
        else if (es_str_is_nocase(name, "Content-Type")) {
            type = headers[i].value;
        }
        else if (answer->verdict == ES_VERDICT_ADMIT &&
                 es_str_is_nocase(name, "EventStream-Channels")) {
            err = take_channels(value, answer, detail);
        }
    }
    /* A failure is never kept: the application may be back the next moment. */
    answer->max_age = age < 0 || answer->verdict == ES_VERDICT_FAIL ? 0 : age;
    if (err == ES_OK && answer->verdict == ES_VERDICT_ADMIT && body.n > 0 && is_json(type)) {
        err = take_body(body, answer, detail);
    }
    if (err != ES_OK) {
        es_authorize_free(answer);
        return err;
    }
    *ret = answer;
    return ES_OK;
}

bool es_authorize_allows(const es_authorize_t *answer, es_str_t asked)
{
    return answer->verdict == ES_VERDICT_ADMIT &&
           (!answer->narrowed || es_patterns_match(&answer->channels, asked));
}

void es_authorize_free(es_authorize_t *answer)
{
    if (answer == NULL) {
        return;
    }
    es_patterns_free(&answer->channels);
    free(answer->name);
    free(answer);
}
