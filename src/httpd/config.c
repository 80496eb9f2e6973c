/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives: the table, their setters, defaults, create and merge.
 *
 * A member that was not set holds ES_UNSET or NULL; merge lets what is set closer win; the getters
 * at the end apply defaults. Everything that can be wrong with a value is said at start-up, with
 * the directive, what was found and what is accepted.
 */
#include "es_httpd.h"
#include "native_commands.h"

#include "apr_file_io.h"
#include "util_md5.h"

enum {
    KEY_FILE_MAX = 16384,
    DRAIN_DEFAULT = 10 /* seconds */
};

/* Signs Grip-Sig where no key is configured. Made by the parent, the same in all children. */
static es_key_t random_key;

void *es_server_conf_create(apr_pool_t *p, server_rec *s)
{
    es_server_conf_t *c = apr_pcalloc(p, sizeof *c);

    (void)s;
    c->pull = apr_array_make(p, 0, sizeof(const char *));
    c->threads = ES_UNSET;
    c->max_lag = ES_UNSET;
    c->send_timeout = ES_UNSET;
    c->drain = apr_time_from_sec(DRAIN_DEFAULT);
    return c;
}

void *es_server_conf_merge(apr_pool_t *p, void *base, void *add)
{
    (void)p;
    (void)add; /* every directive of this kind is refused inside <VirtualHost> */
    return base;
}

void *es_dir_conf_create(apr_pool_t *p, char *path)
{
    es_dir_conf_t *c = apr_pcalloc(p, sizeof *c);

    (void)path;
    c->grip = ES_UNSET;
    es_native_conf_create(&c->native);
    return c;
}

void *es_dir_conf_merge(apr_pool_t *p, void *base_v, void *add_v)
{
    const es_dir_conf_t *base = base_v, *add = add_v;
    es_dir_conf_t *c = apr_pcalloc(p, sizeof *c);

    c->grip = add->grip != ES_UNSET ? add->grip : base->grip;
    c->grip_key = add->grip_key ? add->grip_key : base->grip_key;
    c->grip_iss = add->grip_key ? add->grip_iss : base->grip_iss;
    c->publish_key = add->publish_key ? add->publish_key : base->publish_key;
    c->publish_iss = add->publish_key ? add->publish_iss : base->publish_iss;
    es_native_conf_merge(&base->native, &add->native, &c->native);
    return c;
}

/* ---- setters ---- */

static const char *set_pull(cmd_parms *cmd, void *dummy, const char *endpoint)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dummy;
    if (wrong) {
        return wrong;
    }
    if (strncmp(endpoint, "tcp://", 6) != 0 && strncmp(endpoint, "ipc://", 6) != 0) {
        return apr_psprintf(
            cmd->pool,
            "EventStreamPull: '%s' is no ZeroMQ endpoint; accepted are tcp://ADDRESS:PORT "
            "and ipc://PATH",
            endpoint);
    }
    if (c->pull->nelts == ES_HUB_PULL_MAX) {
        return apr_psprintf(cmd->pool, "EventStreamPull: at most %d endpoints", ES_HUB_PULL_MAX);
    }
    APR_ARRAY_PUSH(c->pull, const char *) = apr_pstrdup(cmd->pool, endpoint);
    return NULL;
}

/* A whole number in a range, or a sentence about what is wrong. */
static const char *parse_number(cmd_parms *cmd, const char *arg, apr_int64_t min, apr_int64_t max,
                                const char *unit, apr_int64_t *ret)
{
    char *end = NULL;
    apr_int64_t n = apr_strtoi64(arg, &end, 10);

    if (end == arg || *end != '\0' || n < min || n > max) {
        return apr_psprintf(
            cmd->pool,
            "%s: '%s' is not accepted; give a whole number of %s from %" APR_INT64_T_FMT
            " to %" APR_INT64_T_FMT,
            cmd->cmd->name, arg, unit, min, max);
    }
    *ret = n;
    return NULL;
}

static const char *set_threads(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    apr_int64_t n = 0;

    (void)dummy;
    if (!wrong) {
        wrong = parse_number(cmd, arg, 1, ES_HUB_THREADS_MAX, "threads", &n);
    }
    if (!wrong) {
        c->threads = (int)n;
    }
    return wrong;
}

static const char *set_max_lag(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dummy;
    return wrong
               ? wrong
               : parse_number(cmd, arg, ES_HUB_LAG_MIN, (apr_int64_t)1 << 32, "bytes", &c->max_lag);
}

