/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/hub/queue.c: one producer, one consumer, bounded for publishes. */
#include "es_test.h"
#include "hub_int.h"
#include "oom_fixture.h"

#include <poll.h>
#include <unistd.h>

static bool wakes(const es_queue_t *q, int timeout_ms)
{
    struct pollfd p = { .fd = q->wake, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

static void drain(const es_queue_t *q)
{
    uint64_t n;

    assert_int_equal(read(q->wake, &n, sizeof n), sizeof n);
}

static void gives_out_what_was_put_in(void **state)
{
    es_queue_t q;
    es_command_t *v = NULL;
    size_t cap = 0, i, n;
    uint64_t next = 0;
    int round;

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    assert_int_equal(es_queue_take(&q, &v, &cap), 0);
    for (round = 0; round < 5; round++) {
        for (i = 0; i < 1000; i++) {
            const es_command_t c = { .what = ES_ORDER_RELEASE, .order = next + i };

            assert_int_equal(es_queue_push(&q, &c), ES_OK);
        }
        n = es_queue_take(&q, &v, &cap);
        assert_int_equal(n, 1000);
        assert_true(cap >= n);
        for (i = 0; i < n; i++) {
            assert_int_equal(v[i].what, ES_ORDER_RELEASE);
            assert_int_equal(v[i].order, next++);
        }
    }
    assert_int_equal(es_queue_take(&q, &v, &cap), 0);
    free(v);
    es_queue_destroy(&q);
    es_queue_destroy(&q);
}

static void wakes_once_for_many(void **state)
{
    const es_command_t c = { .what = ES_ORDER_RELEASE };
    es_queue_t q;
    es_command_t *v = NULL;
    size_t cap = 0;

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    assert_false(wakes(&q, 0));
    es_queue_push(&q, &c);
    assert_true(wakes(&q, 0));
    drain(&q);
    es_queue_push(&q, &c); /* the loop was told and has not looked yet */
    assert_false(wakes(&q, 0));
    assert_int_equal(es_queue_take(&q, &v, &cap), 2);
    es_queue_push(&q, &c);
    assert_true(wakes(&q, 0));
    assert_int_equal(es_queue_take(&q, &v, &cap), 1);
    free(v);
    es_queue_destroy(&q);
}

/* ---- the bounds ---- */

typedef struct producer {
    pthread_t thread;
    es_queue_t *queue;
    es_frame_t *frame;
    size_t count;
    atomic_size_t pushed;
} producer_t;

static void *produce(void *arg)
{
    producer_t *p = arg;
    size_t i;

    for (i = 0; i < p->count; i++) {
        const es_command_t c = { .what = p->frame ? ES_ORDER_PUBLISH : ES_ORDER_HOLD,
                                 .frame = p->frame,
                                 .order = i };

        if (es_queue_push(p->queue, &c) != ES_OK) {
            break;
        }
        atomic_fetch_add(&p->pushed, 1);
    }
    return NULL;
}

/* Takes all that the producer pushes, in order; each take brings `most` at most. */
static void consume(producer_t *p, size_t most)
{
    es_command_t *v = NULL;
    size_t cap = 0, got = 0, i, n;

    assert_int_equal(pthread_create(&p->thread, NULL, produce, p), 0);
    while (got < p->count) {
        assert_true(wakes(p->queue, 60000));
        drain(p->queue);
        n = es_queue_take(p->queue, &v, &cap);
        assert_true(n <= most);
        for (i = 0; i < n; i++) {
            assert_int_equal(v[i].order, got++);
        }
    }
    assert_int_equal(pthread_join(p->thread, NULL), 0);
    assert_int_equal(p->pushed, p->count);
    assert_int_equal(es_queue_take(p->queue, &v, &cap), 0);
    free(v);
}

static void publishes_wait_for_room_by_count(void **state)
{
    es_queue_t q;
    producer_t p = { .queue = &q, .count = ES_QUEUE_MAX * 3 + 17 };

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    p.frame = es_frame_make(S("x"));
    consume(&p, ES_QUEUE_MAX);
    es_frame_unref(p.frame);
    es_queue_destroy(&q);
}

static void publishes_wait_for_room_by_bytes(void **state)
{
    enum { SIZE = 1024 * 1024 };
    es_queue_t q;
    producer_t p = { .queue = &q, .count = 1000 };
    char *content = es_repeat('x', SIZE);

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    p.frame = es_frame_make((es_str_t) { content, SIZE });
    consume(&p, ES_QUEUE_BYTES / SIZE + 1);
    es_frame_unref(p.frame);
    free(content);
    es_queue_destroy(&q);
}

/* Holds, releases and stops never wait: the test would hang if they did. */
static void other_orders_do_not_wait(void **state)
{
    es_queue_t q;
    producer_t p = { .queue = &q, .count = ES_QUEUE_MAX };
    es_command_t *v = NULL;
    size_t cap = 0;

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    p.frame = es_frame_make(S("x"));
    produce(&p);
    es_frame_unref(p.frame);
    p.frame = NULL;
    p.count = 1000;
    produce(&p);
    assert_int_equal(p.pushed, ES_QUEUE_MAX + 1000);
    assert_int_equal(es_queue_take(&q, &v, &cap), ES_QUEUE_MAX + 1000);
    free(v);
    es_queue_destroy(&q);
}

static void keeps_order_between_threads(void **state)
{
    es_queue_t q;
    producer_t p = { .queue = &q, .count = 300000 };

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    consume(&p, p.count);
    es_queue_destroy(&q);
}

enum { ORDERS = 200 };

/* A loop that looks when the first vector is full. */
static void *take_orders(void *arg)
{
    es_queue_t *q = arg;
    es_command_t *v;
    size_t cap, n = 0, had = 0;

    es_queue_serve(q, &v, &cap);
    while (had < ORDERS) {
        pthread_mutex_lock(&q->lock);
        n = q->n;
        pthread_mutex_unlock(&q->lock);
        if (n == 64 || had + n == ORDERS) {
            had += es_queue_take(q, &v, &cap);
        }
    }
    es_queue_desert(q);
    free(v);
    return NULL;
}

/* The vector cannot grow: the intake waits for the loop, and no order is lost. */
static void orders_wait_for_room_that_memory_cannot_give(void **state)
{
    const es_command_t c = { .what = ES_ORDER_RELEASE, .fd = -1 };
    pthread_t thread;
    bool served = false;
    es_queue_t q;
    int i;

    (void)state;
    assert_int_equal(es_queue_init(&q), ES_OK);
    assert_int_equal(pthread_create(&thread, NULL, take_orders, &q), 0);
    while (!served) {
        pthread_mutex_lock(&q.lock);
        served = q.served;
        pthread_mutex_unlock(&q.lock);
    }
    countdown = 0;
    for (i = 0; i < ORDERS; i++) {
        assert_int_equal(es_queue_push(&q, &c), ES_OK);
    }
    countdown = -1;
    assert_int_equal(pthread_join(thread, NULL), 0);
    countdown = 0; /* nobody takes any more */
    for (i = 0; es_queue_push(&q, &c) == ES_OK; i++) {
        assert_true(i < ORDERS);
    }
    countdown = -1;
    es_queue_destroy(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_out_what_was_put_in),
        cmocka_unit_test(wakes_once_for_many),
        cmocka_unit_test(publishes_wait_for_room_by_count),
        cmocka_unit_test(publishes_wait_for_room_by_bytes),
        cmocka_unit_test(other_orders_do_not_wait),
        cmocka_unit_test(keeps_order_between_threads),
        cmocka_unit_test(orders_wait_for_room_that_memory_cannot_give),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
