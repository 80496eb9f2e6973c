/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub's objects and who owns them.
 *
 * - es_frame_t: one message, immutable, counted by reference, shared by all threads.
 * - es_channel_t: one loop's view of one channel, the log of its newest frames and the
 *   subscriptions on it. Made by the intake, then used by its loop alone, which frees it when told.
 * - es_stream_t: one held connection. Made by the intake, run by its loop, freed by the intake.
 * - es_sub_t: a stream's cursor into one channel's log; part of its stream.
 * - es_entry_t: the intake's record of one channel over all loops.
 * - es_queue_t: the intake's orders to a loop, one producer and one consumer.
 *
 * Threads: a function named *_loop_* or that takes an es_loop_t runs in that loop's thread; one
 * that takes an es_intake_t (intake_int.h) runs in the intake. Frames, queues and counters may be
 * touched by both.
 */
#ifndef ES_HUB_INT_H
#define ES_HUB_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "es_grip.h"
#include "es_hub.h"
#include "es_wire.h"
#include "history.h"

typedef struct es_loop es_loop_t;
typedef struct es_stream es_stream_t;
typedef struct es_channel es_channel_t;
typedef struct es_entry es_entry_t; /* intake_int.h */
typedef struct es_client es_client_t;
typedef struct es_limits es_limits_t;
typedef struct es_attendee es_attendee_t; /* presence.c */

/* ---- frame.c ----------------------------------------------------------------------------------
 */

/* What a frame could make a subscription's filters do; see es_frame_mask_of_filters. When the masks
 * of frame and subscription have no bit in common, the frame goes out as it stands. */
typedef uint32_t es_mask_t;
#define ES_MASK(filter) ((es_mask_t)1 << (filter))
#define ES_MASK_ASSERT                                                                             \
    ((es_mask_t)1 << 31) /* the item asserts content filters; in every subscription */

typedef struct es_frame {
    atomic_uint refs;
    es_action_t action; /* ES_ACTION_SEND or ES_ACTION_CLOSE */
    bool fleeting;      /* the hub's own, about the moment: in no history, without an id */
    es_mask_t mask;
    es_item_t *item; /* owned; its content is moved to `bytes`; NULL for a frame that is no item */
    struct es_frame *event; /* what event streams get: SSE with our id; one reference. NULL: it was
                             * not rendered, since nobody needs it. Empty: they get nothing */
    uint64_t instance;      /* of the id in `event` */
    uint32_t len;           /* of the content */
    uint32_t head_len;      /* of the chunk size line before it; 0: bytes that are framed already */
    char bytes[];           /* size line, content, CRLF: raw framing is a part of chunked framing */
} es_frame_t;

es_frame_t *es_frame_make(es_str_t content);     /* one reference; NULL: out of memory */
es_frame_t *es_frame_verbatim(es_str_t bytes);   /* the rest of one that was written in part */
es_frame_t *es_frame_from_item(es_item_t *item); /* takes the item, also when it fails with NULL */
/* Renders `event`, before anybody else has the frame. `order` 0: without an id. */
es_err_t es_frame_add_event(es_frame_t *frame, uint64_t instance, uint64_t order);
void es_frame_ref(es_frame_t *frame, unsigned int n);
void es_frame_unref(es_frame_t *frame);
es_str_t es_frame_bytes(const es_frame_t *frame, bool chunked); /* what goes to the socket */
es_str_t es_frame_content(const es_frame_t *frame);
size_t es_frame_cost(const es_frame_t *frame); /* bytes that it counts for in a log's bound */
es_frame_t *es_frame_terminator(void);         /* the chunk that ends a body; static, never freed */

/* ---- channel.c --------------------------------------------------------------------------------
 */

typedef struct es_log_entry {
    es_frame_t *frame; /* one reference */
    uint64_t order;    /* the hub-wide order of publishes, to merge channels */
} es_log_entry_t;

