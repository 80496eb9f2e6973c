/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read of the history store, in any thread. Each call is one read transaction: it sees the
 * store as it was at one moment, waits for nobody, and ends when the call ends.
 *
 * Channels are merged by number: a cursor for each stands on its next record (forwards) or the one
 * before (backwards), and the one with the nearest number moves.
 */
#include "store_int.h"

#include <string.h>

enum { REWIND_MAX = 100000 };

typedef struct es_head {
    MDB_cursor *cursor;
    uint64_t id;
    uint64_t seq; /* of the record that it stands on; 0: no more */
    size_t index; /* of the channel in the caller's list */
} es_head_t;

typedef struct es_merge {
    es_store_t *store;
    MDB_txn *txn;
    es_head_t heads[ES_STORE_CHANNELS_MAX];
    size_t n;
    uint64_t up_to;
    bool reset;
} es_merge_t;

static void merge_close(es_merge_t *m)
{
    size_t i;

    for (i = 0; i < m->n; i++) {
        mdb_cursor_close(m->heads[i].cursor);
    }
    mdb_txn_abort(m->txn);
}

static int stands_on(es_merge_t *m, es_head_t *head, const MDB_val *key, int rc)
{
    head->seq = 0;
    if (rc == MDB_NOTFOUND) {
        return 0;
    }
    if (rc == 0 && es_get64(key->mv_data) == head->id) {
        head->seq = es_get64((const char *)key->mv_data + 8);
    }
    if (head->seq > m->up_to) {
        head->seq = 0;
    }
    return rc;
}

static int next(es_merge_t *m, es_head_t *head, MDB_cursor_op op)
{
    MDB_val key, value;
    int rc = mdb_cursor_get(head->cursor, &key, &value, op);

    return stands_on(m, head, &key, rc);
}

/* On the first record from `seq` on; backwards: on the last one up to `up_to`. */
static int first(es_merge_t *m, es_head_t *head, uint64_t seq, bool backwards)
{
    unsigned char room[16];
    MDB_val key = es_key2(room, head->id, seq), value;
    int rc;

    if (!backwards) {
        rc = mdb_cursor_get(head->cursor, &key, &value, MDB_SET_RANGE);
        return stands_on(m, head, &key, rc);
    }
    key = es_key2(room, head->id, m->up_to < UINT64_MAX ? m->up_to + 1 : UINT64_MAX);
    rc = mdb_cursor_get(head->cursor, &key, &value, MDB_SET_RANGE);
    rc = mdb_cursor_get(head->cursor, &key, &value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    return stands_on(m, head, &key, rc);
}

/* Adds one channel, unless it has nothing to give. */
static int add_channel(es_merge_t *m, es_str_t name, size_t index, uint64_t after, bool backwards,
                       const es_state_t *state)
{
    es_head_t *head = &m->heads[m->n];
    es_row_t row;
    size_t i;
    int rc = es_row_find(m->store, m->txn, name, &row);

    if (rc == MDB_NOTFOUND) {
        m->reset = m->reset || state->forgotten > after;
        return 0;
    }
    if (rc != 0) {
        return rc;
    }
    m->reset = m->reset || row.pruned > after;
    for (i = 0; i < m->n && m->heads[i].id != row.id; i++) {}
    if (i < m->n || row.count == 0) {
        return 0;
    }
    *head = (es_head_t) { .id = row.id, .index = index };
    rc = mdb_cursor_open(m->txn, m->store->tables.index, &head->cursor);
    if (rc == 0) {
        m->n++;
        rc = first(m, head, (row.pruned > after ? row.pruned : after) + 1, backwards);
    }
    /* While a channel is being cleared there are records that nobody is to see. */
    if (backwards && head->seq <= row.pruned) {
        head->seq = 0;
    }
    return rc;
}

/* On failure nothing is left open. */
static es_err_t merge_open(es_store_t *s, es_merge_t *m, const es_str_t *channels, size_t n,
                           const es_store_range_t *range, bool backwards, es_detail_t *detail)
{
    es_state_t state;
    size_t i;
    int rc;

    if (n > ES_STORE_CHANNELS_MAX) {
        return es_fail(detail, ES_EINVAL, "%zu channels, at most %d are accepted", n,
                       ES_STORE_CHANNELS_MAX);
    }
    for (i = 0; i < n; i++) {
        if (channels[i].n == 0 || channels[i].n > ES_STORE_NAME_MAX) {
            return es_fail(detail, ES_EINVAL, "a channel name of %zu bytes, 1 to %d are accepted",
                           channels[i].n, ES_STORE_NAME_MAX);
        }
    }
    m->store = s;
    m->n = 0;
    m->up_to = range->up_to > 0 ? range->up_to : UINT64_MAX;
    m->reset = false;
    rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &m->txn);
    if (rc != 0) {
        return es_store_fail(s, detail, rc, "cannot be read");
    }
    rc = es_state_get(&s->tables, m->txn, &state);
    for (i = 0; rc == 0 && i < n && range->after < UINT64_MAX; i++) {
        rc = add_channel(m, channels[i], i, range->after, backwards, &state);
    }
    if (rc != 0) {
        merge_close(m);
        return es_store_fail(s, detail, rc, "cannot be read");
    }
    return ES_OK;
}

