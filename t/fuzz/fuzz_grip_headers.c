/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grip-* response headers. The input is a block of lines `Name: value`; what is accepted must come
 * back equal from its JSON form and obey the caps.
 */
#include "fuzz.h"

#include "es_equal.h"
#include "es_grip.h"

#include <string.h>

enum { MAX_LINES = 200 };

ES_FUZZ_TARGET;

/* Cuts `text` into headers, in place. A line without a colon is a header without a value. */
static size_t split(char *text, es_header_t *headers)
{
    size_t count = 0;

    while (*text != '\0' && count < MAX_LINES) {
        char *end = strchr(text, '\n');
        char *colon;
        if (end != NULL) {
            *end = '\0';
        }
        colon = strchr(text, ':');
        headers[count].name = text;
        headers[count].value = colon == NULL ? "" : colon + 1;
        if (colon != NULL) {
            *colon = '\0';
        }
        count++;
        if (end == NULL) {
            break;
        }
        text = end + 1;
    }
    return count;
}

static void check(const es_instruct_t *in)
{
    es_instruct_t *back = NULL;
    char *json = NULL;
    size_t len = 0;
    size_t i;

    ES_FUZZ_CHECK(in->channel_count <= ES_MAX_CHANNELS);
    ES_FUZZ_CHECK(in->meta.n <= ES_MAX_META_PAIRS);
    ES_FUZZ_CHECK(in->keep_alive_len <= ES_MAX_KEEP_ALIVE);
    ES_FUZZ_CHECK(in->timeout >= 5 && in->keep_alive_timeout >= 1);
    for (i = 0; i < in->channel_count; i++) {
        ES_FUZZ_CHECK(strlen(in->channels[i].name) == in->channels[i].name_len);
        ES_FUZZ_CHECK(strpbrk(in->channels[i].name, "\r\n") == NULL);
    }
    ES_FUZZ_CHECK(es_instruct_to_json(in, &json, &len) == ES_OK);
    ES_FUZZ_CHECK(len <= ES_MAX_INSTRUCT_WIRE);
    ES_FUZZ_CHECK(es_instruct_from_json(NULL, json, len, &back, NULL, NULL) == ES_OK);
    ES_FUZZ_CHECK(es_equal_instruct(in, back));
    es_instruct_free(back);
    free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_header_t headers[MAX_LINES];
    es_instruct_t *in = NULL;
    es_detail_t detail = { "" };
    char *text = es_memdup(data, size);
    size_t count, i;

    if (text == NULL) {
        return 0;
    }
    count = split(text, headers);
    if (es_instruct_from_headers(headers, count, &in, &detail) == ES_OK) {
        es_fuzz_accept();
        check(in);
    }
    else {
        ES_FUZZ_CHECK(in == NULL && detail.text[0] != '\0');
    }
    for (i = 0; i < count; i++) {
        (void)es_is_grip_instruct_type(headers[i].value);
        if (es_instruct_exposes(in, headers[i].name)) {
            ES_FUZZ_CHECK(!es_is_grip_header(headers[i].name));
        }
    }
    es_instruct_free(in);
    free(text);
    return 0;
}
