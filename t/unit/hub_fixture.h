/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file hub_fixture.h
 * What the tests of layer 2 share: a log that can be asked what was written, reads with a generous
 * time-out, hold messages, and a whole hub in a thread, driven over links as a child drives it.
 *
 * Nothing here sleeps: every wait is a poll() or a condition variable. Functions that assert are
 * for the test's own thread; those that return a bool or a code may run in any.
 */
#ifndef ES_HUB_FIXTURE_H
#define ES_HUB_FIXTURE_H

#include "es_test.h"
#include "intake_int.h"

#include <apr_general.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FX_PATIENCE = 60 * 1000, /* milliseconds: only a test that fails waits that long */
    FX_LINE = 512,
    FX_LINES = 64
};

/* APR is up before the first hub; for cmocka_run_group_tests_name. */
static inline int fx_apr_up(void **state)
{
    (void)state;
    return apr_initialize() == APR_SUCCESS ? 0 : -1;
}

static inline int fx_apr_down(void **state)
{
    (void)state;
    apr_terminate();
    return 0;
}

/* ---- time and log ---- */

static inline uint64_t fx_now_ms(void *ctx)
{
    struct timespec t;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/** The newest lines of a hub's log; written by any of its threads. */
typedef struct fx_log {
    pthread_mutex_t lock;
    pthread_cond_t news;
    size_t n; /* lines so far; line i is in slot i % FX_LINES */
    char line[FX_LINES][FX_LINE];
} fx_log_t;

static inline void fx_log_init(fx_log_t *log)
{
    memset(log, 0, sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->news, NULL);
}

static inline void fx_log_destroy(fx_log_t *log)
{
    pthread_mutex_destroy(&log->lock);
    pthread_cond_destroy(&log->news);
}

__attribute__((format(printf, 4, 0))) static inline void
fx_log_write(void *ctx, int level, const char *id, const char *fmt, va_list args)
{
    fx_log_t *log = ctx;
    char *line;
    int n;

    (void)level;
    pthread_mutex_lock(&log->lock);
    line = log->line[log->n % FX_LINES];
    n = snprintf(line, FX_LINE, "%s: ", id);
    vsnprintf(line + n, (size_t)(FX_LINE - n), fmt, args);
    log->n++;
    if (getenv("ES_TEST_VERBOSE")) {
        fprintf(stderr, "# %s\n", line);
    }
    pthread_cond_broadcast(&log->news);
    pthread_mutex_unlock(&log->lock);
}

static inline size_t fx_log_count_locked(const fx_log_t *log, const char *text)
{
    size_t i = log->n > FX_LINES ? log->n - FX_LINES : 0, found = 0;

    for (; i < log->n; i++) {
        found += strstr(log->line[i % FX_LINES], text) != NULL;
    }
    return found;
}

/** How many of the newest lines hold that text? */
static inline size_t fx_log_count(fx_log_t *log, const char *text)
{
    size_t n;

    pthread_mutex_lock(&log->lock);
    n = fx_log_count_locked(log, text);
    pthread_mutex_unlock(&log->lock);
    return n;
}

/** Waits until that many of the newest lines hold the text. */
static inline bool fx_log_wait(fx_log_t *log, const char *text, size_t n)
{
    struct timespec until;
    bool found;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FX_PATIENCE / 1000;
    pthread_mutex_lock(&log->lock);
    do {
        found = fx_log_count_locked(log, text) >= n;
    } while (!found && pthread_cond_timedwait(&log->news, &log->lock, &until) == 0);
    pthread_mutex_unlock(&log->lock);
    return found;
}

/* ---- descriptors ---- */

/** Open descriptors of this process. */
static inline size_t fx_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

static inline bool fx_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, FX_PATIENCE) == 1;
}

/** Reads exactly n bytes; fewer are returned when the other end closed or nothing comes. */
static inline size_t fx_read(int fd, char *p, size_t n)
{
    size_t got = 0;

    while (got < n && fx_readable(fd)) {
        ssize_t k = read(fd, p + got, n - got);

        if (k > 0) {
            got += (size_t)k;
        }
        else if (k == 0 || (errno != EINTR && errno != EAGAIN)) {
            break;
        }
    }
    return got;
}

/** The next bytes of the stream are these. */
static inline void fx_check_next(int fd, es_str_t want, const char *file, int line)
{
    char *got = malloc(want.n + 1);

    assert_non_null(got);
    es_check_bytes(got, fx_read(fd, got, want.n), want, file, line);
    free(got);
}
#define assert_next(fd, literal) fx_check_next((fd), S(literal), __FILE__, __LINE__)

