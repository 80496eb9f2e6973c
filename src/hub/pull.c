/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroMQ PULL: publishers connect a PUSH socket and send one item in each message (grip.md 3.3).
 *
 * The intake alone uses the sockets. ZMQ_FD becomes readable once for any number of messages, so
 * after every round each socket is asked for more, up to a limit that lets links have their turn.
 *
 * An endpoint may be taken when the hub starts, most likely by the hub of the configuration before:
 * the bind is tried again every second, and everything else works meanwhile.
 */
#include "hub_int.h"

#include <errno.h>
#include <string.h>
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

/* Makes the socket and binds it. On failure errno tells, and nothing is left. */
static bool bind_pull(es_intake_t *intake, es_pull_t *pull)
{
    const int64_t max = ES_MAX_PACKET;
    size_t len = sizeof pull->source.fd;
    int saved;

    pull->socket = zmq_socket(intake->zmq, ZMQ_PULL);
    if (!pull->socket) {
        return false;
    }
    set_int(pull->socket, ZMQ_RCVHWM, RECEIVE_HWM);
    set_int(pull->socket, ZMQ_LINGER, 0);
    set_int(pull->socket, ZMQ_IPV6, 1);
    (void)zmq_setsockopt(pull->socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
    if (zmq_bind(pull->socket, pull->endpoint) == 0 &&
        zmq_getsockopt(pull->socket, ZMQ_FD, &pull->source.fd, &len) == 0 &&
        es_intake_watch(intake, &pull->source) == ES_OK) {
        return true;
    }
    saved = zmq_errno();
    (void)zmq_close(pull->socket);
    pull->socket = NULL;
    errno = saved;
    return false;
}

static void try_bind(es_intake_t *intake, es_pull_t *pull, uint64_t now_ms)
{
    if (bind_pull(intake, pull)) {
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
        if (intake->pull[i].socket) {
            (void)zmq_close(intake->pull[i].socket);
            intake->pull[i].socket = NULL;
        }
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
        if (!intake->pull[i].socket) {
            try_bind(intake, &intake->pull[i], now_ms);
        }
    }
}

static void take_packet(es_intake_t *intake, es_pull_t *pull, zmq_msg_t *msg)
{
    es_detail_t detail;
    es_item_t *item = NULL;

    if (es_item_from_packet(zmq_msg_data(msg), zmq_msg_size(msg), &item, &detail) == ES_OK) {
        es_intake_publish(intake, item);
    }
    else {
        es_intake_refused(intake, pull->endpoint, &detail);
    }
}

/* Receives one ZeroMQ message with all its parts. False: there is none. */
static bool receive_one(es_intake_t *intake, es_pull_t *pull)
{
    zmq_msg_t msg;
    int parts = 0, more = 0;

    do {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, pull->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return false;
        }
        more = zmq_msg_more(&msg);
        parts++;
        if (parts == 1 && !more) {
            take_packet(intake, pull, &msg);
        }
        zmq_msg_close(&msg);
    } while (more);
    if (parts > 1) {
        es_detail_t detail;

        (void)es_fail(&detail, ES_EINVAL, "a message of %d parts, 1 is accepted", parts);
        es_intake_refused(intake, pull->endpoint, &detail);
    }
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
