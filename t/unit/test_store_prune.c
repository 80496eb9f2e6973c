/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the history store's bounds: age, count, size, clearing, and what readers are told of
 * what is gone. Run twice: with names that have their own hashes, and with one hash for all.
 *
 * Needs the linker's help: -Wl,--wrap=es_store_hash.
 */
#include "store_fixture.h"

uint64_t __real_es_store_hash(const uint64_t key[2], es_str_t name);
uint64_t __wrap_es_store_hash(const uint64_t key[2], es_str_t name);

static bool one_hash;

uint64_t __wrap_es_store_hash(const uint64_t key[2], es_str_t name)
{
    return one_hash ? 42 : __real_es_store_hash(key, name);
}

static void old_records_go(void **state)
{
    sx_t *x = sx_make();

    (void)state;
    x->config.max_age_ms = 1000;
    sx_open(x);
    sx_add(x, "a", "1");
    sx_add(x, "b", "2");
    x->now_ms += 600;
    sx_add(x, "a", "3");
    x->now_ms += 400;
    sx_prune(x, 0);
    assert_int_equal(sx_info(x).records, 3); /* exactly as old as they may be */
    x->now_ms++;
    sx_prune(x, 0);
    assert_string_equal(sx_all(x, "a,b", 0), "3:0:3 ");
    assert_int_equal(sx_info(x).channels, 1);
    assert_true(sx_reset(x, "a", 0));
    assert_false(sx_reset(x, "a", 1)); /* has seen all that is gone */
    assert_false(sx_reset(x, "a", 3));
    assert_true(sx_reset(x, "b", 1)); /* empty, and known to the last number */
    assert_false(sx_reset(x, "b", 2));
    assert_false(sx_reset(x, "c", 0)); /* never was */
    /* The clock before any record: nothing is old. */
    x->now_ms = 1;
    sx_prune(x, 0);
    assert_int_equal(sx_info(x).records, 1);
    sx_consistent(x);
    sx_free(x);
}

static void a_call_does_bounded_work(void **state)
{
    sx_t *x = sx_make();
    es_detail_t d;
    bool more = true;
    int i;

    (void)state;
    x->config.max_age_ms = 1000;
    sx_open(x);
    for (i = 0; i < 25; i++) {
        sx_add(x, "a", "x");
    }
    x->now_ms += 5000;
    for (i = 0; i < 3; i++) {
        assert_true(more);
        assert_err(es_store_prune(x->store, x->now_ms, 10, &more, &d), ES_OK, &d);
        assert_int_equal(sx_info(x).records, i < 2 ? 25 - 10 * (i + 1) : 0);
    }
    assert_false(more);
    sx_consistent(x);
    sx_free(x);
}

static void each_channel_keeps_its_newest(void **state)
{
    sx_t *x = sx_make();
    int i;

    (void)state;
    x->config.max_count = 3;
    sx_open(x);
    for (i = 0; i < 10; i++) {
        sx_add(x, i == 0 ? "b" : "a", "x");
    }
    assert_string_equal(sx_all(x, "a,b", 0), "1:1:x 8:0:x 9:0:x 10:0:x ");
    assert_true(sx_reset(x, "a", 6));
    assert_false(sx_reset(x, "a", 7));
    assert_false(sx_reset(x, "b", 0));
    sx_close(x);
    /* A lower limit reaches channels that nobody writes to any more; a higher one changes nothing.
     */
    x->config.max_count = 1;
    sx_open(x);
    sx_prune(x, 1);
    assert_string_equal(sx_all(x, "a,b", 0), "1:1:x 10:0:x ");
    sx_close(x);
    x->config.max_count = 0;
    sx_open(x);
    sx_prune(x, 1);
    for (i = 0; i < 6; i++) {
        sx_add(x, "b", "x");
    }
    assert_int_equal(sx_info(x).records, 8);
    sx_consistent(x);
    sx_free(x);
}

static void the_oldest_go_when_the_size_is_reached(void **state)
{
    sx_t *x = sx_make();
    char *text = es_repeat('t', 3000);
    es_store_info_t info;
    int i;

    (void)state;
    x->config.max_bytes = ES_STORE_BYTES_MIN;
    sx_open(x);
    for (i = 0; i < 3000; i++) {
        char name[16];

        snprintf(name, sizeof name, "c%d", i % 7);
        sx_add(x, name, text);
    }
    info = sx_info(x);
    assert_true(info.used_bytes <= ES_STORE_BYTES_MIN);
    assert_true(info.records > 150);
    assert_int_equal(info.oldest, 3000 - info.records + 1);
    assert_int_equal(info.channels, 7);
    /* Free pages are used again. */
    assert_true(info.file_bytes < 2 * ES_STORE_BYTES_MIN);
    assert_true(sx_reset(x, "c0", 0));
    assert_false(sx_logged(x, "ES0365"));
    sx_consistent(x);
    sx_close(x);
    sx_open(x);
    assert_int_equal(sx_info(x).records, info.records);
    free(text);
    sx_free(x);
}

