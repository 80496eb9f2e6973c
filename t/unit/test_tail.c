/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroMQ at a restart (tail.c, es_pull_unbind): real PUSH sockets that stay connected while one hub
 * hands over to the next. As for test_pull.c, the thread sanitizer must not look into libzmq.
 */
#include "handover_fixture.h"

#include <netinet/in.h>
#include <zmq.h>

static char directory[] = "/tmp/es-test-XXXXXX";
static char ipc_endpoint[64];

/* A port of 127.0.0.1 that is free now. */
static const char *tcp_endpoint(void)
{
    static char endpoint[32];
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(a.sin_port));
    return endpoint;
}

typedef struct pusher {
    void *context, *socket, *monitor;
    int sent;
} pusher_t;

static pusher_t pusher_open(const char *endpoint)
{
    pusher_t p = { .context = zmq_ctx_new() };
    const int linger = FX_PATIENCE;

    assert_non_null(p.context);
    p.socket = zmq_socket(p.context, ZMQ_PUSH);
    assert_non_null(p.socket);
    assert_int_equal(zmq_setsockopt(p.socket, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_setsockopt(p.socket, ZMQ_SNDTIMEO, &linger, sizeof linger), 0);
    assert_int_equal(zmq_socket_monitor(p.socket, "inproc://m", ZMQ_EVENT_DISCONNECTED), 0);
    p.monitor = zmq_socket(p.context, ZMQ_PAIR);
    assert_int_equal(zmq_connect(p.monitor, "inproc://m"), 0);
    assert_int_equal(zmq_connect(p.socket, endpoint), 0);
    return p;
}

/* Has it lost its connection since it is open? */
static bool was_disconnected(const pusher_t *p)
{
    char c[16];

    return zmq_recv(p->monitor, c, sizeof c, ZMQ_DONTWAIT) >= 0;
}

/* Six digits and a line feed on channel a. */
static void push(pusher_t *p, int count)
{
    for (; count > 0; count--, p->sent++) {
        char item[128];
        const int n =
            snprintf(item, sizeof item,
                     "J{\"channel\": \"a\", \"http-stream\": {\"content\": \"%06d\\n\"}}", p->sent);

        assert_int_equal(zmq_send(p->socket, item, (size_t)n, 0), n);
    }
}

static void read_pushed(int client, int from, int to)
{
    char line[8];
    int i;

    for (i = from; i < to; i++) {
        assert_int_equal(fx_read(client, line, 7), 7);
        line[6] = '\0';
        assert_int_equal(strtol(line, NULL, 10), i);
    }
}

static void pusher_close(const pusher_t *p)
{
    zmq_close(p->monitor);
    zmq_close(p->socket);
    zmq_ctx_term(p->context);
}

/* One publisher keeps its connection over two restarts; what it sends meanwhile comes once and in
 * order. Another one comes after the first restart and reaches the hub of that time. */
static void check_a_publisher_stays(const char *endpoint)
{
    fx_hub_t a, b, c;
    int link, client;
    pusher_t first, second;

    fx_hub_start(&a, 2, LAG, &endpoint, 1);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    first = pusher_open(endpoint);
    push(&first, 500);
    read_pushed(client, 0, 1);
    push(&first, 500);
    fx_hub_next(&b, &a, 1, LAG);
    push(&first, 1000);
    read_pushed(client, 1, 2000);
    assert_true(fx_log_wait(&a.log, "ES0353", 1));
    assert_true(fx_log_wait(&b.log, "listening", 1));
    assert_int_equal(fx_log_count(&b.log, "cannot be bound"), 0);
    second = pusher_open(endpoint);
    second.sent = 2000;
    push(&second, 10);
    read_pushed(client, 2000, 2010);
    fx_hub_next(&c, &b, 3, LAG);
    first.sent = 2010;
    push(&first, 1000);
    read_pushed(client, 2010, 3010);
    assert_true(fx_log_wait(&c.log, "listening", 1));
    assert_int_equal(fx_log_count(&c.log, "cannot be bound"), 0);
    second.sent = 3010;
    push(&second, 1000);
    read_pushed(client, 3010, 4010);
    assert_stat(link, "published", 4010);
    assert_stat(link, "refused", 0);
    assert_false(was_disconnected(&first));
    assert_false(was_disconnected(&second));
    /* Each tail ends with its publisher, in whatever order; the last words are not lost. */
    first.sent = 4010;
    push(&first, 100);
    pusher_close(&first);
    fx_hub_join(&a, FX_NOT_COUNTED);
    read_pushed(client, 4010, 4110);
    pusher_close(&second);
    fx_hub_join(&b, FX_NOT_COUNTED);
    assert_silent(client);
    close(client);
    close(link);
    fx_hub_stop(&c, 0);
}

static void a_publisher_stays_over_tcp(void **state)
{
    (void)state;
    check_a_publisher_stays(tcp_endpoint());
}

static void a_publisher_stays_over_ipc(void **state)
{
    (void)state;
    check_a_publisher_stays(ipc_endpoint);
}

static void without_publishers_there_is_no_tail(void **state)
{
    const char *endpoints[2] = { ipc_endpoint, NULL };
    fx_hub_t a, b;
    pusher_t p;
    int link, client;

    (void)state;
    endpoints[1] = tcp_endpoint();
    fx_hub_start(&a, 1, LAG, endpoints, 2);
    p = pusher_open(endpoints[1]);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    push(&p, 1);
    read_pushed(client, 0, 1);
    pusher_close(&p); /* it has gone before */
    fx_hub_next(&b, &a, 1, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    p = pusher_open(endpoints[0]);
    push(&p, 1);
    read_pushed(client, 0, 1);
    assert_int_equal(fx_log_count(&b.log, "cannot be bound"), 0);
    pusher_close(&p);
    close(client);
    close(link);
    fx_hub_stop(&b, 0);
}

static void a_tail_ends_on_stop(void **state)
{
    const char *endpoint = tcp_endpoint();
    fx_hub_t a, b;
    pusher_t p;
    int link, client;

    (void)state;
    fx_hub_start(&a, 1, LAG, &endpoint, 1);
    p = pusher_open(endpoint);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    push(&p, 1);
    read_pushed(client, 0, 1);
    fx_hub_next(&b, &a, 1, LAG);
    assert_true(fx_log_wait(&a.log, "ES0353", 1));
    fx_hub_stop(&a, FX_NOT_COUNTED);
    /* The publisher connects again, to the next hub. */
    push(&p, 1);
    read_pushed(client, 1, 2);
    assert_true(was_disconnected(&p));
    pusher_close(&p);
    close(client);
    close(link);
    fx_hub_stop(&b, 0);
}

static void a_tail_ends_with_the_next_hub(void **state)
{
    const char *endpoint = ipc_endpoint;
    fx_hub_t a, b;
    pusher_t p;
    int link, client;

    (void)state;
    fx_hub_start(&a, 1, LAG, &endpoint, 1);
    p = pusher_open(endpoint);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    push(&p, 1);
    read_pushed(client, 0, 1);
    fx_hub_next(&b, &a, 1, LAG);
    assert_true(fx_log_wait(&a.log, "ES0353", 1));
    assert_stat(link, "streams", 1);
    fx_hub_stop(&b, FX_NOT_COUNTED);
    fx_hub_join(&a, FX_NOT_COUNTED); /* though its publisher is still there */
    pusher_close(&p);
    assert_end(client);
    close(client);
    close(link);
    assert_int_equal(fx_fd_count(), a.fds);
}

/* The next hub dies: the old one listens again, and whoever was connected never noticed. */
static void the_endpoint_is_bound_again(void **state)
{
    const char *endpoint = tcp_endpoint();
    fx_hub_t a;
    pusher_t p, late;
    int link, client, heir;

    (void)state;
    fx_hub_start(&a, 1, LAG, &endpoint, 1);
    p = pusher_open(endpoint);
    link = fx_link(&a);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    push(&p, 1);
    read_pushed(client, 0, 1);
    heir = fx_heir(&a);
    assert_true(fx_readable(heir));
    late = pusher_open(endpoint);
    close(heir);
    push(&p, 10);
    read_pushed(client, 1, 11);
    late.sent = 11;
    push(&late, 10);
    read_pushed(client, 11, 21);
    assert_false(was_disconnected(&p));
    assert_int_equal(fx_log_count(&a.log, "listening"), 2);
    assert_int_equal(fx_log_count(&a.log, "cannot be bound"), 0);
    pusher_close(&p);
    pusher_close(&late);
    close(client);
    close(link);
    fx_hub_stop(&a, 0);
}

static int set_up(void **state)
{
    if (!mkdtemp(directory)) {
        return -1;
    }
    snprintf(ipc_endpoint, sizeof ipc_endpoint, "ipc://%s/hub", directory);
    return fx_apr_up(state);
}

static int tear_down(void **state)
{
    unlink(ipc_endpoint + strlen("ipc://"));
    return rmdir(directory) == 0 ? fx_apr_down(state) : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_publisher_stays_over_tcp),
        cmocka_unit_test(a_publisher_stays_over_ipc),
        cmocka_unit_test(without_publishers_there_is_no_tail),
        cmocka_unit_test(a_tail_ends_on_stop),
        cmocka_unit_test(a_tail_ends_with_the_next_hub),
        cmocka_unit_test(the_endpoint_is_bound_again),
    };
    return cmocka_run_group_tests_name("tail", tests, set_up, tear_down);
}
