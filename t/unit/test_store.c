/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the history store: what goes in comes out, in order, once. */
#include "store_fixture.h"

static void what_is_appended_is_read_in_order(void **state)
{
    sx_t *x = sx_make();
    const sx_got_t *g;

    (void)state;
    sx_open(x);
    assert_int_equal(sx_add(x, "a", "one"), 1);
    sx_add(x, "b", "two");
    sx_add(x, "a", "three");
    sx_add(x, "c", "four");
    assert_string_equal(sx_all(x, "a", 0), "1:0:one 3:0:three ");
    assert_string_equal(sx_all(x, "b,a", 0), "1:1:one 2:0:two 3:1:three ");
    assert_string_equal(sx_all(x, "a,b,c", 2), "3:0:three 4:2:four ");
    assert_string_equal(sx_all(x, "a,a,nobody", 0), "1:0:one 3:0:three ");
    assert_string_equal(sx_all(x, "nobody", 0), "");
    assert_string_equal(sx_all(x, "", 0), "");
    assert_string_equal(sx_all(x, "a", UINT64_MAX), "");
    g = sx_read(x, "a,b,c", (es_store_range_t) { .after = 1, .up_to = 3 });
    assert_string_equal(g->text, "2:1:two 3:0:three ");
    assert_int_equal(g->result.last, 3);
    /* What is not written yet is not skipped. */
    g = sx_read(x, "b", (es_store_range_t) { .up_to = 100 });
    assert_int_equal(g->result.last, 4);
    assert_false(g->result.more);
    assert_false(g->result.reset);
    sx_consistent(x);
    sx_free(x);
}

static void a_read_is_bounded_and_goes_on(void **state)
{
    sx_t *x = sx_make();
    char *big = es_repeat('x', 3000);
    uint64_t after = 0;
    const sx_got_t *g;
    sx_got_t stop = { .stop_after = 2 };
    es_str_t names[2] = { S("a"), S("b") };
    es_store_range_t all = { .after = 0 };
    int i, n;

    (void)state;
    sx_open(x);
    for (i = 0; i < 10; i++) {
        sx_add(x, i % 2 ? "a" : "b", big);
    }
    for (n = 0, i = 0; n < 10; i++) {
        g = sx_read(x, "a,b", (es_store_range_t) { .after = after, .max_count = 3 });
        assert_int_equal(g->result.count, n + 3 <= 10 ? 3 : 1);
        n += (int)g->result.count;
        assert_int_equal(g->result.last, n);
        assert_int_equal(g->result.more, n < 10);
        after = g->result.last;
    }
    g = sx_read(x, "a,b", (es_store_range_t) { .max_bytes = 6000 });
    assert_int_equal(g->result.count, 2);
    assert_true(g->result.more);
    g = sx_read(x, "a,b", (es_store_range_t) { .max_bytes = 1 });
    assert_int_equal(g->result.count, 1);
    assert_int_equal(es_store_read(x->store, names, 2, &all, sx_each, &stop, &stop.result, NULL),
                     ES_OK);
    assert_int_equal(stop.result.count, 2);
    assert_int_equal(stop.result.last, 2);
    assert_true(stop.result.more);
    free(big);
    sx_free(x);
}

static void names_are_bytes_of_any_length(void **state)
{
    sx_t *x = sx_make();
    char *names = es_repeat('n', ES_STORE_NAME_MAX + 1), *other = es_repeat('n', ES_STORE_NAME_MAX);
    static const char nul[] = { 'a', 0, 'b' };
    const es_str_t list[] = { { names, ES_STORE_NAME_MAX },
                              { other, ES_STORE_NAME_MAX },
                              { names, 600 },
                              { names, 511 },
                              { nul, 3 },
                              { nul, 2 },
                              { "\xff\n", 2 } };
    es_store_range_t all = { .after = 0 };
    es_detail_t d;
    size_t i;

    (void)state;
    other[ES_STORE_NAME_MAX - 1] = 'o';
    sx_open(x);
    for (i = 0; i < ES_COUNT(list); i++) {
        const es_store_item_t item = { sx_take(x, 1), list[i], 1, S("") };

        assert_err(es_store_append(x->store, &item, 1, &d), ES_OK, &d);
    }
    sx_close(x);
    sx_open(x);
    for (i = 0; i < ES_COUNT(list); i++) {
        es_store_channel_info_t info;

        assert_err(es_store_channel_info(x->store, list[i], &info, &d), ES_OK, &d);
        assert_int_equal(info.count, 1);
        assert_int_equal(info.oldest, i + 1);
        assert_int_equal(info.newest, i + 1);
    }
    for (i = 0; i < 2; i++) {
        const es_str_t bad = { names, i == 0 ? 0 : ES_STORE_NAME_MAX + 1 };
        const es_store_item_t item = { sx_take(x, 1), bad, 1, S("") };
        es_store_channel_info_t info;
        es_store_result_t result;

        assert_int_equal(es_store_append(x->store, &item, 1, &d), ES_EINVAL);
        assert_non_null(strstr(d.text, "1 to 4096 are accepted"));
        assert_int_equal(es_store_read(x->store, &bad, 1, &all, sx_each, NULL, &result, &d),
                         ES_EINVAL);
        assert_int_equal(es_store_channel_info(x->store, bad, &info, &d), ES_EINVAL);
        assert_int_equal(es_store_clear(x->store, bad, &d), ES_EINVAL);
    }
    assert_int_equal(sx_info(x).channels, ES_COUNT(list));
    sx_consistent(x);
    free(names);
    free(other);
    sx_free(x);
}

