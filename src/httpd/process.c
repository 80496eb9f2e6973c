/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process needs that httpd forked for us and that is no child of httpd's any more: the hub
 * and the keeper. Title, signals, descriptors. Each is called by such a process, or by a child that
 * is about to need many descriptors, in its only thread.
 */
#include "es_httpd.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Puts the title where ps looks (`name` is the thread's): over the command line that httpd was
 * started with, as long as that is. The kernel tells where it lies in fields 48 and 49 of
 * /proc/self/stat. Without them the thread name has to do. */
void es_set_title(const char *title, const char *name)
{
    unsigned long start = 0, end = 0;
    char line[2048];
    char *p;
    FILE *f = fopen("/proc/self/stat", "r");
    size_t n;
    int field;

    prctl(PR_SET_NAME, name, 0, 0, 0);
    if (!f) {
        return;
    }
    n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    p = strrchr(line, ')'); /* the end of field 2, which may hold blanks */
    for (field = 2; p && field < 48; field++) {
        p = strchr(p + 1, ' ');
    }
    if (!p || sscanf(p, "%lu %lu", &start, &end) != 2 || end <= start + 1) {
        return;
    }
    memset((char *)(uintptr_t)start, 0, end - start);
    apr_cpystrn((char *)(uintptr_t)start, title, end - start);
}

void es_raise_descriptor_limit(server_rec *s)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) != 0) {
            ap_log_error(
                APLOG_MARK, APLOG_WARNING, errno, s,
                ESLOGNO(0010) "the soft limit of descriptors cannot be raised to the hard one");
        }
    }
}

int es_take_signals(void)
{
    sigset_t set;

    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGWINCH, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write over the limit of a file's size fails, no more */
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_SETMASK, &set, NULL) != 0) {
        return -1;
    }
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}
