/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mod_eventstream: the module record and its hooks. Wiring only; the work is in src/httpd.
 */
#include "src/httpd/es_httpd.h"

#include "mpm_common.h"

static void child_init(apr_pool_t *pchild, server_rec *s)
{
    es_supervise_child_init(pchild, s);
    es_hublink_child_init(pchild, s);
    es_relay_child_init(pchild, s);
    es_native_authorize_child_init(pchild, s);
}

static void register_hooks(apr_pool_t *p)
{
    /* mod_proxy registers its handler at APR_HOOK_FIRST: naming it makes the order independent of
     * LoadModule's. */
    static const char *const inside[] = { "mod_proxy.c", "mod_wsgi.c", NULL };

    (void)p;
    es_adopt_register_hooks();
    ap_hook_open_logs(es_stream_log_open, NULL, NULL, APR_HOOK_MIDDLE);
    es_stopping_register_hooks();
    ap_hook_post_config(es_supervise_post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_monitor(es_supervise_monitor, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(es_grip_handler, NULL, inside, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(es_native_handler, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(es_publish_handler, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(es_status_handler, NULL, NULL, APR_HOOK_MIDDLE);
    es_native_collect_handle = ap_register_output_filter("EVENTSTREAM_COLLECT", es_native_collect,
                                                         NULL, AP_FTYPE_RESOURCE);
    es_grip_filter_handle =
        ap_register_output_filter("GRIP", es_grip_filter, NULL, AP_FTYPE_RESOURCE);
}

/* Symbols are hidden by default and AP_MODULE_DECLARE_DATA does not undo that on Unix. */
extern module AP_MODULE_DECLARE_DATA __attribute__((visibility("default"))) eventstream_module;

/* clang-format off */
module AP_MODULE_DECLARE_DATA eventstream_module = {
    STANDARD20_MODULE_STUFF,
    es_dir_conf_create,
    es_dir_conf_merge,
    es_server_conf_create,
    es_server_conf_merge,
    es_commands,
    register_hooks,
    AP_MODULE_FLAG_NONE
};
