/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that ZeroMQ uses and that a hub gives up while their connections go on.
 *
 * zmq_unbind closes a listener with every connection that it has accepted, and with them the
 * messages that are under way. At a restart the endpoint has to become free for the next hub all
 * the same. So the listening socket is replaced, under its own number, by one that nobody can
 * connect to: the endpoint is free, and ZeroMQ goes on with what it has.
 *
 * ZeroMQ must not notice: it will one day take that number out of its epoll set and abort when it
 * is not there. The kernel took it out with the socket, so it is put back, with the same data,
 * which the kernel tells in /proc/self/fdinfo.
 *
 * For ipc:// the socket is made here and not by ZeroMQ, which at its own end would remove the
 * socket file, and by then that is the next hub's.
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 100 /* ZeroMQ's own */ };

/* ---- giving one up ---- */

/* Is `fd` in the epoll set `set`, and how? */
static bool find_in_set(int set, int fd, struct epoll_event *ret)
{
    char path[64], line[256];
    FILE *f;
    bool found = false;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", set);
    f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        int tfd = -1;
        unsigned int events = 0;
        unsigned long long data = 0;

        if (sscanf(line, "tfd: %d events: %x data: %llx", &tfd, &events, &data) == 3 && tfd == fd) {
            *ret = (struct epoll_event) { .events = events, .data.u64 = data };
            found = true;
        }
    }
    if (f) {
        (void)fclose(f);
    }
    return found;
}

static bool is_epoll(int dir, const char *name)
{
    static const char epoll[] = "anon_inode:[eventpoll]";
    char to[sizeof epoll];
    const ssize_t n = readlinkat(dir, name, to, sizeof to);

    return n == (ssize_t)sizeof epoll - 1 && memcmp(to, epoll, sizeof epoll - 1) == 0;
}

/* The epoll set of this process that watches `fd`; -1: none. */
static int find_set(int fd, struct epoll_event *ret)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *e;
    int set = -1;

    for (e = dir ? readdir(dir) : NULL; e && set < 0; e = readdir(dir)) {
        if (is_epoll(dirfd(dir), e->d_name)) {
            const int candidate = (int)strtol(e->d_name, NULL, 10);

            set = find_in_set(candidate, fd, ret) ? candidate : -1;
        }
    }
    if (dir) {
        (void)closedir(dir);
    }
    return set;
}

/* A listening socket with a name that the kernel chose and nobody knows. */
static int make_inert(void)
{
    const struct sockaddr_un any = { .sun_family = AF_UNIX };
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && (bind(fd, (const struct sockaddr *)&any, sizeof any.sun_family) != 0 ||
                    listen(fd, 0) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

bool es_listener_silence(int fd)
{
    struct epoll_event ev;
    const int set = find_set(fd, &ev);
    const int inert = set >= 0 ? make_inert() : -1;
    bool done = false;

    if (inert < 0) {
        return false;
    }
    done = dup3(inert, fd, O_CLOEXEC) == fd && epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) == 0;
    close(inert);
    return done;
}

/* ---- ipc ---- */

/* A name that begins with @ is in the abstract space: no file. */
static bool ipc_address(const char *path, struct sockaddr_un *ret, socklen_t *ret_len)
{
    const size_t n = strlen(path);

    if (n == 0 || n >= sizeof ret->sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    memcpy(ret->sun_path, path, n);
    *ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    if (path[0] == '@') {
        ret->sun_path[0] = '\0';
        (*ret_len)--;
    }
    return true;
}

/* Does somebody listen there? A file that is left over is removed. */
static bool is_taken(const struct sockaddr_un *address, socklen_t len)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const bool answers =
        fd >= 0 && (connect(fd, (const struct sockaddr *)address, len) == 0 || errno == EAGAIN);

    if (fd >= 0) {
        close(fd);
    }
    if (!answers && address->sun_path[0] != '\0') {
        (void)unlink(address->sun_path);
    }
    return answers;
}

int es_listener_ipc(const char *path)
{
    struct sockaddr_un address;
    socklen_t len;
    int fd, saved;

    if (!ipc_address(path, &address, &len)) {
        return -1;
    }
    if (is_taken(&address, len)) {
        errno = EADDRINUSE;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        (bind(fd, (const struct sockaddr *)&address, len) != 0 || listen(fd, BACKLOG) != 0)) {
        saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

void es_listener_ipc_remove(const char *path)
{
    if (path[0] != '@') {
        (void)unlink(path);
    }
}
