/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hub with many publishers, streams and loops at once: everybody gets everything in order, once.
 */
#include "hub_fixture.h"

#define LAG ((size_t)ES_HUB_LAG_DEFAULT)

enum { CROWD = 100, CHANNELS = 5, PUBLISHERS = 4, ITEMS = 1000 };

typedef struct publisher {
    pthread_t thread;
    int link;
    int number;
    int failed;
} publisher_t;

/* Item i goes to channel i % CHANNELS and says who published it and its number there. */
static void *publisher_main(void *arg)
{
    publisher_t *p = arg;
    char channel[8], content[32];
    int i;

    for (i = 0; i < ITEMS; i++) {
        snprintf(channel, sizeof channel, "c%d", i % CHANNELS);
        snprintf(content, sizeof content, "%d %d %d\n", i % CHANNELS, p->number, i / CHANNELS);
        if (fx_publish(p->link, channel, content) != ES_OK) {
            p->failed++;
        }
    }
    return NULL;
}

typedef struct reader {
    int fd;
    int on[2]; /* its channels; the same twice for one */
    int next[CHANNELS][PUBLISHERS];
    size_t left, n;
    char line[64];
} reader_t;

/* Complete, in order for each channel and publisher, nothing twice. */
static bool reader_line(reader_t *r)
{
    int channel, publisher, number;

    if (sscanf(r->line, "%d %d %d", &channel, &publisher, &number) != 3 || channel < 0 ||
        channel >= CHANNELS || publisher < 0 || publisher >= PUBLISHERS) {
        print_error("damaged line '%s'\n", r->line);
        return false;
    }
    if (channel != r->on[0] && channel != r->on[1]) {
        print_error("line '%s' is of another channel\n", r->line);
        return false;
    }
    if (number != r->next[channel][publisher]++) {
        print_error("line '%s', want number %d\n", r->line, r->next[channel][publisher] - 1);
        return false;
    }
    r->left--;
    return true;
}

static bool reader_take(reader_t *r)
{
    char bytes[8192];
    ssize_t i, n = recv(r->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n <= 0) {
        print_error("a stream ended early\n");
        return false;
    }
    for (i = 0; i < n; i++) {
        if (r->n == sizeof r->line - 1) {
            return false;
        }
        r->line[r->n++] = bytes[i];
        if (bytes[i] == '\n') {
            r->line[r->n] = '\0';
            r->n = 0;
            if (!reader_line(r)) {
                return false;
            }
        }
    }
    return true;
}

static void read_the_crowd(reader_t *readers)
{
    struct pollfd polls[CROWD];
    size_t left = 1;
    int i;

    while (left > 0) {
        left = 0;
        for (i = 0; i < CROWD; i++) {
            polls[i] = (struct pollfd) { .fd = readers[i].left > 0 ? readers[i].fd : -1,
                                         .events = POLLIN };
            left += readers[i].left;
        }
        if (left > 0) {
            assert_true(poll(polls, CROWD, FX_PATIENCE) > 0);
        }
        for (i = 0; i < CROWD; i++) {
            if (polls[i].revents) {
                assert_true(reader_take(&readers[i]));
            }
        }
    }
}

