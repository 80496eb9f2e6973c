/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroMQ PULL: publishers connect a PUSH socket and send one item in each message (grip.md 3.3).
 *
 * The intake alone uses the sockets. ZMQ_FD becomes readable once for any number of messages, so
 * after every round each socket is asked for more, up to a limit that lets links have their turn.
 *
 * An endpoint may be taken when the hub starts: the bind is tried again every second, and
 * everything else works meanwhile.
 *
 * At a restart this hub unbinds, so that new publishers reach the next one. Those that are
 * connected stay, because a ZeroMQ connection cannot be handed over and what is under way on it
 * would be lost: tail.c. A monitor of each socket tells how many they are.
 */
#include "intake_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum {
    ROUND = 256,         /* messages from one socket in one round */
    RECEIVE_HWM = 10000, /* messages that ZeroMQ keeps for us; then publishers wait */
    RETRY_MS = 1000
};

static void set_int(void *socket, int option, int value)
{
    /* Options of a fresh socket with values in range: there is no way for them to fail. */
    (void)zmq_setsockopt(socket, option, &value, sizeof value);
}

static const char *ipc_path(const es_pull_t *pull)
{
    return strncmp(pull->endpoint, "ipc://", 6) == 0 ? pull->endpoint + 6 : NULL;
}

/* Has ZeroMQ tell who comes and goes, and which descriptor it listens on. */
static bool watch_monitor(es_intake_t *intake, es_pull_t *pull)
{
    const int events = ZMQ_EVENT_LISTENING | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED;
    size_t len = sizeof pull->monitor_source.fd;
    char name[64];

    snprintf(name, sizeof name, "inproc://monitor-%p", pull->socket);
    if (zmq_socket_monitor(pull->socket, name, events) != 0) {
        return false;
    }
    pull->monitor = zmq_socket(intake->zmq, ZMQ_PAIR);
    if (!pull->monitor) {
        return false;
    }
    set_int(pull->monitor, ZMQ_LINGER, 0);
    pull->monitor_source.kind = ES_SOURCE_MONITOR;
    return zmq_connect(pull->monitor, name) == 0 &&
           zmq_getsockopt(pull->monitor, ZMQ_FD, &pull->monitor_source.fd, &len) == 0 &&
           es_intake_watch(intake, &pull->monitor_source) == ES_OK;
}

/* Closes everything; errno stays. */
static void close_pull(es_pull_t *pull)
{
    const char *path = ipc_path(pull);
    const int saved = errno;

    if (pull->monitor) {
        (void)zmq_socket_monitor(pull->socket, NULL, 0);
        (void)zmq_close(pull->monitor);
        pull->monitor = NULL;
    }
    if (pull->socket) {
        (void)zmq_close(pull->socket);
        pull->socket = NULL;
    }
    if (pull->listen_fd >= 0 && path) { /* not given up: the file is still ours */
        es_listener_ipc_remove(path);
    }
    pull->listen_fd = -1;
    pull->peers = 0;
    errno = saved;
}

/* Binds; for ipc:// to a listening socket of our own, which ZeroMQ closes when it has it. */
static bool bind_socket(es_pull_t *pull)
{
    const char *path = ipc_path(pull);
    int fd = -1, saved;

    if (path) {
        fd = es_listener_ipc(path);
        if (fd < 0) {
            return false;
        }
        set_int(pull->socket, ZMQ_USE_FD, fd);
    }
    if (zmq_bind(pull->socket, pull->endpoint) == 0) {
        es_pull_watch_peers(pull); /* tells the descriptor */
        return true;
    }
    saved = zmq_errno();
    if (fd >= 0) {
        close(fd);
        es_listener_ipc_remove(path);
    }
    errno = saved;
    return false;
}

