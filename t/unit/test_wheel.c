/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/hub/wheel.c, with a clock that the test turns. */
#include "es_test.h"
#include "hub_int.h"

#include <limits.h>

enum { TURN = ES_WHEEL_SLOTS * ES_WHEEL_TICK };

typedef struct fired {
    es_wheel_t *wheel;
    es_timer_t *timer[64];
    size_t n;
    es_timer_t *disarm; /* by the first that fires */
    uint64_t again_ms;  /* each that fires is armed again for then; 0: not */
} fired_t;

static void on_fire(void *ctx, es_timer_t *timer)
{
    fired_t *f = ctx;

    assert_null(timer->next);
    assert_null(timer->prev);
    assert_true(f->n < ES_COUNT(f->timer));
    f->timer[f->n++] = timer;
    if (f->disarm) {
        es_wheel_disarm(f->wheel, f->disarm);
        f->disarm = NULL;
    }
    if (f->again_ms > 0) {
        es_wheel_arm(f->wheel, timer, f->again_ms);
    }
}

static size_t run(es_wheel_t *wheel, uint64_t now_ms)
{
    fired_t f = { .wheel = wheel };

    es_wheel_run(wheel, now_ms, on_fire, &f);
    return f.n;
}

/* Whatever the start and the distance: not a millisecond early, at most one tick late. */
static void fires_late_by_a_tick_at_most(void **state)
{
    static const uint64_t starts[] = { 0, 1, 99, 100, 12345, TURN - 1, TURN, (uint64_t)1 << 40 };
    static const uint64_t waits[] = {
        0, 1, 99, 100, 101, 1000, TURN - 1, TURN + 1, TURN, TURN * 3, 55 * 1000u * 60
    };
    es_wheel_t wheel;
    size_t i, k;

    (void)state;
    for (i = 0; i < ES_COUNT(starts); i++) {
        for (k = 0; k < ES_COUNT(waits); k++) {
            es_timer_t timer = { 0 };
            uint64_t now = starts[i];
            const uint64_t due = now + waits[k];

            es_wheel_init(&wheel, now);
            es_wheel_arm(&wheel, &timer, due);
            assert_int_equal(wheel.armed, 1);
            /* As a loop does: wait as long as the wheel says, then run it. */
            while (wheel.armed > 0) {
                const int wait = es_wheel_timeout(&wheel, now);

                assert_in_range(wait, 1, ES_WHEEL_TICK);
                now += (uint64_t)wait;
                assert_int_equal(run(&wheel, now - 1), 0);
                if (run(&wheel, now) > 0) {
                    assert_in_range(now, due, due + ES_WHEEL_TICK);
                }
                assert_true(now <= due + ES_WHEEL_TICK);
            }
            assert_int_equal(es_wheel_timeout(&wheel, now), -1);
        }
    }
}

static void keeps_rounds_apart(void **state)
{
    es_wheel_t wheel;
    es_timer_t near = { 0 }, far = { 0 };

    (void)state;
    es_wheel_init(&wheel, 0);
    /* The same slot, one turn apart. */
    es_wheel_arm(&wheel, &far, 500 + TURN);
    es_wheel_arm(&wheel, &near, 500);
    assert_int_equal(run(&wheel, 500), 1);
    assert_null(near.next);
    assert_non_null(far.next);
    assert_int_equal(run(&wheel, 400 + TURN), 0);
    assert_int_equal(run(&wheel, 500 + TURN), 1);
    assert_null(far.next);
}

static void meets_every_timer_after_a_long_sleep(void **state)
{
    es_wheel_t wheel;
    es_timer_t timers[50];
    size_t i, n = 0;

    (void)state;
    memset(timers, 0, sizeof timers);
    es_wheel_init(&wheel, 0);
    for (i = 0; i < ES_COUNT(timers); i++) {
        es_wheel_arm(&wheel, &timers[i], (i + 1) * 7777);
    }
    for (i = 0; i < ES_COUNT(timers); i++) {
        n += timers[i].due * ES_WHEEL_TICK > 200000;
    }
    assert_int_equal(run(&wheel, 200000), ES_COUNT(timers) - n);
    assert_int_equal(wheel.armed, n);
    assert_int_equal(run(&wheel, (uint64_t)TURN * 1000), n);
    assert_int_equal(wheel.armed, 0);
}

static void a_clock_that_stands_or_goes_back_fires_nothing(void **state)
{
    es_wheel_t wheel;
    es_timer_t timer = { 0 };

    (void)state;
    es_wheel_init(&wheel, 10000);
    es_wheel_arm(&wheel, &timer, 10500);
    assert_int_equal(run(&wheel, 10000), 0);
    assert_int_equal(run(&wheel, 5000), 0);
    assert_int_equal(run(&wheel, 0), 0);
    assert_int_equal(es_wheel_timeout(&wheel, 0), 10100);
    assert_int_equal(run(&wheel, 10499), 0);
    assert_int_equal(run(&wheel, 10500), 1);
    /* With nothing armed the wheel does not go back either. */
    assert_int_equal(run(&wheel, 0), 0);
    es_wheel_arm(&wheel, &timer, 10);
    assert_int_equal(run(&wheel, 10599), 0);
    assert_int_equal(run(&wheel, 10600), 1);
}

