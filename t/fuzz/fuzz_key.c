/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: secrets and PEM. Nothing that looks like PEM may become a secret. */
#include "fuzz.h"

#include "es_grip.h"

#include <string.h>

ES_FUZZ_TARGET;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t text = { (const char *)data, size };
    es_key_t *key = NULL;
    es_detail_t d = { "" };
    char *token = NULL;

    if (es_key_from_text(text, &key, &d) != ES_OK) {
        ES_FUZZ_CHECK(key == NULL && d.text[0] != '\0');
        return 0;
    }
    es_fuzz_accept();
    ES_FUZZ_CHECK(key->n > 0);
    ES_FUZZ_CHECK((key->alg != ES_ALG_HS256) == (key->is_public || key->is_private));
    ES_FUZZ_CHECK((key->alg != ES_ALG_HS256) ==
                  (key->n >= 11 && memcmp(key->bytes, "-----BEGIN ", 11) == 0));
    ES_FUZZ_CHECK(es_token_sign(key, "x", 1000, &token) == (key->is_public ? ES_EINVAL : ES_OK));
    if (token != NULL && !key->is_private) {
        ES_FUZZ_CHECK(es_token_verify(key, "x", es_str(token), 1000, NULL) == ES_OK);
    }
    free(token);
    es_key_free(key);
    return 0;
}
