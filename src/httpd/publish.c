/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `SetHandler eventstream-publish`: the publish API of Pushpin's control port (grip.md 3.2), below
 * whatever path the location has. The sentences and codes are Pushpin's, because clients and their
 * tests look at them; HTTP keep-alive and an ignored query string are ours.
 *
 *   LOCATION/            200 Pushpin API
 *   LOCATION/publish[/]  POST {"items": [...]}: 200 once the hub has every item, 400 and none of
 * them otherwise
 */
#include "es_httpd.h"

#include <time.h>

typedef enum es_format { FORMAT_TEXT, FORMAT_JSON, FORMAT_NONE } es_format_t;

/* ---- answers ---- */

static int answer(request_rec *r, int status, const char *type, const char *text)
{
    r->status = status;
    ap_set_content_type(r, type);
    ap_set_content_length(r, (apr_off_t)strlen(text));
    if (!r->header_only) {
        ap_rputs(text, r); /* a client that left is no error of ours */
    }
    return OK;
}

static int answer_error(request_rec *r, int status, const char *sentence)
{
    return answer(r, status, "text/plain", apr_pstrcat(r->pool, sentence, "\n", NULL));
}

/* The last acceptable format in Accept wins, as in Pushpin; without the header it is text. */
static es_format_t accepted_format(request_rec *r)
{
    static const struct {
        const char *name;
        es_format_t format;
    } known[] = { { "text/plain", FORMAT_TEXT },
                  { "text/*", FORMAT_TEXT },
                  { "*/*", FORMAT_TEXT },
                  { "*", FORMAT_TEXT },
                  { "application/json", FORMAT_JSON },
                  { "application/*", FORMAT_JSON } };
    const char *accept = apr_table_get(r->headers_in, "Accept");
    es_format_t found = FORMAT_NONE;

    if (!accept) {
        return FORMAT_TEXT;
    }
    while (*accept) {
        const char *item = ap_get_token(r->pool, &accept, 0); /* up to ',' or ';', trimmed */
        size_t i;

        for (i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (ap_cstr_casecmp(item, known[i].name) == 0) {
                found = known[i].format;
            }
        }
        while (*accept && *accept != ',') { /* parameters */
            accept++;
        }
        while (*accept == ',' || apr_isspace(*accept)) {
            accept++;
        }
    }
    return found;
}

/* ---- who may ---- */

static int unauthorized(request_rec *r, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0070) "a publish is refused: %s", why);
    apr_table_setn(r->err_headers_out, "WWW-Authenticate", "Bearer realm=\"publish\"");
    return answer_error(r, HTTP_UNAUTHORIZED,
                        apr_pstrcat(r->pool, "Not authorized: ", why, ".", NULL));
}

/* The secret itself, or a JWT signed with it. NULL: fine; else the reason. */
static const char *check_token(request_rec *r, const es_dir_conf_t *conf)
{
    const char *header = apr_table_get(r->headers_in, "Authorization");
    es_detail_t detail;
    es_str_t token;

    if (!header || ap_cstr_casecmpn(header, "Bearer ", 7) != 0) {
        return "a bearer token is needed";
    }
    token = es_str_trim(es_str(header + 7));
    if (es_key_equals(conf->publish_key, token)) {
        return NULL;
    }
    if (es_token_verify(conf->publish_key, conf->publish_iss, token, (int64_t)time(NULL),
                        &detail) == ES_OK) {
        return NULL;
    }
    return apr_pstrdup(r->pool, detail.text);
}

/* ---- the body ---- */

/* Content-Length as a number; NULL when it is fine, else the sentence and the status. */
static const char *check_length(request_rec *r, apr_off_t *ret, int *status)
{
    const char *length = apr_table_get(r->headers_in, "Content-Length");
    char *end = NULL;

    if (!length || apr_table_get(r->headers_in, "Transfer-Encoding")) {
        *status = HTTP_LENGTH_REQUIRED;
        return "Request requires Content-Length.";
    }
    *status = HTTP_BAD_REQUEST;
    if (apr_strtoff(ret, length, &end, 10) != APR_SUCCESS || *end != '\0' || *ret < 0) {
        return "Bad Content-Length.";
    }
    return *ret > ES_MAX_PUBLISH_BODY ? "Request body too large." : NULL;
}

/* Reads `length` bytes. Not all of them: the client broke off. */
static bool read_body(request_rec *r, char *body, apr_off_t length)
{
    apr_off_t have = 0;
    long n = 1;

    if (ap_setup_client_block(r, REQUEST_CHUNKED_ERROR) != OK) {
        return false;
    }
    if (length > 0 && ap_should_client_block(r)) {
        while (have < length && n > 0) {
            n = ap_get_client_block(r, body + have, (apr_size_t)(length - have));
            have += n > 0 ? n : 0;
        }
    }
    return have == length;
}

