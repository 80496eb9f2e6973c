/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the intake knows and answers about events: their ids, where a stream may begin, what became
 * of a publish, what there is of a channel.
 *
 * An event's number is its place in the intake's one order, so an id is good for all channels at
 * once. Numbers mean something only together with `instance`. With a history both come from it, and
 * ids are good for as long as it is. Without one `instance` is a random number that hubs hand to
 * one another: after a hub has died ids begin anew, and those from before are recognised as
 * foreign.
 *
 * Messages are delivered at once; what waits for the history's writer are answers, of publishers
 * and of those who ask where in the history they are (link.c parks them).
 *
 * The intake's thread.
 */
#include "intake_int.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    TRIES = 100, /* to open the history while another hub has it */
    TRY_MS = 100,
    HANDED_MS = 100 /* of looking for damage, while the streams of a hub before wait for us */
};

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

/* ---- the history ---- */

/* A hub before this one may hold it for a moment longer. */
static es_err_t open_patiently(es_intake_t *intake, const es_history_config_t *config)
{
    struct pollfd stop = { .fd = intake->config->stop, .events = POLLIN };
    es_err_t err = ES_EAGAIN;
    int tries;

    for (tries = 0; err == ES_EAGAIN && tries < TRIES; tries++) {
        err = es_history_open(config, &intake->history, &intake->history_broken);
        if (err == ES_EAGAIN && poll(&stop, 1, TRY_MS) != 0) {
            break; /* told to stop */
        }
    }
    if (err == ES_OK) {
        intake->history_broken.text[0] = '\0';
    }
    return err;
}

void es_events_open(es_intake_t *intake)
{
    const es_hub_config_t *c = intake->config;
    const es_history_config_t config = { .store = { .dir = c->history,
                                                    .max_bytes = c->history_bytes,
                                                    .max_age_ms = c->history_age_ms,
                                                    .max_count = c->history_count,
                                                    .check_ms = intake->order > 0 ? HANDED_MS : 0,
                                                    .log = c->log,
                                                    .wall_ms = c->wall_ms ? c->wall_ms : c->now_ms,
                                                    .clock_ctx = c->clock_ctx },
                                         .wake = intake->history_source.fd,
                                         .waiters = intake->loop_count };
    uint64_t instance;
    int i;

    if (!c->history || intake->history) {
        return;
    }
    if (open_patiently(intake, &config) != ES_OK) {
        es_log(&c->log, ES_LOG_ERR, "ES0372",
               "the history cannot be used: %s. Messages are delivered, not kept, and publishers "
               "are told so",
               intake->history_broken.text);
        return;
    }
    instance = es_store_instance(es_history_store(intake->history));
    if (instance != intake->instance && intake->order > 0) { /* nothing of before is in this one */
        es_history_miss(intake->history, intake->order, ES_ENOENT, "it was published before");
    }
    intake->instance = instance;
    (void)es_events_next(intake); /* ids of now are newer than everything that is stored */
    es_history_skip(intake->history, intake->order);
    for (i = 0; i < intake->loop_count; i++) {
        intake->loops[i].history = intake->history;
        intake->loops[i].instance = instance;
    }
}

void es_events_close(es_intake_t *intake)
{
    es_history_counts_t counts;
    int i;

    if (!intake->history) {
        return;
    }
    es_history_finish(intake->history);
    counts = es_history_counts(intake->history);
    intake->carried.groups += counts.groups;
    intake->carried.not_kept += counts.not_kept;
    intake->history_closing = true;
    es_events_settled(intake);
    intake->history_closing = false;
    es_history_close(intake->history);
    intake->history = NULL;
    for (i = 0; i < intake->loop_count; i++) {
        intake->loops[i].history = NULL;
    }
}

uint64_t es_events_next(es_intake_t *intake)
{
    uint64_t number = intake->order + 1;

    if (intake->history) {
        number = es_history_number(intake->history, intake->order);
    }
    intake->order = number > 0 ? number : intake->order + 1;
    return number;
}

static es_err_t put(es_intake_t *intake, const es_item_t *item)
{
    const es_str_t content = { item->stream.content, item->stream.content_len };
    const es_str_t name = { item->channel, item->channel_len };
    es_buf_t packet;
    es_err_t err;

    es_buf_init(&packet, ES_MAX_PACKET_KEPT);
    err = es_item_to_packet(item, content, &packet);
    if (err == ES_OK) {
        err = es_history_put(intake->history, intake->order, name, es_wall(intake->config),
                             (es_str_t) { packet.p, packet.n });
    }
    es_buf_free(&packet);
    return err;
}