typedef struct es_sub {
    es_stream_t *stream;
    es_channel_t *channel;
    uint64_t cursor; /* position in the log of the next frame for this stream */
    char *last_id;   /* newest item id seen here, for build-id; NULL: none */
    uint32_t index;  /* in channel->subs; ES_SUB_OFF: not on it */
    es_mask_t mask;
    bool continuous; /* the application told where its own answer ended (prev-id) */
    bool behind;     /* counted in channel->behind */
    uint8_t filter_count;
    uint8_t filters[ES_MAX_FILTERS];
} es_sub_t;

#define ES_SUB_OFF UINT32_MAX

struct es_channel {
    char *name;
    size_t name_len;
    es_entry_t *entry; /* the intake's; loops leave it alone */

    es_log_entry_t *ring; /* ring_cap slots, a power of two */
    uint32_t ring_cap;
    uint64_t tail; /* position of the oldest frame held */
    uint64_t head; /* position that the next frame gets */
    size_t bytes;  /* cost of the frames held */
    size_t fresh;  /* cost of those that came since the last flush pass */

    es_sub_t **subs;
    uint32_t sub_count;
    uint32_t sub_cap;
    uint32_t behind; /* subscriptions that still need a frame of the log */

    uint64_t dropped; /* order of the newest frame that the log has no more; 0: none */
    uint64_t closed;  /* the same of those that close */
    uint64_t fleeted; /* position behind the newest fleeting frame that the log has no more */

    bool dirty; /* in loop->dirty: moved since the last flush pass */
    es_channel_t *next_dirty;
};

es_channel_t *es_channel_make(es_str_t name, es_entry_t *entry);
void es_channel_free(es_channel_t *channel); /* no subscription may be left */
/* Puts a frame at the head; takes the reference, also on failure. The oldest frames go when the
 * log's cost would pass `max_bytes`; the newest is always kept. */
es_err_t es_channel_append(es_channel_t *channel, es_frame_t *frame, uint64_t order,
                           size_t max_bytes);
/* A message that cannot be put there, out of memory: it counts as one that the log has dropped,
 * with all before it, so that every stream takes it from the history or is cut. `closes`: it was an
 * order to close. */
void es_channel_lose(es_channel_t *channel, uint64_t order, bool closes);
const es_log_entry_t *es_channel_at(const es_channel_t *channel, uint64_t position);
es_err_t es_channel_join(es_channel_t *channel, es_sub_t *sub); /* cursor at the head */
void es_channel_leave(es_sub_t *sub);
void es_channel_settle(es_sub_t *sub);       /* after a flush: is it behind, may the log go? */
void es_channel_rest(es_channel_t *channel); /* a flush pass is over: not dirty any more */

/* ---- wheel.c ----------------------------------------------------------------------------------
 */

typedef struct es_timer {
    struct es_timer *prev, *next; /* NULL: not armed */
    uint64_t due;                 /* tick */
} es_timer_t;

enum {
    ES_WHEEL_TICK = 100, /* milliseconds; timers fire up to one tick late, never early */
    ES_WHEEL_SLOTS = 1024
};

typedef struct es_wheel {
    es_timer_t slots[ES_WHEEL_SLOTS]; /* list heads */
    uint64_t now;                     /* the last tick that was run */
    size_t armed;
} es_wheel_t;

void es_wheel_init(es_wheel_t *wheel, uint64_t now_ms);
void es_wheel_arm(es_wheel_t *wheel, es_timer_t *timer, uint64_t due_ms); /* re-arms an armed one */
void es_wheel_disarm(es_wheel_t *wheel, es_timer_t *timer);
/* Fires what is due. `fire` may arm and disarm any timer. */
void es_wheel_run(es_wheel_t *wheel, uint64_t now_ms, void (*fire)(void *ctx, es_timer_t *timer),
                  void *ctx);
/* Arms it unless it fires before that anyway. */
void es_wheel_arm_by(es_wheel_t *wheel, es_timer_t *timer, uint64_t due_ms);
int es_wheel_timeout(const es_wheel_t *wheel,
                     uint64_t now_ms); /* for epoll_wait; -1: nothing armed */

/* ---- stream.c ---------------------------------------------------------------------------------
 */

typedef enum es_stream_state {
    ES_STREAM_RESERVED = 0,
    ES_STREAM_LIVE,
    ES_STREAM_ENDED
} es_stream_state_t;

