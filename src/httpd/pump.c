/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pump: the handler's own thread carries the stream's bytes from the hub into the request's output
 * filters, for as long as the stream lives. For connections that can neither be detached nor
 * adopted: HTTP/2 streams, TLS that is not mod_ssl's, clients that have sent more already. It costs
 * one thread a stream, and with HTTP/2 the connection's thread too.
 *
 * The hub writes raw bytes into a socketpair; httpd's filters do the framing. The end of the
 * socketpair is the end of the response.
 *
 * Such a stream cannot outlive its child. When the child stops gracefully, each pump draws a moment
 * within EventStreamDrain at which it ends its stream, so that the clients do not come back all at
 * once. An event stream (SSE) ends between two events: one of which a part has been passed on gets
 * its rest first, as long as the drain lasts. Its last word is a `retry:`, drawn too.
 */
#include "es_httpd.h"

#include "http_connection.h"
#include "apr_portable.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_MAX = 16 * 1024,
    LOOK_MS = 500, /* how often a client that left without a word, or the child's stop, is looked
                      for */
    RETRY_MIN_MS = 1000,
    RETRY_MAX_MS = 3000
};

typedef struct pump {
    request_rec *r;
    apr_bucket_brigade *bb;
    int up;             /* our end of the socketpair */
    bool sse;           /* raw text/event-stream: we may write between events */
    bool begun;         /* something was passed on */
    char tail[3];       /* the end of it */
    apr_time_t due;     /* when to end; 0: the child does not stop */
    apr_time_t drained; /* when to end whatever state the stream is in */
} pump_t;

static bool client_is_gone(request_rec *r, const struct pollfd *client)
{
    return r->connection->aborted ||
           (client->fd >= 0 && (client->revents & (POLLRDHUP | POLLHUP | POLLERR)));
}

/* The socket of the client's own connection; an HTTP/2 stream has none. */
static int client_socket(request_rec *r)
{
    apr_os_sock_t fd = -1;
    apr_socket_t *s = r->connection->master ? NULL : ap_get_conn_socket(r->connection);

    return s && apr_os_sock_get(&fd, s) == APR_SUCCESS ? fd : -1;
}

/* What the client sends is read and thrown away, or its end would wait behind it. False: it is
 * gone.
 */
static bool drop_input(pump_t *p)
{
    apr_status_t rv;

    rv = ap_get_brigade(p->r->connection->input_filters, p->bb, AP_MODE_READBYTES,
                        APR_NONBLOCK_READ, READ_MAX);
    apr_brigade_cleanup(p->bb);
    return rv == APR_SUCCESS || APR_STATUS_IS_EAGAIN(rv) || APR_STATUS_IS_EINTR(rv);
}

/* The GRIP filter keeps the end of the application's answer back, and INFLATE in front of it has
 * seen that end: what the hub writes goes in behind them. */
static ap_filter_t *behind_grip(request_rec *r)
{
    ap_filter_t *f;

    for (f = r->output_filters; f; f = f->next) {
        if (f->frec == es_grip_filter_handle) {
            return f->next;
        }
    }
    return r->output_filters;
}

/* Hands the client what the hub wrote. False: the client is gone; the hub is told when it took
 * nothing for `Timeout`. */
static bool pass_on(pump_t *p, const char *bytes, size_t n)
{
    conn_rec *c = p->r->connection;
    const size_t kept = n < sizeof p->tail ? sizeof p->tail - n : 0;
    apr_status_t rv;

    p->begun = true;
    memmove(p->tail, p->tail + sizeof p->tail - kept, kept);
    memcpy(p->tail + kept, bytes + n - (sizeof p->tail - kept), sizeof p->tail - kept);
    APR_BRIGADE_INSERT_TAIL(p->bb, apr_bucket_transient_create(bytes, n, c->bucket_alloc));
    APR_BRIGADE_INSERT_TAIL(p->bb, apr_bucket_flush_create(c->bucket_alloc));
    rv = ap_pass_brigade(behind_grip(p->r), p->bb);
    apr_brigade_cleanup(p->bb);
    es_carrier_broken(p->up, APR_STATUS_IS_TIMEUP(rv) ? ETIMEDOUT : rv);
    return rv == APR_SUCCESS && !c->aborted;
}

/* ---- the drain ---- */

