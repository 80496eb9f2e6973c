/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/instruct_json.c: application/grip-instruct bodies, on their own and on top of
 * what the headers said, and an error sentence for each way to get one wrong. */
#include "es_test.h"
#include "es_equal.h"
#include "grip_int.h"

static es_instruct_t *parse(const es_instruct_t *base, const char *json, es_response_t **ret)
{
    es_instruct_t *in = NULL;
    es_detail_t d;

    assert_err(es_instruct_from_json(base, json, strlen(json), &in, ret, &d), ES_OK, &d);
    return in;
}

static void refuse(const char *json, es_err_t want, const char *sentence)
{
    es_instruct_t *in = NULL;
    es_response_t *response = NULL;
    es_detail_t d;

    assert_err(es_instruct_from_json(NULL, json, strlen(json), &in, &response, &d), want, &d);
    assert_string_equal(d.text, sentence);
    assert_null(in);
    assert_null(response);
}

static void reads_a_whole_instruct(void **state)
{
    es_response_t *response = NULL;
    es_instruct_t *in =
        parse(NULL,
              "{\"hold\":{\"mode\":\"stream\",\"channels\":[{\"name\":\"a\",\"prev-id\":\"1\","
              "\"filters\":[\"build-id\",\"nonsense\",\"skip-self\"]},{\"name\":\"\\u00f6\"}],"
              "\"timeout\":\"30\",\"keep-alive\":{\"content\":\"ka\\n\\u0000\",\"timeout\":20},"
              "\"meta\":{\"user\":\"u\",\"x\":\"\"}},"
              "\"response\":{\"code\":\"201\",\"reason\":\"Made\",\"headers\":{\"X-A\":\"1\","
              "\"Grip-Hold\":\"x\"},\"body\":\"text\"}}",
              &response);

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_STREAM);
    assert_int_equal(in->channel_count, 2);
    assert_string_equal(in->channels[0].prev_id, "1");
    assert_int_equal(in->channels[0].filter_count, 2);
    assert_int_equal(in->channels[0].filters[0], ES_FILTER_BUILD_ID);
    assert_int_equal(in->channels[0].filters[1], ES_FILTER_SKIP_SELF);
    assert_string_equal(in->channels[1].name, "\xc3\xb6");
    assert_int_equal(in->timeout, 30);
    assert_bytes(in->keep_alive, in->keep_alive_len, "ka\n\0");
    assert_int_equal(in->keep_alive_timeout, 20);
    assert_int_equal(in->keep_alive_mode, ES_KEEP_ALIVE_IDLE);
    assert_int_equal(in->meta.n, 2);
    assert_int_equal(response->code, 201);
    assert_string_equal(response->reason, "Made");
    assert_int_equal(response->headers.n, 1);
    assert_string_equal(response->headers.v[0].name, "X-A");
    assert_bytes(response->body, response->body_len, "text");
    es_response_free(response);
    es_instruct_free(in);
}

static void fills_in_defaults(void **state)
{
    es_response_t *response = NULL;
    es_instruct_t *in = parse(NULL, "{\"hold\":{\"channels\":[]}}", &response);

    (void)state;
    assert_int_equal(in->hold, ES_HOLD_RESPONSE);
    assert_int_equal(in->timeout, 55);
    assert_null(in->keep_alive);
    assert_int_equal(response->code, 200);
    assert_null(response->reason);
    assert_int_equal(response->headers.n, 0);
    assert_bytes(response->body, response->body_len, "");
    es_response_free(response);
    es_instruct_free(in);
    /* null where a member is optional; no hold at all; a response without a body. */
    in = parse(NULL, "{\"hold\":null,\"response\":{\"reason\":null,\"headers\":null}}", &response);
    assert_int_equal(in->hold, ES_HOLD_NONE);
    assert_bytes(response->body, response->body_len, "");
    es_response_free(response);
    es_instruct_free(in);
}

