/* Faults between a program and its files, for LD_PRELOAD; faults.py says how they are asked for.
 *
 * WARP_FAULTS holds rules separated by ";", each "CALL ACTION FIRST LAST PATH":
 *   CALL    write, sync, syncdir, rename, unlink, create, allocate
 *   ACTION  "drop" (do nothing, claim success), "swallow" (do it, claim success), "kill" (SIGKILL instead of the call),
 *           "short" (write half), "late" (sync half a second later, claim success), or the number of an errno
 *   FIRST, LAST  which of the matching calls of this process, counted from 1
 *   PATH    only files whose path contains this; "" for all regular files and folders
 * WARP_FAULT_COUNTS names a file of one u64 a rule that counts the matching calls of all processes together, from the outside
 * visible and settable. Without it each process counts for itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { PASS = 0, DROP = -1, SWALLOW = -2, KILL = -3, SHORT = -4, LATE = -5 }; /* above 0: an errno */
enum { RULES_MAX = 8, TEXT_MAX = 512 };

struct rule {
    char call[16];
    int action;
    uint64_t first, last;
    char path[TEXT_MAX];
};

static struct rule rules[RULES_MAX];
static int rule_count;
static uint64_t own_counts[RULES_MAX];
static uint64_t *counts = own_counts;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int parse_action(const char *word) {
    if (!strcmp(word, "drop")) return DROP;
    if (!strcmp(word, "swallow")) return SWALLOW;
    if (!strcmp(word, "kill")) return KILL;
    if (!strcmp(word, "short")) return SHORT;
    if (!strcmp(word, "late")) return LATE;
    return atoi(word);
}

static void set_up(void) {
    const char *text = getenv("WARP_FAULTS"), *file = getenv("WARP_FAULT_COUNTS");
    while (text && *text && rule_count < RULES_MAX) {
        struct rule *rule = &rules[rule_count];
        char action[16] = "";
        rule->path[0] = 0;
        if (sscanf(text, "%15s %15s %lu %lu %511[^;]", rule->call, action, &rule->first, &rule->last,
                   rule->path) < 4) {
            fprintf(stderr, "WARP_FAULTS: cannot read %s\n", text);
            abort();
        }
        rule->action = parse_action(action);
        rule_count++;
        text = strchr(text, ';');
        if (text) text++;
    }
    if (file) {
        int fd = (int)REAL(open)(file, O_RDWR | O_CLOEXEC);
        void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof own_counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            perror("WARP_FAULT_COUNTS");
            abort();
        }
        counts = map;
        close(fd);
    }
}

/* Say what to do instead of a call. */
static int decide(const char *call, const char *path) {
    pthread_once(&once, set_up);
    for (int n = 0; n < rule_count; n++) {
        struct rule *rule = &rules[n];
        if (strcmp(rule->call, call) || (rule->path[0] && !strstr(path, rule->path))) continue;
        uint64_t number = __atomic_add_fetch(&counts[n], 1, __ATOMIC_SEQ_CST);
        if (number < rule->first || number > rule->last) continue;
        if (rule->action == KILL) {
            kill(getpid(), SIGKILL);
            for (;;) pause();
        }
        return rule->action;
    }
    return PASS;
}

/* As decide, for a descriptor: of a regular file, or of a folder where `call` is about those. */
static int decide_fd(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    struct stat status;
    pthread_once(&once, set_up);
    if (!rule_count || fstat(fd, &status) || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return PASS;
    path[length] = 0;
    return decide(S_ISDIR(status.st_mode) && !strcmp(call, "sync") ? "syncdir" : call, path);
}

/* Whether syncs of this descriptor are dropped for good, so that O_DSYNC has to go too. Counts nothing. */
static int drops_sync(const char *path) {
    pthread_once(&once, set_up);
    for (int n = 0; n < rule_count; n++)
        if (!strcmp(rules[n].call, "sync") && rules[n].action == DROP && strstr(path, rules[n].path)) return 1;
    return 0;
}

static int fail(int code) {
    errno = code;
    return -1;
}

#define SIMPLE(decision, real)                                \
    do {                                                      \
        int what = (decision);                                \
        if (what > 0) return fail(what);                      \
        if (what == DROP) return 0;                           \
        if (what == SWALLOW) return (void)(real), 0;          \
        return (real);                                        \
    } while (0)

static void *sync_later(void *argument) {
    int fd = (int)(intptr_t)argument;
    usleep(500 * 1000);
    REAL(fsync)(fd);
    close(fd);
    return NULL;
}

static int sync_by_rule(int fd, int (*real)(int)) {
    int decision = decide_fd("sync", fd);
    if (decision == LATE) {
        pthread_t thread;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy >= 0 && !pthread_create(&thread, NULL, sync_later, (void *)(intptr_t)copy)) pthread_detach(thread);
        return 0;
    }
    SIMPLE(decision, real(fd));
}

int fsync(int fd) { return sync_by_rule(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_by_rule(fd, REAL(fdatasync)); }
int syncfs(int fd) { SIMPLE(decide_fd("sync", fd), REAL(syncfs)(fd)); }
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    SIMPLE(decide_fd("sync", fd), REAL(sync_file_range)(fd, offset, length, flags));
}
int msync(void *address, size_t length, int flags) { SIMPLE(decide("sync", "mapped"), REAL(msync)(address, length, flags)); }

