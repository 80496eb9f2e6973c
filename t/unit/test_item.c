/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/item.c: the bodies that real publishers send, both forms of an item, and
 * Pushpin's sentence for each way to get one wrong. Packets are in test_item_packet.c. */
#include "es_test.h"
#include "grip_int.h"

static es_items_t parse(const char *body)
{
    es_items_t items = { NULL, 0 };
    es_detail_t d;

    assert_err(es_items_from_json(body, strlen(body), &items, &d), ES_OK, &d);
    return items;
}

static void refuse(const char *body, es_err_t want, const char *sentence)
{
    es_items_t items = { NULL, 77 };
    es_detail_t d;

    assert_err(es_items_from_json(body, strlen(body), &items, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_null(items.v);
    assert_int_equal(items.n, 77);
    assert_int_equal(es_items_from_json(body, strlen(body), &items, NULL), want);
}

/* ---- what django-eventstream and pypubcontrol send over HTTP ------------------------------ */

static void reads_an_event_without_storage(void **state)
{
    es_items_t items = parse(
        "{\"items\": [{\"http-stream\": {\"content-filters\": [], \"content\": \"event: "
        "message\\ndata: {\\\"text\\\": \\\"hello 100% w\\\\u00f6rld\\\"}\\n\\n\"}, \"channel\": "
        "\"events-test\"}]}");
    const es_item_t *item = items.v[0];

    (void)state;
    assert_int_equal(items.n, 1);
    assert_bytes(item->channel, item->channel_len, "events-test");
    assert_null(item->id);
    assert_null(item->prev_id);
    assert_int_equal(item->size, -1);
    assert_false(item->no_seq);
    assert_int_equal(item->meta.n, 0);
    assert_true(item->stream.present);
    assert_int_equal(item->stream.action, ES_ACTION_SEND);
    assert_bytes(item->stream.content, item->stream.content_len,
                 "event: message\ndata: {\"text\": \"hello 100% w\\u00f6rld\"}\n\n");
    assert_true(item->stream.has_content_filters);
    assert_int_equal(item->stream.content_filter_count, 0);
    assert_false(item->has_response);
    assert_false(item->has_message);
    es_items_free(&items);
    assert_null(items.v);
    assert_int_equal(items.n, 0);
    es_items_free(&items);
}

static void reads_an_event_with_storage(void **state)
{
    es_items_t items = parse(
        "{\"items\": [{\"id\": \"2\", \"prev-id\": \"1\", \"http-stream\": {\"content-filters\": "
        "[\"build-id\"], \"content\": \"event: upd\\nid: %I\\ndata: \\\"50%% done\\\\n2nd\\\"\\n"
        "\\n\"}, \"channel\": \"myapp-events-test\"}]}");
    const es_item_t *item = items.v[0];

    (void)state;
    assert_string_equal(item->id, "2");
    assert_string_equal(item->prev_id, "1");
    assert_int_equal(item->stream.content_filter_count, 1);
    assert_int_equal(item->stream.content_filters[0], ES_FILTER_BUILD_ID);
    assert_bytes(item->stream.content, item->stream.content_len,
                 "event: upd\nid: %I\ndata: \"50%% done\\n2nd\"\n\n");
    es_items_free(&items);
}

static void reads_a_kick(void **state)
{
    es_items_t items = parse(
        "{\"items\":[{\"id\":\"kick-1\",\"meta\":{\"require_sub\":\"events-_priv\"},\"http-stream\""
        ":{\"content\":\"event: stream-error\\nid: error\\ndata: {'condition': 'forbidden'}\\n\\n\""
        "},\"channel\":\"user-anonymous\"},{\"id\":\"kick-2\",\"prev-id\":\"kick-1\",\"meta\":{"
        "\"require_sub\":\"events-_priv\"},\"http-stream\":{\"action\":\"close\"},\"channel\":"
        "\"user-anonymous\"}]}");

    (void)state;
    assert_int_equal(items.n, 2);
    assert_false(items.v[0]->stream.has_content_filters);
    assert_string_equal(es_pairs_get(&items.v[0]->meta, "require_sub")->value, "events-_priv");
    assert_int_equal(items.v[1]->stream.action, ES_ACTION_CLOSE);
    assert_null(items.v[1]->stream.content);
    assert_string_equal(items.v[1]->prev_id, "kick-1");
    es_items_free(&items);
}

static void reads_the_other_bodies_seen(void **state)
{
    es_items_t items = parse(
        "{\"items\":["
        "{\"meta\":{\"skip_users\":\"1,2\"},\"http-stream\":{\"content-filters\":[],\"content\":"
        "\"x\"},\"channel\":\"events-a%20b/c%25d\"},"
        "{\"http-response\":{\"code\":200,\"reason\":\"OK\",\"headers\":{\"ETag\":\"\\\"v2\\\"\"},"
        "\"body\":\"new\\n\"},\"channel\":\"test-lp\"},"
        "{\"http-response\":{\"body-bin\":\"AP8=\"},\"channel\":\"a\"},"
        "{\"http-stream\":{\"content-bin\":\"AP8=\"},\"channel\":\"a\"},"
        "{\"id\":\"5\",\"prev-id\":\"4\",\"meta\":{\"sender\":\"alice\"},\"http-stream\":{"
        "\"content\":\"s\\n\"},\"http-response\":{\"body\":\"r\"},\"ws-message\":{\"content\":"
        "\"w\"},\"channel\":\"test\"},"
        "{\"ws-message\":{\"content-bin\":\"AQI=\"},\"channel\":\"\"}]}");

    (void)state;
    assert_int_equal(items.n, 6);
    assert_string_equal(items.v[0]->channel, "events-a%20b/c%25d");
    assert_true(items.v[1]->has_response);
    assert_false(items.v[1]->stream.present);
    assert_true(items.v[2]->has_response);
    assert_bytes(items.v[3]->stream.content, items.v[3]->stream.content_len, "\0\xff");
    assert_true(items.v[4]->stream.present && items.v[4]->has_response && items.v[4]->has_message);
    assert_true(items.v[5]->has_message);
    assert_int_equal(items.v[5]->channel_len, 0);
    es_items_free(&items);
}

/* ---- the grammar -------------------------------------------------------------------------- */

#define ITEM(members)     "{\"items\":[{\"channel\":\"a\"," members "}]}"
#define STREAM(members)   ITEM("\"http-stream\":{" members "}")
#define RESPONSE(members) ITEM("\"http-response\":{" members "}")
#define MESSAGE(members)  ITEM("\"ws-message\":{" members "}")

static void reads_the_formats_form(void **state)
{
    es_items_t items =
        parse(ITEM("\"formats\":{\"http-stream\":{\"content\":\"x\",\"content-bin\":\"eQ==\"},"
                   "\"other\":7},\"http-stream\":7,\"id\":null,\"prev-id\":null,\"meta\":null,"
                   "\"size\":\"12\",\"no-seq\":true"));
    const es_item_t *item = items.v[0];

    (void)state;
    assert_bytes(item->stream.content, item->stream.content_len, "y");
    assert_null(item->id);
    assert_int_equal(item->size, 12);
    assert_true(item->no_seq);
    es_items_free(&items);
}

static void formats_that_reach_no_stream_are_fine(void **state)
{
    static const char *const bodies[] = {
        ITEM("\"formats\":{\"other\":{}}"),
        MESSAGE("\"content\":\"x\""),
        RESPONSE("\"body-patch\":[]"),
        RESPONSE("\"action\":\"hint\""),
        MESSAGE("\"action\":\"close\",\"code\":1000,\"reason\":\"r\""),
        MESSAGE("\"type\":\"ping\""),
        MESSAGE("\"type\":\"pong\""),
        MESSAGE("\"type\":\"binary\",\"content\":\"x\""),
        MESSAGE("\"action\":\"refresh\""),
    };
    es_items_t items;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(bodies); i++) {
        items = parse(bodies[i]);
        assert_int_equal(items.n, 1);
        assert_false(items.v[0]->stream.present);
        es_items_free(&items);
    }
    items = parse("{\"items\":[]}");
    assert_int_equal(items.n, 0);
    es_items_free(&items);
}

static void reads_actions(void **state)
{
    static const struct {
        const char *body;
        es_action_t action;
    } cases[] = { { STREAM("\"action\":\"send\",\"content\":\"\""), ES_ACTION_SEND },
                  { STREAM("\"action\":null,\"content\":\"\""), ES_ACTION_SEND },
                  { STREAM("\"action\":\"hint\",\"content\":7"), ES_ACTION_HINT },
                  { STREAM("\"action\":\"close\",\"content-filters\":7"), ES_ACTION_CLOSE },
                  { STREAM("\"action\":\"refresh\""), ES_ACTION_REFRESH } };
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(cases); i++) {
        es_items_t items = parse(cases[i].body);
        assert_int_equal(items.v[0]->stream.action, cases[i].action);
        assert_true(items.v[0]->stream.present);
        if (cases[i].action == ES_ACTION_SEND) {
            assert_bytes(items.v[0]->stream.content, items.v[0]->stream.content_len, "");
        }
        es_items_free(&items);
    }
}