/* The head with the smallest number, or the greatest; NULL: no record is left. */
static es_head_t *nearest(es_merge_t *m, bool backwards)
{
    es_head_t *best = NULL;
    size_t i;

    for (i = 0; i < m->n; i++) {
        es_head_t *h = &m->heads[i];

        if (h->seq != 0 && (best == NULL || (h->seq < best->seq) != backwards)) {
            best = h;
        }
    }
    return best;
}

/* The greatest number that this transaction sees, of any channel. 0: none. */
static int edge(const es_store_t *s, MDB_txn *txn, MDB_cursor_op op, uint64_t *seq, uint64_t *ms)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, s->tables.log, &cursor);

    *seq = 0;
    *ms = 0;
    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cursor, &key, &value, op);
    if (rc == 0 && value.mv_size >= ES_RECORD_HEAD) {
        *seq = es_get64(key.mv_data);
        *ms = es_get64((const char *)value.mv_data + 16);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* What the log has under a number. False: it is damaged. */
static int fetch(es_merge_t *m, const es_head_t *head, es_store_record_t *ret, bool *ret_good)
{
    unsigned char room[8];
    MDB_val key = es_key1(room, head->seq), value;
    es_record_t record;
    es_detail_t why;
    int rc = mdb_get(m->txn, m->store->tables.log, &key, &value);

    if (rc != 0) {
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    }
    *ret_good =
        es_record_decode((es_str_t) { value.mv_data, value.mv_size }, &record, &why) == ES_OK &&
        record.channel == head->id;
    if (!*ret_good) {
        if (!atomic_exchange(&m->store->damage_told, true)) {
            es_log(&m->store->config.log, ES_LOG_ERR, "ES0368",
                   "history: record %llu of %s is damaged; it is left out, and its readers are "
                   "told that something is missing. More of them are not logged",
                   (unsigned long long)head->seq, m->store->file);
        }
        return 0;
    }
    *ret = (es_store_record_t) { head->seq, record.ms, head->index, record.bytes };
    return 0;
}

es_err_t es_store_read(es_store_t *store, const es_str_t *channels, size_t n,
                       const es_store_range_t *range, es_store_each_t each, void *ctx,
                       es_store_result_t *ret, es_detail_t *detail)
{
    const size_t max_count = range->max_count > 0 ? range->max_count : ES_STORE_READ_COUNT;
    const size_t max_bytes = range->max_bytes > 0 ? range->max_bytes : ES_STORE_READ_BYTES;
    es_store_result_t result = { .last = range->after };
    es_merge_t m;
    es_head_t *head;
    uint64_t newest, ms;
    size_t bytes = 0;
    bool go_on = true;
    int rc;
    es_err_t err = merge_open(store, &m, channels, n, range, false, detail);

    if (err != ES_OK) {
        return err;
    }
    rc = edge(store, m.txn, MDB_LAST, &newest, &ms);
    for (head = nearest(&m, false); rc == 0 && head != NULL; head = nearest(&m, false)) {
        es_store_record_t record;
        bool good = false;

        rc = go_on ? fetch(&m, head, &record, &good) : 0;
        if (rc != 0) {
            break;
        }
        if (!go_on || result.count >= max_count ||
            (good && result.count > 0 && record.bytes.n > max_bytes - bytes)) {
            result.more = true;
            break;
        }
        if (good) {
            result.count++;
            bytes += record.bytes.n < max_bytes - bytes ? record.bytes.n : max_bytes - bytes;
            go_on = each(ctx, &record);
        }
        m.reset = m.reset || !good;
        result.last = head->seq;
        rc = next(&m, head, MDB_NEXT);
    }
    if (!result.more) {
        /* All that there is has been looked at; what is not written yet comes after it. */
        newest = newest < m.up_to ? newest : m.up_to;
        result.last = newest > result.last ? newest : result.last;
    }
    result.reset = m.reset;
    merge_close(&m);
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be read");
    }
    *ret = result;
    return ES_OK;
}

