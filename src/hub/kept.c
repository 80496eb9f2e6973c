/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages that come from a hub before, by the name of their channel, from their coming until
 * the take-over is done. Each loop that has a stream on a channel fills its own log of it from
 * here: the frames are shared.
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <apr_hash.h>
#include <apr_pools.h>
#include <stdlib.h>

typedef struct shelf { /* one channel's messages, oldest first */
    char *name;
    es_log_entry_t *v; /* one reference each */
    size_t n, cap;
} shelf_t;

struct es_kept {
    apr_pool_t *pool;  /* of the table alone */
    apr_hash_t *table; /* name to shelf_t */
    shelf_t *last;     /* of the message before */
};

es_err_t es_kept_make(es_kept_t **ret)
{
    es_kept_t *kept = calloc(1, sizeof *kept);

    *ret = NULL;
    if (!kept) {
        return ES_ENOMEM;
    }
    if (apr_pool_create(&kept->pool, NULL) != APR_SUCCESS) {
        free(kept);
        return ES_ENOMEM;
    }
    kept->table = apr_hash_make(kept->pool);
    *ret = kept;
    return ES_OK;
}

static void clear(shelf_t *shelf)
{
    while (shelf->n > 0) {
        es_frame_unref(shelf->v[--shelf->n].frame);
    }
}

void es_kept_free(es_kept_t *kept)
{
    apr_hash_index_t *i;

    if (!kept) {
        return;
    }
    for (i = apr_hash_first(kept->pool, kept->table); i; i = apr_hash_next(i)) {
        shelf_t *shelf = apr_hash_this_val(i);

        clear(shelf);
        free(shelf->v);
        free(shelf->name);
        free(shelf);
    }
    apr_pool_destroy(kept->pool);
    free(kept);
}

/* NULL: out of memory. */
static shelf_t *find_or_make(es_kept_t *kept, es_str_t name)
{
    shelf_t *shelf = apr_hash_get(kept->table, name.p, (apr_ssize_t)name.n);

    if (shelf) {
        return shelf;
    }
    shelf = calloc(1, sizeof *shelf);
    if (!shelf) {
        return NULL;
    }
    shelf->name = es_memdup(name.p, name.n);
    if (!shelf->name) {
        free(shelf);
        return NULL;
    }
    apr_hash_set(kept->table, shelf->name, (apr_ssize_t)name.n, shelf);
    return shelf;
}

es_err_t es_kept_add(es_kept_t *kept, es_frame_t *frame, uint64_t order)
{
    const es_item_t *item = frame->item;
    shelf_t *shelf = find_or_make(kept, (es_str_t) { item->channel, item->channel_len });

    if (shelf && shelf->n == shelf->cap) {
        const size_t cap = shelf->cap > 0 ? 2 * shelf->cap : 16;
        es_log_entry_t *grown = realloc(shelf->v, cap * sizeof *grown);

        if (!grown) {
            return ES_ENOMEM;
        }
        shelf->v = grown;
        shelf->cap = cap;
    }
    if (!shelf) {
        return ES_ENOMEM;
    }
    shelf->v[shelf->n++] = (es_log_entry_t) { .frame = frame, .order = order };
    kept->last = shelf;
    return ES_OK;
}

void es_kept_forget_last(es_kept_t *kept)
{
    if (kept->last) {
        clear(kept->last);
    }
}

es_err_t es_kept_fill(const es_kept_t *kept, es_channel_t *channel, size_t max_bytes)
{
    const shelf_t *shelf = apr_hash_get(kept->table, channel->name, (apr_ssize_t)channel->name_len);
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; shelf && i < shelf->n && err == ES_OK; i++) {
        es_frame_ref(shelf->v[i].frame, 1);
        err = es_channel_append(channel, shelf->v[i].frame, shelf->v[i].order, max_bytes);
    }
    return err;
}
