/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub's counters as one JSON object: what `SetHandler eventstream-status` shows. Counters grow
 * since httpd started, from hub to hub, unless one dies; streams, reserved and channels are what
 * there is now. The intake's thread; it reads the loops' counters without a lock, so figures of one
 * answer may be some deliveries apart.
 */
#include "intake_int.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_int_t load(_Atomic uint64_t *counter)
{
    return (json_int_t)atomic_load_explicit(counter, memory_order_acquire);
}

static void put(json_t *o, const char *name, json_int_t value)
{
    json_object_set_new(o, name, json_integer(value));
}

static json_t *ended_json(es_intake_t *intake)
{
    json_t *o = json_object();
    int end, i;

    for (end = 0; o && end < ES_END_RELEASED; end++) {
        json_int_t sum = (json_int_t)intake->carried.ended[end];

        for (i = 0; i < intake->loop_count; i++) {
            sum += load(&intake->loops[i].counters.ended[end]);
        }
        put(o, es_end_name((es_end_t)end), sum);
    }
    return o;
}

static json_t *hub_json(const es_intake_t *intake)
{
    json_t *o = json_object();

    if (o) {
        put(o, "pid", getpid());
        put(o, "uptime", (json_int_t)((es_now(intake->config) - intake->started_ms) / 1000));
        put(o, "threads", intake->loop_count);
    }
    return o;
}

/* What the history has now, if it can be asked. */
static bool put_history_facts(es_intake_t *intake, json_t *o)
{
    const uint64_t wall_ms = es_wall(intake->config);
    es_store_info_t info;
    es_detail_t detail;

    if (!intake->history ||
        es_store_info(es_history_store(intake->history), &info, &detail) != ES_OK) {
        return false;
    }
    put(o, "messages", (json_int_t)info.records);
    put(o, "channels", (json_int_t)info.channels);
    put(o, "bytes", (json_int_t)info.used_bytes);
    put(o, "max_bytes", (json_int_t)info.max_bytes);
    put(o, "oldest_age",
        info.records > 0 && wall_ms > info.oldest_ms
            ? (json_int_t)((wall_ms - info.oldest_ms) / 1000)
            : 0);
    return true;
}

/* null: there is to be none. */
static json_t *history_json(es_intake_t *intake)
{
    const es_carried_t *before = &intake->carried;
    es_history_counts_t counts = { 0, 0 };
    json_int_t replaying = 0;
    json_t *o = intake->config->history ? json_object() : json_null();
    int i;

    if (!json_is_object(o)) {
        return o;
    }
    if (intake->history) {
        counts = es_history_counts(intake->history);
    }
    for (i = 0; i < intake->loop_count; i++) {
        replaying += load(&intake->loops[i].counters.replaying);
    }
    put(o, "usable", put_history_facts(intake, o));
    put(o, "groups", (json_int_t)(before->groups + counts.groups));
    put(o, "not_kept", (json_int_t)(before->not_kept + intake->not_kept + counts.not_kept));
    put(o, "replaying", replaying);
    return o;
}

static json_t *stats_object(es_intake_t *intake)
{
    const es_carried_t *before = &intake->carried;
    json_int_t live = 0, given;
    json_int_t deliveries = (json_int_t)before->deliveries;
    json_int_t keep_alives = (json_int_t)before->keep_alives;
    json_int_t bytes = (json_int_t)before->bytes;
    json_int_t log_lost = (json_int_t)before->log_lost;
    json_t *root = json_object();
    int i;

    es_intake_take_back(intake); /* so that a stream that ended is not counted as reserved */
    given = (json_int_t)es_limits_streams(intake);
    for (i = 0; i < intake->loop_count; i++) {
        es_counters_t *c = &intake->loops[i].counters;

        live += load(&c->streams);
        deliveries += load(&c->deliveries);
        keep_alives += load(&c->keep_alives);
        bytes += load(&c->bytes);
        log_lost += load(&c->log_lost);
    }
    if (!root) {
        return NULL;
    }
    json_object_set_new(root, "hub", hub_json(intake));
    put(root, "streams", live);
    put(root, "reserved", given > live ? given - live : 0);
    put(root, "channels", (json_int_t)es_registry_count(intake->registry));
    put(root, "published", (json_int_t)(before->published + intake->published));
    put(root, "refused", (json_int_t)(before->refused + intake->refused));
    put(root, "deliveries", deliveries);
    put(root, "keep_alives", keep_alives);
    put(root, "bytes", bytes);
    put(root, "log_lost", log_lost);
    json_object_set_new(root, "ended", ended_json(intake));
    json_object_set_new(root, "history", history_json(intake));
    return root;
}

static uint64_t counted(const json_t *o, const char *name)
{
    const json_int_t n = json_integer_value(json_object_get(o, name));

    return n > 0 ? (uint64_t)n : 0;
}

void es_stats_carry(es_intake_t *intake, es_str_t json)
{
    json_t *root = json_loadb(json.p, json.n, 0, NULL);
    const json_t *ended = json_object_get(root, "ended");
    const json_t *history = json_object_get(root, "history");
    int end;

    intake->carried.published = counted(root, "published");
    intake->carried.refused = counted(root, "refused");
    intake->carried.deliveries = counted(root, "deliveries");
    intake->carried.keep_alives = counted(root, "keep_alives");
    intake->carried.bytes = counted(root, "bytes");
    intake->carried.log_lost = counted(root, "log_lost");
    intake->carried.groups = counted(history, "groups");
    intake->carried.not_kept = counted(history, "not_kept");
    for (end = 0; end < ES_END_RELEASED; end++) {
        intake->carried.ended[end] = counted(ended, es_end_name((es_end_t)end));
    }
    json_decref(root);
}

