/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/position.c and time_text.c: where a stream begins. */
#include "es_test.h"
#include "grip_int.h"

static const int64_t now = INT64_C(1795456888123); /* 2026-11-23T18:01:28.123Z */

static es_position_t at(const char *header, const char *query)
{
    es_position_t p;
    es_detail_t d;

    assert_err(es_position_from_request(es_str(header), es_str(query), now, &p, &d), ES_OK, &d);
    return p;
}

static void assert_id(const char *header, const char *query, const char *id)
{
    es_position_t p = at(header, query);

    assert_int_equal(p.from, ES_FROM_ID);
    assert_string_equal(p.id, id);
}

static void knows_who_comes_first(void **state)
{
    (void)state;
    assert_int_equal(at(NULL, NULL).from, ES_FROM_NOW);
    assert_int_equal(at("", "x=y").from, ES_FROM_NOW);
    assert_id("abc", NULL, "abc");
    assert_id(" abc\t", "lastEventId=def&since=rubbish&rewind=x", "abc");
    assert_id(" ", "lastEventId=def", "def");
    assert_id(NULL, "last_event_id=def&since=rubbish", "def");
    assert_id(NULL, "lastEventId=a&last_event_id=b&lastEventId=", "b");
    assert_id(NULL, "last_event_id=b&lastEventId=a", "a");
    assert_id(NULL, "lastEventId=test%3A1+", "test:1 ");
    assert_id(NULL, "lastEventId=%zz", "%zz");
    assert_int_equal(at("earliest", NULL).from, ES_FROM_EARLIEST);
    assert_int_equal(at(NULL, "lastEventId=earliest").from, ES_FROM_EARLIEST);
    assert_id("Earliest", NULL, "Earliest");
    assert_int_equal(at("error", NULL).from, ES_FROM_ERROR);
    assert_int_equal(at(NULL, "lastEventId=error").from, ES_FROM_ERROR);
}

/* It is cut, and what is left cannot be an id of ours. */
static void cuts_long_ids(void **state)
{
    char *id = es_repeat('A', 10000);
    es_position_t p = at(id, NULL);
    uint64_t seq;

    (void)state;
    assert_int_equal(p.from, ES_FROM_ID);
    assert_int_equal(strlen(p.id), sizeof(p.id) - 1);
    assert_int_equal(es_event_id_decode(es_str(p.id), 0, &seq, NULL), ES_EINVAL);
    free(id);
}

static const struct {
    const char *text;
    int64_t ms;
} times[] = {
    { "0", 0 },
    { "1795456888", INT64_C(1795456888000) },
    { "1795456888.5", INT64_C(1795456888500) },
    { "1795456888.1239", INT64_C(1795456888123) },
    { "1795540000", INT64_C(1795540000000) }, /* less than a day ahead */
    { "2026-11-23T21:21:28Z", INT64_C(1795468888000) },
    { "2026-11-23t21:21:28.25z", INT64_C(1795468888250) },
    { "2026-11-23 21:21:28Z", INT64_C(1795468888000) },
    { "2026-11-23T22:21:28%2B01:00", INT64_C(1795468888000) },
    { "2026-11-23T22:21:28+01:00", INT64_C(1795468888000) }, /* the '+' became a blank */
    { "2026-11-23T15:51:28-05:30", INT64_C(1795468888000) },
    { "1970-01-01T00:00:00Z", 0 },
    { "1969-12-31T23:59:59Z", 0 },
    { "0000-01-01T00:00:00Z", 0 },
    { "2000-02-29T00:00:00Z", INT64_C(951782400000) },
    { "2024-03-01T00:00:00Z", INT64_C(1709251200000) },
    { "2016-12-31T23:59:60Z", INT64_C(1483228800000) },
    { "90s", INT64_C(1795456888123) - 90000 },
    { "10m", INT64_C(1795456888123) - 600000 },
    { "10m+ago", INT64_C(1795456888123) - 600000 },
    { "10m%20ago", INT64_C(1795456888123) - 600000 },
    { "10mago", INT64_C(1795456888123) - 600000 },
    { "1h30m", INT64_C(1795456888123) - 5400000 },
    { "2d", INT64_C(1795456888123) - 172800000 },
    { "1w", INT64_C(1795456888123) - 604800000 },
    { "250ms", INT64_C(1795456888123) - 250 },
    { "0s", INT64_C(1795456888123) },
    { "999999999999w", 0 },
    { "999999999999w999999999999w", 0 },
};

