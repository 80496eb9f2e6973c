/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intake: what its thread owns and what the files that run in it offer each other. The loops
 * know nothing of this.
 *
 *   es_registry_t  which channels exist, and which loops have streams on them
 *   es_link_t      a link to a child of httpd
 *   es_pull_t      a ZeroMQ endpoint
 *   es_intake_t    all of it
 */
#ifndef ES_INTAKE_INT_H
#define ES_INTAKE_INT_H

#include "history.h"
#include "hub_int.h"

/* ---- registry.c -------------------------------------------------------------------------------
 */

struct es_entry {
    char *name;
    size_t name_len;
    uint32_t streams; /* over all loops */
    uint32_t events;  /* event streams among them */
    struct {
        es_channel_t *channel; /* NULL: no stream of that loop is on it */
        uint32_t streams;
    } loop[];
};

typedef struct es_registry es_registry_t;

es_err_t es_registry_make(int loops, es_registry_t **ret);
void es_registry_free(es_registry_t *registry);
es_entry_t *es_registry_find(es_registry_t *registry, es_str_t name);
size_t es_registry_count(const es_registry_t *registry);
/* Calls `fn` for each channel until it fails; returns that error. `fn` must not join or leave. */
es_err_t es_registry_each(es_registry_t *registry,
                          es_err_t (*fn)(void *ctx, const es_entry_t *entry), void *ctx);
/* Counts one more stream of that loop on the channel. NULL: out of memory. */
es_channel_t *es_registry_join(es_registry_t *registry, es_str_t name, int loop);
/* Counts one less. When it was the last of its loop, returns true: the caller has the loop free it.
 */
bool es_registry_leave(es_registry_t *registry, es_channel_t *channel, int loop);

/* ---- the intake's thread ----------------------------------------------------------------------
 */

typedef enum es_source_kind {
    ES_SOURCE_DOOR,
    ES_SOURCE_STOP,
    ES_SOURCE_BACK,
    ES_SOURCE_PULL,
    ES_SOURCE_MONITOR,
    ES_SOURCE_HISTORY,
    ES_SOURCE_LINK
} es_source_kind_t;

typedef struct es_source { /* what an epoll event of the intake points to */
    es_source_kind_t kind;
    int fd;
} es_source_t;

typedef struct es_link {
    es_source_t source;
    es_wire_reader_t reader;
    es_stream_t *reserved; /* belongs to its loop; named here until HOLD or RELEASE */
    /* An answer that waits until the history has settled these numbers; nothing more is served
     * before. */
    bool parked;
    uint8_t parked_type; /* es_wire_type_t of the request */
    uint32_t parked_number;
    uint64_t parked_first, parked_last;
    es_buf_t parked_text;
    struct es_link *prev, *next;
} es_link_t;

typedef struct es_pull {
    es_source_t source;
    const char *endpoint;
    void *socket;    /* ZeroMQ PULL; NULL: not bound yet */
    bool complained; /* a failed bind is logged once */
    es_source_t monitor_source;
    void *monitor; /* ZeroMQ PAIR: tells who comes and goes; NULL: nobody does */
    int peers;     /* publishers that are connected */
    int listen_fd; /* ZeroMQ's; -1: no new ones are accepted */
} es_pull_t;

typedef struct es_tame { /* lets the first lines of a kind through, then counts */
    uint64_t window_ms;  /* start of the current window */
    unsigned int seen;
} es_tame_t;

/* What hubs before this one have counted: a restart does not begin at 0. */
typedef struct es_carried {
    uint64_t published, refused;
    uint64_t deliveries, keep_alives, bytes, log_lost;
    uint64_t ended[ES_END_COUNT];
    uint64_t groups, not_kept; /* of histories that are closed */
} es_carried_t;

enum { ES_LINKS_MAX = 8192 };

typedef struct es_presence es_presence_t;

typedef struct es_intake {
    const es_hub_config_t *config;
    int epoll;
    es_source_t door, stop, back_source;
    es_return_t back;
    es_link_t *links;
    size_t link_count;
    void *zmq;
    es_pull_t pull[ES_HUB_PULL_MAX];
    uint64_t pull_retry_ms; /* when to try again the binds that failed; 0: none */
    bool pull_more;         /* a socket has more than one round took */
    es_loop_t *loops;
    int loop_count;
    int running; /* loops that have a thread: all, or when starting and handing over the first ones
                  */
    uint32_t *loop_load; /* streams given to each loop and not back yet */
    es_registry_t *registry;
    es_limits_t *limits; /* streams of each client; NULL: not counted */
    es_presence_t *presence;
    es_tame_t bad_input, bad_links, no_room, too_many, too_many_of_client, not_counted;
    uint64_t order;    /* of the newest message: the number in its event id */
    uint64_t event;    /* the same of the newest that is not fleeting */
    uint64_t instance; /* of event ids: which hub, and those that it took over from, or history */
    es_history_t *history;      /* NULL: off */
    es_detail_t history_broken; /* why there is none though there should be; "": nothing is wrong */
    es_source_t history_source; /* readable when the history has settled something */
    bool history_news;          /* it was */
    bool history_closing;       /* what waits is answered, and nothing more is served */
    uint64_t started_ms;
    uint64_t published, refused, reserved;
    uint64_t not_kept; /* messages that did not get as far as the history's writer */
    es_carried_t carried;
    uint64_t expect_until_ms; /* a restart is under way: end when no next hub came; 0: none is */
    int heir;                 /* the next hub, which has everything now; -1: there is none */
    int predecessor;          /* the hub before, until it is asked; -1: there is none */
    bool done;
} es_intake_t;

