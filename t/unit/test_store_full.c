/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the history store without room: the map is full (a read that goes on holds its pages),
 * the disk is full (a limit on the size of files, in a child process).
 */
#include "store_fixture.h"

static es_err_t add(sx_t *x, const char *text, uint64_t *io_seq, es_detail_t *d)
{
    es_err_t err = es_store_take(x->store, 1, io_seq, d);
    const es_store_item_t item = { *io_seq, S("a"), x->now_ms, es_str(text) };

    return err == ES_OK ? es_store_append(x->store, &item, 1, d) : err;
}

static void a_read_that_never_ends_fills_the_map(void **state)
{
    sx_t *x = sx_make();
    char *big = es_repeat('x', 100000);
    es_detail_t d = { "" };
    uint64_t seq = 0, newest = 0;
    es_err_t err = ES_OK;
    MDB_txn *stale;
    int i;

    (void)state;
    x->config.max_bytes = ES_STORE_BYTES_MIN;
    sx_open(x);
    newest = sx_add(x, "a", "first");
    assert_int_equal(mdb_txn_begin(x->store->env, NULL, MDB_RDONLY, &stale), 0);
    for (i = 0; i < 2000 && err == ES_OK; i++) {
        err = add(x, big, &seq, &d);
        newest = err == ES_OK ? seq : newest;
    }
    assert_err(err, ES_EFULL, &d);
    assert_non_null(strstr(d.text, x->dir));
    assert_non_null(strstr(d.text, "cannot be written: no page of the file is free"));
    assert_true(sx_logged(x, "ES0367"));
    assert_true(newest > 100);
    /* What is there can still be read, and only the oldest were given up. */
    assert_int_equal(sx_info(x).newest, newest);
    sx_consistent(x);
    x->log_n = 0;
    assert_int_equal(add(x, big, &seq, &d), ES_EFULL);
    assert_int_equal(x->log_n, 0); /* said once */
    mdb_txn_abort(stale);
    err = add(x, big, &seq, &d);
    assert_err(err, ES_OK, &d);
    assert_true(sx_logged(x, "ES0366"));
    assert_int_equal(sx_info(x).newest, seq);
    for (i = 0; i < 100; i++) {
        assert_err(add(x, big, &seq, &d), ES_OK, &d);
    }
    sx_consistent(x);
    sx_close(x);
    sx_open(x);
    assert_int_equal(sx_info(x).newest, seq);
    free(big);
    sx_free(x);
}

/* In a child: cmocka's asserts end it with a failure, which the parent sees. */
static int on_a_full_disk(sx_t *x)
{
    struct rlimit limit = { 1500000, RLIM_INFINITY };
    char *big = es_repeat('x', 20000);
    es_detail_t d = { "" };
    uint64_t seq = 0, newest = 0;
    int i, failed = 0;

    signal(SIGXFSZ, SIG_IGN);
    sx_open(x);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 1;
    }
    /* Far more than fits: the oldest go, what is new is kept. */
    for (i = 0; i < 500; i++) {
        if (add(x, big, &seq, &d) != ES_OK) {
            print_error("append %d: %s\n", i, d.text);
            failed++;
        }
    }
    if (failed > 0 || sx_info(x).newest != seq || !sx_logged(x, "ES0365") ||
        sx_info(x).records < 10) {
        print_error("newest %d of %d, %d records\n", (int)sx_info(x).newest, (int)seq,
                    (int)sx_info(x).records);
        return 2;
    }
    sx_consistent(x);
    newest = seq;
    /* A single one that cannot fit at all. */
    {
        char *huge = es_repeat('y', 1900000);
        es_err_t err = add(x, huge, &seq, &d);

        if (err != ES_EFULL || strstr(d.text, "cannot be written") == NULL) {
            print_error("%s: %s\n", es_err_name(err), d.text);
            return 3;
        }
        free(huge);
    }
    sx_consistent(x);
    if (sx_info(x).newest != newest && sx_info(x).records != 0) {
        return 4;
    }
    limit.rlim_cur = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || add(x, big, &seq, &d) != ES_OK) {
        print_error("with room again: %s\n", d.text);
        return 5;
    }
    if (!sx_logged(x, "ES0366") || sx_info(x).newest != seq) {
        return 6;
    }
    sx_consistent(x);
    sx_close(x);
    free(big);
    return 0;
}

static void a_full_disk_takes_the_oldest(void **state)
{
    sx_t *x = sx_make();
    int status;
    pid_t pid;

    (void)state;
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int rc = on_a_full_disk(x);

        fflush(NULL);
        _exit(rc);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sx_open(x);
    assert_true(sx_info(x).records > 0);
    assert_int_equal(sx_files(x, ".damaged-"), 0);
    sx_consistent(x);
    sx_free(x);
}

static void a_new_store_on_a_full_disk_says_so(void **state)
{
    sx_t *x = sx_make();
    int status;
    pid_t pid;

    (void)state;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = { 4096, RLIM_INFINITY };
        es_store_t *s;
        es_detail_t d;
        es_err_t err;

        signal(SIGXFSZ, SIG_IGN);
        err = setrlimit(RLIMIT_FSIZE, &limit) == 0 ? es_store_open(&x->config, &s, &d) : ES_OK;
        _exit(err == ES_EFULL || err == ES_EIO ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sx_open(x);
    assert_true(sx_add(x, "a", "x") > 0);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_never_ends_fills_the_map),
        cmocka_unit_test(a_full_disk_takes_the_oldest),
        cmocka_unit_test(a_new_store_on_a_full_disk_says_so),
    };
    return cmocka_run_group_tests_name("store_full", tests, NULL, NULL);
}
