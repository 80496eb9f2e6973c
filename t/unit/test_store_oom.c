/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history store when memory or LMDB fail: the first, the second, the third ... allocation or
 * call of LMDB fails, until none does. Each time the caller is told, nothing leaks, and nothing
 * that was stored changes.
 *
 * Needs the linker's help: -Wl,--wrap=malloc,--wrap=calloc and the calls of LMDB below. What LMDB
 * allocates itself is not made to fail: its calls fail instead.
 */
#include "store_fixture.h"

static long countdown = -1; /* -1: nothing fails; else so many succeed before one fails */
static int failure = ENOMEM;

static bool fails_now(void)
{
    if (countdown < 0) {
        return false;
    }
    return countdown-- == 0;
}

#define WRAP(type, name, parameters, arguments, failed)                                            \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails_now() ? (failed) : __real_##name arguments;                                   \
    }

WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(int, mdb_env_create, (MDB_env * *env), (env), failure)
WRAP(int, mdb_env_open, (MDB_env * env, const char *path, unsigned int flags, mdb_mode_t mode),
     (env, path, flags, mode), failure)
WRAP(int, mdb_txn_begin, (MDB_env * env, MDB_txn *parent, unsigned int flags, MDB_txn **txn),
     (env, parent, flags, txn), failure)
WRAP(int, mdb_put, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *data, unsigned int flags),
     (txn, dbi, key, data, flags), failure)
WRAP(int, mdb_get, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *data), (txn, dbi, key, data),
     failure)
WRAP(int, mdb_del, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *data), (txn, dbi, key, data),
     failure)
WRAP(int, mdb_cursor_open, (MDB_txn * txn, MDB_dbi dbi, MDB_cursor **cursor), (txn, dbi, cursor),
     failure)
WRAP(int, mdb_cursor_get, (MDB_cursor * cursor, MDB_val *key, MDB_val *data, MDB_cursor_op op),
     (cursor, key, data, op), failure)

int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);

/* A commit that fails has dropped the transaction. */
int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    if (!fails_now()) {
        return __real_mdb_txn_commit(txn);
    }
    mdb_txn_abort(txn);
    return failure;
}

static const int failures[] = { ENOMEM, EIO, MDB_CORRUPTED };

/* ENOMEM comes out as it is; a failing malloc is out of memory whatever LMDB says. */
static void assert_told(es_err_t err)
{
    assert_true(err == ES_ENOMEM || (failure != ENOMEM && err == ES_EIO));
}

static void an_open_that_fails_leaves_nothing(void **state)
{
    es_detail_t d = { "" };
    size_t i;

    (void)state;
    for (i = 0; i < 2; i++) { /* what is in a damaged file is the check's business */
        sx_t *x = sx_make();
        es_err_t err = ES_ENOMEM;
        long allowed;

        failure = failures[i];
        for (allowed = 0; err != ES_OK; allowed++) {
            assert_true(allowed < 1000);
            countdown = allowed;
            err = es_store_open(&x->config, &x->store, &d);
            countdown = -1;
            if (err != ES_OK) {
                assert_null(x->store);
                assert_true(d.text[0] != '\0');
            }
        }
        assert_true(allowed > 8);
        sx_add(x, "a", "x");
        sx_free(x);
    }
}

typedef es_err_t (*act_t)(sx_t *x, es_detail_t *d);

static es_err_t append(sx_t *x, es_detail_t *d)
{
    const uint64_t first = x->store->next - 3;
    const es_store_item_t items[] = { { first, S("a"), x->now_ms, S("new") },
                                      { first + 1, S("gone"), x->now_ms, S("new") },
                                      { first + 2, S("c"), x->now_ms, S("new") } };

    return es_store_append(x->store, items, 3, d);
}

static es_err_t take(sx_t *x, es_detail_t *d)
{
    uint64_t first;

    return es_store_take(x->store, 100000, &first, d);
}

static es_err_t clear(sx_t *x, es_detail_t *d)
{
    return es_store_clear(x->store, S("a"), d);
}

static es_err_t prune(sx_t *x, es_detail_t *d)
{
    bool more;

    return es_store_prune(x->store, x->now_ms + 1000000, 0, &more, d);
}

static es_err_t read_all(sx_t *x, es_detail_t *d)
{
    const es_str_t names[] = { S("a"), S("b"), S("gone") };
    const es_store_range_t range = { .after = 0 };
    sx_got_t got = { .calls = 0 };

    return es_store_read(x->store, names, 3, &range, sx_each, &got, &got.result, d);
}

static es_err_t ask(sx_t *x, es_detail_t *d)
{
    const es_str_t names[] = { S("a"), S("b") };
    es_store_channel_info_t channel;
    es_store_info_t info;
    uint64_t n;
    es_err_t err = es_store_rewind(x->store, names, 2, 2, 0, &n, d);

    err = err == ES_OK ? es_store_at(x->store, 1, &n, d) : err;
    err = err == ES_OK ? es_store_channel_info(x->store, names[0], &channel, d) : err;
    return err == ES_OK ? es_store_info(x->store, &info, d) : err;
}

static void a_call_that_fails_changes_nothing(void **state)
{
    static const act_t acts[] = { append, take, clear, prune, read_all, ask };
    size_t i, k;

    (void)state;
    for (i = 0; i < ES_COUNT(acts) * ES_COUNT(failures); i++) {
        sx_t *x = sx_make();
        es_err_t err = ES_ENOMEM;
        es_store_info_t before, after;
        es_detail_t d = { "" };
        char text[sizeof((sx_got_t *)NULL)->text];
        long allowed;

        failure = failures[i % ES_COUNT(failures)];
        x->config.max_age_ms = 500000;
        x->config.max_count = 4;
        sx_open(x);
        sx_add(x, "gone", "x");
        assert_int_equal(es_store_clear(x->store, S("gone"), &d), ES_OK);
        for (k = 0; k < 8; k++) {
            sx_add(x, k % 2 ? "a" : "b", "old");
        }
        sx_take(x, 3);
        before = sx_info(x);
        memcpy(text, sx_all(x, "a,b,c,gone", 0), sizeof text);
        for (allowed = 0; err != ES_OK; allowed++) {
            assert_true(allowed < 1000);
            countdown = allowed;
            err = acts[i / ES_COUNT(failures)](x, &d);
            /* A disk that fails once: the store gives up old records for another try. */
            if (err == ES_OK && countdown < 0 && failure == EIO) {
                break;
            }
            countdown = -1;
            if (err != ES_OK) {
                assert_told(err);
                after = sx_info(x);
                assert_int_equal(after.records, before.records);
                assert_string_equal(sx_all(x, "a,b,c,gone", 0), text);
                sx_consistent(x);
            }
        }
        countdown = -1;
        sx_consistent(x);
        sx_close(x);
        sx_open(x);
        sx_consistent(x);
        sx_free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_that_fails_leaves_nothing),
        cmocka_unit_test(a_call_that_fails_changes_nothing),
    };
    return cmocka_run_group_tests_name("store_oom", tests, NULL, NULL);
}
