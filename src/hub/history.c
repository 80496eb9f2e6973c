/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history's queue, numbers and results: the intake's side of it. The thread that empties the
 * queue is in history_write.c.
 *
 *   intake ──put──▶ queue (bounded) ──▶ writer ──append──▶ store
 *     ▲                                   │ settled
 *     └───────────── eventfd ◀────────────┴──▶ eventfds of loops that wait
 *
 * Numbers come from the store in blocks, which the writer gets ahead of need: the intake waits only
 * when it is quicker than that. When the disk is full there may be no block: such messages have no
 * id and are not kept.
 *
 * What failed is kept as ranges of numbers with the reason, a few of them; when there are more, the
 * two oldest become one. So a failure is never forgotten too early, and rather told of a neighbour.
 */
#include "history_int.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUE_MAX = 65536, QUEUE_BYTES = 64 * 1024 * 1024 };

/* ---- results ---- */

void es_history_add_failure(es_history_t *h, uint64_t first, uint64_t last, es_err_t err,
                            const char *why)
{
    es_failure_t *f;

    pthread_mutex_lock(&h->lock);
    f = h->failure_count > 0 ? &h->failures[h->failure_count - 1] : NULL;
    if (f && f->err == err && first >= f->first && first <= f->last + 1) {
        f->last = last > f->last ? last : f->last;
    }
    else {
        if (h->failure_count == ES_HISTORY_FAILURES) {
            if (h->failures[0].first < h->failures[1].first) {
                h->failures[1].first = h->failures[0].first;
            }
            memmove(h->failures, h->failures + 1, (ES_HISTORY_FAILURES - 1) * sizeof *h->failures);
            h->failure_count--;
        }
        f = &h->failures[h->failure_count++];
        *f = (es_failure_t) { .first = first, .last = last, .err = err };
        (void)es_fail(&f->why, err, "%s", why);
    }
    pthread_mutex_unlock(&h->lock);
}

void es_history_raise_lost(es_history_t *h, uint64_t number)
{
    uint64_t lost = atomic_load(&h->lost);

    while (lost < number && !atomic_compare_exchange_weak(&h->lost, &lost, number)) {}
}

void es_history_miss(es_history_t *history, uint64_t number, es_err_t err, const char *why)
{
    es_history_add_failure(history, number, number, err, why);
    es_history_raise_lost(history, number);
}

es_err_t es_history_result(es_history_t *history, uint64_t first, uint64_t last,
                           es_detail_t *detail)
{
    es_err_t err = ES_OK;
    size_t i;

    pthread_mutex_lock(&history->lock);
    for (i = 0; i < history->failure_count && err == ES_OK; i++) {
        const es_failure_t *f = &history->failures[i];

        if (f->first <= last && first <= f->last) {
            err = es_fail(detail, f->err, "%s", f->why.text);
        }
    }
    pthread_mutex_unlock(&history->lock);
    return err;
}

uint64_t es_history_settled(es_history_t *history)
{
    return atomic_load(&history->settled);
}

uint64_t es_history_lost(es_history_t *history)
{
    return atomic_load(&history->lost);
}

es_store_t *es_history_store(es_history_t *history)
{
    return history->store;
}

es_history_counts_t es_history_counts(es_history_t *history)
{
    return (es_history_counts_t) { .groups = atomic_load(&history->groups),
                                   .not_kept = atomic_load(&history->not_kept) };
}

void es_history_await(es_history_t *history, int waiter, int fd)
{
    atomic_store(&history->waiters[waiter].fd, fd);
}

/* ---- the intake's side ---- */

/* With the lock held. */
static void want_block(es_history_t *h, uint64_t above)
{
    if (!h->wanted && !h->answered) {
        h->wanted = true;
        h->above = above;
        pthread_cond_signal(&h->work);
    }
}

/* With the lock held: the block that was fetched ahead, or nothing. */
static void next_block(es_history_t *h, uint64_t above)
{
    want_block(h, above);
    while (!h->answered) {
        pthread_cond_wait(&h->room, &h->lock);
    }
    h->next = h->block;
    h->end = h->block_end;
    h->answered = false;
}

uint64_t es_history_number(es_history_t *history, uint64_t above)
{
    es_history_t *h = history;
    int tries;

    if (h->next <= above && above < h->end) {
        h->next = above + 1;
    }
    /* The first block may have been fetched before `above` was known. */
    for (tries = 0; tries < 2 && (h->next >= h->end || h->next <= above); tries++) {
        pthread_mutex_lock(&h->lock);
        next_block(h, above);
        pthread_mutex_unlock(&h->lock);
        if (h->next <= above && above < h->end) {
            h->next = above + 1;
        }
    }
    if (h->next >= h->end || h->next <= above) {
        return 0;
    }
    if (h->end - h->next == ES_HISTORY_BLOCK / 2) {
        pthread_mutex_lock(&h->lock);
        want_block(h, h->end);
        pthread_mutex_unlock(&h->lock);
    }
    return h->next++;
}

