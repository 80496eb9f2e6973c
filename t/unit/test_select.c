/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/select.c and query.c: which channels a URL asks for. */
#include "es_test.h"
#include "grip_int.h"

static const es_channel_rules_t plain = { NULL, NULL, false, NULL };
static const es_channel_rules_t django = { NULL, "events-", true, NULL };

/* The names that a URL gives, as "asked=name asked=name"; static storage. */
static const char *names_by(const es_channel_rules_t *rules, const char *path, const char *query)
{
    static char text[1024];
    es_channels_t channels;
    es_detail_t d;
    size_t i;

    assert_err(es_channels_from_url(rules, es_str(path), es_str(query), &channels, &d), ES_OK, &d);
    text[0] = '\0';
    for (i = 0; i < channels.n; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof(text) - n, "%s%s=%s", i > 0 ? " " : "", channels.v[i].asked,
                 channels.v[i].name);
    }
    for (i = 0; i < channels.refused_count; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof(text) - n, " !%s", channels.refused[i]);
    }
    es_channels_free(&channels);
    assert_int_equal(channels.n, 0);
    return text;
}

static void reads_the_path(void **state)
{
    (void)state;
    assert_string_equal(names_by(&plain, "/news", ""), "news=news");
    assert_string_equal(names_by(&plain, "/news/", ""), "news=news");
    assert_string_equal(names_by(&plain, "news", NULL), "news=news");
    assert_string_equal(names_by(&plain, "//rooms/7//", ""), "rooms/7=rooms/7");
    assert_string_equal(names_by(&plain, "/a,b", ""), "a,b=a,b");
    /* Decoded by httpd already: a '%' is a '%', a '+' a '+'. */
    assert_string_equal(names_by(&plain, "/a%20+b", ""), "a%20+b=a%20+b");
    assert_string_equal(names_by(&plain, "/news", "channel=b"), "news=news");
    assert_string_equal(names_by(&plain, "/", "channel=b"), "b=b");
    assert_string_equal(names_by(&django, "/a b", NULL), "a b=events-a%20b");
}

static void reads_the_query(void **state)
{
    es_channel_rules_t rules = { "c h", NULL, false, NULL };

    (void)state;
    assert_string_equal(names_by(&plain, "", "channel=a&channel=b"), "a=a b=b");
    assert_string_equal(names_by(&plain, "", "x=y&channel=a,b,&z&channel=,c&&"), "a=a b=b c=c");
    assert_string_equal(names_by(&plain, "", "channel=a%2Cb,c"), "a,b=a,b c=c");
    assert_string_equal(names_by(&plain, "", "channel=a+b"), "a b=a b");
    assert_string_equal(names_by(&plain, "", "channel=a%2Bb%26"), "a+b&=a+b&");
    assert_string_equal(names_by(&plain, "", "%63hannel=x"), "x=x");
    assert_string_equal(names_by(&plain, "", "channel=a=b"), "a=b=a=b");
    assert_string_equal(names_by(&plain, "", "channel=b,a,b&channel=a"), "b=b a=a");
    assert_string_equal(names_by(&plain, "", "channel=%C3%B6"), "\xc3\xb6=\xc3\xb6");
    assert_string_equal(names_by(&rules, "", "channel=a&c+h=b&c%20h=c"), "b=b c=c");
}

/* What send_event() of django-eventstream 5.3.4 was seen to publish to. */
static void finds_what_django_publishes(void **state)
{
    es_channel_rules_t grip_prefix = { NULL, "myapp-events-", true, NULL };
    es_channel_rules_t user = { NULL, "user-", false, NULL };

    (void)state;
    assert_string_equal(names_by(&django, "", "channel=test"), "test=events-test");
    assert_string_equal(names_by(&django, "", "channel=a%20b/c%25d"), "a b/c%d=events-a%20b/c%25d");
    assert_string_equal(names_by(&django, "", "channel=_priv~.-"), "_priv~.-=events-_priv~.-");
    assert_string_equal(names_by(&django, "", "channel=%C3%B6%2C%2B"),
                        "\xc3\xb6,+=events-%C3%B6%2C%2B");
    assert_string_equal(names_by(&grip_prefix, "", "channel=a+b"), "a b=myapp-events-a%20b");
    assert_string_equal(names_by(&user, "", "channel=jo@example.org"),
                        "jo@example.org=user-jo@example.org");
    assert_true(es_channel_prefix_quotes("events-"));
    assert_true(es_channel_prefix_quotes("myapp-events-"));
    assert_false(es_channel_prefix_quotes("user-"));
    assert_false(es_channel_prefix_quotes("events-x"));
    assert_false(es_channel_prefix_quotes(""));
    assert_false(es_channel_prefix_quotes(NULL));
}