static void reads_times(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(times); i++) {
        char query[100];
        es_position_t p;
        snprintf(query, sizeof(query), "a=b&since=%s&since=", times[i].text);
        p = at(NULL, query);
        if (p.from != ES_FROM_TIME || p.time_ms != times[i].ms) {
            fail_msg("%s: %lld, want %lld", times[i].text, (long long)p.time_ms,
                     (long long)times[i].ms);
        }
    }
}

static const char *const bad_times[] = {
    "x",
    "-1",
    "1.",
    ".5",
    "1e9",
    "1234567890123456",
    "10x",
    "m",
    "ago",
    "10m ago ago",
    "10 m",
    "1.5h",
    "2026-11-23",
    "2026-11-23T21:21:28",
    "2026-11-23T21:21Z",
    "2026-13-23T21:21:28Z",
    "2026-00-23T21:21:28Z",
    "2026-02-29T21:21:28Z",
    "2100-02-29T21:21:28Z",
    "2026-04-31T21:21:28Z",
    "2026-11-23T24:00:00Z",
    "2026-11-23T21:60:00Z",
    "2026-11-23T21:00:61Z",
    "2026-11-23T21:00:00.Z",
    "2026-11-23T21:00:00Zx",
    "2026-11-23T21:00:00+0100",
    "2026-11-23T21:00:00+24:00",
    "2026-11-23T21:00:00+01:60",
    "26-11-23T21:00:00Z",
};

static void refuses_other_times(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(bad_times); i++) {
        int64_t ms = 7;
        es_detail_t d;
        es_err_t err = es_time_read(es_str(bad_times[i]), now, &ms, &d);
        if (err != ES_EINVAL || ms != 7) {
            fail_msg("%s: %s", bad_times[i], es_err_name(err));
        }
        assert_non_null(strstr(d.text, "; accepted are seconds since 1970, a time like "));
    }
}

static void refuse(const char *query, es_err_t want, const char *sentence)
{
    es_position_t p = { .count = 7 };
    es_detail_t d;

    assert_err(es_position_from_request(es_str(NULL), es_str(query), now, &p, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_int_equal(p.count, 7);
}

static void counts_back(void **state)
{
    char *url = es_repeat('u', ES_MAX_URL_TEXT + 1);

    (void)state;
    assert_int_equal(at(NULL, "rewind=10").from, ES_FROM_LAST);
    assert_int_equal(at(NULL, "rewind=10").count, 10);
    assert_int_equal(at(NULL, "rewind=100000").count, ES_MAX_REWIND);
    assert_int_equal(at(NULL, "rewind=0").from, ES_FROM_NOW);
    refuse("rewind=100001", ES_ETOOBIG, "'rewind' is '100001'; accepted is at most 100000");
    refuse("rewind=-1", ES_EINVAL, "'rewind' is '-1'; accepted is a number from 0 to 100000");
    refuse("rewind=1x", ES_EINVAL, "'rewind' is '1x'; accepted is a number from 0 to 100000");
    refuse("rewind=%zz", ES_EINVAL, "broken percent-encoding in the query: '%zz'");
    refuse("since=%zz", ES_EINVAL, "broken percent-encoding in the query: '%zz'");
    refuse("since=10m&rewind=5", ES_EINVAL, "the query has both 'since' and 'rewind'; give one");
    refuse("since=1795456888123", ES_EINVAL,
           "'since' is '1795456888123', which is over a day ahead; a number is in seconds, not in "
           "milliseconds");
    refuse("since=soon", ES_EINVAL,
           "'since' is 'soon'; accepted are seconds since 1970, a time like 2026-11-23T21:57:38Z, "
           "and a span like 90s, 10m or 1h30m");
    refuse(url, ES_ETOOBIG, "the query is 65537 bytes long, at most 65536");
    free(url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_who_comes_first), cmocka_unit_test(cuts_long_ids),
        cmocka_unit_test(reads_times),           cmocka_unit_test(refuses_other_times),
        cmocka_unit_test(counts_back),
    };
    return cmocka_run_group_tests_name("position", tests, NULL, NULL);
}
