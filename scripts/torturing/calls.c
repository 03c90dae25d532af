/* Preloaded into a process: calls that change files under one folder are recorded in a log, or fail when told to.
 *
 * Built and bound by calls.py. What is written through mmap is not seen: in a store that is the index of its log alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A static pointer to the function that this one stands before. */
#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* -- which files */

static int under_root(const char *path) {
    return root_length && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    if (!root_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return under_root(path);
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

/* -- recording: one record a call that succeeded, in the order in which they were made */

struct record {
    uint32_t kind, first, second, unused;
    uint64_t inode, offset, size;
};

static int log_fd = -1;

static void put(const void *data, size_t size) {
    REAL(write);
    for (const char *at = data; size;) {
        ssize_t done = real(log_fd, at, size);
        if (done <= 0) abort(); /* a log with a gap would be worse than none */
        at += done;
        size -= done;
    }
}

static void note(char kind, uint64_t inode, const char *first, const char *second, uint64_t offset, const void *data,
                 uint64_t size) {
    struct record record = {kind, first ? strlen(first) : 0, second ? strlen(second) : 0, 0, inode, offset, size};
    if (log_fd < 0) return;
    put(&record, sizeof record);
    if (first) put(first, record.first);
    if (second) put(second, record.second);
    if (data) put(data, size);
}

/* -- failing */

static char failing[256];
static long first_failing, last_failing, counted, fired;
static int failing_error, shortened;

/* Whether a call of a kind is to fail; `ours` is asked only where that kind may. */
static int refused(const char *kind, int ours) {
    if (!*failing || !ours || !strstr(failing, kind)) return 0;
    long number = __sync_add_and_fetch(&counted, 1);
    if (number < first_failing || number > last_failing) return 0;
    __sync_add_and_fetch(&fired, 1);
    errno = failing_error;
    return 1;
}

/* A write that is to be cut short writes its first half; those that follow fail. */
static int is_short(size_t size) { return shortened && size > 1 && __sync_bool_compare_and_swap(&shortened, 1, 0); }

/* -- what Python calls */

void calls_under(const char *folder) {
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
}

int calls_record(const char *log) {
    REAL(open);
    log_fd = real(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    return log_fd;
}

void calls_note(const char *text) {
    pthread_mutex_lock(&turn);
    note('A', 0, text, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
}

void calls_fail(const char *kinds, long first, long last, int error, int half) {
    *failing = 0;
    first_failing = first, last_failing = last, failing_error = error, shortened = half;
    counted = fired = 0;
    snprintf(failing, sizeof failing, "%s", kinds);
}

void calls_lift(void) { *failing = 0; }
long calls_counted(void) { return counted; }
long calls_fired(void) { return fired; }

/* -- calls on open files */

#define WRITES(name, arguments, pass, place)                                                                           \
    ssize_t name arguments {                                                                                           \
        REAL(name);                                                                                                    \
        if (!is_ours(fd)) return real pass;                                                                            \
        if (refused("write,", 1)) {                                                                                    \
            if (!is_short(size)) return -1;                                                                            \
            size /= 2;                                                                                                 \
        }                                                                                                              \
        pthread_mutex_lock(&turn);                                                                                     \
        uint64_t at = place;                                                                                           \
        ssize_t done = real pass;                                                                                      \
        int error = errno;                                                                                             \
        if (done > 0) note('W', inode_of(fd), NULL, NULL, at, data, done);                                             \
        pthread_mutex_unlock(&turn);                                                                                   \
        errno = error;                                                                                                 \
        return done;                                                                                                   \
    }

static uint64_t position(int fd) {
    struct stat found;
    return fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &found) ? found.st_size : lseek(fd, 0, SEEK_CUR);
}

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), position(fd))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset), offset)
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset), offset)

#define READS(name, arguments, pass)                                                                                   \
    ssize_t name arguments {                                                                                           \
        REAL(name);                                                                                                    \
        return *failing && refused("read,", is_ours(fd)) ? -1 : real pass;                                             \
    }

READS(read, (int fd, void *data, size_t size), (fd, data, size))
READS(pread, (int fd, void *data, size_t size, off_t offset), (fd, data, size, offset))
READS(pread64, (int fd, void *data, size_t size, off64_t offset), (fd, data, size, offset))

