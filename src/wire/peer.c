/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client at the other end of a held connection: is it still there?
 *
 * A held connection is idle most of the time, so nothing that is sent tells of a client that
 * vanished without a word; the kernel has to ask for us. Used by whoever owns the client's socket:
 * the hub where the socket moved to it, the child where the hub has one end of a socketpair.
 *
 * Any thread; no state.
 */
#include "es_wire.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    IDLE = 60,     /* seconds of silence before the first probe */
    INTERVAL = 15, /* seconds between two */
    COUNT = 4,     /* probes without an answer that end the connection */
    UNSENT = 128 * 1024
};

static void set(int fd, int level, int option, int value)
{
    /* A socket that does not know the option just goes without: the stream's own timeout is there
     * still. */
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

bool es_peer_is_local(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

void es_peer_watch(int fd, uint64_t timeout_ms)
{
    if (es_peer_is_local(fd)) {
        return;
    }
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, COUNT);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    /* Else the kernel queues some megabytes for a slow reader and tells of room only when a third
     * of them is gone: he would look as if he had stopped. */
    set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT);
}

int es_peer_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof err;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : 0;
}

bool es_peer_timed_out(int err)
{
    return err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH;
}

void es_carrier_broken(int pair, int err)
{
    const char reason = ES_CARRIER_TIMEOUT;

    if (es_peer_timed_out(err)) {
        (void)send(pair, &reason, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}