static void reads_bodies(void **state)
{
    es_response_t *response = NULL;
    es_instruct_t *in = parse(NULL,
                              "{\"response\":{\"body\":\"no\",\"body-bin\":\"AP8=\",\"headers\":"
                              "[[\"X-A\",\"1\"],[\"x-a\",\"2\"],[\"grip-x\",\"3\"]],\"code\":404}}",
                              &response);

    (void)state;
    assert_bytes(response->body, response->body_len, "\0\xff");
    assert_int_equal(response->headers.n, 2);
    assert_string_equal(response->headers.v[1].name, "x-a");
    assert_string_equal(response->headers.v[1].value, "2");
    assert_int_equal(response->code, 404);
    es_response_free(response);
    es_instruct_free(in);
}

static void goes_on_top_of_the_headers(void **state)
{
    static const es_header_t headers[] = {
        { "Grip-Hold", "stream" },      { "Grip-Channel", "a;prev-id=1, b" },
        { "Grip-Timeout", "30" },       { "Grip-Keep-Alive", "ka;mode=interval;timeout=9" },
        { "Grip-Set-Meta", "user=u" },  { "Grip-Status", "404 Gone" },
        { "Grip-Expose-Headers", "X" },
    };
    es_instruct_t *base = NULL;
    es_instruct_t *copy = NULL;
    es_instruct_t *in;
    es_detail_t d;

    (void)state;
    assert_err(es_instruct_from_headers(headers, ES_COUNT(headers), &base, &d), ES_OK, &d);
    assert_err(es_instruct_clone(base, &copy), ES_OK, NULL);
    in = parse(base, "{}", NULL);
    assert_true(es_equal_instruct(in, base));
    es_instruct_free(in);

    in = parse(base,
               "{\"hold\":{\"channels\":[{\"name\":\"c\"},{\"name\":\"a\",\"prev-id\":\"2\"}],"
               "\"timeout\":60,\"meta\":{\"x\":\"y\"},\"keep-alive\":{\"content-bin\":\"AP8=\"}},"
               "\"status\":200,\"expose-headers\":[\"Y\",\"Z\"]}",
               NULL);
    assert_int_equal(in->hold, ES_HOLD_RESPONSE);
    assert_int_equal(in->channel_count, 3);
    assert_string_equal(in->channels[0].prev_id, "2");
    assert_string_equal(in->channels[2].name, "c");
    assert_int_equal(in->timeout, 60);
    assert_bytes(in->keep_alive, in->keep_alive_len, "\0\xff");
    assert_int_equal(in->keep_alive_timeout, 55);
    assert_int_equal(in->keep_alive_mode, ES_KEEP_ALIVE_IDLE);
    assert_int_equal(in->meta.n, 1);
    assert_string_equal(in->meta.v[0].name, "x");
    assert_int_equal(in->status, 200);
    assert_null(in->reason);
    assert_int_equal(in->expose_count, 2);
    assert_string_equal(in->expose[0], "Y");
    es_instruct_free(in);
    assert_true(es_equal_instruct(base, copy));
    es_instruct_free(base);
    es_instruct_free(copy);
}

static void keep_alive_modes_and_off(void **state)
{
    es_header_t header = { "Grip-Keep-Alive", "ka;timeout=9" };
    es_instruct_t *base = NULL;
    es_instruct_t *in;
    es_detail_t d;

    (void)state;
    assert_err(es_instruct_from_headers(&header, 1, &base, &d), ES_OK, &d);
    in = parse(base,
               "{\"hold\":{\"channels\":[],\"keep-alive\":{\"content\":\"x\",\"timeout\":0,"
               "\"mode\":\"interval\"}}}",
               NULL);
    assert_int_equal(in->keep_alive_mode, ES_KEEP_ALIVE_INTERVAL);
    assert_int_equal(in->keep_alive_timeout, 1);
    es_instruct_free(in);
    in = parse(base, "{\"hold\":{\"channels\":[],\"keep-alive\":{\"content\":\"\",\"timeout\":3}}}",
               NULL);
    assert_null(in->keep_alive);
    assert_int_equal(in->keep_alive_timeout, 55);
    es_instruct_free(in);
    in = parse(base, "{\"hold\":{\"channels\":[],\"keep-alive\":{}}}", NULL);
    assert_null(in->keep_alive);
    es_instruct_free(in);
    es_instruct_free(base);
}

