/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent's part: it makes the door, forks the hub, and forks it again when it dies.
 *
 *   post_config   door (once for the life of the server), then the hub of this configuration
 *   hub dies      httpd's main loop reaps it and calls hub_gone(): a new one is forked at once
 *   it keeps dying   after five deaths within ten seconds each: tried again every ten seconds
 *   restart       the pool of the configuration goes; its hub runs on until the hub of the next one
 *                 asks for its streams: leave_hub()
 *   stop          the hub is stopped: stop_hub()
 *
 * The door outlives configurations: it hangs on the process' pool, and so does the list of hubs
 * that are left. A child of the old configuration that still answers requests during a graceful
 * restart reaches the new hub through it.
 *
 * Only the parent's main thread runs this, but es_supervise_child_init and es_supervise_door.
 */
#include "es_httpd.h"

#include "ap_mpm.h"
#include "apr_portable.h"
#include "apr_signal.h"
#include "apr_thread_proc.h"
#include "mpm_common.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SHORT_LIFE = 10, /* seconds: a hub that dies younger than this is counted */
    SHORT_LIVES_MAX = 5,
    STOP_WAIT = 5000, /* milliseconds that a hub gets to end its streams */
    STOP_STEP = 10
};

typedef struct supervisor {
    server_rec *server;
    apr_pool_t *pconf;
    apr_proc_t proc;
    bool running; /* proc is alive, as far as we know */
    bool watched; /* httpd's list of other children has it; the pool of the configuration may take
                     it off first */
    bool stopping;
    apr_time_t started;
    int short_lives; /* in a row */
} supervisor_t;

static supervisor_t hub; /* of this configuration */
static es_door_t *door;  /* in the pool of the process */

static void start_hub(void);
static void forget_serving(pid_t pid);

static void on_sigchld(int sig)
{
    (void)sig; /* its one use is to interrupt the main loop's sleep, so that a dead hub is seen at
                  once */
}

/* httpd reaped the hub, or lost it. */
static void hub_gone(int reason, void *data, apr_wait_t status)
{
    const apr_time_t age = apr_time_now() - hub.started;
    int state = AP_MPMQ_RUNNING;

    if (reason == APR_OC_REASON_UNREGISTER) {
        hub.watched = false;
        return;
    }
    if (reason != APR_OC_REASON_DEATH && reason != APR_OC_REASON_LOST) {
        return;
    }
    apr_proc_other_child_unregister(data);
    forget_serving(hub.proc.pid);
    hub.running = false;
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        return;
    }
    if (hub.stopping) {
        return;
    }
    if (reason == APR_OC_REASON_LOST) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, hub.server, ESLOGNO(0001) "the hub (pid %d) is lost",
                     (int)hub.proc.pid);
    }
    else {
        ap_log_error(
            APLOG_MARK, APLOG_ERR, 0, hub.server,
            ESLOGNO(0002) "the hub (pid %d) ended by itself (%s %d); its streams are cut, their "
                          "clients reconnect to a new hub",
            (int)hub.proc.pid, WIFSIGNALED(status) ? "signal" : "exit status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    hub.short_lives = age < apr_time_from_sec(SHORT_LIFE) ? hub.short_lives + 1 : 0;
    if (hub.short_lives >= SHORT_LIVES_MAX) {
        ap_log_error(
            APLOG_MARK, APLOG_CRIT, 0, hub.server,
            ESLOGNO(0003) "the hub died %d times in a row within %d s of its start; it is tried "
                          "again every 10 s",
            hub.short_lives, SHORT_LIFE);
        return;
    }
    start_hub();
}

/* SIGTERM is blocked over the fork: one that comes before the hub listens for it waits there, and
 * does not run httpd's handler in the wrong process. */
static void start_hub(void)
{
    sigset_t block, before;
    apr_status_t rv;

    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGINT);
    sigprocmask(SIG_BLOCK, &block, &before);
    rv = apr_proc_fork(&hub.proc, hub.pconf);
    if (rv == APR_INCHILD) {
        es_hub_main(hub.server, hub.pconf, door);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (rv != APR_INPARENT) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, hub.server,
                     ESLOGNO(0004) "cannot fork the hub; it is tried again every 10 s");
        return;
    }
    hub.started = apr_time_now();
    hub.running = true;
    hub.watched = true;
    apr_proc_other_child_register(&hub.proc, hub_gone, &hub.proc, NULL, hub.pconf);
}

int es_supervise_monitor(apr_pool_t *p, server_rec *s)
{
    (void)p;
    (void)s;
    if (hub.pconf && !hub.running && !hub.stopping) {
        start_hub();
    }
    return DECLINED;
}

/* A hub that is gone without a word serves no more. */
static void forget_serving(pid_t pid)
{
    (void)atomic_compare_exchange_strong(&door->page->serving, &pid, 0);
}

/* Waits until the hub is gone; true when it is. */
static bool wait_for_end(pid_t pid)
{
    int waited;

    for (waited = 0; waited < STOP_WAIT; waited += STOP_STEP) {
        const pid_t got = waitpid(pid, NULL, WNOHANG);

        if (got == pid || (got < 0 && errno == ECHILD)) {
            return true;
        }
        apr_sleep(apr_time_from_msec(STOP_STEP));
    }
    return false;
}

static void stop_hub(void)
{
    kill(hub.proc.pid, SIGTERM);
    if (!wait_for_end(hub.proc.pid)) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, hub.server,
                     ESLOGNO(0005) "the hub (pid %d) did not stop within %d ms and is killed",
                     (int)hub.proc.pid, STOP_WAIT);
        kill(hub.proc.pid, SIGKILL);
        waitpid(hub.proc.pid, NULL, 0);
    }
}

