/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file events_fixture.h
 * Native event streams as a child of httpd asks for them: hold messages with "events", and the ids
 * in the hub's answers.
 */
#ifndef ES_EVENTS_FIXTURE_H
#define ES_EVENTS_FIXTURE_H

#include "handover_fixture.h"
#include "store_fixture.h"

typedef struct ev_reserved {
    char id[ES_EVENT_ID_SIZE];
    bool reset;
} ev_reserved_t;

/** Reserves an event stream on a JSON array of channels. `more` is put into "delivery": "" or
 * ", \"from\": ...". `ret` may be NULL. */
static inline void ev_reserve(int link, const char *framing, const char *channels, const char *more,
                              ev_reserved_t *ret)
{
    char hold[4096];
    char *text = NULL;
    json_t *root;
    const int n = snprintf(hold, sizeof hold,
                           "{\"hold\": {\"mode\": \"stream\", \"channels\": %s}, \"delivery\": "
                           "{\"framing\": \"%s\", \"events\": true%s}}",
                           channels, framing, more);

    assert_in_range(n, 1, sizeof hold - 1);
    if (fx_ask(link, ES_WIRE_RESERVE, (es_str_t) { hold, (size_t)n }, &text) != ES_OK) {
        fail_msg("the reservation is refused: %s", text ? text : "no answer");
    }
    root = json_loads(text, 0, NULL);
    free(text);
    assert_int_equal(json_string_length(json_object_get(root, "id")), ES_EVENT_ID_LEN);
    assert_true(json_is_boolean(json_object_get(root, "reset")));
    if (ret) {
        snprintf(ret->id, sizeof ret->id, "%s", json_string_value(json_object_get(root, "id")));
        ret->reset = json_is_true(json_object_get(root, "reset"));
    }
    json_decref(root);
}

static inline int ev_subscribe_as(int link, const char *framing, const char *channels,
                                  const char *more, ev_reserved_t *ret)
{
    ev_reserve(link, framing, channels, more, ret);
    return fx_hold_fd(link);
}

/** The same on one channel, raw. */
static inline int ev_subscribe(int link, const char *channel, const char *more, ev_reserved_t *ret)
{
    char channels[256];

    snprintf(channels, sizeof channels, "[{\"name\": \"%s\"}]", channel);
    return ev_subscribe_as(link, "raw", channels, more, ret);
}

/** The id of the one event that the answer tells; empty: none. */
static inline void ev_take_id(const char *answer, char ret_id[ES_EVENT_ID_SIZE])
{
    json_t *root = json_loads(answer, 0, NULL);
    const char *id = json_string_value(json_array_get(json_object_get(root, "ids"), 0));

    snprintf(ret_id, ES_EVENT_ID_SIZE, "%s", id ? id : "");
    json_decref(root);
}

/** Publishes any text as content; `more` are members of the item. Any thread; the hub's code. */
static inline es_err_t ev_try_publish(int link, const char *channel, const char *content,
                                      const char *more, char ret_id[ES_EVENT_ID_SIZE])
{
    json_t *quoted = json_string(content);
    char *text = json_dumps(quoted, JSON_ENCODE_ANY), *answer = NULL;
    const size_t size = strlen(text) + strlen(channel) + strlen(more) + 100;
    char *body = malloc(size);
    const int n = snprintf(body, size,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"content\": %s}}%s}]}",
                           channel, text, more);
    const es_err_t err = fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { body, (size_t)n }, &answer);

    if (err == ES_OK && ret_id) {
        ev_take_id(answer, ret_id);
    }
    free(answer);
    free(body);
    free(text);
    json_decref(quoted);
    return err;
}

static inline void ev_publish(int link, const char *channel, const char *content, const char *more,
                              char ret_id[ES_EVENT_ID_SIZE])
{
    assert_int_equal(ev_try_publish(link, channel, content, more, ret_id), ES_OK);
}

