/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs every function of layer 1 that allocates again and again, and lets the first, the second,
 * the third ... allocation fail until none does. Each failure must be reported as ES_ENOMEM, leave
 * the results untouched and leak nothing (the leak check is AddressSanitizer's or valgrind's).
 *
 * One exception: where jansson's lexer runs out of memory it reports a syntax error, so what parses
 * JSON may say ES_EINVAL too.
 *
 * Needs the linker's help: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc. jansson is told to use
 * the same functions, so its allocations fail too; libjwt's own do not.
 */
#include "es_test.h"
#include "es_equal.h"
#include "grip_int.h"
#include "oom_fixture.h"

/* Calls `once` with ever more allocations allowed; returns how many it needed. `also`: what may be
 * said instead of ES_ENOMEM. */
static long torture_but(es_err_t also, es_err_t (*once)(void *), void *arg)
{
    long allowed;
    es_err_t err = ES_ENOMEM;

    for (allowed = 0; err != ES_OK; allowed++) {
        assert_true(allowed < 10000);
        countdown = allowed;
        err = once(arg);
        countdown = -1;
        if (err != ES_OK && err != also) {
            assert_string_equal(es_err_name(err), es_err_name(ES_ENOMEM));
        }
    }
    return allowed - 1;
}

static long torture(es_err_t (*once)(void *), void *arg)
{
    return torture_but(ES_ENOMEM, once, arg);
}

static long torture_json(es_err_t (*once)(void *), void *arg)
{
    return torture_but(ES_EINVAL, once, arg);
}

static const es_header_t headers[] = {
    { "Grip-Hold", "stream" },
    { "Grip-Channel", "a;prev-id=\"1\";filter=build-id, b, a;prev-id=2" },
    { "Grip-Keep-Alive", "x\\n;format=cstring;timeout=\"20\"" },
    { "Grip-Set-Meta", "user=\"u\", x=y, user=v" },
    { "Grip-Status", "404 Not There" },
    { "Grip-Expose-Headers", "X-A, X-B" },
};

static es_err_t from_headers(void *arg)
{
    es_instruct_t *in = NULL;
    es_detail_t d;
    es_err_t err = es_instruct_from_headers(headers, ES_COUNT(headers), &in, &d);

    (void)arg;
    assert_true((err == ES_OK) == (in != NULL));
    if (err == ES_ENOMEM) {
        assert_string_equal(d.text, "out of memory");
    }
    es_instruct_free(in);
    return err;
}

static es_err_t keep_alive(void *arg)
{
    es_header_t header = { "Grip-Keep-Alive", arg };
    es_instruct_t *in = NULL;
    es_err_t err = es_instruct_from_headers(&header, 1, &in, NULL);

    assert_true((err == ES_OK) == (in != NULL));
    es_instruct_free(in);
    return err;
}

static void reading_headers(void **state)
{
    static char raw[] = "x";
    static char base64[] = "AP8=;format=base64";

    (void)state;
    assert_true(torture(from_headers, NULL) > 10);
    assert_true(torture(keep_alive, raw) > 0);
    assert_true(torture(keep_alive, base64) > 0);
}

typedef struct es_json_case {
    const es_instruct_t *base;
    const char *json;
    bool response;
} es_json_case_t;

static es_err_t from_json(void *arg)
{
    const es_json_case_t *c = arg;
    es_instruct_t *in = NULL;
    es_response_t *response = NULL;
    es_detail_t d;
    es_err_t err = es_instruct_from_json(c->base, c->json, strlen(c->json), &in,
                                         c->response ? &response : NULL, &d);

    assert_true((err == ES_OK) == (in != NULL));
    assert_true((err == ES_OK && c->response) == (response != NULL));
    if (err == ES_ENOMEM) {
        assert_string_equal(d.text, "out of memory");
    }
    es_instruct_free(in);
    es_response_free(response);
    return err;
}

