/* SPDX-License-Identifier: Apache-2.0 */
/* The history store's decoders: any bytes, and what is accepted is written the same again. */
#include "fuzz.h"

#include "store_int.h"

#include <string.h>

ES_FUZZ_TARGET;

/* What nobody accepts after the encoder: the same record under a right checksum must pass. */
static void round_trip(es_str_t bytes)
{
    unsigned char *value;
    es_record_t in = { 0x0102030405060708, bytes.n, bytes }, out;

    value = malloc(ES_RECORD_HEAD + bytes.n);
    if (value == NULL) {
        return;
    }
    es_record_encode(&in, value);
    if (bytes.n > 0) {
        memcpy(value + ES_RECORD_HEAD, bytes.p, bytes.n);
    }
    ES_FUZZ_CHECK(es_record_decode((es_str_t) { (char *)value, ES_RECORD_HEAD + bytes.n }, &out,
                                   NULL) == ES_OK);
    ES_FUZZ_CHECK(out.channel == in.channel && out.ms == in.ms && out.bytes.n == in.bytes.n);
    ES_FUZZ_CHECK(bytes.n == 0 || memcmp(out.bytes.p, bytes.p, bytes.n) == 0);
    /* One flipped bit is found. */
    value[(bytes.n * 7) % (ES_RECORD_HEAD + bytes.n)] ^= 1 << bytes.n % 8;
    ES_FUZZ_CHECK(es_record_decode((es_str_t) { (char *)value, ES_RECORD_HEAD + bytes.n }, &out,
                                   NULL) == ES_EINVAL);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const es_str_t value = { (const char *)data, size };
    unsigned char head[ES_RECORD_HEAD], again[ES_STATE_SIZE];
    es_detail_t detail = { "" };
    es_record_t record;
    es_state_t state;
    es_row_t row;

    if (es_record_decode(value, &record, &detail) == ES_OK) {
        es_fuzz_accept();
        ES_FUZZ_CHECK(record.bytes.n == size - ES_RECORD_HEAD);
        es_record_encode(&record, head);
        ES_FUZZ_CHECK(memcmp(head, data, sizeof head) == 0);
    }
    else {
        ES_FUZZ_CHECK(detail.text[0] != '\0');
    }
    if (es_row_decode(1, value, &row)) {
        ES_FUZZ_CHECK(row.name.n == size - ES_ROW_HEAD && row.name.n > 0);
    }
    if (es_state_decode(value, &state)) {
        es_state_encode(&state, again);
        ES_FUZZ_CHECK(size == sizeof again && memcmp(again, data, size) == 0);
    }
    round_trip(value);
    return 0;
}
