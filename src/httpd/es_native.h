/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `SetHandler eventstream`, the native endpoint. Part of es_httpd.h, which includes it.
 *
 * - native.c is the handler: what a method does, the head and the begin of a stream.
 * - native_request.c reads the request: channels, position, what is accepted.
 * - native_access.c says who may: tokens, and which of the channels.
 * - native_authorize.c asks the application who may.
 * - native_publish.c has what POST, DELETE and a GET for JSON do.
 * - native_cors.c lets pages of other sites read the answers.
 * - native_config.c has the directives.
 *
 * Each step of a request returns NULL, or the sentence that the client gets and its status. Memory
 * is the request's pool, or freed with it.
 */
#ifndef ES_NATIVE_H
#define ES_NATIVE_H

#include "ap_expr.h"

#include "es_sse.h"
#include "es_token.h"

/* EventStreamHistory, of the server. */
typedef struct es_history_conf {
    const char *directory; /* NULL: off */
    uint64_t bytes;        /* 0: the default */
    uint64_t age_ms;       /* 0: no limit */
    uint64_t count;        /* 0: no limit */
} es_history_conf_t;

/* One argument of EventStreamChannel. */
typedef struct es_fixed_channel {
    const char *name;           /* or */
    const ap_expr_info_t *expr; /* expr=..., gives a name */
} es_fixed_channel_t;

/* Directives of a location. What was not set is NULL or ES_UNSET. */
typedef struct es_native_conf {
    apr_array_header_t *channels; /* es_fixed_channel_t: EventStreamChannel */
    const char *param;            /* EventStreamChannelParam */
    const char *prefix;           /* EventStreamChannelPrefix */
    es_patterns_t *allow;         /* EventStreamAllowChannels */
    int keep_alive;               /* EventStreamKeepAlive, seconds; 0: none */
    int retry;                    /* EventStreamRetry, milliseconds; 0: none */
    es_patterns_t *origins;       /* EventStreamAllowOrigin */
    int credentials;              /* EventStreamAllowCredentials */
    const char *headers;          /* EventStreamAllowHeaders, separated by commas */
    const char *subscribe_iss;    /* EventStreamSubscribeKey; NULL: any */
    const es_key_t *subscribe_key;
    int publish;           /* EventStreamPublish */
    int presence;          /* EventStreamPresence */
    int grace;             /* and its grace, milliseconds */
    const char *authorize; /* EventStreamAuthorize, a path; "": none */
} es_native_conf_t;

/* native_config.c */
void es_native_conf_create(es_native_conf_t *conf);
void es_native_conf_merge(const es_native_conf_t *base, const es_native_conf_t *add,
                          es_native_conf_t *ret);
int es_native_keep_alive(const es_native_conf_t *conf);
int es_native_retry(const es_native_conf_t *conf);
uint64_t es_native_grace(const es_native_conf_t *conf);

/* One request. */
typedef struct es_native {
    const es_native_conf_t *conf;
    es_channels_t channels;
    es_token_t *token; /* NULL: none was asked for */
    const char *name;  /* of the client, as the application says; NULL: it says none */
    /* Channels that the client asked for and may not have; asked names. */
    const char *refused[ES_MAX_CHANNELS];
    size_t refused_count;
} es_native_t;

typedef enum es_wanted { ES_WANTED_STREAM, ES_WANTED_INFO, ES_WANTED_NOTHING } es_wanted_t;

/* native_request.c */
es_native_t *es_native_begin(request_rec *r);
es_buf_t *es_request_buf(request_rec *r, size_t max); /* freed with the request */
es_wanted_t es_native_accepted(request_rec *r);
const char *es_native_channels(request_rec *r, es_native_t *n, int *status);
const char *es_native_position(request_rec *r, es_position_t *ret, int *status);

/* native_access.c */
const char *es_native_subscriber(request_rec *r, es_native_t *n, int *status);
const char *es_native_publisher(request_rec *r, es_native_t *n, int *status);
/* Which of the channels the client may have; fills `refused`. */
void es_native_sift(request_rec *r, es_native_t *n, es_token_use_t use);

/* Presence: the name of the client, if it is known; NULL: it is not, or cannot be shown. */
const char *es_native_member(request_rec *r, const es_native_t *n);
/* The first of the channels that is the hub's own to publish to; NULL: none is. */
const char *es_native_reserved(const es_native_t *n);

/* native_authorize.c */
void es_native_authorize_child_init(apr_pool_t *pchild, server_rec *s);
/* Asks the application (or the cache); adds to `refused`. */
const char *es_native_authorize(request_rec *r, es_native_t *n, int *status);
extern ap_filter_rec_t *es_native_collect_handle;
apr_status_t es_native_collect(ap_filter_t *f, apr_bucket_brigade *bb);

/* native_cors.c: headers of every answer. `methods`: what the location serves. */
void es_native_cors(request_rec *r, const es_native_conf_t *conf, const char *methods);

/* May a page of the origin that the request names, if any, change something here? A browser sends a
 * visitor's cookies and passwords along with what any page makes it post. */
bool es_native_own_page(request_rec *r, const es_native_conf_t *conf);

/* native_publish.c */
int es_native_publish(request_rec *r, es_native_t *n);
int es_native_clear(request_rec *r, es_native_t *n);
int es_native_info(request_rec *r, es_native_t *n);

/* native.c */
int es_native_handler(request_rec *r);
int es_native_refuse(request_rec *r, int status, const char *sentence);
int es_native_refuse_channels(request_rec *r, const es_native_t *n);
int es_native_answer(request_rec *r, int status, const char *type, const char *text);

#endif
