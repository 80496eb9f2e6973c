/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroMQ PULL of a whole hub, with real PUSH sockets on ipc:// and tcp://. libzmq is not built for
 * the thread sanitizer, which therefore must not look into it: ignore_noninstrumented_modules=1.
 */
#include "hub_fixture.h"

#include <netinet/in.h>
#include <sys/stat.h>
#include <zmq.h>

#define LAG ((size_t)ES_HUB_LAG_DEFAULT)

/* A directory for ipc:// sockets, and endpoints in it. */
static char directory[] = "/tmp/es-test-XXXXXX";

static const char *ipc(const char *name)
{
    static char endpoints[2][64];
    static int next;
    char *e = endpoints[next++ % 2];

    snprintf(e, sizeof endpoints[0], "ipc://%s/%s", directory, name);
    return e;
}

/* A port of 127.0.0.1 that is free now. */
static const char *tcp_endpoint(void)
{
    static char endpoint[32];
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(a.sin_port));
    return endpoint;
}

typedef struct pusher {
    void *context, *socket;
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
    assert_int_equal(zmq_connect(p.socket, endpoint), 0);
    return p;
}

static void push(const pusher_t *p, es_str_t part, int flags)
{
    assert_int_equal(zmq_send(p->socket, part.p, part.n, flags), part.n);
}

static void pusher_close(const pusher_t *p)
{
    zmq_close(p->socket);
    zmq_ctx_term(p->context);
}

#define JSON_ITEM(content)                                                                         \
    "{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": \"" content "\"}}}"
#define TNET_ITEM "64:7:channel,1:a,7:formats,36:11:http-stream,17:7:content,4:tnet,}}}"

static void takes_items_in_every_form(void **state)
{
    static const char big_head[] = "J{\"channel\": \"a\", \"formats\": {\"http-stream\": "
                                   "{\"content\": \"";
    fx_hub_t hub;
    pusher_t p;
    char *big = malloc(900000);
    const char *endpoints[2];
    int link, client, i;

    (void)state;
    assert_non_null(big);
    endpoints[0] = ipc("forms");
    endpoints[1] = tcp_endpoint();
    for (i = 0; i < 2; i++) {
        es_str_t large = { big, 900000 };

        fx_hub_start(&hub, 2, LAG, endpoints, 2);
        assert_true(fx_log_wait(&hub.log, "listening", 2));
        link = fx_link(&hub);
        client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
        assert_stat(link, "streams", 1);
        p = pusher_open(endpoints[i]);
        push(&p, S("J" JSON_ITEM("json")), 0);
        assert_next(client, "json");
        push(&p, S("T" TNET_ITEM), 0);
        assert_next(client, "tnet");
        push(&p, S(TNET_ITEM), 0);
        assert_next(client, "tnet");
        memset(big, 'x', large.n);
        memcpy(big, big_head, sizeof big_head - 1);
        memcpy(big + large.n - 4, "\"}}}", 4);
        push(&p, large, 0);
        fx_check_next(client,
                      (es_str_t) { big + sizeof big_head - 1, large.n - sizeof big_head - 3 },
                      __FILE__, __LINE__);
        assert_int_equal(fx_stat(link, "refused"), 0);
        assert_int_equal(fx_stat(link, "published"), 4);
        pusher_close(&p);
        close(client);
        close(link);
        fx_hub_stop(&hub, 0);
    }
    free(big);
}