static void patterns_bound_it(void **state)
{
    es_patterns_t allow = { NULL, 0 };
    es_channel_rules_t rules = { NULL, "events-", true, &allow };
    es_channels_t channels = { .n = 0 };
    es_detail_t d;

    (void)state;
    /* An empty list binds nobody. */
    assert_string_equal(names_by(&rules, "", "channel=a"), "a=events-a");
    assert_int_equal(es_patterns_add(&allow, S("news"), NULL), ES_OK);
    assert_int_equal(es_patterns_add(&allow, S("room ?"), NULL), ES_OK);
    assert_string_equal(names_by(&rules, "", "channel=news,room+7,_priv,_priv"),
                        "news=events-news room 7=events-room%207 !_priv");
    assert_string_equal(names_by(&rules, "/_priv", ""), " !_priv");
    /* The administrator is not bound, and what the prefix makes of a name does not count. */
    assert_string_equal(names_by(&rules, "", "channel=events-news"), " !events-news");
    assert_err(es_channels_add(&channels, &rules, S("_priv"), false, &d), ES_OK, &d);
    assert_err(es_channels_add(&channels, &rules, S("_priv"), true, &d), ES_OK, &d);
    assert_err(es_channels_add(&channels, &rules, S("other"), true, &d), ES_OK, &d);
    assert_int_equal(channels.n, 1);
    assert_int_equal(channels.refused_count, 1);
    assert_string_equal(channels.v[0].name, "events-_priv");
    assert_err(es_channels_add(&channels, &rules, S(""), false, &d), ES_EINVAL, &d);
    assert_string_equal(d.text, "a channel's name is empty");
    es_channels_free(&channels);
    es_patterns_free(&allow);
}

