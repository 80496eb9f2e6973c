/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the history's file fit for use? LMDB trusts what it reads: on a damaged file it may follow a
 * pointer to nowhere. So a child process looks first. It opens the file for reading, walks the list
 * of free pages and every table, and looks at each key and value; when it dies of what it finds,
 * or tells of something wrong, the file is damaged.
 *
 * The child has a time limit: what it has not seen by then counts as good. Items are not read here
 * (their checksums are looked at when they are), but every page that leads to them is.
 *
 * Called by open, before this process has the file in use.
 */
#include "store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    GOOD = 'g',
    BAD = 'b',
    NO_MEMORY = 'm',
    UNREADABLE = 'u',
    CHECK_MS = 2000,
    AFTER_CRASH = 10
};

typedef struct es_check {
    const es_store_t *store;
    uint64_t map_bytes, file_bytes, end_ms;
    MDB_env *env;
    MDB_txn *txn;
    es_tables_t tables;
    uint64_t last_page;
    size_t page_bytes; /* 0: pages do not lie where this machine's do; their heads are not seen */
    uintptr_t base;    /* of the map, as the first page says; 0: none was seen */
    es_detail_t detail;
} es_check_t;

static uint64_t clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- in the child ---- */

static int bad(es_check_t *c, const char *text)
{
    es_fail(&c->detail, ES_EINVAL, "it is damaged (%s)", text);
    return BAD;
}

static void on_assert(MDB_env *env, const char *text)
{
    (void)env;
    (void)text;
    _exit(1);
}

/* No memory for a map as large as the file claims to be, or as ours? */
static int open_failed(es_check_t *c, int rc)
{
    int fd;
    void *p;

    if (rc == EACCES || rc == EPERM || rc == EIO || rc == EMFILE || rc == ENFILE) {
        es_fail(&c->detail, ES_EIO, "cannot open %s: %s", c->store->file, mdb_strerror(rc));
        return UNREADABLE;
    }
    if (rc != ENOMEM) {
        es_fail(&c->detail, ES_EINVAL, "%s",
                rc == MDB_VERSION_MISMATCH ? "it is of another version of LMDB"
                : rc == MDB_INVALID        ? "it is no history, or its beginning is damaged"
                                           : "it is damaged");
        return BAD;
    }
    fd = open(c->store->file, O_RDONLY | O_CLOEXEC);
    p = mmap(NULL, c->map_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return p == MAP_FAILED ? NO_MEMORY : bad(c, "impossible size");
}

static int look_at_format(es_check_t *c)
{
    static const char start[] = ES_FORMAT;
    const size_t start_n = sizeof start - 1;
    MDB_val key = { 6, (void *)(uintptr_t) "format" }, value;
    es_state_t state;
    int64_t version;
    int rc = mdb_dbi_open(c->txn, "meta", 0, &c->tables.meta);

    if (rc == 0) {
        rc = mdb_get(c->txn, c->tables.meta, &key, &value);
    }
    if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE ||
        (rc == 0 && (value.mv_size <= start_n || memcmp(value.mv_data, start, start_n) != 0))) {
        es_fail(&c->detail, ES_EINVAL, "it is of another program");
        return BAD;
    }
    if (rc != 0) {
        return bad(c, mdb_strerror(rc));
    }
    if (!es_str_to_int(
            (es_str_t) { (const char *)value.mv_data + start_n, value.mv_size - start_n },
            &version)) {
        return bad(c, "format");
    }
    if (version != ES_FORMAT_VERSION) {
        es_fail(&c->detail, ES_EINVAL, "it has format %lld, this build knows format %d only",
                (long long)version, ES_FORMAT_VERSION);
        return BAD;
    }
    rc = es_store_tables(c->txn, false, &c->tables);
    if (rc == 0) {
        rc = es_state_get(&c->tables, c->txn, &state);
    }
    return rc == 0 ? GOOD : bad(c, rc == MDB_NOTFOUND ? "a table is missing" : mdb_strerror(rc));
}

/*
 * The head of a page, as LMDB 0.9 lays it out: number (8 bytes), padding, flags (2), then for a
 * leaf where its keys end and its nodes begin, for a long value how many pages it has. LMDB trusts
 * it when it writes.
 */
enum { PAGE_HEAD = 16, PAGE_LEAF = 2, PAGE_LONG = 4, PAGE_KINDS = 0x7f };

static bool page_fits(es_check_t *c, uintptr_t page, unsigned int kind, size_t long_bytes)
{
    const char *p = (const char *)page;
    uint64_t number;
    uint16_t flags, lower, upper;
    uint32_t pages;

    memcpy(&number, p, sizeof number);
    memcpy(&flags, p + 10, sizeof flags);
    memcpy(&lower, p + 12, sizeof lower);
    memcpy(&upper, p + 14, sizeof upper);
    memcpy(&pages, p + 12, sizeof pages);
    if (number < 2 || number > c->last_page || (flags & PAGE_KINDS) != kind) {
        return false;
    }
    if (c->base == 0) {
        c->base = page - number * c->page_bytes;
    }
    if (page != c->base + number * c->page_bytes) {
        return false;
    }
    if (kind == PAGE_LONG) {
        return pages == (PAGE_HEAD - 1 + long_bytes) / c->page_bytes + 1 &&
               number + pages - 1 <= c->last_page;
    }
    return lower > PAGE_HEAD && lower % 2 == 0 && lower <= upper && upper < c->page_bytes;
}