/* ---- the resources ---- */

static int publish_items(request_rec *r, const char *body, size_t length, es_format_t format)
{
    es_items_t items = { 0 };
    es_detail_t detail;
    const char *text = NULL;
    es_err_t err = es_items_from_json(body, length, &items, &detail);
    size_t count = items.n;

    if (err == ES_OK) {
        es_items_free(&items); /* only good ones travel; the hub makes its own copy */
        err = count == 0
                  ? ES_OK
                  : es_hublink_call(r, ES_WIRE_PUBLISH, (es_str_t) { body, length }, &text, NULL);
    }
    else if (err == ES_ENOMEM) {
        return answer_error(r, HTTP_SERVICE_UNAVAILABLE, "Out of memory.");
    }
    else {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ESLOGNO(0071) "a publish is refused: %s",
                      detail.text);
        return answer_error(r, HTTP_BAD_REQUEST, detail.text);
    }
    if (err == ES_EFULL) { /* it was delivered: who sends it again would send it twice */
        return answer_error(r, HTTP_INSUFFICIENT_STORAGE,
                            apr_pstrcat(r->pool, "Published, but not kept: ", text, ".", NULL));
    }
    if (err != ES_OK) {
        return answer_error(
            r, HTTP_SERVICE_UNAVAILABLE,
            apr_pstrcat(r->pool, "Not published: ", text ? text : es_err_name(err), ".", NULL));
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                  ESLOGNO(0072) "published %" APR_SIZE_T_FMT " items", count);
    return format == FORMAT_JSON
               ? answer(r, HTTP_OK, "application/json", "{\"message\":\"Published\"}\n")
               : answer(r, HTTP_OK, "text/plain", "Published\n");
}

static int serve_publish(request_rec *r, const es_dir_conf_t *conf)
{
    const es_format_t format = accepted_format(r);
    const char *wrong = conf->publish_key ? check_token(r, conf) : NULL;
    apr_off_t length = 0;
    int status = HTTP_BAD_REQUEST;
    char *body;

    if (wrong) {
        return unauthorized(r, wrong);
    }
    if (r->method_number != M_POST) {
        apr_table_setn(r->headers_out, "Allow", "POST");
        return answer_error(r, HTTP_METHOD_NOT_ALLOWED,
                            apr_psprintf(r->pool, "Method not allowed: %s.", r->method));
    }
    wrong = check_length(r, &length, &status);
    if (wrong) {
        r->connection->keepalive = AP_CONN_CLOSE; /* what follows is a body that nobody reads */
        return answer_error(r, status, wrong);
    }
    if (format == FORMAT_NONE) {
        return answer_error(
            r, HTTP_NOT_ACCEPTABLE,
            "Not Acceptable. Supported formats are text/plain and application/json.");
    }
    body = apr_palloc(r->pool, (apr_size_t)length + 1);
    if (!read_body(r, body, length)) {
        r->connection->keepalive = AP_CONN_CLOSE;
        return answer_error(r, HTTP_BAD_REQUEST, "Request body ended early.");
    }
    body[length] = '\0';
    return publish_items(r, body, (size_t)length, format);
}

/* The path of the section that set the handler: httpd's core keeps it for us, because SetHandler is
 * one of its directives. NULL: none, or a pattern. */
static const char *location_of(const request_rec *r)
{
    const core_dir_config *core = ap_get_core_module_config(r->per_dir_config);

    return core && core->d && !core->r && !core->d_is_fnmatch ? core->d : NULL;
}

/* What follows the location in the request's path, without slashes at its ends. Where the location
 * is a pattern, the last segment. */
static const char *resource_of(request_rec *r)
{
    const char *location = location_of(r);
    const size_t n = location ? strlen(location) : 0;
    char *path = apr_pstrdup(r->pool, r->uri);
    size_t len = strlen(path);
    char *last;

    if (len > 0 && path[len - 1] == '/') {
        path[--len] = '\0';
    }
    if (n > 0 && strncmp(r->uri, location, n) == 0) {
        path += n < len ? n : len;
        return *path == '/' ? path + 1 : path;
    }
    last = strrchr(path, '/');
    return last ? last + 1 : path;
}

int es_publish_handler(request_rec *r)
{
    const es_dir_conf_t *conf = es_dir_conf(r);
    const char *resource;

    if (!r->handler || strcmp(r->handler, "eventstream-publish") != 0) {
        return DECLINED;
    }
    resource = resource_of(r);
    if (strcmp(resource, "publish") == 0) {
        return serve_publish(r, conf);
    }
    if (*resource == '\0') {
        return answer(r, HTTP_OK, "text/plain", "Pushpin API\n");
    }
    return answer_error(r, HTTP_NOT_FOUND, "Not Found");
}
