/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a stream ends, and what the logs are told of it.
 *
 * The error log: a line for each stream; at debug for ends that are ordinary life, at warn where
 * the stream was cut. Of cuts for one reason each loop writes the first ten in ten seconds; when
 * the ten seconds are over one line tells how many were left out. So ten thousand clients that
 * vanish together cost some lines, and none of them is unaccounted for.
 *
 * EventStreamLog: one line for each stream that was held, when it ends, in one write(2). The
 * descriptor appends, so lines of several loops (and of an older hub) do not mix; the child that
 * formatted the line kept it below PIPE_BUF, so that holds for a pipe too. It does not block: what
 * a full pipe does not take is lost and counted. Delivery waits for no log.
 *
 * Expiry: a stream may have a time at which it ends, that of the client's token. It still gets what
 * was published before, nothing newer, and the terminating chunk. A client that does not take it
 * soon is cut. The time is one of the wall clock, which may be set, so that is looked at again and
 * again; what is left is waited for on the wheel's clock.
 *
 * The loop's thread that owns the stream.
 */
#include "hub_int.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINES = 10,          /* of one kind in one window */
    WINDOW = 10000,      /* milliseconds */
    EXPIRY_LOOK = 60000, /* ms between two looks at the wall clock */
    EXPIRY_GRACE = 10000 /* ms that an expired stream has for what waits for it */
};

/* ---- why ---- */

const char *es_end_name(es_end_t end)
{
    static const char *const names[ES_END_COUNT] = {
        [ES_END_CLIENT] = "client",   [ES_END_ACTION] = "action",
        [ES_END_LAG] = "lag",         [ES_END_TIMEOUT] = "timeout",
        [ES_END_ERROR] = "error",     [ES_END_SHUTDOWN] = "shutdown",
        [ES_END_EXPIRED] = "expired", [ES_END_RELEASED] = "released",
    };

    return names[end];
}

static bool is_cut(es_end_t end)
{
    return end == ES_END_LAG || end == ES_END_TIMEOUT || end == ES_END_ERROR;
}

es_end_t es_end_of_error(int err)
{
    if (err == 0 || err == EPIPE || err == ECONNRESET) {
        return ES_END_CLIENT;
    }
    return es_peer_timed_out(err) ? ES_END_TIMEOUT : ES_END_ERROR;
}

es_end_t es_end_of_event(es_stream_t *stream, uint32_t events)
{
    char said[64];
    int rounds = 16;
    ssize_t n = 1;

    if (!stream->carried) {
        return events & EPOLLERR ? es_end_of_error(es_peer_error(stream->fd)) : ES_END_CLIENT;
    }
    while (n > 0 && rounds-- > 0) {
        n = recv(stream->fd, said, sizeof said, MSG_DONTWAIT);
        if (n > 0 && memchr(said, ES_CARRIER_TIMEOUT, (size_t)n)) {
            return ES_END_TIMEOUT;
        }
    }
    return ES_END_CLIENT;
}

/* ---- how much of it ---- */

/* The window begins with its first line. */
static bool admits(es_loop_t *loop, unsigned int *seen)
{
    if (!loop->ends.timer.next) {
        es_wheel_arm(&loop->wheel, &loop->ends.timer, es_now(loop->config) + WINDOW);
    }
    return (*seen)++ < LINES;
}

static unsigned int beyond(unsigned int seen)
{
    return seen > LINES ? seen - LINES : 0;
}

