/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adopted streams: what is done for each, and the set of all.
 *
 *   hub ──plain bytes──▶ up (socketpair) ──▶ relay ──SSL_write──▶ down (the client's socket)
 *
 * httpd has forgotten these connections. Whoever runs this owns the SSL object and both descriptors
 * of each, and never waits on one: what TLS does not take at once stays in `rest`, and while there
 * is a rest nothing more is read from the hub, so a slow client fills the socketpair and is then
 * the hub's business, like any slow reader. What the client sends is read only to see close_notify,
 * KeyUpdate and the end of the connection. When the hub has ended the stream, the client gets what
 * is left, but only for so long.
 *
 * Between two calls each stream is whole: a process that is forked there can go on with all of
 * them.
 */
#include "es_httpd.h"
#include "relay_int.h"

#include <openssl/err.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    READ_MAX = 64 * 1024, /* bytes of the hub's that one write carries */
    LEAVE_MS = 10000,     /* how long a client may take for the rest of a stream that has ended */
    LOOK_MS = 1000        /* how often that is looked at, while there is such a client */
};

static struct adopted_set {
    int epoll;
    es_side_t bell;
    uint64_t leave_ms;
    es_adopted_t *streams;
    unsigned count;
    unsigned leaving;   /* streams with leave_by */
    es_adopted_t *dead; /* ended in this round, freed at its end: events may still name them */
} set = { .epoll = -1, .leave_ms = LEAVE_MS };

static void watch(int op, es_side_t *side, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = side };

    /* MOD of a descriptor that is in the set cannot fail but for memory; then the stream stalls and
     * the hub cuts it. */
    (void)epoll_ctl(set.epoll, op, side->fd, &ev);
}

/* ---- the end of a stream ---- */

/* close() alone does not take a descriptor out of the set while another process has a copy of it: a
 * child that has just forked the keeper, or one that httpd forks for a CGI program. */
static void leave_set(es_side_t *side)
{
    (void)epoll_ctl(set.epoll, EPOLL_CTL_DEL, side->fd, NULL);
    close(side->fd);
}

/* `politely`: everything was written, so the client is told that nothing follows. */
static void stream_end(es_adopted_t *s, bool politely)
{
    if (s->ended) {
        return;
    }
    s->ended = true;
    ERR_clear_error();
    if (politely && s->rest_len == 0) {
        (void)SSL_shutdown(s->ssl); /* sends close_notify; its answer is not waited for */
    }
    SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* keep its session good */
    SSL_free(s->ssl);
    ERR_clear_error();
    leave_set(&s->up);
    leave_set(&s->down);
    free(s->rest);
    set.leaving -= s->leave_by != 0;
    set.count--;
    if (s->prev) {
        s->prev->next = s->next;
    }
    else {
        set.streams = s->next;
    }
    if (s->next) {
        s->next->prev = s->prev;
    }
    s->next = set.dead;
    set.dead = s;
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Clients that did not take the rest of an ended stream in time. */
static void end_overdue(void)
{
    const uint64_t now = set.leaving > 0 ? now_ms() : 0;
    es_adopted_t *s, *next;

    for (s = set.leaving > 0 ? set.streams : NULL; s; s = next) {
        next = s->next;
        if (s->leave_by != 0 && now >= s->leave_by) {
            stream_end(s, false);
        }
    }
}

static void bury_dead(void)
{
    while (set.dead) {
        es_adopted_t *s = set.dead;

        set.dead = s->next;
        free(s);
    }
}

/* ---- moving bytes ---- */

/* TLS may need the other direction first, in either call: true when the error is only that. */
static bool is_wait(es_adopted_t *s, int result, bool *out)
{
    const int err = SSL_get_error(s->ssl, result);

    *out = err == SSL_ERROR_WANT_WRITE;
    return err == SSL_ERROR_WANT_WRITE || err == SSL_ERROR_WANT_READ;
}

static void want_out(es_adopted_t *s, bool out)
{
    if (out != s->wants_out) {
        s->wants_out = out;
        watch(EPOLL_CTL_MOD, &s->down, EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0u));
    }
}

static void pause_up(es_adopted_t *s, bool paused)
{
    if (paused != s->up_paused) {
        s->up_paused = paused;
        if (s->leave_by == 0) {
            watch(EPOLL_CTL_MOD, &s->up, paused ? 0 : EPOLLIN);
        }
        else {
            watch(paused ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, &s->up, EPOLLIN);
        }
    }
}

/* The hub has closed its end, and the client has not taken what came before. epoll reports that
 * even of a paused descriptor, again and again: out of the set until there is room. */
static void hub_left(es_adopted_t *s)
{
    if (s->leave_by == 0) {
        s->leave_by = now_ms() + set.leave_ms;
        set.leaving++;
        watch(EPOLL_CTL_DEL, &s->up, 0);
    }
}

/* Writes what TLS takes. Returns how much that was; the stream may have ended. */
static size_t write_some(es_adopted_t *s, const char *p, size_t n)
{
    size_t done = 0;
    bool out = false;

    while (done < n && !s->ended) {
        size_t k = 0;
        int result;

        ERR_clear_error();
        errno = 0;
        result = SSL_write_ex(s->ssl, p + done, n - done, &k);
        if (result == 1) {
            done += k;
            continue;
        }
        if (!is_wait(s, result, &out)) {
            es_carrier_broken(s->up.fd, errno);
            stream_end(s, false);
            return done;
        }
        break;
    }
    if (!s->ended) {
        want_out(s, done < n && out);
    }
    return done;
}

