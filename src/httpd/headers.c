/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between httpd's header tables and layer 1. An application's answer may have headers in two tables
 * (err_headers_out survives error pages; CGI puts Set-Cookie there), so both are read and both are
 * cleaned.
 */
#include "es_httpd.h"

#include <time.h>

enum { TABLES = 2 };

static void answer_tables(request_rec *r, apr_table_t *tables[TABLES])
{
    tables[0] = r->headers_out;
    tables[1] = r->err_headers_out;
}

const es_header_t *es_headers_of_answer(request_rec *r, size_t *count)
{
    apr_table_t *tables[TABLES];
    apr_array_header_t *all = apr_array_make(r->pool, 16, sizeof(es_header_t));
    int t, i;

    answer_tables(r, tables);
    for (t = 0; t < TABLES; t++) {
        const apr_array_header_t *a = apr_table_elts(tables[t]);
        const apr_table_entry_t *e = (const apr_table_entry_t *)(const void *)a->elts;

        for (i = 0; i < a->nelts; i++) {
            APR_ARRAY_PUSH(all, es_header_t) = (es_header_t) { e[i].key, e[i].val };
        }
    }
    *count = (size_t)all->nelts;
    return (const es_header_t *)(const void *)all->elts;
}

bool es_headers_have_grip(request_rec *r)
{
    size_t i, n;
    const es_header_t *h = es_headers_of_answer(r, &n);

    for (i = 0; i < n; i++) {
        if (es_is_grip_header(h[i].name)) {
            return true;
        }
    }
    return false;
}

/* Takes out of a table what `drop` wants gone. Unsetting while walking would move the entries. */
static void table_prune(apr_pool_t *p, apr_table_t *table, bool (*drop)(const char *, const void *),
                        const void *ctx)
{
    const apr_array_header_t *a = apr_table_elts(table);
    const apr_table_entry_t *e = (const apr_table_entry_t *)(const void *)a->elts;
    apr_array_header_t *names = apr_array_make(p, 8, sizeof(const char *));
    int i;

    for (i = 0; i < a->nelts; i++) {
        if (drop(e[i].key, ctx)) {
            APR_ARRAY_PUSH(names, const char *) = e[i].key;
        }
    }
    for (i = 0; i < names->nelts; i++) {
        apr_table_unset(table, APR_ARRAY_IDX(names, i, const char *));
    }
}

static bool is_grip(const char *name, const void *ctx)
{
    (void)ctx;
    return es_is_grip_header(name);
}

static bool is_framing(const char *name)
{
    static const char *const names[] = { "Connection", "Keep-Alive", "Content-Length",
                                         "Content-Encoding", "Transfer-Encoding" };
    size_t i;

    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (ap_cstr_casecmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* For a held answer. */
static bool is_hidden(const char *name, const void *in)
{
    return !es_instruct_exposes(in, name);
}

/* For an answer that ends: what frames its body stays. */
static bool is_hidden_or_grip(const char *name, const void *in)
{
    return es_is_grip_header(name) || (!is_framing(name) && !es_instruct_exposes(in, name));
}

/* A client may name any header in Connection, and a proxy then takes it off: Grip-* is not the
 * client's to name. */
static void keep_grip_hop_by_hop(request_rec *r)
{
    const char *list = apr_table_get(r->headers_in, "Connection");
    const char *kept = NULL;

    while (list && *list) {
        const char *token = ap_get_token(r->pool, &list, 1);

        if (*token && !es_is_grip_header(token)) {
            kept = kept ? apr_pstrcat(r->pool, kept, ", ", token, NULL) : token;
        }
        while (*list == ',' || apr_isspace(*list)) {
            list++;
        }
    }
    if (kept) {
        apr_table_setn(r->headers_in, "Connection", kept);
    }
    else {
        apr_table_unset(r->headers_in, "Connection");
    }
}

void es_headers_to_application(request_rec *r, const es_dir_conf_t *conf)
{
    static const char features[] =
        "status, filter:skip-self, filter:skip-users, filter:require-sub, "
        "filter:build-id, filter:var-subst";
    const char *iss = conf->grip_iss ? conf->grip_iss : "eventstream";
    char *token = NULL;

    table_prune(r->pool, r->headers_in, is_grip, NULL);
    keep_grip_hop_by_hop(r);
    apr_table_unset(r->headers_in, "Accept-Encoding");
    apr_table_setn(r->headers_in, "Grip-Feature", features);
    if (es_token_sign(es_signing_key(conf), iss, (int64_t)time(NULL), &token) != ES_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      ESLOGNO(0030) "Grip-Sig cannot be signed: the application will not hold");
        return;
    }
    apr_table_set(r->headers_in, "Grip-Sig", token);
    free(token);
}

void es_headers_strip(request_rec *r, const es_instruct_t *in, bool held)
{
    apr_table_t *tables[TABLES];
    int t;

    answer_tables(r, tables);
    for (t = 0; t < TABLES; t++) {
        table_prune(r->pool, tables[t], held ? is_hidden : in ? is_hidden_or_grip : is_grip, in);
    }
}

void es_headers_status(request_rec *r, int code, const char *reason)
{
    if (code > 0) {
        r->status = code;
        r->status_line = reason && *reason ? apr_psprintf(r->pool, "%d %s", code, reason) : NULL;
    }
}

void es_headers_replace(request_rec *r, const es_response_t *response)
{
    size_t i;

    apr_table_clear(r->headers_out);
    apr_table_clear(r->err_headers_out);
    r->content_type = NULL;
    r->content_encoding = NULL;
    r->content_languages = NULL;
    for (i = 0; i < response->headers.n; i++) {
        const es_pair_t *h = &response->headers.v[i];

        if (ap_cstr_casecmp(h->name, "Content-Type") == 0) {
            ap_set_content_type(r, apr_pstrdup(r->pool, h->value));
        }
        else if (!is_framing(h->name)) {
            apr_table_add(r->headers_out, h->name, h->value);
        }
    }
    es_headers_status(r, response->code, response->reason);
}
