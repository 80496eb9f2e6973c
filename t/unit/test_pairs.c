/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/grip/pairs.c. */
#include "es_test.h"
#include "es_grip.h"

static void keeps_order_and_bytes(void **state)
{
    es_pairs_t pairs = { NULL, 0 };
    char name[16];
    size_t i;

    (void)state;
    for (i = 0; i < 100; i++) {
        es_str_t n = { name, (size_t)snprintf(name, sizeof(name), "n%zu", i) };
        assert_int_equal(es_pairs_add(&pairs, n, S("a\0b")), ES_OK);
    }
    assert_int_equal(pairs.n, 100);
    for (i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "n%zu", i);
        assert_string_equal(pairs.v[i].name, name);
        assert_bytes(pairs.v[i].value, pairs.v[i].value_len, "a\0b");
    }
    es_pairs_free(&pairs);
    assert_int_equal(pairs.n, 0);
    assert_null(pairs.v);
}

static void finds_the_first_of_a_name(void **state)
{
    es_pairs_t pairs = { NULL, 0 };

    (void)state;
    assert_null(es_pairs_get(&pairs, "a"));
    es_pairs_add(&pairs, S("a"), S("1"));
    es_pairs_add(&pairs, S("b"), S(""));
    es_pairs_add(&pairs, S("a"), S("2"));
    assert_string_equal(es_pairs_get(&pairs, "a")->value, "1");
    assert_int_equal(es_pairs_get(&pairs, "b")->value_len, 0);
    assert_null(es_pairs_get(&pairs, "A"));
    es_pairs_free(&pairs);
    /* An emptied list can be filled again. */
    es_pairs_add(&pairs, S("c"), S("3"));
    assert_string_equal(es_pairs_get(&pairs, "c")->value, "3");
    es_pairs_free(&pairs);
    es_pairs_free(&pairs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_and_bytes),
        cmocka_unit_test(finds_the_first_of_a_name),
    };
    return cmocka_run_group_tests_name("pairs", tests, NULL, NULL);
}
