/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the writer takes out of the history store: by size and age from the log's oldest end, by
 * count from a channel's, all of a channel.
 *
 * The last record of a channel turns its row into a grave (store_int.h). All in the writer's
 * thread; each transaction removes a bounded number of records.
 */
#include "store_int.h"

#include <string.h>

enum { STEP = 1000 };

/* Forgets the channels that are empty longest until the rest is small enough. */
static int bury(es_wtx_t *w)
{
    const es_tables_t *t = &w->store->tables;
    int rc = 0;

    while (rc == 0 && w->state.grave_bytes > w->store->grave_max) {
        unsigned char room[16];
        MDB_cursor *cursor;
        MDB_val key, value;
        es_row_t row;
        uint64_t newest = 0, id = 0, cost;

        rc = mdb_cursor_open(w->txn, t->graves, &cursor);
        if (rc != 0) {
            return rc;
        }
        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
        if (rc == 0) {
            newest = es_get64(key.mv_data);
            id = es_get64((const char *)key.mv_data + 8);
            rc = mdb_cursor_del(cursor, 0);
        }
        mdb_cursor_close(cursor);
        rc = rc == 0 ? es_row_get(t, w->txn, id, &row) : rc;
        if (rc != 0) {
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
        cost = ES_GRAVE_COST + row.name.n;
        w->state.grave_bytes -= cost < w->state.grave_bytes ? cost : w->state.grave_bytes;
        if (newest > w->state.forgotten) {
            w->state.forgotten = newest;
        }
        key = es_key2(room, row.hash, id);
        rc = mdb_del(w->txn, t->names, &key, NULL);
        if (rc == 0) {
            key = es_key1(room, id);
            rc = mdb_del(w->txn, t->chans, &key, NULL);
        }
    }
    return rc;
}

int es_store_remove(es_wtx_t *w, uint64_t seq, uint64_t id)
{
    const es_tables_t *t = &w->store->tables;
    unsigned char room[16], name[ES_STORE_NAME_MAX];
    MDB_val key = es_key1(room, seq), value;
    es_row_t row;
    uint64_t bytes;
    int rc = mdb_get(w->txn, t->log, &key, &value);

    if (rc != 0) {
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    }
    bytes = value.mv_size > ES_RECORD_HEAD ? value.mv_size - ES_RECORD_HEAD : 0;
    rc = mdb_del(w->txn, t->log, &key, NULL);
    if (rc == 0) {
        key = es_key2(room, id, seq);
        rc = mdb_del(w->txn, t->index, &key, NULL);
    }
    rc = rc == 0 ? es_row_get(t, w->txn, id, &row) : rc;
    if (rc != 0) {
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    }
    memcpy(name, row.name.p, row.name.n);
    row.name.p = (const char *)name;
    row.count -= row.count > 0 ? 1 : 0;
    row.bytes -= bytes < row.bytes ? bytes : row.bytes;
    row.pruned = seq > row.pruned ? seq : row.pruned;
    w->removed++;
    rc = es_row_put(t, w->txn, &row);
    if (rc == 0 && row.count == 0) {
        MDB_val nothing = { 0, NULL };

        key = es_key2(room, row.newest, id);
        rc = mdb_put(w->txn, t->graves, &key, &nothing, 0);
        w->state.grave_bytes += ES_GRAVE_COST + row.name.n;
        rc = rc == 0 ? bury(w) : rc;
    }
    return rc;
}

/* The first record of the log: its number, its channel, its time. */
static int oldest(es_wtx_t *w, uint64_t *seq, uint64_t *id, uint64_t *ms)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(w->txn, w->store->tables.log, &cursor);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    if (rc == 0 && (key.mv_size != 8 || value.mv_size < ES_RECORD_HEAD)) {
        rc = MDB_CORRUPTED;
    }
    if (rc == 0) {
        *seq = es_get64(key.mv_data);
        *id = es_get64((const char *)value.mv_data + 8);
        *ms = es_get64((const char *)value.mv_data + 16);
    }
    mdb_cursor_close(cursor);
    return rc;
}