/** An item that asserts content filters; `content` is JSON text without its quotes. */
static inline void ev_publish_filtered(int link, const char *channel, const char *content,
                                       const char *filters, char *ret_id)
{
    char body[1024];
    char *answer = NULL;
    const int n = snprintf(body, sizeof body,
                           "{\"items\": [{\"channel\": \"%s\", \"formats\": {\"http-stream\": "
                           "{\"content\": \"%s\", \"content-filters\": %s}}}]}",
                           channel, content, filters);

    assert_int_equal(fx_ask(link, ES_WIRE_PUBLISH, (es_str_t) { body, (size_t)n }, &answer), ES_OK);
    if (ret_id) {
        ev_take_id(answer, ret_id);
    }
    free(answer);
}

/* ---- hubs with a history ---- */

static inline void ev_hub_start(fx_hub_t *hub, int threads, size_t max_lag, const char *dir)
{
    int pair[2];

    memset(hub, 0, sizeof *hub);
    hub->fds = fx_fd_count();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    hub->door = pair[0];
    fx_hub_make(hub, threads, max_lag, NULL, 0, pair[1]);
    hub->config.history = dir;
    assert_int_equal(pthread_create(&hub->thread, NULL, fx_hub_thread, hub), 0);
}

/** The hub after `old`, which hands over. */
static inline void ev_hub_next(fx_hub_t *next, const fx_hub_t *old, int threads, const char *dir)
{
    memset(next, 0, sizeof *next);
    next->fds = old->fds;
    next->door = dup(old->door);
    fx_hub_make(next, threads, old->config.max_lag, NULL, 0, dup(old->config.door));
    next->config.history = dir;
    next->config.predecessor = fx_heir(old);
    assert_int_equal(pthread_create(&next->thread, NULL, fx_hub_thread, next), 0);
}

/** What a client of a raw stream has read; any thread. */
typedef struct ev_client {
    int fd;
    size_t n;
    char id[ES_EVENT_ID_SIZE]; /* of the last event */
    char buf[8192];
} ev_client_t;

/** The next line of the stream, up to its '\n', as text. False: it has ended. */
static inline bool ev_line(ev_client_t *c, char *to, size_t size)
{
    char *end = memchr(c->buf, '\n', c->n);

    while (!end) {
        ssize_t k = c->n < sizeof c->buf && fx_readable(c->fd)
                        ? read(c->fd, c->buf + c->n, sizeof c->buf - c->n)
                        : 0;

        if (k <= 0) {
            return false;
        }
        c->n += (size_t)k;
        end = memchr(c->buf, '\n', c->n);
    }
    snprintf(to, size, "%.*s", (int)(end - c->buf), c->buf);
    c->n -= (size_t)(end + 1 - c->buf);
    memmove(c->buf, end + 1, c->n);
    return true;
}

/** The data (of one line) of the next event, and its id. False: the stream has ended. */
static inline bool ev_next(ev_client_t *c, char *data, size_t size)
{
    char line[4096];

    data[0] = '\0';
    while (ev_line(c, line, sizeof line)) {
        if (line[0] == '\0') {
            return true;
        }
        if (strncmp(line, "id: ", 4) == 0) {
            snprintf(c->id, sizeof c->id, "%.27s", line + 4);
        }
        if (strncmp(line, "data: ", 6) == 0) {
            snprintf(data, size, "%s", line + 6);
        }
    }
    return false;
}

/** The next events have this data: words, separated by blanks. */
static inline void ev_check(ev_client_t *c, const char *words, const char *file, int line)
{
    char data[4096], got[4096] = "";
    size_t n = 0;

    while (n < strlen(words) && ev_next(c, data, sizeof data)) {
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%s", n > 0 ? " " : "", data);
    }
    if (strcmp(got, words) != 0) {
        print_error("%s:%d: got \"%s\", want \"%s\"\n", file, line, got, words);
        _fail(file, line);
    }
}
#define assert_events(c, words) ev_check((c), (words), __FILE__, __LINE__)

/** Publishes each word as an event; `ids` gets their ids. */
static inline void ev_publish_words(int link, const char *channel, const char *words,
                                    char ids[][ES_EVENT_ID_SIZE])
{
    char copy[256], *rest = copy, *word;

    snprintf(copy, sizeof copy, "%s", words);
    for (word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        ev_publish(link, channel, word, "", ids ? *ids++ : NULL);
    }
}

#endif
