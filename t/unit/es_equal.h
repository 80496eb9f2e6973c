/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_equal.h
 * Deep comparison of layer 1's structs, for the unit tests and the fuzz targets. Needs no test
 * library. Order counts everywhere: a message that comes back in another order is not the same.
 */
#ifndef ES_EQUAL_H
#define ES_EQUAL_H

#include "es_grip.h"

#include <string.h>

static inline bool es_equal_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static inline bool es_equal_bytes(const char *a, size_t an, const char *b, size_t bn)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    return an == bn && memcmp(a, b, an) == 0;
}

static inline bool es_equal_pairs(const es_pairs_t *a, const es_pairs_t *b)
{
    size_t i;

    if (a->n != b->n) {
        return false;
    }
    for (i = 0; i < a->n; i++) {
        if (strcmp(a->v[i].name, b->v[i].name) != 0 ||
            !es_equal_bytes(a->v[i].value, a->v[i].value_len, b->v[i].value, b->v[i].value_len)) {
            return false;
        }
    }
    return true;
}

static inline bool es_equal_channels(const es_instruct_t *a, const es_instruct_t *b)
{
    size_t i;

    if (a->channel_count != b->channel_count) {
        return false;
    }
    for (i = 0; i < a->channel_count; i++) {
        const es_sub_spec_t *x = &a->channels[i];
        const es_sub_spec_t *y = &b->channels[i];
        if (!es_equal_bytes(x->name, x->name_len, y->name, y->name_len) ||
            !es_equal_text(x->prev_id, y->prev_id) || x->filter_count != y->filter_count ||
            memcmp(x->filters, y->filters, x->filter_count) != 0) {
            return false;
        }
    }
    return true;
}

static inline bool es_equal_expose(const es_instruct_t *a, const es_instruct_t *b)
{
    size_t i;

    if (a->expose_count != b->expose_count) {
        return false;
    }
    for (i = 0; i < a->expose_count; i++) {
        if (strcmp(a->expose[i], b->expose[i]) != 0) {
            return false;
        }
    }
    return true;
}

/** Everything but channels_over, which does not travel. */
static inline bool es_equal_instruct(const es_instruct_t *a, const es_instruct_t *b)
{
    return a->hold == b->hold && a->timeout == b->timeout &&
           es_equal_bytes(a->keep_alive, a->keep_alive_len, b->keep_alive, b->keep_alive_len) &&
           a->keep_alive_timeout == b->keep_alive_timeout &&
           a->keep_alive_mode == b->keep_alive_mode && a->status == b->status &&
           es_equal_text(a->reason, b->reason) && es_equal_channels(a, b) &&
           es_equal_pairs(&a->meta, &b->meta) && es_equal_expose(a, b);
}

#endif
