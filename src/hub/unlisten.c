/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a listening socket away from ZeroMQ and leaves it its connections. zmq_unbind() closes the
 * connections that were accepted at that endpoint, and what is under way on them is lost; there is
 * no call that stops the listening alone. But ZeroMQ knows the socket by its number, and its
 * monitor tells that number. So another socket gets the number: one that listens too, where nobody
 * ever connects. With the last reference to the real one the kernel frees the address.
 *
 * ZeroMQ's own thread waits on the number in an epoll set. The kernel takes the real socket out of
 * it; the other one must go in with the same data, because ZeroMQ takes it out at the end and
 * accepts no failure there. Which set it is, and the data, /proc tells.
 *
 * The intake's thread, while ZeroMQ's runs: in between it may call accept() on either socket, and
 * both are right.
 */
#include "hub_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* An epoll set of this process that has the descriptor in it. */
typedef struct place {
    int epoll;
    struct epoll_event event;
} place_t;

/* Looks for `fd` in what /proc says of an epoll set: "tfd: 9 events: 19 data: 7f0012345678 ...".
 * Of another kind of descriptor it says no such line. */
static bool look_into(int epoll, int fd, place_t *ret)
{
    char line[256];
    bool found = false;
    FILE *f;

    snprintf(line, sizeof line, "/proc/self/fdinfo/%d", epoll);
    f = fopen(line, "re");
    if (!f) {
        return false;
    }
    while (!found && fgets(line, sizeof line, f)) {
        uint64_t data = 0;
        unsigned int events = 0;
        int at = -1;

        if (sscanf(line, "tfd: %d events: %x data: %" SCNx64, &at, &events, &data) == 3 &&
            at == fd) {
            ret->epoll = epoll;
            ret->event = (struct epoll_event) { .events = events, .data.u64 = data };
            found = true;
        }
    }
    fclose(f);
    return found;
}

static bool find_place(int fd, place_t *ret)
{
    DIR *dir = opendir("/proc/self/fdinfo");
    const struct dirent *e;
    bool found = false;

    if (!dir) {
        return false;
    }
    for (e = readdir(dir); e && !found; e = readdir(dir)) {
        char *end = NULL;
        const long epoll = strtol(e->d_name, &end, 10);

        found = end != e->d_name && *end == '\0' && look_into((int)epoll, fd, ret);
    }
    closedir(dir);
    return found;
}

/* Listens at an address that the kernel makes up, and that nobody knows. */
static int listen_nowhere(void)
{
    const struct sockaddr_un any = { .sun_family = AF_UNIX };
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && (bind(fd, (const struct sockaddr *)&any, sizeof any.sun_family) != 0 ||
                    listen(fd, 1) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

bool es_unlisten(int fd)
{
    const int nowhere = listen_nowhere();
    place_t place;
    bool done;

    if (nowhere < 0) {
        return false;
    }
    done = find_place(fd, &place) && dup3(nowhere, fd, O_CLOEXEC) == fd;
    close(nowhere);
    return done && epoll_ctl(place.epoll, EPOLL_CTL_ADD, fd, &place.event) == 0;
}
