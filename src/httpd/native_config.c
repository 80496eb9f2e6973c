/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives of the native endpoint: setters, merge, defaults. The table's lines are in
 * native_commands.h. As in config.c a member that was not set is NULL or ES_UNSET, and what is set
 * closer wins; a list is replaced as a whole, not added to.
 */
#include "native_commands.h"

enum {
    KEEP_ALIVE_DEFAULT = 20, /* seconds: django-eventstream's */
    RETRY_DEFAULT = 3000,    /* milliseconds: what Chrome does by itself; Firefox takes 5 s */
    GRACE_DEFAULT = 5000,    /* milliseconds: longer than RETRY_DEFAULT */
    ORIGIN_MAX = 64
};

void es_native_conf_create(es_native_conf_t *conf)
{
    conf->keep_alive = ES_UNSET;
    conf->retry = ES_UNSET;
    conf->credentials = ES_UNSET;
    conf->publish = ES_UNSET;
    conf->presence = ES_UNSET;
    conf->grace = ES_UNSET;
}

void es_native_conf_merge(const es_native_conf_t *base, const es_native_conf_t *add,
                          es_native_conf_t *ret)
{
    ret->channels = add->channels ? add->channels : base->channels;
    ret->param = add->param ? add->param : base->param;
    ret->prefix = add->prefix ? add->prefix : base->prefix;
    ret->allow = add->allow ? add->allow : base->allow;
    ret->keep_alive = add->keep_alive != ES_UNSET ? add->keep_alive : base->keep_alive;
    ret->retry = add->retry != ES_UNSET ? add->retry : base->retry;
    ret->origins = add->origins ? add->origins : base->origins;
    ret->credentials = add->credentials != ES_UNSET ? add->credentials : base->credentials;
    ret->headers = add->headers ? add->headers : base->headers;
    ret->authorize = add->authorize ? add->authorize : base->authorize;
    ret->publish = add->publish != ES_UNSET ? add->publish : base->publish;
    ret->presence = add->presence != ES_UNSET ? add->presence : base->presence;
    ret->grace = add->presence != ES_UNSET ? add->grace : base->grace;
    ret->subscribe_key = add->subscribe_key ? add->subscribe_key : base->subscribe_key;
    ret->subscribe_iss = add->subscribe_key ? add->subscribe_iss : base->subscribe_iss;
}

int es_native_keep_alive(const es_native_conf_t *conf)
{
    return conf->keep_alive == ES_UNSET ? KEEP_ALIVE_DEFAULT : conf->keep_alive;
}

int es_native_retry(const es_native_conf_t *conf)
{
    return conf->retry == ES_UNSET ? RETRY_DEFAULT : conf->retry;
}

uint64_t es_native_grace(const es_native_conf_t *conf)
{
    return conf->grace == ES_UNSET ? GRACE_DEFAULT : (uint64_t)conf->grace;
}

static es_native_conf_t *native(void *conf)
{
    return &((es_dir_conf_t *)conf)->native;
}

/* ---- channels ---- */

/* NULL: a fine name. */
static const char *check_name(cmd_parms *cmd, const char *name)
{
    if (*name == '\0' || strlen(name) > ES_MAX_CHANNEL_NAME || !es_text_is_utf8(es_str(name))) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give a name in UTF-8 of 1 to %d bytes",
                            cmd->cmd->name, name, ES_MAX_CHANNEL_NAME);
    }
    return NULL;
}

const char *es_set_channel(cmd_parms *cmd, void *conf, const char *arg)
{
    es_native_conf_t *c = native(conf);
    es_fixed_channel_t channel = { .name = arg };
    const char *wrong = NULL;

    if (strncmp(arg, "expr=", 5) == 0) {
        channel.name = NULL;
        channel.expr = ap_expr_parse_cmd(cmd, arg + 5, AP_EXPR_FLAG_STRING_RESULT, &wrong, NULL);
        if (wrong) {
            return apr_psprintf(cmd->pool, "%s: the expression '%s' is not accepted: %s",
                                cmd->cmd->name, arg + 5, wrong);
        }
    }
    else {
        wrong = check_name(cmd, arg);
    }
    if (wrong) {
        return wrong;
    }
    if (!c->channels) {
        c->channels = apr_array_make(cmd->pool, 4, sizeof(es_fixed_channel_t));
    }
    if (c->channels->nelts == ES_MAX_CHANNELS) {
        return apr_psprintf(cmd->pool, "%s: at most %d channels", cmd->cmd->name, ES_MAX_CHANNELS);
    }
    APR_ARRAY_PUSH(c->channels, es_fixed_channel_t) = channel;
    return NULL;
}