typedef enum es_end {
    ES_END_CLIENT = 0, /* the client went away */
    ES_END_ACTION,     /* a publisher said close */
    ES_END_LAG,        /* too slow: it would have missed messages */
    ES_END_TIMEOUT,    /* its socket took nothing for too long, or the network gave it up */
    ES_END_ERROR,      /* a system call failed */
    ES_END_SHUTDOWN,   /* the hub stops */
    ES_END_EXPIRED,    /* its time was up: the client's token */
    ES_END_RELEASED,   /* given up before it was held */
    ES_END_COUNT
} es_end_t;

const char *es_end_name(es_end_t end);

struct es_stream {
    es_loop_t *loop;
    int fd;        /* -1 until held and after the end */
    uint8_t state; /* es_stream_state_t */
    uint8_t end;   /* es_end_t, once ended */
    bool chunked;
    bool blocked;            /* the socket is full: wait for EPOLLOUT */
    bool refused;            /* out of memory at its reservation: ends when it is held */
    bool handed;             /* the next hub was sent it */
    bool carried;            /* fd is a socketpair: a child carries the bytes on to the client */
    bool tracked;            /* frames are looked at for this stream alone, one at a time */
    bool events;             /* a native event stream: it gets the event form of frames */
    bool expired;            /* its time is up: it gets the rest, and ends */
    uint8_t keep_alive_mode; /* es_keep_alive_mode_t */
    uint16_t sub_count;
    uint64_t keep_alive_ms;  /* 0: none */
    uint64_t keep_alive_due; /* when the next is looked at */
    es_frame_t *keep_alive;  /* shared with the streams that have the same; one reference */
    es_frame_t *pending;     /* partly written; one reference */
    size_t pending_off;      /* bytes of it that are gone */
    es_timer_t timer;        /* fires for the next keep-alive, the send timeout or its expiry */
    uint64_t last_ms;        /* last delivery, for idle keep-alives */
    uint64_t
        stalled_ms; /* since when the socket has taken nothing although bytes wait; 0: none do */
    uint64_t started_ms;     /* when its request came, wall clock */
    uint64_t expires_ms;     /* when it has to end, wall clock; 0: never */
    uint64_t expired_ms;     /* since when it is `expired`, as `now_ms` */
    uint64_t final;          /* expired: number of the newest message that it still gets */
    uint64_t bytes;          /* written since the hold */
    es_client_t *client;     /* the intake's count of its client's streams; loops leave it alone */
    es_attendee_t *attendee; /* EventStreamPresence; NULL: off. Intake's; free() it */
    bool replaying;    /* its next events come from the history; on loop->replaying once live */
    uint64_t sent;     /* number of the newest event that it was given; see replay.c */
    uint64_t until;    /* replaying: what is to come from the history */
    uint64_t forgiven; /* its client knows that up to here something may be missing */
    es_stream_t *replay_prev, *replay_next;
    es_position_t *from; /* where an event stream wants to begin; NULL: now. Intake's; owned */
    es_pairs_t meta;     /* Grip-Set-Meta */
    char *peer;          /* for logs; may be NULL */
    char *uri;           /* for logs; may be NULL */
    char *log;           /* its line of EventStreamLog, see es_delivery_t; NULL: none */
    es_stream_t *prev,
        *next; /* in loop->streams; once ended, `next` chains loop->dead and the way back */
    es_sub_t subs[];
};

/* Takes meta, peer and uri out of the instruct and the delivery facts. NULL: out of memory. */
es_stream_t *es_stream_make(es_instruct_t *in, es_delivery_t *delivery);
void es_stream_free(es_stream_t *stream); /* ended, or never given to a loop */

void es_stream_loop_flush(es_stream_t *stream, uint64_t now_ms); /* writes all that it can */
/* It is held from now on; `due_ms`: when its next keep-alive is, if it has any. */
void es_stream_loop_start_timer(es_stream_t *stream, uint64_t due_ms);
void es_stream_loop_timer(es_stream_t *stream, uint64_t now_ms); /* its timer fired */
void es_stream_loop_end(es_stream_t *stream, es_end_t end); /* to loop->dead; does nothing twice */
/* Leaves the loop without a word to the client: the next hub has the stream. To loop->dead. */
void es_stream_loop_forget(es_stream_t *stream);

