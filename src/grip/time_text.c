/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Points in time as people write them behind ?since=: seconds since 1970, RFC 3339, or how long
 * ago. The clock is an argument. Everything is counted in milliseconds; what is finer is cut off.
 *
 * The three forms cannot be mistaken for each other: a span needs a unit, a date has '-' in its
 * fifth place.
 */
#include "grip_int.h"

#include <string.h>

enum { MS_A_DAY = 86400000 };

static const int64_t most_ms = INT64_C(253402300799999); /* the end of the year 9999 */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes 1 to `most` digits. */
static bool take_number(es_str_t *io, size_t most, int64_t *ret)
{
    int64_t value = 0;
    size_t n = 0;

    while (n < io->n && is_digit(io->p[n])) {
        if (n == most) {
            return false;
        }
        value = value * 10 + (io->p[n] - '0');
        n++;
    }
    io->p += n;
    io->n -= n;
    *ret = value;
    return n > 0;
}

/* Exactly `n` digits. */
static bool take_digits(es_str_t *io, size_t n, int64_t *ret)
{
    es_str_t field = { io->p, n };

    if (io->n < n || !take_number(&field, n, ret) || field.n != 0) {
        return false;
    }
    io->p += n;
    io->n -= n;
    return true;
}

static bool take_char(es_str_t *io, const char *any)
{
    if (io->n == 0 || io->p[0] == '\0' || strchr(any, io->p[0]) == NULL) {
        return false;
    }
    io->p++;
    io->n--;
    return true;
}

/* ".5" as milliseconds; nothing there is fine. */
static bool take_fraction(es_str_t *io, int64_t *ret)
{
    int64_t unit = 100;
    size_t n = 0;

    *ret = 0;
    if (!take_char(io, ".")) {
        return true;
    }
    while (n < io->n && is_digit(io->p[n])) {
        *ret += (io->p[n] - '0') * unit;
        unit /= 10;
        n++;
    }
    io->p += n;
    io->n -= n;
    return n > 0;
}

static bool read_unix(es_str_t text, int64_t *ret_ms)
{
    int64_t seconds, ms;

    if (!take_number(&text, 15, &seconds) || !take_fraction(&text, &ms) || text.n != 0) {
        return false;
    }
    *ret_ms = seconds * 1000 + ms;
    return true;
}

/* Days since 1970 in the Gregorian calendar. A year begins in March here, so that the leap day is
 * its last one and months have a length that a formula knows. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t m = month <= 2 ? month + 9 : month - 3;

    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static int64_t days_in(int64_t year, int64_t month)
{
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    if (month == 2) {
        return leap ? 29 : 28;
    }
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/* "Z", "+01:00"; a '+' that became a blank in a query too. */
static bool read_zone(es_str_t text, int64_t *ret_ms)
{
    bool west = text.n > 0 && text.p[0] == '-';
    int64_t hours, minutes;

    *ret_ms = 0;
    if (take_char(&text, "Zz")) {
        return text.n == 0;
    }
    if (!take_char(&text, "+- ") || !take_digits(&text, 2, &hours) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &minutes) || text.n != 0 || hours > 23 || minutes > 59) {
        return false;
    }
    *ret_ms = (hours * 60 + minutes) * 60000;
    *ret_ms = west ? -*ret_ms : *ret_ms;
    return true;
}

static bool read_date(es_str_t text, int64_t *ret_ms)
{
    int64_t year, month, day, hour, minute, second, ms, zone;

    if (!take_digits(&text, 4, &year) || !take_char(&text, "-") || !take_digits(&text, 2, &month) ||
        !take_char(&text, "-") || !take_digits(&text, 2, &day) || !take_char(&text, "Tt ") ||
        !take_digits(&text, 2, &hour) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &minute) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &second) || !take_fraction(&text, &ms) || !read_zone(text, &zone)) {
        return false;
    }
    /* Second 60 is a leap second. */
    if (month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour > 23 ||
        minute > 59 || second > 60) {
        return false;
    }
    *ret_ms = days_of(year, month, day) * MS_A_DAY + ((hour * 60 + minute) * 60 + second) * 1000 +
              ms - zone;
    return true;
}

static int64_t take_unit(es_str_t *io)
{
    if (io->n >= 2 && memcmp(io->p, "ms", 2) == 0) {
        io->p += 2;
        io->n -= 2;
        return 1;
    }
    if (take_char(io, "s")) {
        return 1000;
    }
    if (take_char(io, "m")) {
        return 60000;
    }
    if (take_char(io, "h")) {
        return 3600000;
    }
    if (take_char(io, "d")) {
        return MS_A_DAY;
    }
    return take_char(io, "w") ? INT64_C(7) * MS_A_DAY : 0;
}

/* "10m", "1h30m ago" */
static bool read_span(es_str_t text, int64_t *ret_ms)
{
    static const char ago[] = "ago";
    int64_t total = 0;

    if (text.n >= 3 && memcmp(text.p + text.n - 3, ago, 3) == 0) {
        text.n -= 3;
        text = es_str_trim(text);
    }
    if (text.n == 0) {
        return false;
    }
    while (text.n > 0) {
        int64_t count, unit;
        if (!take_number(&text, 12, &count)) {
            return false;
        }
        unit = take_unit(&text);
        if (unit == 0) {
            return false;
        }
        /* More than all of time is all of time. */
        total = count > (most_ms - total) / unit ? most_ms : total + count * unit;
    }
    *ret_ms = total;
    return true;
}

es_err_t es_time_read(es_str_t text, int64_t now_ms, int64_t *ret_ms, es_detail_t *detail)
{
    int64_t ms;

    text = es_str_trim(text);
    if (read_span(text, &ms)) {
        ms = now_ms - ms;
    }
    else if (!read_unix(text, &ms) && !read_date(text, &ms)) {
        return es_fail(detail, ES_EINVAL,
                       "'since' is '%.*s'; accepted are seconds since 1970, a time like "
                       "2026-11-23T21:57:38Z, and a span like 90s, 10m or 1h30m",
                       ES_FOUND(text));
    }
    if (ms > now_ms + MS_A_DAY) {
        return es_fail(detail, ES_EINVAL,
                       "'since' is '%.*s', which is over a day ahead; a number is in seconds, "
                       "not in milliseconds",
                       ES_FOUND(text));
    }
    *ret_ms = ms < 0 ? 0 : ms;
    return ES_OK;
}
