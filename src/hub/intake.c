/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intake: the one thread through which everything enters the hub, and so the one order of
 * things.
 *
 *   door ──HELLO──▶ links ──RESERVE, HOLD, PUBLISH──▶ ┌────────┐ ──orders──▶ loop 0 ┐
 *   ZeroMQ PULL ──────────items──────────────────────▶│ intake │ ──orders──▶ loop 1 │
 *                          ended streams ────────────▶└────────┘ ◀───────────────────┘
 *
 * A reservation is an order in the same queue as the publishes, so what is published after the
 * answer to RESERVE reaches the stream and what was published before does not; there is nothing in
 * between.
 */
#include "intake_int.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    EVENTS = 128,
    EXPECT_MS = 60 * 1000, /* how long a restart may take until the next hub knocks */
    LOOK_MS = 1000         /* how often something is tried or looked at again */
};

es_err_t es_intake_watch(es_intake_t *intake, es_source_t *source)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = source };

    return epoll_ctl(intake->epoll, EPOLL_CTL_ADD, source->fd, &ev) == 0 ? ES_OK : ES_EIO;
}

/* A hub that started slowly and was overtaken by this one: it is told so, and ends. Or our own
 * knock, which the hub before died too early to hear. */
static bool is_late(const es_intake_t *intake, uint32_t generation, int heir)
{
    if (heir < 0 || generation > intake->config->generation) {
        return false;
    }
    (void)es_wire_reply(heir, 0, ES_ENOENT, es_str(""));
    close(heir);
    return true;
}

/* The next hub is there. */
static void on_heir(es_intake_t *intake, uint32_t generation, int heir)
{
    if (is_late(intake, generation, heir)) {
        return;
    }
    intake->expect_until_ms = 0;
    if (heir < 0) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0351",
               "the next hub speaks another wire version: the streams end here");
        intake->done = true;
        return;
    }
    switch (es_hand_over(intake, heir)) {
    case ES_OK:
        intake->heir = heir;
        intake->done = true;
        return;
    case ES_EIO: /* it has died; everything is as it was */
        break;
    default:
        intake->done = true;
        break;
    }
    close(heir);
}

static void on_knock(es_intake_t *intake, const es_wire_knock_t *knock)
{
    switch (knock->type) {
    case ES_WIRE_HELLO:
        (void)es_link_open(intake, knock->fd);
        break;
    case ES_WIRE_EXPECT: /* one that a hub before was to hear is none of ours */
        if (knock->number == intake->config->generation) {
            intake->expect_until_ms = es_now(intake->config) + EXPECT_MS;
        }
        break;
    default:
        on_heir(intake, knock->number, knock->fd);
        break;
    }
}

static void on_door(es_intake_t *intake)
{
    es_detail_t detail;
    es_wire_knock_t knock;

    switch (es_wire_open(intake->door.fd, &knock, &detail)) {
    case ES_OK:
        on_knock(intake, &knock);
        break;
    case ES_EIO:
        es_log(&intake->config->log, ES_LOG_NOTICE, "ES0306", "httpd is gone: the hub stops");
        intake->done = true;
        break;
    case ES_EAGAIN:
        break;
    default:
        if (es_tame_admits(intake, &intake->bad_links)) {
            es_log(&intake->config->log, ES_LOG_WARN, "ES0307", "a child's hello is refused: %s",
                   detail.text);
        }
        break;
    }
}

static void on_back(es_intake_t *intake)
{
    uint64_t count;

    if (read(intake->back.wake, &count, sizeof count) > 0) {
        es_intake_take_back(intake);
    }
}

static void on_history(es_intake_t *intake)
{
    uint64_t count;

    if (read(intake->history_source.fd, &count, sizeof count) > 0) {
        intake->history_news = true; /* after the events: an answer that fails closes its link */
    }
}

