/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/instruct.c: an instruct's life, and the questions about header names. */
#include "es_test.h"
#include "es_equal.h"
#include "grip_int.h"

static const es_str_t none = { NULL, 0 };

static void starts_with_defaults(void **state)
{
    es_instruct_t *in = es_instruct_new();

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_NONE);
    assert_int_equal(in->timeout, 55);
    assert_int_equal(in->keep_alive_timeout, 55);
    assert_int_equal(in->keep_alive_mode, ES_KEEP_ALIVE_IDLE);
    assert_null(in->keep_alive);
    assert_int_equal(in->channel_count, 0);
    assert_int_equal(in->status, 0);
    es_instruct_free(in);
    es_instruct_free(NULL);
    es_response_free(NULL);
}

static void counts_channels_over_the_cap(void **state)
{
    es_instruct_t *in = es_instruct_new();
    es_sub_spec_t *spec = NULL;
    char name[16];
    es_detail_t d;
    int i;

    (void)state;
    for (i = 0; i < ES_MAX_CHANNELS + 3; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        assert_err(es_instruct_add_channel(in, es_str(name), none, &spec, &d), ES_OK, &d);
        assert_true((spec != NULL) == (i < ES_MAX_CHANNELS));
    }
    assert_int_equal(in->channel_count, ES_MAX_CHANNELS);
    assert_int_equal(in->channels_over, 3);
    assert_string_equal(in->channels[19].name, "c19");
    /* A full instruct still takes news of a channel that it has. */
    assert_err(es_instruct_add_channel(in, S("c7"), S("9"), NULL, &d), ES_OK, &d);
    assert_string_equal(in->channels[7].prev_id, "9");
    assert_err(es_instruct_add_channel(in, S("other"), none, NULL, &d), ES_OK, &d);
    assert_int_equal(in->channels_over, 4);
    es_instruct_free(in);
}

static void later_news_of_a_channel_count(void **state)
{
    es_instruct_t *in = es_instruct_new();
    es_sub_spec_t *spec = NULL;
    es_detail_t d;

    (void)state;
    assert_err(es_instruct_add_channel(in, S("a"), S("1"), &spec, &d), ES_OK, &d);
    es_sub_spec_add_filter(spec, S("skip-self"));
    es_sub_spec_add_filter(spec, S("no-such-filter"));
    assert_int_equal(spec->filter_count, 1);
    assert_err(es_instruct_add_channel(in, S("b"), none, &spec, &d), ES_OK, &d);
    assert_err(es_instruct_add_channel(in, S("a"), S(""), &spec, &d), ES_OK, &d);
    assert_int_equal(in->channel_count, 2);
    assert_string_equal(in->channels[0].name, "a");
    assert_string_equal(in->channels[0].prev_id, "");
    assert_int_equal(in->channels[0].filter_count, 0);
    assert_null(in->channels[1].prev_id);
    es_instruct_free(in);
}

static void checks_names_and_ids(void **state)
{
    es_instruct_t *in = es_instruct_new();
    char *big = es_repeat('n', ES_MAX_CHANNEL_NAME + 1);
    es_str_t over = { big, ES_MAX_CHANNEL_NAME + 1 };
    es_detail_t d;

    (void)state;
    assert_err(es_instruct_add_channel(in, S("a\nb"), none, NULL, &d), ES_EINVAL, &d);
    assert_starts(d.text, "channel name 'a?b' must be UTF-8 without CR, LF and NUL");
    assert_err(es_instruct_add_channel(in, S("a\0"), none, NULL, &d), ES_EINVAL, &d);
    assert_err(es_instruct_add_channel(in, S("a\xff"), none, NULL, &d), ES_EINVAL, &d);
    assert_err(es_instruct_add_channel(in, S("a"), S("1\r"), NULL, &d), ES_EINVAL, &d);
    assert_err(es_instruct_add_channel(in, S("a"), S("\xff"), NULL, &d), ES_EINVAL, &d);
    assert_starts(d.text, "prev-id of channel 'a' must be UTF-8");
    assert_err(es_instruct_add_channel(in, over, none, NULL, &d), ES_ETOOBIG, &d);
    assert_starts(d.text, "channel name 'nnnn");
    assert_err(es_instruct_add_channel(in, S("a"), over, NULL, &d), ES_ETOOBIG, &d);
    assert_starts(d.text, "prev-id of channel 'a' is 4097 bytes long, at most 4096");
    over.n--;
    assert_err(es_instruct_add_channel(in, over, over, NULL, &d), ES_OK, &d);
    assert_int_equal(in->channel_count, 1);
    free(big);
    es_instruct_free(in);
}

