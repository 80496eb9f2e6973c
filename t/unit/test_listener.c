/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that are given up while their connections go on (listener.c), without ZeroMQ:
 * the number stays in its epoll set, the endpoint is free, what was accepted goes on.
 */
#include "hub_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/un.h>

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in) { .sin_family = AF_INET,
                                  .sin_port = port,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* Listens at a port, 0: any. -1: it is taken. */
static int listen_at(uint16_t port, uint16_t *ret)
{
    struct sockaddr_in a = loopback(port);
    socklen_t len = sizeof a;
    const int one = 1;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 5) != 0) {
        close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *ret = a.sin_port;
    return fd;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = loopback(port);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void a_listener_is_silenced(void **state)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 0x1234567890abcdefULL };
    struct epoll_event got = { 0 };
    const size_t before = fx_fd_count();
    uint16_t port = 0, again = 0;
    const int set = epoll_create1(EPOLL_CLOEXEC);
    const int fd = listen_at(0, &port);
    const int client = connect_to(port);
    const int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    int next;

    (void)state;
    assert_true(set >= 0 && fd >= 0 && accepted >= 0);
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev), 0);
    assert_int_equal(listen_at(port, &again), -1);
    assert_true(es_listener_silence(fd));
    next = listen_at(port, &again); /* the endpoint is free */
    assert_true(next >= 0);
    close(connect_to(port)); /* and what connects there wakes nobody here */
    assert_int_equal(epoll_wait(set, &got, 1, 0), 0);
    assert_int_equal(write(client, "x", 1), 1); /* what was accepted goes on */
    assert_int_equal(fx_read(accepted, (char *)&got, 1), 1);
    ev.events = EPOLLIN | EPOLLOUT; /* the number is still there, for its owner to change */
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_MOD, fd, &ev), 0);
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL), 0);
    close(next);
    close(accepted);
    close(client);
    close(fd);
    close(set);
    assert_int_equal(fx_fd_count(), before);
}

static void one_that_nobody_watches_is_left_alone(void **state)
{
    const size_t before = fx_fd_count();
    uint16_t port = 0, again = 0;
    const int fd = listen_at(0, &port);

    (void)state;
    assert_false(es_listener_silence(fd));
    assert_int_equal(listen_at(port, &again), -1);
    close(connect_to(port)); /* it listens as before */
    close(fd);
    assert_int_equal(fx_fd_count(), before);
}

static void an_ipc_name_is_taken_once(void **state)
{
    char dir[] = "/tmp/es-test-XXXXXX", path[64], longer[sizeof(struct sockaddr_un) + 1];
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    fd = es_listener_ipc(path);
    assert_true(fd >= 0);
    assert_int_equal(es_listener_ipc(path), -1);
    assert_int_equal(errno, EADDRINUSE);
    close(fd);
    fd = es_listener_ipc(path); /* the file was left over */
    assert_true(fd >= 0);
    close(fd);
    es_listener_ipc_remove(path);
    assert_int_equal(rmdir(dir), 0); /* nothing is left in it */

    assert_int_equal(es_listener_ipc(""), -1);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(es_listener_ipc(longer), -1);
    assert_int_equal(errno, ENAMETOOLONG);
    assert_int_equal(es_listener_ipc("/nowhere/at/all"), -1);
    assert_int_equal(errno, ENOENT);
}

static void an_abstract_name_has_no_file(void **state)
{
    char name[64];
    int fd;

    (void)state;
    snprintf(name, sizeof name, "@es-test-%d", (int)getpid());
    fd = es_listener_ipc(name);
    assert_true(fd >= 0);
    assert_int_equal(es_listener_ipc(name), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(access(name, F_OK), -1);
    es_listener_ipc_remove(name);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listener_is_silenced),
        cmocka_unit_test(one_that_nobody_watches_is_left_alone),
        cmocka_unit_test(an_ipc_name_is_taken_once),
        cmocka_unit_test(an_abstract_name_has_no_file),
    };

    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
