/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which channels exist, and which loops have streams on them. A channel exists while a stream is on
 * it.
 *
 * Each loop has a log of its own for a channel, made here when its first stream joins. Orders carry
 * the pointer, so loops look up no names. A log is freed by its loop, by an order that comes after
 * every other order which names it.
 *
 * The intake's thread only.
 */
#include "intake_int.h"

#include <apr_hash.h>
#include <apr_pools.h>
#include <stdlib.h>

struct es_registry {
    apr_pool_t *pool;  /* the table alone; entries are malloc'ed */
    apr_hash_t *table; /* name to es_entry_t */
    int loops;
};

es_err_t es_registry_make(int loops, es_registry_t **ret)
{
    es_registry_t *r = calloc(1, sizeof *r);

    if (!r) {
        return ES_ENOMEM;
    }
    r->loops = loops;
    if (apr_pool_create(&r->pool, NULL) != APR_SUCCESS) {
        free(r);
        return ES_ENOMEM;
    }
    r->table = apr_hash_make(r->pool);
    *ret = r;
    return ES_OK;
}

static void entry_free(es_entry_t *e)
{
    free(e->name);
    free(e);
}

void es_registry_free(es_registry_t *registry)
{
    apr_hash_index_t *i;

    if (!registry) {
        return;
    }
    for (i = apr_hash_first(registry->pool, registry->table); i; i = apr_hash_next(i)) {
        entry_free(apr_hash_this_val(i));
    }
    apr_pool_destroy(registry->pool);
    free(registry);
}

es_entry_t *es_registry_find(es_registry_t *registry, es_str_t name)
{
    return apr_hash_get(registry->table, name.p, (apr_ssize_t)name.n);
}

size_t es_registry_count(const es_registry_t *registry)
{
    return apr_hash_count(registry->table);
}

es_err_t es_registry_each(es_registry_t *registry,
                          es_err_t (*fn)(void *ctx, const es_entry_t *entry), void *ctx)
{
    apr_hash_index_t *i;
    es_err_t err = ES_OK;

    for (i = apr_hash_first(NULL, registry->table); i && err == ES_OK; i = apr_hash_next(i)) {
        err = fn(ctx, apr_hash_this_val(i));
    }
    return err;
}

static es_entry_t *entry_make(es_registry_t *r, es_str_t name)
{
    es_entry_t *e = calloc(1, sizeof *e + (size_t)r->loops * sizeof e->loop[0]);

    if (!e) {
        return NULL;
    }
    e->name = es_memdup(name.p, name.n);
    if (!e->name) {
        free(e);
        return NULL;
    }
    e->name_len = name.n;
    apr_hash_set(r->table, e->name, (apr_ssize_t)e->name_len, e);
    return e;
}

static void entry_drop_if_idle(es_registry_t *r, es_entry_t *e)
{
    if (e->streams == 0) {
        apr_hash_set(r->table, e->name, (apr_ssize_t)e->name_len, NULL);
        entry_free(e);
    }
}

es_channel_t *es_registry_join(es_registry_t *registry, es_str_t name, int loop)
{
    es_entry_t *e = es_registry_find(registry, name);

    if (!e) {
        e = entry_make(registry, name);
    }
    if (!e) {
        return NULL;
    }
    if (!e->loop[loop].channel) {
        e->loop[loop].channel = es_channel_make(name, e);
        if (!e->loop[loop].channel) {
            entry_drop_if_idle(registry, e);
            return NULL;
        }
    }
    e->loop[loop].streams++;
    e->streams++;
    return e->loop[loop].channel;
}

bool es_registry_leave(es_registry_t *registry, es_channel_t *channel, int loop)
{
    es_entry_t *e = channel->entry;
    const bool last = --e->loop[loop].streams == 0;

    e->streams--;
    if (last) {
        e->loop[loop].channel = NULL;
        entry_drop_if_idle(registry, e);
    }
    return last;
}
