/* SPDX-License-Identifier: Apache-2.0 */
/* The hold message: what is accepted comes back the same after another round. */
#include "fuzz.h"

#include "es_equal.h"
#include "es_wire.h"

#include <string.h>

ES_FUZZ_TARGET;

static void once_more(const es_instruct_t *in, const es_delivery_t *d)
{
    es_instruct_t *back = NULL;
    es_delivery_t from = { 0 };
    es_detail_t detail = { "" };
    char *text = NULL, *again = NULL;
    size_t len = 0, again_len = 0;

    ES_FUZZ_CHECK(es_hold_encode(in, d, &text, &len) == ES_OK);
    ES_FUZZ_CHECK(strlen(text) == len);
    ES_FUZZ_CHECK(es_hold_decode((es_str_t) { text, len }, &back, &from, &detail) == ES_OK);
    ES_FUZZ_CHECK(from.chunked == d->chunked);
    ES_FUZZ_CHECK(es_equal_text(from.peer, d->peer) && es_equal_text(from.uri, d->uri));
    ES_FUZZ_CHECK(es_equal_instruct(back, in));
    ES_FUZZ_CHECK(es_hold_encode(back, &from, &again, &again_len) == ES_OK);
    ES_FUZZ_CHECK(again_len == len && memcmp(again, text, len) == 0);
    es_delivery_clear(&from);
    es_instruct_free(back);
    free(text);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_instruct_t *in = NULL;
    es_delivery_t d = { 0 };
    es_detail_t detail = { "" };

    if (es_hold_decode((es_str_t) { (const char *)data, size }, &in, &d, &detail) == ES_OK) {
        es_fuzz_accept();
        once_more(in, &d);
    }
    else {
        ES_FUZZ_CHECK(in == NULL && d.peer == NULL && d.uri == NULL);
        ES_FUZZ_CHECK(detail.text[0] != '\0');
    }
    es_delivery_clear(&d);
    es_instruct_free(in);
    return 0;
}