/* The pages that a key and its value are on. */
static bool pages_fit(es_check_t *c, const MDB_val *key, const MDB_val *value)
{
    const uintptr_t mask = ~((uintptr_t)c->page_bytes - 1);
    const uintptr_t leaf = (uintptr_t)key->mv_data & mask;
    const uintptr_t at = (uintptr_t)value->mv_data & mask;

    if (c->page_bytes == 0) {
        return true;
    }
    return page_fits(c, leaf, PAGE_LEAF, 0) &&
           (value->mv_size == 0 || at == leaf || page_fits(c, at, PAGE_LONG, value->mv_size));
}

typedef bool (*es_look_t)(es_check_t *c, const MDB_val *key, const MDB_val *value);

static bool free_pages_fit(es_check_t *c, const MDB_val *key, const MDB_val *value)
{
    const char *p = value->mv_data;
    size_t n, i, page, before = SIZE_MAX;

    if (key->mv_size != sizeof n || value->mv_size < sizeof n) {
        return false;
    }
    memcpy(&n, p, sizeof n);
    if (n > value->mv_size / sizeof n - 1) {
        return false;
    }
    for (i = 1; i <= n; i++) {
        memcpy(&page, p + i * sizeof page, sizeof page);
        if (page < 2 || page > c->last_page || page >= before) {
            return false;
        }
        before = page;
    }
    return true;
}

static bool record_fits(es_check_t *c, const MDB_val *key, const MDB_val *value)
{
    const volatile char *p = value->mv_data;

    (void)c;
    if (key->mv_size != 8 || value->mv_size < ES_RECORD_HEAD) {
        return false;
    }
    (void)p[value->mv_size - 1]; /* must be in the file: else this crashes */
    return p[0] != 0;
}

static bool pair_fits(es_check_t *c, const MDB_val *key, const MDB_val *value)
{
    (void)c;
    return key->mv_size == 16 && value->mv_size == 0 && es_get64(key->mv_data) != UINT64_MAX;
}

static bool row_fits(es_check_t *c, const MDB_val *key, const MDB_val *value)
{
    es_row_t row;

    (void)c;
    return key->mv_size == 8 && es_row_decode(es_get64(key->mv_data),
                                              (es_str_t) { value->mv_data, value->mv_size }, &row);
}

/* Walks one table in order. */
static int walk(es_check_t *c, MDB_dbi dbi, const char *name, es_look_t fits)
{
    unsigned char before[512];
    size_t before_n = 0, n = 0;
    MDB_val key, value;
    MDB_cursor *cursor;
    MDB_stat stat;
    int rc = mdb_cursor_open(c->txn, dbi, &cursor);

    if (rc == 0) {
        rc = mdb_stat(c->txn, dbi, &stat);
    }
    if (rc != 0) {
        return bad(c, mdb_strerror(rc));
    }
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (key.mv_size == 0 || key.mv_size > sizeof before || value.mv_size > c->file_bytes ||
            !pages_fit(c, &key, &value) || !fits(c, &key, &value)) {
            return bad(c, name);
        }
        if (dbi != 0) { /* the free list's keys are in host order */
            if (n > 0 && (key.mv_size != before_n || memcmp(before, key.mv_data, before_n) >= 0)) {
                return bad(c, name);
            }
            before_n = key.mv_size;
            memcpy(before, key.mv_data, before_n);
        }
        n++;
        if (n % 256 == 0 && clock_ms() >= c->end_ms) {
            return GOOD;
        }
    }
    return rc == MDB_NOTFOUND && n == stat.ms_entries ? GOOD : bad(c, name);
}

/* Those of the tables that are looked up by name. */
static bool first_pages_fit(es_check_t *c)
{
    MDB_dbi dbi[2] = { 0, c->tables.meta };
    MDB_cursor *cursor;
    MDB_val key, value;
    size_t i;

    if (mdb_dbi_open(c->txn, NULL, 0, &dbi[0]) != 0) {
        return false;
    }
    for (i = 0; i < 2; i++) {
        if (mdb_cursor_open(c->txn, dbi[i], &cursor) != 0 ||
            mdb_cursor_get(cursor, &key, &value, MDB_FIRST) != 0 || !pages_fit(c, &key, &value)) {
            return false;
        }
    }
    return true;
}