static void on_source(es_intake_t *intake, es_source_t *source)
{
    switch (source->kind) {
    case ES_SOURCE_DOOR:
        on_door(intake);
        break;
    case ES_SOURCE_STOP:
        intake->done = true;
        break;
    case ES_SOURCE_BACK:
        on_back(intake);
        break;
    case ES_SOURCE_PULL: /* es_pull_receive looks at every socket after the events */
        break;
    case ES_SOURCE_MONITOR:
        es_pull_watch_peers(
            (es_pull_t *)(void *)((char *)source - offsetof(es_pull_t, monitor_source)));
        break;
    case ES_SOURCE_HISTORY:
        on_history(intake);
        break;
    case ES_SOURCE_LINK:
        es_link_readable(intake, (es_link_t *)(void *)source);
        break;
    }
}

static int wait_ms(const es_intake_t *intake)
{
    const int look = intake->pull_retry_ms > 0 || intake->expect_until_ms > 0 ? LOOK_MS : -1;
    const int presence = es_presence_timeout(intake);

    if (intake->pull_more) {
        return 0;
    }
    return presence >= 0 && (look < 0 || presence < look) ? presence : look;
}

/* A restart without a next hub: the module was taken out of the configuration. */
static void check_expected(es_intake_t *intake)
{
    if (intake->expect_until_ms > 0 && es_now(intake->config) >= intake->expect_until_ms) {
        es_log(&intake->config->log, ES_LOG_NOTICE, "ES0352",
               "no next hub came within %d s of the restart: the hub stops", EXPECT_MS / 1000);
        intake->done = true;
    }
}

void es_intake_run(es_intake_t *intake)
{
    struct epoll_event events[EVENTS];

    while (!intake->done) {
        int i, n = epoll_wait(intake->epoll, events, EVENTS, wait_ms(intake));

        for (i = 0; i < n && !intake->done; i++) {
            on_source(intake, events[i].data.ptr);
        }
        if (intake->done) {
            break;
        }
        if (intake->history_news) {
            intake->history_news = false;
            es_events_settled(intake);
        }
        if (intake->pull_retry_ms > 0) {
            es_pull_retry(intake, es_now(intake->config));
        }
        es_pull_receive(intake);
        es_presence_run(intake);
        check_expected(intake);
    }
    if (intake->heir >= 0) {
        es_tail_run(intake, intake->heir);
    }
}

static es_err_t make_loops(es_intake_t *intake, int count)
{
    intake->loops = calloc((size_t)count, sizeof *intake->loops);
    intake->loop_load = calloc((size_t)count, sizeof *intake->loop_load);
    if (!intake->loops || !intake->loop_load) {
        return ES_ENOMEM;
    }
    while (intake->loop_count < count) {
        es_err_t err = es_loop_make(&intake->loops[intake->loop_count], intake->loop_count,
                                    intake->config, &intake->back);

        if (err != ES_OK) {
            return err;
        }
        intake->loop_count++;
    }
    return ES_OK;
}

es_err_t es_intake_start_loops(es_intake_t *intake)
{
    while (intake->running < intake->loop_count) {
        const es_err_t err = es_loop_start(&intake->loops[intake->running]);

        if (err != ES_OK) {
            return err;
        }
        intake->running++;
    }
    return ES_OK;
}

void es_intake_join_loops(es_intake_t *intake, es_order_t last)
{
    const es_command_t order = { .what = last, .fd = -1 };
    int i;

    for (i = 0; i < intake->running; i++) {
        es_intake_command(intake, i, &order);
    }
    for (i = 0; i < intake->running; i++) {
        es_loop_join(&intake->loops[i]);
    }
    intake->running = 0;
}

void es_intake_forget_all(es_intake_t *intake)
{
    int i;

    for (i = 0; i < intake->loop_count; i++) {
        es_loop_forget_all(&intake->loops[i]);
    }
    while (intake->links) {
        intake->links->reserved = NULL;
        es_link_close(intake, intake->links);
    }
    es_intake_take_back(intake);
}

static int loops_wanted(const es_hub_config_t *config)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (config->threads > 0) {
        return config->threads < ES_HUB_THREADS_MAX ? config->threads : ES_HUB_THREADS_MAX;
    }
    return cpus < 1 ? 1 : cpus > 4 ? 4 : (int)cpus;
}

