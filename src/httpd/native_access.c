/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use the native endpoint. `Require` has been asked by httpd before any of this runs. Then:
 * a token, if the location has a key for it; and for each channel, whether the location
 * (EventStreamAllowChannels) and the token let the client have it. One channel that is refused
 * refuses the request: a stream that is silently less than what was asked for would be worse.
 */
#include "es_httpd.h"

/* Where subscribers carry their token. A browser's EventSource can set no header. */
#define TOKEN_COOKIE "eventstream_token"
#define TOKEN_PARAM  "token"

/* The token of a request. The header first: it is what its sender has chosen for this request. */
static es_err_t find_token(request_rec *r, es_str_t *ret)
{
    const char *header = apr_table_get(r->headers_in, "Authorization");
    const char *cookies = apr_table_get(r->headers_in, "Cookie");

    if (header && es_token_from_authorization(es_str(header), ret) == ES_OK) {
        return ES_OK;
    }
    if (r->args && es_token_from_query(es_str(r->args), TOKEN_PARAM, ret) == ES_OK) {
        return ES_OK;
    }
    return cookies ? es_token_from_cookie(es_str(cookies), TOKEN_COOKIE, ret) : ES_ENOENT;
}

const char *es_native_subscriber(request_rec *r, es_native_t *n, int *status)
{
    const es_token_rules_t rules = { .iss = n->conf->subscribe_iss };
    es_detail_t detail;
    es_str_t token;
    es_err_t err;

    if (!n->conf->subscribe_key) {
        return NULL;
    }
    *status = HTTP_UNAUTHORIZED;
    if (find_token(r, &token) != ES_OK) {
        apr_table_setn(r->err_headers_out, "WWW-Authenticate", "Bearer realm=\"events\"");
        return "Not authorized: a token is needed, as a bearer token, in the cookie " TOKEN_COOKIE
               " or in the query as " TOKEN_PARAM ".";
    }
    err = es_token_read(n->conf->subscribe_key, &rules, token,
                        (int64_t)apr_time_sec(apr_time_now()), &n->token, &detail);
    if (err == ES_OK) {
        return NULL;
    }
    if (err == ES_ENOMEM) {
        *status = HTTP_SERVICE_UNAVAILABLE;
        return "Out of memory.";
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0101) "a subscriber is refused: %s",
                  detail.text);
    apr_table_setn(r->err_headers_out, "WWW-Authenticate",
                   "Bearer realm=\"events\", error=\"invalid_token\"");
    return apr_pstrcat(r->pool, "Not authorized: ", detail.text, ".", NULL);
}

/* A publisher's token comes as a bearer token only: what a browser sends by itself, a cookie, must
 * not be enough. The secret itself will do, as for `SetHandler eventstream-publish`. */
const char *es_native_publisher(request_rec *r, es_native_t *n, int *status)
{
    const es_dir_conf_t *conf = es_dir_conf(r);
    const es_token_rules_t rules = { .iss = conf->publish_iss };
    const char *header = apr_table_get(r->headers_in, "Authorization");
    es_detail_t detail;
    es_str_t token;

    if (!es_native_own_page(r, n->conf)) {
        *status = HTTP_FORBIDDEN;
        return "Pages of other sites may not publish here.";
    }
    if (!conf->publish_key) {
        return NULL;
    }
    *status = HTTP_UNAUTHORIZED;
    apr_table_setn(r->err_headers_out, "WWW-Authenticate", "Bearer realm=\"publish\"");
    if (!header || es_token_from_authorization(es_str(header), &token) != ES_OK) {
        return "Not authorized: a bearer token is needed.";
    }
    if (!es_key_equals(conf->publish_key, token) &&
        es_token_read(conf->publish_key, &rules, token, (int64_t)apr_time_sec(apr_time_now()),
                      &n->token, &detail) != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0105) "a publisher is refused: %s",
                      detail.text);
        return apr_pstrcat(r->pool, "Not authorized: ", detail.text, ".", NULL);
    }
    apr_table_unset(r->err_headers_out, "WWW-Authenticate");
    return NULL;
}

void es_native_sift(request_rec *r, es_native_t *n, es_token_use_t use)
{
    size_t i;

    for (i = 0; i < n->channels.refused_count; i++) {
        n->refused[n->refused_count++] = n->channels.refused[i];
    }
    for (i = 0; i < n->channels.n; i++) {
        const char *asked = n->channels.v[i].asked;

        if (n->token && !es_token_allows(n->token, use, es_str(asked))) {
            n->refused[n->refused_count++] = asked;
        }
    }
    for (i = 0; i < n->refused_count; i++) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0102) "the channel '%s' is refused",
                      ap_escape_logitem(r->pool, n->refused[i]));
    }
}

/* ---- presence ---- */

/* Nobody is shown under a name that is the client's word alone. The application's is the latest
 * that was given; a token's claim is its maker's, a user httpd's. */
const char *es_native_member(request_rec *r, const es_native_t *n)
{
    const char *name = n->name ? n->name : n->token && n->token->name ? n->token->name : r->user;

    if (!name || !*name || es_presence_shows(es_str(name))) {
        return name && *name ? name : NULL;
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  ESLOGNO(0120) "EventStreamPresence: the name '%s' is not shown: it is over %d "
                                "bytes long, not UTF-8 or has control characters",
                  ap_escape_logitem(r->pool, name), ES_MAX_DISPLAY_NAME);
    return NULL;
}

const char *es_native_reserved(const es_native_t *n)
{
    size_t i;

    for (i = 0; n->conf->presence == 1 && i < n->channels.n; i++) {
        if (es_presence_of(es_str(n->channels.v[i].name), NULL)) {
            return n->channels.v[i].asked;
        }
    }
    return NULL;
}
