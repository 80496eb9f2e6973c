/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history store's life: open, close, what it says when LMDB fails. store.h tells what it is
 * for, store_int.h what is in the file.
 *
 * The map is half as large again as `max_bytes`, and 16 MiB more: pages that a transaction frees
 * can be used by the one after the next, and not while an older read goes on. The room is address
 * space; the file grows into it only when it must.
 */
#include "store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 16 * 1024 * 1024, GRAVES_MAX = 16 * 1024 * 1024 };

es_err_t es_store_fail(const es_store_t *s, es_detail_t *detail, int rc, const char *what)
{
    es_err_t err = ES_EIO;

    if (es_store_is_full(rc)) {
        return es_fail(detail, ES_EFULL, "the history %s %s: %s", s->config.dir, what,
                       rc == MDB_MAP_FULL ? "no page of the file is free" : mdb_strerror(rc));
    }
    if (rc == ENOMEM) {
        err = ES_ENOMEM;
    }
    else if (rc == MDB_READERS_FULL) {
        err = ES_EAGAIN;
    }
    else if (rc == MDB_TXN_FULL) {
        err = ES_ETOOBIG;
    }
    return es_fail(detail, err, "the history %s %s: %s", s->config.dir, what, mdb_strerror(rc));
}

/* LMDB ends the process after this; the hub is started again, and must not come here again. */
static void on_assert(MDB_env *env, const char *text)
{
    const es_store_t *s = mdb_env_get_userctx(env);

    es_store_doubt(s);
    es_log(&s->config.log, ES_LOG_ERR, "ES0370",
           "history: %s is damaged (%s); this process ends, the next one begins a new history",
           s->file, text);
}

static es_err_t open_env(es_store_t *s, uint64_t map_bytes, es_detail_t *detail)
{
    int rc = mdb_env_create(&s->env);

    if (rc == 0) {
        rc = mdb_env_set_maxdbs(s->env, ES_TABLES);
    }
    if (rc == 0) {
        rc = mdb_env_set_mapsize(s->env, map_bytes);
    }
    if (rc == 0) {
        mdb_env_set_userctx(s->env, s);
        rc = mdb_env_set_assert(s->env, on_assert);
    }
    if (rc == 0) {
        rc = mdb_env_open(s->env, s->file, MDB_NOSUBDIR | MDB_NOTLS, 0600);
    }
    return rc == 0 ? ES_OK : es_store_fail(s, detail, rc, "cannot be opened");
}

static int random_state(es_state_t *state)
{
    const size_t n = 3 * sizeof(uint64_t);
    uint64_t bytes[3];

    do {
        if (getrandom(bytes, n, 0) != (ssize_t)n) {
            return errno == 0 ? EIO : errno;
        }
        /* A JSON number or an event id in it stays short and positive. */
        state->instance = bytes[0] >> 1;
    } while (state->instance == 0);
    state->key[0] = bytes[1];
    state->key[1] = bytes[2];
    return 0;
}

static int begin_history(es_wtx_t *w)
{
    char format[64];
    int n = snprintf(format, sizeof format, ES_FORMAT "%d", ES_FORMAT_VERSION);
    MDB_val key = { 6, (void *)(uintptr_t) "format" }, value = { (size_t)n, format };
    es_store_t *s = w->store;

    w->state = (es_state_t) { .reserved = 1,
                              .count_limit = s->config.max_count,
                              .created_ms = s->config.wall_ms(s->config.clock_ctx) };
    n = random_state(&w->state);
    return n == 0 ? mdb_put(w->txn, s->tables.meta, &key, &value, 0) : n;
}

/* The first write: tables of a new file, and what tells that the file is a copy of another. */
static int settle(es_wtx_t *w, void *arg)
{
    es_store_t *s = w->store;
    struct stat st;
    es_state_t fresh;
    int rc = es_store_tables(w->txn, true, &s->tables);

    (void)arg;
    if (rc == 0) {
        rc = es_state_get(&s->tables, w->txn, &w->state);
        w->before = w->state;
        if (rc == MDB_CORRUPTED) {
            rc = begin_history(w);
        }
    }
    if (rc == 0 && stat(s->file, &st) != 0) {
        rc = errno;
    }
    if (rc != 0) {
        return rc;
    }
    if (w->state.inode != 0 && (w->state.inode != (uint64_t)st.st_ino ||
                                w->state.reserved < s->noted[0] || w->state.newest < s->noted[1])) {
        rc = random_state(&fresh);
        if (rc != 0) {
            return rc;
        }
        w->state.instance = fresh.instance; /* the key stays: names are hashed with it */
        w->state.reserved = w->state.reserved > s->noted[0] ? w->state.reserved : s->noted[0];
        es_log(&s->config.log, ES_LOG_NOTICE, "ES0363",
               "history: %s is a copy of a history; clients of the other one begin anew", s->file);
    }
    w->state.inode = (uint64_t)st.st_ino;
    return 0;
}

