/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pump: the handler's own thread carries the stream's bytes from the hub into the request's output
 * filters, for as long as the stream lives. For connections that can neither be detached nor
 * adopted: HTTP/2 streams, TLS that is not mod_ssl's, clients that have sent more already. It costs
 * one thread a stream, and with HTTP/2 the connection's thread too.
 *
 * The hub writes raw bytes into a socketpair; httpd's filters do the framing. The end of the
 * socketpair is the end of the response.
 */
#include "es_httpd.h"

#include "ap_mpm.h"
#include "http_connection.h"
#include "apr_portable.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_MAX = 16 * 1024,
    LOOK_MS = 500 /* how often a client that left without a word is looked for */
};

static bool client_is_gone(request_rec *r, const struct pollfd *client)
{
    return r->connection->aborted ||
           (client->fd >= 0 && (client->revents & (POLLRDHUP | POLLHUP | POLLERR)));
}

static bool child_stops(void)
{
    int state = AP_MPMQ_RUNNING;

    return ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING;
}

/* The socket of the client's own connection; an HTTP/2 stream has none. */
static int client_socket(request_rec *r)
{
    apr_os_sock_t fd = -1;
    apr_socket_t *s = r->connection->master ? NULL : ap_get_conn_socket(r->connection);

    return s && apr_os_sock_get(&fd, s) == APR_SUCCESS ? fd : -1;
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
static bool pass_on(request_rec *r, apr_bucket_brigade *bb, int up, const char *p, size_t n)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_status_t rv;

    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_transient_create(p, n, alloc));
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(alloc));
    rv = ap_pass_brigade(behind_grip(r), bb);
    apr_brigade_cleanup(bb);
    es_carrier_broken(up, APR_STATUS_IS_TIMEUP(rv) ? ETIMEDOUT : rv);
    return rv == APR_SUCCESS && !r->connection->aborted;
}

/* Carries bytes until one side ends or the child stops. */
static void carry(request_rec *r, int up)
{
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    struct pollfd p[2] = { { .fd = up, .events = POLLIN },
                           { .fd = client_socket(r), .events = POLLRDHUP } };
    char buf[READ_MAX];

    for (;;) {
        ssize_t n = -1;

        if (poll(p, 2, LOOK_MS) < 0 && errno != EINTR) {
            return;
        }
        if (client_is_gone(r, &p[1])) {
            return;
        }
        n = recv(up, buf, sizeof buf, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return;
        }
        if (n > 0 && !pass_on(r, bb, up, buf, (size_t)n)) {
            return;
        }
        if (child_stops()) {
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
    if (err == ES_OK) {
        carry(r, pair[1]);
    }
    close(pair[1]);
    r->connection->keepalive = AP_CONN_CLOSE;
    if (chunked) {
        r->eos_sent = 1; /* nothing of httpd's follows */
        return OK;
    }
    /* Also when the hub took nothing: mod_http2 leaves a stream open whose response just stops. */
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(r->connection->bucket_alloc));
    ap_pass_brigade(behind_grip(r), bb);
    return OK;
}