static es_err_t push(es_history_t *h, const es_job_t *job)
{
    es_err_t err = ES_OK;

    pthread_mutex_lock(&h->lock);
    while (h->n >= QUEUE_MAX || h->bytes >= QUEUE_BYTES) {
        pthread_cond_wait(&h->room, &h->lock);
    }
    if (h->n == h->cap) {
        const size_t cap = h->cap > 0 ? 2 * h->cap : 64;
        es_job_t *grown = realloc(h->v, cap * sizeof *grown);

        err = grown ? ES_OK : ES_ENOMEM;
        h->v = grown ? grown : h->v;
        h->cap = grown ? cap : h->cap;
    }
    if (err == ES_OK) {
        h->v[h->n++] = *job;
        h->bytes += job->len;
        pthread_cond_signal(&h->work);
    }
    pthread_mutex_unlock(&h->lock);
    return err;
}

static es_err_t give(es_history_t *h, es_job_t *job, es_str_t channel, es_str_t bytes)
{
    es_err_t err;

    job->name_len = (uint32_t)channel.n;
    job->len = channel.n + bytes.n;
    job->bytes = malloc(job->len + 1);
    if (!job->bytes) {
        return ES_ENOMEM;
    }
    memcpy(job->bytes, channel.p, channel.n);
    if (bytes.n > 0) {
        memcpy(job->bytes + channel.n, bytes.p, bytes.n);
    }
    err = push(h, job);
    if (err != ES_OK) {
        free(job->bytes);
    }
    return err;
}

es_err_t es_history_put(es_history_t *history, uint64_t number, es_str_t channel, uint64_t ms,
                        es_str_t bytes)
{
    es_job_t job = { .number = number, .ms = ms };

    return give(history, &job, channel, bytes);
}

es_err_t es_history_clear(es_history_t *history, uint64_t number, es_str_t channel)
{
    es_job_t job = { .number = number, .what = ES_JOB_CLEAR };

    return give(history, &job, channel, (es_str_t) { "", 0 });
}

/* All jobs before it are in the queue already: who takes them takes this along. */
void es_history_skip(es_history_t *history, uint64_t number)
{
    pthread_mutex_lock(&history->lock);
    history->skipped = number;
    pthread_cond_signal(&history->work);
    pthread_mutex_unlock(&history->lock);
}

/* ---- open and close ---- */

static void destroy(es_history_t *h)
{
    es_store_close(h->store);
    pthread_cond_destroy(&h->work);
    pthread_cond_destroy(&h->room);
    pthread_mutex_destroy(&h->lock);
    free(h->waiters);
    free(h->v);
    free(h);
}

static es_history_t *make(const es_history_config_t *config)
{
    es_history_t *h = calloc(1, sizeof *h);
    pthread_condattr_t monotonic;
    int i;

    if (!h) {
        return NULL;
    }
    h->config = *config;
    h->waiters = calloc((size_t)config->waiters + 1, sizeof *h->waiters);
    if (!h->waiters) {
        free(h);
        return NULL;
    }
    for (i = 0; i < config->waiters; i++) {
        atomic_init(&h->waiters[i].fd, -1);
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->work, &monotonic);
    pthread_cond_init(&h->room, NULL);
    pthread_condattr_destroy(&monotonic);
    return h;
}

es_err_t es_history_open(const es_history_config_t *config, es_history_t **ret, es_detail_t *detail)
{
    const uint64_t max = config->store.max_bytes;
    es_history_t *h = make(config);
    es_err_t err;

    if (!h) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    h->group_bytes = (max > 0 ? max : ES_STORE_BYTES_DEFAULT) / 16;
    if (h->group_bytes > ES_STORE_BATCH_MAX / 4) {
        h->group_bytes = ES_STORE_BATCH_MAX / 4;
    }
    h->wanted = true; /* the first block is there before it is needed */
    err = es_store_open(&config->store, &h->store, detail);
    if (err == ES_OK && pthread_create(&h->thread, NULL, es_history_writer, h) != 0) {
        err = es_fail(detail, ES_EIO, "no thread can be started");
    }
    h->running = err == ES_OK;
    if (err != ES_OK) {
        destroy(h);
        return err;
    }
    pthread_setname_np(h->thread, "es-history");
    *ret = h;
    return ES_OK;
}

void es_history_finish(es_history_t *history)
{
    if (!history->running) {
        return;
    }
    pthread_mutex_lock(&history->lock);
    history->closing = true;
    pthread_cond_signal(&history->work);
    pthread_mutex_unlock(&history->lock);
    pthread_join(history->thread, NULL);
    history->running = false;
}

void es_history_close(es_history_t *history)
{
    if (history) {
        es_history_finish(history);
        destroy(history);
    }
}
