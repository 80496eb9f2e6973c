/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history store's hash of channel names: SipHash-2-4, keyed with random bytes of the store, so
 * that publishers cannot choose names that share a hash. No state; any thread.
 */
#include "store_int.h"

static uint64_t rotate(uint64_t v, int n)
{
    return v << n | v >> (64 - n);
}

static void sip_rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

uint64_t es_store_hash(const uint64_t key[2], es_str_t name)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                      key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
    size_t at = 0, i;

    for (;;) {
        size_t left = name.n - at;
        uint64_t word = left < 8 ? (uint64_t)(name.n & 0xff) << 56 : 0;

        for (i = 0; i < 8 && i < left; i++) {
            word |= (uint64_t)(unsigned char)name.p[at + i] << (8 * i);
        }
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
        if (left < 8) {
            break;
        }
        at += 8;
    }
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
