/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layer 3: what ties the hub to httpd. Private to mod_eventstream.c and src/httpd.
 *
 * In the parent: supervise.c makes the door, forks the hub, forks it again when it dies.
 * In a child, in a request's thread: grip.c wraps the application's handler, grip_filter.c looks at
 * its answer, hold.c reserves a stream in the hub and hands the connection over; publish.c and
 * status.c are handlers of their own. hublink.c is how all of them talk to the hub.
 *
 * Memory is the request's pool, unless a comment says otherwise.
 */
#ifndef ES_HTTPD_H
#define ES_HTTPD_H

#include <stdatomic.h>
#include <stddef.h> /* before APR: its rings then use the compiler's offsetof */

#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "apr_lib.h"
#include "apr_strings.h"

#include "es_grip.h"
#include "es_hub.h"
#include "es_wire.h"

#include "es_native.h"

extern module AP_MODULE_DECLARE_DATA eventstream_module;
APLOG_USE_MODULE(eventstream);

/* Numbers of our log lines, in front of the text. httpd's own AH numbers are not ours to use. */
#define ESLOGNO(n) "ES" #n ": "

enum {
    ES_UNSET = -1,
    ES_DOOR_VERSION = 1, /* of es_door_t */
    ES_OLD_HUBS = 16
};

/* Process-wide settings; only the main server's are used. */
typedef struct es_server_conf {
    apr_array_header_t *pull;         /* const char *: EventStreamPull */
    int threads;                      /* EventStreamThreads */
    apr_int64_t max_lag;              /* EventStreamMaxLag, bytes */
    apr_int64_t max_streams;          /* EventStreamMaxStreams; 0: no limit */
    apr_int64_t max_per_client;       /* EventStreamMaxStreamsPerClient; 0: no limit */
    apr_interval_time_t send_timeout; /* EventStreamSendTimeout */
    apr_interval_time_t drain;        /* EventStreamDrain */
    const char *stream_log;           /* EventStreamLog; NULL: none */
    es_history_conf_t history;        /* EventStreamHistory */
} es_server_conf_t;

/* Settings of a location. */
typedef struct es_dir_conf {
    int grip;             /* EventStreamGrip */
    const char *grip_iss; /* EventStreamGripKey */
    const es_key_t *grip_key;
    const char *publish_iss;     /* EventStreamPublishKey; NULL: any */
    const es_key_t *publish_key; /* NULL: no token is asked for */
    es_native_conf_t native;     /* SetHandler eventstream */
} es_dir_conf_t;

/* config.c */
extern const command_rec es_commands[];
void *es_dir_conf_create(apr_pool_t *p, char *path);
void *es_dir_conf_merge(apr_pool_t *p, void *base, void *add);
void *es_server_conf_create(apr_pool_t *p, server_rec *s);
void *es_server_conf_merge(apr_pool_t *p, void *base, void *add);
const es_dir_conf_t *es_dir_conf(const request_rec *r);
const es_server_conf_t *es_server_conf(const server_rec *s);
uint64_t es_send_timeout_ms(const server_rec *s);
/* Reads KEY of a directive. `signs`: what it is for; a public key signs nothing, a private one
 * checks nothing. NULL: fine; else what is wrong. */
const char *es_config_key(cmd_parms *cmd, const char *arg, bool signs, const es_key_t **ret);
const es_key_t *es_signing_key(const es_dir_conf_t *conf); /* the location's, else the random one */
apr_status_t es_random_key_make(apr_pool_t *p);            /* post_config */

/* What all processes of the server share about its hubs. */
typedef struct es_door_page {
    _Atomic pid_t serving;   /* the hub that reads the door; 0: none */
    _Atomic uint32_t newest; /* generation of the hub that was started last */
} es_door_page_t;

/* The way to the hub: made once for the life of the server, so its layout is that of every build
 * that a graceful restart may bring in. */
typedef struct es_door {
    uint32_t version; /* ES_DOOR_VERSION */
    int hub_end;      /* SOCK_SEQPACKET pair: see es_wire.h */
    int child_end;
    es_door_page_t *page;
    uint32_t generation;    /* the parent's: configurations so far */
    pid_t old[ES_OLD_HUBS]; /* the parent's: hubs of configurations before, as long as they run */
} es_door_t;

/* supervise.c: the parent */
int es_supervise_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s);
void es_supervise_child_init(apr_pool_t *pchild, server_rec *s);
int es_supervise_monitor(apr_pool_t *p, server_rec *s);
int es_supervise_door(void); /* a child's end of the door */

/* process.c. Every stream is a descriptor, in the hub, and two in a child that relays TLS:
 * es_raise_descriptor_limit takes all that the hard limit allows. */
void es_raise_descriptor_limit(server_rec *s);
void es_set_title(const char *title, const char *name); /* of this process, and of its thread */
/* SIGTERM and SIGINT become readable on the descriptor that is returned, -1: errno. What httpd
 * sends to its process group means nothing from now on. */
int es_take_signals(void);

/* hub_main.c: the hub process, from fork to exit; does not return. */
void es_hub_main(server_rec *s, apr_pool_t *p, es_door_t *door) __attribute__((noreturn));

/* stream_log.c: EventStreamLog. Opened by the parent, written by the hub, its lines made by the
 * children. */
int es_stream_log_open(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s);
int es_stream_log_fd(void); /* 0: none */
/* What a child knows of the line, as es_delivery_t wants it; in r->pool. NULL: no line is wanted.
 */
char *es_stream_log_facts(request_rec *r);