static es_err_t to_json(void *arg)
{
    char *json = NULL;
    size_t n = 7;
    es_err_t err = es_instruct_to_json(arg, &json, &n);

    assert_true((err == ES_OK) == (json != NULL));
    assert_true(err == ES_OK || n == 7);
    free(json);
    return err;
}

static void instructs_in_json(void **state)
{
    es_instruct_t *base = NULL;
    es_instruct_t *copy = NULL;
    es_json_case_t c = { NULL,
                         "{\"hold\":{\"channels\":[{\"name\":\"a\",\"prev-id\":\"1\",\"filters\":"
                         "[\"build-id\"]}],\"keep-alive\":{\"content-bin\":\"/w==\"},\"meta\":"
                         "{\"k\":\"v\"}},\"status\":404,\"reason\":\"r\",\"expose-headers\":"
                         "[\"X\"],\"response\":{\"reason\":\"r\",\"headers\":{\"a\":\"b\"},"
                         "\"body\":\"x\"}}",
                         true };

    (void)state;
    assert_int_equal(es_instruct_from_headers(headers, ES_COUNT(headers), &base, NULL), ES_OK);
    assert_int_equal(es_instruct_clone(base, &copy), ES_OK);
    assert_true(torture_json(from_json, &c) > 20);
    c.base = base;
    assert_true(torture_json(from_json, &c) > 30);
    c.response = false;
    assert_true(torture_json(from_json, &c) > 20);
    c.response = true;
    c.base = NULL;
    c.json = "{\"response\":{\"headers\":[[\"a\",\"b\"]]}}";
    torture_json(from_json, &c);
    assert_true(torture(to_json, base) > 10);
    assert_true(es_equal_instruct(base, copy));
    free(base->keep_alive);
    base->keep_alive = es_memdup("\xff", 1);
    base->keep_alive_len = 1;
    assert_true(torture(to_json, base) > 10);
    es_instruct_free(base);
    es_instruct_free(copy);
}

static es_err_t items(void *arg)
{
    static const char body[] =
        "{\"items\":[{\"channel\":\"a\",\"id\":\"1\",\"prev-id\":\"0\",\"meta\":{\"k\":\"v\"},"
        "\"http-stream\":{\"content-bin\":\"AP8=\",\"content-filters\":[\"build-id\"]},"
        "\"http-response\":{\"headers\":{\"a\":\"b\"},\"reason\":\"r\",\"body\":\"x\"},"
        "\"ws-message\":{\"content\":\"x\"}},{\"channel\":\"b\",\"http-stream\":{\"content\":"
        "\"y\"}}]}";
    es_items_t list = { NULL, 7 };
    es_detail_t d;
    es_err_t err = es_items_from_json(body, sizeof(body) - 1, &list, &d);

    (void)arg;
    if (err != ES_OK) {
        assert_null(list.v);
        assert_int_equal(list.n, 7);
        assert_string_equal(d.text, err == ES_ENOMEM ? "out of memory" : "Body is not valid JSON.");
        return err;
    }
    es_items_free(&list);
    return ES_OK;
}

static es_err_t packet(void *arg)
{
    es_item_t *item = NULL;
    es_detail_t d;
    es_err_t err = es_item_from_packet(arg, strlen(arg), &item, &d);

    assert_true((err == ES_OK) == (item != NULL));
    if (err == ES_ENOMEM) {
        assert_string_equal(d.text, "out of memory");
    }
    es_item_free(item);
    return err;
}

static void reading_items(void **state)
{
    static char tnet[] = "T114:7:formats,38:11:http-stream,19:11:content-bin,1:x,}}4:s"
                         "ize,1:5#1:r,3:0.5^6:no-seq,4:true!1:l,4:1:x,]7:channel,1:a,}";
    static char json[] = "J{\"channel\":\"a\",\"http-stream\":{\"content\":\"x\"}}";

    (void)state;
    assert_true(torture_json(items, NULL) > 30);
    assert_true(torture(packet, tnet) > 15);
    assert_true(torture_json(packet, json) > 5);
}