/* Makes the socket and binds it. On failure errno tells, and nothing is left. */
static bool bind_pull(es_intake_t *intake, es_pull_t *pull)
{
    const int64_t max = ES_MAX_PACKET;
    size_t len = sizeof pull->source.fd;

    pull->socket = zmq_socket(intake->zmq, ZMQ_PULL);
    if (!pull->socket) {
        return false;
    }
    set_int(pull->socket, ZMQ_RCVHWM, RECEIVE_HWM);
    set_int(pull->socket, ZMQ_LINGER, 0);
    set_int(pull->socket, ZMQ_IPV6, 1);
    (void)zmq_setsockopt(pull->socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
    if (watch_monitor(intake, pull) && bind_socket(pull) &&
        zmq_getsockopt(pull->socket, ZMQ_FD, &pull->source.fd, &len) == 0 &&
        es_intake_watch(intake, &pull->source) == ES_OK) {
        return true;
    }
    close_pull(pull);
    return false;
}

static void try_bind(es_intake_t *intake, es_pull_t *pull, uint64_t now_ms)
{
    if (pull->socket ? bind_socket(pull) : bind_pull(intake, pull)) {
        es_log(&intake->config->log, ES_LOG_INFO, "ES0320", "EventStreamPull %s: listening",
               pull->endpoint);
        pull->complained = false;
        intake->pull_more =
            true; /* messages may be there already, with no event to come for them */
        return;
    }
    if (!pull->complained) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0321",
               "EventStreamPull %s cannot be bound: %s; it is tried again every second",
               pull->endpoint, zmq_strerror(zmq_errno()));
        pull->complained = true;
    }
    intake->pull_retry_ms = now_ms + RETRY_MS;
}

es_err_t es_pull_start(es_intake_t *intake)
{
    const uint64_t now_ms = es_now(intake->config);
    int i;

    if (intake->config->pull_count == 0) {
        return ES_OK;
    }
    intake->zmq = zmq_ctx_new();
    if (!intake->zmq) {
        return ES_ENOMEM;
    }
    for (i = 0; i < intake->config->pull_count; i++) {
        intake->pull[i].source.kind = ES_SOURCE_PULL;
        intake->pull[i].listen_fd = -1;
        intake->pull[i].endpoint = intake->config->pull[i];
        try_bind(intake, &intake->pull[i], now_ms);
    }
    return ES_OK;
}

void es_pull_stop(es_intake_t *intake)
{
    int i;

    if (!intake->zmq) {
        return;
    }
    for (i = 0; i < intake->config->pull_count; i++) {
        close_pull(&intake->pull[i]);
    }
    (void)zmq_ctx_term(intake->zmq);
    intake->zmq = NULL;
}

void es_pull_retry(es_intake_t *intake, uint64_t now_ms)
{
    int i;

    if (now_ms < intake->pull_retry_ms) {
        return;
    }
    intake->pull_retry_ms = 0;
    for (i = 0; i < intake->config->pull_count; i++) {
        if (intake->pull[i].listen_fd < 0) {
            try_bind(intake, &intake->pull[i], now_ms);
        }
    }
}

/* Drops the other parts of a message. */
static void refuse_parts(es_intake_t *intake, es_pull_t *pull)
{
    es_detail_t detail;
    zmq_msg_t msg;
    int parts = 1, more = 1;

    while (more) {
        zmq_msg_init(&msg);
        more = zmq_msg_recv(&msg, pull->socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&msg);
        zmq_msg_close(&msg);
        parts++;
    }
    (void)es_fail(&detail, ES_EINVAL, "a message of %d parts, 1 is accepted", parts);
    es_intake_refused(intake, pull->endpoint, &detail);
}

