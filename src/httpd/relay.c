/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay: one thread of a child that carries adopted TLS streams.
 *
 *   hub ──plain bytes──▶ up (socketpair) ──▶ relay ──SSL_write──▶ down (the client's socket)
 *
 * httpd has forgotten these connections. The relay owns the SSL object and both descriptors of
 * each. It never waits on one: what TLS does not take at once stays in `rest`, and while there is a
 * rest nothing more is read from the hub, so a slow client fills the socketpair and is then the
 * hub's business, like any slow reader. It reads what the client sends only to see close_notify,
 * KeyUpdate and the end of the connection. When the hub has ended the stream, the client gets what
 * is left, but only for so long.
 *
 * Threads: es_relay_add is called by whichever thread ends the httpd connection; it only puts the
 * stream on a list, under a lock, and wakes the relay. Everything else is the relay's own thread.
 */
#include "es_httpd.h"
#include "relay.h"

#include <openssl/err.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    READ_MAX = 64 * 1024, /* bytes of the hub's that one write carries */
    LEAVE_MS = 10000,     /* how long a client may take for the rest of a stream that has ended */
    LOOK_MS = 1000        /* how often that is looked at, while there is such a client */
};

typedef struct stream stream_t;

/* What an epoll event points to: one of a stream's two descriptors. */
typedef struct side {
    stream_t *stream; /* NULL: the wake-up */
    int fd;
} side_t;

struct stream {
    side_t up, down;
    SSL *ssl;
    char *rest; /* not yet taken by TLS */
    size_t rest_off, rest_len;
    uint64_t leave_by; /* 0: the hub has not ended it; ms of the monotonic clock */
    bool up_paused;
    bool wants_out; /* EPOLLOUT is asked for on down */
    bool ended;
    stream_t *prev, *next; /* in relay.streams; before that `next` chains fresh, after it dead */
};

static struct relay {
    int epoll;
    int wake; /* eventfd: look at `fresh` and `stop` */
    side_t wake_side;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of the next two */
    stream_t *fresh;      /* handed over, not yet in the poll set */
    bool stop;
    stream_t *streams; /* the relay's thread alone, from here on */
    unsigned leaving;  /* streams with leave_by */
    stream_t *dead;    /* ended in this round, freed at its end: events may still name them */
} relay = { .epoll = -1, .wake = -1, .lock = PTHREAD_MUTEX_INITIALIZER };

static void watch(int op, side_t *side, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = side };

    /* MOD of a descriptor that is in the set cannot fail but for memory; then the stream stalls and
     * the hub cuts it. */
    (void)epoll_ctl(relay.epoll, op, side->fd, &ev);
}

/* ---- the end of a stream ---- */

/* `politely`: everything was written, so the client is told that nothing follows. */
static void stream_end(stream_t *s, bool politely)
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
    close(s->up.fd);
    close(s->down.fd);
    free(s->rest);
    relay.leaving -= s->leave_by != 0;
    if (s->prev) {
        s->prev->next = s->next;
    }
    else {
        relay.streams = s->next;
    }
    if (s->next) {
        s->next->prev = s->prev;
    }
    s->next = relay.dead;
    relay.dead = s;
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
    const uint64_t now = relay.leaving > 0 ? now_ms() : 0;
    stream_t *s, *next;

    for (s = relay.leaving > 0 ? relay.streams : NULL; s; s = next) {
        next = s->next;
        if (s->leave_by != 0 && now >= s->leave_by) {
            stream_end(s, false);
        }
    }
}

static void bury_dead(void)
{
    while (relay.dead) {
        stream_t *s = relay.dead;

        relay.dead = s->next;
        free(s);
    }
}

/* ---- moving bytes ---- */

/* TLS may need the other direction first, in either call: true when the error is only that. */
static bool is_wait(stream_t *s, int result, bool *out)
{
    const int err = SSL_get_error(s->ssl, result);

    *out = err == SSL_ERROR_WANT_WRITE;
    return err == SSL_ERROR_WANT_WRITE || err == SSL_ERROR_WANT_READ;
}

static void want_out(stream_t *s, bool out)
{
    if (out != s->wants_out) {
        s->wants_out = out;
        watch(EPOLL_CTL_MOD, &s->down, EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0u));
    }
}

static void pause_up(stream_t *s, bool paused)
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
static void hub_left(stream_t *s)
{
    if (s->leave_by == 0) {
        s->leave_by = now_ms() + LEAVE_MS;
        relay.leaving++;
        watch(EPOLL_CTL_DEL, &s->up, 0);
    }
}

/* Writes what TLS takes. Returns how much that was; the stream may have ended. */
static size_t write_some(stream_t *s, const char *p, size_t n)
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