static void what_is_overdue_fires_at_the_next_tick(void **state)
{
    es_wheel_t wheel;
    es_timer_t timer = { 0 };

    (void)state;
    es_wheel_init(&wheel, 100000);
    es_wheel_arm(&wheel, &timer, 3);
    assert_int_equal(run(&wheel, 100099), 0);
    assert_int_equal(run(&wheel, 100100), 1);
}

/* A loop sleeps without a time-out while nothing is armed: the wheel has not been run for hours
 * when the next timer comes. */
static void arms_after_a_long_idle_time(void **state)
{
    const uint64_t later = (uint64_t)TURN * 50 + 4321;
    es_wheel_t wheel;
    es_timer_t timer = { 0 };

    (void)state;
    es_wheel_init(&wheel, 0);
    es_wheel_arm(&wheel, &timer, later + 20000);
    assert_int_equal(run(&wheel, later), 0);
    assert_int_equal(run(&wheel, later + 19999), 0);
    assert_int_equal(run(&wheel, later + 20000 + ES_WHEEL_TICK), 1);
}

static void rearms_and_disarms(void **state)
{
    es_wheel_t wheel;
    es_timer_t a = { 0 }, b = { 0 };

    (void)state;
    es_wheel_init(&wheel, 0);
    es_wheel_disarm(&wheel, &a);
    assert_int_equal(wheel.armed, 0);
    es_wheel_arm(&wheel, &a, 1000);
    es_wheel_arm(&wheel, &b, 1000);
    es_wheel_arm(&wheel, &a, 2000);
    assert_int_equal(wheel.armed, 2);
    assert_int_equal(run(&wheel, 1000), 1);
    assert_null(b.next);
    es_wheel_disarm(&wheel, &a);
    es_wheel_disarm(&wheel, &a);
    assert_int_equal(wheel.armed, 0);
    assert_int_equal(run(&wheel, 3000), 0);
}

static void one_that_fires_may_disarm_another_of_its_slot(void **state)
{
    es_wheel_t wheel;
    es_timer_t a = { 0 }, b = { 0 }, c = { 0 };
    fired_t f = { .wheel = &wheel, .disarm = &b };

    (void)state;
    es_wheel_init(&wheel, 0);
    es_wheel_arm(&wheel, &a, 1000);
    es_wheel_arm(&wheel, &b, 1000);
    es_wheel_arm(&wheel, &c, 1000);
    es_wheel_run(&wheel, 1000, on_fire, &f);
    assert_int_equal(f.n, 2);
    assert_ptr_equal(f.timer[0], &a);
    assert_ptr_equal(f.timer[1], &c);
    assert_int_equal(wheel.armed, 0);
}

static void one_that_fires_may_arm_itself(void **state)
{
    es_wheel_t wheel;
    es_timer_t a = { 0 };
    fired_t f = { .wheel = &wheel, .again_ms = 1 };
    fired_t g = { .wheel = &wheel, .again_ms = 1000 + TURN };

    (void)state;
    es_wheel_init(&wheel, 0);
    es_wheel_arm(&wheel, &a, 1000);
    /* Overdue again at once, but never twice in one tick. */
    es_wheel_run(&wheel, 1000, on_fire, &f);
    assert_int_equal(f.n, 1);
    es_wheel_run(&wheel, 1500, on_fire, &f);
    assert_int_equal(f.n, 6);
    /* Into the slot that is being run, for the next turn. */
    es_wheel_arm(&wheel, &a, 2000);
    g.again_ms = 2000 + TURN;
    es_wheel_run(&wheel, 2000, on_fire, &g);
    assert_int_equal(g.n, 1);
    assert_int_equal(wheel.armed, 1);
    assert_int_equal(run(&wheel, 2000 + TURN - 1), 0);
    assert_int_equal(run(&wheel, 2000 + TURN), 1);
}

static void the_timeout_is_that_of_the_next_tick(void **state)
{
    es_wheel_t wheel;
    es_timer_t a = { 0 };

    (void)state;
    es_wheel_init(&wheel, 1050);
    assert_int_equal(es_wheel_timeout(&wheel, 1050), -1);
    es_wheel_arm(&wheel, &a, 99999);
    assert_int_equal(es_wheel_timeout(&wheel, 1050), 50);
    assert_int_equal(es_wheel_timeout(&wheel, 1099), 1);
    assert_int_equal(es_wheel_timeout(&wheel, 1100), 0);
    assert_int_equal(es_wheel_timeout(&wheel, 999999), 0);
    es_wheel_disarm(&wheel, &a);
    es_wheel_init(&wheel, (uint64_t)1 << 50);
    es_wheel_arm(&wheel, &a, ((uint64_t)1 << 50) + 1000);
    assert_int_equal(es_wheel_timeout(&wheel, 0), INT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_late_by_a_tick_at_most),
        cmocka_unit_test(keeps_rounds_apart),
        cmocka_unit_test(meets_every_timer_after_a_long_sleep),
        cmocka_unit_test(a_clock_that_stands_or_goes_back_fires_nothing),
        cmocka_unit_test(what_is_overdue_fires_at_the_next_tick),
        cmocka_unit_test(arms_after_a_long_idle_time),
        cmocka_unit_test(rearms_and_disarms),
        cmocka_unit_test(one_that_fires_may_disarm_another_of_its_slot),
        cmocka_unit_test(one_that_fires_may_arm_itself),
        cmocka_unit_test(the_timeout_is_that_of_the_next_tick),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
