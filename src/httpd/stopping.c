/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does this child stop, and how? For the pump, which looks while it carries a stream, and for the
 * relay at the end.
 *
 * - event, worker: they say so through the hook child_stopping (httpd 2.4.49), in any of their
 *   threads, first gracefully and then perhaps not. Without the hook every stop is taken for one at
 *   once.
 * - prefork calls the hook when the child has nothing left to do, and never says gracefully. But
 *   the only stop that its handlers live to see is a graceful one: others end the process from a
 *   signal handler.
 */
#include "es_httpd.h"

#include "ap_mpm.h"
#include "mpm_common.h"

#include <stdatomic.h>

static _Atomic int told = ES_STOPPING_NOT;

#if AP_MODULE_MAGIC_AT_LEAST(20120211, 110)
enum { HAS_HOOK = 1 };

static void child_stopping(apr_pool_t *pchild, int graceful)
{
    const int how = graceful ? ES_STOPPING_GRACEFULLY : ES_STOPPING_AT_ONCE;
    int before = atomic_load(&told);

    (void)pchild;
    while (before < how && !atomic_compare_exchange_weak(&told, &before, how)) {
        continue;
    }
}

void es_stopping_register_hooks(void)
{
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_FIRST);
}
#else
enum { HAS_HOOK = 0 };

void es_stopping_register_hooks(void)
{
}
#endif

bool es_mpm_is_threaded(void)
{
    int threaded = AP_MPMQ_NOT_SUPPORTED;

    return ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded) == APR_SUCCESS &&
           threaded != AP_MPMQ_NOT_SUPPORTED;
}

es_stopping_t es_stopping(void)
{
    const es_stopping_t how = (es_stopping_t)atomic_load(&told);
    int state = AP_MPMQ_RUNNING;

    if (how != ES_STOPPING_NOT || ap_mpm_query(AP_MPMQ_MPM_STATE, &state) != APR_SUCCESS ||
        state != AP_MPMQ_STOPPING) {
        return how;
    }
    if (!es_mpm_is_threaded()) {
        return ES_STOPPING_GRACEFULLY;
    }
    return HAS_HOOK ? ES_STOPPING_NOT /* the hook comes in a moment */ : ES_STOPPING_AT_ONCE;
}