void es_end_loop_report(es_loop_t *loop)
{
    const unsigned int lag = beyond(loop->ends.cut[ES_END_LAG]);
    const unsigned int timeout = beyond(loop->ends.cut[ES_END_TIMEOUT]);
    const unsigned int error = beyond(loop->ends.cut[ES_END_ERROR]);
    const unsigned int lost = beyond(loop->ends.lost);

    if (lag + timeout + error > 0) {
        es_log(&loop->config->log, ES_LOG_WARN, "ES0205",
               "%u more streams were cut and left out here, within %d s: lag %u, timeout %u, "
               "error %u",
               lag + timeout + error, WINDOW / 1000, lag, timeout, error);
    }
    if (lost > 0) {
        es_log(&loop->config->log, ES_LOG_WARN, "ES0207",
               "%u more lines of EventStreamLog were lost within %d s", lost, WINDOW / 1000);
    }
    es_wheel_disarm(&loop->wheel, &loop->ends.timer);
    memset(loop->ends.cut, 0, sizeof loop->ends.cut);
    loop->ends.lost = 0;
}

/* ---- the error log ---- */

static uint64_t duration_ms(const es_stream_t *s)
{
    const uint64_t now = es_wall(s->loop->config);

    return now > s->started_ms ? now - s->started_ms : 0; /* somebody may set the clock back */
}

/* What waits for the stream: the rest of a frame, and what its channels' logs still have. */
static uint64_t bytes_behind(const es_stream_t *s)
{
    uint64_t sum = s->pending ? es_frame_bytes(s->pending, s->chunked).n - s->pending_off : 0;
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        const es_channel_t *c = s->subs[i].channel;
        uint64_t at = s->subs[i].cursor > c->tail ? s->subs[i].cursor : c->tail;

        for (; at < c->head; at++) {
            sum += es_frame_bytes(es_channel_at(c, at)->frame, s->chunked).n;
        }
    }
    return sum;
}

static const char *explain(es_end_t end)
{
    switch (end) {
    case ES_END_LAG:
        return "; it was more than EventStreamMaxLag behind and would have missed messages";
    case ES_END_TIMEOUT:
        return "; it took nothing for EventStreamSendTimeout, or cannot be reached";
    default:
        return "";
    }
}

static void log_error(es_stream_t *s, es_end_t end)
{
    const uint64_t ms = duration_ms(s);
    char more[160] = "";

    if (is_cut(end)) {
        if (!admits(s->loop, &s->loop->ends.cut[end])) {
            return;
        }
        snprintf(more, sizeof more, ", %" PRIu64 " bytes behind%s", bytes_behind(s), explain(end));
    }
    es_log(&s->loop->config->log, is_cut(end) ? ES_LOG_WARN : ES_LOG_DEBUG, "ES0201",
           "stream to %s for %s ended: %s, after %" PRIu64 " bytes in %" PRIu64 ".%03u s%s",
           s->peer ? s->peer : "?", s->uri ? s->uri : "?", es_end_name(end), s->bytes, ms / 1000,
           (unsigned int)(ms % 1000), more);
}

/* ---- EventStreamLog ---- */

static void log_line(es_stream_t *s, es_end_t end)
{
    const es_hub_config_t *config = s->loop->config;
    const char *cut = strchr(s->log, '\n');
    const uint64_t ms = duration_ms(s);
    char line[PIPE_BUF];
    ssize_t sent;
    int n = snprintf(line, sizeof line, "%.*s %" PRIu64 " %s %" PRIu64 ".%03u %s\n",
                     (int)(cut ? cut - s->log : 0), s->log, s->bytes, cut ? cut + 1 : s->log,
                     ms / 1000, (unsigned int)(ms % 1000), es_end_name(end));

    if (n >= (int)sizeof line) { /* no child of ours sends that much */
        n = (int)sizeof line - 1;
        line[n - 1] = '\n';
    }
    do {
        sent = write(config->stream_log, line, (size_t)n);
    } while (sent < 0 && errno == EINTR);
    if (sent == n) {
        return;
    }
    es_count(&s->loop->counters.log_lost, 1);
    if (admits(s->loop, &s->loop->ends.lost)) {
        es_log(&config->log, ES_LOG_WARN, "ES0206", "a line of EventStreamLog is lost: %s",
               sent < 0 ? strerror(errno) : "there was room for a part of it only");
    }
}

