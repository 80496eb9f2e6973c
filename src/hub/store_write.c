/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the writer adds to the history store: numbers and records.
 *
 * One call is one transaction of LMDB, which syncs the pages, then writes the root with O_DSYNC: a
 * crash at any point leaves the one before or this one. When disk or map are full the transaction
 * is given up, the oldest records go in transactions of their own, and it is tried again. Removing
 * takes pages too, until its own are free again; so it is done in ever smaller steps when it fails.
 *
 * All in the writer's thread.
 */
#include "store_int.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

enum { ROUNDS = 8, STEP = 1024, MARGIN = 65536, TELL_MS = 60 * 1000 };

bool es_store_is_full(int rc)
{
    return rc == MDB_MAP_FULL || rc == ENOSPC || rc == EFBIG || rc == EDQUOT;
}

static int write_state(es_wtx_t *w)
{
    unsigned char bytes[ES_STATE_SIZE];
    MDB_val key = { 5, (void *)(uintptr_t) "state" }, value = { sizeof bytes, bytes };

    if (memcmp(&w->state, &w->before, sizeof w->state) == 0) {
        return 0;
    }
    es_state_encode(&w->state, bytes);
    return mdb_put(w->txn, w->store->tables.meta, &key, &value, 0);
}

int es_store_write(es_store_t *s, es_work_t work, void *arg, size_t *ret_removed)
{
    es_wtx_t w = { .store = s };
    int rc = mdb_txn_begin(s->env, NULL, 0, &w.txn);

    if (rc != 0) {
        return rc;
    }
    if (s->tables.meta != 0) {
        rc = es_state_get(&s->tables, w.txn, &w.state);
        w.before = w.state;
    }
    if (rc == 0) {
        rc = work(&w, arg);
    }
    if (rc == 0) {
        rc = write_state(&w);
    }
    if (rc != 0) {
        mdb_txn_abort(w.txn);
        return rc;
    }
    rc = mdb_txn_commit(w.txn); /* frees it in any case */
    if (rc == 0 && ret_removed != NULL) {
        *ret_removed += w.removed;
    }
    return rc;
}

typedef struct es_room {
    size_t max;
    uint64_t bytes; /* to get below what is in use now by so much */
} es_room_t;

static int make_room(es_wtx_t *w, void *arg)
{
    const es_room_t *room = arg;
    uint64_t used;
    int rc = es_store_used(w->store, w->txn, &used);

    return rc != 0 ? rc
                   : es_store_remove_oldest(w, room->max, UINT64_MAX,
                                            used > room->bytes ? used - room->bytes : 0);
}

/* Would `bytes` fit if all records went? What would not must cost none of them. The file's own
 * pages can be used again; beside them there is what the disk has left. */
static bool may_fit(const es_store_t *s, int why, uint64_t bytes)
{
    struct statvfs disk;
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t room;

    if (why == MDB_MAP_FULL || statvfs(s->config.dir, &disk) != 0 ||
        mdb_env_info(s->env, &info) != 0 || mdb_env_stat(s->env, &stat) != 0) {
        return true; /* the map takes every batch that is accepted at all */
    }
    room = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    return bytes <= room + (uint64_t)disk.f_bavail * disk.f_frsize;
}

/* On a full disk each write gives up records: that is said once in a while, with their sum. */
static void tell_removed(es_store_t *s, size_t removed, int why)
{
    const uint64_t now = s->config.wall_ms(s->config.clock_ctx);

    s->removed += removed;
    if (s->removed_told == 0 || now - s->removed_told >= TELL_MS || now < s->removed_told) {
        es_log(&s->config.log, ES_LOG_WARN, "ES0365",
               "history: %s has no room (%s): the oldest %llu records were removed", s->config.dir,
               mdb_strerror(why), (unsigned long long)s->removed);
        s->removed = 0;
        s->removed_told = now;
    }
}

/* The work, after the oldest records have made room for it if need be. LMDB calls a write that the
 * disk cut short EIO; when removing records works and the work does not, it is the room. What is
 * given up is bounded: ROUNDS times `bytes` and the margin. */
