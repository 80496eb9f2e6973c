/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_wire.h
 * The messages between httpd children and the hub, used by both ends.
 *
 * - The door: one AF_UNIX SOCK_SEQPACKET pair, made by the httpd parent before anything forks.
 *   Every child and every hub that the parent starts inherits it. What travels on it is a knock:
 *   HELLO, when a child has made a stream pair of its own and sends the hub one end; and what the
 *   parent and the next hub say to the hub at a restart. A knock that comes while no hub runs waits
 *   in the door until the next one reads it.
 * - A link: such a stream pair. One request and its answer at a time; a child keeps idle links and
 *   takes another one for each concurrent request. When a child dies its links close, and with them
 *   every reservation that they hold.
 *
 * A message is an es_wire_head_t in host byte order (both ends are one machine), then `len` bytes
 * of payload; with ES_WIRE_FD set one descriptor rides on the first byte. Both ends refuse another
 * version: after a reload an old child may meet a hub of a newer build.
 *
 *   child                                  hub
 *   RESERVE  hold message (JSON)    ──▶    cursors are fixed, now
 *            ◀── ANSWER code, text         of an event stream {"id": newest event's, "reset": true:
 *                                          what was asked for cannot be replayed completely}
 *   (head and initial body are written to the client)
 *   HOLD     descriptor             ──▶    the reserved stream starts on it; no answer
 *   RELEASE                         ──▶    or: the reservation is given up; no answer
 *   PUBLISH  {"items": [...]}       ──▶    ◀── ANSWER once every item is in the hub, with a history
 *                                              on disk: {"ids": [ID or null, ...],
 *                                              "receivers": [N, ...]}
 *                                              ES_EFULL: delivered, but not kept
 *   INFO     {"channel": NAME}      ──▶    ◀── ANSWER {"receivers": N, "id": ID or null,
 *                                              "stored": N, "oldest": ID or null}; with
 *                                              "presence": true in the request, for C/presence,
 *                                              also "presence": who is on C
 *   CLEAR    {"channel": NAME}      ──▶    ◀── ANSWER once its history is gone; ES_ENOENT: none
 *   STATS    "json", "prometheus"   ──▶    ◀── ANSWER with the counters in that form
 *   PACKET   a ZeroMQ message       ──▶    ◀── ANSWER; from a hub that gave its streams away and
 *                                              still has publishers on its ZeroMQ sockets
 *
 * A restart hands everything from the hub to the next one, over a stream pair that the next hub
 * makes and sends one end of through the door:
 *
 *   the door                               the hub
 *   EXPECT                          ──▶    a next hub will come; when none does, it ends. `number`
 *                                          is the generation of the hub that is meant: another one
 *                                          takes no notice
 *   HAND_OVER  descriptor           ──▶    it stops reading, and stops its loops. `number` is the
 *                                          next hub's generation; one that is not newer than the
 *                                          hub's own gets an ANSWER that says so, and ends
 *
 *   hub                                    next hub
 *   FRAME    {"order": n} NUL item  ──▶    for each message that a stream still has to get; with
 *                                          "instance" when event streams get it: of its id; with
 *                                          "fleeting": true when it is the hub's own, not kept
 *   HELD     hold message NUL bytes ──▶    for each stream; with its descriptor, or reserved only
 *   LINK     descriptor             ──▶    each link with what was read of its next message;
 *                                          `number` 1: the stream before it is reserved on it
 *   LOOSE    descriptor             ──▶    one that came on the link before, not yet claimed
 *   DONE     {"order": n, "instance": n, "event": n, "owed": [CHANNEL, ...] or true} NUL counters
 *                                   ──▶    that was all; the history is closed. "event": order of
 *                                          the newest message that is not fleeting. "owed": whose
 *                                          presence channels (true: all) have not been told all
 *                   ◀── ANSWER             from now on the next hub serves; the pair is a link.
 *                                          Another code than ES_OK, at any time: it serves what it
 *                                          has by then, the rest ends with the hub before
 */
#ifndef ES_WIRE_H
#define ES_WIRE_H

#include "es_base.h"
#include "es_grip.h"
#include "es_sse.h"

enum {
    ES_WIRE_VERSION = 1,
    ES_WIRE_MAX = 2 * 1024 * 1024, /* bytes of one payload, either way */
    ES_GRACE_MAX = 60 * 1000       /* es_delivery_t.grace_ms */
};

typedef enum es_wire_type {
    ES_WIRE_HELLO = 1,
    ES_WIRE_RESERVE,
    ES_WIRE_HOLD,
    ES_WIRE_RELEASE,
    ES_WIRE_PUBLISH,
    ES_WIRE_STATS,
    ES_WIRE_ANSWER,
    ES_WIRE_PACKET,
    ES_WIRE_EXPECT,
    ES_WIRE_HAND_OVER,
    ES_WIRE_FRAME,
    ES_WIRE_HELD,
    ES_WIRE_LINK,
    ES_WIRE_LOOSE,
    ES_WIRE_DONE,
    ES_WIRE_INFO,
    ES_WIRE_CLEAR
} es_wire_type_t;