void es_end_loop_log(es_stream_t *stream, es_end_t end)
{
    log_error(stream, end);
    if (stream->log && stream->loop->config->stream_log > 0) {
        log_line(stream, end);
    }
}

/* ---- expiry ---- */

uint64_t es_end_loop_expiry_due(const es_stream_t *stream)
{
    const uint64_t wall_ms = es_wall(stream->loop->config);
    uint64_t left_ms = 0;

    if (stream->expired) {
        return stream->expired_ms + EXPIRY_GRACE;
    }
    if (stream->expires_ms > wall_ms) {
        left_ms = stream->expires_ms - wall_ms;
    }
    return es_now(stream->loop->config) + (left_ms < EXPIRY_LOOK ? left_ms : EXPIRY_LOOK);
}

/* The number of the newest message that its loop knows of for it, delivered or not. */
static uint64_t newest_of(const es_stream_t *s)
{
    uint64_t newest = s->replaying && s->until > s->sent ? s->until : s->sent;
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        const es_channel_t *c = s->subs[i].channel;
        const uint64_t order =
            c->head > c->tail ? es_channel_at(c, c->head - 1)->order : c->dropped;

        newest = order > newest ? order : newest;
    }
    return newest;
}

void es_end_loop_expire(es_stream_t *stream, uint64_t now_ms)
{
    if (stream->expired && now_ms >= stream->expired_ms + EXPIRY_GRACE) {
        es_stream_loop_end(stream, ES_END_EXPIRED);
        return;
    }
    if (!stream->expired && es_wall(stream->loop->config) >= stream->expires_ms) {
        stream->final = newest_of(stream);
        stream->expired = true;
        stream->expired_ms = now_ms;
        stream->loop->replay_busy = true; /* if it replays, it is to look whether it has all */
        es_stream_loop_flush(stream, now_ms);
    }
}

/* ---- the end itself ---- */

/* Closes the descriptor. Unread bytes of the client would turn the close into a reset, and a reset
 * may overtake the last bytes that we sent: read them away first. */
static void close_gently(int fd)
{
    char waste[4096];
    int rounds = 16;

    (void)shutdown(fd, SHUT_WR);
    while (rounds-- > 0 && recv(fd, waste, sizeof waste, MSG_DONTWAIT) > 0) {}
    close(fd);
}

/* Takes the stream off everything of the loop's, and puts it with the dead. */
static void leave_loop(es_stream_t *s)
{
    es_loop_t *loop = s->loop;
    uint16_t i;

    if (s->state == ES_STREAM_LIVE) {
        es_count(&loop->counters.streams, -1);
    }
    s->state = ES_STREAM_ENDED;
    es_wheel_disarm(&loop->wheel, &s->timer);
    es_replay_loop_leave(s);
    for (i = 0; i < s->sub_count; i++) {
        es_channel_leave(&s->subs[i]);
    }
    if (s->fd >= 0) {
        /* The close alone does not do it while another process still has a copy of the socket:
         * epoll would go on to tell us of it, with a pointer to a stream that is freed by then. */
        (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    }
    if (s->prev) {
        s->prev->next = s->next;
    }
    else {
        loop->streams = s->next;
    }
    if (s->next) {
        s->next->prev = s->prev;
    }
    s->prev = NULL;
    s->next = loop->dead;
    loop->dead = s;
}

void es_stream_loop_end(es_stream_t *stream, es_end_t end)
{
    if (stream->state == ES_STREAM_ENDED) {
        return;
    }
    es_count(&stream->loop->counters.ended[end], 1); /* before it is missing in `streams` */
    if (stream->state == ES_STREAM_LIVE) {
        es_end_loop_log(stream, end);
    }
    stream->end = (uint8_t)end;
    leave_loop(stream);
    if (stream->fd >= 0) {
        close_gently(stream->fd);
        stream->fd = -1;
    }
}

void es_stream_loop_forget(es_stream_t *stream)
{
    leave_loop(stream);
    if (stream->fd >= 0) {
        close(stream->fd);
        stream->fd = -1;
    }
}
