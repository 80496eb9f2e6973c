/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The claims of a token whose signature is known to be good, and where requests carry tokens.
 *
 * libjwt's own getters do not tell a claim of another type from a number, so the claims are read as
 * the JSON that they are. A claim that we use and cannot read refuses the token: to pass over it
 * would give a token another meaning than its maker had in mind.
 */
#include "grip_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Clocks of two machines differ: a token may be this many seconds younger than now. */
enum { NBF_LEEWAY = 60 };

static es_err_t refuse(es_detail_t *detail, const char *why)
{
    return es_fail(detail, ES_EAUTH, "token refused: %s", why);
}

static bool is_for(const json_t *aud, const char *wanted)
{
    size_t i;

    if (json_is_string(aud)) {
        return es_str_is(es_json_str(aud), wanted);
    }
    for (i = 0; i < json_array_size(aud); i++) {
        const json_t *one = json_array_get(aud, i);
        if (json_is_string(one) && es_str_is(es_json_str(one), wanted)) {
            return true;
        }
    }
    return false;
}

es_err_t es_claims_check(const json_t *claims, const es_token_rules_t *rules, int64_t now,
                         es_detail_t *detail)
{
    const json_t *exp = json_object_get(claims, "exp");
    const json_t *nbf = json_object_get(claims, "nbf");
    const json_t *iss = json_object_get(claims, "iss");

    if (!json_is_integer(exp)) {
        return refuse(detail, "it has no 'exp' claim that is a whole number");
    }
    if (json_integer_value(exp) <= now) {
        return refuse(detail, "it has expired");
    }
    if (nbf != NULL && !json_is_integer(nbf)) {
        return refuse(detail, "its 'nbf' claim is not a whole number");
    }
    if (nbf != NULL && json_integer_value(nbf) > now + NBF_LEEWAY) {
        return refuse(detail, "it is not valid yet");
    }
    if (rules->iss != NULL && (!json_is_string(iss) || !es_str_is(es_json_str(iss), rules->iss))) {
        return refuse(detail, "its 'iss' claim is not the expected one");
    }
    if (rules->aud != NULL && !is_for(json_object_get(claims, "aud"), rules->aud)) {
        return refuse(detail, "its 'aud' claim does not have the expected one");
    }
    return ES_OK;
}