enum { ES_WIRE_FD = 1 }; /* flag: a descriptor comes with this message */

typedef struct es_wire_head {
    uint32_t magic;
    uint16_t version;
    uint8_t type; /* es_wire_type_t */
    uint8_t flags;
    uint32_t number; /* an answer repeats its request's */
    uint32_t code;   /* ANSWER: es_err_t */
    uint32_t len;
} es_wire_head_t;

/* ---- blocking side (children, and hubs that hand over) --------------------------------------- */

/** Knocks at the door: one packet, without waiting. `fd` -1: no descriptor; the caller keeps its
 * own copy. ES_EIO with errno; EAGAIN there: the door is full until a hub reads it. */
es_err_t es_wire_knock(int door, es_wire_type_t type, uint32_t number, int fd);

/** Makes a link: sends one end of a new pair through the door. ES_EIO with errno. The caller closes
 * the other end, `*ret`. */
es_err_t es_wire_connect(int door, int *ret);

/** Sends one message whole. `fd` -1: no descriptor; the caller keeps its own copy. Waits at most
 * `timeout_ms` for room each time: ES_EAGAIN (the link is then useless: close it). ES_EIO: errno.
 */
es_err_t es_wire_send(int link, es_wire_type_t type, uint32_t number, es_str_t payload, int fd,
                      int timeout_ms);

/** Waits for the answer to `number`. `*ret_text` is NUL-terminated, the caller frees.
 * ES_EAGAIN: nothing within `timeout_ms`; ES_EINVAL: not our protocol; ES_EIO: the hub is gone, and
 * errno is ECONNRESET if it had not read all of the message, so cannot have acted on it. */
es_err_t es_wire_answer(int link, uint32_t number, int timeout_ms, es_err_t *ret_code,
                        char **ret_text, size_t *ret_len);

/* ---- non-blocking side (hub) ---------------------------------------------------------------- */

/** One end of a link as the hub reads it: bytes so far and descriptors that came with them. */
typedef struct es_wire_reader {
    char *p;
    size_t n;
    size_t cap;
    size_t taken; /* length of the message that es_wire_next gave out last */
    int fds[4];   /* received, not yet claimed by a message; owned; -1: one that was lost */
    int fd_count;
} es_wire_reader_t;

typedef struct es_wire_message {
    es_wire_head_t head;
    es_str_t payload; /* points into the reader, valid until the next call on it */
    int fd; /* -1, or owned by the caller from now on; -1 though ES_WIRE_FD is set: lost */
} es_wire_message_t;

void es_wire_reader_init(es_wire_reader_t *r);
void es_wire_reader_free(es_wire_reader_t *r); /* closes unclaimed descriptors */

/** Reads once what the link has. ES_EAGAIN: nothing now; ES_EIO: closed by the other end or broken;
 * ES_EINVAL: more descriptors than messages could name; ES_EFULL: this process may open no more
 * files, a descriptor is lost; ES_ENOMEM. */
es_err_t es_wire_fill(int link, es_wire_reader_t *r);

/** Takes the next whole message. ES_EAGAIN: not there yet; ES_EINVAL, ES_ETOOBIG: close the link,
 * `detail` says why. */
es_err_t es_wire_next(es_wire_reader_t *r, es_wire_message_t *ret, es_detail_t *detail);

/** Sends an answer without waiting. ES_EAGAIN when the link has no room: the caller closes it. */
es_err_t es_wire_reply(int link, uint32_t number, es_err_t code, es_str_t text);

/** One knock at the door, as the hub hears it. */
typedef struct es_wire_knock {
    es_wire_type_t type; /* ES_WIRE_HELLO, ES_WIRE_EXPECT or ES_WIRE_HAND_OVER */
    uint32_t number;
    int fd; /* HELLO: the new link. HAND_OVER: where to, or -1: the next hub speaks another version.
             * Owned by the caller from now on */
} es_wire_knock_t;

/** Reads one knock, without waiting. ES_EAGAIN: none; ES_EIO: the last holder of the other end is
 * gone; ES_EINVAL: no packet of this version, dropped; ES_EFULL: this process may open no more
 * files, a descriptor is lost. */
es_err_t es_wire_open(int door, es_wire_knock_t *ret, es_detail_t *detail);

/* ---- the hold message ----------------------------------------------------------------------- */

/** Where a stream was when one hub handed it to the next. */
typedef struct es_resume {
    uint64_t behind[ES_MAX_CHANNELS]; /* messages of each channel that it has not been sent */
    bool continuous[ES_MAX_CHANNELS]; /* the channel's prev-id came from the application */
    uint64_t bytes;                   /* written since the hold */
    uint64_t idle;                    /* milliseconds since the last delivery */
    uint64_t due;                     /* milliseconds until the next keep-alive */
    uint64_t stalled; /* milliseconds that bytes wait and the socket takes none; 0: none wait */
    bool replaying;   /* an event stream that reads the history; see replay.c for the others */
    uint64_t sent, until, forgiven;
    uint64_t final;  /* 0, or 1 more than the number of the last message it gets: it has expired */
    uint64_t ending; /* 0, or 1 more than the bytes of the terminating chunk that are written */
} es_resume_t;

