/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EventStreamAuthorize: asks the application who may subscribe. A subrequest goes to a path of this
 * server, which mod_proxy, mod_wsgi or anything else serves, with the client's own headers
 * (cookies, Authorization) and the channels in its query; what comes back is collected by a filter
 * and read by layer 1 (es_authorize_read). A request thread of a child does it all, and waits.
 *
 * An answer that says how long it counts (Cache-Control: max-age) is kept by the child for whoever
 * shows the same cookies and Authorization and asks at the same place for the same channels: many
 * browsers that come back at once then ask once a child. The table has a fixed number of places;
 * the place is chosen by a hash, what was there before is forgotten. The whole SHA-256 is compared.
 */
#include "es_httpd.h"

#include "apr_thread_mutex.h"

#include <openssl/evp.h>
#include <stdlib.h>

enum {
    PLACES = 1024, /* answers that a child keeps */
    QUERY_MAX =
        7000, /* bytes of the query to the application: backends have limits of about 8 KB */
    KEY_BYTES = 32
};

typedef struct place {
    unsigned char key[KEY_BYTES];
    apr_time_t until; /* 0: empty */
    es_authorize_t *answer;
} place_t;

/* Of this child. No pool owns the answers: the process' end does. */
static struct {
    apr_thread_mutex_t *lock; /* NULL: nothing is kept */
    place_t v[PLACES];
} kept;

ap_filter_rec_t *es_native_collect_handle;

void es_native_authorize_child_init(apr_pool_t *pchild, server_rec *s)
{
    const apr_status_t rv = apr_thread_mutex_create(&kept.lock, APR_THREAD_MUTEX_DEFAULT, pchild);

    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     ESLOGNO(0109) "a child cannot keep what EventStreamAuthorize allowed");
        kept.lock = NULL;
    }
}

/* ---- the cache ---- */

/* Everything that the answer may depend on. False: no memory. */
static bool make_key(request_rec *r, const char *target, unsigned char key[KEY_BYTES])
{
    const char *parts[] = { r->server->server_hostname,
                            target,
                            apr_table_get(r->headers_in, "Host"),
                            apr_table_get(r->headers_in, "Cookie"),
                            apr_table_get(r->headers_in, "Authorization"),
                            r->user };
    const char *text = apr_psprintf(r->pool, "%u", (unsigned)r->server->port);
    size_t i;

    for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        /* A length before each, so that no two lists look the same. */
        text = apr_psprintf(r->pool, "%s %d:%s", text, parts[i] ? (int)strlen(parts[i]) : -1,
                            parts[i] ? parts[i] : "");
    }
    return EVP_Digest(text, strlen(text), key, NULL, EVP_sha256(), NULL) == 1;
}

static place_t *place_of(const unsigned char key[KEY_BYTES])
{
    return &kept.v[(key[0] | key[1] << 8) % PLACES];
}

/* What the answer says about the channels, and who it is. */
static void apply(request_rec *r, es_native_t *n, const es_authorize_t *answer)
{
    size_t i;

    n->name = apr_pstrdup(r->pool, answer->name);
    for (i = 0; i < n->channels.n; i++) {
        const char *asked = n->channels.v[i].asked;

        if (!es_authorize_allows(answer, es_str(asked))) {
            n->refused[n->refused_count++] = asked;
        }
    }
}

/* Only what admits is kept. True: it was there, and is applied. */
static bool apply_kept(request_rec *r, es_native_t *n, const unsigned char key[KEY_BYTES])
{
    place_t *place = place_of(key);
    bool found = false;

    if (!kept.lock) {
        return false;
    }
    apr_thread_mutex_lock(kept.lock);
    if (place->until > apr_time_now() && memcmp(place->key, key, KEY_BYTES) == 0) {
        apply(r, n, place->answer);
        found = true;
    }
    apr_thread_mutex_unlock(kept.lock);
    return found;
}

/* Takes the answer over. */
static void keep(es_authorize_t *answer, const unsigned char key[KEY_BYTES])
{
    place_t *place = place_of(key);

    if (!kept.lock || answer->max_age <= 0) {
        es_authorize_free(answer);
        return;
    }
    apr_thread_mutex_lock(kept.lock);
    es_authorize_free(place->answer);
    memcpy(place->key, key, KEY_BYTES);
    place->until = apr_time_now() + apr_time_from_sec(answer->max_age);
    place->answer = answer;
    apr_thread_mutex_unlock(kept.lock);
}

/* ---- the subrequest ---- */

typedef struct collected {
    es_buf_t *body;
    bool too_big;
    bool broken;
} collected_t;

/* Nothing that the application says here goes on to the client. */
apr_status_t es_native_collect(ap_filter_t *f, apr_bucket_brigade *bb)
{
    collected_t *c = f->ctx;
    apr_bucket *b;

    if (!c) { /* SetOutputFilter: there is nothing to collect for */
        ap_remove_output_filter(f);
        return ap_pass_brigade(f->next, bb);
    }
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t n;

        c->broken = c->broken || AP_BUCKET_IS_ERROR(b);
        if (APR_BUCKET_IS_METADATA(b)) {
            continue;
        }
        if (apr_bucket_read(b, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
            c->broken = true;
            break;
        }
        c->too_big = c->too_big || es_buf_add(c->body, data, n) != ES_OK;
    }
    apr_brigade_cleanup(bb);
    return APR_SUCCESS;
}

