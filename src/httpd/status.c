/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `SetHandler eventstream-status`: the hub's counters, as it renders them itself (hub/stats.c):
 * ?json, ?prometheus, or an HTML page made of the latter's lines.
 */
#include "es_httpd.h"

static const char page_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Event "
    "streams</title>\n"
    "<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" "
    "content=\"5\">\n"
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 "
    "1rem;"
    "color-scheme:light dark}table{border-collapse:collapse;width:100%}td{padding:.3rem "
    ".5rem;border-bottom:"
    "1px solid "
    "#8884}td:last-child{text-align:right;font-variant-numeric:tabular-nums}</style></head>\n"
    "<body><h1>Event streams</h1>\n<table>\n";
static const char page_tail[] = "</table>\n<p>Every 5 s anew. <a href=\"?json\">JSON</a> &middot; "
                                "<a href=\"?prometheus\">Prometheus</a></p></body></html>\n";

/* "name value" lines become rows; lines that start with # are for Prometheus alone. */
static void put_rows(request_rec *r, char *text)
{
    char *state = NULL;
    char *line;

    for (line = apr_strtok(text, "\n", &state); line; line = apr_strtok(NULL, "\n", &state)) {
        char *value = strrchr(line, ' ');

        if (*line == '#' || !value) {
            continue;
        }
        *value++ = '\0';
        ap_rvputs(r, "<tr><td>", ap_escape_html(r->pool, line), "</td><td>",
                  ap_escape_html(r->pool, value), "</td></tr>\n", NULL);
    }
}

/* "?json", and "?json=" as programs write it that only know names with values. */
static bool asks_for(const request_rec *r, const char *form)
{
    const size_t n = strlen(form);

    return r->args && strncmp(r->args, form, n) == 0 &&
           (r->args[n] == '\0' || r->args[n] == '=' || r->args[n] == '&');
}

int es_status_handler(request_rec *r)
{
    const bool json = asks_for(r, "json");
    const bool prometheus = asks_for(r, "prometheus");
    const char *text = NULL;
    es_err_t err;

    if (!r->handler || strcmp(r->handler, "eventstream-status") != 0) {
        return DECLINED;
    }
    r->allowed = (apr_int64_t)1 << M_GET;
    if (r->method_number != M_GET) {
        return HTTP_METHOD_NOT_ALLOWED;
    }
    err = es_hublink_call(r, ES_WIRE_STATS, es_str(json ? "json" : "prometheus"), &text, NULL);
    if (err != ES_OK) {
        return HTTP_SERVICE_UNAVAILABLE;
    }
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    ap_set_content_type(r, json         ? "application/json"
                           : prometheus ? "text/plain; version=0.0.4"
                                        : "text/html; charset=utf-8");
    if (json || prometheus) {
        ap_rputs(text, r);
        return OK;
    }
    ap_rputs(page_head, r);
    put_rows(r, apr_pstrdup(r->pool, text));
    ap_rputs(page_tail, r);
    return OK;
}
