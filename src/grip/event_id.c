/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ids of events: instance and number, 8 bytes each with the highest first, and 4 bytes of check,
 * written in the base64 of URLs. 20 bytes make 27 characters with two bits to spare, which are
 * zero: one id has one way to be written.
 *
 * The check is CRC-32 (IEEE 802.3) over the 16 bytes. It starts from a value of its own, so that no
 * other protocol's checked bytes fit by accident; a later form of ids takes another one. It guards
 * against accidents alone: an id grants nothing.
 */
#include "grip_int.h"

#include <string.h>

enum { BODY = 16, RAW = 20 };

static const uint32_t first_crc = 0x45534944; /* "ESID" */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Bit by bit: a table would be a thousand bytes to save 128 steps. */
static uint32_t crc32(const unsigned char *p, size_t n)
{
    uint32_t crc = first_crc;
    size_t i;
    int bit;

    for (i = 0; i < n; i++) {
        crc ^= p[i];
        for (bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? UINT32_C(0xedb88320) : 0);
        }
    }
    return ~crc;
}

static void put(unsigned char *p, uint64_t value, int bytes)
{
    int i;

    for (i = 0; i < bytes; i++) {
        p[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
    }
}

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t value = 0;
    int i;

    for (i = 0; i < bytes; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

void es_event_id_encode(uint64_t instance, uint64_t seq, char ret[ES_EVENT_ID_SIZE])
{
    unsigned char raw[RAW + 1] = { 0 }; /* a multiple of 3 */
    size_t i;

    put(raw, instance, 8);
    put(raw + 8, seq, 8);
    put(raw + BODY, crc32(raw, BODY), 4);
    for (i = 0; i < ES_EVENT_ID_LEN; i++) {
        uint32_t three = (uint32_t)get(raw + i / 4 * 3, 3);
        ret[i] = alphabet[three >> (18 - i % 4 * 6) & 63];
    }
    ret[ES_EVENT_ID_LEN] = '\0';
}

static bool unpack(es_str_t id, unsigned char raw[RAW + 1])
{
    size_t i;

    memset(raw, 0, RAW + 1);
    for (i = 0; i < ES_EVENT_ID_LEN; i++) {
        const char *at = id.p[i] == '\0' ? NULL : strchr(alphabet, id.p[i]);
        uint32_t three;
        if (at == NULL) {
            return false;
        }
        three = (uint32_t)get(raw + i / 4 * 3, 3);
        three |= (uint32_t)(at - alphabet) << (18 - i % 4 * 6);
        put(raw + i / 4 * 3, three, 3);
    }
    return raw[RAW] == 0;
}

es_err_t es_event_id_decode(es_str_t id, uint64_t instance, uint64_t *ret_seq, es_detail_t *detail)
{
    unsigned char raw[RAW + 1];

    if (id.n != ES_EVENT_ID_LEN || !unpack(id, raw) || get(raw + BODY, 4) != crc32(raw, BODY)) {
        return es_fail(detail, ES_EINVAL,
                       "the event id '%.*s' is not one that this server gave, or it is damaged",
                       ES_FOUND(id));
    }
    if (get(raw, 8) != instance) {
        return es_fail(detail, ES_ENOENT, "the event id '%.*s' is from another history",
                       ES_FOUND(id));
    }
    *ret_seq = get(raw + 8, 8);
    return ES_OK;
}
