/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file kept_fixture.h
 * A rig (stream_fixture.h) with a history, for tests in which memory fails. One thread plays all:
 * loop, intake, and the history's writer, which is called when the test wants it.
 */
#ifndef ES_KEPT_FIXTURE_H
#define ES_KEPT_FIXTURE_H

#include "stream_fixture.h"

#include "history_int.h"
#include "oom_fixture.h"
#include "store_fixture.h"

static inline int kept_up(void **state)
{
    wx_malloc = __real_malloc;
    json_set_alloc_funcs(__wrap_malloc, free);
    return fx_apr_up(state);
}

typedef struct kept {
    rig_t rig;
    sx_t *x;
} kept_t;

static inline uint64_t kept_wall(void *ctx)
{
    (void)ctx;
    return 1795468999000;
}

static inline void kept_open(kept_t *k)
{
    rig_open(&k->rig, ES_HUB_LAG_DEFAULT);
    k->x = sx_make();
    k->rig.config.history = k->x->dir;
    k->rig.config.wall_ms = kept_wall;
    k->rig.intake.epoll = epoll_create1(EPOLL_CLOEXEC);
    k->rig.intake.history_source.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(es_events_init(&k->rig.intake), ES_OK);
    es_events_open(&k->rig.intake);
    assert_non_null(k->rig.intake.history);
    es_history_finish(k->rig.intake.history); /* its thread; numbers for this test are there */
}

static inline void kept_close(kept_t *k)
{
    es_history_t *history = k->rig.intake.history;

    rig_close(&k->rig);
    k->rig.intake.history = NULL;
    es_history_close(history);
    close(k->rig.intake.epoll);
    close(k->rig.intake.history_source.fd);
    sx_free(k->x);
}

/* The writer works off what there is. Whatever happened, everything is settled then. */
static inline void kept_write(kept_t *k)
{
    (void)es_history_writer(k->rig.intake.history);
    assert_int_equal(es_history_settled(k->rig.intake.history), k->rig.intake.order);
}

/* Rounds of the loop until nothing moves. */
static inline void kept_run(kept_t *k)
{
    int rounds;

    rig_round(&k->rig);
    for (rounds = 0; rounds < 10; rounds++) {
        es_replay_loop_pass(&k->rig.loop, k->rig.now_ms);
    }
}

static inline void kept_publish(kept_t *k, const char *channel, const char *content,
                                es_published_t *ret, long allowed)
{
    char packet[256];
    es_item_t *item = NULL;
    const int n = snprintf(packet, sizeof packet,
                           "J{\"channel\": \"%s\", \"formats\": {\"http-stream\": {\"content\": "
                           "\"data: %s%%%%\\n\\n\", \"content-filters\": [\"build-id\"]}}}",
                           channel, content);

    assert_int_equal(es_item_from_packet(packet, (size_t)n, &item, NULL), ES_OK);
    countdown = allowed;
    es_intake_publish_item(&k->rig.intake, item, ret);
    countdown = -1;
}

#endif
