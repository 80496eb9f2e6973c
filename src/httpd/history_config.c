/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EventStreamHistory off|DIRECTORY [size=BYTES] [age=TIME] [count=N]. The directory is looked at by
 * the hub, which runs as the server's User: here are its name and the limits.
 */
#include "native_commands.h"

enum { DIGITS_MAX = 15 };

typedef struct unit {
    const char *name;
    uint64_t factor;
} unit_t;

static const unit_t byte_units[] = { { "", 1 },
                                     { "K", (uint64_t)1 << 10 },
                                     { "M", (uint64_t)1 << 20 },
                                     { "G", (uint64_t)1 << 30 },
                                     { "T", (uint64_t)1 << 40 },
                                     { NULL, 0 } };
static const unit_t time_units[] = { { "", 1000 },           { "ms", 1 },
                                     { "s", 1000 },          { "min", 60 * 1000 },
                                     { "h", 3600 * 1000 },   { "d", 86400 * 1000 },
                                     { "w", 604800 * 1000 }, { NULL, 0 } };
static const unit_t no_units[] = { { "", 1 }, { NULL, 0 } };

/* What may be said behind the directory. */
static const struct limit {
    const char *name; /* with its '=' */
    const unit_t *units;
    uint64_t min, max;
    size_t offset; /* in es_history_conf_t */
    const char *accepted;
} limits[] = {
    { "size=", byte_units, (uint64_t)1 << 20, (uint64_t)1 << 44, offsetof(es_history_conf_t, bytes),
      "1M to 16T, in bytes or with a unit: K, M, G, T" },
    { "age=", time_units, 1000, (uint64_t)3650 * 86400 * 1000, offsetof(es_history_conf_t, age_ms),
      "1s to 3650d, in seconds or with a unit: ms, s, min, h, d, w" },
    { "count=", no_units, 1, 1000000000, offsetof(es_history_conf_t, count),
      "a whole number from 1 to 1000000000" },
};

/* A whole number and one of the units. */
static bool parse(const char *text, const unit_t *units, uint64_t *ret)
{
    uint64_t n = 0;
    int digits = 0;

    while (apr_isdigit(*text) && digits < DIGITS_MAX) {
        n = n * 10 + (uint64_t)(*text++ - '0');
        digits++;
    }
    for (; units->name; units++) {
        if (digits > 0 && ap_cstr_casecmp(text, units->name) == 0) {
            *ret = n > UINT64_MAX / units->factor ? UINT64_MAX : n * units->factor;
            return true;
        }
    }
    return false;
}

static const char *set_limit(cmd_parms *cmd, const char *arg, es_history_conf_t *c)
{
    size_t i;

    for (i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const struct limit *l = &limits[i];
        const size_t n = strlen(l->name);
        uint64_t value = 0;

        if (ap_cstr_casecmpn(arg, l->name, n) != 0) {
            continue;
        }
        if (!parse(arg + n, l->units, &value) || value < l->min || value > l->max) {
            return apr_psprintf(cmd->pool, "%s: '%s' is not accepted; %s may be %s", cmd->cmd->name,
                                arg, l->name, l->accepted);
        }
        memcpy((char *)c + l->offset, &value, sizeof value);
        return NULL;
    }
    return apr_psprintf(cmd->pool,
                        "%s: '%s' is not accepted; behind the directory may stand size=BYTES, "
                        "age=TIME and count=N",
                        cmd->cmd->name, arg);
}

const char *es_set_history(cmd_parms *cmd, void *conf, int argc, char *const argv[])
{
    es_server_conf_t *server =
        ap_get_module_config(cmd->server->module_config, &eventstream_module);
    const char *wrong = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    es_history_conf_t c = { .directory = NULL };
    int i;

    (void)conf;
    if (!wrong && (argc == 0 || *argv[0] == '\0')) {
        wrong = apr_psprintf(cmd->pool, "%s: give a directory, or off", cmd->cmd->name);
    }
    if (!wrong && ap_cstr_casecmp(argv[0], "off") == 0 && argc > 1) {
        wrong = apr_psprintf(cmd->pool, "%s: nothing may stand behind 'off'", cmd->cmd->name);
    }
    if (!wrong && ap_cstr_casecmp(argv[0], "off") != 0) {
        c.directory = ap_server_root_relative(cmd->pool, argv[0]);
        if (!c.directory) {
            wrong = apr_psprintf(cmd->pool, "%s: '%s' is no valid path", cmd->cmd->name, argv[0]);
        }
    }
    for (i = 1; i < argc && !wrong; i++) {
        wrong = set_limit(cmd, argv[i], &c);
    }
    if (!wrong) {
        server->history = c;
    }
    return wrong;
}
