/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file store.h
 * The history store: what was published, on disk, so that a client that comes back with the number
 * of the last event it saw gets everything after it. The hub alone has it open.
 *
 * A record is one item on one channel. Its sequence number (64 bits, over all channels, from
 * es_store_take) is never given out twice, not even when a crash comes before the record is
 * written. `instance` is a random number of the store itself: a client's event id that names
 * another instance is of another history, and its number means nothing here.
 *
 * Threads: functions marked W are the writer's: one thread at a time, and never called from a
 * read's callback. Those marked R may run in any thread, beside the writer and each other; they
 * wait for nobody. es_store_open and es_store_close have the store for themselves.
 *
 * Times are milliseconds since 1970 (wall clock), sizes are bytes. Numbers begin at 1, so `after`
 * 0 means from the beginning. Names are bytes, NUL included, 1 to ES_STORE_NAME_MAX of them.
 *
 * Errors of all: ES_ENOMEM; ES_EIO: the disk, or the file is damaged (the detail tells). The store
 * stays as it was, and every later call may be tried. If the disk failed while the file's root was
 * written, all later calls fail with ES_EIO until the store is closed and opened again.
 */
#ifndef ES_STORE_H
#define ES_STORE_H

#include "es_base.h"

enum {
    ES_STORE_NAME_MAX = 4096,
    ES_STORE_CHANNELS_MAX = 256, /* of one read */
    ES_STORE_READ_COUNT = 256,   /* records of one read, unless told otherwise */
    ES_STORE_READ_BYTES = 1024 * 1024,
    ES_STORE_BYTES_MIN = 1024 * 1024,
    ES_STORE_BYTES_DEFAULT = 256 * 1024 * 1024,
    ES_STORE_BATCH_MAX = 64 * 1024 * 1024 /* bytes of one append; also a quarter of max_bytes */
};

typedef struct es_store es_store_t;

typedef struct es_store_config {
    const char *dir;
    uint64_t max_bytes;  /* of the pages in use; 0: ES_STORE_BYTES_DEFAULT */
    uint64_t max_age_ms; /* 0: no limit */
    uint64_t max_count;  /* records of each channel; 0: no limit */
    uint64_t check_ms;   /* how long an open may look for damage when the store was closed
                          * properly; 0: two seconds. After a crash it is ten times as much */
    es_log_t log;
    uint64_t (*wall_ms)(void *clock_ctx);
    void *clock_ctx;
} es_store_config_t;

/**
 * Opens the store in `dir`, which is made (0700) if it is missing; its parent has to be there.
 * The strings are copied. A file that is damaged, foreign or of a newer version is moved aside to
 * NAME.damaged-TIME (the newest three such are kept), logged, and a new store is begun.
 *
 * ES_EAGAIN: another process has it, the detail names it. At a graceful restart that is the hub
 * before: it stops appending, closes, and the next hub's open then succeeds; so the next hub opens
 * after the other one's last word, or tries again. The kernel drops the lock of a process that
 * dies. ES_EINVAL: a limit is out of range. ES_EIO, ES_EFULL: the directory or the disk; the
 * detail names it.
 *
 * A copy of the file (a backup put back) is a history that goes on from an older point: it gets
 * another instance number.
 *
 * Forks a short-lived process that looks for damage, since LMDB may crash on a damaged file.
 */
es_err_t es_store_open(const es_store_config_t *config, es_store_t **ret, es_detail_t *detail);

/** No thread is reading any more. NULL is fine. */
void es_store_close(es_store_t *store);

/** R: of this history; never 0. */
uint64_t es_store_instance(const es_store_t *store);

/**
 * W: gives out `n` numbers, `*ret_first` and those after it. Writes once in 65 536 numbers; the
 * appends between do most of that for nothing. ES_EFULL as es_store_append.
 */
es_err_t es_store_take(es_store_t *store, uint64_t n, uint64_t *ret_first, es_detail_t *detail);

typedef struct es_store_item {
    uint64_t seq;
    es_str_t channel;
    uint64_t ms; /* if the clock was set back: the newest record's time is kept instead */
    es_str_t bytes;
} es_store_item_t;