/* intake.c */
es_err_t es_intake_init(es_intake_t *intake, const es_hub_config_t *config);
void es_intake_run(es_intake_t *intake);
void es_intake_destroy(es_intake_t *intake);
es_err_t es_intake_watch(es_intake_t *intake, es_source_t *source);
es_err_t es_intake_start_loops(es_intake_t *intake);
void es_intake_join_loops(es_intake_t *intake, es_order_t last); /* HALT or STOP */
void es_intake_forget_all(es_intake_t *intake); /* streams and links: they are another hub's */

/* reserve.c */
es_err_t es_intake_reserve(es_intake_t *intake, es_str_t hold, es_stream_t **ret,
                           es_detail_t *detail);
/* The same for a stream of the hub before; the loops stand still. `fd` -1: reserved only. `rest`:
 * what its client still has to get of a message. `fill` puts what the stream needs into the log of
 * a channel that is new to its loop. Takes `fd` when it succeeds. */
typedef es_err_t (*es_fill_t)(void *ctx, es_loop_t *loop, es_channel_t *channel);
es_err_t es_intake_resume(es_intake_t *intake, es_str_t hold, int fd, es_str_t rest, es_fill_t fill,
                          void *ctx, es_stream_t **ret, es_detail_t *detail);
void es_intake_take_back(es_intake_t *intake); /* ended streams: count, free */

/* limits.c: how many streams there may be */
es_err_t es_limits_make(es_intake_t *intake); /* counts by client when a limit asks for it */
void es_limits_free(es_intake_t *intake);     /* every stream is back */
uint64_t es_limits_streams(const es_intake_t *intake); /* reserved and live */
/* May there be one more, and one more of that client (`peer`, as in es_delivery_t)? ES_EFULL:
 * `detail` names the limit and the numbers; they are logged too. */
es_err_t es_limits_check(es_intake_t *intake, es_detail_t *detail);
es_err_t es_limits_check_client(es_intake_t *intake, const char *peer, es_detail_t *detail);
es_err_t es_limits_add(es_intake_t *intake, es_stream_t *stream); /* whatever the limits say */
void es_limits_remove(es_intake_t *intake, es_stream_t *stream);

/* publish.c */
void es_intake_command(es_intake_t *intake, int loop, const es_command_t *command);
typedef struct es_published {
    uint64_t number; /* of the event; 0: the item is none */
    uint32_t receivers;
} es_published_t;

void es_intake_publish(es_intake_t *intake, es_item_t *item); /* takes the item */
void es_intake_publish_item(es_intake_t *intake, es_item_t *item,
                            es_published_t *ret); /* the same, and tells what became of it */
/* One of the hub's own, about the moment: fleeting. Takes the item. */
es_err_t es_intake_announce(es_intake_t *intake, es_item_t *item);
void es_intake_refused(es_intake_t *intake, const char *from, const es_detail_t *detail);

/* handover.c: gives everything to the next hub and waits for its word. ES_OK: it serves. ES_EIO: it
 * died, and everything is as before. Else nobody knows: the streams that it did not get have to
 * end. */
es_err_t es_hand_over(es_intake_t *intake, int heir);
enum { ES_DONE_NUMBER = 1 }; /* of DONE, and so of the next hub's word */

/* takeover.c: takes everything from the hub before; the loops stand still. Whatever goes wrong is
 * logged, and what came is kept. */
void es_take_over(es_intake_t *intake, int predecessor);

/* kept.c: the messages of the hub before, until the streams that need them are there */
typedef struct es_kept es_kept_t;
es_err_t es_kept_make(es_kept_t **ret);
void es_kept_free(es_kept_t *kept); /* may be NULL */
/* Newest last. Takes the reference when it succeeds. ES_ENOMEM. */
es_err_t es_kept_add(es_kept_t *kept, es_frame_t *frame, uint64_t order);
/* After a message that is lost. The messages of a channel come one after the other, so it may
 * belong to the channel of the one before: what came of that is no longer the end of its log. A
 * stream that needs it is then cut, instead of missing one message. */
void es_kept_forget_last(es_kept_t *kept);
es_err_t es_kept_fill(const es_kept_t *kept, es_channel_t *channel, size_t max_bytes);

/* tail.c: passes on what publishers still push, until the last has gone. */
void es_tail_run(es_intake_t *intake, int heir);

