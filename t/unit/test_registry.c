/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/hub/registry.c. */
#include "hub_fixture.h"

static es_registry_t *make(int loops)
{
    es_registry_t *registry = NULL;

    assert_int_equal(es_registry_make(loops, &registry), ES_OK);
    return registry;
}

static void a_channel_exists_while_a_stream_is_on_it(void **state)
{
    es_registry_t *r = make(1);
    es_channel_t *c, *again;

    (void)state;
    assert_null(es_registry_find(r, S("a")));
    c = es_registry_join(r, S("a"), 0);
    assert_non_null(c);
    assert_string_equal(c->name, "a");
    assert_int_equal(c->name_len, 1);
    again = es_registry_join(r, S("a"), 0);
    assert_ptr_equal(again, c);
    assert_int_equal(es_registry_count(r), 1);
    assert_int_equal(es_registry_find(r, S("a"))->streams, 2);
    assert_ptr_equal(es_registry_find(r, S("a"))->loop[0].channel, c);
    assert_false(es_registry_leave(r, c, 0));
    assert_int_equal(es_registry_find(r, S("a"))->streams, 1);
    assert_true(es_registry_leave(r, c, 0));
    assert_null(es_registry_find(r, S("a")));
    assert_int_equal(es_registry_count(r), 0);
    es_channel_free(c);
    es_registry_free(r);
}

static void each_loop_has_its_own_log(void **state)
{
    es_registry_t *r = make(3);
    es_channel_t *c0 = es_registry_join(r, S("a"), 0);
    es_channel_t *c2 = es_registry_join(r, S("a"), 2);
    es_entry_t *e = es_registry_find(r, S("a"));

    (void)state;
    assert_ptr_not_equal(c0, c2);
    assert_ptr_equal(e->loop[0].channel, c0);
    assert_null(e->loop[1].channel);
    assert_ptr_equal(e->loop[2].channel, c2);
    assert_int_equal(e->streams, 2);
    /* The last of its loop, not of the channel. */
    assert_true(es_registry_leave(r, c0, 0));
    assert_ptr_equal(es_registry_find(r, S("a")), e);
    assert_null(e->loop[0].channel);
    assert_int_equal(e->streams, 1);
    /* A stream that comes back before the loop has freed the old log gets a new one. */
    es_channel_t *next = es_registry_join(r, S("a"), 0);
    assert_ptr_not_equal(next, c0);
    es_channel_free(c0);
    assert_true(es_registry_leave(r, c2, 2));
    es_channel_free(c2);
    assert_true(es_registry_leave(r, next, 0));
    es_channel_free(next);
    assert_int_equal(es_registry_count(r), 0);
    es_registry_free(r);
}

static void names_are_bytes_with_a_length(void **state)
{
    es_registry_t *r = make(1);
    char name[] = "abc";
    es_channel_t *empty, *abc;

    (void)state;
    empty = es_registry_join(r, S(""), 0);
    abc = es_registry_join(r, (es_str_t) { name, 3 }, 0);
    assert_ptr_not_equal(empty, abc);
    memset(name, 'x', 3); /* the registry keeps a copy */
    assert_non_null(es_registry_find(r, S("abc")));
    assert_non_null(es_registry_find(r, S("")));
    assert_null(es_registry_find(r, S("ab")));
    assert_null(es_registry_find(r, S("abc\0")));
    assert_null(es_registry_find(r, S("ABC")));
    assert_true(es_registry_leave(r, empty, 0));
    es_channel_free(empty);
    assert_null(es_registry_find(r, S("")));
    assert_true(es_registry_leave(r, abc, 0));
    es_channel_free(abc);
    es_registry_free(r);
}

static void thousands_come_and_go(void **state)
{
    enum { MANY = 20000 };
    es_registry_t *r = make(2);
    es_channel_t **c = calloc(MANY, sizeof *c);
    char name[16];
    int i, round;

    (void)state;
    assert_non_null(c);
    for (round = 0; round < 2; round++) {
        for (i = 0; i < MANY; i++) {
            const int n = snprintf(name, sizeof name, "channel-%d", i);

            c[i] = es_registry_join(r, (es_str_t) { name, (size_t)n }, i % 2);
            assert_non_null(c[i]);
        }
        assert_int_equal(es_registry_count(r), MANY);
        for (i = MANY - 1; i >= 0; i--) {
            assert_true(es_registry_leave(r, c[i], i % 2));
            es_channel_free(c[i]);
        }
        assert_int_equal(es_registry_count(r), 0);
    }
    free(c);
    es_registry_free(r);
}

static void frees_what_is_left(void **state)
{
    es_registry_t *r = make(1);
    es_channel_t *c = es_registry_join(r, S("a"), 0);

    (void)state;
    assert_non_null(es_registry_join(r, S("a"), 0));
    es_registry_free(r); /* entries; the channels are their loops' */
    es_channel_free(c);
    es_registry_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_channel_exists_while_a_stream_is_on_it),
        cmocka_unit_test(each_loop_has_its_own_log),
        cmocka_unit_test(names_are_bytes_with_a_length),
        cmocka_unit_test(thousands_come_and_go),
        cmocka_unit_test(frees_what_is_left),
    };
    return cmocka_run_group_tests_name("registry", tests, fx_apr_up, fx_apr_down);
}
