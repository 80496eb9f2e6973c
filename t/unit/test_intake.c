/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of src/hub/intake.c and tame.c that need no threads: who is let in, on which loop, and how
 * much of it the log is told.
 */
#include "stream_fixture.h"

#include <sys/resource.h>

static es_err_t try_reserve(rig_t *rig, es_stream_t **ret, es_detail_t *detail)
{
    return es_intake_reserve(&rig->intake, fx_hold("raw", "[{\"name\": \"a\"}]", ""), ret, detail);
}

/* How many reservations there may be with that limit of open files. */
static int room_for(rlim_t files, int spare)
{
    struct rlimit before, now;
    rig_t rig;
    es_detail_t detail = { "" };
    es_stream_t *s = NULL, *last = NULL;
    es_err_t err = ES_OK;
    int n;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    rig.config.spare_files = spare;
    now = (struct rlimit) { .rlim_cur = files, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    for (n = 0; n < 1000 && err == ES_OK; n++) {
        err = try_reserve(&rig, &s, &detail);
        last = err == ES_OK ? s : last;
    }
    n--;
    assert_int_equal(err, ES_EFULL);
    assert_non_null(strstr(detail.text, "open files"));
    assert_int_equal(fx_log_count(&rig.log, "ES0308"), 1);
    /* One that ends makes room for one. */
    rig_take(&rig);
    es_stream_loop_end(last, ES_END_RELEASED);
    rig_give_back(&rig);
    assert_int_equal(try_reserve(&rig, &s, &detail), ES_OK);
    assert_int_equal(try_reserve(&rig, &s, &detail), ES_EFULL);
    /* The limit may be raised under a running hub. */
    now.rlim_cur = files + 2;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(try_reserve(&rig, &s, &detail), ES_OK);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    rig_close(&rig);
    return n;
}

static void streams_leave_descriptors_for_others(void **state)
{
    (void)state;
    assert_int_equal(room_for(100, 20), 80);
    assert_int_equal(room_for(100, 50), 50);
    assert_int_equal(room_for(100, 99), 50); /* never more than half of them */
    assert_int_equal(room_for(100, 500), 50);
}

static void a_new_stream_goes_to_the_loop_that_has_the_fewest(void **state)
{
    rig_t rig;
    es_loop_t *loops = calloc(3, sizeof *loops);
    uint32_t load[3] = { 0 };
    es_stream_t *streams[9];
    es_detail_t detail;
    int i, k;

    (void)state;
    assert_non_null(loops);
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    es_registry_free(rig.intake.registry);
    assert_int_equal(es_registry_make(3, &rig.intake.registry), ES_OK);
    rig.intake.loops = loops;
    rig.intake.loop_load = load;
    rig.intake.loop_count = 3;
    rig.intake.running = 3;
    for (i = 0; i < 3; i++) {
        loops[i].number = i;
        assert_int_equal(es_queue_init(&loops[i].queue), ES_OK);
    }
    load[1] = 4;
    for (i = 0; i < 9; i++) {
        assert_int_equal(try_reserve(&rig, &streams[i], &detail), ES_OK);
    }
    assert_int_equal(load[0], 5);
    assert_int_equal(load[1], 4);
    assert_int_equal(load[2], 4);
    /* They come back: every loop is told to free its log. */
    for (i = 0; i < 9; i++) {
        streams[i]->next = i < 8 ? streams[i + 1] : NULL;
    }
    rig.intake.back.first = streams[0];
    es_intake_take_back(&rig.intake);
    assert_int_equal(load[0] + load[1] + load[2], 4);
    for (i = 0; i < 3; i++) {
        es_command_t *v = NULL;
        size_t cap = 0;
        const int n = (int)es_queue_take(&loops[i].queue, &v, &cap);
        int freed = 0;

        for (k = 0; k < n; k++) {
            if (v[k].what == ES_ORDER_FREE) {
                es_channel_free(v[k].channel);
                freed++;
            }
            else {
                assert_int_equal(v[k].what, ES_ORDER_RESERVE);
            }
        }
        assert_int_equal(freed, n > 0);
        free(v);
        es_queue_destroy(&loops[i].queue);
    }
    rig.intake.loops = &rig.loop;
    rig.intake.loop_load = &rig.load;
    rig.intake.loop_count = 1;
    rig.intake.running = 1;
    free(loops);
    rig_close(&rig);
}

/* Hints and formats that are not http-stream reach nobody, and count as accepted. */
static void what_is_not_for_streams_is_dropped(void **state)
{
    static const char *const packets[] = {
        "J{\"channel\": \"a\", \"formats\": {\"http-stream\": {\"action\": \"hint\"}}}",
        "J{\"channel\": \"a\", \"formats\": {\"http-response\": {\"body\": \"x\"}}}",
        "J{\"channel\": \"nobody\", \"formats\": {\"http-stream\": {\"content\": \"x\"}}}",
    };
    rig_t rig;
    int client;
    size_t i;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    client = rig_hold(&rig, rig_reserve(&rig, fx_hold("raw", "[{\"name\": \"a\"}]", "")));
    for (i = 0; i < ES_COUNT(packets); i++) {
        es_item_t *item = NULL;
        es_detail_t detail = { "" };

        assert_err(es_item_from_packet(packets[i], strlen(packets[i]), &item, &detail), ES_OK,
                   &detail);
        es_intake_publish(&rig.intake, item);
    }
    rig_round(&rig);
    assert_silent(client);
    assert_int_equal(rig.intake.published, ES_COUNT(packets));
    assert_int_equal(rig.loop.counters.deliveries, 0);
    rig_close(&rig);
    close(client);
}

static void the_log_is_not_flooded(void **state)
{
    es_tame_t tame = { 0 };
    rig_t rig;
    int i, admitted = 0;

    (void)state;
    rig_open(&rig, ES_HUB_LAG_DEFAULT);
    for (i = 0; i < 25; i++) {
        admitted += es_tame_admits(&rig.intake, &tame);
    }
    assert_int_equal(admitted, 10);
    rig.now_ms += 9999;
    assert_false(es_tame_admits(&rig.intake, &tame));
    assert_int_equal(fx_log_count(&rig.log, "ES0304"), 0);
    rig.now_ms += 1;
    assert_true(es_tame_admits(&rig.intake, &tame));
    assert_int_equal(fx_log_count(&rig.log, "16 more lines"), 1);
    /* A window in which nothing was left out ends without a word. */
    rig.now_ms += 10000;
    assert_true(es_tame_admits(&rig.intake, &tame));
    assert_int_equal(fx_log_count(&rig.log, "ES0304"), 1);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_leave_descriptors_for_others),
        cmocka_unit_test(a_new_stream_goes_to_the_loop_that_has_the_fewest),
        cmocka_unit_test(what_is_not_for_streams_is_dropped),
        cmocka_unit_test(the_log_is_not_flooded),
    };
    return cmocka_run_group_tests_name("intake", tests, fx_apr_up, fx_apr_down);
}
