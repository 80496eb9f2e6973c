/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intake's orders to one loop. The intake appends to a vector, the loop swaps it for an empty
 * one, so the lock is held for a few instructions and a busy loop takes many orders at once. The
 * eventfd is written only when the vector was empty: a loop that has not looked yet is not woken
 * twice.
 *
 * Publishes are bounded in count and in bytes: the intake waits for room. A loop never waits for
 * anything, so room comes. The other orders are bounded by the streams and links that exist. When
 * the vector cannot grow the intake waits, too, for the loop's: no order is lost for want of
 * memory.
 */
#include "hub_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { FIRST = 64 }; /* orders of a new vector */

es_err_t es_queue_init(es_queue_t *queue)
{
    memset(queue, 0, sizeof *queue);
    queue->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (queue->wake < 0) {
        return ES_EIO;
    }
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->room, NULL);
    return ES_OK;
}

void es_queue_destroy(es_queue_t *queue)
{
    if (queue->wake < 0) {
        return;
    }
    close(queue->wake);
    queue->wake = -1;
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->room);
    free(queue->v);
    queue->v = NULL;
}

static es_err_t grow(es_queue_t *q)
{
    const size_t cap = q->cap > 0 ? q->cap * 2 : FIRST;
    es_command_t *v = realloc(q->v, cap * sizeof *v);

    if (!v) {
        return ES_ENOMEM;
    }
    q->v = v;
    q->cap = cap;
    return ES_OK;
}

es_err_t es_queue_push(es_queue_t *queue, const es_command_t *command)
{
    const uint64_t one = 1;
    es_err_t err = ES_OK;
    bool was_empty = false;

    pthread_mutex_lock(&queue->lock);
    while (command->frame && (queue->n >= ES_QUEUE_MAX || queue->bytes >= ES_QUEUE_BYTES)) {
        pthread_cond_wait(&queue->room, &queue->lock);
    }
    while (queue->n == queue->cap && err == ES_OK) {
        err = grow(queue);
        if (err != ES_OK && queue->n > 0 && queue->served) {
            pthread_cond_wait(&queue->room, &queue->lock);
            err = ES_OK;
        }
    }
    if (err == ES_OK) {
        was_empty = queue->n == 0;
        queue->v[queue->n++] = *command;
        queue->bytes += command->frame ? es_frame_cost(command->frame) : 0;
    }
    pthread_mutex_unlock(&queue->lock);
    if (was_empty && write(queue->wake, &one, sizeof one) < 0) {
        /* Only a counter at its maximum refuses, and then it is readable: the loop wakes. */
        return err;
    }
    return err;
}

void es_queue_serve(es_queue_t *queue, es_command_t **v, size_t *cap)
{
    *v = malloc(FIRST * sizeof **v);
    *cap = *v ? FIRST : 0;
    pthread_mutex_lock(&queue->lock);
    queue->served = *v && (queue->cap > 0 || grow(queue) == ES_OK);
    pthread_mutex_unlock(&queue->lock);
}

void es_queue_desert(es_queue_t *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->served = false;
    pthread_cond_signal(&queue->room);
    pthread_mutex_unlock(&queue->lock);
}

size_t es_queue_take(es_queue_t *queue, es_command_t **v, size_t *cap)
{
    es_command_t *taken;
    size_t n, taken_cap;

    pthread_mutex_lock(&queue->lock);
    taken = queue->v;
    taken_cap = queue->cap;
    n = queue->n;
    queue->v = *v;
    queue->cap = *cap;
    queue->n = 0;
    queue->bytes = 0;
    pthread_cond_signal(&queue->room);
    pthread_mutex_unlock(&queue->lock);
    *v = taken;
    *cap = taken_cap;
    return n;
}
