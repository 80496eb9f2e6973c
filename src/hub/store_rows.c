/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history store's keys and values: how they are written, and how they are read from a file
 * that may be damaged. Decoders take any bytes and touch none beyond them. No state; any thread.
 *
 * Record: byte 0 is the kind (1), bytes 1 to 3 are 0, then a CRC-32 (reflected, 0xedb88320) of all
 * that follows, channel, time, item.
 */
#include "store_int.h"

#include <string.h>

enum { RECORD_KIND = 1 };

void es_put64(unsigned char *p, uint64_t v)
{
    int i;

    for (i = 7; i >= 0; i--) {
        p[i] = (unsigned char)v;
        v >>= 8;
    }
}

uint64_t es_get64(const void *p)
{
    const unsigned char *b = p;
    uint64_t v = 0;
    int i;

    for (i = 0; i < 8; i++) {
        v = v << 8 | b[i];
    }
    return v;
}

MDB_val es_key1(unsigned char *room8, uint64_t a)
{
    es_put64(room8, a);
    return (MDB_val) { 8, room8 };
}

MDB_val es_key2(unsigned char *room16, uint64_t a, uint64_t b)
{
    es_put64(room16, a);
    es_put64(room16 + 8, b);
    return (MDB_val) { 16, room16 };
}

/* ---- records ---- */

