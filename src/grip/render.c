/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content filters build-id and var-subst, and the small format language that both use:
 *
 *   %%        a percent sign
 *   %c        directive c
 *   %(text)c  directive c with a text, in which a backslash takes the next byte as it is
 *
 * What Pushpin answers with an error, and thereby with the end of the stream, is copied here as it
 * stands: a '%' at the end, a text that is not closed, a directive that the filter does not know.
 * Applications do send such content (percent-encoded names in ids that nobody escaped).
 *
 * An id that cannot be built, because a channel in its format has no id yet, is empty: to a browser
 * that means that there is no position to resume from, which is the truth.
 */
#include "grip_int.h"

#include <string.h>

typedef struct es_directive {
    char code;
    bool has_text;
    es_str_t text; /* without the parentheses, escapes resolved in `scratch` */
    es_str_t raw;  /* the whole directive as it stood */
} es_directive_t;

typedef struct es_render es_render_t;
struct es_render {
    const es_filter_view_t *view;
    const es_pair_t *id_format; /* build-id */
    es_buf_t *out;
    es_buf_t scratch; /* text of the directive at hand */
    es_detail_t *detail;
    bool no_more_texts; /* a "%(" was not closed, so no later one is */
    bool hex;           /* build-id: ids and texts go out as hexadecimal */
    bool missing;       /* id_format: a variable had no value */
    es_buf_t id;        /* build-id: rendered at the first %I */
    bool id_done;
    /* Appends what a directive means; ES_ENOENT: unknown, copy it. */
    es_err_t (*directive)(es_render_t *r, const es_directive_t *d);
};

/* Reads the text of "%(text)c" up to the closing parenthesis. ES_ENOENT: nothing comes after it, or
 * it does not come at all. Then no later text in this content ends either, for it would have to end
 * at the same place; remembering that keeps a megabyte of "%(" from taking the square of its time.
 */
static es_err_t parse_text(es_render_t *r, es_str_t in, size_t *ret_end)
{
    size_t i;

    if (r->no_more_texts) {
        return ES_ENOENT;
    }
    es_buf_free(&r->scratch);
    for (i = 2; i < in.n && in.p[i] != ')'; i++) {
        es_err_t err;
        if (in.p[i] == '\\' && i + 1 < in.n) {
            i++;
        }
        err = es_buf_add(&r->scratch, in.p + i, 1);
        if (err != ES_OK) {
            return err;
        }
    }
    if (i + 1 >= in.n) {
        r->no_more_texts = true;
        return ES_ENOENT;
    }
    *ret_end = i;
    return ES_OK;
}

/* Parses the directive at in.p[0] == '%'. ES_ENOENT: it is not one, copy the '%' and go on. */
static es_err_t parse_directive(es_render_t *r, es_str_t in, es_directive_t *ret)
{
    size_t end = 0;

    memset(ret, 0, sizeof(*ret));
    if (in.n > 1 && in.p[1] == '(') {
        es_err_t err = parse_text(r, in, &end);
        if (err != ES_OK) {
            return err;
        }
        ret->has_text = true;
        ret->text.p = r->scratch.p;
        ret->text.n = r->scratch.n;
    }
    if (end + 1 >= in.n) {
        return ES_ENOENT;
    }
    ret->code = in.p[end + 1];
    ret->raw.p = in.p;
    ret->raw.n = end + 2;
    return ES_OK;
}

/* Renders one directive, or copies it. */
static es_err_t render_directive(es_render_t *r, const es_directive_t *d)
{
    es_err_t err;

    if (d->code == '%' && !d->has_text) {
        return es_buf_add(r->out, "%", 1);
    }
    err = r->directive(r, d);
    return err == ES_ENOENT ? es_buf_add(r->out, d->raw.p, d->raw.n) : err;
}

static es_err_t render_run(es_render_t *r, es_str_t in)
{
    es_err_t err = ES_OK;

    while (in.n > 0 && err == ES_OK) {
        const char *percent = memchr(in.p, '%', in.n);
        size_t n = percent == NULL ? in.n : (size_t)(percent - in.p);
        es_directive_t d;

        err = es_buf_add(r->out, in.p, n);
        in.p += n;
        in.n -= n;
        if (err != ES_OK || in.n == 0) {
            break;
        }
        err = parse_directive(r, in, &d);
        if (err == ES_OK) {
            n = d.raw.n;
            err = render_directive(r, &d);
        }
        else if (err == ES_ENOENT) {
            n = 1;
            err = es_buf_add(r->out, "%", 1);
        }
        in.p += n;
        in.n -= n;
    }
    return err;
}

static const es_pair_t *sub_meta(const es_render_t *r, const char *name)
{
    return r->view->sub_meta == NULL ? NULL : es_pairs_get(r->view->sub_meta, name);
}

