/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filter names and the delivery filters. A delivery filter decides, for each stream, whether a
 * message goes out; it compares the meta of the subscription (Grip-Set-Meta) with the meta of the
 * item. When either side says nothing, the message passes.
 */
#include "grip_int.h"

#include <string.h>

static const struct {
    es_filter_t filter;
    const char *name;
    bool content;
} filters[] = {
    { ES_FILTER_SKIP_SELF, "skip-self", false },     { ES_FILTER_SKIP_USERS, "skip-users", false },
    { ES_FILTER_REQUIRE_SUB, "require-sub", false }, { ES_FILTER_BUILD_ID, "build-id", true },
    { ES_FILTER_VAR_SUBST, "var-subst", true },
};

enum { FILTER_COUNT = sizeof(filters) / sizeof(filters[0]) };

es_filter_t es_filter_by_name(es_str_t name)
{
    size_t i;

    for (i = 0; i < FILTER_COUNT; i++) {
        if (es_str_is(name, filters[i].name)) {
            return filters[i].filter;
        }
    }
    return ES_FILTER_NONE;
}

const char *es_filter_name(es_filter_t filter)
{
    size_t i;

    for (i = 0; i < FILTER_COUNT; i++) {
        if (filters[i].filter == filter) {
            return filters[i].name;
        }
    }
    return NULL;
}

bool es_filter_is_content(es_filter_t filter)
{
    size_t i;

    for (i = 0; i < FILTER_COUNT; i++) {
        if (filters[i].filter == filter) {
            return filters[i].content;
        }
    }
    return false;
}

static es_str_t meta_value(const es_pairs_t *meta, const char *name)
{
    const es_pair_t *pair = meta == NULL ? NULL : es_pairs_get(meta, name);
    es_str_t value = { NULL, 0 };

    if (pair != NULL) {
        value.p = pair->value;
        value.n = pair->value_len;
    }
    return value;
}

static bool list_holds(es_str_t list, es_str_t wanted)
{
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma == NULL ? list.n : (size_t)(comma - list.p);
        es_str_t name = { list.p, n };
        if (es_text_equals(es_str_trim(name), wanted)) {
            return true;
        }
        n = comma == NULL ? n : n + 1;
        list.p += n;
        list.n -= n;
    }
    return false;
}

bool es_filter_name_fits(es_str_t held, es_str_t wanted)
{
    if (wanted.n == 0 || wanted.n > held.n) {
        return held.n == wanted.n;
    }
    held.p += held.n - wanted.n;
    held.n = wanted.n;
    return es_text_equals(held, wanted);
}

bool es_filter_admits(es_filter_t filter, const es_filter_view_t *view)
{
    es_str_t user = meta_value(view->sub_meta, "user");
    es_str_t wanted;

    switch (filter) {
    case ES_FILTER_SKIP_SELF:
        return user.n == 0 || !es_text_equals(user, meta_value(view->pub_meta, "sender"));
    case ES_FILTER_SKIP_USERS:
        return user.n == 0 || !list_holds(meta_value(view->pub_meta, "skip_users"), user);
    case ES_FILTER_REQUIRE_SUB:
        wanted = meta_value(view->pub_meta, "require_sub");
        return wanted.n == 0 || view->has_channel(view->ctx, wanted);
    case ES_FILTER_NONE:
    case ES_FILTER_BUILD_ID:
    case ES_FILTER_VAR_SUBST:
        break;
    }
    return true;
}