/** The other end has closed, and there were no more bytes. */
static inline void fx_check_end(int fd, const char *file, int line)
{
    char rest[256];
    size_t n = fx_read(fd, rest, sizeof rest);

    es_check_bytes(rest, n, S(""), file, line);
    if (!fx_readable(fd)) {
        print_error("%s:%d: the stream has not ended\n", file, line);
        _fail(file, line);
    }
}
#define assert_end(fd) fx_check_end((fd), __FILE__, __LINE__)

/** Nothing has come. Only meaningful after something that came later in the hub's order. */
static inline void fx_check_silent(int fd, const char *file, int line)
{
    char c;

    if (recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) != -1 || errno != EAGAIN) {
        print_error("%s:%d: the stream is not silent\n", file, line);
        _fail(file, line);
    }
}
#define assert_silent(fd) fx_check_silent((fd), __FILE__, __LINE__)

/* ---- messages ---- */

/** {"hold": ..., "delivery": ...} for channels given as a JSON array, with more hold members
 * (", \"meta\": {...}") or "". Good until the next call in the same thread. */
static inline es_str_t fx_hold(const char *framing, const char *channels, const char *more)
{
    static _Thread_local char text[16384];
    int n = snprintf(text, sizeof text,
                     "{\"hold\": {\"mode\": \"stream\", \"channels\": %s%s}, "
                     "\"delivery\": {\"framing\": \"%s\", \"peer\": \"192.0.2.1\", "
                     "\"uri\": \"/events\"}}",
                     channels, more, framing);

    assert_in_range(n, 1, sizeof text - 1);
    return (es_str_t) { text, (size_t)n };
}

/* ---- a whole hub ---- */

typedef struct fx_hub {
    pthread_t thread;
    es_hub_config_t config;
    es_err_t result;
    int door; /* the children's end */
    fx_log_t log;
    atomic_uint_fast64_t ahead_ms; /* the hub's clock is so much later than the real one */
    atomic_uint_fast64_t still_ms; /* it stands still at this time; 0: it goes */
    size_t fds;                    /* open before the hub was made */
} fx_hub_t;

static inline uint64_t fx_hub_clock(void *ctx)
{
    fx_hub_t *hub = ctx;
    const uint64_t still_ms = atomic_load(&hub->still_ms);

    return still_ms > 0 ? still_ms : fx_now_ms(NULL) + atomic_load(&hub->ahead_ms);
}

static inline void *fx_hub_thread(void *arg)
{
    fx_hub_t *hub = arg;

    hub->result = es_hub_run(&hub->config);
    return NULL;
}

/** Everything but the thread; `door` is the hub's end of `hub->door`. */
static inline void fx_hub_make(fx_hub_t *hub, int threads, size_t max_lag, const char *const *pull,
                               int pull_count, int door)
{
    fx_log_init(&hub->log);
    hub->config = (es_hub_config_t) {
        .threads = threads,
        .max_lag = max_lag,
        .pull = pull,
        .pull_count = pull_count,
        .door = door,
        .stop = eventfd(0, EFD_CLOEXEC),
        .log = { .write = fx_log_write, .ctx = &hub->log, .level = ES_LOG_DEBUG },
        .now_ms = fx_hub_clock,
        .clock_ctx = hub
    };
    assert_true(hub->config.stop >= 0);
}

static inline void fx_hub_start(fx_hub_t *hub, int threads, size_t max_lag, const char *const *pull,
                                int pull_count)
{
    int pair[2];

    memset(hub, 0, sizeof *hub);
    hub->fds = fx_fd_count();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    hub->door = pair[0];
    fx_hub_make(hub, threads, max_lag, pull, pull_count, pair[1]);
    assert_int_equal(pthread_create(&hub->thread, NULL, fx_hub_thread, hub), 0);
}

#define FX_NOT_COUNTED SIZE_MAX /* for `kept`: another hub runs on */

/** After the thread has returned, by whatever means: every descriptor that the hub made or took is
 * closed again. `kept` are those of the test that are still open. */
static inline void fx_hub_join(fx_hub_t *hub, size_t kept)
{
    assert_int_equal(pthread_join(hub->thread, NULL), 0);
    assert_int_equal(hub->result, ES_OK);
    close(hub->config.door);
    close(hub->config.stop);
    if (hub->door >= 0) {
        close(hub->door);
    }
    fx_log_destroy(&hub->log);
    if (kept != FX_NOT_COUNTED) {
        assert_int_equal(fx_fd_count(), hub->fds + kept);
    }
}

