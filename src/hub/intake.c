/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intake: the one thread through which everything enters the hub, and so the one order of
 * things.
 *
 *   door ──HELLO──▶ links ──RESERVE, HOLD, PUBLISH──▶ ┌────────┐ ──orders──▶ loop 0 ┐
 *   ZeroMQ PULL ──────────items──────────────────────▶│ intake │ ──orders──▶ loop 1 │
 *                          ended streams ────────────▶└────────┘ ◀───────────────────┘
 *
 * A reservation is an order in the same queue as the publishes, so what is published after the
 * answer to RESERVE reaches the stream and what was published before does not; there is nothing in
 * between.
 */
#include "hub_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EVENTS = 128 };

/* ---- orders to the loops ---- */

void es_intake_command(es_intake_t *intake, int loop, const es_command_t *command)
{
    if (es_queue_push(&intake->loops[loop].queue, command) == ES_OK) {
        return;
    }
    es_log(&intake->config->log, ES_LOG_ERR, "ES0301", "out of memory: an order to loop %d is lost",
           loop);
    es_frame_unref(command->frame);
    if (command->what == ES_ORDER_HOLD) {
        close(command->fd);
    }
}

static void frame_to_loops(es_intake_t *intake, const es_entry_t *entry, es_frame_t *frame)
{
    es_command_t cmd = {
        .what = ES_ORDER_PUBLISH, .fd = -1, .frame = frame, .order = ++intake->order
    };
    int i;

    /* The caller's reference lasts until all are out, so a quick loop cannot free the frame under
     * us. */
    for (i = 0; i < intake->loop_count; i++) {
        if (entry->loop[i].channel) {
            es_frame_ref(frame, 1);
            cmd.channel = entry->loop[i].channel;
            es_intake_command(intake, i, &cmd);
        }
    }
}

void es_intake_publish(es_intake_t *intake, es_item_t *item)
{
    const es_str_t name = { item->channel, item->channel_len };
    const es_action_t action = item->stream.action;
    es_entry_t *entry = es_registry_find(intake->registry, name);
    es_frame_t *frame;

    intake->published++;
    es_log(&intake->config->log, ES_LOG_TRACE, "ES0302", "publish channel=%s receivers=%u",
           item->channel, entry ? entry->streams : 0);
    if (!entry || !item->stream.present ||
        (action != ES_ACTION_SEND && action != ES_ACTION_CLOSE)) {
        es_item_free(item);
        return;
    }
    frame = es_frame_from_item(item);
    if (!frame) {
        es_log(&intake->config->log, ES_LOG_ERR, "ES0303", "out of memory: a message is lost");
        return;
    }
    frame_to_loops(intake, entry, frame);
    es_frame_unref(frame);
}

void es_intake_refused(es_intake_t *intake, const char *from, const es_detail_t *detail)
{
    intake->refused++;
    if (es_tame_admits(intake, &intake->bad_input)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0305", "%s: message refused: %s", from,
               detail->text);
    }
}

/* ---- streams ---- */

static int least_loaded(const es_intake_t *intake)
{
    int i, best = 0;

    for (i = 1; i < intake->loop_count; i++) {
        if (intake->loop_load[i] < intake->loop_load[best]) {
            best = i;
        }
    }
    return best;
}

static bool is_on(const es_stream_t *s, const es_channel_t *channel)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        if (s->subs[i].channel == channel) {
            return true;
        }
    }
    return false;
}

static void leave_channels(es_intake_t *intake, es_stream_t *s, int loop)
{
    uint16_t i;

    for (i = 0; i < s->sub_count; i++) {
        es_channel_t *channel = s->subs[i].channel;

        if (es_registry_leave(intake->registry, channel, loop)) {
            const es_command_t cmd = { .what = ES_ORDER_FREE, .fd = -1, .channel = channel };

            es_intake_command(intake, loop, &cmd);
        }
    }
}

/* Adds one subscription. A channel that the application named twice counts once. */
static es_err_t subscribe(es_intake_t *intake, es_stream_t *s, es_sub_spec_t *spec, int loop)
{
    const es_str_t name = { spec->name, spec->name_len };
    es_channel_t *channel = es_registry_join(intake->registry, name, loop);
    es_sub_t *sub = &s->subs[s->sub_count];
    uint8_t i;

    if (!channel) {
        return ES_ENOMEM;
    }
    if (is_on(s, channel)) {
        (void)es_registry_leave(intake->registry, channel,
                                loop); /* never the last: this stream is on it */
        return ES_OK;
    }
    sub->stream = s;
    sub->channel = channel;
    sub->index = ES_SUB_OFF;
    sub->last_id = spec->prev_id;
    spec->prev_id = NULL;
    sub->mask = ES_MASK_ASSERT;
    sub->filter_count = spec->filter_count;
    for (i = 0; i < spec->filter_count; i++) {
        const es_filter_t filter = (es_filter_t)spec->filters[i];

        sub->filters[i] = (uint8_t)filter;
        sub->mask |= ES_MASK(filter);
        s->tracked = s->tracked || es_filter_is_content(filter);
    }
    s->sub_count++;
    return ES_OK;
}

