/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history's writer: one thread that takes what the intake has put into the queue and writes it
 * with one commit, while the next group gathers. So the busier the hub, the more messages one sync
 * carries. Between groups it removes what the limits no longer allow, and fetches numbers.
 */
#include "history_int.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    GROUP_MAX = 8192, /* records of one commit */
    PRUNE_S = 5       /* between two looks at the limits */
};

static void wake(int fd)
{
    const uint64_t one = 1;

    if (write(fd, &one, sizeof one) < 0) {
        return; /* the counter is full: it is readable anyway */
    }
}

static void settle(es_history_t *h, uint64_t number)
{
    int i;

    atomic_store(&h->settled, number);
    wake(h->config.wake);
    for (i = 0; i < h->config.waiters; i++) {
        const int fd = atomic_exchange(&h->waiters[i].fd, -1);

        if (fd >= 0) {
            wake(fd);
        }
    }
}

static void lose(es_history_t *h, const es_job_t *v, size_t n, es_err_t err, const es_detail_t *why)
{
    es_history_add_failure(h, v[0].number, v[n - 1].number, err, why->text);
    es_history_raise_lost(h, v[n - 1].number);
    atomic_fetch_add(&h->not_kept, n);
}

static es_store_item_t item_of(const es_job_t *job)
{
    return (es_store_item_t) { .seq = job->number,
                               .channel = { job->bytes, job->name_len },
                               .ms = job->ms,
                               .bytes = { job->bytes + job->name_len, job->len - job->name_len } };
}

/* Writes a group with one commit. One item that the store does not take must not cost the others:
 * they are tried one by one then. When there is no room that would not help. */
static void append(es_history_t *h, const es_job_t *v, size_t n)
{
    es_store_item_t *items = malloc(n * sizeof *items);
    es_detail_t detail = { "out of memory" };
    es_err_t err = ES_ENOMEM;
    size_t i;

    for (i = 0; items && i < n; i++) {
        items[i] = item_of(&v[i]);
    }
    if (items) {
        err = es_store_append(h->store, items, n, &detail);
    }
    free(items);
    if (n > 1 && (err == ES_EINVAL || err == ES_ETOOBIG)) {
        append(h, v, n / 2);
        append(h, v + n / 2, n - n / 2);
        return;
    }
    if (err == ES_OK) {
        atomic_fetch_add(&h->groups, 1);
    }
    else {
        lose(h, v, n, err, &detail);
    }
}

/* How many from `v` on make one commit? */
static size_t group(const es_history_t *h, const es_job_t *v, size_t n)
{
    size_t i, bytes = 0;

    for (i = 0; i < n && i < GROUP_MAX && v[i].what == ES_JOB_PUT; i++) {
        bytes += v[i].len;
        if (i > 0 && bytes > h->group_bytes) {
            break;
        }
    }
    return i;
}

static void clear(es_history_t *h, const es_job_t *job)
{
    const es_str_t name = { job->bytes, job->name_len };
    es_detail_t detail;
    const es_err_t err = es_store_clear(h->store, name, &detail);

    if (err != ES_OK) {
        es_history_add_failure(h, job->number, job->number, err, detail.text);
    }
}

/* Jobs, and `skipped`, which was the newest number without one when they were taken. */
static void work_off(es_history_t *h, es_job_t *v, size_t n, uint64_t skipped)
{
    size_t at = 0, i;

    while (at < n) {
        size_t k = group(h, v + at, n - at);

        if (k > 0) {
            append(h, v + at, k);
        }
        else {
            k = 1;
            clear(h, &v[at]);
        }
        at += k;
        settle(h, v[at - 1].number);
    }
    if (skipped > es_history_settled(h)) {
        settle(h, skipped);
    }
    for (i = 0; i < n; i++) {
        free(v[i].bytes);
    }
}

/* With the lock held, which is let go meanwhile. */
static void fetch_block(es_history_t *h)
{
    const uint64_t above = h->above;
    uint64_t first = 0, n = ES_HISTORY_BLOCK;
    es_detail_t detail;
    es_err_t err;

    pthread_mutex_unlock(&h->lock);
    err = es_store_take(h->store, n, &first, &detail);
    if (err == ES_OK && first + n - 1 <= above) { /* ids went on without the store for a while */
        n = above - first + ES_HISTORY_BLOCK;
        err = es_store_take(h->store, n, &first, &detail);
    }
    pthread_mutex_lock(&h->lock);
    h->block = err == ES_OK ? first : 0;
    h->block_end = err == ES_OK ? first + n : 0;
    h->answered = true;
    h->wanted = false;
    pthread_cond_signal(&h->room);
}

static void wait_for_work(es_history_t *h)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += h->prune_more ? 0 : PRUNE_S;
    pthread_cond_timedwait(&h->work, &h->lock, &until);
}

/* Every few seconds, or at once when the last look left something; a step each time, so that
 * messages never wait long. An error is logged by the store, and it is tried again. */
static void prune(es_history_t *h)
{
    const es_store_config_t *c = &h->config.store;
    struct timespec now;
    es_detail_t detail;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (h->prune_more || now.tv_sec >= h->pruned_s + PRUNE_S) {
        h->prune_more = false;
        h->pruned_s = now.tv_sec;
        (void)es_store_prune(h->store, c->wall_ms(c->clock_ctx), 0, &h->prune_more, &detail);
    }
}

/* With the lock held: is there something to settle? */
static bool has_work(const es_history_t *h)
{
    return h->n > 0 || h->skipped > atomic_load(&h->settled);
}

void *es_history_writer(void *arg)
{
    es_history_t *h = arg;

    pthread_mutex_lock(&h->lock);
    while (has_work(h) || h->wanted || !h->closing) {
        es_job_t *v = h->v;
        const size_t n = h->n;
        const uint64_t skipped = h->skipped;

        if (h->wanted) {
            fetch_block(h);
        }
        else if (has_work(h)) {
            h->v = NULL;
            h->n = 0;
            h->cap = 0;
            h->bytes = 0;
            pthread_cond_signal(&h->room);
            pthread_mutex_unlock(&h->lock);
            work_off(h, v, n, skipped);
            free(v);
            prune(h);
            pthread_mutex_lock(&h->lock);
        }
        else {
            wait_for_work(h);
            pthread_mutex_unlock(&h->lock);
            prune(h);
            pthread_mutex_lock(&h->lock);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}