es_err_t es_display_name(const json_t *value, const char *what, char **ret, es_detail_t *detail)
{
    es_str_t name;
    char *copy;

    if (!json_is_string(value)) {
        return es_fail(detail, ES_EINVAL, "%s is not a text", what);
    }
    name = es_json_str(value);
    if (name.n > ES_MAX_DISPLAY_NAME) {
        return es_fail(detail, ES_ETOOBIG, "%s is %zu bytes long, at most %d", what, name.n,
                       ES_MAX_DISPLAY_NAME);
    }
    if (!es_text_is_clean(name)) {
        return es_fail(detail, ES_EINVAL, "%s holds CR, LF or NUL", what);
    }
    if (name.n == 0) {
        return ES_OK; /* as if it were not there */
    }
    copy = es_memdup(name.p, name.n);
    if (copy == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    *ret = copy;
    return ES_OK;
}

static es_err_t read_names(const json_t *claims, es_token_t *io, es_detail_t *detail)
{
    const json_t *name = json_object_get(claims, "name");
    const json_t *sub = json_object_get(claims, "sub");
    es_err_t err = ES_OK;

    if (sub != NULL) {
        err = es_display_name(sub, "its 'sub' claim", &io->sub, detail);
    }
    if (err == ES_OK && name != NULL) {
        err = es_display_name(name, "its 'name' claim", &io->name, detail);
    }
    if (err == ES_OK && io->name == NULL && io->sub != NULL) {
        io->name = es_memdup(io->sub, strlen(io->sub));
        err = io->name == NULL ? es_fail(detail, ES_ENOMEM, "out of memory") : ES_OK;
    }
    return err;
}

static es_err_t read_lists(const json_t *claims, es_token_t *io, es_detail_t *detail)
{
    static const char *const names[ES_USES] = { "subscribe", "publish" };
    es_err_t err = ES_OK;
    int use;

    for (use = 0; use < ES_USES && err == ES_OK; use++) {
        const char *name = names[use];
        const json_t *list = json_object_get(claims, name);
        char what[40];
        if (list == NULL) {
            name = "channels";
            list = json_object_get(claims, name);
        }
        if (list != NULL) {
            snprintf(what, sizeof(what), "its '%s' claim", name);
            io->listed[use] = true;
            err = es_patterns_add_json(&io->may[use], list, what, detail);
        }
    }
    return err;
}

es_err_t es_claims_read(es_str_t text, const es_token_rules_t *rules, int64_t now, es_token_t **ret,
                        es_detail_t *detail)
{
    json_t *claims = NULL;
    es_token_t *token = NULL;
    es_detail_t why = { "" };
    es_err_t err = es_json_parse(text.p, text.n, &claims, &why);

    if (err == ES_OK) {
        token = calloc(1, sizeof(*token));
        err = token == NULL ? es_fail(&why, ES_ENOMEM, "out of memory")
                            : es_claims_check(claims, rules, now, &why);
    }
    if (err == ES_OK) {
        token->exp = json_integer_value(json_object_get(claims, "exp"));
        err = read_lists(claims, token, &why);
    }
    if (err == ES_OK) {
        err = read_names(claims, token, &why);
    }
    json_decref(claims);
    if (err == ES_OK) {
        *ret = token;
        return ES_OK;
    }
    es_token_free(token);
    if (err == ES_ENOMEM || err == ES_EAUTH) {
        return es_fail(detail, err, "%s", why.text);
    }
    return refuse(detail, why.text);
}

bool es_token_allows(const es_token_t *token, es_token_use_t use, es_str_t asked)
{
    return es_patterns_match(&token->may[use], asked);
}

void es_token_free(es_token_t *token)
{
    int use;

    if (token == NULL) {
        return;
    }
    for (use = 0; use < ES_USES; use++) {
        es_patterns_free(&token->may[use]);
    }
    free(token->name);
    free(token->sub);
    free(token);
}

/* ---- where it is -------------------------------------------------------------------------- */

es_err_t es_token_from_authorization(es_str_t header, es_str_t *ret)
{
    es_str_t scheme, rest;

    header = es_str_trim(header);
    scheme.p = header.p;
    scheme.n = header.n < 6 ? header.n : 6;
    if (!es_str_is_nocase(scheme, "bearer")) {
        return ES_ENOENT;
    }
    rest.p = header.p + 6;
    rest.n = header.n - 6;
    if (rest.n == 0 || (rest.p[0] != ' ' && rest.p[0] != '\t')) {
        return ES_ENOENT;
    }
    /* Trimmed: the header was, so something is left. */
    *ret = es_str_trim(rest);
    return ES_OK;
}

es_err_t es_token_from_cookie(es_str_t header, const char *name, es_str_t *ret)
{
    while (header.n > 0) {
        const char *end = memchr(header.p, ';', header.n);
        es_str_t pair = { header.p, end == NULL ? header.n : (size_t)(end - header.p) };
        const char *equals = pair.n == 0 ? NULL : memchr(pair.p, '=', pair.n);
        size_t skip = end == NULL ? pair.n : pair.n + 1;

        header.p += skip;
        header.n -= skip;
        if (equals != NULL) {
            es_str_t left = { pair.p, (size_t)(equals - pair.p) };
            es_str_t value = { equals + 1, pair.n - left.n - 1 };
            value = es_str_trim(value);
            if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"') {
                value.p++;
                value.n -= 2;
            }
            if (value.n > 0 && es_str_is(es_str_trim(left), name)) {
                *ret = value;
                return ES_OK;
            }
        }
    }
    return ES_ENOENT;
}

es_err_t es_token_from_query(es_str_t query, const char *name, es_str_t *ret)
{
    es_str_t left, value;

    while (es_query_next(&query, &left, &value)) {
        if (value.n > 0 && es_query_is(left, name)) {
            *ret = value;
            return ES_OK;
        }
    }
    return ES_ENOENT;
}
