/* SPDX-License-Identifier: Apache-2.0 */
/* base64: lenient decoding, the strict check, and keys as they stand in a configuration. */
#include "fuzz.h"

#include "grip_int.h"

#include <string.h>

ES_FUZZ_TARGET;

static void check_decoded(es_str_t in, es_str_t decoded)
{
    es_str_t text;
    char *encoded = NULL;
    char *again = NULL;
    size_t n = 0;

    ES_FUZZ_CHECK(decoded.n <= in.n / 4 * 3 + 2);
    ES_FUZZ_CHECK(es_base64_encode(decoded, &encoded, &text.n) == ES_OK);
    text.p = encoded;
    ES_FUZZ_CHECK(es_base64_check(text) == text.n);
    ES_FUZZ_CHECK(es_base64_decode(text, false, &again, &n) == ES_OK);
    ES_FUZZ_CHECK(n == decoded.n && memcmp(again, decoded.p, n) == 0);
    free(encoded);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t in = { (const char *)data, size };
    es_str_t decoded;
    es_key_t *key = NULL;
    es_detail_t detail = { "" };
    char *out = NULL;
    char *url = NULL;

    ES_FUZZ_CHECK(es_base64_decode(in, false, &out, &decoded.n) == ES_OK);
    decoded.p = out;
    check_decoded(in, decoded);
    ES_FUZZ_CHECK(es_base64_check(in) <= size);
    free(out);
    ES_FUZZ_CHECK(es_base64_decode(in, true, &url, &decoded.n) == ES_OK);
    free(url);
    if (es_key_from_text(in, &key, &detail) == ES_OK) {
        es_str_t secret = { (const char *)key->bytes, key->n };
        es_fuzz_accept();
        ES_FUZZ_CHECK(key->n > 0 && es_key_equals(key, secret));
        es_key_free(key);
    }
    else {
        ES_FUZZ_CHECK(key == NULL && detail.text[0] != '\0');
    }
    return 0;
}
