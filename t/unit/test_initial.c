/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/initial.c: build-id on the initial body, with what django-eventstream sends. */
#include "es_test.h"
#include "grip_int.h"

static es_instruct_t *instruct(const char *channels, const char *meta)
{
    const es_header_t headers[] = { { "Grip-Hold", "stream" },
                                    { "Grip-Channel", channels },
                                    { "Grip-Set-Meta", meta } };
    es_instruct_t *in = NULL;
    es_detail_t d = { "" };

    assert_err(es_instruct_from_headers(headers, ES_COUNT(headers), &in, &d), ES_OK, &d);
    return in;
}

static void check(const char *channels, const char *meta, es_str_t body, bool filtered,
                  es_str_t want)
{
    es_instruct_t *in = instruct(channels, meta);
    es_detail_t d = { "" };
    es_buf_t b;

    es_buf_init(&b, 10000);
    assert_int_equal(es_buf_add(&b, body.p, body.n), ES_OK);
    assert_int_equal(es_initial_is_filtered(in), filtered);
    assert_err(es_initial_render(in, &b, &d), ES_OK, &d);
    es_check_bytes(b.p, b.n, want, __FILE__, __LINE__);
    es_buf_free(&b);
    es_instruct_free(in);
}

static void unescapes_once(void **state)
{
    (void)state;
    check("events-a; prev-id=2; filter=build-id, events-b; filter=build-id; filter=skip-users",
          "id_format=\"a:%(events-a)s\"", S("data: \"50%% done\"\n\n"), true,
          S("data: \"50% done\"\n\n"));
}

static void knows_the_ids_of_the_channels(void **state)
{
    (void)state;
    check("events-a; prev-id=7; filter=build-id", "id_format=\"a:%(events-a)s\"",
          S("id: %(a:7)I\n"), true, S("id: a:7\n"));
    check("p-events-a; prev-id=7; filter=build-id", "id_format=\"a:%(events-a)s\"", S("100%%\n"),
          true, S("100%\n"));
}

static void leaves_other_bodies_alone(void **state)
{
    (void)state;
    check("a; filter=skip-users, b; filter=var-subst", "user=\"x\"", S("50%% %(user)s"), false,
          S("50%% %(user)s"));
    check("a", "user=\"x\"", S(""), false, S(""));
}

static void fails_without_harm(void **state)
{
    es_instruct_t *in = instruct("a; filter=build-id", "user=\"x\"");
    es_detail_t d = { "" };
    es_buf_t b;

    (void)state;
    es_buf_init(&b, 100);
    assert_int_equal(es_buf_add(&b, "50%%", 4), ES_OK);
    assert_int_equal(es_initial_render(in, &b, &d), ES_EINVAL);
    assert_non_null(strstr(d.text, "id_format"));
    assert_bytes(b.p, b.n, "50%%");
    es_buf_free(&b);
    es_instruct_free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(unescapes_once),
                                        cmocka_unit_test(knows_the_ids_of_the_channels),
                                        cmocka_unit_test(leaves_other_bodies_alone),
                                        cmocka_unit_test(fails_without_harm) };
    return cmocka_run_group_tests_name("initial", tests, NULL, NULL);
}
