/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file es_test.h
 * What the unit tests share: cmocka's includes in the order that it wants, strings with a length,
 * and assertions that print both sides. Each test file is a program of its own.
 */
#ifndef ES_TEST_H
#define ES_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "es_base.h"

/** A string literal with its length, NULs inside included. */
#define S(literal)      ((es_str_t) { (literal), sizeof(literal) - 1 })

#define ES_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/** The error code and, when it is one, the sentence. */
static inline void es_check_err(es_err_t got, es_err_t want, const es_detail_t *detail,
                                const char *file, int line)
{
    if (got != want) {
        print_error("%s:%d: got '%s' (%s), want '%s'\n", file, line, es_err_name(got),
                    got != ES_OK && detail != NULL ? detail->text : "", es_err_name(want));
        _fail(file, line);
    }
}
#define assert_err(got, want, detail) es_check_err((got), (want), (detail), __FILE__, __LINE__)

static inline void es_check_bytes(const char *got, size_t got_n, es_str_t want, const char *file,
                                  int line)
{
    if (got == NULL || got_n != want.n || memcmp(got, want.p, want.n) != 0) {
        print_error("%s:%d: got %zu bytes '%.*s', want %zu bytes '%.*s'\n", file, line, got_n,
                    got == NULL ? 0 : (int)got_n, got == NULL ? "" : got, want.n, (int)want.n,
                    want.p);
        _fail(file, line);
    }
}
/** The bytes of a buffer, and that there are exactly these. */
#define assert_bytes(got, got_n, literal)                                                          \
    es_check_bytes((got), (got_n), S(literal), __FILE__, __LINE__)

static inline void es_check_starts(const char *got, const char *want, const char *file, int line)
{
    if (strncmp(got, want, strlen(want)) != 0) {
        print_error("%s:%d: got '%s', want it to start with '%s'\n", file, line, got, want);
        _fail(file, line);
    }
}
#define assert_starts(got, want) es_check_starts((got), (want), __FILE__, __LINE__)

/** n times the same byte, with a NUL after it; the caller frees. */
static inline char *es_repeat(char c, size_t n)
{
    char *p = malloc(n + 1);

    assert_non_null(p);
    memset(p, c, n);
    p[n] = '\0';
    return p;
}

#endif
