/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens. A token that is accepted must be one of the few that were signed with this key: the
 * corpus holds them, and a fuzzer that makes another one has broken HMAC-SHA-256 or found a hole.
 */
#include "fuzz.h"

#include "es_grip.h"

#include <string.h>

ES_FUZZ_TARGET;

/* {"iss":"realm1","exp":1795456888} and {"exp":1795456888,"iss":"pushpin"}, key "changeme" */
static const char *const signed_tokens[] = {
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyZWFsbTEiLCJleHAiOjE3OTU0NTY4ODh9."
    "JrfA5gF-LEsIzhWaXp7PXCbGk9p7zT9y_5vAg2-7n04",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTU0NTY4ODgsImlzcyI6InB1c2hwaW4ifQ."
    "bo6w5Akqf80PpaiqFe4uROr9hCB2Og6PEREwLlpTvZQ",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    es_str_t token = { (const char *)data, size };
    es_key_t *key = NULL;
    es_detail_t detail = { "" };
    es_err_t err;

    ES_FUZZ_CHECK(es_key_from_text(es_str("changeme"), &key, NULL) == ES_OK);
    err = es_token_verify(key, NULL, token, INT64_C(1795450000), &detail);
    if (err == ES_OK) {
        ES_FUZZ_CHECK(es_str_is(token, signed_tokens[0]) || es_str_is(token, signed_tokens[1]));
        es_fuzz_accept();
    }
    else {
        ES_FUZZ_CHECK(err == ES_EAUTH && detail.text[0] != '\0');
    }
    es_key_free(key);
    return 0;
}
