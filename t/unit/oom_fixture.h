/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail: while `countdown` is 0 each one does, above that so many still succeed.
 * Needs the linker's help: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc. Included by one file of
 * a program.
 */
#ifndef ES_OOM_FIXTURE_H
#define ES_OOM_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static long countdown = -1; /* -1: nothing fails */

/* Memory that is out does not come back in between. */
static bool fails_now(void)
{
    if (countdown > 0) {
        countdown--;
        return false;
    }
    return countdown == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails_now() ? NULL : __real_realloc(p, n);
}

#endif