static void looks_at_the_response_only_when_asked(void **state)
{
    es_instruct_t *in = parse(NULL, "{\"response\":7}", NULL);

    (void)state;
    es_instruct_free(in);
    refuse("{\"response\":7}", ES_EINVAL,
           "instruct contains 'response' with wrong type: found number, accepted object");
}

static void refuses_what_is_no_instruct(void **state)
{
    (void)state;
    refuse("[]", ES_EINVAL, "instruct must be an object, found a list");
    refuse("{\"a\":", ES_EINVAL,
           "failed to parse application/grip-instruct content as JSON: line 1 column 5: "
           "unexpected token near end of file");
    refuse("", ES_EINVAL,
           "failed to parse application/grip-instruct content as JSON: line 1 column 0: '[' or "
           "'{' expected near end of file");
    refuse("{} x", ES_EINVAL,
           "failed to parse application/grip-instruct content as JSON: line 1 column 4: end of "
           "file expected near 'x'");
}

#define HOLD(members)    "{\"hold\":{\"channels\":[]," members "}}"
#define CHANNEL(members) "{\"hold\":{\"channels\":[{\"name\":\"a\"," members "}]}}"

static void refuses_bad_holds(void **state)
{
    (void)state;
    refuse("{\"hold\":[]}", ES_EINVAL,
           "instruct contains 'hold' with wrong type: found list, accepted object");
    refuse("{\"hold\":{}}", ES_EINVAL, "hold does not contain 'channels'");
    refuse("{\"hold\":{\"channels\":null}}", ES_EINVAL,
           "hold contains 'channels' with wrong type: found null, accepted list");
    refuse("{\"hold\":{\"channels\":[true]}}", ES_EINVAL, "channel is not an object");
    refuse("{\"hold\":{\"channels\":[{}]}}", ES_EINVAL, "channel does not contain 'name'");
    refuse("{\"hold\":{\"channels\":[{\"name\":1}]}}", ES_EINVAL,
           "channel contains 'name' with wrong type: found number, accepted string");
    refuse("{\"hold\":{\"channels\":[{\"name\":\"a\\u0000\"}]}}", ES_EINVAL,
           "channel contains 'name' with invalid value: CR, LF and NUL are not accepted");
    refuse(CHANNEL("\"prev-id\":5"), ES_EINVAL,
           "channel contains 'prev-id' with wrong type: found number, accepted string");
    refuse(CHANNEL("\"filters\":{}"), ES_EINVAL,
           "channel contains 'filters' with wrong type: found object, accepted list");
    refuse(CHANNEL("\"filters\":[1]"), ES_EINVAL, "filters contains element with wrong type");
    refuse(CHANNEL("\"filters\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]"), ES_EINVAL,
           "too many filters for channel 'a': 6, at most 5");
    refuse(HOLD("\"mode\":\"STREAM\""), ES_EINVAL,
           "hold contains 'mode' with invalid value 'STREAM': accepted are 'response' and "
           "'stream'");
    refuse(HOLD("\"timeout\":-1"), ES_EINVAL,
           "hold contains 'timeout' with invalid value: accepted is 0 to 2147483647");
    refuse(HOLD("\"timeout\":\"x\""), ES_EINVAL,
           "hold contains 'timeout' with wrong type: found string, accepted a whole number");
    refuse(HOLD("\"timeout\":true"), ES_EINVAL,
           "hold contains 'timeout' with wrong type: found boolean, accepted a whole number");
    refuse(HOLD("\"timeout\":1e300"), ES_EINVAL,
           "hold contains 'timeout' with invalid value: accepted is 0 to 2147483647");
    refuse(HOLD("\"meta\":[]"), ES_EINVAL,
           "hold contains 'meta' with wrong type: found list, accepted object");
    refuse(HOLD("\"meta\":{\"k\":1}"), ES_EINVAL, "'meta' contains 'k' with wrong type");
    refuse(HOLD("\"meta\":{\"k\":\"\\n\"}"), ES_EINVAL,
           "'meta' contains 'k' with CR, LF or NUL in its value");
    refuse(HOLD("\"keep-alive\":\"x\""), ES_EINVAL,
           "hold contains 'keep-alive' with wrong type: found string, accepted object");
    refuse(HOLD("\"keep-alive\":{\"content\":1}"), ES_EINVAL,
           "keep-alive contains 'content' with wrong type: found number, accepted string");
    refuse(HOLD("\"keep-alive\":{\"content\":\"x\",\"mode\":\"on\"}"), ES_EINVAL,
           "keep-alive contains 'mode' with invalid value 'on': accepted are 'idle' and "
           "'interval'");
    refuse(HOLD("\"keep-alive\":{\"content\":\"x\",\"timeout\":-5}"), ES_EINVAL,
           "keep-alive contains 'timeout' with invalid value: accepted is 0 to 2147483647");
    refuse("{\"status\":1000}", ES_EINVAL,
           "instruct contains 'status' with invalid value: accepted is 100 to 999");
    refuse("{\"expose-headers\":[1]}", ES_EINVAL,
           "expose-headers contains element with wrong type");
    refuse("{\"expose-headers\":[\"a b\"]}", ES_EINVAL,
           "Grip-Expose-Headers contains 'a b', which is not a header name");
}