static void write_rest(es_adopted_t *s)
{
    const size_t done = s->rest_len > 0 ? write_some(s, s->rest + s->rest_off, s->rest_len) : 0;

    if (s->ended) {
        return;
    }
    s->rest_off += done;
    s->rest_len -= done;
    if (s->rest_len == 0) {
        free(s->rest);
        s->rest = NULL;
        pause_up(s, false);
    }
}

/* The hub has bytes for the client: one read, one write; what is left over waits. */
static void on_up(es_adopted_t *s, uint32_t events)
{
    static char buf[READ_MAX]; /* one thread runs this */
    ssize_t n;
    size_t done;

    if (s->rest_len > 0) {
        if (events & (EPOLLHUP | EPOLLERR)) {
            hub_left(s);
        }
        return;
    }
    n = recv(s->up.fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        stream_end(s, n == 0);
        return;
    }
    done = write_some(s, buf, (size_t)n);
    if (s->ended || done == (size_t)n) {
        return;
    }
    s->rest_len = (size_t)n - done;
    s->rest_off = 0;
    s->rest = malloc(s->rest_len);
    if (!s->rest) {
        stream_end(s, false);
        return;
    }
    memcpy(s->rest, buf + done, s->rest_len);
    pause_up(s, true);
}

/* What the client sends is of no interest but for TLS itself: read it away until nothing is left.
 */
static void read_client(es_adopted_t *s)
{
    char waste[4096];
    int rounds = 16; /* a client that floods gets its turn again with the next event */

    while (rounds-- > 0) {
        size_t k = 0;
        bool out;
        int result;

        ERR_clear_error();
        result = SSL_read_ex(s->ssl, waste, sizeof waste, &k);
        if (result == 1) {
            continue;
        }
        if (!is_wait(s, result, &out)) {
            stream_end(s, SSL_get_error(s->ssl, result) == SSL_ERROR_ZERO_RETURN);
        }
        else if (out) {
            want_out(s, true);
        }
        return;
    }
}

static void on_down(es_adopted_t *s, uint32_t events)
{
    if (events & EPOLLERR) {
        es_carrier_broken(s->up.fd, es_peer_error(s->down.fd));
        stream_end(s, false);
    }
    else if (events & EPOLLIN) {
        read_client(s);
    }
    if (!s->ended && (events & (EPOLLRDHUP | EPOLLHUP))) {
        stream_end(s, false);
    }
    if (!s->ended && (s->wants_out || s->rest_len > 0)) {
        if (events & EPOLLOUT) {
            want_out(s, false);
        }
        write_rest(s);
    }
}

/* ---- the set ---- */

static void on_side(es_side_t *side, uint32_t events)
{
    es_adopted_t *s = side->stream;

    if (s->ended) {
        return;
    }
    if (side == &s->up) {
        on_up(s, events);
    }
    else {
        on_down(s, events);
    }
}

static bool add(es_side_t *side, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = side };

    return epoll_ctl(set.epoll, EPOLL_CTL_ADD, side->fd, &ev) == 0;
}

void es_adopted_join(es_adopted_t *s)
{
    s->prev = NULL;
    s->next = set.streams;
    if (s->next) {
        s->next->prev = s;
    }
    set.streams = s;
    set.count++;
    if (!add(&s->down, EPOLLIN | EPOLLRDHUP) || !add(&s->up, EPOLLIN)) {
        stream_end(s, true);
        return;
    }
    read_client(s); /* what the SSL object knows already, epoll will not tell */
}

/* As watch() left each of them in the set before. */
void es_adopted_rejoin(void)
{
    es_adopted_t *s, *next;

    for (s = set.streams; s; s = next) {
        bool ok = add(&s->down, EPOLLIN | EPOLLRDHUP | (s->wants_out ? EPOLLOUT : 0u));

        next = s->next;
        if (ok && (s->leave_by == 0 || !s->up_paused)) {
            ok = add(&s->up, s->up_paused ? 0 : EPOLLIN);
        }
        if (!ok) {
            stream_end(s, true);
        }
    }
    bury_dead();
}

bool es_adopted_open(int bell)
{
    es_adopted_close();
    set.epoll = epoll_create1(EPOLL_CLOEXEC);
    set.bell = (es_side_t) { .fd = bell };
    return set.epoll >= 0 && add(&set.bell, EPOLLIN);
}

void es_adopted_close(void)
{
    if (set.epoll >= 0) {
        close(set.epoll);
        set.epoll = -1;
    }
}

bool es_adopted_wait(unsigned guard)
{
    struct epoll_event events[EVENTS];
    bool rung = false;
    int i, n = epoll_wait(set.epoll, events, EVENTS, set.leaving > 0 ? LOOK_MS : -1);

    if (guard > 0) {
        alarm(guard);
    }
    for (i = 0; i < n; i++) {
        es_side_t *side = events[i].data.ptr;

        if (side == &set.bell) {
            rung = true;
        }
        else {
            on_side(side, events[i].events);
        }
    }
    end_overdue();
    bury_dead();
    if (guard > 0) {
        alarm(0);
    }
    return rung;
}

void es_adopted_leave_within(uint64_t ms)
{
    set.leave_ms = ms;
}

void es_adopted_flush(void)
{
    es_adopted_t *s, *next;

    for (s = set.streams; s; s = next) {
        next = s->next;
        write_rest(s);
    }
    bury_dead();
}

void es_adopted_end_all(void)
{
    while (set.streams) {
        stream_end(set.streams, true);
    }
    bury_dead();
}

unsigned es_adopted_count(void)
{
    return set.count;
}

const es_adopted_t *es_adopted_first(void)
{
    return set.streams;
}

int es_adopted_epoll(void)
{
    return set.epoll;
}
