/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content filters on the initial body of a stream (grip.md 2.2): when a channel has build-id, the
 * application escaped the body for it like every message. It runs once over the body, however many
 * channels have it; the ids are those that the application gave with the channels. var-subst is for
 * messages alone.
 */
#include "grip_int.h"

#include <string.h>

static const es_sub_spec_t *spec_by_name(const es_instruct_t *in, es_str_t name)
{
    size_t i;

    for (i = 0; i < in->channel_count; i++) {
        const es_sub_spec_t *spec = &in->channels[i];

        if (spec->name_len == name.n && memcmp(spec->name, name.p, name.n) == 0) {
            return spec;
        }
    }
    return NULL;
}

static bool has_channel(void *ctx, es_str_t name)
{
    return spec_by_name(ctx, name) != NULL;
}

/* A channel of just that name, else one that has it behind a prefix: see es_filter_view_t. */
static const char *channel_id(void *ctx, es_str_t name)
{
    const es_instruct_t *in = ctx;
    const es_sub_spec_t *spec = spec_by_name(in, name);
    size_t i;

    for (i = 0; i < in->channel_count && !spec; i++) {
        if (es_filter_name_fits((es_str_t) { in->channels[i].name, in->channels[i].name_len },
                                name)) {
            spec = &in->channels[i];
        }
    }
    return spec ? spec->prev_id : NULL;
}

bool es_initial_is_filtered(const es_instruct_t *in)
{
    size_t i;

    for (i = 0; i < in->channel_count; i++) {
        if (memchr(in->channels[i].filters, ES_FILTER_BUILD_ID, in->channels[i].filter_count)) {
            return true;
        }
    }
    return false;
}

es_err_t es_initial_render(es_instruct_t *in, es_buf_t *body, es_detail_t *detail)
{
    const es_filter_view_t view = {
        .sub_meta = &in->meta, .has_channel = has_channel, .channel_id = channel_id, .ctx = in
    };
    const es_str_t content = { body->p, body->n };
    es_buf_t out;
    es_err_t err;

    if (!es_initial_is_filtered(in)) {
        return ES_OK;
    }
    es_buf_init(&out, body->max);
    err = es_filter_render(ES_FILTER_BUILD_ID, &view, content, &out, detail);
    if (err != ES_OK) {
        es_buf_free(&out);
        return err;
    }
    es_buf_free(body);
    *body = out;
    return ES_OK;
}