static void refuses_bad_responses(void **state)
{
    (void)state;
    refuse("{\"response\":{\"code\":1000}}", ES_EINVAL,
           "response contains 'code' with invalid value: accepted is 100 to 999");
    refuse("{\"response\":{\"code\":[]}}", ES_EINVAL,
           "response contains 'code' with wrong type: found list, accepted a whole number");
    refuse("{\"response\":{\"reason\":\"a\\r\\nX: y\"}}", ES_EINVAL,
           "response contains 'reason' with invalid value: CR, LF and NUL are not accepted");
    refuse("{\"response\":{\"headers\":3}}", ES_EINVAL,
           "response contains 'headers' with wrong type: found number, accepted object or list of "
           "pairs");
    refuse("{\"response\":{\"headers\":{\"a\":1}}}", ES_EINVAL,
           "headers contains element with wrong type");
    refuse("{\"response\":{\"headers\":[\"a\"]}}", ES_EINVAL,
           "headers contains element with wrong type");
    refuse("{\"response\":{\"headers\":[[\"a\"]]}}", ES_EINVAL,
           "headers contains list with wrong number of elements");
    refuse("{\"response\":{\"headers\":{\"a b\":\"1\"}}}", ES_EINVAL,
           "headers contains invalid name 'a b'");
    refuse("{\"response\":{\"headers\":{\"a\":\"1\\r\\nSet-Cookie: x\"}}}", ES_EINVAL,
           "headers contains 'a' with CR, LF or NUL");
    refuse("{\"response\":{\"body\":[]}}", ES_EINVAL,
           "response contains 'body' with wrong type: found list, accepted string");
}

