/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 100 000 channels: what opening and appending cost must not grow with them. Costs are counted in
 * pages that are written and bytes that are allocated, which no other load on the machine changes;
 * the times are printed for whoever is curious.
 */
#include "store_fixture.h"

#include <malloc.h>
#include <time.h>

/* The sanitizer's, if it is there; its header is not everywhere. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

enum { CHANNELS = 100000, BATCH = 2000 };

static size_t heap(void)
{
    return __sanitizer_get_current_allocated_bytes != NULL
               ? __sanitizer_get_current_allocated_bytes()
               : mallinfo2().uordblks;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void add_channels(sx_t *x, int from, int n)
{
    static char names[BATCH][24];
    static es_store_item_t items[BATCH];
    uint64_t first;
    es_detail_t d;
    int i;

    for (; n > 0; from += BATCH, n -= BATCH) {
        first = sx_take(x, BATCH);
        for (i = 0; i < BATCH; i++) {
            snprintf(names[i], sizeof names[i], "channel-%d", from + i);
            items[i] = (es_store_item_t) { first + (unsigned)i, es_str(names[i]), x->now_ms,
                                           S("an item of some length, as they are") };
        }
        assert_err(es_store_append(x->store, items, BATCH, &d), ES_OK, &d);
    }
}

/* Bytes that this process has given to write() and its like. */
static long written(void)
{
    FILE *f = fopen("/proc/self/io", "r");
    char line[128];
    long n = -1;

    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "wchar: ", 7) == 0) {
            n = strtol(line + 7, NULL, 10);
        }
    }
    fclose(f);
    assert_true(n >= 0);
    return n;
}

/* Bytes that one append of one record has this process write. LMDB writes its list of free pages
 * too, which is long after a large batch, so the average of many. */
static long bytes_of_append(sx_t *x, const char *name)
{
    const long before = written();
    int i;

    for (i = 0; i < 50; i++) {
        sx_add(x, name, "x");
    }
    return (written() - before) / 50;
}

static void costs_do_not_grow_with_channels(void **state)
{
    sx_t *x = sx_make();
    long few, many;
    size_t heap_few, heap_many, heap_before;
    double t, opened, appended;
    es_store_info_t info;

    (void)state;
    x->config.max_bytes = 200 * 1024 * 1024;
    x->config.check_ms = 1; /* otherwise the look at all of the file is most of it */
    x->config.max_age_ms = 1000;
    sx_open(x);
    add_channels(x, 0, BATCH);
    few = bytes_of_append(x, "channel-77");
    sx_close(x);
    heap_before = heap();
    sx_open(x);
    heap_few = heap() - heap_before;
    t = now();
    add_channels(x, BATCH, CHANNELS - BATCH);
    t = now() - t;
    many = bytes_of_append(x, "channel-77777");
    assert_int_equal(sx_info(x).channels, CHANNELS);
    sx_close(x);
    heap_before = heap();
    opened = now();
    sx_open(x);
    opened = now() - opened;
    heap_many = heap() - heap_before;
    appended = now();
    sx_add(x, "channel-4711", "x");
    appended = now() - appended;
    print_message(
        "%d channels: %.1f us a record in batches of %d, one append %.2f ms and %ld kB "
        "written (%d channels: %ld kB), open %.1f ms, heap of an open store %zu kB (%zu)\n",
        CHANNELS, t * 1000 / (CHANNELS - BATCH), BATCH, appended, many / 1024, BATCH, few / 1024,
        opened, heap_many / 1024, heap_few / 1024);
    assert_true(few >= 4096);
    assert_true(many < 10 * few); /* there are 50 times as many channels */
    assert_true(heap_many <= heap_few + 65536);
    /* They become empty, and vanish. */
    x->now_ms += 5000;
    t = now();
    sx_prune(x, 5000);
    print_message("all pruned: %.1f us a record\n", (now() - t) * 1000 / CHANNELS);
    info = sx_info(x);
    assert_int_equal(info.records, 0);
    assert_int_equal(info.channels, 0);
    sx_consistent(x);
    sx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(costs_do_not_grow_with_channels) };

    return cmocka_run_group_tests_name("store_many", tests, NULL, NULL);
}