/* ---- replay.c: event streams that read the history ---------------------------------------------
 */

void es_replay_loop_start(es_stream_t *stream); /* it is live now; nothing unless it replays */
void es_replay_loop_leave(es_stream_t *stream); /* off the loop's list, if it is on it */
/* Its logs have lost what it needs: from the history then. False: there is none for it. */
bool es_replay_loop_fall_back(es_stream_t *stream);
void es_replay_loop_pass(es_loop_t *loop, uint64_t now_ms); /* a batch for each */

/* ---- end.c: why streams end, and what the logs are told of it
 * ------------------------------------
 */

typedef struct es_ends { /* of one loop: lets the first lines of a kind through, then counts */
    es_timer_t timer;    /* the window's end; armed by its first line */
    unsigned int cut[ES_END_COUNT];
    unsigned int lost; /* lines of EventStreamLog */
} es_ends_t;

es_end_t es_end_of_error(int err);                              /* of a socket; 0: none */
es_end_t es_end_of_event(es_stream_t *stream, uint32_t events); /* EPOLLRDHUP, EPOLLHUP, EPOLLERR */
void es_end_loop_log(es_stream_t *stream, es_end_t end);        /* error log, EventStreamLog */
void es_end_loop_report(es_loop_t *loop); /* what was left out since the window began */
/* Of a stream with `expires_ms`: when, on the wheel's clock, es_end_loop_expire has to be called.
 * That lets it get the rest and end, if it is time. */
uint64_t es_end_loop_expiry_due(const es_stream_t *stream);
void es_end_loop_expire(es_stream_t *stream, uint64_t now_ms);

/* ---- event.c: a message as native event streams get it ------------------------------------------
 */

/* Appends the http-stream content of an item as SSE with that id (n 0: none). Nothing is appended
 * for an item that native streams do not get. ES_ENOMEM, ES_ETOOBIG. */
es_err_t es_event_render(const es_item_t *item, es_str_t content, es_str_t id, es_buf_t *out);
bool es_event_is_one(const es_item_t *item); /* a message, and not an order to close */

/* ---- deliver.c: what one frame is for one subscription ------------------------------------------
 */

typedef enum es_verdict {
    ES_DELIVER_SHARED,
    ES_DELIVER_OWN,
    ES_DELIVER_SKIP,
    ES_DELIVER_LOST /* out of memory: the stream would miss it */
} es_verdict_t;

/* Runs the subscription's filters. ES_DELIVER_OWN: *ret_own is a frame for this stream alone. */
es_verdict_t es_deliver_filter(es_sub_t *sub, es_frame_t *frame, es_frame_t **ret_own);

/* ---- queue.c ----------------------------------------------------------------------------------
 */

typedef enum es_order {
    ES_ORDER_PUBLISH, /* frame (one reference) to channel; NULL: one that is lost */
    ES_ORDER_RESERVE, /* stream: put it on its channels */
    ES_ORDER_HOLD,    /* stream starts on fd */
    ES_ORDER_RELEASE, /* reserved stream is given up */
    ES_ORDER_FREE,    /* channel has no stream left */
    ES_ORDER_HALT,    /* write what can be written, leave the thread, keep the streams */
    ES_ORDER_STOP     /* end all, leave the thread */
} es_order_t;

typedef struct es_command {
    es_order_t what;
    int fd;
    es_channel_t *channel;
    es_stream_t *stream;
    es_frame_t *frame;
    uint64_t order;
    bool closes; /* without a frame: it was to close */
} es_command_t;

enum {
    ES_QUEUE_MAX = 65536,             /* commands that wait; then the intake waits */
    ES_QUEUE_BYTES = 64 * 1024 * 1024 /* cost of their frames */
};

typedef struct es_queue {
    pthread_mutex_t lock;
    pthread_cond_t room;
    es_command_t *v; /* written by the intake */
    size_t n, cap;
    size_t bytes;
    int wake;    /* eventfd, readable when the queue is not empty */
    bool served; /* a loop takes what is there, and gives as good a vector for it */
} es_queue_t;

