/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file store_fixture.h
 * What the tests of the history store share: a directory of their own, a store with a clock that
 * the test sets, appends and reads in one line.
 */
#ifndef ES_STORE_FIXTURE_H
#define ES_STORE_FIXTURE_H

#include "es_test.h"
#include "store_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct sx {
    char top[64];       /* a directory of this test's own */
    char dir[PATH_MAX]; /* the store's, in it */
    char log[8192];     /* the lines' numbers and texts */
    size_t log_n;
    uint64_t now_ms;
    es_store_config_t config;
    es_store_t *store;
} sx_t;

__attribute__((format(printf, 4, 0))) static inline void
sx_write_log(void *ctx, int level, const char *id, const char *fmt, va_list args)
{
    sx_t *x = ctx;
    int n;

    (void)level;
    n = snprintf(x->log + x->log_n, sizeof x->log - x->log_n, "%s: ", id);
    x->log_n += n > 0 && (size_t)n < sizeof x->log - x->log_n ? (size_t)n : 0;
    n = vsnprintf(x->log + x->log_n, sizeof x->log - x->log_n, fmt, args);
    x->log_n += n > 0 && (size_t)n < sizeof x->log - x->log_n ? (size_t)n : 0;
}

static inline uint64_t sx_now(void *ctx)
{
    return ((sx_t *)ctx)->now_ms;
}

static inline bool sx_logged(const sx_t *x, const char *text)
{
    return strstr(x->log, text) != NULL;
}

static inline void sx_open(sx_t *x)
{
    es_detail_t d = { "" };

    x->log_n = 0;
    x->log[0] = '\0';
    assert_err(es_store_open(&x->config, &x->store, &d), ES_OK, &d);
}

static inline void sx_close(sx_t *x)
{
    es_store_close(x->store);
    x->store = NULL;
}

static inline sx_t *sx_make(void)
{
    sx_t *x = calloc(1, sizeof *x);
    const char *tmp = getenv("TMPDIR");

    assert_non_null(x);
    snprintf(x->top, sizeof x->top, "%.40s/es-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(x->top));
    snprintf(x->dir, sizeof x->dir, "%s/history", x->top);
    x->now_ms = 1000000;
    x->config = (es_store_config_t) { .dir = x->dir,
                                      .max_bytes = 8 * 1024 * 1024,
                                      .check_ms = 120000,
                                      .log = { sx_write_log, x, ES_LOG_INFO },
                                      .wall_ms = sx_now,
                                      .clock_ctx = x };
    return x;
}

static inline void sx_remove(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    if (d == NULL) {
        return;
    }
    for (e = readdir(d); e != NULL; e = readdir(d)) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s", dir, e->d_name);

        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && n > 0 &&
            (size_t)n < sizeof path && unlink(path) != 0) {
            sx_remove(path);
        }
    }
    closedir(d);
    rmdir(dir);
}

static inline void sx_free(sx_t *x)
{
    es_store_close(x->store);
    sx_remove(x->top);
    free(x);
}

static inline uint64_t sx_take(sx_t *x, uint64_t n)
{
    es_detail_t d = { "" };
    uint64_t first = 0;

    assert_err(es_store_take(x->store, n, &first, &d), ES_OK, &d);
    return first;
}

/** One record, at the fixture's time; returns its number. */
static inline uint64_t sx_add(sx_t *x, const char *channel, const char *text)
{
    const es_store_item_t item = { sx_take(x, 1), es_str(channel), x->now_ms, es_str(text) };
    es_detail_t d = { "" };

    assert_err(es_store_append(x->store, &item, 1, &d), ES_OK, &d);
    return item.seq;
}

/** What a read gave, as "seq:channel index:text " for each record. */
typedef struct sx_got {
    char text[4096];
    size_t n, stop_after, calls;
    es_store_result_t result;
} sx_got_t;

static inline bool sx_each(void *ctx, const es_store_record_t *r)
{
    sx_got_t *g = ctx;

    g->n += (size_t)snprintf(g->text + g->n, sizeof g->text - g->n, "%llu:%zu:%.*s ",
                             (unsigned long long)r->seq, r->channel,
                             r->bytes.n < 40 ? (int)r->bytes.n : 40, r->bytes.p);
    assert_true(g->n < sizeof g->text);
    return ++g->calls != g->stop_after;
}