/* hublink.c: any request thread of a child */
typedef struct es_hublink es_hublink_t;
void es_hublink_child_init(apr_pool_t *pchild, server_rec *s);
/* One request and its answer. Waits for a hub that is being restarted. ES_EAGAIN: there is none for
 * too long. `*text` is in r->pool. When `keep` is not NULL and the code is ES_OK, the link stays
 * reserved for the caller, who ends it with es_hublink_give. */
es_err_t es_hublink_call(request_rec *r, es_wire_type_t type, es_str_t payload, const char **text,
                         es_hublink_t **keep);
es_err_t es_hublink_tell(es_hublink_t *link, es_wire_type_t type, int fd); /* no answer comes */
void es_hublink_give(es_hublink_t *link, bool good); /* good: somebody else may use it */

/* headers.c: between httpd's tables and layer 1 */
bool es_headers_have_grip(request_rec *r);
const es_header_t *es_headers_of_answer(request_rec *r, size_t *count);
void es_headers_to_application(request_rec *r, const es_dir_conf_t *conf);
void es_headers_strip(request_rec *r, const es_instruct_t *in, bool held);
void es_headers_status(request_rec *r, int code, const char *reason);
void es_headers_replace(request_rec *r, const es_response_t *response);

/* hold.c: the one interface to the ways of holding a connection */
typedef struct es_hold_handle es_hold_handle_t;
typedef struct es_hold_native { /* of a stream of the native endpoint */
    es_position_t from;
    uint64_t until_ms; /* as in es_delivery_t; so are the next three */
    bool presence;
    const char *member;
    uint64_t grace_ms;
    const char *answer; /* the hub's, set by es_hold_reserve: for es_reserved_decode */
} es_hold_native_t;
/* Fixes the cursors. OK, or the HTTP status that the client gets, with the reason logged. `native`
 * NULL: the messages go out as they are. */
int es_hold_reserve(request_rec *r, const es_instruct_t *in, es_hold_native_t *native,
                    es_hold_handle_t **ret);
/* Before the head is written: this connection goes on for hours, so nothing may wait for its end,
 * keep it, or squeeze it. */
void es_hold_prepare(request_rec *r);
/* Head and initial body are written and flushed: the connection goes to the hub. Returns what the
 * handler returns. */
int es_hold_start(request_rec *r, es_hold_handle_t *hold);
void es_hold_release(es_hold_handle_t *hold); /* NULL is fine */

/* detach.c: plain HTTP/1.x; the socket moves to the hub */
bool es_detach_possible(request_rec *r);
es_err_t es_detach(request_rec *r, es_hublink_t *link);

/* adopt.c: TLS of mod_ssl over HTTP/1.x; relay thread of the child */
void es_adopt_register_hooks(void);
bool es_adopt_possible(request_rec *r);
/* ES_EAGAIN: the client has sent more than its request, so it has to be pumped. ES_ENOENT: it has
 * said goodbye already. */
es_err_t es_adopt(request_rec *r, es_hublink_t *link);
void es_relay_child_init(apr_pool_t *pchild, server_rec *s);

/* pump.c: everything else, in the handler's own thread. Gives the link back. `chunked`: the hub was
 * told to write chunks. Returns when the stream has ended; what it returns is for httpd. */
int es_pump(request_rec *r, es_hublink_t *link, bool chunked);

/* stopping.c: a child, any thread */
typedef enum es_stopping { /* each is more urgent than the one before */
                           ES_STOPPING_NOT,
                           ES_STOPPING_GRACEFULLY,
                           ES_STOPPING_AT_ONCE
} es_stopping_t;

void es_stopping_register_hooks(void);
es_stopping_t es_stopping(void);
bool es_mpm_is_threaded(void); /* event, worker; not prefork */

/* grip.c, grip_filter.c */
typedef enum es_grip_state {
    ES_GRIP_WAIT,    /* no byte of the answer has come */
    ES_GRIP_PASS,    /* not ours, or nothing to hold: the filter is gone */
    ES_GRIP_STREAM,  /* held: the initial body goes through as it comes */
    ES_GRIP_COLLECT, /* the whole body is needed before anything can be sent */
    ES_GRIP_FAILED   /* the answer is swallowed; the client gets ctx->failure */
} es_grip_state_t;

typedef struct es_grip_ctx {
    es_grip_state_t state;
    bool complete;               /* the end of the application's body has come */
    bool broken;                 /* the application's answer broke off */
    bool stripped;               /* the head of a held answer is ready for the client */
    bool is_instruct_body;       /* application/grip-instruct */
    int failure;                 /* HTTP status, in ES_GRIP_FAILED */
    es_instruct_t *in;           /* freed with r->pool */
    es_hold_handle_t *hold;      /* released with r->pool when it was not started */
    es_buf_t body;               /* ES_GRIP_COLLECT; freed with r->pool */
    const char *accept_encoding; /* of the client, given back to a response that is not held */
} es_grip_ctx_t;

int es_grip_handler(request_rec *r);
apr_status_t es_grip_filter(ap_filter_t *f, apr_bucket_brigade *bb);
es_grip_ctx_t *es_grip_ctx(request_rec *r); /* NULL: this request is not wrapped */
extern ap_filter_rec_t *es_grip_filter_handle;
/* What the answer's head asks for, once the instruct is known: sets the next state. */
void es_grip_decide(request_rec *r, es_grip_ctx_t *ctx);
void es_grip_fail(request_rec *r, es_grip_ctx_t *ctx, int status);

/* publish.c, status.c */
int es_publish_handler(request_rec *r);
int es_status_handler(request_rec *r);

#endif