static es_err_t watch_all(es_intake_t *intake)
{
    es_err_t err;

    intake->door = (es_source_t) { ES_SOURCE_DOOR, intake->config->door };
    intake->stop = (es_source_t) { ES_SOURCE_STOP, intake->config->stop };
    intake->back_source = (es_source_t) { ES_SOURCE_BACK, intake->back.wake };
    intake->history_source.kind = ES_SOURCE_HISTORY;
    err = es_intake_watch(intake, &intake->door);
    if (err == ES_OK) {
        err = es_intake_watch(intake, &intake->stop);
    }
    if (err == ES_OK) {
        err = es_intake_watch(intake, &intake->history_source);
    }
    return err == ES_OK ? es_intake_watch(intake, &intake->back_source) : err;
}

es_err_t es_intake_init(es_intake_t *intake, const es_hub_config_t *config)
{
    es_err_t err;

    memset(intake, 0, sizeof *intake);
    intake->back.wake = -1;
    intake->history_source.fd = -1;
    intake->epoll = -1;
    intake->heir = -1;
    intake->predecessor = config->predecessor > 0 ? config->predecessor : -1;
    intake->config = config;
    intake->started_ms = es_now(config);
    pthread_mutex_init(&intake->back.lock, NULL);
    intake->back.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    intake->history_source.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    intake->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (intake->back.wake < 0 || intake->history_source.fd < 0 || intake->epoll < 0) {
        return ES_EIO;
    }
    err = es_events_init(intake);
    if (err == ES_OK) {
        err = make_loops(intake, loops_wanted(config));
    }
    if (err == ES_OK) {
        err = es_registry_make(intake->loop_count, &intake->registry);
    }
    if (err == ES_OK) {
        err = es_limits_make(intake);
    }
    if (err == ES_OK) {
        err = es_presence_make(intake);
    }
    if (err == ES_OK) {
        err = watch_all(intake);
    }
    if (err != ES_OK) {
        return err;
    }
    if (config->predecessor > 0) {
        intake->predecessor = -1;
        es_take_over(intake, config->predecessor);
        if (intake->done) { /* told to stop meanwhile */
            return ES_OK;
        }
    }
    if (!intake->history && !intake->history_broken.text[0]) { /* else the take-over has done it */
        es_events_open(intake);
    }
    err = es_intake_start_loops(intake);
    if (err == ES_OK && config->serves) {
        config->serves(config->life_ctx);
    }
    return err == ES_OK ? es_pull_start(intake) : err;
}

/* Ends all: inputs first, then the loops with their streams, then what they gave back. Works on a
 * half-made intake too. */
void es_intake_destroy(es_intake_t *intake)
{
    int i;

    es_pull_stop(intake);
    es_intake_join_loops(intake, ES_ORDER_STOP);
    es_events_close(intake);
    for (i = 0; i < intake->loop_count; i++) {
        es_loop_end_all(&intake->loops[i]);
    }
    while (intake->links) {
        intake->links->reserved = NULL; /* its loop has ended it */
        es_link_close(intake, intake->links);
    }
    if (intake->registry) {
        es_intake_take_back(intake);
    }
    for (i = 0; i < intake->loop_count; i++) {
        es_loop_destroy(&intake->loops[i]);
    }
    es_registry_free(intake->registry);
    es_limits_free(intake);
    es_presence_free(intake);
    free(intake->loops);
    free(intake->loop_load);
    if (intake->heir >= 0) {
        close(intake->heir);
    }
    if (intake->predecessor >= 0) {
        close(intake->predecessor);
    }
    if (intake->epoll >= 0) {
        close(intake->epoll);
    }
    if (intake->back.wake >= 0) {
        close(intake->back.wake);
    }
    if (intake->history_source.fd >= 0) {
        close(intake->history_source.fd);
    }
    pthread_mutex_destroy(&intake->back.lock);
}