const char *es_set_channel_param(cmd_parms *cmd, void *conf, const char *arg)
{
    const char *wrong = check_name(cmd, arg);

    if (!wrong) {
        native(conf)->param = arg;
    }
    return wrong;
}

const char *es_set_channel_prefix(cmd_parms *cmd, void *conf, const char *arg)
{
    const char *wrong = *arg ? check_name(cmd, arg) : NULL; /* "" takes an outer one away */

    if (!wrong) {
        native(conf)->prefix = arg;
    }
    return wrong;
}

static apr_status_t patterns_cleanup(void *patterns)
{
    es_patterns_free(patterns);
    return APR_SUCCESS;
}

static const char *add_pattern(cmd_parms *cmd, es_patterns_t **io, const char *arg)
{
    es_detail_t detail;

    if (!*io) {
        *io = apr_pcalloc(cmd->pool, sizeof **io);
        apr_pool_cleanup_register(cmd->pool, *io, patterns_cleanup, apr_pool_cleanup_null);
    }
    if (es_patterns_add(*io, es_str(arg), &detail) != ES_OK) {
        return apr_psprintf(cmd->pool, "%s: '%s' is not accepted: %s", cmd->cmd->name, arg,
                            detail.text);
    }
    return NULL;
}

const char *es_set_allow_channels(cmd_parms *cmd, void *conf, const char *arg)
{
    return add_pattern(cmd, &native(conf)->allow, arg);
}

/* ---- times ---- */

/* 0, or a time from `min_ms` to an hour. */
static const char *parse_ms(cmd_parms *cmd, const char *arg, int min_ms, const char *min, int *ret)
{
    apr_interval_time_t time = -1;

    errno = 0; /* httpd looks at it, and does not reset it everywhere */
    if (!apr_isdigit(*arg) || ap_timeout_parameter_parse(arg, &time, "s") != APR_SUCCESS ||
        (time != 0 && time < apr_time_from_msec(min_ms)) || time > apr_time_from_sec(3600)) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give 0, or a time from %s to 1 h, as a "
                            "whole number of seconds or with a unit: ms, s, min, h",
                            cmd->cmd->name, arg, min);
    }
    *ret = (int)apr_time_as_msec(time);
    return NULL;
}

const char *es_set_keep_alive(cmd_parms *cmd, void *conf, const char *arg)
{
    int ms = 0;
    const char *wrong = parse_ms(cmd, arg, 1000, "1 s", &ms);

    if (!wrong && ms % 1000 != 0) {
        return apr_psprintf(cmd->pool, "%s: '%s' is not accepted; give whole seconds",
                            cmd->cmd->name, arg);
    }
    if (!wrong) {
        native(conf)->keep_alive = ms / 1000;
    }
    return wrong;
}

const char *es_set_retry(cmd_parms *cmd, void *conf, const char *arg)
{
    return parse_ms(cmd, arg, 100, "100 ms", &native(conf)->retry);
}

/* ---- pages of other sites ---- */

/* Any page of any site, with the visitor's cookies: browsers refuse that, and so does this. */
static const char *check_cors(cmd_parms *cmd, const es_native_conf_t *c)
{
    if (c->credentials == 1 && c->origins && es_patterns_match(c->origins, es_str("*"))) {
        return apr_psprintf(cmd->pool,
                            "%s: EventStreamAllowOrigin * and EventStreamAllowCredentials On do "
                            "not go together; name the origins, such as https://*.example.org",
                            cmd->cmd->name);
    }
    return NULL;
}