/* Registers the stream on its channels and hands it to a loop. */
static es_err_t place(es_intake_t *intake, es_instruct_t *in, es_stream_t *s)
{
    const int loop = least_loaded(intake);
    const es_command_t cmd = { .what = ES_ORDER_RESERVE, .fd = -1, .stream = s };
    es_err_t err = ES_OK;
    size_t i;

    for (i = 0; i < in->channel_count && err == ES_OK; i++) {
        err = subscribe(intake, s, &in->channels[i], loop);
    }
    if (err == ES_OK) {
        s->loop = &intake->loops[loop];
        err = es_queue_push(&intake->loops[loop].queue, &cmd);
    }
    if (err != ES_OK) {
        leave_channels(intake, s, loop);
        return err;
    }
    intake->loop_load[loop]++;
    intake->reserved++;
    return ES_OK;
}

/* Streams may use all descriptors but those that keep the hub reachable. The limit is asked each
 * time: an administrator may change it under a running process. */
static es_err_t check_room(es_intake_t *intake, es_detail_t *detail)
{
    struct rlimit files;
    uint64_t streams = 0, limit;
    int i;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
        return ES_OK;
    }
    for (i = 0; i < intake->loop_count; i++) {
        streams += intake->loop_load[i];
    }
    limit = files.rlim_cur / 2;
    if (files.rlim_cur - limit > (uint64_t)intake->config->spare_files) {
        limit = files.rlim_cur - (uint64_t)intake->config->spare_files;
    }
    if (streams < limit) {
        return ES_OK;
    }
    (void)es_fail(detail, ES_EFULL,
                  "%llu streams are held; the limit of %llu open files leaves room for no more",
                  (unsigned long long)streams, (unsigned long long)files.rlim_cur);
    if (es_tame_admits(intake, &intake->no_room)) {
        es_log(&intake->config->log, ES_LOG_WARN, "ES0308", "a stream is refused: %s",
               detail->text);
    }
    return ES_EFULL;
}

es_err_t es_intake_reserve(es_intake_t *intake, es_str_t hold, es_stream_t **ret,
                           es_detail_t *detail)
{
    es_instruct_t *in = NULL;
    es_delivery_t delivery = { 0 };
    es_stream_t *s = NULL;
    es_err_t err = check_room(intake, detail);

    if (err == ES_OK) {
        err = es_hold_decode(hold, &in, &delivery, detail);
    }
    if (err != ES_OK) {
        return err;
    }
    err = ES_ENOMEM;
    s = es_stream_make(in, &delivery);
    if (!s) {
        goto cleanup;
    }
    if (s->keep_alive_ms > 0) {
        s->keep_alive = es_frame_make((es_str_t) { in->keep_alive, in->keep_alive_len });
        if (!s->keep_alive) {
            goto cleanup;
        }
    }
    err = place(intake, in, s);
    if (err == ES_OK) {
        *ret = s;
        s = NULL;
    }
cleanup:
    if (err == ES_ENOMEM) {
        (void)es_fail(detail, err, "the hub is out of memory");
    }
    if (s) {
        es_stream_free(s);
    }
    es_delivery_clear(&delivery);
    es_instruct_free(in);
    return err;
}

void es_intake_take_back(es_intake_t *intake)
{
    es_stream_t *s;

    pthread_mutex_lock(&intake->back.lock);
    s = intake->back.first;
    intake->back.first = NULL;
    pthread_mutex_unlock(&intake->back.lock);
    while (s) {
        es_stream_t *next = s->next;
        const int loop = s->loop->number;

        leave_channels(intake, s, loop);
        intake->loop_load[loop]--;
        es_stream_free(s);
        s = next;
    }
}

/* ---- the thread ---- */

es_err_t es_intake_watch(es_intake_t *intake, es_source_t *source)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = source };

    return epoll_ctl(intake->epoll, EPOLL_CTL_ADD, source->fd, &ev) == 0 ? ES_OK : ES_EIO;
}

static void on_door(es_intake_t *intake)
{
    es_detail_t detail;
    int fd = -1;

    switch (es_wire_hello(intake->door.fd, &fd, &detail)) {
    case ES_OK:
        es_link_open(intake, fd);
        break;
    case ES_EIO:
        es_log(&intake->config->log, ES_LOG_NOTICE, "ES0306", "httpd is gone: the hub stops");
        intake->done = true;
        break;
    case ES_EAGAIN:
        break;
    default:
        if (es_tame_admits(intake, &intake->bad_links)) {
            es_log(&intake->config->log, ES_LOG_WARN, "ES0307", "a child's hello is refused: %s",
                   detail.text);
        }
        break;
    }
}

