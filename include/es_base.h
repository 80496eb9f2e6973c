/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_base.h
 * What every layer shares: error codes with a detail text, strings with a length, a growable
 * buffer with a hard maximum, and the log callback. Depends on libc alone.
 *
 * Conventions of the whole tree:
 *  - a function that can fail returns es_err_t; results come back through parameters named `ret`
 *    or `ret_*`, which are left untouched on failure;
 *  - an `es_detail_t *` may be NULL; on failure it holds one sentence that names the field, what
 *    was found and what is accepted, fit to be shown to whoever sent the input;
 *  - text from outside is never assumed to end with NUL: it travels with its length.
 */
#ifndef ES_BASE_H
#define ES_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum es_err {
    ES_OK = 0,
    ES_EINVAL,  /* the input breaks its grammar */
    ES_ETOOBIG, /* the input is over a documented cap */
    ES_ENOMEM,  /* out of memory */
    ES_EAUTH,   /* a token is missing, damaged, expired or not for this key */
    ES_EAGAIN,  /* not now: try again later */
    ES_ENOENT,  /* the named thing does not exist */
    ES_EIO,     /* a system call failed; errno tells */
    ES_EFULL    /* a limit on streams, channels or queued messages is reached */
} es_err_t;

/** A fixed English word for a code, for logs: "invalid", "too big", ... */
const char *es_err_name(es_err_t err);

typedef struct es_detail {
    char text[256];
} es_detail_t;

/** Writes a detail (printf style, cut at 255 bytes, control bytes replaced by '?') and returns
 * `err`, so that a parser can end with `return es_fail(detail, ES_EINVAL, "...")`. */
es_err_t es_fail(es_detail_t *detail, es_err_t err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** Bytes with a length; not NUL-terminated, not owned. */
typedef struct es_str {
    const char *p;
    size_t n;
} es_str_t;

es_str_t es_str(const char *cstr);                   /* NULL gives {NULL, 0} */
bool es_str_is(es_str_t s, const char *cstr);        /* same bytes */
bool es_str_is_nocase(es_str_t s, const char *cstr); /* same ASCII letters */
es_str_t es_str_trim(es_str_t s); /* without leading and trailing blanks and tabs */
bool es_str_to_int(es_str_t s,
                   int64_t *ret); /* base 10, optional sign, all of s, at most 18 digits */

/** An owned copy with a NUL after it; NULL when out of memory. free() it. */
char *es_memdup(const void *p, size_t n);

/** Grows up to `max` bytes and never past it. Zero-initialise with es_buf_init. */
typedef struct es_buf {
    char *p;
    size_t n;
    size_t cap;
    size_t max;
} es_buf_t;

void es_buf_init(es_buf_t *b, size_t max);
es_err_t es_buf_add(es_buf_t *b, const void *p, size_t n); /* ES_ETOOBIG, ES_ENOMEM */
es_err_t es_buf_addf(es_buf_t *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void es_buf_free(es_buf_t *b); /* back to empty, keeps max */
char *es_buf_steal(es_buf_t *b,
                   size_t *ret_n); /* NUL-terminated; the caller frees; NULL when out of memory */

/** Levels as syslog's and httpd's: 3 error, 4 warning, 6 info, 7 debug, 8 trace. */
enum {
    ES_LOG_ERR = 3,
    ES_LOG_WARN = 4,
    ES_LOG_NOTICE = 5,
    ES_LOG_INFO = 6,
    ES_LOG_DEBUG = 7,
    ES_LOG_TRACE = 8
};

/** Where layers 1 and 2 send log lines. `id` is the line's number ("ES0103"), unique in the tree.
 * May be called from any thread of the process. */
typedef struct es_log {
    void (*write)(void *ctx, int level, const char *id, const char *fmt, va_list args);
    void *ctx;
    int level; /* lines above this level are not formatted */
} es_log_t;

void es_log(const es_log_t *log, int level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