static void many_publishers_reach_many_streams(void **state)
{
    static reader_t readers[CROWD];
    publisher_t publishers[PUBLISHERS];
    fx_hub_t hub;
    char channels[64];
    int link, i;

    (void)state;
    fx_hub_start(&hub, 3, LAG, NULL, 0);
    link = fx_link(&hub);
    memset(readers, 0, sizeof readers);
    for (i = 0; i < CROWD; i++) {
        reader_t *r = &readers[i];

        r->on[0] = i % CHANNELS;
        r->on[1] = i < CROWD / 2 ? r->on[0] : (i + 1) % CHANNELS;
        r->left = (size_t)PUBLISHERS * ITEMS / CHANNELS * (r->on[0] == r->on[1] ? 1 : 2);
        snprintf(channels, sizeof channels, "[{\"name\": \"c%d\"}, {\"name\": \"c%d\"}]", r->on[0],
                 r->on[1]);
        r->fd = fx_subscribe(link, "raw", channels, "");
    }
    assert_stat(link, "streams", CROWD);
    for (i = 0; i < PUBLISHERS; i++) {
        publishers[i] = (publisher_t) { .link = fx_link(&hub), .number = i };
        assert_int_equal(
            pthread_create(&publishers[i].thread, NULL, publisher_main, &publishers[i]), 0);
    }
    read_the_crowd(readers);
    for (i = 0; i < PUBLISHERS; i++) {
        pthread_join(publishers[i].thread, NULL);
        assert_int_equal(publishers[i].failed, 0);
        close(publishers[i].link);
    }
    assert_stat(link, "deliveries", PUBLISHERS * ITEMS / CHANNELS * (CROWD / 2 + CROWD));
    for (i = 0; i < CROWD; i++) {
        assert_silent(readers[i].fd);
        close(readers[i].fd);
    }
    assert_stat(link, "ended.client", CROWD);
    assert_stat(link, "channels", 0);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* Streams come and go on the same channels while messages flow: each gets an unbroken run. */
typedef struct visitor {
    pthread_t thread;
    int link;
    unsigned int seed;
    int wrong;
} visitor_t;

static void *visitor_main(void *arg)
{
    visitor_t *v = arg;
    char line[16];
    int i, k;

    for (i = 0; i < 60; i++) {
        int pair[2], first, value;
        es_str_t hold = fx_hold("raw", "[{\"name\": \"run\"}]", "");

        if (fx_ask(v->link, ES_WIRE_RESERVE, hold, NULL) != ES_OK) {
            v->wrong++;
            break;
        }
        if (rand_r(&v->seed) % 8 == 0) {
            continue; /* the next RESERVE takes its place */
        }
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
            v->wrong++;
            break;
        }
        es_wire_send(v->link, ES_WIRE_HOLD, 0, S(""), pair[1], FX_PATIENCE);
        close(pair[1]);
        for (k = rand_r(&v->seed) % 20, first = -1; k > 0; k--) {
            if (fx_read(pair[0], line, 9) != 9 || sscanf(line, "%d", &value) != 1 ||
                (first >= 0 && value != first + 1)) {
                v->wrong++;
                break;
            }
            first = value;
        }
        close(pair[0]);
    }
    return NULL;
}

static void *runner_main(void *arg)
{
    atomic_bool *go_on = ((void **)arg)[0];
    const int *link = ((void **)arg)[1];
    char content[16];
    int i;

    for (i = 0; atomic_load(go_on); i++) {
        snprintf(content, sizeof content, "%08d\n", i);
        if (fx_publish(*link, "run", content) != ES_OK) {
            break;
        }
    }
    return NULL;
}

static void streams_that_come_and_go_see_no_gap(void **state)
{
    fx_hub_t hub;
    atomic_bool go_on = true;
    visitor_t visitors[4];
    pthread_t runner;
    int link, i;
    void *args[] = { &go_on, &link };

    (void)state;
    fx_hub_start(&hub, 3, LAG, NULL, 0);
    link = fx_link(&hub);
    assert_int_equal(pthread_create(&runner, NULL, runner_main, args), 0);
    for (i = 0; i < 4; i++) {
        visitors[i] = (visitor_t) { .link = fx_link(&hub), .seed = (unsigned int)i };
        assert_int_equal(pthread_create(&visitors[i].thread, NULL, visitor_main, &visitors[i]), 0);
    }
    for (i = 0; i < 4; i++) {
        pthread_join(visitors[i].thread, NULL);
        assert_int_equal(visitors[i].wrong, 0);
        close(visitors[i].link);
    }
    atomic_store(&go_on, false);
    pthread_join(runner, NULL);
    assert_stat(link, "streams", 0);
    assert_stat(link, "reserved", 0);
    assert_stat(link, "channels", 0);
    close(link);
    fx_hub_stop(&hub, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_publishers_reach_many_streams),
        cmocka_unit_test(streams_that_come_and_go_see_no_gap),
    };
    return cmocka_run_group_tests_name("crowd", tests, fx_apr_up, fx_apr_down);
}
