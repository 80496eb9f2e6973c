/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays inputs through a fuzz target without libFuzzer, so that `make check` can do it with any
 * compiler: every file named on the command line, and every file in every directory named there.
 *
 * One TAP line for each argument: `ok N - name (K inputs)`. An argument without inputs fails, and
 * so does a directory of which the parser accepts everything or nothing. A target that finds
 * something aborts, and the input that did it is named on standard error.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE = 4000000 };

static const char *current = "";

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t n;
    int failed = 1;

    if (file == NULL) {
        fprintf(stderr, "# %s: %s\n", path, strerror(errno));
        return 1;
    }
    data = malloc(MAX_FILE);
    if (data == NULL) {
        goto cleanup;
    }
    n = fread(data, 1, MAX_FILE, file);
    if (ferror(file) || n == MAX_FILE) {
        fprintf(stderr, "# %s: cannot be read, or is too long\n", path);
        goto cleanup;
    }
    current = path;
    /* In a block of exactly its size, so that AddressSanitizer sees a read past the end. */
    {
        unsigned char *exact = malloc(n > 0 ? n : 1);
        if (exact == NULL) {
            goto cleanup;
        }
        memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    failed = 0;
cleanup:
    free(data);
    fclose(file);
    return failed;
}

/* Adds to *io_inputs; returns the number of files that could not be read. */
static int replay_directory(const char *path, unsigned long *io_inputs)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    int failed = 0;

    if (dir == NULL) {
        return 1;
    }
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char file[PATH_MAX];
        struct stat info;
        int n = snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof(file) || stat(file, &info) != 0 ||
            !S_ISREG(info.st_mode)) {
            continue;
        }
        failed += replay_file(file);
        (*io_inputs)++;
    }
    closedir(dir);
    return failed;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static int replay(int number, const char *path)
{
    struct stat info;
    unsigned long inputs = 0;
    const char *why = NULL;
    int failed;

    es_fuzz_accepted = 0;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        failed = replay_directory(path, &inputs);
        if (inputs == 0) {
            why = "no inputs";
        }
        else if (es_fuzz_accepted == 0) {
            why = "every input is refused: add one that succeeds";
        }
        else if (es_fuzz_accepted == inputs) {
            why = "every input is accepted: add some that fail";
        }
    }
    else {
        failed = replay_file(path);
        inputs = 1;
    }
    if (failed != 0) {
        why = "some inputs could not be read";
    }
    printf("%s %d - %s (%lu inputs)\n", why == NULL ? "ok" : "not ok", number, last_part(path),
           inputs);
    if (why != NULL) {
        printf("# %s\n", why);
    }
    fflush(stdout);
    return why == NULL ? 0 : 1;
}

/* Only write() is allowed here. */
static void tell_input(int signal_number)
{
    static const char words[] = "# the input that did it: ";
    ssize_t n = write(STDERR_FILENO, words, sizeof(words) - 1);

    n += write(STDERR_FILENO, current, strlen(current));
    n += write(STDERR_FILENO, "\n", 1);
    (void)n;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

int main(int argc, char **argv)
{
    int failed = 0;
    int i;

    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE|DIRECTORY...\n", argv[0]);
        return 2;
    }
    signal(SIGABRT, tell_input);
    printf("1..%d\n", argc - 1);
    for (i = 1; i < argc; i++) {
        failed |= replay(i, argv[i]);
    }
    return failed;
}
