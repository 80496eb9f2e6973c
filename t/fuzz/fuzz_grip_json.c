/* SPDX-License-Identifier: Apache-2.0 */
/*
 * application/grip-instruct bodies, alone and on top of an instruct that headers gave. What is
 * accepted must come back equal from its own JSON form, and the response must be fit to be sent.
 */
#include "fuzz.h"

#include "es_equal.h"
#include "es_grip.h"

#include <string.h>

ES_FUZZ_TARGET;

static void check_round_trip(const es_instruct_t *in)
{
    es_instruct_t *back = NULL;
    char *json = NULL;
    size_t len = 0;

    ES_FUZZ_CHECK(es_instruct_to_json(in, &json, &len) == ES_OK);
    ES_FUZZ_CHECK(len <= ES_MAX_INSTRUCT_WIRE);
    ES_FUZZ_CHECK(es_instruct_from_json(NULL, json, len, &back, NULL, NULL) == ES_OK);
    ES_FUZZ_CHECK(es_equal_instruct(in, back));
    es_instruct_free(back);
    free(json);
}

static void check_response(const es_response_t *response)
{
    size_t i;

    ES_FUZZ_CHECK(response->code >= 100 && response->code <= 999);
    ES_FUZZ_CHECK(response->body != NULL && response->body[response->body_len] == '\0');
    ES_FUZZ_CHECK(response->headers.n <= ES_MAX_HEADERS);
    ES_FUZZ_CHECK(response->reason == NULL || strpbrk(response->reason, "\r\n") == NULL);
    for (i = 0; i < response->headers.n; i++) {
        const es_pair_t *header = &response->headers.v[i];
        ES_FUZZ_CHECK(!es_is_grip_header(header->name));
        ES_FUZZ_CHECK(strpbrk(header->name, " \t\r\n:") == NULL);
        ES_FUZZ_CHECK(strpbrk(header->value, "\r\n") == NULL);
        ES_FUZZ_CHECK(strlen(header->value) == header->value_len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const es_header_t headers[] = { { "Grip-Hold", "stream" },
                                           { "Grip-Channel", "a; prev-id=1; filter=build-id, b" },
                                           { "Grip-Keep-Alive", "ka; timeout=20" },
                                           { "Grip-Set-Meta", "user=\"u\"" } };
    const char *json = (const char *)data;
    es_instruct_t *base = NULL;
    es_instruct_t *in = NULL;
    es_response_t *response = NULL;
    es_detail_t detail = { "" };

    if (es_instruct_from_json(NULL, json, size, &in, &response, &detail) == ES_OK) {
        es_fuzz_accept();
        check_round_trip(in);
        check_response(response);
        es_instruct_free(in);
        es_response_free(response);
    }
    else {
        ES_FUZZ_CHECK(in == NULL && response == NULL && detail.text[0] != '\0');
    }
    in = NULL;
    ES_FUZZ_CHECK(es_instruct_from_headers(headers, 4, &base, NULL) == ES_OK);
    if (es_instruct_from_json(base, json, size, &in, NULL, NULL) == ES_OK) {
        ES_FUZZ_CHECK(in->channel_count >= 2);
        check_round_trip(in);
        es_instruct_free(in);
    }
    es_instruct_free(base);
    return 0;
}
