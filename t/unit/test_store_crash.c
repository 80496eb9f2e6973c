/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that appends is killed at any moment, again and again: everything that it had
 * acknowledged is there, in order, once; no number comes twice; the next one opens at once.
 */
#include "store_fixture.h"

enum { LIVES = 25, BATCH = 5 };

/* Appends until it is killed; writes the last number of each batch that is stored. */
static void writer(sx_t *x, int out)
{
    es_store_t *s;
    uint64_t first;
    size_t i, n = 0;

    if (es_store_open(&x->config, &s, NULL) != ES_OK) {
        _exit(1);
    }
    for (;;) {
        es_store_item_t items[BATCH];
        char texts[BATCH][32];
        static const char *const names[] = { "a", "b", "c" };

        if (es_store_take(s, BATCH, &first, NULL) != ES_OK) {
            _exit(2);
        }
        for (i = 0; i < BATCH; i++) {
            snprintf(texts[i], sizeof texts[i], "%llu", (unsigned long long)(first + i));
            items[i] = (es_store_item_t) { first + i, es_str(names[n++ % 3]), 1, es_str(texts[i]) };
        }
        if (es_store_append(s, items, BATCH, NULL) != ES_OK) {
            _exit(3);
        }
        first += BATCH - 1;
        if (write(out, &first, sizeof first) != sizeof first) {
            _exit(4);
        }
    }
}

typedef struct walk {
    uint64_t last, count, run; /* run: records since a number was left out */
    bool good;
} walk_t;

static bool look(void *ctx, const es_store_record_t *r)
{
    walk_t *w = ctx;
    char want[32];

    snprintf(want, sizeof want, "%llu", (unsigned long long)r->seq);
    w->good = w->good && r->seq > w->last && r->bytes.n == strlen(want) &&
              memcmp(r->bytes.p, want, r->bytes.n) == 0;
    /* Batches are whole: numbers are left out only between them. */
    if (r->seq != w->last + 1) {
        w->good = w->good && w->run % BATCH == 0;
        w->run = 0;
    }
    w->run++;
    w->last = r->seq;
    w->count++;
    return true;
}

static void nothing_acknowledged_is_lost(void **state)
{
    sx_t *x = sx_make();
    const es_str_t names[] = { S("a"), S("b"), S("c") };
    uint64_t acknowledged = 0, batches = 0, given = 0;
    int life;

    (void)state;
    for (life = 0; life < LIVES; life++) {
        es_store_result_t result = { .more = true };
        walk_t w = { .good = true };
        int pair[2], status;
        uint64_t seq, wanted = (uint64_t)life % 5;
        pid_t pid;

        assert_int_equal(pipe(pair), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(pair[0]);
            writer(x, pair[1]);
        }
        close(pair[1]);
        /* Killed after some batches, in the middle of the next. */
        while (read(pair[0], &seq, sizeof seq) == (ssize_t)sizeof seq) {
            assert_true(seq > acknowledged && seq > given);
            acknowledged = seq;
            batches++;
            if (wanted-- == 0) {
                kill(pid, SIGKILL);
            }
        }
        close(pair[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

        sx_open(x);
        assert_int_equal(sx_files(x, ".damaged-"), 0);
        while (result.more) {
            es_store_range_t range = { .after = result.last };
            es_detail_t d;

            assert_err(es_store_read(x->store, names, 3, &range, look, &w, &result, &d), ES_OK, &d);
            assert_false(result.reset);
        }
        assert_true(w.good);
        assert_int_equal(w.run % BATCH, 0);
        assert_true(w.last >= acknowledged);
        assert_true(w.count >= batches * BATCH);
        batches = w.count / BATCH; /* some were stored and not acknowledged any more */
        given = sx_take(x, 10);    /* and lost with this life */
        assert_true(given > w.last);
        given += 9;
        sx_consistent(x);
        sx_close(x);
    }
    assert_true(batches >= LIVES);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_acknowledged_is_lost) };

    return cmocka_run_group_tests_name("store_crash", tests, NULL, NULL);
}