es_err_t es_store_rewind(es_store_t *store, const es_str_t *channels, size_t n, size_t count,
                         uint64_t up_to, uint64_t *ret_after, es_detail_t *detail)
{
    const es_store_range_t range = { .up_to = up_to };
    uint64_t after, ms, oldest = 0;
    es_merge_t m;
    es_head_t *head;
    size_t left = count < REWIND_MAX ? count : REWIND_MAX;
    int rc;
    es_err_t err = merge_open(store, &m, channels, n, &range, true, detail);

    if (err != ES_OK) {
        return err;
    }
    /* Nothing asked for or nothing there: whatever comes next. */
    rc = edge(store, m.txn, MDB_LAST, &after, &ms);
    after = after < m.up_to ? after : m.up_to;
    for (head = nearest(&m, true); rc == 0 && head != NULL && left > 0; head = nearest(&m, true)) {
        oldest = head->seq;
        left--;
        rc = next(&m, head, MDB_PREV);
    }
    merge_close(&m);
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be read");
    }
    *ret_after = oldest > 0 ? oldest - 1 : after;
    return ES_OK;
}

/* ---- facts ---- */

/* Numbers and times rise together: the smallest number whose successor in the log is late enough.
 */
static int search(const es_store_t *s, MDB_txn *txn, uint64_t ms, uint64_t *ret)
{
    uint64_t low, high, at, oldest_ms, newest_ms;
    MDB_cursor *cursor;
    int rc = edge(s, txn, MDB_FIRST, &low, &oldest_ms);

    rc = rc == 0 ? edge(s, txn, MDB_LAST, &high, &newest_ms) : rc;
    if (rc != 0 || low == 0 || newest_ms < ms) {
        return rc == 0 ? MDB_NOTFOUND : rc;
    }
    rc = mdb_cursor_open(txn, s->tables.log, &cursor);
    while (rc == 0 && low < high) { /* the answer is from low to high, high fits */
        unsigned char room[8];
        const uint64_t middle = low + (high - low) / 2;
        MDB_val key = es_key1(room, middle), value;

        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc != 0 || value.mv_size < ES_RECORD_HEAD) {
            rc = rc == 0 ? MDB_CORRUPTED : rc;
            break;
        }
        at = es_get64(key.mv_data);
        if (es_get64((const char *)value.mv_data + 16) >= ms) {
            high = middle;
        }
        else {
            low = at + 1;
        }
    }
    if (rc == 0) {
        unsigned char room[8];
        MDB_val key = es_key1(room, low), value;

        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        *ret = rc == 0 ? es_get64(key.mv_data) : 0;
    }
    mdb_cursor_close(cursor);
    return rc;
}