static int check(es_check_t *c)
{
    MDB_envinfo info;
    MDB_stat stat, log;
    int rc = mdb_env_create(&c->env);

    if (rc != 0) {
        return NO_MEMORY;
    }
    mdb_env_set_maxdbs(c->env, ES_TABLES);
    mdb_env_set_mapsize(c->env, c->map_bytes);
    mdb_env_set_assert(c->env, on_assert);
    rc = mdb_env_open(c->env, c->store->file, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK, 0600);
    if (rc != 0) {
        return open_failed(c, rc);
    }
    mdb_env_info(c->env, &info);
    mdb_env_stat(c->env, &stat);
    c->last_page = info.me_last_pgno;
    c->page_bytes = stat.ms_psize == (unsigned int)sysconf(_SC_PAGESIZE) ? stat.ms_psize : 0;
    if (stat.ms_psize < 512 || stat.ms_psize > 65536 ||
        c->last_page >= c->file_bytes / stat.ms_psize) {
        return bad(c, "the file is cut short");
    }
    if (info.me_last_txnid == 0 && stat.ms_entries == 0) {
        return GOOD; /* a crash came between its making and the first write */
    }
    rc = mdb_txn_begin(c->env, NULL, MDB_RDONLY, &c->txn);
    if (rc != 0) {
        return rc == ENOMEM ? NO_MEMORY : bad(c, mdb_strerror(rc));
    }
    rc = look_at_format(c);
    if (rc == GOOD) {
        rc = first_pages_fit(c) ? walk(c, 0, "free pages", free_pages_fit) : bad(c, "first pages");
    }
    if (rc == GOOD &&
        (mdb_stat(c->txn, c->tables.log, &log) != 0 ||
         mdb_stat(c->txn, c->tables.index, &stat) != 0 || log.ms_entries != stat.ms_entries)) {
        rc = bad(c, "log and index do not match");
    }
    rc = rc == GOOD ? walk(c, c->tables.chans, "channels", row_fits) : rc;
    rc = rc == GOOD ? walk(c, c->tables.names, "names", pair_fits) : rc;
    rc = rc == GOOD ? walk(c, c->tables.graves, "empty channels", pair_fits) : rc;
    rc = rc == GOOD ? walk(c, c->tables.index, "index", pair_fits) : rc;
    return rc == GOOD ? walk(c, c->tables.log, "log", record_fits) : rc;
}

/* Only this thread is left here; the others' locks may be held for ever, but none of LMDB's. */
static void child(es_check_t *c, int out)
{
    static const int fatal[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGTERM, SIGALRM };
    const struct rlimit no_core = { 0, 0 };
    char verdict;
    size_t i;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &no_core);
    for (i = 0; i < sizeof fatal / sizeof fatal[0]; i++) {
        sigset_t set;

        signal(fatal[i], SIG_DFL);
        sigemptyset(&set);
        sigaddset(&set, fatal[i]);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
    verdict = (char)check(c);
    if (write(out, &verdict, 1) == 1 &&
        write(out, c->detail.text, strlen(c->detail.text) + 1) >= 0) {
        _exit(0);
    }
    _exit(1);
}

/* ---- in the hub ---- */

/* What the child said; returns the number of bytes. */
static size_t listen_to(int fd, char *text, size_t room)
{
    size_t n = 0;

    while (n < room - 1) {
        ssize_t got = read(fd, text + n, room - 1 - n);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    text[n] = '\0';
    return n;
}

es_err_t es_store_check(const es_store_t *s, bool clean, uint64_t map_bytes, es_detail_t *detail)
{
    const uint64_t patience = s->config.check_ms > 0 ? s->config.check_ms : CHECK_MS;
    es_check_t c = { .store = s, .map_bytes = map_bytes };
    char text[sizeof c.detail + 8];
    int out[2], status = 0;
    struct stat st;
    pid_t pid, got;
    size_t n;

    if (stat(s->file, &st) != 0 || pipe2(out, O_CLOEXEC) != 0) {
        return es_fail(detail, ES_EIO, "cannot look at %s: %s", s->file, strerror(errno));
    }
    c.file_bytes = (uint64_t)st.st_size;
    c.end_ms = clock_ms() + patience * (clean ? 1 : AFTER_CRASH);
    pid = fork();
    if (pid == 0) {
        child(&c, out[1]);
    }
    close(out[1]);
    if (pid < 0) {
        n = (size_t)errno;
        close(out[0]);
        return es_fail(detail, ES_EIO, "cannot fork to look at %s: %s", s->file, strerror((int)n));
    }
    n = listen_to(out[0], text, sizeof text);
    close(out[0]);
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    if (n == 0) {
        /* Somebody else's kill says nothing of the file. */
        if (got == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
            return es_fail(detail, ES_EIO, "the process that looked at %s was killed", s->file);
        }
        return es_fail(detail, ES_EINVAL, "it is damaged (reading it crashed)");
    }
    switch (text[0]) {
    case GOOD:
        return ES_OK;
    case NO_MEMORY:
        return es_fail(detail, ES_ENOMEM, "no memory to map %llu bytes of %s",
                       (unsigned long long)map_bytes, s->file);
    case UNREADABLE:
        return es_fail(detail, ES_EIO, "%s", text + 1);
    default:
        return es_fail(detail, ES_EINVAL, "%s", text + 1);
    }
}