/* What the writer has to know; of a size that does not depend on what is stored. */
static int look_around(es_wtx_t *w, void *arg)
{
    es_store_t *s = w->store;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(w->txn, s->tables.log, &cursor);

    (void)arg;
    if (rc != 0) {
        return rc;
    }
    s->instance = w->state.instance;
    memcpy(s->key, w->state.key, sizeof s->key);
    s->next = w->state.reserved;
    s->reserved = w->state.reserved;
    s->began = w->state.reserved;
    s->newest = w->state.newest;
    s->sweep = w->state.count_limit == s->config.max_count ? UINT64_MAX : 0;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    if (rc == 0 && value.mv_size >= ES_RECORD_HEAD) {
        s->newest_ms = es_get64((const char *)value.mv_data + 16);
        if (es_get64(key.mv_data) > s->newest) { /* would be damage; never reuse a number */
            s->newest = es_get64(key.mv_data);
            s->next = s->newest + 1;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* From the directory to an environment that can be trusted. */
static es_err_t open_file(es_store_t *s, bool clean, es_detail_t *detail)
{
    uint64_t map = s->config.max_bytes + s->config.max_bytes / 2 + ROOM;
    struct stat st = { 0 };
    es_detail_t why = { "" };
    es_err_t err;

    if (lstat(s->file, &st) != 0) {
        if (errno != ENOENT) {
            return es_fail(detail, ES_EIO, "cannot look at %s: %s", s->file, strerror(errno));
        }
    }
    else if (!S_ISREG(st.st_mode)) {
        err = es_store_aside(s, "it is no file", detail);
        st.st_size = 0;
        if (err != ES_OK) {
            return err;
        }
    }
    else if (st.st_size > 0) {
        /* A limit that was lowered: what is there has to fit. */
        map = map < (uint64_t)st.st_size + ROOM ? (uint64_t)st.st_size + ROOM : map;
        err = s->doubted ? es_fail(&why, ES_EINVAL, "it is damaged (the process before found it)")
                         : es_store_check(s, clean, map, &why);
        if (err == ES_EINVAL) {
            err = es_store_aside(s, why.text, detail);
            st.st_size = 0;
        }
        else if (err != ES_OK) {
            es_fail(detail, err, "%s", why.text);
        }
        if (err != ES_OK) {
            return err;
        }
    }
    return open_env(s, (map + 65535) / 65536 * 65536, detail);
}

static es_err_t open_store(es_store_t *s, es_detail_t *detail)
{
    es_store_info_t info;
    bool clean = false;
    int rc;
    es_err_t err = es_store_enter(s, &clean, detail);

    if (err == ES_OK) {
        err = open_file(s, clean, detail);
    }
    if (err != ES_OK) {
        return err;
    }
    rc = es_store_write(s, settle, NULL, NULL);
    if (rc == 0) {
        rc = es_store_write(s, look_around, NULL, NULL);
    }
    if (rc != 0) {
        return es_store_fail(s, detail, rc, "cannot be opened");
    }
    es_store_sync_dir(s);
    es_store_note(s);
    err = es_store_info(s, &info, detail);
    if (err == ES_OK) {
        es_log(&s->config.log, ES_LOG_INFO, "ES0364",
               "history: %s holds %llu records of %llu channels, %llu bytes", s->config.dir,
               (unsigned long long)info.records, (unsigned long long)info.channels,
               (unsigned long long)info.used_bytes);
    }
    return err;
}

static void free_store(es_store_t *s, bool clean)
{
    if (s->env != NULL) {
        mdb_env_close(s->env);
    }
    es_store_leave(s, clean);
    free((char *)(uintptr_t)s->config.dir);
    free(s->file);
    free(s);
}

es_err_t es_store_open(const es_store_config_t *config, es_store_t **ret, es_detail_t *detail)
{
    uint64_t bytes = config->max_bytes == 0 ? ES_STORE_BYTES_DEFAULT : config->max_bytes;
    es_store_t *s;
    char *dir = NULL, *file = NULL;
    size_t room;
    es_err_t err;

    if (bytes < ES_STORE_BYTES_MIN || bytes > (uint64_t)1 << 44) {
        return es_fail(detail, ES_EINVAL,
                       "size is %llu bytes, 1048576 (1 MiB) to 2^44 (16 TiB) are accepted",
                       (unsigned long long)bytes);
    }
    if (config->dir == NULL || config->dir[0] == '\0') {
        return es_fail(detail, ES_EINVAL, "the directory's name is empty");
    }
    s = calloc(1, sizeof *s);
    room = strlen(config->dir) + sizeof ES_STORE_FILE + 1;
    dir = es_memdup(config->dir, strlen(config->dir));
    file = malloc(room);
    if (s == NULL || dir == NULL || file == NULL) {
        free(s);
        free(dir);
        free(file);
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    snprintf(file, room, "%s/" ES_STORE_FILE, dir);
    s->config = *config;
    s->config.dir = dir;
    s->config.max_bytes = bytes;
    s->file = file;
    s->lock_fd = -1;
    s->grave_max = bytes / 16 < GRAVES_MAX ? bytes / 16 : GRAVES_MAX;
    err = open_store(s, detail);
    if (err != ES_OK) {
        /* The next open looks again: this one may not have come to it. */
        free_store(s, false);
        return err;
    }
    *ret = s;
    return ES_OK;
}

void es_store_close(es_store_t *store)
{
    if (store != NULL) {
        free_store(store, true);
    }
}

uint64_t es_store_instance(const es_store_t *store)
{
    return store->instance;
}