/* It goes on to serve until the next one knocks. When there is no place in the list its end is not
 * noticed by us; httpd reaps it all the same. */
static void leave_hub(void)
{
    int i;

    for (i = 0; i < ES_OLD_HUBS && door->old[i] != 0; i++) {}
    if (i < ES_OLD_HUBS) {
        door->old[i] = hub.proc.pid;
    }
    if (es_wire_knock(door->child_end, ES_WIRE_EXPECT, door->generation, -1) != ES_OK) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, errno, hub.server,
                     ESLOGNO(0007) "the hub (pid %d) cannot be told of the restart",
                     (int)hub.proc.pid);
    }
}

/* The configuration's pool goes. */
static apr_status_t end_configuration(void *data)
{
    (void)data;
    hub.stopping = true;
    signal(SIGCHLD, SIG_DFL); /* the handler's code is unloaded with this configuration */
    if (!hub.running) {
        return APR_SUCCESS;
    }
    if (hub.watched) { /* what is not in the list must not be taken off: APR does not look */
        apr_proc_other_child_unregister(&hub.proc);
    }
    hub.running = false;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_DESTROY_CONFIG) {
        leave_hub();
    }
    else {
        stop_hub();
    }
    return APR_SUCCESS;
}

/* A hub of a configuration before ended, as it should; or it was killed. */
static void old_hub_gone(int reason, void *data, apr_wait_t status)
{
    apr_proc_t *proc = data;
    int i;

    if (reason != APR_OC_REASON_DEATH && reason != APR_OC_REASON_LOST) {
        return;
    }
    apr_proc_other_child_unregister(proc);
    forget_serving(proc->pid);
    for (i = 0; i < ES_OLD_HUBS; i++) {
        if (door->old[i] == proc->pid) {
            door->old[i] = 0;
        }
    }
    if (reason == APR_OC_REASON_DEATH && WIFSIGNALED(status)) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, hub.server,
                     ESLOGNO(0008) "a hub of a configuration before (pid %d) ended by signal %d",
                     (int)proc->pid, WTERMSIG(status));
    }
}

/* Those that are left are ours to reap. One that is dead already must not be asked for its streams.
 */
static void watch_old_hubs(apr_pool_t *pconf)
{
    int i;

    for (i = 0; i < ES_OLD_HUBS; i++) {
        const pid_t pid = door->old[i];
        apr_proc_t *proc;

        if (pid == 0) {
            continue;
        }
        if (waitpid(pid, NULL, WNOHANG) != 0) {
            forget_serving(pid);
            door->old[i] = 0;
            continue;
        }
        proc = apr_pcalloc(pconf, sizeof *proc);
        proc->pid = pid;
        apr_proc_other_child_register(proc, old_hub_gone, proc, NULL, pconf);
    }
}

/* A request thread's hello waits in the door while no hub runs, so a child's end must not block for
 * long and must hold some hundreds of them. */
static apr_status_t open_door(es_door_t *d)
{
    int pair[2];
    void *page =
        mmap(NULL, sizeof *d->page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED) {
        return errno;
    }
    d->page = page;
    atomic_init(&d->page->serving, 0);
    atomic_init(&d->page->newest, 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return errno;
    }
    d->version = ES_DOOR_VERSION;
    d->hub_end = pair[0];
    d->child_end = pair[1];
    return APR_SUCCESS;
}

static apr_status_t find_door(server_rec *s)
{
    static const char key[] = "mod_eventstream-door";
    apr_pool_t *pool = s->process->pool;
    void *kept = NULL;
    apr_status_t rv = APR_SUCCESS;

    apr_pool_userdata_get(&kept, key, pool);
    door = kept;
    if (door && door->version != ES_DOOR_VERSION) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, s,
                     ESLOGNO(0009) "this build of the module cannot take over from the one that "
                                   "httpd was started with: stop httpd and start it");
        return APR_EMISMATCH;
    }
    if (!door) {
        door = apr_pcalloc(pool, sizeof *door);
        rv = open_door(door);
        if (rv == APR_SUCCESS) {
            apr_pool_userdata_set(door, key, apr_pool_cleanup_null, pool);
        }
    }
    return rv;
}

int es_supervise_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    struct sigaction interrupt = { .sa_handler = on_sigchld }; /* without SA_RESTART */
    apr_status_t rv;

    (void)plog;
    (void)ptemp;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK; /* the first of two readings of the configuration */
    }
    rv = find_door(s);
    if (rv == APR_SUCCESS) {
        rv = es_random_key_make(pconf);
    }
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rv, s,
                     ESLOGNO(0006) "cannot prepare the way to the hub");
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    sigaction(SIGCHLD, &interrupt, NULL);
    memset(&hub, 0, sizeof hub);
    hub.server = s;
    hub.pconf = pconf;
    atomic_store(&door->page->newest, ++door->generation);
    watch_old_hubs(pconf);
    start_hub();
    if (!hub.running) {
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    apr_pool_cleanup_register(pconf, NULL, end_configuration, apr_pool_cleanup_null);
    return OK;
}

void es_supervise_child_init(apr_pool_t *pchild, server_rec *s)
{
    (void)pchild;
    (void)s;
    signal(SIGCHLD, SIG_DFL); /* the parent's business alone */
    if (door->hub_end >= 0) {
        close(door->hub_end);
        door->hub_end = -1;
    }
    hub.running = false; /* the hub is the parent's child: this process must never signal it */
}

int es_supervise_door(void)
{
    return door->child_end;
}
