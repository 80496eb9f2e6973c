/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adopted streams and the loop that carries them, for the two that run it: relay.c in a thread of a
 * child, keeper.c in a process of its own. One of the two at a time, and that one alone calls what
 * is declared here.
 */
#ifndef ES_RELAY_INT_H
#define ES_RELAY_INT_H

#include "es_base.h"

#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct es_adopted es_adopted_t;

/* What an epoll event points to: one of a stream's two descriptors. */
typedef struct es_side {
    es_adopted_t *stream; /* NULL: the bell */
    int fd;
} es_side_t;

struct es_adopted {
    es_side_t up, down;
    SSL *ssl;
    char *rest; /* not yet taken by TLS */
    size_t rest_off, rest_len;
    uint64_t leave_by; /* 0: the hub has not ended it; ms of the monotonic clock */
    bool up_paused;
    bool wants_out; /* EPOLLOUT is asked for on down */
    bool ended;
    es_adopted_t *prev, *next; /* in the list of all; before that `next` chains the relay's fresh
                                  ones, after it the dead */
};

/* relay_stream.c */
/* A new epoll set, empty but for `bell`, a descriptor of the caller's: when it becomes readable,
 * es_adopted_round says so. An older set is closed. False: errno tells why. */
bool es_adopted_open(int bell);
void es_adopted_close(void);           /* the set; the streams stay as they are */
void es_adopted_join(es_adopted_t *s); /* a new stream: into the list and the set */
void es_adopted_rejoin(void);          /* all streams of the list: into a set that is new */
/* Waits for events, then handles them. True: the bell. `guard`: the seconds after which SIGALRM may
 * end the process if that is not over; 0: none. */
bool es_adopted_wait(unsigned guard);
void es_adopted_leave_within(uint64_t ms); /* how long a client may take for the rest of a stream */
void es_adopted_flush(void);   /* what waits for TLS, as far as the clients take it now */
void es_adopted_end_all(void); /* each client is told properly */
unsigned es_adopted_count(void);
const es_adopted_t *es_adopted_first(void);
int es_adopted_epoll(void); /* the set's descriptor */

/* keeper.c: forks the keeper of the streams there are. The caller is the only thread that knows
 * them, and forgets them afterwards. -1: errno tells why, and the streams are still the caller's.
 */
pid_t es_keeper_fork(void);

#endif