static void has_caps(void **state)
{
    char *big = es_repeat('x', ES_MAX_INSTRUCT_WIRE + 1);
    char *json = es_repeat(' ', 3 * ES_MAX_KEEP_ALIVE);
    es_instruct_t *in = NULL;
    es_response_t *response = NULL;
    es_detail_t d;
    size_t i, n;

    (void)state;
    memset(big, ' ', ES_MAX_INSTRUCT_WIRE + 1);
    memcpy(big, "{}", 2);
    assert_err(es_instruct_from_json(NULL, big, ES_MAX_INSTRUCT_BODY, &in, &response, &d), ES_OK,
               &d);
    es_instruct_free(in);
    es_response_free(response);
    in = NULL;
    response = NULL;
    assert_err(es_instruct_from_json(NULL, big, ES_MAX_INSTRUCT_BODY + 1, &in, &response, &d),
               ES_ETOOBIG, &d);
    assert_string_equal(d.text,
                        "application/grip-instruct content is 100001 bytes long, at most 100000");
    assert_err(es_instruct_from_json(NULL, big, ES_MAX_INSTRUCT_WIRE + 1, &in, NULL, &d),
               ES_ETOOBIG, &d);
    assert_null(in);
    assert_err(es_instruct_from_json(NULL, big, ES_MAX_INSTRUCT_WIRE, &in, NULL, &d), ES_OK, &d);
    es_instruct_free(in);

    memset(big, 'k', ES_MAX_KEEP_ALIVE + 1);
    snprintf(json, 3 * ES_MAX_KEEP_ALIVE, HOLD("\"keep-alive\":{\"content\":\"%.*s\"}"),
             ES_MAX_KEEP_ALIVE + 1, big);
    refuse(json, ES_ETOOBIG, "keep-alive contains 16385 bytes, at most 16384");
    snprintf(json, 3 * ES_MAX_KEEP_ALIVE, "{\"hold\":{\"channels\":[{\"name\":\"%.*s\"}]}}",
             ES_MAX_CHANNEL_NAME + 1, big);
    refuse(json, ES_ETOOBIG, "channel contains 'name' of 4097 bytes, at most 4096");
    snprintf(json, 3 * ES_MAX_KEEP_ALIVE, CHANNEL("\"prev-id\":\"%.*s\""), ES_MAX_ID + 1, big);
    refuse(json, ES_ETOOBIG, "channel contains 'prev-id' of 4097 bytes, at most 4096");
    n = (size_t)snprintf(json, 3 * ES_MAX_KEEP_ALIVE, "{\"response\":{\"headers\":[");
    for (i = 0; i <= ES_MAX_HEADERS; i++) {
        n += (size_t)snprintf(json + n, 3 * ES_MAX_KEEP_ALIVE - n, "%s[\"X\",\"1\"]",
                              i == 0 ? "" : ",");
    }
    snprintf(json + n, 3 * ES_MAX_KEEP_ALIVE - n, "]}}");
    refuse(json, ES_ETOOBIG, "headers contains over 128 elements");
    n = (size_t)snprintf(json, 3 * ES_MAX_KEEP_ALIVE, "{\"hold\":{\"channels\":[");
    for (i = 0; i < ES_MAX_CHANNELS + 2; i++) {
        n += (size_t)snprintf(json + n, 3 * ES_MAX_KEEP_ALIVE - n, "%s{\"name\":\"c%zu\"}",
                              i == 0 ? "" : ",", i);
    }
    snprintf(json + n, 3 * ES_MAX_KEEP_ALIVE - n, "]}}");
    in = parse(NULL, json, NULL);
    assert_int_equal(in->channel_count, ES_MAX_CHANNELS);
    assert_int_equal(in->channels_over, 2);
    es_instruct_free(in);
    free(json);
    free(big);
}

static void a_failure_leaves_the_base_alone(void **state)
{
    es_header_t header = { "Grip-Channel", "a" };
    es_instruct_t *base = NULL;
    es_instruct_t *copy = NULL;
    es_instruct_t *in = NULL;
    es_detail_t d;
    const char *json = "{\"hold\":{\"channels\":[{\"name\":\"b\"},{\"name\":7}]}}";

    (void)state;
    assert_err(es_instruct_from_headers(&header, 1, &base, &d), ES_OK, &d);
    assert_err(es_instruct_clone(base, &copy), ES_OK, NULL);
    assert_err(es_instruct_from_json(base, json, strlen(json), &in, NULL, &d), ES_EINVAL, &d);
    assert_true(es_equal_instruct(base, copy));
    assert_null(in);
    es_instruct_free(base);
    es_instruct_free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_whole_instruct),
        cmocka_unit_test(fills_in_defaults),
        cmocka_unit_test(reads_bodies),
        cmocka_unit_test(goes_on_top_of_the_headers),
        cmocka_unit_test(keep_alive_modes_and_off),
        cmocka_unit_test(looks_at_the_response_only_when_asked),
        cmocka_unit_test(refuses_what_is_no_instruct),
        cmocka_unit_test(refuses_bad_holds),
        cmocka_unit_test(refuses_bad_responses),
        cmocka_unit_test(has_caps),
        cmocka_unit_test(a_failure_leaves_the_base_alone),
    };
    return cmocka_run_group_tests_name("instruct_json", tests, NULL, NULL);
}