enum { STREAMS_MAX = 100000000 }; /* more than there can be descriptors */

static const char *set_max_streams(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dummy;
    return wrong ? wrong : parse_number(cmd, arg, 0, STREAMS_MAX, "streams", &c->max_streams);
}

static const char *set_max_per_client(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dummy;
    return wrong ? wrong : parse_number(cmd, arg, 0, STREAMS_MAX, "streams", &c->max_per_client);
}

/* A time from `min` seconds to an hour, or a sentence about what is wrong. */
static const char *parse_time(cmd_parms *cmd, const char *arg, int min, apr_interval_time_t *ret)
{
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    apr_interval_time_t time = -1;

    if (wrong) {
        return wrong;
    }
    errno = 0; /* httpd looks at it, and does not reset it everywhere */
    if (!apr_isdigit(*arg) || ap_timeout_parameter_parse(arg, &time, "s") != APR_SUCCESS ||
        time < apr_time_from_sec(min) || time > apr_time_from_sec(3600)) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give a time from %d s to 1 h, as a whole "
                            "number of seconds or with a unit: ms, s, min, h",
                            cmd->cmd->name, arg, min);
    }
    *ret = time;
    return NULL;
}

static const char *set_send_timeout(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);

    (void)dummy;
    return parse_time(cmd, arg, 1, &c->send_timeout);
}

static const char *set_drain(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);

    (void)dummy;
    return parse_time(cmd, arg, 0, &c->drain);
}

static const char *set_stream_log(cmd_parms *cmd, void *dummy, const char *arg)
{
    es_server_conf_t *c = ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dummy;
    if (wrong) {
        return wrong;
    }
    if (arg[0] == '\0' || strcmp(arg, "|") == 0) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give the path of a file, or \"|command\"",
                            cmd->cmd->name, arg);
    }
    if (arg[0] != '|' && !ap_server_root_relative(cmd->temp_pool, arg)) {
        return apr_psprintf(cmd->pool, "%s: '%s' is no valid path", cmd->cmd->name, arg);
    }
    c->stream_log = arg;
    return NULL;
}

/* The content of a key file without white space at its ends. */
static const char *read_key_file(cmd_parms *cmd, const char *name, es_str_t *ret)
{
    const char *path = ap_server_root_relative(cmd->pool, name);
    char *text = apr_palloc(cmd->pool, KEY_FILE_MAX + 1);
    apr_size_t n = KEY_FILE_MAX;
    apr_file_t *file;
    apr_status_t rv =
        path ? apr_file_open(&file, path, APR_FOPEN_READ, APR_OS_DEFAULT, cmd->temp_pool)
             : APR_EBADPATH;

    if (rv == APR_SUCCESS) {
        rv = apr_file_read_full(file, text, n, &n);
        apr_file_close(file);
        if (rv == APR_SUCCESS) {
            return apr_psprintf(cmd->pool, "%s: key file %s has more than %d bytes", cmd->cmd->name,
                                path, KEY_FILE_MAX);
        }
        rv = rv == APR_EOF ? APR_SUCCESS : rv;
    }
    if (rv != APR_SUCCESS) {
        return apr_psprintf(cmd->pool, "%s: key file %s cannot be read: %pm", cmd->cmd->name,
                            path ? path : name, &rv);
    }
    while (n > 0 && apr_isspace(text[n - 1])) {
        n--;
    }
    *ret = (es_str_t) { text, n };
    return NULL;
}

static apr_status_t key_cleanup(void *key)
{
    es_key_free(key);
    return APR_SUCCESS;
}

const char *es_config_key(cmd_parms *cmd, const char *arg, bool signs, const es_key_t **ret)
{
    es_detail_t detail;
    es_str_t text = es_str(arg);
    es_key_t *key = NULL;

    if (strncmp(arg, "file:", 5) == 0) {
        const char *wrong = read_key_file(cmd, arg + 5, &text);

        if (wrong) {
            return wrong;
        }
    }
    if (es_key_from_text(text, &key, &detail) != ES_OK) {
        return apr_pstrcat(cmd->pool, cmd->cmd->name, ": ", detail.text,
                           strstr(detail.text, "; accepted are ")
                               ? NULL
                               : "; accepted are the secret itself, base64:SECRET and file:PATH",
                           NULL);
    }
    apr_pool_cleanup_register(cmd->pool, key, key_cleanup, apr_pool_cleanup_null);
    if (signs ? key->is_public : key->is_private) {
        return apr_psprintf(cmd->pool, "%s: key is a %s one; a %s key or a secret is needed",
                            cmd->cmd->name, signs ? "public" : "private",
                            signs ? "private" : "public");
    }
    *ret = key;
    return NULL;
}