static void write_rest(stream_t *s)
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
static void on_up(stream_t *s, uint32_t events)
{
    static char buf[READ_MAX]; /* the relay's thread alone */
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
static void read_client(stream_t *s)
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

static void on_down(stream_t *s, uint32_t events)
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

/* ---- the thread ---- */

static void on_side(side_t *side, uint32_t events)
{
    stream_t *s = side->stream;

    if (!s || s->ended) {
        return;
    }
    if (side == &s->up) {
        on_up(s, events);
    }
    else {
        on_down(s, events);
    }
}

static void adopt_stream(stream_t *s)
{
    struct epoll_event down = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = &s->down };
    struct epoll_event up = { .events = EPOLLIN, .data.ptr = &s->up };

    s->prev = NULL;
    s->next = relay.streams;
    if (s->next) {
        s->next->prev = s;
    }
    relay.streams = s;
    if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, s->down.fd, &down) != 0 ||
        epoll_ctl(relay.epoll, EPOLL_CTL_ADD, s->up.fd, &up) != 0) {
        stream_end(s, true);
        return;
    }
    read_client(s); /* what the SSL object knows already, epoll will not tell */
}

/* False: the thread is to end. */
static bool on_wake(void)
{
    uint64_t count;
    stream_t *s, *next;
    bool stop;

    if (read(relay.wake, &count, sizeof count) < 0) {
        return true; /* EAGAIN: looked at already */
    }
    pthread_mutex_lock(&relay.lock);
    s = relay.fresh;
    relay.fresh = NULL;
    stop = relay.stop;
    pthread_mutex_unlock(&relay.lock);
    for (; s; s = next) {
        next = s->next;
        adopt_stream(s);
    }
    return !stop;
}

/* At its end every stream ends too, each client told properly. */
static void *relay_main(void *arg)
{
    struct epoll_event events[EVENTS];
    bool go_on = true;

    (void)arg;
    prctl(PR_SET_NAME, "es-relay", 0, 0, 0);
    while (go_on) {
        int i, n = epoll_wait(relay.epoll, events, EVENTS, relay.leaving > 0 ? LOOK_MS : -1);

        for (i = 0; i < n; i++) {
            side_t *side = events[i].data.ptr;

            if (side == &relay.wake_side) {
                go_on = on_wake();
            }
            else {
                on_side(side, events[i].events);
            }
        }
        end_overdue();
        bury_dead();
    }
    while (relay.streams) {
        stream_end(relay.streams, true);
    }
    bury_dead();
    return NULL;
}

static void wake_relay(void)
{
    const uint64_t one = 1;

    if (write(relay.wake, &one, sizeof one) < 0) {
        return; /* the counter is full, so the relay wakes anyway */
    }
}

es_err_t es_relay_add(SSL *ssl, int down, int up)
{
    stream_t *s = relay.running ? calloc(1, sizeof *s) : NULL;

    if (!s) {
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(ssl);
        close(down);
        close(up);
        return ES_ENOMEM;
    }
    s->ssl = ssl;
    s->up = (side_t) { .stream = s, .fd = up };
    s->down = (side_t) { .stream = s, .fd = down };
    pthread_mutex_lock(&relay.lock);
    s->next = relay.fresh;
    relay.fresh = s;
    pthread_mutex_unlock(&relay.lock);
    wake_relay();
    return ES_OK;
}

/* The child ends. Runs before any pool of the child goes. Its workers are gone by now; but prefork
 * ends in a signal handler, which may have interrupted es_relay_add in this very thread: then the
 * lock never comes free, and the end of the process has to do. */
static apr_status_t relay_stop(void *data)
{
    enum { TRIES = 100 }; /* of a millisecond */
    int tries = 0;

    (void)data;
    while (pthread_mutex_trylock(&relay.lock) != 0) {
        if (++tries == TRIES) {
            return APR_SUCCESS;
        }
        apr_sleep(apr_time_from_msec(1));
    }
    relay.stop = true;
    pthread_mutex_unlock(&relay.lock);
    wake_relay();
    pthread_join(relay.thread, NULL);
    relay.running = false;
    close(relay.wake);
    close(relay.epoll);
    return APR_SUCCESS;
}

/* With every signal blocked: httpd's handlers, which end the child, are for its own threads. */
static int start_thread(void)
{
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&relay.thread, NULL, relay_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

void es_relay_child_init(apr_pool_t *pchild, server_rec *s)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &relay.wake_side };

    relay.epoll = epoll_create1(EPOLL_CLOEXEC);
    relay.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    relay.wake_side = (side_t) { .fd = relay.wake };
    if (relay.epoll < 0 || relay.wake < 0 ||
        epoll_ctl(relay.epoll, EPOLL_CTL_ADD, relay.wake, &ev) != 0 || start_thread() != 0) {
        ap_log_error(
            APLOG_MARK, APLOG_ERR, errno, s,
            ESLOGNO(0080) "a child has no relay thread: its TLS streams take a worker each");
        return;
    }
    relay.running = true;
    es_raise_descriptor_limit(s);
    apr_pool_pre_cleanup_register(pchild, NULL, relay_stop);
}

bool es_relay_runs(void)
{
    return relay.running;
}
