/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Native event streams over a whole hub without a history: what a message is for them (event.c),
 * ids and answers (events.c), and that a hand-over keeps both.
 */
#include "events_fixture.h"

static void events_are_rendered_with_our_id(void **state)
{
    fx_hub_t hub;
    char id[3][ES_EVENT_ID_SIZE], want[512];
    int link, events, plain;

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    link = fx_link(&hub);
    events = ev_subscribe(link, "a", "", NULL);
    plain = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    ev_publish(link, "a", "event: message\ndata: 1\nid: theirs\n\n", "", id[0]);
    ev_publish(link, "a", "two\nlines", "", id[1]);
    /* For a subscriber with build-id alone: undone. For one with another filter: no event. */
    ev_publish_filtered(link, "a", "data: 100%%\\nid: %I\\n\\n", "[\"build-id\"]", id[2]);
    ev_publish_filtered(link, "a", "data: %(user)s\\n\\n", "[\"var-subst\"]", NULL);
    snprintf(want, sizeof want,
             "event: message\nid: %s\ndata: 1\n\n"
             "id: %s\ndata: two\ndata: lines\n\n"
             "id: %s\ndata: 100%%\n\n",
             id[0], id[1], id[2]);
    fx_check_next(events, es_str(want), __FILE__, __LINE__);
    assert_next(plain, "event: message\ndata: 1\nid: theirs\n\ntwo\nlines");
    assert_int_equal(fx_publish_close(link, "a"), ES_OK);
    assert_end(events);
    assert_end(plain);
    close(events);
    close(plain);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void chunks_frame_events(void **state)
{
    fx_hub_t hub;
    char id[ES_EVENT_ID_SIZE], want[256];
    int link, client;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    client = ev_subscribe_as(link, "chunked", "[{\"name\": \"a\"}]", "", NULL);
    ev_publish(link, "a", "x", "", id);
    snprintf(want, sizeof want, "%zx\r\nid: %s\ndata: x\n\n\r\n", 4 + strlen(id) + 1 + 9, id);
    fx_check_next(client, es_str(want), __FILE__, __LINE__);
    close(client);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* Ids rise, and the newest one is told at the reservation and means that nothing was missed. */
static void a_reservation_tells_the_newest_id(void **state)
{
    fx_hub_t hub;
    char id[2][ES_EVENT_ID_SIZE], from[128];
    ev_reserved_t told;
    int link;

    (void)state;
    fx_hub_start(&hub, 1, LAG, NULL, 0);
    link = fx_link(&hub);
    ev_publish(link, "nobody", "x", "", id[0]);
    ev_publish(link, "nobody", "x", "", id[1]);
    assert_string_not_equal(id[0], id[1]);
    close(ev_subscribe(link, "a", "", &told));
    assert_string_equal(told.id, id[1]);
    assert_false(told.reset);
    snprintf(from, sizeof from, ", \"from\": {\"id\": \"%s\"}", id[1]);
    close(ev_subscribe(link, "a", from, &told));
    assert_false(told.reset);
    snprintf(from, sizeof from, ", \"from\": {\"id\": \"%s\"}", id[0]);
    close(ev_subscribe(link, "a", from, &told));
    assert_true(told.reset);
    close(ev_subscribe(link, "a", ", \"from\": {\"id\": \"theirs\"}", &told));
    assert_true(told.reset);
    close(ev_subscribe(link, "a", ", \"from\": {\"earliest\": true}", &told));
    assert_false(told.reset);
    close(ev_subscribe(link, "a", ", \"from\": {\"last\": 5}", &told));
    assert_false(told.reset);
    close(link);
    fx_hub_stop(&hub, 0);
}

static void publishers_and_info_get_answers(void **state)
{
    fx_hub_t hub;
    char *text = NULL;
    int link, client[2];
    json_t *root;

    (void)state;
    fx_hub_start(&hub, 2, LAG, NULL, 0);
    link = fx_link(&hub);
    client[0] = ev_subscribe(link, "a", "", NULL);
    client[1] = fx_subscribe(link, "raw", "[{\"name\": \"a\"}]", "");
    assert_int_equal(
        fx_ask(link, ES_WIRE_PUBLISH,
               S("{\"items\": [{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"content\": "
                 "\"x\"}}}, {\"channel\": \"b\", \"formats\": {\"http-stream\": {\"content\": "
                 "\"x\"}}}, {\"channel\": \"b\", \"formats\": {\"http-stream\": {\"action\": "
                 "\"hint\"}}}]}"),
               &text),
        ES_OK);
    root = json_loads(text, 0, NULL);
    free(text);
    assert_int_equal(json_array_size(json_object_get(root, "ids")), 3);
    assert_true(json_is_string(json_array_get(json_object_get(root, "ids"), 1)));
    assert_true(json_is_null(json_array_get(json_object_get(root, "ids"), 2)));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "receivers"), 0)), 2);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "receivers"), 1)), 0);
    json_decref(root);
    assert_int_equal(fx_ask(link, ES_WIRE_INFO, S("{\"channel\": \"a\"}"), &text), ES_OK);
    assert_string_equal(text, "{\"receivers\": 2, \"id\": null, \"stored\": 0, \"oldest\": null}");
    free(text);
    assert_int_equal(fx_ask(link, ES_WIRE_INFO, S("{\"channel\": 7}"), &text), ES_EINVAL);
    assert_string_equal(text, "'channel' is missing or no text");
    free(text);
    close(client[0]);
    close(client[1]);
    close(link);
    fx_hub_stop(&hub, 0);
}

/* A reader that is behind when the hubs change gets the ids that were told; they go on after it. */
static void ids_live_through_a_hand_over(void **state)
{
    enum { N = 300 };
    static char content[1001], id[N + 1][ES_EVENT_ID_SIZE];
    fx_hub_t a, b;
    char want[1200], from[128];
    ev_reserved_t told;
    int link, client, i;

    (void)state;
    fx_hub_start(&a, 1, LAG, NULL, 0);
    link = fx_link(&a);
    ev_reserve(link, "raw", "[{\"name\": \"a\"}]", "", NULL);
    client = fx_small_client(link);
    for (i = 0; i < N; i++) {
        number_text(content, "a", i);
        ev_publish(link, "a", content, "", id[i]);
    }
    fx_hub_next(&b, &a, 2, LAG);
    fx_hub_join(&a, FX_NOT_COUNTED);
    number_text(content, "a", N);
    ev_publish(link, "a", content, "", id[N]);
    for (i = 0; i <= N; i++) {
        number_text(content, "a", i);
        snprintf(want, sizeof want, "id: %.27s\ndata: %.1001s\n", id[i], content);
        fx_check_next(client, es_str(want), __FILE__, __LINE__);
    }
    snprintf(from, sizeof from, ", \"from\": {\"id\": \"%s\"}", id[N]);
    close(ev_subscribe(link, "a", from, &told));
    assert_false(told.reset);
    close(client);
    close(link);
    fx_hub_stop(&b, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_rendered_with_our_id),
        cmocka_unit_test(chunks_frame_events),
        cmocka_unit_test(a_reservation_tells_the_newest_id),
        cmocka_unit_test(publishers_and_info_get_answers),
        cmocka_unit_test(ids_live_through_a_hand_over),
    };

    return cmocka_run_group_tests_name("events", tests, fx_apr_up, fx_apr_down);
}