static void clones_everything(void **state)
{
    es_instruct_t *in = es_instruct_new();
    es_instruct_t *copy = NULL;
    es_sub_spec_t *spec = NULL;
    es_detail_t d;

    (void)state;
    in->hold = ES_HOLD_RESPONSE;
    in->timeout = 30;
    in->keep_alive = es_memdup("\0\xff", 2);
    in->keep_alive_len = 2;
    in->keep_alive_timeout = 7;
    in->keep_alive_mode = ES_KEEP_ALIVE_INTERVAL;
    in->status = 304;
    in->reason = es_memdup("Same", 4);
    in->channels_over = 2;
    assert_err(es_instruct_add_channel(in, S("a"), S("1"), &spec, &d), ES_OK, &d);
    es_sub_spec_add_filter(spec, S("build-id"));
    es_sub_spec_add_filter(spec, S("skip-users"));
    assert_err(es_instruct_add_channel(in, S("b"), none, &spec, &d), ES_OK, &d);
    assert_err(es_meta_set(&in->meta, "M", S("user"), S("u"), &d), ES_OK, &d);
    assert_err(es_instruct_add_expose(in, S("X-A"), &d), ES_OK, &d);
    assert_err(es_instruct_clone(in, &copy), ES_OK, NULL);
    assert_true(es_equal_instruct(in, copy));
    assert_int_equal(copy->channels_over, 2);
    es_instruct_free(in);
    /* Nothing is shared. */
    assert_string_equal(copy->channels[0].name, "a");
    assert_string_equal(copy->expose[0], "X-A");
    es_instruct_free(copy);
}

static void knows_grip_headers(void **state)
{
    (void)state;
    assert_true(es_is_grip_header("Grip-Hold"));
    assert_true(es_is_grip_header("grip-foo"));
    assert_true(es_is_grip_header("GRIP-"));
    assert_false(es_is_grip_header("Grip"));
    assert_false(es_is_grip_header("Gripe-Foo"));
    assert_false(es_is_grip_header("X-Grip-Hold"));
    assert_false(es_is_grip_header(""));
    assert_false(es_is_grip_header(NULL));
}

static void knows_the_media_type(void **state)
{
    (void)state;
    assert_true(es_is_grip_instruct_type("application/grip-instruct"));
    assert_true(es_is_grip_instruct_type("application/grip-instruct; charset=utf-8"));
    assert_true(es_is_grip_instruct_type("Application/GRIP-Instruct ;x"));
    assert_false(es_is_grip_instruct_type("application/grip-instruct+json"));
    assert_false(es_is_grip_instruct_type("text/html; application/grip-instruct"));
    assert_false(es_is_grip_instruct_type(""));
    assert_false(es_is_grip_instruct_type(NULL));
}

static void decides_which_headers_pass(void **state)
{
    static const char *const framing[] = { "connection",        "Keep-Alive",
                                           "CONTENT-LENGTH",    "Content-Encoding",
                                           "Transfer-Encoding", "Grip-Hold" };
    es_instruct_t *in = es_instruct_new();
    es_detail_t d;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(framing); i++) {
        assert_false(es_instruct_exposes(in, framing[i]));
        assert_false(es_instruct_exposes(NULL, framing[i]));
    }
    assert_true(es_instruct_exposes(in, "Set-Cookie"));
    assert_true(es_instruct_exposes(NULL, "Content-Type"));
    assert_err(es_instruct_add_expose(in, S("X-Seen"), &d), ES_OK, &d);
    assert_err(es_instruct_add_expose(in, S("Connection"), &d), ES_OK, &d);
    assert_true(es_instruct_exposes(in, "x-seen"));
    assert_false(es_instruct_exposes(in, "Set-Cookie"));
    assert_false(es_instruct_exposes(in, "Connection"));
    es_instruct_free(in);
}

static void exposes_up_to_the_cap(void **state)
{
    es_instruct_t *in = es_instruct_new();
    es_detail_t d;
    int i;

    (void)state;
    for (i = 0; i < ES_MAX_HEADERS; i++) {
        assert_err(es_instruct_add_expose(in, S("X"), &d), ES_OK, &d);
    }
    assert_err(es_instruct_add_expose(in, S("X"), &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "Grip-Expose-Headers names over 128 headers");
    assert_int_equal(in->expose_count, ES_MAX_HEADERS);
    assert_err(es_instruct_add_expose(in, S("a b"), &d), ES_EINVAL, &d);
    es_instruct_free(in);
}

static void clamps_timeouts(void **state)
{
    (void)state;
    assert_int_equal(es_clamp_timeout(0, 5), 5);
    assert_int_equal(es_clamp_timeout(6, 5), 6);
    assert_int_equal(es_clamp_timeout(INT64_C(1) << 40, 5), 2147483647);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_with_defaults),
        cmocka_unit_test(counts_channels_over_the_cap),
        cmocka_unit_test(later_news_of_a_channel_count),
        cmocka_unit_test(checks_names_and_ids),
        cmocka_unit_test(clones_everything),
        cmocka_unit_test(knows_grip_headers),
        cmocka_unit_test(knows_the_media_type),
        cmocka_unit_test(decides_which_headers_pass),
        cmocka_unit_test(exposes_up_to_the_cap),
        cmocka_unit_test(clamps_timeouts),
    };
    return cmocka_run_group_tests_name("instruct", tests, NULL, NULL);
}
