/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content filters. The input is three parts divided by NUL: id_format, a comma list of users, and
 * the content. "Accepted" means here that a directive was found and replaced.
 */
#include "fuzz.h"

#include "es_grip.h"

#include <string.h>

enum { MAX_OUT = 100000 };

ES_FUZZ_TARGET;

static bool has_channel(void *ctx, es_str_t name)
{
    (void)ctx;
    return es_filter_name_fits(es_str("app-chan"), name);
}

static const char *channel_id(void *ctx, es_str_t name)
{
    return has_channel(ctx, name) ? "7" : NULL;
}

static es_str_t take_part(es_str_t *rest)
{
    const char *end = rest->n == 0 ? NULL : memchr(rest->p, '\0', rest->n);
    es_str_t part = *rest;

    if (end == NULL) {
        rest->p += rest->n;
        rest->n = 0;
        return part;
    }
    part.n = (size_t)(end - rest->p);
    rest->p = end + 1;
    rest->n -= part.n + 1;
    return part;
}

static void render(es_filter_t filter, const es_filter_view_t *view, es_str_t content)
{
    es_buf_t out;
    es_detail_t detail = { "" };
    es_err_t err;

    es_buf_init(&out, MAX_OUT);
    err = es_filter_render(filter, view, content, &out, &detail);
    if (err == ES_OK) {
        ES_FUZZ_CHECK(out.n <= MAX_OUT);
        if (content.n == 0 || memchr(content.p, '%', content.n) == NULL) {
            ES_FUZZ_CHECK(out.n == content.n &&
                          (out.n == 0 || memcmp(out.p, content.p, out.n) == 0));
        }
        else if (out.n != content.n || memcmp(out.p, content.p, out.n) != 0) {
            es_fuzz_accept();
        }
    }
    else {
        ES_FUZZ_CHECK(err == ES_ETOOBIG && out.n == 0 && detail.text[0] != '\0');
    }
    es_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_pairs_t sub = { NULL, 0 };
    es_pairs_t pub = { NULL, 0 };
    es_filter_view_t view = { &sub, &pub, has_channel, channel_id, NULL };
    es_str_t rest = { (const char *)data, size };
    es_str_t format = take_part(&rest);
    es_str_t users = take_part(&rest);
    unsigned long before = es_fuzz_accepted;

    ES_FUZZ_CHECK(es_pairs_add(&sub, es_str("id_format"), format) == ES_OK);
    ES_FUZZ_CHECK(es_pairs_add(&sub, es_str("user"), es_str("al")) == ES_OK);
    ES_FUZZ_CHECK(es_pairs_add(&pub, es_str("skip_users"), users) == ES_OK);
    ES_FUZZ_CHECK(es_pairs_add(&pub, es_str("require_sub"), users) == ES_OK);
    if (size % 2 == 0) {
        ES_FUZZ_CHECK(es_pairs_add(&sub, es_str("id_encoding"), es_str("hex")) == ES_OK);
    }
    (void)es_filter_admits(ES_FILTER_SKIP_USERS, &view);
    (void)es_filter_admits(ES_FILTER_REQUIRE_SUB, &view);
    render(ES_FILTER_BUILD_ID, &view, rest);
    render(ES_FILTER_VAR_SUBST, &view, rest);
    if (es_fuzz_accepted > before) {
        es_fuzz_accepted = before + 1;
    }
    es_pairs_free(&sub);
    es_pairs_free(&pub);
    return 0;
}
