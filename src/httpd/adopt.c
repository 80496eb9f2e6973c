/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adopt: a TLS connection of mod_ssl's whose SSL object and socket go to the relay thread of this
 * child.
 *
 * - pre_connection, before mod_ssl's: a cleanup on the connection's pool, to run after its own.
 * - pre_handshake: mod_ssl tells its SSL object.
 * - es_adopt: the hub gets one end of a socketpair; the socket is duplicated, the SSL object
 *   referenced. The connection is marked aborted, so httpd takes it apart and sends nothing more.
 * - the cleanup: nothing of httpd is left that could touch the SSL object. It is taken off
 *   mod_ssl's BIOs and callbacks, which point into memory that is gone, and handed to the relay.
 */
#include "es_httpd.h"
#include "relay.h"

#include "http_connection.h"
#include "http_ssl.h"
#include "apr_optional_hooks.h"
#include "apr_portable.h"
#include "mod_ssl.h"
#include "mod_ssl_openssl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* What we know of a connection; in its pool. */
typedef struct adoptable {
    SSL *ssl; /* mod_ssl's; ours too once `taken` */
    bool taken;
    bool closed; /* the client's close_notify was read before: it will not come again */
    BIO *bio;    /* on `down`: made early, so that nothing can fail where nobody could be told */
    int down, up;
} adoptable_t;

static adoptable_t *adoptable(conn_rec *c)
{
    return ap_get_module_config(c->conn_config, &eventstream_module);
}

static void no_info(const SSL *ssl, int where, int ret)
{
    /* In place of mod_ssl's, which looks for the connection that is gone. */
    (void)ssl;
    (void)where;
    (void)ret;
}

/* The connection's pool is going, mod_ssl has cleaned up after itself. */
static apr_status_t after_connection(void *data)
{
    adoptable_t *a = data;

    if (!a->taken) {
        return APR_SUCCESS;
    }
    SSL_set_app_data(a->ssl, NULL);
    SSL_set_info_callback(a->ssl, no_info);
    SSL_set_bio(a->ssl, a->bio, a->bio);
    SSL_set_shutdown(a->ssl, a->closed ? SSL_RECEIVED_SHUTDOWN : 0);
    SSL_set_options(a->ssl, SSL_OP_NO_RENEGOTIATION);
    SSL_set_mode(a->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                             SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)es_relay_add(a->ssl, a->down, a->up); /* it logs nothing: the client reconnects */
    return APR_SUCCESS;
}

static int pre_connection(conn_rec *c, void *csd)
{
    (void)csd;
    if (!c->master) {
        adoptable_t *a = apr_pcalloc(c->pool, sizeof *a);

        ap_set_module_config(c->conn_config, &eventstream_module, a);
        apr_pool_cleanup_register(c->pool, a, after_connection, apr_pool_cleanup_null);
    }
    return DECLINED;
}

static int pre_handshake(conn_rec *c, SSL *ssl, int is_proxy)
{
    adoptable_t *a = is_proxy || c->master ? NULL : adoptable(c);

    if (a) {
        a->ssl = ssl;
    }
    return OK;
}

/* What has the client sent since its request? ES_OK: nothing. ES_EAGAIN: bytes, which would be lost
 * with httpd's buffers. ES_ENOENT: its end; close_notify may come without the end of the
 * connection, and is seen once. */
static es_err_t look_at_input(request_rec *r, SSL *ssl)
{
    conn_rec *c = r->connection;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, c->bucket_alloc);
    apr_status_t rv =
        ap_get_brigade(c->input_filters, bb, AP_MODE_SPECULATIVE, APR_NONBLOCK_READ, 1);
    const bool some = rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(bb);

    apr_brigade_cleanup(bb);
    if ((rv != APR_SUCCESS && !APR_STATUS_IS_EAGAIN(rv)) ||
        (SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN)) {
        return ES_ENOENT;
    }
    return some || SSL_has_pending(ssl) ? ES_EAGAIN : ES_OK;
}

bool es_adopt_possible(request_rec *r)
{
    conn_rec *c = r->connection;
    adoptable_t *a = c->master ? NULL : adoptable(c);

    return a && a->ssl && es_relay_runs() && ap_ssl_conn_is_ssl(c) && ap_get_conn_socket(c);
}

/* A duplicate of the client's socket, and a BIO on it. */
static bool take_socket(request_rec *r, adoptable_t *a)
{
    apr_os_sock_t fd = -1;

    if (apr_os_sock_get(&fd, ap_get_conn_socket(r->connection)) != APR_SUCCESS) {
        return false;
    }
    a->down = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (a->down < 0) {
        return false;
    }
    a->bio = BIO_new_socket(a->down, BIO_NOCLOSE);
    if (!a->bio) {
        close(a->down);
        errno = ENOMEM;
        return false;
    }
    return true;
}

es_err_t es_adopt(request_rec *r, es_hublink_t *link)
{
    adoptable_t *a = adoptable(r->connection);
    int pair[2];
    es_err_t err = look_at_input(r, a->ssl);

    if (err != ES_OK) {
        return err;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        return ES_EIO;
    }
    err = take_socket(r, a) ? es_hublink_tell(link, ES_WIRE_HOLD, pair[0]) : ES_EIO;
    close(pair[0]);
    if (err != ES_OK) {
        close(pair[1]);
        if (a->bio) {
            BIO_free(a->bio);
            close(a->down);
        }
        return err;
    }
    es_peer_watch(a->down, es_send_timeout_ms(r->server));
    SSL_up_ref(a->ssl);
    a->closed = (SSL_get_shutdown(a->ssl) & SSL_RECEIVED_SHUTDOWN) != 0; /* while we looked */
    a->up = pair[1];
    a->taken = true;
    return ES_OK;
}

void es_adopt_register_hooks(void)
{
    /* First, so that our cleanup is registered before mod_ssl's and runs after it. */
    ap_hook_pre_connection(pre_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
    APR_OPTIONAL_HOOK(ssl, pre_handshake, pre_handshake, NULL, NULL, APR_HOOK_MIDDLE);
}
