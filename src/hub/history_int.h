/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the history: what its two files share. history.c is the intake's side,
 * history_write.c the writer's thread.
 */
#ifndef ES_HISTORY_INT_H
#define ES_HISTORY_INT_H

#include "history.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    ES_HISTORY_BLOCK = 8192, /* numbers of one block; the next is fetched when half of it is used */
    ES_HISTORY_FAILURES = 64
};

typedef struct es_job {
    uint64_t number;
    uint64_t ms;
    enum { ES_JOB_PUT, ES_JOB_CLEAR } what;
    uint32_t name_len;
    size_t len;
    char *bytes; /* name, then item; owned */
} es_job_t;

typedef struct es_failure {
    uint64_t first, last;
    es_err_t err;
    es_detail_t why;
} es_failure_t;

typedef struct es_waiter {
    atomic_int fd; /* -1: does not wait */
} es_waiter_t;

struct es_history {
    es_store_t *store;
    es_history_config_t config;
    pthread_t thread;
    bool running;
    size_t group_bytes; /* of one commit */
    bool prune_more;    /* the writer's; the last look left something */
    time_t pruned_s;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;  /* the writer waits */
    pthread_cond_t room;  /* the intake waits: for room, or for numbers */
    es_job_t *v;
    size_t n, cap, bytes;
    uint64_t skipped; /* the newest number that stands for nothing to write */
    bool wanted;      /* a block of numbers */
    bool answered;
    uint64_t above; /* what its last number has to exceed */
    uint64_t block, block_end;
    bool closing;
    es_failure_t failures[ES_HISTORY_FAILURES];
    size_t failure_count;

    uint64_t next, end; /* the intake's: numbers that it may give out */

    atomic_uint_fast64_t settled, lost;
    atomic_uint_fast64_t groups, not_kept; /* counted by the writer */
    es_waiter_t *waiters;
};

void *es_history_writer(void *arg); /* the thread; it ends when `closing` and nothing is left */
void es_history_add_failure(es_history_t *h, uint64_t first, uint64_t last, es_err_t err,
                            const char *why);
void es_history_raise_lost(es_history_t *h, uint64_t number);

#endif
