/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordered name-value pairs: response headers, Grip-Set-Meta, the meta of an item. A plain array:
 * the lists are short (a few dozen at most) and read far more often than they are written. Values
 * may hold any byte and carry their length; names end at their NUL.
 *
 * Caps are the business of whoever fills a list: they differ between headers and meta.
 */
#include "es_grip.h"

#include <stdlib.h>
#include <string.h>

/* The array holds 4, 8, 16, ... pairs: it is full exactly when n is one of these numbers or 0. */
static es_err_t make_room(es_pairs_t *pairs)
{
    size_t n = pairs->n;
    size_t cap = n == 0 ? 4 : n * 2;
    es_pair_t *grown;

    if (n != 0 && (n < 4 || (n & (n - 1)) != 0)) {
        return ES_OK;
    }
    if (cap > SIZE_MAX / sizeof(*grown)) {
        return ES_ENOMEM;
    }
    grown = realloc(pairs->v, cap * sizeof(*grown));
    if (grown == NULL) {
        return ES_ENOMEM;
    }
    pairs->v = grown;
    return ES_OK;
}

es_err_t es_pairs_add(es_pairs_t *pairs, es_str_t name, es_str_t value)
{
    es_err_t err = make_room(pairs);
    es_pair_t pair;

    if (err != ES_OK) {
        return err;
    }
    pair.name = es_memdup(name.p, name.n);
    pair.value = es_memdup(value.p, value.n);
    pair.value_len = value.n;
    if (pair.name == NULL || pair.value == NULL) {
        free(pair.name);
        free(pair.value);
        return ES_ENOMEM;
    }
    pairs->v[pairs->n] = pair;
    pairs->n++;
    return ES_OK;
}

const es_pair_t *es_pairs_get(const es_pairs_t *pairs, const char *name)
{
    size_t i;

    for (i = 0; i < pairs->n; i++) {
        if (strcmp(pairs->v[i].name, name) == 0) {
            return &pairs->v[i];
        }
    }
    return NULL;
}

void es_pairs_free(es_pairs_t *pairs)
{
    size_t i;

    for (i = 0; i < pairs->n; i++) {
        free(pairs->v[i].name);
        free(pairs->v[i].value);
    }
    free(pairs->v);
    pairs->v = NULL;
    pairs->n = 0;
}
