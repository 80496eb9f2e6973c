/* SPDX-License-Identifier: Apache-2.0 */
/* The claims of a token that is signed: JSON text. */
#include "fuzz.h"

#include "grip_int.h"

#include <string.h>

ES_FUZZ_TARGET;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t text = { (const char *)data, size };
    es_token_rules_t rules = { NULL, NULL };
    es_token_t *token = NULL;
    es_detail_t d = { "" };
    es_err_t err = es_claims_read(text, &rules, 1000, &token, &d);

    if (err == ES_OK) {
        es_fuzz_accept();
        ES_FUZZ_CHECK(token->exp > 1000);
        ES_FUZZ_CHECK(token->name == NULL || strpbrk(token->name, "\r\n") == NULL);
        ES_FUZZ_CHECK(token->name != NULL || token->sub == NULL);
        ES_FUZZ_CHECK(token->may[ES_USE_PUBLISH].n == 0 || token->listed[ES_USE_PUBLISH]);
        es_token_allows(token, ES_USE_SUBSCRIBE, es_str("news-aaaaaaaaaaaaaaaab"));
        es_token_free(token);
    }
    else {
        ES_FUZZ_CHECK(err == ES_EAUTH && token == NULL && d.text[0] != '\0');
    }
    return 0;
}