static uint32_t crc_bytes(uint32_t crc, const void *p, size_t n)
{
    /* Of four bits each: small, and quick enough beside the disk. */
    static const uint32_t table[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                        0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
    const unsigned char *b = p;
    size_t i;

    for (i = 0; i < n; i++) {
        crc ^= b[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

static uint32_t record_crc(const unsigned char *head, es_str_t bytes)
{
    uint32_t crc = crc_bytes(0xffffffff, head + 8, ES_RECORD_HEAD - 8);

    return crc_bytes(crc, bytes.p, bytes.n) ^ 0xffffffff;
}

void es_record_encode(const es_record_t *record, unsigned char *head)
{
    es_put64(head + 8, record->channel);
    es_put64(head + 16, record->ms);
    es_put64(head, (uint64_t)RECORD_KIND << 56 | record_crc(head, record->bytes));
}

es_err_t es_record_decode(es_str_t value, es_record_t *ret, es_detail_t *detail)
{
    const unsigned char *p = (const unsigned char *)value.p;
    es_str_t bytes;
    uint64_t first;

    if (value.n < ES_RECORD_HEAD) {
        return es_fail(detail, ES_EINVAL, "a record of %zu bytes, at least %d are expected",
                       value.n, ES_RECORD_HEAD);
    }
    first = es_get64(p);
    if (first >> 32 != (uint64_t)RECORD_KIND << 24) {
        return es_fail(detail, ES_EINVAL, "a record of kind 0x%08llx, only 0x%08x is known",
                       (unsigned long long)(first >> 32), (unsigned)RECORD_KIND << 24);
    }
    bytes = (es_str_t) { value.p + ES_RECORD_HEAD, value.n - ES_RECORD_HEAD };
    if ((uint32_t)first != record_crc(p, bytes)) {
        return es_fail(detail, ES_EINVAL, "a record's checksum does not match its %zu bytes",
                       bytes.n);
    }
    *ret = (es_record_t) { es_get64(p + 8), es_get64(p + 16), bytes };
    return ES_OK;
}

/* ---- rows ---- */

bool es_row_decode(uint64_t id, es_str_t value, es_row_t *ret)
{
    if (value.n <= ES_ROW_HEAD || value.n > ES_ROW_HEAD + ES_STORE_NAME_MAX) {
        return false;
    }
    ret->id = id;
    ret->hash = es_get64(value.p);
    ret->count = es_get64(value.p + 8);
    ret->bytes = es_get64(value.p + 16);
    ret->newest = es_get64(value.p + 24);
    ret->pruned = es_get64(value.p + 32);
    ret->reserved = es_get64(value.p + 40);
    ret->name = (es_str_t) { value.p + ES_ROW_HEAD, value.n - ES_ROW_HEAD };
    return true;
}

int es_row_get(const es_tables_t *t, MDB_txn *txn, uint64_t id, es_row_t *ret)
{
    unsigned char room[8];
    MDB_val key = es_key1(room, id), value;
    int rc = mdb_get(txn, t->chans, &key, &value);

    if (rc != 0) {
        return rc;
    }
    return es_row_decode(id, (es_str_t) { value.mv_data, value.mv_size }, ret) ? 0 : MDB_CORRUPTED;
}

int es_row_put(const es_tables_t *t, MDB_txn *txn, const es_row_t *row)
{
    unsigned char room[8], bytes[ES_ROW_HEAD + ES_STORE_NAME_MAX];
    MDB_val key = es_key1(room, row->id), value = { ES_ROW_HEAD + row->name.n, bytes };

    es_put64(bytes, row->hash);
    es_put64(bytes + 8, row->count);
    es_put64(bytes + 16, row->bytes);
    es_put64(bytes + 24, row->newest);
    es_put64(bytes + 32, row->pruned);
    es_put64(bytes + 40, row->reserved);
    memcpy(bytes + ES_ROW_HEAD, row->name.p, row->name.n);
    return mdb_put(txn, t->chans, &key, &value, 0);
}

/* `ret->hash` is set in any case. */
int es_row_find(const es_store_t *s, MDB_txn *txn, es_str_t name, es_row_t *ret)
{
    const uint64_t hash = es_store_hash(s->key, name);
    unsigned char room[16];
    MDB_val key = es_key2(room, hash, 0), value;
    MDB_cursor *cursor;
    int rc;

    ret->hash = hash;
    rc = mdb_cursor_open(txn, s->tables.names, &cursor);
    if (rc != 0) {
        return rc;
    }
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        es_row_t row;

        if (key.mv_size != 16 || es_get64(key.mv_data) != hash) {
            rc = MDB_NOTFOUND;
            break;
        }
        rc = es_row_get(&s->tables, txn, es_get64((const char *)key.mv_data + 8), &row);
        if (rc != 0) {
            /* A row that is named is there. */
            rc = rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
            break;
        }
        if (row.name.n == name.n && memcmp(row.name.p, name.p, name.n) == 0) {
            *ret = row;
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc;
}

/* ---- state ---- */

static void state_fields(es_state_t *state, uint64_t *field[ES_STATE_SIZE / 8])
{
    field[0] = &state->instance;
    field[1] = &state->key[0];
    field[2] = &state->key[1];
    field[3] = &state->reserved;
    field[4] = &state->forgotten;
    field[5] = &state->grave_bytes;
    field[6] = &state->count_limit;
    field[7] = &state->inode;
    field[8] = &state->created_ms;
    field[9] = &state->newest;
}

bool es_state_decode(es_str_t value, es_state_t *ret)
{
    uint64_t *field[ES_STATE_SIZE / 8];
    es_state_t state;
    size_t i;

    if (value.n != ES_STATE_SIZE) {
        return false;
    }
    state_fields(&state, field);
    for (i = 0; i < ES_STATE_SIZE / 8; i++) {
        *field[i] = es_get64(value.p + 8 * i);
    }
    if (state.instance == 0 || state.reserved == 0) {
        return false;
    }
    *ret = state;
    return true;
}

void es_state_encode(const es_state_t *state, unsigned char *value)
{
    uint64_t *field[ES_STATE_SIZE / 8];
    es_state_t copy = *state;
    size_t i;

    state_fields(&copy, field);
    for (i = 0; i < ES_STATE_SIZE / 8; i++) {
        es_put64(value + 8 * i, *field[i]);
    }
}

int es_state_get(const es_tables_t *t, MDB_txn *txn, es_state_t *ret)
{
    MDB_val key = { 5, (void *)(uintptr_t) "state" }, value;
    int rc = mdb_get(txn, t->meta, &key, &value);

    if (rc != 0) {
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    }
    return es_state_decode((es_str_t) { value.mv_data, value.mv_size }, ret) ? 0 : MDB_CORRUPTED;
}

/* ---- the whole ---- */

int es_store_tables(MDB_txn *txn, bool create, es_tables_t *ret)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } tables[ES_TABLES] = { { "meta", &ret->meta },   { "log", &ret->log },
                            { "index", &ret->index }, { "chans", &ret->chans },
                            { "names", &ret->names }, { "graves", &ret->graves } };
    size_t i;
    int rc;

    for (i = 0; i < ES_TABLES; i++) {
        rc = mdb_dbi_open(txn, tables[i].name, create ? MDB_CREATE : 0, tables[i].dbi);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int es_store_used(const es_store_t *s, MDB_txn *txn, uint64_t *ret)
{
    const MDB_dbi dbi[] = { s->tables.log,   s->tables.index,  s->tables.chans,
                            s->tables.names, s->tables.graves, s->tables.meta };
    uint64_t used = 0;
    size_t i;
    int rc;

    for (i = 0; i < sizeof dbi / sizeof dbi[0]; i++) {
        MDB_stat stat;

        rc = mdb_stat(txn, dbi[i], &stat);
        if (rc != 0) {
            return rc;
        }
        used += (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) *
                (uint64_t)stat.ms_psize;
    }
    *ret = used;
    return 0;
}
