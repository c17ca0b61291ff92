/* A disk that fails once, between a process and its C library.
 *
 * Preloaded into the daemon by `it/io_error.rs`. It counts the syncs and the writes of files below one directory, lets
 * the n-th of them fail with EIO, and all others do what they should, so that whoever tries a failed sync again is told
 * that all is well. That is what Linux does: it reports a failed write-back once and then takes the pages for clean
 * (https://lwn.net/Articles/752063/). And it does what may happen to such pages next: what was written to the file since
 * its last good sync is as it was before, so that whatever was acknowledged on the strength of it is gone.
 *
 *   FAILING_DISK_BELOW  the directory
 *   FAILING_DISK_CALL   `sync` or `write`
 *   FAILING_DISK_NTH    which one fails, counted from 1; or
 *   FAILING_DISK_SINCE  a file: the first one fails after it is there
 *   FAILING_DISK_TALLY  where a line is added for every call: `sync ok PATH`, `write failed PATH`
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct unsynced {
    struct unsynced *next;
    dev_t dev;
    ino_t ino;
    off_t offset;
    size_t length;
    char before[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct unsynced *newest;
static long calls;

typedef int sync_call(int);
typedef ssize_t write_call(int, const void *, size_t, off_t);

static int is_ours(int fd, char *path) {
    const char *below = getenv("FAILING_DISK_BELOW");
    if (below == NULL)
        return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static void note(const char *call, const char *result, const char *path) {
    const char *tally = getenv("FAILING_DISK_TALLY");
    int fd = tally == NULL ? -1 : open(tally, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    dprintf(fd, "%s %s %s\n", call, result, path);
    close(fd);
}

/* Whether this call is the one that fails. */
static int fails(const char *call) {
    static int has_failed;
    const char *which = getenv("FAILING_DISK_CALL"), *nth = getenv("FAILING_DISK_NTH");
    const char *since = getenv("FAILING_DISK_SINCE");
    if (has_failed || which == NULL || strcmp(which, call) != 0)
        return 0;
    calls += 1;
    has_failed = (nth != NULL && calls == atol(nth)) || (since != NULL && access(since, F_OK) == 0);
    return has_failed;
}

/* Forgets what is unsynced of a file; undoes it first, newest first, if it is lost. */
static void settle(int fd, int is_lost) {
    struct stat file;
    write_call *next = (write_call *)dlsym(RTLD_NEXT, "pwrite64");
    if (fstat(fd, &file) != 0)
        return;
    for (struct unsynced **at = &newest; *at != NULL;) {
        struct unsynced *one = *at;
        if (one->dev != file.st_dev || one->ino != file.st_ino) {
            at = &one->next;
            continue;
        }
        if (is_lost && next(fd, one->before, one->length, one->offset) < 0)
            abort();
        *at = one->next;
        free(one);
    }
}

static void remember(int fd, size_t length, off_t offset) {
    struct stat file;
    struct unsynced *one = calloc(1, sizeof *one + length);
    if (one == NULL || fstat(fd, &file) != 0)
        abort();
    one->dev = file.st_dev;
    one->ino = file.st_ino;
    one->offset = offset;
    one->length = length;
    /* What the file does not have yet was zeros. */
    if (pread(fd, one->before, length, offset) < 0)
        abort();
    one->next = newest;
    newest = one;
}

static int do_sync(const char *name, int fd) {
    char path[PATH_MAX];
    sync_call *next = (sync_call *)dlsym(RTLD_NEXT, name);
    if (!is_ours(fd, path))
        return next(fd);
    pthread_mutex_lock(&lock);
    int is_failure = fails("sync");
    int result = is_failure ? -1 : next(fd);
    settle(fd, is_failure);
    note("sync", result == 0 ? "ok" : "failed", path);
    pthread_mutex_unlock(&lock);
    if (is_failure)
        errno = EIO;
    return result;
}

int fsync(int fd) {
    return do_sync("fsync", fd);
}

int fdatasync(int fd) {
    return do_sync("fdatasync", fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    char path[PATH_MAX];
    write_call *next = (write_call *)dlsym(RTLD_NEXT, "pwrite64");
    if (!is_ours(fd, path))
        return next(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    remember(fd, length, offset);
    int is_failure = fails("write");
    /* A write that fails may have written any part. */
    ssize_t result = next(fd, bytes, is_failure ? length / 2 : length, offset);
    note("write", is_failure || result < 0 ? "failed" : "ok", path);
    pthread_mutex_unlock(&lock);
    if (is_failure) {
        errno = EIO;
        return -1;
    }
    return result;
}