/** How the bytes of a held stream are written, and whom they go to. */
typedef struct es_delivery {
    bool chunked; /* HTTP/1.1 chunks; false: raw bytes, the end of the connection ends the body */
    char *peer;   /* the client's address, for logs; owned; NULL: unknown */
    char *uri;    /* the request's path, for logs; owned; NULL: unknown */
    char *log;    /* its line of EventStreamLog: what stands before the number of bytes, '\n', what
                   * stands behind it; owned; NULL: no line is wanted */
    uint64_t started_ms; /* when the request came, milliseconds since 1970; 0: unknown */
    bool events;         /* a stream of the native endpoint: messages are rendered as events, with
                          * ids of the hub's own */
    es_position_t from;  /* where it begins; ES_FROM_NOW: live only. For `events` alone */
    uint64_t until_ms;   /* when it has to end, milliseconds since 1970; 0: never */
    bool presence;     /* it is announced on its channels' presence channels. For `events` alone */
    char *member;      /* as whom; es_presence_shows; owned; NULL: counted without a name */
    uint64_t grace_ms; /* a leave is told so much later, unless the member is back by then */
    es_resume_t *resume; /* owned; NULL: the stream begins */
} es_delivery_t;

/** {"hold": {...}, "delivery": {"framing": "chunked"|"raw", "peer": ..., "uri": ..., "log": ...,
 * "started": MS, "events": true, "from": FROM, "until": MS, "presence": {"name": NAME, "grace":
 * MS}}}, of which all but the framing may be missing: the one description of a held stream, for the
 * wire, for a hand-over, for logs. FROM is {"id": ID}, {"earliest": true}, {"time": MS} or
 * {"last": N}. A hand-over adds {"resume": {...}}. The caller frees. */
es_err_t es_hold_encode(const es_instruct_t *in, const es_delivery_t *delivery, char **ret,
                        size_t *ret_len);
es_err_t es_hold_decode(es_str_t json, es_instruct_t **ret, es_delivery_t *ret_delivery,
                        es_detail_t *detail);
void es_delivery_clear(es_delivery_t *delivery);

/* ---- what the native endpoint says and hears (native.c) --------------------------------------
 * For the child's side. Texts that come back are owned by the caller. */

/** The payload of INFO and CLEAR. `presence`: of INFO, tell who is there too. ES_EINVAL: the name
 * is not UTF-8; ES_ENOMEM. */
es_err_t es_channel_encode(const char *name, bool presence, char **ret, size_t *ret_len);

/** The payload of PUBLISH: one item of the same http-stream content for each of the channels. `id`
 * NULL: none. ES_EINVAL: not UTF-8; ES_ETOOBIG: over ES_MAX_PUBLISH_BODY; ES_ENOMEM. */
es_err_t es_publish_encode(const char *const *names, size_t n, const char *id, es_str_t content,
                           char **ret, size_t *ret_len);

bool es_text_is_json(es_str_t text); /* any value */

/** The text of the answer to RESERVE of a stream with `events`: {"id": ID, "reset": true|false}.
 * `*ret_id` is NULL when there is none. ES_EINVAL, ES_ENOMEM. */
es_err_t es_reserved_decode(es_str_t json, char **ret_id, bool *ret_reset, es_detail_t *detail);

/** The text of the answer to PUBLISH, {"ids": [...], "receivers": [...]}, as what its sender is
 * told: {"id": the last of the ids, "receivers": all of them together}. */
es_err_t es_published_to_json(es_str_t json, char **ret, es_detail_t *detail);

/** The texts of the answers to INFO, one for each of the channels, as {"channels": [...]} with each
 * one's name among its members. */
es_err_t es_info_to_json(const char *const *asked, const char *const *answers, size_t n, char **ret,
                         es_detail_t *detail);

/* ---- the client's connection ---------------------------------------------------------------- */

/** On a socketpair the hub cannot see how the client's connection ended. Whoever carries the bytes
 * to the client says so with this one byte, before it closes its end: the client takes nothing any
 * more, or is out of reach. */
#define ES_CARRIER_TIMEOUT '\x15'

/** The client's connection broke with this error: sends that byte if it was one of the network.
 * Best effort: without it the end counts as the client's own. */
void es_carrier_broken(int pair, int err);

/** TCP: the kernel looks after a client that is silent (after 60 s, then every 15 s, four times)
 * and gives up on one that acknowledges nothing or keeps its window shut for `timeout_ms`. What
 * waits unsent in the kernel is kept small, so that a writer sees soon whether the client reads.
 * Does nothing to other sockets. */
void es_peer_watch(int fd, uint64_t timeout_ms);
bool es_peer_is_local(int fd);   /* a socketpair, so that somebody carries the bytes on */
int es_peer_error(int fd);       /* takes the socket's pending error; 0: none */
bool es_peer_timed_out(int err); /* does this error say that the peer is out of reach? */

#endif