static inline void fx_hub_stop(fx_hub_t *hub, size_t kept)
{
    const uint64_t one = 1;

    assert_int_equal(write(hub->config.stop, &one, sizeof one), sizeof one);
    fx_hub_join(hub, kept);
}

static inline int fx_link(fx_hub_t *hub)
{
    int link = -1;

    assert_int_equal(es_wire_connect(hub->door, &link), ES_OK);
    return link;
}

/** One request and its answer. What the link did wrong is told by another code than the answer's:
 * ES_EIO, ES_EAGAIN. `ret_text` may be NULL. Any thread. */
static inline es_err_t fx_ask(int link, es_wire_type_t type, es_str_t payload, char **ret_text)
{
    static _Atomic uint32_t last;
    const uint32_t number = ++last;
    char *text = NULL;
    size_t len = 0;
    es_err_t code = ES_OK;
    es_err_t err = es_wire_send(link, type, number, payload, -1, FX_PATIENCE);

    if (err == ES_OK) {
        err = es_wire_answer(link, number, FX_PATIENCE, &code, &text, &len);
    }
    if (err != ES_OK) {
        return err;
    }
    if (ret_text) {
        *ret_text = text;
    }
    else {
        free(text);
    }
    return code;
}

/** The hub has closed the link, without an answer. */
static inline void fx_check_link_dead(int link, const char *file, int line)
{
    char c;

    if (!fx_readable(link) || recv(link, &c, 1, MSG_DONTWAIT) > 0) {
        print_error("%s:%d: the link is still open\n", file, line);
        _fail(file, line);
    }
}
#define assert_link_dead(link) fx_check_link_dead((link), __FILE__, __LINE__)

static inline void fx_reserve(int link, es_str_t hold)
{
    char *text = NULL;

    if (fx_ask(link, ES_WIRE_RESERVE, hold, &text) != ES_OK) {
        fail_msg("the reservation is refused: %s", text ? text : "no answer");
    }
    free(text);
}

/** Hands over one end of a new pair; returns the client's. */
static inline int fx_hold_fd(int link)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(es_wire_send(link, ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE), ES_OK);
    close(pair[1]);
    return pair[0];
}

static inline int fx_subscribe(int link, const char *framing, const char *channels,
                               const char *more)
{
    fx_reserve(link, fx_hold(framing, channels, more));
    return fx_hold_fd(link);
}

/** One item with text content. Any thread. */
static inline es_err_t fx_publish(int link, const char *channel, const char *content)
{
    json_t *body = json_pack("{s:[{s:s, s:{s:{s:s}}}]}", "items", "channel", channel, "formats",
                             "http-stream", "content", content);
    char *text = json_dumps(body, 0);
    es_err_t err = fx_ask(link, ES_WIRE_PUBLISH, es_str(text), NULL);

    free(text);
    json_decref(body);
    return err;
}

/** A counter: "streams", or "ended.client" for a member of a member. -1: no such thing. */
static inline json_int_t fx_stat(int link, const char *path)
{
    const char *dot = strchr(path, '.');
    char outer[32];
    char *text = NULL;
    json_t *root, *v;
    json_int_t n = -1;

    if (fx_ask(link, ES_WIRE_STATS, S("json"), &text) != ES_OK) {
        return -1;
    }
    root = json_loads(text, 0, NULL);
    free(text);
    v = json_object_get(root, path);
    if (dot) {
        snprintf(outer, sizeof outer, "%.*s", (int)(dot - path), path);
        v = json_object_get(json_object_get(root, outer), dot + 1);
    }
    if (json_is_integer(v)) {
        n = json_integer_value(v);
    }
    json_decref(root);
    return n;
}

/** Asks until the counter has the value. */
static inline void fx_check_stat(int link, const char *path, json_int_t want, const char *file,
                                 int line)
{
    const uint64_t until = fx_now_ms(NULL) + FX_PATIENCE;
    json_int_t got;

    do {
        got = fx_stat(link, path);
    } while (got != want && fx_now_ms(NULL) < until);
    if (got != want) {
        print_error("%s:%d: %s stays at %lld, want %lld\n", file, line, path, (long long)got,
                    (long long)want);
        _fail(file, line);
    }
}
#define assert_stat(link, path, want) fx_check_stat((link), (path), (want), __FILE__, __LINE__)

#endif
