/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fuzz.h
 * What every fuzz target shares.
 *
 * A target calls es_fuzz_accept() for each input that its parser accepted. The replay program
 * (standalone.c) uses the count to make sure that a corpus holds inputs that succeed and inputs
 * that fail: a corpus of rubbish alone tests only the first line of a parser.
 *
 * ES_FUZZ_CHECK stays on in every build: a property that does not hold ends the process.
 */
#ifndef ES_FUZZ_H
#define ES_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/** Called by libFuzzer, or by standalone.c for each file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern unsigned long es_fuzz_accepted;

/** Once in each target, at file scope. */
#define ES_FUZZ_TARGET unsigned long es_fuzz_accepted

static inline void es_fuzz_accept(void)
{
    es_fuzz_accepted++;
}

#define ES_FUZZ_CHECK(property)                                                                    \
    do {                                                                                           \
        if (!(property)) {                                                                         \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #property);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
