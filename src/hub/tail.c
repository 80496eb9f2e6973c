/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tail: what is left of a hub when the next one has its streams. Publishers that are connected
 * to its ZeroMQ sockets do not notice the restart; a connection of ZeroMQ's cannot be handed over,
 * and to close it would lose the messages that are under way on it. So this process goes on to
 * receive from them and passes each message to the next hub, over the pair on which everything went
 * before, which is an ordinary link there: at the restart after that it goes on to yet another hub,
 * and no chain of tails grows. New publishers connect to the next hub.
 *
 *   publisher ──PUSH──▶ tail ──PACKET──▶ hub        ends with the last publisher, on stop, and when
 *                                                   the hub is gone
 *
 * One thread. Nothing is kept here: a message is taken from ZeroMQ once the one before is answered,
 * so when the hub is slow publishers wait, as they do on the hub's own sockets.
 */
#include "intake_int.h"

#include <stdlib.h>
#include <zmq.h>

enum {
    ANSWER_MS = 10 * 1000, /* for one message; then the hub is gone for us */
    ITEMS = 2 * ES_HUB_PULL_MAX + 2
};

typedef struct tail {
    es_intake_t *intake;
    int heir;
    uint32_t number;
    uint64_t passed_on;
} tail_t;

/* False: the next hub is gone. What it thinks of the message is its own affair. */
static bool pass_on(tail_t *t, zmq_msg_t *msg)
{
    const es_str_t packet = { zmq_msg_data(msg), zmq_msg_size(msg) };
    es_err_t code = ES_OK;
    char *text = NULL;
    size_t len = 0;

    if (es_wire_send(t->heir, ES_WIRE_PACKET, ++t->number, packet, -1, ANSWER_MS) != ES_OK ||
        es_wire_answer(t->heir, t->number, ANSWER_MS, &code, &text, &len) != ES_OK) {
        return false;
    }
    free(text);
    t->passed_on++;
    return true;
}

/* Passes on what the sockets have. */
static bool drain(tail_t *t)
{
    bool good = true;
    zmq_msg_t msg;
    int i;

    for (i = 0; i < t->intake->config->pull_count && good; i++) {
        while (good && es_pull_next(t->intake, &t->intake->pull[i], &msg)) {
            good = pass_on(t, &msg);
            zmq_msg_close(&msg);
        }
    }
    return good;
}

static void watch_peers(es_intake_t *intake)
{
    int i;

    for (i = 0; i < intake->config->pull_count; i++) {
        es_pull_watch_peers(&intake->pull[i]);
    }
}

/* Waits for a message or a publisher that goes. False: the order to stop, or the end of the next
 * hub, which says nothing that it was not asked. */
static bool wait_for_more(const tail_t *t)
{
    const es_hub_config_t *config = t->intake->config;
    zmq_pollitem_t items[ITEMS] = { { .fd = config->stop, .events = ZMQ_POLLIN },
                                    { .fd = t->heir, .events = ZMQ_POLLIN } };
    int i, n = 2;

    for (i = 0; i < config->pull_count; i++) {
        es_pull_t *pull = &t->intake->pull[i];

        if (pull->socket) {
            items[n++] = (zmq_pollitem_t) { .socket = pull->socket, .events = ZMQ_POLLIN };
            items[n++] = (zmq_pollitem_t) { .socket = pull->monitor, .events = ZMQ_POLLIN };
        }
    }
    if (zmq_poll(items, n, -1) < 0) {
        return zmq_errno() == EINTR;
    }
    return items[0].revents == 0 && items[1].revents == 0;
}

void es_tail_run(es_intake_t *intake, int heir)
{
    tail_t t = { .intake = intake, .heir = heir };
    bool good = true;

    watch_peers(intake);
    if (es_pull_peers(intake) > 0) {
        es_log(&intake->config->log, ES_LOG_INFO, "ES0353",
               "%d publishers are still connected to this hub: their messages go on to the next "
               "one until they disconnect",
               es_pull_peers(intake));
    }
    while (good && es_pull_peers(intake) > 0) {
        good = drain(&t) && wait_for_more(&t);
        watch_peers(intake);
    }
    if (good) {
        (void)drain(&t); /* what the last one left */
    }
    es_log(&intake->config->log, ES_LOG_DEBUG, "ES0354", "%llu messages were passed on",
           (unsigned long long)t.passed_on);
}
