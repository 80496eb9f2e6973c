/* SPDX-License-Identifier: Apache-2.0 */
/* Ids of events: what is accepted is exactly what is written for that instance and number. */
#include "fuzz.h"

#include "es_sse.h"

#include <string.h>

ES_FUZZ_TARGET;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t instance = UINT64_C(0x0123456789abcdef);
    es_str_t text = { (const char *)data, size };
    es_detail_t d = { "" };
    uint64_t seq = 0;
    char id[ES_EVENT_ID_SIZE];
    es_err_t err = es_event_id_decode(text, instance, &seq, &d);

    if (err == ES_OK) {
        es_fuzz_accept();
        es_event_id_encode(instance, seq, id);
        ES_FUZZ_CHECK(es_str_is(text, id));
    }
    else {
        ES_FUZZ_CHECK((err == ES_EINVAL || err == ES_ENOENT) && d.text[0] != '\0');
    }
    /* The input's first bytes as numbers, there and back. */
    if (size >= 16) {
        uint64_t numbers[2];
        memcpy(numbers, data, sizeof(numbers));
        es_event_id_encode(numbers[0], numbers[1], id);
        ES_FUZZ_CHECK(es_event_id_decode(es_str(id), numbers[0], &seq, NULL) == ES_OK);
        ES_FUZZ_CHECK(seq == numbers[1]);
        ES_FUZZ_CHECK(es_event_id_decode(es_str(id), numbers[0] + 1, &seq, NULL) == ES_ENOENT);
    }
    return 0;
}