void es_events_keep(es_intake_t *intake, const es_item_t *item, uint64_t number)
{
    const bool is_message = item->stream.action == ES_ACTION_SEND;
    es_err_t err = ES_EFULL;

    if (!intake->history) {
        intake->not_kept += is_message && intake->history_broken.text[0] != '\0';
        return;
    }
    if (!is_message) {
        es_history_skip(intake->history, intake->order);
        return;
    }
    if (number > 0) {
        err = put(intake, item);
    }
    if (err != ES_OK) {
        intake->not_kept++;
        es_history_miss(intake->history, intake->order, err, es_err_name(err));
        es_history_skip(intake->history, intake->order);
    }
}

void es_events_settled(es_intake_t *intake)
{
    es_link_t *link, *next;

    for (link = intake->links; link && intake->history; link = next) {
        next = link->next;
        es_link_settled(intake, link);
    }
}

/* ---- where a stream begins ---- */

/* After which number? `*ret_reset`: what was asked for is not all there. Not ES_OK: live only. */
static es_err_t find_id(es_intake_t *intake, const es_stream_t *s, uint64_t *ret, bool *ret_reset)
{
    uint64_t number = 0;
    es_err_t err = es_event_id_decode(es_str(s->from->id), intake->instance, &number, NULL);

    if (err != ES_OK || number > s->sent) {
        *ret_reset = true;
        return ES_EINVAL;
    }
    *ret = number;
    if (!intake->history) {
        *ret_reset = number < intake->event; /* nobody asks for what is fleeting */
        return ES_ENOENT;
    }
    return ES_OK;
}

static bool no_record(void *ctx, const es_store_record_t *record)
{
    (void)ctx;
    (void)record;
    return false;
}

/* Is something after that number gone? */
static es_err_t look_for_gap(es_intake_t *intake, const es_str_t *names, const es_stream_t *s,
                             uint64_t after, bool *ret_reset)
{
    const es_store_range_t range = { .after = after, .up_to = s->sent, .max_count = 1 };
    es_store_result_t result = { 0 };
    es_detail_t detail;
    es_err_t err = ES_OK;

    if (after < s->sent) {
        err = es_store_read(es_history_store(intake->history), names, s->sub_count, &range,
                            no_record, NULL, &result, &detail);
    }
    *ret_reset = err != ES_OK || result.reset ||
                 (after < s->sent && es_history_lost(intake->history) > after);
    return err;
}

static es_err_t find(es_intake_t *intake, const es_stream_t *s, uint64_t *ret, bool *ret_reset)
{
    es_str_t names[ES_MAX_CHANNELS];
    es_detail_t detail;
    es_err_t err = ES_OK;
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        names[i] = (es_str_t) { s->subs[i].channel->name, s->subs[i].channel->name_len };
    }
    if (s->from->from == ES_FROM_ID) {
        err = find_id(intake, s, ret, ret_reset);
        return err == ES_OK ? look_for_gap(intake, names, s, *ret, ret_reset) : err;
    }
    if (!intake->history) {
        return ES_ENOENT;
    }
    switch (s->from->from) {
    case ES_FROM_EARLIEST:
        *ret = 0;
        break;
    case ES_FROM_TIME:
        err = es_store_at(es_history_store(intake->history), (uint64_t)s->from->time_ms, ret,
                          &detail);
        *ret -= err == ES_OK ? 1 : 0;
        break;
    default:
        err = es_store_rewind(es_history_store(intake->history), names, s->sub_count,
                              (size_t)s->from->count, s->sent, ret, &detail);
        break;
    }
    /* Not found is an answer. Else nobody knows what there is: the client is told, and gets what is
     * new. */
    *ret_reset = err != ES_OK && err != ES_ENOENT;
    return err;
}

