/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the history store's directory: rights, lock, damage, versions, copies. */
#include "store_fixture.h"

static es_err_t try_open(sx_t *x, es_detail_t *d)
{
    es_store_t *s = NULL;
    es_err_t err = es_store_open(&x->config, &s, d);

    es_store_close(s);
    return err;
}

static int open_file(const sx_t *x, int flags)
{
    char path[PATH_MAX + 32];
    int fd;

    snprintf(path, sizeof path, "%s/" ES_STORE_FILE, x->dir);
    fd = open(path, flags | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void the_directory_is_made_for_its_owner_alone(void **state)
{
    sx_t *x = sx_make();
    struct stat st;

    (void)state;
    sx_open(x);
    assert_int_equal(stat(x->dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_true(sx_logged(x, "ES0364"));
    sx_free(x);
}

static void what_is_wrong_is_said(void **state)
{
    sx_t *x = sx_make();
    es_detail_t d = { "" };
    int fd;

    (void)state;
    x->config.dir = "/proc/nowhere/history";
    assert_int_equal(try_open(x, &d), ES_EIO);
    assert_starts(d.text, "cannot make the directory /proc/nowhere/history: No such file");
    x->config.dir = "/dev/null";
    assert_int_equal(try_open(x, &d), ES_EIO);
    assert_string_equal(d.text, "/dev/null is not a directory");
    x->config.dir = "";
    assert_int_equal(try_open(x, &d), ES_EINVAL);
    x->config.dir = x->dir;
    x->config.max_bytes = ES_STORE_BYTES_MIN - 1;
    assert_int_equal(try_open(x, &d), ES_EINVAL);
    assert_starts(d.text, "size is 1048575 bytes, 1048576 (1 MiB) to");
    x->config.max_bytes = 0;
    assert_err(try_open(x, &d), ES_OK, &d);
    /* As root no mode keeps anybody out; /proc does. */
    x->config.dir = "/proc/self";
    assert_int_equal(try_open(x, &d), ES_EIO);
    assert_non_null(strstr(d.text, "/proc/self"));
    /* A lock file that is a link is not followed. */
    x->config.dir = x->dir;
    fd = open(x->dir, O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(unlinkat(fd, ES_STORE_LOCK, 0), 0);
    assert_int_equal(symlinkat("elsewhere", fd, ES_STORE_LOCK), 0);
    close(fd);
    assert_int_equal(try_open(x, &d), ES_EIO);
    sx_free(x);
}

static void there_is_one_at_a_time(void **state)
{
    sx_t *x = sx_make();
    es_detail_t d = { "" };
    char want[PATH_MAX + 64];
    int up[2], status;
    char c;
    pid_t pid;

    (void)state;
    sx_open(x);
    sx_add(x, "a", "kept");
    snprintf(want, sizeof want, "%s is in use by process %ld", x->dir, (long)getpid());
    assert_int_equal(try_open(x, &d), ES_EAGAIN);
    assert_string_equal(d.text, want);
    sx_close(x);
    /* Another process has it; it dies, and the lock is free. */
    assert_int_equal(pipe(up), 0);
    pid = fork();
    if (pid == 0) {
        es_store_t *s;
        char ok = es_store_open(&x->config, &s, NULL) == ES_OK ? 'y' : 'n';

        _exit(write(up[1], &ok, 1) == 1 && pause() == 0);
    }
    assert_int_equal(read(up[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(try_open(x, &d), ES_EAGAIN);
    snprintf(want, sizeof want, "%s is in use by process %ld", x->dir, (long)pid);
    assert_string_equal(d.text, want);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    sx_open(x);
    assert_string_equal(sx_all(x, "a", 0), "1:0:kept ");
    close(up[0]);
    close(up[1]);
    sx_free(x);
}

/* A store with some of everything, closed. */
static void fill(sx_t *x)
{
    char *big = es_repeat('b', 9000);
    int i;

    sx_open(x);
    for (i = 0; i < 60; i++) {
        char name[16];

        snprintf(name, sizeof name, "c%d", i % 20);
        sx_add(x, name, i % 4 ? "some text" : big);
    }
    sx_close(x);
    free(big);
}

/* Uses all that is there. What fails must fail with a word. */
static void use(sx_t *x)
{
    static const char *const names[] = { "c0", "c1", "c7", "c13", "c19" };
    bool more = true;
    size_t i;

    for (i = 0; i < ES_COUNT(names); i++) {
        const es_str_t name = es_str(names[i]);
        const es_store_range_t all = { .after = 0 };
        sx_got_t got = { .calls = 0 };
        es_store_channel_info_t info;
        es_detail_t d = { "" };
        uint64_t after;

        if (es_store_read(x->store, &name, 1, &all, sx_each, &got, &got.result, &d) != ES_OK) {
            assert_true(d.text[0] != '\0');
        }
        (void)es_store_rewind(x->store, &name, 1, 2, 0, &after, NULL);
        (void)es_store_channel_info(x->store, name, &info, NULL);
        if (i % 2 == 0) {
            (void)es_store_clear(x->store, name, NULL);
        }
    }
    while (more && es_store_prune(x->store, x->now_ms + 1000000, 7, &more, NULL) == ES_OK) {}
}

/* After damage: nothing crashes, and the store takes and gives records. */
static void works(sx_t *x)
{
    uint64_t seq;
    char want[64];

    x->config.max_age_ms = 500000;
    sx_open(x);
    use(x);
    seq = sx_add(x, "fresh", "new");
    snprintf(want, sizeof want, "%llu:0:new ", (unsigned long long)seq);
    assert_string_equal(sx_all(x, "fresh", 0), want);
    sx_close(x);
    sx_open(x);
    assert_string_equal(sx_all(x, "fresh", 0), want);
    sx_close(x);
}

static void a_file_that_was_cut_is_moved_aside(void **state)
{
    static const off_t sizes[] = { 1, 100, 4096, 8192, 8193, 12288, 40960, -1, -4096 };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(sizes); i++) {
        sx_t *x = sx_make();
        uint64_t instance;
        struct stat st;
        int fd;

        fill(x);
        fd = open_file(x, O_RDWR);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(ftruncate(fd, sizes[i] > 0 ? sizes[i] : st.st_size + sizes[i]), 0);
        close(fd);
        sx_open(x);
        assert_true(sx_logged(x, "ES0362"));
        assert_true(sx_logged(x, ".damaged-19700101T001640Z and a new history is begun"));
        assert_int_equal(sx_files(x, ".damaged-"), 1);
        instance = es_store_instance(x->store);
        assert_int_equal(sx_info(x).records, 0);
        sx_close(x);
        works(x);
        sx_open(x);
        assert_int_equal(es_store_instance(x->store), instance);
        sx_free(x);
    }
}

static void an_empty_file_is_a_new_store(void **state)
{
    sx_t *x = sx_make();

    (void)state;
    assert_int_equal(mkdir(x->dir, 0700), 0);
    close(open_file(x, O_RDWR | O_CREAT));
    works(x);
    assert_int_equal(sx_files(x, ".damaged-"), 0);
    sx_free(x);
}

static unsigned int seed = 4711;

static unsigned int dice(void)
{
    seed = seed * 1103515245 + 12345;
    return seed >> 8;
}

/* Pages of random bytes, or of zeros, anywhere: all of it may be lost, but nothing crashes. */
static void damaged_pages_crash_nothing(void **state)
{
    int round, moved = 0;

    (void)state;
    for (round = 0; round < 24; round++) {
        sx_t *x = sx_make();
        unsigned char page[4096];
        struct stat st;
        size_t i;
        int fd;

        fill(x);
        fd = open_file(x, O_RDWR);
        assert_int_equal(fstat(fd, &st), 0);
        for (i = 0; i < sizeof page; i++) {
            page[i] = round % 3 == 0 ? 0 : (unsigned char)dice();
        }
        i = round < 4 ? (size_t)round % 2 : dice() % ((size_t)st.st_size / 4096);
        assert_int_equal(pwrite(fd, page, sizeof page, (off_t)i * 4096), sizeof page);
        close(fd);
        sx_open(x);
        moved += sx_logged(x, "ES0362");
        sx_close(x);
        works(x);
        sx_free(x);
    }
    assert_true(moved > 5); /* some pages are free ones */
}

static void random_bytes_are_no_history(void **state)
{
    sx_t *x = sx_make();
    unsigned char page[4096];
    int i, fd;

    (void)state;
    for (i = 0; i < 5; i++) {
        size_t j;

        if (i == 0) {
            assert_int_equal(mkdir(x->dir, 0700), 0);
        }
        for (j = 0; j < sizeof page; j++) {
            page[j] = (unsigned char)dice();
        }
        fd = open_file(x, O_RDWR | O_CREAT);
        for (j = 0; j < 100; j++) {
            assert_int_equal(pwrite(fd, page, sizeof page, (off_t)j * 4096), sizeof page);
        }
        close(fd);
        x->now_ms += 500; /* two have the same second, and another name */
        works(x);
        assert_int_equal(sx_files(x, ".damaged-"), i < 3 ? i + 1 : 3);
    }
    sx_free(x);
}

static void set_format(sx_t *x, const char *text)
{
    MDB_val key = { 6, (void *)(uintptr_t) "format" };
    MDB_val value = { strlen(text), (void *)(uintptr_t)text };
    MDB_txn *txn;

    sx_open(x);
    assert_int_equal(mdb_txn_begin(x->store->env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, x->store->tables.meta, &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    sx_close(x);
}

static void other_formats_are_moved_aside(void **state)
{
    static const struct {
        const char *format, *why;
    } cases[] = { { ES_FORMAT "2", "format 2, this build knows format 1 only" },
                  { ES_FORMAT "x", "it is damaged (format)" },
                  { "somebody else's", "it is of another program" } };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        sx_t *x = sx_make();

        set_format(x, cases[i].format);
        sx_open(x);
        assert_true(sx_logged(x, cases[i].why));
        assert_int_equal(sx_files(x, ".damaged-"), 1);
        sx_close(x);
        works(x);
        sx_free(x);
    }
}

static void another_programs_lmdb_file_is_moved_aside(void **state)
{
    sx_t *x = sx_make();
    char path[PATH_MAX + 32];
    MDB_val v = { 3, (void *)(uintptr_t) "abc" };
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    (void)state;
    assert_int_equal(mkdir(x->dir, 0700), 0);
    snprintf(path, sizeof path, "%s/" ES_STORE_FILE, x->dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &v, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    sx_open(x);
    assert_true(sx_logged(x, "it is of another program"));
    sx_close(x);
    works(x);
    sx_free(x);
}

/* LMDB aborts the hub when it finds damage: the next one must not meet it again. */
static void damage_that_lmdb_found_is_not_met_twice(void **state)
{
    sx_t *x = sx_make();
    int status;
    pid_t pid;

    (void)state;
    fill(x);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        es_store_t *s;

        if (es_store_open(&x->config, &s, NULL) == ES_OK) {
            es_store_doubt(s);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    sx_open(x);
    assert_true(sx_logged(x, "it is damaged (the process before found it)"));
    assert_int_equal(sx_info(x).records, 0);
    sx_close(x);
    works(x);
    assert_int_equal(sx_files(x, ".damaged-"), 1);
    sx_free(x);
}

static void a_store_that_was_only_just_made_is_taken(void **state)
{
    sx_t *x = sx_make();
    char path[PATH_MAX + 32];
    MDB_env *env;

    (void)state;
    assert_int_equal(mkdir(x->dir, 0700), 0);
    snprintf(path, sizeof path, "%s/" ES_STORE_FILE, x->dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    mdb_env_close(env);
    works(x);
    assert_int_equal(sx_files(x, ".damaged-"), 0);
    sx_free(x);
}

static void a_damaged_record_is_left_out_and_told(void **state)
{
    sx_t *x = sx_make();
    unsigned char room[8];
    MDB_val key, value = { 5, (void *)(uintptr_t) "short" };
    MDB_txn *txn;
    const sx_got_t *g;

    (void)state;
    sx_open(x);
    sx_add(x, "a", "one");
    sx_add(x, "a", "two");
    sx_add(x, "a", "three");
    key = es_key1(room, 2);
    assert_int_equal(mdb_txn_begin(x->store->env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, x->store->tables.log, &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    g = sx_read(x, "a", (es_store_range_t) { .after = 0 });
    assert_string_equal(g->text, "1:0:one 3:0:three ");
    assert_true(g->result.reset);
    assert_true(sx_logged(x, "ES0368"));
    assert_int_equal(es_store_clear(x->store, S("a"), NULL), ES_OK);
    assert_string_equal(sx_all(x, "a", 0), "");
    sx_free(x);
}

static void a_copy_is_another_history(void **state)
{
    sx_t *x = sx_make();
    char command[5 * PATH_MAX];
    uint64_t instance;

    (void)state;
    sx_open(x);
    instance = es_store_instance(x->store);
    sx_add(x, "a", "kept");
    sx_close(x);
    snprintf(command, sizeof command,
             "cp '%s/" ES_STORE_FILE "' '%s/c' && mv '%s/c' '%s/" ES_STORE_FILE "'", x->dir, x->dir,
             x->dir, x->dir);
    assert_int_equal(system(command), 0);
    sx_open(x);
    assert_true(sx_logged(x, "ES0363"));
    assert_true(es_store_instance(x->store) != instance);
    instance = es_store_instance(x->store);
    assert_string_equal(sx_all(x, "a", 0), "1:0:kept ");
    sx_close(x);
    sx_open(x);
    assert_false(sx_logged(x, "ES0363"));
    assert_int_equal(es_store_instance(x->store), instance);
    sx_free(x);
}

/* The backup is put back with cp, into the same inode. */
static void an_older_copy_in_the_same_place_is_noticed(void **state)
{
    sx_t *x = sx_make();
    char command[4 * PATH_MAX];
    uint64_t instance, seen;

    (void)state;
    sx_open(x);
    instance = es_store_instance(x->store);
    sx_add(x, "a", "kept");
    sx_close(x);
    snprintf(command, sizeof command, "cp '%s/" ES_STORE_FILE "' '%s/backup'", x->dir, x->top);
    assert_int_equal(system(command), 0);
    sx_open(x);
    assert_false(sx_logged(x, "ES0363"));
    seen = sx_add(x, "a", "not in the backup");
    sx_close(x);
    snprintf(command, sizeof command, "cat '%s/backup' >'%s/" ES_STORE_FILE "'", x->top, x->dir);
    assert_int_equal(system(command), 0);
    sx_open(x);
    assert_true(sx_logged(x, "ES0363"));
    assert_true(es_store_instance(x->store) != instance);
    assert_true(sx_add(x, "a", "new") > seen);
    sx_close(x);
    sx_open(x);
    assert_false(sx_logged(x, "ES0363"));
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_directory_is_made_for_its_owner_alone),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(there_is_one_at_a_time),
        cmocka_unit_test(a_file_that_was_cut_is_moved_aside),
        cmocka_unit_test(an_empty_file_is_a_new_store),
        cmocka_unit_test(damaged_pages_crash_nothing),
        cmocka_unit_test(random_bytes_are_no_history),
        cmocka_unit_test(other_formats_are_moved_aside),
        cmocka_unit_test(another_programs_lmdb_file_is_moved_aside),
        cmocka_unit_test(damage_that_lmdb_found_is_not_met_twice),
        cmocka_unit_test(a_store_that_was_only_just_made_is_taken),
        cmocka_unit_test(a_damaged_record_is_left_out_and_told),
        cmocka_unit_test(a_copy_is_another_history),
        cmocka_unit_test(an_older_copy_in_the_same_place_is_noticed),
    };
    return cmocka_run_group_tests_name("store_file", tests, NULL, NULL);
}
