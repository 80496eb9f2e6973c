/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of event streams. Whatever a publisher sends: a browser sees the same events in what we
 * make of it as in the content itself (or one event with exactly the content as its data), and
 * holds our id after the last of them, not before. "Accepted" is what is taken for a stream.
 */
#include "fuzz.h"

#include "es_source.h"
#include "es_sse.h"

ES_FUZZ_TARGET;

static char *read_as(es_str_t text, bool ids, bool nul, bool complete, size_t *ret_events)
{
    char *out = NULL;

    *ret_events = es_source_read(text, ids, nul, complete, &out);
    ES_FUZZ_CHECK(out != NULL);
    return out;
}

/* The position moves with the last event that has data, and not before. */
static void check_ids(es_str_t rendered, size_t events)
{
    size_t n, holding = 0;
    char *seen = read_as(rendered, true, false, false, &n);
    const char *p = seen;

    ES_FUZZ_CHECK(n == events);
    ES_FUZZ_CHECK(strcmp(strrchr(seen, '='), events > 0 ? "=ID7" : "=") == 0);
    for (p = strstr(p, "|ID7|"); p != NULL; p = strstr(p + 1, "|ID7|")) {
        holding++;
    }
    /* Data may hold the same text, but each '|' of it is escaped. */
    ES_FUZZ_CHECK(holding == (events > 0 ? 1 : 0));
    free(seen);
}

static void check_stream(es_str_t content, es_str_t rendered, size_t events)
{
    size_t n;
    char *want = read_as(content, false, true, true, &n);
    char *got;

    ES_FUZZ_CHECK(n == events);
    got = read_as(rendered, false, false, false, &n);
    ES_FUZZ_CHECK(n == events && strcmp(want, got) == 0);
    free(want);
    free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t content = { (const char *)data, size };
    es_str_t rendered;
    es_buf_t out, again;
    size_t events = 0;

    es_buf_init(&out, (size_t)ES_SSE_GROWTH * size + 64);
    ES_FUZZ_CHECK(es_sse_render(content, es_str("e"), es_str("ID7"), &out, &events) == ES_OK);
    rendered.p = out.p;
    rendered.n = out.n;
    ES_FUZZ_CHECK(out.n == 0 || memchr(out.p, '\0', out.n) == NULL);
    ES_FUZZ_CHECK(out.n == 0 || memchr(out.p, '\r', out.n) == NULL);
    ES_FUZZ_CHECK(out.n == 0 || (out.n >= 2 && memcmp(out.p + out.n - 2, "\n\n", 2) == 0));
    check_ids(rendered, events);
    if (es_sse_is_stream(content)) {
        es_fuzz_accept();
        check_stream(content, rendered, events);
    }
    else {
        ES_FUZZ_CHECK(events == 1);
    }
    /* What came out is a stream, and rendering it changes nothing. */
    es_buf_init(&again, (size_t)ES_SSE_GROWTH * size + 64);
    ES_FUZZ_CHECK(out.n == 0 || es_sse_is_stream(rendered));
    if (out.n > 0) {
        ES_FUZZ_CHECK(es_sse_render(rendered, es_str(""), es_str("ID7"), &again, NULL) == ES_OK);
        ES_FUZZ_CHECK(again.n == out.n && memcmp(again.p, out.p, out.n) == 0);
    }
    es_buf_free(&again);
    es_buf_free(&out);
    return 0;
}