es_err_t es_events_reserved(es_intake_t *intake, es_stream_t *stream, es_buf_t *out)
{
    char id[ES_EVENT_ID_SIZE];
    uint64_t after = 0;
    bool reset = false;

    es_event_id_encode(intake->instance, stream->sent, id);
    /* Its loop leaves all this alone until it is held. */
    if (stream->from && find(intake, stream, &after, &reset) == ES_OK && after < stream->sent) {
        stream->forgiven = reset || stream->from->from != ES_FROM_ID ? stream->sent : 0;
        stream->until = stream->sent;
        stream->sent = after;
        stream->replaying = true;
    }
    return es_buf_addf(out, "{\"id\": \"%s\", \"reset\": %s}", id, reset ? "true" : "false");
}

/* ---- answers ---- */

es_err_t es_events_published(const es_intake_t *intake, const es_published_t *v, size_t n,
                             es_buf_t *out)
{
    enum { LISTED = 64 }; /* of many items the last ones: the answer must fit into a link */
    const size_t first = n > LISTED ? n - LISTED : 0;
    es_err_t err = es_buf_addf(out, "{\"ids\": [");
    size_t i;

    for (i = first; i < n && err == ES_OK; i++) {
        err = i > first ? es_buf_addf(out, ", ") : ES_OK;
        err = err == ES_OK ? add_id(intake, v[i].number, out) : err;
    }
    err = err == ES_OK ? es_buf_addf(out, "], \"receivers\": [") : err;
    for (i = first; i < n && err == ES_OK; i++) {
        err = es_buf_addf(out, "%s%lu", i > first ? ", " : "", (unsigned long)v[i].receivers);
    }
    return err == ES_OK ? es_buf_addf(out, "]}") : err;
}

/* {"channel": NAME}; the caller frees. */
static es_err_t read_channel(es_str_t request, char **ret, bool *ret_presence, es_detail_t *detail)
{
    json_t *root = json_loadb(request.p, request.n, 0, NULL);
    const char *name = json_string_value(json_object_get(root, "channel"));
    es_err_t err = ES_OK;

    *ret = NULL;
    *ret_presence = json_is_true(json_object_get(root, "presence"));
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

/* ", \"presence\": ..." for a presence channel. */
static es_err_t add_presence(es_intake_t *intake, const char *name, es_buf_t *out)
{
    es_err_t err = ES_OK;

    if (es_presence_of(es_str(name), NULL)) {
        err = es_buf_addf(out, ", \"presence\": ");
        err = err == ES_OK ? es_presence_state(intake, es_str(name), out) : err;
    }
    return err;
}

es_err_t es_events_info(es_intake_t *intake, es_str_t request, es_buf_t *out, es_detail_t *detail)
{
    es_store_channel_info_t info = { 0 };
    const es_entry_t *entry;
    char *name = NULL;
    bool presence = false;
    es_err_t err = read_channel(request, &name, &presence, detail);

    if (err != ES_OK) {
        return err;
    }
    if (intake->history) {
        err = es_store_channel_info(es_history_store(intake->history), es_str(name), &info, detail);
    }
    entry = es_registry_find(intake->registry, es_str(name));
    if (err != ES_OK && err != ES_ENOENT) {
        free(name);
        return err;
    }
    err = es_buf_addf(out,
                      "{\"receivers\": %lu, \"id\": ", entry ? (unsigned long)entry->streams : 0UL);
    err = err == ES_OK ? add_id(intake, info.newest, out) : err;
    err = err == ES_OK
              ? es_buf_addf(out, ", \"stored\": %llu, \"oldest\": ", (unsigned long long)info.count)
              : err;
    err = err == ES_OK ? add_id(intake, info.oldest, out) : err;
    err = err == ES_OK && presence ? add_presence(intake, name, out) : err;
    free(name);
    return err == ES_OK ? es_buf_addf(out, "}") : es_fail(detail, err, "the hub is out of memory");
}

es_err_t es_events_clear(es_intake_t *intake, es_str_t request, es_detail_t *detail)
{
    char *name = NULL;
    bool ignored;
    es_err_t err = read_channel(request, &name, &ignored, detail);

    if (err == ES_OK && !intake->history) {
        err = es_fail(detail, ES_ENOENT, "there is no history");
    }
    if (err == ES_OK) {
        (void)es_events_next(intake);
        err = es_history_clear(intake->history, intake->order, es_str(name));
        if (err != ES_OK) {
            es_history_skip(intake->history, intake->order); /* or others would wait for it */
            (void)es_fail(detail, err, "the hub is out of memory");
        }
    }
    free(name);
    return err;
}
