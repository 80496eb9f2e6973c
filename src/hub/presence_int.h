/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presence: its objects, all of the intake's thread. What others may call is in intake_int.h.
 *
 * - es_place_t: a channel that somebody is on, or whose listeners have not been told all.
 * - es_member_t: a name on one channel, over all of its streams there.
 * - es_attendee_t: who a stream is, and where it sits: part of the stream.
 */
#ifndef ES_PRESENCE_INT_H
#define ES_PRESENCE_INT_H

#include "intake_int.h"

#include <apr_hash.h>

enum {
    ES_PRESENCE_NAMES = 100,      /* of one list; of 20 channels they fit into a hand-over */
    ES_PRESENCE_BURST = 10,       /* events of one window; what is more is told by its end */
    ES_PRESENCE_WINDOW = 1000,    /* milliseconds */
    ES_PRESENCE_OWED = 5000,      /* after a restart, for clients on their way back */
    ES_PRESENCE_LEAVING = 1 << 16 /* members that have gone and may come back */
};

typedef struct es_alarm { /* the first member of what it wakes */
    es_timer_t timer;
    bool of_member; /* its grace is over; else the window of a place */
} es_alarm_t;

typedef struct es_member es_member_t;

typedef struct es_place {
    es_alarm_t window;         /* armed since the first event of a window, or while it owes */
    uint32_t streams;          /* with and without a name */
    uint32_t members;          /* names */
    uint32_t leaving;          /* of them: no stream is left, and their grace is not over */
    unsigned int told;         /* events in this window */
    bool owes;                 /* the listeners get the whole state when the window is over */
    es_member_t *first, *last; /* by when they came */
    size_t len;                /* of the channel's name */
    char name[];               /* with "/presence" and NUL behind it */
} es_place_t;

struct es_member {
    es_alarm_t grace; /* armed: it has no stream */
    es_place_t *place;
    es_member_t *prev, *next;
    uint32_t streams;
    size_t key_len;
    char key[]; /* the place's address, the name */
};

struct es_presence {
    apr_pool_t *pool;    /* of the tables alone */
    apr_hash_t *places;  /* channel to es_place_t */
    apr_hash_t *members; /* key to es_member_t */
    es_wheel_t wheel;
    size_t leaving; /* over all places */
};

struct es_attendee {
    uint32_t grace_ms;
    const char *name; /* in the same allocation; NULL: none */
    struct {
        es_place_t *place;   /* NULL: not there */
        es_member_t *member; /* NULL: without a name */
    } seat[];                /* one for each of the stream's subscriptions */
};

static inline es_str_t es_member_name(const es_member_t *member)
{
    const size_t n = sizeof member->place;

    return (es_str_t) { member->key + n, member->key_len - n };
}

/* presence_tell.c. `name` n 0: somebody without one. */
void es_place_tell(es_intake_t *intake, es_place_t *place, const char *event, es_str_t name);
void es_place_owe(es_intake_t *intake, es_place_t *place, uint64_t delay_ms);
void es_place_window_over(es_intake_t *intake, es_place_t *place);
bool es_place_is_heard(const es_intake_t *intake, const es_place_t *place);

/* presence.c */
es_place_t *es_presence_place(es_intake_t *intake, es_str_t channel, bool make); /* or NULL */
void es_place_drop_if_idle(es_intake_t *intake, es_place_t *place);

#endif
