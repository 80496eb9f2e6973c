/* SPDX-License-Identifier: Apache-2.0 */
/* GRIP's cstring form. */
#include "fuzz.h"

#include "es_grip.h"

ES_FUZZ_TARGET;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t in = { (const char *)data, size };
    es_detail_t detail = { "" };
    char *out = NULL;
    size_t n = 0;

    if (es_cstring_decode(in, &out, &n, &detail) == ES_OK) {
        es_fuzz_accept();
        ES_FUZZ_CHECK(n > 0 && n <= size && out[n] == '\0');
    }
    else {
        ES_FUZZ_CHECK(out == NULL && detail.text[0] != '\0');
    }
    free(out);
    return 0;
}
