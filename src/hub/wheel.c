/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hashed timer wheel: 1024 slots of 100 ms, each a ring of timers. Arming and disarming are O(1);
 * a timer further away than one turn stays in its slot until its tick has come. Keep-alives are not
 * re-armed by every delivery: when one fires, its stream looks at its last delivery and arms it
 * anew.
 *
 * One loop's thread owns the wheel and every timer in it.
 */
#include "hub_int.h"

#include <limits.h>

static void unlink_timer(es_timer_t *t)
{
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->prev = NULL;
    t->next = NULL;
}

static void link_before(es_timer_t *t, es_timer_t *head)
{
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
}

void es_wheel_init(es_wheel_t *wheel, uint64_t now_ms)
{
    int i;

    for (i = 0; i < ES_WHEEL_SLOTS; i++) {
        wheel->slots[i].prev = &wheel->slots[i];
        wheel->slots[i].next = &wheel->slots[i];
        wheel->slots[i].due = 0;
    }
    wheel->now = now_ms / ES_WHEEL_TICK;
    wheel->armed = 0;
}

void es_wheel_arm(es_wheel_t *wheel, es_timer_t *timer, uint64_t due_ms)
{
    uint64_t due = (due_ms + ES_WHEEL_TICK - 1) / ES_WHEEL_TICK; /* late, never early */

    es_wheel_disarm(wheel, timer);
    if (due <= wheel->now) {
        due = wheel->now + 1;
    }
    timer->due = due;
    link_before(timer, &wheel->slots[due % ES_WHEEL_SLOTS]);
    wheel->armed++;
}

void es_wheel_arm_by(es_wheel_t *wheel, es_timer_t *timer, uint64_t due_ms)
{
    if (!timer->next || timer->due * ES_WHEEL_TICK > due_ms) {
        es_wheel_arm(wheel, timer, due_ms);
    }
}

void es_wheel_disarm(es_wheel_t *wheel, es_timer_t *timer)
{
    if (timer->next) {
        unlink_timer(timer);
        wheel->armed--;
    }
}

/* Runs one slot. What `fire` arms goes to a later tick, so it is not met again; the slot's timers
 * move to a list of their own first, because `fire` may disarm any of them. */
static void run_slot(es_wheel_t *wheel, es_timer_t *head, void (*fire)(void *, es_timer_t *),
                     void *ctx)
{
    es_timer_t due = { .prev = &due, .next = &due };
    es_timer_t *t, *next;

    for (t = head->next; t != head; t = next) {
        next = t->next;
        if (t->due <= wheel->now) {
            unlink_timer(t);
            link_before(t, &due);
        }
    }
    while (due.next != &due) {
        t = due.next;
        es_wheel_disarm(wheel, t);
        fire(ctx, t);
    }
}

void es_wheel_run(es_wheel_t *wheel, uint64_t now_ms, void (*fire)(void *ctx, es_timer_t *timer),
                  void *ctx)
{
    const uint64_t to = now_ms / ES_WHEEL_TICK;

    if (wheel->armed == 0) {
        wheel->now = to > wheel->now ? to : wheel->now;
        return;
    }
    if (to > wheel->now + ES_WHEEL_SLOTS) { /* the machine slept: one turn meets every slot */
        wheel->now = to - ES_WHEEL_SLOTS;
    }
    while (wheel->now < to) {
        wheel->now++;
        run_slot(wheel, &wheel->slots[wheel->now % ES_WHEEL_SLOTS], fire, ctx);
    }
}

int es_wheel_timeout(const es_wheel_t *wheel, uint64_t now_ms)
{
    const uint64_t next_ms = (wheel->now + 1) * ES_WHEEL_TICK;

    if (wheel->armed == 0) {
        return -1;
    }
    if (next_ms <= now_ms) {
        return 0;
    }
    return next_ms - now_ms > INT_MAX ? INT_MAX : (int)(next_ms - now_ms);
}