int es_store_remove_oldest(es_wtx_t *w, size_t max, uint64_t below, uint64_t target)
{
    uint64_t used, seq, id, ms;
    size_t n;

    for (n = 0; n < max; n++) {
        int rc = es_store_used(w->store, w->txn, &used);

        if (rc == 0 && used <= target) {
            return 0;
        }
        rc = rc == 0 ? oldest(w, &seq, &id, &ms) : rc;
        if (rc == MDB_NOTFOUND || (rc == 0 && seq >= below)) {
            return 0;
        }
        rc = rc == 0 ? es_store_remove(w, seq, id) : rc;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int es_store_remove_of(es_wtx_t *w, uint64_t id, uint64_t keep, size_t max)
{
    unsigned char room[16];
    size_t n;

    for (n = 0; n < max; n++) {
        MDB_cursor *cursor;
        MDB_val key = es_key2(room, id, 0), value;
        es_row_t row;
        uint64_t seq = 0;
        int rc = es_row_get(&w->store->tables, w->txn, id, &row);

        if (rc != 0 || row.count <= keep) {
            return rc;
        }
        rc = mdb_cursor_open(w->txn, w->store->tables.index, &cursor);
        if (rc != 0) {
            return rc;
        }
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc == 0 && es_get64(key.mv_data) == id) {
            seq = es_get64((const char *)key.mv_data + 8);
        }
        mdb_cursor_close(cursor);
        if (seq == 0) { /* the row counts more than there are */
            return rc == 0 || rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
        rc = es_store_remove(w, seq, id);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- by the limits ---- */

typedef struct es_prune {
    uint64_t now_ms;
    size_t max;
    uint64_t sweep; /* after it */
    bool more;
} es_prune_t;

static int prune_age(es_wtx_t *w, const es_prune_t *p)
{
    const uint64_t age = w->store->config.max_age_ms;
    uint64_t seq, id, ms;
    int rc = 0;

    while (age > 0 && w->removed < p->max) {
        rc = oldest(w, &seq, &id, &ms);
        if (rc != 0 || ms > p->now_ms || p->now_ms - ms <= age) {
            break;
        }
        rc = es_store_remove(w, seq, id);
        if (rc != 0) {
            break;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* max_count is another than it was: each channel once. */
static int prune_counts(es_wtx_t *w, es_prune_t *p)
{
    const uint64_t keep = w->store->config.max_count;
    size_t looked = 0;
    int rc = 0;

    while (rc == 0 && p->sweep != UINT64_MAX && w->removed < p->max && looked++ < p->max) {
        unsigned char room[8];
        MDB_cursor *cursor;
        MDB_val key = es_key1(room, p->sweep), value;
        uint64_t id = 0;

        rc = mdb_cursor_open(w->txn, w->store->tables.chans, &cursor);
        if (rc != 0) {
            return rc;
        }
        rc = keep == 0 ? MDB_NOTFOUND : mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc == 0) {
            id = es_get64(key.mv_data);
        }
        mdb_cursor_close(cursor);
        if (rc == MDB_NOTFOUND) {
            w->state.count_limit = keep;
            p->sweep = UINT64_MAX;
            return 0;
        }
        rc = rc == 0 ? es_store_remove_of(w, id, keep, p->max - w->removed) : rc;
        p->sweep = w->removed < p->max ? id + 1 : id;
    }
    return rc;
}

static int prune_all(es_wtx_t *w, void *arg)
{
    es_prune_t *p = arg;
    es_store_t *s = w->store;
    int rc = prune_age(w, p);

    if (rc == 0 && w->removed < p->max) {
        rc = es_store_remove_oldest(w, p->max - w->removed, UINT64_MAX, s->config.max_bytes);
    }
    if (rc == 0) {
        p->sweep = s->sweep;
        rc = prune_counts(w, p);
    }
    p->more = w->removed >= p->max || p->sweep != UINT64_MAX;
    return rc;
}

es_err_t es_store_prune(es_store_t *store, uint64_t now_ms, size_t max_records, bool *ret_more,
                        es_detail_t *detail)
{
    es_prune_t p = { now_ms, max_records > 0 ? max_records : STEP, 0, false };
    int rc = es_store_write(store, prune_all, &p, NULL);

    /* Removing takes pages too; a few records need few of them. */
    while (es_store_is_full(rc) && p.max > 1) {
        p.max /= 4;
        p.max = p.max == 0 ? 1 : p.max;
        rc = es_store_write(store, prune_all, &p, NULL);
    }
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be pruned");
    }
    store->sweep = p.sweep;
    *ret_more = p.more;
    return ES_OK;
}

/* ---- one channel ---- */

typedef struct es_clear {
    es_str_t name;
    uint64_t count; /* that are left */
} es_clear_t;

static int clear_some(es_wtx_t *w, void *arg)
{
    es_clear_t *c = arg;
    es_row_t row;
    int rc = es_row_find(w->store, w->txn, c->name, &row);

    if (rc == 0 && row.count == 0) {
        rc = MDB_NOTFOUND;
    }
    if (rc != 0) {
        return rc;
    }
    c->count = row.count > STEP ? row.count - STEP : 0;
    /* Readers see none of them after the first transaction. */
    row.pruned = row.newest;
    row.name = c->name;
    rc = es_row_put(&w->store->tables, w->txn, &row);
    return rc == 0 ? es_store_remove_of(w, row.id, 0, STEP) : rc;
}

es_err_t es_store_clear(es_store_t *store, es_str_t channel, es_detail_t *detail)
{
    es_clear_t c = { channel, 1 };
    int rc = 0;

    if (channel.n == 0 || channel.n > ES_STORE_NAME_MAX) {
        return es_fail(detail, ES_EINVAL, "a channel name of %zu bytes, 1 to %d are accepted",
                       channel.n, ES_STORE_NAME_MAX);
    }
    while (rc == 0 && c.count > 0) {
        rc = es_store_write(store, clear_some, &c, NULL);
    }
    if (rc == MDB_NOTFOUND) {
        return es_fail(detail, ES_ENOENT, "the channel has no history");
    }
    return rc == 0 ? ES_OK : es_store_fail(store, detail, rc, "cannot be cleared");
}