/* ---- var-subst ---------------------------------------------------------------------------- */

static es_err_t subst_directive(es_render_t *r, const es_directive_t *d)
{
    const es_pair_t *pair;

    if (d->code != 's' || !d->has_text || d->text.n == 0 ||
        memchr(d->text.p, '\0', d->text.n) != NULL) {
        return ES_ENOENT;
    }
    pair = sub_meta(r, d->text.p);
    return pair == NULL ? ES_ENOENT : es_buf_add(r->out, pair->value, pair->value_len);
}

/* ---- build-id ----------------------------------------------------------------------------- */

/* Inside id_format: %(channel)s is the channel's current id. */
static es_err_t id_directive(es_render_t *r, const es_directive_t *d)
{
    const char *id;

    if (d->code != 's' || !d->has_text) {
        return ES_ENOENT;
    }
    id = r->view->channel_id(r->view->ctx, d->text);
    if (id == NULL) {
        r->missing = true;
        return ES_OK;
    }
    return es_buf_add(r->out, id, strlen(id));
}

static es_err_t build_id(es_render_t *r)
{
    es_str_t text = { r->id_format->value, r->id_format->value_len };
    es_render_t inner = { .view = r->view, .out = &r->id, .directive = id_directive };
    es_err_t err;

    es_buf_init(&inner.scratch, text.n);
    err = render_run(&inner, text);
    es_buf_free(&inner.scratch);
    if (err == ES_ETOOBIG) {
        return es_fail(r->detail, err, "the id that sub meta 'id_format' makes is over %d bytes",
                       ES_MAX_ID);
    }
    if (err == ES_OK && inner.missing) {
        es_buf_free(&r->id);
    }
    r->id_done = err == ES_OK;
    return err;
}

static es_err_t add_id(es_render_t *r, es_str_t id)
{
    static const char digits[] = "0123456789abcdef";
    es_err_t err = ES_OK;
    size_t i;

    if (!r->hex) {
        return es_buf_add(r->out, id.p, id.n);
    }
    for (i = 0; i < id.n && err == ES_OK; i++) {
        char pair[2] = { digits[(unsigned char)id.p[i] >> 4], digits[(unsigned char)id.p[i] & 15] };
        err = es_buf_add(r->out, pair, 2);
    }
    return err;
}

static es_err_t content_directive(es_render_t *r, const es_directive_t *d)
{
    es_str_t id = d->text;

    if (d->code != 'I') {
        return ES_ENOENT;
    }
    if (!d->has_text) {
        es_err_t err = r->id_done ? ES_OK : build_id(r);
        if (err != ES_OK) {
            return err;
        }
        id.p = r->id.p;
        id.n = r->id.n;
    }
    return add_id(r, id);
}

static es_err_t prepare_build_id(es_render_t *r)
{
    const es_pair_t *encoding = sub_meta(r, "id_encoding");

    r->id_format = sub_meta(r, "id_format");
    if (r->id_format == NULL) {
        return es_fail(r->detail, ES_EINVAL, "no sub meta 'id_format'");
    }
    if (encoding != NULL && encoding->value_len > 0) {
        es_str_t value = { encoding->value, encoding->value_len };
        if (!es_str_is(value, "hex")) {
            return es_fail(r->detail, ES_EINVAL, "unsupported encoding: '%.*s', accepted is hex",
                           ES_FOUND(value));
        }
        r->hex = true;
    }
    r->directive = content_directive;
    return ES_OK;
}

es_err_t es_filter_render(es_filter_t filter, const es_filter_view_t *view, es_str_t content,
                          es_buf_t *out, es_detail_t *detail)
{
    es_render_t r = { .view = view, .out = out, .detail = detail, .directive = subst_directive };
    size_t start = out->n;
    es_err_t err = ES_OK;

    if (!es_filter_is_content(filter)) {
        return es_buf_add(out, content.p, content.n);
    }
    if (filter == ES_FILTER_BUILD_ID) {
        err = prepare_build_id(&r);
        if (err != ES_OK) {
            return err;
        }
    }
    es_buf_init(&r.scratch, content.n);
    es_buf_init(&r.id, ES_MAX_ID);
    es_fail(detail, ES_OK, "%s", "");
    err = render_run(&r, content);
    es_buf_free(&r.scratch);
    es_buf_free(&r.id);
    if (err == ES_OK) {
        return ES_OK;
    }
    /* All or nothing: what was appended before the failure goes away again. */
    if (out->p != NULL) {
        out->n = start;
        out->p[start] = '\0';
    }
    if (detail != NULL && detail->text[0] == '\0') {
        es_fail(detail, err, "%s: %s", es_filter_name(filter),
                err == ES_ETOOBIG ? "the result is too long" : es_err_name(err));
    }
    return err;
}
