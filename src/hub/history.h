/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history as the hub uses it: the store and the thread that writes it (history.c,
 * history_write.c).
 *
 * Numbers are the intake's: es_history_number gives them out, rising, for messages (es_history_put)
 * and for orders to clear a channel (es_history_clear). The writer works them off in that order. A
 * number is settled when what it stands for is on disk or has failed; all numbers up to
 * es_history_settled are.
 *
 * Functions marked I are the intake's, those marked R any thread's.
 */
#ifndef ES_HISTORY_H
#define ES_HISTORY_H

#include "store.h"

typedef struct es_history es_history_t;

typedef struct es_history_config {
    es_store_config_t store; /* as es_store_open wants it */
    int wake;                /* an eventfd, written to whenever numbers were settled */
    int waiters;             /* loops that may wait, see es_history_await */
} es_history_config_t;

/** Opens the store (its errors) and starts the writer. */
es_err_t es_history_open(const es_history_config_t *config, es_history_t **ret,
                         es_detail_t *detail);

/** I: settles all that waits and ends the writer. Results can still be asked for. */
void es_history_finish(es_history_t *history);

/** I: the same, and closes the store: no thread reads any more. NULL is fine. */
void es_history_close(es_history_t *history);

/** I: the next number, greater than `above`. 0: there is none now, the disk is full. May wait for
 * the writer. */
uint64_t es_history_number(es_history_t *history, uint64_t above);

/** I: gives a message to the writer; `bytes` is copied. Waits while too much waits. ES_ENOMEM: it
 * was not taken. */
es_err_t es_history_put(es_history_t *history, uint64_t number, es_str_t channel, uint64_t ms,
                        es_str_t bytes);

/** I: orders a channel to be cleared. The order has failed with ES_ENOENT when there was nothing.
 * ES_ENOMEM: it was not taken. */
es_err_t es_history_clear(es_history_t *history, uint64_t number, es_str_t channel);

/** I: a number that stands for nothing to write; it is settled in its turn. Needs no memory. */
void es_history_skip(es_history_t *history, uint64_t number);

/** I: a number whose message did not get as far as the writer. */
void es_history_miss(es_history_t *history, uint64_t number, es_err_t err, const char *why);

/** R: ES_OK, or why one of these settled numbers failed. Failures long past may be told of their
 * neighbours, too. */
es_err_t es_history_result(es_history_t *history, uint64_t first, uint64_t last,
                           es_detail_t *detail);

uint64_t es_history_settled(es_history_t *history); /* R */
uint64_t es_history_lost(es_history_t *history); /* R: the greatest settled message that failed */
es_store_t *es_history_store(es_history_t *history);

typedef struct es_history_counts { /* since it was opened */
    uint64_t groups;               /* committed */
    uint64_t not_kept;             /* messages that the writer had and the store did not take */
} es_history_counts_t;

es_history_counts_t es_history_counts(es_history_t *history); /* R */

/** R: has `fd` (an eventfd) written to once, when the next numbers are settled. Call it before
 * es_history_settled, and no settling is missed. `waiter`: 0 to `waiters` - 1, one thread each. */
void es_history_await(es_history_t *history, int waiter, int fd);

#endif