static void refuses_garbage_and_goes_on(void **state)
{
    static const es_str_t garbage[] = {
        { "", 0 },
        { "J", 1 },
        { "T", 1 },
        { "J{}", 3 },
        { "nonsense", 8 },
        { "T999999:x", 9 },
        { "J{\"channel\": \"a\"}", 16 },
        { "\xff\xfe\x00\x01", 4 },
    };
    const char *endpoint = ipc("garbage");
    fx_hub_t hub;
    pusher_t p;
    size_t i;
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, &endpoint, 1);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    p = pusher_open(endpoint);
    for (i = 0; i < ES_COUNT(garbage); i++) {
        push(&p, garbage[i], 0);
    }
    /* A message of several parts is no item, even if its first or last part is one. */
    push(&p, S("J" JSON_ITEM("first part")), ZMQ_SNDMORE);
    push(&p, S("second"), 0);
    push(&p, S("first"), ZMQ_SNDMORE);
    push(&p, S(""), ZMQ_SNDMORE);
    push(&p, S("J" JSON_ITEM("last part")), 0);
    push(&p, S("J" JSON_ITEM("good")), 0);
    assert_next(client, "good");
    assert_silent(client);
    assert_int_equal(fx_stat(link, "refused"), ES_COUNT(garbage) + 2);
    assert_int_equal(fx_stat(link, "published"), 1);
    /* The log is not flooded: ten lines, the rest is counted in the next window. */
    for (i = 0; i < 1000; i++) {
        push(&p, S("nonsense"), 0);
    }
    push(&p, S("J" JSON_ITEM("still good")), 0);
    assert_next(client, "still good");
    assert_int_equal(fx_log_count(&hub.log, "ES0305"), 10);
    atomic_fetch_add(&hub.ahead_ms, 10000);
    push(&p, S("nonsense"), 0);
    assert_true(fx_log_wait(&hub.log, "1000 more lines of the next kind were left out", 1));
    assert_true(fx_log_wait(&hub.log, "ES0305", 11));
    pusher_close(&p);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void takes_thousands_in_order(void **state)
{
    enum { MANY = 20000 };
    const char *endpoints[2];
    fx_hub_t hub;
    pusher_t p;
    char line[8];
    int link, client, i;

    (void)state;
    endpoints[0] = ipc("many");
    endpoints[1] = ipc("idle");
    fx_hub_start(&hub, 1, LAG, endpoints, 2);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    p = pusher_open(endpoints[0]);
    for (i = 0; i < MANY; i++) {
        char item[128];
        const int n = snprintf(item, sizeof item, "J" JSON_ITEM("%06d\\n"), i);

        push(&p, (es_str_t) { item, (size_t)n }, 0);
        if (i >= 1000) { /* never further ahead than the log is long */
            assert_int_equal(fx_read(client, line, 7), 7);
            assert_int_equal(atoll(line), i - 1000);
        }
    }
    for (i = MANY - 1000; i < MANY; i++) {
        assert_int_equal(fx_read(client, line, 7), 7);
        assert_int_equal(atoll(line), i);
    }
    assert_silent(client);
    pusher_close(&p);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* As after a reload: the hub of the old configuration still has the endpoint. */
static void binds_later_what_is_in_use(void **state)
{
    fx_hub_t old, next;
    const char *endpoint = tcp_endpoint();
    pusher_t p;
    int link, client;

    (void)state;
    fx_hub_start(&old, 1, LAG, &endpoint, 1);
    assert_true(fx_log_wait(&old.log, "listening", 1));
    fx_hub_start(&next, 1, LAG, &endpoint, 1);
    assert_true(fx_log_wait(&next.log, "cannot be bound", 1));
    /* Everything else works meanwhile. */
    link = fx_link(&next);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    assert_int_equal(fx_publish(link, "a", "over the wire"), ES_OK);
    assert_next(client, "over the wire");
    atomic_fetch_add(&next.ahead_ms, 1000);
    assert_int_equal(fx_stat(link, "streams"), 1); /* a round, so it is tried and fails again */
    assert_int_equal(fx_stat(link, "streams"), 1);
    assert_int_equal(fx_log_count(&next.log, "listening"), 0);
    assert_int_equal(fx_log_count(&next.log, "cannot be bound"), 1); /* said once */
    fx_hub_stop(&old, FX_NOT_COUNTED);
    atomic_fetch_add(&next.ahead_ms, 1000);
    assert_true(fx_log_wait(&next.log, "listening", 1));
    p = pusher_open(endpoint);
    push(&p, S("J" JSON_ITEM("over ZeroMQ")), 0);
    assert_next(client, "over ZeroMQ");
    pusher_close(&p);
    close(client);
    close(link);
    next.fds = old.fds; /* both are gone without a trace */
    fx_hub_stop(&next, 0);
}

/* What cannot ever be bound does not keep the hub from its work, nor from stopping. */
static void goes_on_without_an_impossible_endpoint(void **state)
{
    const char *endpoints[3] = { "tcp://192.0.2.1:5560", "nonsense", NULL };
    fx_hub_t hub;
    pusher_t p;
    int link, client;

    (void)state;
    endpoints[2] = ipc("possible");
    fx_hub_start(&hub, 1, LAG, endpoints, 3);
    assert_true(fx_log_wait(&hub.log, "cannot be bound", 2));
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    p = pusher_open(endpoints[2]);
    push(&p, S("J" JSON_ITEM("x")), 0);
    assert_next(client, "x");
    pusher_close(&p);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static int set_up(void **state)
{
    if (!mkdtemp(directory)) {
        return -1;
    }
    return fx_apr_up(state);
}

static int tear_down(void **state)
{
    const char *const names[] = { "forms", "garbage", "many", "idle", "possible" };
    char path[64];
    size_t i;

    for (i = 0; i < ES_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    if (rmdir(directory) != 0) {
        return -1;
    }
    return fx_apr_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_items_in_every_form),
        cmocka_unit_test(refuses_garbage_and_goes_on),
        cmocka_unit_test(takes_thousands_in_order),
        cmocka_unit_test(binds_later_what_is_in_use),
        cmocka_unit_test(goes_on_without_an_impossible_endpoint),
    };
    return cmocka_run_group_tests_name("pull", tests, set_up, tear_down);
}
