/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/filter.c: names and delivery filters. */
#include "es_test.h"
#include "grip_int.h"

static void knows_its_filters(void **state)
{
    static const struct {
        const char *name;
        es_filter_t filter;
        bool content;
    } known[] = { { "skip-self", ES_FILTER_SKIP_SELF, false },
                  { "skip-users", ES_FILTER_SKIP_USERS, false },
                  { "require-sub", ES_FILTER_REQUIRE_SUB, false },
                  { "build-id", ES_FILTER_BUILD_ID, true },
                  { "var-subst", ES_FILTER_VAR_SUBST, true } };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(known); i++) {
        assert_int_equal(es_filter_by_name(es_str(known[i].name)), known[i].filter);
        assert_string_equal(es_filter_name(known[i].filter), known[i].name);
        assert_int_equal(es_filter_is_content(known[i].filter), known[i].content);
    }
    assert_int_equal(es_filter_by_name(S("Skip-Self")), ES_FILTER_NONE);
    assert_int_equal(es_filter_by_name(S("skip-self\0")), ES_FILTER_NONE);
    assert_int_equal(es_filter_by_name(S("")), ES_FILTER_NONE);
    assert_null(es_filter_name(ES_FILTER_NONE));
    assert_null(es_filter_name((es_filter_t)99));
    assert_false(es_filter_is_content(ES_FILTER_NONE));
}

static bool has_channel(void *ctx, es_str_t name)
{
    return es_str_is(name, ctx);
}

static const char *no_id(void *ctx, es_str_t name)
{
    (void)ctx;
    (void)name;
    return NULL;
}

/* One pair of subscription meta against one of publish meta; NULL: not there. */
static bool admits(es_filter_t filter, const char *user, const char *name, const char *value)
{
    es_pairs_t sub = { NULL, 0 };
    es_pairs_t pub = { NULL, 0 };
    es_filter_view_t view = { .sub_meta = &sub,
                              .pub_meta = &pub,
                              .has_channel = has_channel,
                              .channel_id = no_id,
                              .ctx = "chan" };
    bool yes;

    if (user != NULL) {
        assert_int_equal(es_pairs_add(&sub, S("user"), es_str(user)), ES_OK);
    }
    if (value != NULL) {
        assert_int_equal(es_pairs_add(&pub, es_str(name), es_str(value)), ES_OK);
    }
    yes = es_filter_admits(filter, &view);
    es_pairs_free(&sub);
    es_pairs_free(&pub);
    return yes;
}

static void skip_self_drops_ones_own(void **state)
{
    (void)state;
    assert_false(admits(ES_FILTER_SKIP_SELF, "al", "sender", "al"));
    assert_true(admits(ES_FILTER_SKIP_SELF, "al", "sender", "bo"));
    assert_true(admits(ES_FILTER_SKIP_SELF, "al", "sender", "ali"));
    assert_true(admits(ES_FILTER_SKIP_SELF, "al", "sender", "AL"));
    assert_true(admits(ES_FILTER_SKIP_SELF, "", "sender", ""));
    assert_true(admits(ES_FILTER_SKIP_SELF, NULL, "sender", "al"));
    assert_true(admits(ES_FILTER_SKIP_SELF, "al", "sender", NULL));
    assert_true(admits(ES_FILTER_SKIP_SELF, "al", "skip_users", "al"));
}

static void skip_users_reads_a_list(void **state)
{
    (void)state;
    assert_false(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", "1,2"));
    assert_false(admits(ES_FILTER_SKIP_USERS, "1", "skip_users", "1,2"));
    assert_false(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", "1, 2 ,"));
    assert_false(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", ",,2"));
    assert_true(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", "1,22"));
    assert_true(admits(ES_FILTER_SKIP_USERS, "", "skip_users", ",,"));
    assert_true(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", ""));
    assert_true(admits(ES_FILTER_SKIP_USERS, NULL, "skip_users", "2"));
    assert_true(admits(ES_FILTER_SKIP_USERS, "2", "skip_users", NULL));
}

static void require_sub_asks_the_stream(void **state)
{
    (void)state;
    assert_true(admits(ES_FILTER_REQUIRE_SUB, NULL, "require_sub", "chan"));
    assert_false(admits(ES_FILTER_REQUIRE_SUB, NULL, "require_sub", "other"));
    assert_true(admits(ES_FILTER_REQUIRE_SUB, NULL, "require_sub", ""));
    assert_true(admits(ES_FILTER_REQUIRE_SUB, NULL, "require_sub", NULL));
}

static void other_filters_let_everything_through(void **state)
{
    (void)state;
    assert_true(admits(ES_FILTER_NONE, "al", "sender", "al"));
    assert_true(admits(ES_FILTER_BUILD_ID, "al", "sender", "al"));
    assert_true(admits(ES_FILTER_VAR_SUBST, "al", "skip_users", "al"));
}

static void works_without_meta(void **state)
{
    es_filter_view_t view = { .has_channel = has_channel, .channel_id = no_id, .ctx = "chan" };

    (void)state;
    assert_true(es_filter_admits(ES_FILTER_SKIP_SELF, &view));
    assert_true(es_filter_admits(ES_FILTER_SKIP_USERS, &view));
    assert_true(es_filter_admits(ES_FILTER_REQUIRE_SUB, &view));
}

static void fits_names_behind_a_prefix(void **state)
{
    (void)state;
    assert_true(es_filter_name_fits(S("events-a"), S("events-a")));
    assert_true(es_filter_name_fits(S("myapp-events-a"), S("events-a")));
    assert_false(es_filter_name_fits(S("events-a"), S("myapp-events-a")));
    assert_false(es_filter_name_fits(S("events-ab"), S("events-a")));
    assert_true(es_filter_name_fits(S(""), S("")));
    assert_false(es_filter_name_fits(S("events-a"), S("")));
    assert_false(es_filter_name_fits(S(""), S("a")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_its_filters),
        cmocka_unit_test(skip_self_drops_ones_own),
        cmocka_unit_test(skip_users_reads_a_list),
        cmocka_unit_test(require_sub_asks_the_stream),
        cmocka_unit_test(other_filters_let_everything_through),
        cmocka_unit_test(works_without_meta),
        cmocka_unit_test(fits_names_behind_a_prefix),
    };
    return cmocka_run_group_tests_name("filter", tests, NULL, NULL);
}
