/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two encodings that GRIP uses to carry bytes in text.
 *
 * cstring: \\ \r \n \xHH. Any other escape is dropped with its letter, as Pushpin does; a backslash
 * at the end, a bad \x or an empty result is an error.
 *
 * base64: the decoder skips bytes that are not of the alphabet and takes what is left (applications
 * that work with Pushpin rely on that); keys are checked with es_base64_check first.
 */
#include "grip_int.h"

#include <stdlib.h>
#include <string.h>

/* Reads the escape whose letter stands at in.p[*io]; *io ends on its last byte.
 * Returns the byte, -1 for an escape that means nothing, -2 for a broken one. */
static int read_escape(es_str_t in, size_t *io)
{
    size_t i = *io;

    if (i >= in.n) {
        return -2;
    }
    switch (in.p[i]) {
    case '\\':
        return '\\';
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case 'x':
        if (in.n - i < 3 || es_hex_value(in.p[i + 1]) < 0 || es_hex_value(in.p[i + 2]) < 0) {
            return -2;
        }
        *io = i + 2;
        return es_hex_value(in.p[i + 1]) * 16 + es_hex_value(in.p[i + 2]);
    default:
        return -1;
    }
}

es_err_t es_cstring_decode(es_str_t in, char **ret, size_t *ret_len, es_detail_t *detail)
{
    char *out;
    size_t n = 0;
    size_t i;

    /* What comes out is never longer than what went in. */
    out = malloc(in.n + 1);
    if (out == NULL) {
        return es_fail(detail, ES_ENOMEM, "out of memory");
    }
    for (i = 0; i < in.n; i++) {
        int c = (unsigned char)in.p[i];
        if (c == '\\') {
            size_t at = i;
            i++;
            c = read_escape(in, &i);
            if (c == -2) {
                free(out);
                return es_fail(detail, ES_EINVAL,
                               "cstring has a broken escape at byte %zu: accepted are \\\\, \\r, "
                               "\\n and \\x with two hexadecimal digits",
                               at);
            }
        }
        if (c >= 0) {
            out[n] = (char)c;
            n++;
        }
    }
    if (n == 0) {
        free(out);
        return es_fail(detail, ES_EINVAL, "cstring is empty");
    }
    out[n] = '\0';
    *ret = out;
    *ret_len = n;
    return ES_OK;
}

static int base64_value(char c, bool url)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == (url ? '-' : '+')) {
        return 62;
    }
    if (c == (url ? '_' : '/')) {
        return 63;
    }
    return -1;
}

es_err_t es_base64_decode(es_str_t in, bool url, char **ret, size_t *ret_len)
{
    unsigned int bits = 0;
    int count = 0;
    size_t n = 0;
    size_t i;
    char *out;

    out = malloc(in.n / 4 * 3 + 4);
    if (out == NULL) {
        return ES_ENOMEM;
    }
    for (i = 0; i < in.n; i++) {
        int value = base64_value(in.p[i], url);
        if (value < 0) {
            continue;
        }
        bits = ((bits << 6) | (unsigned int)value) & 0xffff;
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[n] = (char)((bits >> count) & 0xff);
            n++;
        }
    }
    out[n] = '\0';
    *ret = out;
    *ret_len = n;
    return ES_OK;
}

es_err_t es_base64_encode(es_str_t in, char **ret, size_t *ret_len)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    size_t i;
    char *out;

    if (in.n > SIZE_MAX / 2) {
        return ES_ETOOBIG;
    }
    out = malloc((in.n + 2) / 3 * 4 + 1);
    if (out == NULL) {
        return ES_ENOMEM;
    }
    for (i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        unsigned int bits = (unsigned int)(unsigned char)in.p[i] << 16;
        bits |= left > 1 ? (unsigned int)(unsigned char)in.p[i + 1] << 8 : 0;
        bits |= left > 2 ? (unsigned int)(unsigned char)in.p[i + 2] : 0;
        out[n++] = alphabet[(bits >> 18) & 63];
        out[n++] = alphabet[(bits >> 12) & 63];
        out[n++] = left > 1 ? alphabet[(bits >> 6) & 63] : '=';
        out[n++] = left > 2 ? alphabet[bits & 63] : '=';
    }
    out[n] = '\0';
    *ret = out;
    *ret_len = n;
    return ES_OK;
}

size_t es_base64_check(es_str_t in)
{
    size_t digits = 0;
    size_t i;

    while (digits < in.n && base64_value(in.p[digits], false) >= 0) {
        digits++;
    }
    for (i = digits; i < in.n; i++) {
        if (in.p[i] != '=' || i - digits >= 2) {
            return i;
        }
    }
    /* One digit over holds six bits: not a byte. Padding, when given, fills a group of four. */
    if (digits % 4 == 1 || (in.n > digits && in.n % 4 != 0)) {
        return digits == 0 ? 0 : digits - 1;
    }
    return in.n;
}