static void reads_content(void **state)
{
    es_items_t items = parse(STREAM("\"content\":\"a\\u0000b\\r\\n\""));

    (void)state;
    assert_bytes(items.v[0]->stream.content, items.v[0]->stream.content_len, "a\0b\r\n");
    es_items_free(&items);
    items = parse(STREAM("\"content-bin\":\" A!P8 \""));
    assert_bytes(items.v[0]->stream.content, items.v[0]->stream.content_len, "\0\xff");
    es_items_free(&items);
    items = parse(STREAM("\"content\":\"x\",\"content-filters\":[\"var-subst\",\"http-modify\"]"));
    assert_int_equal(items.v[0]->stream.content_filter_count, 2);
    assert_int_equal(items.v[0]->stream.content_filters[0], ES_FILTER_VAR_SUBST);
    assert_int_equal(items.v[0]->stream.content_filters[1], ES_FILTER_NONE);
    es_items_free(&items);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void refuses_bad_bodies(void **state)
{
    (void)state;
    refuse("", ES_EINVAL, "Body is not valid JSON.");
    refuse("{", ES_EINVAL, "Body is not valid JSON.");
    refuse("7", ES_EINVAL, "Body is not valid JSON.");
    refuse("\"x\"", ES_EINVAL, "Body is not valid JSON.");
    refuse("null", ES_EINVAL, "Body is not valid JSON.");
    refuse("{\"items\":[]} x", ES_EINVAL, "Body is not valid JSON.");
    refuse("{\"items\":\"\xff\"}", ES_EINVAL, "Body is not valid JSON.");
    refuse("[]", ES_EINVAL, "Invalid format.");
    refuse("{}", ES_EINVAL, "Invalid format: object does not contain 'items'");
    refuse("{\"items\":{}}", ES_EINVAL, "Invalid format: object contains 'items' with wrong type");
    refuse("{\"items\":null}", ES_EINVAL,
           "Invalid format: object contains 'items' with wrong type");
}

static void refuses_bad_items(void **state)
{
    (void)state;
    refuse("{\"items\":[1]}", ES_EINVAL, "Invalid format: publish item object is not an object");
    refuse("{\"items\":[{}]}", ES_EINVAL,
           "Invalid format: publish item object does not contain 'channel'");
    refuse("{\"items\":[{\"channel\":1}]}", ES_EINVAL,
           "Invalid format: publish item object contains 'channel' with wrong type");
    refuse("{\"items\":[{\"channel\":\"a\\n\"}]}", ES_EINVAL,
           "Invalid format: publish item object contains 'channel' with invalid value: CR, LF and "
           "NUL are not accepted");
    refuse("{\"items\":[{\"channel\":\"a\"}]}", ES_EINVAL, "Invalid format: no formats specified");
    refuse(ITEM("\"formats\":{}"), ES_EINVAL, "Invalid format: no formats specified");
    refuse(ITEM("\"formats\":[]"), ES_EINVAL,
           "Invalid format: publish item object contains 'formats' with wrong type");
    refuse(ITEM("\"id\":1"), ES_EINVAL,
           "Invalid format: publish item object contains 'id' with wrong type");
    refuse(ITEM("\"id\":\"a\\u0000\""), ES_EINVAL,
           "Invalid format: publish item object contains 'id' with invalid value: CR, LF and NUL "
           "are not accepted");
    refuse(ITEM("\"prev-id\":[]"), ES_EINVAL,
           "Invalid format: publish item object contains 'prev-id' with wrong type");
    refuse(STREAM("\"content\":\"x\"},\"meta\":{\"k\":1"), ES_EINVAL,
           "Invalid format: 'meta' contains 'k' with wrong type");
    refuse(STREAM("\"content\":\"x\"},\"meta\":[[]],\"z\":{"), ES_EINVAL,
           "Invalid format: publish item object contains 'meta' with wrong type");
    refuse(STREAM("\"content\":\"x\"},\"size\":-1,\"z\":{"), ES_EINVAL,
           "Invalid format: publish item object contains 'size' with invalid value");
    refuse(STREAM("\"content\":\"x\"},\"no-seq\":1,\"z\":{"), ES_EINVAL,
           "Invalid format: publish item object contains 'no-seq' with wrong type");
    refuse(STREAM("\"content\":\"x\"},\"size\":[],\"z\":{"), ES_EINVAL,
           "Invalid format: publish item object contains 'size' with wrong type");
    /* One bad item refuses all. */
    refuse("{\"items\":[{\"channel\":\"a\",\"http-stream\":{\"content\":\"x\"}},{}]}", ES_EINVAL,
           "Invalid format: publish item object does not contain 'channel'");
}

static void refuses_bad_formats(void **state)
{
    (void)state;
    refuse(ITEM("\"http-stream\":1"), ES_EINVAL, "Invalid format: 'http-stream' is not an object");
    refuse(ITEM("\"http-stream\":null"), ES_EINVAL,
           "Invalid format: 'http-stream' is not an object");
    refuse(STREAM(""), ES_EINVAL,
           "Invalid format: 'http-stream' does not contain 'content' or 'content-bin'");
    refuse(STREAM("\"content\":1"), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'content' with wrong type");
    refuse(STREAM("\"content-bin\":1,\"content\":\"x\""), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'content-bin' with wrong type");
    refuse(STREAM("\"action\":\"explode\""), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'action' with unknown value 'explode': accepted "
           "are send, hint, close and refresh");
    refuse(STREAM("\"action\":1"), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'action' with wrong type");
    refuse(STREAM("\"content\":\"\",\"content-filters\":\"build-id\""), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'content-filters' with wrong type");
    refuse(STREAM("\"content\":\"\",\"content-filters\":[1]"), ES_EINVAL,
           "Invalid format: 'http-stream' contains 'content-filters' with wrong type");
    refuse(RESPONSE(""), ES_EINVAL,
           "Invalid format: 'http-response' does not contain 'body', 'body-bin', or 'body-patch'");
    refuse(RESPONSE("\"body-patch\":{}"), ES_EINVAL,
           "Invalid format: 'http-response' contains 'body-patch' with wrong type");
    refuse(RESPONSE("\"body\":\"\",\"code\":1000"), ES_EINVAL,
           "Invalid format: 'http-response' contains 'code' with invalid value");
    refuse(RESPONSE("\"body\":\"\",\"headers\":7"), ES_EINVAL,
           "Invalid format: 'http-response' contains 'headers' with wrong type");
    refuse(RESPONSE("\"body\":\"\",\"headers\":[[\"a\",\"b\",\"c\"]]"), ES_EINVAL,
           "Invalid format: headers contains list with wrong number of elements");
    refuse(RESPONSE("\"action\":\"no\""), ES_EINVAL,
           "Invalid format: 'http-response' contains 'action' with unknown value 'no': accepted "
           "are send, hint, close and refresh");
    refuse(MESSAGE("\"type\":\"text\""), ES_EINVAL,
           "Invalid format: 'ws-message' does not contain 'content' or 'content-bin'");
    refuse(MESSAGE("\"type\":\"txt\",\"content\":\"\""), ES_EINVAL,
           "Invalid format: 'ws-message' contains 'type' with unknown value");
    refuse(MESSAGE("\"action\":\"close\",\"code\":-1"), ES_EINVAL,
           "Invalid format: 'ws-message' contains 'code' with invalid value");
    refuse(MESSAGE("\"action\":\"close\",\"reason\":1"), ES_EINVAL,
           "Invalid format: 'ws-message' contains 'reason' with wrong type");
}

static void has_caps(void **state)
{
    size_t size = ES_MAX_PUBLISH_BODY + 1;
    char *big = es_repeat(' ', size);
    char *name = es_repeat('n', ES_MAX_ID + 1);
    es_items_t items = { NULL, 0 };
    es_detail_t d;

    (void)state;
    memcpy(big, "{\"items\":[]}", 12);
    assert_err(es_items_from_json(big, size, &items, &d), ES_ETOOBIG, &d);
    assert_string_equal(d.text, "Request body too large.");
    assert_err(es_items_from_json(big, size - 1, &items, &d), ES_OK, &d);
    snprintf(big, size, "{\"items\":[{\"channel\":\"%s\"}]}", name);
    refuse(big, ES_ETOOBIG,
           "Invalid format: publish item object contains 'channel' of 4097 bytes, at most 4096");
    snprintf(big, size, ITEM("\"id\":\"%s\""), name);
    refuse(big, ES_ETOOBIG,
           "Invalid format: publish item object contains 'id' of 4097 bytes, at most 4096");
    snprintf(big, size, ITEM("\"prev-id\":\"%s\""), name);
    refuse(big, ES_ETOOBIG,
           "Invalid format: publish item object contains 'prev-id' of 4097 bytes, at most 4096");
    refuse(STREAM("\"content\":\"\",\"content-filters\":[\"\",\"\",\"\",\"\",\"\",\"\"]"),
           ES_ETOOBIG,
           "Invalid format: 'http-stream' contains 'content-filters' with 6 names, at most 5");
    name[ES_MAX_ID] = '\0';
    snprintf(big, size,
             "{\"items\":[{\"channel\":\"%s\",\"id\":\"%s\",\"http-stream\":{\"content\":\"\"}}]}",
             name, name);
    items = parse(big);
    assert_int_equal(items.v[0]->channel_len, ES_MAX_CHANNEL_NAME);
    es_items_free(&items);
    free(big);
    free(name);
}

static void meta_has_caps(void **state)
{
    char *body = es_repeat('\0', 20000);
    size_t n;
    int i;

    (void)state;
    n = (size_t)snprintf(body, 20000, STREAM("\"content\":\"\"},\"meta\":{\"k0\":\"v\""));
    n -= 4; /* reopen the meta object */
    for (i = 1; i <= ES_MAX_META_PAIRS; i++) {
        n += (size_t)snprintf(body + n, 20000 - n, ",\"k%d\":\"v\"", i);
    }
    snprintf(body + n, 20000 - n, "}}]}");
    refuse(body, ES_ETOOBIG, "Invalid format: 'meta' holds over 64 names");
    n = (size_t)snprintf(body, 20000, STREAM("\"content\":\"\"},\"meta\":{\"k\":\""));
    n -= 4;
    memset(body + n, 'v', ES_MAX_META_BYTES);
    snprintf(body + n + ES_MAX_META_BYTES, 20000 - n - ES_MAX_META_BYTES, "\"}}]}");
    refuse(body, ES_ETOOBIG, "Invalid format: 'meta' holds over 16384 bytes of names and values");
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_an_event_without_storage),
        cmocka_unit_test(reads_an_event_with_storage),
        cmocka_unit_test(reads_a_kick),
        cmocka_unit_test(reads_the_other_bodies_seen),
        cmocka_unit_test(reads_the_formats_form),
        cmocka_unit_test(formats_that_reach_no_stream_are_fine),
        cmocka_unit_test(reads_actions),
        cmocka_unit_test(reads_content),
        cmocka_unit_test(refuses_bad_bodies),
        cmocka_unit_test(refuses_bad_items),
        cmocka_unit_test(refuses_bad_formats),
        cmocka_unit_test(has_caps),
        cmocka_unit_test(meta_has_caps),
    };
    return cmocka_run_group_tests_name("item", tests, NULL, NULL);
}
