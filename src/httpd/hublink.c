/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child's links to the hub. A request thread takes an idle link or opens one, sends its request,
 * waits for the answer and puts the link back. So there is no reader thread, no table of open
 * requests, and a slow answer holds up nobody else.
 *
 * When the hub was restarted, idle links are dead ends: sending on one fails, it is thrown away and
 * the next is tried, until a fresh one goes through the door. Its hello waits there until the new
 * hub reads it. A request that got no answer is sent again to the new hub. Nothing can come twice
 * by that: the streams of the old hub died with it. But what it stored did not: with a history, a
 * publish that the old hub had read whole is not sent again, and its sender is told so.
 *
 * No pool owns the links: a child may be ended in the middle of a request (prefork runs its exit in
 * a signal handler), and then the process' end closes them. apr_reslist, which would otherwise do
 * all this, aborts the process when a resource is out at that moment.
 */
#include "es_httpd.h"

#include "apr_thread_mutex.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PATIENCE = 10,   /* seconds that a request waits for a hub in all */
    IDLE_MAX = 4,    /* links that stay open without work */
    RETRY_STEP = 20, /* milliseconds more before each try, once the idle links are used up */
    RETRY_MAX = 200  /* milliseconds between two tries at most */
};

struct es_hublink {
    int fd;
    uint32_t number; /* of the last request */
};

/* The idle links of this child. */
static struct idle {
    apr_thread_mutex_t *lock; /* NULL: child_init has not run */
    es_hublink_t *v[IDLE_MAX];
    int n;
} idle;

void es_hublink_child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_status_t rv;

    idle.n = 0;
    rv = apr_thread_mutex_create(&idle.lock, APR_THREAD_MUTEX_DEFAULT, pchild);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     ESLOGNO(0020) "a child cannot keep links to the hub; its requests will fail");
        idle.lock = NULL;
    }
}

static void link_close(es_hublink_t *link)
{
    close(link->fd);
    free(link);
}

static es_hublink_t *link_open(void)
{
    es_hublink_t *link = malloc(sizeof *link);

    if (!link) {
        return NULL;
    }
    link->number = 0;
    if (es_wire_connect(es_supervise_door(), &link->fd) != ES_OK) {
        free(link);
        return NULL;
    }
    return link;
}

/* The idle link that was used last, else a new one. NULL: the door is full until a hub reads it, or
 * there is no descriptor left. */
static es_hublink_t *take(void)
{
    es_hublink_t *link = NULL;

    apr_thread_mutex_lock(idle.lock);
    if (idle.n > 0) {
        link = idle.v[--idle.n];
    }
    apr_thread_mutex_unlock(idle.lock);
    return link ? link : link_open();
}

void es_hublink_give(es_hublink_t *link, bool good)
{
    if (good) {
        apr_thread_mutex_lock(idle.lock);
        if (idle.n < IDLE_MAX) {
            idle.v[idle.n++] = link;
            link = NULL;
        }
        apr_thread_mutex_unlock(idle.lock);
    }
    if (link) {
        link_close(link);
    }
}

es_err_t es_hublink_tell(es_hublink_t *link, es_wire_type_t type, int fd)
{
    return es_wire_send(link->fd, type, ++link->number, es_str(""), fd, PATIENCE * 1000);
}

/* One try on one link. ES_EIO and ES_EAGAIN: the link is of no use. `*ret_read`: the hub has read
 * the request, and died. */
static es_err_t ask(es_hublink_t *link, es_wire_type_t type, es_str_t payload, apr_time_t deadline,
                    es_err_t *code, char **text, bool *ret_read)
{
    const apr_interval_time_t left = deadline - apr_time_now();
    const int left_ms = left > 0 ? (int)apr_time_as_msec(left) : 0;
    const uint32_t number = ++link->number;
    size_t len = 0;
    es_err_t err = es_wire_send(link->fd, type, number, payload, -1, left_ms);

    *ret_read = false;
    if (err == ES_OK) {
        err = es_wire_answer(link->fd, number, left_ms, code, text, &len);
        *ret_read = err == ES_EIO && errno != ECONNRESET;
    }
    return err;
}

static void text_to_pool(request_rec *r, char *text, const char **ret)
{
    *ret = apr_pstrdup(r->pool, text);
    free(text);
}

/* Links of a hub that died are replaced at once. A hub that refuses new ones is not asked at full
 * speed. */
static void pause_before(int attempt)
{
    const int ms = (attempt - IDLE_MAX) * RETRY_STEP;

    if (ms > 0) {
        apr_sleep(apr_time_from_msec(ms < RETRY_MAX ? ms : RETRY_MAX));
    }
}

es_err_t es_hublink_call(request_rec *r, es_wire_type_t type, es_str_t payload, const char **text,
                         es_hublink_t **keep)
{
    const apr_time_t deadline = apr_time_now() + apr_time_from_sec(PATIENCE);
    const bool once = type == ES_WIRE_PUBLISH && es_server_conf(r->server)->history.directory;
    es_err_t err = ES_EAGAIN, code = ES_OK;
    int attempt = 0;

    *text = "the hub does not answer";
    while (idle.lock && apr_time_now() < deadline) {
        es_hublink_t *link;
        char *answer = NULL;
        bool read = false;

        pause_before(attempt++);
        link = take();
        if (!link) {
            continue;
        }
        err = ask(link, type, payload, deadline, &code, &answer, &read);
        if (err == ES_OK) {
            text_to_pool(r, answer, text);
            if (keep && code == ES_OK) {
                *keep = link;
            }
            else {
                es_hublink_give(link, true);
            }
            return code;
        }
        es_hublink_give(link, false);
        if (once && read) {
            ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                          ESLOGNO(0135) "the hub died while it had a publish");
            *text = "the hub died before it answered; it may have it all the same";
            return ES_EAGAIN;
        }
        if (err != ES_EIO) {
            break; /* no answer in all the time, out of memory, or a hub that speaks otherwise */
        }
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                      ESLOGNO(0021) "a link to the hub is dead: the next one");
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                  ESLOGNO(0022) "no answer from the hub within %d s (%s)", PATIENCE,
                  es_err_name(err));
    return ES_EAGAIN;
}