static const char *channel_id(void *ctx, es_str_t name)
{
    (void)name;
    return ctx;
}

static es_err_t render(void *arg)
{
    es_filter_view_t view = { .sub_meta = arg, .channel_id = channel_id, .ctx = "1" };
    es_buf_t out;
    es_err_t err;

    es_buf_init(&out, 1000);
    err = es_filter_render(ES_FILTER_BUILD_ID, &view, S("%I %(text)I %%"), &out, NULL);
    if (err == ES_OK) {
        err = es_filter_render(ES_FILTER_VAR_SUBST, &view, S("%(id_format)s"), &out, NULL);
    }
    es_buf_free(&out);
    return err;
}

static void rendering(void **state)
{
    es_pairs_t meta = { NULL, 0 };

    (void)state;
    assert_int_equal(es_pairs_add(&meta, S("id_format"), S("%(a)s")), ES_OK);
    assert_true(torture(render, &meta) > 2);
    es_pairs_free(&meta);
}

static es_err_t key(void *arg)
{
    es_key_t *k = NULL;
    es_err_t err = es_key_from_text(es_str(arg), &k, NULL);

    assert_true((err == ES_OK) == (k != NULL));
    es_key_free(k);
    return err;
}

static es_err_t sign_and_verify(void *arg)
{
    char *token = NULL;
    es_err_t err = es_token_sign(arg, "iss", 1000, &token);

    assert_true((err == ES_OK) == (token != NULL));
    if (err == ES_OK) {
        err = es_token_verify(arg, "iss", es_str(token), 1000, NULL);
    }
    free(token);
    return err;
}

static void tokens(void **state)
{
    es_key_t *k = NULL;

    (void)state;
    /* Our own allocations alone: libjwt 1.10 does not survive it when jansson's fail. */
    json_set_alloc_funcs(__real_malloc, free);
    assert_int_equal(es_key_from_text(S("changeme"), &k, NULL), ES_OK);
    assert_int_equal(torture(sign_and_verify, k), 2);
    es_key_free(k);
    json_set_alloc_funcs(__wrap_malloc, free);
}

static es_err_t base(void *arg)
{
    es_pairs_t pairs = { NULL, 0 };
    es_buf_t b;
    char *stolen = NULL;
    es_err_t err = ES_OK;
    int i;

    (void)arg;
    es_buf_init(&b, 1000);
    for (i = 0; i < 9 && err == ES_OK; i++) {
        err = es_pairs_add(&pairs, S("n"), S("v"));
    }
    if (err == ES_OK) {
        err = es_buf_addf(&b, "%0100d", 7);
    }
    if (err == ES_OK) {
        err = es_buf_add(&b, "x", 1);
        stolen = es_buf_steal(&b, NULL);
        assert_non_null(stolen);
        free(stolen);
        stolen = es_buf_steal(&b, NULL);
        err = stolen == NULL ? ES_ENOMEM : ES_OK;
        free(stolen);
    }
    es_buf_free(&b);
    es_pairs_free(&pairs);
    return err;
}

static void keys_and_base(void **state)
{
    static char raw[] = "changeme";
    static char base64[] = "base64:AP8=";

    (void)state;
    assert_int_equal(torture(key, raw), 2);
    assert_int_equal(torture(key, base64), 2);
    assert_true(torture(base, NULL) > 20);
}

/* A failed assertion leaves `torture` in the middle. */
static int memory_is_back(void **state)
{
    (void)state;
    countdown = -1;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(reading_headers, memory_is_back),
        cmocka_unit_test_teardown(instructs_in_json, memory_is_back),
        cmocka_unit_test_teardown(reading_items, memory_is_back),
        cmocka_unit_test_teardown(rendering, memory_is_back),
        cmocka_unit_test_teardown(keys_and_base, memory_is_back),
        cmocka_unit_test_teardown(tokens, memory_is_back),
    };

    json_set_alloc_funcs(__wrap_malloc, free);
    return cmocka_run_group_tests_name("grip_oom", tests, NULL, NULL);
}
