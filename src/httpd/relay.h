/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay thread's interface to adopt.c; apart from es_httpd.h because it needs OpenSSL.
 */
#ifndef ES_RELAY_H
#define ES_RELAY_H

#include "es_base.h"

#include <openssl/ssl.h>

/* Takes the SSL object and both descriptors, also when it fails. `down` is the client's socket,
 * `up` our end of the pair whose other end the hub has. Any thread. */
es_err_t es_relay_add(SSL *ssl, int down, int up);
bool es_relay_runs(void);

#endif