/* link.c; es_link_open returns NULL when there is no room: then `fd` is closed. */
es_link_t *es_link_open(es_intake_t *intake, int fd);
void es_link_close(es_intake_t *intake, es_link_t *link);
void es_link_readable(es_intake_t *intake, es_link_t *link);
void es_link_settled(es_intake_t *intake, es_link_t *link); /* its parked answer, if it is time */

/* events.c: ids, the history, and what is answered about events. */
es_err_t es_events_init(es_intake_t *intake); /* a random instance */
void es_events_open(es_intake_t *intake);     /* the history, if there is to be one */
void es_events_close(es_intake_t *intake);    /* all that was published is settled and answered */
/* Advances the order. Returns the number for an id, 0: it can have none. */
uint64_t es_events_next(es_intake_t *intake);
/* Keeps an item under the newest number (0: it has none, and is lost); settles that in any case. */
void es_events_keep(es_intake_t *intake, const es_item_t *item, uint64_t number);
void es_events_settled(es_intake_t *intake); /* sends the answers that waited */
/* Texts of answers, appended. */
es_err_t es_events_reserved(es_intake_t *intake, es_stream_t *stream, es_buf_t *out);
es_err_t es_events_published(const es_intake_t *intake, const es_published_t *v, size_t n,
                             es_buf_t *out);
es_err_t es_events_info(es_intake_t *intake, es_str_t request, es_buf_t *out, es_detail_t *detail);
es_err_t es_events_clear(es_intake_t *intake, es_str_t request, es_detail_t *detail);

/* presence.c, presence_tell.c: who is on which channel; presence_int.h has the objects. A stream
 * with an attendee joins when it is held. `in`: its channels. */
es_err_t es_presence_make(es_intake_t *intake);
void es_presence_free(es_intake_t *intake); /* NULL is fine; every stream is back */
es_err_t es_presence_attend(es_stream_t *stream, size_t channels, const es_delivery_t *delivery);
/* Before the stream has a loop: who is there is the first thing that it writes. */
es_err_t es_presence_greet(es_intake_t *intake, const es_instruct_t *in, es_stream_t *stream);
void es_presence_join(es_intake_t *intake, es_stream_t *stream);
void es_presence_resume(es_intake_t *intake, es_stream_t *stream); /* joined with another hub */
void es_presence_leave(es_intake_t *intake, es_stream_t *stream);
const char *es_presence_name(const es_stream_t *stream, uint64_t *ret_grace_ms);
/* {"count": ...} of the channel that a presence channel tells of; ES_ENOENT: it is none. */
es_err_t es_presence_state(es_intake_t *intake, es_str_t name, es_buf_t *out);
int es_presence_timeout(const es_intake_t *intake); /* for epoll_wait */
void es_presence_run(es_intake_t *intake);          /* what is due */
/* A hand-over: ", \"owed\": [...]" of DONE, the channels whose listeners have not been told all;
 * and there again, with "event". They are not told at once: who was there may be on the way. */
es_err_t es_presence_owed(es_intake_t *intake, es_buf_t *out);
void es_presence_take_over(es_intake_t *intake, es_str_t done);
void es_presence_doubt(es_intake_t *intake, const es_stream_t *stream); /* it is not handed over */
void es_presence_owe(es_intake_t *intake, es_str_t channel);
void es_presence_owe_all(es_intake_t *intake); /* that have listeners */

/* pull.c */
es_err_t es_pull_start(es_intake_t *intake);
void es_pull_stop(es_intake_t *intake);
void es_pull_retry(es_intake_t *intake, uint64_t now_ms);
void es_pull_receive(es_intake_t *intake);
/* The next message of one part; the caller closes it. False: there is none. */
struct zmq_msg_t;
bool es_pull_next(es_intake_t *intake, es_pull_t *pull, struct zmq_msg_t *msg);
void es_pull_packet(es_intake_t *intake, const char *from, es_str_t packet); /* publishes it */
void es_pull_unbind(es_intake_t *intake);  /* no new publisher; takes what has come */
void es_pull_rebind(es_intake_t *intake);  /* after es_pull_unbind: listen again */
void es_pull_watch_peers(es_pull_t *pull); /* what the monitor has to tell */
int es_pull_peers(const es_intake_t *intake);

/* listener.c */
int es_listener_ipc(const char *path); /* -1: errno tells */
void es_listener_ipc_remove(const char *path);
/* Frees the endpoint of a listening socket that is in an epoll set of this process, whose number
 * stays taken. False: nothing was done. */
bool es_listener_silence(int fd);

/* tame.c: may this line of its kind be logged? */
bool es_tame_admits(es_intake_t *intake, es_tame_t *tame);

/* stats.c: appends the counters, as one JSON object or in Prometheus' text format, and takes them
 * over from the JSON of the hub before. */
void es_stats_carry(es_intake_t *intake, es_str_t json);
es_err_t es_stats_render(es_intake_t *intake, bool prometheus, es_buf_t *out);

#endif
