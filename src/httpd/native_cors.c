/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CORS: what lets pages of other sites read the answers of the native endpoint. The headers are on
 * refusals too, so that such a page learns why. An origin that is not listed gets none, and the
 * browser keeps the answer from it; the request itself is served as ever, as with any other server:
 * who may is for tokens and Require to say.
 */
#include "es_httpd.h"

enum { PREFLIGHT_AGE = 600 }; /* seconds that a browser may keep what OPTIONS said */

void es_native_cors(request_rec *r, const es_native_conf_t *conf, const char *methods)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    apr_table_t *out = r->err_headers_out; /* these go out whatever the status is */
    bool all;

    if (!conf->origins) {
        return;
    }
    all = es_patterns_match(conf->origins, es_str("*"));
    if (!all) {
        apr_table_mergen(out, "Vary", "Origin"); /* of the answer without these headers, too */
    }
    if (!origin || !(all || es_patterns_match(conf->origins, es_str(origin)))) {
        return;
    }
    apr_table_setn(out, "Access-Control-Allow-Origin", all ? "*" : origin);
    if (!all && conf->credentials == 1) {
        apr_table_setn(out, "Access-Control-Allow-Credentials", "true");
    }
    if (r->method_number == M_OPTIONS) {
        apr_table_setn(out, "Access-Control-Allow-Methods", methods);
        apr_table_setn(out, "Access-Control-Max-Age", apr_itoa(r->pool, PREFLIGHT_AGE));
        if (conf->headers) {
            apr_table_setn(out, "Access-Control-Allow-Headers", conf->headers);
        }
    }
}

bool es_native_own_page(request_rec *r, const es_native_conf_t *conf)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    const char *host = apr_table_get(r->headers_in, "Host");
    const char *site = origin ? strstr(origin, "://") : NULL;

    /* The scheme does not count: TLS may end at a proxy before this server. */
    return !origin || (site && host && ap_cstr_casecmp(site + 3, host) == 0) ||
           (conf->origins && es_patterns_match(conf->origins, es_str(origin)));
}
