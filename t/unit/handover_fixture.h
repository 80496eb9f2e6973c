/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file handover_fixture.h
 * Hubs that follow one another at one door, as at a restart: fx_hub_next() starts a real next hub
 * in a thread, fx_heir() is the other end of a hand-over for a test that plays the next hub itself.
 */
#ifndef ES_HANDOVER_FIXTURE_H
#define ES_HANDOVER_FIXTURE_H

#include "hub_fixture.h"

#define LAG ((size_t)ES_HUB_LAG_DEFAULT)

/** Knocks for everything that the hub has. Returns where it comes. */
static inline int fx_heir(const fx_hub_t *hub)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_knock(hub->door, ES_WIRE_HAND_OVER, 1, pair[1]), ES_OK);
    close(pair[1]);
    return pair[0];
}

/** Every knock before is read, once this one is answered. */
static inline void fx_door_read(fx_hub_t *hub)
{
    const int link = fx_link(hub);

    assert_true(fx_stat(link, "streams") >= 0);
    close(link);
}

/** A hub at the door of `old` that takes its streams from `predecessor`. */
static inline void fx_hub_after(fx_hub_t *next, const fx_hub_t *old, int threads, size_t max_lag,
                                int predecessor)
{
    memset(next, 0, sizeof *next);
    next->fds = old->fds;
    next->door = dup(old->door);
    atomic_store(&next->ahead_ms, atomic_load(&old->ahead_ms));
    fx_hub_make(next, threads, max_lag, old->config.pull, old->config.pull_count,
                dup(old->config.door));
    next->config.predecessor = predecessor;
    assert_int_equal(pthread_create(&next->thread, NULL, fx_hub_thread, next), 0);
}

/** The next hub; the one before goes on until it has asked. */
static inline void fx_hub_next(fx_hub_t *next, const fx_hub_t *old, int threads, size_t max_lag)
{
    fx_hub_after(next, old, threads, max_lag, fx_heir(old));
}

/** A client's end of a new pair whose other end, with the smallest buffer, the hub holds. */
static inline int fx_small_client(int link)
{
    const int size = 1;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE), ES_OK);
    close(pair[1]);
    return pair[0];
}

/** One item with an id, and more members (", \"prev-id\": ...") or "". */
static inline es_err_t fx_publish_id(int link, const char *channel, const char *content,
                                     const char *more)
{
    char text[1024];
    const int n = snprintf(text, sizeof text,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"content\": \"%s\"}}%s}]}",
                           channel, content, more);

    return fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { text, (size_t)n }, NULL);
}

static inline es_err_t fx_publish_close(int link, const char *channel)
{
    char text[256];
    const int n = snprintf(text, sizeof text,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"action\": \"close\"}}}]}",
                           channel);

    return fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { text, (size_t)n }, NULL);
}

/** 1000 bytes, so that a socket is soon full: the channel, zeros, the number. */
static inline void number_text(char *to, const char *channel, int number)
{
    char digits[16];
    const int n = snprintf(digits, sizeof digits, "%d\n", number);

    memset(to, '0', 1000);
    memcpy(to, channel, strlen(channel));
    memcpy(to + 1000 - n, digits, (size_t)n);
    to[1000] = '\0';
}

static inline void publish_numbers(int link, const char *channel, int from, int to)
{
    char content[1001];
    int i;

    for (i = from; i < to; i++) {
        number_text(content, channel, i);
        assert_int_equal(fx_publish(link, channel, content), ES_OK);
    }
}

/** Reads up to the last number of a channel; each comes once and in its place. */
static inline void read_numbers(int fd, const char *channel, int from, int to)
{
    char want[1001];
    int i;

    for (i = from; i < to; i++) {
        number_text(want, channel, i);
        fx_check_next(fd, (es_str_t) { want, 1000 }, __FILE__, __LINE__);
    }
}

#endif
