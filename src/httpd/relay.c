/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay: one thread of a child that carries adopted TLS streams (relay_stream.c), from the
 * child's start to its end. Then the streams go on in a keeper (keeper.c), if that is possible.
 *
 * Threads: es_relay_add is called by whichever thread ends the httpd connection; it only puts the
 * stream on a list, under a lock, and wakes the relay. Everything else is the relay's own thread;
 * once that is joined, the thread that ends the child.
 *
 * A keeper is made when the child's main thread ends it and
 *
 * - prefork: not in a signal handler. A child that is stopped or restarted ends in one, and what it
 *   interrupted may hold any lock.
 * - event, worker, gracefully: the MPM has joined its workers.
 * - event, worker, else: the same, and no thread of another module is left, which may be in the
 *   middle of anything then. Stop and restart look alike to a child, so both make keepers; on a
 *   stop the hub ends its streams a moment later, properly, and with them the keepers.
 */
#include "es_httpd.h"
#include "relay.h"
#include "relay_int.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct relay {
    server_rec *server;
    int wake; /* eventfd: look at `fresh` and `stop` */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of the next three */
    es_adopted_t *fresh;  /* handed over, not yet in the set */
    bool stop;
    bool leave; /* with `stop`: the streams are somebody else's then */
} relay = { .wake = -1, .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the thread ---- */

/* False: the thread is to end. */
static bool on_wake(void)
{
    uint64_t count;
    es_adopted_t *s, *next;
    bool stop;

    if (read(relay.wake, &count, sizeof count) < 0) {
        return true; /* EAGAIN: looked at already */
    }
    pthread_mutex_lock(&relay.lock);
    s = relay.fresh;
    relay.fresh = NULL;
    stop = relay.stop;
    pthread_mutex_unlock(&relay.lock);
    for (; s; s = next) {
        next = s->next;
        es_adopted_join(s);
    }
    return !stop;
}

/* At its end every stream ends too, each client told properly, unless a keeper is to be made. */
static void *relay_main(void *arg)
{
    bool go_on = true;

    (void)arg;
    prctl(PR_SET_NAME, "es-relay", 0, 0, 0);
    while (go_on) {
        go_on = !es_adopted_wait(0) || on_wake();
    }
    if (!relay.leave) {
        es_adopted_end_all();
    }
    return NULL;
}

static void wake_relay(void)
{
    const uint64_t one = 1;

    if (write(relay.wake, &one, sizeof one) < 0) {
        return; /* the counter is full, so the relay wakes anyway */
    }
}

es_err_t es_relay_add(SSL *ssl, int down, int up)
{
    es_adopted_t *s = relay.running ? calloc(1, sizeof *s) : NULL;

    if (!s) {
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(ssl);
        close(down);
        close(up);
        return ES_ENOMEM;
    }
    s->ssl = ssl;
    s->up = (es_side_t) { .stream = s, .fd = up };
    s->down = (es_side_t) { .stream = s, .fd = down };
    pthread_mutex_lock(&relay.lock);
    s->next = relay.fresh;
    relay.fresh = s;
    pthread_mutex_unlock(&relay.lock);
    wake_relay();
    return ES_OK;
}

/* ---- the end of the child ---- */

static bool in_main_thread(void)
{
    return syscall(SYS_gettid) == getpid();
}

/* httpd's handlers of these end a prefork child; while one runs, its signal is blocked. */
static bool in_signal_handler(void)
{
    sigset_t blocked;

    return pthread_sigmask(SIG_BLOCK, NULL, &blocked) != 0 || sigismember(&blocked, SIGTERM) ||
           sigismember(&blocked, SIGHUP);
}

/* Besides this one and the relay's. Not known counts as some. */
static bool has_other_threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    if (!dir) {
        return true;
    }
    for (entry = readdir(dir); entry; entry = readdir(dir)) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    return count > 2;
}

static bool keeper_is_possible(void)
{
    if (!in_main_thread()) {
        return false;
    }
    if (!es_mpm_is_threaded()) {
        return !in_signal_handler();
    }
    return es_stopping() == ES_STOPPING_GRACEFULLY || !has_other_threads();
}

/* The relay's thread is gone, the streams are this one's. */
static void leave_to_keeper(void)
{
    const unsigned count = es_adopted_count();
    pid_t pid;

    if (count == 0) {
        return;
    }
    pid = es_keeper_fork();
    if (pid < 0) {
        ap_log_error(APLOG_MARK, APLOG_ERR, errno, relay.server,
                     ESLOGNO(0082) "a child that ends cannot fork a keeper: its %u TLS streams end",
                     count);
        es_adopted_end_all();
        return;
    }
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, relay.server,
                 ESLOGNO(0081) "a child ends, its %u TLS streams go on in a keeper (pid %d)", count,
                 (int)pid);
}

/* The child ends. Runs before any pool of the child goes. Its workers are gone by now; but prefork
 * ends in a signal handler, which may have interrupted es_relay_add in this very thread: then the
 * lock never comes free, and the end of the process has to do. */
static apr_status_t relay_stop(void *data)
{
    enum { TRIES = 100 }; /* of a millisecond */
    const bool leave = keeper_is_possible();
    int tries = 0;

    (void)data;
    while (pthread_mutex_trylock(&relay.lock) != 0) {
        if (++tries == TRIES) {
            return APR_SUCCESS;
        }
        apr_sleep(apr_time_from_msec(1));
    }
    relay.stop = true;
    relay.leave = leave;
    pthread_mutex_unlock(&relay.lock);
    wake_relay();
    pthread_join(relay.thread, NULL);
    relay.running = false;
    if (leave) {
        leave_to_keeper();
    }
    es_adopted_close();
    close(relay.wake);
    return APR_SUCCESS;
}

/* ---- its beginning ---- */

/* With every signal blocked: httpd's handlers, which end the child, are for its own threads. */
static int start_thread(void)
{
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&relay.thread, NULL, relay_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

void es_relay_child_init(apr_pool_t *pchild, server_rec *s)
{
    relay.server = s;
    relay.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (relay.wake < 0 || !es_adopted_open(relay.wake) || start_thread() != 0) {
        ap_log_error(
            APLOG_MARK, APLOG_ERR, errno, s,
            ESLOGNO(0080) "a child has no relay thread: its TLS streams take a worker each");
        return;
    }
    relay.running = true;
    es_raise_descriptor_limit(s);
    apr_pool_pre_cleanup_register(pchild, NULL, relay_stop);
}

bool es_relay_runs(void)
{
    return relay.running;
}