/* The path with the channels. NULL: too long. */
static const char *make_target(request_rec *r, const es_native_t *n)
{
    const char *target = n->conf->authorize;
    char separator = strchr(target, '?') ? '&' : '?';
    size_t i;

    for (i = 0; i < n->channels.n; i++) {
        target = apr_psprintf(r->pool, "%s%cchannel=%s", target, separator,
                              ap_escape_urlencoded(r->pool, n->channels.v[i].asked));
        separator = '&';
        if (strlen(target) > QUERY_MAX) {
            return NULL;
        }
    }
    return target;
}

/* Grip-* is not the client's to say, as in headers.c. */
static int add_allowed(void *table, const char *name, const char *value)
{
    if (!es_is_grip_header(name)) {
        apr_table_addn(table, name, value);
    }
    return 1;
}

/* The client's headers, but for those that are about the stream and not about the client. */
static apr_table_t *make_headers(request_rec *r)
{
    static const char *const names[] = { "Accept-Encoding",
                                         "Content-Length",
                                         "Content-Type",
                                         "Expect",
                                         "If-Match",
                                         "If-Modified-Since",
                                         "If-None-Match",
                                         "If-Range",
                                         "If-Unmodified-Since",
                                         "Last-Event-ID",
                                         "Range",
                                         "TE",
                                         "Transfer-Encoding",
                                         "Upgrade" };
    apr_table_t *headers = apr_table_make(r->pool, 16);
    size_t i;

    apr_table_do(add_allowed, headers, r->headers_in, NULL);
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        apr_table_unset(headers, names[i]);
    }
    apr_table_setn(headers, "Accept", "application/json");
    return headers;
}

static int add_header(void *list, const char *name, const char *value)
{
    APR_ARRAY_PUSH((apr_array_header_t *)list, es_header_t) = (es_header_t) { name, value };
    return 1;
}

/* Of a 401: how to log in is for the client to know. */
static void take_challenge(request_rec *r, const request_rec *sub)
{
    const char *challenge = apr_table_get(sub->headers_out, "WWW-Authenticate");

    if (!challenge) {
        challenge = apr_table_get(sub->err_headers_out, "WWW-Authenticate");
    }
    if (challenge) {
        apr_table_set(r->err_headers_out, "WWW-Authenticate", challenge);
    }
}

static es_err_t ask(request_rec *r, const char *target, es_authorize_t **ret, es_detail_t *detail)
{
    request_rec *sub = ap_sub_req_method_uri("GET", target, r, r->output_filters);
    apr_array_header_t *headers = apr_array_make(r->pool, 16, sizeof(es_header_t));
    collected_t *c = apr_pcalloc(r->pool, sizeof *c);
    int status = sub->status;
    es_err_t err;

    c->body = es_request_buf(r, ES_MAX_AUTHORIZE_BODY);
    if (status == HTTP_OK) { /* else it was refused before it could run */
        int rc;

        sub->headers_in = make_headers(r);
        ap_add_output_filter_handle(es_native_collect_handle, c, sub, sub->connection);
        rc = ap_run_sub_req(sub);
        status = rc == OK || rc == DONE ? sub->status : rc;
    }
    if (c->broken || c->too_big) {
        ap_destroy_sub_req(sub);
        return es_fail(detail, ES_EINVAL,
                       c->broken ? "the answer broke off" : "the answer's body is too long");
    }
    apr_table_do(add_header, headers, sub->headers_out, NULL);
    apr_table_do(add_header, headers, sub->err_headers_out, NULL);
    if (sub->content_type) {
        add_header(headers, "Content-Type", sub->content_type);
    }
    err = es_authorize_read(status, (const es_header_t *)(void *)headers->elts,
                            (size_t)headers->nelts, (es_str_t) { c->body->p, c->body->n }, ret,
                            detail);
    if (status == HTTP_UNAUTHORIZED) {
        take_challenge(r, sub);
    }
    if (err == ES_OK && (*ret)->verdict == ES_VERDICT_FAIL) {
        es_fail(detail, ES_OK, "status %d", status);
    }
    ap_destroy_sub_req(sub);
    return err;
}

const char *es_native_authorize(request_rec *r, es_native_t *n, int *status)
{
    unsigned char key[KEY_BYTES];
    es_authorize_t *answer = NULL;
    es_detail_t detail = { "" };
    const char *target;

    if (!n->conf->authorize || !*n->conf->authorize) {
        return NULL;
    }
    target = make_target(r, n);
    if (!target) {
        *status = HTTP_BAD_REQUEST;
        return "The channels' names are too long in all for asking who may.";
    }
    *status = HTTP_SERVICE_UNAVAILABLE;
    if (!make_key(r, target, key)) {
        return "Out of memory.";
    }
    if (apply_kept(r, n, key)) {
        return NULL;
    }
    if (ask(r, target, &answer, &detail) != ES_OK || answer->verdict == ES_VERDICT_FAIL) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0107) "EventStreamAuthorize %s: %s",
                      n->conf->authorize, detail.text);
        es_authorize_free(answer);
        *status = HTTP_BAD_GATEWAY;
        return "The application that decides who may failed.";
    }
    if (answer->verdict == ES_VERDICT_REFUSE) {
        *status = answer->status;
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ESLOGNO(0108) "EventStreamAuthorize %s refuses a subscriber: %d",
                      n->conf->authorize, *status);
        es_authorize_free(answer);
        return *status == HTTP_UNAUTHORIZED ? "Not authorized." : "Forbidden.";
    }
    apply(r, n, answer);
    keep(answer, key);
    return NULL;
}
