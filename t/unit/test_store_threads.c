/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread appends and prunes, others read: each sees every record once and in order, or is told
 * that it missed some.
 */
#include "store_fixture.h"

enum { READERS = 3, RECORDS = 600 };

typedef struct reader {
    sx_t *x;
    uint64_t last, count, resets;
    const char *wrong;
} reader_t;

static bool look(void *ctx, const es_store_record_t *r)
{
    reader_t *me = ctx;
    char want[32];

    snprintf(want, sizeof want, "%llu", (unsigned long long)r->seq);
    if (r->seq <= me->last || r->bytes.n != strlen(want) ||
        memcmp(r->bytes.p, want, r->bytes.n) != 0) {
        me->wrong = "a record out of order, or another's bytes";
    }
    me->last = r->seq;
    me->count++;
    return true;
}

static void *read_all(void *ctx)
{
    reader_t *me = ctx;
    const es_str_t names[] = { S("a"), S("b"), S("c") };
    es_store_result_t result = { .last = 0 };

    while (me->wrong == NULL && result.last < RECORDS) {
        es_store_range_t range = { .after = result.last, .max_count = 50 };
        const uint64_t before = me->count, after = result.last;
        es_store_channel_info_t info;
        uint64_t seq;

        if (es_store_read(me->x->store, names, 3, &range, look, me, &result, NULL) != ES_OK ||
            result.last < after) {
            me->wrong = "a read failed";
        }
        me->resets += result.reset;
        if (!result.reset && result.last - after != me->count - before) {
            me->wrong = "a record was missed";
        }
        if (es_store_rewind(me->x->store, names, 3, 10, 0, &seq, NULL) != ES_OK) {
            me->wrong = "a rewind failed";
        }
        (void)es_store_channel_info(me->x->store, names[0], &info, NULL);
        (void)es_store_at(me->x->store, 1, &seq, NULL);
    }
    return NULL;
}

static void run(bool prune)
{
    sx_t *x = sx_make();
    reader_t readers[READERS];
    pthread_t threads[READERS];
    uint64_t seq, file_bytes;
    int i;

    x->config.max_count = prune ? 20 : 0;
    sx_open(x);
    for (i = 0; i < READERS; i++) {
        readers[i] = (reader_t) { .x = x };
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &readers[i]), 0);
    }
    for (seq = 0; seq < RECORDS; seq += 3) {
        const uint64_t first = sx_take(x, 3);
        es_store_item_t items[3];
        char texts[3][32];
        es_detail_t d;

        for (i = 0; i < 3; i++) {
            static const char *const names[] = { "a", "b", "c" };

            snprintf(texts[i], sizeof texts[i], "%llu", (unsigned long long)first + (unsigned)i);
            items[i] =
                (es_store_item_t) { first + (unsigned)i, es_str(names[i]), 1, es_str(texts[i]) };
        }
        assert_err(es_store_append(x->store, items, 3, &d), ES_OK, &d);
    }
    for (i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (readers[i].wrong != NULL) {
            print_error("reader %d after %llu: %s\n", i, (unsigned long long)readers[i].last,
                        readers[i].wrong);
        }
        assert_null(readers[i].wrong);
        assert_int_equal(readers[i].last, RECORDS);
        if (!prune) {
            assert_int_equal(readers[i].count, RECORDS);
            assert_int_equal(readers[i].resets, 0);
        }
    }
    sx_consistent(x);
    /* Readers leave nothing behind that keeps pages: 100 appends write some 3 MB, into old ones. */
    sx_add(x, "a", "x");
    file_bytes = sx_info(x).file_bytes;
    for (i = 0; i < 100; i++) {
        sx_add(x, "a", "x");
    }
    assert_true(sx_info(x).file_bytes < file_bytes + 512 * 1024);
    sx_free(x);
}

static void readers_see_everything(void **state)
{
    (void)state;
    run(false);
}

static void readers_are_told_what_they_missed(void **state)
{
    (void)state;
    run(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_everything),
        cmocka_unit_test(readers_are_told_what_they_missed),
    };
    return cmocka_run_group_tests_name("store_threads", tests, NULL, NULL);
}
