/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: one thread that takes what the intake has put into the queue and writes it with one
 * commit, while the next group gathers. So the busier the hub, the more messages one sync carries.
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
#include "history.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 8192, /* numbers of one block; the next is fetched when half of it is used */
    QUEUE_MAX = 65536,
    QUEUE_BYTES = 64 * 1024 * 1024,
    GROUP_MAX = 8192, /* records of one commit */
    FAILURES = 64,
    PRUNE_S = 5 /* between two looks at the limits */
};

typedef struct job {
    uint64_t number;
    uint64_t ms;
    enum { JOB_PUT, JOB_CLEAR, JOB_SKIP } what;
    uint32_t name_len;
    size_t len;
    char *bytes; /* name, then item; owned */
} job_t;

typedef struct failure {
    uint64_t first, last;
    es_err_t err;
    es_detail_t why;
} failure_t;

typedef struct waiter {
    atomic_int fd; /* -1: does not wait */
} waiter_t;

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
    job_t *v;
    size_t n, cap, bytes;
    bool wanted; /* a block of numbers */
    bool answered;
    uint64_t above; /* what its last number has to exceed */
    uint64_t block, block_end;
    bool closing;
    failure_t failures[FAILURES];
    size_t failure_count;

    uint64_t next, end; /* the intake's: numbers that it may give out */

    atomic_uint_fast64_t settled, lost;
    waiter_t *waiters;
};

/* ---- results ---- */

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

static void add_failure(es_history_t *h, uint64_t first, uint64_t last, es_err_t err,
                        const char *why)
{
    failure_t *f;

    pthread_mutex_lock(&h->lock);
    f = h->failure_count > 0 ? &h->failures[h->failure_count - 1] : NULL;
    if (f && f->err == err && first >= f->first && first <= f->last + 1) {
        f->last = last > f->last ? last : f->last;
    }
    else {
        if (h->failure_count == FAILURES) {
            if (h->failures[0].first < h->failures[1].first) {
                h->failures[1].first = h->failures[0].first;
            }
            memmove(h->failures, h->failures + 1, (FAILURES - 1) * sizeof *h->failures);
            h->failure_count--;
        }
        f = &h->failures[h->failure_count++];
        *f = (failure_t) { .first = first, .last = last, .err = err };
        (void)es_fail(&f->why, err, "%s", why);
    }
    pthread_mutex_unlock(&h->lock);
}

void es_history_miss(es_history_t *history, uint64_t number, es_err_t err, const char *why)
{
    uint64_t lost = atomic_load(&history->lost);

    add_failure(history, number, number, err, why);
    while (lost < number && !atomic_compare_exchange_weak(&history->lost, &lost, number)) {}
}

es_err_t es_history_result(es_history_t *history, uint64_t first, uint64_t last,
                           es_detail_t *detail)
{
    es_err_t err = ES_OK;
    size_t i;

    pthread_mutex_lock(&history->lock);
    for (i = 0; i < history->failure_count && err == ES_OK; i++) {
        const failure_t *f = &history->failures[i];

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

void es_history_await(es_history_t *history, int waiter, int fd)
{
    atomic_store(&history->waiters[waiter].fd, fd);
}

/* ---- the writer ---- */

static void lose(es_history_t *h, const job_t *v, size_t n, es_err_t err, const es_detail_t *why)
{
    uint64_t lost = atomic_load(&h->lost);
    const uint64_t last = v[n - 1].number;

    add_failure(h, v[0].number, last, err, why->text);
    while (lost < last && !atomic_compare_exchange_weak(&h->lost, &lost, last)) {}
}

static es_store_item_t item_of(const job_t *job)
{
    return (es_store_item_t) { .seq = job->number,
                               .channel = { job->bytes, job->name_len },
                               .ms = job->ms,
                               .bytes = { job->bytes + job->name_len, job->len - job->name_len } };
}

/* Writes a group with one commit. One item that the store does not take must not cost the others:
 * they are tried one by one then. When there is no room that would not help. */
static void append(es_history_t *h, const job_t *v, size_t n)
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
    if (err != ES_OK) {
        lose(h, v, n, err, &detail);
    }
}

/* How many from `v` on make one commit? */
static size_t group(const es_history_t *h, const job_t *v, size_t n)
{
    size_t i, bytes = 0;

    for (i = 0; i < n && i < GROUP_MAX && v[i].what == JOB_PUT; i++) {
        bytes += v[i].len;
        if (i > 0 && bytes > h->group_bytes) {
            break;
        }
    }
    return i;
}

static void clear(es_history_t *h, const job_t *job)
{
    const es_str_t name = { job->bytes, job->name_len };
    es_detail_t detail;
    es_err_t err = ES_OK;

    if (job->what == JOB_CLEAR) {
        err = es_store_clear(h->store, name, &detail);
    }
    if (err != ES_OK) {
        add_failure(h, job->number, job->number, err, detail.text);
    }
}

static void work_off(es_history_t *h, job_t *v, size_t n)
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
    for (i = 0; i < n; i++) {
        free(v[i].bytes);
    }
}

/* With the lock held, which is let go meanwhile. */
static void fetch_block(es_history_t *h)
{
    const uint64_t above = h->above;
    uint64_t first = 0, n = BLOCK;
    es_detail_t detail;
    es_err_t err;

    pthread_mutex_unlock(&h->lock);
    err = es_store_take(h->store, n, &first, &detail);
    if (err == ES_OK && first + n - 1 <= above) { /* ids went on without the store for a while */
        n = above - first + BLOCK;
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

static void *writer(void *arg)
{
    es_history_t *h = arg;

    pthread_mutex_lock(&h->lock);
    while (h->n > 0 || h->wanted || !h->closing) {
        job_t *v = h->v;
        const size_t n = h->n;

        if (h->wanted) {
            fetch_block(h);
        }
        else if (n > 0) {
            h->v = NULL;
            h->n = 0;
            h->cap = 0;
            h->bytes = 0;
            pthread_cond_signal(&h->room);
            pthread_mutex_unlock(&h->lock);
            work_off(h, v, n);
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
    if (h->end - h->next == BLOCK / 2) {
        pthread_mutex_lock(&h->lock);
        want_block(h, h->end);
        pthread_mutex_unlock(&h->lock);
    }
    return h->next++;
}

static es_err_t push(es_history_t *h, const job_t *job)
{
    es_err_t err = ES_OK;

    pthread_mutex_lock(&h->lock);
    while (h->n >= QUEUE_MAX || h->bytes >= QUEUE_BYTES) {
        pthread_cond_wait(&h->room, &h->lock);
    }
    if (h->n == h->cap) {
        const size_t cap = h->cap > 0 ? 2 * h->cap : 64;
        job_t *grown = realloc(h->v, cap * sizeof *grown);

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

static es_err_t give(es_history_t *h, job_t *job, es_str_t channel, es_str_t bytes)
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
    job_t job = { .number = number, .ms = ms };

    return give(history, &job, channel, bytes);
}

es_err_t es_history_clear(es_history_t *history, uint64_t number, es_str_t channel)
{
    job_t job = { .number = number, .what = JOB_CLEAR };

    return give(history, &job, channel, (es_str_t) { "", 0 });
}

es_err_t es_history_skip(es_history_t *history, uint64_t number)
{
    job_t job = { .number = number, .what = JOB_SKIP };

    return give(history, &job, (es_str_t) { "", 0 }, (es_str_t) { "", 0 });
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
    if (err == ES_OK && pthread_create(&h->thread, NULL, writer, h) != 0) {
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
