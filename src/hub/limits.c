/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many streams there may be: for the process (open files, EventStreamMaxStreams) and for one
 * client (EventStreamMaxStreamsPerClient). Reserved streams count like live ones, from the
 * reservation until the loop has given them back.
 *
 * The streams of a client are counted by its address, as httpd sees it; its port is left out. There
 * is an entry as long as it has a stream, so the table is no larger than the streams are many.
 * Without that limit there is no table.
 *
 * A limit that was lowered, or a take-over of more streams than there may be, cuts nobody: new ones
 * are refused until enough have left.
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <apr_hash.h>
#include <apr_pools.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct es_client {
    uint64_t streams;
    size_t len;
    char address[];
};

struct es_limits {
    apr_pool_t *pool;  /* the table alone; entries are malloc'ed */
    apr_hash_t *table; /* address to es_client_t */
};

es_err_t es_limits_make(es_intake_t *intake)
{
    es_limits_t *l;

    if (intake->config->max_per_client == 0) {
        return ES_OK;
    }
    l = calloc(1, sizeof *l);
    if (!l) {
        return ES_ENOMEM;
    }
    if (apr_pool_create(&l->pool, NULL) != APR_SUCCESS) {
        free(l);
        return ES_ENOMEM;
    }
    l->table = apr_hash_make(l->pool);
    intake->limits = l;
    return ES_OK;
}

void es_limits_free(es_intake_t *intake)
{
    if (intake->limits) {
        apr_pool_destroy(intake->limits->pool);
        free(intake->limits);
        intake->limits = NULL;
    }
}

uint64_t es_limits_streams(const es_intake_t *intake)
{
    uint64_t sum = 0;
    int i;

    for (i = 0; i < intake->loop_count; i++) {
        sum += intake->loop_load[i];
    }
    return sum;
}

/* ---- the process ---- */

/* Streams may use all descriptors but those that keep the hub reachable. The limit is asked each
 * time: an administrator may change it under a running process. */
static es_err_t check_files(es_intake_t *intake, uint64_t streams, es_detail_t *detail)
{
    struct rlimit files;
    uint64_t limit;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
        return ES_OK;
    }
    limit = files.rlim_cur / 2;
    if (files.rlim_cur - limit > (uint64_t)intake->config->spare_files) {
        limit = files.rlim_cur - (uint64_t)intake->config->spare_files;
    }
    if (streams < limit) {
        return ES_OK;
    }
    (void)es_fail(detail, ES_EFULL,
                  "%llu streams are held; the limit of %llu open files leaves room for no more",
                  (unsigned long long)streams, (unsigned long long)files.rlim_cur);
    if (es_tame_admits(intake, &intake->no_room)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0308", "a stream is refused: %s",
               detail->text);
    }
    return ES_EFULL;
}

es_err_t es_limits_check(es_intake_t *intake, es_detail_t *detail)
{
    const uint64_t max = intake->config->max_streams;
    const uint64_t streams = es_limits_streams(intake);

    if (max == 0 || streams < max) {
        return check_files(intake, streams, detail);
    }
    (void)es_fail(detail, ES_EFULL, "%llu streams are held; EventStreamMaxStreams %llu is reached",
                  (unsigned long long)streams, (unsigned long long)max);
    if (es_tame_admits(intake, &intake->too_many)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0340", "a stream is refused: %s",
               detail->text);
    }
    return ES_EFULL;
}

/* ---- one client ---- */

/* What stands before the port; an IPv6 address has colons of its own. */
static es_str_t address_of(const char *peer)
{
    const char *port = peer ? strrchr(peer, ':') : NULL;

    return (es_str_t) { peer, port ? (size_t)(port - peer) : peer ? strlen(peer) : 0 };
}

static es_client_t *find(es_intake_t *intake, es_str_t address)
{
    return apr_hash_get(intake->limits->table, address.p, (apr_ssize_t)address.n);
}

es_err_t es_limits_check_client(es_intake_t *intake, const char *peer, es_detail_t *detail)
{
    const uint64_t max = intake->config->max_per_client;
    const es_str_t address = address_of(peer);
    const es_client_t *c = intake->limits && address.n > 0 ? find(intake, address) : NULL;

    if (!c || c->streams < max) {
        return ES_OK;
    }
    (void)es_fail(
        detail, ES_EFULL,
        "%llu streams of the client %.*s are held; EventStreamMaxStreamsPerClient %llu is "
        "reached",
        (unsigned long long)c->streams, (int)address.n, address.p, (unsigned long long)max);
    if (es_tame_admits(intake, &intake->too_many_of_client)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0341", "a stream is refused: %s",
               detail->text);
    }
    return ES_EFULL;
}

es_err_t es_limits_add(es_intake_t *intake, es_stream_t *stream)
{
    const es_str_t address = address_of(stream->peer);
    es_client_t *c;

    if (!intake->limits || address.n == 0) {
        return ES_OK;
    }
    c = find(intake, address);
    if (!c) {
        c = malloc(sizeof *c + address.n);
        if (!c) {
            return ES_ENOMEM;
        }
        c->streams = 0;
        c->len = address.n;
        memcpy(c->address, address.p, address.n);
        apr_hash_set(intake->limits->table, c->address, (apr_ssize_t)c->len, c);
    }
    c->streams++;
    stream->client = c;
    return ES_OK;
}

void es_limits_remove(es_intake_t *intake, es_stream_t *stream)
{
    es_client_t *c = stream->client;

    stream->client = NULL;
    if (c && --c->streams == 0) {
        apr_hash_set(intake->limits->table, c->address, (apr_ssize_t)c->len, NULL);
        free(c);
    }
}
