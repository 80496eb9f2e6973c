/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub process, from the fork to its exit: gives up what httpd's parent had (listeners, root,
 * signal handlers), names itself, and runs layer 2 with httpd's log behind it.
 */
#include "es_httpd.h"

#include "ap_listen.h"
#include "ap_mpm.h"
#include "mpm_common.h"
#include "unixd.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The error log, for layers 1 and 2. The line is made on the stack: no pool may grow with the log.
 */
__attribute__((format(printf, 4, 0))) static void write_log(void *ctx, int level, const char *id,
                                                            const char *fmt, va_list args)
{
    server_rec *s = ctx;
    char line[1024];

    vsnprintf(line, sizeof line, fmt, args);
    ap_log_error(APLOG_MARK, level, 0, s, "%s: %s", id, line);
}

static uint64_t monotonic_ms(void *ctx)
{
    struct timespec t;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return (uint64_t)apr_time_as_msec(apr_time_now());
}

/* Each request that is being held or published may have a link to the hub open. */
static int spare_files(void)
{
    enum { OWN = 64 }; /* epoll, ZeroMQ, logs, what httpd left open */
    int daemons = 1, threads = 1;

    ap_mpm_query(AP_MPMQ_MAX_DAEMONS, &daemons);
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    return daemons * (threads > 1 ? threads : 1) + OWN;
}

/* ---- from hub to hub ---- */

static bool is_alive(pid_t pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}

/* Asks the hub that serves for all that it has. Returns our end of the way, 0: nothing is to come.
 */
static int ask_predecessor(server_rec *s, const es_door_t *door, pid_t pid)
{
    int pair[2];
    es_err_t err;

    if (pid == 0 || !is_alive(pid)) {
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        ap_log_error(APLOG_MARK, APLOG_ERR, errno, s,
                     ESLOGNO(0013) "no streams are taken from the hub before (pid %d)", (int)pid);
        return 0;
    }
    err = es_wire_knock(door->child_end, ES_WIRE_HAND_OVER, door->generation, pair[1]);
    close(pair[1]);
    if (err != ES_OK) {
        ap_log_error(APLOG_MARK, APLOG_ERR, errno, s,
                     ESLOGNO(0014) "the hub before (pid %d) cannot be asked for its streams",
                     (int)pid);
        close(pair[0]);
        return 0;
    }
    return pair[0];
}

static void serves(void *ctx)
{
    const es_door_t *door = ctx;

    atomic_store(&door->page->serving, getpid());
}

static void serves_no_more(const es_door_t *door)
{
    pid_t self = getpid();

    (void)atomic_compare_exchange_strong(&door->page->serving, &self, 0);
}

static void leaves(void *ctx)
{
    serves_no_more(ctx);
    es_set_title("httpd: eventstream tail", "eventstream-tl");
}

void es_hub_main(server_rec *s, apr_pool_t *p, es_door_t *door)
{
    const es_server_conf_t *conf = es_server_conf(s);
    es_hub_config_t config = {
        .threads = conf->threads == ES_UNSET ? 0 : conf->threads,
        .max_lag = conf->max_lag == ES_UNSET ? ES_HUB_LAG_DEFAULT : (size_t)conf->max_lag,
        .spare_files = spare_files(),
        .max_streams = (uint64_t)conf->max_streams,
        .max_per_client = (uint64_t)conf->max_per_client,
        .send_timeout_ms = es_send_timeout_ms(s),
        .stream_log = es_stream_log_fd(),
        .history = conf->history.directory,
        .history_bytes = conf->history.bytes,
        .history_age_ms = conf->history.age_ms,
        .history_count = conf->history.count,
        .pull = (const char *const *)conf->pull->elts,
        .pull_count = conf->pull->nelts,
        .door = door->hub_end,
        .serves = serves,
        .leaves = leaves,
        .life_ctx = door,
        .generation = door->generation,
        .log = { .write = write_log,
                 .ctx = s,
                 .level = ap_get_server_module_loglevel(s, APLOG_MODULE_INDEX) },
        .now_ms = monotonic_ms,
        .wall_ms = wall_ms
    };
    es_err_t err;

    config.stop = es_take_signals();
    if (config.stop < 0) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
                     ESLOGNO(0011) "the hub cannot start: signals");
        _exit(1);
    }
    es_set_title("httpd: eventstream hub", "eventstream-hub");
    ap_close_listeners();
    es_raise_descriptor_limit(s);
    if (ap_run_drop_privileges(p, s) != 0) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, s,
                     ESLOGNO(0012) "the hub cannot change to the server's User");
        _exit(1);
    }
    if (atomic_load(&door->page->newest) > door->generation) { /* overtaken by another restart */
        _exit(0);
    }
    config.predecessor_pid = atomic_load(&door->page->serving);
    config.predecessor = ask_predecessor(s, door, config.predecessor_pid);
    close(door->child_end); /* so that the end of every other process is seen */
    err = es_hub_run(&config);
    serves_no_more(door);
    _exit(err == ES_OK ? 0 : 1);
}