es_err_t es_store_at(es_store_t *store, uint64_t ms, uint64_t *ret_seq, es_detail_t *detail)
{
    uint64_t seq = 0;
    MDB_txn *txn;
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = search(store, txn, ms, &seq);
        mdb_txn_abort(txn);
    }
    if (rc == MDB_NOTFOUND) {
        return es_fail(detail, ES_ENOENT, "nothing was kept since then");
    }
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be read");
    }
    *ret_seq = seq;
    return ES_OK;
}

static int channel_facts(es_store_t *s, MDB_txn *txn, es_str_t channel,
                         es_store_channel_info_t *info)
{
    unsigned char room[16];
    MDB_cursor *cursor;
    MDB_val key, value;
    es_row_t row;
    int rc = es_row_find(s, txn, channel, &row);

    if (rc == 0 && (row.count == 0 || row.newest <= row.pruned)) {
        rc = MDB_NOTFOUND;
    }
    rc = rc == 0 ? mdb_cursor_open(txn, s->tables.index, &cursor) : rc;
    if (rc != 0) {
        return rc;
    }
    key = es_key2(room, row.id, row.pruned + 1);
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0) {
        *info = (es_store_channel_info_t) { .count = row.count,
                                            .bytes = row.bytes,
                                            .oldest = es_get64((const char *)key.mv_data + 8),
                                            .newest = row.newest,
                                            .pruned = row.pruned };
    }
    mdb_cursor_close(cursor);
    return rc;
}

es_err_t es_store_channel_info(es_store_t *store, es_str_t channel, es_store_channel_info_t *ret,
                               es_detail_t *detail)
{
    es_store_channel_info_t info = { 0 };
    MDB_txn *txn;
    int rc;

    if (channel.n == 0 || channel.n > ES_STORE_NAME_MAX) {
        return es_fail(detail, ES_EINVAL, "a channel name of %zu bytes, 1 to %d are accepted",
                       channel.n, ES_STORE_NAME_MAX);
    }
    rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0) {
        rc = channel_facts(store, txn, channel, &info);
        mdb_txn_abort(txn);
    }
    if (rc == MDB_NOTFOUND) {
        return es_fail(detail, ES_ENOENT, "the channel has no history");
    }
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be read");
    }
    *ret = info;
    return ES_OK;
}

es_err_t es_store_info(es_store_t *store, es_store_info_t *ret, es_detail_t *detail)
{
    es_store_info_t info = { 0 };
    MDB_stat log, rows, graves;
    MDB_envinfo env;
    MDB_txn *txn;
    uint64_t ms;
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = mdb_stat(txn, store->tables.log, &log);
        rc = rc == 0 ? mdb_stat(txn, store->tables.chans, &rows) : rc;
        rc = rc == 0 ? mdb_stat(txn, store->tables.graves, &graves) : rc;
        rc = rc == 0 ? es_store_used(store, txn, &info.used_bytes) : rc;
        rc = rc == 0 ? edge(store, txn, MDB_FIRST, &info.oldest, &info.oldest_ms) : rc;
        rc = rc == 0 ? edge(store, txn, MDB_LAST, &info.newest, &ms) : rc;
        mdb_txn_abort(txn);
    }
    rc = rc == 0 ? mdb_env_info(store->env, &env) : rc;
    if (rc != 0) {
        return es_store_fail(store, detail, rc, "cannot be read");
    }
    info.records = log.ms_entries;
    info.max_bytes = store->config.max_bytes;
    info.channels = rows.ms_entries - graves.ms_entries;
    info.file_bytes = (uint64_t)(env.me_last_pgno + 1) * log.ms_psize;
    *ret = info;
    return ES_OK;
}