static const char *set_grip_key(cmd_parms *cmd, void *conf, const char *iss, const char *key)
{
    es_dir_conf_t *c = conf;

    c->grip_iss = apr_pstrdup(cmd->pool, iss);
    return es_config_key(cmd, key, true, &c->grip_key);
}

static const char *set_publish_key(cmd_parms *cmd, void *conf, const char *a, const char *b)
{
    es_dir_conf_t *c = conf;

    c->publish_iss = b ? apr_pstrdup(cmd->pool, a) : NULL;
    return es_config_key(cmd, b ? b : a, false, &c->publish_key);
}

/* ---- the table ---- */

const command_rec es_commands[] = {
    AP_INIT_ITERATE("EventStreamPull", set_pull, NULL, RSRC_CONF,
                    "ZeroMQ endpoints on which publishers push items, e.g. tcp://127.0.0.1:5560 "
                    "(default: none)"),
    AP_INIT_TAKE1(
        "EventStreamThreads", set_threads, NULL, RSRC_CONF,
        "threads of the hub that write to streams, 1 to 64 (default: one a CPU, at most 4)"),
    AP_INIT_TAKE1(
        "EventStreamMaxLag", set_max_lag, NULL, RSRC_CONF,
        "bytes that a stream may be behind its channel before it is cut (default: 1048576)"),
    AP_INIT_TAKE1("EventStreamMaxStreams", set_max_streams, NULL, RSRC_CONF,
                  "streams that are held at once; 0: as many as open files allow (default: 0)"),
    AP_INIT_TAKE1("EventStreamMaxStreamsPerClient", set_max_per_client, NULL, RSRC_CONF,
                  "streams that are held at once for one client address; 0: no limit (default: 0)"),
    AP_INIT_TAKE1(
        "EventStreamSendTimeout", set_send_timeout, NULL, RSRC_CONF,
        "a stream whose client takes nothing for so long is cut, 1s to 1h (default: 60s)"),
    AP_INIT_TAKE1(
        "EventStreamLog", set_stream_log, NULL, RSRC_CONF,
        "file or \"|command\" that gets a line for each stream that ends (default: none)"),
    AP_INIT_TAKE1("EventStreamDrain", set_drain, NULL, RSRC_CONF,
                  "time over which a child that stops gracefully ends its HTTP/2 streams, 0 to 1h "
                  "(default: 10s)"),
    AP_INIT_FLAG("EventStreamGrip", ap_set_flag_slot, (void *)APR_OFFSETOF(es_dir_conf_t, grip),
                 ACCESS_CONF | RSRC_CONF,
                 "On: answers of the application here may hold the client's connection by GRIP "
                 "(default: Off)"),
    AP_INIT_TAKE2("EventStreamGripKey", set_grip_key, NULL, ACCESS_CONF | RSRC_CONF,
                  "issuer and key that sign Grip-Sig: a secret (raw, base64:TEXT) or file:PATH "
                  "(default: a random secret)"),
    AP_INIT_TAKE12("EventStreamPublishKey", set_publish_key, NULL, ACCESS_CONF | RSRC_CONF,
                   "[issuer and] key that a publisher's bearer token must show: a secret (raw, "
                   "base64:TEXT) or "
                   "file:PATH (default: no token is asked for)"),
    ES_NATIVE_COMMANDS,
    { .name = NULL }
};

/* ---- getters ---- */

const es_dir_conf_t *es_dir_conf(const request_rec *r)
{
    return ap_get_module_config(r->per_dir_config, &eventstream_module);
}

const es_server_conf_t *es_server_conf(const server_rec *s)
{
    return ap_get_module_config(s->module_config, &eventstream_module);
}

uint64_t es_send_timeout_ms(const server_rec *s)
{
    const apr_interval_time_t t = es_server_conf(s)->send_timeout;

    return t == ES_UNSET ? ES_HUB_SEND_TIMEOUT_DEFAULT * 1000 : (uint64_t)apr_time_as_msec(t);
}

apr_status_t es_random_key_make(apr_pool_t *p)
{
    enum { BYTES = 32 };

    random_key.bytes = apr_palloc(p, BYTES);
    random_key.n = BYTES;
    return apr_generate_random_bytes(random_key.bytes, BYTES);
}

const es_key_t *es_signing_key(const es_dir_conf_t *conf)
{
    return conf->grip_key ? conf->grip_key : &random_key;
}