/** `names`: separated by a comma. */
static inline size_t sx_names(const char *names, es_str_t *v)
{
    size_t n = 0;

    while (*names != '\0') {
        const size_t len = strcspn(names, ",");

        v[n++] = (es_str_t) { names, len };
        names += len + (names[len] == ',');
    }
    return n;
}

static inline const sx_got_t *sx_read(sx_t *x, const char *names, es_store_range_t range)
{
    static sx_got_t got;
    es_str_t v[64];
    const size_t n = sx_names(names, v);
    es_detail_t d = { "" };

    memset(&got, 0, sizeof got);
    assert_err(es_store_read(x->store, v, n, &range, sx_each, &got, &got.result, &d), ES_OK, &d);
    assert_int_equal(got.calls, got.result.count);
    return &got;
}

/** All from `after` on: the text. */
static inline const char *sx_all(sx_t *x, const char *names, uint64_t after)
{
    return sx_read(x, names, (es_store_range_t) { .after = after })->text;
}

static inline bool sx_reset(sx_t *x, const char *names, uint64_t after)
{
    return sx_read(x, names, (es_store_range_t) { .after = after })->result.reset;
}

static inline es_store_info_t sx_info(sx_t *x)
{
    es_store_info_t info;
    es_detail_t d = { "" };

    assert_err(es_store_info(x->store, &info, &d), ES_OK, &d);
    return info;
}

/** The number of files in the store's directory whose names hold `part`. */
static inline int sx_files(const sx_t *x, const char *part)
{
    DIR *d = opendir(x->dir);
    const struct dirent *e;
    int n = 0;

    assert_non_null(d);
    for (e = readdir(d); e != NULL; e = readdir(d)) {
        n += strstr(e->d_name, part) != NULL;
    }
    closedir(d);
    return n;
}

/** Prunes until there is no more to do. */
static inline void sx_prune(sx_t *x, size_t max)
{
    es_detail_t d = { "" };
    bool more = true;
    int calls;

    for (calls = 0; more; calls++) {
        assert_true(calls < 10000);
        assert_err(es_store_prune(x->store, x->now_ms, max, &more, &d), ES_OK, &d);
    }
}

/** All tables agree with each other. */
static inline void sx_consistent(sx_t *x)
{
    const es_tables_t *t = &x->store->tables;
    uint64_t records = 0, grave_bytes = 0;
    MDB_stat log, index, chans, names, graves;
    MDB_cursor *c;
    MDB_val key, value;
    es_state_t state;
    size_t empty = 0;
    MDB_txn *txn;
    int rc;

    assert_int_equal(mdb_txn_begin(x->store->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, t->log, &log), 0);
    assert_int_equal(mdb_stat(txn, t->index, &index), 0);
    assert_int_equal(mdb_stat(txn, t->chans, &chans), 0);
    assert_int_equal(mdb_stat(txn, t->names, &names), 0);
    assert_int_equal(mdb_stat(txn, t->graves, &graves), 0);
    assert_int_equal(es_state_get(t, txn, &state), 0);
    assert_int_equal(mdb_cursor_open(txn, t->chans, &c), 0);
    for (rc = mdb_cursor_get(c, &key, &value, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)) {
        es_row_t row, found;

        assert_true(es_row_decode(es_get64(key.mv_data),
                                  (es_str_t) { value.mv_data, value.mv_size }, &row));
        assert_int_equal(es_row_find(x->store, txn, row.name, &found), 0);
        assert_int_equal(found.id, row.id);
        records += row.count;
        empty += row.count == 0;
        grave_bytes += row.count == 0 ? ES_GRAVE_COST + row.name.n : 0;
    }
    mdb_cursor_close(c);
    mdb_txn_abort(txn);
    assert_int_equal(rc, MDB_NOTFOUND);
    assert_int_equal(records, log.ms_entries);
    assert_int_equal(records, index.ms_entries);
    assert_int_equal(chans.ms_entries, names.ms_entries);
    assert_int_equal(graves.ms_entries, empty);
    assert_int_equal(state.grave_bytes, grave_bytes);
}

#endif