static int write_with_room(es_store_t *s, es_work_t work, void *arg, uint64_t bytes)
{
    const int first = es_store_write(s, work, arg, NULL);
    const bool fits = first == 0 || may_fit(s, first, bytes);
    es_room_t room = { fits ? STEP : 0, bytes + MARGIN };
    size_t removed = 0, now = 1;
    int rc = first, full = es_store_is_full(first) ? first : 0, round = 0;

    while ((es_store_is_full(rc) || rc == EIO) && round < ROUNDS && room.max > 0 && now > 0) {
        int pruned;

        now = 0;
        pruned = es_store_write(s, make_room, &room, &now);
        if (pruned != 0) {
            full = full == 0 && es_store_is_full(pruned) ? pruned : full;
            room.max /= 4;
            now = 1;
            continue;
        }
        removed += now;
        round++;
        if (round % 2 == 0 || now == 0) { /* pages are free again two transactions later */
            rc = es_store_write(s, work, arg, NULL);
            full = full == 0 && es_store_is_full(rc) ? rc : full;
        }
    }
    if (removed > 0 && rc == 0) {
        tell_removed(s, removed, full != 0 ? full : first);
    }
    full = full == 0 && (removed > 0 || !fits) ? ENOSPC : full;
    return rc == EIO && full != 0 ? full : rc;
}

static es_err_t written(es_store_t *s, int rc, const char *what, es_detail_t *detail)
{
    es_detail_t text = { "" };
    es_err_t err;

    if (rc == 0) {
        if (s->full) {
            s->full = false;
            es_log(&s->config.log, ES_LOG_NOTICE, "ES0366", "history: %s has room again",
                   s->config.dir);
        }
        return ES_OK;
    }
    err = es_store_fail(s, &text, rc, what);
    if (!s->full) { /* once, not for each message */
        s->full = true;
        es_log(&s->config.log, ES_LOG_ERR, "ES0367",
               "history: nothing can be added to %s: %s. Messages are not kept until there is room",
               s->config.dir, text.text);
    }
    return es_fail(detail, err, "%s", text.text);
}

/* ---- numbers ---- */

static int reserve(es_wtx_t *w, void *arg)
{
    w->state.reserved = *(const uint64_t *)arg;
    return 0;
}

es_err_t es_store_take(es_store_t *store, uint64_t n, uint64_t *ret_first, es_detail_t *detail)
{
    uint64_t until;
    es_err_t err;

    if (n == 0 || n > (uint64_t)1 << 48 || store->next > ((uint64_t)1 << 62)) {
        return es_fail(detail, ES_EINVAL, "%llu numbers from %llu on cannot be given out",
                       (unsigned long long)n, (unsigned long long)store->next);
    }
    if (store->reserved - store->next < n) {
        until = store->next + n + ES_STORE_BLOCK;
        err = written(store, write_with_room(store, reserve, &until, 0), "cannot reserve numbers",
                      detail);
        if (err != ES_OK) {
            return err;
        }
        store->reserved = until;
        es_store_note(store);
    }
    *ret_first = store->next;
    store->next += n;
    return ES_OK;
}

/* ---- records ---- */

typedef struct es_batch {
    const es_store_item_t *items;
    size_t n;
    uint64_t newest_ms, reserved; /* after it */
} es_batch_t;

