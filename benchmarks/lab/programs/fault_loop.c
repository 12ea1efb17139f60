/* Lets the n-th system call on files below a folder fail, be cut short, or end the process.
 *
 * Loaded by LD_PRELOAD; fault_begin() says what, fault_count() how many calls there were. Calls whose file is
 * not below the folder, and all before fault_begin(), go through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long wanted, count;
static int failing; /* an errno, SHORT or KILL */
static char met[64];
enum { NONE = 0, SHORT = -1, KILL = -2 };

void fault_begin(const char *below, long number, int fault) {
    snprintf(folder, sizeof folder, "%s", below);
    wanted = number, failing = fault, count = 0, met[0] = 0;
}
long fault_count(void) { return count; }
const char *fault_met(void) { return met; }

static int here(const char *name) { return folder[0] && name && strstr(name, folder) == name; }
static int open_here(int descriptor) {
    char link[64], name[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return here(name);
}
/* Whether this call is the one; KILL does not come back. */
static int fires(const char *call) {
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) != wanted) return NONE;
    snprintf(met, sizeof met, "%s", call);
    if (failing == KILL) kill(getpid(), SIGKILL);
    return failing;
}
static int fails(const char *call) {
    int fault = fires(call);
    if (fault > 0) { errno = fault; return 1; }
    return 0;
}
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *data, size_t size) {
    if (open_here(descriptor)) {
        int fault = fires("write");
        if (fault > 0) { errno = fault; return -1; }
        if (fault == SHORT && size > 1) size /= 2;
    }
    return NEXT(write)(descriptor, data, size);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    if (open_here(descriptor)) {
        int fault = fires("writev");
        if (fault > 0) { errno = fault; return -1; }
        if (fault == SHORT && number > 1) number = 1;
    }
    return NEXT(writev)(descriptor, parts, number);
}
ssize_t sendfile64(int, int, off64_t *, size_t);
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    if (open_here(to)) {
        int fault = fires("sendfile");
        if (fault > 0) { errno = fault; return -1; }
        if (fault == SHORT && size > 1) size = size < 8 ? 1 : 7;
    }
    return NEXT(sendfile64)(to, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
    if (open_here(to) && fails("copy_file_range")) return -1;
    return NEXT(copy_file_range)(from, in, to, out, size, flags);
}
static int opened(const char *call, const char *name, int flags, mode_t mode) {
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && here(name) && fails(call)) return -1;
    static int (*next)(const char *, int, ...);
    if (!next) next = dlsym(RTLD_NEXT, "open64");
    return next(name, flags, mode);
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *name, int flags, ...) { MODE(flags) return opened("open", name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened("open", name, flags, mode); }
int rename(const char *from, const char *to) {
    return here(to) && fails("rename") ? -1 : NEXT(rename)(from, to);
}
int fsync(int descriptor) { return open_here(descriptor) && fails("fsync") ? -1 : NEXT(fsync)(descriptor); }
int ftruncate64(int descriptor, off64_t size) {
    return open_here(descriptor) && fails("ftruncate") ? -1 : NEXT(ftruncate64)(descriptor, size);
}
int mkdir(const char *name, mode_t mode) { return here(name) && fails("mkdir") ? -1 : NEXT(mkdir)(name, mode); }
int link(const char *from, const char *to) { return here(to) && fails("link") ? -1 : NEXT(link)(from, to); }
int unlink(const char *name) { return here(name) && fails("unlink") ? -1 : NEXT(unlink)(name); }
int rmdir(const char *name) { return here(name) && fails("rmdir") ? -1 : NEXT(rmdir)(name); }
int fchmod(int descriptor, mode_t mode) {
    return open_here(descriptor) && fails("fchmod") ? -1 : NEXT(fchmod)(descriptor, mode);
}
