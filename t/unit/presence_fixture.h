/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file presence_fixture.h
 * Whole hubs whose clock stands still until the test turns it, members and listeners of the channel
 * "room".
 */
#ifndef ES_PRESENCE_FIXTURE_H
#define ES_PRESENCE_FIXTURE_H

#include "events_fixture.h"

static inline uint64_t stopped_clock(void *ctx)
{
    return 1000000 + atomic_load(&((fx_hub_t *)ctx)->ahead_ms);
}

/** `door`: the hub's end of hub->door; `predecessor` 0: none. */
static inline void launch(fx_hub_t *hub, int door, size_t max_lag, const char *dir, int predecessor)
{
    fx_hub_make(hub, 2, max_lag, NULL, 0, door);
    hub->config.now_ms = stopped_clock;
    hub->config.history = dir;
    hub->config.predecessor = predecessor;
    assert_int_equal(pthread_create(&hub->thread, NULL, fx_hub_thread, hub), 0);
}

/** A first hub that takes everything from what the test writes to *ret_old. */
static inline void start_after(fx_hub_t *hub, int *ret_old)
{
    int door[2], pair[2];

    memset(hub, 0, sizeof *hub);
    hub->fds = fx_fd_count();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    hub->door = door[0];
    launch(hub, door[1], LAG, NULL, pair[0]);
    *ret_old = pair[1];
}

static inline void start_with(fx_hub_t *hub, const fx_hub_t *old, size_t max_lag, const char *dir)
{
    int pair[2];

    memset(hub, 0, sizeof *hub);
    if (old) {
        hub->fds = old->fds;
        pair[0] = dup(old->door);
        pair[1] = dup(old->config.door);
        atomic_store(&hub->ahead_ms, atomic_load(&old->ahead_ms));
    }
    else {
        hub->fds = fx_fd_count();
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    }
    hub->door = pair[0];
    launch(hub, pair[1], max_lag, dir, old ? fx_heir(old) : 0);
}

static inline void start(fx_hub_t *hub, const fx_hub_t *old)
{
    start_with(hub, old, LAG, NULL);
}

/* The intake looks at its clock every 100 ms while something is due. */
static inline void turn(fx_hub_t *hub, uint64_t ms)
{
    atomic_fetch_add(&hub->ahead_ms, ms);
}

/* `name` "": none. */
static inline const char *as(const char *name)
{
    static char more[128];

    snprintf(more, sizeof more, ", \"presence\": {\"grace\": 5000%s%s%s}",
             *name ? ", \"name\": \"" : "", name, *name ? "\"" : "");
    return more;
}

static inline void check_line(ev_client_t *c, const char *want, const char *file, int at)
{
    char line[4096] = "(end)";

    if (!ev_line(c, line, sizeof line) || strcmp(line, want) != 0) {
        print_error("%s:%d: got \"%s\", want \"%s\"\n", file, at, line, want);
        _fail(file, at);
    }
}

/* The next event, without an id. */
static inline void check_told(ev_client_t *c, const char *event, const char *data, const char *file,
                              int at)
{
    char want[8192];

    snprintf(want, sizeof want, "event: %s", event);
    check_line(c, want, file, at);
    snprintf(want, sizeof want, "data: {\"channel\": \"room\", %s}", data);
    check_line(c, want, file, at);
    check_line(c, "", file, at);
}
#define assert_told(c, event, data) check_told((c), (event), (data), __FILE__, __LINE__)

static inline ev_client_t listener(int link)
{
    return (ev_client_t) { .fd = ev_subscribe(link, "room/presence", as(""), NULL) };
}

static inline char *info(int link)
{
    char *text = NULL;

    assert_int_equal(fx_ask(link, ES_WIRE_INFO,
                            S("{\"channel\": \"room/presence\", \"presence\": true}"), &text),
                     ES_OK);
    return text;
}

/* Waits until the intake counts that many streams in the room. */
static inline void check_count(int link, int want, const char *file, int at)
{
    const uint64_t until = fx_now_ms(NULL) + FX_PATIENCE;
    char part[32];
    bool found = false;

    snprintf(part, sizeof part, "{\"count\": %d,", want);
    while (!found && fx_now_ms(NULL) < until) {
        char *text = info(link);

        found = strstr(text, part) != NULL;
        free(text);
    }
    if (!found) {
        print_error("%s:%d: it never counts %d\n", file, at, want);
        _fail(file, at);
    }
}
#define assert_count(link, n) check_count((link), (n), __FILE__, __LINE__)

#endif
