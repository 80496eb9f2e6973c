/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the history store. One LMDB file with six tables; numbers are big-endian, in keys
 * so that they sort, in values so that a file can be moved to another machine.
 *
 *   meta    "format" -> ES_FORMAT and a version; "state" -> es_state_t
 *   log     seq -> record (kind, checksum, channel, time, item): everything, oldest first
 *   index   channel, seq -> nothing: each channel's records
 *   chans   channel -> es_row_t and the name
 *   names   hash of the name, channel -> nothing: names are longer than LMDB's keys can be. The
 *           hash is keyed with random bytes of the store; names with the same hash stand side by
 *           side and are told apart by their rows
 *   graves  newest seq, channel -> nothing: channels without records. Their rows are kept so that
 *           a reader can be told exactly whether it missed something, until their names take too
 *           much room; then the oldest go and `forgotten` rises
 *
 * A channel's number is the number of its first record. Nothing about channels is in memory, so
 * opening and appending do not depend on how many there are.
 *
 * Functions with a es_wtx_t or MDB_txn and an int result return LMDB's codes.
 */
#ifndef ES_STORE_INT_H
#define ES_STORE_INT_H

#include <lmdb.h>
#include <stdatomic.h>

#include "store.h"

#define ES_STORE_FILE "history.mdb"
#define ES_STORE_LOCK "history.lock"
#define ES_FORMAT     "mod_eventstream history "

enum {
    ES_FORMAT_VERSION = 1,
    ES_STORE_BLOCK = 65536, /* numbers that are reserved at once */
    ES_RECORD_HEAD = 24,
    ES_ROW_HEAD = 48,
    ES_STATE_SIZE = 80,
    ES_GRAVE_COST = 160, /* of a row beside its name */
    ES_TABLES = 6
};

typedef struct es_tables {
    MDB_dbi meta, log, index, chans, names, graves;
} es_tables_t;

typedef struct es_state {
    uint64_t instance;
    uint64_t key[2];      /* of the names' hash */
    uint64_t reserved;    /* the first number that may not have been given out */
    uint64_t forgotten;   /* the greatest number of a channel of which nothing is known any more */
    uint64_t grave_bytes; /* what the graves cost */
    uint64_t count_limit; /* max_count that every channel obeys */
    uint64_t inode;       /* of the file: tells a copy */
    uint64_t created_ms;
    uint64_t newest; /* greatest number that was ever stored */
} es_state_t;

typedef struct es_row {
    uint64_t id;
    uint64_t hash;
    uint64_t count, bytes;
    uint64_t newest;
    uint64_t pruned;
    uint64_t reserved; /* 0 */
    es_str_t name;     /* in the map, or the caller's: gone with the next write */
} es_row_t;

typedef struct es_record {
    uint64_t channel, ms;
    es_str_t bytes;
} es_record_t;

struct es_store {
    es_store_config_t config; /* dir is owned; max_bytes is what holds */
    char *file;
    int lock_fd;
    bool doubted;      /* LMDB found damage while the store was open before */
    uint64_t noted[2]; /* what the lock file had at the open: `reserved` and `newest` */
    MDB_env *env;
    es_tables_t tables;
    uint64_t key[2]; /* of the state; neither changes */
    uint64_t instance;
    uint64_t grave_max;
    /* The writer's: */
    uint64_t next, reserved; /* the next number, and the first that is not reserved */
    uint64_t began;          /* the first number that this open could give out */
    uint64_t newest;         /* greatest that was ever stored */
    uint64_t newest_ms;
    uint64_t sweep; /* where es_store_prune looks for channels over max_count; UINT64_MAX: done */
    bool full;      /* said in the log */
    uint64_t removed, removed_told; /* for want of room: since the last line, and when that was */
    /* Any thread's: */
    atomic_bool damage_told;
};

/* A write transaction; the state is written back at its end when it has changed. One that changed
 * nothing costs nothing on disk. */
typedef struct es_wtx {
    es_store_t *store;
    MDB_txn *txn;
    es_state_t state, before;
    size_t removed;
} es_wtx_t;

typedef int (*es_work_t)(es_wtx_t *w, void *arg);

/* ---- store_rows.c: the tables' keys and values; any thread ---- */

void es_put64(unsigned char *p, uint64_t v);
uint64_t es_get64(const void *p);
MDB_val es_key1(unsigned char *room8, uint64_t a);
MDB_val es_key2(unsigned char *room16, uint64_t a, uint64_t b);
uint64_t es_store_hash(const uint64_t key[2], es_str_t name);

/* ES_EINVAL, with a detail: short, of an unknown kind, or the checksum is wrong. */
es_err_t es_record_decode(es_str_t value, es_record_t *ret, es_detail_t *detail);
void es_record_encode(const es_record_t *record, unsigned char *head); /* ES_RECORD_HEAD bytes */
bool es_row_decode(uint64_t id, es_str_t value, es_row_t *ret);
bool es_state_decode(es_str_t value, es_state_t *ret);
void es_state_encode(const es_state_t *state, unsigned char *value); /* ES_STATE_SIZE bytes */

int es_row_get(const es_tables_t *t, MDB_txn *txn, uint64_t id, es_row_t *ret);
int es_row_put(const es_tables_t *t, MDB_txn *txn, const es_row_t *row);
int es_row_find(const es_store_t *s, MDB_txn *txn, es_str_t name, es_row_t *ret);
int es_state_get(const es_tables_t *t, MDB_txn *txn, es_state_t *ret);
int es_store_used(const es_store_t *s, MDB_txn *txn, uint64_t *ret);
int es_store_tables(MDB_txn *txn, bool create, es_tables_t *ret);

/* ---- store.c ---- */

es_err_t es_store_fail(const es_store_t *s, es_detail_t *detail, int rc, const char *what);

/* ---- store_file.c: directory, lock, damage; before the store is open ---- */

es_err_t es_store_enter(es_store_t *s, bool *ret_clean, es_detail_t *detail);
void es_store_leave(es_store_t *s, bool clean);
/* Notes in the lock file how far the numbers are. */
void es_store_note(const es_store_t *s);
/* LMDB is about to abort: the next open is to move the file aside. */
void es_store_doubt(const es_store_t *s);
es_err_t es_store_aside(es_store_t *s, const char *why, es_detail_t *detail);
void es_store_sync_dir(const es_store_t *s);

/* ---- store_check.c ---- */

/* ES_EINVAL: the file is damaged, foreign or newer, and `detail` says how. */
es_err_t es_store_check(const es_store_t *s, bool clean, uint64_t map_bytes, es_detail_t *detail);

/* ---- store_write.c, store_prune.c: the writer ---- */

bool es_store_is_full(int rc);
int es_store_write(es_store_t *s, es_work_t work, void *arg, size_t *ret_removed);
/* Removes the oldest records, up to `max` and below number `below`, while the pages in use are
 * over `target`. */
int es_store_remove_oldest(es_wtx_t *w, size_t max, uint64_t below, uint64_t target);
int es_store_remove(es_wtx_t *w, uint64_t seq, uint64_t id);
/* Removes the channel's oldest up to `max` while there are more than `keep`. */
int es_store_remove_of(es_wtx_t *w, uint64_t id, uint64_t keep, size_t max);

#endif