static void clearing_takes_all_of_one_channel(void **state)
{
    sx_t *x = sx_make();
    es_store_item_t items[2500];
    uint64_t first;
    size_t i;
    es_detail_t d;

    (void)state;
    sx_open(x);
    first = sx_take(x, ES_COUNT(items));
    for (i = 0; i < ES_COUNT(items); i++) {
        items[i] = (es_store_item_t) { first + i, i == 7 ? S("b") : S("a"), 1, S("x") };
    }
    assert_err(es_store_append(x->store, items, ES_COUNT(items), &d), ES_OK, &d);
    assert_int_equal(es_store_clear(x->store, S("c"), &d), ES_ENOENT);
    assert_err(es_store_clear(x->store, S("a"), &d), ES_OK, &d);
    assert_string_equal(sx_all(x, "a,b", 0), "8:1:x ");
    assert_true(sx_reset(x, "a", 2499));
    assert_false(sx_reset(x, "a", 2500));
    assert_int_equal(es_store_clear(x->store, S("a"), &d), ES_ENOENT);
    assert_int_equal(sx_add(x, "a", "again"), 2501);
    assert_string_equal(sx_all(x, "a", 0), "2501:0:again ");
    assert_true(sx_reset(x, "a", 100));
    assert_false(sx_reset(x, "a", 2500));
    sx_consistent(x);
    sx_free(x);
}

/* The names of channels without records take a bounded room, and nobody is told too little. */
static void long_empty_channels_are_forgotten(void **state)
{
    sx_t *x = sx_make();
    es_store_item_t items[600];
    char *names[ES_COUNT(items)];
    uint64_t first;
    size_t i, known = 0;
    es_detail_t d;
    es_str_t name;
    es_row_t row;
    MDB_txn *txn;

    (void)state;
    x->config.max_bytes = ES_STORE_BYTES_MIN; /* 64 KiB of graves */
    x->config.max_age_ms = 1000;
    sx_open(x);
    first = sx_take(x, ES_COUNT(items));
    for (i = 0; i < ES_COUNT(items); i++) {
        names[i] = es_repeat('n', 100);
        snprintf(names[i] + 90, 10, "%zu", i);
        items[i] = (es_store_item_t) { first + i, es_str(names[i]), x->now_ms, S("x") };
    }
    assert_err(es_store_append(x->store, items, ES_COUNT(items), &d), ES_OK, &d);
    x->now_ms += 5000;
    sx_prune(x, 50);
    assert_int_equal(sx_info(x).records, 0);
    assert_int_equal(sx_info(x).channels, 0);
    sx_consistent(x);
    assert_int_equal(mdb_txn_begin(x->store->env, NULL, MDB_RDONLY, &txn), 0);
    for (i = 0; i < ES_COUNT(items); i++) {
        name = items[i].channel;
        known += es_row_find(x->store, txn, name, &row) == 0;
    }
    mdb_txn_abort(txn);
    assert_true(known > 100 && known < 400);
    for (i = 0; i < ES_COUNT(items); i++) {
        assert_true(sx_reset(x, names[i], items[i].seq - 1));
        if (i >= ES_COUNT(items) - known) {
            assert_false(sx_reset(x, names[i], items[i].seq));
        }
    }
    /* One that comes back does not know what it has lost. */
    sx_add(x, names[0], "back");
    assert_true(sx_reset(x, names[0], 1));
    assert_false(sx_reset(x, names[0], first + ES_COUNT(items)));
    sx_consistent(x);
    for (i = 0; i < ES_COUNT(items); i++) {
        free(names[i]);
    }
    sx_free(x);
}

static int set_one_hash(void **state)
{
    (void)state;
    one_hash = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_records_go),
        cmocka_unit_test(a_call_does_bounded_work),
        cmocka_unit_test(each_channel_keeps_its_newest),
        cmocka_unit_test(the_oldest_go_when_the_size_is_reached),
        cmocka_unit_test(clearing_takes_all_of_one_channel),
        cmocka_unit_test(long_empty_channels_are_forgotten),
        cmocka_unit_test_setup(old_records_go, set_one_hash),
        cmocka_unit_test_setup(a_call_does_bounded_work, set_one_hash),
        cmocka_unit_test_setup(each_channel_keeps_its_newest, set_one_hash),
        cmocka_unit_test_setup(the_oldest_go_when_the_size_is_reached, set_one_hash),
        cmocka_unit_test_setup(clearing_takes_all_of_one_channel, set_one_hash),
        cmocka_unit_test_setup(long_empty_channels_are_forgotten, set_one_hash),
    };
    return cmocka_run_group_tests_name("store_prune", tests, NULL, NULL);
}
