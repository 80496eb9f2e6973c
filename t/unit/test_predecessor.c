/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said at the door when hubs follow one another, and to whom: words that were meant for a
 * hub that has died, a hub that comes too late, and a hub before that is dead or hangs.
 */
#include "handover_fixture.h"

#include <signal.h>
#include <sys/wait.h>

enum { GENERATION = 3 };

/* A hub of that generation. `from`: the other end of what the hub before gives, -1: there is none.
 */
static void start(fx_hub_t *hub, int from, pid_t pid, uint64_t patience_ms)
{
    int pair[2];

    memset(hub, 0, sizeof *hub);
    hub->fds = fx_fd_count() - (from >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    hub->door = pair[0];
    fx_hub_make(hub, 2, LAG, NULL, 0, pair[1]);
    hub->config.generation = GENERATION;
    hub->config.predecessor = from;
    hub->config.predecessor_pid = pid;
    hub->config.patience_ms = patience_ms;
    assert_int_equal(pthread_create(&hub->thread, NULL, fx_hub_thread, hub), 0);
}

static void make_pair(int *pair)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

/* ---- words for another hub ---- */

static void an_expectation_of_another_hub_is_not_heard(void **state)
{
    fx_hub_t hub;
    int link;

    (void)state;
    start(&hub, -1, 0, 0);
    assert_int_equal(es_wire_knock(hub.door, ES_WIRE_EXPECT, GENERATION - 1, -1), ES_OK);
    link = fx_link(&hub); /* through the door: the knock before is read */
    assert_stat(link, "streams", 0);
    atomic_fetch_add(&hub.ahead_ms, 61 * 1000);
    assert_stat(link, "streams", 0);
    assert_stat(link, "streams", 0);
    assert_int_equal(fx_log_count(&hub.log, "ES0352"), 0);
    /* One of its own is. */
    assert_int_equal(es_wire_knock(hub.door, ES_WIRE_EXPECT, GENERATION, -1), ES_OK);
    fx_door_read(&hub);
    atomic_fetch_add(&hub.ahead_ms, 61 * 1000);
    assert_true(fx_log_wait(&hub.log, "ES0352", 1));
    close(link);
    fx_hub_join(&hub, 0);
}

/* `generation` knocks for everything, and is told that there is nothing for it. */
static void check_refused(const fx_hub_t *hub, uint32_t generation)
{
    char *text = NULL;
    size_t len = 0;
    es_err_t code = ES_OK;
    int pair[2];

    make_pair(pair);
    assert_int_equal(es_wire_knock(hub->door, ES_WIRE_HAND_OVER, generation, pair[1]), ES_OK);
    close(pair[1]);
    assert_int_equal(es_wire_answer(pair[0], 0, FX_PATIENCE, &code, &text, &len), ES_OK);
    assert_int_equal(code, ES_ENOENT);
    assert_end(pair[0]);
    free(text);
    close(pair[0]);
}

static void an_older_hub_gets_nothing(void **state)
{
    fx_hub_t hub;
    int link, client;

    (void)state;
    start(&hub, -1, 0, 0);
    link = fx_link(&hub);
    client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    check_refused(&hub, GENERATION - 1);
    check_refused(&hub, GENERATION); /* its own, that nobody heard */
    assert_int_equal(fx_publish(link, "a", "still here"), ES_OK);
    assert_next(client, "still here");
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void a_hub_that_comes_too_late_ends(void **state)
{
    fx_hub_t hub;
    int pair[2];

    (void)state;
    make_pair(pair);
    start(&hub, pair[1], 0, 0);
    assert_int_equal(es_wire_reply(pair[0], 0, ES_ENOENT, S("")), ES_OK);
    fx_hub_join(&hub, 0); /* pair[0] is still open, and was before */
    assert_end(pair[0]);
    close(pair[0]);
}

/* ---- the hub before ---- */

static void serves(fx_hub_t *hub)
{
    int link = fx_link(hub);
    int client = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");

    assert_int_equal(fx_publish(link, "a", "served"), ES_OK);
    assert_next(client, "served");
    close(client);
    close(link);
}

/* It has died, and the other end is still open: in the door, as far as the next hub can see. */
static void a_dead_hub_is_not_waited_for(void **state)
{
    const pid_t pid = fork();
    fx_hub_t hub;
    int pair[2];

    (void)state;
    if (pid == 0) {
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    make_pair(pair);
    start(&hub, pair[1], pid, 10 * FX_PATIENCE);
    serves(&hub);
    assert_int_equal(fx_log_count(&hub.log, "ES0359"), 1);
    assert_int_equal(fx_log_count(&hub.log, "ES0345"), 0);
    fx_hub_stop(&hub, 0);
    close(pair[0]);
}

static void a_hub_that_hangs_is_killed(void **state)
{
    const pid_t pid = fork();
    fx_hub_t hub;
    int status = 0, pair[2];

    (void)state;
    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    assert_true(pid > 0);
    make_pair(pair);
    start(&hub, pair[1], pid, 1);
    serves(&hub);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(fx_log_count(&hub.log, "ES0345"), 1);
    assert_int_equal(fx_log_count(&hub.log, "ES0359"), 1);
    fx_hub_stop(&hub, 0);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expectation_of_another_hub_is_not_heard),
        cmocka_unit_test(an_older_hub_gets_nothing),
        cmocka_unit_test(a_hub_that_comes_too_late_ends),
        cmocka_unit_test(a_dead_hub_is_not_waited_for),
        cmocka_unit_test(a_hub_that_hangs_is_killed),
    };

    return cmocka_run_group_tests_name("predecessor", tests, fx_apr_up, fx_apr_down);
}
