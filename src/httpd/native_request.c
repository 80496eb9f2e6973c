/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request to the native endpoint asks for. Names and positions are read by layer 1
 * (es_sse.h); here is what httpd knows: the location's path, its expressions, the headers.
 */
#include "es_httpd.h"

static apr_status_t native_cleanup(void *data)
{
    es_native_t *n = data;

    es_channels_free(&n->channels);
    es_token_free(n->token);
    return APR_SUCCESS;
}

es_native_t *es_native_begin(request_rec *r)
{
    es_native_t *n = apr_pcalloc(r->pool, sizeof *n);

    n->conf = &es_dir_conf(r)->native;
    apr_pool_cleanup_register(r->pool, n, native_cleanup, apr_pool_cleanup_null);
    return n;
}

static apr_status_t buf_cleanup(void *buf)
{
    es_buf_free(buf);
    return APR_SUCCESS;
}

es_buf_t *es_request_buf(request_rec *r, size_t max)
{
    es_buf_t *buf = apr_palloc(r->pool, sizeof *buf);

    es_buf_init(buf, max);
    apr_pool_cleanup_register(r->pool, buf, buf_cleanup, apr_pool_cleanup_null);
    return buf;
}

/* ---- Accept ---- */

/* Thousandths of the parameter q in the rest of an element, up to its comma. */
static int quality(const char *p)
{
    int q = 1000;

    while (*p && *p != ',') {
        while (*p == ';' || apr_isspace(*p)) {
            p++;
        }
        if ((*p == 'q' || *p == 'Q') && p[1] == '=') {
            const double value = strtod(p + 2, NULL);

            q = value >= 1 ? 1000 : value > 0 ? (int)(value * 1000 + 0.5) : 0;
        }
        while (*p && *p != ',' && *p != ';') {
            p++;
        }
    }
    return q;
}

/* A stream, unless JSON is named and preferred: wildcards alone never mean JSON, and EventSource,
 * curl and everything that says nothing get a stream. */
es_wanted_t es_native_accepted(request_rec *r)
{
    static const char *const ranges[] = { "*/*", "text/*", "text/event-stream" };
    const char *accept = apr_table_get(r->headers_in, "Accept");
    int stream = 0, json = 0;
    size_t closest = 0, i;

    if (!accept) {
        return ES_WANTED_STREAM;
    }
    while (*accept) {
        const char *range = ap_get_token(r->pool, &accept, 0);
        const int q = quality(accept);

        json = ap_cstr_casecmp(range, "application/json") == 0 ? q : json;
        for (i = closest; i < sizeof ranges / sizeof ranges[0]; i++) {
            if (ap_cstr_casecmp(range, ranges[i]) == 0) {
                stream = q;
                closest = i;
            }
        }
        while (*accept && *accept != ',') {
            accept++;
        }
        while (*accept == ',' || apr_isspace(*accept)) {
            accept++;
        }
    }
    if (json > 0 && (closest < 2 || json > stream)) {
        return ES_WANTED_INFO;
    }
    return stream > 0 ? ES_WANTED_STREAM : ES_WANTED_NOTHING;
}

/* ---- channels ---- */

/* What follows, in the request's path, the location that set the handler. Not the innermost one: a
 * channel must not get another name because a section was put on its path to guard it. What
 * SetHandler set is an object of its own, and merging sections keeps it: so it tells its section.
 * Where that is a pattern there is no such path, so it names no channel. */
static const char *path_behind(request_rec *r)
{
    const core_server_config *server = ap_get_core_module_config(r->server->module_config);
    const core_dir_config *here = ap_get_core_module_config(r->per_dir_config);
    int i;

    for (i = server->sec_url->nelts - 1; i >= 0 && here->expr_handler; i--) {
        ap_conf_vector_t *v = APR_ARRAY_IDX(server->sec_url, i, ap_conf_vector_t *);
        const core_dir_config *section = ap_get_core_module_config(v);

        if (section && section->expr_handler == here->expr_handler) {
            const size_t n = strlen(section->d);
            const bool plain = !section->r && !section->d_is_fnmatch;

            return plain && strncmp(r->uri, section->d, n) == 0 ? r->uri + n : "";
        }
    }
    return r->path_info ? r->path_info : ""; /* the handler comes from a <Directory> */
}

/* Those that EventStreamChannel names. An expression that gives nothing adds none. */
static es_err_t add_fixed(request_rec *r, es_native_t *n, const es_channel_rules_t *rules,
                          es_detail_t *detail)
{
    es_err_t err = ES_OK;
    int i;

    for (i = 0; i < n->conf->channels->nelts && err == ES_OK; i++) {
        const es_fixed_channel_t *fixed = &APR_ARRAY_IDX(n->conf->channels, i, es_fixed_channel_t);
        const char *wrong = NULL;
        const char *name = fixed->name ? fixed->name : ap_expr_str_exec(r, fixed->expr, &wrong);

        if (wrong) {
            return es_fail(detail, ES_EIO, "expression: %s", wrong);
        }
        if (name && *name) {
            err = es_channels_add(&n->channels, rules, es_str(name), false, detail);
        }
    }
    if (err == ES_OK && n->channels.n == 0) {
        err = es_fail(detail, ES_EAUTH, "There is no channel here for you.");
    }
    return err;
}

const char *es_native_channels(request_rec *r, es_native_t *n, int *status)
{
    const es_native_conf_t *conf = n->conf;
    const es_channel_rules_t rules = { .param = conf->param,
                                       .prefix = conf->prefix,
                                       .quote = es_channel_prefix_quotes(conf->prefix),
                                       .allow = conf->allow };
    es_detail_t detail;
    es_err_t err;

    if (conf->channels) {
        err = add_fixed(r, n, &rules, &detail);
    }
    else {
        err = es_channels_from_url(&rules, es_str(path_behind(r)), es_str(r->args), &n->channels,
                                   &detail);
    }
    switch (err) {
    case ES_OK:
        return NULL;
    case ES_EAUTH:
        *status = HTTP_FORBIDDEN;
        break;
    case ES_EIO:
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, ESLOGNO(0100) "EventStreamChannel: %s",
                      detail.text);
        *status = HTTP_INTERNAL_SERVER_ERROR;
        return "The channel's name cannot be computed.";
    case ES_ENOMEM:
        *status = HTTP_SERVICE_UNAVAILABLE;
        break;
    default:
        *status = HTTP_BAD_REQUEST;
        break;
    }
    return apr_pstrdup(r->pool, detail.text);
}

/* ---- from where ---- */

const char *es_native_position(request_rec *r, es_position_t *ret, int *status)
{
    const char *header = apr_table_get(r->headers_in, "Last-Event-ID");
    es_detail_t detail;

    *status = HTTP_BAD_REQUEST;
    if (es_position_from_request(es_str(header), es_str(r->args),
                                 (int64_t)apr_time_as_msec(r->request_time), ret,
                                 &detail) != ES_OK) {
        return apr_pstrdup(r->pool, detail.text);
    }
    /* In the words of django-eventstream. */
    return ret->from == ES_FROM_ERROR ? "Invalid request: Can't resume session after stream-error."
                                      : NULL;
}
