/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines that anybody outside can cause as often as he likes must not fill the log: of each kind the
 * first ten in ten seconds are written, then one line tells how many were left out. The intake's
 * thread.
 */
#include "intake_int.h"

enum {
    LINES = 10,    /* of one kind in one window */
    WINDOW = 10000 /* milliseconds */
};

bool es_tame_admits(es_intake_t *intake, es_tame_t *tame)
{
    const uint64_t now_ms = es_now(intake->config);

    if (tame->seen == 0 || now_ms - tame->window_ms >= WINDOW) {
        if (tame->seen > LINES) {
            es_log(&intake->config->log, ES_LOG_WARN, "ES0304",
                   "%u more lines of the next kind were left out in %llu s", tame->seen - LINES,
                   (unsigned long long)((now_ms - tame->window_ms) / 1000));
        }
        tame->window_ms = now_ms;
        tame->seen = 0;
    }
    return tame->seen++ < LINES;
}