const char *es_set_allow_origin(cmd_parms *cmd, void *conf, const char *arg)
{
    es_native_conf_t *c = native(conf);
    const char *wrong;

    if (strcmp(arg, "*") != 0 && strcmp(arg, "null") != 0 &&
        (!strstr(arg, "://") || strchr(strstr(arg, "://") + 3, '/') != NULL)) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give an origin without a path, such as "
                            "https://www.example.org or https://*.example.org, or *",
                            cmd->cmd->name, arg);
    }
    if (c->origins && c->origins->n == ORIGIN_MAX) {
        return apr_psprintf(cmd->pool, "%s: at most %d origins", cmd->cmd->name, ORIGIN_MAX);
    }
    wrong = add_pattern(cmd, &c->origins, arg);
    return wrong ? wrong : check_cors(cmd, c);
}

const char *es_set_allow_credentials(cmd_parms *cmd, void *conf, int on)
{
    native(conf)->credentials = on;
    return check_cors(cmd, native(conf));
}

const char *es_set_allow_headers(cmd_parms *cmd, void *conf, const char *arg)
{
    es_native_conf_t *c = native(conf);
    const char *p = arg;

    if (strcmp(arg, "*") != 0) {
        while (apr_isalnum(*p) || *p == '-' || *p == '_') {
            p++;
        }
        if (p == arg || *p != '\0') {
            return apr_psprintf(cmd->pool,
                                "%s: '%s' is not accepted; give names of headers, such as "
                                "Authorization",
                                cmd->cmd->name, arg);
        }
    }
    c->headers = c->headers ? apr_pstrcat(cmd->pool, c->headers, ", ", arg, NULL) : arg;
    return NULL;
}

/* ---- who may ---- */

const char *es_set_authorize(cmd_parms *cmd, void *conf, const char *arg)
{
    if (ap_cstr_casecmp(arg, "None") == 0) {
        arg = "";
    }
    else if (arg[0] != '/' || arg[1] == '/' || strchr(arg, '#')) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; give a path of this server that starts with "
                            "one /, or None",
                            cmd->cmd->name, arg);
    }
    native(conf)->authorize = arg;
    return NULL;
}

const char *es_set_publish(cmd_parms *cmd, void *conf, int on)
{
    (void)cmd;
    native(conf)->publish = on;
    return NULL;
}

const char *es_set_subscribe_key(cmd_parms *cmd, void *conf, const char *a, const char *b)
{
    es_native_conf_t *c = native(conf);

    c->subscribe_iss = b ? a : NULL;
    return es_config_key(cmd, b ? b : a, false, &c->subscribe_key);
}

/* ---- who is there ---- */

const char *es_set_presence(cmd_parms *cmd, void *conf, const char *on, const char *grace)
{
    static const char name[] = "grace=";
    const size_t n = sizeof name - 1;
    apr_interval_time_t time = 0;
    es_native_conf_t *c = native(conf);

    c->grace = ES_UNSET;
    if (ap_cstr_casecmp(on, "On") != 0 && ap_cstr_casecmp(on, "Off") != 0) {
        return apr_psprintf(cmd->pool, "%s: '%s' is not accepted; give On or Off", cmd->cmd->name,
                            on);
    }
    c->presence = ap_cstr_casecmp(on, "On") == 0;
    if (!grace) {
        return NULL;
    }
    errno = 0;
    if (!c->presence || strncmp(grace, name, n) != 0 || !apr_isdigit(grace[n]) ||
        ap_timeout_parameter_parse(grace + n, &time, "s") != APR_SUCCESS ||
        time > apr_time_from_msec(ES_GRACE_MAX)) {
        return apr_psprintf(cmd->pool,
                            "%s: '%s' is not accepted; with On give grace=TIME, a time from 0 to "
                            "60 s, as a whole number of seconds or with a unit: ms, s, min",
                            cmd->cmd->name, grace);
    }
    c->grace = (int)apr_time_as_msec(time);
    return NULL;
}
