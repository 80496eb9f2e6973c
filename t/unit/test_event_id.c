/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/event_id.c. The known ids were computed with Python's zlib and base64. */
#include "es_test.h"
#include "es_sse.h"

static const struct {
    uint64_t instance;
    uint64_t seq;
    const char *id;
} known[] = {
    { 0, 0, "AAAAAAAAAAAAAAAAAAAAAELx5W4" },
    { 0, 1, "AAAAAAAAAAAAAAAAAAAAATX21fg" },
    { UINT64_C(0x0123456789abcdef), 42, "ASNFZ4mrze8AAAAAAAAAKl_8DwI" },
    { UINT64_MAX, UINT64_MAX, "_____________________5H5aCE" },
};

static void known_ids(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(known); i++) {
        char id[ES_EVENT_ID_SIZE];
        uint64_t seq = 7;
        es_detail_t d;
        es_event_id_encode(known[i].instance, known[i].seq, id);
        assert_string_equal(id, known[i].id);
        assert_err(es_event_id_decode(es_str(id), known[i].instance, &seq, &d), ES_OK, &d);
        assert_true(seq == known[i].seq);
        seq = 7;
        assert_err(es_event_id_decode(es_str(id), known[i].instance + 1, &seq, &d), ES_ENOENT, &d);
        assert_true(seq == 7);
        assert_starts(d.text, "the event id '");
        assert_non_null(strstr(d.text, "' is from another history"));
    }
}

/* Any character in any place. */
static void damage_is_found(void **state)
{
    static const uint64_t instance = UINT64_C(0xfedcba9876543210);
    char id[ES_EVENT_ID_SIZE];
    int i, c;

    (void)state;
    es_event_id_encode(instance, 1234567, id);
    for (i = 0; i < ES_EVENT_ID_LEN; i++) {
        char right = id[i];
        for (c = 0; c < 256; c++) {
            uint64_t seq = 7;
            es_str_t text = { id, ES_EVENT_ID_LEN };
            id[i] = (char)c;
            assert_int_equal(es_event_id_decode(text, instance, &seq, NULL),
                             id[i] == right ? ES_OK : ES_EINVAL);
            assert_true((seq == 7) == (id[i] != right));
        }
        id[i] = right;
    }
    for (i = 0; i < ES_EVENT_ID_LEN; i++) {
        uint64_t seq;
        es_str_t text = { id, (size_t)i };
        assert_int_equal(es_event_id_decode(text, instance, &seq, NULL), ES_EINVAL);
    }
    for (i = 0; i + 1 < ES_EVENT_ID_LEN; i++) { /* two neighbours change places */
        uint64_t seq;
        char left = id[i];
        id[i] = id[i + 1];
        id[i + 1] = left;
        assert_int_equal(es_event_id_decode(es_str(id), instance, &seq, NULL),
                         id[i] == left ? ES_OK : ES_EINVAL);
        id[i + 1] = id[i];
        id[i] = left;
    }
}

static void others_are_not_ours(void **state)
{
    static const char *const ids[] = {
        "",
        "1",
        "test:2",
        "one:1,a%20b/c%25d:2",
        "1700000000:3",
        "error",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAELx5W4=",
        " AAAAAAAAAAAAAAAAAAAAAELx5W4",
        "AAAAAAAAAAAAAAAAAAAAAELx5W5", /* the spare bits are not zero */
        "AAAAAAAAAAAAAAAAAAAAAELx5W4AAAAAAAAAAAAAAAAAAAAAELx5W4",
    };
    uint64_t seq = 7;
    es_detail_t d;
    size_t i;

    (void)state;
    for (i = 0; i < ES_COUNT(ids); i++) {
        assert_int_equal(es_event_id_decode(es_str(ids[i]), 0, &seq, &d), ES_EINVAL);
    }
    assert_int_equal(es_event_id_decode(es_str(NULL), 0, &seq, &d), ES_EINVAL);
    assert_int_equal(es_event_id_decode(S("test:\n"), 0, &seq, &d), ES_EINVAL);
    assert_string_equal(d.text,
                        "the event id 'test:?' is not one that this server gave, or it is damaged");
    assert_true(seq == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_ids),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(others_are_not_ours),
    };
    return cmocka_run_group_tests_name("event_id", tests, NULL, NULL);
}