int rename(const char *from, const char *to) { SIMPLE(decide("rename", to), REAL(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
    SIMPLE(decide("rename", to), REAL(renameat)(a, from, b, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    SIMPLE(decide("rename", to), REAL(renameat2)(a, from, b, to, flags));
}
int unlink(const char *path) { SIMPLE(decide("unlink", path), REAL(unlink)(path)); }
int unlinkat(int fd, const char *path, int flags) { SIMPLE(decide("unlink", path), REAL(unlinkat)(fd, path, flags)); }

int ftruncate(int fd, off_t size) { SIMPLE(decide_fd("allocate", fd), REAL(ftruncate)(fd, size)); }
int ftruncate64(int fd, off64_t size) { SIMPLE(decide_fd("allocate", fd), REAL(ftruncate64)(fd, size)); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
    SIMPLE(decide_fd("allocate", fd), REAL(fallocate)(fd, mode, offset, length));
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    SIMPLE(decide_fd("allocate", fd), REAL(fallocate64)(fd, mode, offset, length));
}
/* These answer with the errno itself. */
int posix_fallocate(int fd, off_t offset, off_t length) {
    int what = decide_fd("allocate", fd);
    return what > 0 ? what : what == DROP ? 0 : REAL(posix_fallocate)(fd, offset, length);
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    int what = decide_fd("allocate", fd);
    return what > 0 ? what : what == DROP ? 0 : REAL(posix_fallocate64)(fd, offset, length);
}

static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int n = 0; n < count; n++) sum += parts[n].iov_len;
    return sum;
}

#define WRITE(fd, size, real, half)                           \
    do {                                                      \
        int what = decide_fd("write", fd);                    \
        if (what > 0) return fail(what);                      \
        if (what == DROP) return (ssize_t)(size);             \
        if (what == SWALLOW) return (void)!(real), (ssize_t)(size); \
        if (what == SHORT && (size) > 1) return (half);       \
        return (real);                                        \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    WRITE(fd, size, REAL(write)(fd, data, size), REAL(write)(fd, data, size / 2));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    WRITE(fd, size, REAL(pwrite)(fd, data, size, offset), REAL(pwrite)(fd, data, size / 2, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    WRITE(fd, size, REAL(pwrite64)(fd, data, size, offset), REAL(pwrite64)(fd, data, size / 2, offset));
}
/* Half of a gathered write is its first buffer, or half of that if there is no other. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    WRITE(fd, total(parts, count), REAL(writev)(fd, parts, count),
          count > 1 ? REAL(writev)(fd, parts, 1) : REAL(write)(fd, parts->iov_base, parts->iov_len / 2));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    WRITE(fd, total(parts, count), REAL(pwritev)(fd, parts, count, offset),
          count > 1 ? REAL(pwritev)(fd, parts, 1, offset)
                    : REAL(pwrite)(fd, parts->iov_base, parts->iov_len / 2, offset));
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    WRITE(fd, total(parts, count), REAL(pwritev64)(fd, parts, count, offset),
          count > 1 ? REAL(pwritev64)(fd, parts, 1, offset)
                    : REAL(pwrite64)(fd, parts->iov_base, parts->iov_len / 2, offset));
}

static int without_sync(int fd, int flags) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return flags;
    path[length] = 0;
    return drops_sync(path) ? flags & ~(RWF_DSYNC | RWF_SYNC) : flags;
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    flags = without_sync(fd, flags);
    WRITE(fd, total(parts, count), REAL(pwritev2)(fd, parts, count, offset, flags),
          count > 1 ? REAL(pwritev2)(fd, parts, 1, offset, flags)
                    : REAL(pwrite)(fd, parts->iov_base, parts->iov_len / 2, offset));
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    flags = without_sync(fd, flags);
    WRITE(fd, total(parts, count), REAL(pwritev64v2)(fd, parts, count, offset, flags),
          count > 1 ? REAL(pwritev64v2)(fd, parts, 1, offset, flags)
                    : REAL(pwrite64)(fd, parts->iov_base, parts->iov_len / 2, offset));
}

/* The kernel's own ways to write a file count as writes of it. */
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t size, unsigned flags) {
    WRITE(out, size, REAL(copy_file_range)(in, at, out, to, size, flags),
          REAL(copy_file_range)(in, at, out, to, size / 2, flags));
}
ssize_t splice(int in, off64_t *at, int out, off64_t *to, size_t size, unsigned flags) {
    WRITE(out, size, REAL(splice)(in, at, out, to, size, flags), REAL(splice)(in, at, out, to, size / 2, flags));
}

#define OPEN(path, flags, real)                               \
    do {                                                      \
        if ((flags) & (O_CREAT | O_TMPFILE) & ~O_DIRECTORY) { \
            int what = decide("create", path);                \
            if (what > 0) return fail(what);                  \
        }                                                     \
        if (((flags) & (O_SYNC | O_DSYNC)) && drops_sync(path)) flags &= ~(O_SYNC | O_DSYNC); \
        return (real);                                        \
    } while (0)
#define MODE(last)                                            \
    mode_t mode = 0;                                          \
    do {                                                      \
        va_list rest;                                         \
        va_start(rest, last);                                 \
        if ((last) & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest);                                         \
    } while (0)

int open(const char *path, int flags, ...) { MODE(flags); OPEN(path, flags, REAL(open)(path, flags, mode)); }
int open64(const char *path, int flags, ...) { MODE(flags); OPEN(path, flags, REAL(open64)(path, flags, mode)); }
int openat(int fd, const char *path, int flags, ...) {
    MODE(flags);
    OPEN(path, flags, REAL(openat)(fd, path, flags, mode));
}
int openat64(int fd, const char *path, int flags, ...) {
    MODE(flags);
    OPEN(path, flags, REAL(openat64)(fd, path, flags, mode));
}