/* ---- Prometheus ---- */

typedef struct es_metric {
    const char *name; /* of the member, and after eventstream_ of the metric */
    const char *type;
    const char *help;
} es_metric_t;

static const es_metric_t metrics[] = {
    { "streams", "gauge", "Streams that are held now." },
    { "reserved", "gauge", "Streams whose initial response is being written." },
    { "channels", "gauge", "Channels that have a stream." },
    { "published", "counter", "Items accepted from publishers." },
    { "refused", "counter", "Items that could not be understood." },
    { "deliveries", "counter", "Messages written to streams." },
    { "keep_alives", "counter", "Keep-alives written to streams." },
    { "bytes", "counter", "Bytes written to streams." },
    { "log_lost", "counter", "Lines of EventStreamLog that could not be written." },
};

/* Of the member "history". */
static const es_metric_t history_metrics[] = {
    { "usable", "gauge", "1: messages can be kept; 0: the history cannot be used." },
    { "messages", "gauge", "Messages in the history." },
    { "channels", "gauge", "Channels that have messages in the history." },
    { "bytes", "gauge", "Bytes of the history that are in use." },
    { "max_bytes", "gauge", "Bytes that the history may use." },
    { "oldest_age", "gauge", "Seconds since the history's oldest message was published." },
    { "groups", "counter", "Groups of messages that were written together." },
    { "not_kept", "counter", "Messages that were delivered and could not be kept." },
    { "replaying", "gauge", "Streams that read the history now." },
};

static es_err_t metric(es_buf_t *b, const char *name, const char *type, const char *help)
{
    const char *total = strcmp(type, "counter") == 0 ? "_total" : "";

    return es_buf_addf(b, "# HELP eventstream_%s%s %s\n# TYPE eventstream_%s%s %s\n", name, total,
                       help, name, total, type);
}

static es_err_t prometheus_ended(es_buf_t *b, const json_t *ended)
{
    es_err_t err = metric(b, "ended", "counter", "Streams that ended, by reason.");
    int end;

    for (end = 0; end < ES_END_RELEASED && err == ES_OK; end++) {
        const char *name = es_end_name((es_end_t)end);

        err = es_buf_addf(b, "eventstream_ended_total{reason=\"%s\"} %" JSON_INTEGER_FORMAT "\n",
                          name, json_integer_value(json_object_get(ended, name)));
    }
    return err;
}

static es_err_t prometheus_hub(es_buf_t *b, const json_t *hub)
{
    es_err_t err = metric(b, "hub_uptime_seconds", "gauge", "Seconds since the hub started.");

    if (err == ES_OK) {
        err = es_buf_addf(b, "eventstream_hub_uptime_seconds %" JSON_INTEGER_FORMAT "\n",
                          json_integer_value(json_object_get(hub, "uptime")));
    }
    if (err == ES_OK) {
        err = metric(b, "hub_pid", "gauge", "Process id of the hub.");
    }
    return err == ES_OK ? es_buf_addf(b, "eventstream_hub_pid %" JSON_INTEGER_FORMAT "\n",
                                      json_integer_value(json_object_get(hub, "pid")))
                        : err;
}

/* Those of the members that there are. */
static es_err_t prometheus_list(es_buf_t *b, const char *prefix, const json_t *o,
                                const es_metric_t *list, size_t n)
{
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < n && err == ES_OK; i++) {
        const char *total = strcmp(list[i].type, "counter") == 0 ? "_total" : "";
        const json_t *v = json_object_get(o, list[i].name);
        char name[64];

        if (!v) {
            continue;
        }
        snprintf(name, sizeof name, "%s%s", prefix, list[i].name);
        err = metric(b, name, list[i].type, list[i].help);
        if (err == ES_OK) {
            err = es_buf_addf(b, "eventstream_%s%s %" JSON_INTEGER_FORMAT "\n", name, total,
                              json_integer_value(v));
        }
    }
    return err;
}

static es_err_t prometheus_text(const json_t *root, es_buf_t *b)
{
    es_err_t err = prometheus_list(b, "", root, metrics, sizeof metrics / sizeof metrics[0]);

    if (err == ES_OK) {
        err = prometheus_list(b, "history_", json_object_get(root, "history"), history_metrics,
                              sizeof history_metrics / sizeof history_metrics[0]);
    }
    if (err == ES_OK) {
        err = prometheus_hub(b, json_object_get(root, "hub"));
    }
    return err == ES_OK ? prometheus_ended(b, json_object_get(root, "ended")) : err;
}

es_err_t es_stats_render(es_intake_t *intake, bool prometheus, es_buf_t *out)
{
    json_t *root = stats_object(intake);
    es_err_t err = ES_ENOMEM;
    char *text;

    if (!root) {
        return ES_ENOMEM;
    }
    if (prometheus) {
        err = prometheus_text(root, out);
    }
    else {
        text = json_dumps(root, JSON_COMPACT);
        if (text) {
            err = es_buf_add(out, text, strlen(text));
        }
        free(text);
    }
    json_decref(root);
    return err;
}