/* The channel of a record: a new one, one that comes back from its grave, or one with records. */
static int channel_for(es_wtx_t *w, const es_store_item_t *item, es_row_t *row)
{
    const es_tables_t *t = &w->store->tables;
    unsigned char room[16];
    MDB_val key, nothing = { 0, NULL };
    int rc = es_row_find(w->store, w->txn, item->channel, row);

    if (rc == MDB_NOTFOUND) {
        *row = (es_row_t) { .id = item->seq, .hash = row->hash, .name = item->channel };
        row->pruned = w->state.forgotten; /* who knows */
        key = es_key2(room, row->hash, row->id);
        return mdb_put(w->txn, t->names, &key, &nothing, 0);
    }
    if (rc != 0 || row->count > 0) {
        return rc;
    }
    key = es_key2(room, row->newest, row->id);
    rc = mdb_del(w->txn, t->graves, &key, NULL);
    if (rc == 0) {
        const uint64_t cost = ES_GRAVE_COST + row->name.n;

        w->state.grave_bytes -= cost < w->state.grave_bytes ? cost : w->state.grave_bytes;
    }
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int add_record(es_wtx_t *w, const es_store_item_t *item, uint64_t ms)
{
    const es_tables_t *t = &w->store->tables;
    es_record_t record = { 0, ms, item->bytes };
    unsigned char room[16], head[ES_RECORD_HEAD];
    MDB_val key, value = { 0, NULL };
    es_row_t row;
    int rc = channel_for(w, item, &row);

    if (rc != 0) {
        return rc;
    }
    row.name = item->channel; /* the map may have moved under the row's own */
    row.count++;
    row.bytes += item->bytes.n;
    row.newest = item->seq;
    rc = es_row_put(t, w->txn, &row);
    if (rc == 0) {
        key = es_key2(room, row.id, item->seq);
        rc = mdb_put(w->txn, t->index, &key, &value, 0);
    }
    if (rc == 0) {
        record.channel = row.id;
        es_record_encode(&record, head);
        key = es_key1(room, item->seq);
        value.mv_size = ES_RECORD_HEAD + item->bytes.n;
        rc = mdb_put(w->txn, t->log, &key, &value, MDB_APPEND | MDB_RESERVE);
    }
    if (rc == 0) {
        memcpy(value.mv_data, head, ES_RECORD_HEAD);
        if (item->bytes.n > 0) {
            memcpy((char *)value.mv_data + ES_RECORD_HEAD, item->bytes.p, item->bytes.n);
        }
    }
    if (rc == 0 && w->store->config.max_count > 0) {
        rc = es_store_remove_of(w, row.id, w->store->config.max_count, 2);
    }
    return rc;
}

static int add_batch(es_wtx_t *w, void *arg)
{
    es_batch_t *batch = arg;
    es_store_t *s = w->store;
    size_t i;
    int rc = 0;

    batch->newest_ms = s->newest_ms;
    for (i = 0; rc == 0 && i < batch->n; i++) {
        if (batch->items[i].ms > batch->newest_ms) {
            batch->newest_ms = batch->items[i].ms;
        }
        rc = add_record(w, &batch->items[i], batch->newest_ms);
    }
    if (rc != 0) {
        return rc;
    }
    /* Half a block ahead: then es_store_take seldom has to write. */
    if (w->state.reserved < s->next + ES_STORE_BLOCK / 2) {
        w->state.reserved = s->next + ES_STORE_BLOCK;
    }
    batch->reserved = w->state.reserved;
    w->state.newest = batch->items[batch->n - 1].seq;
    return es_store_remove_oldest(w, 2 * batch->n + 64, batch->items[0].seq, s->config.max_bytes);
}

static es_err_t batch_is_right(const es_store_t *s, const es_store_item_t *items, size_t n,
                               uint64_t *ret_bytes, es_detail_t *detail)
{
    const uint64_t quarter = s->config.max_bytes / 4;
    const uint64_t max = quarter < ES_STORE_BATCH_MAX ? quarter : ES_STORE_BATCH_MAX;
    uint64_t newest = s->newest < s->began ? s->began - 1 : s->newest, bytes = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        if (items[i].channel.n == 0 || items[i].channel.n > ES_STORE_NAME_MAX) {
            return es_fail(detail, ES_EINVAL, "a channel name of %zu bytes, 1 to %d are accepted",
                           items[i].channel.n, ES_STORE_NAME_MAX);
        }
        if (items[i].seq <= newest || items[i].seq >= s->next) {
            return es_fail(detail, ES_EINVAL, "number %llu, one from %llu to %llu is accepted",
                           (unsigned long long)items[i].seq, (unsigned long long)newest + 1,
                           (unsigned long long)s->next - 1);
        }
        newest = items[i].seq;
        /* What a record takes beside its item, roughly. */
        if (items[i].bytes.n > max || bytes > max - items[i].bytes.n) {
            return es_fail(detail, ES_ETOOBIG,
                           "records of more than %llu bytes in one go: a history of %llu bytes "
                           "takes that much",
                           (unsigned long long)max, (unsigned long long)s->config.max_bytes);
        }
        bytes += items[i].bytes.n + 64 + items[i].channel.n;
    }
    *ret_bytes = bytes;
    return ES_OK;
}

es_err_t es_store_append(es_store_t *store, const es_store_item_t *items, size_t n,
                         es_detail_t *detail)
{
    es_batch_t batch = { items, n, 0, 0 };
    uint64_t bytes = 0;
    es_err_t err;

    if (n == 0) {
        return ES_OK;
    }
    err = batch_is_right(store, items, n, &bytes, detail);
    if (err != ES_OK) {
        return err;
    }
    err = written(store, write_with_room(store, add_batch, &batch, bytes), "cannot be written",
                  detail);
    if (err == ES_OK) {
        store->newest = items[n - 1].seq;
        store->newest_ms = batch.newest_ms;
        if (store->reserved != batch.reserved) {
            store->reserved = batch.reserved;
            es_store_note(store);
        }
    }
    return err;
}