static void a_batch_is_stored_whole_or_not_at_all(void **state)
{
    sx_t *x = sx_make();
    uint64_t first;
    es_detail_t d;

    (void)state;
    sx_open(x);
    first = sx_take(x, 3);
    {
        const es_store_item_t good[] = { { first, S("a"), 1, S("1") },
                                         { first + 1, S("b"), 1, S("2") },
                                         { first + 2, S("a"), 1, S("3") } };
        const es_store_item_t same[] = { good[0], good[0] };
        const es_store_item_t back[] = { good[2], good[1] };
        const es_store_item_t not_taken = { first + 3, S("a"), 1, S("x") };

        assert_int_equal(es_store_append(x->store, same, 2, &d), ES_EINVAL);
        assert_int_equal(es_store_append(x->store, back, 2, &d), ES_EINVAL);
        assert_int_equal(es_store_append(x->store, &not_taken, 1, &d), ES_EINVAL);
        assert_non_null(strstr(d.text, "number 4, one from 1 to 3 is accepted"));
        assert_string_equal(sx_all(x, "a,b", 0), "");
        assert_err(es_store_append(x->store, good, 3, &d), ES_OK, &d);
        assert_string_equal(sx_all(x, "a,b", 0), "1:0:1 2:1:2 3:0:3 ");
        assert_int_equal(es_store_append(x->store, good, 3, &d), ES_EINVAL);
        assert_int_equal(es_store_append(x->store, good, 0, &d), ES_OK);
    }
    {
        char *big = es_repeat('x', 3 * 1024 * 1024);
        const es_store_item_t item = { sx_take(x, 1), S("a"), 1, { big, 3 * (size_t)1024 * 1024 } };

        assert_int_equal(es_store_append(x->store, &item, 1, &d), ES_ETOOBIG);
        free(big);
    }
    sx_consistent(x);
    sx_free(x);
}

static void numbers_are_never_given_out_twice(void **state)
{
    sx_t *x = sx_make();
    uint64_t newest = 0, instance;
    int i;

    (void)state;
    sx_open(x);
    instance = es_store_instance(x->store);
    assert_true(instance != 0 && instance <= INT64_MAX);
    for (i = 0; i < 5; i++) {
        uint64_t first = sx_take(x, 10);

        assert_true(first > newest);
        newest = first + 9;
        first = sx_take(x, 200000); /* more than a block; never written */
        assert_int_equal(first, newest + 1);
        newest += 200000;
        sx_close(x);
        sx_open(x);
        assert_int_equal(es_store_instance(x->store), instance);
    }
    {
        uint64_t first;

        assert_int_equal(es_store_take(x->store, 0, &first, NULL), ES_EINVAL);
        assert_int_equal(es_store_take(x->store, UINT64_MAX, &first, NULL), ES_EINVAL);
    }
    assert_true(sx_add(x, "a", "x") > newest);
    sx_free(x);
}

static void the_last_of_some_channels(void **state)
{
    sx_t *x = sx_make();
    es_str_t v[8];
    const struct {
        const char *names;
        size_t count;
        uint64_t up_to, after;
    } cases[] = { { "a,b", 2, 0, 6 },  { "a,b", 3, 0, 5 },  { "a,b", 100, 0, 0 },
                  { "a", 1, 0, 6 },    { "a", 2, 0, 3 },    { "c", 1, 0, 4 },
                  { "a,b", 0, 0, 8 },  { "none", 5, 0, 8 }, { "a,b", 1, 6, 5 },
                  { "a,b", 2, 3, 0 },  { "c", 9, 3, 2 },    { "c", 9, 2, 2 },
                  { "a,b,c", 8, 0, 0 } };
    size_t i;

    (void)state;
    sx_open(x);
    for (i = 0; i < 8; i++) { /* a 1 4 7, b 2 6 8, c 3 5 */
        static const char *const on[] = { "a", "b", "c", "a", "c", "b", "a", "b" };

        sx_add(x, on[i], "x");
    }
    for (i = 0; i < ES_COUNT(cases); i++) {
        uint64_t after = 99;
        es_detail_t d;

        assert_err(es_store_rewind(x->store, v, sx_names(cases[i].names, v), cases[i].count,
                                   cases[i].up_to, &after, &d),
                   ES_OK, &d);
        assert_int_equal(after, cases[i].after);
    }
    sx_free(x);
}