/**
 * W: writes all or nothing; the numbers increase and come from es_store_take. After ES_OK the
 * records survive a crash and a power cut. Also keeps the limits `max_count` of these channels and
 * `max_bytes`.
 *
 * When disk or map are full, the oldest records make room, in steps, up to about eight times
 * what the batch needs. ES_EFULL: that did not help; nothing of the batch was stored. ES_EINVAL: a
 * name or a number; ES_ETOOBIG: the batch.
 */
es_err_t es_store_append(es_store_t *store, const es_store_item_t *items, size_t n,
                         es_detail_t *detail);

/** W: no record of the channel can be read any more. ES_ENOENT: there is none. */
es_err_t es_store_clear(es_store_t *store, es_str_t channel, es_detail_t *detail);

/**
 * W: removes what the limits no longer allow, at most `max_records` (0: 1000) at `now_ms`, and
 * looks at most at so many channels. `*ret_more`: call it again soon. Else once in a while, for
 * the age. Costs nothing on disk when there is nothing to do.
 */
es_err_t es_store_prune(es_store_t *store, uint64_t now_ms, size_t max_records, bool *ret_more,
                        es_detail_t *detail);

typedef struct es_store_record {
    uint64_t seq;
    uint64_t ms;
    size_t channel; /* index in the read's list; of doubles the first */
    es_str_t bytes; /* valid during the callback */
} es_store_record_t;

typedef struct es_store_range {
    uint64_t after;   /* records with a greater number */
    uint64_t up_to;   /* and none beyond this one; 0: no limit */
    size_t max_count; /* 0: ES_STORE_READ_COUNT */
    size_t max_bytes; /* of items; 0: ES_STORE_READ_BYTES. The first record always comes */
} es_store_range_t;

typedef struct es_store_result {
    uint64_t last; /* read on from here (`after`) */
    size_t count;
    bool more;
    /* Something after `after` is gone on one of the channels. Exact for channels that have
     * records, and for the last ones that have become empty (a sixteenth of max_bytes, at most
     * 16 MiB, is kept for their names); of channels long empty it may be said without need, never
     * missed. */
    bool reset;
} es_store_result_t;

/** Returns false: no more, this record counts as read. Must not call the store or wait: pages that
 * the writer frees cannot be used again while a read goes on. */
typedef bool (*es_store_each_t)(void *ctx, const es_store_record_t *record);

/**
 * R: the channels' records, merged by number. ES_EINVAL: too many channels, or a name; ES_EAGAIN:
 * more than 126 reads at once.
 */
es_err_t es_store_read(es_store_t *store, const es_str_t *channels, size_t n,
                       const es_store_range_t *range, es_store_each_t each, void *ctx,
                       es_store_result_t *ret, es_detail_t *detail);

/** R: the `after` with which es_store_read gives the last `count` records up to `up_to` (0: no
 * limit) of these channels together, or all if they are fewer; `count` over
 * 100 000 counts as that. */
es_err_t es_store_rewind(es_store_t *store, const es_str_t *channels, size_t n, size_t count,
                         uint64_t up_to, uint64_t *ret_after, es_detail_t *detail);

/** R: the number of the first record, of any channel, at or after a time. ES_ENOENT: none. */
es_err_t es_store_at(es_store_t *store, uint64_t ms, uint64_t *ret_seq, es_detail_t *detail);

typedef struct es_store_channel_info {
    uint64_t count, bytes; /* of items */
    uint64_t oldest, newest;
    uint64_t pruned; /* the greatest number that is gone; 0: none */
} es_store_channel_info_t;

/** R. ES_ENOENT: it has no records. */
es_err_t es_store_channel_info(es_store_t *store, es_str_t channel, es_store_channel_info_t *ret,
                               es_detail_t *detail);

typedef struct es_store_info {
    uint64_t records, channels;
    uint64_t used_bytes; /* what max_bytes bounds */
    uint64_t max_bytes;  /* the limit that holds */
    uint64_t file_bytes; /* grows, never shrinks */
    uint64_t oldest, newest, oldest_ms;
} es_store_info_t;

/** R. */
es_err_t es_store_info(es_store_t *store, es_store_info_t *ret, es_detail_t *detail);

#endif
