/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history store's directory: made if missing, locked, and rid of files that cannot be used.
 *
 * The lock is an open file description lock on history.lock: it holds against every other process,
 * and against this one; the kernel drops it when its holder dies. The file holds three numbers: the
 * process that has the store open, 0 when it was closed properly (else there was a crash, and the
 * next open looks for damage longer); and how far the store's numbers had come, which tells when an
 * older copy was put in its place. That is written after the store has it on disk, so it is never
 * ahead of it.
 *
 * Called with the store for itself, by open and close.
 */
#include "store_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEPT_ASIDE = 3, DOUBT = '!' };

static es_err_t file_fail(es_detail_t *detail, const char *what, const char *path, const char *hint)
{
    const int e = errno;
    const es_err_t err = e == ENOSPC || e == EDQUOT ? ES_EFULL : e == ENOMEM ? ES_ENOMEM : ES_EIO;

    return es_fail(detail, err, "%s %s: %s%s", what, path, strerror(e),
                   e == EACCES || e == EPERM ? hint : "");
}

static es_err_t make_directory(const char *dir, es_detail_t *detail)
{
    struct stat st;

    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return file_fail(detail, "cannot make the directory", dir,
                         " (make it, owned by the server's User)");
    }
    if (stat(dir, &st) != 0) {
        return file_fail(detail, "cannot look at", dir, "");
    }
    if (!S_ISDIR(st.st_mode)) {
        return es_fail(detail, ES_EIO, "%s is not a directory", dir);
    }
    if (access(dir, R_OK | W_OK | X_OK) != 0) {
        return file_fail(detail, "cannot write to the directory", dir,
                         " (it has to belong to the server's User)");
    }
    return ES_OK;
}

/* What the lock file holds; a new one is empty. */
static long lock_holder(int fd, uint64_t ret_noted[2], bool *ret_doubted)
{
    char text[80], *at;
    long holder;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);

    if (n <= 0) {
        n = 0;
    }
    text[n] = '\0';
    holder = strtol(text, &at, 10);
    ret_noted[0] = strtoull(at, &at, 10);
    ret_noted[1] = strtoull(at, &at, 10);
    *ret_doubted = *at == DOUBT;
    return holder;
}

/* Always as long as it was, so that a crash leaves no half of it. */
static bool write_note(const es_store_t *s, long holder, uint64_t reserved, uint64_t newest,
                       char end)
{
    char text[80];
    int n = snprintf(text, sizeof text, "%010ld %020llu %020llu%c\n", holder,
                     (unsigned long long)reserved, (unsigned long long)newest, end);

    return pwrite(s->lock_fd, text, (size_t)n, 0) == n;
}

void es_store_note(const es_store_t *s)
{
    if (!write_note(s, (long)getpid(), s->reserved, s->newest, ' ')) {
        es_log(&s->config.log, ES_LOG_DEBUG, "ES0369", "history: the lock file cannot be written");
    }
}

es_err_t es_store_enter(es_store_t *s, bool *ret_clean, es_detail_t *detail)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char path[PATH_MAX];
    es_err_t err = make_directory(s->config.dir, detail);
    int n;

    if (err != ES_OK) {
        return err;
    }
    n = snprintf(path, sizeof path, "%s/" ES_STORE_LOCK, s->config.dir);
    if (n < 0 || (size_t)n >= sizeof path) {
        return es_fail(detail, ES_EINVAL, "the directory's name has over %d bytes", PATH_MAX - 64);
    }
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0) {
        return file_fail(detail, "cannot open", path, " (it has to belong to the server's User)");
    }
    if (fcntl(s->lock_fd, F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES) {
            return file_fail(detail, "cannot lock", path, "");
        }
        return es_fail(detail, ES_EAGAIN, "%s is in use by process %ld", s->config.dir,
                       lock_holder(s->lock_fd, s->noted, &s->doubted));
    }
    *ret_clean = lock_holder(s->lock_fd, s->noted, &s->doubted) == 0;
    if (!write_note(s, (long)getpid(), s->noted[0], s->noted[1], s->doubted ? DOUBT : ' ')) {
        return file_fail(detail, "cannot write to", path, "");
    }
    return ES_OK;
}

void es_store_doubt(const es_store_t *s)
{
    (void)write_note(s, (long)getpid(), s->reserved, s->newest, DOUBT);
}

void es_store_leave(es_store_t *s, bool clean)
{
    if (s->lock_fd < 0) {
        return;
    }
    if (clean && !write_note(s, 0, s->reserved, s->newest, ' ')) {
        es_log(&s->config.log, ES_LOG_DEBUG, "ES0360", "history: the lock file cannot be written");
    }
    close(s->lock_fd);
    s->lock_fd = -1;
}

void es_store_sync_dir(const es_store_t *s)
{
    int fd = open(s->config.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        /* Not every file system can; the file itself is synced in any case. */
        (void)fsync(fd);
        close(fd);
    }
}

static int is_aside(const struct dirent *entry)
{
    static const char start[] = ES_STORE_FILE ".damaged-";

    return strncmp(entry->d_name, start, sizeof start - 1) == 0;
}

/* A disk that goes on damaging files must not be filled with them. Their names sort by time, but
 * for those of one second; so the one that was just moved is left out. */
static void remove_older(const es_store_t *s, const char *newest)
{
    struct dirent **found = NULL;
    int n = scandir(s->config.dir, &found, is_aside, alphasort);
    int i, left = n;

    for (i = 0; i < n; i++) {
        char path[PATH_MAX];
        int len = snprintf(path, sizeof path, "%s/%s", s->config.dir, found[i]->d_name);

        if (left > KEPT_ASIDE && len > 0 && (size_t)len < sizeof path &&
            strcmp(path, newest) != 0 && unlink(path) == 0) {
            left--;
            es_log(&s->config.log, ES_LOG_NOTICE, "ES0361", "history: removed the older %s", path);
        }
        free(found[i]);
    }
    free(found);
}

es_err_t es_store_aside(es_store_t *s, const char *why, es_detail_t *detail)
{
    const time_t now = (time_t)(s->config.wall_ms(s->config.clock_ctx) / 1000);
    char path[PATH_MAX], stamp[32];
    struct stat st;
    struct tm tm;
    int i, n;

    if (gmtime_r(&now, &tm) == NULL || strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm) == 0) {
        snprintf(stamp, sizeof stamp, "%lld", (long long)now);
    }
    for (i = 0;; i++) {
        n = snprintf(path, sizeof path, "%s.damaged-%s%s%.0d", s->file, stamp, i == 0 ? "" : "-",
                     i);
        if (n < 0 || (size_t)n >= sizeof path || i == 1000) {
            return es_fail(detail, ES_EIO, "no name is left to move %s to", s->file);
        }
        if (lstat(path, &st) != 0) {
            break;
        }
    }
    if (rename(s->file, path) != 0) {
        return file_fail(detail, "cannot move aside the damaged", s->file, "");
    }
    es_log(&s->config.log, ES_LOG_ERR, "ES0362",
           "history: %s cannot be used: %s. It was moved to %s and a new history is begun", s->file,
           why, path);
    remove_older(s, path);
    return ES_OK;
}