#define CHANGES(name, arguments, pass, kind, letter, place)                                                            \
    int name arguments {                                                                                               \
        REAL(name);                                                                                                    \
        if (!is_ours(fd)) return real pass;                                                                            \
        if (refused(kind, 1)) return -1;                                                                               \
        pthread_mutex_lock(&turn);                                                                                     \
        int failed = real pass, error = errno;                                                                         \
        if (!failed) note(letter, inode_of(fd), NULL, NULL, place, NULL, 0);                                           \
        pthread_mutex_unlock(&turn);                                                                                   \
        errno = error;                                                                                                 \
        return failed;                                                                                                 \
    }

static const char *sync_of(int fd) {
    struct stat found;
    return !fstat(fd, &found) && S_ISDIR(found.st_mode) ? "folder-sync," : "file-sync,";
}

CHANGES(fsync, (int fd), (fd), sync_of(fd), 'S', 0)
CHANGES(fdatasync, (int fd), (fd), sync_of(fd), 'S', 0)
CHANGES(ftruncate, (int fd, off_t size), (fd, size), "truncate,", 'T', size)
CHANGES(ftruncate64, (int fd, off64_t size), (fd, size), "truncate,", 'T', size)

int flock(int fd, int operation) {
    REAL(flock);
    return *failing && refused("lock,", operation != LOCK_UN && is_ours(fd)) ? -1 : real(fd, operation);
}

/* SQLite's locks of a file that it lets go of are let go of here too. */
static int locks(int command, void *argument) {
    int sets = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    return sets && ((struct flock *)argument)->l_type != F_UNLCK;
}

#define CONTROLS(name)                                                                                                 \
    int name(int fd, int command, ...) {                                                                               \
        REAL(name);                                                                                                    \
        va_list rest;                                                                                                  \
        va_start(rest, command);                                                                                       \
        void *argument = va_arg(rest, void *);                                                                         \
        va_end(rest);                                                                                                  \
        if (*failing && locks(command, argument) && refused("lock,", is_ours(fd))) return -1;                          \
        return real(fd, command, argument);                                                                            \
    }

CONTROLS(fcntl)
CONTROLS(fcntl64)

/* -- calls on names */

#define NAMES(name, arguments, pass, kind, letter, second, named)                                                      \
    int name arguments {                                                                                               \
        REAL(name);                                                                                                    \
        if (!under_root(path)) return real pass;                                                                       \
        if (refused(kind, 1)) return -1;                                                                               \
        pthread_mutex_lock(&turn);                                                                                     \
        int failed = real pass, error = errno;                                                                         \
        if (!failed) note(letter, inode_at(named), path, second, 0, NULL, 0);                                          \
        pthread_mutex_unlock(&turn);                                                                                   \
        errno = error;                                                                                                 \
        return failed;                                                                                                 \
    }

NAMES(unlink, (const char *path), (path), "unlink,", 'U', NULL, path)
NAMES(rename, (const char *path, const char *to), (path, to), "name,", 'R', to, to)
NAMES(link, (const char *path, const char *to), (path, to), "name,", 'L', to, to)
NAMES(linkat, (int at, const char *path, int at_to, const char *to, int flags), (at, path, at_to, to, flags), "name,",
      'L', to, to)
NAMES(mknod, (const char *path, mode_t mode, dev_t device), (path, mode, device), "open,", 'C', NULL, path)

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                       \
        REAL(name);                                                                                                    \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (!under_root(path)) return real(path, flags, mode);                                                         \
        if (refused("open,", 1)) return -1;                                                                            \
        pthread_mutex_lock(&turn);                                                                                     \
        int was = access(path, F_OK) == 0, fd = real(path, flags, mode), error = errno;                                \
        if (fd >= 0 && !was && flags & O_CREAT) note('C', inode_of(fd), path, NULL, 0, NULL, 0);                       \
        if (fd >= 0 && was && flags & O_TRUNC) note('T', inode_of(fd), NULL, NULL, 0, NULL, 0);                        \
        pthread_mutex_unlock(&turn);                                                                                   \
        errno = error;                                                                                                 \
        return fd;                                                                                                     \
    }

OPENS(open)
OPENS(open64)
