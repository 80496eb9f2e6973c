/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Detach: the socket of a plain HTTP/1.x connection moves to the hub. httpd closes its own copy of
 * the descriptor and forgets the connection; no thread, no MPM slot and no memory of httpd stays
 * with it.
 */
#include "es_httpd.h"

#include "http_connection.h"
#include "http_ssl.h"
#include "apr_portable.h"

bool es_detach_possible(request_rec *r)
{
    conn_rec *c = r->connection;

    return !c->master && !ap_ssl_conn_is_ssl(c) && ap_get_conn_socket(c);
}

es_err_t es_detach(request_rec *r, es_hublink_t *link)
{
    apr_os_sock_t fd = -1;

    if (apr_os_sock_get(&fd, ap_get_conn_socket(r->connection)) != APR_SUCCESS) {
        return ES_EIO;
    }
    return es_hublink_tell(link, ES_WIRE_HOLD, fd);
}