static bool is_event_stream(request_rec *r)
{
    static const char type[] = "text/event-stream";
    const char *said =
        r->content_type ? r->content_type : apr_table_get(r->headers_out, "Content-Type");

    return said && ap_cstr_casecmpn(said, type, sizeof type - 1) == 0 &&
           !apr_isalnum(said[sizeof type - 1]) && said[sizeof type - 1] != '-';
}

static bool is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

/* Nothing was passed on, or it ended with a blank line. CR, LF and CR LF each end a line. */
static bool between_events(const pump_t *p)
{
    const char a = p->tail[0], b = p->tail[1], c = p->tail[2];

    if (p->begun && c == '\n' && b == '\r') {
        return is_line_end(a);
    }
    return !p->begun || (is_line_end(c) && is_line_end(b));
}

/* Shall the stream end now? The moment is drawn when the child's stop is seen first. */
static bool is_due(pump_t *p)
{
    const es_stopping_t how = es_stopping();
    const apr_interval_time_t drain = es_server_conf(p->r->server)->drain;
    const apr_time_t now = apr_time_now();

    if (how != ES_STOPPING_GRACEFULLY) {
        return how == ES_STOPPING_AT_ONCE;
    }
    if (p->due == 0) {
        p->drained = now + drain;
        p->due = now + apr_time_from_msec(ap_random_pick(0, (apr_uint32_t)apr_time_as_msec(drain)));
    }
    return now >= p->drained || (now >= p->due && (!p->sse || between_events(p)));
}

/* Tells the browser when to come back. */
static void say_retry(pump_t *p)
{
    char line[32];

    if (p->sse && between_events(p) && es_stopping() == ES_STOPPING_GRACEFULLY) {
        pass_on(p, line,
                (size_t)apr_snprintf(line, sizeof line, "retry: %u\n\n",
                                     ap_random_pick(RETRY_MIN_MS, RETRY_MAX_MS)));
    }
}

/* How long to wait for bytes. A stream that is due, but in the middle of an event, waits for its
 * rest, which poll tells. */
static int wait_ms(const pump_t *p)
{
    const apr_time_t now = apr_time_now();
    const apr_time_t next = p->due == 0 ? 0 : now < p->due ? p->due : p->drained;
    const apr_time_t left = next > now ? apr_time_as_msec(next - now) + 1 : 0;

    return p->due == 0 || left > LOOK_MS ? LOOK_MS : (int)left;
}

/* Carries bytes until one side ends or the child stops. */
static void carry(pump_t *p)
{
    struct pollfd fds[2] = { { .fd = p->up, .events = POLLIN },
                             { .fd = client_socket(p->r), .events = POLLIN | POLLRDHUP } };
    char buf[READ_MAX];

    for (;;) {
        ssize_t n = -1;

        if (poll(fds, 2, wait_ms(p)) < 0 && errno != EINTR) {
            return;
        }
        if (client_is_gone(p->r, &fds[1]) || ((fds[1].revents & POLLIN) && !drop_input(p))) {
            return;
        }
        n = recv(p->up, buf, sizeof buf, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return;
        }
        if (n > 0 && !pass_on(p, buf, (size_t)n)) {
            return;
        }
        if (is_due(p)) {
            say_retry(p);
            return;
        }
    }
}

int es_pump(request_rec *r, es_hublink_t *link, bool chunked)
{
    apr_bucket_brigade *bb;
    int pair[2];
    es_err_t err;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        es_hublink_give(link, false);
        return HTTP_SERVICE_UNAVAILABLE;
    }
    err = es_hublink_tell(link, ES_WIRE_HOLD, pair[0]);
    close(pair[0]);
    es_hublink_give(link, err == ES_OK);
    if (chunked) { /* the hub writes the chunks, the last one too */
        ap_remove_output_filter_byhandle(r->output_filters, "CHUNK");
    }
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    if (err == ES_OK) {
        carry(&(pump_t) { .r = r, .bb = bb, .up = pair[1], .sse = !chunked && is_event_stream(r) });
    }
    close(pair[1]);
    r->connection->keepalive = AP_CONN_CLOSE;
    if (chunked) {
        r->eos_sent = 1; /* nothing of httpd's follows */
        return OK;
    }
    /* Also when the hub took nothing: mod_http2 leaves a stream open whose response just stops. */
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(r->connection->bucket_alloc));
    ap_pass_brigade(behind_grip(r), bb);
    return OK;
}