bool es_pull_next(es_intake_t *intake, es_pull_t *pull, struct zmq_msg_t *msg)
{
    while (pull->socket) {
        zmq_msg_init(msg);
        if (zmq_msg_recv(msg, pull->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(msg);
            return false;
        }
        if (!zmq_msg_more(msg)) {
            return true;
        }
        zmq_msg_close(msg);
        refuse_parts(intake, pull);
    }
    return false;
}

void es_pull_packet(es_intake_t *intake, const char *from, es_str_t packet)
{
    es_detail_t detail;
    es_item_t *item = NULL;

    if (es_item_from_packet(packet.p, packet.n, &item, &detail) == ES_OK) {
        es_intake_publish(intake, item);
    }
    else {
        es_intake_refused(intake, from, &detail);
    }
}

static bool receive_one(es_intake_t *intake, es_pull_t *pull)
{
    zmq_msg_t msg;

    if (!es_pull_next(intake, pull, &msg)) {
        return false;
    }
    es_pull_packet(intake, pull->endpoint, (es_str_t) { zmq_msg_data(&msg), zmq_msg_size(&msg) });
    zmq_msg_close(&msg);
    return true;
}

void es_pull_receive(es_intake_t *intake)
{
    int i, n;

    intake->pull_more = false;
    for (i = 0; i < intake->config->pull_count; i++) {
        es_pull_t *pull = &intake->pull[i];

        if (!pull->socket) {
            continue;
        }
        for (n = 0; n < ROUND && receive_one(intake, pull); n++) {}
        if (n == ROUND) {
            intake->pull_more = true;
        }
    }
}

/* ---- publishers that come and go ---- */

/* One event of the monitor and its value; 0: there is none. The first part of the message is the
 * event's number (16 bits) and value (32 bits), the second names the endpoint. */
static uint16_t next_event(void *monitor, int32_t *ret_value)
{
    zmq_msg_t msg;
    uint16_t event = 0;
    int more = 1, part;

    for (part = 0; more; part++) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return 0;
        }
        if (part == 0 && zmq_msg_size(&msg) == sizeof event + sizeof *ret_value) {
            const char *p = zmq_msg_data(&msg);

            memcpy(&event, p, sizeof event);
            memcpy(ret_value, p + sizeof event, sizeof *ret_value);
        }
        more = zmq_msg_more(&msg);
        zmq_msg_close(&msg);
    }
    return event;
}

void es_pull_watch_peers(es_pull_t *pull)
{
    int32_t value = -1;
    uint16_t event = pull->monitor ? next_event(pull->monitor, &value) : 0;

    for (; event != 0; event = next_event(pull->monitor, &value)) {
        switch (event) {
        case ZMQ_EVENT_LISTENING:
            pull->listen_fd = value;
            break;
        case ZMQ_EVENT_ACCEPTED:
            pull->peers++;
            break;
        case ZMQ_EVENT_DISCONNECTED:
            pull->peers--;
            break;
        default:
            break;
        }
    }
}

int es_pull_peers(const es_intake_t *intake)
{
    int i, sum = 0;

    for (i = 0; i < intake->config->pull_count; i++) {
        sum += intake->pull[i].peers;
    }
    return sum;
}

/* Without a way to keep the connections, they are cut: their publishers reconnect. */
static void give_up(es_intake_t *intake, es_pull_t *pull)
{
    if (pull->listen_fd >= 0 && es_listener_silence(pull->listen_fd)) {
        pull->listen_fd = -1;
        return;
    }
    es_log(&intake->config->log, ES_LOG_WARN, "ES0322",
           "EventStreamPull %s: its connections cannot be kept over the restart; what is under way "
           "on them may be lost",
           pull->endpoint);
    close_pull(pull);
}

static void receive_all(es_intake_t *intake)
{
    do {
        es_pull_receive(intake);
    } while (intake->pull_more);
}

void es_pull_unbind(es_intake_t *intake)
{
    int i;

    receive_all(intake);
    for (i = 0; i < intake->config->pull_count; i++) {
        es_pull_t *pull = &intake->pull[i];

        es_pull_watch_peers(pull);
        if (pull->socket) {
            give_up(intake, pull);
        }
    }
    intake->pull_retry_ms = 0;
    receive_all(intake);
}

/* ZeroMQ keeps the publishers that it has: this is one more listening socket. */
void es_pull_rebind(es_intake_t *intake)
{
    int i;

    for (i = 0; i < intake->config->pull_count; i++) {
        if (intake->pull[i].listen_fd < 0) {
            try_bind(intake, &intake->pull[i], es_now(intake->config));
        }
    }
}
