/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_hub.h
 * Layer 2: the hub, one process that owns every channel, stream, timer and ZeroMQ socket. It knows
 * descriptors, not httpd: whoever runs it (the glue, or a unit test) hands in the door, a
 * descriptor that tells it to stop, a clock and a log.
 *
 *   intake thread    door, links, ZeroMQ; the registry of channels; puts everything that happens
 *                    into one order and hands it to the loops
 *   loop threads     N of them; each owns its streams, their channel logs, a timer wheel, an epoll
 * set
 *
 * A stream belongs to one loop from its reservation to its end. The intake creates it, gives it to
 * the loop, gets it back when it has ended, and frees it.
 *
 * At a restart a hub hands all of this to the next one (handover.c, takeover.c) and ends.
 */
#ifndef ES_HUB_H
#define ES_HUB_H

#include "es_base.h"

#include <sys/types.h>

enum {
    ES_HUB_THREADS_MAX = 64,          /* EventStreamThreads */
    ES_HUB_PULL_MAX = 16,             /* endpoints of EventStreamPull */
    ES_HUB_LAG_DEFAULT = 1024 * 1024, /* EventStreamMaxLag, bytes */
    ES_HUB_LAG_MIN = 16 * 1024,
    ES_HUB_SEND_TIMEOUT_DEFAULT = 60, /* EventStreamSendTimeout, seconds */
    ES_HUB_SEND_TIMEOUT_MAX = 3600
};

typedef struct es_hub_config {
    int threads;     /* loop threads, 1 to ES_HUB_THREADS_MAX; 0: one for each CPU, at most 4 */
    int spare_files; /* descriptors that streams leave free, for links to httpd and ZeroMQ; at most
                      * half of the process' limit is kept */
    size_t max_lag;  /* bytes a stream may be behind its channel before it is cut */
    uint64_t max_streams;     /* EventStreamMaxStreams; 0: as many as there are descriptors */
    uint64_t max_per_client;  /* EventStreamMaxStreamsPerClient; 0: no limit */
    uint64_t send_timeout_ms; /* a stream whose socket takes nothing for so long is cut; 0: never */
    int stream_log;           /* descriptor of EventStreamLog, for appending; 0: none */
    const char *history;      /* directory of EventStreamHistory; NULL: off */
    uint64_t history_bytes;   /* its limits, see es_store_config_t; 0: the default, or none */
    uint64_t history_age_ms;
    uint64_t history_count;
    const char *const *pull; /* ZeroMQ endpoints to bind a PULL socket to */
    int pull_count;
    int door; /* this end of the door (es_wire.h); stays the caller's */
    int stop; /* readable or closed: end every stream cleanly and return; stays the caller's */
    /* 0: none, there is nobody to take streams from. Else the other end of the descriptor that was
     * sent through the door with HAND_OVER; the hub's from now on. */
    int predecessor;
    pid_t predecessor_pid; /* to see that it is dead, and to end it if it hangs; 0: unknown */
    uint64_t patience_ms;  /* for a predecessor that says nothing; 0: 30 s */
    uint32_t generation;   /* of the configuration: nothing is handed to a hub of an older one */
    void (*serves)(void *life_ctx); /* may be NULL: it has its streams and reads the door now */
    void (*leaves)(void *life_ctx); /* may be NULL: the next hub has them all; see tail.c */
    void *life_ctx;
    es_log_t log;
    uint64_t (*now_ms)(void *clock_ctx);  /* monotonic milliseconds; called from every hub thread */
    uint64_t (*wall_ms)(void *clock_ctx); /* milliseconds since 1970; NULL: `now_ms` has to do */
    void *clock_ctx;
} es_hub_config_t;

/**
 * Runs the hub in the calling thread until `stop` is readable, until every other holder of the
 * door is gone, or until the next hub has taken everything and no publisher is left here. The
 * calling thread becomes the intake. ES_OK: stopped as told. ES_EIO, ES_ENOMEM: it could not start;
 * the reason is logged. An endpoint that cannot be bound is logged and tried again every second (an
 * older hub may still hold it); all else goes on meanwhile.
 */
es_err_t es_hub_run(const es_hub_config_t *config);

#endif
