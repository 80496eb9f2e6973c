/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the hub before sends, as es_take_over reads it from a socket: the input is cut into
 * messages, so that most of it gets past their heads. Of each: a byte for the type, a byte for
 * flags (bit 0: a socket comes along, bit 1: `number` is 1), two bytes for the length, the payload.
 * A first byte of the input with bit 0 set: the rest is sent as it is.
 *
 * Checked, besides what the sanitizers see: whatever comes, the hub can be taken down afterwards,
 * and no descriptor is left open.
 */
#include "fuzz.h"

#include "intake_int.h"

#include <apr_general.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

ES_FUZZ_TARGET;

enum { INPUT_MAX = 64 * 1024, MESSAGES_MAX = 64, PATIENCE_MS = 1000 };

static uint64_t clock_of(void *ctx)
{
    (void)ctx;
    return 1000000;
}

static void send_messages(int to, const uint8_t *p, size_t n)
{
    int i, pair[2];

    for (i = 0; i < MESSAGES_MAX && n >= 4; i++) {
        size_t len = (size_t)p[2] << 8 | p[3];

        len = len < n - 4 ? len : n - 4;
        ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        (void)es_wire_send(to, (es_wire_type_t)p[0], p[1] >> 1 & 1,
                           (es_str_t) { (const char *)p + 4, len }, p[1] & 1 ? pair[1] : -1,
                           PATIENCE_MS);
        close(pair[0]);
        close(pair[1]);
        p += 4 + len;
        n -= 4 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool up;
    es_hub_config_t config = { .threads = 2, .max_lag = ES_HUB_LAG_MIN, .now_ms = clock_of };
    es_intake_t intake;
    int pair[2], door[2], probe, i;

    if (!up) {
        up = apr_initialize() == APR_SUCCESS;
        ES_FUZZ_CHECK(up);
    }
    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door) == 0);
    ES_FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    config.door = door[0];
    config.stop = eventfd(0, EFD_CLOEXEC);
    ES_FUZZ_CHECK(es_intake_init(&intake, &config) == ES_OK);
    es_intake_join_loops(&intake, ES_ORDER_HALT); /* as when a hub takes over: no threads yet */
    if (data[0] & 1) {
        ES_FUZZ_CHECK(write(pair[0], data + 1, size - 1) == (ssize_t)size - 1);
    }
    else {
        send_messages(pair[0], data + 1, size - 1);
    }
    ES_FUZZ_CHECK(shutdown(pair[0], SHUT_WR) == 0);
    es_take_over(&intake, pair[1]);
    for (i = 0; i < intake.loop_count && intake.loop_load[i] == 0; i++) {}
    if (i < intake.loop_count) { /* once for an input, however many loops have streams of it */
        es_fuzz_accept();
    }
    ES_FUZZ_CHECK(es_intake_start_loops(&intake) == ES_OK);
    es_intake_destroy(&intake);
    close(pair[0]);
    close(door[0]);
    close(door[1]);
    /* The lowest free number is the first that was taken. */
    probe = dup(config.stop);
    ES_FUZZ_CHECK(probe == door[0]);
    close(probe);
    close(config.stop);
    return 0;
}