static void records_since_a_time(void **state)
{
    sx_t *x = sx_make();
    uint64_t seq = 0, i;

    (void)state;
    sx_open(x);
    assert_int_equal(es_store_at(x->store, 0, &seq, NULL), ES_ENOENT);
    for (i = 0; i < 50; i++) {
        x->now_ms = 1000 + i / 2 * 10;
        sx_take(x, 3); /* numbers have gaps */
        sx_add(x, "a", "x");
    }
    for (i = 0; i < 25; i++) {
        assert_int_equal(es_store_at(x->store, 1000 + i * 10, &seq, NULL), ES_OK);
        assert_int_equal(seq, (2 * i + 1) * 4);
        assert_int_equal(es_store_at(x->store, 991 + i * 10, &seq, NULL), ES_OK);
        assert_int_equal(seq, (2 * i + 1) * 4);
    }
    assert_int_equal(es_store_at(x->store, 1241, &seq, NULL), ES_ENOENT);
    /* The clock was set back. */
    x->now_ms = 5;
    sx_add(x, "a", "x");
    assert_int_equal(es_store_at(x->store, 1240, &seq, NULL), ES_OK);
    sx_free(x);
}

static void facts_are_right(void **state)
{
    sx_t *x = sx_make();
    es_store_channel_info_t info;
    es_store_info_t all;

    (void)state;
    sx_open(x);
    all = sx_info(x);
    assert_int_equal(all.records + all.channels + all.oldest + all.newest, 0);
    sx_add(x, "a", "12345");
    sx_add(x, "b", "");
    sx_add(x, "a", "67");
    assert_int_equal(es_store_channel_info(x->store, S("a"), &info, NULL), ES_OK);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.bytes, 7);
    assert_int_equal(info.oldest, 1);
    assert_int_equal(info.newest, 3);
    assert_int_equal(info.pruned, 0);
    assert_int_equal(es_store_channel_info(x->store, S("c"), &info, NULL), ES_ENOENT);
    all = sx_info(x);
    assert_int_equal(all.records, 3);
    assert_int_equal(all.channels, 2);
    assert_int_equal(all.oldest, 1);
    assert_int_equal(all.newest, 3);
    assert_int_equal(all.oldest_ms, x->now_ms);
    assert_true(all.file_bytes >= all.used_bytes && all.used_bytes > 0);
    sx_free(x);
}

static void too_many_reads_at_once_are_refused(void **state)
{
    sx_t *x = sx_make();
    MDB_txn *readers[126];
    const es_str_t name = S("a");
    const es_store_range_t all = { .after = 0 };
    es_store_result_t result;
    es_detail_t d;
    size_t i;

    (void)state;
    sx_open(x);
    sx_add(x, "a", "x");
    for (i = 0; i < ES_COUNT(readers); i++) {
        assert_int_equal(mdb_txn_begin(x->store->env, NULL, MDB_RDONLY, &readers[i]), 0);
    }
    assert_int_equal(es_store_read(x->store, &name, 1, &all, sx_each, NULL, &result, &d),
                     ES_EAGAIN);
    mdb_txn_abort(readers[0]);
    assert_string_equal(sx_all(x, "a", 0), "1:0:x ");
    for (i = 1; i < ES_COUNT(readers); i++) {
        mdb_txn_abort(readers[i]);
    }
    sx_free(x);
}

static void a_number_of_an_earlier_life_is_refused(void **state)
{
    sx_t *x = sx_make();
    es_store_item_t item = { 0, S("a"), 1, S("x") };
    es_detail_t d;

    (void)state;
    sx_open(x);
    item.seq = sx_take(x, 1);
    sx_close(x);
    sx_open(x);
    sx_take(x, 1);
    assert_int_equal(es_store_append(x->store, &item, 1, &d), ES_EINVAL);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_read_in_order),
        cmocka_unit_test(a_read_is_bounded_and_goes_on),
        cmocka_unit_test(names_are_bytes_of_any_length),
        cmocka_unit_test(a_batch_is_stored_whole_or_not_at_all),
        cmocka_unit_test(numbers_are_never_given_out_twice),
        cmocka_unit_test(the_last_of_some_channels),
        cmocka_unit_test(records_since_a_time),
        cmocka_unit_test(facts_are_right),
        cmocka_unit_test(too_many_reads_at_once_are_refused),
        cmocka_unit_test(a_number_of_an_earlier_life_is_refused),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