static void refuse(const es_channel_rules_t *rules, es_str_t path, const char *query, es_err_t want,
                   const char *sentence)
{
    es_channels_t channels = { .n = 7 };
    es_detail_t d;

    assert_err(es_channels_from_url(rules, path, es_str(query), &channels, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_int_equal(channels.n, 7);
}

static void says_what_is_wrong(void **state)
{
    static const char how[] =
        "No channels specified. Name one behind the path, as in /events/NAME, or in the query, as "
        "in ?channel=NAME; several as in ?channel=ONE,TWO";
    es_channel_rules_t topic = { "topic", NULL, false, NULL };

    (void)state;
    refuse(&plain, S(""), "", ES_ENOENT, how);
    refuse(&plain, S("///"), "channel=&channel=,,&x=y&channels=a", ES_ENOENT, how);
    refuse(&topic, S(""), "channel=a", ES_ENOENT,
           "No channels specified. Name one behind the path, as in /events/NAME, or in the query, "
           "as in ?topic=NAME; several as in ?topic=ONE,TWO");
    refuse(&plain, S(""), "channel=a,%zz", ES_EINVAL,
           "broken percent-encoding in the query parameter 'channel': '%zz'");
    refuse(&plain, S(""), "channel=a%2", ES_EINVAL,
           "broken percent-encoding in the query parameter 'channel': 'a%2'");
    refuse(&plain, S(""), "channel=a%0Ab", ES_EINVAL,
           "the channel's name 'a?b' holds CR, LF or NUL");
    refuse(&plain, S(""), "channel=a%00", ES_EINVAL, "the channel's name 'a' holds CR, LF or NUL");
    refuse(&plain, S("/a\0b"), "", ES_EINVAL, "the channel's name 'a' holds CR, LF or NUL");
    refuse(&plain, S(""), "channel=%ff", ES_EINVAL, "the channel's name '\xff' is not UTF-8");
}

static void has_caps(void **state)
{
    char *long_name = es_repeat('n', ES_MAX_CHANNEL_NAME + 1);
    char *spaces = es_repeat(' ', ES_MAX_CHANNEL_NAME / 3 + 1);
    char *url = es_repeat('u', ES_MAX_URL_TEXT + 1);
    char *many = malloc(200000);
    es_channels_t channels;
    es_detail_t d;
    size_t n = 0;
    int i;

    (void)state;
    refuse(&plain, es_str(long_name), "", ES_ETOOBIG,
           "a channel's name is 4097 bytes long, at most 4096");
    long_name[ES_MAX_CHANNEL_NAME] = '\0';
    assert_err(es_channels_from_url(&plain, es_str(long_name), S(""), &channels, &d), ES_OK, &d);
    es_channels_free(&channels);
    assert_err(es_channels_from_url(&django, es_str(long_name), S(""), &channels, &d), ES_ETOOBIG,
               &d);
    assert_starts(d.text, "the channel's name 'nnnn");
    assert_non_null(strstr(d.text, "' is over 4096 bytes long with what the configuration puts"));
    assert_err(es_channels_from_url(&django, es_str(spaces), S(""), &channels, &d), ES_ETOOBIG, &d);
    refuse(&plain, es_str(url), "", ES_ETOOBIG,
           "the URL is too long: path and query may have 65536 bytes");
    refuse(&plain, S(""), url, ES_ETOOBIG,
           "the URL is too long: path and query may have 65536 bytes");
    /* Ten thousand names, and twenty that come again ten thousand times. */
    assert_non_null(many);
    n += (size_t)snprintf(many, 200000, "channel=");
    for (i = 0; i < 10000; i++) {
        n += (size_t)snprintf(many + n, 200000 - n, "%d,", i);
    }
    assert_true(n < ES_MAX_URL_TEXT);
    refuse(&plain, S(""), many, ES_EFULL, "over 20 channels are asked for; open a second stream");
    n = (size_t)snprintf(many, 200000, "channel=");
    for (i = 0; i < 10000; i++) {
        n += (size_t)snprintf(many + n, 200000 - n, "%d,", i % ES_MAX_CHANNELS);
    }
    assert_err(es_channels_from_url(&plain, S(""), es_str(many), &channels, &d), ES_OK, &d);
    assert_int_equal(channels.n, ES_MAX_CHANNELS);
    es_channels_free(&channels);
    free(long_name);
    free(spaces);
    free(url);
    free(many);
}

static void presence_channels_are_known_by_their_end(void **state)
{
    es_str_t channel;

    (void)state;
    assert_true(es_presence_of(S("a/b/presence"), &channel));
    assert_bytes(channel.p, channel.n, "a/b");
    assert_true(es_presence_of(S("a/presence/presence"), &channel));
    assert_bytes(channel.p, channel.n, "a/presence");
    assert_false(es_presence_of(S("/presence"), &channel));
    assert_false(es_presence_of(S("presence"), &channel));
    assert_false(es_presence_of(S("a/presence/"), NULL));
    assert_false(es_presence_of(S(""), NULL));
}

static void names_that_may_be_shown(void **state)
{
    char *longest = es_repeat('x', ES_MAX_DISPLAY_NAME);
    char *longer = es_repeat('x', ES_MAX_DISPLAY_NAME + 1);

    (void)state;
    assert_true(es_presence_shows(S("Ann \xc3\x84 <b>\"")));
    assert_true(es_presence_shows(S("\xc2\xa0")));
    assert_true(es_presence_shows(es_str(longest)));
    assert_false(es_presence_shows(es_str(longer)));
    assert_false(es_presence_shows(S("")));
    assert_false(es_presence_shows(S("a\tb")));
    assert_false(es_presence_shows(S("a\x7f")));
    assert_false(es_presence_shows(S("\xc2\x9f")));
    assert_false(es_presence_shows(S("\xff")));
    assert_false(es_presence_shows(S("a\xc2")));
    free(longest);
    free(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_path),
        cmocka_unit_test(reads_the_query),
        cmocka_unit_test(finds_what_django_publishes),
        cmocka_unit_test(patterns_bound_it),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(has_caps),
        cmocka_unit_test(presence_channels_are_known_by_their_end),
        cmocka_unit_test(names_that_may_be_shown),
    };
    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
