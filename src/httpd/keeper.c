/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: what a child becomes that ends while it carries adopted TLS streams.
 *
 *   child ──fork──▶ keeper: the same SSL objects, the same descriptors, one thread, the same loop
 *     └── exits: its slot of the scoreboard is free
 *
 * A keeper has the descriptors of its streams and nothing else of httpd's: no listener, no log, no
 * door, no link to the hub, and it never touches the scoreboard or a pool. To the hub nothing has
 * changed. It ends by _exit when its last stream has ended; on SIGTERM and SIGINT, which a stop
 * sends to httpd's whole process group, at once, after what the clients take without waiting.
 *
 * Threads of other modules are not there any more, but a lock that one of them held at the fork
 * stays taken. A keeper that ran into one would hang for ever, so it is killed by SIGALRM when one
 * round of its loop takes too long; its clients reconnect.
 */
#include "es_httpd.h"
#include "relay_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    KEEPER_LEAVE_MS = 5000, /* for the rest of a stream that the hub has ended: on a stop all have,
                               and nobody waits for long */
    ROUND_SECONDS = 30
};

/* mod_ssl's callbacks want to take a session that has gone bad out of a cache whose locks and log
 * are not here: OpenSSL calls them for sessions with an id. The child's own copy keeps it. */
static void forget_sessions(void)
{
    const es_adopted_t *s;

    for (s = es_adopted_first(); s; s = s->next) {
        SSL_SESSION *session = SSL_get_session(s->ssl);

        if (session) {
            (void)SSL_SESSION_set1_id(session, (const unsigned char *)"", 0);
        }
    }
}

/* ---- descriptors ---- */

static int compare_int(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

/* Those of the streams, sorted. NULL: out of memory. */
static int *descriptors_to_keep(size_t *count)
{
    int *keep = malloc(((size_t)es_adopted_count() * 2 + 1) * sizeof *keep);
    const es_adopted_t *s;
    size_t n = 0;

    if (!keep) {
        return NULL;
    }
    for (s = es_adopted_first(); s; s = s->next) {
        keep[n++] = s->up.fd;
        keep[n++] = s->down.fd;
    }
    qsort(keep, n, sizeof *keep, compare_int);
    *count = n;
    return keep;
}

static void close_unless_kept(int fd, const int *keep, size_t count)
{
    if (fd > STDERR_FILENO && !bsearch(&fd, keep, count, sizeof *keep, compare_int)) {
        close(fd);
    }
}

/* Without /proc every number that there may be is tried. */
static void close_each(const int *keep, size_t count)
{
    struct rlimit lim;
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    rlim_t fd;

    if (dir) {
        for (entry = readdir(dir); entry; entry = readdir(dir)) {
            const int n = (int)apr_strtoi64(entry->d_name, NULL, 10); /* "." is 0 */

            if (n != dirfd(dir)) {
                close_unless_kept(n, keep, count);
            }
        }
        closedir(dir);
    }
    else if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        for (fd = 0; fd < lim.rlim_cur && fd < INT_MAX; fd++) {
            close_unless_kept((int)fd, keep, count);
        }
    }
}

/* All but those of the streams; the first three numbers lead nowhere. */
static bool close_descriptors(void)
{
    size_t count = 0;
    int *keep = descriptors_to_keep(&count);
    const int null = keep ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    int fd;

    if (null < 0) {
        free(keep);
        return false;
    }
    for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (!bsearch(&fd, keep, count, sizeof *keep, compare_int)) {
            (void)dup2(null, fd);
        }
    }
    es_adopted_close();
    close_each(keep, count);
    free(keep);
    return true;
}

/* ---- the process ---- */

__attribute__((noreturn)) static void keep_on(void)
{
    bool told = false;
    int stop;

    alarm(ROUND_SECONDS);
    signal(SIGALRM, SIG_DFL);
    es_set_title("httpd: eventstream keeper", "es-keeper");
    forget_sessions();
    if (!close_descriptors()) {
        _exit(1);
    }
    stop = es_take_signals();
    if (stop < 0 || !es_adopted_open(stop)) {
        es_adopted_end_all();
        _exit(1);
    }
    es_adopted_leave_within(KEEPER_LEAVE_MS);
    es_adopted_rejoin();
    alarm(0);
    while (es_adopted_count() > 0 && !told) {
        told = es_adopted_wait(ROUND_SECONDS);
    }
    alarm(ROUND_SECONDS);
    es_adopted_flush();
    es_adopted_end_all();
    _exit(0);
}

/* The parent closes its copies, so that the end of a stream is one: a descriptor that is open here
 * too makes neither the hub nor the client notice. Nothing is sent. */
static void forget_descriptors(void)
{
    const es_adopted_t *s;

    for (s = es_adopted_first(); s; s = s->next) {
        close(s->up.fd);
        close(s->down.fd);
    }
}

pid_t es_keeper_fork(void)
{
    sigset_t all, before;
    pid_t pid;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    error = errno;
    if (pid == 0) {
        keep_on();
    }
    if (pid > 0) {
        forget_descriptors();
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}
