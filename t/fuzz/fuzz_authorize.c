/* SPDX-License-Identifier: Apache-2.0 */
/* The answer of an authorization. The input: Cache-Control, NUL, EventStream-Channels, NUL, body.
 */
#include "fuzz.h"

#include "es_sse.h"

#include <string.h>

ES_FUZZ_TARGET;

static char *take(const uint8_t **p, size_t *n)
{
    const uint8_t *end = *n == 0 ? NULL : memchr(*p, '\0', *n);
    size_t part = end == NULL ? *n : (size_t)(end - *p);
    size_t skip = end == NULL ? part : part + 1;
    char *copy = es_memdup(*p, part);

    ES_FUZZ_CHECK(copy != NULL);
    *p += skip;
    *n -= skip;
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *cache = take(&data, &size);
    char *list = take(&data, &size);
    es_header_t headers[] = {
        { "Content-Type", "application/json" },
        { "Cache-Control", cache },
        { "EventStream-Channels", list },
    };
    es_str_t body = { (const char *)data, size };
    es_authorize_t *answer = NULL;
    es_detail_t d = { "" };

    if (es_authorize_read(200, headers, list[0] == '\0' ? 2 : 3, body, &answer, &d) == ES_OK) {
        es_fuzz_accept();
        ES_FUZZ_CHECK(answer->verdict == ES_VERDICT_ADMIT);
        ES_FUZZ_CHECK(answer->max_age >= 0 && answer->max_age <= ES_MAX_AUTHORIZE_AGE);
        ES_FUZZ_CHECK(answer->narrowed || answer->channels.n == 0);
        ES_FUZZ_CHECK(answer->narrowed || es_authorize_allows(answer, es_str("a")));
        ES_FUZZ_CHECK(answer->channels.n > 0 || !answer->narrowed ||
                      !es_authorize_allows(answer, es_str("a")));
        es_authorize_free(answer);
    }
    else {
        ES_FUZZ_CHECK(answer == NULL && d.text[0] != '\0');
    }
    free(cache);
    free(list);
    return 0;
}
