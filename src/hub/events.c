/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the intake knows and answers about events: their ids, where a stream may begin, what became
 * of a publish, what there is of a channel.
 *
 * An event's number is its place in the intake's one order, so an id is good for all channels at
 * once. Numbers mean something only together with `instance`, a random number that hubs hand to one
 * another: after a hub has died ids begin anew, and those from before are recognised as foreign.
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

es_err_t es_events_init(es_intake_t *intake)
{
    do {
        if (getrandom(&intake->instance, sizeof intake->instance, 0) !=
            (ssize_t)sizeof intake->instance) {
            return ES_EIO;
        }
        intake->instance >>= 1; /* a JSON number of it is positive */
    } while (intake->instance == 0);
    return ES_OK;
}

/* Appends a quoted id, or null for number 0. */
static es_err_t add_id(const es_intake_t *intake, uint64_t number, es_buf_t *out)
{
    char id[ES_EVENT_ID_SIZE];

    if (number == 0) {
        return es_buf_addf(out, "null");
    }
    es_event_id_encode(intake->instance, number, id);
    return es_buf_addf(out, "\"%s\"", id);
}

/* Only the newest event's own id says that nothing was missed. "All that is held", "since" and "the
 * last N" promise no more than there is. */
static bool is_reset(const es_intake_t *intake, const es_position_t *from)
{
    uint64_t number = 0;

    if (!from || from->from != ES_FROM_ID) {
        return false;
    }
    return es_event_id_decode(es_str(from->id), intake->instance, &number, NULL) != ES_OK ||
           number != intake->order;
}

es_err_t es_events_reserved(es_intake_t *intake, es_stream_t *stream, es_buf_t *out)
{
    char id[ES_EVENT_ID_SIZE];

    es_event_id_encode(intake->instance, intake->order, id);
    return es_buf_addf(out, "{\"id\": \"%s\", \"reset\": %s}", id,
                       is_reset(intake, stream->from) ? "true" : "false");
}

es_err_t es_events_published(const es_intake_t *intake, const es_published_t *v, size_t n,
                             es_buf_t *out)
{
    es_err_t err = es_buf_addf(out, "{\"ids\": [");
    size_t i;

    for (i = 0; i < n && err == ES_OK; i++) {
        err = i > 0 ? es_buf_addf(out, ", ") : ES_OK;
        err = err == ES_OK ? add_id(intake, v[i].number, out) : err;
    }
    err = err == ES_OK ? es_buf_addf(out, "], \"receivers\": [") : err;
    for (i = 0; i < n && err == ES_OK; i++) {
        err = es_buf_addf(out, "%s%lu", i > 0 ? ", " : "", (unsigned long)v[i].receivers);
    }
    return err == ES_OK ? es_buf_addf(out, "]}") : err;
}

/* {"channel": NAME}; the caller frees. */
static es_err_t read_channel(es_str_t request, char **ret, es_detail_t *detail)
{
    json_t *root = json_loadb(request.p, request.n, 0, NULL);
    const char *name = json_string_value(json_object_get(root, "channel"));
    es_err_t err = ES_OK;

    *ret = NULL;
    if (!name || name[0] == '\0') {
        err = es_fail(detail, ES_EINVAL, "'channel' is missing or no text");
    }
    else if (strlen(name) > ES_MAX_CHANNEL_NAME) {
        err = es_fail(detail, ES_ETOOBIG, "'channel' has %zu bytes, at most %d are accepted",
                      strlen(name), ES_MAX_CHANNEL_NAME);
    }
    else {
        *ret = es_memdup(name, strlen(name));
        err = *ret ? ES_OK : es_fail(detail, ES_ENOMEM, "the hub is out of memory");
    }
    json_decref(root);
    return err;
}

es_err_t es_events_info(es_intake_t *intake, es_str_t request, es_buf_t *out, es_detail_t *detail)
{
    const es_entry_t *entry;
    char *name = NULL;
    es_err_t err = read_channel(request, &name, detail);

    if (err != ES_OK) {
        return err;
    }
    entry = es_registry_find(intake->registry, es_str(name));
    free(name);
    return es_buf_addf(out, "{\"receivers\": %lu, \"id\": null, \"stored\": 0, \"oldest\": null}",
                       entry ? (unsigned long)entry->streams : 0UL);
}