es_err_t es_queue_init(es_queue_t *queue);
void es_queue_destroy(es_queue_t *queue);
/* Intake: adds one. A publish waits while the queue is full; other orders are bounded by the
 * streams there are. ES_ENOMEM: not added. */
es_err_t es_queue_push(es_queue_t *queue, const es_command_t *command);
/* Loop: takes all that is there. `*v` and `*cap` are its spare vector, swapped in. Returns the
 * count. */
size_t es_queue_take(es_queue_t *queue, es_command_t **v, size_t *cap);
/* Loop: begins to take; makes the spare vector. Without memory nothing is made, and orders may get
 * lost. Then no more. */
void es_queue_serve(es_queue_t *queue, es_command_t **v, size_t *cap);
void es_queue_desert(es_queue_t *queue);

/* ---- loop.c -----------------------------------------------------------------------------------
 */

typedef struct es_counters {  /* written by one loop, read by the intake */
    _Atomic uint64_t streams; /* live now */
    _Atomic uint64_t deliveries;
    _Atomic uint64_t keep_alives;
    _Atomic uint64_t bytes;
    _Atomic uint64_t ended[ES_END_COUNT];
    _Atomic uint64_t replaying; /* streams that read the history now */
    _Atomic uint64_t log_lost;  /* lines of EventStreamLog that could not be written */
} es_counters_t;

void es_count(_Atomic uint64_t *counter, int64_t delta); /* by the counter's one writer */

typedef struct es_return { /* ended streams on their way back to the intake */
    pthread_mutex_t lock;
    es_stream_t *first;
    int wake; /* eventfd */
} es_return_t;

struct es_loop {
    const es_hub_config_t *config;
    int number;
    pthread_t thread;
    int epoll;
    es_queue_t queue;
    es_return_t *back;
    es_wheel_t wheel;
    es_counters_t counters;
    es_ends_t ends;
    es_stream_t *streams;   /* all of this loop, reserved and live */
    es_stream_t *dead;      /* ended in this round; go back at its end */
    es_channel_t *dirty;    /* channels to flush in this round */
    es_stream_t *replaying; /* those that read the history */
    bool replay_busy;       /* one of them can use another round at once */
    es_history_t *history;  /* NULL: there is none. Set while the loop has no thread */
    uint64_t instance;      /* of ids in the history */
    uint64_t now_ms;        /* of this round, for timers */
    bool stopping;          /* the thread is to end */
};

es_err_t es_loop_make(es_loop_t *loop, int number, const es_hub_config_t *config,
                      es_return_t *back);
es_err_t es_loop_start(es_loop_t *loop);                                 /* its thread */
void es_loop_timer(es_loop_t *loop, es_timer_t *timer, uint64_t now_ms); /* one of its wheel */
void es_loop_join(es_loop_t *loop);    /* after ES_ORDER_HALT or ES_ORDER_STOP */
void es_loop_destroy(es_loop_t *loop); /* no thread, and every stream is back at the intake */

/* While a loop has no thread, what is its own is the intake's: */

/* Puts a stream on the loop that another hub has run so far, with its cursors as `resume` says; its
 * channels' logs hold what it needs. `fd` -1: it is only reserved. */
es_err_t es_loop_adopt(es_loop_t *loop, es_stream_t *stream, const es_resume_t *resume, int fd);
/* Ends every stream as politely as its socket allows; they go back to the intake. */
void es_loop_end_all(es_loop_t *loop);
/* Forgets every stream, whose sockets are somebody else's now; they go back to the intake. */
void es_loop_forget_all(es_loop_t *loop);
/* Frees a channel that has no stream; it may be dirty. */
void es_loop_drop_channel(es_loop_t *loop, es_channel_t *channel);

static inline uint64_t es_now(const es_hub_config_t *config)
{
    return config->now_ms(config->clock_ctx);
}

static inline uint64_t es_wall(const es_hub_config_t *config)
{
    return (config->wall_ms ? config->wall_ms : config->now_ms)(config->clock_ctx);
}

#endif