static void on_back(es_intake_t *intake)
{
    uint64_t count;

    if (read(intake->back.wake, &count, sizeof count) > 0) {
        es_intake_take_back(intake);
    }
}

static void on_source(es_intake_t *intake, es_source_t *source)
{
    switch (source->kind) {
    case ES_SOURCE_DOOR:
        on_door(intake);
        break;
    case ES_SOURCE_STOP:
        intake->done = true;
        break;
    case ES_SOURCE_BACK:
        on_back(intake);
        break;
    case ES_SOURCE_PULL: /* es_pull_receive looks at every socket after the events */
        break;
    case ES_SOURCE_LINK:
        es_link_readable(intake, (es_link_t *)(void *)source);
        break;
    }
}

void es_intake_run(es_intake_t *intake)
{
    struct epoll_event events[EVENTS];

    while (!intake->done) {
        const int wait_ms = intake->pull_more ? 0 : intake->pull_retry_ms > 0 ? 1000 : -1;
        int i, n = epoll_wait(intake->epoll, events, EVENTS, wait_ms);

        for (i = 0; i < n; i++) {
            on_source(intake, events[i].data.ptr);
        }
        if (intake->pull_retry_ms > 0) {
            es_pull_retry(intake, es_now(intake->config));
        }
        es_pull_receive(intake);
    }
}

static es_err_t start_loops(es_intake_t *intake, int count)
{
    intake->loops = calloc((size_t)count, sizeof *intake->loops);
    intake->loop_load = calloc((size_t)count, sizeof *intake->loop_load);
    if (!intake->loops || !intake->loop_load) {
        return ES_ENOMEM;
    }
    while (intake->loop_count < count) {
        es_err_t err = es_loop_start(&intake->loops[intake->loop_count], intake->loop_count,
                                     intake->config, &intake->back);

        if (err != ES_OK) {
            return err;
        }
        intake->loop_count++;
    }
    return ES_OK;
}

static int loops_wanted(const es_hub_config_t *config)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (config->threads > 0) {
        return config->threads < ES_HUB_THREADS_MAX ? config->threads : ES_HUB_THREADS_MAX;
    }
    return cpus < 1 ? 1 : cpus > 4 ? 4 : (int)cpus;
}

es_err_t es_intake_init(es_intake_t *intake, const es_hub_config_t *config)
{
    es_err_t err;

    memset(intake, 0, sizeof *intake);
    intake->back.wake = -1;
    intake->epoll = -1;
    intake->config = config;
    intake->started_ms = es_now(config);
    pthread_mutex_init(&intake->back.lock, NULL);
    intake->back.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    intake->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (intake->back.wake < 0 || intake->epoll < 0) {
        return ES_EIO;
    }
    err = start_loops(intake, loops_wanted(config));
    if (err == ES_OK) {
        err = es_registry_make(intake->loop_count, &intake->registry);
    }
    intake->door = (es_source_t) { ES_SOURCE_DOOR, config->door };
    intake->stop = (es_source_t) { ES_SOURCE_STOP, config->stop };
    intake->back_source = (es_source_t) { ES_SOURCE_BACK, intake->back.wake };
    if (err == ES_OK) {
        err = es_intake_watch(intake, &intake->door);
    }
    if (err == ES_OK) {
        err = es_intake_watch(intake, &intake->stop);
    }
    if (err == ES_OK) {
        err = es_intake_watch(intake, &intake->back_source);
    }
    return err == ES_OK ? es_pull_start(intake) : err;
}

/* Ends all: inputs first, then the loops with their streams, then what they gave back. Works on a
 * half-made intake too. */
void es_intake_destroy(es_intake_t *intake)
{
    const es_command_t stop = { .what = ES_ORDER_STOP, .fd = -1 };
    int i;

    es_pull_stop(intake);
    for (i = 0; i < intake->loop_count; i++) {
        es_intake_command(intake, i, &stop);
    }
    for (i = 0; i < intake->loop_count; i++) {
        es_loop_join(&intake->loops[i]);
    }
    while (intake->links) {
        intake->links->reserved = NULL; /* its loop has ended it */
        es_link_close(intake, intake->links);
    }
    if (intake->registry) {
        es_intake_take_back(intake);
    }
    for (i = 0; i < intake->loop_count; i++) {
        es_loop_destroy(&intake->loops[i]);
    }
    es_registry_free(intake->registry);
    free(intake->loops);
    free(intake->loop_load);
    if (intake->epoll >= 0) {
        close(intake->epoll);
    }
    if (intake->back.wake >= 0) {
        close(intake->back.wake);
    }
    pthread_mutex_destroy(&intake->back.lock);
}
