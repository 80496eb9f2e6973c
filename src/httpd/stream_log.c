/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EventStreamLog: a line for each stream, when it has ended.
 *
 *   203.0.113.7 - - [23/Nov/2026:21:10:45 +0000] "GET /events/ HTTP/1.1" 200 5120 "host" "agent"
 *
 * - What stands before the number of bytes (5120) and what stands behind it the child makes, when
 *   it reserves the stream: one string, with a line feed in place of the number. Everything from
 *   outside is escaped, so there is no other line feed.
 * - The hub keeps that string with the stream, and writes the line (hub/end.c). It stays below
 *   PIPE_BUF, so that a pipe takes it whole: long parts are cut.
 *
 * The parent opens the log for each configuration anew, before privileges are dropped, so after a
 * graceful restart the hub writes to the file that has the name then.
 */
#include "es_httpd.h"

#include "apr_portable.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { /* bytes, after escaping */
       REQUEST_MAX = 2048,
       AGENT_MAX = 1024,
       HOST_MAX = 256,
       USER_MAX = 128
};

static int log_fd; /* of this configuration; 0: none */

/* A log that blocks must not block the hub. A pipe or terminal that was opened for us alone may be
 * set so: the flag belongs to what open() or pipe() made, and nobody but the hub writes to that. */
static void do_not_block(int fd)
{
    struct stat st;
    const int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
}

static apr_file_t *open_file(apr_pool_t *p, server_rec *s, const char *name)
{
    const char *path = ap_server_root_relative(p, name);
    apr_file_t *file = NULL;
    apr_status_t rv = apr_file_open(
        &file, path, APR_FOPEN_WRITE | APR_FOPEN_APPEND | APR_FOPEN_CREATE | APR_FOPEN_LARGEFILE,
        APR_OS_DEFAULT, p);

    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rv, s,
                     ESLOGNO(0091) "EventStreamLog: cannot open %s for writing", path);
        return NULL;
    }
    return file;
}

static apr_file_t *open_pipe(apr_pool_t *p, server_rec *s, const char *command)
{
    piped_log *pipe = ap_open_piped_log(p, command);

    if (!pipe) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s,
                     ESLOGNO(0092) "EventStreamLog: cannot start the command '%s'", command);
        return NULL;
    }
    return ap_piped_log_write_fd(pipe);
}

int es_stream_log_open(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    const char *name = es_server_conf(s)->stream_log;
    apr_file_t *file;
    apr_os_file_t fd;

    (void)plog;
    (void)ptemp;
    log_fd = 0;
    if (!name || ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK;
    }
    file = name[0] == '|' ? open_pipe(pconf, s, name + 1) : open_file(pconf, s, name);
    if (!file || apr_os_file_get(&fd, file) != APR_SUCCESS) {
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    do_not_block(fd);
    log_fd = fd;
    return OK;
}

int es_stream_log_fd(void)
{
    return log_fd;
}

/* Escaped as httpd's own logs do it, and cut between two characters where it is too long. */
static const char *escape(apr_pool_t *p, const char *text, apr_size_t max)
{
    char *out = text && *text ? ap_escape_logitem(p, text) : apr_pstrdup(p, "-");
    apr_size_t i = 0;

    while (out[i] != '\0') {
        const apr_size_t n = out[i] != '\\' ? 1 : out[i + 1] == 'x' ? 4 : 2;

        if (i + n > max) {
            return apr_pstrcat(p, apr_pstrmemdup(p, out, i), "...", NULL);
        }
        i += n;
    }
    return out;
}

/* A blank in a user's name would shift the columns. */
static const char *user(request_rec *r)
{
    char *name = r->user ? apr_pstrdup(r->pool, r->user) : NULL;
    char *p;

    for (p = name; p && *p; p++) {
        *p = *p == ' ' ? '+' : *p;
    }
    return escape(r->pool, name, USER_MAX);
}

/* As %r of mod_log_config has it: a password in an absolute URI is left out. */
static const char *request_line(request_rec *r)
{
    const char *line = r->the_request;

    if (r->parsed_uri.password) {
        line = apr_pstrcat(r->pool, r->method, " ", apr_uri_unparse(r->pool, &r->parsed_uri, 0),
                           r->assbackwards ? NULL : " ", r->protocol, NULL);
    }
    return escape(r->pool, line, REQUEST_MAX);
}

/* As %t of mod_log_config has it. */
static const char *start_time(request_rec *r)
{
    apr_time_exp_t t;
    int minutes;

    apr_time_exp_lt(&t, r->request_time);
    minutes = t.tm_gmtoff / 60;
    return apr_psprintf(r->pool, "[%02d/%s/%d:%02d:%02d:%02d %c%.2d%.2d]", t.tm_mday,
                        apr_month_snames[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec,
                        minutes < 0 ? '-' : '+', abs(minutes) / 60, abs(minutes) % 60);
}

char *es_stream_log_facts(request_rec *r)
{
    apr_pool_t *p = r->pool;

    if (!es_server_conf(r->server)->stream_log) {
        return NULL;
    }
    return apr_psprintf(p, "%s - %s %s \"%s\" %d\n\"%s\" \"%s\"", r->useragent_ip, user(r),
                        start_time(r), request_line(r), r->status,
                        escape(p, r->server->server_hostname, HOST_MAX),
                        escape(p, apr_table_get(r->headers_in, "User-Agent"), AGENT_MAX));
}
